//! The forms that a requirement may have beside a name and a version: URLs, paths, variables.

use std::str::FromStr;

/// Whether a place is on a network: it has a scheme, and that is not `file`.
pub(crate) fn is_remote(place: &str) -> bool {
    let scheme = place.split_once("://").map(|(scheme, _)| scheme).unwrap_or_default();
    let is_scheme = scheme
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    !scheme.is_empty() && is_scheme && !scheme.to_ascii_lowercase().ends_with("file")
}

/// Whether pip takes it for a path.
pub(crate) fn is_local(requirement: &str) -> bool {
    let path = requirement
        .split([';', ' ', '['])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let is_archive = [".whl", ".zip", ".tar", ".tgz", ".tbz", ".txz", ".tlz"]
        .iter()
        .any(|end| path.ends_with(end));
    is_archive
        || path.contains(".tar.")
        || path.starts_with(['.', '~'])
        || path.starts_with("file:")
        || path.contains(['/', '\\'])
}

/// The package that a URL without a name names: by `#egg=`, or by its file's or repository's name.
pub(crate) fn named_by(url: &str) -> Option<String> {
    let (path, fragment) = url.split_once('#').unwrap_or((url, ""));
    let egg = fragment.split('&').find_map(|part| part.strip_prefix("egg="));
    let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_file = [".whl", ".tar.gz", ".zip"].iter().any(|end| last.ends_with(end));
    let name = match egg {
        Some(egg) => egg.split(['[', '=']).next()?,
        None if last.ends_with(".whl") => last.split('-').next()?,
        // A source archive: `name-version.tar.gz`.
        None if is_file => last.rsplit_once('-').map_or(last, |(name, _)| name),
        None => last.split(['@', '.']).next()?,
    };
    pep508_rs::PackageName::from_str(name).ok().map(|name| name.to_string())
}

/// The first `${NAME}` of a line.
pub(crate) fn variable(text: &str) -> Option<&str> {
    let from = text.find("${")?;
    let to = from + text[from..].find('}')?;
    Some(&text[from..=to])
}
