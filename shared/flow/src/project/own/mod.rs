//! The project that a flow folder is itself, as its install would leave it in an environment: its
//! commands and entry points, its metadata, and the folders that its modules are in. Nothing is
//! built, and no code is run.

mod pyproject;
mod setuptools;
mod version;

use super::{Source, bad};
use crate::{
    Failure,
    folder::{Folder, clean},
    normalize_name,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The version in the metadata of a project that names none, as setuptools has it.
const NONE: &str = "0.0.0";
/// That of one that computes its own.
const UNKNOWN: &str = "0+unknown";

/// The most entry points of a project.
const MOST: usize = 1000;

/// The project that a flow folder is itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnProject {
    /// `None` if the folder is a project that is not to be installed, or computes its name.
    pub name: Option<String>,
    pub version: Option<String>,
    /// The folders below the flow folder that its modules are in, in order.
    pub sources: Vec<PathBuf>,
    /// The modules and packages that are in the flow folder itself.
    pub modules: BTreeSet<String>,
    /// The entry points by their group and their name.
    pub entry_points: BTreeMap<String, BTreeMap<String, String>>,
    /// The parts of it that a session does not have, and why.
    pub lacks: Vec<String>,
    /// Whether its description leaves its version to code or to another file.
    computes_version: bool,
}

/// A file of an installed project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Text, and whether it is a program.
    File { text: String, is_program: bool },
    /// A link to a path below the flow folder.
    Link(PathBuf),
}

/// The groups of entry points that are programs.
const PROGRAMS: [&str; 2] = ["console_scripts", "gui_scripts"];

/// The project that the folder describes. `None` if it describes none.
///
/// # Errors
///
/// Final. `Flow.BadProject`, and what [`crate::canonical`] says.
pub fn own_project(folder: &Path) -> Result<Option<OwnProject>, Failure> {
    read(&Folder::open(folder, &crate::include_root(folder))?)
}

pub(crate) fn read(folder: &Folder) -> Result<Option<OwnProject>, Failure> {
    let mut project = OwnProject::default();
    let is_described = pyproject::add(folder, &mut project)?;
    let is_of_setuptools = setuptools::add(folder, &mut project)?;
    if !is_described && !is_of_setuptools {
        return Ok(None);
    }
    project.sources.push("src".into());
    let mut seen = BTreeSet::new();
    project.sources.retain(|source| {
        let is_below = source.is_relative() && clean(source) == *source && !source.starts_with("..");
        is_below && source.file_name().is_some() && folder.path.join(source).is_dir() && seen.insert(source.clone())
    });
    if project.name.is_some() {
        version::find(folder, &mut project);
    } else if !project.entry_points.is_empty() {
        project
            .lacks
            .push("its metadata, as its name is not written as a text: write it into the project file".to_owned());
    }
    if project.name.is_some() || !project.entry_points.is_empty() {
        project.find_modules(folder);
    }
    Ok(Some(project))
}

impl OwnProject {
    /// Adds an entry point.
    ///
    /// * `place`: where it stands.
    fn add_entry_point(&mut self, place: &str, group: &str, name: &str, object: &str) -> Result<(), Failure> {
        let (name, object) = (name.trim(), object.trim());
        // The extras behind an object are not looked at any more.
        let object = object.split('[').next().unwrap_or_default().trim();
        let is_path = |text: &str| text.split('.').all(is_identifier);
        let (module, attribute) = object.split_once(':').map_or((object, None), |(m, a)| (m, Some(a)));
        let is_program = PROGRAMS.contains(&group);
        let is_object = is_path(module.trim()) && attribute.map_or(!is_program, |attribute| is_path(attribute.trim()));
        let is_name = |c: char| c.is_alphanumeric() || "-_.+".contains(c);
        let is_name = match is_program {
            true => name.chars().all(is_name) && !name.starts_with(['.', '-']),
            false => !name.contains(['=', '\n', '[']),
        };
        if name.is_empty() || !is_name || !is_object {
            let needs = match is_program {
                true => "module:function",
                false => "module or module:object",
            };
            let shown = crate::redact(&format!("{name} = {object}"));
            return Err(bad(format!(
                "{place}: {shown} is no entry point. Write it as a name and `{needs}`."
            )));
        }
        let object = object.replace(' ', "");
        self.entry_points
            .entry(group.to_owned())
            .or_default()
            .insert(name.to_owned(), object);
        match self.entry_points.values().map(BTreeMap::len).sum::<usize>() > MOST {
            true => Err(bad(format!(
                "{place}: the project has more than {MOST} entry points. Make them fewer."
            ))),
            false => Ok(()),
        }
    }

    /// Finds the modules that are in the flow folder itself: those that are named, those of entry
    /// points, and that of the project's name.
    fn find_modules(&mut self, folder: &Folder) {
        let objects = self.entry_points.values().flat_map(BTreeMap::values);
        let tops = objects.filter_map(|object| object.split(['.', ':']).next());
        let mut modules: BTreeSet<String> = tops.map(str::to_owned).collect();
        modules.extend(self.name.as_deref().map(|name| normalize_name(name).replace('-', "_")));
        modules.extend(std::mem::take(&mut self.modules));
        self.modules = modules
            .into_iter()
            .filter(|module| is_identifier(module))
            .filter_map(|module| {
                let file = format!("{module}.py");
                let names = [module, file].into_iter();
                names.into_iter().find(|name| folder.path.join(name).exists())
            })
            .collect();
    }

    /// The names of its commands.
    pub fn commands(&self) -> Vec<&str> {
        let programs = PROGRAMS.iter().filter_map(|group| self.entry_points.get(*group));
        programs.flat_map(BTreeMap::keys).map(String::as_str).collect()
    }

    /// The files that an install lays out: programs below `bin`, modules and metadata below `lib`.
    ///
    /// * `flow`: where the flow folder is for them; `lib`: where `lib` is.
    pub fn files(&self, flow: &Path, lib: &Path) -> BTreeMap<PathBuf, Installed> {
        let mut files = BTreeMap::new();
        let text = |text: String| Installed::File {
            text,
            is_program: false,
        };
        for module in &self.modules {
            files.insert(Path::new("lib").join(module), Installed::Link(module.into()));
        }
        let sources = self.sources.iter().map(|source| flow.join(source));
        let paths: Vec<String> = sources
            .chain([lib.to_owned()])
            .map(|path| path.display().to_string())
            .collect();
        for (name, object) in PROGRAMS
            .iter()
            .filter_map(|group| self.entry_points.get(*group))
            .flatten()
        {
            let program = Installed::File {
                text: program(object, &paths),
                is_program: true,
            };
            files.insert(Path::new("bin").join(name), program);
        }
        let Some(name) = &self.name else { return files };
        let version = self.version.as_deref().unwrap_or(match self.computes_version {
            true => UNKNOWN,
            false => NONE,
        });
        let folder = format!("{}-{version}.dist-info", normalize_name(name).replace('-', "_"));
        let about = Path::new("lib").join(folder);
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
        files.insert(about.join("METADATA"), text(metadata));
        files.insert(about.join("INSTALLER"), text("pfsession\n".into()));
        let mut points = String::new();
        for (group, members) in &self.entry_points {
            points.push_str(&format!("[{group}]\n"));
            points.extend(members.iter().map(|(name, object)| format!("{name} = {object}\n")));
        }
        files.insert(about.join("entry_points.txt"), text(points));
        files
    }
}

/// The program of an entry point: a shell's, as it begins, and Python's. It is run by the Python
/// that is first on `PATH`, and finds the project's modules by itself.
fn program(object: &str, paths: &[String]) -> String {
    let (module, attribute) = object.split_once(':').unwrap_or((object, ""));
    let first = attribute.split('.').next().unwrap_or_default();
    let paths = serde_json::Value::from(paths);
    format!(
        "#!/bin/sh\n'''exec' python \"$0\" \"$@\"\n' '''\nimport sys\nsys.path[:1] = {paths}\nfrom {module} import {first}\nsys.exit({attribute}())\n"
    )
}

fn is_identifier(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|first| first.is_alphabetic() || first == '_')
        && letters.all(|c| c.is_alphanumeric() || c == '_')
}

/// A version that a file's name can hold.
fn is_version(text: &str) -> bool {
    !text.is_empty() && text.len() <= 100 && text.parse::<pep508_rs::pep440_rs::Version>().is_ok()
}

/// The line of a file that names something.
fn place(source: &Source, name: &str) -> String {
    format!("{}:{}", source.name, source.line_naming(name))
}
