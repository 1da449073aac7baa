//! What a user does in a first hour, on the real thing: the released binary, real processes, real flows.

use contract::{Phase, row::OperationStatus};
use serde_json::Value;
use std::{fs, path::Path, process::Command, time::Duration};
use whole_system::{Machine, flow, root, wait_for, write_flow};

const LONG: Duration = Duration::from_secs(300);

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect()
}

fn nothing_is_left(machine: &Machine) {
    let mut left = machine.leftovers();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !left.is_empty() && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        left = machine.leftovers();
    }
    assert!(left.is_empty(), "{left:#?}");
}

fn stop_and_see_that_nothing_is_left(machine: &Machine, folder: &Path) {
    machine.succeed(&["stop", folder.to_str().unwrap()]);
    assert_eq!(machine.api().phase(folder), Some(Phase::Stopped));
    wait_for("the compute resource's end", Duration::from_secs(20), || {
        machine.leftovers().is_empty().then_some(())
    });
}

#[test]
fn a_run_starts_the_session_prints_its_outputs_and_the_next_run_uses_the_same_session() {
    let machine = Machine::new();
    let folder = flow("one-node");
    let arguments = [
        "run",
        folder.to_str().unwrap(),
        "--data",
        &folder.join("data.jsonl").display().to_string(),
    ];
    let expected = lines(&fs::read_to_string(folder.join("expected.jsonl")).unwrap());
    assert_eq!(lines(&machine.succeed(&arguments)), expected);
    let first = machine.api().session(&folder).expect("the session is left");
    assert_eq!(first.phase, Phase::Ready);
    assert_eq!(lines(&machine.succeed(&arguments)), expected);
    let log = machine.run(&["logs", folder.to_str().unwrap()]);
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(
        log.contains("Node echo completes") && !log.contains("warm"),
        "a run's log is its own: {log}"
    );
    let second = machine.api().session(&folder).unwrap();
    assert_eq!((second.generation, second.phase), (first.generation, Phase::Ready));
    stop_and_see_that_nothing_is_left(&machine, &folder);
}

#[test]
fn every_kind_of_flow_runs_over_its_data_and_gives_what_is_expected() {
    let machine = Machine::new();
    for name in ["dag-with-package", "flex-function", "shared-includes"] {
        let folder = flow(name);
        let data = folder.join("data.jsonl").display().to_string();
        let said = machine.succeed(&["run", folder.to_str().unwrap(), "--data", &data]);
        assert_eq!(
            lines(&said),
            lines(&fs::read_to_string(folder.join("expected.jsonl")).unwrap()),
            "{name}"
        );
    }
    let class = flow("flex-class");
    let said = machine.succeed(&["run", &class.join("run.yml").display().to_string()]);
    assert_eq!(
        lines(&said),
        lines(&fs::read_to_string(class.join("expected.jsonl")).unwrap())
    );
    for name in ["dag-with-package", "flex-function", "shared-includes", "flex-class"] {
        machine.succeed(&["stop", flow(name).to_str().unwrap()]);
    }
    nothing_is_left(&machine);
}

#[test]
fn a_flow_that_promptflow_itself_made_runs() {
    let machine = Machine::new();
    let folder = machine.state().join("made-by-pf");
    // The environment is there after any session.
    machine.succeed(&["start", flow("one-node").to_str().unwrap()]);
    let store = machine
        .variables
        .iter()
        .find(|(name, _)| name == "PFSESSION_STORE")
        .map(|(_, path)| path.clone())
        .unwrap();
    let found = Command::new("find")
        .args([&store, "-maxdepth", "4", "-path", "*/bin/python"])
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let python = found.lines().find(|python| {
        Command::new(python)
            .args(["-c", "import promptflow._cli"])
            .output()
            .is_ok_and(|o| o.status.success())
    });
    let Some(python) = python else {
        panic!("no environment in {store} has promptflow: {found}")
    };
    let made = Command::new(python)
        .args([
            "-m",
            "promptflow._cli.pf",
            "flow",
            "init",
            "--flow",
            folder.to_str().unwrap(),
            "--type",
            "standard",
        ])
        .current_dir(machine.state())
        .env("HOME", machine.state())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let said = machine.succeed(&["run", folder.to_str().unwrap(), "--inputs", "text=Hello World!"]);
    assert!(said.contains("Hello World!"), "{said}");
}

#[test]
fn a_flow_that_fails_says_why_in_one_line_and_where_the_whole_output_is() {
    let machine = Machine::new();
    for (name, error, word) in [
        ("import-fails", "Run.ImportFailed", "No module named"),
        ("code-raises", "Run.CodeRaised", ""),
    ] {
        let folder = flow(name);
        let data = folder.join("data.jsonl").display().to_string();
        let output = machine.run(&["run", folder.to_str().unwrap(), "--data", &data]);
        assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(error) && said.contains(word), "{name}: {said}");
        let log = said
            .split_whitespace()
            .map(|w| w.trim_matches(['.', ',', '`', '(', ')']))
            .find(|w| w.ends_with("logs.txt"));
        assert!(
            log.is_some_and(|log| Path::new(log).is_file()),
            "{name} names its log: {said}"
        );
        // The session is as good as before.
        assert_eq!(machine.api().phase(&folder), Some(Phase::Ready), "{name}");
    }
}

/// A package index on loopback that has one package, which cannot be built.
struct Index {
    server: std::process::Child,
    port: u16,
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn broken_index(folder: &Path) -> Index {
    let package = folder.join("index/source/broken_build-1.0");
    let files = folder.join("index/simple/broken-build");
    fs::create_dir_all(&package).unwrap();
    fs::create_dir_all(&files).unwrap();
    fs::write(
        package.join("PKG-INFO"),
        "Metadata-Version: 2.1\nName: broken-build\nVersion: 1.0\n",
    )
    .unwrap();
    fs::write(
        package.join("setup.py"),
        "raise SystemExit('this is broken on purpose')\n",
    )
    .unwrap();
    // A build that needs nothing from an index, as this one has nothing else.
    fs::write(
        package.join("broken.py"),
        "raise SystemExit('this is broken on purpose')\n",
    )
    .unwrap();
    let project = "[build-system]\nrequires = []\nbuild-backend = 'broken'\nbackend-path = ['.']\n";
    fs::write(package.join("pyproject.toml"), project).unwrap();
    let packed = Command::new("tar")
        .args(["-czf", files.join("broken_build-1.0.tar.gz").to_str().unwrap(), "-C"])
        .args([package.parent().unwrap().to_str().unwrap(), "broken_build-1.0"])
        .status()
        .unwrap();
    assert!(packed.success());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = Command::new("python3")
        .args([
            "-m",
            "http.server",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--directory",
        ])
        .arg(folder.join("index"))
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the index", Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    Index { server, port }
}

/// What is wrong with a flow (its requirements, more YAML), the failure's stable name, and a word of what is said.
type Case<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a str, &'a str);

#[test]
fn a_failed_start_says_why_on_the_command_line_and_in_show() {
    let machine = Machine::new();
    let folder = |name: &str| machine.state().join("flows").join(name);
    let plain = "@tool\ndef one(text: str) -> str:\n    return text\n";
    let elsewhere = tempfile::tempdir().unwrap();
    let index = broken_index(elsewhere.path());
    let broken = format!("--index-url http://127.0.0.1:{}/simple\nbroken-build\n", index.port);
    let cases: &[Case] = &[
        (
            "no-such-package",
            Some("surely-no-such-package-as-this-one"),
            None,
            "Install.NoSuchPackage",
            "surely-no-such-package",
        ),
        (
            "no-such-version",
            Some("titlecase==99.99"),
            None,
            "Install.NoSuchVersion",
            "99.99",
        ),
        (
            "conflict",
            Some("urllib3<1\nrequests>=2.32"),
            None,
            "Install.Conflict",
            "requests",
        ),
        (
            "bad-line",
            Some("titlecase\n=!= what"),
            None,
            "Flow.BadRequirement",
            "requirements.txt:2",
        ),
        (
            "local-wheel",
            Some("./some.whl"),
            None,
            "Flow.LocalPackage",
            "in your image",
        ),
        (
            "pinned",
            Some("promptflow==1.10.0"),
            None,
            "Flow.PinnedPromptflow",
            "promptflow",
        ),
        ("build-failed", Some(&broken), None, "Install.BuildFailed", "broken"),
        (
            "unreachable",
            Some("--index-url http://127.0.0.1:9/simple\ntitlecase"),
            None,
            "Install.IndexUnreachable",
            "127.0.0.1",
        ),
        (
            "wrong-environment",
            None,
            Some("environment: python"),
            "Flow.BadEnvironment",
            "environment",
        ),
        (
            "missing-include",
            None,
            Some("additional_includes:\n- ../not-there.py"),
            "Flow.MissingInclude",
            "not-there.py",
        ),
        (
            "leads-out",
            None,
            Some("additional_includes:\n- ../../../../../../../etc/passwd"),
            "Flow.PathLeadsOut",
            "passwd",
        ),
        (
            "absolute",
            None,
            Some("additional_includes:\n- /etc/passwd"),
            "Flow.AbsoluteInclude",
            "/etc/passwd",
        ),
    ];
    for (name, requirements, yaml, error, word) in cases {
        let folder = folder(name);
        write_flow(&folder, plain, *requirements);
        if let Some(yaml) = yaml {
            let dag = fs::read_to_string(folder.join("flow.dag.yaml")).unwrap();
            fs::write(folder.join("flow.dag.yaml"), format!("{dag}{yaml}\n")).unwrap();
        }
        let output = machine.run(&["start", folder.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(error) && said.contains(word), "{name}: {said}");
        let shown = machine.succeed(&["show", folder.to_str().unwrap()]);
        assert!(shown.contains(error) && shown.contains(word), "{name}: {shown}");
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
    nothing_is_left(&machine);
}

#[test]
fn a_machine_without_python_says_what_to_do() {
    let machine = Machine::bare();
    let output = machine
        .command(&["start", flow("one-node").to_str().unwrap()])
        .env("PATH", machine.state())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("Install.PythonMissing") && said.contains("Python 3"),
        "{said}"
    );
}

#[test]
fn two_sessions_with_the_same_environment_see_and_change_nothing_of_each_other() {
    let machine = Machine::new();
    let (a, b) = (machine.state().join("flows/a"), machine.state().join("flows/b"));
    let spoil = r#"
import json, os, sys

@tool
def one(text: str) -> str:
    import titlecase
    module = titlecase.__file__
    seen = {"before": open(module).read()[:40], "spoiled": hasattr(titlecase, "spoiled")}
    try:
        with open(module, "a") as f:
            f.write("\nspoiled = True\n")
        seen["wrote"] = True
    except OSError as error:
        seen["wrote"] = type(error).__name__
    open("/tmp/left", "a").write("x")
    seen["left"] = len(open("/tmp/left").read())
    seen["host"] = os.path.exists(os.path.join(os.path.dirname(text), "host.json"))
    seen["state"] = sorted(os.listdir(text)) if os.path.isdir(text) else []
    seen["credentials"] = [k for k in os.environ if "AWS" in k or "TOKEN" in k]
    seen["processes"] = len([p for p in os.listdir("/proc") if p.isdigit()])
    seen["caps"] = [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")][0]
    return json.dumps(seen)
"#;
    for folder in [&a, &b] {
        write_flow(folder, spoil, Some("titlecase\n"));
    }
    let state = format!("text={}/sessions", machine.state().display());
    let said = |folder: &Path| -> Value {
        let out = lines(&machine.succeed(&["run", folder.to_str().unwrap(), "--inputs", &state]));
        serde_json::from_str(out[0]["said"].as_str().unwrap()).unwrap()
    };
    let (first, other) = (said(&a), said(&b));
    for seen in [&first, &other] {
        assert_eq!(seen["spoiled"], false, "{seen}");
        assert_eq!(seen["left"], 1, "a session's /tmp is its own: {seen}");
        assert_eq!(seen["host"], false, "a session sees no credentials of the host: {seen}");
        assert_eq!(seen["credentials"], serde_json::json!([]), "{seen}");
        assert_eq!(seen["caps"], "0000000000000000", "{seen}");
        assert!(
            seen["processes"].as_u64().unwrap() < 12,
            "a session sees its own processes: {seen}"
        );
        assert!(
            seen["state"].as_array().unwrap().len() <= 1,
            "a session sees no other's folder: {seen}"
        );
    }
    // What the first wrote is not in the store, and so not in the next session of the same environment either.
    machine.succeed(&["reset", a.to_str().unwrap()]);
    assert_eq!(said(&a)["spoiled"], false);
}

#[test]
fn a_stop_in_the_middle_of_an_install_ends_it_and_a_start_sent_meanwhile_waits_and_succeeds() {
    let machine = Machine::new();
    machine.up();
    let api = machine.api();
    let folder = machine.state().join("flows/slow");
    write_flow(
        &folder,
        "@tool\ndef one(text: str) -> str:\n    return text\n",
        Some("--index-url http://127.0.0.1:1/\nsurely-slow\n"),
    );
    // An index that takes the connection and never says a word: the download lasts as long as it is let.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let index = format!(
        "--index-url http://127.0.0.1:{}/simple\nsurely-slow\n",
        silent.local_addr().unwrap().port()
    );
    fs::write(folder.join("requirements.txt"), index).unwrap();
    api.start("start-slow", &folder).unwrap();
    wait_for("the install", LONG, || {
        (api.phase(&folder) == Some(Phase::Installing)).then_some(())
    });
    let connected = silent.accept().expect("the install asks the index");
    api.stop("stop-slow", &folder).unwrap();
    fs::remove_file(folder.join("requirements.txt")).unwrap();
    let dag = fs::read_to_string(folder.join("flow.dag.yaml")).unwrap();
    fs::write(
        folder.join("flow.dag.yaml"),
        dag.replace("environment:\n  python_requirements_txt: requirements.txt\n", ""),
    )
    .unwrap();
    api.start("start-again", &folder).unwrap();
    let bound = Duration::from_millis(lifecycle::deadlines::STOP_BOUND_ON_ONE_MACHINE);
    assert_eq!(api.operation("stop-slow", bound).status, OperationStatus::Succeeded);
    assert_eq!(api.operation("start-slow", bound).status, OperationStatus::Canceled);
    assert_eq!(api.operation("start-again", LONG).status, OperationStatus::Succeeded);
    assert_eq!(api.phase(&folder), Some(Phase::Ready));
    drop(connected);
    stop_and_see_that_nothing_is_left(&machine, &folder);
}

#[test]
fn an_idle_session_is_deleted_by_the_sweep_and_one_with_a_run_in_progress_only_after_it() {
    let machine = Machine::new();
    let (quiet, busy) = (machine.state().join("flows/quiet"), machine.state().join("flows/busy"));
    write_flow(&quiet, "@tool\ndef one(text: str) -> str:\n    return text\n", None);
    // A run of 75 seconds in a session that may be idle for 60.
    write_flow(
        &busy,
        "@tool\ndef one(text: str) -> str:\n    import time\n    time.sleep(75)\n    return text\n",
        None,
    );
    machine.succeed(&["start", quiet.to_str().unwrap(), "--idle", "60s"]);
    machine.succeed(&["start", busy.to_str().unwrap(), "--idle", "60s"]);
    machine.succeed(&["run", busy.to_str().unwrap(), "--no-wait", "--name", "long-run"]);
    let api = machine.api();
    wait_for("the idle session's end", Duration::from_secs(90), || {
        (api.phase(&quiet) == Some(Phase::Stopped)).then_some(())
    });
    assert_eq!(
        api.phase(&busy),
        Some(Phase::Ready),
        "a session with a run in progress is not idle"
    );
    let run = api.run_row("long-run", Duration::from_secs(60));
    assert_eq!(run.status, contract::row::RunStatus::Completed);
    let ended = run.ended.unwrap();
    wait_for("the other one's end", Duration::from_secs(90), || {
        (api.phase(&busy) == Some(Phase::Stopped)).then_some(())
    });
    let stopped = api.session(&busy).unwrap().now;
    assert!(
        stopped >= ended + 60_000,
        "it was stopped {} ms after its run",
        stopped - ended
    );
    nothing_is_left(&machine);
}

#[test]
fn a_client_that_is_not_ours_starts_and_stops_sessions_by_the_released_samples_and_a_poison_message_disturbs_nobody() {
    let python = std::env::var("PFSESSION_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !Command::new(&python)
        .args(["-c", "import boto3"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        println!(
            "not run: {python} has no boto3; `pip install boto3`, or name a Python that has it in PFSESSION_TEST_PYTHON"
        );
        return;
    }
    let machine = Machine::new();
    machine.up();
    let send = |what: &str| {
        let sent = Command::new(&python)
            .arg(root().join("tests/whole-system/tests/queue_client.py"))
            .arg(root().join("events/accept-command/valid"))
            .args([flow("one-node").to_str().unwrap(), &machine.api().user, what])
            .envs(machine.aws_variables())
            .output()
            .unwrap();
        let said = [&sent.stdout[..], &sent.stderr[..]].concat();
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&said));
    };
    let api = machine.api();
    send("start");
    assert_eq!(api.operation("boto-start", LONG).status, OperationStatus::Succeeded);
    send("stop");
    assert_eq!(api.operation("boto-stop", LONG).status, OperationStatus::Succeeded);
    nothing_is_left(&machine);
}

#[test]
fn a_stop_sent_at_any_moment_of_a_start_ends_in_stopped_within_its_bound() {
    let machine = Machine::new();
    let folder = flow("one-node");
    // The environment is in the store from here on, so that a start takes some tens of milliseconds.
    machine.succeed(&["start", folder.to_str().unwrap()]);
    machine.succeed(&["stop", folder.to_str().unwrap()]);
    let api = machine.api();
    let bound = Duration::from_millis(lifecycle::deadlines::STOP_BOUND_ON_ONE_MACHINE);
    let mut met = std::collections::BTreeSet::new();
    for after in (0..120).step_by(6) {
        api.start(&format!("start-{after}"), &folder).unwrap();
        // The moment is what is tried here; nothing is waited for.
        std::thread::sleep(Duration::from_millis(after));
        met.extend(api.phase(&folder).map(|phase| format!("{phase:?}")));
        api.stop(&format!("stop-{after}"), &folder).unwrap();
        assert_eq!(
            api.operation(&format!("stop-{after}"), bound).status,
            OperationStatus::Succeeded,
            "{after} ms"
        );
        assert_eq!(api.phase(&folder), Some(Phase::Stopped), "{after} ms");
        let start = api.operation(&format!("start-{after}"), bound).status;
        assert!(
            matches!(start, OperationStatus::Succeeded | OperationStatus::Canceled),
            "{after} ms: {start:?}"
        );
    }
    println!("phases met by a stop: {met:?}");
    assert!(met.len() > 1, "the stops met one phase only: {met:?}");
    nothing_is_left(&machine);
}

#[test]
fn the_lambda_binaries_themselves_bring_a_session_up_and_down() {
    let mut machine = Machine::new();
    machine.variables.push((
        "PFSESSION_FUNCTIONS".to_owned(),
        whole_system::lambdas().display().to_string(),
    ));
    let folder = flow("one-node");
    machine.succeed(&["run", folder.to_str().unwrap()]);
    let functions: Vec<String> = machine.processes().into_iter().map(|(_, command)| command).collect();
    for name in ["accept-command", "start-session", "agent-report", "api"] {
        assert!(
            functions
                .iter()
                .any(|command| command.trim_end().ends_with(&format!("/{name}"))),
            "{name} is not what runs: {functions:#?}"
        );
    }
    machine.succeed(&["stop", folder.to_str().unwrap()]);
    assert_eq!(machine.api().phase(&folder), Some(Phase::Stopped));
}

#[test]
fn a_request_without_a_token_of_the_issuer_is_answered_401() {
    let (machine, stranger) = (Machine::new(), Machine::new());
    machine.up();
    stranger.up();
    let mut api = machine.api();
    assert!(api.sessions().is_empty());
    assert!(api.get::<Value>("/v1/sessions").is_ok());
    for token in ["", "nonsense", &stranger.api().token] {
        api.token = token.to_owned();
        let refused = api.get::<Value>("/v1/sessions").unwrap_err();
        assert_eq!(refused.0, 401, "{refused:?}");
        assert!(
            token.is_empty() || !refused.1.contains(token),
            "the token is not in the answer"
        );
        assert_eq!(api.stop("stop-1", Path::new("/somewhere")).unwrap_err().0, 401);
    }
}
