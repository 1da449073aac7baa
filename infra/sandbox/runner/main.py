"""Entry points of the runner's processes."""

import json
import os
import signal
import socket
import sys

from .control import Control
from .kernel import PR_SET_DUMPABLE, null, prctl

# How an interpreter loads this package: as a package its compiled form is kept, and no flow has a module of this name.
BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pfsession_runner import main; del sys.path[0]; main.main()"


def packages():
    """The folder that this package is in."""
    return os.path.dirname(os.path.dirname(__file__))


def main():
    role = sys.argv[1]
    if role == "warm":
        from .warm import warm

        warm(sys.argv[2], float(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5]), sys.argv[6:])
    elif role == "isolate":
        from .isolate import isolate

        inner = socket.socket(fileno=os.dup(0))
        null(0)
        control = Control(inner)
        spec = control.receive()
        if spec is None:
            return
        program = spec.get("execute")
        if not program and not spec["python"]:
            # The image has none to begin anew with: what serves a command is loaded before nothing of this machine is seen any more.
            from .serve import serve

            os.get_exec_path(spec["variables"])
            isolate(spec, control)
            os.environ.clear()
            os.environ.update(spec["variables"])
            control.send({"ready": {"warm": False}})
            serve_or_say(serve, spec, control)
            return
        isolate(spec, control)
        os.set_inheritable(inner.fileno(), True)
        if program:
            # Its network begins outside, and it only then.
            if spec["network"] != "host" and control.receive() is None:
                return
            inner.close()
            os.chdir(spec.get("folder", "/"))
            os.execve(program[0], program, spec["variables"])
        spec["control"] = inner.fileno()
        # A file in memory: an argument has a bound.
        memory = os.memfd_create("spec")
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(json.dumps(spec).encode())
        os.set_inheritable(memory, True)
        program = [spec["python"], "-I", "-c", BOOT, packages(), "inside", str(memory)]
        os.execve(program[0], program, spec["variables"])
    elif role == "inside":
        spec = read_task(int(sys.argv[2]))
        prctl(PR_SET_DUMPABLE, 0)
        os.set_inheritable(spec["control"], False)
        control = Control(socket.socket(fileno=spec["control"]))
        # Who waits for the session is not to wait for the rest of this package.
        control.send({"ready": {"warm": False}})
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


def serve_or_say(serve, spec, control):
    try:
        serve(spec, control, warm=False)
    except Exception as error:  # noqa: BLE001
        control.send({"failed": f"{type(error).__name__}: {error}"})


def read_task(fd):
    """Reads what a process is to do from a file in memory."""
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(fd, "rb", closefd=fd != 0) as file:
        return json.loads(file.read())
