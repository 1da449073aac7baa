//! One run: its view of the flow, its results, its folder.
//!
//! | path | what |
//! | --- | --- |
//! | `work/{run}/flow` in the session's folder | the view, as the flow sees it while it runs |
//! | `runs/{run}/output/outputs.jsonl` | one object a line of data, in order; `null` where the line failed |
//! | `runs/{run}/output/lines.jsonl` | the number of each line, and why it failed if it did |
//! | `runs/{run}/output/*.png` and the like | the images of the outputs |
//! | `runs/{run}/flow_artifacts/`, `node_artifacts/{node}/` | what promptflow says of each line, and of each node of it, as its own loader reads it |
//! | `runs/{run}/spans.jsonl` | the spans of its tracing; in the last row how much is left out, if anything is |
//! | `runs/{run}/data/` | what it ran over, for a later run |
//! | `runs/{run}/metrics.json` | what the flow's aggregation measured |
//! | `runs/{run}/logs.txt` | what it wrote to standard output and error |
//! | `runs/{run}/files/` | the files that the flow made or changed |
//!
//! All below `runs/` is written from outside the sandbox, so that a link laid inside leads nowhere.
//!
//! * Decision: what a run made is copied out of its view by descriptor (see [`sandbox::beneath`]),
//!   when all processes of the run are gone. Other runs of the session may still hold its files
//!   open, so that a file that was moved could be changed later.
//! * Decision: data is copied into the session, up to [`MOST_DATA`]. A hard link would let the
//!   session change its user's file, and nothing can be mounted into a sandbox that is closed.
//!   Where the file system shares blocks between copies, the copy is one of these.

mod follow;
mod project;
mod results;
mod sources;

use crate::{
    connections::{Broker, Given, Keeper},
    disk::{self, io_failure},
    folders::Folders,
    output::Output,
    runner::Runner,
    service::Service,
};
use contract::{
    Code, Failure, Outcome,
    agent::{LineKind, RunResult},
    command::RunWish,
};
use follow::follow;
use results::{Kept, Results, keep_files};
use sandbox::{beneath::Limits, removal::remove};
use serde_json::{Map, Value, json};
use snapshots::{Opened, OpenedFile, short_text};
use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    rc::Rc,
};

/// The most that the folder of a run's view may hold at its end, for all of it to be looked
/// through.
const MOST: Limits = Limits {
    depth: 64,
    entries: 50_000,
    bytes: 4 << 30,
};
/// The longest text of a flow's file that is read before a run asks for it, in bytes.
pub(crate) const MOST_AHEAD: usize = 100_000;
/// The most files named in the run's result among those not kept.
const MOST_NAMED: usize = 20;

/// The folder of a run, which outlives its session.
pub(crate) fn folder(state: &Path, run: &str) -> PathBuf {
    state.join("runs").join(run)
}

/// The result of a run that did not come to run.
pub(crate) fn fail(state: &Path, run: &str, failure: Failure) -> (Outcome, RunResult) {
    let folder = folder(state, run).display().to_string();
    (
        Outcome::Failed,
        RunResult {
            folder,
            failure: Some(failure),
            ..RunResult::default()
        },
    )
}

/// The inputs of a run: the flow, and a file of data.
pub(crate) struct Work {
    pub(crate) flow: Opened,
    pub(crate) data: Option<OpenedFile>,
    /// The keeper of the connections that it may use, and the broker that holds the keys of some.
    pub(crate) keeper: Option<Box<dyn Keeper>>,
    pub(crate) broker: Broker,
    /// The service that knows the files of runs elsewhere.
    pub(crate) service: Option<Service>,
}

/// Runs a flow in `runner`.
///
/// # Errors
///
/// The failure of the run; its result says the same.
pub(crate) async fn run(
    folders: &Folders,
    runner: &Runner,
    run: &str,
    work: Work,
    wish: &RunWish,
    output: &Rc<Output>,
) -> (Outcome, RunResult) {
    let mut results = match Results::begin(folders, run) {
        Ok(results) => results,
        Err(error) => {
            return fail(
                &folders.state,
                run,
                disk::name_full_disk(&folders.state, io_failure(&error)),
            );
        }
    };
    let mut not_kept = Vec::new();
    let ended = match stage(folders, runner.user, run, work, wish, output).await {
        Ok(Staged { message, before, given }) => {
            let failure = follow(runner, run, &message, &given, &mut results, output).await;
            // With the sandbox all that runs in it ends, a moment later.
            if runner.is_dead() {
                runner.wait_for_end().await;
            }
            let (mine, name) = (folders.clone(), run.to_owned());
            let kept = tokio::task::spawn_blocking(move || keep_files(&mine, &name, &before)).await;
            let kept = kept.unwrap_or_else(|error| Kept::none(&io::Error::other(error)));
            for line in &kept.left_out {
                output.say(LineKind::Stderr, &format!("not kept: {line}"));
            }
            not_kept = kept.left_out;
            if not_kept.len() > MOST_NAMED {
                let more = not_kept.len() - MOST_NAMED;
                not_kept.truncate(MOST_NAMED);
                not_kept.push(format!("{more} more, which the run's output names"));
            }
            failure.or(kept.failure)
        }
        Err(failure) => Some(failure),
    };
    output.flush();
    let ended = ended.map(|failure| disk::name_full_disk(&folders.state, failure));
    let (outcome, result) = results.end(ended.map(|failure| with_log(failure, &output.path)));
    let said = Some(output.count());
    (
        outcome,
        RunResult {
            said,
            not_kept,
            ..result
        },
    )
}

/// Says where the whole output is, once.
pub(crate) fn with_log(failure: Failure, log: &Path) -> Failure {
    let message = failure.message.trim_end_matches('.');
    Failure {
        message: format!("{message}. The run's output is in {}.", log.display()),
        ..failure
    }
}

/// A run that is laid out.
struct Staged {
    message: Value,
    before: Stamps,
    given: Given,
}

/// The files of a run as they are laid out.
struct LaidOut {
    before: Stamps,
    sources: Map<String, Value>,
    given: Given,
    /// The text of the flow's file.
    definition: Option<String>,
    /// The places in which the processes of the run find the flow folder's own project.
    own: Value,
    /// The fault of that project.
    warning: Option<String>,
}

/// The time of a file's change, in seconds and nanoseconds, and its size.
type Stamp = (i64, i64, u64);
/// The stamp of each file of a view.
type Stamps = HashMap<PathBuf, Stamp>;

/// Lays out the view of a run outside the sandbox, and moves it into it.
async fn stage(
    folders: &Folders,
    user: Option<u32>,
    run: &str,
    work: Work,
    wish: &RunWish,
    output: &Rc<Output>,
) -> Result<Staged, Failure> {
    let file = flow_file(&work, wish).await?;
    let view = work.flow.view().await?;
    for warning in &view.warnings {
        output.say(LineKind::Stderr, warning);
    }
    let staging = folders.session.join("staging").join(run);
    let place = folders.work().join(run);
    let (mine, id, wanted) = (folders.clone(), run.to_owned(), wish.clone());
    let definition_file = file.clone();
    let lay_out = move || -> Result<LaidOut, Failure> {
        let given = Given::to_run(&mine.state, work.keeper.as_deref(), &id, &view, &wanted, &work.broker)?;
        let io = |error: io::Error| io_failure(&error);
        remove(&staging).map_err(io)?;
        let root = staging.join("flow");
        flow::view::copy_into(&view, &root).map_err(io)?;
        if let Some(name) = wanted.file.as_ref().filter(|name| !root.join(name).is_file()) {
            let message = format!("The flow's folder has no file {name}. Name one that it has");
            return Err(Failure::new(Code::RunBadFlow, message));
        }
        let sources = sources::stage(&mine, &work, &id, &wanted, &staging, &place)?;
        let mut before = HashMap::new();
        for file in &view.files {
            before.insert(file.target.clone(), stamp(&root.join(&file.target)).map_err(io)?);
        }
        if let Some(user) = user {
            sandbox::files::give_all(&staging, user).map_err(io)?;
        }
        let definition = short_text(&root.join(definition_file), MOST_AHEAD);
        let (own, warning) = match project::install(&staging, &place) {
            Ok(own) => (own.map_err(io)?, None),
            Err(failure) => (Value::Null, Some(failure.message)),
        };
        // In one step, so that nothing inside can lay a link in the way of what is written from
        // outside.
        fs::rename(&staging, &place).map_err(io)?;
        Ok(LaidOut {
            before,
            sources,
            given,
            definition,
            own,
            warning,
        })
    };
    let laid_out = tokio::task::spawn_blocking(lay_out)
        .await
        .map_err(|error| Failure::new(Code::RunFailed, error.to_string()))??;
    if let Some(warning) = &laid_out.warning {
        output.say(
            LineKind::Stderr,
            &format!("the folder's project is not installed: {warning}"),
        );
    }
    let message = describe_run(run, &folders.work().join(run), &file, wish, &laid_out);
    let LaidOut { before, given, .. } = laid_out;
    Ok(Staged { message, before, given })
}

/// The message by which the runner begins a run.
fn describe_run(run: &str, place: &Path, file: &str, wish: &RunWish, laid_out: &LaidOut) -> Value {
    json!({
        "run": run,
        "folder": place.join("flow"),
        "file": file,
        // Read ahead for the next run.
        "definition": laid_out.definition,
        // Where images of its output are put.
        "output": place.join("output"),
        "data": laid_out.sources,
        "own": laid_out.own,
        "wish": wish,
        "given": laid_out.given.is_something(),
        // What a run has completed that this one goes on with.
        "earlier": wish.resume_from.as_ref().map(|_| place.join("resumed")),
    })
}

/// The flow's file in its folder; none for a command or a bare entry.
async fn flow_file(work: &Work, wish: &RunWish) -> Result<String, Failure> {
    if !wish.command.is_empty() || wish.entry.is_some() {
        return Ok(String::new());
    }
    if let Some(file) = &wish.file {
        let is_name = Path::new(file).file_name().is_some_and(|name| name == file.as_str());
        return is_name.then(|| file.clone()).ok_or_else(|| {
            let message = format!("{file} is no name of a file in the flow's folder. Name one");
            Failure::new(Code::RunBadFlow, message)
        });
    }
    work.flow.kind().await?.file().map(str::to_owned).ok_or_else(|| {
        let message = format!(
            "{} holds no flow.dag.yaml and no flow.flex.yaml. Add one, name the flow's file or its --entry, or say what to run: pfsession run {0} -- python script.py",
            work.flow.path().display()
        );
        Failure::new(Code::RunBadFlow, message)
    })
}

/// The name of a file of data, whose ending says what is in it.
fn data_name(data: &Path) -> PathBuf {
    data.file_name().map_or_else(|| "data.jsonl".into(), PathBuf::from)
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let about = fs::symlink_metadata(path)?;
    Ok((about.mtime(), about.mtime_nsec(), about.len()))
}
