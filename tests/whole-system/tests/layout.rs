//! The layout of the code: the modules of each crate form no circle, and neither a function nor a
//! file is long without a reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The most lines of code of a file, without its tests, comments and empty lines.
const MOST_LINES: usize = 500;

/// The crates of the product, each with its source folder.
fn crates() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut crates = Vec::new();
    for group in ["shared", "functions", "infra"] {
        for entry in fs::read_dir(root.join(group)).expect("a folder").flatten() {
            let source = entry.path().join("src");
            if source.is_dir() {
                crates.push((format!("{group}/{}", entry.file_name().to_string_lossy()), source));
            }
        }
    }
    crates.sort();
    crates
}

#[test]
fn each_crate_refuses_a_long_function_without_a_reason() {
    const REFUSED: &str = "#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]";
    let refuses = |source: &Path| {
        let root = ["lib.rs", "main.rs"].iter().map(|name| source.join(name));
        let root = root.into_iter().find(|path| path.exists()).expect("a crate has a root");
        fs::read_to_string(root).expect("it can be read").contains(REFUSED)
    };
    let found: Vec<String> = crates()
        .into_iter()
        .filter(|(_, source)| !refuses(source))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn no_file_has_more_than_500_lines_of_code() {
    let mut found = Vec::new();
    for (name, source) in crates() {
        for (file, text) in texts(&source) {
            if lines_of_code(&text) > MOST_LINES {
                let file = file.strip_prefix(&source).expect("it is below");
                found.push(format!("{name}/{}", file.display()));
            }
        }
    }
    found.sort();
    assert_eq!(found, Vec::<String>::new());
}

/// Each Rust file below a folder, with its text.
fn texts(folder: &Path) -> Vec<(PathBuf, String)> {
    texts_of("rs", folder)
}

/// Each file with this extension below a folder, with its text.
fn texts_of(extension: &str, folder: &Path) -> Vec<(PathBuf, String)> {
    files_of(extension, folder)
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).expect("it can be read");
            (file, text)
        })
        .collect()
}

fn lines_of_code(text: &str) -> usize {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    code.lines().filter(is_code).count()
}

#[test]
fn modules_form_no_circle() {
    let mut found = BTreeMap::new();
    for (name, source) in crates() {
        for (level, edges) in levels(&modules(&source)) {
            let circle = circle(&edges);
            if !circle.is_empty() {
                found.insert(format!("{name} {}", level.join("::")), circle);
            }
        }
    }
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/sandbox/runner");
    let circle = circle(&python_edges(&texts_of("py", &runner)));
    if !circle.is_empty() {
        found.insert("infra/sandbox/runner".to_owned(), circle);
    }
    assert_eq!(found, BTreeMap::new());
}

#[test]
fn a_circle_is_found_and_a_module_beside_it_is_not_in_it() {
    let edge = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|to| (*to).to_owned()).collect());
    let edges = BTreeMap::from([
        edge("above", &["a"]),
        edge("a", &["b", "below"]),
        edge("b", &["c"]),
        edge("c", &["a"]),
        edge("below", &[]),
    ]);
    assert_eq!(circle(&edges), ["a", "b", "c"].map(str::to_owned).into());
}

#[test]
fn a_circle_through_a_re_export_or_between_siblings_is_found() {
    let text = |path: &[&str], text: &str| -> (Names, String) {
        (path.iter().map(|name| (*name).to_owned()).collect(), text.to_owned())
    };
    let modules = BTreeMap::from([
        text(
            &[],
            "mod a; mod b; mod c;\npub use a::{One, two};\npub(crate) use b::Three;",
        ),
        text(&["a"], "use crate::{\n    Failure,\n    b::{self, Four},\n};"),
        text(&["b"], "fn f() { crate::two() }"),
        text(&["c"], "use super::Three;\nmod d; mod e;"),
        text(&["c", "d"], "use super::{e::Five, super::a};"),
        text(&["c", "e"], "use super::d;"),
    ]);
    let circles: Vec<(Names, BTreeSet<String>)> = levels(&modules)
        .into_iter()
        .map(|(level, edges)| (level, circle(&edges)))
        .collect();
    let names = |names: [&str; 2]| names.map(str::to_owned).into();
    assert_eq!(
        circles,
        [(vec![], names(["a", "b"])), (vec!["c".to_owned()], names(["d", "e"]))]
    );
    let python = [
        "from .b import (\n    x,\n)",
        "def f():\n    from . import a, c  # noqa",
        "",
    ];
    let files = ["a.py", "b.py", "c.py"].map(PathBuf::from).into_iter();
    let edges = python_edges(&files.zip(python.map(str::to_owned)).collect::<Vec<_>>());
    assert_eq!(circle(&edges), names(["a", "b"]));
}

/// The names of a path.
type Names = Vec<String>;
/// Modules of one folder, each with those that it uses.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// The modules of a crate by their paths, each with its code: no comments, no tests.
fn modules(source: &Path) -> BTreeMap<Names, String> {
    let mut modules = BTreeMap::new();
    for (file, text) in texts(source) {
        let below = file.strip_prefix(source).expect("it is below").with_extension("");
        let mut names: Names = below.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if names
            .last()
            .is_some_and(|name| ["lib", "main", "mod"].contains(&name.as_str()))
        {
            names.pop();
        }
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
        if names.first().is_none_or(|name| name != "bin") {
            modules.insert(names, lines.collect::<Vec<_>>().join("\n"));
        }
    }
    modules
}

/// The uses between modules of one folder, for each folder. A folder counts as one module.
fn levels(modules: &BTreeMap<Names, String>) -> BTreeMap<Names, Edges> {
    let exports = exports(modules);
    let mut levels = BTreeMap::<Names, Edges>::new();
    for (module, code) in modules {
        for path in paths(code).iter().filter_map(|path| absolute(module, path)) {
            let mut to = nearest(modules, &path).to_vec();
            if let Some(origin) = path
                .get(to.len())
                .and_then(|name| exports.get(&(to.clone(), name.clone())))
            {
                to.clone_from(origin);
            }
            let shared = module.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (module.get(shared), to.get(shared)) {
                let level = levels.entry(module[..shared].to_vec()).or_default();
                level.entry(to.clone()).or_default();
                level.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    levels
}

/// The re-exported names, each with the module that has it.
fn exports(modules: &BTreeMap<Names, String>) -> BTreeMap<(Names, String), Names> {
    let mut exports = BTreeMap::new();
    for (module, code) in modules {
        let (uses, _) = uses(code);
        for path in uses
            .iter()
            .filter(|(is_public, _)| *is_public)
            .flat_map(|(_, tree)| expand(tree))
        {
            let relative = || module.iter().chain(&path).cloned().collect();
            let whole = absolute(module, &path).unwrap_or_else(relative);
            let origin = nearest(modules, &whole);
            if let Some(name) = path.last().filter(|_| origin.len() > module.len()) {
                exports.insert((module.clone(), name.clone()), origin.to_vec());
            }
        }
    }
    exports
}

/// The longest beginning of a path that is a module.
fn nearest<'a>(modules: &BTreeMap<Names, String>, path: &'a [String]) -> &'a [String] {
    let lengths = (0..=path.len()).rev();
    let found = lengths
        .map(|length| &path[..length])
        .find(|path| modules.contains_key(*path));
    found.unwrap_or_default()
}

/// A path from the root of the crate on; `None` if it begins elsewhere.
fn absolute(module: &[String], path: &[String]) -> Option<Names> {
    let rest = match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => return Some([module, &path[1..]].concat()),
        _ => path.iter().position(|name| name != "super")?,
    };
    (rest > 0).then(|| [&module[..module.len().saturating_sub(rest)], &path[rest..]].concat())
}

/// All paths of a module's code that begin with `crate`, `super` or `self`, and those that it uses.
fn paths(code: &str) -> Vec<Names> {
    let (uses, rest) = uses(code);
    let mut paths: Vec<Names> = uses.iter().flat_map(|(_, tree)| expand(tree)).collect();
    let is_of_a_path = |sign: char| sign.is_alphanumeric() || sign == '_' || sign == ':';
    for word in rest.split(|sign| !is_of_a_path(sign)) {
        if ["crate::", "super::", "self::"]
            .iter()
            .any(|begin| word.starts_with(begin))
        {
            paths.push(word.split("::").map(str::to_owned).collect());
        }
    }
    paths
}

/// The trees of all `use` declarations, each with whether it is public, and the code without them.
fn uses(code: &str) -> (Vec<(bool, &str)>, String) {
    let (mut found, mut rest, mut open) = (Vec::new(), String::new(), code);
    while let Some((before, after)) = open.split_once("use ") {
        rest.push_str(before);
        let declares = before.is_empty() || before.ends_with(char::is_whitespace);
        match after.split_once(';').filter(|_| declares) {
            Some((tree, after)) => {
                let line = before.rsplit('\n').next().unwrap_or_default();
                found.push((line.trim_start().starts_with("pub"), tree));
                open = after;
            }
            None => open = after,
        }
    }
    rest.push_str(open);
    (found, rest)
}

/// The paths of a `use` tree.
fn expand(tree: &str) -> Vec<Names> {
    let Some((before, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(|name| name.trim().to_owned()).collect()];
    };
    let group = &group[..group.rfind('}').unwrap_or(group.len())];
    let mut depth = 0;
    let parts = group.split(|sign| {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        sign == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expand(&format!("{before}{part}"))).collect()
}

/// The modules of a Python package, each with those that it imports.
fn python_edges(files: &[(PathBuf, String)]) -> Edges {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let names: BTreeSet<String> = files.iter().map(|(path, _)| stem(path)).collect();
    let imported = |text: &str| -> BTreeSet<String> {
        let statements = text.lines().filter_map(|line| line.trim().strip_prefix("from ."));
        let imported = statements.flat_map(|rest| {
            let (module, members) = rest.split_once(" import ").unwrap_or((rest, ""));
            let members = members.split('#').next().unwrap_or_default();
            if module.is_empty() { members } else { module }
                .split(',')
                .map(str::trim)
        });
        imported
            .filter(|name| names.contains(*name))
            .map(str::to_owned)
            .collect()
    };
    files.iter().map(|(path, text)| (stem(path), imported(text))).collect()
}

/// The Rust files of a module, its tests aside.
fn files(path: &Path) -> Vec<PathBuf> {
    files_of("rs", path)
}

fn files_of(extension: &str, path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a folder").flatten();
        return entries.flat_map(|entry| files_of(extension, &entry.path())).collect();
    }
    let is_code = path.extension() == Some(extension.as_ref()) && path.file_stem() != Some("tests".as_ref());
    is_code.then(|| path.to_owned()).into_iter().collect()
}

/// Every module that reaches itself.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let reaches = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            open.extend(edges[next].iter().filter(|to| seen.insert((*to).clone())));
        }
        seen.contains(from)
    };
    edges.keys().filter(|name| reaches(name)).cloned().collect()
}

#[test]
fn each_file_below_src_is_a_module() {
    for (name, source) in crates() {
        let mut modules: BTreeSet<PathBuf> = ["lib.rs", "main.rs"].map(|root| source.join(root)).into();
        modules.extend(files(&source.join("bin")));
        for (path, text) in texts(&source) {
            modules.extend(declared(&path, &text));
        }
        let orphans: Vec<PathBuf> = files(&source)
            .into_iter()
            .filter(|path| !modules.contains(path))
            .collect();
        assert!(
            orphans.is_empty(),
            "{name}: files that no `mod` names, so nothing compiles them: {orphans:?}"
        );
    }
}

#[test]
fn a_module_is_looked_for_where_rust_looks_for_it() {
    let of = |path: &str, text: &str| -> Vec<String> {
        let files = declared(Path::new(path), text);
        files.iter().map(|path| path.display().to_string()).collect()
    };
    assert_eq!(of("src/lib.rs", "pub mod a;"), ["src/a.rs", "src/a/mod.rs"]);
    assert_eq!(of("src/a/mod.rs", "mod b;"), ["src/a/b.rs", "src/a/b/mod.rs"]);
    assert_eq!(
        of("src/a.rs", "pub(crate) mod b;\nmod tests {}"),
        ["src/a/b.rs", "src/a/b/mod.rs"]
    );
}

/// The files that the modules which a file declares may be in.
fn declared(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = ["lib.rs", "main.rs", "mod.rs"].iter().any(|name| path.ends_with(name));
    let folder = if is_root {
        path.parent().expect("a file is in a folder").to_owned()
    } else {
        path.with_extension("")
    };
    let names = text.lines().filter_map(|line| {
        let (_, name) = line.trim().strip_suffix(';')?.split_once("mod ")?;
        name.chars().all(|c| c.is_alphanumeric() || c == '_').then_some(name)
    });
    names
        .flat_map(|name| [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")])
        .collect()
}

#[test]
fn documentation_begins_with_a_noun_or_a_verb() {
    assert_eq!(find_lines(clauses), Vec::<String>::new());
    assert_eq!(find_lines_in("py", docstring_clauses), Vec::<String>::new());
}

/// The lines of all Rust files of the project that a search finds, each with its file.
fn find_lines(find: fn(&str) -> Vec<&str>) -> Vec<String> {
    find_lines_in("rs", find)
}

/// The lines of all files with this extension that a search finds, each with its file.
fn find_lines_in(extension: &str, find: fn(&str) -> Vec<&str>) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for group in ["shared", "functions", "infra", "tests"] {
        for (path, text) in texts_of(extension, &root.join(group)) {
            found.extend(find(&text).iter().map(|line| format!("{}: {line}", path.display())));
        }
    }
    found
}

/// The first words of relative clauses.
const CLAUSES: [&str; 9] = [
    "What", "Who", "Whoever", "Nobody", "One that", "How", "When", "Where", "Why",
];

/// The first lines of documentation that begin with a relative clause.
fn clauses(text: &str) -> Vec<&str> {
    let is_documentation = |line: &str| line.trim().starts_with("///") || line.trim().starts_with("//!");
    let mut before = "";
    let mut found = Vec::new();
    for line in text.lines() {
        let words = CLAUSES.map(|word| format!(" {word} "));
        let rest = line.trim().get(3..).unwrap_or_default();
        if is_documentation(line) && !is_documentation(before) && words.iter().any(|word| rest.starts_with(word)) {
            found.push(line);
        }
        before = line;
    }
    found
}

/// The lines of Python that begin a docstring with a relative clause.
fn docstring_clauses(text: &str) -> Vec<&str> {
    let is_clause = |line: &&str| {
        let begin = line.trim().strip_prefix("\"\"\"").unwrap_or_default();
        CLAUSES.iter().any(|word| begin.starts_with(&format!("{word} ")))
    };
    text.lines().filter(is_clause).collect()
}

#[test]
fn a_relative_clause_at_the_beginning_of_documentation_is_found() {
    let text = "/// What is left.\nfn a() {}\n/// The rest.\n/// What follows is no beginning.\nfn b() {}";
    assert_eq!(clauses(text), ["/// What is left."]);
    let text = "def a():\n    \"\"\"How it went.\"\"\"\ndef b():\n    \"\"\"The end.\n    What followed.\"\"\"";
    assert_eq!(docstring_clauses(text), ["    \"\"\"How it went.\"\"\""]);
}

#[test]
fn comments_are_wrapped_at_100_columns() {
    assert_eq!(find_lines(wide_comments), Vec::<String>::new());
    assert_eq!(find_lines_in("py", wide_docstrings), Vec::<String>::new());
}

/// The lines of Python's comments and docstrings that are wider than 100 columns and could be
/// wrapped: no program in them.
fn wide_docstrings(text: &str) -> Vec<&str> {
    let (mut found, mut indent) = (Vec::new(), None);
    for line in text.lines() {
        let (trimmed, begun) = (line.trim_start(), indent.is_some());
        if !begun && trimmed.starts_with("\"\"\"") {
            indent = Some(line.len() - trimmed.len());
        }
        let program = indent.is_some_and(|indent| begun && line.len() - trimmed.len() >= indent + 4);
        let is_wide = line.chars().count() > 100 && trimmed.contains(' ');
        if is_wide && !program && (indent.is_some() || trimmed.starts_with("# ")) {
            found.push(line);
        }
        if trimmed.matches("\"\"\"").count() == if begun { 1 } else { 2 } {
            indent = None;
        }
    }
    found
}

/// The lines of comments that are wider than 100 columns and could be wrapped: no row of a table,
/// no line of a figure, no program.
fn wide_comments(text: &str) -> Vec<&str> {
    let (mut found, mut is_figure) = (Vec::new(), false);
    for line in text.lines() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            is_figure = false;
            continue;
        };
        let comment = comment.trim_start_matches(['/', '!']);
        if comment.trim_start().starts_with("```") {
            is_figure = !is_figure;
        }
        let is_kept = is_figure || comment.trim_start().starts_with('|') || comment.starts_with("     ");
        if line.chars().count() > 100 && !is_kept && comment.trim().contains(' ') {
            found.push(line);
        }
    }
    found
}

#[test]
fn a_comment_that_could_be_wrapped_is_found() {
    let long = "word ".repeat(30);
    let text = format!("/// {long}\n// | {long} |\n/// ```\n/// {long}\n/// ```\n//! {long}\nlet a = 1; // {long}");
    let found = wide_comments(&text);
    assert_eq!(found, [format!("/// {long}"), format!("//! {long}")]);
    let text = format!(
        "\"\"\"{long}\n    {long}\n\"\"\"\na = '{long}'\ndef b():\n    \"\"\"Short.\"\"\"\n    c = '{long}'\n    # {long}"
    );
    assert_eq!(
        wide_docstrings(&text),
        [format!("\"\"\"{long}"), format!("    # {long}")]
    );
}
