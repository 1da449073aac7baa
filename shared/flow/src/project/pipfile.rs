//! `Pipfile`.

use super::{Source, locks, poetry};
use crate::{Failure, folder::Folder, requirements::Line};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Value;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    source: Vec<Feed>,
    #[serde(default)]
    packages: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Feed {
    url: String,
}

/// # Source
///
/// <https://pipenv.pypa.io/en/latest/pipfile.html>.
pub(super) fn lines(folder: &Folder, source: &Source) -> Result<Option<Vec<Line>>, Failure> {
    let file: File = source.toml()?;
    let mut lines = Vec::new();
    for (at, feed) in file.source.iter().enumerate() {
        let option = if at == 0 { "-i" } else { "--extra-index-url" };
        lines.push(source.line("url", format!("{option} {}", feed.url)));
    }
    for (name, value) in &file.packages {
        if let Some(text) = poetry::requirement(source, name, value)? {
            lines.push(source.line(name, text));
        }
    }
    lines.extend(locks::constraints(folder, &["Pipfile.lock"])?);
    Ok(Some(lines))
}
