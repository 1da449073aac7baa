//! The outside in memory: a table, queues, a state machine of three lines, a driver and an agent
//! that do as they are told.
//!
//! Every call of a port is counted. The one with the number [`World::fail_at`] fails, either before
//! anything was done or after all was done, as a lost request and a lost reply do.

use contract::{
    Code, Failure, Kind, Millis, Outcome, Phase,
    agent::{AgentCommand, OutputLine},
    command::{Command, RunWish},
    driver::ComputeRequest,
    http::RunChange,
    instance::InstanceRow,
    network::NetworkRow,
    notice::Notice,
    packages::{InstallRow, PackagesRow, Setup},
    people::RoleRow,
    row::{LogRow, OperationRow, OperationStatus, RunRow, SessionRow, UsedRow},
};
use lifecycle::{
    compute::{Compute, Seen, Slot},
    quota::Usage,
    session::{self, Event, Packages, Step},
    size::Offer,
};
use shell::{Due, DueRow, Fault, Happened, Ports, Save, Sender, Write, accept, happen, observe_compute, sweep};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Mutex,
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Loss {
    Request,
    Reply,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a world holds few messages")]
pub(crate) enum Message {
    Command(String),
    Execution {
        flow: String,
        operation: String,
        kind: Kind,
    },
    Step {
        flow: String,
        operation: String,
        step: Step,
        token: String,
    },
    Answer {
        token: String,
        failed: bool,
    },
    Driver(ComputeRequest),
    Agent {
        flow: String,
        generation: u32,
        command: AgentCommand,
    },
    Up(String),
    SessionUp(String, u32),
    ImageChecked(String, u32, String),
    Gone(String, u32),
    ComputeGone(String),
    Installed(String, u32, String, u32),
    RunDone(String, u32, String),
}

#[derive(Default)]
pub(crate) struct State {
    /// The deletions that were warned of.
    pub warned: Vec<Millis>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) now: Millis,
    pub(crate) sessions: BTreeMap<String, (SessionRow, Option<Millis>)>,
    pub(crate) operations: BTreeMap<String, OperationRow>,
    pub(crate) runs: BTreeMap<String, RunRow>,
    /// The runs that have files beside their rows.
    pub(crate) run_files: BTreeSet<String>,
    /// The runs whose files cannot be removed.
    pub(crate) is_stuck: BTreeSet<String>,
    pub(crate) computes: BTreeMap<String, Compute>,
    pub(crate) slots: BTreeMap<Slot, String>,
    pub(crate) usage: BTreeMap<(String, String), Usage>,
    usage_due: BTreeMap<(String, String), Millis>,
    pub(crate) workspace: Option<contract::workspace::WorkspaceRow>,
    pub(crate) log: BTreeMap<(String, u64), LogRow>,
    pub(crate) queue: VecDeque<Message>,
    executions: BTreeMap<String, (String, Kind)>,
    steps: BTreeMap<String, (String, String, Step)>,
    containers: BTreeSet<(String, u32)>,
    removed: BTreeMap<String, u32>,
    pub(crate) packages: BTreeMap<String, PackagesRow>,
    pub(crate) refused: BTreeMap<String, NetworkRow>,
    pub(crate) used: BTreeMap<String, UsedRow>,
    pub(crate) offer: Offer,
    pub(crate) installs: BTreeMap<(String, u64), InstallRow>,
    /// Every container that was ever started, to see that none was started twice.
    pub(crate) launched: Vec<(String, u32)>,
    ids: u64,
    calls: usize,
    pub(crate) most_sessions: usize,
    /// By workspace, owner and name.
    pub(crate) instances: BTreeMap<(String, String, String), InstanceRow>,
    pub(crate) webhooks: Option<contract::webhook::WebhooksRow>,
    /// By workspace and user.
    pub(crate) roles: BTreeMap<(String, String), RoleRow>,
}

pub(crate) struct World {
    pub(crate) state: Mutex<State>,
    pub(crate) fail_at: Option<(usize, Loss)>,
}

fn key_of(row: &InstanceRow) -> (String, String, String) {
    (row.workspace.clone(), row.owner.clone(), row.name.clone())
}

/// The key of a slot: an instance has one by its name.
fn place_of(slot: &Slot) -> Slot {
    match slot.instance {
        None => slot.clone(),
        Some(_) => Slot {
            size: String::new(),
            identity: None,
            ..slot.clone()
        },
    }
}

/// Lives a life once as it is, and once more with each of its calls failing, before it is done or
/// after; checks each. Gives back how many lives had a failed call.
#[allow(dead_code, reason = "not every test that has a world lives so")]
pub(crate) async fn each_call_fails(life: impl AsyncFn(&World), lived: impl Fn(&World, &str)) -> usize {
    let whole = World::new(None);
    life(&whole).await;
    lived(&whole, "no failure");
    let calls = whole.calls();
    for loss in [Loss::Request, Loss::Reply] {
        for at in 1..=calls {
            let world = World::new(Some((at, loss)));
            life(&world).await;
            lived(&world, &format!("{loss:?} of call {at}"));
        }
    }
    calls * 2
}

impl World {
    pub(crate) fn new(fail_at: Option<(usize, Loss)>) -> Self {
        Self {
            state: Mutex::new(State {
                now: 1_000_000,
                most_sessions: 3,
                ..State::default()
            }),
            fail_at,
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.lock().unwrap().calls
    }

    /// Does `what` to the state, unless it is this call's turn to fail.
    fn call<T>(&self, what: impl FnOnce(&mut State) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let lost = || Fault::outside("a call of the test")("lost".into());
        match self.fail_at {
            Some((at, Loss::Request)) if at == state.calls => Err(lost()),
            Some((at, Loss::Reply)) if at == state.calls => what(&mut state).and(Err(lost())),
            _ => what(&mut state),
        }
    }

    /// Puts a command into the queue, as its user does.
    pub(crate) fn send(&self, command: &serde_json::Value) {
        self.state
            .lock()
            .unwrap()
            .queue
            .push_back(Message::Command(command.to_string()));
    }

    /// Delivers what there is until nothing is left, again and again what was not taken, with a
    /// sweep when all is quiet.
    pub(crate) async fn settle(&self) {
        for _ in 0..1000 {
            let message = self.state.lock().unwrap().queue.pop_front();
            let Some(message) = message else {
                if !self.sweep_all().await {
                    return;
                }
                continue;
            };
            if self.deliver(message.clone()).await.is_err() {
                self.state.lock().unwrap().queue.push_back(message);
            }
        }
        panic!("the world does not come to rest");
    }

    /// Lets time pass to the next thing that is due within a minute, and sweeps. Whether there was
    /// one.
    async fn sweep_all(&self) -> bool {
        {
            let mut state = self.state.lock().unwrap();
            let soon = state.now + 60_000;
            let dues = state.sessions.values().filter_map(|(_, due)| *due);
            let dues = dues
                .chain(state.computes.values().filter_map(|c| c.due))
                .chain(state.usage.values().filter_map(|usage| usage.due))
                .filter(|due| *due <= soon)
                .min();
            let Some(due) = dues else { return false };
            state.now = state.now.max(due);
        }
        for shard in 0..1 {
            let _ = sweep(self, shard).await;
        }
        true
    }

    async fn deliver(&self, message: Message) -> Result<(), Fault> {
        let push = |message| self.state.lock().unwrap().queue.push_back(message);
        match message {
            Message::Command(body) => {
                let id = if body.contains("\"sweep\"") { "ours" } else { "alice" };
                return accept(
                    self,
                    &body,
                    &Sender {
                        id: id.into(),
                        speaks_for: if id == "ours" {
                            shell::SpeaksFor::Anybody
                        } else {
                            shell::SpeaksFor::Itself
                        },
                    },
                )
                .await;
            }
            Message::Execution { flow, operation, kind } => {
                let first = match kind {
                    Kind::Start => Step::ClaimCompute,
                    Kind::Install => Step::InstallPackages,
                    Kind::Stop | Kind::Reset | Kind::Update => Step::StopSession,
                };
                let fresh = self
                    .state
                    .lock()
                    .unwrap()
                    .executions
                    .insert(operation.clone(), (flow.clone(), kind))
                    .is_none();
                if fresh {
                    self.enter(flow, operation, first);
                }
            }
            Message::Step {
                flow,
                operation,
                step,
                token,
            } => {
                let event = Event::StepEntered {
                    operation,
                    step,
                    token,
                    compute: None,
                    cause: None,
                    image: None,
                };
                let _ = happen(self, &Happened::new(&flow, event, "states")).await?;
            }
            Message::Answer { token, failed } => {
                let answered = self.state.lock().unwrap().steps.remove(&token);
                let Some((flow, operation, step)) = answered else {
                    return Ok(());
                };
                let kind = self.state.lock().unwrap().executions[&operation].1;
                let next = match (step, failed) {
                    (Step::CleanUp, _) => None,
                    (_, true) => Some(Step::CleanUp),
                    (Step::StopSession, _) => (kind != Kind::Stop).then_some(Step::ClaimCompute),
                    (Step::ClaimCompute, _) => Some(Step::LaunchSession),
                    (Step::LaunchSession, _) => Some(Step::InstallPackages),
                    (Step::InstallPackages, _) => None,
                };
                if let Some(next) = next {
                    self.enter(flow, operation, next);
                }
            }
            Message::Driver(ComputeRequest::CreateCompute { compute, .. }) => push(Message::Up(compute)),
            Message::Driver(ComputeRequest::ReleaseCompute { compute }) => push(Message::ComputeGone(compute)),
            Message::Driver(ComputeRequest::LaunchSession { flow, generation, .. }) => {
                let mut state = self.state.lock().unwrap();
                if state.removed.get(&flow).is_none_or(|removed| *removed < generation) {
                    if state.containers.insert((flow.clone(), generation)) {
                        state.launched.push((flow.clone(), generation));
                    }
                    state.queue.push_back(Message::SessionUp(flow, generation));
                }
            }
            Message::Driver(ComputeRequest::CheckImage {
                flow,
                generation,
                operation,
                ..
            }) => push(Message::ImageChecked(flow, generation, operation)),
            Message::Driver(ComputeRequest::RemoveSession { flow, generation, .. }) => {
                let mut state = self.state.lock().unwrap();
                state.containers.remove(&(flow.clone(), generation));
                let removed = state.removed.entry(flow.clone()).or_default();
                *removed = generation.max(*removed);
                state.queue.push_back(Message::Gone(flow, generation));
            }
            Message::Agent {
                flow,
                generation,
                command,
            } => match command {
                AgentCommand::Install { operation, attempt, .. } => {
                    push(Message::Installed(flow, generation, operation, attempt))
                }
                AgentCommand::Run { run, .. } => push(Message::RunDone(flow, generation, run)),
                _ => {}
            },
            Message::Up(compute) => return observe_compute(self, &compute, Seen::Up, "").await,
            Message::ComputeGone(compute) => return observe_compute(self, &compute, Seen::Gone, "released").await,
            Message::SessionUp(flow, generation) => {
                let event = Event::SessionUp {
                    generation,
                    key: "key".into(),
                };
                let _ = happen(self, &Happened::new(&flow, event, "driver")).await?;
            }
            Message::ImageChecked(flow, generation, operation) => {
                let event = Event::ImageChecked {
                    generation,
                    operation,
                    failure: None,
                };
                let _ = happen(self, &Happened::new(&flow, event, "driver")).await?;
            }
            Message::Gone(flow, generation) => {
                let event = Event::SessionGone {
                    generation,
                    failure: None,
                };
                let _ = happen(self, &Happened::new(&flow, event, "driver")).await?;
            }
            Message::Installed(flow, generation, operation, attempt) => {
                let event = Event::Installed {
                    generation,
                    operation,
                    attempt,
                    warning: None,
                };
                let _ = happen(self, &Happened::new(&flow, event, "agent")).await?;
            }
            Message::RunDone(flow, generation, run) => {
                let event = Event::RunDone {
                    generation,
                    run,
                    outcome: Outcome::Succeeded,
                    failure: None,
                };
                let _ = happen(self, &Happened::new(&flow, event, "agent")).await?;
            }
        }
        Ok(())
    }

    fn enter(&self, flow: String, operation: String, step: Step) {
        let mut state = self.state.lock().unwrap();
        state.ids += 1;
        let token = format!("token-{}", state.ids);
        state
            .steps
            .insert(token.clone(), (flow.clone(), operation.clone(), step));
        state.queue.push_back(Message::Step {
            flow,
            operation,
            step,
            token,
        });
    }

    pub(crate) fn phase(&self, flow: &str) -> Phase {
        self.state.lock().unwrap().sessions[flow].0.session.phase
    }

    pub(crate) fn outcome(&self, operation: &str) -> OperationStatus {
        self.state.lock().unwrap().operations[operation].status
    }
}

impl Ports for World {
    fn now(&self) -> Millis {
        self.state.lock().unwrap().now
    }

    fn new_id(&self) -> String {
        let mut state = self.state.lock().unwrap();
        state.ids += 1;
        format!("id-{}", state.ids)
    }

    fn sessions_per_user(&self) -> usize {
        self.state.lock().unwrap().most_sessions
    }

    fn offer(&self) -> Offer {
        self.state.lock().unwrap().offer
    }

    async fn load_session(&self, flow: &str) -> Result<Option<SessionRow>, Fault> {
        self.call(|s| Ok(s.sessions.get(flow).map(|(row, _)| row.clone())))
    }

    async fn load_operation(&self, id: &str) -> Result<Option<OperationRow>, Fault> {
        self.call(|s| Ok(s.operations.get(id).cloned()))
    }

    async fn load_run(&self, id: &str) -> Result<Option<RunRow>, Fault> {
        self.call(|s| Ok(s.runs.get(id).cloned()))
    }

    async fn load_packages(&self, flow: &str) -> Result<Option<PackagesRow>, Fault> {
        self.call(|s| Ok(s.packages.get(flow).cloned()))
    }

    async fn installs(&self, flow: &str) -> Result<Vec<InstallRow>, Fault> {
        self.call(|s| {
            let of_flow = s.installs.iter().filter(|((f, _), _)| f == flow);
            Ok(of_flow.map(|(_, entry)| entry.clone()).collect())
        })
    }

    async fn load_compute(&self, id: &str) -> Result<Option<Compute>, Fault> {
        self.call(|s| Ok(s.computes.get(id).cloned()))
    }

    async fn load_slot(&self, slot: &Slot) -> Result<Option<Compute>, Fault> {
        self.call(|s| Ok(s.slots.get(&place_of(slot)).and_then(|id| s.computes.get(id)).cloned()))
    }

    async fn load_roles(&self, workspace: &str, user: &str) -> Result<Option<RoleRow>, Fault> {
        let key = (workspace.to_owned(), user.to_owned());
        self.call(|s| Ok(s.roles.get(&key).cloned()))
    }

    async fn load_instance(&self, workspace: &str, owner: &str, name: &str) -> Result<Option<InstanceRow>, Fault> {
        let key = (workspace.to_owned(), owner.to_owned(), name.to_owned());
        self.call(|s| Ok(s.instances.get(&key).cloned()))
    }

    async fn load_webhooks(&self, _: &str) -> Result<Option<contract::webhook::WebhooksRow>, Fault> {
        self.call(|s| Ok(s.webhooks.clone()))
    }

    async fn load_workspace(&self, _: &str) -> Result<Option<contract::workspace::WorkspaceRow>, Fault> {
        self.call(|s| Ok(s.workspace.clone()))
    }

    async fn load_usage(&self, workspace: &str, user: &str) -> Result<Usage, Fault> {
        let key = (workspace.to_owned(), user.to_owned());
        self.call(|s| Ok(s.usage.get(&key).cloned().unwrap_or_default()))
    }

    async fn save(&self, save: Save) -> Result<(), Fault> {
        self.call(|s| {
            for write in &save.writes {
                let holds = match write {
                    Write::Session { row, read, .. } => {
                        s.sessions.get(&row.session.flow).map_or(0, |(r, _)| r.session.revision) == *read
                    }
                    Write::NewOperation(row) => !s.operations.contains_key(&row.id),
                    Write::Instance(row) => {
                        s.instances.get(&key_of(row)).map_or(0, |row| row.revision) == row.revision - 1
                    }
                    Write::ForgetInstance(row) => {
                        s.instances.get(&key_of(row)).map(|row| row.revision) == Some(row.revision)
                    }
                    Write::NewRun(row) => !s.runs.contains_key(&row.id),
                    Write::Compute { compute, read } => s.computes.get(&compute.id).map(|c| c.revision) == *read,
                    Write::Slot { slot, was, .. } => s.slots.get(&place_of(slot)) == was.as_ref(),
                    Write::Usage { workspace, user, usage } => {
                        let stored = s.usage.get(&(workspace.clone(), user.clone()));
                        stored.map_or(0, |stored| stored.revision) + 1 == usage.revision
                    }
                    Write::Packages { flow, read, .. } => s.packages.get(flow).map(|row| row.number) == *read,
                    _ => true,
                };
                if !holds {
                    return Err(Fault::Conflict);
                }
            }
            for write in save.writes {
                match write {
                    Write::Session { row, due, .. } => {
                        assert!(
                            due.is_some() || !row.session.phase.is_live(),
                            "a row that is not final has a due time"
                        );
                        s.sessions.insert(row.session.flow.clone(), (*row, due));
                    }
                    Write::Log { flow, entry } => {
                        s.log.insert((flow, entry.revision), entry);
                    }
                    Write::NewOperation(row) => {
                        s.operations.insert(row.id.clone(), row);
                    }
                    Write::EndOperation { operation, end } => {
                        let row = s
                            .operations
                            .get_mut(&operation)
                            .expect("an operation that ends has a row");
                        *row = row.clone().with_end(end);
                    }
                    Write::NewRun(row) => {
                        s.runs.insert(row.id.clone(), row);
                    }
                    Write::EndRun { run, end } => {
                        let row = s.runs.get_mut(&run).expect("a run that ends has a row");
                        *row = row.clone().with_end(end);
                    }
                    Write::Instance(row) => drop(s.instances.insert(key_of(&row), row)),
                    Write::ForgetInstance(row) => drop(s.instances.remove(&key_of(&row))),
                    Write::Compute { compute, .. } => {
                        s.computes.insert(compute.id.clone(), compute);
                    }
                    Write::Slot { slot, compute, .. } => {
                        s.slots.insert(place_of(&slot), compute);
                    }
                    Write::Usage { workspace, user, usage } => {
                        let key = (workspace, user);
                        match usage.due_at(s.now).filter(|_| !key.1.is_empty()) {
                            Some(due) => s.usage_due.insert(key.clone(), due),
                            None => s.usage_due.remove(&key),
                        };
                        s.usage.insert(key, usage);
                    }
                    Write::Packages { flow, row, .. } => {
                        s.packages.insert(flow, *row);
                    }
                    Write::NewInstall { flow, entry } => {
                        s.installs.insert((flow, entry.packages.number), *entry);
                    }
                    Write::ForgetInstall { flow, number } => {
                        s.installs.remove(&(flow, number));
                    }
                }
            }
            Ok(())
        })
    }

    async fn clear(&self, flow: &str, sent: &[String], revision: u64, due: Option<Millis>) -> Result<(), Fault> {
        self.call(|s| {
            let (row, stored) = s
                .sessions
                .get_mut(flow)
                .expect("only a session that is there has an outbox");
            for key in sent {
                row.outbox.remove(key);
            }
            if row.session.revision == revision {
                *stored = due;
            }
            Ok(())
        })
    }

    async fn send(&self, row: &SessionRow, message: &session::Message) -> Result<(), Fault> {
        let flow = row.session.flow.clone();
        let settings = row.session.settings.clone();
        self.call(|s| {
            let message = match message.clone() {
                session::Message::StartExecution { operation, kind } => Message::Execution { flow, operation, kind },
                session::Message::AnswerStep { token, failure } => Message::Answer {
                    token,
                    failed: failure.is_some(),
                },
                session::Message::CreateCompute { compute, slot } => {
                    Message::Driver(ComputeRequest::create(compute, slot))
                }
                session::Message::ReleaseCompute { compute } => {
                    Message::Driver(ComputeRequest::ReleaseCompute { compute })
                }
                session::Message::LaunchSession {
                    generation,
                    compute,
                    settings,
                    until,
                } => {
                    let (owner, workspace) = (row.flow.owner.clone(), row.flow.workspace.clone());
                    Message::Driver(ComputeRequest::LaunchSession {
                        flow,
                        owner,
                        workspace,
                        generation,
                        compute,
                        settings,
                        room: None,
                        until,
                    })
                }
                session::Message::CheckImage {
                    generation,
                    operation,
                    image,
                } => Message::Driver(ComputeRequest::CheckImage {
                    flow,
                    generation,
                    operation,
                    image,
                }),
                session::Message::RemoveSession { generation, compute } => {
                    Message::Driver(ComputeRequest::RemoveSession {
                        flow,
                        generation,
                        compute,
                    })
                }
                session::Message::AgentInstall {
                    generation,
                    operation,
                    attempt,
                    settings,
                    packages,
                } => Message::Agent {
                    flow,
                    generation,
                    command: AgentCommand::Install {
                        operation,
                        attempt,
                        settings,
                        resolve: packages == Packages::Anew,
                        lock: match packages {
                            Packages::Required | Packages::Anew => None,
                            Packages::Recorded => s.packages.get(&row.session.flow).map(|row| row.lock.clone()),
                            Packages::Locked(lock) => Some(lock),
                        },
                    },
                },
                session::Message::AgentRun { generation, run } => {
                    let row = &s.runs[&run];
                    let (wish, folder) = (row.wish.clone(), row.folder.clone());
                    let settings = contract::Settings {
                        folder: folder.map_or(settings.folder, Into::into),
                        ..settings
                    };
                    Message::Agent {
                        flow,
                        generation,
                        command: AgentCommand::Run { run, settings, wish },
                    }
                }
                session::Message::AgentCancelRun { generation, run } => Message::Agent {
                    flow,
                    generation,
                    command: AgentCommand::CancelRun { run },
                },
                session::Message::AgentCancelInstall { generation, operation } => Message::Agent {
                    flow,
                    generation,
                    command: AgentCommand::CancelInstall { operation },
                },
                session::Message::AgentNetwork {
                    generation,
                    revision,
                    network,
                    allow_hosts,
                } => Message::Agent {
                    flow,
                    generation,
                    command: AgentCommand::Network {
                        revision,
                        network,
                        allow_hosts,
                    },
                },
                session::Message::AgentLease { generation, nonce } => Message::Agent {
                    flow,
                    generation,
                    command: AgentCommand::Lease { nonce },
                },
                session::Message::WarnIdle { due, .. } | session::Message::WarnDailyTime { due, .. } => {
                    s.warned.push(due);
                    return Ok(());
                }
            };
            s.queue.push_back(message);
            Ok(())
        })
    }

    async fn send_command(&self, command: &Command) -> Result<(), Fault> {
        let body = serde_json::to_string(command).unwrap();
        self.call(|s| {
            s.queue.push_back(Message::Command(body));
            Ok(())
        })
    }

    async fn send_notice(&self, notice: &Notice) -> Result<(), Fault> {
        self.call(|s| {
            s.notices.push(notice.clone());
            Ok(())
        })
    }

    async fn ask_driver(&self, request: &ComputeRequest) -> Result<(), Fault> {
        self.call(|s| {
            s.queue.push_back(Message::Driver(request.clone()));
            Ok(())
        })
    }

    async fn due(&self, _shard: u32, now: Millis) -> Result<Vec<Due>, Fault> {
        self.call(|s| {
            let sessions = s
                .sessions
                .iter()
                .filter(|(_, (_, due))| due.is_some_and(|due| due <= now));
            let computes = s.computes.values().filter(|c| c.due.is_some_and(|due| due <= now));
            let usages = s.usage_due.iter().filter(|(_, due)| **due <= now);
            let usages = usages.map(|((workspace, user), due)| {
                let (workspace, user) = (workspace.clone(), user.clone());
                (DueRow::Usage { workspace, user }, Some(*due))
            });
            Ok(sessions
                .map(|(f, (_, due))| (DueRow::Session(f.clone()), *due))
                .chain(computes.map(|c| (DueRow::Compute(c.id.clone()), c.due)))
                .chain(usages)
                .map(|(what, due)| Due {
                    what,
                    since: due.unwrap_or(now),
                })
                .collect())
        })
    }

    async fn run_started(&self, run: &str, at: Millis) -> Result<(), Fault> {
        self.call(|s| {
            if let Some(row) = s.runs.get_mut(run) {
                row.started.get_or_insert(at);
            }
            Ok(())
        })
    }

    async fn change_run(&self, run: &str, change: &RunChange) -> Result<(), Fault> {
        self.call(|s| {
            if let Some(row) = s.runs.get_mut(run) {
                row.display_name = change.display_name.clone().or(row.display_name.take());
                row.archived = change.archived.unwrap_or(row.archived);
            }
            Ok(())
        })
    }

    async fn remove_run_files(&self, row: &RunRow) -> Result<Result<(), Failure>, Fault> {
        self.call(|s| {
            if s.is_stuck.contains(&row.id) {
                return Ok(Err(Failure::new(Code::RunNotDeleted, "Their folder stays.")));
            }
            s.run_files.remove(&row.id);
            Ok(Ok(()))
        })
    }

    async fn forget_run(&self, row: &RunRow) -> Result<(), Fault> {
        self.call(|s| {
            let now = s.now;
            if let Some(row) = s.runs.get_mut(&row.id) {
                row.wish = RunWish::default();
                row.deleted = Some(now);
            }
            Ok(())
        })
    }

    async fn keep_setup(&self, operation: &str, setup: &Setup) -> Result<(), Fault> {
        self.call(|s| {
            if let Some(row) = s.operations.get_mut(operation) {
                row.setup = Some(setup.clone());
            }
            Ok(())
        })
    }

    async fn load_refused(&self, flow: &str) -> Result<Option<NetworkRow>, Fault> {
        self.call(|s| Ok(s.refused.get(flow).cloned()))
    }

    async fn keep_refused(&self, flow: &str, row: &NetworkRow) -> Result<(), Fault> {
        self.call(|s| {
            let later =
                |kept: &NetworkRow| (kept.generation, kept.refused.total) <= (row.generation, row.refused.total);
            if s.refused.get(flow).is_none_or(later) {
                s.refused.insert(flow.to_owned(), row.clone());
            }
            Ok(())
        })
    }

    async fn load_used(&self, flow: &str) -> Result<Option<UsedRow>, Fault> {
        self.call(|s| Ok(s.used.get(flow).cloned()))
    }

    async fn keep_used(&self, flow: &str, row: &UsedRow) -> Result<(), Fault> {
        self.call(|s| {
            s.used.insert(flow.to_owned(), row.clone());
            Ok(())
        })
    }

    async fn keep_output(&self, _of: &str, _lines: &[OutputLine]) -> Result<(), Fault> {
        self.call(|_| Ok(()))
    }
}
