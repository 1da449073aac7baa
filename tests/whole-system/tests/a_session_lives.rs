//! A user's first hour, on the real thing: the released binary, real processes, real flows.

use contract::{
    Named, Origin, Phase,
    http::{End, Keeper, Why},
    notice::Notice,
    row::OperationStatus,
};
use lifecycle::session::Event;
use serde_json::Value;
use std::{fs, path::Path, process::Command, time::Duration};
use whole_system::{Machine, Provider, accept, flow, root, wait_for, write_flow};

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
    // A fresh interpreter loads the flow runtime once; each run is a fork of it.
    for log in fs::read_dir(machine.state().join("logs")).unwrap().flatten() {
        let text = fs::read_to_string(log.path()).unwrap();
        assert!(!text.contains("the flow runtime does not load"), "{text}");
    }
    nothing_is_left(&machine);
}

fn write_files(folder: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
}

/// The results of promptflow itself, recorded by `tests/flows/record.py`, by the folder of the
/// flow.
fn recorded() -> Vec<(std::path::PathBuf, Value)> {
    let mut all: Vec<_> = fs::read_dir(root().join("tests/flows/recorded"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|folder| {
            let text = fs::read_to_string(folder.join("recorded.json")).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
            (folder, serde_json::from_str(&text).unwrap())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// An output as it is compared: each image by its bytes, as its file's name is random.
fn with_images(text: &str, folder: &Path) -> String {
    let image = |name: &str| fs::read(folder.join(name)).map_or("missing".into(), |bytes| format!("{bytes:?}"));
    let mut parts = text.split("\"data:image/png;path\": \"");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('"').unwrap();
        out += &format!("\"image\": {}{rest}", image(name));
    }
    out
}

#[test]
fn a_run_gives_what_promptflow_itself_gave_line_by_line() {
    let machine = Machine::new();
    let mut differences = Vec::new();
    let all = recorded();
    assert!(all.len() >= 30, "{}", all.len());
    let provider = Provider::start("recorded-key");
    for (name, document) in [
        (
            "the_model",
            format!("type: azure_open_ai\napi_base: {}\n", provider.address),
        ),
        (
            "other_model",
            format!("type: open_ai\nbase_url: {}/v1\n", provider.address),
        ),
    ] {
        let file = machine.state().join("connection.yml");
        fs::write(&file, format!("{document}name: {name}\napi_key: recorded-key\n")).unwrap();
        let file = file.display().to_string();
        machine.succeed(&["connection", "create", "-f", &file, "--brokered=false"]);
    }
    for (folder, expected) in &all {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let (place, file) = (
            folder.display().to_string(),
            folder.join("run.yml").display().to_string(),
        );
        let data = folder.join("data.jsonl").display().to_string();
        let entry = fs::read_to_string(folder.join("entry")).unwrap_or_default();
        let mut arguments = match entry.trim() {
            "" => vec!["run", &file],
            entry => vec!["run", &place, "--entry", entry, "--data", &data],
        };
        arguments.extend(["--name", name, "--allow-host", provider.host()]);
        let base = fs::read_to_string(folder.join("base")).unwrap_or_default();
        let earlier = format!("earlier-of-{name}");
        if !base.is_empty() {
            let base = folder.parent().unwrap().join(base.trim()).join("run.yml");
            machine.run(&["run", base.to_str().unwrap(), "--name", &earlier]);
            arguments.extend(["--run", &earlier]);
        }
        let said = machine.run(&arguments);
        let place = machine.state().join("runs").join(name);
        let outputs = fs::read_to_string(place.join("output/outputs.jsonl")).unwrap_or_default();
        let ours: Vec<String> = outputs
            .split_terminator('\n')
            .map(|line| with_images(line, &place.join("output")))
            .collect();
        let theirs: Vec<String> = expected["outputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line.as_str().unwrap_or("null"))
            .map(|line| with_images(line, folder))
            .collect();
        let metrics = fs::read_to_string(place.join("metrics.json")).unwrap_or_else(|_| "{}".into());
        let expected = expected["metrics"].as_str().unwrap();
        if ours != theirs || metrics.split_whitespace().ne(expected.split_whitespace()) {
            let said = String::from_utf8_lossy(&said.stderr).into_owned();
            differences.push(format!(
                "{name}\n ours   {ours:?} {metrics}\n theirs {theirs:?} {expected}\n{said}"
            ));
        }
        machine.run(&["stop", folder.to_str().unwrap()]);
    }
    assert!(
        differences.is_empty(),
        "{} differ: {}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn a_flow_is_named_by_its_file_or_by_its_entry_and_data_may_be_a_folder() {
    let machine = Machine::new();
    let dag = |word: &str| {
        format!(
            "inputs:\n  text: {{type: string}}\noutputs:\n  said: {{type: string, reference: '${{say.output}}'}}\nnodes:\n- name: say\n  type: prompt\n  source: {{type: code, path: {word}.jinja2}}\n  inputs: {{text: '${{inputs.text}}'}}\n"
        )
    };
    let folder = machine.state().join("several flows – Flüsse 流れ");
    write_files(
        &folder,
        &[
            ("one.dag.yaml", &dag("one")),
            ("two.yaml", &dag("two")),
            ("one.jinja2", "one {{text}}"),
            ("two.jinja2", "two {{text}}"),
            ("code.py", "def main(text: str) -> str:\n    return f'entry {text}'\n"),
        ],
    );
    let data = machine.state().join("daten ä");
    write_files(
        &data,
        &[("a ä.csv", "text\nfirst\n"), ("b.jsonl", "{\"text\": \"second\"}\n")],
    );
    let data = data.display().to_string();
    let said = |what: &Path, more: &[&str]| {
        let what = what.display().to_string();
        lines(&machine.succeed(&[&["run", what.as_str(), "--data", &data], more].concat()))
    };
    assert_eq!(
        said(&folder.join("one.dag.yaml"), &[]),
        lines("{\"said\": \"one first\"}\n{\"said\": \"one second\"}")
    );
    assert_eq!(
        said(&folder.join("two.yaml"), &[]),
        lines("{\"said\": \"two first\"}\n{\"said\": \"two second\"}")
    );
    assert_eq!(
        said(&folder, &["--entry", "code:main"]),
        lines("{\"output\": \"entry first\"}\n{\"output\": \"entry second\"}")
    );
    machine.succeed(&["stop", folder.to_str().unwrap()]);
}

#[test]
fn a_taken_name_is_an_error_unless_the_run_is_the_same() {
    let machine = Machine::new();
    let folder = flow("one-node").display().to_string();
    let once = |text: &str| {
        let input = format!("text={text}");
        machine.run(&["run", &folder, "--name", "mine", "--inputs", &input])
    };
    let first = once("a");
    assert!(first.status.success());
    let again = once("a");
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("Nothing runs again"));
    assert_eq!(again.stdout, first.stdout);
    let other = once("b");
    assert!(
        String::from_utf8_lossy(&other.stderr).contains("[Run.NameTaken]"),
        "{other:?}"
    );
    assert!(other.stdout.is_empty());
    machine.succeed(&["stop", &folder]);
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

/// A fault of a flow (its requirements, more YAML), the failure's code, and a word of its message.
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
        said.contains("Flows need Python 3.9 or newer, and there is no python3 on PATH. Install it (on Debian and Ubuntu: apt install python3), or name one in PFSESSION_PYTHON. [Install.PythonMissing]"),
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
    // What the first wrote is not in the store, and so not in the next session of the same
    // environment either.
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
    // An index that takes the connection and never says a word: the download lasts as long as it is
    // let.
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
    let connected = accept(&silent, "the install's question to the index");
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
fn the_user_of_an_idle_session_is_warned_before_its_deletion_and_can_put_it_off() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/forgotten");
    write_flow(&folder, "@tool\ndef one(text: str) -> str:\n    return text\n", None);
    let at = folder.to_str().unwrap();
    machine.succeed(&["start", at, "--idle", "60s"]);
    let api = machine.api();
    let started = api.session(&folder).unwrap();
    let due = started.idle_due.unwrap();
    let warned = wait_for("the warning", Duration::from_secs(90), || {
        api.session(&folder).filter(|session| session.warned)
    });
    assert_eq!((warned.phase, warned.idle_due), (Phase::Ready, Some(due)));
    assert!(warned.now >= due - 15_000, "not before: {} ms", due - warned.now);
    for (arguments, says) in [
        (vec!["list"], "Keep it: pfsession extend"),
        (vec!["show", at], "keep it: pfsession extend"),
        (vec!["why", at], "you were warned; keep it: pfsession extend"),
        (vec!["events", at], "warned: deleted at"),
    ] {
        let said = machine.run(&arguments);
        let said = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    let notices = wait_for("the notice", Duration::from_secs(10), || {
        Some(machine.notices()).filter(|notices| !notices.is_empty())
    });
    let [Notice::DeletedSoon { due: told, extend, .. }] = &notices[..] else {
        panic!("{notices:?}")
    };
    assert_eq!(*told, due, "with the exact time");
    // What the notice carries, sent as it is.
    api.send(&serde_json::to_value(extend).unwrap()).unwrap();
    let row = api.operation(&extend.id, LONG);
    assert_eq!(row.status, OperationStatus::Succeeded, "{row:?}");
    let put_off = api.session(&folder).unwrap();
    assert!(!put_off.warned && put_off.idle_due.unwrap() > due, "{put_off:?}");
    // By the command line, for longer.
    let said = machine.run(&["update", at, "--idle", "8h"]);
    assert!(said.status.success(), "{said:?}");
    let longer = api.session(&folder).unwrap();
    assert!(longer.idle_due.unwrap() > due + 7 * 3_600_000);
    assert_eq!((longer.generation, longer.phase), (started.generation, Phase::Ready));
    machine.succeed(&["extend", at]);
    stop_and_see_that_nothing_is_left(&machine, &folder);
}

#[test]
fn settings_come_from_who_named_them_first_and_change_in_place_or_make_the_session_anew() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/changing");
    write_flow(&folder, "@tool\ndef one(text: str) -> str:\n    return text\n", None);
    let at = folder.to_str().unwrap();
    let run_file = machine.state().join("run.yml");
    let text = format!(
        "flow: {at}\nresources: {{ instance_type: Standard_D2s_v3 }}\ndisplay_name: A try\ntags: {{ kind: try }}\n"
    );
    fs::write(&run_file, text).unwrap();
    machine.succeed(&["run", run_file.to_str().unwrap(), "--idle", "2h", "--name", "first"]);
    let api = machine.api();
    let first = api.session(&folder).unwrap();
    let size = Named::new("Standard_D2s_v3".into(), Origin::RunFile);
    assert_eq!(first.settings.size, size);
    assert_eq!(first.settings.idle, Named::new(7_200_000, Origin::Command));
    assert_eq!(first.image.as_ref().map(|image| image.origin), Some(Origin::Default));
    let shown = machine.succeed(&["show", at]);
    for row in [
        "Standard_D2s_v3: 2 processors, 8 GiB (from run.yml)",
        "2 h (named by a command)",
        "promptflow (the default)",
    ] {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    let shown = machine.succeed(&["show", "first"]);
    assert!(shown.contains("A try") && shown.contains("kind: try"), "{shown}");

    machine.succeed(&["update", at, "--idle", "30m"]);
    let quicker = api.session(&folder).unwrap();
    assert_eq!(
        (quicker.generation, quicker.settings.idle.value),
        (first.generation, 1_800_000)
    );
    assert!(quicker.last_activity > first.last_activity, "it counts as use");

    machine.succeed(&["update", at, "--size", "Standard_B2s"]);
    let other = api.session(&folder).unwrap();
    assert_eq!(
        (other.phase, other.generation),
        (Phase::Ready, first.generation + 1),
        "it was reset"
    );
    assert!(
        other.compute != first.compute && other.settings.idle.value == 1_800_000,
        "{other:?}"
    );
    let said = machine.run(&["start", at, "--size", "Standard_D4s_v3"]);
    let said = String::from_utf8(said.stderr).unwrap();
    let kept = "The session was there already, and keeps its VM size. Update the session to have what you named";
    assert!(said.contains(kept), "{said}");
    let said = machine.run(&["run", run_file.to_str().unwrap(), "--idle", "30m", "--name", "again"]);
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains(kept), "{said}");
    assert!(machine.succeed(&["show", "again"]).contains("keeps its VM size"));
    let none = machine.run(&["update", at, "--size", "Huge"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8(none.stderr).unwrap().contains("[Session.NoSuchSize]"));

    // The flow's own file names another image: the session keeps its own until a reset.
    let flow_file = folder.join("flow.dag.yaml");
    let text = fs::read_to_string(&flow_file).unwrap() + "environment:\n  image: default\n";
    fs::write(&flow_file, text).unwrap();
    let said = machine.run(&["install", at]);
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(
        said.contains("base image is promptflow, and the flow's file names default by now"),
        "{said}"
    );
    let stale = api.session(&folder).unwrap();
    assert_eq!(
        stale.image.as_ref().map(|image| image.value.as_str()),
        Some("promptflow")
    );
    assert!(
        machine
            .succeed(&["show", at])
            .contains("default (from the flow's file), from the next reset on")
    );
    machine.succeed(&["reset", at]);
    let reset = api.session(&folder).unwrap();
    assert_eq!(reset.image, stale.stale_image);
    assert_eq!(reset.stale_image, None);

    // A base image is there for each Python of the machine, and any other is asked for at its
    // registry.
    let python = Command::new("python3")
        .args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        .output()
        .unwrap();
    let named = format!("promptflow:{}", String::from_utf8(python.stdout).unwrap().trim());
    machine.succeed(&["update", at, "--image", &named]);
    machine.succeed(&["reset", at]);
    assert_eq!(api.session(&folder).unwrap().image.unwrap().value, named);

    let failed = machine.run(&["update", at, "--image", "127.0.0.1:1/mine:1"]);
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(
        said.contains("The image 127.0.0.1:1/mine:1 cannot be had") && said.contains("[Image.Unreachable]"),
        "{said}"
    );
    assert!(said.contains("The session goes on as it was."), "{said}");
    let kept = api.session(&folder).unwrap();
    assert_eq!((kept.image.unwrap().value, kept.stale_image), (named, None));
    machine.succeed(&["stop", at]);
    nothing_is_left(&machine);
}

#[test]
fn a_reset_has_the_same_packages_at_the_same_versions_and_resolved_anew_those_of_the_requirements() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/reset");
    let source = "import humanize\n\n@tool\ndef one(text: str) -> str:\n    return humanize.__version__\n";
    write_flow(&folder, source, Some("humanize==4.9.0\n"));
    let at = folder.to_str().unwrap();
    let version = || {
        lines(&machine.succeed(&["run", at]))[0]["said"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(version(), "4.9.0");
    let first = machine.api().session(&folder).unwrap();
    fs::write(folder.join("requirements.txt"), "humanize==4.10.0\n").unwrap();
    machine.succeed(&["reset", at]);
    let reset = machine.api().session(&folder).unwrap();
    assert_eq!((reset.generation, reset.phase), (first.generation + 1, Phase::Ready));
    assert_eq!(version(), "4.9.0", "the same environment");
    machine.succeed(&["reset", at, "--resolve"]);
    assert_eq!(version(), "4.10.0", "what the requirements say");
    stop_and_see_that_nothing_is_left(&machine, &folder);
}

#[test]
fn any_folder_runs_a_command_with_its_own_packages_and_without_promptflow() {
    let machine = Machine::new();
    let folder = machine.state().join("any/tool");
    let at = folder.to_str().unwrap();
    fs::create_dir_all(&folder).unwrap();
    let project = "[project]\nname = \"tool\"\nversion = \"0\"\ndependencies = [\"humanize\"]\n";
    fs::write(folder.join("pyproject.toml"), project).unwrap();
    let script = "import importlib.util, sys, humanize\n\
                  print(humanize.intcomma(int(sys.argv[1])))\n\
                  print('aside', file=sys.stderr)\n\
                  print('promptflow:', importlib.util.find_spec('promptflow'))\n\
                  open('made.txt', 'w').write('x')\n\
                  sys.exit(int(sys.argv[2]))\n";
    fs::write(folder.join("script.py"), script).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();

    let ended = machine.run(&["run", at, "--name", "t1", "--", "python", "script.py", "1234567", "3"]);
    let (out, err) = (text(&ended.stdout), text(&ended.stderr));
    assert_eq!(
        (ended.status.code(), out.as_str()),
        (Some(3), "1,234,567\npromptflow: None\n"),
        "{err}"
    );
    assert!(
        err.contains("aside")
            && err.contains("exited with code 3. The run's output is in")
            && err.contains("[Run.ExitCode]"),
        "{err}"
    );
    assert!(machine.state().join("runs/t1/files/made.txt").exists() && !folder.join("made.txt").exists());
    let session = machine.api().session(&folder).unwrap();
    assert_eq!(session.image.unwrap().value, "python");
    assert!(machine.succeed(&["show", at]).contains("python (the default)"));

    // All of what is said comes, and in its order; with --json, nothing else is on standard output.
    let many: String = (0..3000).map(|n| format!("{n}\n")).collect();
    let counted = machine.succeed(&["run", at, "--", "python", "-c", "for n in range(3000): print(n)"]);
    assert!(counted == many, "{} bytes of {}", counted.len(), many.len());
    let json: Value = serde_json::from_str(&machine.succeed(&["run", at, "--json", "--", "echo", "hello"])).unwrap();
    assert_eq!(
        (&json["result"]["exit_code"], &json["status"]),
        (&Value::from(0), &Value::from("Completed"))
    );

    // What is no program ends as in a shell, and so does what a signal ends.
    for (command, code) in [(vec!["no-such-program"], 127), (vec!["sh", "-c", "kill -9 $$"], 137)] {
        let arguments = [&["run", at, "--"], command.as_slice()].concat();
        assert_eq!(machine.run(&arguments).status.code(), Some(code), "{arguments:?}");
    }
    let said = machine.run(&["run", at, "--env", "WORD=from-here", "--", "sh", "-c", "echo $WORD"]);
    assert_eq!(text(&said.stdout), "from-here\n");
    let nothing = machine.run(&["run", at]);
    assert!(
        text(&nothing.stderr).contains("-- python script.py"),
        "{}",
        text(&nothing.stderr)
    );
    stop_and_see_that_nothing_is_left(&machine, &folder);
}

#[test]
fn why_says_what_keeps_a_session_what_ends_it_and_who_ended_one_that_is_gone() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/asked");
    write_flow(
        &folder,
        "@tool\ndef one(text: str) -> str:\n    import time\n    time.sleep(30)\n    return text\n",
        None,
    );
    let at = folder.to_str().unwrap();
    assert_eq!(machine.run(&["why", at]).status.code(), Some(4), "it has never had one");
    machine.succeed(&["start", at]);
    let why = || serde_json::from_str::<Why>(&machine.succeed(&["why", at, "--json"])).unwrap();
    let ready = why();
    let session = ready.session;
    assert!(session.since > 0 && ready.reasons.because.unwrap().at == session.since);
    assert_eq!(ready.reasons.began.unwrap().by, machine.api().user);
    assert!(
        matches!(&ready.reasons.ends[..], [.., End::Idle { at, .. }] if Some(*at) == session.idle_due),
        "{:?}",
        ready.reasons.ends
    );
    machine.succeed(&["run", at, "--inputs", "text=a", "--no-wait", "--name", "long"]);
    let busy = wait_for("the run", LONG, || {
        Some(why().reasons)
            .filter(|reasons| matches!(&reasons.kept_by[..], [Keeper::Run { id, until: Some(_) }] if id == "long"))
    });
    assert!(!busy.ends.iter().any(|end| matches!(end, End::Idle { .. })));
    machine.succeed(&["stop", at]);
    let gone = why().reasons;
    assert!(matches!(gone.because.unwrap().event, Event::SessionGone { .. }));
    let began = gone.began.unwrap();
    assert_eq!(began.by, machine.api().user);
    assert!(matches!(began.event, Event::Wanted { operation } if operation.kind == contract::Kind::Stop));
    let said = machine.succeed(&["why", at]);
    assert!(
        said.contains("stop wanted") && said.contains("there is no session now"),
        "{said}"
    );
    nothing_is_left(&machine);
}

#[test]
fn a_client_that_is_not_ours_starts_and_stops_sessions_by_the_released_samples_and_a_poison_message_disturbs_nobody() {
    let python = tools::python();
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
    // The environment is in the store from here on, so that a start takes some tens of
    // milliseconds.
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

#[test]
fn an_agent_waits_ready_for_the_next_launch_and_ends_with_its_host() {
    let machine = Machine::new();
    machine.up();
    let waiting = |how_many: usize| {
        let agents = machine
            .processes()
            .into_iter()
            .filter(|(_, command)| command.ends_with(" agent "));
        (agents.count() == how_many).then_some(())
    };
    wait_for("the agent that waits", Duration::from_secs(20), || waiting(1));
    machine.kill_host();
    wait_for("its end", Duration::from_secs(20), || waiting(0));
}
