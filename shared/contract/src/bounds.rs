//! Bounds of texts, checked while they are read, so that a message out of bounds never becomes a
//! value. The schemas have the same bounds.

use lifecycle::{Millis, network::Host};
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
    ops::RangeInclusive,
};

/// The pattern of an id; see [`id`].
pub(crate) const ID: &str = "^[A-Za-z0-9_-]{1,80}$";
/// The pattern of a flow's key; see [`key`].
pub(crate) const KEY: &str = "^[0-9a-f]{32}$";
/// The pattern of a SHA-256; see [`digest`].
pub(crate) const DIGEST: &str = "^[0-9a-f]{64}$";
/// A line without `#`, which separates the parts of a row's key.
pub(crate) const NAME: &str = r"^[^#\x00-\x1f\x7f]+$";
/// A line.
pub(crate) const LINE: &str = r"^[^\x00-\x1f\x7f]+$";
/// The name of an environment variable.
pub(crate) const VARIABLE: &str = r"^[^=\x00]+$";

/// A host, as far as a pattern says; see [`hosts`].
pub(crate) const HOST: &str = r"^[A-Za-z0-9_.*:/\[\]-]+$";
/// The most hosts that are named, and the most characters of one.
pub(crate) const MOST_HOSTS: usize = 100;
pub(crate) const LONGEST_HOST: usize = 300;

/// The most senders of messages that a workspace has users for.
pub(crate) const MOST_SENDERS: usize = 1000;

/// The most identities that a user may have sessions work with.
pub(crate) const MOST_IDENTITIES: usize = 100;

/// A word of a command line.
pub(crate) const WORD: &str = r"^[^\x00]*$";

/// The id of a command is bounded, and names no path and no key of another row.
pub fn is_good_id(id: &str) -> bool {
    (1..=80).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// An id is 1 to 80 characters of `A-Z a-z 0-9 - _`.
pub(crate) fn id<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let is_good = is_good_id(&text);
    if is_good {
        Ok(text)
    } else {
        Err(D::Error::custom("an id is 1 to 80 characters of A-Z a-z 0-9 - _"))
    }
}

/// The same, where there may be none.
pub(crate) fn some_id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(from)? {
        Some(text) if !is_good_id(&text) => Err(D::Error::custom("an id is 1 to 80 characters of A-Z a-z 0-9 - _")),
        text => Ok(text),
    }
}

/// A flow's key is 32 hex digits.
pub(crate) fn key<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if is_key(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom("a flow's key is 32 hex digits"))
    }
}

/// A digest, likewise, or none.
pub(crate) fn some_key<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(from)? {
        Some(text) if !is_key(&text) => Err(D::Error::custom("a digest is 32 hex digits")),
        text => Ok(text),
    }
}

/// A SHA-256 is 64 hex digits.
pub(crate) fn digest<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        Ok(text)
    } else {
        Err(D::Error::custom("a SHA-256 is 64 hex digits"))
    }
}

fn is_key(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A workspace or a user: up to 100 characters.
pub(crate) fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    check_length(String::deserialize(from)?, 100, false)
}

/// A lineage: up to 1000 characters.
pub(crate) fn line<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    check_length(String::deserialize(from)?, 1000, true)
}

/// A setting: up to 1000 characters.
pub(crate) fn setting<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(from)?
        .map(|text| check_length(text, 1000, false))
        .transpose()
}

/// The same, where there may be none: the folder `C#/flow` is a good one.
pub(crate) fn some_line<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(from)?
        .map(|text| check_length(text, 1000, true))
        .transpose()
}

/// Whether it is the name of a workspace or a user; see [`name`].
pub fn is_name(text: &str) -> bool {
    is_bounded(text, 100, false)
}

fn is_bounded(text: &str, most: usize, hash: bool) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c == '#' && !hash)
}

fn check_length<E: Error>(text: String, most: usize, hash: bool) -> Result<String, E> {
    if is_bounded(&text, most, hash) {
        return Ok(text);
    }
    let without = if hash { "" } else { ", without #" };
    Err(E::custom(format!(
        "it should be one line of 1 to {most} characters{without}"
    )))
}

/// Users by the ids of senders: at most [`MOST_SENDERS`].
pub(crate) fn senders<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let senders = BTreeMap::<String, String>::deserialize(from)?;
    if senders.len() > MOST_SENDERS {
        return Err(D::Error::custom(format!(
            "a workspace has users for at most {MOST_SENDERS} senders"
        )));
    }
    match senders.iter().find(|(sender, user)| !is_name(sender) || !is_name(user)) {
        Some((sender, _)) => Err(D::Error::custom(format!(
            "the sender {sender:?} and its user should each be one line of 1 to 100 characters, without #"
        ))),
        None => Ok(senders),
    }
}

const IDLE: RangeInclusive<u64> = 60..=86_400;

/// An idle time, in seconds: from 60 to 86400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u64")]
#[schemars(inline, extend("minimum" = IDLE.start(), "maximum" = IDLE.end()))]
pub struct IdleSeconds(u64);

impl TryFrom<u64> for IdleSeconds {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        if IDLE.contains(&seconds) {
            return Ok(Self(seconds));
        }
        let (least, most) = (IDLE.start(), IDLE.end());
        Err(format!("the idle time is from {least} to {most} seconds"))
    }
}

impl From<IdleSeconds> for Millis {
    fn from(idle: IdleSeconds) -> Self {
        idle.0 * 1000
    }
}

/// Hosts that may be reached: see [`lifecycle::network::Host`].
pub(crate) fn hosts<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let Some(hosts) = Option::<Vec<String>>::deserialize(from)? else {
        return Ok(None);
    };
    if hosts.len() > MOST_HOSTS {
        return Err(D::Error::custom(format!("at most {MOST_HOSTS} hosts are named")));
    }
    let hosts = hosts
        .iter()
        .map(|host| host.parse::<Host>().map(|host| host.to_string()));
    hosts.collect::<Result<_, _>>().map(Some).map_err(D::Error::custom)
}

/// Names of identities, each as a setting has one.
pub(crate) fn identities<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
    let names = BTreeSet::<String>::deserialize(from)?;
    if names.len() > MOST_IDENTITIES {
        return Err(D::Error::custom(format!(
            "a user has at most {MOST_IDENTITIES} identities"
        )));
    }
    names.into_iter().map(|name| check_length(name, 1000, false)).collect()
}

/// Environment variables: what the operating system takes.
pub(crate) fn variables<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let variables = BTreeMap::<String, String>::deserialize(from)?;
    let is_good = variables
        .iter()
        .all(|(name, value)| is_variable(name) && !value.contains('\0'));
    if is_good {
        Ok(variables)
    } else {
        Err(D::Error::custom(
            "an environment variable's name has no = and is not empty, and no NUL is in it or its value",
        ))
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// Names of environment variables, likewise.
pub(crate) fn variable_names<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
    let names = BTreeSet::<String>::deserialize(from)?;
    if names.iter().all(|name| is_variable(name)) {
        Ok(names)
    } else {
        Err(D::Error::custom(
            "an environment variable's name has no = and no NUL, and is not empty",
        ))
    }
}

/// A command line: what the operating system takes.
pub(crate) fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(from)?;
    if words.iter().any(|word| word.contains('\0')) {
        return Err(D::Error::custom("no NUL is in a word of a command"));
    }
    Ok(words)
}

/// A value that is an object and nothing else. A list of the fields in their order, which serde
/// takes as well, is refused.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Object::deserialize(from).map(|object| object.0)
}

/// [`object`], or nothing.
pub(crate) fn some_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(from)?.map(|object| object.0))
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, fields: M) -> Result<Object<T>, M::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}
