//! The link to a session's namespace: a packet socket on the far end of its one network device.

use crate::packet::MTU;
use std::{
    cell::RefCell,
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, OwnedFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// The address of the session's device, which the maker of the namespace sets.
const SESSION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub(crate) struct Link {
    socket: AsyncFd<OwnedFd>,
    device: i32,
    /// The buffer in which packets are put together.
    buffer: RefCell<Vec<u8>>,
}

impl Link {
    /// Takes the packet socket, which is bound to the device.
    ///
    /// # Errors
    ///
    /// When it is no such socket.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an address of zeros is one, and its length is given.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: as above.
        let got = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &mut length) };
        if got != 0 {
            return Err(io::Error::last_os_error());
        }
        if i32::from(address.sll_family) != libc::AF_PACKET {
            return Err(io::Error::other("the link is no packet socket"));
        }
        // Bursts of large packets want room; where that is not ours to give, fewer fit and TCP
        // sends some again.
        for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
            let bytes: libc::c_int = 4 << 20;
            // SAFETY: an integer and its size.
            let set = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const bytes).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if set == 0 {
                break;
            }
        }
        // SAFETY: a descriptor that is open.
        if unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open for as long as what owns it, which is given away.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self {
            device: address.sll_ifindex,
            socket: socket.map_err(|failed| failed.into_parts().1)?,
            buffer: RefCell::new(vec![0; MTU]),
        })
    }

    /// The next packet from the session, into `buffer`. Its length.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                // SAFETY: a buffer and its length.
                let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
                usize::try_from(got).map_err(|_| io::Error::last_os_error())
            });
            if let Ok(received) = received {
                return received;
            }
        }
    }

    /// Writes a packet to the session. The link is like a cable: what does not fit is lost, and TCP
    /// sends it again.
    pub(crate) fn write<R>(&self, length: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = self.buffer.borrow_mut();
        buffer.resize(length.max(MTU), 0);
        let packet = &mut buffer[..length];
        packet.fill(0);
        let result = write(packet);
        self.put(packet);
        result
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        self.put(packet);
    }

    fn put(&self, packet: &[u8]) {
        let protocol = match packet.first().map(|first| first >> 4) {
            Some(4) => libc::ETH_P_IP,
            Some(6) => libc::ETH_P_IPV6,
            _ => return,
        };
        // SAFETY: an address of zeros is one.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (protocol as u16).to_be();
        address.sll_ifindex = self.device;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&SESSION_MAC);
        // SAFETY: a buffer and an address with their lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            tracing::trace!(error = %io::Error::last_os_error(), "a packet to the session is lost");
        }
    }
}
