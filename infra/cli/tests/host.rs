//! The service on this machine, as the commands find, start, replace and end it. It is the real
//! one.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

const PFSESSION: &str = env!("CARGO_BIN_EXE_pfsession");

/// A machine on which nothing was done yet. Its host ends with it.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path());
        // Its signals reach the command alone.
        command.args(["--foreground", "60"]).arg(program).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(Path::new(PFSESSION), arguments).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(Path::new(PFSESSION), arguments).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join(".local/state/pfsession")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.state().join("log/host.log")).unwrap_or_default()
    }

    fn host(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.state().join("host.json")).ok()?).ok()
    }

    fn pid(&self) -> i32 {
        self.host().expect("a host runs")["pid"]
            .as_i64()
            .unwrap()
            .try_into()
            .unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

fn kill(pid: i32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

fn is_running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn commands_at_once_on_a_new_machine_use_one_host() {
    let machine = Machine::new();
    let commands: Vec<_> = (0..6).map(|_| machine.start(&["list", "--json"])).collect();
    for command in commands {
        let output = command.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "{\"sessions\":[]}\n",
            "{output:?}\n{}",
            machine.log()
        );
    }
    assert_eq!(
        machine.log().matches("the host answers").count(),
        1,
        "{}",
        machine.log()
    );
}

#[test]
fn the_service_holds_no_lock_and_no_variable_of_who_started_it() {
    let machine = Machine::new();
    let lock = machine.folder.path().join("lock");
    let script = "exec 9>\"$1\"; flock -n 9 && trap '' INT HUP && umask 0 && exec \"$2\" list";
    let mut command = machine.command(
        Path::new("/bin/sh"),
        &["-c", script, "sh", lock.to_str().unwrap(), PFSESSION],
    );
    // Its end comes only when nobody holds the pipes any more.
    let output = command.env("SECRET", "x").output().unwrap();
    assert!(output.status.success(), "{output:?}\n{}", machine.log());
    fs::File::open(&lock).unwrap().try_lock().unwrap();
    let of = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", machine.pid())).unwrap();
    assert!(!of("environ").contains("SECRET"));
    let status = of("status");
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("Umask:").ends_with("0022"), "{status}");
    let ignored = line("SigIgn:");
    let ignored = u64::from_str_radix(ignored.rsplit('\t').next().unwrap(), 16).unwrap();
    assert_eq!(ignored & 0b11, 0, "{status}");
    assert_eq!(
        fs::read_link(format!("/proc/{}/cwd", machine.pid())).unwrap(),
        Path::new("/")
    );
}

#[test]
fn a_host_that_was_killed_is_started_again_and_down_ends_it() {
    let machine = Machine::new();
    machine.succeed(&["list"]);
    let first = machine.pid();
    kill(first, Signal::SIGKILL);
    machine.succeed(&["list"]);
    let second = machine.pid();
    assert_ne!(first, second);
    machine.succeed(&["down"]);
    assert!(!is_running(second) && machine.host().is_none());
    let nothing = machine.run(&["down"]);
    assert!(
        nothing.status.success() && String::from_utf8_lossy(&nothing.stderr).contains("No service runs"),
        "{nothing:?}"
    );
}

#[test]
fn down_lets_go_what_waits_ready_also_if_its_host_was_killed() {
    // Killed before the command looks for it, and once the command has found it.
    for is_found in [false, true] {
        let machine = Machine::new();
        machine.succeed(&["list"]);
        let host = machine.pid();
        kill(host, if is_found { Signal::SIGSTOP } else { Signal::SIGKILL });
        // A warm process ends when these are gone.
        let warm = machine.state().join("warm");
        fs::create_dir_all(&warm).unwrap();
        let files = ["0", "0-open", "0.lock", "0.log", "0.unfit"];
        for name in files {
            fs::write(warm.join(name), "").unwrap();
        }
        let down = machine.start(&["down"]);
        if is_found {
            while !child_has_a_socket(down.id()) {
                std::thread::yield_now();
            }
            kill(host, Signal::SIGKILL);
        }
        let output = down.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let left: Vec<_> = files.into_iter().filter(|name| warm.join(name).exists()).collect();
        assert_eq!(left, ["0.log", "0.unfit"]);
    }
}

/// Whether the child of a process (the command below its `timeout`) has opened a socket.
fn child_has_a_socket(parent: u32) -> bool {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().any(|child| {
        fs::read_dir(format!("/proc/{child}/fd")).is_ok_and(|open| {
            open.flatten()
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|to| to.to_string_lossy().starts_with("socket:"))
        })
    })
}

#[test]
fn a_host_of_another_build_is_replaced() {
    let machine = Machine::new();
    let other = machine.folder.path().join("pfsession-of-another-build");
    fs::copy(PFSESSION, &other).unwrap();
    machine.succeed(&["list"]);
    let first = machine.pid();
    let output = machine.command(&other, &["list"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!is_running(first));
    assert_ne!(machine.pid(), first);
}

#[test]
fn up_keeps_the_service_also_if_a_command_had_started_it_for_a_while() {
    let machine = Machine::new();
    let arguments = |machine: &Machine| fs::read_to_string(format!("/proc/{}/cmdline", machine.pid())).unwrap();
    machine.succeed(&["list"]);
    assert!(arguments(&machine).contains("--idle-exit"));
    machine.succeed(&["up"]);
    let kept = machine.pid();
    assert!(!arguments(&machine).contains("--idle-exit"));
    let json: Value = serde_json::from_str(&machine.succeed(&["up", "--json"])).unwrap();
    assert_eq!((json["pid"].as_i64(), machine.pid()), (Some(kept.into()), kept));
}

#[test]
fn a_service_in_the_foreground_ends_with_the_command() {
    let machine = Machine::new();
    let mut command = Command::new(PFSESSION);
    command
        .args(["up", "--foreground"])
        .env("HOME", machine.folder.path())
        .env_remove("XDG_STATE_HOME")
        .env_remove("PFSESSION_STATE");
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    // What it says on its way out is read too, so that it is not held up.
    let mut said = said.map_while(Result::ok);
    assert!(said.any(|line| line.starts_with("The service runs at http://127.0.0.1:")));
    assert_eq!(machine.pid(), i32::try_from(child.id()).unwrap());
    kill(machine.pid(), Signal::SIGINT);
    said.for_each(drop);
    assert!(child.wait().unwrap().success());
}

#[test]
fn env_is_what_a_shell_evaluates_and_its_secrets_are_in_no_log() {
    let machine = Machine::new();
    let printed = machine.succeed(&["env"]);
    let host = machine.host().unwrap();
    for (name, key) in [
        ("AWS_ENDPOINT_URL", "endpoint"),
        ("AWS_REGION", "region"),
        ("AWS_ACCESS_KEY_ID", "access_key_id"),
        ("AWS_SECRET_ACCESS_KEY", "secret_access_key"),
        ("PFSESSION_COMMANDS_URL", "commands_queue_url"),
    ] {
        let shell = Command::new("sh")
            .arg("-c")
            .arg(format!("{printed} printf %s \"${name}\""))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&shell.stdout),
            host[key].as_str().unwrap(),
            "{name}"
        );
    }
    for secret in ["secret_access_key", "token"] {
        assert!(!machine.log().contains(host[secret].as_str().unwrap()), "{secret}");
    }
}

#[test]
fn a_folder_that_cannot_be_had_is_said_in_a_sentence_with_its_own_exit_code() {
    let machine = Machine::new();
    let output = machine.run(&["list", "--state", "/dev/null/state", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(said.contains("/dev/null/state") && said.contains("--state"), "{said}");
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["error"],
        "Service.NotStarted"
    );
}

#[test]
fn a_host_that_dies_as_it_starts_leaves_its_last_words_to_who_wanted_it() {
    let machine = Machine::new();
    let mut command = machine.command(Path::new(PFSESSION), &["list"]);
    let output = command.env("PFSESSION_FAULTS", "no such fault").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no such fault"),
        "{output:?}"
    );
}

#[test]
fn a_function_that_is_none_is_refused() {
    let machine = Machine::new();
    for name in [vec!["function"], vec!["function", "make-coffee"]] {
        let output = machine.run(&name);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("is no function"),
            "{output:?}"
        );
    }
}

#[test]
fn what_nobody_takes_ends_a_command_as_it_ends_others() {
    use std::os::unix::process::ExitStatusExt;
    let machine = Machine::new();
    machine.succeed(&["list"]);
    for arguments in [
        &["list", "--json"][..],
        &["env"],
        &["completions", "bash"],
        &["man"],
        &["schema", "list"],
        &["--help"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = machine.command(Path::new(PFSESSION), arguments);
        let output = command.stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("No space left") && said.contains("Command.NotPrinted"),
            "{said}"
        );
    }
    assert_eq!(
        unread(&machine, &["list", "--json"]).signal(),
        Some(Signal::SIGPIPE as i32)
    );
}

#[test]
fn down_is_done_to_its_end_also_if_nobody_reads_what_it_says() {
    let machine = Machine::new();
    machine.succeed(&["list"]);
    let host = machine.pid();
    assert!(unread(&machine, &["down", "--stop-sessions"]).success());
    assert_eq!(machine.host(), None);
    assert!(!is_running(host));
}

/// The end of a command whose output has no reader.
fn unread(machine: &Machine, arguments: &[&str]) -> std::process::ExitStatus {
    let mut command = Command::new(PFSESSION);
    command.args(arguments).env("HOME", machine.folder.path());
    command.env_remove("XDG_STATE_HOME").env_remove("PFSESSION_STATE");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    child.wait().unwrap()
}

#[test]
fn who_takes_the_port_of_a_host_that_has_gone_hears_nothing_of_a_command() {
    let machine = Machine::new();
    machine.succeed(&["list"]);
    let endpoint = machine.host().unwrap()["endpoint"].as_str().unwrap().to_owned();
    kill(machine.pid(), Signal::SIGKILL);
    let place = endpoint.trim_start_matches("http://");
    // It is free once the last thread of the host has gone.
    let stranger = loop {
        if let Ok(stranger) = std::net::TcpListener::bind(place) {
            break stranger;
        }
    };
    stranger.set_nonblocking(true).unwrap();
    machine.succeed(&["list"]);
    machine.succeed(&["down"]);
    let heard = stranger.accept().map(|_| ()).unwrap_err();
    assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_store_that_others_write_to_is_refused_before_anything_of_it_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    let store = machine.folder.path().join("store");
    fs::create_dir_all(store.join("environments")).unwrap();
    fs::set_permissions(store.join("environments"), fs::Permissions::from_mode(0o777)).unwrap();
    let with_store = |machine: &Machine| {
        let mut command = machine.command(Path::new(PFSESSION), &["list"]);
        command.env("PFSESSION_STORE", &store).output().unwrap()
    };
    let output = with_store(&machine);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(said.contains("may be changed by others"), "{said}");
    fs::set_permissions(store.join("environments"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(with_store(&machine).status.success(), "{}", machine.log());
    let mode = fs::metadata(store.join("environments")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
