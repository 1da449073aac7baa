//! Which processes and groups a session's sandboxes are, recorded for the process that has to end
//! them when their agent cannot.

use crate::{clock::boot_time, folders::Folders, write_atomically};
use sandbox::{groups, process::Identity};
use serde::de::DeserializeOwned;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Records the processes of a session's sandboxes, for the process that has to end them when this
/// one cannot.
pub(crate) fn note(folders: &Folders, identity: Identity) -> io::Result<()> {
    let path = folders.session.join("sandboxes.json");
    let mut all = read_notes(&folders.session)?;
    all.retain(|each| Identity::of(each.pid) == Some(*each));
    all.push(identity);
    write_atomically(&path, &serde_json::to_vec(&all)?)
}

/// Writes down which groups a session's sandboxes have made, likewise.
pub(crate) fn note_groups(folders: &Folders, own: &[PathBuf]) -> io::Result<()> {
    let mut all = noted_groups(&folders.session)?;
    all.retain(|group| group.is_dir());
    all.extend_from_slice(own);
    write_atomically(&folders.session.join("groups.json"), &serde_json::to_vec(&all)?)
}

/// The processes that a session's sandboxes were started as.
///
/// # Errors
///
/// When the list cannot be read: its processes could then outlive their session. Final until
/// somebody has seen to that.
pub fn read_notes(session: &Path) -> io::Result<Vec<Identity>> {
    list(&session.join("sandboxes.json"))
}

/// The groups that a session's sandboxes have made.
///
/// # Errors
///
/// As [`noted`].
pub fn noted_groups(session: &Path) -> io::Result<Vec<PathBuf>> {
    list(&session.join("groups.json"))
}

/// Reads a list. One that is not there is empty; so is a damaged one of before the machine's start,
/// as its processes have gone.
fn list<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes?,
    };
    let damaged = match serde_json::from_slice(&bytes) {
        Ok(list) => return Ok(list),
        Err(damaged) => damaged,
    };
    let age = SystemTime::now().duration_since(fs::metadata(path)?.modified()?);
    if age.is_ok_and(|age| age > Duration::from_millis(boot_time())) {
        tracing::warn!(path = %path.display(), %damaged, "a list of before the machine's start is damaged");
        return Ok(Vec::new());
    }
    let text = format!(
        "{} is damaged ({damaged}): which processes the session has is not known. End those below its folder, and remove the file",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Removes the groups of a sandbox whose processes are ending.
pub async fn remove_groups(groups: &[PathBuf]) {
    for _ in 0..1000 {
        if groups::remove(groups) {
            return;
        }
        // A process that has ended is in its group until its parent has heard of that.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_list_of_processes_is_an_error_and_none_that_reads_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        let session = folder.path();
        let it = Identity::of(std::process::id() as i32).unwrap();
        assert_eq!(read_notes(session).unwrap(), []);
        let folders = Folders {
            state: session.to_owned(),
            session: session.to_owned(),
        };
        note(&folders, it).unwrap();
        assert_eq!(read_notes(session).unwrap(), [it]);
        let path = session.join("sandboxes.json");
        for damaged in ["", "[{\"pid\": 7", "{}"] {
            fs::write(&path, damaged).unwrap();
            let error = read_notes(session).unwrap_err().to_string();
            assert!(error.contains("sandboxes.json is damaged"), "{error}");
            // A further sandbox would take the place of what is not known.
            assert!(note(&folders, it).is_err(), "{damaged}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
        let before = SystemTime::now() - Duration::from_millis(boot_time()) - Duration::from_secs(60);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(before).unwrap();
        assert_eq!(read_notes(session).unwrap(), []);
    }
}
