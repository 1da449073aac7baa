//! Names from content, random names, and files that are written whole.

use sha2::{Digest, Sha256};
use std::{io, path::Path};

/// 32 hex digits over all of `parts`, and where each ends.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A name that nobody else has.
pub fn random() -> String {
    let mut bytes = [0; 8];
    // Without a source of randomness the process id in front of it has to do.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file so that whoever reads it sees all of it or what was there before. Makes its folder.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let partial = folder.join(format!(".{}-{}", std::process::id(), random()));
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}
