//! The time of each function's start and answer, and the memory it needs, at the processor share
//! that Lambda gives for each memory size.
//!
//!     infra/package.sh && cargo run -p on-aws --bin cold-starts -- target/debug/relay
//!
//! Each life of a function is a process of its zip's `bootstrap`, on a Runtime API of this
//! program's own; behind it are the table, the queues and the state machine of the one-machine
//! host. The share is held by a control group of version 1 with a period of 20 ms; one vCPU is
//! 1,769 MB.
//!
//! This machine is no Lambda: the start of its virtual machine and the fetch of the zip are not in
//! here. AWS's own answers take longer than a loopback's. Lambda gives a starting function more
//! processor time than its share, and this program does not.
//!
//! # Source
//!
//! "At 1,769 MB, a function has the equivalent of one vCPU" (AWS Lambda, *Configure Lambda function
//! memory*).

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use contract::names;
use lambda_runtime::{LambdaEvent, service_fn};
use on_aws::{
    ACCOUNT, REGION,
    deployment::{issuer_key, public_pem, token},
    worlds::{World, our_host},
};
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;
use std::{
    collections::VecDeque,
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use whole_system::{root, write_flow};

/// MB, as `MemorySize` has them.
const SIZES: [u32; 5] = [128, 256, 512, 1024, 1769];
/// A function's settings in the template: its memory, by its place in [`SIZES`], and the most
/// messages of one invocation.
fn deployed(template: &Yaml, function: &str) -> (usize, u32) {
    let logical: String = function
        .split('-')
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect();
    let its = &template["Resources"][logical.as_str()]["Properties"];
    let number = |value: &Yaml| value.as_u64().map(|number| number as u32);
    let memory = number(&its["MemorySize"]).or(number(&template["Globals"]["Function"]["MemorySize"]));
    let size = SIZES.iter().position(|size| Some(*size) == memory);
    let events = its["Events"]
        .as_mapping()
        .into_iter()
        .flat_map(|events| events.values());
    let batch = events
        .filter_map(|event| number(&event["Properties"]["BatchSize"]))
        .max();
    (
        size.expect("its memory is among those that are measured"),
        batch.unwrap_or(1),
    )
}
/// Events in a life, the first included.
const EVENTS: usize = 6;
/// Microseconds.
const PERIOD: u32 = 20_000;
/// The sender of everything, as the functions see it.
const SENDER: &str = "measured";
const SECRET: &str = "It's a Secret to Everybody";
const PING: &str = r#"{"zen":"x"}"#;
/// The HMAC-SHA256 of [`PING`] with [`SECRET`].
const SIGNATURE: &str = "sha256=eb1372a523dc74783f89c0f177a5ab15fc608b4720b33e697cee863f8b0d0d51";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["echo"] => echo(),
        ["poll"] => poll(),
        [relay] => measure(Path::new(relay), 7),
        [relay, lives] => measure(Path::new(relay), lives.parse().expect("a number of lives")),
        _ => eprintln!("cold-starts RELAY [LIVES], where RELAY is the program of that name"),
    }
}

/// The floor with the runtime: a function that gives back what it gets.
fn echo() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let echo = service_fn(|event: LambdaEvent<Value>| async { Ok::<_, lambda_runtime::Error>(event.payload) });
    runtime.block_on(lambda_runtime::run(echo)).expect("it is polled for");
}

/// The floor: a process that opens a connection, asks, and answers.
fn poll() {
    let address = env::var("AWS_LAMBDA_RUNTIME_API").expect("an address");
    let mut stream = TcpStream::connect(&address).expect("it listens");
    stream.set_nodelay(true).expect("an option");
    let mut said = vec![0; 65_536];
    let next = format!("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let path = "/2018-06-01/runtime/invocation/one/response";
    let answer = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\n\r\n{{}}");
    for request in [next, answer].iter().cycle() {
        stream.write_all(request.as_bytes()).expect("sent");
        if stream.read(&mut said).expect("its word") == 0 {
            return;
        }
    }
}

/// The phases of a function's life, as the Runtime API saw them.
struct Life {
    begun: Instant,
    polled: Option<Duration>,
    given: Option<Instant>,
    took: Vec<Duration>,
    events: VecDeque<Value>,
    /// Told at the end, with what went wrong if something did.
    over: Option<oneshot::Sender<Result<(), String>>>,
}

impl Life {
    fn end(&mut self, how: Result<(), String>) {
        if let Some(over) = self.over.take() {
            let _ = over.send(how);
        }
    }
}

async fn runtime_api(State(life): State<Arc<Mutex<Life>>>, method: Method, uri: Uri, body: Bytes) -> Response {
    let now = Instant::now();
    if method == Method::POST {
        let mut life = life.lock().expect("no panic has it");
        let took = life.given.take().map(|given| now - given);
        life.took.extend(took);
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let failed = answer["batchItemFailures"]
            .as_array()
            .is_some_and(|failures| !failures.is_empty())
            || answer["statusCode"].as_u64().is_some_and(|status| status >= 400);
        if failed || !uri.path().ends_with("/response") {
            life.end(Err(format!("{uri}: {}", String::from_utf8_lossy(&body))));
        }
        return StatusCode::ACCEPTED.into_response();
    }
    let event = {
        let mut life = life.lock().expect("no panic has it");
        let since = now - life.begun;
        life.polled.get_or_insert(since);
        let event = life.events.pop_front();
        if event.is_none() {
            life.end(Ok(()));
        }
        life.given = Some(Instant::now());
        event
    };
    let Some(event) = event else {
        return std::future::pending().await;
    };
    let headers = [
        ("lambda-runtime-aws-request-id", "one".to_owned()),
        ("lambda-runtime-deadline-ms", "9999999999999".to_owned()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:us-east-1:0:function:f".to_owned(),
        ),
    ];
    (headers, event.to_string()).into_response()
}

/// A control group that holds a share of a processor. Processes that are started in [`Share::hold`]
/// are in it.
struct Share(PathBuf);

impl Share {
    /// `None` where no group can be made.
    fn of(memory: u32) -> Option<Self> {
        let folder = Path::new("/sys/fs/cgroup/cpu").join(format!("pfsession-cold-starts-{memory}"));
        fs::create_dir_all(&folder).ok()?;
        let share = Self(folder);
        fs::write(share.0.join("cpu.cfs_period_us"), PERIOD.to_string()).ok()?;
        fs::write(share.0.join("cpu.cfs_quota_us"), (PERIOD * memory / 1769).to_string()).ok()?;
        Some(share)
    }

    /// Does it with this thread in the group: what it starts stays there.
    fn hold<T>(share: Option<&Self>, work: impl FnOnce() -> T) -> T {
        let Some(Self(folder)) = share else { return work() };
        fs::write(folder.join("tasks"), "0").expect("this thread enters the group");
        let done = work();
        fs::write("/sys/fs/cgroup/cpu/tasks", "0").expect("this thread leaves the group");
        done
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// One life: to the first poll, the first answer, each of the others, and the most memory that it
/// held, in bytes.
struct Measured {
    polled: Duration,
    first: Duration,
    others: Vec<Duration>,
    memory: u64,
}

async fn live(
    program: &[PathBuf],
    variables: &[(String, String)],
    share: Option<&Share>,
    events: Vec<Value>,
) -> Measured {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (over, ended) = oneshot::channel();
    let life = Arc::new(Mutex::new(Life {
        begun: Instant::now(),
        polled: None,
        given: None,
        took: Vec::new(),
        events: events.into(),
        over: Some(over),
    }));
    let app = Router::new().fallback(runtime_api).with_state(life.clone());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut command = Command::new(&program[0]);
    command
        .args(&program[1..])
        .env_clear()
        .envs(variables.iter().cloned())
        .env("AWS_LAMBDA_RUNTIME_API", address)
        .env("AWS_LAMBDA_FUNCTION_NAME", "f")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "g")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "s")
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut child = Share::hold(share, || {
        life.lock().expect("no panic has it").begun = Instant::now();
        command.spawn().expect("it starts")
    });
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    child.kill().expect("it is there");
    child.wait().expect("it ends");
    server.abort();
    let life = life.lock().expect("no panic has it");
    match ended {
        Ok(Ok(Ok(()))) => {}
        other => panic!("{}: {other:?} after {:?}", program[0].display(), life.took),
    }
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Measured {
        polled: life.polled.expect("it has polled"),
        first: life.took[0],
        others: life.took[1..].to_vec(),
        memory: peak
            .and_then(|kib| kib.trim().parse::<u64>().ok())
            .expect("a process has a peak")
            << 10,
    }
}

/// The events of one life of a function, and what makes them true.
struct Scene {
    folder: PathBuf,
    flows: usize,
    /// The flow and the operation of each step that the state machine has come to.
    begun: Vec<(String, String, String)>,
    next: usize,
}

impl Scene {
    fn record(body: &Value) -> Value {
        json!({ "Records": [{
            "messageId": "m", "receiptHandle": "r", "body": body.to_string(), "attributes": { "SenderId": SENDER },
        }] })
    }

    fn events(&mut self, function: &str) -> Vec<Value> {
        (0..EVENTS).map(|_| self.event(function)).collect()
    }

    fn event(&mut self, function: &str) -> Value {
        let step = |step: &str, (flow, operation, token): &(String, String, String)| {
            Self::record(&json!({ "step": step, "flow": flow, "operation": operation, "token": token }))
        };
        let mut turn = || {
            self.next += 1;
            self.begun[self.next % self.begun.len()].clone()
        };
        match function {
            "accept-command" => {
                self.flows += 1;
                let folder = self.folder.join(self.flows.to_string());
                write_flow(&folder, "@tool\ndef one(text: str) -> str:\n    return text\n", None);
                // Somebody each: what a user has at once is bounded.
                let name = format!("user-{}", self.flows);
                Self::record(&json!({
                    "id": format!("start-{}", self.flows), "command": "start", "settings": {},
                    "flow": { "workspace": "local", "owner": name, "lineage": folder },
                    "principal": { "user": { "name": name, "workspace": "local", "roles": ["data-scientist"] } },
                }))
            }
            "start-session" => step("claim-compute", &turn()),
            // These find the flow at another step, and answer at once.
            "install-packages" => step("install-packages", &turn()),
            "stop-session" => step("stop-session", &turn()),
            "agent-report" => Self::record(&json!({ "report": "session-gone", "flow": turn().0, "generation": 99 })),
            "idle-tick" => Self::record(&json!({})),
            "api" => json!({
                "rawPath": "/v1/sessions", "requestContext": { "http": { "method": "GET" } },
                "headers": { "authorization": format!("Bearer {}", token(&issuer_key())) },
            }),
            "webhook" => json!({
                "rawPath": "/webhook/local/github", "requestContext": { "http": { "method": "POST" } }, "body": PING,
                "headers": { "x-github-delivery": "d", "x-github-event": "ping", "x-hub-signature-256": SIGNATURE },
            }),
            _ => json!({}),
        }
    }
}

fn median(mut of: Vec<Duration>) -> f64 {
    of.sort();
    of[of.len() / 2].as_secs_f64() * 1000.0
}

fn measure(relay: &Path, lives: usize) {
    let relay = relay
        .canonicalize()
        .expect("the program relay, built by cargo build --workspace --bins");
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut host, world) = our_host(&relay, folder.path(), &runtime);
    let variables = variables(&world);
    let shares = SIZES.map(Share::of);
    let held = shares.iter().all(Option::is_some);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{lives} lives of {EVENTS} events each, medians; one-minute load before: {}",
        load.split(' ').next().unwrap_or("?")
    );
    if !held {
        println!(
            "The processor share is NOT held: no control group could be made. The columns differ by chance alone."
        );
    }
    let sizes: String = SIZES.iter().map(|size| format!(" {size} MB |")).collect();
    println!(
        "to first poll / first answer / each answer after, ms; at the memory it is deployed with, a new process with the slowest of all"
    );
    println!("answers for each message of its largest batch, ms\n");
    println!(
        "| function | zip, MB | peak, MiB |{sizes} slowest batch |\n| --- | --- | --- |{} --- |",
        " --- |".repeat(SIZES.len())
    );
    let own = env::current_exe().expect("this program");
    let mut scene = Scene {
        folder: folder.path().join("flows"),
        flows: 0,
        begun: Vec::new(),
        next: 0,
    };
    let order = [
        "poll",
        "echo",
        "idle-tick",
        "webhook",
        "api",
        "accept-command",
        "agent-report",
        "start-session",
        "install-packages",
        "stop-session",
    ];
    let template = fs::read_to_string(root().join("infra/template.yaml")).expect("the template");
    let template: Yaml = serde_yaml_ng::from_str(&template).expect("it is YAML");
    for function in order {
        let zip = root().join("target/lambda").join(format!("{function}.zip"));
        let floor = ["poll", "echo"].contains(&function);
        let program = if floor {
            vec![own.clone(), function.into()]
        } else {
            vec![unzip(&zip, folder.path())]
        };
        let mut measured: [Vec<Measured>; SIZES.len()] = Default::default();
        for _ in 0..lives {
            for (of, share) in measured.iter_mut().zip(&shares) {
                let events = scene.events(function);
                of.push(runtime.block_on(live(&program, &variables, share.as_ref(), events)));
                if function == "accept-command" {
                    for _ in 0..EVENTS {
                        let step = runtime.block_on(world.next_step());
                        let word = |name: &str| step[name].as_str().expect("a step says it").to_owned();
                        scene.begun.push((word("flow"), word("operation"), word("token")));
                    }
                }
            }
        }
        let peak = measured.iter().flatten().map(|life| life.memory).max().unwrap_or(0);
        let row: String = measured
            .iter()
            .map(|of| {
                let polled = median(of.iter().map(|life| life.polled).collect());
                let first = median(of.iter().map(|life| life.first).collect());
                let others = median(of.iter().flat_map(|life| life.others.clone()).collect());
                format!(" {polled:.0} / {first:.0} / {others:.1} |")
            })
            .collect();
        let name = match function {
            "poll" => "floor: a socket".to_owned(),
            "echo" => "floor: the runtime alone".to_owned(),
            function => format!("`{function}`"),
        };
        let size = fs::metadata(&zip).map_or("-".to_owned(), |zip| format!("{:.1}", zip.len() as f64 / 1e6));
        let (size_deployed, batch) = deployed(&template, function);
        let lives = &measured[size_deployed];
        let slowest = |of: &mut dyn Iterator<Item = Duration>| of.max().unwrap_or_default();
        let up = slowest(&mut lives.iter().map(|life| life.polled));
        let answered = slowest(
            &mut lives
                .iter()
                .flat_map(|life| life.others.iter().chain([&life.first]).copied()),
        );
        let batch = (up + answered * batch).as_secs_f64() * 1000.0;
        println!(
            "| {name} | {size} | {:.0} |{row} {batch:.0} |",
            peak as f64 / f64::from(1 << 20)
        );
    }
    let _ = host.kill();
    let _ = host.wait();
}

/// The program in a function's zip.
fn unzip(zip: &Path, folder: &Path) -> PathBuf {
    let to = folder.join(zip.file_stem().expect("a name"));
    let unzipped = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .args([zip, &to])
        .status();
    assert!(
        unzipped.is_ok_and(|status| status.success()),
        "{}: make it by infra/package.sh",
        zip.display()
    );
    let program = to.join("bootstrap");
    let mut permissions = fs::metadata(&program).expect("a program").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&program, permissions).expect("it can be run");
    program
}

/// The environment of every function.
fn variables(world: &World) -> Vec<(String, String)> {
    let endpoint = &world.variables["AWS_ENDPOINT_URL"];
    let url = |name: &str| format!("{endpoint}/{ACCOUNT}/{name}");
    let mut variables: Vec<(String, String)> = world.variables.clone().into_iter().collect();
    variables.extend(
        [
            (names::OWN_QUEUE, url(names::REPORTS.name)),
            (names::COMMANDS.url_variable, url(names::COMMANDS.name)),
            (names::COMMANDS_DEAD.url_variable, url(names::COMMANDS_DEAD.name)),
            (names::TRUSTED_SENDERS, SENDER.to_owned()),
            (names::DRIVER_SENDERS, SENDER.to_owned()),
            (names::ISSUER_KEY, public_pem(&issuer_key())),
            (names::WEBHOOK_SECRETS, json!({ "local/github": [SECRET] }).to_string()),
            ("AWS_REGION", REGION.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    variables
}
