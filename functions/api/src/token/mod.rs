//! Bearer tokens: who calls.

mod oidc;

use contract::{
    Principal, Role,
    http::{AUDIENCE, Claims},
    names,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use lifecycle::{Code, Failure};
use oidc::Oidc;

/// The issuer of a deployment's bearer tokens.
pub(crate) enum Issuers {
    /// By its public key.
    Key(Box<Issuer>),
    /// By its address.
    Address(Box<Oidc>),
}

impl Issuers {
    /// Takes the issuer from the environment: its address, or else its key.
    pub(crate) fn from_environment() -> Result<Self, lambda_runtime::Error> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let address = variable(names::ISSUER_URL);
        if address.is_empty() {
            return Ok(Self::Key(Box::new(Issuer::from_environment()?)));
        }
        if !variable(names::ISSUER_KEY).is_empty() {
            let message = format!("{} and {} are both set", names::ISSUER_KEY, names::ISSUER_URL);
            return Err(message.into());
        }
        let (audience, claims) = (variable(names::ISSUER_AUDIENCE), variable(names::ISSUER_CLAIMS));
        let issuer = Oidc::new(&address, &audience, &claims)?;
        Ok(Self::Address(Box::new(issuer)))
    }

    /// Tells who calls.
    ///
    /// # Errors
    ///
    /// Those of [`Issuer::caller`] and [`Oidc::caller`].
    pub(crate) async fn caller(&self, token: Option<&str>) -> Result<Principal, Failure> {
        match (self, token) {
            (Self::Key(issuer), token) => issuer.caller(token),
            (Self::Address(issuer), Some(token)) => issuer.caller(token).await,
            (Self::Address(_), None) => Err(no_token()),
        }
    }
}

fn refused(why: &str) -> Failure {
    Failure::new(
        Code::AccessNoToken,
        format!("{why} Send `Authorization: Bearer …` with a token of this workspace's issuer."),
    )
}

fn no_token() -> Failure {
    refused("The request has no bearer token.")
}

fn not_ours() -> Failure {
    refused("The bearer token is not one of this service's issuer.")
}

fn why(error: &ErrorKind) -> Failure {
    match error {
        ErrorKind::ExpiredSignature => refused("The bearer token has expired."),
        _ => not_ours(),
    }
}

/// The issuer of bearer tokens, by its public key.
pub(crate) struct Issuer {
    /// `None`: nobody does, and no token is good.
    key: Option<(DecodingKey, Validation)>,
}

impl Issuer {
    /// Takes the issuer's public key from the environment: PEM, of an Ed25519, RSA or P-256 key. A
    /// key is good for one algorithm only (EdDSA, RS256, ES256), whatever a token says of itself.
    pub(crate) fn from_environment() -> Result<Self, lambda_runtime::Error> {
        let pem = std::env::var(names::ISSUER_KEY).map_err(|_| format!("{} is not set", names::ISSUER_KEY))?;
        Self::new(&pem)
    }

    pub(crate) fn new(pem: &str) -> Result<Self, lambda_runtime::Error> {
        if pem.trim().is_empty() {
            return Ok(Self { key: None });
        }
        // On a command line the lines of a PEM text often come as one.
        let pem = pem.replace("\\n", "\n");
        let bytes = pem.as_bytes();
        let (key, algorithm) = DecodingKey::from_ed_pem(bytes)
            .map(|key| (key, Algorithm::EdDSA))
            .or_else(|_| DecodingKey::from_rsa_pem(bytes).map(|key| (key, Algorithm::RS256)))
            .or_else(|_| DecodingKey::from_ec_pem(bytes).map(|key| (key, Algorithm::ES256)))
            .map_err(|_| {
                format!(
                    "{} is no public key in PEM of the kind Ed25519, RSA or P-256",
                    names::ISSUER_KEY
                )
            })?;
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        Ok(Self {
            key: Some((key, validation)),
        })
    }

    /// Tells who calls.
    ///
    /// # Errors
    ///
    /// A failure without a word of the token itself. Final for this token.
    pub(crate) fn caller(&self, token: Option<&str>) -> Result<Principal, Failure> {
        let token = token.ok_or_else(no_token)?;
        let Some((key, validation)) = &self.key else {
            let message = "This deployment has no issuer yet (its parameter IssuerUrl or IssuerKey).";
            return Err(refused(message));
        };
        let claims = decode::<Claims>(token, key, validation)
            .map_err(|error| why(error.kind()))?
            .claims;
        let roles: Vec<Role> = claims.roles;
        Ok(Principal::User {
            name: claims.sub,
            workspace: claims.ws,
            roles,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};

    // Keys of nobody, made for these tests.
    pub(crate) const P256: (&str, &str) = (
        "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUV0FdRBr+8/mwBA4gRjOUc7cBqeoKBH7Om+ZYhJozW2hRANCAATdAESHyu0nd7wPKFVXP7tCJoTv8xKoYh3dI+l5ixVrS253XOA9C8drQOnCbxDbyxvE1eA7QyL9ek01Tgcs/yK2",
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3QBEh8rtJ3e8DyhVVz+7QiaE7/MSqGId3SPpeYsVa0tud1zgPQvHa0Dpwm8Q28sbxNXgO0Mi/XpNNU4HLP8itg==",
    );
    pub(crate) const ED25519: (&str, &str) = (
        "MC4CAQAwBQYDK2VwBCIEIDmgJC1gh+E64YWWed40utkd/+68WHh2JEPHK0bYxthx",
        "MCowBQYDK2VwAyEAKt52+GLkB8dte9LBnmRy0bZ2X16JlfhI4VKI45q83rM=",
    );

    pub(crate) fn pem(kind: &str, base64: &str) -> String {
        format!("-----BEGIN {kind} KEY-----\n{base64}\n-----END {kind} KEY-----\n")
    }

    pub(crate) fn token(algorithm: Algorithm, (private, _): (&str, &str)) -> String {
        let key = pem("PRIVATE", private);
        let key = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(key.as_bytes()),
            _ => EncodingKey::from_ed_pem(key.as_bytes()),
        };
        let claims = serde_json::json!({
            "sub": "ann", "ws": "lab", "roles": ["data-scientist"], "exp": 4_000_000_000_u64, "aud": AUDIENCE
        });
        encode(&Header::new(algorithm), &claims, &key.unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_good_for_the_issuer_whose_key_signed_it_and_for_no_other() {
        let keys = [(Algorithm::ES256, P256), (Algorithm::EdDSA, ED25519)];
        for (algorithm, key) in keys {
            let issuer = Issuer::new(&pem("PUBLIC", key.1)).unwrap();
            for (other, signer) in keys {
                let caller = issuer.caller(Some(&token(other, signer)));
                assert_eq!(
                    caller.is_ok(),
                    other == algorithm,
                    "{algorithm:?} {other:?}: {caller:?}"
                );
            }
            let in_one_line = pem("PUBLIC", key.1).replace('\n', "\\n");
            assert!(
                Issuer::new(&in_one_line)
                    .unwrap()
                    .caller(Some(&token(algorithm, key)))
                    .is_ok()
            );
        }
        let nobody = Issuer::new("").unwrap();
        let failure = nobody.caller(Some(&token(Algorithm::ES256, P256))).unwrap_err();
        assert!(failure.message.contains("IssuerKey"), "{}", failure.message);
        assert!(Issuer::new("no key").is_err());
    }
}
