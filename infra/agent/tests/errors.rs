//! The error texts of failed installs: real installs, from a faulty package index on loopback.
//!
//! It is its own agent program, so it has no test harness.

#[allow(dead_code, reason = "shared with others")]
#[path = "common/mod.rs"]
mod common;

use common::{Machine, flow, state};
use expect_test::{Expect, expect};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
    time::Instant,
};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "agent") {
        return agent::supervise();
    }
    let tests: [(&str, fn()); 5] = [
        (
            "an_index_that_is_bad_in_any_way_gives_an_error_of_its_own",
            an_index_that_is_bad_in_any_way_gives_an_error_of_its_own,
        ),
        ("a_full_disk_says_so", a_full_disk_says_so),
        (
            "a_run_that_fails_says_why_and_what_to_do",
            a_run_that_fails_says_why_and_what_to_do,
        ),
        (
            "a_machine_that_has_no_uv_and_gets_none_says_so",
            a_machine_that_has_no_uv_and_gets_none_says_so,
        ),
        (
            "a_session_that_the_machine_does_not_launch_says_why",
            a_session_that_the_machine_does_not_launch_says_why,
        ),
    ];
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return Ok(());
    }
    // SAFETY: no other thread is there yet.
    unsafe {
        std::env::set_var("UV_HTTP_TIMEOUT", "2");
        std::env::set_var("UV_HTTP_RETRIES", "0");
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = Vec::new();
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let result = std::panic::catch_unwind(test);
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.1} s)", begun.elapsed().as_secs_f32());
        if result.is_err() {
            failed.push(name);
        }
    }
    Machine::new(&state()).driver.let_go();
    anyhow::ensure!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join(", "));
    Ok(())
}

/// A package index.
///
/// `/good/{package}/` lists the files that there are, with their hashes; `/wrong/…` the same with
/// another hash; `/401/…` and `/403/…` refuse; `/slow/…` takes the question and never answers.
struct Index {
    address: String,
}

/// Makes a wheel of nothing but its metadata, as `name-version-py3-none-any.whl`; and a source
/// distribution that cannot be built.
const MAKE: &str = r#"
import base64, hashlib, io, os, sys, tarfile, zipfile
def wheel(name, version, requires=(), filler=0):
    info = f'{name}-{version}.dist-info'
    lines = [f'Metadata-Version: 2.1', f'Name: {name}', f'Version: {version}'] + [f'Requires-Dist: {r}' for r in requires]
    files = {f'{name}.py': os.urandom(filler), f'{info}/METADATA': '\n'.join(lines).encode() + b'\n',
             f'{info}/WHEEL': b'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n'}
    record = ''.join(f'{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()},{len(data)}\n'
                     for path, data in files.items()) + f'{info}/RECORD,,\n'
    with zipfile.ZipFile(f'{name}-{version}-py3-none-any.whl', 'w') as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        archive.writestr(f'{info}/RECORD', record)
def source(name, version):
    files = {'pyproject.toml': b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
             'backend.py': b'def build_wheel(*_, **__):\n    raise RuntimeError("there is no compiler")\n',
             'PKG-INFO': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'.encode()}
    with tarfile.open(f'{name}-{version}.tar.gz', 'w:gz') as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(f'{name}-{version}/{path}')
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
os.chdir(sys.argv[1])
wheel('pfsone', '1.0')
wheel('pfsone', '2.0')
wheel('pfstwo', '1.0', ['pfsone<2'])
wheel('pfslarge', '1.0', filler=6_000_000)
source('pfssource', '1.0')
"#;

impl Index {
    fn serve(folder: &Path) -> Self {
        let made = Command::new("python3")
            .args(["-c", MAKE])
            .arg(folder)
            .status()
            .expect("there is Python");
        assert!(made.success(), "the packages are made");
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).expect("the folder is there").flatten() {
            let bytes = fs::read(entry.path()).expect("a file");
            files.insert(entry.file_name().into_string().expect("a name"), bytes);
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let files = Arc::new(files);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let files = files.clone();
                std::thread::spawn(move || answer(stream, &files));
            }
        });
        Self { address }
    }
}

fn answer(stream: TcpStream, files: &BTreeMap<String, Vec<u8>>) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
            if header.trim().is_empty() {
                break;
            }
        }
        let path = first.split(' ').nth(1)?.to_owned();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (status, kind, body) = match parts[..] {
            ["401", ..] => ("401 Unauthorized", "text/plain", Vec::new()),
            ["403", ..] => ("403 Forbidden", "text/plain", Vec::new()),
            ["slow", ..] => {
                // Until the one who asked has had enough.
                let mut rest = String::new();
                let _ = reader.read_line(&mut rest);
                return None;
            }
            ["file", name] if files.contains_key(name) => ("200 OK", "application/octet-stream", files[name].clone()),
            [how, package] => {
                let package = format!("{package}-");
                let links: String = files
                    .keys()
                    .filter(|name| name.starts_with(&package))
                    .map(|name| match how {
                        "wrong" => format!("<a href=\"/file/{name}#sha256={}\">{name}</a>\n", "0".repeat(64)),
                        _ => format!("<a href=\"/file/{name}\">{name}</a>\n"),
                    })
                    .collect();
                let status = if links.is_empty() { "404 Not Found" } else { "200 OK" };
                (status, "text/html", links.into_bytes())
            }
            _ => ("404 Not Found", "text/plain", Vec::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all(head.as_bytes()).ok()?;
        if !first.starts_with("HEAD") {
            writer.write_all(&body).ok()?;
        }
    }
}

/// Installs these into a session of its own, and gives back what a person reads, without what
/// differs from machine to machine.
fn texts(index: &Index, key: &str, cases: &[(&str, &str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("there is room");
    let machine = Machine::new(&state());
    let it = flow(
        &folder.path().join("it"),
        &[
            ("flow.flex.yaml", "entry: code:main\n"),
            ("code.py", "def main() -> str:\n    return ''\n"),
        ],
    );
    let mut generation = 1;
    machine.launch(key, generation, &it);
    let mut texts = String::new();
    for (case, how, requirement) in cases {
        let url = match *how {
            "nobody" => "http://127.0.0.1:9".to_owned(),
            how => format!("{}/{how}", index.address)
                .replace("://", if how.starts_with('4') { "://me:hidden@" } else { "://" }),
        };
        fs::write(
            it.join("requirements.txt"),
            format!("--index-url {url}\n{requirement}\n"),
        )
        .expect("it is written");
        let image = if *how == "image" {
            "environment:\n  image: 127.0.0.1:1/image:1\n"
        } else {
            ""
        };
        flow(&it, &[("flow.flex.yaml", &format!("entry: code:main\n{image}"))]);
        if !image.is_empty() {
            // A container has its image for life.
            machine.remove(key, generation);
            generation += 1;
            machine.launch(key, generation, &it);
        }
        let failure = machine.install(
            key,
            generation,
            &format!("{case}-{}", std::process::id()).replace(' ', "-"),
            &it,
        );
        let failure = failure.unwrap_or_else(|| panic!("{case}: it was installed"));
        assert!(!failure.message.contains("hidden"), "{failure}");
        assert_eq!(failure.message.lines().count(), 1, "{failure}");
        let text = failure
            .to_string()
            .replace(&index.address, "INDEX")
            .replace(&index.address[7..], "INDEX");
        let log = text
            .split_whitespace()
            .find(|word| word.contains("/logs/"))
            .unwrap_or_default()
            .trim_end_matches('.')
            .to_owned();
        let text = if log.is_empty() {
            text
        } else {
            text.replace(&log, "LOG")
        };
        let text = match text.split_once("behind a colon (") {
            Some((before, after)) => format!(
                "{before}behind a colon (PYTHONS{}",
                &after[after.find(')').unwrap_or(0)..]
            ),
            None => text,
        };
        texts += &format!("{case}\n  {text}\n");
    }
    machine.remove(key, generation);
    texts
}

fn check(cases: &[(&str, &str, &str)], expected: Expect) {
    let folder = tempfile::tempdir().expect("there is room");
    let index = Index::serve(folder.path());
    expected.assert_eq(&texts(
        &index,
        &format!("{:016x}{:016x}", std::process::id(), cases.len()),
        cases,
    ));
}

fn an_index_that_is_bad_in_any_way_gives_an_error_of_its_own() {
    check(
        &[
            ("nobody is there", "nobody", "pfsone"),
            ("it never answers", "slow", "pfsone"),
            ("it asks for credentials", "401", "pfsone"),
            ("it refuses the credentials", "403", "pfsone"),
            ("a file is not what was promised", "wrong", "pfsone"),
            ("no such package", "good", "pfsnothing"),
            ("no such version", "good", "pfsone==9"),
            ("two that cannot be met together", "good", "pfsone==2.0\npfstwo"),
            ("one that cannot be built", "good", "pfssource"),
            (
                "a URL with a credential",
                "good",
                "it @ https://me:hidden@127.0.0.1:9/it-1-py3-none-any.whl",
            ),
            ("an image that is not there", "image", "pfsone"),
        ],
        expect![[r#"
            nobody is there
              Install.IndexUnreachable: The package index cannot be reached: http://127.0.0.1:9/pfsone/: Connection refused (os error 111). See that there is a network and that the index's URL is right, and start again. The whole output is in LOG.
            it never answers
              Install.IndexUnreachable: The package index cannot be reached: INDEX/slow/pfsone/: operation timed out. See that there is a network and that the index's URL is right, and start again. The whole output is in LOG.
            it asks for credentials
              Install.IndexRefused: The package index INDEX/401 refuses the credentials it was given. Correct them in the index's URL, or, if that has {private}, by pfsession private INDEX. Start again. The whole output is in LOG.
            it refuses the credentials
              Install.IndexRefused: The package index INDEX/403 refuses the credentials it was given. Correct them in the index's URL, or, if that has {private}, by pfsession private INDEX. Start again. The whole output is in LOG.
            a file is not what was promised
              Install.HashMismatch: requirements.txt:2: pfsone==2.0 is not the file that its hash promises. Do not trust it; see where the index has it from. The whole output is in LOG.
            no such package
              Install.NoSuchPackage: requirements.txt:2: there is no package pfsnothing. Correct its name in the requirements, or name the index that has it. The whole output is in LOG.
            no such version
              Install.NoSuchVersion: requirements.txt:2: there is no version pfsone==9 of it. Take another one in the requirements. The whole output is in LOG.
            two that cannot be met together
              Install.Conflict: The requirements cannot be met together: Because all versions of pfstwo depend on pfsone<2 and you require pfsone==2.0, we can conclude that your requirements and all versions of pfstwo are incompatible. And because you require pfstwo. Change one of them, and start again. The whole output is in LOG.
            one that cannot be built
              Install.BuildFailed: requirements.txt:2: pfssource==1.0 could not be built from source: RuntimeError: there is no compiler. Take a version that has a wheel, or install what its build needs. The whole output is in LOG.
            a URL with a credential
              Install.BadRequirement: requirements.txt:2: the URL of a package holds a credential or a query, which would be kept in files. Name the package, and its index by --extra-index-url.
            an image that is not there
              Image.Unreachable: The image 127.0.0.1:1/image:1 cannot be had from 127.0.0.1:1 now: Connection refused (os error 111). Try again; an image that is here already is had without its registry by its digest (pfsession image list).
        "#]],
    );
}

fn a_full_disk_says_so() {
    let folder = tempfile::tempdir().expect("there is room");
    let small = folder.path().join("small");
    fs::create_dir(&small).expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&small)
        .output();
    match mounted {
        Ok(done) if done.status.success() => {}
        // Only root mounts a disk that is too small.
        why => {
            println!("a_full_disk_says_so is left out: no tmpfs can be mounted here: {why:?}");
            return;
        }
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _unmount = Unmount(&small);
    // SAFETY: the tests run one after the other, and the machine of the one before has ended.
    unsafe { std::env::set_var("UV_CACHE_DIR", &small) };
    check(
        &[("the disk is full", "good", "pfslarge")],
        expect![[r#"
        the disk is full
          Install.DiskFull: The disk is full. Make room, and start again. The whole output is in LOG.
    "#]],
    );
    unsafe { std::env::remove_var("UV_CACHE_DIR") };
}

fn a_machine_that_has_no_uv_and_gets_none_says_so() {
    let folder = tempfile::tempdir().expect("there is room");
    let python = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("there is Python");
    let python = String::from_utf8(python.stdout).expect("a path");
    let variables = [
        ("PATH", "/nowhere"),
        ("PFSESSION_PYTHON", python.trim()),
        ("PIP_INDEX_URL", "file:///nowhere"),
    ];
    let before = variables.map(|(name, _)| (name, std::env::var_os(name)));
    // SAFETY: the tests run one after the other, and the machine of the one before has ended.
    variables
        .iter()
        .for_each(|(name, value)| unsafe { std::env::set_var(name, value) });
    let machine = Machine::new(&folder.path().join("state"));
    let it = flow(&folder.path().join("it"), &[("flow.flex.yaml", "entry: code:main\n")]);
    let key = key("no uv");
    machine.launch(&key, 1, &it);
    let failure = machine
        .install(&key, 1, "install", &it)
        .expect("there is no uv")
        .to_string();
    let run = machine.run(&key, 1, "run", &it, contract::command::RunWish::default());
    machine.remove(&key, 1);
    machine.driver.let_go();
    for (name, value) in before {
        match value {
            // SAFETY: as above.
            Some(value) => unsafe { std::env::set_var(name, value) },
            None => unsafe { std::env::remove_var(name) },
        }
    }
    let run = run.failure.expect("there are no packages").to_string();
    // pip says it in words of its own.
    let (before, rest) = failure.split_once('(').expect("what pip says");
    let (_, after) = rest.split_once("). ").expect("what to do");
    expect![[r#"
        Install.NoUv: uv, which installs packages, is not on PATH in a version that is used here, and could not be fetched (PIP). Connect to a network, or install uv or pip (your system's packages have them), and start again.
        Run.NotReady: The session has no packages yet. Run again when it is Ready."#]].assert_eq(&format!("{before}(PIP). {after}\n{run}"));
}

/// A key that no other test of this process has.
fn key(of: &str) -> String {
    format!(
        "{:016x}{:016x}",
        std::process::id(),
        of.bytes().map(u64::from).sum::<u64>()
    )
}

fn a_run_that_fails_says_why_and_what_to_do() {
    let folder = tempfile::tempdir().expect("there is room");
    let machine = Machine::new(&state());
    let flow_file = ("flow.flex.yaml", "entry: code:main\n");
    let it = flow(
        &folder.path().join("it"),
        &[flow_file, ("code.py", "def main() -> str:\n    return ''\n")],
    );
    let key = key("runs");
    machine.launch(&key, 1, &it);
    let unwritable = format!("a-folder-that-cannot-be-written-{}", std::process::id());
    let in_its_place = machine.state.join("runs").join(unwritable);
    fs::create_dir_all(machine.state.join("runs")).expect("a folder");
    fs::write(&in_its_place, "").expect("a file");
    let mut texts = String::new();
    let mut run = |case: &str, code: &str, data: Option<&str>| {
        flow(&it, &[("code.py", code)]);
        let data = data.map(|lines| {
            let file = folder.path().join("data.jsonl");
            match lines {
                "" => drop(fs::remove_file(&file)),
                lines => fs::write(&file, lines).expect("it is written"),
            }
            file.display().to_string()
        });
        let id = format!("{case}-{}", std::process::id()).replace(' ', "-");
        let wish = contract::command::RunWish {
            data,
            ..Default::default()
        };
        let result = machine.run(&key, 1, &id, &it, wish);
        let text = result
            .failure
            .unwrap_or_else(|| panic!("{case}: it did not fail"))
            .to_string();
        let text = text.replace(&folder.path().display().to_string(), "FOLDER");
        let words = text
            .split(' ')
            .map(|word| if word.contains("/runs/") { "LOG." } else { word });
        texts += &format!("{case}\n  {}\n", words.collect::<Vec<_>>().join(" "));
    };
    assert_eq!(
        machine.install(&key, 1, &format!("install-{}", std::process::id()), &it),
        None
    );
    run("a folder that cannot be written", "", None);
    run("an import that there is not", "import nowhere_to_be_found\n", None);
    run("code that raises", "def main() -> str:\n    return 1 / 0\n", None);
    run("no such function", "def other() -> str:\n    return ''\n", None);
    run(
        "data that is not there",
        "def main(a: str) -> str:\n    return a\n",
        Some(""),
    );
    run(
        "data that is no JSON",
        "def main(a: str) -> str:\n    return a\n",
        Some("{\"a\": nonsense\n"),
    );
    run(
        "data without a column",
        "def main(a: str) -> str:\n    return a\n",
        Some("{\"b\": 1}\n"),
    );
    run(
        "a process that ends",
        "import os\ndef main() -> str:\n    os._exit(7)\n",
        None,
    );
    machine.remove(&key, 1);
    fs::remove_file(in_its_place).expect("it is there");
    expect![[r#"
        a folder that cannot be written
          Run.Failed: The run's folder cannot be written: File exists (os error 17). Put that right, and run again.
        an import that there is not
          Run.ImportFailed: the flow's code could not be imported: No module named 'nowhere_to_be_found'; add its package to the requirements, install them, and run again. The run's output is in LOG.
        code that raises
          Run.CodeRaised: ZeroDivisionError: division by zero. The run's output is in LOG.
        no such function
          Run.BadFlow: promptflow refuses the flow: Failed to load python function 'main' from file 'code', got None. The run's output is in LOG.
        data that is not there
          Run.BadData: The data FOLDER/data.jsonl cannot be read: No such file or directory (os error 2). Name a file or a folder of data. The run's output is in LOG.
        data that is no JSON
          Run.BadData: line 1 of the data data.jsonl is no JSON: Expecting value: line 1 column 7 (char 6). The run's output is in LOG.
        data without a column
          Run.BadData: the data has no column for the input 'a'; name one in the column mapping (there are: 'b'). The run's output is in LOG.
        a process that ends
          Run.Crashed: its process ended in the middle of the line (exit code 7). See what ended it, and run again. The run's output is in LOG.
    "#]].assert_eq(&texts);
}

fn a_session_that_the_machine_does_not_launch_says_why() {
    use contract::driver::ComputeRequest;
    let folder = tempfile::tempdir().expect("there is room");
    let machine = Machine::new(&state());
    let key = key("launches");
    machine.create_compute("c1");
    let late = match Machine::launch_request(&key, 1, "c1", folder.path()) {
        ComputeRequest::LaunchSession {
            flow,
            owner,
            workspace,
            generation,
            compute,
            settings,
            ..
        } => ComputeRequest::LaunchSession {
            room: None,
            flow,
            owner,
            workspace,
            generation,
            compute,
            settings,
            until: 1,
        },
        other => other,
    };
    machine.ask(late);
    machine.remove(&key, 3);
    machine.ask(Machine::launch_request(&key, 2, "c1", folder.path()));
    machine.ask(Machine::launch_request(&key, 4, "no-such-compute", folder.path()));
    let no_log = machine.state.join("logs").join(format!("agent-{key}-5.log"));
    fs::create_dir_all(&no_log).expect("a folder");
    machine.ask(Machine::launch_request(&key, 5, "c1", folder.path()));
    let texts: Vec<String> = [1, 2, 4, 5]
        .map(|generation| {
            machine
                .gone(&key, generation)
                .expect("it was not asked for")
                .to_string()
                .replace(&no_log.display().to_string(), "LOG")
        })
        .into();
    fs::remove_dir(no_log).expect("it is there");
    expect![[r#"
        Session.LaunchTooLate: The machine was asked too late to launch the session. Start it again.
        Session.Removed: This session was removed before it could be launched. Start it again.
        Session.NoCompute: The compute resource no-such-compute is gone. Start the session again.
        Session.LaunchFailed: The session's agent did not start: Is a directory (os error 21). Its log is LOG. Start the session again."#]]
    .assert_eq(&texts.join("\n"));
}
