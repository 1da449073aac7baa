//! Which processes and groups a session's sandboxes are, written down for whoever has to end them when their agent cannot.

use crate::{folders::Folders, write_atomically};
use sandbox::{groups, process::Identity};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Writes down which processes a session's sandboxes are, for whoever has to end them when this one cannot.
pub(crate) fn note(folders: &Folders, identity: Identity) -> io::Result<()> {
    let path = folders.session.join("sandboxes.json");
    let mut all = noted(&folders.session);
    all.retain(|each| Identity::of(each.pid) == Some(*each));
    all.push(identity);
    write_atomically(&path, &serde_json::to_vec(&all)?)
}

/// Writes down which groups a session's sandboxes have made, likewise.
pub(crate) fn note_groups(folders: &Folders, own: &[PathBuf]) -> io::Result<()> {
    let mut all = noted_groups(&folders.session);
    all.retain(|group| group.is_dir());
    all.extend_from_slice(own);
    write_atomically(&folders.session.join("groups.json"), &serde_json::to_vec(&all)?)
}

/// The processes that a session's sandboxes were started as.
pub fn noted(session: &Path) -> Vec<Identity> {
    let bytes = fs::read(session.join("sandboxes.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// The groups that a session's sandboxes have made.
pub fn noted_groups(session: &Path) -> Vec<PathBuf> {
    let bytes = fs::read(session.join("groups.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
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
