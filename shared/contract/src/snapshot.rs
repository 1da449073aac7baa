//! Snapshots of flow folders, for sessions that do not see their user's machine: objects in the
//! deployment's bucket, by digest.
//!
//! Each is `s3://{bucket}/flows/{flow key}/{SHA-256, in hex}`. So nobody can overwrite another's,
//! and who has the address knows what it must hold. A flow folder is what `flow::snapshot` packs; a
//! run's data is the file itself.

use crate::{FlowRef, bounds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The most bytes of one object.
pub const MOST_BYTES: u64 = 256 << 20;

/// The address of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub bucket: String,
    /// The flow's key.
    pub flow: String,
    /// SHA-256, 64 hex digits.
    pub digest: String,
}

impl Address {
    /// Reads an address; `None` if the text is none.
    pub fn read(text: &str) -> Option<Self> {
        let (bucket, key) = text.strip_prefix("s3://")?.split_once('/')?;
        let (flow, digest) = key.strip_prefix("flows/")?.split_once('/')?;
        (is_bucket(bucket) && is_hex(flow, 32) && is_hex(digest, 64)).then(|| Self {
            bucket: bucket.to_owned(),
            flow: flow.to_owned(),
            digest: digest.to_owned(),
        })
    }

    /// The object's key in its bucket.
    pub fn key(&self) -> String {
        format!("flows/{}/{}", self.flow, self.digest)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key())
    }
}

pub(crate) fn is_bucket(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Something of a flow that its user would send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    pub flow: FlowRef,
    /// SHA-256, in hex.
    #[serde(deserialize_with = "bounds::digest")]
    #[schemars(regex(pattern = bounds::DIGEST))]
    pub digest: String,
    pub bytes: u64,
}

/// The address for it. It is there already if there is no `upload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// The folder or data that a command names.
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

/// The request that uploads it, within minutes: a PUT to `url` with exactly these headers, of
/// exactly what was offered.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Upload {
    pub url: String,
    pub headers: BTreeMap<String, String>,
}

/// The URL is a credential, and is in no log.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_a_flow_and_a_digest_and_nothing_else_is_one() {
        let (flow, digest) = ("0f".repeat(16), "1e".repeat(32));
        let text = format!("s3://a-bucket/flows/{flow}/{digest}");
        let address = Address::read(&text).unwrap();
        assert_eq!(address.to_string(), text);
        assert_eq!(address.flow, flow);
        for wrong in [
            "/home/ann/flow".to_owned(),
            format!("s3://a-bucket/flows/{flow}/{digest}/x"),
            format!("s3://a-bucket/flows/../{digest}"),
            format!("s3://a-bucket/other/{flow}/{digest}"),
            format!("s3://a@b/flows/{flow}/{digest}"),
            format!("s3://a-bucket/flows/{flow}/{}", digest.to_uppercase()),
        ] {
            assert_eq!(Address::read(&wrong), None, "{wrong}");
        }
    }
}
