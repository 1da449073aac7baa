//! Any bytes on a connection, of a function's answer or as a token: answered or refused, never
//! believed.

use crate::{
    access::{Access, Caller, Issuer},
    doors::{self, Shares},
    front,
    store::Store,
};
use aws_smithy_types::{DateTime, date_time::Format};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, Response, Uri, request::Parts},
};
use fuzz::{corpus, fuzz};
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::{net::UnixListener, runtime::Runtime, sync::watch};

const WORDS: [&str; 30] = [
    "\r\n",
    "\r\n\r\n",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "GET /",
    "POST ",
    "Host: ",
    "Content-Length: ",
    "Content-Length: 18446744073709551615\r\n",
    "Transfer-Encoding: chunked\r\n",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "Authorization: Bearer ",
    "AWS4-HMAC-SHA256 Credential=",
    "SignedHeaders=",
    "Signature=",
    "x-amz-date: ",
    "x-amz-target: ",
    "x-amzn-trace-id: ",
    "/v1/commands",
    "?wait=1&x=%ff",
    "%00",
    "%2f",
    "..",
    "+",
    "&",
    ";",
    "\u{e9}",
];

/// The parts of a request that its signature covers.
type Signed = (String, String, Vec<String>, Vec<u8>);

const SIGNED_HEADERS: &str = "host;x-amz-date;x-amz-target";

fn covered(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Signed {
    let mut query: Vec<&str> = uri.query().unwrap_or("").split('&').collect();
    query.retain(|pair| !pair.is_empty());
    query.sort_unstable();
    let value = |name| {
        let all: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        all.join(",").split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    };
    let pairs = query.iter().map(|pair| {
        if pair.contains('=') {
            (*pair).to_owned()
        } else {
            format!("{pair}=")
        }
    });
    let path = format!("{}?{}", uri.path(), pairs.collect::<Vec<_>>().join("&"));
    (
        method.to_string(),
        path,
        SIGNED_HEADERS.split(';').map(value).collect(),
        body.to_vec(),
    )
}

/// The answers to requests.
#[derive(Default)]
struct Seen {
    believed: Vec<Signed>,
    /// A panic of a connection's task is heard by nobody.
    faults: Vec<String>,
}

/// A host's doors, behind which requests become events and signatures are checked, and nothing is
/// done.
struct Doors {
    _runtime: Runtime,
    socket: PathBuf,
    access: Arc<Access>,
    seen: Arc<Mutex<Seen>>,
    _folder: tempfile::TempDir,
    _open: watch::Sender<bool>,
}

/// The part of the request that is believed, if any.
fn look(access: &Access, parts: &Parts, body: &Bytes) -> Option<Signed> {
    let event = front::event(parts, body, "localhost");
    assert_eq!(event["rawPath"], parts.uri.path());
    serde_json::from_value::<contract::http::Request>(event).expect("each function reads it");
    let claim = access.claim(&parts.headers).ok()?;
    claim
        .check(access, &parts.method, &parts.uri, &parts.headers, body)
        .ok()?;
    Some(covered(&parts.method, &parts.uri, &parts.headers, body))
}

async fn answer(access: Arc<Access>, seen: Arc<Mutex<Seen>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, front::MOST_BYTES).await else {
        return Response::new(Body::from("broken off"));
    };
    let looked = catch_unwind(AssertUnwindSafe(|| look(&access, &parts, &body)));
    let mut seen = seen.lock().expect("nobody panics with it");
    match looked {
        Ok(believed) => seen.believed.extend(believed),
        Err(_) => seen.faults.push(format!("{parts:?} {body:?}")),
    }
    Response::new(Body::from("seen"))
}

impl Doors {
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("queues.db"), crate::store::QUEUES).expect("a store");
        let access = Arc::new(Access::open(Arc::new(store)).expect("keys"));
        let (open, closed) = watch::channel(false);
        let socket = folder.path().join("socket");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (keys, heard) = (access.clone(), seen.clone());
        let router = Router::new().fallback(move |request: Request| answer(keys.clone(), heard.clone(), request));
        let listener = runtime
            .block_on(async { UnixListener::bind(&socket) })
            .expect("a socket");
        runtime.spawn(doors::keep(listener, router, Shares::of(4096).others, closed));
        Self {
            _runtime: runtime,
            socket,
            access,
            seen,
            _folder: folder,
            _open: open,
        }
    }

    /// A request that is signed as it should be.
    fn signed(&self) -> Vec<u8> {
        let (id, secret) = self.access.lend(Caller::Driver);
        let time = SystemTime::now();
        let stamp = DateTime::from_secs(DateTime::from(time).secs()).fmt(Format::DateTime);
        let stamp = stamp.expect("a time").replace(['-', ':'], "");
        let scope = format!("{}/us-east-1/sqs/aws4_request", &stamp[..8]);
        let target = "AmazonSQS.ListQueues";
        let headers = format!("host:localhost\nx-amz-date:{stamp}\nx-amz-target:{target}\n");
        let body = hex::encode(Sha256::digest(b"{}"));
        let canonical = format!("POST\n/\na=1&b=\n{headers}\n{SIGNED_HEADERS}\n{body}");
        let canonical = hex::encode(Sha256::digest(canonical.as_bytes()));
        let key = aws_sigv4::sign::v4::generate_signing_key(&secret, time, "us-east-1", "sqs");
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical}");
        let signature = aws_sigv4::sign::v4::calculate_signature(key, to_sign.as_bytes());
        format!(
            "POST /?b&a=1 HTTP/1.1\r\nHost: localhost\r\nX-Amz-Date: {stamp}\r\nX-Amz-Target: {target}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={SIGNED_HEADERS}, Signature={signature}\r\n\
             Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        .into_bytes()
    }

    /// Sends these bytes and no more, and gives back the answer. It is empty where the host saw the
    /// end of the bytes before it answered: a client that has gone needs no answer.
    fn send(&self, bytes: &[u8]) -> Vec<u8> {
        self.exchange(bytes, |connection| drop(connection.shutdown(Shutdown::Write)))
    }

    /// Sends a whole request that asks to close the connection, and gives back its answer.
    fn ask(&self, request: &[u8]) -> Vec<u8> {
        self.exchange(request, |_| ())
    }

    fn exchange(&self, bytes: &[u8], sent: impl FnOnce(&UnixStream)) -> Vec<u8> {
        let mut connection = UnixStream::connect(&self.socket).expect("the doors are open");
        connection
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a time");
        connection
            .set_write_timeout(Some(Duration::from_secs(5)))
            .expect("a time");
        // The host may close it at any byte.
        let _ = connection.write_all(bytes);
        sent(&connection);
        let mut answer = Vec::new();
        match connection.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection stays open"),
            _ => answer,
        }
    }
}

#[test]
fn any_bytes_on_a_connection_are_answered_and_no_other_request_than_was_signed_is_believed() {
    let doors = Doors::open();
    let signed = doors.signed();
    let mut seeds = corpus("front");
    seeds.push(signed.clone());
    doors.ask(&signed);
    let seen = |doors: &Doors| std::mem::take(&mut *doors.seen.lock().expect("nobody panics with it"));
    let first = seen(&doors).believed;
    assert_eq!(first.len(), 1, "the seed itself is believed");
    fuzz("the front", &seeds, &WORDS, |bytes| {
        doors.send(bytes);
        let Seen { believed, faults } = seen(&doors);
        assert_eq!(faults, Vec::<String>::new());
        for request in believed {
            assert_eq!(request, first[0], "this was never signed");
        }
    });
    let answer = String::from_utf8(doors.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    let answer = answer.expect("text");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("seen"),
        "{answer}"
    );
}

#[test]
fn any_bytes_as_a_functions_answer_become_a_response() {
    let words = [
        "\"statusCode\":",
        "\"headers\":{",
        "\"cookies\":[",
        "\"body\":",
        "\"isBase64Encoded\":true",
        "200",
        "99",
        "\\r\\n",
        "content-length",
        "\"",
        "{",
        "}",
    ];
    fuzz("a function's answer", &corpus("answers"), &words, |bytes| {
        let response = front::response(&Bytes::copy_from_slice(bytes));
        let headers = response.headers();
        assert!(!headers.contains_key("content-length") && !headers.contains_key("transfer-encoding"));
    });
}

#[test]
fn any_bytes_as_a_token_are_refused_unless_the_issuer_wrote_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::open(&folder.path().join("issuer")).expect("an issuer");
    let token = issuer.own_token("ann").expect("a token");
    let signed = token.rsplit_once('.').expect("three parts").0.to_owned();
    let seeds = [corpus("tokens"), vec![token.clone().into_bytes()]].concat();
    let words = [
        ".",
        "=",
        "-",
        "_",
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9",
        "AAAA",
    ];
    fuzz("a token of this host", &seeds, &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for user in ["ann", "bob", ""] {
            if issuer.accepts(&text, user) {
                assert!(
                    user == "ann" && text.rsplit_once('.').is_some_and(|(part, _)| part == signed),
                    "{text}"
                );
            }
        }
    });
}
