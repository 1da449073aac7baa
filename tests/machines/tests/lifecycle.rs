//! `infra/lifecycle.asl.json` in moto: the order of an operation's steps, its answers, timeouts,
//! retries and catches.
//!
//! All three queues are one here. Times are a second or two instead of minutes: the test changes
//! the numbers and nothing else. The state machine has no heartbeats, so none are looked at.

use contract::step::StepMessage;
use lifecycle::session::Step;
use machines::World;
use serde_json::{Value, json};

/// The state machine, with every step timed out after `seconds`.
fn world(seconds: u64) -> World {
    World::with_definition(|queue| {
        let mut text = include_str!("../../../infra/lifecycle.asl.json").to_owned();
        for name in ["StartSession", "InstallPackages", "StopSession"] {
            text = text.replace(&format!("${{{name}QueueUrl}}"), queue);
        }
        let mut definition: Value = serde_json::from_str(&text).unwrap();
        for state in definition["States"].as_object_mut().unwrap().values_mut() {
            if state["Type"] == "Task" {
                state["TimeoutSeconds"] = json!(seconds);
            }
        }
        definition
    })
}

fn start(world: &World, kind: &str) -> String {
    world.start(json!({ "flow": world.flow, "operation": format!("{kind}-1"), "kind": kind }))
}

fn done(world: &World, step: &StepMessage) {
    let answer = json!({ "taskToken": step.token, "output": "{}" });
    world.call("stepfunctions", "send_task_success", answer);
}

fn failed(world: &World, step: &StepMessage, error: &str) {
    let answer = json!({ "taskToken": step.token, "error": error, "cause": "Why." });
    world.call("stepfunctions", "send_task_failure", answer);
}

fn next(world: &World, step: Step) -> StepMessage {
    let message = world.step();
    assert_eq!((message.step, &message.flow), (step, &world.flow));
    message
}

#[test]
fn each_operation_takes_its_steps_in_order_and_ends_when_the_last_is_answered() {
    let world = world(60);
    let (claim, launch, install, stop) = (
        Step::ClaimCompute,
        Step::LaunchSession,
        Step::InstallPackages,
        Step::StopSession,
    );
    for (kind, steps) in [
        ("start", vec![claim, launch, install]),
        ("install", vec![install]),
        ("stop", vec![stop]),
        ("reset", vec![stop, claim, launch, install]),
        ("update", vec![stop, claim, launch, install]),
    ] {
        let run = start(&world, kind);
        for step in steps {
            let message = next(&world, step);
            assert_eq!(message.operation, format!("{kind}-1"));
            done(&world, &message);
        }
        assert_eq!(world.ended(&run)["status"], "SUCCEEDED", "{kind}");
        assert!(world.is_quiet(), "{kind}");
    }
}

#[test]
fn a_step_that_fails_is_cleaned_up_with_its_reason_and_the_operation_fails() {
    let world = world(60);
    let run = start(&world, "start");
    done(&world, &next(&world, Step::ClaimCompute));
    failed(&world, &next(&world, Step::LaunchSession), "Session.LaunchFailed");
    let clean_up = next(&world, Step::CleanUp);
    let cause = clean_up.cause.as_ref().expect("a cause");
    assert_eq!(
        (cause.error.as_str(), cause.cause.as_str()),
        ("Session.LaunchFailed", "Why.")
    );
    done(&world, &clean_up);
    let ended = world.ended(&run);
    assert_eq!(
        (&ended["status"], &ended["error"]),
        (&json!("FAILED"), &json!("Session.OperationFailed"))
    );
}

#[test]
fn a_superseded_operation_ends_without_cleaning_up() {
    let world = world(60);
    let run = start(&world, "reset");
    failed(&world, &next(&world, Step::StopSession), "Session.Superseded");
    assert_eq!(world.ended(&run)["status"], "SUCCEEDED");
    assert!(world.is_quiet());
}

#[test]
fn a_stop_that_nobody_answers_is_asked_for_again() {
    let world = world(6);
    let run = start(&world, "stop");
    next(&world, Step::StopSession);
    // On AWS it comes with another token; moto gives the same one again.
    let second = next(&world, Step::StopSession);
    done(&world, &second);
    assert_eq!(world.ended(&run)["status"], "SUCCEEDED");
}

#[test]
fn an_install_that_nobody_answers_is_cleaned_up() {
    let world = world(6);
    let run = start(&world, "install");
    next(&world, Step::InstallPackages);
    let clean_up = next(&world, Step::CleanUp);
    assert_eq!(
        clean_up.cause.as_ref().expect("a cause").error.as_str(),
        "States.Timeout"
    );
    done(&world, &clean_up);
    assert_eq!(world.ended(&run)["status"], "FAILED");
}

#[test]
fn an_operation_of_a_kind_that_there_is_not_fails_by_name() {
    let world = world(60);
    let run = start(&world, "explode");
    assert_eq!(world.ended(&run)["error"], "Session.UnknownOperation");
}
