//! Compute instances: a life of one, with the sessions on it.

use contract::{
    Phase,
    command::RunWish,
    http::ComputeView,
    instance::{InstanceView, Instances},
    row::{OperationStatus, RunRow, RunStatus},
};
use lifecycle::compute::ComputePhase;
use std::{fs, path::Path, time::Duration};
use whole_system::{Api, Machine, said, somebody, typed, wait_for, write_flow};

const LONG: Duration = Duration::from_secs(120);

fn flow(machine: &Machine, name: &str) -> String {
    let folder = machine.state().join(name);
    write_flow(&folder, "@tool\ndef one(text: str): return text\n", None);
    folder.to_str().unwrap().to_owned()
}

/// A run that does not end by itself, in the session that the flow has.
fn begin_run(api: &Api, id: &str, folder: &str) {
    let command = ["python", "-c", "import time; time.sleep(3000)"].map(str::to_owned);
    let wish = RunWish {
        command: command.to_vec(),
        ..RunWish::default()
    };
    api.run(id, Path::new(folder), &wish).unwrap();
    wait_for("the run's begin", LONG, || {
        let row = api.get::<RunRow>(&format!("/v1/runs/{id}")).ok()?;
        (row.status == RunStatus::Running).then_some(())
    });
}

#[test]
fn an_instance_lives_from_its_creation_to_its_deletion_and_its_stop_ends_both_sessions() {
    let machine = Machine::new();
    machine.up();
    let bob = somebody(&machine, "bob", "local", &["data-scientist"]);
    let eve = somebody(&machine, "eve", "local", &["data-scientist"]);
    let (first, second) = (flow(&machine, "first"), flow(&machine, "second"));
    let done = |line: &[&str]| {
        let output = typed(&machine, &bob, line);
        let text = said(&output);
        assert!(output.status.success(), "{line:?}: {text}");
        text
    };
    let refused = |api: &Api, line: &[&str], why: &str| {
        let output = typed(&machine, api, line);
        let text = said(&output);
        assert!(!output.status.success() && text.contains(why), "{line:?}: {text}");
    };
    let shown = || bob.get::<InstanceView>("/v1/instances/dev").unwrap();

    refused(&bob, &["start", &first, "--compute", "dev"], "Instance.None");
    let created = done(&["instance", "create", "dev", "--idle-shutdown", "2h"]);
    assert!(
        created.contains("The compute instance dev is created and runs."),
        "{created}"
    );
    refused(&bob, &["instance", "create", "dev"], "Instance.Exists");
    let changed = done(&[
        "instance",
        "update",
        "dev",
        "--idle-shutdown",
        "3h",
        "--size",
        "Standard_D2s_v3",
    ]);
    assert!(changed.contains("count from its next start on"), "{changed}");
    let both = done(&["instance", "show", "dev"]);
    assert!(
        both.contains("local; from its next start on Standard_D2s_v3") && both.contains("3 h: in"),
        "{both}"
    );
    done(&["instance", "update", "dev", "--idle-shutdown", "2h", "--size", "local"]);
    let compute = shown().compute.expect("it runs");
    assert_eq!((compute.phase, compute.sessions.len()), (ComputePhase::Up, 0));

    // An owner sees it without a session; others see their own alone.
    let listed = said(&typed(&machine, &machine.api(), &["compute", "list", "--all-users"]));
    assert!(listed.contains(&compute.id[..8]) && listed.contains("bob"), "{listed}");
    let own = said(&typed(&machine, &machine.api(), &["compute", "list"]));
    assert!(!own.contains("bob"), "{own}");
    assert_eq!(eve.get::<Instances>("/v1/instances?users=all").unwrap_err().0, 403);

    // Two sessions on it, which take an idle time and nothing else.
    refused(
        &bob,
        &["start", &first, "--compute", "dev", "--size", "Standard_D2s_v3"],
        "cannot be used with",
    );
    done(&["start", &first, "--compute", "dev", "--idle", "3h"]);
    done(&["start", &second, "--compute", "dev"]);
    begin_run(&bob, "run-first", &first);
    assert_eq!(shown().compute.unwrap().id, compute.id);
    let view = bob.session(Path::new(&second)).unwrap();
    assert_eq!(
        (view.settings.compute.value.as_deref(), view.compute),
        (Some("dev"), Some(compute.id.clone()))
    );
    let text = done(&["instance", "show", "dev"]);
    for part in ["running", "2 h: in use", "first", "second", "run-first"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // It is bob's alone.
    assert_eq!(eve.get::<Instances>("/v1/instances").unwrap().instances, []);
    assert_eq!(
        eve.get::<InstanceView>("/v1/instances/dev?user=bob").unwrap_err().0,
        404
    );
    refused(
        &eve,
        &["start", &flow(&machine, "hers"), "--compute", "dev"],
        "Instance.None",
    );

    // A session's end does not end it; its own does, and tells why.
    done(&["stop", &second]);
    assert_eq!(shown().compute.unwrap().phase, ComputePhase::Up);
    let text = done(&["start", &second, "--compute", "dev"]);
    assert!(!text.contains("Instance."), "{text}");
    refused(&bob, &["instance", "stop", "dev"], "ends 2 sessions and 1 active run.");
    done(&["instance", "stop", "dev", "--yes"]);
    let run: RunRow = bob.get("/v1/runs/run-first").unwrap();
    let why = run.failure.unwrap();
    assert_eq!(
        (run.status, why.error.as_str()),
        (RunStatus::Canceled, "Instance.Stopped")
    );
    assert!(why.message.starts_with("bob stopped the compute instance dev"), "{why}");
    for folder in [&first, &second] {
        assert_eq!(bob.phase(Path::new(folder)), Some(Phase::Stopped), "{folder}");
        let why = done(&["why", folder]);
        assert!(why.contains("bob stopped the compute instance dev"), "{why}");
    }
    assert_eq!(shown().compute, None);
    refused(
        &bob,
        &["start", &first, "--compute", "dev"],
        "pfsession instance start NAME",
    );

    // Started again, it takes sessions again; a run's file names it as well, and an update leaves
    // it.
    done(&["instance", "start", "dev"]);
    assert_ne!(shown().compute.unwrap().id, compute.id);
    let file = machine.state().join("run.yml");
    let text = format!("flow: {first}\nresources:\n  compute: dev\n");
    fs::write(&file, text).unwrap();
    done(&["run", file.to_str().unwrap(), "--inputs", "text=hello"]);
    assert_eq!(shown().compute.unwrap().sessions.len(), 1);
    refused(
        &bob,
        &["update", &first, "--size", "Standard_D2s_v3"],
        "Instance.FixedSettings",
    );
    done(&["update", &first, "--compute-type", "serverless"]);
    assert_eq!(shown().compute.unwrap().sessions.len(), 0);
    done(&["update", &first, "--compute", "dev"]);
    assert_eq!(shown().compute.unwrap().sessions.len(), 1);
    bob.start("other", Path::new(&second)).unwrap();
    assert_eq!(bob.operation("other", LONG).status, OperationStatus::Succeeded);

    let last = shown().compute.unwrap().id;
    done(&["instance", "delete", "dev", "--yes"]);
    let gone: ComputeView = bob.get(&format!("/v1/computes/{last}")).unwrap();
    assert_eq!(gone.phase, ComputePhase::Gone, "it waits until the machine is gone");
    assert_eq!(bob.phase(Path::new(&first)), Some(Phase::Stopped));
    assert_eq!(
        bob.phase(Path::new(&second)),
        Some(Phase::Ready),
        "it was on serverless compute"
    );
    let none = done(&["instance", "list"]);
    assert!(none.contains("You have no compute instance."), "{none}");
    refused(&bob, &["instance", "start", "dev"], "Instance.None");
}
