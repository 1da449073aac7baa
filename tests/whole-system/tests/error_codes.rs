//! The error codes: each is made somewhere, no product code compares or writes one as text, and a
//! person's error has its text in a snapshot.

use lifecycle::Code;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The table of codes itself.
const TABLE: &str = "shared/lifecycle/src/code.rs";

/// The files of the project with these endings, each in two halves: what ships, and its tests.
fn files(endings: &[&str]) -> Vec<(String, String, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .args(endings)
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let there = listed.lines().filter(|path| root().join(path).exists());
    there
        .map(|path| {
            let text = read(path);
            let is_test = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
            match text.split_once("#[cfg(test)]\nmod tests {") {
                _ if is_test => (path.to_owned(), String::new(), text),
                Some((code, test)) => (path.to_owned(), code.to_owned(), test.to_owned()),
                None => (path.to_owned(), text, String::new()),
            }
        })
        .collect()
}

/// The words of a text that have the form of a code, `Area.Name`, and one of our areas.
fn codes_as_text(text: &str) -> BTreeSet<&str> {
    let areas: BTreeSet<&str> = Code::ALL
        .iter()
        .filter_map(|code| code.as_str().split('.').next())
        .collect();
    text.split(|c: char| !c.is_alphanumeric() && c != '.')
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| {
            word.split_once('.')
                .is_some_and(|(area, name)| areas.contains(area) && name.starts_with(char::is_uppercase))
        })
        .collect()
}

/// The names of variants of [`Code`] that a Rust text mentions.
fn variants(text: &str) -> BTreeSet<&str> {
    let words = text.split("Code::").skip(1);
    words
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next())
        .collect()
}

#[test]
fn every_code_is_made_somewhere_and_every_text_of_one_is_in_the_table() {
    let mut made: BTreeSet<String> = BTreeSet::new();
    let mut unknown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, code, _) in files(&["*.rs", "infra/sandbox/*.py", "infra/*.asl.json"]) {
        if path == TABLE {
            continue;
        }
        if path.ends_with(".rs") {
            made.extend(variants(&code).into_iter().map(str::to_owned));
            continue;
        }
        for text in codes_as_text(&code) {
            match Code::read(text) {
                Code::Other(_) => drop(unknown.entry(path.clone()).or_default().insert(text.to_owned())),
                code => drop(made.insert(format!("{code:?}"))),
            }
        }
    }
    assert!(unknown.is_empty(), "these are not in {TABLE}: {unknown:?}");
    let unused: Vec<&Code> = Code::ALL
        .iter()
        .filter(|code| !made.contains(&format!("{code:?}")))
        .collect();
    assert!(unused.is_empty(), "these codes are made nowhere: {unused:?}");
}

#[test]
fn no_product_code_writes_a_code_as_text() {
    let mut found = Vec::new();
    for (path, code, _) in files(&["shared/*.rs", "functions/*.rs", "infra/*.rs"]) {
        if path == TABLE {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let literals = line.split('"').skip(1).step_by(2);
            let is_comment = line.trim_start().starts_with("//");
            let is_code = |text: &str| !matches!(Code::read(text), Code::Other(_));
            found.extend(
                literals
                    .filter(|text| !is_comment && is_code(text))
                    .map(|text| format!("{path}:{}: {text}", number + 1)),
            );
        }
    }
    assert!(found.is_empty(), "write these as `Code::…`: {found:#?}");
}

#[test]
fn each_error_that_a_person_can_meet_has_its_text_in_a_snapshot() {
    // What is logged alone is for whoever runs the service, and what the state machines say comes
    // from an emulator.
    const LAYERS: [&str; 17] = [
        "Access",
        "Command",
        "Compute",
        "Connection",
        "Flow",
        "Http",
        "Image",
        "Install",
        "Request",
        "Role",
        "Run",
        "Service",
        "Session",
        "Snapshot",
        "Step",
        "Webhook",
        "Workspace",
    ];
    let (mut made, mut tests) = (BTreeSet::new(), String::new());
    for (path, code, test) in files(&["*.rs", "*.py"]) {
        tests += &test;
        if path == TABLE {
            continue;
        }
        made.extend(variants(&code).into_iter().map(str::to_owned));
        let read = codes_as_text(if path.ends_with(".py") { &code } else { "" });
        made.extend(read.into_iter().map(|text| format!("{:?}", Code::read(text))));
    }
    assert!(made.len() > 80, "{made:?}");
    // As `Failure` and the command line write it, or with its text on the next line.
    let is_shown = |code: &&Code| {
        ["{}: ", "{}]", "{}\n", "{} "]
            .iter()
            .any(|form| tests.contains(&form.replace("{}", code.as_str())))
    };
    let is_met = |code: &&Code| {
        let area = code.as_str().split('.').next();
        area.is_some_and(|area| LAYERS.contains(&area)) && made.contains(&format!("{code:?}"))
    };
    let without: Vec<&Code> = Code::ALL.iter().filter(is_met).filter(|code| !is_shown(code)).collect();
    assert!(
        without.is_empty(),
        "errors whose text is in no snapshot (one of lines such as `Session.Busy: …`): {without:?}"
    );
}
