//! `stop-session`: the steps that have the driver remove the container: a stop, the first half of a
//! reset, and the clean-up after what failed.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

use aws::{Aws, Record};
use contract::step::StepMessage;
use shell::{Fault, Happened, happen};
use std::sync::Arc;

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
    // A step is refused by nobody: one that is not current is answered so.
    let _ = happen(&*aws, &Happened::new(&step.flow, step.event(), "states")).await?;
    Ok(())
}
