//! Our host, with functions that pass on what they get: `relay host FOLDER` is a host, and `relay
//! function NAME` each of its functions.
//!
//! The functions of the steps send each step to the queue `suite-steps`, where a test waits for it;
//! the others take what comes. So a test sees of our state machine what it sees of another one
//! whose steps all go to one queue.

use aws_credential_types::Credentials;
use aws_sdk_sqs::config::{BehaviorVersion, Region};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};
use std::{env, io::Write};

fn main() -> Result<(), Error> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["host", folder] => {
            let config = local::Config {
                state: folder.into(),
                executable: env::current_exe()?,
                functions_dir: None,
                port: None,
                idle_exit: None,
                faults: None,
                user: "ann".to_owned(),
            };
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(local::serve(config, |file| {
                println!("{}", file.endpoint);
                let _ = std::io::stdout().flush();
            }))?;
            Ok(())
        }
        ["function", _] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(function())
        }
        _ => Err("relay host FOLDER | relay function NAME".into()),
    }
}

async fn function() -> Result<(), Error> {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let (id, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    let endpoint = variable("AWS_ENDPOINT_URL");
    let (http, endpoint) = socket::http_client(Some(&endpoint));
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(variable("AWS_REGION")))
        .endpoint_url(endpoint.unwrap_or_default())
        .credentials_provider(Credentials::new(id, secret, None, None, "environment"))
        .http_client(http)
        .build();
    let sqs = &aws_sdk_sqs::Client::from_conf(config);
    let own = variable(contract::names::OWN_QUEUE);
    let to = &own
        .rsplit_once('/')
        .map(|(before, _)| format!("{before}/suite-steps"))
        .unwrap_or_default();
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| async move {
        for record in event.payload["Records"].as_array().into_iter().flatten() {
            let body = record["body"].as_str().unwrap_or_default();
            if body.contains("\"step\"") {
                sqs.send_message().queue_url(to).message_body(body).send().await?;
            }
        }
        Ok::<_, Error>(json!({ "batchItemFailures": [] }))
    }))
    .await
}
