//! `pfsession image` and `pfsession registry` as they are typed, against a registry on loopback.

#[path = "../../../infra/images/tests/common/mod.rs"]
mod common;

use base64::{Engine, engine::general_purpose::STANDARD};
use common::{Image, Layer, Registry, docker_archive};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Output, Stdio},
};
use tools::roots::shell_root;
use whole_system::{Machine, files, said};

const USAGE: i32 = 2;
const NONE: i32 = 4;

/// A machine with an image store of its own.
fn machine() -> Machine {
    Machine::bare()
}

fn refused(machine: &Machine, arguments: &[&str], exit: i32, code: &str) {
    let ended = machine.run(arguments);
    let text = said(&ended);
    assert_eq!(ended.status.code(), Some(exit), "{arguments:?}: {text}");
    assert!(text.contains(&format!("[{code}]")), "{arguments:?}: {text}");
    let json = machine.run(&[arguments, &["--json"]].concat());
    let failure: Value =
        serde_json::from_slice(&json.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {}", said(&json)));
    assert_eq!(
        (json.status.code(), &failure["error"]),
        (Some(exit), &json!(code)),
        "{failure}"
    );
}

/// An image that runs commands alone.
fn shell() -> Image {
    let place = tempfile::tempdir().unwrap();
    shell_root(place.path(), &[]);
    let layers = vec![Layer::new().tree(place.path()), Layer::new().file("srv/text", "text")];
    Image::gzipped(json!({ "Env": ["PATH=/bin"] }), layers)
}

fn listed(machine: &Machine) -> Vec<Value> {
    let list: Value = serde_json::from_str(&machine.succeed(&["image", "list", "--json"])).unwrap();
    list["images"].as_array().unwrap().clone()
}

#[test]
fn images_are_pulled_listed_and_removed_as_they_are_typed() {
    let (machine, registry) = (machine(), Registry::start());
    let image = shell();
    let name = registry.push("own/shell", "1", &image);
    let none = machine.run(&["image", "list"]);
    assert!(none.status.success() && none.stdout.is_empty(), "{}", said(&none));
    assert!(said(&none).contains("pfsession image pull"), "{}", said(&none));
    assert_eq!(listed(&machine), [] as [Value; 0]);

    let pinned = format!("{}/own/shell:1@{}", registry.address, image.digest());
    let pulled = machine.run(&["image", "pull", &name]);
    assert_eq!(
        String::from_utf8_lossy(&pulled.stdout).trim(),
        pinned,
        "{}",
        said(&pulled)
    );
    let view: Value = serde_json::from_str(&machine.succeed(&["image", "pull", &pinned, "--json"])).unwrap();
    assert_eq!(
        (&view["digest"], &view["names"], &view["layers"], &view["in_use"]),
        (&json!(image.digest()), &json!([name]), &json!(2), &json!(false))
    );
    assert_eq!(registry.count(&image.layers[0]), 1, "what is here is not pulled again");
    let file = machine.state().join("saved.tar");
    let other = Image::gzipped(json!({}), vec![Layer::new().file("other", "other")]);
    fs::write(&file, docker_archive(&[("other:1", &other)])).unwrap();
    machine.succeed(&["image", "pull", &format!("docker-archive:{}", file.display())]);
    let table = machine.succeed(&["image", "list"]);
    for part in [&*name, "saved.tar", &image.digest()[..19], "LAST USED"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert_eq!(listed(&machine).len(), 2);

    let missing = format!("{}/none:1", registry.address);
    for (bad, exit, code) in [
        ("Bad/Name", USAGE, "Image.BadName"),
        ("", USAGE, "Image.BadName"),
        ("a:b:c", USAGE, "Image.BadName"),
        ("ex.org/../a", USAGE, "Image.BadName"),
        ("ex.org/a\n/b", USAGE, "Image.BadName"),
        ("ex.org/a\u{1b}[2Jb", USAGE, "Image.BadName"),
        ("ex.org/a@sha256:12", USAGE, "Image.BadName"),
        (&missing, 1, "Image.NotFound"),
        ("127.0.0.1:1/a:1", 1, "Image.Unreachable"),
        ("docker-archive:/no/such/file.tar", 1, "Image.BadArchive"),
        ("oci-archive:/dev/zero", 1, "Image.BadArchive"),
    ] {
        refused(&machine, &["image", "pull", bad], exit, code);
    }
    for bad in ["never/pulled:1", "", "sha256:", "../../etc", "0123456789"] {
        refused(&machine, &["image", "remove", bad], NONE, "Image.NotHere");
    }
    assert_eq!(listed(&machine).len(), 2);

    // One that a session has stays until the session has ended.
    let folder = machine.state().join("flows/shell");
    fs::create_dir_all(&folder).unwrap();
    let it = folder.to_str().unwrap();
    machine.succeed(&["start", it, "--image", &name]);
    refused(&machine, &["image", "remove", &name], 1, "Image.InUse");
    assert!(machine.succeed(&["image", "list"]).contains("in use"));
    assert_eq!(machine.succeed(&["run", it, "--", "cat", "/srv/text"]).trim(), "text");
    machine.succeed(&["stop", it]);
    let removed: Value = serde_json::from_str(&machine.succeed(&["image", "remove", &name, "--json"])).unwrap();
    assert_eq!(removed, json!([image.digest()]));
    let rest = listed(&machine);
    assert_eq!(rest.len(), 1, "{rest:?}");
    let digest = rest[0]["digest"].as_str().unwrap();
    let ended = machine.run(&["image", "remove", &digest["sha256:".len()..][..12]]);
    assert!(
        ended.status.success() && said(&ended).contains(digest),
        "{}",
        said(&ended)
    );
    for left in ["layers", "trees", "records", "blobs", "tags"] {
        let place = machine.state().join("images").join(left);
        assert_eq!(
            fs::read_dir(&place).map_or(0, Iterator::count),
            0,
            "{}",
            place.display()
        );
    }
}

/// Types a command with a text on its standard input.
fn typed(machine: &Machine, arguments: &[&str], input: &str) -> Output {
    let mut child = machine
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that is refused need not read.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// A text and its forms in base64, wherever it begins there.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let at = |before: usize| {
        let coded = STANDARD.encode([&b"xxx"[..before], secret.as_bytes()].concat());
        coded.as_bytes()[4..coded.len() - 4].to_vec()
    };
    [secret.as_bytes().to_vec(), at(0), at(1), at(2)].to_vec()
}

fn holds(bytes: &[u8], secrets: &[&str]) -> bool {
    let forms: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    forms
        .iter()
        .any(|form| bytes.windows(form.len()).any(|part| part == form))
}

#[test]
fn an_account_that_is_logged_in_with_is_in_no_row_log_argument_or_output() {
    const SECRET: &str = "a-word-that-nobody-else-has";
    const WRONG: &str = "another-word-that-is-not-right";
    let registry = Registry::start();
    registry.state().account = Some(format!("ann:{SECRET}"));
    let mut machine = machine();
    machine.variables.push(("PFSESSION_LOG".into(), "trace".into()));
    // The developer's own accounts are not for this test.
    let home = machine.state().join("home").display().to_string();
    machine.variables.push(("DOCKER_CONFIG".into(), home));
    let name = registry.push("own/shell", "1", &shell());
    let host = registry.address.clone();
    let mut seen = Vec::new();
    let mut run = |arguments: &[&str], input: &str, exit: i32, text: &str| {
        let ended = typed(&machine, arguments, input);
        let all = said(&ended);
        assert_eq!(ended.status.code(), Some(exit), "{arguments:?}: {all}");
        assert!(all.contains(text), "{arguments:?}: {all}");
        seen.push(all);
    };
    let login = ["registry", "login", &host, "--username", "ann"];
    let denied = format!("pfsession registry login {host}");
    run(&["image", "pull", &name], "", 1, &denied);
    // A password in the arguments is none: others see them.
    run(&[&login[..], &["--password", WRONG]].concat(), "", USAGE, "--password");
    run(&login, "\n", USAGE, "[Image.BadAccount]");
    run(&login, "two\nlines", USAGE, "[Image.BadAccount]");
    run(
        &["registry", "login", "https://ex.org/v2", "-u", "ann"],
        SECRET,
        USAGE,
        "[Image.BadAccount]",
    );
    run(
        &["registry", "login", &host, "-u", "ann:bob"],
        SECRET,
        USAGE,
        "[Image.BadAccount]",
    );
    run(
        &["registry", "login", &format!("evil.org a:b\n{host}"), "-u", "ann"],
        SECRET,
        USAGE,
        "[Image.BadAccount]",
    );
    run(&["registry", "list", "--json"], "", 0, r#""registries":[]"#);
    run(&login, WRONG, 0, "");
    run(
        &["image", "pull", &name],
        "",
        1,
        "with the account that is given for it",
    );
    let folder = machine.state().join("flows/shell");
    fs::create_dir_all(&folder).unwrap();
    let it = folder.to_str().unwrap();
    run(&["start", it, "--image", &name], "", 1, "[Image.Denied]");
    // The remedy.
    run(&login, &format!("{SECRET}\n"), 0, "");
    run(&["registry", "list"], "", 0, &host);
    run(&["start", it, "--image", &name], "", 0, "");
    for (pid, command) in machine.processes() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!holds(command.as_bytes(), &[SECRET, WRONG]), "{pid}: {command}");
        assert!(
            !holds(&environment, &[SECRET, WRONG]),
            "the environment of {pid}: {command}"
        );
    }
    for arguments in [
        &["show", it, "--json"][..],
        &["events", it],
        &["image", "list", "--json"],
        &["check", it, "--image", &name],
    ] {
        run(arguments, "", 0, "");
    }
    run(&["run", it, "--", "cat", "/srv/text"], "", 0, "text");
    run(&["stop", it], "", 0, "");

    let own = machine.state().join("registries");
    assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        holds(&fs::read(&own).unwrap(), &[SECRET]),
        "the search finds what is there"
    );
    let found: Vec<PathBuf> = files(machine.state())
        .into_iter()
        .filter(|file| holds(&fs::read(file).unwrap_or_default(), &[SECRET, WRONG]))
        .collect();
    assert_eq!(found, std::slice::from_ref(&own));
    run(&["registry", "logout", &host], "", 0, "");
    run(&["registry", "logout", &host], "", NONE, "[Image.BadAccount]");
    assert!(!holds(&fs::read(&own).unwrap(), &[SECRET, WRONG]));
    for all in seen {
        assert!(!holds(all.as_bytes(), &[SECRET, WRONG]), "{all}");
    }
}
