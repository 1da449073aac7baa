//! Messages as they are sent, and as they are received.

use super::{
    Engine, MOST_BYTES, Outgoing, STANDARD,
    checks::{check_attributes, check_word, invalid, may_be_sent, size, within},
};
use crate::{
    access::Caller,
    queues::{Message, New, Queue},
    wire::AwsError,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A message that may be sent, with what the queue adds.
pub(super) fn check_message(caller: &Caller, queue: &Queue, message: Outgoing) -> Result<New, AwsError> {
    let missing = |what: &str| {
        Err(AwsError::new("MissingParameter", format!("{what} is missing.")).with_query_code("MissingParameter"))
    };
    if message.message_body.is_empty() {
        return missing("MessageBody");
    }
    if size(&message) > MOST_BYTES {
        return Err(invalid("The message is larger than 1 MiB."));
    }
    if !message.message_body.chars().all(may_be_sent) {
        return Err(AwsError::new(
            "InvalidMessageContents",
            "The message has a control character that no message may have.",
        )
        .with_query_code("InvalidMessageContents"));
    }
    check_word("MessageGroupId", message.message_group_id.as_deref())?;
    check_word("MessageDeduplicationId", message.message_deduplication_id.as_deref())?;
    check_attributes(&message.message_attributes)?;
    if queue.fifo {
        if message.message_group_id.as_deref().unwrap_or("").is_empty() {
            return missing("MessageGroupId, which a FIFO queue needs,");
        }
        if message.message_deduplication_id.as_deref().unwrap_or("").is_empty() {
            return missing("MessageDeduplicationId, which this FIFO queue needs,");
        }
        if message.delay_seconds.is_some_and(|seconds| seconds != 0) {
            return Err(invalid("A message of a FIFO queue has no delay of its own."));
        }
    }
    if let Some(seconds) = message.delay_seconds {
        within("DelaySeconds", seconds, 0..=900)?;
    }
    if let Some(name) = message
        .message_system_attributes
        .keys()
        .find(|name| *name != "AWSTraceHeader")
    {
        return Err(invalid(format!(
            "A message has no system attribute {name:?} of its sender's."
        )));
    }
    Ok(New {
        attributes: (!message.message_attributes.is_empty())
            .then(|| Value::Object(message.message_attributes).to_string()),
        body: message.message_body,
        group: message.message_group_id,
        dedup: message.message_deduplication_id,
        delay: message.delay_seconds.map(|seconds| seconds * 1000),
        sender: caller.sender(),
        trace: message
            .message_system_attributes
            .get("AWSTraceHeader")
            .and_then(|attribute| attribute["StringValue"].as_str())
            .map(str::to_owned),
    })
}

/// The digest by which a sender checks the answer.
pub(super) struct Digests {
    body: String,
    attributes: Option<String>,
    system: Option<String>,
}

pub(super) fn digests(message: &Outgoing) -> Result<Digests, AwsError> {
    let of = |attributes: &Map<String, Value>| {
        (!attributes.is_empty())
            .then(|| digest_of_attributes(attributes))
            .transpose()
    };
    Ok(Digests {
        body: format!("{:x}", md5::compute(&message.message_body)),
        attributes: of(&message.message_attributes)?,
        system: of(&message.message_system_attributes)?,
    })
}

/// # Source
///
/// "Calculating the MD5 message digest for message attributes" in the SQS developer guide.
pub(super) fn digest_of_attributes(attributes: &Map<String, Value>) -> Result<String, AwsError> {
    fn add(bytes: &mut Vec<u8>, part: &[u8]) {
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(part);
    }
    let mut bytes = Vec::new();
    for (name, value) in attributes.iter().collect::<BTreeMap<_, _>>() {
        let kind = value["DataType"]
            .as_str()
            .ok_or_else(|| invalid(format!("The attribute {name:?} has no DataType.")))?;
        add(&mut bytes, name.as_bytes());
        add(&mut bytes, kind.as_bytes());
        match (value["StringValue"].as_str(), value["BinaryValue"].as_str()) {
            (Some(text), None) => {
                bytes.push(1);
                add(&mut bytes, text.as_bytes());
            }
            (None, Some(text)) => {
                let content = STANDARD
                    .decode(text)
                    .map_err(|_| invalid(format!("The attribute {name:?} is no base64.")))?;
                bytes.push(2);
                add(&mut bytes, &content);
            }
            _ => return Err(invalid(format!("The attribute {name:?} has no value."))),
        }
    }
    Ok(format!("{:x}", md5::compute(&bytes)))
}

pub(super) fn sent_answer(queue: &Queue, id: &str, seq: i64, digests: Digests) -> Value {
    let mut told = json!({ "MessageId": id, "MD5OfMessageBody": digests.body });
    if let Some(digest) = digests.attributes {
        told["MD5OfMessageAttributes"] = digest.into();
    }
    if let Some(digest) = digests.system {
        told["MD5OfMessageSystemAttributes"] = digest.into();
    }
    if queue.fifo {
        told["SequenceNumber"] = format!("{seq:020}").into();
    }
    told
}

/// A message as `ReceiveMessage` answers it.
pub(super) fn describe(message: &Message, wanted: &impl Fn(&str) -> bool, wanted_attributes: &[String]) -> Value {
    let mut described = json!({
        "MessageId": message.id,
        "ReceiptHandle": message.receipt,
        "Body": message.body,
        "MD5OfBody": format!("{:x}", md5::compute(&message.body)),
    });
    let mut system = system_attributes(message);
    system.retain(|name, _| wanted(name));
    if !system.is_empty() {
        described["Attributes"] = Value::Object(system);
    }
    if let Some(Value::Object(mut attributes)) = message
        .attributes
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
    {
        attributes.retain(|name, _| {
            wanted_attributes.iter().any(|wanted| {
                wanted == "All"
                    || wanted == name
                    || wanted.strip_suffix(".*").is_some_and(|prefix| name.starts_with(prefix))
            })
        });
        if !attributes.is_empty() {
            if let Ok(digest) = digest_of_attributes(&attributes) {
                described["MD5OfMessageAttributes"] = digest.into();
            }
            described["MessageAttributes"] = Value::Object(attributes);
        }
    }
    described
}

/// The attributes of a message that the queue sets.
pub(crate) fn system_attributes(message: &Message) -> Map<String, Value> {
    let mut system = Map::new();
    let mut set = |name: &str, value: String| system.insert(name.to_owned(), value.into());
    set("SenderId", message.sender.clone());
    set("SentTimestamp", message.sent.to_string());
    set("ApproximateReceiveCount", message.received.to_string());
    set("ApproximateFirstReceiveTimestamp", message.first_received.to_string());
    if let Some(group) = &message.group {
        set("MessageGroupId", group.clone());
        set("SequenceNumber", format!("{:020}", message.seq));
    }
    if let Some(dedup) = &message.dedup {
        set("MessageDeduplicationId", dedup.clone());
    }
    if let Some(trace) = &message.trace {
        set("AWSTraceHeader", trace.clone());
    }
    system
}
