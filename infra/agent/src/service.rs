//! The service's HTTP front, where it keeps the connections of a session's user, and knows the
//! files of their runs.
//!
//! A session first learns their names, then gets those that its run names, with their secrets, into
//! this process's memory. It proves with its own key which session it is.

use crate::{
    connections::{Keeper, Named},
    earlier,
    http::{Missed, http_client, try_again},
};
use contract::{
    Code, Failure, Millis,
    agent::{SignedReport, sign},
    connections::{ConnectionsWanted, GivenConnections},
    http::Problem,
    route::Route,
    stored::{EarlierWanted, GivenEarlier},
};
use ed25519_dalek::SigningKey;
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use url::{Host, Url};

/// The longest time of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
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
    /// Fetches the files of an earlier run into the folder `to`, which is not there yet.
    ///
    /// * `run`: the session's own run, whose wish names the earlier one.
    ///
    /// # Errors
    ///
    /// `Run.EarlierUnreachable`, worth a retry; the service's own refusals and a full disk: final.
    pub(crate) fn fetch_run(&self, run: &str, earlier: &str, to: &Path) -> Result<(), Failure> {
        let of = |why: &str| earlier::unreachable(earlier, why);
        let given: GivenEarlier = self.post(Route::GiveEarlier(&self.flow), &of, || {
            let wanted = EarlierWanted {
                flow: self.flow.clone(),
                generation: self.generation,
                at: now(),
                run: run.to_owned(),
                earlier: earlier.to_owned(),
            };
            sign(&self.key, &wanted)
        })?;
        earlier::fetch(&given, earlier, to)
    }

    fn ask(&self, names: Option<BTreeSet<String>>) -> Result<GivenConnections, Failure> {
        self.post(Route::GiveConnections(&self.flow), &unreachable, || {
            self.sign(names.clone())
        })
    }

    /// Asks the service, again if it does not answer.
    ///
    /// * `failure`: the failure of a service that gives no answer, of the reason.
    /// * `signed`: the request, which has the time of its try.
    fn post<T: DeserializeOwned>(
        &self,
        route: Route<'_>,
        failure: &dyn Fn(&str) -> Failure,
        signed: impl Fn() -> SignedReport,
    ) -> Result<T, Failure> {
        let address = self.address(route).map_err(failure)?;
        let http = http_client(REQUEST_TIMEOUT);
        try_again(|| match http.post(address.as_str()).send_json(signed()) {
            Ok(mut answer) if answer.status() == 200 => {
                let given = answer.body_mut().read_json::<T>();
                given.map_err(|_| Missed::Final(failure("its answer is not one")))
            }
            Ok(mut answer) => {
                let status = answer.status().as_u16();
                match answer.body_mut().read_json::<Problem>() {
                    Ok(problem) if status < 500 => Err(Missed::Final(problem.error)),
                    _ => Err(Missed::ForNow(failure(&format!("it answered {status}")))),
                }
            }
            Err(error) => Err(Missed::ForNow(failure(&flow::redact(&error.to_string())))),
        })
    }

    /// The address to ask, or why there is none. Secrets come by TLS, or from this machine.
    fn address(&self, route: Route<'_>) -> Result<Url, &'static str> {
        let url = Url::parse(&self.url).ok();
        let is_safe = |url: &Url| match url.host() {
            Some(Host::Ipv4(ip)) if ip.is_loopback() => true,
            _ => url.scheme() == "https",
        };
        let mut url = url
            .filter(is_safe)
            .ok_or("its address begins with https:// nowhere but on this machine")?;
        let front = url.path().trim_end_matches('/');
        url.set_path(&format!("{front}{route}"));
        Ok(url)
    }

    fn sign(&self, names: Option<BTreeSet<String>>) -> SignedReport {
        let wanted = ConnectionsWanted {
            flow: self.flow.clone(),
            generation: self.generation,
            at: now(),
            names,
        };
        sign(&self.key, &wanted)
    }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as Millis)
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
        let asked = |url: &str| {
            let service = service(url);
            let address = service.address(Route::GiveConnections(&service.flow));
            address.map(|url| url.to_string())
        };
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
