//! The socket between a runner and its supervisor, as the supervisor reads it.

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};
use tokio::{io::Interest, net::UnixStream};

/// The most descriptors that a runner hands over at once.
const MOST_DESCRIPTORS: usize = 64;

/// A runner's words until its sandbox is closed, with the descriptors that it hands over. What
/// follows is the session's own, and its reader takes no descriptors.
pub struct Words {
    stream: UnixStream,
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Words {
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    ///
    /// An error of the socket.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.bytes.drain(..=end).collect()));
            }
            let Self {
                stream,
                bytes,
                descriptors,
            } = self;
            let received = stream
                .async_io(Interest::READABLE, || receive(stream.as_raw_fd(), bytes, descriptors))
                .await?;
            if received == 0 {
                return Ok(None);
            }
        }
    }

    /// The socket, what was read of it beyond the last line, and the descriptors that came.
    pub fn into_parts(self) -> (UnixStream, Vec<u8>, Vec<OwnedFd>) {
        (self.stream, self.bytes, self.descriptors)
    }
}

fn receive(socket: RawFd, bytes: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    let mut space = cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let mut into = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket, &mut into, Some(&mut space), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has made them for this message, and nobody else has them.
            descriptors.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let count = message.bytes;
    bytes.extend_from_slice(&buffer[..count]);
    Ok(count)
}
