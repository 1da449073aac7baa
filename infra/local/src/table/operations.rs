//! The operations of DynamoDB that the functions use. A field that is not known here is refused.

use super::{
    apply::find,
    attribute::{self, Item},
    expression::{Condition, Path, Placeholders, Update},
    invalid,
    rows::{self, Page},
    shape::{Key, Shape},
};
use crate::wire::AwsError;
use rusqlite::Connection;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};

/// The most bytes of an item, of a page, of a batch that is read, and of a transaction.
const ITEM: usize = 400 * 1024;
const PAGE: usize = 1024 * 1024;
const BATCH: usize = 16 * 1024 * 1024;
const TRANSACTION: usize = 4 * 1024 * 1024;

/// The refusal of an operation.
#[derive(Debug)]
pub(super) enum Refusal {
    Error(AwsError),
    /// The code for each write of a transaction.
    Canceled(Vec<&'static str>),
}

impl From<AwsError> for Refusal {
    fn from(error: AwsError) -> Self {
        Self::Error(error)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(cause: rusqlite::Error) -> Self {
        Self::Error(cause.into())
    }
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, AwsError> {
    serde_json::from_slice(body).map_err(|cause| invalid(format!("This input cannot be read: {cause}.")))
}

pub(super) fn shape<'a>(shapes: &'a [Shape], name: &str) -> Result<&'a Shape, AwsError> {
    let found = shapes.iter().find(|shape| shape.name == name);
    found.ok_or_else(|| AwsError::new("ResourceNotFoundException", "Requested resource not found"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct WriteInput {
    table_name: String,
    item: Option<Item>,
    key: Option<Item>,
    update_expression: Option<String>,
    condition_expression: Option<String>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
    expression_attribute_values: Option<Item>,
    return_values: Option<String>,
}

/// One write: its item, its condition, and what becomes of the item.
struct Change<'a> {
    shape: &'a Shape,
    key: Key,
    condition: Option<Condition>,
    act: Act,
    returns: Returns,
}

enum Act {
    Put(Item),
    /// The key's attributes, for an item that is not there yet, and the update.
    Update(Item, Update),
    Delete,
    Check,
}

#[derive(Clone, Copy, PartialEq)]
enum Returns {
    Nothing,
    Before,
    After,
}

/// A change whose condition holds.
struct Done<'a> {
    shape: &'a Shape,
    key: Key,
    before: Option<Item>,
    /// The new item; none for a check.
    after: Option<Option<Item>>,
    returns: Returns,
}

enum Kind {
    Put,
    Update,
    Delete,
    Check,
}

/// A write, as a transaction names it.
#[derive(Deserialize)]
enum Write {
    Put(WriteInput),
    Update(WriteInput),
    Delete(WriteInput),
    ConditionCheck(WriteInput),
}

impl Write {
    fn into_parts(self) -> (Kind, WriteInput) {
        match self {
            Self::Put(input) => (Kind::Put, input),
            Self::Update(input) => (Kind::Update, input),
            Self::Delete(input) => (Kind::Delete, input),
            Self::ConditionCheck(input) => (Kind::Check, input),
        }
    }

    /// Checks the request, and says what it writes.
    fn change(self, shapes: &[Shape]) -> Result<Change<'_>, AwsError> {
        let (kind, input) = self.into_parts();
        let shape = shape(shapes, &input.table_name)?;
        let returns = match input.return_values.as_deref() {
            None | Some("NONE") => Returns::Nothing,
            Some("ALL_OLD") => Returns::Before,
            Some("ALL_NEW") => Returns::After,
            Some(other) => return Err(invalid(format!("ReturnValues {other} is not known here."))),
        };
        let mut given = Placeholders::new(input.expression_attribute_names, input.expression_attribute_values);
        let condition = input.condition_expression.map(|text| given.condition(&text));
        let condition = condition.transpose()?;
        let update = input.update_expression.map(|text| given.update(&text)).transpose()?;
        given.finish()?;
        let (key, act) = match (kind, input.item, input.key, update) {
            (Kind::Put, Some(item), None, None) => (shape.key_of(&item)?, Act::Put(item)),
            (Kind::Update, None, Some(key), Some(update)) => {
                check_paths(shape, &update)?;
                (shape.key(&key)?, Act::Update(key, update))
            }
            (Kind::Delete, None, Some(key), None) => (shape.key(&key)?, Act::Delete),
            (Kind::Check, None, Some(key), None) if condition.is_some() => (shape.key(&key)?, Act::Check),
            _ => return Err(invalid("A write lacks a field, or has one that is not its own.")),
        };
        Ok(Change {
            shape,
            key,
            condition,
            act,
            returns,
        })
    }
}

/// Refuses an update of a key, and paths of which one contains another.
fn check_paths(shape: &Shape, update: &Update) -> Result<(), AwsError> {
    let paths: Vec<&Path> = update.paths().collect();
    for (at, path) in paths.iter().enumerate() {
        if shape.keys.has(&path[0]) {
            return Err(invalid(format!(
                "Cannot update attribute {}. This attribute is part of the key",
                path[0]
            )));
        }
        if paths[..at]
            .iter()
            .any(|other| path.starts_with(other) || other.starts_with(path))
        {
            return Err(invalid(format!("Two document paths overlap at {}.", path.join("."))));
        }
    }
    Ok(())
}

impl<'a> Change<'a> {
    /// Reads the item, and makes of it what the write wants; none if the condition does not hold.
    fn decide(self, db: &Connection) -> Result<Option<Done<'a>>, AwsError> {
        let before = rows::get(db, self.shape, &self.key)?;
        let nothing = Item::new();
        let is = before.as_ref().unwrap_or(&nothing);
        if self.condition.as_ref().is_some_and(|condition| !condition.holds(is)) {
            return Ok(None);
        }
        let after = match self.act {
            Act::Put(item) => Some(Some(item)),
            Act::Update(key, update) => Some(Some(update.apply(before.as_ref().unwrap_or(&key))?)),
            Act::Delete => Some(None),
            Act::Check => None,
        };
        if let Some(Some(item)) = &after {
            if attribute::size(item) > ITEM {
                return Err(invalid("Item size has exceeded the maximum allowed size"));
            }
            self.shape.check_index_keys(item)?;
        }
        Ok(Some(Done {
            shape: self.shape,
            key: self.key,
            before,
            after,
            returns: self.returns,
        }))
    }
}

impl Done<'_> {
    fn size(&self) -> usize {
        self.after.iter().flatten().map(attribute::size).sum()
    }

    fn save(&self, db: &Connection) -> Result<(), AwsError> {
        match &self.after {
            Some(after) => rows::replace(db, self.shape, &self.key, self.before.as_ref(), after.as_ref()),
            None => Ok(()),
        }
    }

    fn answer(&self) -> Value {
        let attributes = match self.returns {
            Returns::Nothing => None,
            Returns::Before => self.before.as_ref(),
            Returns::After => self.after.iter().flatten().next(),
        };
        attributes.map_or_else(|| json!({}), |item| json!({ "Attributes": item }))
    }
}

/// Answers `PutItem`, `UpdateItem` and `DeleteItem`.
pub(super) fn write(db: &Connection, shapes: &[Shape], operation: &str, body: &[u8]) -> Result<Value, Refusal> {
    let input: WriteInput = read(body)?;
    let write = match operation {
        "PutItem" => Write::Put(input),
        "UpdateItem" => Write::Update(input),
        _ => Write::Delete(input),
    };
    let Some(done) = write.change(shapes)?.decide(db)? else {
        let failed = AwsError::new("ConditionalCheckFailedException", "The conditional request failed");
        return Err(failed.into());
    };
    done.save(db)?;
    Ok(done.answer())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Transaction {
    transact_items: Vec<Write>,
    pub(super) client_request_token: Option<String>,
}

impl Transaction {
    /// Does every write of the transaction, or none.
    pub(super) fn run(self, db: &Connection, shapes: &[Shape]) -> Result<Value, Refusal> {
        check_count(self.transact_items.len(), 100)?;
        let changes = self.transact_items.into_iter().map(|write| write.change(shapes));
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        check_distinct(changes.iter().map(|change| (change.shape.id, &change.key)))?;
        let (mut done, mut codes) = (Vec::new(), Vec::new());
        for change in changes {
            codes.push(match change.decide(db) {
                Ok(Some(decided)) => {
                    done.push(decided);
                    "None"
                }
                Ok(None) => "ConditionalCheckFailed",
                Err(error) if error.status.is_server_error() => return Err(error.into()),
                Err(_) => "ValidationError",
            });
        }
        if done.len() < codes.len() {
            return Err(Refusal::Canceled(codes));
        }
        if done.iter().map(Done::size).sum::<usize>() > TRANSACTION {
            return Err(invalid("Transaction request size exceeded the maximum allowed size").into());
        }
        done.iter().try_for_each(|done| done.save(db))?;
        Ok(json!({}))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct BatchWrite {
    request_items: BTreeMap<String, Vec<Request>>,
}

#[derive(Deserialize)]
enum Request {
    PutRequest {
        #[serde(rename = "Item")]
        item: Item,
    },
    DeleteRequest {
        #[serde(rename = "Key")]
        key: Item,
    },
}

/// Answers `BatchWriteItem`.
pub(super) fn batch_write(db: &Connection, shapes: &[Shape], body: &[u8]) -> Result<Value, Refusal> {
    let input: BatchWrite = read(body)?;
    check_count(input.request_items.values().map(Vec::len).sum(), 25)?;
    let mut changes = Vec::new();
    for (name, requests) in input.request_items {
        let shape = shape(shapes, &name)?;
        for request in requests {
            let (key, act) = match request {
                Request::PutRequest { item } => (shape.key_of(&item)?, Act::Put(item)),
                Request::DeleteRequest { key } => (shape.key(&key)?, Act::Delete),
            };
            changes.push(Change {
                shape,
                key,
                condition: None,
                act,
                returns: Returns::Nothing,
            });
        }
    }
    check_distinct(changes.iter().map(|change| (change.shape.id, &change.key)))?;
    for change in changes {
        if let Some(done) = change.decide(db)? {
            done.save(db)?;
        }
    }
    Ok(json!({ "UnprocessedItems": {} }))
}

fn check_count(count: usize, most: usize) -> Result<(), AwsError> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    Err(invalid(format!(
        "A request has {count} items; it may have 1 to {most}."
    )))
}

fn check_distinct<'k>(keys: impl Iterator<Item = (i64, &'k Key)>) -> Result<(), AwsError> {
    let mut seen = HashSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(invalid("A request names one item twice."));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GetInput {
    table_name: String,
    key: Item,
    #[serde(rename = "ConsistentRead")]
    _consistent_read: Option<bool>,
    projection_expression: Option<String>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
}

/// Answers `GetItem`. Every read is consistent.
pub(super) fn get(db: &Connection, shapes: &[Shape], body: &[u8]) -> Result<Value, Refusal> {
    let input: GetInput = read(body)?;
    let shape = shape(shapes, &input.table_name)?;
    let mut given = Placeholders::new(input.expression_attribute_names, None);
    let wanted = input
        .projection_expression
        .map(|text| given.projection(&text))
        .transpose()?;
    given.finish()?;
    let found = rows::get(db, shape, &shape.key(&input.key)?)?;
    Ok(found.map_or_else(|| json!({}), |item| json!({ "Item": project(item, wanted.as_deref()) })))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct BatchGet {
    request_items: BTreeMap<String, KeysOf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct KeysOf {
    keys: Vec<Item>,
    #[serde(rename = "ConsistentRead")]
    _consistent_read: Option<bool>,
    projection_expression: Option<String>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
}

/// Answers `BatchGetItem`. Keys that do not fit into the answer come back as unprocessed.
pub(super) fn batch_get(db: &Connection, shapes: &[Shape], body: &[u8]) -> Result<Value, Refusal> {
    let input: BatchGet = read(body)?;
    check_count(input.request_items.values().map(|of| of.keys.len()).sum(), 100)?;
    let (mut responses, mut unprocessed) = (json!({}), json!({}));
    let mut room = BATCH;
    for (name, of) in input.request_items {
        let shape = shape(shapes, &name)?;
        let mut given = Placeholders::new(of.expression_attribute_names, None);
        let wanted = of
            .projection_expression
            .map(|text| given.projection(&text))
            .transpose()?;
        given.finish()?;
        let keys = of
            .keys
            .iter()
            .map(|key| shape.key(key))
            .collect::<Result<Vec<_>, _>>()?;
        check_distinct(keys.iter().map(|key| (shape.id, key)))?;
        let (mut found, mut left) = (Vec::new(), Vec::new());
        for (key, given) in keys.iter().zip(&of.keys) {
            if room == 0 {
                left.push(given.clone());
            } else if let Some(item) = rows::get(db, shape, key)? {
                room = room.saturating_sub(attribute::size(&item));
                found.push(project(item, wanted.as_deref()));
            }
        }
        if !left.is_empty() {
            unprocessed[&name] = json!({ "Keys": left });
        }
        responses[name] = json!(found);
    }
    Ok(json!({ "Responses": responses, "UnprocessedKeys": unprocessed }))
}

fn project(item: Item, wanted: Option<&[Path]>) -> Item {
    let Some(wanted) = wanted else { return item };
    let names = wanted
        .iter()
        .filter_map(|path| Some((path[0].clone(), find(&item, path)?.clone())));
    names.collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct PageInput {
    pub(super) table_name: String,
    pub(super) index_name: Option<String>,
    pub(super) key_condition_expression: Option<String>,
    filter_expression: Option<String>,
    projection_expression: Option<String>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
    expression_attribute_values: Option<Item>,
    exclusive_start_key: Option<Item>,
    limit: Option<usize>,
    scan_index_forward: Option<bool>,
    pub(super) consistent_read: Option<bool>,
}

/// The items of a page so far.
pub(super) struct Reading {
    filter: Option<Condition>,
    wanted: Option<Vec<Path>>,
    most: usize,
    items: Vec<Item>,
    scanned: usize,
    bytes: usize,
    /// The last item, if more may follow it.
    last: Option<Item>,
}

impl PageInput {
    /// Checks the request: the page that it is for, its key condition, and the page's empty
    /// beginning.
    pub(super) fn begin(self, shape: &Shape) -> Result<(Page, Option<Condition>, Reading), AwsError> {
        let mut given = Placeholders::new(self.expression_attribute_names, self.expression_attribute_values);
        let key_condition = self.key_condition_expression.map(|text| given.condition(&text));
        let key_condition = key_condition.transpose()?;
        let filter = self.filter_expression.map(|text| given.condition(&text)).transpose()?;
        let wanted = self.projection_expression.map(|text| given.projection(&text));
        let wanted = wanted.transpose()?;
        given.finish()?;
        if self.limit == Some(0) {
            return Err(invalid("Limit must be at least 1."));
        }
        let index = self.index_name.as_deref().map(|name| shape.index(name)).transpose()?;
        let place = |start: &Item| {
            let place = index.map(|index| index.keys.of(start).ok_or(())).transpose();
            match (shape.keys.of(start), place) {
                (Some(key), Ok(place)) => Ok((key, place)),
                _ => Err(invalid("The provided starting key is invalid")),
            }
        };
        let page = Page {
            forward: self.scan_index_forward.unwrap_or(true),
            after: self.exclusive_start_key.as_ref().map(place).transpose()?,
            most: self.limit.unwrap_or(u32::MAX as usize).min(u32::MAX as usize),
        };
        let reading = Reading {
            filter,
            wanted,
            most: page.most,
            items: Vec::new(),
            scanned: 0,
            bytes: 0,
            last: None,
        };
        Ok((page, key_condition, reading))
    }
}

impl Reading {
    /// Takes an item into the page. Returns whether the page has room for another.
    pub(super) fn take(&mut self, item: Item) -> bool {
        self.scanned += 1;
        self.bytes += attribute::size(&item);
        let has_room = self.bytes < PAGE && self.scanned < self.most;
        if !has_room {
            self.last = Some(item.clone());
        }
        if self.filter.as_ref().is_none_or(|filter| filter.holds(&item)) {
            self.items.push(project(item, self.wanted.as_deref()));
        }
        has_room
    }

    /// Returns the answer. The next page's place has the keys of the table and of the index.
    pub(super) fn answer(self, is_key: impl Fn(&str) -> bool) -> Value {
        let mut answer = json!({ "Count": self.items.len(), "ScannedCount": self.scanned, "Items": self.items });
        if let Some(last) = self.last {
            let place: Item = last.into_iter().filter(|(name, _)| is_key(name)).collect();
            answer["LastEvaluatedKey"] = json!(place);
        }
        answer
    }
}
