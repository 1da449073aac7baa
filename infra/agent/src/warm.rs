//! Warm processes: interpreters that are forked into sessions.
//!
//! One for each base image, with the flow runtime loaded. And one for each id that sessions have
//! inside, without it, for those that begin with an interpreter of their own: on another image, or
//! with other versions of the base image's packages. Each is of one version of the runner package,
//! one user of the machine and one state folder.

use environments::{Environment, store::Store};
use rustix::fs::{Mode, OFlags};
use sandbox::{Network, descriptors, groups::Place};
use std::{
    fs, io,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The time that it stays when no session is a fork of it, in seconds.
const IDLE_SECONDS: u32 = 900;

/// The sessions that a warm process is for.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// Forks with the flow runtime of this base image's environment.
    Loaded(&'a str),
    /// Sessions with this id inside, which begin with an interpreter of their own.
    Fresh(u32),
}

impl<'a> Kind<'a> {
    /// The kind for a session's environment.
    pub fn of(store: &Store, environment: &'a Environment) -> Self {
        match store.sandbox_root() {
            Some(root) => Self::Fresh(root.uid()),
            None if environment.pure && store.base.runs_flows => Self::Loaded(&environment.base),
            None => Self::Fresh(sandbox::UID),
        }
    }
}

/// The place where it listens.
fn socket(state: &Path, store: &Store, kind: Kind<'_>, user: Option<u32>) -> PathBuf {
    let user = user.map(|user| user.to_string()).unwrap_or_default();
    let kind = match kind {
        Kind::Loaded(base) => base.to_owned(),
        Kind::Fresh(uid) => format!("fresh {uid} {}", store.machine.executable.display()),
    };
    let name = crate::digest(&[&kind, &store.runner.display().to_string(), &user]);
    state.join("warm").join(&name[..16])
}

/// A connection to the warm process of this kind, if it is there and ready: for a session with a
/// network of its own, or for one without.
pub(crate) fn connect(
    state: &Path,
    store: &Store,
    kind: Kind<'_>,
    user: Option<u32>,
    network: Network,
) -> Option<UnixStream> {
    let mut path = socket(state, store, kind, user);
    if network == Network::Host {
        path.as_mut_os_string().push("-open");
    }
    let folder = rustix::fs::open(
        path.parent()?,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    // A socket's address is short, and a state folder's path may be long.
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(path.file_name()?);
    UnixStream::connect(short).ok()
}

/// Starts the warm process of a kind, if there is none and there can be one. Does not wait for it:
/// it takes a second or two.
///
/// # Errors
///
/// An error of the file system or of starting a process. A session does without.
pub fn ensure(state: &Path, store: &Store, kind: Kind<'_>, places: &[Place], user: Option<u32>) -> io::Result<()> {
    // Only what is in namespaces of its own can be a fork of it.
    if !store.namespaces.get() {
        return Ok(());
    }
    let path = socket(state, store, kind, user);
    fs::create_dir_all(state.join("warm"))?;
    if path.with_extension("unfit").exists() {
        return Ok(());
    }
    // It holds the lock for as long as it lives.
    let lock = fs::File::create(path.with_extension("lock"))?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    let log = fs::File::create(path.with_extension("log"))?;
    let Some(mut command) = interpreter(state, store, kind) else {
        return Ok(());
    };
    let uid = match kind {
        Kind::Loaded(_) => None,
        Kind::Fresh(uid) => Some(uid),
    };
    command
        .args(["-B", "-c", sandbox::BOOT])
        .arg(&store.runner)
        .args(["warm", &path.display().to_string(), &IDLE_SECONDS.to_string()])
        .arg(state.join("tools/root"))
        .arg(serde_json::to_string(&user)?)
        .arg(serde_json::to_string(&uid)?)
        .args(places.iter().map(|place| &place.path))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log));
    descriptors::keep_only(descriptors::detach(&mut command), &[lock.as_raw_fd()]);
    command.spawn().map(|_| ())
}

/// The interpreter of a warm process; `None` if its environment has gone.
fn interpreter(state: &Path, store: &Store, kind: Kind<'_>) -> Option<Command> {
    match kind {
        Kind::Loaded(base) => {
            let packages = store.seen_at(&store.complete(base)?);
            let mut command = Command::new(packages.join("bin/python"));
            let variables = crate::variables::variables(&state.join("tools/home"), &packages);
            command.arg("-I").env_clear().envs(variables);
            Some(command)
        }
        // Of this machine, as nothing of an image runs outside of a sandbox.
        Kind::Fresh(_) => {
            let mut command = Command::new(&store.machine.executable);
            command.args(["-I", "-S"]).env_clear().env("LANG", "C.UTF-8");
            Some(command)
        }
    }
}

/// Lets the warm processes of a state folder go; they end within seconds. Sessions stay as they
/// are.
pub fn let_go(state: &Path) {
    for entry in fs::read_dir(state.join("warm")).into_iter().flatten().flatten() {
        // One that is still loading has no socket yet, and looks for its lock.
        if entry.path().extension().is_none_or(|extension| extension == "lock") {
            let _ = fs::remove_file(entry.path());
        }
    }
}
