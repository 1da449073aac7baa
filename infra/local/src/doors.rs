//! The host's listeners, each with bounds of its own: on connections, on what a request's head may
//! be, and on times.
//!
//! * The socket in the state folder ([`socket`]) is for everything of ours: the command line, the
//!   functions' SDKs, agents.
//! * TCP on 127.0.0.1 is for other people's tools. What happens there takes no connection from the
//!   others.
//! * The Lambda runtime API has a TCP port of its own, as `lambda_runtime` knows no socket;
//!   [`crate::functions`] says why nobody else can answer there.
//!
//! A full listener closes the connection that has waited longest without a whole request of a known
//! caller. So half requests push each other out, and a caller who asks for something is not pushed
//! out.

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::HashMap,
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Notify, watch},
};
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

/// The most bytes of a request's line and headers.
const MOST_HEAD: usize = 64 << 10;
/// The longest time that a peer may take to read any part of an answer.
const STALL: Duration = Duration::from_secs(30);
/// The pause when there is no descriptor for another connection.
const NO_ROOM: Duration = Duration::from_millis(50);
/// The most descriptors that a host asks for.
const MOST_DESCRIPTORS: u64 = 16_384;

/// The bounds of a listener.
///
/// * `most`: connections at a time.
/// * `idle`: how long a connection may take for a request's head, and so also how long it may be
///   idle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) most: usize,
    pub(crate) idle: Duration,
}

/// The bounds of the three listeners.
pub(crate) struct Shares {
    pub(crate) ours: Bounds,
    pub(crate) functions: Bounds,
    pub(crate) others: Bounds,
}

impl Shares {
    /// Divides what this process may open, leaving a quarter to its own files.
    pub(crate) fn of(descriptors: u64) -> Self {
        let share = |part: u64, most: u64| usize::try_from((descriptors / part).min(most)).unwrap_or(1);
        // An SDK keeps a connection for up to 90 s, and is not to find it closed.
        let kept = Duration::from_secs(120);
        Self {
            ours: Bounds {
                most: share(2, 8192),
                idle: kept,
            },
            functions: Bounds {
                most: share(8, 256),
                idle: kept,
            },
            others: Bounds {
                most: share(8, 256),
                idle: Duration::from_secs(20),
            },
        }
    }
}

/// Raises the number of descriptors that this process may have, and gives it back.
pub(crate) fn raise_descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(RLIMIT_NOFILE) else {
        return 1024;
    };
    let wanted = hard.min(MOST_DESCRIPTORS);
    if wanted <= soft || setrlimit(RLIMIT_NOFILE, wanted, hard).is_err() {
        return soft;
    }
    wanted
}

/// Takes connections.
pub(crate) trait Listener: Send + 'static {
    type Connection: AsyncRead + AsyncWrite + Send + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listener for TcpListener {
    type Connection = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        let (connection, _) = TcpListener::accept(self).await?;
        // Small answers are not to wait for each other.
        let _ = connection.set_nodelay(true);
        Ok(connection)
    }
}

impl Listener for UnixListener {
    type Connection = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        let (connection, _) = UnixListener::accept(self).await?;
        socket::check_peer(&connection)?;
        Ok(connection)
    }
}

/// A connection, as its requests know it.
#[derive(Clone, Default)]
pub(crate) struct Guest(Arc<Seat>);

#[derive(Default)]
struct Seat {
    /// Since when it has had no request of a known caller; `None` while one is answered.
    waiting: Mutex<Option<Instant>>,
    leave: Notify,
}

impl Guest {
    fn waiting(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the connection from being closed for another's sake, for as long as the answer is
    /// made.
    pub(crate) fn serve(&self) -> impl Drop + use<> {
        struct Served(Guest);
        impl Drop for Served {
            fn drop(&mut self) {
                *self.0.waiting() = Some(Instant::now());
            }
        }
        *self.waiting() = None;
        Served(self.clone())
    }
}

/// The connections of a listener.
#[derive(Default)]
struct Guests {
    seats: Mutex<(u64, HashMap<u64, Guest>)>,
    left: Notify,
}

impl Guests {
    fn seats(&self) -> MutexGuard<'_, (u64, HashMap<u64, Guest>)> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seats a connection, if need be on the seat of the one that has waited longest. `None` if all
    /// are being served.
    fn seat(&self, most: usize) -> Option<(u64, Guest)> {
        let mut seats = self.seats();
        let (next, all) = &mut *seats;
        if all.len() >= most {
            let waiting = all.iter().filter_map(|(id, guest)| Some(((*guest.waiting())?, *id)));
            let (_, oldest) = waiting.min()?;
            all.remove(&oldest)?.0.leave.notify_one();
        }
        *next += 1;
        let guest = Guest::default();
        *guest.waiting() = Some(Instant::now());
        all.insert(*next, guest.clone());
        Some((*next, guest))
    }

    fn leave(&self, id: u64) {
        self.seats().1.remove(&id);
        self.left.notify_waiters();
    }

    async fn have_left(&self) {
        loop {
            let left = self.left.notified();
            if self.seats().1.is_empty() {
                return;
            }
            left.await;
        }
    }
}

/// Answers at a listener until the host leaves, and then until what is being answered is.
pub(crate) async fn keep(listener: impl Listener, router: Router, bounds: Bounds, mut closed: watch::Receiver<bool>) {
    let guests = Arc::new(Guests::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.wait_for(|closed| *closed) => break,
        };
        let connection = match accepted {
            Ok(connection) => connection,
            Err(cause) => {
                tracing::debug!(fault = "Door", %cause, "a connection was not taken");
                if cause.kind() != io::ErrorKind::PermissionDenied {
                    tokio::time::sleep(NO_ROOM).await;
                }
                continue;
            }
        };
        let Some((id, guest)) = guests.seat(bounds.most) else {
            continue;
        };
        let (guests, router, closed) = (guests.clone(), router.clone(), closed.clone());
        tokio::spawn(async move {
            talk(connection, router, guest, bounds, closed).await;
            guests.leave(id);
        });
    }
    guests.have_left().await;
}

async fn talk(
    connection: impl AsyncRead + AsyncWrite + Send + 'static,
    router: Router,
    guest: Guest,
    bounds: Bounds,
    mut closed: watch::Receiver<bool>,
) {
    let mut connection = TimeoutStream::new(connection);
    connection.set_write_timeout(Some(STALL));
    let answer = service_fn({
        let guest = guest.clone();
        move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(guest.clone());
            router.clone().call(request)
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.idle)
        .max_header_size(MOST_HEAD)
        .max_buf_size(MOST_HEAD)
        .serve_connection(TokioIo::new(Box::pin(connection)), answer);
    let mut conversation = std::pin::pin!(conversation);
    tokio::select! {
        // What went wrong went wrong for the peer; it has been told, or has gone.
        _ = conversation.as_mut() => return,
        () = guest.0.leave.notified() => return,
        _ = closed.wait_for(|closed| *closed) => conversation.as_mut().graceful_shutdown(),
    }
    let _ = conversation.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_listener_closes_who_has_waited_longest_and_nobody_who_is_served() {
        let guests = Guests::default();
        let (_, first) = guests.seat(2).expect("a seat");
        let (second, _) = guests.seat(2).expect("a seat");
        let served = first.serve();
        let (third, guest) = guests.seat(2).expect("the second's seat");
        assert!(!guests.seats().1.contains_key(&second) && guests.seats().1.contains_key(&third));
        let also_served = guest.serve();
        assert!(guests.seat(2).is_none(), "both are served");
        drop((served, also_served));
        assert!(guests.seat(2).is_some());
    }

    #[test]
    fn what_others_may_open_leaves_room_for_ours() {
        for descriptors in [256, 1024, 16_384, 1 << 20] {
            let shares = Shares::of(descriptors);
            let all = shares.ours.most + shares.functions.most + shares.others.most;
            assert!(all as u64 <= descriptors * 3 / 4, "{descriptors}");
        }
    }
}
