//! A file for its owner alone, which holds secrets.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Reads the file; `None` if there is none.
///
/// # Errors
///
/// In words that begin with the file's path, if others may read it, it is somebody else's, or it
/// cannot be read. Final until that is put right.
pub fn read(path: &Path) -> Result<Option<String>, String> {
    let shown = path.display();
    let cannot = |error: io::Error| format!("{shown} cannot be read: {error}. Put that right.");
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    let about = file.metadata().map_err(cannot)?;
    let me = rustix::process::geteuid().as_raw();
    if me != 0 && about.uid() != me {
        return Err(format!(
            "{shown} holds credentials, and it is another user's. Remove it, and give them again."
        ));
    }
    if about.mode() & 0o077 != 0 {
        return Err(format!(
            "{shown} holds credentials, and others may read it. Take that right away: chmod 600 {shown}"
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(cannot)?;
    Ok(Some(text))
}

/// Writes the file whole, for its owner alone. Makes its folder.
///
/// # Errors
///
/// Errors of the file system.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.join(format!(".{name}"));
    fs::create_dir_all(folder)?;
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(partial, path)
}
