//! The warm process: one for each base image, version of the runner package and user of the machine in a state folder.

use environments::{Environment, store::Store};
use rustix::fs::{Mode, OFlags};
use sandbox::{Network, descriptors, groups::Place};
use std::{
    fs, io,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How long it stays when no session is a fork of it, in seconds.
const IDLE_SECONDS: u32 = 900;

/// Where it listens.
fn socket(state: &Path, store: &Store, base: &str, user: Option<u32>) -> PathBuf {
    let user = user.map(|user| user.to_string()).unwrap_or_default();
    let name = crate::digest(&[base, &store.runner.display().to_string(), &user]);
    state.join("warm").join(&name[..16])
}

/// A connection to the warm process of this base, if it is there and ready: for a session with a network of its own, or for one without.
pub(crate) fn connect(
    state: &Path,
    store: &Store,
    base: &str,
    user: Option<u32>,
    network: Network,
) -> Option<UnixStream> {
    let mut path = socket(state, store, base, user);
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

/// Starts the warm process of a base image, if there is none and there can be one. Does not wait for it: it takes a second or two.
///
/// # Errors
///
/// An error of the file system or of starting a process. A session does without.
pub fn ensure(state: &Path, store: &Store, base: &Environment, places: &[Place], user: Option<u32>) -> io::Result<()> {
    // Only what is in namespaces of its own can be a fork of it.
    if !store.namespaces.get() {
        return Ok(());
    }
    let path = socket(state, store, &base.key, user);
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
    let home = state.join("tools/home");
    let mut command = Command::new(store.seen_at(base).join("bin/python"));
    command
        .args(["-I", "-B", "-c", sandbox::BOOT])
        .arg(&store.runner)
        .args(["warm", &path.display().to_string(), &IDLE_SECONDS.to_string()])
        .arg(state.join("tools/root"))
        .arg(serde_json::to_string(&user)?)
        .args(places.iter().map(|place| &place.path))
        .env_clear()
        .envs(crate::variables::variables(&home, &store.seen_at(base)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log));
    descriptors::keep_only(descriptors::detach(&mut command), &[lock.as_raw_fd()]);
    command.spawn().map(|_| ())
}

/// Lets the warm processes of a state folder go; they end within seconds. Sessions stay as they are.
pub fn let_go(state: &Path) {
    for entry in fs::read_dir(state.join("warm")).into_iter().flatten().flatten() {
        // One that is still loading has no socket yet, and looks for its lock.
        if entry.path().extension().is_none_or(|extension| extension == "lock") {
            let _ = fs::remove_file(entry.path());
        }
    }
}
