//! `webhook`: takes signed requests from outside and turns them into commands, as the workspace's
//! rules say.
//!
//! `POST /webhook/{workspace}/{sender}`, with the headers of Standard Webhooks or of GitHub.
//!
//! | answer | when |
//! | --- | --- |
//! | 202 [`Taken`] | it became commands; their ids are those of operations and runs |
//! | 200 [`Taken`] | it had been taken before: nothing happens again |
//! | 204 | it is genuine, and no rule is about it |
//! | 400 `Webhook.Stale`, `Webhook.Malformed` | it is genuine, and too old, or nothing that can be read |
//! | 401 `Webhook.NotGenuine` | everything else, with one and the same text: who has no secret learns nothing |
//! | 413 `Webhook.TooLarge` | more than [`MOST_BYTES`] |
//! | 503 `Http.TryAgain` | send it again |
//!
//! * [`signature`]: whether a delivery is genuine.
//! * [`event`]: what it says happened, and which rules are about that.
//!
//! A delivery has no right beyond the rules. accept-command holds each command against them once
//! more.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod event;
mod secrets;
mod signature;

use aws::Aws;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::{
    Millis,
    command::Command,
    http::{Problem, Request},
    webhook::{DeliveryRow, MOST_BYTES, Rule, Taken},
};
use event::Occurrence;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use lifecycle::{Code, Failure};
use percent_encoding::percent_decode_str;
use secrets::Secrets;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shell::{Fault, Ports};
use signature::{Genuine, Signed};
use std::sync::Arc;

/// Serves until the Lambda service ends the process.
///
/// # Errors
///
/// When the environment is wrong or the runtime API is gone. Final for this process.
pub async fn run() -> Result<(), Error> {
    let aws = Arc::new(aws::boot()?);
    let secrets = Arc::new(Secrets::from_environment()?);
    let answer = |event: LambdaEvent<Value>| {
        let (aws, secrets) = (aws.clone(), secrets.clone());
        async move {
            let answer = async {
                let answer = match serde_json::from_value::<Request>(event.payload) {
                    Ok(request) => Box::pin(handle(&aws, &secrets, &request)).await,
                    Err(_) => Answer::Refused(400, Failure::new(Code::WebhookMalformed, "This is no HTTP request.")),
                };
                Ok::<Value, Error>(answer.response())
            };
            // Without its body: that is somebody else's words.
            aws::trace_work(event.context.xray_trace_id.as_deref(), "", answer).await
        }
    };
    lambda_runtime::run(service_fn(answer)).await
}

/// The answer to a sender.
#[derive(Debug, PartialEq)]
enum Answer {
    Taken(Taken),
    /// Genuine, and about nothing that a rule names.
    Nothing,
    Refused(u16, Failure),
}

impl Answer {
    fn response(&self) -> Value {
        let json = |status: u16, body: &dyn Fn() -> Value| {
            json!({
                "statusCode": status,
                "headers": { "content-type": "application/json" },
                "body": body().to_string(),
            })
        };
        match self {
            Self::Taken(taken) => json(if taken.already { 200 } else { 202 }, &|| as_json(taken)),
            Self::Nothing => json!({ "statusCode": 204 }),
            Self::Refused(status, failure) => json(*status, &|| as_json(&Problem { error: failure.clone() })),
        }
    }
}

fn as_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

async fn handle(aws: &Aws, secrets: &Secrets, request: &Request) -> Answer {
    let delivery = match read(request, |address| secrets.of(address), aws.now()) {
        Ok(delivery) => delivery,
        Err(refused) => return refused,
    };
    match Box::pin(take(aws, &delivery)).await {
        Ok(answer) => answer,
        Err(fault) => {
            tracing::warn!(
                fault = fault.code().as_str(),
                cause = ?fault,
                sender = delivery.sender,
                delivery = delivery.genuine.id,
                "a delivery is not taken"
            );
            Answer::Refused(
                503,
                Failure::new(
                    Code::HttpTryAgain,
                    "The service could not do this now. Send it again in a moment.",
                ),
            )
        }
    }
}

/// A genuine delivery.
#[derive(Debug)]
struct Delivery {
    workspace: String,
    sender: String,
    genuine: Genuine,
    occurrence: Occurrence,
}

/// Reads a request, and tells whether it is genuine. Nothing is looked up for one that is not.
///
/// * `secrets`: those of an address, `workspace/sender`; none for one that there is not.
fn read(request: &Request, secrets: impl FnOnce(&str) -> Vec<String>, now: Millis) -> Result<Delivery, Answer> {
    let refused = |status: u16, error: Code, message: &str| Answer::Refused(status, Failure::new(error, message));
    let not_genuine = || {
        refused(
            401,
            Code::WebhookNotGenuine,
            "This is not the address of a sender, or the signature is not made with its secret over this body. Compare both with what was given out when the sender was added.",
        )
    };
    let too_large = || {
        let most = format!("A delivery has at most {MOST_BYTES} bytes. Have its sender leave out what it can.");
        refused(413, Code::WebhookTooLarge, &most)
    };
    if request.request_context.http.method != "POST" {
        return Err(refused(405, Code::WebhookNotPost, "Deliveries are sent by POST."));
    }
    let text = request.body.as_deref().unwrap_or_default();
    if text.len() > MOST_BYTES * 4 / 3 + 4 {
        return Err(too_large());
    }
    let decoded;
    let body: &[u8] = if request.is_base64_encoded {
        decoded = BASE64
            .decode(text)
            .map_err(|_| refused(400, Code::WebhookMalformed, "The body is not base64."))?;
        &decoded
    } else {
        text.as_bytes()
    };
    if body.len() > MOST_BYTES {
        return Err(too_large());
    }
    let path: Vec<&str> = request.raw_path.split('/').filter(|part| !part.is_empty()).collect();
    let ["webhook", workspace, sender] = path[..] else {
        return Err(not_genuine());
    };
    let (workspace, sender) = (decode_path(workspace), decode_path(sender));
    let signed = Signed::of(&request.headers).ok_or_else(not_genuine)?;
    let genuine = signed
        .check(body, &secrets(&format!("{workspace}/{sender}")))
        .ok_or_else(not_genuine)?;
    genuine
        .check_time(now)
        .map_err(|why| refused(400, Code::WebhookStale, &why))?;
    let occurrence = Occurrence::read(&signed, body).map_err(|why| refused(400, Code::WebhookMalformed, &why))?;
    Ok(Delivery {
        workspace,
        sender,
        genuine,
        occurrence,
    })
}

/// Does what the rules say of a genuine delivery, once.
///
/// It is recorded before anything is sent. The same delivery under the same id is sent again: a
/// crash in between loses nothing, and commands are idempotent. Under another id it is a copy, and
/// nothing is done.
async fn take(aws: &Aws, delivery: &Delivery) -> Result<Answer, Fault> {
    let Delivery {
        workspace,
        sender,
        genuine,
        occurrence,
    } = delivery;
    let rules = aws
        .load_webhooks(workspace)
        .await?
        .map(|row| row.rules)
        .unwrap_or_default();
    let commands = commands(&rules, delivery);
    if commands.is_empty() {
        tracing::info!(
            workspace,
            sender,
            delivery = genuine.id,
            event = occurrence.event,
            "no rule is about this"
        );
        return Ok(Answer::Nothing);
    }
    let taken = DeliveryRow {
        delivery: genuine.id.clone(),
        taken: aws.now(),
        commands: commands.iter().map(|command| command.id.clone()).collect(),
    };
    let before = aws.take_delivery(workspace, sender, &genuine.digest, &taken).await?;
    let is_new_or_again = before.as_ref().is_none_or(|before| before.delivery == genuine.id);
    if is_new_or_again {
        for command in &commands {
            aws.command(command).await?;
        }
    }
    tracing::info!(
        workspace,
        sender,
        delivery = genuine.id,
        event = occurrence.event,
        already = before.is_some(),
        commands = taken.commands.join(","),
        "a delivery is taken"
    );
    Ok(Answer::Taken(Taken {
        already: before.is_some(),
        commands: before.unwrap_or(taken).commands,
    }))
}

/// The commands that a delivery becomes.
fn commands(rules: &[Rule], delivery: &Delivery) -> Vec<Command> {
    let Delivery {
        sender,
        genuine,
        occurrence,
        workspace,
    } = delivery;
    rules
        .iter()
        .filter(|rule| rule.sender == *sender && rule.flow.workspace == *workspace && rule.by.is_some())
        .filter(|rule| occurrence.is_meant_by(rule))
        .map(|rule| Command {
            id: command_id(delivery, &rule.name, &genuine.id),
            flow: rule.flow.clone(),
            principal: rule.by.clone(),
            wish: rule.wish.clone(),
        })
        .collect()
}

/// The id of a command: the delivery's own, with what tells it from the same delivery to another
/// rule, sender or workspace.
fn command_id(delivery: &Delivery, rule: &str, id: &str) -> String {
    /// Together with 16 digits and a dash, within what a run's id may be.
    const LONGEST: usize = 50;
    let of = |parts: &[&str], most: usize| {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex::encode(&hash.finalize()[..most])
    };
    let name = if contract::command::is_good_id(id) && id.len() <= LONGEST {
        id.to_owned()
    } else {
        of(&[id], 16)
    };
    format!("{name}-{}", of(&[&delivery.workspace, &delivery.sender, rule, id], 8))
}

/// A part of a path, with `%xx` read. Some fronts hand it on read already.
fn decode_path(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests;
