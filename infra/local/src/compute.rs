//! The compute driver's side of the host: hands it what `compute-requests` says, and takes what it
//! reports.

use crate::{
    access::{Access, Caller},
    faults::Faults,
    queues::{Message, New, Queue, Queues, Settings},
    sqs::REGION,
};
use agent::AgentCredentials;
use anyhow::Context;
use contract::{
    Code,
    driver::{ComputeRequest, DriverReport},
    names,
};
use driver::{
    Answer, Driver, DriverConfig, HostPorts, Platform,
    requests::{Delivery, Lanes},
};
use std::{future::ready, path::PathBuf, sync::Arc, time::Duration};

/// The ports of the driver to the host.
struct Ports {
    queues: Arc<Queues>,
    access: Arc<Access>,
    reports: Arc<Queue>,
}

impl HostPorts for Ports {
    fn report(&self, report: DriverReport) -> Answer<'_, ()> {
        let sent = serde_json::to_string(&report)
            .map_err(anyhow::Error::from)
            .and_then(|body| {
                let message = New {
                    body,
                    sender: Caller::Driver.sender(),
                    ..New::default()
                };
                Ok(self.queues.send(&self.reports, vec![message])?)
            });
        Box::pin(ready(sent.map(|_| ())))
    }

    fn issue_agent_credentials(&self, flow: &str, generation: u32) -> Answer<'_, AgentCredentials> {
        let issued = self.access.issue(Caller::Agent {
            flow: flow.to_owned(),
            generation,
        });
        let credentials = issued.map(|(access_key, secret_key)| AgentCredentials {
            access_key,
            secret_key,
            session_token: None,
        });
        Box::pin(ready(credentials.map_err(Into::into)))
    }

    fn revoke_agent_credentials(&self, flow: &str, generation: u32) {
        if let Err(cause) = self.access.revoke(&Caller::Agent {
            flow: flow.to_owned(),
            generation,
        }) {
            tracing::error!(fault = Code::DriverCredentials.as_str(), cause = %cause, flow, generation, "an agent's key stays good");
        }
    }

    fn create_queue(&self, name: &str) -> Answer<'_, ()> {
        let made = self.queues.ensure(name, Settings::default());
        Box::pin(ready(made.map(|_| ()).map_err(Into::into)))
    }

    fn delete_queue(&self, name: &str) -> Answer<'_, ()> {
        let deleted = self.queues.delete(name);
        Box::pin(ready(deleted.map(|_| ()).map_err(Into::into)))
    }
}

/// The arguments of [`open`].
pub(crate) struct Opening {
    pub(crate) state: PathBuf,
    pub(crate) executable: PathBuf,
    pub(crate) endpoint: String,
    pub(crate) prefix: String,
}

fn queue(queues: &Queues, name: &str) -> anyhow::Result<Arc<Queue>> {
    queues
        .get(name)
        .with_context(|| format!("the template has no queue {name}"))
}

/// Opens the driver. It does nothing yet.
pub(crate) fn open(opening: Opening, queues: Arc<Queues>, access: Arc<Access>) -> anyhow::Result<Arc<Driver>> {
    let ports = Arc::new(Ports {
        queues: queues.clone(),
        access,
        reports: queue(&queues, names::REPORTS.name)?,
    });
    let config = DriverConfig {
        state: opening.state,
        executable: opening.executable,
        endpoint: Some(opening.endpoint),
        region: REGION.to_owned(),
        reports_queue_url: format!("{}{}", opening.prefix, names::REPORTS.name),
        agent_queue_prefix: opening.prefix,
        has_snapshots: false,
        service: None,
        ports,
    };
    Driver::open(Platform::Machine, config).context("the compute driver cannot be opened")
}

/// Consumes `compute-requests` until the host leaves.
pub(crate) async fn drive(driver: Arc<Driver>, queues: Arc<Queues>, faults: Arc<Faults>) -> anyhow::Result<()> {
    let requests = queue(&queues, names::COMPUTE_REQUESTS.name)?;
    driver.recover().await;

    let lanes = Lanes::new(driver);
    while !queues.are_closing() {
        let messages = match queues
            .receive_within(&requests, 10, None, Duration::from_secs(20))
            .await
        {
            Ok(messages) => messages,
            Err(cause) => {
                tracing::error!(fault = "Store", cause = %cause, "no compute request can be received now");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        for message in messages {
            match serde_json::from_str::<ComputeRequest>(&message.body) {
                Ok(request) => {
                    let received = Received {
                        message,
                        queues: queues.clone(),
                        queue: requests.clone(),
                        faults: faults.clone(),
                    };
                    lanes.line_up(request, received);
                }
                // It stays away longer each time, and ends in the dead-letter queue.
                Err(cause) => {
                    tracing::warn!(fault = Code::DriverMalformed.as_str(), cause = %cause, message = message.id, "this is no compute request")
                }
            }
        }
    }
    Ok(())
}

/// A message of `compute-requests` in flight.
struct Received {
    message: Message,
    queues: Arc<Queues>,
    queue: Arc<Queue>,
    faults: Arc<Faults>,
}

impl Received {
    fn stay_away(&self, milliseconds: i64) {
        let receipt = &self.message.receipt;
        if let Err(cause) = self.queues.change_visibility(&self.queue, receipt, milliseconds) {
            tracing::error!(fault = "Store", cause = %cause, "a compute request may come twice");
        }
    }
}

impl Delivery for Received {
    fn times(&self) -> u32 {
        self.message.received
    }

    async fn keep(&self) {
        self.stay_away(self.queue.settings().visibility);
    }

    async fn done(&self) {
        self.faults.pass("driver.handled");
        if let Err(cause) = self.queues.remove(&self.queue, &[&self.message.receipt]) {
            tracing::error!(fault = "Store", cause = %cause, "a compute request comes again");
        }
    }

    async fn again(&self, pause: Duration) {
        self.faults.pass("driver.handled");
        self.stay_away(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
    }
}
