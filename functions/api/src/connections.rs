//! The connections of users and workspaces, where the service keeps them. See
//! [`contract::connections`].
//!
//! Decision: a session gets its user's connections from here, with its own key as the proof, and no
//! role of a session reads a secret. What runs in a container has the role of its container: it
//! would read what the agent reads, also a key that a broker is to hold, and of every user whose
//! sessions have that role. The session's key is in its agent's memory alone, and speaks for one
//! session.

use crate::{
    answers::{absent, ok, problem},
    proof::{self, Claim},
    request::Request,
    vault::{LONGEST_NAME, Vault},
};
use aws::Aws;
use contract::{
    Principal,
    connections::{
        ConnectionRow, ConnectionRows, ConnectionWish, ConnectionsWanted, GivenConnection, GivenConnections, MOST,
        MOST_BYTES,
    },
};
use lifecycle::{
    Code, Failure,
    access::{Action, denied, may},
};
use serde_json::Value;
use shell::{Fault, Ports};
use std::collections::BTreeMap;

/// Those that the caller may use, without their secrets.
pub(crate) async fn list(aws: &Aws, vault: Option<&Vault>, caller: &Principal, of: &str) -> Result<Value, Fault> {
    let action = Action::ReadWorkspace;
    if !may(caller, action, of, "") {
        return Ok(problem(403, denied(caller, action, of, "")));
    }
    if vault.is_none() {
        return Ok(problem(404, not_kept()));
    }
    let mut connections = aws.connections_of(of, None).await?;
    connections.extend(aws.connections_of(of, Some(caller.name())).await?);
    Ok(ok(200, &ConnectionRows { connections }))
}

/// Keeps one in place of one of its name.
pub(crate) async fn write(
    aws: &Aws,
    vault: Option<&Vault>,
    caller: &Principal,
    workspace: &str,
    request: &Request,
) -> Result<Value, Fault> {
    let wish = read_wish(&request.body().unwrap_or_default()).map_err(Fault::Meaningless)?;
    let user = (!wish.for_workspace).then(|| caller.name());
    let vault = match vault_for(vault, caller, workspace, user) {
        Ok(vault) => vault,
        Err(refused) => return Ok(refused),
    };
    let place = vault.name(workspace, user, &wish.name);
    if place.len() > LONGEST_NAME {
        return Err(Fault::Meaningless(bad("its name is too long. Give it a shorter one")));
    }
    let stored = aws.connections_of(workspace, user).await?;
    if stored.len() >= MOST && !stored.iter().any(|row| row.name == wish.name) {
        return Err(Fault::Meaningless(bad(&format!(
            "there are {MOST} already. Delete one first"
        ))));
    }
    let mut secrets = wish.secrets;
    if !wish.kept.is_empty() {
        let mut old = vault.read(&place).await?.unwrap_or_default();
        for key in &wish.kept {
            let Some(value) = old.remove(key) else {
                return Err(Fault::Meaningless(bad(&format!(
                    "its secret {key} is to stay, and there is none. Give it"
                ))));
            };
            secrets.insert(key.clone(), value);
        }
    }
    let row = ConnectionRow {
        workspace: workspace.to_owned(),
        user: user.map(str::to_owned),
        name: wish.name,
        open: wish.open,
        secrets: secrets.keys().cloned().collect(),
        by: caller.name().to_owned(),
        at: aws.now(),
    };
    // The secrets first: a row without them would be a connection that no run can use.
    vault.write(&place, &secrets).await?;
    aws.save_connection(&row).await?;
    Ok(ok(200, &row))
}

/// Deletes one with its secrets.
pub(crate) async fn delete(
    aws: &Aws,
    vault: Option<&Vault>,
    caller: &Principal,
    workspace: &str,
    request: &Request,
) -> Result<Value, Fault> {
    let user = request.text("for_workspace").is_none().then(|| caller.name());
    let vault = match vault_for(vault, caller, workspace, user) {
        Ok(vault) => vault,
        Err(refused) => return Ok(refused),
    };
    let name = request.text("name").unwrap_or_default();
    let stored = aws.connections_of(workspace, user).await?;
    let Some(row) = stored.into_iter().find(|row| row.name == name) else {
        return Ok(absent("connection", name));
    };
    // The row last: while it is there, this can be done again.
    vault.forget(&vault.name(workspace, user, name)).await?;
    aws.forget_connection(&row).await?;
    Ok(ok(200, &row))
}

/// Gives a session the connections of its user, if the request is signed with that session's key.
pub(crate) async fn give(aws: &Aws, vault: Option<&Vault>, flow: &str, request: &Request) -> Result<Value, Fault> {
    let (signed, wanted) = proof::read::<ConnectionsWanted>(request).map_err(Fault::Meaningless)?;
    let claim = Claim {
        flow: &wanted.flow,
        generation: wanted.generation,
        at: wanted.at,
    };
    let proved = proof::session(aws, flow, &signed, &claim).await?;
    let Some((row, vault)) = proved.zip(vault) else {
        return Ok(problem(403, proof::unproved()));
    };
    let (workspace, owner) = (row.flow.workspace.as_str(), row.flow.owner.as_str());
    let mut given = GivenConnections::default();
    for (name, row) in usable(aws, workspace, owner).await? {
        let secrets = match &wanted.names {
            Some(names) if !names.contains(&name) => continue,
            Some(_) => vault
                .read(&vault.name(workspace, row.user.as_deref(), &name))
                .await?
                .unwrap_or_default(),
            None => BTreeMap::new(),
        };
        given.connections.push(GivenConnection {
            name,
            open: row.open,
            secrets,
        });
    }
    Ok(ok(200, &given))
}

/// The workspace's, and a user's own before those.
async fn usable(aws: &Aws, workspace: &str, user: &str) -> Result<BTreeMap<String, ConnectionRow>, Fault> {
    let mut rows = aws.connections_of(workspace, None).await?;
    rows.extend(aws.connections_of(workspace, Some(user)).await?);
    Ok(rows.into_iter().map(|row| (row.name.clone(), row)).collect())
}

/// Gives who may change the connections of a user, or of the workspace itself, the place of their
/// secrets; else the refusal.
fn vault_for<'a>(
    vault: Option<&'a Vault>,
    caller: &Principal,
    workspace: &str,
    user: Option<&str>,
) -> Result<&'a Vault, Value> {
    let (action, owner) = match user {
        Some(user) => (Action::Use, user),
        None => (Action::WriteWorkspace, ""),
    };
    if !may(caller, action, workspace, owner) {
        return Err(problem(403, denied(caller, action, workspace, owner)));
    }
    vault.ok_or_else(|| problem(404, not_kept()))
}

/// Reads a connection that is to be kept. What is wrong with it is said without its text, which has
/// secrets.
pub(crate) fn read_wish(body: &str) -> Result<ConnectionWish, Failure> {
    let wish: ConnectionWish = serde_json::from_str(body).map_err(|_| bad("its JSON has not the keys of one"))?;
    let connection = wish.open.with_secrets(&wish.secrets);
    if connection.to_string().len() > MOST_BYTES {
        return Err(bad(&format!("it has more than {MOST_BYTES} bytes")));
    }
    if !flow::is_good_name(&wish.name) {
        return Err(bad("its name is invalid. Give it another one"));
    }
    let read: flow::Connection = serde_json::from_value(connection).map_err(|_| bad("its type is unknown"))?;
    if read.brokered && !read.can_be_brokered() {
        return Err(bad("a broker cannot hold the key of its type"));
    }
    Ok(wish)
}

fn bad(why: &str) -> Failure {
    Failure::new(Code::ConnectionBadFile, format!("The connection is not kept: {why}."))
}

fn not_kept() -> Failure {
    Failure::new(
        Code::HttpNoConnections,
        "This service keeps no connections: those of its machine are in a file there, for its owner alone.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn what_is_no_connection_says_why_and_has_no_secret() {
        let wish = |name: &str, kind: &str, configs: Value, secret: &str| {
            json!({
                "name": name, "type": kind, "module": "promptflow.connections", "configs": configs,
                "secrets": { "api_key": secret }, "brokered": true,
            })
            .to_string()
        };
        let said = [
            read_wish("{ \"name\": \"hidden-word\"").unwrap_err(),
            read_wish(&wish("a/b", "open_ai", json!({}), "hidden-word")).unwrap_err(),
            read_wish(&wish("a", "hidden-word", json!({}), "x")).unwrap_err(),
            read_wish(&wish("a", "serp", json!({}), "hidden-word")).unwrap_err(),
            read_wish(&wish("a", "open_ai", json!({}), &"hidden-word".repeat(10_000))).unwrap_err(),
            not_kept(),
        ]
        .map(|failure| failure.to_string())
        .join("\n");
        assert!(!said.contains("hidden-word"), "{said}");
        expect![[r#"
            Connection.BadFile: The connection is not kept: its JSON has not the keys of one.
            Connection.BadFile: The connection is not kept: its name is invalid. Give it another one.
            Connection.BadFile: The connection is not kept: its type is unknown.
            Connection.BadFile: The connection is not kept: a broker cannot hold the key of its type.
            Connection.BadFile: The connection is not kept: it has more than 60000 bytes.
            Http.NoConnections: This service keeps no connections: those of its machine are in a file there, for its owner alone."#]]
        .assert_eq(&said);
        assert!(read_wish(&wish("a", "open_ai", json!({}), "hidden-word")).is_ok());
    }
}
