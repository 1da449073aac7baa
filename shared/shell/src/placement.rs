//! A compute instance that a session is put on: its slot, its settings, and why it cannot be had.

use crate::{
    Fault, Known, admission,
    ports::{Ports, Write},
    workspace,
};
use contract::{
    FlowRef,
    command::{Command, SERVERLESS, Wish},
    instance::InstanceRow,
};
use lifecycle::{
    Code, Failure, Millis,
    compute::{Compute, ComputePhase, Slot},
    session::{Origin, Settings},
};

/// The slot that an instance is in while it runs.
pub fn slot_of(row: &InstanceRow) -> Slot {
    Slot {
        workspace: row.workspace.clone(),
        owner: row.owner.clone(),
        size: row.size.clone(),
        identity: row.identity.clone(),
        instance: Some(row.name.clone()),
    }
}

/// Gives settings that name a compute instance its VM size and identity. Says why they cannot be
/// had, if so.
///
/// # Errors
///
/// As [`Ports`].
///
/// # Source
///
/// "If you choose compute instance as compute type, you can only set idle shutdown time" (*Start
/// with advanced settings*).
pub(crate) async fn place(
    ports: &impl Ports,
    command: &Command,
    known: &Known,
    settings: &mut Settings,
) -> Result<Option<Failure>, Fault> {
    let Some(wanted) = command.wish.settings() else {
        return Ok(None);
    };
    let is_fixed = wanted.size.is_some() || wanted.identity.is_some();
    let FlowRef { workspace, owner, .. } = &command.flow;
    let Some(name) = &wanted.compute else {
        // A start or a run that names no instance is for a session that there is, or for serverless
        // compute.
        if !is_fixed || matches!(command.wish, Wish::Start { .. } | Wish::Run { .. }) {
            return Ok(None);
        }
        let has = ports.load_session(&command.flow.key()).await?;
        let on = has.and_then(|row| row.session.settings.compute.value);
        return Ok(on.map(|name| size_is_fixed(&name)));
    };
    // Size and identity go with the compute resource, so they count for as much.
    let compute = settings.compute.origin;
    let from = |origin: &mut Origin| *origin = (*origin).min(compute);
    from(&mut settings.size.origin);
    from(&mut settings.identity.origin);
    if name == SERVERLESS {
        if wanted.size.is_none()
            && let Some(size) = workspace::settings_of(ports, workspace).await?.default_vm_size
        {
            settings.size.value = size;
        }
        return Ok(None);
    }
    if is_fixed {
        return Ok(Some(size_is_fixed(name)));
    }
    let Some(row) = ports.load_instance(workspace, owner, name).await? else {
        return Ok(Some(none(name, owner)));
    };
    // One that runs may have been given others since, for its next start.
    let held = ports.load_slot(&slot_of(&row)).await?;
    let runs = held.filter(Compute::takes_sessions);
    (settings.size.value, settings.identity.value) = match runs {
        Some(held) => (held.slot.size, held.slot.identity),
        None => (row.size, row.identity),
    };
    match &settings.identity.value {
        Some(identity) => known.refuse_identity(ports, identity, workspace).await,
        None => Ok(None),
    }
}

/// Says when a running compute instance is shut down for idleness if nothing uses it before. `None`
/// if it has no idle shutdown, or is in use.
///
/// # Errors
///
/// As [`Ports`].
pub async fn shutdown_due(ports: &impl Ports, held: &Compute) -> Result<Option<Millis>, Fault> {
    let Some(mut shutdown) = held.shutdown.filter(|_| held.phase == ComputePhase::Up) else {
        return Ok(None);
    };
    for flow in &held.sessions {
        let Some(row) = ports.load_session(flow).await? else {
            continue;
        };
        if row.session.is_busy() {
            return Ok(None);
        }
        shutdown.used = shutdown.used.max(row.session.last_activity);
    }
    Ok(Some(shutdown.due()))
}

/// Takes a compute instance that is gone out of the quotas that it is in.
pub(crate) async fn free(ports: &impl Ports, compute: &Compute) -> Result<Vec<Write>, Fault> {
    if compute.slot.instance.is_none() {
        return Ok(Vec::new());
    }
    let (workspace, user) = (&compute.slot.workspace, &compute.slot.owner);
    admission::dismiss(ports, workspace, user, |usage| usage.release(&compute.id)).await
}

/// The failure of a session that cannot be on an instance now.
pub(crate) fn not_running(name: &str) -> Failure {
    let message = format!(
        "The compute instance {name} does not run, and a session does not start one. Start the instance, then the session again."
    );
    Failure::new(Code::InstanceNotRunning, message)
}

fn size_is_fixed(name: &str) -> Failure {
    let message = format!(
        "The compute instance {name} has its own VM size and identity, so a session on it takes none. Leave them out, or switch the \
         session to serverless compute."
    );
    Failure::new(Code::InstanceFixedSettings, message)
}

/// There is no such instance.
pub(crate) fn none(name: &str, owner: &str) -> Failure {
    let message = format!("{owner} has no compute instance {name}. List those that there are, or create it.");
    Failure::new(Code::InstanceNone, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_cannot_be_on_an_instance_is_told_why() {
        let texts = [not_running("dev"), size_is_fixed("dev"), none("dev", "ann")];
        expect_test::expect![[r#"
            Instance.NotRunning: The compute instance dev does not run, and a session does not start one. Start the instance, then the session again.
            Instance.FixedSettings: The compute instance dev has its own VM size and identity, so a session on it takes none. Leave them out, or switch the session to serverless compute.
            Instance.None: ann has no compute instance dev. List those that there are, or create it."#]].assert_eq(&texts.map(|failure| failure.to_string()).join("\n"));
    }
}
