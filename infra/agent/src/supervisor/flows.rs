//! Flow folders and data, wherever they are kept.

use super::Agent;
use crate::{place::Place, spec::AgentSpec};
use contract::{Failure, Settings};
use snapshots::{Fault, Folders as FlowFolders, Opened, Store as ObjectStore};
use std::time::Duration;

/// How long a snapshot may take to come.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many snapshots and files of data are kept for the next run.
const MOST_KEPT: usize = 4;

/// How long to wait before a store that did not answer is asked again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Where this session's flow folder and data are read. The store is asked with the container's credentials, or with the driver's.
pub(super) fn flow_folders(spec: &AgentSpec, place: &Place) -> FlowFolders {
    if !spec.has_snapshots {
        return FlowFolders::here();
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let store = ObjectStore::new(endpoint.as_deref(), &spec.region, place.credentials(), PATIENCE);
    FlowFolders::both(store, &spec.session.join("snapshots"), MOST_KEPT)
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

    /// The requirement lines of a flow.
    pub(super) async fn wanted(&self, settings: &Settings) -> Result<Vec<flow::Line>, Failure> {
        let environment = self.open(&settings.folder.value).await?.environment().await?;
        Ok(environment
            .requirements
            .map(|requirements| requirements.lines)
            .unwrap_or_default())
    }
}
