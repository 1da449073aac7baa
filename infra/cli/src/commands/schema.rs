//! `pfsession schema`.

use crate::{
    command::{Execute, schema_of},
    global::{Done, MakeSchema, Schemas, Service},
    text::{out, out_json},
    trouble::{Failed, Trouble, USAGE},
};
use clap::Args;
use contract::Code;
use serde_json::Value;

/// Print the JSON schema of a command's output with --json
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession schema             the commands that have one
  pfsession schema list
  pfsession schema failure     what is printed when a command fails")]
pub(crate) struct Schema {
    /// The command
    command: Vec<String>,
}

impl Execute for Schema {
    type Json = Value;

    fn execute(&self, service: &Service<'_>) -> Done {
        let mut known = Vec::new();
        for (name, schema) in find_schemas(&(service.command_line)(), &(service.schemas)(), &[]) {
            known.extend(schema().map(|schema| (name, schema)));
        }
        known.push(("failure".to_owned(), schema_of::<Failed>()));
        let name = self.command.join(" ");
        if name.is_empty() {
            known.iter().for_each(|(name, _)| out(name));
            return Ok(0);
        }
        let (_, schema) = known.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            let message = format!("`pfsession {name}` prints no JSON that has a schema");
            Trouble::new(USAGE, Code::CommandNoSchema, message).next("see which do: pfsession schema")
        })?;
        out_json(schema);
        Ok(0)
    }
}

/// The commands below a command, each with the function that makes its schema.
///
/// * `path`: the names of the families that the command is in.
pub(crate) fn find_schemas(command: &clap::Command, schemas: &Schemas, path: &[&str]) -> Vec<(String, MakeSchema)> {
    match schemas {
        Schemas::Command(schema) => vec![(path.join(" "), *schema)],
        // Both are in the order of the variants that declare them.
        Schemas::Family(all) => {
            let below = command.get_subcommands().zip(all);
            below
                .flat_map(|(command, schemas)| find_schemas(command, schemas, &[path, &[command.get_name()]].concat()))
                .collect()
        }
    }
}
