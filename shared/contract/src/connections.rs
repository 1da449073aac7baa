//! Connections to model providers, where the service keeps them and no machine of their user does.
//!
//! A row has what is no secret. The secrets are in Secrets Manager, by names below one prefix, and
//! in no row, queue or log. They leave the service by one way: the answer to a session's agent,
//! which proves with the session's key whose session it is.

use crate::{Millis, bounds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The most connections of one user, and of one workspace.
pub const MOST: usize = 200;
/// The most bytes of a connection, and of its secrets together.
///
/// # Source
///
/// AWS Secrets Manager quotas: a secret's value has at most 65,536 bytes.
pub const MOST_BYTES: usize = 60_000;
/// The largest age of a session's request, in milliseconds.
pub const LONGEST_AGE: Millis = 300_000;

/// The parts of a connection that are no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Open {
    #[serde(rename = "type")]
    pub kind: String,
    pub module: String,
    pub configs: BTreeMap<String, String>,
    /// Whether its key stays with a broker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brokered: bool,
}

impl Open {
    /// The whole connection, as `flow::Connection` is read, with these secrets by their keys.
    pub fn with_secrets(&self, secrets: &impl Serialize) -> serde_json::Value {
        serde_json::json!({
            "type": self.kind, "module": self.module, "configs": self.configs,
            "secrets": secrets, "brokered": self.brokered,
        })
    }
}

/// A stored connection, without its secrets.
///
/// * `user`: whose it is; the workspace's own has none.
/// * `secrets`: the keys of its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionRow {
    pub workspace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    pub name: String,
    #[serde(flatten)]
    pub open: Open,
    pub secrets: BTreeSet<String>,
    pub by: String,
    pub at: Millis,
}

/// The connections that a user may use: their own, and the workspace's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionRows {
    pub connections: Vec<ConnectionRow>,
}

/// A connection that is to be kept, in place of one of its name.
///
/// * `kept`: the keys of secrets that stay as they are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionWish {
    pub name: String,
    #[serde(default)]
    pub for_workspace: bool,
    #[serde(flatten)]
    pub open: Open,
    pub secrets: BTreeMap<String, String>,
    #[serde(default)]
    pub kept: BTreeSet<String>,
}

/// Secrets are in no log.
impl fmt::Debug for ConnectionWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionWish")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The signed part of a session's request for its user's connections.
///
/// * `names`: those that it needs, with their secrets; without them, all that there are, without
///   secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsWanted {
    #[serde(deserialize_with = "bounds::line")]
    pub flow: String,
    pub generation: u32,
    /// The time of the request: an old request is not answered.
    pub at: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<BTreeSet<String>>,
}

/// A connection as a session gets it.
#[derive(Clone, Serialize, Deserialize)]
pub struct GivenConnection {
    pub name: String,
    #[serde(flatten)]
    pub open: Open,
    pub secrets: BTreeMap<String, String>,
}

/// The answer to [`ConnectionsWanted`]: of two of one name, the user's own.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct GivenConnections {
    pub connections: Vec<GivenConnection>,
}
