"""Other processes: of the service, of the same user, of the machine."""

import ctypes
import os
import resource
import signal
import socket

from attack import call, got, libc, unless

HERE = {"x86_64": 0, "aarch64": 1}[os.uname().machine]


def _strangers(target):
    """Those that are not of this session, as far as their ids say anything here."""
    return [target["victim"], target["agent"], target["host"]]


@unless("signals")
def try_signals(target):
    pids = _strangers(target)
    return got(
        [(f"kill {pid}", lambda pid=pid: os.kill(pid, 0) or "reached") for pid in pids]
        + [(f"pidfd {pid}", lambda pid=pid: signal.pidfd_send_signal(os.pidfd_open(pid), 0) or "reached") for pid in pids]
        + [(f"group of {pid}", lambda pid=pid: os.killpg(os.getpgid(pid), 0) or "reached") for pid in pids]
    )


def try_limits_of_others(target):
    return got((f"{pid}", lambda pid=pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (7, 7))) for pid in [target["victim"]])


def try_priorities_of_others(target):
    ioprio_set = (251, 30)[HERE]
    victim = target["victim"]
    return got(
        [
            ("nice of a process", lambda: os.setpriority(os.PRIO_PROCESS, victim, 7) or "set"),
            ("nice of a group", lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(victim), 7) or "set"),
            ("input and output of a process", lambda: call(ioprio_set, 1, victim, 3 << 13)),
            ("input and output of a group", lambda: call(ioprio_set, 2, os.getpgid(victim), 3 << 13)),
            ("affinity", lambda: os.sched_setaffinity(victim, {0}) or "set"),
            ("scheduler", lambda: os.sched_setscheduler(victim, os.SCHED_IDLE, os.sched_param(0)) or "set"),
        ]
    )


def try_priorities_of_the_user(target):
    """Settings of the user are seen from outside: inside it is the session's own processes that
    it may set."""
    for attempt in (lambda: os.setpriority(os.PRIO_USER, 0, 7), lambda: os.setpriority(os.PRIO_USER, os.getuid(), 7), lambda: call((251, 30)[HERE], 3, os.getuid(), 3 << 13)):
        try:
            attempt()
        except OSError:
            pass


@unless("the machine's root")
def try_memory_and_files_of_others(target):
    names = "environ mem maps auxv cwd root exe fd stack syscall io timerslack_ns map_files".split()

    def look(pid, name):
        path = f"/proc/{pid}/{name}"
        if name in ("cwd", "root", "exe"):
            return os.readlink(path)
        if name in ("fd", "map_files"):
            return os.readlink(f"{path}/{os.listdir(path)[0]}")
        with open(path, "rb") as file:
            if name == "mem":
                file.seek(int(open(f"/proc/{pid}/maps").read().split("-")[0], 16))
            data = file.read(16)
        if not data:
            raise OSError(1, "empty")
        return data

    others = [*target["first"], *_strangers(target)]
    return got((f"{pid}/{name}", lambda pid=pid, name=name: look(pid, name)) for pid in others for name in names)


def try_settings_of_others(target):
    def write(pid, name, text):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)
        return "written"

    files = {"oom_score_adj": "1000", "coredump_filter": "ff", "comm": "adversary", "timerslack_ns": "7", "clear_refs": "1", "autogroup": "7"}
    return got((f"{pid}/{name}", lambda pid=pid, name=name, text=text: write(pid, name, text)) for pid in _strangers(target) for name, text in files.items())


def try_to_trace_them(target):
    ptrace = (101, 117)[HERE]
    buffer = ctypes.create_string_buffer(64)
    found = got((f"ptrace {pid}", lambda pid=pid: call(ptrace, 0x4206, pid, 0, 0)) for pid in (1, *_strangers(target)))
    return found + got((f"read {pid}", lambda pid=pid: call((310, 270)[HERE], pid, buffer, 1, buffer, 1, 0)) for pid in (1, *_strangers(target)))


@unless("abstract sockets")
def try_abstract_sockets(target):
    def talk():
        with socket.socket(socket.AF_UNIX) as it:
            it.connect("\0" + target["abstract"])
            return it.recv(16)

    return got([("connected", talk)])


@unless("sockets and shared memory")
def try_sockets_with_a_path(target):
    def talk():
        with socket.socket(socket.AF_UNIX) as it:
            it.connect(target["socket"])
            return it.recv(16)

    return got([("connected", talk)])


@unless("sockets and shared memory")
def try_shared_memory(target):
    shmget, shmat = ((29, 30), (194, 196))[HERE]

    def attach():
        address = call(shmat, call(shmget, target["segment"], 16, 0), 0, 0o10000)
        return ctypes.string_at(address, 6)

    return got([("System V", attach), ("POSIX", lambda: open(f"/dev/shm/{target['shared']}", "rb").read())])


def try_groups_that_limit_it(target):
    def write(path):
        with open(path, "w") as file:
            file.write("max")
        return "written"

    files = [os.path.join(group, name) for group in target["groups"] for name in ("memory.max", "pids.max", "cpu.max", "cgroup.procs", "memory.limit_in_bytes", "tasks", "notify_on_release")]
    ways = ("", "/proc/1/root", "/proc/self/root/..")
    return got((way + path, lambda way=way, path=path: write(way + path)) for way in ways for path in files)


def try_more_descriptors_and_memory_than_allowed(target):
    return got(
        [
            ("descriptors", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)) or "raised"),
            ("processes", lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1 << 20, 1 << 20)) or "raised"),
            ("priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5) or "raised"),
            ("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) or "raised"),
        ]
    )
