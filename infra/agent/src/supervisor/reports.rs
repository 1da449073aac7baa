//! Sends what the agent has to say, in order, until it is taken.

use super::Agent;
use crate::{clock::boot_time, report, sqs};
use contract::Code;
use contract::agent::{AgentReport, SignedBody};
use environments::reach;
use std::{rc::Rc, time::Duration};
use tokio::sync::mpsc::UnboundedReceiver;

/// The first wait before a report that was not taken is sent again; longer each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Sends what the agent has to say, in order, each until it is taken or is known never to be.
pub(super) async fn send_reports(agent: Rc<Agent>, mut outgoing: UnboundedReceiver<AgentReport>) {
    while let Some(report) = outgoing.recv().await {
        let done = match &report {
            AgentReport::RunDone { run, .. } => Some(run.clone()),
            _ => None,
        };
        agent.send(report, None).await;
        if let Some(run) = done {
            agent.open.borrow_mut().remove(&run);
        }
    }
}

impl Agent {
    pub(super) fn say(&self, report: AgentReport) {
        // The receiver lives as long as the process.
        let _ = self.reports.send(report);
    }

    /// Sends a report until it is taken. One that is refused for what is in it goes without what
    /// may be large, once, and is then given up.
    ///
    /// * `until`: by [`boot_time`]: from then on it is of no use.
    pub(super) async fn send(&self, report: AgentReport, until: Option<u64>) {
        let mut body = SignedBody {
            flow: self.spec.flow.clone(),
            generation: self.spec.generation,
            report,
        };
        let mut signed = report::sign_bounded(&self.key, &mut body);
        let (mut pause, mut is_stripped) = (FIRST_PAUSE, false);
        while until.is_none_or(|until| boot_time() < until) {
            let sent = self
                .client
                .send_message()
                .queue_url(&self.spec.reports_queue_url)
                .message_body(&signed)
                .send()
                .await;
            match sent {
                Ok(_) => return,
                Err(error) if sqs::is_refused_for_good(&error) => {
                    tracing::error!(
                        fault = Code::ReportRefused.as_str(),
                        cause = sqs::chain(&error),
                        is_stripped,
                        "a report is refused for what is in it"
                    );
                    if std::mem::replace(&mut is_stripped, true) {
                        return;
                    }
                    report::strip(&mut body.report);
                    signed = report::sign_bounded(&self.key, &mut body);
                }
                Err(error) => {
                    if pause == FIRST_PAUSE {
                        tracing::warn!(error = %sqs::chain(&error), "a report is not taken yet");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    /// Reports what was refused, if that is more than was reported.
    pub(super) fn report_refused(&self) {
        let refused = reach::report_refused(&self.counts);
        if refused.total > self.refused_reported.get() {
            self.refused_reported.set(refused.total);
            self.say(AgentReport::Refused { refused });
        }
    }
}
