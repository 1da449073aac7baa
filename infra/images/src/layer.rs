//! Unpacks one layer into an empty folder. What is in a layer is anybody's: each path is taken
//! beneath the folder and through no link, and entries, bytes and depths are bounded.
//!
//! * Owners are not kept: all is this user's, and a session sees it as its own. Set-user-id,
//!   extended attributes and devices are left out.
//! * Only the `tar` crate's headers are used. Its own long names and extensions are read without a
//!   bound, and its unpacking follows links.
//! * `ruzstd` is pure Rust; `zstd` builds C. It is half as fast, and layers in zstd are rare.

use flate2::bufread::MultiGzDecoder;
use rustix::{
    fs::{
        AtFlags, CWD, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat,
        openat, openat2, statat, statvfs, symlinkat, unlinkat,
    },
    io::Errno,
};
use ruzstd::decoding::FrameDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    ffi::CString,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};
use tar::{Archive, Entry, EntryType, PaxExtensions};

/// The most that a layer may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// A layer that small may be as large as this, however well it is compressed.
const FLOOR: u64 = 1 << 30;
const MOST_BYTES: u64 = 64 << 30;
/// The most bytes of a layer for each byte of its download: real ones have 2 to 10.
const MOST_RATIO: u64 = 200;

impl Most {
    /// The bounds of a download of this size.
    pub(crate) fn of(compressed: u64) -> Self {
        Self {
            entries: 1_000_000,
            bytes: compressed.saturating_mul(MOST_RATIO).clamp(FLOOR, MOST_BYTES),
        }
    }
}

const LONGEST_PATH: usize = 4096;
const LONGEST_NAME: usize = 255;
const DEEPEST: usize = 128;
/// The most bytes of an entry's extended header.
const MOST_PAX: u64 = 1 << 20;
/// The room to leave on the disk, whatever a layer has.
const KEEP_FREE: u64 = 1 << 30;
const BLOCK: usize = 64 << 10;

/// Checks that a disk has room for so many bytes more, and keeps [`KEEP_FREE`].
///
/// # Errors
///
/// `ENOSPC` if it does not.
pub(crate) fn check_room(place: impl AsFd, bytes: u64) -> io::Result<()> {
    let about = rustix::fs::fstatvfs(place).or_else(|_| statvfs("/"))?;
    match about.f_bavail.saturating_mul(about.f_frsize) < KEEP_FREE.saturating_add(bytes) {
        true => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        false => Ok(()),
    }
}

/// The metadata of a layer, beside its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Paths that it removes from the layers below.
    pub(crate) whiteouts: Vec<Vec<u8>>,
    /// Folders of which it hides what the layers below have in them.
    pub(crate) opaque: Vec<Vec<u8>>,
    /// The number of devices, pipes and sockets that were left out.
    pub(crate) left_out: u64,
}

/// The fault of a layer that is not unpacked.
#[derive(Debug)]
pub(crate) enum Fault {
    Io(io::Error),
    /// It has what no layer has, in words.
    Hostile(String),
    TooLarge(String),
    /// It is not what its configuration names.
    OtherDigest,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        // What our own readers say is no error of the file system.
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Bound>()) {
            Some(bound) => Self::TooLarge(bound.0.clone()),
            None if error.raw_os_error().is_none() => Self::Hostile(error.to_string()),
            None => Self::Io(error),
        }
    }
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

#[derive(Debug)]
struct Bound(String);

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Bound {}

/// Unpacks a layer whose own digest was checked.
///
/// * `blob`: as it is sent: a tar file, as it is, or compressed by gzip or zstd.
/// * `diff_id`: the digest of the tar file.
/// * `into`: an empty folder.
///
/// # Errors
///
/// Each [`Fault`]; what was unpacked until then is in `into`, and must not be used.
pub(crate) fn unpack(blob: File, diff_id: &str, into: &Path, most: Most) -> Result<Layer, Fault> {
    let mut blob = BufReader::with_capacity(BLOCK, blob);
    let begins = blob.fill_buf()?;
    let source: Box<dyn Read> = match begins {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(blob)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(Zstd::new(blob)),
        _ => Box::new(blob),
    };
    let mut tar = Tar {
        source,
        hash: Sha256::new(),
        // Headers are no part of the files' bytes.
        left: most.bytes + most.entries * 1024,
    };
    let mut writer = Writer::new(into, most)?;
    let mut archive = Archive::new(&mut tar);
    for entry in archive.entries()?.raw(true) {
        writer.take(entry?)?;
    }
    // What is behind the last entry counts for the digest.
    io::copy(&mut tar, &mut io::sink())?;
    match crate::digest::hex(&tar.hash.finalize()) == diff_id {
        true => Ok(writer.layer),
        false => Err(Fault::OtherDigest),
    }
}

/// The tar file: hashed as it is read, and bounded.
struct Tar {
    source: Box<dyn Read>,
    hash: Sha256,
    left: u64,
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(Bound("it unpacks to more than it may have for its download".to_owned()))
        })?;
        Ok(count)
    }
}

/// All frames of a zstd file, one after the other.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            decoder: FrameDecoder::new(),
            is_in_frame: false,
        }
    }

    /// Whether there is another frame.
    fn next_frame(&mut self) -> io::Result<bool> {
        use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy;
        loop {
            if !self.is_in_frame && !self.next_frame()? {
                return Ok(0);
            }
            self.is_in_frame = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.decoder.decode_blocks(&mut self.source, one);
                decoded.map_err(|error| io::Error::other(error.to_string()))?;
            }
            match self.decoder.read(buffer)? {
                0 if self.decoder.is_finished() => self.is_in_frame = false,
                count => return Ok(count),
            }
        }
    }
}

/// Writes entries beneath a folder.
struct Writer {
    root: OwnedFd,
    /// The folder of the last entry, as most entries are in the folder of the one before.
    parent: Option<(Vec<u8>, OwnedFd)>,
    layer: Layer,
    most: Most,
    /// Written since room was looked at.
    unseen: u64,
    /// The extended headers of the next entry.
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    buffer: Vec<u8>,
}

const FOLDER: OFlags =
    OFlags::from_bits_retain(OFlags::PATH.bits() | OFlags::DIRECTORY.bits() | OFlags::CLOEXEC.bits());

impl Writer {
    fn new(root: &Path, most: Most) -> Result<Self, Fault> {
        Ok(Self {
            root: openat(CWD, root, FOLDER, Mode::empty())?,
            parent: None,
            layer: Layer::default(),
            most,
            unseen: KEEP_FREE,
            long_name: None,
            long_link: None,
            buffer: vec![0; BLOCK],
        })
    }

    fn take<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), Fault> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => return self.long(&mut entry).map(|name| self.long_name = Some(name)),
            EntryType::GNULongLink => return self.long(&mut entry).map(|name| self.long_link = Some(name)),
            EntryType::XHeader => return self.read_extended_header(&mut entry),
            EntryType::XGlobalHeader => return Ok(()),
            _ => {}
        }
        self.layer.entries += 1;
        if self.layer.entries > self.most.entries {
            return Err(Fault::TooLarge(format!(
                "it has more than {} entries",
                self.most.entries
            )));
        }
        let name = self.long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let link = self.long_link.take();
        let link = link.or_else(|| entry.link_name_bytes().map(|name| name.into_owned()));
        let parts = parts(&name)?;
        let Some((last, above)) = parts.split_last() else {
            // The root itself.
            return Ok(());
        };
        if let Some(removed) = last.strip_prefix(b".wh.") {
            return self.whiteout(above, removed);
        }
        let name = CString::new(*last).map_err(|_| hostile(&name, "has a zero byte in its name"))?;
        let mode = entry.header().mode()? & 0o777;
        match kind {
            EntryType::Directory => self.folder(above, &name, mode),
            EntryType::Regular | EntryType::Continuous => self.file(above, &name, mode, &mut entry),
            EntryType::Symlink => {
                let target =
                    CString::new(link.unwrap_or_default()).map_err(|_| hostile(last, "is a link with a zero byte"))?;
                if target.is_empty() || target.as_bytes().len() >= LONGEST_PATH {
                    return Err(hostile(last, "is a link to nothing, or to a path that is too long"));
                }
                self.make_room(above, &name)?;
                Ok(symlinkat(&target, self.parent(above)?, &name)?)
            }
            EntryType::Link => self.hard_link(above, &name, &link.unwrap_or_default()),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.layer.left_out += 1;
                Ok(())
            }
            other => Err(hostile(
                last,
                &format!("is of the kind {:?}, which is not read here", other.as_byte() as char),
            )),
        }
    }

    fn long<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Fault> {
        let mut name = Vec::new();
        entry.take(LONGEST_PATH as u64 + 2).read_to_end(&mut name)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn read_extended_header<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Fault> {
        if entry.size() > MOST_PAX {
            return Err(Fault::TooLarge(format!(
                "an extended header has more than {MOST_PAX} bytes"
            )));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        for extension in PaxExtensions::new(&bytes) {
            let extension = extension?;
            match extension.key_bytes() {
                b"path" => self.long_name = Some(extension.value_bytes().to_vec()),
                b"linkpath" => self.long_link = Some(extension.value_bytes().to_vec()),
                b"size" => {
                    return Err(Fault::Hostile(
                        "a file of more than 8 GiB, which is not read here".into(),
                    ));
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(Fault::Hostile(
                        "a sparse file in GNU tar's own form, which is not read here".into(),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, above: &[&[u8]], removed: &[u8]) -> Result<(), Fault> {
        let folder = above.join(&b'/');
        match removed {
            b".wh..opq" => self.layer.opaque.push(folder),
            // What AUFS kept for itself.
            _ if removed.starts_with(b".wh.") => {}
            b"" | b"." | b".." => return Err(hostile(removed, "removes no name")),
            _ => self.layer.whiteouts.push([above, &[removed]].concat().join(&b'/')),
        }
        Ok(())
    }

    /// The folder of an entry; made if the layer has not named it.
    fn parent(&mut self, above: &[&[u8]]) -> Result<&OwnedFd, Fault> {
        let path = above.join(&b'/');
        if self.parent.as_ref().is_none_or(|(known, _)| *known != path) {
            let folder = match beneath(&self.root, &path) {
                Err(Errno::NOENT) => self.make_folders(above)?,
                opened => opened.map_err(|error| in_the_way(&path, error))?,
            };
            self.parent = Some((path, folder));
        }
        match &self.parent {
            Some((_, folder)) => Ok(folder),
            None => Err(Fault::Io(io::ErrorKind::NotFound.into())),
        }
    }

    fn make_folders(&mut self, above: &[&[u8]]) -> Result<OwnedFd, Fault> {
        for end in 1..=above.len() {
            let (parent, name) = (above[..end - 1].join(&b'/'), above[end - 1]);
            let folder = beneath(&self.root, &parent).map_err(|error| in_the_way(&parent, error))?;
            match mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => self.count_entry()?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let path = above.join(&b'/');
        beneath(&self.root, &path).map_err(|error| in_the_way(&path, error))
    }

    /// Folders that no entry names count as well.
    fn count_entry(&mut self) -> Result<(), Fault> {
        self.layer.entries += 1;
        match self.layer.entries > self.most.entries {
            true => Err(Fault::TooLarge(format!(
                "it has more than {} entries",
                self.most.entries
            ))),
            false => Ok(()),
        }
    }

    fn folder(&mut self, above: &[&[u8]], name: &CString, mode: RawMode) -> Result<(), Fault> {
        let parent = self.parent(above)?;
        // The owner of a folder of the store has to be able to remove it.
        let mode = Mode::from_raw_mode(mode | 0o700);
        match mkdirat(parent, name, mode) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(parent, name, flags, Mode::empty());
        let opened = opened.map_err(|error| in_the_way(name.as_bytes(), error))?;
        Ok(fchmod(opened, mode)?)
    }

    fn file<R: Read>(
        &mut self,
        above: &[&[u8]],
        name: &CString,
        mode: RawMode,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), Fault> {
        self.make_room(above, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(self.parent(above)?, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(made);
        let size = self.copy(entry, &mut file)?;
        file.set_len(size)?;
        fchmod(&file, Mode::from_raw_mode(mode | 0o400))?;
        // Python tells by it whether what it has compiled is of this source.
        let seconds = i64::try_from(entry.header().mtime()?).unwrap_or(0);
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        Ok(futimens(
            &file,
            &Timestamps {
                last_access: time,
                last_modification: time,
            },
        )?)
    }

    /// Copies a file's bytes, and leaves holes where there are none but zeros.
    fn copy(&mut self, from: &mut impl Read, to: &mut File) -> Result<u64, Fault> {
        let mut size = 0;
        loop {
            let mut filled = 0;
            while filled < BLOCK {
                match from.read(&mut self.buffer[filled..])? {
                    0 => break,
                    count => filled += count,
                }
            }
            if filled == 0 {
                return Ok(size);
            }
            size += filled as u64;
            self.layer.bytes += filled as u64;
            if self.layer.bytes > self.most.bytes {
                return Err(Fault::TooLarge(
                    "it unpacks to more than it may have for its download".into(),
                ));
            }
            let block = &self.buffer[..filled];
            if block.iter().all(|byte| *byte == 0) {
                to.seek(SeekFrom::Current(filled as i64))?;
                continue;
            }
            to.write_all(block)?;
            self.unseen += filled as u64;
            if self.unseen >= KEEP_FREE / 16 {
                self.unseen = 0;
                self.see_to_room()?;
            }
        }
    }

    fn see_to_room(&self) -> Result<(), Fault> {
        Ok(check_room(&self.root, 0)?)
    }

    fn hard_link(&mut self, above: &[&[u8]], name: &CString, target: &[u8]) -> Result<(), Fault> {
        let target = parts(target)?;
        let Some((last, folders)) = target.split_last() else {
            return Err(hostile(name.as_bytes(), "is a hard link to a folder"));
        };
        let folders = folders.join(&b'/');
        let folder = beneath(&self.root, &folders).map_err(|error| in_the_way(&folders, error))?;
        let is_itself = target.split_last() == Some((&name.as_bytes(), above));
        if is_itself {
            return Ok(());
        }
        let last = CString::new(*last).map_err(|_| hostile(last, "has a zero byte in its name"))?;
        let missing = |error| match error {
            Errno::NOENT | Errno::PERM => hostile(
                name.as_bytes(),
                "is a hard link to what the layer does not have, or to a folder",
            ),
            error => error.into(),
        };
        self.make_room(above, name)?;
        linkat(&folder, &last, self.parent(above)?, name, AtFlags::empty()).map_err(missing)
    }

    /// Removes what an earlier entry of the same name has made.
    fn make_room(&mut self, above: &[&[u8]], name: &CString) -> Result<(), Fault> {
        let parent = self.parent(above)?;
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            found => found?,
        };
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => Err(hostile(name.as_bytes(), "is there twice, once as a folder")),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens a folder beneath another one, through no link.
pub(crate) fn beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, FOLDER, Mode::empty(), resolve)
}

fn in_the_way(path: &[u8], error: Errno) -> Fault {
    match error {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => hostile(path, "leads through a link or a file"),
        Errno::NOENT => hostile(path, "is not there"),
        error => error.into(),
    }
}

fn hostile(path: &[u8], why: &str) -> Fault {
    let path: String = String::from_utf8_lossy(path).chars().take(200).collect();
    Fault::Hostile(format!("{path:?} {why}"))
}

/// The names of a path. One that begins at the root is taken from the layer's own.
pub(crate) fn parts(path: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(hostile(path, "leads out of its folder")),
            part if part.contains(&0) => return Err(hostile(path, "has a zero byte")),
            part if part.len() > LONGEST_NAME => return Err(hostile(path, "has a name of more than 255 bytes")),
            part => parts.push(part),
        }
    }
    if path.len() > LONGEST_PATH || parts.len() > DEEPEST {
        return Err(hostile(path, "is too long, or too deep"));
    }
    Ok(parts)
}
