"""The socket between a runner and its supervisor."""

import json
import socket


class Control:
    """The socket to the supervisor, as lines of JSON."""

    def __init__(self, sock):
        self.socket = sock
        self.buffer = bytearray()
        # What came beside the messages, in order.
        self.descriptors = []

    def send(self, message):
        self.socket.sendall(json.dumps(message, ensure_ascii=True, default=str).encode() + b"\n")

    def receive(self):
        """The next message; None when the supervisor is gone."""
        while b"\n" not in self.buffer:
            more, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 16, 16, socket.MSG_CMSG_CLOEXEC)
            self.descriptors += descriptors
            if not more:
                return None
            self.buffer += more
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer = bytearray(rest)
        return json.loads(line)
