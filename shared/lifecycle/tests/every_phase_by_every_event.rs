//! The whole meaning of the core on one page: every phase, with each operation that can be under
//! way in it, by every event.
//!
//! A block is a phase; in parentheses the operations for which it reads the same. A line is the
//! phase afterwards and the effects, and under it stands on which events. `o` is the operation
//! under way, `n` one that is newly wanted, `r` a run that the session has; `+1` is a new
//! generation, `failing` a session that will be Failed once its container is gone.
//!
//! After a change of the core that is meant: `UPDATE_EXPECT=1 cargo test -p lifecycle --test
//! every_phase_by_every_event`.

use expect_test::expect;
use lifecycle::{
    Code, Failure, Millis, deadlines,
    session::{
        Claimed, EDGES, Effect, Event, Kind, Lease, Meeting, Message, Named, Operation, Origin, Outcome, Phase, Row,
        Session, Settings, Step, decide, meeting,
    },
};
use std::{collections::BTreeSet, fmt::Write};

const NOW: Millis = 100_000_000;

fn settings() -> Settings {
    Settings {
        idle: 60_000.into(),
        ..Settings::new("/flow")
    }
}

fn failure() -> Failure {
    Failure::new(Code::read("Why"), "")
}

/// A session in a phase, with an operation under way that waits in the step of that phase, and with
/// a run.
fn session(phase: Phase, current: Option<Kind>, failing: bool) -> Session {
    let never = Session::never("f", "ws", "alice", settings());
    let live = phase.is_live();
    let is_checking = phase == Phase::Ready && current.is_some();
    let token = Some("t".to_owned());
    let current = current.map(|kind| Operation {
        token,
        attempt: 3,
        ..Operation::new("o", kind, None)
    });
    let sent =
        matches!(phase, Phase::Ready | Phase::Stopping) || current.as_ref().is_some_and(|o| o.kind == Kind::Install);
    let lease = if sent {
        Lease::Until(NOW + deadlines::RUN_LEASE)
    } else {
        Lease::Waiting
    };
    Session {
        generation: 2,
        phase,
        current,
        compute: live.then(|| "c".to_owned()),
        runs: live.then(|| ("r".to_owned(), lease)).into_iter().collect(),
        last_activity: NOW - 1_000,
        alive_until: (live && phase != Phase::Provisioning).then_some(NOW + deadlines::LEASE),
        deadline: (live && (phase != Phase::Ready || is_checking)).then_some(NOW + 1_000),
        failure: (failing || phase == Phase::Failed).then(failure),
        ..never
    }
}

/// Every phase with every operation that can be under way in it.
fn sessions() -> Vec<Session> {
    use {Kind::*, Phase::*};
    let up = [Start, Reset, Update];
    let mut all = Vec::new();
    all.extend(up.map(|kind| session(Provisioning, Some(kind), false)));
    all.extend(up.map(|kind| session(Launching, Some(kind), false)));
    all.extend([Start, Reset, Update, Install].map(|kind| session(Installing, Some(kind), false)));
    all.push(session(Ready, None, false));
    all.extend([Reset, Update].map(|kind| session(Ready, Some(kind), false)));
    all.extend([Stop, Reset, Update].map(|kind| session(Stopping, Some(kind), false)));
    all.extend(up.map(|kind| session(Stopping, Some(kind), true)));
    all.extend([Stopped, Failed].map(|phase| session(phase, None, false)));
    all
}

/// An update that takes another compute resource.
fn new_size() -> Event {
    let larger = Settings {
        size: Named::new("larger".into(), Origin::Command),
        ..settings()
    };
    Event::Wanted {
        operation: Operation::new("n", Kind::Update, Some(larger)),
    }
}

/// Every event, by a name that says what is particular about it, and how long after `NOW` it comes.
fn events() -> Vec<(&'static str, Event, Millis)> {
    let entered = |operation: &str, step, up| Event::StepEntered {
        operation: operation.into(),
        step,
        token: "t2".into(),
        compute: (step == Step::ClaimCompute).then(|| Claimed {
            id: "c".into(),
            up,
            new: !up,
        }),
        cause: None,
        image: None,
    };
    let cannot = Event::StepEntered {
        operation: "o".into(),
        step: Step::ClaimCompute,
        token: "t2".into(),
        compute: None,
        cause: Some(failure()),
        image: None,
    };
    let with_image = |cause| Event::StepEntered {
        operation: "o".into(),
        step: Step::StopSession,
        token: "t2".into(),
        compute: None,
        cause,
        image: Some(Named::new("i".into(), Origin::Command)),
    };
    let checked = |generation, failure| Event::ImageChecked {
        generation,
        operation: "o".into(),
        failure,
    };
    let wanted = |kind| Event::Wanted {
        operation: Operation::new("n", kind, None),
    };
    let up = |generation| Event::SessionUp {
        generation,
        key: "k".into(),
    };
    let gone = |generation| Event::SessionGone {
        generation,
        failure: None,
    };
    let installed = |attempt| Event::Installed {
        generation: 2,
        operation: "o".into(),
        attempt,
        warning: None,
    };
    let failed = Event::InstallFailed {
        generation: 2,
        operation: "o".into(),
        attempt: 3,
        failure: failure(),
    };
    let seen = |generation, latest| Event::ImageSeen {
        generation,
        digest: "d".into(),
        latest,
    };
    let compute = || "c".to_owned();
    let drained = |compute: &str| Event::ComputeDrained {
        operation: "n".into(),
        compute: compute.into(),
        why: failure(),
    };
    let used_up = |generation, until| Event::DailyTimeUsedUp {
        operation: "n".into(),
        generation,
        until,
        why: failure(),
    };
    let alive = |generation| Event::Alive {
        generation,
        nonce: 1,
        runs: vec!["r".into()],
    };
    let done = |generation| Event::RunDone {
        generation,
        run: "r".into(),
        outcome: Outcome::Succeeded,
        failure: None,
    };
    vec![
        ("start", wanted(Kind::Start), 0),
        ("install", wanted(Kind::Install), 0),
        ("update", wanted(Kind::Update), 0),
        ("update of the size", new_size(), 0),
        ("reset", wanted(Kind::Reset), 0),
        ("stop", wanted(Kind::Stop), 0),
        (
            "run",
            Event::RunWanted {
                run: "n".into(),
                wants: settings(),
            },
            0,
        ),
        ("cancel of a run", Event::CancelWanted { run: "r".into() }, 0),
        (
            "cancel of a run that is not there",
            Event::CancelWanted { run: "other".into() },
            0,
        ),
        (
            "idle seen, and so it is",
            Event::IdleSeen {
                operation: "n".into(),
                generation: 2,
                activity: NOW - 1_000,
                why: None,
            },
            60_000,
        ),
        (
            "idle seen, of its instance, before its own time",
            Event::IdleSeen {
                operation: "n".into(),
                generation: 2,
                activity: NOW - 1_000,
                why: Some(Failure::new(Code::InstanceIdleShutdown, "")),
            },
            0,
        ),
        (
            "idle near, and so it is",
            Event::IdleNear {
                generation: 2,
                due: NOW + 59_000,
            },
            50_000,
        ),
        (
            "time of the day near",
            Event::DailyTimeNear {
                generation: 2,
                due: NOW + 59_000,
            },
            50_000,
        ),
        ("time of the day used up", used_up(2, NOW + 1), 0),
        ("time of the day used up, on the day before", used_up(2, NOW), 0),
        ("time of the day used up, of an older one", used_up(1, NOW + 1), 0),
        (
            "idle near, before newer activity",
            Event::IdleNear {
                generation: 2,
                due: NOW + 58_000,
            },
            50_000,
        ),
        (
            "idle seen, before newer activity",
            Event::IdleSeen {
                operation: "n".into(),
                generation: 2,
                activity: NOW - 2_000,
                why: None,
            },
            60_000,
        ),
        ("claim-compute, it is up", entered("o", Step::ClaimCompute, true), 0),
        ("claim-compute, it is new", entered("o", Step::ClaimCompute, false), 0),
        ("claim-compute, which cannot be", cannot, 0),
        ("launch-session", entered("o", Step::LaunchSession, false), 0),
        ("install-packages", entered("o", Step::InstallPackages, false), 0),
        ("stop-session", entered("o", Step::StopSession, false), 0),
        ("stop-session, with an image to check", with_image(None), 0),
        ("stop-session, which cannot be", with_image(Some(failure())), 0),
        ("image checked", checked(2, None), 0),
        ("image checked, it cannot be had", checked(2, Some(failure())), 0),
        ("image checked, for an older one", checked(1, None), 0),
        ("clean-up", entered("o", Step::CleanUp, false), 0),
        (
            "a step of another operation",
            entered("other", Step::LaunchSession, false),
            0,
        ),
        (
            "a clean-up of another operation",
            entered("other", Step::CleanUp, false),
            0,
        ),
        ("compute up", Event::ComputeUp { compute: compute() }, 0),
        (
            "compute gone",
            Event::ComputeGone {
                compute: compute(),
                why: "w".into(),
            },
            0,
        ),
        ("compute to be deleted", drained("c"), 0),
        ("another compute to be deleted", drained("other"), 0),
        ("session up", up(2), 0),
        ("session up, an older one", up(1), 0),
        ("session gone", gone(2), 0),
        ("session gone, an older one", gone(1), 0),
        ("installed", installed(3), 0),
        ("installed, an earlier attempt", installed(2), 0),
        ("install failed", failed, 0),
        ("image seen", seen(2, None), 0),
        ("image seen, and another by now", seen(2, Some("other".into())), 0),
        ("image seen, by an older one", seen(1, None), 0),
        ("alive", alive(2), 0),
        ("alive, an older one", alive(1), 0),
        ("run done", done(2), 0),
        ("run done, in an older one", done(1), 0),
        ("activity", Event::Activity { generation: 2 }, 0),
        ("tick, nothing is late", Event::Tick, 0),
        ("tick, the phase is late", Event::Tick, 1_000),
        ("tick, the lease is over", Event::Tick, deadlines::LEASE),
    ]
}

#[test]
fn every_phase_by_every_event() {
    let mut blocks: Vec<(String, Vec<&str>, String)> = Vec::new();
    for session in sessions() {
        // What comes of it, and the events of which it comes.
        let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
        for (name, event, later) in events() {
            let before = quiet_if_idle(name, &session);
            let line = match decide(&before, &event, NOW + later) {
                Err(refusal) => format!("refused: {}", Failure::from(refusal).error),
                Ok((after, effects)) if after == before && effects.is_empty() => "nothing".to_owned(),
                Ok((after, effects)) => {
                    let effects: Vec<String> = effects.iter().map(named).collect();
                    format!("{:26} {}", state(&before, &after), effects.join(", "))
                        .trim_end()
                        .to_owned()
                }
            };
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, names)) => names.push(name),
                None => lines.push((line, vec![name])),
            }
        }
        lines.sort_by_key(|(line, _)| line == "nothing");
        let block: String = lines
            .iter()
            .map(|(line, names)| format!("  {line}\n      on {}\n", names.join("; ")))
            .collect();
        let failing = if session.phase == Phase::Stopping && session.failure.is_some() {
            ", failing"
        } else {
            ""
        };
        let title = format!("{:?}{failing}", session.phase);
        let kind = session.current.as_ref().map_or("no operation", |o| kind_of(o.kind));
        match blocks
            .iter_mut()
            .find(|(known, _, same)| *known == title && *same == block)
        {
            Some((_, kinds, _)) => kinds.push(kind),
            None => blocks.push((title, vec![kind], block)),
        }
    }
    let page: Vec<String> = blocks
        .iter()
        .map(|(title, kinds, block)| format!("{title} ({})\n{block}", kinds.join(", ")))
        .collect();
    expect![[r#"
        Provisioning (start, update)
          Provisioning/o             n joins o
              on start
          Provisioning/o then install
              on install
          Provisioning/o             n Succeeded
              on update
          Provisioning/o then update
              on update of the size
          Provisioning/o then reset
              on reset
          Stopping/stop              AnswerStep t Superseded, o Canceled, run r Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Provisioning/o
              on run; image seen; image seen, and another by now; activity
          Provisioning/o             run r Canceled
              on cancel of a run
          Provisioning/o             WarnDailyTime
              on time of the day near
          Launching/o                AnswerStep t done, AnswerStep t2 done
              on claim-compute, it is up
          Provisioning/o             CreateCompute
              on claim-compute, it is new
          Stopping/o failing         AnswerStep t Why, AnswerStep t2 Why, RemoveSession 2
              on claim-compute, which cannot be
          Provisioning/o             AnswerStep t2 done
              on launch-session; install-packages; stop-session; stop-session, with an image to check; stop-session, which cannot be; a clean-up of another operation
          Stopping/o failing         AnswerStep t StepFailed, RemoveSession 2
              on clean-up
          Provisioning/o             AnswerStep t2 Superseded
              on a step of another operation
          Launching/o                AnswerStep t done
              on compute up
          Failed                     LeaveCompute, AnswerStep t ComputeLost, run r Failed, o Failed
              on compute gone
          Provisioning/o             RemoveSession 1
              on session up, an older one
          Stopping/o failing         AnswerStep t TimedOut, RemoveSession 2
              on tick, the phase is late; tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; another compute to be deleted; session up; session gone; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive; alive, an older one; run done; run done, in an older one; tick, nothing is late

        Provisioning (reset)
          Provisioning/o             n joins o
              on start; reset
          Provisioning/o then install
              on install
          Provisioning/o             n Succeeded
              on update
          Provisioning/o then update
              on update of the size
          Stopping/stop              AnswerStep t Superseded, o Canceled, run r Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Provisioning/o
              on run; image seen; image seen, and another by now; activity
          Provisioning/o             run r Canceled
              on cancel of a run
          Provisioning/o             WarnDailyTime
              on time of the day near
          Launching/o                AnswerStep t done, AnswerStep t2 done
              on claim-compute, it is up
          Provisioning/o             CreateCompute
              on claim-compute, it is new
          Stopping/o failing         AnswerStep t Why, AnswerStep t2 Why, RemoveSession 2
              on claim-compute, which cannot be
          Provisioning/o             AnswerStep t2 done
              on launch-session; install-packages; stop-session; stop-session, with an image to check; stop-session, which cannot be; a clean-up of another operation
          Stopping/o failing         AnswerStep t StepFailed, RemoveSession 2
              on clean-up
          Provisioning/o             AnswerStep t2 Superseded
              on a step of another operation
          Launching/o                AnswerStep t done
              on compute up
          Failed                     LeaveCompute, AnswerStep t ComputeLost, run r Failed, o Failed
              on compute gone
          Provisioning/o             RemoveSession 1
              on session up, an older one
          Stopping/o failing         AnswerStep t TimedOut, RemoveSession 2
              on tick, the phase is late; tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; another compute to be deleted; session up; session gone; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive; alive, an older one; run done; run done, in an older one; tick, nothing is late

        Launching (start, update)
          Launching/o                n joins o
              on start
          Launching/o then install
              on install
          Launching/o                n Succeeded
              on update
          Launching/o then update
              on update of the size
          Launching/o then reset
              on reset
          Stopping/stop              AnswerStep t Superseded, o Canceled, run r Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Launching/o
              on run; image seen; image seen, and another by now; activity
          Launching/o                run r Canceled
              on cancel of a run
          Launching/o                WarnDailyTime
              on time of the day near
          Launching/o                AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; install-packages; stop-session; stop-session, with an image to check; stop-session, which cannot be; a clean-up of another operation
          Launching/o                LaunchSession 2
              on launch-session
          Stopping/o failing         AnswerStep t StepFailed, RemoveSession 2
              on clean-up
          Launching/o                AnswerStep t2 Superseded
              on a step of another operation
          Failed                     LeaveCompute, AnswerStep t ComputeLost, run r Failed, o Failed
              on compute gone
          Installing/o               AnswerStep t done
              on session up
          Launching/o                RemoveSession 1
              on session up, an older one
          Failed                     LeaveCompute, AnswerStep t ContainerEnded, run r Failed, o Failed
              on session gone
          Stopping/o failing         AnswerStep t TimedOut, RemoveSession 2
              on tick, the phase is late; tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; another compute to be deleted; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive; alive, an older one; run done; run done, in an older one; tick, nothing is late

        Launching (reset)
          Launching/o                n joins o
              on start; reset
          Launching/o then install
              on install
          Launching/o                n Succeeded
              on update
          Launching/o then update
              on update of the size
          Stopping/stop              AnswerStep t Superseded, o Canceled, run r Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Launching/o
              on run; image seen; image seen, and another by now; activity
          Launching/o                run r Canceled
              on cancel of a run
          Launching/o                WarnDailyTime
              on time of the day near
          Launching/o                AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; install-packages; stop-session; stop-session, with an image to check; stop-session, which cannot be; a clean-up of another operation
          Launching/o                LaunchSession 2
              on launch-session
          Stopping/o failing         AnswerStep t StepFailed, RemoveSession 2
              on clean-up
          Launching/o                AnswerStep t2 Superseded
              on a step of another operation
          Failed                     LeaveCompute, AnswerStep t ComputeLost, run r Failed, o Failed
              on compute gone
          Installing/o               AnswerStep t done
              on session up
          Launching/o                RemoveSession 1
              on session up, an older one
          Failed                     LeaveCompute, AnswerStep t ContainerEnded, run r Failed, o Failed
              on session gone
          Stopping/o failing         AnswerStep t TimedOut, RemoveSession 2
              on tick, the phase is late; tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; another compute to be deleted; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive; alive, an older one; run done; run done, in an older one; tick, nothing is late

        Installing (start, update)
          Installing/o               n joins o
              on start
          Installing/o then install
              on install
          Installing/o               n Succeeded
              on update
          Installing/o then update
              on update of the size
          Installing/o then reset
              on reset
          Stopping/stop              AnswerStep t Superseded, o Canceled, run r Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Installing/o
              on run; image seen; image seen, and another by now; activity
          Installing/o               run r Canceled
              on cancel of a run
          Installing/o               WarnDailyTime
              on time of the day near
          Installing/o               AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; stop-session; stop-session, with an image to check; stop-session, which cannot be; a clean-up of another operation
          Installing/o               AgentInstall
              on install-packages
          Stopping/o failing         AnswerStep t StepFailed, RemoveSession 2
              on clean-up
          Installing/o               AnswerStep t2 Superseded
              on a step of another operation
          Failed                     LeaveCompute, AnswerStep t ComputeLost, run r Failed, o Failed
              on compute gone
          Installing/o               RemoveSession 1
              on session up, an older one
          Failed                     LeaveCompute, AnswerStep t ContainerEnded, run r Failed, o Failed
              on session gone
          Ready                      AnswerStep t done, o Succeeded, AgentRun r
              on installed
          Stopping/o failing         AnswerStep t Why, RemoveSession 2
              on install failed
          Installing/o               AgentLease
              on alive
          Stopping/o failing         AnswerStep t TimedOut, RemoveSession 2
              on tick, the phase is late
          Failed                     RemoveSession 2, LeaveCompute, AnswerStep t AgentSilent, run r Failed, o Failed
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; another compute to be deleted; session up; session gone, an older one; installed, an earlier attempt; image seen, by an older one; alive, an older one; run done; run done, in an older one; tick, nothing is late

        Installing (reset)
          Installing/o               n joins o
              on start; reset
          Installing/o then install
              on install
          Installing/o               n Succeeded
              on update
          Installing/o then update
              on update of the size
          Stopping/stop              AnswerStep t Superseded, o Canceled, run r Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Installing/o
              on run; image seen; image seen, and another by now; activity
          Installing/o               run r Canceled
              on cancel of a run
          Installing/o               WarnDailyTime
              on time of the day near
          Installing/o               AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; stop-session; stop-session, with an image to check; stop-session, which cannot be; a clean-up of another operation
          Installing/o               AgentInstall
              on install-packages
          Stopping/o failing         AnswerStep t StepFailed, RemoveSession 2
              on clean-up
          Installing/o               AnswerStep t2 Superseded
              on a step of another operation
          Failed                     LeaveCompute, AnswerStep t ComputeLost, run r Failed, o Failed
              on compute gone
          Installing/o               RemoveSession 1
              on session up, an older one
          Failed                     LeaveCompute, AnswerStep t ContainerEnded, run r Failed, o Failed
              on session gone
          Ready                      AnswerStep t done, o Succeeded, AgentRun r
              on installed
          Stopping/o failing         AnswerStep t Why, RemoveSession 2
              on install failed
          Installing/o               AgentLease
              on alive
          Stopping/o failing         AnswerStep t TimedOut, RemoveSession 2
              on tick, the phase is late
          Failed                     RemoveSession 2, LeaveCompute, AnswerStep t AgentSilent, run r Failed, o Failed
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; another compute to be deleted; session up; session gone, an older one; installed, an earlier attempt; image seen, by an older one; alive, an older one; run done; run done, in an older one; tick, nothing is late

        Installing (install)
          Installing/o then start
              on start
          Installing/o then install
              on install
          Installing/o               n Succeeded
              on update
          Installing/o then update
              on update of the size
          Installing/o then reset
              on reset
          Stopping/stop              AnswerStep t Superseded, o Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Installing/o
              on run; image seen; image seen, and another by now; activity
          Installing/o               AgentCancelRun r
              on cancel of a run
          Installing/o               WarnDailyTime
              on time of the day near
          Installing/o               AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; stop-session; stop-session, with an image to check; stop-session, which cannot be; a clean-up of another operation
          Installing/o               AgentInstall
              on install-packages
          Ready                      AnswerStep t StepFailed, AgentCancelInstall, o Failed, AnswerStep t2 done
              on clean-up
          Installing/o               AnswerStep t2 Superseded
              on a step of another operation
          Failed                     LeaveCompute, run r Failed, AnswerStep t ComputeLost, o Failed
              on compute gone
          Installing/o               RemoveSession 1
              on session up, an older one
          Failed                     LeaveCompute, run r Failed, AnswerStep t ContainerEnded, o Failed
              on session gone
          Ready                      AnswerStep t done, o Succeeded
              on installed
          Ready                      AnswerStep t Why, AgentCancelInstall, o Failed
              on install failed
          Installing/o               AgentLease
              on alive
          Installing/o               run r Succeeded
              on run done
          Ready                      AnswerStep t TimedOut, AgentCancelInstall, o Failed
              on tick, the phase is late
          Failed                     RemoveSession 2, LeaveCompute, run r Failed, AnswerStep t AgentSilent, o Failed
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; another compute to be deleted; session up; session gone, an older one; installed, an earlier attempt; image seen, by an older one; alive, an older one; run done, in an older one; tick, nothing is late

        Ready (no operation)
          Ready                      n Succeeded
              on start; update
          Installing/install         StartExecution n
              on install
          Ready/update               StartExecution n
              on update of the size
          Ready/reset                StartExecution n
              on reset
          Stopping/stop              StartExecution n
              on stop; idle seen, and so it is; idle seen, of its instance, before its own time; time of the day used up; compute to be deleted
          Ready                      AgentRun n
              on run
          Ready                      AgentCancelRun r
              on cancel of a run
          Ready                      WarnIdle
              on idle near, and so it is
          Ready                      WarnDailyTime
              on time of the day near
          Ready                      AnswerStep t2 Superseded
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; install-packages; stop-session; stop-session, with an image to check; stop-session, which cannot be; a step of another operation
          Ready                      AnswerStep t2 done
              on clean-up; a clean-up of another operation
          Failed                     LeaveCompute, run r Failed
              on compute gone; session gone
          Ready                      RemoveSession 1
              on session up, an older one
          Ready
              on image seen; image seen, and another by now; activity
          Ready                      AgentLease
              on alive
          Ready                      run r Succeeded
              on run done
          Failed                     RemoveSession 2, LeaveCompute, run r Failed
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; another compute to be deleted; session up; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive, an older one; run done, in an older one; tick, nothing is late; tick, the phase is late

        Ready (reset)
          Ready/o                    n joins o
              on start; reset
          Ready/o then install
              on install
          Ready/o                    n Succeeded
              on update
          Ready/o then update
              on update of the size
          Stopping/stop              AnswerStep t Superseded, o Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Ready/o
              on run; image seen; image seen, and another by now; activity
          Ready/o                    AgentCancelRun r
              on cancel of a run
          Ready/o                    WarnDailyTime
              on time of the day near
          Ready/o                    AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; install-packages; a clean-up of another operation
          Stopping/o                 RemoveSession 2
              on stop-session; image checked
          Ready/o                    CheckImage 2
              on stop-session, with an image to check
          Ready                      AnswerStep t Why, AnswerStep t2 Why, o Failed
              on stop-session, which cannot be
          Ready                      AnswerStep t Why, o Failed
              on image checked, it cannot be had
          Ready                      AnswerStep t StepFailed, o Failed, AnswerStep t2 done
              on clean-up
          Ready/o                    AnswerStep t2 Superseded
              on a step of another operation
          Provisioning/o +1          LeaveCompute, run r Failed, AnswerStep t done
              on compute gone
          Ready/o                    RemoveSession 1
              on session up, an older one
          Provisioning/o +1          run r Failed, AnswerStep t done
              on session gone
          Ready/o                    AgentLease
              on alive
          Ready/o                    run r Succeeded
              on run done
          Ready                      AnswerStep t TimedOut, o Failed
              on tick, the phase is late
          Provisioning/o +1          RemoveSession 2, LeaveCompute, run r Failed, AnswerStep t done
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked, for an older one; compute up; another compute to be deleted; session up; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive, an older one; run done, in an older one; tick, nothing is late

        Ready (update)
          Ready/o                    n joins o
              on start
          Ready/o then install
              on install
          Ready/o                    n Succeeded
              on update
          Ready/o then update
              on update of the size
          Ready/o then reset
              on reset
          Stopping/stop              AnswerStep t Superseded, o Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Ready/o
              on run; image seen; image seen, and another by now; activity
          Ready/o                    AgentCancelRun r
              on cancel of a run
          Ready/o                    WarnDailyTime
              on time of the day near
          Ready/o                    AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; install-packages; a clean-up of another operation
          Stopping/o                 RemoveSession 2
              on stop-session; image checked
          Ready/o                    CheckImage 2
              on stop-session, with an image to check
          Ready                      AnswerStep t Why, AnswerStep t2 Why, o Failed
              on stop-session, which cannot be
          Ready                      AnswerStep t Why, o Failed
              on image checked, it cannot be had
          Ready                      AnswerStep t StepFailed, o Failed, AnswerStep t2 done
              on clean-up
          Ready/o                    AnswerStep t2 Superseded
              on a step of another operation
          Provisioning/o +1          LeaveCompute, run r Failed, AnswerStep t done
              on compute gone
          Ready/o                    RemoveSession 1
              on session up, an older one
          Provisioning/o +1          run r Failed, AnswerStep t done
              on session gone
          Ready/o                    AgentLease
              on alive
          Ready/o                    run r Succeeded
              on run done
          Ready                      AnswerStep t TimedOut, o Failed
              on tick, the phase is late
          Provisioning/o +1          RemoveSession 2, LeaveCompute, run r Failed, AnswerStep t done
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked, for an older one; compute up; another compute to be deleted; session up; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive, an older one; run done, in an older one; tick, nothing is late

        Stopping (stop)
          Stopping/o then start
              on start; run
          refused: Session.NoSession
              on install; update; update of the size
          Stopping/o then reset
              on reset
          Stopping/o                 n joins o
              on stop
          Stopping/o                 AgentCancelRun r
              on cancel of a run
          Stopping/o                 WarnDailyTime
              on time of the day near
          Stopping/o                 AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; install-packages; a clean-up of another operation
          Stopping/o                 RemoveSession 2
              on stop-session; stop-session, with an image to check; stop-session, which cannot be; clean-up; tick, the phase is late
          Stopping/o                 AnswerStep t2 Superseded
              on a step of another operation
          Stopped                    LeaveCompute, run r Canceled, AnswerStep t done, o Succeeded
              on compute gone; session gone
          Stopping/o                 RemoveSession 1
              on session up, an older one
          Stopping/o
              on image seen; image seen, and another by now; activity
          Stopping/o                 run r Succeeded
              on run done
          Stopped                    RemoveSession 2, LeaveCompute, run r Canceled, AnswerStep t done, o Succeeded
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; compute to be deleted; another compute to be deleted; session up; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive; alive, an older one; run done, in an older one; tick, nothing is late

        Stopping (reset)
          Stopping/o                 n joins o
              on start; reset
          Stopping/o then install
              on install
          Stopping/o                 n Succeeded
              on update
          Stopping/o then update
              on update of the size
          Stopping/stop              AnswerStep t Superseded, o Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Stopping/o
              on run; image seen; image seen, and another by now; activity
          Stopping/o                 AgentCancelRun r
              on cancel of a run
          Stopping/o                 WarnDailyTime
              on time of the day near
          Stopping/o                 AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; install-packages; a clean-up of another operation
          Stopping/o                 RemoveSession 2
              on stop-session; stop-session, with an image to check; stop-session, which cannot be; tick, the phase is late
          Stopping/o failing         RemoveSession 2
              on clean-up
          Stopping/o                 AnswerStep t2 Superseded
              on a step of another operation
          Provisioning/o +1          LeaveCompute, run r Canceled, AnswerStep t done
              on compute gone
          Stopping/o                 RemoveSession 1
              on session up, an older one
          Provisioning/o +1          run r Canceled, AnswerStep t done
              on session gone
          Stopping/o                 run r Succeeded
              on run done
          Provisioning/o +1          RemoveSession 2, LeaveCompute, run r Canceled, AnswerStep t done
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; another compute to be deleted; session up; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive; alive, an older one; run done, in an older one; tick, nothing is late

        Stopping (update)
          Stopping/o                 n joins o
              on start
          Stopping/o then install
              on install
          Stopping/o                 n Succeeded
              on update
          Stopping/o then update
              on update of the size
          Stopping/o then reset
              on reset
          Stopping/stop              AnswerStep t Superseded, o Canceled, StartExecution n
              on stop; time of the day used up; compute to be deleted
          Stopping/o
              on run; image seen; image seen, and another by now; activity
          Stopping/o                 AgentCancelRun r
              on cancel of a run
          Stopping/o                 WarnDailyTime
              on time of the day near
          Stopping/o                 AnswerStep t2 done
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; install-packages; a clean-up of another operation
          Stopping/o                 RemoveSession 2
              on stop-session; stop-session, with an image to check; stop-session, which cannot be; tick, the phase is late
          Stopping/o failing         RemoveSession 2
              on clean-up
          Stopping/o                 AnswerStep t2 Superseded
              on a step of another operation
          Provisioning/o +1          LeaveCompute, run r Canceled, AnswerStep t done
              on compute gone
          Stopping/o                 RemoveSession 1
              on session up, an older one
          Provisioning/o +1          run r Canceled, AnswerStep t done
              on session gone
          Stopping/o                 run r Succeeded
              on run done
          Provisioning/o +1          RemoveSession 2, LeaveCompute, run r Canceled, AnswerStep t done
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; another compute to be deleted; session up; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive; alive, an older one; run done, in an older one; tick, nothing is late

        Stopping, failing (start, reset, update)
          Stopping/o then start failing
              on start; run
          Stopping/o then install failing
              on install
          Stopping/o then update failing
              on update; update of the size
          Stopping/o then reset failing
              on reset
          Stopping/stop              AnswerStep t Superseded, o Failed, StartExecution n
              on stop
          Stopping/o failing         AgentCancelRun r
              on cancel of a run
          Stopping/o failing         WarnDailyTime
              on time of the day near
          Stopping/o failing         AnswerStep t2 Why
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; install-packages; stop-session; stop-session, with an image to check; stop-session, which cannot be
          Stopping/o failing         RemoveSession 2
              on clean-up; tick, the phase is late
          Stopping/o failing         AnswerStep t2 Superseded
              on a step of another operation
          Stopping/o failing         AnswerStep t2 done
              on a clean-up of another operation
          Failed                     LeaveCompute, run r Failed, AnswerStep t Why, o Failed
              on compute gone; session gone
          Stopping/o failing         RemoveSession 1
              on session up, an older one
          Stopping/o failing
              on image seen; image seen, and another by now; activity
          Stopping/o failing         run r Succeeded
              on run done
          Failed                     RemoveSession 2, LeaveCompute, run r Failed, AnswerStep t Why, o Failed
              on tick, the lease is over
          nothing
              on cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day used up; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; compute to be deleted; another compute to be deleted; session up; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen, by an older one; alive; alive, an older one; run done, in an older one; tick, nothing is late

        Stopped (no operation)
          Provisioning/start +1      StartExecution n
              on start
          refused: Session.NoSession
              on install; update; update of the size
          Provisioning/reset +1      StartExecution n
              on reset
          Stopped                    n Succeeded
              on stop
          Provisioning/start +1      StartExecution start-for-n
              on run
          Stopped                    AnswerStep t2 Superseded
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; install-packages; stop-session; stop-session, with an image to check; stop-session, which cannot be; a step of another operation
          Stopped                    AnswerStep t2 done
              on clean-up; a clean-up of another operation
          Stopped                    RemoveSession 2
              on session up
          Stopped                    RemoveSession 1
              on session up, an older one
          nothing
              on cancel of a run; cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day near; time of the day used up; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; compute gone; compute to be deleted; another compute to be deleted; session gone; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen; image seen, and another by now; image seen, by an older one; alive; alive, an older one; run done; run done, in an older one; activity; tick, nothing is late; tick, the phase is late; tick, the lease is over

        Failed (no operation)
          Provisioning/start +1      StartExecution n
              on start
          refused: Session.NoSession
              on install; update; update of the size
          Provisioning/reset +1      StartExecution n
              on reset
          Stopped                    n Succeeded
              on stop
          Provisioning/start +1      StartExecution start-for-n
              on run
          Failed                     AnswerStep t2 Superseded
              on claim-compute, it is up; claim-compute, it is new; claim-compute, which cannot be; launch-session; install-packages; stop-session; stop-session, with an image to check; stop-session, which cannot be; a step of another operation
          Failed                     AnswerStep t2 done
              on clean-up; a clean-up of another operation
          Failed                     RemoveSession 2
              on session up
          Failed                     RemoveSession 1
              on session up, an older one
          nothing
              on cancel of a run; cancel of a run that is not there; idle seen, and so it is; idle seen, of its instance, before its own time; idle near, and so it is; time of the day near; time of the day used up; time of the day used up, on the day before; time of the day used up, of an older one; idle near, before newer activity; idle seen, before newer activity; image checked; image checked, it cannot be had; image checked, for an older one; compute up; compute gone; compute to be deleted; another compute to be deleted; session gone; session gone, an older one; installed; installed, an earlier attempt; install failed; image seen; image seen, and another by now; image seen, by an older one; alive; alive, an older one; run done; run done, in an older one; activity; tick, nothing is late; tick, the phase is late; tick, the lease is over
    "#]].assert_eq(&page.join("\n"));
}

/// For a sweep that saw the session idle: the session without its run.
fn quiet_if_idle(event: &str, session: &Session) -> Session {
    let runs = if event.starts_with("idle ") {
        Default::default()
    } else {
        session.runs.clone()
    };
    Session {
        runs,
        ..session.clone()
    }
}

#[test]
fn every_event_that_was_acted_on_changes_nothing_more_when_it_comes_again() {
    for before in sessions() {
        for (name, event, later) in events() {
            let now = NOW + later;
            let Ok((after, _)) = decide(&before, &event, now) else {
                continue;
            };
            let known = |id: &String| [&after.current, &after.next].into_iter().flatten().any(|o| o.id == *id);
            // A command whose operation or run has ended has its row, and is not decided on again.
            match &event {
                Event::Wanted { operation } if !known(&operation.id) => continue,
                Event::RunWanted { run, .. } if !after.runs.contains_key(run) => continue,
                _ => {}
            }
            let (twice, effects) =
                decide(&after, &event, now).unwrap_or_else(|refusal| panic!("{name} twice: {refusal:?}"));
            let at = format!(
                "{name} in {:?} with {:?}",
                before.phase,
                before.current.as_ref().map(|o| o.kind)
            );
            assert_eq!(
                Session { revision: 0, ..twice },
                Session {
                    revision: 0,
                    ..after.clone()
                },
                "{at}"
            );
            // What may be said twice: an answer, a lease, and that there is to be no container.
            let is_harmless = |e: &Effect| {
                matches!(
                    e,
                    Effect::Message(Message::AnswerStep { .. })
                        | Effect::Message(Message::RemoveSession { .. })
                        | Effect::Message(Message::AgentLease { .. })
                        | Effect::Message(Message::AgentCancelRun { .. })
                )
            };
            assert!(effects.iter().all(is_harmless), "{at}: {effects:?}");
        }
    }
}

#[test]
fn every_phase_that_is_not_final_is_due_after_every_event() {
    for before in sessions() {
        for (name, event, later) in events() {
            let Ok((after, _)) = decide(&before, &event, NOW + later) else {
                continue;
            };
            assert_eq!(
                after.due().is_some(),
                after.phase.is_live(),
                "{name} in {:?} gives {after:?}",
                before.phase
            );
        }
    }
}

#[test]
fn every_running_operation_by_every_new_command() {
    let mut table = format!("{:10}", "");
    Kind::ALL
        .iter()
        .for_each(|wanted| write!(table, "{:10}", kind_of(*wanted)).unwrap());
    for running in Kind::ALL {
        write!(table, "\n{:10}", kind_of(running)).unwrap();
        for wanted in Kind::ALL {
            let meets = meeting(running, wanted);
            write!(table, "{:10}", format!("{meets:?}").to_lowercase()).unwrap();
            // And that is what a decision does.
            for before in sessions()
                .into_iter()
                .filter(|s| s.current.as_ref().is_some_and(|o| o.kind == running))
            {
                let event = match wanted {
                    // Any other is done at once.
                    Kind::Update => new_size(),
                    _ => Event::Wanted {
                        operation: Operation::new("n", wanted, None),
                    },
                };
                let decided = decide(&before, &event, NOW);
                let failing = before.failure.is_some();
                let did = match &decided {
                    Err(_) => Meeting::Refuse,
                    Ok((_, effects))
                        if effects
                            .iter()
                            .any(|e| matches!(e, Effect::Row(Row::OperationJoined { .. }))) =>
                    {
                        Meeting::Join
                    }
                    Ok((after, _)) if after.next.as_ref().is_some_and(|o| o.id == "n") => Meeting::Wait,
                    Ok(_) => Meeting::Supersede,
                };
                // What has failed is joined by nobody: it is waited for.
                let meets = if meets == Meeting::Join && failing {
                    Meeting::Wait
                } else {
                    meets
                };
                assert_eq!(did, meets, "{running:?} in {:?} meets {wanted:?}", before.phase);
            }
        }
    }
    let table: Vec<&str> = table.lines().map(str::trim_end).collect();
    expect![[r#"
                  start     install   update    reset     stop
        start     join      wait      wait      wait      supersede
        install   wait      wait      wait      wait      supersede
        update    join      wait      wait      wait      supersede
        reset     join      wait      wait      join      supersede
        stop      wait      refuse    refuse    wait      join"#]]
    .assert_eq(&table.join("\n"));
}

#[test]
fn the_edges_of_the_lifecycle_are_those_that_some_event_takes() {
    let mut taken = BTreeSet::new();
    let mut with_a_start_that_waits = BTreeSet::new();
    for session in sessions() {
        for (name, event, later) in events() {
            let before = quiet_if_idle(name, &session);
            let next = before
                .current
                .as_ref()
                .map(|_| Operation::new("next", Kind::Start, Some(settings())));
            let waits = Session { next, ..before.clone() };
            for (before, edges) in [(&before, &mut taken), (&waits, &mut with_a_start_that_waits)] {
                if let Ok((after, _)) = decide(before, &event, NOW + later)
                    && after.phase != before.phase
                {
                    edges.insert((before.phase, after.phase));
                }
            }
        }
    }
    let lines: Vec<String> = taken.iter().map(|(from, to)| format!("{from:?} -> {to:?}")).collect();
    expect![[r#"
        Provisioning -> Launching
        Provisioning -> Stopping
        Provisioning -> Failed
        Launching -> Installing
        Launching -> Stopping
        Launching -> Failed
        Installing -> Ready
        Installing -> Stopping
        Installing -> Failed
        Ready -> Provisioning
        Ready -> Installing
        Ready -> Stopping
        Ready -> Failed
        Stopping -> Provisioning
        Stopping -> Stopped
        Stopping -> Failed
        Stopped -> Provisioning
        Failed -> Provisioning
        Failed -> Stopped"#]]
    .assert_eq(&lines.join("\n"));
    assert_eq!(taken, BTreeSet::from(EDGES));
    for (from, to) in with_a_start_that_waits {
        assert!(is_edge_or_two(from, to), "{from:?} -> {to:?}");
    }
}

/// A start that waits begins in the decision that ends what it waited for.
fn is_edge_or_two(from: Phase, to: Phase) -> bool {
    let at_rest = [Phase::Stopped, Phase::Failed];
    EDGES.contains(&(from, to))
        || at_rest
            .iter()
            .any(|rest| EDGES.contains(&(from, *rest)) && EDGES.contains(&(*rest, to)))
}

fn state(before: &Session, after: &Session) -> String {
    let mut text = format!("{:?}", after.phase);
    for (sign, operation) in [("/", &after.current), (" then ", &after.next)] {
        if let Some(operation) = operation {
            let word = if operation.id == "o" {
                "o"
            } else {
                kind_of(operation.kind)
            };
            text += &format!("{sign}{word}");
        }
    }
    if after.generation > before.generation {
        text += " +1";
    }
    if after.phase == Phase::Stopping && after.failure.is_some() {
        text += " failing";
    }
    text
}

fn kind_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Start => "start",
        Kind::Install => "install",
        Kind::Update => "update",
        Kind::Reset => "reset",
        Kind::Stop => "stop",
    }
}

fn named(effect: &Effect) -> String {
    let why = |failure: &Option<Failure>| {
        failure
            .as_ref()
            .map_or("done".to_owned(), |f| f.error.as_str().replace("Session.", ""))
    };
    match effect {
        Effect::Row(Row::OperationEnded { operation, outcome, .. }) => format!("{operation} {outcome:?}"),
        Effect::Row(Row::OperationJoined { operation, to }) => format!("{operation} joins {to}"),
        Effect::Row(Row::RunEnded { run, outcome, .. }) => format!("run {run} {outcome:?}"),
        Effect::Row(Row::LeaveCompute { .. }) => "LeaveCompute".into(),
        Effect::Message(Message::StartExecution { operation, .. }) => format!("StartExecution {operation}"),
        Effect::Message(Message::AnswerStep { token, failure }) => format!("AnswerStep {token} {}", why(failure)),
        Effect::Message(Message::CreateCompute { .. }) => "CreateCompute".into(),
        Effect::Message(Message::ReleaseCompute { .. }) => "ReleaseCompute".into(),
        Effect::Message(Message::LaunchSession { generation, .. }) => format!("LaunchSession {generation}"),
        Effect::Message(Message::RemoveSession { generation, .. }) => format!("RemoveSession {generation}"),
        Effect::Message(Message::CheckImage { generation, .. }) => format!("CheckImage {generation}"),
        Effect::Message(Message::AgentInstall { .. }) => "AgentInstall".into(),
        Effect::Message(Message::AgentCancelInstall { .. }) => "AgentCancelInstall".into(),
        Effect::Message(Message::AgentRun { run, .. }) => format!("AgentRun {run}"),
        Effect::Message(Message::AgentCancelRun { run, .. }) => format!("AgentCancelRun {run}"),
        Effect::Message(Message::AgentNetwork { .. }) => "AgentNetwork".into(),
        Effect::Message(Message::AgentLease { .. }) => "AgentLease".into(),
        Effect::Message(Message::WarnIdle { .. }) => "WarnIdle".into(),
        Effect::Message(Message::WarnDailyTime { .. }) => "WarnDailyTime".into(),
    }
}
