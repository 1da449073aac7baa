//! The compute driver's side of the host: hands it what `compute-requests` says, and takes what it reports.

use crate::{
    access::{Access, Caller},
    faults::Faults,
    queues::{Message, New, Queue, Queues, Settings},
    sqs::REGION,
};
use agent::driver::{Driver, DriverConfig, HostPorts};
use anyhow::Context;
use contract::{
    driver::{ComputeRequest, DriverReport},
    names,
};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

/// How often the visibility of what is being worked on is extended.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// The longest pause before a request that failed is tried again, in milliseconds.
const LONGEST_BACKOFF: i64 = 30_000;

/// What the driver may use of the host.
struct Ports {
    queues: Arc<Queues>,
    access: Arc<Access>,
    reports: Arc<Queue>,
}

impl HostPorts for Ports {
    fn report(&self, report: DriverReport) {
        let body = match serde_json::to_string(&report) {
            Ok(body) => body,
            Err(cause) => return tracing::error!(fault = "Driver.Report", cause = %cause, "a report cannot be written"),
        };
        let message = New {
            body,
            sender: Caller::Driver.sender(),
            ..New::default()
        };
        if let Err(cause) = self.queues.send(&self.reports, vec![message]) {
            tracing::error!(fault = "Driver.Report", cause = %cause, "a report is lost; the sweep will ask again");
        }
    }

    fn issue_agent_credentials(&self, flow: &str, generation: u32) -> anyhow::Result<(String, String)> {
        Ok(self.access.issue(Caller::Agent {
            flow: flow.to_owned(),
            generation,
        })?)
    }

    fn revoke_agent_credentials(&self, flow: &str, generation: u32) {
        if let Err(cause) = self.access.revoke(&Caller::Agent {
            flow: flow.to_owned(),
            generation,
        }) {
            tracing::error!(fault = "Driver.Credentials", cause = %cause, flow, generation, "an agent's key stays good");
        }
    }

    fn create_queue(&self, name: &str) -> anyhow::Result<()> {
        self.queues.ensure(name, Settings::default())?;
        Ok(())
    }

    fn delete_queue(&self, name: &str) -> anyhow::Result<()> {
        self.queues.delete(name)?;
        Ok(())
    }
}

/// What the driver is opened with.
pub(crate) struct Opening {
    pub(crate) state: PathBuf,
    pub(crate) executable: PathBuf,
    pub(crate) endpoint: String,
    pub(crate) prefix: String,
    pub(crate) user: String,
}

/// Requests of one flow or compute resource, waiting their turn.
type Lanes = Arc<Mutex<HashMap<String, mpsc::UnboundedSender<(Message, ComputeRequest)>>>>;

/// Consumes `compute-requests` until the host leaves.
pub(crate) async fn drive(
    opening: Opening,
    queues: Arc<Queues>,
    access: Arc<Access>,
    faults: Arc<Faults>,
) -> anyhow::Result<()> {
    let queue = |name: &str| {
        queues
            .get(name)
            .with_context(|| format!("the template has no queue {name}"))
    };
    let (requests, reports) = (queue(names::COMPUTE_REQUESTS.name)?, queue(names::REPORTS.name)?);
    let ports = Arc::new(Ports {
        queues: queues.clone(),
        access,
        reports,
    });
    let driver = Driver::open(DriverConfig {
        state: opening.state,
        executable: opening.executable,
        endpoint: opening.endpoint,
        region: REGION.to_owned(),
        reports_queue_url: format!("{}{}", opening.prefix, names::REPORTS.name),
        agent_queue_prefix: opening.prefix,
        user: opening.user,
        ports,
    })
    .context("the compute driver cannot be opened")?;
    driver.recover().await;

    let lanes = Lanes::default();
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
                    let worker = Worker {
                        driver: driver.clone(),
                        queues: queues.clone(),
                        queue: requests.clone(),
                        faults: faults.clone(),
                    };
                    worker.line_up(&lanes, message, request);
                }
                // It stays away longer each time, and ends in the dead-letter queue.
                Err(cause) => {
                    tracing::warn!(fault = "Driver.Malformed", cause = %cause, message = message.id, "this is no compute request")
                }
            }
        }
    }
    Ok(())
}

struct Worker {
    driver: Arc<Driver>,
    queues: Arc<Queues>,
    queue: Arc<Queue>,
    faults: Arc<Faults>,
}

/// What has to wait for each other.
fn lane_of(request: &ComputeRequest) -> String {
    match request {
        ComputeRequest::CreateCompute { compute, .. } | ComputeRequest::ReleaseCompute { compute } => {
            format!("compute {compute}")
        }
        ComputeRequest::LaunchSession { flow, .. } | ComputeRequest::RemoveSession { flow, .. } => {
            format!("flow {flow}")
        }
    }
}

impl Worker {
    /// Puts a request behind those of its flow; whoever is first works through them.
    fn line_up(self, lanes: &Lanes, message: Message, request: ComputeRequest) {
        let lane = lane_of(&request);
        let mut all = lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let work = match all.get(&lane) {
            Some(others) => match others.send((message, request)) {
                Ok(()) => return,
                Err(mpsc::error::SendError(work)) => work,
            },
            None => (message, request),
        };
        let (sender, mut inbox) = mpsc::unbounded_channel();
        let _ = sender.send(work);
        all.insert(lane.clone(), sender);
        drop(all);
        let lanes = lanes.clone();
        tokio::spawn(async move {
            loop {
                while let Ok((message, request)) = inbox.try_recv() {
                    self.work(message, request).await;
                }
                let mut all = lanes.lock().unwrap_or_else(PoisonError::into_inner);
                if inbox.is_empty() {
                    all.remove(&lane);
                    return;
                }
            }
        });
    }

    async fn work(&self, message: Message, request: ComputeRequest) {
        let lane = lane_of(&request);
        let driver = self.driver.clone();
        // A task of its own, so that a panic in it is a failure like another.
        let mut work = tokio::spawn(async move { driver.handle(request).await });
        let outcome = loop {
            match tokio::time::timeout(HEARTBEAT, &mut work).await {
                Ok(done) => break done.map_err(anyhow::Error::from).and_then(|outcome| outcome),
                Err(_) => {
                    let visibility = self.queue.settings().visibility;
                    if let Err(cause) = self.queues.change_visibility(&self.queue, &message.receipt, visibility) {
                        tracing::warn!(fault = "Store", cause = %cause, "a compute request may come twice");
                    }
                }
            }
        };
        self.faults.pass("driver.handled");
        let settled = match outcome {
            Ok(()) => self.queues.remove(&self.queue, &[&message.receipt]),
            Err(cause) => {
                let backoff = (500i64 << message.received.saturating_sub(1).min(10)).min(LONGEST_BACKOFF);
                tracing::warn!(
                    fault = "Driver.Failed",
                    cause = format!("{cause:#}"),
                    lane,
                    again_in = backoff,
                    "a compute request comes again"
                );
                self.queues
                    .change_visibility(&self.queue, &message.receipt, backoff)
                    .map(|_| ())
            }
        };
        if let Err(cause) = settled {
            tracing::error!(fault = "Store", cause = %cause, lane, "a compute request comes again");
        }
    }
}
