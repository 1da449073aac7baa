//! A change and the deletion of a run by a command.

#[expect(dead_code, reason = "this file needs a part of the world")]
mod world;

use contract::{FlowRef, row::OperationStatus};
use serde_json::{Value, json};
use world::{World, each_call_fails};

fn command(id: &str, lineage: &str, what: &Value) -> Value {
    let flow = FlowRef {
        workspace: "local".into(),
        owner: "alice".into(),
        lineage: lineage.into(),
    };
    let mut command = json!({ "id": id, "flow": flow });
    let parts = what.as_object().unwrap().clone();
    command.as_object_mut().unwrap().extend(parts);
    command
}

/// A run that has ended, with a file beside its row.
async fn run_one(world: &World) {
    let run = json!({ "command": "run", "settings": {}, "run": {} });
    world.send(&command("r", "/f", &run));
    world.settle().await;
    world.state.lock().unwrap().run_files.insert("r".into());
}

async fn send_twice(world: &World, id: &str, what: &Value) {
    for _ in 0..2 {
        world.send(&command(id, "/f", what));
        world.settle().await;
    }
}

#[tokio::test]
async fn a_run_is_renamed_and_archived_by_messages_whichever_call_fails() {
    let life = async |world: &World| {
        run_one(world).await;
        let name = json!({ "command": "change-run", "run": "r", "display_name": "the best" });
        send_twice(world, "name", &name).await;
        let hide = json!({ "command": "change-run", "run": "r", "archived": true });
        send_twice(world, "hide", &hide).await;
    };
    let lived = |world: &World, case: &str| {
        for id in ["name", "hide"] {
            assert_eq!(world.outcome(id), OperationStatus::Succeeded, "{case}: {id}");
        }
        let state = world.state.lock().unwrap();
        let row = &state.runs["r"];
        assert_eq!(
            (row.display_name(), row.archived, row.deleted),
            (Some("the best"), true, None),
            "{case}"
        );
    };
    each_call_fails(life, lived).await;
}

#[tokio::test]
async fn a_run_is_deleted_with_its_files_by_a_message_whichever_call_fails() {
    let life = async |world: &World| {
        run_one(world).await;
        send_twice(world, "gone", &json!({ "command": "delete-run", "run": "r" })).await;
        let name = json!({ "command": "change-run", "run": "r", "archived": true });
        send_twice(world, "late", &name).await;
    };
    let lived = |world: &World, case: &str| {
        assert_eq!(world.outcome("gone"), OperationStatus::Succeeded, "{case}");
        let state = world.state.lock().unwrap();
        assert!(
            state.runs["r"].deleted.is_some() && state.run_files.is_empty(),
            "{case}"
        );
        let late = state.operations["late"].failure.as_ref().map(ToString::to_string);
        assert!(late.is_some_and(|late| late.starts_with("Run.None")), "{case}");
    };
    each_call_fails(life, lived).await;
}

#[tokio::test]
async fn a_run_that_goes_on_or_is_of_another_flow_or_folder_is_left_as_it_is() {
    let world = World::new(None);
    run_one(&world).await;
    let said = async |id: &str, lineage: &str, what: &Value| {
        world.send(&command(id, lineage, what));
        world.settle().await;
        let state = world.state.lock().unwrap();
        let failure = state.operations[id].failure.as_ref();
        assert_eq!(state.runs["r"].deleted, None);
        failure.map_or("done".to_owned(), |failure| failure.error.as_str().to_owned())
    };
    let delete = json!({ "command": "delete-run", "run": "r" });
    assert_eq!(said("other", "/another", &delete).await, "Run.None");
    let none = json!({ "command": "delete-run", "run": "none" });
    assert_eq!(said("none", "/f", &none).await, "Run.None");
    world.state.lock().unwrap().is_stuck.insert("r".into());
    assert_eq!(said("stuck", "/f", &delete).await, "Run.NotDeleted");
    world.state.lock().unwrap().runs.get_mut("r").unwrap().status = contract::row::RunStatus::Running;
    assert_eq!(said("early", "/f", &delete).await, "Run.NotEnded");
}
