//! The state machines in an interpreter that nobody here wrote: moto. `serve_moto.py` says what is
//! mended in it, and why.

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// The longest time of a state machine's work; a machine under load needs some.
const EXECUTION_DEADLINE: Duration = Duration::from_secs(60);

/// A moto of this test program's own; it ends with the program, as its standard input does.
struct Moto {
    url: String,
    http: ureq::Agent,
    _child: Child,
}

fn moto() -> &'static Moto {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    MOTO.get_or_init(Moto::start)
}

impl Moto {
    fn start() -> Self {
        let mut child = Command::new(tools::python())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/serve_moto.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("moto starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("moto says where it is");
        let moto = Self {
            url: line.trim().to_owned(),
            http: ureq::Agent::config_builder().http_status_as_error(false).build().into(),
            _child: child,
        };
        // Machines are not run before this is said.
        moto.post(
            "/moto-api/config",
            &json!({ "stepfunctions": { "execute_state_machine": true } }),
        );
        moto
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let mut answer = self
            .http
            .post(format!("{}{path}", self.url))
            .send(body.to_string())
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let text = answer.body_mut().read_to_string().expect("an answer");
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }
}

/// One deployment in moto, with names of its own.
pub struct World {
    moto: &'static Moto,
    pub stack: String,
    pub machine: String,
    pub subnets: Vec<String>,
    /// The key of a flow that no other deployment here has.
    pub flow: String,
    reports: String,
    requests: String,
}

/// The calls of a state machine.
#[derive(Clone, Debug)]
pub struct Call {
    pub action: String,
    pub body: Value,
}

impl World {
    /// A deployment of `compute-ecs.asl.json`.
    ///
    /// There are no pauses between two looks here (a second where the test has to do something
    /// meanwhile), a failing call is repeated twice, and the agent's time to speak is what
    /// `greeting` says.
    pub fn with_compute(greeting: u64) -> Self {
        let world = Self::empty();
        let stack = &world.stack;
        world.call("ecs", "create_cluster", json!({ "clusterName": stack }));
        let template = world.call(
            "ec2",
            "create_launch_template",
            json!({ "LaunchTemplateName": stack, "LaunchTemplateData": { "ImageId": "ami-12c6146b" } }),
        );
        for table in ["table", "driver"] {
            world.call(
                "dynamodb",
                "create_table",
                json!({
                    "TableName": format!("{stack}-{table}"),
                    "BillingMode": "PAY_PER_REQUEST",
                    "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }, { "AttributeName": "sk", "AttributeType": "S" }],
                    "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }, { "AttributeName": "sk", "KeyType": "RANGE" }],
                }),
            );
        }
        let substitutions = [
            ("Stack", stack.clone()),
            ("NamePrefix", String::new()),
            ("Subnets", world.subnets.join(",")),
            ("DriverTable", format!("{stack}-driver")),
            ("Table", format!("{stack}-table")),
            ("LaunchTemplate", text(&template["LaunchTemplate"]["LaunchTemplateId"])),
            ("LaunchTemplateVersion", "1".to_owned()),
            ("Cluster", stack.clone()),
            ("ReportsQueueUrl", world.reports.clone()),
            ("ComputeRequestsQueueUrl", world.requests.clone()),
            (
                "AgentQueuePrefix",
                world.reports.trim_end_matches(&format!("reports-{stack}")).to_owned(),
            ),
            ("QueueArnPrefix", "arn:aws:sqs:us-east-1:123456789012:".to_owned()),
            ("DefaultImage", DEFAULT_IMAGE.to_owned()),
            ("DefaultIdentity", "arn:aws:iam::123456789012:role/session".to_owned()),
            ("LogGroup", stack.clone()),
            ("Region", "us-east-1".to_owned()),
            ("Service", "https://service.example/".to_owned()),
        ];
        let mut definition = include_str!("../../../infra/compute-ecs.asl.json").to_owned();
        for (name, value) in substitutions {
            assert!(definition.contains(&format!("${{{name}}}")), "{name} is not asked for");
            definition = definition.replace(&format!("${{{name}}}"), &value);
        }
        assert!(!definition.contains("${"), "a substitution is missing");
        let mut definition: Value = serde_json::from_str(&definition).expect("JSON");
        for (name, state) in definition["States"].as_object_mut().expect("states") {
            if state["Type"] == "Wait" {
                state["Seconds"] = json!(u8::from(name == "Boot"));
            }
            for retry in state
                .get_mut("Retry")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if retry["MaxAttempts"] != 0 {
                    retry["MaxAttempts"] = json!(2);
                }
            }
            if name == "Greet" {
                state["TimeoutSeconds"] = json!(greeting);
            }
        }
        world.with_machine(&definition)
    }

    /// A deployment of a state machine; `definition` is given the URL of its one queue, and
    /// whatever the test changes in it.
    pub fn with_definition(definition: impl FnOnce(&str) -> Value) -> Self {
        let world = Self::empty();
        let definition = definition(&world.requests);
        world.with_machine(&definition)
    }

    fn empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let moto = moto();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let stack = format!("stack-{number}-");
        let mut world = Self {
            moto,
            machine: String::new(),
            subnets: Vec::new(),
            flow: format!("{number:032x}"),
            reports: String::new(),
            requests: String::new(),
            stack: stack.clone(),
        };
        let queue = |name: &str| {
            let made = world.call("sqs", "create_queue", json!({ "QueueName": format!("{name}-{stack}") }));
            text(&made["QueueUrl"])
        };
        (world.reports, world.requests) = (queue("reports"), queue("requests"));
        let subnets = world.call("ec2", "describe_subnets", json!({}));
        let subnets = subnets["Subnets"].as_array().expect("subnets").iter();
        world.subnets = subnets.take(2).map(|subnet| text(&subnet["SubnetId"])).collect();
        world
    }

    fn with_machine(mut self, definition: &Value) -> Self {
        let made = self.call(
            "stepfunctions",
            "create_state_machine",
            json!({
                "name": self.stack,
                "definition": definition.to_string(),
                "roleArn": "arn:aws:iam::123456789012:role/machine",
            }),
        );
        self.machine = text(&made["stateMachineArn"]);
        self
    }

    /// Any call of boto3, by the test itself.
    pub fn call(&self, service: &str, call: &str, with: Value) -> Value {
        let done = self.try_call(service, call, with);
        assert!(done["refused"].is_null(), "{service} {call}: {}", done["refused"]);
        done
    }

    /// The same; `refused` says why it was refused.
    pub fn try_call(&self, service: &str, call: &str, with: Value) -> Value {
        self.moto
            .post("/test/call", &json!({ "service": service, "call": call, "with": with }))
    }

    /// Has calls of this deployment's state machines refused.
    ///
    /// * `within`: a word that a call has to have, or nothing.
    pub fn refuse(&self, action: &str, within: &str, times: u32, code: &str, message: &str) {
        let fault =
            json!({ "action": action, "in": [self.stack, within], "times": times, "code": code, "message": message });
        self.moto.post("/test/fault", &fault);
    }

    /// Holds the next call of this action, until all that is held is let go.
    pub fn hold(&self, action: &str) {
        let fault = json!({ "action": action, "in": [self.stack], "times": 1 });
        self.moto.post("/test/fault", &fault);
    }

    /// Lets go what is held.
    pub fn release(&self) {
        self.moto.post("/test/release", &json!({}));
    }

    /// The calls of this action that the state machines of this deployment have made, in order.
    pub fn calls(&self, action: &str) -> Vec<Call> {
        self.calls_about(action, &self.stack)
    }

    /// The calls of this action that state machines have made, in order, and that have this word
    /// somewhere.
    pub fn calls_about(&self, action: &str, word: &str) -> Vec<Call> {
        let mut answer = self
            .moto
            .http
            .get(format!("{}/test/calls", self.moto.url))
            .call()
            .expect("calls");
        let text = answer.body_mut().read_to_string().expect("calls");
        let calls: Vec<Value> = serde_json::from_str(&text).expect("calls");
        let calls = calls.into_iter().map(|call| Call {
            action: call["action"].as_str().unwrap_or_default().to_owned(),
            body: call["body"].clone(),
        });
        calls
            .filter(|call| call.action == action && call.body.to_string().contains(word))
            .collect()
    }

    /// The pipe's part for a message of the queue `compute-requests`.
    pub fn ask(&self, request: &contract::driver::ComputeRequest, message: &str) -> String {
        let body = serde_json::to_string(request).expect("JSON");
        self.start(json!([{ "messageId": message, "body": body, "eventSource": "aws:sqs" }]))
    }

    /// Starts an execution as a pipe or a rule does, with a name of no meaning, and gives back its
    /// ARN. moto would make up none.
    pub fn start(&self, input: Value) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("event-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let with = json!({ "stateMachineArn": self.machine, "name": name, "input": input.to_string() });
        text(&self.call("stepfunctions", "start_execution", with)["executionArn"])
    }

    /// Waits until an execution has ended, and gives back what is known of it.
    pub fn ended(&self, execution: &str) -> Value {
        self.wait_for(&format!("the end of {execution}"), || {
            let about = self.call(
                "stepfunctions",
                "describe_execution",
                json!({ "executionArn": execution }),
            );
            (about["status"] != "RUNNING").then_some(about)
        })
    }

    /// The names of all executions of the machine that were given one.
    pub fn named(&self) -> Vec<String> {
        let listed = self.call(
            "stepfunctions",
            "list_executions",
            json!({ "stateMachineArn": self.machine }),
        );
        let names = listed["executions"].as_array().expect("executions").iter();
        let mut names: Vec<String> = names
            .filter_map(|execution| execution["name"].as_str().map(str::to_owned))
            .filter(|name| {
                ["create-", "release-", "launch-", "remove-"]
                    .iter()
                    .any(|known| name.starts_with(known))
            })
            .collect();
        names.sort();
        names
    }

    /// The ARN of an execution of this name.
    pub fn execution(&self, name: &str) -> String {
        format!("{}:{name}", self.machine.replace(":stateMachine:", ":execution:"))
    }

    /// The next message of the queue `reports`.
    pub fn report(&self) -> contract::driver::DriverReport {
        let body = self.receive("a report", &self.reports);
        serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    /// The next message of the queue `reports` that is an agent's.
    pub fn agent_report(&self) -> Value {
        loop {
            let body = self.receive("a report of the agent", &self.reports);
            if body.get("signature").is_some() {
                return body;
            }
        }
    }

    /// The next message of the queue `reports` that is the driver's. What an agent has said before
    /// it is dropped: it counts for nothing before the driver has said whose key it is.
    pub fn driver_report(&self) -> contract::driver::DriverReport {
        loop {
            let body = self.receive("a report of the driver", &self.reports);
            if let Ok(report) = serde_json::from_value(body) {
                return report;
            }
        }
    }

    /// Puts a command into the queue of a session's agent.
    pub fn tell_agent(&self, generation: u32, command: &contract::agent::AgentCommand) {
        let queue = contract::names::agent_queue(&self.flow, generation);
        let url = text(&self.call("sqs", "get_queue_url", json!({ "QueueName": queue }))["QueueUrl"]);
        let body = serde_json::to_string(command).expect("JSON");
        self.call("sqs", "send_message", json!({ "QueueUrl": url, "MessageBody": body }));
    }

    /// The URL of moto.
    pub fn url(&self) -> &str {
        &self.moto.url
    }

    /// The instances of this deployment that are not terminated.
    pub fn instances(&self) -> Vec<Value> {
        let filters = json!({ "Filters": [
            { "Name": "tag:pfsession-stack", "Values": [self.stack] },
            { "Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"] },
        ] });
        let found = self.call("ec2", "describe_instances", filters);
        let reservations = found["Reservations"].as_array().expect("a list").iter();
        let instances =
            reservations.flat_map(|reservation| reservation["Instances"].as_array().cloned().unwrap_or_default());
        instances.collect()
    }

    /// An instance's part once it has started: it joins the cluster. Waits for one.
    pub fn join_an_instance(&self) -> Value {
        let instance = self.wait_for("an instance", || self.instances().into_iter().next());
        let document = json!({
            "accountId": "123456789012", "region": "us-east-1", "instanceId": instance["InstanceId"], "instanceType": instance["InstanceType"],
            "imageId": "ami-12c6146b", "architecture": "x86_64", "privateIp": "10.0.0.1", "availabilityZone": "us-east-1a", "version": "2010-08-31",
        });
        self.call(
            "ecs",
            "register_container_instance",
            json!({ "cluster": self.stack, "instanceIdentityDocument": document.to_string() }),
        );
        instance
    }

    /// The next message of the queue `compute-requests`.
    pub fn request(&self) -> contract::driver::ComputeRequest {
        let body = self.receive("a request", &self.requests);
        serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    /// The next message for a handler.
    pub fn step(&self) -> contract::step::StepMessage {
        let body = self.receive("a step", &self.requests);
        serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    /// The next message of the queue of a session's agent.
    pub fn agent_command(&self, flow: &str, generation: u32) -> Value {
        let queue = contract::names::agent_queue(flow, generation);
        let url = self.wait_for("the agent's queue", || {
            let found = self.try_call("sqs", "get_queue_url", json!({ "QueueName": queue }));
            found["QueueUrl"].as_str().map(str::to_owned)
        });
        self.receive("a word for the agent", &url)
    }

    /// Whether nothing is in the queues `reports` and `compute-requests`.
    pub fn is_quiet(&self) -> bool {
        [&self.reports, &self.requests].iter().all(|queue| {
            let got = self.call(
                "sqs",
                "receive_message",
                json!({ "QueueUrl": queue, "VisibilityTimeout": 0 }),
            );
            got["Messages"].as_array().is_none_or(Vec::is_empty)
        })
    }

    fn receive(&self, what: &str, queue: &str) -> Value {
        self.wait_for(what, || {
            let got = self.call(
                "sqs",
                "receive_message",
                json!({ "QueueUrl": queue, "MaxNumberOfMessages": 1 }),
            );
            let message = got["Messages"].get(0)?;
            let receipt = json!({ "QueueUrl": queue, "ReceiptHandle": message["ReceiptHandle"] });
            self.call("sqs", "delete_message", receipt);
            serde_json::from_str(message["Body"].as_str()?).ok()
        })
    }

    /// The ends of the executions, for the reader of a failure.
    pub fn story(&self) -> String {
        let listed = self.call(
            "stepfunctions",
            "list_executions",
            json!({ "stateMachineArn": self.machine }),
        );
        let mut story = String::new();
        for execution in listed["executions"].as_array().into_iter().flatten() {
            let with = json!({ "executionArn": execution["executionArn"] });
            let history = self.call("stepfunctions", "get_execution_history", with);
            let last = history["events"].as_array().into_iter().flatten().rev().take(1);
            let last: Vec<_> = last
                .map(|event| event.to_string().chars().take(2000).collect::<String>())
                .collect();
            story += &format!(
                "\n{} {}: {}",
                execution["name"],
                execution["status"],
                last.join("\n    ")
            );
        }
        story
    }

    /// Looks again and again until there is something.
    pub fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let until = Instant::now() + EXECUTION_DEADLINE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < until, "waited in vain for {what}; {}", self.story());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The default base image of sessions.
pub const DEFAULT_IMAGE: &str =
    "registry.example/base@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A text in JSON.
pub fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}
