//! The files of a folder that describe packages.

use super::Source;
use crate::{Failure, folder::Folder};
use std::{collections::BTreeSet, fs};

/// Which file of a folder gave its packages, and which others were passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// The path of the file in the folder. `None` if no packages come from one.
    pub by: Option<String>,
    /// Other files that describe packages, or hold their versions, and do not count.
    pub passed_over: Vec<String>,
}

impl Described {
    /// One line for people. `None` if there is nothing to say: no description, or the default one
    /// alone.
    pub fn to_line(&self) -> Option<String> {
        let by = match &self.by {
            Some(by) => format!("packages are those of {by}"),
            None => "no packages are described in requirements.txt".to_owned(),
        };
        match (self.passed_over.is_empty(), self.by.as_deref()) {
            (true, None | Some("requirements.txt")) => None,
            (true, Some(_)) => Some(by),
            (false, _) => Some(format!("{by}; passed over: {}", self.passed_over.join(", "))),
        }
    }
}

/// Folders that may hold requirements files, and no other description.
const OF_REQUIREMENTS: [&str; 2] = ["requirements", "binder"];

/// The descriptions in a folder by their paths, in order.
///
/// # Errors
///
/// `Flow.Unreadable`, `Flow.TooLarge`, `Flow.PathLeadsOut` about a project file.
pub(crate) fn find(folder: &Folder) -> Result<Vec<String>, Failure> {
    let mut found = BTreeSet::new();
    for name in names(folder, "") {
        if is_description(folder, &name)? {
            found.insert(name);
        }
    }
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
    Ok(found.into_iter().collect())
}

/// The names of the files in a folder or in one below it.
fn names(folder: &Folder, within: &str) -> Vec<String> {
    let entries = fs::read_dir(folder.path.join(within)).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn is_description(folder: &Folder, name: &str) -> Result<bool, Failure> {
    let says = |words: &[&str]| -> Result<bool, Failure> {
        let text = Source::find(folder, name)?
            .map(|source| source.text)
            .unwrap_or_default();
        Ok(words.iter().any(|word| text.contains(word)))
    };
    match name {
        "pyproject.toml" => says(&["[project]", "[tool.poetry"]),
        "setup.cfg" => says(&["install_requires"]),
        "setup.py" | "Pipfile" | "Pipfile.lock" | "uv.lock" | "poetry.lock" | "pdm.lock" => Ok(true),
        "pylock.toml" | "conda-lock.yml" => Ok(true),
        _ => Ok(is_conda(name) || name.contains("requirements") && (name.ends_with(".txt") || name.ends_with(".in"))),
    }
}

fn is_conda(name: &str) -> bool {
    let is_yaml = name.ends_with(".yml") || name.ends_with(".yaml");
    is_yaml && (name.starts_with("environment") || name.starts_with("conda"))
}
