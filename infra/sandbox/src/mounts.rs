//! Mounts that are made outside, for a sandbox whose user may not go where its folders lie.

use std::{
    collections::HashMap,
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::{Mutex, PoisonError},
};

const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
const AT_EMPTY_PATH: libc::c_int = 0x1000;
const AT_RECURSIVE: libc::c_int = 0x8000;

#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// A mount of `path` that is nowhere yet.
///
/// * `owner`: who is seen as the owner of what root owns; the file system must be able to. `None`
///   leaves owners as they are.
///
/// # Errors
///
/// An error of the kernel. Final for this path.
pub(crate) fn of(path: &Path, owner: Option<u32>) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let recursive = if owner.is_none() { AT_RECURSIVE } else { 0 };
    let flags = libc::OPEN_TREE_CLONE as libc::c_int | libc::O_CLOEXEC | recursive;
    // SAFETY: the path ends in a zero byte; the descriptor that comes back is nobody else's.
    let fd = unsafe {
        let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    // What is mounted below it inside must not appear outside.
    set(
        &fd,
        recursive,
        &Attributes {
            set: 0,
            clear: 0,
            propagation: libc::MS_PRIVATE,
            user_namespace: 0,
        },
    )?;
    if let Some(owner) = owner {
        let namespace = namespace_of(owner)?;
        set(
            &fd,
            0,
            &Attributes {
                set: MOUNT_ATTR_IDMAP,
                clear: 0,
                propagation: 0,
                user_namespace: namespace.as_raw_fd() as u64,
            },
        )?;
    }
    Ok(fd)
}

fn set(mount: &OwnedFd, recursive: libc::c_int, attributes: &Attributes) -> io::Result<()> {
    // SAFETY: the attributes live through the call, and are as long as is said.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            AT_EMPTY_PATH | recursive,
            attributes,
            size_of::<Attributes>(),
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A user namespace in which root is `owner`. It is made once.
fn namespace_of(owner: u32) -> io::Result<OwnedFd> {
    static MADE: Mutex<Option<HashMap<u32, OwnedFd>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    if let Some(namespace) = made.get(&owner) {
        return namespace.try_clone();
    }
    let namespace = make_namespace(owner)?;
    let copy = namespace.try_clone()?;
    made.insert(owner, namespace);
    Ok(copy)
}

/// A namespace lives with what holds it: a process makes it, and ends once it is held here.
fn make_namespace(owner: u32) -> io::Result<OwnedFd> {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    // SAFETY: the child makes system calls only, and ends.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        // SAFETY: the descriptors are open and the byte lives through the calls.
        unsafe {
            libc::close(ours.as_raw_fd());
            let mut byte = u8::from(libc::unshare(libc::CLONE_NEWUSER) == 0);
            libc::write(theirs.as_raw_fd(), (&raw const byte).cast(), 1);
            // Until the other end is closed.
            libc::read(theirs.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
    }
    drop(theirs);
    let mut hold = || {
        let mut said = [0];
        io::Read::read_exact(&mut ours, &mut said)?;
        if said == [0] {
            return Err(io::Error::other("no user namespace can be made"));
        }
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{child}/{file}"), format!("0 {owner} 1"))?;
        }
        fs::File::open(format!("/proc/{child}/ns/user"))
    };
    let held = hold();
    drop(ours);
    // SAFETY: the child is this process's own; nothing is written.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    held.map(OwnedFd::from)
}
