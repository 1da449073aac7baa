//! The settings of a workspace: defaults and limits of its sessions.
//!
//! The names are those of the file that `pfsession workspace update` reads.

use crate::{IdleSeconds, Millis, bounds};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{borrow::Cow, collections::BTreeMap};

/// The name of the workspace's primary identity, or of its first.
///
/// # Source
///
/// "use workspace first UAI" (the specification, *Use a compute session to submit a flow run in
/// CLI/SDK*).
pub const PRIMARY: &str = "primary";

/// The settings of a workspace, as they are stored.
///
/// * `revision`: raised by each change; 0 of one that is not stored.
/// * `by`, `at`: who changed it last, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceRow {
    #[serde(deserialize_with = "bounds::name")]
    #[schemars(length(max = 100), regex(pattern = bounds::NAME))]
    pub workspace: String,
    pub revision: u64,
    #[serde(deserialize_with = "bounds::object")]
    pub settings: WorkspaceSettings,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    #[serde(default)]
    pub at: Millis,
}

/// The settings of a workspace. One that is left out has the built-in default, or no bound.
///
/// * `largest_idle_seconds`: the longest idle time that a session may have.
/// * `working_directory`: the folder of flow drafts.
/// * `primary_user_assigned_identity`: which identity a run has that names none; without it, the
///   first.
/// * `senders`: the user of each sender of messages, by the sender's id in SQS: that of a user of
///   IAM, or of a role, with the name of its session or without. Any other sender is a user of its
///   own id.
///
/// # Source
///
/// "The default data store (usually `workspaceblobstore`) in your workspace is of the blob type.
/// The working directory (`workspaceworkingdirectory`) exists in the workspace." (the
/// specification, *Start a compute session in studio*).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceSettings {
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub default_vm_size: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub default_base_image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_idle_seconds: Option<IdleSeconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_data_store: Option<DataStore>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::some_line"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::LINE))]
    pub working_directory: Option<String>,
    #[serde(default, skip_serializing_if = "QuotaSettings::is_none")]
    pub quota: QuotaSettings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentitySettings>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub primary_user_assigned_identity: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "bounds::senders"
    )]
    #[schemars(extend("maxProperties" = bounds::MOST_SENDERS, "additionalProperties" = { "type": "string", "maxLength": 100, "pattern": bounds::NAME }))]
    pub senders: BTreeMap<String, String>,
}

impl WorkspaceSettings {
    /// The user-assigned identities by id, in the order in which they were named.
    pub fn user_assigned(&self) -> &[(String, IdentityDetails)] {
        self.identity
            .as_ref()
            .map_or(&[], |identity| &identity.user_assigned_identities.0)
    }

    /// The user that a sender of messages is, if it says so.
    pub fn user_of(&self, sender: &str) -> Option<&str> {
        let role = sender.split_once(':').map(|(role, _)| role);
        let role = role.filter(|role| role.starts_with("AROA"));
        let user = self.senders.get(sender).or_else(|| self.senders.get(role?))?;
        Some(user)
    }

    /// The id of the primary one: that which is named, or else the first.
    pub fn primary_identity(&self) -> Option<&str> {
        let first = self.user_assigned().first().map(|(id, _)| id.as_str());
        self.primary_user_assigned_identity.as_deref().or(first)
    }
}

/// A data store.
///
/// * `type`: `azure_blob`, `azure_data_lake_gen2` and `s3` are object stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataStore {
    pub name: String,
    pub r#type: String,
}

/// The quota of each user at once; `users` says it for some in place of that, and `total` how much
/// all users may have together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Processors, by the family of VM sizes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vcpus: BTreeMap<String, u32>,
    /// The longest time that the sessions of a user may live on one day of UTC, all of them
    /// together: a cap on what they cost. When it is used up, they are stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_seconds_per_day: Option<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, UserQuota>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<UserQuota>,
}

impl QuotaSettings {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The quota of one user at once, or of all together. What it leaves out is everybody's, or has no
/// bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserQuota {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vcpus: BTreeMap<String, u32>,
    /// As that of everybody; all users together have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_seconds_per_day: Option<u32>,
}

/// The identities of a workspace.
///
/// * `type`: `system_assigned`, `user_assigned`, or both, with a comma.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentitySettings {
    pub r#type: String,
    #[serde(default, skip_serializing_if = "UserAssigned::is_empty")]
    pub user_assigned_identities: UserAssigned,
}

/// User-assigned identities, by their id and in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserAssigned(pub Vec<(String, IdentityDetails)>);

/// Further names of an identity.
///
/// * `client_id`: another name of it, which run files have.
/// * `role_arn`: the IAM role that it is on AWS, which is another name of it, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityDetails {
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub client_id: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub role_arn: Option<String>,
}

impl UserAssigned {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for UserAssigned {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(id, details)| (id, details)))
    }
}

impl<'de> Deserialize<'de> for UserAssigned {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // A map of `serde_json` keeps its order.
        let map = serde_json::Map::deserialize(from)?;
        if map.len() > bounds::MOST_IDENTITIES {
            return Err(D::Error::custom(format!(
                "a workspace has at most {} identities",
                bounds::MOST_IDENTITIES
            )));
        }
        let each = |(id, details): (String, serde_json::Value)| {
            let is_good = (1..=1000).contains(&id.len()) && !id.chars().any(|c| c.is_control() || c == '#');
            if !is_good {
                return Err(D::Error::custom(
                    "the id of an identity is one line of 1 to 1000 characters, without #",
                ));
            }
            // YAML writes an empty mapping as nothing, too.
            let details = match details {
                serde_json::Value::Null => IdentityDetails::default(),
                details => serde_json::from_value(details).map_err(D::Error::custom)?,
            };
            Ok((id, details))
        };
        map.into_iter().map(each).collect::<Result<_, _>>().map(Self)
    }
}

impl JsonSchema for UserAssigned {
    fn schema_name() -> Cow<'static, str> {
        "UserAssigned".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let details = generator.subschema_for::<Option<IdentityDetails>>();
        json_schema!({
            "description": "User-assigned identities, by their id and in the order of the file.",
            "type": "object",
            "maxProperties": bounds::MOST_IDENTITIES,
            "propertyNames": { "maxLength": 1000, "pattern": bounds::NAME },
            "additionalProperties": details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_the_user_that_the_workspace_says() {
        let senders = [("AROA1", "ann"), ("AROA1:ci", "robot"), ("AIDA2", "bob")];
        let of = WorkspaceSettings {
            senders: senders
                .map(|(sender, user)| (sender.to_owned(), user.to_owned()))
                .into(),
            ..WorkspaceSettings::default()
        };
        let users = ["AROA1:laptop", "AROA1:ci", "AIDA2", "AIDA2:x", "AROA3:ci", "AROA", ""];
        let found = users.map(|sender| of.user_of(sender));
        assert_eq!(found, [Some("ann"), Some("robot"), Some("bob"), None, None, None, None]);
    }
}
