//! Claims of compute resources: taken in the turn that needs one, given up in the turn that leaves
//! it.

use crate::{
    Fault, admission,
    placement::not_running,
    ports::{Ports, Write},
};
use contract::{Millis, row::SessionRow};
use lifecycle::{
    Failure,
    compute::{self, Compute, ComputePhase, Slot},
    quota::Use,
    session::{Claimed, Event, Message, Phase, Session, Step},
};

/// Takes the flow out of its user's quota and off its compute resource, and releases that if it was
/// the last one there.
pub(crate) async fn leave(
    ports: &impl Ports,
    row: &SessionRow,
    compute: String,
    now: Millis,
) -> Result<(Vec<Write>, Option<Message>), Fault> {
    let (flow, used) = (&row.session.flow, row.session.last_activity);
    let (workspace, user) = (row.flow.workspace.clone(), row.flow.owner.clone());
    let mut writes = admission::dismiss(ports, &workspace, &user, |usage| usage.leave(flow, now)).await?;
    let mut release = None;
    if let Some(held) = ports.load_compute(&compute).await? {
        let left = compute::leave(&held, flow, used, now);
        if left != held {
            if left.phase == ComputePhase::Releasing && held.phase != ComputePhase::Releasing {
                release = Some(Message::ReleaseCompute { compute });
            }
            writes.push(write_changed(left, &held));
        }
    }
    Ok((writes, release))
}

/// For a step that claims a compute resource: claims it, and says so in the event; or says that the
/// quota bars it.
pub(crate) async fn claim_of(
    ports: &impl Ports,
    row: &SessionRow,
    event: &mut Event,
    now: Millis,
) -> Result<Vec<Write>, Fault> {
    let session = &row.session;
    let Event::StepEntered {
        operation,
        step: Step::ClaimCompute,
        token,
        compute,
        // One that cannot be done claims nothing.
        cause: cause @ None,
        image: _,
    } = event
    else {
        return Ok(Vec::new());
    };
    let current = session
        .current
        .as_ref()
        .is_some_and(|o| o.id == *operation && o.token.as_deref() != Some(token));
    if !current || session.phase != Phase::Provisioning {
        return Ok(Vec::new());
    }
    if let Some(held) = load_held(ports, session).await? {
        *compute = Some(Claimed {
            up: held.phase == ComputePhase::Up,
            new: held.phase == ComputePhase::Requested,
            id: held.id,
        });
        return Ok(Vec::new());
    }
    let slot = session.slot();
    let in_slot = ports.load_slot(&slot).await?;
    let Some(claimed) = claim_in(in_slot.as_ref(), &slot, &session.flow, || ports.new_id(), now) else {
        *cause = slot.instance.as_deref().map(not_running);
        return Ok(Vec::new());
    };
    let mut writes = match enter(ports, row, &slot, &claimed.id, now).await? {
        Ok(writes) => writes,
        Err(failure) => {
            *cause = Some(failure);
            return Ok(Vec::new());
        }
    };
    let joined = in_slot.as_ref().filter(|c| c.id == claimed.id);
    *compute = Some(Claimed {
        id: claimed.id.clone(),
        up: claimed.phase == ComputePhase::Up,
        new: joined.is_none(),
    });
    match joined {
        Some(held) => writes.push(write_changed(claimed, held)),
        None => writes.extend(new_compute(slot, claimed, in_slot.map(|c| c.id))),
    }
    Ok(writes)
}

/// The compute resource of a slot with the session on it; `None` for a compute instance that does
/// not run.
fn claim_in(
    in_slot: Option<&Compute>,
    slot: &Slot,
    flow: &str,
    new_id: impl Fn() -> String,
    now: Millis,
) -> Option<Compute> {
    match &slot.instance {
        None => Some(compute::claim(in_slot, slot, flow, &new_id(), now)),
        // Another instance of its name may have been created meanwhile.
        Some(_) => compute::join(in_slot.filter(|held| held.slot == *slot), flow, now),
    }
}

/// The compute resource that a session is on already.
async fn load_held(ports: &impl Ports, session: &Session) -> Result<Option<Compute>, Fault> {
    let Some(id) = &session.compute else { return Ok(None) };
    let held = ports.load_compute(id).await?;
    Ok(held.filter(|c| c.sessions.contains(&session.flow)))
}

/// Takes a session into the quotas that count for its user, or says what bars it.
async fn enter(
    ports: &impl Ports,
    row: &SessionRow,
    slot: &Slot,
    compute: &str,
    now: Millis,
) -> Result<Result<Vec<Write>, Failure>, Fault> {
    let (workspace, user) = (&row.session.workspace, &row.session.owner);
    let wanted = Use {
        lineage: row.flow.lineage.clone(),
        size: slot.size.clone(),
        compute: compute.to_owned(),
        since: None,
    };
    admission::admit(ports, (workspace, user), &wanted, |usage, wanted, quota| {
        usage.enter(&row.session.flow, wanted, quota, workspace, now)
    })
    .await
}

/// The rows of a new compute resource in its slot, in place of the one that the slot had.
fn new_compute(slot: Slot, compute: Compute, was: Option<String>) -> [Write; 2] {
    [
        Write::Slot {
            slot,
            compute: compute.id.clone(),
            was,
        },
        Write::Compute { compute, read: None },
    ]
}

pub(crate) fn write_changed(next: Compute, read: &Compute) -> Write {
    Write::Compute {
        compute: Compute {
            revision: read.revision + 1,
            ..next
        },
        read: Some(read.revision),
    }
}
