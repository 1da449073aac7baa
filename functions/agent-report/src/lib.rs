//! `agent-report`: takes in what compute drivers and sessions' agents saw.
//!
//! A driver is known by the queue's own sender. An agent is known by its signature: what it says
//! counts only for the session and the generation whose key signed it, so code in one session
//! cannot speak for another.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

use aws::{Aws, Record};
use contract::{
    agent::{AgentReport, SignedBody, SignedReport},
    driver::DriverReport,
    network::NetworkRow,
};
use lifecycle::{
    Code, Failure,
    compute::Seen,
    session::{Event, Session},
};
use shell::{Fault, Happened, Ports, happen, observe_compute, record_packages, record_use};
use std::sync::Arc;

/// Serves until the Lambda service ends the process.
///
/// # Errors
///
/// When the environment is wrong or the runtime API is gone. Final for this process.
pub async fn run() -> Result<(), lambda_runtime::Error> {
    aws::each_record(Arc::new(aws::boot()?), handle).await
}

/// Takes in one report.
///
/// # Errors
///
/// A transient [`Fault`]: the message comes again, and the same report twice is once.
/// [`Fault::Meaningless`] goes to the dead-letter queue.
pub async fn handle(aws: Arc<Aws>, record: Record) -> Result<(), Fault> {
    if let Ok(signed) = serde_json::from_str::<SignedReport>(&record.body) {
        return agent(&*aws, &signed).await;
    }
    let report: DriverReport = serde_json::from_str(&record.body)
        .map_err(|e| Fault::Meaningless(Failure::new(Code::ReportMalformed, format!("This is no report: {e}."))))?;
    if !aws.is_driver(&record) {
        tracing::warn!(
            sender = record.attributes.sender_id,
            fault = Code::ReportForged.as_str(),
            "a report of no driver was dropped"
        );
        return Ok(());
    }
    driver(&*aws, report).await
}

async fn driver(ports: &impl Ports, report: DriverReport) -> Result<(), Fault> {
    let (flow, event) = match report {
        DriverReport::ComputeUp { compute } => return observe_compute(ports, &compute, Seen::Up, "").await,
        DriverReport::ComputeGone { compute, why } => return observe_compute(ports, &compute, Seen::Gone, &why).await,
        DriverReport::SessionUp { flow, generation, key } => (flow, Event::SessionUp { generation, key }),
        DriverReport::ImageChecked {
            flow,
            generation,
            operation,
            failure,
        } => (
            flow,
            Event::ImageChecked {
                generation,
                operation,
                failure,
            },
        ),
        DriverReport::SessionGone {
            flow,
            generation,
            failure,
        } => (flow, Event::SessionGone { generation, failure }),
    };
    // A report is never refused.
    let _ = happen(ports, &Happened::new(&flow, event, "driver")).await?;
    Ok(())
}

async fn agent(ports: &impl Ports, signed: &SignedReport) -> Result<(), Fault> {
    let body: SignedBody = serde_json::from_str(&signed.body).map_err(|e| {
        Fault::Meaningless(Failure::new(
            Code::ReportMalformed,
            format!("This is no agent's report: {e}."),
        ))
    })?;
    let Some(row) = ports.load_session(&body.flow).await? else {
        return Ok(());
    };
    let session = &row.session;
    // The word of an older generation is worth nothing, so neither is its proof.
    if session.generation != body.generation
        || !session.agent_key.as_deref().is_some_and(|key| signed.is_signed_by(key))
    {
        tracing::warn!(
            flow = body.flow,
            generation = body.generation,
            fault = Code::ReportUnproved.as_str(),
            "a report was dropped"
        );
        return Ok(());
    }
    if let AgentReport::RunDone { run, result, .. } = &body.report
        && let Some(used) = result.used.filter(|_| session.runs.contains_key(run))
    {
        record_use(ports, &body.flow, run, used).await?;
    }
    // The end of an install is seen together with its result.
    record(ports, session, &body.report).await?;
    report(ports, session, &body).await
}

/// Takes in what an agent whose proof holds has reported.
async fn report(ports: &impl Ports, session: &Session, body: &SignedBody) -> Result<(), Fault> {
    if let Some(event) = event_of(&body.report, body.generation) {
        let result = match &body.report {
            AgentReport::RunDone { result, .. } => Some(result),
            _ => None,
        };
        let happened = Happened {
            result,
            ..Happened::new(&body.flow, event, "agent")
        };
        // A report is never refused.
        let _ = happen(ports, &happened).await?;
        return Ok(());
    }
    match &body.report {
        AgentReport::RunStarted { run } if session.runs.contains_key(run) => ports.run_started(run, ports.now()).await,
        AgentReport::Refused { refused } => {
            let row = NetworkRow {
                generation: body.generation,
                at: ports.now(),
                refused: refused.clone(),
            };
            ports.keep_refused(&body.flow, &row).await
        }
        AgentReport::Output { of, lines } => output(ports, &body.flow, of, lines).await,
        _ => Ok(()),
    }
}

/// Maps a report to an event of the session, if it is one.
fn event_of(report: &AgentReport, generation: u32) -> Option<Event> {
    Some(match report {
        AgentReport::Alive { nonce, runs } => Event::Alive {
            generation,
            nonce: *nonce,
            runs: runs.clone(),
        },
        AgentReport::Activity => Event::Activity { generation },
        AgentReport::Installed {
            operation,
            attempt,
            warning,
            ..
        } => Event::Installed {
            generation,
            operation: operation.clone(),
            attempt: *attempt,
            warning: warning.clone(),
        },
        AgentReport::InstallFailed {
            operation,
            attempt,
            failure,
            ..
        } => Event::InstallFailed {
            generation,
            operation: operation.clone(),
            attempt: *attempt,
            failure: failure.clone(),
        },
        AgentReport::RunDone { run, outcome, result } => Event::RunDone {
            generation,
            run: run.clone(),
            outcome: *outcome,
            failure: result.failure.clone(),
        },
        AgentReport::Image { digest, latest } => Event::ImageSeen {
            generation,
            digest: digest.clone(),
            latest: latest.clone(),
        },
        AgentReport::RunStarted { .. }
        | AgentReport::Packages { .. }
        | AgentReport::Refused { .. }
        | AgentReport::Output { .. } => return None,
    })
}

/// Keeps what an agent says of what is installed, and of how that ended.
async fn record(ports: &impl Ports, session: &Session, report: &AgentReport) -> Result<(), Fault> {
    let (by, setup, installation) = match report {
        AgentReport::Installed {
            operation,
            setup,
            installation,
            ..
        } => (operation, setup.as_ref(), installation.as_deref()),
        AgentReport::InstallFailed { operation, setup, .. } => (operation, setup.as_ref(), None),
        AgentReport::Packages { run, installation } => (run, None, Some(&**installation)),
        _ => return Ok(()),
    };
    let operation = session.current.as_ref().filter(|current| current.id == *by);
    if let (Some(setup), Some(_)) = (setup, operation) {
        ports.keep_setup(by, setup).await?;
    }
    if let Some(installation) = installation {
        let kind = operation.map(|current| current.kind);
        record_packages(ports, &session.flow, session.generation, by, kind, installation).await?;
    }
    Ok(())
}

/// Keeps output, if it is of an operation or a run of the flow whose agent speaks.
async fn output(ports: &impl Ports, flow: &str, of: &str, lines: &[contract::agent::OutputLine]) -> Result<(), Fault> {
    let theirs = match ports.load_run(of).await? {
        Some(run) => run.flow == flow,
        None => ports
            .load_operation(of)
            .await?
            .is_some_and(|operation| operation.flow == flow),
    };
    if theirs {
        ports.keep_output(of, lines).await
    } else {
        Ok(())
    }
}
