//! `setup.cfg` of setuptools.

use super::Source;
use crate::{Failure, folder::Folder, requirements::Line};

/// `None` if it lists no packages: then it is about something else.
///
/// # Source
///
/// <https://setuptools.pypa.io/en/latest/userguide/declarative_config.html>, `install_requires`.
pub(super) fn lines(_: &Folder, source: &Source) -> Result<Option<Vec<Line>>, Failure> {
    let (mut section, mut key, mut lines) = ("", "", None);
    for (at, raw) in source.text.lines().enumerate() {
        let text = raw.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        let is_more = raw.starts_with([' ', '\t']);
        let value = if text.starts_with('[') && !is_more {
            (section, key) = (text, "");
            continue;
        } else if is_more {
            text
        } else {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            key = name.trim();
            value.trim()
        };
        if (section, key) != ("[options]", "install_requires") {
            continue;
        }
        let lines: &mut Vec<Line> = lines.get_or_insert_default();
        if value.starts_with("file:") {
            let why =
                "names a file. Name that file requirements.txt, or write a requirements.txt with `-r` and its path.";
            return Err(source.refuse("install_requires", why));
        }
        for text in value.split(" #").take(1).map(str::trim).filter(|text| !text.is_empty()) {
            lines.push(Line {
                file: source.name.to_owned(),
                number: at + 1,
                text: text.to_owned(),
                constraint: false,
            });
        }
    }
    Ok(lines)
}
