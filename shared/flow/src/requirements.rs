//! A requirements file, line by line, as pip reads it.

use crate::{
    Code, Failure,
    folder::{Folder, Include, clean, read_text},
    forms::{is_local, is_remote, named_by, variable},
    names, redact, remedy, requirement,
};
use pep508_rs::{VersionOrUrl, pep440_rs::Operator};
use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

/// The most lines that a flow's requirements have together.
pub(crate) const MOST_LINES: usize = 10_000;
/// The most files that are read for them; one that several name is read for each.
const MOST_FILES: usize = 100;
/// The most bytes that are read for them.
const MOST_BYTES: usize = 4 << 20;

/// The requirements of a flow's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// The file as it was found; canonical.
    pub file: PathBuf,
    /// Whether the flow file names it.
    pub declared: bool,
    /// Every line that says something, in order: `-r` and `-c` are followed, comments gone,
    /// continuations joined.
    ///
    /// A URL in it may hold a credential.
    pub lines: Vec<Line>,
}

/// A line of a requirements file: a requirement, or an option such as `--index-url`.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// The file, relative to the flow folder.
    pub file: String,
    /// The number of the line, from 1.
    pub number: usize,
    pub text: String,
    /// Whether it only limits versions: it came by `-c`.
    pub constraint: bool,
}

/// As it may be logged.
impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.number, self.to_shown())
    }
}

impl Line {
    /// The option that the line is, and its value; `None` for a requirement.
    pub fn option(&self) -> Option<(&str, &str)> {
        if !self.text.starts_with('-') {
            return None;
        }
        Some(self.text.split_once(' ').unwrap_or((&self.text, "")))
    }

    /// The line as it may be kept and shown: without a credential, and with `-c` before it if it
    /// only limits versions.
    pub fn to_shown(&self) -> String {
        let constraint = if self.constraint { "-c " } else { "" };
        format!("{constraint}{}", redact(&self.text))
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
        files: 0,
        bytes: 0,
        lines: Vec::new(),
    };
    reader.file(&source, target, false)?;
    Ok(Requirements {
        file: source,
        declared,
        lines: reader.lines,
    })
}

/// The normalised name of the package that a line requires.
pub(crate) fn name_of(line: &str) -> Option<String> {
    let written = without_hashes(line);
    if let Ok(parsed) = requirement::parse(written) {
        return Some(parsed.name.to_string());
    }
    let (name, _) = written.split_once('@')?;
    pep508_rs::PackageName::from_str(name.split('[').next()?.trim())
        .ok()
        .map(|name| name.to_string())
}

struct Reader<'a> {
    folder: &'a Folder,
    includes: &'a [Include],
    /// The files being read, outermost first.
    open: Vec<PathBuf>,
    /// The number of files that were read, and of their bytes.
    files: usize,
    bytes: usize,
    lines: Vec<Line>,
}

impl Reader<'_> {
    fn file(&mut self, source: &Path, target: &Path, constraint: bool) -> Result<(), Failure> {
        let shown = self.folder.show(source);
        let text = read_text(source, &shown)?;
        self.files += 1;
        self.bytes += text.len();
        if self.files > MOST_FILES || self.bytes > MOST_BYTES {
            let message = format!(
                "{shown}: with it the requirements are more than {MOST_FILES} files or {} MiB, counting a file as often as it is named. \
                 Name fewer.",
                MOST_BYTES >> 20
            );
            return Err(Failure::new(Code::FlowTooLarge, message));
        }
        self.open.push(source.to_owned());
        for (number, text) in logical_lines(&text) {
            for text in options(&text).unwrap_or_else(|| vec![text]) {
                let file = shown.clone();
                self.line(
                    Line {
                        file,
                        number,
                        text,
                        constraint,
                    },
                    target,
                )?;
            }
        }
        self.open.pop();
        Ok(())
    }

    fn line(&mut self, line: Line, target: &Path) -> Result<(), Failure> {
        match line.option() {
            Some(("-r" | "--requirement", path)) => return self.follow(&line, target, path, line.constraint),
            Some(("-c" | "--constraint", path)) => return self.follow(&line, target, path, true),
            Some((INDEX_OF, _)) => return Err(bad(&line, &no_option(INDEX_OF))),
            _ => match self.own_extras(&line, target) {
                Some(_) => {}
                None => check(&line)?,
            },
        }
        if self.lines.len() >= MOST_LINES {
            let shown = &line.file;
            let message = format!("{shown} and what it names have more than {MOST_LINES} lines. Make them fewer.");
            return Err(Failure::new(Code::FlowTooLarge, message));
        }
        self.lines.push(Line {
            constraint: line.constraint && line.option().is_none(),
            text: match self.own_extras(&line, target) {
                Some(extras) => format!("{OWN} {extras}"),
                None => line.text,
            },
            ..line
        });
        Ok(())
    }

    /// The extras of a line that names the flow folder itself as a package, with commas between
    /// them.
    fn own_extras(&self, line: &Line, target: &Path) -> Option<String> {
        let place = match line.option() {
            Some(("-e" | "--editable", place)) => place,
            Some(_) => return None,
            None => line.text.as_str(),
        };
        // `file:.#egg=name` names the same folder.
        let place = match place.strip_prefix("file:") {
            Some(path) => path.split('#').next()?,
            None => place,
        };
        let (path, extras) = place.split_once('[').unwrap_or((place, ""));
        let is_path = path.starts_with('.') && !path.contains([' ', ';', '@', ':']);
        let extras = extras.strip_suffix(']').or(Some("").filter(|_| extras.is_empty()))?;
        let folder = clean(&target.parent().unwrap_or(Path::new("")).join(path));
        (is_path && folder.as_os_str().is_empty()).then(|| extras.replace(' ', ""))
    }

    fn follow(&mut self, line: &Line, target: &Path, path: &str, constraint: bool) -> Result<(), Failure> {
        let place = place(line);
        let out = || {
            let remedy = "Add the file to additional_includes, and name it as it is then called in the flow folder.";
            Failure::new(
                Code::FlowPathLeadsOut,
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
                Code::FlowMissingRequirements,
                format!("{place}: there is no file {named} in the flow folder or its additional_includes. Create it, or take the line out."),
            )
        })?;
        if self.open.contains(&source) {
            let message = format!("{place}: {path} names the file that names it. Take one of the two lines out.");
            return Err(Failure::new(Code::FlowBadRequirement, message));
        }
        self.file(&source, &named, constraint)
    }
}

fn place(line: &Line) -> String {
    format!("{}:{}", line.file, line.number)
}

/// Joins lines that end in a backslash, and takes out comments and what is empty; each with the
/// number that it begins at.
///
/// # Source
///
/// "A line ending in an unescaped `\` is treated as a line continuation" and comments as in pip's
/// *Requirements File Format*.
pub(crate) fn logical_lines(text: &str) -> Vec<(usize, String)> {
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
pub(crate) fn without_comment(line: &str) -> &str {
    let mut after_space = true;
    for (at, c) in line.char_indices() {
        if c == '#' && after_space {
            return &line[..at];
        }
        after_space = c.is_whitespace();
    }
    line
}

/// The options of a line, each as `--name value`; `None` for a requirement. Several may stand in
/// one line, as `--name value`, `--name=value`, `-n value` and `-nvalue`, quoted as in a shell.
///
/// # Source
///
/// pip's *Requirements File Format*: the options of a line are read as those of a command line.
pub(crate) fn options(line: &str) -> Option<Vec<String>> {
    if !line.starts_with('-') {
        return None;
    }
    let mut options: Vec<(String, Vec<String>)> = Vec::new();
    for word in words(line) {
        let long = word.starts_with("--");
        if long && let Some((name, value)) = word.split_once('=') {
            options.push((name.to_owned(), vec![value.to_owned()]));
        } else if long {
            options.push((word, Vec::new()));
        } else if word.starts_with('-') && word.len() > 1 {
            let end = word.char_indices().nth(2).map_or(word.len(), |(at, _)| at);
            let (name, value) = word.split_at(end);
            let value = value.strip_prefix('=').unwrap_or(value);
            let values = Some(value.to_owned()).filter(|value| !value.is_empty());
            options.push((name.to_owned(), values.into_iter().collect()));
        } else {
            options.last_mut()?.1.push(word);
        }
    }
    let joined = |(name, values): (String, Vec<String>)| match values.is_empty() {
        true => name,
        false => format!("{name} {}", values.join(" ")),
    };
    Some(options.into_iter().map(joined).collect())
}

/// The words of a line, as a shell has them.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => (quote, begun) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (None, c) => word.push(c),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The value of an option of a requirements file.
enum Takes {
    Nothing,
    /// One URL.
    Place,
    /// The name of a package, and one URL.
    PlaceOfOne,
    Words,
}

/// The options that a requirements file may have here. pip knows some more: what they would do
/// would be left undone, so they are refused.
const OPTIONS: [(&str, Takes); 15] = [
    ("-i", Takes::Place),
    ("--index-url", Takes::Place),
    ("--extra-index-url", Takes::Place),
    ("-f", Takes::Place),
    ("--find-links", Takes::Place),
    ("--no-index", Takes::Nothing),
    ("--no-binary", Takes::Words),
    ("--only-binary", Takes::Words),
    ("--prefer-binary", Takes::Nothing),
    ("--require-hashes", Takes::Nothing),
    ("--pre", Takes::Nothing),
    ("--trusted-host", Takes::Words),
    // pip takes it in its command alone.
    (GROUP, Takes::Words),
    (INDEX_OF, Takes::PlaceOfOne),
    // Of pip's own new ways, none of which changes what is installed.
    ("--use-feature", Takes::Words),
];

/// Stands, with its extras behind it, in the place of a line that names the flow folder itself as a
/// package.
pub(crate) const OWN: &str = "--own-project";

/// Names a dependency group of the flow folder's own project.
pub(crate) const GROUP: &str = "--group";

/// Names a package and the URL of the index that it comes from alone. Only project files lead to
/// such a line: pip has no such option.
pub const INDEX_OF: &str = "--index-of";

/// Packages of the base image that break when they are pinned to another version.
const HELD_BY_THE_IMAGE: [&str; 5] = [
    "promptflow",
    "promptflow-tools",
    "promptflow-core",
    "promptflow-devkit",
    "promptflow-tracing",
];

/// Whether a session can install this line.
///
/// # Errors
///
/// Final: says where the line is, what is wrong with it, and what to write.
pub(crate) fn check(line: &Line) -> Result<(), Failure> {
    let text = line.text.as_str();
    if let Some(variable) = variable(text) {
        return Err(wrong(
            line,
            Code::FlowVariableInRequirement,
            &remedy::of_variable(variable, line.option().map(|(name, _)| name), text),
        ));
    }
    match line.option() {
        Some((name, value)) => check_option(line, name, value),
        None => check_package(line),
    }
}

fn wrong(line: &Line, error: Code, what: &str) -> Failure {
    Failure::new(error, format!("{}: {}", place(line), redact(what)))
}

fn bad(line: &Line, what: &str) -> Failure {
    wrong(line, Code::FlowBadRequirement, what)
}

/// Refuses a package that is on the user's own machine alone.
fn local(line: &Line) -> Failure {
    let text = line.text.as_str();
    wrong(
        line,
        Code::FlowLocalPackage,
        &format!(
            "{}: local wheels, local folders and editable installs are not supported. {}",
            show_line(line),
            remedy::of_local(text)
        ),
    )
}

/// A line may be as long as the file; its beginning is enough to find it by.
fn show_line(line: &Line) -> String {
    redact(&line.text).chars().take(200).collect()
}

fn check_option(line: &Line, name: &str, value: &str) -> Result<(), Failure> {
    if matches!(name, "-e" | "--editable") {
        return Err(local(line));
    }
    let what = match OPTIONS.iter().find(|(known, _)| *known == name) {
        Some((_, Takes::Nothing)) if value.is_empty() => return Ok(()),
        Some((_, Takes::Nothing)) => format!(
            "{name} takes no value, and {value} stands behind it. Take it out, or write it into a line of its own."
        ),
        Some((_, Takes::Words)) if !value.is_empty() => return Ok(()),
        Some((_, Takes::Words)) => format!("{name} needs a value. Write it behind, or take the line out."),
        Some((_, Takes::PlaceOfOne)) if value.split(' ').count() == 2 => {
            return match is_remote(value.rsplit(' ').next().unwrap_or_default()) {
                true => Ok(()),
                false => Err(local(line)),
            };
        }
        Some((_, Takes::PlaceOfOne)) => format!("{name} takes the name of a package and a URL. Correct both."),
        Some((_, Takes::Place)) if value.is_empty() => {
            format!("{name} needs a URL. Write it behind, or take the line out.")
        }
        Some((_, Takes::Place)) if value.contains(' ') => {
            format!("{name} takes one URL, and there is more: {value}. Write each into a line of its own.")
        }
        Some((_, Takes::Place)) if is_remote(value) => return Ok(()),
        Some((_, Takes::Place)) => return Err(local(line)),
        None => no_option(name),
    };
    Err(bad(line, &what))
}

fn no_option(name: &str) -> String {
    format!("a requirements file has no option {name}. Correct it, or take the line out.")
}

fn check_package(line: &Line) -> Result<(), Failure> {
    let written = without_hashes(&line.text);
    let (name, url) = match written.split_once('@') {
        Some((name, url)) if !name.contains([':', '/', ';']) => (Some(name.trim()), Some(url.trim())),
        _ if is_remote(written) => (None, Some(written)),
        _ => (None, None),
    };
    if url.is_some_and(|url| !is_remote(url)) || url.is_none() && is_local(written) {
        return Err(local(line));
    }
    if let Some(remedy) = url.and_then(remedy::of_ssh) {
        let shown = show_line(line);
        return Err(bad(
            line,
            &format!("{shown} needs a key for SSH, and a session has none. {remedy}"),
        ));
    }
    if let (None, Some(url)) = (name, url) {
        return match named_by(url) {
            Some(name) if HELD_BY_THE_IMAGE.contains(&name.as_str()) => refuse_pin(&place(line), &name),
            _ => Ok(()),
        };
    }
    let parsed = requirement::parse(written).map_err(|error| {
        let said = error.lines().next().unwrap_or_default().trim_end_matches('.');
        let shown = show_line(line);
        bad(
            line,
            &format!("{shown} is not a requirement: {said}. Write it as name, or name==version."),
        )
    })?;
    let name = parsed.name.to_string();
    if let Some(other) = names::current_name(&name) {
        let rest = written.get(name.len()..).unwrap_or_default();
        return Err(bad(
            line,
            &format!("{name} is only the name of the module: its package is {other}. Write {other}{rest}."),
        ));
    }
    if is_pin(parsed.version_or_url.as_ref()) && HELD_BY_THE_IMAGE.contains(&name.as_str()) {
        return refuse_pin(&place(line), &name);
    }
    Ok(())
}

/// A requirement of what the base image holds without its version, if it has one:
/// `promptflow[azure]` of `promptflow[azure]==1.18.0`.
pub(crate) fn without_pin(text: &str) -> Option<String> {
    let parsed = requirement::parse(without_hashes(text)).ok()?;
    let is_held = HELD_BY_THE_IMAGE.contains(&&*parsed.name.to_string());
    if !is_held || !is_pin(parsed.version_or_url.as_ref()) {
        return None;
    }
    let extras: Vec<String> = parsed.extras.iter().map(ToString::to_string).collect();
    let extras = if extras.is_empty() {
        String::new()
    } else {
        format!("[{}]", extras.join(","))
    };
    Some(format!("{}{extras}", parsed.name))
}

/// Whether it names a version, or one that is like it.
fn is_pin(wanted: Option<&VersionOrUrl>) -> bool {
    let pins = |operator: &Operator| {
        matches!(
            operator,
            Operator::Equal | Operator::EqualStar | Operator::ExactEqual | Operator::TildeEqual
        )
    };
    match wanted {
        None => false,
        Some(VersionOrUrl::Url(_)) => true,
        Some(VersionOrUrl::VersionSpecifier(versions)) => versions.iter().any(|version| pins(version.operator())),
    }
}

/// A requirement without what is for it alone: `--hash=…`.
fn without_hashes(text: &str) -> &str {
    text.find(" --").map_or(text, |at| &text[..at]).trim_end()
}

fn refuse_pin(place: &str, name: &str) -> Result<(), Failure> {
    Err(Failure::new(
        Code::FlowPinnedPromptflow,
        format!(
            "{place}: {name} is in the base image already, and another version of it breaks it. Take the pin, or the line, out."
        ),
    ))
}
