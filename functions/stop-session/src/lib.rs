//! `stop-session`: the steps that have the driver remove the container: a stop, the first half of a
//! reset, and the clean-up after what failed.

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

/// Enters one step.
///
/// # Errors
///
/// A transient [`Fault`]: the message comes again, and the same step twice is once.
pub async fn handle(aws: Arc<Aws>, record: Record) -> Result<(), Fault> {
    shell::enter_step(&*aws, &record.body).await
}
