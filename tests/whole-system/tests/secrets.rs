//! The secrets of a run's connections and variables, searched for in everything that is written and
//! in the memory of its session.

use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use whole_system::{Machine, files, wait_for};

const LONG: Duration = Duration::from_secs(120);

/// Says its secrets, in the ways in which a flow does so by mistake, and ends as it is told.
const FLOW: &str = "import os, resource, time
def main(act: str) -> str:
    print('the keys are', os.environ['KEY'], os.environ['TOKEN'], os.environ['HELD'], flush=True)
    if act == 'raise':
        raise ValueError('with ' + os.environ['KEY'] + ' and ' + os.environ['TOKEN'])
    if act == 'abort':
        os.abort()
    if act == 'stay':
        print('it stays', flush=True)
        time.sleep(3000)
    return 'cores: ' + str(resource.getrlimit(resource.RLIMIT_CORE)[1])
";

/// A text and its forms in base64, at each of the three places at which it may begin there.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let at = |before: usize| {
        let coded = STANDARD.encode([&b"xxx"[..before], secret.as_bytes()].concat());
        // Its first and last characters hold other bits, too.
        coded.as_bytes()[4..coded.len() - 4].to_vec()
    };
    [secret.as_bytes().to_vec(), at(0), at(1), at(2)].to_vec()
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == text[0]) {
        if rest[at..].starts_with(text) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Whatever is written: the state folder with its tables, queues, logs, snapshots and runs, the
/// flow, what commands and routes say, arguments and first variables of processes, and core files
/// where a process of this machine would leave one.
fn written(machine: &Machine, flow: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let keeps = machine.state().join("connections");
    let of_machine = files(machine.state()).into_iter().filter(|file| *file != keeps);
    let here = fs::read_dir(".").unwrap().flatten().map(|entry| entry.path());
    let cores = here.filter(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("core"))
    });
    for file in of_machine.chain(cores) {
        all.push((file.display().to_string(), fs::read(&file).unwrap_or_default()));
    }
    let place = flow.to_str().unwrap();
    let mut commands = vec![
        vec!["connection", "list"],
        vec!["connection", "show", "plain"],
        vec!["connection", "show", "held"],
        vec!["runs", "list"],
        vec!["show", place],
        vec!["why", place],
        vec!["events", place],
        vec!["logs", place],
    ];
    for run in ["says", "raises", "aborts", "of-host"] {
        commands.extend([
            vec!["show", run],
            vec!["runs", "details", run],
            vec!["runs", "logs", run],
        ]);
    }
    for command in commands {
        for more in [&[][..], &["--json"]] {
            let output = machine.run(&[&command, more].concat());
            all.push((format!("{command:?}"), [output.stdout, output.stderr].concat()));
        }
    }
    for (pid, _) in machine.processes() {
        for part in ["cmdline", "environ"] {
            all.push((
                format!("{part} of {pid}"),
                fs::read(format!("/proc/{pid}/{part}")).unwrap_or_default(),
            ));
        }
    }
    all
}

fn where_it_is(all: &[(String, Vec<u8>)], secret: &str) -> Vec<String> {
    let forms = forms(secret);
    let found = all
        .iter()
        .filter(|(_, bytes)| forms.iter().any(|form| holds(bytes, form)));
    found.map(|(name, _)| name.clone()).collect()
}

/// The processes in sandboxes of this machine whose memory holds a text, and how many were read.
fn memories_with(machine: &Machine, secret: &str) -> (usize, usize) {
    let sessions = machine.state().join("sessions/").display().to_string();
    let (mut found, mut read) = (0, 0);
    for (pid, _) in machine.processes() {
        let part = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let Ok(memory) = fs::File::open(format!("/proc/{pid}/mem")) else {
            continue;
        };
        if !part("mountinfo").contains(&sessions) {
            continue;
        }
        let mut in_it = false;
        for line in part("maps").lines().filter(|line| line.contains(" rw")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
            let mut bytes = vec![0; (to - from) as usize];
            let length = memory.read_at(&mut bytes, from).unwrap_or(0);
            in_it |= holds(&bytes[..length], secret.as_bytes());
        }
        read += 1;
        found += usize::from(in_it);
    }
    (found, read)
}

fn create(machine: &Machine, name: &str, document: &str, more: &[&str], secret: &str) {
    let file = machine.state().join(format!("{name}.yml"));
    fs::write(&file, document).unwrap();
    let arguments = [
        &["connection", "create", "-f", file.to_str().unwrap(), "--name", name],
        more,
    ]
    .concat();
    let mut command = machine.command(&arguments);
    let mut created = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(created.stdin.take().unwrap(), "{secret}").unwrap();
    assert!(created.wait().unwrap().success());
}

/// Begins a run, which ends the first time that it is looked at unless it stays.
fn run(machine: &Machine, flow: &Path, name: &str, act: &str, token: &str) {
    let act_of_it = format!("act={act}");
    let mut arguments = vec!["run", flow.to_str().unwrap(), "--name", name, "--inputs", &act_of_it];
    arguments.extend([
        "--env",
        "KEY=${plain.api_key}",
        "--env",
        "HELD=${held.api_key}",
        "--env-secret",
        "TOKEN",
    ]);
    if act == "stay" {
        arguments.push("--no-wait");
    }
    let output = machine.command(&arguments).env("TOKEN", token).output().unwrap();
    assert_eq!(
        output.status.success(),
        act == "end" || act == "stay",
        "{act}: {output:?}"
    );
    if act == "stay" {
        wait_for("the run's word", LONG, || {
            let logs = machine.run(&["runs", "logs", name]).stdout;
            holds(&logs, b"it stays").then_some(())
        });
    }
}

#[test]
fn a_secret_is_in_nothing_that_is_written_also_after_crashes() {
    let machine = Machine::new();
    let unique =
        |what: &str| format!("hidden-{what}-{}-{:?}", std::process::id(), std::time::Instant::now()).replace(' ', "");
    let [key, held, token] = ["key", "held", "token"].map(|what| {
        unique(what)
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect::<String>()
    });
    // Whoever starts the service lets programs leave core files.
    let mut up = Command::new("sh");
    up.args(["-c", "ulimit -c unlimited; exec \"$0\" up"])
        .arg(whole_system::pfsession());
    up.env("PFSESSION_STATE", machine.state())
        .envs(machine.variables.clone());
    assert!(up.status().unwrap().success());
    create(&machine, "plain", "type: open_ai\n", &["--brokered=false"], &key);
    create(
        &machine,
        "held",
        "type: open_ai\nbase_url: https://model.example.org/v1\n",
        &[],
        &held,
    );
    let flow = machine.state().join("a-flow");
    fs::create_dir_all(&flow).unwrap();
    fs::write(flow.join("code.py"), FLOW).unwrap();
    fs::write(flow.join("flow.flex.yaml"), "entry: code:main\n").unwrap();
    run(&machine, &flow, "says", "end", &token);
    run(&machine, &flow, "raises", "raise", &token);
    run(&machine, &flow, "aborts", "abort", &token);
    // With a broker, the key is in no memory of the session; without, in that of the run alone.
    run(&machine, &flow, "of-host", "stay", &token);
    let (with_held, read) = memories_with(&machine, &held);
    assert_eq!(with_held, 0, "of {read}");
    if read > 1 {
        assert!((1..read).contains(&memories_with(&machine, &key).0), "of {read}");
    } else {
        println!("the memory of other processes cannot be read here");
    }
    let nowhere = |when: &str| {
        let all = written(&machine, &flow);
        for (what, secret) in [("the key", &key), ("the broker's key", &held), ("the variable", &token)] {
            assert_eq!(where_it_is(&all, secret), Vec::<String>::new(), "{what} {when}");
        }
        // What is no secret is found, so this looks where things are written.
        for told in ["the keys are ***", "type: open_ai", "of-host"] {
            assert!(
                all.iter().any(|(_, bytes)| holds(bytes, told.as_bytes())),
                "{told} {when}"
            );
        }
    };
    nowhere("while a run goes on");
    machine.kill_host();
    machine.up();
    nowhere("after the host's crash");
    let about = files(&machine.state().join("sessions"))
        .into_iter()
        .find(|file| file.ends_with("agent.json"))
        .unwrap();
    let about: serde_json::Value = serde_json::from_slice(&fs::read(about).unwrap()).unwrap();
    let agent = about["pid"].as_i64().unwrap().to_string();
    assert!(Command::new("kill").args(["-ABRT", &agent]).status().unwrap().success());
    wait_for("the run's end", LONG, || {
        holds(machine.succeed(&["show", "of-host"]).as_bytes(), b"failed").then_some(())
    });
    nowhere("after the agent's crash");
    machine.succeed(&["down"]);
    nowhere("after all has ended");
}
