//! Runs as things: listed, compared, canceled, resumed and deleted, by the command line and over
//! HTTP.

use contract::{
    http::{RunChange, RunFiles, Runs},
    row::{RunRow, RunStatus},
};
use serde_json::{Value, json};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Output,
    thread,
    time::{Duration, Instant},
};
use whole_system::{Machine, root, wait_for, write_flow};

const LONG: Duration = Duration::from_secs(120);

/// A folder with these programs, which needs no package.
fn programs(machine: &Machine, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = machine.state().join(name);
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    folder
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A program that starts a child in a group of its own, writes both ids where the test sees them,
/// and ends with neither.
const SLEEPS: &str = "import os, subprocess, sys, time
child = subprocess.Popen(['sleep', '3000'], start_new_session=True)
print('begun', flush=True)
time.sleep(3000)
";

/// The number of this machine's processes that run `sleep` for these seconds.
fn sleepers(seconds: u32) -> usize {
    let wanted = format!("sleep\0{seconds}\0");
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| line.starts_with(wanted.as_bytes()))
        .count()
}

fn has_said(machine: &Machine, run: &str, text: &str) {
    wait_for("the run's first word", LONG, || {
        let log = machine.run(&["runs", "logs", run]);
        String::from_utf8_lossy(&log.stdout).contains(text).then_some(())
    });
}

#[test]
fn a_cancel_ends_one_run_with_its_children_and_leaves_the_session() {
    let machine = Machine::new();
    let folder = programs(
        &machine,
        "sleepy",
        &[("sleeps.py", SLEEPS), ("says.py", "print('here')\n")],
    );
    let place = folder.display().to_string();
    for run in ["first", "second"] {
        machine.succeed(&["run", &place, "--name", run, "--no-wait", "--", "python", "sleeps.py"]);
        has_said(&machine, run, "begun");
    }
    let before = sleepers(3000);
    assert!(before >= 2, "{before}");
    machine.succeed(&["runs", "cancel", "first"]);
    wait_for("the end of the run's child", LONG, || {
        (sleepers(3000) == before - 1).then_some(())
    });
    let row: RunRow = machine.api().get("/v1/runs/first").unwrap();
    assert_eq!(row.status, RunStatus::Canceled);
    assert_eq!(row.failure.unwrap().error, contract::Code::RunCanceled);
    let other: RunRow = machine.api().get("/v1/runs/second").unwrap();
    assert_eq!(other.status, RunStatus::Running);
    // What has ended cannot be canceled, and that is said.
    let again = machine.run(&["runs", "cancel", "first"]);
    assert!(
        said(&again).contains("has ended already (canceled)") && said(&again).contains("[Run.HasEnded]"),
        "{again:?}"
    );
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(machine.succeed(&["run", &place, "--", "python", "says.py"]), "here\n");
    machine.succeed(&["runs", "cancel", "second"]);
    wait_for("the end of all", LONG, || (sleepers(3000) == before - 2).then_some(()));
    machine.succeed(&["stop", &place]);
}

#[test]
fn a_canceled_runs_processes_end_within_a_second() {
    let machine = Machine::new();
    let folder = programs(
        &machine,
        "sleepy",
        &[("sleeps.py", &SLEEPS.replace("'3000'", "'3001'"))],
    );
    let place = folder.display().to_string();
    let mut times = Vec::new();
    for run in ["first", "second", "third"] {
        machine.succeed(&["run", &place, "--name", run, "--no-wait", "--", "python", "sleeps.py"]);
        has_said(&machine, run, "begun");
        assert_eq!(sleepers(3001), 1);
        let api = machine.api();
        let cancel =
            json!({ "id": format!("cancel-{run}"), "flow": api.flow(&folder), "command": "cancel", "run": run });
        api.send(&cancel).unwrap();
        let accepted = Instant::now();
        wait_for("the end of the run's child", LONG, || {
            (sleepers(3001) == 0).then_some(())
        });
        times.push(accepted.elapsed());
    }
    times.sort();
    println!("from the accepted message to the end of the run's child: {times:?}");
    assert!(times[1] < Duration::from_secs(1), "{times:?}");
    machine.succeed(&["stop", &place]);
}

#[test]
fn a_run_that_waits_for_its_session_is_canceled_at_once() {
    let machine = Machine::new();
    // An index that never answers: the session is not Ready for as long as this test looks.
    let index = TcpListener::bind("127.0.0.1:0").unwrap();
    let requirements = format!(
        "-i http://{}/simple\nno-such-package-here\n",
        index.local_addr().unwrap()
    );
    let folder = programs(
        &machine,
        "waits",
        &[("a.py", "print(1)\n"), ("requirements.txt", &requirements)],
    );
    let place = folder.display().to_string();
    machine.succeed(&["run", &place, "--name", "waiting", "--no-wait", "--", "python", "a.py"]);
    wait_for("the run's row", LONG, || {
        machine.api().get::<RunRow>("/v1/runs/waiting").ok()
    });
    machine.succeed(&["runs", "cancel", "waiting"]);
    let row: RunRow = machine.api().get("/v1/runs/waiting").unwrap();
    assert_eq!((row.status, row.started), (RunStatus::Canceled, None));
    assert!(machine.api().phase(&folder).unwrap().is_live());
    machine.succeed(&["stop", &place]);
}

#[test]
fn two_commands_of_one_name_at_once_are_one_run_and_an_error() {
    let machine = Machine::new();
    let names = ["a", "b", "c", "d"];
    let folders: Vec<String> = names
        .iter()
        .map(|name| {
            let folder = programs(&machine, name, &[("a.py", &format!("print('{name}')\n"))]);
            machine.succeed(&["start", folder.to_str().unwrap()]);
            folder.display().to_string()
        })
        .collect();
    let ended: Vec<Output> = thread::scope(|scope| {
        let run = |folder: &String| machine.run(&["run", folder, "--name", "mine", "--", "python", "a.py"]);
        let started: Vec<_> = folders.iter().map(|folder| scope.spawn(move || run(folder))).collect();
        started.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let won: Vec<usize> = (0..4).filter(|at| ended[*at].status.success()).collect();
    assert_eq!(won.len(), 1, "{ended:?}");
    for (at, output) in ended.iter().enumerate() {
        if won[0] == at {
            assert_eq!(output.stdout, format!("{}\n", names[at]).into_bytes());
        } else {
            assert!(said(output).contains("[Run.NameTaken]"), "{output:?}");
            assert!(output.stdout.is_empty(), "{output:?}");
        }
    }
    // The same wish is the same run, and the output says so.
    let again = machine.run(&["run", &folders[won[0]], "--name", "mine", "--", "python", "a.py"]);
    assert!(
        again.status.success() && said(&again).contains("Nothing runs again"),
        "{again:?}"
    );
    folders.iter().for_each(|folder| drop(machine.run(&["stop", folder])));
}

#[test]
fn a_run_is_listed_found_renamed_archived_downloaded_and_deleted() {
    let machine = Machine::new();
    let folder = programs(
        &machine,
        "things",
        &[("a.py", "open('made.txt', 'w').write('x')\nprint('hello')\n")],
    );
    let place = folder.display().to_string();
    for run in ["one", "two", "three"] {
        machine.succeed(&["run", &place, "--name", run, "--", "python", "a.py"]);
    }
    machine.run(&[
        "run",
        &place,
        "--name",
        "fails",
        "--",
        "python",
        "-c",
        "raise SystemExit(3)",
    ]);
    // The same over HTTP, as a service elsewhere is asked: with its address and a token.
    let api = machine.api();
    let elsewhere = |arguments: &[&str]| {
        let mut command = machine.command(arguments);
        command
            .env("PFSESSION_ENDPOINT", &api.endpoint)
            .env("PFSESSION_TOKEN", &api.token);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let ids = |text: &str| -> Vec<String> {
        let page: Runs = serde_json::from_str(text).unwrap();
        page.runs.into_iter().map(|run| run.id).collect()
    };
    assert_eq!(
        ids(&elsewhere(&["runs", "list", "--json"])),
        ["fails", "three", "two", "one"]
    );
    let first = machine.succeed(&["runs", "list", "--limit", "2", "--json"]);
    let next = serde_json::from_str::<Runs>(&first).unwrap().next.unwrap();
    assert_eq!(ids(&first), ["fails", "three"]);
    assert_eq!(
        ids(&machine.succeed(&["runs", "list", "--after", &next, "--json"])),
        ["two", "one"]
    );
    assert_eq!(
        ids(&machine.succeed(&["runs", "list", "--status", "failed", "--json"])),
        ["fails"]
    );
    assert_eq!(
        ids(&machine.succeed(&["runs", "list", "--flow", &place, "--name", "tw", "--json"])),
        ["two"]
    );

    assert!(machine.succeed(&["runs", "show", "one"]).contains("completed"));
    let missing = machine.run(&["runs", "show", "thre"]);
    assert!(
        said(&missing).contains("is three meant?") && missing.status.code() == Some(4),
        "{missing:?}"
    );
    elsewhere(&["runs", "rename", "one", "my first"]);
    assert!(machine.succeed(&["runs", "show", "one"]).contains("my first"));
    machine.succeed(&["runs", "archive", "one"]);
    assert_eq!(
        ids(&machine.succeed(&["runs", "list", "--json"])),
        ["fails", "three", "two"]
    );
    assert_eq!(
        ids(&machine.succeed(&["runs", "list", "--archived", "--json"])),
        ["one"]
    );
    machine.succeed(&["runs", "restore", "one"]);

    assert_eq!(elsewhere(&["runs", "logs", "one"]), "hello\n");
    let copy = machine.state().join("copy");
    elsewhere(&["runs", "download", "one", "--to", copy.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(copy.join("logs.txt")).unwrap(), "hello\n");
    assert_eq!(fs::read_to_string(copy.join("files/made.txt")).unwrap(), "x");

    machine.succeed(&["runs", "delete", "one"]);
    assert!(!machine.state().join("runs/one").exists());
    assert_eq!(machine.run(&["runs", "show", "one"]).status.code(), Some(4));
    assert_eq!(
        ids(&machine.succeed(&["runs", "list", "--json"])),
        ["fails", "three", "two"]
    );
    let again = machine.run(&["run", &place, "--name", "one", "--", "python", "a.py"]);
    assert!(said(&again).contains("was deleted a moment ago"), "{again:?}");
    machine.succeed(&["stop", &place]);
}

#[test]
fn a_run_is_renamed_archived_and_deleted_by_messages() {
    let machine = Machine::new();
    let folder = programs(&machine, "things", &[("a.py", "print('hello')\n")]);
    let place = folder.display().to_string();
    machine.succeed(&["run", &place, "--name", "mine", "--", "python", "a.py"]);
    let api = machine.api();
    let run: RunRow = api.get("/v1/runs/mine").unwrap();
    let send = |id: &str, what: Value| {
        let mut command = json!({ "id": id, "flow": run.of, "run": "mine" });
        command
            .as_object_mut()
            .unwrap()
            .extend(what.as_object().unwrap().clone());
        api.send(&command).unwrap();
        api.operation(id, LONG).failure.map(|failure| failure.error)
    };
    let change = json!({ "command": "change-run", "display_name": "my first", "archived": true });
    assert_eq!(send("change", change), None);
    let changed: RunRow = api.get("/v1/runs/mine").unwrap();
    assert_eq!((changed.display_name(), changed.archived), (Some("my first"), true));
    assert!(machine.state().join("runs/mine").exists());
    assert_eq!(send("delete", json!({ "command": "delete-run" })), None);
    assert!(!machine.state().join("runs/mine").exists());
    assert_eq!(machine.run(&["runs", "show", "mine"]).status.code(), Some(4));
    let late = send("late", json!({ "command": "change-run", "archived": false }));
    assert_eq!(late, Some(contract::Code::RunNone));
    machine.succeed(&["stop", &place]);
}

#[test]
fn a_run_of_somebody_else_is_neither_seen_nor_changed() {
    let machine = Machine::new();
    let folder = programs(&machine, "mine", &[("a.py", "print('private')\n")]);
    let place = folder.display().to_string();
    machine.succeed(&["run", &place, "--name", "mine", "--", "python", "a.py"]);
    let api = machine.api();
    let issuer = machine.state().join("issuer.key");
    let token = machine.run(&[
        "token",
        "--issuer",
        issuer.to_str().unwrap(),
        "--user",
        "eve",
        "--workspace",
        "local",
    ]);
    let token = String::from_utf8(token.stdout).unwrap();
    let eve = whole_system::Api::new(&api.endpoint, token.trim(), "eve");
    let denied = |answer: Result<Value, (u16, String)>| answer.unwrap_err().0;
    for path in [
        "/v1/runs/mine",
        "/v1/runs/mine/files",
        "/v1/runs/mine/files?path=logs.txt",
    ] {
        assert_eq!(denied(eve.get(path)), 404, "{path}");
    }
    let change = RunChange {
        display_name: Some("hers".into()),
        ..RunChange::default()
    };
    let answer = eve.put("/v1/runs/mine", &serde_json::to_value(&change).unwrap());
    assert_eq!(denied(answer), 404);
    let theirs: Runs = eve.get("/v1/runs").unwrap();
    assert!(theirs.runs.is_empty());
    let all: RunFiles = api.get("/v1/runs/mine/files").unwrap();
    assert!(all.files.iter().any(|file| file.path == "logs.txt"));
    for path in ["../../host.json", "/etc/passwd", "output/../../../host.json"] {
        let wrong = api.get::<Value>(&format!(
            "/v1/runs/mine/files?path={}",
            contract::route::encode_part(path)
        ));
        assert_eq!(wrong.unwrap_err().0, 404, "{path}");
    }
    machine.succeed(&["stop", &place]);
}

#[test]
fn a_log_of_any_length_is_read_whole() {
    let machine = Machine::new();
    let programs_of = [
        ("many.py", "for number in range(15000): print('line', number)\n"),
        (
            "endless.py",
            "import sys\nfor _ in range(64): sys.stdout.write('x' * 65536)\n",
        ),
    ];
    let folder = programs(&machine, "talks", &programs_of);
    let place = folder.display().to_string();
    machine.run(&["run", &place, "--name", "many", "--", "python", "many.py"]);
    let log = machine.succeed(&["logs", "many"]);
    assert_eq!(log.lines().count(), 15_000);
    assert!(log.starts_with("line 0\n") && log.ends_with("line 14999\n"));
    // Of what is reported as it comes, more than one page is shown, and where the whole is.
    let reported = machine.succeed(&["logs", "many", "--json"]);
    assert_eq!(reported.lines().count(), 5_001);
    assert!(
        reported
            .lines()
            .last()
            .unwrap()
            .contains("there is more; all of it is in")
    );
    machine.run(&["run", &place, "--name", "endless", "--", "python", "endless.py"]);
    assert_eq!(machine.succeed(&["logs", "endless"]).trim_end().len(), 4 << 20);
    machine.succeed(&["stop", &place]);
}

/// A flow whose one node fails for the text `bad` unless it is told to be kind, and whose
/// aggregation counts.
fn counting_flow(folder: &Path) {
    let source = "import os\n@tool\ndef one(text: str) -> str:\n    print('ran', text)\n    if text == 'bad' and not os.environ.get('KIND'):\n        raise ValueError('bad text')\n    return text.upper()\n";
    write_flow(folder, source, None);
    let dag = fs::read_to_string(folder.join("flow.dag.yaml")).unwrap();
    let total = "- name: total\n  type: python\n  aggregation: true\n  source:\n    type: code\n    path: total.py\n  inputs:\n    texts: ${one.output}\n";
    fs::write(folder.join("flow.dag.yaml"), dag + total).unwrap();
    let source = "from typing import List\nfrom promptflow.core import log_metric, tool\n@tool\ndef total(texts: List[str]):\n    log_metric('count', len(texts))\n    return ' '.join(texts)\n";
    fs::write(folder.join("total.py"), source).unwrap();
    fs::write(
        folder.join("data.jsonl"),
        "{\"text\":\"a\"}\n{\"text\":\"bad\"}\n{\"text\":\"<b>c</b>\"}\n",
    )
    .unwrap();
}

#[test]
fn lines_and_nodes_are_recorded_as_promptflow_does_and_a_run_is_resumed() {
    let machine = Machine::new();
    let folder = machine.state().join("counting");
    counting_flow(&folder);
    let (place, data) = (
        folder.display().to_string(),
        folder.join("data.jsonl").display().to_string(),
    );
    // The flow's default would go before the column.
    let mapping = ["--column-mapping", "text=${data.text}"];
    let first = machine.run(&[&["run", &place, "--data", &data, "--name", "first"], &mapping[..]].concat());
    assert_eq!(first.status.code(), Some(1), "{first:?}");

    let details = json_lines(&machine.succeed(&["runs", "details", "first", "--json"]));
    let shown: Vec<_> = details
        .iter()
        .map(|line| {
            (
                line["status"].as_str().unwrap(),
                line["inputs"]["text"].as_str().unwrap(),
                line["output"]["said"].clone(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("Completed", "a", "A".into()),
            ("Failed", "bad", Value::Null),
            ("Completed", "<b>c</b>", "<B>C</B>".into())
        ]
    );
    assert_eq!(details[1]["error"]["error"], "Run.CodeRaised");
    let table = machine.succeed(&["runs", "details", "first"]);
    assert!(
        table.contains("inputs.text") && table.contains("outputs.said") && table.contains("bad text"),
        "{table}"
    );

    // The form is that of promptflow's own records.
    let nodes = json_lines(&machine.succeed(&["runs", "show", "first", "--nodes", "--json"]));
    let of = |node: &str, line: Value| {
        let found = nodes
            .iter()
            .find(|record| record["NodeName"] == node && record["line_number"] == line);
        found.unwrap_or_else(|| panic!("{node} {line}: {nodes:?}")).clone()
    };
    let one = of("one", 0.into());
    assert_eq!(
        (&one["status"], &one["run_info"]["output"]),
        (&"Completed".into(), &"A".into())
    );
    assert_eq!(one["run_info"]["inputs"]["text"], "a");
    assert!(one["run_info"]["logs"]["stdout"].as_str().unwrap().contains("ran"));
    assert!(one["run_info"]["system_metrics"]["duration"].is_number() && one["start_time"].is_string());
    assert_eq!(of("one", 1.into())["status"], "Failed");
    assert_eq!(of("total", Value::Null)["run_info"]["output"], "A <B>C</B>");
    assert_eq!(machine.succeed(&["runs", "metrics", "first"]).trim(), r#"{"count": 2}"#);

    // What is recorded without asking promptflow is what promptflow would say.
    let source = "import collections, dataclasses, datetime, enum\nfrom pfsession_runner import records\nfrom promptflow.connections import CustomConnection\nfrom promptflow.contracts.run_info import RunInfo, Status\nfrom promptflow.core import tool\nfrom promptflow.tracing._utils import serialize\nfrom promptflow.tracing.contracts.iterator_proxy import IteratorProxy\nclass Text(str): pass\nclass Level(enum.IntEnum):\n    LOW = 1\n@dataclasses.dataclass\nclass Point:\n    x: object\nNOW = datetime.datetime(2026, 1, 2)\nVALUES = [None, True, 1, 1.5, 'ü', b'b', Text('t'), Level.LOW, Status.Completed, NOW, (1, NOW), {1}, [NOW, [Level.LOW]], {'a': NOW, 2: [Point(NOW)]}, Point({'a': Level.LOW}), collections.OrderedDict(a=NOW), CustomConnection({'key': 'secret'}, {'a': 'b'}), IteratorProxy(iter([1])), object]\nINFO = RunInfo('n', 'f', 'r', Status.Failed, {'values': VALUES}, VALUES, None, {'a': NOW}, None, NOW, None)\n@tool\ndef one(text: str) -> str:\n    return repr([value for value in [*VALUES, VALUES, INFO] if repr(records.serialize(value)) != repr(serialize(value))])\n";
    let folder = machine.state().join("serialized");
    write_flow(&folder, source, None);
    let same = machine.succeed(&["run", &folder.display().to_string(), "--inputs", "text=a"]);
    assert_eq!(same.trim(), r#"{"said":"[]"}"#);
    machine.succeed(&["stop", &folder.display().to_string()]);

    // Only what had failed runs again; the aggregation is over all.
    let resumed = machine.run(&["run", "--resume-from", "first", "--name", "second", "--env", "KIND=1"]);
    assert!(resumed.status.success(), "{resumed:?}");
    let outputs = json_lines(&machine.succeed(&["runs", "outputs", "second"]));
    assert_eq!(
        outputs
            .iter()
            .map(|line| line["said"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["A", "BAD", "<B>C</B>"]
    );
    let log = machine.succeed(&["runs", "logs", "second"]);
    assert_eq!(log.matches("ran ").count(), 1, "{log}");
    assert_eq!(
        machine.succeed(&["runs", "metrics", "second"]).trim(),
        r#"{"count": 3}"#
    );
    assert_eq!(
        json_lines(&machine.succeed(&["runs", "details", "second", "--json"])).len(),
        3
    );

    let diff = machine.run(&["runs", "diff", "first", "second", "--json"]);
    assert_eq!(diff.status.code(), Some(1), "{diff:?}");
    let differences: Value = serde_json::from_slice(&diff.stdout).unwrap();
    let what: Vec<_> = differences
        .as_array()
        .unwrap()
        .iter()
        .map(|each| (each["line_number"].clone(), each["what"].as_str().unwrap()))
        .collect();
    assert_eq!(what, [(1.into(), "error"), (Value::Null, "metric count")]);
    machine.succeed(&["runs", "diff", "second", "second"]);

    let page = machine.state().join("page.html");
    machine.succeed(&["runs", "visualize", "first", "second", "--out", page.to_str().unwrap()]);
    let page = fs::read_to_string(page).unwrap();
    assert!(
        page.contains("&lt;b&gt;c&lt;/b&gt;") && !page.contains("<b>c</b>") && !page.contains("<script"),
        "{page}"
    );
    assert!(page.contains("ran") && page.contains("bad text") && !page.contains("src="));
    machine.succeed(&["stop", &place]);
}

#[test]
fn an_evaluation_of_a_run_measures_what_promptflow_measured() {
    let machine = Machine::new();
    let recorded = root().join("tests/flows/recorded/evaluate");
    let base = recorded
        .parent()
        .unwrap()
        .join(fs::read_to_string(recorded.join("base")).unwrap().trim());
    machine.run(&["run", base.join("run.yml").to_str().unwrap(), "--name", "base"]);
    let evaluation = [
        "run",
        recorded.to_str().unwrap(),
        "--data",
        &recorded.join("data.jsonl").display().to_string(),
        "--run",
        "base",
        "--column-mapping",
        "text=${run.outputs.said}",
        "truth=${data.truth}",
        "--name",
        "evaluation",
    ];
    machine.succeed(&evaluation);
    let expected: Value = serde_json::from_str(&fs::read_to_string(recorded.join("recorded.json")).unwrap()).unwrap();
    assert_eq!(
        machine.succeed(&["runs", "metrics", "evaluation"]).trim(),
        expected["metrics"].as_str().unwrap()
    );
    for folder in [&base, &recorded] {
        machine.run(&["stop", folder.to_str().unwrap()]);
    }
}

#[test]
fn outputs_of_any_size_reach_their_user() {
    let machine = Machine::new();
    let folder = machine.state().join("large");
    write_flow(
        &folder,
        "@tool\ndef one(text: str) -> str:\n    return 'x' * 20_000_000\n",
        None,
    );
    fs::write(
        folder.join("data.jsonl"),
        "{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n",
    )
    .unwrap();
    let (place, data) = (
        folder.display().to_string(),
        folder.join("data.jsonl").display().to_string(),
    );
    machine.succeed(&["run", &place, "--data", &data, "--name", "large", "--no-wait"]);
    wait_for("the run's end", LONG, || {
        let row: RunRow = machine.api().get("/v1/runs/large").ok()?;
        row.status.is_final().then_some(())
    });
    let outputs = machine.succeed(&["runs", "outputs", "large"]);
    assert_eq!(outputs.lines().map(str::len).collect::<Vec<_>>(), [20_000_012; 3]);
    // A record that is cut says so, and where the whole is.
    let nodes = machine.succeed(&["runs", "show", "large", "--nodes", "--json"]);
    assert!(
        nodes.len() < 1 << 20 && nodes.contains("cut here, 19998000 characters more"),
        "{}",
        nodes.len()
    );
    machine.succeed(&["stop", &place]);
}

#[test]
fn a_run_has_the_workers_and_the_line_timeout_that_were_typed() {
    let machine = Machine::new();
    let folder = programs(
        &machine,
        "slow",
        &[
            ("flow.flex.yaml", "entry: code:main\n"),
            (
                "code.py",
                "import os, time\ndef main(n):\n    time.sleep(n)\n    return os.getpid()\n",
            ),
            ("data.jsonl", "{\"n\": 0}\n{\"n\": 0.1}\n{\"n\": 60}\n{\"n\": 0}\n"),
        ],
    );
    let (place, data) = (
        folder.display().to_string(),
        folder.join("data.jsonl").display().to_string(),
    );
    let typed = ["--workers", "1", "--line-timeout", "1"];
    let ended = machine.run(&[&["run", place.as_str(), "--data", &data, "--name", "slow"], &typed[..]].concat());
    let outputs = fs::read_to_string(machine.state().join("runs/slow/output/outputs.jsonl")).unwrap();
    let outputs = json_lines(&outputs);
    assert!(
        outputs[0].is_object() && outputs[0] == outputs[1],
        "one worker: {outputs:?}"
    );
    assert!(outputs[2].is_null() && outputs[3].is_object(), "{outputs:?}");
    let expected = "the line took longer than 1 s, which is its limit";
    assert!(said(&ended).contains(expected), "{ended:?}");
    machine.succeed(&["stop", &place]);
}
