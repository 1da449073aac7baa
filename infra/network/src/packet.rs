//! IP packets, read and written.

use smoltcp::{
    phy::{Checksum, ChecksumCapabilities},
    wire::{
        Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, IpAddress,
        IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpPacket, TcpRepr, UdpPacket, UdpRepr,
    },
};
use std::net::{IpAddr, SocketAddr};

/// The largest packet on the link to a session. The link is memory: large packets are few.
pub(crate) const MTU: usize = 65_520;

/// The link is memory, so what comes has no checksum yet; what is sent is checked by the session's
/// kernel.
pub(crate) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::default();
    checksums.ipv4 = Checksum::Tx;
    checksums.tcp = Checksum::Tx;
    checksums.udp = Checksum::Tx;
    checksums.icmpv4 = Checksum::Tx;
    checksums.icmpv6 = Checksum::Tx;
    checksums
}

/// Two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pair {
    /// The session's end.
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// A packet from the session.
pub(crate) enum Kind<'a> {
    Tcp { pair: Pair, is_first: bool, is_reset: bool },
    Udp { pair: Pair, data: &'a [u8] },
    Other,
}

/// Reads a packet from the session. Nothing of it is believed.
pub(crate) fn read(packet: &[u8]) -> Kind<'_> {
    read_some(packet).unwrap_or(Kind::Other)
}

fn read_some(packet: &[u8]) -> Option<Kind<'_>> {
    let (from, to, protocol, payload): (IpAddr, IpAddr, _, _) = match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            if ip.more_frags() || ip.frag_offset() != 0 {
                return None;
            }
            (
                ip.src_addr().into(),
                ip.dst_addr().into(),
                ip.next_header(),
                ip.payload(),
            )
        }
        6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            (
                ip.src_addr().into(),
                ip.dst_addr().into(),
                ip.next_header(),
                ip.payload(),
            )
        }
        _ => return None,
    };
    let pair = |a: u16, b: u16| Pair {
        from: SocketAddr::new(from, a),
        to: SocketAddr::new(to, b),
    };
    match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            Some(Kind::Tcp {
                pair: pair(tcp.src_port(), tcp.dst_port()),
                is_first: tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin(),
                is_reset: tcp.rst(),
            })
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            Some(Kind::Udp {
                pair: pair(udp.src_port(), udp.dst_port()),
                data: udp.payload(),
            })
        }
        _ => None,
    }
}

/// The kind of an unreached destination, as the sender is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreached {
    /// The rules do not let it be reached.
    Prohibited,
    Host,
    /// No process listens there.
    Port,
}

/// The ICMP message that answers `packet`. `None` for a packet that is none.
pub(crate) fn unreachable(packet: &[u8], why: Unreached) -> Option<Vec<u8>> {
    if packet.first()? >> 4 == 4 {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let mut checksums = checksums();
        checksums.ipv4 = Checksum::None;
        let header = Ipv4Repr::parse(&ip, &checksums).ok()?;
        let message = Icmpv4Repr::DstUnreachable {
            reason: match why {
                Unreached::Prohibited => Icmpv4DstUnreachable::CommProhibited,
                Unreached::Host => Icmpv4DstUnreachable::HostUnreachable,
                Unreached::Port => Icmpv4DstUnreachable::PortUnreachable,
            },
            header,
            data: &ip.payload()[..ip.payload().len().min(500)],
        };
        let outer = Ipv4Repr {
            src_addr: ip.dst_addr(),
            dst_addr: ip.src_addr(),
            next_header: IpProtocol::Icmp,
            payload_len: message.buffer_len(),
            hop_limit: 64,
        };
        let mut answer = vec![0; outer.buffer_len() + message.buffer_len()];
        outer.emit(&mut Ipv4Packet::new_unchecked(&mut answer[..]), &self::checksums());
        message.emit(
            &mut Icmpv4Packet::new_unchecked(&mut answer[outer.buffer_len()..]),
            &self::checksums(),
        );
        Some(answer)
    } else {
        let ip = Ipv6Packet::new_checked(packet).ok()?;
        let header = Ipv6Repr::parse(&ip).ok()?;
        let message = Icmpv6Repr::DstUnreachable {
            reason: match why {
                Unreached::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
                Unreached::Host => Icmpv6DstUnreachable::AddrUnreachable,
                Unreached::Port => Icmpv6DstUnreachable::PortUnreachable,
            },
            header,
            data: &ip.payload()[..ip.payload().len().min(1000)],
        };
        let outer = Ipv6Repr {
            src_addr: ip.dst_addr(),
            dst_addr: ip.src_addr(),
            next_header: IpProtocol::Icmpv6,
            payload_len: message.buffer_len(),
            hop_limit: 64,
        };
        let mut answer = vec![0; outer.buffer_len() + message.buffer_len()];
        outer.emit(&mut Ipv6Packet::new_unchecked(&mut answer[..]));
        message.emit(
            &outer.src_addr,
            &outer.dst_addr,
            &mut Icmpv6Packet::new_unchecked(&mut answer[outer.buffer_len()..]),
            &self::checksums(),
        );
        Some(answer)
    }
}

/// The datagram that answers one of `pair`.
pub(crate) fn datagram(pair: Pair, data: &[u8]) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: pair.to.port(),
        dst_port: pair.from.port(),
    };
    let length = udp.header_len() + data.len();
    with_header(pair, IpProtocol::Udp, length, |buffer, from, to| {
        udp.emit(
            &mut UdpPacket::new_unchecked(buffer),
            from,
            to,
            data.len(),
            |payload| payload.copy_from_slice(data),
            &checksums(),
        );
    })
}

/// The refusal of a connection: the reset that answers `packet`. `None` for one that is answered by
/// nothing.
pub(crate) fn reset(packet: &[u8], pair: Pair) -> Option<Vec<u8>> {
    let payload = match packet.first()? >> 4 {
        4 => Ipv4Packet::new_checked(packet).ok()?.payload(),
        _ => Ipv6Packet::new_checked(packet).ok()?.payload(),
    };
    let tcp = TcpPacket::new_checked(payload).ok()?;
    if tcp.rst() {
        return None;
    }
    let mut ignored = ChecksumCapabilities::ignored();
    ignored.ipv4 = Checksum::None;
    let asked = TcpRepr::parse(&tcp, &pair.from.ip().into(), &pair.to.ip().into(), &ignored).ok()?;
    let answer = TcpRepr {
        src_port: pair.to.port(),
        dst_port: pair.from.port(),
        control: smoltcp::wire::TcpControl::Rst,
        seq_number: asked.ack_number.unwrap_or_default(),
        ack_number: asked
            .ack_number
            .is_none()
            .then(|| asked.seq_number + asked.segment_len()),
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    Some(with_header(
        pair,
        IpProtocol::Tcp,
        answer.buffer_len(),
        |buffer, from, to| {
            answer.emit(&mut TcpPacket::new_unchecked(buffer), from, to, &checksums());
        },
    ))
}

/// A packet to the session, from the far end of `pair`.
fn with_header(
    pair: Pair,
    next_header: IpProtocol,
    payload_len: usize,
    write: impl FnOnce(&mut [u8], &IpAddress, &IpAddress),
) -> Vec<u8> {
    let (from, to) = (pair.to.ip(), pair.from.ip());
    match (from, to) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let ip = Ipv4Repr {
                src_addr,
                dst_addr,
                next_header,
                payload_len,
                hop_limit: 64,
            };
            let mut packet = vec![0; ip.buffer_len() + payload_len];
            ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet[..]), &checksums());
            write(&mut packet[ip.buffer_len()..], &from.into(), &to.into());
            packet
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let ip = Ipv6Repr {
                src_addr,
                dst_addr,
                next_header,
                payload_len,
                hop_limit: 64,
            };
            let mut packet = vec![0; ip.buffer_len() + payload_len];
            ip.emit(&mut Ipv6Packet::new_unchecked(&mut packet[..]));
            write(&mut packet[ip.buffer_len()..], &from.into(), &to.into());
            packet
        }
        // Both ends are of one packet.
        _ => Vec::new(),
    }
}
