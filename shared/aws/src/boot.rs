//! The clients, made of what a Lambda function finds in its environment.

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::config::{
    BehaviorVersion, Region, SharedCredentialsProvider, retry::RetryConfig, timeout::TimeoutConfig,
};
use contract::names;
use lifecycle::size::Offer;
use snapshots::RunStore;
use std::{env, time::Duration};

/// Everything that a handler needs of the outside.
pub struct Aws {
    pub(crate) dynamo: aws_sdk_dynamodb::Client,
    pub(crate) sqs: aws_sdk_sqs::Client,
    pub(crate) sfn: aws_sdk_sfn::Client,
    pub(crate) table: String,
    pub(crate) state_machine: Option<String>,
    pub(crate) commands: Option<String>,
    pub(crate) notices: Option<String>,
    pub(crate) commands_dead: Option<String>,
    pub(crate) compute_requests: Option<String>,
    pub(crate) own_queue: Option<String>,
    pub(crate) sessions_per_user: usize,
    pub(crate) offer: Offer,
    /// The namespace of metrics, if anybody collects them.
    pub(crate) metrics: Option<String>,
    pub(crate) trusted_senders: Vec<String>,
    pub(crate) webhook_senders: Vec<String>,
    pub(crate) driver_senders: Vec<String>,
    /// The files of runs.
    pub run_files: RunStore,
    /// The roles that a session may be started with.
    pub identities: Vec<String>,
}

/// Makes the clients out of this process's environment, and starts the log.
///
/// # Errors
///
/// As [`made_of`].
pub fn boot() -> Result<Aws, lambda_runtime::Error> {
    start_log();
    make_from(|name| env::var(name).ok())
}

/// Makes the clients.
///
/// * `look`: gives the value of an environment variable.
///
/// Credentials and region are what the Lambda service puts into the environment, so no chain of
/// providers is asked for them. That keeps the start of a function short and four crates out of its
/// binary.
///
/// # Errors
///
/// When a variable that must be there is not: final, the template is wrong.
pub fn make_from(look: impl Fn(&str) -> Option<String>) -> Result<Aws, lambda_runtime::Error> {
    let variable = |name: &str| look(name).ok_or_else(|| format!("the environment variable {name} is not set"));
    let credentials = Credentials::new(
        variable("AWS_ACCESS_KEY_ID")?,
        variable("AWS_SECRET_ACCESS_KEY")?,
        look("AWS_SESSION_TOKEN"),
        None,
        "environment",
    );
    let credentials = SharedCredentialsProvider::new(credentials);
    let region = Region::new(variable("AWS_REGION")?);
    let endpoint = look("AWS_ENDPOINT_URL");
    let (http, endpoint) = socket::http_client(endpoint.as_deref());
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(Duration::from_secs(5))
        .build();

    macro_rules! client {
        ($sdk:ident) => {{
            let mut config = $sdk::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(region.clone())
                .credentials_provider(credentials.clone())
                .http_client(http.clone())
                .timeout_config(timeouts.clone())
                .retry_config(RetryConfig::standard().with_max_attempts(3));
            if let Some(endpoint) = endpoint {
                config = config.endpoint_url(endpoint);
            }
            $sdk::Client::from_conf(config.build())
        }};
    }
    let list = |name| names_in(look(name));
    Ok(Aws {
        dynamo: client!(aws_sdk_dynamodb),
        sqs: client!(aws_sdk_sqs),
        sfn: client!(aws_sdk_sfn),
        table: variable(names::TABLE)?,
        state_machine: look(names::STATE_MACHINE),
        commands: look(names::COMMANDS.url_variable),
        notices: look(names::NOTICES.url_variable),
        commands_dead: look(names::COMMANDS_DEAD.url_variable),
        compute_requests: look(names::COMPUTE_REQUESTS.url_variable),
        own_queue: look(names::OWN_QUEUE),
        sessions_per_user: look(names::SESSIONS_PER_USER)
            .and_then(|n| n.parse().ok())
            .unwrap_or(20),
        offer: offer(look(names::COMPUTE_SUBNETS)),
        metrics: look(names::METRICS).filter(|namespace| !namespace.is_empty()),
        trusted_senders: list(names::TRUSTED_SENDERS),
        webhook_senders: list(names::WEBHOOK_SENDERS),
        driver_senders: list(names::DRIVER_SENDERS),
        run_files: RunStore::from_environment(&look),
        identities: list(names::IDENTITIES),
    })
}

/// The names of a list with commas between them.
fn names_in(list: Option<String>) -> Vec<String> {
    let list = list.unwrap_or_default();
    let names = list.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn offer(subnets: Option<String>) -> Offer {
    if subnets.unwrap_or_default().is_empty() {
        Offer::WholeMachine
    } else {
        Offer::Ec2
    }
}

/// Starts the log: JSON lines on standard output, as CloudWatch takes them; `RUST_LOG` sets the
/// level.
pub fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // A second start in the same process keeps the first.
    let _ = tracing_subscriber::fmt()
        // On a full disk its own complaint would go to standard error, and panic there.
        .log_internal_errors(false)
        .json()
        .with_env_filter(filter)
        .with_current_span(false)
        .try_init();
}
