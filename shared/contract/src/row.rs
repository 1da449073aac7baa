//! What the table holds. Each row is `pk`, `sk`, `body` (this JSON) and, where it is not final, `due_shard` and `due_at`.
//!
//! | row | `pk` | `sk` |
//! | --- | --- | --- |
//! | session | `FLOW#{flow}` | `SESSION` |
//! | event log | `FLOW#{flow}` | `LOG#{revision, 12 digits}` |
//! | packages | `FLOW#{flow}` | `PACKAGES` |
//! | refused of the network | `FLOW#{flow}` | `NETWORK` |
//! | install | `FLOW#{flow}` | `INSTALL#{number, 12 digits}` |
//! | operation | `OP#{id}` | `OP` |
//! | run | `RUN#{id}` | `RUN` |
//! | output line | `OUT#{operation or run}` | `{seq, 12 digits}` |
//! | compute resource | `COMPUTE#{id}` | `COMPUTE` |
//! | slot | `SLOT#{workspace}#{owner}#{size}#{identity}` | `SLOT` |
//! | quota | `QUOTA#{workspace}#{owner}` | `QUOTA` |
//! | a workspace's webhooks | `WORKSPACE#{workspace}` | `WEBHOOKS` |
//! | delivery taken | `DELIVERY#{workspace}#{sender}` | `{digest of what its signature covers}` |
//!
//! The last two are in [`webhook`](crate::webhook).

use crate::{Failure, FlowRef, Kind, Millis, Outcome, Phase, agent::RunResult, command::RunWish, packages::Setup};
use lifecycle::session::{Effect, Event, Session};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A flow's session. The outbox is an attribute of its own, so that what was sent can be taken out of it without touching the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRow {
    pub flow: FlowRef,
    pub session: Session,
    /// What was decided and is not known to be sent, by revision and place.
    #[serde(skip)]
    pub outbox: BTreeMap<String, Effect>,
}

/// One entry of a flow's history. Replaying all of them gives the session as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogRow {
    pub revision: u64,
    pub at: Millis,
    /// Who wanted or saw it.
    pub by: String,
    pub from: Phase,
    pub to: Phase,
    pub generation: u32,
    pub event: Event,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// How its install ended, if one had to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,
    /// The operation that it joined: its end is this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<String>,
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
    pub by: String,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
}

/// Where a run is.
///
/// # Source
///
/// The run statuses of the promptflow client (`NotStarted`, `Running`, `Completed`, `Failed`, `Canceled`).
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
