//! `pyproject.toml`.

use super::{Source, bad, locks, poetry};
use crate::{Failure, folder::Folder, requirements::Line};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::{Spanned, Value};

#[derive(Deserialize)]
struct File {
    project: Option<Project>,
    #[serde(default)]
    tool: Tools,
}

#[derive(Deserialize)]
struct Project {
    #[serde(default)]
    dependencies: Vec<Spanned<String>>,
    #[serde(default)]
    dynamic: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Tools {
    #[serde(default)]
    uv: Uv,
    poetry: Option<poetry::Poetry>,
}

#[derive(Default, Deserialize)]
struct Uv {
    #[serde(default)]
    sources: BTreeMap<String, Value>,
    #[serde(default)]
    index: Vec<Index>,
}

#[derive(Deserialize)]
struct Index {
    url: String,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    explicit: bool,
}

/// # Source
///
/// <https://packaging.python.org/en/latest/specifications/pyproject-toml/>, `project.dependencies`; for `tool.uv.sources` and `tool.uv.index`
/// <https://docs.astral.sh/uv/concepts/projects/dependencies/#dependency-sources>.
pub(super) fn lines(folder: &Folder, source: &Source) -> Result<Option<Vec<Line>>, Failure> {
    let file: File = source.toml()?;
    let Some(project) = file.project else {
        return match file.tool.poetry {
            Some(poetry) => {
                let mut lines = poetry.lines(source)?;
                lines.extend(locks::constraints(folder, &["poetry.lock"])?);
                Ok(Some(lines))
            }
            None => Ok(None),
        };
    };
    if project.dynamic.iter().any(|key| key == "dependencies") {
        return Err(bad(format!(
            "{}: its dependencies are dynamic, so that only its build system knows them. List them under `dependencies`, or in a \
             requirements.txt.",
            source.name
        )));
    }
    let mut lines = Vec::new();
    for index in file.tool.uv.index.iter().filter(|index| !index.explicit) {
        let option = if index.default { "-i" } else { "--extra-index-url" };
        lines.push(source.line("url", format!("{option} {}", index.url)));
    }
    for dependency in project.dependencies {
        let number = source.line_at(dependency.span().start);
        let text = dependency.into_inner().trim().to_owned();
        if text.is_empty() {
            continue;
        }
        // What is an option in a requirements file is nothing here.
        if text.starts_with('-') {
            let shown = crate::redact(&text);
            return Err(bad(format!(
                "{}:{number}: {shown} is no requirement. Correct it.",
                source.name
            )));
        }
        lines.push(Line {
            file: source.name.to_owned(),
            number,
            text: from(source, &file.tool.uv.sources, text)?,
            constraint: false,
        });
    }
    lines.extend(locks::constraints(folder, &["uv.lock", "pylock.toml", "poetry.lock"])?);
    Ok(Some(lines))
}

/// A dependency with the place that `[tool.uv.sources]` names for it: a stranger's package of that name is never taken for it.
fn from(source: &Source, sources: &BTreeMap<String, Value>, text: String) -> Result<String, Failure> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let named = sources
        .iter()
        .find(|(key, _)| super::normalized(key) == super::normalized(name));
    let Some((key, value)) = named else { return Ok(text) };
    let part = |part: &str| value.get(part).and_then(Value::as_str);
    let (requirement, marker) = rest.split_once(';').unwrap_or((rest, ""));
    let extras = requirement.find(']').map_or("", |at| &requirement[..=at]).trim();
    let at = |url: String| {
        let marker = if marker.trim().is_empty() {
            String::new()
        } else {
            format!(" ; {}", marker.trim())
        };
        format!("{name}{extras} @ {url}{marker}")
    };
    if value.get("path").is_some() || value.get("workspace").is_some() {
        return Err(source.local(key));
    }
    if let Some(url) = part("git") {
        let revision = ["rev", "tag", "branch"].iter().find_map(|key| part(key));
        let revision = revision.map(|revision| format!("@{revision}")).unwrap_or_default();
        let folder = part("subdirectory")
            .map(|folder| format!("#subdirectory={folder}"))
            .unwrap_or_default();
        return Ok(at(format!("git+{url}{revision}{folder}")));
    }
    if let (Some(url), None) = (part("url"), value.get("subdirectory")) {
        return Ok(at(url.to_owned()));
    }
    let why = "has a source in [tool.uv.sources] that is not supported: git, url. Write a requirements.txt that says where it comes from.";
    Err(source.refuse(key, why))
}
