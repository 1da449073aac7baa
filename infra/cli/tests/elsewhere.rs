//! `pfsession` against a service that does not see this machine: what it sends there, and when.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

/// {"sub":"ann","ws":"lab"}
const TOKEN: &str = "e30.eyJzdWIiOiJhbm4iLCJ3cyI6ImxhYiJ9.x";
const SECRET: &str = "a-signature-that-nobody-sees";

/// A service and its store: the requests that it has had, each with its body; and what it answers
/// to offers and uploads.
#[derive(Clone)]
struct Service {
    endpoint: String,
    had: Arc<Mutex<Vec<(String, String)>>>,
}

impl Service {
    /// * `is_there`: whether it has what it is offered; `takes`: what the store answers;
    ///   `no_store`: it sees folders itself.
    fn new(is_there: bool, takes: u16, no_store: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = Self {
            endpoint: endpoint.clone(),
            had: Arc::default(),
        };
        let had = service.had.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut first = String::new();
                let _ = reader.read_line(&mut first);
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    if let Some(bytes) = line.to_lowercase().strip_prefix("content-length: ") {
                        length = bytes.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                let _ = reader.read_exact(&mut body);
                let body = String::from_utf8_lossy(&body).into_owned();
                let request = first.rsplit_once(' ').map_or("", |(request, _)| request).to_owned();
                had.lock().unwrap().push((request.clone(), body));
                let upload =
                    format!(r#","upload":{{"url":"{endpoint}/store?{SECRET}","headers":{{"x-bound":"yes"}}}}"#);
                let (status, answer) = match &*request {
                    "POST /v1/snapshots" if no_store => (
                        404,
                        r#"{"error":{"error":"Http.NoSnapshots","message":"None."}}"#.into(),
                    ),
                    "POST /v1/snapshots" => (
                        200,
                        format!(r#"{{"address":"s3://b/x"{}}}"#, if is_there { "" } else { &upload }),
                    ),
                    "POST /v1/commands" => (202, r#"{"id":"i","flow":"f"}"#.to_owned()),
                    _ => (takes, String::new()),
                };
                let _ = write!(
                    reader.into_inner(),
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                );
            }
        });
        service
    }

    /// Runs a flow and does not wait.
    fn run(&self, flow: &Path) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pfsession"))
            .arg("run")
            .arg(flow)
            .arg("--data")
            .arg(flow.join("data.jsonl"))
            .args(["--no-wait", "--endpoint", &self.endpoint])
            .env("PFSESSION_TOKEN", TOKEN)
            .output()
            .unwrap()
    }

    /// The requests that it had; a run also asks about its session.
    fn had(&self) -> Vec<String> {
        let had = self.had.lock().unwrap();
        let requests = had.iter().map(|(request, _)| request);
        requests
            .filter(|request| !request.starts_with("GET /v1/sessions/"))
            .cloned()
            .collect()
    }

    fn command(&self) -> serde_json::Value {
        let had = self.had.lock().unwrap();
        let (_, body) = had.iter().find(|(request, _)| request == "POST /v1/commands").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

fn flow(folder: &Path) -> std::path::PathBuf {
    let flow = folder.join("flow");
    fs::create_dir(&flow).unwrap();
    fs::write(flow.join("flow.dag.yaml"), "nodes: []\n").unwrap();
    fs::write(flow.join("data.jsonl"), "{}\n").unwrap();
    flow
}

#[test]
fn a_flow_and_its_data_are_sent_to_a_service_that_does_not_see_them_and_only_if_they_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let flow = flow(folder.path());
    let new = Service::new(false, 200, false);
    let output = new.run(&flow);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let store = format!("PUT /store?{SECRET}");
    let asked = "POST /v1/snapshots";
    assert_eq!(new.had(), [asked, &store, asked, &store, "POST /v1/commands"]);
    let command = new.command();
    assert_eq!(command["settings"]["folder"], "s3://b/x");
    assert_eq!(command["run"]["data"], "s3://b/x");
    // It stays the flow that it is here.
    assert_eq!(
        command["flow"]["lineage"],
        flow.canonicalize().unwrap().to_str().unwrap()
    );

    let known = Service::new(true, 200, false);
    assert!(known.run(&flow).status.success());
    assert_eq!(known.had(), [asked, asked, "POST /v1/commands"]);

    let here = Service::new(true, 200, true);
    assert!(here.run(&flow).status.success());
    assert_eq!(here.command()["settings"].get("folder"), None);
    assert_eq!(
        here.command()["run"]["data"],
        flow.join("data.jsonl").canonicalize().unwrap().to_str().unwrap()
    );
}

#[test]
fn what_could_not_be_sent_says_so_and_shows_no_address_and_a_bad_folder_is_not_sent_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let flow = flow(folder.path());
    let refuses = Service::new(false, 403, false);
    let output = refuses.run(&flow);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3));
    expect_test::expect![[r#"
        error: The service's store did not take what the command needs: it answered 403 [Snapshot.NotSent]
          next: try again in a moment
    "#]]
    .assert_eq(&said);
    assert!(!said.contains(SECRET));

    fs::write(flow.join("flow.dag.yaml"), "additional_includes:\n- ../../etc\n").unwrap();
    let never = Service::new(false, 200, false);
    let output = never.run(&flow);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Flow.PathLeadsOut"));
    assert_eq!(never.had(), Vec::<String>::new());
}
