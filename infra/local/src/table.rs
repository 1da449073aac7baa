//! The table: DynamoDB's JSON protocol over an embedded one, which is given a thread of its own because it blocks. Another one removes what has
//! expired.

use crate::{
    access::Caller,
    wire::{AwsError, respond},
};
use anyhow::Context;
use axum::{
    body::{Body, Bytes},
    http::{Response, StatusCode},
};
use dynoxide::{Database, DynoxideError};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How often expired items are looked for, at most.
const EXPIRY: Duration = Duration::from_secs(10);
/// A look reads every item. How many times as long as it took nothing is looked for then.
const REST: u32 = 100;

/// Work for the table's thread.
struct Wish {
    operation: String,
    body: Bytes,
    answer: oneshot::Sender<Result<String, DynoxideError>>,
}

/// The table.
pub(crate) struct Table {
    wishes: mpsc::Sender<Wish>,
    /// The other thread ends with it.
    _expiring: mpsc::Sender<Infallible>,
}

impl Table {
    /// Opens the file, makes the tables that are not there, and starts the threads.
    pub(crate) fn open(file: &Path, tables: &[(Value, Option<String>)]) -> anyhow::Result<Self> {
        let path = file.to_str().context("the state folder's name is no text")?;
        let database = Database::new(path).with_context(|| format!("the table {path} cannot be opened"))?;
        for (create, expires) in tables {
            let name = create["TableName"].clone();
            match run(&database, "CreateTable", create.to_string().as_bytes()) {
                Ok(_) | Err(DynoxideError::ResourceInUseException(_)) => {}
                Err(cause) => return Err(cause).with_context(|| format!("the table {name} cannot be made")),
            }
            if let Some(attribute) = expires {
                let ttl = json!({
                    "TableName": name,
                    "TimeToLiveSpecification": { "AttributeName": attribute, "Enabled": true },
                });
                match run(&database, "UpdateTimeToLive", ttl.to_string().as_bytes()) {
                    // It is so already.
                    Ok(_) | Err(DynoxideError::ValidationException(_)) => {}
                    Err(cause) => return Err(cause).with_context(|| format!("the table {name} cannot be given a TTL")),
                }
            }
        }
        let (expiring, kept) = mpsc::channel();
        let expired = database.clone();
        thread::Builder::new()
            .name("expiry".into())
            .spawn(move || expire(&expired, &kept, EXPIRY))?;
        let (wishes, inbox) = mpsc::channel::<Wish>();
        thread::Builder::new().name("table".into()).spawn(move || {
            for Wish {
                operation,
                body,
                answer,
            } in inbox
            {
                // What it panics on must not be the last that it does for everybody.
                let Ok(done) = catch_unwind(AssertUnwindSafe(|| run(&database, &operation, &body))) else {
                    tracing::error!(fault = "Table", operation, "the table has panicked");
                    continue;
                };
                // Nobody waits any more: it is done all the same, as it would be far away.
                let _ = answer.send(done);
            }
        })?;
        Ok(Self {
            wishes,
            _expiring: expiring,
        })
    }

    /// Answers one operation.
    pub(crate) async fn answer(&self, caller: &Caller, operation: &str, body: Bytes) -> Response<Body> {
        const JSON: &str = "application/x-amz-json-1.0";
        if let Err(refused) = caller.check("DynamoDB_20120810", operation, None) {
            return refused.respond(JSON);
        }
        let (answer, answered) = oneshot::channel();
        let wish = Wish {
            operation: operation.to_owned(),
            body,
            answer,
        };
        let answered = match self.wishes.send(wish) {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        match answered {
            Some(Ok(body)) => respond(StatusCode::OK, JSON, body),
            Some(Err(error)) => {
                let status = StatusCode::from_u16(error.status_code()).unwrap_or(StatusCode::BAD_REQUEST);
                if status.is_server_error() {
                    tracing::error!(fault = "Table", operation, cause = %error, "the table did not answer");
                }
                respond(status, JSON, error.to_json())
            }
            None => AwsError {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                ..AwsError::new("InternalServerError", "The table has ended.")
            }
            .respond(JSON),
        }
    }
}

/// Removes what has expired, over and over. Whoever asks for something meanwhile waits for a page of it at most.
fn expire(database: &Database, kept: &mpsc::Receiver<Infallible>, every: Duration) {
    let mut rest = every;
    while kept.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
        let begun = Instant::now();
        if let Err(cause) = database.sweep_ttl() {
            tracing::warn!(fault = "Table.Sweep", cause = %cause, "old items stay for now");
        }
        rest = every.max(begun.elapsed() * REST);
    }
}

fn run(database: &Database, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
    fn with<I: DeserializeOwned, O: Serialize>(
        body: &[u8],
        work: impl FnOnce(I) -> Result<O, DynoxideError>,
    ) -> Result<String, DynoxideError> {
        let input =
            serde_json::from_slice(body).map_err(|cause| DynoxideError::SerializationException(cause.to_string()))?;
        serde_json::to_string(&work(input)?).map_err(|cause| DynoxideError::InternalServerError(cause.to_string()))
    }
    match operation {
        "GetItem" => with(body, |input| database.get_item(input)),
        "PutItem" => with(body, |input| database.put_item(input)),
        "UpdateItem" => with(body, |input| database.update_item(input)),
        "DeleteItem" => with(body, |input| database.delete_item(input)),
        "Query" => with(body, |input| database.query(input)),
        "Scan" => with(body, |input| database.scan(input)),
        "BatchGetItem" => with(body, |input| database.batch_get_item(input)),
        "BatchWriteItem" => with(body, |input| database.batch_write_item(input)),
        "TransactWriteItems" => with(body, |input| database.transact_write_items(input)),
        "TransactGetItems" => with(body, |input| database.transact_get_items(input)),
        "CreateTable" => with(body, |input| database.create_table(input)),
        "DeleteTable" => with(body, |input| database.delete_table(input)),
        "DescribeTable" => with(body, |input| database.describe_table(input)),
        "ListTables" => with(body, |input| database.list_tables(input)),
        "UpdateTimeToLive" => with(body, |input| database.update_time_to_live(input)),
        "DescribeTimeToLive" => with(body, |input| database.describe_time_to_live(input)),
        _ => Err(DynoxideError::ValidationException(format!(
            "This host does not know DynamoDB's {operation}."
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_expired_goes_what_has_not_stays_and_the_look_for_it_ends_with_the_table() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::new(folder.path().join("table.db").to_str().expect("text")).expect("it opens");
        let ask =
            |operation: &str, what: Value| run(&database, operation, what.to_string().as_bytes()).expect(operation);
        ask(
            "CreateTable",
            json!({
                "TableName": "table", "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
                "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
            }),
        );
        let ttl = json!({ "AttributeName": "expires_at", "Enabled": true });
        ask(
            "UpdateTimeToLive",
            json!({ "TableName": "table", "TimeToLiveSpecification": ttl }),
        );
        for (key, until) in [("old", "1"), ("new", "99999999999")] {
            let item = json!({ "pk": { "S": key }, "expires_at": { "N": until } });
            ask("PutItem", json!({ "TableName": "table", "Item": item }));
        }
        let (keeps, kept) = mpsc::channel();
        let expired = database.clone();
        let looking = thread::spawn(move || expire(&expired, &kept, Duration::from_millis(1)));
        let begun = Instant::now();
        let count = || {
            serde_json::from_str::<Value>(&ask("Scan", json!({ "TableName": "table" }))).expect("JSON")["Count"].clone()
        };
        while count() != 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it stays");
            thread::yield_now();
        }
        drop(keeps);
        looking.join().expect("it ends");
        let left = ask(
            "GetItem",
            json!({ "TableName": "table", "Key": { "pk": { "S": "new" } } }),
        );
        assert!(left.contains("99999999999"), "{left}");
    }
}
