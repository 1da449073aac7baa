//! The secrets of senders.

use crate::{
    global::Service,
    terminal::note,
    trouble::{Trouble, USAGE},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::Code;
use contract::webhook::{Rule, SenderKind};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A secret that somebody else made.
pub(super) fn given_secret(file: &Path, kind: SenderKind) -> Result<String, Box<Trouble>> {
    let text = if file == Path::new("-") {
        io::read_to_string(io::stdin())
    } else {
        fs::read_to_string(file)
    };
    let bad = |why: String| Trouble::new(USAGE, Code::WebhookBadSecret, why);
    let text = text.map_err(|cause| bad(format!("The secret cannot be read from {}: {cause}", file.display())))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    let is_good = match kind {
        SenderKind::Github => secret.len() >= 16,
        SenderKind::StandardWebhooks => {
            let key = secret.strip_prefix("whsec_").unwrap_or(secret);
            BASE64.decode(key).is_ok_and(|key| key.len() >= 16)
        }
    };
    if is_good {
        return Ok(secret.to_owned());
    }
    let why = match kind {
        SenderKind::Github => "It is shorter than 16 characters, which can be guessed",
        SenderKind::StandardWebhooks => "It is not whsec_ and base64 of 16 bytes or more",
    };
    Err(bad(format!("This is no good secret. {why}")).next("leave --secret-file out, and one is made"))
}

pub(super) fn new_secret(kind: SenderKind) -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    match kind {
        SenderKind::Github => hex::encode(bytes),
        SenderKind::StandardWebhooks => format!("whsec_{}", BASE64.encode(bytes)),
    }
}

/// The keeper of the secrets of senders.
pub(super) enum Secrets {
    /// In this file, by `workspace/sender`, the current one first.
    In(PathBuf),
    /// In the configuration of a service elsewhere.
    Elsewhere,
}

impl Secrets {
    pub(super) fn of(service: &Service) -> Result<Self, Box<Trouble>> {
        if service.global.endpoint.is_some() {
            return Ok(Self::Elsewhere);
        }
        Ok(Self::In(service.local()?.state.join(local::WEBHOOK_SECRETS)))
    }

    /// Gives a rule's sender a secret if it has none, or the one that was given. Gives back one
    /// that was made.
    pub(super) fn ensure(&self, workspace: &str, rule: &Rule, given: Option<String>) -> io::Result<Option<String>> {
        let address = format!("{workspace}/{}", rule.sender);
        match (self, given) {
            (Self::In(file), given) => {
                let mut made = None;
                change_file(file, |table| {
                    let known = table.entry(address).or_default();
                    match given {
                        Some(given) => {
                            known.retain(|one| *one != given);
                            known.insert(0, given);
                        }
                        None if known.is_empty() => {
                            let secret = new_secret(rule.kind);
                            known.push(secret.clone());
                            made = Some(secret);
                        }
                        None => {}
                    }
                    known.truncate(2);
                })?;
                Ok(made)
            }
            (Self::Elsewhere, Some(given)) => {
                self.say_where(workspace, &rule.sender, &given);
                Ok(None)
            }
            (Self::Elsewhere, None) => Ok(Some(new_secret(rule.kind))),
        }
    }

    /// Gives a sender a new secret beside the one that it has.
    pub(super) fn put(&self, workspace: &str, sender: &str, secret: &str) -> io::Result<()> {
        let Self::In(file) = self else { return Ok(()) };
        change_file(file, |table| {
            let known = table.entry(format!("{workspace}/{sender}")).or_default();
            known.insert(0, secret.to_owned());
            known.truncate(2);
        })
    }

    pub(super) fn forget(&self, workspace: &str, sender: &str) {
        match self {
            Self::In(file) => {
                let forgotten = change_file(file, |table| {
                    table.remove(&format!("{workspace}/{sender}"));
                });
                if let Err(cause) = forgotten {
                    note!("The secret of {sender} stays in {}: {cause}", file.display());
                }
            }
            Self::Elsewhere => note!("Take {workspace}/{sender} out of the service's webhook secrets."),
        }
    }

    pub(super) fn say_where(&self, workspace: &str, sender: &str, secret: &str) {
        if matches!(self, Self::Elsewhere) {
            note!(
                "It counts once the service's configuration (WebhookSecrets) has it, with the one before behind it if there is one:\n  {}",
                json!({ format!("{workspace}/{sender}"): [secret] })
            );
        }
    }

    pub(super) fn say_what_is_missing(&self) {
        if matches!(self, Self::In(_)) {
            note!(
                "The service listens on this machine alone: senders elsewhere need a tunnel to it. `pfsession up` keeps it running when no session is there."
            );
        }
    }
}

/// Changes the file with the secrets, which only its owner can read, whole or not at all.
fn change_file(file: &Path, how: impl FnOnce(&mut BTreeMap<String, Vec<String>>)) -> io::Result<()> {
    let private = |path: &Path| {
        let mut options = fs::OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600).open(path)
    };
    let lock = private(&file.with_extension("lock"))?;
    lock.lock()?;
    let mut table = match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|_| io::Error::other(format!("{} is not what it should be; move it away", file.display())))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(e) => return Err(e),
    };
    how(&mut table);
    let partial = file.with_extension("partial");
    let _ = fs::remove_file(&partial);
    let mut written = private(&partial)?;
    written.write_all(serde_json::to_string_pretty(&table)?.as_bytes())?;
    written.sync_all()?;
    fs::rename(&partial, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_sender_has_the_secret_before_the_last_rotation_and_none_before_it_and_only_the_owner_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("webhooks.json");
        let secrets = Secrets::In(file.clone());
        let rule: Rule = serde_json::from_value(json!({
            "name": "a", "sender": "acme", "kind": "github", "event": "push",
            "flow": { "workspace": "local", "owner": "ann", "lineage": "/a" }, "command": "install",
        }))
        .unwrap();
        let first = secrets.ensure("local", &rule, None).unwrap().expect("one is made");
        assert_eq!(secrets.ensure("local", &rule, None).unwrap(), None, "it is shown once");
        secrets.put("local", "acme", "second").unwrap();
        let stored = || -> BTreeMap<String, Vec<String>> { serde_json::from_slice(&fs::read(&file).unwrap()).unwrap() };
        assert_eq!(stored()["local/acme"], ["second".to_owned(), first]);
        secrets.put("local", "acme", "third").unwrap();
        assert_eq!(stored()["local/acme"], ["third", "second"]);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        secrets.forget("local", "acme");
        assert!(stored().is_empty());
        fs::write(&file, "not JSON").unwrap();
        assert!(
            secrets.put("local", "acme", "x").is_err(),
            "what is not understood is not written over"
        );
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let check = |text: &str, kind| {
            fs::write(&file, text).unwrap();
            given_secret(&file, kind).map_err(|trouble| trouble.failure.to_string())
        };
        assert_eq!(
            check("short\n", SenderKind::Github),
            Err(
                "Webhook.BadSecret: This is no good secret. It is shorter than 16 characters, which can be guessed"
                    .into()
            )
        );
        assert_eq!(
            check("a secret of some length\n", SenderKind::Github),
            Ok("a secret of some length".into())
        );
        assert_eq!(
            check("whsec_AAAA", SenderKind::StandardWebhooks),
            Err("Webhook.BadSecret: This is no good secret. It is not whsec_ and base64 of 16 bytes or more".into())
        );
        for kind in [SenderKind::Github, SenderKind::StandardWebhooks] {
            let made = new_secret(kind);
            assert_eq!(check(&made, kind), Ok(made));
        }
    }
}
