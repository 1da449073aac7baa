"""The interpreter of a session that is no fork of one with the flow runtime loaded."""

import json
import os

from .boot import INSIDE, packages


def preload(spec):
    """Loads what is needed before nothing of this machine is seen any more, where the image has no
    interpreter to begin anew with."""
    if not spec["python"]:
        from . import serve  # noqa: F401

        os.get_exec_path(spec["variables"])


def begin_anew(spec, control):
    """Becomes the interpreter of a session, inside its sandbox. Where its image has none, this one
    serves."""
    if not spec["python"]:
        from .serve import serve

        os.environ.clear()
        os.environ.update(spec["variables"])
        control.send({"ready": {"warm": False}})
        return serve_or_say(serve, spec, control)
    descriptor = control.socket.fileno()
    os.set_inheritable(descriptor, True)
    spec["control"] = descriptor
    # A file in memory: an argument has a bound.
    memory = os.memfd_create("spec")
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(json.dumps(spec).encode())
    os.set_inheritable(memory, True)
    program = [spec["python"], "-I", "-c", INSIDE, str(descriptor), packages(), "inside", str(memory)]
    os.execve(program[0], program, spec["variables"])


def serve_or_say(serve, spec, control):
    try:
        serve(spec, control, warm=False)
    except Exception as error:  # noqa: BLE001
        control.send({"failed": f"{type(error).__name__}: {error}"})
