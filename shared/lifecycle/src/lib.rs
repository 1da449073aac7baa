//! The lifecycle of a compute session, as a pure function: a state and an event go in, the next
//! state and the effects come out.
//!
//! This crate owns *legality and meaning*: what an event means in a phase. Order and time (which
//! step comes next, how long to wait, what to clean up after a failure) belong to
//! `infra/lifecycle.asl.json`.
//!
//! Absent here, on purpose: a clock, a random number, a network, JSON, `async`. Time and new ids
//! are arguments. That is why it cannot fail halfway, and why `tests/` can search every
//! interleaving of it.
//!
//! * [`session`]: one flow's compute session ([`session::decide`]).
//! * [`compute`]: one compute resource of one user ([`compute::claim`], [`compute::leave`]).
//! * [`Code`]: the error codes.
//! * [`access`]: who may do what ([`access::may`]).
//! * [`size`]: what each VM size is.
//! * [`quota`]: how much one user may have at once and on one day ([`quota::Usage::enter`]).
//! * [`network`]: what a session may reach of the network.
//! * [`deadlines`]: every number of milliseconds that a promise rests on.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

pub mod access;
mod code;
pub mod compute;
mod count;
pub mod deadlines;
pub mod network;
pub mod quota;
pub mod session;
pub mod size;

pub use code::Code;
pub use count::{count, count_with};

/// Milliseconds since the Unix epoch, by the control plane's clock.
pub type Millis = u64;

/// A failure: a stable name for programs, and a sentence for people.
///
/// * `error`: the code that reaches the log, the reply and the state machine's `ErrorEquals`, such
///   as `Session.QuotaExceeded`.
/// * `message`: what happened and what to do next. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Failure {
    pub error: Code,
    pub message: String,
}

impl Failure {
    /// Makes a failure from its stable name and its sentence. Of a sentence that is too long the
    /// middle is left out, and that is said.
    pub fn new(error: Code, message: impl Into<String>) -> Self {
        Self {
            error,
            message: without_middle(message.into()),
        }
    }
}

/// The most characters of a sentence: it may repeat what a user wrote, of any length.
const LONGEST: usize = 4_000;

/// Leaves out the middle: the beginning of a sentence says what happened, and its end what to do.
fn without_middle(text: String) -> String {
    let count = if text.len() > LONGEST { text.chars().count() } else { 0 };
    if count <= LONGEST {
        return text;
    }
    let (first, last) = (LONGEST * 3 / 4, LONGEST / 4);
    let at = |character: usize| text.char_indices().nth(character).map_or(text.len(), |(at, _)| at);
    format!(
        "{} … ({} characters) … {}",
        &text[..at(first)],
        count - first - last,
        &text[at(count - last)..]
    )
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.error, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_of_any_length_keeps_what_happened_and_what_to_do() {
        let failure = Failure::new(
            Code::InstallConflict,
            format!("{} is wrong. Correct it.", "日".repeat(1 << 20)),
        );
        assert_eq!(
            failure.message.chars().count(),
            4_000 + " … (1044598 characters) … ".chars().count()
        );
        assert!(failure.message.starts_with("日") && failure.message.ends_with("日 is wrong. Correct it."));
        assert!(failure.message.contains(" … (1044598 characters) … "), "{failure}");
        let short = "日".repeat(4_000);
        assert_eq!(Failure::new(Code::InstallConflict, short.clone()).message, short);
    }
}
