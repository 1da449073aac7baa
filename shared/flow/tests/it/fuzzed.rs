//! Any bytes in a user's file are read, or refused with a code, and nothing else happens.

use flow::{Failure, Reach};
use fuzz::fuzz;
use std::{
    fs,
    io::{self, Cursor},
    path::Path,
};
use tempfile::TempDir;

/// The texts that sample flows and the seeds beside them have.
fn seeds(own: &[&str], of_samples: &[&str]) -> Vec<Vec<u8>> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/flows");
    let mut all: Vec<Vec<u8>> = own.iter().map(|text| text.as_bytes().to_vec()).collect();
    for flow in fs::read_dir(samples).unwrap().flatten() {
        let named = of_samples.iter().map(|name| flow.path().join(name));
        all.extend(named.filter_map(|path| fs::read(path).ok()));
    }
    all
}

fn check<T>(read: Result<T, Failure>) -> Option<T> {
    let failure = match read {
        Ok(read) => return Some(read),
        Err(failure) => failure,
    };
    assert!(
        failure.error.as_str().starts_with("Flow.") || failure.error.as_str().starts_with("Snapshot."),
        "{failure}"
    );
    assert!(
        failure.message.ends_with(['.', '?']) && failure.message.chars().count() < 4_100,
        "{failure}"
    );
    None
}

/// Writes a file anew. ext4 sends a file that is emptied and written again to the disk at once,
/// which takes a thousand times as long as an input.
fn write_anew(path: &Path, bytes: &[u8]) {
    if let Err(error) = fs::remove_file(path) {
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{}: {error}", path.display());
    }
    fs::write(path, bytes).unwrap();
}

/// A flow folder in which one file has the bytes.
fn check_folder(folder: &TempDir, name: &str, bytes: &[u8]) {
    write_anew(&folder.path().join(name), bytes);
    check(flow::kind(folder.path()));
    check(flow::base_image(folder.path()));
    if let Some(environment) = check(flow::environment(folder.path(), Reach::View)) {
        for line in environment
            .requirements
            .iter()
            .flat_map(|requirements| &requirements.lines)
        {
            assert!(!line.text.is_empty() && !line.text.contains('\n'), "{line:?}");
        }
    }
    check(flow::view::list(folder.path(), folder.path()));
    check(flow::python_constraints(folder.path()));
}

#[test]
fn any_bytes_as_requirements_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("flow.dag.yaml"), "nodes: []\n").unwrap();
    fs::write(folder.path().join("more.txt"), "six\n").unwrap();
    let own = [
        "numpy>=1.0,<2 ; python_version < '3.9' and (os_name == 'nt' or extra == \"x\")  # why\n",
        "a[b, c] @ https://user:word@host/a-1.0-py3-none-any.whl#egg=a ; sys_platform != 'win32'\n-r more.txt\n-c more.txt\n",
        "--index-url https://{private}@host/simple --extra-index-url=https://h\n--hash=sha256:00 \\\n --pre\n-e .\n./a.whl\n",
        "Flask==3.1.3 \\\n    --hash=sha256:00 \\\n    --hash=sha512:11\n${NAME}\ngit+https://h/r.git@main\n",
    ];
    let words = [
        "==",
        "~=",
        ">=",
        "!=",
        "===",
        ",",
        ";",
        " ;",
        " @ ",
        "https://",
        "[",
        "]",
        "(",
        ")",
        " and ",
        " or ",
        " not in ",
        " in ",
        "python_version",
        "'3'",
        "--hash=",
        "-r ",
        "-c ",
        "-e ",
        "--",
        "\\\n",
        "\n",
        ".whl",
        "file:",
        "$",
    ];
    fuzz("requirements", &seeds(&own, &["requirements.txt"]), &words, |bytes| {
        check_folder(&folder, "requirements.txt", bytes);
        let packages: Vec<String> = String::from_utf8_lossy(bytes)
            .lines()
            .take(3)
            .map(str::to_owned)
            .collect();
        check(flow::save(folder.path(), folder.path(), &packages));
    });
}

#[test]
fn any_bytes_as_a_flow_file_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let own = [
        "inputs:\n  a: {type: string, default: ${x}}\nnodes:\n- name: n\n  type: python\n  source: {type: code, path: n.py}\n",
        "environment:\n  image: python:3.13\n  python_requirements_txt: requirements.txt\nadditional_includes:\n- ./a\n- b.zip\n",
        "entry: module:name\nbase: &a {x: 1}\nc:\n  <<: *a\n  d: |\n    text\n  e: >-\n    folded\n? k\n: !t v\n",
        "%YAML 1.2\n---\n'a': \"\\u00e9\\n\"\n...\n",
    ];
    let words = [
        "environment:",
        "python_requirements_txt:",
        "additional_includes:",
        "entry:",
        "- ",
        ": ",
        "&a ",
        "*a",
        "<<: ",
        "|\n",
        ">-\n",
        "? ",
        "!!str ",
        "---\n",
        "...\n",
        "\t",
        "\n  ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ".inf",
        "0x10",
    ];
    let names = ["flow.dag.yaml", "flow.flex.yaml"];
    fuzz("a flow file", &seeds(&own, &names), &words, |bytes| {
        check_folder(&folder, names[0], bytes);
        check(flow::migrate(folder.path(), folder.path(), None, Some("new:2")));
    });
}

#[test]
fn any_bytes_as_the_environment_of_a_runtime_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("flow.dag.yaml"), "nodes: []\n").unwrap();
    let own = [
        "e.yml\nimage: a.azurecr.io/b:1\nconda_file:\n  dependencies:\n  - python=3.9\n  - pip:\n    - promptflow[azure]==1.5\n    - numpy\n",
        "e.yml\nname: x\nbuild: {path: ., dockerfile_path: Dockerfile}\ntags: {a: b}\n",
        "Dockerfile\nARG A=b\nFROM --platform=x ${A} AS c\nFROM c\nRUN pip install -U --pre 'd>=1' -i https://h/simple && \\\n  apt-get update\n",
        "r.txt\n-r r.txt\nnumpy  # a\npromptflow-tools==1 ; os_name == 'nt'\n",
    ];
    let words = [
        "\n",
        " ",
        "FROM ",
        "ARG ",
        "RUN ",
        "pip install ",
        "&& ",
        "\\\n",
        "$",
        "${",
        "}",
        "=",
        "- ",
        ": ",
        "pip:",
        "image",
        "-r ",
        "--",
        "[",
        "==",
    ];
    fuzz("a runtime's environment", &seeds(&own, &[]), &words, |bytes| {
        // The first line is the name of the file.
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let (name, text) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
        let known = ["e.yml", "Dockerfile", "r.txt"];
        let name = known
            .into_iter()
            .find(|known| known.as_bytes() == name)
            .unwrap_or("e.yml");
        let file = folder.path().join(name);
        write_anew(&file, text);
        check(flow::migrate(folder.path(), folder.path(), Some(&file), None));
    });
}

#[test]
fn any_bytes_as_a_run_file_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let own = [
        "flow: ../flow\ndata: ./data.jsonl\ncolumn_mapping:\n  url: ${data.url}\n  n: 3\nresources: {instance_type: standard_d2}\n",
        "name: a\ntags: {v: 1.0, on: true, none: }\nidentity:\n  type: managed\n  client_id: x\nenvironment_variables: {N: 1}\ninit: {l: [a, 1e3]}\n",
    ];
    let words = [
        "column_mapping:",
        "tags:",
        "identity:",
        "type: managed",
        "init:",
        "\n  ",
        ": ",
        "- ",
        "{",
        "}",
        "&a ",
        "*a",
        "12345678901234567890123",
    ];
    let file = folder.path().join("run.yml");
    fuzz("a run file", &seeds(&own, &["run.yml"]), &words, |bytes| {
        write_anew(&file, bytes);
        check(flow::run_yaml(&file));
    });
}

#[test]
fn any_bytes_as_a_project_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.py"), "").unwrap();
    let own = [
        "[project]\nname = 'a'\nrequires-python = '>=3.9,!=3.10.*'\ndependencies = [\"numpy>=1\", 'b ; os_name == \"nt\"']\ndynamic = ['version']\n[tool.x]\ny = 1\n",
        "[[a.b]]\nc = { d = 1979-05-27T07:32:00Z, e = [1, 2.5] }\nf = \"\"\"\nmany\\\n  lines\"\"\"\n",
    ];
    let words = [
        "[project]\n",
        "dependencies",
        " = ",
        "[",
        "]",
        "[[",
        "{",
        "}",
        "'''",
        "\"\"\"",
        ".",
        ", ",
        "\n",
        "dynamic",
    ];
    fuzz("a project", &seeds(&own, &["pyproject.toml"]), &words, |bytes| {
        check_folder(&folder, "pyproject.toml", bytes);
    });
}

#[test]
fn any_bytes_as_a_project_file_of_another_tool_or_as_its_lock_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.py"), "").unwrap();
    let own = [
        "Pipfile\n[[source]]\nurl = 'https://host/simple'\n[packages]\na = '*'\nb = {version = '^1', extras = ['c'], markers = \"os_name == 'nt'\"}\n",
        "pyproject.toml\n[tool.poetry.dependencies]\npython = '^3'\na = '^0.2'\nb = {git = 'https://host/b', tag = 'v1'}\n",
        "environment.yml\nname: a\ndependencies:\n- python=3.11\n- pip\n- pip: [humanize, six>=1]\n",
        "setup.cfg\n[options]\ninstall_requires =\n  a>=1\n  b\n",
        "uv.lock\n[[package]]\nname = 'a'\nversion = '1'\nsource = { registry = 'x' }\nresolution-markers = [\"os_name == 'nt'\"]\n",
        "Pipfile.lock\n{\"default\": {\"a\": {\"version\": \"==1\"}}}",
    ];
    let words = [
        "\n", "[", "]", "{", "}", "'", "\"", "=", "- ", "^", "~", "*", "||", ", ", "file:", "path", "optional",
        "markers",
    ];
    fuzz("a project of another tool", &seeds(&own, &[]), &words, |bytes| {
        // The first line is the name of the file; a lock has its project file beside it.
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let (name, text) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
        let known = [
            "Pipfile",
            "pyproject.toml",
            "environment.yml",
            "setup.cfg",
            "uv.lock",
            "Pipfile.lock",
        ];
        let name = known
            .into_iter()
            .find(|known| known.as_bytes() == name)
            .unwrap_or("Pipfile");
        for known in known {
            let _ = fs::remove_file(folder.path().join(known));
        }
        let beside = match name {
            "uv.lock" => Some(("pyproject.toml", "[project]\ndependencies = ['a']\n")),
            "Pipfile.lock" => Some(("Pipfile", "[packages]\na = '*'\n")),
            _ => None,
        };
        if let Some((name, text)) = beside {
            fs::write(folder.path().join(name), text).unwrap();
        }
        check_folder(&folder, name, text);
    });
}

#[test]
fn any_bytes_as_a_snapshot_are_laid_out_below_their_folder_or_refused() {
    let flow = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/flows/dag-with-package");
    let view = flow::view::list(&flow, &flow).unwrap();
    let packed = flow::snapshot::pack(&view, Cursor::new(Vec::new()))
        .unwrap()
        .into_inner();
    let outer = tempfile::tempdir().unwrap();
    fuzz(
        "a snapshot",
        &[packed],
        &["PK\x01\x02", "PK\x03\x04", "PK\x05\x06", "../", "/etc/passwd", "a/b"],
        |bytes| {
            let inner = outer.path().join("view");
            fs::create_dir(&inner).unwrap();
            check(flow::snapshot::lay_out(Cursor::new(bytes), &inner));
            fs::remove_dir_all(&inner).unwrap();
            assert_eq!(
                fs::read_dir(&outer).unwrap().count(),
                0,
                "something lies beside the folder"
            );
        },
    );
}

#[test]
fn no_credential_of_an_address_is_left_whatever_is_around_it() {
    let own = [
        "see https://a.b/c?d=e#f, and git+ssh://me@host:22/x",
        "'{private}@host' <x://y> a://b://c",
    ];
    let words = ["://", "@", ":", "/", "?", "#", " ", "'", "\"", "<", ">", "{private}@"];
    fuzz("redaction", &seeds(&own, &[]), &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for address in [
            "https://me:hunter2@host/simple",
            "x://hunter2@host",
            "https://host/a?sig=hunter2",
        ] {
            let shown = flow::redact(&format!("{text} {address} {text}"));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    });
}
