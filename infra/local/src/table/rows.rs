//! The table's file: an item is one row, and has one entry for each index that it is in.

use super::{
    attribute::{Attribute, Item},
    shape::{Index, Key, Keys, Part, Shape},
};
use crate::wire::AwsError;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS shape (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, indexes TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS item (
    id INTEGER PRIMARY KEY, shape INTEGER NOT NULL, hash NOT NULL, sort NOT NULL, body TEXT NOT NULL, expires INTEGER,
    UNIQUE (shape, hash, sort));
CREATE INDEX IF NOT EXISTS item_expires ON item (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS entry (
    shape INTEGER NOT NULL, name TEXT NOT NULL, hash NOT NULL, sort NOT NULL, item_hash NOT NULL, item_sort NOT NULL,
    PRIMARY KEY (shape, name, hash, sort, item_hash, item_sort)) WITHOUT ROWID;
";

/// Gives a table its number, and builds the entries of its items anew if its indexes have changed.
pub(super) fn adopt(db: &Connection, shape: &mut Shape) -> Result<(), AwsError> {
    let indexes = format!("{:?}", shape.indexes);
    let known: Option<(i64, String)> = db
        .query_row("SELECT id, indexes FROM shape WHERE name = ?1", [&shape.name], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some((id, before)) = known {
        shape.id = id;
        if before != indexes {
            db.execute("UPDATE shape SET indexes = ?2 WHERE id = ?1", params![id, indexes])?;
            db.execute("DELETE FROM entry WHERE shape = ?1", [id])?;
            let mut all = db.prepare("SELECT body FROM item WHERE shape = ?1")?;
            for body in all.query_map([id], |row| row.get::<_, String>(0))? {
                let item = read_item(&body?)?;
                if let Some(key) = shape.keys.of(&item) {
                    enter(db, shape, &key, None, Some(&item))?;
                }
            }
        }
        return Ok(());
    }
    db.execute(
        "INSERT INTO shape (name, indexes) VALUES (?1, ?2)",
        params![shape.name, indexes],
    )?;
    shape.id = db.last_insert_rowid();
    Ok(())
}

pub(super) fn get(db: &Connection, shape: &Shape, key: &Key) -> Result<Option<Item>, AwsError> {
    let body: Option<String> = db
        .prepare_cached("SELECT body FROM item WHERE shape = ?1 AND hash = ?2 AND sort = ?3")?
        .query_row(params![shape.id, key.hash, key.sort], |row| row.get(0))
        .optional()?;
    body.map(|body| read_item(&body)).transpose()
}

/// Writes an item, or removes it, over what was there.
pub(super) fn replace(
    db: &Connection,
    shape: &Shape,
    key: &Key,
    before: Option<&Item>,
    after: Option<&Item>,
) -> Result<(), AwsError> {
    match after {
        Some(item) => {
            let body = serde_json::to_string(item).expect("an item is JSON");
            let expires = shape.expiry(item);
            db.prepare_cached(
                "INSERT INTO item (shape, hash, sort, body, expires) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET body = excluded.body, expires = excluded.expires",
            )?
            .execute(params![shape.id, key.hash, key.sort, body, expires])?;
        }
        None => {
            db.prepare_cached("DELETE FROM item WHERE shape = ?1 AND hash = ?2 AND sort = ?3")?
                .execute(params![shape.id, key.hash, key.sort])?;
        }
    }
    enter(db, shape, key, before, after)
}

/// Changes the entries of an item.
fn enter(
    db: &Connection,
    shape: &Shape,
    key: &Key,
    before: Option<&Item>,
    after: Option<&Item>,
) -> Result<(), AwsError> {
    for index in &shape.indexes {
        let (was, is) = (
            before.and_then(|item| index.keys.of(item)),
            after.and_then(|item| index.keys.of(item)),
        );
        if was == is {
            continue;
        }
        if let Some(was) = was {
            db.prepare_cached(
                "DELETE FROM entry
                 WHERE shape = ?1 AND name = ?2 AND hash = ?3 AND sort = ?4 AND item_hash = ?5 AND item_sort = ?6",
            )?
            .execute(params![shape.id, index.name, was.hash, was.sort, key.hash, key.sort])?;
        }
        if let Some(is) = is {
            db.prepare_cached("INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![shape.id, index.name, is.hash, is.sort, key.hash, key.sort])?;
        }
    }
    Ok(())
}

/// The sort keys that a query wants.
#[derive(Debug, PartialEq)]
pub(super) enum Range {
    All,
    Compare(&'static str, Part),
    Between(Part, Part),
    Prefix(String),
}

impl Range {
    /// Returns the condition on the column `sort`, with its parameters.
    fn sql(&self) -> (String, Vec<Part>) {
        match self {
            Self::All => (String::new(), Vec::new()),
            Self::Compare(sign, part) => (format!(" AND sort {sign} ?"), vec![part.clone()]),
            Self::Between(low, high) => (" AND sort BETWEEN ? AND ?".to_owned(), vec![low.clone(), high.clone()]),
            Self::Prefix(start) => (
                " AND sort >= ? AND sort < ?".to_owned(),
                vec![Part::Text(start.clone()), Part::Text(format!("{start}{}", char::MAX))],
            ),
        }
    }
}

/// A page's place and direction.
pub(super) struct Page {
    pub(super) forward: bool,
    /// The place behind which it begins: the item's key, and its key in the index.
    pub(super) after: Option<(Key, Option<Key>)>,
    /// The most items.
    pub(super) most: usize,
}

/// Calls `take` for each item of a partition in its order, until it returns false.
pub(super) fn query(
    db: &Connection,
    shape: &Shape,
    (hash, range): (&Part, &Range),
    page: &Page,
    take: impl FnMut(Item) -> bool,
) -> Result<(), AwsError> {
    let (condition, parts) = range.sql();
    let mut parameters: Vec<&dyn ToSql> = vec![&shape.id, hash];
    parameters.extend(parts.iter().map(|part| part as &dyn ToSql));
    let (beyond, order) = if page.forward { (">", "ASC") } else { ("<", "DESC") };
    let mut after = String::new();
    if let Some((key, _)) = &page.after {
        after = format!(" AND sort {beyond} ?");
        parameters.push(&key.sort);
    }
    let sql = format!(
        "SELECT body FROM item WHERE shape = ? AND hash = ?{condition}{after} ORDER BY sort {order} LIMIT {}",
        page.most
    );
    each(db, &sql, &parameters, read_body, take)
}

/// Calls `take` for the keys of each item of an index's partition in its order, until it returns
/// false.
pub(super) fn query_index(
    db: &Connection,
    (shape, index): (&Shape, &Index),
    (hash, range): (&Part, &Range),
    page: &Page,
    take: impl FnMut(Item) -> bool,
) -> Result<(), AwsError> {
    let (condition, parts) = range.sql();
    let mut parameters: Vec<&dyn ToSql> = vec![&shape.id, &index.name, hash];
    parameters.extend(parts.iter().map(|part| part as &dyn ToSql));
    let (beyond, order) = if page.forward { (">", "ASC") } else { ("<", "DESC") };
    let mut after = String::new();
    if let Some((key, Some(place))) = &page.after {
        after = format!(" AND (sort, item_hash, item_sort) {beyond} (?, ?, ?)");
        parameters.extend([&place.sort as &dyn ToSql, &key.hash, &key.sort]);
    }
    let sql = format!(
        "SELECT hash, sort, item_hash, item_sort FROM entry WHERE shape = ? AND name = ? AND hash = ?{condition}{after}
         ORDER BY sort {order}, item_hash {order}, item_sort {order} LIMIT {}",
        page.most
    );
    let read = |row: &Row<'_>| {
        let mut item = Item::new();
        put_key(row, 0, &index.keys, &mut item)?;
        put_key(row, 2, &shape.keys, &mut item)?;
        Ok(item)
    };
    each(db, &sql, &parameters, read, take)
}

/// Calls `take` for the item that `read` makes of each row, until it returns false.
fn each(
    db: &Connection,
    sql: &str,
    parameters: &[&dyn ToSql],
    read: impl Fn(&Row<'_>) -> Result<Item, AwsError>,
    mut take: impl FnMut(Item) -> bool,
) -> Result<(), AwsError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    while let Some(row) = rows.next()? {
        if !take(read(row)?) {
            break;
        }
    }
    Ok(())
}

fn read_body(row: &Row<'_>) -> Result<Item, AwsError> {
    read_item(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)
}

fn put_key(row: &Row<'_>, from: usize, keys: &Keys, item: &mut Item) -> Result<(), AwsError> {
    let (hash, sort) = (row.get(from)?, row.get(from + 1)?);
    keys.write(Key { hash, sort }, item);
    Ok(())
}

/// Calls `take` for each item of a table in the order of its keys, until it returns false.
pub(super) fn scan(
    db: &Connection,
    shape: &Shape,
    page: &Page,
    take: impl FnMut(Item) -> bool,
) -> Result<(), AwsError> {
    let mut parameters: Vec<&dyn ToSql> = vec![&shape.id];
    let mut after = "";
    if let Some((key, _)) = &page.after {
        after = " AND (hash, sort) > (?, ?)";
        parameters.extend([&key.hash as &dyn ToSql, &key.sort]);
    }
    let sql = format!(
        "SELECT body FROM item WHERE shape = ?{after} ORDER BY hash, sort LIMIT {}",
        page.most
    );
    each(db, &sql, &parameters, read_body, take)
}

/// Removes at most `most` items that have expired. Returns how many.
pub(super) fn remove_expired(db: &Connection, shapes: &[Shape], now: i64, most: usize) -> Result<usize, AwsError> {
    let mut expired = db.prepare_cached("SELECT shape, body FROM item WHERE expires <= ?1 LIMIT ?2")?;
    let found = expired
        .query_map(params![now, most], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, String)>, _>>()?;
    let mut removed = 0;
    for (id, body) in &found {
        let item = read_item(body)?;
        let shape = shapes.iter().find(|shape| shape.id == *id);
        if let Some((shape, key)) = shape.and_then(|shape| Some((shape, shape.keys.of(&item)?))) {
            replace(db, shape, &key, Some(&item), None)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Reads a row's item. A row that cannot be read is an error and never an empty item.
fn read_item(body: &str) -> Result<Item, AwsError> {
    serde_json::from_str::<std::collections::BTreeMap<String, Attribute>>(body).map_err(|cause| {
        tracing::error!(fault = "Table", cause = %cause, "a row of the table cannot be read");
        super::internal("A row of the table cannot be read.")
    })
}
