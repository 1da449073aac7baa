//! Whom a session's parts believe, and that they end with what they belong to.

use contract::Phase;
use std::{
    fs,
    io::{ErrorKind, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use whole_system::{Machine, flow, wait_for};

const LONG: Duration = Duration::from_secs(120);

/// Somebody who answers at a port as SQS does, and counts who asks.
struct Stranger {
    calls: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Stranger {
    fn at(place: &str, message: &str) -> Self {
        let listener = wait_for("the port", LONG, || TcpListener::bind(place).ok());
        listener.set_nonblocking(true).unwrap();
        let stranger = Self {
            calls: Arc::default(),
            over: Arc::default(),
        };
        let body = serde_json::json!({ "Messages": [{ "MessageId": "1", "ReceiptHandle": "1-1", "Body": message }] })
            .to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (calls, over) = (stranger.calls.clone(), stranger.over.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut connection, _)) => {
                        calls.fetch_add(1, Ordering::Relaxed);
                        let _ = connection.write_all(answer.as_bytes());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::park_timeout(Duration::from_millis(1));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        stranger
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_agent_and_its_commands_believe_nobody_who_has_taken_the_hosts_port() {
    let machine = Machine::new();
    let folder = flow("one-node");
    let path = folder.to_str().unwrap();
    machine.succeed(&["start", path]);
    let endpoint = machine.aws_variables().swap_remove(0).1;
    let place = endpoint.trim_start_matches("http://").to_owned();
    let log = || {
        let logs = fs::read_dir(machine.state().join("logs")).unwrap().flatten();
        let agents = logs.filter(|file| file.file_name().to_string_lossy().starts_with("agent-"));
        agents
            .map(|file| fs::read_to_string(file.path()).unwrap())
            .collect::<String>()
    };
    machine.kill_host();
    let order = r#"{"type":"run","run":"stolen","settings":{},"wish":{"command":["true"]}}"#;
    let stranger = Stranger::at(&place, order);
    // The agent asks again and again by now, and the command line starts another host.
    wait_for("the agent's want of its host", LONG, || {
        log().contains("the session's queue does not answer").then_some(())
    });
    let data = folder.join("data.jsonl").display().to_string();
    machine.succeed(&["run", path, "--data", &data]);
    assert_ne!(machine.aws_variables()[0].1, endpoint);
    assert_eq!(machine.api().phase(&folder), Some(Phase::Ready));
    assert_eq!(stranger.calls.load(Ordering::Relaxed), 0, "{}", log());
    assert!(!log().contains("stolen"), "{}", log());
    // That it would have heard them.
    drop(TcpStream::connect(&place).unwrap());
    wait_for("the stranger", LONG, || {
        (stranger.calls.load(Ordering::Relaxed) == 1).then_some(())
    });
}

#[test]
fn a_session_whose_state_folder_is_taken_away_ends_with_its_host() {
    let machine = Machine::new();
    machine.succeed(&["start", flow("one-node").to_str().unwrap()]);
    assert!(machine.processes().len() > 8);
    let away = machine.state().with_extension("away");
    fs::rename(machine.state(), &away).unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("the end of everything", LONG, || {
            machine.processes().is_empty().then_some(())
        });
    }));
    let _ = fs::remove_dir_all(machine.state());
    fs::rename(&away, machine.state()).unwrap();
    assert!(ended.is_ok(), "{:#?}", machine.processes());
}

#[test]
fn a_session_works_below_a_state_folder_of_any_name() {
    let machine = Machine::named("a, b\\c \u{e9}\u{6d41}-");
    let folder = flow("one-node");
    let path = folder.to_str().unwrap();
    let data = folder.join("data.jsonl").display().to_string();
    assert!(!machine.succeed(&["run", path, "--data", &data]).is_empty());
    let shown = machine.succeed(&["show", path]);
    assert!(!shown.contains("packages written by the session"), "{shown}");
    machine.succeed(&["stop", path]);
    // Nothing stays after the service, the warm process neither.
    machine.succeed(&["down"]);
    wait_for("the end of everything", LONG, || {
        machine.processes().is_empty().then_some(())
    });
}
