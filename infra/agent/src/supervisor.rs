//! The agent of one session: the process outside the sandbox, which alone reaches the queues.

use crate::{
    connections::Broker,
    contained::contained,
    disk::{self, Verdict},
    folders::{Folders, identity},
    output::Output,
    report, run,
    runner::Runner,
    spec::{AgentCredentials, AgentSpec, Told},
    sqs, tidy, warm,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_sqs::Client;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use broker::Providers;
use contract::{
    Failure, Settings,
    agent::{AgentCommand, AgentReport, Greeting, LineKind, RunResult, SignedBody, public_half},
    command::{RunWish, is_good_id},
    packages::{ByHand, Installation, Isolation, LeftOut, Listed, Setup, Tier},
};
use ed25519_dalek::SigningKey;
use environments::{
    Environment, Say, image, packages,
    reach::{self, Reach},
    rooted,
    store::{Store, folder as store_folder},
    uv,
};
use lifecycle::deadlines::LEASE;
use network::Counts;
use sandbox::python::Python;
use snapshots::{Fault, Folders as FlowFolders, Opened, Store as ObjectStore};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    fs,
    io::{self, Write},
    os::fd::AsRawFd,
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::{JoinSet, LocalSet, spawn_local},
};

/// What is different for an agent in a container of its own.
pub(crate) struct Container {
    pub(crate) queues: Client,
    pub(crate) credentials: SharedCredentialsProvider,
    pub(crate) machines: aws_sdk_sfn::Client,
    /// Why it may not go on; its first word says so, and is its last.
    pub(crate) refused: Option<Failure>,
}

/// Is the agent of one session, from its specification on standard input to its end. That may be long in coming, or never come. It builds
/// a runtime of its own: call it before there is one.
///
/// # Errors
///
/// When standard input holds no specification. Final.
pub fn supervise() -> anyhow::Result<()> {
    let _ = tracing_subscriber::fmt()
        // On a full disk its own complaint would go to standard error, and panic there.
        .log_internal_errors(false)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("PFSESSION_LOG").unwrap_or_else(|_| "info".into()))
        .with_writer(io::stderr)
        .try_init();
    // What it is told is for no other process of this user, and for no core file.
    // SAFETY: no memory is handed over.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        // Its driver has gone, and had no session for it.
        return Ok(());
    }
    let spec = match serde_json::from_str(&line)? {
        Told::Session(spec) => *spec,
        Told::Tidy(task) => return Ok(tidy::tidy(&task)?),
    };
    if let Some(log) = &spec.log {
        write_to(log)?;
    }
    let ended = LocalSet::new().block_on(&runtime, supervise_session(spec, boot_time(), None));
    // A disk that does not answer holds a thread, and no end.
    runtime.shutdown_background();
    ended
}

/// Has standard error go to this file from here on.
fn write_to(log: &Path) -> io::Result<()> {
    let file = fs::File::options().create(true).append(true).open(log)?;
    // SAFETY: both are open, and what was standard error before is nobody's any more.
    match unsafe { libc::dup2(file.as_raw_fd(), libc::STDERR_FILENO) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// By the clock that counts while the machine sleeps, in milliseconds since its start.
pub(crate) fn boot_time() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes into `now`, which is as big as it has to be.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

struct Agent {
    spec: AgentSpec,
    folders: Folders,
    key: SigningKey,
    client: Client,
    container: Option<Container>,
    flows: FlowFolders,
    /// Holds the keys of connections whose flows are not to see them.
    providers: Arc<Providers>,
    /// Whether it has answered, and that with a failure.
    is_refused: Cell<bool>,
    reports: UnboundedSender<AgentReport>,
    store: RefCell<Option<Rc<Store>>>,
    /// When a newer image was last looked for.
    looked: Cell<Option<u64>>,
    /// One change of the runner at a time.
    changing: tokio::sync::Mutex<()>,
    runner: RefCell<Option<Rc<Runner>>>,
    install: RefCell<Option<Installing>>,
    installed: RefCell<Option<(String, AgentReport)>>,
    /// How often it has said what is installed; and what it said last: the lock, and what was done by hand.
    count: Cell<u32>,
    reported: RefCell<Option<(String, Vec<ByHand>)>>,
    /// All runs that it was ever told of.
    known: RefCell<BTreeSet<String>>,
    /// Those whose end is not yet with the control plane.
    open: RefCell<BTreeSet<String>>,
    /// Runs that were stopped, and why.
    stopped: RefCell<HashMap<String, Failure>>,
    /// When a lease was asked for, by nonce; and when the one that counts was.
    asked: RefCell<HashMap<u64, u64>>,
    leased: Cell<u64>,
    /// What the session may reach, and the revision that said so, if it was more than the settings of its start.
    reach: RefCell<Reach>,
    network_revision: Cell<Option<u64>>,
    /// What was refused of that, and how much of it was reported.
    counts: Counts,
    refused_reported: Cell<u64>,
}

/// What an install brings the session to: a lock, else what the requirements say, if need be resolved anew.
struct Packages {
    lock: Option<String>,
    resolve: bool,
}

/// An install under way.
struct Installing {
    operation: String,
    attempt: Rc<Cell<u32>>,
    task: tokio::task::AbortHandle,
}

/// Is the agent of one session until its lease has run out.
///
/// * `born`: the lease counts from here until the first is asked for.
pub(crate) async fn supervise_session(spec: AgentSpec, born: u64, container: Option<Container>) -> anyhow::Result<()> {
    let key: [u8; 32] = BASE64
        .decode(&spec.private_key)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("the private key has not 32 bytes"))?;
    let (reports, outgoing) = mpsc::unbounded_channel();
    let agent = Rc::new(Agent {
        folders: Folders {
            state: spec.state.clone(),
            session: spec.session.clone(),
        },
        key: SigningKey::from_bytes(&key),
        client: match &container {
            Some(container) => container.queues.clone(),
            None => sqs::client(spec.endpoint.as_deref(), &spec.region, &spec.credentials),
        },
        flows: flow_folders(&spec, container.as_ref()),
        providers: Arc::new(Providers::start(uv::network())?),
        container,
        is_refused: Cell::new(false),
        reports,
        store: RefCell::default(),
        looked: Cell::new(None),
        changing: tokio::sync::Mutex::default(),
        runner: RefCell::default(),
        install: RefCell::default(),
        installed: RefCell::default(),
        count: Cell::new(0),
        reported: RefCell::default(),
        known: RefCell::default(),
        open: RefCell::default(),
        stopped: RefCell::default(),
        asked: RefCell::default(),
        leased: Cell::new(born),
        reach: RefCell::new(Reach::of(&spec.settings)),
        network_revision: Cell::new(None),
        counts: Counts::default(),
        refused_reported: Cell::new(0),
        spec,
    });
    tracing::info!(
        flow = agent.spec.flow,
        generation = agent.spec.generation,
        "the agent is up"
    );
    if agent.container.is_none() {
        io::stdout().write_all(b"up\n")?;
        io::stdout().flush()?;
    }
    let mut lasting = JoinSet::new();
    if agent
        .container
        .as_ref()
        .is_none_or(|container| container.refused.is_none())
    {
        lasting.spawn_local(send_reports(Rc::clone(&agent), outgoing));
        spawn_local(Rc::clone(&agent).prepare());
    }
    lasting.spawn_local(Rc::clone(&agent).take_commands());
    let ended = tokio::select! {
        () = Rc::clone(&agent).keep_the_lease() => Ok(()),
        failure = agent.watch_disk() => Err(anyhow::anyhow!("{failure}")),
        Some(ended) = lasting.join_next() => Err(anyhow::anyhow!("a task that an agent cannot do without has ended: {ended:?}")),
    };
    match &ended {
        Err(error) => tracing::error!(%error, "the session ends"),
        Ok(()) if agent.is_refused.get() => tracing::warn!("it came up too late: the session ends"),
        Ok(()) => tracing::warn!("nobody has renewed the lease, or can: the session ends"),
    }
    if let Some(runner) = agent.runner.borrow_mut().take() {
        runner.kill();
    }
    ended
}

/// How long runs may take to end before the disk is looked at again.
const GIVES_WAY: Duration = Duration::from_secs(2);
/// How often it is seen to that a canceled run ends, and after how long all in its sandbox ends with it, in milliseconds.
const LOOK: Duration = Duration::from_millis(50);
const LONGEST_END: u64 = 5_000;
/// How long after a look for a newer image the next one may be, in milliseconds.
const BETWEEN_LOOKS: u64 = 600_000;
/// How long a snapshot may take to come.
const PATIENCE: Duration = Duration::from_secs(600);
/// How many snapshots and files of data are kept for the next run.
const MOST_KEPT: usize = 4;
/// How long to wait before a store that did not answer is asked again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Where this session's flow folder and data are read. The store is asked with the container's credentials, or with the driver's.
fn flow_folders(spec: &AgentSpec, container: Option<&Container>) -> FlowFolders {
    if !spec.has_snapshots {
        return FlowFolders::here();
    }
    let credentials = match container {
        Some(container) => container.credentials.clone(),
        None => {
            let AgentCredentials {
                access_key,
                secret_key,
                session_token,
            } = &spec.credentials;
            let credentials = Credentials::new(access_key, secret_key, session_token.clone(), None, "given");
            SharedCredentialsProvider::new(credentials)
        }
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let store = ObjectStore::new(endpoint.as_deref(), &spec.region, credentials, PATIENCE);
    FlowFolders::both(store, &spec.session.join("snapshots"), MOST_KEPT)
}

/// Tries again what did not succeed for now.
async fn patiently<T, F: Future<Output = Result<T, Fault>>>(mut call: impl FnMut() -> F) -> Result<T, Failure> {
    for pause in PAUSES {
        match call().await {
            Err(Fault::NotNow(failure)) => tracing::warn!(fault = failure.error, cause = failure.message, "once more"),
            done => return done.map_err(Fault::into_failure),
        }
        tokio::time::sleep(pause).await;
    }
    call().await.map_err(Fault::into_failure)
}

/// How long to wait before a report that was not taken is sent again; longer each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Sends what the agent has to say, in order, each until it is taken or is known never to be.
async fn send_reports(agent: Rc<Agent>, mut outgoing: UnboundedReceiver<AgentReport>) {
    while let Some(report) = outgoing.recv().await {
        let done = match &report {
            AgentReport::RunDone { run, .. } => Some(run.clone()),
            _ => None,
        };
        agent.send(report, None).await;
        if let Some(run) = done {
            agent.open.borrow_mut().remove(&run);
        }
    }
}

impl Agent {
    fn say(&self, report: AgentReport) {
        // The receiver lives as long as the process.
        let _ = self.reports.send(report);
    }

    /// Sends a report until it is taken. One that is refused for what is in it goes without what may be large, once, and is then given up.
    ///
    /// * `until`: by [`boot_time`]: from then on it is of no use.
    async fn send(&self, report: AgentReport, until: Option<u64>) {
        let mut body = SignedBody {
            flow: self.spec.flow.clone(),
            generation: self.spec.generation,
            report,
        };
        let mut signed = report::signed(&self.key, &mut body);
        let (mut pause, mut is_stripped) = (FIRST_PAUSE, false);
        while until.is_none_or(|until| boot_time() < until) {
            let sent = self
                .client
                .send_message()
                .queue_url(&self.spec.reports_queue_url)
                .message_body(&signed)
                .send()
                .await;
            match sent {
                Ok(_) => return,
                Err(error) if sqs::is_refused_for_good(&error) => {
                    tracing::error!(
                        fault = "Report.Refused",
                        cause = sqs::chain(&error),
                        is_stripped,
                        "a report is refused for what is in it"
                    );
                    if std::mem::replace(&mut is_stripped, true) {
                        return;
                    }
                    report::strip(&mut body.report);
                    signed = report::signed(&self.key, &mut body);
                }
                Err(error) => {
                    if pause == FIRST_PAUSE {
                        tracing::warn!(error = %sqs::chain(&error), "a report is not taken yet");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    /// Watches the disk. Ends runs that have to give way, and returns why the session has to.
    async fn watch_disk(&self) -> Failure {
        let begun = disk::Watch::begin(&self.spec.state, &self.spec.session, &self.spec.settings.folder);
        let mut watch = match begun {
            Ok(watch) => watch,
            Err(error) => {
                tracing::error!(%error, "the disk is not watched");
                return std::future::pending().await;
            }
        };
        loop {
            let has_runs = !self.open.borrow().is_empty();
            tokio::time::sleep(watch.pause(has_runs)).await;
            let runner = self.runner.borrow().clone();
            let pid = runner.as_ref().map(|runner| runner.pid());
            let looked = tokio::task::spawn_blocking(move || {
                let verdict = watch.look(pid, has_runs);
                (watch, verdict)
            });
            let verdict;
            (watch, verdict) = match looked.await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::error!(%error, "the disk is watched no more");
                    return std::future::pending().await;
                }
            };
            let Some(verdict) = verdict else { continue };
            let runs = runner.as_ref().map(|runner| runner.run_names()).unwrap_or_default();
            match (verdict, runner) {
                (verdict, Some(runner)) if !runs.is_empty() => {
                    self.stop_runs(&runner, runs, verdict.failure()).await;
                    tokio::time::sleep(GIVES_WAY).await;
                }
                (Verdict::Full(failure), _) => return watch.end(&failure),
                _ => {}
            }
        }
    }

    /// Ends these runs with `failure`; with the whole sandbox those that were to end before and have not.
    async fn stop_runs(&self, runner: &Runner, runs: Vec<String>, failure: &Failure) {
        for run in runs {
            tracing::warn!(
                run,
                fault = failure.error,
                cause = failure.message,
                "the run is stopped"
            );
            let before = self.stopped.borrow_mut().insert(run.clone(), failure.clone());
            if before.is_some() || runner.stop(&run).await.is_err() {
                runner.kill();
            }
        }
    }

    /// Ends a run, whether it is being laid out, runs, or is still to come; of one that has ended nothing is left to end.
    async fn cancel(self: Rc<Self>, run: String) {
        let is_known = self.known.borrow().contains(&run);
        if is_known && !self.open.borrow().contains(&run) {
            return;
        }
        tracing::info!(run, "the run is canceled");
        self.stopped
            .borrow_mut()
            .insert(run.clone(), lifecycle::session::canceled());
        let begun = boot_time();
        // It may be on its way to the runner.
        while self.open.borrow().contains(&run) && self.stopped.borrow().contains_key(&run) {
            let runner = self.runner.borrow().clone();
            if let Some(runner) = runner.filter(|runner| runner.run_names().contains(&run)) {
                let is_late = boot_time() > begun + LONGEST_END;
                if runner.stop(&run).await.is_err() || is_late {
                    runner.kill();
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks for the lease at every third of it, and returns when it has run out, or when the state folder is no longer the one that it had:
    /// then nobody can find this session to end it. Nothing else that is sent holds it up.
    async fn keep_the_lease(self: Rc<Self>) {
        let place = identity(&self.spec.state).ok().flatten();
        let is_let_in = self
            .container
            .as_ref()
            .is_none_or(|container| container.refused.is_none());
        let mut nonce = 0;
        let mut next = 0;
        loop {
            let now = boot_time();
            if now >= self.leased.get() + LEASE || self.is_refused.get() {
                return;
            }
            if place.is_some() && identity(&self.spec.state).is_ok_and(|now| now != place) {
                tracing::warn!(state = %self.spec.state.display(), "the state folder was taken away");
                return;
            }
            if now >= next {
                nonce += 1;
                let mut asked = self.asked.borrow_mut();
                asked.insert(nonce, now);
                asked.retain(|_, at| *at + LEASE > now);
                drop(asked);
                next = now + LEASE / 3;
                let alive = AgentReport::Alive {
                    nonce,
                    runs: self.open.borrow().iter().cloned().collect(),
                };
                if is_let_in {
                    let agent = Rc::clone(&self);
                    spawn_local(async move { agent.send(alive, Some(next)).await });
                }
                self.report_refused();
            }
            // The timer stands still while the machine sleeps; the clock is looked at again soon after.
            tokio::time::sleep(Duration::from_millis((next - now).min(1000))).await;
        }
    }

    async fn take_commands(self: Rc<Self>) {
        let mut silent = false;
        loop {
            let received = self
                .client
                .receive_message()
                .queue_url(&self.spec.queue_url)
                .max_number_of_messages(10)
                .wait_time_seconds(20)
                .send()
                .await;
            let messages = match received {
                Ok(received) => {
                    silent = false;
                    received.messages.unwrap_or_default()
                }
                Err(error) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(error = %sqs::chain(&error), "the session's queue does not answer");
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    continue;
                }
            };
            for message in messages {
                match serde_json::from_str(message.body().unwrap_or_default()) {
                    Ok(command) => self.take(command),
                    Err(error) => tracing::warn!(%error, "a message is no command"),
                }
                let Some(receipt) = message.receipt_handle else {
                    continue;
                };
                let agent = Rc::clone(&self);
                spawn_local(async move {
                    // One that is not deleted comes again, and is taken as once.
                    let deleted = agent
                        .client
                        .delete_message()
                        .queue_url(&agent.spec.queue_url)
                        .receipt_handle(receipt)
                        .send()
                        .await;
                    if let Err(error) = deleted {
                        tracing::debug!(error = %sqs::chain(&error), "a command that was taken comes again");
                    }
                });
            }
        }
    }

    fn take(self: &Rc<Self>, command: AgentCommand) {
        match command {
            AgentCommand::Greet { token } => {
                spawn_local(Rc::clone(self).greet(token));
            }
            AgentCommand::Lease { nonce } => {
                if let Some(at) = self.asked.borrow_mut().remove(&nonce) {
                    self.leased.set(self.leased.get().max(at));
                }
            }
            AgentCommand::Install {
                operation,
                attempt,
                settings,
                lock,
                resolve,
            } => self.take_install(operation, attempt, settings, Packages { lock, resolve }),
            AgentCommand::CancelInstall { operation } => {
                let mut install = self.install.borrow_mut();
                if install.as_ref().is_some_and(|install| install.operation == operation) {
                    tracing::info!(operation, "the install is canceled");
                    if let Some(install) = install.take() {
                        install.task.abort();
                    }
                }
            }
            AgentCommand::Network {
                revision,
                network,
                allow_hosts,
            } => {
                if self.network_revision.get().is_none_or(|known| known < revision) {
                    self.network_revision.set(Some(revision));
                    self.reach(Reach::new(network, &allow_hosts));
                }
            }
            AgentCommand::CancelRun { run } => {
                if is_good_id(&run) {
                    spawn_local(Rc::clone(self).cancel(run));
                }
            }
            AgentCommand::Run { run, settings, wish } => {
                if is_good_id(&run) && self.known.borrow_mut().insert(run.clone()) {
                    self.open.borrow_mut().insert(run.clone());
                    spawn_local(Rc::clone(self).run(run, settings, wish));
                }
            }
        }
    }

    /// Has the session reach this from now on.
    fn reach(&self, reach: Reach) {
        if let Some(runner) = self.runner.borrow().as_ref() {
            runner.set_reach(&reach);
        }
        if let Some(store) = &*self.store.borrow() {
            // Of the next step of an install.
            *store.reach.borrow_mut() = reach.clone();
        }
        *self.reach.borrow_mut() = reach;
    }

    /// Reports what was refused, if that is more than was reported.
    fn report_refused(&self) {
        let refused = reach::refused(&self.counts);
        if refused.total > self.refused_reported.get() {
            self.refused_reported.set(refused.total);
            self.say(AgentReport::Refused { refused });
        }
    }

    /// Answers a token with the public half of its key, or with why it may not go on.
    async fn greet(self: Rc<Self>, token: String) {
        let Some(container) = &self.container else { return };
        let sent = match &container.refused {
            Some(failure) => {
                let sent = container.machines.send_task_failure().task_token(token);
                let sent = sent.error(&failure.error).cause(&failure.message).send().await;
                sent.map(|_| ()).map_err(|error| sqs::chain(&error))
            }
            None => {
                let key = Greeting {
                    key: public_half(&self.key),
                };
                let output = serde_json::to_string(&key).unwrap_or_default();
                let sent = container
                    .machines
                    .send_task_success()
                    .task_token(token)
                    .output(output)
                    .send()
                    .await;
                sent.map(|_| ()).map_err(|error| sqs::chain(&error))
            }
        };
        // One that was answered already, or is waited for no more, is no matter: who still waits asks again.
        if let Err(error) = sent {
            tracing::warn!(error, "the first word was not taken");
        }
        self.is_refused.set(container.refused.is_some());
    }

    fn take_install(self: &Rc<Self>, operation: String, attempt: u32, settings: Settings, packages: Packages) {
        if !is_good_id(&operation) {
            return;
        }
        // A change before its queue was there is in these. A later one has come, or will come, by a message of its own.
        if self.network_revision.get().is_none() {
            self.reach(Reach::of(&settings));
        }
        if let Some((done, report)) = self.installed.borrow().as_ref()
            && *done == operation
        {
            let mut again = report.clone();
            if let AgentReport::Installed { attempt: before, .. } = &mut again {
                *before = attempt.max(*before);
            }
            // A later attempt is another try; the same one has the same end.
            if !matches!(again, AgentReport::InstallFailed { attempt: before, .. } if attempt > before) {
                return self.say(again);
            }
        }
        let mut install = self.install.borrow_mut();
        if let Some(under_way) = install.as_ref() {
            if under_way.operation == operation {
                under_way.attempt.set(attempt.max(under_way.attempt.get()));
                return;
            }
            under_way.task.abort();
        }
        let attempt = Rc::new(Cell::new(attempt));
        let agent = Rc::clone(self);
        let (of, counts) = (operation.clone(), Rc::clone(&attempt));
        let task = spawn_local(async move {
            let work = Rc::clone(&agent).install(of.clone(), settings, packages);
            let done = contained("Install.Crashed", "The install was ended", work).await;
            let (result, setup) = done.unwrap_or_else(|failure| (Err(failure), None));
            let attempt = counts.get();
            let report = match result {
                Ok(installation) => AgentReport::Installed {
                    operation: of.clone(),
                    attempt,
                    warning: None,
                    installation: Some(Box::new(installation)),
                    setup,
                },
                Err(failure) => {
                    tracing::warn!(
                        operation = of,
                        fault = failure.error,
                        cause = failure.message,
                        "the install has failed"
                    );
                    AgentReport::InstallFailed {
                        operation: of.clone(),
                        attempt,
                        failure: report::bounded(failure),
                        setup,
                    }
                }
            };
            agent.install.borrow_mut().take();
            *agent.installed.borrow_mut() = Some((of, report.clone()));
            agent.say(report);
        });
        *install = Some(Installing {
            operation,
            attempt,
            task: task.abort_handle(),
        });
    }

    /// Has a runner ready by the time the first install asks for it, when its packages are there already.
    async fn prepare(self: Rc<Self>) {
        let _changing = self.changing.lock().await;
        let Ok(store) = self.store(None).await else { return };
        let Ok(lines) = self.wanted(&self.spec.settings).await else {
            return;
        };
        if let Some(environment) = store.find(&lines)
            && let Err(why) = self.have_runner(&store, &environment).await
        {
            tracing::warn!(why, "no sandbox yet");
        }
    }

    /// The store on the session's base image, which is resolved once.
    ///
    /// * `say`: told of an image on its way; without it, one that is not here is not waited for.
    async fn store(&self, say: Option<Say<'_>>) -> Result<Rc<Store>, Failure> {
        if let Some(store) = self.store.borrow().as_ref() {
            return Ok(Rc::clone(store));
        }
        let settings = &self.spec.settings;
        let opened = self.open(&settings.folder).await?;
        // Somebody else may have been faster.
        if let Some(store) = self.store.borrow().as_ref() {
            return Ok(Rc::clone(store));
        }
        let named = match &settings.image {
            // In a container of its own the image is what it runs in, and what is added to it is what the folder needs.
            _ if self.container.is_some() => opened.default_image().await?.to_owned(),
            Some(image) => image.clone(),
            None => opened.base_image().await?.name,
        };
        let (base, python, image) = match image::find(&named, self.spec.python.clone())? {
            image::Found::BuiltIn(base, python) => (base, python, None),
            image::Found::Image(name) => {
                let base = image::of_kind(opened.default_image().await?);
                let machine = self.spec.python.clone().map_or_else(Python::find, Ok)?;
                (base, machine, Some(name))
            }
        };
        let mut store = Store::open(&self.spec.state, base, python).map_err(|error| {
            let place = self.spec.state.display();
            Failure::new(
                "Install.Failed",
                format!("The state folder {place} cannot be written: {error}. Put that right, and start again."),
            )
        })?;
        // The container is the sandbox.
        store.namespaces.set(self.container.is_none());
        *store.reach.borrow_mut() = self.reach.borrow().clone();
        store.counts = self.counts.clone();
        if let Some(name) = image {
            let here = rooted::is_here(&store_folder(&self.spec.state), &name);
            let Some(say) = say.or(here.then_some(&|_, _| {})) else {
                return Err(Failure::new("Image.NotHere", "the image is not here yet"));
            };
            store.root_in(&name, &|text| say(LineKind::Stage, text)).await?;
        }
        let store = Rc::new(store);
        // Somebody else may have been faster, and one image counts for the whole generation.
        if let Some(known) = self.store.borrow().as_ref() {
            return Ok(Rc::clone(known));
        }
        if let Some(root) = &store.root {
            self.say(AgentReport::Image {
                digest: root.digest.clone(),
                latest: None,
            });
        }
        *self.store.borrow_mut() = Some(Rc::clone(&store));
        Ok(store)
    }

    /// Looks beside a run whether the base image's name stands for another image by now, at most once in [`BETWEEN_LOOKS`].
    fn look_for_newer_image(self: &Rc<Self>) {
        let store = self.store.borrow().clone();
        let is_due = self.looked.get().is_none_or(|at| boot_time() >= at + BETWEEN_LOOKS);
        let Some(root) = store.as_ref().and_then(|store| store.root.as_ref()).filter(|_| is_due) else {
            return;
        };
        self.looked.set(Some(boot_time()));
        let (name, digest, state) = (root.name.clone(), root.digest.clone(), self.spec.state.clone());
        let agent = Rc::clone(self);
        spawn_local(async move {
            let looked = tokio::task::spawn_blocking(move || rooted::look(&state, &name)).await;
            match looked {
                Ok(Ok(Some(latest))) if latest != digest => agent.say(AgentReport::Image {
                    digest,
                    latest: Some(latest),
                }),
                Ok(Err(failure)) => tracing::debug!(
                    cause = failure.message,
                    "it is not known whether the image is the newest"
                ),
                _ => {}
            }
        });
    }

    /// Brings the session to what its requirements say now, or to a lock. Says how the program that did it ended, if one was needed.
    async fn install(
        self: Rc<Self>,
        operation: String,
        settings: Settings,
        packages: Packages,
    ) -> (Result<Installation, Failure>, Option<Setup>) {
        let path = self.spec.state.join("logs").join(format!("{operation}.txt"));
        let output = match Output::begin(&operation, path, self.reports.clone()) {
            Ok(output) => output,
            Err(error) => {
                let text = format!("The state folder cannot be written: {error}. Put that right, and start again.");
                let full = disk::refusal(&self.spec.state).filter(|_| error.kind() == io::ErrorKind::StorageFull);
                return (Err(full.unwrap_or_else(|| Failure::new("Install.Failed", text))), None);
            }
        };
        let store = self.store.borrow().clone();
        if let Some(store) = store {
            store.ended.take();
        }
        let result = self.install_with(&settings, packages, &output).await;
        output.flush();
        let ended = self.store.borrow().as_ref().and_then(|store| store.ended.take());
        let setup = ended.map(|exit_code| {
            report::bounded_setup(Setup {
                command: "uv".into(),
                exit_code,
                tail: output.tail(),
            })
        });
        (result, setup)
    }

    async fn install_with(
        &self,
        settings: &Settings,
        Packages { lock, resolve }: Packages,
        output: &Rc<Output>,
    ) -> Result<Installation, Failure> {
        let log = output.path.display().to_string();
        let say = |kind: LineKind, text: String| output.say(kind, &text);
        let store = self.store(Some(&say)).await?;
        let lines = match self.wanted(settings).await {
            // What is wrong with the requirements now says nothing of a lock; they only name the indexes that it may need.
            Err(_) if lock.is_some() => Vec::new(),
            lines => lines?,
        };
        if store.find_base().is_none() {
            // The runtime is loaded while the flow's own packages are still on their way.
            let base = store.get(&[], false, &say, &log).await?;
            self.ensure_warm(&store, &base);
        }
        let lock = lock.filter(|lock| {
            let fits = store.is_on_this_root(lock);
            if !fits {
                say(
                    LineKind::Stage,
                    "the image has changed: resolving the requirements anew".into(),
                );
            }
            fits
        });
        let environment = match &lock {
            Some(lock) => store.locked(lock, &lines, &say, &log).await?,
            None => store.get(&lines, resolve, &say, &log).await?,
        };
        let _changing = self.changing.lock().await;
        let mut why = String::new();
        for _ in 0..2 {
            match self.have_runner(&store, &environment).await {
                Ok(()) => {
                    let listed = lock.is_none().then(|| store.listed(&environment, &lines));
                    return Ok(self.installation(&environment.key, listed).await);
                }
                Err(error) => why = error,
            }
        }
        Err(Failure::new(
            "Install.Failed",
            format!(
                "The packages are there, and the session's sandbox could not be started: {why}. See {log} and the agent's log."
            ),
        ))
    }

    /// What is installed from now on, by the next count.
    async fn installation(&self, lock: &str, listed: Option<Listed>) -> Installation {
        let by_hand = self.by_hand().await;
        self.count.set(self.count.get() + 1);
        *self.reported.borrow_mut() = Some((lock.to_owned(), by_hand.clone()));
        let mut installation = Installation {
            count: self.count.get(),
            lock: lock.to_owned(),
            listed,
            by_hand,
            isolation: self.runner.borrow().as_ref().map(|runner| runner.isolation.clone()),
            left_out: None,
        };
        let whole = serde_json::to_vec_pretty(&installation).unwrap_or_default();
        if let Some(count) = report::cut_installation(&mut installation) {
            let name = format!(
                "packages-{}-{}-{}.json",
                self.spec.flow, self.spec.generation, installation.count
            );
            let file = self.spec.state.join("logs").join(name);
            let kept = crate::write_atomically(&file, &whole);
            if let Err(error) = &kept {
                tracing::error!(%error, file = %file.display(), "all that is installed cannot be written");
            }
            let file = kept.is_ok().then(|| file.display().to_string());
            installation.left_out = Some(LeftOut { count, file });
        }
        installation
    }

    async fn by_hand(&self) -> Vec<ByHand> {
        let Some(written) = self.runner.borrow().as_ref().map(|runner| runner.written.clone()) else {
            return Vec::new();
        };
        // A session may have made any number of them.
        let read = tokio::task::spawn_blocking(move || packages::by_hand(&written)).await;
        read.unwrap_or_default()
    }

    /// Reports what a run has installed or taken away, if it has.
    async fn look_for_by_hand(&self, run: &str) {
        let by_hand = self.by_hand().await;
        let lock = match self.reported.borrow().as_ref() {
            Some((lock, known)) if *known != by_hand => lock.clone(),
            _ => return,
        };
        let installation = Box::new(self.installation(&lock, None).await);
        let run = run.to_owned();
        self.say(AgentReport::Packages { run, installation });
    }

    fn ensure_warm(&self, store: &Store, environment: &Environment) {
        // One of an image would run its code outside every sandbox.
        if store.base.runs_flows
            && store.root.is_none()
            && let Some(base) = store.complete(&environment.base)
            && let Err(error) = warm::ensure(&self.spec.state, store, &base, &self.spec.places, self.spec.user)
        {
            tracing::warn!(%error, "the warm process cannot be started");
        }
    }

    /// Puts a runner over `environment` in the place of the one that there is, if that is another one's. Runs in progress end where they are.
    async fn have_runner(&self, store: &Store, environment: &Environment) -> Result<(), String> {
        let old = self.runner.borrow().clone();
        let reach = self.reach.borrow().clone();
        if old
            .as_ref()
            .is_some_and(|runner| runner.environment == *environment && !runner.is_dead() && runner.fits(&reach))
        {
            return Ok(());
        }
        let limits = lifecycle::size::size(&self.spec.settings.size).and_then(|size| size.limits);
        let mut runner = Runner::start(
            &self.folders,
            store,
            environment,
            &self.spec.places,
            limits,
            self.spec.user,
            (&reach, &self.counts, self.providers.address()),
        )
        .await?;
        if let Some(runner) = Rc::get_mut(&mut runner) {
            if self.container.is_some() {
                let not_held = reach.not_held(runner.isolation.tier != Tier::D);
                runner.isolation = Isolation {
                    tier: Tier::Container,
                    not_held: not_held.into_iter().map(str::to_owned).collect(),
                };
            } else {
                runner.isolation.not_held.push(disk::NOT_HELD.into());
                if store.root.is_some() {
                    runner.isolation.not_held.push(rooted::NOT_HELD.into());
                }
            }
        }
        self.ensure_warm(store, environment);
        tracing::info!(isolation = %runner.isolation, from_warm = runner.from_warm, environment = environment.key, "the sandbox is closed");
        let isolation = serde_json::to_vec(&runner.isolation).unwrap_or_default();
        if let Err(error) = crate::write_atomically(&self.folders.session.join("isolation.json"), &isolation) {
            tracing::warn!(%error, "isolation.json cannot be written");
        }
        // It may have changed meanwhile.
        runner.set_reach(&self.reach.borrow());
        *self.runner.borrow_mut() = Some(runner);
        if let Some(old) = old {
            spawn_local(async move {
                while old.runs() > 0 && !old.is_dead() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                old.end().await;
            });
        }
        Ok(())
    }

    async fn run(self: Rc<Self>, run: String, settings: Settings, wish: RunWish) {
        self.look_for_newer_image();
        self.say(AgentReport::RunStarted { run: run.clone() });
        let work = Rc::clone(&self).run_to_its_end(run.clone(), settings, wish);
        let done = contained("Run.Failed", "The run was ended", work).await;
        let (outcome, result) = done.unwrap_or_else(|failure| run::failed(&self.spec.state, &run, failure));
        if let Some(failure) = &result.failure {
            tracing::warn!(
                run,
                fault = failure.error,
                cause = failure.message,
                "the run has failed"
            );
        }
        self.look_for_by_hand(&run).await;
        self.report_refused();
        let result = RunResult {
            failure: result.failure.map(report::bounded),
            ..result
        };
        self.say(AgentReport::RunDone { run, outcome, result });
    }

    async fn run_to_its_end(
        self: Rc<Self>,
        run: String,
        settings: Settings,
        wish: RunWish,
    ) -> (contract::Outcome, RunResult) {
        let path = run::folder(&self.spec.state, &run).join("logs.txt");
        let is_canceled = self.stopped.borrow_mut().remove(&run);
        if let Some(failure) = is_canceled {
            let (_, result) = run::failed(&self.spec.state, &run, failure);
            return (contract::Outcome::Canceled, result);
        }
        let output = match Output::begin(&run, path, self.reports.clone()) {
            Ok(output) => output,
            Err(error) => {
                let failure = disk::named(&self.spec.state, run::io_failure(&error));
                return run::failed(&self.spec.state, &run, failure);
            }
        };
        let (outcome, result) = match self.living_runner().await {
            Ok(runner) => match self.work(&runner, &settings, &wish).await {
                Ok(work) => run::run(&self.folders, &runner, &run, work, &wish, &output).await,
                Err(failure) => run::failed(&self.spec.state, &run, failure),
            },
            Err(failure) => run::failed(&self.spec.state, &run, failure),
        };
        let stopped = self.stopped.borrow_mut().remove(&run);
        match stopped {
            Some(failure) => {
                let outcome = match failure == lifecycle::session::canceled() {
                    true => contract::Outcome::Canceled,
                    false => contract::Outcome::Failed,
                };
                let failure = Some(run::with_log(failure, &output.path));
                (outcome, RunResult { failure, ..result })
            }
            None => (outcome, result),
        }
    }

    /// The session's runner; a new one if the old one has ended.
    async fn living_runner(&self) -> Result<Rc<Runner>, Failure> {
        let _changing = self.changing.lock().await;
        let runner = self.runner.borrow().clone();
        let Some(runner) = runner else {
            return Err(Failure::new(
                "Run.NotReady",
                "The session has no packages yet. Run again when it is Ready.",
            ));
        };
        let fits = runner.fits(&self.reach.borrow());
        if !runner.is_dead() && fits {
            return Ok(runner);
        }
        let store = self.store(None).await?;
        self.have_runner(&store, &runner.environment).await.map_err(|why| {
            Failure::new(
                "Run.Crashed",
                format!("The session's sandbox has ended and could not be started again: {why}. Reset the session."),
            )
        })?;
        Ok(self.runner.borrow().clone().unwrap_or(runner))
    }

    async fn open(&self, folder: &str) -> Result<Opened, Failure> {
        patiently(|| self.flows.open(&self.spec.flow, folder)).await
    }

    /// What a run works on.
    async fn work(&self, runner: &Runner, settings: &Settings, wish: &RunWish) -> Result<run::Work, Failure> {
        let data = match &wish.data {
            Some(data) => Some(patiently(|| self.flows.open_file(&self.spec.flow, data)).await?),
            None => None,
        };
        let flow = self.open(&settings.folder).await?;
        Ok(run::Work {
            flow,
            data,
            holder: self.spec.holder.clone(),
            broker: Broker {
                providers: Arc::clone(&self.providers),
                at: runner.finds(self.providers.address()),
            },
        })
    }

    /// The requirement lines of a flow.
    async fn wanted(&self, settings: &Settings) -> Result<Vec<flow::Line>, Failure> {
        let environment = self.open(&settings.folder).await?.environment().await?;
        Ok(environment
            .requirements
            .map(|requirements| requirements.lines)
            .unwrap_or_default())
    }
}
