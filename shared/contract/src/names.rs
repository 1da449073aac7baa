//! Names that the template, the functions and the host must agree on.

/// A queue's name is its key here behind the deployment's prefix; a handler finds its URL in the
/// environment variable.
pub struct Queue {
    /// As in the template: `commands.fifo`.
    pub name: &'static str,
    /// The environment variable that holds its URL.
    pub url_variable: &'static str,
}

pub const COMMANDS: Queue = Queue {
    name: "commands.fifo",
    url_variable: "PFSESSION_COMMANDS_URL",
};
pub const START_SESSION: Queue = Queue {
    name: "start-session",
    url_variable: "PFSESSION_START_SESSION_URL",
};
pub const INSTALL_PACKAGES: Queue = Queue {
    name: "install-packages",
    url_variable: "PFSESSION_INSTALL_PACKAGES_URL",
};
pub const STOP_SESSION: Queue = Queue {
    name: "stop-session",
    url_variable: "PFSESSION_STOP_SESSION_URL",
};
pub const IDLE_TICKS: Queue = Queue {
    name: "idle-ticks",
    url_variable: "PFSESSION_IDLE_TICKS_URL",
};
pub const REPORTS: Queue = Queue {
    name: "reports",
    url_variable: "PFSESSION_REPORTS_URL",
};
pub const COMPUTE_REQUESTS: Queue = Queue {
    name: "compute-requests",
    url_variable: "PFSESSION_COMPUTE_REQUESTS_URL",
};

/// The queue of bodies that are no command.
pub const COMMANDS_DEAD: Queue = Queue {
    name: "commands-dead.fifo",
    url_variable: "PFSESSION_COMMANDS_DEAD_URL",
};

/// The queue of notices to users; see [`crate::notice`].
pub const NOTICES: Queue = Queue {
    name: "notices",
    url_variable: "PFSESSION_NOTICES_URL",
};

/// The URL of the queue that feeds the function, to shorten the visibility of what it hands back.
pub const OWN_QUEUE: &str = "PFSESSION_OWN_QUEUE_URL";
/// The table's name.
pub const TABLE: &str = "PFSESSION_TABLE";
/// The state machine's ARN.
pub const STATE_MACHINE: &str = "PFSESSION_STATE_MACHINE";
/// The sender ids, separated by commas, that may speak for somebody else: this system's own roles.
pub const TRUSTED_SENDERS: &str = "PFSESSION_TRUSTED_SENDERS";
/// The sender ids, separated by commas, that may say what a workspace's rules say, and nothing
/// else: the function `webhook`.
pub const WEBHOOK_SENDERS: &str = "PFSESSION_WEBHOOK_SENDERS";
/// The secrets of webhooks: a JSON object from `workspace/sender` to a list of secrets, the current
/// one first; or the path of a file with that, which is read for each delivery.
pub const WEBHOOK_SECRETS: &str = "PFSESSION_WEBHOOK_SECRETS";
/// The address that webhooks are sent to, with a slash at its end.
pub const WEBHOOK_ADDRESS: &str = "PFSESSION_WEBHOOK_ADDRESS";
/// The sender ids, separated by commas, that are compute drivers.
pub const DRIVER_SENDERS: &str = "PFSESSION_DRIVER_SENDERS";
/// The public key, PEM, of who issues bearer tokens.
pub const ISSUER_KEY: &str = "PFSESSION_ISSUER_KEY";
/// The address of the OpenID Connect issuer of bearer tokens; empty where there is a key.
pub const ISSUER_URL: &str = "PFSESSION_ISSUER_URL";
/// The audience of that issuer's tokens for this service.
pub const ISSUER_AUDIENCE: &str = "PFSESSION_ISSUER_AUDIENCE";
/// The claims of that issuer's tokens that name user, workspace and roles, as JSON.
pub const ISSUER_CLAIMS: &str = "PFSESSION_ISSUER_CLAIMS";
/// The most sessions that one user has at once.
pub const SESSIONS_PER_USER: &str = "PFSESSION_SESSIONS_PER_USER";
/// The roles, separated by commas, that a session may be started with where compute is on AWS.
pub const IDENTITIES: &str = "PFSESSION_IDENTITIES";
/// The subnets of compute on EC2; empty where compute is a machine that is there.
pub const COMPUTE_SUBNETS: &str = "PFSESSION_COMPUTE_SUBNETS";
/// The bucket for snapshots of flow folders; empty where the functions see the folders themselves.
pub const FLOWS_BUCKET: &str = "PFSESSION_FLOWS_BUCKET";
/// Prefix of the names of connections' secrets in Secrets Manager; empty where the machine keeps
/// connections itself.
pub const CONNECTIONS_PREFIX: &str = "PFSESSION_CONNECTIONS_PREFIX";
/// The variable with the address of the service's HTTP front, for a session's agent.
/// `compute-ecs.asl.json` sets it.
pub const SERVICE: &str = "PFSESSION_SERVICE";
/// The folder of the runs' own folders, where functions see it; empty where they do not.
pub const RUNS_FOLDER: &str = "PFSESSION_RUNS_FOLDER";
/// The variable with the settings of an agent in a container: [`crate::agent::AgentSettings`] in
/// JSON. `compute-ecs.asl.json` sets it.
pub const AGENT: &str = "PFSESSION_AGENT";

/// The CloudWatch namespace of this deployment's metrics; empty if nobody collects them.
pub const METRICS: &str = "PFSESSION_METRICS";

/// The name of the queue of a session's agent, behind the deployment's prefix. Each generation has
/// its own.
pub fn agent_queue(flow: &str, generation: u32) -> String {
    format!("agent-{flow}-{generation}")
}

/// The URL of the queue of a session's agent, which is beside the queue of compute requests and has
/// the same prefix. `None` if that is no URL of a queue of compute requests: the template is wrong.
pub fn agent_queue_url(compute_requests_url: &str, flow: &str, generation: u32) -> Option<String> {
    let before = compute_requests_url.strip_suffix(COMPUTE_REQUESTS.name)?;
    Some(format!("{before}{}", agent_queue(flow, generation)))
}

/// The index on the due time: partition `due_shard`, sort `due_at`.
pub const DUE_INDEX: &str = "due";
/// The index on the owner: partition `owner`, sort `pk`.
pub const OWNER_INDEX: &str = "owner";
/// The number of shards of the due index.
pub const DUE_SHARDS: u32 = 4;
