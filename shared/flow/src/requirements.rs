//! A requirements file, line by line, as pip reads it.

use crate::{
    Failure,
    folder::{Folder, Include, clean, read_text},
    redact,
};
use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl, pep440_rs::Operator};
use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

/// The most lines that a flow's requirements files have together.
const MOST_LINES: usize = 10_000;

/// What a flow's session installs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// The file as it was found; canonical.
    pub file: PathBuf,
    /// Whether the flow file names it.
    pub declared: bool,
    /// Every line that says something, in order: `-r` and `-c` are followed, comments gone, continuations joined.
    ///
    /// A URL in it may hold a credential.
    pub lines: Vec<Line>,
}

/// A line of a requirements file: a requirement, or an option such as `--index-url`.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// The file, relative to the flow folder.
    pub file: String,
    /// Where the line begins, from 1.
    pub number: usize,
    pub text: String,
    /// Whether it only limits versions: it came by `-c`.
    pub constraint: bool,
}

/// As it may be logged.
impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let constraint = if self.constraint { "-c " } else { "" };
        write!(f, "{}:{}: {constraint}{}", self.file, self.number, redact(&self.text))
    }
}

impl Requirements {
    /// One requirements file of all lines but the constraints.
    pub fn text(&self) -> String {
        self.join(false)
    }

    /// One constraints file; empty if there are none.
    pub fn constraints(&self) -> String {
        self.join(true)
    }

    fn join(&self, constraint: bool) -> String {
        self.lines
            .iter()
            .filter(|line| line.constraint == constraint)
            .map(|line| format!("{}\n", line.text))
            .collect()
    }
}

/// Reads a requirements file and what it names.
///
/// * `source`: the file; canonical, inside the root.
/// * `target`: where the view has it: `-r` and `-c` are relative to that.
pub(crate) fn read(
    folder: &Folder,
    includes: &[Include],
    source: PathBuf,
    target: &Path,
    declared: bool,
) -> Result<Requirements, Failure> {
    let mut reader = Reader {
        folder,
        includes,
        open: Vec::new(),
        lines: Vec::new(),
    };
    reader.file(&source, target, false)?;
    Ok(Requirements {
        file: source,
        declared,
        lines: reader.lines,
    })
}

struct Reader<'a> {
    folder: &'a Folder,
    includes: &'a [Include],
    /// The files being read, outermost first.
    open: Vec<PathBuf>,
    lines: Vec<Line>,
}

impl Reader<'_> {
    fn file(&mut self, source: &Path, target: &Path, constraint: bool) -> Result<(), Failure> {
        let shown = self.folder.show(source);
        let text = read_text(source, &shown)?;
        self.open.push(source.to_owned());
        for (number, text) in logical_lines(&text) {
            let line = Line {
                file: shown.clone(),
                number,
                text,
                constraint,
            };
            if let Some((option, path)) = follows(&line.text) {
                self.follow(&line, target, path, constraint || option == 'c')?;
                continue;
            }
            check(&line)?;
            self.lines.push(Line {
                constraint: constraint && !line.text.starts_with('-'),
                ..line
            });
            if self.lines.len() > MOST_LINES {
                let message = format!("{shown} and what it names have more than {MOST_LINES} lines. Make them fewer.");
                return Err(Failure::new("Flow.TooLarge", message));
            }
        }
        self.open.pop();
        Ok(())
    }

    fn follow(&mut self, line: &Line, target: &Path, path: &str, constraint: bool) -> Result<(), Failure> {
        let place = place(line);
        let out = || {
            let remedy = "Add the file to additional_includes, and name it as it is then called in the flow folder.";
            Failure::new(
                "Flow.PathLeadsOut",
                format!("{place}: {} leads out of the flow folder. {remedy}", redact(path)),
            )
        };
        let named = clean(&target.parent().unwrap_or(Path::new("")).join(path));
        if path.contains("://") || path.starts_with("file:") || named.is_absolute() || named.starts_with("..") {
            return Err(out());
        }
        let source = self.folder.find(self.includes, &named, &place)?.ok_or_else(|| {
            let named = named.display();
            Failure::new(
                "Flow.MissingRequirements",
                format!("{place}: there is no file {named} in the flow folder or its additional_includes. Create it, or take the line out."),
            )
        })?;
        if self.open.contains(&source) {
            let message = format!("{place}: {path} names the file that names it. Take one of the two lines out.");
            return Err(Failure::new("Flow.BadRequirement", message));
        }
        self.file(&source, &named, constraint)
    }
}

fn place(line: &Line) -> String {
    format!("{}:{}", line.file, line.number)
}

/// Joins lines that end in a backslash, and takes out comments and what is empty; each with the number that it begins at.
///
/// # Source
///
/// "A line ending in an unescaped `\` is treated as a line continuation" and comments as in pip's *Requirements File Format*.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut begun: Option<(usize, String)> = None;
    for (index, raw) in text.lines().enumerate() {
        let is_comment = raw.trim_start().starts_with('#');
        let (number, mut joined) = begun.take().unwrap_or((index + 1, String::new()));
        match raw.strip_suffix('\\') {
            Some(part) if !is_comment => {
                joined.push_str(part);
                begun = Some((number, joined));
            }
            _ => {
                joined.push_str(if is_comment { "" } else { raw });
                out.push((number, joined));
            }
        }
    }
    out.extend(begun);
    out.into_iter()
        .map(|(number, line)| (number, without_comment(&line).trim().to_owned()))
        .filter(|(_, line)| !line.is_empty())
        .collect()
}

/// A `#` begins a comment at the start of a line and after a space; in a URL it is a fragment.
fn without_comment(line: &str) -> &str {
    let mut after_space = true;
    for (at, c) in line.char_indices() {
        if c == '#' && after_space {
            return &line[..at];
        }
        after_space = c.is_whitespace();
    }
    line
}

/// The option and the path of a line that names another file.
fn follows(line: &str) -> Option<(char, &str)> {
    for (option, names) in [('r', ["--requirement", "-r"]), ('c', ["--constraint", "-c"])] {
        for name in names {
            if let Some(rest) = line.strip_prefix(name) {
                let is_long = name.starts_with("--");
                let ends = rest.starts_with(|c: char| c == '=' || c.is_whitespace());
                if ends || !is_long {
                    let path = rest.trim_start_matches(|c: char| c == '=' || c.is_whitespace());
                    return Some((option, path.trim_matches(['"', '\''])));
                }
            }
        }
    }
    None
}

/// The options that pip and uv both take in a requirements file, and whether a value follows that names a place.
const OPTIONS: [(&str, bool); 15] = [
    ("-i", true),
    ("--index-url", true),
    ("--extra-index-url", true),
    ("-f", true),
    ("--find-links", true),
    ("--no-index", false),
    ("--no-binary", false),
    ("--only-binary", false),
    ("--prefer-binary", false),
    ("--require-hashes", false),
    ("--pre", false),
    ("--trusted-host", false),
    ("--use-feature", false),
    ("--hash", false),
    ("--config-settings", false),
];

/// What comes with promptflow and promptflow-tools, and breaks them when it is held at another version.
const HELD_BY_THE_IMAGE: [&str; 5] = [
    "promptflow",
    "promptflow-tools",
    "promptflow-core",
    "promptflow-devkit",
    "promptflow-tracing",
];

fn check(line: &Line) -> Result<(), Failure> {
    let text = line.text.as_str();
    let place = place(line);
    // A line may be as long as the file; its beginning is enough to find it by.
    let shown: String = redact(text).chars().take(200).collect();
    let fail = |error: &str, what: String| Err(Failure::new(error, format!("{place}: {}", redact(&what))));
    if let Some(variable) = variable(text) {
        return fail(
            "Flow.VariableInRequirement",
            format!(
                "{variable} would be read from the environment variables of whoever installs. Write the value itself, or {{private}} for the credential of an index."
            ),
        );
    }
    let local = || {
        fail(
            "Flow.LocalPackage",
            format!(
                "{shown}: local wheels, local folders and editable installs are not supported. Build the package in your image and set \
                 environment.image in the flow file, or publish it to an index."
            ),
        )
    };
    if let Some(option) = text.strip_prefix('-') {
        let name = &text[..1 + option
            .find(|c: char| c == '=' || c.is_whitespace())
            .unwrap_or(option.len())];
        if matches!(name, "-e" | "--editable") {
            return local();
        }
        return match OPTIONS.iter().find(|(known, _)| *known == name) {
            Some((_, true)) => {
                let value = text[name.len()..].trim_start_matches(|c: char| c == '=' || c.is_whitespace());
                if value.is_empty() {
                    fail(
                        "Flow.BadRequirement",
                        format!("{name} needs a URL. Write it behind, or take the line out."),
                    )
                } else if is_remote(value) {
                    Ok(())
                } else {
                    local()
                }
            }
            Some(_) => Ok(()),
            None => fail(
                "Flow.BadRequirement",
                format!("a requirements file has no option {name}. Correct it, or take the line out."),
            ),
        };
    }
    // What follows is for this requirement alone: `--hash=…`.
    let requirement = text.find(" --").map_or(text, |at| &text[..at]).trim_end();
    let (name, url) = match requirement.split_once('@') {
        Some((name, url)) if !name.contains([':', '/', ';']) => (Some(name.trim()), Some(url.trim())),
        _ if is_remote(requirement) => (None, Some(requirement)),
        _ => (None, None),
    };
    if url.is_some_and(|url| !is_remote(url)) || url.is_none() && is_local(requirement) {
        return local();
    }
    if let (None, Some(url)) = (name, url) {
        return match named_by(url) {
            Some(name) if HELD_BY_THE_IMAGE.contains(&name.as_str()) => pinned(&place, &name),
            _ => Ok(()),
        };
    }
    match Requirement::<VerbatimUrl>::from_str(requirement) {
        Ok(parsed) => {
            let pins = |operator: &Operator| {
                matches!(
                    operator,
                    Operator::Equal | Operator::EqualStar | Operator::ExactEqual | Operator::TildeEqual
                )
            };
            let is_pin = match &parsed.version_or_url {
                None => false,
                Some(VersionOrUrl::Url(_)) => true,
                Some(VersionOrUrl::VersionSpecifier(versions)) => {
                    versions.iter().any(|version| pins(version.operator()))
                }
            };
            let name = parsed.name.to_string();
            if is_pin && HELD_BY_THE_IMAGE.contains(&name.as_str()) {
                pinned(&place, &name)
            } else {
                Ok(())
            }
        }
        Err(error) => {
            let said = error.message.to_string();
            let said = said.lines().next().unwrap_or_default().trim_end_matches('.');
            fail(
                "Flow.BadRequirement",
                format!("{shown} is not a requirement: {said}. Write it as name, or name==version."),
            )
        }
    }
}

fn pinned(place: &str, name: &str) -> Result<(), Failure> {
    Err(Failure::new(
        "Flow.PinnedPromptflow",
        format!(
            "{place}: {name} is in the base image already, and another version of it breaks it. Take the pin, or the line, out."
        ),
    ))
}

/// Whether a place is on a network: it has a scheme, and that is not `file`.
fn is_remote(place: &str) -> bool {
    let scheme = place.split_once("://").map(|(scheme, _)| scheme).unwrap_or_default();
    let is_scheme = scheme
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    !scheme.is_empty() && is_scheme && !scheme.to_ascii_lowercase().ends_with("file")
}

/// Whether pip takes it for a path.
fn is_local(requirement: &str) -> bool {
    let path = requirement
        .split([';', ' ', '['])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let is_archive = [".whl", ".zip", ".tar", ".tgz", ".tbz", ".txz", ".tlz"]
        .iter()
        .any(|end| path.ends_with(end));
    is_archive
        || path.contains(".tar.")
        || path.starts_with(['.', '~'])
        || path.starts_with("file:")
        || path.contains(['/', '\\'])
}

/// The package that a URL without a name names: by `#egg=`, or by its file's or repository's name.
fn named_by(url: &str) -> Option<String> {
    let (path, fragment) = url.split_once('#').unwrap_or((url, ""));
    let egg = fragment.split('&').find_map(|part| part.strip_prefix("egg="));
    let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_file = [".whl", ".tar.gz", ".zip"].iter().any(|end| last.ends_with(end));
    let name = match egg {
        Some(egg) => egg.split(['[', '=']).next()?,
        None if last.ends_with(".whl") => last.split('-').next()?,
        // A source archive: `name-version.tar.gz`.
        None if is_file => last.rsplit_once('-').map_or(last, |(name, _)| name),
        None => last.split(['@', '.']).next()?,
    };
    pep508_rs::PackageName::from_str(name).ok().map(|name| name.to_string())
}

/// The first `${NAME}` of a line.
fn variable(text: &str) -> Option<&str> {
    let from = text.find("${")?;
    let to = from + text[from..].find('}')?;
    Some(&text[from..=to])
}
