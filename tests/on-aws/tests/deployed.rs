//! The story of a session on an AWS that is not ours. `sam deploy` puts the whole template into
//! `ministack`, with the functions' binaries in zip files. Commands come by boto3 and by HTTP;
//! queues, functions and the state machine are those there. `pfsession driver` makes sessions on
//! this machine, with real packages and real runs.
//!
//! This shows that the template is taken, that each part finds the others by what the template
//! tells it, and that the promises hold where queues, functions and the state machine are somebody
//! else's. What it does not: roles (none is checked), who sent a message (all senders have the
//! account's number), and any time that AWS itself takes.

use contract::{
    Code, Phase, Role,
    command::RunWish,
    row::{OperationStatus, RunStatus},
    snapshot::Offer,
};
use on_aws::{
    Test,
    deployment::{Deployment, nothing_is_left},
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::ExitCode, time::Duration};
use whole_system::{accept, flow, wait_for, write_flow};

const LONG: Duration = Duration::from_secs(180);
const PLAIN: &str = "@tool\ndef one(text: str) -> str:\n    return text\n";

/// These have a session each, and go on at once.
const AT_ONCE: &[Test<Deployment>] = &[
    (
        "a_run_sent_by_boto3_has_its_session_made_here_and_an_idle_session_is_deleted_on_schedule",
        a_run_sent_by_boto3_has_its_session_made_here_and_an_idle_session_is_deleted_on_schedule,
    ),
    (
        "what_is_no_command_goes_to_the_dead_letter_queue_and_its_neighbours_go_on",
        what_is_no_command_goes_to_the_dead_letter_queue_and_its_neighbours_go_on,
    ),
    (
        "a_step_that_fails_is_cleaned_up_and_says_why",
        a_step_that_fails_is_cleaned_up_and_says_why,
    ),
    (
        "a_stop_in_the_middle_of_a_start_or_of_an_install_ends_it",
        a_stop_in_the_middle_of_a_start_or_of_an_install_ends_it,
    ),
    (
        "the_command_line_commands_it_over_http",
        the_command_line_commands_it_over_http,
    ),
    (
        "a_flow_that_no_function_sees_is_sent_by_digest_started_installed_edited_and_run_from_what_was_sent",
        a_flow_that_no_function_sees_is_sent_by_digest_started_installed_edited_and_run_from_what_was_sent,
    ),
    (
        "what_a_run_made_is_in_the_store_of_any_size_and_goes_with_the_run",
        what_a_run_made_is_in_the_store_of_any_size_and_goes_with_the_run,
    ),
    (
        "a_run_reads_and_resumes_an_earlier_run_whose_machine_is_gone",
        a_run_reads_and_resumes_an_earlier_run_whose_machine_is_gone,
    ),
    (
        "connections_are_in_secrets_manager_and_reach_the_runs_of_their_user_alone",
        connections_are_in_secrets_manager_and_reach_the_runs_of_their_user_alone,
    ),
    (
        "what_is_sent_is_just_what_was_offered_and_for_no_flow_of_anybody_else",
        what_is_sent_is_just_what_was_offered_and_for_no_flow_of_anybody_else,
    ),
    (
        "a_snapshot_that_cannot_be_had_fails_the_start_by_its_name",
        a_snapshot_that_cannot_be_had_fails_the_start_by_its_name,
    ),
];

/// These change the deployment, end the driver, and remove all.
const ONE_BY_ONE: &[Test<Deployment>] = &[
    (
        "an_upgrade_ends_no_session_no_run_and_no_operation",
        an_upgrade_ends_no_session_no_run_and_no_operation,
    ),
    (
        "a_driver_that_was_killed_finds_its_sessions_again_and_one_that_leaves_can_end_them",
        a_driver_that_was_killed_finds_its_sessions_again_and_one_that_leaves_can_end_them,
    ),
    (
        "what_was_deployed_is_removed_and_nothing_is_left",
        what_was_deployed_is_removed_and_nothing_is_left,
    ),
];

fn main() -> ExitCode {
    let all = [AT_ONCE, ONE_BY_ONE].concat();
    if on_aws::only_listed(&all) {
        return ExitCode::SUCCESS;
    }
    let tools = tools::programs();
    let deployment = Deployment::new(tools);
    let ended = on_aws::run(&deployment, AT_ONCE, AT_ONCE.len());
    let last = if ended == ExitCode::SUCCESS {
        on_aws::run(&deployment, ONE_BY_ONE, 1)
    } else {
        // They expect the account as these leave it, and would fail for another reason.
        println!(
            "not run, as a test before them failed: the {} that go one by one",
            ONE_BY_ONE.len()
        );
        ended
    };
    if ended == ExitCode::SUCCESS && last == ExitCode::SUCCESS {
        return ExitCode::SUCCESS;
    }
    let driver = fs::read_to_string(deployment.machine.state().join("driver.log")).unwrap_or_default();
    println!("the driver said:\n{driver}\nthe emulator said last:");
    let log = deployment.emulator.log();
    log.lines()
        .filter(|line| line.contains("ERROR") || line.contains("WARN"))
        .rev()
        .take(40)
        .for_each(|line| println!("{line}"));
    ExitCode::FAILURE
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn a_run_sent_by_boto3_has_its_session_made_here_and_an_idle_session_is_deleted_on_schedule(deployment: &Deployment) {
    let folder = flow("dag-with-package");
    let api = deployment.api();
    let data = deployment.sent_bytes(&folder, &fs::read(folder.join("data.jsonl")).unwrap());
    let settings = json!({ "idle_seconds": 60, "folder": deployment.sent(&folder) });
    let run = json!({ "command": "run", "settings": settings, "run": { "data": data } });
    // The same wish twice is one.
    deployment.send(&folder, &[("by-boto3", run.clone()), ("by-boto3", run)]);
    let row = api.run_row("by-boto3", LONG);
    assert_eq!(row.status, RunStatus::Completed, "{row:?}");
    let expected = lines(&fs::read_to_string(folder.join("expected.jsonl")).unwrap());
    assert_eq!(row.result.expect("a run has a result").outputs, expected);
    let session = api.session(&folder).expect("the session stays");
    assert_eq!((session.phase, session.generation), (Phase::Ready, 1));
    // Rate of one minute, and a look every ten seconds: that is the emulator's schedule.
    wait_for("the idle session's end", LONG, || {
        (api.phase(&folder) == Some(Phase::Stopped)).then_some(())
    });
    let ended = api.session(&folder).expect("its row stays");
    assert!(ended.now >= session.last_activity + 60_000, "{ended:?} {session:?}");
    nothing_is_left(deployment, &folder);
}

fn what_is_no_command_goes_to_the_dead_letter_queue_and_its_neighbours_go_on(deployment: &Deployment) {
    let folder = deployment.flow("beside-poison");
    write_flow(&folder, PLAIN, None);
    let api = deployment.api();
    let start = json!({ "command": "start", "settings": { "folder": deployment.sent(&folder) } });
    deployment.send(
        &folder,
        &[
            ("poison-1", json!("this is no command")),
            ("start-beside", start),
            ("poison-2", json!("{\"id\":\"a/b\"}")),
            ("stop-beside", json!({ "command": "stop" })),
        ],
    );
    assert_eq!(api.operation("stop-beside", LONG).status, OperationStatus::Succeeded);
    let start = api.operation("start-beside", LONG).status;
    assert!(
        matches!(start, OperationStatus::Succeeded | OperationStatus::Canceled),
        "{start:?}"
    );
    wait_for("the dead letters", LONG, || {
        let dead = deployment.bodies("commands-dead.fifo");
        (dead.contains("this is no command") && dead.contains("{\"id\":\"a/b\"}")).then_some(())
    });
    nothing_is_left(deployment, &folder);
}

fn a_step_that_fails_is_cleaned_up_and_says_why(deployment: &Deployment) {
    let folder = deployment.flow("cannot-be-installed");
    write_flow(&folder, PLAIN, Some("surely-no-such-package-as-this-one\n"));
    let api = deployment.api();
    deployment.start("start-in-vain", &folder);
    let row = api.operation("start-in-vain", LONG);
    let failure = row.failure.expect("it says why");
    assert_eq!(row.status, OperationStatus::Failed);
    assert_eq!(failure.error, Code::InstallNoSuchPackage, "{failure:?}");
    wait_for("its end", LONG, || {
        (api.phase(&folder) == Some(Phase::Failed)).then_some(())
    });
    nothing_is_left(deployment, &folder);
    let ended = wait_for("the execution's end", LONG, || {
        Some(deployment.execution("start-in-vain")).filter(|(status, _)| status != "RUNNING")
    });
    assert_eq!(ended, ("FAILED".to_owned(), "Session.OperationFailed".to_owned()));
}

fn a_stop_in_the_middle_of_a_start_or_of_an_install_ends_it(deployment: &Deployment) {
    let folder = deployment.flow("slow");
    // An index that takes the connection and never says a word: the download lasts as long as it is
    // let.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let index = format!("http://{}/simple", silent.local_addr().unwrap());
    write_flow(&folder, PLAIN, Some(&format!("--index-url {index}\nsurely-slow\n")));
    let api = deployment.api();
    for (name, reached) in [("early", None), ("late", Some(Phase::Installing))] {
        let (start, stop) = (format!("start-{name}"), format!("stop-{name}"));
        deployment.start(&start, &folder);
        let mut connected = None;
        if let Some(reached) = reached {
            wait_for("the install", LONG, || {
                (api.phase(&folder) == Some(reached)).then_some(())
            });
            connected = Some(accept(&silent, "the install's question to the index"));
        }
        api.stop(&stop, &folder).unwrap();
        assert_eq!(api.operation(&stop, LONG).status, OperationStatus::Succeeded, "{name}");
        assert_eq!(api.operation(&start, LONG).status, OperationStatus::Canceled, "{name}");
        assert_eq!(api.phase(&folder), Some(Phase::Stopped), "{name}");
        drop(connected);
        nothing_is_left(deployment, &folder);
        // The execution that was overtaken has ended by itself.
        let ended = wait_for("the execution's end", LONG, || {
            Some(deployment.execution(&start).0).filter(|status| status != "RUNNING")
        });
        assert_eq!(ended, "SUCCEEDED", "{name}");
    }
}

fn the_command_line_commands_it_over_http(deployment: &Deployment) {
    let folder = deployment.flow("over-http");
    write_flow(&folder, PLAIN, None);
    let pfsession = |arguments: &[&str]| done(deployment, arguments);
    let path = folder.to_str().unwrap();
    let said = pfsession(&["run", path, "--inputs", "text=far away"]);
    assert_eq!(lines(&said), [json!({ "said": "far away" })]);
    let listed: Value = serde_json::from_str(&pfsession(&["list", "--json"])).unwrap();
    let listed = listed["sessions"].as_array().unwrap();
    assert!(
        listed
            .iter()
            .any(|session| session["flow"]["lineage"] == path && session["phase"] == "ready"),
        "{listed:#?}"
    );
    assert!(pfsession(&["events", path]).contains("ready"));
    pfsession(&["stop", path]);
    assert_eq!(deployment.api().phase(&folder), Some(Phase::Stopped));
    nothing_is_left(deployment, &folder);
    let mut stranger = deployment.api();
    stranger.token = stranger.token.replace('.', ".e");
    assert_eq!(stranger.get::<Value>("/v1/sessions").unwrap_err().0, 401);
}

fn done(deployment: &Deployment, arguments: &[&str]) -> String {
    let (succeeded, printed, said) = deployment.pfsession(arguments);
    assert!(succeeded, "{arguments:?}: {said}");
    printed
}

fn a_flow_that_no_function_sees_is_sent_by_digest_started_installed_edited_and_run_from_what_was_sent(
    deployment: &Deployment,
) {
    // The flow has an include, data, and a package that it gets later.
    let folder = deployment.flow("by-digest/flow");
    let shared = deployment.flow("by-digest/shared.py");
    let path = folder.to_str().unwrap();
    let source = "import shared\n\n@tool\ndef one(text: str) -> str:\n    return shared.say(text)\n";
    write_flow(&folder, source, None);
    fs::write(&shared, "def say(text):\n    return text.upper()\n").unwrap();
    let dag = fs::read_to_string(folder.join("flow.dag.yaml")).unwrap();
    fs::write(
        folder.join("flow.dag.yaml"),
        format!("{dag}additional_includes:\n- ../shared.py\n"),
    )
    .unwrap();
    let data = deployment.flow("by-digest/data.jsonl");
    fs::write(&data, "{\"text\":\"one\"}\n{\"text\":\"two\"}\n").unwrap();
    // Without a mapping promptflow takes the input's default before the column of its name.
    let mapping = "text=${data.text}";
    let run = [
        "run",
        path,
        "--data",
        data.to_str().unwrap(),
        "--column-mapping",
        mapping,
    ];
    let api = deployment.api();
    let address = || api.session(&folder).expect("a session").settings.folder.value;

    done(deployment, &["start", path]);
    let first = address();
    assert!(first.starts_with("s3://"), "{first}");
    assert_eq!(api.session(&folder).unwrap().flow, api.flow(&folder));
    assert_eq!(
        lines(&done(deployment, &run)),
        [json!({ "said": "ONE" }), json!({ "said": "TWO" })]
    );
    // An edit is another digest of the same flow, and counts in the next run.
    fs::write(&shared, "def say(text):\n    return text + '!'\n").unwrap();
    assert_eq!(
        lines(&done(deployment, &run)),
        [json!({ "said": "one!" }), json!({ "said": "two!" })]
    );
    assert_eq!(api.sessions().iter().filter(|s| s.flow.lineage == path).count(), 1);
    // So it does for an install.
    done(deployment, &["install", path, "six==1.17.0"]);
    let second = address();
    assert_ne!(first, second);
    let packages = done(deployment, &["packages", path, "--json"]);
    assert!(packages.contains("\"six\""), "{packages}");
    let generation = api.session(&folder).unwrap().generation;
    done(deployment, &["reset", path]);
    let session = api.session(&folder).unwrap();
    assert_eq!((session.phase, session.generation), (Phase::Ready, generation + 1));
    assert_eq!(session.settings.folder.value, second, "nothing has changed since");

    // Nobody needs the folder any more: whoever says nothing of it means what was sent last.
    done(deployment, &["stop", path]);
    fs::rename(&folder, deployment.flow("by-digest/gone")).unwrap();
    fs::remove_file(&shared).unwrap();
    let run = json!({ "command": "run", "settings": {}, "run": { "inputs": { "text": "far away" } } });
    deployment.send(&folder, &[("from-afar", run)]);
    let row = api.run_row("from-afar", LONG);
    assert_eq!(row.result.expect("a result").outputs, [json!({ "said": "far away!" })]);
    assert_eq!(row.folder, Some(second));
    api.stop("stop-by-digest", &folder).unwrap();
    assert_eq!(api.operation("stop-by-digest", LONG).status, OperationStatus::Succeeded);
    nothing_is_left(deployment, &folder);
}

fn what_a_run_made_is_in_the_store_of_any_size_and_goes_with_the_run(deployment: &Deployment) {
    let folder = deployment.flow("much");
    let path = folder.to_str().unwrap();
    let source = "@tool\ndef one(text: str) -> str:\n    open('made.txt', 'w').write('made')\n    print('a word')\n    return text * 3_000_000\n";
    write_flow(&folder, source, None);
    let run = ["run", path, "--inputs", "text=ab", "--name", "much", "--json"];
    let row: Value = serde_json::from_str(&done(deployment, &run)).unwrap();
    let address = row["result"]["stored"].as_str().expect("it is in the store");
    assert!(
        address.starts_with("s3://") && row["result"].get("outputs").is_none(),
        "{address}"
    );
    // What ran it is gone, as a container is.
    let place = Path::new(row["result"]["folder"].as_str().unwrap()).to_owned();
    let seen: Vec<(String, Vec<u8>)> = [
        "output/outputs.jsonl",
        "logs.txt",
        "files/made.txt",
        "output/lines.jsonl",
        "spans.jsonl",
    ]
    .map(|name| (name.to_owned(), fs::read(place.join(name)).unwrap()))
    .into();
    assert!(seen[0].1.len() > 6_000_000 && seen[2].1 == b"made");
    fs::remove_dir_all(&place).unwrap();

    let copy = deployment.flow("much-copied");
    done(
        deployment,
        &["runs", "download", "much", "--to", copy.to_str().unwrap()],
    );
    for (name, content) in &seen {
        assert!(fs::read(copy.join(name)).unwrap() == *content, "{name}");
    }
    assert_eq!(done(deployment, &["runs", "outputs", "much"]).as_bytes(), seen[0].1);
    assert!(done(deployment, &["logs", "much"]).contains("a word"));
    runs_are_compared_and_shown(deployment, path);
    // Somebody else has not this user's run: not its list, and no address of a part of it.
    let mut stranger = deployment.api();
    stranger.token = on_aws::deployment::token_of("bob", &[Role::DataScientist]);
    let files = "/v1/runs/much/files?path=output/outputs.jsonl&offset=0";
    assert_eq!(stranger.get::<Value>(files).unwrap_err().0, 404);
    // A part that is another one is not taken for the run's.
    let (bucket, index) = address.trim_start_matches("s3://").split_once('/').unwrap();
    deployment.emulator.python("spoil.py", &[bucket, index]);
    let spoiled = deployment.flow("much-spoiled");
    let (succeeded, _, said) = deployment.pfsession(&["runs", "download", "much", "--to", spoiled.to_str().unwrap()]);
    assert!(
        !succeeded && said.contains("[Run.Unread]") && said.contains("changed in the store"),
        "{said}"
    );

    let objects = || {
        let there = deployment.account();
        there.iter().filter(|what| what.contains("/much/")).count()
    };
    assert_eq!(objects(), 2, "an index and a part");
    done(deployment, &["runs", "delete", "much"]);
    assert_eq!(objects(), 0);
    let (succeeded, ..) = deployment.pfsession(&["runs", "download", "much"]);
    assert!(!succeeded);
    done(deployment, &["stop", path]);
    nothing_is_left(deployment, &folder);
}

/// Compares a run of the store with another, and shows its lines and spans.
fn a_run_reads_and_resumes_an_earlier_run_whose_machine_is_gone(deployment: &Deployment) {
    let (folder, eval) = (deployment.flow("base"), deployment.flow("eval"));
    let (path, eval_path) = (folder.to_str().unwrap(), eval.to_str().unwrap());
    let source = "import os\n@tool\ndef one(text: str) -> str:\n    return text + os.environ.get('MARK', '!')\n";
    write_flow(&folder, source, None);
    write_flow(&eval, PLAIN, None);
    let data = deployment.flow("base.jsonl");
    fs::write(&data, "{\"text\": \"one\"}\n{\"text\": \"two\"}\n").unwrap();
    let data = [
        "--data",
        data.to_str().unwrap(),
        "--column-mapping",
        "text=${data.text}",
    ];
    let run = [&["run", path, "--name", "base", "--json"], &data[..]].concat();
    let row: Value = serde_json::from_str(&done(deployment, &run)).unwrap();
    // What ran it is gone, as a container is.
    fs::remove_dir_all(row["result"]["folder"].as_str().unwrap()).unwrap();

    let of = |mapping: &str, name: &str| {
        let reads = [
            "run",
            eval_path,
            "--run",
            "base",
            "--name",
            name,
            "--column-mapping",
            mapping,
        ];
        lines(&done(deployment, &reads))
    };
    assert_eq!(
        of("text=${run.outputs.said}", "eval-1"),
        [json!({ "said": "one!" }), json!({ "said": "two!" })]
    );
    assert_eq!(
        of("text=${run.inputs.text}", "eval-2"),
        [json!({ "said": "one" }), json!({ "said": "two" })]
    );
    // Its completed lines are taken over: what would run now says something else.
    let resume = ["run", "--resume-from", "base", "--name", "resumed", "--env", "MARK=?"];
    assert_eq!(
        lines(&done(deployment, &resume)),
        [json!({ "said": "one!" }), json!({ "said": "two!" })]
    );

    // Who does not sign with the session's key gets none of it.
    let session = deployment.api().session(&eval).unwrap();
    let key = deployment.api().flow(&eval).key();
    let wanted = contract::stored::EarlierWanted {
        flow: key.clone(),
        generation: session.generation,
        at: session.now,
        run: "eval-1".into(),
        earlier: "base".into(),
    };
    let forged = contract::agent::sign(&ed25519_dalek::SigningKey::from_bytes(&[9; 32]), &wanted);
    let url = format!("{}/v1/sessions/{key}/earlier", deployment.url);
    let said = deployment
        .emulator
        .python("post.py", &[&url, &json!(forged).to_string()]);
    assert!(said.starts_with("403 ") && said.contains("Report.Unproved"), "{said}");

    // A message deletes it, with its files.
    let objects = || {
        let there = deployment.account();
        there.iter().filter(|what| what.contains("/base/")).count()
    };
    assert_eq!(objects(), 2, "an index and a part");
    let delete = json!({ "command": "delete-run", "run": "base" });
    deployment.send(&folder, &[("delete-base", delete.clone()), ("delete-base", delete)]);
    let row = deployment.api().operation("delete-base", LONG);
    assert_eq!((row.status, row.failure), (OperationStatus::Succeeded, None));
    assert_eq!(objects(), 0);
    let (succeeded, _, said) = deployment.pfsession(&["run", eval_path, "--run", "base", "--name", "eval-3"]);
    assert!(!succeeded && said.contains("[Run.NoSuchRun]"), "{said}");
    for place in [path, eval_path] {
        done(deployment, &["stop", place]);
    }
    nothing_is_left(deployment, &folder);
    nothing_is_left(deployment, &eval);
}

fn runs_are_compared_and_shown(deployment: &Deployment, path: &str) {
    done(deployment, &["run", path, "--inputs", "text=ac", "--name", "other"]);
    let (is_same, said, _) = deployment.pfsession(&["runs", "diff", "much", "other"]);
    assert!(!is_same && said.contains("abab") && said.contains("acac"), "{said}");
    done(deployment, &["runs", "diff", "much", "much"]);
    let table = done(deployment, &["runs", "details", "much"]);
    assert!(table.contains("completed") && table.contains("ababab"), "{table}");
    let page = deployment.flow("much.html");
    done(
        deployment,
        &["runs", "visualize", "much", "--out", page.to_str().unwrap()],
    );
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("<h2>Spans</h2>") && html.contains("line 0"),
        "{}",
        html.len()
    );
    done(deployment, &["runs", "delete", "other"]);
}

/// A provider of models that takes this key alone.
struct Provider(std::process::Child, String);

impl Provider {
    fn start(key: &str) -> Self {
        let mut child = std::process::Command::new("python3")
            .arg(whole_system::root().join("tests/provider.py"))
            .arg(key)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let mut said = std::io::BufReader::new(child.stdout.as_mut().unwrap());
        std::io::BufRead::read_line(&mut said, &mut address).unwrap();
        Self(child, address.trim_end().to_owned())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says digests of what it is given, and what a provider answers it.
const CONNECTED: &str = "import hashlib, json, os, urllib.request
@tool
def one(text: str) -> dict:
    digest = lambda name: hashlib.sha256(os.environ[name].encode()).hexdigest()
    body = json.dumps({'model': 'gpt', 'messages': [{'role': 'user', 'content': text}]}).encode()
    head = {'content-type': 'application/json', 'authorization': 'Bearer x'}
    asked = urllib.request.urlopen(urllib.request.Request(os.environ['HELD'] + '/chat/completions', body, head))
    print('the key is', os.environ['OWN'], flush=True)
    return {'own': digest('OWN'), 'shared': digest('SHARED'), 'said': json.load(asked)['choices'][0]['message']['content']}
";

fn connections_are_in_secrets_manager_and_reach_the_runs_of_their_user_alone(deployment: &Deployment) {
    let folder = deployment.flow("connected");
    let path = folder.to_str().unwrap();
    write_flow(&folder, CONNECTED, None);
    let secret = |of: &str| format!("hidden-{of}-{}", snapshots::digest(of.as_bytes()));
    let provider = Provider::start(&secret("held"));
    let file = deployment.flow("connection.yml");
    let create = |text: String, more: &[&str]| {
        fs::write(&file, text).unwrap();
        let said = done(
            deployment,
            &[&["connection", "create", "-f", file.to_str().unwrap()], more].concat(),
        );
        fs::remove_file(&file).unwrap();
        said
    };
    let custom = |name: &str, of: &str| {
        format!(
            "name: {name}\ntype: custom\nconfigs:\n  place: here\nsecrets:\n  key: {}\n",
            secret(of)
        )
    };
    create(custom("both", "workspace"), &["--for-workspace"]);
    create(custom("shared", "shared"), &["--for-workspace"]);
    create(custom("both", "own"), &[]);
    let held = format!(
        "name: held\ntype: open_ai\nbase_url: {}/v1\napi_key: {}\n",
        provider.1,
        secret("held")
    );
    create(held, &[]);
    // What is changed keeps the secret, which no answer has.
    done(deployment, &["connection", "update", "both", "--set", "place=there"]);
    let shown = done(deployment, &["connection", "show", "both"]);
    assert!(
        shown.contains("there") && shown.contains("******") && shown.contains("user"),
        "{shown}"
    );

    let run = |name: &str| {
        let variables = ["OWN=${both.key}", "SHARED=${shared.key}", "HELD=${held.base_url}"];
        let run = ["run", path, "--name", name, "--inputs", "text=hi", "--env"];
        lines(&done(deployment, &[&run[..], &variables].concat()))
    };
    let expected = |own: &str| {
        let digest = |of: &str| snapshots::digest(secret(of).as_bytes());
        [json!({ "said": { "own": digest(own), "shared": digest("shared"), "said": "echo: hi" } })]
    };
    assert_eq!(
        run("connected-1"),
        expected("own"),
        "a user's own comes first, and the broker has the key"
    );
    assert!(done(deployment, &["logs", "connected-1"]).contains("the key is ***"));
    done(deployment, &["connection", "delete", "both"]);
    assert_eq!(
        run("connected-2"),
        expected("workspace"),
        "what is changed counts in the next run"
    );

    // Nobody else gets them: not a user without the role, not who signs with another key, not who
    // signs nothing.
    let mut bob = deployment.api();
    bob.token = on_aws::deployment::token_of("bob", &[Role::DataScientist]);
    let place = "/v1/workspaces/local/connections";
    let seen: Value = bob.get(place).unwrap();
    let names: Vec<&Value> = seen["connections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["name"])
        .collect();
    assert_eq!(names, ["both", "shared"]);
    let others =
        json!({ "name": "x", "for_workspace": true, "type": "custom", "module": "m", "configs": {}, "secrets": {} });
    assert_eq!(bob.put(place, &others).unwrap_err().0, 403);
    let session = deployment.api().session(&folder).unwrap();
    let key = deployment.api().flow(&folder).key();
    let wanted = contract::connections::ConnectionsWanted {
        flow: key.clone(),
        generation: session.generation,
        at: session.now,
        names: Some(["shared".to_owned()].into()),
    };
    let forged = contract::agent::sign(&ed25519_dalek::SigningKey::from_bytes(&[9; 32]), &wanted);
    let url = format!("{}/v1/sessions/{key}/connections", deployment.url);
    for body in [json!(forged), json!({ "body": forged.body, "signature": "" })] {
        let said = deployment.emulator.python("post.py", &[&url, &body.to_string()]);
        assert!(said.starts_with("403 ") && said.contains("Report.Unproved"), "{said}");
    }

    let everything = deployment.emulator.python("everything.py", &[]);
    let kept: Vec<&str> = everything.lines().filter(|line| line.starts_with("secret ")).collect();
    let places = ["user/ann/held", "workspace/both", "workspace/shared"];
    let expected = places.map(|place| format!("secret pfsession-connections/local/{place}"));
    assert_eq!(kept, expected);
    let mut written = vec![
        ("the account".to_owned(), everything),
        ("the emulator's log".to_owned(), deployment.emulator.log()),
    ];
    let mut folders = vec![deployment.machine.state().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    let bytes = fs::read(entry.path()).unwrap_or_default();
                    written.push((
                        entry.path().display().to_string(),
                        String::from_utf8_lossy(&bytes).into_owned(),
                    ));
                }
                _ => {}
            }
        }
    }
    assert!(
        written.iter().any(|(_, text)| text.contains("connected-1")),
        "it would not be seen"
    );
    for (place, text) in &written {
        for of in ["workspace", "shared", "own", "held"] {
            assert!(!text.contains(&secret(of)), "the secret of {of} is in {place}");
        }
    }
    for (name, more) in [
        ("held", &[][..]),
        ("both", &["--for-workspace"]),
        ("shared", &["--for-workspace"]),
    ] {
        done(deployment, &[&["connection", "delete", name], more].concat());
    }
    assert!(!deployment.emulator.python("everything.py", &[]).contains("\nsecret "));
    done(deployment, &["stop", path]);
    nothing_is_left(deployment, &folder);
}

fn what_is_sent_is_just_what_was_offered_and_for_no_flow_of_anybody_else(deployment: &Deployment) {
    let (api, folder) = (deployment.api(), deployment.flow("offered"));
    let offer = |bytes: &[u8]| Offer {
        flow: api.flow(&folder),
        digest: snapshots::digest(bytes),
        bytes: bytes.len() as u64,
    };
    let place = api.offer(&offer(b"hello")).unwrap();
    let upload = place.upload.expect("nobody has sent it");
    assert!((400..500).contains(&api.upload(&upload, b"jello")), "another digest");
    assert!(
        api.offer(&offer(b"hello")).unwrap().upload.is_some(),
        "it is still to be sent"
    );
    assert_eq!(api.upload(&upload, b"hello"), 200);
    assert_eq!(api.offer(&offer(b"hello")).unwrap().upload, None, "it is there");
    let mut others = offer(b"hello");
    others.flow.owner = "bob".to_owned();
    let (status, said) = api.offer(&others).unwrap_err();
    // An owner of the workspace may stop what is others', and no more.
    assert_eq!((status, said.split(':').next().unwrap()), (403, "Http.NotYourFlow"));
}

fn a_snapshot_that_cannot_be_had_fails_the_start_by_its_name(deployment: &Deployment) {
    let folder = deployment.flow("cannot-be-had");
    write_flow(&folder, PLAIN, None);
    let api = deployment.api();
    let good = deployment.sent(&folder);
    let missing = format!("{}/{}", good.rsplit_once('/').unwrap().0, "0".repeat(64));
    let another = deployment.flow("by-someone");
    write_flow(&another, PLAIN, None);
    let others = deployment.sent(&another);
    let no_flow = deployment.sent_bytes(&folder, b"no flow");
    for (id, address, error) in [
        ("had-path", folder.to_str().unwrap(), "Flow.NoSnapshot"),
        ("had-missing", &missing, "Snapshot.Missing"),
        ("had-others", &others, "Snapshot.NotYours"),
        ("had-no-flow", &no_flow, "Snapshot.Unreadable"),
    ] {
        let start =
            json!({ "id": id, "flow": api.flow(&folder), "command": "start", "settings": { "folder": address } });
        api.send(&start).unwrap();
        let row = api.operation(id, LONG);
        assert_eq!(row.failure.expect("it fails").error.to_string(), error, "{id}");
    }
    nothing_is_left(deployment, &folder);
}

fn a_driver_that_was_killed_finds_its_sessions_again_and_one_that_leaves_can_end_them(deployment: &Deployment) {
    let folder = deployment.flow("survivor");
    write_flow(&folder, PLAIN, None);
    let api = deployment.api();
    deployment.start("start-survivor", &folder);
    assert_eq!(api.operation("start-survivor", LONG).status, OperationStatus::Succeeded);
    let generation = api.session(&folder).unwrap().generation;
    let found = deployment.kill_driver_and_start_another(&["--end-sessions"]);
    assert_eq!(found["sessions"], 1, "{found}");
    let wish = RunWish {
        inputs: [("text".to_owned(), json!("still here"))].into(),
        ..RunWish::default()
    };
    api.run("run-survivor", &folder, &wish).unwrap();
    let row = api.run_row("run-survivor", LONG);
    assert_eq!(row.result.unwrap().outputs, [json!({ "said": "still here" })]);
    assert_eq!(api.session(&folder).unwrap().generation, generation);

    assert!(deployment.end_driver(), "it ends well");
    let failed = wait_for("the session's end", LONG, || {
        api.session(&folder).filter(|session| session.phase == Phase::Failed)
    });
    let said = failed.failure.expect("it says why").to_string();
    let why = "The driver of the session's machine was ended. Start the session again when there is another.";
    // Its end and that of its compute resource are two reports, which may come in any order.
    let either = [
        format!("Session.MachineLeft: {why}"),
        format!("Session.ComputeLost: The compute resource is gone ({why}). Start the session again."),
    ];
    assert!(either.contains(&said), "{said}");
    nothing_is_left(deployment, &folder);
    assert!(
        !Path::new(&deployment.machine.state().join("driver/computes"))
            .read_dir()
            .unwrap()
            .any(|_| true)
    );
}

fn an_upgrade_ends_no_session_no_run_and_no_operation(deployment: &Deployment) {
    let api = deployment.api();
    let folder = deployment.flow("upgraded");
    // A run that lasts until it is told the answer.
    let asks = "import socket\n@tool\ndef one(text: str) -> str:\n    return socket.create_connection((\"127.0.0.1\", int(text))).recv(99).decode()\n";
    write_flow(&folder, asks, None);
    let runs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = runs.local_addr().unwrap();
    // Loopback is the machine's at this one port.
    let settings = json!({ "allow_hosts": [address.to_string()] });
    deployment.start_with("start-upgraded", &folder, settings);
    assert_eq!(api.operation("start-upgraded", LONG).status, OperationStatus::Succeeded);
    let before = api.session(&folder).unwrap();
    let port = address.port().to_string();
    let wish = RunWish {
        inputs: [("text".to_owned(), json!(port))].into(),
        ..RunWish::default()
    };
    let answer = |word: &str| {
        let mut run = accept(&runs, "the run's question");
        std::io::Write::write_all(&mut run, word.as_bytes()).unwrap();
    };
    api.run("run-over-it", &folder, &wish).unwrap();
    let mut over_it = accept(&runs, "the run's question");
    // And an operation that is in the middle.
    let slow = deployment.flow("in-the-middle");
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/slow-1.0-py3-none-any.whl", place.local_addr().unwrap());
    write_flow(&slow, PLAIN, Some(&format!("slow @ {url}\n")));
    deployment.start("start-in-the-middle", &slow);
    let asked = accept(&place, "the install's question for the package");

    deployment.upgrade();

    let after = api.session(&folder).unwrap();
    assert_eq!((after.phase, after.generation), (Phase::Ready, before.generation));
    std::io::Write::write_all(&mut over_it, b"begun before").unwrap();
    drop(over_it);
    let row = api.run_row("run-over-it", LONG);
    assert_eq!(
        row.result.expect("it has a result").outputs,
        [json!({ "said": "begun before" })]
    );
    api.run("run-after-it", &folder, &wish).unwrap();
    answer("begun after");
    let row = api.run_row("run-after-it", LONG);
    assert_eq!(
        row.result.expect("it has a result").outputs,
        [json!({ "said": "begun after" })]
    );
    assert_eq!(api.session(&folder).unwrap().generation, before.generation);

    // The operation goes on to the end that it would have had.
    assert_eq!(api.phase(&slow), Some(Phase::Installing));
    let wheel = deployment.flow("slow-1.0-py3-none-any.whl");
    deployment.emulator.python("wheel.py", &[wheel.to_str().unwrap()]);
    let wheel = fs::read(wheel).unwrap();
    std::thread::spawn(move || {
        for asked in std::iter::once(asked).chain(place.incoming().map_while(Result::ok)) {
            give(asked, &wheel);
        }
    });
    let row = api.operation("start-in-the-middle", LONG);
    assert_eq!(row.status, OperationStatus::Succeeded, "{row:?}");
    let path = slow.to_str().unwrap();
    assert!(done(deployment, &["packages", path, "--json"]).contains("\"slow\""));
    for (stop, folder) in [("stop-upgraded", &folder), ("stop-in-the-middle", &slow)] {
        api.stop(stop, folder).unwrap();
        assert_eq!(api.operation(stop, LONG).status, OperationStatus::Succeeded);
        nothing_is_left(deployment, folder);
    }
}

/// Answers one request with these bytes.
fn give(mut asked: std::net::TcpStream, bytes: &[u8]) {
    use std::io::{BufRead, Write};
    let mut lines = std::io::BufReader::new(asked.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let _ = lines.find(String::is_empty);
    let length = bytes.len();
    let _ = write!(
        asked,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    if first.starts_with("GET ") {
        let _ = asked.write_all(bytes);
    }
}

/// By the README's page. That of all sessions nothing is left the other tests have seen.
fn what_was_deployed_is_removed_and_nothing_is_left(deployment: &Deployment) {
    deployment.have_compute();
    // A bucket that holds something is not deleted.
    deployment.sent(&flow("one-node"));
    // A connection's secret is no resource of the stack.
    let file = deployment.flow("left.yml");
    fs::write(&file, "name: left\ntype: custom\nsecrets:\n  key: x\n").unwrap();
    done(
        deployment,
        &["connection", "create", "-f", file.to_str().unwrap(), "--for-workspace"],
    );
    let there = deployment.account();
    let has = |what: &str| there.iter().any(|line| line.starts_with(what));
    for what in [
        "stack",
        "function",
        "queue",
        "table",
        "state machine",
        "schedule",
        "alarm",
        "role",
        "log group",
        "event source",
        "bucket",
        "object pfsession-",
        "rule",
        "cluster",
        "launch template",
        "instance profile",
        "security group",
        "pipe",
        "secret",
    ] {
        assert!(has(what), "this would not see that a {what} is left: {there:#?}");
    }
    let page = fs::read_to_string(whole_system::root().join("infra/README.md")).unwrap();
    let page = &page[page.find("## Remove").expect("the page says how")..];
    let page = &page[..page.find("## Costs").expect("and has an end")];
    let mut blocks = page.split("\n\n").filter(|part| part.starts_with("    "));
    let (look, remove) = (blocks.next().expect("a look"), blocks.next().expect("the removal"));
    assert_eq!(blocks.next(), None);

    let instance = deployment.emulator.python("instance.py", &["pfsession"]);
    assert_eq!(deployment.as_typed(look), instance, "it would not be seen");
    deployment
        .emulator
        .python("instance.py", &["pfsession", instance.trim()]);
    assert_eq!(deployment.as_typed(look), "");

    let said = deployment.as_typed(remove);
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("pfsession-Table-"),
        "the tables are the last that it speaks of: {said}"
    );
    // SAM deletes the zips of the last deployment, and keeps those of earlier ones in its bucket:
    // the page says so.
    let mut left = deployment.account();
    left.retain(|what| !what.starts_with("object aws-sam-cli-managed-default"));
    assert!(left.is_empty(), "{left:#?}");
}
