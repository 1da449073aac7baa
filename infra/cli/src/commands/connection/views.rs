//! Connections, as they are shown.

use crate::show;
use agent::connections::Scope;
use comfy_table::Cell;
use flow::Connection;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

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
    pub(super) connections: Vec<ConnectionView>,
}

pub(super) fn view(name: &str, scope: Scope, connection: &Connection) -> ConnectionView {
    let Value::Object(connection) = connection.scrub(name) else {
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

fn text(of: &Value) -> String {
    match of {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn table(connections: &[ConnectionView]) -> String {
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
    show::render(table)
}

/// One connection, a key a line.
pub(super) fn lines(view: &ConnectionView) -> String {
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
    show::render(table)
}
