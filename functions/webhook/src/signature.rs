//! Whether a delivery is genuine.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::Millis;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The largest distance of a delivery's time from now, in seconds.
///
/// # Source
///
/// The Standard Webhooks specification asks for a tolerance; its reference libraries have five
/// minutes.
const TOLERANCE: u64 = 300;
/// The most signatures that are looked at. A sender that rotates sends two.
const MOST_SIGNATURES: usize = 8;
/// The most characters of a delivery's id.
const LONGEST_ID: usize = 200;

/// The headers of a delivery.
#[derive(Debug, PartialEq)]
pub(crate) enum Signed {
    Standard {
        id: String,
        timestamp: String,
        signatures: Vec<Vec<u8>>,
    },
    Github {
        id: String,
        event: String,
        signature: Vec<u8>,
    },
}

/// A delivery with a signature that is right.
///
/// * `id`: as the sender calls it.
/// * `digest`: of what its signature covers of what makes it this delivery and no other. Standard
///   Webhooks sign the id, and every try has a time of its own. GitHub signs the body alone: a copy
///   under another id is still a copy.
/// * `time`: seconds since the Unix epoch, where it is signed.
#[derive(Debug, PartialEq)]
pub(crate) struct Genuine {
    pub(crate) id: String,
    pub(crate) digest: String,
    time: Option<u64>,
}

impl Signed {
    /// Reads the headers; `None` if they are neither those of Standard Webhooks nor of GitHub.
    pub(crate) fn of(headers: &BTreeMap<String, String>) -> Option<Self> {
        let header = |name: &str| {
            let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim())
        };
        let id = |name: &str| {
            header(name)
                .filter(|id| (1..=LONGEST_ID).contains(&id.len()) && !id.chars().any(char::is_control))
                .map(str::to_owned)
        };
        if let Some(all) = header("webhook-signature") {
            let known = all.split_ascii_whitespace().take(MOST_SIGNATURES);
            let signatures = known
                .filter_map(|one| BASE64.decode(one.strip_prefix("v1,")?).ok())
                .collect();
            return Some(Self::Standard {
                id: id("webhook-id")?,
                timestamp: header("webhook-timestamp")?.to_owned(),
                signatures,
            });
        }
        Some(Self::Github {
            signature: hex::decode(header("x-hub-signature-256")?.strip_prefix("sha256=")?).ok()?,
            id: id("x-github-delivery")?,
            event: header("x-github-event")?.to_owned(),
        })
    }

    /// Checks the signatures with each secret, in a time that tells nothing of where they differ or
    /// whether there is a secret.
    pub(crate) fn check(&self, body: &[u8], secrets: &[String]) -> Option<Genuine> {
        let mut is_right = false;
        for secret in secrets {
            is_right |= self.is_signed_with(&self.key(secret), body);
        }
        if secrets.is_empty() {
            // An address without a secret takes as long as one with.
            let _ = self.is_signed_with(&[0; 32], body);
        }
        is_right.then(|| match self {
            Self::Standard { id, timestamp, .. } => Genuine {
                id: id.clone(),
                digest: hex::encode(Sha256::digest(id.as_bytes())),
                time: timestamp.parse().ok().or(Some(0)),
            },
            Self::Github { id, .. } => Genuine {
                id: id.clone(),
                digest: hex::encode(Sha256::digest(body)),
                time: None,
            },
        })
    }

    fn is_signed_with(&self, key: &[u8], body: &[u8]) -> bool {
        // An empty key would be everybody's.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
            return false;
        };
        match self {
            Self::Standard {
                id,
                timestamp,
                signatures,
            } => {
                mac.update(format!("{id}.{timestamp}.").as_bytes());
                mac.update(body);
                let mut is_right = false;
                for signature in signatures {
                    is_right |= mac.clone().verify_slice(signature).is_ok();
                }
                is_right && !key.is_empty()
            }
            Self::Github { signature, .. } => {
                mac.update(body);
                mac.verify_slice(signature).is_ok() && !key.is_empty()
            }
        }
    }

    /// The key that a secret stands for: of Standard Webhooks, base64 behind `whsec_`.
    fn key(&self, secret: &str) -> Vec<u8> {
        match self {
            Self::Standard { .. } => {
                let text = secret.strip_prefix("whsec_").unwrap_or(secret);
                BASE64.decode(text).unwrap_or_default()
            }
            Self::Github { .. } => secret.as_bytes().to_vec(),
        }
    }
}

impl Genuine {
    /// Whether its time is near enough to now.
    ///
    /// # Errors
    ///
    /// With what to do. Final for this delivery; another try of it has another time.
    pub(crate) fn check_time(&self, now: Millis) -> Result<(), String> {
        match self.time {
            Some(time) if (now / 1000).abs_diff(time) > TOLERANCE => Err(format!(
                "The delivery's time is more than {TOLERANCE} s from now. Send it again, by a clock that is right."
            )),
            _ => Ok(()),
        }
    }
}
