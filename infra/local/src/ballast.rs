//! Room that the host keeps for itself, as a file that it removes when others have filled the disk.
//!
//! The host has to write when the disk is full: a stop that was asked for, a lease, its own start. What has filled the disk gives way within
//! seconds (see [`agent::disk`]); until then this is what the host lives on.

use agent::disk::Room;
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// What is kept: a part of the disk, and no more than this. A day of a busy host's messages is less.
const MOST: u64 = 64 << 20;
const OF_DISK: u64 = 40;
/// How often the free room is looked at.
pub(crate) const EVERY: Duration = Duration::from_millis(250);

pub(crate) struct Ballast {
    state: PathBuf,
    file: PathBuf,
    /// Whether this file system keeps no room for a file.
    is_impossible: bool,
}

impl Ballast {
    pub(crate) fn of(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            file: state.join("room-for-the-host"),
            is_impossible: false,
        }
    }

    /// Removes the file when the room becomes short, and makes it again when there is enough.
    pub(crate) fn tend(&mut self) {
        let Ok(room) = Room::of(&self.state) else { return };
        let bytes = MOST.min(room.total / OF_DISK);
        let is_kept = self.file.exists();
        if is_kept && room.free < bytes / 2 {
            tracing::error!(
                fault = "Host.DiskFull",
                free = room.free,
                total = room.total,
                "the disk of {} is full: the host uses what it has kept for itself. Make room there",
                self.state.display()
            );
            if let Err(cause) = fs::remove_file(&self.file) {
                tracing::error!(fault = "Host.DiskFull", cause = %cause, "what the host has kept cannot be used");
            }
        } else if !is_kept
            && !self.is_impossible
            && room.free > room.reserve() + 2 * bytes
            && let Err(cause) = self.fill(bytes)
        {
            tracing::warn!(cause = %cause, "no room is kept for the host");
            self.is_impossible = true;
            let _ = fs::remove_file(&self.file);
        }
    }

    fn fill(&self, bytes: u64) -> io::Result<()> {
        let file = fs::File::create(&self.file)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_where_there_is_enough_and_only_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let room = Room::of(folder.path()).expect("it has a file system");
        let mut ballast = Ballast::of(folder.path());
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
}
