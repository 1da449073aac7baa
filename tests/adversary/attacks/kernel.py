"""The kernel's own files and calls."""

import ctypes
import errno
import mmap
import os
import resource
import struct

from attack import call, got, unless, write

MACHINE = os.uname().machine
HERE = {"x86_64": 0, "aarch64": 1}[MACHINE]


def try_the_files_that_a_kernel_obeys(target):
    files = {
        "/proc/sys/kernel/core_pattern": b"|/tmp/adversary",
        "/proc/sys/kernel/modprobe": b"/tmp/adversary",
        "/proc/sys/kernel/hotplug": b"/tmp/adversary",
        "/proc/sys/kernel/hostname": b"adversary",
        "/proc/sys/kernel/domainname": b"adversary",
        "/proc/sys/kernel/randomize_va_space": b"0",
        "/proc/sys/kernel/unprivileged_bpf_disabled": b"0",
        "/proc/sys/kernel/ns_last_pid": b"77",
        "/proc/sys/vm/drop_caches": b"1",
        "/proc/sys/vm/panic_on_oom": b"0",
        "/proc/sys/fs/suid_dumpable": b"1",
        "/proc/sys/fs/file-max": b"100000000",
        "/proc/sys/fs/binfmt_misc/register": b":adversary:M::#!:: /tmp/adversary:",
        "/proc/sys/net/ipv4/ip_forward": b"0",
        "/proc/sys/user/max_user_namespaces": b"1",
        "/proc/sysrq-trigger": b"h",
        "/proc/irq/0/smp_affinity": b"1",
        "/proc/scsi/scsi": b"x",
        "/proc/mtrr": b"x",
        "/proc/acpi/wakeup": b"x",
        "/proc/1/oom_score_adj": b"-1000",
        "/sys/kernel/uevent_helper": b"/tmp/adversary",
        "/sys/fs/cgroup/release_agent": b"/tmp/adversary",
        "/sys/kernel/mm/transparent_hugepage/enabled": b"never",
        "/sys/power/state": b"x",
    }
    return got((path, lambda path=path, text=text: write(path, text)) for path, text in files.items())


def try_to_open_any_setting_for_writing(target):
    def openable():
        for folder, _, names in os.walk("/proc/sys"):
            for name in names:
                path = os.path.join(folder, name)
                yield path, lambda path=path: os.close(os.open(path, os.O_WRONLY)) or "opened"

    return got(openable())


@unless("the machine's root")
def try_what_tells_of_the_machine(target):
    def read(path):
        data = open(path, "rb").read(256)
        if not data.strip(b"\0"):
            raise OSError(errno.EACCES, "empty")
        return data

    masked = "kcore timer_list timer_stats sched_debug latency_stats kmsg vmallocinfo slabinfo kpagecount kpageflags".split()
    there = [] if target["tier"] == "C" else ["interrupts", "keys"]
    files = [f"/proc/{name}" for name in masked + there]
    found = got((path, lambda path=path: read(path)) for path in files)
    # Addresses are all zero for who may not see them.
    for path in ("/proc/kallsyms", "/proc/iomem"):
        lines = got([(path, lambda: [line for line in open(path) if line.split()[0].strip("0-:")][0])])
        found += lines
    found += got((path, lambda path=path: os.listdir(path)) for path in ("/sys", "/sys/firmware", "/sys/fs/cgroup", "/sys/kernel/debug", "/sys/kernel/tracing"))
    if target["tier"] != "C":
        found += got((path, lambda path=path: os.listdir(path)[0]) for path in ("/proc/acpi", "/proc/scsi", "/proc/asound"))
    return found


def try_rights_that_are_left(target):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    # Whoever is not root has no right to make the bound of its rights smaller, and no way to get
    # any.
    names = ["CapInh", "CapPrm", "CapEff", "CapAmb"] + (["CapBnd"] if target["tier"] != "C" else [])
    rights = [f"{name} {lines[name].strip()}" for name in names if int(lines[name], 16)]
    lacks = [f"{name} {lines[name].strip()}" for name, wanted in (("NoNewPrivs", "1"), ("Seccomp", "2")) if lines[name].strip() != wanted]
    return rights + lacks


def try_calls_that_have_no_use_here(target):
    """Each is refused before the kernel looks at what it is given."""
    both = {
        "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
        "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
        "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458), "quotactl": (179, 60),
        "quotactl_fd": (443, 443), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
        "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448), "migrate_pages": (256, 238),
        "move_pages": (279, 239), "perf_event_open": (298, 241), "bpf": (321, 280), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
        "memfd_secret": (447, 447), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
        "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
        "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
        "syslog": (103, 116), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "vhangup": (153, 58),
        "fanotify_init": (300, 262), "lsm_set_self_attr": (460, 460),
    }  # fmt: skip
    reached = []
    for name, numbers in both.items():
        try:
            call(numbers[HERE], 0, 0, 0, 0, 0, 0)
            reached.append(name)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOSYS):
                reached.append(f"{name}: {error.strerror}")
    return reached


def try_calls_newer_than_the_filter(target):
    reached = []
    for number in [*range(467, 560), 1000, 5000, 0x3FFFFFFF]:
        try:
            call(number, 0, 0, 0, 0, 0, 0)
            reached.append(number)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                reached.append(f"{number}: {error.strerror}")
    return reached


def try_the_numbers_of_x32(target):
    if MACHINE != "x86_64":
        return None
    return got((f"{number}", lambda number=number: call(0x40000000 | number, 0, 0, 0, 0)) for number in (39, 102, 101, 165, 521))


def try_calls_of_32_bits(target):
    """Dies of it, as the filter's architecture is another."""
    if MACHINE != "x86_64":
        return None
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # getpid: mov eax, 20; int 0x80; ret
    memory.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return [ctypes.CFUNCTYPE(ctypes.c_int)(address)()]


def try_namespaces_by_every_call(target):
    flags = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000, "uts": 0x4000000, "cgroup": 0x2000000, "time": 0x80}
    clone, clone3, unshare, setns = ((56, 435, 272, 308), (220, 435, 97, 268))[HERE]

    def cloned(flag):
        pid = call(clone, flag | 17, 0, 0, 0, 0)
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        return "cloned"

    def cloned3(flag):
        pid = call(clone3, ctypes.create_string_buffer(struct.pack("Q" * 8, flag, 0, 0, 0, 17, 0, 0, 0)), 64)
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        return "cloned"

    attempts = []
    for name, flag in flags.items():
        attempts += [(f"unshare {name}", lambda flag=flag: call(unshare, flag)), (f"clone3 {name}", lambda flag=flag: cloned3(flag))]
        if flag != 0x80:
            attempts.append((f"clone {name}", lambda flag=flag: cloned(flag)))
    for name in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"):
        attempts.append((f"setns {name}", lambda name=name: call(setns, os.open(f"/proc/1/ns/{name}", os.O_RDONLY), 0)))
    return got(attempts)


def try_a_core_file(target):
    return got([("core", lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20)) or "allowed")])


def try_other_personalities(target):
    return got((hex(value), lambda value=value: call(135 if not HERE else 92, value)) for value in (0x0040000, 0x0400000, 0x0100000, 0x4000000))


def try_more_rights_by_prctl(target):
    return got(
        [
            ("ambient", lambda: call((157, 167)[HERE], 47, 2, 21, 0, 0)),
            ("core scheduling", lambda: call((157, 167)[HERE], 62, 2, target["victim"], 0, 0)),
            ("securebits", lambda: call((157, 167)[HERE], 28, 0, 0, 0, 0)),
            ("no new privileges off", lambda: call((157, 167)[HERE], 38, 0, 0, 0, 0)),
            ("memory map", lambda: call((157, 167)[HERE], 35, 13, 0, 0, 0)),
        ]
    )


def try_to_write_its_own_filter_away(target):
    return got([("seccomp mode", lambda: call((317, 277)[HERE], 0, 0, 0) and "changed")])
