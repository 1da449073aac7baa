//! One run: its view of the flow, its results, its folder.
//!
//! | path | what |
//! | --- | --- |
//! | `work/{run}/flow` in the session's folder | the view, as the flow sees it while it runs |
//! | `runs/{run}/output/outputs.jsonl` | one object a line of data, in order; `null` where the line failed |
//! | `runs/{run}/output/lines.jsonl` | the number of each line, and why it failed if it did |
//! | `runs/{run}/metrics.json` | what the flow's aggregation measured |
//! | `runs/{run}/logs.txt` | what it wrote to standard output and error |
//! | `runs/{run}/files/` | the files that the flow made or changed |
//!
//! All below `runs/` is written from outside the sandbox, so that a link laid inside leads nowhere.

use crate::{
    connections::{Given, Holder},
    output::Output,
    runner::{Folders, Runner, What},
    store,
};
use contract::{
    Failure, Outcome,
    agent::{LineKind, MOST_INLINE_OUTPUTS, RunResult},
    command::RunWish,
};
use serde_json::{Map, Value, json};
use snapshots::{Opened, OpenedFile};
use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    rc::Rc,
    time::SystemTime,
};

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

/// What a run works on: the flow, and a file of data.
pub(crate) struct Work {
    pub(crate) flow: Opened,
    pub(crate) data: Option<OpenedFile>,
    /// Whose connections it may use.
    pub(crate) holder: Holder,
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
        Err(error) => return failed(&folders.state, run, io_failure(&error)),
    };
    let ended = match stage(folders, run, work, wish, output).await {
        Ok(Staged { message, before, given }) => {
            let failure = follow(runner, run, &message, &given, &mut results, output).await;
            if let Err(error) = keep_files(folders, run, &before) {
                output.say(
                    LineKind::Stderr,
                    &format!("what the flow wrote could not be kept: {error}"),
                );
            }
            failure
        }
        Err(failure) => Some(failure),
    };
    output.flush();
    let (outcome, result) = results.end(ended.map(|failure| with_log(failure, &output.path)));
    let said = Some(output.count());
    (outcome, RunResult { said, ..result })
}

/// Says where the whole output is, once.
fn with_log(failure: Failure, log: &Path) -> Failure {
    let message = failure.message.trim_end_matches('.');
    Failure {
        message: format!("{message}. The run's output is in {}.", log.display()),
        ..failure
    }
}

fn io_failure(error: &io::Error) -> Failure {
    Failure::new(
        "Run.Failed",
        format!("The run's folder cannot be written: {error}. Put that right, and run again."),
    )
}

/// A run that is laid out.
struct Staged {
    message: Value,
    before: HashMap<PathBuf, Stamp>,
    given: Given,
}

/// When and how big a file was.
type Stamp = (SystemTime, u64);

/// Lays out the view of a run outside the sandbox, and moves it into it.
async fn stage(
    folders: &Folders,
    run: &str,
    work: Work,
    wish: &RunWish,
    output: &Rc<Output>,
) -> Result<Staged, Failure> {
    let kind = work.flow.kind().await?;
    let file = match kind.file() {
        _ if !wish.command.is_empty() => "",
        Some(file) => file,
        None => {
            let message = format!(
                "{} holds no flow.dag.yaml and no flow.flex.yaml. Add one, or say what to run: pfsession run {0} -- python script.py",
                work.flow.path().display()
            );
            return Err(Failure::new("Run.BadFlow", message));
        }
    };
    let view = work.flow.view().await?;
    for warning in &view.warnings {
        output.say(LineKind::Stderr, warning);
    }
    let staging = folders.session.join("staging").join(run);
    let place = folders.work().join(run);
    let (state, id, wanted) = (folders.state.clone(), run.to_owned(), wish.clone());
    let staged = work.data.as_ref().map(|data| data_name(data.path()));
    let lay_out = move || -> Result<(HashMap<PathBuf, Stamp>, Given), Failure> {
        let given = Given::to_run(&state, &work.holder, &id, &view, &wanted)?;
        let io = |error: io::Error| io_failure(&error);
        store::remove(&staging).map_err(io)?;
        let root = staging.join("flow");
        flow::view::copy_into(&view, &root).map_err(io)?;
        if let Some(data) = &work.data {
            let data = data.path();
            let shown = data.display();
            let bad = |error: io::Error| {
                Failure::new(
                    "Run.BadData",
                    format!("The data {shown} cannot be read: {error}. Name a file of JSON lines"),
                )
            };
            if !fs::metadata(data).map_err(bad)?.is_file() {
                return Err(Failure::new(
                    "Run.BadData",
                    format!("The data {shown} is no file. Name a file of JSON lines"),
                ));
            }
            let to = staging.join("data");
            fs::create_dir_all(&to).map_err(io)?;
            fs::copy(data, to.join(data_name(data))).map_err(bad)?;
        }
        let mut before = HashMap::new();
        for file in &view.files {
            before.insert(file.target.clone(), stamp(&root.join(&file.target)).map_err(io)?);
        }
        // In one step, so that nothing inside can lay a link in the way of what is written from outside.
        fs::rename(&staging, &place).map_err(io)?;
        Ok((before, given))
    };
    let (before, given) = tokio::task::spawn_blocking(lay_out)
        .await
        .map_err(|error| Failure::new("Run.Failed", error.to_string()))??;
    let place = folders.work().join(run);
    let mut sources = Map::new();
    if let Some(name) = staged {
        sources.insert("data".into(), json!(place.join("data").join(name)));
    }
    let message = json!({
        "run": run,
        "folder": place.join("flow"),
        "file": file,
        // Where images of its output are put.
        "output": place.join("output"),
        "data": sources,
        "wish": wish,
        "given": given.is_something(),
    });
    Ok(Staged { message, before, given })
}

/// The name of a file of data, whose ending says what is in it.
fn data_name(data: &Path) -> PathBuf {
    data.file_name().map_or_else(|| "data.jsonl".into(), PathBuf::from)
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let about = fs::symlink_metadata(path)?;
    Ok((about.modified()?, about.len()))
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
    let crashed = |how: String| {
        Some(Failure::new(
            "Run.Crashed",
            format!("The run's process ended in the middle: {how}. See what ended it, and run again"),
        ))
    };
    let before = runner.out_of_memory();
    let mut unwritten = None;
    let file = match given.in_memory() {
        Ok(file) => file,
        Err(error) => return Some(io_failure(&error)),
    };
    let Ok(mut said) = runner.run(run, message, file).await else {
        return crashed("its sandbox was gone".into());
    };
    let say = |kind, lines: Vec<String>, goes_on| {
        let lines: Vec<String> = lines.iter().map(|line| given.without_secrets(line)).collect();
        output.say_lines(kind, &lines, goes_on);
    };
    while let Some(what) = said.recv().await {
        match what {
            What::Out { out, goes_on } => say(LineKind::Stdout, out, goes_on),
            What::Err { err, goes_on } => say(LineKind::Stderr, err, goes_on),
            What::Line {
                line,
                number,
                text,
                wrong,
            } => {
                let wrong = wrong.map(|wrong| without_secrets(given, wrong));
                if let Err(error) = results.take(line, number, text, wrong) {
                    unwritten = unwritten.or(Some(io_failure(&error)));
                }
            }
            What::Metrics { metrics } => {
                if let Err(error) = results.take_metrics(&metrics) {
                    unwritten = unwritten.or(Some(io_failure(&error)));
                }
            }
            What::Done { crashed: Some(-9), .. } if runner.out_of_memory() > before => return Some(out_of_memory()),
            What::Done {
                crashed: Some(status), ..
            } => {
                return crashed(if status < 0 {
                    format!("by signal {}", -status)
                } else {
                    format!("it exited with code {status}")
                });
            }
            What::Done { done, .. } if done.get("exit_code").is_some() => {
                let code = done["exit_code"]
                    .as_i64()
                    .and_then(|code| i32::try_from(code).ok())
                    .unwrap_or(1);
                results.exit_code = Some(code);
                return (code != 0)
                    .then(|| Failure::new("Run.ExitCode", format!("The command exited with code {code}")));
            }
            What::Done { done, .. } => {
                results.lines = done["lines"].as_u64().unwrap_or(results.lines);
                results.failed = done["failed"].as_u64().unwrap_or(results.failed);
                let failure: Option<Failure> = serde_json::from_value(done["failure"].clone()).ok();
                let failure = failure.map(|failure| without_secrets(given, failure));
                return match failure {
                    Some(failure) if failure.error == "Run.Crashed" && runner.out_of_memory() > before => {
                        Some(out_of_memory())
                    }
                    // A result that is not on the disk is none.
                    failure => unwritten.or(failure),
                };
            }
        }
    }
    crashed("its sandbox ended".into())
}

fn without_secrets(given: &Given, failure: Failure) -> Failure {
    Failure {
        message: given.without_secrets(&failure.message),
        ..failure
    }
}

fn out_of_memory() -> Failure {
    Failure::new(
        "Run.OutOfMemory",
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
    inline: Vec<Value>,
    /// Whether the report can carry the outputs: they are few, and it holds each exactly.
    fits: bool,
    bytes: usize,
    metrics: Map<String, Value>,
    exit_code: Option<i32>,
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
        fs::create_dir_all(folder.join("output"))?;
        let outputs = fs::File::create(folder.join("output/outputs.jsonl"))?;
        let about = fs::File::create(folder.join("output/lines.jsonl"))?;
        Ok(Self {
            folder,
            outputs,
            about,
            lines: 0,
            failed: 0,
            inline: Vec::new(),
            fits: true,
            bytes: 0,
            metrics: Map::new(),
            exit_code: None,
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
                outputs,
                metrics: self.metrics,
                folder,
                failure,
                said: None,
                exit_code: self.exit_code,
            },
        )
    }
}

/// Keeps the files that a run made or changed, and drops the rest of its view.
fn keep_files(folders: &Folders, run: &str, before: &HashMap<PathBuf, Stamp>) -> io::Result<()> {
    let taken = folders.session.join("staging").join(format!("{run}.ended"));
    store::remove(&taken)?;
    // Out of the sandbox's sight first: what is looked at then is what is kept.
    fs::rename(folders.work().join(run), &taken)?;
    let root = taken.join("flow");
    keep_below(&root, Path::new(""), before, &folder(&folders.state, run).join("files"))?;
    store::remove(&taken)
}

fn keep_below(root: &Path, at: &Path, before: &HashMap<PathBuf, Stamp>, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root.join(at))? {
        let entry = entry?;
        let path = at.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if entry.file_name() != "__pycache__" {
                keep_below(root, &path, before, to)?;
            }
        } else if kind.is_file()
            && !path.to_string_lossy().starts_with(".variant.")
            && before.get(&path) != Some(&stamp(&root.join(&path))?)
        {
            let target = to.join(&path);
            fs::create_dir_all(target.parent().unwrap_or(to))?;
            fs::rename(root.join(&path), target)?;
        }
    }
    Ok(())
}
