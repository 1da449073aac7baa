//! One machine: a loopback host for what the functions see of AWS.
//!
//! It reads the same `template.yaml` and `lifecycle.asl.json` that are deployed, and answers
//! through a socket in its state folder, and on 127.0.0.1 ([`doors`]):
//!
//! * the AWS protocols of the queues, the table and the state machine, for clients that sign with a
//!   key of this host ([`access`]);
//! * the Lambda runtime API, for the functions' processes, which it starts ([`functions`]);
//! * `/v1/*`, for clients, answered by the function `api` ([`front`]);
//! * `GET /host/health`, and `POST /host/down`.
//!
//! State is in one folder, and is whole after `kill -9` at any moment: a message, a step's token
//! and a row are there once their sender has been answered. What is absent here: every rule of a
//! session's life. That is the functions' own.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod access;
mod asl;
mod ballast;
mod compute;
mod doors;
pub mod faults;
mod front;
mod functions;
#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod fuzzed_front;
mod host;
mod machine;
mod memory;
mod own;
mod queues;
mod schedule;
mod sqs;
mod store;
mod table;
mod template;
mod wire;

pub use access::Issuer;
pub use host::{AlreadyRunning, Config, HostFile, WEBHOOK_SECRETS, serve, version};
