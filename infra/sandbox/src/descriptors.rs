//! The descriptors that a process starts with: the three standard ones, and those that its start
//! names.

use std::{
    io,
    os::{fd::RawFd, unix::process::CommandExt},
    process::Command,
};

/// The first descriptor that is no standard stream.
const FIRST: libc::c_uint = 3;

/// Closes all but the standard streams. A program calls it first, before anything of its own is
/// open.
///
/// Without it the service would hold what was open in the shell that started it, such as a lock or
/// the end of a pipe.
pub fn close_inherited() {
    each_from_first(0, |fd| {
        // SAFETY: nothing in this process owns a descriptor yet.
        unsafe { libc::close(fd) };
    });
}

/// Starts `command` with its standard streams and `named`, and with no other descriptor.
pub fn keep_only<'c>(command: &'c mut Command, named: &[RawFd]) -> &'c mut Command {
    let named = named.to_vec();
    // SAFETY: between fork and exec it makes system calls only, on the usual kernel.
    unsafe {
        command.pre_exec(move || {
            each_from_first(libc::CLOSE_RANGE_CLOEXEC, |fd| {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            });
            for fd in &named {
                if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        })
    }
}

/// Leaves what started this process: its session and terminal, its mask for files, and the signals
/// that it ignores.
///
/// The standard library gives a child an empty signal mask.
pub fn detach(command: &mut Command) -> &mut Command {
    // SAFETY: the calls may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::umask(0o022);
            for signal in 1..=libc::SIGRTMAX() {
                // Some cannot be set, and are as they should be.
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        })
    }
}

/// Does `close_range` from the first on. A kernel before 5.9 has none: there each descriptor is
/// given to `one`.
fn each_from_first(flags: libc::c_uint, one: impl Fn(RawFd)) {
    // SAFETY: no memory is handed over.
    if unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) } == 0 {
        return;
    }
    let mut most = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it writes into `most`.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut most) };
    for fd in FIRST as RawFd..most.rlim_cur.min(1 << 20) as RawFd {
        one(fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::AsRawFd};

    #[test]
    fn a_child_has_its_standard_streams_and_the_named_descriptors() {
        let (named, other) = (File::open("/").unwrap(), File::open("/").unwrap());
        // SAFETY: both are open.
        unsafe {
            libc::fcntl(named.as_raw_fd(), libc::F_SETFD, 0);
            libc::fcntl(other.as_raw_fd(), libc::F_SETFD, 0);
        }
        let mut command = Command::new("/bin/sh");
        // The shell's own glob opens one more, which is the folder's.
        command.args(["-c", "for fd in /proc/$$/fd/*; do readlink $fd; done"]);
        let output = keep_only(command.stdin(std::process::Stdio::null()), &[named.as_raw_fd()])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let files = said.lines().filter(|line| *line == "/").count();
        assert_eq!(files, 1, "{said}");
        assert!(said.lines().count() <= 5, "{said}");
    }
}
