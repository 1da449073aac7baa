//! Names from content, random names, and files that are written whole.

use sha2::{Digest, Sha256};
use std::{fs, io, os::unix::fs::lchown, path::Path};

/// 32 hex digits over all of `parts`, and where each ends.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..16])
}

/// A name that nobody else has.
pub fn random() -> String {
    let mut bytes = [0; 8];
    // Without a source of randomness the process id in front of it has to do.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}

/// Writes a file so that a reader sees all of it or its earlier content. Makes its folder.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let partial = folder.join(format!(".{}-{}", std::process::id(), random()));
    let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        // On a full disk nobody else would remove it.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// Makes a user the owner of a folder with all in it. Nobody else may write there meanwhile.
///
/// # Errors
///
/// Errors of the file system, in the middle.
pub fn give_all(folder: &Path, user: u32) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                lchown(entry.path(), Some(user), Some(user))?;
            }
        }
        lchown(&folder, Some(user), Some(user))?;
    }
    Ok(())
}
