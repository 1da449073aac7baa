//! Rules for events of other services: `pfsession webhook`.
//!
//! The rules are the service's, and read and written whole. The secrets are not: on this machine they are in a file of the state folder, for its
//! owner alone; elsewhere they are in the service's own configuration, and this command prints what belongs there.

use crate::{
    args::{self, Event, Then},
    client::{Client, User},
    commands::Service,
    show, snapshot,
    terminal::note,
    text::{home, out, out_as_said, out_json},
    trouble::{FAILED, NONE, Trouble, USAGE},
    wish::{self, Flow},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::{
    command::{RunWish, Wish},
    webhook::{Filter, Rule, SenderKind, Webhooks},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// How often rules that somebody else changes meanwhile are read again.
const TRIES: usize = 5;

type Done = Result<u8, Box<Trouble>>;

/// Does what was typed. Gives back the exit code.
pub(crate) fn execute(service: &Service, typed: &args::Webhook) -> Done {
    let client = service.client()?;
    let json = service.global.json;
    match typed {
        args::Webhook::Add(add) => added(&client, &Secrets::of(service)?, add, json),
        args::Webhook::List => listed(&client, json),
        args::Webhook::Remove { name } => removed(&client, &Secrets::of(service)?, name),
        args::Webhook::Rotate { sender } => rotated(&client, &Secrets::of(service)?, sender, json),
    }
}

fn path_of(user: &User) -> String {
    let workspace = contract::http::encoded(&user.workspace);
    format!("/v1/workspaces/{workspace}/webhooks")
}

fn read(client: &Client) -> Result<Webhooks, Box<Trouble>> {
    client.get(&path_of(&client.user))
}

/// Reads the rules, changes them, and writes them, anew when somebody else was faster.
fn change(client: &Client, how: impl Fn(&mut Vec<Rule>) -> Result<(), Box<Trouble>>) -> Result<Webhooks, Box<Trouble>> {
    for tried in 1.. {
        let mut webhooks = read(client)?;
        how(&mut webhooks.rules)?;
        webhooks.address = None;
        match client.put(&path_of(&client.user), &webhooks) {
            Err(trouble) if trouble.failure.error == "Webhook.Changed" && tried < TRIES => {}
            done => return done,
        }
    }
    unreachable!("the last try is given back")
}

fn added(client: &Client, secrets: &Secrets, add: &args::AddWebhook, json: bool) -> Done {
    let flow = wish::flow_at(&add.flow, &client.user)?;
    let mut rule = rule_of(add, &flow)?;
    if let Wish::Run { run, .. } = &mut rule.wish {
        snapshot::seen_data(client, &flow, run)?;
    }
    let Webhooks { address, .. } = change(client, |rules| push(rules, &rule))?;
    let address = format!("{}{}", address.unwrap_or_default(), rule.sender);
    let given = add
        .secret_file
        .as_deref()
        .map(|file| given_secret(file, rule.kind))
        .transpose()?;
    let made = secrets.ensure(&client.user.workspace, &rule, given).map_err(|cause| {
        Trouble::new(
            FAILED,
            "Webhook.NoSecret",
            format!("The secret of {} cannot be kept: {cause}", rule.sender),
        )
        .next(format!(
            "put that right, then: pfsession webhook rotate {}",
            rule.sender
        ))
    })?;
    if json {
        out_json(&json!({ "rule": rule, "address": address, "secret": made }));
        return Ok(0);
    }
    note!("{}: {}.", rule.name, show::rule(&rule, home().as_deref()));
    out_as_said(&format!("address   {address}"));
    match &made {
        Some(secret) => {
            out_as_said(&format!("secret    {secret}"));
            note!("{}", how_to_set(rule.kind));
            secrets.say_where(&client.user.workspace, &rule.sender, secret);
        }
        None if add.secret_file.is_some() => note!("The secret is the one of the file."),
        None => note!("{} has its secret already.", rule.sender),
    }
    secrets.say_what_is_missing();
    Ok(0)
}

/// Adds a rule to those that there are.
fn push(rules: &mut Vec<Rule>, rule: &Rule) -> Result<(), Box<Trouble>> {
    match rules.iter().find(|there| there.name == rule.name) {
        // It was written, and the answer was lost.
        Some(there)
            if *there
                == Rule {
                    by: there.by.clone(),
                    ..rule.clone()
                } => {}
        Some(_) => {
            let message = format!("There is a webhook {} already", rule.name);
            return Err(Trouble::new(USAGE, "Webhook.Exists", message).next(format!(
                "choose another --name, or: pfsession webhook remove {}",
                rule.name
            )));
        }
        None if rules
            .iter()
            .any(|there| there.sender == rule.sender && there.kind != rule.kind) =>
        {
            let message = format!(
                "The sender {} signs in another way, as another webhook says",
                rule.sender
            );
            return Err(
                Trouble::new(USAGE, "Webhook.OtherKind", message).next("name the sender otherwise: --from NAME")
            );
        }
        None => rules.push(rule.clone()),
    }
    Ok(())
}

fn how_to_set(kind: SenderKind) -> &'static str {
    match kind {
        SenderKind::Github => {
            "This secret is not shown again. In the repository's settings, under Webhooks: the address as payload URL, application/json as content type, the secret, and the event."
        }
        SenderKind::StandardWebhooks => {
            "This secret is not shown again. Give the sender the address and the secret; a sender that made one itself has it read from --secret-file."
        }
    }
}

fn listed(client: &Client, json: bool) -> Done {
    let webhooks = read(client)?;
    if json {
        out_json(&webhooks);
    } else if webhooks.rules.is_empty() {
        note!("There is no webhook. Add one: pfsession webhook add --help");
    } else {
        out(&show::rules(&webhooks.rules, home().as_deref()));
        note!("Senders send to {}<FROM>", webhooks.address.unwrap_or_default());
    }
    Ok(0)
}

fn removed(client: &Client, secrets: &Secrets, name: &str) -> Done {
    let before = read(client)?.rules.into_iter().find(|rule| rule.name == name);
    let Some(before) = before else {
        return Err(
            Trouble::new(NONE, "Webhook.None", format!("There is no webhook {name}"))
                .next("see what there is: pfsession webhook list"),
        );
    };
    let after = change(client, |rules| {
        rules.retain(|rule| rule.name != name);
        Ok(())
    })?;
    if !after.rules.iter().any(|rule| rule.sender == before.sender) {
        secrets.forget(&client.user.workspace, &before.sender);
    }
    note!("The webhook {name} is gone.");
    Ok(0)
}

fn rotated(client: &Client, secrets: &Secrets, sender: &str, json: bool) -> Done {
    let rule = read(client)?.rules.into_iter().find(|rule| rule.sender == sender);
    let Some(rule) = rule else {
        return Err(
            Trouble::new(NONE, "Webhook.None", format!("No webhook is from {sender}"))
                .next("see what there is: pfsession webhook list"),
        );
    };
    let secret = new_secret(rule.kind);
    secrets.put(&client.user.workspace, sender, &secret).map_err(|cause| {
        Trouble::new(
            FAILED,
            "Webhook.NoSecret",
            format!("The secret of {sender} cannot be kept: {cause}"),
        )
        .next("put that right, and try again")
    })?;
    if json {
        out_json(&json!({ "sender": sender, "secret": secret }));
    } else {
        out_as_said(&format!("secret    {secret}"));
        note!(
            "The one before is good until the next rotation. {}",
            how_to_set(rule.kind)
        );
        secrets.say_where(&client.user.workspace, sender, &secret);
    }
    Ok(0)
}

/// The rule that was typed.
fn rule_of(add: &args::AddWebhook, flow: &Flow) -> Result<Rule, Box<Trouble>> {
    let kind = match (add.kind, &add.on) {
        (Some(kind), _) => kind.into(),
        (None, Event::Github(_)) => SenderKind::Github,
        (None, Event::Other(name)) => {
            let message = format!("{name} is no event that this command knows of GitHub");
            return Err(Trouble::new(USAGE, "Webhook.NoKind", message)
                .next("say who sends it: --kind github or --kind standard-webhooks"));
        }
    };
    let event = add.on.name().to_owned();
    let word = |kind: SenderKind| match kind {
        SenderKind::Github => "github",
        SenderKind::StandardWebhooks => "sender",
    };
    let name = add
        .name
        .clone()
        .unwrap_or_else(|| flow.rule_name(&event, add.then.word()));
    let paths = if add.path.is_empty() && event == "push" && kind == SenderKind::Github {
        own_paths(Path::new(&flow.reference.lineage), add.then)
    } else {
        add.path.clone()
    };
    Ok(Rule {
        name,
        sender: add.from.clone().unwrap_or_else(|| word(kind).to_owned()),
        kind,
        event,
        only: Filter {
            repository: add.repository.clone(),
            branch: add.branch.clone(),
            tag: add.tag.clone(),
            environment: add.environment.clone(),
            paths,
        },
        flow: flow.reference.clone(),
        by: None,
        wish: wish_of(add)?,
    })
}

fn wish_of(add: &args::AddWebhook) -> Result<Wish, Box<Trouble>> {
    Ok(match add.then {
        Then::Install => Wish::Install {
            settings: None,
            lock: None,
        },
        Then::Start => Wish::Start {
            settings: add.wants.wanted(),
        },
        Then::Reset => Wish::Reset {
            settings: None,
            resolve: false,
        },
        Then::Stop => Wish::Stop,
        Then::Run => Wish::Run {
            settings: add.wants.wanted(),
            run: RunWish {
                data: add.data.as_deref().map(wish::data_file).transpose()?,
                inputs: add.inputs.iter().cloned().collect(),
                ..RunWish::default()
            },
        },
    })
}

/// The files that a push is to touch, by their paths in the repository: for an install, those that say what is installed; else the flow's folder.
/// None if the flow is in no repository, or has nothing to install.
fn own_paths(lineage: &Path, then: Then) -> Vec<String> {
    let root = flow::include_root(lineage);
    let in_repository = |path: PathBuf| {
        let canonical = fs::canonicalize(path).ok()?;
        Some(canonical.strip_prefix(&root).ok()?.to_str()?.to_owned())
    };
    if !root.join(".git").exists() {
        return Vec::new();
    }
    if !matches!(then, Then::Install) {
        return in_repository(lineage.to_owned())
            .filter(|path| !path.is_empty())
            .into_iter()
            .collect();
    }
    let requirements = flow::environment(lineage, &root)
        .ok()
        .and_then(|environment| environment.requirements);
    let named = requirements.iter().flat_map(|requirements| {
        let lines = requirements.lines.iter().map(|line| lineage.join(&line.file));
        lines.chain([requirements.file.clone()])
    });
    let flow_file = flow::kind(lineage)
        .ok()
        .and_then(|kind| Some(lineage.join(kind.file()?)));
    let paths: BTreeSet<String> = named.chain(flow_file).filter_map(in_repository).collect();
    paths.into_iter().collect()
}

/// A secret that somebody else made.
fn given_secret(file: &Path, kind: SenderKind) -> Result<String, Box<Trouble>> {
    let text = if file == Path::new("-") {
        io::read_to_string(io::stdin())
    } else {
        fs::read_to_string(file)
    };
    let bad = |why: String| Trouble::new(USAGE, "Webhook.BadSecret", why);
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

fn new_secret(kind: SenderKind) -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    match kind {
        SenderKind::Github => hex::encode(bytes),
        SenderKind::StandardWebhooks => format!("whsec_{}", BASE64.encode(bytes)),
    }
}

/// Where the secrets of senders are kept.
enum Secrets {
    /// In this file, by `workspace/sender`, the current one first.
    In(PathBuf),
    /// In the configuration of a service elsewhere.
    Elsewhere,
}

impl Secrets {
    fn of(service: &Service) -> Result<Self, Box<Trouble>> {
        if service.global.endpoint.is_some() {
            return Ok(Self::Elsewhere);
        }
        Ok(Self::In(service.local()?.state.join(local::WEBHOOK_SECRETS)))
    }

    /// Gives a rule's sender a secret if it has none, or the one that was given. Gives back one that was made.
    fn ensure(&self, workspace: &str, rule: &Rule, given: Option<String>) -> io::Result<Option<String>> {
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
    fn put(&self, workspace: &str, sender: &str, secret: &str) -> io::Result<()> {
        let Self::In(file) = self else { return Ok(()) };
        change_file(file, |table| {
            let known = table.entry(format!("{workspace}/{sender}")).or_default();
            known.insert(0, secret.to_owned());
            known.truncate(2);
        })
    }

    fn forget(&self, workspace: &str, sender: &str) {
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

    fn say_where(&self, workspace: &str, sender: &str, secret: &str) {
        if matches!(self, Self::Elsewhere) {
            note!(
                "It counts once the service's configuration (WebhookSecrets) has it, with the one before behind it if there is one:\n  {}",
                json!({ format!("{workspace}/{sender}"): [secret] })
            );
        }
    }

    fn say_what_is_missing(&self) {
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
