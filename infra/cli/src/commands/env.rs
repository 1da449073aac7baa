//! `pfsession env`.

use crate::{
    command::{Execute, Printed},
    global::{Done, Service},
    text::{self, out_as_said, out_json},
};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Print environment variables for AWS tools that use the service on this machine
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  eval \"$(pfsession env)\" && aws sqs list-queues --endpoint-url \"$AWS_ENDPOINT_URL\"")]
pub(crate) struct Env {}

/// Environment variables.
pub(crate) enum Variables {}

impl Printed for Variables {
    fn schema() -> Option<Value> {
        Some(json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "additionalProperties": { "type": "string" }, "required": ["AWS_ENDPOINT_URL", "PFSESSION_COMMANDS_URL"],
        }))
    }
}

impl Execute for Env {
    type Json = Variables;

    fn execute(&self, service: &Service<'_>) -> Done {
        let host = service.local()?.find_or_start()?;
        let variables = [
            ("AWS_ENDPOINT_URL", &host.endpoint),
            ("AWS_REGION", &host.region),
            ("AWS_DEFAULT_REGION", &host.region),
            ("AWS_ACCESS_KEY_ID", &host.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &host.secret_access_key),
            ("PFSESSION_COMMANDS_URL", &host.commands_queue_url),
        ];
        if service.global.json {
            out_json(&variables.into_iter().collect::<BTreeMap<_, _>>());
        } else {
            variables
                .iter()
                .for_each(|(name, value)| out_as_said(&format!("export {name}={}", text::quoted(value))));
        }
        Ok(0)
    }
}
