//! The host: puts its parts together, and keeps them until it is told to leave.

use crate::{
    access::{Access, Caller, Issuer, write_private},
    asl::Definition,
    ballast::{self, Ballast},
    compute,
    doors::{self, Guest, Shares},
    faults::{self, Faults},
    front,
    functions::{self, Plan, Pool},
    machine::Machine,
    memory,
    own::Own,
    queues::Queues,
    schedule,
    sqs::{REGION, Sqs},
    store::{QUEUES, Store, now},
    table::Table,
    template::{Function, Template},
    wire::{AwsError, Cut, respond},
};
use anyhow::Context;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Extension, Path as Segments, Request, State},
    http::{Response, StatusCode},
    routing::{any, get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix,
    sync::watch,
    task::JoinSet,
};

/// The most bytes of an AWS request, and of what a function answers.
const MOST_BYTES: usize = 8 << 20;
/// The function that answers people and their programs.
const API: &str = "api";
/// How long requests may take to end when the host leaves.
const LEAVING: Duration = Duration::from_millis(500);
/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(30);
/// How long the children of a host that was killed may have its lock.
const LAST_BREATH: Duration = Duration::from_millis(300);
/// How often the host looks whether its state folder is still there.
const WATCH: Duration = Duration::from_secs(1);
/// How often what is old is forgotten, and logs and processes are looked at.
const TIDY: Duration = Duration::from_secs(10);

/// The file in the state folder that has the secrets of webhooks, for its owner alone.
pub const WEBHOOK_SECRETS: &str = "webhooks.json";

/// What a host is made of.
///
/// * `state`: the folder that it keeps everything in.
/// * `executable`: the program that is the function X when called as `executable function X`, and a session's agent.
/// * `functions_dir`: where Lambda binaries are, by the functions' names, that are run instead.
/// * `port`: on 127.0.0.1; without one, the port of last time, or any.
/// * `idle_exit`: how long to stay after the last session and the last request; without one, for ever.
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

/// What clients find in `<state>/host.json`, which only the host's user can read.
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
    format!("{}+{}", env!("CARGO_PKG_VERSION"), crate::store::hex(&hash[..4]))
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
    /// When somebody from outside last asked for something.
    last_request: AtomicI64,
}

/// Runs a host until SIGTERM, SIGINT, or `POST /host/down`. Sessions live on without it, until their leases end.
///
/// * `ready`: called once requests are answered.
///
/// # Errors
///
/// [`AlreadyRunning`] when another host has the state folder. Anything else is final until what it names is put right.
pub async fn serve(config: Config, ready: impl FnOnce(&HostFile)) -> anyhow::Result<()> {
    let state = &config.state;
    agent::check_path(state).map_err(anyhow::Error::msg)?;
    let shares = Shares::of(doors::raise_descriptor_limit());
    let folder = |path: &Path| {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("the folder {} cannot be made", path.display()))
    };
    folder(state)?;
    folder(&state.join("log"))?;
    fs::set_permissions(state, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("{} is not this user's own", state.display()))?;
    let _lock = lock(state).await?;
    let ballast = Ballast::begin(state);

    let socket_path = socket::path(state);
    let socket =
        socket::listen(&socket_path).with_context(|| format!("{} cannot be listened on", socket_path.display()))?;
    socket.set_nonblocking(true)?;
    let own_socket = Own::of(&socket_path)?;
    let own_state = Own::of(state)?;
    let listener = listen(state, config.port).await?;
    let address = listener.local_addr()?.to_string();
    let runtime_api = functions::RuntimeApi::listen()?;
    let endpoint = format!("http://{address}");
    let prefix = format!("{endpoint}/{}/", crate::sqs::ACCOUNT);

    let plan = config.faults.clone().unwrap_or_default();
    if config.faults.is_some() {
        tracing::warn!(plan = %plan, "faults are injected on purpose");
    }
    let faults = Arc::new(Faults::new(plan));
    let (closing, closed) = watch::channel(false);
    let store = Arc::new(Store::open(&state.join("queues.db"), QUEUES).context("queues.db cannot be opened")?);
    let queues = Arc::new(Queues::open(store.clone(), faults.clone(), closed.clone())?);
    let access = Arc::new(Access::open(store.clone())?);
    let issuer = Issuer::open(&state.join("issuer.key")).context("issuer.key cannot be read or made")?;

    let template = Template::read(
        include_str!("../../template.yaml"),
        &prefix,
        &parameters(&issuer, state)?,
    )?;
    for (name, settings) in &template.queues {
        let queue = queues.ensure(name, settings.clone())?;
        if template
            .functions
            .iter()
            .any(|function| function.source.as_ref().is_some_and(|(source, _)| source == name))
            || name == contract::names::COMPUTE_REQUESTS.name
        {
            // Who had received these has ended with the host before.
            queues.release(&queue)?;
        }
    }
    let table = Table::open(&state.join("table.db"), &template.tables)?;
    let (machine, substitutions) = template.machine.context("the template has no state machine")?;
    let definition = Definition::read(include_str!("../../lifecycle.asl.json"), &substitutions)?;
    let machine = Arc::new(Machine::new(
        &machine,
        definition,
        store.clone(),
        queues.clone(),
        faults.clone(),
    ));

    let pools: HashMap<String, Arc<Pool>> = template
        .functions
        .iter()
        .map(|function| {
            let plan = plan_of(function, &config, &access, &runtime_api);
            (function.name.clone(), Pool::start(plan, faults.clone()))
        })
        .collect();
    let (access_key_id, secret_access_key) = access.issue(Caller::User(config.user.clone()))?;
    let file = HostFile {
        pid: std::process::id(),
        version: version(&config.executable),
        endpoint,
        socket: socket_path.clone(),
        region: REGION.to_owned(),
        access_key_id,
        secret_access_key,
        token: issuer.own_token(&config.user)?,
        user: config.user.clone(),
        commands_queue_url: format!("{prefix}{}", contract::names::COMMANDS.name),
        log: state.join("log/host.log"),
    };
    let host = Arc::new(Host {
        access: access.clone(),
        sqs: Sqs {
            queues: queues.clone(),
            prefix: prefix.clone(),
        },
        machine: machine.clone(),
        table,
        pools,
        issuer,
        user: config.user.clone(),
        faults: faults.clone(),
        closing,
        address,
        version: file.version.clone(),
        last_request: AtomicI64::new(now()),
    });

    let mut work: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let mut signals = (
        unix::signal(unix::SignalKind::terminate())?,
        unix::signal(unix::SignalKind::interrupt())?,
    );
    let answers = router(host.clone());
    let runtime = Router::new()
        .route("/fn/{name}/{secret}/{*path}", any(runtime))
        .with_state(host.clone());
    let mut servers = JoinSet::new();
    servers.spawn(doors::keep(
        UnixListener::from_std(socket)?,
        answers.clone(),
        shares.ours,
        closed.clone(),
    ));
    servers.spawn(doors::keep(listener, answers, shares.others, closed.clone()));
    servers.spawn(doors::keep(
        runtime_api.accepting()?,
        runtime,
        shares.functions,
        closed.clone(),
    ));
    for function in &template.functions {
        let Some((source, most)) = &function.source else {
            continue;
        };
        let queue = queues
            .get(source)
            .with_context(|| format!("the template has no queue {source}"))?;
        let (pool, queues, faults, most) = (
            host.pools[&function.name].clone(),
            queues.clone(),
            faults.clone(),
            *most,
        );
        work.spawn(async move {
            functions::feed(pool, queues, queue, most, faults).await;
            Ok(())
        });
    }
    for schedule in template.schedules {
        let queue = queues
            .get(&schedule.queue)
            .with_context(|| format!("the template has no queue {}", schedule.queue))?;
        let queues = queues.clone();
        work.spawn(async move {
            schedule::keep(schedule, queues, queue).await;
            Ok(())
        });
    }
    work.spawn(async move {
        machine.keep_time().await;
        Ok(())
    });
    let driver = compute::open(
        compute::Opening {
            state: state.clone(),
            executable: config.executable.clone(),
            endpoint: format!("{}{}", socket::UNIX, socket_path.display()),
            prefix,
        },
        queues.clone(),
        access,
    )?;
    work.spawn(compute::drive(driver.clone(), queues.clone(), faults));
    let databases = ["queues.db", "table.db"].map(|name| state.join(name));
    work.spawn(keep_room(ballast, databases.clone()));
    work.spawn(tidy(host.clone(), store.clone(), databases));
    work.spawn(leave_when_idle(host.clone(), config.idle_exit));

    let host_json = state.join("host.json");
    let is_short = || agent::disk::Room::of(state).is_ok_and(|room| room.is_short());
    if is_short() {
        // Closing the databases would remove their logs, whose room the next start has not again.
        std::mem::forget(host.clone());
    }
    let text = serde_json::to_string_pretty(&file)?;
    write_private(&host_json, text.as_bytes())
        // On a full disk in the place of the one of a host that was killed.
        .or_else(|cause| {
            fs::remove_file(&host_json)
                .map_err(|_| cause)
                .and_then(|()| write_private(&host_json, text.as_bytes()))
        })
        .context("host.json cannot be written")?;
    let own_file = Own::of(&host_json)?;
    tracing::info!(
        endpoint = file.endpoint,
        version = file.version,
        pid = file.pid,
        "the host answers"
    );
    ready(&file);
    let watched = [own_state, own_file.clone(), own_socket.clone()];

    let mut close = closed;
    let ended = tokio::select! {
        biased;
        _ = close.wait_for(|closing| *closing) => Ok(()),
        _ = signals.0.recv() => Ok(()),
        _ = signals.1.recv() => Ok(()),
        // A host that leaves closes its listeners; that may be seen before it is seen that the host leaves.
        Some(ended) = servers.join_next() => match *host.closing.borrow() {
            true => Ok(()),
            false => Err(anyhow::anyhow!("a listener has ended: {ended:?}")),
        },
        gone = is_taken_away(&watched) => {
            tracing::warn!(path = %gone.display(), "what this host keeps was taken away");
            Ok(())
        }
        Some(ended) = next_failure(&mut work) => Err(ended),
    };
    tracing::info!("the host leaves");
    host.closing.send_replace(true);
    work.abort_all();
    host.pools.values().for_each(|pool| pool.close());
    let _ = tokio::time::timeout(LEAVING, async { while servers.join_next().await.is_some() {} }).await;
    own_file.remove();
    own_socket.remove();
    if driver.count() == 0 {
        driver.let_go();
    }
    let _ = store.tidy();
    if is_short() {
        std::mem::forget(host);
    }
    ended
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

/// Waits until something of this host's is no longer where it was, and gives that back. Nobody could find such a host, and another may be
/// started in its place.
async fn is_taken_away(all: &[Own]) -> PathBuf {
    let mut every = tokio::time::interval(WATCH);
    loop {
        every.tick().await;
        if let Some(gone) = all.iter().find(|own| !own.is_there()) {
            return gone.path().to_owned();
        }
    }
}

/// Takes the state folder for this host, as long as the file is open. What a host that was killed had just forked has the file for a moment
/// longer than the host.
async fn lock(state: &Path) -> anyhow::Result<fs::File> {
    let path = state.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if begun.elapsed() < LAST_BREATH => {
                tokio::time::sleep(LAST_BREATH / 20).await;
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(AlreadyRunning {
                    state: state.to_owned(),
                }
                .into());
            }
            Err(fs::TryLockError::Error(cause)) => {
                return Err(cause).with_context(|| format!("{} cannot be locked", path.display()));
            }
        }
    }
}

/// Listens where the host of last time did: scripts may know that address.
async fn listen(state: &Path, wanted: Option<u16>) -> anyhow::Result<TcpListener> {
    let path = state.join("port");
    let last = fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse::<u16>().ok());
    let wanted = wanted.filter(|port| *port != 0);
    let listener = match (wanted, last) {
        (Some(port), _) => TcpListener::bind(("127.0.0.1", port))
            .await
            .with_context(|| format!("port {port} cannot be listened on; name another with --port"))?,
        (None, last) => match TcpListener::bind(("127.0.0.1", last.unwrap_or(0))).await {
            Ok(listener) => listener,
            Err(cause) if cause.kind() == ErrorKind::AddrInUse => {
                tracing::warn!(
                    port = last,
                    "somebody else has the port of last time: tools that were given it will not find this host"
                );
                TcpListener::bind(("127.0.0.1", 0)).await?
            }
            Err(cause) => return Err(cause).context("there is no port to listen on"),
        },
    };
    let port = listener.local_addr()?.port();
    if last != Some(port) {
        write_private(&path, port.to_string().as_bytes())?;
    }
    Ok(listener)
}

fn parameters(issuer: &Issuer, state: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let sweep = match std::env::var("PFSESSION_SWEEP_MS") {
        Ok(text) => text
            .parse::<u64>()
            .with_context(|| format!("PFSESSION_SWEEP_MS is {text:?}, which is no number"))?,
        Err(_) => 1000,
    };
    Ok(BTreeMap::from(
        [
            ("SweepRate", format!("rate({sweep} milliseconds)")),
            ("IssuerKey", issuer.public_pem()),
            ("WebhookSecrets", state.join(WEBHOOK_SECRETS).display().to_string()),
            ("DriverSenders", Caller::Driver.sender()),
            ("SessionsPerUser", memory::sessions_per_user().to_string()),
            // Nobody shares this host, and nobody collects metrics here.
            ("NamePrefix", String::new()),
            ("MetricsNamespace", String::new()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    ))
}

/// Where the daemon is that takes segments of traces, as the Lambda service says it to a function.
const TRACES: &str = "AWS_XRAY_DAEMON_ADDRESS";

fn plan_of(function: &Function, config: &Config, access: &Access, runtime_api: &functions::RuntimeApi) -> Plan {
    let (program, arguments) =
        functions::program_of(&function.name, config.functions_dir.as_deref(), &config.executable);
    let (key_id, secret) = access.lend(Caller::Function(function.name.clone()));
    let mut environment = function.environment.clone();
    environment.extend(
        [
            (
                "AWS_ENDPOINT_URL",
                format!("{}{}", socket::UNIX, socket::path(&config.state).display()),
            ),
            ("AWS_ACCESS_KEY_ID", key_id),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    // Who collects traces of this host collects its functions' too.
    if let Ok(daemon) = std::env::var(TRACES) {
        environment.insert(TRACES.to_owned(), daemon);
    }
    if function.name == API {
        let runs = config.state.join("runs").display().to_string();
        environment.insert(contract::names::RUNS_FOLDER.to_owned(), runs);
    }
    Plan {
        name: function.name.clone(),
        program,
        arguments,
        environment,
        timeout: function.timeout,
        most: if function.has_url { 16 } else { 4 },
        // A person waits for an answer of the api.
        spare: usize::from(function.has_url && function.name == API),
        log: config.state.join("log").join(format!("{}.log", function.name)),
        runtime_api: runtime_api.clone(),
    }
}

async fn tidy(host: Arc<Host>, store: Arc<Store>, databases: [PathBuf; 2]) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(TIDY);
    loop {
        every.tick().await;
        let (host, store, databases) = (host.clone(), store.clone(), databases.clone());
        let tidied = tokio::task::spawn_blocking(move || {
            host.pools.values().for_each(|pool| pool.tidy());
            host.sqs
                .queues
                .sweep()
                .and_then(|()| host.machine.sweep())
                .and_then(|()| store.tidy())
                .and(databases.iter().try_for_each(|file| ballast::keep_pages(file)))
                .map_err(AwsError::from)
                .and_then(|()| host.table.tidy(now() / 1000))
        });
        if let Ok(Err(cause)) = tidied.await {
            tracing::warn!(fault = "Store.Tidy", cause = cause.message, "what is old stays for now");
        }
    }
}

/// Keeps the room that the host needs on a full disk.
async fn keep_room(mut ballast: Ballast, databases: [PathBuf; 2]) -> anyhow::Result<()> {
    loop {
        if ballast.tend() {
            let databases = databases.clone();
            let emptied =
                tokio::task::spawn_blocking(move || databases.iter().try_for_each(|file| ballast::empty_log(file)));
            if let Ok(Err(cause)) = emptied.await {
                tracing::warn!(fault = "Host.DiskFull", cause = %cause, "a database's log is not emptied");
            }
        }
        tokio::time::sleep(ballast::EVERY).await;
    }
}

/// Tells the host to leave when nobody has needed it for long enough.
async fn leave_when_idle(host: Arc<Host>, idle_exit: Option<Duration>) -> anyhow::Result<()> {
    let Some(idle_exit) = idle_exit else { return Ok(()) };
    let patience = i64::try_from(idle_exit.as_millis()).unwrap_or(i64::MAX);
    let mut every = tokio::time::interval((idle_exit / 10).clamp(Duration::from_millis(20), Duration::from_secs(5)));
    loop {
        every.tick().await;
        if is_busy(&host)? {
            host.last_request.store(now(), Ordering::Relaxed);
        } else if now() - host.last_request.load(Ordering::Relaxed) >= patience {
            tracing::info!("nobody has needed this host for long enough");
            host.closing.send_replace(true);
            return Ok(());
        }
    }
}

/// Whether a session lives, or something is on its way.
fn is_busy(host: &Host) -> anyhow::Result<bool> {
    let queues = &host.sqs.queues;
    if !queues.list("agent-").is_empty() || host.machine.running()? > 0 {
        return Ok(true);
    }
    use contract::names;
    let on_their_way = [
        names::COMMANDS,
        names::START_SESSION,
        names::INSTALL_PACKAGES,
        names::STOP_SESSION,
        names::REPORTS,
        names::COMPUTE_REQUESTS,
    ];
    for queue in on_their_way.iter().filter_map(|queue| queues.get(queue.name)) {
        if !queues.is_empty(&queue)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/", post(aws))
        .route("/{account}/{queue}", post(aws))
        .route("/v1/{*path}", any(api_door))
        .route("/webhook/{*path}", any(webhook_door))
        .route("/host/health", get(health))
        .route("/host/down", post(down))
        .with_state(host)
}

async fn whole(body: Body, most: usize) -> Result<Bytes, Response<Body>> {
    match tokio::time::timeout(BODY, to_bytes(body, most)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(front::problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Request.TooLarge",
            &format!("The request is larger than {most} bytes, or broke off."),
        )),
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> Response<Body> {
    front::problem(
        StatusCode::REQUEST_TIMEOUT,
        "Request.TooSlow",
        &format!("The request's body was not there within {} s.", BODY.as_secs()),
    )
}

async fn aws(State(host): State<Arc<Host>>, Extension(guest): Extension<Guest>, request: Request) -> Response<Body> {
    const JSON: &str = "application/x-amz-json-1.0";
    let (parts, body) = request.into_parts();
    // A stranger's body is not read at all.
    let claim = match host.access.claim(&parts.headers) {
        Ok(claim) => claim,
        Err(refused) => return refused.respond(JSON),
    };
    let body = match whole(body, MOST_BYTES).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let caller = match claim.check(&host.access, &parts.method, &parts.uri, &parts.headers, &body) {
        Ok(caller) => caller,
        Err(refused) => return refused.respond(JSON),
    };
    let _served = guest.serve();
    if matches!(caller, Caller::User(_)) {
        host.last_request.store(now(), Ordering::Relaxed);
    }
    let target = parts
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .unwrap_or("");
    let (service, operation) = target.split_once('.').unwrap_or((target, ""));
    // With PFSESSION_LOG=local=trace: what each caller asks for, and so what it would cost.
    tracing::trace!(
        caller = caller.sender(),
        service,
        operation,
        bytes = body.len(),
        "called"
    );
    let answer = |answer: Result<Value, AwsError>| match answer {
        Ok(value) => respond(StatusCode::OK, JSON, value.to_string()),
        Err(error) => error.respond(JSON),
    };
    let response = match service {
        "AmazonSQS" => answer(host.sqs.answer(&caller, operation, &body).await),
        "DynamoDB_20120810" => host.table.answer(&caller, operation, &body),
        "AWSStepFunctions" => answer(host.machine.answer(&caller, operation, &body)),
        _ => AwsError::new(
            "UnknownOperationException",
            format!("This host does not know {target:?}."),
        )
        .respond(JSON),
    };
    if host.faults.strikes("drop-reply").is_some() {
        return Response::new(Body::new(Cut));
    }
    response
}

async fn runtime(
    State(host): State<Arc<Host>>,
    Extension(guest): Extension<Guest>,
    Segments((name, secret, path)): Segments<(String, String, String)>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some(pool) = host.pools.get(&name) else {
        return respond(
            StatusCode::NOT_FOUND,
            "application/json",
            r#"{"errorType":"UnknownFunction"}"#,
        );
    };
    let Some(process) = pool.process(&secret) else {
        return respond(
            StatusCode::FORBIDDEN,
            "application/json",
            r#"{"errorType":"UnknownProcess"}"#,
        );
    };
    let _served = guest.serve();
    match whole(body, MOST_BYTES).await {
        Ok(body) => pool.runtime(process, &parts.method, &path, body).await,
        Err(response) => response,
    }
}

async fn api_door(
    State(host): State<Arc<Host>>,
    Extension(guest): Extension<Guest>,
    request: Request,
) -> Response<Body> {
    front_door(&host, &guest, API, request).await
}

async fn webhook_door(
    State(host): State<Arc<Host>>,
    Extension(guest): Extension<Guest>,
    request: Request,
) -> Response<Body> {
    front_door(&host, &guest, "webhook", request).await
}

async fn front_door(host: &Host, guest: &Guest, function: &str, request: Request) -> Response<Body> {
    host.last_request.store(now(), Ordering::Relaxed);
    let (parts, body) = request.into_parts();
    match whole(body, front::MOST_BYTES).await {
        Ok(body) => {
            let _served = guest.serve();
            front::answer(&host.pools[function], parts, body, &host.address).await
        }
        Err(response) => response,
    }
}

async fn health(State(host): State<Arc<Host>>) -> Response<Body> {
    respond(
        StatusCode::OK,
        "application/json",
        json!({ "pid": std::process::id(), "version": host.version }).to_string(),
    )
}

async fn down(State(host): State<Arc<Host>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    if !front::bearer(&parts).is_some_and(|token| host.issuer.accepts(token, &host.user)) {
        return front::problem(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "This needs the bearer token of this host's user, from host.json.",
        );
    }
    host.closing.send_replace(true);
    respond(
        StatusCode::OK,
        "application/json",
        json!({ "leaving": std::process::id() }).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_is_too_large_is_answered_with_how_large_it_may_be() {
        assert_eq!(
            whole(Body::from("0123456789"), 10).await.expect("it is small enough"),
            "0123456789"
        );
        let said = async |refused: Response<Body>| {
            let status = refused.status().as_u16();
            let said = to_bytes(refused.into_body(), 1000).await.expect("it is short");
            let said: contract::http::Problem = serde_json::from_slice(&said).expect("a problem");
            format!("{status} {}", said.error)
        };
        let refused = whole(Body::from("0123456789x"), 10).await.expect_err("it is too large");
        assert_eq!(
            said(refused).await,
            "413 Request.TooLarge: The request is larger than 10 bytes, or broke off."
        );
        assert_eq!(
            said(too_slow()).await,
            "408 Request.TooSlow: The request's body was not there within 30 s."
        );
    }
}
