//! The functions: processes that speak the Lambda runtime API with the host, kept in pools, and fed
//! from their queues.
//!
//! A process asks for its next invocation and is idle until there is one. Each has a secret in the
//! address of its runtime API, so that no process can answer for another.
//!
//! `lambda_runtime` connects by TCP alone, and a port belongs to the first process that binds it.
//! So each process has the listener itself as its standard input: while one lives, nobody else can
//! bind that port and be taken for the host. A bridge from a socket in each process would cost a
//! copy of every byte; an own loop over the runtime API would be another program than the one that
//! is deployed.

mod feed;
mod process;

pub(crate) use feed::feed;
pub(crate) use process::program_of;

use crate::{
    faults::Faults,
    queues::{Queue, Queues},
    sqs::{ACCOUNT, REGION},
    store::{now, random_hex},
    wire::{Cut, respond},
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, Response, StatusCode},
};
use contract::Code;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs, io,
    net::TcpListener,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// The longest time that one process more than the first may be idle.
const IDLE: Duration = Duration::from_secs(60);
/// The time that work waits for a busy process before another is started.
const BUSY_WAIT: Duration = Duration::from_millis(25);
/// The longest pause before a process that keeps ending is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A log larger than this is put aside.
const LARGEST_LOG: u64 = 4 << 20;
/// The longest time that a message which failed stays away, in milliseconds.
const LONGEST_BACKOFF: i64 = 30_000;

/// The plan of a pool of processes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) timeout: Duration,
    pub(crate) most: usize,
    /// The number kept ready beside those that work: for functions with a person waiting.
    pub(crate) spare: usize,
    pub(crate) log: PathBuf,
    pub(crate) runtime_api: RuntimeApi,
}

/// The listener of the Lambda runtime API.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeApi(Arc<TcpListener>);

impl RuntimeApi {
    pub(crate) fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self(Arc::new(listener)))
    }

    /// The end that takes connections.
    pub(crate) fn accepting(&self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.0.try_clone()?)
    }
}

/// The failure of an invocation.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("the function says: {0}")]
    Failed(String),
    #[error("its process has ended")]
    Crashed,
    #[error("none of its processes was free in time")]
    NoProcess,
    #[error("it has not answered in time")]
    TimedOut,
    #[error("the host is leaving")]
    Closing,
}

struct Invocation {
    id: String,
    deadline: i64,
    payload: Bytes,
    /// The tracing header that it came with.
    trace: Option<String>,
}

/// An invocation's id, and who waits for its answer.
type UnderWay = (String, oneshot::Sender<Result<Bytes, Unanswered>>);

/// A process of a function.
pub(crate) struct Process {
    secret: String,
    /// While it lives and nobody has waited for it.
    pid: Mutex<Option<i32>>,
    current: Mutex<Option<UnderWay>>,
    killed: AtomicBool,
}

impl Process {
    fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        if let Some(pid) = *lock(&self.pid) {
            // SAFETY: a signal; the process has not been waited for while the lock is held, so the
            // id is its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    fn end(&self, outcome: Result<Bytes, Unanswered>) {
        if let Some((_, waiting)) = lock(&self.current).take() {
            let _ = waiting.send(outcome);
        }
    }
}

/// A process that waits for an invocation.
struct Idle {
    process: Arc<Process>,
    hand_over: oneshot::Sender<Invocation>,
    since: Instant,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    waiting: VecDeque<oneshot::Sender<Idle>>,
    /// By secret.
    processes: HashMap<String, Arc<Process>>,
    /// Those that have not asked for their first invocation.
    starting: HashSet<String>,
    /// The number in a row that ended without an answer.
    crashes: u32,
    closed: bool,
}

/// The processes of a function.
pub(crate) struct Pool {
    plan: Plan,
    faults: Arc<Faults>,
    state: Mutex<State>,
    runtime: tokio::runtime::Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(crate) fn start(plan: Plan, faults: Arc<Faults>) -> Arc<Self> {
        let state = Mutex::default();
        let pool = Arc::new(Self {
            plan,
            faults,
            state,
            runtime: tokio::runtime::Handle::current(),
        });
        for _ in 0..=pool.plan.spare {
            pool.start_process();
        }
        pool
    }

    pub(crate) fn name(&self) -> &str {
        &self.plan.name
    }

    /// Ends all processes, and starts no more.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.waiting.clear();
        state.idle.clear();
        for process in state.processes.values() {
            process.kill();
        }
    }

    /// Starts one process more, if there may be one. It has a thread of its own, because it is to
    /// die with the thread that made it.
    fn start_process(self: &Arc<Self>) {
        let process = Arc::new(Process {
            secret: random_hex::<16>(),
            pid: Mutex::new(None),
            current: Mutex::new(None),
            killed: AtomicBool::new(false),
        });
        {
            let mut state = lock(&self.state);
            if state.closed || state.processes.len() >= self.plan.most {
                return;
            }
            state.processes.insert(process.secret.clone(), process.clone());
            state.starting.insert(process.secret.clone());
        }
        let pool = self.clone();
        let made = thread::Builder::new()
            .name(self.plan.name.clone())
            .stack_size(128 << 10)
            .spawn({
                let process = process.clone();
                move || {
                    let ended = pool.run_to_its_end(&process);
                    pool.process_ended(&process, ended);
                }
            });
        if let Err(cause) = made {
            self.process_ended(&process, Err(cause));
        }
    }

    fn process_ended(self: &Arc<Self>, process: &Arc<Process>, ended: io::Result<String>) {
        process.end(Err(Unanswered::Crashed));
        let pause = {
            let mut state = lock(&self.state);
            state.processes.remove(&process.secret);
            state.starting.remove(&process.secret);
            state.idle.retain(|idle| idle.process.secret != process.secret);
            if state.closed || state.processes.len() > self.plan.spare {
                return;
            }
            let pause = Duration::from_millis(10) * 2u32.saturating_pow(state.crashes.min(16));
            state.crashes += 1;
            pause.min(LONGEST_PAUSE)
        };
        let ended = ended.unwrap_or_else(|cause| format!("it could not be started: {cause}"));
        tracing::warn!(
            function = self.plan.name,
            ended,
            again_in = pause.as_millis(),
            log = %self.plan.log.display(),
            "a function's process has ended"
        );
        let pool = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            pool.start_process();
        });
    }

    /// A process for one invocation: the one that was used last, of those that are idle.
    async fn idle(self: &Arc<Self>) -> Result<Idle, Unanswered> {
        let (give, get) = oneshot::channel();
        let (found, start) = {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(Unanswered::Closing);
            }
            let mut found = None;
            while let Some(idle) = state.idle.pop() {
                if !idle.hand_over.is_closed() {
                    found = Some(idle);
                    break;
                }
            }
            if found.is_none() {
                state.waiting.push_back(give);
            }
            let ready = state.idle.len() + state.starting.len();
            (
                found,
                self.plan.spare > 0 && ready < self.plan.spare + state.waiting.len(),
            )
        };
        if start {
            self.start_process();
        }
        match found {
            Some(idle) => Ok(idle),
            None => get.await.map_err(|_| Unanswered::Closing),
        }
    }

    /// The same for work that waits in a queue: another process is started when all are busy for
    /// some time and there is work.
    async fn idle_for_queue(self: &Arc<Self>, queues: &Queues, queue: &Queue) -> Result<Idle, Unanswered> {
        let mut idle = std::pin::pin!(self.idle());
        loop {
            match tokio::time::timeout(BUSY_WAIT, idle.as_mut()).await {
                Ok(idle) => return idle,
                Err(_) => {
                    let state = lock(&self.state);
                    // One that is coming will do; and more of what keeps ending would help nobody.
                    let others = state.starting.is_empty() && state.crashes == 0;
                    drop(state);
                    if others && queues.has_some(queue).unwrap_or(false) {
                        self.start_process();
                    }
                }
            }
        }
    }

    /// Has a payload answered by a process.
    async fn invoke_on(&self, idle: Idle, payload: Bytes, trace: Option<String>) -> Result<Bytes, Unanswered> {
        let Idle { process, hand_over, .. } = idle;
        let (answer, answered) = oneshot::channel();
        let id = random_hex::<16>();
        *lock(&process.current) = Some((id.clone(), answer));
        let deadline = now() + i64::try_from(self.plan.timeout.as_millis()).unwrap_or(0);
        let invocation = Invocation {
            id,
            deadline,
            payload,
            trace,
        };
        if hand_over.send(invocation).is_err() {
            lock(&process.current).take();
            return Err(Unanswered::Crashed);
        }
        self.faults.pass("function.invoked");
        if let Some(dice) = self.faults.strikes("kill-function")
            && dice % 3 == 0
        {
            let process = process.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(dice / 3 % 20)).await;
                process.kill();
            });
        }
        match tokio::time::timeout(self.plan.timeout, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Unanswered::Crashed),
            Err(_) => {
                tracing::warn!(
                    function = self.plan.name,
                    fault = Code::FunctionTimedOut.as_str(),
                    "killed, because it has not answered in time"
                );
                process.kill();
                Err(Unanswered::TimedOut)
            }
        }
    }

    /// Has a payload answered, starting processes as they are needed: for who has a person waiting.
    pub(crate) async fn invoke(self: &Arc<Self>, payload: Bytes, trace: Option<String>) -> Result<Bytes, Unanswered> {
        let idle = tokio::time::timeout(self.plan.timeout, self.idle())
            .await
            .unwrap_or(Err(Unanswered::NoProcess))?;
        self.invoke_on(idle, payload, trace).await
    }

    /// Ends processes that nobody needed for some time, and puts a large log aside.
    pub(crate) fn tidy(&self) {
        let retired: Vec<_> = {
            let mut state = lock(&self.state);
            let mut too_many = state.processes.len().saturating_sub(1 + self.plan.spare);
            let mut retired = Vec::new();
            // The first of the list has been idle for longest.
            while too_many > 0 && state.idle.first().is_some_and(|idle| idle.since.elapsed() > IDLE) {
                retired.push(state.idle.remove(0).process);
                too_many -= 1;
            }
            retired
        };
        retired.iter().for_each(|process| process.kill());
        if fs::metadata(&self.plan.log).is_ok_and(|log| log.len() > LARGEST_LOG) {
            // Processes hold the file open and append: it is copied and emptied, not moved.
            let put_aside = fs::copy(&self.plan.log, self.plan.log.with_extension("log.old"))
                .and_then(|_| fs::OpenOptions::new().write(true).truncate(true).open(&self.plan.log));
            if let Err(cause) = put_aside {
                tracing::warn!(fault = "Log", cause = %cause, log = %self.plan.log.display(), "a large log stays");
            }
        }
    }

    /// The process with this secret.
    pub(crate) fn process(&self, secret: &str) -> Option<Arc<Process>> {
        lock(&self.state).processes.get(secret).cloned()
    }

    /// Answers a process over the runtime API. `path` is what follows its secret.
    pub(crate) async fn runtime(
        self: &Arc<Self>,
        process: Arc<Process>,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Response<Body> {
        let path = path.strip_prefix("2018-06-01/runtime/").unwrap_or_default();
        match (method, path.split('/').collect::<Vec<_>>().as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next(process).await,
            (&Method::POST, ["invocation", id, "response"]) => self.take_answer(&process, id, Ok(body)),
            (&Method::POST, ["invocation", id, "error"]) => {
                let error = String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
                self.take_answer(&process, id, Err(Unanswered::Failed(error)))
            }
            (&Method::POST, ["init", "error"]) => {
                let error = String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
                tracing::error!(
                    function = self.plan.name,
                    fault = Code::FunctionInit.as_str(),
                    cause = error,
                    "a function does not start"
                );
                accepted_response()
            }
            _ => respond(
                StatusCode::NOT_FOUND,
                "application/json",
                r#"{"errorType":"NoSuchRoute"}"#,
            ),
        }
    }

    async fn next(self: &Arc<Self>, process: Arc<Process>) -> Response<Body> {
        // It has asked for more without an answer to what it had.
        process.end(Err(Unanswered::Crashed));
        lock(&self.state).starting.remove(&process.secret);
        // Its taker may have gone before it had anything to do.
        while !process.killed.load(Ordering::Acquire) {
            let (hand_over, handed) = oneshot::channel();
            self.offer(Idle {
                process: process.clone(),
                hand_over,
                since: Instant::now(),
            });
            let Ok(invocation) = handed.await else { continue };
            let mut response = respond(StatusCode::OK, "application/json", invocation.payload);
            let headers = response.headers_mut();
            let mut set = |name: &'static str, value: &str| {
                if let Ok(value) = HeaderValue::from_str(value) {
                    headers.insert(name, value);
                }
            };
            set("lambda-runtime-aws-request-id", &invocation.id);
            set("lambda-runtime-deadline-ms", &invocation.deadline.to_string());
            set(
                "lambda-runtime-invoked-function-arn",
                &format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{}", self.plan.name),
            );
            if let Some(trace) = &invocation.trace {
                set("lambda-runtime-trace-id", trace);
            }
            return response;
        }
        Response::new(Body::new(Cut))
    }

    /// Gives a process to the longest waiter, or keeps it ready.
    fn offer(&self, mut idle: Idle) {
        let mut state = lock(&self.state);
        if state.closed {
            return idle.process.kill();
        }
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.send(idle) {
                Ok(()) => return,
                Err(unsent) => idle = unsent,
            }
        }
        state.idle.push(idle);
    }

    fn take_answer(&self, process: &Process, id: &str, outcome: Result<Bytes, Unanswered>) -> Response<Body> {
        let strikes = self.faults.strikes("kill-function");
        if strikes.is_some_and(|dice| dice % 2 == 0) {
            process.kill();
            return Response::new(Body::new(Cut));
        }
        let mut current = lock(&process.current);
        match current.take() {
            Some((expected, waiting)) if expected == id => {
                drop(current);
                let _ = waiting.send(outcome);
                lock(&self.state).crashes = 0;
                self.faults.pass("function.responded");
                if strikes.is_some() {
                    process.kill();
                }
                accepted_response()
            }
            other => {
                *current = other;
                respond(
                    StatusCode::BAD_REQUEST,
                    "application/json",
                    r#"{"errorType":"InvalidRequestID"}"#,
                )
            }
        }
    }
}

fn accepted_response() -> Response<Body> {
    respond(StatusCode::ACCEPTED, "application/json", r#"{"status":"OK"}"#)
}
