"""Descriptors that somebody else opened."""

import fcntl
import os
import stat
import termios

from attack import call, got, unless


def opened(fd):
    about = os.fstat(fd)
    return f"{os.readlink(f'/proc/self/fd/{fd}')} {stat.filemode(about.st_mode)}"


def try_those_that_are_open_at_the_start(target):
    mine = os.open("/proc/self/fd", os.O_RDONLY)
    # Two are the pipe of this attack and the folder here.
    there = [int(name) for name in os.listdir(mine)]
    return [opened(fd) for fd in there if fd > 2 and fd != mine and not opened(fd).startswith("pipe:") and os.path.exists(f"/proc/self/fd/{fd}")]


def try_folders_that_lead_out(target):
    return got((f"{fd}", lambda fd=fd: os.listdir(os.open("../../../../..", os.O_RDONLY, dir_fd=fd))) for fd in range(3, 1024))


def try_the_standard_streams_again(target):
    # A file of the service would be written all over.
    return [fd for fd in (0, 1, 2) if stat.S_ISREG(os.fstat(fd).st_mode)]


@unless("the machine's root")
def try_those_of_other_processes(target):
    # The session's own runs are no strangers; its first process holds the service's socket.
    others = (*target["first"], target["victim"], target["agent"], target["host"])
    return got((f"{pid}", lambda pid=pid: os.listdir(f"/proc/{pid}/fd") and os.open(f"/proc/{pid}/fd/0", os.O_RDONLY)) for pid in others)


def try_to_take_them_by_pidfd(target):
    def take(pid, fd):
        return opened(call(438, os.pidfd_open(pid), fd, 0))

    return got((f"{pid}/{fd}", lambda pid=pid, fd=fd: take(pid, fd)) for pid in (1, os.getppid(), target["victim"], target["agent"]) for fd in range(12))


def try_to_type_into_a_terminal(target):
    terminals = [0, 1, 2]
    try:
        terminals.append(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        pass
    return got((f"{fd}", lambda fd=fd: fcntl.ioctl(fd, termios.TIOCSTI, b"x")) for fd in terminals)
