//! `pfsession runs`: runs as things.

use crate::{
    args::{ListRuns, Runs as Typed},
    client::Client,
    commands::{self, Done, Service},
    diff,
    runfiles::{self, Line, Remote},
    show,
    terminal::note,
    text::{self, home, out, out_as_said, out_json, out_text},
    trouble::{FAILED, NONE, Trouble, USAGE},
    visualize, watch, wish,
};
use contract::{
    command::Wish,
    http::{RunChange, RunSummary, Runs, SessionView, encoded},
    row::{RunRow, RunStatus},
};
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{Read, Write},
    path::Path,
    sync::Arc,
};

pub(crate) fn execute(service: &Service<'_>, typed: &Typed) -> Done {
    let client = service.client()?;
    let json = service.global.json;
    match typed {
        Typed::List(wanted) => list(&client, wanted, json),
        Typed::Show { run, nodes } => show(&client, run, *nodes, json),
        Typed::Details { run } => details(&client, &find(&client, run)?, json),
        Typed::Metrics { run } => metrics(&client, &find(&client, run)?),
        Typed::Outputs { run } => outputs(&client, &find(&client, run)?),
        Typed::Logs { run, follow } => {
            let row = find(&client, run)?;
            commands::logs_of(&client, &row.id, *follow, json)
        }
        Typed::Rename { run, name } => {
            let change = RunChange {
                display_name: Some(name.clone()),
                ..RunChange::default()
            };
            change_of(&client, run, &change, json, &format!("is called {name} now"))
        }
        Typed::Archive { run } => {
            let change = RunChange {
                archived: Some(true),
                ..RunChange::default()
            };
            let done = format!("is left out of lists. Take it back: pfsession runs restore {run}");
            change_of(&client, run, &change, json, &done)
        }
        Typed::Restore { run } => {
            let change = RunChange {
                archived: Some(false),
                ..RunChange::default()
            };
            change_of(&client, run, &change, json, "is in lists again")
        }
        Typed::Delete { run } => delete(&client, run, json),
        Typed::Diff { before, after } => {
            let (before, after) = (find(&client, before)?, find(&client, after)?);
            diff::diff(&client, &before, &after, json)
        }
        Typed::Visualize { runs, out } => {
            let rows = runs
                .iter()
                .map(|run| find(&client, run))
                .collect::<Result<Vec<_>, _>>()?;
            visualize::visualize(&client, &rows, out.as_deref(), json)
        }
        Typed::Cancel { run } => cancel(&client, run, json),
        Typed::Download { run, to } => download(&client, &find(&client, run)?, to.as_deref(), json),
    }
}

/// The run of this name.
///
/// # Errors
///
/// `Run.None` with the nearest name, if there is no such run.
pub(crate) fn find(client: &Client, run: &str) -> Result<RunRow, Box<Trouble>> {
    if contract::command::is_good_id(run)
        && let Some(row) = client.find::<RunRow>(&format!("/v1/runs/{run}"))?
    {
        return Ok(row);
    }
    // That there is no list to look for it in is no other failure.
    let known: Runs = client.get("/v1/runs?limit=100").unwrap_or(Runs {
        runs: Vec::new(),
        next: None,
    });
    Err(none(
        run,
        flow::nearest(run, known.runs.iter().map(|run| run.id.as_str())),
    ))
}

fn none(run: &str, nearest: Option<&str>) -> Box<Trouble> {
    let trouble = Trouble::new(
        NONE,
        "Run.None",
        format!("There is no run {run}, or none that you may see"),
    );
    match nearest {
        Some(name) => trouble.next(format!("is {name} meant? See what there is: pfsession runs list")),
        None => trouble.next("see what there is: pfsession runs list"),
    }
}

fn list(client: &Client, wanted: &ListRuns, json: bool) -> Done {
    let mut query = Vec::new();
    if let Some(what) = &wanted.flow {
        let flow = wish::find_flow(client, what)?.ok_or_else(|| wish::nothing_of(what))?;
        query.push(format!("flow={}", flow.key()));
    }
    for (name, value) in [("name", &wanted.name), ("tag", &wanted.tag)] {
        query.extend(value.as_ref().map(|value| format!("{name}={}", encoded(value))));
    }
    query.extend(wanted.status.map(|status| format!("status={}", status.word())));
    if wanted.archived {
        query.push("archived=1".into());
    }
    let mut left = if wanted.all { usize::MAX } else { wanted.limit as usize };
    let mut after = wanted.after.clone();
    let mut runs: Vec<RunSummary> = Vec::new();
    while left > 0 {
        let mut query = query.clone();
        query.push(format!("limit={}", left.min(100)));
        query.extend(after.as_ref().map(|after| format!("after={}", encoded(after))));
        let page: Runs = client.get(&format!("/v1/runs?{}", query.join("&")))?;
        left = left.saturating_sub(page.runs.len());
        runs.extend(page.runs);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if json {
        out_json(&Runs { runs, next: after });
    } else if runs.is_empty() {
        note!("There is no such run. See all: pfsession runs list --all; those that are archived: --archived");
    } else {
        out(&show::runs(&runs, home().as_deref()));
        if let Some(after) = after {
            note!("There are more: pfsession runs list --after {after}, or --all");
        }
    }
    Ok(0)
}

fn show(client: &Client, run: &str, nodes: bool, json: bool) -> Done {
    let row = find(client, run)?;
    if !nodes {
        if json {
            out_json(&row)
        } else {
            out(&show::run(&row, home().as_deref()))
        }
        return Ok(0);
    }
    let mut found = false;
    for (node, path) in node_files(client, &row)? {
        let Some(file) = Remote::open(client, &row.id, &path, false)? else {
            continue;
        };
        for line in file.lines() {
            let line = line.map_err(|error| runfiles::unread(&error))?;
            let value = runfiles::value(&line);
            found = true;
            if json {
                out_json(&value);
            } else if let Ok(record) = serde_json::from_value(value) {
                out(&show::node(&node, &record));
            }
        }
    }
    if !found {
        note!("The run {} has no records of nodes.", row.id);
    }
    Ok(0)
}

/// The records of a run's nodes: each node, and the file that they are in.
pub(crate) fn node_files(client: &Client, row: &RunRow) -> Result<Vec<(String, String)>, Box<Trouble>> {
    let files = runfiles::list(client, &row.id)?
        .map(|all| all.files)
        .unwrap_or_default();
    let node = |path: &str| Some(path.strip_prefix(runfiles::NODE_RECORDS)?.split_once('/')?.0.to_owned());
    Ok(files
        .into_iter()
        .filter_map(|file| Some((node(&file.path)?, file.path)))
        .collect())
}

fn details(client: &Client, row: &RunRow, json: bool) -> Done {
    let lines = runfiles::lines(client, row)?;
    if json {
        for line in lines {
            out_json(&line?);
        }
        return Ok(0);
    }
    let lines = lines.collect::<Result<Vec<Line>, _>>()?;
    if lines.is_empty() {
        note!(
            "The run {} has no lines{}.",
            row.id,
            if row.status.is_final() { "" } else { " yet" }
        );
    } else {
        out(&show::details(&lines));
    }
    Ok(0)
}

/// The metrics of the flow's aggregation, exactly as they are written.
pub(crate) fn metrics_of(client: &Client, row: &RunRow) -> Result<String, Box<Trouble>> {
    if let Some(mut file) = Remote::open(client, &row.id, "metrics.json", false)? {
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|error| runfiles::unread(&error))?;
        return Ok(text.trim_end().to_owned());
    }
    let metrics = row.result.clone().unwrap_or_default().metrics;
    Ok(Value::from(metrics).to_string())
}

fn metrics(client: &Client, row: &RunRow) -> Done {
    // They are JSON in any case.
    out_as_said(&metrics_of(client, row)?);
    Ok(0)
}

fn outputs(client: &Client, row: &RunRow) -> Done {
    for line in runfiles::lines(client, row)? {
        out_as_said(&line?.text);
    }
    Ok(0)
}

fn change_of(client: &Client, run: &str, change: &RunChange, json: bool, done: &str) -> Done {
    let row = find(client, run)?;
    let row: RunRow = client.change(&format!("/v1/runs/{}", row.id), change)?;
    if json {
        out_json(&row);
    } else {
        note!("The run {} {done}.", row.id);
    }
    Ok(0)
}

fn delete(client: &Client, run: &str, json: bool) -> Done {
    let row = find(client, run)?;
    let row: RunRow = client.delete(&format!("/v1/runs/{}", row.id))?;
    if json {
        out_json(&row);
    } else {
        note!("The run {} is deleted, with its outputs and its log.", row.id);
    }
    Ok(0)
}

fn has_ended(row: &RunRow) -> Box<Trouble> {
    let how = show::run_status(row.status);
    let message = format!(
        "The run {} has ended already ({how}); there is nothing to cancel",
        row.id
    );
    Trouble::new(USAGE, "Run.HasEnded", message).next(format!("see what came of it: pfsession runs show {}", row.id))
}

fn would_overwrite(to: &Path) -> Box<Trouble> {
    let message = format!("{} is there already, and nothing is written over", to.display());
    Trouble::new(USAGE, "Command.WouldOverwrite", message).next("name another folder: --to FOLDER")
}

fn cancel(client: &Arc<Client>, run: &str, json: bool) -> Done {
    let row = find(client, run)?;
    if row.status.is_final() {
        return Err(has_ended(&row));
    }
    let flow = match row.of {
        Some(flow) => flow,
        None => client.get::<SessionView>(&format!("/v1/sessions/{}", row.flow))?.flow,
    };
    let id = format!("cancel-{}", wish::random::<6>());
    client.send(&commands::command(&id, &flow, Wish::Cancel { run: row.id.clone() }))?;
    let row: RunRow = watch::until_end(client, &row.id)?;
    match row.status {
        RunStatus::Canceled => {
            if json {
                out_json(&row);
            } else {
                note!("The run {} is canceled. Its session stays.", row.id);
            }
            Ok(0)
        }
        _ => Err(has_ended(&row)),
    }
}

fn download(client: &Client, row: &RunRow, to: Option<&Path>, json: bool) -> Done {
    let Some(all) = runfiles::list(client, &row.id)? else {
        return Err(runfiles::elsewhere(row));
    };
    let to = to.map_or_else(|| Path::new(&row.id).to_owned(), Path::to_owned);
    let failed = |error: std::io::Error| {
        let message = format!("{} cannot be written: {error}", to.display());
        Trouble::new(FAILED, "Command.NotWritten", message).next("name another folder: --to FOLDER")
    };
    if to.exists() {
        return Err(would_overwrite(&to));
    }
    let mut bytes = 0;
    for file in &all.files {
        // The service lists what is below the run's folder; what it says is checked all the same.
        let is_below = Path::new(&file.path)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        let Some(mut remote) = Remote::open(client, &row.id, &file.path, false)?.filter(|_| is_below) else {
            continue;
        };
        let place = to.join(&file.path);
        fs::create_dir_all(place.parent().unwrap_or(&to)).map_err(failed)?;
        let mut copy = fs::File::create(&place).map_err(failed)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = remote.read(&mut buffer).map_err(|error| runfiles::unread(&error))?;
            if read == 0 {
                break;
            }
            copy.write_all(&buffer[..read]).map_err(failed)?;
            bytes += read as u64;
        }
    }
    if json {
        out_json(&json!({ "run": row.id, "folder": to, "files": all.files.len(), "bytes": bytes }));
    } else {
        out(&text::folder(&to.display().to_string(), home().as_deref()));
        note!("{} files, {bytes} bytes.", all.files.len());
    }
    Ok(0)
}

/// Prints a log as it is; of a line that a terminal would be full of, the beginning, and where the whole is.
pub(crate) fn print_log(mut log: impl Read, place: &str) -> std::io::Result<bool> {
    let is_terminal = text::is_terminal();
    let mut buffer = vec![0; 1 << 16];
    let (mut line, mut cut, mut said): (Vec<u8>, u64, bool) = (Vec::new(), 0, false);
    let end_line = |line: &mut Vec<u8>, cut: &mut u64| {
        let text = String::from_utf8_lossy(line).into_owned();
        match *cut {
            0 => out_as_said(&text),
            more => out_as_said(&format!(
                "{text}… (cut here, {more} bytes more; the whole line is in {place})"
            )),
        }
        line.clear();
        *cut = 0;
    };
    loop {
        let read = log.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        said = true;
        if !is_terminal {
            out_text(&buffer[..read]);
            continue;
        }
        for (index, piece) in buffer[..read].split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                end_line(&mut line, &mut cut);
            }
            let room = LONGEST_SHOWN.saturating_sub(line.len()).min(piece.len());
            line.extend_from_slice(&piece[..room]);
            cut += (piece.len() - room) as u64;
        }
    }
    if !line.is_empty() {
        end_line(&mut line, &mut cut);
    }
    Ok(said)
}

/// The most bytes of a line that a terminal gets.
const LONGEST_SHOWN: usize = 16 << 10;

/// An object's members as one text, for a table.
pub(crate) fn members(value: &Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members.clone(),
        other => Map::from_iter([("output".to_owned(), other.clone())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn what_cannot_be_done_with_a_run_says_why_and_what_to_do() {
        let row: RunRow = serde_json::from_str(include_str!("../../../events/table/run/valid/completed.json")).unwrap();
        let all = [
            none("thre", Some("three")),
            none("x", None),
            has_ended(&row),
            would_overwrite(Path::new("copy")),
            runfiles::elsewhere(&row),
            runfiles::unread(&std::io::Error::other("the service does not answer")),
            wish::not_resumable("run-1", "it is a command, which has no lines"),
        ]
        .map(|trouble| trouble.to_string());
        expect![[r#"
            error: There is no run thre, or none that you may see [Run.None]
              next: is three meant? See what there is: pfsession runs list
            error: There is no run x, or none that you may see [Run.None]
              next: see what there is: pfsession runs list
            error: The run run-2 has ended already (completed); there is nothing to cancel [Run.HasEnded]
              next: see what came of it: pfsession runs show run-2
            error: copy is there already, and nothing is written over [Command.WouldOverwrite]
              next: name another folder: --to FOLDER
            error: The outputs of run-2 are larger than an answer carries, and this service does not see /home/alice/.pfsession/runs/run-2 [Run.FilesElsewhere]
              next: read them there, or have the flow write less
            error: A file of the run was not read to its end: the service does not answer [Run.Unread]
              next: try again
            error: The run run-1 cannot be resumed: it is a command, which has no lines [Run.NotResumable]
              next: run the flow anew: pfsession run FLOW --data FILE"#]].assert_eq(&all.join("\n"));
    }

    #[test]
    fn a_log_goes_on_as_it_is_where_no_terminal_is() {
        assert!(print_log(&b""[..], "x").is_ok_and(|said| !said));
    }
}
