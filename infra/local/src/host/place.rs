//! The state folder, and the doors of the host.

use super::{AlreadyRunning, Config, HostFile};
use crate::{access::write_private, ballast::Ballast, functions::RuntimeApi, own::Own};
use anyhow::Context;
use std::{
    fs,
    io::ErrorKind,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// The longest time that the children of a host that was killed may have its lock.
const LAST_BREATH: Duration = Duration::from_millis(300);
/// The time between two looks for the host's state folder.
const WATCH: Duration = Duration::from_secs(1);

/// The state folder, taken for one host, and what it listens on.
pub(super) struct Place {
    state: PathBuf,
    /// Held as long as it is open.
    _lock: fs::File,
    pub(super) socket_path: PathBuf,
    pub(super) runtime_api: RuntimeApi,
    /// Of `127.0.0.1`, with its port.
    pub(super) address: String,
    own_state: Own,
    own_socket: Own,
    /// The open listeners, until somebody answers there.
    pub(super) listeners: Option<(UnixListener, TcpListener)>,
    pub(super) ballast: Option<Ballast>,
}

impl Place {
    /// Takes the state folder and listens.
    ///
    /// # Errors
    ///
    /// [`AlreadyRunning`] when another host has it. Anything else is final until what it names is
    /// put right.
    pub(super) async fn take(config: &Config) -> anyhow::Result<Self> {
        let state = &config.state;
        driver::check_path(state).map_err(anyhow::Error::msg)?;
        make_folder(state)?;
        make_folder(&state.join("log"))?;
        fs::set_permissions(state, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("{} is not this user's own", state.display()))?;
        let lock = lock(state).await?;
        let ballast = Ballast::begin(state);
        let socket_path = socket::path(state);
        let socket =
            socket::listen(&socket_path).with_context(|| format!("{} cannot be listened on", socket_path.display()))?;
        socket.set_nonblocking(true)?;
        let own_socket = Own::of(&socket_path)?;
        let own_state = Own::of(state)?;
        let listener = listen(state, config.port).await?;
        Ok(Self {
            state: state.clone(),
            _lock: lock,
            socket_path,
            runtime_api: RuntimeApi::listen()?,
            address: listener.local_addr()?.to_string(),
            own_state,
            own_socket,
            listeners: Some((socket, listener)),
            ballast: Some(ballast),
        })
    }

    /// Writes host.json, by which clients find this host.
    pub(super) fn publish(&self, file: &HostFile) -> anyhow::Result<Own> {
        let path = self.state.join("host.json");
        let text = serde_json::to_string_pretty(file)?;
        write_private(&path, text.as_bytes())
            // On a full disk in the place of the one of a host that was killed.
            .or_else(|cause| {
                fs::remove_file(&path)
                    .map_err(|_| cause)
                    .and_then(|()| write_private(&path, text.as_bytes()))
            })
            .context("host.json cannot be written")?;
        Ok(Own::of(&path)?)
    }

    /// Waits until something of this host's is no longer where it was, and gives that back. Nobody
    /// could find such a host, and another may be started in its place.
    pub(super) async fn is_taken_away(&self, file: &Own) -> PathBuf {
        let mut every = tokio::time::interval(WATCH);
        loop {
            every.tick().await;
            if let Some(gone) = [&self.own_state, file, &self.own_socket]
                .into_iter()
                .find(|own| !own.is_there())
            {
                return gone.path().to_owned();
            }
        }
    }

    /// Whether the state's disk has no room to spare.
    pub(super) fn is_short(&self) -> bool {
        agent::disk::Room::of(&self.state).is_ok_and(|room| room.is_short())
    }

    /// Takes the socket away, for the host that comes next.
    pub(super) fn leave(&self) {
        self.own_socket.remove();
    }
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the folder {} cannot be made", path.display()))
}

/// Takes the state folder for this host, as long as the file is open. What a host that was killed
/// had just forked has the file for a moment longer than the host.
async fn lock(state: &Path) -> anyhow::Result<fs::File> {
    let path = state.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if begun.elapsed() < LAST_BREATH => {
                tokio::time::sleep(LAST_BREATH / 20).await;
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(AlreadyRunning {
                    state: state.to_owned(),
                }
                .into());
            }
            Err(fs::TryLockError::Error(cause)) => {
                return Err(cause).with_context(|| format!("{} cannot be locked", path.display()));
            }
        }
    }
}

/// Listens where the host of last time did: scripts may know that address.
async fn listen(state: &Path, wanted: Option<u16>) -> anyhow::Result<TcpListener> {
    let path = state.join("port");
    let last = fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse::<u16>().ok());
    let wanted = wanted.filter(|port| *port != 0);
    let listener = match (wanted, last) {
        (Some(port), _) => TcpListener::bind(("127.0.0.1", port))
            .await
            .with_context(|| format!("port {port} cannot be listened on; name another with --port"))?,
        (None, last) => match TcpListener::bind(("127.0.0.1", last.unwrap_or(0))).await {
            Ok(listener) => listener,
            Err(cause) if cause.kind() == ErrorKind::AddrInUse => {
                tracing::warn!(
                    port = last,
                    "somebody else has the port of last time: tools that were given it will not find this host"
                );
                TcpListener::bind(("127.0.0.1", 0)).await?
            }
            Err(cause) => return Err(cause).context("there is no port to listen on"),
        },
    };
    let port = listener.local_addr()?.port();
    if last != Some(port) {
        write_private(&path, port.to_string().as_bytes())?;
    }
    Ok(listener)
}
