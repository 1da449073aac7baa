//! A runtime's environment becomes a flow's.

use crate::tree::Tree;
use flow::{Migration, migrate};

const FLOW: &str = "# Mine.\nnodes: []  # none yet\n";

/// The flow's files, and a definition with what lies beside it in `/env/`.
fn tree(flow: &[(&str, &str)], definition: &[(&str, &str)]) -> Tree {
    let mut files = vec![("flow.dag.yaml", FLOW)];
    files.extend_from_slice(flow);
    files.extend_from_slice(definition);
    Tree::new(&files)
}

/// The changes of a migration: the requirements, the flow file, and the notes; or the error.
fn migrated(tree: &Tree, definition: &str, image: Option<&str>) -> (String, String, String) {
    let path = (!definition.is_empty()).then(|| tree.at(definition));
    let result = migrate(&tree.folder(), &tree.at("/repo"), path.as_deref(), image);
    match result {
        Ok(Migration {
            requirements,
            flow_file,
            notes,
            ..
        }) => {
            let text = |saved: Option<flow::Saved>| saved.map_or_else(String::new, |saved| saved.after);
            (
                text(requirements),
                text(flow_file),
                tree.without_root(&notes.join("\n")),
            )
        }
        Err(failure) => (
            String::new(),
            String::new(),
            tree.without_root(&format!("{}: {}", failure.error, failure.message)),
        ),
    }
}

#[test]
fn an_azure_environment_with_a_conda_file_becomes_an_image_and_a_requirements_file() {
    let tree = tree(
        &[],
        &[
            (
                "/env/environment.yml",
                "$schema: https://azuremlschemas.azureedge.net/latest/environment.schema.json\nname: mine\nversion: 3\n\
                 image: mine.azurecr.io/base:7\nconda_file: conda.yml\ninference_config: {liveness_route: {port: 1}}\n",
            ),
            (
                "/env/conda.yml",
                "channels: [conda-forge]\ndependencies:\n- python=3.9\n- pip=21\n- pip:\n  - promptflow==1.5.0\n  - promptflow[azure]==1.5.0\n  - numpy==1.26.4\n  - --extra-index-url https://feed.invalid/simple\n",
            ),
        ],
    );
    let (requirements, flow_file, notes) = migrated(&tree, "/env/environment.yml", None);
    assert_eq!(
        requirements,
        "promptflow[azure]\nnumpy==1.26.4\n--extra-index-url https://feed.invalid/simple\n"
    );
    assert_eq!(
        flow_file,
        format!("{FLOW}environment:\n  image: mine.azurecr.io/base:7\n  python_requirements_txt: requirements.txt\n")
    );
    assert_eq!(
        notes,
        "conda.yml: python=3.9 is left out: a session has the Python of its base image. Name an image that has this one, if the flow needs it.\n\
         ROOT/env/environment.yml: `inference_config` has no counterpart here, and is left out.\n\
         conda.yml:6: promptflow==1.5.0 is left out: the base image has it.\n\
         conda.yml:7: promptflow[azure]==1.5.0 is promptflow[azure] now: the base image has its version."
    );
}

#[test]
fn a_migration_of_what_was_migrated_changes_nothing() {
    let tree = tree(
        &[
            (
                "flow.dag.yaml",
                "nodes: []\nenvironment:\n  python_requirements_txt: needs.txt\n  image: base:1\n",
            ),
            ("needs.txt", "numpy==1.26.4\n"),
        ],
        &[("/env/requirements.txt", "numpy==1.26.4\n")],
    );
    assert_eq!(
        migrated(&tree, "/env/requirements.txt", Some("base:1")),
        Default::default()
    );
}

#[test]
fn a_package_that_the_flow_requires_already_stays_as_it_is_there() {
    let tree = tree(
        &[("requirements.txt", "# Kept.\nnumpy>=2")],
        &[
            ("/env/requirements.txt", "-r more.txt\nNumPy==1.26.4\n"),
            ("/env/more.txt", "pandas  # for data\n"),
        ],
    );
    let (requirements, flow_file, notes) = migrated(&tree, "/env/requirements.txt", None);
    assert_eq!(requirements, "# Kept.\nnumpy>=2\npandas\n");
    assert_eq!(
        flow_file,
        format!("{FLOW}environment:\n  python_requirements_txt: requirements.txt\n")
    );
    assert_eq!(
        notes,
        "ROOT/env/requirements.txt:2: NumPy==1.26.4 is left out: requirements.txt has numpy>=2."
    );
}

#[test]
fn of_a_dockerfile_the_last_stage_counts_with_what_pip_installs_and_the_rest_is_said() {
    let dockerfile = "ARG BASE=mcr.microsoft.com/azureml/promptflow/promptflow-runtime:latest\n\
        FROM ${BASE} AS first\n\
        COPY requirements.txt /tmp/\n\
        RUN pip install --no-cache-dir -r /tmp/requirements.txt && \\\n    apt-get update\n\
        # A comment.\n\
        FROM first\n\
        RUN python3 -m pip install -i https://me:word@feed.invalid/simple 'pandas>=2' pip -U\n\
        ENV A=b\n\
        CMD [\"serve\"]\n";
    let tree = tree(
        &[],
        &[
            ("/env/build/Dockerfile", dockerfile),
            ("/env/build/requirements.txt", "numpy\n"),
            ("/env/environment.yaml", "name: mine\nbuild: {path: build}\n"),
        ],
    );
    let (requirements, flow_file, notes) = migrated(&tree, "/env/environment.yaml", None);
    assert_eq!(
        requirements,
        "numpy\n-i https://me:word@feed.invalid/simple\npandas>=2\n"
    );
    assert!(
        flow_file.contains("\n  image: mcr.microsoft.com/azureml/promptflow/promptflow-runtime:latest\n"),
        "{flow_file}"
    );
    assert_eq!(
        notes,
        "build/Dockerfile:4: `RUN apt-get update` is not taken over. If the flow needs it, build the image and name it: --image IMAGE.\n\
         build/Dockerfile:9: `ENV A=b` is not taken over. If the flow needs it, build the image and name it: --image IMAGE."
    );
}

#[test]
fn with_the_image_that_a_dockerfile_made_nothing_of_it_is_left_out() {
    let tree = tree(
        &[],
        &[("/env/Dockerfile", "FROM x\nENV A=b\nRUN pip install --target /x y\n")],
    );
    let (requirements, flow_file, notes) = migrated(&tree, "/env/Dockerfile", Some("mine.azurecr.io/built:1"));
    assert_eq!((requirements.as_str(), notes.as_str()), ("", ""));
    assert_eq!(
        flow_file,
        format!("{FLOW}environment:\n  image: mine.azurecr.io/built:1\n")
    );
}

#[test]
fn an_environment_is_changed_in_the_flow_files_text_and_the_rest_stays() {
    let cases = [
        (
            "environment:\n    # Ours.\n    python_requirements_txt: needs.txt  # here\nnodes: []\n",
            "environment:\n    # Ours.\n    python_requirements_txt: needs.txt  # here\n    image: new:2\nnodes: []\n",
        ),
        (
            "environment:\n  image: old:1\n\n# Next.\nnodes: []\n",
            "environment:\n  image: new:2\n\n# Next.\nnodes: []\n",
        ),
        (
            "nodes: []\nenvironment: {image: old:1, python_requirements_txt: needs.txt}",
            "nodes: []\nenvironment:\n  python_requirements_txt: \"needs.txt\"\n  image: new:2\n",
        ),
        (
            "environment:\r\nnodes: []\r\n",
            "environment:\r\n  image: new:2\r\nnodes: []\r\n",
        ),
    ];
    for (before, wanted) in cases {
        let tree = tree(&[("flow.dag.yaml", before), ("needs.txt", "")], &[]);
        let (_, flow_file, said) = migrated(&tree, "", Some("new:2"));
        assert_eq!((flow_file.as_str(), said.as_str()), (wanted, ""), "{before}");
    }
}

#[test]
fn what_cannot_be_migrated_is_refused_with_what_to_do() {
    let long = "environment:\n  image: >-\n    old:1\nnodes: []\n";
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Files<'_>, &str, &str); 13] = [
        (
            FLOW,
            &[(
                "/env/conda.yml",
                "dependencies: [numpy=1, conda-forge::scipy, {pip: [x]}]\n",
            )],
            "/env/conda.yml",
            "Flow.BadProject: ROOT/env/conda.yml: numpy=1, conda-forge::scipy comes by conda, which is not here. Move it below `pip:`, by the name that PyPI has for it.",
        ),
        (
            FLOW,
            &[("/env/e.yml", "image: [a]\n")],
            "/env/e.yml",
            "Flow.BadProject: ROOT/env/e.yml: image is a list. Correct it.",
        ),
        (
            FLOW,
            &[("/env/e.yml", "name: mine\n")],
            "/env/e.yml",
            "Flow.BadProject: ROOT/env/e.yml: it names no `image`, `conda_file` or `build`. Add what the environment consists of.",
        ),
        (
            FLOW,
            &[("/env/e.toml", "")],
            "/env/e.toml",
            "Flow.BadProject: ROOT/env/e.toml is no environment that is known here. Give Azure's environment.yml, a conda file (.yml), a pip file (.txt) or a Dockerfile.",
        ),
        (
            FLOW,
            &[("/env/c.yml", "dependencies: none\n")],
            "/env/c.yml",
            "Flow.BadProject: ROOT/env/c.yml: it has no list `dependencies`. Add it.",
        ),
        (
            FLOW,
            &[("/env/e.yml", "build: {path: 1}\n")],
            "/env/e.yml",
            "Flow.BadProject: ROOT/env/e.yml: build: `path` and `dockerfile_path` should be texts.",
        ),
        (
            FLOW,
            &[("/env/Dockerfile", "FROM $BASE\n")],
            "/env/Dockerfile",
            "Flow.BadProject: ROOT/env/Dockerfile:1: the base image `$BASE` is a variable. Name the image: --image IMAGE.",
        ),
        (
            FLOW,
            &[("/env/Dockerfile", "RUN x\n")],
            "/env/Dockerfile",
            "Flow.BadProject: ROOT/env/Dockerfile: it has no FROM, which names the base image. Add it.",
        ),
        (
            FLOW,
            &[("/env/Dockerfile", "FROM x\nRUN pip install --target /x y\n")],
            "/env/Dockerfile",
            "Flow.BadProject: ROOT/env/Dockerfile:2: `pip install --target` is not known here. Build the image and name it: --image IMAGE.",
        ),
        (
            FLOW,
            &[("/env/r.txt", "-c limits.txt\n")],
            "/env/r.txt",
            "Flow.BadRequirement: ROOT/env/r.txt:1: -c limits.txt is not taken over. Write what it says into ROOT/env/r.txt itself, and migrate again.",
        ),
        (
            FLOW,
            &[("/env/r.txt", "-r r.txt\n")],
            "/env/r.txt",
            "Flow.BadRequirement: r.txt:1: -r r.txt is not taken over. Write what it says into r.txt itself, and migrate again.",
        ),
        (
            FLOW,
            &[("/env/r.txt", "./mine.whl\n")],
            "/env/r.txt",
            "Flow.LocalPackage: ROOT/env/r.txt:1: ./mine.whl: local wheels, local folders and editable installs are not supported. ",
        ),
        (
            long,
            &[("/env/Dockerfile", "FROM new:2\n")],
            "/env/Dockerfile",
            "Flow.BadFlowFile: flow.dag.yaml: its environment is written in a way that cannot be changed by itself. Write `image: new:2` below `environment:`, and migrate again.",
        ),
    ];
    for (flow, files, definition, wanted) in cases {
        let tree = tree(&[("flow.dag.yaml", flow)], files);
        let (requirements, flow_file, said) = migrated(&tree, definition, None);
        assert_eq!((requirements.as_str(), flow_file.as_str()), ("", ""), "{said}");
        assert!(said.starts_with(wanted), "{said}\n{wanted}");
    }
    let tree = Tree::new(&[("main.py", ""), ("/env/r.txt", "")]);
    let (.., said) = migrated(&tree, "/env/r.txt", None);
    assert_eq!(
        said,
        "Flow.NoFlow: ROOT/repo/flow holds no flow.dag.yaml and no flow.flex.yaml, whose environment could be written. Give the path of a flow's folder."
    );
}
