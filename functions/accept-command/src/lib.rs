//! `accept-command`: takes commands from `commands.fifo`, decides with the core, and starts an
//! execution of the state machine for each admitted operation. A refused command has the reason in
//! its row. This handler moves a body that is no command to the dead-letter queue, so that no other
//! command waits for it.

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
