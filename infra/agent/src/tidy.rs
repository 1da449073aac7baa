//! Removes what is over, in a process of its own: nothing that foreign code left is walked in the host, and none of it can end the host or
//! hold up a start.
//!
//! The driver starts this process when a session has ended, and again, with longer and longer pauses, as long as something could not be removed.

use crate::prune;
use environments::{scratch, store};
use sandbox::removal;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long one folder is removed before it is the next one's turn.
const TURN: Duration = Duration::from_secs(20);

/// The folder, in the state folder, where a session's files wait for their removal after its end.
pub const GONE: &str = "gone";

/// The arguments of such a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The state folder.
    pub state: PathBuf,
    /// Whether runs, logs and environments are looked through, too.
    pub prune: bool,
}

/// Removes what it can. What is left is there for the next one.
///
/// # Errors
///
/// Those of the file system.
pub(crate) fn tidy(task: &Task) -> io::Result<()> {
    // Two would remove the same folders. What was begun by a driver that is gone goes on.
    let lock = fs::File::create(task.state.join("tidy.lock"))?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    // Nobody waits for this process.
    let _ = rustix::process::setpriority_process(None, 10);
    empty(&task.state.join(GONE));
    // The end of an agent may have come before that of its builds' folders.
    scratch::remove_orphans(&store::folder(&task.state));
    if task.prune {
        prune::prune(&task.state, &prune::RETENTION);
    }
    Ok(())
}

/// Removes all in a folder, each for as long as its turn is, until nothing more can be done.
fn empty(folder: &Path) {
    loop {
        let mut more = false;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match removal::remove_within(&entry.path(), TURN) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => more = true,
                Err(error) => {
                    tracing::error!(%error, folder = %entry.path().display(), "files of a session that has ended stay for now");
                }
            }
        }
        if !more {
            return;
        }
    }
}
