//! `Pipfile`.

use super::{Source, bad, list_names, locks, places::Places, poetry};
use crate::{Failure, folder::Folder, normalize_name, requirements::Line};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Value;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    source: Vec<Feed>,
    /// `packages`, `dev-packages`, and categories of any name.
    #[serde(flatten)]
    tables: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Feed {
    url: String,
    name: Option<String>,
}

/// The tables that are no categories of packages.
const OTHERS: [&str; 4] = ["requires", "pipenv", "scripts", "source"];

/// The category that counts by itself.
pub(super) const DEFAULT: &str = "packages";

/// # Source
///
/// <https://pipenv.pypa.io/en/latest/pipfile.html>.
pub(super) fn lines(folder: &Folder, source: &Source) -> Result<Option<Vec<Line>>, Failure> {
    let file: File = source.toml()?;
    let mut lines = file.indexes(source);
    lines.extend(file.category(source, DEFAULT)?.unwrap_or_default());
    lines.extend(locks::constraints(folder, &["Pipfile.lock"])?);
    Ok(Some(lines))
}

/// The packages of a category, which `dev` may stand for `dev-packages`.
///
/// * `place`: where it is named.
pub(super) fn group(source: &Source, place: &str, name: &str) -> Result<Vec<Line>, Failure> {
    let file: File = source.toml()?;
    let wanted = if name == "dev" { "dev-packages" } else { name };
    let Some(found) = file.category(source, wanted)? else {
        let there = list_names(file.categories());
        return Err(bad(format!(
            "{place}: the Pipfile has no category {name}. {there}. Correct the name, or take it out."
        )));
    };
    let mut lines = file.indexes(source);
    lines.extend(found);
    Ok(lines)
}

impl File {
    fn indexes(&self, source: &Source) -> Vec<Line> {
        let options = std::iter::once("-i").chain(std::iter::repeat("--extra-index-url"));
        let indexes = self.source.iter().zip(options);
        indexes
            .map(|(feed, option)| source.line("url", format!("{option} {}", feed.url)))
            .collect()
    }

    fn categories(&self) -> impl Iterator<Item = &str> {
        let names = self
            .tables
            .iter()
            .filter(|(name, table)| table.is_table() && !OTHERS.contains(&name.as_str()));
        names.map(|(name, _)| name.as_str())
    }

    fn category(&self, source: &Source, name: &str) -> Result<Option<Vec<Line>>, Failure> {
        let mut names = self.categories();
        let Some(name) = names.find(|known| normalize_name(known) == normalize_name(name)) else {
            return Ok(None);
        };
        let mut places = Places::default();
        for feed in &self.source {
            if let Some(name) = &feed.name {
                places.add_index(name, &feed.url);
            }
        }
        let mut lines = Vec::new();
        for (name, value) in self.tables[name].as_table().into_iter().flatten() {
            lines.extend(poetry::requirement(source, &places, name, value, false)?);
        }
        Ok(Some(lines))
    }
}
