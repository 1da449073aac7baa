//! The place of an agent's session: in a sandbox on this machine, or in a container of its own.

use crate::{
    disk,
    spec::{AgentCredentials, AgentSpec},
    sqs,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_sqs::Client;
use contract::{
    Failure,
    agent::Greeting,
    packages::{Isolation, Tier},
};
use environments::{reach::Reach, rooted};
use std::io::{self, Write};

/// The place of an agent's session.
pub(crate) enum Place {
    /// In a sandbox on this machine, with the credentials that its driver gave. The driver waits
    /// for the first word on standard output.
    Machine(AgentCredentials),
    /// In a container of its own, which is the sandbox. Its driver asks for the first word by a
    /// token.
    Container(Container),
}

/// The place of an agent in a container of its own.
pub(crate) struct Container {
    pub(crate) queues: Client,
    pub(crate) credentials: SharedCredentialsProvider,
    pub(crate) machines: aws_sdk_sfn::Client,
    /// The reason for its end; its first word says so, and is its last.
    pub(crate) refused: Option<Failure>,
}

impl Place {
    /// The client of the session's queues.
    pub(crate) fn queues(&self, spec: &AgentSpec) -> Client {
        match self {
            Self::Machine(credentials) => sqs::client(spec.endpoint.as_deref(), &spec.region, credentials),
            Self::Container(container) => container.queues.clone(),
        }
    }

    /// The credentials that flow folders are read with: the driver's, or the container's.
    pub(crate) fn credentials(&self) -> SharedCredentialsProvider {
        match self {
            Self::Machine(AgentCredentials {
                access_key,
                secret_key,
                session_token,
            }) => {
                let credentials = Credentials::new(access_key, secret_key, session_token.clone(), None, "given");
                SharedCredentialsProvider::new(credentials)
            }
            Self::Container(container) => container.credentials.clone(),
        }
    }

    /// Whether the container is the sandbox, and its image the base image.
    pub(crate) fn is_container(&self) -> bool {
        matches!(self, Self::Container(_))
    }

    /// The failure of a session that may not go on.
    pub(crate) fn refusal(&self) -> Option<&Failure> {
        match self {
            Self::Machine(_) => None,
            Self::Container(container) => container.refused.as_ref(),
        }
    }

    /// Says the first word where nobody asks for it.
    ///
    /// # Errors
    ///
    /// When nobody reads standard output any more.
    pub(crate) fn say_up(&self) -> io::Result<()> {
        match self {
            Self::Machine(_) => {
                io::stdout().write_all(b"up\n")?;
                io::stdout().flush()
            }
            Self::Container(_) => Ok(()),
        }
    }

    /// Answers a token with the public half of the session's key, or with why it may not go on.
    /// Nobody on a machine has one.
    pub(crate) async fn answer(&self, token: String, key: String) {
        let Self::Container(container) = self else { return };
        let machines = &container.machines;
        let sent = match &container.refused {
            Some(failure) => {
                let sent = machines.send_task_failure().task_token(token);
                let sent = sent.error(failure.error.as_str()).cause(&failure.message).send().await;
                sent.map(|_| ()).map_err(|error| sqs::chain(&error))
            }
            None => {
                let output = serde_json::to_string(&Greeting { key }).expect("a key is always JSON");
                let sent = machines
                    .send_task_success()
                    .task_token(token)
                    .output(output)
                    .send()
                    .await;
                sent.map(|_| ()).map_err(|error| sqs::chain(&error))
            }
        };
        // One that was answered already, or is waited for no more, is no matter: who still waits
        // asks again.
        if let Err(error) = sent {
            tracing::warn!(error, "the first word was not taken");
        }
    }

    /// The isolation: what is held and what is not.
    ///
    /// * `closed`: what the sandbox inside it says of itself; `has_image`: whether an image is its
    ///   root.
    pub(crate) fn isolation(&self, mut closed: Isolation, reach: &Reach, has_image: bool) -> Isolation {
        match self {
            Self::Machine(_) => {
                closed.not_held.push(disk::NOT_HELD.into());
                closed.not_held.extend(has_image.then(|| rooted::NOT_HELD.into()));
                closed
            }
            Self::Container(_) => {
                let not_held = reach.not_held(closed.tier != Tier::D);
                Isolation {
                    tier: Tier::Container,
                    not_held: not_held.into_iter().map(str::to_owned).collect(),
                }
            }
        }
    }
}
