//! The results of a run, and the files that it leaves.

use super::{MOST, Stamps, folder};
use crate::{data, folders::Folders, records::Records};
use contract::{
    Code, Failure, Outcome,
    agent::{MOST_INLINE_OUTPUTS, RunResult},
};
use environments::scratch::remove_aside;
use lifecycle::size::Used;
use sandbox::{
    beneath::{Entry, FileType, Folder},
    removal::remove,
};
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The results of a run, as they come.
pub(super) struct Results {
    pub(super) folder: PathBuf,
    pub(super) outputs: fs::File,
    pub(super) about: fs::File,
    pub(super) lines: u64,
    pub(super) failed: u64,
    pub(super) retried: u64,
    pub(super) inline: Vec<Value>,
    /// Whether the report can carry the outputs: they are few, and it holds each exactly.
    pub(super) fits: bool,
    pub(super) bytes: usize,
    pub(super) metrics: Map<String, Value>,
    pub(super) exit_code: Option<i32>,
    pub(super) used: Option<Used>,
    pub(super) records: Records,
}

/// The value of a JSON text, if [`Value`] holds exactly what the text says.
pub(super) fn exact(text: &str) -> Option<Value> {
    pub(super) fn is_exact(value: &Value) -> bool {
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
    pub(super) fn begin(folders: &Folders, run: &str) -> io::Result<Self> {
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
            used: None,
            records,
        })
    }

    pub(super) fn take(
        &mut self,
        line: u64,
        number: i64,
        text: Option<String>,
        wrong: Option<Failure>,
    ) -> io::Result<()> {
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

    pub(super) fn take_metrics(&mut self, text: &str) -> io::Result<()> {
        if let Some(Value::Object(metrics)) = exact(text).filter(|_| text.len() <= MOST_INLINE_OUTPUTS) {
            self.metrics = metrics;
        }
        fs::write(self.folder.join("metrics.json"), format!("{text}\n"))
    }

    pub(super) fn end(self, failure: Option<Failure>) -> (Outcome, RunResult) {
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
                stored: None,
                used: self.used,
            },
        )
    }
}

/// The result of keeping the files of a run.
#[derive(Default)]
pub(super) struct Kept {
    /// The files that are not kept, and why.
    pub(super) left_out: Vec<String>,
    /// The failure of the run if it has no other.
    pub(super) failure: Option<Failure>,
}

impl Kept {
    pub(super) fn none(error: &io::Error) -> Self {
        let mut kept = Self::default();
        kept.end_with(error);
        kept
    }

    /// Files were lost that the run has made as it may.
    pub(super) fn end_with(&mut self, error: &io::Error) {
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

/// Keeps the files that a run made or changed, and drops the rest of its view. All processes of the
/// run have ended.
pub(super) fn keep_files(folders: &Folders, run: &str, before: &Stamps) -> Kept {
    let mut kept = Kept::default();
    let (staging, name) = (folders.session.join("staging"), format!("{run}.ended"));
    let to = folder(&folders.state, run).join("files");
    let taken = remove(&staging.join(&name)).and_then(|()| {
        // Out of the sandbox's sight first. Whatever stands there is moved: what is a link is not
        // opened.
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

pub(super) fn keep_entry(entry: &Entry<'_>, before: &Stamps, to: &Path, left_out: &mut Vec<String>) -> io::Result<()> {
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
pub(super) fn copy_out(entry: &Entry<'_>, to: &Path) -> io::Result<()> {
    let source = entry.open()?;
    let about = source.metadata()?;
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    let mode = about.mode() & 0o777 | 0o600;
    let mut copy = fs::File::options().write(true).create_new(true).mode(mode).open(to)?;
    // What grows while it is read is not read for ever.
    io::copy(&mut source.take(about.len()), &mut copy)?;
    Ok(())
}
