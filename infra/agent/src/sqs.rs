//! A client of SQS, for the agent and for the driver that serves a control plane elsewhere.

use crate::spec::AgentCredentials;
use aws_credential_types::Credentials;
use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
};
use std::time::Duration;

/// A client that tries once: the caller knows what is worth another try.
///
/// * `endpoint`: where SQS is, as [`socket::http_client`] takes it; without it, AWS's own of the
///   region.
pub fn client(endpoint: Option<&str>, region: &str, credentials: &AgentCredentials) -> Client {
    let AgentCredentials {
        access_key,
        secret_key,
        session_token,
    } = credentials;
    let credentials = Credentials::new(access_key, secret_key, session_token.clone(), None, "given");
    // A receive waits 20 s at the queue.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(Duration::from_secs(30))
        .build();
    let mut config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    let (http, url) = socket::http_client(endpoint);
    if let Some(url) = url {
        config = config.endpoint_url(url);
    }
    Client::from_conf(config.http_client(http).build())
}

/// Whether a message is refused for what is in it, so that sending it again is of no use.
pub fn is_refused_for_good<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    const FINAL: [&str; 5] = [
        "InvalidMessageContents",
        "InvalidParameterValue",
        "InvalidParameterCombination",
        "BatchRequestTooLong",
        "UnsupportedOperation",
    ];
    let code = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
        .unwrap_or("");
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    status == 413 || FINAL.iter().any(|known| code.ends_with(known))
}

/// An error with all that caused it; the SDK's own words say nothing.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
