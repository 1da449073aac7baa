//! Sessions on one machine: the compute driver that starts and ends them, and the agent that runs inside each.
//!
//! * [`driver`]: what the host hands compute requests to. It makes compute resources and sessions, and watches them.
//! * [`elsewhere`]: the same driver for a control plane that is not on this machine: its requests from SQS, its reports to SQS.
//! * [`supervise`]: the agent of one session, a process of its own outside the sandbox. `pfsession agent` calls it.
//! * [`supervise_container`]: the same where the session has a container of its own. `pfsession agent --container` calls it.
//! * [`private`]: the credentials of private package feeds.
//! * [`sandbox`]: how well sessions are kept apart on this machine.
//!
//! ```text
//! host ── driver ──▶ agent (supervisor, one a session) ── socket ──▶ runner (process 1 of the sandbox) ──▶ a fork for each run
//!                      │ queue, signed reports                          ▲ a fork of the warm process, or a fresh interpreter
//!                      └─ store ──▶ uv, in a sandbox of its own
//! ```
//!
//! What is absent here: the queues themselves, the table, and every decision about a session's life.

mod container;
pub mod driver;
pub mod elsewhere;
mod groups;
mod image;
mod output;
mod packages;
pub mod private;
mod process;
mod prune;
mod python;
pub mod requests;
mod run;
mod runner;
pub mod sandbox;
mod sqs;
mod store;
mod supervisor;
mod uv;
mod warm;

pub use container::supervise_container;
pub use store::{FOLDER as STORE, folder as store_folder};
pub use supervisor::supervise;
pub use uv::kept_variables;

use sha2::{Digest, Sha256};
use std::{io, path::Path};

/// 32 hex digits over all of `parts`, and where each ends.
fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A name that nobody else has.
fn random() -> String {
    let mut bytes = [0; 8];
    // Without a source of randomness the process id in front of it has to do.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file so that whoever reads it sees all of it or what was there before. Makes its folder.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let partial = folder.join(format!(".{}-{}", std::process::id(), random()));
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}
