//! `pyproject.toml`.

use super::{
    Source, bad, list_names, locks,
    places::{Part, Places},
    poetry,
};
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
    #[serde(default)]
    pdm: Pdm,
}

#[derive(Default, Deserialize)]
struct Pdm {
    #[serde(default)]
    source: Vec<PdmFeed>,
    #[serde(default, rename = "dev-dependencies")]
    groups: BTreeMap<String, Vec<Spanned<Value>>>,
}

#[derive(Deserialize)]
struct PdmFeed {
    url: Spanned<String>,
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    include_packages: Option<Value>,
    exclude_packages: Option<Value>,
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
    /// The dependency group `dev`, as older versions have it.
    #[serde(default, rename = "dev-dependencies")]
    dev: Vec<Spanned<Value>>,
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
    url: Spanned<String>,
    name: Option<String>,
    format: Option<String>,
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
                let mut lines = poetry.lines(source, &[])?;
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
    let mut lines = wanted_lines(source, project, &file.tool, &[])?;
    lines.extend(super::read_locks(folder)?);
    Ok(Some(lines))
}

/// Whether the folder's `pyproject.toml` describes a project.
pub(super) fn has_project(folder: &Folder) -> Result<bool, Failure> {
    let source = Source::find(folder, "pyproject.toml")?;
    let file = source.map(|source| source.toml::<File>()).transpose()?;
    Ok(file.is_some_and(|file| file.project.is_some()))
}

/// Whether the folder's `pyproject.toml` describes packages: as a project, or by Poetry's table.
pub(super) fn describes(folder: &Folder) -> Result<bool, Failure> {
    let source = Source::find(folder, "pyproject.toml")?;
    let file = source.map(|source| source.toml::<File>()).transpose()?;
    Ok(file.is_some_and(|file| file.project.is_some() || file.tool.poetry.is_some()))
}

/// The requirements of a project, with some of its extras.
///
/// * `place`: where they are named.
pub(super) fn own(source: &Source, place: &str, extras: &[&str]) -> Result<Vec<Line>, Failure> {
    let file: File = source.toml()?;
    let Some(project) = file.project else {
        if let Some(poetry) = &file.tool.poetry {
            return poetry.own(source, place, extras);
        }
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
            let there = list_names(project.extras.keys().map(String::as_str));
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
    wanted_lines(source, project, &file.tool, &named)
}

/// The requirements of one dependency group, with those of the groups that it includes.
///
/// * `place`: where it is named.
pub(super) fn group(source: &Source, place: &str, name: &str) -> Result<Vec<Line>, Failure> {
    let mut file: File = source.toml()?;
    // Older tables of tools; the standard one counts where both have a name.
    let (mut groups, dev) = (
        std::mem::take(&mut file.tool.pdm.groups),
        std::mem::take(&mut file.tool.uv.dev),
    );
    if !dev.is_empty() {
        groups.insert("dev".into(), dev);
    }
    groups.extend(std::mem::take(&mut file.groups));
    let poetry = file.tool.poetry.as_ref();
    let places = places(&file.tool);
    let own = file.project.as_ref().and_then(|project| project.name.as_deref());
    let (mut named, mut open) = (Vec::new(), vec![normalize_name(name)]);
    let mut lines = file.tool.lines(source)?;
    while let Some(group) = open.pop() {
        let found = groups.iter().find(|(name, _)| normalize_name(name) == group);
        let Some((name, dependencies)) = found else {
            if let Some(of_poetry) = poetry.map(|poetry| poetry.group(source, &group)).transpose()?.flatten() {
                lines.extend(of_poetry);
                continue;
            }
            let of_poetry = poetry.into_iter().flat_map(poetry::Poetry::groups);
            let there = list_names(groups.keys().map(String::as_str).chain(of_poetry));
            return Err(bad(format!(
                "{place}: the project has no dependency group {group}. {there}. Correct the name, or take the group out."
            )));
        };
        if named.contains(name) {
            continue;
        }
        named.push(name.clone());
        let part = Part {
            group: Some(name),
            ..Part::default()
        };
        for dependency in dependencies {
            let number = source.line_at(dependency.span().start);
            let value = dependency.get_ref();
            match (value.as_str(), value.get("include-group").and_then(Value::as_str)) {
                (Some(text), _) => {
                    lines.extend(line(source, &places, own, number, text, part)?);
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

fn wanted_lines(source: &Source, mut project: Project, tools: &Tools, extras: &[String]) -> Result<Vec<Line>, Failure> {
    if project.dynamic.iter().any(|key| key == "dependencies") {
        return Err(bad(format!(
            "{}: its dependencies are dynamic, so that only its build system knows them. List them under `dependencies`, or in a \
             requirements.txt.",
            source.name
        )));
    }
    let mut lines = tools.lines(source)?;
    let places = places(tools);
    let own = (None, std::mem::take(&mut project.dependencies));
    let of_extras = extras
        .iter()
        .filter_map(|extra| Some((Some(extra), project.extras.remove(extra)?)));
    let parts: Vec<_> = std::iter::once(own).chain(of_extras).collect();
    for (extra, dependencies) in parts {
        let part = Part {
            extra: extra.map(String::as_str),
            ..Part::default()
        };
        for dependency in dependencies {
            let number = source.line_at(dependency.span().start);
            lines.extend(line(
                source,
                &places,
                project.name.as_deref(),
                number,
                dependency.get_ref(),
                part,
            )?);
        }
    }
    Ok(lines)
}

impl Tools {
    /// The lines of their settings.
    fn lines(&self, source: &Source) -> Result<Vec<Line>, Failure> {
        let mut lines = uv_lines(source, &self.uv)?;
        lines.extend(self.poetry.iter().flat_map(|poetry| poetry.indexes(source)));
        for feed in &self.pdm.source {
            let number = source.line_at(feed.url.span().start);
            if feed.include_packages.is_some() || feed.exclude_packages.is_some() {
                return Err(bad(format!(
                    "{}:{number}: a source of [tool.pdm] that is for some packages alone is not supported. Write a requirements.txt that says \
                     where they come from.",
                    source.name
                )));
            }
            let option = match (feed.kind.as_deref(), feed.name.as_deref()) {
                (Some("find_links"), _) => "--find-links",
                (_, Some("pypi")) => "-i",
                _ => "--extra-index-url",
            };
            lines.push(source.line_of(number, format!("{option} {}", feed.url.get_ref())));
        }
        Ok(lines)
    }
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
    let indexes = uv.index.iter().filter(|index| !index.explicit).map(|index| {
        let option = match (index.format.as_deref(), index.default) {
            (Some("flat"), _) => "--find-links",
            (_, true) => "-i",
            (_, false) => "--extra-index-url",
        };
        (option, &index.url)
    });
    for (option, value) in index_url.chain(extra).chain(links).chain(indexes) {
        let number = source.line_at(value.span().start);
        lines.push(source.line_of(number, format!("{option} {}", value.get_ref())));
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

/// A dependency as lines of requirements; none if it is the project itself.
///
/// * `own`: the project's name.
fn line(
    source: &Source,
    places: &Places<'_>,
    own: Option<&str>,
    number: usize,
    text: &str,
    part: Part<'_>,
) -> Result<Vec<Line>, Failure> {
    let own = own.and_then(requirements::name_of);
    let text = text.trim();
    if text.is_empty() || own.is_some() && requirements::name_of(text) == own {
        return Ok(Vec::new());
    }
    // What is an option in a requirements file is nothing here.
    if text.starts_with('-') {
        let shown = crate::redact(text);
        return Err(bad(format!(
            "{}:{number}: {shown} is no requirement. Correct it.",
            source.name
        )));
    }
    places.lines(source, source.line_of(number, text), part)
}

fn places(tools: &Tools) -> Places<'_> {
    let mut places = Places::default();
    if let Some(poetry) = &tools.poetry {
        poetry.add_places(&mut places);
    }
    places.add(&tools.uv.sources);
    // An index that is a page of links has no page for a package.
    let indexes = tools
        .uv
        .index
        .iter()
        .filter(|index| index.format.as_deref() != Some("flat"));
    for index in indexes {
        if let Some(name) = &index.name {
            places.add_index(name, index.url.get_ref());
        }
    }
    places
}
