"""Files of the machine, of the service and of other sessions."""

import ctypes
import os
import pathlib

from attack import call, got, libc, unless, write


def try_secrets_by_their_paths(target):
    return got((path, lambda path=path: open(path, "rb").read(64)) for path in target["secrets"])


def try_secrets_by_the_roots_of_processes(target):
    roots = [f"/proc/{pid}/{link}" for pid in ("1", "self", os.getppid(), target["victim"], target["agent"]) for link in ("root", "cwd", "task/1/root")]
    ways = [root + up for root in roots for up in ("", "/..", "/../../../../..")]
    return got((way + path, lambda way=way, path=path: open(way + path, "rb").read(64)) for way in ways for path in target["secrets"])


def try_folders_of_the_service(target):
    return got((path, lambda path=path: os.listdir(path)) for path in target["folders"])


def try_to_write_where_others_read(target):
    def make(path):
        file = os.path.join(path, "adversary")
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY))
        return file

    places = ["/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/bin", "/lib", "/proc", "/dev", "/run", "/root", *target["folders"]]
    return got((path, lambda path=path: make(path)) for path in places)


@unless("the machine's root")
def try_to_change_devices(target):
    changes = {
        "mode": lambda path: os.chmod(path, 0o777),
        "owner": lambda path: os.chown(path, os.getuid(), os.getgid()),
        "times": lambda path: os.utime(path, (1, 1)),
        "attribute": lambda path: os.setxattr(path, "user.adversary", b"x"),
        "link": lambda path: os.rename(path, path + ".old"),
    }
    devices = [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")]
    return got((f"{what} of {path}", lambda path=path, change=change: change(path) or "changed") for path in devices for what, change in changes.items())


def try_devices_of_its_own(target):
    places = (pathlib.Path.home(), pathlib.Path("/tmp"), pathlib.Path.cwd(), pathlib.Path("/dev/shm"))

    def make(place, device):
        path = place / f"device-{device}"
        os.mknod(path, 0o60666, device)
        return open(path, "rb").read(16)

    return got((f"{place} {device}", lambda place=place, device=device: make(place, device)) for place in places for device in (os.makedev(254, 0), os.makedev(8, 0), os.makedev(1, 1)))


def try_files_by_their_handles(target):
    handle = ctypes.create_string_buffer(b"\x80\0\0\0\1\0\0\0" + bytes(128))
    mount = ctypes.c_int()
    name_to, open_by = {"x86_64": (303, 304), "aarch64": (264, 265)}[os.uname().machine]
    folder = os.open("/usr", os.O_RDONLY)
    named = got([("a handle", lambda: call(name_to, -100, b"/usr", handle, ctypes.byref(mount), 0))])
    return named + got([("opened", lambda: call(open_by, folder, handle, 0))])


def try_mounts_with_set_user_id_files(target):
    if target["tier"] == "C":
        return None
    lacks = []
    for line in open("/proc/self/mountinfo"):
        before, after = line.split(" - ")
        options = before.split()[5].split(",")
        is_device = before.split()[4] in [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")] or after.startswith("devtmpfs")
        lacks += [f"{before.split()[4]} lacks {each}" for each in ("nosuid", *(() if is_device else ("nodev",))) if each not in options]
        if is_device and "ro" not in options:
            lacks.append(f"{before.split()[4]} can be changed")
    return lacks


def try_programs_that_change_the_user(target):
    def become(program):
        import subprocess

        done = subprocess.run(program, capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL)
        if done.returncode or not done.stdout.strip():
            raise OSError(1, "no")
        return done.stdout

    return got((each[0], lambda each=each: become(each)) for each in (["su", "-c", "id"], ["sudo", "-n", "id"], ["newuidmap", str(os.getpid()), "0", "0", "1"], ["pkexec", "id"]))


@unless("modes and times", "the machine's root")
def try_modes_and_times_of_secrets(target):
    changes = {
        "mode": lambda path: os.chmod(path, 0o666),
        "times": lambda path: os.utime(path, (1, 1)),
        "attribute": lambda path: os.setxattr(path, "user.adversary", b"x"),
        "length": lambda path: os.truncate(path, 0),
        "name": lambda path: os.rename(path, path + ".old"),
        "link": lambda path: os.link(path, os.path.expanduser("~/linked")),
    }
    return got((f"{what} of {path}", lambda path=path, change=change: change(path) or "changed") for path in target["secrets"] for what, change in changes.items())


@unless("the machine's root")
def try_to_be_another_user(target):
    return got(
        [
            ("setuid", lambda: os.setuid(0) or os.getuid()),
            ("setgid", lambda: os.setgid(0) or os.getgid()),
            ("setgroups", lambda: os.setgroups([0]) or os.getgroups()),
            ("setfsuid", lambda: (libc.setfsuid(0), libc.setfsuid(0))[1] == 0 and os.getuid() != 0 or [][0]),
            ("uid_map", lambda: write("/proc/self/uid_map", b"0 0 1")),
            ("uid_map of another", lambda: write("/proc/1/uid_map", b"0 0 1")),
        ]
    )


@unless("shared memory")
def try_shared_memory_without_a_bound(target):
    """Of the machine's memory nobody is to have more than a part by a file."""
    about = os.statvfs("/dev/shm")
    # Whole pages.
    most = os.sysconf("SC_PAGE_SIZE") * (os.sysconf("SC_PHYS_PAGES") // 4 + 1)
    return got(
        [
            ("bytes", lambda: about.f_blocks * about.f_frsize > most and about.f_blocks or [][0]),
            ("files", lambda: about.f_files > 1 << 16 and about.f_files or [][0]),
            ("a larger one", lambda: libc.mount(b"none", b"/dev/shm", b"tmpfs", ctypes.c_ulong(32), b"size=90%") == 0 or [][0]),
        ]
    )
