use super::{
    super::tests::{ED25519, P256, pem},
    *,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use expect_test::expect;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex as SyncMutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// An issuer on loopback. It ends with the test's process.
struct Server {
    address: String,
    keys: Arc<SyncMutex<Value>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(keys: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (keys, asked) = (Arc::new(SyncMutex::new(keys)), Arc::new(AtomicUsize::new(0)));
        let (own, given, count) = (address.clone(), Arc::clone(&keys), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap())
                    .lines()
                    .map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                lines.find(String::is_empty);
                let body = match first.split(' ').nth(1) {
                    Some("/.well-known/openid-configuration") => {
                        json!({ "issuer": own, "jwks_uri": format!("{own}/keys") })
                    }
                    _ => {
                        count.fetch_add(1, Ordering::Relaxed);
                        given.lock().unwrap().clone()
                    }
                };
                let (status, body) = match body.is_null() {
                    true => ("500 Gone", String::new()),
                    false => ("200 OK", body.to_string()),
                };
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                stream.write_all((head + &body).as_bytes()).unwrap();
            }
        });
        Self { address, keys, asked }
    }

    fn give(&self, keys: Value) {
        *self.keys.lock().unwrap() = keys;
    }
}

fn p256(id: &str) -> Value {
    // The point stands at the end of the key's document, behind a byte.
    let document = STANDARD.decode(P256.1).unwrap();
    let point = &document[document.len() - 64..];
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id, "x": part(&point[..32]), "y": part(&point[32..]) })
}

fn ed25519(id: &str) -> Value {
    let document = STANDARD.decode(ED25519.1).unwrap();
    let point = URL_SAFE_NO_PAD.encode(&document[document.len() - 32..]);
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": point })
}

fn signed(algorithm: Algorithm, id: &str, claims: &Value) -> String {
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem("PRIVATE", P256.0).as_bytes()).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem("PRIVATE", ED25519.0).as_bytes()).unwrap(),
        // What somebody signs who knows the public key alone.
        _ => EncodingKey::from_secret(&STANDARD.decode(P256.1).unwrap()),
    };
    let mut header = Header::new(algorithm);
    header.kid = Some(id.to_owned());
    encode(&header, claims, &key).unwrap()
}

fn claims(server: &Server, with: Value) -> Value {
    let mut all = json!({ "iss": server.address, "aud": "pfsession", "exp": 4_000_000_000_u64, "sub": "ann", "ws": "lab", "roles": ["owner"] });
    all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    all
}

#[tokio::test]
async fn an_issuer_is_found_by_its_address_and_its_tokens_name_the_caller() {
    let server = Server::start(json!({ "keys": [p256("one"), { "kty": "unknown" }, ed25519("two")] }));
    let issuer = Oidc::new(&server.address, "", "").unwrap();
    let expected = Principal::User {
        name: "ann".into(),
        workspace: "lab".into(),
        roles: vec![Role::Owner],
    };
    for (algorithm, id) in [(Algorithm::ES256, "one"), (Algorithm::EdDSA, "two")] {
        let token = signed(algorithm, id, &claims(&server, json!({})));
        assert_eq!(issuer.caller(&token).await.unwrap(), expected);
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 1, "the keys are kept");
    let cases = [
        (
            "another issuer",
            Algorithm::ES256,
            "one",
            json!({ "iss": "https://other.example" }),
        ),
        ("another audience", Algorithm::ES256, "one", json!({ "aud": "other" })),
        ("expired", Algorithm::ES256, "one", json!({ "exp": 1 })),
        (
            "not valid yet",
            Algorithm::ES256,
            "one",
            json!({ "nbf": 3_999_999_999_u64 }),
        ),
        ("another key's", Algorithm::EdDSA, "one", json!({})),
        ("signed with what is public", Algorithm::HS256, "one", json!({})),
        ("a key that is not there", Algorithm::ES256, "three", json!({})),
        ("no user", Algorithm::ES256, "one", json!({ "sub": 5 })),
        (
            "a user that is no name",
            Algorithm::ES256,
            "one",
            json!({ "sub": "a#b" }),
        ),
    ];
    for (what, algorithm, id, with) in cases {
        let refused = issuer.caller(&signed(algorithm, id, &claims(&server, with))).await;
        assert_eq!(refused.unwrap_err().error, Code::AccessNoToken, "{what}");
    }
    assert_eq!(
        server.asked.load(Ordering::Relaxed),
        1,
        "unknown keys do not make it ask at once"
    );
}

#[tokio::test]
async fn keys_rotate_and_one_that_was_taken_back_is_refused() {
    let server = Server::start(json!({ "keys": [p256("one")] }));
    let issuer = Oidc::new(&server.address, "", "").unwrap();
    let [old, new] = [(Algorithm::ES256, "one"), (Algorithm::EdDSA, "two")]
        .map(|(algorithm, id)| signed(algorithm, id, &claims(&server, json!({}))));
    let earlier = |by: Duration| Instant::now().checked_sub(by);
    assert!(issuer.caller(&old).await.is_ok());
    server.give(json!({ "keys": [p256("one"), ed25519("two")] }));
    assert!(issuer.caller(&new).await.is_err(), "it was asked a moment ago");
    issuer.keys.lock().await.asked = earlier(BETWEEN_REQUESTS);
    assert!(issuer.caller(&new).await.is_ok());
    assert!(issuer.caller(&old).await.is_ok());
    // The issuer does not answer: what is here counts.
    server.give(Value::Null);
    for field in [KEYS_FRESH, BETWEEN_REQUESTS] {
        let mut keys = issuer.keys.lock().await;
        (keys.had, keys.asked) = (earlier(KEYS_FRESH), earlier(field));
        drop(keys);
        assert!(issuer.caller(&old).await.is_ok());
    }
    server.give(json!({ "keys": [ed25519("two")] }));
    issuer.keys.lock().await.asked = earlier(BETWEEN_REQUESTS);
    assert!(issuer.caller(&old).await.is_err(), "its key is gone");
    assert!(issuer.caller(&new).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_said_and_asked_again() {
    let server = Server::start(Value::Null);
    let issuer = Oidc::new(&server.address, "", "").unwrap();
    let token = signed(Algorithm::ES256, "one", &claims(&server, json!({})));
    expect!["Access.NoIssuer: The issuer of tokens cannot be reached now; the log of the function api says why. Send the request again."]
        .assert_eq(&issuer.caller(&token).await.unwrap_err().to_string());
    server.give(json!({ "keys": [p256("one")] }));
    assert!(issuer.caller(&token).await.is_ok());
    for address in ["http://issuer.example", "issuer.example", ""] {
        assert!(Oidc::new(address, "", "").is_err(), "{address}");
    }
}

#[tokio::test]
async fn claims_are_read_as_the_settings_say() {
    let server = Server::start(json!({ "keys": [p256("one")] }));
    let names = r#"{ "user": "preferred_username", "in_workspace": "lab", "roles": "groups", "role_names": { "PF-Owners": "owner" } }"#;
    let issuer = Oidc::new(&server.address, "api://pf", names).unwrap();
    let with = json!({ "aud": ["api://pf", "other"], "preferred_username": "ann@example.org", "groups": "PF-Owners data-scientist everybody" });
    let caller = issuer
        .caller(&signed(Algorithm::ES256, "one", &claims(&server, with)))
        .await
        .unwrap();
    let expected = Principal::User {
        name: "ann@example.org".into(),
        workspace: "lab".into(),
        roles: vec![Role::Owner, Role::DataScientist],
    };
    assert_eq!(caller, expected);
    let unknown = Oidc::new(&server.address, "", r#"{ "usr": "sub" }"#)
        .err()
        .unwrap()
        .to_string();
    assert!(
        unknown.contains("PFSESSION_ISSUER_CLAIMS: unknown field `usr`"),
        "{unknown}"
    );
}
