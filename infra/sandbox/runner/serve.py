"""The runner of a session: process 1 of its sandbox, which starts a process for each run."""

import os
import select
import signal

from .kernel import PR_SET_DUMPABLE, prctl, threads
from .runs import SpareRun, check_variables, finish, fork_command, spawn_command, spawn_run, take
from .runtime import freeze, import_executor, run_a_dummy_flow
from .strays import adopt, end_children, measure_use
from .wrong import Wrong

# For how many milliseconds no run has come before the processes of the next one rehearse.
BEFORE_REHEARSAL = 100


def add_sites(spec):
    """Has packages looked for beside the environment, before it: where nothing can be laid over
    it."""
    import site
    import sys

    for folder in reversed(spec.get("sites", [])):
        before = len(sys.path)
        site.addsitedir(folder)
        sys.path[:] = sys.path[before:] + sys.path[:before]


def serve(spec, control, warm):
    """Is the runner of a session: process 1 of its sandbox. It ends with the supervisor's end of
    the socket, and all in the sandbox with it. Whoever calls this has said that the session is
    ready."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Process 1 is where what has lost its parent goes; without namespaces of its own it is so by
    # this.
    adopt()
    os.chdir("/")
    fork_safe = warm
    if not warm and spec.get("import", True):
        # The runtime asks /proc about its own process, whose files there belong to nobody here
        # unless it can be dumped. Nothing else runs in the sandbox yet.
        prctl(PR_SET_DUMPABLE, 1)
        try:
            import_executor()
            run_a_dummy_flow()
            fork_safe = threads() == 1
            freeze()
        except Exception as error:  # noqa: BLE001
            control.send({"cold": f"{type(error).__name__}: {error}"})
        else:
            control.send({"warm": fork_safe})
        finally:
            prctl(PR_SET_DUMPABLE, 0)
    Runner(spec, control, fork_safe).serve()


class Runner:
    def __init__(self, spec, control, fork_safe):
        self.spec, self.control, self.fork_safe = spec, control, fork_safe
        self.runs, self.owner, self.spare = {}, {}, None
        # The text of the flow's file, as far as it is known.
        self.definition = None
        # The processes of runs that have told their end.
        self.leaving = set()
        self.wake, self.woken = os.pipe()
        for fd in (self.wake, self.woken):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self.woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.poll = select.poll()
        self.poll.register(control.socket, select.POLLIN)
        self.poll.register(self.wake, select.POLLIN)

    def serve(self):
        while True:
            events = self.poll.poll(self.patience())
            if not events and self.spare is None:
                self.spare = SpareRun(self.spec, self.definition)
            elif not events:
                self.spare.rehearse()
            for fd, _ in events:
                if fd == self.control.socket.fileno():
                    self.take_orders()
                elif fd == self.wake:
                    os.read(self.wake, 4096)
                    self.take_endings()
                elif fd in self.owner:
                    self.take_output(fd)

    def patience(self):
        """Returns the wait, in milliseconds, before something is done ahead: a run's processes are
        made as soon as nothing else is to do, and rehearse when no run has come for a while, as one
        that does would wait for the processor."""
        if not self.fork_safe or self.runs or self.leaving or (self.spare and self.spare.rehearses):
            return None
        return 0 if self.spare is None else BEFORE_REHEARSAL

    def take_orders(self):
        while True:
            message = self.control.receive()
            if message is None:
                end_all()
            if "stop" in message:
                for run in self.runs.values():
                    if run.name == message["stop"]:
                        os.kill(run.pid, signal.SIGKILL)
            definition = message.pop("definition", None)
            if definition and definition != self.definition:
                self.definition = definition
                if self.spare and "run" not in message:
                    self.spare.read(definition)
            if "run" in message:
                given = self.control.descriptors.popleft() if message.get("given") else None
                try:
                    self.begin(message, given)
                except Wrong as wrong:
                    self.control.send({"of": message["run"], "done": {"lines": 0, "failed": 0, "failure": wrong.failure}})
                if given is not None:
                    os.close(given)
            if not self.control.has_message():
                return

    def begin(self, message, given):
        """Starts a run; what is `given` to it alone is handed on, and not read here."""
        check_variables(message)
        if message["wish"].get("command"):
            run = (spawn_command if self.spec["python"] else fork_command)(message, given)
        elif not self.fork_safe:
            run = spawn_run(self.spec, message, given)
        elif self.spare and self.spare.is_ready():
            run, self.spare = self.spare.run(message, given), None
        else:
            run = SpareRun(self.spec).run(message, given)
        self.runs[run.pid] = run
        for fd in run.fds:
            self.owner[fd] = run
            self.poll.register(fd, select.POLLIN)

    def take_output(self, fd):
        run = self.owner[fd]
        take(self.control, run, fd)
        if fd not in run.fds:
            self.forget(fd)
        self.end_if_over(run)

    def forget(self, fd):
        self.poll.unregister(fd)
        os.close(fd)
        del self.owner[fd]

    def take_endings(self):
        ended = reap(self.runs)
        if ended & (self.runs.keys() | self.leaving):
            self.leaving -= ended
            self.end_strays(ended)
        if self.spare and self.spare.pid in ended:
            # Whoever is to be run in it would not be.
            for fd in self.spare.fds():
                os.close(fd)
            self.spare = None
        for run in list(self.runs.values()):
            self.end_if_over(run)

    def end_strays(self, ended):
        """Ends what the runs have left that have ended."""
        known = {pid for pid, run in self.runs.items() if run.status is None} | self.leaving
        if self.spare:
            known.add(self.spare.pid)

        def take_in():
            ended.update(reap(self.runs))
            return True

        if not end_children(known, take_in):
            # All in the sandbox ends rather than that something of a run goes on.
            end_all()

    def end_if_over(self, run):
        # The word of who has seen it through is enough: all else of the run has ended, and its own
        # end takes some milliseconds.
        if not run.done and (run.status is None or "result" in run.fds.values()):
            return
        open_fds = list(run.fds)
        finish(self.control, run)
        for fd in open_fds:
            self.forget(fd)
        del self.runs[run.pid]
        if run.status is None:
            self.leaving.add(run.pid)


def end_all():
    if os.getpid() != 1:
        # No namespace ends them with this process.
        end_children()
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def reap(runs):
    """Takes in which processes have ended."""
    ended = set()
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended.add(pid)
        if pid in runs:
            runs[pid].status, runs[pid].used = os.waitstatus_to_exitcode(status), measure_use(runs[pid].begun, [usage])
