//! The files of a run in the deployment's bucket, for functions that do not see the folder of the
//! run.
//!
//! | object | what |
//! | --- | --- |
//! | `runs/{flow key}/{run}/{SHA-256 of it}` | the [`Index`]; the run's result names it |
//! | the same, of another digest | a part: the run's files one after another, cut at [`PART`] |
//!
//! * Decision: parts instead of an object a file. A run may make 50,000 files, and each object is a
//!   request.
//! * Decision: each object is named by its digest, and none is written over. A session's code has
//!   the credentials that write it; what it could write under another run's name is refused by who
//!   reads it.

use crate::{Millis, bounds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most bytes of one part.
pub const PART: u64 = 256 << 20;

/// An object of a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredObject {
    pub bucket: String,
    /// The flow's key.
    pub flow: String,
    pub run: String,
    /// SHA-256, 64 hex digits.
    pub digest: String,
}

impl StoredObject {
    /// Reads an address; `None` if the text is none.
    pub fn read(text: &str) -> Option<Self> {
        let (bucket, key) = text.strip_prefix("s3://")?.split_once('/')?;
        let mut parts = key.strip_prefix("runs/")?.split('/');
        let [flow, run, digest] = [parts.next()?, parts.next()?, parts.next()?];
        let is_good = crate::snapshot::is_bucket(bucket)
            && crate::snapshot::is_hex(flow, 32)
            && crate::command::is_good_id(run)
            && crate::snapshot::is_hex(digest, 64)
            && parts.next().is_none();
        is_good.then(|| Self {
            bucket: bucket.to_owned(),
            flow: flow.to_owned(),
            run: run.to_owned(),
            digest: digest.to_owned(),
        })
    }

    /// Another object of the same run.
    pub fn sibling(&self, digest: &str) -> Self {
        Self {
            digest: digest.to_owned(),
            ..self.clone()
        }
    }

    /// The object's key in its bucket.
    pub fn key(&self) -> String {
        format!("runs/{}/{}/{}", self.flow, self.run, self.digest)
    }
}

impl fmt::Display for StoredObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key())
    }
}

/// Which files a run has, and which parts they are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Ordered by path.
    pub files: Vec<StoredFile>,
    /// The digests of the parts, in order. All but the last have [`PART`] bytes.
    pub parts: Vec<String>,
}

/// A file of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFile {
    pub path: String,
    pub bytes: u64,
    /// SHA-256, in hex.
    pub digest: String,
    /// The start in all parts together.
    pub from: u64,
}

impl Index {
    /// The continuation of a file from `offset`: the part's digest, and the first byte there and
    /// after there. `None` at the file's end.
    pub fn place(&self, file: &StoredFile, offset: u64) -> Option<(&str, u64, u64)> {
        let begin = file.from.checked_add(offset)?;
        let end = file.from.checked_add(file.bytes)?;
        if begin >= end {
            return None;
        }
        let part = begin / PART;
        let digest = self.parts.get(usize::try_from(part).ok()?)?;
        let first = part * PART;
        Some((digest, begin - first, (end - first).min(PART)))
    }
}

/// The request for a part of a file, within minutes: a GET of `url` with this `range` as its header
/// `Range`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Download {
    pub url: String,
    pub range: String,
    /// SHA-256 of the whole file, in hex.
    pub digest: String,
}

/// The URL is a credential, and is in no log.
impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").finish_non_exhaustive()
    }
}

/// The signed part of a session's request for the files of an earlier run.
///
/// * `run`: the session's own run, whose wish names the earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlierWanted {
    #[serde(deserialize_with = "bounds::key")]
    pub flow: String,
    pub generation: u32,
    /// The time of the request: an old request is not answered.
    pub at: Millis,
    #[serde(deserialize_with = "bounds::id")]
    pub run: String,
    #[serde(deserialize_with = "bounds::id")]
    pub earlier: String,
}

/// The answer to [`EarlierWanted`]: where the earlier run's files are to be read within minutes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GivenEarlier {
    /// The URL of the [`Index`].
    pub index: String,
    /// SHA-256 of the index, in hex.
    pub digest: String,
    /// The URL of each part, in order.
    pub parts: Vec<String>,
}

/// The URLs are credentials, and are in no log.
impl fmt::Debug for GivenEarlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenEarlier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_a_flow_a_run_and_a_digest_and_nothing_else_is_one() {
        let (flow, digest) = ("0f".repeat(16), "1e".repeat(32));
        let text = format!("s3://a-bucket/runs/{flow}/run-1/{digest}");
        let object = StoredObject::read(&text).unwrap();
        assert_eq!(object.to_string(), text);
        assert_eq!((object.flow.as_str(), object.run.as_str()), (flow.as_str(), "run-1"));
        for wrong in [
            format!("s3://a-bucket/flows/{flow}/{digest}"),
            format!("s3://a-bucket/runs/{flow}/../{digest}"),
            format!("s3://a-bucket/runs/{flow}/run-1/{digest}/x"),
            format!("s3://a@b/runs/{flow}/run-1/{digest}"),
            format!("s3://a-bucket/runs/{flow}/run-1/{}", digest.to_uppercase()),
        ] {
            assert_eq!(StoredObject::read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_is_read_part_by_part() {
        let file = |from, bytes| StoredFile {
            path: "f".into(),
            bytes,
            digest: String::new(),
            from,
        };
        let index = Index {
            files: Vec::new(),
            parts: ["a", "b", "c"].map(str::to_owned).to_vec(),
        };
        let long = file(PART - 10, PART + 30);
        assert_eq!(index.place(&long, 0), Some(("a", PART - 10, PART)));
        assert_eq!(index.place(&long, 10), Some(("b", 0, PART)));
        assert_eq!(index.place(&long, PART + 10), Some(("c", 0, 20)));
        assert_eq!(index.place(&long, PART + 29), Some(("c", 19, 20)));
        assert_eq!(index.place(&long, PART + 30), None);
        assert_eq!(index.place(&file(7, 0), 0), None);
        assert_eq!(index.place(&file(4 * PART, 1), 0), None, "no such part");
        assert_eq!(index.place(&file(u64::MAX, 1), 1), None);
    }
}
