//! The agent of a session that has a container of its own, such as an ECS task: the container is
//! the sandbox, and its maker describes the session in one environment variable.
//!
//! It makes its own key, and tells the public half to the token that the driver sends to the
//! session's queue. Its credentials are the container's; what runs in the session has the same
//! ones, so what matters is signed with the key, which is in this process's memory alone.

use crate::{
    clock::boot_time,
    place::{Container, Place},
    spec::AgentSpec,
    supervisor::supervise_session,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_sdk_sqs::config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::{Code, Failure, agent::AgentSettings, names};
use rustix::process::DumpableBehavior;
use serde::Deserialize;
use std::{
    env, io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
};

/// The address at which ECS answers a task that asks for its credentials.
const ECS: &str = "169.254.170.2:80";

/// Is the agent of the session that this container is for, until its lease has run out. It builds a
/// runtime of its own: call it before there is one.
///
/// # Errors
///
/// When the environment does not say what the session is. Final: the maker of the container is
/// wrong.
pub fn supervise_container() -> anyhow::Result<()> {
    let born = boot_time();
    let _ = tracing_subscriber::fmt()
        // On a full disk its own complaint would go to standard error, and panic there.
        .log_internal_errors(false)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("PFSESSION_LOG").unwrap_or_else(|_| "info".into()))
        .with_writer(io::stderr)
        .try_init();
    // Its key is for no other process of this user, and for no core file.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let told = env::var(names::AGENT).map_err(|_| anyhow::anyhow!("{} is not set", names::AGENT))?;
    let told: AgentSettings = serde_json::from_str(&told)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let refused = (now > u128::from(told.until)).then(|| {
        Failure::new(
            Code::SessionLaunchTooLate,
            "The container came up too late: its image took long to pull, or its machine was busy. Start the session again.",
        )
    });
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let state = env::var_os("PFSESSION_STATE").map_or_else(|| env::temp_dir().join("pfsession"), PathBuf::from);
    let session = state
        .join("sessions")
        .join(&told.flow)
        .join(told.generation.to_string());
    std::fs::create_dir_all(&session)?;
    let container = clients(&told.region, refused)?;
    let spec = AgentSpec {
        flow: told.flow,
        service: env::var(names::SERVICE).ok().filter(|url| !url.is_empty()),
        holder: None,
        image: told.image,
        generation: told.generation,
        settings: told.settings,
        state,
        session,
        endpoint: None,
        region: told.region,
        queue_url: told.queue_url,
        reports_queue_url: told.reports_queue_url,
        credentials: None,
        private_key: BASE64.encode(secret),
        python: None,
        places: Vec::new(),
        user: None,
        has_snapshots: true,
        log: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, supervise_session(spec, born, Place::Container(container)))
}

fn clients(region: &str, refused: Option<Failure>) -> anyhow::Result<Container> {
    let endpoint = env::var("AWS_ENDPOINT_URL").ok();
    let http = match &endpoint {
        Some(url) if url.starts_with("http://") => Builder::new().build_http(),
        _ => Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https(),
    };
    let credentials = match (env::var("AWS_ACCESS_KEY_ID"), env::var("AWS_SECRET_ACCESS_KEY")) {
        (Ok(id), Ok(secret)) => {
            let token = env::var("AWS_SESSION_TOKEN").ok();
            SharedCredentialsProvider::new(Credentials::new(id, secret, token, None, "environment"))
        }
        _ => SharedCredentialsProvider::new(OfTheTask {
            path: env::var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
                .map_err(|_| anyhow::anyhow!("the container has no credentials: its task has no role"))?,
        }),
    };
    // A receive waits 20 s at the queue.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(30))
        .build();
    macro_rules! client {
        ($sdk:ident, $retry:expr) => {{
            let mut config = $sdk::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(region.to_owned()))
                .credentials_provider(credentials.clone())
                .http_client(http.clone())
                .timeout_config(timeouts.clone())
                .retry_config($retry);
            if let Some(endpoint) = &endpoint {
                config = config.endpoint_url(endpoint);
            }
            $sdk::Client::from_conf(config.build())
        }};
    }
    Ok(Container {
        queues: client!(aws_sdk_sqs, RetryConfig::disabled()),
        credentials: credentials.clone(),
        machines: client!(aws_sdk_sfn, RetryConfig::standard().with_max_attempts(8)),
        refused,
    })
}

/// The credentials of an ECS task. They are asked for anew before they expire.
#[derive(Debug)]
struct OfTheTask {
    path: String,
}

/// # Source
///
/// The answer of the credentials endpoint (Amazon ECS developer guide, *Task IAM role*).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

impl ProvideCredentials for OfTheTask {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let text = ask(ECS, &self.path).await.map_err(CredentialsError::provider_error)?;
            credentials_of(&text).map_err(CredentialsError::provider_error)
        })
    }
}

async fn ask(address: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.take(1 << 16).read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other("the container's credentials were refused")),
    }
}

fn credentials_of(text: &str) -> Result<Credentials, Box<dyn std::error::Error + Send + Sync>> {
    use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
    let answer: Answer = serde_json::from_str(text).map_err(|_| "the answer is none")?;
    let expires = DateTime::from_str(&answer.expiration, DateTimeFormat::DateTime)?;
    let expires = SystemTime::try_from(expires)?;
    let Answer {
        access_key_id,
        secret_access_key,
        token,
        ..
    } = answer;
    Ok(Credentials::new(
        access_key_id,
        secret_access_key,
        Some(token),
        Some(expires),
        "task",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_credentials_of_a_task_are_asked_for_and_known_to_expire() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let endpoint = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 100];
            let read = stream.read(&mut request).await.unwrap();
            let body = r#"{"RoleArn":"r","AccessKeyId":"id","SecretAccessKey":"secret","Token":"t","Expiration":"2030-01-02T03:04:05Z"}"#;
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").as_bytes())
                .await
                .unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let credentials = credentials_of(&ask(&address, "/v2/credentials/x").await.unwrap()).unwrap();
        assert!(
            endpoint
                .await
                .unwrap()
                .starts_with("GET /v2/credentials/x HTTP/1.0\r\n")
        );
        assert_eq!(
            (credentials.access_key_id(), credentials.session_token()),
            ("id", Some("t"))
        );
        let expires = credentials.expiry().unwrap().duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(expires.as_secs(), 1_893_553_445);
        assert!(credentials_of("{}").is_err());
    }
}
