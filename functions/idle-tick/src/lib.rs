//! `idle-tick`: finds what is due (idle sessions, deadlines, leases that ran out, unsent effects,
//! compute resources that a driver has said nothing of) and has it looked after.
//!
//! # Source
//!
//! "Customize the idle time, which deletes the compute session automatically if it isn't in use for
//! a while" (the specification).

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

use aws::{Aws, Record};
use contract::{names, tick::Tick};
use lifecycle::{Code, Failure};
use shell::{Fault, Swept};
use std::sync::Arc;

/// Serves until the Lambda service ends the process.
///
/// # Errors
///
/// When the environment is wrong or the runtime API is gone. Final for this process.
pub async fn run() -> Result<(), lambda_runtime::Error> {
    aws::each_record(Arc::new(aws::boot()?), handle).await
}

/// Sweeps the shard that the tick names, or all.
///
/// # Errors
///
/// A transient [`Fault`]: what was not swept is still due.
pub async fn handle(aws: Arc<Aws>, record: Record) -> Result<(), Fault> {
    let tick: Tick = serde_json::from_str(&record.body)
        .map_err(|e| Fault::Meaningless(Failure::new(Code::TickMalformed, format!("This is no tick: {e}."))))?;
    let shards = tick
        .shard
        .map_or(0..names::DUE_SHARDS, |shard| shard..shard.saturating_add(1));
    let mut found = Swept::default();
    for shard in shards {
        found = found.and(shell::sweep(&*aws, shard).await?);
    }
    aws.tell_swept(&found);
    Ok(())
}
