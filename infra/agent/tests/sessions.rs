//! Real sessions that run real flows, on this machine.
//!
//! It is its own agent program, so it has no test harness: an argument is a part of the names of the tests to run.

#[allow(dead_code, reason = "shared with others")]
#[path = "common/mod.rs"]
mod common;

use common::{DAG, Machine, flow, index::Index, provider::Provider, settings, state, tiers};
use contract::{
    agent::{AgentCommand, AgentReport, Chunk, LineKind, OutputLine, RunResult},
    command::RunWish,
    driver::{ComputeRequest, DriverReport},
};
use lifecycle::network::Network;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    panic::AssertUnwindSafe,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "agent") {
        return agent::supervise();
    }
    // One that every user can read, as some tests are an ordinary user's.
    if let Some(python) = tiers::python_for_all() {
        // SAFETY: there is no other thread yet.
        unsafe { std::env::set_var("PFSESSION_PYTHON", python) };
    }
    if let [first, tier] = &arguments[..]
        && first == "inner"
    {
        if tier == "disk" {
            a_small_disk_is_filled();
            return Ok(());
        }
        if tier == "A" {
            a_session_is_held_to_its_vm_size_where_groups_can_be_made_and_says_so_where_not();
        }
        // The last, as it lets the warm process go.
        a_session_of_tier(tier);
        return Ok(());
    }
    let tests: &[(&str, fn())] = &[
        (
            "a_dag_flow_runs_over_lines_of_data_and_keeps_their_order",
            a_dag_flow_runs_over_lines_of_data_and_keeps_their_order,
        ),
        (
            "flex_and_class_flows_run_and_init_reaches_the_constructor",
            flex_and_class_flows_run_and_init_reaches_the_constructor,
        ),
        (
            "a_requirement_is_installed_on_top_of_the_base_and_imported",
            a_requirement_is_installed_on_top_of_the_base_and_imported,
        ),
        (
            "an_install_into_a_session_in_use_swaps_the_packages_and_a_failed_one_leaves_them",
            an_install_into_a_session_in_use_swaps_the_packages_and_a_failed_one_leaves_them,
        ),
        (
            "what_is_installed_is_reported_with_why_it_is_there_also_what_a_run_does_by_hand",
            what_is_installed_is_reported_with_why_it_is_there_also_what_a_run_does_by_hand,
        ),
        (
            "a_lock_brings_back_what_was_installed_also_when_its_environment_is_gone",
            a_lock_brings_back_what_was_installed_also_when_its_environment_is_gone,
        ),
        (
            "every_form_of_requirement_does_with_a_small_index_what_it_says",
            every_form_of_requirement_does_with_a_small_index_what_it_says,
        ),
        (
            "the_connections_of_a_run_reach_its_own_process_and_nothing_else",
            the_connections_of_a_run_reach_its_own_process_and_nothing_else,
        ),
        (
            "flows_of_each_kind_ask_a_provider_by_the_connection_that_they_name",
            flows_of_each_kind_ask_a_provider_by_the_connection_that_they_name,
        ),
        (
            "a_line_that_its_provider_turns_away_is_run_again_and_that_is_counted",
            a_line_that_its_provider_turns_away_is_run_again_and_that_is_counted,
        ),
        (
            "a_key_that_a_broker_holds_is_in_nothing_that_a_flow_can_reach",
            a_key_that_a_broker_holds_is_in_nothing_that_a_flow_can_reach,
        ),
        (
            "a_secret_is_nowhere_after_a_kill_of_its_run_its_agent_and_the_host",
            a_secret_is_nowhere_after_a_kill_of_its_run_its_agent_and_the_host,
        ),
        (
            "a_connection_that_is_not_there_is_named_with_those_that_are",
            a_connection_that_is_not_there_is_named_with_those_that_are,
        ),
        (
            "no_install_takes_away_what_the_base_image_loads",
            no_install_takes_away_what_the_base_image_loads,
        ),
        (
            "a_find_links_line_that_names_a_folder_of_the_host_is_refused",
            a_find_links_line_that_names_a_folder_of_the_host_is_refused,
        ),
        (
            "a_build_script_that_writes_everywhere_changes_no_other_install",
            a_build_script_that_writes_everywhere_changes_no_other_install,
        ),
        (
            "a_build_script_that_swaps_its_lock_for_a_link_shows_no_file_of_the_host",
            a_build_script_that_swaps_its_lock_for_a_link_shows_no_file_of_the_host,
        ),
        (
            "a_build_script_finds_no_credential_wherever_it_looks",
            a_build_script_finds_no_credential_wherever_it_looks,
        ),
        (
            "the_credential_of_a_private_feed_reaches_the_feed_and_nothing_else",
            the_credential_of_a_private_feed_reaches_the_feed_and_nothing_else,
        ),
        (
            "an_edit_counts_in_the_next_run_and_what_a_run_writes_goes_to_its_own_folder",
            an_edit_counts_in_the_next_run_and_what_a_run_writes_goes_to_its_own_folder,
        ),
        (
            "a_flow_sees_its_own_folder_and_nothing_of_the_machine",
            a_flow_sees_its_own_folder_and_nothing_of_the_machine,
        ),
        (
            "a_session_is_held_to_its_vm_size_where_groups_can_be_made_and_says_so_where_not",
            a_session_is_held_to_its_vm_size_where_groups_can_be_made_and_says_so_where_not,
        ),
        (
            "each_tier_holds_what_it_says_as_an_ordinary_user_and_as_root",
            each_tier_holds_what_it_says_as_an_ordinary_user_and_as_root,
        ),
        (
            "two_sessions_with_one_environment_cannot_see_or_change_each_other",
            two_sessions_with_one_environment_cannot_see_or_change_each_other,
        ),
        (
            "a_session_reaches_what_its_network_allows_and_reports_the_rest",
            a_session_reaches_what_its_network_allows_and_reports_the_rest,
        ),
        (
            "nothing_in_a_sandbox_reaches_the_agents_secrets",
            nothing_in_a_sandbox_reaches_the_agents_secrets,
        ),
        (
            "failures_of_runs_have_names_and_say_what_to_do",
            failures_of_runs_have_names_and_say_what_to_do,
        ),
        (
            "failures_of_installs_have_names_and_say_what_to_do",
            failures_of_installs_have_names_and_say_what_to_do,
        ),
        (
            "values_that_json_hardly_holds_come_back_as_they_are_or_fail_their_line",
            values_that_json_hardly_holds_come_back_as_they_are_or_fail_their_line,
        ),
        (
            "a_run_is_judged_by_how_its_processes_ended_whatever_they_write",
            a_run_is_judged_by_how_its_processes_ended_whatever_they_write,
        ),
        (
            "an_aggregation_gives_metrics_and_one_that_fails_is_told",
            an_aggregation_gives_metrics_and_one_that_fails_is_told,
        ),
        (
            "pieces_of_an_output_come_in_order_before_its_end_within_bounds_and_the_end_is_whole",
            pieces_of_an_output_come_in_order_before_its_end_within_bounds_and_the_end_is_whole,
        ),
        (
            "the_spans_of_a_run_go_to_the_endpoint_that_it_names_and_are_kept_with_it",
            the_spans_of_a_run_go_to_the_endpoint_that_it_names_and_are_kept_with_it,
        ),
        (
            "a_connection_without_a_key_says_what_gives_the_run_an_identity",
            a_connection_without_a_key_says_what_gives_the_run_an_identity,
        ),
        (
            "lines_that_wait_share_the_processor",
            lines_that_wait_share_the_processor,
        ),
        (
            "a_variable_that_no_process_takes_is_refused_and_the_runner_lives_on",
            a_variable_that_no_process_takes_is_refused_and_the_runner_lives_on,
        ),
        (
            "a_flow_is_given_by_its_file_or_entry_and_reads_an_earlier_run",
            a_flow_is_given_by_its_file_or_entry_and_reads_an_earlier_run,
        ),
        (
            "a_long_line_of_output_is_whole_in_the_log",
            a_long_line_of_output_is_whole_in_the_log,
        ),
        (
            "a_command_that_comes_twice_is_done_once",
            a_command_that_comes_twice_is_done_once,
        ),
        (
            "a_report_is_signed_with_the_sessions_own_key",
            a_report_is_signed_with_the_sessions_own_key,
        ),
        (
            "a_launch_that_is_late_or_was_removed_never_starts_an_agent",
            a_launch_that_is_late_or_was_removed_never_starts_an_agent,
        ),
        (
            "an_agent_that_is_killed_takes_its_sandbox_with_it_and_is_reported",
            an_agent_that_is_killed_takes_its_sandbox_with_it_and_is_reported,
        ),
        (
            "a_runner_that_is_killed_fails_its_runs_and_the_next_one_runs",
            a_runner_that_is_killed_fails_its_runs_and_the_next_one_runs,
        ),
        (
            "a_host_that_comes_back_finds_its_agents_and_reports_the_dead",
            a_host_that_comes_back_finds_its_agents_and_reports_the_dead,
        ),
        (
            "a_released_compute_takes_its_sessions_with_it",
            a_released_compute_takes_its_sessions_with_it,
        ),
        (
            "what_a_run_leaves_behind_ends_with_it_and_only_its_own_files_are_kept",
            what_a_run_leaves_behind_ends_with_it_and_only_its_own_files_are_kept,
        ),
        (
            "files_over_a_bound_and_data_over_a_bound_are_named_and_nothing_hangs",
            files_over_a_bound_and_data_over_a_bound_are_named_and_nothing_hangs,
        ),
        (
            "on_a_small_disk_a_session_that_fills_it_gives_way_and_others_go_on",
            on_a_small_disk_a_session_that_fills_it_gives_way_and_others_go_on,
        ),
        (
            "what_a_session_leaves_is_removed_by_another_process_in_any_depth",
            what_a_session_leaves_is_removed_by_another_process_in_any_depth,
        ),
    ];
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return Ok(());
    }
    let mut failed = Vec::new();
    let takes_a_minute = "an_agent_whose_lease_is_not_renewed_ends";
    let is_wanted = wanted.is_empty() || wanted.iter().any(|part| takes_a_minute.contains(part.as_str()));
    let beside = is_wanted.then(|| std::thread::spawn(an_agent_whose_lease_is_not_renewed_ends));
    for (name, test) in tests
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
    {
        let begun = Instant::now();
        let result = std::panic::catch_unwind(AssertUnwindSafe(test));
        println!(
            "test {name} ... {} ({:.1} s)",
            if result.is_ok() { "ok" } else { "FAILED" },
            begun.elapsed().as_secs_f32()
        );
        if result.is_err() {
            failed.push(*name);
        }
    }
    // The warm process would stay for a while.
    Machine::new(&state()).driver.let_go();
    if let Some(beside) = beside {
        let result = beside.join();
        println!(
            "test {takes_a_minute} ... {}",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        if result.is_err() {
            failed.push(takes_a_minute);
        }
    }
    anyhow::ensure!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join(", "));
    Ok(())
}

/// A flow's key that no other test has.
fn key(name: &str) -> String {
    contract::FlowRef {
        workspace: "local".into(),
        owner: "me".into(),
        lineage: name.into(),
    }
    .key()
}

fn inputs(name: &str, value: &str) -> RunWish {
    RunWish {
        inputs: BTreeMap::from([(name.into(), json!(value))]),
        ..RunWish::default()
    }
}

fn a_dag_flow_runs_over_lines_of_data_and_keeps_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let hello = flow(&folder.path().join("hello"), &DAG);
    let key = key(&hello.display().to_string());
    machine.start(&key, 1, &hello);
    let result: RunResult = machine.run(&key, 1, &unique("one"), &hello, inputs("name", "you"));
    assert_eq!(result.failure, None, "{result:#?}");
    assert_eq!(result.outputs, [json!({ "greeting": "Hello, you!" })]);
    let data: String = (0..20).map(|i| format!("{{\"who\": \"n{i}\"}}\n")).collect();
    std::fs::write(folder.path().join("data.jsonl"), data).unwrap();
    let wish = RunWish {
        data: Some(folder.path().join("data.jsonl").display().to_string()),
        column_mapping: BTreeMap::from([("name".into(), json!("${data.who}"))]),
        ..RunWish::default()
    };
    let result = machine.run(&key, 1, &unique("many"), &hello, wish);
    assert_eq!(result.failure, None);
    let expected: Vec<_> = (0..20)
        .map(|i| json!({ "greeting": format!("Hello, n{i}!") }))
        .collect();
    assert_eq!(result.outputs, expected);
    let written = std::fs::read_to_string(Path::new(&result.folder).join("output/outputs.jsonl")).unwrap();
    assert_eq!(written.lines().count(), 20);
    machine.remove(&key, 1);
    assert_eq!(machine.gone(&key, 1), None);
}

/// A flex flow whose only function is `code`.
fn flex(folder: &Path, code: &str) -> std::path::PathBuf {
    flow(folder, &[("flow.flex.yaml", "entry: code:main\n"), ("code.py", code)])
}

/// Runs `code` once in a session of its own, which is removed again.
fn once(name: &str, code: &str) -> RunResult {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), code);
    let key = key(&unique(name));
    machine.start(&key, 1, &it);
    let result = machine.run(&key, 1, &unique(name), &it, RunWish::default());
    machine.remove(&key, 1);
    result
}

fn output(result: &RunResult) -> Value {
    assert_eq!(result.failure, None, "{result:#?}");
    result.outputs[0].clone()
}

/// The processes whose command line or environment holds `text`.
fn processes_with(text: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let all = format!(
            "{} {}",
            String::from_utf8_lossy(&command),
            String::from_utf8_lossy(&environ)
        )
        .replace('\0', " ");
        (all.contains(text) && !status.contains("State:\tZ")).then_some(all)
    });
    commands.collect()
}

/// The mounts that hold `text`, of any process.
fn mounts_with(text: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path().join("mounts")).ok())
        .any(|mounts| mounts.contains(text))
}

fn flex_and_class_flows_run_and_init_reaches_the_constructor() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let function = flex(
        &folder.path().join("function"),
        "def main(name: str = 'world') -> dict:\n    return {'greeting': f'Hi {name}'}\n",
    );
    let class = flow(
        &folder.path().join("class"),
        &[
            ("flow.flex.yaml", "entry: code:Greeter\n"),
            (
                "code.py",
                "class Greeter:\n    def __init__(self, word: str = 'Hi'):\n        self.word = word\n    def __call__(self, name: str) -> str:\n        return f'{self.word} {name}'\n",
            ),
        ],
    );
    let (one, two) = (key(&unique("function")), key(&unique("class")));
    machine.start(&one, 1, &function);
    machine.start(&two, 1, &class);
    assert_eq!(
        output(&machine.run(&one, 1, &unique("f"), &function, inputs("name", "Ann"))),
        json!({ "greeting": "Hi Ann" })
    );
    let wish = RunWish {
        init: BTreeMap::from([("word".into(), json!("Salut"))]),
        ..inputs("name", "Ann")
    };
    assert_eq!(
        output(&machine.run(&two, 1, &unique("c"), &class, wish)),
        json!({ "output": "Salut Ann" })
    );
    let wish = RunWish {
        environment_variables: BTreeMap::from([("COLOUR".into(), "green".into())]),
        ..RunWish::default()
    };
    flex(
        &function,
        "import os\ndef main() -> str:\n    return os.environ.get('COLOUR', '')\n",
    );
    assert_eq!(
        output(&machine.run(&one, 1, &unique("v"), &function, wish)),
        json!({ "output": "green" })
    );
    assert_eq!(
        output(&machine.run(&one, 1, &unique("v"), &function, RunWish::default())),
        json!({ "output": "" })
    );
    machine.remove(&one, 1);
    machine.remove(&two, 1);
}

const IMPORTS: &str = "import importlib.metadata\ndef main() -> dict:\n    import cowsay\n    return {'version': importlib.metadata.version('cowsay'), 'file': cowsay.__file__}\n";

fn a_requirement_is_installed_on_top_of_the_base_and_imported() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), IMPORTS);
    fs::write(it.join("requirements.txt"), "# a cow\ncowsay==6.1\n").unwrap();
    let key = key(&unique("requirement"));
    machine.start(&key, 1, &it);
    assert_eq!(
        output(&machine.run(&key, 1, &unique("cow"), &it, RunWish::default()))["version"],
        "6.1"
    );
    machine.remove(&key, 1);
    // A base package at another version: the warm process cannot serve, and a fresh interpreter does.
    fs::write(
        it.join("requirements.txt"),
        "cowsay==6.1\ntabulate==0.9.0\nPyJWT<2.12\n",
    )
    .unwrap();
    flex(
        &it,
        "import importlib.metadata as m\ndef main() -> list:\n    import jwt, cowsay\n    return [m.version('tabulate'), jwt.__version__ == m.version('PyJWT'), jwt.__version__ < '2.12']\n",
    );
    machine.start(&key, 2, &it);
    assert_eq!(
        output(&machine.run(&key, 2, &unique("cow"), &it, RunWish::default())),
        json!({ "output": ["0.9.0", true, true] })
    );
    machine.remove(&key, 2);
}

fn an_install_into_a_session_in_use_swaps_the_packages_and_a_failed_one_leaves_them() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), IMPORTS);
    let key = key(&unique("swap"));
    machine.start(&key, 1, &it);
    let without = machine.run(&key, 1, &unique("cow"), &it, RunWish::default());
    let failure = without.failure.unwrap();
    assert_eq!(failure.error, "Run.ImportFailed", "{failure}");
    assert!(failure.message.contains("cowsay"), "{failure}");
    fs::write(it.join("requirements.txt"), "cowsay==6.1\n").unwrap();
    assert_eq!(machine.install(&key, 1, &unique("more"), &it), None);
    assert_eq!(
        output(&machine.run(&key, 1, &unique("cow"), &it, RunWish::default()))["version"],
        "6.1"
    );
    fs::write(it.join("requirements.txt"), "cowsay==6.1\nno-such-package-of-ours\n").unwrap();
    assert_eq!(
        machine.install(&key, 1, &unique("bad"), &it).unwrap().error,
        "Install.NoSuchPackage"
    );
    assert_eq!(
        output(&machine.run(&key, 1, &unique("cow"), &it, RunWish::default()))["version"],
        "6.1"
    );
    machine.remove(&key, 1);
}

/// What an agent said last of what is installed.
fn installation(machine: &Machine, key: &str) -> contract::packages::Installation {
    let reports = machine.world.agent_reports.lock().unwrap();
    let said = reports.iter().rev().filter(|(_, body)| body.flow == key);
    said.filter_map(|(_, body)| match &body.report {
        AgentReport::Installed { installation, .. } => installation.as_deref().cloned(),
        AgentReport::Packages { installation, .. } => Some((**installation).clone()),
        _ => None,
    })
    .max_by_key(|installation| installation.count)
    .unwrap()
}

/// `name version origin` of some packages.
fn told(installation: &contract::packages::Installation, names: &[&str]) -> Vec<String> {
    let packages = &installation.listed.as_ref().unwrap().packages;
    let wanted = packages.iter().filter(|package| names.contains(&package.name.as_str()));
    wanted
        .map(|package| {
            format!(
                "{} {} {:?} {} {}",
                package.name,
                package.version,
                package.origin,
                package.named.as_deref().unwrap_or("-"),
                package.asked_by.join(",")
            )
        })
        .collect()
}

fn a_session_reaches_what_its_network_allows_and_reports_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"hello");
        }
    });
    let code = format!(
        "import errno, socket\ndef ask(host, port):\n    try:\n        with socket.create_connection((host, port), 10) as s:\n            return s.recv(9).decode()\n    except OSError as error:\n        return errno.errorcode.get(error.errno, str(error))\ndef kind(family):\n    try:\n        socket.socket(family, socket.SOCK_STREAM).close()\n        return 'made'\n    except OSError as error:\n        return errno.errorcode[error.errno]\ndef main() -> str:\n    return ' '.join([ask('127.0.0.1', {port}), ask('169.254.169.254', 80), kind(40), kind(38), kind(17)])\n"
    );
    let it = flex(&folder.path().join("flow"), &code);
    let key = key(&unique("network"));
    machine.start(&key, 1, &it);
    let isolation = installation(&machine, &key).isolation.unwrap();
    if isolation.not_held.iter().any(|lack| lack.contains("network")) {
        println!("not tried: a sandbox has no network of its own here: {isolation}");
        return;
    }
    let ask = || match &output(&machine.run(&key, 1, &unique("ask"), &it, RunWish::default()))["output"] {
        Value::String(said) => said.clone(),
        other => panic!("{other}"),
    };
    let barred = "EPERM EPERM EPERM";
    assert_eq!(ask(), format!("ECONNREFUSED EHOSTUNREACH {barred}"));
    let soon = Duration::from_secs(60);
    let refused = machine.report("what was refused", soon, &key, 1, |report| match report {
        AgentReport::Refused { refused } => Some(refused.clone()),
        _ => None,
    });
    let metadata = refused.by.iter().find(|refusal| refusal.to == "169.254.169.254:80");
    assert_eq!(
        metadata.map(|refusal| (refusal.why.as_str(), refusal.times)),
        Some(("link-local", 1)),
        "{refused:?}"
    );
    let revision = std::cell::Cell::new(0);
    let update = |network, hosts: &[String]| {
        revision.set(revision.get() + 1);
        let allow_hosts = hosts.to_vec();
        let command = AgentCommand::Network {
            revision: revision.get(),
            network,
            allow_hosts,
        };
        machine.tell(&key, 1, &command);
    };
    // Each counts for the next run at the latest; the queue of an agent keeps no order, so it is asked until it is so.
    let becomes = |network, hosts: &[String], said: &str| {
        update(network, hosts);
        let begun = Instant::now();
        loop {
            let now = ask();
            if now == format!("{said} {barred}") {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{now}");
        }
    };
    becomes(Network::None, &[format!("127.0.0.1:{port}")], "hello EHOSTUNREACH");
    becomes(Network::Internet, &[], "ECONNREFUSED EHOSTUNREACH");
    update(Network::Open, &[]);
    let begun = Instant::now();
    while !ask().starts_with("hello ") {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    becomes(Network::None, &[], "ECONNREFUSED EHOSTUNREACH");
}

fn what_is_installed_is_reported_with_why_it_is_there_also_what_a_run_does_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    index.add("alpha", "1.0", &["beta>=1"]);
    index.add("beta", "1.0", &[]);
    let index_line = format!("--extra-index-url {}", index.url());
    let by_hand = "import pathlib, tabulate\ndef main() -> str:\n    site = pathlib.Path(tabulate.__file__).parent.parent\n    made = site / 'gamma_x-2.0.dist-info'\n    made.mkdir()\n    (made / 'METADATA').write_text('Name: gamma-x')\n    gone = next(site.glob('tabulate-*.dist-info'))\n    import shutil\n    shutil.rmtree(gone)\n    return ''\n";
    let it = flex(&folder.path().join("flow"), by_hand);
    fs::write(
        it.join("requirements.txt"),
        format!("{index_line}\n# one\nAlpha\ntabulate\n"),
    )
    .unwrap();
    let key = key(&unique("listed"));
    machine.start(&key, 1, &it);
    let first = installation(&machine, &key);
    let version = first
        .listed
        .as_ref()
        .unwrap()
        .packages
        .iter()
        .find(|package| package.name == "tabulate")
        .unwrap()
        .version
        .clone();
    let known = told(&first, &["alpha", "beta", "tabulate"]);
    assert_eq!(
        known[..2],
        [
            "alpha 1.0 Requirements requirements.txt:3 ",
            "beta 1.0 Dependency - alpha"
        ]
    );
    assert!(
        known[2].starts_with(&format!("tabulate {version} BaseImage requirements.txt:4 ")),
        "{known:?}"
    );
    assert!(first.by_hand.is_empty() && first.isolation.is_some(), "{first:?}");
    output(&machine.run(&key, 1, &unique("by-hand"), &it, RunWish::default()));
    let second = installation(&machine, &key);
    assert_eq!((second.count, &second.lock), (2, &first.lock));
    let changed: Vec<_> = second
        .by_hand
        .iter()
        .map(|each| (each.name.as_str(), each.version.as_deref()))
        .collect();
    assert_eq!(changed, [("gamma-x", Some("2.0")), ("tabulate", None)]);
    // Nothing new, nothing said.
    flex(&it, "def main() -> str:\n    return ''\n");
    output(&machine.run(&key, 1, &unique("nothing"), &it, RunWish::default()));
    assert_eq!(installation(&machine, &key).count, 2);
    // An install that fails says how: its exit code, and the end of its output.
    fs::write(
        it.join("requirements.txt"),
        format!("{index_line}\nno-such-package-of-ours\n"),
    )
    .unwrap();
    let operation = unique("fails");
    assert!(machine.install(&key, 1, &operation, &it).is_some());
    let setup = machine.report("its end", Duration::from_secs(5), &key, 1, |report| match report {
        AgentReport::InstallFailed {
            operation: o, setup, ..
        } if *o == operation => setup.clone(),
        _ => None,
    });
    assert!(
        setup.exit_code == 1 && setup.tail.join(" ").contains("no-such-package-of-ours"),
        "{setup:?}"
    );
    machine.remove(&key, 1);
}

fn a_lock_brings_back_what_was_installed_also_when_its_environment_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    index.add("alpha", "1.0", &[]);
    index.add("alpha", "2.0", &[]);
    let it = flex(
        &folder.path().join("flow"),
        "import importlib.metadata\ndef main() -> str:\n    return importlib.metadata.version('alpha')\n",
    );
    let version = |machine: &Machine, key: &str| {
        output(&machine.run(key, 1, &unique("version"), &it, RunWish::default()))["output"].clone()
    };
    fs::write(it.join("requirements.txt"), index.line() + "\nalpha==1.0\n").unwrap();
    let key = key(&unique("lock"));
    machine.start(&key, 1, &it);
    let lock = installation(&machine, &key).lock;
    fs::write(it.join("requirements.txt"), index.line() + "\nalpha==2.0\n").unwrap();
    assert_eq!(machine.install(&key, 1, &unique("two"), &it), None);
    assert_eq!(version(&machine, &key), "2.0");
    // As pruning leaves it.
    let environments = machine.state.join("environments");
    fs::rename(
        environments.join(format!("{lock}.json")),
        environments.join(format!("{lock}.gone.json")),
    )
    .unwrap();
    fs::remove_dir_all(environments.join(&lock)).unwrap();
    let back = |lock: &str| {
        let operation = unique("back");
        let command = AgentCommand::Install {
            operation: operation.clone(),
            attempt: 1,
            settings: settings(&it),
            lock: Some(lock.into()),
            resolve: false,
        };
        machine.tell(&key, 1, &command);
        machine.ended_install(&key, 1, &operation)
    };
    assert_eq!(back(&lock), None);
    assert_eq!(version(&machine, &key), "1.0");
    let said = installation(&machine, &key);
    assert_eq!((said.lock.as_str(), said.listed), (lock.as_str(), None));
    let failure = back("00000000000000000000000000000000").unwrap();
    assert_eq!(
        failure.to_string(),
        "Install.NoSuchLock: The lock 00000000000000000000000000000000 is not on this machine any more. Install what the requirements say: \
         pfsession install."
    );
    assert_eq!(version(&machine, &key), "1.0");
    machine.remove(&key, 1);
}

fn every_form_of_requirement_does_with_a_small_index_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    for (name, version) in [
        ("alpha", "1.0"),
        ("alpha", "2.0"),
        ("alpha", "3.0rc1"),
        ("beta-x", "1.0"),
    ] {
        index.add(
            name,
            version,
            if name == "alpha" {
                &["beta-x ; extra == 'more'"]
            } else {
                &[]
            },
        );
    }
    let other = Index::serve();
    other.add("delta", "1.0", &[]);
    let hash = index.hash("alpha", "1.0");
    let wrong = "0".repeat(64);
    let it = flex(&folder.path().join("flow"), "def main() -> str:\n    return ''\n");
    let key = key(&unique("forms"));
    machine.launch(&key, 1, &it);
    let index_line = index.line();
    // What is installed of ours, or the name of the failure.
    let install = |requirements: &str, more: &[(&str, &str)]| -> String {
        flow(&it, more);
        fs::write(it.join("requirements.txt"), requirements).unwrap();
        match machine.install(&key, 1, &unique("form"), &it) {
            Some(failure) => failure.error,
            None => {
                let listed = installation(&machine, &key).listed.unwrap().packages;
                let ours = listed
                    .iter()
                    .filter(|package| ["alpha", "beta-x", "delta"].contains(&package.name.as_str()));
                ours.map(|package| format!("{}={}", package.name, package.version))
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        }
    };
    /// What it is, the requirements, more files, and what is installed of ours or why it is not.
    type Case<'a> = (&'a str, String, &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case] = &[
        ("a name", format!("{index_line}\nalpha"), &[], "alpha=2.0"),
        (
            "a mark and line ends of Windows",
            format!("\u{feff}{index_line}\r\nalpha==1.0 \\\r\n  ; python_version > '3'\r\n"),
            &[],
            "alpha=1.0",
        ),
        (
            "an extra, and a comment",
            format!("{index_line}\nAlpha[more]<2 # not two\n"),
            &[],
            "alpha=1.0 beta-x=1.0",
        ),
        (
            "a marker that is not met",
            format!("{index_line}\nalpha ; sys_platform == 'win32'\nbeta_x\n"),
            &[],
            "beta-x=1.0",
        ),
        (
            "a file that is named",
            format!("{index_line}\n-r more/r.txt\n"),
            &[("more/r.txt", "alpha\n-c c.txt\n"), ("more/c.txt", "alpha<2\n")],
            "alpha=1.0",
        ),
        (
            "a hash",
            format!("{index_line}\nalpha==1.0 --hash=sha256:{hash}\n"),
            &[],
            "alpha=1.0",
        ),
        (
            "another hash",
            format!("{index_line}\nalpha==1.0 \\\n  --hash=sha256:{wrong}\n"),
            &[],
            "Install.HashMismatch",
        ),
        (
            "one more index, in one line",
            format!("{index_line} --extra-index-url {}\ndelta\nalpha\n", other.url()),
            &[],
            "alpha=2.0 delta=1.0",
        ),
        (
            "a URL",
            format!("{index_line}\nalpha @ {}\n", index.wheel("alpha", "1.0")),
            &[],
            "alpha=alpha-1.0-py3-none-any.whl",
        ),
        (
            "links",
            format!("--no-index\n-f {}\nalpha\n", index.links("alpha")),
            &[],
            "alpha=2.0",
        ),
        (
            "what is not released yet",
            format!("{index_line}\n--pre\nalpha\n"),
            &[],
            "alpha=3.0rc1",
        ),
        (
            "no wheels, of which there is nothing else",
            format!("{index_line}\n--no-binary alpha\nalpha\n"),
            &[],
            "Install.NoSuchVersion",
        ),
        (
            "nothing there",
            format!("{index_line}\nalpha\nomega\n"),
            &[],
            "Install.NoSuchPackage",
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(what, requirements, more, expected)| {
            let found = install(requirements, more);
            (found != *expected).then(|| format!("{what}: {found}, not {expected}"))
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    machine.remove(&key, 1);
}

/// Keeps a connection of the user whose sessions these are.
fn keep(machine: &Machine, name: &str, document: &str) {
    let read = flow::connection("connection.yml", document).unwrap();
    let mut connection = read.connection;
    connection.brokered = read.brokered.unwrap_or(false);
    for (key, secret) in read.secrets {
        let flow::Secret::Given(secret) = secret else {
            panic!("{document}")
        };
        connection.secrets.insert(key, secret);
    }
    let holder = agent::connections::Holder {
        workspace: "local".into(),
        user: "me".into(),
    };
    agent::connections::Connections::change(&machine.state, |all| {
        all.of_scope(&holder, agent::connections::Scope::User)
            .insert(name.into(), connection);
        Ok::<_, contract::Failure>(())
    })
    .unwrap();
}

/// Whether `text` is in the bytes; quicker than a search that is not optimised here.
fn holds(bytes: &[u8], text: &str) -> bool {
    // SAFETY: both are as long as is said.
    let found = unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), text.as_ptr().cast(), text.len()) };
    !found.is_null()
}

/// The processes of a session whose memory holds `text`, and how many were looked at.
fn memories_with(session: &str, text: &str) -> (Vec<i32>, usize) {
    use std::os::unix::fs::FileExt;
    let (mut found, mut looked_at) = (Vec::new(), 0);
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let inside = fs::read_to_string(entry.path().join("mountinfo")).is_ok_and(|mounts| mounts.contains(session));
        let (Ok(maps), Ok(memory)) = (
            fs::read_to_string(entry.path().join("maps")),
            fs::File::open(entry.path().join("mem")),
        ) else {
            continue;
        };
        if !inside {
            continue;
        }
        looked_at += 1;
        let has_it = maps.lines().filter(|line| line.contains(" rw")).any(|line| {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
            let mut bytes = vec![0; (to - from) as usize];
            let read = memory.read_at(&mut bytes, from).unwrap_or(0);
            holds(&bytes[..read], text)
        });
        if has_it {
            found.push(pid);
        }
    }
    (found, looked_at)
}

/// Looks for secrets in all reports and in all files of the state folder and of the test, but for the one that keeps them.
fn are_written_nowhere(machine: &Machine, folder: &Path, secrets: &[&String]) {
    let said = machine.world.agent_reports.lock().unwrap();
    let said: String = said.iter().map(|(signed, _)| signed.body.clone()).collect();
    for secret in secrets {
        assert!(!said.contains(secret.as_str()), "a report holds it");
    }
    let mut folders = vec![machine.state.clone(), folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_new(&entry) && entry.path() != machine.state.join("connections") {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                for secret in secrets {
                    assert!(!holds(&bytes, secret), "{} holds it", entry.path().display());
                }
            }
        }
    }
}

fn a_secret_is_nowhere_after_a_kill_of_its_run_its_agent_and_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(&state());
    let (name, secret, token) = (
        unique("killed"),
        format!("hidden-{}", unique("killed")),
        format!("hidden-{}", unique("token")),
    );
    keep(&machine, &name, &format!("type: open_ai\napi_key: {secret}\n"));
    let it = flex(
        &folder.path().join("flow"),
        "import os, time\n\
         def main() -> str:\n\
        \x20   print('ready', os.getppid() > 0, flush=True)\n\
        \x20   if os.environ.get('ABORT'):\n\
        \x20       os.abort()\n\
        \x20   time.sleep(600)\n",
    );
    let key = key(&unique("killed"));
    machine.start(&key, 1, &it);
    let begin = |machine: &Machine, abort: &str| {
        let run = unique("killed");
        agent::connections::leave_variables(&machine.state, &run, &[("TOKEN".to_owned(), token.clone())].into())
            .unwrap();
        let wish = RunWish {
            environment_variables: [
                ("KEY".to_owned(), format!("${{{name}.api_key}}")),
                ("ABORT".to_owned(), abort.to_owned()),
            ]
            .into(),
            secret_variables: ["TOKEN".to_owned()].into(),
            ..RunWish::default()
        };
        machine.begin_run(&key, 1, &run, &it, wish);
        run
    };
    // A run that ends itself as by a crash, which would leave a core file.
    let run = begin(&machine, "1");
    let failure = machine.ended_run(&key, 1, &run).failure.unwrap();
    assert!(failure.error.starts_with("Run."), "{failure}");
    are_written_nowhere(&machine, folder.path(), &[&secret, &token]);
    // The agent in the middle of one, and the host.
    let run = begin(&machine, "");
    machine.world.wait("the run", Duration::from_secs(60), |_| {
        machine.output(&run).contains("ready").then_some(())
    });
    let about = machine.state.join("sessions").join(&key).join("1/agent.json");
    let about: Value = serde_json::from_slice(&fs::read(about).unwrap()).unwrap();
    let pid = about["pid"].as_i64().unwrap() as i32;
    machine.restart_host();
    // SAFETY: it is the agent of this test's own session.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    machine.runtime.block_on(machine.driver.recover());
    assert_eq!(machine.gone(&key, 1).unwrap().error, "Session.AgentDied");
    are_written_nowhere(&machine, folder.path(), &[&secret, &token]);
    for text in [&secret, &token] {
        assert_eq!(processes_with(text), Vec::<String>::new());
    }
}

fn the_connections_of_a_run_reach_its_own_process_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(
        &folder.path().join("flow"),
        "import os, time\n\
         from promptflow.connections import AzureOpenAIConnection, ConnectionProvider\n\
         from promptflow.client import PFClient\n\
         class Asker:\n\
        \x20   def __init__(self, connection: AzureOpenAIConnection):\n\
        \x20       self.connection = connection\n\
        \x20   def __call__(self) -> dict:\n\
        \x20       print('ready', flush=True)\n\
        \x20       while not os.path.exists('go'):\n\
        \x20           time.sleep(0.005)\n\
        \x20       by_name = ConnectionProvider.get_instance().get('the_custom')\n\
        \x20       by_client = PFClient().connections.get('the_custom')\n\
        \x20       return {'base': self.connection.api_base, 'key': len(self.connection.api_key), 'custom': by_name.secrets == by_client.secrets,\n\
        \x20               'plain': by_name.configs['plain'], 'variable': os.environ['KEY'] == self.connection.api_key, 'token': len(os.environ['TOKEN'])}\n",
    );
    fs::write(it.join("flow.flex.yaml"), "entry: code:Asker\n").unwrap();
    let secret = |of: &str| format!("hidden-{of}-{}", unique("key"));
    let [key_of_it, word, token] = ["key", "word", "token"].map(secret);
    keep(
        &machine,
        "the_model",
        &format!("type: azure_open_ai\napi_base: http://here\napi_key: {key_of_it}\n"),
    );
    keep(
        &machine,
        "the_custom",
        &format!("type: custom\nconfigs:\n  plain: seen\nsecrets:\n  word: {word}\n"),
    );
    let key = key(&unique("connections"));
    machine.start(&key, 1, &it);
    let run = unique("connections");
    agent::connections::leave_variables(&machine.state, &run, &[("TOKEN".to_owned(), token.clone())].into()).unwrap();
    let wish = RunWish {
        init: [("connection".to_owned(), json!("the_model"))].into(),
        environment_variables: [("KEY".to_owned(), "${the_model.api_key}".to_owned())].into(),
        secret_variables: ["TOKEN".to_owned()].into(),
        ..RunWish::default()
    };
    machine.begin_run(&key, 1, &run, &it, wish);
    machine.world.wait("the run", Duration::from_secs(60), |_| {
        machine.output(&run).contains("ready").then_some(())
    });
    let session = format!("/sessions/{key}/");
    // Its own process, and no other of its session: not the runner, not the one that waits for the next run.
    let (found, looked_at) = memories_with(&session, &key_of_it);
    if looked_at > 1 {
        assert_eq!(found.len(), 1, "{found:?} of {looked_at}");
    } else {
        println!("  the memory of other processes cannot be read here");
    }
    let view = machine
        .state
        .join("sessions")
        .join(&key)
        .join("1/work")
        .join(&run)
        .join("flow");
    fs::write(view.join("go"), "").unwrap();
    let result = machine.ended_run(&key, 1, &run);
    assert_eq!(
        output(&result),
        json!({ "base": "http://here", "key": key_of_it.len(), "custom": true, "plain": "seen", "variable": true, "token": token.len() })
    );
    for text in [&key_of_it, &word, &token] {
        assert_eq!(processes_with(text), Vec::<String>::new());
        assert_eq!(memories_with(&session, text).0, Vec::<i32>::new());
    }
    // Code that prints its key is no leak of ours; the log and the errors do not have it all the same.
    let printing =
        "import os\ndef main():\n    print('it is', os.environ['KEY'])\n    raise ValueError(os.environ['KEY'])\n";
    flex(&it, printing);
    let wish = RunWish {
        environment_variables: [("KEY".to_owned(), "${the_model.api_key}".to_owned())].into(),
        ..RunWish::default()
    };
    let run = unique("connections");
    let failure = machine.run(&key, 1, &run, &it, wish).failure.unwrap();
    assert!(failure.message.starts_with("ValueError: ***"), "{failure}");
    assert!(machine.output(&run).contains("it is ***"), "{}", machine.output(&run));
    are_written_nowhere(&machine, folder.path(), &[&key_of_it, &word, &token]);
    machine.remove(&key, 1);
}

fn flows_of_each_kind_ask_a_provider_by_the_connection_that_they_name() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let secret = format!("hidden-{}", unique("provider"));
    let provider = Provider::start(&secret);
    let address = &provider.address;
    // The state folder outlives the test.
    let (azure, open_ai) = (unique("azure"), unique("open-ai"));
    keep(
        &machine,
        &azure,
        &format!("type: azure_open_ai\napi_base: {address}\napi_key: {secret}\n"),
    );
    keep(
        &machine,
        &open_ai,
        &format!("type: open_ai\nbase_url: {address}/v1\napi_key: {secret}\n"),
    );
    let dag = flow(
        &folder.path().join("dag"),
        &[
            (
                "flow.dag.yaml",
                &format!(
                    "inputs:\n  topic:\n    type: string\n    default: cats\noutputs:\n  text:\n    type: string\n    reference: ${{ask.output}}\n\
                     nodes:\n- name: ask\n  type: llm\n  source:\n    type: code\n    path: ask.jinja2\n  inputs:\n    deployment_name: busy-1\n\
                     \x20   topic: ${{inputs.topic}}\n  connection: {azure}\n  api: chat\n"
                ),
            ),
            ("ask.jinja2", "# system:\nYou are brief.\n\n# user:\nof {{topic}}\n"),
        ],
    );
    let flex = flow(
        &folder.path().join("flex"),
        &[
            (
                "flow.flex.yaml",
                &format!("entry: code:Asker\nsample:\n  init:\n    model_config:\n      connection: {azure}\n"),
            ),
            (
                "code.py",
                "from pathlib import Path\n\
                 from promptflow.core import AzureOpenAIModelConfiguration, Prompty\n\
                 class Asker:\n\
                \x20   def __init__(self, model_config: AzureOpenAIModelConfiguration):\n\
                \x20       self.config = model_config\n\
                \x20       self.prompty = Prompty.load(Path(__file__).parent / 'ask.prompty', model={'configuration': model_config})\n\
                \x20   def __call__(self, topic: str = 'dogs') -> dict:\n\
                \x20       return {'text': self.prompty(topic=topic), 'endpoint': self.config.azure_endpoint}\n",
            ),
            (
                "ask.prompty",
                "---\nname: ask\nmodel:\n  api: chat\n  configuration:\n    type: azure_openai\n    azure_deployment: gpt\n  parameters:\n    max_tokens: 9\ninputs:\n  topic:\n    \
                 type: string\n---\nsystem:\nYou are brief.\n\nuser:\nof {{topic}}\n",
            ),
        ],
    );
    let open = flow(
        &folder.path().join("open"),
        &[
            ("flow.flex.yaml", "entry: code:main\n"),
            (
                "code.py",
                &format!(
                    "from pathlib import Path\n\
                     from promptflow.core import Prompty\n\
                     def main(topic: str = 'birds') -> str:\n\
                    \x20   return Prompty.load(Path(__file__).parent / 'ask.prompty')(topic=topic)\n\
                     # {open_ai}\n"
                ),
            ),
            (
                "ask.prompty",
                &format!(
                    "---\nname: ask\nmodel:\n  api: chat\n  configuration:\n    type: openai\n    model: gpt\n    connection: {open_ai}\n  parameters:\n    \
                     max_tokens: 9\n\
                     inputs:\n  topic:\n    type: string\n---\nsystem:\nYou are brief.\n\nuser:\nof {{{{topic}}}}\n"
                ),
            ),
        ],
    );
    let mut gotten = Vec::new();
    let config = json!({ "connection": azure, "azure_deployment": "gpt" });
    for (it, wish) in [
        (&dag, RunWish::default()),
        (
            &flex,
            RunWish {
                init: [("model_config".to_owned(), config)].into(),
                ..RunWish::default()
            },
        ),
        (&open, RunWish::default()),
    ] {
        let key = key(&unique("provider"));
        machine.start(&key, 1, it);
        let network = AgentCommand::Network {
            revision: 1,
            network: Network::None,
            allow_hosts: vec![address.trim_start_matches("http://").to_owned()],
        };
        machine.tell(&key, 1, &network);
        gotten.push(output(&machine.run(&key, 1, &unique("provider"), it, wish)));
        machine.remove(&key, 1);
    }
    assert_eq!(
        gotten,
        [
            json!({ "text": "echo: of cats" }),
            json!({ "text": "echo: of dogs", "endpoint": address }),
            json!({ "output": "echo: of birds" }),
        ]
    );
    let asked = provider.asked();
    let models: Vec<&str> = asked.iter().map(|each| each["model"].as_str().unwrap()).collect();
    // The first was turned away once.
    assert_eq!(models, ["busy-1", "busy-1", "gpt", "gpt"]);
    assert!(asked.iter().all(|each| each["has_key"] == true), "{asked:?}");
}

fn a_line_that_its_provider_turns_away_is_run_again_and_that_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let provider = Provider::start("word-of-nobody");
    let name = unique("busy");
    let address = &provider.address;
    keep(
        &machine,
        &name,
        &format!("type: open_ai\nbase_url: {address}/v1\napi_key: word-of-nobody\nbrokered: true\n"),
    );
    let asking = |head: &str| {
        format!(
            "from openai import OpenAI\nfrom promptflow.connections import ConnectionProvider\n{head}(model: str) -> str:\n\
            \x20   to = ConnectionProvider.get_instance().get('{name}')\n\
            \x20   client = OpenAI(base_url=to.base_url, api_key=to.api_key, max_retries=0)\n\
            \x20   asked = [{{'role': 'user', 'content': 'x'}}]\n\
            \x20   return client.chat.completions.create(model=model, messages=asked).choices[0].message.content\n"
        )
    };
    let dag = flow(
        &folder.path().join("dag"),
        &[
            (
                "flow.dag.yaml",
                "inputs:\n  model:\n    type: string\noutputs:\n  text:\n    type: string\n    reference: ${ask.output}\n\
                 nodes:\n- name: ask\n  type: python\n  source:\n    type: code\n    path: ask.py\n  inputs:\n    model: ${inputs.model}\n",
            ),
            ("ask.py", &asking("from promptflow.core import tool\n@tool\ndef ask")),
        ],
    );
    let flex = flex(&folder.path().join("flex"), &asking("def main"));
    let mut gotten = Vec::new();
    for (it, models) in [
        (&dag, ["gpt", "busy-2", "busy-90"]),
        (&flex, ["gpt", "busy-3", "busy-91"]),
    ] {
        let data = it.join("data.jsonl");
        fs::write(
            &data,
            models.map(|model| json!({ "model": model }).to_string()).join("\n"),
        )
        .unwrap();
        let key = key(&unique("busy"));
        machine.start(&key, 1, it);
        let run = unique("busy");
        let wish = RunWish {
            data: Some(data.display().to_string()),
            ..RunWish::default()
        };
        let result = machine.run(&key, 1, &run, it, wish);
        gotten.push((result.lines, result.failed_lines, result.retried));
        assert_eq!(
            result.outputs.iter().filter(|output| !output.is_null()).count(),
            2,
            "{result:#?}"
        );
        let failure = result.failure.unwrap();
        assert!(failure.message.contains("RateLimitError"), "{failure}");
        assert!(
            machine
                .output(&run)
                .contains("its model provider turned it away; it is run again in 0.0 s")
        );
        machine.remove(&key, 1);
    }
    // As often as it takes, and five times at the most.
    assert_eq!(gotten, [(3, 1, 2 + 5), (3, 1, 3 + 5)]);
}

/// Asks by a connection of each kind that a broker holds, streamed and not, and tells all that it can reach of their keys: its variables, its
/// connections, its arguments, and the memory of each process that it may read.
const PRYING: &str = r#"
import hashlib, json, os, re, time, urllib.error, urllib.request
from pathlib import Path
from openai import AzureOpenAI, OpenAI
from promptflow.client import PFClient
from promptflow.connections import ConnectionProvider

def memories(digest, length):
    found, looked_at = [], 0
    for pid in [each for each in os.listdir("/proc") if each.isdigit()]:
        try:
            maps, memory = open(f"/proc/{pid}/maps").read(), open(f"/proc/{pid}/mem", "rb", 0)
        except OSError:
            continue
        looked_at += 1
        for line in maps.splitlines():
            start, _, end = line.split()[0].partition("-")
            if " rw" not in line:
                continue
            try:
                memory.seek(int(start, 16))
                data = memory.read(int(end, 16) - int(start, 16))
            except (OSError, ValueError, OverflowError):
                continue
            for match in re.finditer(b"hidden-broker-", data):
                if hashlib.sha256(data[match.start() : match.start() + length]).hexdigest() == digest:
                    found.append(pid)
    return found, looked_at

def ask(url):
    try:
        return urllib.request.urlopen(url, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__

def main() -> dict:
    about = json.loads(Path("about.json").read_text())
    azure, plain, serverless = [ConnectionProvider.get_instance().get(name) for name in about["names"]]
    clients = {
        "azure": AzureOpenAI(azure_endpoint=azure.api_base, api_key=azure.api_key, api_version=azure.api_version),
        "plain": OpenAI(base_url=plain.base_url, api_key=plain.api_key),
        "serverless": OpenAI(base_url=serverless.api_base + "/v1", api_key=serverless.api_key),
    }
    answers = {}
    for name, client in clients.items():
        asked = [{"role": "user", "content": f"of {name}"}]
        answers[name] = client.chat.completions.create(model="gpt", messages=asked).choices[0].message.content
        stream = client.chat.completions.create(model="gpt", messages=asked, stream=True)
        answers[name] += " | " + "/".join(chunk.choices[0].delta.content for chunk in stream)
    embedding = clients["azure"].embeddings.create(model="e", input="four").data[0].embedding
    found, looked_at = memories(about["digest"], about["length"])
    texts = [dict(os.environ), *[vars(each) for each in (azure, plain, serverless)], open("/proc/self/cmdline").read()]
    texts += [vars(PFClient().connections.get(name, with_secrets=True)) for name in about["names"]]
    print("all of it:", texts)
    Path("address").write_text(azure.api_base)
    until = time.monotonic() + 60
    while not os.path.exists("go") and time.monotonic() < until:
        time.sleep(0.005)
    foreign = ask(about["foreign"]) if "foreign" in about else None
    return {"answers": answers, "embedding": embedding, "found": found, "looked": looked_at > 0, "key": os.environ["KEY"], "foreign": foreign}
"#;

fn a_key_that_a_broker_holds_is_in_nothing_that_a_flow_can_reach() {
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let secret = format!("hidden-broker-{}", unique("key"));
    let provider = Provider::start(&secret);
    let address = &provider.address;
    // The state folder outlives the test.
    let names = ["azure", "plain", "serverless"].map(unique);
    for (name, document) in names.iter().zip([
        format!("type: azure_open_ai\napi_base: {address}/\n"),
        format!("type: open_ai\nbase_url: {address}/v1\n"),
        format!("type: serverless\napi_base: {address}\n"),
    ]) {
        keep(
            &machine,
            name,
            &format!("{document}api_key: {secret}\nbrokered: true\n"),
        );
    }
    let digest = hex(&Sha256::digest(&secret));
    let mut about = json!({ "names": names, "digest": digest, "length": secret.len() });
    let lay = |name: &str, about: &Value| {
        let it = flex(&folder.path().join(name), PRYING);
        fs::write(it.join("about.json"), about.to_string()).unwrap();
        it
    };
    let wish = || RunWish {
        environment_variables: [("KEY".to_owned(), format!("${{{}.api_key}}", names[0]))].into(),
        ..RunWish::default()
    };
    let view = |key: &str, run: &str| {
        let session = machine.state.join("sessions").join(key);
        session.join("1/work").join(run).join("flow")
    };
    // No network at all, and a broker all the same.
    let it = lay("first", &about);
    let first = key(&unique("broker"));
    machine.start(&first, 1, &it);
    let network = |network| AgentCommand::Network {
        revision: 1,
        network,
        allow_hosts: Vec::new(),
    };
    machine.tell(&first, 1, &network(Network::None));
    let run = unique("broker");
    machine.begin_run(&first, 1, &run, &it, wish());
    let way = machine
        .world
        .wait("the flow's answers", Duration::from_secs(60), |world| {
            let reports = world.agent_reports.lock().unwrap();
            let ended = reports.iter().find_map(|(_, body)| match &body.report {
                AgentReport::RunDone { run: done, result, .. } if *done == run => Some(result.clone()),
                _ => None,
            });
            assert!(ended.is_none(), "it ended early: {ended:?}");
            let written = fs::read_to_string(view(&first, &run).join("address")).unwrap_or_default();
            (!written.is_empty()).then_some(written)
        });
    assert!(way.starts_with("http://192.0.0.1/"), "{way}");
    let (inside, _) = memories_with(&format!("/sessions/{first}/"), &secret);
    assert_eq!(inside, Vec::<i32>::new());
    // Another session, while that one's way is open; and one that has this machine's network.
    about["foreign"] = json!(format!("{way}openai/deployments/gpt"));
    let mut others = Vec::new();
    for (wanted, begins) in [
        (Network::Internet, "http://192.0.0.1/"),
        (Network::Open, "http://127.0.0.1:"),
    ] {
        let it = lay(&unique("other"), &about);
        fs::write(it.join("go"), "").unwrap();
        let other = key(&unique("broker"));
        machine.start(&other, 1, &it);
        machine.tell(&other, 1, &network(wanted));
        let run = unique("broker");
        let result = machine.run(&other, 1, &run, &it, wish());
        others.push((output(&result), machine.output(&run)));
        let file = machine.state.join("runs").join(&run).join("files/address");
        let written = fs::read_to_string(file).unwrap();
        assert!(written.starts_with(begins), "{written}");
        // The open one asks by its own broker what it was told of the first.
        about["foreign"] = json!(format!(
            "{}{}",
            written.trim_end_matches('/').rsplit_once('/').unwrap().0,
            "/0123/openai"
        ));
        machine.remove(&other, 1);
    }
    fs::write(view(&first, &run).join("go"), "").unwrap();
    let result = machine.ended_run(&first, 1, &run);
    let expected = |foreign: Value| {
        json!({
            "answers": {
                "azure": "echo: of azure | echo: /of /azure ",
                "plain": "echo: of plain | echo: /of /plain ",
                "serverless": "echo: of serverless | echo: /of /serverless ",
            },
            "embedding": [4.0, 0.5], "found": [], "looked": true, "key": "held-by-the-broker", "foreign": foreign,
        })
    };
    assert_eq!(output(&result), expected(Value::Null));
    for (output, _) in &others {
        assert_eq!(*output, expected(json!(404)));
    }
    for said in others.iter().map(|(_, said)| said).chain([&machine.output(&run)]) {
        assert!(said.contains("all of it:") && !said.contains(&secret), "{said}");
    }
    are_written_nowhere(&machine, folder.path(), &[&secret]);
    machine.remove(&first, 1);
    let asked = provider.asked();
    assert_eq!(asked.len(), 3 * 7);
    assert!(asked.iter().all(|each| each["has_key"] == true), "{asked:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn a_connection_that_is_not_there_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    // The state folder outlives the test.
    let (kept, other) = (unique("kept"), unique("other"));
    let it = flow(
        &folder.path().join("flow"),
        &[
            (
                "flow.dag.yaml",
                "inputs: {}\noutputs:\n  text:\n    type: string\n    reference: ${ask.output}\nnodes:\n- name: ask\n  type: python\n  source:\n\
                \x20   type: code\n    path: ask.py\n  inputs:\n    connection: OTHER\n    # or KEPT\n",
            ),
            (
                "ask.py",
                "from promptflow.core import tool\nfrom promptflow.connections import OpenAIConnection\n\n@tool\ndef ask(connection: \
                 OpenAIConnection) -> str:\n    return connection.base_url\n",
            ),
        ],
    );
    keep(
        &machine,
        &kept,
        "type: open_ai\nbase_url: http://here\napi_key: hidden-word\n",
    );
    let file = it.join("flow.dag.yaml");
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("OTHER", &other)
        .replace("KEPT", &kept);
    fs::write(&file, text).unwrap();
    let key = key(&unique("no-connection"));
    machine.start(&key, 1, &it);
    let result = machine.run(&key, 1, &unique("no-connection"), &it, RunWish::default());
    let failure = result.failure.clone().unwrap();
    assert_eq!(failure.error, "Connection.None", "{failure}");
    assert!(
        failure.message.starts_with(&format!(
            "there is no connection '{other}', which the flow names; there are {kept}."
        )),
        "{failure}"
    );
    keep(
        &machine,
        &other,
        "type: open_ai\nbase_url: http://there\napi_key: hidden-word\n",
    );
    let result = machine.run(&key, 1, &unique("no-connection"), &it, RunWish::default());
    assert_eq!(output(&result), json!({ "text": "http://there" }));
    machine.remove(&key, 1);
}

/// A session that installs these lines and runs a flow which gives back one expression: the failure of the install, or what the run gave.
fn installed(machine: &Machine, name: &str, requirements: &str, code: &str) -> Result<Value, contract::Failure> {
    let folder = tempfile::tempdir().unwrap();
    let it = flex(folder.path(), code);
    fs::write(it.join("requirements.txt"), requirements).unwrap();
    let key = key(&unique(name));
    machine.launch(&key, 1, &it);
    let failure = machine.install(&key, 1, &unique(name), &it);
    let result = match failure {
        Some(failure) => Err(failure),
        None => Ok(output(&machine.run(&key, 1, &unique(name), &it, RunWish::default()))),
    };
    machine.remove(&key, 1);
    result
}

fn no_install_takes_away_what_the_base_image_loads() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    let line = format!("--extra-index-url {}", index.url());
    let asks = "from importlib.metadata import version\n\
                def main(name: str) -> str:\n    return version(name)\n";
    let it = flex(&folder.path().join("it"), asks);
    let key = key(&unique("base"));
    machine.launch(&key, 1, &it);
    let install = |requirements: &str| {
        fs::write(it.join("requirements.txt"), requirements).unwrap();
        machine.install(&key, 1, &unique("base"), &it)
    };
    // What needs another version of what promptflow-tools needs names both sides.
    let failure = install("openai==0.28.1\n").expect("it does not fit");
    assert_eq!(failure.error, "Install.Conflict", "{failure}");
    for side in ["promptflow-tools", "openai==0.28.1"] {
        assert!(failure.message.contains(side), "{side}: {failure}");
    }
    // What puts a file of its own in the place of one of the base image's.
    let text = "raise ImportError('another one')\n";
    index.add_file("pfsbreaks", "1.0", &[], "promptflow/tools/__init__.py", text);
    let failure = install(&format!("{line}\npfsbreaks\n")).expect("it cannot be imported");
    let begins = "Install.Conflict: requirements.txt:2: promptflow.tools of the base image promptflow cannot be imported beside pfsbreaks 1.0: \
                  ImportError: another one. Take another version in the requirements, and start again. The whole output is in ";
    assert!(failure.to_string().starts_with(begins), "{failure}");
    // An index that comes first has an old version of the base image's own package, and what is wanted changes another one.
    index.add("promptflow-tools", "0.0.1", &[]);
    index.add("pfsold", "1.0", &["certifi<2024"]);
    let failure = install(&format!("{line}\npfsold\n"));
    assert_eq!(failure, None);
    let version = |name: &str| {
        let wish = RunWish {
            inputs: [("name".to_owned(), json!(name))].into(),
            ..RunWish::default()
        };
        output(&machine.run(&key, 1, &unique("base"), &it, wish))["output"].clone()
    };
    assert_eq!(version("certifi"), json!("2023.11.17"));
    assert_ne!(version("promptflow-tools"), json!("0.0.1"));
    machine.remove(&key, 1);
}

fn a_find_links_line_that_names_a_folder_of_the_host_is_refused() {
    let machine = Machine::new(&state());
    let secret = tempfile::tempdir().unwrap();
    let index = Index::serve();
    let look = format!(
        "def attack():\n    import os\n    return 'seen = ' + repr(os.path.exists({:?}))\n",
        secret.path()
    );
    index.add_source("look", "1.0", &[], &look);
    let links = format!(
        "{}\n--find-links http://127.0.0.1:9/,{}\nlook\n",
        index.line(),
        secret.path().display()
    );
    let failure = installed(&machine, "links", &links, "").unwrap_err();
    assert_eq!(
        failure.to_string(),
        "Install.BadOption: requirements.txt:2: --find-links takes one URL, without commas and spaces. Correct it, and start again."
    );
    let code = "import look\ndef main() -> str:\n    return str(look.seen)\n";
    let seen = installed(&machine, "look", &format!("{}\nlook\n", index.line()), code);
    assert_eq!(seen.unwrap()["output"], "False");
}

/// Writes into all that it can write, above all into what is called after the victim.
const WRITE: &str = r#"
def attack():
    touched = []
    tops = [entry.path for entry in os.scandir('/') if entry.name not in ('proc', 'sys', 'dev')]
    tops += [os.environ.get(name, '/') for name in ('UV_CACHE_DIR', 'HOME', 'TMPDIR')]
    for top in tops:
        for folder, _, names in os.walk(top):
            if os.path.abspath(folder).startswith(os.getcwd()):
                continue
            for name in names:
                path = os.path.join(folder, name)
                if 'victim' in path and name.endswith(('.py', '.whl', '.msgpack', '.http', '.rev')):
                    try:
                        os.chmod(path, 0o644)
                        open(path, 'w').write("version = 'poisoned'\n")
                        touched.append(path)
                    except OSError:
                        pass
            # Its own environment reads each file of this folder, and would not load.
            if 'jsonschema_specifications' in folder:
                continue
            try:
                open(os.path.join(folder, 'victim.py'), 'w').write("version = 'poisoned'\n")
                touched.append(folder)
            except OSError:
                pass
    return 'touched = ' + repr(touched)
"#;

fn a_build_script_that_writes_everywhere_changes_no_other_install() {
    let machine = Machine::new(&state());
    let index = Index::serve();
    index.add("victim", "1.0", &[]);
    // Its build has the victim in its cache.
    index.add_source("evil", "1.0", &["victim"], WRITE);
    let code = "import evil\ndef main() -> str:\n    return str(len(evil.touched))\n";
    let touched = installed(&machine, "evil", &format!("{}\nevil\n", index.line()), code).unwrap();
    let touched: usize = touched["output"].as_str().unwrap().parse().unwrap();
    assert!(touched > 3, "the attack wrote to {touched} places only");
    let locked = format!(
        "{}\nvictim==1.0 --hash=sha256:{}\n",
        index.line(),
        index.hash("victim", "1.0")
    );
    let code = "import victim\ndef main() -> str:\n    return victim.version + ' ' + victim.__file__\n";
    let got = installed(&machine, "victim", &locked, code).unwrap();
    let got = got["output"].as_str().unwrap();
    assert!(got.starts_with("1.0 ") && got.ends_with("/victim/__init__.py"), "{got}");
}

/// Puts a link in the place of the lock that the resolver is about to write, or has written.
const SWAP: &str = r#"
def attack():
    for pid in filter(str.isdigit, os.listdir('/proc')):
        words = open(f'/proc/{pid}/cmdline').read().split('\0')
        if '--output-file' in words:
            lock = words[words.index('--output-file') + 1]
            if os.path.lexists(lock):
                os.unlink(lock)
            os.symlink('SECRET', lock)
    return ''
"#;

fn a_build_script_that_swaps_its_lock_for_a_link_shows_no_file_of_the_host() {
    let machine = Machine::new(&state());
    let index = Index::serve();
    // The build has a /tmp of its own, so that uv can write through the link, and the host has its secret there.
    let secret = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let word = unique("s3cret");
    fs::write(secret.path(), format!("{word}==1.0\n")).unwrap();
    index.add_source(
        "swap",
        "1.0",
        &[],
        &SWAP.replace("SECRET", &secret.path().display().to_string()),
    );
    let result = installed(
        &machine,
        "swap",
        &format!("{}\nswap\n", index.line()),
        "def main() -> str:\n    return 'x'\n",
    );
    println!("the swapped lock: {result:?}");
    if let Err(failure) = result {
        assert_eq!(failure.error, "Install.Tampered", "{failure}");
    }
    assert_eq!(fs::read_to_string(secret.path()).unwrap(), format!("{word}==1.0\n"));
    let mut folders = vec![machine.state.join("environments"), machine.state.join("logs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && entry.file_name() != "lib" {
                folders.push(entry.path());
            } else if kind.is_file() {
                let text = fs::read(entry.path()).unwrap_or_default();
                assert!(
                    !String::from_utf8_lossy(&text).contains(&word),
                    "{}",
                    entry.path().display()
                );
            }
        }
    }
}

/// Looks for a word wherever a process can look; ends the build where it finds it.
const LOOK_FOR: &str = r#"
def attack():
    secret = 'TERCES'[::-1].encode()
    found, looked = [], 0
    def look(place, data):
        nonlocal looked
        looked += 1
        if secret in data:
            found.append(place)
    for name, value in os.environb.items():
        look(name, value)
    for top in (entry.path for entry in os.scandir('/') if entry.name not in ('usr', 'lib', 'lib64', 'bin', 'sbin', 'sys', 'dev')):
        for folder, names, files in os.walk(top):
            names[:] = [name for name in names if name not in ('task', 'net', 'lib') and os.path.join(folder, name) != os.getcwd()]
            for name in files:
                path = os.path.join(folder, name)
                try:
                    if name == 'kmsg' or name == 'kcore' or not os.path.isfile(path):
                        continue
                    with open(path, 'rb') as file:
                        look(path, file.read(1 << 22))
                except OSError:
                    pass
    if found:
        raise RuntimeError('found in ' + ' '.join(map(str, found)))
    return 'looked = ' + repr(looked)
"#;

fn a_build_script_finds_no_credential_wherever_it_looks() {
    let machine = Machine::new(&state());
    let index = Index::serve();
    let secret = unique("t0ken");
    let reversed: String = secret.chars().rev().collect();
    index.add_source("seeker", "1.0", &[], &LOOK_FOR.replace("TERCES", &reversed));
    let mut feeds = environments::private::Feeds::default();
    feeds.set(&index.host(), Some(&secret));
    feeds.write(&machine.state).unwrap();
    index.lock(&format!("pfsession:{secret}"));
    let code = "import seeker\ndef main() -> str:\n    return str(seeker.looked)\n";
    let line = index.line().replace("http://", "http://{private}@");
    let looked = installed(&machine, "seeker", &format!("{line}\nseeker\n"), code);
    feeds.set(&index.host(), None);
    feeds.write(&machine.state).unwrap();
    let looked: usize = looked.unwrap()["output"].as_str().unwrap().parse().unwrap();
    assert!(looked > 50, "it looked at {looked} places only");
    // A URL of the author's own with a credential is no other.
    let line = index.line().replace("http://", &format!("http://pfsession:{secret}@"));
    let looked = installed(
        &machine,
        "seeker",
        &format!("{line}\n--trusted-host localhost\nseeker\n"),
        code,
    );
    assert!(looked.is_ok(), "{looked:?}");
}

fn the_credential_of_a_private_feed_reaches_the_feed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    let secret = format!("se/cret+{}", unique("token"));
    index.lock(&format!("pfsession:{secret}"));
    index.add("alpha", "1.0", &[]);
    let it = flex(
        &folder.path().join("flow"),
        "import os, importlib.metadata\ndef main() -> list:\n    return [importlib.metadata.version('alpha'), str(dict(os.environ))]\n",
    );
    let private = index.line().replace("http://", "http://{private}@");
    fs::write(it.join("requirements.txt"), private + "\nalpha\n").unwrap();
    let key = key(&unique("private"));
    machine.launch(&key, 1, &it);
    let failure = machine.install(&key, 1, &unique("without"), &it).unwrap();
    assert!(
        failure.error == "Install.PrivateFeed"
            && failure.message.starts_with("requirements.txt:1: ")
            && failure.message.contains("pfsession private 127.0.0.1:"),
        "{failure}"
    );
    let mut feeds = environments::private::Feeds::default();
    feeds.set(&index.host(), Some("wrong"));
    feeds.write(&machine.state).unwrap();
    let failure = machine.install(&key, 1, &unique("wrong"), &it).unwrap();
    assert_eq!(failure.error, "Install.IndexRefused", "{failure}");
    feeds.set(&index.host(), Some(&secret));
    feeds.write(&machine.state).unwrap();
    assert_eq!(machine.install(&key, 1, &unique("private"), &it), None);
    let seen = output(&machine.run(&key, 1, &unique("private"), &it, RunWish::default()));
    assert_eq!(seen["output"][0], "1.0");
    assert!(!seen.to_string().contains("cret"), "{seen}");
    feeds.set(&index.host(), None);
    feeds.write(&machine.state).unwrap();
    // Not in a report, a process, a file: logs, locks, environments and uv's cache are all below the state folder.
    let said = machine
        .world
        .agent_reports
        .lock()
        .unwrap()
        .iter()
        .map(|(signed, _)| signed.body.clone())
        .collect::<String>();
    let encoded = secret.replace('/', "%2F").replace('+', "%2B");
    for text in [&secret, &encoded] {
        assert!(!said.contains(text.as_str()));
        assert_eq!(processes_with(text), Vec::<String>::new());
    }
    let mut folders = vec![machine.state.clone(), folder.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_new(&entry) {
                files += 1;
                let bytes = fs::read(entry.path()).unwrap_or_default();
                let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
                assert!(
                    !holds(&secret) && !holds(&encoded),
                    "{} holds it",
                    entry.path().display()
                );
            }
        }
    }
    assert!(files > 20, "{files} files were looked at");
    machine.remove(&key, 1);
}

/// Whether a file was written lately: what is older cannot hold what is newer.
fn is_new(entry: &fs::DirEntry) -> bool {
    use std::os::unix::fs::MetadataExt;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    entry
        .metadata()
        .is_ok_and(|about| about.ctime() as u64 + 600 > now.as_secs())
}

fn an_edit_counts_in_the_next_run_and_what_a_run_writes_goes_to_its_own_folder() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let shared = folder.path().join("shared");
    flow(&shared, &[("word.txt", "one")]);
    let it = flow(
        &folder.path().join("flow"),
        &[
            (
                "flow.flex.yaml",
                "entry: code:main\nadditional_includes:\n- ../shared\n",
            ),
            (
                "code.py",
                "import pathlib\ndef main() -> str:\n    word = pathlib.Path('shared/word.txt').read_text()\n    pathlib.Path('made/deep').mkdir(parents=True)\n    pathlib.Path('made/deep/it.txt').write_text(word)\n    pathlib.Path('code.py').write_text('spoilt')\n    print('said', word)\n    return word\n",
            ),
        ],
    );
    let key = key(&unique("edit"));
    machine.start(&key, 1, &it);
    let (first, second) = (unique("edit"), unique("edit"));
    let result = machine.run(&key, 1, &first, &it, RunWish::default());
    assert_eq!(output(&result), json!({ "output": "one" }));
    fs::write(shared.join("word.txt"), "two").unwrap();
    assert_eq!(
        output(&machine.run(&key, 1, &second, &it, RunWish::default())),
        json!({ "output": "two" })
    );
    machine.remove(&key, 1);
    // After the session's end.
    let kept = Path::new(&result.folder);
    assert_eq!(fs::read_to_string(kept.join("files/made/deep/it.txt")).unwrap(), "one");
    assert_eq!(fs::read_to_string(kept.join("files/code.py")).unwrap(), "spoilt");
    assert!(!kept.join("files/shared").exists());
    assert!(fs::read_to_string(kept.join("logs.txt")).unwrap().contains("said one"));
    assert!(machine.output(&first).contains("said one"));
    assert!(fs::read_to_string(it.join("code.py")).unwrap().contains("pathlib"));
}

const LOOK: &str = r#"
import os, pathlib, socket, ctypes, subprocess
def readable(path):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1)
        return True
    except OSError:
        return False
def main() -> dict:
    status = dict(line.split(':\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\t' in line)
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        'parent': os.getppid(), 'uid': os.getuid(), 'pids': sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[:2],
        'caps': [status[name] for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')], 'no_new_privs': status['NoNewPrivs'], 'seccomp': status['Seccomp'],
        'root': sorted(os.listdir('/')), 'seen': [path for path in PATHS if readable(path)],
        'write': [path for path in ('/', '/usr', '/etc', PREFIX, '/proc/sys/kernel') if os.access(path, os.W_OK)],
        'unshare': libc.unshare(0x10000000), 'errno': ctypes.get_errno(), 'mount': libc.mount(b'none', b'/tmp', b'tmpfs', 0, None),
        'ptrace': libc.ptrace(16, 1, 0, 0), 'memory': readable('/proc/1/mem'), 'environ': readable('/proc/1/environ'),
        'sub': subprocess.run(['/bin/sh', '-c', 'id -u'], capture_output=True, text=True).stdout.strip(),
        'host': socket.gethostname(), 'variables': sorted(os.environ),
    }
"#;

fn a_flow_sees_its_own_folder_and_nothing_of_the_machine() {
    let state = state();
    let home = std::env::var("HOME").unwrap();
    let secret = tempfile::NamedTempFile::new_in(&home).unwrap();
    let hidden = [
        secret.path().display().to_string(),
        format!("{home}/.ssh"),
        format!("{home}/.cargo"),
        "/etc/shadow".into(),
        "/var".into(),
        "/sys".into(),
        "/boot".into(),
        env!("CARGO_MANIFEST_DIR").into(),
        state.join("sessions").join("other").display().to_string(),
        state.join("warm").display().to_string(),
        state.join("logs").display().to_string(),
        state.join("runs").display().to_string(),
        state.join("tools/downloads").display().to_string(),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let probed = runtime.block_on(sandbox::probe(&state)).unwrap();
    println!("sessions here are kept apart by {probed}");
    if probed.tier == sandbox::Tier::D {
        return println!("no sandbox can be made here, so there is nothing to look at");
    }
    let code = LOOK
        .replace("PATHS", &format!("{hidden:?}"))
        .replace("PREFIX", "os.path.dirname(os.__file__)");
    let seen = output(&once("look", &code));
    // Outside its namespace of processes it would be 0.
    assert!(
        seen["parent"].as_u64().is_some_and(|parent| (1..100).contains(&parent)),
        "{seen:#}"
    );
    assert_eq!(seen["pids"][0], 1, "{seen:#}");
    assert_eq!(seen["uid"], 1000, "{seen:#}");
    assert_eq!(seen["caps"], json!(vec!["0000000000000000"; 5]), "{seen:#}");
    assert_eq!(
        (&seen["no_new_privs"], &seen["seccomp"]),
        (&json!("1"), &json!("2")),
        "{seen:#}"
    );
    assert_eq!(seen["seen"], json!([]), "{seen:#}");
    assert_eq!(seen["write"], json!([]), "{seen:#}");
    assert_eq!(
        (&seen["unshare"], &seen["errno"], &seen["mount"], &seen["ptrace"]),
        (&json!(-1), &json!(1), &json!(-1), &json!(-1)),
        "{seen:#}"
    );
    assert_eq!(
        (&seen["memory"], &seen["environ"]),
        (&json!(false), &json!(false)),
        "{seen:#}"
    );
    assert_eq!(seen["sub"], "1000", "{seen:#}");
    assert_eq!(seen["host"], "session", "{seen:#}");
    for name in seen["variables"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        assert!(
            !name.starts_with("AWS_") && !name.starts_with("CARGO") && name != "PYTHONUNBUFFERED",
            "{name} is in the flow's variables"
        );
    }
}

const GREEDY: &str = r#"
import ctypes, os, time
def main(mb: int = 1, seconds: float = 0, threads: int = 0) -> dict:
    sum(bytearray(int(mb) << 20)[:: 1 << 12])
    # Two processes at once.
    begun, child = sum(os.times()[:4]), os.fork()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    used = sum(os.times()[:4]) - begun
    # Threads that are not Python's, as thousands of these wait for each other.
    libc, attributes, alive = ctypes.CDLL(None), ctypes.create_string_buffer(64), 0
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(1 << 16))
    while alive < threads and not libc.pthread_create(ctypes.byref(ctypes.c_ulong()), attributes, libc.pause, None):
        alive += 1
    return {'processors': used / seconds if seconds else 0, 'threads': alive}
"#;

fn a_session_is_held_to_its_vm_size_where_groups_can_be_made_and_says_so_where_not() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), GREEDY);
    let key = key(&unique("size"));
    machine.create_compute("c1");
    let sized = contract::Settings {
        size: "Standard_B1s".into(),
        ..settings(&it)
    };
    let mut request = Machine::launch_request(&key, 1, "c1", &it);
    let ComputeRequest::LaunchSession { settings, .. } = &mut request else {
        unreachable!()
    };
    *settings = sized.clone();
    machine.ask(request);
    let operation = unique("size");
    let command = AgentCommand::Install {
        operation: operation.clone(),
        attempt: 1,
        settings: sized,
        lock: None,
        resolve: false,
    };
    machine.tell(&key, 1, &command);
    assert_eq!(machine.ended_install(&key, 1, &operation), None);
    let isolation = installation(&machine, &key).isolation.unwrap();
    println!("{isolation}");
    let small = |mb: u32| RunWish {
        inputs: BTreeMap::from([("mb".into(), json!(mb))]),
        ..RunWish::default()
    };
    output(&machine.run(&key, 1, &unique("little"), &it, small(64)));
    let groups = machine.state.join("sessions").join(&key).join("1/groups.json");
    let groups: Vec<std::path::PathBuf> = serde_json::from_slice(&fs::read(groups).unwrap_or(b"[]".to_vec())).unwrap();
    match isolation.tier {
        sandbox::Tier::A => {
            assert!(
                !isolation.not_held.iter().any(|lack| lack.contains("cgroup")),
                "{isolation}"
            );
            let limits: Vec<String> = [
                "cpu.cfs_quota_us",
                "cpu.max",
                "memory.limit_in_bytes",
                "memory.max",
                "pids.max",
            ]
            .iter()
            .filter_map(|file| {
                groups
                    .iter()
                    .find_map(|group| fs::read_to_string(group.join(file)).ok())
            })
            .map(|text| text.trim().to_owned())
            .collect();
            assert!(
                limits == ["100000", "1073741824", "4096"] || limits == ["100000 100000", "1073741824", "4096"],
                "{limits:?}"
            );
            // It has one processor, and no more processes and threads than 4096.
            let wish = RunWish {
                inputs: BTreeMap::from([("seconds".into(), json!(2)), ("threads".into(), json!(5000))]),
                ..RunWish::default()
            };
            let seen = output(&machine.run(&key, 1, &unique("busy"), &it, wish));
            println!("{seen}");
            assert!(seen["processors"].as_f64().unwrap() < 1.3, "{seen}");
            assert!((2000..4096).contains(&seen["threads"].as_u64().unwrap()), "{seen}");
            let result = machine.run(&key, 1, &unique("much"), &it, small(1500));
            let failure = result.failure.unwrap().to_string();
            let begins = "Run.OutOfMemory: The run needed more memory than the session's VM size gives. Take a larger one, or give the flow less at \
                          once, and run again.";
            assert!(failure.starts_with(begins), "{failure}");
            // So is that of a child, whose shell says 137.
            let much = ["sh", "-c", "python -c 'len(b\"x\" * (1500 << 20))'"];
            let wish = RunWish {
                command: much.map(str::to_owned).to_vec(),
                ..RunWish::default()
            };
            let result = machine.run(&key, 1, &unique("child"), &it, wish);
            let failure = result.failure.unwrap().to_string();
            assert!(
                failure.starts_with(begins) && result.exit_code == Some(137),
                "{failure} {:?}",
                result.exit_code
            );
            // The session goes on.
            output(&machine.run(&key, 1, &unique("little"), &it, small(64)));
        }
        _ => {
            println!("no groups can be made here, so there is nothing that could hold it");
            assert!(
                isolation.not_held.iter().any(|lack| lack.starts_with("memory")),
                "{isolation}"
            );
        }
    }
    machine.remove(&key, 1);
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

fn each_tier_holds_what_it_says_as_an_ordinary_user_and_as_root() {
    let root = tiers::is_root();
    let Some(python) = tiers::python_for_all().or_else(|| (!root).then(|| "python3".into())) else {
        return println!("no other user can read the Python of this machine, so there is no such session");
    };
    println!("with {}", python.display());
    // The base image is built once, by whoever runs the tests.
    assert_eq!(once("base", "def main() -> str:\n    return 'there'\n").failure, None);
    let ordinary = tiers::Machine {
        ordinary: root,
        ..tiers::Machine::default()
    };
    let mut machines = vec![
        ("B", ordinary),
        (
            "C",
            tiers::Machine {
                barred: true,
                ..ordinary
            },
        ),
    ];
    if root && !tiers::groups_to_delegate().is_empty() {
        machines.push((
            "A",
            tiers::Machine {
                delegated: true,
                ..ordinary
            },
        ));
    } else {
        println!("tier A is not tried as an ordinary user: nothing can be delegated here");
    }
    if root {
        // Tier A as root is what all the other tests are.
        let barred = tiers::Machine {
            barred: true,
            ..tiers::Machine::default()
        };
        machines.push(("C", barred));
    }
    let only = std::env::var("TEST_TIER").ok();
    for (tier, machine) in machines {
        if only.as_ref().is_some_and(|only| only != tier) {
            continue;
        }
        if !root && tier == "B" {
            // What all the other tests are.
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        tiers::state_with_bases_of(&state(), folder.path());
        let output = tiers::again(machine, folder.path(), &["inner", tier]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tier {tier} ({machine:?}): {said}");
        print!("{said}");
    }
}

const INSIDE: &str = r#"
import ctypes, importlib, os, pathlib, subprocess, sys
def tried(what):
    try:
        what()
        return True
    except (OSError, ImportError) as error:
        return False
def main(agent: int, hidden: str) -> dict:
    import alpha
    hidden = hidden.split(':')
    site = pathlib.Path(importlib.import_module('promptflow.core').__file__).parents[2]
    own = pathlib.Path(os.environ.get('PIP_TARGET', site))
    own.joinpath('byhand.py').write_text('word = 1')
    made = own / 'byhand-1.0.dist-info'
    made.mkdir(exist_ok=True)
    made.joinpath('METADATA').write_text('Name: byhand')
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        'alpha': alpha.version, 'uid': os.getuid(),
        'hidden': [path for path in hidden if tried(lambda: os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1))],
        'written': [path for path in hidden + ['/usr/x', str(pathlib.Path(alpha.__file__).parent / 'y')] if path.startswith('/') and not os.path.isdir(path) and tried(lambda: open(path, 'ab'))],
        'home': tried(lambda: pathlib.Path.home().joinpath('mine').write_text('x')), 'tmp': tried(lambda: __import__('tempfile').TemporaryFile()),
        'kill': tried(lambda: os.kill(agent, 0)), 'environ': tried(lambda: open(f'/proc/{agent}/environ').read()),
        'ptrace': libc.ptrace(16, agent, 0, 0), 'unshare': libc.unshare(0x10000000), 'byhand': __import__('byhand').word,
        'child': subprocess.run([sys.executable, '-c', 'import alpha, byhand, os; print(os.getuid())'], capture_output=True, text=True).stdout.strip(),
    }
"#;

/// In a process of its own, which `each_tier_holds_what_it_says_as_an_ordinary_user_and_as_root` starts: a session of this tier holds what it says.
fn a_session_of_tier(tier: &str) {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    index.add("alpha", "1.0", &[]);
    let it = flex(&folder.path().join("flow"), INSIDE);
    fs::write(it.join("requirements.txt"), index.line() + "\nalpha\n").unwrap();
    let key = key(&unique("tier"));
    machine.start(&key, 1, &it);
    let isolation = installation(&machine, &key).isolation.unwrap();
    println!("tier {tier} as user {}: {isolation}", unsafe { libc::getuid() });
    assert_eq!(format!("{:?}", isolation.tier), tier, "{isolation}");
    let (agent, _) = process_ids(&machine, &key, 1);
    let state = machine.state.display();
    // What the user itself may read, all of it.
    let secret = machine.state.join("a-secret");
    fs::write(&secret, "x").unwrap();
    fs::create_dir_all(machine.state.join("sessions/other/1/home")).unwrap();
    let hidden = [
        secret.display().to_string(),
        folder.path().display().to_string(),
        format!("{state}/sessions/other/1/home"),
        format!("{state}/logs"),
        format!("{state}/runs"),
        format!("{state}/tools/downloads"),
        "/etc/hostname".into(),
        "/var".into(),
        "/sys".into(),
    ];
    let wish = RunWish {
        inputs: BTreeMap::from([
            ("agent".into(), json!(agent)),
            ("hidden".into(), json!(hidden.join(":"))),
        ]),
        ..RunWish::default()
    };
    let run = unique("inside");
    let result = machine.run(&key, 1, &run, &it, wish);
    assert_eq!(result.failure, None, "{}", machine.output(&run));
    let seen = output(&result);
    assert_eq!(
        (&seen["alpha"], &seen["byhand"]),
        (&json!("1.0"), &json!(1)),
        "{seen:#}"
    );
    assert_eq!(seen["hidden"], json!([]), "{seen:#}");
    // With a root of its own it writes into that, which is nobody else's; without one it writes nowhere.
    if tier == "C" {
        assert_eq!(seen["written"], json!([]), "{seen:#}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "x");
    let lock = installation(&machine, &key).lock;
    let site = machine.state.join("environments").join(lock).join("lib");
    let planted = fs::read_dir(site)
        .unwrap()
        .flatten()
        .find(|python| python.path().join("site-packages/alpha/y").exists());
    assert!(planted.is_none());
    assert_eq!((&seen["home"], &seen["tmp"]), (&json!(true), &json!(true)), "{seen:#}");
    assert_eq!(
        (&seen["ptrace"], &seen["unshare"]),
        (&json!(-1), &json!(-1)),
        "{seen:#}"
    );
    assert_eq!(seen["environ"], json!(false), "{seen:#}");
    let says = |what: &str| isolation.not_held.iter().any(|lack| lack.contains(what));
    assert_eq!(seen["kill"] == json!(true), says("signals"), "{seen:#} {isolation}");
    let uid = seen["uid"].to_string();
    assert_eq!(seen["child"].as_str(), Some(uid.as_str()), "{seen:#}");
    let by_hand = installation(&machine, &key).by_hand;
    assert_eq!(by_hand.len(), 1, "{by_hand:?}");
    machine.remove(&key, 1);
    machine.driver.let_go();
    assert_eq!(processes_with(&format!("{key}/")), Vec::<String>::new());
}

fn two_sessions_with_one_environment_cannot_see_or_change_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let code = r#"
import os, promptflow.core, tabulate, pathlib, sys
def main(word: str) -> dict:
    site = pathlib.Path(tabulate.__path__[0]).parent if hasattr(tabulate, '__path__') else pathlib.Path(tabulate.__file__).parent
    before = (site / 'planted.py').exists(), pathlib.Path.home().joinpath('note').exists(), os.path.exists('/tmp/note')
    (site / 'planted.py').write_text(f'word = {word!r}')
    target = site / 'promptflow' / '_version.py'
    target.unlink()
    target.write_text(f'VERSION = {word!r}')
    pathlib.Path.home().joinpath('note').write_text(word)
    open('/tmp/note', 'w').write(word)
    import planted
    return {'before': list(before), 'word': planted.word, 'version': target.read_text(), 'site': str(site)}
"#;
    let (a, b) = (
        flex(&folder.path().join("a"), code),
        flex(&folder.path().join("b"), code),
    );
    let (one, two) = (key(&unique("a")), key(&unique("b")));
    machine.start(&one, 1, &a);
    machine.start(&two, 1, &b);
    let first = output(&machine.run(&one, 1, &unique("a"), &a, inputs("word", "mine")));
    let second = output(&machine.run(&two, 1, &unique("b"), &b, inputs("word", "yours")));
    for (seen, word) in [(&first, "mine"), (&second, "yours")] {
        assert_eq!(seen["before"], json!([false, false, false]), "{seen:#}");
        assert_eq!(seen["word"], word);
        assert!(seen["version"].as_str().unwrap().contains(word));
    }
    // The session itself goes on seeing what it wrote; the store does not.
    let again = output(&machine.run(&one, 1, &unique("a"), &a, inputs("word", "mine")));
    assert_eq!(again["before"], json!([true, true, true]));
    let site = Path::new(first["site"].as_str().unwrap());
    assert!(!site.join("planted.py").exists());
    assert!(
        !fs::read_to_string(site.join("promptflow/_version.py"))
            .unwrap()
            .contains("mine")
    );
    assert!(
        fs::metadata(site.join("tabulate/__init__.py"))
            .unwrap()
            .permissions()
            .readonly()
    );
    machine.remove(&one, 1);
    machine.remove(&two, 1);
}

fn nothing_in_a_sandbox_reaches_the_agents_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("it"), &DAG);
    let key = key(&unique("secrets"));
    machine.start(&key, 1, &it);
    let secret = format!("secret-of-{key}-1");
    assert!(
        machine
            .world
            .credentials
            .lock()
            .unwrap()
            .values()
            .any(|known| *known == secret)
    );
    assert_eq!(processes_with(&secret), Vec::<String>::new());
    let mut files = vec![machine.state.clone()];
    while let Some(folder) = files.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && name != "environments" && name != "downloads" {
                files.push(entry.path());
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                assert!(
                    !bytes.windows(secret.len()).any(|part| part == secret.as_bytes()),
                    "{} holds it",
                    entry.path().display()
                );
            }
        }
    }
    machine.remove(&key, 1);
    assert!(
        machine
            .world
            .credentials
            .lock()
            .unwrap()
            .values()
            .all(|known| *known != secret)
    );
    assert!(!machine.world.has_queue(&contract::names::agent_queue(&key, 1)));
}

fn failures_of_runs_have_names_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = folder.path().join("it");
    flex(&it, "def main() -> str:\n    return ''\n");
    let key = key(&unique("fails"));
    machine.start(&key, 1, &it);
    let data = folder.path().join("data.jsonl");
    let run = |code: &str, lines: &str| {
        flex(&it, code);
        fs::write(&data, lines).unwrap();
        let data = (!lines.is_empty()).then(|| data.display().to_string());
        let id = unique("fails");
        let result = machine.run(
            &key,
            1,
            &id,
            &it,
            RunWish {
                data,
                ..RunWish::default()
            },
        );
        let failure = result.failure.clone().unwrap_or_else(|| panic!("{result:#?}"));
        assert_eq!(failure.message.lines().count(), 1, "{failure}");
        assert!(failure.message.contains("logs.txt"), "{failure}");
        (failure, machine.output(&id), result)
    };
    let (failure, said, _) = run("import nowhere_to_be_found\ndef main() -> str:\n    return ''\n", "");
    assert_eq!(failure.error, "Run.ImportFailed");
    assert!(
        failure.message.contains("nowhere_to_be_found")
            && failure.message.contains("add its package to the requirements"),
        "{failure}"
    );
    assert!(said.contains("code.py\", line 1"), "{said}");
    let (failure, said, _) = run("def main() -> str:\n    return 1 / 0\n", "");
    assert_eq!(failure.error, "Run.CodeRaised");
    assert!(
        failure.message.contains("ZeroDivisionError: division by zero"),
        "{failure}"
    );
    assert!(
        said.contains("code.py\", line 2, in main") && !said.contains("_script_executor"),
        "{said}"
    );
    let (failure, ..) = run("raise RuntimeError('at import')\n", "");
    assert!(
        failure.error == "Run.CodeRaised" && failure.message.contains("at import"),
        "{failure}"
    );
    let (failure, ..) = run("def other() -> str:\n    return ''\n", "");
    assert_eq!(failure.error, "Run.BadFlow", "{failure}");
    let (failure, ..) = run(
        "def main(a: str) -> str:\n    return a\n",
        "{\"a\": \"1\"}\n{\"a\": nonsense\n",
    );
    assert!(
        failure.error == "Run.BadData" && failure.message.contains("line 2"),
        "{failure}"
    );
    let (failure, ..) = run("def main(a: str) -> str:\n    return a\n", "{\"b\": \"1\"}\n");
    assert!(
        failure.error == "Run.BadData" && failure.message.contains("'a'"),
        "{failure}"
    );
    let (failure, ..) = run("import os\ndef main() -> str:\n    os._exit(7)\n", "");
    assert!(
        failure.error == "Run.Crashed" && failure.message.contains("code 7"),
        "{failure}"
    );
    let (failure, ..) = run("import os\ndef main() -> str:\n    os.kill(os.getpid(), 9)\n", "");
    assert!(
        failure.error == "Run.Crashed" && failure.message.contains("signal 9"),
        "{failure}"
    );
    let (failure, _, result) = run(
        "import os\ndef main(a: int) -> int:\n    if a == 2:\n        os._exit(3)\n    return a\n",
        "{\"a\": 1}\n{\"a\": 2}\n{\"a\": 3}\n",
    );
    assert!(
        failure.error == "Run.Crashed" && failure.message.contains("1 of 3 lines"),
        "{failure}"
    );
    assert_eq!((result.lines, result.failed_lines), (3, 1));
    assert_eq!(
        result.outputs,
        [json!({ "output": 1 }), Value::Null, json!({ "output": 3 })]
    );
    machine.remove(&key, 1);
}

fn failures_of_installs_have_names_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("it"), "def main() -> str:\n    return ''\n");
    let key = key(&unique("installs"));
    machine.launch(&key, 1, &it);
    let install = |requirements: &str| {
        fs::write(it.join("requirements.txt"), requirements).unwrap();
        let id = unique("install");
        let failure = machine
            .install(&key, 1, &id, &it)
            .unwrap_or_else(|| panic!("{requirements} was installed"));
        assert_eq!(failure.message.lines().count(), 1, "{failure}");
        failure
    };
    let failure = install("tabulate\nno-such-package-of-ours\n");
    assert_eq!(failure.error, "Install.NoSuchPackage", "{failure}");
    assert!(failure.message.starts_with("requirements.txt:2: "), "{failure}");
    let log = failure.message.split_whitespace().last().unwrap().trim_end_matches('.');
    assert!(
        fs::read_to_string(log).unwrap().contains("no-such-package-of-ours"),
        "{failure}"
    );
    let failure = install("tabulate==99.1\n");
    assert!(
        failure.error == "Install.NoSuchVersion" && failure.message.contains("tabulate==99.1"),
        "{failure}"
    );
    let failure = install("flask==3.1.3\nwerkzeug<3\n");
    assert!(
        failure.error == "Install.Conflict" && failure.message.contains("werkzeug"),
        "{failure}"
    );
    let failure = install("--index-url http://me:hidden@127.0.0.1:9/simple\ntabulate\n");
    assert_eq!(failure.error, "Install.IndexUnreachable", "{failure}");
    assert!(!failure.message.contains("hidden"), "{failure}");
    let failure = install("it @ https://me:hidden@127.0.0.1:9/it-1-py3-none-any.whl\n");
    assert!(
        failure.error == "Install.BadRequirement" && !failure.message.contains("hidden"),
        "{failure}"
    );
    let failure = install("tabulate ==\n");
    assert!(
        failure.error == "Flow.BadRequirement" && failure.message.starts_with("requirements.txt:1"),
        "{failure}"
    );
    flow(
        &it,
        &[(
            "flow.flex.yaml",
            "entry: code:main\nenvironment:\n  image: 127.0.0.1:1/image:1\n",
        )],
    );
    // The container that there is has its image for life; the next one is made from the new one.
    fs::write(it.join("requirements.txt"), "tabulate\n").unwrap();
    assert_eq!(machine.install(&key, 1, &unique("install"), &it), None);
    machine.remove(&key, 1);
    machine.launch(&key, 2, &it);
    let failure = machine.install(&key, 2, &unique("install"), &it).unwrap();
    assert!(
        failure.error == "Image.Unreachable" && failure.message.contains("127.0.0.1:1/image:1"),
        "{failure}"
    );
    machine.remove(&key, 2);
}

/// Runs flows of one function, one after another, in one session.
fn each(name: &str, mut look: impl FnMut(&mut dyn FnMut(&str, &str, RunWish) -> RunResult)) {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), "def main() -> str:\n    return ''\n");
    let key = key(&unique(name));
    machine.start(&key, 1, &it);
    look(&mut |code, data, wish| {
        flex(&it, code);
        let wish = match data {
            "" => wish,
            lines => {
                let file = folder.path().join("data.jsonl");
                fs::write(&file, lines).unwrap();
                RunWish {
                    data: Some(file.display().to_string()),
                    ..wish
                }
            }
        };
        machine.run(&key, 1, &unique(name), &it, wish)
    });
    machine.remove(&key, 1);
}

fn written(result: &RunResult, name: &str) -> String {
    fs::read_to_string(Path::new(&result.folder).join(name)).unwrap()
}

const ODD: &str = "
import dataclasses

@dataclasses.dataclass
class Point:
    y: int
    x: list

def deep(n):
    value = 1
    for _ in range(n):
        value = [value]
    return value

def main(kind):
    return {
        'nan': lambda: {'z': float('nan'), 'a': [float('inf'), -float('inf')]},
        'surrogate': lambda: 'x\\ud800y',
        'big': lambda: 10**40,
        'deep': lambda: deep(300),
        'too deep': lambda: deep(100000),
        'dataclass': lambda: Point(1, [2]),
        'set': lambda: {1},
        'order': lambda: {'z': 1, 'a': {'y': 0.1, 'b': 1e-7}},
        'text': lambda: 'é\\u2028😀',
    }[kind]()
";

fn values_that_json_hardly_holds_come_back_as_they_are_or_fail_their_line() {
    let kinds = [
        "nan",
        "surrogate",
        "big",
        "deep",
        "too deep",
        "dataclass",
        "set",
        "order",
        "text",
    ];
    let data: String = kinds.map(|kind| format!("{{\"kind\": \"{kind}\"}}\n")).concat();
    each("values", |run| {
        let result = run(ODD, &data, RunWish::default());
        let deep = format!("{{\"output\": {}1{}}}", "[".repeat(300), "]".repeat(300));
        assert_eq!(
            written(&result, "output/outputs.jsonl").lines().collect::<Vec<_>>(),
            [
                r#"{"z": NaN, "a": [Infinity, -Infinity]}"#,
                r#"{"output": "x\ud800y"}"#,
                r#"{"output": 10000000000000000000000000000000000000000}"#,
                &deep,
                "null",
                r#"{"y": 1, "x": [2]}"#,
                "null",
                r#"{"z": 1, "a": {"y": 0.1, "b": 1e-07}}"#,
                "{\"output\": \"é\u{2028}😀\"}",
            ]
        );
        assert_eq!((result.lines, result.failed_lines), (9, 2), "{result:#?}");
        assert_eq!(result.outputs, [Value::Null; 0], "a report cannot hold them");
        // What a report can hold keeps its order there.
        let result = run(ODD, "{\"kind\": \"order\"}\n", RunWish::default());
        assert_eq!(
            serde_json::to_string(&result.outputs).unwrap(),
            r#"[{"z":1,"a":{"y":0.1,"b":1e-7}}]"#
        );
        let said = run(ODD, "{\"kind\": \"set\"}\n", RunWish::default())
            .failure
            .unwrap()
            .to_string();
        assert!(said.starts_with("Run.BadOutput: "), "{said}");
        let large = run("def main():\n    return 'é' * 30_000_000\n", "", RunWish::default());
        assert_eq!(large.failure, None, "{large:#?}");
        assert_eq!(written(&large, "output/outputs.jsonl").len(), 60_000_015);
    });
}

fn a_run_is_judged_by_how_its_processes_ended_whatever_they_write() {
    let forge = "
import os
def main():
    lie = b'{\"done\": {\"lines\": 1, \"failed\": 0, \"failure\": null}}\\n{\"line\": 99, \"number\": 99, \"text\": \"{}\", \"wrong\": null}\\n'
    for fd in range(3, 200):
        try:
            os.write(fd, lie)
        except OSError:
            pass
    os._exit(0)
";
    each("judged", |run| {
        for code in [
            forge,
            "import os\ndef main():\n    os._exit(1)\n",
            "import os\nos._exit(0)\n",
        ] {
            let result = run(code, "", RunWish::default());
            let failure = result.failure.as_ref().expect("it did not come to its end");
            assert_eq!(failure.error, "Run.Crashed", "{result:#?}");
            assert!(
                result.lines <= 1 && result.outputs.iter().all(Value::is_null),
                "{result:#?}"
            );
        }
        let result = run(
            "def main():\n    raise ValueError('sur\\ud800rogate')\n",
            "",
            RunWish::default(),
        );
        assert!(result.failure.unwrap().message.contains("ValueError: sur?rogate"));
        let wish = RunWish {
            environment_variables: BTreeMap::from([("PF_LINE_TIMEOUT_SEC".into(), "1".into())]),
            ..RunWish::default()
        };
        let slow = "import time\ndef main(n):\n    time.sleep(n)\n    return n\n";
        let result = run(slow, "{\"n\": 60}\n{\"n\": 0}\n", wish);
        let said = result.failure.unwrap().to_string();
        let expected = "Run.LineTimeout: 1 of 2 lines failed, the first with the line took longer than 1 s, which is its limit \
                        (PF_LINE_TIMEOUT_SEC).";
        assert!(said.starts_with(expected), "{said}");
        let wish = RunWish {
            environment_variables: BTreeMap::from([("PF_BATCH_TIMEOUT_SEC".into(), "1".into())]),
            ..RunWish::default()
        };
        let late = run(slow, "{\"n\": 60}\n", wish);
        let said = late.failure.unwrap().to_string();
        let expected = "Run.Timeout: the run took longer than 1 s, which is its limit (PF_BATCH_TIMEOUT_SEC).";
        assert!(said.starts_with(expected), "{said}");
        assert_eq!(result.outputs, [Value::Null, json!({ "output": 0 })]);
    });
}

fn an_aggregation_gives_metrics_and_one_that_fails_is_told() {
    let code = |last: &str| {
        format!(
            "class main:\n    def __call__(self, n: int):\n        return {{'n': n}}\n    def __aggregate__(self, lines):\n        {last}\n"
        )
    };
    each("aggregation", |run| {
        let data = "{\"n\": 1}\n{\"n\": \"no\"}\n{\"n\": 5}\n";
        let result = run(
            &code("return {'sum': sum(line.n for line in lines), 'zero': 0.0}"),
            data,
            RunWish::default(),
        );
        assert_eq!((result.lines, result.failed_lines), (3, 1));
        assert_eq!(written(&result, "metrics.json"), "{\"sum\": 6, \"zero\": 0.0}\n");
        assert_eq!(
            serde_json::to_string(&result.metrics).unwrap(),
            r#"{"sum":6,"zero":0.0}"#
        );
        let result = run(
            &code("raise RuntimeError('cannot')"),
            "{\"n\": 1}\n{\"n\": 2}\n",
            RunWish::default(),
        );
        let failure = result.failure.expect("it is told");
        assert!(
            failure.message.contains("__aggregate__ failed: RuntimeError: cannot"),
            "{failure}"
        );
        assert_eq!((result.lines, result.failed_lines), (2, 0));
        assert_eq!(result.outputs, [json!({ "n": 1 }), json!({ "n": 2 })]);
    });
}

/// The pieces of an output that a run's agent has reported, in their order.
fn pieces(machine: &Machine, run: &str) -> Vec<Chunk> {
    let reports = machine.world.agent_reports.lock().unwrap();
    let mut lines: Vec<OutputLine> = Vec::new();
    for (_, body) in reports.iter() {
        if let AgentReport::Output { of, lines: more } = &body.report
            && of == run
        {
            lines.extend(more.iter().filter(|line| line.kind == LineKind::Chunk).cloned());
        }
    }
    lines.sort_by_key(|line| line.seq);
    lines.dedup_by_key(|line| line.seq);
    lines
        .iter()
        .map(|line| serde_json::from_str(&line.text).unwrap())
        .collect()
}

fn text_of(pieces: &[Chunk]) -> String {
    let texts = pieces.iter().map(|piece| match piece {
        Chunk::GoesOn { texts, .. } => texts.concat(),
        Chunk::Begins { .. } => String::new(),
    });
    texts.collect()
}

fn pieces_of_an_output_come_in_order_before_its_end_within_bounds_and_the_end_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let code = "
import os, time
def main(kind: str):
    if kind == 'waits':
        return {'answer': waits(), 'kind': kind}
    return many()
def waits():
    yield 'one '
    print('said between')
    while not os.path.exists('go'):
        time.sleep(0.01)
    yield 'two'
def many():
    for n in range(100):
        yield f'{n:05}' * 2000
";
    let it = flex(&folder.path().join("flow"), code);
    let key = key(&unique("pieces"));
    machine.start(&key, 1, &it);
    let streamed = |kind: &str| RunWish {
        stream: true,
        ..inputs("kind", kind)
    };
    let run = unique("pieces");
    machine.begin_run(&key, 1, &run, &it, streamed("waits"));
    machine.world.wait("a piece", Duration::from_secs(60), |_| {
        (text_of(&pieces(&machine, &run)) == "one ").then_some(())
    });
    // It has not ended: it waits for this file.
    fs::write(machine.state.join(format!("sessions/{key}/1/work/{run}/flow/go")), "").unwrap();
    let result = machine.ended_run(&key, 1, &run);
    assert_eq!(output(&result), json!({ "answer": "one two", "kind": "waits" }));
    let begins = json!({ "begins": { "outputs": { "kind": "waits" }, "names": ["answer"] } });
    let one = json!({ "goes-on": { "name": "answer", "texts": ["one "] } });
    let two = json!({ "goes-on": { "name": "answer", "texts": ["two"] } });
    let told: Vec<Value> = pieces(&machine, &run).iter().map(|piece| json!(piece)).collect();
    assert_eq!(told, [begins, one, two]);
    assert_eq!(result.said, Some(4), "what it has said is told among the pieces");

    let run = unique("pieces");
    let result = machine.run(&key, 1, &run, &it, streamed("many"));
    let whole = written(&result, "output/outputs.jsonl");
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let whole = whole["output"].as_str().unwrap();
    let told = text_of(&pieces(&machine, &run));
    assert_eq!((whole.len(), told.len()), (1_000_000, 260_000));
    assert!(whole.starts_with(&told));

    // Of several lines, and of a run that does not stream, there are none.
    let data = folder.path().join("data.jsonl");
    fs::write(&data, "{\"kind\": \"many\"}\n{\"kind\": \"many\"}\n").unwrap();
    let over_data = RunWish {
        data: Some(data.display().to_string()),
        stream: true,
        ..RunWish::default()
    };
    for wish in [over_data, inputs("kind", "many")] {
        let run = unique("pieces");
        assert_eq!(machine.run(&key, 1, &run, &it, wish).failure, None);
        assert_eq!(pieces(&machine, &run), []);
    }
    machine.remove(&key, 1);
}

/// A receiver of spans on loopback: its address, and what was sent to it.
fn receiver() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
            // Who no longer wants them has gone.
            let _ = sender.send((first, body));
        }
    });
    (address, received)
}

fn the_spans_of_a_run_go_to_the_endpoint_that_it_names_and_are_kept_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let code = "
from promptflow.tracing import trace
@trace
def inner(name):
    return name.upper()
def main(name: str):
    return inner(name)
";
    let it = flex(&folder.path().join("flow"), code);
    let key = key(&unique("spans"));
    machine.start(&key, 1, &it);
    let (address, received) = receiver();
    let network = AgentCommand::Network {
        revision: 1,
        network: Network::None,
        allow_hosts: vec![address.clone()],
    };
    machine.tell(&key, 1, &network);
    let traced = |endpoint: &str| RunWish {
        environment_variables: BTreeMap::from([("OTEL_EXPORTER_OTLP_ENDPOINT".into(), endpoint.into())]),
        ..inputs("name", "you")
    };
    let run = unique("spans");
    let result = machine.run(&key, 1, &run, &it, traced(&format!("http://{address}")));
    assert_eq!(output(&result), json!({ "output": "YOU" }), "{}", machine.output(&run));
    let (request, body) = received.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(request.trim_end(), "POST /v1/traces HTTP/1.1");
    let sent = String::from_utf8_lossy(&body);
    assert!(sent.contains("inner") && sent.contains(&run), "{sent}");
    let kept = written(&result, "spans.jsonl");
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |name: &str| {
        kept.iter()
            .find(|span| span["name"] == name)
            .unwrap_or_else(|| panic!("{kept:#?}"))
    };
    assert_eq!(
        named("inner")["context"]["trace_id"],
        kept[kept.len() - 1]["context"]["trace_id"]
    );

    // Where nobody takes them the run goes on, and says so once.
    let run = unique("spans");
    let result = machine.run(&key, 1, &run, &it, traced("http://127.0.0.1:9"));
    assert_eq!(output(&result), json!({ "output": "YOU" }));
    let said = machine.output(&run);
    assert!(said.contains("spans are not sent to http://127.0.0.1:9 ("), "{said}");
    assert_eq!(written(&result, "spans.jsonl").lines().count(), kept.len());

    // Without an endpoint there are none.
    let result = machine.run(&key, 1, &unique("spans"), &it, inputs("name", "you"));
    assert!(!Path::new(&result.folder).join("spans.jsonl").exists());
    machine.remove(&key, 1);
}

fn a_connection_without_a_key_says_what_gives_the_run_an_identity() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let name = unique("keyless");
    keep(
        &machine,
        &name,
        "type: azure_open_ai\napi_base: http://127.0.0.1:9\nauth_mode: meid_token\n",
    );
    let ask = format!(
        "outputs:\n  text:\n    type: string\n    reference: ${{ask.output}}\nnodes:\n- name: ask\n  type: llm\n  source:\n    type: code\n    \
         path: ask.jinja2\n  inputs:\n    deployment_name: gpt\n  connection: {name}\n  api: chat\n"
    );
    let files = [("flow.dag.yaml", ask.as_str()), ("ask.jinja2", "# user:\nhello\n")];
    let it = flow(&folder.path().join("flow"), &files);
    let key = key(&unique("keyless"));
    machine.start(&key, 1, &it);
    let with_secret = RunWish {
        environment_variables: BTreeMap::from([("AZURE_CLIENT_SECRET".into(), "s".into())]),
        ..RunWish::default()
    };
    for (wish, why) in [
        (RunWish::default(), "none of the run's variables names one"),
        (
            with_secret,
            "DefaultAzureCredential failed to retrieve a token from the included credentials",
        ),
    ] {
        let failure = machine.run(&key, 1, &unique("keyless"), &it, wish).failure.unwrap();
        let said = failure.to_string().replace(&name, "NAME");
        let expected = format!(
            "Connection.NoToken: the connection 'NAME' has no key (auth_mode: meid_token), and the run has no identity of Microsoft Entra to ask for a \
             token with: {why}. Give the run the variables AZURE_TENANT_ID, AZURE_CLIENT_ID and, as a secret, AZURE_CLIENT_SECRET, or give the \
             connection a key."
        );
        assert!(said.starts_with(&expected), "{said}");
    }
    machine.remove(&key, 1);
}

fn lines_that_wait_share_the_processor() {
    each("waiting", |run| {
        let data: String = (0..40).map(|n| format!("{{\"n\": {n}}}\n")).collect();
        let begun = Instant::now();
        let result = run(
            "import time\ndef main(n):\n    time.sleep(1)\n    return n\n",
            &data,
            RunWish::default(),
        );
        assert_eq!(result.failure, None);
        assert_eq!(result.outputs.len(), 40);
        // Four at a time would take ten seconds.
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    });
}

fn a_variable_that_no_process_takes_is_refused_and_the_runner_lives_on() {
    let with = |size: usize| RunWish {
        environment_variables: BTreeMap::from([("LARGE".into(), "x".repeat(size))]),
        ..RunWish::default()
    };
    each("variable", |run| {
        let code = "import os\ndef main():\n    return len(os.environ['LARGE'])\n";
        let failure = run(code, "", with(200_000)).failure.expect("it is refused");
        let expected = "Run.VariableTooLarge: the environment variable LARGE has 200007 bytes, and Linux takes at most 131072; put the \
                        value in a file of the flow.";
        assert!(failure.to_string().starts_with(expected), "{failure}");
        let command = RunWish {
            command: vec!["true".into()],
            ..with(200_000)
        };
        assert_eq!(run(code, "", command).failure.unwrap().error, "Run.VariableTooLarge");
        let many = RunWish {
            command: vec!["true".into()],
            environment_variables: (0..40).map(|n| (format!("LARGE_{n}"), "x".repeat(100_000))).collect(),
            ..RunWish::default()
        };
        let said = run(code, "", many).failure.unwrap().to_string();
        let expected = "Run.NotStarted: the run's process could not be started: Argument list too long.";
        assert!(said.starts_with(expected), "{said}");
        assert_eq!(output(&run(code, "", with(120_000))), json!({ "output": 120_000 }));
    });
}

fn a_flow_is_given_by_its_file_or_entry_and_reads_an_earlier_run() {
    each("file", |run| {
        let code = "def main(text: str) -> str:\n    return f'said {text}'\n\ndef grade(text: str, answer: str, n: int = 0) -> dict:\n    return {'right': answer == f'said {text}', 'n': n}\n";
        let entry = |name: &str| RunWish {
            entry: Some(format!("code:{name}")),
            ..RunWish::default()
        };
        let first = run(
            code,
            "{\"text\": \"a\", \"line_number\": 4}\n{\"text\": \"b\", \"line_number\": 2}\n",
            entry("main"),
        );
        assert_eq!(
            first.outputs,
            [json!({ "output": "said b" }), json!({ "output": "said a" })]
        );
        let earlier = Path::new(&first.folder)
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let mapping = [
            ("text", json!("${run.inputs.text}")),
            ("answer", json!("${run.outputs.output}")),
            ("n", json!(7)),
        ];
        let graded = RunWish {
            run: Some(earlier),
            column_mapping: mapping.map(|(name, source)| (name.to_owned(), source)).into(),
            ..entry("grade")
        };
        let result = run(code, "", graded);
        assert_eq!(result.failure, None, "{result:#?}");
        assert_eq!(
            result.outputs,
            [json!({ "right": true, "n": 7 }), json!({ "right": true, "n": 7 })]
        );
        let none = RunWish {
            run: Some("no-such-run".into()),
            ..entry("grade")
        };
        let said = run(code, "", none).failure.unwrap().to_string();
        let expected = "Run.NoSuchRun: The outputs of the run no-such-run are not here: ";
        assert!(said.starts_with(expected), "{said}");
        let file = |name: &str| RunWish {
            file: Some(name.into()),
            ..RunWish::default()
        };
        assert_eq!(
            output(&run(
                "def main() -> str:\n    return 'by file'\n",
                "",
                file("flow.flex.yaml")
            )),
            json!({ "output": "by file" })
        );
        for name in ["other.yaml", "../flow.flex.yaml"] {
            assert_eq!(
                run(code, "", file(name)).failure.unwrap().error,
                "Run.BadFlow",
                "{name}"
            );
        }
        let unknown = RunWish {
            column_mapping: [("txet".to_owned(), json!("${data.text}"))].into(),
            ..entry("main")
        };
        let failure = run(code, "{\"text\": \"a\"}\n", unknown).failure.unwrap();
        let expected = "Run.UnknownInput: the column mapping names the input 'txet', and the flow has no such input; did you mean 'text'";
        assert!(failure.to_string().starts_with(expected), "{failure}");
    });
}

fn a_long_line_of_output_is_whole_in_the_log() {
    each("long-line", |run| {
        let result = run(
            "def main():\n    print('é' * 600_000 + 'end')\n    print('next')\n",
            "",
            RunWish::default(),
        );
        let log = written(&result, "logs.txt");
        let mut lines = log.lines().skip_while(|line| !line.starts_with('é'));
        assert_eq!(lines.next().map(|line| line.chars().count()), Some(600_003));
        assert_eq!(lines.next(), Some("next"));
    });
}

fn a_command_that_comes_twice_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("it"), &DAG);
    let key = key(&unique("twice"));
    machine.ask(ComputeRequest::CreateCompute {
        compute: "c1".into(),
        slot: contract::Slot {
            workspace: "local".into(),
            owner: "me".into(),
            size: "local".into(),
            identity: None,
            instance: None,
        },
        room: None,
    });
    machine.launch(&key, 1, &it);
    machine.launch(&key, 1, &it);
    let keys: Vec<String> = machine
        .world
        .driver_reports
        .lock()
        .unwrap()
        .iter()
        .filter_map(|report| match report {
            DriverReport::SessionUp { key, .. } => Some(key.clone()),
            _ => None,
        })
        .collect();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    let install = AgentCommand::Install {
        operation: "again".into(),
        attempt: 1,
        settings: settings(&it),
        lock: None,
        resolve: false,
    };
    machine.tell(&key, 1, &install);
    machine.tell(&key, 1, &install);
    assert_eq!(machine.install(&key, 1, "again", &it), None);
    let later = AgentCommand::Install {
        operation: "again".into(),
        attempt: 4,
        settings: settings(&it),
        lock: None,
        resolve: false,
    };
    machine.tell(&key, 1, &later);
    machine.report(
        "the later attempt's answer",
        Duration::from_secs(10),
        &key,
        1,
        |report| matches!(report, AgentReport::Installed { attempt: 4, .. }).then_some(()),
    );
    let run = unique("twice");
    for _ in 0..3 {
        machine.begin_run(&key, 1, &run, &it, RunWish::default());
    }
    machine.ended_run(&key, 1, &run);
    machine.run(&key, 1, &unique("after"), &it, RunWish::default());
    let ends = machine
        .world
        .agent_reports
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, body)| matches!(&body.report, AgentReport::RunDone { run: r, .. } if *r == run))
        .count();
    assert_eq!(ends, 1);
    machine.remove(&key, 1);
    machine.remove(&key, 1);
}

fn a_report_is_signed_with_the_sessions_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("it"), &DAG);
    let flow_key = key(&unique("signed"));
    let public = machine.launch(&flow_key, 1, &it);
    assert_eq!(machine.install(&flow_key, 1, "signed", &it), None);
    machine.remove(&flow_key, 1);
    let other = machine.launch(&flow_key, 2, &it);
    machine.remove(&flow_key, 2);
    assert_ne!(public, other);
    for (signed, body) in machine
        .world
        .agent_reports
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, body)| body.generation == 1)
    {
        assert!(signed.is_signed_by(&public), "{body:?}");
        assert!(!signed.is_signed_by(&other));
    }
}

fn a_launch_that_is_late_or_was_removed_never_starts_an_agent() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("it"), &DAG);
    let key = key(&unique("late"));
    machine.create_compute("c1");
    let mut request = Machine::launch_request(&key, 1, "c1", &it);
    let ComputeRequest::LaunchSession { until, .. } = &mut request else {
        unreachable!()
    };
    *until = 1;
    machine.ask(request);
    assert_eq!(machine.gone(&key, 1).unwrap().error, "Session.LaunchTooLate");
    machine.remove(&key, 3);
    for generation in [1, 2, 3] {
        machine.ask(Machine::launch_request(&key, generation, "c1", &it));
    }
    assert_eq!(machine.gone(&key, 2).unwrap().error, "Session.Removed");
    assert_eq!(processes_with(&format!("{key}/")), Vec::<String>::new());
    assert_eq!(
        fs::read_dir(machine.state.join("sessions").join(&key)).unwrap().count(),
        1
    );
    machine.ask(Machine::launch_request(&key, 4, "no-such-compute", &it));
    assert_eq!(machine.gone(&key, 4).unwrap().error, "Session.NoCompute");
}

/// What the driver wrote of a session's processes: the agent's id, and its sandboxes'.
fn process_ids(machine: &Machine, key: &str, generation: u32) -> (i32, Vec<i32>) {
    let session = machine.state.join("sessions").join(key).join(generation.to_string());
    let agent: Value = serde_json::from_slice(&fs::read(session.join("agent.json")).unwrap()).unwrap();
    let sandboxes: Value = serde_json::from_slice(&fs::read(session.join("sandboxes.json")).unwrap()).unwrap();
    let ids = sandboxes
        .as_array()
        .unwrap()
        .iter()
        .map(|each| each["pid"].as_i64().unwrap() as i32)
        .collect();
    (agent["pid"].as_i64().unwrap() as i32, ids)
}

fn kill(pid: i32) {
    // SAFETY: no memory; the process was started for this test.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

const SLEEPER: &str = "import subprocess, sys, time\ndef main() -> str:\n    subprocess.Popen(['/bin/sleep', MARK], start_new_session=True)\n    print('asleep', flush=True)\n    time.sleep(600)\n    return ''\n";

/// A session in the middle of a run that has left a process of its own session behind. Gives back that process' mark.
fn asleep(machine: &Machine, key: &str, generation: u32, folder: &Path) -> (String, String) {
    let mark = format!("60{}.{}", std::process::id(), unique("").replace('-', ""));
    flex(folder, &SLEEPER.replace("MARK", &format!("{mark:?}")));
    machine.start(key, generation, folder);
    let run = unique("asleep");
    machine.begin_run(key, generation, &run, folder, RunWish::default());
    machine.world.wait("sleep", Duration::from_secs(20), |_| {
        machine.output(&run).contains("asleep").then_some(())
    });
    assert_eq!(processes_with(&mark).len(), 1);
    (run, mark)
}

fn gone_from_the_machine(machine: &Machine, key: &str, mark: &str) {
    machine
        .world
        .wait("the end of all processes", Duration::from_secs(10), |_| {
            processes_with(mark).is_empty().then_some(())
        });
    machine
        .world
        .wait("the end of all mounts", Duration::from_secs(10), |_| {
            (!mounts_with(key)).then_some(())
        });
    assert_eq!(processes_with(&format!("{key}/")), Vec::<String>::new());
    let left: Vec<_> = fs::read_dir(machine.state.join("sessions").join(key))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["removed"]);
    let gone = machine.state.join("gone");
    machine
        .world
        .wait("the end of all files", Duration::from_secs(10), |_| {
            (fs::read_dir(&gone).unwrap().count() == 0).then_some(())
        });
    assert!(!machine.world.has_queue(&contract::names::agent_queue(key, 1)));
}

fn an_agent_that_is_killed_takes_its_sandbox_with_it_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let key = key(&unique("killed"));
    let it = folder.path().join("it");
    let (_, mark) = asleep(&machine, &key, 1, &it);
    kill(process_ids(&machine, &key, 1).0);
    let failure = machine.gone(&key, 1).unwrap();
    assert_eq!(failure.error, "Session.AgentDied");
    let log = failure
        .message
        .split_whitespace()
        .find(|word| word.contains("/logs/"))
        .unwrap()
        .trim_end_matches('.');
    assert!(Path::new(log).exists(), "{failure}");
    gone_from_the_machine(&machine, &key, &mark);
}

fn a_runner_that_is_killed_fails_its_runs_and_the_next_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let key = key(&unique("runner"));
    let it = folder.path().join("it");
    let (run, mark) = asleep(&machine, &key, 1, &it);
    kill(process_ids(&machine, &key, 1).1[0]);
    assert_eq!(machine.ended_run(&key, 1, &run).failure.unwrap().error, "Run.Crashed");
    machine
        .world
        .wait("the end of all processes", Duration::from_secs(10), |_| {
            processes_with(&mark).is_empty().then_some(())
        });
    flex(&it, "def main() -> str:\n    return 'again'\n");
    assert_eq!(
        output(&machine.run(&key, 1, &unique("again"), &it, RunWish::default())),
        json!({ "output": "again" })
    );
    machine.remove(&key, 1);
    gone_from_the_machine(&machine, &key, &mark);
}

fn a_host_that_comes_back_finds_its_agents_and_reports_the_dead() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(&state());
    let (lives, dies) = (key(&unique("lives")), key(&unique("dies")));
    let it = flow(&folder.path().join("it"), &DAG);
    machine.start(&lives, 1, &it);
    let other = folder.path().join("other");
    let (_, mark) = asleep(&machine, &dies, 1, &other);
    let (living, dead) = (process_ids(&machine, &lives, 1).0, process_ids(&machine, &dies, 1).0);
    // A launch that was cut off: an agent that waits for its specification.
    let cut = machine.state.join("sessions").join(&dies).join("2");
    fs::create_dir_all(&cut).unwrap();
    // And files that a removal was cut off from.
    fs::create_dir_all(machine.state.join("gone/cut-off/tmp")).unwrap();
    machine.restart_host();
    kill(dead);
    // Nobody is there to end it: the sandbox ends with its agent by itself.
    machine
        .world
        .wait("the end of the sandbox", Duration::from_secs(10), |_| {
            processes_with(&mark).is_empty().then_some(())
        });
    machine.runtime.block_on(machine.driver.recover());
    assert_eq!(machine.gone(&dies, 1).unwrap().error, "Session.AgentDied");
    assert!(!cut.exists());
    gone_from_the_machine(&machine, &dies, &mark);
    assert_eq!(
        output(&machine.run(&lives, 1, &unique("still"), &it, RunWish::default())),
        json!({ "greeting": "Hello, world!" })
    );
    // And it is watched again.
    kill(living);
    assert_eq!(machine.gone(&lives, 1).unwrap().error, "Session.AgentDied");
}

fn a_released_compute_takes_its_sessions_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let key = key(&unique("released"));
    let (_, mark) = asleep(&machine, &key, 1, &folder.path().join("it"));
    machine.ask(ComputeRequest::ReleaseCompute { compute: "c1".into() });
    assert_eq!(machine.gone(&key, 1), None);
    gone_from_the_machine(&machine, &key, &mark);
    assert!(!machine.state.join("computes/c1").exists());
    machine.ask(ComputeRequest::ReleaseCompute { compute: "c1".into() });
}

/// It runs beside the others, on a machine of its own.
fn an_agent_whose_lease_is_not_renewed_ends() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&folder.path().join("state"));
    let it = flow(&folder.path().join("it"), &DAG);
    *machine.world.silent.lock().unwrap() = true;
    let key = key(&unique("lease"));
    machine.launch(&key, 1, &it);
    let asks = |count: u64| {
        machine.report("a request for a lease", Duration::from_secs(40), &key, 1, |report| {
            matches!(report, AgentReport::Alive { nonce, .. } if *nonce == count).then_some(())
        });
    };
    asks(1);
    asks(2);
    asks(3);
    let begun = Instant::now();
    let failure = machine.world.wait("the end", Duration::from_secs(40), |world| {
        world
            .driver_reports
            .lock()
            .unwrap()
            .iter()
            .find_map(|report| match report {
                DriverReport::SessionGone { failure, .. } => Some(failure.clone()),
                _ => None,
            })
    });
    assert_eq!(failure.unwrap().error, "Session.AgentDied");
    // A third of the lease after it asked for the third time.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

fn unique(name: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    )
}

/// What is said by `command` in a session.
fn command(program: &[&str]) -> RunWish {
    RunWish {
        command: program.iter().map(|word| (*word).to_owned()).collect(),
        ..RunWish::default()
    }
}

/// Whether a file may be changed or removed at all; root alone may say so, and not on every file system.
fn set_immutable(path: &Path, is_immutable: bool) -> bool {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let Ok(file) = fs::File::open(path) else { return false };
    ioctl_getflags(&file).is_ok_and(|mut flags| {
        flags.set(IFlags::IMMUTABLE, is_immutable);
        ioctl_setflags(&file, flags).is_ok()
    })
}

fn what_a_session_leaves_is_removed_by_another_process_in_any_depth() {
    const NEST: &str = "import os\nfd = os.open('/tmp', os.O_RDONLY)\nfor _ in range(3000):\n    os.mkdir('folder', dir_fd=fd)\n    \
        inner = os.open('folder', os.O_RDONLY, dir_fd=fd)\n    os.close(fd)\n    fd = inner\nos.fchmod(fd, 0)\n";
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let hello = flow(&folder.path().join("hello"), &DAG);
    let key = key(&hello.display().to_string());
    machine.start(&key, 1, &hello);
    let result = machine.run(&key, 1, "nest", &hello, command(&["python3", "-c", NEST]));
    assert_eq!(result.exit_code, Some(0), "{}", machine.output("nest"));
    // Something that cannot be removed now.
    let (gone, name) = (machine.state.join("gone"), "what-stays");
    let stays = machine.state.join("sessions").join(&key).join("1/home").join(name);
    fs::write(&stays, "").unwrap();
    let cannot = set_immutable(&stays, true);
    if !cannot {
        println!("nothing here can be made immutable: what cannot be removed is not tried");
    }
    machine.remove(&key, 1);
    assert_eq!(machine.gone(&key, 1), None);
    machine.start(&key, 2, &hello);
    let left = || {
        fs::read_dir(&gone)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let stays = machine
        .world
        .wait("the removal of the rest", Duration::from_secs(60), |_| {
            match &left()[..] {
                [] if !cannot => Some(None),
                [one] if cannot => {
                    // Everything else has gone: there is nothing in it but the way to what stays.
                    let mut at = one.clone();
                    while let [inner] = &fs::read_dir(&at)
                        .ok()?
                        .flatten()
                        .map(|entry| entry.path())
                        .collect::<Vec<_>>()[..]
                    {
                        at.clone_from(inner);
                        if at.ends_with(name) {
                            return Some(Some(at));
                        }
                    }
                    None
                }
                _ => None,
            }
        });
    if let Some(stays) = stays {
        let result = machine.run(&key, 2, "beside", &hello, RunWish::default());
        assert_eq!(result.failure, None);
        assert!(set_immutable(&stays, false));
        machine.world.wait("the next try", Duration::from_secs(60), |_| {
            left().is_empty().then_some(())
        });
    }
    machine.remove(&key, 2);
}

/// Leaves processes behind, one of which swaps a folder of the run for a link all the time.
const LEAVES: &str = r#"
import ctypes, os, sys, time
secret, ends = sys.argv[1], sys.argv[2]
os.makedirs("swapped"); open("swapped/passwd", "w").write("mine")
os.makedirs("plain"); open("plain/kept", "w").write("kept")
os.symlink(secret, "link"); os.link("plain/kept", "hard"); os.mkfifo("pipe")
open("tool", "w").write("x"); os.chmod("tool", 0o6755)
if ends == "by a signal":
    # What loses its parent goes further up than to this process.
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
def left(work):
    if not os.fork():
        os.setsid()
        if not os.fork():
            for fd in range(3):
                os.close(fd)
            work()
        os._exit(0)
def swap():
    os.symlink(secret, "to-secret")
    while True:
        for a, b in (("swapped", "away"), ("to-secret", "swapped"), ("swapped", "to-secret"), ("away", "swapped")):
            try:
                os.rename(a, b)
            except OSError:
                pass
def write():
    while True:
        open("/tmp/alive", "w").write(str(time.time_ns()))
left(swap)
left(write)
while not os.path.exists("/tmp/alive"):
    time.sleep(0.01)
if ends == "by a signal":
    os.kill(os.getpid(), 9)
"#;

fn what_a_run_leaves_behind_ends_with_it_and_only_its_own_files_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let secret = folder.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("passwd"), "secret").unwrap();
    let hello = flow(&folder.path().join("hello"), &DAG);
    fs::write(hello.join("leaves.py"), LEAVES).unwrap();
    let key = key(&hello.display().to_string());
    machine.start(&key, 1, &hello);
    let alive = machine.state.join("sessions").join(&key).join("1/tmp/alive");
    for ends in ["well", "by a signal", "well again"] {
        let run = format!("leaves-{}", ends.replace(' ', "-"));
        let _ = fs::remove_dir_all(machine.state.join("runs").join(&run));
        let secret_path = secret.display().to_string();
        let program = ["python3", "leaves.py", &secret_path, ends];
        let result = machine.run(&key, 1, &run, &hello, command(&program));
        let said = machine.output(&run);
        if ends != "by a signal" {
            assert_eq!(result.exit_code, Some(0), "{said}");
        } else {
            assert!(result.failure.is_some(), "{said}");
        }
        // The processes are gone: nothing is written any more.
        let last = fs::read(&alive).unwrap();
        assert_eq!(
            machine
                .run(&key, 1, &format!("after-{run}"), &hello, RunWish::default())
                .failure,
            None
        );
        assert_eq!(
            fs::read(&alive).unwrap(),
            last,
            "{ends}: a process of the run still writes"
        );
        fs::remove_file(&alive).unwrap();
        let files = machine.state.join("runs").join(&run).join("files");
        let text = |name: &str| fs::read_to_string(files.join(name)).unwrap_or_default();
        assert_eq!(
            (text("plain/kept"), text("hard")),
            ("kept".into(), "kept".into()),
            "{said}"
        );
        for name in ["swapped/passwd", "away/passwd", "to-secret/passwd"] {
            assert!(["", "mine"].contains(&text(name).as_str()), "{ends} {name}");
        }
        let about = fs::symlink_metadata(files.join("tool"));
        let about = about.unwrap_or_else(|error| panic!("{ends}: {error}: {result:?}"));
        assert_eq!(about.permissions().mode() & 0o7777, 0o755);
        for name in ["link: it is a link", "pipe: it is no file"] {
            assert!(result.not_kept.contains(&name.to_owned()), "{:?}", result.not_kept);
            assert!(said.contains(&format!("not kept: {name}")), "{said}");
        }
        for name in ["link", "pipe"] {
            assert!(files.join(name).symlink_metadata().is_err());
        }
        assert_eq!(fs::read_to_string(secret.join("passwd")).unwrap(), "secret");
    }
    machine.remove(&key, 1);
}

fn files_over_a_bound_and_data_over_a_bound_are_named_and_nothing_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let hello = flow(&folder.path().join("hello"), &DAG);
    let key = key(&hello.display().to_string());
    machine.start(&key, 1, &hello);
    let refused = |run: &str, wish: RunWish| {
        let result = machine.run(&key, 1, run, &hello, wish);
        (result.failure.clone().map(|failure| failure.error), result)
    };
    let deep = "import os\nopen('first', 'w').write('kept')\nfor _ in range(80):\n    os.mkdir('inner')\n    os.chdir('inner')\n";
    let huge = "open('a', 'w').write('kept')\nopen('huge', 'w').truncate(1 << 40)\n";
    for (run, code, kept) in [("too-deep", deep, "first"), ("too-much", huge, "a")] {
        let _ = fs::remove_dir_all(machine.state.join("runs").join(run));
        let (error, result) = refused(run, command(&["python3", "-c", code]));
        assert_eq!(error.as_deref(), Some("Run.FilesNotKept"), "{result:?}");
        let said = result.failure.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(
            said.starts_with("Run.FilesNotKept: Not all files that the run made are kept: "),
            "{said}"
        );
        assert!(
            result.not_kept.iter().any(|line| line.starts_with("the rest: ")),
            "{result:?}"
        );
        assert!(machine.output(run).contains("not kept: the rest: "));
        let kept = machine.state.join("runs").join(run).join("files").join(kept);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "kept", "{}", kept.display());
    }
    let data = |path: &Path| RunWish {
        data: Some(path.display().to_string()),
        ..RunWish::default()
    };
    let large = folder.path().join("large.jsonl");
    fs::File::create(&large).unwrap().set_len(3 << 30).unwrap();
    let said = refused("large-data", data(&large)).1.failure.unwrap().to_string();
    let expected = format!(
        "Run.DataTooLarge: The data {} has more than 1024 MiB, which is the most for one run. Split it, and run each part.",
        large.display()
    );
    assert!(said.starts_with(&expected), "{said}");
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(refused("pipe-data", data(&pipe)).0.as_deref(), Some("Run.BadData"));
    machine.remove(&key, 1);
}

/// Fills what it can, and goes on when the disk is full.
const FILLS: &str = r#"
import itertools
for number in itertools.count():
    try:
        with open(f"/tmp/{number}", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
    except OSError:
        pass
"#;

/// A file system that is unmounted at last.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn on_a_small_disk_a_session_that_fills_it_gives_way_and_others_go_on() {
    let small = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160m,mode=700", "tmpfs"])
        .arg(small.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("no file system can be mounted here: a full disk is not tried");
        return;
    }
    let _mount = Mount(small.path().to_owned());
    // The environments are on the large disk.
    drop(Machine::new(&state()));
    let inner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["inner", "disk"])
        .env("TEST_STATE", small.path())
        .env("PFSESSION_STORE", state())
        .status();
    assert!(inner.unwrap().success());
}

/// The part of the test above whose state folder is on the small disk.
fn a_small_disk_is_filled() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let flows = ["quiet", "greedy", "late"].map(|name| flow(&folder.path().join(name), &DAG));
    let keys = [0, 1, 2].map(|at: usize| key(&flows[at].display().to_string()));
    machine.start(&keys[0], 1, &flows[0]);
    machine.start(&keys[1], 1, &flows[1]);
    // The first may be stopped for its session's own bound, before the disk is full.
    for run in ["fills", "fills-the-rest"] {
        let result = machine.run(&keys[1], 1, run, &flows[1], command(&["python3", "-c", FILLS]));
        let said = result.failure.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(said.starts_with("Run.DiskFull: The "), "{result:?}");
        if agent::disk::Room::of(&machine.state).unwrap().is_short() {
            break;
        }
    }
    // Its files are still there: the session gives way, too.
    let ended = machine.gone(&keys[1], 1).expect("it ended by itself");
    assert!(
        ended.to_string().starts_with("Session.DiskFull: The disk of "),
        "{ended}"
    );
    assert!(ended.message.contains("this session has written the most"), "{ended}");
    let gone = machine.state.join("gone");
    machine
        .world
        .wait("the removal of its files", Duration::from_secs(60), |_| {
            fs::read_dir(&gone).unwrap().next().is_none().then_some(())
        });
    assert_eq!(
        machine
            .run(&keys[0], 1, "beside", &flows[0], RunWish::default())
            .failure,
        None
    );
    // Somebody else fills it, but for what the host keeps.
    let filler = machine.state.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 1 << 16]).is_ok() {}
    file.set_len(file.metadata().unwrap().len() - (4 << 20)).unwrap();
    machine.ask(Machine::launch_request(&keys[2], 1, "c1", &flows[2]));
    let refused = machine.gone(&keys[2], 1).expect("it is refused");
    assert_eq!(refused.error, "Session.DiskFull", "{refused}");
    assert!(refused.message.contains(&flows[0].display().to_string()), "{refused}");
    machine.remove(&keys[0], 1);
    assert_eq!(machine.gone(&keys[0], 1), None);
    drop(file);
    fs::remove_file(&filler).unwrap();
    machine.start(&keys[2], 2, &flows[2]);
    assert_eq!(
        machine.run(&keys[2], 2, "after", &flows[2], RunWish::default()).failure,
        None
    );
    machine.remove(&keys[2], 2);
    machine.driver.let_go();
}
