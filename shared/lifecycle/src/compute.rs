//! One compute resource: it has one user for all its life, and a set of sessions on it.

use crate::{Failure, Millis, deadlines};
use std::collections::BTreeSet;

/// The slot of a compute resource: what tells one of a user's from another.
///
/// # Source
///
/// "a user might have compute resources with different VM sizes or user-assigned managed
/// identities" (the specification, *Relationship*).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Slot {
    pub workspace: String,
    pub owner: String,
    pub size: String,
    pub identity: Option<String>,
    /// The name of the compute instance that it is; none is serverless compute.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub instance: Option<String>,
}

/// The phase of a compute resource.
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

/// A compute resource: serverless compute, or one life of a compute instance, from a start to its
/// stop.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Compute {
    pub id: String,
    pub slot: Slot,
    pub phase: ComputePhase,
    /// The flows whose sessions are on it, or about to be.
    pub sessions: BTreeSet<String>,
    pub revision: u64,
    /// The time of the next look at it; none once it is gone and each session on it has been told.
    pub due: Option<Millis>,
    /// The time of the request; none of a row that an earlier version wrote.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub since: Option<Millis>,
    /// The reason for stopping its sessions: each of them and their runs are told.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub drained: Option<Failure>,
    /// The idle shutdown; none for serverless compute, which is deleted with its last session.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub shutdown: Option<IdleShutdown>,
}

/// The idle shutdown of a compute instance.
///
/// # Source
///
/// "If idle shutdown is enabled on the compute instance, it takes effect at the compute level"
/// (*Start with advanced settings*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct IdleShutdown {
    /// The longest time that it may be unused, in milliseconds.
    pub after: Millis,
    /// Its last use that this row knows: its start, a session that joined it, or the last activity
    /// of one that left it.
    pub used: Millis,
    /// The shutdown that its user was warned of. What moves it arms the warning again.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub warned: Option<Millis>,
}

impl IdleShutdown {
    /// The time of the shutdown if nothing uses it before.
    pub fn due(self) -> Millis {
        self.used.saturating_add(self.after)
    }

    /// Whether its user was warned of that.
    pub fn is_warned(self) -> bool {
        self.warned == Some(self.due())
    }

    /// The time of the next look by a sweep: to warn its user, and then to shut it down.
    fn look_at(self) -> Millis {
        let ahead = deadlines::IDLE_WARNING.min(self.after / 4);
        self.due() - if self.is_warned() { 0 } else { ahead }
    }
}

/// Puts the session of `flow` on a compute resource of `slot`.
///
/// Gives back the compute resource with the session on it. It is the one that `slot` has now, if
/// that still takes sessions; else a new one with the id `new_id`, which its driver must then be
/// asked for. Claiming twice is claiming once.
pub fn claim(in_slot: Option<&Compute>, slot: &Slot, flow: &str, new_id: &str, now: Millis) -> Compute {
    match in_slot {
        Some(compute) if compute.takes_sessions() => {
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
            shutdown: None,
        },
    }
}

/// Starts a compute instance: a compute resource that lives until its user stops it or it is idle
/// for too long, with sessions or without. `None` while the one that it has is there, or is on its
/// way out.
///
/// * `after`: how long it may be unused, in milliseconds; none is without end.
///
/// # Source
///
/// "continue using the existing compute instance to manually manage the lifecycle" (*Switch a
/// compute instance runtime to a compute session*).
pub fn start(
    in_slot: Option<&Compute>,
    slot: &Slot,
    after: Option<Millis>,
    new_id: &str,
    now: Millis,
) -> Option<Compute> {
    in_slot
        .is_none_or(|compute| compute.phase == ComputePhase::Gone)
        .then(|| Compute {
            sessions: BTreeSet::new(),
            shutdown: after.map(|after| IdleShutdown {
                after,
                used: now,
                warned: None,
            }),
            ..claim(None, slot, "", new_id, now)
        })
}

/// Puts the session of `flow` on a compute instance. `None` if that does not run: a session never
/// starts one.
///
/// # Source
///
/// "it runs on an existing compute instance" (*Start with advanced settings*).
pub fn join(in_slot: Option<&Compute>, flow: &str, now: Millis) -> Option<Compute> {
    let compute = in_slot.filter(|compute| compute.takes_sessions())?;
    let mut next = compute.clone();
    next.sessions.insert(flow.to_owned());
    next.use_at(now);
    Some(next)
}

/// Looks at a running compute instance whose idle shutdown is due, or its warning.
///
/// If that comes soon, its user is to be warned: see [`IdleShutdown::is_warned`]. If it was used
/// meanwhile, the shutdown is put off. If a session on it is busy, it is looked at again soon. If
/// it is idle, the sessions on it are to be stopped (see [`Compute::is_idle`]), and once there is
/// none it is Releasing.
///
/// * `used`: the latest activity of the sessions on it.
/// * `busy`: whether one of them has a run or an operation.
pub fn look(compute: &Compute, used: Option<Millis>, busy: bool, why: Failure, now: Millis) -> Compute {
    let mut next = compute.clone();
    next.use_at(used.unwrap_or_default());
    if next.phase != ComputePhase::Up {
        return next;
    }
    if !next.is_idle(now) {
        match &mut next.shutdown {
            Some(shutdown) if now >= shutdown.look_at() && busy => next.due = Some(now + deadlines::COMPUTE_RETRY),
            Some(shutdown) if now >= shutdown.look_at() => {
                shutdown.warned = Some(shutdown.due());
                next.due = shutdown.warned;
            }
            _ => {}
        }
        return next;
    }
    next.due = Some(now + deadlines::COMPUTE_RETRY);
    if !busy && next.sessions.is_empty() {
        next.phase = ComputePhase::Releasing;
        next.drained = Some(why);
    }
    next
}

/// Gives a running compute instance another idle shutdown, which counts at once, from its last use.
///
/// * `after`: as [`start`] takes it.
pub fn set_idle_shutdown(compute: &Compute, after: Option<Millis>, now: Millis) -> Compute {
    let mut next = compute.clone();
    let used = compute.shutdown.map_or(now, |shutdown| shutdown.used);
    next.shutdown = after.map(|after| IdleShutdown {
        after,
        used,
        warned: None,
    });
    if next.phase == ComputePhase::Up {
        next.due = next.shutdown.map(IdleShutdown::look_at);
    }
    next
}

impl Compute {
    /// Whether sessions may join it: it is requested or there, and not on its way out.
    pub fn takes_sessions(&self) -> bool {
        matches!(self.phase, ComputePhase::Requested | ComputePhase::Up)
    }

    /// Whether it is an instance that was unused for so long that it is shut down.
    pub fn is_idle(&self, now: Millis) -> bool {
        self.shutdown.is_some_and(|shutdown| now >= shutdown.due())
    }

    /// Takes in a use of an instance, which puts off its idle shutdown.
    fn use_at(&mut self, at: Millis) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.used = shutdown.used.max(at);
            if self.phase == ComputePhase::Up {
                self.due = Some(shutdown.look_at());
            }
        }
    }
}

/// Decides the deletion of `compute`, whatever is on it. From now on it takes no session, and each
/// one on it is to be stopped with `why`; the last one to leave releases it; with none on it, it is
/// Releasing at once. `None` if it is on its way out already.
///
/// # Source
///
/// "Deleting the instance impacts the flows and runs on it" (the specification, *Manage serverless
/// instance*).
pub fn drain(compute: &Compute, why: Failure, now: Millis) -> Option<Compute> {
    compute.takes_sessions().then(|| Compute {
        phase: if compute.sessions.is_empty() {
            ComputePhase::Releasing
        } else {
            ComputePhase::Draining
        },
        due: Some(now + deadlines::COMPUTE_RETRY),
        drained: Some(why),
        ..compute.clone()
    })
}

/// Takes the session of `flow` off `compute`. When it was the last one, serverless compute is
/// Releasing in the same step, so that nobody can claim it between the two; a compute instance
/// stays.
///
/// * `used`: the last activity of the session.
///
/// # Source
///
/// "If there's no active compute session on the underlying compute, the serverless compute resource
/// will also be deleted" (the specification, *Update*).
pub fn leave(compute: &Compute, flow: &str, used: Millis, now: Millis) -> Compute {
    let mut next = compute.clone();
    next.sessions.remove(flow);
    next.use_at(used);
    match next.phase {
        ComputePhase::Requested | ComputePhase::Up if next.slot.instance.is_some() => {}
        ComputePhase::Requested | ComputePhase::Up | ComputePhase::Draining if next.sessions.is_empty() => {
            next.phase = ComputePhase::Releasing;
            next.due = Some(now + deadlines::COMPUTE_RETRY);
        }
        ComputePhase::Gone if next.sessions.is_empty() => next.due = None,
        _ => {}
    }
    next
}

/// A driver's observation of a compute resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    Up,
    Gone,
}

/// Takes in what the driver saw. `None` if it changes nothing: it came late, or twice.
///
/// The sessions on a resource that is gone stay in its set until each has left it, so that a crash
/// after this step forgets none of them. The caller tells every session in the set, also after
/// `None`.
pub fn observe(compute: &Compute, seen: Seen) -> Option<Compute> {
    let mut next = compute.clone();
    match (compute.phase, seen) {
        (ComputePhase::Requested, Seen::Up) => next.phase = ComputePhase::Up,
        (ComputePhase::Requested | ComputePhase::Up | ComputePhase::Draining | ComputePhase::Releasing, Seen::Gone) => {
            next.phase = ComputePhase::Gone;
        }
        _ => return None,
    }
    // One that is up and in use is looked after through its sessions; one that is gone needs nobody
    // once they all know.
    next.due = match next.phase {
        ComputePhase::Gone => (!next.sessions.is_empty()).then_some(0),
        _ => next.shutdown.map(IdleShutdown::look_at),
    };
    Some(next)
}

/// The next act for a compute resource whose due time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chase {
    /// Ask its driver for it again.
    Create,
    /// [`look`] whether it is idle.
    Look,
    /// Have the sessions on it stopped, with the reason that [`Compute::drained`] says.
    StopSessions,
    /// Ask its driver for its deletion again. Of one that is gone the driver says so again, and the
    /// sessions that have not been told are told.
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
        ComputePhase::Up if compute.shutdown.is_some() => Chase::Look,
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
    use crate::Code;

    fn slot() -> Slot {
        Slot {
            workspace: "ws".into(),
            owner: "alice".into(),
            size: "local".into(),
            identity: None,
            instance: None,
        }
    }

    fn instance() -> Slot {
        Slot {
            instance: Some("mine".into()),
            ..slot()
        }
    }

    #[test]
    fn an_instance_outlives_its_sessions_and_is_started_by_its_user_alone() {
        let slot = instance();
        assert_eq!(join(None, "a", 0), None);
        let started = start(None, &slot, None, "c1", 0).unwrap();
        assert_eq!((started.phase, started.sessions.len()), (ComputePhase::Requested, 0));
        assert_eq!(start(Some(&started), &slot, None, "c2", 1), None);
        let up = observe(&started, Seen::Up).unwrap();
        assert_eq!(up.due, None);
        let used = join(Some(&up), "a", 3).unwrap();
        assert_eq!(leave(&used, "a", 4, 5), up);
        let why = || Failure::new(Code::SessionStopped, "");
        assert_eq!(drain(&used, why(), 6).unwrap().phase, ComputePhase::Draining);
        let releasing = drain(&up, why(), 6).unwrap();
        assert_eq!(releasing.phase, ComputePhase::Releasing);
        let none = (
            join(Some(&releasing), "a", 7),
            start(Some(&releasing), &slot, None, "c2", 7),
        );
        assert_eq!(none, (None, None));
        let gone = observe(&releasing, Seen::Gone).unwrap();
        assert_eq!(start(Some(&gone), &slot, None, "c2", 8).unwrap().id, "c2");
    }

    #[test]
    fn an_instance_is_shut_down_once_nothing_has_used_it_for_its_time() {
        let why = || Failure::new(Code::SessionStopped, "");
        let started = start(None, &instance(), Some(100), "c1", 0).unwrap();
        let up = observe(&started, Seen::Up).unwrap();
        assert_eq!(up.due, Some(75));
        let used = join(Some(&up), "a", 50).unwrap();
        assert_eq!((used.due, chase(&used, 124)), (Some(125), None));
        assert_eq!(chase(&used, 125).unwrap().1, Chase::Look);
        // Its user is warned, unless it is in use.
        let busy = look(&used, Some(50), true, why(), 125);
        assert_eq!(
            (busy.due, busy.shutdown),
            (Some(125 + deadlines::COMPUTE_RETRY), used.shutdown)
        );
        let warned = look(&used, Some(50), false, why(), 125);
        assert_eq!((warned.due, warned.shutdown.unwrap().is_warned()), (Some(150), true));
        let again = join(Some(&warned), "b", 140).unwrap();
        assert_eq!((again.due, again.shutdown.unwrap().is_warned()), (Some(215), false));
        // Its session was used since: put off.
        let put_off = look(&used, Some(120), false, why(), 150);
        assert_eq!((put_off.due, put_off.is_idle(150)), (Some(195), false));
        // Idle: the session goes first, and while it is busy that is not now.
        for busy in [false, true] {
            let idle = look(&put_off, Some(120), busy, why(), 220);
            assert_eq!((idle.phase, idle.is_idle(220)), (ComputePhase::Up, true));
            assert_eq!(idle.due, Some(220 + deadlines::COMPUTE_RETRY));
        }
        // What left it was a use, until its last activity.
        let left = leave(&put_off, "a", 130, 225);
        assert_eq!((left.phase, left.due), (ComputePhase::Up, Some(205)));
        let releasing = look(&left, None, false, why(), 230);
        assert_eq!(
            (releasing.phase, releasing.drained),
            (ComputePhase::Releasing, Some(why()))
        );
    }

    #[test]
    fn another_idle_shutdown_of_an_instance_counts_at_once_and_from_its_last_use() {
        let up = observe(&start(None, &instance(), Some(100), "c1", 0).unwrap(), Seen::Up).unwrap();
        let used = join(Some(&up), "a", 50).unwrap();
        assert_eq!(set_idle_shutdown(&used, Some(30), 60).due, Some(73));
        let never = set_idle_shutdown(&used, None, 60);
        assert_eq!((never.due, never.shutdown, never.is_idle(1_000)), (None, None, false));
        assert_eq!(set_idle_shutdown(&never, Some(30), 200).due, Some(223));
        let requested = start(None, &instance(), None, "c1", 0).unwrap();
        assert_eq!(
            set_idle_shutdown(&requested, Some(30), 10).due,
            requested.due,
            "its driver is still asked"
        );
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
        let one = leave(&both, "a", 0, 5);
        assert_eq!(one.phase, ComputePhase::Requested);
        let none = leave(&one, "b", 0, 5);
        assert_eq!(none.phase, ComputePhase::Releasing);
        assert_eq!(claim(Some(&none), &slot(), "a", "c2", 6).id, "c2");
    }

    #[test]
    fn a_draining_one_takes_no_session_and_is_released_by_the_last_that_leaves() {
        let both = claim(Some(&claim(None, &slot(), "a", "c1", 0)), &slot(), "b", "-", 0);
        let why = Failure::new(Code::SessionStopped, "");
        let draining = drain(&observe(&both, Seen::Up).unwrap(), why.clone(), 5).unwrap();
        assert_eq!(drain(&draining, Failure::new(Code::SessionCanceled, ""), 6), None);
        assert_eq!(claim(Some(&draining), &slot(), "c", "c2", 6).id, "c2");
        let (chased, ask) = chase(&draining, 5 + deadlines::COMPUTE_RETRY).unwrap();
        assert_eq!((ask, chased.drained), (Chase::StopSessions, Some(why)));
        assert_eq!(observe(&draining, Seen::Up), None);
        let one = leave(&draining, "a", 0, 7);
        assert_eq!((one.phase, one.due), (ComputePhase::Draining, draining.due));
        let none = leave(&one, "b", 0, 8);
        assert_eq!(none.phase, ComputePhase::Releasing);
        assert_eq!(drain(&none, Failure::new(Code::SessionCanceled, ""), 9), None);
        // One that its driver loses meanwhile takes its sessions with it.
        assert_eq!(observe(&draining, Seen::Gone).unwrap().phase, ComputePhase::Gone);
    }

    #[test]
    fn what_is_not_final_and_not_in_use_is_due() {
        let c = claim(None, &slot(), "a", "c1", 0);
        assert_eq!(chase(&c, deadlines::COMPUTE_RETRY).unwrap().1, Chase::Create);
        let up = observe(&c, Seen::Up).unwrap();
        assert_eq!(up.due, None);
        let releasing = leave(&up, "a", 0, 10);
        assert_eq!(
            chase(&releasing, 10 + deadlines::COMPUTE_RETRY).unwrap().1,
            Chase::Delete
        );
        let gone = observe(&releasing, Seen::Gone).unwrap();
        assert_eq!((gone.phase, gone.due), (ComputePhase::Gone, None));
        assert_eq!(observe(&gone, Seen::Gone), None);
    }
}
