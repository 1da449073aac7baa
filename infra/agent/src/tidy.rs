//! Removes what is over, in a process of its own: nothing that foreign code left is walked in the
//! host, and none of it can end the host or hold up a start.
//!
//! The driver starts this process when a session has ended, and again, with longer and longer
//! pauses, as long as something could not be removed.

use crate::prune;
use environments::{scratch, store};
use sandbox::removal;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest turn of one folder's removal.
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
    let lock = fs::File::create(task.state.join("tidy.lock"))?;
    // Nobody waits for this process.
    let _ = rustix::process::setpriority_process(None, 10);
    let gone = task.state.join(GONE);
    let mut prune = task.prune;
    one_at_a_time(
        &lock,
        || {
            empty(&gone);
            let left = names(&gone);
            // The end of an agent may have come before that of its builds' folders.
            scratch::remove_orphans(&store::folder(&task.state));
            if std::mem::take(&mut prune) {
                prune::prune(&task.state, &prune::RETENTION);
            }
            left
        },
        || names(&gone),
    )
}

/// Works where nobody else does, and again as long as something new has come: who came while the
/// lock was held has left it to this process.
///
/// * `work`: gives back what it could not do.
fn one_at_a_time(
    lock: &fs::File,
    mut work: impl FnMut() -> BTreeSet<OsString>,
    there: impl Fn() -> BTreeSet<OsString>,
) -> io::Result<()> {
    loop {
        // Two would remove the same folders. What was begun by a driver that is gone goes on.
        if lock.try_lock().is_err() {
            return Ok(());
        }
        let left = work();
        lock.unlock()?;
        if there().is_subset(&left) {
            return Ok(());
        }
    }
}

fn names(folder: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn what_comes_while_another_holds_the_lock_is_removed_by_that_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let open = || fs::File::create(&path).unwrap();
        let there = RefCell::new(BTreeSet::from(["stuck".into(), "first".into()]));
        let mut rounds = 0;
        let work = || {
            rounds += 1;
            let left = BTreeSet::from(["stuck".into()]);
            there.borrow_mut().retain(|name| left.contains(name));
            if rounds == 1 {
                // Another session ends, and its own process is turned away.
                there.borrow_mut().insert("second".into());
                one_at_a_time(&open(), || unreachable!("the lock is held"), BTreeSet::new).unwrap();
            }
            left
        };
        one_at_a_time(&open(), work, || there.borrow().clone()).unwrap();
        assert_eq!((rounds, there.into_inner()), (2, BTreeSet::from(["stuck".into()])));
    }
}
