//! The service on this machine: found, started, replaced, ended.
//!
//! A running host keeps `<state>/host.json` and takes connections at the socket beside it, which
//! nobody else can. Two commands at once start two hosts at most, of which one has the state
//! folder's lock and the other leaves; both commands use the first.

use crate::{
    request::{address_of, once},
    trouble::{Trouble, UNREACHABLE},
    unix,
};
use contract::Code;
pub(crate) use local::HostFile;
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use sandbox::descriptors;
use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// The time that a host that was started by itself stays without a session.
const IDLE_EXIT: Duration = Duration::from_secs(600);
/// The longest time of a host's start, and of its end.
const HOST_TIMEOUT: Duration = Duration::from_secs(30);
/// A larger log is put aside when a host starts.
const LARGEST_LOG: u64 = 10 << 20;

/// A process that has ended, and that nobody has asked about yet, is not alive.
fn is_alive(pid: u32) -> bool {
    let Ok(number) = i32::try_from(pid) else { return false };
    let ended = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    !ended && kill(Pid::from_raw(number), None) != Err(Errno::ESRCH)
}

fn not_ended(host: &HostFile, said: &str, log: &Path) -> Box<Trouble> {
    let why = format!(
        "The service of version {} (process {}) does not leave: {said}",
        host.version, host.pid
    );
    Trouble::new(UNREACHABLE, Code::ServiceNotEnded, why)
        .next(format!("end it yourself: kill {}", host.pid))
        .output(log.display().to_string())
}

/// Whether it was started with `--idle-exit`, as its command line says where that can be read.
pub(crate) fn leaves_by_itself(host: &HostFile) -> bool {
    let command = fs::read(format!("/proc/{}/cmdline", host.pid)).unwrap_or_default();
    command
        .split(|byte| *byte == 0)
        .any(|argument| argument == b"--idle-exit")
}

/// The service on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) state: PathBuf,
    /// The folder of its environments, in place of the one that the variables name.
    pub(crate) store: Option<PathBuf>,
}

impl Local {
    pub(crate) fn log(&self) -> PathBuf {
        self.state.join("log/host.log")
    }

    /// A client of the host of this folder, and of no other.
    pub(crate) fn http(&self) -> ureq::Agent {
        // What is on this machine is never behind a proxy.
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("pfsession/", env!("CARGO_PKG_VERSION")))
            .build();
        unix::agent(config, socket::path(&self.state))
    }

    fn is_healthy(&self, host: &HostFile) -> bool {
        matches!(
            once(&self.http(), &address_of(host), "GET", "/host/health", None),
            Ok((200, _))
        )
    }

    /// A host that runs and is of a version before there were sockets.
    fn older(&self) -> Option<HostFile> {
        let host = self.read().filter(|host| host.socket.as_os_str().is_empty())?;
        let lock = fs::File::open(self.state.join("lock")).ok()?;
        matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)).then_some(host)
    }

    /// The content of `host.json`, if there is one that can be read.
    fn read(&self) -> Option<HostFile> {
        serde_json::from_slice(&fs::read(self.state.join("host.json")).ok()?).ok()
    }

    /// The host that runs, of whatever version.
    pub(crate) fn find(&self) -> Option<HostFile> {
        // The process that wrote the file may have gone, and left it.
        self.read()
            .filter(|host| is_alive(host.pid) && socket::connect(&socket::path(&self.state)).is_ok())
    }

    /// The host that runs, which is started if there is none, and replaced if it is of another
    /// version.
    ///
    /// # Errors
    ///
    /// When it does not start; the reason is the end of its log. Worth a retry once the reason is
    /// gone.
    pub(crate) fn find_or_start(&self) -> Result<HostFile, Box<Trouble>> {
        self.start(Some(IDLE_EXIT), None)
    }

    /// The same, with the settings that a host gets if one has to be started.
    pub(crate) fn start(&self, idle_exit: Option<Duration>, port: Option<u16>) -> Result<HostFile, Box<Trouble>> {
        let not_started = |why: String| {
            let trouble = self.trouble_of_full_disk();
            let trouble = trouble.unwrap_or_else(|| Trouble::new(UNREACHABLE, Code::ServiceNotStarted, why));
            trouble.output(self.log().display().to_string())
        };
        let program = std::env::current_exe().map_err(|e| not_started(format!("This program cannot be found: {e}")))?;
        match self.find() {
            Some(host) if host.version == local::version(&program) => return Ok(host),
            Some(host) => self.end(&host)?,
            None => {
                if let Some(host) = self.older() {
                    return Err(not_ended(&host, "it is too old to be asked", &self.log()));
                }
            }
        }
        let spawn = || {
            self.spawn(&program, idle_exit, port).map_err(|e| {
                not_started(format!(
                    "The service cannot be started in {}: {e}",
                    self.state.display()
                ))
                .next("see that this folder can be written to, or name another with --state")
            })
        };
        let said_before = fs::metadata(self.log()).map_or(0, |log| log.len());
        let mut child = spawn()?;
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(host) = self.find().filter(|host| self.is_healthy(host)) {
                return Ok(host);
            }
            let why = match child.try_wait() {
                _ if begun.elapsed() > HOST_TIMEOUT => {
                    format!("The service was not there after {} s", HOST_TIMEOUT.as_secs())
                }
                // It found another host in the folder, which is there at any moment, or is just
                // leaving.
                Ok(Some(status)) if status.success() => {
                    child = spawn()?;
                    String::new()
                }
                Ok(Some(status)) => format!("The service ended as it started ({status})"),
                Ok(None) | Err(_) => String::new(),
            };
            if !why.is_empty() {
                let last = self.last_words(said_before);
                return Err(not_started(if last.is_empty() {
                    why
                } else {
                    format!("{why}: {last}")
                }));
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(30));
        }
    }

    /// The failure of a service whose disk has no room at all.
    pub(crate) fn trouble_of_full_disk(&self) -> Option<Box<Trouble>> {
        agent::disk::failure_of_full(&self.state).map(|full| Trouble::of(UNREACHABLE, full))
    }

    fn spawn(&self, program: &Path, idle_exit: Option<Duration>, port: Option<u16>) -> io::Result<Child> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.state.join("log"))?;
        if fs::metadata(self.log()).is_ok_and(|log| log.len() > LARGEST_LOG) {
            fs::rename(self.log(), self.log().with_extension("log.old"))?;
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.log())?;
        let mut command = Command::new(program);
        // It outlives this command's terminal and folder, and is nobody's client.
        command
            .env_clear()
            .envs(environments::kept_variables())
            .envs(kept_variables())
            .current_dir("/");
        command.arg("host").arg("--state").arg(&self.state);
        if let Some(idle_exit) = idle_exit {
            command.arg("--idle-exit").arg(idle_exit.as_secs().to_string());
        }
        if let Some(port) = port {
            command.arg("--port").arg(port.to_string());
        }
        if let Some(store) = &self.store {
            command.env(environments::STORE, store);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        descriptors::keep_only(descriptors::detach(&mut command), &[]).spawn()
    }

    /// Asks a host to leave, and waits until it is gone.
    pub(crate) fn end(&self, host: &HostFile) -> Result<(), Box<Trouble>> {
        let begun = Instant::now();
        let answer = once(&self.http(), &address_of(host), "POST", "/host/down", Some("{}"));
        let mut pause = Duration::from_millis(1);
        while is_alive(host.pid) {
            if begun.elapsed() > HOST_TIMEOUT {
                let said = match answer {
                    Ok((status, _)) => format!("it answered {status}"),
                    Err(error) => format!("it did not answer: {error}"),
                };
                return Err(not_ended(host, &said, &self.log()));
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The last that the log got since it was `from` bytes long, for people.
    fn last_words(&self, from: u64) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let new = log.get(usize::try_from(from).unwrap_or(0)..).unwrap_or(&log);
        let text = String::from_utf8_lossy(&new[new.len().saturating_sub(2000)..]).into_owned();
        let mut last: Vec<_> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .rev()
            .take(3)
            .collect();
        last.reverse();
        last.join("\n         ")
    }
}

/// The environment variables of this command that the service sees, beside those of installers.
fn kept_variables() -> impl Iterator<Item = (OsString, OsString)> {
    const KEPT: [&str; 10] = [
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "TZ",
        "TMPDIR",
        "RUST_LOG",
        "RUST_BACKTRACE",
        "AWS_XRAY_DAEMON_ADDRESS",
        "XDG_STATE_HOME",
    ];
    let is_kept = |name: &str| {
        let is_of_a_client = matches!(name, "PFSESSION_ENDPOINT" | "PFSESSION_TOKEN");
        KEPT.contains(&name) || name.starts_with("PFSESSION_") && !is_of_a_client
    };
    std::env::vars_os().filter(move |(name, _)| name.to_str().is_some_and(is_kept))
}

/// The default state folder of the service on this machine.
///
/// # Errors
///
/// When there is no home folder. Final.
pub(crate) fn state_folder(said: Option<&Path>) -> Result<PathBuf, Box<Trouble>> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = match said {
        Some(said) => Some(said.to_owned()),
        None => variable("XDG_STATE_HOME")
            .filter(|folder| folder.is_absolute())
            .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
            .map(|folder| folder.join("pfsession")),
    };
    folder
        .and_then(|folder| std::path::absolute(folder).ok())
        .ok_or_else(|| {
            Trouble::new(
                UNREACHABLE,
                Code::ServiceNoState,
                "There is no home folder to keep sessions in",
            )
            .next("name a folder with --state")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_service_that_does_not_leave_is_named_with_how_to_end_it() {
        let host: HostFile = serde_json::from_value(serde_json::json!({
            "pid": 7, "version": "0.1.0", "endpoint": "", "region": "", "access_key_id": "", "secret_access_key": "", "token": "", "user": "",
            "commands_queue_url": "", "log": "",
        }))
        .unwrap();
        expect![[r#"
            error: The service of version 0.1.0 (process 7) does not leave: it answered 500 [Service.NotEnded]
              next: end it yourself: kill 7
              whole output: STATE/log/host.log"#]]
        .assert_eq(&not_ended(&host, "it answered 500", Path::new("STATE/log/host.log")).to_string());
    }
}
