//! The socket of the one-machine host, and the HTTP client of the AWS SDKs that speaks through it.
//!
//! A TCP port belongs to the first process that binds it, so no client of ours trusts one. This
//! socket lies in a folder that only its user can enter; a client checks the folder's owner and
//! mode, and by the kernel's word who listens. The host checks who connects.
//!
//! The protocols that go through the socket are not here.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod client;

pub use client::{LOCALHOST, UNIX, http_client};

use nix::{
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::{
        socket::{getsockopt, sockopt::PeerCredentials},
        stat::{FchmodatFlags, Mode, fchmodat, fstat},
    },
    unistd::geteuid,
};
use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::DirBuilderExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// The socket's folder in the state folder, and its name in that.
const PLACE: (&str, &str) = ("socket", "host");

/// The path of the socket of the host with this state folder.
pub fn path(state: &Path) -> PathBuf {
    state.join(PLACE.0).join(PLACE.1)
}

/// The socket's folder, held open: what was checked is what is used.
struct Folder {
    folder: OwnedFd,
    name: PathBuf,
}

impl Folder {
    /// Opens the folder of the socket at `path`, if it is its user's alone.
    fn open(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "this is no socket's path"));
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(AT_FDCWD, folder, flags, Mode::empty())?;
        let found = fstat(&opened)?;
        if !is_trusted(found.st_uid) || found.st_mode & 0o077 != 0 {
            return Err(stranger(format!(
                "{} is not for its user alone: it belongs to user {} and has the mode {:o}",
                folder.display(),
                found.st_uid,
                found.st_mode & 0o7777
            )));
        }
        Ok(Self {
            folder: opened,
            name: name.into(),
        })
    }

    /// The socket's path below the open folder. A socket's address has at most 107 bytes, and a
    /// state folder's path may have more.
    fn address(&self) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.folder.as_raw_fd().to_string())
            .join(&self.name)
    }
}

/// Whether this user or root.
fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

fn stranger(message: String) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, message)
}

/// Checks that the other end is a process of this user or of root.
///
/// # Errors
///
/// [`ErrorKind::PermissionDenied`] if it is not. Final for this connection.
pub fn check_peer(connection: &impl AsFd) -> io::Result<()> {
    let peer = getsockopt(&connection.as_fd(), PeerCredentials)?.uid();
    if is_trusted(peer) {
        return Ok(());
    }
    Err(stranger(format!("a process of user {peer} is behind the socket")))
}

/// Connects to the host that listens at `path`.
///
/// # Errors
///
/// As [`UnixStream::connect`] when there is no host; [`ErrorKind::PermissionDenied`] when somebody
/// else could be one.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let folder = Folder::open(path)?;
    let connection = UnixStream::connect(folder.address())?;
    check_peer(&connection)?;
    Ok(connection)
}

/// The same without blocking the thread.
///
/// # Errors
///
/// As [`connect`].
pub async fn connect_async(path: &Path) -> io::Result<tokio::net::UnixStream> {
    let folder = Folder::open(path)?;
    loop {
        match tokio::net::UnixStream::connect(folder.address()).await {
            Ok(connection) => {
                check_peer(&connection)?;
                return Ok(connection);
            }
            // The queue of connections is full, and a socket of this kind does not wait for room in
            // it by itself.
            Err(busy) if busy.kind() == ErrorKind::WouldBlock => {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Listens at `path`, in a folder that is made for its user alone. Who calls has seen to it that no
/// other host is there.
///
/// # Errors
///
/// [`ErrorKind::PermissionDenied`] when the folder is somebody else's. Final until that is put
/// right.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let folder = Folder::open(path)?;
    match fs::remove_file(folder.address()) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(folder.address())?;
    let owner_only = Mode::S_IRUSR | Mode::S_IWUSR;
    fchmodat(&folder.folder, &folder.name, owner_only, FchmodatFlags::FollowSymlink)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
        result.expect_err("it is refused").kind()
    }

    #[test]
    fn a_socket_works_below_a_path_of_any_length_and_any_characters() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("a,b:c\\d é".repeat(20)).join("x".repeat(200));
        fs::create_dir_all(&state).expect("made");
        let listener = listen(&path(&state)).expect("it listens");
        let _connection = connect(&path(&state)).expect("it is there");
        check_peer(&listener.accept().expect("a connection").0).expect("this process");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path(&state)), mode(&state.join("socket"))), (0o600, 0o700));
        listen(&path(&state)).expect("the socket of a host that has gone is replaced");
    }

    #[test]
    fn a_folder_that_others_may_enter_or_that_is_a_link_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = path(folder.path());
        drop(listen(&socket).expect("it listens"));
        let place = folder.path().join("socket");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o750)).expect("changed");
        assert_eq!(kind(connect(&socket)), ErrorKind::PermissionDenied);
        assert_eq!(kind(listen(&socket)), ErrorKind::PermissionDenied);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).expect("changed");
        assert_eq!(kind(connect(&socket)), ErrorKind::ConnectionRefused);
        fs::rename(&place, folder.path().join("elsewhere")).expect("moved");
        std::os::unix::fs::symlink("elsewhere", &place).expect("a link");
        assert_eq!(kind(connect(&socket)), ErrorKind::NotADirectory);
    }

    #[test]
    fn only_this_user_and_root_may_own_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = path(folder.path());
        let _listener = listen(&socket).expect("it listens");
        connect(&socket).expect("it is there");
        assert!(is_trusted(0) && is_trusted(geteuid().as_raw()) && !is_trusted(geteuid().as_raw() + 1));
        if geteuid().is_root() {
            chown(folder.path().join("socket"), Some(65_534), None).expect("given away");
            assert_eq!(kind(connect(&socket)), ErrorKind::PermissionDenied);
        } else {
            eprintln!("not root: that a folder which was given away is refused is tried as root");
        }
    }
}
