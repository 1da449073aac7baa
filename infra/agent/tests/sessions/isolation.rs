//! The view and the rights of a session, in each tier.

use super::*;

pub(crate) const LOOK: &str = r#"
import os, pathlib, socket, ctypes, subprocess
def readable(path):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1)
        return True
    except OSError:
        return False
def main() -> dict:
    status = dict(line.split(':\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\t' in line)
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        'parent': os.getppid(), 'uid': os.getuid(), 'pids': sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[:2],
        'caps': [status[name] for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')], 'no_new_privs': status['NoNewPrivs'], 'seccomp': status['Seccomp'],
        'root': sorted(os.listdir('/')), 'seen': [path for path in PATHS if readable(path)],
        'write': [path for path in ('/', '/usr', '/etc', PREFIX, '/proc/sys/kernel') if os.access(path, os.W_OK)],
        'unshare': libc.unshare(0x10000000), 'errno': ctypes.get_errno(), 'mount': libc.mount(b'none', b'/tmp', b'tmpfs', 0, None),
        'ptrace': libc.ptrace(16, 1, 0, 0), 'memory': readable('/proc/1/mem'), 'environ': readable('/proc/1/environ'),
        'sub': subprocess.run(['/bin/sh', '-c', 'id -u'], capture_output=True, text=True).stdout.strip(),
        'host': socket.gethostname(), 'variables': sorted(os.environ),
    }
"#;

pub(crate) fn a_flow_sees_its_own_folder_and_nothing_of_the_machine() {
    let state = state();
    let home = std::env::var("HOME").unwrap();
    let secret = tempfile::NamedTempFile::new_in(&home).unwrap();
    let hidden = [
        secret.path().display().to_string(),
        format!("{home}/.ssh"),
        format!("{home}/.cargo"),
        "/etc/shadow".into(),
        "/var".into(),
        "/sys".into(),
        "/boot".into(),
        env!("CARGO_MANIFEST_DIR").into(),
        state.join("sessions").join("other").display().to_string(),
        state.join("warm").display().to_string(),
        state.join("logs").display().to_string(),
        state.join("runs").display().to_string(),
        state.join("tools/downloads").display().to_string(),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let probed = runtime.block_on(sandbox::probe(&state)).unwrap();
    println!("sessions here are kept apart by {probed}");
    if probed.tier == sandbox::Tier::D {
        return println!("no sandbox can be made here, so there is nothing to look at");
    }
    let code = LOOK
        .replace("PATHS", &format!("{hidden:?}"))
        .replace("PREFIX", "os.path.dirname(os.__file__)");
    let seen = output(&once("look", &code));
    // Outside its namespace of processes it would be 0.
    assert!(
        seen["parent"].as_u64().is_some_and(|parent| (1..100).contains(&parent)),
        "{seen:#}"
    );
    assert_eq!(seen["pids"][0], 1, "{seen:#}");
    assert_eq!(seen["uid"], 1000, "{seen:#}");
    assert_eq!(seen["caps"], json!(vec!["0000000000000000"; 5]), "{seen:#}");
    assert_eq!(
        (&seen["no_new_privs"], &seen["seccomp"]),
        (&json!("1"), &json!("2")),
        "{seen:#}"
    );
    assert_eq!(seen["seen"], json!([]), "{seen:#}");
    assert_eq!(seen["write"], json!([]), "{seen:#}");
    assert_eq!(
        (&seen["unshare"], &seen["errno"], &seen["mount"], &seen["ptrace"]),
        (&json!(-1), &json!(1), &json!(-1), &json!(-1)),
        "{seen:#}"
    );
    assert_eq!(
        (&seen["memory"], &seen["environ"]),
        (&json!(false), &json!(false)),
        "{seen:#}"
    );
    assert_eq!(seen["sub"], "1000", "{seen:#}");
    assert_eq!(seen["host"], "session", "{seen:#}");
    for name in seen["variables"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        assert!(
            !name.starts_with("AWS_") && !name.starts_with("CARGO") && name != "PYTHONUNBUFFERED",
            "{name} is in the flow's variables"
        );
    }
}

pub(crate) const GREEDY: &str = r#"
import ctypes, os, time
def main(mb: int = 1, seconds: float = 0, threads: int = 0) -> dict:
    sum(bytearray(int(mb) << 20)[:: 1 << 12])
    # Two processes at once.
    begun, child = sum(os.times()[:4]), os.fork()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    used = sum(os.times()[:4]) - begun
    # Threads that are not Python's, as thousands of these wait for each other.
    libc, attributes, alive = ctypes.CDLL(None), ctypes.create_string_buffer(64), 0
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(1 << 16))
    while alive < threads and not libc.pthread_create(ctypes.byref(ctypes.c_ulong()), attributes, libc.pause, None):
        alive += 1
    return {'processors': used / seconds if seconds else 0, 'threads': alive}
"#;

pub(crate) fn a_session_is_held_to_its_vm_size_where_groups_can_be_made_and_says_so_where_not() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), GREEDY);
    let key = key(&unique("size"));
    machine.create_compute("c1");
    let sized = contract::Settings {
        size: "Standard_B1s".to_owned().into(),
        ..settings(&it)
    };
    let mut request = Machine::launch_request(&key, 1, "c1", &it);
    let ComputeRequest::LaunchSession { settings, .. } = &mut request else {
        unreachable!()
    };
    *settings = sized.clone();
    machine.ask(request);
    let operation = unique("size");
    let command = AgentCommand::Install {
        operation: operation.clone(),
        attempt: 1,
        settings: sized,
        lock: None,
        resolve: false,
    };
    machine.tell(&key, 1, &command);
    assert_eq!(machine.ended_install(&key, 1, &operation), None);
    let isolation = installation(&machine, &key).isolation.unwrap();
    println!("{isolation}");
    let small = |mb: u32| RunWish {
        inputs: BTreeMap::from([("mb".into(), json!(mb))]),
        ..RunWish::default()
    };
    output(&machine.run(&key, 1, &unique("little"), &it, small(64)));
    let groups = machine.state.join("sessions").join(&key).join("1/groups.json");
    let groups: Vec<std::path::PathBuf> = serde_json::from_slice(&fs::read(groups).unwrap_or(b"[]".to_vec())).unwrap();
    match isolation.tier {
        sandbox::Tier::A => {
            assert!(
                !isolation.not_held.iter().any(|lack| lack.contains("cgroup")),
                "{isolation}"
            );
            let limits: Vec<String> = [
                "cpu.cfs_quota_us",
                "cpu.max",
                "memory.limit_in_bytes",
                "memory.max",
                "pids.max",
            ]
            .iter()
            .filter_map(|file| {
                groups
                    .iter()
                    .find_map(|group| fs::read_to_string(group.join(file)).ok())
            })
            .map(|text| text.trim().to_owned())
            .collect();
            assert!(
                limits == ["100000", "1073741824", "4096"] || limits == ["100000 100000", "1073741824", "4096"],
                "{limits:?}"
            );
            // It has one processor, and no more processes and threads than 4096.
            let wish = RunWish {
                inputs: BTreeMap::from([("seconds".into(), json!(2)), ("threads".into(), json!(5000))]),
                ..RunWish::default()
            };
            let seen = output(&machine.run(&key, 1, &unique("busy"), &it, wish));
            println!("{seen}");
            assert!(seen["processors"].as_f64().unwrap() < 1.3, "{seen}");
            assert!((2000..4096).contains(&seen["threads"].as_u64().unwrap()), "{seen}");
            let result = machine.run(&key, 1, &unique("much"), &it, small(1500));
            let failure = result.failure.unwrap().to_string();
            let begins = "Run.OutOfMemory: The run needed more memory than the session's VM size gives. Take a larger one, or give the flow less at \
                          once, and run again.";
            assert!(failure.starts_with(begins), "{failure}");
            // So is that of a child, whose shell says 137.
            let much = ["sh", "-c", "python -c 'len(b\"x\" * (1500 << 20))'"];
            let wish = RunWish {
                command: much.map(str::to_owned).to_vec(),
                ..RunWish::default()
            };
            let result = machine.run(&key, 1, &unique("child"), &it, wish);
            let failure = result.failure.unwrap().to_string();
            assert!(
                failure.starts_with(begins) && result.exit_code == Some(137),
                "{failure} {:?}",
                result.exit_code
            );
            // The session goes on.
            output(&machine.run(&key, 1, &unique("little"), &it, small(64)));
        }
        _ => {
            println!("no groups can be made here, so there is nothing that could hold it");
            assert!(
                isolation.not_held.iter().any(|lack| lack.starts_with("memory")),
                "{isolation}"
            );
        }
    }
    machine.remove(&key, 1);
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

pub(crate) fn each_tier_holds_what_it_says_as_an_ordinary_user_and_as_root() {
    let root = tiers::is_root();
    let Some(python) = tiers::python_for_all().or_else(|| (!root).then(|| "python3".into())) else {
        return println!("no other user can read the Python of this machine, so there is no such session");
    };
    println!("with {}", python.display());
    // The base image is built once, by whoever runs the tests.
    assert_eq!(once("base", "def main() -> str:\n    return 'there'\n").failure, None);
    let ordinary = tiers::Machine {
        ordinary: root,
        ..tiers::Machine::default()
    };
    let mut machines = vec![
        ("B", ordinary),
        (
            "C",
            tiers::Machine {
                barred: true,
                ..ordinary
            },
        ),
    ];
    if root && !tiers::groups_to_delegate().is_empty() {
        machines.push((
            "A",
            tiers::Machine {
                delegated: true,
                ..ordinary
            },
        ));
    } else {
        println!("tier A is not tried as an ordinary user: nothing can be delegated here");
    }
    if root {
        // Tier A as root is what all the other tests are.
        let barred = tiers::Machine {
            barred: true,
            ..tiers::Machine::default()
        };
        machines.push(("C", barred));
    }
    let only = std::env::var("TEST_TIER").ok();
    for (tier, machine) in machines {
        if only.as_ref().is_some_and(|only| only != tier) {
            continue;
        }
        if !root && tier == "B" {
            // What all the other tests are.
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        tiers::state_with_bases_of(&state(), folder.path());
        let output = tiers::again(machine, folder.path(), &["inner", tier]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tier {tier} ({machine:?}): {said}");
        print!("{said}");
    }
}

pub(crate) const INSIDE: &str = r#"
import ctypes, importlib, os, pathlib, subprocess, sys
def tried(what):
    try:
        what()
        return True
    except (OSError, ImportError) as error:
        return False
def main(agent: int, hidden: str) -> dict:
    import alpha
    hidden = hidden.split(':')
    site = pathlib.Path(importlib.import_module('promptflow.core').__file__).parents[2]
    own = pathlib.Path(os.environ.get('PIP_TARGET', site))
    own.joinpath('byhand.py').write_text('word = 1')
    made = own / 'byhand-1.0.dist-info'
    made.mkdir(exist_ok=True)
    made.joinpath('METADATA').write_text('Name: byhand')
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        'alpha': alpha.version, 'uid': os.getuid(),
        'hidden': [path for path in hidden if tried(lambda: os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1))],
        'written': [path for path in hidden + ['/usr/x', str(pathlib.Path(alpha.__file__).parent / 'y')] if path.startswith('/') and not os.path.isdir(path) and tried(lambda: open(path, 'ab'))],
        'home': tried(lambda: pathlib.Path.home().joinpath('mine').write_text('x')), 'tmp': tried(lambda: __import__('tempfile').TemporaryFile()),
        'kill': tried(lambda: os.kill(agent, 0)), 'environ': tried(lambda: open(f'/proc/{agent}/environ').read()),
        'ptrace': libc.ptrace(16, agent, 0, 0), 'unshare': libc.unshare(0x10000000), 'byhand': __import__('byhand').word,
        'child': subprocess.run([sys.executable, '-c', 'import alpha, byhand, os; print(os.getuid())'], capture_output=True, text=True).stdout.strip(),
    }
"#;

/// In a process of its own, which `each_tier_holds_what_it_says_as_an_ordinary_user_and_as_root`
/// starts: a session of this tier holds what it says.
pub(crate) fn a_session_of_tier(tier: &str) {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    index.add("alpha", "1.0", &[]);
    let it = flex(&folder.path().join("flow"), INSIDE);
    fs::write(it.join("requirements.txt"), index.line() + "\nalpha\n").unwrap();
    let key = key(&unique("tier"));
    machine.start(&key, 1, &it);
    let isolation = installation(&machine, &key).isolation.unwrap();
    println!("tier {tier} as user {}: {isolation}", unsafe { libc::getuid() });
    assert_eq!(format!("{:?}", isolation.tier), tier, "{isolation}");
    let (agent, _) = process_ids(&machine, &key, 1);
    let state = machine.state.display();
    // What the user itself may read, all of it.
    let secret = machine.state.join("a-secret");
    fs::write(&secret, "x").unwrap();
    fs::create_dir_all(machine.state.join("sessions/other/1/home")).unwrap();
    let hidden = [
        secret.display().to_string(),
        folder.path().display().to_string(),
        format!("{state}/sessions/other/1/home"),
        format!("{state}/logs"),
        format!("{state}/runs"),
        format!("{state}/tools/downloads"),
        "/etc/hostname".into(),
        "/var".into(),
        "/sys".into(),
    ];
    let wish = RunWish {
        inputs: BTreeMap::from([
            ("agent".into(), json!(agent)),
            ("hidden".into(), json!(hidden.join(":"))),
        ]),
        ..RunWish::default()
    };
    let run = unique("inside");
    let result = machine.run(&key, 1, &run, &it, wish);
    assert_eq!(result.failure, None, "{}", machine.output(&run));
    let seen = output(&result);
    assert_eq!(
        (&seen["alpha"], &seen["byhand"]),
        (&json!("1.0"), &json!(1)),
        "{seen:#}"
    );
    assert_eq!(seen["hidden"], json!([]), "{seen:#}");
    // With a root of its own it writes into that, which is nobody else's; without one it writes
    // nowhere.
    if tier == "C" {
        assert_eq!(seen["written"], json!([]), "{seen:#}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "x");
    let lock = installation(&machine, &key).lock;
    let site = machine.state.join("environments").join(lock).join("lib");
    let planted = fs::read_dir(site)
        .unwrap()
        .flatten()
        .find(|python| python.path().join("site-packages/alpha/y").exists());
    assert!(planted.is_none());
    assert_eq!((&seen["home"], &seen["tmp"]), (&json!(true), &json!(true)), "{seen:#}");
    assert_eq!(
        (&seen["ptrace"], &seen["unshare"]),
        (&json!(-1), &json!(-1)),
        "{seen:#}"
    );
    assert_eq!(seen["environ"], json!(false), "{seen:#}");
    let says = |what: &str| isolation.not_held.iter().any(|lack| lack.contains(what));
    assert_eq!(seen["kill"] == json!(true), says("signals"), "{seen:#} {isolation}");
    let uid = seen["uid"].to_string();
    assert_eq!(seen["child"].as_str(), Some(uid.as_str()), "{seen:#}");
    let by_hand = installation(&machine, &key).by_hand;
    assert_eq!(by_hand.len(), 1, "{by_hand:?}");
    machine.remove(&key, 1);
    machine.driver.let_go();
    assert_eq!(processes_with(&format!("{key}/")), Vec::<String>::new());
}

pub(crate) fn two_sessions_with_one_environment_cannot_see_or_change_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let code = r#"
import os, promptflow.core, tabulate, pathlib, sys
def main(word: str) -> dict:
    site = pathlib.Path(tabulate.__path__[0]).parent if hasattr(tabulate, '__path__') else pathlib.Path(tabulate.__file__).parent
    before = (site / 'planted.py').exists(), pathlib.Path.home().joinpath('note').exists(), os.path.exists('/tmp/note')
    (site / 'planted.py').write_text(f'word = {word!r}')
    target = site / 'promptflow' / '_version.py'
    target.unlink()
    target.write_text(f'VERSION = {word!r}')
    pathlib.Path.home().joinpath('note').write_text(word)
    open('/tmp/note', 'w').write(word)
    import planted
    return {'before': list(before), 'word': planted.word, 'version': target.read_text(), 'site': str(site)}
"#;
    let (a, b) = (
        flex(&folder.path().join("a"), code),
        flex(&folder.path().join("b"), code),
    );
    let (one, two) = (key(&unique("a")), key(&unique("b")));
    machine.start(&one, 1, &a);
    machine.start(&two, 1, &b);
    let first = output(&machine.run(&one, 1, &unique("a"), &a, inputs("word", "mine")));
    let second = output(&machine.run(&two, 1, &unique("b"), &b, inputs("word", "yours")));
    for (seen, word) in [(&first, "mine"), (&second, "yours")] {
        assert_eq!(seen["before"], json!([false, false, false]), "{seen:#}");
        assert_eq!(seen["word"], word);
        assert!(seen["version"].as_str().unwrap().contains(word));
    }
    // The session itself goes on seeing what it wrote; the store does not.
    let again = output(&machine.run(&one, 1, &unique("a"), &a, inputs("word", "mine")));
    assert_eq!(again["before"], json!([true, true, true]));
    let site = Path::new(first["site"].as_str().unwrap());
    assert!(!site.join("planted.py").exists());
    assert!(
        !fs::read_to_string(site.join("promptflow/_version.py"))
            .unwrap()
            .contains("mine")
    );
    assert!(
        fs::metadata(site.join("tabulate/__init__.py"))
            .unwrap()
            .permissions()
            .readonly()
    );
    machine.remove(&one, 1);
    machine.remove(&two, 1);
}

pub(crate) fn nothing_in_a_sandbox_reaches_the_agents_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("it"), &DAG);
    let key = key(&unique("secrets"));
    machine.start(&key, 1, &it);
    let secret = format!("secret-of-{key}-1");
    assert!(
        machine
            .world
            .credentials
            .lock()
            .unwrap()
            .values()
            .any(|known| *known == secret)
    );
    assert_eq!(processes_with(&secret), Vec::<String>::new());
    let mut files = vec![machine.state.clone()];
    while let Some(folder) = files.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && name != "environments" && name != "downloads" {
                files.push(entry.path());
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                assert!(
                    !bytes.windows(secret.len()).any(|part| part == secret.as_bytes()),
                    "{} holds it",
                    entry.path().display()
                );
            }
        }
    }
    machine.remove(&key, 1);
    assert!(
        machine
            .world
            .credentials
            .lock()
            .unwrap()
            .values()
            .all(|known| *known != secret)
    );
    assert!(!machine.world.has_queue(&contract::names::agent_queue(&key, 1)));
}
