//! The document of a connection: its name, its secrets, and changes of it.

use crate::trouble::{Trouble, USAGE};
use contract::Code;
use flow::{Connection, Document, SCRUBBED, Secret};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, io, path::Path};

/// Whether a broker is to hold the key of a connection: as it was typed, else as its document says,
/// else if it can.
pub(super) fn is_brokered(document: &Document, typed: Option<bool>, name: &str) -> Result<bool, Box<Trouble>> {
    let can = document.connection.can_be_brokered();
    let wanted = typed.or(document.brokered).unwrap_or(can);
    if wanted && !can {
        let message = format!(
            "A broker cannot hold the key of {name}: it holds those of the types azure_open_ai, open_ai and serverless, with a key"
        );
        return Err(Trouble::new(USAGE, Code::ConnectionNotBrokered, message).next("leave out --brokered"));
    }
    Ok(wanted)
}

pub(super) fn is_standard_input(file: &Path) -> bool {
    file == Path::new("-")
}

/// The text of a document.
pub(super) fn text_of(file: &Path) -> Result<String, Box<Trouble>> {
    let read = match is_standard_input(file) {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    };
    read.map_err(|error| {
        let message = format!(
            "{} cannot be read: {error}. Name a file with a connection.",
            file.display()
        );
        Trouble::new(USAGE, Code::ConnectionBadFile, message)
    })
}

pub(super) fn name_of(typed: Option<&String>, document: &Document, shown: &str) -> Result<String, Box<Trouble>> {
    let name = typed.or(document.name.as_ref());
    let name = name.filter(|name| flow::is_good_name(name)).cloned();
    name.ok_or_else(|| {
        Trouble::new(
            USAGE,
            Code::ConnectionNoName,
            format!("{shown} has no name for the connection"),
        )
        .next("add a line `name: my_connection`, or give --name")
    })
}

/// The secrets that are to be asked for.
pub(super) fn missing(document: &Document, old: Option<&Connection>) -> Vec<String> {
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
pub(super) fn fill_in(
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
pub(super) fn set(old: &Connection, mut shown: Value, changes: &[(String, String)]) -> Result<Value, Box<Trouble>> {
    for (key, value) in changes {
        if old.secrets.contains_key(key) || value == SCRUBBED {
            let message = format!("{key} is a secret, and a command line is seen by others");
            return Err(Trouble::new(USAGE, Code::ConnectionSecretInArgument, message)
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
