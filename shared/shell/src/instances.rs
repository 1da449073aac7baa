//! Compute instances: created, changed, started, stopped and deleted by their user.
//!
//! An instance is a row of its own, and while it runs a compute resource whose slot names it. A
//! session joins that, and does not start it.

use crate::{
    Fault, Known, SAVE_TRIES, admission,
    claim::write_changed,
    compute::stop_sessions,
    placement::{none, slot_of},
    ports::{Ports, Save, Write},
    sizes::refuse_size,
    turn::{Happened, decided_operation},
    workspace,
};
use contract::{
    FlowRef, Kind,
    command::{Command, SERVERLESS, Wish},
    driver::ComputeRequest,
    instance::InstanceRow,
};
use lifecycle::{
    Code, Failure,
    compute::{self, Compute, ComputePhase},
    quota::{Quota, Usage, Use},
    session::Event,
    size,
};

/// The rows to save, and the compute resource whose driver or sessions are to be told.
#[derive(Default)]
struct Next {
    writes: Vec<Write>,
    compute: Option<Compute>,
}

/// Does what a command wants of an instance.
///
/// # Errors
///
/// As [`crate::happen`]; what was decided stands, and the sweep carries it out.
pub(crate) async fn change(ports: &impl Ports, command: &Command, known: &Known, name: &str) -> Result<(), Fault> {
    for _ in 0..SAVE_TRIES {
        match once(ports, command, known, name).await {
            Err(Fault::Conflict) => {}
            done => return done,
        }
    }
    Err(Fault::Conflict)
}

async fn once(ports: &impl Ports, command: &Command, known: &Known, name: &str) -> Result<(), Fault> {
    let by = known.principal.name();
    let FlowRef { workspace, owner, .. } = &command.flow;
    let stored = ports.load_instance(workspace, owner, name).await?;
    if ports.load_operation(&command.id).await?.is_some() {
        let held = match &stored {
            Some(row) => ports.load_slot(&slot_of(row)).await?,
            None => None,
        };
        return match held {
            Some(held) => carry_out(ports, &held, by).await,
            None => Ok(()),
        };
    }
    let decided = match (known.refuse(ports, command).await?, stored) {
        (Some(denied), _) => Err(denied),
        (None, stored) => decide(ports, command, known, name, stored).await?,
    };
    let (kind, flow) = (kind(&command.wish), command.flow.key());
    let happened = Happened::new(&flow, Event::Tick, by);
    let failure = decided.as_ref().err().cloned();
    let row = decided_operation(&command.id, kind, &happened, failure, ports.now());
    let mut next = decided.unwrap_or_default();
    next.writes.push(Write::NewOperation(row));
    ports.save(Save { writes: next.writes }).await?;
    match next.compute {
        Some(compute) => carry_out(ports, &compute, by).await,
        None => Ok(()),
    }
}

async fn decide(
    ports: &impl Ports,
    command: &Command,
    known: &Known,
    name: &str,
    stored: Option<InstanceRow>,
) -> Result<Result<Next, Failure>, Fault> {
    match (&command.wish, stored) {
        (Wish::CreateInstance { .. }, Some(_)) => Ok(Err(exists(name))),
        (
            Wish::CreateInstance {
                instance,
                size,
                identity,
                idle_shutdown_seconds,
            },
            None,
        ) => {
            if instance == SERVERLESS {
                return Ok(Err(name_is_reserved()));
            }
            let named = (size.as_ref(), identity.as_deref());
            let (size, identity) = match size_and_identity(ports, &command.flow.workspace, named).await? {
                Ok(found) => found,
                Err(failure) => return Ok(Err(failure)),
            };
            let row = InstanceRow {
                workspace: command.flow.workspace.clone(),
                owner: command.flow.owner.clone(),
                name: instance.clone(),
                size,
                identity,
                idle_shutdown_seconds: *idle_shutdown_seconds,
                revision: 0,
                by: known.principal.name().to_owned(),
                at: ports.now(),
            };
            start(ports, row).await
        }
        (_, None) => Ok(Err(none(name, &command.flow.owner))),
        (wish @ Wish::UpdateInstance { .. }, Some(row)) => update(ports, row, wish).await,
        (Wish::StartInstance { .. }, Some(row)) => {
            let refused = match &row.identity {
                Some(identity) => known.refuse_identity(ports, identity, &row.workspace).await?,
                None => None,
            };
            match refused {
                Some(denied) => Ok(Err(denied)),
                None => start(ports, row).await,
            }
        }
        (wish, Some(row)) => {
            let mut next = Next::default();
            if let Some(held) = ports.load_slot(&slot_of(&row)).await?
                && let Some(drained) = compute::drain(&held, why_end(name, known.principal.name(), wish), ports.now())
            {
                next.writes.push(write_changed(drained.clone(), &held));
                next.compute = Some(drained);
            }
            if matches!(wish, Wish::DeleteInstance { .. }) {
                next.writes.push(Write::ForgetInstance(row));
            }
            Ok(Ok(next))
        }
    }
}

/// Changes the settings of an instance. One that runs keeps its VM size and identity until its next
/// start.
async fn update(ports: &impl Ports, row: InstanceRow, wish: &Wish) -> Result<Result<Next, Failure>, Fault> {
    let Wish::UpdateInstance {
        size,
        identity,
        idle_shutdown_seconds,
        no_idle_shutdown,
        ..
    } = wish
    else {
        return Ok(Ok(Next::default()));
    };
    let wanted = (size.as_ref().or(Some(&row.size)), identity.as_deref());
    let (size, named) = match size_and_identity(ports, &row.workspace, wanted).await? {
        Ok(found) => found,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut next = Next::default();
    let after = idle_shutdown_seconds.filter(|_| !no_idle_shutdown);
    let is_other = after.is_some() || *no_idle_shutdown;
    if let Some(held) = ports.load_slot(&slot_of(&row)).await?.filter(|_| is_other)
        && held.takes_sessions()
    {
        let changed = compute::set_idle_shutdown(&held, after.map(Into::into), ports.now());
        next.writes.push(write_changed(changed, &held));
    }
    next.writes.push(Write::Instance(InstanceRow {
        size,
        identity: named.or(row.identity.clone()),
        idle_shutdown_seconds: if is_other { after } else { row.idle_shutdown_seconds },
        revision: row.revision + 1,
        ..row
    }));
    Ok(Ok(next))
}

/// The VM size and the identity of an instance that is created: those that are named, or the
/// workspace's.
async fn size_and_identity(
    ports: &impl Ports,
    workspace: &str,
    (size, identity): (Option<&String>, Option<&str>),
) -> Result<Result<(String, Option<String>), Failure>, Fault> {
    let of = workspace::settings_of(ports, workspace).await?;
    let size = size.or(of.default_vm_size.as_ref());
    let size = size.map_or(size::WHOLE_MACHINE, String::as_str);
    if let Some(failure) = refuse_size(ports, size) {
        return Ok(Err(failure));
    }
    let identity = identity.map(|named| workspace::identity(named, &of, workspace));
    Ok(identity.transpose().map(|identity| (size.to_owned(), identity)))
}

/// A life of an instance begins, if its user's quota has room for it. One that runs goes on.
async fn start(ports: &impl Ports, row: InstanceRow) -> Result<Result<Next, Failure>, Fault> {
    let slot = slot_of(&row);
    let held = ports.load_slot(&slot).await?;
    if row.revision > 0 && held.as_ref().is_some_and(Compute::takes_sessions) {
        return Ok(Ok(Next::default()));
    }
    let after = row.idle_shutdown_seconds.map(Into::into);
    let Some(compute) = compute::start(held.as_ref(), &slot, after, &ports.new_id(), ports.now()) else {
        return Ok(Err(stopping(&row.name)));
    };
    let wanted = Use {
        lineage: format!("the compute instance {}", row.name),
        size: row.size.clone(),
        compute: compute.id.clone(),
        since: None,
    };
    let hold = |usage: &Usage, wanted: &Use, quota: &Quota| usage.hold(wanted, quota, &row.workspace);
    let mut writes = match admission::admit(ports, (&row.workspace, &row.owner), &wanted, hold).await? {
        Ok(writes) => writes,
        Err(failure) => return Ok(Err(failure)),
    };
    writes.extend([
        // It is still there, and nobody deletes it meanwhile.
        Write::Instance(InstanceRow {
            revision: row.revision + 1,
            ..row
        }),
        Write::Slot {
            slot,
            compute: compute.id.clone(),
            was: held.map(|held| held.id),
        },
        Write::Compute {
            compute: compute.clone(),
            read: None,
        },
    ]);
    let compute = Some(compute);
    Ok(Ok(Next { writes, compute }))
}

async fn carry_out(ports: &impl Ports, held: &Compute, by: &str) -> Result<(), Fault> {
    let compute = held.id.clone();
    match held.phase {
        ComputePhase::Requested => {
            ports
                .ask_driver(&ComputeRequest::create(compute, held.slot.clone()))
                .await
        }
        ComputePhase::Releasing => ports.ask_driver(&ComputeRequest::ReleaseCompute { compute }).await,
        _ => stop_sessions(ports, held, by).await,
    }
}

fn kind(wish: &Wish) -> Kind {
    match wish {
        Wish::CreateInstance { .. } | Wish::StartInstance { .. } => Kind::Start,
        Wish::UpdateInstance { .. } => Kind::Update,
        _ => Kind::Stop,
    }
}

fn exists(name: &str) -> Failure {
    let message = format!("There is a compute instance {name} already. Take another name, or delete it first.");
    Failure::new(Code::InstanceExists, message)
}

fn name_is_reserved() -> Failure {
    let message = format!("{SERVERLESS} is the name of the compute that is no instance. Take another name.");
    Failure::new(Code::InstanceExists, message)
}

fn stopping(name: &str) -> Failure {
    let message = format!("The compute instance {name} is still stopping. Try again in a moment.");
    Failure::new(Code::InstanceStopping, message)
}

/// The failure of the sessions that end with their instance.
fn why_end(name: &str, by: &str, wish: &Wish) -> Failure {
    let (code, what, next) = match wish {
        Wish::DeleteInstance { .. } => (Code::InstanceDeleted, "deleted", "Start the session on other compute."),
        _ => (
            Code::InstanceStopped,
            "stopped",
            "Start the instance, then the session again.",
        ),
    };
    let message = format!("{by} {what} the compute instance {name}, which ends all sessions on it. {next}");
    Failure::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_instance_refuses_says_what_to_do() {
        let instance = || "dev".to_owned();
        let texts = [
            exists("dev"),
            name_is_reserved(),
            stopping("dev"),
            why_end("dev", "ann", &Wish::StopInstance { instance: instance() }),
            why_end("dev", "ann", &Wish::DeleteInstance { instance: instance() }),
        ];
        expect_test::expect![[r#"
            Instance.Exists: There is a compute instance dev already. Take another name, or delete it first.
            Instance.Exists: serverless is the name of the compute that is no instance. Take another name.
            Instance.Stopping: The compute instance dev is still stopping. Try again in a moment.
            Instance.Stopped: ann stopped the compute instance dev, which ends all sessions on it. Start the instance, then the session again.
            Instance.Deleted: ann deleted the compute instance dev, which ends all sessions on it. Start the session on other compute."#]].assert_eq(&texts.map(|failure| failure.to_string()).join("\n"));
    }
}
