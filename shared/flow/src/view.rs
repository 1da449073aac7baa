//! A flow folder as a run sees it: its own files, with the additional includes at its root.

use crate::{
    Failure,
    folder::{Folder, unreadable},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// The most files and folders that a view has together.
pub const MOST_FILES: usize = 10_000;
/// The most bytes that a view's files have together.
pub const MOST_BYTES: u64 = 200 << 20;
/// How many folders deep a view goes.
const MOST_DEPTH: usize = 100;

/// What no run needs to see.
const SKIPPED: [&str; 4] = [".git", "__pycache__", ".promptflow", ".venv"];

/// What a run sees, resolved and not yet copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By target.
    pub files: Vec<File>,
    /// Relative to the view's root; each after the one that it is in.
    pub folders: Vec<PathBuf>,
    /// Of all files together.
    pub bytes: u64,
    /// What its user should know: what was written over, what was left out.
    pub warnings: Vec<String>,
}

/// One file of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Canonical, inside the include root.
    pub source: PathBuf,
    /// Relative to the view's root.
    pub target: PathBuf,
    pub bytes: u64,
}

/// Resolves the view of a flow folder. Copies nothing.
///
/// Folders merge. Where two files get the same name the last one wins, with a warning; the flow's own are first. Links are followed.
///
/// * `include_root`: how far includes and links may lead; see [`crate::include_root`].
///
/// # Errors
///
/// All final. `Flow.BadIncludes`, `Flow.AbsoluteInclude`, `Flow.MissingInclude`, `Flow.ZipInclude`, `Flow.IncludeCollision`,
/// `Flow.PathLeadsOut`, `Flow.LinkLoop`, `Flow.TooLarge`, `Flow.Unreadable`, `Flow.TwoFlows`, `Flow.BadFlowFile`; and what
/// [`crate::canonical`] says.
pub fn list(folder: &Path, include_root: &Path) -> Result<View, Failure> {
    let folder = Folder::open(folder, include_root)?;
    let includes = folder.includes()?;
    let mut walk = Walk {
        folder: &folder,
        files: BTreeMap::new(),
        folders: BTreeSet::new(),
        bytes: 0,
        warnings: Vec::new(),
    };
    walk.folder(&folder.path, Path::new(""), &mut Vec::new())?;
    for include in &includes {
        walk.entry(&include.source, &include.name, &mut Vec::new())
            .map_err(|failure| Failure {
                message: format!(
                    "{}: the include {}: {}",
                    include.place, include.written, failure.message
                ),
                ..failure
            })?;
    }
    let files = walk
        .files
        .into_iter()
        .map(|(target, (source, bytes))| File { source, target, bytes })
        .collect();
    Ok(View {
        files,
        folders: walk.folders.into_iter().collect(),
        bytes: walk.bytes,
        warnings: walk.warnings,
    })
}

/// Copies a view's files into `to`, which is made if it is not there. A file keeps its mode.
///
/// # Errors
///
/// What the file system says; worth another try into a fresh folder. A file that went away since [`list`] is one.
pub fn copy_into(view: &View, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for folder in &view.folders {
        fs::create_dir_all(to.join(folder))?;
    }
    for file in &view.files {
        fs::copy(&file.source, to.join(&file.target))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.target.display())))?;
    }
    Ok(())
}

struct Walk<'a> {
    folder: &'a Folder,
    files: BTreeMap<PathBuf, (PathBuf, u64)>,
    folders: BTreeSet<PathBuf>,
    bytes: u64,
    warnings: Vec<String>,
}

impl Walk<'_> {
    /// * `source`: canonical.
    /// * `inside`: the folders that it is in, for links that lead back.
    fn folder(&mut self, source: &Path, target: &Path, inside: &mut Vec<PathBuf>) -> Result<(), Failure> {
        let shown = self.folder.show(source);
        if inside.iter().any(|above| above == source) {
            let message = format!(
                "{} is a link to a folder that it is in. Take the link out.",
                target.display()
            );
            return Err(Failure::new("Flow.LinkLoop", message));
        }
        if inside.len() >= MOST_DEPTH {
            return Err(Failure::new(
                "Flow.TooLarge",
                format!("{shown} is more than {MOST_DEPTH} folders deep. Move it up, or out."),
            ));
        }
        if !target.as_os_str().is_empty() {
            if self.files.contains_key(target) {
                return Err(self.collision(target));
            }
            self.folders.insert(target.to_owned());
        }
        self.bounded()?;
        inside.push(source.to_owned());
        let read = fs::read_dir(source).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        for entry in read.map_err(|error| unreadable(&shown, &error))? {
            let name = entry.file_name();
            if SKIPPED.iter().any(|skipped| name == *skipped) {
                continue;
            }
            let path = source.join(&name);
            let target = target.join(&name);
            let is_link = entry
                .file_type()
                .map_err(|error| unreadable(&self.folder.show(&path), &error))?
                .is_symlink();
            if !is_link {
                self.entry(&path, &target, inside)?;
            } else if let Some(real) = self.folder.follow(&path, &self.folder.show(&path))? {
                self.entry(&real, &target, inside)?;
            } else {
                self.warnings.push(format!(
                    "{} is a link to nothing, and is left out.",
                    self.folder.show(&path)
                ));
            }
        }
        inside.pop();
        Ok(())
    }

    fn entry(&mut self, source: &Path, target: &Path, inside: &mut Vec<PathBuf>) -> Result<(), Failure> {
        let about = match fs::symlink_metadata(source) {
            Ok(about) => about,
            // Editors and caches take files away at any moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(&self.folder.show(source), &error)),
        };
        if about.is_dir() {
            return self.folder(source, target, inside);
        }
        if !about.is_file() {
            self.warnings.push(format!(
                "{} is neither a file nor a folder, and is left out.",
                self.folder.show(source)
            ));
            return Ok(());
        }
        if self.folders.contains(target) {
            return Err(self.collision(target));
        }
        self.bytes += about.len();
        if let Some((before, bytes)) = self.files.insert(target.to_owned(), (source.to_owned(), about.len())) {
            self.bytes -= bytes;
            if before != source {
                let (before, now) = (self.folder.show(&before), self.folder.show(source));
                self.warnings
                    .push(format!("{now} takes the place of {before} as {}.", target.display()));
            }
        }
        self.bounded()
    }

    fn collision(&self, target: &Path) -> Failure {
        let message = format!(
            "{} would be both a file and a folder. Rename one of the two.",
            target.display()
        );
        Failure::new("Flow.IncludeCollision", message)
    }

    fn bounded(&self) -> Result<(), Failure> {
        let count = self.files.len() + self.folders.len();
        let what = if count > MOST_FILES {
            format!("more than {MOST_FILES} files and folders")
        } else if self.bytes > MOST_BYTES {
            format!("more than {} MiB", MOST_BYTES >> 20)
        } else {
            return Ok(());
        };
        let message = format!(
            "The flow folder {} has {what}, with its includes. Move out what the flow does not need, such as data and caches.",
            self.folder.path.display()
        );
        Err(Failure::new("Flow.TooLarge", message))
    }
}
