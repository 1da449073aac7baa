//! `pfsession workspace`: the settings of the workspace.

use crate::{
    client::Client,
    command::{Execute, family},
    global::{Done, Service},
    show::{render, table},
    terminal::{note, warn},
    text::{clock, out, out_json, took},
    trouble::{Trouble, USAGE},
};
use clap::Args;
use contract::{
    Code, Failure,
    route::Route,
    workspace::{IdentityDetails, QuotaSettings, WorkspaceRow, WorkspaceSettings},
};
use lifecycle::count;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

family! {
    /// Show and change the workspace's settings: defaults, quotas, identities
    Workspace {
        Show(Show),
        Update(Update),
    }
}

/// Show the settings
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession workspace show
  pfsession workspace show --json | jq '.settings.quota'")]
pub(crate) struct Show {}

impl Execute for Show {
    type Json = WorkspaceRow;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let row = client.get(Route::WorkspaceSettings(&client.user.workspace))?;
        print(&row, service.global.json);
        Ok(0)
    }
}

/// Change the settings by a file; needs the role owner
#[derive(Args, Debug)]
#[command(after_help = "\
What the file names replaces what there is; what is null in it is taken away; the rest stays. The settings count from the next command on, and a \
session that is there keeps what it has. Of each setting that a command, run.yml and the flow's file leave out, the workspace's default counts.

A file may have:
  default_vm_size: Standard_D4s_v5
  default_base_image: promptflow:3.12
  largest_idle_seconds: 7200
  default_data_store: { name: workspaceblobstore, type: azure_blob }    or azure_data_lake_gen2, s3
  working_directory: /srv/workspaceworkingdirectory
  quota:                                  of each user at once
    sessions: 5
    vcpus: { D: 16, NC: 0 }               by family of VM sizes: pfsession sizes
    session_seconds_per_day: 28800        so long may all sessions of a user together live on a day (UTC), also those that are there
    users:
      bob: { sessions: 10 }
    total: { sessions: 40, vcpus: { D: 64 } }   of all users together
  identity:
    type: system_assigned, user_assigned
    user_assigned_identities:
      '<resource id or ARN>': { client_id: <another name of it>, role_arn: <the IAM role that it is on AWS> }
  primary_user_assigned_identity: '<resource id or ARN>'     without it, the first
  senders: { AROAEXAMPLE: ann }           the user that an IAM sender of messages is, by its unique id; a role for all its sessions

Examples:
  pfsession workspace update -f workspace.yml")]
pub(crate) struct Update {
    /// The file with the settings
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
}

impl Execute for Update {
    type Json = WorkspaceRow;

    fn execute(&self, service: &Service<'_>) -> Done {
        let row = update(&*service.client()?, &self.file)?;
        print(&row, service.global.json);
        if !service.global.json {
            note!("These count from the next command on; a session that is there keeps what it has.");
            warn_of_size(&row.settings);
        }
        Ok(0)
    }
}

fn print(row: &WorkspaceRow, json: bool) {
    if json {
        out_json(row);
    } else {
        out(&details(row));
    }
}

/// The most retries of a change of settings after another one came in between.
const TRIES: usize = 5;

fn warn_of_size(settings: &WorkspaceSettings) {
    if let Some(size) = &settings.default_vm_size
        && lifecycle::size::size(size).is_some_and(|size| size.below_series_d)
    {
        warn(&format!(
            "{size} is below series D: flows may be slow or run out of memory there."
        ));
    }
}

/// Reads the settings, changes them as the file says, and writes them, anew when somebody else was
/// faster.
fn update(client: &Client, file: &Path) -> Result<WorkspaceRow, Box<Trouble>> {
    let bad = |failure| Trouble::of(USAGE, failure);
    let wanted = flow::workspace_yaml(file).map_err(bad)?;
    each_is_good(file, &wanted).map_err(bad)?;
    let workspace = &client.user.workspace;
    for tried in 1.. {
        let row: WorkspaceRow = client.get(Route::WorkspaceSettings(workspace))?;
        let settings = merge(&row.settings, &wanted);
        match client.put(
            Route::WriteWorkspaceSettings(workspace),
            &WorkspaceRow { settings, ..row },
        ) {
            Err(trouble) if trouble.failure.error == Code::WorkspaceChanged && tried < TRIES => {}
            done => return done,
        }
    }
    unreachable!("the last try is given back")
}

/// Each key by itself, so that an error names its line.
fn each_is_good(file: &Path, wanted: &Map<String, Value>) -> Result<(), Failure> {
    for (key, value) in wanted.iter().filter(|(_, value)| !value.is_null()) {
        if let Err(cause) = serde_json::from_value::<WorkspaceSettings>(json!({ key.as_str(): value })) {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let line = flow::line_of(&text, &[key]).map_or_else(String::new, |line| format!(":{line}"));
            let message = format!("{}{line}: {key}: {cause}. Correct it.", file.display());
            return Err(Failure::new(Code::WorkspaceBadFile, message));
        }
    }
    Ok(())
}

fn merge(settings: &WorkspaceSettings, wanted: &Map<String, Value>) -> WorkspaceSettings {
    let Ok(Value::Object(mut all)) = serde_json::to_value(settings) else {
        unreachable!("settings are an object")
    };
    for (key, value) in wanted {
        if value.is_null() {
            all.remove(key);
        } else {
            all.insert(key.clone(), value.clone());
        }
    }
    serde_json::from_value(Value::Object(all)).expect("each key was read before")
}

/// A setting a line.
fn details(row: &WorkspaceRow) -> String {
    let WorkspaceSettings {
        default_vm_size,
        default_base_image,
        largest_idle_seconds,
        default_data_store,
        working_directory,
        quota,
        identity,
        primary_user_assigned_identity: _,
        senders,
    } = &row.settings;
    let or = |text: Option<String>, without: &str| text.unwrap_or_else(|| without.to_owned());
    let mut rows = table(&[]);
    let mut line = |name: &str, value: String| {
        rows.add_row([name.to_owned(), value]);
    };
    line("workspace", row.workspace.clone());
    line(
        "default VM size",
        or(default_vm_size.clone(), "local: all of the machine"),
    );
    line("default base image", or(default_base_image.clone(), "the built-in one"));
    line(
        "largest idle time",
        largest_idle_seconds.map_or_else(
            || "24h".to_owned(),
            |idle| format!("{} s", lifecycle::Millis::from(idle) / 1000),
        ),
    );
    let store = default_data_store
        .as_ref()
        .map(|store| format!("{} ({})", store.name, store.r#type));
    line("default data store", or(store, "none"));
    line("working directory", or(working_directory.clone(), "none"));
    line("quota of each user", quota_of(quota));
    for (user, own) in &quota.users {
        line(
            &format!("quota of {user}"),
            quota_line(own.sessions, &own.vcpus, own.session_seconds_per_day),
        );
    }
    if let Some(total) = &quota.total {
        line("quota of all users", quota_line(total.sessions, &total.vcpus, None));
    }
    if let Some(identity) = identity {
        line("identity", identity.r#type.clone());
        for (id, details) in row.settings.user_assigned() {
            let is_primary = row.settings.primary_identity() == Some(id);
            line("", identity_line(id, details, is_primary));
        }
    }
    for (sender, user) in senders {
        line("sender", format!("{sender} is {user}"));
    }
    if row.revision > 0 {
        line("changed", format!("{} by {}", clock(row.at), row.by));
    }
    render(rows)
}

fn identity_line(id: &str, details: &IdentityDetails, is_primary: bool) -> String {
    let also = |what: &str, name: &Option<String>| {
        let name = name.as_ref();
        name.map_or_else(String::new, |name| format!(" ({what} {name})"))
    };
    let names = also("client id", &details.client_id) + &also("role", &details.role_arn);
    let primary = if is_primary { "; primary" } else { "" };
    format!("{id}{names}{primary}")
}

fn quota_of(quota: &QuotaSettings) -> String {
    quota_line(quota.sessions, &quota.vcpus, quota.session_seconds_per_day)
}

fn quota_line(sessions: Option<u32>, vcpus: &BTreeMap<String, u32>, daily: Option<u32>) -> String {
    let sessions = sessions.map(|number| count(number, "session"));
    let vcpus = vcpus
        .iter()
        .map(|(family, number)| format!("{} of family {family}", count(*number, "vCPU")));
    let daily = daily.map(|seconds| format!("{} of sessions a day", took(u64::from(seconds) * 1000)));
    let all: Vec<String> = sessions.into_iter().chain(vcpus).chain(daily).collect();
    if all.is_empty() {
        "the service's".to_owned()
    } else {
        all.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_replaces_what_it_names_and_takes_away_what_is_null() {
        let before: WorkspaceSettings = serde_json::from_value(json!({
            "default_vm_size": "local", "working_directory": "/w", "quota": { "sessions": 3 },
        }))
        .unwrap();
        let wanted = json!({ "working_directory": null, "quota": { "vcpus": { "D": 4 } } });
        let after = merge(&before, wanted.as_object().unwrap());
        assert_eq!(
            serde_json::to_value(&after).unwrap(),
            json!({ "default_vm_size": "local", "quota": { "vcpus": { "D": 4 } } })
        );
    }

    #[test]
    fn settings_are_shown_one_a_line_and_a_wrong_value_names_its_line() {
        let sample = include_str!("../../../../events/table/workspace/valid/all.json");
        let none = WorkspaceRow {
            workspace: "local".into(),
            ..WorkspaceRow::default()
        };
        let text = format!(
            "{}\n\n{}",
            details(&serde_json::from_str(sample).unwrap()),
            details(&none)
        );
        expect_test::expect![[r#"
            workspace           lab
            default VM size     Standard_D4s_v5
            default base image  promptflow:3.12
            largest idle time   7200 s
            default data store  workspaceblobstore (azure_blob)
            working directory   /srv/workspaceworkingdirectory
            quota of each user  5 sessions, 16 vCPUs of family D, 0 vCPUs of family NC
            quota of bob        10 sessions, 24 vCPUs of family NC
            identity            system_assigned, user_assigned
                                /subscriptions/1/resourcegroups/flows/providers/Microsoft.ManagedIdentity/userAssignedIdentities/reader (client id 00000000-0000-0000-0000-000000000001)
                                arn:aws:iam::123456789012:role/flows-of-alice; primary
            changed             2025-06-15T15:06:40.000Z by ann

            workspace           local
            default VM size     local: all of the machine
            default base image  the built-in one
            largest idle time   24h
            default data store  none
            working directory   none
            quota of each user  the service's"#]].assert_eq(&text);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("workspace.yml");
        std::fs::write(&file, "default_vm_size: local\nquota:\n  sessions: many\n").unwrap();
        let wanted = flow::workspace_yaml(&file).unwrap();
        let failure = each_is_good(&file, &wanted).unwrap_err().to_string();
        let said = failure.replace(&file.display().to_string(), "workspace.yml");
        expect_test::expect![[
            r#"Workspace.BadFile: workspace.yml:2: quota: invalid type: string "many", expected u32. Correct it."#
        ]]
        .assert_eq(&said);
    }
}
