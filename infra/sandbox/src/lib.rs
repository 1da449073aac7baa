//! A sandbox of one machine: its specification, its start, and the processes and control groups in
//! it.
//!
//! The Python package in `runner/` makes the sandbox, because the fork of a warm interpreter can
//! only be isolated from inside. The same code isolates fresh processes and builds.
//!
//! Absent here: sessions, environments, uv, queues, and every decision about a session's life.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

pub mod beneath;
pub mod control;
pub mod descriptors;
pub mod files;
pub mod groups;
pub mod ids;
mod mounts;
pub mod owner_only;
pub mod process;
pub mod python;
pub mod removal;
mod seccomp;

pub use seccomp::seccomp;

use crate::{groups::Group, python::Python};
pub use contract::packages::{Isolation, Tier};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

/// The only id inside a sandbox whose image names none; `kernel.py` has it too.
pub const UID: u32 = 1000;

/// The packages that a sandbox sees, below what it writes itself.
#[derive(Clone, Debug, Serialize)]
pub struct Overlay {
    /// The uppermost first.
    pub lower: Vec<PathBuf>,
    /// Both in one folder, which has nothing else.
    pub upper: PathBuf,
    pub work: PathBuf,
    /// The paths at which it is seen.
    pub at: Vec<PathBuf>,
}

/// The root of an image, in place of the machine's programs.
#[derive(Clone, Debug, Serialize)]
pub struct Image {
    /// All its files.
    pub tree: PathBuf,
    /// The upper and work folders of the overlay: both in one folder, which has nothing else.
    pub upper: PathBuf,
    pub work: PathBuf,
    /// The sandbox's only id, and its name where the image has none for it.
    pub uid: u32,
    pub name: String,
    /// Made if the image lacks it.
    pub workdir: String,
}

/// Which network a sandbox has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The machine's.
    #[default]
    Host,
    /// One of its own, with a device, whose far end comes with the runner's words. Where that
    /// cannot be made, there is no sandbox, and [`Word::NoNetwork`] says why.
    Own,
}

/// All that a sandbox is made of; `isolate.py` reads it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sandbox {
    /// Without them Landlock is what keeps it in; without that it is no sandbox, and says so.
    pub namespaces: bool,
    /// The user that it is on this machine, if it is not this process's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Whether what it writes stays root's on the disk. Otherwise it is the user's.
    #[serde(skip)]
    pub writes_as_root: bool,
    /// An empty folder, to mount the new root on.
    pub root: PathBuf,
    pub network: Network,
    /// Seen read-only, at their own paths.
    pub read: Vec<PathBuf>,
    /// Writeable: the folder, and where it is seen.
    pub write: Vec<(PathBuf, PathBuf)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// Only with namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// The whole block of environment variables.
    pub variables: BTreeMap<String, String>,
    /// The filter with namespaces, and without.
    pub seccomp: [String; 2],
    /// The program to become; a runner if there is none. With a network of its own it begins when
    /// it is sent a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub execute: Vec<String>,
    /// The interpreter of a runner that is not a fork of the warm process.
    pub python: PathBuf,
    /// Its packages, and the `.pth` files there that the base has not.
    pub site: PathBuf,
    pub pth: Vec<String>,
    pub cores: usize,
    /// The groups that it goes into, made below these places, with their limits.
    pub groups: Vec<Group>,
    /// The limits of the VM size, in processors and bytes; `None` is the whole machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<(u32, u64)>,
    /// Without namespaces: folders of packages beside those of the environment, the first to be
    /// looked in first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<PathBuf>,
    /// Whether a runner loads the flow runtime.
    pub import: bool,
}

/// Finds out how well sessions are kept apart on this machine, by making a sandbox and ending it.
/// It takes some 50 ms.
///
/// # Errors
///
/// When there is no Python, or the state folder cannot be written. Final until that is put right.
pub async fn probe(state: &Path) -> anyhow::Result<Isolation> {
    let python = Python::find().map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let (root, runner) = (state.join("tools/root"), write_runner(state)?);
    std::fs::create_dir_all(&root)?;
    for namespaces in [true, false] {
        let mut sandbox = Sandbox {
            namespaces,
            user: ids::any(),
            root: root.clone(),
            read: vec![python.prefix.clone()]
                .into_iter()
                .filter(|path| !path.starts_with("/usr"))
                .collect(),
            seccomp: seccomp(true),
            groups: groups::groups_with_limits(&groups::places(), None),
            execute: vec![
                python.executable.display().to_string(),
                "-I".into(),
                "-S".into(),
                "-c".into(),
                String::new(),
            ],
            ..Sandbox::default()
        };
        let (mut child, socket) = start(&python, &runner, &mut sandbox, Stdio::null(), Stdio::null())?;
        child.wait().await?;
        if let Some(Word::Isolated(isolation)) = last_word(&socket) {
            return Ok(isolation);
        }
    }
    anyhow::bail!("{} does not start", python.executable.display())
}

/// The first message of the runner inside: what it is and sees.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// No sandbox can be made here.
    Cannot(String),
    /// There can be a sandbox, and not one with a network of its own.
    #[serde(rename = "no_network")]
    NoNetwork(String),
    /// A fault, and no sandbox.
    Failed(String),
    Isolated(Isolation),
}

impl Word {
    /// `None` for a line that is about something else.
    pub fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../runner/", $name)))),*]
    };
}

/// Writes the Python package that runs inside a sandbox below `state`, in a folder that is named by
/// its content.
///
/// Returns the folder to put on `sys.path`.
///
/// # Errors
///
/// Errors of the file system.
pub fn write_runner(state: &Path) -> io::Result<PathBuf> {
    let modules = modules![
        "__init__.py",
        "aggregation.py",
        "boot.py",
        "connections.py",
        "control.py",
        "coordinator.py",
        "crew.py",
        "data.py",
        "definitions.py",
        "flow.py",
        "fresh.py",
        "groups.py",
        "isolate.py",
        "kernel.py",
        "line.py",
        "main.py",
        "mapping.py",
        "records.py",
        "network.py",
        "own.py",
        "runs.py",
        "runtime.py",
        "serve.py",
        "spans.py",
        "strays.py",
        "stream.py",
        "turned_away.py",
        "warm.py",
        "worker.py",
        "wrong.py",
    ];
    let tools = state.join("tools");
    let content: Vec<&str> = modules.iter().flat_map(|(name, text)| [*name, *text]).collect();
    let folder = tools.join(files::digest(&content));
    if folder.exists() {
        return Ok(folder);
    }
    let partial = tools.join(format!(".{}-{}", std::process::id(), files::random()));
    std::fs::create_dir_all(partial.join("pfsession_runner"))?;
    for (name, text) in modules {
        std::fs::write(partial.join("pfsession_runner").join(name), text)?;
    }
    match std::fs::rename(&partial, &folder) {
        // Another process was faster, with the same content.
        Err(_) if folder.exists() => removal::remove(&partial)?,
        renamed => renamed?,
    }
    Ok(folder)
}

/// Loads the runner as a package, under a name that no flow has: Python keeps a package's compiled
/// form, and compiles a script each time.
pub const BOOT: &str =
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from pfsession_runner import main; del sys.path[0]; main.main()";

/// Starts a fresh interpreter that goes into `sandbox`. It ends with this process. A
/// drop of the process or of the socket ends all that runs inside.
///
/// # Errors
///
/// An error of starting a process.
pub fn start(
    python: &Python,
    runner: &Path,
    sandbox: &mut Sandbox,
    out: Stdio,
    err: Stdio,
) -> io::Result<(tokio::process::Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = tokio::process::Command::new(&python.executable);
    command
        .args(["-I", "-S", "-c", BOOT])
        .arg(runner)
        .arg("isolate")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(out)
        .stderr(err)
        // Without namespaces a program's processes are ended by that one, when the socket ends.
        .kill_on_drop(sandbox.namespaces || sandbox.execute.is_empty());
    descriptors::keep_only(command.as_std_mut(), &[]);
    let child = command.spawn()?;
    send(sandbox, &ours)?;
    Ok((child, ours))
}

/// Not held where environments lie on a disk that shifts no owners: a build cannot be another user
/// there.
const NOT_SHIFTED: &str = "the user of builds, which is the service's (the disk of packages shifts no owners)";

/// Sends the description of a sandbox to its maker, with the mounts that it needs. A user that is
/// not possible is taken out of it.
///
/// # Errors
///
/// When the maker has gone; or when a folder cannot be shown, which is final.
pub fn send(sandbox: &mut Sandbox, socket: &UnixStream) -> io::Result<()> {
    let (mut shown, mut lacks) = (Vec::new(), Vec::new());
    match sandbox.user {
        Some(user) if sandbox.namespaces => match sandbox.show_to(user) {
            Ok((mounts, is_shifted)) => {
                shown = mounts;
                lacks.extend((!is_shifted).then_some(NOT_SHIFTED));
            }
            // Whoever may not make mounts is root of a container, say, and makes no namespaces
            // either.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => sandbox.user = None,
            // Nor can every file system show other owners.
            Err(_) if sandbox.writes_as_root => sandbox.user = None,
            Err(error) => return Err(error),
        },
        // Another user may not go to the session's folders by their paths, and without mounts there
        // are no others.
        _ => sandbox.user = None,
    }
    let own = rustix::process::geteuid().as_raw();
    if own == 0 {
        let owner = sandbox.user.filter(|_| !sandbox.writes_as_root);
        sandbox.give_to(owner.unwrap_or(own))?;
    }
    let (paths, mounts): (Vec<PathBuf>, Vec<OwnedFd>) = shown.into_iter().unzip();
    let mut spec = serde_json::to_value(&*sandbox)?;
    spec["mounts"] = serde_json::to_value(paths)?;
    spec["lacks"] = serde_json::to_value(lacks)?;
    let mut line = serde_json::to_vec(&spec)?;
    line.push(b'\n');
    let descriptors: Vec<_> = mounts.iter().map(AsRawFd::as_raw_fd).collect();
    let with = [ControlMessage::ScmRights(&descriptors)];
    let with = if descriptors.is_empty() { &[] } else { &with[..] };
    let part = [io::IoSlice::new(&line)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &part, with, MsgFlags::MSG_NOSIGNAL, None)?;
    io::Write::write_all(&mut &*socket, &line[sent..])
}

impl Sandbox {
    /// Makes the user the owner of what it writes.
    fn give_to(&self, user: u32) -> io::Result<()> {
        let layer = self.overlay.iter().flat_map(|overlay| [&overlay.upper, &overlay.work]);
        let layer = layer.chain(self.image.iter().flat_map(|image| [&image.upper, &image.work]));
        for folder in self.write.iter().map(|(folder, _)| folder).chain(layer) {
            if std::fs::symlink_metadata(folder)?.uid() != user {
                std::os::unix::fs::lchown(folder, Some(user), Some(user))?;
            }
        }
        Ok(())
    }

    /// Mounts of all that the sandbox shows. What it cannot write looks as if it were the user's,
    /// so that it can be read, and be laid over. Whether the owners of all packages could be
    /// shifted.
    fn show_to(&self, user: u32) -> io::Result<(Vec<(PathBuf, OwnedFd)>, bool)> {
        let lower = self.overlay.iter().flat_map(|overlay| &overlay.lower);
        let read = self.read.iter().filter(|path| path.exists()).chain(lower);
        let read: BTreeSet<&PathBuf> = read.chain(self.image.iter().map(|image| &image.tree)).collect();
        let layer = self
            .overlay
            .iter()
            .map(|overlay| &overlay.upper)
            .chain(self.image.iter().map(|image| &image.upper))
            .filter_map(|upper| upper.parent().map(Path::to_owned));
        let write = self.write.iter().map(|(folder, _)| folder.clone()).chain(layer);
        let writer = self.writes_as_root.then_some(user);
        let (mut shown, mut is_shifted) = (Vec::new(), true);
        for path in read {
            // Not every file system can show other owners.
            let mount = mounts::of(path, Some(user)).or_else(|_| {
                is_shifted &= !self.is_of_packages(path);
                mounts::of(path, None)
            })?;
            shown.push((path.clone(), mount));
        }
        for path in write {
            let mount = mounts::of(&path, writer)?;
            shown.push((path, mount));
        }
        Ok((shown, is_shifted))
    }

    fn is_of_packages(&self, path: &PathBuf) -> bool {
        self.overlay
            .as_ref()
            .is_some_and(|overlay| overlay.lower.contains(path))
    }
}

/// The last message of a sandbox before it became its program.
fn last_word(socket: &UnixStream) -> Option<Word> {
    let mut text = String::new();
    io::Read::read_to_string(&mut &*socket, &mut text).ok()?;
    text.lines().rev().find_map(|line| Word::read(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_load_the_runner_by_the_same_program() {
        let line = include_str!("../runner/boot.py")
            .lines()
            .find_map(|line| line.strip_prefix("BOOT = "));
        assert_eq!(line, Some(format!("{BOOT:?}").as_str()));
    }

    /// Two processes of a run say something at once, and what the second says is taken in while the
    /// first is looked into.
    const ENDS_AT_ONCE: &str = r#"
import os, signal, socket, sys
sys.path.insert(0, sys.argv[1])
from pfsession_runner.crew import Crew, Process
signal.alarm(20)
for _ in range(50):
    pairs = [socket.socketpair() for _ in range(3)]
    loader, *workers = [Process(mine, None) for mine, _ in pairs]
    crew = Crew({"cores": 1}, {}, None, None, None)
    crew.loader, crew.has_loader, crew.members = loader, True, list(workers)
    crew.waiting, crew.done = [], {}
    for number, worker in enumerate(workers):
        worker.pid, worker.line, worker.is_loaded = 2**22 + 1 + number, number, True
        pairs[1 + number][1].close()
    for worker in workers:
        pairs[0][1].sendall(b'{"ended": %d, "status": 3}\n' % worker.pid)
    crew.look()
    assert sorted(crew.done) == [0, 1], crew.done
    assert all("code 3" in done["wrong"]["message"] for done in crew.done.values()), crew.done
"#;

    /// A line is sent to an end that takes it, and closes before more can be sent.
    const GONE_AT_ONCE: &str = r#"
import socket, sys
sys.path.insert(0, sys.argv[1])
from pfsession_runner.control import Control
mine, theirs = socket.socketpair()
send_fds, taken = socket.send_fds, []
def send_to_who_goes(*arguments):
    sent = send_fds(*arguments)
    taken.append(socket.recv_fds(theirs, 1 << 16, 1)[0])
    theirs.close()
    return sent
socket.send_fds = send_to_who_goes
Control(mine).send_with({"a": 1}, 0)
assert taken == [b'{"a": 1}\n'], taken
"#;

    /// Runs a program that has the runner's package.
    fn run(program: &str) {
        let folder = tempfile::tempdir().unwrap();
        let runner = write_runner(folder.path()).unwrap();
        let python = Python::find().unwrap();
        let mut command = std::process::Command::new(&python.executable);
        let ended = command.args(["-I", "-c", program]).arg(&runner).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{:?}: {said}", ended.status);
    }

    #[test]
    fn processes_that_end_at_once_are_each_taken_in_and_nobody_waits_for_a_word_twice() {
        run(ENDS_AT_ONCE);
    }

    #[test]
    fn a_line_that_was_taken_whole_is_sent_also_if_its_reader_has_gone() {
        run(GONE_AT_ONCE);
    }
}
