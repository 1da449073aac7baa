//! `install-packages`: the step that has the agent bring the environment to what the flow's
//! requirements say.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

use aws::{Aws, Record};
use shell::Fault;
use std::sync::Arc;

/// Serves until the Lambda service ends the process.
///
/// # Errors
///
/// When the environment is wrong or the runtime API is gone. Final for this process.
pub async fn run() -> Result<(), lambda_runtime::Error> {
    aws::each_record(Arc::new(aws::boot()?), handle).await
}

/// Enters the step.
///
/// # Errors
///
/// A transient [`Fault`]: the message comes again, and the same step twice is once.
pub async fn handle(aws: Arc<Aws>, record: Record) -> Result<(), Fault> {
    shell::enter_step(&*aws, &record.body).await
}
