"""A process that runs a flow's code: it loads the flow, runs lines, and makes forks of itself that
do.

Nothing that it says is believed of the run as a whole: how many lines there are, and whether a
process came to a good end, the process that gives it its orders (see `orders`) knows by itself.
"""

import gc
import os
import select
import signal
import socket
import sys

from . import connections, definitions, spans
from .control import Control
from .kernel import PR_SET_DUMPABLE, prctl, threads
from .own import own_folders, own_variables
from .runtime import find_locks, renew_locks, run_a_dummy_flow
from .stream import Stream
from .wrong import Wrong

# How often a process looks whether one of its forks has ended.
LOOK = 0.02


def work(control):
    """Takes orders until there are no more, and ends."""
    status = 1
    try:
        renew_locks()
        Worker(control).serve()
        status = 0
    except BaseException:  # noqa: BLE001
        import traceback

        traceback.print_exc()
    finally:
        flush()
        os._exit(status)


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass


class Worker:
    def __init__(self, control):
        self.control, self.executor, self.message, self.forks, self.has_forked, self.stream, self.spans = control, None, None, set(), False, None, None

    def serve(self):
        while True:
            if self.forks and not self.control.has_message():
                if not select.select([self.control.socket], [], [], LOOK)[0]:
                    self.reap()
                    continue
            order = self.control.receive()
            if order is None:
                return
            if "rehearse" in order:
                run_a_dummy_flow()
                self.control.send({"rehearsed": True})
            elif "read" in order:
                definitions.read_ahead(order["read"])
            elif "load" in order:
                self.control.send(self.load(order["load"]))
            elif "fork" in order:
                self.fork()
            elif "line" in order:
                self.control.send({**self.line(order), "word": order["word"]})
            elif "aggregate" in order:
                self.control.send({**self.aggregate(order["aggregate"]), "word": order["aggregate"]["word"]})

    def load(self, message):
        from . import flow

        prctl(PR_SET_DUMPABLE, 1)
        sys.dont_write_bytecode = True
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)
        folder = message["folder"]
        os.chdir(folder)
        sys.path[:0] = [folder, *own_folders(message)]
        os.environ.update(own_variables(message, os.environ))
        self.message = message
        if message.get("given"):
            given = self.control.descriptors.popleft()
            connections.take(message, given)
        try:
            self.executor = flow.load(message)
            self.spans = spans.begin(message["run"])
            self.stream = Stream(self.executor) if message["wish"].get("stream") else None
        except Wrong as wrong:
            return {"failed": wrong.failure}
        except BaseException as error:  # noqa: BLE001
            failure = flow.why_not_loaded(error, folder).failure
            flush()
            return {"failed": failure}
        flush()
        gc.collect()
        gc.freeze()
        return {
            "loaded": {
                "inputs": flow.describe_inputs(self.executor),
                "sample": flow.sample_inputs(self.executor),
                "aggregates": bool(self.executor.has_aggregation_node),
                "forks": threads() == 1,
                "variables": {name: os.environ.get(name) for name in ("PF_WORKER_COUNT", "PF_LINE_TIMEOUT_SEC", "PF_BATCH_TIMEOUT_SEC")},
            }
        }

    def fork(self):
        """Makes a fork that takes its orders by a socket of its own."""
        descriptor = self.control.descriptors.popleft()
        if not self.has_forked:
            find_locks()
            self.has_forked = True
        flush()
        pid = os.fork()
        if not pid:
            self.control.socket.close()
            self.control, self.forks = Control(socket.socket(fileno=descriptor)), set()
            work_as(self)
        os.close(descriptor)
        self.forks.add(pid)
        self.control.send({"forked": pid})

    def reap(self):
        for pid in list(self.forks):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.forks.discard(pid)
                self.control.send({"ended": pid, "status": os.waitstatus_to_exitcode(status)})

    def line(self, order):
        from .line import run_line

        if self.stream:
            self.stream.begin(lambda chunk: self.control.send({"chunk": chunk, "word": order["word"]}))
        if self.spans and order.get("keeps_no_spans"):
            self.spans.keep_no_more()
        answer = run_line(self.executor, self.message["run"], order["line"], order["inputs"], self.message, self.stream)
        flush()
        return self.with_spans(answer)

    def aggregate(self, order):
        from .aggregation import aggregate

        answer = aggregate(self.executor, self.message, order)
        flush()
        return self.with_spans(answer)

    def with_spans(self, answer):
        if not self.spans:
            return answer
        spans, left_out = self.spans.take()
        return {**answer, "spans": spans, "spans_left_out": left_out}


def work_as(worker):
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        renew_locks()
        worker.serve()
        status = 0
    finally:
        flush()
        os._exit(status)
