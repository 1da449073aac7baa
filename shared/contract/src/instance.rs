//! Compute instances: the row, and what is shown of it.

use crate::{IdleSeconds, Millis, bounds, http::ComputeView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A compute instance of a user. While it runs, the slot of a compute resource names it.
///
/// # Source
///
/// "continue using the existing compute instance to manually manage the lifecycle" (*Switch a
/// compute instance runtime to a compute session*).
///
/// * `by`, `at`: who created it, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceRow {
    #[serde(deserialize_with = "bounds::name")]
    #[schemars(length(max = 100), regex(pattern = bounds::NAME))]
    pub workspace: String,
    #[serde(deserialize_with = "bounds::name")]
    #[schemars(length(max = 100), regex(pattern = bounds::NAME))]
    pub owner: String,
    #[serde(deserialize_with = "bounds::id")]
    #[schemars(regex(pattern = bounds::ID))]
    pub name: String,
    /// The VM size.
    pub size: String,
    /// The user-assigned identity; none is the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// After how many seconds without use it is shut down; none: it runs until its user stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_shutdown_seconds: Option<IdleSeconds>,
    /// Raised by each change; the first is 1.
    pub revision: u64,
    pub by: String,
    pub at: Millis,
}

/// A compute instance, with the compute resource that it is while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceView {
    #[serde(flatten)]
    pub instance: InstanceRow,
    /// None while it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<ComputeView>,
}

/// The compute instances of a user, by name; or a page of those of all users.
///
/// * `next`: where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Instances {
    pub instances: Vec<InstanceView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
