//! The compute driver of one machine.

use contract::driver::{ComputeRequest, DriverReport};
use std::{path::PathBuf, sync::Arc};

/// What the driver needs of the host that it runs in. None of these is called with a lock held.
pub trait HostPorts: Send + Sync {
    /// Takes a report on its way to the queue `reports`. It must not be lost once this has returned.
    fn report(&self, report: DriverReport);
    /// Makes credentials that may receive from and delete in this session's own queue, and send to the queue `reports`; nothing else.
    /// Asking again gives new ones or the same ones. Access key id, and secret access key.
    ///
    /// # Errors
    ///
    /// When they could not be stored. Worth a retry.
    fn issue_agent_credentials(
        &self,
        flow: &str,
        generation: u32,
    ) -> anyhow::Result<(String, String)>;
    /// Makes them worthless. Also when there are none.
    fn revoke_agent_credentials(&self, flow: &str, generation: u32);
    /// Makes a standard queue of this name, if there is none.
    ///
    /// # Errors
    ///
    /// When it could not be stored. Worth a retry.
    fn create_queue(&self, name: &str) -> anyhow::Result<()>;
    /// Deletes the queue of this name and what is in it, if there is one.
    ///
    /// # Errors
    ///
    /// When it could not be stored. Worth a retry.
    fn delete_queue(&self, name: &str) -> anyhow::Result<()>;
}

/// What a driver is made of.
///
/// * `state`: the host's state folder; the driver's own part of it is `computes`, `sessions`, `environments`, `runs`, `tools`, `warm`.
/// * `executable`: the program whose `agent` subcommand calls [`crate::supervise`].
/// * `endpoint`, `region`, `reports_queue_url`: where agents find the queues; `agent_queue_prefix` stands before the name of a session's own.
/// * `user`: the user of this machine.
pub struct DriverConfig {
    pub state: PathBuf,
    pub executable: PathBuf,
    pub endpoint: String,
    pub region: String,
    pub reports_queue_url: String,
    pub agent_queue_prefix: String,
    pub user: String,
    pub ports: Arc<dyn HostPorts>,
}

/// The compute driver of one machine. A compute resource is a folder, and a session an agent process with its sandbox.
pub struct Driver {
    config: DriverConfig,
}

impl Driver {
    /// Opens the driver over its part of the state folder. Nothing is looked at yet: see [`Driver::recover`].
    ///
    /// # Errors
    ///
    /// When the state folder cannot be written. Final until that is put right.
    pub fn open(config: DriverConfig) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { config }))
    }

    /// Does what is asked, and reports what it then saw. Asking twice is asking once.
    ///
    /// # Errors
    ///
    /// When it could not be done and nothing was reported. Worth a retry: hand the request in again.
    pub async fn handle(&self, _request: ComputeRequest) -> anyhow::Result<()> {
        anyhow::bail!(
            "no session can be started in {} yet",
            self.config.state.display()
        )
    }

    /// Finds again what outlived the host, at the host's start and before the first request: watches the agents that live, reports
    /// those that died meanwhile, and removes what they left.
    pub async fn recover(&self) {}
}
