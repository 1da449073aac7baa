//! The roles of users in a workspace, whatever a token or a queue says of them.

use crate::{Millis, Role, bounds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The roles of one user in a workspace.
///
/// * `revision`: raised by each change; 0 of one that is not stored.
/// * `roles`: those that they have besides what their token says, or the right to send to the queue
///   (data-scientist).
/// * `closed`: whether these are all: what a token or the queue says of them counts no more.
/// * `identities`: the user-assigned identities that they may have sessions work with: the role
///   managed-identity-operator of each.
/// * `by`, `at`: who changed it last, and when.
///
/// # Source
///
/// "The job submitter needs `assign` permission on the user-assigned managed identity" (the
/// specification, *Start with advanced settings*).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleRow {
    #[serde(deserialize_with = "bounds::name")]
    #[schemars(length(max = 100), regex(pattern = bounds::NAME))]
    pub workspace: String,
    #[serde(deserialize_with = "bounds::name")]
    #[schemars(length(max = 100), regex(pattern = bounds::NAME))]
    pub user: String,
    pub revision: u64,
    pub roles: BTreeSet<Role>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    #[serde(
        default,
        skip_serializing_if = "BTreeSet::is_empty",
        deserialize_with = "bounds::identities"
    )]
    #[schemars(length(max = bounds::MOST_IDENTITIES), extend("items" = { "type": "string", "maxLength": 1000, "pattern": bounds::NAME }))]
    pub identities: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    #[serde(default)]
    pub at: Millis,
}

impl RoleRow {
    /// The roles of a user, of whom the transport says `said`.
    pub fn over(&self, said: &[Role]) -> Vec<Role> {
        let said = said.iter().filter(|_| !self.closed);
        let all: BTreeSet<Role> = self.roles.iter().chain(said).copied().collect();
        all.into_iter().collect()
    }
}

/// A page of the roles of a workspace, by user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Roles {
    pub users: Vec<RoleRow>,
    /// The value of `after` for the next page; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
