//! Removal of folders that foreign code has filled: by descriptor, without recursion, and no link
//! is followed.
//!
//! * Decision: the folders in a folder are moved up to the root before the folder is removed. Two
//!   descriptors are enough at any depth, no path is ever longer than a name, and a removal that
//!   was cut off is continued by the next.
//! * Rejected: `remove_dir_all` of the standard library, which recurses and overflows its stack; a
//!   stack of descriptors, which runs out of them.

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, fstat, openat, openat2, renameat, unlinkat},
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::Path,
    time::{Duration, Instant},
};

/// Opens a folder in another one: no link, and nothing that is mounted there.
fn open_folder(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_below(at, name, flags)
}

/// Opens one name in a folder.
fn open_below(at: impl AsFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(at.as_fd(), name, flags, Mode::empty(), resolve) {
        // Linux before 5.6. It is one name, so that nothing but the last part of a path can be a
        // link.
        Err(Errno::NOSYS) => openat(at, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Gives this user every right to a folder.
fn open_up(at: impl AsFd, name: &CStr) -> io::Result<()> {
    let held = open_below(
        at,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    )?;
    // The descriptor holds what was looked at, whatever the name stands for by now.
    let held = format!("/proc/self/fd/{}", held.as_raw_fd());
    fs::set_permissions(held, fs::Permissions::from_mode(0o700))
}

/// Removes what `path` is, and all below it. It may be gone already.
///
/// A tree may have any depth. Folders are made writable first: the work folder of an overlay has no
/// rights at all.
///
/// # Errors
///
/// Those of the file system, after all else was removed; `TimedOut` after `most`, if there is more
/// to remove.
pub fn remove_within(path: &Path, most: Duration) -> io::Result<()> {
    let until = Instant::now().checked_add(most);
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent, CString::new(name.as_bytes())?),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    match unlinkat(&parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let root = open_to_remove(&parent, &name)?;
    let mut removal = Removal {
        root,
        prefix: format!(".{}", crate::files::random()),
        count: 0,
        until,
    };
    while removal.pass()? {}
    Ok(unlinkat(&parent, &name, AtFlags::REMOVEDIR)?)
}

/// As [`remove_within`], however long it takes.
///
/// # Errors
///
/// Those of the file system.
pub fn remove(path: &Path) -> io::Result<()> {
    remove_within(path, Duration::MAX)
}

/// A folder with the rights to empty it.
fn open_to_remove(at: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    match open_folder(&at, name) {
        Ok(folder) if fstat(&folder)?.st_mode & 0o700 == 0o700 => Ok(folder),
        Ok(_) | Err(Errno::ACCESS) => {
            open_up(&at, name)?;
            Ok(open_folder(&at, name)?)
        }
        Err(error) => Err(error.into()),
    }
}

struct Removal {
    root: OwnedFd,
    /// The prefix of the names that folders are moved up to.
    prefix: String,
    count: u64,
    until: Option<Instant>,
}

impl Removal {
    /// Removes what is in the root; what its folders have in them comes into it. Whether there was
    /// anything.
    fn pass(&mut self) -> io::Result<bool> {
        let (mut found, mut done, mut failed) = (false, false, None);
        for entry in Dir::read_from(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            found = true;
            match self.remove(name) {
                Ok(()) => done = true,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if !done => Err(error),
            _ => Ok(found),
        }
    }

    fn remove(&mut self, name: &CStr) -> io::Result<()> {
        match unlinkat(&self.root, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        let folder = open_to_remove(&self.root, name)?;
        let mut failed = None;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let inner = entry.file_name();
            if matches!(inner.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let removed = match unlinkat(&folder, inner, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(Errno::ISDIR | Errno::PERM) => self.move_up(&folder, inner),
                Err(error) => Err(error.into()),
            };
            failed = failed.or(removed.err());
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(unlinkat(&self.root, name, AtFlags::REMOVEDIR)?),
        }
    }

    fn move_up(&mut self, folder: &OwnedFd, name: &CStr) -> io::Result<()> {
        self.count += 1;
        let to = format!("{}-{}", self.prefix, self.count);
        match renameat(folder, name, &self.root, &to) {
            // What is moved to another folder must be writable itself.
            Err(Errno::ACCESS) => {
                open_up(folder, name)?;
                Ok(renameat(folder, name, &self.root, &to)?)
            }
            moved => Ok(moved?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;

    /// A folder in a folder in a folder, each with a file.
    fn nest(root: &Path, depth: usize) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = openat(CWD, root, flags, Mode::empty()).unwrap();
        for _ in 0..depth {
            openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from(0o600)).unwrap();
            mkdirat(&at, "a-folder-with-a-long-name", Mode::from(0o700)).unwrap();
            at = openat(&at, "a-folder-with-a-long-name", flags, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn thirty_thousand_nested_folders_are_removed_on_a_small_stack() {
        // In memory where that is possible: a disk takes its time for so many folders.
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        nest(&root, 30_000);
        let remove = move || remove(&root).map(|()| root);
        let small = std::thread::Builder::new().stack_size(64 << 10);
        let root = small.spawn(remove).unwrap().join().unwrap().unwrap();
        assert!(!root.exists());
        super::remove(&root).unwrap();
    }

    #[test]
    fn a_removal_that_is_cut_off_is_gone_on_with_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        nest(&root.join("a/b/c"), 500);
        for link in ["link", "a/link", "a/b/c/link"] {
            std::os::unix::fs::symlink(&outside, root.join(link)).unwrap();
        }
        let cut = remove_within(&root, Duration::ZERO).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        assert!(root.exists());
        remove(&root).unwrap();
        assert!(!root.exists() && outside.join("kept").exists());
        // What a folder is taken for may be a link itself.
        std::os::unix::fs::symlink(&outside, &root).unwrap();
        remove(&root).unwrap();
        assert!(root.symlink_metadata().is_err() && outside.join("kept").exists());
    }

    #[test]
    fn folders_without_rights_are_removed_with_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("work/work/inner")).unwrap();
        fs::write(root.join("work/work/inner/file"), "").unwrap();
        for (path, mode) in [
            ("work/work/inner", 0o000),
            ("work/work", 0o000),
            ("work", 0o500),
            ("", 0o500),
        ] {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        remove(&root).unwrap();
        assert!(!root.exists());
    }
}
