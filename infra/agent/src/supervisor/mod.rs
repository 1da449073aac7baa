//! The agent of one session: the process outside the sandbox, which alone reaches the queues.

mod commands;
mod flows;
mod install;
mod lease;
mod reports;
mod runs;
mod sandbox;
mod watch;

use crate::{
    clock::boot_time,
    folders::Folders,
    place::Place,
    runner::Runner,
    spec::{AgentSpec, Told},
    tidy,
};
use aws_sdk_sqs::Client;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use broker::Providers;
use contract::{Failure, agent::AgentReport, packages::ByHand};
use ed25519_dalek::SigningKey;
use environments::{reach::Reach, store::Store, uv};
use flows::{flow_folders, object_store};
use install::Installing;
use network::Counts;
use reports::send_reports;
use rustix::process::DumpableBehavior;
use snapshots::{Folders as FlowFolders, Store as ObjectStore};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    fs, io,
    path::Path,
    rc::Rc,
    sync::Arc,
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::{JoinSet, LocalSet, spawn_local},
};

/// Is the agent of one session, from its specification on standard input to its end. That may be
/// long in coming, or never come. It builds a runtime of its own: call it before there is one.
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
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        // Its driver has gone, and had no session for it.
        return Ok(());
    }
    let mut spec = match serde_json::from_str(&line)? {
        Told::Session(spec) => *spec,
        Told::Tidy(task) => return Ok(tidy::tidy(&task)?),
    };
    if let Some(log) = &spec.log {
        write_to(log)?;
    }
    let credentials = spec.credentials.take();
    let credentials = credentials.ok_or_else(|| anyhow::anyhow!("its driver gave it no credentials"))?;
    let place = Place::Machine(credentials);
    let ended = LocalSet::new().block_on(&runtime, supervise_session(spec, boot_time(), place));
    // A disk that does not answer holds a thread, and no end.
    runtime.shutdown_background();
    ended
}

/// Has standard error go to this file from here on.
fn write_to(log: &Path) -> io::Result<()> {
    let file = fs::File::options().create(true).append(true).open(log)?;
    Ok(rustix::stdio::dup2_stderr(file)?)
}

struct Agent {
    spec: AgentSpec,
    folders: Folders,
    key: SigningKey,
    client: Client,
    place: Place,
    flows: FlowFolders,
    store_of_runs: Option<ObjectStore>,
    /// Holds the keys of connections whose flows are not to see them.
    providers: Arc<Providers>,
    /// Whether it has answered, and that with a failure.
    is_refused: Cell<bool>,
    reports: UnboundedSender<AgentReport>,
    store: RefCell<Option<Rc<Store>>>,
    /// The time of the last look for a newer image.
    looked: Cell<Option<u64>>,
    /// One change of the runner at a time.
    changing: tokio::sync::Mutex<()>,
    runner: RefCell<Option<Rc<Runner>>>,
    install: RefCell<Option<Installing>>,
    installed: RefCell<Option<(String, AgentReport)>>,
    /// The number of reports of what is installed; and the last one: the lock, and what was done by
    /// hand.
    count: Cell<u32>,
    reported: RefCell<Option<(String, Vec<ByHand>)>>,
    /// The file that the packages come from, and those that were passed over, of the last install.
    described: RefCell<Option<String>>,
    /// All runs that it was ever told of.
    known: RefCell<BTreeSet<String>>,
    /// Those whose end is not yet with the control plane.
    open: RefCell<BTreeSet<String>>,
    /// Runs that were stopped, and why.
    stopped: RefCell<HashMap<String, Failure>>,
    /// The times of requests for a lease, by nonce.
    asked: RefCell<HashMap<u64, u64>>,
    leased: Cell<u64>,
    /// The network settings, and the revision that set them, if it is later than the start.
    reach: RefCell<Reach>,
    network_revision: Cell<Option<u64>>,
    /// Counts of refused connections, and how many were reported.
    counts: Counts,
    refused_reported: Cell<u64>,
}

/// Is the agent of one session until its lease has run out.
///
/// * `born`: the lease counts from here until the first is asked for.
#[expect(clippy::cognitive_complexity, reason = "it counts what the macros of the log become")]
pub(crate) async fn supervise_session(spec: AgentSpec, born: u64, place: Place) -> anyhow::Result<()> {
    let (reports, outgoing) = mpsc::unbounded_channel();
    let agent = Rc::new(Agent::new(spec, born, place, reports)?);
    tracing::info!(
        flow = agent.spec.flow,
        generation = agent.spec.generation,
        "the agent is up"
    );
    agent.place.say_up()?;
    let ended = agent.until_the_end(outgoing).await;
    match &ended {
        Err(error) => tracing::error!(%error, "the session ends"),
        Ok(()) if agent.is_refused.get() => tracing::warn!("it came up too late: the session ends"),
        Ok(()) => tracing::warn!("the lease was not renewed: the session ends"),
    }
    if let Some(runner) = agent.runner.borrow_mut().take() {
        runner.kill();
    }
    ended
}

impl Agent {
    fn new(spec: AgentSpec, born: u64, place: Place, reports: UnboundedSender<AgentReport>) -> anyhow::Result<Self> {
        let key: [u8; 32] = BASE64
            .decode(&spec.private_key)?
            .try_into()
            .map_err(|_| anyhow::anyhow!("the private key has not 32 bytes"))?;
        let objects = object_store(&spec, &place);
        Ok(Self {
            folders: Folders {
                state: spec.state.clone(),
                session: spec.session.clone(),
            },
            key: SigningKey::from_bytes(&key),
            client: place.queues(&spec),
            flows: flow_folders(&spec, objects.clone()),
            store_of_runs: objects,
            providers: Arc::new(Providers::start(uv::network())?),
            place,
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
            described: RefCell::default(),
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
        })
    }

    /// Works until the lease has run out, or the session has to end for another reason, which is
    /// the error.
    async fn until_the_end(self: &Rc<Self>, outgoing: UnboundedReceiver<AgentReport>) -> anyhow::Result<()> {
        let mut lasting = JoinSet::new();
        if self.place.refusal().is_none() {
            lasting.spawn_local(send_reports(Rc::clone(self), outgoing));
            spawn_local(Rc::clone(self).prepare());
        }
        lasting.spawn_local(Rc::clone(self).take_commands());
        tokio::select! {
            () = Rc::clone(self).keep_the_lease() => Ok(()),
            failure = self.watch_disk() => Err(anyhow::anyhow!("{failure}")),
            Some(ended) = lasting.join_next() => Err(anyhow::anyhow!("a task that an agent cannot do without has ended: {ended:?}")),
        }
    }
}
