//! The side of the broker that uv talks to.

mod files;
mod http;
mod pages;

use crate::{
    CLIENT_TIMEOUT, Config, Fault, Kind,
    downloads::Downloads,
    page::Link,
    upstream::{Upstream, to_shown},
};
use files::headers_for;
use http::{Answer, Client, next_request, part};
use pages::is_package;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io::{self},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// uv asks for some 50 things at once.
const MOST_CONNECTIONS: usize = 128;
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

    pub(crate) fn without_broker(&self, text: &str, address: SocketAddr) -> String {
        if !text.contains(&self.token) {
            return text.to_owned();
        }
        let mut text = text.to_owned();
        for (number, feed) in self.config.feeds.iter().enumerate() {
            let own = format!("http://{address}{}", self.path(number));
            let url = to_shown(&feed.url);
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
            text = text.replace(&own, &to_shown(&link.url));
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
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
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
            match path.and_then(|path| self.target_of(&path)) {
                Some(Asked::Page { feed, package }) => self.serve_page(&mut client, feed, &package)?,
                Some(Asked::File { feed, id, is_metadata }) => {
                    self.serve_link(&mut client, feed, &id, is_metadata, &headers)?
                }
                None => client.answer(Answer::new(404), b"")?,
            }
        }
        Ok(())
    }

    /// The target of a path. It names a package or a link that was served, and no path of the
    /// index.
    fn target_of(&self, path: &str) -> Option<Asked> {
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

    /// Notes why something could not be served. The reader is told that it is final: the broker has
    /// tried again itself.
    fn fail(&self, client: &mut Client, fault: Fault) -> io::Result<()> {
        let status = if matches!(fault, Fault::Refused { .. }) {
            403
        } else {
            424
        };
        *lock(&self.fault) = Some(fault);
        client.answer(Answer::new(status), b"")
    }
}
