//! Feeds a function from its queue.

use super::{LONGEST_BACKOFF, Pool, Unanswered};
use crate::{
    faults::Faults,
    queues::{Message, Queue, Queues},
    sqs::{REGION, arn, system_attributes},
};
use axum::body::Bytes;
use contract::Code;
use serde_json::{Map, Value, json};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Feeds a function from its queue until the host leaves.
pub(crate) async fn feed(pool: Arc<Pool>, queues: Arc<Queues>, queue: Arc<Queue>, most: usize, faults: Arc<Faults>) {
    loop {
        let Ok(mut idle) = pool.idle_for_queue(&queues, &queue).await else {
            return;
        };
        let messages = loop {
            // A process that ends while it waits is replaced by another, and what is received is
            // handed to a living one.
            let received = tokio::select! {
                received = queues.receive_within(&queue, most, None, Duration::from_secs(20)) => received,
                () = idle.hand_over.closed() => break Vec::new(),
            };
            match received {
                Ok(messages) if messages.is_empty() => {
                    if queues.are_closing() {
                        return;
                    }
                    idle.since = Instant::now();
                }
                Ok(messages) => break messages,
                Err(cause) => {
                    tracing::error!(fault = "Store", cause = %cause, queue = queue.name, "nothing can be received now");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        };
        if messages.is_empty() {
            continue;
        }
        let (pool, queues, queue, faults) = (pool.clone(), queues.clone(), queue.clone(), faults.clone());
        tokio::spawn(async move {
            let outcome = pool.invoke_on(idle, batch(&queue, &messages), None).await;
            settle(&pool, &queues, &queue, &faults, &messages, outcome);
        });
    }
}

/// The event of a batch, as Lambda hands it on.
pub(super) fn batch(queue: &Queue, messages: &[Message]) -> Bytes {
    let records: Vec<_> = messages
        .iter()
        .map(|message| {
            let attributes: Map<String, Value> = message
                .attributes
                .as_deref()
                .and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok())
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| {
                    let field = |name: &str| value.get(name).cloned().unwrap_or(Value::Null);
                    let content = json!({
                        "dataType": field("DataType"),
                        "stringValue": field("StringValue"),
                        "binaryValue": field("BinaryValue"),
                        "stringListValues": [],
                        "binaryListValues": [],
                    });
                    (name, content)
                })
                .collect();
            json!({
                "messageId": message.id,
                "receiptHandle": message.receipt,
                "body": message.body,
                "attributes": system_attributes(message),
                "messageAttributes": attributes,
                "md5OfBody": format!("{:x}", md5::compute(&message.body)),
                "eventSource": "aws:sqs",
                "eventSourceARN": arn(&queue.name),
                "awsRegion": REGION,
            })
        })
        .collect();
    Bytes::from(json!({ "Records": records }).to_string())
}

/// Deletes what was done, and hands back the rest.
pub(super) fn settle(
    pool: &Pool,
    queues: &Queues,
    queue: &Queue,
    faults: &Faults,
    messages: &[Message],
    outcome: Result<Bytes, Unanswered>,
) {
    let failed: Option<HashSet<String>> = match outcome {
        Ok(body) => failures(&body, messages),
        Err(Unanswered::Closing) => return,
        Err(why) => {
            tracing::warn!(function = pool.name(), fault = Code::FunctionFailed.as_str(), cause = %why, "its messages come again");
            None
        }
    };
    let done = |message: &&Message| failed.as_ref().is_some_and(|failed| !failed.contains(&message.id));
    // A receipt that is lost on its way back leaves the message in the queue: it comes twice.
    let lost = |_: &&str| faults.strikes("duplicate").is_none();
    let receipts: Vec<&str> = messages
        .iter()
        .filter(done)
        .map(|message| message.receipt.as_str())
        .filter(lost)
        .collect();
    let settled = queues.remove(queue, &receipts).and_then(|()| {
        for message in messages
            .iter()
            .filter(|message| !receipts.contains(&message.receipt.as_str()))
        {
            // A handler that named the message has set when it comes again; whoever crashed has
            // not.
            if failed.as_ref().is_none_or(|failed| !failed.contains(&message.id)) {
                let backoff = 250i64 << message.received.saturating_sub(1).min(10);
                queues.change_visibility(queue, &message.receipt, backoff.min(LONGEST_BACKOFF))?;
            }
        }
        Ok(())
    });
    if let Err(cause) = settled {
        tracing::error!(fault = "Store", cause = %cause, queue = queue.name, "messages that were done come again");
    }
}

/// The ids of the messages that failed; `None` is all of them.
pub(super) fn failures(body: &[u8], messages: &[Message]) -> Option<HashSet<String>> {
    let answer: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body).ok()?
    };
    let Some(failures) = answer.get("batchItemFailures").filter(|failures| !failures.is_null()) else {
        return Some(HashSet::new());
    };
    let failures: HashSet<String> = failures
        .as_array()?
        .iter()
        .map(|failure| failure.get("itemIdentifier").and_then(Value::as_str).map(str::to_owned))
        .collect::<Option<_>>()?;
    // An id that is not in the batch means that nothing of the answer can be believed.
    failures
        .iter()
        .all(|id| messages.iter().any(|message| message.id == *id))
        .then_some(failures)
}
