//! Commands that have no meaning in a phase.

use super::{Kind, MOST_RUNS};
use crate::{Code, Failure};

/// A command that has no meaning here. Final: nothing has changed, and trying again will not help.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no session to do this with.
    NoSession(Kind),
    /// Another operation runs and another one waits.
    Busy { running: Kind, waiting: Kind },
    /// The session has as many runs as it takes.
    TooManyRuns,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoSession(kind) => Failure::new(
                Code::SessionNoSession,
                format!(
                    "{} needs a session, and this flow has none. Start one first.",
                    word(kind)
                ),
            ),
            Refusal::Busy { running, waiting } => Failure::new(
                Code::SessionBusy,
                format!(
                    "{} is under way and {} waits. Try again when one has ended, or stop the session.",
                    word(running),
                    word(waiting)
                ),
            ),
            Refusal::TooManyRuns => Failure::new(
                Code::SessionTooManyRuns,
                format!("The session has {MOST_RUNS} runs already. Try again when some have ended."),
            ),
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Start => "a start",
        Kind::Install => "an install",
        Kind::Update => "an update",
        Kind::Reset => "a reset",
        Kind::Stop => "a stop",
    }
}
