//! How sessions, operations, runs and histories look to a person.

use crate::text::{clock, folder, phase, took};
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use contract::{
    Kind, Millis, Outcome, Phase, Step,
    http::SessionView,
    row::{LogRow, OperationRow, OperationStatus, RunRow, RunStatus},
};
use lifecycle::session::Event;

/// How much of a key is shown.
const KEY: usize = 8;

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if !head.is_empty() {
        table.set_header(head.iter().map(|name| Cell::new(name).add_attribute(Attribute::Dim)));
    }
    table
}

fn rendered(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

fn phase_cell(at: Phase) -> Cell {
    let cell = Cell::new(phase(at));
    match at {
        Phase::Ready => cell.fg(Color::Green),
        Phase::Failed => cell.fg(Color::Red),
        Phase::Stopped => cell.add_attribute(Attribute::Dim),
        Phase::Provisioning | Phase::Launching | Phase::Installing | Phase::Stopping => cell.fg(Color::Yellow),
    }
}

pub(crate) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Start => "start",
        Kind::Install => "install",
        Kind::Update => "update",
        Kind::Reset => "reset",
        Kind::Stop => "stop",
    }
}

fn ago(now: Millis, then: Millis) -> String {
    format!("{} ago", took(rounded(now.saturating_sub(then))))
}

fn ahead(now: Millis, then: Millis) -> String {
    format!("in {}", took(rounded(then.saturating_sub(now))))
}

/// To the second, from a second on: more than that says nothing in a table.
fn rounded(millis: Millis) -> Millis {
    if millis < 60_000 { millis } else { millis / 1000 * 1000 }
}

/// Sessions, one a line.
pub(crate) fn list(sessions: &[SessionView], home: Option<&str>) -> String {
    let mut table = table(&["KEY", "FLOW", "PHASE", "DOING", "RUNS", "LAST USED", "DELETED"]);
    for session in sessions {
        let doing = session.current.as_ref().map_or("", |operation| kind(operation.kind));
        let next = session
            .next
            .as_ref()
            .map(|operation| format!(", then {}", kind(operation.kind)))
            .unwrap_or_default();
        table.add_row([
            Cell::new(&session.key[..KEY.min(session.key.len())]),
            Cell::new(folder(&session.flow.lineage, home)),
            phase_cell(session.phase),
            Cell::new(format!("{doing}{next}")),
            Cell::new(session.runs.len()),
            Cell::new(ago(session.now, session.last_activity)),
            Cell::new(session.idle_due.map(|due| ahead(session.now, due)).unwrap_or_default()),
        ]);
    }
    rendered(table)
}

fn pairs(rows: Vec<(&str, Cell)>) -> String {
    let mut table = table(&[]);
    for (name, value) in rows {
        table.add_row([Cell::new(name).add_attribute(Attribute::Dim), value]);
    }
    rendered(table)
}

/// One session.
pub(crate) fn session(session: &SessionView, home: Option<&str>) -> String {
    let mut rows = vec![
        ("flow", Cell::new(folder(&session.flow.lineage, home))),
        (
            "owner",
            Cell::new(format!(
                "{} in workspace {}",
                session.flow.owner, session.flow.workspace
            )),
        ),
        ("key", Cell::new(&session.key)),
        ("phase", phase_cell(session.phase)),
        ("generation", Cell::new(session.generation)),
        ("size", Cell::new(&session.settings.size)),
        (
            "identity",
            Cell::new(session.settings.identity.as_deref().unwrap_or("the user's own")),
        ),
        (
            "base image",
            Cell::new(
                session
                    .settings
                    .image
                    .as_deref()
                    .unwrap_or("as the flow says, or the default"),
            ),
        ),
        ("idle time", Cell::new(took(session.settings.idle))),
    ];
    if session.settings.folder != session.flow.lineage {
        rows.insert(1, ("folder", Cell::new(folder(&session.settings.folder, home))));
    }
    if let Some(compute) = &session.compute {
        rows.push(("compute", Cell::new(compute)));
    }
    for (name, operation) in [("doing", &session.current), ("waiting", &session.next)] {
        if let Some(operation) = operation {
            rows.push((name, Cell::new(format!("{} ({})", kind(operation.kind), operation.id))));
        }
    }
    if !session.runs.is_empty() {
        rows.push(("runs", Cell::new(session.runs.join("\n"))));
    }
    rows.push(("last used", Cell::new(ago(session.now, session.last_activity))));
    if let Some(due) = session.idle_due {
        rows.push((
            "deleted",
            Cell::new(format!("{}, if nobody uses it before", ahead(session.now, due))),
        ));
    }
    if let Some(failure) = &session.failure {
        rows.push((
            "failure",
            Cell::new(format!("{} [{}]", failure.message, failure.error)).fg(Color::Red),
        ));
        rows.push((
            "whole output",
            Cell::new(format!("pfsession logs {}", &session.key[..KEY.min(session.key.len())])),
        ));
    }
    pairs(rows)
}

/// One operation.
pub(crate) fn operation(row: &OperationRow) -> String {
    let status = match row.status {
        OperationStatus::InProgress => Cell::new("in progress").fg(Color::Yellow),
        OperationStatus::Joined => Cell::new("joined").fg(Color::Yellow),
        OperationStatus::Succeeded => Cell::new("succeeded").fg(Color::Green),
        OperationStatus::Failed => Cell::new("failed").fg(Color::Red),
        OperationStatus::Canceled => Cell::new("canceled").fg(Color::Yellow),
    };
    let mut rows = vec![
        ("operation", Cell::new(&row.id)),
        ("kind", Cell::new(kind(row.kind))),
        ("session", Cell::new(&row.flow)),
        ("status", status),
        ("wanted by", Cell::new(&row.by)),
        ("accepted", Cell::new(clock(row.accepted))),
    ];
    if let Some(ended) = row.ended {
        rows.push((
            "ended",
            Cell::new(format!(
                "{} (after {})",
                clock(ended),
                took(ended.saturating_sub(row.accepted))
            )),
        ));
    }
    if let Some(joined) = &row.joined {
        rows.push(("ends with", Cell::new(joined)));
    }
    if let Some(warning) = &row.warning {
        rows.push(("warning", Cell::new(warning).fg(Color::Yellow)));
    }
    if let Some(failure) = &row.failure {
        rows.push((
            "failure",
            Cell::new(format!("{} [{}]", failure.message, failure.error)).fg(Color::Red),
        ));
    }
    rows.push((
        "whole output",
        Cell::new(format!("pfsession logs {}", row.joined.as_ref().unwrap_or(&row.id))),
    ));
    pairs(rows)
}

/// One run.
pub(crate) fn run(row: &RunRow, home: Option<&str>) -> String {
    let status = match row.status {
        RunStatus::NotStarted => Cell::new("not started").fg(Color::Yellow),
        RunStatus::Running => Cell::new("running").fg(Color::Yellow),
        RunStatus::Completed => Cell::new("completed").fg(Color::Green),
        RunStatus::Failed => Cell::new("failed").fg(Color::Red),
        RunStatus::Canceled => Cell::new("canceled").fg(Color::Yellow),
    };
    let mut rows = vec![
        ("run", Cell::new(&row.id)),
        ("session", Cell::new(&row.flow)),
        ("status", status),
        ("wanted by", Cell::new(&row.by)),
        ("accepted", Cell::new(clock(row.accepted))),
    ];
    if let Some(started) = row.started {
        rows.push((
            "started",
            Cell::new(format!(
                "{} (after {})",
                clock(started),
                took(started.saturating_sub(row.accepted))
            )),
        ));
    }
    if let Some(ended) = row.ended {
        let since = row.started.unwrap_or(row.accepted);
        rows.push((
            "ended",
            Cell::new(format!(
                "{} (after {})",
                clock(ended),
                took(ended.saturating_sub(since))
            )),
        ));
    }
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

/// A history, oldest first.
pub(crate) fn events(events: &[LogRow]) -> String {
    let mut table = table(&["TIME", "AFTER", "PHASE", "GENERATION", "WHAT", "BY"]);
    let mut before = None;
    for row in events {
        let after = before
            .map(|at| took(rounded(row.at.saturating_sub(at))))
            .unwrap_or_default();
        before = Some(row.at);
        let at = if row.from == row.to {
            phase(row.to).into()
        } else {
            format!("{} → {}", phase(row.from), phase(row.to))
        };
        let cell = Cell::new(at);
        table.add_row([
            Cell::new(clock(row.at)),
            Cell::new(after),
            if row.from == row.to {
                cell.add_attribute(Attribute::Dim)
            } else {
                cell
            },
            Cell::new(row.generation),
            Cell::new(what_happened(&row.event)),
            Cell::new(&row.by),
        ]);
    }
    rendered(table)
}

fn what_happened(event: &Event) -> String {
    let because = |failure: &Option<contract::Failure>| failure.as_ref().map(|f| format!(": {f}")).unwrap_or_default();
    match event {
        Event::Wanted { operation } => format!("{} wanted ({})", kind(operation.kind), operation.id),
        Event::IdleSeen { operation, .. } => format!("idle for too long, so stop wanted ({operation})"),
        Event::RunWanted { run, .. } => format!("run wanted ({run})"),
        Event::StepEntered { step, cause, .. } => format!("step {} began{}", step_name(*step), because(cause)),
        Event::StepRefused { failure, .. } => format!("step refused: {failure}"),
        Event::ComputeUp { compute } => format!("compute {compute} is up"),
        Event::ComputeGone { compute, why } => format!("compute {compute} is gone: {why}"),
        Event::SessionUp { .. } => "container is up".into(),
        Event::SessionGone { failure, .. } => format!("container is gone{}", because(failure)),
        Event::Installed { warning: None, .. } => "packages installed".into(),
        Event::Installed {
            warning: Some(warning), ..
        } => format!("packages installed, with a warning: {warning}"),
        Event::InstallFailed { failure, .. } => format!("packages not installed: {failure}"),
        Event::Alive { runs, .. } => format!("agent is alive, {} runs", runs.len()),
        Event::RunDone {
            run, outcome, failure, ..
        } => {
            let how = match outcome {
                Outcome::Succeeded => "succeeded",
                Outcome::Failed => "failed",
                Outcome::Canceled => "canceled",
            };
            format!("run {run} {how}{}", because(failure))
        }
        Event::Activity { .. } => "used".into(),
        Event::Tick => "time passed".into(),
    }
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::ClaimCompute => "claim-compute",
        Step::LaunchSession => "launch-session",
        Step::InstallPackages => "install-packages",
        Step::StopSession => "stop-session",
        Step::CleanUp => "clean-up",
    }
}
