//! The own project as `setup.cfg` and `setup.py` describe it.

use super::{OwnProject, place, pyproject::compiled};
use crate::{
    Failure,
    folder::Folder,
    project::{
        Source,
        python::{self, Token},
        setup,
    },
};

/// Adds what the files of setuptools say beyond `pyproject.toml`. Whether one describes a project.
///
/// # Source
///
/// <https://setuptools.pypa.io/en/latest/userguide/declarative_config.html>,
/// <https://setuptools.pypa.io/en/latest/references/keywords.html>.
pub(super) fn add(folder: &Folder, project: &mut OwnProject) -> Result<bool, Failure> {
    let mut is_described = false;
    if let Some(source) = Source::find(folder, "setup.cfg")? {
        is_described = true;
        add_cfg(&source, project)?;
    }
    if let Some(source) = Source::find(folder, "setup.py")? {
        is_described = true;
        add_code(&source, project)?;
    }
    Ok(is_described)
}

fn add_cfg(source: &Source, project: &mut OwnProject) -> Result<(), Failure> {
    for entry in setup::entries(source) {
        let (place, value) = (format!("{}:{}", source.name, entry.number), entry.value);
        if value.is_empty() {
            continue;
        }
        match (entry.section, entry.key) {
            ("metadata", "name") => drop(project.name.get_or_insert(value.to_owned())),
            ("metadata", "version") if super::is_version(value) => {
                project.version.get_or_insert(value.to_owned());
            }
            ("metadata", "version") => project.computes_version = true,
            ("options", "package_dir") => {
                if let Some(("", folder)) = value.split_once('=').map(|(name, folder)| (name.trim(), folder.trim())) {
                    project.sources.push(folder.into());
                }
            }
            ("options.packages.find", "where") => project.sources.push(value.into()),
            ("options", "packages" | "py_modules") if !value.ends_with(':') => {
                project.modules.insert(value.to_owned());
            }
            ("options", "scripts") => project.lacks.push(script(value, &place)),
            ("options.entry_points", group) => {
                let (name, object) = value.split_once('=').unwrap_or((value, ""));
                project.add_entry_point(&place, group, name, object)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn script(name: &str, place: &str) -> String {
    format!("the script {name}, which is a file ({place}): call it by its path")
}

/// Adds the arguments of `setup` that are written as texts. Code is never run here.
fn add_code(source: &Source, project: &mut OwnProject) -> Result<(), Failure> {
    let tokens = python::tokens(&source.text);
    for (at, (_, token)) in tokens.iter().enumerate() {
        let Token::Name(name) = token else { continue };
        if !matches!(tokens.get(at + 1), Some((_, Token::Mark('='))))
            || matches!(tokens.get(at + 2), Some((_, Token::Mark('='))))
        {
            continue;
        }
        let mut rest = tokens.get(at + 2..).unwrap_or_default();
        match (*name, rest.first()) {
            ("name", Some((_, Token::Text(name)))) => drop(project.name.get_or_insert((*name).to_owned())),
            ("version", Some((_, Token::Text(version)))) if super::is_version(version) => {
                project.version.get_or_insert((*version).to_owned());
            }
            ("version", Some(_)) => project.computes_version = true,
            ("package_dir", Some(_)) => {
                if let [(_, Token::Mark('{')), (_, Token::Text("")), (_, Token::Mark(':')), (_, Token::Text(folder)), ..] =
                    rest
                {
                    project.sources.push((*folder).into());
                }
            }
            ("packages" | "py_modules", Some((_, Token::Mark('[' | '(')))) => {
                let listed = setup::texts(source, &mut rest).into_iter().flatten();
                project.modules.extend(listed.map(|line| line.text));
            }
            ("scripts", Some((_, Token::Mark('[' | '(')))) => {
                let listed = setup::texts(source, &mut rest).into_iter().flatten();
                let lacks = listed.map(|line| script(&line.text, &format!("{}:{}", line.file, line.number)));
                project.lacks.extend(lacks);
            }
            ("ext_modules", Some(_)) => project.lacks.push(compiled(&source.name)),
            ("entry_points", Some(_)) => match setup::extras(source, &mut rest) {
                Some(groups) => {
                    for (group, lines) in groups {
                        for line in lines {
                            let (name, object) = line.text.split_once('=').unwrap_or((&line.text, ""));
                            project.add_entry_point(&format!("{}:{}", line.file, line.number), &group, name, object)?;
                        }
                    }
                }
                None => project.lacks.push(format!(
                    "its entry points, as they are not written as lists of texts, and no code is run here ({}): write them into \
                     pyproject.toml, below [project.scripts]",
                    place(source, "entry_points")
                )),
            },
            _ => {}
        }
    }
    Ok(())
}
