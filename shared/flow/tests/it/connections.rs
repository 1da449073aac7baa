//! Connections' documents, beside what promptflow makes of them.

use expect_test::expect;
use flow::{Secret, connection, connections};
use serde_json::Value;

/// promptflow 1.18.5's result for each document; `record.py` beside it makes it again.
const RECORDED: &str = include_str!("../connections/promptflow.json");

#[test]
fn each_document_of_a_connection_becomes_what_promptflow_makes_of_it() {
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    assert!(recorded.len() > 25);
    for entry in recorded {
        let document = entry["document"].as_str().unwrap();
        let read = connection("connection.yml", document);
        if entry.get("refused").is_some() {
            assert!(read.is_err(), "promptflow refuses {document}");
            continue;
        }
        let mut read = read.unwrap_or_else(|failure| panic!("{document}: {failure}"));
        for (key, secret) in read.secrets {
            let Secret::Given(secret) = secret else {
                panic!("{document}")
            };
            read.connection.secrets.insert(key, secret);
        }
        assert_eq!(read.connection.for_executor("c"), entry["executor"], "{document}");
        assert_eq!(read.connection.scrub("c"), entry["shown"], "{document}");
    }
}

#[test]
fn what_is_wrong_with_a_connections_document_is_said_without_its_secret() {
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    let bad = recorded.iter().filter(|entry| entry.get("refused").is_some());
    let bad = bad.map(|entry| entry["document"].as_str().unwrap());
    let more = [
        "- name: c\n",
        "name: a/b\ntype: open_ai\n",
        "name: c\ntype: open_ai\napi_key: [hidden]\n",
        "name: c\ntype: open_ai\napi_key: 'hidden\n",
        "name: c\ntype: custom\nsecrets: hidden\n",
        "name: c\ntype: custom\nconfigs:\n  a: x\nsecrets:\n  a: hidden\n",
    ];
    let said: Vec<String> = bad
        .chain(more)
        .map(|document| connection("c.yml", document).err().unwrap().to_string())
        .collect();
    assert!(!said.iter().any(|text| text.contains("hidden")), "{said:?}");
    expect![[r#"
        Connection.BadFile: c.yml: api_base is missing. A connection of type azure_open_ai needs it.
        Connection.BadFile: c.yml: endpoint is missing. A connection of type form_recognizer needs it.
        Connection.BadFile: c.yml: organization is a number, and should be text. Write it in quotes.
        Connection.BadFile: c.yml: api_key is a number, and should be text. Write it in quotes.
        Connection.BadFile: c.yml: organization is empty, and should be text. Write it in quotes.
        Connection.BadFile: c.yml: secrets is missing. A connection of type custom needs it: a mapping of names to <user-input>.
        Connection.BadFile: c.yml: a is a number, and should be text. Write it in quotes.
        Connection.BadFile: c.yml: package is missing. A custom strong type connection needs it.
        Connection.BadFile: c.yml: type is missing. Add one of azure_open_ai, open_ai, serverless, serp, qdrant, weaviate, cognitive_search, azure_ai_services, azure_content_safety, form_recognizer, custom.
        Connection.BadFile: c.yml: open_aii is no type of a connection. It should be one of azure_open_ai, open_ai, serverless, serp, qdrant, weaviate, cognitive_search, azure_ai_services, azure_content_safety, form_recognizer, custom.
        Connection.BadFile: c.yml: OpenAI is no type of a connection. It should be one of azure_open_ai, open_ai, serverless, serp, qdrant, weaviate, cognitive_search, azure_ai_services, azure_content_safety, form_recognizer, custom.
        Connection.BadFile: c.yml: auth_mode is token. It should be key or meid_token.
        Connection.BadFile: c.yml is a list. It should be a mapping, such as `name: …`, `type: open_ai` and `api_key: <user-input>`.
        Connection.BadFile: c.yml: "a/b" is no name. It should have 1 to 100 characters, and no /, { or }.
        Connection.BadFile: c.yml: api_key is a list, and should be text. Write it in quotes.
        Connection.BadFile: c.yml:3: the YAML is wrong: unclosed quote. Correct it.
        Connection.BadFile: c.yml: secrets is a string, and should be a mapping of text.
        Connection.BadFile: c.yml: a is in configs and in secrets. Keep one."#]].assert_eq(&said.join("\n"));
}

#[test]
fn a_secret_that_is_not_in_a_document_is_asked_for_or_kept() {
    let of = |written: &str| {
        let text = format!("name: c\ntype: open_ai\n{written}\n");
        connection("c.yml", &text).unwrap().secrets["api_key"].clone()
    };
    let is = |a: Secret, b: Secret| assert!(a == b);
    is(of(""), Secret::Asked);
    is(of("api_key: <user-input>"), Secret::Asked);
    for kept in ["api_key:", "api_key: ''", "api_key: '******'", "api_key: <no-change>"] {
        is(of(kept), Secret::Kept);
    }
    is(of("api_key: word"), Secret::Given("word".into()));
}

#[test]
fn a_key_that_a_connection_does_not_have_is_named_with_the_nearest_one() {
    let warnings = |text: &str| connection("c.yml", text).unwrap().warnings.join("\n");
    expect![[r#"
        c.yml: a connection of type open_ai has no key base_ulr, and it is left out. Is base_url meant?
        c.yml: a connection of type open_ai has no key unlike, and it is left out."#]]
    .assert_eq(&warnings("type: open_ai\nbase_ulr: x\nunlike: y\n"));
    expect!["c.yml: a connection of type custom has no key config, and it is left out. Is configs meant?"]
        .assert_eq(&warnings("type: custom\nsecrets: {}\nconfig:\n  a: x\n"));
}

#[test]
fn a_flow_gets_another_address_of_a_connection_whose_key_a_broker_holds_and_a_word_for_the_key() {
    let read = |text: &str| connection("c.yml", text).unwrap();
    let mut open_ai = read("type: open_ai\nbrokered: true\n");
    assert_eq!(open_ai.brokered, Some(true));
    open_ai.connection.secrets.insert("api_key".into(), "hidden".into());
    assert_eq!(open_ai.connection.address(), Some("https://api.openai.com/v1"));
    let behind = open_ai.connection.behind("http://192.0.0.1/x/v1").for_executor("c");
    assert_eq!(behind["value"]["base_url"], "http://192.0.0.1/x/v1");
    assert_eq!(behind["value"]["api_key"], "held-by-the-broker");
    for (text, address) in [
        ("type: azure_open_ai\napi_base: http://here\n", Some("http://here")),
        ("type: serverless\napi_base: http://here\n", Some("http://here")),
        (
            "type: azure_open_ai\napi_base: http://here\nauth_mode: meid_token\n",
            None,
        ),
        ("type: serp\n", None),
        ("type: custom\nsecrets: {}\n", None),
    ] {
        assert_eq!(read(text).connection.address(), address, "{text}");
    }
    let bad = connection("c.yml", "type: open_ai\nbrokered: yes please\n")
        .err()
        .unwrap();
    expect!["Connection.BadFile: c.yml: brokered is a string, and should be true or false."]
        .assert_eq(&bad.to_string());
}

#[test]
fn the_list_that_pf_prints_is_read_whole_or_says_which_one_is_wrong() {
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    let shown: Vec<&Value> = recorded.iter().filter_map(|entry| entry.get("shown")).collect();
    let read = connections("list.json", &serde_json::to_string(&shown).unwrap()).unwrap();
    for (read, shown) in read.iter().zip(&shown) {
        assert!(read.secrets.values().all(|secret| *secret == Secret::Kept));
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
        let mut connection = read.connection.clone();
        connection.secrets = read.secrets.keys().map(|key| (key.clone(), String::new())).collect();
        assert_eq!(connection.scrub("c"), **shown);
    }
    let said = |text: &str| connections("list.json", text).err().unwrap().to_string();
    expect![[r#"
        Connection.BadFile: list.json is a mapping. It should be the list that `pf connection list` prints.
        Connection.BadFile: list.json: other: azure is no type of a connection. It should be one of azure_open_ai, open_ai, serverless, serp, qdrant, weaviate, cognitive_search, azure_ai_services, azure_content_safety, form_recognizer, custom.
        Connection.BadFile: list.json: connection 1: it is a number, and should be a mapping"#]].assert_eq(
        &[
            said("{}"),
            said("[{\"name\": \"mine\", \"type\": \"open_ai\"}, {\"name\": \"other\", \"type\": \"azure\"}]"),
            said("[1]"),
        ]
        .join("\n"),
    );
}
