//! The files of a run, sent to the store at its end, and where they are to be read. See
//! [`contract::stored`].

use crate::{
    Fault, Store,
    store::{TO_ASK, TO_SEND, checksum, not_now},
};
use contract::stored::{Download, Index, PART, StoredFile, StoredObject};
use lifecycle::{Code, Failure};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The most bytes of an index: that of 50,000 files of long names.
pub const MOST_INDEX: u64 = 64 << 20;

impl Store {
    /// Sends all files of a run's folder, and gives back their index's address. Links are no files.
    ///
    /// * `of`: the run; its digest does not count.
    ///
    /// # Errors
    ///
    /// `Run.FilesNotKept`, final, if the folder cannot be read; [`Fault::NotNow`].
    pub async fn keep_run(&self, of: &StoredObject, folder: &Path) -> Result<StoredObject, Fault> {
        let root = folder.to_owned();
        let (index, paths) = self
            .blocking(move |_| write_index(&root).map_err(|error| unreadable(&root, &error)))
            .await?;
        let index = Arc::new(index);
        for (part, digest) in index.parts.iter().enumerate() {
            let first = part as u64 * PART;
            let bytes = (total(&index) - first).min(PART);
            let (index, paths) = (Arc::clone(&index), paths.clone());
            let content = move || Box::new(Content::new(index, paths, first).take(bytes)) as Box<dyn Read + Send>;
            self.put(&of.sibling(digest), bytes, content).await?;
        }
        let text = serde_json::to_vec(&*index).map_err(|error| unreadable(folder, &error.into()))?;
        let place = of.sibling(&crate::digest(&text));
        let bytes = text.len() as u64;
        self.put(&place, bytes, move || Box::new(io::Cursor::new(text))).await?;
        Ok(place)
    }

    /// Reads the index of a run's files.
    ///
    /// # Errors
    ///
    /// `Run.FilesGone`, final, if it is not there (any more) or not what its address says;
    /// [`Fault::NotNow`].
    pub async fn run_index(&self, place: &StoredObject) -> Result<Index, Fault> {
        let url = self.sign("GET", &place.bucket, &place.key(), &[], TO_ASK).await?;
        let mut answer = self.ask(move |http| http.get(&url).call()).await?;
        match answer.status().as_u16() {
            200 => {}
            // Where nobody may list, what is not there is refused.
            403 | 404 => return Err(files_gone(place).into()),
            status => return Err(not_now(&format!("it answered {status}"))),
        }
        let name = place.digest.clone();
        let read = self.blocking(move |_| {
            let mut text = Vec::new();
            let mut body = answer.body_mut().as_reader().take(MOST_INDEX + 1);
            body.read_to_end(&mut text)
                .map_err(|error| not_now(&error.to_string()))?;
            Ok((crate::digest(&text) == name)
                .then(|| serde_json::from_slice(&text).ok())
                .flatten())
        });
        read.await?.ok_or_else(|| files_gone(place).into())
    }

    /// The request for a file from `offset`, and the start of the part after that; `None` at its
    /// end.
    ///
    /// # Errors
    ///
    /// [`Fault::NotNow`], if there are no credentials now.
    pub async fn download(
        &self,
        index: &StoredObject,
        of: &Index,
        file: &StoredFile,
        offset: u64,
    ) -> Result<Option<(Download, u64)>, Fault> {
        let Some((part, first, after)) = of.place(file, offset) else {
            return Ok(None);
        };
        let place = index.sibling(part);
        let download = Download {
            url: self.sign("GET", &place.bucket, &place.key(), &[], TO_SEND).await?,
            range: format!("bytes={first}-{}", after - 1),
            digest: file.digest.clone(),
        };
        Ok(Some((download, offset + after - first)))
    }

    /// The URLs of a run's index and of each part, good for some minutes.
    ///
    /// # Errors
    ///
    /// As [`Store::run_index`].
    pub async fn read_of(&self, place: &StoredObject) -> Result<(String, Vec<String>), Fault> {
        let index = self.run_index(place).await?;
        let sign = async |of: &StoredObject| self.sign("GET", &of.bucket, &of.key(), &[], TO_SEND).await;
        let mut parts = Vec::new();
        for digest in &index.parts {
            parts.push(sign(&place.sibling(digest)).await?);
        }
        Ok((sign(place).await?, parts))
    }

    /// Deletes all that a run has in the store. What is gone already is no error.
    ///
    /// # Errors
    ///
    /// [`Fault::NotNow`].
    pub async fn forget_run(&self, place: &StoredObject) -> Result<(), Fault> {
        let index = match self.run_index(place).await {
            Ok(index) => index,
            Err(Fault::Wrong(_)) => Index::default(),
            Err(fault) => return Err(fault),
        };
        // The index last: while it is there, this can be done again.
        for digest in index.parts.iter().chain([&place.digest]) {
            let object = place.sibling(digest);
            let url = self.sign("DELETE", &object.bucket, &object.key(), &[], TO_ASK).await?;
            let answer = self.ask(move |http| http.delete(&url).call()).await?;
            match answer.status().as_u16() {
                200..=299 | 404 => {}
                status => return Err(not_now(&format!("it answered {status}"))),
            }
        }
        Ok(())
    }

    async fn put(
        &self,
        object: &StoredObject,
        bytes: u64,
        content: impl FnOnce() -> Box<dyn Read + Send> + Send + 'static,
    ) -> Result<(), Fault> {
        let headers = [
            ("content-length", bytes.to_string()),
            // The bucket takes nothing of a run without this.
            ("if-none-match", "*".to_owned()),
            ("x-amz-checksum-sha256", checksum(&object.digest)),
        ];
        let url = self
            .sign("PUT", &object.bucket, &object.key(), &headers, TO_SEND)
            .await?;
        let answer = self.ask(move |http| {
            let mut request = http.put(&url);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request.send(ureq::SendBody::from_owned_reader(content()))
        });
        match answer.await?.status().as_u16() {
            // It is there already.
            200 | 412 => Ok(()),
            status @ 400..=499 if ![409, 429].contains(&status) => Err(Fault::Wrong(Failure::new(
                Code::RunFilesNotKept,
                format!(
                    "The store answers {status} to an upload of {object}. Give this role s3:PutObject there, and run again."
                ),
            ))),
            status => Err(not_now(&format!("it answered {status}"))),
        }
    }
}

fn unreadable(folder: &Path, error: &io::Error) -> Fault {
    let message = format!(
        "The run's folder {} cannot be read to send it to the store: {error}. Put that right, and run again.",
        folder.display()
    );
    Fault::Wrong(Failure::new(Code::RunFilesNotKept, message))
}

fn files_gone(place: &StoredObject) -> Failure {
    let message = format!(
        "The files of the run {} are not in the store (any more). Run it again.",
        place.run
    );
    Failure::new(Code::RunFilesGone, message)
}

fn total(index: &Index) -> u64 {
    index.files.iter().map(|file| file.bytes).sum()
}

/// The index of a folder, and the path of each file in it.
fn write_index(root: &Path) -> io::Result<(Index, Arc<Vec<PathBuf>>)> {
    let mut paths = Vec::new();
    list(root, &mut paths)?;
    paths.sort();
    let (mut index, mut part, mut filled, mut from) = (Index::default(), Sha256::new(), 0, 0);
    let mut buffer = vec![0; 1 << 16];
    for path in &paths {
        let (mut source, mut hash, mut bytes) = (open(path)?, Sha256::new(), 0);
        loop {
            let most = buffer.len().min(usize::try_from(PART - filled).unwrap_or(usize::MAX));
            let read = source.read(&mut buffer[..most])?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            part.update(&buffer[..read]);
            (bytes, filled) = (bytes + read as u64, filled + read as u64);
            if filled == PART {
                index.parts.push(hex::encode(part.finalize_reset()));
                filled = 0;
            }
        }
        index.files.push(StoredFile {
            path: path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned(),
            bytes,
            digest: hex::encode(hash.finalize()),
            from,
        });
        from += bytes;
    }
    if filled > 0 {
        index.parts.push(hex::encode(part.finalize()));
    }
    Ok((index, Arc::new(paths)))
}

fn list(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => list(&entry.path(), paths)?,
            kind if kind.is_file() => paths.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<fs::File> {
    // A run's code may have laid something else there since.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    fs::File::options().read(true).custom_flags(flags).open(path)
}

/// The files of an index one after another, from a place in them.
struct Content {
    index: Arc<Index>,
    paths: Arc<Vec<PathBuf>>,
    next: usize,
    at: u64,
    open: Option<io::Take<fs::File>>,
}

impl Content {
    fn new(index: Arc<Index>, paths: Arc<Vec<PathBuf>>, at: u64) -> Self {
        let next = index.files.partition_point(|file| file.from + file.bytes <= at);
        Self {
            index,
            paths,
            next,
            at,
            open: None,
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.open {
                let read = file.read(buffer)?;
                if read > 0 {
                    self.at += read as u64;
                    return Ok(read);
                }
                self.open = None;
            }
            let Some((file, path)) = self.index.files.get(self.next).zip(self.paths.get(self.next)) else {
                return Ok(0);
            };
            let mut opened = open(path)?;
            let skipped = self.at - file.from;
            io::Seek::seek(&mut opened, io::SeekFrom::Start(skipped))?;
            self.open = Some(opened.take(file.bytes - skipped));
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn files_that_are_not_sent_or_gone_say_why() {
        let place = StoredObject {
            bucket: "flows".into(),
            flow: "0f".repeat(16),
            run: "run-1".into(),
            digest: "1e".repeat(32),
        };
        let no_disk = io::Error::from_raw_os_error(5);
        let said = [
            unreadable(Path::new("/runs/run-1"), &no_disk).into_failure(),
            files_gone(&place),
        ];
        expect![[r#"
            Run.FilesNotKept: The run's folder /runs/run-1 cannot be read to send it to the store: Input/output error (os error 5). Put that right, and run again.
            Run.FilesGone: The files of the run run-1 are not in the store (any more). Run it again."#]]
        .assert_eq(&said.map(|failure| failure.to_string()).join("\n"));
    }

    #[test]
    fn the_parts_of_a_folder_are_its_files_one_after_another_without_links() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("files/a")).unwrap();
        let long = "0123456789".repeat(50_000);
        for (name, text) in [("files/a/long", long.as_str()), ("empty", ""), ("logs.txt", "said")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let (index, paths) = write_index(folder.path()).unwrap();
        let names: Vec<&str> = index.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["empty", "files/a/long", "logs.txt"]);
        let all = format!("{long}said");
        assert_eq!(index.parts, [crate::digest(all.as_bytes())]);
        assert_eq!(index.files[2].digest, crate::digest(b"said"));
        let index = Arc::new(index);
        for from in [0, 7, 499_999, 500_000, 500_003, 500_004] {
            let mut read = String::new();
            let mut content = Content::new(Arc::clone(&index), Arc::clone(&paths), from);
            content.read_to_string(&mut read).unwrap();
            assert!(read == all[from as usize..], "{from}");
        }
    }
}
