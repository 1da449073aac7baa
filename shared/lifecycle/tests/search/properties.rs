//! The invariants, as named properties: of one decision, and of a whole world.
//!
//! The numbers are those of the list in the design. What the core does not carry (11 and 12:
//! credentials and roles) is tested elsewhere.

use super::world::{Core, DAILY, Decided, Execution, Flow, IDLE, NOW, Row, World, name_of};
use lifecycle::{
    compute::ComputePhase,
    session::{self, Effect, Event, Kind, Lease, Operation, Phase, Session, Settings, Step},
};

/// A property that does not hold, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) property: &'static str,
    pub(crate) what: String,
}

pub(crate) const ONE_SESSION: &str = "1 a flow has at most one live container";
pub(crate) const ONE_COMPUTE: &str = "2 a session is on at most one compute resource, and both rows say so";
pub(crate) const ONE_USER: &str = "3 a compute resource has one user";
pub(crate) const ONE_CONTAINER: &str = "4a a generation has at most one container";
pub(crate) const NOTHING_OLDER: &str = "4b nothing older changes what is newer";
pub(crate) const COMPUTE_LASTS_AS_LONG_AS_ITS_SESSIONS: &str =
    "5 a compute resource lasts as long as a session needs it, and no longer";
pub(crate) const DRAINING_TAKES_NONE: &str = "5a a compute resource that is to be deleted takes no session";
pub(crate) const DRAIN_ENDS: &str =
    "5b a compute resource that is to be deleted is deleted within its bound, without anybody's stop";
pub(crate) const ONE_INSTANCE: &str = "5c a compute instance is there at most once";
pub(crate) const DAILY_COUNTED: &str = "5d the time of the day that is counted is the time that the sessions lived";
pub(crate) const DAILY_REFUSED: &str = "5e no session gets a compute resource once the time of the day is used up";
pub(crate) const DAILY_STOP: &str = "5f a session is stopped for the time of the day only once that is used up";
pub(crate) const DAILY_ENDS: &str = "5g sessions are stopped within their bound once the time of the day is used up";
pub(crate) const NO_IDLE_STOP_IN_USE: &str = "6 no idle stop under a live lease or after newer activity";
pub(crate) const ALWAYS_DUE: &str = "7a what is not final is due, and looking after it moves the due time";
pub(crate) const STOP_IS_TAKEN: &str = "7b a stop is accepted in every phase";
pub(crate) const STOP_ENDS: &str = "7c a stop ends in Stopped within its bound, and leaves nothing";
pub(crate) const TWICE_IS_ONCE: &str = "8 the same again changes nothing";
pub(crate) const NOTHING_IS_LOST: &str = "9a what was acknowledged has an end, or somebody works on it";
pub(crate) const TOKENS_ARE_ANSWERED: &str = "9b a step that waits is known to somebody who will answer it";
pub(crate) const OBSERVED: &str = "10 Ready and Stopped are reported when observed";
pub(crate) const WARNED_ONCE: &str =
    "a deletion for idleness is warned of once, before it, and only while it is still to come";
pub(crate) const CHANGED_IN_PLACE: &str =
    "a change in place leaves compute resource and base image of what runs as they are";
pub(crate) const GOES_ON: &str = "a session is taken down for another one only after that was found to be possible";
pub(crate) const WELL_FORMED: &str = "phase, operation, compute resource, runs and failure of a session go together";
pub(crate) const FORWARD: &str = "generation, revision and activity only move forward";

/// The number of properties.
#[allow(dead_code, reason = "one of the tests that share this counts them")]
pub(crate) const COUNT: usize = 26;

/// Checks one decision.
pub(crate) fn of_decision(core: &Core, flow: &Flow, event: &Event, decided: &Decided) -> Option<Broken> {
    let before = &flow.session;
    let Ok((after, effects)) = decided else {
        let stop = matches!(event, Event::Wanted { operation } if operation.kind == Kind::Stop);
        return broken(stop, STOP_IS_TAKEN, || {
            format!("{event:?} is refused in {:?}", before.phase)
        });
    };
    let changed = !same(before, after);
    broken(is_older(before, event) && changed, NOTHING_OLDER, || {
        format!("{event:?} changes {}", short(before))
    })
    .or_else(|| no_idle_stop_in_use(before, after, event))
    .or_else(|| warned_once(before, after, event, effects))
    .or_else(|| changed_in_place(before, after, effects))
    .or_else(|| goes_on(before, after, event))
    .or_else(|| twice_is_once(core, after, event))
    .or_else(|| {
        let ready = before.phase != Phase::Ready && after.phase == Phase::Ready;
        broken(ready && !flow.installed.contains(&after.generation), OBSERVED, || {
            format!("{event:?} makes it Ready")
        })
    })
    .or_else(|| {
        let forward = after.generation >= before.generation && after.last_activity >= before.last_activity;
        let counted = after.revision == before.revision + 1 || !changed && effects.is_empty();
        broken(!forward || !counted, FORWARD, || {
            format!("{event:?}: {} becomes {}", short(before), short(after))
        })
    })
}

/// Whether an event belongs to a generation, an operation, an attempt or a compute resource that is
/// not the session's present one.
fn is_older(s: &Session, event: &Event) -> bool {
    let runs = |id: &String| s.current.as_ref().is_some_and(|o| o.id == *id);
    match event {
        Event::SessionUp { generation, .. }
        | Event::SessionGone { generation, .. }
        | Event::Alive { generation, .. }
        | Event::RunDone { generation, .. }
        | Event::Activity { generation }
        | Event::ImageSeen { generation, .. }
        | Event::IdleSeen { generation, .. }
        | Event::IdleNear { generation, .. }
        | Event::DailyTimeNear { generation, .. }
        | Event::DailyTimeUsedUp { generation, .. } => *generation != s.generation,
        Event::Installed {
            generation,
            operation,
            attempt,
            ..
        }
        | Event::InstallFailed {
            generation,
            operation,
            attempt,
            ..
        } => {
            *generation != s.generation || !runs(operation) || s.current.as_ref().is_some_and(|o| o.attempt != *attempt)
        }
        Event::StepEntered { operation, .. } => !runs(operation),
        Event::ImageChecked {
            generation, operation, ..
        } => *generation != s.generation || !runs(operation),
        Event::ComputeUp { compute } | Event::ComputeGone { compute, .. } | Event::ComputeDrained { compute, .. } => {
            s.compute.as_ref() != Some(compute)
        }
        Event::Wanted { .. } | Event::RunWanted { .. } | Event::CancelWanted { .. } | Event::Tick => false,
    }
}

fn no_idle_stop_in_use(before: &Session, after: &Session, event: &Event) -> Option<Broken> {
    let stops = |s: &Session| {
        s.current
            .as_ref()
            .filter(|o| o.kind == Kind::Stop)
            .map(|o| o.id.clone())
    };
    let new = stops(after).filter(|id| Some(id) != stops(before).as_ref())?;
    let live_lease = before
        .runs
        .values()
        .any(|lease| *lease == Lease::Waiting || matches!(lease, Lease::Until(until) if *until > NOW));
    let allowed = match event {
        // Whether the time is used up is another property.
        Event::Wanted { .. } | Event::DailyTimeUsedUp { .. } => true,
        Event::ComputeDrained { compute, .. } => before.compute.as_ref() == Some(compute),
        Event::IdleSeen { activity, why, .. } => {
            // The compute instance has an idle time of its own.
            let idle = why.as_ref().map_or(before.settings.idle.value, |_| IDLE);
            !live_lease && *activity == before.last_activity && NOW >= before.last_activity + idle
        }
        // A stop that waited is begun; there is none.
        _ => false,
    };
    broken(!allowed, NO_IDLE_STOP_IN_USE, || {
        format!("{event:?} begins {new} on {}", short(before))
    })
}

fn warned_once(before: &Session, after: &Session, event: &Event, effects: &[Effect]) -> Option<Broken> {
    let said: Vec<&Effect> = effects
        .iter()
        .filter(|e| matches!(e, Effect::Message(session::Message::WarnIdle { .. })))
        .collect();
    let deletion = before.last_activity + before.settings.idle.value;
    let in_use = before.phase != Phase::Ready || before.current.is_some() || !before.runs.is_empty();
    let right = match (said.as_slice(), event) {
        ([], _) => true,
        ([Effect::Message(session::Message::WarnIdle { generation, due })], Event::IdleNear { due: seen, .. }) => {
            let still_to_come =
                *generation == before.generation && *due == deletion && *seen == deletion && NOW < deletion;
            still_to_come && !in_use && before.warned != Some(deletion) && after.warned == Some(deletion)
        }
        _ => false,
    };
    broken(!right, WARNED_ONCE, || {
        format!("{event:?} says {said:?} of {}", short(before))
    })
}

fn changed_in_place(before: &Session, after: &Session, effects: &[Effect]) -> Option<Broken> {
    let compute = |s: &Session| {
        let Settings {
            size,
            identity,
            compute,
            ..
        } = &s.settings;
        (size.value.clone(), identity.value.clone(), compute.value.clone())
    };
    let stays = before.generation == after.generation && after.compute.is_some();
    let moved = stays && compute(before) != compute(after);
    let image = after.image.as_ref().map(|image| &image.value);
    let swapped = effects.iter().find(|e| match e {
        Effect::Message(session::Message::LaunchSession { settings, .. })
        | Effect::Message(session::Message::AgentInstall { settings, .. }) => settings.image.value.as_ref() != image,
        _ => false,
    });
    broken(moved || swapped.is_some(), CHANGED_IN_PLACE, || {
        format!(
            "{} with {:?} becomes {} with {:?}, {swapped:?}",
            short(before),
            before.settings,
            short(after),
            after.settings
        )
    })
}

fn goes_on(before: &Session, after: &Session, event: &Event) -> Option<Broken> {
    let is_anew = |s: &Session| {
        let current = s.current.as_ref();
        current.is_some_and(|o| matches!(o.kind, Kind::Reset | Kind::Update))
    };
    let is_taken_down = before.phase == Phase::Ready && after.phase == Phase::Stopping && is_anew(after);
    let is_found = matches!(event, Event::ImageChecked { failure: None, .. })
        || matches!(
            event,
            Event::StepEntered {
                step: Step::StopSession,
                cause: None,
                image: None,
                ..
            }
        );
    broken(is_taken_down && !is_found, GOES_ON, || {
        format!("{event:?} makes {} of {}", short(after), short(before))
    })
}

fn twice_is_once(core: &Core, after: &Session, event: &Event) -> Option<Broken> {
    // A command that has ended or joined has its row, and is not decided on again.
    let known = |id: &String| [&after.current, &after.next].into_iter().flatten().any(|o| o.id == *id);
    match event {
        Event::Wanted { operation } if !known(&operation.id) => return None,
        Event::RunWanted { run, .. } if !after.runs.contains_key(run) => return None,
        _ => {}
    }
    let (twice, effects) = (core.decide)(after, event, NOW).ok()?;
    let harmless = |e: &Effect| {
        matches!(
            e,
            Effect::Message(session::Message::AnswerStep { .. })
                | Effect::Message(session::Message::RemoveSession { .. })
                | Effect::Message(session::Message::AgentLease { .. })
                | Effect::Message(session::Message::AgentCancelRun { .. })
        )
    };
    broken(
        !same(after, &twice) || !effects.iter().all(harmless),
        TWICE_IS_ONCE,
        || {
            format!(
                "{event:?} again on {} gives {} and {effects:?}",
                short(after),
                short(&twice)
            )
        },
    )
}

/// Checks a whole world.
pub(crate) fn of_world(core: &Core, world: &World) -> Option<Broken> {
    let flows = || world.flows.iter().map(|flow| &**flow).enumerate();
    flows()
        .find_map(|(f, flow)| of_flow(core, world, f, flow))
        .or_else(|| of_computes(world))
}

fn of_flow(core: &Core, world: &World, f: usize, flow: &Flow) -> Option<Broken> {
    let s = &flow.session;
    let live = s.phase.is_live();
    broken(flow.containers.len() > 1, ONE_SESSION, || {
        format!("{:?}", flow.containers)
    })
    .or_else(|| {
        let on: Vec<&String> = world
            .computes
            .rows
            .values()
            .filter(|row| row.sessions.contains(&s.flow))
            .map(|row| &row.id)
            .collect();
        broken(on != s.compute.iter().collect::<Vec<_>>(), ONE_COMPUTE, || {
            format!("{} is in the sets of {on:?}", short(s))
        })
    })
    .or_else(|| {
        broken(!live && !flow.containers.is_empty(), OBSERVED, || {
            format!("{} with {:?}", short(s), flow.containers)
        })
    })
    .or_else(|| {
        let formed = match s.phase {
            // With an operation, as long as it is not known whether that can succeed.
            Phase::Ready => {
                let is_checked = |o: &Operation| matches!(o.kind, Kind::Reset | Kind::Update) && s.deadline.is_some();
                s.current.as_ref().is_none_or(is_checked) && s.failure.is_none()
            }
            Phase::Stopped => at_rest(s) && s.failure.is_none(),
            Phase::Failed => at_rest(s) && s.failure.is_some(),
            Phase::Stopping => s.current.is_some(),
            _ => s.current.is_some() && s.failure.is_none(),
        };
        let fresh = |o: &Operation| o.token.is_none() && o.other_tokens.is_empty() && o.kind != Kind::Stop;
        let formed = formed && (s.next.is_none() || s.current.is_some()) && s.next.as_ref().is_none_or(fresh);
        broken(!formed, WELL_FORMED, || format!("{s:?}"))
    })
    .or_else(|| always_due(core, s))
    .or_else(|| {
        let stop = Event::Wanted {
            operation: Operation::new("probe", Kind::Stop, None),
        };
        let taken = match (core.decide)(s, &stop, NOW) {
            Ok((after, _)) => matches!(after.phase, Phase::Stopping | Phase::Stopped) && after.next.is_none(),
            Err(_) => false,
        };
        broken(!taken, STOP_IS_TAKEN, || format!("not on {}", short(s)))
    })
    .or_else(|| nothing_is_lost(flow))
    .or_else(|| tokens_are_answered(world, f, flow))
}

fn at_rest(s: &Session) -> bool {
    s.current.is_none() && s.next.is_none() && s.compute.is_none() && s.runs.is_empty() && s.alive_until.is_none()
}

fn always_due(core: &Core, s: &Session) -> Option<Broken> {
    let Some(due) = (core.due)(s) else {
        return broken(s.phase.is_live(), ALWAYS_DUE, || {
            format!("nobody looks after {}", short(s))
        });
    };
    if due > NOW {
        return None;
    }
    let idle = (core.idle_due)(s).is_some_and(|due| NOW >= due);
    let near = (core.warning_due)(s).is_some_and(|from| NOW >= from);
    let event = match (idle, near) {
        (true, _) => Event::IdleSeen {
            operation: "probe".into(),
            generation: s.generation,
            activity: s.last_activity,
            why: None,
        },
        (false, true) => Event::IdleNear {
            generation: s.generation,
            due: s.last_activity + s.settings.idle.value,
        },
        (false, false) => Event::Tick,
    };
    let (after, _) = (core.decide)(s, &event, NOW).ok()?;
    let moved = (core.due)(&after).is_none_or(|due| due > NOW || idle);
    broken(!moved || same(s, &after), ALWAYS_DUE, || {
        format!("{event:?} leaves {} due", short(s))
    })
}

fn nothing_is_lost(flow: &Flow) -> Option<Broken> {
    let s = &flow.session;
    let worked_on = |id: &str| [&s.current, &s.next].into_iter().flatten().any(|o| o.id == id);
    for (id, row) in &flow.operations {
        let kept = match row {
            Row::Open => worked_on(id),
            Row::Joined(to) => flow.has_ended(id) || worked_on(to),
            Row::Ended(_) => !worked_on(id),
        };
        if !kept {
            return broken(true, NOTHING_IS_LOST, || format!("{id} is {row:?} while {}", short(s)));
        }
    }
    for (id, end) in &flow.runs {
        if end.is_none() != s.runs.contains_key(id) {
            return broken(true, NOTHING_IS_LOST, || {
                format!("the run {id} has the end {end:?} while {}", short(s))
            });
        }
    }
    let started = |o: &Operation| {
        let will_be = |e: &Effect| matches!(e, Effect::Message(session::Message::StartExecution { operation, .. }) if *operation == o.id);
        flow.executions.contains_key(&o.id) || flow.outbox.iter().any(will_be)
    };
    let unstarted = s.current.as_ref().filter(|o| !started(o));
    broken(unstarted.is_some(), NOTHING_IS_LOST, || {
        format!("nobody starts the execution of {}", short(s))
    })
}

fn tokens_are_answered(world: &World, f: usize, flow: &Flow) -> Option<Broken> {
    for execution in flow.executions.values() {
        let Execution::Waiting {
            token, cut_off: false, ..
        } = execution
        else {
            continue;
        };
        let comes = world
            .bag
            .iter()
            .any(|m| matches!(m, super::world::Message::Step { flow, token: t, .. } if *flow == f && t == token));
        let parked = flow
            .session
            .current
            .as_ref()
            .is_some_and(|o| o.token.as_ref() == Some(token) || o.other_tokens.contains(token));
        let answered = flow
            .outbox
            .iter()
            .any(|e| matches!(e, Effect::Message(session::Message::AnswerStep { token: t, .. }) if t == token));
        if !(comes || parked || answered) {
            return broken(true, TOKENS_ARE_ANSWERED, || {
                format!("nobody will answer {token} while {}", short(&flow.session))
            });
        }
    }
    None
}

fn of_computes(world: &World) -> Option<Broken> {
    let counted = world.computes.usage.lived(NOW).min(DAILY);
    if counted != world.computes.lived {
        return broken(true, DAILY_COUNTED, || {
            format!("{counted} ms are counted of {} ms", world.computes.lived)
        });
    }
    let rows = || world.computes.rows.values();
    let instances = rows().filter(|row| row.slot.instance.is_some() && row.phase != ComputePhase::Gone);
    if instances.count() > 1 {
        return broken(true, ONE_INSTANCE, || format!("{:?}", world.computes.rows));
    }
    for row in rows() {
        for (f, flow) in world.flows.iter().enumerate() {
            let is_on = row.sessions.contains(&name_of(f)) || flow.containers.iter().any(|c| c.compute == row.id);
            if is_on && flow.session.owner != row.slot.owner {
                return broken(true, ONE_USER, || {
                    format!(
                        "{} of {} has a session of {}",
                        row.id, row.slot.owner, flow.session.owner
                    )
                });
            }
        }
        let in_use = matches!(
            row.phase,
            ComputePhase::Requested | ComputePhase::Up | ComputePhase::Draining
        );
        let is_instance = row.slot.instance.is_some();
        let kept = match row.phase {
            ComputePhase::Requested | ComputePhase::Up if is_instance => true,
            ComputePhase::Requested | ComputePhase::Up | ComputePhase::Draining => !row.sessions.is_empty(),
            // An instance goes when its user says so, and not with a session.
            ComputePhase::Releasing => row.sessions.is_empty() && (!is_instance || row.drained.is_some()),
            ComputePhase::Gone => true,
        };
        let under = !in_use
            && world.computes.exist.contains(&row.id)
            && world
                .flows
                .iter()
                .any(|f| f.containers.iter().any(|c| c.compute == row.id));
        if !kept || under {
            return broken(true, COMPUTE_LASTS_AS_LONG_AS_ITS_SESSIONS, || format!("{row:?}"));
        }
        let due = match row.phase {
            ComputePhase::Requested | ComputePhase::Draining | ComputePhase::Releasing => row.due.is_some(),
            ComputePhase::Up => true,
            ComputePhase::Gone => row.due.is_some() != row.sessions.is_empty(),
        };
        if !due {
            return broken(true, ALWAYS_DUE, || format!("{row:?}"));
        }
    }
    None
}

fn broken(is: bool, property: &'static str, what: impl FnOnce() -> String) -> Option<Broken> {
    is.then(|| Broken { property, what: what() })
}

/// Whether two sessions differ in nothing but how often they were saved.
fn same(a: &Session, b: &Session) -> bool {
    a.phase == b.phase
        && a == &Session {
            revision: a.revision,
            ..b.clone()
        }
}

/// A session on one line.
pub(crate) fn short(s: &Session) -> String {
    let operation = |o: &Option<Operation>| o.as_ref().map_or("-".to_owned(), |o| format!("{}#{}", o.id, o.attempt));
    let (current, next) = (operation(&s.current), operation(&s.next));
    let failed = if s.failure.is_some() { " failing" } else { "" };
    format!(
        "{}: {:?}{failed} g{} on {} runs {current}, then {next}, {} run(s)",
        s.flow,
        s.phase,
        s.generation,
        s.compute.as_deref().unwrap_or("-"),
        s.runs.len()
    )
}
