//! The prerequisites of a start, all of them at once, without starting anything.

use crate::{
    Fault, Known, Ports,
    actions::action_of,
    admission::{self, Counted},
    placement::{not_running, place},
    sizes,
    wish::settings_of_wish,
    workspace,
};
use contract::{FlowRef, command::Command, http::Check, workspace::WorkspaceSettings};
use lifecycle::{
    Failure,
    access::{denied, may},
    compute::{self, Compute},
    quota::{Use, Whose},
    session::{Session, Settings},
    size,
};

/// Looks at what a start needs of the workspace: the role, the VM size, the idle time, the
/// identity, the data store, the working directory and the quota.
///
/// * `is_folder`: whether there is a folder at this path; `None` where nobody here can know.
///
/// # Errors
///
/// As [`Ports`].
///
/// # Source
///
/// "Before using Azure Machine Learning studio to start a compute session, ensure that" (the
/// specification, *Start a compute session in studio*).
pub async fn check(
    ports: &impl Ports,
    known: &Known,
    command: &Command,
    is_folder: impl Fn(&str) -> Option<bool> + Send,
) -> Result<Vec<Check>, Fault> {
    let (workspace, user) = (&command.flow.workspace, &command.flow.owner);
    let of = workspace::settings_of(ports, workspace).await?;
    let mut settings = settings_of_wish(&command.wish, &command.flow.lineage).0;
    let misplaced = place(ports, command, known, &mut settings).await?;
    workspace::fill(&mut settings, &of);
    sizes::choose(ports, &command.flow, &mut settings, &of).await?;
    let (principal, action) = (&known.principal, action_of(&command.wish));
    let role = (!may(principal, action, workspace, user)).then(|| denied(principal, action, workspace, user));
    let has_role = role.is_none();
    let mut checks = vec![
        of_failure(
            "role",
            role,
            format!("{} may have sessions in the workspace {workspace}", principal.name()),
        ),
        of_failure(
            "vm-size",
            sizes::refuse_size(ports, &settings.size.value),
            about_size(&settings),
        ),
        of_failure(
            "idle-time",
            workspace::refuse(&settings, &of, workspace),
            format!("{} s", settings.idle.value / 1000),
        ),
    ];
    checks.push(match &settings.identity.value {
        None => Check::held("identity", format!("the session acts as {user}")),
        Some(_) if !has_role => Check::not_checkable("identity", "the role comes first".to_owned()),
        Some(named) => {
            let refused = match workspace::identity(named, &of, workspace) {
                Err(failure) => Some(failure),
                Ok(_) => known.refuse(ports, command).await?,
            };
            of_failure("identity", refused, format!("{user} may assign {named}"))
        }
    });
    if let Some(name) = &command.wish.settings().and_then(|wanted| wanted.compute.clone()) {
        let failure = match misplaced {
            None if settings.compute.value.is_some() => not_there(ports, command, &settings, name).await?,
            misplaced => misplaced,
        };
        checks.push(of_failure("compute", failure, name.clone()));
    }
    checks.push(data_store(&of));
    checks.push(working_directory(&of, is_folder));
    checks.push(quota(ports, command, &settings, &of).await?);
    Ok(checks)
}

/// The failure of a session that cannot be on the compute instance `name` now.
async fn not_there(
    ports: &impl Ports,
    command: &Command,
    settings: &Settings,
    name: &str,
) -> Result<Option<Failure>, Fault> {
    let FlowRef { workspace, owner, .. } = &command.flow;
    let session = Session::never(command.flow.key(), workspace, owner, settings.clone());
    let held = ports.load_slot(&session.slot()).await?;
    let takes = compute::join(held.as_ref(), &session.flow, 0);
    Ok(takes.is_none().then(|| not_running(name)))
}

fn about_size(settings: &Settings) -> String {
    let below = size::size(&settings.size.value).is_some_and(|size| size.below_series_d);
    let below = if below { "; advised against: below series D" } else { "" };
    let chosen = match settings.choice.as_str() {
        "" => String::new(),
        why => format!("; chosen: {why}"),
    };
    format!("{}{below}{chosen}", settings.size.value)
}

fn data_store(of: &WorkspaceSettings) -> Check {
    match &of.default_data_store {
        None => Check::held("data-store", "none is named: the service keeps data itself".to_owned()),
        Some(store) => Check::held(
            "data-store",
            format!("{} is an object store ({})", store.name, store.r#type),
        ),
    }
}

fn working_directory(of: &WorkspaceSettings, is_folder: impl Fn(&str) -> Option<bool>) -> Check {
    match &of.working_directory {
        None => Check::held("working-directory", "none is named, and none is needed".to_owned()),
        Some(folder) => match is_folder(folder) {
            Some(true) => Check::held("working-directory", folder.clone()),
            Some(false) => of_failure(
                "working-directory",
                workspace::no_working_directory(of, &is_folder),
                folder.clone(),
            ),
            None => Check::not_checkable(
                "working-directory",
                format!("{folder} is on a machine that the service does not see"),
            ),
        },
    }
}

async fn quota(
    ports: &impl Ports,
    command: &Command,
    settings: &Settings,
    of: &WorkspaceSettings,
) -> Result<Check, Fault> {
    let (workspace, user) = (&command.flow.workspace, &command.flow.owner);
    let session = Session::never(command.flow.key(), workspace, user, settings.clone());
    let in_slot = ports.load_slot(&session.slot()).await?;
    let takes = in_slot.filter(Compute::takes_sessions);
    let wanted = Use {
        lineage: command.flow.lineage.clone(),
        size: settings.size.value.clone(),
        compute: takes.map(|compute| compute.id).unwrap_or_default(),
        since: None,
    };
    let now = ports.now();
    let quotas = admission::load_quotas(ports, of, workspace, user).await?;
    let refused = quotas.iter().find_map(|counted| {
        let wanted = counted.name_use(&wanted, user);
        counted
            .usage
            .enter(&session.flow, &wanted, &counted.quota, workspace, now)
            .err()
    });
    let in_use = |counted: &Counted| {
        let most = counted.quota.sessions.map(|most| most.to_string());
        let most = most.unwrap_or_else(|| "any number".to_owned());
        let whose = match counted.quota.whose {
            Whose::User => "",
            Whose::Everybody => ", and of everybody together ",
        };
        let used = counted.usage.sessions.len();
        let verb = if used == 1 { "is" } else { "are" };
        format!("{whose}{used} of {most} sessions {verb} in use")
    };
    Ok(of_failure("quota", refused, quotas.iter().map(in_use).collect()))
}

fn of_failure(check: &str, failure: Option<Failure>, what: String) -> Check {
    match failure {
        Some(failure) => Check::lacking(check, failure),
        None => Check::held(check, what),
    }
}
