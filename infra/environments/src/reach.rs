//! Network settings of a session, and what this machine can hold of them.

use crate::{sources, uv};
use contract::{
    Settings,
    network::{Refusal, Refused},
};
use lifecycle::network::{Host, Network, Place};
use network::{Counts, Ends, Rules, Service};
use std::{collections::HashMap, net::SocketAddr, os::fd::OwnedFd};

/// The promises that are not held where a session has this machine's network.
pub(crate) const SHARED: &str = "the network: this machine's loopback, its link-local and private addresses";
/// The same where there are not even namespaces to take the network away.
const OPEN: &str = "the network";
/// And where hosts are named that cannot be let through.
const UNREACHED: &str = "the network of builds; its allowed hosts, which cannot be reached";
/// There builds have this machine's network, as they need their broker.
const OF_BUILDS: &str = "the network of builds";

/// The network settings of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    network: Network,
    hosts: Vec<Host>,
}

impl Reach {
    /// The reach that settings give.
    pub fn of(settings: &Settings) -> Self {
        Self::new(settings.network.value, &settings.allow_hosts.value)
    }

    /// An entry that is no host opens nothing: the control plane has refused it long before.
    pub fn new(network: Network, hosts: &[String]) -> Self {
        Self {
            network,
            hosts: hosts.iter().filter_map(|host| host.parse().ok()).collect(),
        }
    }

    /// Whether it is this machine's own network that is wanted.
    pub fn is_open(&self) -> bool {
        self.network == Network::Open
    }

    /// Whether nothing but the allowed hosts is reached.
    pub(crate) fn is_none(&self) -> bool {
        self.network == Network::None
    }

    /// Whether sockets of the internet are needed where there is no network of its own.
    pub fn needs_sockets(&self) -> bool {
        self.network != Network::None
    }

    /// The rules of its own network. The proxy that this machine reaches the internet by is a part
    /// of the internet.
    pub fn rules(&self) -> Rules {
        let mut hosts = self.hosts.clone();
        if self.network == Network::Internet {
            hosts.extend(
                uv::kept_variables()
                    .iter()
                    .filter_map(|(name, value)| proxy(name, value)),
            );
        }
        Rules {
            network: self.network,
            hosts,
        }
    }

    /// The rules of a build for this session: the same, its broker, and the places of the packages
    /// that its user names by their URLs.
    pub(crate) fn rules_of_a_build(&self, broker: SocketAddr, lines: &[flow::Line]) -> Rules {
        let mut rules = self.rules();
        rules.hosts.push(Host {
            place: Place::of(broker.ip()),
            port: Some(broker.port()),
        });
        rules.hosts.extend(sources::hosts(lines));
        rules
    }

    /// The promises that are not held where a session has this machine's network.
    pub fn not_held(&self, has_filter: bool) -> Option<&'static str> {
        match self.network {
            Network::Open => None,
            Network::Internet => Some(SHARED),
            Network::None if !has_filter => Some(OPEN),
            Network::None if !self.hosts.is_empty() => Some(UNREACHED),
            Network::None => Some(OF_BUILDS),
        }
    }
}

/// Starts the network of a sandbox, with the sockets that its runner has handed over.
///
/// * `doors`: by the gateway's port, the place of this machine that it leads to.
pub fn serve(
    descriptors: Vec<OwnedFd>,
    rules: Rules,
    counts: &Counts,
    doors: HashMap<u16, SocketAddr>,
) -> Result<Service, String> {
    let mut descriptors = descriptors.into_iter();
    let packets = descriptors.next().ok_or("it handed over no network")?;
    let ends = Ends {
        packets,
        sockets: descriptors.collect(),
    };
    network::start(ends, rules, counts.clone(), doors).map_err(|error| error.to_string())
}

/// The host of a variable that names a proxy.
fn proxy(name: &str, value: &str) -> Option<Host> {
    let name = name.to_ascii_uppercase();
    if !name.ends_with("_PROXY") || name == "NO_PROXY" {
        return None;
    }
    let place = value.split_once("://").map_or(value, |(_, rest)| rest);
    let place = place.split('/').next()?;
    place.rsplit('@').next()?.parse().ok()
}

/// Refused connections, as they are reported.
pub fn report_refused(counts: &Counts) -> Refused {
    let counts = counts.read();
    Refused {
        total: counts.total(),
        others: counts.others,
        by: counts
            .by
            .into_iter()
            .map(|((to, why), times)| Refusal { to, why, times })
            .collect(),
    }
}

/// The sentence of a failed install about destinations that were refused meanwhile, if any.
pub(crate) fn refused_since(before: &network::Refused, now: &network::Refused) -> String {
    let is_new = |(key, times): &(&(String, String), &u64)| before.by.get(*key).is_none_or(|had| had < *times);
    let refused: Vec<_> = now
        .by
        .iter()
        .filter(is_new)
        .map(|((to, why), _)| format!("{to} ({why})"))
        .collect();
    match refused.is_empty() {
        true => String::new(),
        false => format!(
            " Meanwhile the session's network refused {}: allow what its packages need.",
            refused.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_install_says_what_the_network_refused_meanwhile() {
        let refused = |times: &[(&str, u64)]| network::Refused {
            by: times
                .iter()
                .map(|(to, times)| (((*to).to_owned(), "not allowed".to_owned()), *times))
                .collect(),
            others: 0,
        };
        let before = refused(&[("10.0.0.1:80", 2)]);
        assert_eq!(refused_since(&before, &before), "");
        assert_eq!(
            refused_since(&before, &refused(&[("10.0.0.1:80", 2), ("files.example:443", 1)])),
            " Meanwhile the session's network refused files.example:443 (not allowed): allow what its packages need."
        );
    }

    #[test]
    fn the_proxy_of_the_machine_is_a_part_of_the_internet() {
        let of = |name: &str, value: &str| proxy(name, value).map(|host| host.to_string());
        assert_eq!(
            of("https_proxy", "http://ann:pw@proxy.corp:3128/"),
            Some("proxy.corp:3128".into())
        );
        assert_eq!(of("ALL_PROXY", "10.0.0.1:80"), Some("10.0.0.1:80".into()));
        assert_eq!(of("NO_PROXY", "localhost"), None);
        assert_eq!(of("PATH", "/bin"), None);
    }
}
