//! Writes the tar files of new images: a layer of a folder, and the archive of an image. The same
//! content gives the same bytes: names are sorted, owners and times are fixed.

use crate::digest::hex;
use flate2::{Compression, write::GzEncoder};
use sandbox::beneath::{FileType, Folder, Limits};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};
use tar::{Builder, EntryType, Header};

/// The time of every file: zip files, which packages may be put into, know none before 1980.
const TIME: u64 = 315_532_800;

/// The most that a layer is made of.
const MOST: Limits = Limits {
    depth: 64,
    entries: 1_000_000,
    bytes: 64 << 30,
};

/// A layer that was written.
pub(crate) struct NewLayer {
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) diff_id: String,
}

/// Passes bytes on, and hashes and counts them.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            size: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(TIME);
    header
}

/// Writes a folder as a layer, compressed by gzip. Links stay links, and files are everybody's to
/// read. Foreign code has filled the folder: no link of it is followed.
///
/// * `at`: where it is in the image, without a slash before it.
pub(crate) fn write_layer(folder: &Path, at: &Path, into: File) -> io::Result<NewLayer> {
    let compressed = GzEncoder::new(Hashing::new(io::BufWriter::new(into)), Compression::default());
    let mut tar = Builder::new(Hashing::new(compressed));
    let add_folder = |tar: &mut Builder<_>, path: &Path| {
        tar.append_data(&mut header(EntryType::Directory, 0o755, 0), path, io::empty())
    };
    add_folder(&mut tar, at)?;
    Folder::open(folder)?.walk(&MOST, |entry| {
        let path = at.join(entry.path);
        match entry.kind {
            FileType::Directory => add_folder(&mut tar, &path),
            FileType::Symlink => tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, entry.read_link()?),
            FileType::RegularFile => {
                let file = entry.open()?;
                let size = file.metadata()?.len();
                let mode = if entry.stat.st_mode & 0o111 == 0 { 0o644 } else { 0o755 };
                tar.append_data(&mut header(EntryType::Regular, mode, size), path, file.take(size))
            }
            _ => Ok(()),
        }
    })?;
    let Hashing { inner, hash, .. } = tar.into_inner()?;
    let diff_id = hex(&hash.finalize());
    let Hashing { mut inner, hash, size } = inner.finish()?;
    inner.flush()?;
    Ok(NewLayer {
        digest: hex(&hash.finalize()),
        size,
        diff_id,
    })
}

/// An OCI layout in a tar file, which is written part by part.
pub(crate) struct Layout(Builder<File>);

impl Layout {
    pub(crate) fn new(file: File) -> Self {
        Self(Builder::new(file))
    }

    pub(crate) fn add(&mut self, path: &str, size: u64, content: impl Read) -> io::Result<()> {
        let mut header = header(EntryType::Regular, 0o644, size);
        self.0.append_data(&mut header, path, content.take(size))
    }

    pub(crate) fn add_blob(&mut self, digest: &str, size: u64, content: impl Read) -> io::Result<()> {
        self.add(&format!("blobs/{}", digest.replace(':', "/")), size, content)
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        self.0.into_inner()?.sync_all()
    }
}
