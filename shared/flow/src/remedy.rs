//! Remedies for lines of requirements that cannot be installed. A test performs each.

/// About a variable of a line.
///
/// * `option`: which option the line is, if it is one.
pub(crate) fn of_variable(variable: &str, option: Option<&str>, text: &str) -> String {
    let whose = format!("{variable} would be read from the environment variables of the installer.");
    let is_index = matches!(
        option,
        Some("-i" | "--index-url" | "--extra-index-url" | "-f" | "--find-links")
    );
    let account = account(text).filter(|account| account.contains("${"));
    match (account, is_index) {
        (Some(account), true) => {
            let written = text.replacen(account, "{private}", 1);
            format!("{whose} Write `{written}`, and keep the token for that host as the credential of a private feed.")
        }
        (Some(_), false) => format!(
            "{whose} A credential in the URL of a package would be kept in files. Publish the package to an index, name it by its name, \
             and add a line `--extra-index-url https://{{private}}@HOST/simple` for that index."
        ),
        (None, _) => format!("{whose} Write the value itself."),
    }
}

/// The account in the first URL of a text.
fn account(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest[..end].rsplit_once('@').map(|(account, _)| account)
}

/// About a package on the machine.
pub(crate) fn of_local(text: &str) -> String {
    let editable = text
        .split_once(' ')
        .filter(|(option, _)| matches!(*option, "-e" | "--editable"));
    if let Some((_, place)) = editable.filter(|(_, place)| place.contains("://") && !place.contains("file:")) {
        match (of_ssh(place), account(place)) {
            (Some(remedy), _) => return remedy,
            (None, None) => return format!("Write `{place}` without -e."),
            // The URL of a package has no credential.
            (None, Some(_)) => return "Publish the package to an index, and name it by its name.".to_owned(),
        }
    }
    let named = text.split_once('@').map(|(name, place)| (name.trim(), place.trim()));
    if let Some((name, place)) = named.filter(|(name, _)| !name.is_empty() && !name.contains(['/', ':', ' '])) {
        let is_list = place.starts_with("file:");
        if is_list && !place.ends_with(".whl") {
            return format!(
                "`pip freeze` writes such a path for what conda has installed. Write {name}, or {name}==VERSION with the version \
                 that `conda list` shows."
            );
        }
    }
    "Build the package in your image and set environment.image in the flow file, or publish it to an index.".to_owned()
}

/// About a package that is reached by SSH: the same by HTTPS. `None` for any other place.
pub(crate) fn of_ssh(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme.to_ascii_lowercase().as_str(), "ssh" | "git+ssh") {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, behind) = rest.split_at(end);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    // `host:path` is how SSH writes it; a port is SSH's own.
    let (host, path) = match host.split_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, behind.to_owned()),
        Some((host, path)) => (host, format!("/{path}{behind}")),
        None => (host, behind.to_owned()),
    };
    Some(format!(
        "Write git+https://{host}{path} if anybody may read it, else publish it to an index."
    ))
}
