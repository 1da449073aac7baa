//! One repository of a registry.
//!
//! `oci-client` 0.18 was weighed: it brings reqwest with its own TLS and a second HTTP stack, holds
//! a blob's digest until its end only, and goes on with no download. Five routes by `ureq`, which
//! is here already, are less. What sends is in `upload.rs`.

use crate::{
    Reference,
    accounts::{Account, Accounts},
    digest::{self, digest_of, is_digest},
    failure,
    manifest::{ACCEPT, MOST_DOCUMENT},
};
use contract::{Code, Failure};
use serde::Deserialize;
use std::{
    io::Read,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use ureq::{
    Agent, Body,
    config::{AutoHeaderValue, RedirectAuthHeaders},
    http::{Method, Response, StatusCode, header},
    tls::{RootCerts, TlsConfig},
};
use url::Url;

const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
const NEXT_BYTES: Duration = Duration::from_secs(60);
/// The most tries of a question that got no answer.
pub(crate) const TRIES: u32 = 3;
const MOST_TOKEN: u64 = 1 << 20;

/// The longest time that a registry may take with a blob that it was sent.
const PUSH_ANSWER: Duration = Duration::from_secs(300);

pub(crate) struct Registry {
    pub(crate) reference: Reference,
    pub(crate) base: String,
    pub(crate) agent: Agent,
    account: Option<Account>,
    /// Whether images are sent to it.
    is_push: bool,
    /// The repository of the same registry that blobs are mounted from.
    pub(crate) mounts: Option<String>,
    /// The `Authorization` header that it asked for and accepted.
    authorization: Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    pub(crate) fn new(reference: &Reference, accounts: &Accounts) -> Result<Self, Failure> {
        Self::open(reference, accounts, false)
    }

    /// Opens a repository to send images to.
    ///
    /// * `base`: the image whose blobs it may have in another repository.
    pub(crate) fn for_push(
        reference: &Reference,
        base: Option<&Reference>,
        accounts: &Accounts,
    ) -> Result<Self, Failure> {
        let other = |base: &&Reference| base.registry == reference.registry && base.repository != reference.repository;
        Ok(Self {
            mounts: base.filter(other).map(|base| base.repository.clone()),
            ..Self::open(reference, accounts, true)?
        })
    }

    fn open(reference: &Reference, accounts: &Accounts, is_push: bool) -> Result<Self, Failure> {
        let host = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let is_here = reference.is_here();
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(!is_here)
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(if is_push { PUSH_ANSWER } else { ANSWER }))
            .timeout_per_read(Some(NEXT_BYTES))
            .timeout_per_write(Some(NEXT_BYTES))
            .user_agent(AutoHeaderValue::Provided(
                format!("pfsession/{}", env!("CARGO_PKG_VERSION")).into(),
            ));
        // Nothing is between this machine and itself.
        let config = if is_here { config.proxy(None) } else { config };
        Ok(Self {
            reference: reference.clone(),
            base: format!(
                "{}://{host}/v2/{}",
                if is_here { "http" } else { "https" },
                reference.repository
            ),
            agent: config.build().into(),
            account: accounts.at(&reference.registry)?,
            is_push,
            mounts: None,
            authorization: Mutex::default(),
        })
    }

    /// The manifest or index of a digest, or of what the reference names, and its digest. It is
    /// what that digest says.
    pub(crate) fn manifest(&self, digest: Option<&str>) -> Result<(String, Vec<u8>), Failure> {
        let named = digest.or(self.reference.digest.as_deref());
        let what = named.or(self.reference.tag.as_deref()).unwrap_or("latest");
        let bytes = self.document(&format!("{}/manifests/{what}", self.base))?;
        let found = digest_of(&bytes);
        match named {
            Some(named) if named != found => Err(digest::other_digest(&format!("The manifest {named}"))),
            _ => Ok((found, bytes)),
        }
    }

    /// The digest of what the reference names. No document is sent for it where the registry names
    /// the digest, as the specification wants.
    ///
    /// # Source
    ///
    /// OCI Distribution Specification 1.1, *Checking if content exists in the registry*:
    /// `Docker-Content-Digest` of `HEAD`.
    pub(crate) fn digest(&self) -> Result<String, Failure> {
        let tag = self.reference.tag.as_deref().unwrap_or("latest");
        let answer = self.ask_by(&Method::HEAD, &format!("{}/manifests/{tag}", self.base), None)?;
        let said = answer.headers().get("docker-content-digest");
        match said
            .and_then(|value| value.to_str().ok())
            .filter(|text| is_digest(text))
        {
            Some(digest) => Ok(digest.to_owned()),
            None => self.manifest(None).map(|(digest, _)| digest),
        }
    }

    /// A small blob, which is what its digest says.
    pub(crate) fn small_blob(&self, digest: &str) -> Result<Vec<u8>, Failure> {
        let bytes = self.document(&format!("{}/blobs/{digest}", self.base))?;
        match digest_of(&bytes) == digest {
            true => Ok(bytes),
            false => Err(digest::other_digest(&format!("The configuration {digest}"))),
        }
    }

    fn document(&self, url: &str) -> Result<Vec<u8>, Failure> {
        let mut answer = self.ask(url, None)?;
        let mut bytes = Vec::new();
        let read = answer
            .body_mut()
            .as_reader()
            .take(MOST_DOCUMENT + 1)
            .read_to_end(&mut bytes);
        read.map_err(|error| self.unreachable(&error.to_string()))?;
        if bytes.len() as u64 > MOST_DOCUMENT {
            return Err(failure(
                Code::ImageTooLarge,
                format!(
                    "A document of the image {} has more than {MOST_DOCUMENT} bytes, which are the most.",
                    self.reference
                ),
            ));
        }
        Ok(bytes)
    }

    /// A blob from a byte on, and whether it is from there and not from its beginning.
    pub(crate) fn blob(&self, digest: &str, from: u64) -> Result<(impl Read + use<>, bool), Failure> {
        let answer = self.ask(
            &format!("{}/blobs/{digest}", self.base),
            Some(from).filter(|from| *from > 0),
        )?;
        let is_partial = answer.status() == StatusCode::PARTIAL_CONTENT;
        Ok((answer.into_body().into_reader(), is_partial))
    }

    fn ask(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, Failure> {
        self.ask_by(&Method::GET, url, from)
    }

    pub(crate) fn authorization(&self) -> Option<String> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Has the registry's challenge answered, for the requests that follow.
    pub(crate) fn log_in(&self, answer: &Response<Body>) -> Result<(), Failure> {
        let taken = self.answer_challenge(answer)?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
        Ok(())
    }

    pub(crate) fn ask_by(&self, method: &Method, url: &str, from: Option<u64>) -> Result<Response<Body>, Failure> {
        let mut has_answered_a_challenge = false;
        let mut tries = 0;
        loop {
            let authorization = self.authorization();
            let request = match *method {
                Method::HEAD => self.agent.head(url),
                _ => self.agent.get(url),
            };
            let mut request = request
                .header(header::ACCEPT, ACCEPT)
                .header(header::ACCEPT_ENCODING, "identity");
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            tries += 1;
            let why = match request.call() {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED && !has_answered_a_challenge => {
                    has_answered_a_challenge = true;
                    self.log_in(&answer)?;
                    continue;
                }
                Ok(answer) => match answer.status() {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.access_denied()),
                    StatusCode::NOT_FOUND => return Err(self.not_found()),
                    StatusCode::TOO_MANY_REQUESTS => "it wants fewer requests (429)".to_owned(),
                    status => format!("it answers with {status}"),
                },
                Err(error) => words(&error),
            };
            if tries >= TRIES {
                return Err(self.unreachable(&why));
            }
            std::thread::sleep(Duration::from_millis(200 << tries));
        }
    }

    /// Answers a challenge: the value of the `Authorization` header that the registry accepts.
    fn answer_challenge(&self, answer: &Response<Body>) -> Result<String, Failure> {
        let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenges: Vec<&str> = challenges.filter_map(|value| value.to_str().ok()).collect();
        let of_kind = |kind: &str| {
            let all = challenges.iter().filter_map(|text| text.split_once(' '));
            all.into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(kind))
                .map(|(_, rest)| rest)
        };
        match (of_kind("bearer"), &self.account) {
            (Some(rest), _) => self.token(rest).map(|token| format!("Bearer {token}")),
            (None, Some(account)) if of_kind("basic").is_some() && !account.is_token() => Ok(account.basic()),
            _ => Err(self.access_denied()),
        }
    }

    /// Has the service that the registry names give a token.
    fn token(&self, challenge: &str) -> Result<String, Failure> {
        let value = |name: &str| {
            let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let realm = value("realm").and_then(|realm| Url::parse(&realm).ok());
        let is_safe = |url: &Url| url.scheme() == "https" || self.reference.is_here() && is_here(url);
        // Anybody between could read the account.
        let mut realm = realm
            .filter(is_safe)
            .ok_or_else(|| self.unreachable("it names no safe service for tokens"))?;
        let service = value("service").unwrap_or_default();
        let actions = if self.is_push { "pull,push" } else { "pull" };
        let mut scopes = vec![format!("repository:{}:{actions}", self.reference.repository)];
        scopes.extend(self.mounts.as_ref().map(|from| format!("repository:{from}:pull")));
        let scope = scopes.join(" ");
        let answer = match &self.account {
            Some(account) if account.is_token() => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service.as_str()),
                    ("scope", scope.as_str()),
                    ("client_id", "pfsession"),
                    ("refresh_token", account.secret.as_str()),
                ];
                self.agent.post(realm.as_str()).send_form(form)
            }
            account => {
                realm.query_pairs_mut().append_pair("service", &service);
                for scope in &scopes {
                    realm.query_pairs_mut().append_pair("scope", scope);
                }
                let mut request = self.agent.get(realm.as_str());
                if let Some(account) = account {
                    request = request.header(header::AUTHORIZATION, account.basic());
                }
                request.call()
            }
        };
        let mut answer = answer.map_err(|error| self.unreachable(&words(&error)))?;
        match answer.status() {
            status if status.is_success() => {}
            status if status.is_client_error() => return Err(self.access_denied()),
            status => return Err(self.unreachable(&format!("its service for tokens answers with {status}"))),
        }
        let mut text = Vec::new();
        let read = answer.body_mut().as_reader().take(MOST_TOKEN).read_to_end(&mut text);
        read.map_err(|error| self.unreachable(&error.to_string()))?;
        let token = serde_json::from_slice::<Token>(&text)
            .ok()
            .and_then(|token| token.token.or(token.access_token));
        let is_good = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        token
            .filter(is_good)
            .ok_or_else(|| self.unreachable("its service for tokens gives none"))
    }

    pub(crate) fn unreachable(&self, why: &str) -> Failure {
        if self.is_push {
            let message = format!(
                "The image {} cannot be sent to {} now: {why}. Send it again: what the registry has by now is not sent twice.",
                self.reference, self.reference.registry
            );
            return failure(Code::ImageUnreachable, message);
        }
        failure(
            Code::ImageUnreachable,
            format!(
                "The image {} cannot be had from {} now: {why}. Try again; an image that is here already is had without its registry by its \
                 digest (pfsession image list).",
                self.reference, self.reference.registry
            ),
        )
    }

    pub(crate) fn access_denied(&self) -> Failure {
        let registry = &self.reference.registry;
        let who = match &self.account {
            Some(_) => "with the account that is given for it",
            None => "without an account",
        };
        if self.is_push {
            let message = format!(
                "{registry} does not take the image {} {who}. Log in with one that may push there: pfsession registry login {registry}",
                self.reference
            );
            return failure(Code::ImagePushDenied, message);
        }
        failure(
            Code::ImageDenied,
            format!(
                "{registry} does not give the image {} {who}, or has none of that name. Log in: pfsession registry login {registry}",
                self.reference
            ),
        )
    }

    fn not_found(&self) -> Failure {
        failure(
            Code::ImageNotFound,
            format!(
                "{} has no image {}. Correct its name or its tag.",
                self.reference.registry, self.reference
            ),
        )
    }
}

pub(crate) fn is_here(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// The error of a request without an answer. An address that was sent to may hold a signature: only
/// the kind of the error is told.
pub(crate) fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "its host name is not known".into(),
        ureq::Error::Timeout(_) => "it takes too long to answer".into(),
        ureq::Error::ConnectionFailed => "no connection is made".into(),
        ureq::Error::Tls(why) => format!("its certificate is not trusted ({why})"),
        ureq::Error::Rustls(error) => format!("its certificate is not trusted ({error})"),
        ureq::Error::RequireHttpsOnly(_) => "it sends to an address without TLS".into(),
        ureq::Error::TooManyRedirects => "it sends on without an end".into(),
        _ => "the connection failed".into(),
    }
}
