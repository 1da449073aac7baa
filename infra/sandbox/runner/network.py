"""Gives a network namespace its one device, whose far end is a socket for the agent."""

import os
import socket
import struct

# The device, and its far end. The agent knows the addresses, too.
DEVICE, FAR = 3, 2
MAC, FAR_MAC = bytes((2, 0, 0, 0, 0, 1)), bytes((2, 0, 0, 0, 0, 2))
MTU = 65520
GATEWAY, ADDRESS, ADDRESS_V6 = "192.0.0.1", "192.0.0.2", "fd70:6673:6573:7369::2"
# How many addresses of the machine's loopback can be opened to a session in its life.
SOCKETS = ((socket.AF_INET, 16), (socket.AF_INET6, 8))

# From linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h and linux/if_packet.h.
RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 20, 24
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x200, 0x400
NLMSG_ERROR = 2
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 3, 4, 18, 1, 2, 1
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 2
RTA_OIF, RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST, RT_SCOPE_LINK = 4, 254, 4, 1, 253
IFF_UP, IFF_NOARP = 1, 0x80
SOL_PACKET, PACKET_IGNORE_OUTGOING, ETH_P_ALL = 263, 23, 3


def attribute(kind, value):
    return struct.pack("HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def link(index, flags, mask, *attributes):
    return struct.pack("BxHiII", 0, 0, index, flags, mask) + b"".join(attributes)


def tell_kernel(messages):
    """Sends messages of rtnetlink, and raises the first error."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        packed = b""
        for number, (kind, flags, body) in enumerate(messages):
            packed += struct.pack("IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, number, 0) + body
        netlink.send(packed)
        answered = 0
        while answered < len(messages):
            answer = netlink.recv(1 << 16)
            while answer:
                length, kind = struct.unpack_from("IH", answer)
                if kind == NLMSG_ERROR:
                    answered += 1
                    error = -struct.unpack_from("i", answer, 16)[0]
                    if error:
                        raise OSError(error, f"network: {os.strerror(error)}")
                answer = answer[(length + 3) & ~3 :]


def has_ipv6():
    """Whether this machine reaches anything by version 6: it has a default route that leads
    somewhere."""
    try:
        with open("/proc/net/ipv6_route") as file:
            routes = [line.split() for line in file]
    except OSError:
        return False
    return any(route[0] == "0" * 32 and route[1] == "00" and route[-1] != "lo" for route in routes)


def resolv_conf():
    """Returns the machine's `resolv.conf` with the agent in the place of its name servers."""
    try:
        with open("/etc/resolv.conf") as file:
            kept = [line for line in file if line.split()[:1] not in ([], ["nameserver"])]
    except OSError:
        kept = []
    return "".join([f"nameserver {GATEWAY}\n", *kept])


def make_device(ipv6):
    """Makes the device. The sockets that the agent needs of this namespace: the device's far end,
    and some for loopback."""
    up = IFF_UP | IFF_NOARP
    peer = link(FAR, 0, 0, attribute(IFLA_IFNAME, b"far\0"), attribute(IFLA_MTU, struct.pack("I", MTU)), attribute(IFLA_ADDRESS, FAR_MAC))
    veth = attribute(IFLA_INFO_KIND, b"veth") + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer))
    device = (
        attribute(IFLA_IFNAME, b"eth0\0"),
        attribute(IFLA_MTU, struct.pack("I", MTU)),
        attribute(IFLA_ADDRESS, MAC),
        attribute(IFLA_LINKINFO, veth),
    )
    new = NLM_F_CREATE | NLM_F_EXCL
    messages = [
        (RTM_NEWLINK, 0, link(1, IFF_UP, IFF_UP)),
        (RTM_NEWLINK, new, link(DEVICE, up, up, *device)),
        (RTM_NEWLINK, 0, link(FAR, up, up)),
    ]
    addresses = [(socket.AF_INET, ADDRESS, 32)] + ([(socket.AF_INET6, ADDRESS_V6, 128)] if ipv6 else [])
    for family, text, bits in addresses:
        address = socket.inet_pton(family, text)
        own = struct.pack("BBBBI", family, bits, IFA_F_NODAD, 0, DEVICE) + attribute(IFA_LOCAL, address) + attribute(IFA_ADDRESS, address)
        route = struct.pack("BBBBBBBBI", family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, 0)
        messages += [(RTM_NEWADDR, new, own), (RTM_NEWROUTE, new, route + attribute(RTA_OIF, struct.pack("I", DEVICE)))]
    tell_kernel(messages)
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    packets.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    packets.bind(("far", ETH_P_ALL))
    sockets = [socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) for family, count in SOCKETS for _ in range(count)]
    return [packets, *sockets]


def hand_over(control, sockets):
    """Gives the sockets to the agent, and keeps none."""
    socket.send_fds(control.socket, [b'{"network": true}\n'], [each.fileno() for each in sockets])
    for each in sockets:
        each.close()
