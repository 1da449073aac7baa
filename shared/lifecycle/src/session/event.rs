//! Events of a session.

use super::{Named, Operation, Settings, Step};
use crate::{Failure, Millis};

/// Something that happened, or that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(tag = "event", rename_all = "kebab-case"))]
pub enum Event {
    /// A command wants an operation.
    Wanted { operation: Operation },
    /// A sweep saw the session idle, at this generation and this last activity.
    ///
    /// * `why`: of a session whose compute instance was unused for too long; its own idle time may
    ///   still run.
    IdleSeen {
        operation: String,
        generation: u32,
        activity: Millis,
        #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
        why: Option<Failure>,
    },
    /// A sweep saw that the session is to be deleted for idleness soon, at `due`.
    IdleNear { generation: u32, due: Millis },
    /// A sweep saw that the user's time of the day is used up at `due`, if their sessions stay as
    /// they are.
    DailyTimeNear { generation: u32, due: Millis },
    /// A sweep saw that the user's time of the day is used up. It begins anew at `until`.
    DailyTimeUsedUp {
        operation: String,
        generation: u32,
        until: Millis,
        why: Failure,
    },
    /// A command wants a run. A flow without a session gets one first: `wants` says of what.
    RunWanted { run: String, wants: Settings },
    /// A command wants a run no more.
    CancelWanted { run: String },
    /// The state machine entered a step.
    ///
    /// * `compute`: for [`Step::ClaimCompute`], what its handler has claimed.
    /// * `cause`: for [`Step::CleanUp`], what the state machine caught. For another step, why its
    ///   handler found that it cannot be done; this counts only while the step's fact is still to
    ///   come.
    /// * `image`: for [`Step::ClaimCompute`], the base image that its handler found for these
    ///   settings and this flow. For the [`Step::StopSession`] of what makes the session anew, the
    ///   one to come, if a driver is to check that it can be had.
    StepEntered {
        operation: String,
        step: Step,
        token: String,
        compute: Option<Claimed>,
        cause: Option<Failure>,
        #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
        image: Option<Named<String>>,
    },
    /// The driver saw the compute resource up.
    ComputeUp { compute: String },
    /// The driver saw the compute resource gone, and all on it.
    ComputeGone { compute: String, why: String },
    /// The compute resource is to be deleted with all on it, and `why`. The shell stops each
    /// session in its set by this.
    ComputeDrained {
        operation: String,
        compute: String,
        why: Failure,
    },
    /// The driver saw the container up. `key` is the public half of what its agent signs with.
    SessionUp { generation: u32, key: String },
    /// The driver saw that there is no container of this generation, nor can there be one any more.
    SessionGone { generation: u32, failure: Option<Failure> },
    /// The driver checked whether the base image of the generation to come can be had; `failure`
    /// says why not.
    ImageChecked {
        generation: u32,
        operation: String,
        failure: Option<Failure>,
    },
    /// The agent brought the environment to what the requirements say.
    Installed {
        generation: u32,
        operation: String,
        attempt: u32,
        warning: Option<String>,
    },
    /// The agent could not, and left the environment as it was.
    InstallFailed {
        generation: u32,
        operation: String,
        attempt: u32,
        failure: Failure,
    },
    /// The agent is alive, asks for a lease, and has these runs in progress.
    Alive {
        generation: u32,
        nonce: u64,
        runs: Vec<String>,
    },
    /// The agent saw what its base image's name was resolved to, and what it stands for now if that
    /// is another one.
    ImageSeen {
        generation: u32,
        digest: String,
        #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
        latest: Option<String>,
    },
    /// The agent saw a run end.
    RunDone {
        generation: u32,
        run: String,
        outcome: Outcome,
        failure: Option<Failure>,
    },
    /// Somebody used the session by another way.
    Activity { generation: u32 },
    /// Time has passed.
    Tick,
}

/// A compute resource that a handler has claimed for a session, in the transaction that saves this
/// event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Claimed {
    pub id: String,
    /// Whether it is there already.
    pub up: bool,
    /// Whether it is new, so that its driver has to be asked for it.
    pub new: bool,
}

/// The end of an operation or a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Outcome {
    Succeeded,
    Failed,
    Canceled,
}
