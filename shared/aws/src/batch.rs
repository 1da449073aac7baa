//! The way in: a batch of records from a queue, with partial failures.

use crate::{Aws, trace::traced};
use contract::names;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use shell::{Fault, Sender, SpeaksFor};
use std::{collections::BTreeMap, future::Future, sync::Arc};

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

/// What the queue itself says of a message.
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
    /// Who put a message into the queue. On AWS a role's sender id has the name of its session behind a colon, which anybody chooses.
    pub fn sender(&self, record: &Record) -> Sender {
        let id = record.attributes.sender_id.clone();
        let speaks_for = if listed(&self.trusted_senders, &id) {
            SpeaksFor::Anybody
        } else if listed(&self.webhook_senders, &id) {
            SpeaksFor::MakersOfRules
        } else {
            SpeaksFor::Itself
        };
        Sender { id, speaks_for }
    }

    /// Whether a compute driver put it there.
    pub fn is_driver(&self, record: &Record) -> bool {
        listed(&self.driver_senders, &record.attributes.sender_id)
    }

    /// Puts a message that is no command where nobody trips over it.
    ///
    /// # Errors
    ///
    /// [`Fault::Outside`], worth a retry.
    pub async fn bury_record(&self, record: &Record) -> Result<(), Fault> {
        let group = record.attributes.message_group_id.as_deref().unwrap_or("none");
        self.bury(&record.body, group, &record.message_id).await
    }

    /// Hands a message back so that it comes again soon, and later each time: its order in the queue is kept.
    async fn hand_back(&self, record: &Record) {
        let Ok(queue) = crate::ports::needed(&self.own_queue, names::OWN_QUEUE) else {
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
            tracing::warn!(fault = "Batch.HandBack", cause = %cause, "a message comes back only after its whole visibility time");
        }
    }
}

fn listed(senders: &[String], id: &str) -> bool {
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
/// Messages of one group are handled in order, and after the first of a group that fails the rest of the group is handed back with it; groups
/// (and messages of a queue without groups) do not wait for each other. A message that failed stays in its queue, the others are done.
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
        async move { batch(aws, handle, event.payload, event.context.xray_trace_id).await }
    };
    lambda_runtime::run(service_fn(answer)).await
}

/// * `invoked`: the trace of the invocation, for a message that came with none.
async fn batch<F, Fut>(aws: Arc<Aws>, handle: F, event: Value, invoked: Option<String>) -> Result<Value, Error>
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
                let trace = record.attributes.trace.as_deref().or(invoked.as_deref());
                if let Err(fault) = traced(trace, &record.body, handle(aws.clone(), record.clone())).await {
                    tracing::warn!(
                        message = record.message_id,
                        fault = fault.name(),
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
