"""System calls that Python's standard library lacks, and small helpers on processes."""

import ctypes
import os
import struct

libc = ctypes.CDLL(None, use_errno=True)

# From the kernel's headers; the same on every architecture of Linux.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
CLONE_NEWNET = 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_MOVE_MOUNT, SYS_CLOSE_RANGE = 429, 436
SYS_MOUNT_SETATTR, SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT = 442, 444, 445, 446
AT_RECURSIVE = 0x8000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 4, 24, 38, 22
PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT = 36, 47
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
MADV_HUGEPAGE, MADV_COLLAPSE, LARGE_PAGE = 14, 25, 2 << 20
UID = 1000  # inside a sandbox


def check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option, a=0, b=0, c=0, d=0):
    return libc.prctl(option, ctypes.c_ulong(a), ctypes.c_ulong(b), ctypes.c_ulong(c), ctypes.c_ulong(d))


def mount(source, target, kind, flags, data=""):
    result = libc.mount(os.fsencode(source), os.fsencode(target), kind.encode() if kind else None, ctypes.c_ulong(flags), os.fsencode(data))
    check(result, f"mount {target}")


def move_mount(fd, target):
    """Puts a mount that is nowhere yet at `target`."""
    # From the descriptor itself: MOVE_MOUNT_F_EMPTY_PATH.
    check(libc.syscall(SYS_MOVE_MOUNT, fd, b"", -100, os.fsencode(target), 4), f"mount {target}")


def restrict(target, flags, recursive=True):
    """Adds flags to a mount, with all that is mounted below it."""
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    check(libc.syscall(SYS_MOUNT_SETATTR, -100, os.fsencode(target), flags, attributes, len(attributes)), f"restrict {target}")


def null(fd):
    other = os.open("/dev/null", os.O_RDWR)
    os.dup2(other, fd)
    os.close(other)


def close_descriptors(keep):
    """Closes all but the standard streams and `keep`."""
    edges = [2, *sorted(fd for fd in keep if fd > 2), (1 << 32) - 1]
    for before, after in zip(edges, edges[1:]):
        first, last = before + 1, after if after == edges[-1] else after - 1
        if first <= last and libc.syscall(SYS_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), 0) < 0:
            # Linux before 5.9.
            for fd in map(int, os.listdir("/proc/self/fd")):
                if first <= fd <= last:
                    try:
                        os.close(fd)
                    except OSError:
                        pass


def start_time(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def threads():
    return len(os.listdir("/proc/self/task"))


def gather_memory():
    """Puts what this process has in memory into large pages, as far as there are some: a fork of
    it, and the end of one, then take the kernel half the time. A fork that writes copies small
    ones."""
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps]
    for addresses, mode, *rest in lines:
        if mode == "rw-p" and (len(rest) < 4 or rest[3] == "[heap]"):
            first, last = (int(address, 16) for address in addresses.split("-"))
            first, last = -(-first // LARGE_PAGE) * LARGE_PAGE, last // LARGE_PAGE * LARGE_PAGE
            for advice in (MADV_HUGEPAGE, MADV_COLLAPSE) if first < last else ():
                libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)


def prctl_pointer(option, mode, data):
    return libc.prctl(option, ctypes.c_ulong(mode), ctypes.create_string_buffer(data, len(data)), 0, 0)
