//! A workspace's settings, applied to its sessions.

use crate::{Fault, Ports};
use contract::workspace::{IdentityDetails, IdentitySettings, PRIMARY, WorkspaceRow, WorkspaceSettings};
use lifecycle::{
    Code, Failure,
    quota::{Quota, Whose},
    session::{Named, Origin, Settings},
    size,
};
use std::collections::BTreeMap;

/// The types of data stores that are object stores.
const OBJECT_STORES: [&str; 3] = ["azure_blob", "azure_data_lake_gen2", "s3"];

/// Reads the settings of a workspace; those of one that has none are all left out.
///
/// # Errors
///
/// As [`Ports`].
pub async fn settings_of(ports: &impl Ports, workspace: &str) -> Result<WorkspaceSettings, Fault> {
    let row = ports.load_workspace(workspace).await?;
    Ok(row.map(|row: WorkspaceRow| row.settings).unwrap_or_default())
}

/// Puts a workspace's defaults in the place of the built-in ones.
pub fn fill(settings: &mut Settings, of: &WorkspaceSettings) {
    if let Some(size) = &of.default_vm_size
        && !settings.size.is_named()
    {
        settings.size = Named::new(size.clone(), Origin::Workspace);
    }
    let largest = largest_idle(of);
    if !settings.idle.is_named() && settings.idle.value > largest {
        settings.idle = Named::new(largest, Origin::Workspace);
    }
}

/// In milliseconds.
fn largest_idle(of: &WorkspaceSettings) -> lifecycle::Millis {
    of.largest_idle_seconds.map_or(lifecycle::Millis::MAX, Into::into)
}

/// The failure of a session with these settings in this workspace, if they are refused.
pub fn refuse(settings: &Settings, of: &WorkspaceSettings, workspace: &str) -> Option<Failure> {
    if !settings.idle.is_named() || settings.idle.value <= largest_idle(of) {
        return None;
    }
    let message = format!(
        "The idle time is {} s, and the workspace {workspace} allows {} s at most. Name a shorter one.",
        settings.idle.value / 1000,
        largest_idle(of) / 1000
    );
    Some(Failure::new(Code::SessionIdleTooLong, message))
}

/// The identity that `named` is a name of, as a session has it: by its role's ARN where it has one,
/// and else by its id. Its names are these, its client id, the last part of its id, and
/// [`PRIMARY`].
///
/// # Errors
///
/// `Session.NoIdentity`, final: it lists those that there are. A workspace that says nothing of
/// identities has any.
pub fn identity(named: &str, of: &WorkspaceSettings, workspace: &str) -> Result<String, Failure> {
    if named == PRIMARY {
        let primary = of.primary_identity();
        let found = of.user_assigned().iter().find(|(id, _)| Some(id.as_str()) == primary);
        return found.map(as_used).ok_or_else(|| {
            no_identity(format!(
                "Primary user assigned identity not found: the workspace {workspace} has no user-assigned identity. Name the client_id of \
                 an identity, or have an owner add one to the workspace."
            ))
        });
    }
    if of.identity.is_none() {
        return Ok(named.to_owned());
    }
    let is_meant = |(id, details): &&(String, IdentityDetails)| {
        let last = id.rsplit('/').next().unwrap_or_default();
        let further = [&details.client_id, &details.role_arn].into_iter().flatten();
        id.eq_ignore_ascii_case(named) || last == named || further.into_iter().any(|name| name == named)
    };
    let ids: Vec<&str> = of.user_assigned().iter().map(|(id, _)| id.as_str()).collect();
    let found = of.user_assigned().iter().find(is_meant);
    found.map(as_used).ok_or_else(|| {
        let there = match ids.is_empty() {
            true => "It has no user-assigned identity".to_owned(),
            false => format!("It has {}", ids.join(", ")),
        };
        no_identity(format!("The workspace {workspace} has no identity {named}. {there}."))
    })
}

/// On AWS an identity is a role, which compute is started with.
fn as_used((id, details): &(String, IdentityDetails)) -> String {
    details.role_arn.clone().unwrap_or_else(|| id.clone())
}

fn no_identity(message: String) -> Failure {
    Failure::new(Code::SessionNoIdentity, message)
}

/// The quota of a user.
///
/// * `sessions`: the most sessions of a user of whom the workspace says nothing.
pub fn quota(of: &WorkspaceSettings, user: &str, sessions: usize) -> Quota {
    let all = &of.quota;
    let own = all.users.get(user);
    let mut vcpus = all.vcpus.clone();
    vcpus.extend(own.map(|own| own.vcpus.clone()).unwrap_or_default());
    Quota {
        whose: Whose::User,
        sessions: own
            .and_then(|own| own.sessions)
            .or(all.sessions)
            .or_else(|| u32::try_from(sessions).ok()),
        vcpus,
        daily: own
            .and_then(|own| own.session_seconds_per_day)
            .or(all.session_seconds_per_day)
            .map(|seconds| lifecycle::Millis::from(seconds) * 1000),
    }
}

/// The quota of all users together, if the workspace has one.
pub fn quota_of_all(of: &WorkspaceSettings) -> Option<Quota> {
    let total = of.quota.total.as_ref()?;
    Some(Quota {
        whose: Whose::Everybody,
        sessions: total.sessions,
        vcpus: total.vcpus.clone(),
        daily: None,
    })
}

/// Whether these settings may be kept.
///
/// * `is_folder`: whether there is a folder at this path; `None` where nobody here can know.
///
/// # Errors
///
/// `Workspace.…`, `Session.NoSuchSize`: final for these settings.
pub fn check(of: &WorkspaceSettings, is_folder: impl Fn(&str) -> Option<bool>) -> Result<(), Failure> {
    let failed = |code: Code, message: String| Err(Failure::new(code, message));
    if let Some(name) = of.default_vm_size.as_deref().filter(|name| size::size(name).is_none()) {
        return Err(size::no_such_size(name));
    }
    let users = of.quota.users.values().map(|user| &user.vcpus);
    let total = of.quota.total.iter().map(|total| &total.vcpus);
    families(users.chain(total).chain([&of.quota.vcpus]))?;
    let total = of.quota.total.as_ref();
    if total.is_some_and(|total| total.session_seconds_per_day.is_some()) {
        return failed(
            Code::WorkspaceMalformed,
            "The quota of all users together has no session_seconds_per_day: the time of a day is each user's own. Write it below quota, or \
             below one of quota.users."
                .to_owned(),
        );
    }
    if let Some(store) = &of.default_data_store
        && !OBJECT_STORES.contains(&store.r#type.as_str())
    {
        return failed(
            Code::WorkspaceNotAnObjectStore,
            format!(
                "The default data store {} is of the type {}, and it has to be an object store. Name one of the type {}.",
                store.name,
                store.r#type,
                OBJECT_STORES.join(", ")
            ),
        );
    }
    if let Some(failure) = no_working_directory(of, is_folder) {
        return Err(failure);
    }
    if let Some(identity) = &of.identity {
        check_identity(identity)?;
    }
    if let Some(primary) = &of.primary_user_assigned_identity {
        let ids: Vec<&str> = of.user_assigned().iter().map(|(id, _)| id.as_str()).collect();
        if !ids.contains(&primary.as_str()) {
            let there = if ids.is_empty() {
                "none".to_owned()
            } else {
                ids.join(", ")
            };
            return failed(
                Code::WorkspaceNoPrimaryIdentity,
                format!(
                    "Primary user assigned identity not found: {primary}. The user-assigned identities are: {there}."
                ),
            );
        }
    }
    Ok(())
}

/// The failure of a session's start: the working directory of its workspace is gone.
///
/// * `is_folder`: as [`check`] takes it.
pub fn no_working_directory(of: &WorkspaceSettings, is_folder: impl Fn(&str) -> Option<bool>) -> Option<Failure> {
    let folder = of.working_directory.as_ref()?;
    (is_folder(folder) == Some(false)).then(|| Failure::new(Code::WorkspaceNoWorkingDirectory, no_folder(folder)))
}

fn no_folder(folder: &str) -> String {
    format!("The working directory {folder} does not exist. Make the folder, or name another one.")
}

fn families<'a>(quotas: impl Iterator<Item = &'a BTreeMap<String, u32>>) -> Result<(), Failure> {
    let mut known: Vec<&str> = size::catalogue().iter().map(|size| size.family).collect();
    known.dedup();
    let unknown = quotas
        .flat_map(BTreeMap::keys)
        .find(|family| !known.contains(&family.as_str()));
    match unknown {
        None => Ok(()),
        Some(family) => Err(Failure::new(
            Code::WorkspaceNoSuchFamily,
            format!(
                "There is no family {family} of VM sizes for a quota of vCPUs. Name one of {}.",
                known.join(", ")
            ),
        )),
    }
}

/// # Source
///
/// The file of *Start with advanced settings* (the specification): `type: system_assigned,
/// user_assigned`.
fn check_identity(identity: &IdentitySettings) -> Result<(), Failure> {
    let failed = |message: String| Err(Failure::new(Code::WorkspaceIdentityType, message));
    let types: Vec<&str> = identity.r#type.split(',').map(str::trim).collect();
    if let Some(other) = types.iter().find(|t| !["system_assigned", "user_assigned"].contains(t)) {
        return failed(format!(
            "Identity type {other} not supported. Write system_assigned, user_assigned, or both with a comma."
        ));
    }
    let (has_type, is_named) = (
        types.contains(&"user_assigned"),
        !identity.user_assigned_identities.0.is_empty(),
    );
    match (has_type, is_named) {
        (true, false) => failed(
            "Identity type user_assigned needs an identity. Name it below user_assigned_identities, or leave the type out.".to_owned(),
        ),
        (false, true) => failed(
            "There are user_assigned_identities, and identity.type has no user_assigned. Add it: system_assigned, user_assigned.".to_owned(),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::command::Wanted;
    use serde_json::json;

    fn settings(of: serde_json::Value) -> WorkspaceSettings {
        serde_json::from_value(of).unwrap()
    }

    fn lab() -> WorkspaceSettings {
        settings(json!({
            "default_vm_size": "Standard_D4s_v5",
            "largest_idle_seconds": 600,
            "quota": { "sessions": 5, "vcpus": { "D": 16 }, "users": { "bob": { "vcpus": { "D": 4, "NC": 8 } } } },
            "identity": {
                "type": "system_assigned, user_assigned",
                "user_assigned_identities": { "/subscriptions/1/z-first": {}, "/subscriptions/1/a-second": { "client_id": "c-2" } },
            },
        }))
    }

    #[test]
    fn a_workspaces_default_counts_where_nobody_names_another_and_says_where_it_comes_from() {
        let wanted = |wanted: &Wanted| {
            let mut settings = crate::defaults(wanted, "/flow");
            fill(&mut settings, &lab());
            settings
        };
        let none = wanted(&Wanted::default());
        assert_eq!(none.size, Named::new("Standard_D4s_v5".into(), Origin::Workspace));
        assert_eq!(none.idle, Named::new(600_000, Origin::Workspace));
        let named = wanted(&Wanted {
            size: Some("local".into()),
            idle: Some(300.try_into().unwrap()),
            ..Wanted::default()
        });
        assert_eq!(named.size, Named::new("local".into(), Origin::Command));
        assert_eq!(named.idle, Named::new(300_000, Origin::Command));
        assert_eq!(refuse(&named, &lab(), "lab"), None);
        let long = wanted(&Wanted {
            idle: Some(601.try_into().unwrap()),
            ..Wanted::default()
        });
        assert_eq!(
            refuse(&long, &lab(), "lab").unwrap().to_string(),
            "Session.IdleTooLong: The idle time is 601 s, and the workspace lab allows 600 s at most. Name a shorter one."
        );
    }

    #[test]
    fn an_identity_is_found_by_each_of_its_names_and_an_unknown_one_lists_those_there_are() {
        let lab = lab();
        let found = |named: &str| identity(named, &lab, "lab").map_err(|failure| failure.to_string());
        let second = Ok("/subscriptions/1/a-second".to_owned());
        for name in ["c-2", "a-second", "/SUBSCRIPTIONS/1/A-Second"] {
            assert_eq!(found(name), second, "{name}");
        }
        assert_eq!(found(PRIMARY), Ok("/subscriptions/1/z-first".to_owned()));
        let unknown = found("c-3").unwrap_err();
        let primary = WorkspaceSettings {
            primary_user_assigned_identity: Some("/subscriptions/1/a-second".into()),
            ..lab.clone()
        };
        assert_eq!(
            identity(PRIMARY, &primary, "lab"),
            Ok("/subscriptions/1/a-second".to_owned())
        );
        // On AWS it is a role, which each of its names stands for.
        let arn = "arn:aws:iam::1:role/reader";
        let ids = json!({ "/subscriptions/1/reader": { "client_id": "c-1", "role_arn": arn } });
        let of_aws = settings(json!({ "identity": { "type": "user_assigned", "user_assigned_identities": ids } }));
        for name in ["/subscriptions/1/reader", "reader", "c-1", arn, PRIMARY] {
            assert_eq!(identity(name, &of_aws, "lab"), Ok(arn.to_owned()), "{name}");
        }
        let nothing = WorkspaceSettings::default();
        assert_eq!(identity("any", &nothing, "lab"), Ok("any".to_owned()));
        let none = identity(PRIMARY, &nothing, "lab").unwrap_err().to_string();
        let system = settings(json!({ "identity": { "type": "system_assigned" } }));
        let no_such = identity("x", &system, "lab").unwrap_err().to_string();
        expect_test::expect![[r#"
            Session.NoIdentity: The workspace lab has no identity c-3. It has /subscriptions/1/z-first, /subscriptions/1/a-second.
            Session.NoIdentity: Primary user assigned identity not found: the workspace lab has no user-assigned identity. Name the client_id of an identity, or have an owner add one to the workspace.
            Session.NoIdentity: The workspace lab has no identity x. It has no user-assigned identity."#]]
        .assert_eq(&[unknown, none, no_such].join("\n"));
    }

    #[test]
    fn a_users_own_quota_counts_in_place_of_everybodys_setting_by_setting() {
        let of = |user: &str| quota(&lab(), user, 20);
        assert_eq!(of("ann").sessions, Some(5));
        assert_eq!(of("ann").vcpus, BTreeMap::from([("D".to_owned(), 16)]));
        assert_eq!(of("bob").sessions, Some(5));
        assert_eq!(
            of("bob").vcpus,
            BTreeMap::from([("D".to_owned(), 4), ("NC".to_owned(), 8)])
        );
        assert_eq!(quota(&WorkspaceSettings::default(), "ann", 20).sessions, Some(20));
    }

    #[test]
    fn settings_that_a_workspace_cannot_have_say_why() {
        check(&lab(), |_| None).unwrap();
        let two = json!({ "a": {}, "b": {} });
        let texts = [
            json!({ "default_vm_size": "Standard_D3s_v5" }),
            json!({ "default_data_store": { "name": "files", "type": "azure_file" } }),
            json!({ "working_directory": "/not/there" }),
            json!({ "quota": { "vcpus": { "Dsv5": 8 } } }),
            json!({ "identity": { "type": "managed" } }),
            json!({ "identity": { "type": "user_assigned" } }),
            json!({ "identity": { "type": "system_assigned", "user_assigned_identities": two } }),
            json!({ "primary_user_assigned_identity": "c",
                    "identity": { "type": "user_assigned", "user_assigned_identities": two } }),
        ]
        .map(|of| check(&settings(of), |_| Some(false)).unwrap_err().to_string());
        expect_test::expect![[r#"
            Session.NoSuchSize: There is no VM size Standard_D3s_v5. The nearest one is Standard_D2s_v5. Name one as Azure does, such as Standard_D4s_v3, or as EC2 does, such as m6i.xlarge; local is all of the machine.
            Workspace.NotAnObjectStore: The default data store files is of the type azure_file, and it has to be an object store. Name one of the type azure_blob, azure_data_lake_gen2, s3.
            Workspace.NoWorkingDirectory: The working directory /not/there does not exist. Make the folder, or name another one.
            Workspace.NoSuchFamily: There is no family Dsv5 of VM sizes for a quota of vCPUs. Name one of A, B, D, E, F, L, M, NC, ND, NV, c, g, i, m, p, r, t.
            Workspace.IdentityType: Identity type managed not supported. Write system_assigned, user_assigned, or both with a comma.
            Workspace.IdentityType: Identity type user_assigned needs an identity. Name it below user_assigned_identities, or leave the type out.
            Workspace.IdentityType: There are user_assigned_identities, and identity.type has no user_assigned. Add it: system_assigned, user_assigned.
            Workspace.NoPrimaryIdentity: Primary user assigned identity not found: c. The user-assigned identities are: a, b."#]].assert_eq(&texts.join("\n"));
    }
}
