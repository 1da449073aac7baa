//! The secrets of senders.

use contract::names;
use std::{collections::BTreeMap, env, fs};

/// By address, `workspace/sender`, the secrets that are good: the current one, and those before it
/// as long as they are kept.
type Table = BTreeMap<String, Vec<String>>;

/// The secrets of all senders.
pub(crate) enum Secrets {
    /// As the function's environment says: a change is a new deployment.
    Fixed(Table),
    /// In a file that is read for each delivery: a change counts at once.
    In(String),
}

impl Secrets {
    /// Takes them from the environment.
    pub(crate) fn from_environment() -> Result<Self, lambda_runtime::Error> {
        let said = env::var(names::WEBHOOK_SECRETS).unwrap_or_default();
        if said.starts_with('/') {
            return Ok(Self::In(said));
        }
        if said.is_empty() {
            return Ok(Self::Fixed(Table::new()));
        }
        // What is wrong in it is not said: it is full of secrets.
        serde_json::from_str(&said)
            .map(Self::Fixed)
            .map_err(|_| format!("{} is no JSON object of lists of texts", names::WEBHOOK_SECRETS).into())
    }

    /// The secrets of an address; none for one that there is not.
    pub(crate) fn of(&self, address: &str) -> Vec<String> {
        match self {
            Self::Fixed(table) => table.get(address).cloned().unwrap_or_default(),
            Self::In(path) => {
                let Ok(text) = fs::read(path) else { return Vec::new() };
                match serde_json::from_slice::<Table>(&text) {
                    Ok(mut table) => table.remove(address).unwrap_or_default(),
                    Err(_) => {
                        tracing::error!(
                            fault = "Secrets",
                            file = path,
                            "this is no JSON object of lists of texts"
                        );
                        Vec::new()
                    }
                }
            }
        }
    }
}
