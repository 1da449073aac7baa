//! Checks of SQS, by its own names and limits.

use super::{MOST_ENTRIES, Outgoing};
use crate::{
    queues::{Settings, is_receipt},
    wire::AwsError,
};
use axum::body::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, HashSet},
    ops::RangeInclusive,
};

/// The name of the queue that an operation is about.
pub(super) fn subject(body: &Bytes) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Input {
        queue_url: Option<String>,
        queue_name: Option<String>,
    }
    let input: Input = serde_json::from_slice(body).ok()?;
    // Whatever the operation reads, it is this one or the other; naming two is naming none.
    match (input.queue_url, input.queue_name) {
        (Some(url), None) => Some(name_in(&url).to_owned()),
        (None, name) => name,
        _ => None,
    }
}

/// A queue is found by its name alone: the address before it may be an older one.
pub(super) fn name_in(url: &str) -> &str {
    url.trim_end_matches('/').rsplit('/').next().unwrap_or(url)
}

pub(super) fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::new("InvalidParameterValue", message).with_query_code("InvalidParameterValue")
}

pub(super) fn bad_receipt() -> AwsError {
    AwsError::new("ReceiptHandleIsInvalid", "This is no receipt of this host.")
        .with_query_code("ReceiptHandleIsInvalid")
}

pub(super) fn check_receipt(receipt: &str) -> Result<(), AwsError> {
    if is_receipt(receipt) {
        Ok(())
    } else {
        Err(bad_receipt())
    }
}

pub(super) fn visibility(seconds: i64) -> Result<i64, AwsError> {
    Ok(within("VisibilityTimeout", seconds, 0..=43_200)? * 1000)
}

/// A number that a parameter may have.
pub(super) fn within(parameter: &str, number: i64, allowed: RangeInclusive<i64>) -> Result<i64, AwsError> {
    if allowed.contains(&number) {
        return Ok(number);
    }
    Err(invalid(format!(
        "Value {number} for parameter {parameter} is invalid. Reason: Must be >= {} and <= {}, if provided.",
        allowed.start(),
        allowed.end()
    )))
}

/// Checks a parameter that names something of the sender's: 1 to 128 characters of ASCII that can
/// be seen.
pub(super) fn check_word(parameter: &str, word: Option<&str>) -> Result<(), AwsError> {
    let is_good = |word: &str| (1..=128).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic());
    match word {
        Some(word) if !is_good(word) => Err(invalid(format!(
            "{parameter} is 1 to 128 letters, digits and punctuation."
        ))),
        _ => Ok(()),
    }
}

/// Checks the attributes of a message.
///
/// # Source
///
/// "Amazon SQS message metadata" in the SQS developer guide.
pub(super) fn check_attributes(attributes: &Map<String, Value>) -> Result<(), AwsError> {
    if attributes.len() > 10 {
        return Err(invalid("A message has at most 10 attributes."));
    }
    let is_good = |name: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        (1..=256).contains(&name.len()) && name.bytes().all(is_plain)
    };
    match attributes.keys().find(|name| !is_good(name)) {
        Some(_) => Err(invalid(
            "An attribute's name is 1 to 256 letters, digits, _, - and periods.",
        )),
        None => Ok(()),
    }
}

/// The bytes of a message: its body and its attributes.
pub(super) fn size(message: &Outgoing) -> usize {
    let attributes = message.message_attributes.iter();
    let attributes = attributes.map(|(name, value)| name.len() + value.to_string().len());
    message.message_body.len() + attributes.sum::<usize>()
}

/// # Source
///
/// `SendMessage` in the SQS API reference: which characters a message may have.
pub(super) fn may_be_sent(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

pub(super) fn check_batch<'a>(ids: impl Iterator<Item = &'a str>) -> Result<(), AwsError> {
    let (mut seen, mut count) = (HashSet::new(), 0);
    for id in ids {
        count += 1;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if !(1..=80).contains(&id.len()) || !id.bytes().all(is_plain) {
            return Err(AwsError::new(
                "InvalidBatchEntryId",
                "An entry's id is 1 to 80 letters, digits, - and _.",
            )
            .with_query_code("AWS.SimpleQueueService.InvalidBatchEntryId"));
        }
        if !seen.insert(id) {
            return Err(
                AwsError::new("BatchEntryIdsNotDistinct", format!("The id {id:?} is there twice."))
                    .with_query_code("AWS.SimpleQueueService.BatchEntryIdsNotDistinct"),
            );
        }
    }
    match count {
        0 => Err(AwsError::new("EmptyBatchRequest", "The batch has no entries.")
            .with_query_code("AWS.SimpleQueueService.EmptyBatchRequest")),
        1..=MOST_ENTRIES => Ok(()),
        _ => Err(
            AwsError::new("TooManyEntriesInBatchRequest", "A batch has at most 10 entries.")
                .with_query_code("AWS.SimpleQueueService.TooManyEntriesInBatchRequest"),
        ),
    }
}

pub(super) fn settings_of(
    name: &str,
    base: Settings,
    attributes: &BTreeMap<String, Value>,
) -> Result<Settings, AwsError> {
    let mut settings = base;
    for (attribute, value) in attributes {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let number = |least: i64, most: i64| match text.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(AwsError::new(
                "InvalidAttributeValue",
                format!("{attribute} is from {least} to {most}."),
            )
            .with_query_code("InvalidAttributeValue")),
        };
        let seconds = |least, most| number(least, most).map(|seconds| seconds * 1000);
        match attribute.as_str() {
            "VisibilityTimeout" => settings.visibility = seconds(0, 43_200)?,
            "MessageRetentionPeriod" => settings.retention = seconds(60, 1_209_600)?,
            "DelaySeconds" => settings.delay = seconds(0, 900)?,
            "ReceiveMessageWaitTimeSeconds" => settings.wait = seconds(0, 20)?,
            "FifoQueue" if (text == "true") == name.ends_with(".fifo") => {}
            "MaximumMessageSize" => drop(number(1024, 1 << 20)?),
            "ContentBasedDeduplication" if text == "false" => {}
            "RedrivePolicy" => {
                let policy: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
                let most = match &policy["maxReceiveCount"] {
                    Value::String(text) => text.parse().ok(),
                    number => number.as_u64().and_then(|n| u32::try_from(n).ok()),
                };
                let target = policy["deadLetterTargetArn"]
                    .as_str()
                    .and_then(|arn| arn.rsplit(':').next());
                let most = most.filter(|most| (1..=1000).contains(most));
                let (Some(target), Some(most)) = (target, most) else {
                    return Err(AwsError::new(
                        "InvalidAttributeValue",
                        "RedrivePolicy names a dead-letter queue, and from 1 to 1000 receives.",
                    )
                    .with_query_code("InvalidAttributeValue"));
                };
                settings.dead_letter = Some((target.to_owned(), most));
            }
            _ => {
                return Err(AwsError::new(
                    "InvalidAttributeName",
                    format!("This host does not know {attribute}={text} for {name:?}."),
                )
                .with_query_code("InvalidAttributeName"));
            }
        }
    }
    Ok(settings)
}
