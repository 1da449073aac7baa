//! A flow that is served and one that is chatted with, each in a real session.

use contract::{http::Runs, row::RunStatus};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};
use whole_system::{Machine, wait_for};

const LONG: Duration = Duration::from_secs(120);

/// A chat flow that says how much was said before, in pieces.
const DAG: &str = "inputs:
  question:
    type: string
    is_chat_input: true
  chat_history:
    type: list
    is_chat_history: true
    default: []
outputs:
  answer:
    type: string
    is_chat_output: true
    reference: ${say.output}
nodes:
- name: say
  type: python
  source:
    type: code
    path: say.py
  inputs:
    question: ${inputs.question}
    chat_history: ${inputs.chat_history}
";
const SAY: &str = "from promptflow.core import tool


@tool
def say(question: str, chat_history: list):
    yield f'{len(chat_history)}: '
    yield question
    for n in range(int(question) if question.isdigit() else 0):
        yield f' {n}'
";

fn chat_flow(machine: &Machine) -> PathBuf {
    let folder = machine.state().join("talks");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("flow.dag.yaml"), DAG).unwrap();
    fs::write(folder.join("say.py"), SAY).unwrap();
    folder
}

/// A served flow, until it is dropped.
struct Served {
    process: Child,
    place: String,
    token: String,
}

impl Served {
    fn begin(machine: &Machine, arguments: &[&str]) -> Self {
        let mut command = machine.command(&[&["serve", "--json"], arguments].concat());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let at: Value = serde_json::from_str(&line).unwrap();
        Self {
            process,
            place: at["url"].as_str().unwrap().trim_start_matches("http://").to_owned(),
            token: at["token"].as_str().unwrap().to_owned(),
        }
    }

    /// Sends a question. The answer has not been read.
    fn ask(&self, question: &str, accept: &str) -> TcpStream {
        let body = json!({ "question": question, "chat_history": [] }).to_string();
        let mut stream = TcpStream::connect(&self.place).unwrap();
        write!(
            stream,
            "POST /score HTTP/1.0\r\nhost: x\r\nauthorization: Bearer {}\r\naccept: {accept}\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )
        .unwrap();
        stream
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The body of an answer with status 200.
fn body(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{text}");
    body.to_owned()
}

fn texts_of(events: &str) -> Vec<String> {
    let values = events.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    values
        .map(|value| {
            serde_json::from_str::<Value>(value).unwrap()["answer"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn a_served_flow_answers_whole_and_in_pieces_and_serving_is_use() {
    let machine = Machine::new();
    let folder = chat_flow(&machine);
    let served = Served::begin(&machine, &[folder.to_str().unwrap(), "--idle", "60s"]);
    assert_eq!(
        body(served.ask("hello", "application/json")),
        r#"{"answer":"0: hello"}"#
    );
    assert_eq!(
        texts_of(&body(served.ask("hello", "text/event-stream"))),
        ["0: ", "hello"]
    );

    // A reader that does not read holds up no run, and has all of its answer afterwards.
    let slow = served.ask("4000", "text/event-stream");
    let api = machine.api();
    wait_for("the end of the third run", LONG, || {
        let runs = api.get::<Runs>("/v1/runs").unwrap().runs;
        let ended = runs.iter().filter(|run| run.status == RunStatus::Completed).count();
        (ended == 3).then_some(())
    });
    let numbers: String = (0..4000).map(|n| format!(" {n}")).collect();
    assert_eq!(texts_of(&body(slow)).concat(), format!("0: 4000{numbers}"));

    // Nobody asks, and the session is in use all the same.
    let last = |machine: &Machine| machine.api().session(&folder).unwrap().last_activity;
    let before = last(&machine);
    wait_for("the next use of the session", LONG, || {
        (last(&machine) > before).then_some(())
    });
    drop(served);
    machine.succeed(&["stop", folder.to_str().unwrap()]);
}

#[test]
fn a_chat_of_two_lines_knows_in_the_second_what_the_first_said() {
    let machine = Machine::new();
    let folder = chat_flow(&machine);
    let mut command = machine.command(&["chat", folder.to_str().unwrap()]);
    let mut chat = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    chat.stdin.take().unwrap().write_all(b"one\ntwo words\n").unwrap();
    let ended = chat.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(
        said,
        "0: one\n1: two words\n",
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    machine.succeed(&["stop", folder.to_str().unwrap()]);
}
