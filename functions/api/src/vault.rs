//! The secrets of connections: Secrets Manager, as far as it is used. Only this function links its
//! SDK.

use aws_sdk_secretsmanager::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::SdkError,
};
use contract::names;
use shell::Fault;
use std::{collections::BTreeMap, time::Duration};

/// The longest name of a secret (AWS Secrets Manager, `CreateSecret`).
pub(crate) const LONGEST_NAME: usize = 512;

type Secrets = BTreeMap<String, String>;

/// The keeper of the secrets of connections.
pub(crate) struct Vault {
    client: Client,
    prefix: String,
}

impl Vault {
    /// `None` where no prefix is set: connections are kept by the machine itself there.
    pub(crate) fn from_environment() -> Option<Self> {
        let look = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let credentials = Credentials::new(
            look("AWS_ACCESS_KEY_ID")?,
            look("AWS_SECRET_ACCESS_KEY")?,
            look("AWS_SESSION_TOKEN"),
            None,
            "environment",
        );
        let endpoint = look("AWS_ENDPOINT_URL");
        let (http, endpoint) = socket::http_client(endpoint.as_deref());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(2))
            .operation_attempt_timeout(Duration::from_secs(5))
            .build();
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(look("AWS_REGION")?))
            .credentials_provider(credentials)
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(3));
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint);
        }
        Some(Self {
            client: Client::from_conf(config.build()),
            prefix: look(names::CONNECTIONS_PREFIX)?,
        })
    }

    /// The name of a connection's secret: `{prefix}{workspace}/user/{user}/{name}`, or
    /// `{prefix}{workspace}/workspace/{name}`.
    pub(crate) fn name(&self, workspace: &str, user: Option<&str>, name: &str) -> String {
        let whose = user.map_or_else(|| "workspace".to_owned(), |user| format!("user/{}", part(user)));
        format!("{}{}/{whose}/{}", self.prefix, part(workspace), part(name))
    }

    /// Reads a connection's secrets; `None` if there are none.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Secrets>, Fault> {
        match self.client.get_secret_value().secret_id(name).send().await {
            // What the parser says has parts of the text.
            Ok(found) => serde_json::from_str(found.secret_string().unwrap_or_default())
                .map(Some)
                .map_err(|_| outside("it is not what this version writes")),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_not_found_exception()) =>
            {
                Ok(None)
            }
            Err(error) => Err(outside(error_name(&error))),
        }
    }

    /// Writes a connection's secrets, in place of those before.
    pub(crate) async fn write(&self, name: &str, secrets: &Secrets) -> Result<(), Fault> {
        let text = serde_json::to_string(secrets).map_err(|_| outside("they are no JSON"))?;
        let created = self.client.create_secret().name(name).secret_string(&text).send().await;
        match created {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_exists_exception()) =>
            {
                let put = self.client.put_secret_value().secret_id(name).secret_string(&text);
                put.send()
                    .await
                    .map(|_| ())
                    .map_err(|error| outside(error_name(&error)))
            }
            Err(error) => Err(outside(error_name(&error))),
        }
    }

    /// Deletes a connection's secrets at once. What is gone already is no error.
    pub(crate) async fn forget(&self, name: &str) -> Result<(), Fault> {
        // A recovery window would keep the name taken, and a secret that somebody wants gone.
        let delete = self
            .client
            .delete_secret()
            .secret_id(name)
            .force_delete_without_recovery(true);
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_not_found_exception()) =>
            {
                Ok(())
            }
            Err(error) => Err(outside(error_name(&error))),
        }
    }
}

/// A part of a secret's name: what that may not have is written as + and its bytes, so that no two
/// are one.
///
/// # Source
///
/// AWS Secrets Manager, `CreateSecret`: a name has ASCII letters, digits and `/_+=.@-`.
fn part(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
    text.bytes()
        .map(|byte| match is_plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("+{byte:02X}"),
        })
        .collect()
}

/// The name of an error alone: an error of a request may hold the request.
fn error_name<E: aws_sdk_secretsmanager::error::ProvideErrorMetadata>(error: &SdkError<E>) -> String {
    let code = error.as_service_error().and_then(|error| error.code());
    code.unwrap_or("no answer").to_owned()
}

fn outside(why: impl Into<String>) -> Fault {
    Fault::outside("asking Secrets Manager")(std::io::Error::other(why.into()).into())
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn two_names_are_never_one_secret() {
        let names = ["my_model", "my model", "my+20model", "my/model", "größe", "MY_MODEL"];
        let parts: std::collections::BTreeSet<String> = names.iter().map(|name| part(name)).collect();
        assert_eq!(parts.len(), names.len());
        assert_eq!(part("my model"), "my+20model");
        assert_eq!(part("my+20model"), "my+2B20model");
    }
}
