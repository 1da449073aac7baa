//! Packages that are added to a flow's requirements file.

use crate::{
    Code, Failure,
    environment::requirements_target,
    folder::{Folder, read_text, unreadable},
    redact,
    requirements::{GROUP, Line, check, logical_lines, name_of, without_comment},
};
use std::path::{Path, PathBuf};

/// A requirements file as it was, and as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// In the flow folder; it need not be there yet.
    pub file: PathBuf,
    /// `None` if there is no such file.
    pub before: Option<Vec<u8>>,
    pub after: String,
}

/// Adds packages to the text of a flow's requirements file. Writes nothing.
///
/// A line that names one of them is replaced, and keeps its comment; the rest come after the last
/// line. Line ends stay as they are.
///
/// # Errors
///
/// All final. `Flow.SharedRequirements` if the file is not in the flow folder itself;
/// `Flow.BadRequirement`; what [`crate::environment()`] says of lines, and of the file.
pub fn save(folder: &Path, include_root: &Path, packages: &[String]) -> Result<Saved, Failure> {
    let folder = Folder::open(folder, include_root)?;
    let (source, target) = own_requirements(&folder)?;
    if source.is_none()
        && folder.flow_file.is_none()
        && let Some(project) = crate::project::requirements(&folder)?
    {
        return Err(Failure::new(
            Code::FlowProjectRequirements,
            format!(
                "The packages are in {}, and a requirements.txt beside it would take its place. Add them there, and install without naming them.",
                folder.show(&project.file)
            ),
        ));
    }
    save_files(&folder, source.as_deref(), &target, |text, shown| {
        with_packages(text, packages, shown)
    })
}

/// Adds extras of the folder's own project to the text of a flow's requirements file. Writes
/// nothing. They are added to those that it names already.
///
/// # Errors
///
/// As [`save`]; `Flow.BadProject` if the project does not have them.
pub fn save_extras(folder: &Path, include_root: &Path, extras: &[String]) -> Result<Saved, Failure> {
    let folder = Folder::open(folder, include_root)?;
    let (target, place) = requirements_target(&folder)?;
    let source = folder.find(&folder.includes()?, &target, &place)?;
    let line = |extras: &[String]| Line {
        file: "the command".into(),
        number: 1,
        text: format!("-e .[{}]", extras.join(",")),
        constraint: false,
    };
    crate::project::own(&folder, &line(extras), &extras.join(","))?;
    save_files(&folder, source.as_deref(), &target, |text, _| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let is_own = |line: &&mut String| line.starts_with("-e .[") || matches!(line.trim_end(), "-e ." | "-e ./");
        match lines.iter_mut().find(is_own) {
            Some(own) => {
                let known = own
                    .split_once('[')
                    .map_or("", |(_, rest)| rest.split(']').next().unwrap_or_default());
                let mut all: Vec<String> = known.split(',').map(|each| each.trim().to_owned()).collect();
                all.extend(
                    extras
                        .iter()
                        .filter(|extra| !known.split(',').any(|each| each.trim() == **extra))
                        .cloned(),
                );
                all.retain(|extra| !extra.is_empty());
                *own = line(&all).text;
            }
            None => lines.push(line(extras).text),
        }
        Ok(lines.iter().map(|line| format!("{line}\n")).collect())
    })
}

/// The requirements file that is the flow's own, if it is there, and where it is or would be in the
/// flow folder.
pub(crate) fn own_requirements(folder: &Folder) -> Result<(Option<PathBuf>, PathBuf), Failure> {
    let (target, place) = requirements_target(folder)?;
    let source = folder.find(&folder.includes()?, &target, &place)?;
    match source {
        Some(source) if !source.starts_with(&folder.path) => Err(Failure::new(
            Code::FlowSharedRequirements,
            format!(
                "The requirements are in {}, which other flows may share. Add the packages there, and install without naming them.",
                folder.show(&source)
            ),
        )),
        source => Ok((source, target)),
    }
}

/// Adds dependency groups of the folder's own project to the text of a flow's requirements file.
/// Writes nothing. A file that is not there yet has the project itself, too, as its dependencies
/// counted until now.
///
/// # Errors
///
/// As [`save`]; `Flow.BadProject` if the project does not have them.
pub fn save_groups(folder: &Path, include_root: &Path, groups: &[String]) -> Result<Saved, Failure> {
    let folder = Folder::open(folder, include_root)?;
    let (target, place) = requirements_target(&folder)?;
    let source = folder.find(&folder.includes()?, &target, &place)?;
    let line = |group: &String| Line {
        file: "the command".into(),
        number: 1,
        text: format!("{GROUP} {group}"),
        constraint: false,
    };
    for group in groups {
        crate::project::group(&folder, &line(group), group)?;
    }
    let stand_in = match source {
        None => crate::project::stand_in(&folder)?,
        Some(_) => None,
    };
    save_files(&folder, source.as_deref(), &target, |text, _| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.extend(stand_in);
        for group in groups {
            let named = line(group).text;
            if !lines.iter().any(|line| line.trim_end() == named) {
                lines.push(named);
            }
        }
        Ok(lines.iter().map(|line| format!("{line}\n")).collect())
    })
}

pub(crate) fn save_files(
    folder: &Folder,
    source: Option<&Path>,
    target: &Path,
    change: impl FnOnce(&str, &str) -> Result<String, Failure>,
) -> Result<Saved, Failure> {
    let file = source.map_or_else(|| folder.path.join(target), Path::to_owned);
    let (before, text) = match source {
        Some(source) => {
            let failed = |error| unreadable(&folder.show(source), &error);
            (
                Some(std::fs::read(source).map_err(failed)?),
                read_text(source, &folder.show(source))?,
            )
        }
        None => (None, String::new()),
    };
    let after = change(&text, &folder.show(&file))?;
    Ok(Saved { file, before, after })
}

fn with_packages(text: &str, packages: &[String], shown: &str) -> Result<String, Failure> {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for package in packages {
        let package = package.trim();
        if package.lines().count() != 1 {
            let message = "Each package is one line of the requirements. Write it as name, or name==version.";
            return Err(Failure::new(Code::FlowBadRequirement, message));
        }
        check(&Line {
            file: "the command".into(),
            number: 1,
            text: package.into(),
            constraint: false,
        })?;
        let name = name_of(package).filter(|_| !package.starts_with('-'));
        let Some(name) = name else {
            let message = format!(
                "{} is not the name of a package. Write it as name, or name==version.",
                redact(package)
            );
            return Err(Failure::new(Code::FlowBadRequirement, message));
        };
        let text = lines.join("\n");
        let named: Vec<usize> = logical_lines(&text)
            .into_iter()
            .filter(|(_, line)| name_of(line).as_ref() == Some(&name))
            .map(|(number, _)| number - 1)
            .collect();
        match named[..] {
            [] => lines.push(package.to_owned()),
            [first] => {
                let more = lines[first..].iter().take_while(|line| line.ends_with('\\')).count();
                let last = (first + more).min(lines.len() - 1);
                let comment = &lines[last][without_comment(&lines[last]).len()..];
                let space = if comment.is_empty() { "" } else { "  " };
                let line = format!("{package}{space}{comment}");
                lines.splice(first..=last, [line]);
            }
            _ => {
                let message = format!("{shown} names {name} in several lines. Change the one that is meant yourself.");
                return Err(Failure::new(Code::FlowBadRequirement, message));
            }
        }
    }
    Ok(lines.iter().map(|line| format!("{line}{end}")).collect())
}
