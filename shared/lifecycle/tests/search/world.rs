//! The world around the core, as a model: the table, the shell, the queues, the state machine, the
//! driver, the agents, and time.
//!
//! Only the core is real. Everything else does what the design promises of it, and no more.
//! Messages come in any order, and for the price of a fault also twice, late or never. A handler
//! stops after any of its steps. Agents and drivers have clocks of their own.
//!
//! A world holds no absolute time. `NOW` stands still, and everything else moves towards it; what
//! has passed is all the same. So a world that has come back to where it was is the same world, and
//! the search ends.

use super::properties::{self, Broken};
use lifecycle::{
    Code, Failure, Millis,
    compute::{Chase, Compute, ComputePhase, Seen, Slot},
    deadlines::{LAUNCH_WINDOW_WITH_PULL, LEASE, LEASE_MARGIN},
    quota::{Daily, Quota, Usage, Use},
    session::{
        self, Claimed, Effect, Event, Kind, Lease, Named, Operation, Origin, Outcome, Phase, Refusal, Session,
        Settings, Step,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// The present, by the control plane's clock.
pub(crate) const NOW: Millis = 10_000_000;

/// The longest time that a session may be idle here.
pub(crate) const IDLE: Millis = 30_000;

/// The longest time that the sessions of [`ON_DAILY`] may live here. The day never ends.
pub(crate) const DAILY: Millis = 40_000;

/// The delay of the driver's clock behind the control plane's, and the excess of a lease as an
/// agent sees it: together less than the margin.
pub(crate) const SKEW: Millis = LEASE_MARGIN / 2 - 1_000;

/// The core's decision.
pub(crate) type Decided = Result<(Session, Vec<Effect>), Refusal>;

pub(crate) type StartInstance = fn(Option<&Compute>, &Slot, Option<Millis>, &str, Millis) -> Option<Compute>;

pub(crate) type Enter = fn(&Usage, &str, &Use, &Quota, &str, Millis) -> Result<Usage, Failure>;

/// The functions under search: the core's own, or ones that are broken on purpose.
#[derive(Clone, Copy)]
pub(crate) struct Core {
    pub(crate) decide: fn(&Session, &Event, Millis) -> Decided,
    pub(crate) due: fn(&Session) -> Option<Millis>,
    pub(crate) idle_due: fn(&Session) -> Option<Millis>,
    pub(crate) warning_due: fn(&Session) -> Option<Millis>,
    pub(crate) slot: fn(&Session) -> Slot,
    pub(crate) claim: fn(Option<&Compute>, &Slot, &str, &str, Millis) -> Compute,
    pub(crate) start: StartInstance,
    pub(crate) join: fn(Option<&Compute>, &str, Millis) -> Option<Compute>,
    pub(crate) look: fn(&Compute, Option<Millis>, bool, Failure, Millis) -> Compute,
    pub(crate) leave: fn(&Compute, &str, Millis, Millis) -> Compute,
    pub(crate) observe: fn(&Compute, Seen) -> Option<Compute>,
    pub(crate) drain: fn(&Compute, Failure, Millis) -> Option<Compute>,
    pub(crate) chase: fn(&Compute, Millis) -> Option<(Compute, Chase)>,
    pub(crate) enter: Enter,
    pub(crate) leave_quota: fn(&Usage, &str, Millis) -> Option<Usage>,
    pub(crate) look_daily: fn(&Usage, &Quota, Millis) -> Option<(Usage, Daily)>,
    /// Whether what was decided is saved with the session before it is sent.
    pub(crate) saves_outbox: bool,
}

impl Core {
    pub(crate) const REAL: Self = Self {
        decide: lifecycle::session::decide,
        due: Session::due,
        idle_due: Session::idle_due,
        warning_due: Session::warning_due,
        slot: Session::slot,
        claim: lifecycle::compute::claim,
        start: lifecycle::compute::start,
        join: lifecycle::compute::join,
        look: lifecycle::compute::look,
        leave: lifecycle::compute::leave,
        observe: lifecycle::compute::observe,
        drain: lifecycle::compute::drain,
        chase: lifecycle::compute::chase,
        enter: Usage::enter,
        leave_quota: Usage::leave,
        look_daily: Usage::look,
        saves_outbox: true,
    };
}

/// The bounds of a world.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// The owner of each flow. Flows of one owner share a compute resource.
    pub(crate) owners: Vec<&'static str>,
    /// The commands of users, for each flow.
    pub(crate) menu: Vec<Wish>,
    /// The number of commands that each flow gets.
    pub(crate) commands: u8,
    /// The number of faults in one life of the world.
    pub(crate) faults: u8,
    /// The number of uses of a session by other ways than a run.
    pub(crate) activities: u8,
    /// The number of times that an agent asks for a lease at a moment of its own choice.
    pub(crate) asks: u8,
    /// The number of compute resources that their user deletes; of an instance, it is stopped.
    pub(crate) drains: u8,
    /// The number of times that the user of [`ON_INSTANCE`] starts their instance.
    pub(crate) starts: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Operation(Kind),
    /// An update of the base image and the idle time.
    Change,
    Run,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) flows: Vec<Rc<Flow>>,
    pub(crate) computes: Rc<Computes>,
    /// The messages under way, sorted.
    pub(crate) bag: Rc<Vec<Message>>,
    pub(crate) left: Left,
}

/// The budget that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) faults: u8,
    pub(crate) activities: u8,
    pub(crate) asks: u8,
    pub(crate) drains: u8,
    pub(crate) starts: u8,
}

/// All that is about one flow: its rows, its executions, its containers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) session: Session,
    pub(crate) outbox: Vec<Effect>,
    pub(crate) operations: BTreeMap<String, Row>,
    pub(crate) runs: BTreeMap<String, Option<Outcome>>,
    pub(crate) executions: BTreeMap<String, Execution>,
    /// The highest generation that its driver has removed.
    pub(crate) removed: u32,
    /// The containers that its driver has launched: generation and compute resource.
    pub(crate) launched: BTreeMap<u32, String>,
    /// The containers that its driver is launching: it has looked before, and will look after.
    pub(crate) launching: Option<Launch>,
    pub(crate) containers: Vec<Container>,
    /// The generations whose agent has brought the environment to what the requirements say.
    pub(crate) installed: BTreeSet<u32>,
    pub(crate) commands: u8,
}

/// An operation's row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    Open,
    Joined(String),
    Ended(Outcome),
}

/// An execution of the state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Execution {
    Waiting {
        kind: Kind,
        step: Step,
        token: String,
        count: u8,
        retries: u8,
        times_out: Millis,
        cause: Option<Failure>,
        /// A fault took the step's message or its answer.
        cut_off: bool,
    },
    Ended,
}

/// A launch that its driver has begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Launch {
    pub(crate) generation: u32,
    pub(crate) compute: String,
    pub(crate) until: Millis,
}

/// A container that runs, and its agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Container {
    pub(crate) generation: u32,
    pub(crate) compute: String,
    /// The time at which the agent ends itself.
    pub(crate) ends: Millis,
    pub(crate) nonce: u64,
    pub(crate) asked: Millis,
    pub(crate) runs: BTreeSet<String>,
    /// All runs that it was ever told of.
    pub(crate) told: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Computes {
    pub(crate) rows: BTreeMap<String, Compute>,
    pub(crate) slots: BTreeMap<Slot, String>,
    /// The containers that the driver has now, and those that it was told to delete and so will
    /// never make.
    pub(crate) exist: BTreeSet<String>,
    pub(crate) deleted: BTreeSet<String>,
    /// The usage of [`ON_DAILY`], as it is counted.
    pub(crate) usage: Usage,
    /// The true time that the sessions of [`ON_DAILY`] have lived, up to [`DAILY`].
    pub(crate) lived: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Message {
    /// A command that comes again.
    Command { flow: usize, event: Event },
    /// A step, from the state machine to its handler.
    Step {
        flow: usize,
        operation: String,
        step: Step,
        token: String,
        cause: Option<Failure>,
    },
    /// From a session's driver or agent.
    Report { flow: usize, event: Event },
    /// From a compute resource's driver: whether it is there.
    Compute { compute: String, up: bool },
    /// To a driver.
    Driver { flow: usize, request: Effect },
    /// To the agent of a generation.
    Agent {
        flow: usize,
        generation: u32,
        command: Effect,
    },
}

/// The progress of a handler. Each but the first is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To its end.
    Through,
    /// It crashes after its save and this many messages sent, and what it was called for comes
    /// again.
    Crash(usize),
    /// It gets through, but the call with this place among its messages is lost on the way.
    CallLost(usize),
}

/// Something that happens next.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Command(usize, Wish, Way),
    Deliver(usize, Way),
    Repeat(usize),
    Lose(usize),
    InstallFails(usize),
    /// The driver finds that the image of this check cannot be had.
    NoImage(usize),
    Tick(usize, Way),
    SeeIdle(usize),
    SeeNear(usize),
    Chase(String),
    LookDaily,
    /// The user deletes a compute resource, or stops their instance.
    Drain(String),
    StartInstance,
    TimeOut(usize, String),
    /// A send of the state machine whose reply was lost is made again.
    SendAgain(usize, String),
    /// A driver gets to the end of a launch.
    Launched(usize),
    RunEnds(usize, String),
    Activity(usize),
    Ask(usize),
    ContainerDies(usize),
    ComputeDies(String),
    /// Time passes to the next moment at which something may be due. Agents that are well renew
    /// their leases meanwhile.
    Wait,
    /// Time passes, and no agent's word gets through.
    Silence,
}

/// A world in the making.
pub(crate) struct Turn<'a> {
    pub(crate) core: &'a Core,
    pub(crate) world: World,
    pub(crate) broken: Option<Broken>,
}

/// The owner whose sessions are on a compute instance, which is shut down after [`IDLE`] without
/// use.
pub(crate) const ON_INSTANCE: &str = "i";

/// The owner whose sessions may live for [`DAILY`], all of them together.
pub(crate) const ON_DAILY: &str = "t";

fn settings_of(owner: &str) -> Settings {
    let compute = (owner == ON_INSTANCE).then(|| "mine".to_owned());
    let idle = if owner == ON_DAILY { 3 * DAILY } else { IDLE };
    Settings {
        compute: compute.into(),
        idle: idle.into(),
        ..settings()
    }
}

pub(crate) fn daily() -> Quota {
    Quota {
        daily: Some(DAILY),
        ..Quota::default()
    }
}

fn instance() -> Slot {
    Slot {
        workspace: "w".into(),
        owner: ON_INSTANCE.into(),
        size: settings().size.value,
        identity: None,
        instance: Some("mine".into()),
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        size: "d".to_owned().into(),
        idle: IDLE.into(),
        ..Settings::new("/")
    }
}

/// A flow's base image, as it is found when a compute resource is claimed for its session.
fn image(session: &Session) -> Named<String> {
    let named = session.settings.image.value.clone();
    named.unwrap_or_else(|| "base".into()).into()
}

pub(crate) fn name_of(flow: usize) -> String {
    ["a", "b", "c"][flow].to_owned()
}

impl World {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let flow = |(i, owner): (usize, &&str)| {
            let mut session = Session::never(name_of(i), "w", *owner, settings_of(owner));
            session.last_activity = NOW - IDLE;
            session.since = NOW;
            Rc::new(Flow {
                session,
                outbox: Vec::new(),
                operations: BTreeMap::new(),
                runs: BTreeMap::new(),
                executions: BTreeMap::new(),
                removed: 0,
                launched: BTreeMap::new(),
                launching: None,
                containers: Vec::new(),
                installed: BTreeSet::new(),
                commands: bounds.commands,
            })
        };
        Self {
            flows: bounds.owners.iter().enumerate().map(flow).collect(),
            computes: Rc::default(),
            bag: Rc::default(),
            left: Left {
                faults: bounds.faults,
                activities: bounds.activities,
                asks: bounds.asks,
                drains: bounds.drains,
                starts: bounds.starts,
            },
        }
    }

    /// All that may happen next, in a fixed order, with what is no fault first.
    pub(crate) fn acts(&self, core: &Core, bounds: &Bounds) -> Vec<Act> {
        let mut acts = Vec::new();
        let distinct = |i: &usize| *i == 0 || self.bag[*i] != self.bag[*i - 1];
        let messages: Vec<usize> = (0..self.bag.len()).filter(distinct).collect();
        acts.extend(messages.iter().map(|i| Act::Deliver(*i, Way::Through)));
        acts.extend(self.due(core));
        for (f, flow) in self.flows.iter().enumerate() {
            if flow.commands > 0 {
                acts.extend(bounds.menu.iter().map(|wish| Act::Command(f, *wish, Way::Through)));
            }
            if flow.launching.is_some() {
                acts.push(Act::Launched(f));
            }
            for container in &flow.containers {
                acts.extend(container.runs.iter().map(|run| Act::RunEnds(f, run.clone())));
                if self.left.activities > 0 {
                    acts.push(Act::Activity(f));
                }
                if self.left.asks > 0 || container.asked < NOW {
                    acts.push(Act::Ask(f));
                }
            }
        }
        if self.left.starts > 0 && self.started(core).is_some() {
            acts.push(Act::StartInstance);
        }
        if self.left.drains > 0 {
            let in_use = |row: &&Compute| (core.drain)(row, why_drained(), NOW).is_some();
            let rows = self.computes.rows.values().filter(in_use);
            acts.extend(rows.map(|row| Act::Drain(row.id.clone())));
        }
        let quiet = self.is_quiet(core);
        if quiet {
            acts.push(Act::Wait);
        }
        if self.left.faults == 0 {
            return acts;
        }
        // From here on, each is a fault.
        if !quiet {
            acts.push(Act::Wait);
        }
        if self
            .flows
            .iter()
            .any(|flow| flow.containers.iter().any(|c| flow.renews(c)))
        {
            acts.push(Act::Silence);
        }
        for i in messages {
            acts.push(Act::Repeat(i));
            acts.push(Act::Lose(i));
            match &self.bag[i] {
                Message::Driver {
                    request: Effect::Message(session::Message::CheckImage { .. }),
                    ..
                } => acts.push(Act::NoImage(i)),
                Message::Driver { .. } => {}
                Message::Agent {
                    command: Effect::Message(session::Message::AgentInstall { .. }),
                    ..
                } => acts.push(Act::InstallFails(i)),
                Message::Agent { .. } => {}
                _ => acts.extend(
                    self.ways(core, &Act::Deliver(i, Way::Through))
                        .map(|way| Act::Deliver(i, way)),
                ),
            }
        }
        for (f, flow) in self.flows.iter().enumerate() {
            if flow.commands > 0 {
                for wish in &bounds.menu {
                    let ways = self.ways(core, &Act::Command(f, *wish, Way::Through));
                    acts.extend(ways.map(|way| Act::Command(f, *wish, way)));
                }
            }
            if self.is_due(core, f) {
                acts.extend(
                    self.ways(core, &Act::Tick(f, Way::Through))
                        .map(|way| Act::Tick(f, way)),
                );
            }
            if !flow.containers.is_empty() {
                acts.push(Act::ContainerDies(f));
            }
            for (operation, execution) in &flow.executions {
                if let Execution::Waiting { count, .. } = execution
                    && *count < 3
                {
                    acts.push(Act::SendAgain(f, operation.clone()));
                }
            }
        }
        acts.extend(self.computes.exist.iter().map(|id| Act::ComputeDies(id.clone())));
        acts
    }

    /// The instance, started: its row if it can be.
    fn started(&self, core: &Core) -> Option<Compute> {
        let slot = instance();
        let computes = &self.computes;
        let in_slot = computes.slots.get(&slot).and_then(|id| computes.rows.get(id));
        let row = (core.start)(in_slot, &slot, Some(IDLE), &format!("c{}", computes.rows.len()), NOW)?;
        Some(Compute { since: None, ..row })
    }

    /// Every way in which a handler may not get through: after its save it has a number of messages
    /// to send.
    fn ways(&self, core: &Core, act: &Act) -> impl Iterator<Item = Way> + use<> {
        let core = &Core {
            saves_outbox: true,
            ..*core
        };
        let mut turn = Turn {
            core,
            world: self.clone(),
            broken: None,
        };
        let way = Way::Crash(0);
        let act = match act {
            Act::Command(f, wish, _) => Act::Command(*f, *wish, way),
            Act::Deliver(i, _) => Act::Deliver(*i, way),
            Act::Tick(f, _) => Act::Tick(*f, way),
            other => other.clone(),
        };
        turn.act(&act);
        let calls: Vec<bool> = turn
            .world
            .flows
            .iter()
            .flat_map(|flow| &flow.outbox)
            .map(is_call)
            .collect();
        let crashes = (0..calls.len() + usize::from(!calls.is_empty())).map(Way::Crash);
        let lost = (0..calls.len()).filter(|place| calls[*place]).map(Way::CallLost);
        crashes.chain(lost).collect::<Vec<_>>().into_iter()
    }

    /// The timers that are due now.
    pub(crate) fn due(&self, core: &Core) -> Vec<Act> {
        let mut acts = Vec::new();
        for (f, flow) in self.flows.iter().enumerate() {
            let idle = (core.idle_due)(&flow.session).is_some_and(|due| NOW >= due);
            let seen =
                |m: &Message| matches!(m, Message::Command { flow, event: Event::IdleSeen { .. } } if *flow == f);
            if idle && !self.bag.iter().any(seen) {
                acts.push(Act::SeeIdle(f));
            }
            let near = (core.warning_due)(&flow.session).filter(|from| !idle && NOW >= *from);
            let told =
                |m: &Message| matches!(m, Message::Command { flow, event: Event::IdleNear { .. } } if *flow == f);
            if near.is_some() && !self.bag.iter().any(told) {
                acts.push(Act::SeeNear(f));
            }
            if self.is_due(core, f) && !idle && near.is_none() {
                acts.push(Act::Tick(f, Way::Through));
            }
            for (operation, execution) in &flow.executions {
                if matches!(execution, Execution::Waiting { times_out, .. } if NOW >= *times_out) {
                    acts.push(Act::TimeOut(f, operation.clone()));
                }
            }
        }
        if self.computes.usage.due.is_some_and(|due| NOW >= due) {
            acts.push(Act::LookDaily);
        }
        for (id, row) in &self.computes.rows {
            if row.due.is_some_and(|due| NOW >= due) {
                acts.push(Act::Chase(id.clone()));
            }
        }
        acts
    }

    /// The next event when every party is prompt and no message is under way.
    pub(crate) fn must(&self, core: &Core) -> Act {
        let launched = (0..self.flows.len())
            .find(|f| self.flows[*f].launching.is_some())
            .map(Act::Launched);
        launched
            .or_else(|| self.due(core).into_iter().next())
            .unwrap_or(Act::Wait)
    }

    fn is_due(&self, core: &Core, flow: usize) -> bool {
        let flow = &self.flows[flow];
        !flow.outbox.is_empty() || (core.due)(&flow.session).is_some_and(|due| NOW >= due)
    }

    pub(crate) fn is_quiet(&self, core: &Core) -> bool {
        let launches = self.flows.iter().any(|flow| flow.launching.is_some());
        self.bag.is_empty() && !launches && self.due(core).is_empty()
    }

    /// Whether nothing is left of any session: no container, no compute resource, no execution,
    /// nothing that somebody waits for.
    pub(crate) fn is_over(&self) -> bool {
        self.bag.is_empty()
            && self
                .computes
                .exist
                .iter()
                .all(|id| self.computes.rows.get(id).is_some_and(is_idle_instance))
            && self
                .computes
                .rows
                .values()
                .all(|row| row.phase == ComputePhase::Gone && row.due.is_none() || is_idle_instance(row))
            && self.flows.iter().all(|flow| {
                flow.session.phase == Phase::Stopped
                    && flow.containers.is_empty()
                    && flow.launching.is_none()
                    && flow.outbox.is_empty()
                    && flow.executions.values().all(|e| *e == Execution::Ended)
                    && flow.operations.keys().all(|id| flow.has_ended(id))
                    && flow.runs.values().all(Option::is_some)
            })
    }
}

fn is_idle_instance(row: &Compute) -> bool {
    row.slot.instance.is_some() && row.phase == ComputePhase::Up && row.sessions.is_empty()
}

fn is_call(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Message(session::Message::StartExecution { .. }) | Effect::Message(session::Message::AnswerStep { .. })
    )
}

impl Flow {
    /// Whether an operation has an end, its own or that of the one it joined.
    pub(crate) fn has_ended(&self, operation: &str) -> bool {
        match self.operations.get(operation) {
            Some(Row::Ended(_)) => true,
            Some(Row::Joined(to)) => to != operation && self.has_ended(to),
            _ => false,
        }
    }

    /// Whether the agent in this container gets a lease when it asks.
    fn renews(&self, container: &Container) -> bool {
        container.generation == self.session.generation
            && matches!(self.session.phase, Phase::Installing | Phase::Ready)
    }
}

impl Turn<'_> {
    /// Lets `act` happen.
    pub(crate) fn act(&mut self, act: &Act) {
        if act.is_fault(&self.world, self.core) {
            self.world.left.faults = self.world.left.faults.saturating_sub(1);
        }
        match act {
            Act::Command(f, wish, way) => self.command(*f, *wish, *way),
            Act::Deliver(i, way) => {
                let message = self.take(*i);
                self.deliver(message, *way);
            }
            Act::Repeat(i) => {
                let message = self.world.bag[*i].clone();
                self.deliver(message, Way::Through);
            }
            Act::Lose(i) => {
                let message = self.take(*i);
                if let Message::Step {
                    flow, operation, token, ..
                } = &message
                {
                    self.cut_off(*flow, operation, token);
                }
            }
            Act::InstallFails(i) => {
                let Message::Agent {
                    flow,
                    generation,
                    command: Effect::Message(session::Message::AgentInstall { operation, attempt, .. }),
                } = self.take(*i)
                else {
                    return;
                };
                let failure = Failure::new(Code::InstallFailed, "");
                self.report(
                    flow,
                    Event::InstallFailed {
                        generation,
                        operation,
                        attempt,
                        failure,
                    },
                );
            }
            Act::NoImage(i) => {
                if let Message::Driver { flow, request } = self.take(*i) {
                    self.check(flow, request, Some(Failure::new(Code::ImageFailed, "")));
                }
            }
            Act::Tick(f, way) => {
                self.happen(*f, Event::Tick, *way);
            }
            Act::SeeIdle(f) => {
                let session = &self.world.flows[*f].session;
                let event = Event::IdleSeen {
                    operation: format!("idle{}", session.generation),
                    generation: session.generation,
                    activity: session.last_activity,
                    why: None,
                };
                self.put(Message::Command { flow: *f, event });
            }
            Act::SeeNear(f) => {
                let session = &self.world.flows[*f].session;
                let event = Event::IdleNear {
                    generation: session.generation,
                    due: session.last_activity + session.settings.idle.value,
                };
                self.put(Message::Command { flow: *f, event });
            }
            Act::Chase(id) => self.chase(id),
            Act::LookDaily => self.look_daily(),
            Act::Drain(id) => {
                self.world.left.drains -= 1;
                if let Some(next) = (self.core.drain)(&self.world.computes.rows[id], why_drained(), NOW) {
                    self.stop_all_on(&next);
                    if next.phase == ComputePhase::Releasing {
                        let request = Effect::Message(session::Message::ReleaseCompute { compute: id.clone() });
                        self.put(Message::Driver { flow: 0, request });
                    }
                    Rc::make_mut(&mut self.world.computes).rows.insert(id.clone(), next);
                }
            }
            Act::StartInstance => {
                self.world.left.starts -= 1;
                if let Some(row) = self.world.started(self.core) {
                    let request = Effect::Message(session::Message::CreateCompute {
                        compute: row.id.clone(),
                        slot: row.slot.clone(),
                    });
                    self.put(Message::Driver { flow: 0, request });
                    let computes = Rc::make_mut(&mut self.world.computes);
                    computes.slots.insert(row.slot.clone(), row.id.clone());
                    computes.rows.insert(row.id.clone(), row);
                }
            }
            Act::TimeOut(f, operation) => self.time_out(*f, operation),
            Act::SendAgain(f, operation) => {
                if let Some(Execution::Waiting {
                    kind,
                    step,
                    count,
                    retries,
                    cause,
                    ..
                }) = self.world.flows[*f].executions.get(operation).cloned()
                {
                    self.enter(*f, operation, kind, step, count + 1, retries, cause);
                }
            }
            Act::Launched(f) => self.launched(*f),
            Act::RunEnds(f, run) => {
                let flow = self.flow(*f);
                let Some(container) = flow.containers.iter_mut().find(|c| c.runs.contains(run)) else {
                    return;
                };
                container.runs.remove(run);
                let generation = container.generation;
                self.report(
                    *f,
                    Event::RunDone {
                        generation,
                        run: run.clone(),
                        outcome: Outcome::Succeeded,
                        failure: None,
                    },
                );
            }
            Act::Activity(f) => {
                self.world.left.activities -= 1;
                if let Some(generation) = self.world.flows[*f].containers.last().map(|c| c.generation) {
                    self.report(*f, Event::Activity { generation });
                }
            }
            Act::Ask(f) => {
                self.world.left.asks = self.world.left.asks.saturating_sub(1);
                if let Some(container) = self.flow(*f).containers.last_mut() {
                    container.nonce = (container.nonce + 1) % 4;
                    container.asked = NOW;
                    let event = alive(container);
                    self.report(*f, event);
                }
            }
            Act::ContainerDies(f) => {
                for container in std::mem::take(&mut self.flow(*f).containers) {
                    self.ended(*f, container.generation);
                }
            }
            Act::ComputeDies(id) => {
                self.compute_ends(id);
                self.put(Message::Compute {
                    compute: id.clone(),
                    up: false,
                });
            }
            Act::Wait => self.wait(true),
            Act::Silence => self.wait(false),
        }
        self.world.bag_sorted();
    }

    fn flow(&mut self, f: usize) -> &mut Flow {
        Rc::make_mut(&mut self.world.flows[f])
    }

    fn put(&mut self, message: Message) {
        Rc::make_mut(&mut self.world.bag).push(message);
    }

    fn take(&mut self, i: usize) -> Message {
        Rc::make_mut(&mut self.world.bag).remove(i)
    }

    fn report(&mut self, flow: usize, event: Event) {
        self.put(Message::Report { flow, event });
    }

    fn breaks(&mut self, property: &'static str, what: String) {
        self.broken.get_or_insert(Broken { property, what });
    }

    // The shell.

    fn command(&mut self, f: usize, wish: Wish, way: Way) {
        let flow = self.flow(f);
        flow.commands -= 1;
        let settings = || settings_of(&flow.session.owner);
        let id = format!("{}{}", word(wish), flow.commands);
        let event = match wish {
            Wish::Run => Event::RunWanted {
                run: id,
                wants: settings(),
            },
            Wish::Change => {
                let longer = Settings {
                    image: Named::new(Some("other".into()), Origin::Command),
                    idle: Named::new(2 * IDLE, Origin::Command),
                    ..settings()
                };
                Event::Wanted {
                    operation: Operation::new(id, Kind::Update, Some(longer)),
                }
            }
            Wish::Operation(kind) => {
                // A session that is made anew is made larger, so that it needs another compute
                // resource.
                let larger = || Settings {
                    size: Named::new("e".into(), Origin::Command),
                    compute: Named::new(None, Origin::Command),
                    ..settings()
                };
                let wants = match kind {
                    Kind::Start => Some(settings()),
                    Kind::Reset | Kind::Update => Some(larger()),
                    Kind::Install | Kind::Stop => None,
                };
                Event::Wanted {
                    operation: Operation::new(id, kind, wants),
                }
            }
        };
        if !self.accept(f, event.clone(), way) {
            self.put(Message::Command { flow: f, event });
        }
    }

    /// Takes a command in, unless it has its row.
    pub(crate) fn accept(&mut self, f: usize, event: Event, way: Way) -> bool {
        let flow = &self.world.flows[f];
        let known = match &event {
            Event::Wanted { operation } => flow.operations.contains_key(&operation.id),
            Event::IdleSeen { operation, .. } | Event::DailyTimeUsedUp { operation, .. } => {
                flow.operations.contains_key(operation)
            }
            Event::RunWanted { run, .. } => flow.runs.contains_key(run),
            _ => false,
        };
        self.happen(f, if known { Event::Tick } else { event }, way)
    }

    fn deliver(&mut self, message: Message, way: Way) {
        let again = message.clone();
        let done = match message {
            Message::Command { flow, event } => self.accept(flow, event, way),
            Message::Report { flow, event } => self.happen(flow, event, way),
            Message::Step {
                flow,
                operation,
                step,
                token,
                cause,
            } => self.happen(
                flow,
                Event::StepEntered {
                    operation,
                    step,
                    token,
                    image: matches!(step, Step::ClaimCompute | Step::StopSession)
                        .then(|| image(&self.world.flows[flow].session)),
                    compute: None,
                    cause,
                },
                way,
            ),
            Message::Compute { compute, up } => self.observe(&compute, up, way),
            Message::Driver { flow, request } => {
                self.drive(flow, request);
                true
            }
            Message::Agent {
                flow,
                generation,
                command,
            } => {
                self.tell(flow, generation, command);
                true
            }
        };
        if !done {
            self.put(again);
        }
    }

    /// Load, decide, save, send, clear. Says whether the handler got to its end.
    fn happen(&mut self, f: usize, mut event: Event, way: Way) -> bool {
        let before = self.world.flows[f].session.clone();
        let claim = self.claim_of(f, &mut event);
        let decided = (self.core.decide)(&before, &event, NOW);
        if matches!(event, Event::DailyTimeUsedUp { .. }) && self.world.computes.lived < DAILY {
            let what = format!("after {} ms", self.world.computes.lived);
            self.breaks(properties::DAILY_STOP, what);
        }
        if self.broken.is_none() {
            self.broken = properties::of_decision(self.core, &self.world.flows[f], &event, &decided);
        }
        match decided {
            Err(_) => {
                let flow = self.flow(f);
                match event {
                    Event::Wanted { operation } => {
                        drop(flow.operations.insert(operation.id, Row::Ended(Outcome::Failed)))
                    }
                    Event::RunWanted { run, .. } => drop(flow.runs.insert(run, Some(Outcome::Failed))),
                    _ => {}
                }
            }
            Ok((mut after, effects)) => {
                after.revision = 0;
                if let Some((claim, usage)) = claim.filter(|(claim, _)| after.compute.as_ref() == Some(&claim.id)) {
                    let computes = Rc::make_mut(&mut self.world.computes);
                    computes.usage = usage;
                    computes.slots.insert(claim.slot.clone(), claim.id.clone());
                    computes.rows.insert(claim.id.clone(), claim);
                }
                self.save(f, &event, after, effects);
            }
        }
        self.send(f, way)
    }

    fn save(&mut self, f: usize, event: &Event, after: Session, effects: Vec<Effect>) {
        let (core, name) = (self.core, name_of(f));
        let computes = &mut self.world.computes;
        let flow = Rc::make_mut(&mut self.world.flows[f]);
        if let Event::RunWanted { run, .. } = event {
            flow.runs.entry(run.clone()).or_insert(None);
        }
        let wanted = match event {
            Event::Wanted { operation } => Some(operation),
            _ => None,
        };
        for operation in [&after.current, &after.next].into_iter().flatten().chain(wanted) {
            flow.operations.entry(operation.id.clone()).or_insert(Row::Open);
        }
        flow.session = after;
        for effect in effects {
            match effect {
                Effect::Row(session::Row::OperationEnded { operation, outcome, .. }) => {
                    drop(flow.operations.insert(operation, Row::Ended(outcome)))
                }
                Effect::Row(session::Row::OperationJoined { operation, to }) => {
                    drop(flow.operations.insert(operation, Row::Joined(to)))
                }
                Effect::Row(session::Row::RunEnded { run, outcome, .. }) => drop(flow.runs.insert(run, Some(outcome))),
                Effect::Row(session::Row::LeaveCompute { compute }) => {
                    let computes = Rc::make_mut(computes);
                    let Some(held) = computes.rows.get(&compute) else {
                        continue;
                    };
                    let left = (core.leave)(held, &name, flow.session.last_activity, NOW);
                    if left.phase == ComputePhase::Releasing && held.phase != ComputePhase::Releasing {
                        flow.outbox.push(Effect::Message(session::Message::ReleaseCompute {
                            compute: compute.clone(),
                        }));
                    }
                    computes.rows.insert(compute, left);
                    if let Some(usage) = (core.leave_quota)(&computes.usage, &name, NOW) {
                        computes.usage = bounded(usage);
                    }
                }
                message => flow.outbox.push(message),
            }
        }
    }

    /// Sends what the outbox holds, its own and what somebody left over, and clears it.
    fn send(&mut self, f: usize, way: Way) -> bool {
        let outbox = std::mem::take(&mut self.flow(f).outbox);
        for (place, message) in outbox.iter().enumerate() {
            match way {
                Way::Crash(sent) if place >= sent => break,
                Way::CallLost(lost) if place == lost => match message {
                    Effect::Message(session::Message::AnswerStep { token, .. }) => {
                        let operation = token.split('/').next().unwrap_or_default().to_owned();
                        self.cut_off(f, &operation, token);
                    }
                    // Nobody makes that call again: it is as if the execution had ended at once.
                    Effect::Message(session::Message::StartExecution { operation, .. }) => {
                        self.flow(f)
                            .executions
                            .entry(operation.clone())
                            .or_insert(Execution::Ended);
                    }
                    _ => {}
                },
                _ => self.send_one(f, message.clone()),
            }
        }
        let crashed = matches!(way, Way::Crash(_));
        if crashed && self.core.saves_outbox {
            self.flow(f).outbox = outbox;
        }
        !crashed
    }

    fn send_one(&mut self, f: usize, message: Effect) {
        match message {
            Effect::Message(session::Message::StartExecution { operation, kind }) => {
                if !self.world.flows[f].executions.contains_key(&operation) {
                    let first = match kind {
                        Kind::Start => Step::ClaimCompute,
                        Kind::Install => Step::InstallPackages,
                        Kind::Stop | Kind::Reset | Kind::Update => Step::StopSession,
                    };
                    self.enter(f, &operation, kind, first, 0, 0, None);
                }
            }
            Effect::Message(session::Message::AnswerStep { token, failure }) => self.answer(f, &token, failure),
            Effect::Message(session::Message::AgentInstall { generation, .. })
            | Effect::Message(session::Message::AgentCancelInstall { generation, .. })
            | Effect::Message(session::Message::AgentRun { generation, .. })
            | Effect::Message(session::Message::AgentCancelRun { generation, .. })
            | Effect::Message(session::Message::AgentNetwork { generation, .. })
            | Effect::Message(session::Message::AgentLease { generation, .. }) => self.put(Message::Agent {
                flow: f,
                generation,
                command: message,
            }),
            // Somebody reads it.
            Effect::Message(session::Message::WarnIdle { .. })
            | Effect::Message(session::Message::WarnDailyTime { .. }) => {}
            request => self.put(Message::Driver { flow: f, request }),
        }
    }

    fn claim_of(&mut self, f: usize, event: &mut Event) -> Option<(Compute, Usage)> {
        let session = &self.world.flows[f].session;
        let Event::StepEntered {
            operation,
            step: Step::ClaimCompute,
            compute,
            cause,
            ..
        } = event
        else {
            return None;
        };
        if session.current.as_ref().is_none_or(|o| o.id != *operation) || session.phase != Phase::Provisioning {
            return None;
        }
        let computes = &self.world.computes;
        if let Some(held) = session.compute.as_ref().and_then(|id| computes.rows.get(id)) {
            let (up, new) = (held.phase == ComputePhase::Up, held.phase == ComputePhase::Requested);
            *compute = Some(Claimed {
                id: held.id.clone(),
                up,
                new,
            });
            return None;
        }
        let slot = (self.core.slot)(session);
        let in_slot = computes.slots.get(&slot).and_then(|id| computes.rows.get(id));
        let new_id = format!("c{}", computes.rows.len());
        let claimed = match slot.instance {
            None => (self.core.claim)(in_slot, &slot, &session.flow, &new_id, NOW),
            Some(_) => match (self.core.join)(in_slot, &session.flow, NOW) {
                Some(claimed) => claimed,
                None => {
                    *cause = Some(Failure::new(Code::InstanceNotRunning, ""));
                    return None;
                }
            },
        };
        let mut usage = computes.usage.clone();
        if session.owner == ON_DAILY {
            let wanted = Use {
                lineage: String::new(),
                size: slot.size.clone(),
                compute: claimed.id.clone(),
                since: None,
            };
            match (self.core.enter)(&usage, &session.flow, &wanted, &daily(), "w", NOW) {
                Ok(entered) => usage = bounded(entered),
                Err(failure) => {
                    *cause = Some(failure);
                    return None;
                }
            }
            if computes.lived >= DAILY {
                let what = format!("{} gets {}", session.flow, claimed.id);
                self.breaks(properties::DAILY_REFUSED, what);
            }
        }
        let is_draining = matches!(claimed.phase, ComputePhase::Draining | ComputePhase::Releasing);
        // How long it has been there changes nothing.
        let claimed = Compute { since: None, ..claimed };
        *compute = Some(Claimed {
            id: claimed.id.clone(),
            up: claimed.phase == ComputePhase::Up,
            new: claimed.id == new_id,
        });
        if is_draining {
            let what = format!("{} takes a session", claimed.id);
            self.breaks(properties::DRAINING_TAKES_NONE, what);
        }
        Some((claimed, usage))
    }

    /// The compute resource's own row first, then each session on it.
    fn observe(&mut self, id: &str, up: bool, way: Way) -> bool {
        let Some(row) = self.world.computes.rows.get(id).cloned() else {
            return true;
        };
        if up && row.phase == ComputePhase::Gone {
            self.put(Message::Driver {
                flow: 0,
                request: Effect::Message(session::Message::ReleaseCompute { compute: id.to_owned() }),
            });
            return true;
        }
        if let Some(next) = (self.core.observe)(&row, if up { Seen::Up } else { Seen::Gone }) {
            Rc::make_mut(&mut self.world.computes).rows.insert(id.to_owned(), next);
        }
        let mut done = true;
        for flow in &row.sessions {
            let f = (0..self.world.flows.len())
                .find(|f| name_of(*f) == *flow)
                .unwrap_or_default();
            let compute = id.to_owned();
            let event = if up {
                Event::ComputeUp { compute }
            } else {
                Event::ComputeGone {
                    compute,
                    why: String::new(),
                }
            };
            done = self.happen(f, event, way);
            if !done {
                break;
            }
        }
        done
    }

    fn chase(&mut self, id: &str) {
        let Some((next, ask)) = self
            .world
            .computes
            .rows
            .get(id)
            .and_then(|row| (self.core.chase)(row, NOW))
        else {
            return;
        };
        let request = match ask {
            Chase::Look => return self.look(id),
            Chase::Create => Effect::Message(session::Message::CreateCompute {
                compute: id.to_owned(),
                slot: next.slot.clone(),
            }),
            Chase::StopSessions => {
                self.stop_all_on(&next);
                Rc::make_mut(&mut self.world.computes).rows.insert(id.to_owned(), next);
                return;
            }
            Chase::Delete => Effect::Message(session::Message::ReleaseCompute { compute: id.to_owned() }),
        };
        Rc::make_mut(&mut self.world.computes).rows.insert(id.to_owned(), next);
        self.put(Message::Driver { flow: 0, request });
    }

    /// Looks whether the time of the day is used up.
    fn look_daily(&mut self) {
        let Some((next, what)) = (self.core.look_daily)(&self.world.computes.usage, &daily(), NOW) else {
            return;
        };
        for f in 0..self.world.flows.len() {
            let session = &self.world.flows[f].session;
            let generation = session.generation;
            if !next.sessions.contains_key(&session.flow) {
                continue;
            }
            let event = match what {
                Daily::Wait => return self.keep_usage(next),
                Daily::Warn { due } => Event::DailyTimeNear { generation, due },
                Daily::Stop { until } => Event::DailyTimeUsedUp {
                    operation: format!("daily{generation}"),
                    generation,
                    until,
                    why: Failure::new(Code::SessionDailyTimeUsedUp, ""),
                },
            };
            self.put(Message::Command { flow: f, event });
        }
        self.keep_usage(next);
    }

    fn keep_usage(&mut self, usage: Usage) {
        Rc::make_mut(&mut self.world.computes).usage = bounded(usage);
    }

    /// Looks whether an instance is idle.
    fn look(&mut self, id: &str) {
        let row = self.world.computes.rows[id].clone();
        let on_it = |f: &usize| row.sessions.contains(&name_of(*f));
        let flows: Vec<usize> = (0..self.world.flows.len()).filter(on_it).collect();
        let session = |f: usize| &self.world.flows[f].session;
        let used = flows.iter().map(|f| session(*f).last_activity).max();
        let busy = flows.iter().any(|f| session(*f).is_busy());
        let next = (self.core.look)(&row, used, busy, why_drained(), NOW);
        if next.phase == ComputePhase::Releasing {
            let request = Effect::Message(session::Message::ReleaseCompute { compute: id.to_owned() });
            self.put(Message::Driver { flow: 0, request });
        } else if !busy && next.is_idle(NOW) {
            for f in flows {
                let session = &self.world.flows[f].session;
                let event = Event::IdleSeen {
                    operation: format!("idle{}", session.generation),
                    generation: session.generation,
                    activity: session.last_activity,
                    why: Some(why_drained()),
                };
                self.put(Message::Command { flow: f, event });
            }
        }
        Rc::make_mut(&mut self.world.computes).rows.insert(id.to_owned(), next);
    }

    /// Sends a command to each session on a compute resource that is to go.
    fn stop_all_on(&mut self, row: &Compute) {
        for f in 0..self.world.flows.len() {
            if row.sessions.contains(&name_of(f)) {
                let event = Event::ComputeDrained {
                    operation: format!("drain-{}-{f}", row.id),
                    compute: row.id.clone(),
                    why: why_drained(),
                };
                self.put(Message::Command { flow: f, event });
            }
        }
    }

    // The state machine: `infra/lifecycle.asl.json`, by its order of steps.

    #[allow(clippy::too_many_arguments, reason = "they are what a step of an execution is")]
    fn enter(
        &mut self,
        f: usize,
        operation: &str,
        kind: Kind,
        step: Step,
        count: u8,
        retries: u8,
        cause: Option<Failure>,
    ) {
        let times_out = NOW
            + match step {
                Step::StopSession if kind != Kind::Stop => 540_000,
                Step::StopSession | Step::CleanUp => 360_000,
                Step::ClaimCompute => 660_000,
                Step::LaunchSession => 360_000,
                Step::InstallPackages => 1_860_000,
            };
        let token = format!("{operation}/{step:?}{count}");
        let message = Message::Step {
            flow: f,
            operation: operation.to_owned(),
            step,
            token: token.clone(),
            cause: cause.clone(),
        };
        let waiting = Execution::Waiting {
            kind,
            step,
            token,
            count,
            retries,
            times_out,
            cause,
            cut_off: false,
        };
        self.flow(f).executions.insert(operation.to_owned(), waiting);
        self.put(message);
    }

    fn answer(&mut self, f: usize, answered: &str, failure: Option<Failure>) {
        let operation = answered.split('/').next().unwrap_or_default().to_owned();
        let Some(Execution::Waiting { kind, step, token, .. }) =
            self.world.flows[f].executions.get(&operation).cloned()
        else {
            return;
        };
        if token != answered {
            return;
        }
        let next = match (&failure, step, kind) {
            (Some(failure), _, _) if failure.error == Code::SessionSuperseded => None,
            (_, Step::CleanUp, _) | (None, Step::InstallPackages, _) | (None, Step::StopSession, Kind::Stop) => None,
            (Some(_), _, _) => Some(Step::CleanUp),
            (None, Step::StopSession, _) => Some(Step::ClaimCompute),
            (None, Step::ClaimCompute, _) => Some(Step::LaunchSession),
            (None, Step::LaunchSession, _) => Some(Step::InstallPackages),
        };
        match next {
            Some(next) => self.enter(f, &operation, kind, next, 0, 0, failure),
            None => drop(self.flow(f).executions.insert(operation, Execution::Ended)),
        }
    }

    fn time_out(&mut self, f: usize, operation: &str) {
        let Some(Execution::Waiting {
            kind,
            step,
            count,
            retries,
            cause,
            ..
        }) = self.world.flows[f].executions.get(operation).cloned()
        else {
            return;
        };
        match step {
            Step::StopSession | Step::CleanUp if retries < 3 => {
                self.enter(f, operation, kind, step, count + 1, retries + 1, cause)
            }
            Step::CleanUp => drop(self.flow(f).executions.insert(operation.to_owned(), Execution::Ended)),
            _ => self.enter(
                f,
                operation,
                kind,
                Step::CleanUp,
                0,
                0,
                Some(Failure::new(Code::read("States.Timeout"), "")),
            ),
        }
    }

    fn cut_off(&mut self, f: usize, operation: &str, lost: &str) {
        if let Some(Execution::Waiting { token, cut_off, .. }) = self.flow(f).executions.get_mut(operation)
            && token == lost
        {
            *cut_off = true;
        }
    }

    // The driver and the agents.

    fn drive(&mut self, f: usize, request: Effect) {
        match request {
            Effect::Message(session::Message::CreateCompute { compute, .. }) => {
                let computes = Rc::make_mut(&mut self.world.computes);
                let up = !computes.deleted.contains(&compute);
                if up {
                    computes.exist.insert(compute.clone());
                }
                self.put(Message::Compute { compute, up });
            }
            Effect::Message(session::Message::ReleaseCompute { compute }) => {
                if self
                    .world
                    .flows
                    .iter()
                    .any(|flow| flow.containers.iter().any(|c| c.compute == compute))
                {
                    self.breaks(
                        properties::COMPUTE_LASTS_AS_LONG_AS_ITS_SESSIONS,
                        format!("{compute} is released under a live container"),
                    );
                }
                self.compute_ends(&compute);
                self.put(Message::Compute { compute, up: false });
            }
            Effect::Message(session::Message::LaunchSession {
                generation,
                compute,
                until,
                ..
            }) => {
                let there = self.world.computes.exist.contains(&compute);
                let flow = self.flow(f);
                if NOW > until + SKEW {
                    return;
                }
                if let Some(other) = flow
                    .launched
                    .get(&generation)
                    .filter(|other| **other != compute)
                    .cloned()
                {
                    let what = format!("generation {generation} is launched on {other} and on {compute}");
                    return self.breaks(properties::ONE_CONTAINER, what);
                }
                if flow.containers.iter().any(|c| c.generation == generation) {
                    self.report(f, up(generation));
                } else if flow
                    .launching
                    .as_ref()
                    .is_some_and(|launch| launch.generation == generation)
                {
                    // It says so when it is done.
                } else if generation <= flow.removed || !there || flow.launched.contains_key(&generation) {
                    self.ended(f, generation);
                } else {
                    flow.launching = Some(Launch {
                        generation,
                        compute,
                        until,
                    });
                }
            }
            Effect::Message(session::Message::CheckImage { .. }) => self.check(f, request, None),
            Effect::Message(session::Message::RemoveSession { generation, .. }) => {
                let flow = self.flow(f);
                flow.removed = flow.removed.max(generation);
                flow.containers.retain(|c| c.generation > generation);
                // One that is being launched is still to be ended, and then it is said that there
                // is none.
                if flow
                    .launching
                    .as_ref()
                    .is_none_or(|launch| launch.generation > generation)
                {
                    self.report(f, gone(generation, None));
                }
            }
            _ => {}
        }
    }

    fn check(&mut self, f: usize, request: Effect, failure: Option<Failure>) {
        let Effect::Message(session::Message::CheckImage {
            generation, operation, ..
        }) = request
        else {
            return;
        };
        self.report(
            f,
            Event::ImageChecked {
                generation,
                operation,
                failure,
            },
        );
    }

    fn launched(&mut self, f: usize) {
        let computes = self.world.computes.clone();
        let flow = self.flow(f);
        let Some(Launch {
            generation,
            compute,
            until,
        }) = flow.launching.take()
        else {
            return;
        };
        if generation <= flow.removed || !computes.exist.contains(&compute) {
            self.ended(f, generation);
        } else if NOW > until + SKEW {
            // It took too long, and is given up without a word.
            flow.removed = generation;
        } else {
            flow.launched.insert(generation, compute.clone());
            flow.containers.push(Container {
                generation,
                compute,
                ends: NOW + LEASE + SKEW,
                nonce: 0,
                asked: NOW,
                runs: BTreeSet::new(),
                told: BTreeSet::new(),
            });
            self.report(f, up(generation));
        }
    }

    /// A compute resource ends, with all on it.
    fn compute_ends(&mut self, id: &str) {
        let computes = Rc::make_mut(&mut self.world.computes);
        computes.exist.remove(id);
        computes.deleted.insert(id.to_owned());
        for f in 0..self.world.flows.len() {
            if self.world.flows[f].containers.iter().any(|c| c.compute == id) {
                self.flow(f).containers.retain(|c| c.compute != id);
            }
        }
    }

    /// The driver sees that there is no container, though nobody has asked for its removal.
    fn ended(&mut self, f: usize, generation: u32) {
        let flow = self.flow(f);
        flow.removed = flow.removed.max(generation);
        self.report(f, gone(generation, Some(Failure::new(Code::SessionContainerEnded, ""))));
    }

    fn tell(&mut self, f: usize, generation: u32, command: Effect) {
        let flow = self.flow(f);
        let Some(container) = flow.containers.iter_mut().find(|c| c.generation == generation) else {
            return;
        };
        match command {
            Effect::Message(session::Message::AgentInstall { operation, attempt, .. }) => {
                flow.installed.insert(generation);
                self.report(
                    f,
                    Event::Installed {
                        generation,
                        operation,
                        attempt,
                        warning: None,
                    },
                );
            }
            Effect::Message(session::Message::AgentRun { run, .. }) if container.told.insert(run.clone()) => {
                container.runs.insert(run);
            }
            Effect::Message(session::Message::AgentLease { nonce, .. }) if nonce == container.nonce => {
                container.ends = container.ends.max(container.asked + LEASE + SKEW);
            }
            _ => {}
        }
    }

    // Time.

    fn wait(&mut self, renewing: bool) {
        let Some(moment) = self.world.next_moment(self.core, renewing) else {
            return;
        };
        self.world.shift(moment - NOW);
        for f in 0..self.world.flows.len() {
            let flow = &self.world.flows[f];
            for container in flow.containers.clone() {
                if renewing && flow.renews(&container) {
                    // It has asked every few seconds, and asks now.
                    let asks = Container {
                        asked: NOW,
                        ..container
                    };
                    let flow = Rc::make_mut(&mut self.world.flows[f]);
                    if let Ok((mut after, _)) = (self.core.decide)(&flow.session, &alive(&asks), NOW) {
                        after.revision = 0;
                        flow.session = after;
                    }
                    for c in flow.containers.iter_mut().filter(|c| c.generation == asks.generation) {
                        c.asked = NOW;
                        c.ends = NOW + LEASE + SKEW;
                    }
                    break;
                } else if container.ends <= NOW {
                    Rc::make_mut(&mut self.world.flows[f])
                        .containers
                        .retain(|c| c.generation != container.generation);
                    self.ended(f, container.generation);
                    break;
                }
            }
        }
    }
}

/// A usage without what grows for ever.
fn bounded(mut usage: Usage) -> Usage {
    usage.revision = 0;
    if let Some(past) = &mut usage.past {
        past.lived = past.lived.min(DAILY);
    }
    usage
}

fn why_drained() -> Failure {
    Failure::new(Code::SessionComputeDeleted, "")
}

fn up(generation: u32) -> Event {
    Event::SessionUp {
        generation,
        key: "k".into(),
    }
}

fn gone(generation: u32, failure: Option<Failure>) -> Event {
    Event::SessionGone { generation, failure }
}

fn alive(container: &Container) -> Event {
    let runs = container.runs.iter().cloned().collect();
    Event::Alive {
        generation: container.generation,
        nonce: container.nonce,
        runs,
    }
}

fn word(wish: Wish) -> &'static str {
    match wish {
        Wish::Run => "run",
        Wish::Change => "change",
        Wish::Operation(Kind::Start) => "start",
        Wish::Operation(Kind::Install) => "install",
        Wish::Operation(Kind::Update) => "update",
        Wish::Operation(Kind::Reset) => "reset",
        Wish::Operation(Kind::Stop) => "stop",
    }
}

impl Act {
    /// Whether something goes wrong by it.
    pub(crate) fn is_fault(&self, world: &World, core: &Core) -> bool {
        match self {
            Self::Command(_, _, way) | Self::Deliver(_, way) | Self::Tick(_, way) => *way != Way::Through,
            Self::Wait => !world.is_quiet(core),
            Self::Repeat(_)
            | Self::Lose(_)
            | Self::InstallFails(_)
            | Self::NoImage(_)
            | Self::SendAgain(..)
            | Self::ContainerDies(_)
            | Self::ComputeDies(_)
            | Self::Silence => true,
            Self::Launched(_)
            | Self::SeeIdle(_)
            | Self::SeeNear(_)
            | Self::Chase(_)
            | Self::LookDaily
            | Self::Drain(_)
            | Self::StartInstance
            | Self::TimeOut(..)
            | Self::RunEnds(..)
            | Self::Activity(_)
            | Self::Ask(_) => false,
        }
    }
}

impl World {
    fn bag_sorted(&mut self) {
        if !self.bag.is_sorted() {
            Rc::make_mut(&mut self.bag).sort();
        }
    }

    /// The next moment at which something may be due, or end. With `renewing`, the leases of agents
    /// that are well do not run out.
    pub(crate) fn next_moment(&self, core: &Core, renewing: bool) -> Option<Millis> {
        let mut moments = Vec::new();
        for flow in &self.flows {
            let renewed = flow.containers.iter().find(|c| renewing && flow.renews(c));
            let mut session = flow.session.clone();
            if let Some(container) = renewed {
                session.alive_until = None;
                session.runs.retain(|run, _| !container.runs.contains(run));
                if !container.runs.is_empty() {
                    // It is not idle; the run that remains stands for it.
                    session.runs.entry(String::new()).or_insert(Lease::Waiting);
                }
            }
            moments.extend((core.due)(&session));
            // The first lease is longer by the time that the launch might have taken.
            let first = |until: &Millis| flow.session.phase == Phase::Ready && *until > NOW + LEASE + LEASE_MARGIN;
            moments.extend(
                flow.session
                    .alive_until
                    .filter(|until| renewed.is_none() || first(until)),
            );
            moments.extend(flow.containers.iter().filter(|_| renewed.is_none()).map(|c| c.ends));
            moments.extend(flow.executions.values().filter_map(|e| match e {
                Execution::Waiting { times_out, .. } => Some(*times_out),
                Execution::Ended => None,
            }));
        }
        moments.extend(
            self.flows
                .iter()
                .filter_map(|flow| Some(flow.launching.as_ref()?.until + SKEW + 1)),
        );
        moments.extend(self.computes.rows.values().filter_map(|row| row.due));
        moments.extend(self.computes.usage.due);
        // The time is used up then, whatever is counted.
        let left = DAILY - self.computes.lived;
        let live = Some(self.on_daily()).filter(|live| *live > 0);
        moments.extend(live.map(|live| NOW + left.div_ceil(live)));
        moments.extend(self.bag.iter().filter_map(|message| match message {
            Message::Driver {
                request: Effect::Message(session::Message::LaunchSession { until, .. }),
                ..
            } => Some(until + SKEW),
            _ => None,
        }));
        moments.into_iter().filter(|moment| *moment > NOW).min()
    }

    /// The number of sessions of [`ON_DAILY`] on a compute resource.
    fn on_daily(&self) -> Millis {
        let sessions = self.flows.iter().map(|flow| &flow.session);
        sessions.filter(|s| s.owner == ON_DAILY && s.compute.is_some()).count() as Millis
    }

    /// Whether the time of the day is used up, and whether a session is there nevertheless.
    pub(crate) fn is_over_daily(&self) -> (bool, bool) {
        (self.computes.lived >= DAILY, self.on_daily() > 0)
    }

    /// Lets time pass.
    fn shift(&mut self, by: Millis) {
        let lived = (self.computes.lived + by * self.on_daily()).min(DAILY);
        let gone = |time: &mut Millis| *time = (*time - by.min(*time)).max(NOW);
        for flow in &mut self.flows {
            let flow = Rc::make_mut(flow);
            flow.session.shift(by);
            for execution in flow.executions.values_mut() {
                if let Execution::Waiting { times_out, .. } = execution {
                    gone(times_out);
                }
            }
            for container in &mut flow.containers {
                gone(&mut container.ends);
                container.asked = (container.asked - by).max(NOW - LEASE - SKEW);
            }
            if let Some(launch) = &mut flow.launching {
                launch.until = (launch.until - by).max(NOW - LAUNCH_WINDOW_WITH_PULL);
            }
            flow.outbox.iter_mut().for_each(|effect| shift_effect(effect, by));
        }
        let computes = Rc::make_mut(&mut self.computes);
        computes.lived = lived;
        computes.usage.due.iter_mut().for_each(gone);
        for held in computes.usage.sessions.values_mut() {
            held.since = held.since.map(|since| (since - by).max(NOW - DAILY));
        }
        for row in computes.rows.values_mut() {
            row.due.iter_mut().for_each(gone);
            if let Some(shutdown) = &mut row.shutdown {
                shutdown.used = (shutdown.used - by).max(NOW - IDLE);
                shutdown.warned.iter_mut().for_each(gone);
            }
        }
        for message in Rc::make_mut(&mut self.bag) {
            match message {
                Message::Driver { request, .. } => shift_effect(request, by),
                Message::Command {
                    event: Event::IdleSeen { activity, .. },
                    ..
                } => *activity = (*activity - by).max(NOW - IDLE),
                Message::Command {
                    event: Event::IdleNear { due, .. } | Event::DailyTimeNear { due, .. },
                    ..
                } => gone(due),
                _ => {}
            }
        }
    }
}

fn shift_effect(effect: &mut Effect, by: Millis) {
    if let Effect::Message(session::Message::LaunchSession { until, .. }) = effect {
        *until = (*until - by).max(NOW - LAUNCH_WINDOW_WITH_PULL);
    }
}

/// A stored session after some time.
trait Shift {
    fn shift(&mut self, by: Millis);
}

impl Shift for Session {
    fn shift(&mut self, by: Millis) {
        let gone = |time: &mut Millis| *time = (*time - by).max(NOW);
        self.deadline.iter_mut().for_each(gone);
        self.alive_until.iter_mut().for_each(gone);
        for lease in self.runs.values_mut() {
            if let Lease::Until(until) = lease {
                gone(until);
            }
        }
        self.last_activity = (self.last_activity - by).max(NOW - self.settings.idle.value);
        self.warned.iter_mut().for_each(gone);
        self.daily_warned.iter_mut().for_each(gone);
        self.since = NOW;
    }
}
