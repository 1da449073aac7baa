//! A flow's folder that moves, and its session that follows.

use std::{fs, process::Output, time::Duration};
use whole_system::{Machine, wait_for, write_flow};

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
