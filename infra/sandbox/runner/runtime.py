"""Loads the flow runtime (promptflow's executor) ahead of the first run."""

import os
import sys

from . import definitions
from .kernel import null


def import_executor():
    """Imports promptflow's executor, without the threads by which its SDK sends telemetry: a
    session sends none, and a process with threads cannot be forked. Without its thread the
    sender falls back to nothing by itself."""
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
        from promptflow.executor import _script_executor  # noqa: F401
        from promptflow._core.log_manager import NodeLogWriter
    finally:
        threading.Thread.start = start

    definitions.read_each_once()
    # Otherwise each piece of what a flow prints becomes a log record of its own.
    NodeLogWriter._write_to_flow_log = lambda self, _, text: self._prev_out.write(text)


def run_a_dummy_flow():
    """Loads ahead what the first run of a flow loads lazily."""
    import contextlib
    import io
    import shutil
    import tempfile

    # Loaded with the rest, so that no run has to.
    from . import aggregation, coordinator, spans  # noqa: F401
    from .flow import load
    from .line import run_line

    folder = tempfile.mkdtemp(prefix="warm-")
    modules = set(sys.modules)
    # A log handler keeps the stream that it was made with, and what stands in that unwritten would
    # be the head of each run's log.
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
                message = {"run": "warm", "folder": folder, "file": name, "output": folder, "wish": {}}
                run_line(load(message, is_rehearsal=True), "warm", 0, {"text": "warm"}, message)
            spans.rehearse()
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


# Promptflow's file locks: the module of each, and its name there.
LOCKS = []


def find_locks():
    """Finds promptflow's file locks. It looks at every module, which in a fork makes a copy of much
    of its memory: whoever is to be forked does it, once."""
    kind = getattr(sys.modules.get("filelock"), "BaseFileLock", None)
    modules = [module for name, module in list(sys.modules.items()) if kind and name.startswith("promptflow._sdk")]
    LOCKS[:] = [(module, key) for module in modules for key, value in list(vars(module).items()) if isinstance(value, kind)]


def renew_locks():
    """Makes promptflow's file locks anew in a fork: each serves only the process that made it."""
    for module, key in LOCKS:
        lock = getattr(module, key)
        setattr(module, key, type(lock)(lock.lock_file))


def freeze():
    """Makes this process ready to be forked."""
    import gc

    find_locks()
    gc.collect()
    gc.freeze()
