//! Callers with and without an answer.

mod common;

use common::{Host, folder};
use rusqlite::Connection;
use std::fs;
use tempfile::TempDir;

/// A host at which the agent of flow `f`, generation 2, has a key, and queues.
async fn with_agent(folder: &TempDir) -> (Host, (String, String)) {
    drop(Host::start(folder));
    let store = Connection::open(folder.path().join("state/queues.db")).expect("the store");
    let caller = r#"{"Agent":{"flow":"f","generation":2}}"#;
    store
        .execute(
            "INSERT INTO credential (key_id, secret, caller) VALUES ('agentkey', 'agentsecret', ?1)",
            [caller],
        )
        .expect("a key");
    drop(store);
    let host = Host::start(folder);
    for name in ["agent-f-1", "agent-f-2"] {
        host.sqs()
            .create_queue()
            .queue_name(name)
            .send()
            .await
            .expect("a queue");
    }
    (host, ("agentkey".into(), "agentsecret".into()))
}

#[tokio::test]
async fn an_agent_uses_its_own_queue_and_reports_and_is_refused_everywhere_else() {
    let folder = folder();
    let (host, key) = with_agent(&folder).await;
    let agent = host.sqs_as(key.clone());
    let own = host.queue_url("agent-f-2");
    host.sqs()
        .send_message()
        .queue_url(&own)
        .message_body("work")
        .send()
        .await
        .expect("sent");
    let got = agent
        .receive_message()
        .queue_url(&own)
        .send()
        .await
        .expect("its own")
        .messages
        .expect("a message");
    let receipt = got[0].receipt_handle().expect("a receipt");
    agent
        .delete_message()
        .queue_url(&own)
        .receipt_handle(receipt)
        .send()
        .await
        .expect("its own");
    agent
        .send_message()
        .queue_url(host.queue_url("reports"))
        .message_body("{}")
        .send()
        .await
        .expect("a report");

    macro_rules! refused {
        ($call:expr) => {{
            let error = $call.send().await.expect_err("an agent was let in");
            let raw = error.raw_response().expect("an answer").status().as_u16();
            assert_eq!(raw, 403, "{error:?}");
        }};
    }
    for other in ["agent-f-1", "reports", "commands.fifo"] {
        refused!(agent.receive_message().queue_url(host.queue_url(other)));
        refused!(
            agent
                .delete_message()
                .queue_url(host.queue_url(other))
                .receipt_handle("1-0")
        );
    }
    for other in ["agent-f-2", "agent-f-1", "start-session", "compute-requests"] {
        refused!(agent.send_message().queue_url(host.queue_url(other)).message_body("{}"));
    }
    refused!(agent.purge_queue().queue_url(&own));
    refused!(agent.list_queues());
    refused!(agent.create_queue().queue_name("mine"));
    refused!(host.dynamo_as(key.clone()).scan().table_name("pfsession-Table"));
    refused!(host.sfn_as(key).list_state_machines());
}

#[tokio::test]
async fn a_wrong_secret_an_unknown_key_and_no_signature_are_refused() {
    let folder = folder();
    let host = Host::start(&folder);
    for (key, code) in [
        (
            (host.file.access_key_id.clone(), "wrong".to_owned()),
            "InvalidSignatureException",
        ),
        (
            ("unknown".to_owned(), host.file.secret_access_key.clone()),
            "UnrecognizedClientException",
        ),
    ] {
        let refused = host.sqs_as(key).list_queues().send().await.expect_err(code);
        assert_eq!(refused.raw_response().expect("an answer").status().as_u16(), 403);
        assert_eq!(refused.into_service_error().meta().code(), Some(code));
    }
    let (status, body) = host.http("POST / HTTP/1.1\r\nX-Amz-Target: AmazonSQS.ListQueues\r\nContent-Length: 0");
    assert_eq!(
        (status, body.contains("MissingAuthenticationToken")),
        (403, true),
        "{body}"
    );
    host.sqs().list_queues().send().await.expect("the right key");
}

#[tokio::test]
async fn the_runtime_api_answers_no_stranger() {
    let folder = folder();
    let host = Host::start(&folder);
    let request = "GET /fn/api/0123456789abcdef0123456789abcdef/2018-06-01/runtime/invocation/next HTTP/1.1";
    // It is not there at all where other people's tools are.
    assert_eq!(host.http(request).0, 404);
    let listening = fs::read_to_string(format!("/proc/{}/net/tcp", host.file.pid)).expect("connections");
    let own = host
        .file
        .endpoint
        .rsplit(':')
        .next()
        .and_then(|port| port.parse::<u16>().ok());
    let sockets: Vec<_> = fs::read_dir(format!("/proc/{}/fd", host.file.pid))
        .expect("its descriptors")
        .flatten()
        .filter_map(|entry| {
            fs::read_link(entry.path())
                .ok()?
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect();
    let ports = listening.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_its =
            fields.get(3) == Some(&"0A") && sockets.iter().any(|socket| fields.get(9) == Some(&socket.as_str()));
        is_its.then(|| u16::from_str_radix(fields[1].rsplit(':').next()?, 16).ok())?
    });
    let other = ports
        .into_iter()
        .find(|port| Some(*port) != own)
        .expect("the runtime API's port");
    assert_eq!(host.http_at(&format!("127.0.0.1:{other}"), request).0, 403);
}

#[tokio::test]
async fn files_with_secrets_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let _host = Host::start(&folder);
    let mode = |name: &str| {
        std::fs::metadata(folder.path().join("state").join(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode(""), mode("host.json"), mode("issuer.key")), (0o700, 0o600, 0o600));
}
