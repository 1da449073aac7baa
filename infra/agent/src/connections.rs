//! The connections of this machine's users and workspaces, and what one run gets of them.
//!
//! `connections` in the state folder, for its owner alone, holds them all; `secret-variables/{run}`
//! holds the secret variables of a run from its command until its start, where it is read once and
//! removed. A run gets the connections whose names stand in its flow's files or in its own
//! settings, and no others.
//!
//! Decision: a file, and not the desktop's keyring (crate `keyring`). A service of a machine runs
//! without a desktop, and an agent that outlives a login could not read it. The crate brings D-Bus,
//! and a second place to look in. A file of mode 0600 beside `private-feeds` is held to the same
//! rules and tests. It is encrypted by the disk, not by us: a key beside it would add nothing.

use crate::secrets::Secrets;
use broker::{Header, Provider, Providers, Way};
use contract::{Code, Failure, command::RunWish};
use flow::{Connection, ConnectionType, view::View};
use nix::sys::memfd::{MFdFlags, memfd_create};
use sandbox::owner_only;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Seek, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};
use url::Url;

/// The largest file of a flow in which connections are looked for.
const LARGEST: u64 = 1 << 20;

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    User,
    Workspace,
}

/// A user of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub workspace: String,
    pub user: String,
}

/// All connections of one state folder.
#[derive(Default, Serialize, Deserialize)]
pub struct Connections {
    workspaces: BTreeMap<String, OfWorkspace>,
}

pub(crate) type Named = BTreeMap<String, Connection>;

#[derive(Default, Serialize, Deserialize)]
struct OfWorkspace {
    shared: Named,
    users: BTreeMap<String, Named>,
}

fn file(state: &Path) -> PathBuf {
    state.join("connections")
}

fn not_stored(why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::ConnectionNotStored, why.to_string())
}

impl Connections {
    /// Reads them. No file holds none.
    ///
    /// # Errors
    ///
    /// `Connection.NotStored` if the file is not for its owner alone, or cannot be read. Final
    /// until that is put right.
    pub fn read(state: &Path) -> Result<Self, Failure> {
        let path = file(state);
        let Some(text) = owner_only::read(&path).map_err(not_stored)? else {
            return Ok(Self::default());
        };
        // What the parser says has parts of the text.
        serde_json::from_str(&text).map_err(|_| {
            not_stored(format_args!(
                "{} is not what this version writes. Move it away, and give the connections again.",
                path.display()
            ))
        })
    }

    /// Changes them, one process at a time. They are written only if the change succeeds.
    ///
    /// # Errors
    ///
    /// Those of [`Connections::read`] and of the change; `Connection.NotStored` if they cannot be
    /// written.
    pub fn change<T, E: From<Failure>>(state: &Path, change: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let cannot = |error: io::Error| {
            let place = file(state).display().to_string();
            not_stored(format_args!("{place} cannot be written: {error}. Put that right."))
        };
        fs::create_dir_all(state).map_err(cannot)?;
        let lock = fs::File::create(state.join(".connections.lock")).map_err(cannot)?;
        lock.lock().map_err(cannot)?;
        let mut all = Self::read(state)?;
        let done = change(&mut all)?;
        let text = serde_json::to_string(&all).map_err(|error| cannot(error.into()))?;
        owner_only::write(&file(state), &text).map_err(cannot)?;
        Ok(done)
    }

    /// The connections of a user: the workspace's, and their own before those.
    pub fn of(&self, holder: &Holder) -> BTreeMap<&str, (Scope, &Connection)> {
        let workspace = self.workspaces.get(&holder.workspace);
        let shared = workspace.into_iter().flat_map(|of| &of.shared);
        let own = workspace
            .and_then(|of| of.users.get(&holder.user))
            .into_iter()
            .flatten();
        let as_shared = shared.map(|(name, connection)| (name.as_str(), (Scope::Workspace, connection)));
        let as_own = own.map(|(name, connection)| (name.as_str(), (Scope::User, connection)));
        as_shared.chain(as_own).collect()
    }

    /// The connections of a user, or of the whole workspace.
    pub fn of_scope(&mut self, holder: &Holder, scope: Scope) -> &mut BTreeMap<String, Connection> {
        let workspace = self.workspaces.entry(holder.workspace.clone()).or_default();
        match scope {
            Scope::Workspace => &mut workspace.shared,
            Scope::User => workspace.users.entry(holder.user.clone()).or_default(),
        }
    }
}

/// The keeper of the connections of a session's user.
pub(crate) trait Keeper: Send {
    /// Lists the names of the connections that the user may use.
    ///
    /// # Errors
    ///
    /// `Connection.NotStored`, final; `Connection.Unreachable`.
    fn list(&self, state: &Path) -> Result<BTreeSet<String>, Failure>;

    /// Loads the connections of these names, with their secrets.
    ///
    /// # Errors
    ///
    /// As [`Keeper::list`]; `Connection.UnknownType`, final.
    fn load(&self, state: &Path, names: BTreeSet<String>) -> Result<Named, Failure>;
}

/// The state folder of this machine keeps them.
impl Keeper for Holder {
    fn list(&self, state: &Path) -> Result<BTreeSet<String>, Failure> {
        let all = Connections::read(state)?;
        Ok(all.of(self).into_keys().map(str::to_owned).collect())
    }

    fn load(&self, state: &Path, names: BTreeSet<String>) -> Result<Named, Failure> {
        if names.is_empty() {
            return Ok(Named::new());
        }
        let all = Connections::read(state)?;
        let chosen = all.of(self).into_iter().filter(|(name, _)| names.contains(*name));
        Ok(chosen
            .map(|(name, (_, connection))| (name.to_owned(), connection.clone()))
            .collect())
    }
}

fn variables_file(state: &Path, run: &str) -> PathBuf {
    state.join(SECRET_VARIABLES).join(run)
}

/// The folder, in the state folder, of the secret variables of runs that have not begun.
pub(crate) const SECRET_VARIABLES: &str = "secret-variables";

/// Leaves the secret variables of a run for its agent.
///
/// # Errors
///
/// Errors of the file system.
pub fn leave_variables(state: &Path, run: &str, variables: &BTreeMap<String, String>) -> io::Result<()> {
    owner_only::write(&variables_file(state, run), &serde_json::to_string(variables)?)
}

/// Removes what [`leave_variables`] left, of a run that will not begin.
pub fn forget_variables(state: &Path, run: &str) {
    // It is gone if the run has begun.
    let _ = fs::remove_file(variables_file(state, run));
}

/// Takes the secret variables of a run, which are then nowhere else.
fn take_variables(state: &Path, run: &str, names: &BTreeSet<String>) -> Result<BTreeMap<String, String>, Failure> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let gone = || {
        Failure::new(
            Code::RunNoSecretVariables,
            format!(
                "The values of the run's secret variables ({}) are not on this machine: they are given with a run, and read once. Give them \
                 with a new run.",
                names.iter().cloned().collect::<Vec<_>>().join(", ")
            ),
        )
    };
    let path = variables_file(state, run);
    let text = owner_only::read(&path).map_err(not_stored)?.ok_or_else(gone)?;
    fs::remove_file(&path).map_err(not_stored)?;
    let variables: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|_| gone())?;
    if names.iter().all(|name| variables.contains_key(name)) {
        Ok(variables)
    } else {
        Err(gone())
    }
}

/// The session's broker of model providers, as a run finds it.
#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) providers: Arc<Providers>,
    /// `None` where the sandbox has no sockets.
    pub(crate) at: Option<String>,
}

impl Broker {
    /// The connection that a run gets while its key stays here, and the way to its provider.
    fn hold(&self, name: &str, connection: &Connection) -> Result<(Connection, Way), Failure> {
        let no = |why: String| {
            Failure::new(
                Code::ConnectionNotBrokered,
                format!("The key of the connection {name} stays with a broker, and {why}"),
            )
        };
        let at =
            self.at.as_ref().ok_or_else(|| {
                no("this machine cannot give its session a way there and no other network. Give the session a network \
                (--network internet), or the flow the key (pfsession connection update --brokered=false)."
                .into())
            })?;
        let address = connection.address().and_then(|address| Url::parse(address).ok());
        let address = address.ok_or_else(|| no("its address is no URL. Correct it.".into()))?;
        let key = connection.value("api_key").unwrap_or_default().to_owned();
        let header = match connection.kind {
            ConnectionType::AzureOpenAi => Header::ApiKey,
            _ => Header::Bearer,
        };
        let provider = Provider { address, key, header };
        let way = self
            .providers
            .open(provider)
            .map_err(|why| no(format!("{why}. Correct it.")))?;
        Ok((connection.behind(&format!("{at}{}", way.path())), way))
    }
}

/// The connections and secrets of one run, beside its command.
#[derive(Default)]
pub(crate) struct Given {
    connections: BTreeMap<String, Value>,
    variables: BTreeMap<String, String>,
    /// The ways to the providers whose keys it does not get.
    _ways: Vec<Way>,
    secrets: Secrets,
}

impl Given {
    /// Gathers the connections that a run's flow and wish name, and its secret variables.
    ///
    /// # Errors
    ///
    /// `Connection.None`, `Connection.NoSuchKey`, `Connection.NotBrokered`, `Connection.NotStored`,
    /// `Connection.UnknownType`, `Run.NoSecretVariables`. Final. `Connection.Unreachable`, worth a
    /// retry.
    pub(crate) fn to_run(
        state: &Path,
        keeper: Option<&dyn Keeper>,
        run: &str,
        view: &View,
        wish: &RunWish,
        broker: &Broker,
    ) -> Result<Self, Failure> {
        let mut variables = take_variables(state, run, &wish.secret_variables)?;
        let mut secrets: Vec<String> = variables.values().cloned().collect();
        let mut named = keeper.map(|keeper| keeper.list(state)).transpose()?.unwrap_or_default();
        let texts = texts(view, named.is_empty());
        let own = serde_json::to_string(wish).unwrap_or_default();
        named.retain(|name| is_named(name, &own) || texts.iter().any(|text| is_named(name, text)));
        let (mut given, mut ways) = (BTreeMap::new(), Vec::new());
        let chosen = match keeper {
            Some(keeper) => keeper.load(state, named)?,
            None => Named::new(),
        };
        for (name, connection) in chosen {
            secrets.extend(connection.secrets.values().cloned());
            let connection = if connection.brokered {
                let (behind, way) = broker.hold(&name, &connection)?;
                secrets.push(way.token().to_owned());
                ways.push(way);
                behind
            } else {
                connection
            };
            given.insert(name, connection);
        }
        for (variable, value) in &wish.environment_variables {
            if let Some((name, key)) = reference(value) {
                variables.insert(variable.clone(), resolve_reference(&given, variable, name, key)?);
            }
        }
        let connections = given
            .iter()
            .map(|(name, connection)| (name.clone(), connection.for_executor(name)));
        let connections = connections.collect();
        Ok(Self {
            connections,
            variables,
            _ways: ways,
            secrets: Secrets::new(&secrets),
        })
    }

    pub(crate) fn is_something(&self) -> bool {
        !self.connections.is_empty() || !self.variables.is_empty()
    }

    /// A file in memory with all of it, for the run's process to read; `None` if there is nothing
    /// in it.
    ///
    /// # Errors
    ///
    /// Errors of the kernel.
    pub(crate) fn in_memory(&self) -> io::Result<Option<OwnedFd>> {
        if !self.is_something() {
            return Ok(None);
        }
        let given = json!({ "connections": self.connections, "variables": self.variables });
        let mut file = fs::File::from(memfd_create(c"given", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(given.to_string().as_bytes())?;
        file.rewind()?;
        Ok(Some(file.into()))
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// A whole text without the run's secrets.
    pub(crate) fn without_secrets(&self, text: &str) -> String {
        self.secrets.hide(text)
    }
}

/// The texts of a flow in which the name of a connection can stand.
fn texts(view: &View, none: bool) -> Vec<String> {
    if none {
        return Vec::new();
    }
    let small = view.files.iter().filter(|file| file.bytes <= LARGEST);
    small.filter_map(|file| fs::read_to_string(&file.source).ok()).collect()
}

/// Whether a name stands in a text as a word of its own.
fn is_named(name: &str, text: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    text.match_indices(name)
        .any(|(at, _)| !is_part(text[..at].chars().next_back()) && !is_part(text[at + name.len()..].chars().next()))
}

/// The connection and its key that `${connection.key}` names.
///
/// # Source
///
/// `_match_reference` in `promptflow/_utils/utils.py`.
fn reference(value: &str) -> Option<(&str, &str)> {
    let inside = value.trim().strip_prefix("${")?.strip_suffix('}')?;
    let (name, key) = inside.split_once('.')?;
    (!name.is_empty() && !key.is_empty() && !key.contains('.')).then_some((name, key))
}

fn resolve_reference(
    known: &BTreeMap<String, Connection>,
    variable: &str,
    name: &str,
    key: &str,
) -> Result<String, Failure> {
    let connection = known.get(name).ok_or_else(|| {
        Failure::new(
            Code::ConnectionNone,
            format!("There is no connection {name}, which the environment variable {variable} names."),
        )
    })?;
    connection.value(key).map(str::to_owned).ok_or_else(|| {
        let keys: Vec<&str> = connection.keys().collect();
        Failure::new(
            Code::ConnectionNoSuchKey,
            format!(
                "The connection {name} has no {key}, which the environment variable {variable} names. It has {}.",
                keys.join(", ")
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::{io::Read, os::unix::fs::PermissionsExt};

    fn holder(user: &str) -> Holder {
        Holder {
            workspace: "lab".into(),
            user: user.into(),
        }
    }

    fn broker() -> Broker {
        Broker {
            providers: Arc::new(Providers::start(environments::uv::network()).unwrap()),
            at: Some("http://192.0.0.1".into()),
        }
    }

    fn open_ai(secret: &str) -> Connection {
        let text = format!("type: open_ai\nbase_url: http://here\napi_key: {secret}\n");
        let mut read = flow::connection("c.yml", &text).unwrap();
        read.connection.secrets.insert("api_key".into(), secret.into());
        read.connection
    }

    fn keep(state: &Path, user: &str, scope: Scope, name: &str, secret: &str) {
        Connections::change(state, |all| {
            all.of_scope(&holder(user), scope).insert(name.into(), open_ai(secret));
            Ok::<_, Failure>(())
        })
        .unwrap();
    }

    /// A view of a flow with this file.
    fn view(folder: &Path, text: &str) -> View {
        fs::write(folder.join("flow.dag.yaml"), text).unwrap();
        flow::view::list(folder, folder).unwrap()
    }

    #[test]
    fn a_users_own_connection_comes_before_the_workspaces() {
        let state = tempfile::tempdir().unwrap();
        keep(state.path(), "ann", Scope::Workspace, "shared", "of-workspace");
        keep(state.path(), "ann", Scope::Workspace, "both", "of-workspace");
        keep(state.path(), "ann", Scope::User, "both", "of-ann");
        keep(state.path(), "bob", Scope::User, "his", "of-bob");
        let all = Connections::read(state.path()).unwrap();
        let seen = |user: &str| -> Vec<String> {
            let of = all.of(&holder(user));
            of.iter()
                .map(|(name, (scope, c))| format!("{name} {scope:?} {}", c.secrets["api_key"]))
                .collect()
        };
        assert_eq!(seen("ann"), ["both User of-ann", "shared Workspace of-workspace"]);
        assert_eq!(
            seen("bob"),
            [
                "both Workspace of-workspace",
                "his User of-bob",
                "shared Workspace of-workspace"
            ]
        );
        let elsewhere = Holder {
            workspace: "other".into(),
            user: "ann".into(),
        };
        assert!(all.of(&elsewhere).is_empty());
    }

    #[test]
    fn connections_are_in_a_file_for_its_owner_alone_or_refused() {
        let state = tempfile::tempdir().unwrap();
        keep(state.path(), "ann", Scope::User, "mine", "hidden-word");
        let path = state.path().join("connections");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let said = |state: &Path| {
            let said = Connections::read(state).err().unwrap().to_string();
            said.replace(&state.display().to_string(), "STATE")
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut texts = vec![said(state.path())];
        owner_only::write(&path, "{\"workspaces\": hidden-word").unwrap();
        texts.push(said(state.path()));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        texts.push(said(state.path()));
        expect![[r#"
            Connection.NotStored: STATE/connections holds credentials, and others may read it. Take that right away: chmod 600 STATE/connections
            Connection.NotStored: STATE/connections is not what this version writes. Move it away, and give the connections again.
            Connection.NotStored: STATE/connections cannot be read: Is a directory (os error 21). Put that right."#]].assert_eq(&texts.join("\n"));
    }

    #[test]
    fn two_commands_at_once_lose_no_connection() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path();
        std::thread::scope(|scope| {
            for n in 0..8 {
                scope.spawn(move || keep(path, "ann", Scope::User, &format!("c{n}"), "hidden-word"));
            }
        });
        assert_eq!(Connections::read(path).unwrap().of(&holder("ann")).len(), 8);
    }

    #[test]
    fn a_run_gets_the_connections_that_it_names_and_no_others() {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["in_flow", "in_wish", "other", "in"] {
            keep(state.path(), "ann", Scope::User, name, &format!("secret-of-{name}"));
        }
        keep(state.path(), "bob", Scope::User, "his", "secret-of-his");
        let wish = RunWish {
            init: [("connection".into(), json!("in_wish"))].into(),
            environment_variables: [
                ("KEY".into(), "${other.api_key}".into()),
                ("PLAIN".into(), "${not a reference}".into()),
            ]
            .into(),
            ..RunWish::default()
        };
        let view = view(folder.path(), "nodes:\n- name: a\n  connection: in_flow\n  also: his\n");
        let given = Given::to_run(state.path(), Some(&holder("ann")), "run-1", &view, &wish, &broker()).unwrap();
        let names: Vec<&String> = given.connections.keys().collect();
        assert_eq!(names, ["in_flow", "in_wish", "other"]);
        assert_eq!(
            given.variables,
            [("KEY".to_owned(), "secret-of-other".to_owned())].into()
        );
        let mut text = String::new();
        let file = given.in_memory().unwrap().expect("there is something");
        fs::File::from(file).read_to_string(&mut text).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["connections"]["in_flow"]["value"]["api_key"], "secret-of-in_flow");
        assert_eq!(given.without_secrets("a secret-of-in_flow b"), "a *** b");
    }

    #[test]
    fn what_a_variable_names_and_is_not_there_is_said() {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        keep(state.path(), "ann", Scope::User, "mine", "hidden-word");
        let view = view(folder.path(), "nodes: []\n");
        let said = |value: &str| {
            let wish = RunWish {
                environment_variables: [("KEY".into(), value.into())].into(),
                ..RunWish::default()
            };
            let given = Given::to_run(state.path(), Some(&holder("ann")), "run-1", &view, &wish, &broker());
            given.err().unwrap().to_string()
        };
        expect![[r#"
            Connection.None: There is no connection none, which the environment variable KEY names.
            Connection.NoSuchKey: The connection mine has no api_kye, which the environment variable KEY names. It has base_url, api_key."#]].assert_eq(&[said("${none.api_key}"), said("${mine.api_kye}")].join("\n"));
    }

    #[test]
    fn a_run_whose_key_cannot_stay_with_the_broker_does_not_get_the_key() {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let view = view(folder.path(), "nodes:\n- connection: mine\n");
        let said = |address: &str, secret: &str, broker: Broker| {
            let mut connection = open_ai("word");
            connection.secrets.insert("api_key".into(), secret.into());
            connection.configs.insert("base_url".into(), address.into());
            connection.brokered = true;
            Connections::change(state.path(), |all| {
                all.of_scope(&holder("ann"), Scope::User)
                    .insert("mine".into(), connection);
                Ok::<_, Failure>(())
            })
            .unwrap();
            let given = Given::to_run(
                state.path(),
                Some(&holder("ann")),
                "run-1",
                &view,
                &RunWish::default(),
                &broker,
            );
            given.err().unwrap().to_string()
        };
        let nowhere = Broker { at: None, ..broker() };
        let said = [
            said("https://a.example", "hidden-word", nowhere),
            said("a.example", "hidden-word", broker()),
            said("https://me@a.example", "hidden-word", broker()),
            said("https://a.example", "hidden\nword", broker()),
        ];
        expect![[r#"
            Connection.NotBrokered: The key of the connection mine stays with a broker, and this machine cannot give its session a way there and no other network. Give the session a network (--network internet), or the flow the key (pfsession connection update --brokered=false).
            Connection.NotBrokered: The key of the connection mine stays with a broker, and its address is no URL. Correct it.
            Connection.NotBrokered: The key of the connection mine stays with a broker, and its address has a user, a password or a query. Correct it.
            Connection.NotBrokered: The key of the connection mine stays with a broker, and its key is empty, or has characters that no header takes. Correct it."#]].assert_eq(&said.join("\n"));
    }

    #[test]
    fn secret_variables_are_read_once_and_then_nowhere() {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let view = view(folder.path(), "nodes: []\n");
        let wish = RunWish {
            secret_variables: ["TOKEN".to_owned()].into(),
            ..RunWish::default()
        };
        leave_variables(state.path(), "run-1", &[("TOKEN".into(), "hidden-word".into())].into()).unwrap();
        let take = || Given::to_run(state.path(), Some(&holder("ann")), "run-1", &view, &wish, &broker());
        assert_eq!(take().unwrap().variables["TOKEN"], "hidden-word");
        assert!(!variables_file(state.path(), "run-1").exists());
        expect!["Run.NoSecretVariables: The values of the run's secret variables (TOKEN) are not on this machine: they are given with a run, and read once. Give them with a new run."].assert_eq(&take().err().unwrap().to_string());
    }
}
