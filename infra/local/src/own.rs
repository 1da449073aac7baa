//! A file or folder of this host's own, told from another that was put in its place.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A path, and what lay there when this host made it.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    path: PathBuf,
    identity: (u64, u64),
}

impl Own {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it still lies there. What cannot be looked at for now counts as there.
    pub(crate) fn is_there(&self) -> bool {
        match identity(&self.path) {
            Ok(found) => found == self.identity,
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }

    /// Removes the file, unless another lies there.
    pub(crate) fn remove(&self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_has_put_in_the_place_of_a_file_is_not_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "own").expect("written");
        let own = Own::of(&path).expect("it is there");
        fs::write(folder.path().join("other"), "another's").expect("written");
        fs::rename(folder.path().join("other"), &path).expect("put in its place");
        assert!(!own.is_there());
        own.remove();
        assert_eq!(fs::read_to_string(&path).expect("it stays"), "another's");
        Own::of(&path).expect("it is there").remove();
        assert!(!path.exists() && !own.is_there());
    }
}
