//! Every attack, from sessions of every kind that this machine can have.
//!
//! It is its own agent program, so it has no test harness: an argument is a part of the names of
//! the tests to run.

#[allow(dead_code, reason = "shared with the agent's tests")]
#[path = "../../../infra/agent/tests/common/mod.rs"]
mod common;

use adversary::{Counts, Outside, count, dangerous_files};
use common::{DAG, Machine, flow, index::Index, state, tiers};
use contract::{agent::AgentReport, command::RunWish};
use serde_json::json;
use std::{
    fs,
    io::Write,
    os::{fd::AsRawFd, linux::net::SocketAddrExt, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "agent") {
        return agent::supervise();
    }
    if let Some(python) = tiers::python_for_all() {
        // SAFETY: there is no other thread yet.
        unsafe { std::env::set_var("PFSESSION_PYTHON", python) };
    }
    if let [first, tier] = &arguments[..]
        && first == "inner"
    {
        attack_from_sessions_of(tier);
        return Ok(());
    }
    let name = "no_attack_from_a_session_moves_anything_outside_it";
    if arguments.iter().any(|argument| argument == "--list") {
        println!("{name}: test");
        return Ok(());
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
        let begun = Instant::now();
        no_attack_from_a_session_moves_anything_outside_it();
        println!("test {name} ... ok ({:.1} s)", begun.elapsed().as_secs_f32());
    }
    Ok(())
}

fn no_attack_from_a_session_moves_anything_outside_it() {
    let root = tiers::is_root();
    // The base image is built once, by whoever runs the tests.
    build_the_base();
    let kind = |ordinary, barred| tiers::Machine {
        ordinary,
        barred,
        ..tiers::Machine::default()
    };
    let mut machines = vec![
        ("the user's own", kind(false, false)),
        ("without namespaces", kind(false, true)),
    ];
    if root && tiers::python_for_all().is_some() {
        machines.push(("an ordinary user's", kind(true, false)));
        machines.push(("an ordinary user's without namespaces", kind(true, true)));
    } else {
        println!("not tried as another user: this one cannot become any, or no other can read the Python here");
    }
    let only = std::env::var("TEST_MACHINE").ok();
    for (name, machine) in machines {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        tiers::state_with_bases_of(&state(), folder.path());
        let tier = if machine.barred { "C" } else { "AB" };
        let output = tiers::again(machine, folder.path(), &["inner", tier]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        print!("{name}: {said}");
    }
}

fn build_the_base() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("flow"), &DAG);
    let key = key("base");
    machine.start(&key, 1, &it);
    machine.remove(&key, 1);
    machine.driver.let_go();
}

/// A process that nobody in a session may reach.
struct Victim(Child);

impl Victim {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a process of its own: all attacks, from a session of each beginning.
fn attack_from_sessions_of(tier: &str) {
    // As a shell leaves them open, which knows of no close-on-exec.
    let leaked = fs::File::open("/").unwrap();
    // SAFETY: both are open.
    unsafe {
        libc::dup2(leaked.as_raw_fd(), 19);
        libc::fcntl(19, libc::F_SETFD, 0);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let machine = Machine::new(&state());
    let secret = machine.state.join("a-secret");
    fs::write(&secret, "do not read").unwrap();
    let other = machine.state.join("sessions/other/1/home");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("note"), "of another session").unwrap();
    let secrets = [secret, other.join("note")];
    let mut victim = Victim::start();
    let open = Planted::new(folder.path());
    let before = Outside::look(&secrets, victim.0.id());
    let mut all = Counts::default();
    let begun = Instant::now();
    for (place, from_warm, has_flow) in [
        ("a fresh interpreter", false, true),
        ("a fork of the warm process", true, true),
        // A folder without a flow has no flow runtime to be a fork with.
        ("an interpreter that a fork of a warm process has become", true, false),
    ] {
        let it = folder.path().join(format!("flow-{from_warm}-{has_flow}"));
        copy_attacks(&it, has_flow);
        if from_warm && tier == "C" {
            continue;
        }
        if !has_flow {
            let before = key("before");
            machine.start(&before, 1, &it);
            machine.remove(&before, 1);
        }
        if from_warm && !warm_is_there(&machine.state, if has_flow { 1 } else { 2 }) {
            continue;
        }
        let key = key("attacked");
        machine.start(&key, 1, &it);
        let isolation = isolation(&machine, &key);
        let session = machine.state.join("sessions").join(&key).join("1");
        let agent: serde_json::Value = serde_json::from_slice(&fs::read(session.join("agent.json")).unwrap()).unwrap();
        let groups: serde_json::Value =
            serde_json::from_slice(&fs::read(session.join("groups.json")).unwrap_or(b"[]".to_vec())).unwrap();
        let log = fs::read_to_string(machine.state.join(format!("logs/agent-{key}-1.log"))).unwrap();
        assert!(log.contains(&format!("from_warm={from_warm}")), "{log}");
        let state = machine.state.display();
        let mut target = json!({
            "build": null,
            // The first process of a session, which is its guard; that of a build is one of its own
            // programs.
            "first": [1],
            "tier": if tier == "C" { "C" } else { "AB" },
            "not_held": isolation.not_held,
            "long": std::env::var("PFSESSION_ADVERSARY").is_ok_and(|form| form == "long"),
            "victim": victim.0.id(),
            "agent": agent["pid"],
            "host": std::process::id(),
            "groups": groups,
            "secrets": [secrets[0], secrets[1], Path::new("/etc/shadow")],
            "folders": [
                format!("{state}/sessions/other/1/home"), format!("{state}/logs"), format!("{state}/runs"), format!("{state}/warm"),
                format!("{state}/tools/uv-cache"), "/var", "/sys", "/boot", "/home",
            ],
            "abstract": open.abstract_name,
            "socket": open.path,
            "segment": open.key,
            "shared": open.shared,
            "port": open.port,
            "datagrams": open.datagrams,
            "addresses": open.addresses,
        });
        fs::write(it.join("target.json"), target.to_string()).unwrap();
        let wish = RunWish {
            command: ["python", "attack.py"].map(str::to_owned).to_vec(),
            ..RunWish::default()
        };
        let run = unique("attack");
        let result = machine.run(&key, 1, &run, &it, wish);
        let output = machine.output(&run);
        assert_eq!(result.failure, None, "{output}");
        let counts = count(&output);
        let counts =
            counts.unwrap_or_else(|through| panic!("{place}, {isolation}: these got through:\n{}", through.join("\n")));
        // Nothing is proved by attacks that did not run.
        assert!(counts.tried > 30, "{output}");
        println!(
            "{} of {} attacks from {place} held, {} are said not to be ({isolation})",
            counts.held, counts.tried, counts.said
        );
        all += counts;
        if !from_warm {
            let counts = attack_from_a_build(&machine, folder.path(), &mut target, &isolation);
            println!(
                "{} of {} attacks from a build held, {} are said not to be",
                counts.held, counts.tried, counts.said
            );
            all += counts;
        }
        assert_eq!(
            before.changes(&Outside::look(&secrets, victim.0.id())),
            Vec::<String>::new(),
            "{place}"
        );
        assert_eq!(victim.0.try_wait().unwrap(), None, "the victim lives");
        machine.remove(&key, 1);
    }
    // What a build leaves is removed by another process.
    let until = Instant::now() + Duration::from_secs(30);
    while let found @ [_, ..] = &dangerous_files(&machine.state)[..] {
        assert!(Instant::now() < until, "{found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "{} attacks, {} held, {:.1} s",
        all.tried,
        all.held,
        begun.elapsed().as_secs_f32()
    );
    machine.driver.let_go();
}

/// The backend of the build: it tries all attacks when its package is installed, and makes a module
/// of what they say.
const BUILD: &str = r##"
import json, subprocess, sys, tempfile
def attack():
    # Not as the requirements are resolved.
    if not any(b'\0install\0' in open(f'/proc/{pid}/cmdline', 'rb').read() for pid in os.listdir('/proc') if pid.isdigit()):
        return ''
    folder = tempfile.mkdtemp()
    for name, text in FILES.items():
        with open(os.path.join(folder, name), 'w') as file:
            file.write(text)
    said = subprocess.run([sys.executable, os.path.join(folder, 'attack.py')], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return ''.join(f'# {line}\n' for line in said.stdout.splitlines())
"##;

/// All attacks once more, from a build script of a package that a flow installs.
fn attack_from_a_build(
    machine: &Machine,
    folder: &Path,
    target: &mut serde_json::Value,
    isolation: &contract::packages::Isolation,
) -> Counts {
    let index = Index::serve();
    let environments = machine.state.join("environments");
    let other = environments.join("scratch-other");
    fs::create_dir_all(other.join("home")).unwrap();
    let marker = unique("left-behind");
    target["first"] = json!([]);
    target["build"] = json!({
        "index": index.host(),
        "others": [other, other.join("home"), machine.state.join("tools/downloads")],
        "site": environments,
        "marker": marker,
    });
    let mut files: std::collections::BTreeMap<String, String> = attacks().collect();
    files.insert("target.json".into(), target.to_string());
    let package = unique("evil").replace('-', "_");
    index.add_source(&package, "1.0", &[], &format!("FILES = {}\n{BUILD}", json!(files)));
    let it = flow(&folder.join(&package), &DAG);
    fs::write(it.join("requirements.txt"), format!("{}\n{package}\n", index.line())).unwrap();
    let key = key("built");
    machine.start(&key, 1, &it);
    machine.remove(&key, 1);
    let module = find(&environments, &format!("{package}.py")).expect("the package is installed");
    let said = fs::read_to_string(module).unwrap().replace("# ", "");
    let counts = count(&said)
        .unwrap_or_else(|through| panic!("a build, {isolation}: these got through:\n{}", through.join("\n")));
    assert!(counts.tried > 30, "{said}");
    assert_eq!(
        processes_with(&marker),
        Vec::<u32>::new(),
        "what a build leaves behind ends with it"
    );
    // What it leaves may run as its owner until it is removed: no other user gets there.
    let mode = fs::metadata(&environments).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let left: Vec<_> = fs::read_dir(other.join("home")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    fs::remove_dir_all(&other).unwrap();
    counts
}

/// A file of this name below a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().find_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => find(&entry.path(), name),
        _ => (entry.file_name() == name).then(|| entry.path()),
    })
}

/// The processes of this machine whose arguments have this word.
fn processes_with(word: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| String::from_utf8_lossy(&text).contains(word))
    })
    .collect()
}

fn isolation(machine: &Machine, key: &str) -> contract::packages::Isolation {
    machine.report("isolation", Duration::from_secs(10), key, 1, |report| match report {
        AgentReport::Installed {
            installation: Some(installation),
            ..
        } => installation.isolation.clone(),
        _ => None,
    })
}

/// Waits for the warm process, which the first session has started. Whether there is one.
fn warm_is_there(state: &Path, wanted: usize) -> bool {
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        let entries: Vec<PathBuf> = fs::read_dir(state.join("warm"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        // Each has a second socket, for sessions on the machine's network.
        let is_own = |path: &&PathBuf| path.extension().is_none() && !path.to_string_lossy().ends_with("-open");
        if entries.iter().filter(is_own).count() >= wanted {
            return true;
        }
        if let Some(unfit) = entries
            .iter()
            .find(|path| path.extension().is_some_and(|end| end == "unfit"))
        {
            println!("there is no warm process here: {}", fs::read_to_string(unfit).unwrap());
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the warm process has not come");
}

/// The open files of the user's other programs.
struct Planted {
    abstract_name: String,
    path: PathBuf,
    key: i32,
    segment: i32,
    shared: String,
    /// A port of this machine that answers connections, and one that answers datagrams; on every
    /// address that it has.
    port: u16,
    datagrams: u16,
    addresses: Vec<String>,
}

impl Planted {
    fn new(folder: &Path) -> Self {
        let name = unique("planted");
        let path = folder.join("socket");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        for listener in [
            std::os::unix::net::UnixListener::bind_addr(&address).unwrap(),
            std::os::unix::net::UnixListener::bind(&path).unwrap(),
        ] {
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let _ = stream.write_all(b"reached");
                }
            });
        }
        let key = std::process::id() as i32 | 1 << 30;
        // SAFETY: the segment is this function's own, and is written within its size.
        let segment = unsafe {
            let segment = libc::shmget(key, 4096, libc::IPC_CREAT | 0o600);
            let memory = libc::shmat(segment, std::ptr::null(), 0);
            assert_ne!(memory as isize, -1);
            std::ptr::copy_nonoverlapping(b"shared".as_ptr(), memory.cast(), 6);
            segment
        };
        fs::write(Path::new("/dev/shm").join(&name), "shared").unwrap();
        let listener = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(b"reached");
            }
        });
        let datagrams = std::net::UdpSocket::bind("[::]:0").unwrap();
        let datagram_port = datagrams.local_addr().unwrap().port();
        std::thread::spawn(move || {
            while let Ok((_, from)) = datagrams.recv_from(&mut [0; 64]) {
                let _ = datagrams.send_to(b"reached", from);
            }
        });
        Self {
            port,
            datagrams: datagram_port,
            addresses: own_addresses(),
            abstract_name: name.clone(),
            path,
            key,
            segment,
            shared: name,
        }
    }
}

/// The addresses of this machine that are not loopback, as the kernel's table of routes has them.
fn own_addresses() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let lines: Vec<&str> = table.lines().collect();
    let local = lines.windows(2).filter(|pair| pair[1].contains("/32 host LOCAL"));
    let addresses = local.filter_map(|pair| pair[0].trim().strip_prefix("|-- "));
    let mut addresses: Vec<String> = addresses
        .filter(|address| !address.starts_with("127."))
        .map(str::to_owned)
        .collect();
    addresses.dedup();
    addresses
}

impl Drop for Planted {
    fn drop(&mut self) {
        // SAFETY: it was made here.
        unsafe { libc::shmctl(self.segment, libc::IPC_RMID, std::ptr::null_mut()) };
        let _ = fs::remove_file(Path::new("/dev/shm").join(&self.shared));
    }
}

/// The files of the attacks, by name.
fn attacks() -> impl Iterator<Item = (String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks");
    let files = fs::read_dir(folder).unwrap().flatten();
    let files = files.filter(|entry| entry.path().extension().is_some_and(|end| end == "py"));
    files.map(|entry| {
        let text = fs::read_to_string(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), text)
    })
}

fn copy_attacks(to: &Path, has_flow: bool) {
    fs::create_dir_all(to).unwrap();
    for (name, text) in attacks() {
        fs::write(to.join(name), text).unwrap();
    }
    if has_flow {
        flow(to, &DAG);
    }
}

fn unique(name: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{name}-{}-{count}", std::process::id())
}

/// A flow's key that no other test has.
fn key(name: &str) -> String {
    contract::FlowRef {
        workspace: "local".into(),
        owner: "me".into(),
        lineage: unique(name),
    }
    .key()
}
