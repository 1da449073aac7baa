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

        warm(sys.argv[2], float(sys.argv[3]), sys.argv[4], sys.argv[5:])
    elif role == "isolate":
        from .isolate import isolate

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
        program = [spec["python"], "-I", "-c", BOOT, packages(), "inside", json.dumps(spec)]
        os.execve(program[0], program, spec["variables"])
    elif role == "inside":
        from .serve import add_sites, serve

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
        from . import connections
        from .flow import run_flow
        from .runtime import import_executor
        from .serve import add_sites

        task = json.loads(sys.argv[2])
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        add_sites(task["spec"])
        import_executor()
        if task["given"] is not None:
            connections.take(task["message"], task["given"])
        run_flow(task["spec"], task["message"], task["result"])
