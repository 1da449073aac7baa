//! A command: its arguments are a type, its documentation is the command's help, and it names the
//! type of its JSON.
//!
//! A command without a JSON schema does not compile: `--json` is an option of every command, so
//! [`Execute::Json`] has no default.

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
        Some(schema_of_end::<OperationRow>())
    }
}

/// A run at its end; its acceptance with `--no-wait`.
pub(crate) enum AwaitedRun {}

impl Printed for AwaitedRun {
    fn schema() -> Option<Value> {
        Some(schema_of_end::<RunRow>())
    }
}

fn schema_of_end<End: JsonSchema>() -> Value {
    any_of(&[("end", schema_of::<End>()), ("with --no-wait", schema_of::<Accepted>())])
}

/// The JSON schema of a type.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    SchemaGenerator::new(SchemaSettings::draft2020_12())
        .into_root_schema_for::<T>()
        .to_value()
}

/// The schema of alternatives, each with its title. Each keeps its own definitions under its own
/// address. Alternatives of an alternative are some of the whole's.
pub(crate) fn any_of(schemas: &[(&str, Value)]) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for (title, schema) in schemas {
        match schema["anyOf"].as_array().filter(|_| schema.get("$defs").is_none()) {
            Some(alternatives) => all.extend(alternatives.iter().cloned()),
            None => {
                let mut schema = schema.clone();
                schema["title"] = (*title).into();
                all.push(schema);
            }
        }
    }
    for (nth, schema) in all.iter_mut().enumerate() {
        schema["$id"] = format!("schema:{nth}").into();
    }
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alternative_has_an_address_of_its_own_also_within_another() {
        let outer = any_of(&[
            ("whole", schema_of::<Accepted>()),
            ("later", schema_of_end::<OperationRow>()),
        ]);
        let all = outer["anyOf"].as_array().unwrap();
        let of = |key: &str| {
            all.iter()
                .map(|schema| schema[key].as_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("$id"), ["schema:0", "schema:1", "schema:2"]);
        assert_eq!(of("title"), ["whole", "end", "with --no-wait"]);
    }
}
