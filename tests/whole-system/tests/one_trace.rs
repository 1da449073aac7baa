//! One trace follows an operation. What takes the segments here is a socket of the test's own in
//! the place of the X-Ray daemon: it shows which segments there are and how they hang together, not
//! that X-Ray draws them.

use contract::row::OperationStatus;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::{collections::BTreeMap, net::UdpSocket, time::Duration};
use whole_system::{Machine, flow, write_flow};

const LONG: Duration = Duration::from_secs(300);
const ROOT: &str = "1-5759e988-bd862e3fe1be46a994272793";

/// A socket for segments, and a machine whose functions send them there.
fn traced() -> (UdpSocket, Machine) {
    let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
    daemon.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut machine = Machine::new();
    let address = daemon.local_addr().unwrap().to_string();
    machine.variables.push(("AWS_XRAY_DAEMON_ADDRESS".to_owned(), address));
    machine.up();
    (daemon, machine)
}

#[test]
fn one_trace_follows_a_start_from_the_request_through_the_queues_the_functions_and_the_state_machine() {
    let (daemon, machine) = traced();
    let (api, folder) = (machine.api(), flow("one-node"));
    let command = json!({ "id": "traced-start", "flow": api.flow(&folder), "command": "start", "settings": {} });
    api.send_traced(&command, &format!("Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=1"))
        .unwrap();
    assert_eq!(api.operation("traced-start", LONG).status, OperationStatus::Succeeded);

    // The segments of this trace by function and step.
    let mut seen: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut packet = [0; 65_536];
    while seen.len() < 5 {
        let length = daemon
            .recv(&mut packet)
            .unwrap_or_else(|e| panic!("no more segments ({e}) after {seen:#?}"));
        let text = std::str::from_utf8(&packet[..length]).unwrap();
        let (head, document) = text.split_once('\n').unwrap();
        assert_eq!(head, r#"{"format":"json","version":1}"#);
        let segment: Value = serde_json::from_str(document).unwrap();
        let name = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        if segment["trace_id"] == ROOT {
            let step = name(&segment["annotations"]["step"]);
            seen.insert((name(&segment["name"]), step), segment);
        }
    }
    let of = |function: &str, step: &str| {
        seen.get(&(function.to_owned(), step.to_owned()))
            .unwrap_or_else(|| panic!("no {function} {step} in {seen:#?}"))
    };
    let (asked, accepted) = (of("api", ""), of("accept-command", ""));
    assert_eq!(asked["parent_id"], "53995c3f42cd8ad8");
    assert_eq!(accepted["parent_id"], asked["id"]);
    assert_eq!(accepted["annotations"]["id"], "traced-start");
    let steps = [
        ("start-session", "claim-compute"),
        ("start-session", "launch-session"),
        ("install-packages", "install-packages"),
    ];
    for (function, step) in steps {
        let segment = of(function, step);
        // The execution goes on with the trace of who started it.
        assert_eq!(segment["parent_id"], accepted["id"], "{step}");
        assert_eq!(segment["annotations"]["operation"], "traced-start", "{step}");
        assert_eq!(segment["fault"], false, "{step}");
    }
    machine.succeed(&["stop", folder.to_str().unwrap()]);
}

#[test]
fn one_trace_follows_a_webhook_to_the_operation_that_it_becomes() {
    let (daemon, machine) = traced();
    let folder = machine.state().join("hooked");
    write_flow(&folder, "@tool\ndef one(text: str) -> str:\n    return text\n", None);
    let path = folder.to_str().unwrap();
    let rule = ["webhook", "add", "--json", path, "--on", "deployment", "--then", "stop"];
    let hook: Value = serde_json::from_str(&machine.succeed(&rule)).unwrap();
    let word = |name: &str| hook[name].as_str().unwrap().to_owned();
    let payload = json!({ "action": "created", "deployment": { "environment": "production" } });
    let taken = deliver(
        &word("address"),
        &word("secret"),
        ("deployment", &payload),
        &format!("Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=1"),
    );
    let id = taken["commands"][0].as_str().unwrap_or_else(|| panic!("{taken}"));
    machine.api().operation(id, LONG);

    let (mut hooked, mut accepted) = (None, None);
    let mut packet = [0; 65_536];
    while hooked.is_none() || accepted.is_none() {
        let length = daemon.recv(&mut packet).expect("both have a segment");
        let text = std::str::from_utf8(&packet[..length]).unwrap();
        let segment: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
        if segment["trace_id"] == ROOT {
            match segment["name"].as_str() {
                Some("webhook") => hooked = Some(segment),
                Some("accept-command") => accepted = Some(segment),
                _ => {}
            }
        }
    }
    let (hooked, accepted) = (hooked.unwrap(), accepted.unwrap());
    assert_eq!(hooked["parent_id"], "53995c3f42cd8ad8");
    assert_eq!(
        hooked["annotations"],
        json!({}),
        "what a delivery says is not in the trace"
    );
    assert_eq!(accepted["parent_id"], hooked["id"]);
    assert_eq!(accepted["annotations"]["id"], id);
}

/// Delivers as GitHub does, as a part of a trace, and gives back what is answered.
fn deliver(address: &str, secret: &str, (event, payload): (&str, &Value), trace: &str) -> Value {
    let body = payload.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let request = agent
        .post(address)
        .header("x-github-delivery", "d-1")
        .header("x-github-event", event)
        .header("x-hub-signature-256", format!("sha256={signature}"))
        .header("x-amzn-trace-id", trace);
    request.send(body).unwrap().body_mut().read_json().unwrap()
}
