//! `run.yml`: a run, as its user writes it down.

use crate::{
    Code, Failure,
    folder::read_text,
    yaml::{self, Infinite, mapping},
};
use lifecycle::network::{Host, Network};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Number, Value};
use std::{
    collections::BTreeMap,
    fmt, iter,
    marker::PhantomData,
    path::{Path, PathBuf},
};

/// A run, as its user writes it down.
///
/// # Source
///
/// "Submit this run via CLI: `pfazure run create --file run.yml`" (the specification, *Use a
/// compute session to submit a flow run*).
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
    /// The source of each input: `${data.x}`, `${run.outputs.x}`, or the value itself.
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
    /// An earlier run that this one is to resume.
    pub resume_from: Option<String>,
    /// `${node.variant}`.
    pub variant: Option<String>,
    /// A file is read by [`run_yaml`].
    #[serde(deserialize_with = "texts_or_file")]
    pub environment_variables: OrFile<BTreeMap<String, String>>,
    /// By node, what takes the place of the flow's own connections.
    #[serde(deserialize_with = "or_empty")]
    pub connections: BTreeMap<String, BTreeMap<String, String>>,
    /// Arguments of a class-based flex flow's constructor; likewise.
    #[serde(deserialize_with = "values_or_file")]
    pub init: OrFile<BTreeMap<String, Value>>,
}

/// A mapping of the run file, or of a file that it names.
#[derive(Clone, Debug, PartialEq)]
pub enum OrFile<T> {
    Here(T),
    File(PathBuf),
}

impl<T: Default> Default for OrFile<T> {
    fn default() -> Self {
        Self::Here(T::default())
    }
}

impl<T: Default> OrFile<T> {
    /// The mapping of the run file itself; empty if it names a file.
    pub fn here(self) -> T {
        match self {
            Self::Here(here) => here,
            Self::File(_) => T::default(),
        }
    }
}

/// A path or an address.
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

/// The compute of the run: a VM size, or a compute instance.
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
    let whole = mapping(
        &shown,
        &text,
        Code::FlowBadRunFile,
        "`flow: ./my-flow` and `data: ./data.jsonl`",
    )?;
    check_keys(&shown, &whole)?;
    let mut run: RunYaml = yaml::read(&shown, &text, Code::FlowBadRunFile, Infinite::IsAnError)?;
    if run.resources.instance_type.is_some() && run.resources.compute.is_some() {
        let message =
            format!("{shown}: resources has both instance_type and compute. Keep the one that the run is to use.");
        return Err(Failure::new(Code::FlowBadRunFile, message));
    }
    for host in run.allow_hosts.iter().flatten() {
        host.parse::<Host>()
            .map_err(|why| Failure::new(Code::FlowBadRunFile, format!("{shown}: allow_hosts: {why}.")))?;
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
    if let OrFile::File(file) = &run.environment_variables {
        run.environment_variables = OrFile::Here(read_variables(&folder.join(file))?);
    }
    if let OrFile::File(file) = &run.init {
        run.init = OrFile::Here(read_init(&folder.join(file))?);
    }
    Ok(run)
}

fn check_keys(shown: &str, whole: &Value) -> Result<(), Failure> {
    let keys = whole.as_object().into_iter().flat_map(|fields| fields.keys());
    for key in keys {
        let known: Vec<&str> = iter::once("$schema")
            .chain(yaml::fields::<RunYaml>().iter().copied())
            .collect();
        if !known.contains(&key.as_str()) {
            let known = match crate::nearest(key, known.iter().copied()) {
                Some(near) => format!("Did you mean {near}?"),
                None => format!("It may have {}.", known.join(", ")),
            };
            let message = format!("{shown}: a run has no key {key}. {known}");
            return Err(Failure::new(Code::FlowBadRunFile, message));
        }
    }
    Ok(())
}

/// The variables of a `.env` file.
fn read_variables(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let shown = path.display().to_string();
    let text = read_text(path, &shown)?;
    dotenvy::from_read_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| {
            let message =
                format!("{shown}: this is no file of environment variables: {error}. Write a NAME=value a line.");
            Failure::new(Code::FlowBadRunFile, message)
        })
}

/// The arguments of a constructor, as a file of JSON.
fn read_init(path: &Path) -> Result<BTreeMap<String, Value>, Failure> {
    let shown = path.display().to_string();
    let text = read_text(path, &shown)?;
    // Of JSON lines it is the first, as promptflow has it.
    let text = if path.extension().is_some_and(|ending| ending == "jsonl") {
        text.lines().next().unwrap_or_default()
    } else {
        &text
    };
    serde_json::from_str(text).map_err(|error| {
        let message = format!("{shown}: init names a file, and this is no JSON object: {error}. Correct it.");
        Failure::new(Code::FlowBadRunFile, message)
    })
}

/// A mapping, or the name of a file that has it.
fn or_file<'de, D, T>(from: D) -> Result<OrFile<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    struct Either<T>(PhantomData<T>);

    impl<'de, T: DeserializeOwned + Default> Visitor<'de> for Either<T> {
        type Value = OrFile<T>;

        fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            to.write_str("a mapping, or the path of a file")
        }
        fn visit_str<E: Error>(self, path: &str) -> Result<Self::Value, E> {
            Ok(OrFile::File(path.into()))
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(OrFile::default())
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(OrFile::Here)
        }
    }
    from.deserialize_any(Either(PhantomData))
}

fn texts_or_file<'de, D: Deserializer<'de>>(from: D) -> Result<OrFile<BTreeMap<String, String>>, D::Error> {
    let written: OrFile<BTreeMap<String, Option<String>>> = or_file(from)?;
    Ok(match written {
        OrFile::Here(texts) => OrFile::Here(
            texts
                .into_iter()
                .map(|(key, text)| (key, text.unwrap_or_default()))
                .collect(),
        ),
        OrFile::File(path) => OrFile::File(path),
    })
}

fn values_or_file<'de, D: Deserializer<'de>>(from: D) -> Result<OrFile<BTreeMap<String, Value>>, D::Error> {
    match or_file::<D, BTreeMap<String, Value>>(from)? {
        OrFile::Here(written) => exact(written).map(OrFile::Here),
        OrFile::File(path) => Ok(OrFile::File(path)),
    }
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
    exact(or_empty(from)?)
}

fn exact<E: Error>(written: BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>, E> {
    let inexact = written
        .iter()
        .find_map(|(key, value)| find_inexact(value).map(|number| (key, number)));
    match inexact {
        Some((key, number)) => Err(E::custom(format!(
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
