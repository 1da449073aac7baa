//! Bearer tokens: who calls.

use contract::{
    Principal, Role,
    http::{AUDIENCE, Claims},
    names,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use lifecycle::Failure;

/// Who issues bearer tokens, by their public key.
pub(crate) struct Issuer {
    key: DecodingKey,
    validation: Validation,
}

impl Issuer {
    /// Takes the issuer's public key from the environment: PEM, Ed25519.
    pub(crate) fn from_environment() -> Result<Self, lambda_runtime::Error> {
        let pem = std::env::var(names::ISSUER_KEY).map_err(|_| format!("{} is not set", names::ISSUER_KEY))?;
        Self::new(&pem)
    }

    fn new(pem: &str) -> Result<Self, lambda_runtime::Error> {
        let key = DecodingKey::from_ed_pem(pem.as_bytes())
            .map_err(|_| format!("{} is no public key of the kind Ed25519 in PEM", names::ISSUER_KEY))?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        Ok(Self { key, validation })
    }

    /// Tells who calls.
    ///
    /// # Errors
    ///
    /// A failure without a word of the token itself. Final for this token.
    pub(crate) fn caller(&self, token: Option<&str>) -> Result<Principal, Failure> {
        let refused = |why: &str| {
            Failure::new(
                "Access.NoToken",
                format!("{why} Send `Authorization: Bearer …` with a token of this workspace's issuer."),
            )
        };
        let token = token.ok_or_else(|| refused("The request has no bearer token."))?;
        let claims = decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|e| match e.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => refused("The bearer token has expired."),
                _ => refused("The bearer token is not one of this service's issuer."),
            })?
            .claims;
        let roles: Vec<Role> = claims.roles;
        Ok(Principal::User {
            name: claims.sub,
            workspace: claims.ws,
            roles,
        })
    }
}
