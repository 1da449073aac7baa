//! The end of a run: its outputs and metrics, or why it failed.

use crate::{
    client::Client,
    global::Done,
    runfiles::{self, Remote},
    terminal::warn,
    terminal::{self, note},
    text::{self, home, out_as_said, out_json, took},
    trouble::{FAILED, Trouble},
    wish::Flow,
};
use contract::{
    Code, Failure,
    agent::RunResult,
    row::{RunRow, RunStatus},
};
use lifecycle::count;
use std::{
    io::{BufRead, BufReader},
    path::Path,
};

pub(super) fn end_of_run(client: Option<&Client>, row: &RunRow, flow: &Flow, json: bool) -> Done {
    let result = row.result.clone().unwrap_or_default();
    if let Some(warning) = &row.warning {
        warn(warning);
    }
    if json {
        out_json(row);
    } else {
        print_outputs(client, row, &result)?;
        print_metrics(&result);
    }
    if row.status != RunStatus::Completed {
        return Err(failure_of(row, result, flow));
    }
    let lines = if result.exit_code.is_some() {
        "the command".into()
    } else {
        count(result.lines, "line")
    };
    say_completed(row, &result, &lines);
    if result.failed_lines == 0 {
        return Ok(0);
    }
    let failure = result
        .failure
        .unwrap_or_else(|| Failure::new(Code::RunLinesFailed, "Its log says why."));
    Err(Trouble::of(FAILED, failure)
        .what(format!("{} of {lines} of {} failed", result.failed_lines, flow.typed))
        .output(format!("pfsession logs {}", row.id)))
}

/// The failure of a run, and what to do.
fn failure_of(row: &RunRow, result: RunResult, flow: &Flow) -> Box<Trouble> {
    let failure = row
        .failure
        .clone()
        .or(result.failure)
        .unwrap_or_else(|| Failure::new(Code::RunCanceled, "The run was canceled."));
    // A run that never began failed with the start of its session, and the whole of that is the
    // start's output.
    let output = if row.started.is_some() {
        row.id.clone()
    } else {
        format!("start-for-{}", row.id)
    };
    // Of what ended the command it has told itself; its exit code tells scripts.
    let exit = match result.exit_code.and_then(|code| u8::try_from(code).ok()) {
        Some(code) if code != 0 => code,
        _ => FAILED,
    };
    let is_missing = failure.error == Code::ConnectionNone;
    let package = missing_package(&failure).map(str::to_owned);
    let mut trouble = Trouble::of(exit, failure)
        .what(format!("the run of {} did not succeed", flow.typed))
        .also(row.also.clone());
    if is_missing {
        trouble = trouble.next("make it: pfsession connection create -f connection.yml");
    }
    if let Some(package) = package {
        trouble = trouble.next(format!(
            "if {package} has it: pfsession install {} {package}, and run again",
            flow.typed
        ));
    }
    trouble.output(format!("pfsession logs {output}"))
}

/// Says how long a completed run took, and where its outputs are.
fn say_completed(row: &RunRow, result: &RunResult, lines: &str) {
    let place = if result.stored.is_some() {
        format!(" All of it: pfsession runs download {}.", row.id)
    } else if result.folder.is_empty() {
        String::new()
    } else {
        format!(" Outputs and log: {}.", text::folder(&result.folder, home().as_deref()))
    };
    let ended = row.ended.unwrap_or(row.accepted);
    let since = row.started.unwrap_or(row.accepted);
    let waited = match since.saturating_sub(row.accepted) {
        0..200 => String::new(),
        waited => format!(", after {} for its session", took(waited)),
    };
    note!(
        "Ran {lines} in {}{waited}.{place} The session stays for the next run.",
        took(ended.saturating_sub(since))
    );
    match result.retried {
        0 => {}
        1 => note!("One line was run again, as its model provider had turned it away."),
        times => note!("Lines were run again {times} times, as their model provider had turned them away."),
    }
}

/// The package of the module that a flow's code did not find.
fn missing_package(failure: &Failure) -> Option<&str> {
    let (_, rest) = failure.message.split_once("No module named '")?;
    let module = rest
        .split('\'')
        .next()
        .filter(|_| failure.error == Code::RunImportFailed)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    Some(::flow::package_of(module)).filter(|package| package.bytes().all(is_name))
}

/// The outputs, one JSON object a line: as the answer has them, or else from the run's folder, or
/// from the store.
fn print_outputs(client: Option<&Client>, row: &RunRow, result: &RunResult) -> Result<(), Box<Trouble>> {
    let stored = || match client.filter(|_| result.stored.is_some()) {
        Some(client) => Remote::open(client, &row.id, runfiles::OUTPUTS, false),
        None => Ok(None),
    };
    let file = Path::new(&result.folder).join("output/outputs.jsonl");
    if !result.outputs.is_empty() {
        result.outputs.iter().for_each(out_json);
    } else if let Ok(file) = std::fs::File::open(&file) {
        BufReader::new(file)
            .lines()
            .map_while(Result::ok)
            .for_each(|line| out_as_said(&line));
    } else if let Some(remote) = stored()? {
        for line in remote.lines() {
            out_as_said(&line.map_err(|error| runfiles::unread(&error))?);
        }
    } else if result.lines > 0 {
        let place = file.display();
        terminal::warn(&format!(
            "The outputs are larger than an answer carries. They are in {place}."
        ));
    }
    Ok(())
}

/// The metrics of the flow's aggregation: from the run's folder, where it is exact, or else as the
/// answer has it.
fn print_metrics(result: &RunResult) {
    let written = std::fs::read_to_string(Path::new(&result.folder).join("metrics.json"));
    match written {
        Ok(text) => note!("Metrics: {}", text.trim_end()),
        Err(_) if !result.metrics.is_empty() => {
            let metrics = serde_json::Value::from(result.metrics.clone());
            note!("Metrics: {metrics}");
        }
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::FlowRef;

    #[test]
    fn a_run_that_was_canceled_says_so() {
        let flow = Flow {
            reference: FlowRef {
                workspace: "lab".into(),
                owner: "ann".into(),
                lineage: "/flow".into(),
            },
            typed: "flow".into(),
            named: None,
        };
        let sample = include_str!("../../../../../events/table/run/valid/canceled.json");
        let mut row: RunRow = serde_json::from_str(sample).unwrap();
        row.failure = None;
        let trouble = end_of_run(None, &row, &flow, false).unwrap_err();
        expect_test::expect![[r#"
            error: the run of flow did not succeed: The run was canceled. [Run.Canceled]
              whole output: pfsession logs start-for-run-2"#]]
        .assert_eq(&trouble.to_string());
    }
}
