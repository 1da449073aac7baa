//! Compares files that must agree, and names what differs.

use lifecycle::{deadlines, session::Setting};
use serde_json::Value as Json;
use serde_yaml_ng::Value as Yaml;
use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every Markdown file of the project.
fn documents() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "*.md"])
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed
        .lines()
        .filter(|path| root().join(path).exists())
        .map(str::to_owned)
        .collect()
}

fn machine() -> Json {
    serde_json::from_str(&read("infra/lifecycle.asl.json")).unwrap()
}

fn template() -> Yaml {
    serde_yaml_ng::from_str(&read("infra/template.yaml")).unwrap()
}

fn folders(path: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(path)).unwrap().map(Result::unwrap);
    entries
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().into_string().unwrap())
        .collect()
}

fn tasks() -> Vec<(String, Json)> {
    let states = machine()["States"].as_object().unwrap().clone();
    states
        .into_iter()
        .filter(|(_, state)| state["Type"] == "Task")
        .collect()
}

#[test]
fn each_step_of_the_state_machine_is_a_step_of_the_core_and_the_other_way_round() {
    let in_machine: BTreeSet<String> = tasks()
        .iter()
        .map(|(_, t)| t["Parameters"]["MessageBody"]["step"].as_str().unwrap().to_owned())
        .collect();
    let in_core: BTreeSet<String> = [
        "claim-compute",
        "launch-session",
        "install-packages",
        "stop-session",
        "clean-up",
    ]
    .into_iter()
    .inspect(|step| {
        serde_json::from_value::<lifecycle::session::Step>(Json::String((*step).into())).unwrap();
    })
    .map(str::to_owned)
    .collect();
    assert_eq!(in_machine, in_core);
}

#[test]
fn each_kind_of_operation_has_its_way_through_the_state_machine() {
    let choices = machine()["States"]["Operation"]["Choices"].as_array().unwrap().clone();
    let in_machine: BTreeSet<String> = choices
        .iter()
        .map(|c| c["StringEquals"].as_str().unwrap().to_owned())
        .collect();
    let in_core: BTreeSet<String> = lifecycle::session::Kind::ALL
        .iter()
        .map(|kind| serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned())
        .collect();
    assert_eq!(in_machine, in_core);
}

#[test]
fn a_step_waits_longer_than_its_phase_may_take_and_every_step_has_its_clean_up() {
    let at_most = |state: &str| match state {
        "ClaimCompute" => deadlines::PROVISIONING,
        "LaunchSession" => deadlines::LAUNCHING,
        "InstallPackages" => deadlines::INSTALLING,
        // A stop is over at the latest when the lease has certainly run out.
        "ReplaceSession" => {
            deadlines::CHECKING
                + deadlines::LAUNCH_WINDOW_WITH_PULL
                + deadlines::LEASE
                + deadlines::LEASE_MARGIN
                + deadlines::STOPPING
        }
        "StopSession" | "CleanUp" => {
            deadlines::LAUNCH_WINDOW_WITH_PULL + deadlines::LEASE + deadlines::LEASE_MARGIN + deadlines::STOPPING
        }
        other => panic!("the step {other} has no deadline in the core"),
    };
    for (name, task) in tasks() {
        let waits = task["TimeoutSeconds"]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} has no TimeoutSeconds"))
            * 1000;
        assert!(
            waits > at_most(&name),
            "{name} waits {waits} ms, and the core's phase may take {} ms",
            at_most(&name)
        );
        let caught: Vec<&str> = task["Catch"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|c| c["ErrorEquals"].as_array().unwrap())
            .filter_map(Json::as_str)
            .collect();
        assert_eq!(caught, ["Session.Superseded", "States.ALL"], "{name}");
        assert!(task["Retry"].is_array(), "{name} has no Retry");
    }
}

/// A name, behind the deployment's prefix.
fn named(name: &Yaml) -> String {
    let Yaml::Tagged(sub) = name else {
        panic!("{name:?} has no prefix");
    };
    let text = sub.value.as_str().unwrap();
    text.strip_prefix("${NamePrefix}")
        .unwrap_or_else(|| panic!("{text} has no prefix"))
        .to_owned()
}

fn compute_machine() -> Json {
    serde_json::from_str(&read("infra/compute-ecs.asl.json")).unwrap()
}

#[test]
fn what_the_compute_driver_is_given_is_what_it_asks_for() {
    let text = read("infra/compute-ecs.asl.json");
    let asked: BTreeSet<&str> = text
        .split("${")
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap())
        .collect();
    let template = template();
    let given = &template["Resources"]["ComputeDriver"]["Properties"]["DefinitionSubstitutions"];
    let given: BTreeSet<&str> = given
        .as_mapping()
        .unwrap()
        .keys()
        .filter_map(|name| name.as_str())
        .collect();
    assert_eq!(asked, given);
}

#[test]
fn the_compute_driver_answers_before_the_core_gives_up() {
    let machine = compute_machine();
    let states = &machine["States"];
    let greeting = states["Greet"]["TimeoutSeconds"].as_u64().unwrap() * 1000;
    assert!(
        (deadlines::LAUNCH_WINDOW_WITH_PULL..deadlines::LAUNCHING).contains(&greeting),
        "an agent may come up until the window closes, and the core waits for {} ms",
        deadlines::LAUNCHING
    );
    let looks = states["HasJoined"]["Choices"][1]["NumericLessThan"].as_u64().unwrap();
    let boot = states["Boot"]["Seconds"].as_u64().unwrap() * 1000 * looks;
    assert!(
        boot < deadlines::PROVISIONING,
        "an instance is waited for for {boot} ms"
    );
}

#[test]
fn every_vm_size_has_an_instance_type_that_holds_it() {
    let machine = compute_machine();
    let states = &machine["States"];
    let steps: Vec<(u64, &Json)> = states["Step"]["Choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| {
            (
                choice["NumericLessThanEquals"].as_u64().unwrap(),
                &states[choice["Next"].as_str().unwrap()]["Result"],
            )
        })
        .collect();
    for (cpus, step) in &steps {
        let name = step["name"].as_str().unwrap();
        for (family, key) in [("c6i", "c"), ("m6i", "m"), ("r6i", "r")] {
            let limits = lifecycle::size::size(&format!("{family}.{name}"))
                .unwrap()
                .limits
                .unwrap();
            assert_eq!(
                (u64::from(limits.cpus), limits.memory >> 20),
                (*cpus, step[key].as_u64().unwrap()),
                "{family}.{name}"
            );
        }
    }
    for name in [
        "Standard_D1_v2",
        "Standard_DS3_v2",
        "Standard_DS14_v2",
        "Standard_D96s_v5",
        "Standard_E96s_v5",
        "Standard_F72s_v2",
        "m6i.24xlarge",
    ] {
        let limits = lifecycle::size::size(name).unwrap().limits.unwrap();
        let (_, step) = steps.iter().find(|(cpus, _)| u64::from(limits.cpus) <= *cpus).unwrap();
        assert!(limits.memory >> 20 <= step["r"].as_u64().unwrap(), "{name}");
    }
}

#[test]
fn each_folder_of_functions_is_a_function_of_the_template_and_the_other_way_round() {
    let template = template();
    let resources = template["Resources"].as_mapping().unwrap();
    let in_template: BTreeSet<String> = resources
        .values()
        .filter(|r| r["Type"].as_str() == Some("AWS::Serverless::Function"))
        .map(|r| named(&r["Properties"]["FunctionName"]))
        .collect();
    assert_eq!(in_template, folders("functions"));
}

#[test]
fn each_queue_waits_six_times_its_functions_timeout_and_has_a_dead_letter_queue() {
    let template = template();
    let timeout = template["Globals"]["Function"]["Timeout"].as_u64().unwrap();
    for (name, resource) in template["Resources"].as_mapping().unwrap() {
        let name = name.as_str().unwrap();
        if resource["Type"].as_str() != Some("AWS::SQS::Queue") || name.contains("Dead") {
            continue;
        }
        assert!(
            resource["Properties"]["VisibilityTimeout"].as_u64().unwrap() >= 6 * timeout,
            "{name}"
        );
        assert!(
            !resource["Properties"]["RedrivePolicy"].is_null(),
            "{name} has no dead-letter queue"
        );
        let alarm = format!("{}Dead", name.strip_suffix("Queue").unwrap());
        let alarm = &template["Resources"][alarm.as_str()];
        assert_eq!(
            alarm["Type"].as_str(),
            Some("AWS::CloudWatch::Alarm"),
            "nobody hears of {name}'s dead letters"
        );
    }
}

#[test]
fn each_function_has_a_role_and_a_log_of_its_own_and_no_role_may_do_everything_of_a_service() {
    let template = template();
    let resources = template["Resources"].as_mapping().unwrap();
    let mut roles = BTreeSet::new();
    for (name, function) in resources {
        if function["Type"].as_str() != Some("AWS::Serverless::Function") {
            continue;
        }
        let name = name.as_str().unwrap();
        let role = match &function["Properties"]["Role"] {
            Yaml::Tagged(get) => get.value.as_str().unwrap().to_owned(),
            other => panic!("{name} has the role {other:?}"),
        };
        assert_eq!(role, format!("{name}Role.Arn"));
        assert!(
            resources.contains_key(format!("{name}Log").as_str()),
            "{name} has no log group"
        );
        assert!(roles.insert(role), "{name} shares its role");
    }
    let text = read("infra/template.yaml");
    // What is denied may be everything.
    let of_denial = |at: usize| {
        text.lines()
            .skip(at.saturating_sub(2))
            .take(2)
            .any(|line| line.contains("Effect: Deny"))
    };
    for (at, line) in text.lines().enumerate().filter(|(_, line)| line.contains("Action:")) {
        if of_denial(at) {
            continue;
        }
        let actions = line.split("Resource:").next().unwrap();
        assert!(!actions.contains('*'), "{line}");
    }
}

#[test]
fn nobody_reaches_an_instance_for_sessions_and_no_container_on_it_reaches_its_metadata() {
    let template = template();
    let of = |name: &str| &template["Resources"][name]["Properties"];
    assert!(of("ComputeSecurityGroup").get("SecurityGroupIngress").is_none());
    let metadata = &of("ComputeLaunchTemplate")["LaunchTemplateData"]["MetadataOptions"];
    assert_eq!(metadata["HttpTokens"], "required");
    // A container is one hop further away.
    assert_eq!(metadata["HttpPutResponseHopLimit"], 1);
}

#[test]
fn the_names_of_queues_and_variables_in_the_code_are_those_of_the_template() {
    use contract::names::*;
    let text = read("infra/template.yaml");
    for queue in [
        COMMANDS,
        START_SESSION,
        INSTALL_PACKAGES,
        STOP_SESSION,
        IDLE_TICKS,
        REPORTS,
        COMPUTE_REQUESTS,
        COMMANDS_DEAD,
        NOTICES,
    ] {
        assert!(
            text.contains(&format!("QueueName: !Sub ${{NamePrefix}}{}\n", queue.name)),
            "the template has no queue {}",
            queue.name
        );
    }
    for variable in [
        COMMANDS.url_variable,
        COMMANDS_DEAD.url_variable,
        NOTICES.url_variable,
        COMPUTE_REQUESTS.url_variable,
        OWN_QUEUE,
        TABLE,
        STATE_MACHINE,
        TRUSTED_SENDERS,
        WEBHOOK_SENDERS,
        WEBHOOK_SECRETS,
        WEBHOOK_ADDRESS,
        DRIVER_SENDERS,
        ISSUER_KEY,
        ISSUER_URL,
        ISSUER_AUDIENCE,
        ISSUER_CLAIMS,
        SESSIONS_PER_USER,
        METRICS,
        IDENTITIES,
        COMPUTE_SUBNETS,
        FLOWS_BUCKET,
        CONNECTIONS_PREFIX,
    ] {
        assert!(
            text.contains(&format!("{variable}:")),
            "the template sets no {variable}"
        );
    }
}

/// Which of our crates may know which: the arrows of the architecture.
const ARROWS: &[(&str, &[&str])] = &[
    ("lifecycle", &[]),
    ("contract", &["lifecycle"]),
    ("flow", &["lifecycle"]),
    ("shell", &["lifecycle", "contract"]),
    ("socket", &[]),
    ("aws", &["lifecycle", "contract", "shell", "snapshots", "socket"]),
    ("accept-command", &["lifecycle", "contract", "shell", "aws"]),
    ("snapshots", &["lifecycle", "contract", "flow"]),
    (
        "start-session",
        &["lifecycle", "contract", "shell", "aws", "flow", "snapshots"],
    ),
    ("install-packages", &["lifecycle", "contract", "shell", "aws"]),
    ("stop-session", &["lifecycle", "contract", "shell", "aws"]),
    ("idle-tick", &["lifecycle", "contract", "shell", "aws"]),
    ("agent-report", &["lifecycle", "contract", "shell", "aws"]),
    (
        "api",
        &["lifecycle", "contract", "shell", "aws", "flow", "snapshots", "socket"],
    ),
    ("webhook", &["lifecycle", "contract", "shell", "aws"]),
    ("sandbox", &["contract", "lifecycle"]),
    ("broker", &[]),
    ("images", &["contract", "sandbox"]),
    ("network", &["lifecycle"]),
    (
        "environments",
        &[
            "network",
            "broker",
            "images",
            "sandbox",
            "lifecycle",
            "contract",
            "flow",
        ],
    ),
    (
        "agent",
        &[
            "environments",
            "network",
            "broker",
            "sandbox",
            "lifecycle",
            "contract",
            "flow",
            "snapshots",
            "socket",
        ],
    ),
    ("driver", &["agent", "environments", "sandbox", "lifecycle", "contract"]),
    (
        "local",
        &["lifecycle", "contract", "driver", "agent", "sandbox", "socket"],
    ),
];

#[test]
fn the_arrows_between_our_crates_point_one_way_and_the_core_knows_only_std() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Json = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    for (name, may_know) in ARROWS {
        let package = packages
            .iter()
            .find(|p| p["name"] == *name)
            .unwrap_or_else(|| panic!("there is no crate {name}"));
        let knows: Vec<&str> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().unwrap())
            .collect();
        for known in knows.iter().filter(|known| ours.contains(*known)) {
            assert!(may_know.contains(known), "{name} knows {known}, and must not");
        }
        if *name == "lifecycle" {
            let always: Vec<_> = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|d| d["kind"].is_null() && d["optional"] == false)
                .collect();
            assert!(always.is_empty(), "the core knows more than std: {always:?}");
        }
        let said: BTreeSet<&str> = ARROWS
            .iter()
            .map(|(name, _)| *name)
            .chain([
                "pfsession",
                "whole-system",
                "on-aws",
                "machines",
                "fuzz",
                "adversary",
                "tools",
            ])
            .collect();
        assert_eq!(
            said, ours,
            "a crate is missing from this table, or one too many is in it"
        );
    }
}

#[test]
fn the_readmes_table_of_what_meets_what_is_the_cores() {
    use lifecycle::session::{Kind, meeting};
    let word = |kind: &Kind| format!("{kind:?}").to_lowercase();
    let mut table = format!(
        "| under way | {} |\n",
        Kind::ALL.iter().map(word).collect::<Vec<_>>().join(" | ")
    );
    table += &format!("| --- |{}\n", " --- |".repeat(Kind::ALL.len()));
    for running in Kind::ALL {
        let cells = Kind::ALL.map(|wanted| format!("{:?}", meeting(running, wanted)).to_lowercase());
        table += &format!("| {} | {} |\n", word(&running), cells.join(" | "));
    }
    assert!(
        read("shared/lifecycle/README.md").contains(&table),
        "shared/lifecycle/README.md should have this table:\n{table}"
    );
}

/// The text of every Rust file of the project.
fn code() -> String {
    let sources = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .unwrap();
    String::from_utf8(sources.stdout).unwrap().lines().map(read).collect()
}

/// The cells of each row of a Markdown table whose first cell begins so.
fn rows_of(text: &str, begins: impl Fn(&str) -> bool) -> Vec<Vec<&str>> {
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let cells = rows.map(|row| row.split(" | ").map(str::trim).collect::<Vec<_>>());
    cells.filter(|cells| begins(cells[0])).collect()
}

#[test]
fn each_requirement_has_one_row_with_its_state_and_tests() {
    let text = read("tests/requirements.md");
    let rows = rows_of(&text, |first| {
        first
            .strip_prefix('R')
            .is_some_and(|number| number.parse::<u32>().is_ok())
    });
    let numbers: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let expected: Vec<String> = (1..=93).map(|number| format!("R{number}")).collect();
    assert_eq!(numbers, expected);

    let code = code();
    for row in &rows {
        let [number, requirement, state, tests, place] = row[..] else {
            panic!("not five cells: {row:?}");
        };
        assert!(
            !requirement.is_empty() && !place.is_empty(),
            "{number} has an empty cell"
        );
        assert!(
            tests != "-" || state == "not here",
            "{number} is {state} and names no test"
        );
        for name in tests.split(", ").filter(|name| *name != "-") {
            let name = name.trim_matches('`');
            assert!(
                code.contains(&format!("fn {name}(")),
                "{number} names the test {name}, which is not there"
            );
        }
    }

    let states = ["works", "in part", "not here"];
    let counts = rows_of(&text, |first| states.contains(&first));
    for (state, row) in states.iter().zip(&counts) {
        let count = rows.iter().filter(|row| row[2] == *state).count();
        assert_eq!(row[..2], [*state, &count.to_string()], "the table of states");
    }
    let named: BTreeSet<&str> = rows.iter().map(|row| row[2]).collect();
    assert!(named.is_subset(&BTreeSet::from(states)), "{named:?}");
    assert_eq!(counts.len(), states.len());
}

#[test]
fn each_test_that_the_readme_names_is_there() {
    let code = code();
    let documents: String = documents().iter().map(|path| read(path)).collect();
    let named: Vec<&str> = documents
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.matches('_').count() >= 4 && !word.contains(['/', ' ', '.']))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(
            code.contains(&format!("fn {name}(")),
            "a document names the test {name}, which is not there"
        );
    }
}

#[test]
fn the_readmes_diagram_has_the_edges_of_the_core_and_no_others() {
    let readme = read("shared/lifecycle/README.md");
    let diagram = readme
        .split("stateDiagram-v2")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let drawn: BTreeSet<String> = diagram
        .lines()
        .filter_map(|line| line.split_once(" --> "))
        .map(|(from, rest)| format!("{} -> {}", from.trim(), rest.split(':').next().unwrap().trim()))
        .collect();
    let edges = lifecycle::session::EDGES
        .iter()
        .map(|(from, to)| format!("{from:?} -> {to:?}"));
    assert_eq!(drawn, edges.collect::<BTreeSet<_>>());
}

#[test]
fn each_link_of_a_document_leads_to_a_file_that_is_there() {
    for document in documents() {
        let text = read(&document);
        let folder = root().join(&document);
        let folder = folder.parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") {
                assert!(
                    folder.join(path).exists(),
                    "{document} links to {link}, which is not there"
                );
            }
        }
    }
}

#[test]
fn the_table_of_settings_for_people_has_a_column_for_each() {
    let text = read("infra/README.md");
    let header = text.lines().find(|line| line.starts_with("| | VM size |"));
    let mut columns: Vec<&str> = header.unwrap().split('|').map(str::trim).collect();
    columns.retain(|column| !column.is_empty());
    columns.sort_unstable();
    let mut settings: Vec<&str> = Setting::ALL.iter().map(|setting| setting.what()).collect();
    settings.sort_unstable();
    assert_eq!(columns, settings);
}

#[test]
fn the_readme_has_110_lines_and_no_document_a_line_over_100_columns() {
    assert!(read("README.md").lines().count() <= 110);
    for document in documents() {
        let mut is_code = false;
        for (number, line) in read(&document).lines().enumerate() {
            is_code ^= line.starts_with("```");
            // A table's row and a command cannot be wrapped, and a link's address neither. Those of
            // the README have to be short.
            let is_kept = is_code || line.starts_with('|') || line.starts_with("    ") || line.starts_with("[sam]:");
            let may_be_long = is_kept && document != "README.md";
            assert!(
                may_be_long || line.chars().count() <= 100,
                "{document}:{} has {} columns",
                number + 1,
                line.chars().count()
            );
        }
    }
}
