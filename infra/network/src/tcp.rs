//! One TCP connection of a session, ended here and made anew from the machine's side.

use crate::{
    link::Link,
    packet::{MTU, Pair, checksums},
};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State},
    time::Instant,
    wire::{HardwareAddress, IpCidr},
};
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc::Receiver,
    time::Sleep,
};

/// The device by which the stack of one connection sends and receives.
struct Wire {
    link: Rc<Link>,
    incoming: Option<Vec<u8>>,
}

struct Incoming(Vec<u8>);
struct Outgoing<'a>(&'a Link);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        self.0.write(length, write)
    }
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing(&self.link)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&self.link))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities.checksum = checksums();
        capabilities
    }
}

/// The session's side of a connection. Each has a stack of its own: none can hold up another, and a
/// packet finds its connection at once.
pub(crate) struct Connection {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    timer: Pin<Box<Sleep>>,
    /// The far end has said all.
    said: bool,
    /// The far end knows that the session has said all.
    told: bool,
}

impl Connection {
    /// Takes a connection, whose first packet is `first`.
    ///
    /// * `room`: for what is under way, in bytes each way.
    pub(crate) fn accept(link: Rc<Link>, pair: Pair, first: Vec<u8>, room: usize) -> io::Result<Self> {
        let mut wire = Wire { link, incoming: None };
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from_ne_bytes(seed);
        let mut interface = Interface::new(config, &mut wire, Instant::now());
        let address = pair.to.ip().into();
        interface.update_ip_addrs(|addresses| {
            let whole = if pair.to.is_ipv4() { 32 } else { 128 };
            // There is room for one.
            let _ = addresses.push(IpCidr::new(address, whole));
        });
        let mut socket = Socket::new(SocketBuffer::new(vec![0; room]), SocketBuffer::new(vec![0; room]));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket
            .listen((address, pair.to.port()))
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let mut connection = Self {
            wire,
            interface,
            sockets,
            handle,
            timer: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            said: false,
            told: false,
        };
        connection.take(first);
        Ok(connection)
    }

    fn take(&mut self, packet: Vec<u8>) {
        self.wire.incoming = Some(packet);
        self.turn();
    }

    fn turn(&mut self) {
        self.interface.poll(Instant::now(), &mut self.wire, &mut self.sockets);
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn abort(&mut self) {
        self.socket().abort();
        self.turn();
    }

    /// Carries bytes both ways until both sides have said all, or one is gone. It is cut when
    /// `packets` is closed.
    pub(crate) async fn carry<S: AsyncRead + AsyncWrite + Unpin>(mut self, mut packets: Receiver<Vec<u8>>, mut far: S) {
        let ended = poll_fn(|context| self.go_on(context, &mut packets, Pin::new(&mut far))).await;
        if ended.is_err() {
            self.abort();
        }
    }

    fn go_on<S: AsyncRead + AsyncWrite>(
        &mut self,
        context: &mut Context<'_>,
        packets: &mut Receiver<Vec<u8>>,
        mut far: Pin<&mut S>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut moved = false;
            while let Poll::Ready(packet) = packets.poll_recv(context) {
                self.take(packet.ok_or(io::ErrorKind::ConnectionAborted)?);
                moved = true;
            }
            if let Poll::Ready(written) = self.write_far(context, far.as_mut()) {
                written?;
                moved = true;
            }
            if let Poll::Ready(read) = self.read_far(context, far.as_mut()) {
                read?;
                moved = true;
            }
            self.turn();
            // The session's reset takes it back to where it listened.
            if matches!(self.socket().state(), State::Closed | State::Listen | State::TimeWait) {
                return Poll::Ready(Ok(()));
            }
            if moved {
                continue;
            }
            let Some(delay) = self.interface.poll_delay(Instant::now(), &self.sockets) else {
                return Poll::Pending;
            };
            let at = tokio::time::Instant::now() + std::time::Duration::from_micros(delay.total_micros());
            self.timer.as_mut().reset(at);
            ready!(self.timer.as_mut().poll(context));
        }
    }

    /// Ready when something has moved.
    fn write_far<S: AsyncWrite>(&mut self, context: &mut Context<'_>, mut far: Pin<&mut S>) -> Poll<io::Result<()>> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        if socket.can_recv() {
            let written = socket.recv(|bytes| match far.as_mut().poll_write(context, bytes) {
                Poll::Ready(Ok(count)) => (count, Poll::Ready(Ok(()))),
                Poll::Ready(Err(error)) => (0, Poll::Ready(Err(error))),
                Poll::Pending => (0, Poll::Pending),
            });
            return written.unwrap_or(Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())));
        }
        let said = matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing);
        if said && !self.told {
            ready!(far.poll_shutdown(context))?;
            self.told = true;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Likewise.
    fn read_far<S: AsyncRead>(&mut self, context: &mut Context<'_>, far: Pin<&mut S>) -> Poll<io::Result<()>> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        if self.said || !socket.can_send() {
            return Poll::Pending;
        }
        let read = socket.send(|space| {
            let mut space = ReadBuf::new(space);
            match far.poll_read(context, &mut space) {
                Poll::Ready(Ok(())) => (space.filled().len(), Poll::Ready(Ok(space.filled().len()))),
                Poll::Ready(Err(error)) => (0, Poll::Ready(Err(error))),
                Poll::Pending => (0, Poll::Pending),
            }
        });
        let count = ready!(read.unwrap_or(Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))))?;
        if count == 0 {
            self.said = true;
            socket.close();
        }
        Poll::Ready(Ok(()))
    }
}
