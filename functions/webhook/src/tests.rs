//! The pure part by value: what is genuine, what it means, and what it becomes.

use super::*;
use contract::{Code, FlowRef, Principal, Role, command::Wish};
use std::collections::BTreeMap;

/// # Source
///
/// The example of the Standard Webhooks reference libraries.
const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const STANDARD_ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const STANDARD_TIME: u64 = 1_614_265_330;
const STANDARD_BODY: &str = r#"{"test": 2432232314}"#;
const STANDARD_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

/// # Source
///
/// "Validating webhook deliveries" in GitHub's documentation, *Testing the webhook payload
/// validation*.
const GITHUB_SECRET: &str = "It's a Secret to Everybody";
const GITHUB_BODY: &str = "Hello, World!";
const GITHUB_SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

const NOW: Millis = STANDARD_TIME * 1000;

fn headers(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn standard_headers(signature: &str) -> BTreeMap<String, String> {
    headers(&[
        ("webhook-id", STANDARD_ID),
        ("webhook-timestamp", &STANDARD_TIME.to_string()),
        ("webhook-signature", signature),
    ])
}

fn github_headers(event: &str, signature: &str) -> BTreeMap<String, String> {
    headers(&[
        ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("X-GitHub-Event", event),
        ("X-Hub-Signature-256", signature),
    ])
}

fn request(headers: BTreeMap<String, String>, body: &str) -> Request {
    serde_json::from_value(json!({
        "rawPath": "/webhook/local/acme", "headers": headers, "body": body,
        "requestContext": { "http": { "method": "POST" } },
    }))
    .expect("a request")
}

/// A delivery of GitHub's, signed as it should be.
fn from_github(event: &str, payload: &Value) -> Request {
    let body = payload.to_string();
    request(github_headers(event, &github_signature(&body)), &body)
}

fn github_signature(body: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<Sha256>::new_from_slice(GITHUB_SECRET.as_bytes()).expect("any key will do");
    mac.update(body.as_bytes());
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn with(secrets: &[&str]) -> impl FnOnce(&str) -> Vec<String> {
    let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
    move |address| if address == "local/acme" { secrets } else { Vec::new() }
}

fn refusal(answer: Result<Delivery, Answer>) -> (u16, Code) {
    match answer {
        Err(Answer::Refused(status, failure)) => (status, failure.error),
        other => panic!("{other:?} is no refusal"),
    }
}

fn check_signature(headers: &BTreeMap<String, String>, body: &str, secrets: &[&str]) -> bool {
    let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
    Signed::of(headers).is_some_and(|signed| signed.check(body.as_bytes(), &secrets).is_some())
}

#[test]
fn the_examples_of_both_kinds_are_genuine_and_with_one_thing_changed_they_are_not() {
    let standard = |body, secrets: &[&str], change: &dyn Fn(&mut BTreeMap<String, String>)| {
        let mut headers = standard_headers(STANDARD_SIGNATURE);
        change(&mut headers);
        check_signature(&headers, body, secrets)
    };
    let keep = |_: &mut BTreeMap<String, String>| {};
    assert!(standard(STANDARD_BODY, &[STANDARD_SECRET], &keep));
    assert!(!standard("{}", &[STANDARD_SECRET], &keep));
    assert!(!standard(
        STANDARD_BODY,
        &["whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        &keep
    ));
    assert!(!standard(STANDARD_BODY, &[], &keep));
    for (header, other) in [("webhook-id", "msg_other"), ("webhook-timestamp", "1614265331")] {
        assert!(
            !standard(STANDARD_BODY, &[STANDARD_SECRET], &|headers| {
                headers.insert(header.into(), other.into());
            }),
            "{header} is signed"
        );
    }
    // A secret that is none, or a signature of another version, is nobody's.
    for secret in ["", "whsec_", "whsec_!!!"] {
        let of_nothing = standard_headers("v1,thWU8LxlvX3tqlm8OQWQUpTkvFRVZUcVtKjGvXAxjXE=");
        assert!(!check_signature(&of_nothing, STANDARD_BODY, &[secret]), "{secret}");
        assert!(!standard(STANDARD_BODY, &[secret], &keep), "{secret}");
    }
    assert!(!check_signature(
        &standard_headers(&STANDARD_SIGNATURE.replace("v1,", "v1a,")),
        STANDARD_BODY,
        &[STANDARD_SECRET]
    ));

    let github =
        |signature: &str, body, secrets: &[&str]| check_signature(&github_headers("push", signature), body, secrets);
    assert!(github(GITHUB_SIGNATURE, GITHUB_BODY, &[GITHUB_SECRET]));
    assert!(!github(GITHUB_SIGNATURE, "Hello, World?", &[GITHUB_SECRET]));
    assert!(!github(GITHUB_SIGNATURE, GITHUB_BODY, &["its a secret to everybody"]));
    assert!(!github(
        &GITHUB_SIGNATURE.replace('7', "8"),
        GITHUB_BODY,
        &[GITHUB_SECRET]
    ));
    for none in [
        "",
        "sha256=",
        "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6",
        "sha256=xyz",
        "sha256=αα",
    ] {
        assert!(!github(none, GITHUB_BODY, &[GITHUB_SECRET]), "{none}");
    }
    assert!(
        !github(&github_signature(GITHUB_BODY), GITHUB_BODY, &[""]),
        "an empty secret is nobody's"
    );
}

#[test]
fn while_a_secret_changes_the_old_and_the_new_one_are_good_on_both_sides() {
    // The sender signs with both.
    let both = format!("v1,bm9wZQ== {STANDARD_SIGNATURE} v1a,bm9wZQ==");
    assert!(check_signature(
        &standard_headers(&both),
        STANDARD_BODY,
        &[STANDARD_SECRET]
    ));
    // This side knows both.
    let secrets = ["whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSw", STANDARD_SECRET];
    assert!(check_signature(
        &standard_headers(STANDARD_SIGNATURE),
        STANDARD_BODY,
        &secrets
    ));
    assert!(check_signature(
        &github_headers("push", GITHUB_SIGNATURE),
        GITHUB_BODY,
        &["another", GITHUB_SECRET]
    ));
    // A long list is no way to try many.
    let many = format!("{} {STANDARD_SIGNATURE}", "v1,bm9wZQ== ".repeat(20));
    assert!(!check_signature(
        &standard_headers(&many),
        STANDARD_BODY,
        &[STANDARD_SECRET]
    ));
}

#[test]
fn a_delivery_within_five_minutes_counts_and_an_older_or_a_later_one_is_stale() {
    let body = r#"{"type": "a"}"#;
    let signed = |now| {
        use hmac::{Hmac, KeyInit, Mac};
        let key = BASE64.decode(&STANDARD_SECRET[6..]).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any key will do");
        mac.update(format!("{STANDARD_ID}.{STANDARD_TIME}.{body}").as_bytes());
        let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
        read(
            &request(standard_headers(&signature), body),
            with(&[STANDARD_SECRET]),
            now,
        )
    };
    for near in [NOW, NOW + 300_000, NOW - 300_000] {
        assert!(signed(near).is_ok(), "{near}");
    }
    for far in [NOW + 301_000, NOW - 301_000] {
        assert_eq!(refusal(signed(far)), (400, Code::WebhookStale), "{far}");
    }
    // Who has no secret does not learn that it is stale.
    let forged = request(standard_headers("v1,bm9wZQ=="), body);
    assert_eq!(
        refusal(read(&forged, with(&[STANDARD_SECRET]), NOW + 301_000)),
        (401, Code::WebhookNotGenuine)
    );
}

#[test]
fn everything_that_is_not_genuine_gets_one_and_the_same_answer() {
    let good = from_github("push", &push(&["a"]));
    let mut answers = Vec::new();
    let mut try_it = |change: &dyn Fn(&mut Request), secrets: &[&str]| {
        let mut request = good.clone();
        change(&mut request);
        answers.push(read(&request, with(secrets), NOW).expect_err("it is not genuine"));
    };
    try_it(&|_| {}, &[]);
    try_it(&|_| {}, &["another"]);
    try_it(&|r| r.headers.clear(), &[GITHUB_SECRET]);
    try_it(&|r| drop(r.headers.remove("X-GitHub-Delivery")), &[GITHUB_SECRET]);
    try_it(&|r| drop(r.headers.remove("X-GitHub-Event")), &[GITHUB_SECRET]);
    try_it(&|r| r.body = Some("{}".into()), &[GITHUB_SECRET]);
    for path in [
        "/webhook/local/other",
        "/webhook/other/acme",
        "/webhook/local",
        "/webhook/local/acme/x",
        "/",
    ] {
        try_it(&|r| r.raw_path = path.into(), &[GITHUB_SECRET]);
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]), "{answers:?}");
    assert!(matches!(&answers[0], Answer::Refused(401, _)));
    assert!(read(&good, with(&[GITHUB_SECRET]), NOW).is_ok());
}

#[test]
fn a_body_may_come_in_base64_and_no_larger_than_the_bound() {
    let payload = push(&["a"]).to_string();
    let mut request = from_github("push", &push(&["a"]));
    request.body = Some(BASE64.encode(&payload));
    request.is_base64_encoded = true;
    assert!(read(&request, with(&[GITHUB_SECRET]), NOW).is_ok());
    request.body = Some("%".into());
    assert_eq!(
        refusal(read(&request, with(&[GITHUB_SECRET]), NOW)),
        (400, Code::WebhookMalformed)
    );

    let too_large = "x".repeat(MOST_BYTES + 1);
    for (body, encoded) in [
        (too_large.clone(), false),
        (BASE64.encode(&too_large), true),
        ("A".repeat(4 << 20), true),
    ] {
        request.body = Some(body);
        request.is_base64_encoded = encoded;
        // It is not even looked whether it is genuine.
        let answer = read(&request, |_| panic!("a secret is asked for"), NOW);
        assert_eq!(refusal(answer), (413, Code::WebhookTooLarge));
    }
    let get: Request = serde_json::from_value(json!({
        "rawPath": "/webhook/local/acme", "requestContext": { "http": { "method": "GET" } },
    }))
    .expect("a request");
    assert_eq!(refusal(read(&get, with(&[]), NOW)).0, 405);
}

#[test]
fn what_is_genuine_and_cannot_be_read_says_what_to_set_right() {
    let of = |event: &str, body: &str| {
        let request = request(github_headers(event, &github_signature(body)), body);
        match read(&request, with(&[GITHUB_SECRET]), NOW) {
            Err(Answer::Refused(400, failure)) if failure.error == Code::WebhookMalformed => failure.message,
            other => panic!("{other:?}"),
        }
    };
    assert!(of("push", "payload=%7B%7D").contains("application/json"));
    assert!(of("push", "{").starts_with("The body is no JSON"));
    // The name of the event is not signed. A copy under another name is none.
    assert!(of("release", &push(&["a"]).to_string()).contains("has no release"));
}

fn push(files: &[&str]) -> Value {
    json!({
        "ref": "refs/heads/main", "forced": false, "created": false, "deleted": false,
        "repository": { "full_name": "Acme/Flows" },
        "commits": [{ "added": [], "modified": files, "removed": [] }],
    })
}

fn rule(event: &str, only: Value) -> Rule {
    serde_json::from_value(json!({
        "name": "a-rule", "sender": "acme", "kind": "github", "event": event, "only": only,
        "flow": { "workspace": "local", "owner": "alice", "lineage": "/flows/joke" },
        "by": { "user": { "name": "alice", "workspace": "local", "roles": ["owner", "data-scientist"] } },
        "command": "install",
    }))
    .expect("a rule")
}

#[track_caller]
fn becomes(event: &str, payload: &Value, rule: Rule) -> bool {
    let delivery = read(&from_github(event, payload), with(&[GITHUB_SECRET]), NOW).expect("it is genuine");
    !commands(&[rule], &delivery).is_empty()
}

#[test]
fn a_push_counts_for_the_branch_the_repository_and_the_files_that_a_rule_names() {
    let at = |only: Value, files: &[&str]| becomes("push", &push(files), rule("push", only));
    assert!(at(json!({}), &["README.md"]));
    assert!(
        at(json!({ "repository": "acme/flows" }), &["x"]),
        "names of repositories have no case"
    );
    assert!(!at(json!({ "repository": "acme/other" }), &["x"]));
    assert!(at(json!({ "branch": "main" }), &["x"]) && at(json!({ "branch": "ma*" }), &["x"]));
    assert!(!at(json!({ "branch": "mai" }), &["x"]) && !at(json!({ "branch": "Main" }), &["x"]));
    let requirements = json!({ "paths": ["flows/joke/requirements.txt", "shared"] });
    assert!(at(requirements.clone(), &["README.md", "flows/joke/requirements.txt"]));
    assert!(at(requirements.clone(), &["shared/a/b.txt"]));
    for other in [
        "flows/joke/requirements.txt.bak",
        "flows/joke",
        "sharedother/a",
        "a/shared/b",
    ] {
        assert!(!at(requirements.clone(), &[other]), "{other}");
    }
    assert!(at(
        json!({ "paths": ["*requirements*.txt"] }),
        &["a/requirements-dev.txt"]
    ));
    assert!(!at(requirements.clone(), &[]));
    assert!(!at(json!({ "tag": "*" }), &["x"]) && !at(json!({ "environment": "*" }), &["x"]));

    let changed = |change: Value| {
        let mut payload = push(&["README.md"]);
        for (name, value) in change.as_object().expect("an object") {
            payload[name] = value.clone();
        }
        payload
    };
    // What a push does not tell may have changed.
    for unknown in [
        json!({ "forced": true }),
        json!({ "created": true }),
        json!({ "commits": null }),
    ] {
        assert!(becomes("push", &changed(unknown), rule("push", requirements.clone())));
    }
    let many: Vec<Value> = vec![json!({ "modified": ["README.md"] }); 2048];
    assert!(becomes(
        "push",
        &changed(json!({ "commits": many })),
        rule("push", requirements.clone())
    ));
    // A branch that is gone has no files, and a tag is no branch.
    assert!(!becomes(
        "push",
        &changed(json!({ "deleted": true })),
        rule("push", json!({}))
    ));
    let tag = changed(json!({ "ref": "refs/tags/v1" }));
    assert!(!becomes("push", &tag, rule("push", json!({}))));
    assert!(becomes("push", &tag, rule("push", json!({ "tag": "v*" }))));
}

#[test]
fn a_release_counts_once_and_a_deployment_for_its_environment() {
    let release = |action: &str| {
        json!({ "action": action, "release": { "tag_name": "v1.2", "target_commitish": "main" },
                "repository": { "full_name": "acme/flows" } })
    };
    // GitHub tells of one release as created, released and published.
    for (action, counts) in [
        ("published", true),
        ("created", false),
        ("released", false),
        ("edited", false),
    ] {
        assert_eq!(
            becomes("release", &release(action), rule("release", json!({ "tag": "v*" }))),
            counts,
            "{action}"
        );
    }
    assert!(becomes(
        "release",
        &release("created"),
        rule("release.created", json!({}))
    ));
    assert!(!becomes(
        "release",
        &release("published"),
        rule("release", json!({ "tag": "w*" }))
    ));

    let deployment = json!({ "action": "created", "deployment": { "environment": "production", "ref": "main" },
                             "repository": { "full_name": "acme/flows" } });
    let at = |only: Value| becomes("deployment", &deployment, rule("deployment", only));
    assert!(at(json!({ "environment": "production", "branch": "main" })));
    assert!(!at(json!({ "environment": "staging" })));
    // Of an event that nothing is known of, its name and its action count.
    let issue = json!({ "action": "opened", "issue": {} });
    assert!(becomes("issues", &issue, rule("issues", json!({}))));
    assert!(becomes("issues", &issue, rule("issues.opened", json!({}))));
    assert!(!becomes("issues", &issue, rule("issues.closed", json!({}))));
    assert!(!becomes(
        "ping",
        &json!({ "zen": "Keep it logically awesome." }),
        rule("push", json!({}))
    ));
}

#[test]
fn a_rule_is_about_its_own_sender_kind_and_workspace_and_needs_a_maker() {
    let delivery = || read(&from_github("push", &push(&["x"])), with(&[GITHUB_SECRET]), NOW).expect("it is genuine");
    let with_change = |change: &dyn Fn(&mut Rule)| {
        let mut rule = rule("push", json!({}));
        change(&mut rule);
        commands(&[rule], &delivery()).len()
    };
    assert_eq!(with_change(&|_| {}), 1);
    assert_eq!(with_change(&|rule| rule.sender = "other".into()), 0);
    assert_eq!(
        with_change(&|rule| rule.kind = contract::webhook::SenderKind::StandardWebhooks),
        0
    );
    assert_eq!(with_change(&|rule| rule.flow.workspace = "other".into()), 0);
    assert_eq!(with_change(&|rule| rule.by = None), 0);
}

#[test]
fn a_standard_webhook_names_its_event_in_its_payload() {
    let signed = Signed::of(&standard_headers(STANDARD_SIGNATURE)).expect("headers");
    let mut paid = rule("invoice.paid", json!({ "environment": "live", "paths": ["a"] }));
    paid.kind = contract::webhook::SenderKind::StandardWebhooks;
    let meant = |payload: Value| {
        Occurrence::read(&signed, payload.to_string().as_bytes()).is_ok_and(|occurrence| occurrence.is_meant_by(&paid))
    };
    assert!(meant(
        json!({ "type": "invoice.paid", "data": { "environment": "live", "paths": ["a/b"] } })
    ));
    assert!(!meant(
        json!({ "type": "invoice.paid", "data": { "environment": "live", "paths": ["b"] } })
    ));
    assert!(!meant(
        json!({ "type": "invoice.paid", "data": { "environment": "test" } })
    ));
    assert!(!meant(
        json!({ "type": "invoice", "action": "paid", "data": { "environment": "live" } })
    ));
    assert!(Occurrence::read(&signed, STANDARD_BODY.as_bytes()).is_err());
}

#[test]
fn the_command_is_the_rules_its_maker_its_flow_and_has_the_deliverys_id() {
    let delivery = read(&from_github("push", &push(&["x"])), with(&[GITHUB_SECRET]), NOW).expect("it is genuine");
    let [command] = &commands(&[rule("push", json!({}))], &delivery)[..] else {
        panic!("one command")
    };
    assert!(
        command.id.starts_with("72d3162e-cc78-11e3-81ab-4c9367dc0958-"),
        "{}",
        command.id
    );
    let maker = Principal::User {
        name: "alice".into(),
        workspace: "local".into(),
        roles: vec![Role::Owner, Role::DataScientist],
    };
    let flow = FlowRef {
        workspace: "local".into(),
        owner: "alice".into(),
        lineage: "/flows/joke".into(),
    };
    assert_eq!((&command.flow, &command.principal), (&flow, &Some(maker)));
    assert_eq!(
        command.wish,
        Wish::Install {
            settings: None,
            lock: None
        }
    );
    // It is a command like any other.
    assert_eq!(
        Command::read(&serde_json::to_string(command).expect("JSON")).as_ref(),
        Ok(command)
    );

    // Each rule, sender and workspace has a command of its own; whatever the id is, the command's
    // is good and short enough for a run.
    let mut seen = std::collections::BTreeSet::new();
    let long = "x".repeat(200);
    for workspace in ["local", "other"] {
        for rule in ["a", "b"] {
            for id in ["evt_1", "evt.1", "evt 1 / ü", &long] {
                let delivery = Delivery {
                    workspace: workspace.into(),
                    sender: "acme".into(),
                    genuine: Signed::of(&standard_headers(STANDARD_SIGNATURE))
                        .and_then(|signed| signed.check(STANDARD_BODY.as_bytes(), &[STANDARD_SECRET.into()]))
                        .expect("it is genuine"),
                    occurrence: Occurrence::read(
                        &Signed::of(&github_headers("push", GITHUB_SIGNATURE)).expect("headers"),
                        push(&[]).to_string().as_bytes(),
                    )
                    .expect("a push"),
                };
                let id = command_id(&delivery, rule, id);
                assert!(
                    contract::command::is_good_id(&id) && id.len() <= contract::command::LONGEST_RUN_ID,
                    "{id}"
                );
                assert!(seen.insert(id));
            }
        }
    }
}

#[test]
fn a_copy_under_another_id_is_known_by_what_is_signed() {
    let digest = |id: &str, body: &str| {
        let mut headers = github_headers("push", &github_signature(body));
        headers.insert("X-GitHub-Delivery".into(), id.into());
        let signed = Signed::of(&headers).expect("headers");
        signed
            .check(body.as_bytes(), &[GITHUB_SECRET.into()])
            .expect("it is genuine")
            .digest
    };
    assert_eq!(digest("a", "{}"), digest("b", "{}"));
    assert_ne!(digest("a", "{}"), digest("a", "{ }"));
}

#[test]
fn an_answer_has_its_status_and_never_a_secret() {
    let taken = |already| {
        Answer::Taken(Taken {
            already,
            commands: vec!["a".into()],
        })
        .response()
    };
    assert_eq!(
        (&taken(false)["statusCode"], &taken(true)["statusCode"]),
        (&json!(202), &json!(200))
    );
    assert_eq!(taken(true)["body"], r#"{"already":true,"commands":["a"]}"#);
    assert_eq!(Answer::Nothing.response(), json!({ "statusCode": 204 }));
    let refused = read(
        &request(github_headers("push", GITHUB_SIGNATURE), "x"),
        with(&[GITHUB_SECRET]),
        NOW,
    );
    let text = refused.expect_err("it is not genuine").response().to_string();
    assert!(
        text.contains("Webhook.NotGenuine") && !text.contains(GITHUB_SECRET) && !text.contains("757107"),
        "{text}"
    );
}

#[test]
fn a_name_with_escapes_is_read() {
    assert_eq!(decode_path("my%20team%2F%CE%B1"), "my team/α");
    assert_eq!(decode_path("100%25-%zz%4"), "100%-%zz%4");
}

#[test]
fn what_a_sender_reads_says_what_to_set_right() {
    let answer = |request: &Request, now| match read(request, with(&[STANDARD_SECRET, GITHUB_SECRET]), now) {
        Err(Answer::Refused(status, failure)) => format!("{status} {failure}"),
        other => panic!("{other:?} is no refusal"),
    };
    let github = |event: &str, body: &str| request(github_headers(event, &github_signature(body)), body);
    let mut get = github("push", "{}");
    get.request_context.http.method = "GET".into();
    let texts = [
        answer(&get, NOW),
        answer(&request(github_headers("push", GITHUB_SIGNATURE), "x"), NOW),
        answer(
            &request(standard_headers(STANDARD_SIGNATURE), STANDARD_BODY),
            NOW + 600_000,
        ),
        answer(&request(standard_headers(STANDARD_SIGNATURE), STANDARD_BODY), NOW),
        answer(&github("push", "payload=%7B%7D"), NOW),
        answer(&github("release", "{}"), NOW),
        answer(&github("push", &"x".repeat(MOST_BYTES + 1)), NOW),
    ];
    expect_test::expect![[r#"
        405 Webhook.NotPost: Deliveries are sent by POST.
        401 Webhook.NotGenuine: This is not the address of a sender, or the signature is not made with its secret over this body. Compare both with what was given out when the sender was added.
        400 Webhook.Stale: The delivery's time is more than 300 s from now. Send it again, by a clock that is right.
        400 Webhook.Malformed: The payload has no `type`, which names the event.
        400 Webhook.Malformed: The body is a form. Set the webhook's content type to application/json.
        400 Webhook.Malformed: X-GitHub-Event says release, and the payload has no release.
        413 Webhook.TooLarge: A delivery has at most 1048576 bytes. Have its sender leave out what it can."#]].assert_eq(&texts.join("\n"));
}

/// Genuine deliveries too, so that what is behind the signature is reached.
#[test]
fn any_bytes_as_a_delivery_are_taken_or_refused() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events/webhook/valid");
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for sample in std::fs::read_dir(samples).expect("samples").flatten() {
        let sample: Value = serde_json::from_slice(&std::fs::read(sample.path()).expect("a sample")).expect("JSON");
        seeds.push(sample["body"].as_str().unwrap_or_default().into());
        seeds.push(sample.to_string().into());
    }
    let events = ["push", "release", "deployment", "ping", "x"];
    let words = [
        "\"",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "*",
        "**/",
        "refs/heads/",
        "\"commits\"",
        "\"ref\"",
        "v1,",
        "sha256=",
        "whsec_",
    ];
    fuzz::fuzz("a delivery", &seeds, &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(request) = serde_json::from_str::<Request>(&text) {
            let _ = read(&request, with(&[GITHUB_SECRET, STANDARD_SECRET]), NOW);
        }
        let _ = read(
            &request(standard_headers(&text), &text),
            with(&[STANDARD_SECRET, &text]),
            NOW,
        );
        let _ = read(
            &request(github_headers(&text, &text), &text),
            with(&[GITHUB_SECRET]),
            NOW,
        );
        for event in events {
            let genuine = request(github_headers(event, &github_signature(&text)), &text);
            if let Ok(delivery) = read(&genuine, with(&[GITHUB_SECRET]), NOW) {
                commands(&[rule(event, json!({}))], &delivery);
                let only: Result<contract::webhook::Filter, _> =
                    serde_json::from_value(json!({ "branch": text, "paths": [text] }));
                if let Ok(only) = only {
                    commands(
                        &[Rule {
                            only,
                            ..rule(event, json!({}))
                        }],
                        &delivery,
                    );
                }
            }
        }
    });
}
