//! A whole life of a session, with each call of the outside failing in turn, before and after it
//! was done. The end is the same.

mod world;

use contract::{
    FlowRef, Phase,
    packages::{ByHand, Installation, Listed, Package, PackageOrigin},
    row::{OperationStatus, RunStatus},
};
use lifecycle::{
    Code,
    compute::ComputePhase,
    session::{Event, Named, Origin, Session, Settings, decide},
};
use serde_json::json;
use shell::{Happened, accept, happen, record_packages};
use world::{Loss, World, each_call_fails};

fn flow(name: &str) -> FlowRef {
    FlowRef {
        workspace: "local".into(),
        owner: "alice".into(),
        lineage: name.into(),
    }
}

fn command(id: &str, what: serde_json::Value) -> serde_json::Value {
    let mut command = json!({ "id": id, "flow": flow("/flows/joke") });
    command
        .as_object_mut()
        .unwrap()
        .extend(what.as_object().unwrap().clone());
    command
}

/// A run that needs a session, a reset, and a stop, each sent twice.
async fn life(world: &World) {
    for (id, what) in [
        ("run-1", json!({ "command": "run", "settings": {}, "run": {} })),
        ("reset-1", json!({ "command": "reset" })),
        ("install-1", json!({ "command": "install" })),
        ("stop-1", json!({ "command": "stop" })),
    ] {
        world.send(&command(id, what.clone()));
        world.send(&command(id, what));
        world.settle().await;
    }
}

fn assert_lived(world: &World, case: &str) {
    let key = flow("/flows/joke").key();
    assert_eq!(world.phase(&key), Phase::Stopped, "{case}");
    for operation in ["start-for-run-1", "reset-1", "install-1", "stop-1"] {
        assert_eq!(
            world.outcome(operation),
            OperationStatus::Succeeded,
            "{case}: {operation}"
        );
    }
    let state = world.state.lock().unwrap();
    assert_eq!(state.runs["run-1"].status, RunStatus::Completed, "{case}");
    assert_eq!(
        state.launched,
        [(key.clone(), 1), (key.clone(), 2)],
        "{case}: each generation has one container"
    );
    assert!(
        state.computes.values().all(|c| c.phase == ComputePhase::Gone),
        "{case}: {:?}",
        state.computes
    );
    assert!(state.usage.values().all(|usage| usage.sessions.is_empty()), "{case}");
    assert!(
        state.sessions[&key].0.outbox.is_empty(),
        "{case}: nothing is left unsent"
    );
}

#[tokio::test]
async fn one_failed_call_never_loses_or_repeats_an_effect() {
    let lives = each_call_fails(life, assert_lived).await;
    println!("{lives} lives, each with one failed call");
}

#[tokio::test]
async fn the_history_replays_to_the_session_that_is_stored() {
    let world = World::new(None);
    life(&world).await;
    let state = world.state.lock().unwrap();
    let stored = &state.sessions[&flow("/flows/joke").key()].0.session;
    let mut replayed = Session::never(&stored.flow, "local", "alice", stored.settings.clone());
    for ((_, revision), entry) in &state.log {
        assert_eq!(entry.from, replayed.phase);
        replayed = decide(&replayed, &entry.event, entry.at).unwrap().0;
        replayed.revision = *revision;
        assert_eq!(entry.to, replayed.phase);
    }
    assert_eq!(&replayed, stored);
}

#[tokio::test]
async fn a_start_over_the_quota_fails_with_its_name_and_leaves_nothing() {
    let world = World::new(None);
    for name in ["a", "b", "c", "d"] {
        let mut start = command(&format!("start-{name}"), json!({ "command": "start", "settings": {} }));
        start["flow"]["lineage"] = json!(name);
        world.send(&start);
        world.settle().await;
    }
    assert_eq!(world.phase(&flow("c").key()), Phase::Ready);
    assert_eq!(world.phase(&flow("d").key()), Phase::Failed);
    let state = world.state.lock().unwrap();
    assert_eq!(
        state.operations["start-d"].failure.as_ref().unwrap().to_string(),
        "Session.QuotaExceeded: The quota of sessions in the workspace local is 3 for you, in use by a (local), b (local), c (local). \
         Stop one that you do not need, then start this one again."
    );
    assert_eq!(state.computes.values().map(|c| c.sessions.len()).sum::<usize>(), 3);
}

#[tokio::test]
async fn a_command_for_somebody_elses_flow_is_refused_in_its_own_row_and_changes_nothing() {
    let world = World::new(None);
    let mut stop = command("stop-x", json!({ "command": "stop" }));
    stop["flow"]["owner"] = json!("bob");
    // What a stranger says about who they are counts for nothing.
    stop["principal"] = json!({ "user": { "name": "bob", "workspace": "local", "roles": ["data-scientist"] } });
    world.send(&stop);
    world.settle().await;
    let state = world.state.lock().unwrap();
    assert_eq!(
        state.operations["stop-x"].failure.as_ref().unwrap().error,
        Code::AccessDenied
    );
    assert!(state.sessions.is_empty());
}

#[tokio::test]
async fn a_session_that_is_idle_is_stopped_by_the_sweep() {
    let world = World::new(None);
    world.send(&command(
        "start-1",
        json!({ "command": "start", "settings": { "idle_seconds": 60 } }),
    ));
    let key = flow("/flows/joke").key();
    // Nobody renews the lease in this world, so the idle time is shorter than the lease, and the
    // last thing that is due.
    world.settle().await;
    assert_eq!(world.phase(&key), Phase::Stopped);
    let state = world.state.lock().unwrap();
    let stop = state
        .operations
        .values()
        .find(|o| o.by == "sweep")
        .expect("the stop has a row");
    assert_eq!(stop.status, OperationStatus::Succeeded);
    let seen = state.log.values().find_map(|entry| match entry.event {
        Event::IdleSeen { activity, .. } => Some(activity),
        _ => None,
    });
    assert_eq!(
        state.warned,
        [seen.unwrap() + 60_000],
        "its user was warned, once, with the exact time"
    );
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_a_size_that_is_none_is_refused_in_its_row() {
    let world = World::new(None);
    let settings = json!({ "idle_seconds": 3600, "size": "Standard_D2s_v3", "from_run_file": ["size"] });
    world.send(&command("start-1", json!({ "command": "start", "settings": settings })));
    world.settle().await;
    let key = flow("/flows/joke").key();
    for (id, settings) in [
        ("longer", json!({ "idle_seconds": 7200 })),
        ("larger", json!({ "size": "m6i.xlarge" })),
        ("none", json!({ "size": "huge" })),
    ] {
        world.send(&command(id, json!({ "command": "update", "settings": settings })));
        world.settle().await;
    }
    let state = world.state.lock().unwrap();
    let session = &state.sessions[&key].0.session;
    assert_eq!(
        (session.phase, session.generation),
        (Phase::Ready, 2),
        "a size makes it anew, an idle time does not"
    );
    let Settings { size, idle, image, .. } = &session.settings;
    assert_eq!(*size, Named::new("m6i.xlarge".into(), Origin::Command));
    assert_eq!(*idle, Named::new(7_200_000, Origin::Command));
    assert!(!image.is_named());
    let why = |id: &str| {
        state.operations[id]
            .failure
            .as_ref()
            .map(|failure| failure.error.as_str())
    };
    assert_eq!(
        [why("longer"), why("larger"), why("none")],
        [None, None, Some("Session.NoSuchSize")]
    );
    let first = state.log.values().find_map(|entry| match &entry.event {
        Event::Wanted { operation } => operation.wants.clone(),
        _ => None,
    });
    assert_eq!(first.unwrap().size.origin, Origin::RunFile);
}

#[tokio::test]
async fn a_run_goes_with_the_folder_that_it_names_and_one_that_names_none_with_the_sessions() {
    let world = World::new(None);
    for (id, what) in [
        ("first", json!({ "command": "run", "settings": {}, "run": {} })),
        ("stop", json!({ "command": "stop" })),
        (
            "start",
            json!({ "command": "start", "settings": { "folder": "s3://b/one" } }),
        ),
        ("kept", json!({ "command": "run", "settings": {}, "run": {} })),
        (
            "edited",
            json!({ "command": "run", "settings": { "folder": "s3://b/two" }, "run": {} }),
        ),
        ("again", json!({ "command": "run", "settings": {}, "run": {} })),
        ("stop-2", json!({ "command": "stop" })),
        ("later", json!({ "command": "run", "settings": {}, "run": {} })),
    ] {
        world.send(&command(id, what));
        world.settle().await;
    }
    let state = world.state.lock().unwrap();
    let folder = |run: &str| state.runs[run].folder.as_deref();
    assert_eq!(folder("first"), Some("/flows/joke"), "its lineage");
    let runs = ["kept", "edited", "again", "later"].map(folder);
    assert_eq!(runs, ["s3://b/one", "s3://b/two", "s3://b/one", "s3://b/one"].map(Some));
    let session = &state.sessions[&flow("/flows/joke").key()].0.session;
    assert_eq!(session.settings.folder.value, "s3://b/one");
}

#[tokio::test]
async fn a_run_reads_only_an_ended_run_of_its_own_user() {
    let world = World::new(None);
    let reads = |earlier: &str| json!({ "command": "run", "settings": {}, "run": { "run": earlier } });
    for (id, what) in [
        ("base", json!({ "command": "run", "settings": {}, "run": {} })),
        ("reads", reads("base")),
        ("reads-none", reads("nobody")),
    ] {
        world.send(&command(id, what));
        world.settle().await;
    }
    world.state.lock().unwrap().runs.get_mut("base").unwrap().by = "somebody else".into();
    world.send(&command("reads-theirs", reads("base")));
    world.settle().await;
    {
        let mut state = world.state.lock().unwrap();
        let base = state.runs.get_mut("base").unwrap();
        (base.by, base.status) = ("alice".into(), RunStatus::Running);
    }
    world.send(&command("reads-early", reads("base")));
    world.settle().await;
    let state = world.state.lock().unwrap();
    let why = |id: &str| state.runs[id].failure.as_ref().map(ToString::to_string);
    let none = |run: &str| {
        format!("Run.NoSuchRun: You have no run {run}, whose outputs this one reads. Name one that you have run.")
    };
    assert_eq!(
        ["reads", "reads-none", "reads-theirs"].map(why),
        [None, Some(none("nobody")), Some(none("base"))]
    );
    let early =
        "Run.NotEnded: The run base, whose outputs this one reads, has not ended. Wait for its end, and run again.";
    assert_eq!(why("reads-early").as_deref(), Some(early));
}

#[tokio::test]
async fn activity_between_the_sweeps_read_and_its_stop_wins() {
    let world = World::new(None);
    world.send(&command(
        "start-1",
        json!({ "command": "start", "settings": { "idle_seconds": 3600 } }),
    ));
    world.settle().await;
    let key = flow("/flows/joke").key();
    let seen = world.state.lock().unwrap().sessions[&key].0.session.clone();
    let stop_if_idle = |activity: u64| {
        let mut stop = command(
            "sweep-1",
            json!({ "command": "stop-if-idle", "generation": seen.generation }),
        );
        stop["activity"] = json!(activity);
        stop["principal"] = json!("sweep");
        stop.to_string()
    };
    let ours = shell::Sender {
        id: "ours".into(),
        speaks_for: shell::SpeaksFor::Anybody,
    };
    world.state.lock().unwrap().now += 3_600_000;
    let used = Event::Activity {
        generation: seen.generation,
    };
    let _ = happen(&world, &Happened::new(&key, used, "agent")).await.unwrap();
    accept(&world, &stop_if_idle(seen.last_activity), &ours).await.unwrap();
    assert_eq!(world.phase(&key), Phase::Ready);
    // The same stop counts once the idle time has passed after what it saw.
    let now = world.state.lock().unwrap().now;
    world.state.lock().unwrap().now += 3_600_000;
    accept(&world, &stop_if_idle(now), &ours).await.unwrap();
    assert_eq!(world.phase(&key), Phase::Stopping);
}

#[tokio::test]
async fn a_command_of_this_system_that_does_not_say_for_whom_it_is_is_no_command() {
    let world = World::new(None);
    let ours = shell::Sender {
        id: "ours".into(),
        speaks_for: shell::SpeaksFor::Anybody,
    };
    let mut said = command("stop-1", json!({ "command": "stop" }));
    said["principal"] = json!(null);
    let Err(shell::Fault::Meaningless(failure)) = accept(&world, &said.to_string(), &ours).await else {
        panic!("it was taken");
    };
    assert_eq!(
        failure.to_string(),
        "Command.NoPrincipal: A command of this system says for whom it is."
    );
    assert!(world.state.lock().unwrap().operations.is_empty());
}

#[tokio::test]
async fn what_the_webhooks_function_says_counts_only_as_far_as_a_rule_says_it() {
    let world = World::new(None);
    let maker = json!({ "user": { "name": "alice", "workspace": "local", "roles": ["data-scientist"] } });
    let mut rule = command("-", json!({ "command": "start", "settings": { "idle_seconds": 600 } }));
    rule.as_object_mut().unwrap().extend(
        json!({ "name": "a", "sender": "github", "kind": "github", "event": "push", "by": maker })
            .as_object()
            .unwrap()
            .clone(),
    );
    let row = json!({ "workspace": "local", "revision": 1, "rules": [rule] });
    world.state.lock().unwrap().webhooks = Some(serde_json::from_value(row).unwrap());
    let webhook = shell::Sender {
        id: "function:webhook".into(),
        speaks_for: shell::SpeaksFor::MakersOfRules,
    };
    let said = |id: &str, change: serde_json::Value| {
        let mut said = command(
            id,
            json!({ "command": "start", "settings": { "idle_seconds": 600 }, "principal": maker }),
        );
        said.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        said.to_string()
    };
    let other = json!({ "user": { "name": "bob", "workspace": "local", "roles": ["data-scientist"] } });
    for (id, change) in [
        ("other-settings", json!({ "settings": {} })),
        ("other-command", json!({ "command": "reset" })),
        ("other-flow", json!({ "flow": flow("/flows/other") })),
        ("other-principal", json!({ "principal": other })),
        ("no-principal", json!({ "principal": null })),
    ] {
        accept(&world, &said(id, change), &webhook).await.unwrap();
        let refused = world.state.lock().unwrap().operations[id].clone();
        assert_eq!(refused.failure.map(|f| f.error), Some(Code::AccessDenied), "{id}");
    }
    accept(&world, &said("as-the-rule-says", json!({})), &webhook)
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(world.outcome("as-the-rule-says"), OperationStatus::Succeeded);
    // A rule that is gone says nothing any more, also to what is under way.
    world.state.lock().unwrap().webhooks = None;
    accept(&world, &said("too-late", json!({})), &webhook).await.unwrap();
    let late = world.state.lock().unwrap().operations["too-late"].clone();
    assert_eq!(
        (late.by.as_str(), late.status),
        ("function:webhook", OperationStatus::Failed)
    );
}

/// The packages in an agent's report.
fn installation(
    count: u32,
    lock: &str,
    packages: Option<&[(&str, &str)]>,
    by_hand: &[(&str, Option<&str>)],
) -> Installation {
    let package = |(name, version): &(&str, &str)| Package {
        name: (*name).into(),
        version: (*version).into(),
        origin: PackageOrigin::Requirements,
        named: None,
        asked_by: Vec::new(),
    };
    Installation {
        count,
        lock: lock.into(),
        listed: packages.map(|packages| Listed {
            requirements: packages.iter().map(|(name, _)| (*name).into()).collect(),
            packages: packages.iter().map(package).collect(),
        }),
        by_hand: by_hand
            .iter()
            .map(|(name, version)| ByHand {
                name: (*name).into(),
                version: version.map(Into::into),
            })
            .collect(),
        isolation: None,
        left_out: None,
        described: None,
    }
}

/// Each entry of the history: who did it, and what changed.
fn history(world: &World) -> Vec<String> {
    let state = world.state.lock().unwrap();
    let told = |change: &contract::packages::Change| {
        let version = |version: &Option<String>| version.clone().unwrap_or_default();
        format!(" {}:{}>{}", change.name, version(&change.from), version(&change.to))
    };
    let entries = state.installs.values();
    entries
        .map(|entry| entry.packages.by.clone() + &entry.changes.iter().map(told).collect::<String>())
        .collect()
}

#[tokio::test]
async fn each_install_is_recorded_once_with_what_it_changed_and_a_lock_brings_back_what_was_listed_with_it() {
    let world = World::new(None);
    let record = async |generation, by: &str, kind, installation: Installation| {
        record_packages(&world, "f", generation, by, kind, &installation)
            .await
            .unwrap();
    };
    let install = Some(contract::Kind::Install);
    let first = installation(1, "one", Some(&[("a", "1"), ("b", "1")]), &[]);
    record(1, "start", Some(contract::Kind::Start), first.clone()).await;
    record(1, "start", Some(contract::Kind::Start), first.clone()).await;
    record(
        1,
        "more",
        install,
        installation(2, "two", Some(&[("a", "2"), ("c", "1")]), &[]),
    )
    .await;
    // Late: the one after it is there already.
    record(1, "start", Some(contract::Kind::Start), first).await;
    record(
        1,
        "run",
        None,
        installation(3, "two", None, &[("d", Some("1")), ("a", None)]),
    )
    .await;
    record(2, "back", install, installation(1, "one", None, &[])).await;
    record(2, "again", install, installation(2, "two", None, &[])).await;
    assert_eq!(
        history(&world),
        [
            "start a:>1 b:>1",
            "more a:1>2 b:1> c:>1",
            "run a:2> d:>1",
            "back a:>1 b:>1 c:1> d:1>",
            "again a:1>2 b:1> c:>1"
        ]
    );
    let row = world.state.lock().unwrap().packages["f"].clone();
    assert_eq!(
        (row.requirements, row.lock.as_str()),
        (vec!["a".to_owned(), "c".to_owned()], "two")
    );
    // The history is bounded.
    for count in 3..100 {
        record(2, "more", install, installation(count, "two", None, &[])).await;
    }
    assert_eq!(history(&world).len() as u64, contract::packages::MOST_INSTALLS);
}

#[tokio::test]
async fn one_failed_call_loses_no_install() {
    for at in 1.. {
        for loss in [Loss::Request, Loss::Reply] {
            let world = World::new(Some((at, loss)));
            let installation = installation(1, "one", Some(&[("a", "1")]), &[]);
            // A message whose handler failed comes again.
            while record_packages(&world, "f", 1, "start", None, &installation)
                .await
                .is_err()
            {}
            assert_eq!(history(&world), ["start a:>1"], "call {at}, {loss:?}");
            if world.calls() < at {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_run_of_a_name_that_another_flows_run_has_changes_nothing() {
    let world = World::new(None);
    let run = |lineage: &str, data: &str| json!({ "id": "mine", "flow": flow(lineage), "command": "run", "settings": {}, "run": { "data": data } });
    world.send(&run("/flows/joke", "/a"));
    world.settle().await;
    let first = world.state.lock().unwrap().runs["mine"].clone();
    assert_eq!(first.status, RunStatus::Completed);
    for other in [run("/flows/other", "/a"), run("/flows/joke", "/b")] {
        world.send(&other);
        world.settle().await;
    }
    let state = world.state.lock().unwrap();
    assert_eq!(state.runs["mine"], first);
    assert!(!state.sessions.contains_key(&flow("/flows/other").key()));
}

#[tokio::test]
async fn a_cancel_of_a_run_that_waits_ends_it_and_of_one_that_is_not_there_does_nothing() {
    let world = World::new(None);
    let cancel = |run: &str| command(&format!("cancel-{run}"), json!({ "command": "cancel", "run": run }));
    world.send(&cancel("none"));
    world.settle().await;
    assert!(world.state.lock().unwrap().sessions.is_empty(), "it makes no session");
    world.send(&command(
        "run-1",
        json!({ "command": "run", "settings": {}, "run": {} }),
    ));
    world.send(&cancel("run-1"));
    world.settle().await;
    let state = world.state.lock().unwrap();
    assert_eq!(state.runs["run-1"].status, RunStatus::Canceled);
    assert_eq!(state.runs["run-1"].failure.as_ref().unwrap().error, Code::RunCanceled);
}

/// Two sessions on one compute resource, which is then deleted: the command comes twice.
async fn deletion(world: &World) {
    for name in ["a", "b"] {
        let mut start = command(&format!("start-{name}"), json!({ "command": "start", "settings": {} }));
        start["flow"]["lineage"] = json!(name);
        world.send(&start);
        world.settle().await;
    }
    let compute = world.state.lock().unwrap().computes.keys().next().unwrap().clone();
    for _ in 0..2 {
        world.send(&command(
            "delete-1",
            json!({ "command": "delete-compute", "compute": compute }),
        ));
    }
    world.settle().await;
}

#[tokio::test]
async fn a_deleted_compute_resource_stops_its_sessions_whichever_call_fails() {
    let lived = |world: &World, case: &str| {
        for name in ["a", "b"] {
            assert_eq!(world.phase(&flow(name).key()), Phase::Stopped, "{case}: {name}");
        }
        assert_eq!(world.outcome("delete-1"), OperationStatus::Succeeded, "{case}");
        let state = world.state.lock().unwrap();
        let phases: Vec<_> = state.computes.values().map(|c| (c.phase, c.sessions.len())).collect();
        assert_eq!(phases, [(ComputePhase::Gone, 0)], "{case}");
        let drained = |entry: &&contract::row::LogRow| matches!(entry.event, Event::ComputeDrained { .. });
        let stops = state
            .log
            .values()
            .filter(drained)
            .filter(|entry| entry.from != entry.to);
        assert_eq!(stops.count(), 2, "{case}: each session is stopped once");
        assert!(state.usage.values().all(|usage| usage.sessions.is_empty()), "{case}");
    };
    each_call_fails(deletion, lived).await;
}

#[tokio::test]
async fn a_compute_resource_that_is_none_of_the_users_is_not_deleted() {
    let world = World::new(None);
    world.send(&command("start-1", json!({ "command": "start", "settings": {} })));
    world.settle().await;
    let compute = world.state.lock().unwrap().computes.keys().next().unwrap().clone();
    world
        .state
        .lock()
        .unwrap()
        .computes
        .get_mut(&compute)
        .unwrap()
        .slot
        .owner = "bob".into();
    for (id, compute) in [("other", compute.as_str()), ("none", "none")] {
        world.send(&command(id, json!({ "command": "delete-compute", "compute": compute })));
        world.settle().await;
        let state = world.state.lock().unwrap();
        let failure = state.operations[id].failure.clone().unwrap();
        assert_eq!(failure.error, Code::ComputeNone, "{failure}");
    }
    assert_eq!(world.phase(&flow("/flows/joke").key()), Phase::Ready);
}
