//! Flow folders where they can be read: on this machine, or as snapshots in an object store, by
//! digest.
//!
//! * [`Folders`]: opens what a session's settings call its folder, whichever of the two it is.
//! * [`aside`]: reads what a user wrote where nothing else waits for it.
//! * [`Store`]: the object store: what is there, where to send what is not, and getting it;
//!   likewise the files of runs.
//! * [`RunStore`]: the files of runs for a function, wherever they are.
//!
//! No permission is checked here. The caller names a flow, and reads the objects of that flow
//! alone.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod aside;
mod folders;
mod run_store;
mod store;
mod stored;

pub use aside::aside;
pub use folders::{Folders, Laid, Opened, OpenedFile, short_text};
pub use lifecycle::Failure;
pub use run_store::RunStore;
pub use store::{FRESH, Store};
pub use stored::MOST_INDEX;

/// The fault of a read or a write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Final.
    #[error("{0}")]
    Wrong(Failure),
    /// Worth a retry.
    #[error("{0}")]
    NotNow(Failure),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Wrong(failure)
    }
}

impl Fault {
    /// The failure, for a caller that does not retry.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Wrong(failure) | Self::NotNow(failure) => failure,
        }
    }
}

/// The SHA-256 of some bytes, in hex.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}
