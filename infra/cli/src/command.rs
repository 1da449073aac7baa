//! A command: its arguments are a type, its documentation is the command's help, and it names the type of its JSON.
//!
//! A command without a JSON schema does not compile: `--json` is an option of every command, so [`Execute::Json`] has no default.

use crate::{
    global::{Done, Schemas, Service},
    text,
};
use contract::{
    http::Accepted,
    row::{OperationRow, RunRow},
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

/// A command of the command line.
pub(crate) trait Execute {
    /// The output with `--json` on success, or one line of it. [`NoJson`] if it prints none.
    type Json: Printed;
    /// Whether the command changes nothing, so that it ends when its output has no reader.
    const READS: bool = false;

    /// Executes the command. Returns its exit code.
    fn execute(&self, service: &Service<'_>) -> Done;
}

impl<C: Execute> Execute for Box<C> {
    type Json = C::Json;
    const READS: bool = C::READS;

    fn execute(&self, service: &Service<'_>) -> Done {
        self.as_ref().execute(service)
    }
}

/// A command, or a family of commands.
pub(crate) trait Dispatch {
    fn dispatch(&self, service: &Service<'_>) -> Done;
    fn schemas() -> Schemas;
}

impl<C: Execute> Dispatch for C {
    fn dispatch(&self, service: &Service<'_>) -> Done {
        if !C::READS {
            text::finish_first();
        }
        self.execute(service)
    }

    fn schemas() -> Schemas {
        Schemas::Command(C::Json::schema)
    }
}

/// Declares the commands of a family, each with the type of its arguments.
macro_rules! family {
    ($(#[$attribute:meta])* $name:ident { $($(#[$of_command:meta])* $variant:ident($command:ty),)* }) => {
        $(#[$attribute])*
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum $name {
            $($(#[$of_command])* $variant($command),)*
        }

        impl $crate::command::Dispatch for $name {
            fn dispatch(&self, service: &$crate::global::Service<'_>) -> $crate::global::Done {
                match self {
                    $(Self::$variant(command) => $crate::command::Dispatch::dispatch(command, service),)*
                }
            }

            fn schemas() -> $crate::global::Schemas {
                $crate::global::Schemas::Family(vec![$(<$command as $crate::command::Dispatch>::schemas()),*])
            }
        }
    };
}
pub(crate) use family;

/// A JSON output.
pub(crate) trait Printed {
    fn schema() -> Option<Value>;
}

impl<T: JsonSchema> Printed for T {
    fn schema() -> Option<Value> {
        Some(schema_of::<T>())
    }
}

/// The output of a command that prints no JSON.
pub(crate) enum NoJson {}

impl Printed for NoJson {
    fn schema() -> Option<Value> {
        None
    }
}

/// An operation at its end; its acceptance with `--no-wait`.
pub(crate) enum AwaitedOperation {}

impl Printed for AwaitedOperation {
    fn schema() -> Option<Value> {
        Some(awaited::<OperationRow>())
    }
}

/// A run at its end; its acceptance with `--no-wait`.
pub(crate) enum AwaitedRun {}

impl Printed for AwaitedRun {
    fn schema() -> Option<Value> {
        Some(awaited::<RunRow>())
    }
}

fn awaited<End: JsonSchema>() -> Value {
    any_of(&[("end", schema_of::<End>()), ("with --no-wait", schema_of::<Accepted>())])
}

/// The JSON schema of a type.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    SchemaGenerator::new(SchemaSettings::draft2020_12())
        .into_root_schema_for::<T>()
        .to_value()
}

/// The schema of alternatives, each with its title. Each keeps its own definitions under its own address.
pub(crate) fn any_of(schemas: &[(&str, Value)]) -> Value {
    let each = schemas.iter().enumerate().map(|(nth, (title, schema))| {
        let mut schema = schema.clone();
        schema["$id"] = format!("schema:{nth}").into();
        schema["title"] = (*title).into();
        schema
    });
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": each.collect::<Vec<_>>() })
}
