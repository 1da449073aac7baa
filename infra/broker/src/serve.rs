//! The side of the broker that uv talks to.

use crate::{
    Config, Fault, Feed, Kind,
    downloads::{Downloads, Head, MOST_PAGE, New, now},
    page::{self, Link},
    upstream::{Found, Upstream, shown},
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use url::Url;

/// uv asks for some 50 things at once.
const MOST_CONNECTIONS: usize = 128;
/// How long a connection may be silent between two requests, and how long a reader may take for a part of an answer.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_HEAD: usize = 16 << 10;
const MOST_METADATA: u64 = 16 << 20;
const CHUNK: usize = 64 << 10;
/// The longest that a page is not asked for again, in seconds: as long as PyPI has it.
const MOST_FRESH: u64 = 600;
/// The most bytes of pages that one build may read: those of some thousand packages.
const MOST_PAGES: usize = 256 << 20;
const FILE: &str = "application/octet-stream";
const JSON: &str = "application/vnd.pypi.simple.v1+json";

pub(crate) struct Server {
    config: Config,
    token: String,
    upstream: Upstream,
    downloads: Downloads,
    /// The links of all pages that were served, by feed and id.
    links: Mutex<HashMap<(usize, String), Arc<Link>>>,
    /// The pages that were served, by path: what one build reads twice is the same.
    pages: Mutex<HashMap<String, Arc<Vec<u8>>>>,
    fault: Mutex<Option<Fault>>,
    open: Mutex<HashMap<usize, TcpStream>>,
    closed: Condvar,
    is_stopping: AtomicBool,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until the server is stopped.
pub(crate) fn spawn(server: Arc<Server>, listener: TcpListener) -> io::Result<()> {
    let accept = move || {
        for (number, stream) in listener.incoming().enumerate() {
            if server.is_stopping.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            if let Err(error) = server.admit(number, stream) {
                tracing::warn!(%error, "a connection to the package index's broker was not served");
            }
        }
    };
    std::thread::Builder::new()
        .name("broker".into())
        .spawn(accept)
        .map(drop)
}

/// The target of a request.
enum Asked {
    /// The page of a package, or of all links.
    Page {
        feed: usize,
        package: String,
    },
    File {
        feed: usize,
        id: String,
        is_metadata: bool,
    },
}

/// The head of an answer.
struct Answer {
    status: u16,
    headers: Vec<(HeaderName, String)>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: HeaderName, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// The connection to one reader.
struct Client {
    stream: TcpStream,
    is_head: bool,
    /// Whether it may be used once more.
    stays: bool,
}

impl Client {
    fn begin(&mut self, answer: &Answer) -> io::Result<()> {
        let reason = StatusCode::from_u16(answer.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason.unwrap_or("Other"));
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.stays {
            head += "connection: close\r\n";
        }
        head += "\r\n";
        self.stream.write_all(head.as_bytes())
    }

    fn answer(&mut self, answer: Answer, body: &[u8]) -> io::Result<()> {
        self.begin(&answer.with(header::CONTENT_LENGTH, body.len()))?;
        if self.is_head {
            Ok(())
        } else {
            self.stream.write_all(body)
        }
    }
}

impl Server {
    pub(crate) fn new(config: Config) -> io::Result<Self> {
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(io::Error::other)?;
        let upstream = Upstream::new(config.network.clone(), config.insecure.clone(), &config.feeds);
        Ok(Self {
            upstream: upstream.map_err(|fault| io::Error::other(format!("{fault:?}")))?,
            downloads: Downloads::open(&config.downloads)?,
            config,
            token: hex::encode(token),
            links: Mutex::default(),
            pages: Mutex::default(),
            fault: Mutex::default(),
            open: Mutex::default(),
            closed: Condvar::new(),
            is_stopping: AtomicBool::new(false),
        })
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn path(&self, feed: usize) -> String {
        match self.config.feeds[feed].kind {
            Kind::Index => format!("/{}/index/{feed}/simple/", self.token),
            Kind::Links => format!("/{}/links/{feed}/", self.token),
        }
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        lock(&self.fault).clone()
    }

    pub(crate) fn told(&self, text: &str, address: SocketAddr) -> String {
        if !text.contains(&self.token) {
            return text.to_owned();
        }
        let mut text = text.to_owned();
        for (number, feed) in self.config.feeds.iter().enumerate() {
            let own = format!("http://{address}{}", self.path(number));
            let url = shown(&feed.url);
            let url = url.trim_end_matches('/');
            text = text
                .replace(&own, &format!("{url}/"))
                .replace(own.trim_end_matches('/'), url);
        }
        let links: Vec<((usize, String), Arc<Link>)> = lock(&self.links)
            .iter()
            .filter(|((_, id), _)| text.contains(id))
            .map(|(key, link)| (key.clone(), link.clone()))
            .collect();
        for ((feed, id), link) in links {
            let own = format!("http://{address}{}", self.place(feed, &id, &link));
            text = text.replace(&own, &shown(&link.url));
        }
        text.replace(&self.token, "***")
    }

    pub(crate) fn stop(&self, address: SocketAddr) {
        self.is_stopping.store(true, Ordering::SeqCst);
        for stream in lock(&self.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.closed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    }

    /// Takes a connection when there is room for it.
    fn admit(self: &Arc<Self>, number: usize, stream: TcpStream) -> io::Result<()> {
        let mut open = lock(&self.open);
        while open.len() >= MOST_CONNECTIONS && !self.is_stopping.load(Ordering::SeqCst) {
            open = self.closed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        open.insert(number, stream.try_clone()?);
        drop(open);
        struct Leave(Arc<Server>, usize);
        impl Drop for Leave {
            fn drop(&mut self) {
                lock(&self.0.open).remove(&self.1);
                self.0.closed.notify_one();
            }
        }
        let leave = Leave(Arc::clone(self), number);
        let talk = move || {
            let _ = leave.0.talk(stream);
        };
        std::thread::Builder::new()
            .name("broker-reader".into())
            .spawn(talk)
            .map(drop)
    }

    fn talk(&self, stream: TcpStream) -> io::Result<()> {
        let mut client = Client {
            stream,
            is_head: false,
            stays: true,
        };
        let mut read = Vec::new();
        while client.stays && !self.is_stopping.load(Ordering::SeqCst) {
            let Some((path, headers)) = next_request(&mut client, &mut read)? else {
                return Ok(());
            };
            match path.and_then(|path| self.asked(&path)) {
                Some(Asked::Page { feed, package }) => self.serve_page(&mut client, feed, &package)?,
                Some(Asked::File { feed, id, is_metadata }) => {
                    self.serve_link(&mut client, feed, &id, is_metadata, &headers)?
                }
                None => client.answer(Answer::new(404), b"")?,
            }
        }
        Ok(())
    }

    /// The target of a path. It names a package or a link that was served, and no path of the index.
    fn asked(&self, path: &str) -> Option<Asked> {
        let path = path.split(['?', '#']).next()?.strip_prefix('/')?;
        let (token, rest) = path.split_once('/')?;
        if Sha256::digest(token) != Sha256::digest(&self.token) {
            return None;
        }
        let parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
        let feed = |number: &str, kind: Option<Kind>| {
            let number: usize = number.parse().ok()?;
            let feed = self.config.feeds.get(number)?;
            kind.is_none_or(|kind| feed.kind == kind).then_some(number)
        };
        match parts[..] {
            ["index", number, "simple", package] if is_package(package) => Some(Asked::Page {
                feed: feed(number, Some(Kind::Index))?,
                package: package.to_owned(),
            }),
            ["links", number] => Some(Asked::Page {
                feed: feed(number, Some(Kind::Links))?,
                package: String::new(),
            }),
            ["file", number, id, name] => Some(Asked::File {
                feed: feed(number, None)?,
                id: id.to_owned(),
                is_metadata: name.ends_with(".metadata"),
            }),
            _ => None,
        }
    }

    /// Notes why something could not be served. The reader is told that it is final: the broker has tried again itself.
    fn fail(&self, client: &mut Client, fault: Fault) -> io::Result<()> {
        let status = if matches!(fault, Fault::Refused { .. }) {
            403
        } else {
            424
        };
        *lock(&self.fault) = Some(fault);
        client.answer(Answer::new(status), b"")
    }

    fn serve_page(&self, client: &mut Client, feed: usize, package: &str) -> io::Result<()> {
        let kind = self.config.feeds[feed].kind;
        let key = format!("{feed}/{package}");
        let known = lock(&self.pages).get(&key).cloned();
        let page = match known {
            Some(page) => page,
            None => match self.page(&self.config.feeds[feed], package) {
                Ok(None) => return client.answer(Answer::new(404), b""),
                Ok(Some(links)) => {
                    let place = |link: &Link| self.place(feed, &id(link), link);
                    let page = Arc::new(match kind {
                        Kind::Index => page::to_json(&links, place),
                        Kind::Links => page::to_html(&links, place),
                    });
                    let mut pages = lock(&self.pages);
                    let all: usize = pages.values().map(|page| page.len()).sum();
                    if all + page.len() > MOST_PAGES {
                        drop(pages);
                        let why = "one build has asked it for too many packages";
                        return self.fail(client, Fault::unreachable(&self.config.feeds[feed].url, why));
                    }
                    pages.insert(key, Arc::clone(&page));
                    drop(pages);
                    let links = links.into_iter().map(|link| ((feed, id(&link)), Arc::new(link)));
                    lock(&self.links).extend(links);
                    page
                }
                Err(fault) => return self.fail(client, fault),
            },
        };
        let kind = if kind == Kind::Index { JSON } else { "text/html" };
        let answer = Answer::new(200)
            .with(header::CONTENT_TYPE, kind)
            .with(header::CACHE_CONTROL, "no-store");
        client.answer(answer, &page)
    }

    /// The path of a link on this broker; its last part is the file's name.
    fn place(&self, feed: usize, id: &str, link: &Link) -> String {
        let name = link.filename.replace('+', "%2B");
        format!("/{}/file/{feed}/{id}/{name}", self.token)
    }

    /// The links of a page; `None` if the index has no such package.
    fn page(&self, feed: &Feed, package: &str) -> Result<Option<Vec<Link>>, Fault> {
        let url = page_url(&feed.url, feed.kind, package);
        let is_shared = feed.credential.is_none() && self.upstream.is_checked(&url);
        let known = if is_shared {
            self.downloads.find_page(url.as_str())
        } else {
            None
        };
        let is_offline = self.config.network.is_offline;
        if let Some((head, body)) = &known
            && (is_offline || head.is_fresh() && !self.config.is_refreshing)
        {
            return links_of(&url, head, body).map(Some);
        }
        let known = known.filter(|(head, _)| head.can_be_validated() && !self.config.is_refreshing);
        let headers = headers_for(known.as_ref().map(|(head, _)| head));
        let Found { url: at, mut answer } = self.upstream.ask(feed, &url, false, &headers)?;
        let (head, body) = match (answer.status().as_u16(), known) {
            (304, Some((head, body))) => (
                Head {
                    fresh_until: fresh_until(answer.headers()).unwrap_or(0),
                    ..head
                },
                body,
            ),
            (200, _) => {
                let body = answer.body_mut().with_config().limit(MOST_PAGE).read_to_vec();
                let text = |name| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
                let head = Head {
                    url: at.to_string(),
                    kind: text(header::CONTENT_TYPE).unwrap_or_default(),
                    etag: text(header::ETAG),
                    last_modified: text(header::LAST_MODIFIED),
                    fresh_until: fresh_until(answer.headers()).unwrap_or(0),
                };
                (head, body.map_err(|error| Fault::unreachable(&at, &error.to_string()))?)
            }
            (404 | 410, _) => return Ok(None),
            (401 | 403, _) => {
                return Err(Fault::Refused {
                    url: shown(&feed.url).trim_end_matches('/').to_owned(),
                });
            }
            (status, _) => return Err(Fault::unreachable(&at, &format!("it answers with status {status}"))),
        };
        let links = links_of(&at, &head, &body)?;
        let may_keep = fresh_until(answer.headers()).is_some();
        if is_shared && may_keep && (head.is_fresh() || head.can_be_validated()) && body.len() as u64 <= MOST_PAGE {
            // A page that is not kept is asked for again.
            if let Err(error) = self.downloads.keep_page(url.as_str(), &head, &body) {
                tracing::warn!(%error, "a page of an index cannot be kept");
            }
        }
        Ok(Some(links))
    }

    fn serve_link(
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
    fn metadata(&self, feed: &Feed, link: &Link, url: &Url) -> Result<Option<Vec<u8>>, Fault> {
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
            401 | 403 => return Err(Fault::Refused { url: shown(url) }),
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

    fn serve_file(&self, client: &mut Client, feed: &Feed, link: &Link, headers: &HeaderMap) -> io::Result<()> {
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
            401 | 403 => return self.fail(client, Fault::Refused { url: shown(&link.url) }),
            404 | 410 => return client.answer(Answer::new(404), b""),
            200 | 206 | 416 => {}
            _ => {
                return self.fail(
                    client,
                    Fault::unreachable(&link.url, &format!("it answers with status {status}")),
                );
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
    fn broke_off(&self, link: &Link, passed: Passed) -> io::Error {
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
    fn serve_kept(&self, client: &mut Client, hash: &str, file: (File, u64), headers: &HeaderMap) -> io::Result<()> {
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

/// Why a file was not passed on to its end.
enum Passed {
    Reader(io::Error),
    Source(io::Error),
    /// It is not what it should be.
    Hash,
}

/// Asks for a page, or whether the one that is known is still as it was.
fn headers_for(known: Option<&Head>) -> HeaderMap {
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

/// Passes a file on while it comes, and keeps it. Its last part is held back until its hash is known: nobody gets the whole of a wrong file.
///
/// * `new`: where it is kept; `None` afterwards if there was no room.
fn pass_on(
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

/// The part of a file that a request wants, as its beginning and its end; `None` is the whole.
fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = match (from, to) {
        ("", last) => (size.checked_sub(last.parse().ok()?)?, size),
        (from, "") => (from.parse().ok()?, size),
        (from, to) => (from.parse().ok()?, to.parse::<u64>().ok()?.checked_add(1)?.min(size)),
    };
    (from < to).then_some((from, to))
}

/// Reads a request: its path, unless it is one that nobody makes here. `None` at the end of the connection.
fn next_request(client: &mut Client, read: &mut Vec<u8>) -> io::Result<Option<(Option<String>, HeaderMap)>> {
    loop {
        let mut slots = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut slots);
        match request.parse(read) {
            Ok(httparse::Status::Complete(end)) => {
                let mut headers = HeaderMap::new();
                for each in request.headers.iter() {
                    let name = HeaderName::from_bytes(each.name.as_bytes());
                    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(each.value)) {
                        headers.insert(name, value);
                    }
                }
                let has = |name, word: &str| {
                    headers
                        .get(name)
                        .and_then(|value: &HeaderValue| value.to_str().ok())
                        .is_some_and(|value| value.eq_ignore_ascii_case(word))
                };
                let has_body = headers.contains_key(header::TRANSFER_ENCODING)
                    || headers.contains_key(header::CONTENT_LENGTH) && !has(header::CONTENT_LENGTH, "0");
                let is_known = matches!(request.method, Some("GET" | "HEAD")) && !has_body;
                client.is_head = request.method == Some("HEAD");
                client.stays = is_known && request.version == Some(1) && !has(header::CONNECTION, "close");
                let path = request.path.filter(|_| is_known).map(str::to_owned);
                read.drain(..end);
                return Ok(Some((path, headers)));
            }
            Ok(httparse::Status::Partial) if read.len() < MOST_HEAD => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        let mut more = [0; 4096];
        match client.stream.read(&mut more)? {
            0 => return Ok(None),
            count => read.extend_from_slice(&more[..count]),
        }
    }
}

/// Whether it is the normalised name of a package.
fn is_package(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 256
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| is_inner(byte) || b"-_.".contains(&byte) || byte.is_ascii_uppercase())
}

fn page_url(feed: &Url, kind: Kind, package: &str) -> Url {
    let mut url = feed.clone();
    if kind == Kind::Index
        && let Ok(mut path) = url.path_segments_mut()
    {
        path.pop_if_empty().push(package).push("");
    }
    url
}

/// The id of a link in a path.
fn id(link: &Link) -> String {
    let mut hash = Sha256::new();
    hash.update(link.url.as_str());
    hash.update(link.sha256().unwrap_or_default());
    hex::encode(&hash.finalize()[..16])
}

fn links_of(url: &Url, head: &Head, body: &[u8]) -> Result<Vec<Link>, Fault> {
    let base = Url::parse(&head.url).unwrap_or_else(|_| url.clone());
    page::parse(body, &head.kind, &base).map_err(|why| Fault::unreachable(url, &why))
}

/// Until when a page may be taken for what the index would say now; `None` if it may not be kept at all.
///
/// # Source
///
/// RFC 9111, 5.2.2.
fn fresh_until(headers: &HeaderMap) -> Option<u64> {
    let control = headers
        .get(header::CACHE_CONTROL)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let words: Vec<String> = control
        .split(',')
        .map(|word| word.trim().to_ascii_lowercase())
        .collect();
    if words
        .iter()
        .any(|word| word == "no-store" || word.starts_with("private"))
    {
        return None;
    }
    let age = words
        .iter()
        .find_map(|word| word.strip_prefix("max-age=")?.parse::<u64>().ok());
    let age = age.filter(|_| !words.iter().any(|word| word.starts_with("no-cache")));
    Some(age.map_or(0, |age| now() + age.min(MOST_FRESH)))
}
