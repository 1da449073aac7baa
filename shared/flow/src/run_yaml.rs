//! `run.yml`: a run, as its user writes it down.

use crate::{
    Failure,
    folder::read_text,
    yaml::{self, Infinite, mapping},
};
use lifecycle::network::{Host, Network};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Number, Value};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A run, as its user writes it down.
///
/// # Source
///
/// "Submit this run via CLI: `pfazure run create --file run.yml`" (seed, *Use a compute session to submit a flow run*).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RunYaml {
    pub name: Option<String>,
    pub display_name: Option<String>,
    pub description: Option<String>,
    #[serde(deserialize_with = "texts")]
    pub tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "texts")]
    pub properties: BTreeMap<String, String>,
    /// The flow folder, or its flow file.
    pub flow: Option<Place>,
    /// A file of JSON lines.
    pub data: Option<Place>,
    /// What each input takes: `${data.x}`, `${run.outputs.x}`, or the value itself.
    #[serde(deserialize_with = "values")]
    pub column_mapping: BTreeMap<String, Value>,
    pub runtime: Option<String>,
    #[serde(deserialize_with = "or_empty")]
    pub resources: Resources,
    #[serde(deserialize_with = "or_empty")]
    pub identity: Identity,
    /// Which network the session has.
    pub network: Option<Network>,
    /// The hosts that it may reach whatever the network is.
    pub allow_hosts: Option<Vec<String>>,
    /// The run whose outputs this one reads.
    pub run: Option<String>,
    /// `${node.variant}`.
    pub variant: Option<String>,
    #[serde(deserialize_with = "texts")]
    pub environment_variables: BTreeMap<String, String>,
    /// By node, what takes the place of the flow's own connections.
    #[serde(deserialize_with = "or_empty")]
    pub connections: BTreeMap<String, BTreeMap<String, String>>,
    /// Arguments of a class-based flex flow's constructor.
    #[serde(deserialize_with = "values")]
    pub init: BTreeMap<String, Value>,
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine; absolute.
    Local(PathBuf),
    /// Anywhere else, as written: `azureml:…`, `https://…`.
    Remote(String),
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = String::deserialize(from)?;
        let remote = written.starts_with("azureml:") || written.contains("://");
        Ok(if remote {
            Self::Remote(written)
        } else {
            Self::Local(written.into())
        })
    }
}

/// What the run is to run on: a VM size, or a compute instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// The VM size of serverless compute.
    pub instance_type: Option<String>,
    /// The name of a compute instance.
    pub compute: Option<String>,
}

/// As whom the session pulls, connects and installs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// The user's own.
    #[default]
    User,
    /// A user-assigned identity: the one with this client id, or the workspace's first.
    Managed { client_id: Option<String> },
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            r#type: String,
            client_id: Option<String>,
        }
        let written = Written::deserialize(from)?;
        match (written.r#type.as_str(), written.client_id) {
            ("user_identity", None) => Ok(Self::User),
            ("user_identity", Some(_)) => Err(D::Error::custom(
                "identity: a client_id goes with `type: managed` alone",
            )),
            ("managed", client_id) => Ok(Self::Managed { client_id }),
            (other, _) => Err(D::Error::custom(format!(
                "identity.type is {other}; it may be managed or user_identity"
            ))),
        }
    }
}

/// Reads a run file. Relative paths count from the folder that it is in.
///
/// # Errors
///
/// All final. `Flow.BadRunFile`, `Flow.Unreadable`, `Flow.TooLarge`.
pub fn run_yaml(path: &Path) -> Result<RunYaml, Failure> {
    let shown = path.display().to_string();
    let text = read_text(path, &shown)?;
    mapping(
        &shown,
        &text,
        "Flow.BadRunFile",
        "`flow: ./my-flow` and `data: ./data.jsonl`",
    )?;
    let mut run: RunYaml = yaml::read(&shown, &text, "Flow.BadRunFile", Infinite::IsAnError)?;
    if run.resources.instance_type.is_some() && run.resources.compute.is_some() {
        let message =
            format!("{shown}: resources has both instance_type and compute. Keep the one that the run is to use.");
        return Err(Failure::new("Flow.BadRunFile", message));
    }
    for host in run.allow_hosts.iter().flatten() {
        host.parse::<Host>()
            .map_err(|why| Failure::new("Flow.BadRunFile", format!("{shown}: allow_hosts: {why}.")))?;
    }
    let folder = std::path::absolute(path)
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned))
        .unwrap_or_default();
    for place in [&mut run.flow, &mut run.data].into_iter().flatten() {
        if let Place::Local(path) = place {
            *path = crate::folder::clean(&folder.join(&*path));
        }
    }
    Ok(run)
}

/// A key with nothing behind it is as good as none.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A tag or a variable is the text as it was written: `1.0`, `true` and `012` too.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let written: BTreeMap<String, Option<String>> = or_empty(from)?;
    let text = |(key, text): (String, Option<String>)| (key, text.unwrap_or_default());
    Ok(written.into_iter().map(text).collect())
}

/// Values as JSON has them. One that it could not keep is an error, and no other number.
fn values<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Value>, D::Error> {
    let written: BTreeMap<String, Value> = or_empty(from)?;
    let inexact = written
        .iter()
        .find_map(|(key, value)| find_inexact(value).map(|number| (key, number)));
    match inexact {
        Some((key, number)) => Err(D::Error::custom(format!(
            "{key} has a number of more digits than can be kept, {number}; write it in quotes"
        ))),
        None => Ok(written),
    }
}

/// A whole number that became a fraction on the way, with other digits at its end.
fn find_inexact(value: &Value) -> Option<&Number> {
    match value {
        Value::Number(number) => Some(number).filter(|number| number.is_f64()).filter(|number| {
            number
                .as_f64()
                .is_some_and(|it| it.fract() == 0.0 && it.abs() >= 2f64.powi(63))
        }),
        Value::Array(items) => items.iter().find_map(find_inexact),
        Value::Object(fields) => fields.values().find_map(find_inexact),
        _ => None,
    }
}
