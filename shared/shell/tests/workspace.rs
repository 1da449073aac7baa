//! The effect of a workspace's settings on starts: defaults, bounds, identities and quotas.

#[expect(dead_code, reason = "this file needs a part of the world")]
mod world;

use contract::{FlowRef, Origin, Phase, people::RoleRow, workspace::WorkspaceRow};
use lifecycle::{
    Code, Failure,
    quota::Usage,
    size::{Offer, Used},
};
use serde_json::{Value, json};
use shell::{Ports, Sender, SpeaksFor, accept, record_use, sum_usages, sweep};
use world::World;

fn world(settings: Value) -> World {
    let world = World::new(None);
    let row = WorkspaceRow {
        workspace: "local".to_owned(),
        revision: 1,
        settings: serde_json::from_value(settings).unwrap(),
        ..WorkspaceRow::default()
    };
    let mut state = world.state.lock().unwrap();
    state.workspace = Some(row);
    state.most_sessions = 20;
    drop(state);
    world
}

fn flow(lineage: &str) -> FlowRef {
    FlowRef {
        workspace: "local".to_owned(),
        owner: "alice".to_owned(),
        lineage: lineage.to_owned(),
    }
}

/// Gives a command, and returns why its operation failed.
async fn give(world: &World, lineage: &str, id: &str, wish: Value) -> Option<String> {
    let mut command = json!({ "id": id, "flow": flow(lineage) });
    command
        .as_object_mut()
        .unwrap()
        .extend(wish.as_object().unwrap().clone());
    world.send(&command);
    world.settle().await;
    let state = world.state.lock().unwrap();
    let row = state.operations.get(id).expect("a command has a row");
    row.failure.as_ref().map(ToString::to_string)
}

fn start(size: Option<&str>) -> Value {
    let settings = size.map_or_else(|| json!({}), |size| json!({ "size": size }));
    json!({ "command": "start", "settings": settings })
}

#[tokio::test]
async fn a_start_over_the_quota_of_processors_is_refused_and_one_in_its_place_is_not() {
    let world = world(json!({ "quota": { "vcpus": { "D": 8 } } }));
    let d4 = "Standard_D4s_v5";
    assert_eq!(give(&world, "/a", "a", start(Some(d4))).await, None);
    // On the same compute resource, and of another family.
    assert_eq!(give(&world, "/b", "b", start(Some(d4))).await, None);
    assert_eq!(give(&world, "/c", "c", start(Some("m6i.xlarge"))).await, None);
    assert_eq!(give(&world, "/d", "d", start(Some("Standard_D2s_v5"))).await, None);
    let over = give(&world, "/e", "e", start(Some("Standard_D4as_v5"))).await.unwrap();
    assert_eq!(
        over,
        "Session.QuotaExceeded: The quota of vCPUs of family D in the workspace local is 8 for you. Standard_D4as_v5 needs 4 more, and 6 are \
         in use: /a (Standard_D4s_v5), /b (Standard_D4s_v5), /d (Standard_D2s_v5). Stop one of these, then start this one again."
    );
    assert_eq!(world.phase(&flow("/e").key()), Phase::Failed);
    // One session of two on a compute resource frees nothing.
    for lineage in ["/a", "/b"] {
        assert_eq!(
            give(
                &world,
                lineage,
                &format!("stop-{}", &lineage[1..]),
                json!({ "command": "stop" })
            )
            .await,
            None
        );
    }
    assert_eq!(give(&world, "/e", "e2", start(Some("Standard_D4as_v5"))).await, None);
    let state = world.state.lock().unwrap();
    let usage = &state.usage[&("local".to_owned(), "alice".to_owned())];
    assert_eq!(usage.vcpus("D").0, 6);
}

#[tokio::test]
async fn a_user_has_a_quota_of_their_own_and_only_live_sessions_count() {
    let world = world(json!({ "quota": { "sessions": 9, "users": { "alice": { "sessions": 1 } } } }));
    assert_eq!(give(&world, "/a", "a", start(None)).await, None);
    let over = give(&world, "/b", "b", start(None)).await.unwrap();
    assert!(
        over.contains("The quota of sessions in the workspace local is 1 for you, in use by /a (local)."),
        "{over}"
    );
    assert_eq!(give(&world, "/a", "stop", json!({ "command": "stop" })).await, None);
    for n in 0..5 {
        let lineage = format!("/flow-{n}");
        assert_eq!(give(&world, &lineage, &format!("s{n}"), start(None)).await, None);
        assert_eq!(
            give(&world, &lineage, &format!("e{n}"), json!({ "command": "stop" })).await,
            None
        );
    }
}

#[tokio::test]
async fn a_start_has_the_workspaces_defaults_and_an_update_of_something_else_keeps_what_there_is() {
    let world = world(json!({ "default_vm_size": "Standard_D2s_v5", "largest_idle_seconds": 600 }));
    assert_eq!(give(&world, "/a", "a", start(None)).await, None);
    let settings = |lineage: &str| {
        let state = world.state.lock().unwrap();
        let settings = &state.sessions[&flow(lineage).key()].0.session.settings;
        (settings.size.value.clone(), settings.size.origin, settings.idle.value)
    };
    assert_eq!(
        settings("/a"),
        ("Standard_D2s_v5".to_owned(), Origin::Workspace, 600_000)
    );
    assert_eq!(give(&world, "/b", "b", start(Some("local"))).await, None);
    let update = |seconds: u64| json!({ "command": "update", "settings": { "idle_seconds": seconds } });
    assert_eq!(give(&world, "/b", "b2", update(300)).await, None);
    assert_eq!(settings("/b"), ("local".to_owned(), Origin::Command, 300_000));
    let long = give(&world, "/b", "b3", update(3600)).await.unwrap();
    assert_eq!(
        long,
        "Session.IdleTooLong: The idle time is 3600 s, and the workspace local allows 600 s at most. Name a shorter one."
    );
}

#[tokio::test]
async fn an_identity_is_kept_by_its_id_and_an_unknown_one_lists_those_there_are() {
    let ids = json!({ "/ids/first": { "client_id": "c-1" }, "/ids/second": {} });
    let world = world(json!({ "identity": { "type": "user_assigned", "user_assigned_identities": ids } }));
    let row = RoleRow {
        workspace: "local".to_owned(),
        user: "alice".to_owned(),
        // By any of its names.
        identities: ["c-1".to_owned()].into(),
        ..RoleRow::default()
    };
    let key = ("local".to_owned(), "alice".to_owned());
    world.state.lock().unwrap().roles.insert(key, row);
    let start = |identity: &str| json!({ "command": "start", "settings": { "identity": identity } });
    for (place, name) in ["c-1", "first", "primary", "/ids/first"].into_iter().enumerate() {
        let lineage = format!("/flow-{place}");
        assert_eq!(
            give(&world, &lineage, &format!("s{place}"), start(name)).await,
            None,
            "{name}"
        );
        let state = world.state.lock().unwrap();
        let session = &state.sessions[&flow(&lineage).key()].0.session;
        assert_eq!(session.settings.identity.value.as_deref(), Some("/ids/first"), "{name}");
    }
    let denied = give(&world, "/x", "x", start("second")).await.unwrap();
    assert!(
        denied.contains("identities/assign for the identity /ids/second"),
        "{denied}"
    );
    let unknown = give(&world, "/y", "y", start("c-9")).await.unwrap();
    assert_eq!(
        unknown,
        "Session.NoIdentity: The workspace local has no identity c-9. It has /ids/first, /ids/second."
    );
}

#[tokio::test]
async fn a_start_that_is_refused_says_all_that_stands_in_its_way_at_once() {
    let ids = json!({ "/ids/first": {} });
    let world = world(json!({
        "largest_idle_seconds": 60,
        "quota": { "sessions": 0 },
        "identity": { "type": "user_assigned", "user_assigned_identities": ids },
    }));
    let settings = json!({ "size": "Standard_Dx", "idle_seconds": 600, "identity": "second" });
    let codes = |first: &Option<Failure>, also: &[Failure]| -> Vec<String> {
        let all = first.iter().chain(also);
        all.map(|failure| failure.error.as_str().to_owned()).collect()
    };
    let expected = [
        "Session.NoIdentity",
        "Session.NoSuchSize",
        "Session.IdleTooLong",
        "Session.QuotaExceeded",
    ];
    give(
        &world,
        "/f",
        "start",
        json!({ "command": "start", "settings": settings }),
    )
    .await;
    let mut run = json!({ "command": "run", "settings": settings, "run": {} });
    run["id"] = json!("run");
    run["flow"] = json!(flow("/f"));
    world.send(&run);
    world.settle().await;
    let row = world.load_operation("start").await.unwrap().unwrap();
    assert_eq!(codes(&row.failure, &row.also), expected);
    let row = world.load_run("run").await.unwrap().unwrap();
    assert_eq!(codes(&row.failure, &row.also), expected);
    // Who may not start it learns that, and nothing of what is there.
    let mut stranger = json!({ "id": "other", "command": "start", "settings": settings });
    stranger["flow"] = json!(flow("/f"));
    let sender = Sender {
        id: "bob".to_owned(),
        speaks_for: SpeaksFor::Itself,
    };
    accept(&world, &stranger.to_string(), &sender).await.unwrap();
    let row = world.load_operation("other").await.unwrap().unwrap();
    assert_eq!(codes(&row.failure, &row.also), ["Access.Denied"]);
}

#[tokio::test]
async fn a_sender_of_messages_is_the_user_that_its_workspace_says() {
    let world = world(json!({ "senders": { "AROA1": "alice" } }));
    for (id, sender, is_hers) in [("a", "AROA1:session", true), ("b", "AROA2:session", false)] {
        let mut command = start(None);
        command["id"] = json!(id);
        command["flow"] = json!(flow("/f"));
        // What a stranger says of itself counts for nothing.
        command["principal"] = json!({ "user": { "name": "alice", "workspace": "local", "roles": ["owner"] } });
        let sender = Sender {
            id: sender.to_owned(),
            speaks_for: SpeaksFor::Itself,
        };
        accept(&world, &command.to_string(), &sender).await.unwrap();
        let row = world.state.lock().unwrap().operations.get(id).cloned();
        let failure = row.and_then(|row| row.failure).map(|failure| failure.error);
        assert_eq!(failure.is_none(), is_hers, "{failure:?}");
    }
}

#[tokio::test]
async fn a_size_that_nobody_names_is_the_cheapest_for_what_past_runs_used_and_a_named_one_wins() {
    let world = world(json!({ "quota": { "vcpus": { "c": 2 } } }));
    let settings = |lineage: &str| {
        let state = world.state.lock().unwrap();
        let settings = &state.sessions[&flow(lineage).key()].0.session.settings;
        (settings.size.value.clone(), settings.choice.clone())
    };
    let local = "one machine has no cheaper size than all of it; no run of the flow was measured yet, which counts as 4 processors and 16 GiB";
    assert_eq!(give(&world, "/a", "a", start(None)).await, None);
    assert_eq!(settings("/a"), ("local".to_owned(), local.to_owned()));
    // On EC2, with runs that were measured; one that comes twice counts once, and twenty are kept.
    world.state.lock().unwrap().offer = Offer::Ec2;
    let used = |memory: u64| Used {
        processor: 500,
        took: 1_000,
        memory: memory << 20,
    };
    for (run, memory) in [("old", 100_000), ("old", 100_000)] {
        record_use(&world, &flow("/b").key(), run, used(memory)).await.unwrap();
    }
    for n in 0..20 {
        record_use(&world, &flow("/b").key(), &format!("r{n}"), used(300))
            .await
            .unwrap();
    }
    assert_eq!(give(&world, "/b", "b", start(None)).await, None);
    let (size, choice) = settings("/b");
    assert_eq!(size, "c6i.large");
    assert_eq!(
        choice,
        "the cheapest that is large enough, at $0.085 an hour; the flow's last 20 runs used 0.5 processors and 300 MiB at most"
    );
    // What is there keeps its size; what the quota has no room for is passed over; what is named is
    // taken as it is.
    world.state.lock().unwrap().used.clear();
    assert_eq!(give(&world, "/b", "b2", start(None)).await, None);
    assert_eq!(settings("/b"), (size, choice));
    record_use(&world, &flow("/c").key(), "r", used(300)).await.unwrap();
    assert_eq!(give(&world, "/c", "c", start(None)).await, None);
    assert_eq!(settings("/c").0, "m6i.large");
    assert_eq!(give(&world, "/d", "d", start(Some("Standard_D2s_v5"))).await, None);
    assert_eq!(settings("/d"), ("Standard_D2s_v5".to_owned(), String::new()));
}

#[tokio::test]
async fn a_quota_of_all_users_counts_what_each_of_them_has_until_it_ends() {
    let total = json!({ "sessions": 2, "vcpus": { "D": 4 } });
    let world = world(json!({ "quota": { "total": total } }));
    assert_eq!(give(&world, "/a", "a", start(Some("Standard_D4s_v5"))).await, None);
    assert_eq!(give(&world, "/b", "b", start(Some("local"))).await, None);
    // The other users' part is theirs, so what bars this one is told by names of users alone.
    {
        let mut state = world.state.lock().unwrap();
        let all = state.usage.get_mut(&("local".to_owned(), String::new())).unwrap();
        assert_eq!((all.sessions.len(), all.vcpus("D").0), (2, 4));
        for held in all.sessions.values_mut() {
            assert_eq!(held.lineage, "alice");
            held.lineage = "bob".to_owned();
        }
    }
    let over = give(&world, "/c", "c", start(Some("local"))).await.unwrap();
    assert_eq!(
        over,
        "Session.QuotaExceeded: The quota of sessions in the workspace local is 2 for everybody together, in use by bob (Standard_D4s_v5), \
         bob (local). Stop one of yours, or ask one of these users or an owner of the workspace to stop one, then start this one again."
    );
    assert_eq!(give(&world, "/b", "stop-b", json!({ "command": "stop" })).await, None);
    assert_eq!(give(&world, "/c", "c2", start(Some("local"))).await, None);
    let state = world.state.lock().unwrap();
    let own = &state.usage[&("local".to_owned(), "alice".to_owned())];
    let all = sum_usages(&Usage::default(), [("alice", own), ("bob", own)]);
    assert_eq!((all.revision, all.sessions.len(), own.sessions.len()), (1, 2, 2));
    assert!(all.sessions.values().all(|held| held.lineage != "/c"));
}

#[tokio::test]
async fn sessions_are_warned_and_stopped_when_the_time_of_a_day_is_used_up_and_a_start_is_refused_until_the_next() {
    let world = world(json!({ "quota": { "session_seconds_per_day": 40 } }));
    assert_eq!(give(&world, "/a", "a", start(None)).await, None);
    let key = flow("/a").key();
    {
        let state = world.state.lock().unwrap();
        let session = &state.sessions[&key].0.session;
        assert_eq!(session.phase, Phase::Stopped);
        let why = session.stopped_for.as_ref().expect("nobody asked for it");
        assert_eq!(why.error, Code::SessionDailyTimeUsedUp);
        assert_eq!(state.warned.len(), 1);
        let own = &state.usage[&("local".to_owned(), "alice".to_owned())];
        assert_eq!((own.sessions.len(), own.due), (0, None));
    }
    let refused = give(&world, "/b", "b", start(None)).await.unwrap();
    expect_test::expect!["Session.DailyTimeUsedUp: Your sessions may live for 40 s a day in the workspace local, all of them together, and have lived for 40 s today. The time begins anew at 1970-01-02 00:00 UTC. Start the session then, or ask an owner of the workspace for more."].assert_eq(&refused);
    assert!(world.state.lock().unwrap().computes.len() == 1, "nothing was made");
    world.state.lock().unwrap().now = 86_400_000;
    assert_eq!(give(&world, "/b", "b2", start(None)).await, None);
}

#[tokio::test]
async fn a_sweep_counts_what_each_user_has_once_in_five_minutes() {
    let world = world(json!({}));
    for name in ["/a", "/b"] {
        assert_eq!(give(&world, name, &name[1..], start(None)).await, None);
    }
    let counted = async |now: u64| {
        world.state.lock().unwrap().now = now;
        let live = sweep(&world, 0).await.unwrap().live;
        (live.users, live.sessions, live.instances, live.lived > 0)
    };
    assert_eq!(counted(1_200_001).await, (1, 2, 0, true));
    assert_eq!(counted(1_200_002).await, (0, 0, 0, false));
    assert_eq!(counted(1_500_000).await, (1, 2, 0, true));
    // On the next day there is nothing to count, and nothing is due.
    for name in ["/a", "/b"] {
        let id = format!("stop-{}", &name[1..]);
        assert_eq!(give(&world, name, &id, json!({ "command": "stop" })).await, None);
    }
    assert_eq!(counted(86_400_000 + 300_000).await, (0, 0, 0, false));
    assert_eq!(world.due(0, u64::MAX).await.unwrap(), []);
}

#[tokio::test]
async fn a_size_with_a_gpu_is_refused_when_it_is_asked_for_where_none_is_ordered() {
    let world = world(json!({}));
    world.state.lock().unwrap().offer = Offer::Ec2;
    let refused = give(&world, "/a", "a", start(Some("Standard_NC4as_T4_v3")))
        .await
        .unwrap();
    assert_eq!(
        refused,
        "Compute.NoGpu: The VM size Standard_NC4as_T4_v3 has 1 T4, and no instance with a GPU is ordered here. Choose a VM size without one."
    );
    assert!(world.state.lock().unwrap().usage.is_empty(), "nothing was made");
}

#[tokio::test]
async fn a_command_that_takes_a_live_session_as_it_is_says_which_named_settings_it_keeps() {
    let world = world(json!({}));
    assert_eq!(give(&world, "/a", "a", start(None)).await, None);
    let named = json!({ "size": "Standard_D4s_v5" });
    world.send(&json!({ "id": "r", "flow": flow("/a"), "command": "run", "settings": named, "run": {} }));
    world.settle().await;
    let install = json!({ "command": "install", "settings": named });
    assert_eq!(give(&world, "/a", "i", install).await, None);
    assert_eq!(give(&world, "/a", "s", start(Some("Standard_D4s_v5"))).await, None);
    assert_eq!(give(&world, "/a", "plain", start(None)).await, None);
    let state = world.state.lock().unwrap();
    let expected = "The session was there already, and keeps its VM size. Update the session to have what you named: that changes the VM size by \
                    making the session anew";
    assert_eq!(state.runs["r"].warning.as_deref(), Some(expected));
    for (operation, warning) in [("i", Some(expected)), ("s", Some(expected)), ("plain", None)] {
        assert_eq!(state.operations[operation].warning.as_deref(), warning, "{operation}");
    }
}
