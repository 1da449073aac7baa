//! The event of a delivery, and the rules that match it.

use crate::signature::Signed;
use contract::webhook::{Filter, Rule, SenderKind};
use serde_json::Value;

/// The most commits that GitHub tells of a push. What is beyond is not told.
///
/// # Source
///
/// "Webhook events and payloads", `push`: "The array includes a maximum of 2048 commits".
const MOST_COMMITS: usize = 2048;

/// An event.
///
/// * `event`: its name, and `action` where the sender tells several apart.
#[derive(Debug, PartialEq)]
pub(crate) struct Occurrence {
    kind: SenderKind,
    pub(crate) event: String,
    action: Option<String>,
    repository: Option<String>,
    branch: Option<String>,
    tag: Option<String>,
    environment: Option<String>,
    changed: Changed,
}

/// Which files changed.
#[derive(Debug, PartialEq)]
enum Changed {
    These(Vec<String>),
    /// It is not told.
    Unknown,
    /// The branch is gone, and its files with it.
    Gone,
}

impl Occurrence {
    /// Reads a genuine delivery's body.
    ///
    /// # Errors
    ///
    /// With what to do. Final for this delivery.
    pub(crate) fn read(signed: &Signed, body: &[u8]) -> Result<Self, String> {
        let payload: Value = serde_json::from_slice(body).map_err(|cause| {
            if body.starts_with(b"payload=") {
                "The body is a form. Set the webhook's content type to application/json.".to_owned()
            } else {
                format!("The body is no JSON: {cause}.")
            }
        })?;
        match signed {
            Signed::Github { event, .. } => github(event, &payload),
            Signed::Standard { .. } => standard(&payload),
        }
    }

    /// Whether a rule is about this.
    pub(crate) fn is_meant_by(&self, rule: &Rule) -> bool {
        let is_event = match (rule.event.as_str(), &self.action) {
            (event, Some(action)) if self.kind == SenderKind::Github => {
                let usual = match self.event.as_str() {
                    "release" => Some("published"),
                    "deployment" => Some("created"),
                    _ => None,
                };
                let bare = event == self.event && usual.is_none_or(|usual| usual == action);
                bare || event.strip_prefix(&self.event).and_then(|rest| rest.strip_prefix('.')) == Some(action)
            }
            (event, _) => event == self.event,
        };
        is_event && rule.kind == self.kind && self.passes(&rule.only)
    }

    fn passes(&self, only: &Filter) -> bool {
        let Filter {
            repository,
            branch,
            tag,
            environment,
            paths,
        } = only;
        // A push of a tag moves no branch: it is for rules that ask for tags.
        let is_about_a_tag = self.event != "push" || self.tag.is_none() || tag.is_some();
        let lower = |text: &Option<String>| text.as_deref().map(str::to_lowercase);
        let is_touched = match &self.changed {
            _ if paths.is_empty() => true,
            Changed::These(changed) => paths.iter().any(|path| changed.iter().any(|file| is_at(path, file))),
            Changed::Unknown => true,
            Changed::Gone => false,
        };
        is_about_a_tag
            && self.changed != Changed::Gone
            && is_touched
            && says(&lower(repository), &lower(&self.repository))
            && says(branch, &self.branch)
            && says(tag, &self.tag)
            && says(environment, &self.environment)
    }
}

/// Whether what is wanted, if anything is, is what there is.
fn says(wanted: &Option<String>, there: &Option<String>) -> bool {
    match (wanted, there) {
        (None, _) => true,
        (Some(wanted), Some(there)) => matches(wanted, there),
        (Some(_), None) => false,
    }
}

/// Whether a file is what a path names, or below it.
fn is_at(path: &str, file: &str) -> bool {
    let path = path.trim_start_matches("./").trim_end_matches('/');
    path.is_empty() || path == "." || matches(path, file) || matches(&format!("{path}/*"), file)
}

/// Whether a text is as a pattern says, in which `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    // The earliest place for each part leaves the most for those behind it.
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn text(value: &Value, path: &str) -> Option<String> {
    value.pointer(path)?.as_str().map(str::to_owned)
}

/// # Source
///
/// "Webhook events and payloads" in GitHub's documentation: `push`, `release`, `deployment`,
/// `deployment_status`.
fn github(event: &str, payload: &Value) -> Result<Occurrence, String> {
    // The event's name is not signed, and the payload is: one that is not of its event is
    // somebody's copy of another.
    let sign = match event {
        "push" => Some("ref"),
        "release" | "deployment" | "deployment_status" => Some(event),
        _ => None,
    };
    if let Some(sign) = sign.filter(|sign| payload.get(sign).is_none()) {
        return Err(format!("X-GitHub-Event says {event}, and the payload has no {sign}."));
    }
    let reference = text(payload, "/ref").unwrap_or_default();
    let is_push = event == "push";
    let is = |name: &str| payload.get(name).and_then(Value::as_bool) == Some(true);
    let branch = match event {
        "push" => reference.strip_prefix("refs/heads/").map(str::to_owned),
        "deployment" | "deployment_status" => text(payload, "/deployment/ref"),
        "release" => text(payload, "/release/target_commitish"),
        _ => None,
    };
    let tag = match event {
        "push" => reference.strip_prefix("refs/tags/").map(str::to_owned),
        _ => text(payload, "/release/tag_name"),
    };
    let changed = if !is_push {
        Changed::Unknown
    } else if is("deleted") {
        Changed::Gone
    } else {
        changed_by(payload, is("forced") || is("created"))
    };
    Ok(Occurrence {
        kind: SenderKind::Github,
        event: event.to_owned(),
        action: text(payload, "/action"),
        repository: text(payload, "/repository/full_name"),
        branch,
        tag,
        environment: text(payload, "/deployment/environment"),
        changed,
    })
}

/// * `is_rewritten`: the commits do not tell the whole difference.
fn changed_by(payload: &Value, is_rewritten: bool) -> Changed {
    let Some(commits) = payload.get("commits").and_then(Value::as_array) else {
        return Changed::Unknown;
    };
    if is_rewritten || commits.len() >= MOST_COMMITS {
        return Changed::Unknown;
    }
    let files = commits.iter().flat_map(|commit| {
        ["added", "modified", "removed"]
            .into_iter()
            .filter_map(|name| commit.get(name)?.as_array())
            .flatten()
    });
    Changed::These(files.filter_map(Value::as_str).map(str::to_owned).collect())
}

/// # Source
///
/// The Standard Webhooks specification, *Payload structure*: `type`, `timestamp`, `data`.
fn standard(payload: &Value) -> Result<Occurrence, String> {
    let event = text(payload, "/type").ok_or("The payload has no `type`, which names the event.")?;
    let paths = payload.pointer("/data/paths").and_then(Value::as_array);
    Ok(Occurrence {
        kind: SenderKind::StandardWebhooks,
        event,
        action: None,
        repository: text(payload, "/data/repository"),
        branch: text(payload, "/data/branch"),
        tag: text(payload, "/data/tag"),
        environment: text(payload, "/data/environment"),
        changed: paths.map_or(Changed::Unknown, |paths| {
            Changed::These(paths.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }),
    })
}
