//! Attribute values, in the JSON form of DynamoDB's protocol.
//!
//! Binary values and numbers with a fraction are refused: no row has one.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

/// An item: its attributes by name.
pub(super) type Item = BTreeMap<String, Attribute>;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Attribute {
    S(String),
    N(Number),
    #[serde(rename = "BOOL")]
    Bool(bool),
    #[serde(rename = "NULL")]
    Null(bool),
    M(Item),
    L(Vec<Attribute>),
    #[serde(rename = "SS")]
    Texts(BTreeSet<String>),
    #[serde(rename = "NS")]
    Numbers(BTreeSet<Number>),
}

impl Attribute {
    /// Compares two values of one type that has an order.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::S(one), Self::S(two)) => Some(one.as_bytes().cmp(two.as_bytes())),
            (Self::N(one), Self::N(two)) => Some(one.cmp(two)),
            _ => None,
        }
    }

    /// Returns the size in bytes that counts for DynamoDB's limits.
    ///
    /// # Source
    ///
    /// Amazon DynamoDB Developer Guide, *DynamoDB item sizes and formats*.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::S(text) => text.len(),
            Self::N(number) => number.size(),
            Self::Bool(_) | Self::Null(_) => 1,
            Self::M(item) => 3 + item.len() + size(item),
            Self::L(list) => 3 + list.iter().map(|value| 1 + value.size()).sum::<usize>(),
            Self::Texts(set) => set.iter().map(String::len).sum(),
            Self::Numbers(set) => set.iter().map(Number::size).sum(),
        }
    }

    /// Returns what the function `size` of an expression returns; none for a type without a size.
    pub(super) fn count(&self) -> Option<usize> {
        match self {
            Self::S(text) => Some(text.len()),
            Self::M(item) => Some(item.len()),
            Self::L(list) => Some(list.len()),
            Self::Texts(set) => Some(set.len()),
            Self::Numbers(set) => Some(set.len()),
            Self::N(_) | Self::Bool(_) | Self::Null(_) => None,
        }
    }
}

/// Returns an item's size in bytes.
pub(super) fn size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value.size()).sum()
}

/// A whole number of at most 38 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(i128);

impl Number {
    const MOST: i128 = 10i128.pow(38) - 1;

    /// Returns the number; none if it has more than 38 digits.
    pub(super) fn new(value: i128) -> Option<Self> {
        (-Self::MOST..=Self::MOST).contains(&value).then_some(Self(value))
    }

    pub(super) fn get(self) -> i128 {
        self.0
    }

    fn size(&self) -> usize {
        self.0.to_string().trim_start_matches('-').len().div_ceil(2) + 1
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = text.parse().ok().and_then(Self::new);
        value.ok_or_else(|| D::Error::custom(format_args!("`{text}` is not a whole number of at most 38 digits")))
    }
}
