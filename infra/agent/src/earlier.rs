//! The files of an earlier run that ran in another container or on another machine.

use crate::{
    disk::io_failure,
    http::{Missed, http_client, try_again},
};
use contract::{
    Code, Failure,
    stored::{GivenEarlier, Index, StoredFile},
};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{self, Read, Write},
    path::{Component, Path},
    time::Duration,
};

/// The folders of a run's files that a later run reads.
const READ: [&str; 4] = ["data", "flow_artifacts", "node_artifacts", "output"];
/// The longest time of one request, which brings an index or a part of a file.
const PART_TIMEOUT: Duration = Duration::from_secs(600);

/// Fetches what a later run reads of a run's files into the folder `to`, in one step.
///
/// # Errors
///
/// `Run.EarlierUnreachable`, worth a retry; `Run.FilesGone` if what the store has is not what was
/// sent, final; a full disk by its name.
pub(crate) fn fetch(given: &GivenEarlier, run: &str, to: &Path) -> Result<(), Failure> {
    let from = Store {
        http: http_client(PART_TIMEOUT),
        run,
        given,
    };
    let index = from.index()?;
    let part = to.with_extension("part");
    let io = |error: io::Error| io_failure(&error);
    match fs::remove_dir_all(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => fs::create_dir_all(&part).map_err(io)?,
    }
    for file in index.files.iter().filter(|file| is_read(Path::new(&file.path))) {
        let place = part.join(&file.path);
        fs::create_dir_all(place.parent().unwrap_or(&part)).map_err(io)?;
        try_again(|| from.download(&index, file, &place))?;
    }
    fs::rename(&part, to).map_err(io)
}

/// Whether a later run reads the file. The index is a session's own word: a path that leads
/// elsewhere is of no file.
fn is_read(path: &Path) -> bool {
    let mut parts = path.components();
    let is_first = matches!(parts.next(), Some(Component::Normal(first)) if READ.iter().any(|name| first == *name));
    is_first && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The store's files of one run.
struct Store<'a> {
    http: ureq::Agent,
    run: &'a str,
    given: &'a GivenEarlier,
}

impl Store<'_> {
    fn index(&self) -> Result<Index, Failure> {
        let text = try_again(|| {
            let mut text = Vec::new();
            self.get(&self.given.index, None, snapshots::MOST_INDEX, &mut text)?;
            Ok(text)
        })?;
        let is_whole = snapshots::digest(&text) == self.given.digest;
        let index = is_whole.then(|| serde_json::from_slice(&text).ok()).flatten();
        index.ok_or_else(|| changed(self.run))
    }

    /// Writes a file anew, part by part.
    fn download(&self, index: &Index, file: &StoredFile, place: &Path) -> Result<(), Missed> {
        let changed = || Missed::Final(changed(self.run));
        let mut into = Hashed {
            file: fs::File::create(place).map_err(|error| Missed::Final(io_failure(&error)))?,
            digest: Sha256::new(),
        };
        let mut offset = 0;
        while let Some((part, first, after)) = index.place(file, offset) {
            let number = index.parts.iter().position(|digest| digest == part);
            let url = number
                .and_then(|number| self.given.parts.get(number))
                .ok_or_else(changed)?;
            let range = format!("bytes={first}-{}", after - 1);
            self.get(url, Some(&range), after - first, &mut into)?;
            offset += after - first;
        }
        let is_whole = hex::encode(into.digest.finalize()) == file.digest;
        is_whole.then_some(()).ok_or_else(changed)
    }

    /// Copies what a URL gives, at most `most` bytes of it, or all of a range.
    fn get(&self, url: &str, range: Option<&str>, most: u64, into: &mut impl Write) -> Result<(), Missed> {
        let missed = |why: &str| Missed::ForNow(unreachable(self.run, why));
        let mut request = self.http.get(url);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let mut answer = request
            .call()
            .map_err(|error| missed(&flow::redact(&error.to_string())))?;
        match (answer.status().as_u16(), range) {
            (200, None) | (206, Some(_)) => {}
            (status, _) => return Err(missed(&format!("it answered {status}"))),
        }
        let mut body = answer.body_mut().as_reader().take(most);
        let mut buffer = vec![0; 64 << 10];
        let mut copied = 0;
        loop {
            let read = body.read(&mut buffer).map_err(|error| missed(&error.to_string()))?;
            if read == 0 {
                break;
            }
            let written = into.write_all(&buffer[..read]);
            written.map_err(|error| Missed::Final(io_failure(&error)))?;
            copied += read as u64;
        }
        match range.is_some() && copied < most {
            true => Err(missed("its answer was cut off")),
            false => Ok(()),
        }
    }
}

/// A file, and the digest of what is written.
struct Hashed {
    file: fs::File,
    digest: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The failure of a store or a service that does not give the files of the run.
pub(crate) fn unreachable(run: &str, why: &str) -> Failure {
    let message = format!(
        "The store does not give the files of the run {run}: {}. Run again in a moment.",
        why.trim_end_matches('.')
    );
    Failure::new(Code::RunEarlierUnreachable, message)
}

fn changed(run: &str) -> Failure {
    let message =
        format!("The store's files of the run {run} are not those that it sent. Run it again, and then this one.");
    Failure::new(Code::RunFilesGone, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        thread,
    };

    /// A store of one index and one part on loopback; it knows ranges.
    fn store(index: Vec<u8>, part: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines: Vec<String> = BufReader::new(&stream)
                    .lines()
                    .map(Result::unwrap)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let range = lines.iter().find_map(|line| line.strip_prefix("range: bytes="));
                let (status, body) = match (lines[0].contains("/index"), range) {
                    (true, _) => ("200 OK", index.as_slice()),
                    (false, Some(range)) => {
                        let (first, last) = range.split_once('-').unwrap();
                        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                        ("206 Partial Content", &part[first..=last])
                    }
                    (false, None) => ("400 Bad Request", &b""[..]),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
            }
        });
        format!("http://{address}")
    }

    fn sent(files: &[(&str, &str)]) -> (Index, Vec<u8>) {
        let mut part = Vec::new();
        let files = files
            .iter()
            .map(|(path, text)| {
                let from = part.len() as u64;
                part.extend(text.bytes());
                StoredFile {
                    path: (*path).into(),
                    bytes: text.len() as u64,
                    digest: snapshots::digest(text.as_bytes()),
                    from,
                }
            })
            .collect();
        let parts = vec![snapshots::digest(&part)];
        (Index { files, parts }, part)
    }

    fn fetch_from(index: &[u8], digest: &str, part: Vec<u8>, to: &Path) -> Result<(), Failure> {
        let url = store(index.to_vec(), part);
        let given = GivenEarlier {
            index: format!("{url}/index"),
            digest: digest.into(),
            parts: vec![format!("{url}/part")],
        };
        fetch(&given, "base", to)
    }

    #[test]
    fn the_files_that_a_later_run_reads_are_fetched_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("base");
        let (index, part) = sent(&[
            ("data/input.jsonl", "{}\n"),
            ("files/made.txt", "not read"),
            ("logs.txt", "not read"),
            ("output/../../../escaped", "not written"),
            ("output/lines.jsonl", ""),
            ("output/outputs.jsonl", "{\"a\": 1}\n"),
        ]);
        let index = serde_json::to_vec(&index).unwrap();
        fetch_from(&index, &snapshots::digest(&index), part, &to).unwrap();
        assert_eq!(
            fs::read_to_string(to.join("output/outputs.jsonl")).unwrap(),
            "{\"a\": 1}\n"
        );
        assert_eq!(fs::read_to_string(to.join("output/lines.jsonl")).unwrap(), "");
        assert_eq!(fs::read_to_string(to.join("data/input.jsonl")).unwrap(), "{}\n");
        let names = |of: &Path| -> Vec<String> {
            let entries = fs::read_dir(of).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&to), ["data", "output"]);
        assert_eq!(names(folder.path()), ["base"]);
    }

    #[test]
    fn files_that_are_not_those_that_were_sent_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (index, part) = sent(&[("output/outputs.jsonl", "true")]);
        let text = serde_json::to_vec(&index).unwrap();
        let digest = snapshots::digest(&text);
        let other_index = fetch_from(
            b"{\"files\": [], \"parts\": []}",
            &digest,
            part,
            &folder.path().join("a"),
        );
        let other_part = fetch_from(&text, &digest, b"fals".to_vec(), &folder.path().join("b"));
        let said = [other_index, other_part].map(|done| done.unwrap_err().to_string());
        expect_test::expect![[r#"
            Run.FilesGone: The store's files of the run base are not those that it sent. Run it again, and then this one.
            Run.FilesGone: The store's files of the run base are not those that it sent. Run it again, and then this one."#]]
        .assert_eq(&said.join("\n"));
        assert!(!folder.path().join("b").exists());
        expect_test::expect!["Run.EarlierUnreachable: The store does not give the files of the run base: it answered 500. Run again in a moment."]
            .assert_eq(&unreachable("base", "it answered 500").to_string());
    }
}
