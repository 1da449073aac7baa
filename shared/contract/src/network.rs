//! Connections that a session's network settings refused.

use crate::Millis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts since the session was launched.
///
/// * `total`: how often anything was refused; of two counts the larger is the later.
/// * `others`: how often what is not in `by`, which is bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    pub total: u64,
    pub by: Vec<Refusal>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A destination that was refused.
///
/// * `to`: as people call it, such as `example.org:443 (10.0.0.1)`.
/// * `why`: what it is, such as `private`, or `not named`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    pub to: String,
    pub why: String,
    pub times: u64,
}

/// The refused connections of a flow's session, as last recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkRow {
    pub generation: u32,
    pub at: Millis,
    pub refused: Refused,
}
