//! The error texts of the command line itself, as they are printed.

use contract::{Code, Failure};
use expect_test::expect;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Command, Stdio},
    thread,
};

/// {"sub":"ann","ws":"lab"}
const TOKEN: &str = "e30.eyJzdWIiOiJhbm4iLCJ3cyI6ImxhYiJ9.x";

/// A service that answers everything with this.
fn service(status: u16, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok);
            let _ = lines.by_ref().find(String::is_empty);
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            // Until the other side has read it: what it still sends is not to reset the connection.
            let _ = lines.count();
        }
    });
    endpoint
}

/// The command's output, without the parts that differ between machines.
fn said(home: &Path, endpoint: Option<&str>, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pfsession"));
    command
        .args(arguments)
        .current_dir(home)
        .env_clear()
        .stdin(Stdio::null());
    command
        .env("PATH", "/usr/bin:/bin")
        .env("PFSESSION_STATE", home.join("state"));
    if let Some(endpoint) = endpoint {
        command
            .env("PFSESSION_ENDPOINT", endpoint)
            .env("PFSESSION_TOKEN", TOKEN);
    }
    of(command, home, endpoint)
}

fn of(mut command: Command, home: &Path, endpoint: Option<&str>) -> String {
    let ended = command.output().unwrap();
    assert!(!ended.status.success());
    let text = String::from_utf8(ended.stderr).unwrap();
    let text = endpoint.map_or(text.clone(), |endpoint| text.replace(endpoint, "ENDPOINT"));
    let text = text.replace(&home.display().to_string(), "HOME");
    format!("{}exit {}\n", text, ended.status.code().unwrap())
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("flow")).unwrap();
    fs::write(home.path().join("flow/flow.dag.yaml"), "nodes: []\n").unwrap();
    home
}

#[test]
fn a_service_that_is_not_there_or_says_nonsense_is_named_with_what_to_do() {
    let home = home();
    let at = |endpoint: &str, arguments: &[&str]| said(home.path(), Some(endpoint), arguments);
    let problem = |status: u16, error: &str, message: &str| {
        service(
            status,
            &json!({ "error": Failure::new(Code::read(error), message) }).to_string(),
        )
    };
    let bad_token = {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pfsession"));
        command.args(["list", "--endpoint", "http://127.0.0.1:9", "--token", "x"]);
        of(command, home.path(), None)
    };
    let texts = [
        at("http://127.0.0.1:9", &["list"]),
        at(&service(503, "busy"), &["list"]),
        at(&service(200, "hello"), &["list"]),
        at(
            &problem(401, "Access.NoToken", "The bearer token has expired."),
            &["list"],
        ),
        at(&service(403, "no way in"), &["list"]),
        bad_token,
        at("http://127.0.0.1:9", &["env"]),
        at("http://127.0.0.1:9", &["update", "flow"]),
    ];
    expect![[r#"
        error: The service at ENDPOINT does not answer: io: Connection refused (os error 111) [Service.Unreachable]
          next: see that it runs and that the address is right, then try again
        exit 3
        error: The service at ENDPOINT answers with 503: busy [Service.Unavailable]
        exit 3
        error: The service's answer to /v1/sessions is not understood: expected value at line 1 column 1 [Service.OtherVersion]
          next: use a pfsession of the service's own version
        exit 1
        error: The bearer token has expired. [Access.NoToken]
          next: get a new token; for the service on this machine: pfsession down, then try again
        exit 1
        error: The service answers 403: no way in [Service.Refused]
        exit 1
        error: The token is no JWT that names a user (`sub`) and a workspace (`ws`) [Service.BadToken]
        exit 2
        error: This command is about the service on this machine, and --endpoint names another [Service.NotHere]
          next: leave out --endpoint, and unset PFSESSION_ENDPOINT
        exit 2
        error: No setting is named [Command.NothingToChange]
          next: name one: --idle, --size, --compute, --compute-type, --image, --identity, --network, --allow-host
        exit 2
    "#]].assert_eq(&texts.concat());
}

#[test]
fn a_service_that_cannot_be_started_says_why() {
    let home = home();
    fs::write(home.path().join("state"), "not a folder").unwrap();
    let no_home = {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pfsession"));
        command.arg("list").env_clear();
        of(command, home.path(), None)
    };
    let texts = [said(home.path(), None, &["list"]), no_home];
    expect![[r#"
        error: The service cannot be started in HOME/state: Not a directory (os error 20) [Service.NotStarted]
          next: see that this folder can be written to, or name another with --state
          whole output: HOME/state/log/host.log
        exit 3
        error: There is no home folder to keep sessions in [Service.NoState]
          next: name a folder with --state
        exit 3
    "#]]
    .assert_eq(&texts.concat());
}

#[test]
fn what_was_typed_wrongly_is_said_before_anything_is_sent() {
    let home = home();
    let nothing = service(
        404,
        &json!({ "error": Failure::new(Code::HttpNotFound, "There is none.") }).to_string(),
    );
    let said = |arguments: &[&str]| said(home.path(), Some(&nothing), arguments);
    let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
    write("run.yml", "data: a.jsonl\n");
    write("named.yml", "flow: flow\nname: \"a b\"\n");
    write("of-a-run.yml", "flow: flow\ncolum_mapping: {}\n");
    write("resumes.yml", "flow: flow\nresume_from: earlier\n");
    let strange = home.path().join(std::ffi::OsStr::from_bytes(b"fl\xffw"));
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("flow.dag.yaml"), "nodes: []\n").unwrap();
    std::os::unix::fs::symlink(&strange, home.path().join("link")).unwrap();
    let texts = [
        said(&["stop", "nothing-of-this-name"]),
        said(&["start", "nowhere"]),
        said(&["start", "link"]),
        said(&["run", "flow", "--data", "nothing.jsonl"]),
        said(&["run", "run.yml"]),
        said(&["run", "named.yml"]),
        said(&["run", "of-a-run.yml"]),
        said(&["run", "resumes.yml"]),
        said(&["show", "flow"]),
        said(&["schema", "down"]),
        said(&["man", "--out", "flow/flow.dag.yaml"]),
    ];
    expect![[r#"
        error: There is no folder, session, operation or run nothing-of-this-name [Session.None]
          next: see what there is: pfsession list --all; of others, if you are an owner: pfsession list --all --all-users
        exit 4
        error: There is no folder nowhere. Give the path of the folder that holds the flow. [Flow.NoSuchFolder]
        exit 2
        error: The path of link is not UTF-8. Rename the folder, or the one that it is in. [Flow.BadPath]
        exit 2
        error: The data file nothing.jsonl cannot be read: No such file or directory (os error 2). Give the path of a file of JSON lines. [Run.NoData]
        exit 2
        error: run.yml names no flow. Add a line `flow: <folder>`. [Flow.BadRunFile]
        exit 2
        error: The run's name a b is none: an id has 1 to 70 characters of A-Z a-z 0-9 - _ [Run.BadName]
        exit 2
        error: of-a-run.yml: a run has no key colum_mapping. Did you mean column_mapping? [Flow.BadRunFile]
        exit 2
        error: resumes.yml: a run file resumes no run [Flow.BadRunFile]
          next: leave out resume_from, and name the run: pfsession run --resume-from earlier
        exit 2
        error: flow has never had a session [Session.NoSession]
          next: start one: pfsession start flow
        exit 4
        error: `pfsession down` prints no JSON that has a schema [Command.NoSchema]
          next: see which do: pfsession schema
        exit 2
        error: The manual cannot be written to flow/flow.dag.yaml: File exists (os error 17) [Command.NotWritten]
          next: name a folder that can be written to: pfsession man --out FOLDER
        exit 1
    "#]].assert_eq(&texts.concat());
}

#[test]
fn a_webhook_that_cannot_be_says_why() {
    let home = home();
    let rule = json!({
        "name": "flow-push-install", "sender": "github", "kind": "github", "event": "push", "only": { "branch": "main" },
        "flow": { "workspace": "lab", "owner": "ann", "lineage": "/elsewhere" }, "command": "install",
    });
    let known = service(
        200,
        &json!({ "revision": 1, "rules": [rule], "address": "http://x/webhook/lab/" }).to_string(),
    );
    let at = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["webhook"].into_iter().chain(arguments.iter().copied()).collect();
        said(home.path(), Some(&known), &arguments)
    };
    fs::write(home.path().join("short"), "short").unwrap();
    let texts = [
        at(&["add", "flow", "--on", "push", "--then", "install"]),
        at(&["add", "flow", "--on", "paid", "--then", "start"]),
        at(&[
            "add",
            "flow",
            "--on",
            "paid",
            "--then",
            "start",
            "--kind",
            "standard-webhooks",
            "--from",
            "github",
        ]),
        at(&["remove", "nothing"]),
        at(&["rotate", "nobody"]),
    ];
    expect![[r#"
        error: There is a webhook flow-push-install already [Webhook.Exists]
          next: choose another --name, or: pfsession webhook remove flow-push-install
        exit 2
        error: paid is no event that this command knows of GitHub [Webhook.NoKind]
          next: say who sends it: --kind github or --kind standard-webhooks
        exit 2
        error: The sender github signs in another way, as another webhook says [Webhook.OtherKind]
          next: name the sender otherwise: --from NAME
        exit 2
        error: There is no webhook nothing [Webhook.None]
          next: see what there is: pfsession webhook list
        exit 4
        error: No webhook is from nobody [Webhook.None]
          next: see what there is: pfsession webhook list
        exit 4
    "#]]
    .assert_eq(&texts.concat());
}

#[test]
fn a_failure_for_programs_is_json_by_its_schema() {
    let home = home();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pfsession"));
    command.args(["list", "--json", "--endpoint", "http://127.0.0.1:9", "--token", "x"]);
    let ended = command.current_dir(home.path()).output().unwrap();
    let failure: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let schema = Command::new(env!("CARGO_BIN_EXE_pfsession"))
        .args(["schema", "failure"])
        .output()
        .unwrap();
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    for name in schema["required"].as_array().unwrap() {
        assert!(failure[name.as_str().unwrap()].is_string(), "{failure}");
    }
}

#[test]
fn a_connection_that_cannot_be_kept_says_why_and_no_secret() {
    let home = home();
    let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
    write("c.yml", "name: mine\ntype: open_ai\n");
    write("unnamed.yml", "type: open_ai\napi_key: hidden\n");
    write("bad.yml", "name: mine\ntype: azure_open_ai\napi_key: hidden\n");
    write(
        "list.json",
        r#"[{"name": "a", "type": "open_ai", "api_key": "******"}, {"name": "b", "type": "custom", "secrets": {"x": "******"}}]"#,
    );
    write("kept.yml", "name: kept\ntype: open_ai\napi_key: hidden\n");
    let here = |arguments: &[&str], input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pfsession"));
        command.args(arguments).current_dir(home.path()).env_clear();
        command.env("PFSESSION_STATE", home.path().join("state"));
        let file = home.path().join("input");
        fs::write(&file, input).unwrap();
        command.stdin(fs::File::open(file).unwrap());
        command
    };
    assert!(
        here(&["connection", "create", "-f", "kept.yml"], "")
            .status()
            .unwrap()
            .success()
    );
    let said = |arguments: &[&str], input: &str| of(here(arguments, input), home.path(), None);
    let texts = [
        said(&["connection", "create", "-f", "c.yml"], ""),
        said(&["connection", "create", "-f", "c.yml"], "hidden\nother=hidden\n"),
        said(&["connection", "create", "-f", "unnamed.yml"], ""),
        said(&["connection", "create", "-f", "bad.yml"], ""),
        said(&["connection", "create", "-f", "nowhere.yml"], ""),
        said(&["connection", "import", "list.json"], "a.api_key=hidden\n"),
        said(&["connection", "show", "nothing"], ""),
        said(&["connection", "delete", "nothing"], ""),
        said(&["connection", "update", "kept", "--set", "api_key=hidden"], ""),
        said(&["run", "flow", "--env-secret", "TOKEN"], ""),
        said(
            &[
                "run",
                "flow",
                "--env-secret",
                "TOKEN",
                "--endpoint",
                "http://127.0.0.1:9",
                "--token",
                TOKEN,
            ],
            "hidden",
        ),
    ];
    assert!(!texts.concat().contains("hidden"), "{}", texts.concat());
    expect![[r#"
        error: The connection mine needs a secret that is not given: api_key [Connection.NoSecret]
          next: type it when it is asked for, or give it on standard input: one alone, or lines KEY=SECRET
        exit 2
        error: Line 1 of standard input does not begin with one of api_key [Connection.NoSecret]
          next: give each as a line KEY=SECRET
        exit 2
        error: unnamed.yml has no name for the connection [Connection.NoName]
          next: add a line `name: my_connection`, or give --name
        exit 2
        error: bad.yml: api_base is missing. A connection of type azure_open_ai needs it. [Connection.BadFile]
        exit 2
        error: nowhere.yml cannot be read: No such file or directory (os error 2). Name a file with a connection. [Connection.BadFile]
        exit 2
        error: 1 connection is kept, and others are not, as their secrets are missing: b.x [Connection.NoSecret]
          next: give each as a line NAME.KEY=SECRET: pfsession connection import list.json < secrets.txt
        exit 1
        error: There is no connection nothing [Connection.None]
          next: see what there is: pfsession connection list
        exit 4
        error: There is no connection nothing [Connection.None]
          next: see what there is: pfsession connection list
        exit 4
        error: api_key is a secret, and a command line is seen by others [Connection.SecretInArgument]
          next: have it asked for: --secret api_key
        exit 2
        error: The secret variable TOKEN has no value [Run.NoSecretVariables]
          next: set it in your own environment, or give it on standard input: one alone, or lines NAME=SECRET
        exit 2
        error: A secret variable reaches sessions of this machine alone: what is sent elsewhere is stored in a queue [Run.SecretElsewhere]
          next: leave out --env-secret, and have the flow read the value where it runs
        exit 2
    "#]].assert_eq(&texts.concat());
}
