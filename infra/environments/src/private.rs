//! The credentials of private package feeds: what `{private}` in the URL of an index stands for on
//! this machine.
//!
//! `private-feeds` in the state folder, for its owner alone, has a line for each feed: its host, a
//! space, and the token or `user:token`. A token goes to the host that it was given for and to no
//! other, whatever a requirements file says. It is read when packages are installed, and is then in
//! the memory of the agent alone: its broker adds it to requests.

use broker::Credential;
use contract::{Code, Failure};
use sandbox::owner_only;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};
use url::Url;

/// The placeholder of the credential in a requirements file.
///
/// # Source
///
/// "Add `{private}` to your private feed URL" (the specification, *Add packages in a private feed
/// in Azure DevOps*).
pub(crate) const PLACEHOLDER: &str = "{private}";

/// The user name that goes with a token alone; feeds take any.
const USER: &str = "pfsession";

/// The credentials of one state folder, by host (with its port, if the feed's URL has one).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Feeds(BTreeMap<String, String>);

fn file(state: &Path) -> PathBuf {
    state.join("private-feeds")
}

impl Feeds {
    /// Reads them. None is none.
    ///
    /// # Errors
    ///
    /// `Install.PrivateFeed` if others may read the file too, or it cannot be read. Final until
    /// that is put right.
    pub fn read(state: &Path) -> Result<Self, Failure> {
        let Some(text) = owner_only::read(&file(state)).map_err(|why| Failure::new(Code::InstallPrivateFeed, why))?
        else {
            return Ok(Self::default());
        };
        let feeds = text.lines().filter_map(|line| line.trim().split_once(' '));
        Ok(Self(
            feeds
                .map(|(host, token)| (host.to_ascii_lowercase(), token.trim().to_owned()))
                .collect(),
        ))
    }

    /// The hosts that have one.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Sets the credential of a host, or takes it away. Whether it had one.
    pub fn set(&mut self, host: &str, token: Option<&str>) -> bool {
        let host = host.to_ascii_lowercase();
        match token {
            Some(token) => self.0.insert(host, token.to_owned()).is_some(),
            None => self.0.remove(&host).is_some(),
        }
    }

    /// Writes them, for their owner alone.
    ///
    /// # Errors
    ///
    /// An error of the file system.
    pub fn write(&self, state: &Path) -> io::Result<()> {
        let lines = self.0.iter().map(|(host, token)| format!("{host} {token}\n"));
        owner_only::write(&file(state), &lines.collect::<String>())
    }

    /// The URL of an index that has `{private}` in it, and the credential that this stands for.
    ///
    /// * `place`: the line that has it, for messages.
    ///
    /// # Errors
    ///
    /// `Install.PrivateFeed`, with what to do.
    pub(crate) fn place(&self, url: &str, place: &str) -> Result<(Url, Option<Credential>), Failure> {
        let wrong = |why: String| Failure::new(Code::InstallPrivateFeed, format!("{place}: {why}"));
        let rest = url.split_once("://").and_then(|(scheme, rest)| {
            let rest = rest.strip_prefix(PLACEHOLDER)?.strip_prefix('@')?;
            Some((scheme, rest))
        });
        let Some((scheme, rest)) = rest.filter(|(_, rest)| !rest.contains(PLACEHOLDER)) else {
            return Err(wrong(
                "{private} stands right before the host of an index alone. Write it as https://{private}@host/path."
                    .into(),
            ));
        };
        let host = rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())].to_ascii_lowercase();
        let is_here = ["127.0.0.1", "localhost"].contains(&host.split(':').next().unwrap_or_default());
        if !scheme.eq_ignore_ascii_case("https") && !is_here {
            return Err(wrong(format!(
                "the credential of {host} would go over the network in the clear. Write https:// in place of {scheme}://."
            )));
        }
        let token = self.0.get(&host).ok_or_else(|| {
            wrong(format!(
                "{PLACEHOLDER} stands for the credential of {host}, and none was given here. Give it: pfsession private {host} < a file with \
                 the token, and start again."
            ))
        })?;
        let (user, secret) = token.split_once(':').unwrap_or((USER, token));
        let url = Url::parse(&format!("{scheme}://{rest}")).ok();
        let url = url.filter(|url| {
            matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
        });
        let url = url.ok_or_else(|| wrong(format!("{scheme}://{rest} is no URL of an index. Correct it.")))?;
        let credential = Credential {
            user: user.to_owned(),
            secret: secret.to_owned(),
        };
        Ok((url, Some(credential)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn feeds(of: &[(&str, &str)]) -> Feeds {
        let mut feeds = Feeds::default();
        for (host, token) in of {
            feeds.set(host, Some(token));
        }
        feeds
    }

    #[test]
    fn a_credential_goes_to_its_own_host_and_no_other() {
        let feeds = feeds(&[("Feed.example", "to/k en"), ("other.example:8443", "me:word")]);
        let filled = |url: &str| feeds.place(url, "requirements.txt:1");
        let good = [
            (
                "https://{private}@feed.example/simple",
                ("https://feed.example/simple", "pfsession", "to/k en"),
            ),
            (
                "https://{private}@other.example:8443/a?b",
                ("https://other.example:8443/a?b", "me", "word"),
            ),
        ];
        for (url, expected) in good {
            let (url, credential) = filled(url).unwrap();
            let credential = credential.unwrap();
            assert_eq!((url.as_str(), &*credential.user, &*credential.secret), expected);
        }
        let bad = [
            (
                "https://{private}@evil.example/simple",
                "pfsession private evil.example",
            ),
            (
                "https://{private}@feed.example:444/simple",
                "pfsession private feed.example:444",
            ),
            ("http://{private}@feed.example/simple", "in the clear"),
            ("https://feed.example/{private}/simple", "right before the host"),
            (
                "https://{private}@feed.example@evil.example/",
                "pfsession private feed.example@evil.example",
            ),
            ("https://{private}@feed.example/{private}", "right before the host"),
        ];
        for (url, said) in bad {
            let failure = filled(url).unwrap_err();
            assert!(
                failure.error == Code::InstallPrivateFeed && failure.message.contains(said),
                "{url}: {failure}"
            );
            assert!(!failure.message.contains("to/k en"), "{failure}");
        }
        assert_eq!(
            filled("https://{private}@evil.example/simple").unwrap_err().to_string(),
            "Install.PrivateFeed: requirements.txt:1: {private} stands for the credential of evil.example, and none was given here. Give it: \
             pfsession private evil.example < a file with the token, and start again."
        );
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_is_refused_if_it_is_not() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Feeds::read(state.path()).unwrap().hosts().count(), 0);
        feeds(&[("feed.example", "word")]).write(state.path()).unwrap();
        let path = state.path().join("private-feeds");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            Feeds::read(state.path()).unwrap().hosts().collect::<Vec<_>>(),
            ["feed.example"]
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = Feeds::read(state.path()).err().unwrap();
        assert!(
            failure.error == Code::InstallPrivateFeed && failure.message.contains("chmod 600"),
            "{failure}"
        );
    }
}
