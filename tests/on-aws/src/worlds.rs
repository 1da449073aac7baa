//! Three worlds: our host, `ministack`, `moto`. In each, the table of the template, queues, and a
//! state machine of the real definition.

use crate::{ACCOUNT, Emulator, REGION};
use aws::Aws;
use aws_credential_types::Credentials;
use aws_sdk_sqs::{
    config::{BehaviorVersion, Region},
    types::{Message, QueueAttributeName},
};
use contract::names;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use whole_system::root;

/// The tools that the worlds need.
pub const TOOLS: [&str; 2] = ["ministack", "moto_server"];

/// One world.
pub struct World {
    pub name: &'static str,
    pub variables: BTreeMap<String, String>,
    /// The adapters, as a function has them.
    pub aws: Aws,
    pub sqs: aws_sdk_sqs::Client,
    pub sfn: aws_sdk_sfn::Client,
    /// The queue of all steps of the state machine.
    steps: String,
}

impl World {
    fn new(name: &'static str, given: &[(String, String)], table: &str, machine: &str, steps: &str) -> Self {
        let mut variables: BTreeMap<String, String> = given.iter().cloned().collect();
        let endpoint = variables["AWS_ENDPOINT_URL"].clone();
        let requests = format!("{endpoint}/{ACCOUNT}/{}", names::COMPUTE_REQUESTS.name);
        variables.extend(
            [
                (names::TABLE, table),
                (names::STATE_MACHINE, machine),
                (names::COMPUTE_REQUESTS.url_variable, &requests),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let of = |name: &str| variables[name].clone();
        let credentials = Credentials::new(
            of("AWS_ACCESS_KEY_ID"),
            of("AWS_SECRET_ACCESS_KEY"),
            None,
            None,
            "given",
        );
        let http = aws_smithy_http_client::Builder::new().build_http();
        let sqs = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(&endpoint)
            .credentials_provider(credentials.clone())
            .http_client(http.clone())
            .build();
        let sfn = aws_sdk_sfn::Config::builder()
            .behavior_version(aws_sdk_sfn::config::BehaviorVersion::latest())
            .region(aws_sdk_sfn::config::Region::new(REGION))
            .endpoint_url(&endpoint)
            .credentials_provider(credentials)
            .http_client(http)
            .build();
        Self {
            name,
            aws: aws::make_from(|name| variables.get(name).cloned()).expect("the variables are there"),
            variables,
            sqs: aws_sdk_sqs::Client::from_conf(sqs),
            sfn: aws_sdk_sfn::Client::from_conf(sfn),
            steps: steps.to_owned(),
        }
    }

    /// The adapters with one variable more.
    pub fn aws_with(&self, variable: &str, value: &str) -> Aws {
        let look = |name: &str| match name {
            _ if name == variable => Some(value.to_owned()),
            _ => self.variables.get(name).cloned(),
        };
        aws::make_from(look).expect("the variables are there")
    }

    /// Makes a queue.
    pub async fn queue(&self, name: &str, attributes: &[(QueueAttributeName, &str)]) -> String {
        let mut create = self.sqs.create_queue().queue_name(name);
        if name.ends_with(".fifo") {
            create = create.attributes(QueueAttributeName::FifoQueue, "true");
        }
        for (attribute, value) in attributes {
            create = create.attributes(attribute.clone(), *value);
        }
        let made = create.send().await.expect("a queue is made");
        made.queue_url.expect("a queue has a URL")
    }

    /// The address of a queue as a redrive policy names it.
    pub fn arn(&self, queue: &str) -> String {
        format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}")
    }

    /// The messages of a queue now, or within so many seconds.
    pub async fn receive(&self, queue: &str, most: i32, within: i32) -> Vec<Message> {
        let received = self
            .sqs
            .receive_message()
            .queue_url(queue)
            .max_number_of_messages(most)
            .wait_time_seconds(within)
            .message_system_attribute_names(aws_sdk_sqs::types::MessageSystemAttributeName::All)
            .send()
            .await;
        received.expect("a queue answers").messages.unwrap_or_default()
    }

    pub async fn delete(&self, queue: &str, message: &Message) {
        let receipt = message.receipt_handle().expect("a receipt");
        let deleted = self.sqs.delete_message().queue_url(queue).receipt_handle(receipt);
        deleted.send().await.expect("it is deleted");
    }

    /// Makes a message visible again in so many seconds.
    pub async fn hand_back(&self, queue: &str, message: &Message, seconds: i32) {
        let receipt = message.receipt_handle().expect("a receipt");
        let changed = self.sqs.change_message_visibility().queue_url(queue);
        let changed = changed.receipt_handle(receipt).visibility_timeout(seconds);
        changed.send().await.expect("it is handed back");
    }

    /// The step that the state machine comes to next: what it says.
    ///
    /// # Panics
    ///
    /// When none comes within twenty seconds.
    pub async fn next_step(&self) -> Value {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let [message] = &self.receive(&self.steps, 1, 2).await[..] {
                self.delete(&self.steps, message).await;
                return serde_json::from_str(message.body().unwrap_or_default()).expect("a step is JSON");
            }
            assert!(Instant::now() < until, "no step has come in {}", self.name);
        }
    }

    /// Whether no step comes within a second.
    pub async fn no_step_comes(&self) -> bool {
        self.receive(&self.steps, 1, 1).await.is_empty()
    }

    /// The end of an execution: its status, and its error.
    pub async fn end_of(&self, name: &str) -> (String, String) {
        let arn = self.variables[names::STATE_MACHINE].replace(":stateMachine:", ":execution:");
        let arn = format!("{arn}:{name}");
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let described = self.sfn.describe_execution().execution_arn(&arn).send().await;
            let described = described.expect("there is the execution");
            let status = described.status().as_str().to_owned();
            if status != "RUNNING" {
                return (status, described.error().unwrap_or_default().to_owned());
            }
            assert!(Instant::now() < until, "{name} runs on in {}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The state machine.
    pub fn machine(&self) -> &str {
        &self.variables[names::STATE_MACHINE]
    }
}

/// All three.
pub struct Worlds {
    all: Vec<World>,
    runtime: tokio::runtime::Runtime,
    host: Child,
    _emulators: Vec<Emulator>,
    _folder: tempfile::TempDir,
}

impl Worlds {
    /// Starts them.
    ///
    /// * `relay`: the program of that name.
    pub fn new(tools: &Path, relay: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let (host, ours) = our_host(relay, folder.path(), &runtime);
        let infra = root().join("infra");
        let files = [infra.join("template.yaml"), infra.join("lifecycle.asl.json")];
        let emulators = vec![Emulator::ministack(tools), Emulator::moto(tools)];
        let mut all = vec![ours];
        for (name, emulator) in ["ministack", "moto"].into_iter().zip(&emulators) {
            let made = emulator.python(
                "make_world.py",
                &files.each_ref().map(|file| file.to_str().expect("text")),
            );
            let [table, machine, steps] = made.lines().collect::<Vec<_>>()[..] else {
                panic!("{name} was not made: {made}")
            };
            all.push(World::new(name, &emulator.variables(), table, machine, steps));
        }
        Self {
            all,
            runtime,
            host,
            _emulators: emulators,
            _folder: folder,
        }
    }

    /// Has a test in each world but in those that are not right about its subject, and says why not
    /// there.
    pub fn each(&self, wrong: &[(&str, &str)], test: impl AsyncFn(&World)) {
        for world in &self.all {
            match wrong.iter().find(|(name, _)| *name == world.name) {
                Some((name, why)) => println!("    not in {name}: {why}"),
                None => {
                    println!("    in {}", world.name);
                    self.runtime.block_on(test(world));
                }
            }
        }
    }
}

impl Drop for Worlds {
    fn drop(&mut self) {
        let _ = self.host.kill();
        let _ = self.host.wait();
    }
}

/// Starts our host, with `relay` as its functions.
pub fn our_host(relay: &Path, folder: &Path, runtime: &tokio::runtime::Runtime) -> (Child, World) {
    let state = folder.join("state");
    let mut host = Command::new(relay)
        .arg("host")
        .arg(&state)
        // Ticks are not what the tests are about.
        .env("PFSESSION_SWEEP_MS", "3600000")
        .env_remove("PFSESSION_FAULTS")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a host");
    let mut line = String::new();
    BufReader::new(host.stdout.take().expect("its output"))
        .read_line(&mut line)
        .expect("a line");
    let file = std::fs::read(state.join("host.json")).expect("host.json");
    let file: local::HostFile = serde_json::from_slice(&file).expect("host.json is JSON");
    let variables = [
        ("AWS_ENDPOINT_URL", file.endpoint),
        ("AWS_ACCESS_KEY_ID", file.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", file.secret_access_key),
        ("AWS_REGION", file.region),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let machine = format!("arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:lifecycle");
    // The names that our host gives to what the template does not name.
    let mut world = World::new("our host", &variables, "pfsession-Table", &machine, "");
    world.steps = runtime.block_on(world.queue("suite-steps", &[]));
    (host, world)
}
