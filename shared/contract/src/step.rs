//! Messages of the state machine to the queues `start-session`, `install-packages` and
//! `stop-session`.

use crate::{Code, Failure, Kind, Step, bounds};
use lifecycle::session::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A step of an operation. It ends when `token` is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepMessage {
    pub step: Step,
    /// The flow's key.
    #[serde(deserialize_with = "bounds::key")]
    #[schemars(regex(pattern = bounds::KEY))]
    pub flow: String,
    #[serde(deserialize_with = "bounds::id")]
    #[schemars(regex(pattern = bounds::ID))]
    pub operation: String,
    pub token: String,
    /// For a clean-up: what the state machine caught.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Caught>,
}

impl StepMessage {
    /// Reads a step from a message.
    ///
    /// # Errors
    ///
    /// `Step.Malformed`, final: only the state machine sends steps, and it sends them so.
    pub fn read(body: &str) -> Result<Self, Failure> {
        serde_json::from_str(body).map_err(|e| Failure::new(Code::StepMalformed, format!("This is no step: {e}.")))
    }

    /// The step, as the core knows it.
    pub fn event(&self) -> Event {
        let cause = self
            .cause
            .as_ref()
            .map(|caught| Failure::new(caught.error.clone(), &caught.cause));
        Event::StepEntered {
            operation: self.operation.clone(),
            step: self.step,
            token: self.token.clone(),
            compute: None,
            cause,
            image: None,
        }
    }
}

/// The error that a state machine's `Catch` hands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Caught {
    #[serde(rename = "Error")]
    pub error: Code,
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
