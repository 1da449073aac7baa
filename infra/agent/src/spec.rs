//! All that an agent's process is told when it is started.

use crate::{connections::Holder, tidy};
use contract::Settings;
use sandbox::{groups::Place, python::Python};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The credentials by which an agent signs its requests.
#[derive(Clone, Serialize, Deserialize)]
pub struct AgentCredentials {
    /// The access key id.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
    /// For those that AWS gives for a time.
    pub session_token: Option<String>,
}

/// All that an agent is told when it is started. It comes over standard input, as it holds secrets:
/// never in a file, an argument or an environment variable.
#[derive(Clone, Serialize, Deserialize)]
pub struct AgentSpec {
    /// The flow's key.
    pub flow: String,
    /// The address of the service's HTTP front, if it keeps the connections of its users.
    #[serde(default)]
    pub service: Option<String>,
    /// Whose session it is; none in a container, whose service knows it.
    #[serde(default)]
    pub holder: Option<Holder>,
    /// The image of its own container by digest, if it has one and its maker said it.
    #[serde(default)]
    pub image: Option<String>,
    /// The generation of the session.
    pub generation: u32,
    /// The settings of its start.
    pub settings: Settings,
    /// The state folder.
    pub state: PathBuf,
    /// The session's own folder.
    pub session: PathBuf,
    /// The address of SQS; `None` is AWS itself.
    pub endpoint: Option<String>,
    /// The region of the queues.
    pub region: String,
    /// The session's own queue, which commands come by.
    pub queue_url: String,
    /// The queue `reports`.
    pub reports_queue_url: String,
    /// The key that it signs its requests to the queues with; none in a container, which has its
    /// own.
    #[serde(default)]
    pub credentials: Option<AgentCredentials>,
    /// The private half of its own key: Ed25519, base64.
    pub private_key: String,
    /// Findings of the driver, to spare looking again.
    pub python: Option<Python>,
    /// The places where groups can be made.
    pub places: Vec<Place>,
    /// The session's user on this machine, if it is not the agent's.
    pub user: Option<u32>,
    /// Whether flow folders may be snapshots in an object store.
    pub has_snapshots: bool,
    /// The file of its log; `None`: that of its process.
    pub log: Option<PathBuf>,
}

/// The specification of an agent, as its process reads it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// It is the agent of this session.
    Session(Box<AgentSpec>),
    /// It removes what is over, and ends.
    Tidy(tidy::Task),
}
