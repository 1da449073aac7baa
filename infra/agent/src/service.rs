//! The service's HTTP front, where it keeps the connections of a session's user.
//!
//! A session first learns their names, then gets those that its run names, with their secrets, into
//! this process's memory. It proves with its own key which session it is.

use crate::connections::{Keeper, Named};
use contract::{
    Code, Failure,
    agent::{SignedReport, sign},
    connections::{ConnectionsWanted, GivenConnections},
    http::Problem,
    route::Route,
};
use ed25519_dalek::SigningKey;
use std::{
    collections::BTreeSet,
    path::Path,
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use ureq::tls::{RootCerts, TlsConfig};
use url::{Host, Url};

/// The longest time of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The time before each further request.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// The service's HTTP front, as a session asks it.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) url: String,
    pub(crate) flow: String,
    pub(crate) generation: u32,
    pub(crate) key: SigningKey,
}

impl Keeper for Service {
    fn list(&self, _state: &Path) -> Result<BTreeSet<String>, Failure> {
        let known = self.ask(None)?.connections.into_iter();
        Ok(known.map(|given| given.name).collect())
    }

    fn load(&self, _state: &Path, names: BTreeSet<String>) -> Result<Named, Failure> {
        match names.is_empty() {
            true => Ok(Named::new()),
            false => read(self.ask(Some(names))?),
        }
    }
}

impl Service {
    fn ask(&self, names: Option<BTreeSet<String>>) -> Result<GivenConnections, Failure> {
        let address = self.address()?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
        let http: ureq::Agent = config.build().into();
        let mut pauses = PAUSES.into_iter();
        loop {
            let signed = self.sign(names.clone());
            let failure = match http.post(address.as_str()).send_json(&signed) {
                Ok(mut answer) if answer.status() == 200 => {
                    let given = answer.body_mut().read_json::<GivenConnections>();
                    return given.map_err(|_| unreachable("its answer is not one"));
                }
                Ok(mut answer) => {
                    let status = answer.status().as_u16();
                    match answer.body_mut().read_json::<Problem>() {
                        Ok(problem) if status < 500 => return Err(problem.error),
                        _ => unreachable(&format!("it answered {status}")),
                    }
                }
                Err(error) => unreachable(&flow::redact(&error.to_string())),
            };
            match pauses.next() {
                Some(pause) => sleep(pause),
                None => return Err(failure),
            }
        }
    }

    /// The address to ask. Secrets come by TLS, or from this machine.
    fn address(&self) -> Result<Url, Failure> {
        let url = Url::parse(&self.url).ok();
        let is_safe = |url: &Url| match url.host() {
            Some(Host::Ipv4(ip)) if ip.is_loopback() => true,
            _ => url.scheme() == "https",
        };
        let mut url = url
            .filter(is_safe)
            .ok_or_else(|| unreachable("its address begins with https:// nowhere but on this machine"))?;
        let front = url.path().trim_end_matches('/');
        url.set_path(&format!("{front}{}", Route::GiveConnections(&self.flow)));
        Ok(url)
    }

    fn sign(&self, names: Option<BTreeSet<String>>) -> SignedReport {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let wanted = ConnectionsWanted {
            flow: self.flow.clone(),
            generation: self.generation,
            at: now.map_or(0, |now| now.as_millis() as u64),
            names,
        };
        sign(&self.key, &wanted)
    }
}

/// Reads the connections of an answer, by name.
fn read(given: GivenConnections) -> Result<Named, Failure> {
    let of = given.connections.into_iter().map(|given| {
        // The parser's own words may hold a secret.
        let connection = serde_json::from_value(given.open.with_secrets(&given.secrets));
        let connection = connection.map_err(|_| unknown_type(&given.name, &given.open.kind))?;
        Ok((given.name, connection))
    });
    of.collect()
}

fn unknown_type(name: &str, kind: &str) -> Failure {
    let message = format!(
        "The connection {name} has the type {kind}, which the session's version does not know. Update the service, or \
         run with another connection."
    );
    Failure::new(Code::ConnectionUnknownType, message)
}

fn unreachable(why: &str) -> Failure {
    let message = format!(
        "The service that keeps the connections of this session's user does not give them: {}. Run again in a moment.",
        why.trim_end_matches('.')
    );
    Failure::new(Code::ConnectionUnreachable, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::agent::public_half;

    fn service(url: &str) -> Service {
        Service {
            url: url.into(),
            flow: "0f".repeat(16),
            generation: 3,
            key: SigningKey::from_bytes(&[1; 32]),
        }
    }

    #[test]
    fn secrets_come_by_tls_or_from_this_machine_alone() {
        let asked = |url: &str| service(url).address().map(|url| url.to_string());
        assert_eq!(
            asked("https://a.example/front/").unwrap(),
            format!("https://a.example/front/v1/sessions/{}/connections", "0f".repeat(16))
        );
        assert!(asked("http://127.0.0.1:4566/x").is_ok());
        for wrong in [
            "http://a.example",
            "http://localhost.a.example",
            "ftp://127.0.0.2.example",
            "no",
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
        expect_test::expect!["Connection.Unreachable: The service that keeps the connections of this session's user does not give them: it answered 500. Run again in a moment."]
            .assert_eq(&unreachable("it answered 500").to_string());
    }

    #[test]
    fn a_connection_of_an_unknown_type_fails_the_run_that_names_it() {
        let answer = |kind: &str| -> GivenConnections {
            let connection = serde_json::json!({
                "name": "model", "type": kind, "module": "promptflow.connections",
                "configs": { "base_url": "http://here" }, "secrets": { "api_key": "hidden-word" },
            });
            serde_json::from_value(serde_json::json!({ "connections": [connection] })).unwrap()
        };
        assert_eq!(
            read(answer("open_ai")).unwrap()["model"].secrets["api_key"],
            "hidden-word"
        );
        expect_test::expect!["Connection.UnknownType: The connection model has the type of_tomorrow, which the session's version does not know. Update the service, or run with another connection."]
            .assert_eq(&read(answer("of_tomorrow")).err().unwrap().to_string());
    }

    #[test]
    fn a_request_is_signed_with_the_sessions_own_key() {
        let service = service("https://a.example");
        let signed = service.sign(Some(["a".to_owned()].into()));
        assert!(signed.is_signed_by(&public_half(&service.key)));
        let wanted: ConnectionsWanted = serde_json::from_str(&signed.body).unwrap();
        assert_eq!((wanted.generation, wanted.names.unwrap().len()), (3, 1));
    }
}
