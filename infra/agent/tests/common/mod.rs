//! A machine for tests: queues in memory behind SQS's own protocol, and a driver over a state
//! folder.

pub(crate) mod index;
pub(crate) mod provider;
pub(crate) mod tiers;

use agent::AgentCredentials;
use contract::{
    Settings, Slot,
    agent::{AgentCommand, AgentReport, SignedBody, SignedReport},
    command::RunWish,
    driver::{ComputeRequest, DriverReport},
};
use driver::{Answer, Driver, DriverConfig, HostPorts, Platform};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    future::ready,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

/// Everything that was sent, and who waits for it.
#[derive(Default)]
pub(crate) struct World {
    queues: Mutex<HashMap<String, VecDeque<String>>>,
    /// The reports of the driver and of agents, in order of arrival.
    pub(crate) driver_reports: Mutex<Vec<DriverReport>>,
    pub(crate) agent_reports: Mutex<Vec<(SignedReport, SignedBody)>>,
    pub(crate) credentials: Mutex<HashMap<(String, u32), String>>,
    /// Whether leases are renewed.
    pub(crate) silent: Mutex<bool>,
    changed: Condvar,
}

impl World {
    fn notify(&self) {
        let _guard = self.queues.lock().unwrap();
        self.changed.notify_all();
    }

    pub(crate) fn send(&self, queue: &str, body: String) {
        self.queues
            .lock()
            .unwrap()
            .entry(queue.to_owned())
            .or_default()
            .push_back(body);
        self.changed.notify_all();
    }

    pub(crate) fn has_queue(&self, name: &str) -> bool {
        self.queues.lock().unwrap().contains_key(name)
    }

    fn receive(&self, queue: &str, most: Duration) -> Option<String> {
        let until = Instant::now() + most;
        let mut queues = self.queues.lock().unwrap();
        loop {
            if let Some(body) = queues.get_mut(queue).and_then(VecDeque::pop_front) {
                return Some(body);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !queues.contains_key(queue) {
                return None;
            }
            queues = self.changed.wait_timeout(queues, left).unwrap().0;
        }
    }

    /// Waits for the thing.
    pub(crate) fn wait<T>(&self, what: &str, most: Duration, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let until = Instant::now() + most;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            let queues = self.queues.lock().unwrap();
            assert!(
                !left.is_zero(),
                "{what} has not come; agents said {:#?}; the driver said {:#?}",
                self.last_words(),
                self.driver_reports.lock().unwrap()
            );
            drop(
                self.changed
                    .wait_timeout(queues, left.min(Duration::from_millis(5)))
                    .unwrap(),
            );
        }
    }

    fn last_words(&self) -> Vec<AgentReport> {
        let reports = self.agent_reports.lock().unwrap();
        reports
            .iter()
            .rev()
            .take(12)
            .rev()
            .map(|(_, body)| body.report.clone())
            .collect()
    }

    /// Serves SQS on a port of its own.
    pub(crate) fn serve(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let world = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let world = Arc::clone(&world);
                std::thread::spawn(move || world.talk(stream));
            }
        });
        endpoint
    }

    fn talk(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let (mut length, mut target, mut line) = (0, String::new(), String::new());
            loop {
                line.clear();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                let (name, value) = line.trim_end().split_once(':').unwrap_or((line.trim_end(), ""));
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().ok()?,
                    "x-amz-target" => target = value.trim().to_owned(),
                    "" => break,
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let request: Value = serde_json::from_slice(&body).ok()?;
            let queue = request["QueueUrl"]
                .as_str()
                .unwrap_or_default()
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            let answer = match target.trim_start_matches("AmazonSQS.") {
                "SendMessage" => {
                    self.take_report(&queue, request["MessageBody"].as_str().unwrap_or_default());
                    json!({ "MessageId": "1", "MD5OfMessageBody": "" })
                }
                "ReceiveMessage" => {
                    let most = Duration::from_secs(request["WaitTimeSeconds"].as_u64().unwrap_or(0));
                    let messages: Vec<Value> = self
                        .receive(&queue, most)
                        .into_iter()
                        .map(|body| json!({ "MessageId": "1", "ReceiptHandle": "1", "Body": body }))
                        .collect();
                    json!({ "Messages": messages })
                }
                _ => json!({}),
            };
            let answer = answer.to_string();
            write!(
                writer,
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            )
            .ok()?;
        }
    }

    fn take_report(&self, queue: &str, body: &str) {
        assert_eq!(queue, "reports");
        let signed: SignedReport = serde_json::from_str(body).unwrap();
        let body: SignedBody = serde_json::from_str(&signed.body).unwrap();
        if let AgentReport::Alive { nonce, .. } = &body.report
            && !*self.silent.lock().unwrap()
        {
            let command = AgentCommand::Lease { nonce: *nonce };
            self.send(
                &contract::names::agent_queue(&body.flow, body.generation),
                serde_json::to_string(&command).unwrap(),
            );
        }
        self.agent_reports.lock().unwrap().push((signed, body));
        self.notify();
    }
}

impl HostPorts for World {
    fn report(&self, report: DriverReport) -> Answer<'_, ()> {
        self.driver_reports.lock().unwrap().push(report);
        self.notify();
        Box::pin(ready(Ok(())))
    }
    fn issue_agent_credentials(&self, flow: &str, generation: u32) -> Answer<'_, AgentCredentials> {
        let secret_key = format!("secret-of-{flow}-{generation}");
        self.credentials
            .lock()
            .unwrap()
            .insert((flow.to_owned(), generation), secret_key.clone());
        Box::pin(ready(Ok(AgentCredentials {
            access_key: format!("AKIA{generation}"),
            secret_key,
            session_token: None,
        })))
    }
    fn revoke_agent_credentials(&self, flow: &str, generation: u32) {
        self.credentials.lock().unwrap().remove(&(flow.to_owned(), generation));
    }
    fn create_queue(&self, name: &str) -> Answer<'_, ()> {
        self.queues.lock().unwrap().entry(name.to_owned()).or_default();
        Box::pin(ready(Ok(())))
    }
    fn delete_queue(&self, name: &str) -> Answer<'_, ()> {
        self.queues.lock().unwrap().remove(name);
        self.changed.notify_all();
        Box::pin(ready(Ok(())))
    }
}

/// A machine with a driver.
pub(crate) struct Machine {
    pub(crate) world: Arc<World>,
    pub(crate) driver: Arc<Driver>,
    pub(crate) state: PathBuf,
    endpoint: String,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Machine {
    /// On a state folder whose environments outlive the test, as they take a while to build.
    pub(crate) fn new(state: &Path) -> Self {
        let world = Arc::new(World::default());
        let endpoint = world.serve();
        // Not of the current thread: a real host goes on while a test waits.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let driver = open(state, &world, &endpoint);
        runtime.block_on(driver.recover());
        Self {
            world,
            driver,
            state: state.to_owned(),
            endpoint,
            runtime,
        }
    }

    /// As if the host had been killed and started again: nothing is told to the old driver, which
    /// hears of nothing any more.
    pub(crate) fn restart_host(&mut self) {
        self.driver = open(&self.state, &self.world, &self.endpoint);
        let old = std::mem::replace(
            &mut self.runtime,
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
        );
        old.shutdown_background();
    }

    pub(crate) fn ask(&self, request: ComputeRequest) {
        self.runtime.block_on(self.driver.handle(request)).unwrap();
    }

    pub(crate) fn create_compute(&self, compute: &str) {
        let slot = Slot {
            workspace: "local".into(),
            owner: "me".into(),
            size: "local".into(),
            identity: None,
            instance: None,
        };
        self.ask(ComputeRequest::create(compute.into(), slot));
    }

    pub(crate) fn launch_request(flow: &str, generation: u32, compute: &str, folder: &Path) -> ComputeRequest {
        let until = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64
            + 60_000;
        ComputeRequest::LaunchSession {
            flow: flow.into(),
            owner: "me".into(),
            workspace: "local".into(),
            generation,
            compute: compute.into(),
            settings: settings(folder),
            room: None,
            until,
        }
    }

    /// Launches a session, and gives back its key.
    pub(crate) fn launch(&self, flow: &str, generation: u32, folder: &Path) -> String {
        self.create_compute("c1");
        self.ask(Self::launch_request(flow, generation, "c1", folder));
        self.world.wait("session-up", Duration::from_secs(10), |world| {
            world
                .driver_reports
                .lock()
                .unwrap()
                .iter()
                .find_map(|report| match report {
                    DriverReport::SessionUp {
                        flow: f,
                        generation: g,
                        key,
                    } if f == flow && *g == generation => Some(key.clone()),
                    _ => None,
                })
        })
    }

    pub(crate) fn tell(&self, flow: &str, generation: u32, command: &AgentCommand) {
        self.world.send(
            &contract::names::agent_queue(flow, generation),
            serde_json::to_string(command).unwrap(),
        );
    }

    /// The first report of this session that is wanted.
    pub(crate) fn report<T>(
        &self,
        what: &str,
        most: Duration,
        flow: &str,
        generation: u32,
        mut want: impl FnMut(&AgentReport) -> Option<T>,
    ) -> T {
        self.world.wait(what, most, |world| {
            let reports = world.agent_reports.lock().unwrap();
            let mut mine = reports
                .iter()
                .filter(|(_, body)| body.flow == flow && body.generation == generation);
            mine.find_map(|(_, body)| want(&body.report))
        })
    }

    /// Installs, and gives back the failure if there is one.
    pub(crate) fn install(
        &self,
        flow: &str,
        generation: u32,
        operation: &str,
        folder: &Path,
    ) -> Option<contract::Failure> {
        let command = AgentCommand::Install {
            operation: operation.into(),
            attempt: 1,
            settings: settings(folder),
            lock: None,
            resolve: false,
        };
        self.tell(flow, generation, &command);
        self.ended_install(flow, generation, operation)
    }

    /// The failure of an install, if there is one, at its end.
    pub(crate) fn ended_install(&self, flow: &str, generation: u32, operation: &str) -> Option<contract::Failure> {
        self.report(
            "installed",
            Duration::from_secs(300),
            flow,
            generation,
            |report| match report {
                AgentReport::Installed { operation: o, .. } if o == operation => Some(None),
                AgentReport::InstallFailed {
                    operation: o, failure, ..
                } if o == operation => Some(Some(failure.clone())),
                _ => None,
            },
        )
    }

    pub(crate) fn begin_run(&self, flow: &str, generation: u32, run: &str, folder: &Path, wish: RunWish) {
        self.tell(
            flow,
            generation,
            &AgentCommand::Run {
                run: run.into(),
                settings: settings(folder),
                wish,
            },
        );
    }

    pub(crate) fn ended_run(&self, flow: &str, generation: u32, run: &str) -> contract::agent::RunResult {
        self.report(
            "run-done",
            Duration::from_secs(300),
            flow,
            generation,
            |report| match report {
                AgentReport::RunDone { run: r, result, .. } if r == run => Some(result.clone()),
                _ => None,
            },
        )
    }

    pub(crate) fn run(
        &self,
        flow: &str,
        generation: u32,
        run: &str,
        folder: &Path,
        wish: RunWish,
    ) -> contract::agent::RunResult {
        self.begin_run(flow, generation, run, folder, wish);
        self.ended_run(flow, generation, run)
    }

    /// Starts a session to where it takes runs.
    pub(crate) fn start(&self, flow: &str, generation: u32, folder: &Path) {
        self.launch(flow, generation, folder);
        let failure = self.install(flow, generation, &format!("install-{generation}"), folder);
        assert_eq!(failure, None);
    }

    pub(crate) fn remove(&self, flow: &str, generation: u32) {
        self.ask(ComputeRequest::RemoveSession {
            flow: flow.into(),
            generation,
            compute: None,
        });
    }

    pub(crate) fn gone(&self, flow: &str, generation: u32) -> Option<contract::Failure> {
        self.world.wait("session-gone", Duration::from_secs(20), |world| {
            world
                .driver_reports
                .lock()
                .unwrap()
                .iter()
                .find_map(|report| match report {
                    DriverReport::SessionGone {
                        flow: f,
                        generation: g,
                        failure,
                    } if f == flow && *g == generation => Some(failure.clone()),
                    _ => None,
                })
        })
    }

    /// The agents' reports on an operation or a run.
    pub(crate) fn output(&self, of: &str) -> String {
        let reports = self.world.agent_reports.lock().unwrap();
        let mut lines = Vec::new();
        for (_, body) in reports.iter() {
            if let AgentReport::Output { of: o, lines: more } = &body.report
                && o == of
            {
                lines.extend(more.iter().map(|line| line.text.clone()));
            }
        }
        lines.join("\n")
    }
}

fn open(state: &Path, world: &Arc<World>, endpoint: &str) -> Arc<Driver> {
    let config = DriverConfig {
        state: state.to_owned(),
        executable: std::env::current_exe().unwrap(),
        endpoint: Some(endpoint.to_owned()),
        region: "local".into(),
        reports_queue_url: format!("{endpoint}/reports"),
        agent_queue_prefix: format!("{endpoint}/"),
        has_snapshots: false,
        service: None,
        ports: Arc::clone(world) as Arc<dyn HostPorts>,
    };
    Driver::open(Platform::Machine, config).unwrap()
}

pub(crate) fn settings(folder: &Path) -> Settings {
    Settings::new(folder.display().to_string())
}

/// A state folder of its own that shares the environments of all tests.
pub(crate) fn state() -> PathBuf {
    if let Some(own) = std::env::var_os("TEST_STATE") {
        return own.into();
    }
    let target = std::env::var_os("CARGO_TARGET_TMPDIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp"));
    let state = target.join("agent-state");
    std::fs::create_dir_all(&state).unwrap();
    let state = std::fs::canonicalize(state).unwrap();
    // One process at a time: a driver ends what it does not know.
    static ALONE: std::sync::OnceLock<std::fs::File> = std::sync::OnceLock::new();
    ALONE.get_or_init(|| {
        let file = std::fs::File::create(state.join("alone")).unwrap();
        file.lock().unwrap();
        file
    });
    state
}

/// Writes a flow.
pub(crate) fn flow(folder: &Path, files: &[(&str, &str)]) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder.to_owned()
}

pub(crate) const DAG: [(&str, &str); 2] = [
    (
        "flow.dag.yaml",
        "inputs:\n  name:\n    type: string\n    default: world\noutputs:\n  greeting:\n    type: string\n    reference: ${greet.output}\nnodes:\n\
         - name: greet\n  type: python\n  source:\n    type: code\n    path: greet.py\n  inputs:\n    name: ${inputs.name}\n",
    ),
    (
        "greet.py",
        "from promptflow.core import tool\n\n@tool\ndef greet(name: str) -> str:\n    return f'Hello, {name}!'\n",
    ),
];
