//! Accounts at registries: those given to pfsession, then Docker's own.
//!
//! * `registries` in the state folder, for its owner alone: a line for each registry, with a space
//!   and `user:secret`.
//! * Docker's `config.json` (`DOCKER_CONFIG`, else `~/.docker`), with its credential helpers.
//!
//! An account that is read here goes to its registry, and to the service that this names for
//! tokens. It is in no row, log, argument or error.

use crate::{
    failure,
    program::{self, Fault},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::{Code, Failure};
use sandbox::owner_only;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The files in which accounts are looked for.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    own: Option<PathBuf>,
    docker: Option<PathBuf>,
}

/// A user and its secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) secret: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account(***)")
    }
}

impl Account {
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.user, self.secret)))
    }

    /// Whether the secret is a refresh token, which is exchanged for one that a registry takes.
    pub(crate) fn is_token(&self) -> bool {
        self.user == TOKEN_USER
    }
}

/// The user that credential helpers name where the secret is a refresh token.
const TOKEN_USER: &str = "<token>";

/// The longest time that a credential helper may take. It may ask a key store that is locked.
const HELPER_ANSWER: Duration = Duration::from_secs(30);

/// Docker's name of its own registry in `config.json`.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// The answer of a credential helper.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

fn wrong(message: String) -> Failure {
    failure(Code::ImageBadAccount, message)
}

impl Accounts {
    /// Those of a state folder, and those of this process's user.
    pub fn of(state: &Path) -> Self {
        let named = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
        Self {
            own: Some(file(state)),
            docker: named.or_else(home).map(|folder| folder.join("config.json")),
        }
    }

    /// The account at a registry, if there is one.
    ///
    /// # Errors
    ///
    /// `Image.BadAccount`. Final until that is put right.
    pub(crate) fn at(&self, registry: &str) -> Result<Option<Account>, Failure> {
        if let Some(own) = &self.own
            && let Some(found) = read(own)?.remove(registry)
        {
            return Ok(Some(found));
        }
        let Some(path) = &self.docker else { return Ok(None) };
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => {
                read.map_err(|error| wrong(format!("{} cannot be read: {error}. Put that right.", path.display())))?
            }
        };
        // What serde says could show a secret.
        let config: DockerConfig = serde_json::from_slice(&text).map_err(|_| {
            wrong(format!(
                "{} is not what Docker writes. Correct it, or name another folder in DOCKER_CONFIG.",
                path.display()
            ))
        })?;
        config.at(registry, path)
    }
}

impl DockerConfig {
    fn at(&self, registry: &str, path: &Path) -> Result<Option<Account>, Failure> {
        let key = if registry == "docker.io" { DOCKER_KEY } else { registry };
        if let Some(helper) = self.cred_helpers.get(registry).or(self.creds_store.as_ref())
            && let Some(found) = ask(helper, key)?
        {
            return Ok(Some(found));
        }
        let host = |key: &str| {
            let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
            rest.split('/').next().unwrap_or_default().to_owned()
        };
        let wanted = host(key);
        let Some(found) = self
            .auths
            .iter()
            .find(|(key, _)| host(key) == wanted)
            .map(|(_, found)| found)
        else {
            return Ok(None);
        };
        if let Some(token) = found.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Account {
                user: TOKEN_USER.into(),
                secret: token.clone(),
            }));
        }
        let Some(auth) = found.auth.as_ref().filter(|auth| !auth.is_empty()) else {
            return Ok(None);
        };
        let text = BASE64.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let account = text.and_then(|text| {
            let (user, secret) = text.split_once(':')?;
            Some(Account {
                user: user.into(),
                secret: secret.trim_end_matches('\0').into(),
            })
        });
        account.map(Some).ok_or_else(|| {
            wrong(format!(
                "The account of {registry} in {} is not what Docker writes. Log in anew: docker login {registry}",
                path.display()
            ))
        })
    }
}

/// Asks one of Docker's credential helpers. `None` if it has no account there.
fn ask(helper: &str, registry: &str) -> Result<Option<Account>, Failure> {
    let is_good = !helper.is_empty()
        && helper
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let program = format!("docker-credential-{helper}");
    let cannot = |why: String| {
        wrong(format!(
            "The credential helper {program} of Docker's config.json {why}. Install it, or put that right."
        ))
    };
    if !is_good {
        return Err(cannot("has a name that no helper has".into()));
    }
    let mut output = Vec::new();
    let ran = program::run(
        Command::new(&program).arg("get"),
        registry.as_bytes(),
        HELPER_ANSWER,
        &mut output,
    );
    let answer = ran.map_err(|fault| {
        cannot(match fault {
            Fault::Program(error) => format!("does not start: {error}"),
            Fault::Sink(error) => format!("cannot be read: {error}"),
            Fault::Silent => format!("said nothing for {} s, and was ended", HELPER_ANSWER.as_secs()),
        })
    })?;
    if !answer.status.success() {
        let is_none = String::from_utf8_lossy(&output).contains("credentials not found");
        return if is_none {
            Ok(None)
        } else {
            Err(cannot(format!("ended with {}", answer.status)))
        };
    }
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| cannot("answers what no helper answers".into()))?;
    Ok(Some(Account {
        user: answer.username,
        secret: answer.secret,
    }))
}

fn file(state: &Path) -> PathBuf {
    state.join("registries")
}

fn read(path: &Path) -> Result<BTreeMap<String, Account>, Failure> {
    let text = owner_only::read(path).map_err(wrong)?.unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let lines = lines.filter_map(|(registry, rest)| {
        let (user, secret) = rest.split_once(':')?;
        Some((
            registry.to_owned(),
            Account {
                user: user.into(),
                secret: secret.into(),
            },
        ))
    });
    Ok(lines.collect())
}

/// The registries that have an account in a state folder.
///
/// # Errors
///
/// `Image.BadAccount` if others may read the file. Final until that is put right.
pub fn registries(state: &Path) -> Result<Vec<String>, Failure> {
    Ok(read(&file(state))?.into_keys().collect())
}

/// Keeps an account in a state folder, or takes it away. Whether there was one.
///
/// # Errors
///
/// `Image.BadAccount`.
pub fn keep(state: &Path, registry: &str, account: Option<(&str, &str)>) -> Result<bool, Failure> {
    let path = file(state);
    let mut all = read(&path)?;
    let before = match account {
        Some((user, secret)) => {
            let is_odd = |c: char| c.is_whitespace() || c.is_control();
            let is_host = !registry.is_empty() && !registry.contains(['/', '@']) && !registry.contains(is_odd);
            if !is_host || user.is_empty() || user.contains(':') || user.contains(is_odd) {
                return Err(wrong(format!(
                    "{registry:?} is no registry's host, or the user has a colon, a space or a control character. Correct it."
                )));
            }
            if secret.is_empty() || secret.contains(char::is_control) {
                return Err(wrong(
                    "The password is empty, or has a control character. Give it on one line.".into(),
                ));
            }
            all.insert(
                registry.to_owned(),
                Account {
                    user: user.into(),
                    secret: secret.into(),
                },
            )
        }
        None => all.remove(registry),
    };
    let lines: String = all
        .iter()
        .map(|(registry, account)| format!("{registry} {}:{}\n", account.user, account.secret))
        .collect();
    owner_only::write(&path, &lines).map_err(|error| crate::io(&path, error))?;
    Ok(before.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_account_is_found_in_our_own_file_then_where_docker_keeps_it() {
        let place = tempfile::tempdir().unwrap();
        let docker = place.path().join("config.json");
        let auth = |text: &str| BASE64.encode(text);
        let text = serde_json::json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": auth("hub:a:b") },
            "ex.org:5000": { "auth": auth("ann:word") },
            "token.org": { "auth": auth("x:"), "identitytoken": "refresh" },
            "bad.org": { "auth": "***" },
        }});
        fs::write(&docker, text.to_string()).unwrap();
        let accounts = Accounts {
            own: Some(file(place.path())),
            docker: Some(docker),
        };
        let at = |registry: &str| {
            accounts
                .at(registry)
                .unwrap()
                .map(|account| (account.user, account.secret))
        };
        let pair = |user: &str, secret: &str| Some((user.to_owned(), secret.to_owned()));
        assert_eq!(at("docker.io"), pair("hub", "a:b"));
        assert_eq!(at("ex.org:5000"), pair("ann", "word"));
        assert_eq!(at("token.org"), pair("<token>", "refresh"));
        assert_eq!(at("ex.org"), None);
        let bad = accounts.at("bad.org").unwrap_err().to_string();
        assert!(
            bad.starts_with("Image.BadAccount: The account of bad.org in ") && !bad.contains("***"),
            "{bad}"
        );
        assert!(!keep(place.path(), "ex.org:5000", Some(("bob", "other:1"))).unwrap());
        assert_eq!(at("ex.org:5000"), pair("bob", "other:1"));
        let mode = fs::metadata(file(place.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(keep(place.path(), "ex.org:5000", None).unwrap());
        assert_eq!(at("ex.org:5000"), pair("ann", "word"));
        for (registry, user, secret) in [
            ("ex.org", "a", "b\nc"),
            ("ex.org", "a\nevil.org b", "c"),
            ("ex.org a:b\nevil.org", "a", "c"),
            ("ex.org\nevil.org", "a", "c"),
            ("", "a", "c"),
        ] {
            assert!(
                keep(place.path(), registry, Some((user, secret))).is_err(),
                "{registry:?}"
            );
        }
        assert_eq!(registries(place.path()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_credential_helper_that_is_not_there_is_named() {
        let failure = ask("pfsession-has-none", "ex.org").unwrap_err().to_string();
        assert!(
            failure.contains("docker-credential-pfsession-has-none of Docker's config.json does not start"),
            "{failure}"
        );
        let failure = ask("../evil", "ex.org").unwrap_err().to_string();
        assert!(failure.contains("has a name that no helper has"), "{failure}");
    }
}
