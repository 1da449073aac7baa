//! The parts of a runtime's environment.

use super::{MOST_FILES, dockerfile, parts::Definition, pip_file};
use crate::{CONDA_BUILT_IN, Code, Failure, folder::read_text, redact, requirements::Line, yaml};
use serde_json::Value;
use std::path::Path;

/// Keys of Azure's document that say nothing of what is installed.
///
/// # Source
///
/// <https://learn.microsoft.com/azure/machine-learning/reference-yaml-environment>.
const DESCRIBE: [&str; 9] = [
    "$schema",
    "name",
    "version",
    "description",
    "tags",
    "properties",
    "os_type",
    "creation_context",
    "id",
];

/// Reads a definition of any of the four kinds, and the files that it names, which lie beside it.
///
/// * `is_built`: whether an image is named that was built of it, which has what a Dockerfile
///   installs.
pub(super) fn read(path: &Path, is_built: bool) -> Result<Definition, Failure> {
    let shown = path.display().to_string();
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ends = |ending: &str| name.ends_with(ending);
    if name.starts_with("dockerfile") || ends(".dockerfile") {
        return read_dockerfile(path, &shown, is_built);
    }
    if ends(".txt") || ends(".in") {
        let lines = pip_file(path, &shown, &mut { MOST_FILES })?;
        return Ok(Definition {
            lines,
            ..Definition::default()
        });
    }
    if !ends(".yml") && !ends(".yaml") {
        let message = format!(
            "{shown} is no environment that is known here. Give Azure's environment.yml, a conda file (.yml), a pip file (.txt) or a Dockerfile."
        );
        return Err(Failure::new(Code::FlowBadProject, message));
    }
    let such_as = "`image: …`, `conda_file: …` or `dependencies: …`";
    let text = read_text(path, &shown)?;
    let document = yaml::mapping(&shown, &text, Code::FlowBadProject, such_as)?;
    match document.get("dependencies") {
        Some(_) => conda(&shown, &text, &document),
        None => azure(path, &shown, &text, &document, is_built),
    }
}

/// A Dockerfile; the image that it made has all of it.
fn read_dockerfile(path: &Path, shown: &str, is_built: bool) -> Result<Definition, Failure> {
    match is_built {
        true => Ok(Definition::default()),
        false => dockerfile::read(path, shown),
    }
}

fn bad(shown: &str, what: &str) -> Failure {
    Failure::new(Code::FlowBadProject, format!("{shown}: {what}"))
}

/// Azure's document: an image, a conda file or a build, or several of them.
fn azure(path: &Path, shown: &str, text: &str, document: &Value, is_built: bool) -> Result<Definition, Failure> {
    let mut found = Definition::default();
    for (key, value) in document.as_object().into_iter().flatten() {
        let part = match (key.as_str(), value) {
            (key, _) if DESCRIBE.contains(&key) => continue,
            (_, Value::Null) => continue,
            ("image", Value::String(image)) => Definition {
                image: Some(image.trim().to_owned()),
                ..Definition::default()
            },
            ("conda_file", Value::String(file)) => {
                let text = read_text(&path.with_file_name(file), file)?;
                conda(
                    file,
                    &text,
                    &yaml::mapping(file, &text, Code::FlowBadProject, "`dependencies: …`")?,
                )?
            }
            ("conda_file", document @ Value::Object(_)) => conda(shown, text, document)?,
            ("build", Value::Object(build)) => {
                let text = |key: &str, default| build.get(key).map_or(Some(default), Value::as_str);
                let (Some(folder), Some(file)) = (text("path", "."), text("dockerfile_path", "Dockerfile")) else {
                    return Err(bad(shown, "build: `path` and `dockerfile_path` should be texts."));
                };
                let file = Path::new(folder).join(file);
                read_dockerfile(&path.with_file_name(&file), &file.display().to_string(), is_built)?
            }
            ("image" | "conda_file" | "build", other) => {
                let what = format!("{key} is {}. Correct it.", yaml::type_of(other));
                return Err(bad(shown, &what));
            }
            (key, _) => Definition {
                notes: vec![format!("{shown}: `{key}` has no counterpart here, and is left out.")],
                ..Definition::default()
            },
        };
        found.image = part.image.or(found.image);
        found.lines.extend(part.lines);
        found.notes.extend(part.notes);
    }
    if found.image.is_none() && found.lines.is_empty() && !is_built {
        return Err(bad(
            shown,
            "it names no `image`, `conda_file` or `build`. Add what the environment consists of.",
        ));
    }
    Ok(found)
}

/// A conda file: its `pip` part. A package of its conda part has to go by PyPI's name, and which
/// that is only its user knows.
fn conda(shown: &str, written: &str, document: &Value) -> Result<Definition, Failure> {
    let Some(entries) = document.get("dependencies").and_then(Value::as_array) else {
        return Err(bad(shown, "it has no list `dependencies`. Add it."));
    };
    let mut found = Definition::default();
    let mut of_conda = Vec::new();
    for entry in entries {
        if let Some(pip) = entry.get("pip").and_then(Value::as_array) {
            for text in pip.iter().filter_map(Value::as_str) {
                found.lines.push(Line {
                    file: shown.to_owned(),
                    number: written
                        .lines()
                        .position(|line| line.contains(text))
                        .map_or(1, |at| at + 1),
                    text: text.trim().to_owned(),
                    constraint: false,
                });
            }
            continue;
        }
        let text = entry.as_str().unwrap_or("an entry that is no text");
        let name = text.rsplit("::").next().unwrap_or(text);
        let name = name.split(['=', '<', '>', ' ', '!', '~']).next().unwrap_or(name);
        match CONDA_BUILT_IN.contains(&name) {
            true if name == "python" && name != text => found.notes.push(format!(
                "{shown}: {text} is left out: a session has the Python of its base image. Name an image that has this one, if the flow needs it."
            )),
            true => {}
            false => of_conda.push(redact(text)),
        }
    }
    if !of_conda.is_empty() {
        let what = format!(
            "{} comes by conda, which is not here. Move it below `pip:`, by the name that PyPI has for it.",
            of_conda.join(", ")
        );
        return Err(bad(shown, &what));
    }
    Ok(found)
}
