//! The stack: it takes each packet to its connection.

use crate::{
    dns,
    link::Link,
    packet::{self, Kind, MTU, Pair, Unreached},
    rules::{Counts, Gate, Rules},
    tcp::Connection,
};
use lifecycle::network::{Host, Place};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{AbortHandle, LocalSet, spawn_local},
};

/// The address of the session's resolver and its doors. No network has this address.
///
/// # Source
///
/// RFC 6890: 192.0.0.0/24 is for protocols, and forwarded by nobody.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
/// The port of a resolver.
const DNS: u16 = 53;

/// The most TCP connections of a session at once, and the most of its conversations over UDP.
const MOST_CONNECTIONS: usize = 1000;
const MOST_CONVERSATIONS: usize = 500;
/// The number of descriptors that are left to the rest of the process.
const LEFT: usize = 300;
/// The most questions to the resolver that are under way at once.
const MOST_QUESTIONS: usize = 64;
/// The room of a connection each way: of so many more, of the others less.
const ROOMY: usize = 64;
const ROOM: usize = 256 << 10;
const LITTLE_ROOM: usize = 32 << 10;
/// The most packets that wait for one connection.
const BACKLOG: usize = 64;
/// The most packets that are taken before others have their turn.
const AT_ONCE: usize = 64;
/// The longest time that a connection may take to be made.
const DIALING: Duration = Duration::from_secs(60);
/// The longest time that a conversation over UDP may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// The sockets that the namespace's maker gives: the packet socket on its device, and TCP sockets
/// of the namespace that nobody has used, of both versions.
pub struct Ends {
    pub packets: OwnedFd,
    pub sockets: Vec<OwnedFd>,
}

/// A session's network. It ends when this is dropped.
pub struct Service {
    rules: watch::Sender<Rules>,
}

impl Service {
    /// Has these rules count from now on. Connections that they do not allow are cut.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.send_if_modified(|now| {
            let is_new = *now != rules;
            *now = rules;
            is_new
        });
    }
}

/// Starts a session's network, on a thread of its own: whatever the session does with it, its agent
/// has its time.
///
/// * `counts`: where what is refused is counted.
/// * `doors`: ports of [`GATEWAY`], and where they lead on this machine.
///
/// # Errors
///
/// When `ends` are not what they should be, or no thread can be started.
pub fn start(ends: Ends, rules: Rules, counts: Counts, doors: HashMap<u16, SocketAddr>) -> io::Result<Service> {
    let (sender, receiver) = watch::channel(rules);
    // Two of three for connections, one for conversations.
    let share = descriptors().saturating_sub(LEFT) / 3;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let link = {
        let _inside = runtime.enter();
        Link::new(ends.packets)?
    };
    let (begun, has_begun) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("network".into()).spawn(move || {
        let stack = Rc::new(Stack {
            link: Rc::new(link),
            gate: RefCell::default(),
            counts,
            doors,
            connections: UnderWay::default(),
            conversations: UnderWay::default(),
            most: MOST_CONNECTIONS.min(2 * share),
            places: Arc::new(Semaphore::new(MOST_CONNECTIONS.min(2 * share))),
            talks: Arc::new(Semaphore::new(MOST_CONVERSATIONS.min(share))),
            questions: Arc::new(Semaphore::new(MOST_QUESTIONS)),
            loopback: RefCell::new(Loopback {
                unused: ends.sockets.into_iter().map(Socket::from).collect(),
                ..Loopback::default()
            }),
        });
        let ended = LocalSet::new().block_on(&runtime, stack.serve(receiver, begun));
        tracing::debug!(?ended, "a session's network has ended");
    })?;
    // What listens inside listens now.
    has_begun
        .recv()
        .map_err(|_| io::Error::other("the network's thread has ended"))?;
    Ok(Service { rules: sender })
}

type Packets = mpsc::Sender<Vec<u8>>;

/// Open connections, by their ends. One is cut when its sender goes. The number tells it from
/// another that has the same ends later.
#[derive(Default)]
struct UnderWay {
    by_ends: RefCell<HashMap<Pair, (u64, Packets)>>,
    last: Cell<u64>,
}

impl UnderWay {
    /// Hands it a packet, if there is such a thing. What does not fit is lost.
    fn hand(&self, pair: &Pair, packet: &[u8]) -> bool {
        let by_ends = self.by_ends.borrow();
        let found = by_ends.get(pair);
        if let Some((_, packets)) = found {
            let _ = packets.try_send(packet.to_vec());
        }
        found.is_some()
    }

    fn begin(&self, pair: Pair) -> (u64, mpsc::Receiver<Vec<u8>>) {
        let (sender, packets) = mpsc::channel(BACKLOG);
        let number = self.last.get() + 1;
        self.last.set(number);
        self.by_ends.borrow_mut().insert(pair, (number, sender));
        (number, packets)
    }

    fn end(&self, pair: &Pair, number: u64) {
        let mut by_ends = self.by_ends.borrow_mut();
        if by_ends.get(pair).is_some_and(|(now, _)| *now == number) {
            by_ends.remove(pair);
        }
    }

    fn cut_connections(&self, stays: impl Fn(&Pair) -> bool) {
        self.by_ends.borrow_mut().retain(|pair, _| stays(pair));
    }
}

struct Stack {
    link: Rc<Link>,
    gate: RefCell<Gate>,
    counts: Counts,
    doors: HashMap<u16, SocketAddr>,
    connections: UnderWay,
    conversations: UnderWay,
    most: usize,
    places: Arc<Semaphore>,
    talks: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    loopback: RefCell<Loopback>,
}

/// The listeners inside, on addresses of the session's own loopback that stand for this machine's.
#[derive(Default)]
struct Loopback {
    unused: Vec<Socket>,
    /// A socket keeps its address for ever, so it is kept for when that is named again.
    bound: HashMap<SocketAddr, Socket>,
    open: HashMap<SocketAddr, AbortHandle>,
}

/// The target of a connection.
enum Far {
    Resolver,
    Host(SocketAddr),
}

impl Stack {
    async fn serve(
        self: Rc<Self>,
        mut rules: watch::Receiver<Rules>,
        begun: std::sync::mpsc::Sender<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; MTU + 64];
        self.change(&rules.borrow_and_update().clone());
        let _ = begun.send(());
        let mut taken = 0;
        loop {
            tokio::select! {
                biased;
                changed = rules.changed() => match changed {
                    Ok(()) => self.change(&rules.borrow_and_update().clone()),
                    Err(_) => return Ok(()),
                },
                length = self.link.receive(&mut buffer) => {
                    self.take(&buffer[..length?]);
                    taken += 1;
                    if taken % AT_ONCE == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    fn change(self: &Rc<Self>, rules: &Rules) {
        self.gate.borrow_mut().set(rules.clone());
        let stays = |pair: &Pair| self.far(pair.to).is_ok();
        self.connections.cut_connections(stays);
        self.conversations.cut_connections(stays);
        self.open_loopback(rules);
    }

    fn far(&self, to: SocketAddr) -> Result<Far, &'static str> {
        if to.ip() == IpAddr::V4(GATEWAY) {
            return match self.doors.get(&to.port()) {
                Some(door) => Ok(Far::Host(*door)),
                None if to.port() == DNS => Ok(Far::Resolver),
                None => Err("no door"),
            };
        }
        self.gate.borrow_mut().pass(to).map(Far::Host)
    }

    fn count(&self, to: String, why: &str) {
        tracing::debug!(to, why, "refused");
        self.counts.count(to, why);
    }

    fn take(self: &Rc<Self>, bytes: &[u8]) {
        match packet::read(bytes) {
            Kind::Tcp {
                pair,
                is_first,
                is_reset,
            } => {
                if self.connections.hand(&pair, bytes) {
                    // TCP sends again what was lost.
                } else if is_first {
                    self.begin(pair, bytes);
                } else if !is_reset && let Some(reset) = packet::reset(bytes, pair) {
                    self.link.send(&reset);
                }
            }
            Kind::Udp { pair, data } => self.talk(pair, data, bytes),
            Kind::Other => {}
        }
    }

    /// Judges a packet that begins something.
    fn judge(&self, pair: Pair, packet: &[u8]) -> Option<Far> {
        match self.far(pair.to) {
            Ok(far) => Some(far),
            Err(why) => {
                let called = self.gate.borrow().name_of(pair.to);
                self.count(called, why);
                self.send_unreachable(packet, Unreached::Prohibited);
                None
            }
        }
    }

    fn send_unreachable(&self, packet: &[u8], why: Unreached) {
        if let Some(answer) = packet::unreachable(packet, why) {
            self.link.send(&answer);
        }
    }

    fn begin(self: &Rc<Self>, pair: Pair, first: &[u8]) {
        let Some(far) = self.judge(pair, first) else { return };
        // Without an answer the session's kernel tries again later.
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return self.count("connections at once".to_owned(), "too many");
        };
        let (number, packets) = self.connections.begin(pair);
        let (stack, first) = (Rc::clone(self), first.to_vec());
        spawn_local(async move {
            stack.connect(pair, far, first, packets).await;
            stack.connections.end(&pair, number);
            drop(place);
        });
    }

    async fn connect(self: &Rc<Self>, pair: Pair, far: Far, first: Vec<u8>, mut packets: mpsc::Receiver<Vec<u8>>) {
        let room = if self.most - self.places.available_permits() <= ROOMY {
            ROOM
        } else {
            LITTLE_ROOM
        };
        let accept = |first| Connection::accept(Rc::clone(&self.link), pair, first, room);
        let address = match far {
            Far::Host(address) => address,
            Far::Resolver => {
                let (near, session) = tokio::io::duplex(64 << 10);
                let refused = |name: String| self.count(name, "not named");
                if let Ok(connection) = accept(first) {
                    let _ = tokio::join!(
                        connection.carry(packets, near),
                        dns::serve(&self.gate, session, refused)
                    );
                }
                return;
            }
        };
        let dialed = tokio::select! {
            dialed = tokio::time::timeout(DIALING, TcpStream::connect(address)) => dialed,
            // The session says it again, or has given up.
            () = give_up(&mut packets) => {
                // It hears of a cut; what it has given up it does not hear.
                self.send_unreachable(&first, Unreached::Prohibited);
                return;
            }
        };
        match dialed {
            Ok(Ok(far)) => {
                let _ = far.set_nodelay(true);
                if let Ok(connection) = accept(first) {
                    connection.carry(packets, far).await;
                }
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if let Some(reset) = packet::reset(&first, pair) {
                    self.link.send(&reset);
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(to = %address, %error, "not reached");
                self.send_unreachable(&first, Unreached::Host);
            }
            Err(_) => self.send_unreachable(&first, Unreached::Host),
        }
    }

    fn talk(self: &Rc<Self>, pair: Pair, data: &[u8], whole: &[u8]) {
        if pair.to == SocketAddr::from((GATEWAY, DNS)) {
            return self.ask(pair, data);
        }
        if self.conversations.hand(&pair, data) {
            return;
        }
        let Some(Far::Host(far)) = self.judge(pair, whole) else {
            return;
        };
        let Ok(place) = Arc::clone(&self.talks).try_acquire_owned() else {
            return self.count("conversations over UDP at once".to_owned(), "too many");
        };
        let (number, datagrams) = self.conversations.begin(pair);
        self.conversations.hand(&pair, data);
        // Enough of it for the message that nobody listens.
        let first = whole.to_vec();
        let stack = Rc::clone(self);
        spawn_local(async move {
            let ended = stack.converse(pair, far, datagrams).await;
            if ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                stack.send_unreachable(&first, Unreached::Port);
            }
            stack.conversations.end(&pair, number);
            drop(place);
        });
    }

    async fn converse(&self, pair: Pair, far: SocketAddr, mut datagrams: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
        let any: SocketAddr = match far {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(far).await?;
        let mut buffer = vec![0; 65_535];
        loop {
            let next = async {
                tokio::select! {
                    datagram = datagrams.recv() => Ok((datagram, None)),
                    length = socket.recv(&mut buffer) => length.map(|length| (None, Some(length))),
                }
            };
            match tokio::time::timeout(SILENCE, next).await {
                Ok(moved) => match moved? {
                    (_, Some(length)) => {
                        let datagram = packet::datagram(pair, &buffer[..length]);
                        if datagram.len() <= MTU {
                            self.link.send(&datagram);
                        }
                    }
                    (Some(datagram), _) => {
                        // One that is too large for the machine's network is lost, as on any other.
                        match socket.send(&datagram).await {
                            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(error),
                            _ => {}
                        }
                    }
                    (None, None) => return Ok(()),
                },
                Err(_) => return Ok(()),
            }
        }
    }

    fn ask(self: &Rc<Self>, pair: Pair, question: &[u8]) {
        // The session's resolver asks again.
        let Ok(place) = Arc::clone(&self.questions).try_acquire_owned() else {
            return;
        };
        let (stack, question) = (Rc::clone(self), question.to_vec());
        spawn_local(async move {
            let _place: OwnedSemaphorePermit = place;
            let answer = match dns::answer(&stack.gate, &question).await {
                None => return,
                Some(Ok(answer)) => answer,
                Some(Err(name)) => {
                    stack.count(name, "not named");
                    dns::refuse(&question)
                }
            };
            stack.link.send(&packet::datagram(pair, &answer));
        });
    }

    /// Listens inside where a named address is of loopback, which never leaves the session's
    /// namespace by itself.
    fn open_loopback(self: &Rc<Self>, rules: &Rules) {
        let named: Vec<SocketAddr> = rules.hosts.iter().flat_map(loopback_of).collect();
        let mut loopback = self.loopback.borrow_mut();
        let loopback = &mut *loopback;
        loopback.open.retain(|address, task| {
            let stays = named.contains(address);
            if !stays {
                task.abort();
                if let Some(socket) = loopback.bound.get(address) {
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
            stays
        });
        for address in named {
            if loopback.open.contains_key(&address) {
                continue;
            }
            match loopback.listen(address) {
                Ok(listener) => {
                    let task = spawn_local(Rc::clone(self).lead_out(listener, address));
                    loopback.open.insert(address, task.abort_handle());
                }
                Err(error) => tracing::warn!(%address, %error, "a named address of loopback cannot be opened inside"),
            }
        }
    }

    async fn lead_out(self: Rc<Self>, listener: TcpListener, to: SocketAddr) {
        // They are cut with it.
        let mut carried = tokio::task::JoinSet::new();
        loop {
            while carried.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((mut near, _)) => {
                    carried.spawn_local(async move {
                        let _place = place;
                        if let Ok(mut far) = TcpStream::connect(to).await {
                            let _ = copy_bidirectional(&mut near, &mut far).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%to, %error, "a connection inside is not taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// The most descriptors that this process may have, after it has asked for enough.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let enough = (MOST_CONNECTIONS + MOST_CONVERSATIONS + LEFT) as u64 * 2;
    // `None` is no limit.
    let most = limit.maximum.map_or(enough, |most| most.min(enough));
    let wanted = Rlimit {
        current: limit.current.map(|current| most.max(current)),
        ..limit
    };
    let raised = setrlimit(Resource::Nofile, wanted).is_ok();
    let have = if raised { wanted } else { limit }.current;
    have.map_or(usize::MAX, |have| usize::try_from(have).unwrap_or(usize::MAX))
}

/// Ends when the session has given up a connection that is not made yet.
async fn give_up(packets: &mut mpsc::Receiver<Vec<u8>>) {
    while let Some(packet) = packets.recv().await {
        if matches!(packet::read(&packet), Kind::Tcp { is_reset: true, .. }) {
            return;
        }
    }
}

/// The addresses of loopback that a host names.
fn loopback_of(host: &Host) -> Vec<SocketAddr> {
    let Some(port) = host.port else { return Vec::new() };
    match &host.place {
        Place::Name(name) if name == "localhost" => {
            vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
        }
        Place::Addresses { first, bits } if first.is_loopback() && (*bits == 32 || *bits == 128) => {
            vec![(*first, port).into()]
        }
        _ => Vec::new(),
    }
}

impl Loopback {
    fn listen(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        if !self.bound.contains_key(&address) {
            let domain = Domain::for_address(address);
            let unused = self
                .unused
                .iter()
                .position(|socket| socket.domain().is_ok_and(|of| of == domain));
            let place = unused.ok_or_else(|| io::Error::other("the session has no more sockets for that"))?;
            let socket = self.unused.swap_remove(place);
            // What it took before lingers when it is opened again.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            self.bound.insert(address, socket);
        }
        let socket = &self.bound[&address];
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.try_clone()?.into())
    }
}
