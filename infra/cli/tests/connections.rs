//! Connections on this machine, as a person and a program keep them.

use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs `pfsession connection …` over a state folder, with this on standard input.
fn connection(state: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pfsession"))
        .arg("connection")
        .args(arguments)
        .env_remove("PFSESSION_ENDPOINT")
        .env("PFSESSION_STATE", state)
        .current_dir(state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Its output as JSON.
fn json_of(state: &Path, arguments: &[&str], input: &str) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let output = connection(state, &arguments, input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The secret that is kept of a connection.
fn kept(state: &Path, pointer: &str) -> Value {
    let text = fs::read_to_string(state.join("connections")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let users = all["workspaces"]["local"]["users"].as_object().unwrap();
    users
        .values()
        .next()
        .unwrap()
        .pointer(pointer)
        .cloned()
        .unwrap_or_default()
}

fn state() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(state.path().join(name), text).unwrap();
    write(
        "azure.yml",
        "name: mine\ntype: azure_open_ai\napi_base: http://here\napi_key: <user-input>\n",
    );
    write(
        "custom.yml",
        "name: two\ntype: custom\nconfigs:\n  place: here\nsecrets:\n  one: <user-input>\n  two: ''\n",
    );
    state
}

#[test]
fn a_connection_is_created_shown_changed_and_deleted_and_its_secret_is_shown_nowhere() {
    let folder = state();
    let state = folder.path();
    let created = json_of(state, &["create", "-f", "azure.yml"], "word-1\n");
    assert_eq!(
        created,
        json!({
            "scope": "user", "name": "mine", "type": "azure_open_ai", "module": "promptflow.connections", "api_base": "http://here",
            "api_key": "******", "api_type": "azure", "api_version": "2024-02-01", "auth_mode": "key", "brokered": true,
        })
    );
    assert_eq!(json_of(state, &["show", "mine"], ""), created);
    assert_eq!(json_of(state, &["list"], ""), json!({ "connections": [created] }));
    assert_eq!(kept(state, "/mine/secrets/api_key"), "word-1");
    let mode = fs::metadata(state.join("connections")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A value changes, and the secret stays.
    let changed = json_of(state, &["update", "mine", "--set", "api_base=http://there"], "");
    assert_eq!(changed["api_base"], "http://there");
    assert_eq!(kept(state, "/mine/secrets/api_key"), "word-1");
    // The secret changes, and the values stay.
    let changed = json_of(state, &["update", "mine", "--secret", "api_key"], "word-2");
    assert_eq!(changed["api_base"], "http://there");
    assert_eq!(kept(state, "/mine/secrets/api_key"), "word-2");
    // The file again, which asks for it, and one that keeps it.
    json_of(state, &["update", "mine", "-f", "azure.yml"], "word-3");
    assert_eq!(kept(state, "/mine/secrets/api_key"), "word-3");
    fs::write(
        state.join("azure.yml"),
        "type: azure_open_ai\napi_base: http://other\napi_key: '***'\n",
    )
    .unwrap();
    json_of(state, &["update", "mine", "-f", "azure.yml"], "");
    assert_eq!(kept(state, "/mine/secrets/api_key"), "word-3");
    let text = connection(state, &["show", "mine"], "");
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("http://other") && !text.contains("word-"), "{text}");
    assert!(connection(state, &["delete", "mine"], "").status.success());
    assert_eq!(connection(state, &["show", "mine"], "").status.code(), Some(4));
}

#[test]
fn a_broker_holds_a_new_key_unless_somebody_says_otherwise() {
    let folder = state();
    let state = folder.path();
    let is_brokered = |shown: &Value| shown.get("brokered").cloned();
    let create = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["create", "-f", "azure.yml"].iter().chain(arguments).copied().collect();
        json_of(state, &arguments, "word")
    };
    assert_eq!(is_brokered(&create(&[])), Some(json!(true)));
    assert_eq!(is_brokered(&create(&["--brokered=false"])), None);
    // What is not named stays.
    let update = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["update", "mine"].iter().chain(arguments).copied().collect();
        is_brokered(&json_of(state, &arguments, ""))
    };
    assert_eq!(update(&["--set", "api_base=http://there"]), None);
    assert_eq!(update(&["--brokered"]), Some(json!(true)));
    assert_eq!(update(&["--set", "api_base=http://here"]), Some(json!(true)));
    assert_eq!(update(&["--brokered=false"]), None);
    // A document may say it, too.
    fs::write(state.join("azure.yml"), "name: mine\ntype: open_ai\nbrokered: false\n").unwrap();
    assert_eq!(is_brokered(&create(&[])), None);
    assert_eq!(is_brokered(&create(&["--brokered"])), Some(json!(true)));
    // One without a key has none to hold; nor is one of another type meant.
    let keyless = "name: mine\ntype: azure_open_ai\napi_base: http://here\nauth_mode: meid_token\n";
    fs::write(state.join("azure.yml"), keyless).unwrap();
    assert_eq!(is_brokered(&create(&[])), None);
    let refused = connection(state, &["create", "-f", "custom.yml", "--brokered"], "");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    expect_test::expect![[r#"
        error: A broker cannot hold the key of two: it holds those of the types azure_open_ai, open_ai and serverless, with a key [Connection.NotBrokered]
          next: leave out --brokered
    "#]].assert_eq(&said);
}

#[test]
fn several_secrets_come_as_lines_and_a_document_may_come_by_standard_input() {
    let folder = state();
    let state = folder.path();
    json_of(state, &["create", "-f", "custom.yml"], "two=b=c\none=a\n");
    assert_eq!(kept(state, "/two/secrets"), json!({ "one": "a", "two": "b=c" }));
    json_of(
        state,
        &["create", "-f", "-"],
        "name: piped\ntype: serp\napi_key: word\n",
    );
    assert_eq!(kept(state, "/piped/secrets/api_key"), "word");
}

#[test]
fn the_workspaces_connection_gives_way_to_a_users_own() {
    let folder = state();
    let state = folder.path();
    json_of(state, &["create", "-f", "azure.yml", "--for-workspace"], "of-all");
    assert_eq!(json_of(state, &["show", "mine"], "")["scope"], "workspace");
    json_of(state, &["create", "-f", "azure.yml"], "of-one");
    assert_eq!(json_of(state, &["show", "mine"], "")["scope"], "user");
    assert!(connection(state, &["delete", "mine"], "").status.success());
    assert_eq!(json_of(state, &["show", "mine"], "")["scope"], "workspace");
}

#[test]
fn the_list_of_promptflow_is_imported_with_its_secrets_from_standard_input() {
    let folder = state();
    let state = folder.path();
    let list = json!([
        { "name": "a", "module": "promptflow.connections", "type": "open_ai", "api_key": "******", "created_date": "2026-01-01" },
        { "name": "b", "module": "promptflow.connections", "type": "custom", "configs": { "x": "y" }, "secrets": { "k": "******" } },
    ]);
    fs::write(state.join("list.json"), list.to_string()).unwrap();
    assert_eq!(
        json_of(state, &["import", "list.json"], "a.api_key=word\nb.k=other\n"),
        json!({ "kept": 2 })
    );
    assert_eq!(kept(state, "/a/secrets/api_key"), "word");
    assert_eq!(
        kept(state, "/b"),
        json!({ "type": "custom", "module": "promptflow.connections", "configs": { "x": "y" }, "secrets": { "k": "other" } })
    );
    assert_eq!(kept(state, "/a/brokered"), true);
}
