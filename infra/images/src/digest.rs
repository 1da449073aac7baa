//! Digests of content.

use crate::failure;
use contract::{Code, Failure};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

/// The most bytes that are read at once.
pub(crate) const BLOCK: usize = 256 << 10;

/// `sha256:` and the digits.
pub(crate) fn hex(digest: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest))
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The digest as the name of a file.
pub(crate) fn file_name(digest: &str) -> String {
    digest.replace(':', "-")
}

/// The failure of content that is not what its digest says.
pub(crate) fn other_digest(what: &str) -> Failure {
    failure(
        Code::ImageDigestMismatch,
        format!(
            "{what} is not what its digest says: it was changed on its way, or where it lies. Nothing of it was used. Pull again; if it \
             stays so, do not trust the registry or a proxy between."
        ),
    )
}

/// The digest of a whole file, which is read from its beginning afterwards.
pub(crate) fn digest_of_file(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash_rest(file, &mut hash)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(hex(&hash.finalize()))
}

pub(crate) fn hash_rest(file: &mut File, hash: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; BLOCK];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(size),
            count => {
                hash.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}

/// Whether it is `sha256:` and 64 lower case hex digits: it is part of a path, too.
pub(crate) fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
