//! The settings of a workspace, read and written whole.

use crate::{
    answers::{ok, problem},
    request::Request,
    snapshots::Flows,
};
use aws::Aws;
use contract::{
    Principal,
    workspace::{QuotaSettings, WorkspaceRow},
};
use lifecycle::{
    Code, Failure,
    access::{Action, denied, may},
};
use serde_json::Value;
use shell::{EVERYBODY, Fault, Ports, SAVE_TRIES, Save, Write};
use std::path::Path;

pub(crate) async fn read(aws: &Aws, caller: &Principal, workspace: &str) -> Result<Value, Fault> {
    let action = Action::ReadWorkspace;
    if !may(caller, action, workspace, "") {
        return Ok(problem(403, denied(caller, action, workspace, "")));
    }
    let stored = aws.load_workspace(workspace).await?;
    Ok(ok(200, &stored.unwrap_or_else(|| nothing(workspace))))
}

pub(crate) async fn write(
    aws: &Aws,
    flows: &Flows,
    caller: &Principal,
    workspace: &str,
    request: &Request,
) -> Result<Value, Fault> {
    let action = Action::WriteWorkspace;
    if !may(caller, action, workspace, "") {
        return Ok(problem(403, denied(caller, action, workspace, "")));
    }
    let wanted = match read_row(workspace, &request.body().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(failure) => return Ok(problem(400, failure)),
    };
    let is_folder = |path: &str| {
        flows
            .are_here()
            .then(|| Path::new(path).is_absolute() && Path::new(path).is_dir())
    };
    if let Err(failure) = shell::workspace::check(&wanted.settings, is_folder) {
        return Ok(problem(400, failure));
    }
    let stored = aws.load_workspace(workspace).await?;
    if stored.as_ref().map_or(0, |row| row.revision) != wanted.revision {
        return Ok(problem(409, changed_meanwhile(workspace)));
    }
    let row = WorkspaceRow {
        revision: wanted.revision + 1,
        by: caller.name().to_owned(),
        at: aws.now(),
        ..wanted
    };
    let had = stored.map(|row| row.settings.quota).unwrap_or_default();
    match aws.save_workspace(&row).await {
        Ok(()) => {
            if has_daily_time(&had) || has_daily_time(&row.settings.quota) {
                watch_all(aws, workspace).await?;
            }
            if row.settings.quota.total.is_some() {
                count_all(aws, workspace).await?;
            }
            Ok(ok(200, &row))
        }
        Err(Fault::Conflict) => Ok(problem(409, changed_meanwhile(workspace))),
        Err(fault) => Err(fault),
    }
}

fn has_daily_time(of: &QuotaSettings) -> bool {
    let of_users = of.users.values().map(|user| user.session_seconds_per_day);
    of_users.chain([of.session_seconds_per_day]).any(|time| time.is_some())
}

/// Has the sweep look at the time of each user's sessions by the new settings.
async fn watch_all(aws: &Aws, workspace: &str) -> Result<(), Fault> {
    for user in all_users(aws, workspace).await? {
        for _ in 0..SAVE_TRIES {
            let Some(write) = shell::watch_anew(aws, workspace, &user).await? else {
                break;
            };
            match aws.save(Save { writes: vec![write] }).await {
                // One of the user's sessions has come or gone meanwhile, which has looked at the
                // settings too.
                Err(Fault::Conflict) => {}
                done => {
                    done?;
                    break;
                }
            }
        }
    }
    Ok(())
}

async fn all_users(aws: &Aws, workspace: &str) -> Result<Vec<String>, Fault> {
    let (mut all, mut last) = (Vec::new(), String::new());
    loop {
        let users = aws.users_after(workspace, &last).await?;
        let Some(end) = users.last() else { return Ok(all) };
        last.clone_from(end);
        all.extend(users);
    }
}

/// Counts what all users have together: what came before the workspace had a quota of that is in no
/// total.
async fn count_all(aws: &Aws, workspace: &str) -> Result<(), Fault> {
    for _ in 0..SAVE_TRIES {
        let before = aws.load_usage(workspace, EVERYBODY).await?;
        let mut usages = Vec::new();
        for user in all_users(aws, workspace).await? {
            usages.push((aws.load_usage(workspace, &user).await?, user));
        }
        let usage = shell::sum_usages(&before, usages.iter().map(|(usage, user)| (user.as_str(), usage)));
        let write = Write::Usage {
            workspace: workspace.to_owned(),
            user: EVERYBODY.to_owned(),
            usage,
        };
        match aws.save(Save { writes: vec![write] }).await {
            // Somebody started or stopped something meanwhile.
            Err(Fault::Conflict) => {}
            done => return done,
        }
    }
    Err(Fault::Conflict)
}

fn nothing(workspace: &str) -> WorkspaceRow {
    WorkspaceRow {
        workspace: workspace.to_owned(),
        ..WorkspaceRow::default()
    }
}

fn read_row(workspace: &str, body: &str) -> Result<WorkspaceRow, Failure> {
    let malformed = |why: String| Failure::new(Code::WorkspaceMalformed, why);
    let row: WorkspaceRow = serde_json::from_str(body)
        .map_err(|cause| malformed(format!("These are no settings of a workspace: {cause}.")))?;
    if row.workspace != workspace {
        return Err(malformed(format!(
            "These are settings of the workspace {}, and the address names {workspace}.",
            row.workspace
        )));
    }
    Ok(row)
}

fn changed_meanwhile(workspace: &str) -> Failure {
    Failure::new(
        Code::WorkspaceChanged,
        format!("The settings of {workspace} were changed meanwhile. Read them again, and change those."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_not_written_say_why() {
        let texts = [
            changed_meanwhile("lab"),
            read_row("lab", "{").unwrap_err(),
            read_row("lab", r#"{ "workspace": "x", "revision": 0, "settings": {} }"#).unwrap_err(),
            read_row(
                "lab",
                r#"{ "workspace": "lab", "revision": 0, "settings": { "size": "local" } }"#,
            )
            .unwrap_err(),
        ];
        expect_test::expect![[r#"
            Workspace.Changed: The settings of lab were changed meanwhile. Read them again, and change those.
            Workspace.Malformed: These are no settings of a workspace: EOF while parsing an object at line 1 column 1.
            Workspace.Malformed: These are settings of the workspace x, and the address names lab.
            Workspace.Malformed: These are no settings of a workspace: unknown field `size`, expected one of `default_vm_size`, `default_base_image`, `largest_idle_seconds`, `default_data_store`, `working_directory`, `quota`, `identity`, `primary_user_assigned_identity`, `senders` at line 1 column 57."#]].assert_eq(&texts.map(|failure| failure.to_string()).join("\n"));
    }
}
