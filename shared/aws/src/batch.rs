//! The way in: a batch of records from a queue, with partial failures.

use crate::{Aws, trace::trace_work};
use contract::{Code, names};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use shell::{Fault, Sender, SpeaksFor};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// One message of a queue, as the Lambda service hands it on.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub message_id: String,
    pub receipt_handle: String,
    pub body: String,
    #[serde(default)]
    pub attributes: Attributes,
}

/// The attributes of a message that the queue sets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attributes {
    #[serde(default)]
    pub sender_id: String,
    pub message_group_id: Option<String>,
    pub approximate_receive_count: Option<String>,
    #[serde(rename = "AWSTraceHeader")]
    pub trace: Option<String>,
}

#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "Records", default)]
    records: Vec<Record>,
}

impl Aws {
    /// The sender of a message in the queue. On AWS a role's sender id has the name of its session
    /// behind a colon, which anybody chooses.
    pub fn sender(&self, record: &Record) -> Sender {
        let id = record.attributes.sender_id.clone();
        let speaks_for = if is_listed(&self.trusted_senders, &id) {
            SpeaksFor::Anybody
        } else if is_listed(&self.webhook_senders, &id) {
            SpeaksFor::MakersOfRules
        } else {
            SpeaksFor::Itself
        };
        Sender { id, speaks_for }
    }

    /// Whether a compute driver put it there.
    pub fn is_driver(&self, record: &Record) -> bool {
        is_listed(&self.driver_senders, &record.attributes.sender_id)
    }

    /// Moves an invalid message to the dead-letter queue.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn bury_record(&self, record: &Record) -> Result<(), Fault> {
        let group = record.attributes.message_group_id.as_deref().unwrap_or("none");
        self.bury(&record.body, group, &record.message_id).await
    }

    /// Hands a message back so that it comes again soon, and later each time: its order in the
    /// queue is kept.
    async fn hand_back(&self, record: &Record) {
        let Ok(queue) = crate::ports::require(&self.own_queue, names::OWN_QUEUE) else {
            return;
        };
        let times: i32 = record
            .attributes
            .approximate_receive_count
            .as_deref()
            .and_then(|n| n.parse().ok())
            .unwrap_or(1);
        let seconds = 1i32
            .checked_shl(u32::try_from(times - 1).unwrap_or(0).min(5))
            .unwrap_or(32);
        let shortened = self
            .sqs
            .change_message_visibility()
            .queue_url(queue)
            .receipt_handle(&record.receipt_handle)
            .visibility_timeout(seconds)
            .send()
            .await;
        if let Err(cause) = shortened {
            tracing::warn!(fault = Code::BatchHandBack.as_str(), cause = %cause, "a message comes back only after its whole visibility time");
        }
    }
}

fn is_listed(senders: &[String], id: &str) -> bool {
    !id.is_empty()
        && senders.iter().any(|s| {
            s == id
                || id
                    .split_once(':')
                    .is_some_and(|(role, _)| s == role && s.starts_with("AROA"))
        })
}

/// Runs a function that takes its events from a queue, until the Lambda service ends it.
///
/// A message whose handling panics, or does not end in time, is one that failed: those beside it
/// are done all the same.
///
/// Messages of one group are handled in order. After the first of a group that fails, the rest of
/// the group is handed back with it. Groups, and messages of a queue without groups, do not wait
/// for each other. A message that failed stays in its queue, the others are done.
///
/// # Errors
///
/// When the runtime API cannot be spoken to. Final for this process.
pub async fn each_record<F, Fut>(aws: Arc<Aws>, handle: F) -> Result<(), Error>
where
    F: Fn(Arc<Aws>, Record) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Fault>> + Send + 'static,
{
    let answer = |event: LambdaEvent<Value>| {
        let (aws, handle) = (aws.clone(), handle.clone());
        async move {
            let most = time_left(event.context.deadline);
            batch(aws, handle, event.payload, event.context.xray_trace_id, most).await
        }
    };
    lambda_runtime::run(service_fn(answer)).await
}

/// The time before the end of an invocation at which its messages end: what is not done by then is
/// handed back.
const MARGIN: Duration = Duration::from_secs(2);

/// The time that is left for the messages of an invocation.
///
/// * `deadline`: when the Lambda service ends it, in milliseconds since the Unix epoch.
fn time_left(deadline: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(deadline)
        .saturating_sub(now)
        .saturating_sub(MARGIN)
}

/// Does one message's work in a task of its own.
///
/// # Errors
///
/// Those of the work; [`Fault::Outside`] if it panics or does not end in time.
async fn catch_panic(
    work: impl Future<Output = Result<(), Fault>> + Send + 'static,
    most: Duration,
) -> Result<(), Fault> {
    let mut work = tokio::spawn(work);
    match tokio::time::timeout(most, &mut work).await {
        Ok(Ok(done)) => done,
        Ok(Err(panic)) => Err(Fault::outside("handling a message")(panic.into())),
        Err(late) => {
            work.abort();
            Err(Fault::outside("handling a message in time")(late.into()))
        }
    }
}

/// * `invoked`: the trace of the invocation, for a message that came with none.
/// * `most`: how long the messages have together.
async fn batch<F, Fut>(
    aws: Arc<Aws>,
    handle: F,
    event: Value,
    invoked: Option<String>,
    most: Duration,
) -> Result<Value, Error>
where
    F: Fn(Arc<Aws>, Record) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Fault>> + Send + 'static,
{
    let Batch { records } = serde_json::from_value(event)?;
    let mut groups: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in records {
        let group = record
            .attributes
            .message_group_id
            .clone()
            .unwrap_or_else(|| record.message_id.clone());
        groups.entry(group).or_default().push(record);
    }
    let until = tokio::time::Instant::now() + most;
    let mut work = tokio::task::JoinSet::new();
    for records in groups.into_values() {
        let (aws, handle, invoked) = (aws.clone(), handle.clone(), invoked.clone());
        work.spawn(async move {
            let mut failed = Vec::new();
            for record in records {
                if !failed.is_empty() {
                    failed.push(record);
                    continue;
                }
                let trace = record.attributes.trace.clone().or_else(|| invoked.clone());
                let (aws, handle, taken) = (aws.clone(), handle.clone(), record.clone());
                let turn = async move {
                    let body = taken.body.clone();
                    trace_work(trace.as_deref(), &body, async { handle(aws, taken).await }).await
                };
                let left = until.saturating_duration_since(tokio::time::Instant::now());
                if let Err(fault) = catch_panic(turn, left).await {
                    tracing::warn!(
                        message = record.message_id,
                        fault = fault.code().as_str(),
                        cause = chain(&fault),
                        "handed back"
                    );
                    failed.push(record);
                }
            }
            for record in &failed {
                aws.hand_back(record).await;
            }
            failed.into_iter().map(|record| record.message_id).collect::<Vec<_>>()
        });
    }
    let mut failures = Vec::new();
    while let Some(done) = work.join_next().await {
        failures.extend(done?);
    }
    let failures: Vec<Value> = failures.into_iter().map(|id| json!({ "itemIdentifier": id })).collect();
    Ok(json!({ "batchItemFailures": failures }))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages that are handed back of a batch of three, one of each user.
    async fn hand_back<F, Fut>(handle: F) -> Vec<String>
    where
        F: Fn(Arc<Aws>, Record) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let record = |name: &str| json!({ "messageId": name, "receiptHandle": "r", "body": name, "attributes": {} });
        let event = json!({ "Records": [record("ann"), record("bob"), record("eve")] });
        let unconnected = crate::make_from(|name| match name {
            names::OWN_QUEUE => None,
            "AWS_ENDPOINT_URL" => Some("http://127.0.0.1:1".to_owned()),
            _ => Some("x".to_owned()),
        });
        let aws = Arc::new(unconnected.expect("all that it needs is given"));
        let answer = batch(aws, handle, event, None, Duration::from_millis(200)).await;
        let answer = answer.expect("the batch as a whole succeeds");
        let failures = answer["batchItemFailures"].as_array().expect("a list").clone();
        failures
            .iter()
            .map(|failure| failure["itemIdentifier"].as_str().expect("an id").to_owned())
            .collect()
    }

    #[tokio::test]
    async fn a_message_on_which_a_handler_panics_fails_alone() {
        let handle = |_: Arc<Aws>, record: Record| async move {
            assert!(record.body != "eve", "on purpose");
            Ok(())
        };
        assert_eq!(hand_back(handle).await, ["eve"]);
        // Before its first await, too.
        let handle = |_: Arc<Aws>, record: Record| {
            assert!(record.body != "bob", "on purpose");
            std::future::ready(Ok(()))
        };
        assert_eq!(hand_back(handle).await, ["bob"]);
    }

    #[tokio::test]
    async fn a_message_that_never_ends_is_handed_back_alone() {
        let handle = |_: Arc<Aws>, record: Record| async move {
            if record.body == "ann" {
                std::future::pending::<()>().await;
            }
            Ok(())
        };
        assert_eq!(hand_back(handle).await, ["ann"]);
    }
}
