//! What the state machine sends to the queues `start-session`, `install-packages` and `stop-session`.

use crate::{Kind, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A step of an operation. It ends when `token` is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepMessage {
    pub step: Step,
    /// The flow's key.
    pub flow: String,
    pub operation: String,
    pub token: String,
    /// For a clean-up: what the state machine caught.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Caught>,
}

/// What a state machine's `Catch` hands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Caught {
    #[serde(rename = "Error")]
    pub error: String,
    #[serde(rename = "Cause", default)]
    pub cause: String,
}

/// The input of an execution of the state machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecutionInput {
    pub flow: String,
    pub operation: String,
    pub kind: Kind,
}
