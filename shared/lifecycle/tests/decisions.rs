//! The core's decisions, by value: one test for each that was once wrong, or is easily wrong.

use expect_test::expect;
use lifecycle::{
    Code, Failure, Millis,
    compute::{self, Chase, ComputePhase, Seen},
    deadlines,
    network::Network,
    session::{
        Claimed, Effect, Event, Kind, Lease, Message, Named, Operation, Origin, Outcome, Packages, Phase, Refusal, Row,
        Session, Settings, Step, decide,
    },
};

/// A value that a command names.
fn said<T>(value: T) -> Named<T> {
    Named::new(value, Origin::Command)
}

fn sized(size: &str) -> Settings {
    Settings {
        size: said(size.into()),
        idle: 60_000.into(),
        ..Settings::new("/flow")
    }
}

fn wanted(id: &str, kind: Kind) -> Event {
    Event::Wanted {
        operation: Operation::new(id, kind, None),
    }
}

fn made_of(id: &str, kind: Kind, size: &str) -> Event {
    Event::Wanted {
        operation: Operation::new(id, kind, Some(sized(size))),
    }
}

fn entered(operation: &str, step: Step, token: &str) -> Event {
    let compute = (step == Step::ClaimCompute).then(|| Claimed {
        id: "c1".into(),
        up: false,
        new: true,
    });
    Event::StepEntered {
        operation: operation.into(),
        step,
        token: token.into(),
        compute,
        cause: None,
        image: None,
    }
}

fn up(generation: u32) -> Event {
    Event::SessionUp {
        generation,
        key: "key".into(),
    }
}

fn gone(generation: u32) -> Event {
    Event::SessionGone {
        generation,
        failure: None,
    }
}

fn compute_up() -> Event {
    Event::ComputeUp { compute: "c1".into() }
}

fn installed(generation: u32, operation: &str, attempt: u32) -> Event {
    Event::Installed {
        generation,
        operation: operation.into(),
        attempt,
        warning: None,
    }
}

fn run(id: &str) -> Event {
    Event::RunWanted {
        run: id.into(),
        wants: sized("local"),
    }
}

/// A session with a life so far, and the effects of the last event in it.
#[derive(Clone)]
struct Life {
    session: Session,
    effects: Vec<Effect>,
    now: Millis,
}

impl Life {
    fn new() -> Self {
        Self {
            session: Session::never("f", "ws", "alice", sized("local")),
            effects: Vec::new(),
            now: 1_000_000,
        }
    }

    fn on(mut self, event: Event) -> Self {
        (self.session, self.effects) = decide(&self.session, &event, self.now).expect("it is not refused");
        self
    }

    fn later(mut self, by: Millis) -> Self {
        self.now += by;
        self
    }

    fn launching() -> Self {
        let claiming = Self::new()
            .on(wanted("s", Kind::Start))
            .on(entered("s", Step::ClaimCompute, "claim"));
        claiming
            .on(compute_up())
            .on(entered("s", Step::LaunchSession, "launch"))
    }

    fn installing() -> Self {
        Self::launching()
            .on(up(1))
            .on(entered("s", Step::InstallPackages, "install"))
    }

    fn ready() -> Self {
        Self::installing().on(installed(1, "s", 3))
    }

    /// The last event's answers to the tokens of steps; `None` is a success.
    fn answers(&self) -> Vec<(&str, Option<&str>)> {
        fn answer(effect: &Effect) -> Option<(&str, Option<&str>)> {
            let Effect::Message(Message::AnswerStep { token, failure }) = effect else {
                return None;
            };
            Some((token, named(failure)))
        }
        self.effects.iter().filter_map(answer).collect()
    }

    /// The ends of operations and runs by the last event.
    fn ends(&self) -> Vec<(&str, Outcome, Option<&str>)> {
        fn end(effect: &Effect) -> Option<(&str, Outcome, Option<&str>)> {
            match effect {
                Effect::Row(Row::OperationEnded {
                    operation: id,
                    outcome,
                    failure,
                    ..
                })
                | Effect::Row(Row::RunEnded {
                    run: id,
                    outcome,
                    failure,
                }) => Some((id, *outcome, named(failure))),
                _ => None,
            }
        }
        self.effects.iter().filter_map(end).collect()
    }

    fn removes(&self) -> bool {
        self.effects
            .iter()
            .any(|e| matches!(e, Effect::Message(Message::RemoveSession { .. })))
    }

    /// The session without the count of its saves.
    fn unsaved(&self) -> Session {
        Session {
            revision: 0,
            ..self.session.clone()
        }
    }
}

fn named(failure: &Option<Failure>) -> Option<&str> {
    failure.as_ref().map(|f| f.error.as_str())
}

fn joined(operation: &str, to: &str) -> Effect {
    Effect::Row(Row::OperationJoined {
        operation: operation.into(),
        to: to.into(),
    })
}

#[test]
fn a_step_that_comes_again_after_the_next_one_was_entered_leaves_the_next_ones_token_alone() {
    let life = Life::installing().on(entered("s", Step::LaunchSession, "launch"));
    assert_eq!(life.answers(), [("launch", None)]);
    assert_eq!(life.unsaved(), Life::installing().unsaved());
    // The agent's word about the attempt that is under way still counts.
    let life = life.on(installed(1, "s", 3));
    assert_eq!(
        (life.session.phase, life.answers()),
        (Phase::Ready, vec![("install", None)])
    );
}

#[test]
fn a_step_sent_twice_with_two_tokens_is_answered_on_both_in_whichever_order_they_came() {
    let both = Life::launching().on(entered("s", Step::LaunchSession, "other"));
    let again = both.on(entered("s", Step::LaunchSession, "launch"));
    assert_eq!(again.effects, [], "a token that is known asks for nothing more");
    assert_eq!(again.on(up(1)).answers(), [("launch", None), ("other", None)]);
}

#[test]
fn a_step_of_a_failed_operation_that_comes_late_leaves_the_token_of_its_clean_up_alone() {
    let failure = Failure::new(Code::SessionLaunchFailed, "No.");
    let failed = Life::launching().on(Event::StepEntered {
        operation: "s".into(),
        step: Step::LaunchSession,
        token: "again".into(),
        compute: None,
        cause: Some(failure),
        image: None,
    });
    let refused = Some("Session.LaunchFailed");
    assert_eq!(failed.answers(), [("launch", refused), ("again", refused)]);
    let late = failed
        .on(entered("s", Step::CleanUp, "clean"))
        .on(entered("s", Step::LaunchSession, "launch"));
    assert_eq!(late.answers(), [("launch", Some("Session.LaunchFailed"))]);
    let life = late.on(gone(1));
    assert_eq!(
        (life.session.phase, life.answers()),
        (Phase::Failed, vec![("clean", Some("Session.LaunchFailed"))])
    );
}

#[test]
fn a_reset_whose_execution_cleans_up_while_it_goes_down_fails_and_does_not_come_back_without_one() {
    let down = Life::ready()
        .on(wanted("r", Kind::Reset))
        .on(entered("r", Step::StopSession, "stop"));
    let life = down.on(entered("r", Step::CleanUp, "clean"));
    assert!(life.removes());
    let life = life.on(gone(1));
    assert_eq!(life.session.phase, Phase::Failed);
    let why = Some("Session.StepFailed");
    assert_eq!(life.ends(), [("r", Outcome::Failed, why)]);
    assert_eq!(life.answers(), [("stop", why), ("clean", why)]);
}

#[test]
fn a_session_whose_agent_has_ended_itself_is_cleared_away_by_its_driver() {
    let silent = deadlines::LEASE + deadlines::LEASE_MARGIN;
    let life = Life::ready().later(deadlines::LAUNCH_WINDOW + silent).on(Event::Tick);
    assert_eq!((life.session.phase, life.removes()), (Phase::Failed, true));
    // So is one that a stop holds for ended because its driver said nothing.
    let life = Life::ready()
        .on(wanted("p", Kind::Stop))
        .later(deadlines::LAUNCH_WINDOW + silent)
        .on(Event::Tick);
    assert_eq!((life.session.phase, life.removes()), (Phase::Stopped, true));
}

#[test]
fn a_launch_may_wait_for_an_image_where_an_instance_is_had_and_not_on_a_machine_that_is_there() {
    let window = |size: &str| {
        let mut life = Life::new();
        life.session.settings = sized(size);
        let claiming = life
            .on(wanted("s", Kind::Start))
            .on(entered("s", Step::ClaimCompute, "claim"));
        let launched = claiming
            .on(compute_up())
            .on(entered("s", Step::LaunchSession, "launch"));
        let until = launched.effects.iter().find_map(|effect| match effect {
            Effect::Message(Message::LaunchSession { until, .. }) => Some(until - launched.now),
            _ => None,
        });
        // A stop that the driver says nothing to is over when what came up at the end of the window
        // has ended itself.
        let ended = launched.session.alive_until.unwrap() - launched.now;
        assert_eq!(
            ended,
            until.unwrap() + deadlines::LEASE + deadlines::LEASE_MARGIN,
            "{size}"
        );
        until.unwrap()
    };
    assert_eq!(window("local"), 60_000);
    assert_eq!(window("Standard_D4s_v3"), 240_000);
    assert_eq!(window("m6i.xlarge"), 240_000);
}

#[test]
fn a_start_that_had_failed_before_a_stop_came_says_why_it_failed() {
    let failure = Failure::new(Code::InstallConflict, "a needs b<1.");
    let failed = Event::InstallFailed {
        generation: 1,
        operation: "s".into(),
        attempt: 3,
        failure,
    };
    let life = Life::installing().on(failed).on(wanted("p", Kind::Stop));
    assert_eq!(life.ends(), [("s", Outcome::Failed, Some("Install.Conflict"))]);
    assert_eq!(
        life.on(gone(1)).session.phase,
        Phase::Stopped,
        "what was wanted last is a stop"
    );
}

#[test]
fn a_reset_made_of_something_else_does_not_join_the_one_under_way() {
    let life = Life::ready()
        .on(made_of("r1", Kind::Reset, "small"))
        .on(made_of("r2", Kind::Reset, "large"));
    assert_eq!(life.effects, [], "it waits");
    let life = life.on(made_of("r3", Kind::Reset, "huge"));
    assert_eq!(life.effects, [joined("r3", "r2")]);
    let wants = life.session.next.as_ref().and_then(|o| o.wants.clone());
    assert_eq!(wants, Some(sized("huge")), "of two that wait the newer wish counts");
    let same = Life::ready()
        .on(made_of("r1", Kind::Reset, "small"))
        .on(made_of("r2", Kind::Reset, "small"));
    assert_eq!(same.effects, [joined("r2", "r1")]);
}

#[test]
fn an_install_that_waits_for_a_start_which_fails_ends_and_so_does_what_joined_it() {
    let life = Life::launching()
        .on(wanted("i1", Kind::Install))
        .on(wanted("i2", Kind::Install));
    assert_eq!(life.effects, [joined("i2", "i1")]);
    let start = ("s", Outcome::Failed, Some("Session.ContainerEnded"));
    assert_eq!(
        life.on(gone(1)).ends(),
        [start, ("i1", Outcome::Failed, Some("Session.NoSession"))]
    );
}

#[test]
fn a_start_sent_during_a_stop_waits_its_turn_and_begins_when_the_stop_has_ended() {
    let life = Life::ready()
        .on(wanted("p", Kind::Stop))
        .on(wanted("s2", Kind::Start))
        .on(gone(1));
    assert_eq!(life.ends(), [("p", Outcome::Succeeded, None)]);
    assert_eq!((life.session.phase, life.session.generation), (Phase::Provisioning, 2));
    assert!(life.effects.contains(&Effect::Message(Message::StartExecution {
        operation: "s2".into(),
        kind: Kind::Start
    })));
}

#[test]
fn a_run_wanted_during_a_stop_gets_a_session_after_it() {
    let life = Life::ready().on(wanted("p", Kind::Stop)).on(run("r")).on(gone(1));
    assert_eq!(life.session.phase, Phase::Provisioning);
    assert_eq!(life.session.runs.get("r"), Some(&Lease::Waiting));
}

#[test]
fn a_second_stop_cancels_the_start_and_the_run_that_waited_for_the_first() {
    let life = Life::ready()
        .on(wanted("p", Kind::Stop))
        .on(run("r"))
        .on(wanted("p2", Kind::Stop));
    let start = ("start-for-r", Outcome::Canceled, Some("Session.Superseded"));
    assert_eq!(life.ends(), [start, ("r", Outcome::Canceled, Some("Session.Stopped"))]);
}

#[test]
fn a_run_that_waits_for_a_start_which_fails_ends_with_its_reason() {
    let life = Life::new().on(run("r")).later(deadlines::PROVISIONING).on(Event::Tick);
    assert_eq!(life.session.phase, Phase::Stopping);
    let life = life.later(deadlines::STOPPING).on(Event::Tick);
    assert_eq!(life.session.phase, Phase::Failed);
    let why = Some("Session.TimedOut");
    assert_eq!(
        life.ends(),
        [("r", Outcome::Failed, why), ("start-for-r", Outcome::Failed, why)]
    );
}

#[test]
fn an_older_generation_that_comes_up_is_removed_and_changes_nothing() {
    let life = Life::ready().on(wanted("r", Kind::Reset)).on(gone(1));
    let before = life.unsaved();
    let life = life.on(up(1));
    assert_eq!(
        life.effects,
        [Effect::Message(Message::RemoveSession {
            generation: 1,
            compute: None
        })]
    );
    assert_eq!(life.unsaved(), before);
    assert_eq!(life.on(gone(1)).unsaved(), before);
}

#[test]
fn a_compute_that_is_gone_remembers_the_sessions_that_have_not_been_told() {
    let slot = Life::new().session.slot();
    let both = compute::claim(Some(&compute::claim(None, &slot, "a", "c1", 0)), &slot, "b", "-", 0);
    let gone = compute::observe(&both, Seen::Gone).expect("it changes");
    assert_eq!((gone.phase, gone.sessions.len()), (ComputePhase::Gone, 2));
    let (later, ask) = compute::chase(&gone, 5).expect("somebody must tell them");
    assert_eq!((ask, later.due), (Chase::Delete, Some(5 + deadlines::COMPUTE_RETRY)));
    assert_ne!(compute::claim(Some(&gone), &slot, "c", "c2", 6).id, "c1");
    let told = compute::leave(&compute::leave(&later, "a", 0, 6), "b", 0, 7);
    assert_eq!((told.phase, told.due), (ComputePhase::Gone, None));
}

#[test]
fn a_clean_up_that_comes_twice_is_one() {
    let cleaning = Life::launching().on(entered("s", Step::CleanUp, "clean"));
    assert_eq!((cleaning.session.phase, cleaning.removes()), (Phase::Stopping, true));
    let before = cleaning.unsaved();
    let again = cleaning.on(entered("s", Step::CleanUp, "clean"));
    assert_eq!((again.unsaved(), again.effects), (before, vec![]));
}

#[test]
fn a_step_that_cannot_be_done_fails_its_operation_only_while_its_fact_is_still_to_come() {
    let why = Failure::new(Code::FlowNoSuchFolder, "There is no such folder.");
    let refused = Event::StepEntered {
        operation: "s".into(),
        step: Step::ClaimCompute,
        token: "claim".into(),
        compute: None,
        cause: Some(why),
        image: None,
    };
    let life = Life::new().on(wanted("s", Kind::Start)).on(refused.clone());
    assert_eq!(life.session.phase, Phase::Stopping);
    assert_eq!(life.answers(), [("claim", Some("Flow.NoSuchFolder"))]);
    assert_eq!(
        life.on(refused.clone()).answers(),
        [("claim", Some("Flow.NoSuchFolder"))]
    );
    let late = Life::installing().on(refused);
    assert_eq!(
        (late.session.phase, late.answers()),
        (Phase::Installing, vec![("claim", None)])
    );
}

#[test]
fn an_install_changes_neither_the_size_nor_the_identity_nor_the_image_of_a_session() {
    let wants = Settings {
        folder: said("/elsewhere".into()),
        image: said(Some("other".into())),
        identity: said(Some("id".into())),
        ..sized("large")
    };
    let life = Life::ready().on(Event::Wanted {
        operation: Operation::new("i", Kind::Install, Some(wants)),
    });
    let life = life
        .on(entered("i", Step::InstallPackages, "t"))
        .on(installed(1, "i", 1));
    assert_eq!(life.session.phase, Phase::Ready);
    assert_eq!(
        life.session.settings,
        Settings {
            folder: said("/elsewhere".into()),
            ..sized("local")
        }
    );
}

#[test]
fn a_silent_agent_is_the_reason_even_when_its_install_is_late_too() {
    let installing = Life::ready().on(wanted("i", Kind::Install));
    let life = installing.later(deadlines::INSTALLING).on(Event::Tick);
    assert_eq!(life.ends(), [("i", Outcome::Failed, Some("Session.AgentSilent"))]);
}

/// The settings that a command names, and no others.
fn saying(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut wants = Settings {
        size: "unsaid".to_owned().into(),
        ..sized("unsaid")
    };
    change(&mut wants);
    wants
}

fn idle_of(seconds: Millis) -> Settings {
    saying(|wants| wants.idle = said(seconds * 1000))
}

fn image_of(name: &str) -> Settings {
    saying(|wants| wants.image = said(Some(name.into())))
}

fn size_of(name: &str) -> Settings {
    saying(|wants| wants.size = said(name.into()))
}

fn update(id: &str, wants: Settings) -> Event {
    Event::Wanted {
        operation: Operation::new(id, Kind::Update, Some(wants)),
    }
}

fn idle_seen(session: &Session) -> Event {
    Event::IdleSeen {
        operation: "idle".into(),
        generation: session.generation,
        activity: session.last_activity,
        why: None,
    }
}

fn idle_near(session: &Session) -> Event {
    Event::IdleNear {
        generation: session.generation,
        due: session.idle_due().expect("it is Ready and quiet"),
    }
}

#[test]
fn a_session_is_stopped_in_use_when_its_users_time_of_the_day_is_used_up() {
    let ready = Life::ready();
    let until = ready.now + 100_000;
    let why = Failure::new(Code::SessionDailyTimeUsedUp, "");
    let used_up = |generation| Event::DailyTimeUsedUp {
        operation: "daily".into(),
        generation,
        until,
        why: why.clone(),
    };
    let near = |due| Event::DailyTimeNear { generation: 1, due };
    let busy = ready.on(run("r"));
    let warned = busy.on(near(until));
    let told = |life: &Life| {
        let is_warning = |effect: &&Effect| matches!(effect, Effect::Message(Message::WarnDailyTime { .. }));
        life.effects.iter().filter(is_warning).count()
    };
    assert_eq!((told(&warned), warned.session.daily_warned), (1, Some(until)));
    assert_eq!(told(&warned.clone().on(near(until))), 0, "once for each end");
    assert_eq!(
        told(&warned.clone().on(near(until - 1))),
        1,
        "it comes earlier, or later"
    );
    // Of an older session, or late: the time has begun anew by then.
    for life in [
        warned.clone().on(used_up(0)),
        warned.clone().later(100_000).on(used_up(1)),
    ] {
        assert_eq!(life.session.phase, Phase::Ready);
    }
    let stopping = warned.on(used_up(1));
    assert_eq!(stopping.session.phase, Phase::Stopping);
    let gone = stopping.on(gone(1));
    assert_eq!(
        (gone.session.phase, &gone.session.stopped_for, gone.session.daily_warned),
        (Phase::Stopped, &Some(why.clone()), None)
    );
    let ended = Effect::Row(Row::RunEnded {
        run: "r".into(),
        outcome: Outcome::Canceled,
        failure: Some(why),
    });
    assert!(gone.effects.contains(&ended), "its run is told why: {:?}", gone.effects);
    assert_eq!(gone.on(wanted("again", Kind::Start)).session.stopped_for, None);
}

#[test]
fn a_session_that_is_stopped_follows_its_folder_and_takes_no_other_change() {
    let moved = || saying(|wants| wants.folder = said("/moved".into()));
    let stopped = Life::ready().on(wanted("stop", Kind::Stop)).on(gone(1));
    let told = stopped.clone().on(update("u", moved()));
    assert_eq!(
        (told.session.phase, &told.session.settings.folder),
        (Phase::Stopped, &said("/moved".into()))
    );
    let again = told.clone().on(wanted("start", Kind::Start));
    assert_eq!(again.session.settings.folder.value, "/moved");
    let refused = |life: &Life, wants| decide(&life.session, &update("u", wants), life.now).unwrap_err();
    let both = Settings {
        idle: said(1),
        ..moved()
    };
    assert_eq!(refused(&stopped, both), Refusal::NoSession(Kind::Update));
    assert_eq!(refused(&told, moved()), Refusal::NoSession(Kind::Update), "it is there");
    assert_eq!(
        refused(&Life::new(), moved()),
        Refusal::NoSession(Kind::Update),
        "it has no history"
    );
}

#[test]
fn settings_count_in_the_order_in_which_they_were_named() {
    let run_file = Settings {
        idle: Named::new(1, Origin::RunFile),
        image: Named::new(Some("from the file".into()), Origin::RunFile),
        ..saying(|_| ())
    };
    let all = idle_of(7).over(&run_file).over(&sized("local"));
    assert_eq!(all.idle, said(7_000));
    assert_eq!(all.image, Named::new(Some("from the file".to_owned()), Origin::RunFile));
    assert_eq!(
        (all.size.value.as_str(), all.folder.value.as_str()),
        ("local", "/flow"),
        "what nobody names stays"
    );
}

#[test]
fn the_idle_time_is_one_hour_where_nobody_names_another() {
    let idle = Settings::new("/flow").idle;
    assert_eq!((idle.value, idle.is_named()), (3_600_000, false));
}

#[test]
fn a_compute_resource_is_for_one_user_one_vm_size_and_one_identity() {
    let slot = |owner: &str, size: &str, identity: Option<&str>| {
        let mut settings = sized(size);
        settings.identity.value = identity.map(str::to_owned);
        Session::never("f", "w", owner, settings).slot()
    };
    let own = slot("ann", "small", None);
    assert_eq!(own, slot("ann", "small", None));
    for other in [
        slot("bob", "small", None),
        slot("ann", "large", None),
        slot("ann", "small", Some("reader")),
    ] {
        assert_ne!(own, other);
    }
}

#[test]
fn a_new_idle_time_counts_at_once_also_under_the_sweeps_eyes() {
    let due = Life::ready().later(60_000);
    let seen = idle_seen(&due.session);
    let longer = due.on(update("u", idle_of(120)));
    assert_eq!(longer.ends(), [("u", Outcome::Succeeded, None)]);
    let at = longer.now;
    let kept = longer.on(seen);
    assert_eq!(
        (kept.session.phase, kept.session.idle_due()),
        (Phase::Ready, Some(at + 120_000))
    );

    let shorter = kept.on(update("v", idle_of(10)));
    assert_eq!(shorter.session.idle_due(), Some(at + 10_000), "a shorter one too");
    let later = shorter.later(10_000);
    let seen = idle_seen(&later.session);
    assert_eq!(later.on(seen).session.phase, Phase::Stopping);
}

fn network(network: Network, hosts: &[&str]) -> Settings {
    saying(|wants| {
        wants.network = said(network);
        wants.allow_hosts = said(hosts.iter().map(|host| (*host).to_owned()).collect());
    })
}

fn told(life: &Life) -> Vec<&Effect> {
    let is_network = |effect: &&Effect| matches!(effect, Effect::Message(Message::AgentNetwork { .. }));
    life.effects.iter().filter(is_network).collect()
}

#[test]
fn a_new_network_reaches_the_agent_at_once_in_order() {
    let life = Life::ready().on(update("u", network(Network::None, &["a.org:443"])));
    let first = match told(&life)[..] {
        [
            Effect::Message(Message::AgentNetwork {
                generation: 1,
                revision,
                network: Network::None,
                allow_hosts,
            }),
        ] if *allow_hosts == ["a.org:443"] => *revision,
        _ => panic!("{:?}", life.effects),
    };
    let same = life.on(update("v", network(Network::None, &["a.org:443"])));
    assert_eq!(told(&same), [] as [&Effect; 0], "it has that already");
    let hosts = same.on(update("w", network(Network::None, &[])));
    assert!(matches!(told(&hosts)[..], [Effect::Message(Message::AgentNetwork { revision, .. })] if *revision > first));
    let idle = hosts.on(update("x", idle_of(7)));
    assert_eq!(told(&idle), [] as [&Effect; 0]);
}

#[test]
fn a_network_changed_before_there_is_an_agent_comes_with_its_install() {
    let life = Life::launching().on(update("u", network(Network::None, &[])));
    assert_eq!(told(&life), [] as [&Effect; 0]);
    let life = life.on(up(1)).on(entered("s", Step::InstallPackages, "install"));
    let has_it = |effect: &Effect| matches!(effect, Effect::Message(Message::AgentInstall { settings, .. }) if settings.network.value == Network::None);
    assert!(life.effects.iter().any(has_it), "{:?}", life.effects);
}

#[test]
fn an_update_without_a_word_is_use_and_nothing_else() {
    let before = Life::ready();
    let life = Life::ready().later(30_000).on(wanted("extend", Kind::Update));
    assert_eq!(life.ends(), [("extend", Outcome::Succeeded, None)]);
    assert_eq!(life.session.settings, before.session.settings);
    assert_eq!(life.session.idle_due(), Some(life.now + 60_000));
}

#[test]
fn a_change_in_place_waits_for_nothing_and_outlives_what_is_under_way() {
    let life = Life::installing().on(update("u", idle_of(7)));
    assert_eq!(
        (life.ends(), life.session.phase),
        (vec![("u", Outcome::Succeeded, None)], Phase::Installing)
    );

    let resetting = Life::ready().on(made_of("r", Kind::Reset, "large"));
    let life = resetting
        .on(update("u", idle_of(7)))
        .on(entered("r", Step::StopSession, "stop"))
        .on(gone(1));
    let settings = &life.session.settings;
    assert_eq!((settings.size.value.as_str(), settings.idle.value), ("large", 7_000));
}

#[test]
fn a_new_size_makes_the_session_anew_and_only_then_counts() {
    let life = Life::ready().on(update("u", size_of("large")));
    assert_eq!(
        (life.session.phase, life.session.settings.size.value.as_str()),
        (Phase::Ready, "local")
    );
    let life = life.on(entered("u", Step::StopSession, "stop"));
    assert_eq!(life.session.phase, Phase::Stopping);
    let life = life.on(gone(1));
    assert_eq!((life.session.phase, life.session.generation), (Phase::Provisioning, 2));
    assert_eq!(life.session.slot().size, "large");
    // One that the session has already is no change.
    let same = Life::ready().on(update("u", size_of("local")));
    assert_eq!((same.session.phase, same.session.generation), (Phase::Ready, 1));
}

#[test]
fn a_reset_stays_on_its_compute_resource_unless_that_is_gone_or_is_to_be_another() {
    let leaves = |life: &Life| {
        life.effects
            .iter()
            .any(|e| matches!(e, Effect::Row(Row::LeaveCompute { .. })))
    };
    let going_down = |kind, size: &str| {
        Life::ready()
            .on(made_of("r", kind, size))
            .on(entered("r", Step::StopSession, "stop"))
    };
    let seen_gone = going_down(Kind::Reset, "local").on(gone(1));
    assert_eq!(
        (seen_gone.session.compute.as_deref(), leaves(&seen_gone)),
        (Some("c1"), false)
    );
    assert_eq!(
        (seen_gone.session.phase, seen_gone.session.generation),
        (Phase::Provisioning, 2)
    );
    // What it claims next is what it has, and it is up.
    assert_eq!(
        seen_gone.on(claimed("r", "claim", "promptflow")).session.phase,
        Phase::Launching
    );
    for (left, why) in [
        (going_down(Kind::Reset, "large").on(gone(1)), "another size"),
        (going_down(Kind::Update, "large").on(gone(1)), "another size"),
        (
            going_down(Kind::Reset, "local").on(Event::ComputeGone {
                compute: "c1".into(),
                why: "it was reclaimed".into(),
            }),
            "it is gone",
        ),
        (
            going_down(Kind::Reset, "local").later(600_000).on(Event::Tick),
            "nothing was heard of it",
        ),
        (
            Life::ready()
                .on(wanted("s", Kind::Stop))
                .on(entered("s", Step::StopSession, "stop"))
                .on(gone(1)),
            "a stop",
        ),
    ] {
        assert_eq!((left.session.compute.as_deref(), leaves(&left)), (None, true), "{why}");
    }
}

/// The step that claims compute, of which the handler has found this base image.
fn claimed(operation: &str, token: &str, image: &str) -> Event {
    Event::StepEntered {
        operation: operation.into(),
        step: Step::ClaimCompute,
        token: token.into(),
        compute: Some(Claimed {
            id: "c1".into(),
            up: true,
            new: false,
        }),
        cause: None,
        image: Some(image.to_owned().into()),
    }
}

#[test]
fn a_new_base_image_counts_from_the_next_reset_on() {
    let claims = |operation: &str, image: &str| claimed(operation, &format!("claim {image}"), image);
    let image_in = |life: &Life| match life.effects.last() {
        Some(
            Effect::Message(Message::AgentInstall { settings, .. })
            | Effect::Message(Message::LaunchSession { settings, .. }),
        ) => settings.image.value.clone(),
        other => panic!("{other:?}"),
    };
    let life = Life::new().on(wanted("s", Kind::Start)).on(claims("s", "old"));
    let life = life.on(entered("s", Step::LaunchSession, "launch"));
    assert_eq!(image_in(&life).as_deref(), Some("old"));
    let life = life
        .on(up(1))
        .on(entered("s", Step::InstallPackages, "install"))
        .on(installed(1, "s", 3));

    let stale = life.on(update("u", image_of("new")));
    let has = stale.session.image.clone().map(|image| image.value);
    let wants = &stale.session.settings.image.value;
    assert_eq!((has.as_deref(), wants.as_deref()), (Some("old"), Some("new")));
    assert_eq!(stale.session.phase, Phase::Ready);
    let installing = stale
        .on(wanted("i", Kind::Install))
        .on(entered("i", Step::InstallPackages, "t"));
    assert_eq!(
        image_in(&installing).as_deref(),
        Some("old"),
        "nothing swaps it under the packages"
    );

    let reset = installing.on(installed(1, "i", 1)).on(wanted("r", Kind::Reset));
    let reset = reset
        .on(entered("r", Step::StopSession, "stop"))
        .on(gone(1))
        .on(claims("r", "new"));
    let reset = reset.on(entered("r", Step::LaunchSession, "launch"));
    assert_eq!(image_in(&reset).as_deref(), Some("new"));
    assert_eq!(reset.session.image.map(|image| image.value).as_deref(), Some("new"));
}

#[test]
fn a_deletion_is_warned_of_once_and_again_when_it_was_put_off() {
    let life = Life::ready();
    let due = life.session.idle_due().unwrap();
    assert_eq!(
        life.session.warning_due(),
        Some(due - 15_000),
        "a quarter of a short idle time before"
    );
    let early = idle_near(&life.session);
    let life = life.later(44_000).on(early.clone());
    assert!(life.effects.is_empty(), "nothing is said before");
    let life = life.later(1_000).on(early.clone());
    assert_eq!(
        life.effects,
        [Effect::Message(Message::WarnIdle { generation: 1, due })]
    );
    assert_eq!((life.session.warned, life.session.due()), (Some(due), Some(due)));
    let life = life.on(early.clone());
    assert!(life.effects.is_empty(), "nothing is said twice");

    let used = life.on(Event::Activity { generation: 1 });
    let put_off = used.session.idle_due().unwrap();
    assert_eq!(
        (used.session.warned, used.session.warning_due()),
        (None, Some(put_off - 15_000))
    );
    let used = used.later(45_000).on(early);
    assert!(used.effects.is_empty(), "what a sweep saw before says nothing after");
    let near = idle_near(&used.session);
    let warned = used.on(near);
    assert_eq!(warned.effects.len(), 1);
    // A longer idle time puts it off too.
    assert_eq!(warned.on(update("u", idle_of(600))).session.warned, None);
}

#[test]
fn a_warning_that_comes_after_the_deletion_was_due_says_nothing() {
    let life = Life::ready();
    let near = idle_near(&life.session);
    assert!(life.later(60_000).on(near).effects.is_empty());
}

#[test]
fn a_start_says_what_is_otherwise_than_it_wants() {
    let life = Life::ready().on(made_of("again", Kind::Start, "large"));
    let Some(Effect::Row(Row::OperationEnded { warning, outcome, .. })) = life.effects.first() else {
        panic!("{:?}", life.effects)
    };
    assert_eq!(*outcome, Outcome::Succeeded);
    expect!["The session was there already, and keeps its VM size. Update the session to have what you named: that changes the VM size by making the session anew"]
        .assert_eq(warning.as_deref().unwrap_or_default());
}

#[test]
fn a_session_says_which_named_settings_it_keeps_and_when_an_update_of_each_counts() {
    let life = Life::ready();
    let named = |origin: Origin| Settings {
        size: Named::new("large".into(), origin),
        idle: Named::new(5, origin),
        image: Named::new(Some("other".into()), origin),
        network: Named::new(Network::None, origin),
        ..Settings::new("/f")
    };
    let said = |session: &Session, wants: &Settings| session.keeps_otherwise(wants).unwrap_or_default();
    expect!["The session was there already, and keeps its VM size, base image, idle time and network. Update the session to have what you named: that changes the idle time and network at once, the base image with the next reset, the VM size by making the session anew"]
        .assert_eq(&said(&life.session, &named(Origin::RunFile)));
    // What the workspace says is for sessions to come.
    for origin in [Origin::Workspace, Origin::Default] {
        assert_eq!(said(&life.session, &named(origin)), "");
    }
    // The image that the session has by its flow's file is no other one.
    let mut session = life.session.clone();
    session.image = Some(Named::new("other".into(), Origin::FlowFile));
    let image = Settings {
        image: Named::new(Some("other".into()), Origin::Command),
        ..Settings::new("/f")
    };
    assert_eq!(said(&session, &image), "");
    // No session: it will have what is named.
    let stopped = Life::new();
    assert_eq!(said(&stopped.session, &named(Origin::Command)), "");
}

#[test]
fn a_phase_knows_since_when() {
    let life = Life::launching();
    let since = life.session.since;
    let life = life.later(5).on(up(1));
    assert_eq!(life.session.since, since + 5);
    assert_eq!(life.later(7).on(Event::Tick).session.since, since + 5);
}

#[test]
fn a_reset_has_what_was_recorded_and_on_another_base_image_what_the_requirements_say() {
    let reset = |packages: Packages| Event::Wanted {
        operation: Operation {
            packages,
            ..Operation::new("r", Kind::Reset, None)
        },
    };
    let installs = |packages: Packages, image: &str| {
        let mut ready = Life::ready();
        ready.session.image = Some("same".to_owned().into());
        let claims = claimed("r", "claim", image);
        let life = ready
            .on(reset(packages))
            .on(entered("r", Step::StopSession, "stop"))
            .on(gone(1));
        let life = life
            .on(claims)
            .on(entered("r", Step::LaunchSession, "launch"))
            .on(up(2));
        let life = life.on(entered("r", Step::InstallPackages, "install"));
        match life.effects.last() {
            Some(Effect::Message(Message::AgentInstall { packages, .. })) => packages.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(installs(Packages::Recorded, "same"), Packages::Recorded);
    assert_eq!(installs(Packages::Recorded, "other"), Packages::Required);
    assert_eq!(installs(Packages::Anew, "same"), Packages::Anew);
    assert_eq!(installs(Packages::Anew, "other"), Packages::Anew);
    // Two that want different packages are not the same wish.
    let life = Life::ready().on(reset(Packages::Recorded)).on(Event::Wanted {
        operation: Operation {
            packages: Packages::Anew,
            ..Operation::new("again", Kind::Reset, None)
        },
    });
    assert_eq!(life.session.next.map(|next| next.packages), Some(Packages::Anew));
}

/// A reset whose image is to be checked, in the step that takes the session down.
fn checking() -> Life {
    Life::ready().on(wanted("r", Kind::Reset)).on(Event::StepEntered {
        operation: "r".into(),
        step: Step::StopSession,
        token: "stop".into(),
        compute: None,
        cause: None,
        image: Some(Named::new("ex.org/a:1".into(), Origin::FlowFile)),
    })
}

fn checked(failure: Option<Failure>) -> Event {
    Event::ImageChecked {
        generation: 1,
        operation: "r".into(),
        failure,
    }
}

#[test]
fn a_session_goes_on_if_the_image_of_its_reset_cannot_be_had() {
    let life = checking();
    let image = life.effects.iter().find_map(|effect| match effect {
        Effect::Message(Message::CheckImage { image, .. }) => Some(image.as_str()),
        _ => None,
    });
    assert_eq!((image, life.session.phase), (Some("ex.org/a:1"), Phase::Ready));
    // A run that comes meanwhile waits for what comes of it.
    let life = life.on(Event::RunWanted {
        run: "run".into(),
        wants: sized("local"),
    });
    assert_eq!(life.session.runs["run"], Lease::Waiting);
    let failed = life.on(checked(Some(Failure::new(Code::ImageNotFound, "None is there."))));
    let said = failed.effects.iter().find_map(|effect| match effect {
        Effect::Row(Row::OperationEnded {
            failure: Some(failure), ..
        }) => Some(failure.to_string()),
        _ => None,
    });
    assert_eq!(
        said.as_deref(),
        Some("Image.NotFound: None is there. The session goes on as it was.")
    );
    assert_eq!((failed.session.phase, failed.session.generation), (Phase::Ready, 1));
    assert!(matches!(failed.session.runs["run"], Lease::Until(_)));
    assert_eq!(failed.session.deadline, None);

    let late = checking().later(deadlines::CHECKING).on(Event::Alive {
        generation: 1,
        nonce: 1,
        runs: Vec::new(),
    });
    let late = late.on(Event::Tick);
    assert_eq!(
        (late.session.phase, late.session.current.is_none()),
        (Phase::Ready, true)
    );
}

#[test]
fn a_session_that_ends_while_the_image_of_its_reset_is_checked_is_made_anew() {
    let life = checking().on(gone(1));
    assert_eq!((life.session.phase, life.session.generation), (Phase::Provisioning, 2));
    assert!(life.session.current.as_ref().is_some_and(|o| o.id == "r"));
    let late = life.on(checked(Some(Failure::new(Code::ImageNotFound, ""))));
    assert_eq!(late.session.phase, Phase::Provisioning);
}

#[test]
fn a_deleted_compute_resource_stops_its_session_and_each_run_is_told_why() {
    let why = Failure::new(Code::SessionComputeDeleted, "bob deleted it.");
    let drained = |compute: &str| Event::ComputeDrained {
        operation: "d".into(),
        compute: compute.into(),
        why: why.clone(),
    };
    let told = |life: &Life| -> Vec<(String, Outcome, Option<Failure>)> {
        let ends = life.effects.iter().filter_map(|effect| match effect {
            Effect::Row(Row::RunEnded { run, outcome, failure }) => Some((run.clone(), *outcome, failure.clone())),
            Effect::Row(Row::OperationEnded {
                operation,
                outcome,
                failure,
                ..
            }) => Some((operation.clone(), *outcome, failure.clone())),
            _ => None,
        });
        ends.collect()
    };
    let canceled = |what: &str| (what.to_owned(), Outcome::Canceled, Some(why.clone()));
    let stopped = ("d".to_owned(), Outcome::Succeeded, None);

    // One that is Ready with a run; that of another compute resource changes nothing.
    let life = Life::ready().on(run("r")).on(drained("another"));
    assert_eq!((life.session.phase, life.effects.len()), (Phase::Ready, 0));
    let life = life.on(drained("c1"));
    assert_eq!(life.session.phase, Phase::Stopping);
    let life = life.on(drained("c1"));
    assert_eq!(life.effects, [], "twice is once");
    let life = life.on(gone(1));
    assert_eq!(told(&life), [canceled("r"), stopped]);
    assert_eq!((life.session.phase, &life.session.failure), (Phase::Stopped, &None));

    // A start that is under way, and the run that waits for it.
    let life = Life::new()
        .on(run("r"))
        .on(entered("start-for-r", Step::ClaimCompute, "t"));
    let life = life.on(drained("c1"));
    assert_eq!(told(&life), [canceled("start-for-r"), canceled("r")]);

    // One that is made anew where it is would stay; one that leaves, with a start that waits, is
    // left to do so.
    let life = Life::ready().on(wanted("again", Kind::Reset)).on(drained("c1"));
    assert_eq!(life.session.current.as_ref().map(|o| o.kind), Some(Kind::Stop));
    let life = Life::ready()
        .on(wanted("s", Kind::Stop))
        .on(made_of("next", Kind::Start, "local"));
    let life = life.on(drained("c1"));
    assert_eq!((life.effects.len(), life.session.next.is_some()), (0, true));
}

#[test]
fn a_name_that_stands_for_another_image_by_now_makes_the_session_stale_until_a_reset() {
    let seen = |generation, latest: Option<&str>| Event::ImageSeen {
        generation,
        digest: "first".into(),
        latest: latest.map(Into::into),
    };
    let life = Life::ready().on(seen(1, None));
    let resolved = |life: &Life| life.session.resolved.clone();
    let latest = |life: &Life| resolved(life).and_then(|resolved| resolved.latest);
    assert_eq!(
        resolved(&life).map(|resolved| (resolved.digest, resolved.latest)),
        Some(("first".into(), None))
    );
    // What it was is no news, and an older generation's is none of this one's.
    let life = life.on(seen(1, Some("first"))).on(seen(0, Some("other")));
    assert_eq!(latest(&life), None);
    let life = life.on(seen(1, Some("second"))).on(seen(1, None));
    assert_eq!(latest(&life).as_deref(), Some("second"));
    assert_eq!(life.session.phase, Phase::Ready);
    let life = life
        .on(wanted("r", Kind::Reset))
        .on(entered("r", Step::StopSession, "stop"))
        .on(gone(1));
    assert_eq!(resolved(&life), None);
}
