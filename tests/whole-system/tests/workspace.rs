//! A workspace's settings, on the real thing: an owner writes them, starts have them, and others
//! are told what bars them.

use contract::{Origin, notice::Notice, row::RunRow};
use lifecycle::size::Used;
use serde_json::{Value, json};
use std::{fs, process::Output};
use whole_system::{Api, Machine, write_flow};

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Lines 67 to 72 of the specification, *Start with advanced settings*.
const EXAMPLE: &str = "identity:
   type: system_assigned, user_assigned
   user_assigned_identities:
    '/subscriptions/<subscription_id>/resourcegroups/<resource_group_name>/providers/Microsoft.ManagedIdentity/userAssignedIdentities/<uai_name>': {}
    '<UAI resource ID 2>': {}
";

#[test]
fn an_owner_sets_a_workspace_and_starts_have_its_defaults_quotas_and_identities() {
    let machine = Machine::new();
    let file = machine.state().join("workspace.yml");
    let update = |text: &str| {
        fs::write(&file, text).unwrap();
        let output = machine.run(&["workspace", "update", "-f", file.to_str().unwrap()]);
        (output.status.success(), said(&output))
    };
    let (done, text) = update(EXAMPLE);
    assert!(
        done && text.contains("<uai_name>; primary") && text.contains("<UAI resource ID 2>"),
        "{text}"
    );
    let directory = machine.state().display().to_string();
    let (done, text) = update(&format!(
        "default_vm_size: Standard_D2s_v5\nlargest_idle_seconds: 900\nworking_directory: {directory}\n\
         default_data_store: {{ name: workspaceblobstore, type: azure_blob }}\n\
         quota:\n  sessions: 2\n  vcpus: {{ D: 4 }}\n"
    ));
    assert!(
        done && text.contains("2 sessions, 4 vCPUs of family D") && text.contains("<uai_name>"),
        "{text}"
    );

    // Start: the size is the workspace's, and `show` says so; a session that its quota bars names
    // what holds it.
    let folders = ["one", "two", "three"].map(|name| machine.state().join(name));
    for folder in &folders {
        write_flow(folder, "@tool\ndef one(text: str): return text\n", None);
    }
    let at = folders.each_ref().map(|folder| folder.to_str().unwrap());
    machine.succeed(&["start", at[0]]);
    let own = machine.api();
    let session = own.session(&folders[0]).unwrap();
    assert_eq!(session.settings.size.origin, Origin::Workspace);
    let shown = machine.succeed(&["show", at[0]]);
    assert!(
        shown.contains("Standard_D2s_v5: 2 processors, 8 GiB (from the workspace)"),
        "{shown}"
    );
    let over = machine.run(&["start", at[1], "--size", "Standard_D4s_v5"]);
    assert!(!over.status.success());
    assert!(
        said(&over).contains("The quota of vCPUs of family D in the workspace local is 4 for you"),
        "{}",
        said(&over)
    );
    assert!(said(&over).contains("one (Standard_D2s_v5)"), "{}", said(&over));
    machine.succeed(&["start", at[1]]);
    let third = said(&machine.run(&["start", at[2], "--size", "local"]));
    assert!(
        third.contains("Session.QuotaExceeded") && third.contains("is 2 for you"),
        "{third}"
    );
    machine.succeed(&["stop", at[1]]);
    machine.succeed(&["start", at[2], "--size", "local"]);
    let idle = said(&machine.run(&["update", at[2], "--idle", "1h"]));
    assert!(idle.contains("Session.IdleTooLong"), "{idle}");
    let identity = said(&machine.run(&["update", at[2], "--identity", "c-9"]));
    assert!(
        identity.contains("has no identity c-9. It has /subscriptions/"),
        "{identity}"
    );

    // All that a start needs, at once; nothing is started.
    let four = machine.state().join("four");
    write_flow(
        &four,
        "@tool\ndef one(text: str): return text\n",
        Some("promptflow==1.0\n"),
    );
    let four = four.to_str().unwrap();
    let checked = machine.run(&[
        "check",
        four,
        "--json",
        "--size",
        "Standard_D8s_v5",
        "--idle",
        "2h",
        "--identity",
        "c-9",
    ]);
    assert_eq!(checked.status.code(), Some(1));
    let checks: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let found: Vec<String> = checks["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["check"] != "network")
        .map(|check| format!("{} {} {}", check["check"], check["result"], check["error"]).replace('"', ""))
        .collect();
    assert_eq!(
        found,
        [
            "role held null",
            "vm-size held null",
            "idle-time lacking Session.IdleTooLong",
            "identity lacking Session.NoIdentity",
            "data-store held null",
            "working-directory held null",
            "quota lacking Session.QuotaExceeded",
            "requirements lacking Flow.PinnedPromptflow",
            "python held null",
            "base-image held null",
        ]
    );
    assert!(own.sessions().iter().all(|session| session.flow.lineage != four));
    let manifest = machine.run(&["identity", "check", "<uai_name>"]);
    let manifest = said(&manifest);
    assert!(
        manifest.contains("Storage Blob Data Contributor") && manifest.contains("Managed Identity Operator"),
        "{manifest}"
    );

    // Bad settings change nothing, and say which line is wrong.
    let before: Value = own.get("/v1/workspaces/local/settings").unwrap();
    for (text, why) in [
        (
            "default_size: local\n",
            "workspace.yml:1: a workspace has no key default_size. Is default_vm_size meant?",
        ),
        ("quota:\n  vcpus: { Dsv5: 4 }\n", "Workspace.NoSuchFamily"),
        ("working_directory: /not/there\n", "Workspace.NoWorkingDirectory"),
        (
            "default_data_store: { name: files, type: azure_file }\n",
            "Workspace.NotAnObjectStore",
        ),
        (
            "primary_user_assigned_identity: c\n",
            "Primary user assigned identity not found",
        ),
        (
            "default_vm_size: Standard_D3s_v5\n",
            "The nearest one is Standard_D2s_v5.",
        ),
    ] {
        let (done, text) = update(text);
        assert!(!done && text.contains(why), "{why}: {text}");
    }
    assert_eq!(own.get::<Value>("/v1/workspaces/local/settings").unwrap(), before);

    // Who is no owner reads them, and is told which permission is missing.
    let bob = somebody(&machine, "bob", "local", &["data-scientist"]);
    assert_eq!(bob.get::<Value>("/v1/workspaces/local/settings").unwrap(), before);
    let (status, why) = bob.put("/v1/workspaces/local/settings", &before).unwrap_err();
    assert!(
        status == 403 && why.contains("lacks the permission workspace/write"),
        "{status} {why}"
    );
    let far = somebody(&machine, "far", "elsewhere", &["owner"]);
    assert_eq!(far.get::<Value>("/v1/workspaces/local/settings").unwrap_err().0, 403);
    let stale = json!({ "workspace": "local", "revision": 0, "settings": {} });
    assert_eq!(own.put("/v1/workspaces/local/settings", &stale).unwrap_err().0, 409);
    let (done, text) = update("quota: null\ndefault_vm_size: null\n");
    assert!(done && text.contains("local: all of the machine"), "{text}");
}

/// The front, as this user with these roles.
fn somebody(machine: &Machine, name: &str, workspace: &str, roles: &[&str]) -> Api {
    let issuer = machine.state().join("issuer.key");
    let mut arguments = vec!["token", "--issuer", issuer.to_str().unwrap()];
    arguments.extend(["--user", name, "--workspace", workspace]);
    arguments.extend(roles.iter().flat_map(|role| ["--role", role]));
    let token = machine.succeed(&arguments);
    Api::new(&machine.api().endpoint, token.trim(), name)
}

#[test]
fn a_size_that_nobody_names_is_chosen_by_what_past_runs_used_and_show_and_why_say_how() {
    let machine = Machine::new();
    let folder = machine.state().join("flows/measured");
    write_flow(
        &folder,
        "@tool\ndef one(text: str):\n    sum(range(10**6)); return text\n",
        None,
    );
    let at = folder.to_str().unwrap();
    machine.succeed(&["run", at, "--inputs", "text=a", "--name", "by-a-flow"]);
    let shown = machine.succeed(&["show", at]);
    assert!(shown.contains("chosen: one machine has no cheaper size"), "{shown}");
    assert!(shown.contains("no run of the flow was measured yet"), "{shown}");
    machine.succeed(&[
        "run",
        at,
        "--name",
        "by-a-command",
        "--",
        "python",
        "-c",
        "sum(range(10**6))",
    ]);
    let used = |run: &str| -> Used {
        let row: RunRow = machine.api().get(&format!("/v1/runs/{run}")).unwrap();
        row.result.unwrap().used.expect("it was measured")
    };
    for run in ["by-a-flow", "by-a-command"] {
        let used = used(run);
        assert!((1 << 20..4 << 30).contains(&used.memory), "{run}: {used:?}");
        assert!(used.processor > 0 && used.took > 0, "{run}: {used:?}");
    }
    machine.succeed(&["stop", at]);
    machine.succeed(&["start", at]);
    for command in ["show", "why"] {
        let text = machine.succeed(&[command, at]);
        assert!(text.contains("the flow's last 2 runs used"), "{command}: {text}");
    }
}

#[test]
fn sessions_are_warned_and_stopped_once_they_have_lived_for_the_time_of_a_day() {
    let machine = Machine::new();
    let file = machine.state().join("workspace.yml");
    let set = |seconds: u32| {
        fs::write(&file, format!("quota:\n  session_seconds_per_day: {seconds}\n")).unwrap();
        machine.succeed(&["workspace", "update", "-f", file.to_str().unwrap()])
    };
    let folder = machine.state().join("busy");
    write_flow(&folder, "@tool\ndef one(text: str): return text\n", None);
    let at = folder.to_str().unwrap();
    machine.succeed(&["start", at]);
    // A cap that comes while the session lives counts for it, and a run does not hold it up.
    let shown = set(8);
    assert!(shown.contains("8.0 s of sessions a day"), "{shown}");
    let before = machine.succeed(&["show", at]);
    assert!(before.contains("as the time of the day is used up then"), "{before}");
    let ends = machine.succeed(&["why", at]);
    assert!(ends.contains("in use or not: your sessions have lived then"), "{ends}");
    let ran = machine.run(&["run", at, "--", "sleep", "600"]);
    assert!(!ran.status.success());
    assert!(said(&ran).contains("Session.DailyTimeUsedUp"), "{}", said(&ran));

    for command in ["show", "why", "events"] {
        let text = machine.succeed(&[command, at]);
        assert!(
            text.contains("Your sessions may live for 8 s a day in the workspace local"),
            "{command}: {text}"
        );
    }
    let events = machine.succeed(&["events", at]);
    assert!(
        events.contains("as its user's time of the day is used up then"),
        "{events}"
    );
    let is_warning = |notice: &Notice| matches!(notice, Notice::StoppedForTheDaySoon { .. });
    assert!(machine.notices().iter().any(is_warning));
    let refused = machine.run(&["start", at]);
    assert!(!refused.status.success());
    assert!(
        said(&refused).contains("The time begins anew at 2"),
        "{}",
        said(&refused)
    );
    let checked = said(&machine.run(&["check", at]));
    assert!(checked.contains("Session.DailyTimeUsedUp"), "{checked}");

    set(3600);
    machine.succeed(&["start", at]);
}
