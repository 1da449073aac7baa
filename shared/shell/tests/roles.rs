//! Every action by every role, with one's own session, somebody else's and one of another
//! workspace, by each way that a command takes.

#[expect(dead_code, reason = "this file needs a part of the world")]
mod world;

use contract::{Code, FlowRef, Principal, Role, people::RoleRow, row::OperationStatus, webhook::WebhooksRow};
use serde_json::{Value, json};
use shell::{Sender, SpeaksFor, accept};
use world::World;

const IDENTITY: &str = "id-1";

/// Sets of roles, and the letters of [`MATRIX`].
fn roles(of: &str) -> (Vec<Role>, Vec<String>) {
    let operator = || vec![IDENTITY.to_owned()];
    match of {
        "none" => (vec![], vec![]),
        "scientist" => (vec![Role::DataScientist], vec![]),
        "operator" => (vec![Role::DataScientist], operator()),
        "only-operator" => (vec![], operator()),
        "administrator" => (vec![Role::RoleAdministrator], vec![]),
        "owner" => (vec![Role::Owner], vec![]),
        "both" => (vec![Role::Owner, Role::DataScientist], vec![]),
        _ => unreachable!(),
    }
}

/// The rights of each role: with their own session, with somebody else's in the workspace, with one
/// of another workspace.
const MATRIX: [(&str, &str); 42] = [
    ("run none", "---"),
    ("run scientist", "x--"),
    ("run operator", "x--"),
    ("run only-operator", "---"),
    ("run administrator", "---"),
    ("run owner", "---"),
    ("run both", "x--"),
    ("use none", "---"),
    ("use scientist", "x--"),
    ("use operator", "x--"),
    ("use only-operator", "---"),
    ("use administrator", "---"),
    ("use owner", "---"),
    ("use both", "x--"),
    ("identity none", "---"),
    ("identity scientist", "---"),
    ("identity operator", "x--"),
    ("identity only-operator", "---"),
    ("identity administrator", "---"),
    ("identity owner", "---"),
    ("identity both", "x--"),
    ("stop none", "---"),
    ("stop scientist", "x--"),
    ("stop operator", "x--"),
    ("stop only-operator", "---"),
    ("stop administrator", "---"),
    ("stop owner", "xx-"),
    ("stop both", "xx-"),
    ("instance none", "---"),
    ("instance scientist", "x--"),
    ("instance operator", "x--"),
    ("instance only-operator", "---"),
    ("instance administrator", "---"),
    ("instance owner", "---"),
    ("instance both", "x--"),
    ("compute none", "---"),
    ("compute scientist", "x--"),
    ("compute operator", "x--"),
    ("compute only-operator", "---"),
    ("compute administrator", "---"),
    ("compute owner", "xx-"),
    ("compute both", "xx-"),
];

fn wishes(action: &str) -> Vec<Value> {
    let settings = match action {
        "identity" => json!({ "identity": IDENTITY }),
        _ => json!({}),
    };
    match action {
        "stop" => vec![json!({ "command": "stop" })],
        "compute" => vec![
            json!({ "command": "delete-compute", "compute": "c-1" }),
            json!({ "command": "stop-instance", "instance": "dev" }),
            json!({ "command": "delete-instance", "instance": "dev" }),
        ],
        "instance" => vec![
            json!({ "command": "create-instance", "instance": "dev" }),
            json!({ "command": "start-instance", "instance": "dev" }),
        ],
        "run" => vec![
            json!({ "command": "change-run", "run": "r", "archived": true }),
            json!({ "command": "delete-run", "run": "r" }),
        ],
        _ => vec![
            json!({ "command": "start", "settings": settings }),
            json!({ "command": "install", "settings": settings }),
            json!({ "command": "update", "settings": settings }),
            json!({ "command": "reset", "settings": settings }),
            json!({ "command": "run", "settings": settings, "run": {} }),
        ],
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// By HTTP, with a token that says the roles.
    Token,
    /// By HTTP, with a token that says others, and the workspace's table says these.
    Table,
    Queue,
    Webhook,
}

/// Whether a command that came this way was let through.
async fn is_let_through(way: Way, of: &str, wish: &Value, (workspace, owner): (&str, &str)) -> bool {
    let world = World::new(None);
    let (said, identities) = roles(of);
    let flow = FlowRef {
        workspace: workspace.to_owned(),
        owner: owner.to_owned(),
        lineage: "/flow".to_owned(),
    };
    let user = |roles: Vec<Role>| Principal::User {
        name: "alice".to_owned(),
        workspace: "local".to_owned(),
        roles,
    };
    let (token, is_closed) = match way {
        Way::Token => (said.clone(), false),
        _ => (vec![Role::Owner, Role::DataScientist], true),
    };
    let row = RoleRow {
        workspace: "local".to_owned(),
        user: "alice".to_owned(),
        roles: said.into_iter().filter(|_| is_closed).collect(),
        closed: is_closed,
        identities: identities.into_iter().collect(),
        ..RoleRow::default()
    };
    let key = ("local".to_owned(), "alice".to_owned());
    world.state.lock().unwrap().roles.insert(key, row);
    let mut command = json!({ "id": "c", "flow": flow, "principal": user(token) });
    let parts = wish.as_object().unwrap().clone();
    command.as_object_mut().unwrap().extend(parts.clone());
    let speaks_for = match way {
        Way::Token | Way::Table => SpeaksFor::Anybody,
        Way::Queue => SpeaksFor::Itself,
        Way::Webhook => {
            let mut rule = json!({ "name": "r", "sender": "s", "kind": "github", "event": "push", "flow": flow,
                "by": command["principal"] });
            rule.as_object_mut().unwrap().extend(parts);
            let row = json!({ "workspace": workspace, "revision": 1, "rules": [rule] });
            let row: WebhooksRow = serde_json::from_value(row).unwrap();
            world.state.lock().unwrap().webhooks = Some(row);
            SpeaksFor::MakersOfRules
        }
    };
    let sender = Sender {
        id: "alice".to_owned(),
        speaks_for,
    };
    accept(&world, &command.to_string(), &sender).await.unwrap();
    let state = world.state.lock().unwrap();
    let failure = match state.runs.get("c") {
        Some(run) => run.failure.clone(),
        None => state.operations["c"].failure.clone(),
    };
    let is_denied = failure
        .as_ref()
        .is_some_and(|failure| failure.error == Code::AccessDenied);
    assert!(!is_denied || state.sessions.is_empty(), "nothing is left of it");
    !is_denied
}

#[tokio::test]
async fn each_role_may_do_what_the_matrix_says_whichever_way_a_command_came() {
    let mut asked = 0;
    for (case, expected) in MATRIX {
        let (action, of) = case.split_once(' ').unwrap();
        for way in [Way::Token, Way::Table, Way::Queue, Way::Webhook] {
            for wish in wishes(action) {
                let mut found = String::new();
                for place in [("local", "alice"), ("local", "bob"), ("elsewhere", "bob")] {
                    let is_through = is_let_through(way, of, &wish, place).await;
                    found.push(if is_through { 'x' } else { '-' });
                    asked += 1;
                }
                assert_eq!(found, expected, "{way:?} {case}: {wish}");
            }
        }
    }
    assert_eq!(asked, 3 * 4 * 7 * 18, "every case was asked");
}

#[tokio::test]
async fn an_identity_that_a_session_has_is_assigned_anew_with_each_use_of_it() {
    let world = World::new(None);
    let row = |identities: &[&str]| RoleRow {
        workspace: "local".to_owned(),
        user: "alice".to_owned(),
        identities: identities.iter().map(|name| (*name).to_owned()).collect(),
        ..RoleRow::default()
    };
    let set = |row: RoleRow| {
        let key = ("local".to_owned(), "alice".to_owned());
        world.state.lock().unwrap().roles.insert(key, row);
    };
    let flow = json!({ "workspace": "local", "owner": "alice", "lineage": "/flow" });
    let start = json!({ "id": "a", "flow": flow, "command": "start", "settings": { "identity": IDENTITY } });
    set(row(&[IDENTITY]));
    world.send(&start);
    world.settle().await;
    assert_eq!(world.outcome("a"), OperationStatus::Succeeded);
    // The identity is not named again, and is no longer the user's to assign.
    set(row(&["another"]));
    for (id, wish) in [
        ("b", json!({ "command": "reset" })),
        ("c", json!({ "command": "update", "settings": {} })),
        ("d", json!({ "command": "install" })),
    ] {
        let mut command = json!({ "id": id, "flow": flow });
        command
            .as_object_mut()
            .unwrap()
            .extend(wish.as_object().unwrap().clone());
        world.send(&command);
        world.settle().await;
        let failure = world.state.lock().unwrap().operations[id].failure.clone().unwrap();
        assert_eq!(
            failure.to_string(),
            "Access.Denied: alice lacks the permission identities/assign for the identity id-1 in the workspace local. The role owner has \
             it, and managed-identity-operator has it for one identity. A new role counts from the next command on, and one that a token \
             carries from the next token on."
        );
    }
    world.send(&json!({ "id": "e", "flow": flow, "command": "stop" }));
    world.settle().await;
    assert_eq!(world.outcome("e"), OperationStatus::Succeeded);
}
