//! The places that single packages of a project come from: `[tool.uv.sources]`, and the sources of
//! Poetry and Pipenv.

use super::Source;
use crate::{
    Failure,
    requirements::{self, INDEX_OF, Line},
};
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, MarkerTree};
use std::collections::BTreeMap;
use toml::Value;

/// The URL of the index that Poetry and uv know by its name.
const PYPI: &str = "https://pypi.org/simple";

/// The places that are named, by the name of a package as an index has it.
#[derive(Default)]
pub(super) struct Places<'a> {
    /// With the name as it is written.
    packages: BTreeMap<String, (&'a str, &'a Value)>,
    /// The URLs of indexes by their names.
    indexes: BTreeMap<&'a str, &'a str>,
}

/// The part of a project that asks for a package.
#[derive(Clone, Copy, Default)]
pub(super) struct Part<'a> {
    pub(super) extra: Option<&'a str>,
    pub(super) group: Option<&'a str>,
}

impl<'a> Places<'a> {
    pub(super) fn add(&mut self, packages: &'a BTreeMap<String, Value>) {
        let named = packages.iter();
        self.packages
            .extend(named.filter_map(|(key, value)| Some((requirements::name_of(key)?, (key.as_str(), value)))));
    }

    pub(super) fn add_index(&mut self, name: &'a str, url: &'a str) {
        self.indexes.insert(name, url);
    }

    /// The line that has a package come from an index alone.
    ///
    /// * `key`: the package as it is written; `index`: the name of the index.
    pub(super) fn index_line(&self, source: &Source, key: &str, index: &str) -> Result<Line, Failure> {
        let is_pypi = index.eq_ignore_ascii_case("pypi");
        let url = self.indexes.get(index).copied().or(is_pypi.then_some(PYPI));
        let url = url.ok_or_else(|| {
            let index = crate::redact(index);
            source.refuse(
                key,
                &format!(
                    "comes from the index {index}, and the file has no index of that name. Add it, or correct the name."
                ),
            )
        })?;
        Ok(source.line(key, format!("{INDEX_OF} {key} {url}")))
    }

    /// A dependency with the place that the project names for it: a stranger's package of that name
    /// is never taken for it.
    pub(super) fn lines(&self, source: &Source, line: Line, part: Part<'_>) -> Result<Vec<Line>, Failure> {
        let named = requirements::name_of(&line.text).and_then(|name| self.packages.get(&name));
        let Some((key, value)) = named else {
            return Ok(vec![line]);
        };
        let entries = value.as_array().map_or(std::slice::from_ref(*value), Vec::as_slice);
        for entry in entries.iter().filter(|entry| !entry.is_str()) {
            if !is_of(entry, part) {
                continue;
            }
            match entry
                .get("marker")
                .or(entry.get("markers"))
                .and_then(Value::as_str)
                .map_or(Some(true), holds)
            {
                Some(true) => return self.line_from(source, key, entry, line),
                Some(false) => {}
                None => {
                    let why = "has a source for some Pythons or machines alone. Write a requirements.txt that says where it comes from.";
                    return Err(source.refuse(key, why));
                }
            }
        }
        Ok(vec![line])
    }

    fn line_from(&self, source: &Source, key: &str, entry: &Value, line: Line) -> Result<Vec<Line>, Failure> {
        if entry.get("path").is_some() || entry.get("file").is_some() || entry.get("workspace").is_some() {
            return Err(source.local(key));
        }
        let text = |part: &str| entry.get(part).and_then(Value::as_str);
        if let Some(index) = text("index").or_else(|| text("source")) {
            return Ok(vec![self.index_line(source, key, index)?, line]);
        }
        let is_archive_in_part = entry.get("url").is_some() && entry.get("subdirectory").is_some();
        match super::place(text).filter(|_| !is_archive_in_part) {
            Some(place) => Ok(vec![Line {
                text: at_place(&line.text, &place),
                ..line
            }]),
            // What Poetry's own table adds to a dependency of the project is no place.
            None if entry.get("version").is_some() || entry.get("optional").is_some() => Ok(vec![line]),
            None => {
                let why = "has a source in [tool.uv.sources] that is not supported: git, url, index. Write a requirements.txt that says where it \
                           comes from.";
                Err(source.refuse(key, why))
            }
        }
    }
}

/// Whether an entry is for the part that asks.
fn is_of(entry: &Value, part: Part<'_>) -> bool {
    let named = |key: &str| entry.get(key).and_then(Value::as_str).map(crate::normalize_name);
    let is_it = |wanted: Option<String>, given: Option<&str>| {
        wanted.is_none_or(|wanted| given.is_some_and(|given| crate::normalize_name(given) == wanted))
    };
    is_it(named("extra"), part.extra) && is_it(named("group"), part.group)
}

/// A requirement of a package at a place.
fn at_place(text: &str, place: &str) -> String {
    let (requirement, marker) = text.split_once(';').unwrap_or((text, ""));
    let name = requirement
        .split(['[', ' ', '<', '>', '=', '!', '~', '@', '('])
        .next()
        .unwrap_or_default();
    let extras = requirement
        .find('[')
        .zip(requirement.find(']'))
        .map_or("", |(from, to)| &requirement[from..=to]);
    let marker = match marker.trim() {
        "" => String::new(),
        marker => format!(" ; {marker}"),
    };
    format!("{name}{extras} @ {place}{marker}")
}

/// Whether a marker holds in a session, which is on Linux. `None` if that depends on the session.
fn holds(marker: &str) -> Option<bool> {
    const OF_ONE: [&str; 4] = [
        "python_full_version",
        "implementation_version",
        "platform_release",
        "platform_version",
    ];
    let tree: MarkerTree = marker.parse().ok()?;
    if OF_ONE.iter().any(|name| marker.contains(name)) {
        return None;
    }
    let sessions = (8..=20).flat_map(|minor| ["x86_64", "aarch64"].map(|machine| session(minor, machine)));
    let held: Vec<bool> = sessions
        .map(|session| Some(tree.evaluate(&session?, &[])))
        .collect::<Option<_>>()?;
    let first = held.first().copied()?;
    held.iter().all(|each| *each == first).then_some(first)
}

/// A session's Python.
fn session(minor: u32, machine: &str) -> Option<MarkerEnvironment> {
    let (version, full) = (format!("3.{minor}"), format!("3.{minor}.0"));
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: machine,
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: &version,
        sys_platform: "linux",
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn a_marker_holds_in_every_session_or_in_none_or_depends_on_the_session() {
        for (marker, expected) in [
            ("sys_platform == 'linux' or sys_platform == 'win32'", Some(true)),
            ("platform_system != 'Linux'", Some(false)),
            ("python_version >= '3.8'", Some(true)),
            ("python_version == '3.11'", None),
            ("platform_machine == 'x86_64'", None),
            ("python_full_version == '3.11.4'", None),
            ("nonsense", None),
        ] {
            assert_eq!(holds(marker), expected, "{marker}");
        }
    }
}
