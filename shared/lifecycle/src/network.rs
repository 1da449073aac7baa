//! Network settings of a session.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// Which network a session has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "wire", serde(rename_all = "kebab-case"))]
pub enum Network {
    /// None but the hosts that are named.
    None,
    /// The internet: neither the machine's loopback, nor link-local or private addresses.
    #[default]
    Internet,
    /// The machine's own.
    Open,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Internet => "internet",
            Self::Open => "open",
        })
    }
}

/// A host that may be reached, whatever the network is: a name or an address, with a port or all
/// ports.
///
/// A name covers itself alone; `*.example.org` covers all below `example.org`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    pub place: Place,
    /// `None`: all ports.
    pub port: Option<u16>,
}

/// The place of a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In lower case, without a dot at its end.
    Name(String),
    /// The addresses whose first bits are those of this one.
    Addresses { first: IpAddr, bits: u32 },
}

/// The pattern of a host's text.
pub const HOST: &str = "a name or an address, with a port or without: api.example.org, *.example.org:443, 10.1.2.3:8080, 10.1.0.0/16, [fd00::1]:80";

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no host: write {HOST}");
        let (place, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, "")) => (address, None),
            Some((address, port)) => (address, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            // An address of version 6 without brackets has no port.
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((place, port)) => (place, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?)
            }
            Some(_) => return Err(wrong()),
            None => None,
        };
        let (address, bits) = match place.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (place, None),
        };
        let place = match (address.parse::<IpAddr>(), bits) {
            (Ok(first), bits) => {
                let most = if first.is_ipv4() { 32 } else { 128 };
                let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
                if bits > most {
                    return Err(wrong());
                }
                Place::Addresses { first, bits }
            }
            (Err(_), None) => Place::Name(name(place).ok_or_else(wrong)?),
            (Err(_), Some(_)) => return Err(wrong()),
        };
        // Inside it is a listener of the session's own, port by port.
        let (is_loopback, is_one) = match &place {
            Place::Name(name) => (name == "localhost", true),
            Place::Addresses { first, .. } => (first.is_loopback(), place == Place::of(*first)),
        };
        if is_loopback && (port.is_none() || !is_one) {
            let address = if place == Place::of(Ipv6Addr::LOCALHOST.into()) {
                "[::1]"
            } else {
                "127.0.0.1"
            };
            return Err(format!(
                "{text:?} is this machine itself, where one address and a port have to be named: write {address}:8080 for port 8080"
            ));
        }
        Ok(Self { place, port })
    }
}

/// A name as names are compared; `None` if it is none.
///
/// # Source
///
/// RFC 1123, 2.1: labels of letters, digits and hyphens, of 1 to 63 characters, 253 together. `_`
/// is seen in practice.
fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels = text.strip_prefix("*.").unwrap_or(&text);
    let last = labels.rsplit('.').next()?;
    // What ends in a number is an address that is written wrong (RFC 3696, 2).
    let is_good =
        text.len() <= 253 && labels.split('.').all(is_label) && last.bytes().any(|byte| !byte.is_ascii_digit());
    is_good.then_some(text)
}

impl Place {
    /// One address.
    pub fn of(first: IpAddr) -> Self {
        let bits = if first.is_ipv4() { 32 } else { 128 };
        Self::Addresses { first, bits }
    }

    /// Whether it is this name, which is in lower case.
    pub fn has_name(&self, name: &str) -> bool {
        match self {
            Self::Name(mine) => match mine.strip_prefix("*.") {
                Some(below) => name.strip_suffix(below).is_some_and(|rest| rest.ends_with('.')),
                None => mine == name,
            },
            Self::Addresses { .. } => false,
        }
    }

    pub fn has_address(&self, address: IpAddr) -> bool {
        match (self, address) {
            (
                Self::Addresses {
                    first: IpAddr::V4(first),
                    bits,
                },
                IpAddr::V4(address),
            ) => {
                let rest = 32 - bits;
                u64::from(first.to_bits()) >> rest == u64::from(address.to_bits()) >> rest
            }
            (
                Self::Addresses {
                    first: IpAddr::V6(first),
                    bits,
                },
                IpAddr::V6(address),
            ) => {
                let start = |address: &Ipv6Addr| address.to_bits().checked_shr(128 - bits).unwrap_or(0);
                start(first) == start(&address)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        match &self.place {
            Place::Name(name) => write!(f, "{name}{port}"),
            Place::Addresses { first, bits } => {
                let most = if first.is_ipv4() { 32 } else { 128 };
                let bits = if *bits == most {
                    String::new()
                } else {
                    format!("/{bits}")
                };
                match first {
                    IpAddr::V6(_) if self.port.is_some() => write!(f, "[{first}{bits}]{port}"),
                    _ => write!(f, "{first}{bits}{port}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_addresses_with_a_port_or_without() {
        for (text, same) in [
            ("PyPI.org", "pypi.org"),
            ("pypi.org.:443", "pypi.org:443"),
            ("*.example.org:80", "*.example.org:80"),
            ("10.1.2.3:8080", "10.1.2.3:8080"),
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("fd00::1", "fd00::1"),
            ("[fd00::1]:80", "[fd00::1]:80"),
            ("[fd00::/8]:80", "[fd00::/8]:80"),
            ("localhost:1", "localhost:1"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), same);
        }
        for (text, remedy) in [
            ("127.0.0.1", "127.0.0.1:8080"),
            ("localhost", "127.0.0.1:8080"),
            ("::1", "[::1]:8080"),
            ("127.0.0.0/8", "127.0.0.1:8080"),
        ] {
            let said = text.parse::<Host>().unwrap_err();
            assert!(said.contains(&format!("write {remedy} ")), "{said}");
            assert!(remedy.parse::<Host>().is_ok(), "the remedy works");
        }
        for wrong in [
            "",
            ".",
            "a b",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "-a",
            "a..b",
            "*",
            "*.",
            "a.*",
            "http://a",
            "a/8",
            "10.0.0.0/33",
            "10.1.2",
            "127.1",
            "0x7f.1",
            "[fd00::1",
            "[fd00::1]80",
            "a#b",
            "é.org",
            "a\n",
        ] {
            assert!(wrong.parse::<Host>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_host_covers_what_it_names_and_nothing_beside() {
        let place = |text: &str| text.parse::<Host>().unwrap().place;
        assert!(place("a.org").has_name("a.org") && !place("a.org").has_name("b.a.org"));
        assert!(
            place("*.a.org").has_name("c.b.a.org")
                && !place("*.a.org").has_name("a.org")
                && !place("*.a.org").has_name("ba.org")
        );
        let has = |text: &str, address: &str| place(text).has_address(address.parse().unwrap());
        assert!(has("10.1.0.0/16", "10.1.255.255") && !has("10.1.0.0/16", "10.2.0.0"));
        assert!(has("0.0.0.0/0", "255.1.2.3") && has("::/0", "ff::1") && !has("0.0.0.0/0", "::1"));
        assert!(
            has("fd00::/8", "fdff::1")
                && !has("fd00::/8", "fc00::1")
                && has("[::1]:9", "::1")
                && !has("[::1]:9", "::2")
        );
    }
}
