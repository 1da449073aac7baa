//! `[tool.poetry]` of `pyproject.toml`.

use super::{Source, bad, list_names, places::Places};
use crate::{Failure, normalize_name, requirements::Line};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Value;

#[derive(Deserialize)]
pub(super) struct Poetry {
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    source: Vec<Feed>,
    /// Names of optional dependencies.
    #[serde(default)]
    extras: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    group: BTreeMap<String, Group>,
    /// The group `dev`, as older versions have it.
    #[serde(default, rename = "dev-dependencies")]
    dev: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Feed {
    name: Option<String>,
    url: Option<String>,
    priority: Option<String>,
}

impl Poetry {
    /// The lines of its indexes.
    pub(super) fn indexes(&self, source: &Source) -> Vec<Line> {
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
        lines
    }

    /// Adds where it has single packages come from.
    pub(super) fn add_places<'a>(&'a self, places: &mut Places<'a>) {
        places.add(&self.dependencies);
        for feed in &self.source {
            if let (Some(name), Some(url)) = (&feed.name, &feed.url) {
                places.add_index(name, url);
            }
        }
    }

    /// * `extras`: the optional dependencies that are wanted too, by their names.
    ///
    /// # Source
    ///
    /// <https://python-poetry.org/docs/dependency-specification/>.
    pub(super) fn lines(&self, source: &Source, extras: &[&str]) -> Result<Vec<Line>, Failure> {
        let mut lines = self.indexes(source);
        lines.extend(self.table(source, &self.dependencies, extras)?);
        Ok(lines)
    }

    fn table(&self, source: &Source, table: &BTreeMap<String, Value>, optional: &[&str]) -> Result<Vec<Line>, Failure> {
        let mut places = Places::default();
        self.add_places(&mut places);
        let mut lines = Vec::new();
        for (name, value) in table.iter().filter(|(name, _)| *name != "python") {
            let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let is_wanted = optional
                .iter()
                .any(|wanted| normalize_name(wanted) == normalize_name(name));
            for value in several {
                lines.extend(requirement(source, &places, name, value, is_wanted)?);
            }
        }
        Ok(lines)
    }

    /// The requirements with some extras.
    ///
    /// * `place`: where they are named.
    pub(super) fn own(&self, source: &Source, place: &str, extras: &[&str]) -> Result<Vec<Line>, Failure> {
        let mut optional = Vec::new();
        for extra in extras {
            let wanted = normalize_name(extra);
            let found = self.extras.iter().find(|(name, _)| normalize_name(name) == wanted);
            let Some((_, names)) = found else {
                let there = list_names(self.extras.keys().map(String::as_str));
                return Err(bad(format!(
                    "{place}: the project has no extra {extra}. {there}. Correct the line, or take the extra out."
                )));
            };
            optional.extend(names.iter().map(String::as_str));
        }
        self.lines(source, &optional)
    }

    /// The requirements of a group. `None` if there is none of that name.
    pub(super) fn group(&self, source: &Source, name: &str) -> Result<Option<Vec<Line>>, Failure> {
        let found = self.group.iter().find(|(known, _)| normalize_name(known) == name);
        let table = match found {
            Some((_, group)) => &group.dependencies,
            None if name == "dev" && !self.dev.is_empty() => &self.dev,
            None => return Ok(None),
        };
        self.table(source, table, &[]).map(Some)
    }

    /// The names of its groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        let dev = (!self.dev.is_empty()).then_some("dev");
        self.group.keys().map(String::as_str).chain(dev)
    }
}

/// The lines of a requirement; none for what is optional and not wanted.
pub(super) fn requirement(
    source: &Source,
    places: &Places<'_>,
    name: &str,
    value: &Value,
    is_wanted: bool,
) -> Result<Vec<Line>, Failure> {
    let part = |part: &str| value.get(part).and_then(Value::as_str);
    if value.get("optional").and_then(Value::as_bool) == Some(true) && !is_wanted {
        return Ok(Vec::new());
    }
    if value.get("path").is_some() || value.get("file").is_some() {
        return Err(source.local(name));
    }
    let index = part("source").or_else(|| part("index"));
    let mut lines: Vec<Line> = index
        .map(|index| places.index_line(source, name, index))
        .transpose()?
        .into_iter()
        .collect();
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
        lines.push(source.line(name, format!("{name}{extras} @ {place}{marker}")));
        return Ok(lines);
    }
    let version = value.as_str().or(part("version")).unwrap_or("*");
    let version = specifier(version).ok_or_else(|| {
        let why = format!("has the version {version}, which is not supported. Write it as in >=1.2,<2.");
        source.refuse(name, &why)
    })?;
    lines.push(source.line(name, format!("{name}{extras}{version}{marker}")));
    Ok(lines)
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
