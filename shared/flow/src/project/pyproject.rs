//! `pyproject.toml`.

use super::{Source, bad, locks, poetry};
use crate::{
    Failure,
    folder::Folder,
    requirements::{self, Line},
};
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
    let sources = file.tool.uv.sources.iter();
    let places: Places<'_> = sources
        .filter_map(|(key, value)| Some((requirements::name_of(key)?, (key.as_str(), value))))
        .collect();
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
            text: from(source, &places, text)?,
            constraint: false,
        });
    }
    lines.extend(locks::constraints(folder, &["uv.lock", "pylock.toml", "poetry.lock"])?);
    Ok(Some(lines))
}

/// What `[tool.uv.sources]` says, by the name of a package as an index has it; with the name as it is written.
type Places<'a> = BTreeMap<String, (&'a str, &'a Value)>;

/// A dependency with the place that `[tool.uv.sources]` names for it: a stranger's package of that name is never taken for it.
fn from(source: &Source, places: &Places<'_>, text: String) -> Result<String, Failure> {
    let named = requirements::name_of(&text).and_then(|name| places.get(&name));
    let Some((key, value)) = named else { return Ok(text) };
    if value.get("path").is_some() || value.get("workspace").is_some() {
        return Err(source.local(key));
    }
    let is_archive_in_part = value.get("url").is_some() && value.get("subdirectory").is_some();
    let place = super::place(|part| value.get(part).and_then(Value::as_str)).filter(|_| !is_archive_in_part);
    let place = place.ok_or_else(|| {
        let why = "has a source in [tool.uv.sources] that is not supported: git, url. Write a requirements.txt that says where it comes from.";
        source.refuse(key, why)
    })?;
    let (requirement, marker) = text.split_once(';').unwrap_or((&text, ""));
    let name = requirement
        .split(['[', ' ', '<', '>', '=', '!', '~', '@', '('])
        .next()
        .unwrap_or_default();
    let extras = requirement
        .find('[')
        .zip(requirement.find(']'))
        .map_or("", |(from, to)| &requirement[from..=to]);
    let marker = match marker.trim() {
        "" => String::new(),
        marker => format!(" ; {marker}"),
    };
    Ok(format!("{name}{extras} @ {place}{marker}"))
}
