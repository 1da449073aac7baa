//! Sends blobs and manifests to a registry.
//!
//! # Source
//!
//! OCI Distribution Specification 1.1, *Pushing Blobs* (`POST` then `PUT`, *Mounting a blob from
//! another repository*) and *Pushing Manifests*.

use crate::{
    How, Progress, Step,
    digest::is_digest,
    failure,
    manifest::Descriptor,
    registry::{Registry, TRIES, is_here, words},
};
use contract::{Code, Failure};
use serde::Deserialize;
use std::{
    io::{self, Read},
    time::Duration,
};
use ureq::{
    Body, SendBody,
    http::{Method, Request, Response, StatusCode, header},
};
use url::Url;

/// The most bytes of a refusal that are read.
const MOST_REFUSAL: u64 = 16 << 10;

/// The reasons of a refusal.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    message: String,
}

/// Content to send, which is opened anew for each try.
pub(crate) struct Content<'a> {
    pub(crate) size: u64,
    pub(crate) open: &'a dyn Fn() -> io::Result<Box<dyn Read + 'a>>,
}

impl Registry {
    /// Whether the repository has a blob.
    pub(crate) fn has_blob(&self, digest: &str) -> Result<bool, Failure> {
        match self.ask_by(&Method::HEAD, &format!("{}/blobs/{digest}", self.base), None) {
            Ok(_) => Ok(true),
            Err(failure) if failure.error == Code::ImageNotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Has the registry take a blob from the repository of the base; `false` if it does not.
    pub(crate) fn mount(&self, digest: &str) -> Result<bool, Failure> {
        let Some(from) = &self.mounts else { return Ok(false) };
        let url = format!("{}/blobs/uploads/?mount={digest}&from={from}", self.base);
        Ok(self.send(&Method::POST, &url, None)?.status() == StatusCode::CREATED)
    }

    /// Sends a blob that the repository does not have. One that was cut off is sent anew.
    pub(crate) fn upload(&self, digest: &str, content: &Content<'_>) -> Result<(), Failure> {
        for tries in 1.. {
            match self.upload_once(digest, content) {
                Err(failure) if failure.error == Code::ImageUnreachable && tries < TRIES => {
                    std::thread::sleep(Duration::from_millis(200 << tries));
                }
                sent => return sent,
            }
        }
        Ok(())
    }

    fn upload_once(&self, digest: &str, content: &Content<'_>) -> Result<(), Failure> {
        let begun = format!("{}/blobs/uploads/", self.base);
        let answer = self.send(&Method::POST, &begun, None)?;
        let place = answer.headers().get(header::LOCATION);
        let place = place.and_then(|value| value.to_str().ok());
        let place = place.and_then(|text| Url::parse(&begun).ok()?.join(text).ok());
        let is_safe = |url: &Url| url.scheme() == "https" || self.reference.is_here() && is_here(url);
        let mut place = place
            .filter(is_safe)
            .ok_or_else(|| self.unreachable("it names no safe address to send to"))?;
        place.query_pairs_mut().append_pair("digest", digest);
        let content = Some((content, "application/octet-stream"));
        self.send(&Method::PUT, place.as_str(), content).map(drop)
    }

    /// Sends a manifest by the tag of the reference.
    pub(crate) fn put_manifest(&self, media_type: &str, text: &[u8]) -> Result<(), Failure> {
        let tag = self.reference.tag.as_deref().unwrap_or("latest");
        let content = Content {
            size: text.len() as u64,
            open: &|| Ok(Box::new(text)),
        };
        let url = format!("{}/manifests/{tag}", self.base);
        self.send(&Method::PUT, &url, Some((&content, media_type))).map(drop)
    }

    /// Sends one request; once more if the registry asks for another account or token.
    fn send(
        &self,
        method: &Method,
        url: &str,
        content: Option<(&Content<'_>, &str)>,
    ) -> Result<Response<Body>, Failure> {
        let mut has_answered_a_challenge = false;
        loop {
            let mut answer = self.send_once(method, url, content)?;
            match answer.status() {
                status if status.is_success() => return Ok(answer),
                StatusCode::UNAUTHORIZED if !has_answered_a_challenge => {
                    has_answered_a_challenge = true;
                    self.log_in(&answer)?;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.access_denied()),
                StatusCode::TOO_MANY_REQUESTS => return Err(self.unreachable("it wants fewer requests (429)")),
                status if status.is_client_error() => return Err(self.refused(status, &mut answer)),
                status => return Err(self.unreachable(&format!("it answers with {status}"))),
            }
        }
    }

    fn send_once(
        &self,
        method: &Method,
        url: &str,
        content: Option<(&Content<'_>, &str)>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        // Storage elsewhere, which the registry may name, gets no token.
        let host = |url: &str| Url::parse(url).ok().map(|url| url.origin());
        if let Some(authorization) = self.authorization().filter(|_| host(url) == host(&self.base)) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let mut reader: Box<dyn Read> = match content {
            Some((content, media_type)) => {
                request = request.header(header::CONTENT_TYPE, media_type);
                let opened = (content.open)();
                opened.map_err(|error| {
                    failure(
                        Code::ImageFailed,
                        format!("What is to be sent cannot be read: {error}. Start again."),
                    )
                })?
            }
            None => Box::new(io::empty()),
        };
        let size = content.map_or(0, |(content, _)| content.size);
        let request = request
            .header(header::CONTENT_LENGTH, size)
            .body(SendBody::from_reader(&mut reader));
        let request = request.map_err(|_| self.unreachable("it names an address that is none"))?;
        self.agent
            .run(request)
            .map_err(|error| self.unreachable(&words(&error)))
    }

    fn refused(&self, status: StatusCode, answer: &mut Response<Body>) -> Failure {
        let mut text = Vec::new();
        // What cannot be read is no reason.
        let _ = answer.body_mut().as_reader().take(MOST_REFUSAL).read_to_end(&mut text);
        let refusal: Refusal = serde_json::from_slice(&text).unwrap_or_default();
        let reasons = refusal.errors.iter().map(|reason| reason.message.trim_end_matches('.'));
        let reasons: Vec<&str> = reasons.filter(|reason| !reason.is_empty()).collect();
        let why = match reasons.is_empty() {
            true => String::new(),
            false => format!(": {}", reasons.join("; ")),
        };
        failure(
            Code::ImagePushRefused,
            format!(
                "{} refuses the image {} ({status}){why}. See that the repository is there and takes new tags, and send it again.",
                self.reference.registry, self.reference
            ),
        )
    }
}

/// Tells how much of a layer was read.
pub(crate) struct Told<'a, R> {
    pub(crate) inner: R,
    pub(crate) layer: &'a str,
    pub(crate) bytes: u64,
    pub(crate) progress: Progress<'a>,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        (self.progress)(Step::Sent {
            layer: self.layer,
            bytes: self.bytes,
        });
        Ok(count)
    }
}

/// Has a layer at a registry without sending it, if it has it.
pub(crate) fn present(registry: &Registry, layer: &Descriptor) -> Result<Option<How>, Failure> {
    if !is_digest(&layer.digest) {
        return Ok(None);
    }
    if registry.has_blob(&layer.digest)? {
        return Ok(Some(How::Present));
    }
    Ok(registry.mount(&layer.digest)?.then_some(How::Mounted))
}
