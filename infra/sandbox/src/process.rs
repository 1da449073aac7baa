//! Processes by identity: a process id may be another process's a moment later, together with its
//! start time it is not.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::{fs, io, os::fd::OwnedFd, time::Duration};
use tokio::io::{Interest, unix::AsyncFd};

/// Which process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// In clock ticks since the machine's start, as `/proc/{pid}/stat` has it.
    pub start: u64,
}

impl Identity {
    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may hold anything, also brackets.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if matches!(fields.next(), Some("Z" | "X")) {
            return None;
        }
        Some(Self {
            pid,
            start: fields.nth(18)?.parse().ok()?,
        })
    }

    /// A hold on it, if it lives.
    pub fn open(self) -> Option<Held> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after it was opened, so that the hold is on this process and no later one.
        (Self::of(self.pid) == Some(self)).then_some(Held { identity: self, fd })
    }
}

/// A process that is held by a descriptor: a signal reaches it or nobody.
#[derive(Debug)]
pub struct Held {
    pub identity: Identity,
    fd: OwnedFd,
}

impl Held {
    pub fn kill(&self) {
        // It may have ended.
        let _ = pidfd_send_signal(&self.fd, Signal::KILL);
    }

    /// Waits until it has ended.
    pub async fn wait_for_end(&self) -> io::Result<()> {
        // SAFETY: the descriptor that is owned is the one that is given out, always.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd.try_clone()?, Interest::READABLE) }?;
        fd.readable().await?.retain_ready();
        Ok(())
    }

    /// Ends it, and waits until it has. Whether it did within `most`.
    pub async fn end(&self, most: Duration) -> bool {
        self.kill();
        matches!(tokio::time::timeout(most, self.wait_for_end()).await, Ok(Ok(())))
    }
}
