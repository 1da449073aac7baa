//! A user's acts on the packages of a session, on the real thing.

use contract::{
    Phase,
    http::Installs,
    packages::{PackageOrigin, PackagesRow},
};
use std::{fs, path::Path, process::Output};
use whole_system::{Machine, write_flow};

const TOOL: &str = "import importlib.metadata as m\n@tool\ndef one(text: str) -> str:\n    return m.version('cowsay') if text == 'cow' else text\n";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The tool's output in the session.
fn cow(machine: &Machine, folder: &str) -> String {
    let said = machine.succeed(&["run", folder, "--inputs", "text=cow"]);
    let output: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    output["said"].as_str().unwrap().to_owned()
}

#[test]
fn packages_are_added_listed_compared_taken_back_and_a_failed_install_leaves_the_session_and_the_file() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/cow");
    write_flow(&folder, TOOL, Some("# ours\ncowsay==6.0\n"));
    let requirements = || fs::read_to_string(folder.join("requirements.txt")).unwrap();
    let it = folder.to_str().unwrap();
    let none = machine.run(&["packages", it]);
    assert_eq!(none.status.code(), Some(4), "{}", said(&none));
    machine.succeed(&["start", it]);
    assert_eq!(cow(&machine, it), "6.0");

    let row: PackagesRow = serde_json::from_str(&machine.succeed(&["packages", it, "--json"])).unwrap();
    let of = |name: &str| row.packages.iter().find(|package| package.name == name).unwrap();
    assert_eq!(of("cowsay").origin, PackageOrigin::Requirements);
    assert_eq!(of("cowsay").named.as_deref(), Some("requirements.txt:2"));
    assert_eq!(of("promptflow").origin, PackageOrigin::BaseImage);
    let listed = machine.succeed(&["packages", it]);
    assert!(
        listed.contains("cowsay") && listed.contains("requirements.txt:2"),
        "{listed}"
    );

    // Saved and not installed: `show` says so, and the session has what it had.
    machine.succeed(&["install", it, "cowsay==6.1", "--save-only"]);
    assert_eq!(requirements(), "# ours\ncowsay==6.1\n");
    let shown = machine.succeed(&["show", it]);
    assert!(
        shown.contains("saved, not installed: cowsay==6.1") && shown.contains("installed, not saved: cowsay==6.0"),
        "{shown}"
    );
    assert!(shown.contains("isolation"), "{shown}");
    let shown: serde_json::Value = serde_json::from_str(&machine.succeed(&["show", it, "--json"])).unwrap();
    assert_eq!(shown["drift"]["saved"], serde_json::json!(["cowsay==6.1"]));
    assert!(shown["isolation"]["tier"].is_string(), "{shown}");
    assert_eq!(cow(&machine, it), "6.0");

    // Installed: what changed is said, kept, and comparable.
    let installed = machine.run(&["install", it]);
    assert!(
        installed.status.success() && said(&installed).contains("~ cowsay 6.0 → 6.1"),
        "{}",
        said(&installed)
    );
    assert_eq!(cow(&machine, it), "6.1");
    assert!(!machine.succeed(&["show", it]).contains("not installed"));
    let history = machine.succeed(&["packages", it, "--history"]);
    assert!(
        history.lines().count() == 3 && history.contains("~ cowsay 6.0 → 6.1"),
        "{history}"
    );
    assert_eq!(
        machine.succeed(&["packages", it, "--diff", "2", "1"]),
        "~ cowsay 6.1 → 6.0\n"
    );

    // One that fails leaves the session, and puts the file back; its operation says how it ended.
    let failed = machine.run(&["install", it, "no-such-package-of-ours"]);
    let why = said(&failed);
    assert_eq!(failed.status.code(), Some(1), "{why}");
    assert!(
        why.contains("Install.NoSuchPackage") && why.contains("is as it was"),
        "{why}"
    );
    assert_eq!(requirements(), "# ours\ncowsay==6.1\n");
    assert_eq!(cow(&machine, it), "6.1");
    let operation = why
        .split_whitespace()
        .find(|word| word.starts_with("install-"))
        .unwrap();
    let shown = machine.succeed(&["show", operation]);
    assert!(
        shown.contains("uv ended with exit code 1") && shown.contains("no-such-package-of-ours"),
        "{shown}"
    );
    assert!(
        machine
            .succeed(&["logs", operation])
            .contains("no-such-package-of-ours")
    );

    // Back to the packages before. The file stays, and `show` says that it differs.
    machine.succeed(&["install", it, "--rollback"]);
    assert_eq!(cow(&machine, it), "6.0");
    assert!(
        machine
            .succeed(&["show", it])
            .contains("saved, not installed: cowsay==6.1")
    );
    assert_eq!(machine.api().phase(&folder), Some(Phase::Ready));

    // All of it outlives the session.
    machine.succeed(&["stop", it]);
    let after: Installs = serde_json::from_str(&machine.succeed(&["packages", it, "--history", "--json"])).unwrap();
    assert_eq!(after.installs.len(), 3);
    assert_eq!(after.installs[0].packages.lock, after.installs[2].packages.lock);
    assert!(Path::new(it).exists());
}

#[test]
fn an_install_without_a_session_says_what_to_do_and_saves_nothing() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/none");
    write_flow(&folder, TOOL, Some("cowsay==6.0\n"));
    let output = machine.run(&["install", folder.to_str().unwrap(), "humanize"]);
    let why = said(&output);
    assert_eq!(output.status.code(), Some(4), "{why}");
    assert!(why.contains("pfsession start") && why.contains("--save-only"), "{why}");
    assert_eq!(
        fs::read_to_string(folder.join("requirements.txt")).unwrap(),
        "cowsay==6.0\n"
    );
}

#[test]
fn the_credential_of_a_feed_is_read_from_standard_input_and_kept_for_its_owner_alone() {
    use std::{io::Write, os::unix::fs::PermissionsExt, process::Stdio};
    let machine = Machine::bare();
    let mut give = machine.command(&["private", "Feed.example"]);
    let mut child = give.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hunter2\n").unwrap();
    assert!(child.wait().unwrap().success());
    let file = machine.state().join("private-feeds");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(machine.succeed(&["private"]), "feed.example\n");
    machine.succeed(&["private", "feed.example", "--remove"]);
    assert_eq!(machine.succeed(&["private"]), "");
    assert_eq!(
        machine.run(&["private", "feed.example", "--remove"]).status.code(),
        Some(4)
    );
    assert_eq!(
        machine.run(&["private", "https://feed.example/x"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_run_says_that_the_requirements_have_changed_and_installs_them_first_if_it_is_told_to() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/drifts");
    fs::create_dir_all(&folder).unwrap();
    let it = folder.to_str().unwrap();
    machine.succeed(&["start", it]);
    let look = ["--", "python", "-c", "import cowsay; print(cowsay.__version__)"];
    let run = |more: &[&str]| machine.run(&[&["run", it][..], more, &look].concat());
    fs::write(folder.join("requirements.txt"), "cowsay==6.1\n").unwrap();
    let text = said(&run(&[]));
    let expected = "The requirements have changed since the install (saved, not installed: cowsay==6.1)";
    assert!(
        text.contains(expected) && text.contains("No module named 'cowsay'"),
        "{text}"
    );
    assert!(text.contains(&format!("pfsession run {it} --install")), "{text}");
    // What it says to do is done.
    let done = run(&["--install"]);
    assert!(
        done.status.success() && String::from_utf8_lossy(&done.stdout).contains("6.1"),
        "{}",
        said(&done)
    );
    let again = run(&[]);
    assert!(
        again.status.success() && !said(&again).contains("have changed"),
        "{}",
        said(&again)
    );
    machine.succeed(&["stop", it]);
}

#[test]
fn what_a_missing_import_says_to_do_is_done_and_the_run_succeeds() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/imports");
    let source = "import yaml_of_nobody_else as y\n@tool\ndef one(text: str) -> str:\n    return y.__version__\n";
    whole_system::write_flow(&folder, &source.replace("yaml_of_nobody_else", "cowsay"), None);
    let it = folder.to_str().unwrap();
    let failed = machine.run(&["run", it]);
    let text = said(&failed);
    assert!(
        !failed.status.success() && text.contains("[Run.ImportFailed]"),
        "{text}"
    );
    let next = text
        .lines()
        .find_map(|line| line.split_once("if cowsay has it: pfsession "))
        .unwrap_or_else(|| panic!("{text}"))
        .1;
    let command: Vec<&str> = next
        .strip_suffix(", and run again")
        .unwrap_or(next)
        .split(' ')
        .collect();
    assert_eq!(command, ["install", it, "cowsay"]);
    machine.succeed(&command);
    machine.succeed(&["run", it]);
    machine.succeed(&["stop", it]);
}

#[test]
fn a_project_has_its_own_modules_in_src_and_the_packages_of_an_extra_that_is_named() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/project");
    fs::create_dir_all(folder.join("src/mine")).unwrap();
    fs::write(folder.join("src/mine/__init__.py"), "WORD = 'of src'\n").unwrap();
    let project = "[project]\nname = \"mine\"\nversion = \"1\"\ndependencies = []\n[project.optional-dependencies]\ncow = [\"cowsay==6.1\"]\n";
    fs::write(folder.join("pyproject.toml"), project).unwrap();
    let it = folder.to_str().unwrap();
    machine.succeed(&["start", it]);
    let own = machine.succeed(&["run", it, "--", "python", "-c", "import mine; print(mine.WORD)"]);
    assert_eq!(own.trim(), "of src");
    machine.succeed(&["install", it, "--extra", "cow"]);
    let both = "import cowsay, mine; print(cowsay.__version__, mine.WORD)";
    assert_eq!(
        machine.succeed(&["run", it, "--", "python", "-c", both]).trim(),
        "6.1 of src"
    );

    // The Dockerfile of that has what the session has.
    let text = machine.succeed(&["image", "dockerfile", it]);
    assert!(text.contains("\nFROM docker.io/library/python:3."), "{text}");
    assert!(text.contains("\ncowsay==6.1 \\\n    --hash=sha256:"), "{text}");
    let row: PackagesRow = serde_json::from_str(&machine.succeed(&["packages", it, "--json"])).unwrap();
    for package in &row.packages {
        assert!(
            text.contains(&format!("\n{}=={} \\\n", package.name, package.version)),
            "{}: {text}",
            package.name
        );
    }
    machine.succeed(&["stop", it]);
}

#[test]
fn pip_and_uv_inside_a_session_change_that_session_alone() {
    let machine = Machine::new();
    let folders = ["pip", "beside"].map(|name| machine.state().join("flows").join(name));
    let [it, beside] = folders.each_ref().map(|folder| {
        fs::create_dir_all(folder).unwrap();
        folder.to_str().unwrap()
    });
    for folder in [it, beside] {
        // The index may be in this machine's own network.
        machine.succeed(&["start", folder, "--network", "open"]);
    }
    let inside = |folder: &str, command: &[&str]| machine.run(&[&["run", folder, "--"][..], command].concat());
    for command in [
        &["python", "-m", "pip", "install", "-q", "cowsay==6.1"][..],
        &["pip", "install", "-q", "tabulate==0.9.0"],
        &["uv", "pip", "install", "-q", "colorama==0.4.6"],
    ] {
        let ended = inside(it, command);
        assert!(ended.status.success(), "{command:?}: {}", said(&ended));
    }
    let versions =
        "import importlib.metadata as m; print(*(m.version(name) for name in ['cowsay', 'tabulate', 'colorama']))";
    let ended = inside(it, &["python", "-c", versions]);
    assert_eq!(said(&ended).lines().next(), Some("6.1 0.9.0 0.4.6"), "{}", said(&ended));
    let listed = machine.succeed(&["packages", it]);
    for name in ["cowsay", "tabulate", "colorama", "pip"] {
        let is_it = |line: &str| line.starts_with(&format!("{name} ")) && line.contains("by hand");
        assert!(listed.lines().any(is_it), "{name}: {listed}");
    }
    // The same environment, without any of it.
    let names = "import importlib.metadata as m; print([d.name for d in m.distributions()])";
    let ended = inside(beside, &["python", "-c", names]);
    assert_eq!(said(&ended).lines().next(), Some("[]"), "{}", said(&ended));
}
