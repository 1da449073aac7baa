//! The lock beside a project file: it holds the versions of what the project asks for.

use super::{Source, bad};
use crate::{Failure, folder::Folder, requirements::Line};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Lock {
    /// As `uv.lock` and `poetry.lock` call it, and `pylock.toml`.
    #[serde(default, alias = "packages")]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: Option<String>,
    /// Of `uv.lock`: where it is from.
    source: Option<BTreeMap<String, toml::Value>>,
    /// Of `uv.lock`, of a package that has several versions.
    #[serde(default, rename = "resolution-markers")]
    resolution_markers: Vec<String>,
    /// Of `pylock.toml`.
    marker: Option<String>,
    /// Of `poetry.lock`.
    markers: Option<toml::Value>,
}

/// The packages of the first lock file that exists.
///
/// # Source
///
/// `pylock.toml`: <https://packaging.python.org/en/latest/specifications/pylock-toml/>; the others
/// by what their tools write.
pub(super) fn constraints(folder: &Folder, names: &[&'static str]) -> Result<Vec<Line>, Failure> {
    for name in names {
        if let Some(source) = Source::find(folder, name)? {
            return read(&source);
        }
    }
    Ok(Vec::new())
}

fn read(source: &Source) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    let mut hold = |name: &str, specifier: &str, marker: &str| {
        let marker = match marker {
            "" => String::new(),
            marker => format!(" ; {marker}"),
        };
        lines.push(Line {
            constraint: true,
            ..source.line_of(1, format!("{name}{specifier}{marker}"))
        });
    };
    if source.name == "Pipfile.lock" {
        for (name, version) in of_pipenv(source)? {
            hold(&name, &version, "");
        }
        return Ok(lines);
    }
    let lock: Lock = source.toml()?;
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in &lock.package {
        *versions.entry(&package.name).or_default() += 1;
    }
    for package in &lock.package {
        let is_of_index = package.source.as_ref().is_none_or(|source| {
            source.contains_key("registry") || source.get("type").and_then(toml::Value::as_str) == Some("legacy")
        });
        let Some(version) = package.version.as_ref().filter(|_| is_of_index) else {
            continue;
        };
        let of_poetry = package.markers.as_ref().and_then(toml::Value::as_str);
        // Which extra asks for it, says nothing of its version.
        let of_poetry = of_poetry.filter(|marker| !marker.contains("extra"));
        let markers = package.resolution_markers.iter().chain(&package.marker);
        let markers: Vec<String> = markers
            .map(String::as_str)
            .chain(of_poetry)
            .map(|marker| format!("({marker})"))
            .collect();
        // Of several versions without a word on which is for whom none is held.
        if markers.is_empty() && versions.get(&*package.name).is_some_and(|count| *count > 1) {
            continue;
        }
        hold(&package.name, &format!("=={version}"), &markers.join(" or "));
    }
    Ok(lines)
}

/// The versions that pipenv has locked, of all categories.
fn of_pipenv(source: &Source) -> Result<BTreeMap<String, String>, Failure> {
    let lock: BTreeMap<String, serde_json::Value> = serde_json::from_str(&source.text).map_err(|error| {
        bad(format!(
            "{}:{}: it is no lock of pipenv's: {error}. Make it anew.",
            source.name,
            error.line()
        ))
    })?;
    let categories = lock.iter().filter(|(name, _)| *name != "_meta");
    let packages = categories.filter_map(|(_, packages)| packages.as_object()).flatten();
    let versions =
        packages.filter_map(|(name, package)| Some((name.clone(), package.get("version")?.as_str()?.to_owned())));
    Ok(versions.filter(|(_, version)| version.starts_with("==")).collect())
}
