//! The version of a project that its description does not hold itself.

use super::{OwnProject, UNKNOWN, is_version};
use crate::{folder::Folder, project::Source};
use std::path::{Path, PathBuf};
use toml::Value;

/// Finds the version in the file or the module that the description names for it, by reading
/// alone. If none is there, says so.
///
/// # Source
///
/// setuptools' `tool.setuptools.dynamic` and `attr:`, `file:` in `setup.cfg`; hatch's
/// `tool.hatch.version`; PDM's `tool.pdm.version`; flit's `__version__`.
pub(super) fn find(folder: &Folder, project: &mut OwnProject) {
    if project.version.is_some() {
        return;
    }
    let found = candidates(folder, project).into_iter().find_map(|(path, attribute)| {
        let path = path.to_str().filter(|path| !path.starts_with(['/', '.']))?;
        let source = Source::find(folder, path).ok()??;
        let version = match attribute {
            Some(attribute) => assigned(&source.text, &attribute)?,
            None => source.text.trim(),
        };
        is_version(version).then(|| version.to_owned())
    });
    if found.is_none() && project.computes_version {
        project.lacks.push(format!(
            "its version, which only its build system knows: {UNKNOWN} stands for it. Write it into the project file"
        ));
    }
    project.version = found;
}

/// The files that may hold it, each with the variable that it is in, if it is not all of the file.
fn candidates(folder: &Folder, project: &OwnProject) -> Vec<(PathBuf, Option<String>)> {
    let mut found = Vec::new();
    let mut add_module = |module: &str, attribute: &str| {
        let path = module.replace('.', "/");
        for root in project.sources.iter().map(PathBuf::as_path).chain([Path::new("")]) {
            for file in [format!("{path}/__init__.py"), format!("{path}.py")] {
                found.push((root.join(file), Some(attribute.to_owned())));
            }
        }
    };
    let mut files = Vec::new();
    if let Some(table) = read(folder) {
        let at = |keys: &[&str]| keys.iter().try_fold(&table, |value, key| value.get(key));
        if let Some(attribute) = at(&["tool", "setuptools", "dynamic", "version", "attr"]).and_then(Value::as_str)
            && let Some((module, name)) = attribute.rsplit_once('.')
        {
            add_module(module, name);
        }
        files.extend(
            at(&["tool", "setuptools", "dynamic", "version", "file"])
                .and_then(Value::as_str)
                .map(|file| (file.to_owned(), None)),
        );
        for tool in ["hatch", "pdm"] {
            let path = at(&["tool", tool, "version", "path"]).and_then(Value::as_str);
            files.extend(path.map(|path| (path.to_owned(), Some("__version__".to_owned()))));
        }
    }
    if let Ok(Some(source)) = Source::find(folder, "setup.cfg") {
        for entry in crate::project::setup::entries(&source) {
            if (entry.section, entry.key) != ("metadata", "version") {
                continue;
            }
            if let Some((module, name)) = entry
                .value
                .strip_prefix("attr:")
                .and_then(|attr| attr.trim().rsplit_once('.'))
            {
                add_module(module, name);
            }
            files.extend(
                entry
                    .value
                    .strip_prefix("file:")
                    .map(|file| (file.trim().to_owned(), None)),
            );
        }
    }
    if let Some(name) = &project.name {
        add_module(&crate::normalize_name(name).replace('-', "_"), "__version__");
    }
    let files = files.into_iter().map(|(path, attribute)| (path.into(), attribute));
    files.chain(found).collect()
}

fn read(folder: &Folder) -> Option<Value> {
    Source::find(folder, "pyproject.toml").ok()??.toml().ok()
}

/// The text that a line of code assigns to a variable.
fn assigned<'a>(code: &'a str, name: &str) -> Option<&'a str> {
    code.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.trim_start();
        let rest = rest
            .strip_prefix(':')
            .map_or(rest, |typed| typed.trim_start().trim_start_matches("str"))
            .trim_start();
        let value = rest.strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''))?;
        value[1..].split(quote).next()
    })
}
