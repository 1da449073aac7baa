//! The end of a session on one machine, asked for or not.

use super::{Machine, tidy::GONE};
use crate::compute::report_gone;
use agent::{disk, sandboxes};
use contract::{Code, Failure, names};
use sandbox::{
    files::random,
    groups,
    process::{Held, Identity},
};
use std::{
    collections::HashSet,
    fs, io,
    path::Path,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::process::Child;

/// The longest time that a process that was killed may take to be gone.
const LAST_BREATH: Duration = Duration::from_secs(5);

impl Machine {
    /// Watches for the end of an agent by itself.
    pub(super) fn watch(self: &Arc<Self>, flow: &str, generation: u32, process: Identity, child: Option<Child>) {
        let name = (flow.to_owned(), generation);
        if !self.watched_agents().insert(name.clone()) {
            return;
        }
        let machine = Arc::clone(self);
        tokio::spawn(async move {
            match child {
                Some(mut child) => drop(child.wait().await),
                None => {
                    if let Some(held) = process.open() {
                        let _ = held.wait_for_end().await;
                    }
                }
            }
            let (flow, generation) = name;
            let name = (flow.clone(), generation);
            let mut pause = Duration::from_millis(500);
            // Its folder, which says it, may be gone by the second try.
            let failure = machine.failure_of_agent(&flow, generation);
            let lock = machine.lock(&flow);
            // A removal meanwhile takes it off the list.
            while machine.watched_agents().contains(&name) {
                let held = lock.lock().await;
                if !machine.watched_agents().contains(&name) {
                    return;
                }
                tracing::warn!(
                    flow,
                    generation,
                    fault = failure.error.as_str(),
                    cause = failure.message,
                    "an agent has ended by itself"
                );
                match machine.remove(&flow, generation, Some(failure.clone())).await {
                    Ok(()) => return,
                    Err(error) => tracing::error!(
                        flow,
                        generation,
                        error = format!("{error:#}"),
                        "what a session left could not be removed"
                    ),
                }
                // It is off the list and not yet reported.
                machine.watched_agents().insert(name.clone());
                drop(held);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(30));
            }
        });
    }

    pub(super) fn failure_of_agent(&self, flow: &str, generation: u32) -> Failure {
        if let Some(failure) = disk::recorded_end(&self.files.session(flow, generation)) {
            return failure;
        }
        Failure::new(
            Code::SessionAgentDied,
            format!(
                "The session's agent has ended. Its log is {}. Start the session again.",
                self.files.log(flow, generation).display()
            ),
        )
    }

    /// Ends this generation and every older one for certain, and reports that.
    pub(super) async fn remove(&self, flow: &str, generation: u32, failure: Option<Failure>) -> anyhow::Result<()> {
        self.take_down(flow, generation).await?;
        self.config
            .ports
            .report(report_gone(flow.to_owned(), generation, failure))
            .await
    }

    /// Ends this generation and every older one, and sees that none can come any more.
    pub(super) async fn take_down(&self, flow: &str, generation: u32) -> anyhow::Result<()> {
        self.check_place()?;
        let recorded = self.files.record_removed(flow, generation);
        if let Err(error) = &recorded
            && error.kind() != io::ErrorKind::StorageFull
        {
            return Ok(recorded?);
        }
        let generations = self.files.generations(flow).into_iter();
        for each in generations.filter(|each| *each <= generation) {
            self.end(flow, each).await?;
        }
        // On a full disk there is room for that word when its files are gone: nothing is reported
        // before, and the next try finds it.
        recorded?;
        // Also when there was no folder any more.
        self.take_back(flow, generation).await
    }

    /// Ends an agent and its sandboxes for certain, and drops what they had.
    pub(super) async fn end(&self, flow: &str, generation: u32) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.watched_agents().remove(&(flow.to_owned(), generation));
        let session = self.files.session(flow, generation);
        let launched = self.files.read_launched(flow, generation)?;
        let agent = launched.map(|launched| launched.process);
        let mut groups = Vec::new();
        // Twice, as the agent may have started a sandbox while it was being ended; all at once, as
        // each takes its time.
        for _ in 0..2 {
            groups = sandboxes::noted_groups(&session)?;
            let noted = agent.into_iter().chain(sandboxes::read_notes(&session)?);
            let mut held: Vec<_> = noted.filter_map(Identity::open).collect();
            // The kernel would end those in a sandbox one after the other.
            held.extend(groups::members(&groups));
            held.iter().for_each(Held::kill);
            for process in held {
                let pid = process.identity.pid;
                anyhow::ensure!(
                    process.end(LAST_BREATH).await,
                    "process {pid} of the session does not end"
                );
            }
        }
        let ended = begun.elapsed();
        sandboxes::remove_groups(&groups).await;
        self.take_back(flow, generation).await?;
        self.put_away(&session)?;
        tracing::debug!(flow, generation, processes = ?ended, all = ?begun.elapsed(), "a session has been ended");
        Ok(())
    }

    /// Takes a session's folder out of the way at once. Another process removes its files (see
    /// [`keep_tidy`]).
    fn put_away(&self, session: &Path) -> io::Result<()> {
        let away = self.config.state.join(GONE).join(random());
        match fs::rename(session, &away) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done?,
        }
        self.over.notify_one();
        Ok(())
    }

    async fn take_back(&self, flow: &str, generation: u32) -> anyhow::Result<()> {
        self.config.ports.revoke_agent_credentials(flow, generation);
        self.config
            .ports
            .delete_queue(&names::agent_queue(flow, generation))
            .await
    }

    fn watched_agents(&self) -> MutexGuard<'_, HashSet<(String, u32)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
