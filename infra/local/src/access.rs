//! The caller of a request. Every request of an AWS protocol is signed with a key of the caller's
//! own, and the host signs it again to see.
//!
//! A user of this machine, each function, and each session's agent has a key. Functions get theirs
//! new at each start of the host; the others' are kept, because agents outlive the host and scripts
//! keep what they were told.

use crate::{
    store::{Store, damaged, now, random_hex},
    wire::AwsError,
};
use anyhow::Context;
use axum::http::{HeaderMap, Method, Uri};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use contract::{Role, http::Claims};
use ed25519_dalek::{Signature, Signer, SigningKey};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

/// The largest distance of a signature's time from now, in seconds. As AWS has it.
const SKEW: u64 = 900;
/// The headers that a signature has to cover, and that may be there once.
const SIGNED: [&str; 3] = ["host", "x-amz-date", "x-amz-target"];
/// The workspace of the user of this machine.
const WORKSPACE: &str = "local";
/// The time that a bearer token is good, in seconds.
const TOKEN_LIFE: u64 = 30 * 86_400;
/// The longest life of a token, in seconds: nothing but a new key of the issuer ends one earlier.
const LONGEST_TOKEN_LIFE: u64 = 90 * 86_400;
/// The most derived keys that are kept at hand.
const MOST_DERIVED: usize = 1024;

/// The signer of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Caller {
    User(String),
    Function(String),
    /// The compute driver of this machine.
    Driver,
    Agent {
        flow: String,
        generation: u32,
    },
}

impl Caller {
    /// The sender id that the messages of this caller carry.
    pub(crate) fn sender(&self) -> String {
        match self {
            // A user cannot be called as one of the others is.
            Self::User(name) if name.contains(':') || ["driver", "host", "states"].contains(&name.as_str()) => {
                format!("user:{name}")
            }
            Self::User(name) => name.clone(),
            Self::Function(name) => format!("function:{name}"),
            Self::Driver => "driver".to_owned(),
            Self::Agent { flow, generation } => format!("agent:{flow}:{generation}"),
        }
    }

    /// Refuses what this caller may not do. `queue` is the name of the queue that it is about, if
    /// it is about one.
    pub(crate) fn check(&self, service: &str, operation: &str, queue: Option<&str>) -> Result<(), AwsError> {
        let Self::Agent { flow, generation } = self else {
            return Ok(());
        };
        let own = contract::names::agent_queue(flow, *generation);
        let allowed = service == "AmazonSQS"
            && match operation {
                "ReceiveMessage" | "DeleteMessage" | "DeleteMessageBatch" => queue == Some(own.as_str()),
                "GetQueueUrl" => queue == Some(own.as_str()) || queue == Some(contract::names::REPORTS.name),
                "SendMessage" | "SendMessageBatch" => queue == Some(contract::names::REPORTS.name),
                _ => false,
            };
        if allowed {
            return Ok(());
        }
        Err(AwsError::access_denied(
            "AccessDeniedException",
            format!("An agent may not do {service}.{operation} here."),
        )
        .with_query_code("AccessDenied"))
    }
}

/// The keys of all callers.
pub(crate) struct Access {
    store: Arc<Store>,
    /// By key id: the secret, and whose it is.
    keys: RwLock<HashMap<String, (String, Caller)>>,
    /// By key id, day, region and service: what signatures are made with.
    derived: RwLock<HashMap<String, Arc<[u8]>>>,
}

impl Access {
    /// Reads the kept keys.
    ///
    /// # Errors
    ///
    /// When a row cannot be read. Final.
    pub(crate) fn open(store: Arc<Store>) -> rusqlite::Result<Self> {
        let rows: Vec<(String, String, String)> = store.read(|db| {
            db.prepare("SELECT key_id, secret, caller FROM credential")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<_>>()
        })?;
        let keys = rows
            .into_iter()
            .map(|(id, secret, caller)| match serde_json::from_str(&caller) {
                Ok(caller) => Ok((id, (secret, caller))),
                Err(cause) => Err(damaged(2, &format!("the caller of the key {id}"), &cause)),
            })
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            store,
            keys: RwLock::new(keys),
            derived: RwLock::default(),
        })
    }

    /// A key for a caller, which is forgotten when the host ends: key id, and secret.
    pub(crate) fn lend(&self, caller: Caller) -> (String, String) {
        let (id, secret) = (random_hex::<16>(), random_hex::<32>());
        self.keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), (secret.clone(), caller));
        (id, secret)
    }

    /// The key of a caller, which is kept: key id, and secret.
    pub(crate) fn issue(&self, caller: Caller) -> rusqlite::Result<(String, String)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let had = keys.iter().find(|(_, (_, whose))| *whose == caller);
        if let Some((id, (secret, _))) = had {
            return Ok((id.clone(), secret.clone()));
        }
        drop(keys);
        let (id, secret) = (random_hex::<16>(), random_hex::<32>());
        self.store.write(|db| {
            db.execute(
                "INSERT INTO credential (key_id, secret, caller) VALUES (?1, ?2, ?3)",
                params![id, secret, serde_json::to_string(&caller).unwrap_or_default()],
            )
        })?;
        self.keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), (secret.clone(), caller));
        Ok((id, secret))
    }

    /// Makes a caller's keys worthless.
    pub(crate) fn revoke(&self, caller: &Caller) -> rusqlite::Result<()> {
        let text = serde_json::to_string(caller).unwrap_or_default();
        self.store
            .write(|db| db.execute("DELETE FROM credential WHERE caller = ?1", [text]))?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|_, (_, whose)| whose != caller);
        Ok(())
    }

    /// Reads the claim of a request's head, before its body is read.
    ///
    /// # Errors
    ///
    /// An [`AwsError`] with status 403. Final: the caller has no key here, or signed too little.
    pub(crate) fn claim<'a>(&self, headers: &'a HeaderMap) -> Result<Claim<'a>, AwsError> {
        let missing = || AwsError::access_denied("MissingAuthenticationToken", "This request is not signed.");
        // Of two values one would be signed and the other read.
        let text = |name: &str| {
            let mut all = headers.get_all(name).iter();
            let one = all.next().and_then(|value| value.to_str().ok());
            one.filter(|_| all.next().is_none())
        };
        let (credential, signed, signature) = text("authorization").and_then(parts_of).ok_or_else(missing)?;
        let (key_id, scope) = credential.split_once('/').ok_or_else(wrong)?;
        let (secret, caller) = self
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key_id)
            .cloned()
            .ok_or_else(|| {
                AwsError::access_denied(
                    "UnrecognizedClientException",
                    "There is no key of this id. The one in host.json is current.",
                )
            })?;
        for name in SIGNED {
            if text(name).is_none() || !signed.split(';').any(|one| one == name) {
                return Err(AwsError::access_denied(
                    "InvalidSignatureException",
                    format!("The header {name} has to be there once, and signed."),
                ));
            }
        }
        let date = text("x-amz-date").ok_or_else(missing)?;
        let time = parse_time(date).ok_or_else(wrong)?;
        if skew(time).as_secs() > SKEW {
            return Err(AwsError::access_denied(
                "InvalidSignatureException",
                "Signature expired: sign again, by a clock that is right.",
            ));
        }
        Ok(Claim {
            key_id,
            scope,
            signed,
            signature,
            date,
            time,
            secret,
            caller,
        })
    }

    fn signing_key(&self, key_id: &str, secret: &str, scope: &str, time: SystemTime) -> Option<Arc<[u8]>> {
        let name = format!("{key_id}/{scope}");
        if let Some(key) = self.derived.read().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Some(key.clone());
        }
        let mut parts = scope.split('/');
        let (_, region, service) = (parts.next()?, parts.next()?, parts.next()?);
        let key: Arc<[u8]> = aws_sigv4::sign::v4::generate_signing_key(secret, time, region, service)
            .as_ref()
            .into();
        let mut derived = self.derived.write().unwrap_or_else(PoisonError::into_inner);
        if derived.len() >= MOST_DERIVED {
            derived.clear();
        }
        derived.insert(name, key.clone());
        Some(key)
    }
}

/// The caller that a request's head names, and how that is to be checked.
pub(crate) struct Claim<'a> {
    key_id: &'a str,
    scope: &'a str,
    /// The names of the headers that are signed.
    signed: &'a str,
    signature: &'a str,
    date: &'a str,
    time: SystemTime,
    secret: String,
    caller: Caller,
}

impl Claim<'_> {
    /// The signer of this request.
    ///
    /// # Errors
    ///
    /// An [`AwsError`] with status 403. Final: the caller signed something else, or with another
    /// key.
    ///
    /// # Source
    ///
    /// "Create a signed AWS API request" in the AWS Identity and Access Management user guide.
    pub(crate) fn check(
        self,
        access: &Access,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Caller, AwsError> {
        let mut canonical = format!(
            "{method}\n{}\n{}\n",
            encode_path(uri.path()),
            sort_query(uri.query().unwrap_or(""))
        );
        for name in self.signed.split(';') {
            let values: Vec<_> = headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .map(|value| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            canonical.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        canonical.push_str(&format!("\n{}\n{}", self.signed, hex::encode(Sha256::digest(body))));
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            self.date,
            self.scope,
            hex::encode(Sha256::digest(canonical.as_bytes()))
        );
        let key = access
            .signing_key(self.key_id, &self.secret, self.scope, self.time)
            .ok_or_else(wrong)?;
        let right = aws_sigv4::sign::v4::calculate_signature(&*key, to_sign.as_bytes());
        if !same(right.as_bytes(), self.signature.as_bytes()) {
            return Err(wrong());
        }
        Ok(self.caller)
    }
}

fn wrong() -> AwsError {
    AwsError::access_denied(
        "InvalidSignatureException",
        "The signature does not match the request and this host's key of that id.",
    )
}

/// Compares without telling by its time where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// A path as it is signed: what is escaped already is escaped once more.
fn encode_path(path: &str) -> String {
    path.split('/')
        .map(contract::route::encode_part)
        .collect::<Vec<_>>()
        .join("/")
}

fn sort_query(query: &str) -> String {
    let mut pairs: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            if pair.contains('=') {
                pair.to_owned()
            } else {
                format!("{pair}=")
            }
        })
        .collect();
    pairs.sort();
    pairs.join("&")
}

/// The credential, the names of signed headers and the signature of an `Authorization` header.
fn parts_of(authorization: &str) -> Option<(&str, &str, &str)> {
    let parts = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let (mut credential, mut signed, mut signature) = (None, None, None);
    for part in parts.split(',').map(str::trim) {
        match part.split_once('=') {
            Some(("Credential", value)) => credential = Some(value),
            Some(("SignedHeaders", value)) => signed = Some(value),
            Some(("Signature", value)) => signature = Some(value),
            _ => {}
        }
    }
    Some((credential?, signed?, signature?))
}

/// The distance of a time from now, before or after.
fn skew(time: SystemTime) -> Duration {
    let now = SystemTime::now();
    now.duration_since(time)
        .or_else(|_| time.duration_since(now))
        .unwrap_or(Duration::MAX)
}

/// Reads `20261124T095246Z`.
fn parse_time(text: &str) -> Option<SystemTime> {
    if text.len() != 16 || !text.is_ascii() || text.as_bytes()[8] != b'T' {
        return None;
    }
    let part = |from, to| &text[from..to];
    let (year, month, day) = (part(0, 4), part(4, 6), part(6, 8));
    let (hour, minute, rest) = (part(9, 11), part(11, 13), part(13, 16));
    humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{rest}")).ok()
}

/// The issuer of bearer tokens: a key in a file. On one machine it is the host's own; a deployment
/// that has no identity provider may keep one.
pub struct Issuer {
    key: SigningKey,
}

impl Issuer {
    /// Finds the key in a file, or makes it, for its user alone to read.
    ///
    /// # Errors
    ///
    /// When the file cannot be written. A file that holds no such key is an error too: it is not
    /// written over. Final.
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        let seed = match fs::read_to_string(file) {
            Ok(text) => STANDARD
                .decode(text.trim())
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .with_context(|| format!("{} holds no key of an issuer", file.display()))?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                let mut seed = [0u8; 32];
                getrandom::fill(&mut seed)?;
                write_private(file, STANDARD.encode(seed).as_bytes())?;
                seed
            }
            Err(cause) => return Err(cause).with_context(|| format!("{} cannot be read", file.display())),
        };
        Ok(Self {
            key: SigningKey::from_bytes(&seed),
        })
    }

    /// The public half, as PEM.
    pub fn public_pem(&self) -> String {
        // The fixed beginning of a SubjectPublicKeyInfo with an Ed25519 key (RFC 8410).
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend(self.key.verifying_key().to_bytes());
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        )
    }

    /// A token for a user of a workspace.
    ///
    /// * `life`: how long it is good, in seconds.
    ///
    /// # Errors
    ///
    /// When one of the two is no name that a session's row could have, or `life` is more than
    /// 90 days. Final.
    pub fn token(&self, user: &str, workspace: &str, roles: &[Role], life: u64) -> anyhow::Result<String> {
        anyhow::ensure!(
            life <= LONGEST_TOKEN_LIFE,
            "it would be good for more than {} days",
            LONGEST_TOKEN_LIFE / 86_400
        );
        for name in [user, workspace] {
            anyhow::ensure!(
                contract::is_name(name),
                "{name:?} is no name of a user or a workspace: it should be one line of 1 to 100 characters, without #"
            );
        }
        let claims = Claims {
            sub: user.to_owned(),
            ws: workspace.to_owned(),
            roles: roles.to_vec(),
            exp: seconds_now().saturating_add(life),
            aud: contract::http::AUDIENCE.to_owned(),
        };
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let claims = serde_json::to_string(&claims).unwrap_or_default();
        let signed = format!("{}.{}", part(r#"{"alg":"EdDSA","typ":"JWT"}"#), part(&claims));
        Ok(format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).to_bytes())
        ))
    }

    /// A token for the user of this machine.
    pub(crate) fn own_token(&self, user: &str) -> anyhow::Result<String> {
        self.token(user, WORKSPACE, &[Role::Owner, Role::DataScientist], TOKEN_LIFE)
    }

    /// Whether this is a token of ours for this user that is still good.
    pub(crate) fn accepts(&self, token: &str, user: &str) -> bool {
        let Some((signed, signature)) = token.rsplit_once('.') else {
            return false;
        };
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .ok()
            .and_then(|bytes| Signature::from_slice(&bytes).ok());
        let claims = signed
            .split_once('.')
            .and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok())
            .and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
        match (signature, claims) {
            (Some(signature), Some(claims)) => {
                self.key.verify(signed.as_bytes(), &signature).is_ok()
                    && claims.sub == user
                    && claims.ws == WORKSPACE
                    && claims.aud == contract::http::AUDIENCE
                    && claims.exp > seconds_now()
            }
            _ => false,
        }
    }
}

fn seconds_now() -> u64 {
    u64::try_from(now() / 1000).unwrap_or(0)
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = file.with_extension("partial");
    let _ = fs::remove_file(&partial);
    let mut open = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&partial)?;
    open.write_all(bytes)?;
    open.sync_all()?;
    fs::rename(&partial, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_types::{DateTime, date_time::Format};
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_time_is_read_as_the_calendar_has_it() {
        let seconds = |text| {
            parse_time(text)
                .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
                .map(|d| d.as_secs())
        };
        assert_eq!(seconds("19700101T000000Z"), Some(0));
        assert_eq!(seconds("20240229T123456Z"), Some(1_709_210_096));
        assert_eq!(seconds("20261124T095246Z"), Some(1_795_513_966));
        for wrong in [
            "",
            "20261124T095246",
            "20261324T095246Z",
            "20261124 095246Z",
            "2026112aT095246Z",
        ] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_tokens_of_this_issuer_for_this_user_are_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let issuer = Issuer::open(&folder.path().join("issuer")).expect("an issuer");
        let other = Issuer::open(&folder.path().join("other")).expect("an issuer");
        let again = Issuer::open(&folder.path().join("issuer")).expect("an issuer");
        let token = issuer.own_token("ann").expect("a token");
        assert!(issuer.accepts(&token, "ann") && again.accepts(&token, "ann"));
        assert!(!other.accepts(&token, "ann") && !issuer.accepts(&token, "bob"));
        for wrong in ["", "a.b.c", &format!("{token}x")] {
            assert!(!issuer.accepts(wrong, "ann"), "{wrong}");
        }
        let roles = [Role::Owner];
        let ended = issuer.token("ann", "local", &roles, 0).expect("a token");
        let elsewhere = issuer.token("ann", "lab", &roles, 60).expect("a token");
        assert!(issuer.token("ann", "local", &roles, LONGEST_TOKEN_LIFE).is_ok());
        assert!(issuer.token("ann", "local", &roles, LONGEST_TOKEN_LIFE + 1).is_err());
        assert!(!issuer.accepts(&ended, "ann") && !issuer.accepts(&elsewhere, "ann"));
        for no_name in ["", "a#b", "a\nb", "a\u{7f}b", &"a".repeat(101)] {
            let refused = issuer.token(no_name, "local", &roles, 60);
            assert!(refused.is_err() && issuer.token("ann", no_name, &roles, 60).is_err());
        }

        let file = folder.path().join("something else");
        fs::write(&file, "kept").expect("written");
        let refused = Issuer::open(&file).err().expect("refused").to_string();
        assert!(refused.contains("something else"), "{refused}");
        assert_eq!(fs::read_to_string(&file).expect("read"), "kept");
    }

    /// Whether a request with these headers is taken, whose signature covers those of them that
    /// `signed` names.
    fn is_taken(
        access: &Access,
        (id, secret): &(String, String),
        headers: &[(&'static str, &str)],
        signed: &str,
    ) -> bool {
        let time = SystemTime::now();
        let stamp = DateTime::from_secs(DateTime::from(time).secs()).fmt(Format::DateTime);
        let stamp = stamp.expect("a time").replace(['-', ':'], "");
        let date = &stamp[..8];
        let scope = format!("{date}/us-east-1/sqs/aws4_request");
        let all = [headers, &[("x-amz-date", stamp.as_str())]].concat();
        let mut map = HeaderMap::new();
        for (name, value) in &all {
            map.append(*name, value.parse().expect("a header"));
        }
        let mut canonical = "POST\n/\n\n".to_owned();
        for name in signed.split(';') {
            let values: Vec<_> = all
                .iter()
                .filter(|(each, _)| *each == name)
                .map(|(_, value)| *value)
                .collect();
            canonical.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        canonical.push_str(&format!("\n{signed}\n{}", hex::encode(Sha256::digest(b"{}"))));
        let canonical = hex::encode(Sha256::digest(canonical.as_bytes()));
        let key = aws_sigv4::sign::v4::generate_signing_key(secret, time, "us-east-1", "sqs");
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical}");
        let signature = aws_sigv4::sign::v4::calculate_signature(key, to_sign.as_bytes());
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}");
        map.insert("authorization", authorization.parse().expect("a header"));
        let claim = access.claim(&map);
        claim
            .and_then(|claim| claim.check(access, &Method::POST, &Uri::from_static("/"), &map, b"{}"))
            .is_ok()
    }

    #[test]
    fn a_signature_covers_the_host_the_time_and_the_operation_or_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("queues.db"), crate::store::QUEUES).expect("a store");
        let access = Access::open(Arc::new(store)).expect("keys");
        let key = access.lend(Caller::Driver);
        let operation = ("x-amz-target", "AmazonSQS.ListQueues");
        let headers = [("host", "localhost"), operation];
        assert!(is_taken(&access, &key, &headers, "host;x-amz-date;x-amz-target"));
        for too_few in ["host;x-amz-date", "host;x-amz-target", "x-amz-date;x-amz-target"] {
            assert!(!is_taken(&access, &key, &headers, too_few), "{too_few}");
        }
        let twice = [
            ("host", "localhost"),
            operation,
            ("x-amz-target", "AmazonSQS.PurgeQueue"),
        ];
        assert!(!is_taken(&access, &key, &twice, "host;x-amz-date;x-amz-target"));
        assert!(!is_taken(&access, &key, &headers[..1], "host;x-amz-date;x-amz-target"));
        let other = (key.0.clone(), "another secret".to_owned());
        assert!(!is_taken(&access, &other, &headers, "host;x-amz-date;x-amz-target"));
    }

    #[test]
    fn a_key_whose_row_is_damaged_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("queues.db"), crate::store::QUEUES).expect("a store");
        let store = Arc::new(store);
        let access = Access::open(Arc::clone(&store)).expect("keys");
        let (id, _) = access.issue(Caller::Driver).expect("a key");
        let spoil = |db: &rusqlite::Transaction<'_>| db.execute("UPDATE credential SET caller = '{'", []);
        store.write(spoil).expect("spoilt");
        let error = Access::open(store).err().expect("refused").to_string();
        assert!(
            error.contains(&format!("the caller of the key {id} cannot be read")),
            "{error}"
        );
    }

    #[test]
    fn an_agent_may_use_its_own_queue_and_report_and_nothing_else() {
        let agent = Caller::Agent {
            flow: "f".into(),
            generation: 2,
        };
        let may = |operation, queue| agent.check("AmazonSQS", operation, Some(queue)).is_ok();
        assert!(
            may("ReceiveMessage", "agent-f-2")
                && may("DeleteMessageBatch", "agent-f-2")
                && may("SendMessage", "reports")
        );
        assert!(
            !may("ReceiveMessage", "agent-f-1")
                && !may("ReceiveMessage", "reports")
                && !may("SendMessage", "commands.fifo")
        );
        assert!(!may("PurgeQueue", "agent-f-2") && agent.check("DynamoDB_20120810", "GetItem", None).is_err());
        assert!(agent.check("AWSStepFunctions", "SendTaskSuccess", None).is_err());
        assert!(
            Caller::Function("api".into())
                .check("AWSStepFunctions", "SendTaskSuccess", None)
                .is_ok()
        );
    }

    #[test]
    fn no_user_can_be_taken_for_a_part_of_the_system() {
        for name in ["driver", "function:api", "agent:f:1", "host", "states"] {
            assert_ne!(Caller::User(name.into()).sender(), name);
        }
        assert_eq!(Caller::User("ann".into()).sender(), "ann");
    }
}
