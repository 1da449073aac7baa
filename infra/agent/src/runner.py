"""What runs inside a session on one machine, and what makes the sandbox around it.

It is started in one of these ways; each talks JSON lines over a Unix socket with the agent's other half, the supervisor:

* ``warm SOCKET``: the warm process. It has promptflow's executor imported and has run a flow. Whoever connects says in one line of
  what a session is made, and a fork of it becomes that session's runner, on that very connection.
* ``isolate``: a fresh interpreter (standard library only). Its standard input is the socket. It goes into the sandbox, and there
  becomes the program that it was told: a runner (``inside``), or a build.
* ``inside``: the runner, in the sandbox already.
* ``run``: one run in a process of its own, where a fork of the runner would not be safe.

Only this file, the standard library and the base environment are loaded before the sandbox is closed.
"""

import base64
import ctypes
import errno
import json
import os
import select
import signal
import socket
import stat
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)

# From the kernel's headers; the same on every architecture of Linux.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_MOUNT_SETATTR, SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT = 442, 444, 445, 446
AT_RECURSIVE = 0x8000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 4, 24, 38, 22
PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT = 36, 47
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
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


def make_read_only(target, recursive=True):
    """Read-only, without set-user-id and devices, with all that is mounted below."""
    attributes = struct.pack("QQQQ", MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    check(libc.syscall(SYS_MOUNT_SETATTR, -100, os.fsencode(target), flags, attributes, len(attributes)), f"read-only {target}")


class Control:
    """The socket to the supervisor, as lines of JSON."""

    def __init__(self, sock):
        self.socket = sock
        self.buffer = bytearray()

    def send(self, message):
        self.socket.sendall(json.dumps(message, ensure_ascii=True, default=str).encode() + b"\n")

    def receive(self):
        """The next message; None when the supervisor is gone."""
        while b"\n" not in self.buffer:
            more = self.socket.recv(1 << 16)
            if not more:
                return None
            self.buffer += more
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer = bytearray(rest)
        return json.loads(line)


# --- The sandbox ------------------------------------------------------------------------------------------------------------------


def enter_groups(places):
    """Makes a group of its own below each of these places, and goes into it. The groups, and those places where it was not possible."""
    name, groups, barred = f"pfsession-{MAKER}-{os.urandom(6).hex()}", [], {}
    for place in places:
        group = os.path.join(place, name)
        try:
            os.mkdir(group)
            with open(os.path.join(group, "cgroup.procs"), "w") as file:
                file.write("0")
            groups.append(group)
        except OSError as error:
            barred[place] = os.strerror(error.errno)
            try:
                os.rmdir(group)
            except OSError:
                pass
    return groups, barred


def limit_groups(spec, groups):
    """Limits the groups to what the session may have. What is not held, as words."""
    held, lacks = set(), []
    by_place = {os.path.dirname(group): group for group in groups}
    for each in spec.get("groups", []):
        group = by_place.get(each["below"])
        for controller, file, value in each["limits"]:
            try:
                if group is None:
                    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
                with open(os.path.join(group, file), "w") as out:
                    out.write(value)
                held.add(controller)
            except OSError as error:
                # There may be no swap to speak of.
                if file != "memory.swap.max":
                    lacks.append(f"{NAMES[controller]} ({os.strerror(error.errno)})")
    size = spec.get("size")
    wanted = ["cpu", "memory", "pids"] if size else ["pids"]
    for controller in wanted:
        if controller not in held and not any(lack.startswith(NAMES[controller]) for lack in lacks):
            lacks.append(f"{NAMES[controller]} (no cgroup)")
    if size:
        cpus, memory = size
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if cpus > os.cpu_count():
            lacks.append(f"{cpus} processors (the machine has {os.cpu_count()})")
        if memory > there:
            lacks.append(f"{memory >> 30} GiB of memory (the machine has {there >> 30})")
    return all(controller in held for controller in wanted), lacks


# As a module, whose compiled form is kept, and under a name that no flow has.
BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); import pfsession_runner as r; del sys.path[0]; r.main()"
NAMES = {"cpu": "processor time", "memory": "memory", "pids": "number of processes"}
MAKER = os.getpid()


def start_time(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def enter_namespaces():
    """Goes into namespaces of its own, all but the network's; only a fork of this is in the new one of processes."""
    uid, gid = os.geteuid(), os.getegid()
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")
    for file, text in (("setgroups", "deny"), ("uid_map", f"{UID} {uid} 1"), ("gid_map", f"{UID} {gid} 1")):
        fd = os.open(f"/proc/self/{file}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def bind(source, target, read_only):
    """Shows the file or folder `source` at `target`; a link stays a link."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, "", MS_BIND | MS_REC)
    if read_only:
        make_read_only(target)


ETC = (
    "ssl ca-certificates pki crypto-policies resolv.conf hosts host.conf nsswitch.conf gai.conf localtime timezone ld.so.cache ld.so.conf "
    "ld.so.conf.d alternatives mime.types protocols services"
).split()


def begin_root(root, home):
    """Makes a root of its own with what every session sees of the machine. What is mounted on `root` is seen in this namespace alone."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            bind(f"/{name}", f"{root}/{name}", True)
    bind("/usr", f"{root}/usr", True)
    os.makedirs(f"{root}/etc")
    for name in ETC:
        source = os.path.realpath(f"/etc/{name}")
        if os.path.exists(source):
            bind(source, f"{root}/etc/{name}", True)
    for name, text in (
        ("passwd", f"session:x:{UID}:{UID}::{home}:/bin/sh\n"),
        ("group", f"session:x:{UID}:\n"),
    ):
        with open(f"{root}/etc/{name}", "w") as file:
            file.write(text)
    os.makedirs(f"{root}/dev/shm")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        if os.path.exists(f"/dev/{name}"):
            bind(f"/dev/{name}", f"{root}/dev/{name}", False)
    for name, to in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")):
        os.symlink(to, f"{root}/dev/{name}")
    mount("tmpfs", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777")
    os.makedirs(f"{root}/proc")
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.makedirs(f"{root}/run")


def finish_root(spec, root):
    """Adds what this session sees, and changes into the root. What was not possible, as words."""
    lacks = []
    # What is seen inside of something else comes after it: the state folder may lie in /tmp.
    write = sorted(spec["write"], key=lambda each: each[1] != "/tmp")
    if write and write[0][1] == "/tmp":
        bind(write.pop(0)[0], f"{root}/tmp", False)
    for path in spec["read"]:
        if os.path.exists(path):
            bind(os.path.realpath(path), root + path, True)
    overlay = spec.get("overlay")
    if overlay:
        first, *others = overlay["at"]
        os.makedirs(root + first, exist_ok=True)
        options = f"lowerdir={overlay['lower']},upperdir={overlay['upper']},workdir={overlay['work']},userxattr"
        # Volatile (Linux 5.10): its end does not wait until the whole disk is written. Nobody mounts this layer again.
        for further in (",volatile", ""):
            try:
                mount("overlay", root + first, "overlay", MS_NOSUID | MS_NODEV, options + further)
                break
            except OSError as error:
                refused = error
        else:
            lacks.append(f"packages written by the session ({refused})")
            bind(overlay["lower"], root + first, True)
        for path in others:
            bind(root + first, root + path, False)
    for path, target in write:
        bind(path, root + target, False)
    make_read_only(root, recursive=False)
    libc.sethostname(b"session", 7)
    os.chdir(root)
    check(libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    return lacks


def close_sandbox(spec, namespaces):
    """Gives up every right that is left. What was not possible, as words."""
    import resource

    lacks = []
    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 65536), (resource.RLIMIT_NPROC, 4096)):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    check(prctl(PR_SET_NO_NEW_PRIVS, 1), "no new privileges")
    if namespaces or os.geteuid() == 0:
        for capability in range(64):
            if prctl(PR_CAPBSET_DROP, capability) < 0:
                break
        prctl(PR_CAP_AMBIENT, 4)  # clear all
        header = struct.pack("Ii", 0x20080522, 0)
        check(libc.syscall(SYS_CAPSET[os.uname().machine], header, bytes(24)), "capset")
    # Abstract sockets belong to the network, which is shared: keep the session off those of others (Landlock ABI 6).
    abi = libc.syscall(SYS_LANDLOCK_CREATE, None, 0, 1)
    if not namespaces:
        # It is so already, and one more layer would take away moving a file from one folder to another.
        pass
    elif abi >= 6:
        attributes = struct.pack("QQQ", 0, 0, 3)
        ruleset = check(libc.syscall(SYS_LANDLOCK_CREATE, attributes, len(attributes), 0), "landlock")
        check(libc.syscall(SYS_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
        os.close(ruleset)
    else:
        lacks.append("abstract sockets of others")
    program = base64.b64decode(spec["seccomp"])
    if program:
        buffer = ctypes.create_string_buffer(program, len(program))
        filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
        check(prctl_pointer(PR_SET_SECCOMP, 2, filter_program), "seccomp")
    else:
        lacks.append("system calls")
    return lacks


def prctl_pointer(option, mode, data):
    return libc.prctl(option, ctypes.c_ulong(mode), ctypes.create_string_buffer(data, len(data)), 0, 0)


ACCESS = {"read": 1 | 4 | 8, "write": (1 << 16) - 1}  # Landlock: execute, read a file, read a folder; everything
OF_FILES = 1 | 2 | 4 | 1 << 14 | 1 << 15


def landlock(spec):
    """Keeps this process off all files but those of its sandbox. What is not held, as words; None where there is no Landlock."""
    abi = libc.syscall(SYS_LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return None
    known = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    attributes = struct.pack("QQQ", known, 0, 3 if abi >= 6 else 0)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = check(libc.syscall(SYS_LANDLOCK_CREATE, attributes, len(attributes), 0), "landlock")
    system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/proc"] + [f"/etc/{name}" for name in ETC]
    devices = [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")]
    # Semaphores are files there, and promptflow makes one when it is imported.
    own = [source for source, _ in spec["write"]] + devices + ["/dev/shm"]
    for kind, paths in (("read", system + spec["read"]), ("write", own)):
        for path in paths:
            try:
                fd = os.open(os.path.realpath(path), os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            access = ACCESS[kind] & known
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                access &= OF_FILES
            rule = struct.pack("=Qi", access, fd)
            check(libc.syscall(SYS_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0), f"landlock {path}")
            os.close(fd)
    check(prctl(PR_SET_NO_NEW_PRIVS, 1), "no new privileges")
    check(libc.syscall(SYS_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)
    lacks = ["the names of other processes", "sockets and shared memory of this user's programs"]
    return lacks + ([] if abi >= 6 else ["signals to this user's processes", "abstract sockets of others"])


BARRED = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENODEV)


def isolate(spec, control):
    """Goes into the sandbox, and returns only in the process that is in it. The process that was started stays as its parent, ends with
    the supervisor, and hands on how it ended."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if not spec["namespaces"]:
        if os.getpid() != os.getsid(0):
            os.setsid()
        control.send({"pid": os.getpid(), "start": start_time(os.getpid())})
        groups, _ = enter_groups([each["below"] for each in spec.get("groups", [])])
        control.send({"groups": groups})
        in_groups, lacks = limit_groups(spec, groups)
        if spec.get("size") and not in_groups:
            # Of each process for itself, at least.
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (spec["size"][1],) * 2)
        kept = landlock(spec)
        tier = "D" if kept is None or not spec["seccomp"] else "C"
        seal(spec, control, (["files", "processes", "users"] if kept is None else kept) + lacks, tier)
        return
    try:
        enter_namespaces()
    except OSError as error:
        control.send({"cannot": str(error)})
        os._exit(0)
    ready, go = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ready)
        control.send({"pid": pid, "start": start_time(pid)})
        os.write(go, b"1")
        control.socket.close()
        for fd in (0, 1, 2):
            null(fd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.close(go)
    os.read(ready, 1)
    os.close(ready)
    groups, _ = enter_groups([each["below"] for each in spec.get("groups", [])])
    control.send({"groups": groups})
    in_groups, unlimited = limit_groups(spec, groups)
    try:
        begin_root(spec["root"], spec["variables"].get("HOME", "/tmp"))
        lacks = finish_root(spec, spec["root"])
    except OSError as error:
        # Only a machine that bars sandboxes is a reason to go without one. Anything else is a fault, and ends this one.
        control.send({"cannot" if error.errno in BARRED else "failed": str(error)})
        os._exit(0)
    seal(spec, control, lacks + unlimited, "A" if in_groups else "B")
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def seal(spec, control, lacks, tier):
    """Closes the sandbox, and says how well it holds."""
    lacks = lacks + close_sandbox(spec, spec["namespaces"])
    prctl(PR_SET_DUMPABLE, 0)
    control.send({"isolated": {"tier": tier, "not_held": lacks}})


def null(fd):
    other = os.open("/dev/null", os.O_RDWR)
    os.dup2(other, fd)
    os.close(other)


# --- The warm process -------------------------------------------------------------------------------------------------------------


def import_executor():
    """Imports promptflow's executor, without the threads by which its SDK sends telemetry: a session sends none, and a process with
    threads cannot be forked. Without its thread the sender falls back to nothing by itself."""
    import threading

    start = threading.Thread.start

    def start_no_telemetry(self):
        target = getattr(getattr(self, "_target", None), "__qualname__", "")
        if target == "TraceTelemetryHelper._schedule_flush":
            return None
        if "azure" in type(self).__module__ or any("azure/monitor" in f for f in calling_files()):
            raise RuntimeError("telemetry is off in a session")
        return start(self)

    def calling_files():
        frame = sys._getframe(2)
        for _ in range(12):
            if frame is None:
                return
            yield frame.f_code.co_filename
            frame = frame.f_back

    threading.Thread.start = start_no_telemetry
    try:
        from promptflow.executor import FlowExecutor  # noqa: F401
        from promptflow._core.log_manager import NodeLogWriter
    finally:
        threading.Thread.start = start

    # Otherwise each piece of what a flow prints becomes a log record of its own.
    NodeLogWriter._write_to_flow_log = lambda self, _, text: self._prev_out.write(text)


def threads():
    return len(os.listdir("/proc/self/task"))


def run_a_dummy_flow():
    """What the first run of a flow loads lazily is loaded here."""
    import contextlib
    import io
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="warm-")
    modules = set(sys.modules)
    # A log handler keeps the stream that it was made with, and what stands in that unwritten would be the head of each run's log.
    kept = [(fd, os.dup(fd)) for fd in (1, 2)]
    for fd, _ in kept:
        null(fd)
    try:
        with open(f"{folder}/pfsession_warm.py", "w") as file:
            file.write("from promptflow.core import tool\n@tool\ndef warm(text: str) -> str:\n    return text\ndef flex(text: str = '') -> str:\n    return text\n")
        with open(f"{folder}/flow.dag.yaml", "w") as file:
            file.write(
                "inputs:\n  text:\n    type: string\n    default: warm\noutputs:\n  text:\n    type: string\n    reference: ${warm.output}\n"
                "nodes:\n- name: warm\n  type: python\n  source:\n    type: code\n    path: pfsession_warm.py\n  inputs:\n    text: ${inputs.text}\n"
            )
        with open(f"{folder}/flow.flex.yaml", "w") as file:
            file.write("entry: pfsession_warm:flex\n")
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            sys.path.insert(0, folder)
            for name in ("flow.dag.yaml", "flow.flex.yaml"):
                executor = create_executor(name, folder, {}, None)
                executor.exec_line({"text": "warm"}, index=0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for fd, copy in kept:
            os.dup2(copy, fd)
            os.close(copy)
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path_importer_cache.pop(folder, None)
        for name in set(sys.modules) - modules:
            if getattr(sys.modules[name], "__file__", None) and str(sys.modules[name].__file__).startswith(folder):
                del sys.modules[name]
        shutil.rmtree(folder, ignore_errors=True)


def freeze():
    import gc

    gc.collect()
    gc.freeze()


def warm(path, idle_seconds, root, places):
    """Is the warm process, until no session has been a fork of it for `idle_seconds` or its socket was taken away."""
    import time

    prctl(PR_SET_CHILD_SUBREAPER, 1)
    import_executor()
    run_a_dummy_flow()
    if threads() > 1:
        # Nobody shall try again until somebody has looked.
        with open(path + ".unfit", "w") as file:
            file.write("the flow runtime has started threads: a process that has some cannot be forked safely\n")
        return
    freeze()
    # A socket's address is short, and the path may be long.
    os.chdir(os.path.dirname(path))
    path = os.path.basename(path)
    if os.path.exists(path + ".new"):
        os.unlink(path + ".new")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(64)
    os.rename(path + ".new", path)
    mine = os.stat(path).st_ino
    wake, woken = os.pipe()
    for fd in (wake, woken):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    spare, sessions, used = Spare(root, places), set(), time.monotonic()
    while True:
        readable, _, _ = select.select([listener, wake], [], [], 2 if spare else 0.1)
        if wake in readable:
            os.read(wake, 4096)
        try:
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                sessions.discard(pid)
        except ChildProcessError:
            pass
        try:
            if os.stat(path).st_ino != mine:
                return
        except OSError:
            return
        if sessions:
            used = time.monotonic()
        elif time.monotonic() - used > idle_seconds:
            os.unlink(path)
            return
        if listener in readable:
            connection, _ = listener.accept()
            used = time.monotonic()
            spare = spare or Spare(root, places)
            pid = spare.become(connection)
            connection.close()
            # The next is made once this one has started.
            spare = None
            if pid:
                sessions.add(pid)
        elif spare is None:
            spare = Spare(root, places)


class Spare:
    """A process that is in namespaces of its own already, and waits for the session that it is to be."""

    def __init__(self, root, places):
        self.channel, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in map(int, os.listdir("/proc/self/fd")):
                    if fd > 2 and fd != theirs.fileno():
                        try:
                            os.close(fd)
                        except OSError:
                            pass
                for fd in (0, 1, 2):
                    null(fd)
                wait_to_become(theirs, root, places)
                status = 0
            finally:
                os._exit(status)
        theirs.close()

    def become(self, connection):
        """Hands it its connection. Its process id, or None if it cannot be a session; then it says so itself."""
        self.channel.settimeout(10)
        try:
            word = json.loads(Control(self.channel).receive() or "null")
            if "pid" in word:
                socket.send_fds(self.channel, [b"1"], [connection.fileno()])
                return word["pid"]
            Control(connection).send(word)
        except (OSError, TypeError):
            pass
        finally:
            self.channel.close()
        return None


def wait_to_become(channel, root, places):
    try:
        enter_namespaces()
    except OSError as error:
        Control(channel).send(json.dumps({"failed": str(error)}))
        return
    ready, go = os.pipe()
    pid = os.fork()
    if pid:
        os.write(go, json.dumps({"pid": pid, "start": start_time(pid)}).encode())
        return
    os.close(go)
    who = json.loads(os.read(ready, 4096))
    os.close(ready)
    # Ahead of the session, as going into a group takes its time.
    groups, _ = enter_groups(places)
    try:
        begin_root(root, os.environ["HOME"])
    except OSError as error:
        Control(channel).send(json.dumps({"failed": str(error)}))
        return
    Control(channel).send(json.dumps(who))
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    channel.close()
    if not descriptors:
        return
    control = Control(socket.socket(fileno=descriptors[0]))
    spec = control.receive()
    if spec is None:
        return
    try:
        control.send(who)
        control.send({"groups": groups})
        in_groups, unlimited = limit_groups(spec, groups)
        try:
            lacks = finish_root(spec, root)
        except OSError as error:
            control.send({"failed": str(error)})
            return
        seal(spec, control, lacks + unlimited, "A" if in_groups else "B")
        os.environ.clear()
        os.environ.update(spec["variables"])
        take_in_site(spec)
        serve(spec, control, warm=True)
    except Exception as error:  # noqa: BLE001
        control.send({"failed": f"{type(error).__name__}: {error}"})


def take_in_site(spec):
    """The session's environment stands where the base was: only its own .pth files are new to this interpreter."""
    import importlib
    import site

    importlib.invalidate_caches()
    folder = spec.get("site")
    for name in spec.get("pth", []):
        site.addpackage(folder, name, None)


def add_sites(spec):
    """Has packages looked for beside the environment, before it: where nothing can be laid over it."""
    import site

    for folder in reversed(spec.get("sites", [])):
        before = len(sys.path)
        site.addsitedir(folder)
        sys.path[:] = sys.path[before:] + sys.path[:before]


# --- The runner -------------------------------------------------------------------------------------------------------------------


class Run:
    """A run in progress: its process, and what it writes."""

    def __init__(self, name, pid, result, out, err):
        self.name, self.pid, self.fds = name, pid, {result: "result", out: "out", err: "err"}
        self.buffers = {result: bytearray(), out: bytearray(), err: bytearray()}
        self.done, self.status, self.is_command = None, None, False


def serve(spec, control, warm):
    """Is the runner of a session: process 1 of its sandbox. It ends with the supervisor's end of the socket, and all in the sandbox with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.chdir("/")
    runs = {}
    fork_safe = warm
    control.send({"ready": {"warm": warm}})
    if not warm and spec.get("import", True):
        try:
            import_executor()
            run_a_dummy_flow()
            fork_safe = threads() == 1
            freeze()
        except Exception as error:  # noqa: BLE001
            control.send({"cold": f"{type(error).__name__}: {error}"})
        else:
            control.send({"warm": fork_safe})
    wake, woken = os.pipe()
    for fd in (wake, woken):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(control.socket, select.POLLIN)
    poll.register(wake, select.POLLIN)
    owner, spare = {}, None
    while True:
        # A run's process is made ahead as soon as nothing else is to do.
        events = poll.poll(0 if fork_safe and spare is None and not runs else None)
        if not events and spare is None:
            spare = SpareRun(spec, [wake, woken, control.socket.fileno(), *owner], rehearse=True)
        for fd, _ in events:
            if fd == control.socket.fileno():
                while True:
                    message = control.receive()
                    if message is None:
                        end_all()
                    if "run" in message:
                        if message["wish"].get("command"):
                            run = spawn_command(message)
                        elif fork_safe:
                            if spare and spare.is_ready():
                                run, spare = spare.run(message), None
                            else:
                                mine = [spare.result, spare.out, spare.err, spare.task] if spare else []
                                close = [wake, woken, control.socket.fileno(), *owner, *mine]
                                run = SpareRun(spec, close, rehearse=False).run(message)
                        else:
                            run = spawn_run(spec, message)
                        runs[run.pid] = run
                        for each in run.fds:
                            owner[each] = run
                            poll.register(each, select.POLLIN)
                    if b"\n" not in control.buffer:
                        break
            elif fd == wake:
                os.read(wake, 4096)
                ended = reap(runs)
                if spare and spare.pid in ended:
                    # Whoever is to be run in it would not be.
                    for each in (spare.result, spare.out, spare.err, spare.task):
                        os.close(each)
                    spare = None
            elif fd in owner:
                run = owner[fd]
                take(control, run, fd)
                if fd not in run.fds:
                    poll.unregister(fd)
                    os.close(fd)
                    del owner[fd]
            for run in list(runs.values()):
                if run.status is not None and "result" not in run.fds.values():
                    finish(control, run, poll, owner)
                    del runs[run.pid]


def end_all():
    if os.getpid() != 1:
        # No namespace ends them with this process: what is in its group does.
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def reap(runs):
    """Takes in which processes have ended: of runs, and left behind by them."""
    ended = set()
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended.add(pid)
        if pid in runs:
            runs[pid].status = os.waitstatus_to_exitcode(status)
            try:
                os.killpg(pid, signal.SIGKILL)
            except OSError:
                pass


def take(control, run, fd):
    """Takes in what a run wrote: results line by line, output by the line and in pieces of bounded size."""
    try:
        data = os.read(fd, 1 << 16)
    except BlockingIOError:
        return
    buffer = run.buffers[fd]
    buffer += data
    kind = run.fds[fd]
    *lines, rest = bytes(buffer).split(b"\n")
    if kind == "result":
        for line in lines:
            try:
                message = json.loads(line)
                about = {"of": run.name, **{key: message[key] for key in ("line", "output", "wrong", "done") if key in message}}
            except (ValueError, TypeError):
                continue  # the flow's own code can write here, too
            if "done" in about:
                run.done = about
            elif "line" in about:
                control.send(about)
    else:
        if not data or len(rest) > 8192:
            lines, rest = lines + [rest], b""
            if lines[-1] == b"":
                lines.pop()
        if lines:
            control.send({kind: [line.decode("utf-8", "replace")[:16384] for line in lines], "of": run.name})
    run.buffers[fd] = bytearray(rest)
    if not data:
        del run.fds[fd]


def finish(control, run, poll, owner):
    for fd in list(run.fds):
        # A process that it left behind may hold these open: what is there is taken, and no more waited for.
        os.set_blocking(fd, False)
        take(control, run, fd)
        if fd in run.fds:
            run.fds.pop(fd)
        poll.unregister(fd)
        os.close(fd)
        del owner[fd]
    if run.is_command:
        # As a shell says it: 128 and the signal's number.
        code = run.status if run.status >= 0 else 128 - run.status
        return control.send({"of": run.name, "done": {"exit_code": code}})
    control.send(run.done or {"of": run.name, "done": {}, "crashed": run.status})


class SpareRun:
    """A fork of the runner that has touched what a run needs, and waits for the run that it is to be."""

    def __init__(self, spec, close, rehearse):
        pipes = [os.pipe() for _ in range(4)]
        (self.result, result), (self.out, out), (self.err, err), (task, self.task) = pipes
        self.pid = os.fork()
        if not self.pid:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.setpgid(0, 0)
                for fd in close + [self.result, self.out, self.err, self.task]:
                    os.close(fd)
                null(0)
                prctl(PR_SET_DUMPABLE, 1)
                if rehearse:
                    run_a_dummy_flow()
                    os.write(result, b"{}\n")
                with os.fdopen(task, encoding="utf-8") as file:
                    line = file.readline()
                if not line:
                    os._exit(0)
                for fd, to in ((out, 1), (err, 2)):
                    os.dup2(fd, to)
                    os.close(fd)
                run_flow(spec, json.loads(line), result)
            except BaseException:  # noqa: BLE001
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        for fd in (result, out, err, task):
            os.close(fd)

    def is_ready(self):
        """Whether it is done with what it does ahead: until then a fork of its own is quicker."""
        return bool(select.select([self.result], [], [], 0)[0])

    def run(self, message):
        with os.fdopen(self.task, "w", encoding="utf-8") as file:
            try:
                file.write(json.dumps(message) + "\n")
                file.flush()
            except OSError:
                pass  # it is dead, and its end is noticed as that of the run
        return Run(message["run"], self.pid, self.result, self.out, self.err)


def spawn_run(spec, message):
    """A run in a fresh interpreter."""
    (result, result_in), (out, out_in), (err, err_in) = [os.pipe() for _ in range(3)]
    arguments = [sys.executable, "-I", "-c", BOOT, os.path.dirname(__file__), "run", json.dumps({"spec": spec, "message": message, "result": result_in})]
    os.set_inheritable(result_in, True)
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, out_in, 1), (os.POSIX_SPAWN_DUP2, err_in, 2)]
    pid = os.posix_spawn(sys.executable, arguments, dict(os.environ), file_actions=actions, setpgroup=0, setsigdef=[signal.SIGCHLD])
    for fd in (result_in, out_in, err_in):
        os.close(fd)
    return Run(message["run"], pid, result, out, err)


# Becomes the command, in its folder. A shell says the same of a program that there is not.
BECOME = """import os, sys
os.chdir(sys.argv[1])
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    print(f"{sys.argv[2]}: {error.strerror}", file=sys.stderr)
    sys.exit(126 if isinstance(error, PermissionError) else 127)
"""


def spawn_command(message):
    """A command in the folder of the run, in place of a flow."""
    wish = message["wish"]
    (result, result_in), (out, out_in), (err, err_in) = [os.pipe() for _ in range(3)]
    program = [sys.executable, "-I", "-S", "-c", BECOME, message["folder"], *wish["command"]]
    # What it prints is to be seen as it comes, not when a buffer is full.
    variables = {"PYTHONUNBUFFERED": "1", **os.environ, **(wish.get("environment_variables") or {})}
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, out_in, 1), (os.POSIX_SPAWN_DUP2, err_in, 2)]
    pid = os.posix_spawn(sys.executable, program, variables, file_actions=actions, setpgroup=0, setsigdef=[signal.SIGCHLD, signal.SIGPIPE])
    for fd in (result_in, out_in, err_in):
        os.close(fd)
    run = Run(message["run"], pid, result, out, err)
    run.is_command = True
    return run


# --- One run ----------------------------------------------------------------------------------------------------------------------


class Wrong(Exception):
    """A failure with a stable name."""

    def __init__(self, name, message):
        super().__init__(message)
        self.failure = {"error": name, "message": message}


def create_executor(file, folder, init, variant):
    from pathlib import Path

    from promptflow.executor import FlowExecutor

    more = {"init_kwargs": init} if init else {}
    path = Path(file)
    if variant:
        node, _, name = variant.strip("${}").partition(".")
        path = with_variant(Path(folder), file, node, name)
    return FlowExecutor.create(path, {}, Path(folder), raise_ex=False, **more)


def with_variant(folder, file, node, name):
    """The flow with this variant of this node as the default one, as a file beside it."""
    from pathlib import Path

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe")
    flow = yaml.load(folder / file)
    variants = (flow.get("node_variants") or {}).get(node)
    if not variants or name not in (variants.get("variants") or {}):
        raise Wrong("Run.BadFlow", f"the flow has no variant {name!r} of a node {node!r}; name one as ${{node.variant}}")
    variants["default_variant_id"] = name
    other = folder / f".variant.{file}"
    yaml.dump(flow, other)
    return Path(other.name)


def first_line(text, most=300):
    line = next((line for line in str(text).strip().splitlines() if line.strip()), "")
    return line if len(line) <= most else line[: most - 1] + "…"


def causes(error):
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__


def why_not_created(error, folder):
    """Names the failure to load a flow, and shows where in the user's code it came from."""
    import traceback

    chain = list(causes(error))
    for cause in chain:
        frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename.startswith(folder)]
        if frames or isinstance(cause, (ImportError, SyntaxError)):
            print(own_traceback(cause, folder), file=sys.stderr)
        if isinstance(cause, ImportError):
            module = getattr(cause, "name", None)
            hint = f"add the package of {module!r} to requirements.txt" if module else "see the traceback"
            return Wrong("Run.ImportFailed", f"the flow's code could not be imported: {first_line(cause)}; {hint}, and run again")
        if frames or isinstance(cause, SyntaxError):
            return Wrong("Run.CodeRaised", f"{type(cause).__name__}: {first_line(cause)}")
    print("".join(traceback.format_exception_only(chain[0])).strip(), file=sys.stderr)
    return Wrong("Run.BadFlow", f"promptflow refuses the flow: {first_line(error)}")


def own_traceback(error, folder):
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    for index, frame in enumerate(frames):
        if frame.filename.startswith(folder):
            frames = traceback.StackSummary.from_list(frames[index:])
            break
    return "Traceback (most recent call last):\n" + "".join(frames.format()) + "".join(traceback.format_exception_only(error)).rstrip()


def read_rows(path):
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise Wrong("Run.BadData", f"line {number} of the data is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise Wrong("Run.BadData", f"line {number} of the data is no JSON object: {first_line(line, 80)}")
            rows.append((number, row))
    if not rows:
        raise Wrong("Run.BadData", "the data has no lines")
    return rows


def map_columns(number, row, mapping, inputs):
    """The inputs of one line: by the mapping, and by name for the rest; what has a default may be missing."""
    import re

    values = {}
    for name in inputs:
        if name not in mapping and name in row:
            values[name] = row[name]
    for name, source in mapping.items():
        match = re.fullmatch(r"\$\{data\.([^{}]+)\}", source) if isinstance(source, str) else None
        if match is None:
            if isinstance(source, str) and re.fullmatch(r"\$\{[^{}]+\}", source):
                raise Wrong("Run.BadData", f"the column mapping of {name!r} is {source}: only ${{data.column}} and plain values are known here")
            values[name] = source
        elif match[1] in row:
            values[name] = row[match[1]]
        else:
            raise Wrong("Run.BadData", f"line {number} of the data has no column {match[1]!r}, which the column mapping of {name!r} names")
    missing = [name for name, defined in inputs.items() if name not in values and getattr(defined, "default", None) is None]
    if missing:
        raise Wrong("Run.BadData", f"line {number} of the data has no column for the input {missing[0]!r}; name one in the column mapping")
    return values


def run_flow(spec, message, result):
    """Runs a flow over its data, in this process or in forks of it, and writes what comes of it to `result` as JSON lines."""
    wish, folder = message["wish"], message["folder"]
    results = os.fdopen(result, "w", buffering=1, encoding="utf-8")

    def tell(value):
        results.write(json.dumps(value, default=str) + "\n")
        results.flush()

    sys.dont_write_bytecode = True
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    os.environ.update(wish.get("environment_variables") or {})
    os.chdir(folder)
    sys.path.insert(0, folder)
    lines = failed = 0
    failure = None
    try:
        try:
            executor = create_executor(message["file"], folder, wish.get("init"), wish.get("variant"))
        except Wrong:
            raise
        except BaseException as error:  # noqa: BLE001
            raise why_not_created(error, folder) from None
        inputs = executor.get_inputs_definition()
        mapping = wish.get("column_mapping") or {}
        if message.get("data"):
            work = [map_columns(number, row, mapping, inputs) for number, row in read_rows(message["data"])]
        else:
            given = {**(wish.get("inputs") or {})}
            missing = [name for name, defined in inputs.items() if name not in given and getattr(defined, "default", None) is None]
            if missing:
                raise Wrong("Run.BadData", f"the flow's input {missing[0]!r} has no default; give it a value, or data")
            work = [given]
        lines = len(work)
        for index, (output, wrong) in enumerate(run_lines(executor, message["run"], work, spec["cores"], folder)):
            if wrong:
                failed += 1
                failure = failure or wrong
            tell({"line": index, "output": output, "wrong": wrong})
        if failure and lines > 1:
            failure = {**failure, "message": f"{failed} of {lines} lines failed, the first with {failure['message']}"}
    except Wrong as wrong:
        failure = wrong.failure
        failed = lines
    sys.stdout.flush()
    sys.stderr.flush()
    tell({"done": {"lines": lines, "failed": failed, "failure": failure}})
    os._exit(0)


def run_line(executor, run, index, values, folder):
    """The output of one line, and why it failed if it did."""
    import traceback

    try:
        answer = executor.exec_line(values, index=index, run_id=run)
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        return None, {"error": "Run.CodeRaised", "message": f"{type(error).__name__}: {first_line(error)}"}
    wrong = answer.run_info.error
    if wrong:
        details = [each.get("info") or {} for each in wrong.get("additionalInfo") or []]
        info = details[0] if details else {}
        if info.get("traceback"):
            print(user_part(info["traceback"], folder), file=sys.stderr)
        if info.get("type"):
            name = "Run.ImportFailed" if info["type"] in ("ImportError", "ModuleNotFoundError") else "Run.CodeRaised"
            return None, {"error": name, "message": f"{info['type']}: {first_line(info.get('message'))}"}
        name = "Run.BadData" if "Input" in str((wrong.get("innerError") or {}).get("code")) else "Run.CodeRaised"
        return None, {"error": name, "message": first_line(wrong.get("message"))}
    return plain(answer.output), None


def user_part(text, folder):
    """A traceback from the first line of the user's own code."""
    lines = text.rstrip().splitlines()
    for index, line in enumerate(lines):
        if line.lstrip().startswith("File ") and folder in line:
            return "\n".join(lines[:1] + lines[index:])
    return "\n".join(lines)


def plain(output):
    """An output as a JSON object; its place in the order says which line it is of."""
    import dataclasses

    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        output = dataclasses.asdict(output)
    if not isinstance(output, dict):
        output = {"output": output}
    return {name: value for name, value in output.items() if name != "line_number"}


def run_lines(executor, run, work, cores, folder):
    """What `run_line` gives for each line, in order; several at a time in forks, where that is safe."""
    if len(work) == 1 or cores == 1 or threads() > 1:
        for index, values in enumerate(work):
            yield run_line(executor, run, index, values, folder)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    waiting, answers, workers, next_index = list(range(len(work)))[::-1], {}, {}, 0

    def hire():
        mine, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            mine.close()
            for other in workers:
                other.close()
            line_worker(Control(theirs), executor, run, work, folder)
        theirs.close()
        workers[mine] = [pid, Control(mine), None]
        give(mine)

    def give(worker):
        if waiting:
            workers[worker][2] = waiting.pop()
            workers[worker][1].send(workers[worker][2])
        else:
            dismiss(worker)

    def dismiss(worker):
        pid = workers.pop(worker)[0]
        worker.close()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    while waiting or workers:
        while waiting and len(workers) < min(cores, len(work)):
            hire()
        for worker in select.select(list(workers), [], [])[0]:
            _, control, index = workers[worker]
            try:
                answer = control.receive()
            except OSError:
                answer = None
            if answer is None:
                code = dismiss(worker)
                answers[index] = None, {"error": "Run.Crashed", "message": f"its process ended in the middle of the line ({ended(code)})"}
            else:
                answers[index] = answer
                give(worker)
        while next_index in answers:
            yield answers.pop(next_index)
            next_index += 1


def ended(code):
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def line_worker(control, executor, run, work, folder):
    status = 1
    try:
        while (index := control.receive()) is not None:
            answer = run_line(executor, run, index, work[index], folder)
            sys.stdout.flush()
            sys.stderr.flush()
            control.send(answer)
        status = 0
    finally:
        os._exit(status)


def main():
    role = sys.argv[1]
    if role == "warm":
        warm(sys.argv[2], float(sys.argv[3]), sys.argv[4], sys.argv[5:])
    elif role == "isolate":
        inner = socket.socket(fileno=os.dup(0))
        null(0)
        control = Control(inner)
        spec = control.receive()
        if spec is None:
            return
        isolate(spec, control)
        os.set_inheritable(inner.fileno(), True)
        program = spec.get("execute")
        if program:
            inner.close()
            os.chdir(spec.get("folder", "/"))
            os.execve(program[0], program, spec["variables"])
        spec["control"] = inner.fileno()
        program = [spec["python"], "-I", "-c", BOOT, os.path.dirname(__file__), "inside", json.dumps(spec)]
        os.execve(program[0], program, spec["variables"])
    elif role == "inside":
        spec = json.loads(sys.argv[2])
        prctl(PR_SET_DUMPABLE, 0)
        add_sites(spec)
        os.set_inheritable(spec["control"], False)
        control = Control(socket.socket(fileno=spec["control"]))
        try:
            serve(spec, control, warm=False)
        except Exception as error:  # noqa: BLE001
            control.send({"failed": f"{type(error).__name__}: {error}"})
    elif role == "run":
        task = json.loads(sys.argv[2])
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        add_sites(task["spec"])
        import_executor()
        run_flow(task["spec"], task["message"], task["result"])


if __name__ == "__main__":
    main()
