//! The compute driver of this machine for a control plane that runs elsewhere: on AWS, or on
//! anything that answers as SQS does. That makes the machine a compute instance.
//!
//! It takes requests from the queue `compute-requests` and reports to `reports`, both by SQS's own
//! protocol, with AWS's usual variables. It makes each session's own queue and deletes it. An agent
//! speaks to the control plane itself, with this driver's credentials: it is outside the sandbox,
//! on a machine whose owner gave them.
//!
//! When it leaves, its sessions go on, as they do when a host on this machine leaves; the next
//! start finds them again. If none comes, the control plane's stop ends them all the same, by their
//! leases.

use crate::{
    compute::{Answer, DriverConfig, HostPorts},
    dispatch::Driver,
    platform::Platform,
    requests::{Delivery, Lanes},
};
use agent::{AgentCredentials, sqs};
use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::MessageSystemAttributeName,
};
use contract::{
    Code, Failure,
    driver::{ComputeRequest, DriverReport},
    names,
};
use std::{
    fs,
    future::ready,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// The time that a request is kept from others at a time, in seconds; it is longer than
/// [`Delivery::keep`] asks for.
const KEPT: i32 = 60;
/// The number of tries of a report before its sender is told that it was not taken.
const TRIES: u32 = 4;
/// The longest time that what is being worked on may take to end when the driver leaves.
const LEAVING: Duration = Duration::from_secs(10);
/// The longest pause before a queue that does not answer is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The address of a control plane, and the clients for it.
#[derive(Clone)]
pub struct ControlPlane {
    /// Without one, AWS itself.
    pub endpoint: Option<String>,
    pub region: String,
    pub credentials: AgentCredentials,
    /// The prefix of its queues' names.
    pub queue_prefix: String,
}

impl ControlPlane {
    /// The control plane that AWS's usual variables lead to.
    ///
    /// # Errors
    ///
    /// A failure that says which variable is missing. Final.
    ///
    /// # Source
    ///
    /// "Environment variables to configure the AWS CLI" and "Service-specific endpoints" in the AWS
    /// SDKs and tools reference guide.
    pub fn from_environment(queue_prefix: &str) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = variable("AWS_REGION")
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .ok_or_else(|| {
                Failure::new(
                    Code::DriverNoRegion,
                    "The control plane's region is not known. Set AWS_REGION.",
                )
            })?;
        let (access_key, secret_key) = variable("AWS_ACCESS_KEY_ID")
            .zip(variable("AWS_SECRET_ACCESS_KEY"))
            .ok_or_else(|| {
                Failure::new(
                    Code::DriverNoCredentials,
                    "There are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if there is one); \
                     `eval \"$(aws configure export-credentials --format env)\"` sets those of a profile.",
                )
            })?;
        Ok(Self {
            endpoint: variable("AWS_ENDPOINT_URL_SQS").or_else(|| variable("AWS_ENDPOINT_URL")),
            region,
            credentials: AgentCredentials {
                access_key,
                secret_key,
                session_token: variable("AWS_SESSION_TOKEN"),
            },
            queue_prefix: queue_prefix.to_owned(),
        })
    }

    fn place(&self) -> String {
        self.endpoint
            .clone()
            .unwrap_or_else(|| format!("SQS in {}", self.region))
    }
}

/// The configuration of a driver that serves.
///
/// * `state`: the folder that it keeps everything in; one driver or host at a time.
/// * `executable`: the program whose `agent` subcommand calls [`agent::supervise`].
/// * `end_sessions`: whether its sessions end when it leaves.
pub struct Config {
    /// The platform that the sessions run on.
    pub platform: Platform,
    pub control_plane: ControlPlane,
    pub state: PathBuf,
    pub executable: PathBuf,
    pub end_sessions: bool,
    /// The address of the control plane's HTTP front, if sessions have the connections that it
    /// keeps.
    pub service: Option<String>,
}

/// The findings of a driver that begins to serve.
pub struct Serving {
    /// The URL of the queue that it takes requests from.
    pub requests: String,
    /// The number of sessions that outlived the driver before.
    pub sessions: usize,
}

/// Serves until SIGTERM or SIGINT. Gives back how many sessions go on without it.
///
/// * `serving`: called once requests are taken.
///
/// # Errors
///
/// `Driver.Unreachable`, `Driver.Refused`, `Driver.NoQueue`: what the queues said when they were
/// looked for. `Driver.AlreadyRunning`: another driver or host has the state folder.
/// `Driver.Failed`: the state folder cannot be used, or not all sessions could be ended. Each is
/// final until what it names is put right.
pub async fn serve(config: Config, serving: impl FnOnce(&Serving)) -> Result<usize, Failure> {
    let place = config.control_plane.place();
    let failed = |error: anyhow::Error| Failure::new(Code::DriverFailed, format!("The driver cannot work: {error:#}."));
    let ControlPlane {
        endpoint,
        region,
        credentials,
        queue_prefix,
    } = config.control_plane;
    let client = sqs::client(endpoint.as_deref(), &region, &credentials);
    let _lock = lock(&config.state)?;
    let requests = find(
        &client,
        &format!("{queue_prefix}{}", names::COMPUTE_REQUESTS.name),
        &place,
    )
    .await?;
    let reports = find(&client, &format!("{queue_prefix}{}", names::REPORTS.name), &place).await?;
    // A session's own queue stands beside the queue of the reports.
    let beside = reports.strip_suffix(names::REPORTS.name).unwrap_or(&reports).to_owned();
    let driver = Driver::open(
        config.platform,
        DriverConfig {
            state: config.state,
            executable: config.executable,
            endpoint,
            region,
            reports_queue_url: reports.clone(),
            agent_queue_prefix: beside.clone(),
            has_snapshots: true,
            service: config.service,
            ports: Arc::new(Ports {
                client: client.clone(),
                reports,
                beside,
                queue_prefix,
                credentials,
            }),
        },
    )
    .map_err(failed)?;
    let mut signals = (
        signal(SignalKind::terminate()).map_err(|e| failed(e.into()))?,
        signal(SignalKind::interrupt()).map_err(|e| failed(e.into()))?,
    );
    driver.recover().await;
    serving(&Serving {
        requests: requests.clone(),
        sessions: driver.count(),
    });

    let lanes = Lanes::new(driver.clone());
    tokio::select! {
        () = take_requests(&client, &requests, &place, &lanes) => {}
        _ = signals.0.recv() => {}
        _ = signals.1.recv() => {}
    }
    leave(&driver, &lanes, config.end_sessions).await.map_err(failed)
}

/// Waits for what is being worked on, for as long as that may take. Returns how many sessions go
/// on.
async fn leave(driver: &Driver, lanes: &Lanes<Received>, end_sessions: bool) -> anyhow::Result<usize> {
    if tokio::time::timeout(LEAVING, lanes.are_empty()).await.is_err() {
        tracing::warn!("the driver leaves while something is being worked on: that comes again");
    }
    if end_sessions {
        let why = "The driver of the session's machine was ended. Start the session again when there is another.";
        driver.end_all(&Failure::new(Code::SessionMachineLeft, why)).await?;
    }
    let sessions = driver.count();
    if sessions == 0 {
        driver.let_go();
    }
    Ok(sessions)
}

/// Takes the state folder for this driver, as long as the file is open. A host on this machine
/// takes the same lock.
fn lock(state: &Path) -> Result<fs::File, Failure> {
    let place = state.display();
    let unusable = |error: std::io::Error| {
        Failure::new(
            Code::DriverFailed,
            format!("The state folder {place} cannot be used: {error}."),
        )
    };
    fs::create_dir_all(state).map_err(unusable)?;
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(state.join("lock"))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Failure::new(
            Code::DriverAlreadyRunning,
            format!("Another driver or service keeps {place}. End it, or name another folder with --state."),
        )),
        Err(fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}

async fn find(client: &Client, name: &str, place: &str) -> Result<String, Failure> {
    let found = client.get_queue_url().queue_name(name).send().await;
    match found {
        Ok(found) => Ok(found.queue_url.unwrap_or_default()),
        Err(error) => Err(meaning(&error, name, place)),
    }
}

/// Maps an error of a queue to a failure for the user of the driver.
fn meaning<E: ProvideErrorMetadata + std::error::Error + 'static>(
    error: &SdkError<E>,
    queue: &str,
    place: &str,
) -> Failure {
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let code = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
        .unwrap_or("");
    match error {
        SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => Failure::new(
            Code::DriverUnreachable,
            format!(
                "{place} cannot be reached: {}. See that AWS_ENDPOINT_URL and AWS_REGION are right, and that this machine is online.",
                sqs::chain(error)
            ),
        ),
        _ if code.ends_with("QueueDoesNotExist") || code.ends_with("NonExistentQueue") => Failure::new(
            Code::DriverNoQueue,
            format!(
                "{place} has no queue {queue}. See that the control plane is deployed to this account and region, and what --queue-prefix \
                 is to be."
            ),
        ),
        _ if status == 403 || code.contains("AccessDenied") || code.contains("Token") || code.contains("Signature") => {
            Failure::new(
                Code::DriverRefused,
                format!(
                    "{place} refuses these credentials for the queue {queue}: {code}. Set those of a user or role that may use it."
                ),
            )
        }
        _ => Failure::new(
            Code::DriverFailed,
            format!(
                "{place} did not answer as SQS does for the queue {queue} (status {status}): {}.",
                sqs::chain(error)
            ),
        ),
    }
}

/// Hands requests on, for as long as there is a driver.
#[expect(clippy::cognitive_complexity, reason = "it counts what the macros of the log become")]
async fn take_requests(client: &Client, requests: &str, place: &str, lanes: &Arc<Lanes<Received>>) {
    let mut pause = Duration::ZERO;
    loop {
        let received = client
            .receive_message()
            .queue_url(requests)
            .max_number_of_messages(10)
            .wait_time_seconds(20)
            .visibility_timeout(KEPT)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .send()
            .await;
        let messages = match received {
            Ok(received) => {
                if pause > Duration::ZERO {
                    tracing::info!("the control plane answers again");
                }
                pause = Duration::ZERO;
                received.messages.unwrap_or_default()
            }
            Err(error) => {
                if pause.is_zero() {
                    let failure = meaning(&error, requests, place);
                    tracing::error!(
                        fault = failure.error.as_str(),
                        cause = failure.message,
                        "no request can be taken now"
                    );
                }
                pause = (pause * 2).clamp(Duration::from_millis(500), LONGEST_PAUSE);
                tokio::time::sleep(pause).await;
                continue;
            }
        };
        for message in messages {
            match serde_json::from_str::<ComputeRequest>(message.body().unwrap_or_default()) {
                Ok(request) => {
                    let times = message
                        .attributes()
                        .and_then(|all| all.get(&MessageSystemAttributeName::ApproximateReceiveCount));
                    let received = Received {
                        times: times.and_then(|text| text.parse().ok()).unwrap_or(1),
                        client: client.clone(),
                        queue: requests.to_owned(),
                        receipt: message.receipt_handle.unwrap_or_default(),
                    };
                    lanes.line_up(request, received);
                }
                // It comes again until it is in the dead-letter queue.
                Err(cause) => tracing::warn!(
                    fault = Code::DriverMalformed.as_str(),
                    cause = %cause,
                    message = message.message_id,
                    "this is no compute request"
                ),
            }
        }
    }
}

/// A request in flight.
struct Received {
    client: Client,
    queue: String,
    receipt: String,
    times: u32,
}

impl Received {
    async fn stay_away(&self, seconds: i32) {
        let changed = self
            .client
            .change_message_visibility()
            .queue_url(&self.queue)
            .receipt_handle(&self.receipt)
            .visibility_timeout(seconds)
            .send()
            .await;
        if let Err(error) = changed {
            tracing::warn!(error = %sqs::chain(&error), "a compute request may come twice, or late");
        }
    }
}

impl Delivery for Received {
    fn times(&self) -> u32 {
        self.times
    }

    async fn keep(&self) {
        self.stay_away(KEPT).await;
    }

    async fn done(&self) {
        let deleted = self
            .client
            .delete_message()
            .queue_url(&self.queue)
            .receipt_handle(&self.receipt)
            .send()
            .await;
        if let Err(error) = deleted {
            tracing::warn!(error = %sqs::chain(&error), "a compute request that was done comes again");
        }
    }

    async fn again(&self, pause: Duration) {
        self.stay_away(i32::try_from(pause.as_secs()).unwrap_or(KEPT)).await;
    }
}

/// The ports of the driver to the control plane.
struct Ports {
    client: Client,
    reports: String,
    /// The URL before the name of a session's own queue, and that name's own beginning.
    beside: String,
    queue_prefix: String,
    credentials: AgentCredentials,
}

impl HostPorts for Ports {
    fn report(&self, report: DriverReport) -> Answer<'_, ()> {
        Box::pin(async move {
            let body = contract::message(&report)?;
            let mut pause = Duration::from_millis(50);
            for left in (0..TRIES).rev() {
                let sent = self
                    .client
                    .send_message()
                    .queue_url(&self.reports)
                    .message_body(&body)
                    .send()
                    .await;
                match sent {
                    Ok(_) => return Ok(()),
                    Err(error) if left == 0 => {
                        anyhow::bail!("a report was not taken: {}", sqs::chain(&error));
                    }
                    Err(_) => tokio::time::sleep(pause).await,
                }
                pause *= 4;
            }
            Ok(())
        })
    }

    /// This driver's own.
    fn issue_agent_credentials(&self, _flow: &str, _generation: u32) -> Answer<'_, AgentCredentials> {
        Box::pin(ready(Ok(self.credentials.clone())))
    }

    fn revoke_agent_credentials(&self, _flow: &str, _generation: u32) {}

    fn create_queue(&self, name: &str) -> Answer<'_, ()> {
        let name = format!("{}{name}", self.queue_prefix);
        Box::pin(async move {
            let made = self.client.create_queue().queue_name(&name).send().await;
            made.map(|_| ())
                .map_err(|e| anyhow::anyhow!("the queue {name} was not made: {}", sqs::chain(&e)))
        })
    }

    fn delete_queue(&self, name: &str) -> Answer<'_, ()> {
        let url = format!("{}{name}", self.beside);
        Box::pin(async move {
            match self.client.delete_queue().queue_url(&url).send().await {
                Err(error) if !error.as_service_error().is_some_and(|e| e.is_queue_does_not_exist()) => Err(
                    anyhow::anyhow!("the queue {url} was not deleted: {}", sqs::chain(&error)),
                ),
                _ => Ok(()),
            }
        })
    }
}
