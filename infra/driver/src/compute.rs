//! The trait of a platform, and its ports to the control plane.

use agent::{AgentCredentials, bound};
use contract::{
    Failure, Millis, Settings, Slot,
    driver::{DriverReport, Room},
};
use std::{path::PathBuf, pin::Pin, sync::Arc};

/// A future answer. The outer error: nothing is known, and the same request is worth a retry.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>;

/// A session to launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The flow's key.
    pub flow: String,
    /// The user whose session it is.
    pub owner: String,
    /// Their workspace.
    pub workspace: String,
    /// At most one container per flow and generation.
    pub generation: u32,
    /// The compute resource to place it on.
    pub compute: String,
    /// The session's settings.
    pub settings: Settings,
    /// The room of its VM size, if that is known.
    pub room: Option<Room>,
    /// The time from which on it must not be launched any more.
    pub until: Millis,
}

/// A platform that sessions run on.
///
/// Each request may come twice, late or out of order: what is asked for again is answered again,
/// from what is there. An answer says what was observed, not what was asked for. An end that nobody
/// asked for is reported through [`HostPorts::report`].
pub trait ComputeDriver: Send + Sync {
    /// Has a compute resource of this id, also if it is there already. The inner error says why
    /// there is none.
    fn create_compute(
        self: Arc<Self>,
        compute: String,
        slot: Slot,
        room: Option<Room>,
    ) -> Answer<'static, Result<(), String>>;

    /// Deletes a compute resource, also if there never was one. Sessions on it end, and their ends
    /// are reported.
    fn release_compute(self: Arc<Self>, compute: String) -> Answer<'static, ()>;

    /// Launches a session, also if it is up already. Returns the public half of its agent's key.
    ///
    /// The inner error: there is no container of this generation, and none will be. It carries the
    /// failure, or nothing if somebody removed the session meanwhile.
    fn launch_session(self: Arc<Self>, launch: Launch) -> Answer<'static, Result<String, Option<Failure>>>;

    /// Checks whether a base image can be had. Pulls nothing. The inner error says why it cannot be
    /// had.
    fn check_image(self: Arc<Self>, flow: String, image: String) -> Answer<'static, Result<(), Failure>>;

    /// Ends this generation and every older one, and sees that none of them comes back, whatever
    /// crashes.
    ///
    /// * `compute`: the compute resource that it was placed on, if that is known.
    fn remove_session(self: Arc<Self>, flow: String, generation: u32, compute: Option<String>) -> Answer<'static, ()>;

    /// Finds again what outlived the last driver, before the first request: watches what lives, and
    /// reports and removes what died.
    fn recover(self: Arc<Self>) -> Answer<'static, ()>;

    /// The sessions that there are, each with its generation.
    fn sessions(&self) -> Vec<(String, u32)>;

    /// Ends all sessions and compute resources, and reports that with `why`.
    fn end_all(self: Arc<Self>, why: Failure) -> Answer<'static, ()>;

    /// Drops what only makes the next start quick. Sessions stay as they are.
    fn let_go(&self);
}

/// The ports of a driver to the host that it runs in, or to the control plane that it serves.
pub trait HostPorts: Send + Sync {
    /// Takes a report on its way to the queue `reports`. It must not be lost once this has
    /// returned.
    ///
    /// # Errors
    ///
    /// When it was not taken. Worth a retry.
    fn report(&self, report: DriverReport) -> Answer<'_, ()>;
    /// Makes credentials that may receive from and delete in this session's own queue, and send to
    /// the queue `reports`. Asking again gives new ones or the same ones.
    ///
    /// # Errors
    ///
    /// When they could not be stored. Worth a retry.
    fn issue_agent_credentials(&self, flow: &str, generation: u32) -> Answer<'_, AgentCredentials>;
    /// Makes them worthless. Also when there are none.
    fn revoke_agent_credentials(&self, flow: &str, generation: u32);
    /// Makes a standard queue of this name, if there is none.
    ///
    /// # Errors
    ///
    /// When it could not be stored. Worth a retry.
    fn create_queue(&self, name: &str) -> Answer<'_, ()>;
    /// Deletes the queue of this name and what is in it, if there is one.
    ///
    /// # Errors
    ///
    /// When it could not be stored. Worth a retry.
    fn delete_queue(&self, name: &str) -> Answer<'_, ()>;
}

/// The configuration of a driver.
pub struct DriverConfig {
    /// The host's state folder; the driver's own part of it is `computes`, `sessions`,
    /// `environments`, `runs`, `tools`, `warm`.
    pub state: PathBuf,
    /// The program whose `agent` subcommand calls [`agent::supervise`].
    pub executable: PathBuf,
    /// The address of the queues for agents; `None` is AWS itself.
    pub endpoint: Option<String>,
    /// The region of the queues.
    pub region: String,
    /// The queue `reports`.
    pub reports_queue_url: String,
    /// The prefix of the URL of a session's own queue.
    pub agent_queue_prefix: String,
    /// Whether flow folders may be snapshots in an object store, which agents ask with their own
    /// credentials.
    pub has_snapshots: bool,
    /// The address of the service's HTTP front, if it keeps the connections of its users.
    pub service: Option<String>,
    /// The control plane.
    pub ports: Arc<dyn HostPorts>,
}

/// The report of a session's end.
pub(crate) fn report_gone(flow: String, generation: u32, failure: Option<Failure>) -> DriverReport {
    DriverReport::SessionGone {
        flow,
        generation,
        failure: failure.map(bound),
    }
}
