//! A flow folder's view as one file: a zip file in which nothing is compressed, so that the same
//! folder has the same digest everywhere.
//!
//! Its entries are sorted and have no times or owners; of a file's mode only the executable bit is
//! kept.

use crate::{
    Code, Failure,
    view::{MOST_BYTES, MOST_FILES, View, as_it_is, write_zip},
};
use std::{
    fmt::Display,
    fs,
    io::{self, Read, Seek, Write},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

/// The largest depth of a name in a snapshot, in folders.
const MOST_DEPTH: usize = 110;

/// The source of an entry.
enum Entry<'a> {
    Folder,
    File(&'a Path),
    Zip(&'a crate::view::Archive),
}

/// Packs a view into `to`, and gives that back.
///
/// # Errors
///
/// An error of the file system; worth a retry. A file that went away since [`crate::view::list`] is
/// one.
pub fn pack<W: Write + Seek>(view: &View, to: W) -> io::Result<W> {
    let folders = view.folders.iter().map(|folder| (folder, Entry::Folder));
    let files = view
        .files
        .iter()
        .map(|file| (&file.target, Entry::File(file.source.as_path())));
    let zips = view
        .archives
        .iter()
        .map(|archive| (&archive.target, Entry::Zip(archive)));
    let mut entries: Vec<(&PathBuf, Entry<'_>)> = folders.chain(files).chain(zips).collect();
    entries.sort_by_key(|(target, _)| *target);
    let mut zip = zip::ZipWriter::new(to);
    for (target, entry) in entries {
        let name = target
            .to_str()
            .ok_or_else(|| io::Error::other(format!("the name of {} is not UTF-8", target.display())))?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
        match entry {
            Entry::Folder => zip.add_directory(name, as_it_is())?,
            Entry::File(source) => {
                let mut source = fs::File::open(source).map_err(named)?;
                let is_program = source.metadata().map_err(named)?.permissions().mode() & 0o100 != 0;
                zip.start_file(name, as_it_is().unix_permissions(mode(is_program)))?;
                io::copy(&mut source, &mut zip).map_err(named)?;
            }
            Entry::Zip(archive) => {
                let inner = write_zip(&archive.folders, &archive.files, io::Cursor::new(Vec::new())).map_err(named)?;
                zip.start_file(name, as_it_is().unix_permissions(mode(false)))?;
                zip.write_all(inner.get_ref())?;
            }
        }
    }
    Ok(zip.finish()?)
}

fn mode(is_program: bool) -> u32 {
    if is_program { 0o755 } else { 0o644 }
}

/// Lays a snapshot out in `to`, a folder that is there and empty. What it holds is a view: read it
/// with [`crate::Reach::View`].
///
/// # Errors
///
/// `Snapshot.Unreadable`, if it is none that [`pack`] could have made; `Snapshot.TooLarge`, if it
/// holds more than a view may; `Snapshot.NoRoom`, if it cannot be written here.
pub fn lay_out<R: Read + Seek>(snapshot: R, to: &Path) -> Result<(), Failure> {
    let mut zip = zip::ZipArchive::new(snapshot).map_err(|error| unreadable(&error))?;
    if zip.len() > MOST_FILES {
        return Err(too_large(&format!("more than {MOST_FILES} files and folders")));
    }
    let mut left = MOST_BYTES;
    for at in 0..zip.len() {
        let mut entry = zip.by_index(at).map_err(|error| unreadable(&error))?;
        let name = Path::new(entry.name()).to_owned();
        let is_below = name.components().all(|part| matches!(part, Component::Normal(_)))
            && (1..=MOST_DEPTH).contains(&name.components().count());
        if !is_below || entry.is_symlink() || entry.compression() != zip::CompressionMethod::Stored {
            return Err(unreadable(&format!("{:?} is no file of a flow folder", entry.name())));
        }
        let target = to.join(&name);
        if entry.is_dir() {
            fs::create_dir_all(&target).map_err(no_room)?;
            continue;
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(no_room)?;
        }
        let is_program = entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
        let mut file = fs::File::create_new(&target).map_err(no_room)?;
        write_out(&mut entry, &mut file, &mut left)?;
        file.set_permissions(fs::Permissions::from_mode(mode(is_program)))
            .map_err(no_room)?;
    }
    Ok(())
}

/// Copies a file of the snapshot; `left` is how many bytes all that are still to come may have.
fn write_out(entry: &mut impl Read, file: &mut fs::File, left: &mut u64) -> Result<(), Failure> {
    let mut bounded = entry.take(*left + 1);
    let mut buffer = [0; 1 << 16];
    loop {
        let read = match bounded.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => return Err(unreadable(&error)),
        };
        *left = left
            .checked_sub(read as u64)
            .ok_or_else(|| too_large(&format!("more than {} MiB", MOST_BYTES >> 20)))?;
        file.write_all(&buffer[..read]).map_err(no_room)?;
    }
}

fn unreadable(why: &dyn Display) -> Failure {
    Failure::new(
        Code::SnapshotUnreadable,
        format!(
            "The snapshot of the flow folder cannot be read: {why}. Send the flow again with this version of pfsession."
        ),
    )
}

fn too_large(what: &str) -> Failure {
    Failure::new(
        Code::SnapshotTooLarge,
        format!(
            "The snapshot of the flow folder holds {what}. Move out what the flow does not need, such as data and caches."
        ),
    )
}

fn no_room(error: io::Error) -> Failure {
    Failure::new(
        Code::SnapshotNoRoom,
        format!(
            "The snapshot of the flow folder cannot be laid out: {error}. Free some room on the disk, and try again."
        ),
    )
}
