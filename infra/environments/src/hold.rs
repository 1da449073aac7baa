//! Environments in use, and builds under way, as locks on files that the kernel drops with their
//! process.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

/// Holds an environment in use, and notes that it is. Waits while it is looked at for whether it
/// may go.
pub(crate) fn hold(environments: &Path, key: &str) -> io::Result<fs::File> {
    let path = environments.join(format!("{key}.used"));
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    file.lock_shared()?;
    file.set_modified(SystemTime::now())?;
    Ok(file)
}

/// Waits until no other process holds the lock of this file.
///
/// * `waiting`: called once if another does.
///
/// # Errors
///
/// Those of the file system.
pub(crate) async fn lock(path: &Path, waiting: impl Fn()) -> io::Result<fs::File> {
    let file = fs::File::create(path)?;
    let mut waits = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        if !std::mem::replace(&mut waits, true) {
            waiting();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
