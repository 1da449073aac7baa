//! Reads a folder that foreign code could write to, without leaving it.
//!
//! A path is a promise that the other side can change between two system calls: a file is swapped
//! for a link, a folder for another. So every step starts at an open folder and follows no link,
//! only regular files are opened, and every read and walk has a bound.
//!
//! * Decision: `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; where the kernel or a
//!   container's profile lacks it, one `openat` with `O_NOFOLLOW` for each part of the path. Both
//!   hold the same.
//! * Rejected: `cap-std`, which resolves links inside the folder, and brings eight crates.

pub use rustix::fs::FileType;

use rustix::{
    fs::{self, AtFlags, Dir, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::{File, Permissions},
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

/// An open folder. What is read through it lies beneath it.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// The most that a walk looks at.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Folders within folders.
    pub depth: usize,
    /// Files, folders and whatever else has a name.
    pub entries: usize,
    /// The sizes of all regular files together.
    pub bytes: u64,
}

/// One name that a walk found.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The folder that it is in.
    pub parent: &'a Folder,
    pub name: &'a OsStr,
    /// Relative to the folder of the walk.
    pub path: &'a Path,
    pub kind: FileType,
    /// As it was when it was looked at; an open looks again.
    pub stat: Stat,
}

impl Entry<'_> {
    /// Opens it as a regular file.
    ///
    /// # Errors
    ///
    /// As [`Folder::open_file`].
    pub fn open(&self) -> io::Result<File> {
        self.parent.open_file(Path::new(self.name))
    }

    /// Reads where a link leads, and does not go there.
    ///
    /// # Errors
    ///
    /// An error of the file system; also if it is no link.
    pub fn read_link(&self) -> io::Result<OsString> {
        let target = fs::readlinkat(&self.parent.0, self.name, Vec::new())?;
        Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
    }

    /// Sets the mode of a regular file or a folder, never that of what a link names.
    ///
    /// # Errors
    ///
    /// `InvalidData` if it is neither by now; else what the file system says.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        // Needs no right to read the file, and the descriptor is what it is.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.parent.0, self.name, flags, Mode::empty())?;
        match FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
            FileType::RegularFile | FileType::Directory => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                std::fs::set_permissions(path, Permissions::from_mode(mode))
            }
            _ => Err(changed_meanwhile(self.path)),
        }
    }
}

impl Folder {
    /// Opens a folder by a path that only this process and its user decide; links in it are
    /// followed.
    ///
    /// # Errors
    ///
    /// An error of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a folder beneath this one.
    ///
    /// # Errors
    ///
    /// Also if a part of the path is a link, or the path leads out.
    pub fn folder(&self, path: &Path) -> io::Result<Self> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Self)
    }

    /// Opens a regular file beneath this folder for reading.
    ///
    /// # Errors
    ///
    /// `InvalidData` if it is no regular file; also if a part of the path is a link, or the path
    /// leads out.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        // A pipe without a writer would wait for one.
        let file = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        match FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(File::from(file)),
            _ => Err(changed_meanwhile(path)),
        }
    }

    /// Reads a regular file beneath this folder.
    ///
    /// * `most`: in bytes.
    ///
    /// # Errors
    ///
    /// `FileTooLarge` if it has more; else as [`Self::open_file`].
    pub fn read_bounded(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(path)?.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            let text = format!("{} has more than {most} bytes", path.display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(bytes)
    }

    /// Puts a file of this machine into this folder under a name: by a hard link where that is
    /// possible, else as a copy. A name that is there stays as it is.
    ///
    /// # Errors
    ///
    /// An error of the file system.
    pub fn put(&self, file: &Path, name: &str) -> io::Result<()> {
        match fs::linkat(fs::CWD, file, &self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => return Ok(()),
            Err(_) => {}
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut from = File::open(file)?;
        let mut made = File::from(fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(&mut from, &mut made)?;
        made.set_permissions(from.metadata()?.permissions())
    }

    /// The kind of an entry of this folder, of a link the link itself; `None` if there is none.
    ///
    /// # Errors
    ///
    /// An error of the file system.
    pub fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in this folder, sorted.
    ///
    /// * `most`: how many.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if there are more; else what the file system says.
    pub fn names(&self, most: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if names.len() >= most {
                return Err(too_much(&format!("a folder has more than {most} entries")));
            }
            names.push(OsStr::from_bytes(name).to_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Visits everything beneath this folder, a folder before what is in it. It follows no link and
    /// does not recurse.
    ///
    /// An entry that disappears meanwhile is left out.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if there is more than `limits` say; the visitor's; else what the file system
    /// says.
    pub fn walk(&self, limits: &Limits, mut visit: impl FnMut(&Entry<'_>) -> io::Result<()>) -> io::Result<()> {
        let (mut entries, mut bytes) = (0, 0_u64);
        let top = (self.folder(Path::new("."))?, PathBuf::new());
        let mut open = vec![(top.0, top.1, self.names(limits.entries)?.into_iter())];
        while let Some((folder, path, names)) = open.last_mut() {
            let Some(name) = names.next() else {
                open.pop();
                continue;
            };
            let Some(stat) = folder.stat(&name)? else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let path = path.join(&name);
            entries += 1;
            if kind == FileType::RegularFile {
                bytes = bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            }
            if entries > limits.entries || bytes > limits.bytes {
                let Limits { entries, bytes, .. } = limits;
                return Err(too_much(&format!(
                    "there are more than {entries} files or {bytes} bytes"
                )));
            }
            visit(&Entry {
                parent: folder,
                name: &name,
                path: &path,
                kind,
                stat,
            })?;
            if kind == FileType::Directory {
                // Swapped for a link, it is none any more: that is an error, not a way out.
                let inner = folder.folder(Path::new(&name))?;
                let names = inner.names(limits.entries - entries)?.into_iter();
                if open.len() >= limits.depth {
                    return Err(too_much(&format!("folders are nested more than {} deep", limits.depth)));
                }
                open.push((inner, path, names));
            }
        }
        Ok(())
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM) => self.open_in_steps(path, flags),
            opened => Ok(opened?),
        }
    }

    /// The same for a kernel before 5.6, or behind a filter that does not know `openat2`.
    fn open_in_steps(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let mut parts = path.components().peekable();
        let mut at = None;
        while let Some(part) = parts.next() {
            if !matches!(part, Component::Normal(_) | Component::CurDir) {
                return Err(Errno::XDEV.into());
            }
            let flags = match parts.peek() {
                Some(_) => OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                None => flags,
            };
            let from = at.as_ref().unwrap_or(&self.0);
            at = Some(fs::openat(
                from,
                part.as_os_str(),
                flags | OFlags::NOFOLLOW,
                Mode::empty(),
            )?);
        }
        at.ok_or_else(|| Errno::NOENT.into())
    }
}

fn changed_meanwhile(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} is no regular file", path.display()),
    )
}

fn too_much(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeSet,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
    };

    const LIMITS: Limits = Limits {
        depth: 8,
        entries: 100,
        bytes: 1 << 20,
    };

    /// A folder with a file, and beside it a secret with links of every kind to it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir_all(inner.join("deep/er")).unwrap();
        std::fs::write(outer.path().join("secret"), "secret").unwrap();
        std::fs::write(inner.join("deep/er/file"), "mine").unwrap();
        symlink("../secret", inner.join("link")).unwrap();
        symlink(outer.path().join("secret"), inner.join("absolute")).unwrap();
        symlink("..", inner.join("up")).unwrap();
        symlink("deep", inner.join("within")).unwrap();
        (outer, inner)
    }

    #[test]
    fn a_file_is_read_beneath_its_folder_and_no_link_is_followed() {
        let (outer, inner) = place();
        let folder = Folder::open(&inner).unwrap();
        let secret = outer.path().join("secret").display().to_string();
        for in_steps in [false, true] {
            let read = |path: &str| {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let opened = match in_steps {
                    true => folder.open_in_steps(Path::new(path), flags).map(File::from),
                    false => folder.open_file(Path::new(path)),
                };
                opened.and_then(|mut file| {
                    let mut text = String::new();
                    file.read_to_string(&mut text).map(|_| text)
                })
            };
            assert_eq!(read("deep/er/file").unwrap(), "mine", "{in_steps}");
            for bad in [
                "link",
                "absolute",
                "up/secret",
                "../secret",
                "deep/../../secret",
                "within/er/file",
                "",
                "nowhere",
            ] {
                assert!(read(bad).is_err(), "{in_steps} {bad}");
            }
            assert!(read(&secret).is_err(), "{in_steps}");
        }
    }

    #[test]
    fn only_regular_files_are_opened_and_a_bound_is_a_bound() {
        let (_outer, inner) = place();
        let folder = Folder::open(&inner).unwrap();
        let pipe = inner.join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let _socket = std::os::unix::net::UnixListener::bind(inner.join("socket")).unwrap();
        for bad in ["pipe", "socket", "deep"] {
            assert!(folder.open_file(Path::new(bad)).is_err(), "{bad}");
        }
        let file = Path::new("deep/er/file");
        assert_eq!(folder.read_bounded(file, 4).unwrap(), b"mine");
        let error = folder.read_bounded(file, 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_walk_sees_everything_once_and_ends_at_its_bounds() {
        let (_outer, inner) = place();
        let folder = Folder::open(&inner).unwrap();
        let mut seen = BTreeSet::new();
        let walked = folder.walk(&LIMITS, |entry| {
            assert!(seen.insert(entry.path.display().to_string()));
            if entry.kind == FileType::Symlink {
                assert!(entry.open().is_err() && entry.set_mode(0o777).is_err());
            }
            Ok(())
        });
        walked.unwrap();
        let expected = ["absolute", "deep", "deep/er", "deep/er/file", "link", "up", "within"];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
        for limits in [
            Limits { depth: 2, ..LIMITS },
            Limits { entries: 6, ..LIMITS },
            Limits { bytes: 3, ..LIMITS },
        ] {
            let error = folder.walk(&limits, |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded, "{limits:?}");
        }
    }

    #[test]
    fn a_folder_that_is_swapped_for_a_link_all_the_time_leads_nowhere() {
        let (outer, inner) = place();
        std::fs::create_dir(outer.path().join("host")).unwrap();
        std::fs::write(outer.path().join("host/file"), "secret").unwrap();
        std::fs::create_dir(inner.join("real")).unwrap();
        std::fs::write(inner.join("real/file"), "mine").unwrap();
        symlink("../host", inner.join("false")).unwrap();
        let done = AtomicBool::new(false);
        let folder = Folder::open(&inner).unwrap();
        let exchange =
            |a: &str, b: &str| fs::renameat_with(&folder.0, a, &folder.0, b, fs::RenameFlags::EXCHANGE).unwrap();
        let (mut read, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    exchange("real", "false");
                }
            });
            while read < 200 || refused < 200 {
                match folder.read_bounded(Path::new("real/file"), 100) {
                    Ok(bytes) => {
                        assert_eq!(bytes, b"mine");
                        read += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
