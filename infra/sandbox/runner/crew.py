"""The processes of one run that run the flow's code, and the work that each is at."""

import os
import select
import socket
import time

from . import spans
from .control import Control
from .strays import end_children
from .stream import Bound, checked_chunk
from .wrong import Wrong, ended

# As many lines at once as promptflow runs, and the most while the processor is idle.
WORKERS, MOST_WORKERS = 4, 32
# How long one line may take, as promptflow has it.
LINE_SECONDS = 600
# How often the processor's load and the times are looked at.
TICK = 0.1
# How long the end of a process may take to be known.
REAP_SECONDS = 2.0
# The most that the answer of one line may have.
MOST_BYTES = 512 << 20


class Process:
    """A process that takes orders, and the line that it is at."""

    def __init__(self, channel, pid):
        self.control, self.pid = Control(channel, MOST_BYTES), pid
        self.is_child = pid is not None
        # An answer repeats the word of its order: what else the flow's code may write to the socket
        # is none.
        self.is_loaded, self.line, self.word, self.since, self.wrong = False, None, None, 0.0, None

    def kill(self):
        if self.pid:
            try:
                os.kill(self.pid, 9)
            except OSError:
                pass


class Crew:
    def __init__(self, spec, message, start, given, tell):
        """`tell`: takes what is to be known of a line before its end."""
        self.spec, self.message, self.start, self.given, self.tell = spec, message, start, given, tell
        self.told, self.spans = Bound(), spans.Bound()
        self.members, self.unnamed, self.endings = [], [], {}
        self.begun, self.is_late, self.has_loader, self.first_size = time.monotonic(), False, False, 1

    # --- Loading the flow

    def begin(self):
        self.loader = self.hire()

    def hire(self):
        """A process that loads the flow."""
        process = Process(*self.start())
        process.control.send_with({"load": self.message}, self.given)
        return process

    def await_flow(self):
        """Returns the description of the flow, once it is loaded."""
        self.about = self.loaded_by(self.loader)
        self.has_loader = True
        return self.about

    def loaded_by(self, process):
        answer = self.receive(process)
        if answer is None:
            raise Wrong("Run.Crashed", f"the flow's process ended while it loaded the flow ({ended(self.status(process))})")
        if "loaded" not in answer:
            failure = answer.get("failed") or {}
            raise Wrong(str(failure.get("error", "Run.BadFlow")), str(failure.get("message", "it cannot be loaded")))
        process.is_loaded = True
        return answer["loaded"]

    def receive(self, process):
        """The next message of a process; None if there will be none."""
        try:
            answer = process.control.receive()
            return answer if isinstance(answer, dict) else None
        except (OSError, ValueError, RecursionError):
            return None

    def number(self, name):
        """A whole number above 0 that a variable gives; any other value counts as none, as with
        promptflow."""
        try:
            number = int((self.about.get("variables") or {}).get(name) or 0)
        except (ValueError, TypeError):
            return None
        return number if number > 0 else None

    # --- Lines

    def answers(self, lines, earlier):
        """Yields the answer of each line, in order.

        * `earlier`: by number, what came of lines that another run has completed.
        """
        self.lines = lines
        self.done = {position: earlier[line.number] for position, line in enumerate(lines) if line.number in earlier}
        self.waiting = [position for position in range(len(lines)) if position not in self.done][::-1]
        self.line_seconds = self.number("PF_LINE_TIMEOUT_SEC") or LINE_SECONDS
        self.batch_seconds = self.number("PF_BATCH_TIMEOUT_SEC")
        wanted = self.number("PF_WORKER_COUNT")
        self.size, self.may_grow = min(wanted or max(WORKERS, self.spec["cores"]), max(len(self.waiting), 1)), wanted is None
        self.first_size = self.size
        if self.size == 1:
            self.add(self.loader)
        self.busy, tick, told = None, time.monotonic(), 0
        while told < len(lines):
            while self.waiting and len(self.members) < self.size:
                self.add(self.another())
            if told not in self.done:
                self.look()
            now = time.monotonic()
            if now - tick >= TICK:
                self.end_late(now)
                self.grow(now)
                tick = now
            while told in self.done:
                yield self.done.pop(told)
                told += 1
        for process in list(self.members):
            self.dismiss(process)

    def another(self):
        """One more process: a fork of the one that has loaded the flow, or one that loads it
        itself, where that has threads or is gone."""
        if not self.has_loader:
            return self.hire()
        if not self.about.get("forks"):
            return self.loader if self.loader not in self.members else self.hire()
        mine, theirs = socket.socketpair()
        try:
            self.loader.control.send_with({"fork": True}, theirs.fileno())
        except OSError:
            self.has_loader = False
            mine.close()
            return self.hire()
        finally:
            theirs.close()
        process = Process(mine, None)
        process.is_loaded = True
        self.unnamed.append(process)
        return process

    def add(self, process):
        self.members.append(process)
        if process.is_loaded:
            self.give(process)

    def give(self, process):
        """Gives a process the next line, or lets it go."""
        if not self.waiting:
            return self.dismiss(process)
        process.line, process.since, process.word = self.waiting.pop(), time.monotonic(), os.urandom(8).hex()
        line = self.lines[process.line]
        keeps = {"keeps_no_spans": True} if self.spans.is_full() else {}
        self.spans.lines += len(keeps)
        try:
            process.control.send({"line": line.number, "inputs": line.inputs, "word": process.word, **keeps})
        except OSError:
            self.lose(process)

    def dismiss(self, process):
        self.members.remove(process)
        if process is not self.loader:
            process.control.socket.close()

    def look(self):
        """Takes in what the processes say."""
        poll, processes = select.poll(), {}
        for process in {*self.members, *([self.loader] if self.has_loader else [])}:
            processes[process.control.socket.fileno()] = process
            poll.register(process.control.socket, select.POLLIN)
        for fd, _ in poll.poll(TICK * 1000):
            process = processes[fd]
            # One that was let go meanwhile says nothing any more.
            if process is self.loader or process in self.members:
                self.hear(process)
        for process in [member for member in self.members if member.pid in self.endings]:
            # What it said before its end counts. A process that it left behind may hold its socket
            # open.
            while process in self.members and select.select([process.control.socket], [], [], 0)[0]:
                self.hear(process)
            self.lose(process)

    def hear(self, process):
        """Takes in what a process says, which may have been taken in since somebody saw that there
        is something."""
        try:
            there = process.control.read(waits=False)
        except (OSError, ValueError):
            there = False
        while process.control.has_message():
            answer = self.receive(process)
            if answer is None:
                there = False
                break
            self.take(process, answer)
        if not there:
            self.lose(process)

    def take(self, process, answer):
        if process is self.loader and "forked" in answer:
            if self.unnamed:
                self.unnamed.pop(0).pid = answer["forked"]
        elif process is self.loader and "ended" in answer:
            self.endings[answer["ended"]] = answer.get("status")
        elif "loaded" in answer:
            process.is_loaded = True
            self.give(process)
        elif "failed" in answer and not process.is_loaded:
            failure = answer["failed"]
            raise Wrong(str(failure.get("error")), str(failure.get("message")))
        elif process.line is None or answer.get("word") != process.word:
            return
        elif "chunk" in answer:
            self.take_chunk(answer["chunk"])
        else:
            self.tell_spans(answer)
            self.done[process.line], process.line = checked(answer), None
            self.give(process)

    def tell_spans(self, answer):
        kept = self.spans.take(*spans.checked_spans(answer))
        if kept:
            self.tell({"spans": kept})

    def take_chunk(self, chunk):
        """Passes on a piece of the output of the one line that is streamed. It holds nobody up: who
        reads on has bounds of its own."""
        chunk = checked_chunk(chunk) if self.message["wish"].get("stream") and len(self.lines) == 1 else None
        if chunk and self.told.has_room(chunk):
            self.tell({"chunk": chunk})

    def lose(self, process):
        """Takes in that a process is gone, with the line that it was at."""
        if process is self.loader:
            self.has_loader = False
        if process not in self.members:
            return
        self.members.remove(process)
        if process.line is None:
            if not process.is_loaded:
                raise Wrong("Run.Crashed", f"the flow's process ended while it loaded the flow ({ended(self.status(process))})")
            return
        wrong = process.wrong or self.crash(self.status(process))
        self.done[process.line], process.line = {"wrong": wrong}, None

    def crash(self, status):
        return {"error": "Run.Crashed", "message": f"its process ended in the middle of the line ({ended(status)}). See what ended it, and run again"}

    def status(self, process):
        """Returns the end of a process whose socket has closed. One that has not ended is ended."""
        until = time.monotonic() + REAP_SECONDS
        while time.monotonic() < until:
            if process.is_child:
                pid, status = os.waitpid(process.pid, os.WNOHANG)
                if pid:
                    return os.waitstatus_to_exitcode(status)
            elif process.pid in self.endings:
                return self.endings.pop(process.pid)
            elif not self.has_loader:
                break
            else:
                self.hear_endings()
            time.sleep(0.002)
        process.kill()
        return os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) if process.is_child else -9

    def hear_endings(self):
        """Takes in what the loading process says of its forks."""
        if select.select([self.loader.control.socket], [], [], 0.02)[0]:
            self.hear(self.loader)

    # --- Time and load

    def end_late(self, now):
        """Ends the lines that take too long."""
        for process in list(self.members):
            if process.line is not None and now - process.since > self.line_seconds:
                message = f"the line took longer than {self.line_seconds} s, which is its limit (PF_LINE_TIMEOUT_SEC)"
                self.end(process, {"error": "Run.LineTimeout", "message": message})
        if self.batch_seconds and now - self.begun > self.batch_seconds:
            self.is_late = True
            wrong = {"error": "Run.Timeout", "message": f"the run took longer than {self.batch_seconds} s, which is its limit (PF_BATCH_TIMEOUT_SEC)"}
            for position in self.waiting:
                self.done[position] = {"wrong": wrong}
            self.waiting.clear()
            for process in list(self.members):
                self.end(process, wrong) if process.line is not None else self.dismiss(process)

    def end(self, process, wrong):
        process.wrong = wrong
        process.kill()
        self.lose(process)

    def grow(self, now):
        """Lets more lines run at once while the processor waits for the ones that do, and none of
        them for the processor."""
        used = sum(processor_time(process.pid) + processor_wait(process.pid) for process in self.members if process.pid)
        before, self.busy = self.busy, (used, now)
        is_full = self.waiting and len(self.members) == self.size and all(process.line is not None for process in self.members)
        if not (self.may_grow and is_full and before and self.size < MOST_WORKERS):
            return
        share = (used - before[0]) / (now - before[1]) / self.spec["cores"]
        if share < 0.5 and self.has_memory():
            self.size = min(self.size * 2, MOST_WORKERS)

    def has_memory(self):
        """Whether twice as many processes leave half of the session's memory free."""
        limit = (self.spec.get("size") or (0, 0))[1] or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        largest = max((own_memory(process.pid) for process in self.members if process.pid), default=0)
        return largest * self.size * 2 < limit / 2

    # --- The whole

    def aggregate(self, kept):
        """Returns the result of the flow's aggregation: its metrics in JSON, the records of its
        nodes, and why it failed if it did."""
        if not self.has_loader:
            self.loader = self.hire()
            self.loaded_by(self.loader)
        word = os.urandom(8).hex()
        order = {"inputs": [inputs for inputs, _ in kept], "kept": [each for _, each in kept], "word": word}
        try:
            self.loader.control.send({"aggregate": order})
        except OSError:
            pass
        answer = self.receive(self.loader)
        while answer is not None and answer.get("word") != word:
            answer = self.receive(self.loader)
        if answer is None:
            message = f"the process of the flow's aggregation ended in the middle ({ended(self.status(self.loader))})"
            return None, [], {"error": "Run.Crashed", "message": message}
        self.tell_spans(answer)
        metrics = answer.get("metrics")
        return metrics if is_line(metrics) else None, nodes_of(answer), failure_of(answer.get("wrong"))

    def end_all(self):
        """Ends all processes of the run, and what they have started. Whether nothing of it is
        left."""
        for process in {*self.members, *([self.loader] if self.has_loader else [])}:
            try:
                if process.is_child and not os.waitpid(process.pid, os.WNOHANG)[0]:
                    process.kill()
                    os.waitpid(process.pid, 0)
            except ChildProcessError:
                pass  # its end was known
        return end_children()


def checked(answer):
    """An answer of a line, as far as it is one: it comes from a process where the flow's code can
    write anything."""
    text, wrong, kept = answer.get("text"), failure_of(answer.get("wrong")), answer.get("kept")
    retried = answer.get("retried")
    retried = retried if isinstance(retried, int) and 0 <= retried < 100 else 0
    told = {"retried": retried, "record": answer.get("record") if is_line(answer.get("record")) else None, "nodes": nodes_of(answer)}
    if wrong:
        return {"wrong": wrong, **told}
    if not is_line(text):
        return {"wrong": {"error": "Run.BadOutput", "message": "the line's output is no JSON"}, **told}
    return {"text": text, "kept": kept if isinstance(kept, str) else None, **told}


def is_line(text):
    return isinstance(text, str) and "\n" not in text


def nodes_of(answer):
    """The records of nodes, each with the node's name."""
    nodes = answer.get("nodes")
    pairs = nodes if isinstance(nodes, list) else []
    return [pair for pair in pairs if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and is_line(pair[1])]


def failure_of(wrong):
    if not isinstance(wrong, dict):
        return None
    return {"error": str(wrong.get("error")), "message": str(wrong.get("message"))}


def processor_time(pid):
    """Returns the processor time of a process, in seconds."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def processor_wait(pid):
    """Returns the time that the first thread of a process has waited for a processor, in seconds; 0
    where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def own_memory(pid):
    """The bytes that a process shares with no other."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Private_"))
    except (OSError, ValueError):
        return 0
