//! The project that a folder is itself.

use crate::tree::Tree;
use expect_test::{Expect, expect};
use flow::Installed;
use std::{fmt::Write, path::Path};

/// The files that an install lays out: programs by the object that they call, links, and texts.
fn check(files: &[(&str, &str)], expected: Expect) {
    let tree = Tree::new(files);
    let project = flow::own_project(&tree.folder()).unwrap().expect("a project");
    let sources: Vec<_> = project.sources.iter().map(|path| path.display().to_string()).collect();
    let mut text = format!("modules below: {}\n", sources.join(" "));
    for (path, file) in project.files(Path::new("/f"), Path::new("/p/lib")) {
        let path = path.display();
        match file {
            Installed::Link(to) => writeln!(text, "{path} -> {}", to.display()),
            Installed::File {
                text: program,
                is_program: true,
            } => {
                writeln!(
                    text,
                    "{path}: {}",
                    program.lines().skip(4).collect::<Vec<_>>().join("; ")
                )
            }
            Installed::File { text: file, .. } if path.to_string().ends_with("INSTALLER") => {
                assert_eq!(file, "pfsession\n");
                Ok(())
            }
            Installed::File { text: file, .. } => writeln!(text, "{path}: {}", file.trim_end().replace('\n', "; ")),
        }
        .unwrap();
    }
    for lacks in &project.lacks {
        writeln!(text, "lacks {lacks}").unwrap();
    }
    expected.assert_eq(&text);
}

#[test]
fn a_project_of_each_build_system_has_its_commands_modules_and_version() {
    check(
        &[
            (
                "pyproject.toml",
                "[project]\nname = \"My.Thing\"\nversion = \"1.2\"\n[project.scripts]\nmine = \"mine.cli:main\"\n[project.gui-scripts]\nwindow = \
                 \"mine:App.start\"\n[project.entry-points.\"my.plugins\"]\none = \"mine.plugins\"\n",
            ),
            ("src/mine/cli.py", ""),
        ],
        expect![[r#"
            modules below: src
            bin/mine: sys.path[:1] = ["/f/src","/p/lib"]; from mine.cli import main; sys.exit(main())
            bin/window: sys.path[:1] = ["/f/src","/p/lib"]; from mine import App; sys.exit(App.start())
            lib/my_thing-1.2.dist-info/METADATA: Metadata-Version: 2.1; Name: My.Thing; Version: 1.2
            lib/my_thing-1.2.dist-info/entry_points.txt: [console_scripts]; mine = mine.cli:main; [gui_scripts]; window = mine:App.start; [my.plugins]; one = mine.plugins
        "#]],
    );
    check(
        &[
            (
                "pyproject.toml",
                "[tool.poetry]\nname = \"mine\"\nversion = \"2.0\"\npackages = [{ include = \"other\", from = \"lib\" }, { include = \"flat\" }]\n\
                 [tool.poetry.scripts]\nmine = \"other:main\"\nmore = { callable = \"flat:main\" }\nfile = { reference = \"x.sh\", type = \"file\" }\n",
            ),
            ("lib/other/__init__.py", ""),
            ("flat/__init__.py", ""),
        ],
        expect![[r#"
            modules below: lib
            bin/mine: sys.path[:1] = ["/f/lib","/p/lib"]; from other import main; sys.exit(main())
            bin/more: sys.path[:1] = ["/f/lib","/p/lib"]; from flat import main; sys.exit(main())
            lib/flat -> flat
            lib/mine-2.0.dist-info/METADATA: Metadata-Version: 2.1; Name: mine; Version: 2.0
            lib/mine-2.0.dist-info/entry_points.txt: [console_scripts]; mine = other:main; more = flat:main
            lacks the script file, which is a file (pyproject.toml:8): call it by its path
        "#]],
    );
    check(
        &[
            (
                "setup.cfg",
                "[metadata]\nname = mine\nversion = attr: mine.version.VERSION\n[options]\npackage_dir =\n    = code\n\
                 [options.entry_points]\nconsole_scripts =\n    mine = mine:main\n    again=mine:again [extra]\n",
            ),
            ("code/mine/version.py", "import os\nVERSION: str = '3.1'\n"),
            ("setup.py", "from setuptools import setup\nsetup()\n"),
        ],
        expect![[r#"
            modules below: code
            bin/again: sys.path[:1] = ["/f/code","/p/lib"]; from mine import again; sys.exit(again())
            bin/mine: sys.path[:1] = ["/f/code","/p/lib"]; from mine import main; sys.exit(main())
            lib/mine-3.1.dist-info/METADATA: Metadata-Version: 2.1; Name: mine; Version: 3.1
            lib/mine-3.1.dist-info/entry_points.txt: [console_scripts]; again = mine:again; mine = mine:main
        "#]],
    );
    check(
        &[
            (
                "setup.py",
                "setup(name='mine', version=read('V'), py_modules=['mine'], scripts=['bin/x'],\n  ext_modules=[one],\n  \
                 entry_points={'console_scripts': ['mine = mine:main']})\n",
            ),
            ("mine.py", ""),
        ],
        expect![[r#"
            modules below: 
            bin/mine: sys.path[:1] = ["/p/lib"]; from mine import main; sys.exit(main())
            lib/mine-0+unknown.dist-info/METADATA: Metadata-Version: 2.1; Name: mine; Version: 0+unknown
            lib/mine-0+unknown.dist-info/entry_points.txt: [console_scripts]; mine = mine:main
            lib/mine.py -> mine.py
            lacks the script bin/x, which is a file (setup.py:1): call it by its path
            lacks its compiled modules, as nothing is built here (setup.py): publish it to an index, and name it in the requirements
            lacks its version, which only its build system knows: 0+unknown stands for it. Write it into the project file
        "#]],
    );
}

#[test]
fn a_version_is_read_where_the_build_system_is_told_to_find_it() {
    let version = |project: &str, more: &[(&str, &str)]| {
        let project = format!("[project]\nname = \"mine\"\n{project}");
        let files = [&[("pyproject.toml", project.as_str())], more].concat();
        let project = flow::own_project(&Tree::new(&files).folder()).unwrap().unwrap();
        (project.version, project.lacks.len())
    };
    let found = |text: &str| (Some(text.to_owned()), 0);
    const DYNAMIC: &str = "dynamic = [\"version\"]\n";
    let of = |tool: &str| format!("{DYNAMIC}{tool}");
    assert_eq!(version("", &[]), (None, 0));
    assert_eq!(version(DYNAMIC, &[]), (None, 1));
    assert_eq!(
        version(DYNAMIC, &[("src/mine/__init__.py", "__version__ = \"1.0\"")]),
        found("1.0")
    );
    assert_eq!(
        version(
            &of("[tool.setuptools.dynamic]\nversion = { file = \"V\" }\n"),
            &[("V", "1.1\n")]
        ),
        found("1.1")
    );
    assert_eq!(
        version(
            &of("[tool.hatch.version]\npath = \"a.py\"\n"),
            &[("a.py", "__version__ = '1.2' # it\n")]
        ),
        found("1.2")
    );
    assert_eq!(
        version(
            &of("[tool.hatch.version]\npath = \"../a.py\"\n"),
            &[("../a.py", "__version__ = '1.2'")]
        ),
        (None, 1)
    );
    assert_eq!(version(DYNAMIC, &[("mine.py", "__version__ = '../../x'")]), (None, 1));
}

#[test]
fn a_bad_entry_point_fails_an_install_of_the_project_and_no_other() {
    let project = |script: &str| format!("[project]\nname = \"mine\"\n[project.scripts]\n{script}\n");
    for (script, shown) in [
        ("mine = \"mine\"", "mine = mine"),
        ("\"../mine\" = \"mine:main\"", "../mine = mine:main"),
        ("mine = \"mine:main;import os\"", "mine = mine:main;import os"),
        ("mine = \"mine:main()\"", "mine = mine:main()"),
    ] {
        let text = project(script);
        let failure = Tree::new(&[("pyproject.toml", &text)]).failure();
        assert_eq!(
            failure.to_string(),
            format!(
                "Flow.BadProject: pyproject.toml:4: {shown} is no entry point. Write it as a name and `module:function`."
            )
        );
        // The remedy, and a file that does not count.
        let good = project("mine = \"mine:main\"");
        for files in [
            &[("pyproject.toml", &*good)][..],
            &[("pyproject.toml", &*text), ("requirements.txt", "numpy\n")][..],
        ] {
            let tree = Tree::new(files);
            flow::environment(&tree.folder(), &flow::include_root(&tree.folder())).unwrap();
        }
    }
}

#[test]
fn no_project_and_one_that_is_not_to_be_installed_have_no_metadata() {
    assert_eq!(flow::own_project(&Tree::new(&[("a.py", "")]).folder()).unwrap(), None);
    for text in [
        "[tool.ruff]\n",
        "[project]\nname = \"mine\"\n[project.scripts]\nmine = \"mine:main\"\n[tool.uv]\npackage = false\n",
        "[tool.poetry]\npackage-mode = false\nname = \"mine\"\n",
    ] {
        check(
            &[("pyproject.toml", text), ("src/a.py", ""), ("mine.py", "")],
            expect![["modules below: src\n"]],
        );
    }
}
