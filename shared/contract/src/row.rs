//! The rows of the table. Each is `pk`, `sk`, `body` (this JSON) and, where it is not final,
//! `due_shard` and `due_at`.
//!
//! | row | `pk` | `sk` |
//! | --- | --- | --- |
//! | session | `FLOW#{flow}` | `SESSION` |
//! | event log | `FLOW#{flow}` | `LOG#{revision, 12 digits}` |
//! | packages | `FLOW#{flow}` | `PACKAGES` |
//! | refused of the network | `FLOW#{flow}` | `NETWORK` |
//! | what its last runs used | `FLOW#{flow}` | `USED` |
//! | install | `FLOW#{flow}` | `INSTALL#{number, 12 digits}` |
//! | operation | `OP#{id}` | `OP` |
//! | run | `RUN#{id}` | `RUN` |
//! | a user's run in the order of time | `RUNS#{workspace}#{owner}` | `{accepted, 13 digits}#{id}` |
//! | output line | `OUT#{operation or run}` | `{seq, 12 digits}` |
//! | compute resource | `COMPUTE#{id}` | `COMPUTE` |
//! | slot | `SLOT#{workspace}#{owner}#{size}#{identity}` | `SLOT` |
//! | compute instance | `INSTANCES#{workspace}#{owner}` | `{name}` |
//! | slot of a compute instance | `SLOT#{workspace}#{owner}##{name}` | `SLOT` |
//! | quota | `QUOTA#{workspace}#{owner}` | `QUOTA` |
//! | a user of a workspace who has sessions, or had some | `USERS#{workspace}` | `{user}` |
//! | roles of a user of a workspace | `WORKSPACE#{workspace}` | `ROLE#{user}` |
//! | settings of a workspace | `WORKSPACE#{workspace}` | `SETTINGS` |
//! | a workspace's webhooks | `WORKSPACE#{workspace}` | `WEBHOOKS` |
//! | delivery taken | `DELIVERY#{workspace}#{sender}` | `{digest of what its signature covers}` |
//!
//! Roles are in [`people`](crate::people), settings in [`workspace`](crate::workspace), what a
//! quota counts in [`lifecycle::quota`], the last two in [`webhook`](crate::webhook).

use crate::{
    Code, Failure, FlowRef, Kind, Millis, Outcome, Phase, agent::RunResult, command::RunWish, packages::Setup,
};
use lifecycle::{
    session::{Event, Message, Session},
    size::Used,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A flow's session. The outbox is an attribute of its own, so that what was sent can be taken out
/// of it without touching the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRow {
    pub flow: FlowRef,
    pub session: Session,
    /// Messages that were decided and are not known to be sent, by revision and place.
    #[serde(skip)]
    pub outbox: BTreeMap<String, Message>,
}

/// One entry of a flow's history. Replaying all of them gives the session as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogRow {
    pub revision: u64,
    pub at: Millis,
    /// The user or part that wanted or saw it.
    pub by: String,
    pub from: Phase,
    pub to: Phase,
    pub generation: u32,
    pub event: Event,
}

/// The use of the last runs of a flow, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsedRow {
    pub runs: Vec<UsedByRun>,
}

/// The use of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsedByRun {
    pub run: String,
    pub used: Used,
}

impl UsedRow {
    /// The most runs that are kept.
    pub const MOST: usize = 20;

    /// Takes a run in, as the latest one; `None` if it is there.
    pub fn with(&self, run: &str, used: Used) -> Option<Self> {
        if self.runs.iter().any(|known| known.run == run) {
            return None;
        }
        let run = UsedByRun {
            run: run.to_owned(),
            used,
        };
        let all = self.runs.iter().cloned().chain([run]);
        let too_many = (self.runs.len() + 1).saturating_sub(Self::MOST);
        Some(Self {
            runs: all.skip(too_many).collect(),
        })
    }
}

/// An operation that somebody polls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationRow {
    pub id: String,
    /// The flow's key.
    pub flow: String,
    pub kind: Kind,
    pub by: String,
    pub accepted: Millis,
    pub status: OperationStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The further reasons of a refusal, each with its own code and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The end of its install's own program, if one had to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,
    /// The operation that it joined: its end is this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<String>,
}

/// The end of an operation: written in its row beside its acceptance, at another time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationEnd {
    pub status: OperationStatus,
    pub ended: Option<Millis>,
    pub failure: Option<Failure>,
    pub warning: Option<String>,
    pub joined: Option<String>,
}

impl OperationRow {
    /// The row of an operation that ended so.
    #[must_use]
    pub fn with_end(self, end: OperationEnd) -> Self {
        let OperationEnd {
            status,
            ended,
            failure,
            warning,
            joined,
        } = end;
        Self {
            status,
            ended,
            failure,
            warning: warning.or(self.warning),
            joined,
            ..self
        }
    }
}

/// Whether an operation or a run has ended, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperationStatus {
    InProgress,
    Joined,
    Succeeded,
    Failed,
    Canceled,
}

impl From<Outcome> for OperationStatus {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::Canceled => Self::Canceled,
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRow {
    pub id: String,
    pub flow: String,
    /// The flow, as its users name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<FlowRef>,
    pub by: String,
    /// The digest of its command: see [`Command::digest`](crate::command::Command::digest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The flow folder as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    pub wish: RunWish,
    pub accepted: Millis,
    pub status: RunStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The further reasons of a refusal, each with its own code and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Failure>,
    /// The settings that its command named, and that its session has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
    /// Its display name if it was renamed, in place of the one in its wish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Whether lists leave it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// The time of its deletion. Nothing but its name is left, which can be given again after
    /// [`NAME_KEPT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Millis>,
}

/// The end of a run, likewise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    pub status: RunStatus,
    pub ended: Option<Millis>,
    pub failure: Option<Failure>,
    pub result: Option<RunResult>,
}

impl RunRow {
    /// The row of a run that ended so.
    #[must_use]
    pub fn with_end(self, end: RunEnd) -> Self {
        let RunEnd {
            status,
            ended,
            failure,
            result,
        } = end;
        Self {
            status,
            ended,
            failure,
            result,
            ..self
        }
    }
}

/// The time for which the name of a deleted run stays taken: a late repetition of its command must
/// not run it again.
pub const NAME_KEPT: Millis = 600_000;

impl RunRow {
    /// Its display name.
    pub fn display_name(&self) -> Option<&str> {
        self.display_name.as_deref().or(self.wish.display_name.as_deref())
    }

    /// The failure of another run of its name.
    pub fn name_taken(&self) -> Failure {
        let message = match self.deleted {
            None => format!("There is another run {} already. Take another name, or none.", self.id),
            Some(_) => format!(
                "The run {} was deleted a moment ago, and its name is free {} minutes after that. Take another name, or none.",
                self.id,
                NAME_KEPT / 60_000
            ),
        };
        Failure::new(Code::RunNameTaken, message)
    }

    /// Whether a command of this flow, digest and wish is the one that it was made by.
    pub fn is_of(&self, flow: &str, digest: &str, wish: &RunWish) -> bool {
        self.deleted.is_none()
            && match &self.digest {
                Some(own) => own == digest,
                // One of an earlier version.
                None => self.flow == flow && self.wish == *wish,
            }
    }
}

/// The status of a run.
///
/// # Source
///
/// The run statuses of the promptflow client (`NotStarted`, `Running`, `Completed`, `Failed`,
/// `Canceled`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunStatus {
    NotStarted,
    Running,
    Completed,
    Failed,
    Canceled,
}

impl From<Outcome> for RunStatus {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Completed,
            Outcome::Failed => Self::Failed,
            Outcome::Canceled => Self::Canceled,
        }
    }
}

impl RunStatus {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }
}
