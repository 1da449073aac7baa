//! `pfsession connection`: connections to model providers and other services.
//!
//! A secret comes by a prompt or by standard input, never by an argument, and is shown nowhere.

mod document;
mod keeper;
mod views;

use crate::{
    command::{Execute, NoJson, family},
    global::{Done, Service},
    options::named_text,
    secrets::{ask, ask_lines},
    terminal::{note, warn},
    text::{out, out_json},
    trouble::{FAILED, NONE, Trouble, USAGE},
};
use agent::connections::Scope;
use clap::Args;
use contract::Code;
use document::{fill_in, is_brokered, is_standard_input, missing, name_of, set, text_of};
use flow::{Connection as Kept, Secret};
use keeper::Keeper;
use lifecycle::count_with;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use views::{ConnectionList, ConnectionView, lines, table, view};

family! {
    /// Manage the connections that flows name, to model providers and other services
    Connection {
        Create(CreateConnection),
        List(List),
        Show(Show),
        Update(UpdateConnection),
        Delete(Delete),
        Import(Import),
    }
}

/// Create a connection, or replace the one of that name
#[derive(Args, Debug)]
#[command(after_help = "\
The file is promptflow's own: name, type, and the keys of that type. A secret that is left out, empty, or <user-input> is asked for: at the \
terminal, or from standard input, where one stands alone and several are lines KEY=SECRET. It is kept in the state folder for you alone; \
with --endpoint, by the service, in AWS Secrets Manager. A run gets the connections whose names stand in its flow's files or in its own settings, in memory.

No flow gets the key of a new connection to OpenAI, Azure OpenAI or a serverless endpoint. It gets the address of a broker of its session, which adds \
the key to what goes to that provider. A flow that has to have the key itself: --brokered=false.

Types: azure_open_ai, open_ai, serverless, serp, qdrant, weaviate, cognitive_search, azure_ai_services, azure_content_safety, form_recognizer, \
custom.

Examples:
  pfsession connection create -f connection.yml
  pfsession connection create -f connection.yml --name my_model < key.txt
  pfsession connection create -f connection.yml --for-workspace")]
pub(crate) struct CreateConnection {
    /// The connection's file, or - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its name, in place of the file's
    #[arg(long, short)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) brokered: Brokered,
    /// For all of the workspace; a user's own of the same name comes first
    #[arg(long)]
    pub(crate) for_workspace: bool,
}

impl Execute for CreateConnection {
    type Json = ConnectionView;

    fn execute(&self, service: &Service<'_>) -> Done {
        Here::of(service)?.create(self)
    }
}

/// Whether a broker holds the key of a connection.
#[derive(Args, Debug)]
pub(crate) struct Brokered {
    /// Keep its key with a broker outside the sandbox: a flow gets an address in its place. The
    /// default of a new connection of type azure_open_ai, open_ai or serverless with a key; false
    /// gives flows the key itself
    #[arg(
        long = "brokered",
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) wanted: Option<bool>,
}

/// List the connections that you may use: your own, and the workspace's
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession connection list
  pfsession connection list --json | jq -r '.connections[].name'")]
pub(crate) struct List {}

impl Execute for List {
    type Json = ConnectionList;

    fn execute(&self, service: &Service<'_>) -> Done {
        Here::of(service)?.list()
    }
}

/// Show a connection, without its secrets
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession connection show my_model")]
pub(crate) struct Show {
    /// The connection's name
    name: String,
}

impl Execute for Show {
    type Json = ConnectionView;

    fn execute(&self, service: &Service<'_>) -> Done {
        Here::of(service)?.show(&self.name)
    }
}

/// Change a connection: values that are named change, the rest stays
#[derive(Args, Debug)]
#[command(after_help = "\
A secret that the file leaves empty, or as stars or <no-change>, stays; <user-input> is asked for.

Examples:
  pfsession connection update my_model --set api_base=https://other.example
  pfsession connection update my_model --secret api_key < key.txt
  pfsession connection update my_model --brokered
  pfsession connection update my_model -f connection.yml")]
pub(crate) struct UpdateConnection {
    /// The connection's name
    pub(crate) name: String,
    /// The file with the new values, or - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A value that is no secret
    #[arg(long, value_name = "KEY=TEXT", value_parser = named_text, num_args = 1..)]
    pub(crate) set: Vec<(String, String)>,
    /// Ask for this secret anew; may be given again
    #[arg(long, value_name = "KEY")]
    pub(crate) secret: Vec<String>,
    #[command(flatten)]
    pub(crate) brokered: Brokered,
    /// The workspace's, and not your own
    #[arg(long)]
    pub(crate) for_workspace: bool,
}

impl Execute for UpdateConnection {
    type Json = ConnectionView;

    fn execute(&self, service: &Service<'_>) -> Done {
        Here::of(service)?.update(self)
    }
}

/// Delete a connection
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession connection delete my_model")]
pub(crate) struct Delete {
    /// The connection's name
    name: String,
    /// The workspace's, and not your own
    #[arg(long)]
    for_workspace: bool,
}

impl Execute for Delete {
    type Json = NoJson;

    fn execute(&self, service: &Service<'_>) -> Done {
        Here::of(service)?.delete(&self.name, scope(self.for_workspace))
    }
}

/// Import the connections of promptflow's own list; it has no secrets, so they are asked for
#[derive(Args, Debug)]
#[command(after_help = "\
Secrets are asked for at the terminal, or come from standard input as lines NAME.KEY=SECRET.

Example:
  pf connection list > connections.json && pfsession connection import connections.json")]
pub(crate) struct Import {
    /// File with the output of `pf connection list`, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    brokered: Brokered,
    /// For all of the workspace
    #[arg(long)]
    for_workspace: bool,
}

/// The number of connections that an import has kept.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Imported {
    kept: usize,
}

impl Execute for Import {
    type Json = Imported;

    fn execute(&self, service: &Service<'_>) -> Done {
        Here::of(service)?.import(&self.file, self.brokered.wanted, scope(self.for_workspace))
    }
}

fn scope(for_workspace: bool) -> Scope {
    match for_workspace {
        true => Scope::Workspace,
        false => Scope::User,
    }
}

/// The connections that a command is about.
struct Here {
    keeper: Keeper,
    json: bool,
}

impl Here {
    fn of(service: &Service<'_>) -> Result<Self, Box<Trouble>> {
        Ok(Self {
            keeper: Keeper::of(service)?,
            json: service.global.json,
        })
    }

    /// Keeps a connection, and says so.
    fn keep(&self, name: &str, scope: Scope, connection: Kept) -> Done {
        let shown = view(name, scope, &connection);
        let is_there = self.keeper.of_scope(scope)?.contains_key(name);
        self.keeper.keep(scope, vec![(name.to_owned(), connection)])?;
        if self.json {
            out_json(&shown);
        } else {
            let done = if is_there { "replaced" } else { "kept" };
            note!("The connection {name} is {done}. It counts in the next run.");
        }
        Ok(0)
    }

    fn create(&self, typed: &CreateConnection) -> Done {
        let text = text_of(&typed.file)?;
        let shown = typed.file.display().to_string();
        let document = flow::connection(&shown, &text).map_err(|failure| Trouble::of(USAGE, failure))?;
        document.warnings.iter().for_each(|warning| warn(warning));
        let name = name_of(typed.name.as_ref(), &document, &shown)?;
        let is_brokered = is_brokered(&document, typed.brokered.wanted, &name)?;
        let wanted = missing(&document, None);
        let given = match wanted.is_empty() {
            true => BTreeMap::new(),
            false => ask(&wanted, is_standard_input(&typed.file))?,
        };
        let mut connection = fill_in(document, None, &given).map_err(|keys| no_secret(&name, &keys))?;
        connection.brokered = is_brokered;
        if is_brokered {
            note!("A flow gets the address of a broker, and not its key; --brokered=false gives it the key.");
        }
        if connection.is_keyless() {
            note!(
                "It has no key: a run needs the package azure-identity, and an identity, such as by --env-secret AZURE_CLIENT_SECRET."
            );
        }
        self.keep(&name, scope(typed.for_workspace), connection)
    }

    fn list(&self) -> Done {
        let views = self.keeper.all()?.into_iter();
        let connections: Vec<_> = views
            .map(|(name, (scope, connection))| view(&name, scope, &connection))
            .collect();
        if self.json {
            out_json(&ConnectionList { connections });
        } else if connections.is_empty() {
            note!("There is no connection. Make one: pfsession connection create -f connection.yml");
        } else {
            out(&table(&connections));
        }
        Ok(0)
    }

    fn show(&self, name: &str) -> Done {
        let known = self.keeper.all()?;
        let (scope, connection) = known.get(name).ok_or_else(|| none(name))?;
        let shown = view(name, *scope, connection);
        if self.json {
            out_json(&shown);
        } else {
            out(&lines(&shown));
            if self.keeper.is_elsewhere() {
                note!(
                    "The service keeps its secrets in AWS Secrets Manager. An agent has them in memory while its run lasts."
                );
            }
        }
        Ok(0)
    }

    fn update(&self, typed: &UpdateConnection) -> Done {
        let (name, scope) = (&typed.name, scope(typed.for_workspace));
        let old = self.keeper.of_scope(scope)?.remove(name).ok_or_else(|| none(name))?;
        let (text, shown) = match &typed.file {
            Some(file) => (text_of(file)?, file.display().to_string()),
            None => (old.scrub(name).to_string(), name.clone()),
        };
        let bad = |failure| Trouble::of(USAGE, failure);
        let mut document = flow::connection(&shown, &text).map_err(bad)?;
        if !typed.set.is_empty() {
            let changed = set(&old, document.connection.scrub(name), &typed.set)?;
            let secrets = std::mem::take(&mut document.secrets);
            document = flow::connection(name, &changed.to_string()).map_err(bad)?;
            document.secrets.extend(secrets);
        }
        document.warnings.iter().for_each(|warning| warn(warning));
        let was = document
            .brokered
            .unwrap_or(old.brokered && document.connection.can_be_brokered());
        let is_brokered = is_brokered(&document, typed.brokered.wanted.or(Some(was)), name)?;
        for key in &typed.secret {
            document.secrets.insert(key.clone(), Secret::Asked);
        }
        let wanted = missing(&document, Some(&old));
        let given = match wanted.is_empty() {
            true => BTreeMap::new(),
            false => ask(&wanted, typed.file.as_deref().is_some_and(is_standard_input))?,
        };
        let mut connection = fill_in(document, Some(&old), &given).map_err(|keys| no_secret(name, &keys))?;
        connection.brokered = is_brokered;
        self.keep(name, scope, connection)
    }

    fn delete(&self, name: &str, scope: Scope) -> Done {
        match self.keeper.remove(scope, name)? {
            true => Ok(0),
            false => Err(none(name)),
        }
    }

    /// Keeps all connections of a list whose secrets are given, and says which are not.
    fn import(&self, file: &Path, brokered: Option<bool>, scope: Scope) -> Done {
        let shown = file.display().to_string();
        let documents = flow::connections(&shown, &text_of(file)?).map_err(|failure| Trouble::of(USAGE, failure))?;
        let mut named = Vec::new();
        for document in documents {
            document.warnings.iter().for_each(|warning| warn(warning));
            named.push((name_of(None, &document, &shown)?, document));
        }
        let full = |name: &str, key: &str| format!("{name}.{key}");
        let wanted: Vec<String> = named
            .iter()
            .flat_map(|(name, document)| missing(document, None).into_iter().map(move |key| full(name, &key)))
            .collect();
        let given = match wanted.is_empty() {
            true => BTreeMap::new(),
            false => ask_lines(&wanted, is_standard_input(file))?,
        };
        let (mut kept, mut left) = (Vec::new(), Vec::new());
        for (name, document) in named {
            // What cannot be brokered is none of those that are meant.
            let wanted = brokered.filter(|_| document.connection.can_be_brokered());
            let is_brokered = is_brokered(&document, wanted, &name)?;
            let keys = document.secrets.keys();
            let own = keys
                .filter_map(|key| Some((key.clone(), given.get(&full(&name, key))?.clone())))
                .collect();
            match fill_in(document, None, &own) {
                Ok(mut connection) => {
                    connection.brokered = is_brokered;
                    kept.push((name, connection));
                }
                Err(keys) => left.extend(keys.iter().map(|key| full(&name, key))),
            }
        }
        let number = kept.len();
        let counted = count_with(number, "connection", ["is", "are"]);
        self.keeper.keep(scope, kept)?;
        if !left.is_empty() {
            return Err(Trouble::new(
                FAILED,
                Code::ConnectionNoSecret,
                format!(
                    "{counted} kept, and others are not, as their secrets are missing: {}",
                    left.join(", ")
                ),
            )
            .next(format!(
                "give each as a line NAME.KEY=SECRET: pfsession connection import {shown} < secrets.txt"
            )));
        }
        if self.json {
            out_json(&Imported { kept: number });
        } else {
            note!("{counted} kept.");
        }
        Ok(0)
    }
}

fn none(name: &str) -> Box<Trouble> {
    Trouble::new(NONE, Code::ConnectionNone, format!("There is no connection {name}"))
        .next("see what there is: pfsession connection list")
}

fn no_secret(name: &str, keys: &[String]) -> Box<Trouble> {
    Trouble::new(
        USAGE,
        Code::ConnectionNoSecret,
        format!(
            "The connection {name} needs a secret that is not given: {}",
            keys.join(", ")
        ),
    )
    .next("type it when it is asked for, or give it on standard input: one alone, or lines KEY=SECRET")
}
