//! The protocol of SQS over [`crate::queues`]: the operations that producers and consumers use.

mod checks;
mod messages;

use crate::{
    access::Caller,
    queues::{Changed, Queue, Queues, Settings, is_receipt},
    wire::{AwsError, read},
};
use axum::body::Bytes;
use base64::{Engine, engine::general_purpose::STANDARD};
pub(crate) use messages::system_attributes;

use checks::{
    bad_receipt, check_batch, check_receipt, check_word, invalid, name_in, settings_of, size, subject, visibility,
    within,
};
use messages::{check_message, describe, digests, sent_answer};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(crate) const ACCOUNT: &str = "000000000000";
pub(crate) const REGION: &str = "us-east-1";
/// The most bytes of a message, and of a batch.
const MOST_BYTES: usize = 1 << 20;
const MOST_ENTRIES: usize = 10;

pub(crate) fn arn(queue: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}")
}

/// The SQS service.
pub(crate) struct Sqs {
    pub(crate) queues: Arc<Queues>,
    /// The URL before a queue's name.
    pub(crate) prefix: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfQueue {
    queue_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ByName {
    queue_name: String,
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outgoing {
    #[serde(default)]
    queue_url: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    message_body: String,
    delay_seconds: Option<i64>,
    message_group_id: Option<String>,
    message_deduplication_id: Option<String>,
    #[serde(default)]
    message_attributes: Map<String, Value>,
    #[serde(default)]
    message_system_attributes: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batch<T> {
    queue_url: String,
    entries: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receive {
    queue_url: String,
    #[serde(default)]
    attribute_names: Vec<String>,
    #[serde(default)]
    message_system_attribute_names: Vec<String>,
    #[serde(default)]
    message_attribute_names: Vec<String>,
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<i64>,
    receive_request_attempt_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Received {
    #[serde(default)]
    queue_url: String,
    #[serde(default)]
    id: String,
    receipt_handle: String,
    visibility_timeout: Option<i64>,
}

impl Sqs {
    /// Answers one operation.
    pub(crate) async fn answer(&self, caller: &Caller, operation: &str, body: &Bytes) -> Result<Value, AwsError> {
        let about = subject(body);
        caller.check("AmazonSQS", operation, about.as_deref())?;
        match operation {
            "SendMessage" => self.send(caller, read(body)?),
            "SendMessageBatch" => self.send_batch(caller, read(body)?),
            "ReceiveMessage" => self.receive(read(body)?).await,
            "DeleteMessage" => self.delete(&read(body)?),
            "DeleteMessageBatch" => self.delete_batch(&read(body)?),
            "ChangeMessageVisibility" => self.change_visibility(&read(body)?),
            "ChangeMessageVisibilityBatch" => self.change_visibility_batch(&read(body)?),
            "GetQueueUrl" => {
                let ByName { queue_name, .. } = read(body)?;
                Ok(json!({ "QueueUrl": self.url(&*self.queue_of_name(&queue_name)?) }))
            }
            "ListQueues" => {
                let input: Map<String, Value> = read(body)?;
                let prefix = input.get("QueueNamePrefix").and_then(Value::as_str).unwrap_or("");
                if let Some(most) = input.get("MaxResults").filter(|most| !most.is_null()) {
                    within("MaxResults", most.as_i64().unwrap_or(-1), 1..=1000)?;
                }
                let urls: Vec<_> = self.queues.list(prefix).iter().map(|queue| self.url(queue)).collect();
                Ok(json!({ "QueueUrls": urls }))
            }
            "GetQueueAttributes" => self.attributes(body),
            "SetQueueAttributes" => self.set_attributes(body),
            "CreateQueue" => self.create(read(body)?),
            "DeleteQueue" => {
                let OfQueue { queue_url } = read(body)?;
                let queue = self.at(&queue_url)?;
                self.queues.delete(&queue.name)?;
                Ok(json!({}))
            }
            "PurgeQueue" => {
                let OfQueue { queue_url } = read(body)?;
                self.queues.purge(&*self.at(&queue_url)?)?;
                Ok(json!({}))
            }
            _ => Err(AwsError::new(
                "UnsupportedOperation",
                format!("This host does not know SQS's {operation}."),
            )
            .with_query_code("AWS.SimpleQueueService.UnsupportedOperation")),
        }
    }

    fn url(&self, queue: &Queue) -> String {
        format!("{}{}", self.prefix, queue.name)
    }

    fn queue_of_name(&self, name: &str) -> Result<Arc<Queue>, AwsError> {
        self.queues.get(name).ok_or_else(|| {
            AwsError::new("QueueDoesNotExist", format!("There is no queue {name:?}."))
                .with_query_code("AWS.SimpleQueueService.NonExistentQueue")
        })
    }

    fn at(&self, url: &str) -> Result<Arc<Queue>, AwsError> {
        self.queue_of_name(name_in(url))
    }

    fn send(&self, caller: &Caller, message: Outgoing) -> Result<Value, AwsError> {
        let queue = self.at(&message.queue_url)?;
        let digests = digests(&message)?;
        let sent = self
            .queues
            .send(&queue, vec![check_message(caller, &queue, message)?])?;
        let sent = sent
            .into_iter()
            .next()
            .ok_or_else(|| AwsError::new("InternalFailure", "Nothing was sent."))?;
        Ok(sent_answer(&queue, &sent.id, sent.seq, digests))
    }

    fn send_batch(&self, caller: &Caller, batch: Batch<Outgoing>) -> Result<Value, AwsError> {
        let queue = self.at(&batch.queue_url)?;
        check_batch(batch.entries.iter().map(|entry| entry.id.as_str()))?;
        if batch.entries.iter().map(size).sum::<usize>() > MOST_BYTES {
            return Err(
                AwsError::new("BatchRequestTooLong", "The messages together are larger than 1 MiB.")
                    .with_query_code("AWS.SimpleQueueService.BatchRequestTooLong"),
            );
        }
        let (mut good, mut told_later, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for entry in batch.entries {
            let id = entry.id.clone();
            match digests(&entry).and_then(|digests| Ok((digests, check_message(caller, &queue, entry)?))) {
                Ok((digests, message)) => {
                    good.push(message);
                    told_later.push((id, digests));
                }
                Err(error) => failed.push(failure(&id, &error)),
            }
        }
        let sent = self.queues.send(&queue, good)?;
        let successful: Vec<_> = sent
            .into_iter()
            .zip(told_later)
            .map(|(sent, (id, digests))| {
                let mut entry = sent_answer(&queue, &sent.id, sent.seq, digests);
                entry["Id"] = id.into();
                entry
            })
            .collect();
        Ok(json!({ "Successful": successful, "Failed": failed }))
    }

    async fn receive(&self, input: Receive) -> Result<Value, AwsError> {
        let queue = self.at(&input.queue_url)?;
        let most = within("MaxNumberOfMessages", input.max_number_of_messages.unwrap_or(1), 1..=10)?;
        let most = usize::try_from(most).unwrap_or(1);
        let wait = match input.wait_time_seconds {
            Some(seconds) => within("WaitTimeSeconds", seconds, 0..=20)? * 1000,
            None => queue.settings().wait,
        };
        let visibility = input.visibility_timeout.map(visibility).transpose()?;
        check_word("ReceiveRequestAttemptId", input.receive_request_attempt_id.as_deref())?;
        let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0));
        let messages = self.queues.receive_within(&queue, most, visibility, wait).await?;
        if messages.is_empty() {
            return Ok(json!({}));
        }
        let wanted = |name: &str| {
            let mut names = input
                .attribute_names
                .iter()
                .chain(&input.message_system_attribute_names);
            names.any(|wanted| wanted == "All" || wanted == name)
        };
        let messages: Vec<_> = messages
            .iter()
            .map(|message| describe(message, &wanted, &input.message_attribute_names))
            .collect();
        Ok(json!({ "Messages": messages }))
    }

    fn delete(&self, input: &Received) -> Result<Value, AwsError> {
        let queue = self.at(&input.queue_url)?;
        check_receipt(&input.receipt_handle)?;
        self.queues.remove(&queue, &[&input.receipt_handle])?;
        Ok(json!({}))
    }

    fn delete_batch(&self, batch: &Batch<Received>) -> Result<Value, AwsError> {
        let queue = self.at(&batch.queue_url)?;
        check_batch(batch.entries.iter().map(|entry| entry.id.as_str()))?;
        let (good, bad): (Vec<_>, Vec<_>) = batch
            .entries
            .iter()
            .partition(|entry| is_receipt(&entry.receipt_handle));
        let receipts: Vec<_> = good.iter().map(|entry| entry.receipt_handle.as_str()).collect();
        self.queues.remove(&queue, &receipts)?;
        Ok(outcome(
            good.iter().map(|entry| json!({ "Id": entry.id })).collect(),
            bad.iter().map(|entry| failure(&entry.id, &bad_receipt())).collect(),
        ))
    }

    fn change_visibility(&self, input: &Received) -> Result<Value, AwsError> {
        let queue = self.at(&input.queue_url)?;
        self.change(&queue, input)?;
        Ok(json!({}))
    }

    fn change_visibility_batch(&self, batch: &Batch<Received>) -> Result<Value, AwsError> {
        let queue = self.at(&batch.queue_url)?;
        check_batch(batch.entries.iter().map(|entry| entry.id.as_str()))?;
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in &batch.entries {
            match self.change(&queue, entry) {
                Ok(()) => successful.push(json!({ "Id": entry.id })),
                Err(error) => failed.push(failure(&entry.id, &error)),
            }
        }
        Ok(outcome(successful, failed))
    }

    fn change(&self, queue: &Queue, input: &Received) -> Result<(), AwsError> {
        check_receipt(&input.receipt_handle)?;
        let milliseconds = visibility(
            input
                .visibility_timeout
                .ok_or_else(|| invalid("VisibilityTimeout is missing."))?,
        )?;
        match self
            .queues
            .change_visibility(queue, &input.receipt_handle, milliseconds)?
        {
            Changed::Done => Ok(()),
            Changed::NotInFlight => Err(AwsError::new("MessageNotInflight", "The message is not in flight.")
                .with_query_code("AWS.SimpleQueueService.MessageNotInflight")),
            Changed::Gone => Err(invalid("The message is no longer there.")),
        }
    }

    fn attributes(&self, body: &Bytes) -> Result<Value, AwsError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Input {
            queue_url: String,
            #[serde(default)]
            attribute_names: Vec<String>,
        }
        let input: Input = read(body)?;
        let queue = self.at(&input.queue_url)?;
        let (settings, counts) = (queue.settings(), self.queues.counts(&queue)?);
        let mut all = BTreeMap::from([
            ("ApproximateNumberOfMessages", counts.visible.to_string()),
            ("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string()),
            ("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string()),
            ("CreatedTimestamp", (queue.created / 1000).to_string()),
            ("LastModifiedTimestamp", (queue.created / 1000).to_string()),
            ("DelaySeconds", (settings.delay / 1000).to_string()),
            ("MaximumMessageSize", MOST_BYTES.to_string()),
            ("MessageRetentionPeriod", (settings.retention / 1000).to_string()),
            ("QueueArn", arn(&queue.name)),
            ("ReceiveMessageWaitTimeSeconds", (settings.wait / 1000).to_string()),
            ("VisibilityTimeout", (settings.visibility / 1000).to_string()),
        ]);
        if queue.fifo {
            all.insert("FifoQueue", "true".to_owned());
            all.insert("ContentBasedDeduplication", "false".to_owned());
        }
        if let Some((name, most)) = &settings.dead_letter {
            let policy = json!({ "deadLetterTargetArn": arn(name), "maxReceiveCount": most });
            all.insert("RedrivePolicy", policy.to_string());
        }
        all.retain(|name, _| {
            input
                .attribute_names
                .iter()
                .any(|wanted| wanted == "All" || wanted == name)
        });
        Ok(if all.is_empty() {
            json!({})
        } else {
            json!({ "Attributes": all })
        })
    }

    fn set_attributes(&self, body: &Bytes) -> Result<Value, AwsError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Input {
            queue_url: String,
            attributes: BTreeMap<String, Value>,
        }
        let input: Input = read(body)?;
        let queue = self.at(&input.queue_url)?;
        let settings = settings_of(&queue.name, queue.settings(), &input.attributes)?;
        self.queues.ensure(&queue.name, settings)?;
        Ok(json!({}))
    }

    fn create(&self, input: ByName) -> Result<Value, AwsError> {
        let name = &input.queue_name;
        let plain = name.strip_suffix(".fifo").unwrap_or(name);
        let good = (1..=80).contains(&name.len())
            && plain
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !good {
            return Err(invalid(
                "A queue's name is 1 to 80 letters, digits, - and _, and a FIFO queue's ends in .fifo.",
            ));
        }
        let wanted = settings_of(name, Settings::default(), &input.attributes)?;
        if let Some(queue) = self.queues.get(name) {
            let same = settings_of(name, queue.settings(), &input.attributes)? == queue.settings();
            return if same {
                Ok(json!({ "QueueUrl": self.url(&queue) }))
            } else {
                Err(AwsError::new(
                    "QueueNameExists",
                    format!("There is a queue {name:?} with other attributes."),
                )
                .with_query_code("QueueAlreadyExists"))
            };
        }
        Ok(json!({ "QueueUrl": self.url(&*self.queues.ensure(name, wanted)?) }))
    }
}

fn outcome(successful: Vec<Value>, failed: Vec<Value>) -> Value {
    json!({ "Successful": successful, "Failed": failed })
}

fn failure(id: &str, error: &AwsError) -> Value {
    json!({ "Id": id, "Code": error.query.unwrap_or(&error.kind), "Message": error.message, "SenderFault": true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{faults::Faults, store::Store};
    use tokio::sync::watch;

    async fn said(sqs: &Sqs, operation: &str, body: Value) -> String {
        match sqs
            .answer(&Caller::Driver, operation, &Bytes::from(body.to_string()))
            .await
        {
            Ok(_) => "done".to_owned(),
            Err(error) => error.kind,
        }
    }

    #[tokio::test]
    async fn what_a_parameter_cannot_be_is_refused_with_the_name_that_aws_has_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("queues.db"), crate::store::QUEUES).expect("a store");
        let (_closing, closed) = watch::channel(false);
        let queues = Queues::open(Arc::new(store), Arc::<Faults>::default(), closed).expect("queues");
        let sqs = Sqs {
            queues: Arc::new(queues),
            prefix: "http://localhost/0/".into(),
        };
        let url = "http://localhost/0/q";
        assert_eq!(said(&sqs, "CreateQueue", json!({ "QueueName": "q" })).await, "done");
        let sent = json!({ "QueueUrl": url, "MessageBody": "x" });
        assert_eq!(said(&sqs, "SendMessage", sent).await, "done");
        let with = |name: &str, value: Value| json!({ "QueueUrl": url, "MessageBody": "x", name: value });
        let entry = |id: &str| json!({ "QueueUrl": url, "Entries": [{ "Id": id, "MessageBody": "x" }] });
        let attribute = |name: &str, value: Value| json!({ "QueueUrl": url, "Attributes": { name: value } });
        let long = "a".repeat(5000);
        let policy = |most: i64| {
            json!({ "deadLetterTargetArn": "arn:aws:sqs:us-east-1:0:d", "maxReceiveCount": most }).to_string()
        };
        let attributes: Map<_, _> = (0..11)
            .map(|n| (format!("a{n}"), json!({ "DataType": "String", "StringValue": "x" })))
            .collect();
        let huge = 1_i64 << 62;
        for (operation, body, kind) in [
            (
                "ReceiveMessage",
                with("WaitTimeSeconds", json!(huge)),
                "InvalidParameterValue",
            ),
            (
                "ReceiveMessage",
                with("WaitTimeSeconds", json!(-huge)),
                "InvalidParameterValue",
            ),
            (
                "ReceiveMessage",
                with("WaitTimeSeconds", json!(21)),
                "InvalidParameterValue",
            ),
            (
                "ReceiveMessage",
                with("WaitTimeSeconds", json!(1u64 << 63)),
                "SerializationException",
            ),
            (
                "ReceiveMessage",
                with("MaxNumberOfMessages", json!(-1)),
                "InvalidParameterValue",
            ),
            (
                "ReceiveMessage",
                with("MaxNumberOfMessages", json!(huge)),
                "InvalidParameterValue",
            ),
            (
                "ReceiveMessage",
                with("VisibilityTimeout", json!(huge)),
                "InvalidParameterValue",
            ),
            (
                "ReceiveMessage",
                with("ReceiveRequestAttemptId", json!(long)),
                "InvalidParameterValue",
            ),
            (
                "SendMessage",
                with("DelaySeconds", json!(huge)),
                "InvalidParameterValue",
            ),
            ("SendMessage", with("DelaySeconds", json!(-1)), "InvalidParameterValue"),
            (
                "SendMessage",
                with("MessageGroupId", json!(long)),
                "InvalidParameterValue",
            ),
            (
                "SendMessage",
                with("MessageAttributes", json!(attributes)),
                "InvalidParameterValue",
            ),
            (
                "SendMessage",
                with("MessageBody", json!("\u{1b}[2J")),
                "InvalidMessageContents",
            ),
            (
                "SendMessage",
                with("MessageBody", json!("a".repeat((1 << 20) + 1))),
                "InvalidParameterValue",
            ),
            ("SendMessageBatch", entry(&long), "InvalidBatchEntryId"),
            ("SendMessageBatch", entry("a b"), "InvalidBatchEntryId"),
            (
                "ChangeMessageVisibility",
                with("ReceiptHandle", json!(long)),
                "ReceiptHandleIsInvalid",
            ),
            (
                "DeleteMessage",
                with("ReceiptHandle", json!("no receipt")),
                "ReceiptHandleIsInvalid",
            ),
            ("ListQueues", json!({ "MaxResults": huge }), "InvalidParameterValue"),
            ("GetQueueUrl", json!({ "QueueName": long }), "QueueDoesNotExist"),
            ("CreateQueue", json!({ "QueueName": long }), "InvalidParameterValue"),
            (
                "SetQueueAttributes",
                attribute("VisibilityTimeout", json!(huge)),
                "InvalidAttributeValue",
            ),
            (
                "SetQueueAttributes",
                attribute("MessageRetentionPeriod", json!("59")),
                "InvalidAttributeValue",
            ),
            (
                "SetQueueAttributes",
                attribute("MaximumMessageSize", json!("1")),
                "InvalidAttributeValue",
            ),
            (
                "SetQueueAttributes",
                attribute("DelaySeconds", json!("-1")),
                "InvalidAttributeValue",
            ),
            (
                "SetQueueAttributes",
                attribute("RedrivePolicy", json!(policy(0))),
                "InvalidAttributeValue",
            ),
            (
                "SetQueueAttributes",
                attribute("RedrivePolicy", json!(policy(huge))),
                "InvalidAttributeValue",
            ),
        ] {
            assert_eq!(
                said(&sqs, operation, body.clone()).await,
                kind,
                "{operation} {body:.200}"
            );
        }
    }
}
