//! The network settings of a session.

use crate::address::{Own, canonical, special};
use lifecycle::network::{Host, Network};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

/// The destinations that may be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub network: Network,
    pub hosts: Vec<Host>,
}

/// The most addresses that are kept with their names.
const MOST_NAMES: usize = 4096;

/// The names of addresses, as the resolver answered them to this session.
#[derive(Default)]
pub(crate) struct Names {
    of: HashMap<IpAddr, Vec<String>>,
    order: VecDeque<IpAddr>,
}

impl Names {
    /// The most names of one address: those of a content network are many.
    const MOST_OF_ONE: usize = 64;

    pub(crate) fn learn(&mut self, address: IpAddr, name: &str) {
        let address = canonical(address);
        if !self.of.contains_key(&address) {
            if self.order.len() >= MOST_NAMES
                && let Some(oldest) = self.order.pop_front()
            {
                self.of.remove(&oldest);
            }
            self.order.push_back(address);
        }
        let names = self.of.entry(address).or_default();
        if let Some(known) = names.iter().position(|known| known == name) {
            names.remove(known);
        }
        if names.len() >= Self::MOST_OF_ONE {
            names.remove(0);
        }
        names.push(name.to_owned());
    }

    fn of(&self, address: IpAddr) -> &[String] {
        self.of.get(&address).map_or(&[], Vec::as_slice)
    }
}

/// The rules, and what they are applied with.
#[derive(Default)]
pub(crate) struct Gate {
    rules: Rules,
    pub(crate) names: Names,
    own: Own,
}

impl Gate {
    pub(crate) fn set(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Whether this name may be asked for: without a network only those that may be reached, as a
    /// question carries words out, too.
    pub(crate) fn resolves(&self, name: &str) -> bool {
        self.rules.network != Network::None || self.rules.hosts.iter().any(|host| host.place.has_name(name))
    }

    /// The target of a connection to `to`.
    ///
    /// A host that is named by its address is reached whatever it is. One that is named by its name
    /// is not if the name leads to this machine or to its cloud's metadata: whoever has the name in
    /// their hands would choose.
    ///
    /// # Errors
    ///
    /// Why it goes nowhere.
    pub(crate) fn pass(&mut self, to: SocketAddr) -> Result<SocketAddr, &'static str> {
        let address = canonical(to.ip());
        let to = SocketAddr::new(address, to.port());
        let special = special(address);
        let own = self.own.has(address);
        let is_port = |host: &&Host| host.port.is_none_or(|port| port == to.port());
        let mut named = self.rules.hosts.iter().filter(is_port);
        if named.clone().any(|host| host.place.has_address(address)) {
            return Ok(to);
        }
        let names = self.names.of(address);
        let is_named = named.any(|host| names.iter().any(|name| host.place.has_name(name)));
        if is_named && !own && matches!(special, None | Some("private" | "reserved")) {
            return Ok(to);
        }
        match (self.rules.network, special) {
            (Network::Open, _) => Ok(to),
            (_, Some(kind)) => Err(kind),
            (_, None) if own => Err("this machine's own"),
            (Network::Internet, None) => Ok(to),
            (Network::None, None) => Err("not named"),
        }
    }

    /// The name of `to`.
    pub(crate) fn name_of(&self, to: SocketAddr) -> String {
        match self.names.of(canonical(to.ip())).last() {
            Some(name) => format!("{name}:{} ({})", to.port(), to.ip()),
            None => to.to_string(),
        }
    }
}

/// Counts of refused connections, read while they grow. A session's networks, one for each of its
/// sandboxes, count together.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<Refused>>);

impl Counts {
    pub fn read(&self) -> Refused {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self, to: String, why: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count(to, why);
    }
}

/// The most destinations that are counted by themselves.
const MOST_COUNTED: usize = 32;

/// Refused connections and how often: by destination, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    pub by: BTreeMap<(String, String), u64>,
    /// The count beyond these.
    pub others: u64,
}

impl Refused {
    fn count(&mut self, to: String, why: &str) {
        let key = (to, why.to_owned());
        if self.by.len() < MOST_COUNTED || self.by.contains_key(&key) {
            *self.by.entry(key).or_default() += 1;
        } else {
            self.others += 1;
        }
    }

    pub fn total(&self) -> u64 {
        self.by.values().sum::<u64>() + self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(network: Network, hosts: &[&str]) -> Gate {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let mut gate = Gate::default();
        gate.set(Rules { network, hosts });
        gate
    }

    fn passes(gate: &mut Gate, to: &str) -> bool {
        gate.pass(to.parse().unwrap()).is_ok()
    }

    #[test]
    fn the_internet_is_open_and_what_is_not_the_internet_is_not() {
        let mut gate = gate(Network::Internet, &[]);
        assert!(passes(&mut gate, "1.1.1.1:443") && passes(&mut gate, "[2606:4700::1]:443"));
        for to in [
            "127.0.0.1:80",
            "169.254.169.254:80",
            "10.0.0.1:80",
            "[::1]:80",
            "[::ffff:10.0.0.1]:80",
            "0.0.0.0:80",
        ] {
            assert!(!passes(&mut gate, to), "{to}");
        }
    }

    #[test]
    fn a_host_named_by_address_is_reached_on_its_port_alone() {
        let mut gate = gate(Network::None, &["127.0.0.1:8080", "10.1.0.0/16"]);
        assert!(
            passes(&mut gate, "127.0.0.1:8080")
                && passes(&mut gate, "[::ffff:127.0.0.1]:8080")
                && passes(&mut gate, "10.1.2.3:1")
        );
        assert!(
            !passes(&mut gate, "127.0.0.1:8081")
                && !passes(&mut gate, "10.2.0.1:1")
                && !passes(&mut gate, "1.1.1.1:8080")
        );
    }

    #[test]
    fn a_name_opens_where_it_leads_but_never_this_machine() {
        let mut gate = gate(Network::None, &["corp.example:443"]);
        assert!(gate.resolves("corp.example") && !gate.resolves("other.example"));
        for address in ["10.0.0.7", "93.184.215.14", "127.0.0.1", "169.254.169.254", "::1"] {
            gate.names.learn(address.parse().unwrap(), "corp.example");
        }
        gate.names.learn("1.1.1.1".parse().unwrap(), "other.example");
        assert!(passes(&mut gate, "10.0.0.7:443") && passes(&mut gate, "93.184.215.14:443"));
        for to in [
            "10.0.0.7:80",
            "127.0.0.1:443",
            "169.254.169.254:443",
            "[::1]:443",
            "1.1.1.1:443",
            "10.0.0.8:443",
        ] {
            assert!(!passes(&mut gate, to), "{to}");
        }
    }

    #[test]
    fn a_public_name_that_leads_to_a_private_address_is_refused() {
        let mut gate = gate(Network::Internet, &[]);
        gate.names.learn("192.168.0.1".parse().unwrap(), "rebind.example");
        assert_eq!(gate.pass("192.168.0.1:80".parse().unwrap()), Err("private"));
        assert_eq!(
            gate.name_of("192.168.0.1:80".parse().unwrap()),
            "rebind.example:80 (192.168.0.1)"
        );
    }

    #[test]
    fn what_is_refused_is_counted_within_bounds() {
        let mut refused = Refused::default();
        for n in 0..1000 {
            refused.count(format!("10.0.0.1:{n}"), "private");
        }
        refused.count("10.0.0.1:0".into(), "private");
        assert_eq!((refused.by.len(), refused.total()), (MOST_COUNTED, 1001));
    }
}
