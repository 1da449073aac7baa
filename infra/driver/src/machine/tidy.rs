//! Has another process remove what is over: no removal is in the driver's own.

use super::Machine;
pub(super) use agent::tidy::GONE;
use agent::{Told, disk::Room, tidy::Task};
use std::{
    fs,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, sync::Notify};

/// The time between two looks for what is old.
const BETWEEN_PRUNES: Duration = Duration::from_secs(6 * 3600);

/// The time from a session's end to the removal of its files: those of several go together, and
/// what was asked for meanwhile goes first.
pub(super) const BEFORE_REMOVAL: Duration = Duration::from_millis(300);

/// The first and the longest wait before a removal is tried again; twice as long each time.
const REMOVE_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

impl Machine {
    /// Has a process remove what is over, and waits for its end. Whether nothing is left.
    async fn tidy(&self, prune: bool) -> anyhow::Result<bool> {
        let mut child = self.start_agent()?;
        let task = Told::Tidy(Task {
            state: self.config.state.clone(),
            prune,
        });
        let mut line = serde_json::to_vec(&task)?;
        line.push(b'\n');
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&line).await?;
        }
        let ended = child.wait().await?;
        anyhow::ensure!(ended.success(), "it ended with {ended}");
        Ok(fs::read_dir(self.config.state.join(GONE))?.next().is_none())
    }
}

/// Has what is over removed, from the driver's start to its end: soon after a session's end, what
/// could not be removed with longer and longer pauses, and what is old from time to time. No
/// removal is in this process.
pub(super) async fn keep_tidy(machine: Weak<Machine>, over: Arc<Notify>) {
    let mut pruned: Option<Instant> = None;
    let mut pause = REMOVE_AGAIN.0;
    while let Some(held) = machine.upgrade() {
        let is_short = Room::of(&held.config.state).is_ok_and(|room| room.is_short());
        let prune = is_short || pruned.is_none_or(|at| at.elapsed() >= BETWEEN_PRUNES);
        let done = held.tidy(prune).await;
        drop(held);
        if prune {
            pruned = Some(Instant::now());
        }
        let rest = match done {
            Ok(true) => {
                pause = REMOVE_AGAIN.0;
                BETWEEN_PRUNES
            }
            Ok(false) => {
                pause = (pause * 2).min(REMOVE_AGAIN.1);
                pause
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "what is over could not be removed");
                pause = (pause * 2).min(REMOVE_AGAIN.1);
                pause
            }
        };
        let _ = tokio::time::timeout(rest, over.notified()).await;
        tokio::time::sleep(BEFORE_REMOVAL).await;
    }
}
