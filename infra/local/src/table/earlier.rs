//! The rows of a table file that an earlier version wrote with `dynoxide-rs`.

use super::{attribute::Item, rows, shape::Shape};
use crate::wire::AwsError;
use rusqlite::Connection;

/// Moves the rows of an earlier version's file into this version's tables, and removes its tables.
///
/// # Errors
///
/// Final: a row cannot be read. The file stays as it was.
pub(super) fn adopt(db: &Connection, shapes: &[Shape]) -> Result<(), AwsError> {
    if !db.table_exists(None, "_tables")? {
        return Ok(());
    }
    for shape in shapes
        .iter()
        .filter(|shape| db.table_exists(None, shape.name.as_str()).unwrap_or(false))
    {
        let mut all = db.prepare(&format!("SELECT item_json FROM {}", quoted(&shape.name)))?;
        for body in all.query_map([], |row| row.get::<_, String>(0))? {
            let item: Item = serde_json::from_str(&body?)
                .map_err(|cause| super::internal(&format!("A row of an earlier version cannot be read: {cause}.")))?;
            rows::replace(db, shape, &shape.key_of(&item)?, None, Some(&item))?;
        }
        tracing::info!(table = shape.name, "the rows of an earlier version are taken over");
    }
    let mut names = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
    let names = names
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    for name in names
        .iter()
        .filter(|name| !["shape", "item", "entry"].contains(&name.as_str()))
    {
        db.execute_batch(&format!("DROP TABLE {}", quoted(name)))?;
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
