//! A session's own queue, and what its agent reports to the queue `reports`.

use crate::{
    Failure, Outcome, Settings,
    command::RunWish,
    driver::DriverReport,
    network::Refused,
    packages::{Installation, Setup},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use lifecycle::{network::Network, size::Used};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A command to a session's agent. Each may come twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "one is read from a message and used; there are never many"
)]
pub enum AgentCommand {
    /// Say the first word: the public half of the key that it has made, as the answer of this
    /// token. Only agents in containers are told.
    Greet { token: String },
    /// Bring the environment to what the flow's requirements say. Answered by `installed` or
    /// `install-failed`; an install that was done already is answered again. A later attempt of the
    /// same operation takes over from an earlier one.
    ///
    /// `lock`: bring it to this lock, whatever the requirements say.
    Install {
        operation: String,
        attempt: u32,
        settings: Settings,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lock: Option<String>,
        /// Ask every index anew what the requirements are.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resolve: bool,
    },
    /// Leave the environment as it was, if this install is under way.
    CancelInstall { operation: String },
    /// Run this. Answered by `run-started` and `run-done`. A run that is known already is not run
    /// again.
    Run {
        run: String,
        settings: Settings,
        wish: RunWish,
    },
    /// End this run. Answered by `run-done`, also if it comes before the run itself; one that has
    /// ended is answered by its end alone.
    CancelRun { run: String },
    /// New network settings. Of two, the one of the larger revision counts.
    Network {
        revision: u64,
        network: Network,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allow_hosts: Vec<String>,
    },
    /// The lease counts from when the agent asked with this nonce.
    Lease { nonce: u64 },
}

/// An agent's answer to [`AgentCommand::Greet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Greeting {
    /// Ed25519, base64.
    pub key: String,
}

/// The settings of an agent in a container, in its environment variable [`crate::names::AGENT`]. No
/// secret is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentSettings {
    pub flow: String,
    pub generation: u32,
    pub settings: Settings,
    /// The image of the container, by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// An agent that comes up later than this ends itself at once.
    pub until: crate::Millis,
    pub queue_url: String,
    pub reports_queue_url: String,
    pub region: String,
}

/// A report of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum AgentReport {
    /// It asks for a lease, and has these runs in progress or their ends not yet reported.
    Alive {
        nonce: u64,
        runs: Vec<String>,
    },
    Installed {
        operation: String,
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warning: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        installation: Option<Box<Installation>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        setup: Option<Setup>,
    },
    InstallFailed {
        operation: String,
        attempt: u32,
        failure: Failure,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        setup: Option<Setup>,
    },
    /// A run has changed what is installed.
    Packages {
        run: String,
        installation: Box<Installation>,
    },
    /// The digest that the base image's name was resolved to, and the one it resolves to now if
    /// that is another.
    Image {
        digest: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        latest: Option<String>,
    },
    RunStarted {
        run: String,
    },
    RunDone {
        run: String,
        outcome: Outcome,
        result: RunResult,
    },
    /// Output of an operation or a run, for people to read as it comes. Lines have passed the
    /// redactor.
    Output {
        of: String,
        lines: Vec<OutputLine>,
    },
    /// Other use of the session. No agent of this version sends it.
    Activity,
    /// Connections refused so far.
    Refused {
        refused: Refused,
    },
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputLine {
    /// Counted from 0 for each operation or run: a line that comes twice is kept once.
    pub seq: u64,
    /// The time at which the agent saw it, in milliseconds since the Unix epoch.
    pub at: u64,
    pub kind: LineKind,
    pub text: String,
}

/// The kind of a line of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LineKind {
    /// A stage begins, such as "resolving 3 requirements" or "downloading numpy 2.1.0 (16 MB)".
    Stage,
    Stdout,
    Stderr,
    /// Pieces of an output, of a run that streams: a [`Chunk`] as JSON. A text that is none was cut
    /// on its way, and is left out.
    Chunk,
}

/// The output so far of a run that streams. It has a bound: the whole is the run's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Chunk {
    /// The outputs that come whole, `None` where only the run's end tells them, and the names of
    /// those that come in pieces.
    Begins {
        outputs: Option<serde_json::Map<String, serde_json::Value>>,
        names: Vec<String>,
    },
    /// The next pieces of the output of this name.
    GoesOn { name: String, texts: Vec<String> },
}

/// The end of a run.
///
/// * `outputs`: one object a line of data, in order; left out when they are larger than
///   [`MOST_INLINE_OUTPUTS`] bytes together.
/// * `outputs` are left out too when JSON as it travels here cannot hold one of them exactly (NaN,
///   40 digits, depth over 100).
/// * `metrics`: by name, what the flow's aggregation measured; `metrics.json` in the folder has
///   them exactly.
/// * `folder`: where the run's own output is: `outputs.jsonl`, `logs.txt` and what the flow wrote.
/// * `not_kept`: of what the flow wrote, what is not there, and why: links, and what was over a
///   bound.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    pub lines: u64,
    pub failed_lines: u64,
    /// The number of retries of lines, as its model provider had turned it away (429).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retried: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<serde_json::Value>,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub metrics: serde_json::Map<String, serde_json::Value>,
    pub folder: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The number of lines of output that were reported: reports may come in another order, and a
    /// reader with fewer waits for the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<u64>,
    /// Of a command: its exit code; 128 and the signal's number if a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_kept: Vec<String>,
    /// The address of the index of its files in the store, if the functions do not see `folder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The most bytes of outputs that a report carries; what is larger is in the run's folder alone.
pub const MOST_INLINE_OUTPUTS: usize = 100_000;

/// The most bytes of a report with its proof: what any queue takes, also one whose messages may
/// have 256 KiB.
///
/// # Source
///
/// SQS, *Message quotas*: 1 MiB by default; 256 KiB for queues that were made before August 2025 or
/// say so.
pub const MOST_REPORT: usize = 240 << 10;

/// A report with its proof: `signature` is over the bytes of `body`, and `body` is a [`SignedBody`]
/// in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedReport {
    pub body: String,
    /// Ed25519, base64.
    pub signature: String,
}

/// A message of the queue `reports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Report {
    /// From a session's agent, known by its signature.
    Agent(SignedReport),
    /// From a compute driver, known by the queue's own sender.
    Driver(DriverReport),
}

/// The signed part of an agent's report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SignedBody {
    pub flow: String,
    pub generation: u32,
    #[serde(flatten)]
    pub report: AgentReport,
}

impl SignedReport {
    /// Signs a report with the session's own key.
    pub fn sign(key: &SigningKey, body: &SignedBody) -> Self {
        sign(key, body)
    }

    /// Whether the body was signed by the owner of `key` (public half, base64).
    pub fn is_signed_by(&self, key: &str) -> bool {
        let key = BASE64
            .decode(key)
            .ok()
            .and_then(|k| VerifyingKey::from_bytes(k.as_slice().try_into().ok()?).ok());
        let signature = BASE64
            .decode(&self.signature)
            .ok()
            .and_then(|s| Signature::from_slice(&s).ok());
        match (key, signature) {
            (Some(key), Some(signature)) => key.verify(self.body.as_bytes(), &signature).is_ok(),
            _ => false,
        }
    }
}

/// Signs something that a session says, with its own key.
pub fn sign(key: &SigningKey, what: &impl Serialize) -> SignedReport {
    let body = serde_json::to_string(what).expect("what a session says is always JSON");
    let signature = BASE64.encode(key.sign(body.as_bytes()).to_bytes());
    SignedReport { body, signature }
}

/// The public half of a session's key, as it is stored.
pub fn public_half(key: &SigningKey) -> String {
    BASE64.encode(key.verifying_key().to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_only_with_the_signature_of_its_own_session_over_its_own_words() {
        let (mine, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let body = SignedBody {
            flow: "f".into(),
            generation: 1,
            report: AgentReport::Activity,
        };
        let signed = SignedReport::sign(&mine, &body);
        assert!(signed.is_signed_by(&public_half(&mine)));
        assert!(!signed.is_signed_by(&public_half(&other)));
        let altered = SignedReport {
            body: signed.body.replace("\"f\"", "\"g\""),
            ..signed.clone()
        };
        assert!(!altered.is_signed_by(&public_half(&mine)));
        assert!(
            !SignedReport {
                signature: "x".into(),
                ..signed
            }
            .is_signed_by("y")
        );
    }
}
