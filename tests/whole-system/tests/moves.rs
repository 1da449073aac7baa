//! A flow whose folder moves or is one of several clones, and its session.

use std::{fs, path::Path, process::Output, time::Duration};
use whole_system::{Machine, typed, wait_for, write_flow};

const LONG: Duration = Duration::from_secs(60);

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_folder_that_moved_keeps_its_session_with_its_history_and_its_runs() {
    let machine = Machine::new();
    let folders = ["old", "new", "newer", "other"].map(|name| machine.state().join(name));
    let [old, new, newer, other] = folders.each_ref().map(|folder| folder.to_str().unwrap());
    let refused = |arguments: &[&str]| {
        let output = machine.run(arguments);
        assert!(!output.status.success(), "{}", said(&output));
        said(&output)
    };
    for folder in [&folders[0], &folders[3]] {
        write_flow(folder, "@tool\ndef one(text: str): return text\n", None);
    }
    machine.succeed(&["run", old, "--name", "first", "--inputs", "text=hello"]);
    let before = machine.api().session(&folders[0]).unwrap();
    assert!(refused(&["move", old, new]).contains("is still there"));

    // Not under a run; and then while it lives.
    machine.succeed(&["run", old, "--name", "held", "--no-wait", "--", "sleep", "600"]);
    let session = |folder| machine.api().session(folder).unwrap();
    wait_for("the run", LONG, || {
        (!session(&folders[0]).runs.is_empty()).then_some(())
    });
    fs::rename(old, new).unwrap();
    let active = refused(&["move", old, new]);
    assert!(
        active.contains("its run held is active") && active.contains("Flow.NotMoved"),
        "{active}"
    );
    machine.succeed(&["runs", "cancel", "held"]);
    wait_for("the run's end", LONG, || {
        session(&folders[0]).runs.is_empty().then_some(())
    });
    machine.succeed(&["move", old, new]);
    machine.succeed(&["run", new, "--name", "second", "--inputs", "text=hello"]);
    let after = session(&folders[0]);
    assert_eq!(
        (&after.key, after.generation),
        (&before.key, before.generation),
        "it is the same session"
    );
    assert_eq!(after.settings.folder.value, new);
    let runs = machine.succeed(&["runs", "list", "--flow", new]);
    assert!(
        ["first", "held", "second"].iter().all(|run| runs.contains(run)),
        "{runs}"
    );
    let shown = machine.succeed(&["show", new, "--json"]);
    assert!(shown.contains(&before.key), "{shown}");

    // While it is stopped, also by its key; the service knows the folder at once.
    machine.succeed(&["stop", new]);
    fs::rename(new, newer).unwrap();
    machine.succeed(&["move", &before.key[..8], newer]);
    assert_eq!(session(&folders[0]).settings.folder.value, newer);
    let events = machine.succeed(&["events", newer]);
    assert!(events.contains("first") && events.contains("second"), "{events}");

    // Its first place is no other flow's, and a folder with a history keeps that.
    write_flow(&folders[0], "@tool\ndef one(text: str): return text\n", None);
    let taken = refused(&["start", old]);
    assert!(taken.contains("Flow.Moved") && taken.contains(newer), "{taken}");
    fs::remove_dir_all(old).unwrap();
    machine.succeed(&["start", other]);
    fs::remove_dir_all(newer).unwrap();
    let own = refused(&["move", newer, other]);
    assert!(own.contains("has a session of its own"), "{own}");
    assert!(refused(&["move", "/not/there", other]).contains("Session.None"));

    // And back.
    write_flow(&folders[0], "@tool\ndef one(text: str): return text\n", None);
    machine.succeed(&["move", newer, old]);
    machine.succeed(&["start", old]);
    assert_eq!(session(&folders[0]).key, before.key);
}

/// A clone of the repository at an address, with a flow in it.
fn clone(at: &Path, address: &str) {
    write_flow(&at.join("joke"), "@tool\ndef one(text: str): return text\n", None);
    fs::create_dir_all(at.join(".git")).unwrap();
    let config = format!("[remote \"origin\"]\n\turl = {address}\n");
    fs::write(at.join(".git/config"), config).unwrap();
}

#[test]
fn a_flow_of_a_repository_is_one_flow_for_several_machines_if_they_say_so() {
    let machine = Machine::new();
    machine.up();
    let clones = ["one", "two"].map(|name| machine.state().join(name));
    clone(&clones[0], "https://ann:s3cret@git.example.org/lab/flows.git");
    clone(&clones[1], "git@git.example.org:lab/flows");
    let flows = clones.each_ref().map(|folder| folder.join("joke"));
    let [one, two] = flows.each_ref().map(|folder| folder.to_str().unwrap());
    let api = machine.api();
    let by = |lineage: &str, arguments: &[&str]| typed(&machine, &api, &[arguments, &["--lineage", lineage]].concat());
    let key = |lineage: &str, folder: &str| {
        let output = by(lineage, &["show", folder, "--json"]);
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        shown["key"].as_str().map(str::to_owned)
    };

    // One session for both, which has the code of the one that speaks.
    let started = by("repository", &["start", one]);
    assert!(started.status.success(), "{}", said(&started));
    let shared = key("repository", one).expect("a session");
    assert_eq!(key("repository", two), Some(shared.clone()));
    fs::write(
        flows[1].join("one.py"),
        "from promptflow.core import tool\n\n@tool\ndef one(text: str): return 'two'\n",
    )
    .unwrap();
    let ran = by("repository", &["run", two, "--inputs", "text=hello"]);
    assert!(said(&ran).contains("\"two\""), "{}", said(&ran));
    let listed = said(&by("folder", &["list"]));
    assert!(listed.contains("git:git.example.org/lab/flows//joke"), "{listed}");

    // Another repository at the same path is another flow; and by folder, each clone is one.
    clone(&clones[0], "https://git.example.org/lab/others");
    assert_eq!(key("repository", one), None);
    assert_eq!(key("folder", one), None);
    machine.succeed(&["start", one, "--lineage", "repository"]);
    let own = api.session(&flows[0]).expect("on one machine, it is of its folder");
    assert_ne!(own.key, shared);
    assert_eq!((key("folder", one), key("folder", two)), (Some(own.key), None));

    // A flow by its repository is not moved, one without an address says so, and a credential is
    // nowhere.
    let refused = |arguments: &[&str]| {
        let output = by("repository", arguments);
        assert!(!output.status.success(), "{}", said(&output));
        said(&output)
    };
    assert!(refused(&["move", "/not/there", two]).contains("Flow.NotMoved"));
    fs::remove_dir_all(clones[0].join(".git")).unwrap();
    let nowhere = refused(&["start", one]);
    assert!(nowhere.contains("Flow.NoRepository"), "{nowhere}");
    for file in ["table.db", "queues.db", "table.db-wal", "queues.db-wal"] {
        let bytes = fs::read(machine.state().join(file)).unwrap_or_default();
        let is_there = bytes.windows(6).any(|word| word == b"s3cret");
        assert!(!is_there, "{file} has the credential of the address");
    }
    assert!(!(machine.host_log() + &listed).contains("s3cret"));
}
