//! The service on this machine, as the commands find, start, replace and end it. It is the real one.

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

fn kill(pid: i32, signal: nix::sys::signal::Signal) {
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
fn a_host_that_was_killed_is_started_again_and_down_ends_it() {
    let machine = Machine::new();
    machine.succeed(&["list"]);
    let first = machine.pid();
    kill(first, nix::sys::signal::Signal::SIGKILL);
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
    kill(machine.pid(), nix::sys::signal::Signal::SIGINT);
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
