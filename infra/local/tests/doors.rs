//! Strangers at the ports, and peers that never finish a request.

mod common;

use common::{Host, folder};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// The status and all of the answer to a request that is sent as it is.
fn raw(mut connection: impl Read + Write, request: &[u8]) -> String {
    let _ = connection.write_all(request);
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn tcp(host: &Host) -> TcpStream {
    let connection = TcpStream::connect(host.file.endpoint.trim_start_matches("http://")).expect("a connection");
    connection.set_read_timeout(Some(ANSWER_DEADLINE)).expect("a time");
    connection
}

/// Asks through the socket whether the host is well.
fn is_well(host: &Host) -> bool {
    let connection = socket::connect(&host.file.socket).expect("the socket");
    connection.set_read_timeout(Some(ANSWER_DEADLINE)).expect("a time");
    let request = b"GET /host/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    raw(connection, request).starts_with("HTTP/1.1 200")
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |all| all.count())
}

/// The processes that a process has started and that live.
fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if parent == Some(pid) && lives(child) {
            found.push(child);
        }
    }
    found
}

/// Whether a process still runs code of its own: one that is ending has no memory any more, and
/// then no descriptors.
fn lives(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[tokio::test]
async fn two_thousand_half_requests_take_nothing_from_those_who_ask() {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let (_, hard) = getrlimit(RLIMIT_NOFILE).expect("a limit");
    setrlimit(RLIMIT_NOFILE, hard.min(8192), hard).expect("this test's own limit");
    let folder = folder();
    let host = Host::start(&folder);
    let mut half = Vec::new();
    for number in 0..2000 {
        let mut connection = tcp(&host);
        let head = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n";
        // Some say a part of a head, some promise a body, some say nothing.
        let said: &[u8] = match number % 3 {
            0 => &head[..],
            1 => b"POST /v1/commands HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
            _ => b"",
        };
        // The host may have closed it for the next one's sake.
        let _ = connection.write_all(said);
        half.push(connection);
        if number % 100 == 0 {
            let begun = Instant::now();
            assert!(is_well(&host));
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
    }
    // Who asks by TCP is answered too, and by the functions.
    host.sqs().list_queues().send().await.expect("an answer");
    assert_eq!(host.http("GET /v1/sessions HTTP/1.1").0, 200);
    assert!(is_well(&host));
    let open = descriptors(host.file.pid);
    assert!(open < 600, "{open} descriptors");
    drop(half);
}

#[test]
fn what_is_too_large_too_often_or_without_end_is_refused_at_its_head() {
    let folder = folder();
    let host = Host::start(&folder);
    let long = format!(
        "GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let many = format!(
        "GET /v1/x HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X-Many: x\r\n".repeat(200)
    );
    let path = format!("GET /v1/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000));
    for (name, request) in [("long", long), ("many", many), ("path", path)] {
        let answer = raw(tcp(&host), request.as_bytes());
        let status = answer.get(9..12).unwrap_or("").to_owned();
        assert!(
            ["400", "414", "431"].contains(&status.as_str()),
            "{name}: {answer:.100}"
        );
    }
    // A stranger's body is not waited for, however long it says that it is.
    let key = "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0";
    for length in ["Content-Length: 8000000", "Transfer-Encoding: chunked"] {
        let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{key}\r\n{length}\r\n\r\n5\r\nhello");
        let begun = Instant::now();
        let mut connection = tcp(&host);
        connection.write_all(request.as_bytes()).expect("written");
        let mut status = [0; 12];
        connection.read_exact(&mut status).expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 403", "{length}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{length}");
    }
    // Two lengths, and requests behind each other: each is answered for itself, or none is.
    let two = b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";
    assert!(raw(tcp(&host), two).starts_with("HTTP/1.1 400"));
    let behind = "GET /host/health HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2)
        + "GET /host/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(tcp(&host), behind.as_bytes()).matches("HTTP/1.1 200").count(), 3);
    assert!(is_well(&host));
}

#[tokio::test]
async fn who_takes_the_port_of_a_host_that_has_gone_hears_nothing_of_ours() {
    let folder = folder();
    let host = Host::start(&folder);
    let place = host.file.endpoint.trim_start_matches("http://").to_owned();
    host.kill();
    let stranger = bound(&place);
    stranger.set_nonblocking(true).expect("it does not wait");
    let host = Host::start(&folder);
    assert_ne!(host.file.endpoint.trim_start_matches("http://"), place);
    // All of its functions work, by their own runtime API and the socket.
    let sent = host
        .sqs()
        .send_message()
        .queue_url(&host.file.commands_queue_url)
        .message_body(r#"{"execution": "a", "kind": "start"}"#)
        .message_group_id("f")
        .message_deduplication_id("a");
    sent.send().await.expect("sent");
    let sfn = host.sfn_as(host.key());
    let arn = "arn:aws:states:us-east-1:000000000000:execution:lifecycle:a";
    let begun = Instant::now();
    loop {
        let described = sfn.describe_execution().execution_arn(arn).send().await;
        if described.is_ok_and(|described| described.status().as_str() == "SUCCEEDED") {
            break;
        }
        assert!(begun.elapsed() < ANSWER_DEADLINE, "{}", host.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let heard = stranger.accept().map(|_| ()).expect_err("somebody called the stranger");
    assert_eq!(heard.kind(), ErrorKind::WouldBlock);
}

/// A listener at a place, as soon as nobody else has it.
fn bound(place: &str) -> TcpListener {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(place) {
            Ok(listener) => return listener,
            Err(error) => assert!(begun.elapsed() < ANSWER_DEADLINE, "{place}: {error}"),
        }
    }
}

#[test]
fn nobody_has_the_runtime_apis_port_while_a_function_lives() {
    let folder = folder();
    let host = Host::start(&folder);
    let is_function = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(10).any(|part| part == b"\0function\0"))
    };
    let begun = Instant::now();
    // A child shows its parent's command line until it runs its own program.
    let functions = loop {
        let functions: Vec<_> = children(host.file.pid).into_iter().filter(is_function).collect();
        if functions.len() >= 8 {
            break functions;
        }
        assert!(begun.elapsed() < ANSWER_DEADLINE, "{functions:?}");
    };
    let environment = fs::read(format!("/proc/{}/environ", functions[0])).expect("its environment");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let place = environment
        .split('\0')
        .find_map(|variable| variable.strip_prefix("AWS_LAMBDA_RUNTIME_API=http://"))
        .and_then(|address| address.split('/').next())
        .expect("the runtime API's address")
        .to_owned();
    assert_ne!(place, host.file.endpoint.trim_start_matches("http://"));
    for function in &functions {
        let held = fs::read_link(format!("/proc/{function}/fd/0")).expect("its standard input");
        assert!(held.to_string_lossy().starts_with("socket:"), "{held:?}");
    }
    host.kill();
    let _stranger = bound(&place);
    let left: Vec<_> = functions.into_iter().filter(|pid| lives(*pid)).collect();
    assert!(left.is_empty(), "{left:?} could be answered by a stranger");
}

#[test]
fn a_host_whose_state_folder_is_taken_away_leaves_and_harms_no_other() {
    let folder = folder();
    let state = folder.path().join("state");
    let mut first = Host::start(&folder);
    fs::rename(&state, folder.path().join("away")).expect("taken away");
    // Another starts in its place before it has noticed.
    let second = Host::start(&folder);
    assert!(first.wait().success(), "{}", first.log());
    assert!(is_well(&second), "{}", second.log());
    let file: local::HostFile =
        serde_json::from_slice(&fs::read(state.join("host.json")).expect("host.json")).expect("JSON");
    assert_eq!(file.pid, second.file.pid);
    drop((first, second));

    let mut third = Host::start(&folder);
    // The host may put another file into it meanwhile.
    while fs::remove_dir_all(&state).is_err() {}
    assert!(third.wait().success(), "{}", third.log());
    assert!(!state.join("host.json").exists() && !state.join("socket").exists());
}

#[test]
fn a_state_folder_at_an_odd_path_works_and_one_with_a_colon_says_why_not() {
    use std::process::Command;
    let folder = folder();
    let odd = folder.path().join("a, b\\c é\u{6d41}").join("x".repeat(150));
    fs::create_dir_all(&odd).expect("made");
    let moved = tempfile::TempDir::new_in(&odd).expect("a folder");
    let host = Host::start(&moved);
    assert!(is_well(&host));
    assert_eq!(host.http("GET /v1/sessions HTTP/1.1").0, 200);
    drop(host);
    for (wrong, why) in [("a:b", "has a colon"), ("a\nb", "control character")] {
        let output = Command::new(common::stand_in())
            .arg("host")
            .arg(folder.path().join(wrong))
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
}
