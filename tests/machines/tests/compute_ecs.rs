//! `infra/compute-ecs.asl.json` against moto's EC2, ECS, SQS and DynamoDB.
//!
//! This shows calls, their order and what they say. It cannot show that an instance joins the
//! cluster, that a role may do what it should, or that an image is pulled: the test plays the
//! instance (it registers itself) and the agent (it answers its token). Where moto is not as AWS:
//!
//! * moto runs an instance at once and never lacks capacity: the refusal is put in by the test, in
//!   EC2's own words.
//! * moto takes no notice of `ClientToken` of RunTask, of placement constraints, or of the filter
//!   of ListContainerInstances. So what is looked at is what was asked for. ("…up to 64 ASCII
//!   characters…", "If you retry a request that completed successfully using the same client token
//!   and the same parameters, the retry succeeds without performing any further actions": ECS API,
//!   *Ensuring idempotency*.)
//! * moto names what the EC2 SDK throws `ec2.ec2Exception` where AWS says `Ec2.Ec2Exception`:
//!   nothing here depends on it.
//! * moto's StartExecution refuses a name that is in use; AWS answers one with the same input with
//!   the execution that there is, while it is at work. Both count as started.

use contract::{
    Code, Settings, Slot,
    driver::{ComputeRequest, DriverReport, Room},
};
use machines::{Call, DEFAULT_IMAGE, World, text};
use serde_json::{Value, json};

const MESSAGE: &str = "2e1424d4-f796-459a-8184-9c92662be6da";
const OTHER_MESSAGE: &str = "2e1424d4-f796-459a-8184-9c92662be6db";

fn create(compute: &str) -> ComputeRequest {
    let slot = Slot {
        workspace: "team (a)".into(),
        owner: "alice@example.org".into(),
        size: "Standard_DS3_v2".into(),
        identity: None,
        instance: None,
    };
    ComputeRequest::create(compute.into(), slot)
}

/// A request for a compute resource with another room than its size has.
fn create_with(another: Option<Room>) -> ComputeRequest {
    let mut request = create("c1");
    if let ComputeRequest::CreateCompute { room, .. } = &mut request {
        *room = another;
    }
    request
}

fn release(compute: &str) -> ComputeRequest {
    ComputeRequest::ReleaseCompute {
        compute: compute.into(),
    }
}

fn launch(world: &World, generation: u32, image: Option<&str>) -> ComputeRequest {
    ComputeRequest::LaunchSession {
        flow: world.flow.clone(),
        owner: "alice".into(),
        workspace: "team".into(),
        generation,
        compute: "c1".into(),
        settings: Settings {
            size: "Standard_DS3_v2".to_owned().into(),
            image: image.map(str::to_owned).into(),
            ..Settings::new("/flows/joke")
        },
        room: Room::of("Standard_DS3_v2"),
        until: 1_795_512_660_000,
    }
}

fn remove(world: &World, generation: u32) -> ComputeRequest {
    ComputeRequest::RemoveSession {
        flow: world.flow.clone(),
        generation,
        compute: None,
    }
}

fn tag(of: &Value, key: &str) -> String {
    let tags = of["Tags"].as_array().unwrap();
    let tag = tags.iter().find(|tag| tag["Key"] == key);
    text(&tag.unwrap_or_else(|| panic!("no tag {key} among {tags:?}"))["Value"])
}

/// A compute resource that is up.
fn up(world: &World) {
    world.ask(&create("c1"), MESSAGE);
    world.join_an_instance();
    assert_eq!(world.report(), DriverReport::ComputeUp { compute: "c1".into() });
}

/// The agent's first report: it answers the token with the public half of its key.
fn greet(world: &World, generation: u32) {
    let word = world.agent_command(&world.flow, generation);
    assert_eq!(word["command"], "greet");
    world.call(
        "stepfunctions",
        "send_task_success",
        json!({ "taskToken": word["token"], "output": json!({ "key": "public" }).to_string() }),
    );
}

fn session_up(world: &World, generation: u32) -> DriverReport {
    DriverReport::SessionUp {
        flow: world.flow.clone(),
        generation,
        key: "public".into(),
    }
}

fn session_gone(world: &World, generation: u32) -> DriverReport {
    DriverReport::SessionGone {
        flow: world.flow.clone(),
        generation,
        failure: None,
    }
}

/// Takes a report that the session is gone, and gives back why.
fn lost(world: &World, generation: u32) -> (String, String) {
    match world.report() {
        DriverReport::SessionGone {
            flow,
            generation: of,
            failure: Some(failure),
        } if flow == world.flow && of == generation => (failure.error.to_string(), failure.message),
        other => panic!("{other:?}"),
    }
}

fn compute_gone(world: &World) -> String {
    match world.report() {
        DriverReport::ComputeGone { compute, why } if compute == "c1" => why,
        other => panic!("{other:?}"),
    }
}

fn tasks(world: &World, status: &str) -> Vec<Value> {
    let listed = world.call(
        "ecs",
        "list_tasks",
        json!({ "cluster": world.stack, "desiredStatus": status }),
    );
    if listed["taskArns"].as_array().unwrap().is_empty() {
        return Vec::new();
    }
    let described = world.call(
        "ecs",
        "describe_tasks",
        json!({ "cluster": world.stack, "tasks": listed["taskArns"] }),
    );
    described["tasks"].as_array().unwrap().clone()
}

fn tried(world: &World) -> Vec<(String, String)> {
    let place = |call: Call| (text(&call.body["InstanceType"]), text(&call.body["SubnetId"]));
    world.calls("RunInstances").into_iter().map(place).collect()
}

fn no_capacity(world: &World, within: &str, times: u32) {
    let message = "We currently do not have sufficient capacity in the Availability Zone you requested";
    world.refuse("RunInstances", within, times, "InsufficientInstanceCapacity", message);
}

#[test]
fn a_compute_resource_is_an_instance_of_its_user_and_is_up_when_it_has_joined_the_cluster() {
    let world = World::with_compute(60);
    let first = world.ask(&create("c1"), MESSAGE);
    assert_eq!(world.ended(&first)["status"], "SUCCEEDED", "{}", world.story());
    let instance = world.wait_for("an instance", || world.instances().into_iter().next());
    // Four processors with 14 GiB.
    assert_eq!(instance["InstanceType"], "m6i.xlarge");
    assert_eq!(instance["SubnetId"], world.subnets[0]);
    assert_eq!(tag(&instance, "pfsession-compute"), "c1");
    assert_eq!(tag(&instance, "pfsession-workspace"), "team _a_");
    assert_eq!(tag(&instance, "pfsession-size"), "Standard_DS3_v2");
    assert_eq!(tag(&instance, "pfsession-user"), "alice@example.org");
    let run = &world.calls("RunInstances")[0].body;
    assert_eq!(run["ClientToken"], "c1-0-0");
    assert!(run["LaunchTemplate.LaunchTemplateId"].is_string(), "{run}");
    assert_eq!(
        (run["MinCount"].as_str(), run["MaxCount"].as_str()),
        (Some("1"), Some("1"))
    );
    world.wait_for("a look at the cluster", || {
        world.calls("ListContainerInstances").into_iter().next()
    });
    assert!(world.is_quiet(), "nothing is up before it has been seen");
    world.join_an_instance();
    assert_eq!(world.report(), DriverReport::ComputeUp { compute: "c1".into() });
    let look = &world.calls("ListContainerInstances")[0].body;
    assert_eq!(
        look["filter"],
        "attribute:pfsession.compute == c1 and agentConnected == true"
    );
    assert_eq!(world.named(), ["create-c1"]);
    assert_eq!(world.ended(&world.execution("create-c1"))["status"], "SUCCEEDED");
}

#[test]
fn a_zone_without_capacity_is_followed_by_the_next_and_then_by_another_type_of_the_same_size() {
    let world = World::with_compute(60);
    no_capacity(&world, "m6i.xlarge", 2);
    up(&world);
    let [a, b] = [&world.subnets[0], &world.subnets[1]];
    assert_eq!(
        tried(&world),
        [("m6i.xlarge", a), ("m6i.xlarge", b), ("m5.xlarge", a)].map(|(size, zone)| (size.to_owned(), zone.clone()))
    );
    // Another request is another token: EC2 holds one token to one set of parameters.
    let tokens: Vec<_> = world
        .calls("RunInstances")
        .iter()
        .map(|call| text(&call.body["ClientToken"]))
        .collect();
    assert_eq!(tokens, ["c1-0-0", "c1-0-1", "c1-1-0"]);
}

#[test]
fn no_capacity_anywhere_is_reported_by_name_and_leaves_no_instance() {
    let world = World::with_compute(60);
    no_capacity(&world, "", 6);
    world.ask(&create("c1"), MESSAGE);
    let why = compute_gone(&world);
    assert!(why.starts_with("Compute.NoCapacity: "), "{why}");
    assert!(
        why.contains("4 processors and 14336 MiB") && why.contains("sufficient capacity"),
        "{why}"
    );
    assert_eq!(tried(&world).len(), 6, "three types in two zones");
    assert!(world.instances().is_empty());
}

#[test]
fn what_ec2_refuses_for_another_reason_is_said_in_its_words() {
    let world = World::with_compute(60);
    let message = "You are not authorized to perform this operation.";
    world.refuse("RunInstances", "", 6, "UnauthorizedOperation", message);
    world.ask(&create("c1"), MESSAGE);
    let why = compute_gone(&world);
    assert!(
        why.starts_with("Compute.Failed: ") && why.contains("You are not authorized"),
        "{why}"
    );
}

#[test]
fn a_throttled_call_is_made_again_in_the_same_zone() {
    let world = World::with_compute(60);
    world.refuse("RunInstances", "", 2, "RequestLimitExceeded", "Request limit exceeded.");
    world.refuse("ListContainerInstances", "", 1, "ThrottlingException", "Rate exceeded");
    up(&world);
    let first = ("m6i.xlarge".to_owned(), world.subnets[0].clone());
    assert_eq!(tried(&world), [first.clone(), first.clone(), first]);
}

#[test]
fn a_size_that_no_instance_holds_is_refused_by_name() {
    let world = World::with_compute(60);
    let room = Some(Room {
        cpus: 128,
        memory_mib: 1,
        gpus: 0,
    });
    world.ask(&create_with(room), MESSAGE);
    let why = compute_gone(&world);
    assert!(
        why.starts_with("Compute.NoSuchSize: no instance type holds 128 processors"),
        "{why}"
    );
    assert!(world.calls("RunInstances").is_empty());
}

#[test]
fn a_size_with_a_gpu_is_refused_by_name_and_no_other_instance_is_ordered() {
    let world = World::with_compute(60);
    let room = Room::of("Standard_NC4as_T4_v3");
    world.ask(&create_with(room), MESSAGE);
    let why = compute_gone(&world);
    assert!(why.starts_with("Compute.NoGpu: no instance with a GPU"), "{why}");
    assert!(world.calls("RunInstances").is_empty());
}

#[test]
fn a_request_that_comes_twice_is_done_once_and_one_that_comes_after_the_answer_is_answered_again() {
    let world = World::with_compute(60);
    world.ask(&create("c1"), MESSAGE);
    world.wait_for("an instance", || world.instances().into_iter().next());
    // While the first is at work.
    let second = world.ask(&create("c1"), OTHER_MESSAGE);
    assert_eq!(world.ended(&second)["status"], "SUCCEEDED");
    assert_eq!(world.named(), ["create-c1"]);
    world.join_an_instance();
    assert_eq!(world.report(), DriverReport::ComputeUp { compute: "c1".into() });
    world.ended(&world.execution("create-c1"));
    assert!(world.is_quiet(), "one answer");
    // Whoever asks now has not heard. The same message twice is once, also now.
    for _ in 0..2 {
        let again = world.ask(&create("c1"), OTHER_MESSAGE);
        assert_eq!(world.ended(&again)["status"], "SUCCEEDED");
    }
    assert_eq!(world.report(), DriverReport::ComputeUp { compute: "c1".into() });
    assert_eq!(world.named(), ["create-c1", "create-c1-9c92662be6db"]);
    assert_eq!(world.calls("RunInstances").len(), 1);
    assert_eq!(world.instances().len(), 1);
}

#[test]
fn a_release_is_reported_when_the_instance_is_seen_gone_and_answered_also_when_it_never_was() {
    let world = World::with_compute(60);
    up(&world);
    let instance = text(&world.instances()[0]["InstanceId"]);
    let ended = || world.calls_about("TerminateInstances", &instance).len();
    world.ask(&release("c1"), MESSAGE);
    assert_eq!(compute_gone(&world), "it was released");
    assert!(world.instances().is_empty());
    assert_eq!((ended(), world.calls("DeleteItem").len()), (1, 1));
    world.ask(&release("c1"), OTHER_MESSAGE);
    assert_eq!(compute_gone(&world), "it was released");
    assert_eq!(ended(), 1);
}

#[test]
fn a_session_is_a_task_on_exactly_its_compute_resource_and_up_when_its_agent_has_spoken() {
    let world = World::with_compute(60);
    up(&world);
    world.ask(&launch(&world, 1, None), MESSAGE);
    greet(&world, 1);
    assert_eq!(world.report(), session_up(&world, 1));
    let run = &world.calls("RunTask")[0].body;
    assert_eq!(
        run["placementConstraints"],
        json!([{ "type": "memberOf", "expression": "attribute:pfsession.compute == c1" }])
    );
    assert_eq!(run["startedBy"], format!("pfsession/{}/{}", world.stack, world.flow));
    assert_eq!((&run["group"], &run["count"]), (&json!("1"), &json!(1)));
    assert_eq!(run["clientToken"], format!("{}-1", world.flow));
    assert!(text(&run["clientToken"]).len() <= 64);
    let role = "arn:aws:iam::123456789012:role/session";
    assert_eq!(
        (&run["overrides"]["taskRoleArn"], &run["overrides"]["executionRoleArn"]),
        (&json!(role), &json!(role))
    );
    let container = &run["overrides"]["containerOverrides"][0];
    assert_eq!((&container["memory"], &container["cpu"]), (&json!(14336), &json!(64)));
    let names = |variable: &Value| text(&variable["name"]);
    let variables = container["environment"].as_array().unwrap();
    let variables: Vec<String> = variables.iter().map(names).collect();
    assert_eq!(variables, ["PFSESSION_AGENT", "PFSESSION_SERVICE"]);
    let told: Value = serde_json::from_str(&text(&container["environment"][0]["value"])).unwrap();
    assert_eq!(
        (&told["flow"], &told["generation"], &told["until"]),
        (&json!(world.flow), &json!(1), &json!(1_795_512_660_000u64))
    );
    assert_eq!(told["settings"]["folder"], "/flows/joke");
    assert!(
        !run.to_string().to_lowercase().contains("token\":\"ey"),
        "a step's token is not among what ECS shows to everybody"
    );
    let definition = world.call(
        "ecs",
        "describe_task_definition",
        json!({ "taskDefinition": run["taskDefinition"] }),
    );
    let container = &definition["taskDefinition"]["containerDefinitions"][0];
    assert_eq!(container["image"], DEFAULT_IMAGE);
    assert_eq!(
        container["entryPoint"],
        json!(["/opt/pfsession/pfsession", "agent", "--container"])
    );
    assert_eq!(
        container["mountPoints"],
        json!([{ "sourceVolume": "agent", "containerPath": "/opt/pfsession", "readOnly": true }])
    );
    // Of all tasks of this identity, only this one may read the queue.
    let task = &tasks(&world, "RUNNING")[0];
    let id = text(&task["taskArn"]).rsplit('/').next().unwrap().to_owned();
    let policy = &world.calls_about("SetQueueAttributes", &world.flow)[0].body["Attributes"]["Policy"];
    let policy: Value = serde_json::from_str(&text(policy)).unwrap();
    assert_eq!(
        policy["Statement"][0]["Condition"]["StringLike"]["aws:userid"],
        format!("*:{id}")
    );
    assert_eq!(policy["Statement"][0]["Principal"]["AWS"], role);
}

#[test]
fn a_launch_asked_for_anew_asks_ecs_for_the_same_and_says_again_that_it_is_up() {
    let world = World::with_compute(60);
    up(&world);
    world.ask(&launch(&world, 1, None), MESSAGE);
    greet(&world, 1);
    assert_eq!(world.report(), session_up(&world, 1));
    world.ended(&world.execution(&format!("launch-{}-1", world.flow)));
    world.ask(&launch(&world, 1, None), OTHER_MESSAGE);
    greet(&world, 1);
    assert_eq!(world.report(), session_up(&world, 1));
    let runs = world.calls("RunTask");
    // The same token with the same parameters: the same task.
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0].body, runs[1].body);
    assert_eq!(
        world.calls("RegisterTaskDefinition").len(),
        1,
        "one definition for each image"
    );
}

#[test]
fn a_removed_session_is_reported_when_its_task_is_seen_stopped_and_is_never_launched_again() {
    let world = World::with_compute(60);
    up(&world);
    world.ask(&launch(&world, 1, None), MESSAGE);
    greet(&world, 1);
    assert_eq!(world.report(), session_up(&world, 1));
    world.ask(&remove(&world, 1), MESSAGE);
    assert_eq!(world.report(), session_gone(&world, 1));
    assert!(tasks(&world, "RUNNING").is_empty());
    let stopped = tasks(&world, "STOPPED");
    assert_eq!(
        (&stopped[0]["lastStatus"], &stopped[0]["stoppedReason"]),
        (&json!("STOPPED"), &json!("pfsession: removed"))
    );
    let queue = world.try_call(
        "sqs",
        "get_queue_url",
        json!({ "QueueName": format!("agent-{}-1", world.flow) }),
    );
    assert!(text(&queue["refused"]).contains("NonExistentQueue"), "{queue}");
    let runs = world.calls("RunTask").len();
    world.ask(&launch(&world, 1, None), OTHER_MESSAGE);
    assert_eq!(lost(&world, 1).0, "Session.Removed");
    assert_eq!(world.calls("RunTask").len(), runs);
    // It is asked again until it has been heard.
    world.ask(&remove(&world, 1), OTHER_MESSAGE);
    assert_eq!(world.report(), session_gone(&world, 1));
    // A newer generation is another session, which a late word about the older one leaves alone.
    world.ask(&launch(&world, 2, None), MESSAGE);
    greet(&world, 2);
    assert_eq!(world.report(), session_up(&world, 2));
    // That is a reset: on the instance that there is, and another one is not started.
    let places: Vec<Value> = world
        .calls("RunTask")
        .iter()
        .map(|run| run.body["placementConstraints"].clone())
        .collect();
    assert!(places.len() == 2 && places[0] == places[1], "{places:?}");
    assert_eq!(world.calls("RunInstances").len(), 1);
    world.ask(&remove(&world, 1), "2e1424d4-f796-459a-8184-9c92662be6dc");
    assert_eq!(world.report(), session_gone(&world, 1));
    assert_eq!(tasks(&world, "RUNNING")[0]["group"], "2");
}

#[test]
fn a_launch_that_is_removed_between_its_two_looks_ends_what_it_has_started() {
    let world = World::with_compute(60);
    up(&world);
    world.hold("RunTask");
    world.ask(&launch(&world, 1, None), MESSAGE);
    world.wait_for("the launch", || world.calls("RunTask").into_iter().next());
    world.ask(&remove(&world, 1), MESSAGE);
    // It has raised the fence, and finds no task.
    world.wait_for("the removal", || world.calls("ListTasks").into_iter().next());
    world.release();
    let (first, second) = (world.report(), world.report());
    let (mut removed, mut barred) = (0, 0);
    for report in [first, second] {
        match report {
            DriverReport::SessionGone { failure: None, .. } => removed += 1,
            DriverReport::SessionGone {
                failure: Some(failure), ..
            } if failure.error == Code::SessionRemoved => barred += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((removed, barred), (1, 1));
    assert_eq!(world.calls("RunTask").len(), 1);
    assert!(tasks(&world, "RUNNING").is_empty());
}

#[test]
fn a_launch_that_cannot_be_done_says_why_and_leaves_no_task() {
    let world = World::with_compute(3);
    up(&world);
    world.ask(&launch(&world, 1, Some("registry.example/base:latest")), MESSAGE);
    let (error, message) = lost(&world, 1);
    assert_eq!(error, "Session.ImageNotByDigest");
    assert!(message.contains("registry.example/base:latest"), "{message}");
    // The agent that came up too late says so.
    world.ask(&launch(&world, 2, None), MESSAGE);
    let word = world.agent_command(&world.flow, 2);
    world.call(
        "stepfunctions",
        "send_task_failure",
        json!({ "taskToken": word["token"], "error": "Session.LaunchTooLate", "cause": "Too late." }),
    );
    assert_eq!(
        lost(&world, 2),
        ("Session.LaunchTooLate".to_owned(), "Too late.".to_owned())
    );
    // One that never speaks is not waited for for ever.
    world.ask(&launch(&world, 3, None), MESSAGE);
    assert_eq!(lost(&world, 3).0, "Session.LaunchTimedOut");
    // A call that fails for good.
    world.refuse("RunTask", "", 9, "ClientException", "No such thing");
    world.ask(&launch(&world, 4, None), MESSAGE);
    let (error, message) = lost(&world, 4);
    assert_eq!(error, "Session.LaunchFailed");
    assert!(message.contains("No such thing"), "{message}");
    assert!(tasks(&world, "RUNNING").is_empty());
}

#[test]
fn a_task_that_stops_by_itself_is_a_lost_session_and_one_that_was_stopped_is_not() {
    let world = World::with_compute(60);
    let event = |reason: &str| {
        json!({
            "source": "aws.ecs", "detail-type": "ECS Task State Change",
            "detail": { "lastStatus": "STOPPED", "startedBy": format!("pfsession/{}/{}", world.stack, world.flow), "group": "3", "stoppedReason": reason },
        })
    };
    world.start(event("Essential container in task exited"));
    let (error, message) = lost(&world, 3);
    assert_eq!(error, "Session.ContainerEnded");
    assert!(message.contains("Essential container in task exited"), "{message}");
    world.start(event("CannotPullContainerError: pull access denied"));
    assert_eq!(lost(&world, 3).0, "Session.ImageNotPulled");
    for other in [
        event("pfsession: removed"),
        json!({ "source": "aws.ecs", "detail": { "lastStatus": "STOPPED", "startedBy": "somebody", "group": "x", "stoppedReason": "y" } }),
        json!({ "source": "aws.ecs", "detail": { "lastStatus": "STOPPED", "group": "service:x" } }),
    ] {
        let run = world.start(other);
        assert_eq!(world.ended(&run)["status"], "SUCCEEDED");
    }
    assert!(world.is_quiet());
}

#[test]
fn an_instance_that_ec2_takes_back_is_ended_and_reported_and_nobody_elses_is() {
    let world = World::with_compute(60);
    up(&world);
    let ours = text(&world.instances()[0]["InstanceId"]);
    let others = world.call(
        "ec2",
        "run_instances",
        json!({ "ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1 }),
    );
    let others = text(&others["Instances"][0]["InstanceId"]);
    let event = |instance: &str| json!({ "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning", "detail": { "instance-id": instance, "instance-action": "terminate" } });
    let run = world.start(event(&others));
    assert_eq!(world.ended(&run)["status"], "SUCCEEDED");
    assert!(world.is_quiet());
    world.start(event(&ours));
    let why = compute_gone(&world);
    assert!(why.starts_with("Compute.Lost: ") && why.contains(&ours), "{why}");
    assert!(world.instances().is_empty());
    let theirs = world.call("ec2", "describe_instances", json!({ "InstanceIds": [others] }));
    assert_eq!(theirs["Reservations"][0]["Instances"][0]["State"]["Name"], "running");
}

#[test]
fn the_sweep_finds_what_the_table_does_not_want_and_what_ec2_does_not_have() {
    let world = World::with_compute(60);
    up(&world);
    let row = |pk: String, sk: &str, body: Value| {
        let item = json!({ "pk": { "S": pk }, "sk": { "S": sk }, "body": { "S": body.to_string() } });
        world.call(
            "dynamodb",
            "put_item",
            json!({ "TableName": format!("{}-table", world.stack), "Item": item }),
        );
    };
    let sweep = || {
        let run = world.start(json!({ "request": "sweep" }));
        let ended = world.ended(&run);
        assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    };
    // No row: nobody wants the instance.
    sweep();
    assert_eq!(world.request(), release("c1"));
    row("COMPUTE#c1".into(), "COMPUTE", json!({ "id": "c1", "phase": "up" }));
    world.ask(&launch(&world, 1, None), MESSAGE);
    greet(&world, 1);
    assert_eq!(world.report(), session_up(&world, 1));
    let session = |generation: u32, phase: &str| {
        row(
            format!("FLOW#{}", world.flow),
            "SESSION",
            json!({ "session": { "generation": generation, "phase": phase } }),
        )
    };
    session(1, "ready");
    sweep();
    assert!(world.is_quiet(), "what is wanted and there is left alone");
    session(2, "ready");
    sweep();
    assert_eq!(world.request(), remove(&world, 1));
    session(1, "stopped");
    sweep();
    assert_eq!(world.request(), remove(&world, 1));
    session(1, "ready");
    row("COMPUTE#c1".into(), "COMPUTE", json!({ "id": "c1", "phase": "gone" }));
    sweep();
    assert_eq!(world.request(), release("c1"));
    // The other way round: the table and the driver's list have it for up, and it is gone.
    row("COMPUTE#c1".into(), "COMPUTE", json!({ "id": "c1", "phase": "up" }));
    let ids: Vec<_> = world
        .instances()
        .iter()
        .map(|instance| instance["InstanceId"].clone())
        .collect();
    world.call("ec2", "terminate_instances", json!({ "InstanceIds": ids }));
    sweep();
    assert_eq!(world.request(), release("c1"));
    assert!(world.is_quiet());
}

#[test]
fn what_is_no_request_fails_by_name() {
    let world = World::with_compute(60);
    for input in [
        json!({}),
        json!({ "request": "destroy" }),
        json!([{ "messageId": MESSAGE, "body": "{\"request\":\"destroy\"}" }]),
    ] {
        let run = world.start(input);
        assert_eq!(world.ended(&run)["error"], "Compute.UnknownRequest");
    }
}
