"""The socket between a runner and its supervisor."""

import json


class Control:
    """The socket to the supervisor, as lines of JSON."""

    def __init__(self, sock):
        self.socket = sock
        self.buffer = bytearray()

    def send(self, message):
        self.socket.sendall(json.dumps(message, ensure_ascii=True, default=str).encode() + b"\n")

    def receive(self):
        """The next message; None when the supervisor is gone."""
        while b"\n" not in self.buffer:
            more = self.socket.recv(1 << 16)
            if not more:
                return None
            self.buffer += more
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer = bytearray(rest)
        return json.loads(line)
