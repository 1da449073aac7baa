//! A session's runner, seen from outside its sandbox.

mod said;
mod start;

use crate::sandboxes::remove_groups;
use environments::{Environment, packages::Written, reach::Reach, scratch};
use network::{GATEWAY, Service};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use said::Runs;
pub(crate) use said::{Piece, What};
use sandbox::{Isolation, groups, process::Held};
use serde_json::Value;
pub(crate) use start::Start;
use std::{
    cell::Cell,
    fs, io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::mpsc::{self, UnboundedReceiver},
};

/// The longest time until all in a sandbox has ended.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// A runner that has its sandbox closed around it.
pub(crate) struct Runner {
    pub(crate) environment: Environment,
    pub(crate) isolation: Isolation,
    /// Whether it was a fork of the warm process.
    pub(crate) from_warm: bool,
    /// The user that it is on this machine, if it is not this process's own.
    pub(crate) user: Option<u32>,
    process: Held,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    runs: Runs,
    dead: Rc<Cell<bool>>,
    /// Its own layer, and where in that the packages are that its own code has written.
    layer: PathBuf,
    pub(crate) written: Written,
    /// The fresh interpreter that it came from; ends with this.
    _parent: Option<tokio::process::Child>,
    /// The groups that it is in.
    groups: Vec<PathBuf>,
    /// The hold on its environment.
    _held: Rc<Vec<fs::File>>,
    /// Its own network, if it has one; else whether it is meant to have this machine's, and whether
    /// it has sockets of the internet.
    network: Option<Service>,
    is_open: bool,
    has_sockets: bool,
}

impl Runner {
    /// Whether it has the kind of network that is wanted. The rest changes while it lives.
    pub(crate) fn fits(&self, reach: &Reach) -> bool {
        self.is_open == reach.is_open() && (self.network.is_some() || reach.needs_sockets() == self.has_sockets)
    }

    /// The address inside of a broker that listens at `door`; nowhere if it has no sockets.
    pub(crate) fn finds(&self, door: SocketAddr) -> Option<String> {
        match self.network {
            Some(_) => Some(format!("http://{GATEWAY}")),
            None => self.has_sockets.then(|| format!("http://{door}")),
        }
    }

    /// Has it reach this, and nothing else, from now on.
    pub(crate) fn set_reach(&self, reach: &Reach) {
        if let Some(network) = &self.network {
            network.set_rules(reach.rules());
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// The number of its runs.
    pub(crate) fn runs(&self) -> usize {
        self.runs.borrow().len()
    }

    /// The number of its processes that the kernel has ended for want of memory.
    pub(crate) fn out_of_memory(&self) -> u64 {
        groups::out_of_memory(&self.groups)
    }

    /// Gives it a run. What it says of it comes out of the receiver, which ends early if the runner
    /// does.
    ///
    /// * `given`: a file that the run's process reads, and the runner hands on unread.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub(crate) async fn run(
        &self,
        run: &str,
        message: &Value,
        given: Option<OwnedFd>,
    ) -> io::Result<UnboundedReceiver<What>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.runs.borrow_mut().insert(run.to_owned(), sender);
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let sent = async {
            let mut writer = self.writer.lock().await;
            let sent = match &given {
                Some(given) => send_with(writer.as_ref(), &line, given).await?,
                None => 0,
            };
            writer.write_all(&line[sent..]).await
        }
        .await;
        if sent.is_err() || self.is_dead() {
            self.runs.borrow_mut().remove(run);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(receiver)
    }

    /// Tells it the text of the flow's file, for the runs to come.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub(crate) async fn expect(&self, definition: &str) -> io::Result<()> {
        let line = format!("{}\n", serde_json::json!({ "definition": definition }));
        self.writer.lock().await.write_all(line.as_bytes()).await
    }

    /// Ends all processes of a run.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub(crate) async fn stop(&self, run: &str) -> io::Result<()> {
        let line = format!("{}\n", serde_json::json!({ "stop": run }));
        self.writer.lock().await.write_all(line.as_bytes()).await
    }

    /// The runs that it has.
    pub(crate) fn run_names(&self) -> Vec<String> {
        self.runs.borrow().keys().cloned().collect()
    }

    /// Process 1 of its sandbox.
    pub(crate) fn pid(&self) -> i32 {
        self.process.identity.pid
    }

    /// Waits until it has ended, and all in its sandbox with it, if that does not take too long.
    pub(crate) async fn wait_for_end(&self) {
        let _ = tokio::time::timeout(LAST_BREATH, self.process.wait_for_end()).await;
    }

    /// Ends it and all in its sandbox, and drops its layer.
    pub(crate) async fn end(&self) {
        if !self.process.end(LAST_BREATH).await {
            tracing::error!(pid = self.process.identity.pid, "a sandbox does not end");
        }
        remove_groups(&self.groups).await;
        scratch::remove_aside(self.layer.clone());
    }

    /// Ends it at once, without waiting.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }
}

/// Sends the beginning of a line with a descriptor. Returns how much of it was sent.
async fn send_with(socket: &UnixStream, line: &[u8], descriptor: &OwnedFd) -> io::Result<usize> {
    let descriptors = [descriptor.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    socket
        .async_io(Interest::WRITABLE, || {
            let text = [io::IoSlice::new(line)];
            let sent = sendmsg::<()>(socket.as_raw_fd(), &text, &control, MsgFlags::MSG_NOSIGNAL, None);
            sent.map_err(io::Error::from)
        })
        .await
}
