//! A webhook's rule, as it was typed.

use super::AddWebhook;
use crate::{
    trouble::{Trouble, USAGE},
    wish::{self, Flow},
};
use clap::ValueEnum;
use contract::{
    Code,
    command::{RunWish, Wish},
    webhook::{Filter, Rule, SenderKind},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The event of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// One whose name is GitHub's.
    Github(String),
    Other(String),
}

impl Event {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Github(name) | Self::Other(name) => name,
        }
    }
}

/// The action of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Then {
    Install,
    Start,
    Reset,
    Stop,
    Run,
}

/// The signature of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Signs {
    Github,
    StandardWebhooks,
}

impl From<Signs> for SenderKind {
    fn from(signs: Signs) -> Self {
        match signs {
            Signs::Github => Self::Github,
            Signs::StandardWebhooks => Self::StandardWebhooks,
        }
    }
}

/// The name of an event, and whether it is GitHub's by its name alone.
pub(super) fn event(text: &str) -> Result<Event, String> {
    let name = text.split('.').next().unwrap_or_default();
    match name {
        "" => Err("this is to be the name of an event, such as push".into()),
        "push" | "release" | "deployment" | "deployment_status" | "workflow_run" => Ok(Event::Github(text.into())),
        _ => Ok(Event::Other(text.into())),
    }
}

/// The name of a rule or of a sender.
pub(super) fn rule_id(text: &str) -> Result<String, String> {
    if contract::command::is_good_id(text) {
        Ok(text.into())
    } else {
        Err("a name has 1 to 80 characters of A-Z a-z 0-9 - _".into())
    }
}

/// Adds a rule to those that there are.
pub(super) fn push(rules: &mut Vec<Rule>, rule: &Rule) -> Result<(), Box<Trouble>> {
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
            return Err(Trouble::new(USAGE, Code::WebhookExists, message).next(format!(
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
                Trouble::new(USAGE, Code::WebhookOtherKind, message).next("name the sender otherwise: --from NAME")
            );
        }
        None => rules.push(rule.clone()),
    }
    Ok(())
}

/// The rule that was typed.
pub(super) fn rule_of(add: &AddWebhook, flow: &Flow, folder: &Path) -> Result<Rule, Box<Trouble>> {
    let kind = match (add.kind, &add.on) {
        (Some(kind), _) => kind.into(),
        (None, Event::Github(_)) => SenderKind::Github,
        (None, Event::Other(name)) => {
            let message = format!("{name} is no event that this command knows of GitHub");
            return Err(Trouble::new(USAGE, Code::WebhookNoKind, message)
                .next("say who sends it: --kind github or --kind standard-webhooks"));
        }
    };
    let event = add.on.name().to_owned();
    let word = |kind: SenderKind| match kind {
        SenderKind::Github => "github",
        SenderKind::StandardWebhooks => "sender",
    };
    let then = add.then.to_possible_value();
    let then = then.as_ref().map_or("", |value| value.get_name());
    let name = add.name.clone().unwrap_or_else(|| flow.rule_name(&event, then));
    let paths = if add.path.is_empty() && event == "push" && kind == SenderKind::Github {
        own_paths(folder, add.then)
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

fn wish_of(add: &AddWebhook) -> Result<Wish, Box<Trouble>> {
    Ok(match add.then {
        Then::Install => Wish::Install {
            settings: None,
            lock: None,
        },
        Then::Start => Wish::Start {
            settings: add.wants.to_wanted(),
        },
        Then::Reset => Wish::Reset {
            settings: None,
            resolve: false,
        },
        Then::Stop => Wish::Stop,
        Then::Run => Wish::Run {
            settings: add.wants.to_wanted(),
            run: RunWish {
                data: add.data.as_deref().map(wish::data_file).transpose()?,
                inputs: add.inputs.iter().cloned().collect(),
                ..RunWish::default()
            },
        },
    })
}

/// The files that a push is to touch, by their paths in the repository: for an install, those that
/// say what is installed; else the flow's folder. None if the flow is in no repository, or has
/// nothing to install.
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
