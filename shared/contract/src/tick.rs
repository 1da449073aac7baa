//! The queue `idle-ticks`: what the schedule sends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Look at one shard of what is due, or at all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tick {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
}
