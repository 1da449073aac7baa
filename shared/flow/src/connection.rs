//! A connection to a model provider or another service, as promptflow's own documents write it.
//!
//! The types, their keys, and their defaults are promptflow 1.18.5's. Beyond it, a secret may be
//! left out of a document (it is then asked for), and a key that no connection of the type has is
//! named (promptflow drops it in silence).

use crate::{
    Code, Failure,
    yaml::{self, Infinite, mapping, type_of},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt};

/// The name of the error about a document.
const BAD: Code = Code::ConnectionBadFile;
/// The text that promptflow shows in place of a secret.
///
/// # Source
///
/// `SCRUBBED_VALUE` in `promptflow/_sdk/_constants.py`.
pub const SCRUBBED: &str = "******";
/// The prefix of the configs in which promptflow keeps what a custom strong type connection is.
const STRONG: &str = "promptflow.connection.";
/// The keys of those.
const STRONG_KEYS: [&str; 4] = ["custom_type", "module", "package", "package_version"];
/// The most characters of a name.
const LONGEST_NAME: usize = 100;

/// The type of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionType {
    AzureOpenAi,
    OpenAi,
    Serverless,
    Serp,
    Qdrant,
    Weaviate,
    CognitiveSearch,
    AzureAiServices,
    AzureContentSafety,
    FormRecognizer,
    Custom,
}

use ConnectionType::{
    AzureAiServices, AzureContentSafety, AzureOpenAi, CognitiveSearch, Custom, FormRecognizer, OpenAi, Qdrant, Serp,
    Serverless, Weaviate,
};

const TYPES: [ConnectionType; 11] = [
    AzureOpenAi,
    OpenAi,
    Serverless,
    Serp,
    Qdrant,
    Weaviate,
    CognitiveSearch,
    AzureAiServices,
    AzureContentSafety,
    FormRecognizer,
    Custom,
];

/// Whether a document has to have a key.
#[derive(Clone, Copy)]
enum Need {
    Required,
    Optional,
    Default(&'static str),
}

use Need::{Default as Or, Optional, Required};

impl ConnectionType {
    /// As documents write it.
    pub fn name(self) -> &'static str {
        match self {
            AzureOpenAi => "azure_open_ai",
            OpenAi => "open_ai",
            Serverless => "serverless",
            Serp => "serp",
            Qdrant => "qdrant",
            Weaviate => "weaviate",
            CognitiveSearch => "cognitive_search",
            AzureAiServices => "azure_ai_services",
            AzureContentSafety => "azure_content_safety",
            FormRecognizer => "form_recognizer",
            Custom => "custom",
        }
    }

    /// promptflow's class of it.
    fn class(self) -> &'static str {
        match self {
            AzureOpenAi => "AzureOpenAIConnection",
            OpenAi => "OpenAIConnection",
            Serverless => "ServerlessConnection",
            Serp => "SerpConnection",
            Qdrant => "QdrantConnection",
            Weaviate => "WeaviateConnection",
            CognitiveSearch => "CognitiveSearchConnection",
            AzureAiServices => "AzureAIServicesConnection",
            AzureContentSafety => "AzureContentSafetyConnection",
            FormRecognizer => "FormRecognizerConnection",
            Custom => "CustomConnection",
        }
    }

    /// The module that the class is in, unless a document names another.
    fn module(self) -> &'static str {
        match self {
            Qdrant | Weaviate => "promptflow_vectordb.connections",
            _ => "promptflow.connections",
        }
    }

    /// The keys beside `api_key`; none of a custom connection, which has its own.
    fn configs(self) -> &'static [(&'static str, Need)] {
        match self {
            AzureOpenAi => &[
                ("api_base", Required),
                ("api_type", Or("azure")),
                ("api_version", Or("2024-02-01")),
                ("auth_mode", Or("key")),
                ("resource_id", Optional),
            ],
            OpenAi => &[("organization", Optional), ("base_url", Optional)],
            Serverless | Qdrant | Weaviate => &[("api_base", Required)],
            Serp | Custom => &[],
            CognitiveSearch => &[
                ("api_base", Required),
                ("api_version", Or("2023-11-01")),
                ("auth_mode", Or("key")),
            ],
            AzureAiServices => &[("endpoint", Required), ("auth_mode", Or("key"))],
            AzureContentSafety => &[
                ("endpoint", Required),
                ("api_version", Or("2023-10-01")),
                ("api_type", Or("Content Safety")),
            ],
            FormRecognizer => &[
                ("endpoint", Required),
                ("api_version", Or("2023-07-31")),
                ("api_type", Or("Form Recognizer")),
            ],
        }
    }
}

/// A connection, with its secrets. It has no `Debug` of its own parts: nothing that is logged has a
/// secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    #[serde(rename = "type")]
    pub kind: ConnectionType,
    pub module: String,
    pub configs: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, String>,
    /// Whether its key stays with a broker outside the sandbox. No such key is in promptflow's
    /// documents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brokered: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets: Vec<_> = self.secrets.keys().collect();
        f.debug_struct("Connection")
            .field("kind", &self.kind)
            .field("module", &self.module)
            .field("configs", &self.configs)
            .field("secrets", &secrets)
            .field("brokered", &self.brokered)
            .finish()
    }
}

impl Connection {
    /// As promptflow's executor takes it, with its secrets.
    ///
    /// # Source
    ///
    /// `_to_execution_connection_dict` in `promptflow/core/_connection.py`.
    pub fn for_executor(&self, name: &str) -> Value {
        let value: BTreeMap<_, _> = self.configs.iter().chain(&self.secrets).collect();
        let secret_keys: Vec<_> = self.secrets.keys().collect();
        json!({
            "name": name,
            "type": self.kind.class(),
            "module": self.module,
            "value": value,
            "secret_keys": secret_keys,
        })
    }

    /// As `pf connection show` prints it, without its secrets.
    pub fn scrub(&self, name: &str) -> Value {
        let secrets: BTreeMap<_, _> = self.secrets.keys().map(|key| (key, SCRUBBED)).collect();
        let mut shown = json!({ "name": name, "type": self.kind, "module": self.module });
        if self.kind == Custom {
            shown["configs"] = json!(self.configs);
            shown["secrets"] = json!(secrets);
        } else {
            for (key, value) in self.configs.iter() {
                shown[key] = json!(value);
            }
            for (key, value) in secrets {
                shown[key] = json!(value);
            }
        }
        if self.brokered {
            shown[BROKERED] = json!(true);
        }
        shown
    }

    /// The key of its address, if a broker can hold its key: its client takes a base address, and
    /// sends the key in a header.
    fn address_key(&self) -> Option<&'static str> {
        match self.kind {
            _ if self.is_keyless() => None,
            OpenAi => Some("base_url"),
            AzureOpenAi | Serverless => Some("api_base"),
            _ => None,
        }
    }

    /// Whether a broker can hold its key.
    pub fn can_be_brokered(&self) -> bool {
        self.address_key().is_some()
    }

    /// The address of its provider, if a broker can hold its key.
    pub fn address(&self) -> Option<&str> {
        let written = self.configs.get(self.address_key()?).map(String::as_str);
        written.or((self.kind == OpenAi).then_some(OPEN_AI))
    }

    /// The connection that a flow gets while a broker holds its key: the broker's address, and a
    /// placeholder for the key.
    pub fn behind(&self, address: &str) -> Self {
        let mut behind = self.clone();
        if let Some(key) = self.address_key() {
            behind.configs.insert(key.to_owned(), address.to_owned());
        }
        behind.secrets = self
            .secrets
            .keys()
            .map(|key| (key.clone(), PLACEHOLDER.to_owned()))
            .collect();
        behind
    }

    /// The value of a key, whether it is secret or not.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.secrets.get(key).or(self.configs.get(key)).map(String::as_str)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.configs.keys().chain(self.secrets.keys()).map(String::as_str)
    }

    /// Whether its `auth_mode` says that it has no key, and an identity is to be used.
    pub fn is_keyless(&self) -> bool {
        self.configs.get("auth_mode").is_some_and(|mode| mode == KEYLESS)
    }
}

/// The `auth_mode` of a connection without a key.
const KEYLESS: &str = "meid_token";
/// The key, of our own, by which a document says that a broker holds its secret.
const BROKERED: &str = "brokered";
/// The placeholder for a key that a broker holds. Clients refuse an empty one.
const PLACEHOLDER: &str = "held-by-the-broker";
/// The address that OpenAI's own client uses.
///
/// # Source
///
/// `OpenAI.__init__` in `openai/_client.py`.
const OPEN_AI: &str = "https://api.openai.com/v1";

/// A secret as a document has it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Given(String),
    /// Empty, `***` or `<no-change>`: the one that there is, if there is one.
    Kept,
    /// `<user-input>`, or nothing at all.
    Asked,
}

/// A document, read and checked.
pub struct Document {
    pub name: Option<String>,
    /// Without its secrets.
    pub connection: Connection,
    pub secrets: BTreeMap<String, Secret>,
    /// Whether it says that a broker holds its key.
    pub brokered: Option<bool>,
    /// Warnings for its user.
    pub warnings: Vec<String>,
}

/// Reads a connection's document. JSON is YAML as well.
///
/// * `shown`: what the document is called in messages.
///
/// # Errors
///
/// `Connection.BadFile`. Final.
pub fn connection(shown: &str, text: &str) -> Result<Document, Failure> {
    mapping(
        shown,
        text,
        BAD,
        "`name: …`, `type: open_ai` and `api_key: <user-input>`",
    )
    .and_then(|value| document(shown, &value))
}

/// Reads the documents that `pf connection list` prints.
///
/// # Errors
///
/// `Connection.BadFile`. Final.
pub fn connections(shown: &str, text: &str) -> Result<Vec<Document>, Failure> {
    let value: Value = yaml::read(shown, text, BAD, Infinite::Passes)?;
    let Value::Array(all) = value else {
        let message = format!(
            "{shown} is {}. It should be the list that `pf connection list` prints.",
            type_of(&value)
        );
        return Err(Failure::new(BAD, message));
    };
    let numbered = all.iter().enumerate();
    numbered
        .map(|(index, value)| {
            let name = value.get("name").and_then(Value::as_str);
            let place = name.map_or_else(|| format!("connection {}", index + 1), str::to_owned);
            document(&format!("{shown}: {place}"), value)
        })
        .collect()
}

/// Whether a connection can be called so.
pub fn is_good_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.chars().count())
        && !name.contains(|c: char| c.is_control() || matches!(c, '/' | '{' | '}'))
        && name.trim() == name
}

fn document(shown: &str, value: &Value) -> Result<Document, Failure> {
    let bad = |what: String| Failure::new(BAD, format!("{shown}: {what}"));
    let Value::Object(written) = value else {
        return Err(bad(format!("it is {}, and should be a mapping", type_of(value))));
    };
    let mut rest = Written {
        shown,
        map: written.clone(),
    };
    rest.map.shift_remove("$schema");
    for kept in ["created_date", "last_modified_date", "expiry_time"] {
        rest.map.shift_remove(kept);
    }
    let name = rest.text("name")?;
    if let Some(name) = name.as_ref().filter(|name| !is_good_name(name)) {
        return Err(bad(format!(
            "{name:?} is no name. It should have 1 to {LONGEST_NAME} characters, and no /, {{ or }}."
        )));
    }
    let types = || names(TYPES.iter().map(|known| known.name()));
    let Some(kind) = rest.text("type")? else {
        return Err(bad(format!("type is missing. Add one of {}.", types())));
    };
    let known = TYPES.into_iter().find(|known| known.name() == kind);
    let kind = known.ok_or_else(|| {
        bad(format!(
            "{kind} is no type of a connection. It should be one of {}.",
            types()
        ))
    })?;
    let module = rest.text("module")?;
    let brokered = match rest.map.shift_remove(BROKERED) {
        None => None,
        Some(Value::Bool(brokered)) => Some(brokered),
        Some(other) => {
            return Err(bad(format!(
                "{BROKERED} is {}, and should be true or false.",
                type_of(&other)
            )));
        }
    };
    let mut read = match kind {
        Custom => custom(&mut rest, module)?,
        _ => strong(&mut rest, kind, module)?,
    };
    read.name = name;
    read.brokered = brokered;
    read.warnings.extend(left_out(&rest, kind));
    Ok(read)
}

/// Names the keys that a connection of this type does not have.
fn left_out(rest: &Written<'_>, kind: ConnectionType) -> Vec<String> {
    let configs = kind.configs().iter().map(|(key, _)| *key);
    let known: Vec<&str> = match kind {
        Custom => ["configs", "secrets"].into_iter().chain(STRONG_KEYS).collect(),
        _ => configs.chain(["api_key", "name", "type", "module"]).collect(),
    };
    let say = |key: &String| {
        let near = nearest(key, known.iter().copied()).map(|near| format!(" Is {near} meant?"));
        format!(
            "{}: a connection of type {} has no key {key}, and it is left out.{}",
            rest.shown,
            kind.name(),
            near.unwrap_or_default()
        )
    };
    rest.map.keys().map(say).collect()
}

/// A connection of a built-in type.
fn strong(rest: &mut Written<'_>, kind: ConnectionType, module: Option<String>) -> Result<Document, Failure> {
    let shown = rest.shown;
    let bad = |what: String| Failure::new(BAD, format!("{shown}: {what}"));
    let mut configs = BTreeMap::new();
    for (key, need) in kind.configs() {
        let written = match rest.text(key)? {
            Some(text) if *key == "auth_mode" && text != "key" && text != KEYLESS => {
                return Err(bad(format!("auth_mode is {text}. It should be key or {KEYLESS}.")));
            }
            Some(text) => Some(text),
            None => match need {
                Required => {
                    return Err(bad(format!(
                        "{key} is missing. A connection of type {} needs it.",
                        kind.name()
                    )));
                }
                Optional => None,
                Or(value) => Some((*value).to_owned()),
            },
        };
        if let Some(value) = written {
            configs.insert((*key).to_owned(), value);
        }
    }
    let connection = Connection {
        kind,
        module: module.unwrap_or_else(|| kind.module().to_owned()),
        configs,
        secrets: BTreeMap::new(),
        brokered: false,
    };
    let key = secret(rest.shown, "api_key", rest.map.shift_remove("api_key").as_ref())?;
    let mut secrets = BTreeMap::new();
    // promptflow drops the key of a connection that is to use none.
    if !connection.is_keyless() {
        secrets.insert("api_key".to_owned(), key);
    }
    Ok(Document {
        name: None,
        connection,
        secrets,
        brokered: None,
        warnings: Vec::new(),
    })
}

/// A custom connection, or one of a strong type that its package defines.
fn custom(rest: &mut Written<'_>, module: Option<String>) -> Result<Document, Failure> {
    let shown = rest.shown;
    let bad = |what: String| Failure::new(BAD, format!("{shown}: {what}"));
    let mut inside = |key: &str| match rest.map.shift_remove(key) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(other) => Err(bad(format!(
            "{key} is {}, and should be a mapping of text.",
            type_of(&other)
        ))),
    };
    let (configs, secrets) = (inside("configs")?, inside("secrets")?);
    let Some(written) = secrets else {
        return Err(bad(
            "secrets is missing. A connection of type custom needs it: a mapping of names to <user-input>.".into(),
        ));
    };
    let mut configs = Written {
        shown,
        map: configs.unwrap_or_default(),
    }
    .texts()?;
    let mut secrets = BTreeMap::new();
    for (key, value) in &written {
        if configs.contains_key(key) {
            return Err(bad(format!("{key} is in configs and in secrets. Keep one.")));
        }
        secrets.insert(key.clone(), secret(shown, key, Some(value))?);
    }
    let mut module = module;
    let custom_type = rest.text("custom_type")?;
    let (package, version) = (rest.text("package")?, rest.text("package_version")?);
    if let Some(custom_type) = custom_type {
        let named = [
            ("custom_type", Some(custom_type)),
            ("module", module.clone()),
            ("package", package),
            ("package_version", version),
        ];
        for (key, value) in named {
            let value =
                value.ok_or_else(|| bad(format!("{key} is missing. A custom strong type connection needs it.")))?;
            configs.insert(format!("{STRONG}{key}"), value);
        }
    } else if let Some(of_export) = configs.get(&format!("{STRONG}module")) {
        // As `pf connection list` prints one.
        module = Some(of_export.clone());
    }
    Ok(Document {
        name: None,
        connection: Connection {
            kind: Custom,
            module: module.unwrap_or_else(|| Custom.module().to_owned()),
            configs,
            secrets: BTreeMap::new(),
            brokered: false,
        },
        secrets,
        brokered: None,
        warnings: Vec::new(),
    })
}

/// A secret as a document has it. No error shows its value.
fn secret(shown: &str, key: &str, value: Option<&Value>) -> Result<Secret, Failure> {
    match value {
        None => Ok(Secret::Asked),
        Some(Value::Null) => Ok(Secret::Kept),
        Some(Value::String(text)) if text == "<user-input>" => Ok(Secret::Asked),
        Some(Value::String(text)) if text.chars().all(|c| c == '*') || text == "<no-change>" => Ok(Secret::Kept),
        Some(Value::String(text)) => Ok(Secret::Given(text.clone())),
        Some(other) => Err(not_text(shown, key, other)),
    }
}

fn not_text(shown: &str, key: &str, value: &Value) -> Failure {
    Failure::new(
        BAD,
        format!(
            "{shown}: {key} is {}, and should be text. Write it in quotes.",
            type_of(value)
        ),
    )
}

/// The keys of a document that are not read yet.
struct Written<'a> {
    shown: &'a str,
    map: Map<String, Value>,
}

impl Written<'_> {
    /// Takes the text of a key out.
    fn text(&mut self, key: &str) -> Result<Option<String>, Failure> {
        match self.map.shift_remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(not_text(self.shown, key, &other)),
        }
    }

    /// All of it, as texts.
    fn texts(self) -> Result<BTreeMap<String, String>, Failure> {
        let text = |(key, value): (String, Value)| match value {
            Value::String(text) => Ok((key, text)),
            other => Err(not_text(self.shown, &key, &other)),
        };
        self.map.into_iter().map(text).collect()
    }
}

fn names<'a>(of: impl Iterator<Item = &'a str>) -> String {
    of.collect::<Vec<_>>().join(", ")
}

/// The known name that is most like this one, if one is like it at all.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let like = |other: &str| strsim::jaro_winkler(name, other);
    known
        .max_by(|a, b| like(a).total_cmp(&like(b)))
        .filter(|best| like(best) > 0.8)
}
