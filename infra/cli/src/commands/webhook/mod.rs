//! `pfsession webhook`: rules for events of other services.
//!
//! The rules are the service's, and read and written whole. The secrets are not: on this machine
//! they are in a file of the state folder, for its owner alone; elsewhere they are in the service's
//! own configuration, and this command prints what belongs there.

mod rule;
mod secrets;

use crate::{
    client::Client,
    command::{Execute, NoJson, family},
    global::{Done, Service},
    options::{Wants, named_value},
    show, snapshot,
    terminal::note,
    text::{home, out, out_as_said, out_json},
    trouble::{FAILED, NONE, Trouble},
    wish,
};
use clap::Args;
use contract::{
    Code,
    command::Wish,
    route::Route,
    webhook::{Rule, SenderKind, Webhooks},
};
use rule::{Event, Signs, Then, event, push, rule_id, rule_of};
use schemars::JsonSchema;
use secrets::{Secrets, given_secret, new_secret};
use serde::Serialize;
use std::path::PathBuf;

/// The most retries of a change of rules after another one came in between.
const TRIES: usize = 5;

family! {
    /// Manage webhook rules: commands that signed events from outside start, such as a push or a
    /// release
    Webhook {
        Add(Box<AddWebhook>),
        List(List),
        Remove(Remove),
        Rotate(Rotate),
    }
}

/// Add a rule: an event, and the command that it starts for a flow's session
#[derive(Args, Debug)]
#[command(after_help = "\
Prints the address to send to, and, once, the secret to sign with. What is not signed with it, too old or a repetition changes nothing. The rule is \
yours, and does what you may do. An install reads the flow's folder as it is: have it brought up to date before, or by the flow's own start.

Without --path, a push that is to install has to touch the flow's requirements, and another its folder; both by their place in the repository that \
the folder is in. `*` stands for any characters.

Examples:
  pfsession webhook add ./my-flow --on push --repository acme/flows --branch main --then install
  pfsession webhook add ./my-flow --on release --tag 'v*' --then run --data lines.jsonl
  pfsession webhook add ./my-flow --on deployment --environment production --then stop
  pfsession webhook add ./my-flow --kind standard-webhooks --from shop --on invoice.paid --then start")]
pub(crate) struct AddWebhook {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    pub(crate) flow: PathBuf,
    /// The event: push, release, deployment, another of GitHub's, or the type of a Standard Webhook
    #[arg(long, value_name = "EVENT", value_parser = event)]
    pub(crate) on: Event,
    /// The action of the rule
    #[arg(long, value_name = "COMMAND")]
    pub(crate) then: Then,
    /// The sender: the name of its secret, and the end of its address [default: github]
    #[arg(long, value_name = "SENDER", value_parser = rule_id)]
    pub(crate) from: Option<String>,
    /// The kind of signature; GitHub's own events have GitHub's
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<Signs>,
    /// Name of the rule [default: made of the flow, the event and the command]
    #[arg(long, value_parser = rule_id)]
    pub(crate) name: Option<String>,
    /// A secret that the sender made itself, in a file, or - for standard input; without it, one is
    /// made
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Only of this repository: owner/name
    #[arg(long, help_heading = "Which of them")]
    pub(crate) repository: Option<String>,
    /// Only of this branch
    #[arg(long, help_heading = "Which of them")]
    pub(crate) branch: Option<String>,
    /// Only of this tag
    #[arg(long, help_heading = "Which of them")]
    pub(crate) tag: Option<String>,
    /// Only of this deployment environment
    #[arg(long, help_heading = "Which of them")]
    pub(crate) environment: Option<String>,
    /// Only if it touches this file or folder of the repository; may be given again
    #[arg(long, value_name = "PATH", help_heading = "Which of them")]
    pub(crate) path: Vec<String>,
    /// For --then run: run over each line of this file of JSON lines
    #[arg(long, value_name = "FILE", help_heading = "The run")]
    pub(crate) data: Option<PathBuf>,
    /// For --then run: a value of an input: NAME=TEXT or NAME:=JSON
    #[arg(long, value_name = "NAME=VALUE", value_parser = named_value, num_args = 1.., help_heading = "The run")]
    pub(crate) inputs: Vec<(String, serde_json::Value)>,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

/// A rule that was added, the address to send to, and the secret if one was made.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Added {
    rule: Rule,
    address: String,
    secret: Option<String>,
}

impl Execute for AddWebhook {
    type Json = Added;

    fn execute(&self, service: &Service<'_>) -> Done {
        let (client, secrets) = (&*service.client()?, &Secrets::of(service)?);
        let flow = wish::flow_at(&self.flow, &client.user)?;
        let mut rule = rule_of(self, &flow, &flow.folder(&client.user))?;
        if let Wish::Run { run, .. } = &mut rule.wish {
            snapshot::seen_data(client, &flow, run)?;
        }
        let Webhooks { address, .. } = change(client, |rules| push(rules, &rule))?;
        let address = format!("{}{}", address.unwrap_or_default(), rule.sender);
        let given = self
            .secret_file
            .as_deref()
            .map(|file| given_secret(file, rule.kind))
            .transpose()?;
        let made = secrets.ensure(&client.user.workspace, &rule, given).map_err(|cause| {
            Trouble::new(
                FAILED,
                Code::WebhookNoSecret,
                format!("The secret of {} cannot be kept: {cause}", rule.sender),
            )
            .next(format!(
                "put that right, then: pfsession webhook rotate {}",
                rule.sender
            ))
        })?;
        if service.global.json {
            out_json(&Added {
                rule,
                address,
                secret: made,
            });
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
            None if self.secret_file.is_some() => note!("The secret is the one of the file."),
            None => note!("{} has its secret already.", rule.sender),
        }
        secrets.say_what_is_missing();
        Ok(0)
    }
}

/// List the rules
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession webhook list
  pfsession webhook list --json | jq -r '.rules[].name'")]
pub(crate) struct List {}

impl Execute for List {
    type Json = Webhooks;

    fn execute(&self, service: &Service<'_>) -> Done {
        let webhooks = read(&*service.client()?)?;
        if service.global.json {
            out_json(&webhooks);
        } else if webhooks.rules.is_empty() {
            note!("There is no webhook. Add one: pfsession webhook add --help");
        } else {
            out(&show::rules(&webhooks.rules, home().as_deref()));
            note!("Senders send to {}<FROM>", webhooks.address.unwrap_or_default());
        }
        Ok(0)
    }
}

/// Remove a rule
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession webhook remove my-flow-push-install")]
pub(crate) struct Remove {
    /// The rule's name, as `pfsession webhook list` shows it
    name: String,
}

impl Execute for Remove {
    type Json = NoJson;

    fn execute(&self, service: &Service<'_>) -> Done {
        let (client, secrets, name) = (&*service.client()?, &Secrets::of(service)?, &self.name);
        let before = read(client)?.rules.into_iter().find(|rule| rule.name == *name);
        let Some(before) = before else {
            return Err(
                Trouble::new(NONE, Code::WebhookNone, format!("There is no webhook {name}"))
                    .next("see what there is: pfsession webhook list"),
            );
        };
        let after = change(client, |rules| {
            rules.retain(|rule| rule.name != *name);
            Ok(())
        })?;
        if !after.rules.iter().any(|rule| rule.sender == before.sender) {
            secrets.forget(&client.user.workspace, &before.sender);
        }
        note!("The webhook {name} is gone.");
        Ok(0)
    }
}

/// Create a new secret for a sender; the one before it stays valid until the next rotation
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession webhook rotate github")]
pub(crate) struct Rotate {
    /// The sender's name, as `pfsession webhook list` shows it
    sender: String,
}

/// A sender, and its new secret.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Rotated<'a> {
    sender: &'a str,
    secret: &'a str,
}

impl Execute for Rotate {
    type Json = Rotated<'static>;

    fn execute(&self, service: &Service<'_>) -> Done {
        let (client, secrets, sender) = (&*service.client()?, &Secrets::of(service)?, &self.sender);
        let rule = read(client)?.rules.into_iter().find(|rule| rule.sender == *sender);
        let Some(rule) = rule else {
            return Err(
                Trouble::new(NONE, Code::WebhookNone, format!("No webhook is from {sender}"))
                    .next("see what there is: pfsession webhook list"),
            );
        };
        let secret = new_secret(rule.kind);
        secrets.put(&client.user.workspace, sender, &secret).map_err(|cause| {
            Trouble::new(
                FAILED,
                Code::WebhookNoSecret,
                format!("The secret of {sender} cannot be kept: {cause}"),
            )
            .next("put that right, and try again")
        })?;
        if service.global.json {
            out_json(&Rotated {
                sender,
                secret: &secret,
            });
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
}

fn read(client: &Client) -> Result<Webhooks, Box<Trouble>> {
    client.get(Route::Webhooks(&client.user.workspace))
}

/// Reads the rules, changes them, and writes them, anew when somebody else was faster.
fn change(client: &Client, how: impl Fn(&mut Vec<Rule>) -> Result<(), Box<Trouble>>) -> Result<Webhooks, Box<Trouble>> {
    for tried in 1.. {
        let mut webhooks = read(client)?;
        how(&mut webhooks.rules)?;
        webhooks.address = None;
        match client.put(Route::WriteWebhooks(&client.user.workspace), &webhooks) {
            Err(trouble) if trouble.failure.error == Code::WebhookChanged && tried < TRIES => {}
            done => return done,
        }
    }
    unreachable!("the last try is given back")
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
