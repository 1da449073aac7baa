//! `setup.cfg` and `setup.py` of setuptools.

use super::{Source, bad, python, python::Token};
use crate::{
    Failure,
    folder::Folder,
    requirements::{self, Line},
};
use std::collections::BTreeMap;

/// The packages of a project, as its file lists them.
#[derive(Default)]
struct Listed {
    name: Option<String>,
    dependencies: Option<Vec<Line>>,
    extras: BTreeMap<String, Vec<Line>>,
}

/// `None` if it lists no packages: then it is about something else.
///
/// # Source
///
/// <https://setuptools.pypa.io/en/latest/userguide/declarative_config.html>, `install_requires`.
pub(super) fn of_cfg(_: &Folder, source: &Source) -> Result<Option<Vec<Line>>, Failure> {
    Ok(cfg(source)?.dependencies)
}

/// `None` if it lists no packages.
///
/// # Source
///
/// <https://setuptools.pypa.io/en/latest/references/keywords.html>, `install_requires`.
pub(super) fn of_python(_: &Folder, source: &Source) -> Result<Option<Vec<Line>>, Failure> {
    Ok(code(source)?.dependencies)
}

/// The requirements of the project that these files describe, with some of its extras. `None` if
/// neither lists packages.
///
/// * `place`: where they are named.
pub(super) fn own(folder: &Folder, place: &str, extras: &[&str]) -> Result<Option<Vec<Line>>, Failure> {
    for (name, read) in [
        ("setup.cfg", cfg as fn(&Source) -> Result<Listed, Failure>),
        ("setup.py", code),
    ] {
        let Some(source) = Source::find(folder, name)? else {
            continue;
        };
        let mut listed = read(&source)?;
        let Some(mut lines) = listed.dependencies.take() else {
            continue;
        };
        for extra in extras {
            let Some(more) = listed.extras.remove(*extra) else {
                let remedy = "Correct the line, or take the extra out.";
                return Err(bad(format!("{place}: {name} has no extra {extra}. {remedy}")));
            };
            lines.extend(more);
        }
        let own = listed.name.as_deref().and_then(requirements::name_of);
        if let Some(line) = lines
            .iter()
            .find(|line| own.is_some() && requirements::name_of(&line.text) == own)
        {
            let remedy = "Name the packages of that extra in its place.";
            return Err(bad(format!(
                "{name}:{}: an extra names the project itself. {remedy}",
                line.number
            )));
        }
        return Ok(Some(lines));
    }
    Ok(None)
}

/// A value of an entry in `setup.cfg`, a line of it each.
pub(super) struct Entry<'a> {
    /// The name of its section.
    pub(super) section: &'a str,
    pub(super) key: &'a str,
    pub(super) value: &'a str,
    /// Its line, from 1.
    pub(super) number: usize,
}

/// The values of `setup.cfg`, line by line.
pub(super) fn entries(source: &Source) -> Vec<Entry<'_>> {
    let (mut section, mut key, mut entries) = ("", "", Vec::new());
    for (at, raw) in source.text.lines().enumerate() {
        let text = raw.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        let is_more = raw.starts_with([' ', '\t']);
        let value = if text.starts_with('[') && !is_more {
            (section, key) = (text.trim_matches(['[', ']']).trim(), "");
            continue;
        } else if is_more {
            text
        } else {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            key = name.trim();
            value.trim()
        };
        entries.push(Entry {
            section,
            key,
            value: value.split(" #").next().unwrap_or_default().trim(),
            number: at + 1,
        });
    }
    entries
}

fn cfg(source: &Source) -> Result<Listed, Failure> {
    let mut listed = Listed::default();
    for entry in entries(source) {
        let value = entry.value;
        let lines: &mut Vec<Line> = match (entry.section, entry.key) {
            ("metadata", "name") => {
                listed.name = Some(value.to_owned());
                continue;
            }
            ("options", "install_requires") => listed.dependencies.get_or_insert_default(),
            ("options.extras_require", extra) => listed.extras.entry(extra.to_owned()).or_default(),
            _ => continue,
        };
        if value.starts_with("file:") {
            let why =
                "names a file. Name that file requirements.txt, or write a requirements.txt with `-r` and its path.";
            return Err(source.refuse(entry.key, why));
        }
        if !value.is_empty() {
            lines.push(source.line_of(entry.number, value));
        }
    }
    Ok(listed)
}

/// Reads lists that stand in the code as texts. Code is never run here, so what it computes is
/// refused.
fn code(source: &Source) -> Result<Listed, Failure> {
    let tokens = python::tokens(&source.text);
    let (mut listed, mut seen) = (Listed::default(), Vec::new());
    for (at, (_, token)) in tokens.iter().enumerate() {
        let Token::Name(name @ ("name" | "install_requires" | "extras_require")) = token else {
            continue;
        };
        let is_value = matches!(tokens.get(at + 1), Some((_, Token::Mark('='))))
            && !matches!(tokens.get(at + 2), Some((_, Token::Mark('='))));
        let mut rest = tokens.get(at + 2..).unwrap_or_default();
        let known = is_value && !seen.contains(name);
        seen.push(name);
        let found = match *name {
            "name" => {
                if let (true, Some((_, Token::Text(name)))) = (known, rest.first()) {
                    listed.name = Some((*name).to_owned());
                }
                continue;
            }
            "install_requires" if known => texts(source, &mut rest).map(|lines| listed.dependencies = Some(lines)),
            "extras_require" if known => extras(source, &mut rest).map(|extras| listed.extras = extras),
            _ => None,
        };
        if found
            .filter(|()| matches!(rest, [(_, Token::Mark(',' | ')')), ..]))
            .is_none()
        {
            let why = "is not written as a list of texts, and no code is run here. Write it so, or write a requirements.txt that lists \
                       the packages.";
            return Err(source.refuse(name, why));
        }
    }
    Ok(listed)
}

pub(super) type Tokens<'a, 'b> = &'b [(usize, Token<'a>)];

/// A list of texts at the beginning of the tokens, which is taken off.
pub(super) fn texts(source: &Source, tokens: &mut Tokens<'_, '_>) -> Option<Vec<Line>> {
    let mut lines = Vec::new();
    let Some((_, Token::Mark('[' | '('))) = tokens.split_off_first() else {
        return None;
    };
    loop {
        match tokens.split_off_first()? {
            (_, Token::Mark(']' | ')')) => return Some(lines),
            (at, Token::Text(text)) => lines.push(source.line_of(source.line_at(*at), *text)),
            _ => return None,
        }
        match tokens.first()? {
            (_, Token::Mark(',')) => *tokens = &tokens[1..],
            (_, Token::Mark(']' | ')')) => (),
            _ => return None,
        }
    }
}

/// A table of such lists.
pub(super) fn extras(source: &Source, tokens: &mut Tokens<'_, '_>) -> Option<BTreeMap<String, Vec<Line>>> {
    let mut extras = BTreeMap::new();
    let Some((_, Token::Mark('{'))) = tokens.split_off_first() else {
        return None;
    };
    loop {
        let name = match tokens.split_off_first()? {
            (_, Token::Mark('}')) => return Some(extras),
            (_, Token::Text(name)) => *name,
            _ => return None,
        };
        let Some((_, Token::Mark(':'))) = tokens.split_off_first() else {
            return None;
        };
        extras.insert(name.to_owned(), texts(source, tokens)?);
        match tokens.first()? {
            (_, Token::Mark(',')) => *tokens = &tokens[1..],
            (_, Token::Mark('}')) => (),
            _ => return None,
        }
    }
}
