//! `pfsession runs`: runs as things.

mod change;
mod diff;
mod download;
mod list;
mod read;
mod visualize;

use crate::{
    client::Client,
    command::family,
    runfiles::{self, Remote},
    trouble::{NONE, Trouble},
};
use change::{Archive, Cancel, Delete, Rename, Restore};
use contract::route::Route;
use contract::{Code, http, row::RunRow};
use diff::Diff;
use download::Download;
use list::List;
use read::{Details, Logs, Metrics, Outputs, Show};
use serde_json::Value;
use std::io::Read;
use visualize::Visualize;

family! {
    /// List, show, compare, cancel and delete runs
    Runs {
        List(List),
        Show(Show),
        Details(Details),
        Metrics(Metrics),
        Outputs(Outputs),
        Logs(Logs),
        Rename(Rename),
        Archive(Archive),
        Restore(Restore),
        Delete(Delete),
        Diff(Diff),
        Visualize(Visualize),
        Cancel(Cancel),
        Download(Download),
    }
}

/// The run of this name.
///
/// # Errors
///
/// `Run.None` with the nearest name, if there is no such run.
pub(crate) fn find(client: &Client, run: &str) -> Result<RunRow, Box<Trouble>> {
    if contract::command::is_good_id(run)
        && let Some(row) = client.find::<RunRow>(Route::Run(run))?
    {
        return Ok(row);
    }
    // That there is no list to look for it in is no other failure.
    let known: http::Runs = client.get(Route::Runs.with("limit", 100)).unwrap_or(http::Runs {
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
        Code::RunNone,
        format!("There is no run {run}, or none that you may see"),
    );
    match nearest {
        Some(name) => trouble.next(format!("is {name} meant? See what there is: pfsession runs list")),
        None => trouble.next("see what there is: pfsession runs list"),
    }
}

/// The records of a run's nodes: each node, and the file that they are in.
fn node_files(client: &Client, row: &RunRow) -> Result<Vec<(String, String)>, Box<Trouble>> {
    let files = runfiles::list(client, &row.id)?
        .map(|all| all.files)
        .unwrap_or_default();
    let node = |path: &str| Some(path.strip_prefix(runfiles::NODE_RECORDS)?.split_once('/')?.0.to_owned());
    Ok(files
        .into_iter()
        .filter_map(|file| Some((node(&file.path)?, file.path)))
        .collect())
}

/// The metrics of the flow's aggregation, exactly as they are written.
fn metrics_of(client: &Client, row: &RunRow) -> Result<String, Box<Trouble>> {
    if let Some(mut file) = Remote::open(client, &row.id, "metrics.json", false)? {
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|error| runfiles::unread(&error))?;
        return Ok(text.trim_end().to_owned());
    }
    let metrics = row.result.clone().unwrap_or_default().metrics;
    Ok(Value::from(metrics).to_string())
}

#[cfg(test)]
mod tests {
    use super::{change::has_ended, download::would_overwrite, *};
    use crate::commands::run::order::not_resumable;
    use expect_test::expect;
    use std::path::Path;

    #[test]
    fn what_cannot_be_done_with_a_run_says_why_and_what_to_do() {
        let row: RunRow =
            serde_json::from_str(include_str!("../../../../../events/table/run/valid/completed.json")).unwrap();
        let all = [
            none("thre", Some("three")),
            none("x", None),
            has_ended(&row),
            would_overwrite(Path::new("copy")),
            runfiles::elsewhere(&row),
            runfiles::unread(&std::io::Error::other("the service does not answer")),
            not_resumable("run-1", "it is a command, which has no lines"),
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
            error: The outputs of run-2 are larger than an answer carries, and this service does not see /home/alice/.pfsession/runs/run-2 [Run.OutputsElsewhere]
              next: read them there, or have the flow write less
            error: A file of the run was not read to its end: the service does not answer [Run.Unread]
              next: try again
            error: The run run-1 cannot be resumed: it is a command, which has no lines [Run.NotResumable]
              next: run the flow anew: pfsession run FLOW --data FILE"#]].assert_eq(&all.join("\n"));
    }
}
