//! Watches the disk, and has runs or the session give way.

use super::Agent;
use crate::{
    disk::{self, Verdict},
    runner::Runner,
};
use contract::Failure;
use std::time::Duration;

/// The longest time that runs may take to end before the disk is looked at again.
const GIVES_WAY: Duration = Duration::from_secs(2);

impl Agent {
    /// Watches the disk. Ends runs that have to give way, and returns why the session has to.
    pub(super) async fn watch_disk(&self) -> Failure {
        let begun = disk::Watch::begin(&self.spec.state, &self.spec.session, &self.spec.settings.folder.value);
        let mut watch = match begun {
            Ok(watch) => watch,
            Err(error) => {
                tracing::error!(%error, "the disk is not watched");
                return std::future::pending().await;
            }
        };
        loop {
            let has_runs = !self.open.borrow().is_empty();
            tokio::time::sleep(watch.pause(has_runs)).await;
            let runner = self.runner.borrow().clone();
            let pid = runner.as_ref().map(|runner| runner.pid());
            let looked = tokio::task::spawn_blocking(move || {
                let verdict = watch.look(pid, has_runs);
                (watch, verdict)
            });
            let verdict;
            (watch, verdict) = match looked.await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::error!(%error, "the disk is watched no more");
                    return std::future::pending().await;
                }
            };
            let Some(verdict) = verdict else { continue };
            let runs = runner.as_ref().map(|runner| runner.run_names()).unwrap_or_default();
            match (verdict, runner) {
                (verdict, Some(runner)) if !runs.is_empty() => {
                    self.stop_runs(&runner, runs, verdict.failure()).await;
                    tokio::time::sleep(GIVES_WAY).await;
                }
                (Verdict::Full(failure), _) => return watch.end(&failure),
                _ => {}
            }
        }
    }

    /// Ends these runs with `failure`; with the whole sandbox those that were to end before and
    /// have not.
    async fn stop_runs(&self, runner: &Runner, runs: Vec<String>, failure: &Failure) {
        for run in runs {
            tracing::warn!(
                run,
                fault = failure.error.as_str(),
                cause = failure.message,
                "the run is stopped"
            );
            let before = self.stopped.borrow_mut().insert(run.clone(), failure.clone());
            if before.is_some() || runner.stop(&run).await.is_err() {
                runner.kill();
            }
        }
    }
}
