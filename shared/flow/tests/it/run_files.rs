//! `run.yml`, as it should be and as it should not.

use crate::tree::Tree;
use expect_test::{Expect, expect};
use std::fmt::Write;

fn check(text: &str, expected: Expect) {
    let tree = Tree::new(&[("run.yml", text)]);
    let run = flow::run_yaml(&tree.at("run.yml")).unwrap();
    expected.assert_eq(&tree.without_root(&format!("{run:#?}")));
}

#[test]
fn the_seeds_own_run_file_is_read_with_its_paths_from_its_own_folder() {
    check(
        "$schema: https://azuremlschemas.azureedge.net/promptflow/latest/Run.schema.json\nflow: ../flow\ndata: ./data.jsonl\n\
         identity:\n  type: managed\n  client_id: xxx\ncolumn_mapping:\n  url: ${data.url}\n  k: 3\nresources:\n  instance_type: standard_d2\n",
        expect![[r#"
            RunYaml {
                name: None,
                display_name: None,
                description: None,
                tags: {},
                properties: {},
                flow: Some(
                    Local(
                        "ROOT/repo/flow",
                    ),
                ),
                data: Some(
                    Local(
                        "ROOT/repo/flow/data.jsonl",
                    ),
                ),
                column_mapping: {
                    "k": Number(3),
                    "url": String("${data.url}"),
                },
                runtime: None,
                resources: Resources {
                    instance_type: Some(
                        "standard_d2",
                    ),
                    compute: None,
                },
                identity: Managed {
                    client_id: Some(
                        "xxx",
                    ),
                },
                network: None,
                allow_hosts: None,
                run: None,
                resume_from: None,
                variant: None,
                environment_variables: Here(
                    {},
                ),
                connections: {},
                init: Here(
                    {},
                ),
            }"#]],
    );
}

#[test]
fn every_key_of_a_run_file_is_read_and_an_empty_one_is_none() {
    check(
        "name: a\ndisplay_name: b\ndescription: c\ntags: {version: 1.0, on: true, none: }\nproperties: {p: q}\nflow: azureml:mine\n\
         data: https://host/data.jsonl\nruntime: automatic\nrun: earlier\nvariant: ${node.variant_1}\nenvironment_variables: {N: 1}\n\
         connections: {node: {connection: mine}}\ninit: {n: 1, list: [a]}\nresources: {compute: mine}\nidentity: {type: user_identity}\ncolumn_mapping:\n",
        expect![[r#"
            RunYaml {
                name: Some(
                    "a",
                ),
                display_name: Some(
                    "b",
                ),
                description: Some(
                    "c",
                ),
                tags: {
                    "none": "",
                    "on": "true",
                    "version": "1.0",
                },
                properties: {
                    "p": "q",
                },
                flow: Some(
                    Remote(
                        "azureml:mine",
                    ),
                ),
                data: Some(
                    Remote(
                        "https://host/data.jsonl",
                    ),
                ),
                column_mapping: {},
                runtime: Some(
                    "automatic",
                ),
                resources: Resources {
                    instance_type: None,
                    compute: Some(
                        "mine",
                    ),
                },
                identity: User,
                network: None,
                allow_hosts: None,
                run: Some(
                    "earlier",
                ),
                resume_from: None,
                variant: Some(
                    "${node.variant_1}",
                ),
                environment_variables: Here(
                    {
                        "N": "1",
                    },
                ),
                connections: {
                    "node": {
                        "connection": "mine",
                    },
                },
                init: Here(
                    {
                        "list": Array [
                            String("a"),
                        ],
                        "n": Number(1),
                    },
                ),
            }"#]],
    );
}

#[test]
fn variables_and_init_may_be_in_files_of_their_own() {
    let tree = Tree::new(&[
        (
            "run.yml",
            "flow: .\nenvironment_variables: settings.env\ninit: init.json\n",
        ),
        ("settings.env", "# ours\nexport A=1\nB='two words'\n"),
        ("init.json", "{\"n\": [1]}"),
    ]);
    let run = flow::run_yaml(&tree.at("run.yml")).unwrap();
    let variables = run.environment_variables.here();
    assert_eq!(
        variables.into_iter().collect::<Vec<_>>(),
        [("A".into(), "1".into()), ("B".into(), "two words".to_owned())]
    );
    assert_eq!(
        serde_json::to_value(run.init.here()).unwrap(),
        serde_json::json!({ "n": [1] })
    );
}

#[test]
fn a_fault_of_a_run_file_is_said_with_its_line() {
    let cases = [
        ("an unknown resource", "flow: .\nresources:\n  instance_typ: a\n"),
        ("both resources", "resources: {instance_type: a, compute: b}\n"),
        ("an unknown identity", "flow: .\nidentity:\n  type: system\n"),
        ("an identity of nobody", "identity: {client_id: x}\n"),
        (
            "a user with a client id",
            "identity: {type: user_identity, client_id: x}\n",
        ),
        ("tags as a list", "flow: .\ntags: [a]\n"),
        ("a tag that is a list", "tags: {a: [b]}\n"),
        ("variables in no file", "environment_variables: .env\n"),
        ("an unknown key", "flow: .\ncolum_mapping: {}\n"),
        ("no mapping", "- flow\n"),
        ("no YAML", "flow: [\n"),
    ];
    let mut texts = String::new();
    for (fault, text) in cases {
        let tree = Tree::new(&[("run.yml", text)]);
        let failure = flow::run_yaml(&tree.at("run.yml")).unwrap_err();
        writeln!(texts, "{fault}\n  {}", tree.without_root(&failure.to_string())).unwrap();
    }
    let tree = Tree::new(&[]);
    writeln!(
        texts,
        "no file\n  {}",
        tree.without_root(&flow::run_yaml(&tree.at("run.yml")).unwrap_err().to_string())
    )
    .unwrap();
    expect![[r#"
        an unknown resource
          Flow.BadRunFile: ROOT/repo/flow/run.yml:3: the YAML is wrong: unknown field `instance_typ`, expected one of instance_type, compute. Correct it.
        both resources
          Flow.BadRunFile: ROOT/repo/flow/run.yml: resources has both instance_type and compute. Keep the one that the run is to use.
        an unknown identity
          Flow.BadRunFile: ROOT/repo/flow/run.yml:3: the YAML is wrong: identity.type is system; it may be managed or user_identity. Correct it.
        an identity of nobody
          Flow.BadRunFile: ROOT/repo/flow/run.yml:1: the YAML is wrong: missing field `type`. Correct it.
        a user with a client id
          Flow.BadRunFile: ROOT/repo/flow/run.yml:1: the YAML is wrong: identity: a client_id goes with `type: managed` alone. Correct it.
        tags as a list
          Flow.BadRunFile: ROOT/repo/flow/run.yml:2: the YAML is wrong: there should be a mapping. Correct it.
        a tag that is a list
          Flow.BadRunFile: ROOT/repo/flow/run.yml:1: the YAML is wrong: there should be a text. Correct it.
        variables in no file
          Flow.Unreadable: ROOT/repo/flow/.env cannot be read: it is not there. See that it is there and may be read.
        an unknown key
          Flow.BadRunFile: ROOT/repo/flow/run.yml: a run has no key colum_mapping. Did you mean column_mapping?
        no mapping
          Flow.BadRunFile: ROOT/repo/flow/run.yml is a list. It should be a mapping, such as `flow: ./my-flow` and `data: ./data.jsonl`.
        no YAML
          Flow.BadRunFile: ROOT/repo/flow/run.yml:1: the YAML is wrong: unclosed bracket '['. Correct it.
        no file
          Flow.Unreadable: ROOT/repo/flow/run.yml cannot be read: it is not there. See that it is there and may be read.
    "#]].assert_eq(&texts);
}
