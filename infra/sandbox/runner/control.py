"""JSON lines over a socket, and what comes in pieces as lines."""

import json
import socket
from collections import deque


# Of one message, by the kernel.
MOST_DESCRIPTORS = 253


class Lines:
    """Splits what comes in pieces into lines, in time linear in its size."""

    def __init__(self):
        self.pieces, self.length = [], 0

    def take(self, data):
        """The lines that end in `data`, without their ends."""
        first, *more = data.split(b"\n")
        self.pieces.append(first)
        self.length += len(first)
        if not more:
            return []
        lines = [self.rest(), *more[:-1]]
        self.pieces, self.length = [more[-1]], len(more[-1])
        return lines

    def rest(self):
        """Takes the bytes after the last end of a line."""
        rest, self.pieces, self.length = b"".join(self.pieces), [], 0
        return rest


class Control:
    """A socket as lines of JSON.

    * `most`: the most bytes of a message that is taken.
    """

    def __init__(self, sock, most=None):
        self.socket, self.most = sock, most
        # What came beside the messages is in `descriptors`, in order.
        self.lines, self.ready, self.descriptors = Lines(), deque(), deque()

    def send(self, message):
        # What is no text (a lone surrogate) is no JSON for whoever reads it.
        self.socket.sendall(json.dumps(message, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n")

    def send_lines(self, lines):
        """Sends messages that are JSON already."""
        if lines:
            self.socket.sendall(b"\n".join(lines) + b"\n")

    def send_with(self, message, descriptor):
        """Sends a message with a descriptor beside it, if there is one."""
        if descriptor is None:
            return self.send(message)
        line = json.dumps(message).encode() + b"\n"
        sent = socket.send_fds(self.socket, [line], [descriptor])
        # The reader of the whole line may have closed its end, and then also sending nothing is an
        # error.
        if sent < len(line):
            self.socket.sendall(line[sent:])

    def has_message(self):
        """Whether a message is here that `receive` gives without waiting."""
        return bool(self.ready)

    def receive(self):
        """The next message; None when the other end is gone.

        Raises ValueError for what is no message, or is larger than is taken.
        """
        while not self.ready:
            if not self.read():
                return None
        return json.loads(self.ready.popleft())

    def read(self, waits=True):
        """Takes in what is here, waiting for some unless told not to; False when the other end is
        gone."""
        flags = socket.MSG_CMSG_CLOEXEC | (0 if waits else socket.MSG_DONTWAIT)
        try:
            # `socket.recv_fds` does not pass its flags on.
            data, beside, _, _ = self.socket.recvmsg(1 << 18, socket.CMSG_SPACE(MOST_DESCRIPTORS * 4), flags)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        for level, kind, value in beside:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self.descriptors.extend(memoryview(value)[: len(value) & ~3].cast("i"))
        if not data:
            return False
        self.ready.extend(self.lines.take(data))
        if self.most is not None and self.lines.length > self.most:
            raise ValueError("a message is too large")
        return True
