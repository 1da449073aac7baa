//! One compute resource: it has one user for all its life, and a set of sessions on it.

use crate::{Failure, Millis, deadlines};
use std::collections::BTreeSet;

/// What tells one compute resource of a user from another.
///
/// # Source
///
/// "a user might have compute resources with different VM sizes or user-assigned managed identities" (seed, *Relationship*).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Slot {
    pub workspace: String,
    pub owner: String,
    pub size: String,
    pub identity: Option<String>,
}

/// Where a compute resource is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum ComputePhase {
    /// Its driver was asked for it.
    Requested,
    /// Its driver has seen it.
    Up,
    /// Its deletion is decided. It takes no session any more, and those on it are being stopped.
    Draining,
    /// Nothing is on it, and its driver was asked to delete it. It takes no session any more.
    Releasing,
    /// Its driver has seen it gone. Final.
    Gone,
}

/// A serverless compute resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Compute {
    pub id: String,
    pub slot: Slot,
    pub phase: ComputePhase,
    /// The flows whose sessions are on it, or about to be.
    pub sessions: BTreeSet<String>,
    pub revision: u64,
    /// When it is to be looked after; none once it is gone and each session on it has been told.
    pub due: Option<Millis>,
    /// When it was requested; none of a row that an earlier version wrote.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub since: Option<Millis>,
    /// Why its sessions are being stopped: each of them and their runs are told.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub drained: Option<Failure>,
}

/// Puts the session of `flow` on a compute resource of `slot`.
///
/// Gives back the compute resource with the session on it. It is the one that `slot` has now, if that still takes sessions; else a new
/// one with the id `new_id`, which its driver must then be asked for. Claiming twice is claiming once.
pub fn claim(in_slot: Option<&Compute>, slot: &Slot, flow: &str, new_id: &str, now: Millis) -> Compute {
    match in_slot {
        Some(compute) if matches!(compute.phase, ComputePhase::Requested | ComputePhase::Up) => {
            let mut next = compute.clone();
            next.sessions.insert(flow.to_owned());
            next
        }
        _ => Compute {
            id: new_id.to_owned(),
            slot: slot.clone(),
            phase: ComputePhase::Requested,
            sessions: BTreeSet::from([flow.to_owned()]),
            revision: 0,
            due: Some(now + deadlines::COMPUTE_RETRY),
            since: Some(now),
            drained: None,
        },
    }
}

/// Decides the deletion of `compute`, whatever is on it. From now on it takes no session, and each one on it is to be stopped with `why`;
/// the last one to leave releases it. `None` if it is on its way out already.
///
/// # Source
///
/// "Deleting the instance impacts the flows and runs on it" (seed, *Manage serverless instance*).
pub fn drain(compute: &Compute, why: Failure, now: Millis) -> Option<Compute> {
    matches!(compute.phase, ComputePhase::Requested | ComputePhase::Up).then(|| Compute {
        phase: ComputePhase::Draining,
        due: Some(now + deadlines::COMPUTE_RETRY),
        drained: Some(why),
        ..compute.clone()
    })
}

/// Takes the session of `flow` off `compute`. When it was the last one, the compute resource is Releasing in the same step, so
/// that nobody can claim it between the two.
///
/// # Source
///
/// "If there's no active compute session on the underlying compute, the serverless compute resource will also be deleted" (seed, *Update*).
pub fn leave(compute: &Compute, flow: &str, now: Millis) -> Compute {
    let mut next = compute.clone();
    next.sessions.remove(flow);
    match next.phase {
        ComputePhase::Requested | ComputePhase::Up | ComputePhase::Draining if next.sessions.is_empty() => {
            next.phase = ComputePhase::Releasing;
            next.due = Some(now + deadlines::COMPUTE_RETRY);
        }
        ComputePhase::Gone if next.sessions.is_empty() => next.due = None,
        _ => {}
    }
    next
}

/// What a driver saw of a compute resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    Up,
    Gone,
}

/// Takes in what the driver saw. `None` if it changes nothing: it came late, or twice.
///
/// The sessions on one that is gone stay in its set until each has left it, so that a crash after this step forgets none of them;
/// whoever saw it tells every session in the set, also when this gives `None`.
pub fn observe(compute: &Compute, seen: Seen) -> Option<Compute> {
    let mut next = compute.clone();
    match (compute.phase, seen) {
        (ComputePhase::Requested, Seen::Up) => next.phase = ComputePhase::Up,
        (ComputePhase::Requested | ComputePhase::Up | ComputePhase::Draining | ComputePhase::Releasing, Seen::Gone) => {
            next.phase = ComputePhase::Gone;
        }
        _ => return None,
    }
    // One that is up and in use is looked after through its sessions; one that is gone needs nobody once they all know.
    next.due = (next.phase == ComputePhase::Gone && !next.sessions.is_empty()).then_some(0);
    Some(next)
}

/// What is still to be done about a compute resource whose due time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chase {
    /// Ask its driver for it again.
    Create,
    /// Have the sessions on it stopped, with the reason that [`Compute::drained`] says.
    StopSessions,
    /// Ask its driver for its deletion again. Of one that is gone the driver says so again, and the sessions that have not been told are told.
    Delete,
}

/// Looks after `compute` at `now`: says what is still to be done, and sets its next due time.
pub fn chase(compute: &Compute, now: Millis) -> Option<(Compute, Chase)> {
    if compute.due.is_none_or(|due| now < due) {
        return None;
    }
    let ask = match compute.phase {
        ComputePhase::Requested => Chase::Create,
        ComputePhase::Draining => Chase::StopSessions,
        ComputePhase::Releasing | ComputePhase::Gone => Chase::Delete,
        ComputePhase::Up => return None,
    };
    Some((
        Compute {
            due: Some(now + deadlines::COMPUTE_RETRY),
            ..compute.clone()
        },
        ask,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot {
            workspace: "ws".into(),
            owner: "alice".into(),
            size: "local".into(),
            identity: None,
        }
    }

    #[test]
    fn a_second_session_joins_the_compute_that_its_user_has() {
        let first = claim(None, &slot(), "a", "c1", 0);
        let both = claim(Some(&first), &slot(), "b", "c2", 0);
        assert_eq!((both.id.as_str(), both.sessions.len()), ("c1", 2));
    }

    #[test]
    fn the_last_session_to_leave_releases_and_a_releasing_one_is_never_claimed() {
        let both = claim(Some(&claim(None, &slot(), "a", "c1", 0)), &slot(), "b", "-", 0);
        let one = leave(&both, "a", 5);
        assert_eq!(one.phase, ComputePhase::Requested);
        let none = leave(&one, "b", 5);
        assert_eq!(none.phase, ComputePhase::Releasing);
        assert_eq!(claim(Some(&none), &slot(), "a", "c2", 6).id, "c2");
    }

    #[test]
    fn a_draining_one_takes_no_session_and_is_released_by_the_last_that_leaves() {
        let both = claim(Some(&claim(None, &slot(), "a", "c1", 0)), &slot(), "b", "-", 0);
        let why = Failure::new("Why", "");
        let draining = drain(&observe(&both, Seen::Up).unwrap(), why.clone(), 5).unwrap();
        assert_eq!(drain(&draining, Failure::new("Other", ""), 6), None);
        assert_eq!(claim(Some(&draining), &slot(), "c", "c2", 6).id, "c2");
        let (chased, ask) = chase(&draining, 5 + deadlines::COMPUTE_RETRY).unwrap();
        assert_eq!((ask, chased.drained), (Chase::StopSessions, Some(why)));
        assert_eq!(observe(&draining, Seen::Up), None);
        let one = leave(&draining, "a", 7);
        assert_eq!((one.phase, one.due), (ComputePhase::Draining, draining.due));
        let none = leave(&one, "b", 8);
        assert_eq!(none.phase, ComputePhase::Releasing);
        assert_eq!(drain(&none, Failure::new("Other", ""), 9), None);
        // One that its driver loses meanwhile takes its sessions with it.
        assert_eq!(observe(&draining, Seen::Gone).unwrap().phase, ComputePhase::Gone);
    }

    #[test]
    fn what_is_not_final_and_not_in_use_is_due() {
        let c = claim(None, &slot(), "a", "c1", 0);
        assert_eq!(chase(&c, deadlines::COMPUTE_RETRY).unwrap().1, Chase::Create);
        let up = observe(&c, Seen::Up).unwrap();
        assert_eq!(up.due, None);
        let releasing = leave(&up, "a", 10);
        assert_eq!(
            chase(&releasing, 10 + deadlines::COMPUTE_RETRY).unwrap().1,
            Chase::Delete
        );
        let gone = observe(&releasing, Seen::Gone).unwrap();
        assert_eq!((gone.phase, gone.due), (ComputePhase::Gone, None));
        assert_eq!(observe(&gone, Seen::Gone), None);
    }
}
