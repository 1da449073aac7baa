//! `[tool.poetry]` of `pyproject.toml`.

use super::Source;
use crate::{Failure, requirements::Line};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Value;

#[derive(Deserialize)]
pub(super) struct Poetry {
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    source: Vec<Feed>,
}

#[derive(Deserialize)]
struct Feed {
    url: Option<String>,
    priority: Option<String>,
}

impl Poetry {
    /// # Source
    ///
    /// <https://python-poetry.org/docs/dependency-specification/>.
    pub(super) fn lines(&self, source: &Source) -> Result<Vec<Line>, Failure> {
        let mut lines = Vec::new();
        for feed in &self.source {
            let option = match feed.priority.as_deref() {
                Some("explicit") => continue,
                Some("primary" | "default") | None => "-i",
                Some(_) => "--extra-index-url",
            };
            if let Some(url) = &feed.url {
                lines.push(source.line("url", format!("{option} {url}")));
            }
        }
        for (name, value) in self.dependencies.iter().filter(|(name, _)| *name != "python") {
            let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in several {
                if let Some(text) = requirement(source, name, value)? {
                    lines.push(source.line(name, text));
                }
            }
        }
        Ok(lines)
    }
}

/// `None` for what is optional, and so belongs to an extra.
pub(super) fn requirement(source: &Source, name: &str, value: &Value) -> Result<Option<String>, Failure> {
    let part = |part: &str| value.get(part).and_then(Value::as_str);
    if value.get("path").is_some() || value.get("file").is_some() {
        return Err(source.local(name));
    }
    if value.get("optional").and_then(Value::as_bool) == Some(true) {
        return Ok(None);
    }
    if value.get("source").is_some() || value.get("index").is_some() {
        let why = "comes from an index of its own. Write a requirements.txt with --extra-index-url.";
        return Err(source.refuse(name, why));
    }
    let extras: Vec<&str> = value
        .get("extras")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let extras = if extras.is_empty() {
        String::new()
    } else {
        format!("[{}]", extras.join(","))
    };
    let marker = part("markers").map(|marker| format!(" ; {marker}")).unwrap_or_default();
    if part("python").is_some() || part("platform").is_some() {
        let why = "is for some Pythons or platforms alone. Say it by `markers`.";
        return Err(source.refuse(name, why));
    }
    if let Some(place) = super::place(part) {
        return Ok(Some(format!("{name}{extras} @ {place}{marker}")));
    }
    let version = value.as_str().or(part("version")).unwrap_or("*");
    let version = specifier(version).ok_or_else(|| {
        let why = format!("has the version {version}, which is not supported. Write it as in >=1.2,<2.");
        source.refuse(name, &why)
    })?;
    Ok(Some(format!("{name}{extras}{version}{marker}")))
}

/// A version constraint of Poetry's as PEP 440 has it.
pub(super) fn specifier(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let parts = parts.into_iter().map(|part| {
        let numbers =
            |version: &str| -> Option<Vec<u64>> { version.trim().split('.').map(|part| part.parse().ok()).collect() };
        let below = |version: &str, at: usize| -> Option<String> {
            let mut numbers = numbers(version)?;
            numbers.truncate(at + 1);
            *numbers.get_mut(at)? += 1;
            Some(numbers.iter().map(u64::to_string).collect::<Vec<_>>().join("."))
        };
        if part == "*" {
            return Some(String::new());
        }
        if let Some(version) = part.strip_prefix('^') {
            // The first number that is not zero stays.
            let all = numbers(version)?;
            let at = all.iter().position(|number| *number != 0).unwrap_or(all.len() - 1);
            return Some(format!(">={},<{}", version.trim(), below(version, at)?));
        }
        if let Some(version) = part.strip_prefix('~').filter(|version| !version.starts_with('=')) {
            let at = usize::from(numbers(version)?.len() > 1);
            return Some(format!(">={},<{}", version.trim(), below(version, at)?));
        }
        let is_operator = part.starts_with(['<', '>', '=', '!', '~']);
        if part.contains(['|', ' ', '^']) && !is_operator || part.contains('|') {
            return None;
        }
        Some(match is_operator {
            true => part.to_owned(),
            false => format!("=={part}"),
        })
    });
    let parts = parts.collect::<Option<Vec<_>>>()?;
    Some(
        parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(","),
    )
}

#[cfg(test)]
mod tests {
    use super::specifier;

    #[test]
    fn a_version_of_poetrys_means_what_poetry_takes_it_for() {
        for (written, means) in [
            ("*", Some("")),
            ("^1.2.3", Some(">=1.2.3,<2")),
            ("^0.2.3", Some(">=0.2.3,<0.3")),
            ("^0.0.3", Some(">=0.0.3,<0.0.4")),
            ("^0", Some(">=0,<1")),
            ("~1.2.3", Some(">=1.2.3,<1.3")),
            ("~1", Some(">=1,<2")),
            ("1.2.3", Some("==1.2.3")),
            ("1.2.*", Some("==1.2.*")),
            (">=1.2, <2.0", Some(">=1.2,<2.0")),
            ("~=1.2", Some("~=1.2")),
            ("^1.0 || ^2.0", None),
            ("^1.0a1", None),
        ] {
            assert_eq!(specifier(written).as_deref(), means, "{written}");
        }
    }
}
