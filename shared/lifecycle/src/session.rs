//! One flow's compute session.

use crate::{Failure, Millis, compute::Slot, deadlines, network::Network, size};
use std::collections::BTreeMap;

/// Where a session is in its life. Idle is not a phase: see [`Session::idle_due`].
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

    /// Whether there is, or may be, a container.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Stopped | Self::Failed)
    }
}

/// Every change of phase that there is, sorted. A test derives them from [`decide`]; the README's diagram is compared with them.
///
/// A start that waits begins in the decision that ends what it waited for: that one takes two of these at once.
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

/// What can be wanted of a session that takes time. Each one is an execution of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Kind {
    Start,
    Install,
    /// A change of settings. One of the VM size or the identity makes the session anew; any other is done in place.
    Update,
    Reset,
    Stop,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Start, Self::Install, Self::Update, Self::Reset, Self::Stop];
}

/// Where a setting comes from. Each counts more than those after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Origin {
    /// The command names it.
    Command,
    /// The run's own file, `run.yml`.
    RunFile,
    /// The flow's own file, such as `flow.dag.yaml`.
    FlowFile,
    /// The workspace's settings.
    Workspace,
    /// Nobody named it.
    #[default]
    Default,
}

#[cfg(feature = "wire")]
impl Origin {
    fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

/// Where each setting comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(default))]
pub struct Origins {
    pub folder: Origin,
    pub size: Origin,
    pub identity: Origin,
    pub image: Origin,
    pub idle: Origin,
    #[cfg_attr(feature = "wire", serde(skip_serializing_if = "Origin::is_default"))]
    pub network: Origin,
    #[cfg_attr(feature = "wire", serde(skip_serializing_if = "Origin::is_default"))]
    pub allow_hosts: Origin,
}

#[cfg(feature = "wire")]
impl Origins {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A base image, and who named it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Image {
    pub name: String,
    pub origin: Origin,
}

/// Which image the name of a base image was resolved to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Resolved {
    /// What the container is made from, for all its life.
    pub digest: String,
    /// What the name was seen to stand for since, if that is another one.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub latest: Option<String>,
}

/// What a session is made of, as its user asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Settings {
    /// Where the flow folder is: an absolute path on one machine, a snapshot's address on AWS.
    pub folder: String,
    /// The VM size.
    pub size: String,
    /// The user-assigned identity; `None` is the user's own.
    pub identity: Option<String>,
    /// The base image that the command names; `None` leaves it to the flow, and then to the default.
    pub image: Option<String>,
    /// How long the session may be idle, in milliseconds.
    pub idle: Millis,
    /// Which network it has.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Network::is_default"))]
    pub network: Network,
    /// The hosts that it may reach whatever the network is: see [`crate::network::Host`].
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub allow_hosts: Vec<String>,
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Origins::is_default"))]
    pub origins: Origins,
}

impl Settings {
    /// These settings where somebody named them, and those of `below` for the rest.
    pub fn over(&self, below: &Self) -> Self {
        let mut all = below.clone();
        macro_rules! named {
            ($($setting:ident),*) => {$(
                if self.origins.$setting != Origin::Default {
                    all.$setting = self.$setting.clone();
                    all.origins.$setting = self.origins.$setting;
                }
            )*};
        }
        named!(folder, size, identity, image, idle, network, allow_hosts);
        all
    }

    /// Whether a session made of one of them is as good as one made of the other, whoever named them.
    pub fn is_same(&self, other: &Self) -> bool {
        let origins = other.origins;
        Self {
            origins,
            ..self.clone()
        } == *other
    }

    /// Whether both need the same compute resource.
    fn is_on_same_compute(&self, other: &Self) -> bool {
        self.size == other.size && self.identity == other.identity
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

/// What an operation brings a session's packages to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Packages {
    /// What the flow's requirements say when they are looked at.
    #[default]
    Required,
    /// What was recorded last, if anything was on this base image.
    Recorded,
    /// What the flow's requirements say when every index is asked anew.
    Anew,
    /// The environment of this lock.
    Locked(String),
}

impl Packages {
    /// Whether it goes without saying.
    #[cfg(feature = "wire")]
    fn is_required(&self) -> bool {
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
    /// What the session is to be made of: for a start all of it, for any other what it names (see [`Settings::over`]). `None` keeps what it has.
    pub wants: Option<Settings>,
    /// What it brings the packages to.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Packages::is_required"))]
    pub packages: Packages,
    /// The state machine's token of the step it waits in.
    pub token: Option<String>,
    /// More tokens of that step. A send whose reply was lost is made again with another token, both messages come, in any order, and
    /// nobody but the state machine knows which of the two it waits for. So each is answered.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub other_tokens: Vec<String>,
    /// How often a step was entered, each token counted once: what an agent says about an earlier one counts no more.
    pub attempt: u32,
    /// Of a stop that no user of the flow asked for: why, as the runs and operations that it ends are told.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub why: Option<Failure>,
}

impl Operation {
    /// Whether it waits in a step for an answer to this token.
    fn waits_in(&self, token: &str) -> bool {
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
    /// What this generation's container is made from, from its claim on; `settings` may want another one by now.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub image: Option<Image>,
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
    /// The deletion for idleness of which its user was warned, as long as that is still to come. What moves it arms the warning again.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub warned: Option<Millis>,
    /// When it entered the phase that it is in.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "is_zero"))]
    pub since: Millis,
    /// The time after which its agent has certainly ended itself; `None` if none can have been launched.
    pub alive_until: Option<Millis>,
    /// When the phase has lasted too long.
    pub deadline: Option<Millis>,
    /// Why it is Failed, or will be once its container is gone.
    pub failure: Option<Failure>,
}

#[cfg(feature = "wire")]
fn is_zero(time: &Millis) -> bool {
    *time == 0
}

/// The most runs that a session takes at once: all of them must be able to end in one transaction of 100 rows.
pub const MOST_RUNS: usize = 80;

/// Something that happened, or that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(tag = "event", rename_all = "kebab-case"))]
pub enum Event {
    /// A command wants an operation.
    Wanted { operation: Operation },
    /// A sweep saw the session idle, at this generation and this last activity.
    IdleSeen {
        operation: String,
        generation: u32,
        activity: Millis,
    },
    /// A sweep saw that the session is to be deleted for idleness soon, at `due`.
    IdleNear { generation: u32, due: Millis },
    /// A command wants a run. A flow without a session gets one first: `wants` says of what.
    RunWanted { run: String, wants: Settings },
    /// A command wants a run no more.
    CancelWanted { run: String },
    /// The state machine entered a step.
    ///
    /// * `compute`: for [`Step::ClaimCompute`], what its handler has claimed.
    /// * `cause`: for [`Step::CleanUp`], what the state machine caught. For another step, why its handler found that it cannot be done; this
    ///   counts only while the step's fact is still to come.
    /// * `image`: for [`Step::ClaimCompute`], the base image that its handler found for these settings and this flow. For the
    ///   [`Step::StopSession`] of what makes the session anew, the one to come, if a driver is to check that it can be had.
    StepEntered {
        operation: String,
        step: Step,
        token: String,
        compute: Option<Claimed>,
        cause: Option<Failure>,
        #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
        image: Option<Image>,
    },
    /// A handler found that a step cannot be done.
    StepRefused { operation: String, failure: Failure },
    /// The driver saw the compute resource up.
    ComputeUp { compute: String },
    /// The driver saw the compute resource gone, and all on it.
    ComputeGone { compute: String, why: String },
    /// The compute resource is to be deleted with all on it, and `why`. The shell stops each session in its set by this.
    ComputeDrained {
        operation: String,
        compute: String,
        why: Failure,
    },
    /// The driver saw the container up. `key` is the public half of what its agent signs with.
    SessionUp { generation: u32, key: String },
    /// The driver saw that there is no container of this generation, nor can there be one any more.
    SessionGone { generation: u32, failure: Option<Failure> },
    /// The driver checked whether the base image of the generation to come can be had; `failure` says why not.
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
    /// The agent saw what its base image's name was resolved to, and what it stands for now if that is another one.
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

/// A compute resource that a handler has claimed for a session, in the transaction that saves this event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Claimed {
    pub id: String,
    /// Whether it is there already.
    pub up: bool,
    /// Whether it is new, so that its driver has to be asked for it.
    pub new: bool,
}

/// How an operation or a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Outcome {
    Succeeded,
    Failed,
    Canceled,
}

/// What has to be done because of a decision.
///
/// A *row* is written in the transaction that saves the session. A *message* is saved with it, and sent after it; whoever comes
/// next sends what is left over, so a message may be sent twice and each receiver takes it as once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(tag = "effect", rename_all = "kebab-case"))]
pub enum Effect {
    /// Row: the operation ended.
    OperationEnded {
        operation: String,
        outcome: Outcome,
        failure: Option<Failure>,
        warning: Option<String>,
    },
    /// Row: the operation is another one's, which brings about what it wants.
    OperationJoined { operation: String, to: String },
    /// Row: the run ended.
    RunEnded {
        run: String,
        outcome: Outcome,
        failure: Option<Failure>,
    },
    /// Row: the session is off its compute resource, and out of its user's quota.
    LeaveCompute { compute: String },
    /// Message to the state machine: start the execution of this operation, by its name.
    StartExecution { operation: String, kind: Kind },
    /// Message to the state machine: this step's token is answered.
    AnswerStep { token: String, failure: Option<Failure> },
    /// Message to the driver: a compute resource is needed.
    CreateCompute { compute: String, slot: Slot },
    /// Message to the driver: the compute resource is not needed any more. The shell's own, for a [`Effect::LeaveCompute`] of the last session.
    ReleaseCompute { compute: String },
    /// Message to the driver: start the container, unless it is later than `until` or this generation was removed.
    LaunchSession {
        generation: u32,
        compute: String,
        settings: Settings,
        until: Millis,
    },
    /// Message to the driver: see that there is no container of this generation or an older one, and never will be.
    RemoveSession { generation: u32, compute: Option<String> },
    /// Message to the driver: check whether this base image can be had, for the generation that comes after this one.
    CheckImage {
        generation: u32,
        operation: String,
        image: String,
    },
    /// Message to the agent: bring the environment to what `packages` says.
    AgentInstall {
        generation: u32,
        operation: String,
        attempt: u32,
        settings: Settings,
        #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Packages::is_required"))]
        packages: Packages,
    },
    /// Message to the agent: leave the environment as it was.
    AgentCancelInstall { generation: u32, operation: String },
    /// Message to the agent: run this.
    AgentRun { generation: u32, run: String },
    /// Message to the agent: end this run, and no other.
    AgentCancelRun { generation: u32, run: String },
    /// Message to the agent: what the session may reach of the network from now on.
    AgentNetwork {
        generation: u32,
        /// Of two that come in any order, the larger counts.
        revision: u64,
        network: Network,
        allow_hosts: Vec<String>,
    },
    /// Message to the agent: its lease counts from when it asked.
    AgentLease { generation: u32, nonce: u64 },
    /// Message to whoever takes notices: the session is deleted at `due` if nobody uses it before.
    WarnIdle { generation: u32, due: Millis },
}

impl Effect {
    /// Whether it is a row, written with the session.
    pub fn is_row(&self) -> bool {
        matches!(
            self,
            Self::OperationEnded { .. }
                | Self::OperationJoined { .. }
                | Self::RunEnded { .. }
                | Self::LeaveCompute { .. }
        )
    }
}

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
                "Session.NoSession",
                format!(
                    "{} needs a session, and this flow has none. Start one first.",
                    word(kind)
                ),
            ),
            Refusal::Busy { running, waiting } => Failure::new(
                "Session.Busy",
                format!(
                    "{} is under way and {} waits. Try again when one has ended, or stop the session.",
                    word(running),
                    word(waiting)
                ),
            ),
            Refusal::TooManyRuns => Failure::new(
                "Session.TooManyRuns",
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

/// What a new command of a kind means while an operation of another runs.
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
            since: 0,
            alive_until: None,
            deadline: None,
            failure: None,
        }
    }

    /// When the session is to be deleted for idleness if nothing happens before: only a Ready one with nothing to do is ever idle.
    ///
    /// # Source
    ///
    /// "…deletes the compute session automatically if it isn't in use for a while" (seed, *Start with advanced settings*).
    pub fn idle_due(&self) -> Option<Millis> {
        let quiet = self.phase == Phase::Ready && self.current.is_none() && self.runs.is_empty();
        quiet.then(|| self.last_activity.saturating_add(self.settings.idle))
    }

    /// When its user is to be warned of that; `None` once they were. What moves the deletion arms it again.
    pub fn warning_due(&self) -> Option<Millis> {
        let due = self.idle_due().filter(|due| self.warned != Some(*due))?;
        Some(due.saturating_sub(deadlines::IDLE_WARNING.min(self.settings.idle / 4)))
    }

    /// Whether its settings want another base image than its container is made from, or the name stands for another one by now. It stays so
    /// until a reset.
    ///
    /// # Source
    ///
    /// "To use the new base image, you need to reset the compute session" (seed, *Change the base image for compute session*).
    pub fn has_stale_image(&self) -> bool {
        let (wanted, has) = (self.settings.image.as_ref(), self.image.as_ref());
        let is_other = wanted.zip(has).is_some_and(|(wanted, has)| *wanted != has.name);
        let has_moved = self.resolved.as_ref().is_some_and(|resolved| resolved.latest.is_some());
        self.phase.is_live() && (is_other || has_moved)
    }

    /// When somebody has to look at the session next; `None` only if nothing can be due. What is unsent is the shell's to add.
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
            size: self.settings.size.clone(),
            identity: self.settings.identity.clone(),
        }
    }
}

/// Decides what `event` means for `session` at the time `now`.
///
/// Asking twice is the same as asking once: an event already acted on gives the session back unchanged, with no effects. That is what
/// lets queues deliver twice and Step Functions retry. (A command that has *ended* is the shell's to know: it has the row.)
///
/// * `session`: as last stored, or [`Session::never`].
/// * `now`: by the shell's clock.
///
/// # Errors
///
/// [`Refusal`] when a command has no meaning in this phase. Final: nothing has changed, and trying again will not help.
pub fn decide(session: &Session, event: &Event, now: Millis) -> Result<(Session, Vec<Effect>), Refusal> {
    let mut turn = Turn {
        s: session.clone(),
        effects: Vec::new(),
        now,
    };
    match event {
        Event::Wanted { operation } => turn.wanted(operation)?,
        Event::IdleSeen {
            operation,
            generation,
            activity,
        } => turn.idle_seen(operation, *generation, *activity),
        Event::IdleNear { generation, due } => turn.idle_near(*generation, *due),
        Event::RunWanted { run, wants } => turn.run_wanted(run, wants)?,
        Event::CancelWanted { run } => turn.cancel_wanted(run),
        Event::StepEntered {
            operation,
            step,
            token,
            compute,
            cause,
            image,
        } => {
            if *step == Step::ClaimCompute && turn.runs_operation(operation) && turn.s.phase == Phase::Provisioning {
                turn.made_from(image.as_ref());
            }
            turn.step_entered(
                operation,
                *step,
                token,
                compute.as_ref(),
                cause.as_ref(),
                image.as_ref(),
            );
        }
        Event::StepRefused { operation, failure } => {
            if turn.runs_operation(operation) {
                turn.fail(failure.clone());
            }
        }
        Event::ComputeUp { compute } => turn.compute_up(compute),
        Event::ComputeGone { compute, why } => {
            if turn.s.compute.as_ref() == Some(compute) {
                turn.gone(Some(Failure::new(
                    "Session.ComputeLost",
                    format!("The compute resource is gone ({why}). Start the session again."),
                )));
            }
        }
        Event::ComputeDrained {
            operation,
            compute,
            why,
        } => turn.compute_drained(operation, compute, why)?,
        Event::SessionUp { generation, key } => turn.session_up(*generation, key),
        Event::SessionGone { generation, failure } => {
            if *generation == turn.s.generation && turn.s.phase.is_live() && turn.s.phase != Phase::Provisioning {
                if turn.is_anew_where_it_is() {
                    turn.container_gone(failure.clone());
                } else {
                    turn.gone(failure.clone());
                }
            }
        }
        Event::ImageChecked {
            generation,
            operation,
            failure,
        } => turn.image_checked(*generation, operation, failure.as_ref()),
        Event::Installed {
            generation,
            operation,
            attempt,
            warning,
        } => {
            if turn.is_install(*generation, operation, *attempt) {
                turn.ready();
                turn.end(Outcome::Succeeded, None, warning.clone());
            }
        }
        Event::InstallFailed {
            generation,
            operation,
            attempt,
            failure,
        } => {
            if turn.is_install(*generation, operation, *attempt) {
                turn.fail(failure.clone());
            }
        }
        Event::Alive {
            generation,
            nonce,
            runs,
        } => turn.alive(*generation, *nonce, runs),
        Event::RunDone {
            generation,
            run,
            outcome,
            failure,
        } => {
            if *generation == turn.s.generation && matches!(turn.s.runs.get(run), Some(Lease::Until(_))) {
                turn.s.runs.remove(run);
                turn.active();
                turn.effects.push(Effect::RunEnded {
                    run: run.clone(),
                    outcome: *outcome,
                    failure: failure.clone(),
                });
            }
        }
        Event::ImageSeen {
            generation,
            digest,
            latest,
        } => {
            if *generation == turn.s.generation && turn.s.phase.is_live() {
                let resolved = turn.s.resolved.get_or_insert_with(|| Resolved {
                    digest: digest.clone(),
                    latest: None,
                });
                // One look may be reported after a later one; a name that has moved needs a reset in any case.
                if let Some(latest) = latest.as_ref().filter(|latest| **latest != resolved.digest) {
                    resolved.latest = Some(latest.clone());
                }
            }
        }
        Event::Activity { generation } => {
            if *generation == turn.s.generation && turn.s.phase.is_live() {
                turn.active();
            }
        }
        Event::Tick => turn.tick(),
    }
    // Whatever moved the deletion, also to never, has armed the warning.
    turn.s.warned = turn.s.warned.filter(|due| turn.s.idle_due() == Some(*due));
    if (turn.s.phase, turn.s.generation) != (session.phase, session.generation) {
        turn.s.since = now;
    }
    if turn.s != *session || !turn.effects.is_empty() {
        turn.s.revision = session.revision + 1;
    }
    Ok((turn.s, turn.effects))
}

/// One decision in the making.
struct Turn {
    s: Session,
    effects: Vec<Effect>,
    now: Millis,
}

impl Turn {
    fn wanted(&mut self, wanted: &Operation) -> Result<(), Refusal> {
        let known = |slot: &Option<Operation>| slot.as_ref().is_some_and(|o| o.id == wanted.id);
        if known(&self.s.current) || known(&self.s.next) {
            return Ok(());
        }
        let Some(running) = self.s.current.as_ref().map(|o| (o.id.clone(), o.kind)) else {
            return self.begin(wanted.clone());
        };
        if self.changed_in_place(wanted) {
            return Ok(());
        }
        match meeting(running.1, wanted.kind) {
            Meeting::Supersede => {
                self.supersede(wanted);
                self.begin(wanted.clone())
            }
            // What is under way only counts as what is wanted while it still can become that.
            Meeting::Join if wanted.kind == Kind::Stop || self.becomes(wanted) => {
                if wanted.kind == Kind::Stop {
                    self.cancel_what_waits(wanted);
                }
                self.effects.push(Effect::OperationJoined {
                    operation: wanted.id.clone(),
                    to: running.0,
                });
                Ok(())
            }
            Meeting::Join | Meeting::Wait => match &mut self.s.next {
                None => {
                    self.s.next = Some(wanted.clone());
                    Ok(())
                }
                Some(next) if next.kind == wanted.kind => {
                    // Both end with the newest wish in effect, as they would one after the other.
                    next.wants = match (&wanted.wants, next.wants.take()) {
                        (Some(newer), Some(older)) if wanted.kind != Kind::Start => Some(newer.over(&older)),
                        (newer, older) => newer.clone().or(older),
                    };
                    next.packages = wanted.packages.clone();
                    let to = next.id.clone();
                    self.effects.push(Effect::OperationJoined {
                        operation: wanted.id.clone(),
                        to,
                    });
                    Ok(())
                }
                Some(next) => Err(Refusal::Busy {
                    running: running.1,
                    waiting: next.kind,
                }),
            },
            Meeting::Refuse => Err(Refusal::NoSession(wanted.kind)),
        }
    }

    /// Whether what is under way ends with what `wanted` wants. A start wants a session, whatever it is made of; a reset, one made of that.
    fn becomes(&self, wanted: &Operation) -> bool {
        let to_be = self.to_be();
        let is_that = |made_of: Settings| {
            let wants = wanted.wants.as_ref();
            wants.is_none_or(|wants| wants.over(&made_of).is_same(&made_of))
        };
        let same_packages = self.s.current.as_ref().is_some_and(|o| o.packages == wanted.packages);
        to_be.is_some_and(|made_of| wanted.kind == Kind::Start || same_packages && is_that(made_of))
    }

    /// What the session is made of once what is under way has ended; `None` if there will be none.
    fn to_be(&self) -> Option<Settings> {
        if !self.s.phase.is_live() || self.s.failure.is_some() {
            return None;
        }
        match &self.s.current {
            Some(Operation { kind: Kind::Stop, .. }) => None,
            Some(Operation {
                kind: Kind::Reset | Kind::Update,
                wants: Some(wants),
                ..
            }) => Some(wants.over(&self.s.settings)),
            _ => Some(self.s.settings.clone()),
        }
    }

    /// Does an update that leaves the session on its compute resource: at once, whatever is under way, and without an execution. It counts
    /// as use. Says whether it did.
    fn changed_in_place(&mut self, update: &Operation) -> bool {
        let Some(to_be) = self.to_be().filter(|_| update.kind == Kind::Update) else {
            return false;
        };
        if let Some(change) = &update.wants {
            if !change.over(&to_be).is_on_same_compute(&to_be) {
                return false;
            }
            // A size that is named is the one that the session has, or gets by what is under way.
            let Settings { size, identity, .. } = self.s.settings.clone();
            let named = change.over(&self.s.settings);
            let had = std::mem::replace(
                &mut self.s.settings,
                Settings {
                    size,
                    identity,
                    ..named
                },
            );
            self.network_changed(&had);
            // What is under way or waits has been wanted before.
            for wants in [&mut self.s.current, &mut self.s.next]
                .into_iter()
                .flatten()
                .filter_map(|o| o.wants.as_mut())
            {
                *wants = change.over(wants);
            }
        }
        self.active();
        self.ended(update.id.clone(), Outcome::Succeeded, None, None);
        true
    }

    /// Tells the agent what may be reached from now on. One that is not there yet gets it with its first install.
    fn network_changed(&mut self, had: &Settings) {
        let Settings {
            network, allow_hosts, ..
        } = &self.s.settings;
        if self.s.agent_key.is_some() && (*network, allow_hosts) != (had.network, &had.allow_hosts) {
            self.effects.push(Effect::AgentNetwork {
                generation: self.s.generation,
                revision: self.s.revision,
                network: *network,
                allow_hosts: allow_hosts.clone(),
            });
        }
    }

    /// Says that a session which is there is not as a start wants it, if so.
    fn otherwise(&self, wants: Option<&Settings>) -> Option<String> {
        let (has, wants) = (&self.s.settings, wants?.over(&self.s.settings));
        let differ = [
            (has.size != wants.size, "VM size"),
            (has.identity != wants.identity, "identity"),
            (has.image != wants.image, "base image"),
            (has.idle != wants.idle, "idle time"),
            (has.network != wants.network, "network"),
            (has.allow_hosts != wants.allow_hosts, "list of allowed hosts"),
        ];
        let differ: Vec<&str> = differ
            .iter()
            .filter(|(differs, _)| *differs)
            .map(|(_, what)| *what)
            .collect();
        (!differ.is_empty()).then(|| {
            let what = differ.join(", ");
            format!("The session was there already, with another {what} than you named. Change it: pfsession update")
        })
    }

    /// Begins an operation that nothing stands in the way of.
    fn begin(&mut self, mut operation: Operation) -> Result<(), Refusal> {
        let live = self.s.phase.is_live();
        if self.changed_in_place(&operation) {
            return Ok(());
        }
        match operation.kind {
            Kind::Install | Kind::Update if !live => return Err(Refusal::NoSession(operation.kind)),
            Kind::Start if live => {
                // It is Ready: that is what was wanted.
                self.active();
                let warning = self.otherwise(operation.wants.as_ref());
                self.ended(operation.id, Outcome::Succeeded, None, warning);
                return Ok(());
            }
            Kind::Start | Kind::Reset if !live => {
                match operation.wants.clone() {
                    Some(wants) if operation.kind == Kind::Start => self.s.settings = wants,
                    Some(wants) => self.s.settings = wants.over(&self.s.settings),
                    None => {}
                }
                self.new_generation();
            }
            Kind::Stop if !live => {
                self.s.phase = Phase::Stopped;
                self.s.failure = None;
                self.ended(operation.id, Outcome::Succeeded, None, None);
                return Ok(());
            }
            Kind::Stop => {
                self.s.failure = None;
                self.stopping();
            }
            Kind::Install => {
                // It changes what is installed, not on what: that is an update's.
                if let Some(wants) = &mut operation.wants {
                    let (folder, origin) = (wants.folder.clone(), wants.origins.folder);
                    *wants = self.s.settings.clone();
                    if origin != Origin::Default {
                        (wants.folder, wants.origins.folder) = (folder, origin);
                    }
                }
                self.active();
                self.enter(Phase::Installing, deadlines::INSTALLING);
            }
            // The state machine's first step takes the session down, once the one to come is known to be possible.
            Kind::Start | Kind::Reset | Kind::Update => {
                self.active();
                self.enter(Phase::Ready, deadlines::CHECKING);
            }
        }
        self.effects.push(Effect::StartExecution {
            operation: operation.id.clone(),
            kind: operation.kind,
        });
        self.s.current = Some(operation);
        Ok(())
    }

    /// A generation begins: nothing of the one before is left.
    fn new_generation(&mut self) {
        self.s.generation += 1;
        self.s.resolved = None;
        self.s.failure = None;
        self.s.agent_key = None;
        self.s.alive_until = None;
        self.active();
        self.enter(Phase::Provisioning, deadlines::PROVISIONING);
    }

    fn idle_seen(&mut self, operation: &str, generation: u32, activity: Millis) {
        let as_seen = generation == self.s.generation && activity == self.s.last_activity;
        if as_seen && self.s.idle_due().is_some_and(|due| self.now >= due) {
            // A Ready session with no operation can always be stopped.
            let _ = self.begin(Operation::new(operation, Kind::Stop, None));
        }
    }

    /// Warns of a deletion that is still to come as the sweep saw it. One that was put off meanwhile is for a later warning.
    fn idle_near(&mut self, generation: u32, due: Millis) {
        let as_seen = generation == self.s.generation && self.s.idle_due() == Some(due);
        if as_seen && self.now < due && self.s.warning_due().is_some_and(|from| self.now >= from) {
            self.s.warned = Some(due);
            self.effects.push(Effect::WarnIdle { generation, due });
        }
    }

    fn run_wanted(&mut self, run: &str, wants: &Settings) -> Result<(), Refusal> {
        if self.s.runs.contains_key(run) {
            return Ok(());
        }
        if self.s.runs.len() >= MOST_RUNS {
            return Err(Refusal::TooManyRuns);
        }
        let start = || Operation::new(format!("start-for-{run}"), Kind::Start, Some(wants.clone()));
        match self.s.phase {
            Phase::Stopped | Phase::Failed => self.begin(start())?,
            // The session that is going takes no run; the one that comes after it does.
            Phase::Stopping if !self.comes_back() => self.wanted(&start())?,
            _ => {}
        }
        self.s.runs.insert(run.to_owned(), Lease::Waiting);
        self.active();
        self.send_waiting_runs();
        Ok(())
    }

    /// One that waits ends here. The agent ends one that it was told of, and reports that.
    fn cancel_wanted(&mut self, run: &str) {
        match self.s.runs.get(run) {
            None => {}
            Some(Lease::Waiting) => {
                self.s.runs.remove(run);
                self.active();
                self.effects.push(Effect::RunEnded {
                    run: run.to_owned(),
                    outcome: Outcome::Canceled,
                    failure: Some(canceled()),
                });
            }
            Some(Lease::Until(_)) => self.effects.push(Effect::AgentCancelRun {
                generation: self.s.generation,
                run: run.to_owned(),
            }),
        }
    }

    /// Whether a session that is Stopping will be there again after it.
    fn comes_back(&self) -> bool {
        let again = self
            .s
            .next
            .as_ref()
            .is_some_and(|o| matches!(o.kind, Kind::Start | Kind::Reset));
        self.anew().is_some() || again
    }

    fn step_entered(
        &mut self,
        operation: &str,
        step: Step,
        token: &str,
        claimed: Option<&Claimed>,
        cause: Option<&Failure>,
        image: Option<&Image>,
    ) {
        if !self.runs_operation(operation) {
            // A clean-up of what is over has nothing to do. Any other step belongs to somebody who was superseded.
            self.answer_one(token, (step != Step::CleanUp).then(superseded));
            return;
        }
        let Some(kind) = self.s.current.as_ref().filter(|o| !o.waits_in(token)).map(|o| o.kind) else {
            return;
        };
        let going_down = self.s.phase == Phase::Stopping;
        match step {
            Step::CleanUp => {
                let cause = cause.cloned().unwrap_or_else(|| {
                    Failure::new(
                        "Session.StepFailed",
                        "A step of the operation failed without a reason. Start the session again.",
                    )
                });
                if !going_down {
                    self.fail(cause);
                } else if kind != Kind::Stop {
                    // Nothing goes on after a clean-up, so what was to come back will not.
                    self.s.failure.get_or_insert(cause);
                }
                if !self.runs_operation(operation) {
                    self.answer_one(token, None);
                    return;
                }
                self.park(token);
                if going_down {
                    self.remove();
                }
            }
            _ if self.s.failure.is_some() => self.answer_one(token, self.s.failure.clone()),
            Step::StopSession if self.is_checking() => {
                self.park(token);
                match (cause, image) {
                    (Some(cause), _) => self.fail(cause.clone()),
                    (None, Some(image)) => self.effects.push(Effect::CheckImage {
                        generation: self.s.generation,
                        operation: operation.to_owned(),
                        image: image.name.clone(),
                    }),
                    (None, None) => self.take_down(),
                }
            }
            Step::StopSession if going_down => {
                self.park(token);
                self.remove();
            }
            _ if cause.is_some() && self.is_at(step) => {
                self.park(token);
                self.fail(cause.cloned().unwrap_or_else(superseded));
            }
            Step::ClaimCompute if self.s.phase == Phase::Provisioning => {
                self.park(token);
                if let Some(claimed) = claimed {
                    self.s.compute = Some(claimed.id.clone());
                    if claimed.new {
                        let slot = self.s.slot();
                        self.effects.push(Effect::CreateCompute {
                            compute: claimed.id.clone(),
                            slot,
                        });
                    }
                    if claimed.up {
                        self.compute_up(&claimed.id);
                    }
                }
            }
            Step::LaunchSession if self.s.phase == Phase::Launching => {
                self.park(token);
                if let Some(compute) = self.s.compute.clone() {
                    let until = self.now + size::launch_window(&self.s.settings.size);
                    let ended = until + deadlines::LEASE + deadlines::LEASE_MARGIN;
                    self.s.alive_until = self.s.alive_until.max(Some(ended));
                    let (generation, settings) = (self.s.generation, self.made_of());
                    self.effects.push(Effect::LaunchSession {
                        generation,
                        compute,
                        settings,
                        until,
                    });
                }
            }
            Step::InstallPackages if self.s.phase == Phase::Installing => {
                let attempt = self.park(token);
                // What an install wants counts from here on, and is kept if it succeeds.
                let wants = self
                    .s
                    .current
                    .as_ref()
                    .and_then(|o| o.wants.clone())
                    .filter(|_| kind == Kind::Install);
                let packages = self.s.current.as_ref().map(|o| o.packages.clone()).unwrap_or_default();
                let made_of = self.made_of();
                self.effects.push(Effect::AgentInstall {
                    packages,
                    generation: self.s.generation,
                    operation: operation.to_owned(),
                    attempt,
                    settings: Settings {
                        folder: wants.map_or(made_of.folder, |wants| wants.folder),
                        ..made_of
                    },
                });
            }
            // The fact that the step is there to bring about is recorded already. It must not touch the token of the step after it.
            _ => self.answer_one(token, None),
        }
    }

    /// Takes in which base image a generation is made from. What was recorded of another one is not for it.
    fn made_from(&mut self, image: Option<&Image>) {
        let Some(image) = image else { return };
        let before = self.s.image.replace(image.clone());
        let is_other = before.is_some_and(|before| before.name != image.name);
        if let Some(current) = self
            .s
            .current
            .as_mut()
            .filter(|o| is_other && o.packages == Packages::Recorded)
        {
            current.packages = Packages::Required;
        }
    }

    /// The settings, with the base image that the container is made from: nothing swaps it under the packages that are installed.
    fn made_of(&self) -> Settings {
        let settings = self.s.settings.clone();
        Settings {
            image: self.s.image.as_ref().map(|image| image.name.clone()).or(settings.image),
            ..settings
        }
    }

    /// Whether `step` is there to bring about what comes after the present phase.
    fn is_at(&self, step: Step) -> bool {
        matches!(
            (step, self.s.phase),
            (Step::ClaimCompute, Phase::Provisioning)
                | (Step::LaunchSession, Phase::Launching)
                | (Step::InstallPackages, Phase::Installing)
        )
    }

    /// Keeps the token of the step that the operation waits in from now on, and counts the attempt.
    fn park(&mut self, token: &str) -> u32 {
        let Some(current) = self.s.current.as_mut() else {
            return 0;
        };
        current.other_tokens.extend(current.token.replace(token.to_owned()));
        current.attempt += 1;
        current.attempt
    }

    fn compute_up(&mut self, compute: &str) {
        if self.s.phase == Phase::Provisioning && self.s.compute.as_deref() == Some(compute) {
            self.enter(Phase::Launching, deadlines::LAUNCHING);
            self.answer(None);
        }
    }

    /// Stops a session that would stay on a compute resource which is to go. One that is leaving it already does what was wanted of it.
    fn compute_drained(&mut self, operation: &str, compute: &str, why: &Failure) -> Result<(), Refusal> {
        let is_leaving = self.s.phase == Phase::Stopping && !self.is_anew_where_it_is();
        if self.s.compute.as_deref() != Some(compute) || is_leaving {
            return Ok(());
        }
        self.wanted(&Operation {
            why: Some(why.clone()),
            ..Operation::new(operation, Kind::Stop, None)
        })
    }

    fn session_up(&mut self, generation: u32, key: &str) {
        if generation != self.s.generation {
            // One that was held for gone: see that it is.
            self.effects.push(Effect::RemoveSession {
                generation,
                compute: None,
            });
        } else if self.s.phase == Phase::Launching {
            self.s.agent_key = Some(key.to_owned());
            self.granted();
            self.enter(Phase::Installing, deadlines::INSTALLING);
            self.answer(None);
        } else if !self.s.phase.is_live() {
            self.effects.push(Effect::RemoveSession {
                generation,
                compute: None,
            });
        }
    }

    /// Whether an operation is under way that makes the session anew, and the session still goes on as it was.
    fn is_checking(&self) -> bool {
        let makes_anew = |o: &Operation| matches!(o.kind, Kind::Reset | Kind::Update);
        self.s.phase == Phase::Ready && self.s.current.as_ref().is_some_and(makes_anew)
    }

    /// A session is taken down only for one that can be had.
    fn image_checked(&mut self, generation: u32, operation: &str, failure: Option<&Failure>) {
        if generation != self.s.generation || !self.runs_operation(operation) || !self.is_checking() {
            return;
        }
        match failure {
            Some(failure) => self.fail(failure.clone()),
            None => self.take_down(),
        }
    }

    fn take_down(&mut self) {
        self.stopping();
        self.remove();
    }

    fn is_install(&self, generation: u32, operation: &str, attempt: u32) -> bool {
        generation == self.s.generation
            && self.s.phase == Phase::Installing
            && self
                .s
                .current
                .as_ref()
                .is_some_and(|o| o.id == operation && o.attempt == attempt)
    }

    fn alive(&mut self, generation: u32, nonce: u64, runs: &[String]) {
        if generation != self.s.generation || !matches!(self.s.phase, Phase::Installing | Phase::Ready) {
            return;
        }
        self.granted();
        let until = self.now + deadlines::RUN_LEASE;
        for run in runs {
            if let Some(Lease::Until(lease)) = self.s.runs.get_mut(run) {
                *lease = until.max(*lease);
            }
        }
        self.effects.push(Effect::AgentLease { generation, nonce });
    }

    fn tick(&mut self) {
        let late = self.s.deadline.is_some_and(|deadline| self.now >= deadline);
        let ended = self.s.alive_until.is_none_or(|until| self.now >= until);
        match self.s.phase {
            // Nothing was ever launched, or it has certainly ended itself, and nothing launches it any more.
            Phase::Stopping if late && ended => {
                self.forget();
                self.gone(None);
            }
            Phase::Stopping if late => {
                self.s.deadline = Some(self.now + deadlines::STOPPING);
                self.remove();
            }
            Phase::Installing | Phase::Ready if ended => {
                self.forget();
                self.gone(Some(Failure::new(
                    "Session.AgentSilent",
                    "The session's agent has not been heard of, and has ended itself by now. Start the session again.",
                )));
            }
            Phase::Provisioning | Phase::Launching | Phase::Installing | Phase::Ready if late => {
                let what = match self.s.phase {
                    Phase::Provisioning => "No compute resource came up",
                    Phase::Launching => "The container did not start",
                    Phase::Ready => "The base image was not checked",
                    _ => "The install did not end",
                };
                self.fail(Failure::new("Session.TimedOut", format!("{what} in time. Try again.")));
            }
            _ => {}
        }
        let now = self.now;
        let lost: Vec<String> = self
            .s
            .runs
            .iter()
            .filter(|(_, lease)| matches!(lease, Lease::Until(until) if now >= *until))
            .map(|(run, _)| run.clone())
            .collect();
        for run in lost {
            self.s.runs.remove(&run);
            self.active();
            let failure = Failure::new(
                "Run.Lost",
                "The session's agent no longer knows this run. Submit it again.",
            );
            self.effects.push(Effect::RunEnded {
                run,
                outcome: Outcome::Failed,
                failure: Some(failure),
            });
        }
    }

    /// The operation under way did not succeed. An install leaves the session as it was, as does a reset or an update that has not taken it
    /// down yet. Any other leaves none.
    fn fail(&mut self, failure: Failure) {
        if self.s.phase == Phase::Stopping {
            return;
        }
        if self.is_checking() {
            let message = format!("{} The session goes on as it was.", failure.message);
            let failure = Failure::new(&failure.error, message);
            self.answer(Some(failure.clone()));
            self.ready_again();
            self.end(Outcome::Failed, Some(failure), None);
            return;
        }
        self.answer(Some(failure.clone()));
        match self.s.current.as_ref().map(|o| (o.kind, o.id.clone())) {
            Some((Kind::Install, operation)) => {
                let generation = self.s.generation;
                self.effects.push(Effect::AgentCancelInstall { generation, operation });
                self.ready_again();
                self.end(Outcome::Failed, Some(failure), None);
            }
            _ => {
                self.s.failure = Some(failure);
                self.stopping();
                self.remove();
            }
        }
    }

    /// There is no container of this generation any more, and its compute resource is left to whoever else is on it.
    fn gone(&mut self, why: Option<Failure>) {
        if let Some(compute) = self.s.compute.take() {
            self.effects.push(Effect::LeaveCompute { compute });
        }
        self.container_gone(why);
    }

    /// The operation that makes the session anew once its container is gone, unless it has failed.
    fn anew(&self) -> Option<&Operation> {
        let goes_down = self.s.phase == Phase::Stopping && self.s.failure.is_none() || self.is_checking();
        let current = self.s.current.as_ref().filter(|_| goes_down);
        current.filter(|o| matches!(o.kind, Kind::Reset | Kind::Update))
    }

    /// Whether the session is made anew of the same size and identity: that is had in seconds on the compute resource which is there, and in
    /// minutes on another.
    fn is_anew_where_it_is(&self) -> bool {
        let stays = |wants: &Settings| wants.over(&self.s.settings).is_on_same_compute(&self.s.settings);
        self.anew().is_some_and(|o| o.wants.as_ref().is_none_or(stays))
    }

    /// There is no container of this generation any more.
    fn container_gone(&mut self, why: Option<Failure>) {
        let wanted = self.s.phase == Phase::Stopping && self.s.failure.is_none();
        let again = self.anew().is_some();
        self.s.agent_key = None;
        self.s.alive_until = None;
        self.s.deadline = None;
        if wanted {
            self.end_sent_runs(Outcome::Canceled, self.why_stopped());
        } else {
            let failure = self.s.failure.take().or(why).unwrap_or_else(|| {
                Failure::new(
                    "Session.ContainerEnded",
                    "The session's container ended without a word. Start the session again.",
                )
            });
            self.end_sent_runs(Outcome::Failed, failure.clone());
            self.s.failure = Some(failure);
        }
        if again {
            if let Some(wants) = self.s.current.as_ref().and_then(|o| o.wants.clone()) {
                self.s.settings = wants.over(&self.s.settings);
            }
            self.new_generation();
            self.answer(None);
            return;
        }
        let cleaned_up = self.s.failure.clone();
        // A clean-up that ends with the reason ends its execution as one that ends without.
        self.answer(cleaned_up.clone());
        self.s.phase = if wanted { Phase::Stopped } else { Phase::Failed };
        if self
            .s
            .next
            .as_ref()
            .is_none_or(|o| !matches!(o.kind, Kind::Start | Kind::Reset))
        {
            let failure = cleaned_up.clone().unwrap_or_else(|| self.why_stopped());
            self.end_waiting_runs(if wanted { Outcome::Canceled } else { Outcome::Failed }, failure);
        }
        self.end(
            if wanted { Outcome::Succeeded } else { Outcome::Failed },
            cleaned_up,
            None,
        );
    }

    /// Ends the operation under way, and begins the one that waits.
    fn end(&mut self, outcome: Outcome, failure: Option<Failure>, warning: Option<String>) {
        if let Some(done) = self.s.current.take() {
            if outcome == Outcome::Succeeded
                && done.kind == Kind::Install
                && let Some(wants) = done.wants
            {
                (self.s.settings.folder, self.s.settings.origins.folder) = (wants.folder, wants.origins.folder);
            }
            self.ended(done.id, outcome, failure, warning);
        }
        if let Some(next) = self.s.next.take() {
            let id = next.id.clone();
            if let Err(refusal) = self.begin(next) {
                self.ended(id, Outcome::Failed, Some(refusal.into()), None);
            }
        }
        self.send_waiting_runs();
    }

    /// Ends what is under way and what waits, because of a stop. The state machine's clean-up is the stop's to do.
    fn supersede(&mut self, stop: &Operation) {
        self.answer(Some(superseded()));
        if let Some(current) = self.s.current.take() {
            // One that had failed before the stop came has failed, and says why.
            match self.s.failure.take() {
                Some(failure) => self.ended(current.id, Outcome::Failed, Some(failure), None),
                None => self.ended(current.id, Outcome::Canceled, Some(why_superseded(stop)), None),
            }
        }
        self.cancel_what_waits(stop);
    }

    fn cancel_what_waits(&mut self, stop: &Operation) {
        if let Some(next) = self.s.next.take() {
            self.ended(next.id, Outcome::Canceled, Some(why_superseded(stop)), None);
        }
        self.end_waiting_runs(Outcome::Canceled, stop.why.clone().unwrap_or_else(stopped));
    }

    /// What the runs are told that end because the session is wanted no more.
    fn why_stopped(&self) -> Failure {
        let why = self.s.current.as_ref().and_then(|o| o.why.clone());
        why.unwrap_or_else(stopped)
    }

    fn ended(&mut self, operation: String, outcome: Outcome, failure: Option<Failure>, warning: Option<String>) {
        self.effects.push(Effect::OperationEnded {
            operation,
            outcome,
            failure,
            warning,
        });
    }

    fn ready(&mut self) {
        self.answer(None);
        self.ready_again();
    }

    fn ready_again(&mut self) {
        self.s.phase = Phase::Ready;
        self.s.deadline = None;
        self.active();
    }

    fn stopping(&mut self) {
        self.enter(Phase::Stopping, deadlines::STOPPING);
    }

    fn enter(&mut self, phase: Phase, at_most: Millis) {
        self.s.phase = phase;
        self.s.deadline = Some(self.now + at_most);
    }

    /// Activity only moves forward.
    fn active(&mut self) {
        self.s.last_activity = self.s.last_activity.max(self.now);
    }

    fn granted(&mut self) {
        let until = self.now + deadlines::LEASE + deadlines::LEASE_MARGIN;
        self.s.alive_until = self.s.alive_until.max(Some(until));
    }

    fn remove(&mut self) {
        let (generation, compute) = (self.s.generation, self.s.compute.clone());
        self.effects.push(Effect::RemoveSession { generation, compute });
    }

    /// The container has ended by itself: has its driver clear away what is left of it.
    fn forget(&mut self) {
        if self.s.alive_until.is_some() {
            self.remove();
        }
    }

    /// Answers the tokens of the step that the operation waits in, if it waits in one.
    fn answer(&mut self, failure: Option<Failure>) {
        let Some(current) = self.s.current.as_mut() else { return };
        let tokens = std::mem::take(&mut current.other_tokens)
            .into_iter()
            .chain(current.token.take());
        self.effects.extend(tokens.map(|token| Effect::AnswerStep {
            token,
            failure: failure.clone(),
        }));
    }

    /// Answers one token, and leaves alone what the operation waits in.
    fn answer_one(&mut self, token: &str, failure: Option<Failure>) {
        self.effects.push(Effect::AnswerStep {
            token: token.to_owned(),
            failure,
        });
    }

    fn runs_operation(&self, operation: &str) -> bool {
        self.s.current.as_ref().is_some_and(|o| o.id == operation)
    }

    fn send_waiting_runs(&mut self) {
        if self.s.phase != Phase::Ready || self.is_checking() {
            return;
        }
        let until = self.now + deadlines::RUN_LEASE;
        let generation = self.s.generation;
        for (run, lease) in &mut self.s.runs {
            if *lease == Lease::Waiting {
                *lease = Lease::Until(until);
                self.effects.push(Effect::AgentRun {
                    generation,
                    run: run.clone(),
                });
            }
        }
    }

    fn end_waiting_runs(&mut self, outcome: Outcome, failure: Failure) {
        self.end_runs(|lease| *lease == Lease::Waiting, outcome, &failure);
    }

    fn end_sent_runs(&mut self, outcome: Outcome, failure: Failure) {
        self.end_runs(|lease| *lease != Lease::Waiting, outcome, &failure);
    }

    fn end_runs(&mut self, which: impl Fn(&Lease) -> bool, outcome: Outcome, failure: &Failure) {
        let (out, stay) = std::mem::take(&mut self.s.runs)
            .into_iter()
            .partition(|(_, lease)| which(lease));
        self.s.runs = stay;
        let out: BTreeMap<String, Lease> = out;
        for run in out.into_keys() {
            self.effects.push(Effect::RunEnded {
                run,
                outcome,
                failure: Some(failure.clone()),
            });
        }
    }
}

/// What the token of a step says that belongs to an operation which a stop has ended.
fn superseded() -> Failure {
    Failure::new("Session.Superseded", "A stop ended this operation.")
}

/// What an operation is told that a stop ended.
fn why_superseded(stop: &Operation) -> Failure {
    stop.why.clone().unwrap_or_else(superseded)
}

/// Why a run ended that its user wanted no more.
pub fn canceled() -> Failure {
    Failure::new("Run.Canceled", "The run was canceled.")
}

fn stopped() -> Failure {
    Failure::new("Session.Stopped", "The session was stopped.")
}
