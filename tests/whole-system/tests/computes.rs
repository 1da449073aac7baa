//! Compute resources: what is active on them, and their deletion with all of it.

use contract::{
    Phase,
    command::RunWish,
    http::{ComputeView, Computes},
    row::{OperationStatus, RunRow, RunStatus},
};
use lifecycle::compute::ComputePhase;
use serde_json::Value;
use std::{path::PathBuf, time::Duration};
use whole_system::{Api, Machine, said, somebody, typed, wait_for, write_flow};

const LONG: Duration = Duration::from_secs(120);

/// A session with a run that does not end by itself.
fn with_a_run(machine: &Machine, api: &Api, name: &str) -> PathBuf {
    let folder = machine.state().join(name);
    write_flow(&folder, "@tool\ndef one(text: str): return text\n", None);
    let command = ["python", "-c", "import time; time.sleep(3000)"].map(str::to_owned);
    let wish = RunWish {
        command: command.to_vec(),
        ..RunWish::default()
    };
    let run = format!("run-{name}");
    api.run(&run, &folder, &wish).unwrap();
    wait_for("the run's begin", LONG, || {
        let row = api.get::<RunRow>(&format!("/v1/runs/{run}")).ok()?;
        (row.status == RunStatus::Running).then_some(())
    });
    folder
}

fn only(api: &Api, query: &str) -> ComputeView {
    let computes: Computes = api.get(&format!("/v1/computes{query}")).unwrap();
    let [compute] = <[ComputeView; 1]>::try_from(computes.computes).unwrap();
    compute
}

#[test]
fn a_deleted_compute_resource_ends_its_sessions_and_each_run_says_why() {
    let machine = Machine::new();
    machine.up();
    let own = machine.api();
    let bob = somebody(&machine, "bob", "local", &["data-scientist"]);
    let eve = somebody(&machine, "eve", "local", &["data-scientist"]);
    let folder = with_a_run(&machine, &bob, "first");
    let second = machine.state().join("second");
    write_flow(&second, "@tool\ndef one(text: str): return text\n", None);
    bob.start("second", &second).unwrap();
    assert_eq!(bob.operation("second", LONG).status, OperationStatus::Succeeded);

    // Its user and an owner see what is active on it; others see nothing.
    let compute = only(&bob, "");
    assert_eq!((compute.owner.as_str(), compute.phase), ("bob", ComputePhase::Up));
    assert!(compute.since.is_some_and(|since| since <= compute.now) && compute.identity.is_none());
    assert_eq!(
        compute,
        ComputeView {
            now: compute.now,
            ..only(&own, "?users=all")
        }
    );
    let mut runs: Vec<String> = compute
        .sessions
        .iter()
        .flat_map(|session| session.runs.clone())
        .collect();
    runs.sort();
    assert_eq!((compute.sessions.len(), runs), (2, vec!["run-first".to_owned()]));
    let path = format!("/v1/computes/{}", compute.id);
    let none: Computes = eve.get("/v1/computes").unwrap();
    assert!(none.computes.is_empty());
    assert_eq!(eve.get::<Computes>("/v1/computes?users=all").unwrap_err().0, 403);
    assert_eq!(eve.get::<ComputeView>(&path).unwrap_err().0, 404);
    assert_eq!(eve.delete::<ComputeView>(&path).unwrap_err().0, 404);

    for query in ["until=later", "untill=gone", "wait=long"] {
        let (status, why) = bob.get::<ComputeView>(&format!("{path}?{query}")).unwrap_err();
        assert!(status == 400 && why.starts_with("Http.BadQuery"), "{query}: {why}");
    }
    assert_eq!(bob.get::<Value>("/v1/health?x=1").unwrap_err().0, 400);

    let id = &compute.id[..8];
    let listed = said(&typed(&machine, &own, &["compute", "list", "--all-users"]));
    for part in ["COMPUTE", id, "bob", "the user's own", "ACTIVE RUNS"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let shown = said(&typed(&machine, &bob, &["compute", "show", id]));
    for part in [compute.id.as_str(), "run-first", "first", "second", "ready"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    // Who has no terminal confirms it with the command.
    let refused = typed(&machine, &bob, &["compute", "delete", id]);
    let text = said(&refused);
    assert!(
        !refused.status.success() && text.contains("ends 2 sessions and 1 active run.") && text.contains("--yes"),
        "{text}"
    );
    assert_eq!(only(&bob, "").sessions.len(), 2);
    let output = typed(&machine, &eve, &["compute", "delete", id, "--yes"]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));

    let done = typed(&machine, &bob, &["compute", "release", id, "--yes"]);
    let text = said(&done);
    assert!(
        done.status.success() && text.contains("is deleted. Ended: 2 sessions and 1 active run."),
        "{text}"
    );
    let run: RunRow = bob.get("/v1/runs/run-first").unwrap();
    let why = run.failure.unwrap();
    assert_eq!(
        (run.status, why.error.as_str()),
        (RunStatus::Canceled, "Session.ComputeDeleted")
    );
    assert!(
        why.message
            .starts_with(&format!("bob deleted the compute resource {}", compute.id)),
        "{why}"
    );
    assert_eq!(
        [&folder, &second].map(|folder| bob.phase(folder)),
        [Some(Phase::Stopped); 2]
    );
    let why = said(&typed(&machine, &bob, &["why", folder.to_str().unwrap()]));
    assert!(why.contains("is to be deleted, so stop wanted"), "{why}");

    // Another start gets another one.
    bob.start("again", &folder).unwrap();
    assert_eq!(bob.operation("again", LONG).status, OperationStatus::Succeeded);
    assert_ne!(only(&bob, "").id, compute.id);
}

#[test]
fn a_deletion_that_was_decided_is_carried_out_whatever_crashes() {
    let machine = Machine::new();
    machine.up();
    let own = machine.api();
    let bob = somebody(&machine, "bob", "local", &["data-scientist"]);
    let folder = with_a_run(&machine, &bob, "flow");
    let compute = only(&bob, "");
    // An owner deletes that of another, over HTTP.
    let ends: ComputeView = own.delete(&format!("/v1/computes/{}", compute.id)).unwrap();
    assert_eq!(ends.sessions[0].runs, ["run-flow"]);
    machine.kill_host();
    machine.up_again();
    let bob = Api::new(&machine.api().endpoint, &bob.token, "bob");
    let row = wait_for("the end of the run", LONG, || {
        let row = bob.get::<RunRow>("/v1/runs/run-flow").ok()?;
        row.status.is_final().then_some(row)
    });
    let why = row.failure.unwrap();
    assert_eq!(
        (row.status, why.error.as_str()),
        (RunStatus::Canceled, "Session.ComputeDeleted")
    );
    assert_eq!(bob.phase(&folder), Some(Phase::Stopped));
}

#[test]
fn ending_a_session_names_its_active_runs_and_a_script_is_not_asked() {
    let machine = Machine::new();
    machine.up();
    let own = machine.api();
    let folder = with_a_run(&machine, &own, "flow");
    let place = folder.to_str().unwrap();
    let named = "ends these active runs of";
    // An update that leaves the session where it is ends none.
    let update = typed(&machine, &own, &["update", place, "--idle", "30m"]);
    assert!(
        update.status.success() && !said(&update).contains(named),
        "{}",
        said(&update)
    );
    let stop = typed(&machine, &own, &["stop", place]);
    let text = said(&stop);
    assert!(
        stop.status.success() && text.contains(&format!("A stop {named} {place}: run-flow.")),
        "{text}"
    );
    let again = typed(&machine, &own, &["stop", place, "--yes"]);
    assert!(
        again.status.success() && !said(&again).contains(named),
        "{}",
        said(&again)
    );
    let row: RunRow = own.get("/v1/runs/run-flow").unwrap();
    assert_eq!(row.status, RunStatus::Canceled);
}
