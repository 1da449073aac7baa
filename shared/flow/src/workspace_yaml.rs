//! `workspace.yml`: the settings of a workspace, as its owner writes them.

use crate::{Code, Failure, nearest, yaml};
use serde_json::{Map, Value};
use std::path::Path;

const CODE: Code = Code::WorkspaceBadFile;

const KEYS: [&str; 9] = [
    "default_vm_size",
    "default_base_image",
    "largest_idle_seconds",
    "default_data_store",
    "working_directory",
    "quota",
    "identity",
    "primary_user_assigned_identity",
    "senders",
];
/// Keys of the same file elsewhere, which say nothing here.
const PASSED: [&str; 2] = ["$schema", "name"];
const QUOTA: [&str; 5] = ["sessions", "vcpus", "session_seconds_per_day", "users", "total"];
const USER: [&str; 3] = ["sessions", "vcpus", "session_seconds_per_day"];
const IDENTITY: [&str; 2] = ["type", "user_assigned_identities"];
const DETAILS: [&str; 2] = ["client_id", "role_arn"];
const STORE: [&str; 2] = ["name", "type"];

/// Reads a file of settings: what it names replaces what there is, and what is `null` there is
/// taken away.
///
/// # Errors
///
/// `Workspace.BadFile`, final: it names the file, the line, and the nearest known key.
pub fn workspace_yaml(path: &Path) -> Result<Map<String, Value>, Failure> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("{shown} cannot be read: {error}. Name a file of settings, such as workspace.yml.");
        Failure::new(CODE, message)
    })?;
    read(&shown, &text)
}

fn read(shown: &str, text: &str) -> Result<Map<String, Value>, Failure> {
    let such_as = "`default_vm_size: Standard_D4s_v5`";
    let Value::Object(mut whole) = yaml::mapping(shown, text, CODE, such_as)? else {
        return Ok(Map::new());
    };
    whole.retain(|key, _| !PASSED.contains(&key.as_str()));
    let file = File { shown, text };
    file.check(&whole, &[], &KEYS)?;
    let within = |value: &Value, key: &str| value.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let all = Value::Object(whole.clone());
    let quota = within(&all, "quota");
    file.check(&quota, &["quota"], &QUOTA)?;
    let quota = Value::Object(quota);
    file.check(&within(&quota, "total"), &["quota", "total"], &USER)?;
    for (user, quota) in within(&quota, "users") {
        let quota = quota.as_object().cloned().unwrap_or_default();
        file.check(&quota, &["quota", "users", &user], &USER)?;
    }
    file.check(&within(&all, "default_data_store"), &["default_data_store"], &STORE)?;
    let identity = within(&all, "identity");
    file.check(&identity, &["identity"], &IDENTITY)?;
    for (id, details) in within(&Value::Object(identity), "user_assigned_identities") {
        let details = details.as_object().cloned().unwrap_or_default();
        file.check(&details, &["identity", "user_assigned_identities", &id], &DETAILS)?;
    }
    Ok(whole)
}

/// The line of a file that has the key of this path, for an error; the first that fits.
pub fn line_of(text: &str, path: &[&str]) -> Option<usize> {
    let mut lines = text.lines().enumerate();
    let mut found = None;
    for key in path {
        let is_key = |line: &str| {
            let line = line.trim_start().trim_start_matches(['"', '\'']);
            line.strip_prefix(key)
                .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
        };
        found = lines
            .find(|(_, line)| is_key(line))
            .map(|(number, _)| number + 1)
            .or(found);
    }
    found
}

struct File<'a> {
    shown: &'a str,
    text: &'a str,
}

impl File<'_> {
    /// Refuses a key that is not known.
    fn check(&self, fields: &Map<String, Value>, path: &[&str], known: &[&str]) -> Result<(), Failure> {
        let Some(key) = fields.keys().find(|key| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        let within: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
        let line = line_of(self.text, &within).map_or_else(String::new, |line| format!(":{line}"));
        let of = path.join(".");
        let of = if of.is_empty() { "a workspace".to_owned() } else { of };
        let near = match nearest(key, known.iter().copied()) {
            Some(near) => format!("Is {near} meant?"),
            None => format!("It may have {}.", known.join(", ")),
        };
        Err(Failure::new(
            CODE,
            format!("{}{line}: {of} has no key {key}. {near}", self.shown),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_example_file_is_read_with_its_identities_in_order() {
        let text = "identity:\n   type: system_assigned, user_assigned\n   user_assigned_identities:\n    \
                    '/subscriptions/<subscription_id>/resourcegroups/<resource_group_name>/providers/Microsoft.ManagedIdentity/\
                    userAssignedIdentities/<uai_name>': {}\n    '<UAI resource ID 2>': {}\n";
        let read = read("workspace.yml", text).unwrap();
        let identities = read["identity"]["user_assigned_identities"].as_object().unwrap();
        let ids: Vec<&str> = identities.keys().map(|id| id.rsplit('/').next().unwrap()).collect();
        assert_eq!(ids, ["<uai_name>", "<UAI resource ID 2>"]);
        assert_eq!(read["identity"]["type"], "system_assigned, user_assigned");
    }

    #[test]
    fn a_key_that_is_not_known_is_named_with_its_line_and_the_nearest() {
        let texts = [
            "name: lab\ndefault_size: local\n",
            "quota:\n  session: 3\n",
            "quota:\n  users:\n    bob:\n      cpus: { D: 1 }\n",
            "identity:\n  type: user_assigned\n  user_assigned_identities:\n    'a/b': { clientid: c }\n",
            "default_data_store: { name: a, kind: b }\n",
            "- a list\n",
            "quota: [\n",
        ]
        .map(|text| read("workspace.yml", text).unwrap_err().to_string());
        expect_test::expect![[r#"
            Workspace.BadFile: workspace.yml:2: a workspace has no key default_size. Is default_vm_size meant?
            Workspace.BadFile: workspace.yml:2: quota has no key session. Is sessions meant?
            Workspace.BadFile: workspace.yml:4: quota.users.bob has no key cpus. Is vcpus meant?
            Workspace.BadFile: workspace.yml:4: identity.user_assigned_identities.a/b has no key clientid. Is client_id meant?
            Workspace.BadFile: workspace.yml:1: default_data_store has no key kind. It may have name, type.
            Workspace.BadFile: workspace.yml is a list. It should be a mapping, such as `default_vm_size: Standard_D4s_v5`.
            Workspace.BadFile: workspace.yml:1: the YAML is wrong: unclosed bracket '['. Correct it."#]].assert_eq(&texts.join("\n"));
        let gone = workspace_yaml(Path::new("/not/there.yml")).unwrap_err().to_string();
        assert!(
            gone.starts_with("Workspace.BadFile: /not/there.yml cannot be read"),
            "{gone}"
        );
    }
}
