//! The lineage of a flow by its repository: the same on every machine that has a clone of it.

use crate::{Code, Failure, folder::read_text};
use std::path::{Path, PathBuf};

/// The port of a scheme, which is left out of an address.
const PORTS: [(&str, &str); 4] = [("ssh", "22"), ("https", "443"), ("http", "80"), ("git", "9418")];

/// The lineage of the flow in `folder`: `git:HOST/PATH//FOLDER`, of the address of the remote
/// `origin` and the folder within the repository. No credential and no query of the address is in
/// it. No git program runs, and files that a configuration includes are not read.
///
/// * `folder`: canonical.
///
/// # Errors
///
/// `Flow.NoRepository`, final: the folder is in no repository, or its `origin` has no address that
/// means the same on every machine. `Flow.Unreadable`, `Flow.TooLarge`, final.
///
/// # Source
///
/// The published client's lineage of a flow: its repository with the relative path in it.
pub fn lineage(folder: &Path) -> Result<String, Failure> {
    let Some(root) = folder.ancestors().find(|above| above.join(".git").exists()) else {
        return Err(no_repository(folder, "it is in no git repository"));
    };
    let config = config_of(&root.join(".git"))?;
    let text = match config.exists() {
        true => read_text(&config, &config.display().to_string())?,
        false => String::new(),
    };
    let Some(url) = origin(&text) else {
        return Err(no_repository(folder, "its repository has no remote `origin`"));
    };
    let Some(address) = address(&url) else {
        let why = "the address of its remote `origin` is one of this machine alone, or has an `@` in its path";
        return Err(no_repository(folder, why));
    };
    let within = folder.strip_prefix(root).expect("the root is above the folder");
    Ok(match within.to_str() {
        Some("") => format!("git:{address}"),
        Some(within) => format!("git:{address}//{within}"),
        None => return Err(no_repository(folder, "its path is not UTF-8")),
    })
}

/// No address is in the text: it may have a credential in any place.
fn no_repository(folder: &Path, why: &str) -> Failure {
    let message = format!(
        "{} has no lineage of a repository: {why}. Give the repository a remote `origin` with an address of HTTPS or SSH, \
         or tell flows apart by their folders.",
        folder.display()
    );
    Failure::new(Code::FlowNoRepository, message)
}

/// The file of a repository's settings: of a linked work tree and of a submodule, `.git` is a file
/// that says where they are.
fn config_of(git: &Path) -> Result<PathBuf, Failure> {
    let first_line = |file: &Path| {
        let text = read_text(file, &file.display().to_string())?;
        Ok::<_, Failure>(text.lines().next().unwrap_or_default().trim().to_owned())
    };
    let mut folder = git.to_owned();
    if git.is_file() {
        let line = first_line(git)?;
        let written = line.strip_prefix("gitdir:").unwrap_or(&line).trim();
        folder = git.parent().unwrap_or(git).join(written);
    }
    let common = folder.join("commondir");
    if common.is_file() {
        folder = folder.join(first_line(&common)?);
    }
    Ok(folder.join("config"))
}

/// The first `url` of the section `[remote "origin"]`.
///
/// # Source
///
/// git-config(1), *Syntax*.
fn origin(config: &str) -> Option<String> {
    let mut is_origin = false;
    for line in config.lines() {
        let mut line = line.trim();
        if let Some((section, rest)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
            let (name, of) = section.split_once(char::is_whitespace).unwrap_or((section, ""));
            is_origin = name.eq_ignore_ascii_case("remote") && of.trim() == "\"origin\"";
            line = rest.trim();
        }
        if let Some((key, value)) = line.split_once('=')
            && is_origin
            && key.trim().eq_ignore_ascii_case("url")
        {
            return Some(value_of(value)).filter(|value| !value.is_empty());
        }
    }
    None
}

/// A value without its quotes and the comment behind it.
fn value_of(written: &str) -> String {
    let (mut value, mut is_quoted) = (String::new(), false);
    let mut signs = written.trim().chars();
    while let Some(sign) = signs.next() {
        match sign {
            '"' => is_quoted = !is_quoted,
            '\\' => value.extend(signs.next()),
            '#' | ';' if !is_quoted => break,
            sign => value.push(sign),
        }
    }
    value.trim_end().to_owned()
}

/// The host and the path of an address, the same in each of its forms: `https://host/a/b.git`,
/// `ssh://git@host:22/a/b`, `git@host:a/b`. `None` for a path of one machine, and for one in which
/// a credential may be.
fn address(url: &str) -> Option<String> {
    let (scheme, host, path) = match url.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.split(['?', '#']).next()?;
            let (authority, path) = rest.split_once('/')?;
            (scheme.trim_start_matches("git+"), authority, path)
        }
        // As `scp` has it. With a slash before the colon it is a path of this machine.
        None => {
            let (authority, path) = url.split_once(':')?;
            ("ssh", authority, path)
        }
    };
    let scheme = scheme.to_ascii_lowercase();
    let (_, default) = PORTS.iter().find(|(name, _)| *name == scheme)?;
    let host = host
        .rsplit_once('@')
        .map_or(host, |(_, host)| host)
        .to_ascii_lowercase();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host.as_str(), None),
    };
    let is_host = |sign: char| sign.is_ascii_alphanumeric() || "-._[]:".contains(sign);
    if name.is_empty() || !name.chars().all(is_host) || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let path = parts.join("/");
    let path = path.strip_suffix(".git").unwrap_or(&path).trim_end_matches('/');
    let is_bad = |sign: char| sign == '@' || sign.is_control() || sign.is_whitespace();
    if path.is_empty() || path.contains(is_bad) || parts.iter().any(|part| [".", ".."].contains(part)) {
        return None;
    }
    let port = port.filter(|port| port != default).map(|port| format!(":{port}"));
    Some(format!("{name}{}/{path}", port.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_an_address_is_the_same_and_none_has_a_credential() {
        for same in [
            "https://github.com/a/b",
            "https://github.com/a/b.git",
            "https://GitHub.com:443/a/b/",
            "https://ann:s3cret@github.com/a/b.git/",
            "https://x-access-token:s3cret@github.com/a/b?token=s3cret#s3cret",
            "https://ann:s3@cret@github.com/a/b",
            "http://github.com/a//b",
            "git://github.com/a/b.git",
            "ssh://git@github.com/a/b.git",
            "git+ssh://git@github.com:22/a/b",
            "git@github.com:a/b.git",
            "git@github.com:/a/b",
            "github.com:a/b",
        ] {
            assert_eq!(address(same).as_deref(), Some("github.com/a/b"), "{same}");
        }
        for (other, expected) in [
            ("ssh://git@host:2222/a/b", "host:2222/a/b"),
            ("https://[::1]:8443/a", "[::1]:8443/a"),
            ("https://[::1]/a", "[::1]/a"),
            ("git@host:group/sub/b.git", "host/group/sub/b"),
        ] {
            assert_eq!(address(other).as_deref(), Some(expected), "{other}");
        }
        for none in [
            "/srv/git/b.git",
            "../b.git",
            "./a:b",
            "file:///srv/b.git",
            "https://github.com",
            "https://github.com/",
            "https://host/.git",
            "https://ann:s3/cret@host/a",
            "https://ann:12/cret@host/a",
            "ann:s3cret@host:a/b",
            "https://host/a/../b",
            "https://host/a b",
            "ext::sh -c x",
        ] {
            assert_eq!(address(none), None, "{none}");
        }
    }

    #[test]
    fn the_address_of_origin_is_read_as_git_reads_it() {
        let of = |text: &str| origin(text).unwrap_or_default();
        assert_eq!(
            of("[remote \"origin\"]\n\turl = git@h:a/b\n\turl = other\n"),
            "git@h:a/b"
        );
        assert_eq!(of("[Remote \"origin\"] URL=\"git@h:a/b\" # ours\n"), "git@h:a/b");
        assert_eq!(of("[remote \"origin\"]\n; url = x\n[remote \"fork\"]\nurl = y\n"), "");
        assert_eq!(of("[remote \"Origin\"]\nurl = x\n[core]\nurl = y\n"), "");
        assert_eq!(of("[remote \"origin\"]\npushurl = x\nurl =\n"), "");
    }
}
