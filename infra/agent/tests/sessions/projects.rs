//! Project folders: the project itself is there as its install would leave it.

use super::*;

/// A command of a project, and one that says its metadata.
const CLI: &str = "import importlib.metadata, sys\n\n\ndef main():\n    print('mine', *sys.argv[1:])\n    return 3\n\n\ndef about():\n    \
                   points = importlib.metadata.entry_points()\n    points = points.select(group='mine.plugins') if hasattr(points, 'select') else points['mine.plugins']\n    \
                   print(importlib.metadata.version('my-thing'), [point.load().__name__ for point in points])\n";

const SCRIPTS: &str = "[project]\nname = \"My_Thing\"\nversion = \"1.2\"\n[project.scripts]\nmine = \"mine.cli:main\"\nabout = \"mine.cli:about\"\n\
                       [project.entry-points.\"mine.plugins\"]\none = \"mine.cli:main\"\n";

/// The exit code and the output of a command in a session.
fn run(machine: &Machine, key: &str, folder: &Path, program: &[&str]) -> (Option<i32>, String) {
    let name = unique("project");
    let result = machine.run(key, 1, &name, folder, command(program));
    (result.exit_code, machine.output(&name))
}

pub(crate) fn the_folders_own_project_has_its_commands_modules_and_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let poetry = "[tool.poetry]\nname = \"my-thing\"\nversion = \"1.2\"\n[tool.poetry.scripts]\nmine = \"mine.cli:main\"\nabout = \"mine.cli:about\"\n\
                  [tool.poetry.plugins.\"mine.plugins\"]\none = \"mine.cli:main\"\n";
    let setup = "[metadata]\nname = my.thing\nversion = 1.2\n[options]\ninstall_requires =\n[options.entry_points]\nconsole_scripts =\n    mine = mine.cli:main\n    \
                 about = mine.cli:about\nmine.plugins = one = mine.cli:main\n";
    let key = key(&unique("project"));
    machine.launch(&key, 1, folder.path());
    for (file, text, source) in [
        ("pyproject.toml", SCRIPTS, "src/"),
        ("pyproject.toml", SCRIPTS, ""),
        ("pyproject.toml", poetry, ""),
        ("setup.cfg", setup, "src/"),
    ] {
        let what = format!("{file} {source}");
        let it = flow(
            &folder.path().join(unique("it")),
            &[
                (file, text),
                (&format!("{source}mine/__init__.py"), ""),
                (&format!("{source}mine/cli.py"), CLI),
                ("inner/say.py", "import mine.cli\nprint(mine.cli.__name__)\n"),
            ],
        );
        assert_eq!(machine.install(&key, 1, &unique("project"), &it), None, "{what}");
        let described = installation(&machine, &key).described.unwrap();
        assert!(
            described.contains("commands of the folder's project: about, mine"),
            "{described}"
        );
        assert_eq!(
            run(&machine, &key, &it, &["mine", "a", "b"]),
            (Some(3), "mine a b".into()),
            "{what}"
        );
        assert_eq!(
            run(&machine, &key, &it, &["about"]),
            (Some(0), "1.2 ['main']".into()),
            "{what}"
        );
        // From another folder, without the project's own before it.
        assert_eq!(
            run(&machine, &key, &it, &["python", "inner/say.py"]),
            (Some(0), "mine.cli".into()),
            "{what}"
        );
    }
    machine.remove(&key, 1);
}

pub(crate) fn a_flows_code_finds_the_metadata_and_commands_of_its_own_project() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(
        &folder.path().join("flow"),
        "import importlib.metadata, subprocess\ndef main() -> list:\n    done = subprocess.run(['mine', 'x'], capture_output=True, text=True)\n    \
         return [importlib.metadata.version('my-thing'), done.returncode, done.stdout]\n",
    );
    flow(
        &it,
        &[
            ("pyproject.toml", SCRIPTS),
            ("src/mine/__init__.py", ""),
            ("src/mine/cli.py", CLI),
        ],
    );
    let key = key(&unique("project"));
    machine.start(&key, 1, &it);
    let expected = json!({ "output": ["1.2", 3, "mine x\n"] });
    let result = machine.run(&key, 1, &unique("project"), &it, RunWish::default());
    assert_eq!(output(&result), expected);
    // A project that cannot be read does not count, and the run says so.
    fs::write(it.join("pyproject.toml"), SCRIPTS.replace("cli:main", "cli")).unwrap();
    let name = unique("project");
    let wish = command(&["python", "-c", "import sys; print(1)"]);
    assert_eq!(machine.run(&key, 1, &name, &it, wish).exit_code, Some(0));
    let said = machine.output(&name);
    assert!(
        said.contains("the folder's project is not installed: pyproject.toml:5: mine = mine.cli is no entry point."),
        "{said}"
    );
    machine.remove(&key, 1);
}

pub(crate) fn a_package_of_an_index_of_its_own_never_comes_from_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let (ours, theirs, links) = (Index::serve(), Index::serve(), Index::serve());
    ours.add("inner", "1.0", &["beta"]);
    // Strangers' of the same name, and what only they have.
    theirs.add("inner", "9.0", &[]);
    theirs.add("beta", "1.0", &["inner>=1"]);
    theirs.add("gone", "1.0", &[]);
    links.add("inner", "8.0", &[]);
    let project = |wanted: &str, source: &str| {
        format!(
            "[project]\nname = \"mine\"\ndependencies = {wanted}\n[tool.uv]\nfind-links = [\"{}\"]\n[tool.uv.sources]\n{source}\n\
             [[tool.uv.index]]\nname = \"ours\"\nurl = \"{}\"\nexplicit = true\n[[tool.uv.index]]\nurl = \"{}\"\n",
            links.links("inner"),
            ours.url(),
            theirs.url()
        )
    };
    let poetry = format!(
        "[tool.poetry]\nname = \"mine\"\n[tool.poetry.dependencies]\ninner = {{ version = \"*\", source = \"ours\" }}\n[[tool.poetry.source]]\n\
         name = \"ours\"\nurl = \"{}\"\npriority = \"explicit\"\n[[tool.poetry.source]]\nname = \"more\"\nurl = \"{}\"\npriority = \"supplemental\"\n",
        ours.url(),
        theirs.url()
    );
    let bound = "inner = { index = \"ours\" }";
    let key = key(&unique("index"));
    machine.launch(&key, 1, folder.path());
    for (text, expected) in [
        (project("[\"inner\"]", bound), Some("1.0")),
        (poetry, Some("1.0")),
        (project("[\"inner>1\"]", bound), None),
        (project("[\"gone\"]", "gone = { index = \"ours\" }"), None),
    ] {
        let it = flow(
            &folder.path().join(unique("it")),
            &[("pyproject.toml", &text), ("mine.py", "")],
        );
        let failure = machine.install(&key, 1, &unique("index"), &it);
        let failed = failure.as_ref().map(|failure| failure.error.clone());
        match expected {
            Some(version) => {
                assert_eq!(failed, None, "{failure:?}");
                let listed = installation(&machine, &key).listed.unwrap().packages;
                let found: Vec<_> = listed
                    .iter()
                    .filter(|package| package.name == "inner")
                    .map(|package| &package.version)
                    .collect();
                assert_eq!(found, [version], "{text}");
            }
            None => assert!(
                matches!(
                    failed,
                    Some(contract::Code::InstallNoSuchVersion | contract::Code::InstallNoSuchPackage)
                ),
                "{failure:?}"
            ),
        }
    }
    machine.remove(&key, 1);
}
