//! The resources of a template.

use super::{Function, Read, Schedule, Scope, Unsupported, entries, no, refuse_unknown, scalar};
use crate::{queues::Settings, sqs::arn};
use serde_json::json;
use serde_yaml_ng::{Mapping, Value};
use std::{collections::BTreeMap, time::Duration};

impl Scope<'_> {
    pub(super) fn queue(&self, logical: &str, properties: &Mapping) -> Read<(String, Settings)> {
        let known = [
            "QueueName",
            "FifoQueue",
            "VisibilityTimeout",
            "RedrivePolicy",
            "MessageRetentionPeriod",
            "DelaySeconds",
            "ReceiveMessageWaitTimeSeconds",
            "SqsManagedSseEnabled",
            "Tags",
        ];
        refuse_unknown(logical, properties, &known)?;
        let name = self.name(logical, properties, "QueueName")?;
        let fifo = properties.get("FifoQueue").and_then(Value::as_bool).unwrap_or(false);
        if fifo != name.ends_with(".fifo") {
            return no(format!("{logical} is called {name}, and FifoQueue is {fifo}"));
        }
        let mut settings = Settings::default();
        let milliseconds = |property: &str, default: i64| match properties.get(property) {
            None => Ok(default),
            Some(value) => match self.text(logical, value)?.parse::<i64>() {
                Ok(seconds) => Ok(seconds * 1000),
                Err(_) => no(format!("{logical} has a {property} that is no number")),
            },
        };
        settings.visibility = milliseconds("VisibilityTimeout", settings.visibility)?;
        settings.retention = milliseconds("MessageRetentionPeriod", settings.retention)?;
        settings.delay = milliseconds("DelaySeconds", settings.delay)?;
        settings.wait = milliseconds("ReceiveMessageWaitTimeSeconds", settings.wait)?;
        if let Some(policy) = properties.get("RedrivePolicy") {
            let target = policy
                .get("deadLetterTargetArn")
                .map(|target| self.text(logical, target))
                .transpose()?;
            let target = target.and_then(|arn| arn.rsplit(':').next().map(str::to_owned));
            let most = policy
                .get("maxReceiveCount")
                .and_then(Value::as_u64)
                .and_then(|most| u32::try_from(most).ok());
            match (target, most) {
                (Some(target), Some(most)) => settings.dead_letter = Some((target, most)),
                _ => return no(format!("{logical} has a RedrivePolicy that cannot be read")),
            }
        }
        Ok((name, settings))
    }

    pub(super) fn table(&self, logical: &str, properties: &Mapping) -> Read<(serde_json::Value, Option<String>)> {
        let known = [
            "TableName",
            "BillingMode",
            "AttributeDefinitions",
            "KeySchema",
            "GlobalSecondaryIndexes",
            "TimeToLiveSpecification",
            "PointInTimeRecoverySpecification",
            "SSESpecification",
            "DeletionProtectionEnabled",
            "Tags",
        ];
        refuse_unknown(logical, properties, &known)?;
        let mut create =
            json!({ "TableName": self.name(logical, properties, "TableName")?, "BillingMode": "PAY_PER_REQUEST" });
        for property in ["AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes"] {
            if let Some(value) = properties.get(property) {
                create[property] = self.json(logical, value)?;
            }
        }
        let expires = properties
            .get("TimeToLiveSpecification")
            .and_then(|ttl| ttl.get("AttributeName"))
            .and_then(scalar);
        Ok((create, expires))
    }

    pub(super) fn machine(&self, logical: &str, properties: &Mapping) -> Read<(String, BTreeMap<String, String>)> {
        let known = [
            "Name",
            "DefinitionUri",
            "DefinitionSubstitutions",
            "Role",
            "Policies",
            "Type",
            "Logging",
            "Tracing",
            "Tags",
        ];
        refuse_unknown(logical, properties, &known)?;
        if properties.get("DefinitionUri").and_then(Value::as_str) != Some("lifecycle.asl.json") {
            return no(format!("{logical} has a DefinitionUri that is not lifecycle.asl.json"));
        }
        let substitutions = entries(properties.get("DefinitionSubstitutions"))
            .map(|(name, value)| Ok((name.to_owned(), self.text(logical, value)?)))
            .collect::<Read<_>>()?;
        Ok((self.name(logical, properties, "Name")?, substitutions))
    }

    pub(super) fn function(&self, logical: &str, properties: &Mapping, globals: &Mapping) -> Read<Function> {
        let known = [
            "FunctionName",
            "CodeUri",
            "Environment",
            "Events",
            "Role",
            "Policies",
            "Timeout",
            "MemorySize",
            "FunctionUrlConfig",
            "Runtime",
            "Handler",
            "Architectures",
            "Description",
            "ReservedConcurrentExecutions",
            "Tracing",
            "LoggingConfig",
            "Tags",
        ];
        refuse_unknown("Globals.Function", globals, &known)?;
        refuse_unknown(logical, properties, &known)?;
        let number = |property: &str, default: u64| match properties.get(property).or_else(|| globals.get(property)) {
            None => Ok(default),
            Some(value) => self
                .text(logical, value)?
                .parse()
                .map_err(|_| Unsupported(format!("{logical} has a {property} that is no number"))),
        };
        let mut environment = BTreeMap::new();
        for of in [globals, properties] {
            for (name, value) in entries(
                of.get("Environment")
                    .and_then(|environment| environment.get("Variables")),
            ) {
                environment.insert(name.to_owned(), self.text(logical, value)?);
            }
        }
        Ok(Function {
            name: self.name(logical, properties, "FunctionName")?,
            timeout: Duration::from_secs(number("Timeout", 3)?),
            memory: number("MemorySize", 128)?,
            environment,
            source: self.source(logical, properties)?,
            has_url: properties.contains_key("FunctionUrlConfig"),
        })
    }

    /// The queue that feeds a function, and the most messages that it takes at once.
    pub(super) fn source(&self, logical: &str, properties: &Mapping) -> Read<Option<(String, usize)>> {
        let mut source = None;
        for (event, wanted) in entries(properties.get("Events")) {
            let (Some("SQS"), Some(wanted)) = (wanted.get("Type").and_then(Value::as_str), wanted.get("Properties"))
            else {
                return no(format!("{logical} has the event {event}, which is not from a queue"));
            };
            let Some(wanted) = wanted.as_mapping() else {
                return no(format!("{logical}: {event} cannot be read"));
            };
            refuse_unknown(
                &format!("{logical}, {event},"),
                wanted,
                &["Queue", "BatchSize", "FunctionResponseTypes"],
            )?;
            let queue = wanted
                .get("Queue")
                .map(|queue| self.text(logical, queue))
                .transpose()?
                .unwrap_or_default();
            let most = wanted
                .get("BatchSize")
                .and_then(Value::as_u64)
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(10);
            let partial = wanted
                .get("FunctionResponseTypes")
                .and_then(Value::as_sequence)
                .is_some_and(|types| {
                    types
                        .iter()
                        .any(|kind| kind.as_str() == Some("ReportBatchItemFailures"))
                });
            if !partial {
                return no(format!(
                    "{logical}: {event} does not report failures message by message"
                ));
            }
            if source
                .replace((queue.rsplit(':').next().unwrap_or_default().to_owned(), most))
                .is_some()
            {
                return no(format!("{logical} has two queues"));
            }
        }
        Ok(source)
    }

    pub(super) fn schedule(&self, logical: &str, properties: &Mapping) -> Read<Schedule> {
        let known = [
            "Name",
            "ScheduleExpression",
            "FlexibleTimeWindow",
            "Target",
            "State",
            "Description",
        ];
        refuse_unknown(logical, properties, &known)?;
        let rate = properties
            .get("ScheduleExpression")
            .map(|rate| self.text(logical, rate))
            .transpose()?
            .unwrap_or_default();
        let Some(target) = properties.get("Target") else {
            return no(format!("{logical} has no Target"));
        };
        let queue = target
            .get("Arn")
            .map(|target| self.text(logical, target))
            .transpose()?
            .unwrap_or_default();
        let Some(queue) = queue.strip_prefix(&arn("")) else {
            return no(format!("{logical} has a target that is no queue"));
        };
        let Some(every) = every(&rate) else {
            return no(format!("{logical} has the schedule {rate:?}"));
        };
        Ok(Schedule {
            name: logical.to_owned(),
            every,
            queue: queue.to_owned(),
            input: target
                .get("Input")
                .map(|input| self.text(logical, input))
                .transpose()?
                .unwrap_or_else(|| "{}".into()),
        })
    }
}

/// Reads `rate(5 minutes)`. Also seconds and milliseconds, which a host on one machine has.
pub(super) fn every(rate: &str) -> Option<Duration> {
    let (count, unit) = rate.strip_prefix("rate(")?.strip_suffix(')')?.split_once(' ')?;
    let milliseconds = match unit.strip_suffix('s').unwrap_or(unit) {
        "millisecond" => 1,
        "second" => 1000,
        "minute" => 60_000,
        "hour" => 3_600_000,
        "day" => 86_400_000,
        _ => return None,
    };
    count
        .parse::<u64>()
        .ok()
        .filter(|count| *count > 0)
        .map(|count| Duration::from_millis(count * milliseconds))
}
