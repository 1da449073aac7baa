//! Earlier downloads, for every build of the machine.
//!
//! | path below the folder | what |
//! | --- | --- |
//! | `files/{2 digits}/{sha256}` | a file whose hash its index stated and the broker checked |
//! | `pages/{hash of the URL}` | a page of an index without a credential: a line of JSON ([`Head`]), then the page |
//! | `new-*` | a download that is not complete; nobody reads it |
//!
//! Only brokers write here, and a hash is checked again on each read: a file that a crash has cut
//! is downloaded anew.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The most bytes of a page, of metadata, and of what stands before a page.
pub(crate) const MOST_PAGE: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Downloads(PathBuf);

/// The metadata of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The last URL at which it was found.
    pub(crate) url: String,
    pub(crate) kind: String,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
    /// Until when it is taken for what the index would say now, in seconds since 1970.
    pub(crate) fresh_until: u64,
}

impl Head {
    pub(crate) fn is_fresh(&self) -> bool {
        now() < self.fresh_until
    }

    pub(crate) fn can_be_validated(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Downloads {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        for inner in ["files", "pages"] {
            fs::create_dir_all(folder.join(inner))?;
        }
        Ok(Self(folder.to_owned()))
    }

    fn file(&self, sha256: &str) -> PathBuf {
        self.0.join("files").join(&sha256[..2]).join(sha256)
    }

    fn page(&self, url: &str) -> PathBuf {
        self.0.join("pages").join(hex::encode(Sha256::digest(url)))
    }

    /// A file, and its size.
    pub(crate) fn find(&self, sha256: &str) -> Option<(File, u64)> {
        let file = File::open(self.file(sha256)).ok()?;
        let about = file.metadata().ok()?;
        // The longest unused go first.
        let _ = file.set_modified(SystemTime::now());
        Some((file, about.len()))
    }

    /// Removes a file that is not what its name says.
    pub(crate) fn forget(&self, sha256: &str) {
        let _ = fs::remove_file(self.file(sha256));
    }

    /// A file that is still to come.
    pub(crate) fn begin(&self) -> io::Result<New> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let path = self.0.join(format!("new-{}", hex::encode(name)));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(New { path, file: Some(file) })
    }

    /// Keeps a file under its hash.
    pub(crate) fn keep(&self, new: New, sha256: &str) -> io::Result<()> {
        new.finish(&self.file(sha256))
    }

    pub(crate) fn find_page(&self, url: &str) -> Option<(Head, Vec<u8>)> {
        let mut bytes = Vec::new();
        let file = File::open(self.page(url)).ok()?;
        file.take(MOST_PAGE + (1 << 16)).read_to_end(&mut bytes).ok()?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (head, sum): (Head, String) = serde_json::from_slice(&bytes[..end]).ok()?;
        let body = bytes.split_off(end + 1);
        (sum == hex::encode(Sha256::digest(&body))).then_some((head, body))
    }

    pub(crate) fn keep_page(&self, url: &str, head: &Head, body: &[u8]) -> io::Result<()> {
        let mut new = self.begin()?;
        let sum = hex::encode(Sha256::digest(body));
        let mut line = serde_json::to_vec(&(head, sum))?;
        line.push(b'\n');
        new.write(&line)?;
        new.write(body)?;
        new.finish(&self.page(url))
    }
}

/// A file that is being written. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct New {
    path: PathBuf,
    file: Option<File>,
}

impl New {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }

    fn finish(mut self, place: &Path) -> io::Result<()> {
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::rename(&self.path, place)?;
        self.file = None;
        Ok(())
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes downloads that nobody has used for long, and the longest unused of those that are too
/// many.
///
/// * `unused`: since their last use.
/// * `most`: in bytes, of all together.
pub fn prune(folder: &Path, unused: Duration, most: u64) {
    let mut there: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => folders.push(entry.path()),
                Ok(about) => there.push((about.modified().unwrap_or(UNIX_EPOCH), about.len(), entry.path())),
                Err(_) => {}
            }
        }
    }
    there.sort();
    let mut bytes: u64 = there.iter().map(|(_, bytes, _)| bytes).sum();
    for (used, of_it, path) in there {
        let age = SystemTime::now().duration_since(used).unwrap_or_default();
        if age <= unused && bytes <= most {
            break;
        }
        match fs::remove_file(&path) {
            Ok(()) => bytes -= of_it,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a download that is over could not be removed")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_is_not_complete_is_no_file() {
        let place = tempfile::tempdir().unwrap();
        let downloads = Downloads::open(place.path()).unwrap();
        let hash = hex::encode(Sha256::digest("whole"));
        let mut new = downloads.begin().unwrap();
        new.write(b"who").unwrap();
        drop(new);
        assert!(downloads.find(&hash).is_none());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        let mut new = downloads.begin().unwrap();
        new.write(b"whole").unwrap();
        downloads.keep(new, &hash).unwrap();
        assert_eq!(downloads.find(&hash).unwrap().1, 5);
    }

    #[test]
    fn a_page_that_a_crash_has_cut_is_no_page() {
        let place = tempfile::tempdir().unwrap();
        let downloads = Downloads::open(place.path()).unwrap();
        let head = Head {
            url: "https://index.example/simple/a/".into(),
            kind: "text/html".into(),
            etag: Some("\"1\"".into()),
            last_modified: None,
            fresh_until: now() + 60,
        };
        downloads.keep_page(&head.url, &head, b"<a\nhref>").unwrap();
        let found = downloads.find_page(&head.url).unwrap();
        assert_eq!(found, (head.clone(), b"<a\nhref>".to_vec()));
        let path = downloads.page(&head.url);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(downloads.find_page(&head.url).is_none());
    }

    #[test]
    fn what_is_unused_for_long_goes_and_the_oldest_of_what_is_too_much() {
        let place = tempfile::tempdir().unwrap();
        let day = Duration::from_secs(86_400);
        for (name, bytes, days) in [
            ("old", 10, 40),
            ("big-and-older", 900, 3),
            ("big", 900, 2),
            ("new", 10, 0),
        ] {
            let path = place.path().join(name);
            fs::write(&path, vec![0; bytes]).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - day * days).unwrap();
        }
        prune(place.path(), day * 30, 1_000);
        let names = fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        assert_eq!(names, ["big", "new"]);
    }
}
