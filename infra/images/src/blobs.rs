//! Downloads: resumed, checked, and one at a time for each digest.

use crate::{
    Progress, Step,
    digest::{BLOCK, hash_rest, hex, other_digest},
    io as wrong,
    manifest::Descriptor,
    registry::Registry,
};
use contract::{Code, Failure};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

/// The most tries of a download that is cut off without a byte more each time.
const TRIES: u32 = 5;

/// Downloads a blob to `path`, from where an earlier download ended. The caller holds the lock of
/// its digest.
///
/// # Errors
///
/// `Image.DigestMismatch`, final; those of the registry and the disk.
pub(crate) fn download(
    registry: &Registry,
    blob: &Descriptor,
    path: &Path,
    progress: Progress<'_>,
) -> Result<File, Failure> {
    let io_failure = |error| wrong(path, error);
    let options = || {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
    };
    let mut file = options().map_err(io_failure)?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    if file.metadata().map_err(io_failure)?.len() <= blob.size {
        size = hash_rest(&mut file, &mut hash).map_err(io_failure)?;
    } else {
        file.set_len(0).map_err(io_failure)?;
    }
    // What ends at the last byte of the disk would be a loss for all else on it.
    crate::layer::check_room(&file, blob.size.saturating_sub(size)).map_err(|error| {
        // It is in no list, so nobody else would take it away.
        let _ = std::fs::remove_file(path);
        io_failure(error)
    })?;
    let mut tries = 0;
    while size < blob.size {
        let before = size;
        let ended = fetch(registry, blob, (&mut file, path), &mut hash, &mut size, progress);
        tries = if size > before { 0 } else { tries + 1 };
        match ended {
            Ok(()) if size == blob.size => break,
            Ok(()) if tries < TRIES => {}
            Ok(()) => return Err(registry.unreachable("it ends a download before its end")),
            Err(failure) if failure.error == Code::ImageUnreachable && tries < TRIES => {}
            Err(failure) => {
                if failure.error == Code::ImageDiskFull {
                    let _ = std::fs::remove_file(path);
                }
                return Err(failure);
            }
        }
        std::thread::sleep(Duration::from_millis(100 << tries.min(5)));
    }
    if hex(&hash.finalize()) != blob.digest {
        // What is wrong is not gone on with.
        let _ = std::fs::remove_file(path);
        return Err(other_digest(&format!("The layer {}", blob.digest)));
    }
    file.seek(SeekFrom::Start(0)).map_err(io_failure)?;
    Ok(file)
}

/// Goes on with a download as far as the connection carries.
fn fetch(
    registry: &Registry,
    blob: &Descriptor,
    (file, path): (&mut File, &Path),
    hash: &mut Sha256,
    size: &mut u64,
    progress: Progress<'_>,
) -> Result<(), Failure> {
    let io_failure = |error| wrong(path, error);
    let (mut body, is_partial) = registry.blob(&blob.digest, *size)?;
    if !is_partial && *size > 0 {
        // It gives the whole or nothing.
        (*hash, *size) = (Sha256::new(), 0);
        file.set_len(0).map_err(io_failure)?;
    }
    file.seek(SeekFrom::Start(*size)).map_err(io_failure)?;
    let mut buffer = vec![0; BLOCK];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(registry.unreachable(&error.to_string())),
        };
        if *size + count as u64 > blob.size {
            return Err(other_digest(&format!("The layer {}", blob.digest)));
        }
        file.write_all(&buffer[..count]).map_err(io_failure)?;
        hash.update(&buffer[..count]);
        *size += count as u64;
        progress(Step::Downloaded {
            layer: &blob.digest,
            bytes: *size,
        });
    }
}
