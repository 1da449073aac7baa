//! The packages of a folder that holds no flow and no requirements file: by the project file that
//! it has.
//!
//! | file | packages | versions held by |
//! | --- | --- | --- |
//! | `pyproject.toml` | `[project] dependencies` with `[tool.uv.sources]`, else `[tool.poetry.dependencies]` | `uv.lock`, `pylock.toml` or `poetry.lock` |
//! | `Pipfile` | `[packages]`; other categories by name | `Pipfile.lock` |
//! | `environment.yml` | the `pip` part; a package of its conda part is refused by name | |
//! | `setup.cfg` | `[options] install_requires` | |
//! | `setup.py` | `install_requires`, if it is a list of texts | |
//! | `x.py` | the comment `# /// script`, if one script has it | |
//!
//! Which Python they ask for is read apart from that (`pythons.rs`).
//!
//! The first that says something counts. A lock holds versions; its hashes do not count, as rows
//! keep the lines and have a bound. A folder whose only description is one that nobody reads here
//! is refused.

mod conda;
mod descriptions;
mod locks;
mod own;
mod pipfile;
mod places;
mod poetry;
mod pyproject;
mod python;
mod pythons;
mod script;
mod setup;

pub use descriptions::Described;
pub(crate) use descriptions::find as descriptions;
pub(crate) use own::read as read_own_project;
pub use own::{Installed, OwnProject, own_project};
pub use pythons::PythonConstraint;
pub(crate) use pythons::constraints as python_constraints;

use crate::{
    Code, Failure,
    folder::Folder,
    requirements::{self, Line, Requirements},
};
use std::{collections::HashMap, path::PathBuf};

/// A project file as it was found.
struct Source {
    path: PathBuf,
    name: String,
    text: String,
    /// The ends of its lines.
    ends: Vec<usize>,
    /// The first line that begins with a word.
    naming: HashMap<String, usize>,
}

/// The word that a line begins with, behind what YAML and TOML have before one.
fn word(line: &str) -> &str {
    let line = line.trim_start_matches([' ', '\t', '-', '"', '\'', '[', '{']);
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    &line[..end.unwrap_or(line.len())]
}

impl Source {
    fn find(folder: &Folder, name: &str) -> Result<Option<Self>, Failure> {
        let found = folder.follow(&folder.path.join(name), name)?;
        let Some(path) = found.filter(|found| found.is_file()) else {
            return Ok(None);
        };
        let text = folder.read(&path, name)?;
        Ok(Some(Self::of(path, name, text)))
    }

    fn of(path: PathBuf, name: &str, text: String) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at).collect();
        let mut naming = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            naming.entry(word(line).to_owned()).or_insert(at + 1);
        }
        Self {
            path,
            name: name.to_owned(),
            text,
            ends,
            naming,
        }
    }

    /// The line that an offset in the text is in, from 1.
    fn line_at(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end < at) + 1
    }

    /// The first line that begins with a name, from 1; the first line of all if none does.
    fn line_naming(&self, name: &str) -> usize {
        self.naming.get(word(name)).copied().unwrap_or(1)
    }

    /// The same, or else the first line that has the name. Reads all of the text.
    fn find_line(&self, name: &str) -> usize {
        let wanted = word(name);
        let has_it = |line: &str| {
            let mut names = line.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
            names.any(|name| name == wanted)
        };
        let known = self.naming.get(wanted).copied();
        let found = || self.text.lines().position(has_it).map(|at| at + 1);
        known.or_else(found).unwrap_or(1)
    }

    fn toml<T: serde::de::DeserializeOwned>(&self) -> Result<T, Failure> {
        toml::from_str(&self.text).map_err(|error| {
            let line = error
                .span()
                .map(|span| format!(":{}", self.line_at(span.start)))
                .unwrap_or_default();
            let why = crate::redact(error.message().trim_end_matches('.'));
            bad(format!("{}{line}: {why}. Correct it.", self.name))
        })
    }

    /// A requirement that the file has for a package.
    fn line(&self, name: &str, text: String) -> Line {
        self.line_of(self.line_naming(name), text)
    }

    /// A requirement that the file has in a line.
    fn line_of(&self, number: usize, text: impl Into<String>) -> Line {
        Line {
            file: self.name.clone(),
            number,
            text: text.into(),
            constraint: false,
        }
    }

    /// The failure about a package that the file names.
    fn refuse(&self, name: &str, why: &str) -> Failure {
        bad(format!(
            "{}:{}: {} {why}",
            self.name,
            self.find_line(name),
            crate::redact(name)
        ))
    }

    fn local(&self, name: &str) -> Failure {
        Failure::new(
            Code::FlowLocalPackage,
            format!(
                "{}:{}: {name} is a local folder, which is not supported. Put its modules into this folder, or publish it to an index.",
                self.name,
                self.line_naming(name)
            ),
        )
    }
}

/// Says which names there are.
fn list_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.is_empty() {
        true => "It has none".to_owned(),
        false => format!("It has {}", names.join(", ")),
    }
}

fn bad(message: String) -> Failure {
    Failure::new(Code::FlowBadProject, message)
}

/// The packages of the project, as requirements. `None` if the folder describes none.
///
/// # Errors
///
/// `Flow.BadProject`, `Flow.LocalPackage`, `Flow.TooLarge`; of a line, what a requirements file's
/// would be.
pub(crate) fn requirements(folder: &Folder) -> Result<Option<Requirements>, Failure> {
    type Read = fn(&Folder, &Source) -> Result<Option<Vec<Line>>, Failure>;
    const KNOWN: [(&str, Read); 6] = [
        ("pyproject.toml", pyproject::lines),
        ("Pipfile", pipfile::lines),
        ("environment.yml", conda::lines),
        ("environment.yaml", conda::lines),
        ("setup.cfg", setup::of_cfg),
        ("setup.py", setup::of_python),
    ];
    for (name, read) in KNOWN {
        let Some(source) = Source::find(folder, name)? else {
            continue;
        };
        if let Some(lines) = read(folder, &source)? {
            return check_source(source, lines).map(Some);
        }
    }
    match descriptions(folder).first() {
        Some(name) => Err(bad(format!(
            "{name} is the only description of the folder's packages, and is not read. Write a requirements.txt{}.",
            if name.ends_with(".txt") {
                format!(" with the line `-r {name}`")
            } else {
                " that lists them".to_owned()
            }
        ))),
        None => match script::find(folder)? {
            Some((source, lines)) => check_source(source, lines).map(Some),
            None => Ok(None),
        },
    }
}

fn check_source(source: Source, lines: Vec<Line>) -> Result<Requirements, Failure> {
    if lines.len() > requirements::MOST_LINES {
        let message = format!(
            "{} and its lock have more than {} packages. Make them fewer.",
            source.name,
            requirements::MOST_LINES
        );
        return Err(Failure::new(Code::FlowTooLarge, message));
    }
    for line in &lines {
        requirements::check(line)?;
    }
    Ok(Requirements {
        file: source.path,
        declared: false,
        lines,
    })
}

/// The dependencies of the folder's own project, for a line that names it as a package.
///
/// * `extras`: which of its extras it names, with commas between them.
///
/// # Errors
///
/// `Flow.BadProject`, `Flow.LocalPackage`; of a line, what a requirements file's would be.
pub(crate) fn own(folder: &Folder, line: &Line, extras: &str) -> Result<Vec<Line>, Failure> {
    let extras: Vec<&str> = extras
        .split(',')
        .map(str::trim)
        .filter(|extra| !extra.is_empty())
        .collect();
    let lines = match setup::own(folder, &format!("{}:{}", line.file, line.number), &extras)? {
        Some(lines) if !pyproject::has_project(folder)? => lines,
        _ => {
            let (source, place) = own_file(folder, line)?;
            pyproject::own(&source, &place, &extras)?
        }
    };
    for line in &lines {
        requirements::check(line)?;
    }
    Ok(lines)
}

/// The dependencies of one dependency group of the folder's own project, or of one category of its
/// Pipfile, for a line that names it.
///
/// # Errors
///
/// `Flow.BadProject`, `Flow.LocalPackage`; of a line, what a requirements file's would be.
///
/// # Source
///
/// <https://packaging.python.org/en/latest/specifications/dependency-groups/>.
pub(crate) fn group(folder: &Folder, line: &Line, name: &str) -> Result<Vec<Line>, Failure> {
    let place = format!("{}:{}", line.file, line.number);
    let lines = match (
        Source::find(folder, "pyproject.toml")?,
        Source::find(folder, "Pipfile")?,
    ) {
        (Some(source), None) => pyproject::group(&source, &place, name)?,
        (Some(source), Some(_)) if pyproject::has_project(folder)? => pyproject::group(&source, &place, name)?,
        (_, Some(source)) => pipfile::group(&source, &place, name)?,
        (None, None) => {
            return Err(bad(format!(
                "{place}: only a pyproject.toml or a Pipfile has dependency groups, and the folder has neither. Write the packages in place of {name}."
            )));
        }
    };
    for line in &lines {
        requirements::check(line)?;
    }
    Ok(lines)
}

/// The lines by which a requirements file says what the folder's project file said until then.
/// `None` if there is no such file.
pub(crate) fn stand_in(folder: &Folder) -> Result<Option<String>, Failure> {
    let Some(found) = requirements(folder)? else {
        return Ok(None);
    };
    let name = found.file.file_name().unwrap_or_default().to_string_lossy();
    Ok(Some(match &*name {
        "Pipfile" => format!("{} {}", requirements::GROUP, pipfile::DEFAULT),
        _ => "-e .".to_owned(),
    }))
}

/// The project file of the folder, and where a line names it.
fn own_file(folder: &Folder, line: &Line) -> Result<(Source, String), Failure> {
    let place = format!("{}:{}", line.file, line.number);
    if let Some(source) = Source::find(folder, "pyproject.toml")? {
        return Ok((source, place));
    }
    if Source::find(folder, "Pipfile")?.is_some() {
        return Err(bad(format!(
            "{place}: a Pipfile has no extras, and is no package. Name one of its categories in its place, as `{} packages`.",
            requirements::GROUP
        )));
    }
    let remedy = "Write them in place of the line: the flow's own modules are found in its folder.";
    Err(bad(format!(
        "{place}: the folder has no pyproject.toml, setup.cfg or setup.py that lists its packages. {remedy}"
    )))
}

/// The versions that the lock beside the project file holds.
///
/// # Errors
///
/// `Flow.BadProject`.
pub(crate) fn read_locks(folder: &Folder) -> Result<Vec<Line>, Failure> {
    locks::constraints(
        folder,
        if pyproject::describes(folder)? {
            &LOCKS
        } else {
            &["Pipfile.lock"]
        },
    )
}

/// The files that describe the project that a folder is itself.
pub(crate) const OF_A_PROJECT: [&str; 3] = ["pyproject.toml", "setup.cfg", "setup.py"];

/// The locks that may be beside `pyproject.toml`.
const LOCKS: [&str; 3] = ["uv.lock", "pylock.toml", "poetry.lock"];

/// The place of a package that a table names by its repository or its URL, as it stands behind the
/// `@` of a requirement.
///
/// * `part`: the value of one of the table's keys.
fn place<'a>(part: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let Some(git) = part("git") else {
        return part("url").map(str::to_owned);
    };
    let revision = ["rev", "ref", "tag", "branch"].into_iter().find_map(&part);
    let revision = revision.map(|revision| format!("@{revision}")).unwrap_or_default();
    let folder = part("subdirectory").map(|folder| format!("#subdirectory={folder}"));
    Some(format!("git+{git}{revision}{}", folder.unwrap_or_default()))
}
