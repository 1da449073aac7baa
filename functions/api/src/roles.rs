//! The roles of users in a workspace: listed, read and written, a user at a time.

use crate::{
    answers::{ok, problem},
    request::Request,
};
use aws::Aws;
use contract::{
    Principal, Role,
    people::{RoleRow, Roles},
};
use lifecycle::{
    Code, Failure,
    access::{Action, denied, may},
};
use serde_json::Value;
use shell::{Fault, Ports};

pub(crate) async fn list(aws: &Aws, caller: &Principal, workspace: &str, request: &Request) -> Result<Value, Fault> {
    if let Some(refused) = refuse(caller, workspace) {
        return Ok(refused);
    }
    if let Some(user) = request.text("user") {
        let stored = aws.load_roles(workspace, user).await?;
        return Ok(ok(200, &stored.unwrap_or_else(|| nothing(workspace, user))));
    }
    let users = aws
        .roles_after(workspace, request.text("after").unwrap_or_default())
        .await?;
    let next = users.last().map(|row| row.user.clone());
    Ok(ok(200, &Roles { users, next }))
}

pub(crate) async fn write(aws: &Aws, caller: &Principal, workspace: &str, request: &Request) -> Result<Value, Fault> {
    if let Some(refused) = refuse(caller, workspace) {
        return Ok(refused);
    }
    let wanted: RoleRow = match serde_json::from_str(&request.body().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(cause) => return Ok(malformed(format!("These are no roles of a user: {cause}."))),
    };
    if wanted.workspace != workspace {
        return Ok(malformed(format!(
            "These are roles in the workspace {}, and the address names {workspace}.",
            wanted.workspace
        )));
    }
    let user = &wanted.user.clone();
    let stored = aws.load_roles(workspace, user).await?;
    if stored.unwrap_or_else(|| nothing(workspace, user)).revision != wanted.revision {
        return Ok(changed_meanwhile(user));
    }
    let row = RoleRow {
        revision: wanted.revision + 1,
        by: caller.name().to_owned(),
        at: aws.now(),
        ..wanted
    };
    if caller.name() == user && !keeps_its_right(caller, &row) {
        return Ok(problem(403, own(user)));
    }
    match aws.save_roles(&row).await {
        Ok(()) => Ok(ok(200, &row)),
        Err(Fault::Conflict) => Ok(changed_meanwhile(user)),
        Err(fault) => Err(fault),
    }
}

/// Whether the caller may assign roles afterwards, so that a workspace never lacks somebody who
/// may.
fn keeps_its_right(caller: &Principal, row: &RoleRow) -> bool {
    let Principal::User { roles, .. } = caller else {
        return false;
    };
    let mut after = row.over(roles).into_iter();
    after.any(|role| matches!(role, Role::Owner | Role::RoleAdministrator))
}

fn nothing(workspace: &str, user: &str) -> RoleRow {
    RoleRow {
        workspace: workspace.to_owned(),
        user: user.to_owned(),
        ..RoleRow::default()
    }
}

fn refuse(caller: &Principal, workspace: &str) -> Option<Value> {
    let action = Action::AssignRoles;
    (!may(caller, action, workspace, "")).then(|| problem(403, denied(caller, action, workspace, "")))
}

fn malformed(why: String) -> Value {
    problem(400, Failure::new(Code::RoleMalformed, why))
}

fn changed_meanwhile(user: &str) -> Value {
    let message = format!("The roles of {user} were changed meanwhile. Read them again, and change those.");
    problem(409, Failure::new(Code::RoleChanged, message))
}

fn own(user: &str) -> Failure {
    Failure::new(
        Code::RoleOwn,
        format!("{user} would lose the right to assign roles. Another owner of the workspace can take it from them."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answer: &Value) -> String {
        let problem: contract::http::Problem = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        format!("{} {}", answer["statusCode"], problem.error)
    }

    #[test]
    fn what_is_not_written_says_why() {
        let texts = [
            said(&changed_meanwhile("bob")),
            said(&malformed("These are no roles of a user: EOF.".to_owned())),
            own("ann").to_string(),
        ];
        expect_test::expect![[r#"
            409 Role.Changed: The roles of bob were changed meanwhile. Read them again, and change those.
            400 Role.Malformed: These are no roles of a user: EOF.
            Role.Own: ann would lose the right to assign roles. Another owner of the workspace can take it from them."#]]
        .assert_eq(&texts.join("\n"));
    }

    #[test]
    fn nobody_takes_from_themselves_the_right_to_assign_roles() {
        let caller = |roles: &[Role]| Principal::User {
            name: "ann".to_owned(),
            workspace: "lab".to_owned(),
            roles: roles.to_vec(),
        };
        let row = |roles: &[Role], closed| RoleRow {
            roles: roles.iter().copied().collect(),
            closed,
            ..nothing("lab", "ann")
        };
        let owner = caller(&[Role::Owner]);
        assert!(keeps_its_right(&owner, &row(&[], false)), "the token says it");
        assert!(!keeps_its_right(&owner, &row(&[Role::DataScientist], true)));
        assert!(keeps_its_right(&owner, &row(&[Role::RoleAdministrator], true)));
    }
}
