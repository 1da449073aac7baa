//! `pfsession role`: who may do what in the workspace.

use crate::{
    client::Client,
    command::{Execute, family},
    global::{Done, Service},
    show,
    terminal::note,
    text::{clock, out, out_json},
    trouble::{NONE, Trouble, USAGE},
};
use clap::Args;
use contract::{
    Code, Role as Stored,
    people::{RoleRow, Roles},
    route::{Route, Target},
};

family! {
    /// Manage the roles of users in the workspace; needs the role owner or role-administrator
    Role {
        Assign(AssignRole),
        List(List),
        Revoke(RevokeRole),
    }
}

/// Assign a role to a user
#[derive(Args, Debug)]
#[command(after_help = "\
A role counts from the user's next command on, also with a token that they have. It is added to what their token says. Roles: data-scientist has \
sessions of its own; owner sees and stops everybody's, and may do all that is here; role-administrator assigns roles and nothing else; \
managed-identity-operator has sessions work with one identity.

Examples:
  pfsession role assign bob data-scientist
  pfsession role assign bob managed-identity-operator --identity arn:aws:iam::123456789012:role/flows")]
pub(crate) struct AssignRole {
    /// The user: the subject of their token, or the id that a queue's messages of theirs have
    #[arg(value_parser = user_name)]
    pub(crate) user: String,
    /// The role
    pub(crate) role: AnyRole,
    /// The identity of the role managed-identity-operator
    #[arg(long, value_name = "IDENTITY", required_if_eq("role", "managed-identity-operator"))]
    pub(crate) identity: Option<String>,
}

impl Execute for AssignRole {
    type Json = RoleRow;

    fn execute(&self, service: &Service<'_>) -> Done {
        let row = change(&*service.client()?, &self.user, |row| assign(row, self))?;
        say(&row, service.global.json);
        Ok(0)
    }
}

/// List the users and their roles
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession role list
  pfsession role list --json | jq -r '.users[] | select(.roles | index(\"owner\")).user'")]
pub(crate) struct List {}

impl Execute for List {
    type Json = Roles;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let (mut users, mut after) = (Vec::new(), None);
        loop {
            let roles = Target::from(Route::Roles(&client.user.workspace));
            let page: Roles = client.get(roles.with_any("after", after))?;
            users.extend(page.users);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if service.global.json {
            out_json(&Roles { users, next: None });
        } else if users.is_empty() {
            note!(
                "No role was assigned here: users have those of their tokens. Assign one: pfsession role assign USER ROLE"
            );
        } else {
            let mut table = show::table(&["USER", "ROLES", "TOKEN'S ROLES", "BY", "SINCE"]);
            for row in &users {
                let tokens = if row.closed { "do not count" } else { "count too" };
                table.add_row([
                    row.user.clone(),
                    roles(row),
                    tokens.to_owned(),
                    row.by.clone(),
                    clock(row.at),
                ]);
            }
            out(&show::render(table));
        }
        Ok(0)
    }
}

/// Revoke a user's role, or all roles
#[derive(Args, Debug)]
#[command(after_help = "\
It counts from the user's next command on, also with a token that they have. From then on the user has the roles that were assigned here, and none \
that a token says. Sessions that they have go on until they are stopped, or nobody uses them.

Examples:
  pfsession role revoke bob                     all roles
  pfsession role revoke bob owner
  pfsession role revoke bob managed-identity-operator --identity arn:aws:iam::123456789012:role/flows")]
pub(crate) struct RevokeRole {
    /// The user
    #[arg(value_parser = user_name)]
    pub(crate) user: String,
    /// The role [default: all of them]
    pub(crate) role: Option<AnyRole>,
    /// The identity of the role managed-identity-operator [default: all of them]
    #[arg(long, value_name = "IDENTITY", requires = "role")]
    pub(crate) identity: Option<String>,
}

impl Execute for RevokeRole {
    type Json = RoleRow;

    fn execute(&self, service: &Service<'_>) -> Done {
        let row = change(&*service.client()?, &self.user, |row| revoke(row, self))?;
        say(&row, service.global.json);
        Ok(0)
    }
}

/// A role that is assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AnyRole {
    DataScientist,
    Owner,
    RoleAdministrator,
    ManagedIdentityOperator,
}

fn user_name(text: &str) -> Result<String, String> {
    if contract::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a user's name is one line of 1 to 100 characters, without #".into())
    }
}

/// The most retries of a change of roles after another one came in between.
const TRIES: usize = 5;

/// Reads a user's roles, changes them, and writes them, anew when somebody else was faster.
fn change(
    client: &Client,
    user: &str,
    how: impl Fn(&mut RoleRow) -> Result<(), Box<Trouble>>,
) -> Result<RoleRow, Box<Trouble>> {
    let workspace = &client.user.workspace;
    for tried in 1.. {
        let mut row: RoleRow = client.get(Route::Roles(workspace).with("user", user))?;
        how(&mut row)?;
        match client.put(Route::WriteRoles(workspace), &row) {
            Err(trouble) if trouble.failure.error == Code::RoleChanged && tried < TRIES => {}
            done => return done,
        }
    }
    unreachable!("the last try is given back")
}

fn assign(row: &mut RoleRow, wanted: &AssignRole) -> Result<(), Box<Trouble>> {
    match (role(wanted.role), &wanted.identity) {
        (None, Some(identity)) => {
            row.identities.insert(identity.clone());
        }
        (Some(role), None) => {
            row.roles.insert(role);
        }
        _ => return Err(not_of_one_identity()),
    }
    Ok(())
}

fn revoke(row: &mut RoleRow, wanted: &RevokeRole) -> Result<(), Box<Trouble>> {
    let none_of = |what: String| {
        let message = format!("{} was not assigned {what}", row.user);
        Trouble::new(NONE, Code::RoleNone, message).next("see who has which role: pfsession role list")
    };
    match (wanted.role.map(role), &wanted.identity) {
        (None, _) => {
            row.roles.clear();
            row.identities.clear();
        }
        (Some(None), Some(identity)) if !row.identities.remove(identity) => {
            return Err(none_of(format!("the identity {identity}")));
        }
        (Some(None), Some(_)) => return Ok(()),
        (Some(None), None) => {
            row.identities.clear();
            return Ok(());
        }
        (Some(Some(_)), Some(_)) => return Err(not_of_one_identity()),
        // That of a token is taken by counting no token.
        (Some(Some(role)), None) => {
            row.roles.remove(&role);
        }
    }
    row.closed = true;
    Ok(())
}

fn not_of_one_identity() -> Box<Trouble> {
    Trouble::new(
        USAGE,
        Code::RoleNoIdentity,
        "Of all roles, managed-identity-operator alone is about an identity",
    )
    .next("leave out --identity, or name that role")
}

/// The role, as it is stored; none of the one that is stored as an identity.
fn role(role: AnyRole) -> Option<Stored> {
    match role {
        AnyRole::DataScientist => Some(Stored::DataScientist),
        AnyRole::Owner => Some(Stored::Owner),
        AnyRole::RoleAdministrator => Some(Stored::RoleAdministrator),
        AnyRole::ManagedIdentityOperator => None,
    }
}

fn roles(row: &RoleRow) -> String {
    let name = |role: &Stored| match role {
        Stored::DataScientist => "data-scientist".to_owned(),
        Stored::Owner => "owner".to_owned(),
        Stored::RoleAdministrator => "role-administrator".to_owned(),
    };
    let of_identity = |identity: &String| format!("managed-identity-operator of {identity}");
    let all = row.roles.iter().map(name).chain(row.identities.iter().map(of_identity));
    let all: Vec<String> = all.collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

fn say(row: &RoleRow, json: bool) {
    if json {
        out_json(row);
        return;
    }
    let tokens = if row.closed {
        ". Those of a token do not count"
    } else {
        ", and those of their token"
    };
    note!(
        "{} has these roles in {} from the next command on: {}{tokens}.",
        row.user,
        row.workspace,
        roles(row)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(roles: &[Stored], identities: &[&str]) -> RoleRow {
        RoleRow {
            workspace: "lab".into(),
            user: "bob".into(),
            roles: roles.iter().copied().collect(),
            identities: identities.iter().map(|name| (*name).to_owned()).collect(),
            ..RoleRow::default()
        }
    }

    fn revoke_from(mut row: RoleRow, role: Option<AnyRole>, identity: Option<&str>) -> Result<RoleRow, String> {
        let wanted = RevokeRole {
            user: "bob".into(),
            role,
            identity: identity.map(str::to_owned),
        };
        revoke(&mut row, &wanted).map_err(|trouble| trouble.to_string())?;
        Ok(row)
    }

    #[test]
    fn a_role_that_is_revoked_leaves_the_others_and_closes_the_row_to_tokens() {
        let all = || row(&[Stored::Owner, Stored::DataScientist], &["a", "b"]);
        let none = revoke_from(all(), None, None).unwrap();
        assert_eq!((roles(&none).as_str(), none.closed), ("none", true));
        let one = revoke_from(all(), Some(AnyRole::Owner), None).unwrap();
        expect_test::expect!["data-scientist, managed-identity-operator of a, managed-identity-operator of b"]
            .assert_eq(&roles(&one));
        assert!(one.closed);
        // A token says nothing of identities.
        let of_a = revoke_from(all(), Some(AnyRole::ManagedIdentityOperator), Some("a")).unwrap();
        assert_eq!((of_a.identities.len(), of_a.closed), (1, false));
        let of_none = revoke_from(all(), Some(AnyRole::ManagedIdentityOperator), None).unwrap();
        assert!(of_none.identities.is_empty() && !of_none.closed);
    }

    #[test]
    fn what_cannot_be_assigned_or_revoked_says_why() {
        let wanted = AssignRole {
            user: "bob".into(),
            role: AnyRole::Owner,
            identity: Some("a".into()),
        };
        let texts = [
            assign(&mut row(&[], &[]), &wanted).unwrap_err().to_string(),
            revoke_from(row(&[], &["b"]), Some(AnyRole::ManagedIdentityOperator), Some("a")).unwrap_err(),
        ];
        expect_test::expect![[r#"
            error: Of all roles, managed-identity-operator alone is about an identity [Role.NoIdentity]
              next: leave out --identity, or name that role
            error: bob was not assigned the identity a [Role.None]
              next: see who has which role: pfsession role list"#]]
        .assert_eq(&texts.join("\n"));
    }
}
