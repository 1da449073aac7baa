//! Flow folders without faults, by value.

use crate::tree::{Tree, shown};
use expect_test::{Expect, expect};
use flow::{Code, Kind};
use lifecycle::session::Origin;
use std::{fs, os::unix::fs::PermissionsExt};

const DAG: (&str, &str) = ("flow.dag.yaml", "nodes: []\n");

fn check_environment(files: &[(&str, &str)], expected: Expect) {
    let tree = Tree::new(files);
    let environment = flow::environment(&tree.folder(), &flow::include_root(&tree.folder())).unwrap();
    expected.assert_eq(&tree.without_root(&format!("{environment:#?}")));
}

fn check_view(files: &[(&str, &str)], expected: Expect) {
    let tree = Tree::new(files);
    let view = flow::view::list(&tree.folder(), &flow::include_root(&tree.folder())).unwrap();
    let to = tree.at("/view");
    flow::view::copy_into(&view, &to).unwrap();
    expected.assert_eq(&format!(
        "{}{}",
        shown(&to),
        view.warnings.iter().map(|w| format!("! {w}\n")).collect::<String>()
    ));
    assert_eq!(view.bytes, view.files.iter().map(|file| file.bytes).sum::<u64>());
}

#[test]
fn the_include_root_is_the_repository_or_else_the_parent() {
    let tree = Tree::new(&[
        ("a.py", ""),
        ("/alone/flow/a.py", ""),
        ("/tree/.git", "gitdir: elsewhere"),
        ("/tree/x/flow/a.py", ""),
    ]);
    assert_eq!(flow::include_root(&tree.folder()), tree.at("/repo"));
    assert_eq!(flow::include_root(&tree.at("/alone/flow")), tree.at("/alone"));
    assert_eq!(flow::include_root(&tree.at("/tree/x/flow")), tree.at("/tree"));
}

#[test]
fn a_folder_is_a_dag_a_flex_flow_or_just_a_folder_of_python() {
    let kind = |files: &[(&str, &str)]| flow::kind(&Tree::new(files).folder()).unwrap();
    assert_eq!(kind(&[DAG]), Kind::Dag { file: "flow.dag.yaml" });
    assert_eq!(
        kind(&[("flow.dag.yml", "nodes: []")]),
        Kind::Dag { file: "flow.dag.yml" }
    );
    let flex = |file| Kind::Flex {
        file,
        entry: "a.b:C".into(),
    };
    assert_eq!(kind(&[("flow.flex.yaml", "entry: a.b:C")]), flex("flow.flex.yaml"));
    assert_eq!(kind(&[("flow.dag.yaml", "entry: a.b:C")]), flex("flow.dag.yaml"));
    assert_eq!(kind(&[("main.py", "")]), Kind::Folder);
    assert_eq!(kind(&[("requirements.txt", "")]), Kind::Folder);
    assert_eq!(kind(&[("pyproject.toml", "")]), Kind::Folder);
}

#[test]
fn a_folder_without_a_flow_has_the_packages_of_its_project_on_plain_python() {
    let project = "[project]\nname = \"a\"\ndependencies = [\n    \"humanize>=4\",\n    \"tabulate ; python_version > '3.8'\",\n]\n";
    let lines = |files: &[(&str, &str)]| {
        let tree = Tree::new(files);
        let environment = flow::environment(&tree.folder(), &flow::include_root(&tree.folder())).unwrap();
        let requirements = environment.requirements;
        requirements.map(|found| found.lines.iter().map(|line| format!("{line:?}")).collect::<Vec<_>>())
    };
    let of_project = [
        "pyproject.toml:4: humanize>=4",
        "pyproject.toml:5: tabulate ; python_version > '3.8'",
    ]
    .map(str::to_owned);
    assert_eq!(lines(&[("pyproject.toml", project)]), Some(of_project.to_vec()));
    let both = [("pyproject.toml", project), ("requirements.txt", "six\n")];
    assert_eq!(
        lines(&both),
        Some(vec!["requirements.txt:1: six".to_owned()]),
        "a requirements file says it outright"
    );
    assert_eq!(
        lines(&[("pyproject.toml", "[tool.ruff]\nline-length = 100\n"), ("a.py", "")]),
        None
    );
    assert_eq!(
        lines(&[DAG, ("pyproject.toml", project)]),
        None,
        "a flow names its packages itself"
    );

    let image = |files: &[(&str, &str)]| {
        let image = flow::base_image(&Tree::new(files).folder()).unwrap();
        (image.value, image.origin)
    };
    assert_eq!(image(&[("a.py", "")]), ("python".into(), Origin::Default));
    assert_eq!(image(&[DAG]), ("promptflow".into(), Origin::Default));
    let named = ("flow.dag.yaml", "nodes: []\nenvironment:\n  image: mine:1\n");
    assert_eq!(image(&[named]), ("mine:1".into(), Origin::FlowFile));
}

#[test]
fn each_kind_of_project_file_says_the_packages_and_its_lock_holds_their_versions() {
    let lines = |files: &[(&str, &str)]| {
        let tree = Tree::new(files);
        let environment = flow::environment(&tree.folder(), &flow::include_root(&tree.folder()))
            .unwrap_or_else(|failure| panic!("{failure}: {files:?}"));
        let lines = environment.requirements.expect("it has some").lines;
        lines.iter().map(|line| format!("{line:?}")).collect::<Vec<_>>()
    };
    let uv = "[project]\nname = \"a\"\ndependencies = [\"humanize>=4\", \"inner[x]; os_name == 'posix'\", \"far\"]\n\
              [tool.uv.sources]\ninner = { git = \"https://host/inner\", tag = \"v1\" }\nFar = { url = \"https://host/far.whl\" }\n\
              [[tool.uv.index]]\nurl = \"https://more.example/simple\"\n\
              [[tool.uv.index]]\nname = \"alone\"\nurl = \"https://alone.example/simple\"\nexplicit = true\n";
    let uv_lock = "version = 1\n[[package]]\nname = \"a\"\nversion = \"0.1\"\nsource = { virtual = \".\" }\n\
                   [[package]]\nname = \"humanize\"\nversion = \"4.9.0\"\nsource = { registry = \"https://pypi.org/simple\" }\n\
                   [[package]]\nname = \"two\"\nversion = \"1\"\nsource = { registry = \"x\" }\nresolution-markers = [\"os_name == 'nt'\"]\n\
                   [[package]]\nname = \"two\"\nversion = \"2\"\nsource = { registry = \"x\" }\nresolution-markers = [\"os_name != 'nt'\"]\n";
    assert_eq!(
        lines(&[("pyproject.toml", uv), ("uv.lock", uv_lock)]),
        [
            "pyproject.toml:8: --extra-index-url https://more.example/simple",
            "pyproject.toml:3: humanize>=4",
            "pyproject.toml:3: inner[x] @ git+https://host/inner@v1 ; os_name == 'posix'",
            "pyproject.toml:3: far @ https://host/far.whl",
            "uv.lock:1: -c humanize==4.9.0",
            "uv.lock:1: -c two==1 ; (os_name == 'nt')",
            "uv.lock:1: -c two==2 ; (os_name != 'nt')",
        ]
    );
    let indexes = "[project]\nname = \"a\"\ndependencies = [\"humanize\"]\n[tool.uv]\nindex-url = \"https://a.example/simple\"\n\
                   extra-index-url = [\"https://b.example/simple\"]\nconstraint-dependencies = [\"humanize<5\"]\n";
    assert_eq!(
        lines(&[("pyproject.toml", indexes)]),
        [
            "pyproject.toml:5: -i https://a.example/simple",
            "pyproject.toml:6: --extra-index-url https://b.example/simple",
            "pyproject.toml:7: -c humanize<5",
            "pyproject.toml:3: humanize",
        ]
    );
    let poetry = "[tool.poetry]\nname = \"a\"\n[tool.poetry.dependencies]\npython = \"^3.10\"\nhumanize = \"^4.9\"\n\
                  tabulate = { version = \"*\", extras = [\"wide\"], markers = \"os_name == 'posix'\" }\nlater = { version = \"1\", optional = true }\n";
    let poetry_lock = "[[package]]\nname = \"humanize\"\nversion = \"4.9.1\"\n[[package]]\nname = \"mine\"\nversion = \"1\"\n\
                       [package.source]\ntype = \"git\"\n";
    assert_eq!(
        lines(&[("pyproject.toml", poetry), ("poetry.lock", poetry_lock)]),
        [
            "pyproject.toml:5: humanize>=4.9,<5",
            "pyproject.toml:6: tabulate[wide] ; os_name == 'posix'",
            "poetry.lock:1: -c humanize==4.9.1",
        ]
    );
    let pipfile = "[[source]]\nurl = \"https://pypi.org/simple\"\n[packages]\nhumanize = \"*\"\n";
    let pipfile_lock = r#"{"default": {"humanize": {"version": "==4.9.0", "hashes": ["sha256:00"]}}, "develop": {"pytest": {"version": "==8"}}}"#;
    assert_eq!(
        lines(&[("Pipfile", pipfile), ("Pipfile.lock", pipfile_lock)]),
        [
            "Pipfile:2: -i https://pypi.org/simple",
            "Pipfile:4: humanize",
            "Pipfile.lock:1: -c humanize==4.9.0",
            "Pipfile.lock:1: -c pytest==8",
        ]
    );
    let conda = "name: a\ndependencies:\n- python=3.11\n- pip\n- pip:\n  - humanize>=4\n";
    assert_eq!(lines(&[("environment.yml", conda)]), ["environment.yml:6: humanize>=4"]);
    let setup = "[metadata]\nname = a\n[options]\ninstall_requires =\n    humanize>=4\n    six\npy_modules = a\n";
    assert_eq!(
        lines(&[("setup.cfg", setup)]),
        ["setup.cfg:5: humanize>=4", "setup.cfg:6: six"]
    );
    let setup = "from setuptools import setup\nsetup(\n    name='a',  # 'not'\n    install_requires=[\n        'humanize>=4',\n        \"six\",\n    ],\n)\n";
    assert_eq!(
        lines(&[("setup.py", setup)]),
        ["setup.py:5: humanize>=4", "setup.py:6: six"]
    );
    let script = "import os\n# /// script\n# requires-python = \">=3.11\"\n# dependencies = [\n#   \"humanize==4.9.0\",\n# ]\n# ///\n";
    assert_eq!(lines(&[("s.py", script), ("t.py", "")]), ["s.py:5: humanize==4.9.0"]);
    let pylock = "lock-version = \"1.0\"\n[[packages]]\nname = \"humanize\"\nversion = \"4.9.0\"\n";
    let project = "[project]\nname = \"a\"\ndependencies = [\"humanize\"]\n";
    assert_eq!(
        lines(&[("pyproject.toml", project), ("pylock.toml", pylock)]),
        ["pyproject.toml:3: humanize", "pylock.toml:1: -c humanize==4.9.0"]
    );
}

#[test]
fn a_project_file_that_names_what_is_not_supported_is_refused_by_name() {
    let sources = |source: &str| {
        format!("[project]\nname = \"a\"\ndependencies = [\"inner\"]\n[tool.uv.sources]\ninner = {source}\n")
    };
    for (file, text, expected) in [
        (
            "pyproject.toml",
            sources("{ path = \"libs/inner\", editable = true }"),
            "Flow.LocalPackage: pyproject.toml:5: inner is a local folder, which is not supported. Put its modules into this folder, or publish it \
             to an index.",
        ),
        (
            "pyproject.toml",
            sources("{ workspace = true }"),
            "Flow.LocalPackage: pyproject.toml:5: inner is a local",
        ),
        (
            "pyproject.toml",
            "[project]\nname = \"a\"\ndependencies = [\"my.inner\"]\n[tool.uv.sources]\nMy__Inner = { path = \"x\" }\n"
                .to_owned(),
            "Flow.LocalPackage: pyproject.toml:5: My__Inner is a local",
        ),
        (
            "Pipfile",
            "[[source]]\nurl = \"https://${TOKEN}@host/simple\"\n[packages]\n".to_owned(),
            "Flow.VariableInRequirement: Pipfile:2: ${TOKEN} would be read from",
        ),
        (
            "pyproject.toml",
            sources("{ index = \"alone\" }"),
            "Flow.BadProject: pyproject.toml:5: inner comes from the index alone, and the file has no index of that name. Add it, or correct the name.",
        ),
        (
            "pyproject.toml",
            sources("{ svn = \"https://host\" }"),
            "Flow.BadProject: pyproject.toml:5: inner has a source in [tool.uv.sources] that is not supported: git, url, index. Write a \
             requirements.txt that says where it comes from.",
        ),
        (
            "pyproject.toml",
            sources("{ git = \"https://host/inner\", marker = \"python_version == '3.11'\" }"),
            "Flow.BadProject: pyproject.toml:5: inner has a source for some Pythons or machines alone. Write a requirements.txt that says where it \
             comes from.",
        ),
        (
            "pyproject.toml",
            "[project]\nname = \"a\"\ndependencies = [\"b\"]\n[[tool.pdm.source]]\nurl = \"https://c/simple\"\ninclude_packages = [\"b\"]\n".to_owned(),
            "Flow.BadProject: pyproject.toml:5: a source of [tool.pdm] that is for some packages alone is not supported. Write a requirements.txt \
             that says where they come from.",
        ),
        (
            "environment.yml",
            "dependencies:\n- conda-forge::numpy=2\n- pip: [humanize]\n".to_owned(),
            "Flow.BadProject: environment.yml:2: conda-forge::numpy=2 comes by conda, which is not here. Move it below `pip:`, by the name that \
             PyPI has for it.",
        ),
        (
            "environment.yml",
            "name: a\ndependencies: [python=3.11, numpy, pip]\n".to_owned(),
            "Flow.BadProject: environment.yml:2: numpy comes by conda, which is not here.",
        ),
        (
            "Pipfile",
            "[packages]\nmine = { path = \".\", editable = true }\n".to_owned(),
            "Flow.LocalPackage: Pipfile:2: mine is a local folder",
        ),
        (
            "setup.py",
            "from setuptools import setup\n".to_owned(),
            "Flow.BadProject: setup.py is the only description of the folder's packages, and is not read. Write a requirements.txt that lists them.",
        ),
        (
            "setup.py",
            "from setuptools import setup\nsetup(\n  install_requires=open('x').read())\n".to_owned(),
            "Flow.BadProject: setup.py:3: install_requires is not written as a list of texts, and no code is run here. Write it so, or write a \
             requirements.txt that lists the packages.",
        ),
        (
            "setup.py",
            "setup(install_requires=['a' 'b'])\n".to_owned(),
            "Flow.BadProject: setup.py:1: install_requires is not written",
        ),
        (
            "setup.py",
            "setup(install_requires=['a'] + more)\n".to_owned(),
            "Flow.BadProject: setup.py:1: install_requires is not written",
        ),
        (
            "s.py",
            "# /// script\n# dependencies = []\n".to_owned(),
            "Flow.BadProject: s.py:1: the comment with the packages does not end. Write a line `# ///` behind it.",
        ),
        (
            "s.py",
            "# /// script\n# dependencies = ['inner']\n# [tool.uv.sources]\n# inner = { path = 'x' }\n# ///\n"
                .to_owned(),
            "Flow.BadProject: s.py:3: tool.uv.sources in the comment of a script is not supported. Write a requirements.txt that says where the packages \
             come from.",
        ),
        (
            "pyproject.toml",
            "[project]\nname = \"a\"\ndependencies = [\"b\"]\n[tool.uv]\noverride-dependencies = [\"c==1\"]\n"
                .to_owned(),
            "Flow.BadProject: pyproject.toml:5: override-dependencies of [tool.uv] is not supported. Take it out, or write a requirements.txt that says \
             the same.",
        ),
        (
            "dev-requirements.txt",
            "humanize\n".to_owned(),
            "Flow.BadProject: dev-requirements.txt is the only description of the folder's packages, and is not read. Write a requirements.txt \
             with the line `-r dev-requirements.txt`.",
        ),
        (
            "requirements/base.txt",
            "humanize\n".to_owned(),
            "Flow.BadProject: requirements/base.txt is the only description of the folder's packages, and is not read. Write a requirements.txt \
             with the line `-r requirements/base.txt`.",
        ),
    ] {
        let tree = Tree::new(&[("a.py", ""), (file, &text)]);
        let failure = flow::environment(&tree.folder(), &flow::include_root(&tree.folder())).unwrap_err();
        assert!(failure.to_string().starts_with(expected), "{text}: {failure}");
        // The remedy is one.
        let tree = Tree::new(&[("a.py", ""), (file, &text), ("requirements.txt", "humanize\n")]);
        assert!(flow::environment(&tree.folder(), &flow::include_root(&tree.folder())).is_ok());
    }
}

#[test]
fn a_project_that_cannot_be_read_says_where_and_what_to_do() {
    for (project, expected) in [
        ("[project\n", "pyproject.toml:1"),
        ("[project]\nname = \"a\"\ndependencies = [1]\n", "pyproject.toml:3"),
        (
            "[project]\ndynamic = [\"dependencies\"]\n",
            "Flow.BadProject: pyproject.toml: its dependencies are dynamic, so that only its build system knows them. List them under \
             `dependencies`, or in a requirements.txt.",
        ),
        (
            "[project]\ndependencies = [\"six\", \"-e .\"]\n",
            "Flow.BadProject: pyproject.toml:2: -e . is no requirement. Correct it.",
        ),
        ("[project]\ndependencies = [\"./wheel.whl\"]\n", "pyproject.toml:2"),
    ] {
        let tree = Tree::new(&[("pyproject.toml", project)]);
        let failure = flow::environment(&tree.folder(), &flow::include_root(&tree.folder())).unwrap_err();
        assert!(failure.to_string().contains(expected), "{project}: {failure}");
    }
}

#[test]
fn an_environment_is_what_the_flow_file_declares() {
    check_environment(
        &[DAG],
        expect![[r#"
            Environment {
                image: Named {
                    value: "promptflow",
                    origin: Default,
                },
                requirements: None,
                described: Described {
                    by: None,
                    passed_over: [],
                    commands: [],
                    lacks: [],
                },
            }"#]],
    );
    check_environment(
        &[("flow.dag.yaml", "environment:\n")],
        expect![[r#"
            Environment {
                image: Named {
                    value: "promptflow",
                    origin: Default,
                },
                requirements: None,
                described: Described {
                    by: None,
                    passed_over: [],
                    commands: [],
                    lacks: [],
                },
            }"#]],
    );
    check_environment(
        &[
            (
                "flow.flex.yaml",
                "entry: a:b\nenvironment:\n  image: mine:1\n  python_requirements_txt: lib/deps.txt\n  extra: 1\n",
            ),
            ("lib/deps.txt", "numpy"),
        ],
        expect![[r#"
            Environment {
                image: Named {
                    value: "mine:1",
                    origin: FlowFile,
                },
                requirements: Some(
                    Requirements {
                        file: "ROOT/repo/flow/lib/deps.txt",
                        declared: true,
                        lines: [
                            lib/deps.txt:1: numpy,
                        ],
                    },
                ),
                described: Described {
                    by: Some(
                        "lib/deps.txt",
                    ),
                    passed_over: [],
                    commands: [],
                    lacks: [],
                },
            }"#]],
    );
}

#[test]
fn a_requirements_file_that_nobody_declares_counts() {
    check_environment(
        &[("main.py", ""), ("requirements.txt", "numpy")],
        expect![[r#"
            Environment {
                image: Named {
                    value: "python",
                    origin: Default,
                },
                requirements: Some(
                    Requirements {
                        file: "ROOT/repo/flow/requirements.txt",
                        declared: false,
                        lines: [
                            requirements.txt:1: numpy,
                        ],
                    },
                ),
                described: Described {
                    by: Some(
                        "requirements.txt",
                    ),
                    passed_over: [],
                    commands: [],
                    lacks: [],
                },
            }"#]],
    );
}

#[test]
fn requirements_are_found_through_the_includes_as_the_view_has_them() {
    check_environment(
        &[
            (
                "flow.dag.yaml",
                "environment: {python_requirements_txt: requirements.txt}\nadditional_includes: [../requirements.txt, ../lib]\n",
            ),
            ("../requirements.txt", "-r lib/base.txt\n-c lib/limits/all.txt\nnumpy"),
            ("requirements.txt", "overwritten"),
            ("../lib/base.txt", "pandas"),
            (
                "../lib/limits/all.txt",
                "-i https://host/simple\nnumpy<2\n-r more.txt\n",
            ),
            ("../lib/limits/more.txt", "six<2"),
        ],
        expect![[r#"
            Environment {
                image: Named {
                    value: "promptflow",
                    origin: Default,
                },
                requirements: Some(
                    Requirements {
                        file: "ROOT/repo/requirements.txt",
                        declared: true,
                        lines: [
                            ../lib/base.txt:1: pandas,
                            ../lib/limits/all.txt:1: -i https://host/simple,
                            ../lib/limits/all.txt:2: -c numpy<2,
                            ../lib/limits/more.txt:1: -c six<2,
                            ../requirements.txt:3: numpy,
                        ],
                    },
                ),
                described: Described {
                    by: Some(
                        "requirements.txt",
                    ),
                    passed_over: [],
                    commands: [],
                    lacks: [],
                },
            }"#]],
    );
}

#[test]
fn of_two_requirements_files_with_one_name_the_view_and_the_environment_have_the_same() {
    let tree = Tree::new(&[
        (
            "flow.dag.yaml",
            "additional_includes: [../one/requirements.txt, ../two/requirements.txt]\n",
        ),
        ("requirements.txt", "own"),
        ("../one/requirements.txt", "one"),
        ("../two/requirements.txt", "two"),
    ]);
    let found = flow::environment(&tree.folder(), &tree.at("/repo"))
        .unwrap()
        .requirements
        .unwrap();
    let view = flow::view::list(&tree.folder(), &tree.at("/repo")).unwrap();
    assert_eq!(found.text(), "two\n");
    assert!(
        view.files
            .iter()
            .any(|file| file.target.ends_with("requirements.txt") && file.source == found.file)
    );
}

#[test]
fn a_requirements_file_is_read_as_pip_reads_it() {
    let lines = |text: &str| {
        let tree = Tree::new(&[DAG, ("requirements.txt", text)]);
        let found = flow::environment(&tree.folder(), &tree.at("/repo"))
            .unwrap()
            .requirements
            .unwrap();
        found
            .lines
            .iter()
            .map(|line| format!("{} {}\n", line.number, line.text))
            .collect::<String>()
    };
    expect![[r#"
        3 numpy >= 1
        4 six;   python_version > '3'
        6 pandas
        8 attrs
        10 mine @ git+https://host/mine@v1#egg=mine
        11 https://host/mine-1.0.whl#sha256=00
        12 tqdm==4.0     --hash=sha256:00     --hash=sha256:11
        15 -i https://{private}@host/simple
        16 --extra-index-url https://user:word@host/simple
        17 --pre
        18 promptflow
        19 promptflow-tools>=1.4
        20 promptflow-recorder==1.0
        21 requests[socks,security]<3
        22 PyYAML!=5.4.*
        23 last
    "#]].assert_eq(&lines(
        "\u{feff}# a byte order mark\r\n\r\nnumpy >= 1 # behind a space\r\nsix; \\\r\n  python_version > '3'\r\npandas \\\n# a comment ends it\nattrs\n\n\
         mine @ git+https://host/mine@v1#egg=mine\nhttps://host/mine-1.0.whl#sha256=00\ntqdm==4.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n\
         -i https://{private}@host/simple\n--extra-index-url=https://user:word@host/simple # ours\n--pre\npromptflow\npromptflow-tools>=1.4\n\
         promptflow-recorder==1.0\nrequests[socks,security]<3\nPyYAML!=5.4.*\nlast\\",
    ));
    // Options as a command line has them.
    expect![[r#"
        1 -i https://host/simple
        2 --index-url https://host/a
        2 --extra-index-url https://host/b
        2 --pre
        3 -f https://host/links
        4 --no-binary :all:
        5 --only-binary numpy,pandas
        6 --trusted-host host:8080
        7 --require-hashes
        8 --prefer-binary
    "#]].assert_eq(&lines(
        "-ihttps://host/simple\n--index-url='https://host/a' --extra-index-url https://host/b --pre # three\n-f=https://host/links\n--no-binary :all:\n\
         --only-binary=numpy,pandas\n--trusted-host host:8080\n--require-hashes\n--prefer-binary\n",
    ));
    let wide: Vec<u8> = "\u{feff}numpy\r\nsix\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let tree = Tree::new(&[DAG]);
    fs::write(tree.at("requirements.txt"), wide).unwrap();
    let found = flow::environment(&tree.folder(), &tree.at("/repo"))
        .unwrap()
        .requirements
        .unwrap();
    assert_eq!(found.text(), "numpy\nsix\n");
}

#[test]
fn packages_are_saved_in_place_of_what_names_them_and_the_rest_stays_as_it_is() {
    let saved = |files: &[(&str, &str)], packages: &[&str]| {
        let tree = Tree::new(files);
        let packages: Vec<String> = packages.iter().map(|package| (*package).to_owned()).collect();
        match flow::save(&tree.folder(), &tree.at("/repo"), &packages) {
            Ok(saved) => format!(
                "{} {:?}",
                tree.without_root(&saved.file.display().to_string()),
                saved.after
            ),
            Err(failure) => tree.without_root(&failure.to_string()),
        }
    };
    let old = "# ours\r\n-i https://{private}@host/simple\r\nNumPy==1 \\\r\n  --hash=sha256:00  # for now\r\nsix";
    /// The files that there are, and the packages.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: &[Case] = &[
        (&[DAG], &["numpy"]),
        (
            &[DAG, ("requirements.txt", old)],
            &["numpy>=2", "humanize", "six[a] ; python_version > '3'"],
        ),
        (&[DAG, ("requirements.txt", "")], &["a @ https://host/a.whl"]),
        (
            &[
                ("flow.dag.yaml", "environment: {python_requirements_txt: deep/r.txt}\n"),
                ("deep/r.txt", "six\n"),
            ],
            &["six==1"],
        ),
        (
            &[
                ("flow.dag.yaml", "additional_includes: [../requirements.txt]\n"),
                ("../requirements.txt", "six\n"),
            ],
            &["six==1"],
        ),
        (
            &[
                DAG,
                ("requirements.txt", "a==1; os_name == 'nt'\na==2; os_name != 'nt'\n"),
            ],
            &["a"],
        ),
        (&[DAG], &["promptflow==1.10"]),
        (&[DAG], &["-e ."]),
        (&[DAG], &["--pre"]),
        (&[DAG], &["./mine.whl"]),
        (&[DAG], &["num py"]),
        (&[DAG], &["six\nseven"]),
    ];
    let told: String = cases
        .iter()
        .map(|(files, packages)| saved(files, packages) + "\n")
        .collect();
    expect![[r##"
        ROOT/repo/flow/requirements.txt "numpy\n"
        ROOT/repo/flow/requirements.txt "# ours\r\n-i https://{private}@host/simple\r\nnumpy>=2  # for now\r\nsix[a] ; python_version > '3'\r\nhumanize\r\n"
        ROOT/repo/flow/requirements.txt "a @ https://host/a.whl\n"
        ROOT/repo/flow/deep/r.txt "six==1\n"
        Flow.SharedRequirements: The requirements are in ../requirements.txt, which other flows may share. Add the packages there, and install without naming them.
        Flow.BadRequirement: requirements.txt names a in several lines. Change the one that is meant yourself.
        Flow.PinnedPromptflow: the command:1: promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
        Flow.LocalPackage: the command:1: -e .: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
        Flow.BadRequirement: --pre is not the name of a package. Write it as name, or name==version.
        Flow.LocalPackage: the command:1: ./mine.whl: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
        Flow.BadRequirement: the command:1: num py is not a requirement: Expected one of `@`, `(`, `<`, `=`, `>`, `~`, `!`, `;`, found `p`. Write it as name, or name==version.
        Flow.BadRequirement: Each package is one line of the requirements. Write it as name, or name==version.
    "##]].assert_eq(&told);
}

#[test]
fn a_requirement_that_is_logged_shows_no_credential() {
    let tree = Tree::new(&[DAG, ("requirements.txt", "-i https://user:hunter2@host/simple\n")]);
    let found = flow::environment(&tree.folder(), &tree.at("/repo")).unwrap();
    assert!(!format!("{found:?}").contains("hunter2"));
    assert!(found.requirements.unwrap().text().contains("hunter2"));
}

#[test]
fn a_view_has_the_includes_at_its_root_under_their_own_names() {
    check_view(
        &[
            (
                "flow.dag.yaml",
                "additional_includes:\n- ../shared/helpers.py\n- ../shared/lib\n- ../shared/link.py\n",
            ),
            ("main.py", "own"),
            ("empty/", ""),
            ("../shared/helpers.py", "helpers"),
            ("../shared/lib/a.py", "a"),
            ("../shared/lib/deep/b.py", "b"),
            ("../shared/link.py", "-> target.py"),
            ("../shared/target.py", "target"),
        ],
        expect![[r#"
            empty/
            flow.dag.yaml: additional_includes:
            - ../shared/helpers.py
            - ../shared/lib
            - ../shared/link.py
            helpers.py: helpers
            lib/
            lib/a.py: a
            lib/deep/
            lib/deep/b.py: b
            main.py: own
            target.py: target
        "#]],
    );
}

#[test]
fn a_zip_that_is_not_there_is_the_folder_of_its_name_zipped_and_always_the_same_bytes() {
    let tree = Tree::new(&[
        (
            "flow.dag.yaml",
            "additional_includes:\n- ../shared.zip\n- ../there.zip\n- ../C#/lib.zip\n",
        ),
        ("shared.zip", "the flow's own"),
        ("../shared/a.py", "a"),
        ("../shared/deep/b.py", "b"),
        ("../shared/empty/", ""),
        ("../shared/__pycache__/a.pyc", "no"),
        ("../there.zip", "one that is there"),
        ("../there/not.py", ""),
        ("../C#/lib/sharp.py", "c"),
    ]);
    let view = flow::view::list(&tree.folder(), &tree.at("/repo")).unwrap();
    assert_eq!(
        view.warnings,
        ["../shared as a zip file takes the place of shared.zip as shared.zip."]
    );
    for to in ["/one", "/two"] {
        flow::view::copy_into(&view, &tree.at(to)).unwrap();
    }
    let bytes = |path: &str| fs::read(tree.at(path)).unwrap();
    assert_eq!(bytes("/one/shared.zip"), bytes("/two/shared.zip"));
    assert_eq!(bytes("/one/there.zip"), b"one that is there");
    // As whoever runs a flow opens it.
    let listed = |zip: &str| {
        let code = "import sys, zipfile\nwith zipfile.ZipFile(sys.argv[1]) as z:\n    print(z.testzip(), [(n, z.read(n).decode()) for n in z.namelist()])";
        let listed = std::process::Command::new("python3")
            .args(["-c", code])
            .arg(tree.at(zip))
            .output()
            .unwrap();
        String::from_utf8(listed.stdout).unwrap()
    };
    expect![[r#"
        None [('shared/', ''), ('shared/deep/', ''), ('shared/empty/', ''), ('shared/a.py', 'a'), ('shared/deep/b.py', 'b')]
        None [('lib/', ''), ('lib/sharp.py', 'c')]
    "#]]
    .assert_eq(&(listed("/one/shared.zip") + &listed("/one/lib.zip")));
    // What is in a zip file counts as well.
    let files: Vec<(String, &str)> = (0..flow::view::MOST_FILES)
        .map(|i| (format!("../many/{i}"), ""))
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let tree = Tree::new(&[&files[..], &[("flow.dag.yaml", "additional_includes: [../many.zip]\n")]].concat());
    assert_eq!(
        flow::view::list(&tree.folder(), &tree.at("/repo")).unwrap_err().error,
        Code::FlowTooLarge
    );
}

#[test]
fn folders_merge_and_the_last_file_wins_with_a_warning() {
    check_view(
        &[
            (
                "flow.dag.yaml",
                "additional_includes: [../one/lib, ../two/lib, ./lib/same.py, ../three/lib/]\n",
            ),
            ("lib/own.py", "own"),
            ("lib/a.py", "own"),
            ("lib/same.py", "same"),
            ("../one/lib/a.py", "one"),
            ("../one/lib/b.py", "one"),
            ("../two/lib/b.py", "two"),
            ("../three/lib/c.py", "three"),
        ],
        expect![[r#"
            flow.dag.yaml: additional_includes: [../one/lib, ../two/lib, ./lib/same.py, ../three/lib/]
            lib/
            lib/a.py: one
            lib/b.py: two
            lib/c.py: three
            lib/own.py: own
            lib/same.py: same
            same.py: same
            ! ../one/lib/a.py takes the place of lib/a.py as lib/a.py.
            ! ../two/lib/b.py takes the place of ../one/lib/b.py as lib/b.py.
        "#]],
    );
}

#[test]
fn links_are_followed_inside_the_root_and_what_no_run_needs_is_left_out() {
    check_view(
        &[
            DAG,
            ("lib/.git/config", "no"),
            (".venv/bin/python", "no"),
            (".promptflow/flow.tools.json", "no"),
            ("lib/__pycache__/a.pyc", "no"),
            (".env", "yes"),
            ("lib/a.py", "-> ../../shared/a.py"),
            ("../shared/a.py", "a"),
            ("all", "-> ../shared"),
            ("gone", "-> nowhere"),
        ],
        expect![[r#"
            .env: yes
            all/
            all/a.py: a
            flow.dag.yaml: nodes: []
            lib/
            lib/a.py: a
            ! gone is a link to nothing, and is left out.
        "#]],
    );
}

#[test]
fn a_copy_keeps_the_executable_bit_and_is_the_users_no_more() {
    let tree = Tree::new(&[DAG, ("run.sh", "#!/bin/sh\n")]);
    fs::set_permissions(tree.at("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let view = flow::view::list(&tree.folder(), &tree.at("/repo")).unwrap();
    flow::view::copy_into(&view, &tree.at("/view")).unwrap();
    assert_eq!(
        fs::metadata(tree.at("/view/run.sh")).unwrap().permissions().mode() & 0o777,
        0o755
    );
    fs::write(tree.at("/view/run.sh"), "changed").unwrap();
    assert_eq!(fs::read_to_string(tree.at("run.sh")).unwrap(), "#!/bin/sh\n");
}

#[test]
fn a_url_loses_its_credentials_and_nothing_else() {
    let same = [
        "",
        "numpy==1.0",
        "https://host/simple",
        "https://host:8080/a@b",
        "git+https://host/mine@v1#egg=mine",
        "https://{private}@host/simple",
    ];
    for text in same {
        assert_eq!(flow::redact(text), text);
    }
    let cases = [
        ("-i https://user:word@host/simple", "-i https://***@host/simple"),
        (
            "see \"https://word@host\" and http://u:p@h/x.",
            "see \"https://***@host\" and http://***@h/x.",
        ),
        ("https://user:wo/rd@host/simple", "https://***@host/simple"),
        ("https://user:wo@rd@host/simple", "https://***@host/simple"),
        ("https://user:w@o/r@host/simple", "https://***@host/simple"),
        ("https://host/a?sig=word#egg=mine", "https://host/a?***#egg=mine"),
        ("ssh://git:word@host", "ssh://***@host"),
    ];
    for (text, redacted) in cases {
        assert_eq!(flow::redact(text), redacted);
    }
}

#[test]
fn the_file_that_gave_the_packages_is_known_and_the_others_are_passed_over_by_name() {
    let project = "[project]\nname = \"a\"\ndependencies = [\"humanize\"]\n";
    let lock = "lock-version = \"1.0\"\n[[packages]]\nname = \"humanize\"\nversion = \"4.9.0\"\n";
    let said = |files: &[(&str, &str)]| {
        let tree = Tree::new(files);
        let environment = flow::environment(&tree.folder(), &flow::include_root(&tree.folder())).unwrap();
        environment.described.to_line().unwrap_or_default()
    };
    let flow = ("flow.dag.yaml", "nodes: []\n");
    for (files, line) in [
        (vec![flow], ""),
        (
            vec![flow, ("requirements.txt", "-r more.txt\n"), ("more.txt", "a\n")],
            "",
        ),
        (
            vec![flow, ("pyproject.toml", project), ("uv.lock", "")],
            "no packages are described in requirements.txt; passed over: pyproject.toml, uv.lock",
        ),
        (vec![flow, ("pyproject.toml", "[tool.ruff]\nline-length = 100\n")], ""),
        (
            vec![
                flow,
                ("requirements.txt", "a\n"),
                ("requirements/dev.txt", "b\n"),
                ("environment.yml", ""),
            ],
            "packages are those of requirements.txt; passed over: environment.yml, requirements/dev.txt",
        ),
        (
            vec![
                flow,
                ("requirements.txt", "-r requirements/dev.txt\n"),
                ("requirements/dev.txt", "b\n"),
            ],
            "",
        ),
        (
            vec![
                ("pyproject.toml", project),
                ("pylock.toml", lock),
                ("setup.py", ""),
                ("a.py", ""),
            ],
            "packages are those of pyproject.toml; passed over: setup.py",
        ),
        (
            vec![("a.py", "# /// script\n# dependencies = ['humanize']\n# ///\n")],
            "packages are those of a.py",
        ),
    ] {
        assert_eq!(said(&files), line, "{files:?}");
    }
}

#[test]
fn a_project_file_that_does_not_count_fails_no_flow_and_a_long_list_is_cut_with_its_number() {
    let many: Vec<String> = (0..25).map(|n| format!("requirements/{n:02}.txt")).collect();
    let mut files = vec![("flow.dag.yaml", "nodes: []\n"), ("requirements.txt", "a\n")];
    files.extend(many.iter().map(|name| (name.as_str(), "b\n")));
    let tree = Tree::new(&files);
    // It leads out of everything.
    std::os::unix::fs::symlink("/proc/version", tree.folder().join("pyproject.toml")).unwrap();
    let environment = flow::environment(&tree.folder(), &flow::include_root(&tree.folder())).unwrap();
    let line = environment.described.to_line().unwrap();
    assert!(
        line.starts_with("packages are those of requirements.txt; passed over: pyproject.toml, requirements/00.txt, "),
        "{line}"
    );
    assert!(line.ends_with("requirements/18.txt and 6 more"), "{line}");
}
