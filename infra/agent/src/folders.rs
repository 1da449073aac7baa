//! The folders of a session, and which folder lies at a path.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The folders of a session.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    pub(crate) state: PathBuf,
    /// `sessions/{flow}/{generation}`.
    pub(crate) session: PathBuf,
}

impl Folders {
    /// Makes what is not there.
    pub(crate) fn make(&self) -> io::Result<()> {
        for name in ["root", "home", "tmp", "work", "staging", "layers"] {
            fs::create_dir_all(self.session.join(name))?;
        }
        Ok(())
    }

    /// The folder of the runs' views, inside and outside.
    pub(crate) fn work(&self) -> PathBuf {
        self.session.join("work")
    }
}

/// Which folder lies at a path, by device and inode; nothing if there is none.
///
/// # Errors
///
/// When that cannot be said now.
pub fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
