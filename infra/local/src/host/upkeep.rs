//! The upkeep of the host, from time to time.

use super::Host;
use crate::{
    ballast::{self, Ballast},
    store::{Store, now},
    wire::AwsError,
};
use contract::Code;
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// The time between two rounds of upkeep: of what is old, of logs and of processes.
const TIDY: Duration = Duration::from_secs(10);

pub(super) async fn tidy(host: Arc<Host>, store: Arc<Store>, databases: [PathBuf; 2]) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(TIDY);
    loop {
        every.tick().await;
        let (host, store, databases) = (host.clone(), store.clone(), databases.clone());
        let tidied = tokio::task::spawn_blocking(move || {
            host.pools.values().for_each(|pool| pool.tidy());
            host.sqs
                .queues
                .sweep()
                .and_then(|()| host.machine.sweep())
                .and_then(|()| store.tidy())
                .and(databases.iter().try_for_each(|file| ballast::keep_pages(file)))
                .map_err(AwsError::from)
                .and_then(|()| host.table.tidy(now() / 1000))
        });
        if let Ok(Err(cause)) = tidied.await {
            tracing::warn!(
                fault = Code::StoreTidy.as_str(),
                cause = cause.message,
                "what is old stays for now"
            );
        }
    }
}

/// Keeps the room that the host needs on a full disk.
pub(super) async fn keep_room(mut ballast: Ballast, databases: [PathBuf; 2]) -> anyhow::Result<()> {
    loop {
        if ballast.tend() {
            let databases = databases.clone();
            let emptied =
                tokio::task::spawn_blocking(move || databases.iter().try_for_each(|file| ballast::empty_log(file)));
            if let Ok(Err(cause)) = emptied.await {
                tracing::warn!(fault = Code::HostDiskFull.as_str(), cause = %cause, "a database's log is not emptied");
            }
        }
        tokio::time::sleep(ballast::EVERY).await;
    }
}

/// Tells the host to leave when it was unused for long enough.
pub(super) async fn leave_when_idle(host: Arc<Host>, idle_exit: Option<Duration>) -> anyhow::Result<()> {
    let Some(idle_exit) = idle_exit else { return Ok(()) };
    let patience = i64::try_from(idle_exit.as_millis()).unwrap_or(i64::MAX);
    let mut every = tokio::time::interval((idle_exit / 10).clamp(Duration::from_millis(20), Duration::from_secs(5)));
    loop {
        every.tick().await;
        if is_busy(&host)? {
            host.last_request.store(now(), Ordering::Relaxed);
        } else if now() - host.last_request.load(Ordering::Relaxed) >= patience {
            tracing::info!("nobody has needed this host for long enough");
            host.closing.send_replace(true);
            return Ok(());
        }
    }
}

/// Whether a session lives, or something is on its way.
fn is_busy(host: &Host) -> anyhow::Result<bool> {
    let queues = &host.sqs.queues;
    if !queues.list("agent-").is_empty() || host.machine.running()? > 0 {
        return Ok(true);
    }
    use contract::names;
    let on_their_way = [
        names::COMMANDS,
        names::START_SESSION,
        names::INSTALL_PACKAGES,
        names::STOP_SESSION,
        names::REPORTS,
        names::COMPUTE_REQUESTS,
    ];
    for queue in on_their_way.iter().filter_map(|queue| queues.get(queue.name)) {
        if !queues.is_empty(&queue)? {
            return Ok(true);
        }
    }
    Ok(false)
}
