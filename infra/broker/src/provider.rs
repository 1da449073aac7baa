//! The side of the broker that a flow talks to: it forwards requests to model providers, and adds
//! their keys.
//!
//! ```text
//! flow ── http://192.0.0.1/TOKEN/v1/… ──▶ broker ── with the key, over TLS ──▶ the host of the connection
//! ```
//!
//! A token stands for one connection of one run, and for no longer than the run. A request goes to
//! the connection's own host, below the path of its address. Its answer comes back as it is made,
//! with the key taken out wherever it stands in it.
//!
//! Each connection carries one request: a stream ends with its connection, and none that is idle
//! takes a place.

use crate::{CLIENT_TIMEOUT, Fault, Network, upstream};
use std::{
    collections::HashMap,
    fmt,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use ureq::{
    Agent, AsSendBody, Body, SendBody,
    http::{self, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header},
};
use url::Url;

/// The most requests of one connection of a run that are under way at once. More wait.
const MOST_AT_ONCE: usize = 256;
/// The most connections in all.
const MOST_CONNECTIONS: usize = 1024;
const MOST_HEAD: usize = 64 << 10;
const MOST_HEADERS: usize = 100;
/// OpenAI takes no larger file. It is held in no memory.
const MOST_BODY: u64 = 512 << 20;
const CHUNK: usize = 64 << 10;
/// The longest time that a provider may take for an answer or for a part of one, as OpenAI's own
/// client has it.
const ANSWERING: Duration = Duration::from_secs(600);
/// Enough for TLS.
const STACK: usize = 512 << 10;

/// The way in which a provider takes its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// `authorization: Bearer …`
    Bearer,
    /// `api-key: …`
    ApiKey,
}

/// A provider, as a connection names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its host, and the path below which it may be asked.
    pub address: Url,
    pub key: String,
    pub header: Header,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("address", &upstream::to_shown(&self.address))
            .finish_non_exhaustive()
    }
}

/// The connection of a token.
struct Target {
    provider: Provider,
    agent: Agent,
    under_way: Mutex<usize>,
    done: Condvar,
}

struct Shared {
    network: Network,
    targets: Mutex<HashMap<String, Arc<Target>>>,
    connections: AtomicUsize,
    is_stopping: AtomicBool,
}

/// A broker of model providers that serves until it is dropped.
pub struct Providers {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// A way to a provider, which ends when this is dropped.
pub struct Way {
    shared: Arc<Shared>,
    token: String,
    path: String,
}

impl Way {
    /// The path of a client's base address.
    pub fn path(&self) -> String {
        format!("/{}{}", self.token, self.path)
    }

    pub fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        lock(&self.shared.targets).remove(&self.token);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Providers {
    /// Starts one on loopback.
    ///
    /// # Errors
    ///
    /// When no port or no thread can be had.
    pub fn start(network: Network) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            network,
            targets: Mutex::default(),
            connections: AtomicUsize::new(0),
            is_stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let accept = move || {
            for stream in listener.incoming() {
                if accepting.is_stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                if let Err(error) = accepting.admit(stream) {
                    tracing::warn!(%error, "a connection to the broker of model providers was not served");
                }
            }
        };
        std::thread::Builder::new().name("providers".into()).spawn(accept)?;
        Ok(Self { shared, address })
    }

    /// The address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a way to a provider.
    ///
    /// # Errors
    ///
    /// In words: the address is none that a client could ask, the key is none that a header takes,
    /// or the proxy's URL is none.
    pub fn open(&self, provider: Provider) -> Result<Way, String> {
        let url = &provider.address;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err("its address is no URL with http or https".into());
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err("its address has a user, a password or a query".into());
        }
        if provider.key.is_empty() || HeaderValue::from_str(&provider.key).is_err() {
            return Err("its key is empty, or has characters that no header takes".into());
        }
        let agent = upstream::client_of(&self.shared.network, url, ANSWERING).map_err(|fault| match fault {
            Fault::Unreachable { url, why } => format!("{url}: {why}"),
            other => format!("{other:?}"),
        })?;
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| error.to_string())?;
        let token = hex::encode(token);
        let path = url.path().trim_end_matches('/').to_owned();
        let target = Target {
            provider,
            agent,
            under_way: Mutex::default(),
            done: Condvar::new(),
        };
        lock(&self.shared.targets).insert(token.clone(), Arc::new(target));
        Ok(Way {
            shared: Arc::clone(&self.shared),
            token,
            path,
        })
    }
}

impl Drop for Providers {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        lock(&self.shared.targets).clear();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// A request's head.
struct Head {
    method: Method,
    path: String,
    headers: HeaderMap,
    /// The length of its body.
    length: Option<u64>,
    /// The part of the body that was read already.
    beyond: Vec<u8>,
}

/// The refusal of a request: its status and its reason.
type Refused = (u16, String);

fn refuse(status: u16, why: &str) -> Refused {
    (status, why.to_owned())
}

/// One of the places for connections, until it is dropped.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn admit(self: &Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let place = Place(Arc::clone(self));
        if self.connections.fetch_add(1, Ordering::SeqCst) >= MOST_CONNECTIONS {
            return answer(
                &mut stream,
                &refuse(503, "The session has too many connections to the broker at once."),
            );
        }
        let talk = move || {
            let shared = &place.0;
            if let Err(refused) = shared.serve(&mut stream) {
                // Who has gone hears nothing.
                let _ = answer(&mut stream, &refused);
            }
            finish(&mut stream);
        };
        std::thread::Builder::new()
            .name("provider".into())
            .stack_size(STACK)
            .spawn(talk)
            .map(drop)
    }

    fn serve(&self, stream: &mut TcpStream) -> Result<(), Refused> {
        let Some(head) = read_head(stream)? else { return Ok(()) };
        let (target, url) = self.target(&head.path)?;
        let _turn = target.turn();
        let mut response = target.ask(&url, head, stream)?;
        target.pass_on(&url, &mut response, stream)
    }

    /// The target of a path.
    fn target(&self, path: &str) -> Result<(Arc<Target>, Url), Refused> {
        let none = || refuse(404, "There is no such connection, or its run is over.");
        let (token, rest) = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .ok_or_else(none)?;
        let target = lock(&self.targets).get(token).cloned().ok_or_else(none)?;
        let url = url_of(&target.provider.address, rest)
            .ok_or_else(|| refuse(403, "The path is not below the address of the connection."))?;
        Ok((target, url))
    }
}

/// The URL that a path of a client stands for; `None` if it is not below the connection's own.
fn url_of(address: &Url, path: &str) -> Option<Url> {
    let plain = path.split(['?', '#']).next()?.to_ascii_lowercase();
    // A server may take these for what divides a path, or for a way up.
    let is_odd = ["%2f", "%5c", "\\", "%2e", "//", "%00"]
        .iter()
        .any(|odd| plain.contains(odd));
    if is_odd || plain.split('/').any(|part| part == ".." || part == ".") {
        return None;
    }
    let mut url = address.clone();
    url.set_path("/");
    let url = url.join(&format!("/{path}")).ok()?;
    let prefix = address.path().trim_end_matches('/');
    let is_below = url
        .path()
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (is_below && url.origin() == address.origin()).then_some(url)
}

/// A turn to ask, until it is dropped.
struct Turn<'a>(&'a Target);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.under_way) -= 1;
        self.0.done.notify_one();
    }
}

impl Target {
    fn turn(&self) -> Turn<'_> {
        let mut under_way = lock(&self.under_way);
        while *under_way >= MOST_AT_ONCE {
            under_way = self.done.wait(under_way).unwrap_or_else(PoisonError::into_inner);
        }
        *under_way += 1;
        Turn(self)
    }

    fn ask(&self, url: &Url, head: Head, stream: &mut TcpStream) -> Result<Response<Body>, Refused> {
        let failed = |why: &dyn fmt::Display| refuse(502, &format!("The request cannot be sent: {why}."));
        let mut request = Request::builder().method(head.method).uri(url.as_str());
        for (name, value) in &head.headers {
            if is_passed_on(name) && !KEYS.contains(&name.as_str()) {
                request = request.header(name, value);
            }
        }
        let key = match self.provider.header {
            Header::Bearer => (header::AUTHORIZATION, format!("Bearer {}", self.provider.key)),
            Header::ApiKey => (HeaderName::from_static("api-key"), self.provider.key.clone()),
        };
        let mut value = HeaderValue::from_str(&key.1).map_err(|error| failed(&error))?;
        value.set_sensitive(true);
        // What is packed cannot be looked through.
        request = request.header(key.0, value).header(header::ACCEPT_ENCODING, "identity");
        let answered = match head.length {
            None => self.send(request.body(()).map_err(|error| failed(&error))?),
            Some(length) => {
                let request = request.header(header::CONTENT_LENGTH, length);
                let mut body = head.beyond.chain(stream).take(length);
                self.send(
                    request
                        .body(SendBody::from_reader(&mut body))
                        .map_err(|error| failed(&error))?,
                )
            }
        };
        answered.map_err(|error| match upstream::fault(url, &error) {
            Fault::Unreachable { url, why } => refuse(502, &format!("{url} cannot be reached: {why}.")),
            Fault::NotTrusted { url } => refuse(502, &format!("The certificate of {url} is not trusted.")),
            other => refuse(502, &format!("{other:?}")),
        })
    }

    fn send(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>, ureq::Error> {
        let request = self
            .agent
            .configure_request(request)
            .allow_non_standard_methods(true)
            .build();
        self.agent.run(request)
    }

    /// Passes an answer on as it comes, with stars in the place of the key.
    fn pass_on(&self, url: &Url, response: &mut Response<Body>, stream: &mut TcpStream) -> Result<(), Refused> {
        if response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED {
            let why = format!("{} sends elsewhere, which is not followed.", upstream::to_shown(url));
            return Err(refuse(502, &why));
        }
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        // The client has unpacked gzip already.
        if encoding.is_some_and(|value| !matches!(value.as_bytes(), b"identity" | b"gzip")) {
            return Err(refuse(
                502,
                "The provider answers in an encoding that nobody asked for.",
            ));
        }
        let key = self.provider.key.as_bytes();
        let mut head = status_line(response.status());
        for (name, value) in response.headers() {
            if is_passed_on(name) {
                head.extend_from_slice(name.as_str().as_bytes());
                head.extend_from_slice(b": ");
                let mut value = value.as_bytes().to_vec();
                mask(&mut value, key);
                head.extend(value);
                head.extend_from_slice(b"\r\n");
            }
        }
        head.extend_from_slice(b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n");
        let sent = self.pass_body(response, head, stream);
        // An answer that breaks off has no last chunk, by which its reader knows.
        if let Err(error) = sent {
            tracing::debug!(%error, "an answer of a model provider broke off");
        }
        Ok(())
    }

    fn pass_body(&self, response: &mut Response<Body>, head: Vec<u8>, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&head)?;
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut masked = Masked::new(self.provider.key.as_bytes());
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = body.read(&mut buffer)?;
            let part = match count {
                0 => masked.rest(),
                _ => masked.next(&buffer[..count]),
            };
            if !part.is_empty() {
                let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
                chunk.extend(part);
                chunk.extend_from_slice(b"\r\n");
                stream.write_all(&chunk)?;
            }
            if count == 0 {
                return stream.write_all(b"0\r\n\r\n");
            }
        }
    }
}

/// The headers by which a client sends a key, or another's credential.
const KEYS: [&str; 5] = [
    "authorization",
    "api-key",
    "x-api-key",
    "ocp-apim-subscription-key",
    "cookie",
];

/// Whether a header is about a request or an answer, and not about the connection that it comes by.
///
/// # Source
///
/// RFC 9110, 7.6.1. The length and the encoding of a body are said anew.
fn is_passed_on(name: &HeaderName) -> bool {
    !matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "host"
            | "expect"
            | "accept-encoding"
            | "content-encoding"
            | "content-length"
    )
}

/// Puts stars in the place of each occurrence of a key. The length stays.
fn mask(text: &mut [u8], key: &[u8]) {
    let mut at = 0;
    while let Some(found) = find(&text[at..], key) {
        text[at + found..at + found + key.len()].fill(b'*');
        at += found + key.len();
    }
}

fn find(text: &[u8], key: &[u8]) -> Option<usize> {
    text.windows(key.len()).position(|part| part == key)
}

/// A text that comes in parts, without a key that may stand across two.
struct Masked<'a> {
    key: &'a [u8],
    held: Vec<u8>,
}

impl<'a> Masked<'a> {
    fn new(key: &'a [u8]) -> Self {
        Self { key, held: Vec::new() }
    }

    /// The bytes that can be passed on after one more part: all but an end with which the key could
    /// begin.
    fn next(&mut self, part: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(part);
        mask(&mut self.held, self.key);
        let longest = self.held.len().min(self.key.len() - 1);
        let begins = |count: &usize| self.held.ends_with(&self.key[..*count]);
        let kept = (1..=longest).rev().find(begins).unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// The methods that are forwarded.
const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// The length of a request's body, which its head has to say.
fn length_of(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    if headers.contains_key(header::UPGRADE) {
        return Err(refuse(501, "The broker forwards no WebSocket."));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(refuse(411, "The broker takes a body whose length the request says."));
    }
    let length = match headers.get_all(header::CONTENT_LENGTH).iter().collect::<Vec<_>>()[..] {
        [] => None,
        [length] => {
            let length = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
            Some(length.ok_or_else(|| refuse(400, "The length of the body is no number."))?)
        }
        _ => return Err(refuse(400, "The request says the length of its body more than once.")),
    };
    if length.is_some_and(|length| length > MOST_BODY) {
        return Err(refuse(413, "The request's body has more than 512 MiB."));
    }
    Ok(length)
}

/// Reads the head of a request; `None` if there is none.
fn read_head(stream: &mut TcpStream) -> Result<Option<Head>, Refused> {
    let mut read = Vec::new();
    loop {
        let mut more = [0; 8192];
        match stream.read(&mut more) {
            Ok(0) | Err(_) => return Ok(None),
            Ok(count) => read.extend_from_slice(&more[..count]),
        }
        let mut slots = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut slots);
        let end = match request.parse(&read) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) if read.len() < MOST_HEAD => continue,
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(refuse(431, "The request's headers are too large."));
            }
            Err(_) => return Err(refuse(400, "That is no request.")),
        };
        let mut headers = HeaderMap::new();
        for each in request.headers.iter() {
            let name = HeaderName::from_bytes(each.name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(each.value)) {
                headers.append(name, value);
            }
        }
        let method = request.method.and_then(|method| method.parse::<Method>().ok());
        let method = method.filter(|method| METHODS.contains(method));
        let method = method.ok_or_else(|| refuse(405, "The broker forwards no request of this method."))?;
        let length = length_of(&headers)?;
        if headers.contains_key(header::EXPECT) {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let path = request.path.unwrap_or_default().to_owned();
        return Ok(Some(Head {
            method,
            path,
            headers,
            length,
            beyond: read.split_off(end),
        }));
    }
}

fn status_line(status: StatusCode) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or("Other");
    format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes()
}

/// Says why a request is not forwarded, as model providers say it.
fn answer(stream: &mut TcpStream, (status, why): &Refused) -> io::Result<()> {
    tracing::warn!(status, why, "a request to a model provider was not forwarded");
    let error =
        serde_json::json!({ "error": { "message": why, "code": "pfsession", "type": "pfsession" } }).to_string();
    let mut text = status_line(StatusCode::from_u16(*status).unwrap_or(http::StatusCode::BAD_GATEWAY));
    let length = error.len();
    text.extend_from_slice(
        format!("content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{error}")
            .as_bytes(),
    );
    stream.write_all(&text)
}

/// Ends a connection so that its reader has all of the answer: what it sent and nobody read would
/// have the kernel cut it off.
fn finish(stream: &mut TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut rest = [0; 8192];
    for _ in 0..64 {
        match stream.read(&mut rest) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_below_the_connections_address_and_nowhere_else() {
        let of =
            |address: &str, path: &str| url_of(&Url::parse(address).unwrap(), path).map(|url| url.as_str().to_owned());
        let below = |path: &str| of("https://a.example/v1/", path);
        assert_eq!(
            below("v1/chat/completions?x=a%2Fb").as_deref(),
            Some("https://a.example/v1/chat/completions?x=a%2Fb")
        );
        assert_eq!(below("v1").as_deref(), Some("https://a.example/v1"));
        assert_eq!(
            of("http://a.example:8080", "openai/deployments/x").as_deref(),
            Some("http://a.example:8080/openai/deployments/x")
        );
        for path in [
            "v2/chat",
            "v1x",
            "",
            "v1/../admin",
            "v1/%2e%2e/admin",
            "v1/..%2fadmin",
            "v1/x%2F..%2F..",
            "v1//b.example/",
            "/b.example/v1",
            "v1/\\b.example",
            "v1/./x",
            "http://b.example/v1/x",
        ] {
            assert_eq!(below(path), None, "{path}");
        }
    }

    #[test]
    fn a_key_is_taken_out_of_a_text_however_its_parts_come() {
        let text = b"kekeykkey-and-ke".as_slice();
        for size in 1..=text.len() {
            let mut masked = Masked::new(b"key");
            let mut whole: Vec<u8> = text.chunks(size).flat_map(|part| masked.next(part)).collect();
            whole.extend(masked.rest());
            assert_eq!(
                String::from_utf8(whole).unwrap(),
                "ke***k***-and-ke",
                "in parts of {size}"
            );
        }
        // A part that cannot be the beginning of the key waits for nothing.
        assert_eq!(Masked::new(b"key").next(b"data: x\n\n"), b"data: x\n\n");
    }
}
