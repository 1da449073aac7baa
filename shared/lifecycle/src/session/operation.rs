//! Operations on a session, and the meaning of a new command while another operation runs.

use super::Settings;
use crate::Failure;

/// The kind of an operation. Each operation is an execution of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Kind {
    Start,
    Install,
    /// A change of settings. One of the VM size or the identity makes the session anew; any other
    /// is done in place.
    Update,
    Reset,
    Stop,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Start, Self::Install, Self::Update, Self::Reset, Self::Stop];

    /// The name, as on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Install => "install",
            Self::Update => "update",
            Self::Reset => "reset",
            Self::Stop => "stop",
        }
    }
}

/// A step of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Step {
    ClaimCompute,
    LaunchSession,
    InstallPackages,
    StopSession,
    /// Ends what a failed operation left.
    CleanUp,
}

/// The packages that an operation installs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Packages {
    /// Those of the flow's requirements as they are now.
    #[default]
    Required,
    /// Those recorded last, if there is a record on this base image.
    Recorded,
    /// Those of the flow's requirements, resolved again by every index.
    Anew,
    /// The environment of this lock.
    Locked(String),
}

impl Packages {
    /// Whether it goes without saying.
    #[cfg(feature = "wire")]
    pub(super) fn is_required(&self) -> bool {
        *self == Self::Required
    }
}

/// An operation: wanted, waiting or under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Operation {
    /// The id of the command that asked for it.
    pub id: String,
    pub kind: Kind,
    /// The settings to apply: for a start all of them, for any other those that it names (see
    /// [`Settings::over`]). `None` keeps the session's own.
    pub wants: Option<Settings>,
    /// The packages that it installs.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Packages::is_required"))]
    pub packages: Packages,
    /// The state machine's token of the step it waits in.
    pub token: Option<String>,
    /// More tokens of that step. A send whose reply was lost is made again with another token, both
    /// messages come, in any order, and nobody but the state machine knows which of the two it
    /// waits for. So each is answered.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub other_tokens: Vec<String>,
    /// The number of entries of a step, each token counted once: what an agent says about an
    /// earlier one counts no more.
    pub attempt: u32,
    /// Of a stop that no user of the flow asked for: why, as the runs and operations that it ends
    /// are told.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub why: Option<Failure>,
}

impl Operation {
    /// Whether it waits in a step for an answer to this token.
    pub(super) fn waits_in(&self, token: &str) -> bool {
        self.token.as_deref() == Some(token) || self.other_tokens.iter().any(|other| other == token)
    }

    /// An operation that nobody has begun.
    pub fn new(id: impl Into<String>, kind: Kind, wants: Option<Settings>) -> Self {
        Self {
            id: id.into(),
            kind,
            wants,
            packages: Packages::Required,
            token: None,
            other_tokens: Vec::new(),
            attempt: 0,
            why: None,
        }
    }
}

/// The meaning of a new command while an operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meeting {
    /// It wants what is under way already, and ends with it.
    Join,
    /// It waits its turn.
    Wait,
    /// It ends what is under way.
    Supersede,
    /// It makes no sense then.
    Refuse,
}

/// The one table of running operation × new command.
pub fn meeting(running: Kind, wanted: Kind) -> Meeting {
    use Kind::*;
    match (running, wanted) {
        (Stop, Stop) | (Start | Reset | Update, Start) | (Reset, Reset) => Meeting::Join,
        (_, Stop) => Meeting::Supersede,
        (Stop, Install | Update) => Meeting::Refuse,
        (Stop, Start | Reset) | (Install, _) | (_, Install | Update) | (_, Reset) => Meeting::Wait,
    }
}
