"""The runner of a session: process 1 of its sandbox, which starts a process for each run."""

import json
import os
import select
import signal
import socket
import sys

from . import connections
from .control import Control
from .flow import run_flow
from .kernel import PR_SET_DUMPABLE, null, prctl, threads
from .main import BOOT, packages
from .runtime import freeze, import_executor, run_a_dummy_flow


def add_sites(spec):
    """Has packages looked for beside the environment, before it: where nothing can be laid over it."""
    import site

    for folder in reversed(spec.get("sites", [])):
        before = len(sys.path)
        site.addsitedir(folder)
        sys.path[:] = sys.path[before:] + sys.path[:before]


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
                        given = control.descriptors.pop(0) if message.get("given") else None
                        if message["wish"].get("command"):
                            run = spawn_command(message, given)
                        elif fork_safe:
                            if spare and spare.is_ready():
                                run, spare = spare.run(message, given), None
                            else:
                                mine = [spare.result, spare.out, spare.err, spare.task] if spare else []
                                theirs = [*control.descriptors, *([] if given is None else [given])]
                                close = [wake, woken, control.socket.fileno(), *owner, *mine, *theirs]
                                run = SpareRun(spec, close, rehearse=False).run(message, given)
                        else:
                            run = spawn_run(spec, message, given)
                        if given is not None:
                            os.close(given)
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
        pipes = [os.pipe() for _ in range(3)]
        (self.result, result), (self.out, out), (self.err, err) = pipes
        task, self.task = [end.detach() for end in socket.socketpair()]
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
                with socket.socket(fileno=task) as channel:
                    control = Control(channel)
                    message = control.receive()
                if message is None:
                    os._exit(0)
                for given in control.descriptors:
                    connections.take(message, given)
                for fd, to in ((out, 1), (err, 2)):
                    os.dup2(fd, to)
                    os.close(fd)
                run_flow(spec, message, result)
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

    def run(self, message, given):
        line = json.dumps(message).encode() + b"\n"
        with socket.socket(fileno=self.task) as channel:
            try:
                sent = 0 if given is None else socket.send_fds(channel, [line], [given])
                channel.sendall(line[sent:])
            except OSError:
                pass  # it is dead, and its end is noticed as that of the run
        return Run(message["run"], self.pid, self.result, self.out, self.err)


def spawn_run(spec, message, given):
    """A run in a fresh interpreter."""
    (result, result_in), (out, out_in), (err, err_in) = [os.pipe() for _ in range(3)]
    arguments = [sys.executable, "-I", "-c", BOOT, packages(), "run", json.dumps({"spec": spec, "message": message, "result": result_in, "given": given})]
    for fd in (result_in, given):
        if fd is not None:
            os.set_inheritable(fd, True)
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, out_in, 1), (os.POSIX_SPAWN_DUP2, err_in, 2)]
    pid = os.posix_spawn(sys.executable, arguments, dict(os.environ), file_actions=actions, setpgroup=0, setsigdef=[signal.SIGCHLD])
    for fd in (result_in, out_in, err_in):
        os.close(fd)
    return Run(message["run"], pid, result, out, err)


# Becomes the command, in its folder, with the variables that are given to it alone. A shell says the same of a program that there is not.
BECOME = """import json, os, sys
folder, given, *command = sys.argv[1:]
os.chdir(folder)
if given:
    with os.fdopen(int(given)) as file:
        os.environ.update(json.load(file)["variables"])
try:
    os.execvp(command[0], command)
except OSError as error:
    print(f"{command[0]}: {error.strerror}", file=sys.stderr)
    sys.exit(126 if isinstance(error, PermissionError) else 127)
"""


def spawn_command(message, given):
    """A command in the folder of the run, in place of a flow."""
    wish = message["wish"]
    (result, result_in), (out, out_in), (err, err_in) = [os.pipe() for _ in range(3)]
    program = [sys.executable, "-I", "-S", "-c", BECOME, message["folder"], "" if given is None else str(given), *wish["command"]]
    if given is not None:
        os.set_inheritable(given, True)
    # What it prints is to be seen as it comes, not when a buffer is full.
    variables = {"PYTHONUNBUFFERED": "1", **os.environ, **(wish.get("environment_variables") or {})}
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, out_in, 1), (os.POSIX_SPAWN_DUP2, err_in, 2)]
    pid = os.posix_spawn(sys.executable, program, variables, file_actions=actions, setpgroup=0, setsigdef=[signal.SIGCHLD, signal.SIGPIPE])
    for fd in (result_in, out_in, err_in):
        os.close(fd)
    run = Run(message["run"], pid, result, out, err)
    run.is_command = True
    return run
