//! A session as it is stored.

use super::{Named, Operation, Settings};
use crate::{Failure, Millis, compute::Slot, deadlines};
use std::collections::BTreeMap;

/// The phase of a session. Idle is not a phase: see [`Session::idle_due`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Phase {
    /// A compute resource is being had.
    Provisioning,
    /// The container is starting.
    Launching,
    /// The environment is being brought to what the requirements say.
    Installing,
    /// Runs are taken.
    Ready,
    /// The container is being removed.
    Stopping,
    /// The container is gone because somebody, or the idle time, wanted it so.
    Stopped,
    /// The container is gone because something did not succeed; `Session::failure` says what.
    Failed,
}

impl Phase {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Provisioning,
        Self::Launching,
        Self::Installing,
        Self::Ready,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
    ];

    /// The name, as on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Launching => "launching",
            Self::Installing => "installing",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether there is, or may be, a container.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Stopped | Self::Failed)
    }
}

/// Every change of phase that there is, sorted. A test derives them from [`decide`]; the README's
/// diagram is compared with them.
///
/// A start that waits begins in the decision that ends what it waited for: that one takes two of
/// these at once.
pub const EDGES: [(Phase, Phase); 19] = [
    (Phase::Provisioning, Phase::Launching),
    (Phase::Provisioning, Phase::Stopping),
    (Phase::Provisioning, Phase::Failed),
    (Phase::Launching, Phase::Installing),
    (Phase::Launching, Phase::Stopping),
    (Phase::Launching, Phase::Failed),
    (Phase::Installing, Phase::Ready),
    (Phase::Installing, Phase::Stopping),
    (Phase::Installing, Phase::Failed),
    (Phase::Ready, Phase::Provisioning),
    (Phase::Ready, Phase::Installing),
    (Phase::Ready, Phase::Stopping),
    (Phase::Ready, Phase::Failed),
    (Phase::Stopping, Phase::Provisioning),
    (Phase::Stopping, Phase::Stopped),
    (Phase::Stopping, Phase::Failed),
    (Phase::Stopped, Phase::Provisioning),
    (Phase::Failed, Phase::Provisioning),
    (Phase::Failed, Phase::Stopped),
];

/// Which image the name of a base image was resolved to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Resolved {
    /// The digest that the container is made from, for all its life.
    pub digest: String,
    /// The digest that the name resolves to since, if that is another.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub latest: Option<String>,
}

/// A run that a session has taken, and its lease: while it is live the session is not idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Lease {
    /// It waits for the session to be Ready.
    Waiting,
    /// The agent was told, and is held to it until then.
    Until(Millis),
}

/// A flow's compute session, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Session {
    /// The flow's key: one flow has one of these, and so at most one live session.
    pub flow: String,
    pub workspace: String,
    pub owner: String,
    /// Raised by each change; a save needs it to be the one that was read.
    pub revision: u64,
    /// Raised by each start; what an older one says changes nothing.
    pub generation: u32,
    pub phase: Phase,
    pub settings: Settings,
    /// The base image of this generation's container, from its claim on; `settings` may name
    /// another one by now.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub image: Option<Named<String>>,
    /// Which image that name was resolved to when this generation began, as its agent saw it.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub resolved: Option<Resolved>,
    /// The one compute resource that it is on.
    pub compute: Option<String>,
    /// The public half of the key that its agent signs with.
    pub agent_key: Option<String>,
    /// The operation under way.
    pub current: Option<Operation>,
    /// The one that waits for it.
    pub next: Option<Operation>,
    pub runs: BTreeMap<String, Lease>,
    pub last_activity: Millis,
    /// The deletion for idleness of which its user was warned, as long as that is still to come.
    /// What moves it arms the warning again.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub warned: Option<Millis>,
    /// The end of its user's time of the day of which they were warned last, while it lives.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub daily_warned: Option<Millis>,
    /// The time at which it entered its phase.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "is_zero"))]
    pub since: Millis,
    /// The time after which its agent has certainly ended itself; `None` if none can have been
    /// launched.
    pub alive_until: Option<Millis>,
    /// The deadline of the phase.
    pub deadline: Option<Millis>,
    /// The reason for being Stopped, if no user of the flow asked for that.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub stopped_for: Option<Failure>,
    /// The reason for being Failed, now or once its container is gone.
    pub failure: Option<Failure>,
}

#[cfg(feature = "wire")]
fn is_zero(time: &Millis) -> bool {
    *time == 0
}

/// The most runs that a session takes at once: all of them must be able to end in one transaction
/// of 100 rows.
pub const MOST_RUNS: usize = 80;

impl Session {
    /// A session of a flow that has never had one.
    pub fn never(
        flow: impl Into<String>,
        workspace: impl Into<String>,
        owner: impl Into<String>,
        settings: Settings,
    ) -> Self {
        Self {
            flow: flow.into(),
            workspace: workspace.into(),
            owner: owner.into(),
            revision: 0,
            generation: 0,
            phase: Phase::Stopped,
            settings,
            image: None,
            resolved: None,
            compute: None,
            agent_key: None,
            current: None,
            next: None,
            runs: BTreeMap::new(),
            last_activity: 0,
            warned: None,
            daily_warned: None,
            since: 0,
            alive_until: None,
            deadline: None,
            stopped_for: None,
            failure: None,
        }
    }

    /// The time of the session's deletion for idleness if nothing happens before. Only a Ready one
    /// without work is ever idle.
    ///
    /// # Source
    ///
    /// "…deletes the compute session automatically if it isn't in use for a while" (the
    /// specification, *Start with advanced settings*).
    pub fn idle_due(&self) -> Option<Millis> {
        let quiet = self.phase == Phase::Ready && !self.is_busy();
        quiet.then(|| self.last_activity.saturating_add(self.settings.idle.value))
    }

    /// Whether it has a run or an operation.
    pub fn is_busy(&self) -> bool {
        self.current.is_some() || !self.runs.is_empty()
    }

    /// The time of the warning before the deletion; `None` once its user was warned. A change of
    /// the deletion time arms it again.
    pub fn warning_due(&self) -> Option<Millis> {
        let due = self.idle_due().filter(|due| self.warned != Some(*due))?;
        Some(due.saturating_sub(deadlines::IDLE_WARNING.min(self.settings.idle.value / 4)))
    }

    /// The time of the next look at the session; `None` only if nothing can be due. What is unsent
    /// is the shell's to add.
    pub fn due(&self) -> Option<Millis> {
        let leases = self.runs.values().filter_map(|lease| match lease {
            Lease::Until(until) => Some(*until),
            Lease::Waiting => None,
        });
        let lost = self
            .alive_until
            .filter(|_| matches!(self.phase, Phase::Installing | Phase::Ready));
        let idle = self.warning_due().or(self.idle_due());
        leases.chain(lost).chain(self.deadline).chain(idle).min()
    }

    /// The slot of the compute resource that it needs.
    pub fn slot(&self) -> Slot {
        Slot {
            workspace: self.workspace.clone(),
            owner: self.owner.clone(),
            size: self.settings.size.value.clone(),
            identity: self.settings.identity.value.clone(),
            instance: self.settings.compute.value.clone(),
        }
    }
}
