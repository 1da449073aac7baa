//! How the code is laid out: the modules of each crate form no circle, and neither a function nor a
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
        let circle = circle(&edges(&source));
        if !circle.is_empty() {
            found.insert(name, circle);
        }
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
    let text = "use crate::{\n    Failure,\n    one::{self, Two},\n    three::Four,\n};\nfn f() { crate::five::g() } // crate::six::h()";
    assert_eq!(
        used(text),
        ["Failure", "five", "one", "three"].map(str::to_owned).into()
    );
}

/// The top-level modules of a crate, each with those that it uses. A folder is one module.
fn edges(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut edges = BTreeMap::<String, BTreeSet<String>>::new();
    for entry in fs::read_dir(source).expect("a folder").flatten() {
        let path = entry.path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if ["lib", "main", "bin"].contains(&name.as_str())
            || !(path.is_dir() || path.extension() == Some("rs".as_ref()))
        {
            continue;
        }
        let texts = files(&path)
            .into_iter()
            .map(|file| fs::read_to_string(file).expect("text"));
        let used_here: Vec<String> = texts.flat_map(|text| used(&text)).collect();
        edges.entry(name).or_default().extend(used_here);
    }
    let names: BTreeSet<String> = edges.keys().cloned().collect();
    for (name, to) in &mut edges {
        to.retain(|to| to != name && names.contains(to));
    }
    edges
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

/// The first names of the paths of a text that begin with `crate::`; comments and tests do not
/// count.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            Some(group) => names.extend(group_names(group)),
            None => names.extend(word(path)),
        }
    }
    names
}

/// The first name of each path in a `use` group, without the groups inside it.
fn group_names(group: &str) -> BTreeSet<String> {
    let (mut names, mut depth, mut begins) = (BTreeSet::new(), 0u32, true);
    for (at, sign) in group.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && !sign.is_whitespace() => {
                names.extend(word(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> Option<String> {
    let end = text
        .find(|sign: char| !sign.is_alphanumeric() && sign != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
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

/// The first lines of documentation that begin with a relative clause.
fn clauses(text: &str) -> Vec<&str> {
    let is_documentation = |line: &str| line.trim().starts_with("///") || line.trim().starts_with("//!");
    let mut before = "";
    let mut found = Vec::new();
    for line in text.lines() {
        let words = ["What", "Who", "Whoever", "Nobody", "One that"].map(|word| format!(" {word} "));
        let rest = line.trim().get(3..).unwrap_or_default();
        if is_documentation(line) && !is_documentation(before) && words.iter().any(|word| rest.starts_with(word)) {
            found.push(line);
        }
        before = line;
    }
    found
}

#[test]
fn a_relative_clause_at_the_beginning_of_documentation_is_found() {
    let text = "/// What is left.\nfn a() {}\n/// The rest.\n/// What follows is no beginning.\nfn b() {}";
    assert_eq!(clauses(text), ["/// What is left."]);
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
