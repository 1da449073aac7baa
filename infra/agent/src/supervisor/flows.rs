//! Flow folders and data, wherever they are kept.

use super::Agent;
use crate::{place::Place, run, spec::AgentSpec};
use contract::{Failure, Settings, snapshot::Address, stored::StoredObject};
use snapshots::{Fault, Folders as FlowFolders, Opened, Store as ObjectStore};
use std::time::Duration;

/// The longest time that a snapshot may take to come.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// The most snapshots and files of data that are kept for the next run.
const MOST_KEPT: usize = 4;

/// The waits before a store that did not answer is asked again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// The store that has this session's flow folder and data, and gets the files of its runs. It is
/// asked with the container's credentials, or with the driver's. `None` where the functions see the
/// same folders as this agent.
pub(super) fn object_store(spec: &AgentSpec, place: &Place) -> Option<ObjectStore> {
    if !spec.has_snapshots {
        return None;
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    Some(ObjectStore::new(
        endpoint.as_deref(),
        &spec.region,
        place.credentials(),
        SNAPSHOT_TIMEOUT,
    ))
}

/// The reader of this session's flow folder and data.
pub(super) fn flow_folders(spec: &AgentSpec, store: Option<ObjectStore>) -> FlowFolders {
    match store {
        Some(store) => FlowFolders::both(store, &spec.session.join("snapshots"), MOST_KEPT),
        None => FlowFolders::here(),
    }
}

/// Tries again what did not succeed for now.
pub(super) async fn patiently<T, F: Future<Output = Result<T, Fault>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, Failure> {
    for pause in PAUSES {
        match call().await {
            Err(Fault::NotNow(failure)) => {
                tracing::warn!(fault = failure.error.as_str(), cause = failure.message, "once more")
            }
            done => return done.map_err(Fault::into_failure),
        }
        tokio::time::sleep(pause).await;
    }
    call().await.map_err(Fault::into_failure)
}

impl Agent {
    pub(super) async fn open(&self, folder: &str) -> Result<Opened, Failure> {
        patiently(|| self.flows.open(&self.spec.flow, folder)).await
    }

    /// Sends the files of a run that has ended to the bucket that its flow came from; gives back
    /// their index's address.
    ///
    /// # Errors
    ///
    /// `Run.FilesNotKept`, `Snapshot.Unreachable`.
    pub(super) async fn keep_run(&self, run: &str, folder: &str) -> Result<Option<String>, Failure> {
        let Some((store, flow)) = self.store_of_runs.as_ref().zip(Address::read(folder)) else {
            return Ok(None);
        };
        let of = StoredObject {
            bucket: flow.bucket,
            flow: self.spec.flow.clone(),
            run: run.to_owned(),
            digest: String::new(),
        };
        let files = run::folder(&self.spec.state, run);
        let kept = patiently(|| store.keep_run(&of, &files)).await?;
        Ok(Some(kept.to_string()))
    }

    /// The environment that a flow describes.
    pub(super) async fn read_environment(&self, settings: &Settings) -> Result<flow::Environment, Failure> {
        self.open(&settings.folder.value).await?.environment().await
    }
}
