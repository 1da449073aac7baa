//! The table: DynamoDB's JSON protocol, as far as the functions use it, over an SQLite file.
//!
//! An operation is one transaction of SQLite. It is there after `kill -9` once its sender was
//! answered.

mod apply;
mod attribute;
mod earlier;
mod expression;
mod operations;
mod pages;
mod rows;
mod shape;
#[cfg(test)]
mod tests;

use crate::{
    access::Caller,
    store::Store,
    wire::{AwsError, respond},
};
use anyhow::{Context, anyhow};
use axum::{
    body::{Body, Bytes},
    http::{Response, StatusCode},
};
use operations::{Refusal, Transaction};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shape::Shape;
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, PoisonError},
};

const JSON: &str = "application/x-amz-json-1.0";
/// The most items that one look for expired ones removes while others wait.
const EXPIRED_AT_ONCE: usize = 100;
/// The most transactions that are remembered by their token. A client repeats one within seconds.
const TOKENS: usize = 1000;

/// The table.
pub(crate) struct Table {
    store: Store,
    shapes: Vec<Shape>,
    /// The tokens of the latest transactions, each with the digest of its request.
    done: Mutex<VecDeque<(String, [u8; 32])>>,
}

impl Table {
    /// Opens the file, and makes the tables that are not there.
    ///
    /// * `tables`: inputs of `CreateTable`, each with the attribute that says when an item expires.
    ///
    /// # Errors
    ///
    /// Final: the file cannot be opened or read, or the template has a table that this host cannot
    /// keep.
    pub(crate) fn open(file: &Path, tables: &[(Value, Option<String>)]) -> anyhow::Result<Self> {
        let store = Store::open(file, rows::TABLES).with_context(|| format!("{} cannot be opened", file.display()))?;
        let shapes = tables
            .iter()
            .map(|(create, expires)| Shape::read(create, expires.as_deref()));
        let mut shapes = shapes.collect::<anyhow::Result<Vec<_>>>()?;
        let adopted = store.write(|db| {
            shapes.iter_mut().try_for_each(|shape| rows::adopt(db, shape))?;
            earlier::adopt(db, &shapes)
        });
        adopted.map_err(|error: AwsError| anyhow!("{}: {}", file.display(), error.message))?;
        Ok(Self {
            store,
            shapes,
            done: Mutex::default(),
        })
    }

    /// Answers one operation.
    pub(crate) fn answer(&self, caller: &Caller, operation: &str, body: &Bytes) -> Response<Body> {
        if let Err(refused) = caller.check("DynamoDB_20120810", operation, None) {
            return refused.respond(JSON);
        }
        // A panic must end this request alone; its transaction is rolled back.
        let answer = catch_unwind(AssertUnwindSafe(|| self.run(operation, body))).unwrap_or_else(|_| {
            tracing::error!(fault = "Table", operation, "the table has panicked");
            Err(internal("The table could not do this.").into())
        });
        match answer {
            Ok(answer) => respond(StatusCode::OK, JSON, answer.to_string()),
            Err(Refusal::Error(error)) => error.respond(JSON),
            Err(Refusal::Canceled(codes)) => {
                let reasons: Vec<Value> = codes.iter().map(|code| json!({ "Code": code })).collect();
                let message = format!("Transaction cancelled, specific reasons [{}]", codes.join(", "));
                let body = json!({
                    "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                    "Message": message, "CancellationReasons": reasons,
                });
                respond(StatusCode::BAD_REQUEST, JSON, body.to_string())
            }
        }
    }

    fn run(&self, operation: &str, body: &[u8]) -> Result<Value, Refusal> {
        let shapes = &self.shapes;
        match operation {
            "GetItem" => self.store.read(|db| operations::get(db, shapes, body)),
            "BatchGetItem" => self.store.read(|db| operations::batch_get(db, shapes, body)),
            "Query" => self.store.read(|db| pages::query(db, shapes, body)),
            "Scan" => self.store.read(|db| pages::scan(db, shapes, body)),
            "PutItem" | "UpdateItem" | "DeleteItem" => {
                self.store.write(|db| operations::write(db, shapes, operation, body))
            }
            "BatchWriteItem" => self.store.write(|db| operations::batch_write(db, shapes, body)),
            "TransactWriteItems" => self.transact(body),
            "ListTables" => {
                let names: Vec<&str> = shapes.iter().map(|shape| shape.name.as_str()).collect();
                Ok(json!({ "TableNames": names }))
            }
            _ => Err(AwsError::new(
                "UnknownOperationException",
                format!("This host does not know DynamoDB's {operation}."),
            )
            .into()),
        }
    }

    /// Does a transaction once: the same request with the same token is done already.
    fn transact(&self, body: &[u8]) -> Result<Value, Refusal> {
        let transaction: Transaction = operations::read(body)?;
        let Some(token) = transaction.client_request_token.clone() else {
            return self.store.write(|db| transaction.run(db, &self.shapes));
        };
        let digest: [u8; 32] = Sha256::digest(body).into();
        // Held to the end: of two equal requests at once, the second waits for the first.
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match done.iter().find(|(known, _)| *known == token) {
            Some((_, known)) if *known == digest => return Ok(json!({})),
            Some(_) => {
                let other = "The token was used for another request.";
                return Err(AwsError::new("IdempotentParameterMismatchException", other).into());
            }
            None => {}
        }
        let answer = self.store.write(|db| transaction.run(db, &self.shapes))?;
        done.push_back((token, digest));
        if done.len() > TOKENS {
            done.pop_front();
        }
        Ok(answer)
    }

    /// Removes the items that have expired, a few at a time, and moves the file's log into it.
    ///
    /// # Errors
    ///
    /// Worth a retry: the file cannot be written.
    pub(crate) fn tidy(&self, now: i64) -> Result<(), AwsError> {
        let remove = || {
            self.store
                .write(|db| rows::remove_expired(db, &self.shapes, now, EXPIRED_AT_ONCE))
        };
        while remove()? == EXPIRED_AT_ONCE {}
        Ok(self.store.tidy()?)
    }
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::new("ValidationException", message)
}

fn internal(message: &str) -> AwsError {
    AwsError {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        ..AwsError::new("InternalServerError", message)
    }
}
