//! Bearer tokens of an OpenID Connect issuer: its keys, which rotate, and the meaning of its
//! claims.
//!
//! # Source
//!
//! OpenID Connect Discovery 1.0, section 4; RFC 7517 (keys); RFC 7519 (claims).

use super::{not_ours, refused};
use contract::{Principal, Role, http::AUDIENCE, is_name, names};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, Jwk},
};
use lifecycle::{Code, Failure};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// The age at which the issuer's keys are asked for again. A key that the issuer took back is
/// refused from then on.
const KEYS_FRESH: Duration = Duration::from_secs(600);
/// The shortest time between two requests for keys, whatever tokens come.
const BETWEEN_REQUESTS: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of the issuer's documents.
const MOST_BYTES: u64 = 1 << 20;

/// Signatures by a public key. A token names its own algorithm, and none of these can be made with
/// what is public.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The claims that a token's user, workspace and roles are read from.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClaimNames {
    user: String,
    workspace: String,
    /// The workspace of every token, in place of a claim.
    in_workspace: Option<String>,
    /// A claim with a list of texts, or one text with spaces between them.
    roles: String,
    /// The role that a text of that claim means, beside the roles' own names. Other texts mean
    /// none.
    role_names: BTreeMap<String, Role>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            user: "sub".to_owned(),
            workspace: "ws".to_owned(),
            in_workspace: None,
            roles: "roles".to_owned(),
            role_names: BTreeMap::new(),
        }
    }
}

/// An issuer that is found by its address.
pub(crate) struct Oidc {
    address: String,
    audience: String,
    claims: ClaimNames,
    http: ureq::Agent,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    keys: Vec<Jwk>,
    /// The time at which these were fetched.
    had: Option<Instant>,
    /// The time of the last request for them.
    asked: Option<Instant>,
}

impl Keys {
    /// The key that a token names. A token may leave it out where there is one key.
    fn find(&self, id: Option<&str>) -> Option<&Jwk> {
        match (id, &*self.keys) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (id, keys) => keys.iter().find(|key| key.common.key_id.as_deref() == id),
        }
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Oidc {
    /// * `address`: the issuer, as its tokens name it.
    /// * `audience`: of tokens for this service; empty for the default.
    /// * `claims`: [`ClaimNames`] as JSON; empty for the default.
    pub(crate) fn new(address: &str, audience: &str, claims: &str) -> Result<Self, lambda_runtime::Error> {
        if !is_secure(address) {
            return Err(format!(
                "{} is no address of an issuer: it begins with https://",
                names::ISSUER_URL
            )
            .into());
        }
        let claims: ClaimNames = match claims.trim() {
            "" => ClaimNames::default(),
            text => serde_json::from_str(text).map_err(|error| format!("{}: {error}", names::ISSUER_CLAIMS))?,
        };
        if claims
            .in_workspace
            .as_deref()
            .is_some_and(|workspace| !is_name(workspace))
        {
            return Err(format!("{}: in_workspace is no name of a workspace", names::ISSUER_CLAIMS).into());
        }
        let http = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            .max_redirects(0)
            .build();
        Ok(Self {
            address: address.to_owned(),
            audience: if audience.is_empty() { AUDIENCE } else { audience }.to_owned(),
            claims,
            http: http.into(),
            keys: Mutex::default(),
        })
    }

    /// The caller that a token names.
    ///
    /// # Errors
    ///
    /// `Access.NoToken`: final for this token. `Access.NoIssuer`: worth a retry.
    pub(crate) async fn caller(&self, token: &str) -> Result<Principal, Failure> {
        let header = decode_header(token).map_err(|_| not_ours())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(not_ours());
        }
        let key = self.key(header.kid.as_deref()).await?;
        let of_key = key.common.key_algorithm.map(|algorithm| algorithm.to_string());
        if of_key.is_some_and(|of_key| of_key != format!("{:?}", header.alg)) {
            return Err(not_ours());
        }
        let key = DecodingKey::from_jwk(&key).map_err(|_| not_ours())?;
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.address]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.validate_nbf = true;
        let claims = decode::<Map<String, Value>>(token, &key, &validation);
        let claims = claims.map_err(|error| super::why(error.kind()))?.claims;
        self.claims.principal(&claims)
    }

    /// The key of that id. The issuer is asked for its keys if it is not among those that are here,
    /// or these are old.
    async fn key(&self, id: Option<&str>) -> Result<Jwk, Failure> {
        let mut keys = self.keys.lock().await;
        let is_old = |since: Option<Instant>, most: Duration| since.is_none_or(|since| since.elapsed() >= most);
        let is_wanted = keys.find(id).is_none() || is_old(keys.had, KEYS_FRESH);
        if is_wanted && (keys.had.is_none() || is_old(keys.asked, BETWEEN_REQUESTS)) {
            keys.asked = Some(Instant::now());
            match self.ask().await {
                Ok(found) => {
                    keys.keys = found;
                    keys.had = keys.asked;
                }
                // The keys that are here are good until it answers again.
                Err(why) => tracing::warn!(why, "the issuer of tokens gives no keys"),
            }
        }
        if keys.had.is_none() {
            let message = "The issuer of tokens cannot be reached now; the log of the function api says why. Send the request again.";
            return Err(Failure::new(Code::AccessNoIssuer, message));
        }
        keys.find(id).cloned().ok_or_else(not_ours)
    }

    async fn ask(&self) -> Result<Vec<Jwk>, String> {
        let (http, address) = (self.http.clone(), self.address.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let at = format!("{}/.well-known/openid-configuration", address.trim_end_matches('/'));
            let found: Discovery = get(&http, &at)?;
            if found.issuer != address {
                return Err(format!("{at} is of another issuer"));
            }
            if !is_secure(&found.jwks_uri) {
                return Err(format!("{at} names an address of keys without https"));
            }
            let set: KeySet = get(&http, &found.jwks_uri)?;
            // A key of a kind that is not known here is for others.
            let keys = set
                .keys
                .into_iter()
                .filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
            Ok(keys.filter(is_public).collect())
        });
        asked.await.map_err(|error| error.to_string())?
    }
}

fn get<T: serde::de::DeserializeOwned>(http: &ureq::Agent, address: &str) -> Result<T, String> {
    let mut answer = http
        .get(address)
        .call()
        .map_err(|error| format!("{address}: {error}"))?;
    let body = answer.body_mut().with_config().limit(MOST_BYTES);
    body.read_json().map_err(|error| format!("{address}: {error}"))
}

/// Whether nobody between can answer in its place. On this machine there is nobody between.
fn is_secure(address: &str) -> bool {
    let on_this_machine = ["http://127.0.0.1:", "http://localhost:"];
    address.starts_with("https://") || on_this_machine.iter().any(|begin| address.starts_with(begin))
}

/// Whether a key checks signatures, and cannot make them.
fn is_public(key: &Jwk) -> bool {
    let is_for_signatures =
        |usage: &jsonwebtoken::jwk::PublicKeyUse| matches!(usage, jsonwebtoken::jwk::PublicKeyUse::Signature);
    !matches!(key.algorithm, AlgorithmParameters::OctetKey(_))
        && key.common.public_key_use.as_ref().is_none_or(is_for_signatures)
}

impl ClaimNames {
    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, Failure> {
        let name = |claim: &str, what: &str| {
            let text = claims.get(claim).and_then(Value::as_str).filter(|text| is_name(text));
            let missing = || {
                refused(&format!(
                    "The bearer token has no claim {claim} with the name of its {what}."
                ))
            };
            text.map(str::to_owned).ok_or_else(missing)
        };
        Ok(Principal::User {
            name: name(&self.user, "user")?,
            workspace: match &self.in_workspace {
                Some(workspace) => workspace.clone(),
                None => name(&self.workspace, "workspace")?,
            },
            roles: self.roles_of(claims.get(&self.roles)),
        })
    }

    fn roles_of(&self, claim: Option<&Value>) -> Vec<Role> {
        let texts: Vec<&str> = match claim {
            Some(Value::String(text)) => text.split_whitespace().collect(),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let role = |text: &&str| {
            let own = || serde_json::from_value(Value::from(*text)).ok();
            self.role_names.get(*text).copied().or_else(own)
        };
        texts.iter().filter_map(role).collect()
    }
}

#[cfg(test)]
mod tests;
