//! Sessions on one machine: the compute driver that starts and ends them, and the agent that runs inside each.
//!
//! * [`driver`]: what the host hands compute requests to. It makes compute resources and sessions, and watches them.
//! * [`elsewhere`]: the same driver for a control plane that is not on this machine: its requests from SQS, its reports to SQS.
//! * [`supervise`]: the agent of one session, a process of its own outside the sandbox. `pfsession agent` calls it.
//! * [`supervise_container`]: the same where the session has a container of its own. `pfsession agent --container` calls it.
//! * [`connections`]: the connections of users and workspaces, and what a run gets of them.
//!
//! ```text
//! host ── driver ──▶ agent (supervisor, one a session) ── socket ──▶ runner (process 1 of the sandbox) ──▶ a fork for each run
//!                      │ queue, signed reports                          ▲ a fork of the warm process, or a fresh interpreter
//!                      └─ environments ──▶ uv, in a sandbox of its own
//! ```
//!
//! What is absent here: the queues themselves, the table, the making of a sandbox (crate `sandbox`) and of its environment (crate `environments`), and every decision about a session's life.

pub mod connections;
mod contained;
mod container;
mod data;
pub mod disk;
pub mod driver;
pub mod elsewhere;
mod output;
mod prune;
mod records;
mod report;
pub mod requests;
mod run;
mod runner;
mod sqs;
mod supervisor;
mod tidy;
mod trust;
mod warm;

pub use container::supervise_container;
pub use supervisor::supervise;
pub use trust::check_path;
pub use warm::let_go;

use sandbox::files::{digest, random, write_atomically};
