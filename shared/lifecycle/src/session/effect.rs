//! An effect of a decision.

use super::{Kind, Outcome, Packages, Settings};
use crate::{Failure, Millis, compute::Slot, network::Network};

/// An effect of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Written in the transaction that saves the session.
    Row(Row),
    /// Saved with the session, and sent after it. The next event sends what is left over, so a
    /// message may be sent twice; each receiver takes it as once.
    Message(Message),
}

impl From<Row> for Effect {
    fn from(row: Row) -> Self {
        Self::Row(row)
    }
}

impl From<Message> for Effect {
    fn from(message: Message) -> Self {
        Self::Message(message)
    }
}

/// A row of the table, beside the session's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Row {
    /// The operation ended.
    OperationEnded {
        operation: String,
        outcome: Outcome,
        failure: Option<Failure>,
        warning: Option<String>,
    },
    /// The operation is another one's, which brings about what it wants.
    OperationJoined { operation: String, to: String },
    /// The run ended.
    RunEnded {
        run: String,
        outcome: Outcome,
        failure: Option<Failure>,
    },
    /// The session is off its compute resource, and out of its user's quota.
    LeaveCompute { compute: String },
}

/// A message that the decision sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(tag = "effect", rename_all = "kebab-case"))]
pub enum Message {
    /// To the state machine: start the execution of this operation, by its name.
    StartExecution { operation: String, kind: Kind },
    /// To the state machine: this step's token is answered.
    AnswerStep { token: String, failure: Option<Failure> },
    /// To the driver: a compute resource is needed.
    CreateCompute { compute: String, slot: Slot },
    /// To the driver: the compute resource is not needed any more. The shell's own, for a
    /// [`Row::LeaveCompute`] of the last session.
    ReleaseCompute { compute: String },
    /// To the driver: start the container, unless it is later than `until` or this generation was
    /// removed.
    LaunchSession {
        generation: u32,
        compute: String,
        settings: Settings,
        until: Millis,
    },
    /// To the driver: see that there is no container of this generation or an older one, and never
    /// will be.
    RemoveSession { generation: u32, compute: Option<String> },
    /// To the driver: check whether this base image can be had, for the generation that comes after
    /// this one.
    CheckImage {
        generation: u32,
        operation: String,
        image: String,
    },
    /// To the agent: bring the environment to what `packages` says.
    AgentInstall {
        generation: u32,
        operation: String,
        attempt: u32,
        settings: Settings,
        #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Packages::is_required"))]
        packages: Packages,
    },
    /// To the agent: leave the environment as it was.
    AgentCancelInstall { generation: u32, operation: String },
    /// To the agent: run this.
    AgentRun { generation: u32, run: String },
    /// To the agent: end this run, and no other.
    AgentCancelRun { generation: u32, run: String },
    /// To the agent: what the session may reach of the network from now on.
    AgentNetwork {
        generation: u32,
        /// Of two that come in any order, the larger counts.
        revision: u64,
        network: Network,
        allow_hosts: Vec<String>,
    },
    /// To the agent: its lease counts from when it asked.
    AgentLease { generation: u32, nonce: u64 },
    /// A notice: the session is deleted at `due` if it is not used before.
    WarnIdle { generation: u32, due: Millis },
    /// A notice: the session is stopped at `due`, as its user's time of the day is used up then.
    WarnDailyTime { generation: u32, due: Millis },
}
