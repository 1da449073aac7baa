//! The folder itself: where it lies, its flow file, its includes, and reading inside the include
//! root.

use crate::{
    Code, Failure,
    yaml::{mapping, type_of},
};
use serde_json::Value;
use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

/// The most bytes that a flow file, a requirements file or a run file may have.
const MOST_BYTES: u64 = 1 << 20;

/// The most additional includes of a flow.
const MOST_INCLUDES: usize = 500;

/// The names of the files that make a folder a flow.
const FLOW_FILES: [&str; 4] = ["flow.dag.yaml", "flow.dag.yml", "flow.flex.yaml", "flow.flex.yml"];

/// The kind of a flow folder, which decides what runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A graph of nodes; `file` is `flow.dag.yaml` or `flow.dag.yml`.
    Dag { file: &'static str },
    /// A function or a class; `file` is `flow.flex.yaml`, or `flow.dag.yaml` in older flows, or
    /// ends in `yml`. `entry` names it: `module:function`, `package.module:Class`.
    Flex { file: &'static str, entry: String },
    /// Python code, a requirements file or a `pyproject.toml`. It has packages to install, and no
    /// flow to run.
    Folder,
}

impl Kind {
    /// The name of the flow file, if there is one.
    pub fn file(&self) -> Option<&'static str> {
        match self {
            Self::Dag { file } | Self::Flex { file, .. } => Some(file),
            Self::Folder => None,
        }
    }
}

/// The folder's canonical absolute path.
///
/// # Errors
///
/// `Flow.NoSuchFolder`, `Flow.NotAFolder`, `Flow.Unreadable`.
pub fn canonical(folder: &Path) -> Result<PathBuf, Failure> {
    let path = fs::canonicalize(folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            Code::FlowNoSuchFolder,
            format!(
                "There is no folder {}. Give the path of the folder that holds the flow.",
                folder.display()
            ),
        ),
        io::ErrorKind::NotADirectory => not_a_folder(folder),
        _ => unreadable(&folder.display().to_string(), &error),
    })?;
    if path.is_dir() {
        Ok(path)
    } else {
        Err(not_a_folder(folder))
    }
}

fn not_a_folder(path: &Path) -> Failure {
    Failure::new(
        Code::FlowNotAFolder,
        format!(
            "{} is not a folder. Give the path of the folder that holds the flow.",
            path.display()
        ),
    )
}

/// The default bound of the paths that the flow names: the repository that the folder lies in, else
/// its parent folder.
pub fn include_root(folder: &Path) -> PathBuf {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    // In a work tree or a submodule `.git` is a file.
    let repository = folder
        .ancestors()
        .find(|above| fs::symlink_metadata(above.join(".git")).is_ok());
    repository.or(folder.parent()).unwrap_or(&folder).to_owned()
}

/// Whether a path is that of a flow's file: a prompty, or YAML that defines a flow and not a run.
pub fn is_flow_file(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if FLOW_FILES.contains(&&*name) || name.ends_with(".prompty") {
        return true;
    }
    let is_yaml = name.ends_with(".yaml") || name.ends_with(".yml");
    let written = || read_text(path, &name).and_then(|text| mapping(&name, &text, Code::FlowBadFlowFile, "`nodes: …`"));
    is_yaml && written().is_ok_and(|value| value.get("nodes").is_some() || value.get("entry").is_some())
}

/// Whether a file's name is one by which a folder is a flow, so that the folder alone means it.
pub fn is_plain_flow_name(name: &str) -> bool {
    FLOW_FILES.contains(&name)
}

/// The kind of the folder.
///
/// # Errors
///
/// Those of [`canonical`]; `Flow.NoFlow` if there is neither a flow nor Python nor a requirements
/// file in it; `Flow.TwoFlows`, `Flow.BadFlowFile`, `Flow.PathLeadsOut`, `Flow.Unreadable` about
/// its flow file.
pub fn kind(folder: &Path) -> Result<Kind, Failure> {
    let folder = Folder::open(folder, &include_root(folder))?;
    if let Some(file) = &folder.flow_file {
        return match file.value.get("entry") {
            None if file.name.contains(".dag.") => Ok(Kind::Dag { file: file.name }),
            Some(Value::String(entry)) if entry.contains(':') => Ok(Kind::Flex {
                file: file.name,
                entry: entry.clone(),
            }),
            _ => Err(Failure::new(
                Code::FlowBadFlowFile,
                format!(
                    "{}: a flex flow needs its entry, a function or a class. Write `entry: module:name`, where module.py is in the flow folder.",
                    file.place("entry")
                ),
            )),
        };
    }
    let entries = fs::read_dir(&folder.path).map_err(|error| unreadable(&folder.path.display().to_string(), &error))?;
    let is_code = |name: &str| {
        let endings = [".py", ".ipynb", ".prompty", ".dag.yaml", ".flex.yaml"];
        ["requirements.txt", "pyproject.toml"].contains(&name) || endings.iter().any(|ending| name.ends_with(ending))
    };
    if entries
        .flatten()
        .any(|entry| is_code(&entry.file_name().to_string_lossy()))
    {
        return Ok(Kind::Folder);
    }
    Err(Failure::new(
        Code::FlowNoFlow,
        format!(
            "{} holds no flow.dag.yaml, no flow.flex.yaml, no Python, no requirements.txt and no pyproject.toml. Give the path of the folder that holds the flow or the code.",
            folder.path.display()
        ),
    ))
}

/// The bound of the paths that a flow names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach<'a> {
    /// As far as this folder: see [`include_root`].
    Root(&'a Path),
    /// Nowhere: the folder is a view that was laid out before, such as a snapshot. What it includes
    /// is in it.
    View,
}

impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for Reach<'a> {
    fn from(root: &'a P) -> Self {
        Self::Root(root.as_ref())
    }
}

/// A flow folder, opened.
pub(crate) struct Folder {
    /// Canonical, as is the root.
    pub(crate) path: PathBuf,
    pub(crate) root: PathBuf,
    is_view: bool,
    pub(crate) flow_file: Option<FlowFile>,
}

/// One of [`FLOW_FILES`], read.
pub(crate) struct FlowFile {
    pub(crate) name: &'static str,
    text: String,
    pub(crate) value: Value,
}

impl FlowFile {
    /// `file:line` of the first line that begins with a key, or holds a word.
    pub(crate) fn place(&self, word: &str) -> String {
        let key = |line: &str| {
            line.trim_start()
                .strip_prefix(word)
                .is_some_and(|rest| rest.trim_start().starts_with(':'))
        };
        let lines = || self.text.lines().enumerate();
        let number = lines()
            .find(|(_, line)| key(line))
            .or_else(|| lines().find(|(_, line)| line.contains(word)))
            .map(|(i, _)| i + 1);
        number.map_or(self.name.to_owned(), |number| format!("{}:{number}", self.name))
    }
}

/// One of the additional includes.
pub(crate) struct Include {
    /// As the flow file has it.
    pub(crate) written: String,
    /// `file:line` of it.
    pub(crate) place: String,
    /// The name it gets at the flow's root.
    pub(crate) name: PathBuf,
    /// Canonical, inside the root.
    pub(crate) source: PathBuf,
    /// Whether it is asked for as a zip file of that folder.
    pub(crate) zipped: bool,
}

impl Folder {
    pub(crate) fn open<'a>(folder: &Path, reach: impl Into<Reach<'a>>) -> Result<Self, Failure> {
        let path = canonical(folder)?;
        let reach = reach.into();
        let root = match reach {
            Reach::Root(root) => {
                fs::canonicalize(root).map_err(|error| unreadable(&root.display().to_string(), &error))?
            }
            Reach::View => path.clone(),
        };
        if !path.starts_with(&root) {
            return Err(Failure::new(
                Code::FlowPathLeadsOut,
                format!(
                    "The flow folder {} is not inside the include root {}. Choose an include root that holds the flow folder.",
                    path.display(),
                    root.display()
                ),
            ));
        }
        let mut opened = Self {
            path,
            root,
            is_view: reach == Reach::View,
            flow_file: None,
        };
        let there = |name: &&&str| fs::symlink_metadata(opened.path.join(name)).is_ok();
        let found: Vec<&'static str> = FLOW_FILES.iter().filter(there).copied().collect();
        let name = match found.as_slice() {
            [] => return Ok(opened),
            [name] => *name,
            several => {
                let message = format!(
                    "{} holds {}. Keep the one that is meant, and move the other away.",
                    opened.path.display(),
                    several.join(" and ")
                );
                return Err(Failure::new(Code::FlowTwoFlows, message));
            }
        };
        let text = opened.read(&opened.path.join(name), name)?;
        let value = mapping(name, &text, Code::FlowBadFlowFile, "`nodes: …` or `entry: module:name`")?;
        opened.flow_file = Some(FlowFile { name, text, value });
        Ok(opened)
    }

    /// A path, as the flow folder sees it.
    pub(crate) fn show(&self, path: &Path) -> String {
        if let Ok(below) = path.strip_prefix(&self.path) {
            return if below.as_os_str().is_empty() {
                ".".to_owned()
            } else {
                below.display().to_string()
            };
        }
        let common = self.path.ancestors().find(|above| path.starts_with(above));
        match common.filter(|common| *common != Path::new("/") && path.starts_with(&self.root)) {
            Some(common) => {
                let up = self
                    .path
                    .strip_prefix(common)
                    .map_or(0, |below| below.components().count());
                Path::new(&"../".repeat(up))
                    .join(path.strip_prefix(common).unwrap_or(path))
                    .display()
                    .to_string()
            }
            None => path.display().to_string(),
        }
    }

    /// Follows every link of `path`. `None` if there is nothing.
    ///
    /// * `place`: who names it, for the error.
    pub(crate) fn follow(&self, path: &Path, place: &str) -> Result<Option<PathBuf>, Failure> {
        // What is outside is not looked at, not even for whether it is there.
        if !clean(path).starts_with(&self.root) {
            return Err(self.leads_out(&self.show(&clean(path)), place));
        }
        match fs::canonicalize(path) {
            Ok(real) if real.starts_with(&self.root) => Ok(Some(real)),
            Ok(_) => Err(self.leads_out(&self.show(path), place)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(unreadable(&self.show(path), &error)),
        }
    }

    pub(crate) fn leads_out(&self, path: &str, place: &str) -> Failure {
        let place = if place == path {
            String::new()
        } else {
            format!("{place}: ")
        };
        Failure::new(
            Code::FlowPathLeadsOut,
            format!(
                "{place}{path} leads out of what this flow may see, which is {}. Move what it needs in there, or choose a wider include root.",
                self.root.display()
            ),
        )
    }

    /// The text of a regular file inside the root.
    pub(crate) fn read(&self, path: &Path, place: &str) -> Result<String, Failure> {
        let shown = self.show(path);
        let real = self
            .follow(path, place)?
            .ok_or_else(|| unreadable(&shown, &io::ErrorKind::NotFound.into()))?;
        read_text(&real, &shown)
    }

    /// The additional includes, each with what it stands for.
    pub(crate) fn includes(&self) -> Result<Vec<Include>, Failure> {
        let Some(file) = self.flow_file.as_ref().filter(|_| !self.is_view) else {
            return Ok(Vec::new());
        };
        let key = "additional_includes";
        let bad = |what: &str| {
            Failure::new(
                Code::FlowBadIncludes,
                format!(
                    "{}: {key} is {what}. It should be a list of paths relative to the flow folder, such as `- ../shared/helpers.py`.",
                    file.place(key)
                ),
            )
        };
        let items = match file.value.get(key) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(bad(type_of(other))),
        };
        if items.len() > MOST_INCLUDES {
            return Err(Failure::new(
                Code::FlowTooLarge,
                format!(
                    "{}: there are {} includes, and may be {MOST_INCLUDES}. Put files into one folder, and include that.",
                    file.place(key),
                    items.len()
                ),
            ));
        }
        items
            .iter()
            .map(|item| match item {
                Value::String(written) if !written.trim().is_empty() => self.include(written, &file.place(written)),
                Value::Null | Value::String(_) => Err(bad("a list with an empty item in it")),
                other => Err(bad(&format!("a list with {} in it", type_of(other)))),
            })
            .collect()
    }

    fn include(&self, written: &str, place: &str) -> Result<Include, Failure> {
        let relative = Path::new(written);
        let drive = written.as_bytes().get(1) == Some(&b':') || written.starts_with('\\');
        if relative.is_absolute() || drive {
            return Err(Failure::new(
                Code::FlowAbsoluteInclude,
                format!(
                    "{place}: the include {written} is an absolute path. Write it relative to the flow folder, such as ../shared."
                ),
            ));
        }
        let path = self.path.join(relative);
        let Some(source) = self.follow(&path, &format!("{place}: the include {written}"))? else {
            if let Some(folder) = self.folder_of_zip(&path, &format!("{place}: the include {written}"))? {
                return Ok(Include {
                    written: written.to_owned(),
                    place: place.to_owned(),
                    name: clean(&path).file_name().unwrap_or_default().into(),
                    source: folder,
                    zipped: true,
                });
            }
            let what = if fs::symlink_metadata(&path).is_ok() {
                "is a link to nothing"
            } else {
                "is not there"
            };
            return Err(Failure::new(
                Code::FlowMissingInclude,
                format!(
                    "{place}: the include {written} {what}. Correct the path, which is relative to the flow folder, or take it out."
                ),
            ));
        };
        // As promptflow has it: a link goes by the name of what it leads to.
        let name = source.file_name().unwrap_or_default().into();
        Ok(Include {
            written: written.to_owned(),
            place: place.to_owned(),
            name,
            source,
            zipped: false,
        })
    }

    /// The folder that `X.zip` stands for where there is no such file.
    ///
    /// * `path`: where there is nothing, not even a link to nothing.
    fn folder_of_zip(&self, path: &Path, place: &str) -> Result<Option<PathBuf>, Failure> {
        let is_zip = path.extension().is_some_and(|extension| extension == "zip");
        if !is_zip || fs::symlink_metadata(path).is_ok() {
            return Ok(None);
        }
        Ok(self
            .follow(&path.with_extension(""), place)?
            .filter(|folder| folder.is_dir()))
    }

    /// The file at `target` of the view, as [`crate::view::list`] would have it. `None` if there is
    /// none.
    pub(crate) fn find(&self, includes: &[Include], target: &Path, place: &str) -> Result<Option<PathBuf>, Failure> {
        let is_file = |found: &PathBuf| found.is_file();
        for include in includes.iter().rev().filter(|include| !include.zipped) {
            if let Ok(below) = target.strip_prefix(&include.name) {
                let path = if below.as_os_str().is_empty() {
                    include.source.clone()
                } else {
                    include.source.join(below)
                };
                if let Some(found) = self.follow(&path, place)?.filter(is_file) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(self.follow(&self.path.join(target), place)?.filter(is_file))
    }
}

/// A path without `.` and `..`, by its words alone.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            Component::ParentDir if out.has_root() => {}
            other => out.push(other),
        }
    }
    out
}

/// The text of a regular, small file: UTF-8, or UTF-16 with its mark, as some Windows tools write
/// it.
pub(crate) fn read_text(path: &Path, shown: &str) -> Result<String, Failure> {
    // A pipe or a device would be read for ever.
    let about = fs::metadata(path).map_err(|error| unreadable(shown, &error))?;
    if !about.is_file() {
        return Err(Failure::new(
            Code::FlowUnreadable,
            format!("{shown} is not a file. Put a text file there."),
        ));
    }
    if about.len() > MOST_BYTES {
        let message = format!(
            "{shown} has {} bytes, and may have {MOST_BYTES}. Make it smaller.",
            about.len()
        );
        return Err(Failure::new(Code::FlowTooLarge, message));
    }
    let bytes = fs::read(path).map_err(|error| unreadable(shown, &error))?;
    let not_text = |_| {
        Failure::new(
            Code::FlowUnreadable,
            format!("{shown} is not UTF-8 text. Save it as UTF-8."),
        )
    };
    let wide = |of: fn([u8; 2]) -> u16| {
        let words: Vec<u16> = bytes[2..].chunks_exact(2).map(|pair| of([pair[0], pair[1]])).collect();
        String::from_utf16(&words).map_err(|_| ()).map_err(not_text)
    };
    match bytes.as_slice() {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, text @ ..] => String::from_utf8(text.to_vec()).map_err(|_| ()).map_err(not_text),
        _ => String::from_utf8(bytes).map_err(|_| ()).map_err(not_text),
    }
}

pub(crate) fn unreadable(shown: &str, error: &io::Error) -> Failure {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "it is not there".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not".to_owned(),
        other => other.to_string(),
    };
    let message = format!("{shown} cannot be read: {why}. See that it is there and may be read.");
    Failure::new(Code::FlowUnreadable, message)
}
