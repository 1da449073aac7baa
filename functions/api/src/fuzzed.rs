//! Any bytes as a request, as the body of a route or as a token: read or refused, and no token is
//! believed that the issuer did not write.

use crate::{
    request::Request,
    runs, snapshots,
    token::{
        Issuer,
        tests::{ED25519, P256, pem, token},
    },
    webhooks,
};
use contract::{
    Principal, Role,
    command::Command,
    route::{Route, parts},
};
use fuzz::{corpus, fuzz};
use jsonwebtoken::Algorithm;

const WORDS: [&str; 24] = [
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "\"rawPath\":",
    "\"headers\":{",
    "\"queryStringParameters\":{",
    "\"isBase64Encoded\":true",
    "\"body\":",
    "%2f",
    "/v1/",
    "Bearer ",
    "\"display_name\":",
    "\"rules\":[",
    "\"digest\":",
];

fn ann() -> Principal {
    Principal::User {
        name: "ann".into(),
        workspace: "lab".into(),
        roles: vec![Role::Owner, Role::DataScientist],
    }
}

#[test]
fn any_bytes_as_an_event_of_the_front_are_read_or_refused() {
    let issuer = Issuer::new(&pem("PUBLIC", ED25519.1)).expect("a key");
    fuzz("an event of the front", &corpus("api"), &WORDS, |bytes| {
        let Ok(request) = serde_json::from_slice::<Request>(bytes) else {
            return;
        };
        let _ = (request.method(), request.number("wait"), request.text("after"));
        let path = parts(request.path());
        let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
        if let Some(route) = Route::of(request.method(), &path) {
            assert_eq!(parts(&route.to_string()), path);
        }
        assert!(issuer.caller(request.bearer()).is_err(), "no seed has a good token");
        read_as_each_body(&request.body().unwrap_or_default());
    });
}

#[test]
fn any_bytes_as_a_body_of_a_route_are_read_or_refused() {
    fuzz("the body of a route", &corpus("bodies"), &WORDS, |bytes| {
        read_as_each_body(&String::from_utf8_lossy(bytes));
    });
}

fn read_as_each_body(body: &str) {
    let _ = Command::read(body);
    let _ = runs::read_change(body);
    let _ = snapshots::read_offer(body);
    if let Ok(wanted) = webhooks::read_rules(body)
        && let Ok(rules) = webhooks::check_rules(&ann(), "lab", &[], wanted.rules)
    {
        assert!(
            rules
                .iter()
                .all(|rule| rule.flow.workspace == "lab" && rule.by.is_some())
        );
    }
}

#[test]
fn any_bytes_as_a_bearer_token_are_refused_unless_the_issuer_wrote_them() {
    for (algorithm, key) in [(Algorithm::EdDSA, ED25519), (Algorithm::ES256, P256)] {
        let issuer = Issuer::new(&pem("PUBLIC", key.1)).expect("a key");
        let good = token(algorithm, key);
        let signed = good.rsplit_once('.').expect("three parts").0.to_owned();
        let seeds = [corpus("tokens"), vec![good.into_bytes()]].concat();
        let words = [
            ".",
            "=",
            "-",
            "_",
            "eyJhbGciOiJub25lIn0",
            "eyJhbGciOiJIUzI1NiJ9",
            "AAAA",
            "\"",
            "{",
        ];
        fuzz(&format!("a bearer token with {algorithm:?}"), &seeds, &words, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(caller) = issuer.caller(Some(&text)) {
                assert!(text.rsplit_once('.').is_some_and(|(part, _)| part == signed), "{text}");
                assert_eq!(caller.name(), "ann");
            }
        });
    }
}
