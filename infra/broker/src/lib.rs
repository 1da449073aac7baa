//! Stands between a build and the package indexes, and between a flow and its model providers: the
//! only process that has their credentials.
//!
//! * [`Providers`]: forwards a run's requests to the hosts of its connections, and adds their keys.
//!   The rest is about builds.
//!
//! A build script is a stranger's program. It runs beside uv, so it can read uv's environment
//! variables and write to uv's cache. Therefore uv knows this broker alone, by an address with a
//! token that is made for one build, and its cache is thrown away with the build.
//!
//! ```text
//! uv ── http://127.0.0.1:PORT/TOKEN/index/0/simple/NAME/ ──▶ broker ── with the credential, over TLS ──▶ package index
//!                                                            └─ downloads: files by a hash that it has checked itself
//! ```
//!
//! * [`Broker::start`], [`Broker::address`]: what uv is given in the place of a feed.
//! * [`Broker::told`]: what uv says, with the feeds' own URLs again.
//! * [`Broker::fault`]: why an index could not be read, which uv has only as a status.
//! * [`prune`]: what is removed of the downloads.
//!
//! Absent here: every decision on which feeds a build has, and the meaning of uv's output.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod downloads;
mod page;
mod provider;
mod serve;
mod upstream;

pub use downloads::prune;
pub use provider::{Header, Provider, Providers, Way};
pub use upstream::{Network, Roots};

/// The longest silence of a client: between two requests, within one, or in reading an answer.
const CLIENT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serve::Server;
use std::{
    collections::BTreeSet,
    fmt, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};
use url::Url;

/// The configuration of a broker.
#[derive(Clone, Debug)]
pub struct Config {
    pub feeds: Vec<Feed>,
    /// Hosts whose certificate is not looked at.
    pub insecure: Vec<Host>,
    pub network: Network,
    /// Whether every page is asked for anew.
    pub is_refreshing: bool,
    /// The folder of downloads.
    pub downloads: PathBuf,
}

/// A place that has packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// `http` or `https`, and without a credential.
    pub url: Url,
    pub credential: Option<Credential>,
    pub kind: Kind,
    pub names: Names,
}

/// The packages that a feed may serve, by their normalised names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    Only(BTreeSet<String>),
    AllBut(BTreeSet<String>),
}

impl Default for Names {
    fn default() -> Self {
        Self::AllBut(BTreeSet::new())
    }
}

impl Names {
    /// * `package`: any form of its name.
    fn has(&self, package: &str) -> bool {
        let name = page::normalize(package);
        match self {
            Self::Only(names) => names.contains(&name),
            Self::AllBut(names) => !names.contains(&name),
        }
    }

    /// Whether a file may be served: its name begins with that of its package.
    pub fn has_file(&self, file: &str) -> bool {
        let file = page::normalize(file);
        let is_of = |name: &String| {
            let version = file.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('-'));
            version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit() || c == 'v'))
        };
        match self {
            Self::Only(names) => names.iter().any(is_of),
            Self::AllBut(names) => !names.iter().any(is_of),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A page for each package.
    Index,
    /// One page of links.
    Links,
}

/// The user and the secret of a feed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub user: String,
    pub secret: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

impl Credential {
    fn header(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.user, self.secret)))
    }
}

/// A host, and a port if one is meant alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As a URL has it.
    pub name: String,
    pub port: Option<u16>,
}

impl Host {
    pub fn is_of(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(&self.name))
            && self.port.is_none_or(|port| url.port_or_known_default() == Some(port))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The fault of an index that could not be read. URLs are without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Unreachable {
        url: String,
        why: String,
    },
    /// Its certificate is by an authority that is not known.
    NotTrusted {
        url: String,
    },
    Refused {
        url: String,
    },
    /// A file is not what its page says.
    HashMismatch {
        file: String,
    },
}

impl Fault {
    fn unreachable(url: &Url, why: &str) -> Self {
        Self::Unreachable {
            url: upstream::to_shown(url),
            why: why.to_owned(),
        }
    }
}

/// A broker that serves until it is dropped.
#[derive(Debug)]
pub struct Broker {
    server: Arc<Server>,
    address: SocketAddr,
}

impl Broker {
    /// Starts one on loopback.
    ///
    /// # Errors
    ///
    /// When the downloads' folder cannot be written, no port can be had, or a proxy's URL is none.
    /// Worth a retry but for the last.
    pub fn start(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let server = Arc::new(Server::new(config)?);
        serve::spawn(Arc::clone(&server), listener)?;
        Ok(Self { server, address })
    }

    /// The address of a feed for uv, by the feed's number.
    pub fn address(&self, feed: usize) -> String {
        format!("http://{}{}", self.address, self.server.path(feed))
    }

    /// The address on this machine.
    pub fn place(&self) -> SocketAddr {
        self.address
    }

    /// Whether a text names an address of this broker.
    pub fn is_in(&self, text: &str) -> bool {
        text.contains(self.server.token())
    }

    /// A text of uv's with the feeds' own URLs in the place of the broker's.
    pub fn without_broker(&self, text: &str) -> String {
        self.server.without_broker(text, self.address)
    }

    /// The last fault of an index.
    pub fn fault(&self) -> Option<Fault> {
        self.server.fault()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.server.stop(self.address);
    }
}
