//! Helpers of several tests.

use super::*;

/// A flow's key that no other test has.
pub(crate) fn key(name: &str) -> String {
    contract::FlowRef {
        workspace: "local".into(),
        owner: "me".into(),
        lineage: name.into(),
    }
    .key()
}

pub(crate) fn inputs(name: &str, value: &str) -> RunWish {
    RunWish {
        inputs: BTreeMap::from([(name.into(), json!(value))]),
        ..RunWish::default()
    }
}

/// A flex flow whose only function is `code`.
pub(crate) fn flex(folder: &Path, code: &str) -> std::path::PathBuf {
    flow(folder, &[("flow.flex.yaml", "entry: code:main\n"), ("code.py", code)])
}

/// Runs `code` once in a session of its own, which is removed again.
pub(crate) fn once(name: &str, code: &str) -> RunResult {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), code);
    let key = key(&unique(name));
    machine.start(&key, 1, &it);
    let result = machine.run(&key, 1, &unique(name), &it, RunWish::default());
    machine.remove(&key, 1);
    result
}

pub(crate) fn output(result: &RunResult) -> Value {
    assert_eq!(result.failure, None, "{result:#?}");
    result.outputs[0].clone()
}

/// The processes whose command line or environment holds `text`.
pub(crate) fn processes_with(text: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let all = format!(
            "{} {}",
            String::from_utf8_lossy(&command),
            String::from_utf8_lossy(&environ)
        )
        .replace('\0', " ");
        (all.contains(text) && !status.contains("State:\tZ")).then_some(all)
    });
    commands.collect()
}

/// The mounts that hold `text`, of any process.
pub(crate) fn mounts_with(text: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path().join("mounts")).ok())
        .any(|mounts| mounts.contains(text))
}

pub(crate) const IMPORTS: &str = "import importlib.metadata\ndef main() -> dict:\n    import cowsay\n    return {'version': importlib.metadata.version('cowsay'), 'file': cowsay.__file__}\n";

/// An agent's last report of the installed packages.
pub(crate) fn installation(machine: &Machine, key: &str) -> contract::packages::Installation {
    let reports = machine.world.agent_reports.lock().unwrap();
    let said = reports.iter().rev().filter(|(_, body)| body.flow == key);
    said.filter_map(|(_, body)| match &body.report {
        AgentReport::Installed { installation, .. } => installation.as_deref().cloned(),
        AgentReport::Packages { installation, .. } => Some((**installation).clone()),
        _ => None,
    })
    .max_by_key(|installation| installation.count)
    .unwrap()
}

/// `name version origin` of some packages.
pub(crate) fn told(installation: &contract::packages::Installation, names: &[&str]) -> Vec<String> {
    let packages = &installation.listed.as_ref().unwrap().packages;
    let wanted = packages.iter().filter(|package| names.contains(&package.name.as_str()));
    wanted
        .map(|package| {
            format!(
                "{} {} {:?} {} {}",
                package.name,
                package.version,
                package.origin,
                package.named.as_deref().unwrap_or("-"),
                package.asked_by.join(",")
            )
        })
        .collect()
}

/// Keeps a connection of the user whose sessions these are.
pub(crate) fn keep(machine: &Machine, name: &str, document: &str) {
    let read = flow::connection("connection.yml", document).unwrap();
    let mut connection = read.connection;
    connection.brokered = read.brokered.unwrap_or(false);
    for (key, secret) in read.secrets {
        let flow::Secret::Given(secret) = secret else {
            panic!("{document}")
        };
        connection.secrets.insert(key, secret);
    }
    let holder = agent::connections::Holder {
        workspace: "local".into(),
        user: "me".into(),
    };
    agent::connections::Connections::change(&machine.state, |all| {
        all.of_scope(&holder, agent::connections::Scope::User)
            .insert(name.into(), connection);
        Ok::<_, contract::Failure>(())
    })
    .unwrap();
}

/// Whether `text` is in the bytes; quicker than a search that is not optimised here.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    // SAFETY: both are as long as is said.
    let found = unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), text.as_ptr().cast(), text.len()) };
    !found.is_null()
}

/// The processes of a session whose memory holds `text`, and how many were looked at.
pub(crate) fn memories_with(session: &str, text: &str) -> (Vec<i32>, usize) {
    use std::os::unix::fs::FileExt;
    let (mut found, mut looked_at) = (Vec::new(), 0);
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let inside = fs::read_to_string(entry.path().join("mountinfo")).is_ok_and(|mounts| mounts.contains(session));
        let (Ok(maps), Ok(memory)) = (
            fs::read_to_string(entry.path().join("maps")),
            fs::File::open(entry.path().join("mem")),
        ) else {
            continue;
        };
        if !inside {
            continue;
        }
        looked_at += 1;
        let has_it = maps.lines().filter(|line| line.contains(" rw")).any(|line| {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
            let mut bytes = vec![0; (to - from) as usize];
            let read = memory.read_at(&mut bytes, from).unwrap_or(0);
            holds(&bytes[..read], text)
        });
        if has_it {
            found.push(pid);
        }
    }
    (found, looked_at)
}

/// Looks for secrets in all reports and in all files of the state folder and of the test, but for
/// the one that keeps them.
pub(crate) fn are_written_nowhere(machine: &Machine, folder: &Path, secrets: &[&String]) {
    let said = machine.world.agent_reports.lock().unwrap();
    let said: String = said.iter().map(|(signed, _)| signed.body.clone()).collect();
    for secret in secrets {
        assert!(!said.contains(secret.as_str()), "a report holds it");
    }
    let mut folders = vec![machine.state.clone(), folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_new(&entry) && entry.path() != machine.state.join("connections") {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                for secret in secrets {
                    assert!(!holds(&bytes, secret), "{} holds it", entry.path().display());
                }
            }
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A session that installs these lines and runs a flow which gives back one expression: the failure
/// of the install, or what the run gave.
pub(crate) fn installed(
    machine: &Machine,
    name: &str,
    requirements: &str,
    code: &str,
) -> Result<Value, contract::Failure> {
    let folder = tempfile::tempdir().unwrap();
    let it = flex(folder.path(), code);
    fs::write(it.join("requirements.txt"), requirements).unwrap();
    let key = key(&unique(name));
    machine.launch(&key, 1, &it);
    let failure = machine.install(&key, 1, &unique(name), &it);
    let result = match failure {
        Some(failure) => Err(failure),
        None => Ok(output(&machine.run(&key, 1, &unique(name), &it, RunWish::default()))),
    };
    machine.remove(&key, 1);
    result
}

/// Whether a file was written lately: what is older cannot hold what is newer.
pub(crate) fn is_new(entry: &fs::DirEntry) -> bool {
    use std::os::unix::fs::MetadataExt;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    entry
        .metadata()
        .is_ok_and(|about| about.ctime() as u64 + 600 > now.as_secs())
}

/// Runs flows of one function, one after another, in one session.
pub(crate) fn each(name: &str, mut look: impl FnMut(&mut dyn FnMut(&str, &str, RunWish) -> RunResult)) {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), "def main() -> str:\n    return ''\n");
    let key = key(&unique(name));
    machine.start(&key, 1, &it);
    look(&mut |code, data, wish| {
        flex(&it, code);
        let wish = match data {
            "" => wish,
            lines => {
                let file = folder.path().join("data.jsonl");
                fs::write(&file, lines).unwrap();
                RunWish {
                    data: Some(file.display().to_string()),
                    ..wish
                }
            }
        };
        machine.run(&key, 1, &unique(name), &it, wish)
    });
    machine.remove(&key, 1);
}

/// The driver's record of a session's processes: the agent's id, and those of its sandboxes.
pub(crate) fn process_ids(machine: &Machine, key: &str, generation: u32) -> (i32, Vec<i32>) {
    let session = machine.state.join("sessions").join(key).join(generation.to_string());
    let agent: Value = serde_json::from_slice(&fs::read(session.join("agent.json")).unwrap()).unwrap();
    let sandboxes: Value = serde_json::from_slice(&fs::read(session.join("sandboxes.json")).unwrap()).unwrap();
    let ids = sandboxes
        .as_array()
        .unwrap()
        .iter()
        .map(|each| each["pid"].as_i64().unwrap() as i32)
        .collect();
    (agent["pid"].as_i64().unwrap() as i32, ids)
}

pub(crate) fn kill(pid: i32) {
    // SAFETY: no memory; the process was started for this test.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

pub(crate) const SLEEPER: &str = "import subprocess, sys, time\ndef main() -> str:\n    subprocess.Popen(['/bin/sleep', MARK], start_new_session=True)\n    print('asleep', flush=True)\n    time.sleep(600)\n    return ''\n";

/// A session in the middle of a run that has left a process of its own session behind. Gives back
/// that process' mark.
pub(crate) fn asleep(machine: &Machine, key: &str, generation: u32, folder: &Path) -> (String, String) {
    let mark = format!("60{}.{}", std::process::id(), unique("").replace('-', ""));
    flex(folder, &SLEEPER.replace("MARK", &format!("{mark:?}")));
    machine.start(key, generation, folder);
    let run = unique("asleep");
    machine.begin_run(key, generation, &run, folder, RunWish::default());
    machine.world.wait("sleep", Duration::from_secs(20), |_| {
        machine.output(&run).contains("asleep").then_some(())
    });
    assert_eq!(processes_with(&mark).len(), 1);
    (run, mark)
}

pub(crate) fn gone_from_the_machine(machine: &Machine, key: &str, mark: &str) {
    machine
        .world
        .wait("the end of all processes", Duration::from_secs(60), |_| {
            processes_with(mark).is_empty().then_some(())
        });
    machine
        .world
        .wait("the end of all mounts", Duration::from_secs(60), |_| {
            (!mounts_with(key)).then_some(())
        });
    assert_eq!(processes_with(&format!("{key}/")), Vec::<String>::new());
    let left: Vec<_> = fs::read_dir(machine.state.join("sessions").join(key))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["removed"]);
    let gone = machine.state.join("gone");
    machine
        .world
        .wait("the end of all files", Duration::from_secs(60), |_| {
            (fs::read_dir(&gone).unwrap().count() == 0).then_some(())
        });
    assert!(!machine.world.has_queue(&contract::names::agent_queue(key, 1)));
}

pub(crate) fn unique(name: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    )
}

/// The output of `command` in a session.
pub(crate) fn command(program: &[&str]) -> RunWish {
    RunWish {
        command: program.iter().map(|word| (*word).to_owned()).collect(),
        ..RunWish::default()
    }
}
