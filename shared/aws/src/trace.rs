//! Traces: each piece of work is a segment of the trace that its message came with, and what it
//! sends goes on with that trace. So one trace follows an operation through the queues, the
//! functions and the state machine.
//!
//! The segments go to the daemon that the Lambda service runs beside a function; where there is
//! none, only the trace is handed on.
//!
//! # Source
//!
//! AWS X-Ray, *Segment documents* and *Tracing header*.

use serde_json::{Map, Value, json};
use std::{
    env,
    future::Future,
    net::UdpSocket,
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

/// The receiver of segments.
static DAEMON: LazyLock<Option<UdpSocket>> = LazyLock::new(|| {
    let address = env::var("AWS_XRAY_DAEMON_ADDRESS").ok()?;
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(address).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
});

tokio::task_local! {
    /// The trace header of messages that are sent now.
    static CURRENT: Option<Header>;
}

/// A tracing header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    root: String,
    parent: Option<String>,
    sampled: bool,
}

impl Header {
    fn read(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.split(';')
                .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        Some(Self {
            root: field("Root")?.to_owned(),
            parent: field("Parent").map(str::to_owned),
            sampled: field("Sampled") == Some("1"),
        })
    }

    fn write(&self) -> String {
        let parent = self
            .parent
            .as_ref()
            .map(|id| format!(";Parent={id}"))
            .unwrap_or_default();
        format!("Root={}{parent};Sampled={}", self.root, u8::from(self.sampled))
    }
}

/// The tracing header for what is sent from here.
pub(crate) fn current() -> Option<String> {
    CURRENT.try_with(|header| header.as_ref().map(Header::write)).ok()?
}

/// Does a piece of work as a segment of its trace.
///
/// * `header`: what its message came with.
/// * `body`: the message; the flow and the operation that it names become the segment's
///   annotations.
pub async fn trace_work<T, E>(
    header: Option<&str>,
    body: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(came) = header.and_then(Header::read) else {
        return CURRENT.scope(None, work).await;
    };
    if !came.sampled {
        return CURRENT.scope(Some(came), work).await;
    }
    let id = segment_id();
    let begun = now();
    let goes_on = Header {
        parent: Some(id.clone()),
        ..came.clone()
    };
    let done = CURRENT.scope(Some(goes_on), work).await;
    if let Some(daemon) = &*DAEMON {
        let document = segment(&came, &id, body, (begun, now()), done.is_err());
        // A trace is a help: nothing waits for it, and nothing fails with it.
        let _ = daemon.send(format!("{{\"format\":\"json\",\"version\":1}}\n{document}").as_bytes());
    }
    done
}

fn segment(came: &Header, id: &str, body: &str, (begun, ended): (f64, f64), fault: bool) -> Value {
    let message: Map<String, Value> = serde_json::from_str(body).unwrap_or_default();
    let mut annotations = Map::new();
    for name in ["flow", "operation", "step", "id"] {
        if let Some(Value::String(value)) = message.get(name) {
            annotations.insert(name.to_owned(), json!(value));
        }
    }
    let mut document = json!({
        "name": env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|_| "pfsession".into()),
        "id": id,
        "trace_id": came.root,
        "start_time": begun,
        "end_time": ended,
        "fault": fault,
        "annotations": annotations,
    });
    if let Some(parent) = &came.parent {
        document["parent_id"] = json!(parent);
    }
    document
}

fn segment_id() -> String {
    let mut bytes = [0u8; 8];
    // As for every id of this system: without randomness nothing came so far.
    getrandom::fill(&mut bytes).expect("the system has randomness");
    hex::encode(bytes)
}

/// Seconds since the Unix epoch, as a segment has them.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAME: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";

    #[tokio::test]
    async fn what_is_sent_goes_on_with_the_trace_and_names_this_segment_as_its_parent() {
        let sent = trace_work::<_, ()>(Some(CAME), "{}", async { Ok(current()) })
            .await
            .unwrap()
            .unwrap();
        let (came, sent) = (Header::read(CAME).unwrap(), Header::read(&sent).unwrap());
        assert_eq!(sent.root, came.root);
        assert!(sent.sampled && sent.parent != came.parent && sent.parent.is_some());

        let unsampled = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0";
        let sent = trace_work::<_, ()>(Some(unsampled), "{}", async { Ok(current()) })
            .await
            .unwrap();
        assert_eq!(sent.as_deref(), Some(unsampled));
        for none in [None, Some(""), Some("nonsense")] {
            assert_eq!(trace_work::<_, ()>(none, "{}", async { Ok(current()) }).await, Ok(None));
        }
        assert_eq!(current(), None);
    }

    #[test]
    fn a_segment_names_the_flow_the_operation_and_the_step_and_nothing_else_of_its_message() {
        let body = r#"{"step":"stop-session","flow":"f1","operation":"o1","token":"secret"}"#;
        let document = segment(&Header::read(CAME).unwrap(), "0123456789abcdef", body, (1.0, 2.5), true);
        assert_eq!(
            document["annotations"],
            json!({ "flow": "f1", "operation": "o1", "step": "stop-session" })
        );
        assert_eq!(document["parent_id"], "53995c3f42cd8ad8");
        assert_eq!((&document["fault"], &document["end_time"]), (&json!(true), &json!(2.5)));
        assert!(!document.to_string().contains("secret"));
    }
}
