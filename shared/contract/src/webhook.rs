//! Webhooks: signed requests from outside, and the workspace's table of what they mean.
//!
//! A *sender* is somebody who has a secret, and an address of its own:
//! `/webhook/{workspace}/{sender}`. Which secret that is, the service's configuration says, and
//! never a row.

use crate::{FlowRef, Millis, Principal, bounds, command::Wish};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most rules of a workspace.
pub const MOST_RULES: usize = 100;
/// The most bytes of all rules of a workspace together, as JSON. A row holds 400 kB.
pub const MOST_RULES_BYTES: usize = 200_000;
/// The most bytes of a delivery's body.
pub const MOST_BYTES: usize = 1 << 20;

/// The signature scheme of a sender.
///
/// # Source
///
/// The Standard Webhooks specification; "Validating webhook deliveries" in GitHub's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SenderKind {
    /// `X-Hub-Signature-256` over the body.
    Github,
    /// `webhook-signature` over id, timestamp and body.
    StandardWebhooks,
}

/// A workspace's webhooks.
///
/// * `name`: no other rule of the workspace has it.
/// * `sender`: whose deliveries it is about, by the name of its secret.
/// * `event`: for GitHub the name of the event, such as `push`, `release` (which means
///   `release.published`) or `deployment` (`deployment.created`), or `event.action`; for Standard
///   Webhooks the payload's `type`.
/// * `by`: the maker of the rule, with their roles then. The command is theirs. A client leaves it
///   out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    #[serde(deserialize_with = "bounds::id")]
    #[schemars(regex(pattern = bounds::ID))]
    pub name: String,
    #[serde(deserialize_with = "bounds::id")]
    #[schemars(regex(pattern = bounds::ID))]
    pub sender: String,
    pub kind: SenderKind,
    #[serde(deserialize_with = "bounds::name")]
    #[schemars(length(max = 100), regex(pattern = bounds::NAME))]
    pub event: String,
    #[serde(
        default,
        skip_serializing_if = "Filter::is_empty",
        deserialize_with = "bounds::object"
    )]
    pub only: Filter,
    #[serde(deserialize_with = "bounds::object")]
    pub flow: FlowRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Principal>,
    #[serde(flatten)]
    pub wish: Wish,
}

/// Which events of a kind are meant: all that is said here must be so. `*` stands for any
/// characters.
///
/// For Standard Webhooks, the payload's `data` has these by the same names, each a text, and
/// `paths` a list.
///
/// * `repository`: `owner/name`.
/// * `paths`: a changed file is one of these, or below one of these. What a push does not tell
///   counts as changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub repository: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub branch: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub tag: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub environment: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl Filter {
    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A workspace's rules, as they are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhooksRow {
    #[serde(deserialize_with = "bounds::name")]
    #[schemars(length(max = 100), regex(pattern = bounds::NAME))]
    pub workspace: String,
    /// Counts the changes.
    pub revision: u64,
    pub rules: Vec<Rule>,
}

/// A delivery that became commands. It counts once, whatever id it comes with again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryRow {
    /// As its sender calls it.
    pub delivery: String,
    pub taken: Millis,
    /// The ids of the commands that it became.
    pub commands: Vec<String>,
}

/// A workspace's new rules: the body of `PUT /v1/workspaces/{workspace}/webhooks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// The revision that was read; 0 if there were no rules.
    pub revision: u64,
    pub rules: Vec<Rule>,
    /// The address for senders, without the sender's name at its end. The service sets it, and a
    /// client leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A delivery was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// Whether it had been taken before.
    pub already: bool,
    /// The ids of the commands that it became: of operations, and of runs.
    pub commands: Vec<String>,
}

/// Whether a rule allows exactly this command.
pub fn allows(rules: &[Rule], command: &crate::command::Command) -> bool {
    let says_so = |rule: &Rule| rule.by.is_some() && rule.by == command.principal;
    rules
        .iter()
        .any(|rule| rule.flow == command.flow && rule.wish == command.wish && says_so(rule))
}
