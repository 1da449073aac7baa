//! HTTP to `functions/api`, wherever it runs.
//!
//! Every request may be sent twice: reads change nothing, and a command's id makes it the same
//! wish. So a request that was not answered is sent again, and a host on this machine that left
//! between two of them is started again.

use crate::{
    moved::Folders,
    request::{Address, address_of, once},
    service::Local,
    trouble::{FAILED, NONE, Trouble, UNREACHABLE, USAGE},
};
use clap::ValueEnum;
use contract::{
    Code,
    command::Command,
    http::{Accepted, Checks, Problem, SessionView, Sessions},
    route::{Route, Target},
    snapshot::{Offer, Place, Upload},
    stored::Download,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::Read,
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};
use ureq::tls::{RootCerts, TlsConfig};

/// The time that a service on this machine is tried again.
const RETRY: Duration = Duration::from_secs(20);
/// The same, where the disk has no room.
const RETRY_ON_FULL_DISK: Duration = Duration::from_secs(5);
/// The time that one elsewhere is tried again: a wrong address is to be reported soon.
const RETRY_ELSEWHERE: Duration = Duration::from_secs(3);
/// The longest time of an upload.
const LONGEST_UPLOAD: Duration = Duration::from_secs(1800);

/// Whose sessions: what the token says of its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) workspace: String,
    /// Which of this machine's folders moved.
    pub(crate) folders: Folders,
    /// The source of a flow's lineage.
    pub(crate) lineage: Lineage,
}

/// The source of a flow's lineage, and so of its key.
///
/// By default a folder, also for a service elsewhere: no key changes with a version, and two clones
/// are two working copies. By repository is what several machines need that speak of one flow. On
/// one machine it does not count, as a session there reads its one folder. Rejected: by repository
/// wherever a service is elsewhere, which leaves the sessions that people have there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lineage {
    #[default]
    Folder,
    Repository,
}

/// A connection to the service.
pub(crate) struct Client {
    http: ureq::Agent,
    address: Mutex<Address>,
    local: Option<Local>,
    pub(crate) user: User,
}

impl Client {
    /// A client of the service at `address`. With `local`, it is on this machine, and is started
    /// again when it is gone.
    ///
    /// # Errors
    ///
    /// When the token is none. Final.
    pub(crate) fn new(address: Address, local: Option<Local>, workspace: Option<String>) -> Result<Self, Box<Trouble>> {
        let mut user = bearer(&address.token)?;
        if let Some(workspace) = workspace {
            user.workspace = workspace;
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .user_agent(concat!("pfsession/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            http: match &local {
                Some(local) => local.http(),
                None => config.into(),
            },
            address: Mutex::new(address),
            local,
            user,
        })
    }

    /// Reads what is there.
    ///
    /// # Errors
    ///
    /// With exit code 4 when there is nothing.
    pub(crate) fn get<'a, T: DeserializeOwned>(&self, target: impl Into<Target<'a>>) -> Result<T, Box<Trouble>> {
        self.call(&target.into(), None)
    }

    /// Reads what is there, or nothing if there is nothing.
    pub(crate) fn find<'a, T: DeserializeOwned>(
        &self,
        target: impl Into<Target<'a>>,
    ) -> Result<Option<T>, Box<Trouble>> {
        match self.get(target) {
            Ok(found) => Ok(Some(found)),
            Err(trouble) if trouble.exit == NONE => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Reads all pages of a list of sessions.
    ///
    /// * `which`: [`Route::Sessions`], with its query: nothing for the user's own sessions.
    pub(crate) fn sessions<'a>(&self, which: impl Into<Target<'a>>) -> Result<Vec<SessionView>, Box<Trouble>> {
        let which = which.into();
        let (mut sessions, mut after) = (Vec::new(), None::<String>);
        loop {
            let page: Sessions = self.get(which.clone().with_any("after", after))?;
            sessions.extend(page.sessions);
            after = page.next;
            if after.is_none() {
                return Ok(sessions);
            }
        }
    }

    /// Sends a command.
    pub(crate) fn send(&self, command: &Command) -> Result<Accepted, Box<Trouble>> {
        let body = serde_json::to_string(command).expect("a command is always JSON");
        self.call(&Route::SendCommand.into(), Some(&body))
    }

    /// Looks at what a command needs, and does not send it.
    pub(crate) fn check(&self, command: &Command) -> Result<Checks, Box<Trouble>> {
        let body = serde_json::to_string(command).expect("a command is always JSON");
        self.call(&Route::Check.into(), Some(&body))
    }

    /// Whether the service is on this machine, and so sees what this command sees.
    pub(crate) fn is_here(&self) -> bool {
        self.local.is_some()
    }

    /// Asks where something is to be that the service does not see. `None` if it takes nothing, as
    /// it sees it all the same.
    pub(crate) fn offer(&self, offer: &Offer) -> Result<Option<Place>, Box<Trouble>> {
        let body = serde_json::to_string(offer).expect("an offer is always JSON");
        match self.call(&Route::OfferSnapshot.into(), Some(&body)) {
            Ok(place) => Ok(Some(place)),
            Err(trouble) if trouble.exit == NONE => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Sends it to where it is to be. The store's address is a credential: no error has it.
    pub(crate) fn upload(&self, upload: &Upload, bytes: &[u8]) -> Result<(), Box<Trouble>> {
        let not_sent = |why: String| {
            Trouble::new(
                UNREACHABLE,
                Code::SnapshotNotSent,
                format!("The service's store did not take what the command needs: {why}"),
            )
            .next("try again in a moment")
        };
        let begun = Instant::now();
        loop {
            let mut request = self.http.put(&upload.url);
            for (name, value) in &upload.headers {
                request = request.header(name, value);
            }
            let request = request.config().timeout_global(Some(LONGEST_UPLOAD)).build();
            let failed = match request.send(bytes) {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) if answer.status().is_client_error() => {
                    return Err(not_sent(format!("it answered {}", answer.status().as_u16())));
                }
                Ok(answer) => not_sent(format!("it answered {}", answer.status().as_u16())),
                Err(error) => not_sent(flow::redact(&error.to_string())),
            };
            if begun.elapsed() > RETRY_ELSEWHERE {
                return Err(failed);
            }
            sleep(Duration::from_millis(500));
        }
    }

    /// Reads a part of a file from the store. The store's address is a credential: no error has it.
    pub(crate) fn download(&self, from: &Download) -> Result<Box<dyn Read>, Box<Trouble>> {
        let not_read = |why: String| {
            let message = format!("The service's store does not give the file: {why}");
            Trouble::new(UNREACHABLE, Code::RunUnread, message).next("try again in a moment")
        };
        let answer = self.http.get(&from.url).header("range", &from.range).call();
        let answer = answer.map_err(|error| not_read(flow::redact(&error.to_string())))?;
        match answer.status().as_u16() {
            206 => Ok(Box::new(answer.into_body().into_reader())),
            status => Err(not_read(format!("it answered {status}"))),
        }
    }

    /// Writes or changes what is there, and gives back the whole.
    pub(crate) fn put<T: DeserializeOwned>(&self, route: Route, value: &impl Serialize) -> Result<T, Box<Trouble>> {
        let body = serde_json::to_string(value).expect("a body is always JSON");
        self.call(&route.into(), Some(&body))
    }

    /// Removes what is there, and gives back what it was.
    pub(crate) fn delete<'a, T: DeserializeOwned>(&self, target: impl Into<Target<'a>>) -> Result<T, Box<Trouble>> {
        self.call(&target.into(), None)
    }

    /// Makes the request that the route names, with its method.
    fn call<T: DeserializeOwned>(&self, target: &Target, body: Option<&str>) -> Result<T, Box<Trouble>> {
        let path = target.to_string();
        let begun = Instant::now();
        let mut pause = Duration::from_millis(10);
        loop {
            let address = self.address.lock().expect("nobody panics with it").clone();
            let failed = match once(&self.http, &address, target.route.method(), &path, body) {
                Ok((status, text)) if status < 500 && status != 429 => return understood(status, &text, target.route),
                Ok((status, text)) => Trouble::new(
                    UNREACHABLE,
                    Code::ServiceUnavailable,
                    format!(
                        "The service at {} answers with {status}: {}",
                        address.endpoint,
                        short(&text)
                    ),
                ),
                Err(error) => match self.local.as_ref().map(Local::find_or_start) {
                    None => unreachable(&address, &error, self.local.as_ref()),
                    Some(Ok(host)) => {
                        *self.address.lock().expect("nobody panics with it") = address_of(&host);
                        unreachable(&address, &error, self.local.as_ref())
                    }
                    Some(Err(not_started)) => not_started,
                },
            };
            let full = self.local.as_ref().and_then(Local::trouble_of_full_disk);
            // What is on this machine comes back by itself, but for a disk without room.
            let patience = match (&self.local, &full) {
                (None, _) => RETRY_ELSEWHERE,
                (Some(_), Some(_)) => RETRY_ON_FULL_DISK,
                (Some(_), None) => RETRY,
            };
            let failed = full.unwrap_or(failed);
            if begun.elapsed() > patience || failed.failure.error == Code::ServiceNotTrusted {
                return Err(failed);
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
}

fn understood<T: DeserializeOwned>(status: u16, text: &str, route: Route) -> Result<T, Box<Trouble>> {
    if (200..300).contains(&status) {
        return serde_json::from_str(text).map_err(|e| {
            Trouble::new(
                FAILED,
                Code::ServiceOtherVersion,
                format!("The service's answer to {route} is not understood: {e}"),
            )
            .next("use a pfsession of the service's own version")
        });
    }
    let failure = match serde_json::from_str::<Problem>(text) {
        Ok(problem) => problem.error,
        Err(_) => contract::Failure::new(
            Code::ServiceRefused,
            format!("The service answers {status}: {}", short(text)),
        ),
    };
    Err(match status {
        404 => Trouble::of(NONE, failure),
        400 => Trouble::of(USAGE, failure),
        401 => Trouble::of(FAILED, failure)
            .next("get a new token; for the service on this machine: pfsession down, then try again"),
        _ => Trouble::of(FAILED, failure),
    })
}

fn unreachable(address: &Address, error: &ureq::Error, local: Option<&Local>) -> Box<Trouble> {
    let endpoint = &address.endpoint;
    let trouble = |message| Trouble::new(UNREACHABLE, Code::ServiceUnreachable, message);
    match (error, local) {
        (error, None) if is_untrusted(error) => {
            let message =
                format!("The service at {endpoint} shows a certificate that this machine does not trust: {error}");
            Trouble::new(UNREACHABLE, Code::ServiceNotTrusted, message)
                .next("see that the address is right; for an authority of your own, name its certificate file in SSL_CERT_FILE")
        }
        (error, None) => trouble(format!("The service at {endpoint} does not answer: {error}"))
            .next("see that it runs and that the address is right, then try again"),
        (error, Some(local)) => trouble(format!("The service on this machine does not answer: {error}"))
            .next("try again; if that does not help: pfsession down, and try again")
            .output(local.log().display().to_string()),
    }
}

/// Whether the other side was reached, and is not who it should be.
fn is_untrusted(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => true,
        ureq::Error::Io(cause) => cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}

/// The first of a text that nobody expected.
fn short(text: &str) -> String {
    let text: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(200)
        .collect();
    if text.is_empty() { "(nothing)".into() } else { text }
}

/// Reads whose token it is. Whether it is genuine is for the service to say.
fn bearer(token: &str) -> Result<User, Box<Trouble>> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    #[derive(serde::Deserialize)]
    struct Bearer {
        sub: String,
        ws: String,
    }
    token
        .split('.')
        .nth(1)
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok())
        .and_then(|payload| serde_json::from_slice::<Bearer>(&payload).ok())
        .map(|Bearer { sub, ws }| User {
            name: sub,
            workspace: ws,
            folders: Folders::default(),
            lineage: Lineage::default(),
        })
        .ok_or_else(|| {
            Trouble::new(
                USAGE,
                Code::ServiceBadToken,
                "The token is no JWT that names a user (`sub`) and a workspace (`ws`)",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_it_is() {
        // {"sub":"ann","ws":"local"}
        let user = bearer("e30.eyJzdWIiOiJhbm4iLCJ3cyI6ImxvY2FsIn0.x").unwrap();
        assert_eq!(
            user,
            User {
                name: "ann".into(),
                workspace: "local".into(),
                folders: Folders::default(),
                lineage: Lineage::default(),
            }
        );
        for wrong in ["", "a.b", "e30.e30.x"] {
            assert_eq!(bearer(wrong).unwrap_err().exit, USAGE, "{wrong}");
        }
    }
}
