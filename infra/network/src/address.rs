//! Kinds of addresses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

/// An address as it is reached in the end: what stands for an IPv4 address in IPv6 is that address.
///
/// # Source
///
/// IPv4-mapped addresses: RFC 4291, 2.5.5.2. NAT64: RFC 6052, 2.1 (the well-known prefix), RFC 8215
/// (the local one; /96 only).
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, ..] = v6.segments();
    let octets = v6.octets();
    let embedded = Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]);
    let is_nat64 = (a, b) == (0x64, 0xff9b) && (c == 1 || v6.segments()[2..6] == [0; 4]);
    match v6.to_ipv4_mapped() {
        Some(v4) => IpAddr::V4(v4),
        None if is_nat64 => IpAddr::V4(embedded),
        None => address,
    }
}

/// The reason why an address is not one of the internet; `None` if it is.
///
/// # Source
///
/// The IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890): what is not globally
/// reachable.
pub(crate) fn special(address: IpAddr) -> Option<&'static str> {
    match canonical(address) {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

/// Whether a cloud's machine has its own service there, which gives out its credentials: nobody who
/// names a package means that.
///
/// # Source
///
/// AWS: 169.254.169.254, 169.254.170.2 and fd00:ec2::254; Azure: 169.254.169.254 and 168.63.129.16;
/// Google and Oracle: 169.254.169.254; Alibaba: 100.100.100.200.
pub fn is_of_the_cloud(address: IpAddr) -> bool {
    const ALIBABA: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200));
    let address = canonical(address);
    let is_aws = matches!(address, IpAddr::V6(v6) if v6.segments()[..2] == [0xfd00, 0xec2]);
    is_aws || address == ALIBABA || matches!(special(address), Some("link-local" | "the cloud's"))
}

fn special_v4(v4: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, d] = v4.octets();
    match (a, b, c) {
        (127, ..) => Some("loopback"),
        (169, 254, _) => Some("link-local"),
        // Azure's WireServer: a public address that every machine there has to itself.
        (168, 63, 129) if d == 16 => Some("the cloud's"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Some("private"),
        (0, ..) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
            Some("reserved")
        }
        (224..=239, ..) => Some("multicast"),
        (240.., ..) => Some("reserved"),
        _ => None,
    }
}

fn special_v6(v6: Ipv6Addr) -> Option<&'static str> {
    let [a, b, ..] = v6.segments();
    match a {
        0 if v6.is_loopback() => Some("loopback"),
        0xfe80..=0xfebf => Some("link-local"),
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Some("private"),
        0xff00.. => Some("multicast"),
        // Teredo and the rest of 2001::/23, documentation, and 6to4, which leads to any IPv4
        // address.
        0x2001 if b < 0x200 || b == 0xdb8 => Some("reserved"),
        0x2002 => Some("reserved"),
        0x3fff if b < 0x1000 => Some("reserved"),
        0x2000..=0x3fff => None,
        _ => Some("reserved"),
    }
}

/// The time for which the machine's own addresses are taken to be the same.
const OWN_AGE: Duration = Duration::from_secs(5);

/// The addresses of this machine itself.
#[derive(Default)]
pub(crate) struct Own {
    read: Option<Instant>,
    addresses: Vec<IpAddr>,
}

impl Own {
    pub(crate) fn has(&mut self, address: IpAddr) -> bool {
        if self.read.is_none_or(|read| read.elapsed() > OWN_AGE) {
            match own_addresses() {
                Ok(addresses) => self.addresses = addresses,
                Err(error) => tracing::warn!(%error, "the machine's own addresses cannot be read"),
            }
            self.read = Some(Instant::now());
        }
        self.addresses.contains(&canonical(address))
    }
}

fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: it writes the head of a list, which is freed below.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an entry of the list, whose address is of the family that it says.
        let entry = unsafe { &*next };
        if !entry.ifa_addr.is_null() {
            // SAFETY: as above.
            match i32::from(unsafe { (*entry.ifa_addr).sa_family }) {
                libc::AF_INET => {
                    // SAFETY: as above; it may be aligned for less.
                    let of = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                    addresses.push(IpAddr::V4(Ipv4Addr::from(of.sin_addr.s_addr.to_ne_bytes())));
                }
                libc::AF_INET6 => {
                    // SAFETY: as above.
                    let of = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                    addresses.push(IpAddr::V6(Ipv6Addr::from(of.sin6_addr.s6_addr)));
                }
                _ => {}
            }
        }
        next = entry.ifa_next;
    }
    // SAFETY: the list from above, once.
    unsafe { libc::freeifaddrs(list) };
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cloud_has_for_its_machine_is_known_in_every_form() {
        let of = |text: &str| is_of_the_cloud(text.parse().unwrap());
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "fe80::1",
            "100.100.100.200",
            "168.63.129.16",
        ] {
            assert!(of(address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "1.1.1.1",
            "100.100.100.201",
            "168.63.129.17",
            "fd00::1",
        ] {
            assert!(!of(address), "{address}");
        }
    }

    #[test]
    fn only_what_is_globally_reachable_is_of_the_internet_in_every_form() {
        let of = |text: &str| special(text.parse().unwrap());
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00::1",
            "64:ff9b::808:808",
        ] {
            assert_eq!(of(public), None, "{public}");
        }
        for (kind, addresses) in [
            (
                "loopback",
                &[
                    "127.0.0.1",
                    "127.255.255.254",
                    "::1",
                    "::ffff:127.0.0.1",
                    "64:ff9b::7f00:1",
                ][..],
            ),
            (
                "link-local",
                &[
                    "169.254.169.254",
                    "::ffff:169.254.169.254",
                    "64:ff9b::a9fe:a9fe",
                    "64:ff9b:1::a9fe:a9fe",
                    "fe80::1",
                    "febf::1",
                ],
            ),
            (
                "private",
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "100.64.0.1",
                    "100.100.100.200",
                    "fc00::1",
                    "fd00:ec2::254",
                    "fec0::1",
                    "::ffff:10.1.2.3",
                ],
            ),
            ("the cloud's", &["168.63.129.16", "::ffff:168.63.129.16"]),
            ("multicast", &["224.0.0.1", "239.255.255.250", "ff02::1"]),
            (
                "reserved",
                &[
                    "0.0.0.0",
                    "0.1.2.3",
                    "192.0.0.1",
                    "192.0.2.1",
                    "198.18.0.1",
                    "198.51.100.1",
                    "203.0.113.9",
                    "240.0.0.1",
                    "255.255.255.255",
                    "::",
                    "::7f00:1",
                    "2002:7f00:1::",
                    "2001::1",
                    "2001:db8::1",
                    "3fff::1",
                    "4000::1",
                    "100::1",
                    "5f00::1",
                ],
            ),
        ] {
            for address in addresses {
                assert_eq!(of(address), Some(kind), "{address}");
            }
        }
    }
}
