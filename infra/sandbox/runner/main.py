"""Entry points of the runner's processes."""

import json
import os
import signal
import socket
import sys

from .control import Control
from .fresh import begin_anew, preload, serve_or_say
from .kernel import PR_SET_DUMPABLE, null, prctl


def main():
    role = sys.argv[1]
    if role == "warm":
        from .warm import Kind, warm

        path, idle_seconds, root, user, uid, *places = sys.argv[2:]
        warm(path, float(idle_seconds), Kind(root, json.loads(user), json.loads(uid)), places)
    elif role == "isolate":
        from .isolate import isolate

        inner = socket.socket(fileno=os.dup(0))
        null(0)
        control = Control(inner)
        spec = control.receive()
        if spec is None:
            return
        program = spec.get("execute")
        if not program:
            preload(spec)
        isolate(spec, control)
        if program:
            os.set_inheritable(inner.fileno(), True)
            # Its network begins outside, and it only then.
            if spec["network"] != "host" and control.receive() is None:
                return
            inner.close()
            os.chdir(spec.get("folder", "/"))
            os.execve(program[0], program, spec["variables"])
        begin_anew(spec, control)
    elif role == "inside":
        spec = read_task(int(sys.argv[2]))
        prctl(PR_SET_DUMPABLE, 0)
        os.set_inheritable(spec["control"], False)
        control = Control(socket.socket(fileno=spec["control"]))
        from .serve import add_sites, serve

        add_sites(spec)
        serve_or_say(serve, spec, control)
    elif role == "run":
        from .coordinator import see_through
        from .runs import spawn_worker
        from .strays import adopt

        task = read_task(0)
        null(0)
        prctl(PR_SET_DUMPABLE, 0)
        adopt()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in (task["result"], task["given"]):
            if fd is not None:
                os.set_inheritable(fd, False)
        see_through(task["spec"], task["message"], task["result"], lambda: spawn_worker(task["spec"]), task["given"])
    elif role == "work":
        from .runtime import import_executor
        from .serve import add_sites
        from .worker import work

        channel = socket.socket(fileno=int(sys.argv[2]))
        channel.set_inheritable(False)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control = Control(channel)
        add_sites(control.receive())
        import_executor()
        work(control)


def read_task(fd):
    """Reads what a process is to do from a file in memory."""
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(fd, "rb", closefd=fd != 0) as file:
        return json.loads(file.read())
