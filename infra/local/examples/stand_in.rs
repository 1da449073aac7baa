//! Stands in for `pfsession` in this crate's tests: `stand_in host FOLDER` is a host, and `stand_in
//! function NAME` each of its functions.
//!
//! The functions do what the tests need of them:
//!
//! * `api` answers a request with its event; the path `/v1/crash` ends the process, `/v1/wait`
//!   answers after 300 ms.
//! * `accept-command` starts an execution for a body `{"execution": NAME, "kind": KIND}`; `{"do":
//!   "fail" | "crash" | "hang"}` does that, the first time that the message comes.
//! * the steps' functions answer their token; `agent-report` and `idle-tick` take what comes.

use aws_credential_types::Credentials;
use aws_sdk_sfn::config::{BehaviorVersion, Region, SharedCredentialsProvider};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use local::{Config, serve};
use serde_json::{Value, json};
use std::{env, io::Write, time::Duration};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["host", folder] => {
            let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
            let config = Config {
                state: folder.into(),
                executable: env::current_exe()?,
                functions_dir: None,
                port: None,
                idle_exit: number("IDLE_EXIT_MS").map(Duration::from_millis),
                faults: env::var("PFSESSION_FAULTS").ok().map(|plan| plan.parse()).transpose()?,
                user: "ann".to_owned(),
            };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(serve(config, |file| {
                println!("{}", file.endpoint);
                let _ = std::io::stdout().flush();
            }))?;
            Ok(())
        }
        ["function", name] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(function((*name).to_owned()))
        }
        _ => Err("stand_in host FOLDER | stand_in function NAME".into()),
    }
}

async fn function(name: String) -> Result<(), Error> {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let credentials = Credentials::new(
        variable("AWS_ACCESS_KEY_ID"),
        variable("AWS_SECRET_ACCESS_KEY"),
        None,
        None,
        "environment",
    );
    let endpoint = variable("AWS_ENDPOINT_URL");
    let (http, url) = socket::http_client(Some(&endpoint));
    let config = aws_sdk_sfn::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(variable("AWS_REGION")))
        .endpoint_url(url.unwrap_or_default())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http)
        .build();
    let sfn = &aws_sdk_sfn::Client::from_conf(config);
    let name = &name;
    let machine = &variable("PFSESSION_STATE_MACHINE");
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| async move {
        let event = event.payload;
        if name == "api" {
            return answer(event).await;
        }
        let mut failures = Vec::new();
        for record in event["Records"].as_array().into_iter().flatten() {
            let body: Value = serde_json::from_str(record["body"].as_str().unwrap_or_default()).unwrap_or_default();
            let first = record["attributes"]["ApproximateReceiveCount"] == "1";
            let failed = match (body["do"].as_str(), body["execution"].as_str(), body["token"].as_str()) {
                (Some("fail"), ..) => first,
                (Some("error"), ..) if first => return Err(Error::from("on purpose")),
                (Some("crash"), ..) if first => std::process::abort(),
                (Some("hang"), ..) if first => std::future::pending().await,
                (_, Some(execution), _) => {
                    let input = json!({ "kind": body["kind"], "flow": "f", "operation": execution }).to_string();
                    let started = sfn
                        .start_execution()
                        .state_machine_arn(machine)
                        .name(execution)
                        .input(input)
                        .send()
                        .await;
                    started.is_err_and(|e| !e.as_service_error().is_some_and(|e| e.is_execution_already_exists()))
                }
                (_, _, Some(token)) => {
                    let answered = sfn.send_task_success().task_token(token).output("{}").send().await;
                    answered.is_err_and(|e| {
                        !e.as_service_error()
                            .is_some_and(|e| e.is_task_timed_out() || e.is_task_does_not_exist())
                    })
                }
                _ => false,
            };
            if failed {
                failures.push(json!({ "itemIdentifier": record["messageId"] }));
            }
        }
        Ok(json!({ "batchItemFailures": failures }))
    }))
    .await
}

async fn answer(event: Value) -> Result<Value, Error> {
    match event["rawPath"].as_str() {
        Some("/v1/crash") => std::process::abort(),
        Some("/v1/wait") => tokio::time::sleep(Duration::from_millis(300)).await,
        _ => {}
    }
    Ok(json!({ "statusCode": 200, "headers": { "content-type": "application/json" }, "body": event.to_string() }))
}
