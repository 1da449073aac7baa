//! The inputs and outputs that a flow's file declares.

use crate::{
    Code, Failure, Kind, folder,
    yaml::{mapping, type_of},
};
use serde_json::Value;
use std::{fs, path::Path};

const BAD: Code = Code::FlowBadFlowFile;

/// The inputs and outputs of a flow.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    /// The name of its folder.
    pub name: String,
    /// `None` if only its code says which it has.
    pub inputs: Option<Vec<Field>>,
    pub outputs: Vec<Field>,
    /// Inputs as the flow's author would give them.
    pub sample: Option<Value>,
}

/// An input or an output.
#[derive(Clone, Debug, Default)]
pub struct Field {
    pub name: String,
    /// As the file says it, such as `string`.
    pub kind: String,
    pub description: Option<String>,
    pub default: Option<Value>,
    /// Whether it is what a user says in a chat, or what is answered.
    pub is_chat: bool,
    pub is_chat_history: bool,
    pub evaluation_only: bool,
}

impl Signature {
    pub fn chat_input(&self) -> Option<&Field> {
        self.inputs.iter().flatten().find(|field| field.is_chat)
    }

    pub fn chat_history(&self) -> Option<&Field> {
        let inputs = || self.inputs.iter().flatten();
        let by_name = || inputs().find(|field| field.name == "chat_history");
        inputs().find(|field| field.is_chat_history).or_else(by_name)
    }

    pub fn chat_output(&self) -> Option<&Field> {
        self.outputs.iter().find(|field| field.is_chat)
    }
}

/// Reads the signature of a flow.
///
/// * `flow`: its folder, or its file.
///
/// # Errors
///
/// Those of [`crate::kind`]; `Flow.BadFlowFile`, `Flow.Unreadable`. Final.
pub fn signature(flow: &Path) -> Result<Signature, Failure> {
    let (folder, file) = match folder::is_flow_file(flow) {
        true => (flow.parent().unwrap_or(Path::new("")).to_owned(), flow.to_owned()),
        false => match folder::kind(flow)? {
            Kind::Dag { file } | Kind::Flex { file, .. } => (flow.to_owned(), flow.join(file)),
            Kind::Folder => {
                let message = format!("{} holds no flow. Name a folder or a file with one.", flow.display());
                return Err(Failure::new(Code::FlowNoFlow, message));
            }
        },
    };
    let shown = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(&file)
        .map_err(|error| Failure::new(Code::FlowUnreadable, format!("{shown} cannot be read: {error}.")))?;
    let written = match shown.ends_with(".prompty") {
        true => front_matter(&text),
        false => &text,
    };
    let written = mapping(&shown, written, BAD, "`inputs: …`")?;
    let folder = fs::canonicalize(if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &folder
    });
    let name = folder
        .ok()
        .and_then(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()));
    let inputs = fields(&shown, "inputs", "is_chat_input", written.get("inputs"))?;
    Ok(Signature {
        name: name.unwrap_or_default(),
        // A graph without inputs has none.
        inputs: inputs.or_else(|| written.get("nodes").map(|_| Vec::new())),
        outputs: fields(&shown, "outputs", "is_chat_output", written.get("outputs"))?.unwrap_or_default(),
        sample: written
            .get("sample")
            .and_then(|sample| sample.get("inputs").or(Some(sample)))
            .cloned(),
    })
}

/// The YAML at the head of a prompty.
fn front_matter(text: &str) -> &str {
    let inside = text.trim_start_matches('\u{feff}').trim_start().strip_prefix("---");
    inside.and_then(|rest| rest.split("\n---").next()).unwrap_or("{}")
}

fn fields(shown: &str, key: &str, chat: &str, written: Option<&Value>) -> Result<Option<Vec<Field>>, Failure> {
    let all = match written {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(all)) => all,
        Some(other) => {
            let message = format!("{shown}: {key} is {}, and should be a mapping.", type_of(other));
            return Err(Failure::new(BAD, message));
        }
    };
    let field = |(name, about): (&String, &Value)| {
        let text = |key: &str| about.get(key).and_then(Value::as_str).map(str::to_owned);
        let is = |key: &str| about.get(key).and_then(Value::as_bool).unwrap_or(false);
        Field {
            name: name.clone(),
            kind: text("type").unwrap_or_else(|| "string".into()),
            description: text("description"),
            default: about.get("default").filter(|value| !value.is_null()).cloned(),
            is_chat: is(chat),
            is_chat_history: is("is_chat_history"),
            evaluation_only: is("evaluation_only"),
        }
    };
    Ok(Some(all.iter().map(field).collect()))
}
