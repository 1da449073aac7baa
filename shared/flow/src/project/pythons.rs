//! The versions of Python that a folder asks for.

use super::{Source, bad, poetry, script};
use crate::{Code, Failure, folder::Folder, yaml};
use pep508_rs::pep440_rs::{Version, VersionSpecifiers};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, str::FromStr};

/// A constraint on the version of Python, as a file of the folder has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonConstraint {
    /// The file and the line.
    pub place: String,
    /// As PEP 440 has it.
    pub specifiers: VersionSpecifiers,
    /// Whether it names the Python of one machine or deployment, which a base image that is named
    /// overrides.
    pub is_pin: bool,
}

impl PythonConstraint {
    /// Whether a version is one of those. What cannot be read is none.
    pub fn admits(&self, version: &str) -> bool {
        Version::from_str(version).is_ok_and(|version| self.specifiers.contains(&version))
    }
}

/// Reads all constraints on the version of Python.
///
/// | file | constraint |
/// | --- | --- |
/// | `.python-version`, `runtime.txt` | its minor version; which patch of it is there, is the machine's. A name that is no version counts for nothing |
/// | `pyproject.toml` | `requires-python`, else `python` of Poetry's dependencies |
/// | `Pipfile` | `python_version` or `python_full_version` |
/// | `environment.yml` | the conda package `python` |
/// | a script | `requires-python` of its comment, where its packages are those of the folder |
///
/// # Errors
///
/// `Flow.BadProject`, all final.
pub(crate) fn constraints(folder: &Folder) -> Result<Vec<PythonConstraint>, Failure> {
    let mut found = Vec::new();
    for (name, prefix) in [(".python-version", ""), ("runtime.txt", "python-")] {
        if let Some(source) = Source::find(folder, name)? {
            found.extend(pin(&source, prefix));
        }
    }
    type Read = fn(&Source) -> Result<Option<(usize, String)>, Failure>;
    const FILES: [(&str, Read); 4] = [
        ("pyproject.toml", of_pyproject),
        ("Pipfile", of_pipfile),
        ("environment.yml", of_conda),
        ("environment.yaml", of_conda),
    ];
    for (name, read) in FILES {
        let Some(source) = Source::find(folder, name)? else {
            continue;
        };
        if let Some((line, text)) = read(&source)? {
            found.push(constraint(&source, line, &text)?);
        }
    }
    if is_a_scripts(folder)
        && let Some(source) = script::find_source(folder)?
        && let Some((line, text)) = script::requires_python(&source)?
    {
        found.push(constraint(&source, line, &text)?);
    }
    Ok(found)
}

/// Whether the packages of the folder are those of a script. What is wrong with it is said where
/// they are read.
fn is_a_scripts(folder: &Folder) -> bool {
    let has_none = folder.flow_file.is_none() && !folder.path.join("requirements.txt").is_file();
    let is_script = |file: std::path::PathBuf| file.extension().is_some_and(|ending| ending == "py");
    has_none
        && super::requirements(folder)
            .ok()
            .flatten()
            .is_some_and(|requirements| is_script(requirements.file) && !folder.path.join("setup.py").is_file())
}

fn constraint(source: &Source, line: usize, text: &str) -> Result<PythonConstraint, Failure> {
    let place = format!("{}:{line}", source.name);
    // The parser is never given what it could stumble over.
    let is_plain = text.len() < 200 && text.is_ascii();
    let specifiers = is_plain.then(|| VersionSpecifiers::from_str(text).ok()).flatten();
    let specifiers = specifiers.ok_or_else(|| {
        bad(format!(
            "{place}: {} is no constraint on a version of Python. Write it as in >=3.10,<3.13.",
            crate::redact(text)
        ))
    })?;
    Ok(PythonConstraint {
        place,
        specifiers,
        is_pin: false,
    })
}

/// The first version of a file that names one Python.
fn pin(source: &Source, prefix: &str) -> Option<PythonConstraint> {
    let is_said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let at = source.text.lines().position(|line| is_said(&line))?;
    let text = source.text.lines().nth(at)?.trim().strip_prefix(prefix)?;
    let parts: Vec<&str> = text.split('.').collect();
    let is_version = parts.len() <= 3
        && parts
            .iter()
            .all(|part| !part.is_empty() && part.len() < 4 && part.bytes().all(|byte| byte.is_ascii_digit()));
    let minor = parts.get(..2).unwrap_or(&parts).join(".");
    let specifiers = is_version.then(|| VersionSpecifiers::from_str(&format!("=={minor}.*")).ok())?;
    Some(PythonConstraint {
        place: format!("{}:{}", source.name, at + 1),
        specifiers: specifiers?,
        is_pin: true,
    })
}

#[derive(Deserialize)]
struct Pyproject {
    project: Option<Project>,
    tool: Option<Tools>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Project {
    requires_python: Option<String>,
}

#[derive(Deserialize)]
struct Tools {
    poetry: Option<Poetry>,
}

#[derive(Deserialize)]
struct Poetry {
    #[serde(default)]
    dependencies: BTreeMap<String, toml::Value>,
}

fn of_pyproject(source: &Source) -> Result<Option<(usize, String)>, Failure> {
    let file: Pyproject = source.toml()?;
    if let Some(text) = file.project.and_then(|project| project.requires_python) {
        return Ok(Some((source.line_naming("requires-python"), text)));
    }
    let poetry = file.tool.and_then(|tools| tools.poetry);
    let Some(value) = poetry.and_then(|mut poetry| poetry.dependencies.remove("python")) else {
        return Ok(None);
    };
    let text = value.as_str().and_then(poetry::specifier).ok_or_else(|| {
        let why = "has a version that is not supported. Write it as in >=3.10,<3.13.";
        source.refuse("python", why)
    })?;
    Ok(Some((source.line_naming("python"), text)))
}

#[derive(Deserialize)]
struct Pipfile {
    #[serde(default)]
    requires: BTreeMap<String, toml::Value>,
}

fn of_pipfile(source: &Source) -> Result<Option<(usize, String)>, Failure> {
    let file: Pipfile = source.toml()?;
    let named = |key: &str| {
        let version = file.requires.get(key)?.as_str()?;
        let ending = if key == "python_version" { ".*" } else { "" };
        Some((source.line_naming(key), format!("=={version}{ending}")))
    };
    Ok(named("python_full_version").or_else(|| named("python_version")))
}

fn of_conda(source: &Source) -> Result<Option<(usize, String)>, Failure> {
    let file = yaml::mapping(&source.name, &source.text, Code::FlowBadProject, "`dependencies`")?;
    let entries = file.get("dependencies").and_then(Value::as_array);
    for entry in entries.into_iter().flatten().filter_map(Value::as_str) {
        let text = entry.rsplit("::").next().unwrap_or(entry);
        let Some(version) = text.strip_prefix("python").map(str::trim) else {
            continue;
        };
        // `python=3.11` is each 3.11 there.
        let version = match version.strip_prefix('=').filter(|rest| !rest.starts_with('=')) {
            Some(version) => format!("=={}.*", version.trim_end_matches(".*").trim_end_matches('*')),
            None if version.starts_with(['<', '>', '=', '!']) => version.to_owned(),
            None => continue,
        };
        let line = source.text.lines().position(|line| line.contains(entry));
        return Ok(Some((line.map_or(1, |at| at + 1), version)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(files: &[(&str, &str)], expected: Expect) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let read = crate::python_constraints(folder.path());
        let said = match read {
            Err(failure) => failure.to_string(),
            Ok(found) => {
                let line = |each: PythonConstraint| {
                    format!(
                        "{} {}{}",
                        each.place,
                        each.specifiers,
                        if each.is_pin { ", a pin" } else { "" }
                    )
                };
                found.into_iter().map(line).collect::<Vec<_>>().join("; ")
            }
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn each_file_that_asks_for_a_python_counts() {
        check(
            &[(".python-version", "# mine\n3.11.7\n")],
            expect![".python-version:2 ==3.11.*, a pin"],
        );
        check(
            &[("runtime.txt", "python-3.10.4\n")],
            expect!["runtime.txt:1 ==3.10.*, a pin"],
        );
        check(
            &[(
                "pyproject.toml",
                "[project]\nname = \"a\"\nrequires-python = \">=3.10, <3.13\"\n",
            )],
            expect!["pyproject.toml:3 >=3.10, <3.13"],
        );
        check(
            &[("pyproject.toml", "[tool.poetry.dependencies]\npython = \"^3.11\"\n")],
            expect!["pyproject.toml:2 >=3.11, <4"],
        );
        check(
            &[("Pipfile", "[requires]\npython_version = \"3.12\"\n")],
            expect!["Pipfile:2 ==3.12.*"],
        );
        check(
            &[("environment.yml", "dependencies:\n- pip\n- conda-forge::python=3.11\n")],
            expect!["environment.yml:3 ==3.11.*"],
        );
        check(
            &[(
                "a.py",
                "# /// script\n# requires-python = \">=3.12\"\n# dependencies = []\n# ///\n",
            )],
            expect!["a.py:2 >=3.12"],
        );
    }

    #[test]
    fn what_names_no_version_of_python_counts_for_nothing() {
        check(&[(".python-version", "my-virtualenv\n")], expect![""]);
        check(&[(".python-version", "pypy3.10-7.3.12\n")], expect![""]);
        check(&[("runtime.txt", "ruby-3.2\n")], expect![""]);
        check(&[("pyproject.toml", "[tool.black]\n")], expect![""]);
        check(
            &[("environment.yml", "dependencies:\n- python\n- python-dateutil\n")],
            expect![""],
        );
        // One script of several files is not what the folder runs on.
        let script = "# /// script\n# requires-python = \">=3.12\"\n# dependencies = []\n# ///\n";
        check(&[("a.py", script), ("requirements.txt", "six\n")], expect![""]);
    }

    #[test]
    fn a_constraint_that_is_none_names_its_line() {
        check(
            &[("pyproject.toml", "[project]\nrequires-python = \"three\"\n")],
            expect![
                "Flow.BadProject: pyproject.toml:2: three is no constraint on a version of Python. Write it as in >=3.10,<3.13."
            ],
        );
        check(
            &[("pyproject.toml", "[project]\nrequires-python = \">=3.1ä\"\n")],
            expect![
                "Flow.BadProject: pyproject.toml:2: >=3.1ä is no constraint on a version of Python. Write it as in >=3.10,<3.13."
            ],
        );
    }

    #[test]
    fn a_version_is_admitted_by_what_contains_it() {
        let of = |text: &str| PythonConstraint {
            place: "a".into(),
            specifiers: VersionSpecifiers::from_str(text).unwrap(),
            is_pin: false,
        };
        for (text, version, admits) in [
            (">=3.10,<3.13", "3.11.7", true),
            (">=3.10,<3.13", "3.13.0", false),
            ("==3.11.*", "3.11.2", true),
            ("==3.11.*", "3.12.2", false),
            (">=3.11", "no version", false),
        ] {
            assert_eq!(of(text).admits(version), admits, "{text} {version}");
        }
    }
}
