//! The samples in `events/`, the types of this crate and the schemas beside the samples say the
//! same.
//!
//! `UPDATE_EXPECT=1 cargo test -p contract` writes the schemas anew. A released sample is never
//! edited: a new one stands beside it.

use contract::{
    Settings,
    agent::{AgentCommand, Report, SignedBody, public_half},
    command::Command,
    driver::ComputeRequest,
    http::Request,
    instance::InstanceRow,
    network::NetworkRow,
    notice::Notice,
    packages::{InstallRow, PackagesRow},
    people::RoleRow,
    row::{LogRow, OperationRow, RunRow, SessionRow, UsedRow},
    step::StepMessage,
    tick::Tick,
    webhook::{DeliveryRow, WebhooksRow},
    workspace::WorkspaceRow,
};
use lifecycle::compute::Compute;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A folder of `events/`, and the type that its samples are of.
struct Kind {
    folder: &'static str,
    /// Reads a text as the type, and writes it again.
    read: fn(&str) -> Result<Value, String>,
    schema: fn() -> Value,
}

const fn kind<T: DeserializeOwned + Serialize + JsonSchema>(folder: &'static str) -> Kind {
    Kind {
        folder,
        read: read::<T>,
        schema: schema::<T>,
    }
}

/// A folder of `functions/` has one of its own name.
const KINDS: [Kind; 26] = [
    kind::<Command>("accept-command"),
    kind::<StepMessage>("start-session"),
    kind::<StepMessage>("install-packages"),
    kind::<StepMessage>("stop-session"),
    kind::<Tick>("idle-tick"),
    kind::<Report>("agent-report"),
    kind::<SignedBody>("agent-report-body"),
    kind::<AgentCommand>("agent"),
    kind::<ComputeRequest>("compute-driver"),
    kind::<Request>("api"),
    kind::<Notice>("notices"),
    kind::<Request>("webhook"),
    kind::<SessionRow>("table/session"),
    kind::<OperationRow>("table/operation"),
    kind::<RunRow>("table/run"),
    kind::<LogRow>("table/log"),
    kind::<WebhooksRow>("table/webhooks"),
    kind::<DeliveryRow>("table/delivery"),
    kind::<PackagesRow>("table/packages"),
    kind::<InstallRow>("table/install"),
    kind::<NetworkRow>("table/network"),
    kind::<UsedRow>("table/used"),
    kind::<RoleRow>("table/role"),
    kind::<WorkspaceRow>("table/workspace"),
    kind::<Compute>("table/compute"),
    kind::<InstanceRow>("table/instance"),
];

/// Bounds that a schema does not have: the bits of a number, and the content of a text.
const BEYOND_A_SCHEMA: [&str; 3] = [
    "accept-command/invalid/generation-of-33-bits.json",
    "accept-command/invalid/variable-with-a-nul.json",
    "idle-tick/invalid/shard-of-33-bits.json",
];

fn read<T: DeserializeOwned + Serialize>(text: &str) -> Result<Value, String> {
    let value: T = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(value).unwrap())
}

fn schema<T: JsonSchema>() -> Value {
    SchemaGenerator::new(SchemaSettings::draft2020_12())
        .into_root_schema_for::<T>()
        .to_value()
}

fn work() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn events() -> PathBuf {
    work().join("events")
}

/// The samples of a folder, by their path in `events/`.
fn samples(folder: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(events().join(folder)).unwrap_or_else(|error| panic!("events/{folder}: {error}"));
    let mut samples: Vec<(String, String)> = entries
        .map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("{folder}/{name}");
            (path.clone(), fs::read_to_string(events().join(path)).unwrap())
        })
        .collect();
    samples.sort();
    assert!(!samples.is_empty(), "events/{folder} has no samples");
    samples
}

/// `null` is as good as nothing, in every type here.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[test]
fn every_valid_sample_is_read_is_written_the_same_and_passes_its_schema() {
    for kind in KINDS {
        let schema = jsonschema::validator_for(&(kind.schema)()).unwrap();
        for (path, text) in samples(&format!("{}/valid", kind.folder)) {
            let sample: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            let read = (kind.read)(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(
                without_nulls(read),
                without_nulls(sample.clone()),
                "{path} is written otherwise"
            );
            if let Err(error) = schema.validate(&sample) {
                panic!("{path} does not pass its schema: {error}");
            }
        }
    }
}

#[test]
fn every_invalid_sample_is_refused_by_its_type_and_by_its_schema() {
    for kind in KINDS {
        let schema = jsonschema::validator_for(&(kind.schema)()).unwrap();
        for (path, text) in samples(&format!("{}/invalid", kind.folder)) {
            assert!((kind.read)(&text).is_err(), "{path} is read as if it were good");
            if let Ok(sample) = serde_json::from_str(&text) {
                let beyond = BEYOND_A_SCHEMA.contains(&path.as_str());
                assert_eq!(
                    schema.is_valid(&sample),
                    beyond,
                    "{path}: whether its schema lets it through"
                );
            }
        }
    }
}

#[test]
fn each_setting_of_a_command_and_of_a_session_is_in_a_sample() {
    let all = [
        ("accept-command", schema::<Command>(), "Wanted", "/settings"),
        ("table/session", schema::<SessionRow>(), "Settings", "/session/settings"),
    ];
    for (folder, schema, definition, place) in all {
        let samples = samples(&format!("{folder}/valid")).into_iter();
        let samples: Vec<Value> = samples.map(|(_, text)| serde_json::from_str(&text).unwrap()).collect();
        for setting in schema["$defs"][definition]["properties"].as_object().unwrap().keys() {
            let place = format!("{place}/{setting}");
            let has_it = |sample: &Value| sample.pointer(&place).is_some();
            assert!(samples.iter().any(has_it), "no sample in events/{folder} has {place}");
        }
    }
}

#[test]
fn settings_from_before_a_setting_have_its_default_and_are_written_as_they_were() {
    let oldest =
        serde_json::json!({ "folder": "/f", "size": "local", "identity": null, "image": null, "idle": 3_600_000 });
    let read: Settings = serde_json::from_value(oldest.clone()).unwrap();
    assert_eq!(read, Settings::new("/f"));
    assert_eq!(serde_json::to_value(read).unwrap(), oldest);
}

#[test]
fn the_schemas_beside_the_samples_are_those_of_the_types() {
    for kind in KINDS {
        let path = events().join(kind.folder).join("schema.json");
        let schema = (kind.schema)();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            let mut written = schema.clone();
            written.sort_all_objects();
            fs::write(&path, format!("{written:#}\n")).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            serde_json::from_str(&committed).is_ok_and(|committed: Value| committed == schema),
            "events/{}/schema.json is not the schema of its type; `UPDATE_EXPECT=1 cargo test -p contract` writes it",
            kind.folder
        );
    }
}

#[test]
fn every_function_has_samples_and_every_folder_of_samples_has_a_type() {
    let folders = |under: PathBuf| {
        let mut names: Vec<String> = fs::read_dir(under)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let has_a_type = |name: &String| KINDS.iter().any(|kind| kind.folder == name);
    for function in folders(work().join("functions")) {
        assert!(has_a_type(&function), "functions/{function} has no samples in events/");
    }
    for folder in folders(events()).into_iter().filter(|folder| folder != "table") {
        assert!(has_a_type(&folder), "events/{folder} is of no type");
    }
    for row in folders(events().join("table")) {
        assert!(has_a_type(&format!("table/{row}")), "events/table/{row} is of no type");
    }
}

#[test]
fn the_reports_of_agents_are_signed_over_bodies_that_are_samples_themselves() {
    let key = public_half(&ed25519_dalek::SigningKey::from_bytes(&[1; 32]));
    let bodies: Vec<Value> = samples("agent-report-body/valid")
        .iter()
        .map(|(_, text)| serde_json::from_str(text).unwrap())
        .collect();
    let mut signed = 0;
    for (path, text) in samples("agent-report/valid") {
        if let Report::Agent(report) = serde_json::from_str(&text).unwrap() {
            assert!(report.is_signed_by(&key), "{path}");
            assert!(
                bodies.contains(&serde_json::from_str(&report.body).unwrap()),
                "{path} has a body of its own"
            );
            signed += 1;
        }
    }
    assert_eq!(signed, bodies.len());
}

#[test]
fn the_rows_and_messages_of_the_samples_are_of_the_flow_that_the_commands_name() {
    let start: Command =
        serde_json::from_str(&fs::read_to_string(events().join("accept-command/valid/start.json")).unwrap()).unwrap();
    let key = start.flow.key();
    for (path, text) in samples("table/session/valid") {
        let row: SessionRow = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (row.flow, row.session.flow),
            (start.flow.clone(), key.clone()),
            "{path}"
        );
    }
    for (path, text) in samples("start-session/valid") {
        assert_eq!(serde_json::from_str::<StepMessage>(&text).unwrap().flow, key, "{path}");
    }
}

#[test]
fn what_is_no_command_and_no_step_says_why() {
    let command = |body: &str| {
        contract::command::Command::read(body)
            .expect_err("it is none")
            .to_string()
    };
    let step = |body: &str| {
        contract::step::StepMessage::read(body)
            .expect_err("it is none")
            .to_string()
    };
    let flow = r#""flow": { "workspace": "w", "owner": "o", "lineage": "/f" }"#;
    let texts = [
        command("hello"),
        command(&format!(r#"{{ "id": "a b", {flow}, "command": "stop" }}"#)),
        command(&format!(r#"{{ "id": "a", {flow}, "command": "dance" }}"#)),
        command(&format!(
            r#"{{ "id": "{}", {flow}, "command": "run", "settings": {{}}, "run": {{}} }}"#,
            "a".repeat(71)
        )),
        step("{}"),
    ];
    expect_test::expect![[r#"
        Command.Malformed: This is no command: expected value at line 1 column 1.
        Command.Malformed: This is no command: an id is 1 to 80 characters of A-Z a-z 0-9 - _ at line 1 column 13.
        Command.Malformed: This is no command: unknown variant `dance`, expected one of `start`, `install`, `reset`, `update`, `stop`, `run`, `cancel`, `change-run`, `delete-run`, `delete-compute`, `create-instance`, `update-instance`, `start-instance`, `stop-instance`, `delete-instance`, `stop-on-compute`, `stop-if-idle`, `warn-if-idle`, `warn-of-daily-time`, `stop-for-the-day`, `check` at line 1 column 94.
        Command.Malformed: A run's id has at most 70 characters.
        Step.Malformed: This is no step: missing field `step` at line 1 column 2."#]].assert_eq(&texts.join("\n"));
}

#[test]
fn the_word_of_a_command_a_kind_and_a_phase_is_that_of_the_wire() {
    for phase in contract::Phase::ALL {
        assert_eq!(serde_json::to_value(phase).unwrap(), phase.word());
    }
    for kind in contract::Kind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
    }
    let mut words = std::collections::BTreeSet::new();
    for entry in fs::read_dir(events().join("accept-command/valid")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let command = Command::read(&text).unwrap();
        let sent: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(sent["command"], command.wish.word());
        words.insert(command.wish.word());
    }
    assert_eq!(words.len(), 21, "{words:?}");
}
