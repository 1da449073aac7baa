//! `pyproject.toml`: the packages of a folder that holds no flow and no requirements file.

use crate::{
    Failure,
    folder::Folder,
    requirements::{self, Line, Requirements},
};
use serde::Deserialize;
use std::path::Path;
use toml::Spanned;

const FILE: &str = "pyproject.toml";

#[derive(Deserialize)]
struct File {
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Project {
    #[serde(default)]
    dependencies: Vec<Spanned<String>>,
    #[serde(default)]
    dynamic: Vec<String>,
}

/// The dependencies of the project, as requirements. `None` if there is no such file, or it is about no project.
///
/// # Errors
///
/// `Flow.BadProject`; of a line, what a requirements file's would be.
///
/// # Source
///
/// <https://packaging.python.org/en/latest/specifications/pyproject-toml/>, `project.dependencies`.
pub(crate) fn requirements(folder: &Folder) -> Result<Option<Requirements>, Failure> {
    let Some(source) = folder
        .follow(&folder.path.join(FILE), FILE)?
        .filter(|found| found.is_file())
    else {
        return Ok(None);
    };
    let text = folder.read(&source, FILE)?;
    let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let file: File = toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .map(|span| format!(":{}", line_of(span.start)))
            .unwrap_or_default();
        let why = crate::redact(error.message().trim_end_matches('.'));
        Failure::new("Flow.BadProject", format!("{FILE}{line}: {why}. Correct it."))
    })?;
    let Some(project) = file.project else { return Ok(None) };
    if project.dynamic.iter().any(|key| key == "dependencies") {
        let message = format!(
            "{FILE}: its dependencies are dynamic, so that only its build system knows them. List them under `dependencies`, or in a \
             requirements.txt."
        );
        return Err(Failure::new("Flow.BadProject", message));
    }
    if project.dependencies.len() > requirements::MOST_LINES {
        let message = format!(
            "{FILE} has more than {} dependencies. Make them fewer.",
            requirements::MOST_LINES
        );
        return Err(Failure::new("Flow.TooLarge", message));
    }
    let mut counted = (0, 1);
    // They come in their order, so that the text is gone through once.
    let mut line_at = |at: usize| {
        counted.1 += text
            .as_bytes()
            .get(counted.0..at)
            .unwrap_or_default()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        counted.0 = counted.0.max(at);
        counted.1
    };
    let lines: Vec<Line> = project
        .dependencies
        .into_iter()
        .map(|dependency| Line {
            file: FILE.to_owned(),
            number: line_at(dependency.span().start),
            text: dependency.into_inner().trim().to_owned(),
            constraint: false,
        })
        .filter(|line| !line.text.is_empty())
        .collect();
    for line in &lines {
        // What is an option in a requirements file is nothing here.
        if line.text.starts_with('-') {
            let message = format!(
                "{FILE}:{}: {} is no requirement. Correct it.",
                line.number,
                crate::redact(&line.text)
            );
            return Err(Failure::new("Flow.BadProject", message));
        }
        requirements::check(line)?;
    }
    Ok(Some(Requirements {
        file: Path::new(&source).to_owned(),
        declared: false,
        lines,
    }))
}
