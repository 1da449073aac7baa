//! The writes of a transaction.

use crate::{
    Aws,
    items::{self, Item, json, number},
};
use aws_sdk_dynamodb::{
    error::SdkError,
    operation::transact_write_items::TransactWriteItemsError,
    types::{AttributeValue, Delete, Put, TransactWriteItem, Update, builders::PutBuilder},
};
use contract::{Millis, row::NAME_KEPT};
use lifecycle::quota::Usage;
use serde::Serialize;
use shell::{EVERYBODY, Fault, Write};

impl Aws {
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of row")]
    pub(super) fn transact(&self, write: Write, now: Millis) -> TransactWriteItem {
        match write {
            Write::Session { row, read, due } => {
                let item = items::session_item(&row, due);
                put_item(at_revision(self.put(item), (read != 0).then_some(read)))
            }
            Write::Log { flow, entry } => put_item(self.put(with_body(items::log_key(&flow, entry.revision), &entry))),
            Write::NewOperation(row) => put_item(at_revision(
                self.put(with_body(items::operation_key(&row.id), &row)),
                None,
            )),
            Write::NewRun(row) => {
                let put = self
                    .put(with_body(items::run_key(&row.id), &row))
                    .condition_expression("attribute_not_exists(pk) OR deleted < :t")
                    .expression_attribute_values(":t", number(now.saturating_sub(NAME_KEPT)));
                put_item(put)
            }
            Write::EndOperation { operation, end } => self.end(items::operation_key(&operation), json(&end)),
            Write::EndRun { run, end } => self.end(items::run_key(&run), json(&end)),
            Write::Compute { compute, read } => {
                let mut item = with_body(items::compute_key(&compute.id), &compute);
                item.insert("revision".to_owned(), number(compute.revision));
                items::due(&mut item, &compute.id, compute.due);
                put_item(at_revision(self.put(item), read))
            }
            Write::Slot { slot, compute, was } => {
                let put = self.put(with_body(items::slot_key(&slot), &compute));
                put_item(match was {
                    None => at_revision(put, None),
                    Some(was) => put
                        .condition_expression("#b = :w")
                        .expression_attribute_names("#b", "body")
                        .expression_attribute_values(":w", json(&was)),
                })
            }
            Write::Usage { workspace, user, usage } => {
                let mut item = with_body(items::quota_key(&workspace, &user), &usage);
                item.insert("revision".to_owned(), number(usage.revision));
                items::due(&mut item, &format!("{workspace}#{user}"), due_of(&usage, &user, now));
                let put = self.put(item);
                put_item(match usage.revision.saturating_sub(1) {
                    // A row of an earlier version has none.
                    0 => put.condition_expression("attribute_not_exists(revision)"),
                    read => at_revision(put, Some(read)),
                })
            }
            Write::Instance(row) => {
                let mut item = items::instance_key(&row.workspace, &row.owner, &row.name);
                item.insert("body".to_owned(), json(&row));
                item.insert("revision".to_owned(), number(row.revision));
                let put = self.put(item);
                put_item(match row.revision.saturating_sub(1) {
                    0 => put.condition_expression("attribute_not_exists(pk)"),
                    read => put
                        .condition_expression("revision = :r")
                        .expression_attribute_values(":r", number(read)),
                })
            }
            Write::ForgetInstance(row) => {
                let forget = Delete::builder()
                    .table_name(&self.table)
                    .set_key(Some(items::instance_key(&row.workspace, &row.owner, &row.name)))
                    .condition_expression("revision = :r")
                    .expression_attribute_values(":r", number(row.revision));
                let forget = forget.build().expect("a delete has a table and a key");
                TransactWriteItem::builder().delete(forget).build()
            }
            Write::Packages { flow, row, read } => {
                let mut item = with_body(items::packages_key(&flow), &row);
                item.insert("revision".to_owned(), number(row.number));
                put_item(at_revision(self.put(item), read))
            }
            Write::NewInstall { flow, entry } => {
                put_item(self.put(with_body(items::install_key(&flow, entry.packages.number), &entry)))
            }
            Write::ForgetInstall { flow, number } => {
                let forget = Delete::builder()
                    .table_name(&self.table)
                    .set_key(Some(items::install_key(&flow, number)));
                let forget = forget.build().expect("a delete has a table and a key");
                TransactWriteItem::builder().delete(forget).build()
            }
        }
    }

    /// Writes how an operation or a run ended into its row.
    pub(super) fn end(&self, key: Item, end: AttributeValue) -> TransactWriteItem {
        update_item(
            self.update(key)
                .update_expression("SET #e = :e")
                .expression_attribute_names("#e", "end")
                .expression_attribute_values(":e", end),
        )
    }

    pub(super) fn put(&self, item: Item) -> PutBuilder {
        Put::builder().table_name(&self.table).set_item(Some(item))
    }

    pub(super) fn update(&self, key: Item) -> aws_sdk_dynamodb::types::builders::UpdateBuilder {
        Update::builder().table_name(&self.table).set_key(Some(key))
    }
}

/// A row's key with its content.
pub(super) fn with_body(mut key: Item, body: &impl Serialize) -> Item {
    key.insert("body".to_owned(), json(body));
    key
}

/// Writes the row only if it has the revision that was read; `None`: only if there is none.
pub(super) fn at_revision(put: PutBuilder, read: Option<u64>) -> PutBuilder {
    match read {
        None => put.condition_expression("attribute_not_exists(pk)"),
        Some(read) => put
            .condition_expression("revision = :r")
            .expression_attribute_values(":r", number(read)),
    }
}

pub(super) fn put_item(put: PutBuilder) -> TransactWriteItem {
    TransactWriteItem::builder()
        .put(put.build().expect("a put has a table and an item"))
        .build()
}

pub(super) fn update_item(update: aws_sdk_dynamodb::types::builders::UpdateBuilder) -> TransactWriteItem {
    TransactWriteItem::builder()
        .update(update.build().expect("an update has a table, a key and an expression"))
        .build()
}

/// The time of the next sweep of a usage. That of all users counts nothing by itself.
fn due_of(usage: &Usage, user: &str, now: Millis) -> Option<Millis> {
    usage.due_at(now).filter(|_| user != EVERYBODY)
}

/// The user whom a write may give their first session.
pub(super) fn new_user(write: &Write) -> Option<(&str, &str)> {
    match write {
        Write::Session { row, read: 0, .. } => Some((&row.flow.workspace, &row.flow.owner)),
        // A session of an earlier version has its row, and its user may have no place in the list.
        Write::Usage { workspace, user, .. } if user != EVERYBODY => Some((workspace, user)),
        Write::Instance(row) => Some((&row.workspace, &row.owner)),
        _ => None,
    }
}

/// Maps a failed transaction to a fault.
pub(super) fn fault_of_transaction(error: SdkError<TransactWriteItemsError>) -> Fault {
    let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) = error.as_service_error() else {
        return Fault::outside("saving")(error.into());
    };
    let is_conflict = |code: Option<&str>| matches!(code, Some("ConditionalCheckFailed" | "TransactionConflict"));
    if canceled
        .cancellation_reasons()
        .iter()
        .any(|reason| is_conflict(reason.code()))
    {
        Fault::Conflict
    } else {
        Fault::outside("saving")(error.into())
    }
}
