//! The host as a whole: functions, the front, and what happens when something is killed.

mod common;

use aws_sdk_sfn::types::ExecutionStatus;
use common::{Host, folder};
use std::{
    os::unix::process::ExitStatusExt,
    process::Command,
    time::{Duration, Instant},
};

const HOST_DEADLINE: Duration = Duration::from_secs(60);

async fn command(host: &Host, body: &str, group: &str, id: &str) -> bool {
    let send = host
        .sqs()
        .send_message()
        .queue_url(&host.file.commands_queue_url)
        .message_body(body);
    send.message_group_id(group)
        .message_deduplication_id(id)
        .send()
        .await
        .is_ok()
}

fn execution_arn(name: &str) -> String {
    format!("arn:aws:states:us-east-1:000000000000:execution:lifecycle:{name}")
}

/// Waits until an execution has ended, and says how. `None` when the host has gone meanwhile.
async fn end_of(host: &Host, name: &str) -> Option<ExecutionStatus> {
    let sfn = host.sfn_as(host.key());
    let begun = Instant::now();
    loop {
        match sfn.describe_execution().execution_arn(execution_arn(name)).send().await {
            Ok(described) if *described.status() != ExecutionStatus::Running => {
                return Some(described.status().clone());
            }
            Ok(_) => {}
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_execution_does_not_exist()) => {}
            Err(_) => return None,
        }
        assert!(begun.elapsed() < HOST_DEADLINE, "{name} does not end\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The messages of a queue: visible, in flight, delayed.
async fn counts(host: &Host, queue: &str) -> [u32; 3] {
    use aws_sdk_sqs::types::QueueAttributeName::{
        All, ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
        ApproximateNumberOfMessagesNotVisible as InFlight,
    };
    let all = host
        .sqs()
        .get_queue_attributes()
        .queue_url(host.queue_url(queue))
        .attribute_names(All)
        .send()
        .await;
    let all = all.expect("attributes").attributes.expect("attributes");
    [Visible, InFlight, Delayed].map(|name| all[&name].parse().expect("a number"))
}

async fn until_counts(host: &Host, queue: &str, expected: [u32; 3]) {
    let begun = Instant::now();
    loop {
        let counts = counts(host, queue).await;
        if counts == expected {
            return;
        }
        assert!(
            begun.elapsed() < HOST_DEADLINE,
            "{queue} has {counts:?}\n{}",
            host.log()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a queue has nothing more, in flight or not.
async fn drained(host: &Host, queue: &str) {
    until_counts(host, queue, [0, 0, 0]).await;
}

#[tokio::test]
async fn a_command_becomes_an_execution_that_goes_through_the_functions() {
    let folder = folder();
    let host = Host::start(&folder);
    assert!(command(&host, r#"{"execution": "a", "kind": "start"}"#, "f", "a").await);
    assert_eq!(end_of(&host, "a").await, Some(ExecutionStatus::Succeeded));
    let history = host
        .sfn_as(host.key())
        .get_execution_history()
        .execution_arn(execution_arn("a"))
        .send()
        .await
        .expect("history");
    let tasks = history
        .events()
        .iter()
        .filter(|event| event.r#type().as_str() == "TaskSucceeded")
        .count();
    assert_eq!(tasks, 3);
}

#[tokio::test]
async fn a_message_whose_function_fails_or_crashes_comes_again() {
    let folder = folder();
    let host = Host::start(&folder);
    for what in ["error", "crash"] {
        let body = format!(r#"{{"do": "{what}", "execution": "{what}", "kind": "stop"}}"#);
        assert!(command(&host, &body, what, what).await);
        assert_eq!(end_of(&host, what).await, Some(ExecutionStatus::Succeeded), "{what}");
    }
    drained(&host, "commands.fifo").await;
}

#[tokio::test]
async fn a_function_that_hangs_is_killed_and_holds_up_only_its_own_group() {
    let folder = folder();
    let host = Host::start(&folder);
    assert!(
        command(
            &host,
            r#"{"do": "hang", "execution": "late", "kind": "stop"}"#,
            "slow",
            "late"
        )
        .await
    );
    // Else both may be one batch.
    until_counts(&host, "commands.fifo", [0, 1, 0]).await;
    let begun = Instant::now();
    assert!(command(&host, r#"{"execution": "quick", "kind": "stop"}"#, "quick", "quick").await);
    assert_eq!(end_of(&host, "quick").await, Some(ExecutionStatus::Succeeded));
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "another process takes it: {:?}\n{}",
        begun.elapsed(),
        host.log()
    );
    assert_eq!(end_of(&host, "late").await, Some(ExecutionStatus::Succeeded));
    assert!(host.log().contains("Function.TimedOut"));
}

#[tokio::test]
async fn the_front_answers_several_at_once_and_survives_a_crash() {
    let folder = folder();
    let host = Host::start(&folder);
    let (status, body) = host.http("GET /v1/hello?wait=5 HTTP/1.1");
    assert_eq!((status, body.contains(r#""wait":"5""#)), (200, true), "{body}");
    assert_eq!(host.http("GET /v1/crash HTTP/1.1").0, 502);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| host.http("GET /v1/wait HTTP/1.1").0))
            .collect();
        assert!(all.into_iter().all(|one| one.join().expect("an answer") == 200));
    });
    assert!(
        begun.elapsed() < Duration::from_millis(6 * 300),
        "one after the other: {:?}",
        begun.elapsed()
    );
    assert_eq!(host.http("GET /host/health HTTP/1.1").0, 200);
    assert_eq!(host.http("GET /elsewhere HTTP/1.1").0, 404);
}

#[tokio::test]
async fn a_host_killed_at_any_point_goes_on_where_it_was() {
    for point in local::faults::points()
        .iter()
        .filter(|point| **point != "driver.handled")
    {
        let folder = folder();
        let plan = format!("seed=1,kill-host@{point}=2");
        let mut host = Host::start_with(&folder, &[("PFSESSION_FAULTS", &plan)]).expect("a host");
        // What was acknowledged must come to its end; what was not may be sent again, and is one.
        let mut acknowledged = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let body = format!(r#"{{"execution": "{name}", "kind": "reset"}}"#);
            if command(&host, &body, name, name).await {
                acknowledged.push(name);
            }
        }
        assert_eq!(host.wait().signal(), Some(9), "{point} is never passed\n{}", host.log());
        let endpoint = host.file.endpoint.clone();
        drop(host);
        let host = Host::start(&folder);
        assert_eq!(host.file.endpoint, endpoint, "agents know this address");
        for name in acknowledged {
            assert_eq!(
                end_of(&host, name).await,
                Some(ExecutionStatus::Succeeded),
                "{point}: {name}"
            );
        }
        for queue in ["commands.fifo", "start-session", "stop-session", "install-packages"] {
            drained(&host, queue).await;
        }
    }
}

#[tokio::test]
async fn everything_comes_to_its_end_under_injected_faults() {
    let folder = folder();
    let plan = "seed=7,duplicate=0.1,reorder=0.2,delay=0.05,drop-reply=0.05,kill-function=0.05";
    println!("{plan}");
    let host = Host::start_with(&folder, &[("PFSESSION_FAULTS", plan)]).expect("a host");
    let names: Vec<String> = (0..20).map(|n| format!("e{n}")).collect();
    for name in &names {
        let body = format!(r#"{{"execution": "{name}", "kind": "start"}}"#);
        while !command(&host, &body, name, name).await {}
    }
    for name in &names {
        let begun = Instant::now();
        let end = loop {
            // Replies of this very question are dropped as well.
            if let Some(end) = end_of(&host, name).await {
                break end;
            }
            assert!(begun.elapsed() < HOST_DEADLINE);
        };
        assert_eq!(end, ExecutionStatus::Succeeded, "{name}");
    }
    let log = host.log();
    for kind in ["duplicate", "reorder", "drop-reply", "kill-function"] {
        assert!(log.contains(&format!("kind=\"{kind}\"")), "no {kind} was injected");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn functions_end_with_a_host_that_is_killed() {
    let folder = folder();
    let host = Host::start(&folder);
    let functions = || -> Vec<u32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", host.file.pid)).expect("threads");
        let children =
            |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let children: Vec<_> = threads.filter_map(Result::ok).map(children).collect();
        children
            .iter()
            .flat_map(|pids| pids.split_whitespace())
            .filter_map(|pid| pid.parse().ok())
            .collect()
    };
    let begun = Instant::now();
    while functions().len() < 8 {
        assert!(begun.elapsed() < HOST_DEADLINE, "functions are missing\n{}", host.log());
        std::thread::yield_now();
    }
    let functions = functions();
    host.kill();
    let begun = Instant::now();
    let is_alive =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while functions.iter().any(is_alive) {
        assert!(begun.elapsed() < HOST_DEADLINE, "functions live on");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_state_folder_has_one_host() {
    let folder = folder();
    let host = Host::start(&folder);
    let Err(second) = Host::start_with(&folder, &[]) else {
        panic!("two hosts")
    };
    assert_eq!(second.code(), Some(1));
    assert!(host.log().contains("another host already keeps"), "{}", host.log());
    assert_eq!(host.http("GET /host/health HTTP/1.1").0, 200);
}

#[tokio::test]
async fn the_host_leaves_when_its_user_says_so_and_nobody_else() {
    let folder = folder();
    let mut host = Host::start(&folder);
    assert_eq!(host.http("POST /host/down HTTP/1.1\r\nContent-Length: 0").0, 401);
    assert_eq!(
        host.http("POST /host/down HTTP/1.1\r\nAuthorization: Bearer a.b.c\r\nContent-Length: 0")
            .0,
        401
    );
    let down = format!(
        "POST /host/down HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Length: 0",
        host.file.token
    );
    assert_eq!(host.http(&down).0, 200);
    assert!(host.wait().success());
    assert!(!folder.path().join("state/host.json").exists());
}

#[tokio::test]
async fn a_host_that_nobody_needs_leaves_and_one_with_a_session_stays() {
    let folder = folder();
    let mut host = Host::start_with(&folder, &[("IDLE_EXIT_MS", "300")]).expect("a host");
    assert!(host.wait().success());
    let mut host = Host::start_with(&folder, &[("IDLE_EXIT_MS", "300")]).expect("a host");
    host.sqs()
        .create_queue()
        .queue_name("agent-f-1")
        .send()
        .await
        .expect("a session's queue");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(900) {
        assert_eq!(host.http("GET /host/health HTTP/1.1").0, 200, "{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    host.sqs()
        .delete_queue()
        .queue_url(host.queue_url("agent-f-1"))
        .send()
        .await
        .expect("the session has ended");
    assert!(host.wait().success());
}

#[test]
fn boto3_sends_and_receives() {
    let python = tools::python();
    let folder = folder();
    let host = Host::start(&folder);
    let script = r#"
import boto3, json, sys
host = json.load(open(sys.argv[1]))
keys = dict(endpoint_url=host["endpoint"], region_name=host["region"],
            aws_access_key_id=host["access_key_id"], aws_secret_access_key=host["secret_access_key"])
sqs = boto3.client("sqs", **keys)
url = sqs.create_queue(QueueName="boto", Attributes={"VisibilityTimeout": "5"})["QueueUrl"]
value = {"a": {"DataType": "String", "StringValue": "b"}, "c": {"DataType": "Binary", "BinaryValue": b"xyz"}}
sqs.send_message(QueueUrl=url, MessageBody="héllo", MessageAttributes=value)
got = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], AttributeNames=["All"], WaitTimeSeconds=5)["Messages"][0]
assert got["Body"] == "héllo" and got["Attributes"]["SenderId"] == "ann" and got["MessageAttributes"]["c"]["BinaryValue"] == b"xyz"
sqs.delete_message(QueueUrl=url, ReceiptHandle=got["ReceiptHandle"])
try:
    sqs.get_queue_url(QueueName="nowhere")
    raise SystemExit("there is no such queue")
except sqs.exceptions.QueueDoesNotExist:
    pass
table = boto3.resource("dynamodb", **keys).Table("pfsession-Table")
table.put_item(Item={"pk": "a", "sk": "b", "n": 1})
assert table.get_item(Key={"pk": "a", "sk": "b"}, ConsistentRead=True)["Item"]["n"] == 1
machines = boto3.client("stepfunctions", **keys).list_state_machines()["stateMachines"]
assert machines[0]["name"] == "lifecycle", machines
"#;
    let file = folder.path().join("state/host.json");
    let output = Command::new(&python)
        .arg("-c")
        .arg(script)
        .arg(file)
        .output()
        .expect("python3");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        host.log()
    );
}
