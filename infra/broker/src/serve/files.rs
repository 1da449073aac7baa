//! The files of packages.

use super::{Answer, CHUNK, Client, Digest, FILE, MOST_METADATA, Server, Sha256, lock, part};
use crate::{
    Fault, Feed,
    downloads::{Head, New},
    page::{self, Link},
    upstream::{Found, to_shown},
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};
use ureq::http::{HeaderMap, HeaderValue, header};
use url::Url;

impl Server {
    pub(super) fn serve_link(
        &self,
        client: &mut Client,
        feed: usize,
        id: &str,
        is_metadata: bool,
        headers: &HeaderMap,
    ) -> io::Result<()> {
        let link = lock(&self.links).get(&(feed, id.to_owned())).cloned();
        let Some(link) = link else {
            return client.answer(Answer::new(404), b"");
        };
        let feed = &self.config.feeds[feed];
        if !is_metadata {
            return self.serve_file(client, feed, &link, headers);
        }
        let mut url = link.url.clone();
        url.set_path(&format!("{}.metadata", url.path()));
        match self.metadata(feed, &link, &url) {
            Ok(Some(body)) => client.answer(Answer::new(200).with(header::CONTENT_TYPE, "text/plain"), &body),
            Ok(None) => client.answer(Answer::new(404), b""),
            Err(fault) => self.fail(client, fault),
        }
    }

    /// The metadata of a file, which an index may offer beside it.
    pub(super) fn metadata(&self, feed: &Feed, link: &Link, url: &Url) -> Result<Option<Vec<u8>>, Fault> {
        let hash = link.metadata.as_ref().and_then(page::sha256);
        let shared = hash.filter(|_| feed.credential.is_none());
        if let Some((file, _)) = shared.and_then(|hash| self.downloads.find(hash)) {
            let mut body = Vec::new();
            let read = file.take(MOST_METADATA).read_to_end(&mut body);
            if read.is_ok() && Some(hex::encode(Sha256::digest(&body)).as_str()) == hash {
                return Ok(Some(body));
            }
        }
        let Found { mut answer, .. } = self.upstream.ask(feed, url, false, &HeaderMap::new())?;
        match answer.status().as_u16() {
            200 => {}
            404 | 410 => return Ok(None),
            401 | 403 => return Err(Fault::Refused { url: to_shown(url) }),
            status => return Err(Fault::unreachable(url, &format!("it answers with status {status}"))),
        }
        let body = answer.body_mut().with_config().limit(MOST_METADATA).read_to_vec();
        let body = body.map_err(|error| Fault::unreachable(url, &error.to_string()))?;
        if hash.is_some_and(|hash| hash != hex::encode(Sha256::digest(&body))) {
            let file = format!("{}.metadata", link.filename);
            return Err(Fault::HashMismatch { file });
        }
        if let Some(hash) = shared {
            let kept = self.downloads.begin().and_then(|mut new| {
                new.write(&body)?;
                self.downloads.keep(new, hash)
            });
            if let Err(error) = kept {
                tracing::warn!(%error, "a package's metadata cannot be kept");
            }
        }
        Ok(Some(body))
    }

    pub(super) fn serve_file(
        &self,
        client: &mut Client,
        feed: &Feed,
        link: &Link,
        headers: &HeaderMap,
    ) -> io::Result<()> {
        let hash = link.sha256();
        let shared = hash.filter(|_| feed.credential.is_none());
        if let Some(hash) = shared
            && let Some(file) = self.downloads.find(hash)
        {
            return self.serve_kept(client, hash, file, headers);
        }
        // Once is enough to know that a file is not what its page says.
        let wrong = Fault::HashMismatch {
            file: link.filename.clone(),
        };
        if self.fault().as_ref() == Some(&wrong) {
            return self.fail(client, wrong);
        }
        let mut asked = HeaderMap::new();
        asked.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        asked.extend(headers.get(header::RANGE).map(|range| (header::RANGE, range.clone())));
        let Found { answer, .. } = match self.upstream.ask(feed, &link.url, client.is_head, &asked) {
            Ok(found) => found,
            Err(fault) => return self.fail(client, fault),
        };
        let status = answer.status().as_u16();
        match status {
            401 | 403 => {
                let url = to_shown(&link.url);
                return self.fail(client, Fault::Refused { url });
            }
            404 | 410 => return client.answer(Answer::new(404), b""),
            200 | 206 | 416 => {}
            _ => {
                let why = format!("it answers with status {status}");
                return self.fail(client, Fault::unreachable(&link.url, &why));
            }
        }
        let mut head = Answer::new(status).with(header::CONTENT_TYPE, FILE);
        for name in [header::CONTENT_LENGTH, header::CONTENT_RANGE, header::ACCEPT_RANGES] {
            if let Some(value) = answer.headers().get(&name).and_then(|value| value.to_str().ok()) {
                head = head.with(name, value);
            }
        }
        if client.is_head {
            return client.begin(&head);
        }
        let is_chunked = !answer.headers().contains_key(header::CONTENT_LENGTH);
        if is_chunked {
            head = head.with(header::TRANSFER_ENCODING, "chunked");
        }
        client.begin(&head)?;
        // A part of a file has no hash that could be checked: it is for this build alone.
        let is_whole = status == 200;
        let body = &mut answer.into_body().into_reader();
        let mut new = shared.filter(|_| is_whole).and_then(|_| self.downloads.begin().ok());
        let passed = pass_on(client, body, hash.filter(|_| is_whole), is_chunked, &mut new);
        if let (Ok(()), Some(new), Some(hash)) = (&passed, new, shared) {
            self.downloads.keep(new, hash)?;
        }
        passed.map_err(|passed| self.broke_off(link, passed))
    }

    /// Takes in why a file was not served to its end.
    pub(super) fn broke_off(&self, link: &Link, passed: Passed) -> io::Error {
        match passed {
            Passed::Reader(error) => error,
            Passed::Source(error) => {
                *lock(&self.fault) = Some(Fault::unreachable(&link.url, &error.to_string()));
                error
            }
            Passed::Hash => {
                let file = link.filename.clone();
                *lock(&self.fault) = Some(Fault::HashMismatch { file });
                io::ErrorKind::InvalidData.into()
            }
        }
    }

    /// Serves a file that was downloaded before.
    pub(super) fn serve_kept(
        &self,
        client: &mut Client,
        hash: &str,
        file: (File, u64),
        headers: &HeaderMap,
    ) -> io::Result<()> {
        let (mut file, size) = file;
        let head = |status| {
            Answer::new(status)
                .with(header::CONTENT_TYPE, FILE)
                .with(header::ACCEPT_RANGES, "bytes")
        };
        let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
        if let Some((from, to)) = range.and_then(|range| part(range, size)) {
            file.seek(SeekFrom::Start(from))?;
            let head = head(206)
                .with(header::CONTENT_LENGTH, to - from)
                .with(header::CONTENT_RANGE, format!("bytes {from}-{}/{size}", to - 1));
            client.begin(&head)?;
            return match client.is_head {
                true => Ok(()),
                false => io::copy(&mut file.take(to - from), &mut client.stream).map(drop),
            };
        }
        client.begin(&head(200).with(header::CONTENT_LENGTH, size))?;
        if client.is_head {
            return Ok(());
        }
        pass_on(client, &mut file, Some(hash), false, &mut None).map_err(|passed| {
            if matches!(passed, Passed::Hash) {
                self.downloads.forget(hash);
            }
            io::ErrorKind::InvalidData.into()
        })
    }
}

/// The end of a file that was passed on.
pub(super) enum Passed {
    Reader(io::Error),
    Source(io::Error),
    /// It is not what it should be.
    Hash,
}

/// Asks for a page, or whether the one that is known is still as it was.
pub(super) fn headers_for(known: Option<&Head>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(page::ACCEPT));
    let (etag, modified) = known.map_or((None, None), |head| (head.etag.as_ref(), head.last_modified.as_ref()));
    for (name, value) in [(header::IF_NONE_MATCH, etag), (header::IF_MODIFIED_SINCE, modified)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Passes a file on while it comes, and keeps it. Its last part is held back until its hash is
/// known: nobody gets the whole of a wrong file.
///
/// * `new`: where it is kept; `None` afterwards if there was no room.
pub(super) fn pass_on(
    client: &mut Client,
    source: &mut dyn Read,
    expected: Option<&str>,
    is_chunked: bool,
    new: &mut Option<New>,
) -> Result<(), Passed> {
    let (mut next, mut held) = (vec![0; CHUNK], Vec::with_capacity(CHUNK));
    let mut hash = Sha256::new();
    let mut send = |bytes: &[u8]| {
        if is_chunked && !bytes.is_empty() {
            client.stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        }
        client.stream.write_all(bytes)?;
        let end: &[u8] = if is_chunked && !bytes.is_empty() { b"\r\n" } else { b"" };
        client.stream.write_all(end)
    };
    loop {
        let read = match source.read(&mut next) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(Passed::Source)?,
        };
        if read == 0 {
            break;
        }
        if expected.is_some() {
            hash.update(&next[..read]);
        }
        if let Some(Err(error)) = new.as_mut().map(|new| new.write(&next[..read])) {
            tracing::warn!(%error, "a download cannot be kept");
            *new = None;
        }
        send(&held).map_err(Passed::Reader)?;
        held.clear();
        held.extend_from_slice(&next[..read]);
    }
    if expected.is_some_and(|expected| expected != hex::encode(hash.finalize())) {
        return Err(Passed::Hash);
    }
    send(&held).map_err(Passed::Reader)?;
    let end: &[u8] = if is_chunked { b"0\r\n\r\n" } else { b"" };
    client.stream.write_all(end).map_err(Passed::Reader)
}
