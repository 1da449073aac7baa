//! The compute driver of one machine.
//!
//! | path below the state folder | what |
//! | --- | --- |
//! | `computes/{id}/` | a compute resource |
//! | `sessions/{flow}/removed` | the highest generation that was removed: it is never launched again |
//! | `sessions/{flow}/{generation}/agent.json` | which process its agent is, and the public half of its key |
//! | `logs/agent-{flow}-{generation}.log` | what its agent says; it outlives the session |
//!
//! A crash of the host leaves the agents as they are. [`Driver::recover`] finds them again; a launch that was cut off is undone, as
//! its request is not done and comes again.

use crate::{
    connections::Holder,
    disk::{self, Room},
    report, runner,
    supervisor::{self, AgentSpec, Told},
    tidy, trust,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::{
    Failure, Settings, Slot,
    agent::public_half,
    command::is_good_id,
    driver::{ComputeRequest, DriverReport},
    names,
};
use ed25519_dalek::SigningKey;
use environments::{rooted, store};
use sandbox::{
    descriptors,
    groups::{self, Place},
    process::{Held, Identity},
    python::Python,
    removal,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::Notify,
};

/// What an answer of the host comes as.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>;

/// What the driver needs of the host that it runs in, or of the control plane that it serves.
pub trait HostPorts: Send + Sync {
    /// Takes a report on its way to the queue `reports`. It must not be lost once this has returned.
    ///
    /// # Errors
    ///
    /// When it was not taken. Worth a retry.
    fn report(&self, report: DriverReport) -> Answer<'_, ()>;
    /// Makes credentials that may receive from and delete in this session's own queue, and send to the queue `reports`.
    /// Asking again gives new ones or the same ones.
    ///
    /// # Errors
    ///
    /// When they could not be stored. Worth a retry.
    fn issue_agent_credentials(&self, flow: &str, generation: u32) -> Answer<'_, AgentCredentials>;
    /// Makes them worthless. Also when there are none.
    fn revoke_agent_credentials(&self, flow: &str, generation: u32);
    /// Makes a standard queue of this name, if there is none.
    ///
    /// # Errors
    ///
    /// When it could not be stored. Worth a retry.
    fn create_queue(&self, name: &str) -> Answer<'_, ()>;
    /// Deletes the queue of this name and what is in it, if there is one.
    ///
    /// # Errors
    ///
    /// When it could not be stored. Worth a retry.
    fn delete_queue(&self, name: &str) -> Answer<'_, ()>;
}

/// What an agent signs its requests with.
#[derive(Clone, Serialize, Deserialize)]
pub struct AgentCredentials {
    pub access_key: String,
    pub secret_key: String,
    /// For those that AWS gives for a time.
    pub session_token: Option<String>,
}

/// What a driver is made of.
///
/// * `state`: the host's state folder; the driver's own part of it is `computes`, `sessions`, `environments`, `runs`, `tools`, `warm`.
/// * `executable`: the program whose `agent` subcommand calls [`crate::supervise`].
/// * `endpoint`, `region`, `reports_queue_url`: where agents find the queues (without an endpoint, at AWS itself); `agent_queue_prefix` stands
///   before the name of a session's own.
/// * `has_snapshots`: whether flow folders may be snapshots in an object store, which agents ask with their own credentials.
pub struct DriverConfig {
    pub state: PathBuf,
    pub executable: PathBuf,
    pub endpoint: Option<String>,
    pub region: String,
    pub reports_queue_url: String,
    pub agent_queue_prefix: String,
    pub has_snapshots: bool,
    pub ports: Arc<dyn HostPorts>,
}

/// How often what is old is looked for.
const BETWEEN_PRUNES: Duration = Duration::from_secs(6 * 3600);
/// How long an agent may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(8);
/// How long a process that was killed may take to be gone.
const LAST_BREATH: Duration = Duration::from_secs(5);
/// The folder, in the state folder, where a session's files wait for their removal after its end.
pub(crate) const GONE: &str = "gone";
/// How long after a session's end its files are removed: those of several go together, and what was asked for meanwhile goes first.
const BEFORE_REMOVAL: Duration = Duration::from_millis(300);
/// How long a launch waits for the removal of what is over when there is no room.
const FOR_ROOM: Duration = Duration::from_secs(10);
/// How long to wait before what could not be removed is tried again; twice as long each time.
const REMOVE_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// How long after a launch the agent of the next one is started: what was launched has the processor first.
const AFTER_LAUNCH: Duration = Duration::from_millis(100);

/// The compute driver of one machine. A compute resource is a folder, and a session an agent process with its sandbox.
pub struct Driver {
    config: DriverConfig,
    /// Which folder the state folder is.
    place: Option<(u64, u64)>,
    /// One change of a flow's session at a time.
    flows: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// The agents that are watched.
    watched: Mutex<HashSet<(String, u32)>>,
    /// The agent of the next launch. It knows nothing yet, and ends when its standard input does.
    waiting: Mutex<Option<Child>>,
    python: OnceLock<Option<Python>>,
    /// Where groups can be made.
    places: OnceLock<Vec<Place>>,
    /// Rung when something waits for its removal.
    over: Arc<Notify>,
}

/// `agent.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Launched {
    #[serde(flatten)]
    process: Identity,
    /// The public half of its key.
    key: String,
    compute: String,
    /// Whether it said its first word.
    up: bool,
}

impl Driver {
    /// Opens the driver over its part of the state folder. Nothing is looked at yet: see [`Driver::recover`].
    ///
    /// # Errors
    ///
    /// When the state folder or the store cannot be written, or others can write them. Final until that is put right.
    pub fn open(config: DriverConfig) -> anyhow::Result<Arc<Self>> {
        use std::os::unix::fs::PermissionsExt;
        let store = store::folder(&config.state);
        for folder in [&config.state, &store] {
            trust::check_path(folder).map_err(anyhow::Error::msg)?;
        }
        trust::private_folder(&config.state)?;
        // The store's own folder may be one that has other things too.
        for folder in ["environments", "tools"] {
            trust::private_folder(&store.join(folder))?;
        }
        for folder in [
            "computes",
            "sessions",
            GONE,
            "environments",
            "runs",
            "tools",
            "warm",
            "logs",
        ] {
            fs::create_dir_all(config.state.join(folder))?;
        }
        // The warm process serves whoever reaches its socket, and what flows work on is nobody else's.
        for folder in ["sessions", GONE, "runs", "warm", "logs"] {
            fs::set_permissions(config.state.join(folder), fs::Permissions::from_mode(0o700))?;
        }
        let place = supervisor::identity(&config.state)?;
        Ok(Arc::new(Self {
            config,
            place,
            flows: Mutex::default(),
            watched: Mutex::default(),
            waiting: Mutex::default(),
            python: OnceLock::new(),
            places: OnceLock::new(),
            over: Arc::default(),
        }))
    }

    /// Does what is asked, and reports what it then saw. Asking twice is asking once.
    ///
    /// # Errors
    ///
    /// When it could not be done and nothing was reported. Worth a retry: hand the request in again.
    pub async fn handle(self: &Arc<Self>, request: ComputeRequest) -> anyhow::Result<()> {
        self.check_place()?;
        match request {
            ComputeRequest::CreateCompute { compute, slot, .. } => {
                let folder = self.compute(&compute)?;
                fs::create_dir_all(&folder)?;
                crate::write_atomically(&folder.join("slot.json"), &serde_json::to_vec(&slot)?)?;
                self.config.ports.report(DriverReport::ComputeUp { compute }).await
            }
            ComputeRequest::ReleaseCompute { compute } => self.release(compute).await,
            ComputeRequest::LaunchSession {
                flow,
                owner,
                workspace,
                generation,
                compute,
                settings,
                until,
                ..
            } => {
                anyhow::ensure!(is_good_id(&flow), "{flow:?} is no flow's key");
                let lock = self.lock(&flow);
                let _held = lock.lock().await;
                let holder = Holder { workspace, user: owner };
                self.launch(&flow, generation, &compute, holder, settings, until).await
            }
            ComputeRequest::CheckImage {
                flow,
                generation,
                operation,
                image,
            } => {
                let (state, python) = (self.config.state.clone(), self.python());
                let store = store::folder(&state);
                let check = tokio::task::spawn_blocking(move || rooted::check(&state, &store, &image, python));
                let checked = DriverReport::ImageChecked {
                    flow,
                    generation,
                    operation,
                    failure: check.await?.err().map(report::bounded),
                };
                self.config.ports.report(checked).await
            }
            ComputeRequest::RemoveSession { flow, generation, .. } => {
                anyhow::ensure!(is_good_id(&flow), "{flow:?} is no flow's key");
                let lock = self.lock(&flow);
                let _held = lock.lock().await;
                self.remove(&flow, generation, None).await
            }
        }
    }

    /// Refuses to go on in a folder that another host may have by now.
    fn check_place(&self) -> anyhow::Result<()> {
        let state = &self.config.state;
        anyhow::ensure!(
            supervisor::identity(state)? == self.place,
            "the state folder {} was taken away",
            state.display()
        );
        Ok(())
    }

    /// Finds again what outlived the host, at the host's start and before the first request: watches the agents that live, reports
    /// those that died meanwhile, and removes what they left.
    pub async fn recover(self: &Arc<Self>) {
        for (flow, generation) in self.sessions() {
            let lock = self.lock(&flow);
            let _held = lock.lock().await;
            let launched = self.launched(&flow, generation);
            let result = match launched.filter(|launched| launched.up) {
                Some(launched) if launched.process.open().is_some() => {
                    tracing::info!(flow, generation, "an agent outlived the host");
                    self.watch(&flow, generation, launched.process, None);
                    Ok(())
                }
                Some(_) => self.remove(&flow, generation, Some(self.died(&flow, generation))).await,
                // A launch that was cut off: its request comes again.
                None => self.end(&flow, generation).await,
            };
            if let Err(error) = result {
                tracing::error!(
                    flow,
                    generation,
                    error = format!("{error:#}"),
                    "what a session left could not be removed"
                );
            }
        }
        groups::sweep(self.places());
        let driver = Arc::clone(self);
        // Nobody waits for it: it is what makes the next start and run quick.
        tokio::task::spawn_blocking(move || driver.warm_up());
        self.have_one_waiting();
        tokio::spawn(keep_tidy(Arc::downgrade(self), Arc::clone(&self.over)));
    }

    /// Has a process remove what is over, and waits for its end. Whether nothing is left.
    async fn tidy(&self, prune: bool) -> anyhow::Result<bool> {
        let mut child = self.start_agent()?;
        let task = Told::Tidy(tidy::Task {
            state: self.config.state.clone(),
            prune,
        });
        let mut line = serde_json::to_vec(&task)?;
        line.push(b'\n');
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&line).await?;
        }
        let ended = child.wait().await?;
        anyhow::ensure!(ended.success(), "it ended with {ended}");
        Ok(fs::read_dir(self.config.state.join(GONE))?.next().is_none())
    }

    /// Ends all sessions and compute resources of this machine, and reports that with `why`.
    ///
    /// # Errors
    ///
    /// When one could not be ended or reported: it is found again by the next start.
    pub async fn end_all(self: &Arc<Self>, why: &Failure) -> anyhow::Result<()> {
        for (flow, generation) in self.sessions() {
            let lock = self.lock(&flow);
            let _held = lock.lock().await;
            self.remove(&flow, generation, Some(why.clone())).await?;
        }
        for entry in fs::read_dir(self.config.state.join("computes"))?.flatten() {
            removal::remove(&entry.path())?;
            if let Ok(compute) = entry.file_name().into_string() {
                let why = why.message.clone();
                self.config
                    .ports
                    .report(DriverReport::ComputeGone { compute, why })
                    .await?;
            }
        }
        Ok(())
    }

    /// How many sessions this machine has.
    pub fn count(&self) -> usize {
        self.sessions().len()
    }

    /// Lets the warm processes go; they end within seconds. Sessions stay as they are.
    pub fn let_go(&self) {
        crate::let_go(&self.config.state);
    }

    /// Looked for once; whoever misses it looks again, and says what is wrong.
    fn python(&self) -> Option<Python> {
        self.python.get_or_init(|| Python::find().ok()).clone()
    }

    fn places(&self) -> &[Place] {
        self.places.get_or_init(groups::places)
    }

    fn warm_up(&self) {
        let Some(python) = self.python() else { return };
        let store = match store::Store::open(&self.config.state, &environments::image::PROMPTFLOW, python) {
            Ok(store) => store,
            Err(error) => return tracing::warn!(%error, "the environments cannot be opened"),
        };
        if let Some(base) = store.find_base()
            && let Some(user) = self.next_user()
            && let Err(error) = crate::warm::ensure(&self.config.state, &store, &base, self.places(), user)
        {
            tracing::warn!(%error, "the warm process cannot be started");
        }
    }

    /// Who the next session will be on this machine, as far as that can be known: the only user that there was.
    fn next_user(&self) -> Option<Option<u32>> {
        if !sandbox::ids::has_ids() {
            return Some(None);
        }
        match sandbox::ids::known(&self.config.state).as_slice() {
            [user] => Some(Some(*user)),
            _ => None,
        }
    }

    async fn release(self: &Arc<Self>, compute: String) -> anyhow::Result<()> {
        let folder = self.compute(&compute)?;
        for (flow, generation) in self.sessions() {
            let lock = self.lock(&flow);
            let _held = lock.lock().await;
            if self
                .launched(&flow, generation)
                .is_some_and(|launched| launched.compute == compute)
            {
                self.remove(&flow, generation, None).await?;
            }
        }
        removal::remove(&folder)?;
        let gone = DriverReport::ComputeGone {
            compute,
            why: "it was released".into(),
        };
        self.config.ports.report(gone).await
    }

    /// Starts the agent of a generation, or reports that it is there, or why there is none and will be none.
    async fn launch(
        self: &Arc<Self>,
        flow: &str,
        generation: u32,
        compute: &str,
        holder: Holder,
        settings: Settings,
        until: contract::Millis,
    ) -> anyhow::Result<()> {
        if let Some(launched) = self
            .launched(flow, generation)
            .filter(|launched| launched.up && launched.process.open().is_some())
        {
            return self.report_up(flow, generation, launched.key).await;
        }
        let refusal = if self.removed(flow) >= generation {
            Some(Failure::new(
                "Session.Removed",
                "This session was removed before it could be launched. Start it again.",
            ))
        } else if now() > until {
            Some(Failure::new(
                "Session.LaunchTooLate",
                "The machine was asked too late to launch the session. Start it again.",
            ))
        } else if !self.compute(compute)?.is_dir() {
            Some(Failure::new(
                "Session.NoCompute",
                format!("The compute resource {compute} is gone. Start the session again."),
            ))
        } else if let Some(failure) = no_gpu(&settings.size, Path::new("/dev")) {
            Some(failure)
        } else {
            self.make_room().await
        };
        if let Some(failure) = refusal {
            return self.remove(flow, generation, Some(failure)).await;
        }
        // An older one that is still there has lost its place.
        for older in self.generations(flow).into_iter().filter(|older| *older <= generation) {
            self.end(flow, older).await?;
        }
        match self.spawn(flow, generation, compute, holder, settings).await {
            Ok(key) if self.removed(flow) < generation => self.report_up(flow, generation, key).await,
            Ok(_) => self.remove(flow, generation, None).await,
            Err(error) => {
                let log = self.log(flow, generation);
                let message = format!(
                    "The session's agent did not start: {error:#}. Its log is {}. Start the session again.",
                    log.display()
                );
                self.remove(flow, generation, Some(Failure::new("Session.LaunchFailed", message)))
                    .await
            }
        }
    }

    /// Waits for the removal of what is over, if the disk is as good as full. Why nothing can be launched if it stays so.
    async fn make_room(&self) -> Option<Failure> {
        let until = Instant::now() + FOR_ROOM;
        loop {
            let failure = disk::refusal(&self.config.state)?;
            let is_more_over = fs::read_dir(self.config.state.join(GONE)).is_ok_and(|mut gone| gone.next().is_some());
            if !is_more_over || Instant::now() > until {
                return Some(failure);
            }
            self.over.notify_one();
            tokio::time::sleep(BEFORE_REMOVAL).await;
        }
    }

    async fn report_up(&self, flow: &str, generation: u32, key: String) -> anyhow::Result<()> {
        let up = DriverReport::SessionUp {
            flow: flow.to_owned(),
            generation,
            key,
        };
        self.config.ports.report(up).await
    }

    /// Starts an agent, and gives back the public half of its key once it is up.
    async fn spawn(
        self: &Arc<Self>,
        flow: &str,
        generation: u32,
        compute: &str,
        holder: Holder,
        settings: Settings,
    ) -> anyhow::Result<String> {
        let config = &self.config;
        let session = self.session(flow, generation);
        fs::create_dir_all(&session)?;
        let queue = names::agent_queue(flow, generation);
        config.ports.create_queue(&queue).await?;
        let credentials = config.ports.issue_agent_credentials(flow, generation).await?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let key = SigningKey::from_bytes(&secret);
        let driver = Arc::clone(self);
        let python = tokio::task::spawn_blocking(move || driver.python()).await?;
        let log = self.log(flow, generation);
        fs::File::create(&log)?;
        let spec = AgentSpec {
            flow: flow.to_owned(),
            holder,
            generation,
            settings,
            state: config.state.clone(),
            session: session.clone(),
            endpoint: config.endpoint.clone(),
            region: config.region.clone(),
            queue_url: format!("{}{queue}", config.agent_queue_prefix),
            reports_queue_url: config.reports_queue_url.clone(),
            credentials,
            private_key: BASE64.encode(secret),
            python,
            places: self.places().to_vec(),
            user: self.user(compute)?,
            has_snapshots: config.has_snapshots,
            log: Some(log),
        };
        let mut child = self.agent()?;
        let ended = || anyhow::anyhow!("it ended at once");
        let process = child.id().and_then(|pid| Identity::of(pid as i32)).ok_or_else(ended)?;
        // It does nothing before it has its specification: from here on it is known, whoever crashes.
        let mut launched = Launched {
            process,
            key: public_half(&key),
            compute: compute.to_owned(),
            up: false,
        };
        self.write_launched(flow, generation, &launched)?;
        let mut line = serde_json::to_vec(&Told::Session(Box::new(spec)))?;
        line.push(b'\n');
        let mut stdin = child.stdin.take().ok_or_else(ended)?;
        stdin.write_all(&line).await?;
        stdin.flush().await?;
        drop(stdin);
        let mut word = String::new();
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(ended)?);
        tokio::time::timeout(FIRST_WORD, stdout.read_line(&mut word))
            .await
            .map_err(|_| anyhow::anyhow!("it said nothing within {} s", FIRST_WORD.as_secs()))??;
        anyhow::ensure!(word.trim() == "up", "it ended before it was up");
        launched.up = true;
        self.write_launched(flow, generation, &launched)?;
        self.watch(flow, generation, process, Some(child));
        let driver = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(AFTER_LAUNCH).await;
            if let Some(driver) = driver.upgrade() {
                driver.have_one_waiting();
            }
        });
        Ok(launched.key)
    }

    /// Who the sessions of a compute resource are on this machine, if this is root.
    fn user(&self, compute: &str) -> anyhow::Result<Option<u32>> {
        let slot: Slot = serde_json::from_slice(&fs::read(self.compute(compute)?.join("slot.json"))?)?;
        sandbox::ids::of(
            &self.config.state,
            &serde_json::to_string(&[slot.workspace, slot.owner])?,
        )
    }

    /// An agent's process that has not been told yet whose it is: the one that waits, else a new one.
    fn agent(&self) -> io::Result<Child> {
        let waiting = self.waiting().take();
        match waiting.and_then(|mut child| child.try_wait().is_ok_and(|ended| ended.is_none()).then_some(child)) {
            Some(child) => Ok(child),
            None => self.start_agent(),
        }
    }

    fn start_agent(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.config.executable);
        command
            .arg("agent")
            .env_clear()
            .envs(environments::uv::kept_variables())
            .envs(own_variables())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // Of a session and a group of its own, so that what ends the host does not end it.
        descriptors::keep_only(descriptors::detach(command.as_std_mut()), &[]);
        command.spawn()
    }

    /// Has an agent's process wait for the next launch, which then need not wait for it. It ends by itself when this driver has gone.
    fn have_one_waiting(&self) {
        if self.waiting().is_some() {
            return;
        }
        match self.start_agent() {
            Ok(child) => drop(self.waiting().get_or_insert(child)),
            // The launch that needs one says why there is none.
            Err(error) => tracing::warn!(%error, "no agent can be started ahead"),
        }
    }

    /// Notices when an agent ends that nobody ended.
    fn watch(self: &Arc<Self>, flow: &str, generation: u32, process: Identity, child: Option<tokio::process::Child>) {
        let name = (flow.to_owned(), generation);
        if !self.watched().insert(name.clone()) {
            return;
        }
        let driver = Arc::clone(self);
        tokio::spawn(async move {
            match child {
                Some(mut child) => drop(child.wait().await),
                None => {
                    if let Some(held) = process.open() {
                        let _ = held.ended().await;
                    }
                }
            }
            let (flow, generation) = name;
            let name = (flow.clone(), generation);
            let mut pause = Duration::from_millis(500);
            // Its folder, which says it, may be gone by the second try.
            let failure = driver.died(&flow, generation);
            let lock = driver.lock(&flow);
            // Whoever removes it meanwhile takes it off the list.
            while driver.watched().contains(&name) {
                let held = lock.lock().await;
                if !driver.watched().contains(&name) {
                    return;
                }
                tracing::warn!(
                    flow,
                    generation,
                    fault = failure.error,
                    cause = failure.message,
                    "an agent has ended by itself"
                );
                match driver.remove(&flow, generation, Some(failure.clone())).await {
                    Ok(()) => return,
                    Err(error) => tracing::error!(
                        flow,
                        generation,
                        error = format!("{error:#}"),
                        "what a session left could not be removed"
                    ),
                }
                // It is off the list and not yet reported.
                driver.watched().insert(name.clone());
                drop(held);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(30));
            }
        });
    }

    fn died(&self, flow: &str, generation: u32) -> Failure {
        if let Some(failure) = disk::ended(&self.session(flow, generation)) {
            return failure;
        }
        Failure::new(
            "Session.AgentDied",
            format!(
                "The session's agent has ended. Its log is {}. Start the session again.",
                self.log(flow, generation).display()
            ),
        )
    }

    /// Ends this generation and every older one, sees that none can come any more, and reports that.
    async fn remove(&self, flow: &str, generation: u32, failure: Option<Failure>) -> anyhow::Result<()> {
        self.check_place()?;
        let recorded = self.record_removed(flow, generation);
        if let Err(error) = &recorded
            && error.kind() != io::ErrorKind::StorageFull
        {
            return Ok(recorded?);
        }
        for each in self.generations(flow).into_iter().filter(|each| *each <= generation) {
            self.end(flow, each).await?;
        }
        // On a full disk there is room for that word when its files are gone: nothing is reported before, and the next try finds it.
        recorded?;
        // Also when there was no folder any more.
        self.take_back(flow, generation).await?;
        let gone = DriverReport::SessionGone {
            flow: flow.to_owned(),
            generation,
            failure: failure.map(report::bounded),
        };
        self.config.ports.report(gone).await
    }

    /// Ends an agent and its sandboxes for certain, and drops what they had.
    async fn end(&self, flow: &str, generation: u32) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.watched().remove(&(flow.to_owned(), generation));
        let session = self.session(flow, generation);
        let agent = self.launched(flow, generation).map(|launched| launched.process);
        let mut groups = Vec::new();
        // Twice, as the agent may have started a sandbox while it was being ended; all at once, as each takes its time.
        for _ in 0..2 {
            groups = runner::noted_groups(&session);
            let noted = agent.into_iter().chain(runner::noted(&session));
            let mut held: Vec<_> = noted.filter_map(Identity::open).collect();
            // The kernel would end those in a sandbox one after the other.
            held.extend(groups::members(&groups));
            held.iter().for_each(Held::kill);
            for process in held {
                let pid = process.identity.pid;
                anyhow::ensure!(
                    process.end(LAST_BREATH).await,
                    "process {pid} of the session does not end"
                );
            }
        }
        let ended = begun.elapsed();
        runner::remove_groups(&groups).await;
        self.take_back(flow, generation).await?;
        self.put_away(&session)?;
        tracing::debug!(flow, generation, processes = ?ended, all = ?begun.elapsed(), "a session has been ended");
        Ok(())
    }

    /// Takes a session's folder out of the way at once. Another process removes its files (see [`keep_tidy`]).
    fn put_away(&self, session: &Path) -> io::Result<()> {
        let away = self.config.state.join(GONE).join(crate::random());
        match fs::rename(session, &away) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done?,
        }
        self.over.notify_one();
        Ok(())
    }

    async fn take_back(&self, flow: &str, generation: u32) -> anyhow::Result<()> {
        self.config.ports.revoke_agent_credentials(flow, generation);
        self.config
            .ports
            .delete_queue(&names::agent_queue(flow, generation))
            .await
    }

    fn lock(&self, flow: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut flows = self.flows.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Arc::clone(flows.entry(flow.to_owned()).or_default())
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, HashSet<(String, u32)>> {
        self.watched.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn compute(&self, id: &str) -> anyhow::Result<PathBuf> {
        anyhow::ensure!(is_good_id(id), "{id:?} is no compute resource's id");
        Ok(self.config.state.join("computes").join(id))
    }

    fn session(&self, flow: &str, generation: u32) -> PathBuf {
        self.config
            .state
            .join("sessions")
            .join(flow)
            .join(generation.to_string())
    }

    fn log(&self, flow: &str, generation: u32) -> PathBuf {
        self.config
            .state
            .join("logs")
            .join(format!("agent-{flow}-{generation}.log"))
    }

    fn launched(&self, flow: &str, generation: u32) -> Option<Launched> {
        serde_json::from_slice(&fs::read(self.session(flow, generation).join("agent.json")).ok()?).ok()
    }

    fn write_launched(&self, flow: &str, generation: u32, launched: &Launched) -> anyhow::Result<()> {
        let path = self.session(flow, generation).join("agent.json");
        Ok(crate::write_atomically(&path, &serde_json::to_vec(launched)?)?)
    }

    fn removed(&self, flow: &str) -> u32 {
        let text =
            fs::read_to_string(self.config.state.join("sessions").join(flow).join("removed")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Once this has returned, no crash and no loss of power brings the generation back.
    fn record_removed(&self, flow: &str, generation: u32) -> io::Result<()> {
        if self.removed(flow) >= generation {
            return Ok(());
        }
        let folder = self.config.state.join("sessions").join(flow);
        fs::create_dir_all(&folder)?;
        let partial = folder.join(".removed");
        disk::write_at_any_rate(&self.config.state, || {
            let mut file = fs::File::create(&partial)?;
            io::Write::write_all(&mut file, generation.to_string().as_bytes())?;
            file.sync_all()
        })?;
        fs::rename(&partial, folder.join("removed"))?;
        fs::File::open(&folder)?.sync_all()
    }

    fn generations(&self, flow: &str) -> Vec<u32> {
        numbers(&self.config.state.join("sessions").join(flow))
    }

    fn sessions(&self) -> Vec<(String, u32)> {
        let flows = fs::read_dir(self.config.state.join("sessions"))
            .into_iter()
            .flatten()
            .flatten();
        let flows = flows.filter_map(|flow| flow.file_name().into_string().ok());
        flows
            .flat_map(|flow| {
                self.generations(&flow)
                    .into_iter()
                    .map(move |generation| (flow.clone(), generation))
            })
            .collect()
    }
}

/// Has what is over removed, from the driver's start to its end: soon after a session's end, what could not be removed with longer and longer
/// pauses, and what is old from time to time. No removal is in this process.
async fn keep_tidy(driver: Weak<Driver>, over: Arc<Notify>) {
    let mut pruned: Option<Instant> = None;
    let mut pause = REMOVE_AGAIN.0;
    while let Some(held) = driver.upgrade() {
        let is_short = Room::of(&held.config.state).is_ok_and(|room| room.is_short());
        let prune = is_short || pruned.is_none_or(|at| at.elapsed() >= BETWEEN_PRUNES);
        let done = held.tidy(prune).await;
        drop(held);
        if prune {
            pruned = Some(Instant::now());
        }
        let rest = match done {
            Ok(true) => {
                pause = REMOVE_AGAIN.0;
                BETWEEN_PRUNES
            }
            Ok(false) => {
                pause = (pause * 2).min(REMOVE_AGAIN.1);
                pause
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "what is over could not be removed");
                pause = (pause * 2).min(REMOVE_AGAIN.1);
                pause
            }
        };
        let _ = tokio::time::timeout(rest, over.notified()).await;
        tokio::time::sleep(BEFORE_REMOVAL).await;
    }
}

fn numbers(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// What an agent sees of the host's environment variables, beside what installers may need.
fn own_variables() -> impl Iterator<Item = (String, String)> {
    let kept = |name: &str| {
        matches!(
            name,
            "PATH"
                | "HOME"
                | "LANG"
                | "TZ"
                | "RUST_BACKTRACE"
                | "PFSESSION_PYTHON"
                | "PFSESSION_LOG"
                | "AWS_ENDPOINT_URL"
                | "AWS_ENDPOINT_URL_S3"
        ) || name == store::FOLDER
    };
    std::env::vars().filter(move |(name, _)| kept(name))
}

fn now() -> contract::Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
/// Why a session of this size cannot be launched on this machine: the size has GPUs, and the machine none.
///
/// * `devices`: the folder of the machine's devices.
fn no_gpu(size: &str, devices: &Path) -> Option<Failure> {
    let gpu = lifecycle::size::size(size)?.gpu?;
    let is_there = ["nvidiactl", "kfd", "dxg"]
        .iter()
        .any(|name| devices.join(name).exists());
    let message = format!(
        "The VM size {size} has {} {}, and this machine has no GPU. Start the session with a size without one: `local` is all of this machine.",
        gpu.count, gpu.model
    );
    (!is_there).then(|| Failure::new("Session.NoGpu", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_with_gpus_is_refused_only_where_the_machine_has_none() {
        let devices = tempfile::tempdir().unwrap();
        let refused = |size: &str| no_gpu(size, devices.path()).map(|failure| failure.to_string());
        expect_test::expect!["Session.NoGpu: The VM size Standard_NC4as_T4_v3 has 1 T4, and this machine has no GPU. Start the session with a size without one: `local` is all of this machine."].assert_eq(&refused("Standard_NC4as_T4_v3").unwrap());
        assert_eq!([refused("local"), refused("m6i.xlarge")], [None, None]);
        fs::write(devices.path().join("nvidiactl"), "").unwrap();
        assert_eq!(refused("Standard_NC4as_T4_v3"), None);
    }
}
