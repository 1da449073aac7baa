//! A flow folder as a run sees it: its own files, with the additional includes at its root.

use crate::{
    Code, Failure,
    folder::{Folder, Include, Reach, unreadable},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The most files and folders that a view has together.
pub const MOST_FILES: usize = 10_000;
/// The most bytes that a view's files have together.
pub const MOST_BYTES: u64 = 200 << 20;
/// The most entries that are looked at, where includes name the same ones again.
const MOST_LOOKS: usize = 2 * MOST_FILES;
/// The largest depth of a view, in folders.
const MOST_DEPTH: usize = 100;

/// Names of files and folders that no run needs.
const SKIPPED: [&str; 4] = [".git", "__pycache__", ".promptflow", ".venv"];

/// The view of a run, resolved and not yet copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By target.
    pub files: Vec<File>,
    /// Relative to the view's root; each after the one that it is in.
    pub folders: Vec<PathBuf>,
    /// By target.
    pub archives: Vec<Archive>,
    /// Of all files together.
    pub bytes: u64,
    /// Warnings for its user: files written over, files left out.
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

/// A folder that a flow wants as a zip file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Relative to the view's root.
    pub target: PathBuf,
    /// Its entries; targets are paths inside, which begin with the folder's own name.
    pub files: Vec<File>,
    pub folders: Vec<PathBuf>,
}

/// Resolves the view of a flow folder. Copies nothing.
///
/// Folders merge. Where two files get the same name the last one wins, with a warning; the flow's
/// own are first. Links are followed.
///
/// * `reach`: how far includes and links may lead: an include root (see [`crate::include_root`]),
///   or nowhere.
///
/// # Errors
///
/// All final. `Flow.BadIncludes`, `Flow.AbsoluteInclude`, `Flow.MissingInclude`,
/// `Flow.IncludeCollision`, `Flow.PathLeadsOut`, `Flow.LinkLoop`, `Flow.TooLarge`,
/// `Flow.Unreadable`, `Flow.TwoFlows`, `Flow.BadFlowFile`; and what [`crate::canonical`] says.
pub fn list<'a>(folder: &Path, reach: impl Into<Reach<'a>>) -> Result<View, Failure> {
    let folder = Folder::open(folder, reach)?;
    let includes = folder.includes()?;
    let mut walk = Walk::new(&folder, 0, 0);
    walk.folder(&folder.path, Path::new(""), &mut Vec::new())?;
    let mut archives: BTreeMap<PathBuf, Archive> = BTreeMap::new();
    for include in &includes {
        let walked = if include.zipped {
            walk.archive(include).map(|archive| {
                archives.insert(archive.target.clone(), archive);
            })
        } else {
            // The last one wins, whatever it is.
            archives.remove(&include.name);
            walk.entry(&include.source, &include.name, &mut Vec::new())
        };
        walked.map_err(|failure| Failure {
            message: format!(
                "{}: the include {}: {}",
                include.place, include.written, failure.message
            ),
            ..failure
        })?;
    }
    Ok(View {
        bytes: walk.bytes,
        archives: archives.into_values().collect(),
        warnings: std::mem::take(&mut walk.warnings),
        folders: walk.folders.iter().cloned().collect(),
        files: walk.files(),
    })
}

/// Copies a view's files into `to`, which is made if it is not there. A file keeps its mode.
///
/// # Errors
///
/// An error of the file system; worth a retry into a new folder. A file that went away since
/// [`list`] is one.
pub fn copy_into(view: &View, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for folder in &view.folders {
        fs::create_dir_all(to.join(folder))?;
    }
    for file in &view.files {
        fs::copy(&file.source, to.join(&file.target))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.target.display())))?;
    }
    for archive in &view.archives {
        let file = io::BufWriter::new(fs::File::create(to.join(&archive.target))?);
        write_zip(&archive.folders, &archive.files, file)?.flush()?;
    }
    Ok(())
}

/// Writes a zip file: nothing is compressed, and no file's time is kept, so that the same folder is
/// the same file.
pub(crate) fn write_zip<W: Write + io::Seek>(folders: &[PathBuf], files: &[File], to: W) -> io::Result<W> {
    let mut zip = zip::ZipWriter::new(to);
    for folder in folders {
        zip.add_directory(folder.display().to_string(), as_it_is())?;
    }
    for file in files {
        let mut source = fs::File::open(&file.source)?;
        let mode = source.metadata()?.permissions().mode();
        zip.start_file(file.target.display().to_string(), as_it_is().unix_permissions(mode))?;
        io::copy(&mut source, &mut zip)?;
    }
    Ok(zip.finish()?)
}

/// The options by which everything is written into a zip file.
pub(crate) fn as_it_is() -> zip::write::SimpleFileOptions {
    zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
}

struct Walk<'a> {
    folder: &'a Folder,
    files: BTreeMap<PathBuf, (PathBuf, u64)>,
    folders: BTreeSet<PathBuf>,
    /// Entries of archives, beside `files` and `folders`.
    archived: usize,
    bytes: u64,
    /// The number of entries that were looked at: several includes may name the same.
    looked_at: usize,
    warnings: Vec<String>,
}

impl<'a> Walk<'a> {
    /// * `count`, `bytes`: what the view has already.
    fn new(folder: &'a Folder, count: usize, bytes: u64) -> Self {
        Self {
            folder,
            files: BTreeMap::new(),
            folders: BTreeSet::new(),
            archived: count,
            bytes,
            looked_at: 0,
            warnings: Vec::new(),
        }
    }

    fn count(&self) -> usize {
        self.files.len() + self.folders.len() + self.archived
    }

    fn files(self) -> Vec<File> {
        let files = self.files.into_iter();
        files
            .map(|(target, (source, bytes))| File { source, target, bytes })
            .collect()
    }

    /// A folder as a zip file, in which it has its own name.
    fn archive(&mut self, include: &Include) -> Result<Archive, Failure> {
        if self.folders.contains(&include.name) {
            return Err(self.collision(&include.name));
        }
        let mut inside = Walk::new(self.folder, self.count(), self.bytes);
        inside.looked_at = self.looked_at;
        let name = include.name.with_extension("");
        inside.folder(&include.source, &name, &mut Vec::new())?;
        self.archived = inside.count() - self.files.len() - self.folders.len();
        self.bytes = inside.bytes;
        self.looked_at = inside.looked_at;
        self.warnings.append(&mut inside.warnings);
        if let Some((before, bytes)) = self.files.remove(&include.name) {
            self.bytes -= bytes;
            self.warnings.push(format!(
                "{} as a zip file takes the place of {} as {}.",
                self.folder.show(&include.source),
                self.folder.show(&before),
                include.name.display()
            ));
        }
        Ok(Archive {
            target: include.name.clone(),
            folders: inside.folders.iter().cloned().collect(),
            files: inside.files(),
        })
    }

    /// * `source`: canonical.
    /// * `inside`: the folders that it is in, for links that lead back.
    fn folder(&mut self, source: &Path, target: &Path, inside: &mut Vec<PathBuf>) -> Result<(), Failure> {
        let shown = self.folder.show(source);
        if inside.iter().any(|above| above == source) {
            let message = format!(
                "{} is a link to a folder that it is in. Take the link out.",
                target.display()
            );
            return Err(Failure::new(Code::FlowLinkLoop, message));
        }
        if inside.len() >= MOST_DEPTH {
            return Err(Failure::new(
                Code::FlowTooLarge,
                format!("{shown} is more than {MOST_DEPTH} folders deep. Move it up, or out."),
            ));
        }
        if !target.as_os_str().is_empty() {
            if self.files.contains_key(target) {
                return Err(self.collision(target));
            }
            self.folders.insert(target.to_owned());
        }
        self.check_bounds()?;
        inside.push(source.to_owned());
        let read = fs::read_dir(source).and_then(|entries| {
            entries
                .take(MOST_FILES + SKIPPED.len() + 1)
                .collect::<io::Result<Vec<_>>>()
        });
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
        self.looked_at += 1;
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
        self.check_bounds()
    }

    fn collision(&self, target: &Path) -> Failure {
        let message = format!(
            "{} would be both a file and a folder. Rename one of the two.",
            target.display()
        );
        Failure::new(Code::FlowIncludeCollision, message)
    }

    fn check_bounds(&self) -> Result<(), Failure> {
        let count = self.count();
        let what = if count > MOST_FILES || self.looked_at > MOST_LOOKS {
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
        Err(Failure::new(Code::FlowTooLarge, message))
    }
}
