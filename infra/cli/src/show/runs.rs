//! Runs and their lines.

use crate::{
    runfiles::{Line, Record, members},
    table::{pairs, render, table},
    text::{clock, folder, took},
};
use comfy_table::{Cell, Color};
use contract::{
    Millis,
    http::RunSummary,
    row::{RunRow, RunStatus},
};

/// The name of a run's status.
pub(crate) fn run_status(status: RunStatus) -> &'static str {
    match status {
        RunStatus::NotStarted => "not started",
        RunStatus::Running => "running",
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Canceled => "canceled",
    }
}

pub(super) fn status_cell(status: RunStatus) -> Cell {
    Cell::new(run_status(status)).fg(match status {
        RunStatus::NotStarted | RunStatus::Running | RunStatus::Canceled => Color::Yellow,
        RunStatus::Completed => Color::Green,
        RunStatus::Failed => Color::Red,
    })
}

/// A page of runs, newest first.
pub(crate) fn runs(runs: &[RunSummary], home: Option<&str>) -> String {
    let mut table = table(&["RUN", "FLOW", "STATUS", "LINES", "FAILED", "ACCEPTED", "TOOK", "NAME"]);
    for run in runs {
        let number = |count: Option<u64>| Cell::new(count.map(|count| count.to_string()).unwrap_or_default());
        let since = run.started.unwrap_or(run.accepted);
        table.add_row([
            Cell::new(&run.id),
            Cell::new(folder(&run.flow.lineage, home)),
            status_cell(run.status),
            number(run.lines),
            number(run.failed_lines.filter(|count| *count > 0)),
            Cell::new(clock(run.accepted)),
            Cell::new(
                run.ended
                    .map(|ended| took(ended.saturating_sub(since)))
                    .unwrap_or_default(),
            ),
            Cell::new(run.display_name.as_deref().unwrap_or_default()),
        ]);
    }
    render(table)
}

/// The most characters of a value in a table of lines.
pub(super) const CELL: usize = 60;

/// A value in a table: one that is cut ends so.
pub(super) fn brief(value: &serde_json::Value) -> String {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let text = text.replace('\n', "\\n");
    match text.char_indices().nth(CELL) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The lines of a run: a column for each input and output. What is cut ends with an ellipsis.
pub(crate) fn details(lines: &[Line]) -> String {
    let mut columns: Vec<(bool, String)> = Vec::new();
    let part = |line: &Line, is_output: bool| match is_output {
        false => line.inputs.as_ref().map(members).unwrap_or_default(),
        true => line.output.as_ref().map(members).unwrap_or_default(),
    };
    for is_output in [false, true] {
        for line in lines {
            for name in part(line, is_output).keys() {
                // Promptflow adds the number of the line to the inputs.
                let column = (is_output, name.clone());
                if name != "line_number" && !columns.contains(&column) {
                    columns.push(column);
                }
            }
        }
    }
    let named = columns
        .iter()
        .map(|(is_output, name)| format!("{}.{name}", if *is_output { "outputs" } else { "inputs" }));
    let head: Vec<String> = ["line".to_owned(), "status".to_owned()]
        .into_iter()
        .chain(named)
        .chain(["error".to_owned()])
        .collect();
    let mut table = table(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for line in lines {
        let (inputs, outputs) = (part(line, false), part(line, true));
        let color = if line.status == "Completed" {
            Color::Green
        } else {
            Color::Red
        };
        let mut cells = vec![
            Cell::new(line.line_number),
            Cell::new(line.status.to_lowercase()).fg(color),
        ];
        cells.extend(columns.iter().map(|(is_output, name)| {
            let of = if *is_output { &outputs } else { &inputs };
            Cell::new(of.get(name).map(brief).unwrap_or_default())
        }));
        cells.push(Cell::new(
            line.error.as_ref().map(ToString::to_string).unwrap_or_default(),
        ));
        table.add_row(cells);
    }
    render(table)
}

/// A node's work in a line.
pub(crate) fn node(node: &str, record: &Record) -> String {
    let info = &record.run_info;
    let text = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string).unwrap_or_default();
    let line = record
        .line_number
        .map_or("aggregation".to_owned(), |number| format!("line {number}"));
    let mut rows = vec![
        ("node", Cell::new(format!("{node}, {line}"))),
        ("status", Cell::new(record.status.as_deref().unwrap_or_default())),
        ("inputs", Cell::new(text(&info.inputs))),
        ("output", Cell::new(text(&info.output))),
    ];
    if let Some(seconds) = info.duration() {
        rows.push(("took", Cell::new(took((seconds * 1000.0) as Millis))));
    }
    if let Some(tokens) = info.tokens().filter(|count| *count > 0) {
        rows.push(("tokens", Cell::new(tokens)));
    }
    if let Some(message) = info.error.as_ref().and_then(|error| error.get("message")?.as_str()) {
        rows.push(("error", Cell::new(message).fg(Color::Red)));
    }
    for stream in ["stdout", "stderr"] {
        let said = info
            .logs
            .as_ref()
            .and_then(|logs| logs.get(stream)?.as_str())
            .unwrap_or_default();
        if !said.is_empty() {
            rows.push((stream, Cell::new(said.trim_end())));
        }
    }
    pairs(rows)
}

/// The times of the start and the end of a run, each with its distance.
fn times(row: &RunRow) -> Vec<(&'static str, Cell)> {
    let cell = |at: u64, since: u64| Cell::new(format!("{} (after {})", clock(at), took(at.saturating_sub(since))));
    let started = row.started.map(|started| ("started", cell(started, row.accepted)));
    let since = row.started.unwrap_or(row.accepted);
    let ended = row.ended.map(|ended| ("ended", cell(ended, since)));
    started.into_iter().chain(ended).collect()
}

/// One run.
pub(crate) fn run(row: &RunRow, home: Option<&str>) -> String {
    let status = status_cell(row.status);
    let mut rows = vec![
        ("run", Cell::new(&row.id)),
        ("session", Cell::new(&row.flow)),
        ("status", status),
        ("wanted by", Cell::new(&row.by)),
        ("accepted", Cell::new(clock(row.accepted))),
    ];
    rows.extend(row.display_name().map(|text| ("name", Cell::new(text))));
    let description = row.wish.description.as_ref();
    rows.extend(description.map(|text| ("description", Cell::new(text))));
    for (name, texts) in [("tags", &row.wish.tags), ("properties", &row.wish.properties)] {
        let lines: Vec<String> = texts.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        if !lines.is_empty() {
            rows.push((name, Cell::new(lines.join("\n"))));
        }
    }
    rows.extend(times(row));
    if let Some(data) = &row.wish.data {
        rows.push(("data", Cell::new(folder(data, home))));
    }
    if let Some(result) = &row.result {
        rows.push((
            "lines",
            Cell::new(format!("{}, of which {} failed", result.lines, result.failed_lines)),
        ));
        rows.push(("output", Cell::new(folder(&result.folder, home))));
    }
    if let Some(warning) = &row.warning {
        rows.push(("warning", Cell::new(warning).fg(Color::Yellow)));
    }
    if let Some(failure) = row
        .failure
        .as_ref()
        .or(row.result.as_ref().and_then(|result| result.failure.as_ref()))
    {
        rows.push((
            "failure",
            Cell::new(format!("{} [{}]", failure.message, failure.error)).fg(Color::Red),
        ));
    }
    rows.push(("log", Cell::new(format!("pfsession logs {}", row.id))));
    pairs(rows)
}
