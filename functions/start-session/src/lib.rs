//! `start-session`: the steps that bring a session up. `claim-compute` resolves what the flow asks for, checks the quota, and claims a
//! compute resource of this user or asks for a new one; `launch-session` asks the driver for the container.

use aws::{Aws, Record};
use contract::step::StepMessage;
use lifecycle::{
    Failure,
    session::{Event, Step},
};
use shell::{Fault, Happened, Ports, happen};
use std::{path::Path, sync::Arc};

/// Serves until the Lambda service ends the process.
///
/// # Errors
///
/// When the environment is wrong or the runtime API is gone. Final for this process.
pub async fn run() -> Result<(), lambda_runtime::Error> {
    aws::each_record(Arc::new(aws::boot()?), handle).await
}

/// Enters one step.
///
/// # Errors
///
/// A transient [`Fault`]: the message comes again, and the same step twice is once.
pub async fn handle(aws: Arc<Aws>, record: Record) -> Result<(), Fault> {
    let step = StepMessage::read(&record.body).map_err(Fault::Meaningless)?;
    let cause = if step.step == Step::ClaimCompute {
        missing(&*aws, &step).await?
    } else {
        None
    };
    let event = Event::StepEntered {
        operation: step.operation,
        step: step.step,
        token: step.token,
        compute: None,
        cause,
    };
    // A step is refused by nobody: one that is not current is answered so.
    let _ = happen(&*aws, &Happened::new(&step.flow, event, "states")).await?;
    Ok(())
}

/// What stands in the way of a start, if anything does: the flow folder is read once before anything is made for it.
///
/// # Source
///
/// "Start a compute session using the environment defined in `flow.dag.yaml` in the flow folder" (seed, *Start a compute session*).
async fn missing(ports: &impl Ports, step: &StepMessage) -> Result<Option<Failure>, Fault> {
    let Some(row) = ports.load_session(&step.flow).await? else {
        return Ok(None);
    };
    let settings = &row.session.settings;
    if settings.identity.is_some() {
        return Ok(Some(Failure::new(
            "Session.NoIdentity",
            "A user-assigned identity needs a compute resource on AWS, and this one is on one machine. Leave the identity out.",
        )));
    }
    let folder = Path::new(&settings.folder);
    Ok(flow::environment(folder, &flow::include_root(folder)).err())
}
