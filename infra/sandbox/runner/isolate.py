"""Makes a sandbox around this process: namespaces, a root of its own, Landlock, and a system call
filter."""

import base64
import ctypes
import errno
import os
import signal
import stat
import struct

from .groups import enter_groups, limit_groups
from .kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    PR_CAPBSET_DROP,
    PR_CAP_AMBIENT,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PR_SET_SECCOMP,
    SYS_CAPSET,
    SYS_LANDLOCK_ADD_RULE,
    SYS_LANDLOCK_CREATE,
    SYS_LANDLOCK_RESTRICT,
    SYS_PIVOT_ROOT,
    UID,
    check,
    libc,
    mount,
    move_mount,
    null,
    prctl,
    prctl_pointer,
    restrict,
    start_time,
)
from .network import hand_over, has_ipv6, make_device, resolv_conf
from .strays import go_on_in_a_child


ROOT_KEPT = "the machine's root, which the session is"


def enter_namespaces(user, uid=UID):
    """Goes into namespaces of its own, all but the network's: see `enter_network`. Only a fork of
    this is in the new one of processes.

    `user` is the id on the machine that the session's only id is, if that is not this process's
    own. It takes effect by `become_user`. `uid` is that id inside. Gives back what is not held, as
    words.
    """
    if user is None:
        lacks = [ROOT_KEPT] if os.geteuid() == 0 else []
        ids = f"{uid} {os.geteuid()} 1", f"{uid} {os.getegid()} 1"
        unshare()
        write_ids("self", *ids)
        return lacks
    os.setgroups([])
    # Only a process outside can map another id than its own. A fork of this one would take longer
    # than all the rest.
    begin, go = os.pipe()
    arguments = ["sh", "-c", WRITE_IDS, "sh", f"/proc/{os.getpid()}", f"{uid} {user} 1"]
    helper = os.posix_spawn("/bin/sh", arguments, {}, file_actions=[(os.POSIX_SPAWN_DUP2, begin, 0)], setsigdef=[signal.SIGPIPE])
    os.close(begin)
    try:
        unshare()
        os.write(go, b"1\n")
    finally:
        os.close(go)
        status = os.waitpid(helper, 0)[1]
    if status:
        raise OSError(errno.EPERM, "its user could not be mapped")
    return []


# As `write_ids`, once it is told to begin.
WRITE_IDS = 'set -e; read begin; echo deny > "$1/setgroups"; echo "$2" > "$1/uid_map"; echo "$2" > "$1/gid_map"'


def unshare():
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")


def write_ids(pid, users, groups):
    for file, text in (("setgroups", "deny"), ("uid_map", users), ("gid_map", groups)):
        fd = os.open(f"/proc/{pid}/{file}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def become_user(uid=UID):
    """Is from here on the user that was mapped, with all rights in the namespaces and none
    outside."""
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # Whoever changes users cannot look at itself any more, until it says so.
    prctl(PR_SET_DUMPABLE, 1)


class Sources:
    """The parts of the machine that a sandbox sees: by its path, or by the mount that was made of
    it outside, where the user may not go.

    Where the root is that of a foreign image, nothing is shown through a link of it: see
    `make_way`.
    """

    def __init__(self, paths=(), descriptors=(), foreign=False):
        self.mounts = dict(zip(paths, descriptors))
        self.foreign = foreign

    @staticmethod
    def of(spec, descriptors):
        paths = spec.get("mounts", [])
        return Sources(paths, [descriptors.popleft() for _ in paths], "image" in spec)

    def exists(self, path):
        return path in self.mounts or os.path.exists(path)

    def bind(self, path, target, read_only, devices=False):
        """Shows the file or folder `path` at `target`. A device is written to also where its mount
        is read-only."""
        fd = self.mounts.get(path)
        if self.foreign:
            make_way(target, stat.S_ISDIR(os.stat(path if fd is None else fd).st_mode))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if stat.S_ISDIR(os.stat(path if fd is None else fd).st_mode):
            os.makedirs(target, exist_ok=True)
        elif not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        if fd is None:
            mount(path, target, "", MS_BIND | MS_REC)
        else:
            move_mount(fd, target)
            # One is shown once.
            os.close(self.mounts.pop(path))
        restrict(target, MS_NOSUID | (MS_NOEXEC if devices else MS_NODEV) | (MS_RDONLY if read_only else 0))


MACHINE = Sources()


def make_way(target, is_folder):
    """Has `target` be a folder or a file itself, in folders that are no links: a link of a foreign
    root would lead out of it, as the root is not changed yet. Nobody else writes there."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    for end in range(1, len(parts) + 1):
        path = "/".join([ROOT, *parts[:end]])
        wants_folder = is_folder or end < len(parts)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None and not (stat.S_ISDIR(mode) if wants_folder else stat.S_ISREG(mode)):
            if stat.S_ISDIR(mode):
                raise OSError(errno.EISDIR, f"the image has a folder at {path}")
            os.unlink(path)
            mode = None
        if mode is None and wants_folder:
            os.mkdir(path, 0o755)
        elif mode is None:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644))


def enter_network():
    """Goes into a network namespace of its own, which has nothing."""
    check(libc.unshare(CLONE_NEWNET), "unshare the network")


ETC = (
    "ssl ca-certificates pki crypto-policies resolv.conf hosts host.conf nsswitch.conf gai.conf localtime timezone ld.so.cache ld.so.conf "
    "ld.so.conf.d alternatives mime.types protocols services"
).split()


# Not the terminal: a session has none.
DEVICES = ("null", "zero", "full", "random", "urandom")

# As the default of the OCI runtime specification, and of those that followed it. `/sys` is not
# there at all.
MASKED = "acpi asound interrupts kcore keys latency_stats timer_list timer_stats sched_debug scsi".split()
READ_ONLY = "bus fs irq sys sysrq-trigger".split()


def mask(proc):
    """Hides what `/proc` says of the machine, and write-protects what changes it."""
    for name in MASKED:
        path = f"{proc}/{name}"
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=555")
        elif os.path.exists(path):
            MACHINE.bind("/dev/null", path, True, devices=True)
    for name in READ_ONLY:
        path = f"{proc}/{name}"
        if os.path.exists(path):
            mount(path, path, "", MS_BIND | MS_REC)
            restrict(path, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


ROOT = "."


def begin_root(folder, home, user, own_network):
    """Makes a root of its own with what every session sees of the machine, and goes there. What is
    mounted on `folder` is seen in this namespace alone."""
    resolver = resolv_conf() if own_network else None
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    owner = "" if user is None else f",uid={UID},gid={UID}"
    mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m" + owner)
    # The user may not go there by its path.
    os.chdir(folder)
    if user is not None:
        become_user()
    root, bind = ROOT, MACHINE.bind
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            bind(f"/{name}", f"{root}/{name}", True)
    bind("/usr", f"{root}/usr", True)
    os.makedirs(f"{root}/etc")
    for name in ETC:
        if name == "resolv.conf" and resolver is not None:
            continue
        source = os.path.realpath(f"/etc/{name}")
        if os.path.exists(source):
            bind(source, f"{root}/etc/{name}", True)
    for name, text in (
        ("passwd", f"session:x:{UID}:{UID}::{home}:/bin/sh\n"),
        ("group", f"session:x:{UID}:\n"),
    ):
        with open(f"{root}/etc/{name}", "w") as file:
            file.write(text)
    if resolver is not None:
        with open(f"{root}/etc/resolv.conf", "w") as file:
            file.write(resolver)
    os.makedirs(f"{root}/dev")
    add_kernel_folders()
    os.makedirs(f"{root}/run")


def add_kernel_folders():
    """Makes `/dev` and `/proc`, in folders that are there."""
    root, bind = ROOT, MACHINE.bind
    os.makedirs(f"{root}/dev/shm")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            bind(f"/dev/{name}", f"{root}/dev/{name}", True, devices=True)
    for name, to in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")):
        os.symlink(to, f"{root}/dev/{name}")
    mount("tmpfs", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777")
    os.makedirs(f"{root}/proc", exist_ok=True)
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mask(f"{root}/proc")


def lay_over(lower, own, target, overlay):
    """Mounts an overlay of what the session writes. Why that was not possible, if so."""
    own = [f"{own}/{os.path.basename(overlay[name])}" for name in ("upper", "work")]
    options = f"lowerdir={':'.join(lower)},upperdir={own[0]},workdir={own[1]},userxattr"
    refused = None
    # Volatile (Linux 5.10): its end does not wait until the whole disk is written. Nobody mounts
    # this layer again.
    for further in (",volatile", ""):
        try:
            mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, options + further)
            return None
        except OSError as error:
            refused = error
    return refused


def begin_image(spec, own_network, sources):
    """Makes the files of an image the root, with what the session writes over them, and goes there.
    What every session sees is added."""
    # What is loaded later would be looked for in the image.
    import resource  # noqa: F401

    image, home = spec["image"], spec["variables"].get("HOME", "/tmp")
    uid, user = image["uid"], spec.get("user")
    resolver = resolv_conf() if own_network else None
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    owner = "" if user is None else f",uid={uid},gid={uid}"
    mount("tmpfs", spec["root"], "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m" + owner)
    os.chdir(spec["root"])
    if user is not None:
        become_user(uid)
    sources.bind(image["tree"], f"{ROOT}/tree", True)
    sources.bind(os.path.dirname(image["upper"]), f"{ROOT}/own", False)
    os.mkdir(f"{ROOT}/root")
    if refused := lay_over([f"{ROOT}/tree"], f"{ROOT}/own", f"{ROOT}/root", image):
        raise OSError(errno.ENOTSUP, f"an image needs overlayfs in a user namespace, as Linux has it from 5.11 on ({refused})")
    os.chdir("root")
    for name, options in (("dev", "mode=755,size=1m"), ("run", "mode=755,size=16m")):
        make_way(name, True)
        mount("tmpfs", f"{ROOT}/{name}", "tmpfs", MS_NOSUID | MS_NODEV, options + owner)
    make_way("proc", True)
    add_kernel_folders()
    add_entry("passwd", f"{image['name']}:x:{uid}:{uid}::{home}:/bin/sh\n", uid)
    add_entry("group", f"{image['name']}:x:{uid}:\n", uid)
    for name in ("hosts", "resolv.conf"):
        if name == "resolv.conf" and resolver is not None:
            make_way("etc/resolv.conf", False)
            with open(f"{ROOT}/etc/resolv.conf", "w") as file:
                file.write(resolver)
        elif os.path.exists(f"/etc/{name}"):
            Sources(foreign=True).bind(os.path.realpath(f"/etc/{name}"), f"{ROOT}/etc/{name}", True)
    if image["workdir"].strip("/."):
        make_way(os.path.normpath("/" + image["workdir"]), True)


def begin(spec, own_network, sources):
    """Makes the root that a sandbox asks for: that of its image, or one of this machine's
    programs."""
    if sources.foreign:
        begin_image(spec, own_network, sources)
    else:
        begin_root(spec["root"], spec["variables"].get("HOME", "/tmp"), spec.get("user"), own_network)


def add_entry(name, line, uid):
    """Gives the session's id a name, if the image has none for it."""
    make_way(f"etc/{name}", False)
    with open(f"{ROOT}/etc/{name}", "rb+") as file:
        lines = file.read(1 << 20).split(b"\n")
        if not any(known.split(b":")[2:3] == [str(uid).encode()] for known in lines):
            file.seek(0, os.SEEK_END)
            file.write(line.encode())


def mount_overlay(overlay, sources):
    """Lays what the session writes over its packages. Why that was not possible, if so."""
    lower, layer = overlay["lower"], os.path.dirname(overlay["upper"])
    hidden = f"{ROOT}/run/layers"
    # By paths of our own: an option of a mount has no way to write each character of a path.
    places = [f"{hidden}/{index}" for index in range(len(lower))]
    for path, place in zip(lower, places):
        sources.bind(path, place, True)
    sources.bind(layer, f"{hidden}/own", False)
    first, *others = overlay["at"]
    if sources.foreign:
        make_way(first, True)
    os.makedirs(ROOT + first, exist_ok=True)
    if refused := lay_over(places, f"{hidden}/own", ROOT + first, overlay):
        mount(places[0], ROOT + first, "", MS_BIND)
        restrict(ROOT + first, MS_RDONLY | MS_NOSUID | MS_NODEV)
    for path in others:
        MACHINE.bind(ROOT + first, ROOT + path, False)
    for place in [*places, f"{hidden}/own"]:
        check(libc.umount2(place.encode(), MNT_DETACH), "umount")
        os.rmdir(place)
    os.rmdir(hidden)
    return refused


def bound_shared_memory(path, size):
    """Gives a session half of its memory there, and at most a quarter of the machine's: that of a
    session without a size is not bounded."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = min((size or (0, machine))[1] // 2, machine // 4)
    mount("tmpfs", path, "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC, f"size={most},nr_inodes=65536")


def finish_root(spec, sources):
    """Adds what this session sees, and changes into the root. What was not possible, as words."""
    root, lacks, bind = ROOT, [], sources.bind
    # What is seen inside of something else comes after it: the state folder may lie in /tmp.
    write = sorted(spec["write"], key=lambda each: each[1] != "/tmp")
    if write and write[0][1] == "/tmp":
        bind(write.pop(0)[0], f"{root}/tmp", False)
    for path in spec["read"]:
        if sources.exists(path):
            bind(path, root + path, True)
    overlay = spec.get("overlay")
    if overlay and (refused := mount_overlay(overlay, sources)):
        lacks.append(f"packages written by the session ({refused})")
    for path, target in write:
        bind(path, root + target, False)
    bound_shared_memory(f"{root}/dev/shm", spec.get("size"))
    if not sources.foreign:
        restrict(root, MS_RDONLY | MS_NOSUID | MS_NODEV, recursive=False)
    libc.sethostname(b"session", 7)
    check(libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    return lacks


def close_sandbox(spec, namespaces):
    """Gives up every right that is left. What was not possible, as words."""
    import resource

    lacks = []
    # A core file holds secrets. Where the kernel hands cores to a program, it heeds no limit but 1;
    # a file of one byte is not written either.
    for what, most in ((resource.RLIMIT_CORE, 1), (resource.RLIMIT_NOFILE, 65536), (resource.RLIMIT_NPROC, 4096)):
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
    # Abstract sockets belong to the network, which is shared: keep the session off those of others
    # (Landlock ABI 6).
    abi = libc.syscall(SYS_LANDLOCK_CREATE, None, 0, 1)
    if not namespaces:
        # It is so already, and one more layer would take away moving a file from one folder to
        # another.
        pass
    elif abi >= 6:
        attributes = struct.pack("QQQ", 0, 0, 3)
        ruleset = check(libc.syscall(SYS_LANDLOCK_CREATE, attributes, len(attributes), 0), "landlock")
        check(libc.syscall(SYS_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
        os.close(ruleset)
    else:
        lacks.append("abstract sockets of others")
    if os.geteuid() == 0:
        lacks.append(ROOT_KEPT)
    program = base64.b64decode(spec["seccomp"][0 if namespaces else 1])
    if program:
        buffer = ctypes.create_string_buffer(program, len(program))
        filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
        check(prctl_pointer(PR_SET_SECCOMP, 2, filter_program), "seccomp")
    else:
        lacks.append("system calls")
    return lacks


ACCESS = {"read": 1 | 4 | 8, "write": (1 << 16) - 1}  # Landlock: execute, read a file, read a folder; everything
OF_FILES = 1 | 2 | 4 | 1 << 14 | 1 << 15


def landlock(spec):
    """Keeps this process off all files but those of its sandbox. What is not held, as words; None
    where there is no Landlock."""
    abi = libc.syscall(SYS_LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return None
    known = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    attributes = struct.pack("QQQ", known, 0, 3 if abi >= 6 else 0)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = check(libc.syscall(SYS_LANDLOCK_CREATE, attributes, len(attributes), 0), "landlock")
    system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/proc"] + [f"/etc/{name}" for name in ETC]
    devices = [f"/dev/{name}" for name in DEVICES]
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
    lacks = ["the names of other processes", "sockets and shared memory of this user's programs", "modes and times of this user's files"]
    if abi < 3:
        lacks.append("the length of this user's files")
    return lacks + ([] if abi >= 6 else ["signals to this user's processes", "abstract sockets of others"])


BARRED = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENODEV)


def isolate(spec, control):
    """Goes into the sandbox, and returns only in the process that is in it. The process that was
    started stays as its parent, ends with the supervisor, and hands on how it ended."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if not spec["namespaces"]:
        if os.getpid() != os.getsid(0):
            os.setsid()
        if spec.get("execute"):
            # There is no first process whose end is the end of all.
            go_on_in_a_child(control)
        control.send({"pid": os.getpid(), "start": start_time(os.getpid())})
        groups = enter_groups([each["below"] for each in spec.get("groups", [])])
        control.send({"groups": list(groups)})
        in_groups, lacks = limit_groups(spec, groups)
        if spec.get("size") and not in_groups:
            # Of each process for itself, at least.
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (spec["size"][1],) * 2)
        kept = landlock(spec)
        tier = "D" if kept is None or not spec["seccomp"][1] else "C"
        seal(spec, control, (["files", "processes", "users"] if kept is None else kept) + lacks, tier)
        return
    # Before it is in a namespace of its own, where it may not make groups any more.
    groups = enter_groups([each["below"] for each in spec.get("groups", [])])
    own_network = spec["network"] != "host"
    ipv6 = own_network and has_ipv6()
    try:
        kept = enter_namespaces(spec.get("user"), spec.get("image", {}).get("uid", UID))
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
    control.send({"groups": list(groups)})
    in_groups, unlimited = limit_groups(spec, groups)
    if own_network:
        try:
            enter_network()
            hand_over(control, make_device(ipv6))
        except OSError as error:
            control.send({"no_network": str(error)})
            os._exit(0)
    try:
        sources = Sources.of(spec, control.descriptors)
        begin(spec, own_network, sources)
        lacks = kept + finish_root(spec, sources)
    except OSError as error:
        # Only a machine that bars sandboxes is a reason to go without one. Anything else is a
        # fault, and ends this one; as does all that stands in the way of an image, which is nothing
        # without a sandbox.
        control.send({"cannot" if error.errno in BARRED and "image" not in spec else "failed": str(error)})
        os._exit(0)
    seal(spec, control, lacks + unlimited, "A" if in_groups else "B")
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def seal(spec, control, lacks, tier):
    """Closes the sandbox, and says how well it holds."""
    lacks = lacks + spec.get("lacks", []) + close_sandbox(spec, spec["namespaces"])
    prctl(PR_SET_DUMPABLE, 0)
    control.send({"isolated": {"tier": tier, "not_held": lacks}})
