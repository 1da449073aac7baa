//! `pfsession` against a service that answers what a test says: what it sends, what it prints, how
//! it ends.

use contract::{Code, Failure, FlowRef, command::Command as Sent, row::RunStatus};
use expect_test::expect;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// {"sub":"ann","ws":"lab"}
const TOKEN: &str = "e30.eyJzdWIiOiJhbm4iLCJ3cyI6ImxhYiJ9.x";

/// The service's answer: status and body, or nothing, which drops the connection.
type Answers = dyn Fn(&Service, &Request) -> Option<(u16, Value)> + Send + Sync;

#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    body: String,
}

/// A service on this machine's loopback that answers what a test says.
#[derive(Clone)]
struct Service {
    endpoint: String,
    seen: Arc<(Mutex<Vec<Request>>, Condvar)>,
}

impl Service {
    fn new(answers: impl Fn(&Service, &Request) -> Option<(u16, Value)> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = Self {
            endpoint,
            seen: Arc::default(),
        };
        let (answers, served) = (Arc::new(answers), service.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, service) = (answers.clone(), served.clone());
                thread::spawn(move || service.serve(stream, &*answers));
            }
        });
        service
    }

    fn serve(&self, mut stream: TcpStream, answers: &Answers) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let (method, path) = (line.split(' ').next()?.to_owned(), line.split(' ').nth(1)?.to_owned());
            let (mut length, mut bearer) = (0, false);
            loop {
                line.clear();
                reader.read_line(&mut line).ok()?;
                let header = line.trim_end().to_ascii_lowercase();
                match header.split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().ok()?,
                    Some(("authorization", value)) => bearer = value == format!("bearer {TOKEN}").to_ascii_lowercase(),
                    _ if header.is_empty() => break,
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let request = Request {
                method,
                path,
                body: String::from_utf8(body).ok()?,
            };
            // It sees the folders that it is told of. What is sent to one that does not is in
            // `elsewhere.rs`.
            let is_offer = request.path == "/v1/snapshots";
            // No run has the name that one is to have.
            let asks_for_a_name = request.path.starts_with("/v1/runs/") && request.path.ends_with("wait=0");
            if !is_offer && !asks_for_a_name {
                self.seen.0.lock().unwrap().push(request.clone());
                self.seen.1.notify_all();
            }
            let (status, body) = if is_offer {
                problem(404, "Http.NoSnapshots")
            } else if asks_for_a_name {
                problem(404, "Http.NoRun")
            } else if bearer {
                answers(self, &request)?
            } else {
                problem(401, "Http.NoToken")
            };
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
        }
    }

    /// Waits until somebody asked for this.
    fn wait_for(&self, path: &str) {
        let seen = self.seen.0.lock().unwrap();
        drop(
            self.seen
                .1
                .wait_while(seen, |seen| !seen.iter().any(|request| request.path.starts_with(path)))
                .unwrap(),
        );
    }

    fn sent(&self) -> Vec<Sent> {
        let seen = self.seen.0.lock().unwrap();
        seen.iter()
            .filter(|request| request.method == "POST")
            .map(|request| serde_json::from_str(&request.body).unwrap())
            .collect()
    }

    fn paths(&self) -> Vec<String> {
        self.seen
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|request| request.path.clone())
            .collect()
    }
}

fn problem(status: u16, error: &str) -> (u16, Value) {
    (
        status,
        json!({ "error": Failure::new(Code::read(error), "There is no such thing.") }),
    )
}

fn accepted(request: &Request) -> (u16, Value) {
    let sent: Sent = serde_json::from_str(&request.body).unwrap();
    (202, json!({ "id": sent.id, "flow": sent.flow.key() }))
}

/// A folder with a flow in it, which is a user's home too.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("flow")).unwrap();
        std::fs::write(folder.path().join("flow/flow.dag.yaml"), "nodes: []\n").unwrap();
        std::fs::write(folder.path().join("data.jsonl"), "{\"text\": \"a\"}\n").unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    fn lineage(&self) -> String {
        self.path().join("flow").to_str().unwrap().into()
    }

    fn key(&self) -> String {
        FlowRef {
            workspace: "lab".into(),
            owner: "ann".into(),
            lineage: self.lineage(),
        }
        .key()
    }

    /// A command that does not end by itself is a failure.
    fn bounded(&self, endpoint: &str, arguments: &[&str]) -> Command {
        let command = self.command(endpoint, &[]);
        let mut bounded = Command::new("timeout");
        bounded
            .env_clear()
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        bounded
            .arg("60")
            .arg(command.get_program())
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null());
        bounded
    }

    fn command(&self, endpoint: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pfsession"));
        command
            .env_clear()
            .env("HOME", self.path())
            .env("PFSESSION_ENDPOINT", endpoint)
            .env("PFSESSION_TOKEN", TOKEN);
        command.current_dir(self.path()).args(arguments).stdin(Stdio::null());
        command
    }

    fn pfsession(&self, service: &Service, arguments: &[&str]) -> Ended {
        Ended::of(self.bounded(&service.endpoint, arguments).output().unwrap())
    }

    fn session(&self, key: &str, phase: &str, current: Value) -> Value {
        json!({
            "key": key, "flow": { "workspace": "lab", "owner": "ann", "lineage": self.lineage() }, "phase": phase, "since": 900, "generation": 1, "revision": 4,
            "settings": { "folder": self.lineage(), "size": "standard-2", "identity": null, "image": null, "idle": 3_600_000 },
            "compute": null, "current": current, "next": null, "runs": [], "last_activity": 1000, "idle_due": null, "failure": null, "now": 2000,
        })
    }
}

#[derive(Debug)]
struct Ended {
    exit: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            exit: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    fn assert(&self, exit: i32, out: expect_test::Expect, err: expect_test::Expect) {
        out.assert_eq(&without_ids(&self.out));
        err.assert_eq(&without_ids(&self.err));
        assert_eq!(self.exit, Some(exit));
    }
}

/// Random parts are left out.
fn without_ids(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('-') {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        let id: String = after.chars().take_while(|c| is_hex(*c)).collect();
        if id.len() == 12 {
            out.push_str("(id)");
            rest = &after[12..];
        } else {
            rest = after;
        }
    }
    out + rest
}

fn run_row(status: RunStatus, result: Value, failure: Value) -> Value {
    let ended = status.is_final().then_some(1042);
    json!({ "id": "r1", "flow": "k", "by": "ann", "wish": {}, "accepted": 990, "status": status, "started": 1000, "ended": ended,
        "result": result, "failure": failure })
}

fn line(seq: u64, kind: &str, text: &str) -> Value {
    json!({ "seq": seq, "at": 1000, "kind": kind, "text": text })
}

fn operation(id: &str, kind: &str, status: &str, failure: Value) -> Value {
    json!({ "id": id, "flow": "k", "kind": kind, "by": "ann", "accepted": 1000, "status": status, "ended": 1042, "failure": failure })
}

/// The last part of a request's path, without its query.
fn id_in(path: &str) -> &str {
    path.split('?').next().unwrap().rsplit('/').next().unwrap()
}

#[test]
fn a_run_in_a_ready_session_has_its_outputs_after_four_requests_and_alone_on_standard_output() {
    let home = Home::new();
    let service = Service::new(|_, request| {
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            "runs" => {
                let result = json!({ "lines": 2, "failed_lines": 0, "outputs": [{ "n": 1 }, { "n": 2 }], "folder": "/srv/runs/r1" });
                (200, run_row(RunStatus::Completed, result, Value::Null))
            }
            _ => (
                200,
                json!({ "lines": [line(0, "stderr", "from the flow")], "ended": true }),
            ),
        })
    });
    let arguments = [
        "run",
        "flow",
        "--data",
        "data.jsonl",
        "--name",
        "r1",
        "--column-mapping",
        "q=${data.text}",
        "--env",
        "A=b",
        "--idle",
        "30m",
    ];
    home.pfsession(&service, &arguments).assert(
        0,
        expect![[r#"
            {"n":1}
            {"n":2}
        "#]],
        expect![[r#"
            from the flow
            Ran 2 lines in 42 ms. Outputs and log: /srv/runs/r1. The session stays for the next run.
        "#]],
    );
    // The command, whether the requirements have changed since the install, the run, its log, and
    // what else there is to say.
    let asked: Vec<_> = service
        .paths()
        .iter()
        .map(|path| path.split(['?', '/']).nth(2).unwrap().to_owned())
        .collect();
    assert_eq!(asked, ["commands", "sessions", "runs", "output", "sessions"]);
    let expected = json!({
        "id": "r1", "flow": { "workspace": "lab", "owner": "ann", "lineage": home.lineage() }, "command": "run",
        "settings": { "idle_seconds": 1800 },
        "run": { "data": home.path().join("data.jsonl"), "column_mapping": { "q": "${data.text}" }, "environment_variables": { "A": "b" } },
    });
    assert_eq!(serde_json::to_value(&service.sent()[0]).unwrap(), expected);
}

#[test]
fn a_run_that_needs_a_session_shows_what_its_start_does() {
    let home = Home::new();
    let (key, ready) = (home.key(), home.session(&home.key(), "ready", Value::Null));
    let installing = home.session(&key, "installing", json!({ "id": "start-for-r1", "kind": "start" }));
    let service = Service::new(move |service, request| {
        let started = service
            .paths()
            .iter()
            .filter(|path| path.starts_with("/v1/output/start-for-r1"))
            .count()
            > 1;
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            "runs" => {
                // It ends when somebody has looked at its log.
                service.wait_for("/v1/output/r1");
                (
                    200,
                    run_row(
                        RunStatus::Completed,
                        json!({ "lines": 1, "failed_lines": 0, "folder": "" }),
                        Value::Null,
                    ),
                )
            }
            "sessions" => (200, if started { ready.clone() } else { installing.clone() }),
            "output" if id_in(&request.path) == "r1" => {
                let after = request.path.contains("after=0");
                (
                    200,
                    json!({ "lines": if after { vec![] } else { vec![line(0, "stdout", "hello")] }, "ended": after }),
                )
            }
            _ if started => (
                200,
                json!({ "lines": [line(1, "stage", "downloading numpy 2.1.0 (16 MB)")], "ended": true }),
            ),
            _ => {
                let lines = [
                    line(0, "stage", "resolving 3 requirements"),
                    line(1, "stdout", "not shown"),
                ];
                (200, json!({ "lines": &lines[..1], "ended": false }))
            }
        })
    });
    let ended = home.pfsession(&service, &["run", "flow", "--name", "r1"]);
    // Times are left out.
    let unit =
        |word: &str| word == "ms" || word == "s" || word == "took" || word.starts_with(|c: char| c.is_ascii_digit());
    let timeless: Vec<_> = ended
        .err
        .lines()
        .map(|line| {
            line.split(' ')
                .filter(|word| !word.is_empty() && !unit(word))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(ended.exit, Some(0), "{ended:?}");
    let expected = [
        "installing",
        "resolving requirements",
        "downloading numpy (16 MB)",
        "installing",
        "running",
        "hello",
        "running",
    ];
    assert_eq!(timeless[..7], expected, "{}", ended.err);
}

#[test]
fn a_run_whose_session_does_not_start_says_why_and_where_the_whole_output_is() {
    let home = Home::new();
    let service = Service::new(|_, request| {
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            "runs" => {
                let failure = json!({ "error": "Install.NoSuchPackage", "message": "There is no package nope. Correct line 2 of requirements.txt." });
                let mut row = run_row(RunStatus::Failed, Value::Null, failure);
                row["started"] = Value::Null;
                (200, row)
            }
            _ => problem(404, "Http.NotFound"),
        })
    });
    home.pfsession(&service, &["run", "flow", "--name", "r1"]).assert(
        1,
        expect![""],
        expect![[r#"
            error: the run of flow did not succeed: There is no package nope. Correct line 2 of requirements.txt. [Install.NoSuchPackage]
              whole output: pfsession logs start-for-r1
        "#]],
    );
}

#[test]
fn lines_that_failed_are_a_failure_for_scripts_beside_the_outputs_of_the_others() {
    let home = Home::new();
    let service = Service::new(|_, request| {
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            "runs" => (
                200,
                run_row(
                    RunStatus::Completed,
                    json!({ "lines": 3, "failed_lines": 1, "outputs": [{}], "folder": "/r" }),
                    Value::Null,
                ),
            ),
            _ => (200, json!({ "lines": [], "ended": true })),
        })
    });
    home.pfsession(&service, &["run", "flow", "--name", "r1"]).assert(
        1,
        expect![[r#"
            {}
        "#]],
        expect![[r#"
            Ran 3 lines in 42 ms. Outputs and log: /r. The session stays for the next run.
            error: 1 of 3 lines of flow failed: Its log says why. [Run.LinesFailed]
              whole output: pfsession logs r1
        "#]],
    );
}

#[test]
fn outputs_too_large_for_an_answer_come_from_the_runs_folder() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("output")).unwrap();
    std::fs::write(home.path().join("output/outputs.jsonl"), "{\"n\":1}\n{\"n\":2}\n").unwrap();
    let folder = home.path();
    let service = Service::new(move |_, request| {
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            "runs" => (
                200,
                run_row(
                    RunStatus::Completed,
                    json!({ "lines": 2, "failed_lines": 0, "folder": folder }),
                    Value::Null,
                ),
            ),
            _ => (200, json!({ "lines": [], "ended": true })),
        })
    });
    assert_eq!(
        home.pfsession(&service, &["run", "flow", "--name", "r1"]).out,
        "{\"n\":1}\n{\"n\":2}\n"
    );
}

#[test]
fn a_run_file_says_what_was_not_typed() {
    let home = Home::new();
    let file = "name: from-file\nflow: flow\ndata: data.jsonl\nvariant: ${a.b}\ncolumn_mapping: {q: '${data.text}', n: 3}\n\
                environment_variables: {A: file, B: file}\nresources: {instance_type: Standard_D4s_v3}\n";
    std::fs::write(home.path().join("run.yml"), file).unwrap();
    let service = Service::new(|_, request| Some(accepted(request)));
    let ended = home.pfsession(&service, &["run", "run.yml", "--env", "A=typed", "--no-wait"]);
    assert_eq!((ended.exit, ended.out.as_str()), (Some(0), "from-file\n"), "{ended:?}");
    let sent = serde_json::to_value(&service.sent()[0]).unwrap();
    assert_eq!(
        sent["settings"],
        json!({ "size": "Standard_D4s_v3", "from_run_file": ["size"] })
    );
    let run = json!({
        "data": home.path().join("data.jsonl"), "variant": "${a.b}", "column_mapping": { "q": "${data.text}", "n": 3 },
        "environment_variables": { "A": "typed", "B": "file" },
    });
    assert_eq!(sent["run"], run);
}

#[test]
fn what_a_run_file_asks_in_vain_is_refused_before_anything_is_sent() {
    let home = Home::new();
    let service = Service::new(|_, request| Some(accepted(request)));
    std::fs::write(home.path().join("run.yml"), "flow: flow\ndata: azureml:thing:1\n").unwrap();
    let ended = home.pfsession(&service, &["run", "run.yml"]);
    assert_eq!(ended.exit, Some(2), "{ended:?}");
    assert!(
        ended.err.contains("data") && ended.err.contains("[Run.NotSupported]"),
        "{ended:?}"
    );
    assert!(service.paths().is_empty());
}

#[test]
fn a_compute_instance_comes_from_the_run_file_and_the_command_before_it() {
    let home = Home::new();
    let service = Service::new(|_, request| Some(accepted(request)));
    std::fs::write(home.path().join("run.yml"), "flow: flow\nresources: {compute: mine}\n").unwrap();
    for (more, expected) in [(&[][..], "mine"), (&["--compute", "other"][..], "other")] {
        let ended = home.pfsession(&service, &[&["run", "run.yml", "--no-wait"], more].concat());
        assert_eq!(ended.exit, Some(0), "{ended:?}");
        let seen = service.seen.0.lock().unwrap();
        let sent = seen.iter().rfind(|request| request.path == "/v1/commands").unwrap();
        let body: Value = serde_json::from_str(&sent.body).unwrap();
        assert_eq!(body["settings"]["compute"], expected, "{body}");
    }
}

#[test]
fn connections_by_node_come_from_the_run_file_and_the_command_before_it() {
    let home = Home::new();
    let service = Service::new(|_, request| Some(accepted(request)));
    let file = "flow: flow\nconnections:\n  ask: {connection: mine, deployment_name: d}\nenvironment_variables:\n  KEY: ${mine.api_key}\n";
    std::fs::write(home.path().join("run.yml"), file).unwrap();
    let ended = home.pfsession(
        &service,
        &[
            "run",
            "run.yml",
            "--no-wait",
            "--connections",
            "ask.deployment_name=e",
            "tell.connection=other",
        ],
    );
    assert_eq!(ended.exit, Some(0), "{ended:?}");
    let body: Value = serde_json::from_str(&service.seen.0.lock().unwrap()[0].body).unwrap();
    assert_eq!(
        body["run"],
        json!({
            "connections": { "ask": { "connection": "mine", "deployment_name": "e" }, "tell": { "connection": "other" } },
            "environment_variables": { "KEY": "${mine.api_key}" },
        })
    );
}

#[test]
fn start_says_how_long_it_took_and_json_is_the_operation() {
    let home = Home::new();
    let service = Service::new(|_, request| {
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            _ => (200, operation(id_in(&request.path), "start", "succeeded", Value::Null)),
        })
    });
    let said = expect![[r#"
        The session of flow is ready (42 ms).
    "#]];
    home.pfsession(&service, &["start", "flow"])
        .assert(0, expect![""], said);
    assert_eq!(service.paths().len(), 2, "{:?}", service.paths());
    let ended = home.pfsession(&service, &["start", "flow", "--json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&ended.out).unwrap()["status"],
        "succeeded"
    );
    // A flow file is its folder.
    assert_eq!(home.pfsession(&service, &["start", "flow/flow.dag.yaml"]).exit, Some(0));
    let flows: std::collections::BTreeSet<_> = service.sent().into_iter().map(|sent| sent.flow.lineage).collect();
    assert_eq!(flows.into_iter().collect::<Vec<_>>(), [home.lineage()]);
}

#[test]
fn an_operation_that_joined_another_ends_with_it() {
    let home = Home::new();
    let service = Service::new(|_, request| {
        Some(match (request.path.split('/').nth(2)?, id_in(&request.path)) {
            ("commands", _) => accepted(request),
            (_, "other") => (200, operation("other", "start", "succeeded", Value::Null)),
            (_, id) => {
                let mut row = operation(id, "start", "joined", Value::Null);
                row["joined"] = "other".into();
                (200, row)
            }
        })
    });
    assert_eq!(home.pfsession(&service, &["start", "flow"]).exit, Some(0));
    assert!(
        service
            .paths()
            .iter()
            .any(|path| path.starts_with("/v1/operations/other"))
    );
}

#[test]
fn a_failed_operation_is_one_line_of_what_happened_and_the_way_to_the_whole() {
    let home = Home::new();
    let service = Service::new(|_, request| {
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            _ => {
                let failure = json!({ "error": "Session.Busy", "message": "A start is under way and a reset waits. Try again when one has ended." });
                (200, operation(id_in(&request.path), "install", "failed", failure))
            }
        })
    });
    home.pfsession(&service, &["install", "flow", "--json"]).assert(
        1,
        expect![[r#"
            {"error":"Session.Busy","message":"A start is under way and a reset waits. Try again when one has ended."}
        "#]],
        expect![[r#"
            error: the packages of flow were not installed: A start is under way and a reset waits. Try again when one has ended. [Session.Busy]
              whole output: pfsession logs install-(id)
        "#]],
    );
}

#[test]
fn a_session_is_stopped_by_the_start_of_its_key_even_when_its_folder_is_gone() {
    let home = Home::new();
    let sessions = json!({ "sessions": [home.session("abcd11", "ready", Value::Null), home.session("abcd22", "ready", Value::Null)] });
    let service = Service::new(move |_, request| {
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            // Whether runs are active on it.
            "sessions" if request.path.matches('/').count() > 2 => problem(404, "Session.None"),
            "sessions" => (200, sessions.clone()),
            // Those of others, which an owner alone may see.
            others if others.starts_with("sessions?") => problem(403, "Access.Denied"),
            _ => (200, operation(id_in(&request.path), "stop", "succeeded", Value::Null)),
        })
    });
    std::fs::remove_dir_all(home.path().join("flow")).unwrap();
    let said = expect![[r#"
        The session of abcd1 is gone (42 ms).
    "#]];
    home.pfsession(&service, &["stop", "abcd1"])
        .assert(0, expect![""], said);
    assert_eq!(service.sent()[0].flow.lineage, home.lineage());
    home.pfsession(&service, &["stop", "abcd"]).assert(
        2,
        expect![""],
        expect![[r#"
            error: 2 sessions have a key that starts with abcd [Session.Ambiguous]
              next: give more of the key, or the flow's folder; `pfsession list --all` shows both
        "#]],
    );
    let ended = home.pfsession(&service, &["stop", "abcd3"]);
    assert_eq!(ended.exit, Some(4), "{ended:?}");
}

#[test]
fn exit_codes_tell_scripts_what_is_wrong() {
    let home = Home::new();
    let nothing = Service::new(|_, _| Some(problem(404, "Http.NotFound")));
    let forbidden = Service::new(|_, _| Some(problem(403, "Http.Forbidden")));
    let exit = |service: &Service, arguments: &[&str]| home.pfsession(service, arguments).exit;
    assert_eq!(exit(&nothing, &["show", "flow"]), Some(4));
    assert_eq!(exit(&nothing, &["show", "no-such-run"]), Some(4));
    assert_eq!(exit(&nothing, &["logs", "no-such-run"]), Some(4));
    assert_eq!(exit(&nothing, &["events", "flow"]), Some(4));
    assert_eq!(exit(&nothing, &["start", "no-such-folder"]), Some(2));
    assert_eq!(exit(&nothing, &["run", "flow", "--data", "no-such-file"]), Some(2));
    assert_eq!(exit(&nothing, &["frobnicate"]), Some(2));
    assert_eq!(exit(&nothing, &["run", "flow", "--idle", "soon"]), Some(2));
    assert_eq!(exit(&nothing, &["env"]), Some(2));
    assert_eq!(exit(&forbidden, &["list"]), Some(1));
    assert_eq!(
        home.command(&nothing.endpoint, &["list"])
            .env("PFSESSION_TOKEN", "x")
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        home.command("https://127.0.0.1:1", &["list"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(3)
    );
}

#[test]
fn a_request_without_an_answer_is_sent_again_and_is_the_same_wish() {
    let home = Home::new();
    let service = Service::new(
        |service, request| match (request.method.as_str(), service.paths().len()) {
            (_, 1) => None,
            (_, 2) => Some(problem(503, "Http.TryAgain")),
            ("POST", _) => Some(accepted(request)),
            _ => Some((200, operation(id_in(&request.path), "start", "succeeded", Value::Null))),
        },
    );
    assert_eq!(home.pfsession(&service, &["start", "flow"]).exit, Some(0));
    let ids: Vec<_> = service.sent().into_iter().map(|sent| sent.id).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn an_interrupted_run_goes_on_and_says_how_to_look_at_it() {
    let home = Home::new();
    let key = home.key();
    let service = Service::new(move |service, request| {
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            "runs" => {
                service.wait_for("/never");
                problem(404, "Http.NotFound")
            }
            "sessions" => (200, json!({ "key": key })),
            _ => problem(404, "Http.NotFound"),
        })
    });
    let mut command = home.command(&service.endpoint, &["run", "flow", "--name", "r1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    service.wait_for("/v1/runs/r1");
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.exit, Some(130));
    assert!(ended.err.contains("pfsession logs r1 --follow"), "{ended:?}");
}

#[test]
fn logs_follow_an_output_to_its_end() {
    let home = Home::new();
    let service = Service::new(|_, request| {
        Some(match request.path.as_str() {
            "/v1/output/op-1?wait=20000" => (
                200,
                json!({ "lines": [line(0, "stage", "resolving"), line(4, "stdout", "a")], "ended": false }),
            ),
            "/v1/output/op-1?after=4&wait=20000" => (200, json!({ "lines": [line(5, "stderr", "b")], "ended": true })),
            _ => problem(404, "Http.NotFound"),
        })
    });
    home.pfsession(&service, &["logs", "op-1", "--follow"]).assert(
        0,
        expect![[r#"
            == resolving
            a
            b
        "#]],
        expect![""],
    );
}

#[test]
fn logs_of_a_flow_are_the_latest_that_said_anything() {
    let home = Home::new();
    let stopped = home.session(&home.key(), "stopped", Value::Null);
    let settings = stopped["settings"].clone();
    let operation =
        |id: &str, kind: &str| json!({ "id": id, "kind": kind, "wants": null, "token": null, "attempt": 0 });
    let events = [
        json!({ "event": "run-wanted", "run": "r1", "wants": settings }),
        json!({ "event": "run-wanted", "run": "r2", "wants": settings }),
        json!({ "event": "wanted", "operation": operation("joined", "start") }),
        json!({ "event": "wanted", "operation": operation("stop-1", "stop") }),
    ];
    let rows = events.map(|event| json!({ "revision": 1, "at": 1, "by": "ann", "from": "ready", "to": "ready", "generation": 1, "event": event }));
    let service = Service::new(move |_, request| {
        Some(match (request.path.split('/').nth(2)?, id_in(&request.path)) {
            ("sessions", "events") => (200, json!({ "events": rows.clone() })),
            ("sessions", _) => (200, stopped.clone()),
            (_, "start-for-r2") => {
                let read = request.path.contains("after=");
                (
                    200,
                    json!({ "lines": if read { vec![] } else { vec![line(0, "stdout", "why")] }, "ended": true }),
                )
            }
            (_, "r1") => (200, json!({ "lines": [line(0, "stdout", "older")], "ended": true })),
            _ => (200, json!({ "lines": [], "ended": true })),
        })
    });
    assert_eq!(home.pfsession(&service, &["logs", "flow"]).out, "why\n");
}

#[test]
fn the_list_is_of_what_lives_or_failed() {
    let home = Home::new();
    let mut failed = home.session("f00000000000", "failed", Value::Null);
    failed["failure"] = json!({ "error": "A.B", "message": "m" });
    let sessions = [
        home.session("a00000000000", "ready", Value::Null),
        home.session("b00000000000", "stopped", Value::Null),
        failed,
    ];
    let service = Service::new(move |_, _| Some((200, json!({ "sessions": sessions.clone() }))));
    let keys = |arguments: &[&str]| {
        let ended = home.pfsession(&service, arguments);
        ended
            .out
            .lines()
            .skip(1)
            .map(|line| line[..1].to_owned())
            .collect::<String>()
    };
    assert_eq!(keys(&["list"]), "af");
    assert_eq!(keys(&["list", "--all"]), "abf");
    let json: BTreeMap<String, Vec<Value>> =
        serde_json::from_str(&home.pfsession(&service, &["list", "--json"]).out).unwrap();
    assert_eq!(json["sessions"].len(), 2);
}

#[test]
fn nothing_is_written_to_the_home_of_who_uses_a_service_elsewhere() {
    let home = Home::new();
    let service = Service::new(|_, _| Some((200, json!({ "sessions": [] }))));
    assert_eq!(home.pfsession(&service, &["list"]).exit, Some(0));
    assert!(!Path::new(&home.path().join(".local")).exists());
}

#[test]
fn a_history_and_a_log_are_read_page_by_page_to_their_end() {
    let home = Home::new();
    let row = |revision: u64| json!({ "revision": revision, "at": 1, "by": "ann", "from": "ready", "to": "ready", "generation": 1, "event": { "event": "tick" } });
    let service = Service::new(move |_, request| {
        let is_next = request.path.contains("after=");
        let page = |first: u64| {
            if is_next {
                first + 500..first + 503
            } else {
                first..first + 500
            }
        };
        Some(match (request.path.split('/').nth(2)?, id_in(&request.path)) {
            ("sessions", "events") => (200, json!({ "events": page(1).map(row).collect::<Vec<_>>() })),
            ("output", _) => {
                let lines: Vec<_> = page(0).map(|seq| line(seq, "stdout", "said")).collect();
                (200, json!({ "lines": lines, "ended": true }))
            }
            _ => problem(404, "Http.NotFound"),
        })
    });
    let history: Value = serde_json::from_str(&home.pfsession(&service, &["events", "flow", "--json"]).out).unwrap();
    let revisions: Vec<_> = history["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["revision"].as_u64().unwrap())
        .collect();
    assert_eq!(revisions, (1..504).collect::<Vec<_>>());
    assert_eq!(home.pfsession(&service, &["logs", "op-1"]).out.lines().count(), 503);
}

/// A service whose runs give back what they were asked, or fail for `bad`.
fn echo() -> Service {
    Service::new(|service, request| {
        let ask = |id: &str| {
            let sent = service.sent().into_iter().find(|sent| sent.id == id)?;
            Some(serde_json::to_value(sent).unwrap()["run"]["inputs"].clone())
        };
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            "operations" => (200, operation(id_in(&request.path), "start", "succeeded", Value::Null)),
            "runs" => {
                let asked = ask(id_in(&request.path))?;
                let failure = json!({ "error": "Run.CodeRaised", "message": "ValueError: bad text" });
                match asked["text"] == "bad" {
                    true => (200, run_row(RunStatus::Failed, Value::Null, failure)),
                    false => {
                        let result = json!({ "lines": 1, "failed_lines": 0, "outputs": [{ "out": asked["text"], "asked": asked }], "folder": "/r" });
                        (200, run_row(RunStatus::Completed, result, Value::Null))
                    }
                }
            }
            _ => (
                404,
                json!({ "error": Failure::new(Code::HttpNotFound, "There is no such thing.") }),
            ),
        })
    })
}

/// A service in which the flow of `tests/serve/stream` runs: its lines of output, and the end of
/// each run.
fn in_pieces() -> Service {
    Service::new(|service, request| {
        let asked = |id: &str| {
            let sent = service.sent().into_iter().find(|sent| sent.id == id)?;
            Some(serde_json::to_value(sent).unwrap()["run"].clone())
        };
        let texts = |run: &Value| -> Vec<String> {
            let (text, times) = (run["inputs"]["text"].as_str().unwrap(), run["inputs"]["times"].as_u64());
            (0..times.unwrap_or(3)).map(|at| format!("{text} {at}\n")).collect()
        };
        let id = id_in(&request.path);
        Some(match request.path.split('/').nth(2)? {
            "commands" => accepted(request),
            "operations" => (200, operation(id, "start", "succeeded", Value::Null)),
            "output" => {
                let run = asked(id)?;
                let text = run["inputs"]["text"].as_str().unwrap();
                let mut said = Vec::new();
                if run["stream"] == true && text != "whole" {
                    let outputs = json!({ "asked": text, "seen": 3 });
                    said.push(json!({ "begins": { "outputs": outputs, "names": ["answer"] } }));
                    // The rest of a piece that is cut comes with the end.
                    let heard = texts(&run).len().min(if text == "breaks" { 1 } else { 2 });
                    said.extend(
                        texts(&run)
                            .chunks(heard.max(1))
                            .take(1)
                            .map(|texts| json!({ "goes-on": { "name": "answer", "texts": texts } })),
                    );
                }
                let lines = said.iter().enumerate();
                let lines =
                    lines.map(|(seq, said)| json!({ "seq": seq, "at": 0, "kind": "chunk", "text": said.to_string() }));
                (200, json!({ "lines": lines.collect::<Vec<_>>(), "ended": true }))
            }
            "runs" => {
                let run = asked(id)?;
                let text = run["inputs"]["text"].as_str().unwrap().to_owned();
                let said = if run["stream"] != true || text == "whole" {
                    0
                } else {
                    1 + u64::from(!texts(&run).is_empty())
                };
                if text == "breaks" {
                    let failure = json!({ "error": "Run.CodeRaised", "message": "ValueError: bad text" });
                    let result =
                        json!({ "lines": 1, "failed_lines": 1, "folder": "/r", "said": said, "failure": failure });
                    return Some((200, run_row(RunStatus::Failed, result, failure)));
                }
                let answer = if text == "whole" {
                    text.clone()
                } else {
                    texts(&run).concat()
                };
                let outputs = json!([{ "answer": answer, "asked": text, "seen": 3 }]);
                let result = json!({ "lines": 1, "failed_lines": 0, "outputs": outputs, "folder": "/r", "said": said });
                (200, run_row(RunStatus::Completed, result, Value::Null))
            }
            _ => problem(404, "Http.None"),
        })
    })
}

#[test]
fn a_served_flow_answers_in_pieces_as_promptflow_does_and_breaks_off_as_it_does() {
    let home = Home::new();
    let flow = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/stream");
    for name in ["flow.dag.yaml", "say.py"] {
        std::fs::copy(flow.join(name), home.path().join("flow").join(name)).unwrap();
    }
    let service = in_pieces();
    let mut serving = home
        .command(&service.endpoint, &["serve", "flow", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let at: Value = serde_json::from_str(&line).unwrap();
    let (token, place) = (
        at["token"].as_str().unwrap(),
        at["url"].as_str().unwrap().trim_start_matches("http://"),
    );
    // What promptflow 1.18.5 itself has answered.
    let recorded = std::fs::read_to_string(flow.join("recorded.txt")).unwrap();
    let mut answers = Vec::new();
    for asked in recorded.lines().filter_map(|line| line.strip_prefix("== ")) {
        let (accept, body) = asked.split_at(asked.find(" {").unwrap());
        let mut stream = TcpStream::connect(place).unwrap();
        let head = format!(
            "POST /score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\naccept: {accept}\r\n"
        );
        write!(stream, "{head}content-length: {}\r\n\r\n{}", body.len() - 1, &body[1..]).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        answers.push(format!("== {asked}\n{}", as_recorded(&text)));
    }
    // A piece of ours may be two of theirs.
    let joined = |text: &str| text.replace("\\n\"}\n\ndata: {\"answer\": \"", "\\n");
    assert_eq!(joined(&answers.join("\n")), joined(&recorded));
    let pid = nix::unistd::Pid::from_raw(serving.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let said = serving.wait_with_output().unwrap();
    // Why an answer broke off stands where the flow is served.
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("Run.CodeRaised: ValueError: bad text"), "{said}");
}

/// An answer as it is recorded: status and type, then the body, and whether the connection has
/// ended within that.
fn as_recorded(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap();
    let kind = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "))
        .unwrap();
    let (body, ended) = if head.contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        (body.to_owned(), true)
    };
    let end = if ended {
        ""
    } else {
        "(the connection ends in the middle)\n"
    };
    format!("{status} {kind}\n{}\n{end}", body.trim_end())
}

/// A body in chunks, and whether its last one has come.
fn unchunked(mut body: &str) -> (String, bool) {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return (whole, true);
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    (whole, false)
}

#[test]
fn a_run_that_streams_shows_pieces_on_standard_error_and_the_whole_at_its_end() {
    let home = Home::new();
    let service = in_pieces();
    let ended = home.pfsession(&service, &["run", "flow", "--stream", "--inputs", "text=a"]);
    ended.assert(
        0,
        expect![[r#"
            {"answer":"a 0\na 1\na 2\n","asked":"a","seen":3}
        "#]],
        expect![[r#"
            a 0
            a 1
            Ran 1 line in 42 ms. Outputs and log: /r. The session stays for the next run.
        "#]],
    );
    home.pfsession(&service, &["run", "flow", "--stream", "--data", "x.jsonl"])
        .assert(
            2,
            expect![[r#""#]],
            expect![[r#"
            error: the argument '--stream' cannot be used with '--data <FILE>'

            Usage: pfsession run --stream --endpoint <URL> --token <JWT> <FLOW or RUN.YML> [-- <COMMAND>...]

            For more information, try '--help'.
        "#]],
        );
}

const TALKING: &str = "inputs:\n  text:\n    type: string\n    is_chat_input: true\n  chat_history:\n    type: list\n    default: []\n\
    outputs:\n  out:\n    type: string\n    is_chat_output: true\n    reference: ${inputs.text}\n\
    \x20 asked:\n    type: object\n    reference: ${inputs.text}\nnodes: []\n";

#[test]
fn a_served_flow_answers_as_promptflow_serves_it_to_who_has_the_token_and_ctrl_c_ends_it() {
    let home = Home::new();
    std::fs::write(home.path().join("flow/flow.dag.yaml"), TALKING).unwrap();
    let service = echo();
    let mut serving = home
        .command(&service.endpoint, &["serve", "flow", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(serving.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    let at: Value = serde_json::from_str(&line).unwrap();
    let token = at["token"].as_str().unwrap().to_owned();
    let place = at["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let ask = |token: &str, method: &str, path: &str, body: &str| {
        let mut stream = TcpStream::connect(&place).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(30)))
            .unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n");
        write!(stream, "{head}content-length: {length}\r\n\r\n{body}").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        format!("{} {body}", head.split(' ').nth(1).unwrap())
    };
    let mut answers = Vec::new();
    for (method, path, body) in [
        ("GET", "/health", ""),
        ("GET", "/version", ""),
        ("POST", "/score", r#"{"text": "a", "chat_history": [1], "more": 2}"#),
        ("POST", "/score", r#"{"text": "a"}"#),
        ("POST", "/score", "{}"),
        ("POST", "/score", "a"),
        ("POST", "/score", r#"{"text": "bad"}"#),
        ("POST", "/feedback", r#"{"stars": 5}"#),
        ("GET", "/score", ""),
        ("GET", "/nothing", ""),
    ] {
        answers.push(ask(&token, method, path, body));
    }
    for path in ["/health", "/score", "/swagger.json"] {
        answers.push(ask("other", "POST", path, "{}"));
    }
    expect![[r#"
        200 {"status":"Healthy","version":"1.18.5"}
        200 {"status":"Healthy","build_info":"","version":"1.18.5"}
        200 {"out":"a","asked":{"chat_history":[1],"text":"a"}}
        200 {"out":"a","asked":{"text":"a"}}
        400 {"error":{"code":"UserError","message":"Required input fields ['text'] are missing in request data {}"}}
        400 {"error":{"code":"UserError","message":"Promptflow executor received non json data, but there's more than 1 input fields, please use json request data instead."}}
        400 {"error":{"code":"UserError","message":"Run.CodeRaised: ValueError: bad text"}}
        200 {"status":"Feedback received."}
        404 The requested api 'score' with GET is not supported by current app, if you entered the URL manually please check your spelling and try again.
        404 The requested api 'nothing' with GET is not supported by current app, if you entered the URL manually please check your spelling and try again.
        401 {"error":{"code":"Unauthorized","message":"The request needs the token that `pfsession serve` has printed."}}
        401 {"error":{"code":"Unauthorized","message":"The request needs the token that `pfsession serve` has printed."}}
        401 {"error":{"code":"Unauthorized","message":"The request needs the token that `pfsession serve` has printed."}}"#]].assert_eq(&answers.join("\n"));
    let swagger = ask(&token, "GET", "/swagger.json", "");
    let swagger: Value = serde_json::from_str(swagger.split_once(' ').unwrap().1).unwrap();
    assert_eq!(swagger["info"]["x-chat-input"], "text");
    let pid = nix::unistd::Pid::from_raw(serving.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(serving.wait().unwrap().code(), Some(0));
}

#[test]
fn a_chat_says_each_line_with_what_was_said_before() {
    let home = Home::new();
    std::fs::write(home.path().join("flow/flow.dag.yaml"), TALKING).unwrap();
    let service = echo();
    let mut chat = home
        .bounded(&service.endpoint, &["chat", "flow"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    chat.stdin.take().unwrap().write_all(b"one\nbad\ntwo\n").unwrap();
    let ended = Ended::of(chat.wait_with_output().unwrap());
    ended.assert(
        0,
        expect![[r#"
        one
        two
    "#]],
        expect![[r#"
        Run.CodeRaised: ValueError: bad text
    "#]],
    );
    let sent: Vec<Value> = service
        .sent()
        .iter()
        .map(|sent| serde_json::to_value(sent).unwrap())
        .collect();
    let asked: Vec<&Value> = sent
        .iter()
        .filter(|sent| sent["command"] == "run")
        .map(|sent| &sent["run"]["inputs"])
        .collect();
    let before = json!([{ "inputs": { "text": "one" }, "outputs": { "out": "one", "asked": { "text": "one", "chat_history": [] } } }]);
    // What failed was not said.
    assert_eq!(asked[2], &json!({ "text": "two", "chat_history": before }));
    // A flow that is none to chat with says what to do.
    std::fs::write(home.path().join("flow/flow.dag.yaml"), "inputs: {}\nnodes: []\n").unwrap();
    home.pfsession(&service, &["chat", "flow"]).assert(
        2,
        expect![[r#""#]],
        expect![[r#"
            error: flow has no chat input, so nobody can chat with it [Chat.NotAChat]
              next: mark one in the flow's file, is_chat_input: true, or name it: --chat-input NAME
        "#]],
    );
}
