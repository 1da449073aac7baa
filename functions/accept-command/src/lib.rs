//! `accept-command`: takes commands from `commands.fifo`, decides with the core, and starts an
//! execution of the state machine for each operation that is admitted. One that is refused says why
//! in the row where its sender looks; what is no command at all goes to the dead-letter queue by
//! this handler's own hand, so that it holds up nobody.

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

/// Takes in one command.
///
/// # Errors
///
/// A transient [`Fault`]: the message comes again, and the same command twice is once.
pub async fn handle(aws: Arc<Aws>, record: Record) -> Result<(), Fault> {
    match shell::accept(&*aws, &record.body, &aws.sender(&record)).await {
        Err(Fault::Meaningless(failure)) => {
            tracing::warn!(
                message = record.message_id,
                fault = failure.error.as_str(),
                cause = failure.message,
                "buried"
            );
            aws.bury_record(&record).await
        }
        done => done,
    }
}
