"""Attacks on the network: this machine's ports and addresses, its networks, its cloud, and the
rules themselves."""

import fcntl
import os
import socket
import struct
import urllib.parse

from attack import call, got, unless

AF_ALG, AF_VSOCK = 38, 40
FOREIGN = ["169.254.169.254", "169.254.170.2", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "100.100.100.200", "0.0.0.0", "255.255.255.255", "224.0.0.1"]
FOREIGN_V6 = ["::1", "fe80::1", "fd00:ec2::254", "fc00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1", "ff02::1"]


def _talk(family, address, port, kind=socket.SOCK_STREAM):
    """The answer from there. A datagram is sent, and its answer awaited."""
    with socket.socket(family, kind) as it:
        it.settimeout(1)
        it.connect((address, port))
        it.send(b"GET / HTTP/1.0\r\n\r\n")
        return it.recv(64) or None


def _answered(attempts):
    """Only an answer is something that was got: silence is a wall, too."""
    return [text for text in got(attempts) if not text.endswith(": None")]


@unless("network")
def try_every_port_of_the_machine_on_loopback(target):
    # That of a build is its way to the index.
    broker = {urllib.parse.urlsplit(os.environ["UV_DEFAULT_INDEX"]).port} if target["build"] else set()
    found = []
    for port in set(range(1, 65536)) - broker:
        with socket.socket() as it:
            it.settimeout(1)
            # One may meet itself there.
            if it.connect_ex(("127.0.0.1", port)) == 0 and it.getsockname() != it.getpeername():
                found.append(port)
    return found


@unless("network")
def try_the_machines_own_port(target):
    places = [(socket.AF_INET, address) for address in ["127.0.0.1", "127.1.2.3", *target["addresses"], "192.0.0.1", "0.0.0.0"] if ":" not in address]
    places += [(socket.AF_INET6, address) for address in ["::1", "::ffff:127.0.0.1", *target["addresses"]] if ":" in address]
    return _answered((address, lambda family=family, address=address: _talk(family, address, target["port"])) for family, address in places)


@unless("network")
def try_foreign_networks(target):
    ports = (80, 443, 53, target["port"])
    found = _answered((f"{address}:{port}", lambda address=address, port=port: _talk(socket.AF_INET, address, port)) for address in FOREIGN for port in ports)
    return found + _answered((f"[{address}]:{port}", lambda address=address, port=port: _talk(socket.AF_INET6, address, port)) for address in FOREIGN_V6 for port in ports)


@unless("network")
def try_foreign_networks_by_datagrams(target):
    places = [("127.0.0.1", target["datagrams"]), *((address, target["datagrams"]) for address in target["addresses"] if ":" not in address), ("169.254.169.254", 53), ("10.0.0.1", 53), ("239.255.255.250", 1900)]
    return _answered((f"{address}:{port}", lambda address=address, port=port: _talk(socket.AF_INET, address, port, socket.SOCK_DGRAM)) for address, port in places)


@unless("network")
def try_to_bind_to_the_machines_device(target):
    def bound():
        with socket.socket() as it:
            it.setsockopt(socket.SOL_SOCKET, 25, b"far\0")  # SO_BINDTODEVICE
            it.settimeout(1)
            it.connect(("127.0.0.1", target["port"]))
            return it.recv(16)

    def unicast():
        with socket.socket() as it:
            it.setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT
            it.bind((target["addresses"][0], 0))
            return "transparent"

    return got([("device", bound), ("transparent", unicast)])


def try_other_kinds_of_sockets(target):
    def make(family, kind, protocol):
        socket.socket(family, kind, protocol).close()
        return "made"

    kinds = [("vsock", AF_VSOCK, 1, 0), ("alg", AF_ALG, 5, 0), ("packet", socket.AF_PACKET, 3, 0x300), ("cooked", socket.AF_PACKET, 2, 0x300)]
    kinds += [("raw", socket.AF_INET, 3, 255), ("raw tcp", socket.AF_INET, 3, 6), ("raw 6", socket.AF_INET6, 3, 58), ("can", 29, 3, 1), ("tipc", 30, 2, 0), ("xdp", 44, 3, 0), ("bluetooth", 31, 3, 1), ("key", 15, 3, 2), ("rds", 21, 5, 0), ("nfc", 39, 3, 0), ("qipcrtr", 42, 2, 0), ("smc", 43, 1, 0)]
    return got((name, lambda family=family, kind=kind, protocol=protocol: make(family, kind, protocol)) for name, family, kind, protocol in kinds)


def try_to_change_the_network(target):
    def ask(kind, body):
        """A message of rtnetlink; its error is raised."""
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
            netlink.send(struct.pack("IHHII", 16 + len(body), kind, 1 | 4 | 0x400, 1, 0) + body)
            error = -struct.unpack_from("i", netlink.recv(4096), 16)[0]
            if error:
                raise OSError(error, os.strerror(error))
            return "done"

    def down(name):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
            return fcntl.ioctl(it, 0x8914, struct.pack("16sH", name, 0))  # SIOCSIFFLAGS

    route = struct.pack("BBBBBBBBI", 2, 32, 0, 0, 254, 4, 253, 1, 0) + struct.pack("HH4s", 8, 1, bytes((169, 254, 169, 254))) + struct.pack("HHI", 8, 4, 1)
    address = struct.pack("BBBBI", 2, 32, 0, 0, 3) + struct.pack("HH4s", 8, 2, bytes((10, 0, 0, 1)))
    attempts = [("a route", lambda: ask(24, route)), ("an address", lambda: ask(20, address)), ("a device", lambda: ask(16, struct.pack("BxHiII", 0, 0, 3, 0, 1)))]
    attempts += [("device down", lambda: down(b"eth0")), ("loopback down", lambda: down(b"lo"))]
    attempts += [(name, lambda name=name: open(f"/proc/sys/net/{name}", "w").write("1")) for name in ("ipv4/ip_forward", "ipv4/conf/all/route_localnet", "ipv4/ping_group_range", "core/somaxconn")]
    return got(attempts)


def try_a_network_of_others(target):
    """Into the namespace of a process that is not its own, or into a new one with all rights in
    it."""

    def enter(pid):
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        return call((308, 268)[os.uname().machine == "aarch64"], fd, 0x40000000)

    found = got((f"namespace of {pid}", lambda pid=pid: enter(pid)) for pid in (target["host"], target["agent"], target["victim"]))
    return found + got([("a new one", lambda: call((272, 97)[os.uname().machine == "aarch64"], 0x40000000 | 0x10000000))])
