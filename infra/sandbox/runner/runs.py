"""The processes of runs, as the runner of a session starts and follows them."""

import json
import os
import select
import signal
import socket
import sys
import time

from .boot import BOOT, packages
from .control import Control, Lines
from .coordinator import see_through
from .kernel import close_descriptors, null
from .own import own_variables
from .strays import adopt
from .worker import work
from .wrong import Wrong

# The kernel takes no argument and no variable that is longer, with its name and its end.
MOST_VARIABLE = 128 << 10
# The most of a line of output that is held before it is passed on as a part.
MOST_PART = 256 << 10


class Run:
    """A run in progress: its process, and what it writes."""

    def __init__(self, name, pid, result, out, err, is_command=False):
        self.name, self.pid, self.fds = name, pid, {result: "result", out: "out", err: "err"}
        self.lines = {fd: Lines() for fd in self.fds}
        self.done, self.status, self.is_command = None, None, is_command
        self.begun, self.used = time.monotonic(), None


def check_variables(message):
    """Refuses a variable that no process could be started with."""
    for name, value in (message["wish"].get("environment_variables") or {}).items():
        size = len(os.fsencode(f"{name}={value}")) + 1
        if size > MOST_VARIABLE:
            text = f"the environment variable {name} has {size} bytes, and Linux takes at most {MOST_VARIABLE}; put the value in a file of the flow"
            raise Wrong("Run.VariableTooLarge", text)


def take(control, run, fd):
    """Passes on what a run wrote: results by the line, output by the line or in parts of bounded
    size. False if nothing is here."""
    try:
        data = os.read(fd, 1 << 18)
    except BlockingIOError:
        return False
    kind, buffer = run.fds[fd], run.lines[fd]
    lines = buffer.take(data)
    if kind == "result":
        # Where no code of a flow runs they were written, and they go on as they are, with the run's
        # name.
        of = b'{"of": %s, ' % json.dumps(run.name).encode()
        for line in lines:
            if line.startswith(b'{"done"'):
                run.done = {"of": run.name, **json.loads(line)}
        control.send_lines([of + line[1:] for line in lines if not line.startswith((b'{"done"', b"{}"))])
    else:
        goes_on = bool(data) and buffer.length > MOST_PART
        if goes_on or (not data and buffer.length):
            lines.append(buffer.rest())
        if goes_on:
            # Not in the middle of a character.
            cut = whole_characters(lines[-1])
            buffer.take(lines[-1][cut:])
            lines[-1] = lines[-1][:cut]
        if lines:
            control.send({kind: [line.decode("utf-8", "replace") for line in lines], "goes_on": goes_on, "of": run.name})
    if not data:
        del run.fds[fd]
    return bool(data)


def whole_characters(data):
    """Returns the number of bytes of `data` that are whole characters."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) if back >= needed else len(data) - back
    return len(data)


def finish(control, run):
    """Passes on the rest of what a run wrote, and how it ended by its process's own status."""
    for fd in list(run.fds):
        # A process that it left behind may hold these open: what is here is taken, and no more
        # waited for.
        os.set_blocking(fd, False)
        while take(control, run, fd):
            pass
        if fd in run.fds:
            rest = run.lines[fd].rest()
            if rest and run.fds[fd] != "result":
                control.send({run.fds[fd]: [rest.decode("utf-8", "replace")], "goes_on": False, "of": run.name})
            del run.fds[fd]
    if run.is_command:
        # As a shell says it: 128 and the signal's number.
        code = run.status if run.status >= 0 else 128 - run.status
        control.send({"of": run.name, "done": {"exit_code": code, "used": run.used}})
    else:
        control.send(run.done or {"of": run.name, "done": {}, "crashed": run.status})


def fork_worker():
    """A process that takes orders, as a fork of this one with nothing open but its socket and its
    output."""
    mine, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        close_descriptors([theirs.fileno()])
        work(Control(theirs))
    theirs.close()
    return mine, pid


def spawn_worker(spec):
    """The same as a fresh interpreter."""
    mine, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    arguments = [sys.executable, "-I", "-c", BOOT, packages(), "work", str(theirs.fileno())]
    pid = os.posix_spawn(sys.executable, arguments, dict(os.environ), setsigdef=[signal.SIGCHLD])
    theirs.close()
    Control(mine).send({"sites": spec.get("sites", [])})
    return mine, pid


class SpareRun:
    """A fork of the runner that is to see a run through, with a worker.

    * `definition`: the text of the flow's file, which the worker reads ahead; None if it is not
      known.
    """

    def __init__(self, spec, definition=None):
        self.rehearses = False
        pipes = [os.pipe() for _ in range(3)]
        (self.result, result), (self.out, out), (self.err, err) = pipes
        task, self.task = [end.detach() for end in socket.socketpair()]
        self.pid = os.fork()
        if not self.pid:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.setpgid(0, 0)
                adopt()
                close_descriptors([result, out, err, task])
                null(0)
                for fd, to in ((out, 1), (err, 2)):
                    os.dup2(fd, to)
                    os.close(fd)
                become_run(spec, task, result, definition)
            except BaseException:  # noqa: BLE001
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        for fd in (result, out, err, task):
            os.close(fd)

    def rehearse(self):
        """Has the worker touch what a run needs, which its memory is then its own of."""
        self.rehearses = True
        self.tell({"rehearse": True})

    def read(self, definition):
        """Has the worker read another text ahead."""
        self.tell({"read": definition})

    def tell(self, word):
        with socket.socket(fileno=os.dup(self.task)) as channel:
            try:
                Control(channel).send(word)
            except OSError:
                pass  # as below

    def is_ready(self):
        """Whether it is not in the middle of what it does ahead: until then a fork of its own is
        quicker."""
        return not self.rehearses or bool(select.select([self.result], [], [], 0)[0])

    def fds(self):
        return [self.result, self.out, self.err, self.task]

    def run(self, message, given):
        with socket.socket(fileno=self.task) as channel:
            try:
                Control(channel).send_with(message, given)
            except OSError:
                pass  # it is dead, and its end is noticed as that of the run
        return Run(message["run"], self.pid, self.result, self.out, self.err)


def become_run(spec, task, result, definition):
    """Waits for the run that this process is to see through."""
    first = [fork_worker()]
    worker = Control(first[0][0])
    if definition:
        worker.send({"read": definition})
    with socket.socket(fileno=task) as channel:
        control = Control(channel)
        while (message := control.receive()) and "run" not in message:
            worker.send(message)
            if "rehearse" in message and worker.receive():
                os.write(result, b"{}\n")
    if message:
        given = control.descriptors.popleft() if message.get("given") else None
        see_through(spec, message, result, lambda: first.pop() if first else fork_worker(), given)


def pipes():
    return [os.pipe() for _ in range(3)]


def spawn(arguments, variables, task, fds, signals):
    """Starts a program in a group of its own, with `task` as its input if it is not empty, and
    these pipes for what it writes."""
    (result, result_in), (out, out_in), (err, err_in) = fds
    inputs = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    memory = None
    try:
        if task:
            # A file in memory: an argument has a bound, and a pipe as well.
            memory = os.memfd_create("task")
            with os.fdopen(os.dup(memory), "wb") as file:
                file.write(task)
            os.lseek(memory, 0, os.SEEK_SET)
            inputs = [(os.POSIX_SPAWN_DUP2, memory, 0)]
        actions = [*inputs, (os.POSIX_SPAWN_DUP2, out_in, 1), (os.POSIX_SPAWN_DUP2, err_in, 2)]
        return os.posix_spawn(sys.executable, arguments, variables, file_actions=actions, setpgroup=0, setsigdef=signals), (result, out, err)
    except OSError as error:
        for fd in (result, out, err):
            os.close(fd)
        raise Wrong("Run.NotStarted", f"the run's process could not be started: {error.strerror}") from None
    finally:
        for fd in (result_in, out_in, err_in, *([memory] if memory is not None else [])):
            os.close(fd)


def spawn_run(spec, message, given):
    """A run in a fresh interpreter."""
    fds = pipes()
    result_in = fds[0][1]
    for fd in (result_in, given):
        if fd is not None:
            os.set_inheritable(fd, True)
    arguments = [sys.executable, "-I", "-c", BOOT, packages(), "run"]
    task = json.dumps({"spec": spec, "message": message, "result": result_in, "given": given}).encode()
    pid, ends = spawn(arguments, dict(os.environ), task, fds, [signal.SIGCHLD])
    return Run(message["run"], pid, *ends)


# Becomes the command, in its folder, with the variables that are given to it alone. A shell says
# the same of a program that there is not. It adopts what it starts and what loses its parent, as
# `strays` says; that outlives its becoming the command.
BECOME = """import ctypes, json, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
folder, given, *command = sys.argv[1:]
os.chdir(folder)
if given:
    with os.fdopen(int(given)) as file:
        os.environ.update(json.load(file)["variables"])
os.closerange(3, os.sysconf("SC_OPEN_MAX"))
try:
    os.execvp(command[0], command)
except OSError as error:
    print(f"{command[0]}: {error.strerror}", file=sys.stderr)
    sys.exit(126 if isinstance(error, PermissionError) else 127)
"""


def spawn_command(message, given):
    """A command in the folder of the run, in place of a flow."""
    wish = message["wish"]
    program = [sys.executable, "-I", "-S", "-c", BECOME, message["folder"], "" if given is None else str(given), *wish["command"]]
    if given is not None:
        os.set_inheritable(given, True)
    pid, ends = spawn(program, command_variables(message), b"", pipes(), [signal.SIGCHLD, signal.SIGPIPE])
    return Run(message["run"], pid, *ends, is_command=True)


def command_variables(message):
    # What it prints is to be seen as it comes, not when a buffer is full.
    variables = {"PYTHONUNBUFFERED": "1", **os.environ}
    variables |= own_variables(message, variables)
    return variables | (message["wish"].get("environment_variables") or {})


def fork_command(message, given):
    """The same as a fork of this process, where there is no Python to become the command."""
    (result, result_in), (out, out_in), (err, err_in) = pipes()
    variables = command_variables(message)
    pid = os.fork()
    if not pid:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)
            adopt()
            if given is not None:
                with os.fdopen(given) as file:
                    variables.update(json.load(file)["variables"])
            null(0)
            for fd, to in ((out_in, 1), (err_in, 2)):
                os.dup2(fd, to)
            close_descriptors([])
            become_command(message["wish"]["command"], message["folder"], variables)
        finally:
            os._exit(1)
    for fd in (result_in, out_in, err_in):
        os.close(fd)
    return Run(message["run"], pid, result, out, err, is_command=True)


def become_command(command, folder, variables):
    try:
        os.chdir(folder)
        os.execvpe(command[0], command, variables)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(126 if isinstance(error, PermissionError) else 127)
