//! A machine of its own for each test: a state folder, the released `pfsession` binary, and a
//! client of the HTTP front.
//!
//! Nothing here looks into the host: what the tests know, they know as a user does, or from
//! `/proc`.

use contract::{
    FlowRef, Phase,
    command::{RunWish, Wanted},
    http::{Problem, SessionView, Sessions},
    notice::Notice,
    row::{OperationRow, OperationStatus, RunRow},
    snapshot::{Offer, Place, Upload},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, ErrorKind},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// The workspace's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace is there")
}

/// A flow of `tests/flows`.
pub fn flow(name: &str) -> PathBuf {
    root().join("tests/flows").join(name)
}

/// The folder that the binaries of this profile are in.
fn binaries() -> PathBuf {
    let own = std::env::current_exe().expect("a process has a binary");
    own.ancestors()
        .find(|folder| folder.ends_with("debug") || folder.ends_with("release"))
        .expect("cargo built this")
        .to_owned()
}

/// The `pfsession` binary, as it is built from what is there now, in the profile of this test.
pub fn pfsession() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built().join("pfsession"))
}

/// The folder with the Lambda binaries, likewise.
pub fn lambdas() -> &'static Path {
    built()
}

fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.arg("build").current_dir(root());
        // What cargo says to a test about itself is not for the build: build scripts (ring's) run
        // again when it differs, and then all above them.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_") && name != "CARGO_TARGET_DIR" && name != "CARGO_HOME" {
                cargo.env_remove(name);
            }
        }
        if binaries().ends_with("release") {
            // As a user builds it.
            cargo.args(["--release", "-p", "pfsession"]);
        } else {
            // Everything, so that features are what `cargo test --workspace` has made them, and
            // nothing is built twice.
            cargo.args(["--workspace", "--all-targets"]);
        }
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "the binaries under test are built");
        binaries()
    })
}

/// One machine: a state folder that nothing else uses, and whatever runs on it. Dropping it ends
/// all of that.
pub struct Machine {
    folder: tempfile::TempDir,
    /// Variables for the host.
    pub variables: Vec<(String, String)>,
    /// Whether a host has died here.
    died: AtomicBool,
}

#[derive(Deserialize)]
struct HostFile {
    pid: i32,
    endpoint: String,
    token: String,
    user: String,
    region: String,
    access_key_id: String,
    secret_access_key: String,
    commands_queue_url: String,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// A machine with an empty state folder, but for the environments, which all machines of this
    /// build share: they are read-only.
    pub fn new() -> Self {
        Self::sharing(Self::bare())
    }

    fn sharing(mut machine: Self) -> Self {
        let shared = binaries().join("test-store");
        fs::create_dir_all(&shared).expect("the shared store is made");
        machine
            .variables
            .push(("PFSESSION_STORE".to_owned(), shared.display().to_string()));
        machine
    }

    /// A machine on which nothing was ever done.
    pub fn bare() -> Self {
        Self::at("pfs-")
    }

    /// The same, whose state folder's name begins with `prefix`, and with the environments that all
    /// share.
    pub fn named(prefix: &str) -> Self {
        Self::sharing(Self::at(prefix))
    }

    fn at(prefix: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .expect("there is room for a state folder");
        Self {
            folder,
            variables: Vec::new(),
            died: AtomicBool::new(false),
        }
    }

    pub fn state(&self) -> &Path {
        self.folder.path()
    }

    /// The command line, on this machine.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(pfsession());
        let variables = self.variables.iter().filter(|(name, value)| {
            // A plan kills one host. Each later one would die at the same point, and none would get
            // further.
            name != "PFSESSION_FAULTS" || !self.died.load(Ordering::Relaxed) || !value.contains("kill-host")
        });
        command
            .args(arguments)
            .env("PFSESSION_STATE", self.state())
            .envs(variables.cloned());
        command
            .env_remove("PFSESSION_ENDPOINT")
            .env_remove("PFSESSION_TOKEN")
            .stdin(Stdio::null());
        command
    }

    /// Runs the command line to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("pfsession runs")
    }

    /// Runs the command line to its end, which must be a success.
    ///
    /// # Panics
    ///
    /// With what it said, if it is none.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "pfsession {arguments:?} ended with {}\n{}\n{}\nhost: {}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.host_log()
        );
        String::from_utf8(output.stdout).expect("it says text")
    }

    /// The end of the host's log.
    pub fn host_log(&self) -> String {
        let log = fs::read_to_string(self.state().join("log/host.log")).unwrap_or_default();
        log.lines()
            .rev()
            .take(30)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn host(&self) -> Option<HostFile> {
        serde_json::from_slice(&fs::read(self.state().join("host.json")).ok()?).ok()
    }

    /// The host's process, if it runs.
    pub fn host_pid(&self) -> Option<i32> {
        self.host()
            .map(|host| host.pid)
            .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
    }

    /// Ends the host at once, as a power cut does.
    pub fn kill_host(&self) {
        if let Some(pid) = self.host_pid() {
            kill(pid);
            wait_for("the host's end", Duration::from_secs(10), || {
                (!is_running(pid)).then_some(())
            });
        }
    }

    /// Starts the host, or finds it.
    pub fn up(&self) {
        self.succeed(&["up"]);
    }

    /// Starts the host, or finds it, on a machine where it may die at any moment: tries until it is
    /// there.
    pub fn up_again(&self) {
        if self.state().join("host.json").exists() && self.host_pid().is_none() {
            self.died.store(true, Ordering::Relaxed);
        }
        wait_for("the host", Duration::from_secs(60), || {
            self.run(&["up"]).status.success().then_some(())
        });
    }

    /// Whether a host of this machine has died and was started again.
    pub fn host_has_died(&self) -> bool {
        self.died.load(Ordering::Relaxed)
    }

    /// The variables that any AWS tool needs to speak to this machine's host.
    pub fn aws_variables(&self) -> Vec<(String, String)> {
        let host = self.host().expect("the host is up");
        [
            ("AWS_ENDPOINT_URL", host.endpoint),
            ("AWS_REGION", host.region.clone()),
            ("AWS_DEFAULT_REGION", host.region),
            ("AWS_ACCESS_KEY_ID", host.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", host.secret_access_key),
            ("PFSESSION_COMMANDS_URL", host.commands_queue_url),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// The HTTP front, as this machine's user.
    pub fn api(&self) -> Api {
        let host = self.host().expect("the host is up");
        Api::new(&host.endpoint, &host.token, &host.user)
    }

    /// The processes that belong to this machine's state folder, by their command lines and their
    /// open roots.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let state = self.state().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("there is /proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let part = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let command = String::from_utf8_lossy(&part("cmdline")).replace('\0', " ");
            let named = command.contains(&state) || String::from_utf8_lossy(&part("environ")).contains(&state);
            let open = || {
                let files = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
                files
                    .filter_map(|file| fs::read_link(file.path()).ok())
                    .any(|file| file.starts_with(self.state()))
            };
            let mounted = String::from_utf8_lossy(&part("mountinfo")).contains(&state);
            if pid != std::process::id() as i32 && (named || mounted || open()) && is_running(pid) {
                found.push((pid, command));
            }
        }
        found
    }

    /// The rest of sessions: processes that are not the host or its functions, session and compute
    /// folders.
    pub fn leftovers(&self) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        for (pid, command) in self.processes() {
            // The host and its functions stay. So does the warm process, which sessions share: what
            // is forked from it for a session has its name, but sees the session's folder.
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            let of_session = mounts.contains(&self.state().join("sessions/").display().to_string());
            let stays = [" host ", " function ", " warm "]
                .iter()
                .any(|word| command.contains(word))
                || waits_for_a_session(pid, &command);
            if of_session || !stays {
                left.insert(format!("process {pid}: {command}"));
            }
        }
        for kind in ["computes", "sessions", "gone"] {
            for entry in fs::read_dir(self.state().join(kind)).into_iter().flatten().flatten() {
                // A session's folder keeps the highest generation that was removed, and nothing
                // else.
                let inside: Vec<_> = fs::read_dir(entry.path())
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.file_name())
                    .collect();
                if kind != "sessions" || inside.iter().any(|name| name != "removed") {
                    left.insert(format!("{}: {inside:?}", entry.path().display()));
                }
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&self.state().display().to_string()))
                .map(str::to_owned),
        );
        left
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_host();
        for (pid, _) in self.processes() {
            kill(pid);
        }
        // What a run wrote may be read-only.
        let _ = Command::new("chmod")
            .args(["-R", "u+w"])
            .arg(self.state())
            .stderr(Stdio::null())
            .status();
    }
}

/// Whether it is an agent that has been told of no session yet: one that has writes to a log of
/// that session's.
fn waits_for_a_session(pid: i32, command: &str) -> bool {
    let log = fs::read_link(format!("/proc/{pid}/fd/2")).unwrap_or_default();
    command.ends_with(" agent ") && !log.display().to_string().contains("/logs/agent-")
}

/// Ends a process at once.
pub fn kill(pid: i32) {
    let _ = Command::new("kill")
        .args(["-9", &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; whoever made it has not looked yet.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The model provider of `tests/provider.py`, which ends with its holder.
pub struct Provider {
    process: std::process::Child,
    pub address: String,
}

impl Provider {
    /// Starts one that takes this key.
    pub fn start(key: &str) -> Self {
        let mut process = Command::new("python3")
            .arg(root().join("tests/provider.py"))
            .arg(key)
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a Python");
        let mut said = BufReader::new(process.stdout.take().expect("its output is a pipe"));
        let mut address = String::new();
        said.read_line(&mut address).expect("it says its address");
        // It says each request, too.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let address = address.trim_end().to_owned();
        Self { process, address }
    }

    /// Its host and port.
    pub fn host(&self) -> &str {
        self.address.trim_start_matches("http://")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the regular files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

/// Waits until `seen` gives something.
///
/// # Panics
///
/// When the time has passed: the promise under test is broken.
pub fn wait_for<T>(what: &str, at_most: Duration, mut seen: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + at_most;
    loop {
        if let Some(value) = seen() {
            return value;
        }
        assert!(Instant::now() < until, "{what} did not come within {at_most:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The next connection, which has to come within a time: a test that waits for ever ends no run of
/// the tests.
pub fn accept(listener: &TcpListener, what: &str) -> TcpStream {
    listener.set_nonblocking(true).expect("a listener may be asked");
    let (connected, _) = wait_for(what, Duration::from_secs(120), || match listener.accept() {
        Err(e) if e.kind() == ErrorKind::WouldBlock => None,
        accepted => Some(accepted.expect("a connection")),
    });
    listener.set_nonblocking(false).expect("a listener may be waited for");
    connected
        .set_nonblocking(false)
        .expect("a connection may be waited for");
    connected
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    config.timeout_global(Some(Duration::from_secs(40))).build().into()
}

/// The HTTP front, as one user.
pub struct Api {
    pub endpoint: String,
    pub token: String,
    pub user: String,
    agent: ureq::Agent,
}

impl Api {
    /// The front at this address, as the user of this token.
    pub fn new(endpoint: &str, token: &str, user: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            token: token.to_owned(),
            user: user.to_owned(),
            agent: agent(),
        }
    }

    /// The flow of a folder, as the command line names it.
    pub fn flow(&self, folder: &Path) -> FlowRef {
        FlowRef {
            workspace: "local".to_owned(),
            owner: self.user.clone(),
            lineage: folder.display().to_string(),
        }
    }

    /// Reads.
    ///
    /// # Errors
    ///
    /// The status and the problem, or 0 if nobody answered.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, (u16, String)> {
        let request = self
            .agent
            .get(format!("{}{path}", self.endpoint))
            .header("authorization", format!("Bearer {}", self.token));
        read(request.call())
    }

    /// Sends a command.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn send(&self, command: &serde_json::Value) -> Result<contract::http::Accepted, (u16, String)> {
        let request = self
            .agent
            .post(format!("{}/v1/commands", self.endpoint))
            .header("authorization", format!("Bearer {}", self.token));
        read(request.send_json(command))
    }

    /// As [`Self::send`], as a part of a trace.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn send_traced(
        &self,
        command: &serde_json::Value,
        trace: &str,
    ) -> Result<contract::http::Accepted, (u16, String)> {
        let request = self
            .agent
            .post(format!("{}/v1/commands", self.endpoint))
            .header("authorization", format!("Bearer {}", self.token))
            .header("x-amzn-trace-id", trace);
        read(request.send_json(command))
    }

    /// Replaces what is at this path.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn put<T: Serialize + DeserializeOwned>(&self, path: &str, what: &T) -> Result<T, (u16, String)> {
        let request = self
            .agent
            .put(format!("{}{path}", self.endpoint))
            .header("authorization", format!("Bearer {}", self.token));
        read(request.send_json(what))
    }

    /// Removes what is at this path.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, (u16, String)> {
        let request = self
            .agent
            .delete(format!("{}{path}", self.endpoint))
            .header("authorization", format!("Bearer {}", self.token));
        read(request.call())
    }

    /// Offers something of a flow to a service that does not see this machine.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn offer(&self, offer: &Offer) -> Result<Place, (u16, String)> {
        let request = self
            .agent
            .post(format!("{}/v1/snapshots", self.endpoint))
            .header("authorization", format!("Bearer {}", self.token));
        read(request.send_json(offer))
    }

    /// Sends it; gives back the store's answer.
    pub fn upload(&self, upload: &Upload, bytes: &[u8]) -> u16 {
        let mut request = self.agent.put(&upload.url);
        for (name, value) in &upload.headers {
            request = request.header(name, value);
        }
        request.send(bytes).map_or(0, |answer| answer.status().as_u16())
    }

    pub fn start(&self, id: &str, folder: &Path) -> Result<contract::http::Accepted, (u16, String)> {
        self.send(&serde_json::json!({ "id": id, "flow": self.flow(folder), "command": "start", "settings": Wanted::default() }))
    }

    pub fn stop(&self, id: &str, folder: &Path) -> Result<contract::http::Accepted, (u16, String)> {
        self.send(&serde_json::json!({ "id": id, "flow": self.flow(folder), "command": "stop" }))
    }

    pub fn run(&self, id: &str, folder: &Path, run: &RunWish) -> Result<contract::http::Accepted, (u16, String)> {
        let settings = Wanted::default();
        self.send(&serde_json::json!({ "id": id, "flow": self.flow(folder), "command": "run", "settings": settings, "run": run }))
    }

    /// Waits for an operation's end.
    pub fn operation(&self, id: &str, at_most: Duration) -> OperationRow {
        wait_for(&format!("the end of {id}"), at_most, || {
            let row: OperationRow = self.get(&format!("/v1/operations/{id}?wait=10000")).ok()?;
            (row.status != OperationStatus::InProgress && row.status != OperationStatus::Joined).then_some(row)
        })
    }

    /// Waits for a run's end.
    pub fn run_row(&self, id: &str, at_most: Duration) -> RunRow {
        wait_for(&format!("the end of {id}"), at_most, || {
            let row: RunRow = self.get(&format!("/v1/runs/{id}?wait=10000")).ok()?;
            row.status.is_final().then_some(row)
        })
    }

    pub fn session(&self, folder: &Path) -> Option<SessionView> {
        self.get(&format!("/v1/sessions/{}", self.flow(folder).key())).ok()
    }

    pub fn phase(&self, folder: &Path) -> Option<Phase> {
        self.session(folder).map(|session| session.phase)
    }

    pub fn sessions(&self) -> Vec<SessionView> {
        self.get::<Sessions>("/v1/sessions")
            .map(|s| s.sessions)
            .unwrap_or_default()
    }
}

fn read<T: DeserializeOwned>(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, (u16, String)> {
    let mut answer = answer.map_err(|e| (0, e.to_string()))?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().read_to_string().map_err(|e| (0, e.to_string()))?;
    if status >= 300 {
        let said = serde_json::from_str::<Problem>(&body).map(|p| p.error.to_string());
        return Err((status, said.unwrap_or(body)));
    }
    serde_json::from_str(&body).map_err(|e| (status, format!("{e}: {body}")))
}

/// The front, as this user with these roles.
pub fn somebody(machine: &Machine, name: &str, workspace: &str, roles: &[&str]) -> Api {
    let issuer = machine.state().join("issuer.key");
    let mut arguments = vec!["token", "--issuer", issuer.to_str().unwrap()];
    arguments.extend(["--user", name, "--workspace", workspace]);
    arguments.extend(roles.iter().flat_map(|role| ["--role", role]));
    let token = machine.succeed(&arguments);
    Api::new(&machine.api().endpoint, token.trim(), name)
}

/// The command line, as the user of `api`.
pub fn typed(machine: &Machine, api: &Api, arguments: &[&str]) -> Output {
    let mut command = machine.command(arguments);
    command
        .args(["--endpoint", &api.endpoint])
        .env("PFSESSION_TOKEN", &api.token);
    command.output().unwrap()
}

/// A command's output, of both streams.
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Writes a flow of one node whose tool is `source` (a function `tool(text)`), in a folder of its
/// own.
pub fn write_flow(folder: &Path, source: &str, requirements: Option<&str>) {
    fs::create_dir_all(folder).expect("the folder is made");
    let environment = if requirements.is_some() {
        "environment:\n  python_requirements_txt: requirements.txt\n"
    } else {
        ""
    };
    let dag = format!(
        "inputs:\n  text:\n    type: string\n    default: hello\noutputs:\n  said:\n    type: string\n    reference: ${{one.output}}\nnodes:\n- name: one\n  type: python\n  source:\n    type: code\n    path: one.py\n  inputs:\n    text: ${{inputs.text}}\n{environment}"
    );
    fs::write(folder.join("flow.dag.yaml"), dag).expect("the flow is written");
    let source = format!("from promptflow.core import tool\n\n{source}");
    fs::write(folder.join("one.py"), source).expect("the tool is written");
    if let Some(requirements) = requirements {
        fs::write(folder.join("requirements.txt"), requirements).expect("the requirements are written");
    }
}

impl Machine {
    /// The rest in queues and table of things that should have ended: messages, queues of agents,
    /// dead letters, unsent effects, compute resources that are not gone, sessions in a quota. As
    /// any AWS tool sees it.
    pub fn unfinished(&self) -> BTreeSet<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(self.unfinished_rows_and_messages())
    }

    /// Takes the notices that are there for users.
    pub fn notices(&self) -> Vec<Notice> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let sqs = self.sqs();
        runtime.block_on(async {
            let url = sqs.get_queue_url().queue_name("notices").send().await;
            let url = url.expect("the queue is there").queue_url.unwrap_or_default();
            let got = sqs
                .receive_message()
                .queue_url(url)
                .max_number_of_messages(10)
                .send()
                .await;
            let messages = got.expect("the queue answers").messages.unwrap_or_default();
            let bodies = messages.iter().filter_map(|message| message.body());
            bodies
                .map(|body| serde_json::from_str(body).expect("it is a notice"))
                .collect()
        })
    }

    fn sqs(&self) -> aws_sdk_sqs::Client {
        use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
        let host = self.host().expect("the host is up");
        let credentials = Credentials::new(&host.access_key_id, &host.secret_access_key, None, None, "host.json");
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(host.region))
            .endpoint_url(host.endpoint)
            .credentials_provider(credentials)
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    /// Returns a client of the host's table.
    pub fn dynamo(&self) -> aws_sdk_dynamodb::Client {
        use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
        let host = self.host().expect("the host is up");
        let credentials = Credentials::new(&host.access_key_id, &host.secret_access_key, None, None, "host.json");
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(host.region))
            .endpoint_url(host.endpoint)
            .credentials_provider(credentials)
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    async fn unfinished_rows_and_messages(&self) -> BTreeSet<String> {
        use aws_sdk_sqs::types::QueueAttributeName;
        let (sqs, dynamo) = (self.sqs(), self.dynamo());
        let mut left = BTreeSet::new();
        let queues = sqs.list_queues().send().await.expect("the queues are listed");
        for url in queues.queue_urls() {
            let name = url.rsplit('/').next().unwrap_or_default();
            let counts = sqs
                .get_queue_attributes()
                .queue_url(url)
                .attribute_names(QueueAttributeName::All)
                .send()
                .await;
            let counts = counts.expect("a queue has attributes").attributes.unwrap_or_default();
            let waiting: i64 = counts
                .iter()
                .filter(|(name, _)| name.as_str().starts_with("ApproximateNumberOfMessages"))
                .filter_map(|(_, count)| count.parse::<i64>().ok())
                .sum();
            // The schedule sends a tick every second; it is nobody's. Notices wait for whoever
            // wants them.
            if name.starts_with("agent-") || (waiting > 0 && !["idle-ticks", "notices"].contains(&name)) {
                left.insert(format!("queue {name}: {waiting} messages"));
            }
        }
        let tables = dynamo.list_tables().send().await.expect("the table is listed");
        for table in tables.table_names() {
            let rows = dynamo
                .scan()
                .table_name(table)
                .send()
                .await
                .expect("the table is read")
                .items
                .unwrap_or_default();
            for row in rows {
                let text = |name: &str| row.get(name).and_then(|v| v.as_s().ok()).cloned().unwrap_or_default();
                let (pk, body) = (text("pk"), text("body"));
                let unsent = row
                    .get("outbox")
                    .and_then(|v| v.as_m().ok())
                    .is_some_and(|outbox| !outbox.is_empty());
                let held = pk.starts_with("QUOTA#") && !body.contains("\"sessions\":{}");
                let there = pk.starts_with("COMPUTE#") && !body.contains("\"phase\":\"gone\"");
                let open =
                    pk.starts_with("OP#") && !row.contains_key("end") && body.contains("\"status\":\"in-progress\"");
                // What a user has had on a day is counted until that is over.
                let counted = pk.starts_with("QUOTA#") && !body.contains("\"due\":");
                let due = row.contains_key("due_at") && !counted;
                if unsent || held || there || open || due {
                    left.insert(format!("row {pk} {}: {body}", text("sk")));
                }
            }
        }
        left
    }
}
