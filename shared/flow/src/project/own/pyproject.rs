//! The own project as `pyproject.toml` describes it.

use super::{OwnProject, PROGRAMS, place};
use crate::{Failure, folder::Folder, project::Source};
use std::path::Path;
use toml::Value;

/// Build systems whose packages have compiled modules.
const COMPILERS: [&str; 4] = ["maturin", "scikit_build_core", "mesonpy", "setuptools_rust"];

/// The value of a key below others.
fn at<'a>(value: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().try_fold(value, |value, key| value.get(key))
}

/// The members of a list of texts.
fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str)
}

/// Adds what `pyproject.toml` says. Whether it describes a project.
///
/// # Source
///
/// <https://packaging.python.org/en/latest/specifications/pyproject-toml/>; the tables of tools by
/// their own documentation.
pub(super) fn add(folder: &Folder, project: &mut OwnProject) -> Result<bool, Failure> {
    let Some(source) = Source::find(folder, "pyproject.toml")? else {
        return Ok(false);
    };
    let file: Value = source.toml()?;
    add_sources(&file, project);
    let (own, poetry) = (at(&file, &["project"]), at(&file, &["tool", "poetry"]));
    let is_virtual = at(&file, &["tool", "uv", "package"]).and_then(Value::as_bool) == Some(false)
        || poetry
            .and_then(|poetry| poetry.get("package-mode"))
            .and_then(Value::as_bool)
            == Some(false);
    if is_virtual || own.is_none() && poetry.is_none() {
        // What sets tools up alone was a project for its `src` before.
        return Ok(true);
    }
    let text = |name: &str| {
        let tables = [own, poetry].into_iter().flatten();
        let found = tables.filter_map(|table| table.get(name)?.as_str());
        found.map(str::to_owned).next()
    };
    project.name = text("name").filter(|name| crate::requirements::name_of(name).is_some());
    project.version = text("version").filter(|version| super::is_version(version));
    project.computes_version = texts(own.and_then(|own| own.get("dynamic"))).any(|name| name == "version");
    for (table, group) in [("scripts", PROGRAMS[0]), ("gui-scripts", PROGRAMS[1])] {
        add_group(&source, project, group, own.and_then(|own| own.get(table)))?;
    }
    add_group(
        &source,
        project,
        PROGRAMS[0],
        poetry.and_then(|poetry| poetry.get("scripts")),
    )?;
    for groups in [
        own.and_then(|own| own.get("entry-points")),
        poetry.and_then(|poetry| poetry.get("plugins")),
    ] {
        for (group, members) in groups.and_then(Value::as_table).into_iter().flatten() {
            add_group(&source, project, group, Some(members))?;
        }
    }
    let backend = at(&file, &["build-system", "build-backend"]).and_then(Value::as_str);
    let has_compiled = at(&file, &["tool", "setuptools", "ext-modules"]).is_some()
        || COMPILERS
            .iter()
            .any(|name| backend.is_some_and(|backend| backend.starts_with(name)));
    if has_compiled {
        project.lacks.push(compiled(&source.name));
    }
    Ok(true)
}

/// The text about modules that are not of Python.
pub(super) fn compiled(file: &str) -> String {
    format!(
        "its compiled modules, as nothing is built here ({file}): publish it to an index, and name it in the requirements"
    )
}

/// Adds the entry points of one group.
fn add_group(source: &Source, project: &mut OwnProject, group: &str, members: Option<&Value>) -> Result<(), Failure> {
    for (name, value) in members.and_then(Value::as_table).into_iter().flatten() {
        // Poetry has a table for each, with what else there is of it.
        let object = value.as_str().or_else(|| {
            let keys = ["callable", "reference"].iter();
            keys.filter_map(|key| value.get(key)?.as_str()).next()
        });
        let place = place(source, name);
        if value.get("type").and_then(Value::as_str) == Some("file") {
            project.lacks.push(format!(
                "the script {name}, which is a file ({place}): call it by its path"
            ));
            continue;
        }
        project.add_entry_point(&place, group, name, object.unwrap_or_default())?;
    }
    Ok(())
}

/// Adds the folders and the modules that build systems are told of.
fn add_sources(file: &Value, project: &mut OwnProject) {
    let tool = |keys: &[&str]| at(file, &["tool"]).and_then(|tool| at(tool, keys));
    let single = [
        tool(&["setuptools", "package-dir", ""]),
        tool(&["pdm", "build", "package-dir"]),
        tool(&["uv", "build-backend", "module-root"]),
        tool(&["maturin", "python-source"]),
    ];
    let folders = single.into_iter().flatten().filter_map(Value::as_str);
    let found = texts(tool(&["setuptools", "packages", "find", "where"]));
    project.sources.extend(folders.chain(found).map(Into::into));
    for package in tool(&["poetry", "packages"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let text = |key: &str| package.get(key).and_then(Value::as_str);
        match (text("from"), text("include")) {
            (Some(from), _) => project.sources.push(from.into()),
            (None, Some(module)) => drop(project.modules.insert(module.to_owned())),
            (None, None) => {}
        }
    }
    for path in texts(tool(&["hatch", "build", "targets", "wheel", "packages"])) {
        match Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => project.sources.push(parent.into()),
            None => drop(project.modules.insert(path.to_owned())),
        }
    }
    let setuptools = ["packages", "py-modules"].map(|key| tool(&["setuptools", key]));
    for module in setuptools.into_iter().flat_map(texts) {
        project.modules.insert(module.to_owned());
    }
}
