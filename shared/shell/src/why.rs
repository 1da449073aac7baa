//! The reasons for a session's state: what its row and its history say together.

use contract::{
    Millis, Phase,
    http::{Decision, End, Keeper, Reasons, Signal, SignalKind},
    row::LogRow,
};
use lifecycle::{
    deadlines,
    session::{Event, Lease, Session},
};

/// Says why `session` is in its phase, what keeps it, what will end it and when, and which signals
/// of it were seen.
///
/// * `history`: its latest entries, oldest first. What they do not reach back to is left out.
/// * `daily_due`: when its user's time of the day is used up: see [`crate::daily_due`].
/// * `instance_due`: when its compute instance is shut down for idleness: see
///   [`crate::shutdown_due`].
/// * `now`: by the shell's clock.
pub fn why(
    session: &Session,
    history: &[LogRow],
    instance_due: Option<Millis>,
    daily_due: Option<Millis>,
    now: Millis,
) -> Reasons {
    let entered = |row: &&LogRow| row.from != row.to;
    let began = |row: &&LogRow| match session.phase {
        // A session that failed without a stop has one entry for both.
        Phase::Stopping | Phase::Stopped | Phase::Failed => row.from.is_live() && row.from != Phase::Stopping,
        _ => row.to == Phase::Provisioning,
    };
    Reasons {
        because: history.iter().rev().find(entered).map(decision),
        began: history.iter().rev().filter(entered).find(began).map(decision),
        last: history.last().map(decision),
        kept_by: keepers(session),
        ends: ends(session, instance_due, daily_due),
        signals: signals(session, history, now),
    }
}

fn decision(row: &LogRow) -> Decision {
    Decision {
        revision: row.revision,
        at: row.at,
        by: row.by.clone(),
        from: row.from,
        to: row.to,
        event: row.event.clone(),
    }
}

fn keepers(session: &Session) -> Vec<Keeper> {
    let operation = session.current.iter().map(|operation| Keeper::Operation {
        id: operation.id.clone(),
        kind: operation.kind,
    });
    let next = session.next.iter().map(|operation| Keeper::Waiting {
        id: operation.id.clone(),
        kind: operation.kind,
    });
    let runs = session.runs.iter().map(|(id, lease)| Keeper::Run {
        id: id.clone(),
        until: match lease {
            Lease::Until(until) => Some(*until),
            Lease::Waiting => None,
        },
    });
    operation.chain(next).chain(runs).collect()
}

/// The deadlines of the session and its phase, soonest first.
fn ends(session: &Session, instance_due: Option<Millis>, daily_due: Option<Millis>) -> Vec<End> {
    let mut ends: Vec<(Millis, End)> = Vec::new();
    if let Some(at) = session.idle_due() {
        ends.push((
            at,
            End::Idle {
                at,
                warned: session.warned.is_some(),
                warning: session.warning_due(),
            },
        ));
    }
    if let Some(at) = session.deadline {
        ends.push((at, End::Deadline { at }));
    }
    let silent = session
        .alive_until
        .filter(|_| matches!(session.phase, Phase::Installing | Phase::Ready));
    ends.extend(silent.map(|at| (at, End::AgentSilent { at })));
    ends.extend(instance_due.map(|at| (at, End::InstanceIdle { at })));
    ends.extend(daily_due.map(|at| {
        let warned = session.daily_warned == Some(at);
        (at, End::DailyTime { at, warned })
    }));
    ends.sort_by_key(|(at, _)| *at);
    ends.into_iter().map(|(_, end)| end).collect()
}

/// The signals of this generation: how often each was seen, and when last.
fn signals(session: &Session, history: &[LogRow], now: Millis) -> Vec<Signal> {
    let mut signals: Vec<Signal> = Vec::new();
    let mut seen = |kind: SignalKind, at: Millis| match signals.iter_mut().find(|signal| signal.kind == kind) {
        Some(signal) => (signal.times, signal.at) = (signal.times + 1, at),
        None => signals.push(Signal { kind, times: 1, at }),
    };
    for row in history.iter().filter(|row| row.generation == session.generation) {
        let kind = match &row.event {
            Event::ComputeUp { .. } => SignalKind::ComputeUp,
            Event::SessionUp { .. } => SignalKind::ContainerUp,
            Event::Installed { .. } => SignalKind::Installed,
            Event::InstallFailed { .. } => SignalKind::InstallFailed,
            Event::RunWanted { .. } => SignalKind::RunWanted,
            Event::RunDone { .. } => SignalKind::RunDone,
            Event::Activity { .. } => SignalKind::Used,
            Event::IdleNear { .. } | Event::DailyTimeNear { .. } => SignalKind::Warned,
            Event::SessionGone { .. } | Event::ComputeGone { .. } => SignalKind::Gone,
            _ => continue,
        };
        seen(kind, row.at);
    }
    // Leases are no history; the last one that was granted says when the agent was heard. The first
    // is longer by the time that the launch might have taken, and says nothing.
    let granted = deadlines::LEASE + deadlines::LEASE_MARGIN;
    let heard = session.alive_until.and_then(|until| until.checked_sub(granted));
    if let Some(at) = heard.filter(|at| *at <= now && matches!(session.phase, Phase::Installing | Phase::Ready)) {
        seen(SignalKind::AgentAlive, at);
    }
    signals
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::session::{Claimed, Kind, Operation, Outcome, Settings, Step, decide};

    fn settings() -> Settings {
        Settings {
            idle: 60_000.into(),
            ..Settings::new("/flow")
        }
    }

    /// A life, as the core decides it and the shell writes it down.
    struct Life {
        session: Session,
        history: Vec<LogRow>,
        now: Millis,
    }

    impl Life {
        fn new() -> Self {
            Self {
                session: Session::never("f", "ws", "alice", settings()),
                history: Vec::new(),
                now: 1_000_000,
            }
        }

        /// An event, a second later.
        fn on(mut self, by: &str, event: Event) -> Self {
            self.now += 1_000;
            let (next, _) = decide(&self.session, &event, self.now).unwrap();
            self.history.push(LogRow {
                revision: next.revision,
                at: self.now,
                by: by.into(),
                from: self.session.phase,
                to: next.phase,
                generation: next.generation,
                event,
            });
            self.session = next;
            self
        }

        fn why(&self) -> Reasons {
            why(&self.session, &self.history, None, None, self.now)
        }

        fn with_wanted(self, id: &str, kind: Kind) -> Self {
            let wants = (kind == Kind::Start).then(settings);
            let operation = Operation::new(id, kind, wants);
            self.on("alice", Event::Wanted { operation })
        }

        fn with_step(self, operation: &str, step: Step) -> Self {
            let compute = (step == Step::ClaimCompute).then(|| Claimed {
                id: "c".into(),
                up: true,
                new: false,
            });
            let event = Event::StepEntered {
                operation: operation.into(),
                step,
                token: format!("{step:?}"),
                compute,
                cause: None,
                image: None,
            };
            self.on("states", event)
        }

        fn ready() -> Self {
            let up = Event::SessionUp {
                generation: 1,
                key: "k".into(),
            };
            let installed = Event::Installed {
                generation: 1,
                operation: "s".into(),
                attempt: 3,
                warning: None,
            };
            Self::new()
                .with_wanted("s", Kind::Start)
                .with_step("s", Step::ClaimCompute)
                .with_step("s", Step::LaunchSession)
                .on("driver", up)
                .with_step("s", Step::InstallPackages)
                .on("agent", installed)
        }

        fn with_end(self) -> Self {
            let failure = None;
            self.on("driver", Event::SessionGone { generation: 1, failure })
        }
    }

    #[test]
    fn a_ready_session_is_so_because_it_was_installed_and_ends_when_it_is_idle_or_its_agent_silent() {
        let life = Life::ready();
        let why = life.why();
        let (because, began) = (why.because.unwrap(), why.began.unwrap());
        assert!(matches!(because.event, Event::Installed { .. }) && because.at == life.session.since);
        assert!(matches!(began.event, Event::Wanted { .. }) && began.by == "alice");
        assert_eq!(why.kept_by, []);
        let idle = life.session.last_activity + 60_000;
        let end = End::Idle {
            at: idle,
            warned: false,
            warning: Some(idle - 15_000),
        };
        let silent = life.session.alive_until.unwrap();
        assert_eq!(why.ends, [end, End::AgentSilent { at: silent }]);
    }

    #[test]
    fn a_run_keeps_a_session_until_its_lease_ends_and_then_was_seen() {
        let run = Event::RunWanted {
            run: "r".into(),
            wants: settings(),
        };
        let life = Life::ready().on("alice", run);
        let until = Some(life.now + deadlines::RUN_LEASE);
        let why = life.why();
        assert_eq!(why.kept_by, [Keeper::Run { id: "r".into(), until }]);
        assert!(!why.ends.iter().any(|end| matches!(end, End::Idle { .. })));
        let done = Event::RunDone {
            generation: 1,
            run: "r".into(),
            outcome: Outcome::Succeeded,
            failure: None,
        };
        let life = life.on("agent", done);
        let why = life.why();
        assert!(why.kept_by.is_empty() && matches!(why.last.unwrap().event, Event::RunDone { .. }));
        let signal = |kind| {
            why.signals
                .iter()
                .find(|signal| signal.kind == kind)
                .map(|signal| (signal.times, signal.at))
        };
        assert_eq!(signal(SignalKind::RunDone), Some((1, life.now)));
        assert_eq!(
            signal(SignalKind::AgentAlive),
            None,
            "the first lease is that of the launch"
        );
        assert_eq!(signal(SignalKind::Used), None);
        let mut life = life;
        life.now += 90_000;
        let asks = Event::Alive {
            generation: 1,
            nonce: 1,
            runs: Vec::new(),
        };
        let heard = life.on("agent", asks);
        let seen = heard.why().signals;
        let seen = seen.iter().find(|signal| signal.kind == SignalKind::AgentAlive);
        assert_eq!(seen.map(|signal| signal.at), Some(heard.now));
    }

    #[test]
    fn a_session_that_is_gone_says_who_ended_it_and_on_what() {
        let ready = Life::ready();
        let idle = Event::IdleSeen {
            why: None,
            operation: "i".into(),
            generation: 1,
            activity: ready.session.last_activity,
        };
        let mut later = ready;
        later.now += 60_000;
        let gone = later.on("sweep", idle).with_step("i", Step::StopSession).with_end();
        let why = gone.why();
        assert_eq!(gone.session.phase, Phase::Stopped);
        assert!(matches!(why.because.unwrap().event, Event::SessionGone { .. }));
        let began = why.began.unwrap();
        assert!(matches!(began.event, Event::IdleSeen { .. }) && began.by == "sweep");
        assert!(why.kept_by.is_empty() && why.ends.is_empty());

        let failed = Life::ready().with_end();
        assert_eq!(failed.session.phase, Phase::Failed);
        let why = failed.why();
        assert_eq!(why.began, why.because, "nobody wanted it");
    }

    #[test]
    fn a_session_on_its_way_is_kept_by_its_operation_and_ends_by_its_deadline() {
        let life = Life::new()
            .with_wanted("s", Kind::Start)
            .with_wanted("i", Kind::Install);
        let (s, i) = ("s".to_owned(), "i".to_owned());
        let kept = [
            Keeper::Operation {
                id: s,
                kind: Kind::Start,
            },
            Keeper::Waiting {
                id: i,
                kind: Kind::Install,
            },
        ];
        assert_eq!(life.why().kept_by, kept);
        let at = life.session.deadline.unwrap();
        assert_eq!(life.why().ends, [End::Deadline { at }]);
    }

    #[test]
    fn what_the_history_does_not_reach_back_to_is_left_out() {
        let life = Life::ready();
        let why = why(&life.session, &[], None, None, life.now);
        assert_eq!((why.because, why.began, why.last), (None, None, None));
        assert_eq!(why.ends.len(), 2);
    }
}
