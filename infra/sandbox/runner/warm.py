"""The warm process: an interpreter that is forked into each session.

It has the flow runtime loaded. Or it has nothing loaded but this package, and its forks become the
interpreter of the session's image or environment once the sandbox around them is closed.
"""

import json
import os
import select
import signal
import socket
from compileall import compile_dir

from .control import Control
from .fresh import begin_anew, preload
from .groups import enter_groups, limit_groups
from .isolate import Sources, begin, begin_root, enter_namespaces, enter_network, finish_root, seal
from .kernel import PR_SET_CHILD_SUBREAPER, UID, close_descriptors, gather_memory, null, prctl, start_time, threads
from .network import hand_over, has_ipv6, make_device
from .runtime import freeze, import_executor, run_a_dummy_flow
from .serve import serve


def warm(path, idle_seconds, kind, places):
    """Is the warm process, until no session has been a fork of it for `idle_seconds` or its socket
    was taken away.

    * `kind`: what is known ahead of its sessions; see `Kind`.
    """
    import time

    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # Sessions only read this package: what they load of it they would compile each time.
    compile_dir(os.path.dirname(__file__), quiet=2)
    if kind.is_fresh:
        preload({"python": None, "variables": {}})
    elif not load_runtime(path):
        return
    gather_memory()
    # A socket's address is short, and the path may be long.
    folder, path = os.path.split(path)
    os.chdir(folder)
    # For a session with a network of its own, and for one with the machine's. Whoever looks for the
    # first finds the second.
    listeners = {listen(path + suffix): own_network for suffix, own_network in (("-open", False), ("", True))}
    mine = os.stat(path).st_ino
    wake, woken = os.pipe()
    for fd in (wake, woken):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    spare, sessions, used = Spare(kind, places, True), {}, time.monotonic()
    networks = []
    while True:
        readable, _, _ = select.select([*listeners, wake], [], [], 2 if spare and not networks else 0.1)
        if wake in readable:
            os.read(wake, 4096)
        try:
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                networks += sessions.pop(pid, [])
        except ChildProcessError:
            pass
        if networks and not readable:
            # The last one to close such a socket waits some 10 ms for the kernel: it shall not be
            # an agent, whose end is waited for.
            os.close(networks.pop())
        try:
            # It may have been let go before there was a socket to take away.
            if os.stat(path).st_ino != mine or not os.path.samefile(folder, ".") or not os.path.exists(path + ".lock"):
                return
        except OSError:
            return
        if sessions:
            used = time.monotonic()
        elif time.monotonic() - used > idle_seconds:
            os.unlink(path)
            return
        wanted = [listener for listener in listeners if listener in readable]
        for listener in wanted:
            connection, _ = listener.accept()
            used = time.monotonic()
            # The next one will want what this one wants.
            own_network = listeners[listener]
            if spare and spare.own_network != own_network:
                spare.end()
                spare = None
            spare = spare or Spare(kind, places, own_network)
            pid, handed_over = spare.become(connection)
            connection.close()
            # The next is made once this one has started.
            spare = None
            if pid:
                sessions[pid] = handed_over
            else:
                networks += handed_over
        if not wanted and spare is None:
            spare = Spare(kind, places, own_network)


class Kind:
    """The facts that are known of sessions ahead.

    * `root`: an empty folder; `user`: theirs on this machine, if it is not this process's own.
    * `uid`: theirs inside, where each begins with an interpreter of its own; None where they are
      forks with the flow runtime loaded.
    """

    def __init__(self, root, user, uid):
        self.root, self.user, self.is_fresh, self.uid = root, user, uid is not None, UID if uid is None else uid


def load_runtime(path):
    """Loads the flow runtime. Whether this process can be forked with it."""
    import_executor()
    run_a_dummy_flow()
    if threads() > 1:
        # Nobody shall try again until somebody has looked.
        with open(path + ".unfit", "w") as file:
            file.write("the flow runtime has started threads: a process that has some cannot be forked safely\n")
        return False
    freeze()
    return True


def listen(path):
    if os.path.exists(path + ".new"):
        os.unlink(path + ".new")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(64)
    os.rename(path + ".new", path)
    return listener


class Spare:
    """A process that is in namespaces of its own already, and waits for the session that it is to
    be."""

    def __init__(self, kind, places, own_network):
        self.own_network = own_network
        self.channel, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                close_descriptors([theirs.fileno()])
                for fd in (0, 1, 2):
                    null(fd)
                wait_to_become(theirs, kind, places, own_network)
                status = 0
            finally:
                os._exit(status)
        theirs.close()

    def end(self):
        """Without its channel it ends."""
        self.channel.close()

    def become(self, connection):
        """Hands it its connection. Its process id, or None if it cannot be a session, which it then
        says itself; and a copy of the far end of its network, if it has one."""
        self.channel.settimeout(10)
        control = Control(self.channel)
        try:
            word = json.loads(control.receive() or "null")
            if "pid" in word:
                socket.send_fds(self.channel, [b"1"], [connection.fileno()])
                return word["pid"], list(control.descriptors)
            Control(connection).send(word)
        except (OSError, TypeError):
            pass
        finally:
            self.channel.close()
        return None, list(control.descriptors)


def wait_to_become(channel, kind, places, own_network):
    # Ahead of the session, as going into a group takes its time; and before it is in a namespace,
    # where it may not make groups any more.
    groups = enter_groups(places)
    ipv6 = own_network and has_ipv6()
    try:
        kept = enter_namespaces(kind.user, kind.uid)
    except OSError as error:
        Control(channel).send(json.dumps({"failed": str(error)}))
        return
    ready, go = os.pipe()
    pid = os.fork()
    if pid:
        os.write(go, json.dumps({"pid": pid, "start": start_time(pid)}).encode())
        return
    os.close(go)
    who = json.loads(os.read(ready, 4096))
    os.close(ready)
    sockets = []
    if own_network:
        try:
            enter_network()
            sockets = make_device(ipv6)
        except OSError as error:
            Control(channel).send(json.dumps({"no_network": str(error)}))
            return
    try:
        # Which image, is known with the session.
        if not kind.is_fresh:
            begin_root(kind.root, os.environ["HOME"], kind.user, own_network)
    except OSError as error:
        Control(channel).send(json.dumps({"failed": str(error)}))
        return
    Control(channel).send_with(json.dumps(who), sockets[0].fileno() if sockets else None)
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    channel.close()
    if not descriptors:
        return
    control = Control(socket.socket(fileno=descriptors[0]))
    spec = control.receive()
    if spec is None:
        return
    try:
        control.send(who)
        control.send({"groups": list(groups)})
        if own_network:
            hand_over(control, sockets)
        in_groups, unlimited = limit_groups(spec, groups)
        try:
            sources = Sources.of(spec, control.descriptors)
            if kind.is_fresh:
                begin(spec, own_network, sources)
            lacks = kept + finish_root(spec, sources)
        except OSError as error:
            control.send({"failed": str(error)})
            return
        seal(spec, control, lacks + unlimited, "A" if in_groups else "B")
        if kind.is_fresh:
            return begin_anew(spec, control)
        os.environ.clear()
        os.environ.update(spec["variables"])
        take_in_site(spec)
        control.send({"ready": {"warm": True}})
        serve(spec, control, warm=True)
    except Exception as error:  # noqa: BLE001
        control.send({"failed": f"{type(error).__name__}: {error}"})


def take_in_site(spec):
    """The session's environment stands where the base was: only its own .pth files are new to this
    interpreter."""
    import importlib
    import site

    importlib.invalidate_caches()
    folder = spec.get("site")
    for name in spec.get("pth", []):
        site.addpackage(folder, name, None)
