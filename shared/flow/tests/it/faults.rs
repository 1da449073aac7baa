//! The error texts for flow folders with a fault.

use crate::tree::Tree;
use expect_test::{Expect, expect};
use std::fmt::Write;

const DAG: &str = "nodes: []\n";

fn check(faults: &[(&str, &[(&str, &str)])], expected: Expect) {
    let mut texts = String::new();
    for (fault, files) in faults {
        let tree = Tree::new(files);
        let failure = tree.failure();
        assert!(failure.message.ends_with('.'), "{fault}: {failure}");
        writeln!(
            texts,
            "{fault}\n  {}\n  {}",
            failure.error,
            tree.without_root(&failure.message)
        )
        .unwrap();
    }
    expected.assert_eq(&texts);
}

/// Each is a `requirements.txt` of its own, and the line that is wrong is its second.
fn check_lines(lines: &[&str], expected: Expect) {
    let mut texts = String::new();
    for line in lines {
        let text = format!("# ours\n{line}\n");
        let failure = Tree::new(&[("flow.dag.yaml", DAG), ("requirements.txt", &text)]).failure();
        assert!(failure.message.starts_with("requirements.txt:2: "), "{line}: {failure}");
        writeln!(
            texts,
            "{} {}",
            failure.error,
            &failure.message["requirements.txt:2: ".len()..]
        )
        .unwrap();
    }
    expected.assert_eq(&texts);
}

#[test]
fn a_fault_of_the_flow_file_names_the_file_and_the_line() {
    check(
        &[
            ("nothing in it", &[("notes.md", "")]),
            ("two flows", &[("flow.dag.yaml", DAG), ("flow.flex.yaml", "entry: a:b")]),
            (
                "YAML that is none",
                &[("flow.dag.yaml", "nodes:\n- name: a\n  type: [python\n")],
            ),
            ("a tab", &[("flow.dag.yaml", "nodes:\n\t- name: a\n")]),
            ("a key twice", &[("flow.dag.yaml", "nodes: []\nnodes: []\n")]),
            ("an empty file", &[("flow.dag.yaml", "")]),
            ("a list", &[("flow.dag.yaml", "- a\n")]),
            ("a folder in its place", &[("flow.dag.yaml/", "")]),
            (
                "a flow file that is a link to nothing",
                &[("flow.dag.yaml", "-> ../nowhere.yaml")],
            ),
            (
                "a flex flow without an entry",
                &[("flow.flex.yaml", "environment: {}\n")],
            ),
            (
                "an entry that names no function",
                &[("flow.flex.yaml", "inputs: {}\nentry: hello\n")],
            ),
            (
                "an environment that is a list",
                &[("flow.dag.yaml", "nodes: []\nenvironment:\n- requirements.txt\n")],
            ),
            (
                "an environment that is a string",
                &[("flow.flex.yaml", "entry: a:b\nenvironment: requirements.txt\n")],
            ),
            (
                "an image that is a number",
                &[("flow.dag.yaml", "environment:\n  image: 3\n")],
            ),
            ("an empty image", &[("flow.dag.yaml", "environment:\n  image: ''\n")]),
            (
                "requirements as a list",
                &[("flow.dag.yaml", "environment:\n  python_requirements_txt:\n  - numpy\n")],
            ),
            (
                "a declared file that is missing",
                &[("flow.dag.yaml", "environment:\n  python_requirements_txt: deps.txt\n")],
            ),
            (
                "declared requirements out of the folder",
                &[
                    (
                        "flow.dag.yaml",
                        "environment:\n  python_requirements_txt: ../deps.txt\n",
                    ),
                    ("../deps.txt", "numpy"),
                ],
            ),
            (
                "absolute requirements",
                &[("flow.dag.yaml", "environment: {python_requirements_txt: /etc/passwd}\n")],
            ),
            (
                "a flow file that is a link out",
                &[("flow.dag.yaml", "-> ROOT/secret"), ("/secret", "password: 1")],
            ),
            (
                "requirements that are a link out",
                &[
                    ("flow.dag.yaml", DAG),
                    ("requirements.txt", "-> ../../secret"),
                    ("/secret", "hunter2"),
                ],
            ),
        ],
        expect![[r#"
            nothing in it
              Flow.NoFlow
              ROOT/repo/flow holds no flow.dag.yaml, no flow.flex.yaml, no Python, no requirements.txt and no pyproject.toml. Give the path of the folder that holds the flow or the code.
            two flows
              Flow.TwoFlows
              ROOT/repo/flow holds flow.dag.yaml and flow.flex.yaml. Keep the one that is meant, and move the other away.
            YAML that is none
              Flow.BadFlowFile
              flow.dag.yaml:3: the YAML is wrong: unclosed bracket '['. Correct it.
            a tab
              Flow.BadFlowFile
              flow.dag.yaml:2: the YAML is wrong: tabs disallowed within this context (block indentation). Correct it.
            a key twice
              Flow.BadFlowFile
              flow.dag.yaml:2: the YAML is wrong: duplicate mapping key `nodes` is not allowed here. Correct it.
            an empty file
              Flow.BadFlowFile
              flow.dag.yaml is empty. It should be a mapping, such as `nodes: …` or `entry: module:name`.
            a list
              Flow.BadFlowFile
              flow.dag.yaml is a list. It should be a mapping, such as `nodes: …` or `entry: module:name`.
            a folder in its place
              Flow.Unreadable
              flow.dag.yaml is not a file. Put a text file there.
            a flow file that is a link to nothing
              Flow.Unreadable
              flow.dag.yaml cannot be read: it is not there. See that it is there and may be read.
            a flex flow without an entry
              Flow.BadFlowFile
              flow.flex.yaml: a flex flow needs its entry, a function or a class. Write `entry: module:name`, where module.py is in the flow folder.
            an entry that names no function
              Flow.BadFlowFile
              flow.flex.yaml:2: a flex flow needs its entry, a function or a class. Write `entry: module:name`, where module.py is in the flow folder.
            an environment that is a list
              Flow.BadEnvironment
              flow.dag.yaml:2: environment is a list. It should be a mapping with `python_requirements_txt: requirements.txt`, `image: …` or both.
            an environment that is a string
              Flow.BadEnvironment
              flow.flex.yaml:2: environment is a string. It should be a mapping with `python_requirements_txt: requirements.txt`, `image: …` or both.
            an image that is a number
              Flow.BadEnvironment
              flow.dag.yaml:2: image is a number. It should be the name of a base image, as text.
            an empty image
              Flow.BadEnvironment
              flow.dag.yaml:2: image is empty. It should be the name of a base image, as text.
            requirements as a list
              Flow.BadEnvironment
              flow.dag.yaml:2: python_requirements_txt is a list. It should be the path of a requirements file, relative to the flow folder.
            a declared file that is missing
              Flow.MissingRequirements
              flow.dag.yaml:2: there is no file deps.txt in the flow folder or its additional_includes. Create it, or correct python_requirements_txt.
            declared requirements out of the folder
              Flow.PathLeadsOut
              flow.dag.yaml:2: python_requirements_txt ../deps.txt leads out of the flow folder. Add it to additional_includes, and name it here as it is then called in the flow folder.
            absolute requirements
              Flow.PathLeadsOut
              flow.dag.yaml:1: python_requirements_txt /etc/passwd leads out of the flow folder. Add it to additional_includes, and name it here as it is then called in the flow folder.
            a flow file that is a link out
              Flow.PathLeadsOut
              flow.dag.yaml leads out of what this flow may see, which is ROOT/repo. Move what it needs in there, or choose a wider include root.
            requirements that are a link out
              Flow.PathLeadsOut
              requirements.txt leads out of what this flow may see, which is ROOT/repo. Move what it needs in there, or choose a wider include root.
        "#]],
    );
}

#[test]
fn a_fault_of_an_include_names_the_include_and_the_line() {
    let flow = |includes: &str| format!("nodes: []\nadditional_includes:{includes}\n");
    check(
        &[
            (
                "a string in place of the list",
                &[("flow.dag.yaml", &flow(" ../shared"))],
            ),
            ("a mapping in place of the list", &[("flow.dag.yaml", &flow(" {a: b}"))]),
            ("a list with a number", &[("flow.dag.yaml", &flow("\n- 3"))]),
            ("a list with nothing", &[("flow.dag.yaml", &flow("\n-"))]),
            (
                "missing",
                &[("flow.dag.yaml", &flow("\n- ../a.py\n- ../b.py")), ("../a.py", "")],
            ),
            (
                "dangling",
                &[("flow.dag.yaml", &flow("\n- ../b.py")), ("../b.py", "-> nowhere")],
            ),
            ("absolute", &[("flow.dag.yaml", &flow("\n- /etc/passwd"))]),
            (
                "absolute, on Windows",
                &[("flow.dag.yaml", &flow("\n- C:\\shared\\a.py"))],
            ),
            (
                "out of the repository",
                &[("flow.dag.yaml", &flow("\n- ../../secret")), ("/secret", "")],
            ),
            (
                "out of the repository, and not there",
                &[("flow.dag.yaml", &flow("\n- ../../nothing"))],
            ),
            (
                "a link out of the repository",
                &[
                    ("flow.dag.yaml", &flow("\n- ../shared")),
                    ("../shared", "-> ROOT/other"),
                    ("/other/a", ""),
                ],
            ),
            (
                "a folder with a link out",
                &[
                    ("flow.dag.yaml", &flow("\n- ../shared")),
                    ("../shared/a", "-> /etc/passwd"),
                ],
            ),
            (
                "a link out in the flow folder",
                &[("flow.dag.yaml", DAG), ("lib/a", "-> ../../../secret"), ("/secret", "")],
            ),
            (
                "a link to the folder that it is in",
                &[("flow.dag.yaml", DAG), ("lib/again", "-> ../")],
            ),
            (
                "a folder to be zipped that is not there either",
                &[("flow.dag.yaml", &flow("\n- ../shared.zip")), ("../shared", "a file")],
            ),
            (
                "a folder to be zipped that is out of the root",
                &[
                    ("flow.dag.yaml", &flow("\n- ../out.zip")),
                    ("../out", "-> ROOT/other"),
                    ("/other/a.py", ""),
                ],
            ),
            (
                "a link to nothing by the name of a folder to be zipped",
                &[
                    ("flow.dag.yaml", &flow("\n- ../shared.zip")),
                    ("../shared/a.py", ""),
                    ("../shared.zip", "-> nowhere"),
                ],
            ),
            (
                "a zip file where a folder is",
                &[
                    ("flow.dag.yaml", &flow("\n- ../shared.zip")),
                    ("../shared/a.py", ""),
                    ("shared.zip/a.py", ""),
                ],
            ),
            (
                "a file where a folder is",
                &[("flow.dag.yaml", &flow("\n- ../lib")), ("lib/a.py", ""), ("../lib", "")],
            ),
            (
                "a folder where a file is",
                &[("flow.dag.yaml", &flow("\n- ../lib")), ("lib", ""), ("../lib/a.py", "")],
            ),
        ],
        expect![[r#"
            a string in place of the list
              Flow.BadIncludes
              flow.dag.yaml:2: additional_includes is a string. It should be a list of paths relative to the flow folder, such as `- ../shared/helpers.py`.
            a mapping in place of the list
              Flow.BadIncludes
              flow.dag.yaml:2: additional_includes is a mapping. It should be a list of paths relative to the flow folder, such as `- ../shared/helpers.py`.
            a list with a number
              Flow.BadIncludes
              flow.dag.yaml:2: additional_includes is a list with a number in it. It should be a list of paths relative to the flow folder, such as `- ../shared/helpers.py`.
            a list with nothing
              Flow.BadIncludes
              flow.dag.yaml:2: additional_includes is a list with an empty item in it. It should be a list of paths relative to the flow folder, such as `- ../shared/helpers.py`.
            missing
              Flow.MissingInclude
              flow.dag.yaml:4: the include ../b.py is not there. Correct the path, which is relative to the flow folder, or take it out.
            dangling
              Flow.MissingInclude
              flow.dag.yaml:3: the include ../b.py is a link to nothing. Correct the path, which is relative to the flow folder, or take it out.
            absolute
              Flow.AbsoluteInclude
              flow.dag.yaml:3: the include /etc/passwd is an absolute path. Write it relative to the flow folder, such as ../shared.
            absolute, on Windows
              Flow.AbsoluteInclude
              flow.dag.yaml:3: the include C:\shared\a.py is an absolute path. Write it relative to the flow folder, such as ../shared.
            out of the repository
              Flow.PathLeadsOut
              flow.dag.yaml:3: the include ../../secret: ROOT/secret leads out of what this flow may see, which is ROOT/repo. Move what it needs in there, or choose a wider include root.
            out of the repository, and not there
              Flow.PathLeadsOut
              flow.dag.yaml:3: the include ../../nothing: ROOT/nothing leads out of what this flow may see, which is ROOT/repo. Move what it needs in there, or choose a wider include root.
            a link out of the repository
              Flow.PathLeadsOut
              flow.dag.yaml:3: the include ../shared: ../shared leads out of what this flow may see, which is ROOT/repo. Move what it needs in there, or choose a wider include root.
            a folder with a link out
              Flow.PathLeadsOut
              flow.dag.yaml:3: the include ../shared: ../shared/a leads out of what this flow may see, which is ROOT/repo. Move what it needs in there, or choose a wider include root.
            a link out in the flow folder
              Flow.PathLeadsOut
              lib/a leads out of what this flow may see, which is ROOT/repo. Move what it needs in there, or choose a wider include root.
            a link to the folder that it is in
              Flow.LinkLoop
              lib/again is a link to a folder that it is in. Take the link out.
            a folder to be zipped that is not there either
              Flow.MissingInclude
              flow.dag.yaml:3: the include ../shared.zip is not there. Correct the path, which is relative to the flow folder, or take it out.
            a folder to be zipped that is out of the root
              Flow.PathLeadsOut
              flow.dag.yaml:3: the include ../out.zip: ../out leads out of what this flow may see, which is ROOT/repo. Move what it needs in there, or choose a wider include root.
            a link to nothing by the name of a folder to be zipped
              Flow.MissingInclude
              flow.dag.yaml:3: the include ../shared.zip is a link to nothing. Correct the path, which is relative to the flow folder, or take it out.
            a zip file where a folder is
              Flow.IncludeCollision
              flow.dag.yaml:3: the include ../shared.zip: shared.zip would be both a file and a folder. Rename one of the two.
            a file where a folder is
              Flow.IncludeCollision
              flow.dag.yaml:3: the include ../lib: lib would be both a file and a folder. Rename one of the two.
            a folder where a file is
              Flow.IncludeCollision
              flow.dag.yaml:3: the include ../lib: lib would be both a file and a folder. Rename one of the two.
        "#]],
    );
}

#[test]
fn a_fault_of_what_a_requirements_file_names_says_which_line_names_it() {
    let dag: (&str, &str) = ("flow.dag.yaml", DAG);
    check(
        &[
            ("a missing file", &[dag, ("requirements.txt", "numpy\n\n-r more.txt\n")]),
            (
                "a file out of the folder",
                &[
                    dag,
                    ("requirements.txt", "-c ../limits.txt\n"),
                    ("../limits.txt", "numpy<2"),
                ],
            ),
            (
                "a file by an absolute path",
                &[dag, ("requirements.txt", "-r /etc/passwd\n")],
            ),
            (
                "a file over the network",
                &[dag, ("requirements.txt", "-r https://user:word@host/r.txt\n")],
            ),
            (
                "a file that is a link out",
                &[
                    dag,
                    ("requirements.txt", "-rmore.txt"),
                    ("more.txt", "-> ../../secret"),
                    ("/secret", ""),
                ],
            ),
            (
                "a file that names itself",
                &[
                    dag,
                    ("requirements.txt", "-r a.txt"),
                    ("a.txt", "numpy\n-r requirements.txt\n"),
                ],
            ),
            (
                "a bad line in a file that is named",
                &[
                    dag,
                    ("requirements.txt", "-r lib/a.txt"),
                    ("lib/a.txt", "-r b.txt"),
                    ("lib/b.txt", "\n!"),
                ],
            ),
            (
                "a bad line in a file that is included",
                &[
                    ("flow.dag.yaml", "additional_includes:\n- ../shared/requirements.txt\n"),
                    ("../shared/requirements.txt", "\n\nnumpy=1\n"),
                ],
            ),
        ],
        expect![[r#"
            a missing file
              Flow.MissingRequirements
              requirements.txt:3: there is no file more.txt in the flow folder or its additional_includes. Create it, or take the line out.
            a file out of the folder
              Flow.PathLeadsOut
              requirements.txt:1: ../limits.txt leads out of the flow folder. Add the file to additional_includes, and name it as it is then called in the flow folder.
            a file by an absolute path
              Flow.PathLeadsOut
              requirements.txt:1: /etc/passwd leads out of the flow folder. Add the file to additional_includes, and name it as it is then called in the flow folder.
            a file over the network
              Flow.PathLeadsOut
              requirements.txt:1: https://***@host/r.txt leads out of the flow folder. Add the file to additional_includes, and name it as it is then called in the flow folder.
            a file that is a link out
              Flow.PathLeadsOut
              requirements.txt:1: more.txt leads out of what this flow may see, which is ROOT/repo. Move what it needs in there, or choose a wider include root.
            a file that names itself
              Flow.BadRequirement
              a.txt:2: requirements.txt names the file that names it. Take one of the two lines out.
            a bad line in a file that is named
              Flow.BadRequirement
              lib/b.txt:2: ! is not a requirement: Expected package name starting with an alphanumeric character, found `!`. Write it as name, or name==version.
            a bad line in a file that is included
              Flow.BadRequirement
              ../shared/requirements.txt:3: numpy=1 is not a requirement: no such comparison operator "=", must be one of ~= == != <= >= < > ===. Write it as name, or name==version.
        "#]],
    );
}

#[test]
fn a_line_that_cannot_be_installed_is_refused_with_its_number_and_what_to_do() {
    check_lines(
        &[
            "numpy=1.0",
            "numpy==",
            "numpy pandas",
            "==1.0",
            "numpy>=1.0; python_version",
            "!pip install numpy",
            "import numpy",
            "<<<<<<< HEAD",
            "--upgrade",
            "-i",
            "-i https://host/simple https://other/simple",
            "--pre numpy",
            "--no-binary",
            "--config-settings build=1",
            "--global-option=--quiet",
            "--hash=sha256:00",
            "-q",
            "numpy=1 \\\n  --hash=sha256:00",
            &"long ".repeat(1000),
        ],
        expect![[r#"
            Flow.BadRequirement numpy=1.0 is not a requirement: no such comparison operator "=", must be one of ~= == != <= >= < > ===. Write it as name, or name==version.
            Flow.BadRequirement numpy== is not a requirement: Unexpected end of version specifier, expected version. Write it as name, or name==version.
            Flow.BadRequirement numpy pandas is not a requirement: Expected one of `@`, `(`, `<`, `=`, `>`, `~`, `!`, `;`, found `p`. Write it as name, or name==version.
            Flow.BadRequirement ==1.0 is not a requirement: Expected package name starting with an alphanumeric character, found `=`. Write it as name, or name==version.
            Flow.BadRequirement numpy>=1.0; python_version is not a requirement: its marker should have an operator such as `>=` or `not in`, and has its end. Write it as name, or name==version.
            Flow.BadRequirement !pip install numpy is not a requirement: Expected package name starting with an alphanumeric character, found `!`. Write it as name, or name==version.
            Flow.BadRequirement import numpy is not a requirement: Expected one of `@`, `(`, `<`, `=`, `>`, `~`, `!`, `;`, found `n`. Write it as name, or name==version.
            Flow.BadRequirement <<<<<<< HEAD is not a requirement: Expected package name starting with an alphanumeric character, found `<`. Write it as name, or name==version.
            Flow.BadRequirement a requirements file has no option --upgrade. Correct it, or take the line out.
            Flow.BadRequirement -i needs a URL. Write it behind, or take the line out.
            Flow.BadRequirement -i takes one URL, and there is more: https://host/simple https://other/simple. Write each into a line of its own.
            Flow.BadRequirement --pre takes no value, and numpy stands behind it. Take it out, or write it into a line of its own.
            Flow.BadRequirement --no-binary needs a value. Write it behind, or take the line out.
            Flow.BadRequirement a requirements file has no option --config-settings. Correct it, or take the line out.
            Flow.BadRequirement a requirements file has no option --global-option. Correct it, or take the line out.
            Flow.BadRequirement a requirements file has no option --hash. Correct it, or take the line out.
            Flow.BadRequirement a requirements file has no option -q. Correct it, or take the line out.
            Flow.BadRequirement numpy=1   --hash=sha256:00 is not a requirement: no such comparison operator "=", must be one of ~= == != <= >= < > ===. Write it as name, or name==version.
            Flow.BadRequirement long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long  is not a requirement: it has 4999 bytes, and may have 4000. Write it as name, or name==version.
        "#]],
    );
}

#[test]
fn what_lies_on_the_machine_is_refused_with_the_remedy() {
    check_lines(
        &[
            "./wheels/mine-1.0-py3-none-any.whl",
            "mine-1.0-py3-none-any.whl",
            "mine.tar.gz[extra] ; python_version > '3'",
            "mine-1.0.tar.bz2",
            "wheels/mine",
            "~/mine",
            "../mine",
            ".",
            "/srv/mine",
            "mine @ file:///srv/mine.whl",
            "mine @ ./mine.whl",
            "file:///srv/mine.whl",
            "git+file:///srv/mine",
            "-e .",
            "-e git+https://host/mine.git#egg=mine",
            "--editable=./mine",
            "--find-links ./wheels",
            "--index-url=file:///srv/index",
        ],
        expect![[r#"
            Flow.LocalPackage ./wheels/mine-1.0-py3-none-any.whl: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage mine-1.0-py3-none-any.whl: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage mine.tar.gz[extra] ; python_version > '3': local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage mine-1.0.tar.bz2: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage wheels/mine: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage ~/mine: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage ../mine: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.BadProject the folder has no pyproject.toml, setup.cfg or setup.py that lists its packages. Write them in place of the line: the flow's own modules are found in its folder.
            Flow.LocalPackage /srv/mine: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage mine @ file:///srv/mine.whl: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage mine @ ./mine.whl: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage file:///srv/mine.whl: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage git+file:///srv/mine: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.BadProject the folder has no pyproject.toml, setup.cfg or setup.py that lists its packages. Write them in place of the line: the flow's own modules are found in its folder.
            Flow.LocalPackage -e git+https://host/mine.git#egg=mine: local wheels, local folders and editable installs are not supported. Write `git+https://host/mine.git#egg=mine` without -e.
            Flow.LocalPackage --editable ./mine: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage --find-links ./wheels: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
            Flow.LocalPackage --index-url file:///srv/index: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
        "#]],
    );
}

#[test]
fn a_pin_of_promptflow_is_refused_in_every_spelling() {
    check_lines(
        &[
            "promptflow==1.10.0",
            "PromptFlow === 1.10.0",
            "promptflow_tools~=1.4",
            "promptflow.tools==1.*",
            "promptflow[azure]==1.10.0",
            "promptflow[azure] (>=1, ==1.10.0) ; python_version > '3.8'",
            "promptflow @ https://host/promptflow-1.10.0-py3-none-any.whl",
            "promptflow@git+https://host/promptflow@v1",
            "https://host/promptflow-1.10.0-py3-none-any.whl#sha256=00",
            "https://host/promptflow_tools-1.4.0.tar.gz",
            "git+https://host/microsoft/promptflow.git@v1#egg=promptflow&subdirectory=src",
            "git+https://host/microsoft/promptflow@v1",
            "promptflow-core==1.10.0 --hash=sha256:00",
        ],
        expect![[r#"
            Flow.PinnedPromptflow promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow-tools is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow-tools is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow-tools is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
            Flow.PinnedPromptflow promptflow-core is in the base image already, and another version of it breaks it. Take the pin, or the line, out.
        "#]],
    );
}

#[test]
fn a_credential_is_in_no_text() {
    let lines = [
        "--extra-index https://user:hunter2@host/simple",
        "-i https://user:hunter2@host/${SECRET}/simple",
        "numpy = https://hunter2@host/simple",
        "numpy @ https://user:hunter2@host:x/a",
        "-r https://user:hunt/er2@host/r.txt?sig=hunter2",
        "-e git+https://hunter2@host/mine",
        "-e git+ssh://git:hunter2@host/mine",
        "--index-url file://user:hunter2@host/simple",
    ];
    for line in lines {
        let text = format!("{line}\n");
        let failure = Tree::new(&[("flow.dag.yaml", DAG), ("requirements.txt", &text)]).failure();
        assert!(
            !failure.to_string().contains("hunt") && !failure.to_string().contains("er2"),
            "{line}: {failure}"
        );
    }
    check_lines(
        &lines,
        expect![[r#"
            Flow.BadRequirement a requirements file has no option --extra-index. Correct it, or take the line out.
            Flow.VariableInRequirement ${SECRET} would be read from the environment variables of the installer. Write the value itself.
            Flow.BadRequirement numpy = https://***@host/simple is not a requirement: no such comparison operator "=", must be one of ~= == != <= >= < > ===. Write it as name, or name==version.
            Flow.BadRequirement numpy @ https://***@host:x/a is not a requirement: invalid port number. Write it as name, or name==version.
            Flow.PathLeadsOut https://***@host/r.txt?*** leads out of the flow folder. Add the file to additional_includes, and name it as it is then called in the flow folder.
            Flow.LocalPackage -e git+https://***@host/mine: local wheels, local folders and editable installs are not supported. Publish the package to an index, and name it by its name.
            Flow.LocalPackage -e git+ssh://***@host/mine: local wheels, local folders and editable installs are not supported. Write git+https://host/mine if anybody may read it, else publish it to an index.
            Flow.LocalPackage --index-url file://***@host/simple: local wheels, local folders and editable installs are not supported. Build the package in your image and set environment.image in the flow file, or publish it to an index.
        "#]],
    );
}

#[test]
fn a_folder_that_is_none_says_so() {
    let tree = Tree::new(&[("a.py", "")]);
    let text = |path: &str| tree.without_root(&flow::canonical(&tree.at(path)).unwrap_err().to_string());
    expect![
        "Flow.NoSuchFolder: There is no folder ROOT/repo/flow/nowhere. Give the path of the folder that holds the flow."
    ]
    .assert_eq(&text("nowhere"));
    expect!["Flow.NotAFolder: ROOT/repo/flow/a.py is not a folder. Give the path of the folder that holds the flow."]
        .assert_eq(&text("a.py"));
    let outside = flow::environment(&tree.folder(), &tree.at("/repo/.git")).unwrap_err();
    expect!["Flow.PathLeadsOut: The flow folder ROOT/repo/flow is not inside the include root ROOT/repo/.git. Choose an include root that holds the flow folder."].assert_eq(&tree.without_root(&outside.to_string()));
}

#[test]
fn a_folder_that_is_too_large_is_refused_before_it_is_copied() {
    let tree = Tree::new(&[("flow.dag.yaml", DAG)]);
    let large = std::fs::File::create(tree.at("data.bin")).unwrap();
    large.set_len(flow::view::MOST_BYTES + 1).unwrap();
    expect!["Flow.TooLarge: The flow folder ROOT/repo/flow has more than 200 MiB, with its includes. Move out what the flow does not need, such as data and caches."].assert_eq(&tree.without_root(&tree.failure().to_string()));
    std::fs::remove_file(tree.at("data.bin")).unwrap();
    for n in 0..flow::view::MOST_FILES {
        std::fs::File::create(tree.at(&format!("{n}.txt"))).unwrap();
    }
    expect!["Flow.TooLarge: The flow folder ROOT/repo/flow has more than 10000 files and folders, with its includes. Move out what the flow does not need, such as data and caches."].assert_eq(&tree.without_root(&tree.failure().to_string()));
    std::fs::write(tree.at("flow.dag.yaml"), "#".repeat(2 << 20)).unwrap();
    expect!["Flow.TooLarge: flow.dag.yaml has 2097152 bytes, and may have 1048576. Make it smaller."]
        .assert_eq(&tree.without_root(&tree.failure().to_string()));
}
