//! Lays the layers of an image over each other, by hard links.
//!
//! One tree for an image, in place of an overlay of its layers: a start then mounts one folder,
//! whatever the number of layers, and whiteouts need no support of the kernel's. It costs an entry
//! of a folder for each file, and is made once.

use crate::layer::{Fault, Layer, beneath};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, fchmod, fstat, linkat, mkdirat, openat, readlinkat, statat,
        symlinkat, unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

const READ: OFlags = OFlags::from_bits_retain(
    OFlags::RDONLY.bits() | OFlags::DIRECTORY.bits() | OFlags::NOFOLLOW.bits() | OFlags::CLOEXEC.bits(),
);

/// Makes the tree of `layers`, the lowest first.
///
/// * `into`: an empty folder.
///
/// # Errors
///
/// Those of the file system; what was made until then must not be used.
pub(crate) fn merge(layers: &[(PathBuf, Layer)], into: &Path) -> Result<(), Fault> {
    let tree = openat(CWD, into, READ, Mode::empty())?;
    for (root, layer) in layers {
        for path in &layer.opaque {
            match beneath(&tree, path) {
                Ok(_) if path.is_empty() => empty(&reopen(&tree, c".")?)?,
                Ok(folder) => empty(&reopen(&folder, c".")?)?,
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for path in &layer.whiteouts {
            let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(at) => (&path[..at], &path[at + 1..]),
                None => (&b""[..], &path[..]),
            };
            let name = CString::new(name).map_err(|error| Fault::Io(error.into()))?;
            match beneath(&tree, above) {
                Ok(folder) => remove(&folder, &name)?,
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let from = openat(CWD, root, READ, Mode::empty())?;
        lay(&from, &tree)?;
    }
    Ok(())
}

/// Lays a folder with all in it over another one. A layer is no deeper than [`crate::layer`] lets
/// it be.
fn lay(from: &OwnedFd, to: &OwnedFd) -> Result<(), Fault> {
    for (name, kind) in names(from)? {
        if kind != FileType::Directory {
            remove(to, &name)?;
            link(from, to, &name, kind)?;
            continue;
        }
        let is_folder =
            statat(to, &name, AtFlags::SYMLINK_NOFOLLOW).map(|found| FileType::from_raw_mode(found.st_mode));
        if !matches!(is_folder, Ok(FileType::Directory)) {
            remove(to, &name)?;
            mkdirat(to, &name, Mode::from_raw_mode(0o700))?;
        }
        let (below, target) = (reopen(from, &name)?, reopen(to, &name)?);
        lay(&below, &target)?;
        fchmod(&target, Mode::from_raw_mode(fstat(&below)?.st_mode as RawMode & 0o777))?;
    }
    Ok(())
}

fn link(from: &OwnedFd, to: &OwnedFd, name: &CStr, kind: FileType) -> Result<(), Fault> {
    match linkat(from, name, to, name, AtFlags::empty()) {
        // A file system has a most of links to one file.
        Err(Errno::MLINK) => {}
        linked => return Ok(linked?),
    }
    if kind == FileType::Symlink {
        return Ok(symlinkat(readlinkat(from, name, Vec::new())?, to, name)?);
    }
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut source = File::from(openat(from, name, read, Mode::empty())?);
    let about = fstat(&source)?;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut copy = File::from(openat(to, name, write, Mode::from_raw_mode(0o600))?);
    io::copy(&mut source, &mut copy)?;
    copy.set_modified(source.metadata()?.modified()?)?;
    Ok(fchmod(&copy, Mode::from_raw_mode(about.st_mode as RawMode & 0o777))?)
}

fn reopen(at: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(at, name, READ, Mode::empty())
}

fn names(folder: &OwnedFd) -> Result<Vec<(CString, FileType)>, Fault> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
            kind => kind,
        };
        names.push((name.to_owned(), kind));
    }
    Ok(names)
}

fn empty(folder: &OwnedFd) -> Result<(), Fault> {
    for (name, _) in names(folder)? {
        remove(folder, &name)?;
    }
    Ok(())
}

fn remove(folder: &OwnedFd, name: &CStr) -> Result<(), Fault> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    empty(&reopen(folder, name)?)?;
    Ok(unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}
