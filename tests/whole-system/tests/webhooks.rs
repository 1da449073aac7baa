//! Webhooks, from the command line that adds them to what they do with a session, over real HTTP.

use contract::{
    Phase,
    http::{Events, Problem},
    row::{OperationRow, RunStatus},
    webhook::{MOST_BYTES, Taken, Webhooks},
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use whole_system::{Api, Machine, flow, wait_for};

const AT_MOST: Duration = Duration::from_secs(120);

/// A repository with a flow in it, as somebody has it who works on it.
fn repository() -> (tempfile::TempDir, std::path::PathBuf) {
    let repository = tempfile::tempdir().expect("there is room");
    let folder = repository.path().join("flows/joke");
    fs::create_dir_all(&folder).expect("a folder");
    for entry in fs::read_dir(flow("one-node")).expect("the flow is there").flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("a copy");
        }
    }
    fs::write(folder.join("requirements.txt"), "").expect("a file");
    fs::create_dir(repository.path().join(".git")).expect("a folder");
    (repository, folder)
}

struct Hook {
    address: String,
    secret: String,
}

fn add(machine: &Machine, arguments: &[&str]) -> Hook {
    let arguments: Vec<&str> = ["webhook", "add", "--json"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    let said: Value = serde_json::from_str(&machine.succeed(&arguments)).expect("JSON");
    Hook {
        address: said["address"].as_str().expect("an address").to_owned(),
        secret: said["secret"].as_str().unwrap_or_default().to_owned(),
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key will do");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn post(address: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let mut request = agent.post(address).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.send(body).expect("it answers");
    (
        answer.status().as_u16(),
        answer.body_mut().read_to_string().expect("text"),
    )
}

fn github(hook: &Hook, id: &str, event: &str, payload: &Value) -> (u16, String) {
    let body = payload.to_string();
    let signature: String = mac(hook.secret.as_bytes(), &[body.as_bytes()])
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let signature = format!("sha256={signature}");
    let headers = [
        ("X-GitHub-Delivery", id),
        ("X-GitHub-Event", event),
        ("X-Hub-Signature-256", &signature),
    ];
    post(&hook.address, &headers, &body)
}

fn standard(hook: &Hook, id: &str, seconds: u64, body: &str) -> (u16, String) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let key = STANDARD
        .decode(hook.secret.strip_prefix("whsec_").expect("whsec_"))
        .expect("base64");
    let time = seconds.to_string();
    let signature = mac(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", body.as_bytes()]);
    let signature = format!("v1,{}", STANDARD.encode(signature));
    let headers = [
        ("webhook-id", id),
        ("webhook-timestamp", &time),
        ("webhook-signature", &signature),
    ];
    post(&hook.address, &headers, body)
}

fn push(files: &[&str]) -> Value {
    json!({
        "ref": "refs/heads/main", "forced": false, "created": false, "deleted": false,
        "repository": { "full_name": "acme/flows" }, "commits": [{ "modified": files }],
    })
}

fn taken((status, body): (u16, String), expected: u16) -> Vec<String> {
    assert_eq!(status, expected, "{body}");
    let taken: Taken = serde_json::from_str(&body).expect("it says what it became");
    assert_eq!(taken.already, expected == 200);
    taken.commands
}

fn refused((status, body): (u16, String)) -> (u16, String) {
    let problem: Problem = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}"));
    (status, problem.error.error.to_string())
}

fn history(api: &Api, folder: &Path) -> usize {
    let events: Events = api
        .get(&format!("/v1/sessions/{}/events", api.flow(folder).key()))
        .expect("a history");
    events.events.len()
}

#[test]
fn a_push_installs_a_release_runs_and_a_deployment_stops_and_what_is_not_genuine_changes_nothing() {
    let machine = Machine::new();
    let (_repository, folder) = repository();
    let flow = folder.display().to_string();
    machine.up();
    let api = machine.api();
    machine.succeed(&["start", &flow]);

    let hook = add(
        &machine,
        &[
            &flow,
            "--on",
            "push",
            "--repository",
            "acme/flows",
            "--branch",
            "main",
            "--then",
            "install",
        ],
    );
    assert!(hook.address.ends_with("/webhook/local/github"), "{}", hook.address);
    // The sender's secret is shown once; the other rules about it have the same address.
    let other = add(
        &machine,
        &[
            &flow,
            "--on",
            "release",
            "--tag",
            "v*",
            "--then",
            "run",
            "--inputs",
            "text=hello",
        ],
    );
    assert_eq!((&other.address, other.secret.as_str()), (&hook.address, ""));
    add(
        &machine,
        &[
            &flow,
            "--on",
            "deployment",
            "--environment",
            "production",
            "--then",
            "stop",
        ],
    );
    let webhooks: Webhooks = api.get("/v1/workspaces/local/webhooks").expect("the rules");
    assert_eq!(
        webhooks.rules[0].only.paths,
        ["flows/joke/flow.dag.yaml", "flows/joke/requirements.txt"],
        "without --path, a push has to touch what says what is installed"
    );

    // What is not genuine, too large or about nothing.
    let before = history(&api, &folder);
    let touched = push(&["flows/joke/requirements.txt"]);
    let forger = Hook {
        address: hook.address.clone(),
        secret: "a secret of mine".into(),
    };
    let nobody = Hook {
        address: hook.address.replace("github", "gitlab"),
        secret: hook.secret.clone(),
    };
    let not_genuine = (401, "Webhook.NotGenuine".to_owned());
    assert_eq!(refused(github(&forger, "d-1", "push", &touched)), not_genuine);
    assert_eq!(
        github(&forger, "d-1", "push", &touched),
        github(&nobody, "d-1", "push", &touched)
    );
    assert_eq!(refused(post(&hook.address, &[], "{}")), not_genuine);
    let large = json!({ "ref": "x".repeat(MOST_BYTES) });
    assert_eq!(github(&hook, "d-1", "push", &large).0, 413);
    assert_eq!(github(&hook, "d-1", "ping", &json!({ "zen": "x" })).0, 204);
    assert_eq!(github(&hook, "d-1", "push", &push(&["README.md"])).0, 204);
    assert_eq!(
        github(
            &hook,
            "d-1",
            "deployment",
            &json!({ "action": "created", "deployment": { "environment": "test" } })
        )
        .0,
        204
    );

    // The push installs, once.
    let ids = taken(github(&hook, "d-2", "push", &touched), 202);
    let [id] = &ids[..] else { panic!("{ids:?}") };
    assert!(id.starts_with("d-2-"), "the command has the delivery's id: {id}");
    let row: OperationRow = api.operation(id, AT_MOST);
    assert!(row.failure.is_none(), "{row:?}");
    assert_eq!(row.by, api.user, "the command is its maker's");
    let installed = history(&api, &folder);
    assert_eq!(
        taken(github(&hook, "d-2", "push", &touched), 200),
        ids,
        "the sender tries again"
    );
    assert_eq!(
        taken(github(&hook, "d-3", "push", &touched), 200),
        ids,
        "somebody sends a copy under another id"
    );

    // The release runs, and what had been sent twice has done nothing by then.
    let release = json!({ "action": "published", "release": { "tag_name": "v1" } });
    let ids = taken(github(&hook, "d-4", "release", &release), 202);
    let run = api.run_row(&ids[0], AT_MOST);
    assert_eq!(run.status, RunStatus::Completed, "{run:?}");
    let events: Events = api
        .get(&format!("/v1/sessions/{}/events", api.flow(&folder).key()))
        .expect("a history");
    let installs = |events: &[contract::row::LogRow]| {
        let wanted = events.iter().filter(|row| {
            serde_json::to_string(&row.event).is_ok_and(|text| text.contains("d-2-") && text.contains("\"install\""))
        });
        wanted.count()
    };
    assert_eq!(installs(&events.events), 1, "{:?}", events.events);
    assert!(installed > before && events.events.iter().all(|row| !format!("{row:?}").contains("d-1")));

    // The deployment stops.
    let deployment = json!({ "action": "created", "deployment": { "environment": "production" } });
    let ids = taken(github(&hook, "d-5", "deployment", &deployment), 202);
    api.operation(&ids[0], AT_MOST);
    let phase = || api.session(&folder).map(|session| session.phase);
    assert_eq!(phase(), Some(Phase::Stopped));

    // A secret changes: both are good, then the first is not any more.
    let rotate = || {
        let said: Value =
            serde_json::from_str(&machine.succeed(&["webhook", "rotate", "github", "--json"])).expect("JSON");
        Hook {
            address: hook.address.clone(),
            secret: said["secret"].as_str().expect("a secret").to_owned(),
        }
    };
    let second = rotate();
    for hook in [&hook, &second] {
        assert_eq!(github(hook, "d-6", "ping", &json!({})).0, 204);
    }
    let third = rotate();
    assert_eq!(refused(github(&hook, "d-6", "ping", &json!({}))), not_genuine);
    assert_eq!(github(&third, "d-6", "ping", &json!({})).0, 204);

    // No secret is in a row, a message or a log.
    for secret in [&hook.secret, &second.secret, &third.secret] {
        let found = Command::new("grep")
            .args(["-rlF", "--exclude=webhooks.json", secret])
            .arg(machine.state())
            .output()
            .expect("grep runs");
        assert_eq!(
            String::from_utf8_lossy(&found.stdout),
            "",
            "a secret is where it does not belong"
        );
    }

    // Nobody writes over what somebody else has changed, nor over secrets that cannot be read.
    let path = "/v1/workspaces/local/webhooks";
    let stale: Webhooks = api.get(path).expect("the rules");
    api.put(path, &stale).expect("they are as they were read");
    let (status, said) = api.put(path, &stale).expect_err("they have changed");
    assert_eq!(status, 409);
    assert_eq!(
        said,
        "Webhook.Changed: The rules of local were changed meanwhile. Read them again, and change those."
    );
    let secrets = machine.state().join("webhooks.json");
    let kept = fs::read(&secrets).expect("the secrets");
    fs::write(&secrets, "no JSON").expect("a file");
    let said = machine.run(&["webhook", "rotate", "github"]);
    let said = String::from_utf8_lossy(&said.stderr).replace(&machine.state().display().to_string(), "STATE");
    assert_eq!(
        said,
        "error: The secret of github cannot be kept: STATE/webhooks.json is not what it should be; move it away [Webhook.NoSecret]\n  next: put that right, and try again\n"
    );
    fs::write(&secrets, kept).expect("a file");

    // Without its rules the sender is nobody.
    for rule in ["joke-push-install", "joke-release-run", "joke-deployment-stop"] {
        machine.succeed(&["webhook", "remove", rule]);
    }
    assert_eq!(refused(github(&third, "d-7", "ping", &json!({}))), not_genuine);
}

#[test]
fn a_standard_webhook_starts_a_session_and_a_stale_one_does_not() {
    let machine = Machine::new();
    let (_repository, folder) = repository();
    let flow = folder.display().to_string();
    machine.up();
    let api = machine.api();
    let hook = add(
        &machine,
        &[
            &flow,
            "--kind",
            "standard-webhooks",
            "--from",
            "shop",
            "--on",
            "invoice.paid",
            "--then",
            "start",
            "--idle",
            "10m",
        ],
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let body = r#"{"type": "invoice.paid", "timestamp": "2026-11-24T12:00:00Z", "data": {}}"#;
    for far in [now - 400, now + 400] {
        assert_eq!(
            refused(standard(&hook, "msg_1", far, body)),
            (400, "Webhook.Stale".to_owned())
        );
    }
    assert!(api.session(&folder).is_none(), "what is stale changes nothing");
    let ids = taken(standard(&hook, "msg_1", now, body), 202);
    // Each try of the sender has a time of its own, and the same id.
    assert_eq!(taken(standard(&hook, "msg_1", now - 1, body), 200), ids);
    api.operation(&ids[0], AT_MOST);
    let session = wait_for("the session", AT_MOST, || {
        api.session(&folder).filter(|session| session.phase == Phase::Ready)
    });
    assert_eq!(session.settings.idle.value, 600_000);
    let other = standard(&hook, "msg_2", now, r#"{"type": "invoice.sent", "data": {}}"#);
    assert_eq!(other, (204, String::new()));
}
