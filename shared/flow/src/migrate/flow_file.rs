//! `environment:` of a flow file, changed in its text, so that comments and order stay.

use crate::{Code, Failure, yaml};
use serde_json::{Value, json};

/// The keys of `environment:` that are to be there.
pub(super) struct Wanted<'a> {
    pub(super) image: Option<&'a str>,
    /// Named only where the flow file names none yet.
    pub(super) requirements: Option<String>,
}

/// The text of a flow file with an environment. What it says beside that stays as it is.
///
/// # Errors
///
/// Final. `Flow.BadFlowFile` if the environment is written in a way that cannot be changed in the
/// text: an anchor, or a key over several lines.
pub(super) fn with_environment(shown: &str, text: &str, wanted: &Wanted<'_>) -> Result<String, Failure> {
    let read = |text: &str| yaml::mapping(shown, text, Code::FlowBadFlowFile, "`nodes: …`");
    let before = read(text)?;
    let has = |key: &str| before["environment"].get(key).is_some_and(|value| !value.is_null());
    let mut keys: Vec<(&str, String)> = Vec::new();
    keys.extend(wanted.image.map(|image| ("image", image.to_owned())));
    let requirements = wanted.requirements.clone().filter(|_| !has("python_requirements_txt"));
    keys.extend(requirements.map(|file| ("python_requirements_txt", file)));
    if keys.is_empty() {
        return Ok(text.to_owned());
    }
    let mut expected = before.clone();
    if !expected["environment"].is_object() {
        expected["environment"] = json!({});
    }
    for (key, value) in &keys {
        expected["environment"][key] = json!(value);
    }
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let after = set_keys(text, &keys, &before["environment"], end);
    if read(&after).is_ok_and(|after| after == expected) {
        return Ok(after);
    }
    let pairs: Vec<String> = keys
        .iter()
        .map(|(key, value)| format!("`{key}: {}`", scalar(value)))
        .collect();
    let message = format!(
        "{shown}: its environment is written in a way that cannot be changed by itself. Write {} below `environment:`, and migrate again.",
        pairs.join(" and ")
    );
    Err(Failure::new(Code::FlowBadFlowFile, message))
}

fn set_keys(text: &str, keys: &[(&str, String)], environment: &Value, end: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let pair = |indent: &str, key: &str, value: &str| format!("{indent}{key}: {}", scalar(value));
    let Some(at) = lines.iter().position(|line| line.starts_with("environment:")) else {
        lines.push("environment:".to_owned());
        lines.extend(keys.iter().map(|(key, value)| pair("  ", key, value)));
        return join_lines(&lines, end);
    };
    let is_below = |line: &String| line.starts_with([' ', '\t']) || line.trim().is_empty() || line.starts_with('#');
    let mut last = at + 1 + lines[at + 1..].iter().take_while(|line| is_below(line)).count();
    // What follows the last key belongs to what comes next.
    while last > at + 1 && !lines[last - 1].starts_with([' ', '\t']) {
        last -= 1;
    }
    let is_block = crate::requirements::without_comment(&lines[at]).trim_end() == "environment:";
    if !is_block {
        // `{image: x}` or nothing: the same as a block.
        let kept = environment.as_object().into_iter().flatten();
        let kept = kept.filter(|(key, _)| !keys.iter().any(|(new, _)| new == key));
        let mut block = vec!["environment:".to_owned()];
        block.extend(kept.map(|(key, value)| format!("  {key}: {value}")));
        block.extend(keys.iter().map(|(key, value)| pair("  ", key, value)));
        lines.splice(at..last, block);
        return join_lines(&lines, end);
    }
    let first = lines[at + 1..last]
        .iter()
        .find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let indent = first.map_or("  ".to_owned(), |line| {
        line[..line.len() - line.trim_start().len()].to_owned()
    });
    for (key, value) in keys {
        let is_key = |line: &String| {
            line.strip_prefix(&indent)
                .is_some_and(|line| line.starts_with(&format!("{key}:")))
        };
        match lines[at + 1..last].iter().position(is_key) {
            Some(found) => lines[at + 1 + found] = pair(&indent, key, value),
            None => {
                lines.insert(last, pair(&indent, key, value));
                last += 1;
            }
        }
    }
    join_lines(&lines, end)
}

fn join_lines(lines: &[String], end: &str) -> String {
    lines.iter().map(|line| format!("{line}{end}")).collect()
}

/// A text as YAML has it: bare where it cannot be taken for anything else.
fn scalar(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | ':' | '@' | '-');
    let is_bare =
        text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_plain) && !text.ends_with(':');
    if is_bare {
        text.to_owned()
    } else {
        json!(text).to_string()
    }
}
