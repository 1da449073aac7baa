//! The adapters: the shell's [`Ports`](shell::Ports) over DynamoDB, SQS and Step Functions, and the
//! way in from a Lambda event.
//!
//! No meaning is here. A row, a message and an answer are carried over, and the errors of the
//! outside become the shell's.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod batch;
mod boot;
mod connections;
mod items;
mod metrics;
mod ports;
mod reads;
mod runs;
mod sessions;
mod trace;
mod workspaces;

pub use batch::{Record, each_record};
pub use boot::{Aws, boot, make_from, start_log};
pub use trace::trace_work;
