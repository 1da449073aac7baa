//! Sessions on one machine: the compute driver that starts and ends them, and the agent that runs inside each.
//!
//! * [`driver`]: what the host hands compute requests to. It makes compute resources and sessions, and watches them.
//! * [`supervise`]: the agent of one session, a process of its own outside the sandbox. `pfsession agent` calls it.
//!
//! What is absent here: the queues themselves, the table, and every decision about a session's life.

pub mod driver;
mod supervisor;

pub use supervisor::supervise;
