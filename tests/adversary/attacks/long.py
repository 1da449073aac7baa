"""Slow attacks: calls with arguments of no use."""

import ctypes
import os
import random
import signal
import socket
import tempfile
import time

from attack import libc, unless

# These end the session itself, as they may: what they reach of others is tried elsewhere.
OWN = {"x86_64": {15, 34, 60, 61, 62, 129, 200, 231, 234, 297, 424}, "aarch64": {73, 93, 94, 95, 129, 130, 131, 138, 139, 240, 424}}[os.uname().machine]
SECONDS = 60


def open_descriptors():
    """Has descriptors of each kind that calls may be made with, and neither one that tells what
    came of the attacks nor the run's folder."""
    os.chdir(tempfile.mkdtemp())
    os.closerange(3, 1 << 16)
    for _ in range(3):
        os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(3, fd)
    kept = [os.open("/", os.O_PATH), os.memfd_create("x"), *socket.socketpair(), os.open("/proc/self/fd", os.O_RDONLY), *os.pipe()]
    return [each if isinstance(each, int) else each.detach() for each in kept]


@unless("the machine's root")
def try_every_call_with_any_arguments(target):
    """Its changes outside are seen from there."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    chance, until, count = random.Random(seed), time.monotonic() + SECONDS, 0
    memory = ctypes.create_string_buffer(b"/proc/sys/kernel/core_pattern\0" * 8, 4096)
    values = [0, 1, 2, 3, -1, -100, 1 << 31, (1 << 63) - 1, 0x7E020000, 0o6777, target["victim"], target["agent"], ctypes.addressof(memory), ctypes.addressof(memory) + 30]
    while time.monotonic() < until:
        own = random.Random(chance.random())
        pid = os.fork()
        if not pid:
            signal.alarm(2)
            values += open_descriptors()
            for _ in range(50):
                number = own.choice([each for each in range(560) if each not in OWN])
                libc.syscall(ctypes.c_long(number), *[ctypes.c_long(own.choice(values)) for _ in range(6)])
            os._exit(0)
        os.waitpid(pid, 0)
        count += 50
    print(f"{count} calls", flush=True)


try_every_call_with_any_arguments.seconds = SECONDS + 30
