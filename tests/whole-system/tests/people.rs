//! People of one workspace: whose sessions an owner sees and stops, and what others are told.

use contract::{
    http::{Accepted, SessionView, Sessions},
    row::{OperationRow, OperationStatus},
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use whole_system::{Api, Machine, said, somebody, typed, write_flow};

const LONG: Duration = Duration::from_secs(120);

fn stop_of(owner: &str, folder: &Path) -> Value {
    json!({ "id": format!("stop-{owner}"), "command": "stop",
            "flow": { "workspace": "local", "owner": owner, "lineage": folder.to_str().unwrap() } })
}

#[test]
fn an_owner_sees_and_stops_what_the_workspace_has_and_others_are_refused_by_name() {
    let machine = Machine::new();
    machine.up();
    let own = machine.api();
    let bob = somebody(&machine, "bob", "local", &["data-scientist"]);
    let eve = somebody(&machine, "eve", "local", &["data-scientist"]);
    let far = somebody(&machine, "far", "elsewhere", &["owner"]);
    let folder = machine.state().join("flow");
    write_flow(&folder, "@tool\ndef one(text: str): return text\n", None);

    bob.start("bobs", &folder).unwrap();
    assert_eq!(bob.operation("bobs", LONG).status, OperationStatus::Succeeded);
    let key = bob.flow(&folder).key();

    // The owner: by the list, by the start of the key, and page by page.
    let all: Sessions = own.get("/v1/sessions?users=all&limit=1").unwrap();
    assert_eq!(all.sessions[0].flow.owner, "bob");
    let next = all.next.expect("a full page has a next one");
    let rest: Sessions = own
        .get(&format!(
            "/v1/sessions?users=all&limit=1&after={}",
            contract::route::encode_part(&next)
        ))
        .unwrap();
    assert_eq!((rest.sessions.len(), rest.next), (0, None));
    assert!(own.sessions().is_empty(), "its own are others");
    let listed = said(&typed(&machine, &own, &["list", "--all-users"]));
    assert!(listed.contains("OWNER") && listed.contains("bob"), "{listed}");
    for command in ["show", "why", "events"] {
        let output = typed(&machine, &own, &[command, &key[..8]]);
        assert!(output.status.success(), "{command}: {}", said(&output));
    }

    // Who is no owner is told which permission is missing, at once, and nothing of what is there.
    let denied = "Access.Denied: eve lacks the permission sessions/read in the workspace local. The role owner has it. \
                  A new role counts from the next command on, and one that a token carries from the next token on.";
    assert_eq!(
        eve.get::<Sessions>("/v1/sessions?users=all").unwrap_err(),
        (403, denied.to_owned())
    );
    let output = typed(&machine, &eve, &["list", "--all-users"]);
    assert!(
        !output.status.success() && said(&output).contains("sessions/read"),
        "{}",
        said(&output)
    );
    let (status, why) = eve.send(&stop_of("bob", &folder)).map(|_: Accepted| ()).unwrap_err();
    assert_eq!(status, 403);
    assert!(
        why.contains("lacks the permission sessions/stop for the sessions of bob"),
        "{why}"
    );
    let output = typed(&machine, &eve, &["stop", &key[..8]]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert_eq!(
        eve.get::<SessionView>(&format!("/v1/sessions/{key}")).unwrap_err().0,
        404
    );
    assert_eq!(eve.get::<OperationRow>("/v1/operations/stop-bob").unwrap_err().0, 404);

    // An owner of another workspace is a stranger here.
    let theirs: Sessions = far.get("/v1/sessions?users=all").unwrap();
    assert!(theirs.sessions.is_empty());
    assert_eq!(far.send(&stop_of("bob", &folder)).unwrap_err().0, 403);
    assert_eq!(
        far.get::<SessionView>(&format!("/v1/sessions/{key}")).unwrap_err().0,
        404
    );

    // An owner stops it, and does not use it.
    let settings = json!({ "idle_seconds": 600 });
    let update = json!({ "id": "use", "command": "update", "settings": settings, "flow": bob.flow(&folder) });
    let (status, why) = own.send(&update).map(|_: Accepted| ()).unwrap_err();
    assert_eq!(status, 403);
    assert!(
        why.contains("sessions/use") && why.contains("bob alone has it"),
        "{why}"
    );
    let output = typed(&machine, &own, &["stop", &key[..8]]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!bob.session(&folder).unwrap().phase.is_live());
    let wrong = own.get::<Sessions>("/v1/sessions?users=bob").unwrap_err();
    assert_eq!(wrong.0, 400, "{wrong:?}");
}

fn role(machine: &Machine, api: &Api, arguments: &[&str]) -> (bool, String) {
    let arguments: Vec<&str> = ["role"].into_iter().chain(arguments.iter().copied()).collect();
    let output = typed(machine, api, &arguments);
    (output.status.success(), said(&output))
}

#[test]
fn a_role_counts_from_the_next_command_on_also_for_tokens_already_given() {
    let machine = Machine::new();
    machine.up();
    let own = machine.api();
    let bob = somebody(&machine, "bob", "local", &["data-scientist"]);
    let admin = somebody(&machine, "ada", "local", &["role-administrator"]);
    let all = "/v1/sessions?users=all";
    assert_eq!(bob.get::<Sessions>(all).unwrap_err().0, 403);

    let (done, text) = role(&machine, &own, &["assign", "bob", "owner"]);
    assert!(
        done && text
            .contains("bob has these roles in local from the next command on: owner, and those of their token."),
        "{text}"
    );
    bob.get::<Sessions>(all).unwrap();
    let (done, text) = role(&machine, &admin, &["list"]);
    assert!(done && text.contains("bob") && text.contains("count too"), "{text}");

    // Revoked: the token that says data-scientist opens nothing any more, by HTTP and by the
    // command line.
    let (done, text) = role(&machine, &admin, &["revoke", "bob"]);
    assert!(
        done && text.contains("local from the next command on: none. Those of a token do not count."),
        "{text}"
    );
    assert_eq!(bob.get::<Sessions>(all).unwrap_err().0, 403);
    let folder = machine.state().join("flow");
    write_flow(&folder, "@tool\ndef one(text: str): return text\n", None);
    let (status, why) = bob.start("late", &folder).map(|_| ()).unwrap_err();
    assert!(
        status == 403 && why.contains("bob lacks the permission sessions/use"),
        "{why}"
    );
    let (done, text) = role(&machine, &own, &["assign", "bob", "data-scientist"]);
    assert!(done, "{text}");
    bob.start("again", &folder).unwrap();

    // Who may not assign roles is told so, and a workspace never lacks somebody who may.
    let (done, text) = role(&machine, &bob, &["assign", "bob", "owner"]);
    assert!(
        !done && text.contains("roles/write in the workspace local. The roles owner and role-administrator have it."),
        "{text}"
    );
    let (done, text) = role(&machine, &own, &["revoke", &own.user, "owner"]);
    assert!(!done && text.contains("Role.Own"), "{text}");
    own.get::<Sessions>(all).unwrap();
    let (done, text) = role(&machine, &own, &["assign", "bob", "managed-identity-operator"]);
    assert!(!done && text.contains("--identity"), "{text}");
    let (done, text) = role(&machine, &own, &["assign", "bob", "owner", "--identity", "x"]);
    assert!(!done && text.contains("Role.NoIdentity"), "{text}");
    let (done, text) = role(
        &machine,
        &own,
        &["revoke", "bob", "managed-identity-operator", "--identity", "x"],
    );
    assert!(!done && text.contains("bob was not assigned the identity x"), "{text}");

    let stale = json!({ "workspace": "local", "user": "bob", "revision": 1, "roles": [] });
    assert_eq!(own.put("/v1/workspaces/local/roles", &stale).unwrap_err().0, 409);
    let odd = json!({ "workspace": "local", "user": "bob", "revision": 3, "roles": ["king"] });
    assert_eq!(own.put("/v1/workspaces/local/roles", &odd).unwrap_err().0, 400);
    let far = json!({ "workspace": "elsewhere", "user": "bob", "revision": 0, "roles": [] });
    assert_eq!(own.put("/v1/workspaces/local/roles", &far).unwrap_err().0, 400);
    assert_eq!(own.put("/v1/workspaces/elsewhere/roles", &far).unwrap_err().0, 403);
}

/// The requests over HTTP, and the roles that get an answer: own, somebody else's, another
/// workspace's.
const OVER_HTTP: [(&str, [(&str, &str); 5]); 7] = [
    (
        "use",
        [
            ("none", "---"),
            ("data-scientist", "x--"),
            ("owner", "---"),
            ("role-administrator", "---"),
            ("both", "x--"),
        ],
    ),
    (
        "stop",
        [
            ("none", "---"),
            ("data-scientist", "x--"),
            ("owner", "xx-"),
            ("role-administrator", "---"),
            ("both", "xx-"),
        ],
    ),
    (
        "compute",
        [
            ("none", "---"),
            ("data-scientist", "x--"),
            ("owner", "xx-"),
            ("role-administrator", "---"),
            ("both", "xx-"),
        ],
    ),
    (
        "identity",
        [
            ("none", "---"),
            ("data-scientist", "---"),
            ("owner", "---"),
            ("role-administrator", "---"),
            ("both", "x--"),
        ],
    ),
    (
        "roles",
        [
            ("none", "--"),
            ("data-scientist", "--"),
            ("owner", "x-"),
            ("role-administrator", "x-"),
            ("both", "x-"),
        ],
    ),
    (
        "webhooks",
        [
            ("none", "--"),
            ("data-scientist", "--"),
            ("owner", "x-"),
            ("role-administrator", "--"),
            ("both", "x-"),
        ],
    ),
    (
        "settings",
        [
            ("none", "--"),
            ("data-scientist", "x-/--"),
            ("owner", "x-"),
            ("role-administrator", "x-/--"),
            ("both", "x-"),
        ],
    ),
];

fn is_answered(answer: Result<Value, (u16, String)>) -> char {
    match answer {
        Err((403, why)) if why.starts_with("Access.Denied: ") => '-',
        Err((403 | 401, why)) => panic!("{why}"),
        _ => 'x',
    }
}

fn commands(action: &str) -> Vec<Value> {
    let settings = if action == "identity" {
        json!({ "identity": "id-1" })
    } else {
        json!({})
    };
    let instance = |command: &str| json!({ "command": command, "instance": "dev" });
    match action {
        "roles" | "webhooks" | "settings" => Vec::new(),
        "compute" => vec![
            json!({ "command": "delete-compute", "compute": "c" }),
            instance("stop-instance"),
            instance("delete-instance"),
        ],
        "stop" => vec![json!({ "command": "stop" }), json!({ "command": "cancel", "run": "r" })],
        _ => vec![
            json!({ "command": "start", "settings": settings }),
            json!({ "command": "install", "settings": settings }),
            json!({ "command": "update", "settings": settings }),
            json!({ "command": "reset", "settings": settings }),
            json!({ "command": "run", "settings": settings, "run": {} }),
            json!({ "command": "create-instance", "instance": "dev", "identity": settings.get("identity") }),
        ],
    }
}

#[test]
fn each_role_is_answered_over_http_as_the_matrix_says_with_403_at_once() {
    let machine = Machine::new();
    machine.up();
    let own = machine.api();
    let mut sent = 0;
    for (action, roles) in OVER_HTTP {
        for (of, expected) in roles {
            let user = format!("u-{of}");
            // The token says more than the table, which counts.
            let api = somebody(&machine, &user, "local", &["owner", "data-scientist"]);
            let has = match of {
                "none" => json!([]),
                "both" => json!(["owner", "data-scientist"]),
                one => json!([one]),
            };
            let read: Value = own.get(&format!("/v1/workspaces/local/roles?user={user}")).unwrap();
            let row = json!({ "workspace": "local", "user": user, "revision": read["revision"], "roles": has, "closed": true });
            own.put("/v1/workspaces/local/roles", &row).unwrap();
            let mut found: Vec<String> = Vec::new();
            if matches!(action, "roles" | "webhooks" | "settings") {
                let places = ["local", "elsewhere"].map(|workspace| format!("/v1/workspaces/{workspace}/{action}"));
                found.push(places.iter().map(|path| is_answered(api.get(path))).collect());
                let write = |path: &String| is_answered(api.put(path, &json!({ "revision": 99, "rules": [] })));
                found.push(places.iter().map(write).collect());
                sent += 4;
            }
            for mut command in commands(action) {
                let mut answers = String::new();
                for (workspace, owner) in [("local", user.as_str()), ("local", "else"), ("elsewhere", "else")] {
                    sent += 1;
                    command["id"] = json!(format!("m-{sent}"));
                    command["flow"] = json!({ "workspace": workspace, "owner": owner, "lineage": "/nothing/there" });
                    answers.push(is_answered(api.send(&command).map(|_| Value::Null)));
                }
                found.push(answers);
            }
            // Commands of one action share their answer.
            found.dedup();
            let expected: Vec<&str> = expected.split('/').collect();
            assert_eq!(found, expected, "{action} by {of}");
        }
    }
    assert_eq!(sent, 5 * (6 * 3 + 2 * 3 + 3 * 3) + 5 * 6 * 3 + 3 * 5 * 4);
}
