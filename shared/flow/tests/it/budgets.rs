//! Each file of a user is read, or refused with a code, in a time that depends on its size alone.

use crate::tree::Tree;
use flow::{Code, Failure};
use std::time::{Duration, Instant};

/// The longest that a file of 1 MiB takes in a build for tests on a busy machine; those that grew
/// without a bound took minutes or never ended.
const LONGEST_READ: Duration = Duration::from_secs(10);

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let took = started.elapsed();
    assert!(took < LONGEST_READ, "{what} took {took:?}");
    done
}

/// The error for a flow folder, if it is refused.
fn refused(what: &str, files: &[(&str, &str)]) -> Option<Failure> {
    let tree = Tree::new(files);
    let (folder, root) = (tree.folder(), flow::include_root(&tree.folder()));
    timed(what, || {
        let read = || -> Result<(), Failure> {
            flow::kind(&folder)?;
            flow::environment(&folder, &root)?;
            flow::view::list(&folder, &root)?;
            Ok(())
        };
        read().err()
    })
}

/// YAML at which some parser spends its time, its memory or its stack.
fn hostile_yaml() -> Vec<(&'static str, String)> {
    let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        laughs += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","));
    }
    let indented = |each: &str| -> String {
        let line = |depth: usize| format!("{}{}\n", " ".repeat(depth), each.replace('N', &depth.to_string()));
        (0..1_000).map(line).collect()
    };
    let many = |each: &str, count: usize| -> String { (0..count).map(|i| each.replace('N', &i.to_string())).collect() };
    vec![
        ("brackets", "[".repeat(1 << 20)),
        ("brackets under a key", format!("environment: {}", "[".repeat(200_000))),
        ("braces", "{".repeat(200_000)),
        ("braces with keys", "{a: ".repeat(200_000)),
        ("question marks", "? ".repeat(200_000)),
        ("dashes", "- ".repeat(200_000)),
        ("deep keys", indented("a:")),
        ("deep anchors", indented("a: &aN")),
        ("aliases of aliases", laughs),
        (
            "one text by many aliases",
            format!("a: &a '{}'\nb: [{}]\n", "x".repeat(500_000), "*a,".repeat(900)),
        ),
        (
            "merges of merges",
            format!(
                "a: &a {{{}}}\nb:\n{}",
                many("kN: 1,", 1_000),
                many("  cN: {<<: *a}\n", 900)
            ),
        ),
        ("keys", many("kN: 1\n", 90_000)),
        ("anchors", many("kN: &aN 1\n", 50_000)),
        ("an alias of itself", "a: &a [*a]\n".to_owned()),
        ("quoted lines without an end", format!("a: \"{}", "\n".repeat(900_000))),
        ("a plain text of many lines", format!("a: {}", "x\n ".repeat(300_000))),
        ("tags", format!("a: {}", "!a ".repeat(300_000))),
        ("directives", "%a\n".repeat(300_000)),
        ("documents", "---\na\n".repeat(150_000)),
        ("comments", "# a\n".repeat(250_000)),
    ]
}

#[test]
fn a_flow_file_of_any_shape_is_read_or_refused_in_seconds() {
    for (what, text) in hostile_yaml() {
        for name in ["flow.dag.yaml", "flow.flex.yaml"] {
            if let Some(failure) = refused(what, &[(name, &text)]) {
                assert_eq!(failure.error, Code::FlowBadFlowFile, "{what}: {failure}");
                assert!(failure.message.len() < 1_000, "{what}: {failure}");
            }
        }
    }
}

#[test]
fn a_run_file_of_any_shape_is_read_or_refused_in_seconds() {
    for (what, text) in hostile_yaml() {
        for text in [
            text.clone(),
            format!("column_mapping:\n  {}", text.replace('\n', "\n  ")),
        ] {
            let tree = Tree::new(&[("run.yml", &text)]);
            if let Err(failure) = timed(what, || flow::run_yaml(&tree.at("run.yml"))) {
                let known = [Code::FlowBadRunFile, Code::FlowTooLarge].contains(&failure.error);
                assert!(known && failure.message.len() < 1_000, "{what}: {failure}");
            }
        }
    }
}

#[test]
fn requirements_that_double_at_each_file_are_refused_early() {
    let names: Vec<String> = (0..=20).map(|n| format!("r{n}.txt")).collect();
    let mut files = vec![
        ("flow.dag.yaml".to_owned(), "nodes: []\n".to_owned()),
        ("requirements.txt".to_owned(), "-r r0.txt\n".to_owned()),
    ];
    for (n, name) in names.iter().enumerate() {
        let text = names.get(n + 1).map(|next| format!("-r {next}\n").repeat(2));
        files.push((name.clone(), text.unwrap_or_default()));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    let failure = refused("doubling files", &files).expect("refused");
    assert_eq!(failure.error, Code::FlowTooLarge, "{failure}");
    assert!(failure.message.contains("100 files"), "{failure}");
}

#[test]
fn requirements_of_any_shape_are_read_or_refused_in_seconds() {
    let big = format!("#{}\n", "x".repeat(1_000_000));
    for (what, text) in [
        ("a character behind a marker", "numpy; é".to_owned()),
        ("one long name", "a".repeat(1 << 20)),
        ("parentheses in a marker", format!("a ; {}", "(".repeat(1 << 19))),
        ("spaces behind an at sign", format!("a @ {}x", " ".repeat(1 << 19))),
        ("continued lines", "\\\n".repeat(1 << 19)),
        ("options in one line", "--pre ".repeat(1 << 17)),
        ("quotes", "--pre \"".repeat(1 << 17)),
        ("addresses", format!("a @ {}", "h://u:p@".repeat(1 << 17))),
        (
            "names of a marker",
            format!("a ; {}os_name=='a'", "'a' in os_name or ".repeat(50_000)),
        ),
        ("extras", format!("a[{}]", "x,".repeat(1 << 19))),
        ("versions", format!("a {}", "==1,".repeat(1 << 18))),
        ("hashes", format!("a==1 {}", "--hash=sha256:00 ".repeat(60_000))),
        ("long lines", format!("{big}{}", "a\n".repeat(9_000))),
    ] {
        if let Some(failure) = refused(what, &[("flow.dag.yaml", "nodes: []\n"), ("requirements.txt", &text)]) {
            let known = [Code::FlowBadRequirement, Code::FlowTooLarge, Code::FlowLocalPackage].contains(&failure.error);
            assert!(known, "{what}: {failure}");
        }
    }
}

#[test]
fn a_project_of_any_shape_is_read_or_refused_in_seconds() {
    let project = |rest: &str| format!("[project]\n{rest}");
    for (what, text) in [
        (
            "dependencies",
            project(&format!("dependencies = [{}]\n", "\"a\",".repeat(250_000))),
        ),
        (
            "brackets",
            project(&format!("dependencies = {}\n", "[".repeat(500_000))),
        ),
        ("braces", format!("a = {}", "{a = ".repeat(200_000))),
        ("dotted keys", format!("a{} = 1\n", ".a".repeat(500_000))),
        ("a dotted table", format!("[a{}]\n", ".a".repeat(500_000))),
        ("tables", (0..80_000).map(|n| format!("[a{n}]\n")).collect()),
        ("tables of a list", "[[a]]\n".repeat(150_000)),
        ("a text without an end", "a = \"\"\"\"\"".to_owned()),
        ("a character behind a marker", project("dependencies = ['numpy; é']\n")),
    ] {
        if let Some(failure) = refused(what, &[("a.py", ""), ("pyproject.toml", &text)]) {
            let known = [Code::FlowBadProject, Code::FlowTooLarge, Code::FlowBadRequirement].contains(&failure.error);
            assert!(known && failure.message.len() < 1_000, "{what}: {failure}");
        }
    }
}

#[test]
fn includes_of_one_folder_are_not_gone_through_without_end() {
    let mut files: Vec<(String, String)> = (0..200).map(|n| (format!("../shared/{n}.py"), String::new())).collect();
    let flow = |count: usize| format!("nodes: []\nadditional_includes:\n{}", "- ../shared\n".repeat(count));
    files.push(("flow.dag.yaml".to_owned(), flow(90)));
    let listed = |files: &[(String, String)]| {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
        refused("includes", &files)
    };
    assert_eq!(listed(&files), None);
    files.last_mut().unwrap().1 = flow(110);
    assert_eq!(listed(&files).expect("refused").error, Code::FlowTooLarge);
    files.last_mut().unwrap().1 = flow(501);
    let failure = listed(&files).expect("refused");
    assert!(failure.message.contains("501 includes, and may be 500"), "{failure}");
}
