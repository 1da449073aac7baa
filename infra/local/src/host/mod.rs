//! The host: puts its parts together, and keeps them until it is told to leave.
//!
//! In the order of reading: [`serve`]; `place`, the state folder and what is listened on; `parts`,
//! what the template asks for; `answers`, the routes; `upkeep`, what is done from time to time.

mod answers;
mod parts;
mod place;
mod upkeep;

use crate::{
    access::{Access, Caller, Issuer},
    compute,
    doors::{self, Shares},
    faults::{self, Faults},
    functions::Pool,
    machine::Machine,
    own::Own,
    sqs::{REGION, Sqs},
    store::now,
    table::Table,
};
use anyhow::Context;
use parts::Parts;
use place::Place;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};
use tokio::{net::UnixListener, signal::unix, sync::watch, task::JoinSet};

/// The function that answers people and their programs.
const API: &str = "api";
/// The function that takes commands.
const ACCEPT_COMMAND: &str = "accept-command";
/// The longest time that requests may take to end when the host leaves.
const LEAVING: Duration = Duration::from_millis(500);

/// The file in the state folder that has the secrets of webhooks, for its owner alone.
pub const WEBHOOK_SECRETS: &str = "webhooks.json";

/// The configuration of a host.
///
/// * `state`: the folder that it keeps everything in.
/// * `executable`: the program that is the function X when called as `executable function X`, and a
///   session's agent.
/// * `functions_dir`: where Lambda binaries are, by the functions' names, that are run instead.
/// * `port`: on 127.0.0.1; without one, the port of last time, or any.
/// * `idle_exit`: how long to stay after the last session and the last request; without one, for
///   ever.
/// * `user`: who the bearer token and the key in `host.json` are for.
#[derive(Clone, Debug)]
pub struct Config {
    pub state: PathBuf,
    pub executable: PathBuf,
    pub functions_dir: Option<PathBuf>,
    pub port: Option<u16>,
    pub idle_exit: Option<Duration>,
    pub faults: Option<faults::Plan>,
    pub user: String,
}

/// The content of `<state>/host.json`, which only the host's user can read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostFile {
    pub pid: u32,
    pub version: String,
    /// For other people's tools. What is ours uses the socket.
    pub endpoint: String,
    /// Empty in the file of a host from before there were sockets.
    #[serde(default)]
    pub socket: PathBuf,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub token: String,
    pub user: String,
    pub commands_queue_url: String,
    /// The host's own log.
    pub log: PathBuf,
}

/// Another host has this state folder.
#[derive(Debug, thiserror::Error)]
#[error("another host already keeps {}", .state.display())]
pub struct AlreadyRunning {
    pub state: PathBuf,
}

/// The version of a host that runs from this program: another build is another version.
pub fn version(executable: &Path) -> String {
    let built = fs::metadata(executable).map(|meta| format!("{}.{}.{}", meta.mtime(), meta.mtime_nsec(), meta.len()));
    let hash = Sha256::digest(built.unwrap_or_default().as_bytes());
    format!("{}+{}", env!("CARGO_PKG_VERSION"), hex::encode(&hash[..4]))
}

/// Everything that requests need.
struct Host {
    access: Arc<Access>,
    sqs: Sqs,
    machine: Arc<Machine>,
    table: Table,
    pools: HashMap<String, Arc<Pool>>,
    issuer: Issuer,
    /// Whose machine it is.
    user: String,
    faults: Arc<Faults>,
    closing: watch::Sender<bool>,
    address: String,
    version: String,
    /// The time of the last request from outside.
    last_request: AtomicI64,
}

/// A host whose requests are answered.
struct Running {
    parts: Parts,
    host: Arc<Host>,
    file: HostFile,
    signals: [unix::Signal; 2],
    servers: JoinSet<()>,
    work: JoinSet<anyhow::Result<()>>,
    driver: Arc<driver::Driver>,
    closed: watch::Receiver<bool>,
    /// Given up last: the next host opens the same databases.
    place: Place,
}

/// Runs a host until SIGTERM, SIGINT, or `POST /host/down`. Sessions live on without it, until
/// their leases end.
///
/// * `ready`: called once requests are answered.
///
/// # Errors
///
/// [`AlreadyRunning`] when another host has the state folder. Anything else is final until what it
/// names is put right.
pub async fn serve(config: Config, ready: impl FnOnce(&HostFile)) -> anyhow::Result<()> {
    let mut running = open(&config).await?;
    if running.place.is_short() {
        // Closing the databases would remove their logs, whose room the next start has not again.
        std::mem::forget(running.host.clone());
    }
    let own_file = running.place.publish(&running.file)?;
    tracing::info!(
        endpoint = running.file.endpoint,
        version = running.file.version,
        pid = running.file.pid,
        "the host answers"
    );
    ready(&running.file);
    let ended = running.until_it_is_to_leave(&own_file).await;
    tracing::info!("the host leaves");
    running.leave(&own_file).await;
    ended
}

async fn open(config: &Config) -> anyhow::Result<Running> {
    let shares = Shares::of(doors::raise_descriptor_limit());
    let mut place = Place::take(config).await?;
    let (closing, closed) = watch::channel(false);
    let faults = faults_of(config);
    let issuer = Issuer::open(&config.state.join("issuer.key")).context("issuer.key cannot be read or made")?;
    let prefix = format!("http://{}/{}/", place.address, crate::sqs::ACCOUNT);
    let (parts, table) = Parts::open(config, &issuer, &prefix, &place.runtime_api, &faults, closed.clone())?;
    let file = host_file(config, &place, &parts.access, &issuer, &prefix)?;
    let host = Arc::new(Host {
        access: parts.access.clone(),
        sqs: Sqs {
            queues: parts.queues.clone(),
            prefix: prefix.clone(),
        },
        machine: parts.machine.clone(),
        table,
        pools: parts.pools.clone(),
        issuer,
        user: config.user.clone(),
        faults: faults.clone(),
        closing,
        address: place.address.clone(),
        version: file.version.clone(),
        last_request: AtomicI64::new(now()),
    });
    let signals = [
        unix::signal(unix::SignalKind::terminate())?,
        unix::signal(unix::SignalKind::interrupt())?,
    ];
    let servers = listen(&host, &mut place, &shares, &closed)?;
    let mut work = JoinSet::new();
    parts.start(&mut work, &faults)?;
    let opening = compute::Opening {
        state: config.state.clone(),
        executable: config.executable.clone(),
        endpoint: format!("{}{}", socket::UNIX, place.socket_path.display()),
        prefix,
    };
    let driver = compute::open(opening, parts.queues.clone(), parts.access.clone())?;
    work.spawn(compute::drive(driver.clone(), parts.queues.clone(), faults));
    let databases = ["queues.db", "table.db"].map(|name| config.state.join(name));
    if let Some(ballast) = place.ballast.take() {
        work.spawn(upkeep::keep_room(ballast, databases.clone()));
    }
    work.spawn(upkeep::tidy(host.clone(), parts.store.clone(), databases));
    work.spawn(upkeep::leave_when_idle(host.clone(), config.idle_exit));
    Ok(Running {
        place,
        parts,
        host,
        file,
        signals,
        servers,
        work,
        driver,
        closed,
    })
}

fn faults_of(config: &Config) -> Arc<Faults> {
    let plan = config.faults.clone().unwrap_or_default();
    if config.faults.is_some() {
        tracing::warn!(plan = %plan, "faults are injected on purpose");
    }
    Arc::new(Faults::new(plan))
}

fn host_file(
    config: &Config,
    place: &Place,
    access: &Access,
    issuer: &Issuer,
    prefix: &str,
) -> anyhow::Result<HostFile> {
    let (access_key_id, secret_access_key) = access.issue(Caller::User(config.user.clone()))?;
    Ok(HostFile {
        pid: std::process::id(),
        version: version(&config.executable),
        endpoint: format!("http://{}", place.address),
        socket: place.socket_path.clone(),
        region: REGION.to_owned(),
        access_key_id,
        secret_access_key,
        token: issuer.own_token(&config.user)?,
        user: config.user.clone(),
        commands_queue_url: format!("{prefix}{}", contract::names::COMMANDS.name),
        log: config.state.join("log/host.log"),
    })
}

/// Answers on what the place listens on.
fn listen(
    host: &Arc<Host>,
    place: &mut Place,
    shares: &Shares,
    closed: &watch::Receiver<bool>,
) -> anyhow::Result<JoinSet<()>> {
    let mut servers = JoinSet::new();
    let outside = answers::outside(host.clone());
    if let Some((socket, listener)) = place.listeners.take() {
        let socket = UnixListener::from_std(socket)?;
        servers.spawn(doors::keep(socket, outside.clone(), shares.ours, closed.clone()));
        servers.spawn(doors::keep(listener, outside, shares.others, closed.clone()));
    }
    let functions = answers::functions(host.clone());
    let accepting = place.runtime_api.accepting()?;
    servers.spawn(doors::keep(accepting, functions, shares.functions, closed.clone()));
    Ok(servers)
}

impl Running {
    async fn until_it_is_to_leave(&mut self, file: &Own) -> anyhow::Result<()> {
        let [terminate, interrupt] = &mut self.signals;
        tokio::select! {
            biased;
            _ = self.closed.wait_for(|closing| *closing) => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            // A host that leaves closes its listeners; that may be seen before it is seen that the
            // host leaves.
            Some(ended) = self.servers.join_next() => match *self.host.closing.borrow() {
                true => Ok(()),
                false => Err(anyhow::anyhow!("a listener has ended: {ended:?}")),
            },
            gone = self.place.is_taken_away(file) => {
                tracing::warn!(path = %gone.display(), "what this host keeps was taken away");
                Ok(())
            }
            Some(ended) = next_failure(&mut self.work) => Err(ended),
        }
    }

    async fn leave(mut self, file: &Own) {
        self.host.closing.send_replace(true);
        self.work.abort_all();
        self.host.pools.values().for_each(|pool| pool.close());
        let _ = tokio::time::timeout(LEAVING, async { while self.servers.join_next().await.is_some() {} }).await;
        file.remove();
        self.place.leave();
        if self.driver.count() == 0 {
            self.driver.let_go();
        }
        let _ = self.parts.store.tidy();
        if self.place.is_short() {
            std::mem::forget(self.host);
        }
    }
}

/// The first part of the host that ends with an error. Those that end well have nothing left to do.
async fn next_failure(work: &mut JoinSet<anyhow::Result<()>>) -> Option<anyhow::Error> {
    loop {
        match work.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return Some(error),
            Some(Err(panic)) => return Some(panic.into()),
            None => std::future::pending().await,
        }
    }
}
