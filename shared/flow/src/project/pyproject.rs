//! `pyproject.toml`.

use super::{Source, bad, locks, poetry};
use crate::{
    Failure,
    folder::Folder,
    normalize_name,
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
    #[serde(default, rename = "dependency-groups")]
    groups: BTreeMap<String, Vec<Spanned<Value>>>,
}

#[derive(Deserialize)]
struct Project {
    #[serde(default)]
    dependencies: Vec<Spanned<String>>,
    #[serde(default)]
    dynamic: Vec<String>,
    /// The project's name, by which its extras may name each other.
    name: Option<String>,
    #[serde(default, rename = "optional-dependencies")]
    extras: BTreeMap<String, Vec<Spanned<String>>>,
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
    #[serde(default, rename = "index-url")]
    index_url: Option<Spanned<String>>,
    #[serde(default, rename = "extra-index-url")]
    extra_index_url: Vec<Spanned<String>>,
    #[serde(default, rename = "find-links")]
    find_links: Vec<Spanned<String>>,
    #[serde(default, rename = "constraint-dependencies")]
    constraints: Vec<Spanned<String>>,
    /// Settings that are not followed.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// The settings of `[tool.uv]` that would change which packages there are, and are not followed.
const NOT_FOLLOWED: [&str; 10] = [
    "override-dependencies",
    "exclude-dependencies",
    "no-index",
    "index-strategy",
    "prerelease",
    "resolution",
    "exclude-newer",
    "no-binary-package",
    "no-build-package",
    "no-sources",
];

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
/// <https://packaging.python.org/en/latest/specifications/pyproject-toml/>, `project.dependencies`;
/// for `tool.uv.sources` and `tool.uv.index`
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
    if let Some(uv) = Source::find(folder, "uv.toml")? {
        let remedy = "Write its settings below [tool.uv] of pyproject.toml.";
        return Err(bad(format!("{} is not read. {remedy}", uv.name)));
    }
    let mut lines = wanted_lines(source, project, &file.tool.uv, &[])?;
    lines.extend(super::read_locks(folder)?);
    Ok(Some(lines))
}

/// Whether the folder's `pyproject.toml` describes a project.
pub(super) fn has_project(folder: &Folder) -> Result<bool, Failure> {
    let source = Source::find(folder, "pyproject.toml")?;
    let file = source.map(|source| source.toml::<File>()).transpose()?;
    Ok(file.is_some_and(|file| file.project.is_some()))
}

/// The requirements of a project, with some of its extras.
///
/// * `place`: where they are named.
pub(super) fn own(source: &Source, place: &str, extras: &[&str]) -> Result<Vec<Line>, Failure> {
    let file: File = source.toml()?;
    let Some(project) = file.project else {
        let remedy = "Take the line out, and list the packages in the requirements file.";
        return Err(bad(format!("{place}: {} has no [project]. {remedy}", source.name)));
    };
    let (mut named, mut open) = (
        Vec::new(),
        extras.iter().map(|extra| normalize_name(extra)).collect::<Vec<_>>(),
    );
    while let Some(extra) = open.pop() {
        let found = project.extras.iter().find(|(name, _)| normalize_name(name) == extra);
        let Some((name, dependencies)) = found else {
            let there = list_names(project.extras.keys());
            return Err(bad(format!(
                "{place}: the project has no extra {extra}. {there}. Correct the line, or take the extra out."
            )));
        };
        if named.contains(name) {
            continue;
        }
        named.push(name.clone());
        // `own-name[a,b]` in an extra means other extras.
        for dependency in dependencies {
            let text = dependency.get_ref();
            if requirements::name_of(text) == project.name.as_deref().and_then(requirements::name_of)
                && let Some((_, rest)) = text.split_once('[')
            {
                open.extend(
                    rest.split(']')
                        .next()
                        .unwrap_or_default()
                        .split(',')
                        .map(|each| normalize_name(each.trim())),
                );
            }
        }
    }
    wanted_lines(source, project, &file.tool.uv, &named)
}

/// Says which names there are.
fn list_names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    match names.is_empty() {
        true => "It has none".to_owned(),
        false => format!("It has {}", names.join(", ")),
    }
}

/// The requirements of one dependency group, with those of the groups that it includes.
///
/// * `place`: where it is named.
pub(super) fn group(source: &Source, place: &str, name: &str) -> Result<Vec<Line>, Failure> {
    let file: File = source.toml()?;
    let places = places(&file.tool.uv);
    let own = file.project.as_ref().and_then(|project| project.name.as_deref());
    let (mut named, mut open) = (Vec::new(), vec![normalize_name(name)]);
    let mut lines = Vec::new();
    while let Some(group) = open.pop() {
        let found = file.groups.iter().find(|(name, _)| normalize_name(name) == group);
        let Some((name, dependencies)) = found else {
            let there = list_names(file.groups.keys());
            return Err(bad(format!(
                "{place}: the project has no dependency group {group}. {there}. Correct the name, or take the group out."
            )));
        };
        if named.contains(name) {
            continue;
        }
        named.push(name.clone());
        for dependency in dependencies {
            let number = source.line_at(dependency.span().start);
            let value = dependency.get_ref();
            match (value.as_str(), value.get("include-group").and_then(Value::as_str)) {
                (Some(text), _) => {
                    lines.extend(line(source, &places, own, number, text)?);
                }
                (None, Some(group)) => open.push(normalize_name(group)),
                (None, None) => {
                    return Err(bad(format!(
                        "{}:{number}: the dependency group {name} has an entry that is neither a requirement nor include-group. Correct it.",
                        source.name
                    )));
                }
            }
        }
    }
    Ok(lines)
}

fn wanted_lines(source: &Source, mut project: Project, uv: &Uv, extras: &[String]) -> Result<Vec<Line>, Failure> {
    if project.dynamic.iter().any(|key| key == "dependencies") {
        return Err(bad(format!(
            "{}: its dependencies are dynamic, so that only its build system knows them. List them under `dependencies`, or in a \
             requirements.txt.",
            source.name
        )));
    }
    let mut lines = uv_lines(source, uv)?;
    let places = places(uv);
    let of_extras = extras.iter().filter_map(|extra| project.extras.remove(extra)).flatten();
    let all: Vec<Spanned<String>> = std::mem::take(&mut project.dependencies)
        .into_iter()
        .chain(of_extras)
        .collect();
    for dependency in all {
        let number = source.line_at(dependency.span().start);
        lines.extend(line(
            source,
            &places,
            project.name.as_deref(),
            number,
            dependency.get_ref(),
        )?);
    }
    Ok(lines)
}

/// The lines of the settings of uv.
fn uv_lines(source: &Source, uv: &Uv) -> Result<Vec<Line>, Failure> {
    if let Some(name) = NOT_FOLLOWED.into_iter().find(|name| uv.others.contains_key(*name)) {
        let why = "of [tool.uv] is not supported. Take it out, or write a requirements.txt that says the same.";
        return Err(source.refuse(name, why));
    }
    let mut lines = Vec::new();
    let index_url = uv.index_url.iter().map(|url| ("-i", url));
    let extra = uv.extra_index_url.iter().map(|url| ("--extra-index-url", url));
    let links = uv.find_links.iter().map(|url| ("--find-links", url));
    for (option, value) in index_url.chain(extra).chain(links) {
        let number = source.line_at(value.span().start);
        lines.push(source.line_of(number, format!("{option} {}", value.get_ref())));
    }
    for index in uv.index.iter().filter(|index| !index.explicit) {
        let option = if index.default { "-i" } else { "--extra-index-url" };
        lines.push(source.line("url", format!("{option} {}", index.url)));
    }
    for constraint in &uv.constraints {
        let number = source.line_at(constraint.span().start);
        lines.push(Line {
            constraint: true,
            ..source.line_of(number, constraint.get_ref().as_str())
        });
    }
    Ok(lines)
}

/// A dependency as a line of requirements; `None` if it is the project itself.
///
/// * `own`: the project's name.
fn line(
    source: &Source,
    places: &Places<'_>,
    own: Option<&str>,
    number: usize,
    text: &str,
) -> Result<Option<Line>, Failure> {
    let own = own.and_then(requirements::name_of);
    let text = text.trim().to_owned();
    if text.is_empty() || own.is_some() && requirements::name_of(&text) == own {
        return Ok(None);
    }
    // What is an option in a requirements file is nothing here.
    if text.starts_with('-') {
        let shown = crate::redact(&text);
        return Err(bad(format!(
            "{}:{number}: {shown} is no requirement. Correct it.",
            source.name
        )));
    }
    Ok(Some(Line {
        file: source.name.to_owned(),
        number,
        text: from(source, places, text)?,
        constraint: false,
    }))
}

fn places(uv: &Uv) -> Places<'_> {
    let sources = uv.sources.iter();
    sources
        .filter_map(|(key, value)| Some((requirements::name_of(key)?, (key.as_str(), value))))
        .collect()
}

/// The entries of `[tool.uv.sources]`, by the name of a package as an index has it; with the name
/// as it is written.
type Places<'a> = BTreeMap<String, (&'a str, &'a Value)>;

/// A dependency with the place that `[tool.uv.sources]` names for it: a stranger's package of that
/// name is never taken for it.
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
