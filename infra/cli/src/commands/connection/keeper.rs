//! The keeper of connections: in the state folder of this machine, or by a service elsewhere, which
//! gives no secret back.

use crate::{
    client::Client,
    global::Service,
    parts,
    trouble::{FAILED, Trouble},
};
use agent::connections::{Connections, Holder, Scope};
use contract::{
    Code, Failure,
    connections::{ConnectionRow, ConnectionRows, ConnectionWish, Open},
    route::Route,
};
use flow::{Connection, SCRUBBED};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// The workspace of this machine, if none is named.
const WORKSPACE: &str = "local";

pub(super) enum Keeper {
    Here { state: PathBuf, holder: Holder },
    Elsewhere(Arc<Client>),
}

type Named = BTreeMap<String, Connection>;

impl Keeper {
    pub(super) fn of(service: &Service<'_>) -> Result<Self, Box<Trouble>> {
        if service.global.endpoint.is_some() {
            return Ok(Self::Elsewhere(service.client()?));
        }
        Ok(Self::Here {
            state: service.local()?.state,
            holder: Holder {
                workspace: service.global.workspace.clone().unwrap_or_else(|| WORKSPACE.into()),
                user: parts::user(),
            },
        })
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Elsewhere(_))
    }

    /// The connections that the user may use: the workspace's, and their own before those. A secret
    /// that the service keeps is [`SCRUBBED`].
    pub(super) fn all(&self) -> Result<BTreeMap<String, (Scope, Connection)>, Box<Trouble>> {
        match self {
            Self::Here { state, holder } => {
                let all = Connections::read(state).map_err(failed)?;
                let of = all.of(holder).into_iter();
                Ok(of
                    .map(|(name, (scope, connection))| (name.to_owned(), (scope, connection.clone())))
                    .collect())
            }
            Self::Elsewhere(_) => {
                let mut all = BTreeMap::new();
                for scope in [Scope::Workspace, Scope::User] {
                    let of = self.of_scope(scope)?.into_iter();
                    all.extend(of.map(|(name, connection)| (name, (scope, connection))));
                }
                Ok(all)
            }
        }
    }

    /// The user's own, or the workspace's.
    pub(super) fn of_scope(&self, scope: Scope) -> Result<Named, Box<Trouble>> {
        match self {
            Self::Here { state, holder } => {
                let mut all = Connections::read(state).map_err(failed)?;
                Ok(std::mem::take(all.of_scope(holder, scope)))
            }
            Self::Elsewhere(client) => {
                let rows: ConnectionRows = client.get(Route::Connections(&client.user.workspace))?;
                let is_of = |row: &ConnectionRow| row.user.is_none() == (scope == Scope::Workspace);
                let rows = rows.connections.into_iter().filter(is_of);
                rows.map(|row| Ok((row.name.clone(), to_connection(row)?))).collect()
            }
        }
    }

    /// Keeps these in place of those of their names.
    pub(super) fn keep(&self, scope: Scope, connections: Vec<(String, Connection)>) -> Result<(), Box<Trouble>> {
        match self {
            Self::Here { state, holder } => Connections::change(state, |all| {
                all.of_scope(holder, scope).extend(connections);
                Ok::<_, Failure>(())
            })
            .map_err(failed),
            Self::Elsewhere(client) => connections.into_iter().try_for_each(|(name, connection)| {
                let wish = wish(name, scope, connection)?;
                client
                    .put::<ConnectionRow>(Route::KeepConnection(&client.user.workspace), &wish)
                    .map(|_| ())
            }),
        }
    }

    /// Deletes one; whether there was one.
    pub(super) fn remove(&self, scope: Scope, name: &str) -> Result<bool, Box<Trouble>> {
        match self {
            Self::Here { state, holder } => Connections::change(state, |all| {
                Ok::<_, Failure>(all.of_scope(holder, scope).remove(name).is_some())
            })
            .map_err(failed),
            Self::Elsewhere(client) => {
                if !self.of_scope(scope)?.contains_key(name) {
                    return Ok(false);
                }
                let for_workspace = (scope == Scope::Workspace).then_some(1);
                let target = Route::DeleteConnection(&client.user.workspace)
                    .with("name", name)
                    .with_any("for_workspace", for_workspace);
                client.delete::<ConnectionRow>(target).map(|_| true)
            }
        }
    }
}

fn failed(failure: Failure) -> Box<Trouble> {
    Trouble::of(FAILED, failure)
}

fn other_version() -> Box<Trouble> {
    let message = "The service's answer holds a connection that this version does not know";
    Trouble::new(FAILED, Code::ServiceOtherVersion, message)
}

/// A row as a connection, whose secrets stay with the service.
fn to_connection(row: ConnectionRow) -> Result<Connection, Box<Trouble>> {
    let secrets: BTreeMap<&String, &str> = row.secrets.iter().map(|key| (key, SCRUBBED)).collect();
    serde_json::from_value(row.open.with_secrets(&secrets)).map_err(|_| other_version())
}

/// A connection as the service takes it. A secret that is [`SCRUBBED`] stays as it is.
fn wish(name: String, scope: Scope, connection: Connection) -> Result<ConnectionWish, Box<Trouble>> {
    let kind = serde_json::to_value(connection.kind).ok();
    let kind = kind.and_then(|kind| kind.as_str().map(str::to_owned));
    let (kept, secrets): (BTreeMap<_, _>, _) = connection.secrets.into_iter().partition(|(_, value)| value == SCRUBBED);
    Ok(ConnectionWish {
        name,
        for_workspace: scope == Scope::Workspace,
        open: Open {
            kind: kind.ok_or_else(other_version)?,
            module: connection.module,
            configs: connection.configs,
            brokered: connection.brokered,
        },
        secrets,
        kept: kept.into_keys().collect(),
    })
}
