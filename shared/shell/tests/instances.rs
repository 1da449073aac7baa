//! Compute instances, from their creation to their deletion, and the sessions on them.

mod world;

use contract::{Code, FlowRef, Phase, notice::Notice, row::OperationStatus, workspace::WorkspaceRow};
use lifecycle::{compute::ComputePhase, session::Event};
use serde_json::json;
use world::{World, each_call_fails};

fn flow(name: &str) -> FlowRef {
    FlowRef {
        workspace: "local".into(),
        owner: "alice".into(),
        lineage: name.into(),
    }
}

fn command(id: &str, what: serde_json::Value) -> serde_json::Value {
    of("/flows/joke", id, what)
}

fn of(lineage: &str, id: &str, what: serde_json::Value) -> serde_json::Value {
    let mut command = json!({ "id": id, "flow": flow(lineage) });
    let fields = what.as_object().unwrap().clone();
    command.as_object_mut().unwrap().extend(fields);
    command
}

/// An instance, a session on it, and its stop: each command comes twice.
async fn life_of_an_instance(world: &World) {
    for (id, what) in [
        ("create-1", json!({ "command": "create-instance", "instance": "dev" })),
        (
            "start-1",
            json!({ "command": "start", "settings": { "compute": "dev" } }),
        ),
        ("stop-1", json!({ "command": "stop" })),
        (
            "start-2",
            json!({ "command": "start", "settings": { "compute": "dev" } }),
        ),
        ("end-1", json!({ "command": "stop-instance", "instance": "dev" })),
    ] {
        world.send(&command(id, what.clone()));
        world.send(&command(id, what));
        world.settle().await;
    }
}

#[tokio::test]
async fn an_instance_outlives_a_session_and_its_stop_ends_one_whichever_call_fails() {
    let lived = |world: &World, case: &str| {
        let key = flow("/flows/joke").key();
        assert_eq!(world.phase(&key), Phase::Stopped, "{case}");
        for operation in ["create-1", "start-1", "stop-1", "start-2", "end-1"] {
            assert_eq!(
                world.outcome(operation),
                OperationStatus::Succeeded,
                "{case}: {operation}"
            );
        }
        let state = world.state.lock().unwrap();
        let phases: Vec<_> = state.computes.values().map(|c| (c.phase, c.sessions.len())).collect();
        assert_eq!(
            phases,
            [(ComputePhase::Gone, 0)],
            "{case}: both sessions were on the one"
        );
        assert_eq!(state.instances.len(), 1, "{case}: it is stopped, and not deleted");
        let why = state.log.values().rev().find_map(|entry| match &entry.event {
            Event::ComputeDrained { why, .. } => Some(why.error.clone()),
            _ => None,
        });
        assert_eq!(why, Some(Code::InstanceStopped), "{case}");
    };
    each_call_fails(life_of_an_instance, lived).await;
}

#[tokio::test]
async fn a_session_on_an_instance_takes_its_settings_and_switches_by_an_update() {
    let world = World::new(None);
    let send = async |id: &str, what: serde_json::Value| {
        world.send(&command(id, what));
        world.settle().await;
        world.state.lock().unwrap().operations[id]
            .failure
            .clone()
            .map(|failure| failure.error)
    };
    let start = |settings: serde_json::Value| json!({ "command": "start", "settings": settings });
    let update = |settings: serde_json::Value| json!({ "command": "update", "settings": settings });
    assert_eq!(
        send("a", start(json!({ "compute": "dev" }))).await,
        Some(Code::InstanceNone)
    );
    let create = json!({ "command": "create-instance", "instance": "dev", "size": "Standard_D4s_v3" });
    assert_eq!(send("b", create.clone()).await, None);
    assert_eq!(send("c", create).await, Some(Code::InstanceExists));
    assert_eq!(
        send("d", start(json!({ "compute": "dev", "size": "Standard_D2s_v3" }))).await,
        Some(Code::InstanceFixedSettings)
    );
    assert_eq!(send("e", start(json!({ "compute": "dev" }))).await, None);
    let settings = || {
        let state = world.state.lock().unwrap();
        let session = &state.sessions[&flow("/flows/joke").key()].0.session;
        (
            session.settings.compute.value.clone(),
            session.settings.size.value.clone(),
            session.generation,
        )
    };
    assert_eq!(settings(), (Some("dev".into()), "Standard_D4s_v3".into(), 1));
    assert_eq!(
        send("f", update(json!({ "size": "Standard_D2s_v3" }))).await,
        Some(Code::InstanceFixedSettings)
    );
    assert_eq!(send("g", update(json!({ "idle_seconds": 600 }))).await, None);
    // To serverless compute and back: each time the session is made anew, and the instance stays.
    assert_eq!(send("h", update(json!({ "compute": "serverless" }))).await, None);
    assert_eq!(settings(), (None, "local".into(), 2));
    assert_eq!(send("i", update(json!({ "compute": "dev" }))).await, None);
    assert_eq!(settings(), (Some("dev".into()), "Standard_D4s_v3".into(), 3));
    // Stopped: a session never starts it, and its user does.
    let named = |what: &str| json!({ "command": what, "instance": "dev" });
    assert_eq!(send("j", named("stop-instance")).await, None);
    assert_eq!(
        send("k", start(json!({ "compute": "dev" }))).await,
        Some(Code::InstanceNotRunning)
    );
    assert_eq!(send("l", named("start-instance")).await, None);
    assert_eq!(send("m", start(json!({ "compute": "dev" }))).await, None);
    assert_eq!(send("n", named("delete-instance")).await, None);
    assert_eq!(world.phase(&flow("/flows/joke").key()), Phase::Stopped);
    assert_eq!(send("o", named("start-instance")).await, Some(Code::InstanceNone));
    let state = world.state.lock().unwrap();
    assert!(state.computes.values().all(|c| c.phase == ComputePhase::Gone));
}

#[tokio::test]
async fn an_instance_is_changed_at_once_where_it_can_be_and_else_from_its_next_start_on() {
    let world = World::new(None);
    let send = async |id: &str, what: serde_json::Value| {
        world.send(&command(id, what));
        world.settle().await;
        let state = world.state.lock().unwrap();
        state.operations[id].failure.as_ref().map(|why| why.error.clone())
    };
    let update = |id: &'static str, what: serde_json::Value| {
        let mut wish = json!({ "command": "update-instance", "instance": "dev" });
        wish.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        (id, wish)
    };
    let (id, larger) = update("u0", json!({ "size": "Standard_D4s_v3" }));
    assert_eq!(send(id, larger.clone()).await, Some(Code::InstanceNone));
    assert_eq!(
        send("c", json!({ "command": "create-instance", "instance": "dev" })).await,
        None
    );
    let start = || json!({ "command": "start", "settings": { "compute": "dev" } });
    for (id, wish, refused) in [
        ("u1", larger, None),
        ("u2", update("", json!({ "idle_shutdown_seconds": 36_000 })).1, None),
        (
            "u3",
            update("", json!({ "size": "Standard_D3s_v3" })).1,
            Some(Code::SessionNoSuchSize),
        ),
        ("s1", start(), None),
    ] {
        assert_eq!(send(id, wish).await, refused, "{id}");
    }
    let running = || {
        let state = world.state.lock().unwrap();
        let compute = state
            .computes
            .values()
            .find(|c| c.phase == ComputePhase::Up)
            .unwrap()
            .clone();
        let row = state.instances.values().next().unwrap().clone();
        (
            compute.slot.size,
            compute.shutdown.map(|shutdown| shutdown.after),
            row.size,
        )
    };
    let after = Some(36_000_000);
    assert_eq!(running(), ("local".into(), after, "Standard_D4s_v3".into()));
    assert_eq!(
        send("u4", update("", json!({ "no_idle_shutdown": true })).1).await,
        None
    );
    assert_eq!(running().1, None);
    for (id, what) in [("e", "stop-instance"), ("b", "start-instance")] {
        assert_eq!(send(id, json!({ "command": what, "instance": "dev" })).await, None);
    }
    assert_eq!(running(), ("Standard_D4s_v3".into(), None, "Standard_D4s_v3".into()));
    assert_eq!(send("s2", start()).await, None, "its sessions have the new size");
}

#[tokio::test]
async fn an_instance_that_nobody_uses_is_shut_down_with_its_sessions() {
    let world = World::new(None);
    world.send(&command(
        "create",
        json!({ "command": "create-instance", "instance": "dev", "idle_shutdown_seconds": 60 }),
    ));
    world.send(&command(
        "start",
        json!({ "command": "start", "settings": { "compute": "dev", "idle_seconds": 86400 } }),
    ));
    // Nobody renews the lease in this world, so the instance's idle time is shorter, and the last
    // thing that is due.
    world.settle().await;
    let key = flow("/flows/joke").key();
    assert_eq!(world.phase(&key), Phase::Stopped);
    let state = world.state.lock().unwrap();
    let compute = state.computes.values().next().unwrap();
    assert_eq!(compute.phase, ComputePhase::Gone);
    let code = |why: &Option<contract::Failure>| why.as_ref().unwrap().error.clone();
    assert_eq!(code(&compute.drained), Code::InstanceIdleShutdown);
    let told = state.log.values().find_map(|entry| match &entry.event {
        Event::IdleSeen { why, .. } => Some(code(why)),
        _ => None,
    });
    assert_eq!(told, Some(Code::InstanceIdleShutdown), "its session is told why");
    let warned = &state.notices[..];
    assert!(
        matches!(warned, [Notice::ShutDownSoon { instance, after: 60_000, .. }] if instance == "dev"),
        "its user is warned once before: {warned:?}"
    );
    assert_eq!(state.instances.len(), 1, "it is there, stopped");
}

#[tokio::test]
async fn a_running_instance_counts_in_its_users_quota_until_it_has_stopped() {
    let world = World::new(None);
    world.state.lock().unwrap().workspace = Some(WorkspaceRow {
        workspace: "local".to_owned(),
        settings: serde_json::from_value(json!({ "quota": { "vcpus": { "D": 4 } } })).unwrap(),
        ..WorkspaceRow::default()
    });
    let send = async |id: &str, what: serde_json::Value| {
        world.send(&command(id, what));
        world.settle().await;
        let failure = world.state.lock().unwrap().operations[id].failure.clone();
        failure.map(|failure| failure.to_string())
    };
    let create = |name: &str| json!({ "command": "create-instance", "instance": name, "size": "Standard_D4s_v5" });
    assert_eq!(send("a", create("dev")).await, None);
    let second = send("b", create("second")).await.unwrap();
    assert!(
        second.starts_with(Code::SessionQuotaExceeded.as_str())
            && second.contains("the compute instance dev (Standard_D4s_v5)"),
        "{second}"
    );
    let d4 = json!({ "command": "start", "settings": { "size": "Standard_D4s_v5" } });
    let serverless = send("c", d4.clone()).await.unwrap();
    assert!(serverless.contains("the compute instance dev"), "{serverless}");
    let on_it = json!({ "command": "start", "settings": { "compute": "dev" } });
    assert_eq!(send("d", on_it).await, None, "a session on it needs no more");
    assert_eq!(
        send("e", json!({ "command": "stop-instance", "instance": "dev" })).await,
        None
    );
    assert_eq!(send("f", d4).await, None);
    let start = json!({ "command": "start-instance", "instance": "dev" });
    assert!(
        send("g", start)
            .await
            .unwrap()
            .contains("/flows/joke (Standard_D4s_v5)")
    );
}
