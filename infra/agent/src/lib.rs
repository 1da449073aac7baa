//! The agent of a session: it installs, runs, reports, and keeps the lease.
//!
//! * [`supervise`]: the agent of one session, a process of its own outside the sandbox. `pfsession
//!   agent` calls it.
//! * [`supervise_container`]: the same where the session has a container of its own. `pfsession
//!   agent --container` calls it.
//! * [`connections`]: the connections of users and workspaces, and what a run gets of them.
//!
//! ```text
//! driver ──▶ agent (supervisor, one a session) ── socket ──▶ runner (process 1 of the sandbox) ──▶ a fork for each run
//!              │ queue, signed reports                                  ▲ a fork of the warm process, or a fresh interpreter
//!              └─ environments ──▶ uv, in a sandbox of its own
//! ```
//!
//! Absent here: the queues themselves, the table, the making of a sandbox (crate `sandbox`) and of
//! its environment (crate `environments`), and every decision about a session's life.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod clock;
pub mod connections;
mod contained;
mod container;
mod data;
pub mod disk;
mod earlier;
pub mod folders;
mod http;
mod output;
mod place;
mod prune;
mod records;
mod report;
mod run;
mod runner;
pub mod sandboxes;
mod secrets;
mod service;
mod spec;
pub mod sqs;
mod supervisor;
pub mod tidy;
mod variables;
pub mod warm;

pub use container::supervise_container;
pub use report::bound;
pub use spec::{AgentCredentials, AgentSpec, Told};
pub use supervisor::supervise;
pub use warm::let_go;

use sandbox::files::{digest, random, write_atomically};
