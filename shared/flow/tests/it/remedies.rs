//! The remedy of each error is performed, and the error is gone.

use crate::tree::Tree;
use expect_test::{Expect, expect};
use flow::Code;
use std::fmt::Write;

/// A folder with a fault, the part of the error that says what to do, and the files that are as it
/// says.
struct Case {
    files: &'static [(&'static str, &'static str)],
    says: &'static str,
    then: &'static [(&'static str, &'static str)],
}

const DAG: (&str, &str) = ("flow.dag.yaml", "inputs: {}\noutputs: {}\nnodes: []\n");
const PROJECT: (&str, &str) = (
    "pyproject.toml",
    "[project]\nname = \"mine\"\ndependencies = [\"numpy\"]\n[project.optional-dependencies]\ndev = [\"pytest\"]\n",
);

const GROUPS: (&str, &str) = (
    "pyproject.toml",
    "[project]\nname = \"mine\"\ndependencies = [\"numpy\"]\n[dependency-groups]\n\
     test = [\"pytest>8\", { include-group = \"Typing\" }]\ntyping = [\"mypy\", \"mine\"]\n\
     [tool.uv.sources]\nmypy = { git = \"https://host/mypy.git\" }\n",
);

const POETRY: (&str, &str) = (
    "pyproject.toml",
    "[tool.poetry]\nname = \"mine\"\n[tool.poetry.dependencies]\nnumpy = \"^2\"\nsphinx = { version = \"^7\", optional = true }\n\
     inner = { version = \"*\", source = \"ours\" }\n[tool.poetry.extras]\ndocs = [\"Sphinx\"]\n\
     [tool.poetry.group.lint.dependencies]\nruff = \"*\"\n[tool.poetry.dev-dependencies]\npytest = \"^8\"\n\
     [[tool.poetry.source]]\nname = \"ours\"\nurl = \"https://ours.example/simple\"\npriority = \"explicit\"\n",
);
const PIPFILE: (&str, &str) = (
    "Pipfile",
    "[[source]]\nurl = \"https://pypi.org/simple\"\nname = \"pypi\"\n[[source]]\nurl = \"https://ours.example/simple\"\nname = \"ours\"\n\
     [packages]\nnumpy = \"*\"\ninner = { version = \"==1\", index = \"ours\" }\n[dev-packages]\npytest = \">=8\"\n[docs]\nsphinx = \"*\"\n\
     [requires]\npython_version = \"3.11\"\n",
);

#[test]
fn extras_groups_and_categories_of_poetry_and_pipenv_are_read() {
    lines(
        &[POETRY, ("requirements.txt", "-e .[docs]\n--group lint\n--group dev\n")],
        expect![[r#"
            pyproject.toml:6: --index-of inner https://ours.example/simple
            pyproject.toml:6: inner
            pyproject.toml:4: numpy>=2,<3
            pyproject.toml:5: sphinx>=7,<8
            pyproject.toml:10: ruff
            pyproject.toml:12: pytest>=8,<9
        "#]],
    );
    let lock = r#"{"_meta": {}, "default": {"numpy": {"version": "==2.1"}}, "develop": {"pytest": {"version": "==8.1"}}, "docs": {"sphinx": {"version": "==7"}}}"#;
    lines(
        &[
            PIPFILE,
            ("Pipfile.lock", lock),
            ("requirements.txt", "--group packages\n--group dev\n--group docs\n"),
        ],
        expect![[r#"
            Pipfile:2: -i https://pypi.org/simple
            Pipfile:2: --extra-index-url https://ours.example/simple
            Pipfile:9: --index-of inner https://ours.example/simple
            Pipfile:9: inner==1
            Pipfile:8: numpy
            Pipfile:11: pytest>=8
            Pipfile:13: sphinx
            Pipfile.lock:1: -c numpy==2.1
            Pipfile.lock:1: -c pytest==8.1
            Pipfile.lock:1: -c sphinx==7
        "#]],
    );
    let old = "[project]\nname = \"mine\"\ndependencies = []\n[tool.uv]\ndev-dependencies = [\"pytest\"]\n\
               [tool.pdm.dev-dependencies]\nlint = [\"ruff\"]\n";
    lines(
        &[
            ("pyproject.toml", old),
            ("requirements.txt", "--group dev\n--group lint\n"),
        ],
        expect![[r#"
            pyproject.toml:5: pytest
            pyproject.toml:7: ruff
        "#]],
    );
    let lock = "[[package]]\nname = \"sphinx\"\nversion = \"7.1\"\nmarkers = \"extra == \\\"docs\\\"\"\n";
    lines(
        &[POETRY, ("poetry.lock", lock), ("requirements.txt", "-e .[docs]\n")],
        expect![[r#"
            pyproject.toml:6: --index-of inner https://ours.example/simple
            pyproject.toml:6: inner
            pyproject.toml:4: numpy>=2,<3
            pyproject.toml:5: sphinx>=7,<8
            poetry.lock:1: -c sphinx==7.1
        "#]],
    );
}

#[test]
fn a_group_of_a_pipfile_is_saved_beside_its_packages() {
    let tree = Tree::new(&[PIPFILE]);
    let (folder, root) = (tree.folder(), flow::include_root(&tree.folder()));
    let saved = flow::save_groups(&folder, &root, &["dev".into()]).unwrap();
    assert_eq!(
        (saved.before, saved.after.as_str()),
        (None, "--group packages\n--group dev\n")
    );
    std::fs::write(&saved.file, &saved.after).unwrap();
    flow::environment(&folder, &root).unwrap();
    let failure = flow::save_extras(&folder, &root, &["dev".into()]).unwrap_err();
    assert!(failure.message.contains("a Pipfile has no extras"), "{failure}");
}

#[test]
fn a_package_that_a_project_binds_to_an_index_names_it() {
    let project = |source: &str| {
        format!(
            "[project]\nname = \"mine\"\ndependencies = [\"numpy\", \"My_Torch[x]>=2\"]\n[project.optional-dependencies]\ncpu = [\"inner\"]\n\
             [tool.uv.sources]\nmy-torch = {source}\ninner = {{ index = \"alone\", extra = \"cpu\" }}\n\
             [[tool.uv.index]]\nname = \"alone\"\nurl = \"https://alone.example/simple\"\nexplicit = true\n\
             [[tool.uv.index]]\nname = \"more\"\nurl = \"https://more.example/simple\"\n"
        )
    };
    lines(
        &[("pyproject.toml", &project("{ index = \"alone\" }"))],
        expect![[r#"
            pyproject.toml:15: --extra-index-url https://more.example/simple
            pyproject.toml:3: numpy
            pyproject.toml:7: --index-of my-torch https://alone.example/simple
            pyproject.toml:3: My_Torch[x]>=2
        "#]],
    );
    lines(
        &[
            (
                "pyproject.toml",
                &project("[{ index = \"alone\", marker = \"sys_platform == 'darwin'\" }, { index = \"more\" }]"),
            ),
            ("requirements.txt", "-e .[cpu]\n"),
        ],
        expect![[r#"
            pyproject.toml:15: --extra-index-url https://more.example/simple
            pyproject.toml:3: numpy
            pyproject.toml:7: --index-of my-torch https://more.example/simple
            pyproject.toml:3: My_Torch[x]>=2
            pyproject.toml:8: --index-of inner https://alone.example/simple
            pyproject.toml:5: inner
        "#]],
    );
    // Poetry's table beside the standard one.
    let both = "[project]\nname = \"mine\"\ndependencies = [\"inner\"]\n[tool.poetry.dependencies]\ninner = { source = \"ours\" }\n\
                [[tool.poetry.source]]\nname = \"ours\"\nurl = \"https://ours.example/simple\"\npriority = \"explicit\"\n";
    lines(
        &[("pyproject.toml", both)],
        expect![[r#"
        pyproject.toml:5: --index-of inner https://ours.example/simple
        pyproject.toml:3: inner
    "#]],
    );
    let pdm = "[project]\nname = \"mine\"\ndependencies = [\"inner\"]\n[[tool.pdm.source]]\nname = \"pypi\"\nurl = \"https://ours.example/simple\"\n";
    lines(
        &[("pyproject.toml", pdm)],
        expect![[r#"
        pyproject.toml:6: -i https://ours.example/simple
        pyproject.toml:3: inner
    "#]],
    );
}

#[test]
fn each_remedy_of_a_fault_in_a_flow_folder_leads_to_none() {
    let cases = [
        Case {
            files: &[DAG, ("requirements.txt", "numpy @ file:///croot/numpy_1/work\n")],
            says: "Write numpy, or numpy==VERSION",
            then: &[DAG, ("requirements.txt", "numpy==2.1.0\n")],
        },
        Case {
            files: &[
                DAG,
                ("requirements.txt", "mine @ git+ssh://git@github.com/ann/mine.git@v1\n"),
            ],
            says: "Write git+https://github.com/ann/mine.git@v1 ",
            then: &[
                DAG,
                ("requirements.txt", "mine @ git+https://github.com/ann/mine.git@v1\n"),
            ],
        },
        Case {
            files: &[DAG, ("requirements.txt", "git+ssh://git@host:ann/mine.git\n")],
            says: "Write git+https://host/ann/mine.git ",
            then: &[DAG, ("requirements.txt", "git+https://host/ann/mine.git\n")],
        },
        Case {
            files: &[
                DAG,
                (
                    "requirements.txt",
                    "--extra-index-url https://ann:${TOKEN}@feed.example/simple\nmine\n",
                ),
            ],
            says: "Write `--extra-index-url https://{private}@feed.example/simple`",
            then: &[
                DAG,
                (
                    "requirements.txt",
                    "--extra-index-url https://{private}@feed.example/simple\nmine\n",
                ),
            ],
        },
        Case {
            files: &[
                DAG,
                (
                    "requirements.txt",
                    "mine @ git+https://${TOKEN}@github.com/ann/mine.git\n",
                ),
            ],
            says: "add a line `--extra-index-url https://{private}@HOST/simple`",
            then: &[
                DAG,
                (
                    "requirements.txt",
                    "mine\n--extra-index-url https://{private}@host/simple\n",
                ),
            ],
        },
        Case {
            files: &[DAG, ("requirements.txt", "numpy==${VERSION}\n")],
            says: "Write the value itself.",
            then: &[DAG, ("requirements.txt", "numpy==2.1.0\n")],
        },
        Case {
            files: &[DAG, ("requirements.txt", "sklearn>=1.3\n")],
            says: "Write scikit-learn>=1.3.",
            then: &[DAG, ("requirements.txt", "scikit-learn>=1.3\n")],
        },
        Case {
            files: &[DAG, ("requirements.txt", "-e .[dev]\n")],
            says: "Write them in place of the line: the flow's own modules are found in its folder.",
            then: &[DAG, ("requirements.txt", "humanize\n")],
        },
        Case {
            files: &[DAG, ("requirements.txt", "-e git+https://host/mine.git#egg=mine\n")],
            says: "Write `git+https://host/mine.git#egg=mine` without -e.",
            then: &[DAG, ("requirements.txt", "git+https://host/mine.git#egg=mine\n")],
        },
        Case {
            files: &[PROJECT, ("requirements.txt", "-e .[test]\n")],
            says: "It has dev. Correct the line, or take the extra out.",
            then: &[PROJECT, ("requirements.txt", "-e .[dev]\n")],
        },
        Case {
            files: &[GROUPS, ("requirements.txt", "--group docs\n")],
            says: "the project has no dependency group docs. It has test, typing. Correct the name, or take the group out.",
            then: &[GROUPS, ("requirements.txt", "--group test\n")],
        },
        Case {
            files: &[POETRY, ("requirements.txt", "-e .[none]\n")],
            says: "It has docs. Correct the line, or take the extra out.",
            then: &[POETRY, ("requirements.txt", "-e .[Docs]\n")],
        },
        Case {
            files: &[POETRY, ("requirements.txt", "--group none\n")],
            says: "It has lint, dev. Correct the name, or take the group out.",
            then: &[POETRY, ("requirements.txt", "--group lint\n--group dev\n")],
        },
        Case {
            files: &[PIPFILE, ("requirements.txt", "--group none\n")],
            says: "It has dev-packages, docs, packages. Correct the name, or take it out.",
            then: &[PIPFILE, ("requirements.txt", "--group packages\n--group dev\n")],
        },
        Case {
            files: &[PIPFILE, ("requirements.txt", "-e .[dev]\n")],
            says: "Name one of its categories in its place, as `--group packages`.",
            then: &[PIPFILE, ("requirements.txt", "--group packages\n")],
        },
        Case {
            files: &[
                ("setup.cfg", "[options]\ninstall_requires = six\n"),
                ("requirements.txt", "--group dev\n"),
            ],
            says: "Write the packages in place of dev.",
            then: &[
                ("setup.cfg", "[options]\ninstall_requires = six\n"),
                ("requirements.txt", "pytest\n"),
            ],
        },
        Case {
            files: &[DAG, ("requirements.txt", "--index-of six https://host/simple\nsix\n")],
            says: "Correct it, or take the line out.",
            then: &[DAG, ("requirements.txt", "six\n")],
        },
        Case {
            files: &[(
                "pyproject.toml",
                "[project]\nname = \"mine\"\ndependencies = [\"six\"]\n[tool.uv.sources]\nsix = { index = \"ours\" }\n",
            )],
            says: "six comes from the index ours, and the file has no index of that name. Add it, or correct the name.",
            then: &[(
                "pyproject.toml",
                "[project]\nname = \"mine\"\ndependencies = [\"six\"]\n[tool.uv.sources]\nsix = { index = \"ours\" }\n\
                 [[tool.uv.index]]\nname = \"ours\"\nurl = \"https://host/simple\"\n",
            )],
        },
        Case {
            files: &[DAG, ("requirements.txt", "./mine-1.0-py3-none-any.whl\n")],
            says: "Build the package in your image and set environment.image in the flow file",
            then: &[
                (DAG.0, "environment:\n  image: ex.org/mine:1\nnodes: []\n"),
                ("requirements.txt", ""),
            ],
        },
        Case {
            files: &[DAG, ("requirements.txt", "promptflow==1.10.0\n")],
            says: "Take the pin, or the line, out.",
            then: &[DAG, ("requirements.txt", "promptflow\n")],
        },
        Case {
            files: &[DAG, ("requirements.txt", "numpy=1\n")],
            says: "Write it as name, or name==version.",
            then: &[DAG, ("requirements.txt", "numpy==1\n")],
        },
        Case {
            files: &[DAG, ("requirements.txt", "-i https://a/simple https://b/simple\n")],
            says: "Write each into a line of its own.",
            then: &[
                DAG,
                (
                    "requirements.txt",
                    "-i https://a/simple\n--extra-index-url https://b/simple\n",
                ),
            ],
        },
        Case {
            files: &[DAG, ("requirements.txt", "--pre numpy\n")],
            says: "write it into a line of its own.",
            then: &[DAG, ("requirements.txt", "--pre\nnumpy\n")],
        },
        Case {
            files: &[DAG, ("requirements.txt", "-r more.txt\n")],
            says: "Create it, or take the line out.",
            then: &[DAG, ("requirements.txt", "-r more.txt\n"), ("more.txt", "numpy\n")],
        },
        Case {
            files: &[
                DAG,
                ("requirements.txt", "-c ../limits.txt\n"),
                ("../limits.txt", "numpy<2\n"),
            ],
            says: "Add the file to additional_includes, and name it as it is then called in the flow folder.",
            then: &[
                (DAG.0, "additional_includes:\n- ../limits.txt\nnodes: []\n"),
                ("requirements.txt", "-c limits.txt\n"),
                ("../limits.txt", "numpy<2\n"),
            ],
        },
        Case {
            files: &[
                ("code.py", ""),
                ("environment.yml", "dependencies:\n- python=3.11\n- numpy=2.1\n"),
            ],
            says: "Move it below `pip:`, by the name that PyPI has for it.",
            then: &[(
                "environment.yml",
                "dependencies:\n- python=3.11\n- pip:\n  - numpy==2.1\n",
            )],
        },
        Case {
            files: &[("setup.py", "setup(install_requires=more)")],
            says: "Write it so, or write a requirements.txt that lists the packages.",
            then: &[("setup.py", "setup(install_requires=[\"numpy\"])")],
        },
        Case {
            files: &[("s.py", "# /// script\n# dependencies = []\n")],
            says: "Write a line `# ///` behind it.",
            then: &[("s.py", "# /// script\n# dependencies = []\n# ///\n")],
        },
        Case {
            files: &[("setup.py", "")],
            says: "Write a requirements.txt that lists them.",
            then: &[("setup.py", ""), ("requirements.txt", "numpy\n")],
        },
        Case {
            files: &[("code.py", ""), ("requirements/base.txt", "numpy\n")],
            says: "Write a requirements.txt with the line `-r requirements/base.txt`.",
            then: &[
                ("requirements/base.txt", "numpy\n"),
                ("requirements.txt", "-r requirements/base.txt\n"),
            ],
        },
        Case {
            files: &[(
                "pyproject.toml",
                "[project]\nname = \"mine\"\ndynamic = [\"dependencies\"]\n",
            )],
            says: "List them under `dependencies`, or in a requirements.txt.",
            then: &[(
                "pyproject.toml",
                "[project]\nname = \"mine\"\ndependencies = [\"numpy\"]\n",
            )],
        },
    ];
    for case in cases {
        let failure = Tree::new(case.files).failure();
        assert!(
            failure.message.contains(case.says),
            "{failure}\n  should say: {}",
            case.says
        );
        let done = Tree::new(case.then);
        let folder = done.folder();
        if let Err(failure) = flow::environment(&folder, &flow::include_root(&folder)) {
            panic!("{} leads to {failure}", case.says);
        }
    }
}

fn lines(files: &[(&str, &str)], expected: Expect) {
    let tree = Tree::new(files);
    let folder = tree.folder();
    let environment = flow::environment(&folder, &flow::include_root(&folder)).unwrap();
    let mut text = String::new();
    for line in environment.requirements.unwrap().lines {
        writeln!(text, "{line:?}").unwrap();
    }
    expected.assert_eq(&text);
}

#[test]
fn a_line_that_names_the_folders_own_project_stands_for_its_dependencies_and_extras() {
    let project = "[project]\nname = \"mine\"\ndependencies = [\"numpy>=2\"]\n[project.optional-dependencies]\n\
        dev = [\"pytest\", \"mine[Web_UI]\"]\nweb-ui = [\"flask\"]\nother = [\"never\"]\n";
    lines(
        &[("pyproject.toml", project), ("requirements.txt", "-e .[dev]\ncowsay\n")],
        expect![[r#"
            pyproject.toml:3: numpy>=2
            pyproject.toml:5: pytest
            pyproject.toml:6: flask
            requirements.txt:2: cowsay
        "#]],
    );
    let lock = "version = 1\n[[package]]\nname = \"numpy\"\nversion = \"2.1.0\"\nsource = { registry = \"https://pypi.org/simple\" }\n";
    lines(
        &[
            ("pyproject.toml", project),
            ("uv.lock", lock),
            ("requirements.txt", "--editable=./\n"),
        ],
        expect![[r#"
            pyproject.toml:3: numpy>=2
            uv.lock:1: -c numpy==2.1.0
        "#]],
    );
}

#[test]
fn the_own_project_may_be_described_by_setuptools() {
    let code = "from setuptools import setup\nsetup(name=\"thingy\", install_requires=[\"humanize\"],\n  \
        extras_require={\"dev\": [\"itsdangerous\"], \"self\": (\"Thingy[dev]\",)})\n";
    let declarative =
        "[options]\ninstall_requires = humanize\n[options.extras_require]\nself = six\ndev =\n  itsdangerous\n";
    for line in ["-e .[dev]", "-e.[dev]", "--editable '.[dev]'", "file:.[dev]#egg=thingy"] {
        lines(
            &[("setup.py", code), ("requirements.txt", line)],
            expect![[r#"
                setup.py:2: humanize
                setup.py:3: itsdangerous
            "#]],
        );
        lines(
            &[
                ("setup.cfg", declarative),
                ("setup.py", "setup()"),
                ("requirements.txt", line),
            ],
            expect![[r#"
                setup.cfg:2: humanize
                setup.cfg:6: itsdangerous
            "#]],
        );
    }
    for (line, says) in [
        (
            "-e .[none]",
            expect![
                "Flow.BadProject: requirements.txt:1: setup.py has no extra none. Correct the line, or take the extra out."
            ],
        ),
        (
            "-e .[self]",
            expect![
                "Flow.BadProject: setup.py:3: an extra names the project itself. Name the packages of that extra in its place."
            ],
        ),
    ] {
        says.assert_eq(
            &Tree::new(&[("setup.py", code), ("requirements.txt", line)])
                .failure()
                .to_string(),
        );
    }
}

#[test]
fn a_line_that_names_a_dependency_group_stands_for_its_packages() {
    lines(
        &[GROUPS, ("requirements.txt", "cowsay\n--group=test\n")],
        expect![[r#"
            requirements.txt:1: cowsay
            pyproject.toml:5: pytest>8
            pyproject.toml:6: mypy @ git+https://host/mypy.git
        "#]],
    );
    let odd = ("pyproject.toml", "[dependency-groups]\nodd = [{ other = 1 }]\n");
    let tree = Tree::new(&[odd, ("requirements.txt", "--group odd\n")]);
    let failure = flow::environment(&tree.folder(), flow::include_root(&tree.folder()).as_path()).unwrap_err();
    expect!["Flow.BadProject: pyproject.toml:2: the dependency group odd has an entry that is neither a requirement nor include-group. Correct it."].assert_eq(&failure.to_string());
}

#[test]
fn a_group_is_saved_beside_the_project_that_counted_until_now() {
    let tree = Tree::new(&[GROUPS]);
    let (folder, root) = (tree.folder(), flow::include_root(&tree.folder()));
    let saved = flow::save_groups(&folder, &root, &["test".into()]).unwrap();
    assert_eq!((saved.before, saved.after.as_str()), (None, "-e .\n--group test\n"));
    std::fs::write(&saved.file, "cowsay\n--group test\n").unwrap();
    let saved = flow::save_groups(&folder, &root, &["test".into(), "typing".into()]).unwrap();
    assert_eq!(saved.after, "cowsay\n--group test\n--group typing\n");
    let failure = flow::save_groups(&folder, &root, &["none".into()]).unwrap_err();
    assert_eq!(failure.error, Code::FlowBadProject);
}

#[test]
fn an_extra_is_saved_beside_those_that_are_there_and_packages_not_beside_a_project_file() {
    let tree = Tree::new(&[PROJECT]);
    let (folder, root) = (tree.folder(), flow::include_root(&tree.folder()));
    let saved = flow::save_extras(&folder, &root, &["dev".into()]).unwrap();
    assert_eq!((saved.before, saved.after.as_str()), (None, "-e .[dev]\n"));
    std::fs::write(&saved.file, "numpy\n-e .[web]\n").unwrap();
    let saved = flow::save_extras(&folder, &root, &["dev".into()]).unwrap();
    assert_eq!(saved.after, "numpy\n-e .[web,dev]\n");
    assert_eq!(
        flow::save_extras(&folder, &root, &["none".into()]).unwrap_err().error,
        Code::FlowBadProject
    );

    let tree = Tree::new(&[PROJECT]);
    let failure = flow::save(&tree.folder(), &flow::include_root(&tree.folder()), &["cowsay".into()]).unwrap_err();
    expect!["Flow.ProjectRequirements: The packages are in pyproject.toml, and a requirements.txt beside it would take its place. Add them there, and install without naming them."].assert_eq(&failure.to_string());
}
