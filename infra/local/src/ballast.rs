//! Room that the host keeps for itself: a file that it removes when others have filled the disk,
//! and pages of its databases.
//!
//! The host has to write when the disk is full: a stop that was asked for, a lease, its own start.
//! What has filled the disk gives way within seconds (see [`agent::disk`]) if it is a session.
//! Others may go on, and take the file's room as soon as it is free; so each database has pages
//! without content and a log of some length, which are written over in place.
//!
//! * Rejected: `fallocate` beyond the end of the databases. SQLite sets their length at each
//!   checkpoint, which frees that room.

use agent::disk::{Room, SPARE};
use contract::Code;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The most bytes to keep: a part of the disk, and no more than this. A day of a busy host's
/// messages is less.
const MOST: u64 = 64 << 20;
const OF_DISK: u64 = 40;
/// The room of a database in its file and again in its log: hundreds of operations, as used pages
/// are used again.
const MOST_PAGES: u64 = 4 << 20;
const PAGES_OF_DISK: u64 = 160;
/// Of [`SPARE`], which a start gives up: its databases' indexes are made anew, as are small files.
const SPARE_BYTES: u64 = 256 << 10;
/// The time between two looks at the free room.
pub(crate) const EVERY: Duration = Duration::from_millis(250);

pub(crate) struct Ballast {
    state: PathBuf,
    file: PathBuf,
    spare: PathBuf,
    /// Whether this file system keeps no room for a file.
    is_impossible: bool,
}

impl Ballast {
    /// Gives back what the last host has kept for this start.
    pub(crate) fn begin(state: &Path) -> Self {
        let spare = state.join(SPARE);
        let _ = fs::remove_file(&spare);
        Self {
            state: state.to_owned(),
            file: state.join("room-for-the-host"),
            spare,
            is_impossible: false,
        }
    }

    /// Removes the file when the room becomes short, and makes it again when there is enough.
    /// Whether the disk is full now.
    pub(crate) fn tend(&mut self) -> bool {
        let Ok(room) = Room::of(&self.state) else { return false };
        let bytes = MOST.min(room.total / OF_DISK);
        let is_kept = self.file.exists();
        if is_kept && room.free < bytes / 2 {
            tracing::error!(
                fault = Code::HostDiskFull.as_str(),
                free = room.free,
                total = room.total,
                "the disk of {} is full: the host uses what it has kept for itself. Make room there",
                self.state.display()
            );
            if let Err(cause) = fs::remove_file(&self.file) {
                tracing::error!(fault = Code::HostDiskFull.as_str(), cause = %cause, "what the host has kept cannot be used");
            }
        } else if !is_kept
            && !self.is_impossible
            && room.free > room.reserve() + 2 * bytes
            && let Err(cause) = fill(&self.file, bytes)
        {
            tracing::warn!(cause = %cause, "no room is kept for the host");
            self.is_impossible = true;
        }
        self.keep_spare(&room);
        room.free < SPARE_BYTES
    }

    /// Makes the spare file, as large as a full disk allows.
    fn keep_spare(&self, room: &Room) {
        let spare = fs::metadata(&self.spare).map_or(0, |about| about.len());
        if spare == 0 || spare < SPARE_BYTES && !room.is_short() {
            let _ = (0..4).any(|part| fill(&self.spare, SPARE_BYTES >> part).is_ok());
        }
    }
}

/// Makes a file whose room is on the disk, or none.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let filled = fs::File::create(path).and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?));
    if filled.is_err() {
        let _ = fs::remove_file(path);
    }
    filled
}

/// Sees that a database can be written on a full disk: that it has pages without content, and a log
/// that is long enough.
///
/// # Errors
///
/// Those of the database.
pub(crate) fn keep_pages(database: &Path) -> rusqlite::Result<()> {
    let Some(room) = Room::of(database).ok().filter(|room| !room.is_short()) else {
        return empty_log(database);
    };
    let bytes = MOST_PAGES.min(room.total / PAGES_OF_DISK);
    let connection = open(database)?;
    let number = |pragma| connection.query_row(pragma, [], |row| row.get::<_, u64>(0));
    let free = number("PRAGMA freelist_count")? * number("PRAGMA page_size")?;
    let log = fs::metadata(format!("{}-wal", database.display())).map_or(0, |log| log.len());
    if free >= bytes / 2 && log >= bytes {
        return Ok(());
    }
    // Pages come to be on the disk when they have content and that is moved from the log into the
    // file.
    connection.execute_batch("DROP TABLE IF EXISTS room_for_the_host; CREATE TABLE room_for_the_host (bytes)")?;
    connection.execute("INSERT INTO room_for_the_host VALUES (zeroblob(?1))", [bytes])?;
    empty_log(database)?;
    connection.execute_batch("DROP TABLE room_for_the_host")
}

/// Moves a database's log into its file. The log is then written over from its beginning, for which
/// a full disk has room.
///
/// # Errors
///
/// Those of the database.
pub(crate) fn empty_log(database: &Path) -> rusqlite::Result<()> {
    open(database)?.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
}

fn open(database: &Path) -> rusqlite::Result<Connection> {
    // A file that was taken away is not made again.
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn room_is_kept_where_there_is_enough_and_only_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let room = Room::of(folder.path()).expect("it has a file system");
        let mut ballast = Ballast::begin(folder.path());
        ballast.tend();
        let bytes = MOST.min(room.total / OF_DISK);
        if room.free < room.reserve() + 3 * bytes {
            println!("the disk of this machine has too little room for this test");
            return;
        }
        let file = ballast.file.clone();
        let kept = || fs::metadata(&file).expect("it is kept");
        assert_eq!(kept().len(), bytes);
        let made = kept().modified().expect("a time");
        ballast.tend();
        assert_eq!(kept().modified().expect("a time"), made);
    }

    #[test]
    fn a_database_has_pages_for_a_full_disk_and_they_are_kept_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("some.db");
        let database = Connection::open(&file).expect("it is made");
        database.pragma_update(None, "journal_mode", "WAL").expect("a log");
        database.execute_batch("CREATE TABLE t (x)").expect("a table");
        keep_pages(&file).expect("pages are kept");
        let pages = || database.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u64>(0));
        let kept = pages().expect("a number");
        let on_disk = fs::metadata(&file).expect("it is there").blocks() * 512;
        assert!(kept > 100 && on_disk > kept * 4096 / 2, "{kept} {on_disk}");
        keep_pages(&file).expect("nothing is to be done");
        assert_eq!(pages().expect("a number"), kept);
    }
}
