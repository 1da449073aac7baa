//! Folders for the time of one piece of work.

use sandbox::{process::Identity, removal::remove};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// A folder that is removed when this value is dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// Makes one in `parent`.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub(crate) fn new(parent: &Path) -> io::Result<Self> {
        let folder = parent.join(format!("scratch-{}-{}", std::process::id(), crate::random()));
        fs::create_dir_all(parent)?;
        // A build script may leave a file in it that runs as its owner: nobody else gets there.
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_aside(std::mem::take(&mut self.0));
    }
}

/// Removes the scratch folders of builders that are gone.
///
/// * `store`: the folder that `environments` is in.
pub fn remove_orphans(store: &Path) {
    for entry in fs::read_dir(store.join("environments")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let builder = name
            .to_str()
            .and_then(|name| name.strip_prefix("scratch-")?.split('-').next()?.parse().ok());
        if builder.is_some_and(|pid| Identity::of(pid).is_none()) {
            let _ = remove(&entry.path());
        }
    }
}

/// Removes a folder in a thread of its own. What is left of it at the end of this process goes with
/// the folder that it is in.
pub fn remove_aside(folder: PathBuf) {
    std::thread::spawn(move || {
        if let Err(error) = remove(&folder) {
            tracing::warn!(%error, folder = %folder.display(), "a folder that is over could not be removed");
        }
    });
}
