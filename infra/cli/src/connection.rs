//! Connections to model providers and other services: `pfsession connection`.
//!
//! A secret comes by a prompt or by standard input, never by an argument, and is shown nowhere.

use crate::{
    args,
    commands::{Done, Service},
    parts, show,
    terminal::{note, warn},
    text::{out, out_json},
    trouble::{FAILED, NONE, Trouble, USAGE},
};
use agent::connections::{Connections, Holder, Scope};
use comfy_table::Cell;
use contract::Failure;
use flow::{Connection, Document, SCRUBBED, Secret};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal, Read},
    path::Path,
};

/// The workspace of this machine, if none is named.
const WORKSPACE: &str = "local";

/// Does what was typed. Gives back the exit code.
pub(crate) fn execute(service: &Service, typed: &args::Connection) -> Done {
    let here = Here {
        state: service.local()?.state,
        holder: Holder {
            workspace: service.global.workspace.clone().unwrap_or_else(|| WORKSPACE.into()),
            user: parts::user(),
        },
        json: service.global.json,
    };
    match typed {
        args::Connection::Create(create) => here.create(create),
        args::Connection::List => here.list(),
        args::Connection::Show { name } => here.show(name),
        args::Connection::Update(update) => here.update(update),
        args::Connection::Delete { name, for_workspace } => here.delete(name, scope(*for_workspace)),
        args::Connection::Import {
            file,
            brokered,
            for_workspace,
        } => here.import(file, brokered.wanted, scope(*for_workspace)),
    }
}

fn scope(for_workspace: bool) -> Scope {
    match for_workspace {
        true => Scope::Workspace,
        false => Scope::User,
    }
}

/// A connection without its secrets, as promptflow shows it, and whose it is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConnectionView {
    /// `user`, or `workspace`.
    scope: &'static str,
    /// `name`, `type`, `module`, and the keys of its type. A secret is `******`.
    #[serde(flatten)]
    connection: Map<String, Value>,
}

/// The connections that a user may use.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConnectionList {
    connections: Vec<ConnectionView>,
}

fn view(name: &str, scope: Scope, connection: &Connection) -> ConnectionView {
    let Value::Object(connection) = connection.scrubbed(name) else {
        unreachable!("it is an object")
    };
    ConnectionView {
        scope: match scope {
            Scope::User => "user",
            Scope::Workspace => "workspace",
        },
        connection,
    }
}

/// The connections of this machine, and who asks.
struct Here {
    state: std::path::PathBuf,
    holder: Holder,
    json: bool,
}

impl Here {
    fn read(&self) -> Result<Connections, Box<Trouble>> {
        Connections::read(&self.state).map_err(|failure| Trouble::of(FAILED, failure))
    }

    /// Keeps a connection, and says so.
    fn keep(&self, name: &str, scope: Scope, connection: Connection) -> Done {
        let shown = view(name, scope, &connection);
        let before = Connections::change(&self.state, |all| {
            Ok::<_, Failure>(all.of_scope(&self.holder, scope).insert(name.to_owned(), connection))
        })
        .map_err(|failure| Trouble::of(FAILED, failure))?;
        if self.json {
            out_json(&shown);
        } else {
            let done = if before.is_some() { "replaced" } else { "kept" };
            note!("The connection {name} is {done}. It counts in the next run.");
        }
        Ok(0)
    }

    fn create(&self, typed: &args::CreateConnection) -> Done {
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
        let mut connection = filled(document, None, &given).map_err(|keys| no_secret(&name, &keys))?;
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
        let all = self.read()?;
        let views = all.of(&self.holder).into_iter();
        let connections: Vec<_> = views
            .map(|(name, (scope, connection))| view(name, scope, connection))
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
        let all = self.read()?;
        let known = all.of(&self.holder);
        let (scope, connection) = known.get(name).ok_or_else(|| none(name))?;
        let shown = view(name, *scope, connection);
        if self.json {
            out_json(&shown);
        } else {
            out(&lines(&shown));
        }
        Ok(0)
    }

    fn update(&self, typed: &args::UpdateConnection) -> Done {
        let (name, scope) = (&typed.name, scope(typed.for_workspace));
        let mut all = self.read()?;
        let old = all
            .of_scope(&self.holder, scope)
            .get(name)
            .cloned()
            .ok_or_else(|| none(name))?;
        let (text, shown) = match &typed.file {
            Some(file) => (text_of(file)?, file.display().to_string()),
            None => (old.scrubbed(name).to_string(), name.clone()),
        };
        let bad = |failure| Trouble::of(USAGE, failure);
        let mut document = flow::connection(&shown, &text).map_err(bad)?;
        if !typed.set.is_empty() {
            let changed = set(&old, document.connection.scrubbed(name), &typed.set)?;
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
        let mut connection = filled(document, Some(&old), &given).map_err(|keys| no_secret(name, &keys))?;
        connection.brokered = is_brokered;
        self.keep(name, scope, connection)
    }

    fn delete(&self, name: &str, scope: Scope) -> Done {
        let gone = Connections::change(&self.state, |all| {
            Ok::<_, Failure>(all.of_scope(&self.holder, scope).remove(name))
        })
        .map_err(|failure| Trouble::of(FAILED, failure))?;
        gone.map(|_| 0).ok_or_else(|| none(name))
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
            match filled(document, None, &own) {
                Ok(mut connection) => {
                    connection.brokered = is_brokered;
                    kept.push((name, connection));
                }
                Err(keys) => left.extend(keys.iter().map(|key| full(&name, key))),
            }
        }
        let count = kept.len();
        Connections::change(&self.state, |all| {
            all.of_scope(&self.holder, scope).extend(kept);
            Ok::<_, Failure>(())
        })
        .map_err(|failure| Trouble::of(FAILED, failure))?;
        if !left.is_empty() {
            return Err(Trouble::new(
                FAILED,
                "Connection.NoSecret",
                format!(
                    "{count} connections are kept, and others are not, as their secrets are missing: {}",
                    left.join(", ")
                ),
            )
            .next(format!(
                "give each as a line NAME.KEY=SECRET: pfsession connection import {shown} < secrets.txt"
            )));
        }
        if self.json {
            out_json(&json!({ "kept": count }));
        } else {
            note!("{count} connections are kept.");
        }
        Ok(0)
    }
}

fn none(name: &str) -> Box<Trouble> {
    Trouble::new(NONE, "Connection.None", format!("There is no connection {name}"))
        .next("see what there is: pfsession connection list")
}

fn no_secret(name: &str, keys: &[String]) -> Box<Trouble> {
    Trouble::new(
        USAGE,
        "Connection.NoSecret",
        format!(
            "The connection {name} needs a secret that is not given: {}",
            keys.join(", ")
        ),
    )
    .next("type it when it is asked for, or give it on standard input: one alone, or lines KEY=SECRET")
}

/// Whether a broker is to hold the key of a connection: as it was typed, else as its document says, else if it can.
fn is_brokered(document: &Document, typed: Option<bool>, name: &str) -> Result<bool, Box<Trouble>> {
    let can = document.connection.can_be_brokered();
    let wanted = typed.or(document.brokered).unwrap_or(can);
    if wanted && !can {
        let message = format!(
            "A broker cannot hold the key of {name}: it holds those of the types azure_open_ai, open_ai and serverless, with a key"
        );
        return Err(Trouble::new(USAGE, "Connection.NotBrokered", message).next("leave out --brokered"));
    }
    Ok(wanted)
}

fn is_standard_input(file: &Path) -> bool {
    file == Path::new("-")
}

/// The text of a document.
fn text_of(file: &Path) -> Result<String, Box<Trouble>> {
    let read = match is_standard_input(file) {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    };
    read.map_err(|error| {
        let message = format!(
            "{} cannot be read: {error}. Name a file with a connection.",
            file.display()
        );
        Trouble::new(USAGE, "Connection.BadFile", message)
    })
}

fn name_of(typed: Option<&String>, document: &Document, shown: &str) -> Result<String, Box<Trouble>> {
    let name = typed.or(document.name.as_ref());
    let name = name.filter(|name| flow::is_good_name(name)).cloned();
    name.ok_or_else(|| {
        Trouble::new(
            USAGE,
            "Connection.NoName",
            format!("{shown} has no name for the connection"),
        )
        .next("add a line `name: my_connection`, or give --name")
    })
}

/// The secrets that are to be asked for.
fn missing(document: &Document, old: Option<&Connection>) -> Vec<String> {
    let is_missing = |(key, secret): &(&String, &Secret)| match secret {
        Secret::Given(_) => false,
        Secret::Kept => old.is_none_or(|old| !old.secrets.contains_key(*key)),
        Secret::Asked => true,
    };
    document
        .secrets
        .iter()
        .filter(is_missing)
        .map(|(key, _)| key.clone())
        .collect()
}

/// The connection with its secrets, or the keys of those that it lacks.
fn filled(
    document: Document,
    old: Option<&Connection>,
    given: &BTreeMap<String, String>,
) -> Result<Connection, Vec<String>> {
    let mut connection = document.connection;
    let mut lacks = Vec::new();
    for (key, secret) in document.secrets {
        let value = match secret {
            Secret::Given(value) => Some(value),
            Secret::Kept => given.get(&key).or(old.and_then(|old| old.secrets.get(&key))).cloned(),
            Secret::Asked => given.get(&key).cloned(),
        };
        match value.filter(|value| !value.is_empty()) {
            Some(value) => drop(connection.secrets.insert(key, value)),
            None => lacks.push(key),
        }
    }
    if lacks.is_empty() { Ok(connection) } else { Err(lacks) }
}

/// Changes keys of a connection that are no secrets.
fn set(old: &Connection, mut shown: Value, changes: &[(String, String)]) -> Result<Value, Box<Trouble>> {
    for (key, value) in changes {
        if old.secrets.contains_key(key) || value == SCRUBBED {
            let message = format!("{key} is a secret, and a command line is seen by others");
            return Err(Trouble::new(USAGE, "Connection.SecretInArgument", message)
                .next(format!("have it asked for: --secret {key}")));
        }
        let place = match shown.get_mut("configs") {
            Some(configs) => configs,
            None => &mut shown,
        };
        place[key.strip_prefix("configs.").unwrap_or(key)] = json!(value);
    }
    Ok(shown)
}

/// Asks for secrets: at the terminal one by one, else from standard input, which is one alone or lines `KEY=SECRET`.
fn ask(keys: &[String], is_read: bool) -> Result<BTreeMap<String, String>, Box<Trouble>> {
    match keys {
        [key] if !io::stdin().is_terminal() => {
            let text = rest_of_input(is_read)?;
            let secret = text.trim();
            let secret = secret.strip_prefix(&format!("{key}=")).unwrap_or(secret);
            if secret.contains('\n') {
                return ask_in(keys, &text);
            }
            Ok([(key.clone(), secret.to_owned())].into())
        }
        _ => ask_lines(keys, is_read),
    }
}

/// The same, from lines alone.
pub(crate) fn ask_lines(keys: &[String], is_read: bool) -> Result<BTreeMap<String, String>, Box<Trouble>> {
    if !io::stdin().is_terminal() || is_read {
        return ask_in(keys, &rest_of_input(is_read)?);
    }
    let mut given = BTreeMap::new();
    for key in keys {
        let typed = rpassword::prompt_password(format!("{key}: ")).map_err(not_read)?;
        given.insert(key.clone(), typed);
    }
    Ok(given)
}

fn ask_in(keys: &[String], text: &str) -> Result<BTreeMap<String, String>, Box<Trouble>> {
    let mut given = BTreeMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // The line itself may be a secret.
        let (key, secret) = line
            .split_once('=')
            .filter(|(key, _)| keys.iter().any(|known| known == key.trim()))
            .ok_or_else(|| {
                let message = format!(
                    "Line {} of standard input does not begin with one of {}",
                    index + 1,
                    keys.join(", ")
                );
                Trouble::new(USAGE, "Connection.NoSecret", message).next("give each as a line KEY=SECRET")
            })?;
        given.insert(key.trim().to_owned(), secret.trim().to_owned());
    }
    Ok(given)
}

/// Standard input; nothing if it was the document.
fn rest_of_input(is_read: bool) -> Result<String, Box<Trouble>> {
    let mut text = String::new();
    if !is_read {
        io::stdin().read_to_string(&mut text).map_err(not_read)?;
    }
    Ok(text)
}

fn not_read(error: io::Error) -> Box<Trouble> {
    Trouble::new(
        USAGE,
        "Connection.NoSecret",
        format!("Standard input cannot be read: {error}"),
    )
}

/// The values of a run's secret variables: the user's own, else asked for.
pub(crate) fn secret_variables(names: &[String]) -> Result<BTreeMap<String, String>, Box<Trouble>> {
    let own = names
        .iter()
        .filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    let mut variables: BTreeMap<String, String> = own.collect();
    let wanted: Vec<String> = names
        .iter()
        .filter(|name| !variables.contains_key(*name))
        .cloned()
        .collect();
    if !wanted.is_empty() {
        variables.extend(ask(&wanted, false)?);
    }
    let lacks = wanted
        .iter()
        .filter(|name| variables.get(*name).is_none_or(String::is_empty));
    let lacks: Vec<&str> = lacks.map(String::as_str).collect();
    if lacks.is_empty() {
        return Ok(variables);
    }
    Err(Trouble::new(
        USAGE,
        "Run.NoSecretVariables",
        format!("The secret variable {} has no value", lacks.join(", ")),
    )
    .next("set it in your own environment, or give it on standard input: one alone, or lines NAME=SECRET"))
}

fn text(of: &Value) -> String {
    match of {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn table(connections: &[ConnectionView]) -> String {
    let mut table = show::table(&["NAME", "TYPE", "WHOSE", "ADDRESS"]);
    for view in connections {
        let of = |keys: &[&str]| {
            let found = keys.iter().find_map(|key| view.connection.get(*key));
            found.map(text).unwrap_or_default()
        };
        table.add_row([
            Cell::new(of(&["name"])),
            Cell::new(of(&["type"])),
            Cell::new(view.scope),
            Cell::new(of(&["api_base", "endpoint", "base_url"])),
        ]);
    }
    show::rendered(table)
}

/// One connection, a key a line.
fn lines(view: &ConnectionView) -> String {
    let mut table = show::table(&[]);
    table.add_row(["scope", view.scope]);
    for (key, value) in &view.connection {
        match value {
            Value::Object(inside) => {
                for (name, value) in inside {
                    table.add_row([format!("{key}.{name}"), text(value)]);
                }
            }
            value => drop(table.add_row([key.clone(), text(value)])),
        }
    }
    show::rendered(table)
}
