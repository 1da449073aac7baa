//! From the environment of a runtime to that of a compute session.
//!
//! A runtime has an environment of Azure Machine Learning: a base image, and packages from a conda
//! file, a pip file or a Dockerfile. A flow folder says the same with `environment:` of its flow
//! file and a requirements file.
//!
//! * [`definition`]: reads what a runtime has. [`dockerfile`]: a part of that.
//! * [`flow_file`]: `environment:` of a flow file, changed in its text.
//!
//! # Source
//!
//! The specification, *Switch runtime to compute session*.

mod definition;
mod dockerfile;
mod flow_file;
mod parts;

use crate::{
    Code, Failure,
    folder::{Folder, read_text},
    redact,
    requirements::{Line, check, logical_lines, name_of, options, without_pin},
    save::{Saved, own_requirements, save_files},
};
use parts::Definition;
use std::path::Path;

/// A flow folder's files as they are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The requirements file; `None` if nothing of it changes.
    pub requirements: Option<Saved>,
    /// The flow file; `None` if nothing of it changes.
    pub flow_file: Option<Saved>,
    /// The base image that the flow file names afterwards.
    pub image: Option<String>,
    /// Parts that were left out or need the user: a sentence each.
    pub notes: Vec<String>,
}

/// Makes a flow folder's files say what a runtime's environment has. Writes nothing.
///
/// Pins of promptflow's own packages are taken out, as the base image has these. A package that the
/// flow folder requires already stays as it is there.
///
/// * `definition`: the environment's file: Azure's `environment.yml`, a conda file, a pip file or a
///   Dockerfile.
/// * `image`: the base image that counts whatever the definition names, such as the one that was
///   built of it.
///
/// # Errors
///
/// All final. `Flow.BadProject` about the definition; `Flow.NoFlow` if the folder has no flow file;
/// `Flow.BadFlowFile` if `environment:` cannot be changed in its text; `Flow.BadRequirement` and
/// the other errors of a requirement's line; what [`crate::save`] says of the requirements file.
pub fn migrate(
    folder: &Path,
    include_root: &Path,
    definition: Option<&Path>,
    image: Option<&str>,
) -> Result<Migration, Failure> {
    let folder = Folder::open(folder, include_root)?;
    let Some(file) = &folder.flow_file else {
        let message = format!(
            "{} holds no flow.dag.yaml and no flow.flex.yaml, whose environment could be written. Give the path of a flow's folder.",
            folder.path.display()
        );
        return Err(Failure::new(Code::FlowNoFlow, message));
    };
    let mut found = definition.map_or_else(
        || Ok(Definition::default()),
        |path| definition::read(path, image.is_some()),
    )?;
    if let Some(image) = image {
        found.image = Some(image.to_owned());
    }
    let Definition {
        image,
        lines,
        mut notes,
    } = found;
    let lines = session_lines(lines, &mut notes)?;
    let (source, target) = own_requirements(&folder)?;
    let requirements = save_files(&folder, source.as_deref(), &target, |text, shown| {
        Ok(with_lines(text, &lines, shown, &mut notes))
    })?;
    let has_requirements = requirements.before.is_some() || !lines.is_empty();
    let path = folder.path.join(file.name);
    let before = folder.read(&path, file.name)?;
    let wanted = flow_file::Wanted {
        image: image.as_deref(),
        requirements: has_requirements.then(|| target.display().to_string()),
    };
    let after = flow_file::with_environment(file.name, &before, &wanted)?;
    let changed = |saved: Saved| {
        Some(saved).filter(|saved| saved.before.as_deref().unwrap_or_default() != saved.after.as_bytes())
    };
    Ok(Migration {
        requirements: changed(requirements),
        flow_file: changed(Saved {
            file: path,
            before: Some(before.into_bytes()),
            after,
        }),
        image,
        notes,
    })
}

/// The lines as a session takes them: without pins of what the base image holds, which are said.
fn session_lines(lines: Vec<Line>, notes: &mut Vec<String>) -> Result<Vec<Line>, Failure> {
    let mut kept = Vec::new();
    for mut line in lines {
        if let Some(unpinned) = without_pin(&line.text) {
            let said = redact(&line.text);
            let (place, has_extras) = (format!("{}:{}", line.file, line.number), unpinned.contains('['));
            if !has_extras {
                notes.push(format!("{place}: {said} is left out: the base image has it."));
                continue;
            }
            notes.push(format!(
                "{place}: {said} is {unpinned} now: the base image has its version."
            ));
            line.text = unpinned;
        }
        check(&line)?;
        kept.push(line);
    }
    Ok(kept)
}

/// A requirements file's text with more lines. What it has of a package stays, and what differs is
/// said.
fn with_lines(text: &str, lines: &[Line], shown: &str, notes: &mut Vec<String>) -> String {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut known: Vec<String> = logical_lines(text).into_iter().map(|(_, line)| line).collect();
    let mut after = text.to_owned();
    if !after.is_empty() && !after.ends_with('\n') {
        after += end;
    }
    for line in lines {
        if known.contains(&line.text) {
            continue;
        }
        let name = name_of(&line.text).filter(|_| !line.text.starts_with('-'));
        let there = name.and_then(|name| known.iter().find(|known| name_of(known).as_ref() == Some(&name)));
        if let Some(there) = there {
            let (there, said) = (redact(there), line.to_shown());
            notes.push(format!(
                "{}:{}: {said} is left out: {shown} has {there}.",
                line.file, line.number
            ));
            continue;
        }
        after += &line.text;
        after += end;
        known.push(line.text.clone());
    }
    after
}

/// The lines of a pip file and of what it names by `-r`, which lies beside it.
///
/// * `left`: how many more files may be read, one as often as it is named.
fn pip_file(path: &Path, shown: &str, left: &mut usize) -> Result<Vec<Line>, Failure> {
    let text = read_text(path, shown)?;
    let mut lines = Vec::new();
    for (number, text) in logical_lines(&text) {
        for text in options(&text).unwrap_or_else(|| vec![text]) {
            let line = Line {
                file: shown.to_owned(),
                number,
                text,
                constraint: false,
            };
            match line.option() {
                Some(("-r" | "--requirement", named)) if *left > 0 && !named.contains("://") => {
                    *left -= 1;
                    lines.extend(pip_file(&path.with_file_name(named), named, left)?);
                }
                Some(("-r" | "--requirement" | "-c" | "--constraint", _)) => {
                    let message = format!(
                        "{shown}:{number}: {} is not taken over. Write what it says into {shown} itself, and migrate again.",
                        line.to_shown()
                    );
                    return Err(Failure::new(Code::FlowBadRequirement, message));
                }
                _ => lines.push(line),
            }
        }
    }
    Ok(lines)
}

/// The most files that a definition's pip files name together.
const MOST_FILES: usize = 20;
