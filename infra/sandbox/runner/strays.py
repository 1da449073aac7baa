"""Ends all that a run has started: also what has left its group, and what has lost its parent.

The process that a run begins with adopts what loses its parent (`adopt`). When that process ends,
what is left of the run comes to the runner, whose children are otherwise all known.
"""

import os
import select
import signal
import time

from .kernel import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, PR_SET_PDEATHSIG, null, prctl

# How long the processes of a run may take to end, in seconds.
END_SECONDS = 5


def adopt():
    """Has what comes of this process and loses its parent become a child of this one, and of no
    process further up."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def go_on_in_a_child(control):
    """Returns only in a child. This process stays outside of what the child becomes: when the child
    has ended, or the other end of `control` has, it ends all that came of the child, and hands
    on how that ended."""
    # Killed, it would end nothing.
    prctl(PR_SET_PDEATHSIG, 0)
    adopt()
    pid = os.fork()
    if not pid:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    prctl(PR_SET_DUMPABLE, 0)
    for fd in (1, 2):
        null(fd)
    poll = select.poll()
    for fd in (control.socket.fileno(), os.pidfd_open(pid)):
        poll.register(fd, select.POLLIN)
    poll.poll()
    ended, status = os.waitpid(pid, os.WNOHANG)
    end_children()
    code = os.waitstatus_to_exitcode(status) if ended else -signal.SIGKILL
    os._exit(code if code >= 0 else 128 - code)


def measure_use(begun, usages, processes=1):
    """The use of a run: processor time and time by the clock in milliseconds, and bytes of memory,
    at most.

    * `begun`: `time.monotonic()` at its begin.
    * `usages`: the kernel's accounts of its processes, the last one with the largest of them.
    * `processes`: how many it begins with, each of which may need as much as the largest. What they
      share counts each time.
    """
    processor = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    took = time.monotonic() - begun
    return {"processor": round(processor * 1000), "took": round(took * 1000), "memory": (usages[-1].ru_maxrss << 10) * processes}


def reap():
    """Takes in which children have ended. Whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    except ChildProcessError:
        return False


def end_children(but=(), reap=reap):
    """Ends all that comes of this process, but for the children in `but` and what comes of those.
    Whether nothing of it is left."""
    until = time.monotonic() + END_SECONDS
    while reap() and (left := descendants(but)):
        if time.monotonic() > until:
            return False
        # All are stopped first: what is stopped starts nothing, and what is started meanwhile is
        # found by the next look.
        stopped = set()
        while left - stopped and time.monotonic() < until:
            for pid in left - stopped:
                send(pid, signal.SIGSTOP)
            stopped |= left
            left = descendants(but)
        for pid in stopped:
            send(pid, signal.SIGKILL)
        time.sleep(0.001)
    return True


def send(pid, what):
    try:
        os.kill(pid, what)
    except OSError:
        pass


def descendants(but):
    """All processes that come of this one, without the children in `but` and what comes of those.
    One that has ended counts until it is taken in: it may have started another one since the
    processes were listed, which the next look finds in its place."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found, look = set(), [os.getpid()]
    while look:
        more = [pid for pid in children.get(look.pop(), []) if pid not in but]
        found.update(more)
        look += more
    return found
