//! A Dockerfile: its base image, and what it installs with pip.

use super::{MOST_FILES, parts::Definition, pip_file};
use crate::{
    Code, Failure,
    folder::read_text,
    requirements::{Line, words},
};
use std::path::Path;

/// Reads a Dockerfile's last stage.
///
/// `FROM` gives the base image and `RUN pip install` the packages; any other instruction that
/// changes the image is said.
///
/// # Errors
///
/// Final. `Flow.BadProject` if the base image is a variable without a default, there is no `FROM`,
/// or `pip install` has an option that is not known.
pub(super) fn read(path: &Path, shown: &str) -> Result<Definition, Failure> {
    let text = read_text(path, shown)?;
    let mut arguments: Vec<(String, String)> = Vec::new();
    // A stage by its name, with what it holds.
    let mut stages: Vec<(String, Definition)> = Vec::new();
    for (number, instruction) in instructions(&text) {
        let (word, rest) = instruction
            .split_once(char::is_whitespace)
            .unwrap_or((&instruction, ""));
        let rest = rest.trim();
        let at = At {
            path,
            shown,
            line: number,
        };
        match word.to_ascii_uppercase().as_str() {
            "ARG" => arguments.extend(
                rest.split_once('=')
                    .map(|(name, value)| (name.trim().to_owned(), unquote(value))),
            ),
            "FROM" => stages.push(at.stage(rest, &arguments, &stages)?),
            "RUN" => {
                let Some((_, stage)) = stages.last_mut() else { continue };
                at.run(stage, rest)?;
            }
            // They change nothing of what is installed.
            "LABEL" | "MAINTAINER" | "EXPOSE" | "CMD" | "ENTRYPOINT" | "HEALTHCHECK" | "STOPSIGNAL" | "SHELL"
            | "WORKDIR" => {}
            // A requirements file is copied to be installed.
            "COPY" | "ADD" if rest.contains("requirements") => {}
            _ => {
                if let Some((_, stage)) = stages.last_mut() {
                    stage.notes.push(at.left_out(&instruction));
                }
            }
        }
    }
    let Some((_, found)) = stages.pop() else {
        let message = format!("{shown}: it has no FROM, which names the base image. Add it.");
        return Err(Failure::new(Code::FlowBadProject, message));
    };
    Ok(found)
}

fn unquote(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}

/// The instructions, each with the line that it begins at.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let mut out: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let (part, goes_on) = line
            .strip_suffix('\\')
            .map_or((line, false), |part| (part.trim_end(), true));
        match out.last_mut().filter(|_| is_open) {
            Some((_, begun)) => {
                begun.push(' ');
                begun.push_str(part);
            }
            None => out.push((index + 1, part.to_owned())),
        }
        is_open = goes_on;
    }
    out
}

/// An instruction's place.
struct At<'a> {
    /// The Dockerfile; what it copies lies beside it.
    path: &'a Path,
    shown: &'a str,
    line: usize,
}

impl At<'_> {
    /// `FROM [--platform=…] IMAGE [AS NAME]`: a stage that begins as an image, or as an earlier
    /// stage.
    fn stage(
        &self,
        rest: &str,
        arguments: &[(String, String)],
        earlier: &[(String, Definition)],
    ) -> Result<(String, Definition), Failure> {
        let mut words = rest.split_whitespace().filter(|word| !word.starts_with("--"));
        let mut image = words.next().unwrap_or_default().to_owned();
        let name = words.nth(1).unwrap_or_default().to_owned();
        for (argument, value) in arguments {
            image = image.replace(&format!("${{{argument}}}"), value);
            if image == format!("${argument}") {
                image.clone_from(value);
            }
        }
        if image.is_empty() || image.contains('$') {
            let message = format!(
                "{}:{}: the base image `{image}` is a variable. Name the image: --image IMAGE.",
                self.shown, self.line
            );
            return Err(Failure::new(Code::FlowBadProject, message));
        }
        let begun = earlier.iter().find(|(name, _)| *name == image);
        let definition = begun.map(|(_, stage)| stage.clone()).unwrap_or_else(|| Definition {
            image: Some(image.clone()),
            ..Definition::default()
        });
        Ok((name, definition))
    }

    /// `RUN`: each command of it is a `pip install`, or is said.
    fn run(&self, stage: &mut Definition, rest: &str) -> Result<(), Failure> {
        for command in rest.split("&&").flat_map(|part| part.split(';')) {
            let mut words = words(command);
            words.retain(|word| !word.starts_with("--mount=") && word != "sudo");
            match packages_from(&words) {
                Some(at) => self.install(stage, words.drain(at..))?,
                None => stage.notes.push(self.left_out(&format!("RUN {}", command.trim()))),
            }
        }
        Ok(())
    }

    /// The arguments of `pip install`.
    fn install(&self, stage: &mut Definition, mut words: impl Iterator<Item = String>) -> Result<(), Failure> {
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=').filter(|_| word.starts_with("--")) {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            match option {
                "-r" | "--requirement" => {
                    let named = value.or_else(|| words.next()).unwrap_or_default();
                    stage.lines.extend(self.pip_file(&named)?);
                }
                "-i" | "--index-url" | "--extra-index-url" | "-f" | "--find-links" => {
                    let value = value.or_else(|| words.next()).unwrap_or_default();
                    stage.lines.push(self.requirement(format!("{option} {value}")));
                }
                "--pre" => stage.lines.push(self.requirement(option.to_owned())),
                // They say how pip installs, and a session installs in its own way.
                "-U"
                | "--upgrade"
                | "-q"
                | "--quiet"
                | "--no-cache-dir"
                | "--user"
                | "--system"
                | "-I"
                | "--no-input"
                | "--ignore-installed"
                | "--disable-pip-version-check"
                | "--break-system-packages"
                | "-y" => {}
                // Every session has them.
                "pip" | "setuptools" | "wheel" | "uv" => {}
                _ if option.starts_with('-') => {
                    let message = format!(
                        "{}:{}: `pip install {option}` is not known here. Build the image and name it: --image IMAGE.",
                        self.shown, self.line
                    );
                    return Err(Failure::new(Code::FlowBadProject, message));
                }
                _ => stage.lines.push(self.requirement(word)),
            }
        }
        Ok(())
    }

    /// A pip file by the path that it has in the image: where it lies here is beside the
    /// Dockerfile.
    fn pip_file(&self, named: &str) -> Result<Vec<Line>, Failure> {
        let name = Path::new(named).file_name().unwrap_or_default();
        let below = Some(self.path.with_file_name(named)).filter(|path| path.is_file());
        let file = below.unwrap_or_else(|| self.path.with_file_name(name));
        pip_file(&file, &name.to_string_lossy(), &mut { MOST_FILES })
    }

    fn requirement(&self, text: String) -> Line {
        Line {
            file: self.shown.to_owned(),
            number: self.line,
            text,
            constraint: false,
        }
    }

    fn left_out(&self, instruction: &str) -> String {
        let said: String = crate::redact(instruction).chars().take(80).collect();
        format!(
            "{}:{}: `{said}` is not taken over. If the flow needs it, build the image and name it: --image IMAGE.",
            self.shown, self.line
        )
    }
}

/// The start of the arguments of `pip install` in a command, if it is one.
fn packages_from(words: &[String]) -> Option<usize> {
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [pip, "install", ..] if pip.starts_with("pip") || pip.contains("/pip") => Some(2),
        [python, "-m", "pip", "install", ..] if python.contains("python") => Some(4),
        ["uv", "pip", "install", ..] => Some(3),
        _ => None,
    }
}
