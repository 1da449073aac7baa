//! The shell around the core: load → decide → save → send.
//!
//! One transaction saves what was decided: the session, its history, the rows that go with it, the
//! claims, and the messages still to be sent. Then they are sent, then cleared. A crash between any
//! two of these loses nothing: the next event of the session sends what is left over, and a sweep
//! comes within [`lifecycle::deadlines::OUTBOX`] at the latest.
//!
//! No SDK is used here. What the shell needs of the outside is [`Ports`]; `shared/aws` has the
//! adapters.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod actions;
mod admission;
mod check;
mod claim;
mod command;
mod compute;
mod daily;
mod instances;
mod packages;
mod people;
mod placement;
mod ports;
mod runs;
mod sizes;
mod sweep;
mod turn;
mod why;
mod wish;
pub mod workspace;

pub use actions::action_of;
pub use admission::{EVERYBODY, sum_usages};
pub use check::check;
pub use command::{Sender, SpeaksFor, accept};
pub use daily::{daily_due, watch_anew};
pub use packages::record_packages;
pub use people::Known;
pub use placement::{shutdown_due, slot_of};
pub use ports::{Due, DueRow, Ports, Save, Write};
pub use runs::{change_run, delete_run, find_run};
pub use sizes::record_use;
pub use sweep::{Swept, sweep};
pub use turn::{Happened, enter_step, happen, observe_compute};
pub use why::why;
pub use wish::defaults;

use lifecycle::{Code, Failure};

/// The most retries of a save after an optimistic-lock conflict.
pub const SAVE_TRIES: usize = 30;

/// The fault of a handler.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Somebody else changed a row between the read and the save. Worth a retry at once, from the
    /// read on.
    #[error("somebody else changed the row")]
    Conflict,
    /// The outside did not do its part. Worth a retry.
    #[error("{what} did not succeed")]
    Outside {
        what: &'static str,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The message makes no sense, and never will. Final.
    #[error("{0}")]
    Meaningless(Failure),
}

impl Fault {
    /// A fault of the outside, with what was being done.
    pub fn outside(what: &'static str) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |cause| Self::Outside { what, cause }
    }

    /// The code, for the log.
    pub fn code(&self) -> Code {
        match self {
            Self::Conflict => Code::ShellConflict,
            Self::Outside { .. } => Code::ShellOutside,
            Self::Meaningless(_) => Code::ShellMeaningless,
        }
    }
}
