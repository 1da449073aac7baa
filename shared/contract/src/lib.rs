//! All JSON that crosses a border: messages in queues, rows in the table, bodies over HTTP. One
//! type for each, with its schema.
//!
//! This crate sends nothing and stores nothing. What the words mean is in [`lifecycle`].
//!
//! * [`command`]: what anybody may send to the commands queue.
//! * [`step`]: what the state machine sends to the handlers' queues.
//! * [`connections`]: connections that the service keeps.
//! * [`driver`]: what the handlers ask of a compute driver, and what it reports.
//! * [`agent`]: what the handlers tell a session's agent, and what it reports, signed.
//! * [`packages`]: what a session has installed, and how that came about.
//! * [`people`]: who has which role in a workspace.
//! * [`notice`]: what a user is to be told of without asking.
//! * [`tick`]: what the schedule sends.
//! * [`row`]: what the table holds.
//! * [`http`]: what the HTTP front answers.
//! * [`route`]: its routes.
//! * [`snapshot`]: flow folders and data for functions that do not see the user's machine.
//! * [`stored`]: the files of runs, likewise.
//! * [`workspace`]: the settings of a workspace.
//! * [`webhook`]: what signed requests from outside mean.
//! * [`names`]: the names of queues and environment variables.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

pub mod agent;
mod bounds;
pub mod command;
pub mod connections;
pub mod driver;
pub mod http;
pub mod instance;
pub mod names;
pub mod network;
pub mod notice;
pub mod packages;
pub mod people;
pub mod route;
pub mod row;
pub mod snapshot;
pub mod step;
pub mod stored;
pub mod tick;
pub mod webhook;
pub mod workspace;

pub use bounds::{IdleSeconds, is_name};

pub use lifecycle::{
    Code, Failure, Millis,
    access::{Principal, Role},
    compute::Slot,
    session::{Kind, Named, Origin, Outcome, Phase, Settings, Step},
};

/// JSON as SQS takes it. Two characters that JSON may have are escaped, as no message may have
/// them.
///
/// # Source
///
/// `SendMessage` in the SQS API reference: which characters a message may have.
pub fn message(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    if text.contains(['\u{fffe}', '\u{ffff}']) {
        return Ok(text.replace('\u{fffe}', r"\ufffe").replace('\u{ffff}', r"\uffff"));
    }
    Ok(text)
}

/// A flow, as its users name it.
///
/// * `workspace`: the workspace's name; `local` on one machine.
/// * `owner`: the user whose session it is. Two people who cloned the same repository have two
///   flows.
/// * `lineage`: what stays the same when the flow is edited: its canonical folder on one machine.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct FlowRef {
    #[serde(deserialize_with = "bounds::name")]
    #[schemars(length(max = 100), regex(pattern = bounds::NAME))]
    pub workspace: String,
    #[serde(deserialize_with = "bounds::name")]
    #[schemars(length(max = 100), regex(pattern = bounds::NAME))]
    pub owner: String,
    #[serde(deserialize_with = "bounds::line")]
    #[schemars(length(max = 1000), regex(pattern = bounds::LINE))]
    pub lineage: String,
}

impl FlowRef {
    /// The flow's key: 32 hex digits, the same for the same flow for ever.
    pub fn key(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for part in [&self.workspace, &self.owner, &self.lineage] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex::encode(&hash.finalize()[..16])
    }
}
