//! The requests of a connection, and the answers to them.

use super::MOST_HEAD;
use std::{
    io::{self, Read, Write},
    net::TcpStream,
};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// The head of an answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(HeaderName, String)>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// The connection to one reader.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) is_head: bool,
    /// Whether it may be used once more.
    pub(super) stays: bool,
}

impl Client {
    pub(super) fn begin(&mut self, answer: &Answer) -> io::Result<()> {
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

    pub(super) fn answer(&mut self, answer: Answer, body: &[u8]) -> io::Result<()> {
        self.begin(&answer.with(header::CONTENT_LENGTH, body.len()))?;
        if self.is_head {
            Ok(())
        } else {
            self.stream.write_all(body)
        }
    }
}

/// The part of a file that a request wants, as its beginning and its end; `None` is the whole.
pub(super) fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = match (from, to) {
        ("", last) => (size.checked_sub(last.parse().ok()?)?, size),
        (from, "") => (from.parse().ok()?, size),
        (from, to) => (from.parse().ok()?, to.parse::<u64>().ok()?.checked_add(1)?.min(size)),
    };
    (from < to).then_some((from, to))
}

/// Reads a request: its path, unless it is one that nobody makes here. `None` at the end of the
/// connection.
pub(super) fn next_request(client: &mut Client, read: &mut Vec<u8>) -> io::Result<Option<(Option<String>, HeaderMap)>> {
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
