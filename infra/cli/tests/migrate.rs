//! `pfsession migrate`, as a person without a terminal and a program see it.

use expect_test::expect;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

const IMAGE: &str = "mcr.microsoft.com/azureml/promptflow/promptflow-runtime:latest";

/// Both outputs and the exit code.
fn migrate(home: &Path, arguments: &[&str]) -> (String, String, i32) {
    let ended = Command::new(env!("CARGO_BIN_EXE_pfsession"))
        .args(["migrate", "flow"])
        .args(arguments)
        .current_dir(home)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("PFSESSION_STATE", home.join("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(ended.stdout), text(ended.stderr), ended.status.code().unwrap())
}

fn files(home: &Path) -> [Option<String>; 2] {
    ["flow.dag.yaml", "requirements.txt"].map(|name| fs::read_to_string(home.join("flow").join(name)).ok())
}

#[test]
fn a_migration_is_shown_then_written_then_has_nothing_to_do() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::create_dir(home.join("flow")).unwrap();
    fs::write(home.join("flow/flow.dag.yaml"), "nodes: []\n").unwrap();
    let conda = "dependencies:\n- python=3.9\n- pip:\n  - promptflow==1.5\n  - humanize==4.9.0\n";
    fs::write(home.join("conda.yml"), conda).unwrap();
    let before = files(home);

    let (out, err, code) = migrate(home, &["--from", "conda.yml", "--image", IMAGE]);
    expect![[r#"
        --- /dev/null
        +++ flow/requirements.txt
        @@ -0,0 +1 @@
        +humanize==4.9.0

        --- flow/flow.dag.yaml
        +++ flow/flow.dag.yaml
        @@ -1 +1,4 @@
         nodes: []
        +environment:
        +  image: mcr.microsoft.com/azureml/promptflow/promptflow-runtime:latest
        +  python_requirements_txt: requirements.txt

    "#]]
    .assert_eq(&out);
    expect![[r#"
        conda.yml: python=3.9 is left out: a session has the Python of its base image. Name an image that has this one, if the flow needs it.
        conda.yml:4: promptflow==1.5 is left out: the base image has it.
        These files are written as shown.
        error: Nothing was done: there is no terminal to ask at [Command.NotConfirmed]
          next: confirm it with the command: --yes
    "#]]
    .assert_eq(&err);
    assert_eq!((code, files(home)), (1, before.clone()));

    let (out, _, code) = migrate(home, &["--from", "conda.yml", "--image", IMAGE, "--json"]);
    let view: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &view["written"], view["files"].as_array().unwrap().len()),
        (0, &false.into(), 2)
    );
    assert_eq!(files(home), before);

    let (_, err, code) = migrate(home, &["--from", "conda.yml", "--image", IMAGE, "--yes"]);
    assert!(
        err.ends_with("Written. To start its session: pfsession start flow\n"),
        "{err}"
    );
    let written = format!("nodes: []\nenvironment:\n  image: {IMAGE}\n  python_requirements_txt: requirements.txt\n");
    let after = [Some(written), Some("humanize==4.9.0\n".to_owned())];
    assert_eq!((code, files(home)), (0, after.clone()));

    let (out, err, code) = migrate(home, &["--from", "conda.yml", "--image", IMAGE]);
    assert!(err.ends_with("flow says all of this already.\n"), "{err}");
    assert_eq!((code, out.as_str(), files(home)), (0, "", after.clone()));

    let (_, err, code) = migrate(home, &["--image", "127.0.0.1:9/lab/none:1", "--yes"]);
    assert!(err.starts_with("error: nothing was written: "), "{err}");
    assert!(err.contains("[Image."), "{err}");
    assert_eq!((code, files(home)), (1, after));
}
