//! The files of a folder that describe packages.

use super::Source;
use crate::folder::Folder;
use std::{collections::BTreeSet, fs};

/// Which file of a folder gave its packages, and which others were passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// The path of the file in the folder. `None` if no packages come from one.
    pub by: Option<String>,
    /// Other files that describe packages, or hold their versions, and do not count.
    pub passed_over: Vec<String>,
    /// The commands of the folder's own project, which a session has.
    pub commands: Vec<String>,
    /// The parts of that project that it does not have, and why.
    pub lacks: Vec<String>,
}

impl Described {
    /// One line for people. `None` if there is nothing to say: no description, or the default one
    /// alone.
    pub fn to_line(&self) -> Option<String> {
        let mut parts = Vec::new();
        match &self.by {
            Some(by) if by != "requirements.txt" => parts.push(format!("packages are those of {by}")),
            Some(by) if !self.passed_over.is_empty() => parts.push(format!("packages are those of {by}")),
            None if !self.passed_over.is_empty() => {
                parts.push("no packages are described in requirements.txt".to_owned())
            }
            Some(_) | None => {}
        }
        if !self.passed_over.is_empty() {
            parts.push(format!("passed over: {}", name_some(&self.passed_over, ", ")));
        }
        if !self.commands.is_empty() {
            parts.push(format!(
                "commands of the folder's project: {}",
                name_some(&self.commands, ", ")
            ));
        }
        if !self.lacks.is_empty() {
            parts.push(format!(
                "of the folder's project the session lacks {}",
                name_some(&self.lacks, "; and ")
            ));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// The first names of a list, and how many more there are.
fn name_some(names: &[String], between: &str) -> String {
    let named = &names[..names.len().min(MOST_NAMED)];
    let more = match names.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(between))
}

/// The most files that the line names: it goes into reports and rows, which have bounds.
const MOST_NAMED: usize = 20;

/// Folders that may hold requirements files, and no other description.
const OF_REQUIREMENTS: [&str; 2] = ["requirements", "binder"];

/// The descriptions in a folder by their paths, in order. A project file that cannot be read counts
/// as one.
pub(crate) fn find(folder: &Folder) -> Vec<String> {
    let own = names(folder, "").into_iter();
    let mut found: BTreeSet<String> = own.filter(|name| is_description(folder, name)).collect();
    for within in OF_REQUIREMENTS {
        for name in names(folder, within) {
            let is_text = name.ends_with(".txt") || name.ends_with(".in");
            let counts = match within {
                "requirements" => is_text,
                _ => is_conda(&name) || is_text && name.contains("requirements"),
            };
            if counts {
                found.insert(format!("{within}/{name}"));
            }
        }
    }
    found.into_iter().collect()
}

/// The names of the files in a folder or in one below it.
fn names(folder: &Folder, within: &str) -> Vec<String> {
    let entries = fs::read_dir(folder.path.join(within)).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn is_description(folder: &Folder, name: &str) -> bool {
    let says = |words: &[&str]| match Source::find(folder, name) {
        Ok(source) => source.is_some_and(|source| words.iter().any(|word| source.text.contains(word))),
        Err(_) => true,
    };
    match name {
        "pyproject.toml" => says(&["[project]", "[tool.poetry"]),
        "setup.cfg" => says(&["install_requires"]),
        "setup.py" | "Pipfile" | "Pipfile.lock" | "uv.lock" | "poetry.lock" | "pdm.lock" => true,
        "pylock.toml" | "conda-lock.yml" => true,
        _ => is_conda(name) || name.contains("requirements") && (name.ends_with(".txt") || name.ends_with(".in")),
    }
}

fn is_conda(name: &str) -> bool {
    let is_yaml = name.ends_with(".yml") || name.ends_with(".yaml");
    is_yaml && (name.starts_with("environment") || name.starts_with("conda"))
}
