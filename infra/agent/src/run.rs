//! One run: its view of the flow, its results, its folder.
//!
//! | path | what |
//! | --- | --- |
//! | `work/{run}/flow` in the session's folder | the view, as the flow sees it while it runs |
//! | `runs/{run}/output/outputs.jsonl` | one object a line of data, in order; `null` where the line failed |
//! | `runs/{run}/output/lines.jsonl` | the number of each line, and why it failed if it did |
//! | `runs/{run}/output/*.png` and the like | the images of the outputs |
//! | `runs/{run}/flow_artifacts/`, `node_artifacts/{node}/` | what promptflow says of each line, and of each node of it, as its own loader reads it |
//! | `runs/{run}/spans.jsonl` | the spans of its tracing, if its variables name an endpoint for them |
//! | `runs/{run}/data/` | what it ran over, for a later run |
//! | `runs/{run}/metrics.json` | what the flow's aggregation measured |
//! | `runs/{run}/logs.txt` | what it wrote to standard output and error |
//! | `runs/{run}/files/` | the files that the flow made or changed |
//!
//! All below `runs/` is written from outside the sandbox, so that a link laid inside leads nowhere.
//!
//! * Decision: what a run made is copied out of its view by descriptor (see [`sandbox::beneath`]), when all processes of the run are gone. Other
//!   runs of the session may still hold its files open, so that a file that was moved could be changed later.
//! * Decision: data is copied into the session, up to [`MOST_DATA`]. A hard link would let the session change its user's file, and nothing can be
//!   mounted into a sandbox that is closed. Where the file system shares blocks between copies, the copy is one of these.

use crate::{
    connections::{Broker, Given, Holder},
    data, disk,
    folders::Folders,
    output::Output,
    records::{self, Records},
    runner::{Piece, Runner, What},
    secrets::Parts,
};
use contract::{
    Code, Failure, Outcome,
    agent::{Chunk, LineKind, MOST_INLINE_OUTPUTS, RunResult},
    command::RunWish,
};
use environments::scratch::remove_aside;
use sandbox::{
    beneath::{Entry, FileType, Folder, Limits},
    removal::remove,
};
use serde_json::{Map, Value, json};
use snapshots::{Opened, OpenedFile};
use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    ops::ControlFlow,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
};

/// The most that the folder of a run's view may hold at its end, for all of it to be looked through.
const MOST: Limits = Limits {
    depth: 64,
    entries: 50_000,
    bytes: 4 << 30,
};
/// How many of the files that are not kept are named in the run's result.
const MOST_NAMED: usize = 20;

/// The folder of a run, which outlives its session.
pub(crate) fn folder(state: &Path, run: &str) -> PathBuf {
    state.join("runs").join(run)
}

/// The result of a run that did not come to run.
pub(crate) fn failed(state: &Path, run: &str, failure: Failure) -> (Outcome, RunResult) {
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
    /// Whose connections it may use, and what holds the keys of some.
    pub(crate) holder: Option<Holder>,
    pub(crate) broker: Broker,
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
        Err(error) => return failed(&folders.state, run, disk::named(&folders.state, io_failure(&error))),
    };
    let mut not_kept = Vec::new();
    let ended = match stage(folders, runner.user, run, work, wish, output).await {
        Ok(Staged { message, before, given }) => {
            let failure = follow(runner, run, &message, &given, &mut results, output).await;
            // With the sandbox all that runs in it ends, a moment later.
            if runner.is_dead() {
                runner.ended().await;
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
    let ended = ended.map(|failure| disk::named(&folders.state, failure));
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

pub(crate) fn io_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::StorageFull {
        let message = format!("There is no room for the run's folder ({error}). Make room, and run again.");
        return Failure::new(Code::RunDiskFull, message);
    }
    Failure::new(
        Code::RunFailed,
        format!("The run's folder cannot be written: {error}. Put that right, and run again."),
    )
}

/// A run that is laid out.
struct Staged {
    message: Value,
    before: Stamps,
    given: Given,
}

/// When a file was changed, in seconds and nanoseconds, and how big it was.
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
    let (state, id, wanted) = (folders.state.clone(), run.to_owned(), wish.clone());
    let lay_out = move || -> Result<(Stamps, Map<String, Value>, Given), Failure> {
        let given = Given::to_run(&state, work.holder.as_ref(), &id, &view, &wanted, &work.broker)?;
        let io = |error: io::Error| io_failure(&error);
        remove(&staging).map_err(io)?;
        let root = staging.join("flow");
        flow::view::copy_into(&view, &root).map_err(io)?;
        if let Some(name) = wanted.file.as_ref().filter(|name| !root.join(name).is_file()) {
            let message = format!("The flow's folder has no file {name}. Name one that it has");
            return Err(Failure::new(Code::RunBadFlow, message));
        }
        let sources = stage_sources(&state, &id, work.data.as_ref(), &wanted, &staging, &place)?;
        let mut before = HashMap::new();
        for file in &view.files {
            before.insert(file.target.clone(), stamp(&root.join(&file.target)).map_err(io)?);
        }
        if let Some(user) = user {
            sandbox::files::give_all(&staging, user).map_err(io)?;
        }
        // In one step, so that nothing inside can lay a link in the way of what is written from outside.
        fs::rename(&staging, &place).map_err(io)?;
        Ok((before, sources, given))
    };
    let (before, sources, given) = tokio::task::spawn_blocking(lay_out)
        .await
        .map_err(|error| Failure::new(Code::RunFailed, error.to_string()))??;
    let place = folders.work().join(run);
    let message = json!({
        "run": run,
        "folder": place.join("flow"),
        "file": file,
        // Where images of its output are put.
        "output": place.join("output"),
        "data": sources,
        "wish": wish,
        "given": given.is_something(),
        // What a run has completed that this one goes on with.
        "earlier": wish.resume_from.as_ref().map(|_| place.join("resumed")),
    });
    Ok(Staged { message, before, given })
}

/// Lays out what a run works on beside the flow: data, and what earlier runs gave. Returns where the run finds each.
fn stage_sources(
    state: &Path,
    run: &str,
    data: Option<&OpenedFile>,
    wish: &RunWish,
    staging: &Path,
    place: &Path,
) -> Result<Map<String, Value>, Failure> {
    let results = folder(state, run);
    let mut sources = Map::new();
    if let Some(data) = data {
        let name = data_name(data.path());
        data::stage(data.path(), &staging.join("data"))
            .and_then(|()| data::stage(data.path(), &results.join("data")))?;
        sources.insert("data".into(), json!(place.join("data").join(name)));
    }
    if let Some(resumed) = wish.resume_from.as_deref().map(|run| folder(state, run)) {
        let output = results.join("output");
        records::stage(&resumed, &staging.join("resumed"), &output).map_err(|error| {
            let shown = resumed.display();
            let message = format!(
                "What the earlier run has completed cannot be taken over from {shown}: {error}. Run the flow anew"
            );
            Failure::new(Code::RunNoSuchRun, message)
        })?;
    }
    if let Some(earlier) = wish.run.as_deref().map(|run| folder(state, run)) {
        data::stage_earlier(&earlier, &staging.join("earlier"))?;
        sources.insert("run.outputs".into(), json!(place.join("earlier/outputs.jsonl")));
        if earlier.join("data").is_dir() {
            sources.insert("run.inputs".into(), json!(place.join("earlier/data")));
        }
    }
    Ok(sources)
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

/// Follows a run to its end, and says why it failed if it did.
async fn follow(
    runner: &Runner,
    run: &str,
    message: &Value,
    given: &Given,
    results: &mut Results,
    output: &Rc<Output>,
) -> Option<Failure> {
    let mut followed = Followed {
        given,
        results,
        output,
        memory: (runner, runner.out_of_memory()),
        unwritten: None,
        lines: Parts::default(),
        pieces: Parts::default(),
    };
    let file = match given.in_memory() {
        Ok(file) => file,
        Err(error) => return Some(io_failure(&error)),
    };
    let Ok(mut said) = runner.run(run, message, file).await else {
        return Some(crashed("its sandbox was gone"));
    };
    while let Some(what) = said.recv().await {
        if let ControlFlow::Break(failure) = followed.take(what) {
            followed.tell_rest();
            return failure;
        }
    }
    followed.tell_rest();
    Some(crashed("its sandbox ended"))
}

fn crashed(how: &str) -> Failure {
    Failure::new(
        Code::RunCrashed,
        format!("The run's process ended in the middle: {how}. See what ended it, and run again"),
    )
}

/// A run that is followed.
struct Followed<'a> {
    given: &'a Given,
    results: &'a mut Results,
    output: &'a Rc<Output>,
    /// How often processes of the runner had ended for want of memory before the run.
    memory: (&'a Runner, u64),
    /// Why a result is not on the disk.
    unwritten: Option<Failure>,
    /// Lines that go on, and whether they are of standard error.
    lines: Parts<bool>,
    /// Outputs in pieces, by their names.
    pieces: Parts<String>,
}

impl Followed<'_> {
    /// Takes what is said of the run. Breaks at its end, with why it failed if it did.
    fn take(&mut self, what: What) -> ControlFlow<Option<Failure>> {
        let given = self.given;
        match what {
            What::Out { out, goes_on } => self.say(LineKind::Stdout, &out, goes_on),
            What::Err { err, goes_on } => self.say(LineKind::Stderr, &err, goes_on),
            What::Line {
                line,
                number,
                text,
                wrong,
                record,
                nodes,
            } => {
                let wrong = wrong.map(|wrong| without_secrets(given, wrong));
                let taken = self
                    .results
                    .take(line, number, text, wrong)
                    .and_then(|()| self.results.records.take(given, record, nodes));
                self.note(taken);
            }
            What::Spans { spans } => {
                let taken = self.results.records.take_spans(given, &spans);
                self.note(taken);
            }
            What::Chunk { chunk } => self.take_piece(chunk),
            What::Nodes { nodes } => {
                let taken = self.results.records.take(given, None, nodes);
                self.note(taken);
            }
            What::Metrics { metrics } => {
                let taken = self.results.take_metrics(&metrics);
                self.note(taken);
            }
            What::Done { done, crashed } => return ControlFlow::Break(self.end(&done, crashed)),
        }
        ControlFlow::Continue(())
    }

    fn say(&mut self, kind: LineKind, lines: &[String], goes_on: bool) {
        let is_error = kind == LineKind::Stderr;
        let mut told = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let mut text = self.lines.take(self.given.secrets(), is_error, line);
            if !goes_on || index + 1 < lines.len() {
                text += &self.lines.end(&is_error);
            }
            told.push(text);
        }
        self.output.say_lines(kind, &told, goes_on);
    }

    /// Takes a piece of an output, and tells it as readers have it.
    fn take_piece(&mut self, piece: Piece) {
        let chunk = match piece {
            Piece::Begins { outputs, names } => Chunk::Begins {
                outputs: match outputs.and_then(|text| exact(&self.given.without_secrets(&text))) {
                    Some(Value::Object(outputs)) => Some(outputs),
                    _ => None,
                },
                names,
            },
            Piece::GoesOn { name, text } => {
                let told = self.pieces.take(self.given.secrets(), name.clone(), &text);
                if told.is_empty() && !text.is_empty() {
                    return;
                }
                Chunk::GoesOn {
                    name,
                    texts: vec![told],
                }
            }
        };
        self.output.say_chunk(chunk);
    }

    /// Tells what was held back, as it might have become a secret.
    fn tell_rest(&mut self) {
        for (is_error, text) in self.lines.end_all() {
            let kind = if is_error { LineKind::Stderr } else { LineKind::Stdout };
            self.output.say_lines(kind, &[text], false);
        }
        for (name, text) in self.pieces.end_all() {
            self.output.say_chunk(Chunk::GoesOn {
                name,
                texts: vec![text],
            });
        }
    }

    /// The first result that could not be written fails the run.
    fn note(&mut self, written: io::Result<()>) {
        if let (Err(error), None) = (written, &self.unwritten) {
            self.unwritten = Some(io_failure(&error));
        }
    }

    fn was_out_of_memory(&self) -> bool {
        let (runner, before) = self.memory;
        runner.out_of_memory() > before
    }

    fn end(&mut self, done: &Value, status: Option<i32>) -> Option<Failure> {
        match status {
            Some(_) if self.was_out_of_memory() => return Some(out_of_memory()),
            Some(status) if status < 0 => return Some(crashed(&format!("by signal {}", -status))),
            Some(status) => return Some(crashed(&format!("it exited with code {status}"))),
            None => {}
        }
        if let Some(code) = done.get("exit_code") {
            let code = code.as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(1);
            self.results.exit_code = Some(code);
            // A shell says 137 of a child that was ended for want of memory.
            return match code {
                0 => None,
                _ if self.was_out_of_memory() => Some(out_of_memory()),
                code => Some(Failure::new(
                    Code::RunExitCode,
                    format!("The command exited with code {code}"),
                )),
            };
        }
        self.results.lines = done["lines"].as_u64().unwrap_or(self.results.lines);
        self.results.failed = done["failed"].as_u64().unwrap_or(self.results.failed);
        self.results.retried = done["retried"].as_u64().unwrap_or_default();
        let failure: Option<Failure> = serde_json::from_value(done["failure"].clone()).ok();
        match failure.map(|failure| without_secrets(self.given, failure)) {
            Some(failure) if failure.error == Code::RunCrashed && self.was_out_of_memory() => Some(out_of_memory()),
            // A result that is not on the disk is none.
            failure => self.unwritten.take().or(failure),
        }
    }
}

fn without_secrets(given: &Given, failure: Failure) -> Failure {
    Failure {
        message: given.without_secrets(&failure.message),
        ..failure
    }
}

fn out_of_memory() -> Failure {
    Failure::new(
        Code::RunOutOfMemory,
        "The run needed more memory than the session's VM size gives. Take a larger one, or give the flow less at once, and run \
         again",
    )
}

/// The results of a run, as they come.
struct Results {
    folder: PathBuf,
    outputs: fs::File,
    about: fs::File,
    lines: u64,
    failed: u64,
    retried: u64,
    inline: Vec<Value>,
    /// Whether the report can carry the outputs: they are few, and it holds each exactly.
    fits: bool,
    bytes: usize,
    metrics: Map<String, Value>,
    exit_code: Option<i32>,
    records: Records,
}

/// The value of a JSON text, if [`Value`] holds exactly what the text says.
fn exact(text: &str) -> Option<Value> {
    fn is_exact(value: &Value) -> bool {
        match value {
            // A whole number of more digits than an integer has was read as a fraction.
            Value::Number(number) => {
                !number.is_f64() || number.as_f64().is_some_and(|n| n.abs() < 9e15 || n.fract() != 0.0)
            }
            Value::Array(items) => items.iter().all(is_exact),
            Value::Object(members) => members.values().all(is_exact),
            Value::Null | Value::Bool(_) | Value::String(_) => true,
        }
    }
    serde_json::from_str(text).ok().filter(is_exact)
}

impl Results {
    fn begin(folders: &Folders, run: &str) -> io::Result<Self> {
        let folder = folder(&folders.state, run);
        let records = Records::of(&folder);
        fs::create_dir_all(folder.join("output"))?;
        let outputs = fs::File::create(folder.join("output/outputs.jsonl"))?;
        let about = fs::File::create(folder.join("output/lines.jsonl"))?;
        Ok(Self {
            folder,
            outputs,
            about,
            lines: 0,
            failed: 0,
            retried: 0,
            inline: Vec::new(),
            fits: true,
            bytes: 0,
            metrics: Map::new(),
            exit_code: None,
            records,
        })
    }

    fn take(&mut self, line: u64, number: i64, text: Option<String>, wrong: Option<Failure>) -> io::Result<()> {
        self.lines = self.lines.max(line + 1);
        self.failed += u64::from(wrong.is_some());
        let text = text.unwrap_or_else(|| "null".into());
        self.bytes += text.len() + 1;
        self.fits &= self.bytes <= MOST_INLINE_OUTPUTS;
        if self.fits {
            match exact(&text) {
                Some(value) => self.inline.push(value),
                None => self.fits = false,
            }
        }
        let about = match wrong {
            Some(failure) => json!({ "line_number": number, "error": failure }),
            None => json!({ "line_number": number }),
        };
        writeln!(self.outputs, "{text}")?;
        writeln!(self.about, "{about}")
    }

    fn take_metrics(&mut self, text: &str) -> io::Result<()> {
        if let Some(Value::Object(metrics)) = exact(text).filter(|_| text.len() <= MOST_INLINE_OUTPUTS) {
            self.metrics = metrics;
        }
        fs::write(self.folder.join("metrics.json"), format!("{text}\n"))
    }

    fn end(self, failure: Option<Failure>) -> (Outcome, RunResult) {
        let outcome = if failure.is_some() {
            Outcome::Failed
        } else {
            Outcome::Succeeded
        };
        let outputs = if self.fits { self.inline } else { Vec::new() };
        let folder = self.folder.display().to_string();
        (
            outcome,
            RunResult {
                lines: self.lines,
                failed_lines: self.failed,
                retried: self.retried,
                outputs,
                metrics: self.metrics,
                folder,
                failure,
                said: None,
                exit_code: self.exit_code,
                not_kept: Vec::new(),
            },
        )
    }
}

/// The result of keeping the files of a run.
#[derive(Default)]
struct Kept {
    /// The files that are not kept, and why.
    left_out: Vec<String>,
    /// Why the run has failed if nothing else has failed it.
    failure: Option<Failure>,
}

impl Kept {
    fn none(error: &io::Error) -> Self {
        let mut kept = Self::default();
        kept.end_with(error);
        kept
    }

    /// Files were lost that the run has made as it may.
    fn end_with(&mut self, error: &io::Error) {
        let why = match error.kind() {
            io::ErrorKind::QuotaExceeded => format!(
                "{error}; of a run's folder {} files and folders, {} GiB and {} folders in each other are kept",
                MOST.entries,
                MOST.bytes >> 30,
                MOST.depth
            ),
            io::ErrorKind::StorageFull => "there is no room on the disk".to_owned(),
            _ => error.to_string(),
        };
        self.left_out.push(format!("the rest: {why}"));
        self.failure = Some(Failure::new(
            Code::RunFilesNotKept,
            format!("Not all files that the run made are kept: {why}. Have it make less, or make room, and run again"),
        ));
    }
}

/// Keeps the files that a run made or changed, and drops the rest of its view. All processes of the run have ended.
fn keep_files(folders: &Folders, run: &str, before: &Stamps) -> Kept {
    let mut kept = Kept::default();
    let (staging, name) = (folders.session.join("staging"), format!("{run}.ended"));
    let to = folder(&folders.state, run).join("files");
    let taken = remove(&staging.join(&name)).and_then(|()| {
        // Out of the sandbox's sight first. Whatever stands there is moved: what is a link is not opened.
        fs::rename(folders.work().join(run), staging.join(&name))?;
        let root = Folder::open(&staging)?.folder(&Path::new(&name).join("flow"))?;
        root.walk(&MOST, |entry| keep_entry(entry, before, &to, &mut kept.left_out))?;
        data::keep_images(
            &staging.join(&name).join("output"),
            &folder(&folders.state, run).join("output"),
        )
    });
    match taken {
        Ok(()) => {}
        // The run has taken its folder away itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => kept.end_with(&error),
    }
    remove_aside(staging.join(name));
    kept
}

fn keep_entry(entry: &Entry<'_>, before: &Stamps, to: &Path, left_out: &mut Vec<String>) -> io::Result<()> {
    let is_made =
        entry.path.iter().any(|part| part == "__pycache__") || entry.path.to_string_lossy().starts_with(".variant.");
    match entry.kind {
        FileType::Directory => {}
        _ if is_made => {}
        FileType::RegularFile => {
            let stat = &entry.stat;
            let stamp = (
                stat.st_mtime,
                i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
                u64::try_from(stat.st_size).unwrap_or_default(),
            );
            if before.get(entry.path) == Some(&stamp) {
                return Ok(());
            }
            match copy_out(entry, &to.join(entry.path)) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
                Err(error) => left_out.push(format!("{}: {error}", entry.path.display())),
                Ok(()) => {}
            }
        }
        FileType::Symlink => left_out.push(format!("{}: it is a link", entry.path.display())),
        _ => left_out.push(format!("{}: it is no file", entry.path.display())),
    }
    Ok(())
}

/// Copies a file, without its right to run as somebody else.
fn copy_out(entry: &Entry<'_>, to: &Path) -> io::Result<()> {
    let source = entry.open()?;
    let about = source.metadata()?;
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    let mode = about.mode() & 0o777 | 0o600;
    let mut copy = fs::File::options().write(true).create_new(true).mode(mode).open(to)?;
    // What grows while it is read is not read for ever.
    io::copy(&mut source.take(about.len()), &mut copy)?;
    Ok(())
}
