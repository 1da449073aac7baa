//! Tables and indexes as the template declares them.

use super::{
    attribute::{Attribute, Item, Number},
    invalid,
};
use crate::wire::AwsError;
use anyhow::{Context, bail};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::Deserialize;
use serde_json::Value;

/// The most bytes of a partition key, and of a sort key.
const LONGEST_KEY: (usize, usize) = (2048, 1024);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum KeyType {
    Text,
    Number,
}

/// One part of a key, as SQLite keeps it. It orders both types as DynamoDB does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Text(String),
    Number(i64),
}

impl Part {
    /// The sort key of a table that has none. DynamoDB takes no empty text as a key.
    pub(super) const NONE: Self = Self::Text(String::new());

    fn of(value: &Attribute, wanted: KeyType) -> Option<Self> {
        match (value, wanted) {
            (Attribute::S(text), KeyType::Text) if !text.is_empty() => Some(Self::Text(text.clone())),
            (Attribute::N(number), KeyType::Number) => i64::try_from(number.get()).ok().map(Self::Number),
            _ => None,
        }
    }

    pub(super) fn attribute(self) -> Attribute {
        match self {
            Self::Text(text) => Attribute::S(text),
            Self::Number(number) => Attribute::N(Number::new(number.into()).expect("it has at most 19 digits")),
        }
    }
}

impl ToSql for Part {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Number(number) => number.to_sql(),
        }
    }
}

impl FromSql for Part {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Text(_) => value.as_str().map(|text| Self::Text(text.to_owned())),
            ValueRef::Integer(number) => Ok(Self::Number(number)),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// The key of an item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) hash: Part,
    pub(super) sort: Part,
}

/// The attributes that make a key.
#[derive(Debug)]
pub(super) struct Keys {
    hash: (String, KeyType),
    sort: Option<(String, KeyType)>,
}

impl Keys {
    pub(super) fn hash(&self) -> &str {
        &self.hash.0
    }

    pub(super) fn sort(&self) -> Option<&str> {
        self.sort.as_ref().map(|(name, _)| name.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.hash() == name || self.sort() == Some(name)
    }

    /// Returns the key of an item; none if it lacks a part of it, or has another type there.
    pub(super) fn of(&self, item: &Item) -> Option<Key> {
        let part = |(name, wanted): &(String, KeyType)| Part::of(item.get(name)?, *wanted);
        Some(Key {
            hash: part(&self.hash)?,
            sort: self.sort.as_ref().map_or(Some(Part::NONE), part)?,
        })
    }

    /// Returns the part that a value is, for the condition of a query.
    pub(super) fn part(&self, name: &str, value: &Attribute) -> Result<Part, AwsError> {
        let named = [Some(&self.hash), self.sort.as_ref()]
            .into_iter()
            .flatten()
            .find(|(own, _)| own == name);
        named
            .and_then(|(_, wanted)| Part::of(value, *wanted))
            .ok_or_else(|| invalid(format!("{name} is no key here, or the value has another type.")))
    }

    /// Puts a key's attributes into an item.
    pub(super) fn write(&self, key: Key, item: &mut Item) {
        item.insert(self.hash.0.clone(), key.hash.attribute());
        if let Some((name, _)) = &self.sort {
            item.insert(name.clone(), key.sort.attribute());
        }
    }
}

/// A global secondary index that projects the keys.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) name: String,
    pub(super) keys: Keys,
}

/// A table: its name, its keys and its indexes.
#[derive(Debug)]
pub(super) struct Shape {
    /// The number that the file knows it by.
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) keys: Keys,
    pub(super) indexes: Vec<Index>,
    /// The attribute with the time, in seconds, at which an item expires.
    pub(super) expires: Option<String>,
}

impl Shape {
    /// Reads the input of `CreateTable`.
    ///
    /// # Errors
    ///
    /// Final: the template has a table that this host cannot keep.
    pub(super) fn read(create: &Value, expires: Option<&str>) -> anyhow::Result<Self> {
        let Create {
            name,
            attributes,
            keys,
            indexes,
            _billing: _,
        } = Create::deserialize(create).context("a table of the template cannot be read")?;
        let indexes = indexes.unwrap_or_default().into_iter().map(|index| {
            if index.projection.kind != "KEYS_ONLY" {
                bail!(
                    "the index {} projects {}; this host knows KEYS_ONLY",
                    index.name,
                    index.projection.kind
                );
            }
            Ok(Index {
                keys: read_keys(&index.keys, &attributes)?,
                name: index.name,
            })
        });
        Ok(Self {
            id: 0,
            keys: read_keys(&keys, &attributes)?,
            indexes: indexes.collect::<anyhow::Result<_>>()?,
            name,
            expires: expires.map(str::to_owned),
        })
    }

    /// Returns the key that a request names, and nothing else.
    pub(super) fn key(&self, given: &Item) -> Result<Key, AwsError> {
        let parts = 1 + usize::from(self.keys.sort.is_some());
        if given.len() != parts {
            return Err(invalid("The provided key element does not match the schema"));
        }
        self.key_of(given)
    }

    /// Returns the key of an item that a request writes.
    pub(super) fn key_of(&self, item: &Item) -> Result<Key, AwsError> {
        let key = self.keys.of(item).ok_or_else(|| {
            invalid("One or more parameter values were invalid: a key is missing, empty or of another type")
        })?;
        let is_long = |part: &Part, most| matches!(part, Part::Text(text) if text.len() > most);
        if is_long(&key.hash, LONGEST_KEY.0) || is_long(&key.sort, LONGEST_KEY.1) {
            return Err(invalid(
                "One or more parameter values were invalid: a key is too long".to_owned(),
            ));
        }
        Ok(key)
    }

    pub(super) fn index(&self, name: &str) -> Result<&Index, AwsError> {
        let found = self.indexes.iter().find(|index| index.name == name);
        found.ok_or_else(|| invalid(format!("The table does not have the specified index: {name}")))
    }

    /// Refuses an item that has a value of another type where an index has its key.
    pub(super) fn check_index_keys(&self, item: &Item) -> Result<(), AwsError> {
        let parts = self
            .indexes
            .iter()
            .flat_map(|index| [Some(&index.keys.hash), index.keys.sort.as_ref()]);
        for (name, wanted) in parts.flatten() {
            if item.get(name).is_some_and(|value| Part::of(value, *wanted).is_none()) {
                return Err(invalid(format!("Type mismatch for Index Key {name}")));
            }
        }
        Ok(())
    }

    /// Returns when an item expires, in seconds since the Unix epoch.
    pub(super) fn expiry(&self, item: &Item) -> Option<i64> {
        match item.get(self.expires.as_ref()?)? {
            Attribute::N(at) => i64::try_from(at.get()).ok(),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    #[serde(rename = "TableName")]
    name: String,
    #[serde(rename = "AttributeDefinitions")]
    attributes: Vec<Definition>,
    #[serde(rename = "KeySchema")]
    keys: Vec<Element>,
    #[serde(rename = "GlobalSecondaryIndexes")]
    indexes: Option<Vec<Secondary>>,
    #[serde(rename = "BillingMode")]
    _billing: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    #[serde(rename = "AttributeName")]
    name: String,
    #[serde(rename = "AttributeType")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Element {
    #[serde(rename = "AttributeName")]
    name: String,
    #[serde(rename = "KeyType")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secondary {
    #[serde(rename = "IndexName")]
    name: String,
    #[serde(rename = "KeySchema")]
    keys: Vec<Element>,
    #[serde(rename = "Projection")]
    projection: Projection,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Projection {
    #[serde(rename = "ProjectionType")]
    kind: String,
}

fn read_keys(keys: &[Element], attributes: &[Definition]) -> anyhow::Result<Keys> {
    let part = |kind: &str| {
        let Some(element) = keys.iter().find(|element| element.kind == kind) else {
            return Ok(None);
        };
        let defined = attributes.iter().find(|attribute| attribute.name == element.name);
        match defined.map(|attribute| attribute.kind.as_str()) {
            Some("S") => Ok(Some((element.name.clone(), KeyType::Text))),
            Some("N") => Ok(Some((element.name.clone(), KeyType::Number))),
            _ => bail!("the key {} is neither text nor a number", element.name),
        }
    };
    Ok(Keys {
        hash: part("HASH")?.context("a key has no HASH")?,
        sort: part("RANGE")?,
    })
}
