//! Breaks the core on purpose, property by property, and holds the search to finding each.
//!
//! A property that no broken core violates would be one that the search does not really check. Each
//! test prints the shortest trace.

mod search;

use lifecycle::{
    Failure, Millis,
    compute::{self, Compute, ComputePhase, Slot},
    deadlines,
    quota::{Daily, Quota, Usage, Use},
    session::{Effect, Event, Kind, Lease, Message, Operation, Outcome, Phase, Refusal, Row, Session, Step, decide},
};
use search::{
    properties::{self, *},
    search,
    world::{Bounds, Core, Decided, ON_DAILY, ON_INSTANCE, Wish},
};

const OPERATIONS: [Wish; 5] = [
    Wish::Operation(Kind::Start),
    Wish::Operation(Kind::Stop),
    Wish::Operation(Kind::Install),
    Wish::Operation(Kind::Reset),
    Wish::Run,
];

fn one_flow() -> Bounds {
    Bounds {
        owners: vec!["u"],
        menu: OPERATIONS.to_vec(),
        commands: 2,
        faults: 1,
        activities: 0,
        asks: 0,
        drains: 0,
        starts: 0,
    }
}

fn two_flows(owners: [&'static str; 2]) -> Bounds {
    let menu = OPERATIONS[..2].to_vec();
    Bounds {
        owners: owners.to_vec(),
        menu,
        commands: 2,
        faults: 1,
        activities: 0,
        asks: 0,
        drains: 0,
        starts: 0,
    }
}

fn found(core: Core, bounds: &Bounds, property: &str) {
    let found = search(&core, bounds, 300_000);
    let Some((broken, trace)) = found.broken else {
        panic!(
            "nothing was found in {} states, and this should have been: {property}",
            found.states
        );
    };
    println!(
        "{}\n  {}\n  after\n    {}",
        broken.property,
        broken.what,
        trace.join("\n    ")
    );
    assert_eq!(broken.property, property, "{}", broken.what);
}

fn decides(decide: fn(&Session, &Event, Millis) -> Decided) -> Core {
    Core { decide, ..Core::REAL }
}

/// The effects that are kept.
fn keeping(decided: Decided, keep: impl Fn(&Effect) -> bool) -> Decided {
    decided.map(|(session, effects)| (session, effects.into_iter().filter(keep).collect()))
}

#[test]
fn a_reset_that_does_not_wait_for_the_old_container() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::Wanted { operation } if operation.kind == Kind::Reset && session.phase == Phase::Ready => decide(
                &Session {
                    phase: Phase::Stopped,
                    ..session.clone()
                },
                event,
                now,
            ),
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &one_flow(), ONE_SESSION);
}

fn deleted(bounds: Bounds) -> Bounds {
    Bounds { drains: 1, ..bounds }
}

fn on_daily() -> Bounds {
    Bounds {
        owners: vec![ON_DAILY],
        menu: vec![Wish::Operation(Kind::Start), Wish::Run],
        faults: 0,
        ..one_flow()
    }
}

#[test]
fn a_time_of_the_day_that_is_counted_only_while_the_session_is_there() {
    fn broken(usage: &Usage, flow: &str, now: Millis) -> Option<Usage> {
        let left = usage.leave(flow, now)?;
        Some(Usage { past: None, ..left })
    }
    let core = Core {
        leave_quota: broken,
        ..Core::REAL
    };
    found(core, &on_daily(), DAILY_COUNTED);
}

#[test]
fn a_time_of_the_day_that_bars_no_start() {
    fn broken(
        usage: &Usage,
        flow: &str,
        wanted: &Use,
        quota: &Quota,
        workspace: &str,
        now: Millis,
    ) -> Result<Usage, Failure> {
        let without = Quota {
            daily: None,
            ..quota.clone()
        };
        let entered = usage.enter(flow, wanted, &without, workspace, now)?;
        Ok(entered.watch(quota, now))
    }
    let core = Core {
        enter: broken,
        ..Core::REAL
    };
    found(core, &on_daily(), DAILY_REFUSED);
}

#[test]
fn a_time_of_the_day_that_ends_with_its_warning() {
    fn broken(usage: &Usage, quota: &Quota, now: Millis) -> Option<(Usage, Daily)> {
        usage.look(quota, now).map(|(next, what)| match what {
            Daily::Warn { due } => (next, Daily::Stop { until: due + 1 }),
            what => (next, what),
        })
    }
    let core = Core {
        look_daily: broken,
        ..Core::REAL
    };
    found(core, &on_daily(), DAILY_STOP);
}

#[test]
fn a_time_of_the_day_that_a_run_holds_up() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::DailyTimeUsedUp { .. } if !session.runs.is_empty() => Ok((session.clone(), Vec::new())),
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &on_daily(), DAILY_ENDS);
}

#[test]
fn a_compute_that_is_claimed_while_it_is_deleted() {
    fn broken(in_slot: Option<&Compute>, slot: &Slot, flow: &str, new_id: &str, now: Millis) -> Compute {
        match in_slot {
            Some(compute) if compute.phase == ComputePhase::Draining => {
                let mut next = compute.clone();
                next.sessions.insert(flow.to_owned());
                next
            }
            _ => compute::claim(in_slot, slot, flow, new_id, now),
        }
    }
    found(
        Core {
            claim: broken,
            ..Core::REAL
        },
        &deleted(two_flows(["u", "u"])),
        DRAINING_TAKES_NONE,
    );
}

#[test]
fn a_deleted_compute_whose_sessions_are_told_only_once() {
    fn broken(compute: &Compute, now: Millis) -> Option<(Compute, compute::Chase)> {
        compute::chase(compute, now).map(|(next, ask)| match ask {
            compute::Chase::StopSessions => (next, compute::Chase::Create),
            ask => (next, ask),
        })
    }
    found(
        Core {
            chase: broken,
            ..Core::REAL
        },
        &deleted(one_flow()),
        DRAIN_ENDS,
    );
}

#[test]
fn a_deleted_compute_that_waits_for_the_runs_on_it() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::ComputeDrained { .. } if !session.runs.is_empty() => Ok((session.clone(), Vec::new())),
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &deleted(one_flow()), DRAIN_ENDS);
}

#[test]
fn a_deletion_of_another_compute_that_counts() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match (event, &session.compute) {
            (Event::ComputeDrained { operation, why, .. }, Some(compute)) => {
                let (operation, compute, why) = (operation.clone(), compute.clone(), why.clone());
                let here = Event::ComputeDrained {
                    operation,
                    compute,
                    why,
                };
                decide(session, &here, now)
            }
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &deleted(one_flow()), NOTHING_OLDER);
}

#[test]
fn a_deleted_compute_that_its_last_session_does_not_release() {
    fn broken(compute: &Compute, flow: &str, used: Millis, now: Millis) -> Compute {
        let left = compute::leave(compute, flow, used, now);
        match compute.phase {
            ComputePhase::Draining => Compute {
                phase: ComputePhase::Draining,
                ..left
            },
            _ => left,
        }
    }
    found(
        Core {
            leave: broken,
            ..Core::REAL
        },
        &deleted(one_flow()),
        DRAIN_ENDS,
    );
}

fn on_an_instance(bounds: Bounds) -> Bounds {
    Bounds {
        owners: vec![ON_INSTANCE],
        starts: 1,
        drains: 1,
        ..bounds
    }
}

#[test]
fn an_instance_that_goes_with_its_last_session() {
    fn broken(compute: &Compute, flow: &str, used: Millis, now: Millis) -> Compute {
        let mut serverless = compute.clone();
        serverless.slot.instance = None;
        let left = compute::leave(&serverless, flow, used, now);
        Compute {
            slot: compute.slot.clone(),
            ..left
        }
    }
    found(
        Core {
            leave: broken,
            ..Core::REAL
        },
        &on_an_instance(one_flow()),
        COMPUTE_LASTS_AS_LONG_AS_ITS_SESSIONS,
    );
}

#[test]
fn a_session_that_joins_an_instance_which_stops() {
    fn broken(in_slot: Option<&Compute>, flow: &str, _: Millis) -> Option<Compute> {
        let compute = in_slot.filter(|compute| compute.phase != ComputePhase::Gone)?;
        let mut next = compute.clone();
        next.sessions.insert(flow.to_owned());
        Some(next)
    }
    found(
        Core {
            join: broken,
            ..Core::REAL
        },
        &on_an_instance(one_flow()),
        DRAINING_TAKES_NONE,
    );
}

#[test]
fn an_instance_that_is_started_twice() {
    fn broken(_: Option<&Compute>, slot: &Slot, after: Option<Millis>, new_id: &str, now: Millis) -> Option<Compute> {
        compute::start(None, slot, after, new_id, now)
    }
    let twice = Bounds {
        starts: 2,
        ..on_an_instance(one_flow())
    };
    found(
        Core {
            start: broken,
            ..Core::REAL
        },
        &twice,
        ONE_INSTANCE,
    );
}

#[test]
fn an_idle_shutdown_that_looks_at_no_session() {
    fn broken(compute: &Compute, _: Option<Millis>, _: bool, why: Failure, now: Millis) -> Compute {
        compute::look(compute, None, false, why, now)
    }
    let in_use = Bounds {
        activities: 1,
        ..on_an_instance(one_flow())
    };
    found(
        Core {
            look: broken,
            ..Core::REAL
        },
        &in_use,
        NO_IDLE_STOP_IN_USE,
    );
}

#[test]
fn an_idle_shutdown_under_a_session() {
    fn broken(compute: &Compute, used: Option<Millis>, busy: bool, why: Failure, now: Millis) -> Compute {
        let alone = Compute {
            sessions: Default::default(),
            ..compute.clone()
        };
        Compute {
            sessions: compute.sessions.clone(),
            ..compute::look(&alone, used, busy, why, now)
        }
    }
    found(
        Core {
            look: broken,
            ..Core::REAL
        },
        &on_an_instance(one_flow()),
        COMPUTE_LASTS_AS_LONG_AS_ITS_SESSIONS,
    );
}

#[test]
fn a_switch_that_changes_the_compute_resource_under_what_runs() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (mut after, effects) = decide(session, event, now)?;
        if let Event::Wanted { operation } = event
            && let Some(wants) = operation.wants.as_ref().filter(|_| operation.kind == Kind::Update)
        {
            after.settings.compute = wants.over(&after.settings).compute;
        }
        Ok((after, effects))
    }
    let menu = vec![Wish::Operation(Kind::Start), Wish::Operation(Kind::Update)];
    let bounds = Bounds {
        menu,
        ..on_an_instance(one_flow())
    };
    found(decides(broken), &bounds, CHANGED_IN_PLACE);
}

#[test]
fn a_session_that_leaves_its_compute_and_stays_in_its_set() {
    fn broken(compute: &Compute, _: &str, _: Millis, _: Millis) -> Compute {
        compute.clone()
    }
    found(
        Core {
            leave: broken,
            ..Core::REAL
        },
        &one_flow(),
        ONE_COMPUTE,
    );
}

#[test]
fn a_leave_that_is_not_said() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        keeping(decide(session, event, now), |e| {
            !matches!(e, Effect::Row(Row::LeaveCompute { .. }))
        })
    }
    found(decides(broken), &one_flow(), ONE_COMPUTE);
}

#[test]
fn a_compute_of_another_user_that_is_claimed() {
    fn broken(session: &Session) -> Slot {
        Slot {
            owner: "u".into(),
            ..session.slot()
        }
    }
    found(
        Core {
            slot: broken,
            ..Core::REAL
        },
        &two_flows(["u", "v"]),
        ONE_USER,
    );
}

#[test]
fn a_launch_that_is_sent_again_to_another_compute() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (session, mut effects) = decide(session, event, now)?;
        for effect in &mut effects {
            if let Effect::Message(Message::LaunchSession { compute, .. }) = effect
                && session.current.as_ref().is_some_and(|o| o.attempt > 2)
            {
                *compute = "another".into();
            }
        }
        Ok((session, effects))
    }
    found(decides(broken), &one_flow(), ONE_CONTAINER);
}

#[test]
fn an_end_that_counts_for_whatever_generation_there_is() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::SessionGone { failure, .. } => decide(
                session,
                &Event::SessionGone {
                    generation: session.generation,
                    failure: failure.clone(),
                },
                now,
            ),
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &one_flow(), NOTHING_OLDER);
}

#[test]
fn an_install_whose_attempt_is_not_looked_at() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match (event, &session.current) {
            (
                Event::Installed {
                    generation,
                    operation,
                    warning,
                    ..
                },
                Some(current),
            ) => {
                let (generation, operation, warning) = (*generation, operation.clone(), warning.clone());
                decide(
                    session,
                    &Event::Installed {
                        generation,
                        operation,
                        attempt: current.attempt,
                        warning,
                    },
                    now,
                )
            }
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &one_flow(), NOTHING_OLDER);
}

#[test]
fn a_compute_that_nobody_releases() {
    fn broken(compute: &Compute, flow: &str, used: Millis, now: Millis) -> Compute {
        let left = compute::leave(compute, flow, used, now);
        Compute {
            phase: compute.phase,
            due: compute.due,
            ..left
        }
    }
    found(
        Core {
            leave: broken,
            ..Core::REAL
        },
        &one_flow(),
        COMPUTE_LASTS_AS_LONG_AS_ITS_SESSIONS,
    );
}

#[test]
fn a_compute_that_is_released_while_another_session_is_on_it() {
    fn broken(compute: &Compute, flow: &str, used: Millis, now: Millis) -> Compute {
        let left = compute::leave(compute, flow, used, now);
        Compute {
            phase: ComputePhase::Releasing,
            due: Some(now + 1),
            ..left
        }
    }
    found(
        Core {
            leave: broken,
            ..Core::REAL
        },
        &two_flows(["u", "u"]),
        COMPUTE_LASTS_AS_LONG_AS_ITS_SESSIONS,
    );
}

#[test]
fn a_compute_that_is_left_before_the_container_is_gone() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (mut after, mut effects) = decide(session, event, now)?;
        if after.phase == Phase::Stopping
            && let Some(compute) = after.compute.take()
        {
            effects.push(Effect::Row(Row::LeaveCompute { compute }));
        }
        Ok((after, effects))
    }
    found(decides(broken), &one_flow(), COMPUTE_LASTS_AS_LONG_AS_ITS_SESSIONS);
}

#[test]
fn an_idle_stop_that_does_not_look_at_leases() {
    fn idle(session: &Session) -> Option<Millis> {
        Session {
            runs: Default::default(),
            ..session.clone()
        }
        .idle_due()
    }
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::IdleSeen { .. } => {
                let (mut after, effects) = decide(
                    &Session {
                        runs: Default::default(),
                        ..session.clone()
                    },
                    event,
                    now,
                )?;
                after.runs = session.runs.clone();
                Ok((after, effects))
            }
            _ => decide(session, event, now),
        }
    }
    found(
        Core {
            idle_due: idle,
            ..decides(broken)
        },
        &one_flow(),
        NO_IDLE_STOP_IN_USE,
    );
}

#[test]
fn an_idle_stop_that_does_not_look_for_newer_activity() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::IdleSeen {
                operation, generation, ..
            } if session.phase == Phase::Ready && *generation == session.generation => decide(
                session,
                &Event::Wanted {
                    operation: Operation::new(operation, Kind::Stop, None),
                },
                now,
            ),
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &one_flow(), NO_IDLE_STOP_IN_USE);
}

/// One flow whose settings change.
fn changing() -> Bounds {
    Bounds {
        menu: vec![
            Wish::Operation(Kind::Start),
            Wish::Change,
            Wish::Operation(Kind::Install),
        ],
        commands: 3,
        ..one_flow()
    }
}

#[test]
fn a_warning_that_is_said_whatever_the_sweep_saw() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::IdleNear { generation, .. } if session.phase == Phase::Ready => {
                let due = session.last_activity + session.settings.idle.value;
                let generation = *generation;
                decide(session, &Event::IdleNear { generation, due }, now)
            }
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &changing(), WARNED_ONCE);
}

#[test]
fn a_warning_that_nobody_remembers() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (after, effects) = decide(session, event, now)?;
        Ok((Session { warned: None, ..after }, effects))
    }
    found(decides(broken), &one_flow(), ALWAYS_DUE);
}

#[test]
fn a_new_size_that_is_set_under_what_runs() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (mut after, effects) = decide(session, event, now)?;
        if let Event::Wanted { operation } = event
            && let Some(wants) = operation.wants.as_ref().filter(|_| operation.kind == Kind::Update)
        {
            after.settings = wants.over(&after.settings);
        }
        Ok((after, effects))
    }
    let menu = vec![Wish::Operation(Kind::Start), Wish::Operation(Kind::Update)];
    found(decides(broken), &Bounds { menu, ..one_flow() }, CHANGED_IN_PLACE);
}

#[test]
fn an_install_that_swaps_the_base_image() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (after, mut effects) = decide(session, event, now)?;
        for effect in &mut effects {
            if let Effect::Message(Message::AgentInstall { settings, .. }) = effect {
                let image = &mut settings.image.value;
                *image = after.settings.image.value.clone().or(image.take());
            }
        }
        Ok((after, effects))
    }
    found(decides(broken), &changing(), CHANGED_IN_PLACE);
}

#[test]
fn a_warning_that_is_put_off_for_ever() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::IdleNear { .. } => Ok((session.clone(), Vec::new())),
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &one_flow(), ALWAYS_DUE);
}

#[test]
fn a_phase_without_a_deadline() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (after, effects) = decide(session, event, now)?;
        let deadline = after.deadline.filter(|_| after.phase != Phase::Launching);
        Ok((Session { deadline, ..after }, effects))
    }
    found(decides(broken), &one_flow(), ALWAYS_DUE);
}

#[test]
fn a_compute_that_nobody_looks_after_while_it_is_released() {
    fn broken(compute: &Compute, flow: &str, used: Millis, now: Millis) -> Compute {
        Compute {
            due: None,
            ..compute::leave(compute, flow, used, now)
        }
    }
    found(
        Core {
            leave: broken,
            ..Core::REAL
        },
        &one_flow(),
        ALWAYS_DUE,
    );
}

#[test]
fn a_stop_that_is_refused_while_a_container_starts() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::Wanted { operation } if operation.kind == Kind::Stop && session.phase == Phase::Launching => {
                Err(Refusal::NoSession(Kind::Stop))
            }
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &one_flow(), STOP_IS_TAKEN);
}

#[test]
fn a_stop_that_asks_the_driver_only_once() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::Tick if session.phase == Phase::Stopping && session.deadline.is_some_and(|at| now >= at) => {
                let deadline = Some(now + deadlines::STOPPING);
                Ok((
                    Session {
                        deadline,
                        revision: session.revision + 1,
                        ..session.clone()
                    },
                    Vec::new(),
                ))
            }
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &one_flow(), STOP_ENDS);
}

#[test]
fn a_compute_whose_deletion_is_asked_for_only_once() {
    fn broken(compute: &Compute, now: Millis) -> Option<(Compute, compute::Chase)> {
        compute::chase(compute, now).map(|(next, _)| (next, compute::Chase::Create))
    }
    found(
        Core {
            chase: broken,
            ..Core::REAL
        },
        &one_flow(),
        STOP_ENDS,
    );
}

#[test]
fn a_step_that_is_done_again_each_time_its_message_comes() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let mut forgetful = session.clone();
        if let (Event::StepEntered { .. }, Some(current)) = (event, &mut forgetful.current) {
            current.token = None;
        }
        decide(&forgetful, event, now)
    }
    found(decides(broken), &one_flow(), TWICE_IS_ONCE);
}

#[test]
fn an_operation_that_a_stop_takes_the_place_of_and_nobody_ends() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let canceled = |e: &Effect| {
            matches!(
                e,
                Effect::Row(Row::OperationEnded {
                    outcome: Outcome::Canceled,
                    ..
                })
            )
        };
        keeping(decide(session, event, now), |e| !canceled(e))
    }
    found(decides(broken), &one_flow(), NOTHING_IS_LOST);
}

#[test]
fn a_run_that_waits_and_is_forgotten_when_the_start_fails() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (mut after, effects) = decide(session, event, now)?;
        if after.phase == Phase::Stopping && after.failure.is_some() {
            after.runs.retain(|_, lease| *lease != Lease::Waiting);
        }
        Ok((after, effects))
    }
    found(decides(broken), &one_flow(), NOTHING_IS_LOST);
}

#[test]
fn an_outbox_that_is_not_saved() {
    found(
        Core {
            saves_outbox: false,
            ..Core::REAL
        },
        &one_flow(),
        NOTHING_IS_LOST,
    );
}

#[test]
fn a_token_that_is_never_answered() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        keeping(decide(session, event, now), |e| {
            !matches!(e, Effect::Message(Message::AnswerStep { .. }))
        })
    }
    found(decides(broken), &one_flow(), TOKENS_ARE_ANSWERED);
}

#[test]
fn a_late_step_that_takes_the_place_of_the_present_ones_token() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (mut after, effects) = decide(session, event, now)?;
        if let (
            Event::StepEntered {
                step: Step::ClaimCompute,
                ..
            },
            Phase::Launching,
            Some(current),
        ) = (event, session.phase, &mut after.current)
        {
            current.token = None;
        }
        Ok((after, effects))
    }
    found(decides(broken), &one_flow(), TOKENS_ARE_ANSWERED);
}

#[test]
fn a_second_token_of_a_step_that_takes_the_place_of_the_first() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (mut after, effects) = decide(session, event, now)?;
        if let Some(current) = &mut after.current {
            current.other_tokens.clear();
        }
        Ok((after, effects))
    }
    found(decides(broken), &one_flow(), TOKENS_ARE_ANSWERED);
}

#[test]
fn a_session_that_is_ready_when_the_install_is_asked_for() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (after, mut effects) = decide(session, event, now)?;
        match (event, &after.current) {
            (
                Event::StepEntered {
                    step: Step::InstallPackages,
                    ..
                },
                Some(current),
            ) if after.phase == Phase::Installing => {
                let (generation, operation, attempt) = (after.generation, current.id.clone(), current.attempt);
                let (after, more) = decide(
                    &after,
                    &Event::Installed {
                        generation,
                        operation,
                        attempt,
                        warning: None,
                    },
                    now,
                )?;
                effects.extend(more);
                Ok((
                    Session {
                        revision: session.revision + 1,
                        ..after
                    },
                    effects,
                ))
            }
            _ => Ok((after, effects)),
        }
    }
    found(decides(broken), &one_flow(), OBSERVED);
}

#[test]
fn a_session_that_is_stopped_when_the_removal_is_asked_for() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (after, mut effects) = decide(session, event, now)?;
        match (event, &after.current) {
            (
                Event::StepEntered {
                    operation,
                    step: Step::StopSession,
                    ..
                },
                Some(current),
            ) if *operation == current.id && after.phase == Phase::Stopping => {
                let (after, more) = decide(
                    &after,
                    &Event::SessionGone {
                        generation: after.generation,
                        failure: None,
                    },
                    now,
                )?;
                effects.extend(more);
                Ok((
                    Session {
                        revision: session.revision + 1,
                        ..after
                    },
                    effects,
                ))
            }
            _ => Ok((after, effects)),
        }
    }
    found(decides(broken), &one_flow(), OBSERVED);
}

#[test]
fn a_lease_that_is_held_for_ended_without_a_margin() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let early = |until: Millis| until - deadlines::LEASE_MARGIN;
        let alive_until = session.alive_until.map(|until| {
            if matches!(event, Event::Tick) {
                early(until)
            } else {
                until
            }
        });
        let (after, effects) = decide(
            &Session {
                alive_until,
                ..session.clone()
            },
            event,
            now,
        )?;
        let alive_until = if after.phase == session.phase {
            session.alive_until
        } else {
            after.alive_until
        };
        let alive_until = if matches!(event, Event::Tick) {
            alive_until
        } else {
            after.alive_until
        };
        Ok((Session { alive_until, ..after }, effects))
    }
    fn due(session: &Session) -> Option<Millis> {
        let alive_until = session.alive_until.map(|until| until - deadlines::LEASE_MARGIN);
        Session {
            alive_until,
            ..session.clone()
        }
        .due()
    }
    found(Core { due, ..decides(broken) }, &one_flow(), OBSERVED);
}

#[test]
fn a_stop_that_leaves_the_failure_of_the_session_before() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (after, effects) = decide(session, event, now)?;
        let failure = if session.phase == Phase::Failed && after.phase == Phase::Stopped {
            session.failure.clone()
        } else {
            after.failure
        };
        Ok((Session { failure, ..after }, effects))
    }
    found(decides(broken), &one_flow(), WELL_FORMED);
}

#[test]
fn a_session_that_is_taken_down_for_one_that_cannot_be_had() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        match event {
            Event::ImageChecked {
                generation, operation, ..
            } => {
                let found = Event::ImageChecked {
                    generation: *generation,
                    operation: operation.clone(),
                    failure: None,
                };
                decide(session, &found, now)
            }
            _ => decide(session, event, now),
        }
    }
    found(decides(broken), &one_flow(), GOES_ON);
}

#[test]
fn an_activity_that_goes_back() {
    fn broken(session: &Session, event: &Event, now: Millis) -> Decided {
        let (after, effects) = decide(session, event, now)?;
        let back = u64::from(session.phase == Phase::Launching && after.phase == Phase::Installing);
        Ok((
            Session {
                last_activity: after.last_activity - back,
                ..after
            },
            effects,
        ))
    }
    found(decides(broken), &one_flow(), FORWARD);
}

#[test]
fn every_property_has_a_core_that_breaks_it() {
    let words = |text: &'static str| text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let broken: Vec<&str> = words(include_str!("broken_cores_are_found.rs")).collect();
    let declared = include_str!("search/properties.rs")
        .lines()
        .filter(|line| line.starts_with("pub(crate) const ") && line.contains(": &str"));
    let names: Vec<&str> = declared.filter_map(|line| words(line).nth(4)).collect();
    assert_eq!(names.len(), properties::COUNT);
    for name in names {
        assert!(broken.contains(&name), "no core here breaks {name}");
    }
}
