//! The output of `--json` fits `pfsession schema`, command by command, on the real thing.

use serde_json::Value;
use whole_system::{Machine, flow, root};

#[test]
fn what_each_command_prints_for_programs_passes_the_schema_that_it_prints() {
    let machine = Machine::new();
    let folder = flow("one-node").display().to_string();
    let data = root().join("tests/flows/one-node/data.jsonl").display().to_string();
    let calls: [(&str, &[&str]); 34] = [
        ("start", &["start", &folder]),
        ("run", &["run", &folder, "--data", &data]),
        ("run", &["run", &folder, "--no-wait"]),
        ("install", &["install", &folder]),
        ("reset", &["reset", &folder]),
        ("list", &["list"]),
        ("show", &["show", &folder]),
        ("why", &["why", &folder]),
        ("update", &["update", &folder, "--idle", "2h"]),
        ("extend", &["extend", &folder]),
        ("packages", &["packages", &folder]),
        ("runs list", &["runs", "list"]),
        ("compute list", &["compute", "list"]),
        ("logs", &["logs", &folder]),
        ("events", &["events", &folder]),
        ("webhook list", &["webhook", "list"]),
        ("role assign", &["role", "assign", "bob", "owner"]),
        ("role revoke", &["role", "revoke", "bob"]),
        ("role list", &["role", "list"]),
        ("sizes", &["sizes"]),
        ("workspace show", &["workspace", "show"]),
        ("identity list", &["identity", "list"]),
        (
            "instance create",
            &["instance", "create", "dev", "--idle-shutdown", "1h"],
        ),
        ("instance list", &["instance", "list"]),
        ("instance show", &["instance", "show", "dev"]),
        ("instance stop", &["instance", "stop", "dev"]),
        ("instance start", &["instance", "start", "dev"]),
        ("instance delete", &["instance", "delete", "dev"]),
        ("bench", &["bench", "--rounds", "1", "--at-once", "2"]),
        ("env", &["env"]),
        ("stop", &["stop", &folder, "--no-wait"]),
        ("stop", &["stop", &folder]),
        ("list", &["list", "--all"]),
        ("failure", &["show", "nothing-of-this-name"]),
    ];
    let mut ids = Vec::new();
    for (command, arguments) in calls {
        let words: Vec<&str> = ["schema"].into_iter().chain(command.split(' ')).collect();
        let schema: Value = serde_json::from_str(&machine.succeed(&words)).expect("a schema is JSON");
        let schema = jsonschema::validator_for(&schema).expect("it is a schema");
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let ended = machine.run(&arguments);
        assert_eq!(ended.status.success(), command != "failure", "{ended:?}");
        let text = String::from_utf8(ended.stdout).expect("text");
        let mut values = 0;
        for line in text.lines() {
            let value: Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{arguments:?} prints {line}: {e}"));
            if let Err(error) = schema.validate(&value) {
                panic!("{arguments:?} prints what its schema does not say: {error}\n{value:#}");
            }
            if command == "bench" {
                let whats: Vec<&str> = value["figures"]
                    .as_array()
                    .expect("figures")
                    .iter()
                    .filter_map(|f| f["ours"]["what"].as_str())
                    .collect();
                let is_there = |begin: &str| whats.iter().filter(|what| what.starts_with(begin)).count();
                let begins = [
                    "start a",
                    "the first run of",
                    "the second",
                    "install",
                    "view",
                    "reset",
                    "stop,",
                ];
                assert_eq!(begins.map(is_there), [1, 1, 1, 2, 1, 1, 2], "{whats:?}");
            }
            ids.extend(
                value["id"]
                    .as_str()
                    .filter(|_| matches!(command, "run" | "start"))
                    .map(str::to_owned),
            );
            values += 1;
        }
        assert!(values > 0, "{arguments:?} prints nothing");
    }
    // A run and an operation are shown as well.
    let schema: Value = serde_json::from_str(&machine.succeed(&["schema", "show"])).expect("a schema is JSON");
    let schema = jsonschema::validator_for(&schema).expect("it is a schema");
    for id in &ids {
        let value: Value = serde_json::from_str(&machine.succeed(&["show", id, "--json"])).expect("JSON");
        assert!(schema.is_valid(&value), "{value:#}");
    }
}
