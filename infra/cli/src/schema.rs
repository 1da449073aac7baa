//! JSON schemas of `--json`: `pfsession schema`.

use crate::{
    bench::Report,
    check::Identities,
    connection::{ConnectionList, ConnectionView},
    diff::Difference,
    dockerfile::DockerfileView,
    image::{ImageList, ImageView, Registries},
    packages::Whole,
    runfiles::Line,
    sizes::SizeList,
    text::{out, out_json},
    trouble::{Trouble, USAGE},
};
use contract::{
    Failure,
    agent::OutputLine,
    http::{Accepted, Checks, ComputeView, Computes, Events, Installs, Runs, Sessions},
    instance::{InstanceView, Instances},
    packages::{Change, PackagesRow},
    people::Roles,
    row::{OperationRow, RunRow},
    webhook::Webhooks,
    workspace::WorkspaceRow,
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

/// Makes a schema.
type Make = fn() -> Value;

/// The output type of each command with `--json`, on success. One that prints lines has a schema of a line.
const SCHEMAS: [(&str, Make); 39] = [
    ("run", either::<RunRow, Accepted>),
    ("start", either::<OperationRow, Accepted>),
    ("install", either::<OperationRow, Accepted>),
    ("packages", packages),
    ("reset", either::<OperationRow, Accepted>),
    ("stop", either::<OperationRow, Accepted>),
    ("list", of::<Sessions>),
    ("show", shown),
    ("logs", of::<OutputLine>),
    ("events", of::<Events>),
    ("runs list", of::<Runs>),
    ("runs show", of::<RunRow>),
    ("runs details", of::<Line>),
    ("runs diff", of::<Vec<Difference>>),
    ("webhook list", of::<Webhooks>),
    ("instance list", of::<Instances>),
    ("instance show", of::<InstanceView>),
    ("instance create", of::<InstanceView>),
    ("instance start", of::<InstanceView>),
    ("instance stop", of::<InstanceView>),
    ("instance delete", of::<InstanceView>),
    ("compute list", of::<Computes>),
    ("compute show", of::<ComputeView>),
    ("compute delete", of::<ComputeView>),
    ("role list", of::<Roles>),
    ("sizes", of::<SizeList>),
    ("workspace show", of::<WorkspaceRow>),
    ("check", of::<Checks>),
    ("identity list", of::<Identities>),
    ("identity check", of::<Checks>),
    ("connection list", of::<ConnectionList>),
    ("connection show", of::<ConnectionView>),
    ("image pull", of::<ImageView>),
    ("image dockerfile", of::<DockerfileView>),
    ("image list", of::<ImageList>),
    ("registry list", of::<Registries>),
    ("bench", of::<Report>),
    ("env", variables),
    ("failure", of::<Failure>),
];

/// Prints the schema of a command's JSON, or the names that there are.
pub(crate) fn print(command: &[String]) -> Result<u8, Box<Trouble>> {
    let name = command.join(" ");
    if name.is_empty() {
        SCHEMAS.iter().for_each(|(name, _)| out(name));
        return Ok(0);
    }
    let (_, schema) = SCHEMAS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
        Trouble::new(
            USAGE,
            "Command.NoSchema",
            format!("`pfsession {name}` prints no JSON that has a schema"),
        )
        .next("see which do: pfsession schema")
    })?;
    out_json(&schema());
    Ok(0)
}

fn of<T: JsonSchema>() -> Value {
    SchemaGenerator::new(SchemaSettings::draft2020_12())
        .into_root_schema_for::<T>()
        .to_value()
}

/// The output type at a command's end, and with `--no-wait`.
fn either<End: JsonSchema, Begun: JsonSchema>() -> Value {
    any(&[("end", of::<End>()), ("with --no-wait", of::<Begun>())])
}

fn shown() -> Value {
    any(&[
        ("a session", of::<Whole<'_>>()),
        ("a run", of::<RunRow>()),
        ("an operation", of::<OperationRow>()),
    ])
}

fn packages() -> Value {
    any(&[
        ("the packages", of::<PackagesRow>()),
        ("with --history", of::<Installs>()),
        ("with --diff", of::<Vec<Change>>()),
    ])
}

/// One of these; each keeps its own definitions, by an address of its own.
fn any(schemas: &[(&str, Value)]) -> Value {
    let each = schemas.iter().enumerate().map(|(nth, (title, schema))| {
        let mut schema = schema.clone();
        schema["$id"] = format!("schema:{nth}").into();
        schema["title"] = (*title).into();
        schema
    });
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": each.collect::<Vec<_>>() })
}

fn variables() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "additionalProperties": { "type": "string" }, "required": ["AWS_ENDPOINT_URL", "PFSESSION_COMMANDS_URL"],
    })
}
