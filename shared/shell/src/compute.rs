//! The deletion of a compute resource with all that is on it.
//!
//! The decision is one save: the compute resource's row says that it takes no session any more, and
//! why. Then its sessions are stopped, one by one. A crash in between leaves a row that is due, and
//! the sweep has the rest of them stopped.

use crate::{
    Fault, Known, SAVE_TRIES,
    claim::write_changed,
    ports::{Ports, Save, Write},
    turn::{Happened, decided_operation, happen},
};
use contract::{
    Kind, Principal,
    command::{Command, Wish},
    driver::ComputeRequest,
    notice::Notice,
};
use lifecycle::{
    Code, Failure, Millis,
    compute::{self, Compute, ComputePhase},
    session::Event,
};

/// Decides the deletion of a compute resource, and stops the sessions on it.
///
/// # Errors
///
/// As [`happen`]; what was decided stands, and the sweep carries it out.
pub(crate) async fn delete(ports: &impl Ports, command: &Command, known: &Known, id: &str) -> Result<(), Fault> {
    let flow = command.flow.key();
    let by = known.principal.name();
    let happened = Happened::new(&flow, Event::Tick, by);
    for _ in 0..SAVE_TRIES {
        let held = ports.load_compute(id).await?;
        let is_decided = ports.load_operation(&command.id).await?.is_some();
        if is_decided {
            return match held {
                Some(held) => stop_sessions(ports, &held, by).await,
                None => Ok(()),
            };
        }
        let now = ports.now();
        let held = held.filter(|held| is_of(held, command));
        let (failure, next) = match (known.refuse(ports, command).await?, &held) {
            (Some(denied), _) => (Some(denied), None),
            (None, Some(held)) if held.phase != ComputePhase::Gone => (
                None,
                compute::drain(held, compute_deleted(id, by), now).map(|next| (next, held)),
            ),
            (None, _) => (Some(no_such_compute(id, &command.flow.owner)), None),
        };
        let row = decided_operation(&command.id, Kind::Stop, &happened, failure, now);
        let writes = [Write::NewOperation(row)].into_iter();
        let writes = writes
            .chain(next.clone().map(|(next, held)| write_changed(next, held)))
            .collect();
        match ports.save(Save { writes }).await {
            Err(Fault::Conflict) => {}
            Err(fault) => return Err(fault),
            Ok(()) => {
                return match next {
                    Some((next, _)) => stop_sessions(ports, &next, by).await,
                    None => Ok(()),
                };
            }
        }
    }
    Err(Fault::Conflict)
}

/// Stops each session on a compute resource that is to go, if it is.
pub(crate) async fn stop_sessions(ports: &impl Ports, held: &Compute, by: &str) -> Result<(), Fault> {
    let Some(why) = held.drained.clone().filter(|_| held.phase == ComputePhase::Draining) else {
        return Ok(());
    };
    for flow in &held.sessions {
        let event = Event::ComputeDrained {
            operation: format!("stop-{}", ports.new_id()),
            compute: held.id.clone(),
            why: why.clone(),
        };
        // A stop is refused by no session.
        let _ = happen(ports, &Happened::new(flow, event, by)).await?;
    }
    Ok(())
}

/// Has each session on a compute resource that is to go stopped by a command, so that the order of
/// its flow's commands holds.
pub(crate) async fn send_stops(ports: &impl Ports, held: &Compute) -> Result<(), Fault> {
    let Some(why) = &held.drained else { return Ok(()) };
    for flow in &held.sessions {
        let Some(row) = ports.load_session(flow).await? else {
            continue;
        };
        let command = Command {
            id: format!("sweep-{flow}-{}-{}", row.session.revision, ports.now()),
            flow: row.flow,
            principal: Some(Principal::Sweep),
            wish: Wish::StopOnCompute {
                compute: held.id.clone(),
                why: why.clone(),
            },
        };
        ports.send_command(&command).await?;
    }
    Ok(())
}

/// Looks whether a running compute instance is idle. If so, has the sessions on it stopped, and
/// once there is none, the instance.
pub(crate) async fn look(ports: &impl Ports, held: &Compute, now: Millis) -> Result<(), Fault> {
    let mut rows = Vec::new();
    for flow in &held.sessions {
        rows.extend(ports.load_session(flow).await?);
    }
    let used = rows.iter().map(|row| row.session.last_activity).max();
    let busy = rows.iter().any(|row| row.session.is_busy());
    let next = compute::look(held, used, busy, idle(held), now);
    let release = next.phase == ComputePhase::Releasing;
    let stop = !release && !busy && next.is_idle(now);
    // It is sent before it is saved that it was: it may come twice, and is not lost.
    if let Some(notice) = warning(held, &next) {
        ports.send_notice(&notice).await?;
    }
    match ports
        .save(Save {
            writes: vec![write_changed(next, held)],
        })
        .await
    {
        // Somebody has just used it; it is due again later.
        Err(Fault::Conflict) => return Ok(()),
        done => done?,
    }
    if release {
        let compute = held.id.clone();
        return ports.ask_driver(&ComputeRequest::ReleaseCompute { compute }).await;
    }
    for row in rows.into_iter().filter(|_| stop) {
        let session = row.session;
        let wish = Wish::StopIfIdle {
            generation: session.generation,
            activity: session.last_activity,
            why: Some(idle(held)),
        };
        let command = Command {
            id: format!("sweep-{}-{}-{now}", session.flow, session.revision),
            flow: row.flow,
            principal: Some(Principal::Sweep),
            wish,
        };
        ports.send_command(&command).await?;
    }
    Ok(())
}

/// The warning of an idle shutdown that comes soon, if its user had none.
fn warning(held: &Compute, next: &Compute) -> Option<Notice> {
    let shutdown = next.shutdown.filter(|shutdown| shutdown.is_warned())?;
    let had = held.shutdown.is_some_and(|had| had.warned == shutdown.warned);
    (!had).then(|| Notice::ShutDownSoon {
        workspace: held.slot.workspace.clone(),
        owner: held.slot.owner.clone(),
        instance: held.slot.instance.clone().unwrap_or_default(),
        due: shutdown.due(),
        after: shutdown.after,
    })
}

fn idle(held: &Compute) -> Failure {
    let name = held.slot.instance.as_deref().unwrap_or(&held.id);
    let seconds = held.shutdown.map_or(0, |shutdown| shutdown.after / 1000);
    let message = format!(
        "The compute instance {name} was not used for {seconds} s and is shut down, with all sessions on it. Start the instance, then the \
         session again."
    );
    Failure::new(Code::InstanceIdleShutdown, message)
}

fn is_of(held: &Compute, command: &Command) -> bool {
    (&held.slot.workspace, &held.slot.owner) == (&command.flow.workspace, &command.flow.owner)
}

fn compute_deleted(id: &str, by: &str) -> Failure {
    Failure::new(
        Code::SessionComputeDeleted,
        format!(
            "{by} deleted the compute resource {id} with all that was on it. Start the session again: it gets another one."
        ),
    )
}

fn no_such_compute(id: &str, owner: &str) -> Failure {
    Failure::new(
        Code::ComputeNone,
        format!(
            "{owner} has no compute resource {id}. One is deleted with the last session on it; list those that there are."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_deletion_says_of_itself() {
        let texts = [
            compute_deleted("c1", "ann").to_string(),
            no_such_compute("c1", "bob").to_string(),
        ];
        assert_eq!(
            texts,
            [
                "Session.ComputeDeleted: ann deleted the compute resource c1 with all that was on it. Start the session again: it gets \
                 another one.",
                "Compute.None: bob has no compute resource c1. One is deleted with the last session on it; list those that there are."
            ]
        );
    }
}
