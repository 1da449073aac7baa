//! Requests to package indexes: with the feed's credential to the feed's own host, and to nobody
//! else.

use crate::{Fault, Feed, Host};
use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use ureq::{
    Agent, Body, Proxy,
    config::Config,
    http::{HeaderMap, Response, Uri, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};
use url::Url;

/// The most redirects of one request.
const MOST_REDIRECTS: usize = 10;

/// The machine's way to the network, by its owner's own environment variables.
#[derive(Clone, Debug)]
pub struct Network {
    /// Certificates that are trusted; `None` is those of Mozilla.
    pub roots: Roots,
    /// Proxies for `http` and for `https`.
    pub http_proxy: Option<String>,
    pub https_proxy: Option<String>,
    /// Hosts that are reached without one.
    pub no_proxy: Vec<String>,
    /// The longest time that a connection, an answer or the next part of one may take.
    pub timeout: Duration,
    /// The number of times that a request is sent again.
    pub retries: u32,
    /// Whether only what was downloaded before is served.
    pub is_offline: bool,
}

/// The authorities of certificates that are trusted.
#[derive(Clone, Debug)]
pub enum Roots {
    Mozilla,
    /// Those of the machine.
    System,
    /// Those in these PEM texts.
    Pem(Vec<Vec<u8>>),
}

/// The clients for one broker.
pub(crate) struct Upstream {
    network: Network,
    /// Hosts whose certificate is not looked at.
    insecure: Vec<Host>,
    /// By scheme, and whether certificates are looked at.
    agents: [Agent; 4],
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstream")
    }
}

/// An answer, and where it was found at last.
pub(crate) struct Found {
    pub(crate) url: Url,
    pub(crate) answer: Response<Body>,
}

impl Upstream {
    pub(crate) fn new(network: Network, insecure: Vec<Host>, feeds: &[Feed]) -> Result<Self, Fault> {
        let proxies = [&network.http_proxy, &network.https_proxy]
            .map(|proxy| proxy.as_deref().map(|url| proxy_of(url, &network)));
        let mut near: Vec<HostPort> = feeds.iter().filter_map(|feed| place(&feed.url)).collect();
        let proxy_urls = proxies
            .iter()
            .flatten()
            .flatten()
            .map(|proxy| (proxy.host().to_owned(), proxy.port()));
        near.extend(proxy_urls);
        let roots = roots(&network.roots);
        let agent = |proxy: &Option<Result<Proxy, Fault>>, is_checked: bool| -> Result<Agent, Fault> {
            let tls = TlsConfig::builder()
                .root_certs(roots.clone())
                .disable_verification(!is_checked)
                .build();
            Ok(client(
                proxy.clone().transpose()?,
                tls,
                near.clone(),
                network.timeout,
                network.timeout,
            ))
        };
        let [http, https] = &proxies;
        let agents = [
            agent(http, true)?,
            agent(https, true)?,
            agent(http, false)?,
            agent(https, false)?,
        ];
        Ok(Self {
            network,
            insecure,
            agents,
        })
    }

    /// Whether the certificate of its host is looked at.
    pub(crate) fn is_checked(&self, url: &Url) -> bool {
        !self.insecure.iter().any(|host| host.is_of(url))
    }

    /// Asks for a URL on behalf of a feed, and follows where the answer sends, without the
    /// credential if that is elsewhere.
    ///
    /// # Errors
    ///
    /// The host cannot be reached or is not trusted. Answers of any other status than 5xx are
    /// answers.
    pub(crate) fn ask(&self, feed: &Feed, url: &Url, is_head: bool, headers: &HeaderMap) -> Result<Found, Fault> {
        if self.network.is_offline {
            return Err(Fault::unreachable(url, "the network was disabled by UV_OFFLINE"));
        }
        let mut wait = Duration::from_millis(250);
        for attempt in 0.. {
            let answer = self.follow(feed, url, is_head, headers);
            let is_last = attempt >= self.network.retries;
            match answer {
                Ok(found) if found.answer.status().is_server_error() || found.answer.status() == 429 => {
                    if is_last {
                        let why = format!("it answers with {}", found.answer.status());
                        return Err(Fault::unreachable(&found.url, &why));
                    }
                }
                Err(Fault::Unreachable { .. }) if !is_last => {}
                answer => return answer,
            }
            std::thread::sleep(wait);
            wait *= 2;
        }
        Err(Fault::unreachable(url, "it was never asked"))
    }

    fn follow(&self, feed: &Feed, url: &Url, is_head: bool, headers: &HeaderMap) -> Result<Found, Fault> {
        let mut url = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.once(feed, &url, is_head, headers)?;
            let status = answer.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(Found { url, answer });
            }
            let place = answer
                .headers()
                .get(header::LOCATION)
                .and_then(|place| place.to_str().ok());
            let next = place.and_then(|place| url.join(place).ok());
            let next = next.ok_or_else(|| Fault::unreachable(&url, "it sends elsewhere, and does not say where"))?;
            if !is_allowed(&url, &next) {
                return Err(Fault::unreachable(
                    &url,
                    &format!("it sends to {}, which is not followed", to_shown(&next)),
                ));
            }
            url = next;
        }
        Err(Fault::unreachable(&url, "it sends from one place to the next"))
    }

    fn once(&self, feed: &Feed, url: &Url, is_head: bool, headers: &HeaderMap) -> Result<Response<Body>, Fault> {
        let is_checked = self.is_checked(url);
        let agent = usize::from(url.scheme() == "https") + if is_checked { 0 } else { 2 };
        let mut bare = url.clone();
        // A link or a redirect has no credential of its own to give.
        let _ = (bare.set_username(""), bare.set_password(None));
        bare.set_fragment(None);
        let agent = &self.agents[agent];
        let mut request = if is_head {
            agent.head(bare.as_str())
        } else {
            agent.get(bare.as_str())
        };
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(credential) = &feed.credential
            && feed.url.origin() == url.origin()
        {
            request = request.header(header::AUTHORIZATION, credential.header());
        }
        request.call().map_err(|error| fault(url, &error))
    }
}

fn roots(roots: &Roots) -> RootCerts {
    match roots {
        Roots::Mozilla => RootCerts::WebPki,
        Roots::System => RootCerts::PlatformVerifier,
        Roots::Pem(texts) => {
            let items = texts.iter().flat_map(|text| parse_pem(text));
            let certificates = items.filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            RootCerts::Specific(Arc::new(certificates.collect::<Vec<Certificate<'static>>>()))
        }
    }
}

/// A client that follows nothing, and reaches the machine's own network at the places that are
/// `near` alone.
///
/// * `patience`: how long an answer or the next part of one may take.
fn client(
    proxy: Option<Proxy>,
    tls: TlsConfig,
    near: Vec<HostPort>,
    connecting: Duration,
    patience: Duration,
) -> Agent {
    let config = Config::builder()
        .tls_config(tls)
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent("pfsession")
        .max_idle_connections(64)
        .max_idle_connections_per_host(64)
        .timeout_connect(Some(connecting))
        .timeout_recv_response(Some(patience))
        .timeout_per_read(Some(patience))
        .build();
    let resolver = Reachable {
        near,
        known: Mutex::default(),
        resolver: DefaultResolver::default(),
    };
    Agent::with_parts(config, DefaultConnector::default(), resolver)
}

fn place(url: &Url) -> Option<HostPort> {
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

/// A client for one host, which may be in the machine's own network.
///
/// # Errors
///
/// The proxy's URL is not valid.
pub(crate) fn client_of(network: &Network, url: &Url, patience: Duration) -> Result<Agent, Fault> {
    let proxy = match url.scheme() {
        "https" => &network.https_proxy,
        _ => &network.http_proxy,
    };
    let proxy = proxy.as_deref().map(|proxy| proxy_of(proxy, network)).transpose()?;
    let by_proxy = proxy.as_ref().map(|proxy| (proxy.host().to_owned(), proxy.port()));
    let near = place(url).into_iter().chain(by_proxy).collect();
    let tls = TlsConfig::builder().root_certs(roots(&network.roots)).build();
    Ok(client(proxy, tls, near, network.timeout, patience))
}

/// Whether a place may send to another: never off the network, and never from a connection that is
/// kept secret to one that is not.
fn is_allowed(from: &Url, to: &Url) -> bool {
    matches!((from.scheme(), to.scheme()), (_, "https") | ("http", "http"))
}

fn proxy_of(url: &str, network: &Network) -> Result<Proxy, Fault> {
    let bad = || Fault::Unreachable {
        url: "its proxy".into(),
        why: "the URL of the proxy in the environment variables is none".into(),
    };
    // As curl has it, a proxy may be named by its host alone.
    let url = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let plain = Proxy::new(&url).map_err(|_| bad())?;
    let mut proxy = Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(user) = plain.username() {
        proxy = proxy.username(user);
    }
    if let Some(password) = plain.password() {
        proxy = proxy.password(password);
    }
    for host in &network.no_proxy {
        proxy = proxy.no_proxy(host);
    }
    proxy.build().map_err(|_| bad())
}

pub(crate) fn fault(url: &Url, error: &ureq::Error) -> Fault {
    let said = match error {
        ureq::Error::Timeout(_) => "operation timed out".to_owned(),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => "operation timed out".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "there is no such host, or none that may be reached from here".to_owned(),
        other => other.to_string(),
    };
    match said.contains("invalid peer certificate") {
        true => Fault::NotTrusted { url: to_shown(url) },
        false => Fault::unreachable(url, &said),
    }
}

/// A URL as it may be told.
pub(crate) fn to_shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = (url.set_username(""), url.set_password(None));
    // What stands there may be a signature.
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// Keeps a page from sending the broker into the machine's own network, which its readers may not
/// reach.
///
/// The hosts of feeds and proxies are where somebody wants them to be; a link or a redirect leads
/// there or to the internet. Cloud machines answer with their credentials on link-local addresses,
/// so nothing leads there.
#[derive(Debug)]
struct Reachable {
    near: Vec<HostPort>,
    /// Addresses, and when they were asked for.
    known: Mutex<HashMap<HostPort, (Instant, Vec<SocketAddr>)>>,
    resolver: DefaultResolver,
}

type HostPort = (String, u16);

/// The time that an address is known. ureq asks for it before each request, also on a connection
/// that is there.
const KNOWN: Duration = Duration::from_secs(60);

impl Resolver for Reachable {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let place = (
            uri.host().unwrap_or_default().to_ascii_lowercase(),
            uri.port_u16().unwrap_or(usual),
        );
        // A host may send from its http to its https.
        let mut near = self.near.iter().filter(|near| near.1 == place.1 || place.1 == usual);
        let is_near = near.any(|(near, _)| near.eq_ignore_ascii_case(&place.0));
        // One lookup at a time: those who wait for the same host have its answer then.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.get(&place).filter(|(asked, _)| asked.elapsed() < KNOWN);
        let found = match fresh {
            Some((_, found)) => found.clone(),
            None => {
                let found: Vec<SocketAddr> = self.resolver.resolve(uri, config, timeout)?.iter().copied().collect();
                known.insert(place, (Instant::now(), found.clone()));
                found
            }
        };
        let mut allowed = self.empty();
        for address in found.into_iter().filter(|address| can_reach(address.ip(), is_near)) {
            allowed.push(address);
        }
        match allowed.is_empty() {
            true => Err(ureq::Error::HostNotFound),
            false => Ok(allowed),
        }
    }
}

fn can_reach(address: IpAddr, is_near: bool) -> bool {
    let address = address.to_canonical();
    let (is_link_local, is_public) = match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_bad = ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || a == 0;
            (
                ip.is_link_local() || is_bad,
                !ip.is_private() && !ip.is_loopback() && !is_shared,
            )
        }
        IpAddr::V6(ip) => {
            let is_aws = ip.segments()[..2] == [0xfd00, 0x0ec2];
            let is_bad = ip.is_unspecified() || ip.is_multicast();
            (
                ip.is_unicast_link_local() || is_aws || is_bad,
                !ip.is_unique_local() && !ip.is_loopback(),
            )
        }
    };
    !is_link_local && (is_near || is_public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_the_internet_and_a_feed_also_near_and_none_to_the_cloud_s_metadata() {
        for (address, of_a_link, of_a_feed) in [
            ("93.184.216.34", true, true),
            ("2606:2800:220:1::1", true, true),
            ("127.0.0.1", false, true),
            ("::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("10.1.2.3", false, true),
            ("100.64.0.1", false, true),
            ("fd12::1", false, true),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("fd00:ec2::254", false, false),
            ("fe80::1", false, false),
            ("0.0.0.0", false, false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(
                (can_reach(address, false), can_reach(address, true)),
                (of_a_link, of_a_feed),
                "{address}"
            );
        }
    }
}
