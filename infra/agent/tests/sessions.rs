//! Real sessions that run real flows, on this machine.
//!
//! It is its own agent program, so it has no test harness: an argument is a part of the names of the tests to run.

#[path = "common/mod.rs"]
mod common;

use common::{DAG, Machine, flow, state};
use contract::{agent::RunResult, command::RunWish};
use serde_json::json;
use std::{collections::BTreeMap, panic::AssertUnwindSafe, path::Path, time::Instant};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "agent") {
        return agent::supervise();
    }
    let tests: &[(&str, fn())] = &[(
        "a_dag_flow_runs_over_lines_of_data_and_keeps_their_order",
        a_dag_flow_runs_over_lines_of_data_and_keeps_their_order,
    )];
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return Ok(());
    }
    let mut failed = Vec::new();
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
        column_mapping: BTreeMap::from([("name".into(), "${data.who}".into())]),
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

fn unique(name: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    )
}
