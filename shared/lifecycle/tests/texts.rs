//! The texts of the core's refusals and of ends, as they are decided.

use expect_test::expect;
use lifecycle::{
    Failure, Millis,
    deadlines::{INSTALLING, LAUNCH_WINDOW, LAUNCHING, LEASE, LEASE_MARGIN, PROVISIONING, RUN_LEASE},
    session::{Claimed, Effect, Event, Kind, MOST_RUNS, Message, Operation, Row, Session, Settings, Step, decide},
};

const NOW: Millis = 1_000_000;

fn settings() -> Settings {
    Settings::new("/flows/joke")
}

fn wanted(id: &str, kind: Kind) -> Event {
    Event::Wanted {
        operation: Operation::new(id, kind, None),
    }
}

fn entered(step: Step, token: &str) -> Event {
    let compute = (step == Step::ClaimCompute).then(|| Claimed {
        id: "c1".into(),
        up: false,
        new: true,
    });
    Event::StepEntered {
        image: None,
        operation: "s".into(),
        step,
        token: token.into(),
        compute,
        cause: None,
    }
}

/// The session after these events, and what the last of them has done.
fn after(events: Vec<Event>, later: &[(Millis, Event)]) -> (Session, Vec<Effect>) {
    let mut session = Session::never("f", "ws", "alice", settings());
    let mut effects = Vec::new();
    let now = events.into_iter().map(|event| (NOW, event));
    for (at, event) in now.chain(later.iter().cloned()) {
        (session, effects) = decide(&session, &event, at).expect("it is not refused");
    }
    (session, effects)
}

fn provisioning() -> Vec<Event> {
    vec![wanted("s", Kind::Start), entered(Step::ClaimCompute, "claim")]
}

fn launching() -> Vec<Event> {
    let mut events = provisioning();
    events.push(Event::ComputeUp { compute: "c1".into() });
    events.push(entered(Step::LaunchSession, "launch"));
    events
}

fn installing() -> Vec<Event> {
    let mut events = launching();
    events.push(Event::SessionUp {
        generation: 1,
        key: "key".into(),
    });
    events.push(entered(Step::InstallPackages, "install"));
    events
}

fn ready() -> Vec<Event> {
    let mut events = installing();
    events.push(Event::Installed {
        generation: 1,
        operation: "s".into(),
        attempt: 3,
        warning: None,
    });
    events
}

fn with(mut events: Vec<Event>, more: impl IntoIterator<Item = Event>) -> Vec<Event> {
    events.extend(more);
    events
}

fn run(id: &str) -> Event {
    Event::RunWanted {
        run: id.into(),
        wants: settings(),
    }
}

fn alive(runs: &[&str]) -> Event {
    Event::Alive {
        generation: 1,
        nonce: 1,
        runs: runs.iter().map(|run| (*run).to_owned()).collect(),
    }
}

#[test]
fn what_is_refused_says_what_to_do() {
    let refused = |events: Vec<Event>, event: Event| {
        let (session, _) = after(events, &[]);
        Failure::from(decide(&session, &event, NOW).expect_err("it is refused")).to_string()
    };
    let busy = with(ready(), [wanted("a", Kind::Install), wanted("b", Kind::Reset)]);
    let full = with(ready(), (0..MOST_RUNS).map(|n| run(&format!("run-{n}"))));
    let texts = [
        refused(Vec::new(), wanted("a", Kind::Install)),
        refused(busy, wanted("c", Kind::Install)),
        refused(full, run("one-more")),
    ];
    expect![[r#"
        Session.NoSession: an install needs a session, and this flow has none. Start one first.
        Session.Busy: an install is under way and a reset waits. Try again when one has ended, or stop the session.
        Session.TooManyRuns: The session has 80 runs already. Try again when some have ended."#]]
    .assert_eq(&texts.join("\n"));
}

#[test]
fn what_has_failed_says_why_and_what_to_do() {
    let failed = |events: Vec<Event>, later: &[(Millis, Event)]| {
        let (session, effects) = after(events, later);
        let ended = effects.iter().find_map(|effect| match effect {
            Effect::Row(Row::OperationEnded { failure, .. }) | Effect::Row(Row::RunEnded { failure, .. }) => {
                failure.clone()
            }
            _ => None,
        });
        let answered = effects.iter().find_map(|effect| match effect {
            Effect::Message(Message::AnswerStep { failure, .. }) => failure.clone(),
            _ => None,
        });
        let failure = session.failure.or(ended).or(answered);
        failure
            .unwrap_or_else(|| panic!("nothing failed: {effects:?}"))
            .to_string()
    };
    let tick = |at: Millis| (at, Event::Tick);
    let stop = (NOW, wanted("x", Kind::Stop));
    let stopping = Event::StepEntered {
        image: None,
        operation: "x".into(),
        step: Step::StopSession,
        token: "stop".into(),
        compute: None,
        cause: None,
    };
    let gone = Event::SessionGone {
        generation: 1,
        failure: None,
    };
    let texts = [
        failed(provisioning(), &[tick(NOW + PROVISIONING)]),
        failed(launching(), &[tick(NOW + LAUNCHING)]),
        failed(installing(), &[(NOW + INSTALLING, alive(&[])), tick(NOW + INSTALLING)]),
        failed(ready(), &[tick(NOW + LAUNCH_WINDOW + LEASE + LEASE_MARGIN)]),
        failed(
            launching(),
            &[(
                NOW,
                Event::ComputeGone {
                    compute: "c1".into(),
                    why: "the machine was taken back".into(),
                },
            )],
        ),
        failed(ready(), &[(NOW, gone.clone())]),
        failed(installing(), &[(NOW, entered(Step::CleanUp, "clean-up"))]),
        failed(launching(), std::slice::from_ref(&stop)),
        failed(with(ready(), [run("r")]), &[stop, (NOW, stopping), (NOW, gone)]),
        failed(
            with(ready(), [run("r")]),
            &[(NOW + RUN_LEASE, alive(&[])), tick(NOW + RUN_LEASE)],
        ),
    ];
    expect![[r#"
        Session.TimedOut: No compute resource came up in time. Try again.
        Session.TimedOut: The container did not start in time. Try again.
        Session.TimedOut: The install did not end in time. Try again.
        Session.AgentSilent: The session's agent has not been heard of, and has ended itself by now. Start the session again.
        Session.ComputeLost: The compute resource is gone (the machine was taken back). Start the session again.
        Session.ContainerEnded: The session's container ended without a word. Start the session again.
        Session.StepFailed: A step of the operation failed without a reason. Start the session again.
        Session.Superseded: A stop ended this operation.
        Session.Stopped: The session was stopped.
        Run.Lost: The session's agent no longer knows this run. Submit it again."#]].assert_eq(&texts.join("\n"));
}
