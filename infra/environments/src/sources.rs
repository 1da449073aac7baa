//! The sources of an install's packages, as parsed values: what the machine's owner says in
//! environment variables, and what the lines of a flow's requirements add.
//!
//! No text of a flow is handed to uv. uv reads lists in its variables (parted by commas or spaces),
//! takes paths for URLs, and has options that a value can name. So each value is parsed here,
//! refused if it is not exactly one, and written anew.
//!
//! * A flow names places on a network. Local folders and files come from the owner alone: only
//!   those does a build see.
//! * uv is given the broker's addresses in the place of the feeds'.
//! * Of several indexes the further ones go before the default one. A version that the first index
//!   with the package lacks comes from the next. But a package on an index with a credential comes
//!   from that index alone, so that no name on PyPI takes its place.
//! * A package that a project file binds to an index comes from that index alone: the broker serves
//!   its name there and nowhere else.

use crate::{
    lock,
    private::{Feeds, PLACEHOLDER},
};
use broker::{Broker, Credential, Feed, Host, Kind, Names};
use contract::{Code, Failure};
use lifecycle::network;
use percent_encoding::percent_decode_str;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use url::Url;

/// The index of those who name none.
const DEFAULT_INDEX: &str = "https://pypi.org/simple";

/// The place of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Remote(Url, Option<Credential>),
    Local(PathBuf),
}

/// All that decides what an install finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    index: Option<Place>,
    more: Vec<Place>,
    links: Vec<Place>,
    /// Indexes that some packages come from alone, with the names of these.
    own: Vec<(Place, BTreeSet<String>)>,
    insecure: Vec<Host>,
    has_no_index: bool,
    /// Whether the owner says in which of several indexes a version is looked for.
    has_strategy: bool,
    requires_hashes: bool,
    allows_pre: bool,
    /// Names of packages, or `:all:` or `:none:`.
    no_binary: Vec<String>,
    only_binary: Vec<String>,
}

impl Sources {
    /// The indexes of the machine's owner, by uv's variables, else by pip's.
    ///
    /// # Errors
    ///
    /// `Install.BadOption`, which names the variable. Final until it is corrected.
    pub(crate) fn of_owner(block: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let first = |names: &[&'static str]| {
            let named = names.iter().find_map(|name| Some((*name, block.get(*name)?.as_str())));
            named.unwrap_or((names[0], ""))
        };
        let mut sources = Self {
            has_strategy: block.contains_key("UV_INDEX_STRATEGY"),
            ..Self::default()
        };
        let (name, value) = first(&["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"]);
        if !value.trim().is_empty() {
            sources.index = Some(owners(name, value)?);
        }
        let (name, value) = first(&["UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"]);
        for value in value.split_whitespace() {
            sources.more.push(owners(name, value)?);
        }
        let (name, value) = first(&["UV_FIND_LINKS", "PIP_FIND_LINKS"]);
        let by = |c: char| c == ',' || name.starts_with("PIP") && c.is_whitespace();
        for value in value.split(by).map(str::trim).filter(|value| !value.is_empty()) {
            // pip goes on without a folder that is not there.
            if value.contains("://") || Path::new(value).exists() {
                sources.links.push(owners(name, value)?);
            }
        }
        let (name, value) = first(&["UV_INSECURE_HOST", "PIP_TRUSTED_HOST"]);
        for value in value.split([',', ' ']).filter(|value| !value.is_empty()) {
            sources
                .insecure
                .push(host(value).ok_or_else(|| bad(name, "is a host, or a host and its port"))?);
        }
        Ok(sources)
    }

    /// Adds what the lines of a flow's requirements say.
    ///
    /// # Errors
    ///
    /// `Install.BadOption`, `Install.PrivateFeed`, each with the file and the line.
    pub(crate) fn add(&mut self, lines: &[flow::Line], feeds: &Feeds) -> Result<(), Failure> {
        let (mut private, mut unchecked) = (Vec::new(), Vec::new());
        for line in lines {
            let Some((name, value)) = line.option() else { continue };
            let at = format!("{}:{}: {name}", line.file, line.number);
            let mut remote = |value: &str| -> Result<Place, Failure> {
                if value.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control()) {
                    return Err(bad(&at, "takes one URL, without commas and spaces"));
                }
                let (url, credential) = match value.contains(PLACEHOLDER) {
                    true => feeds.place(value, &format!("{}:{}", line.file, line.number))?,
                    false => {
                        remote(value).ok_or_else(|| bad(&at, "takes a URL that begins with https:// or http://"))?
                    }
                };
                if value.contains(PLACEHOLDER) {
                    private.push((url.clone(), at.clone()));
                }
                Ok(Place::Remote(url, credential))
            };
            match name {
                // The last one counts, as in pip.
                "-i" | "--index-url" => self.index = Some(remote(value)?),
                "--extra-index-url" => self.more.push(remote(value)?),
                "-f" | "--find-links" => self.links.push(remote(value)?),
                flow::INDEX_OF => {
                    let (package, url) = value.split_once(' ').unwrap_or((value, ""));
                    self.bind(&at, package, remote(url)?)?;
                }
                "--trusted-host" => {
                    unchecked.push(host(value).ok_or_else(|| bad(&at, "takes one host, or a host and its port"))?)
                }
                "--no-index" => self.has_no_index = true,
                "--require-hashes" => self.requires_hashes = true,
                "--pre" => self.allows_pre = true,
                "--no-binary" => self.no_binary.extend(names(&at, value)?),
                "--only-binary" => self.only_binary.extend(names(&at, value)?),
                // uv prefers wheels as it is, and knows no features of pip's.
                "--prefer-binary" | "--use-feature" => {}
                _ => return Err(bad(&at, "is no option that a requirements file has here")),
            }
        }
        for (url, at) in private {
            if unchecked.iter().any(|host| host.is_of(&url)) {
                let text = "is a host whose certificate is not looked at, and its credential does not go there. Take out --trusted-host";
                return Err(Failure::new(
                    Code::InstallPrivateFeed,
                    format!("{at}: {} {text}, or {PLACEHOLDER}.", url.host_str().unwrap_or_default()),
                ));
            }
        }
        self.insecure.extend(unchecked);
        Ok(())
    }

    /// Has a package come from one index alone.
    fn bind(&mut self, at: &str, package: &str, place: Place) -> Result<(), Failure> {
        if !lock::is_name(package) {
            return Err(bad(at, "takes the name of a package and a URL"));
        }
        let name = flow::normalize_name(package);
        // A folder of the machine is not read through the broker.
        if let Some(local) = self.local().iter().find(|local| may_have(local, &name)) {
            let local = local.display();
            return Err(bad(
                at,
                &format!(
                    "has {package} come from one index alone, and {local}, which variables of this machine name, has it too"
                ),
            ));
        }
        match self.own.iter_mut().find(|(known, _)| *known == place) {
            Some((_, names)) => drop(names.insert(name)),
            None => self.own.push((place, BTreeSet::from([name]))),
        }
        Ok(())
    }

    /// The feeds that a broker stands in for, in the order of [`Self::tell_uv`].
    pub(crate) fn feeds(&self) -> Vec<Feed> {
        let default = [Place::Remote(default_index(), None)];
        let index = self.index.as_ref().or((!self.has_no_index).then_some(&default[0]));
        let bound: BTreeSet<String> = self.own.iter().flat_map(|(_, names)| names).cloned().collect();
        let rest = Names::AllBut(bound);
        let indexes = index.into_iter().chain(&self.more);
        let indexes = indexes.map(|place| (place, Kind::Index, rest.clone()));
        let own = self
            .own
            .iter()
            .map(|(place, names)| (place, Kind::Index, Names::Only(names.clone())));
        let links = self.links.iter().map(|place| (place, Kind::Links, rest.clone()));
        let all = indexes
            .chain(own)
            .chain(links)
            .filter_map(|(place, kind, names)| match place {
                Place::Remote(url, credential) => Some(Feed {
                    url: url.clone(),
                    credential: credential.clone(),
                    kind,
                    names,
                }),
                Place::Local(_) => None,
            });
        all.collect()
    }

    pub(crate) fn insecure(&self) -> &[Host] {
        &self.insecure
    }

    /// Sets uv's variables: the broker's addresses, and local places of the owner.
    pub(crate) fn tell_uv(&self, broker: &Broker, block: &mut BTreeMap<String, String>) {
        let mut feeds = 0..;
        let mut told = |place: &Place| match place {
            Place::Remote(..) => broker.address(feeds.next().unwrap_or_default()),
            // What is parted by commas and spaces has none in it then.
            Place::Local(path) => Url::from_file_path(path)
                .map(String::from)
                .unwrap_or_default()
                .replace(',', "%2C"),
        };
        let default = Place::Remote(default_index(), None);
        let index = self.index.as_ref().or((!self.has_no_index).then_some(&default));
        let index = index.map(&mut told).unwrap_or_default();
        let own = self.own.iter().map(|(place, _)| place);
        let more: Vec<String> = self.more.iter().chain(own).map(&mut told).collect();
        let links: Vec<String> = self.links.iter().map(&mut told).collect();
        let hosts: Vec<String> = self.insecure.iter().map(Host::to_string).collect();
        for (name, value) in [
            ("UV_DEFAULT_INDEX", index),
            ("UV_INDEX", more.join(" ")),
            ("UV_FIND_LINKS", links.join(",")),
            // For packages that are named by their URL: the broker has no part in them.
            ("UV_INSECURE_HOST", hosts.join(" ")),
        ] {
            block.remove(name);
            if !value.is_empty() {
                block.insert(name.into(), value);
            }
        }
    }

    /// The folders and files that a build has to see.
    pub(crate) fn local(&self) -> Vec<PathBuf> {
        let all = self.index.iter().chain(&self.more).chain(&self.links);
        let local = all.filter_map(|place| match place {
            Place::Local(path) => Some(path.clone()),
            Place::Remote(..) => None,
        });
        local.collect()
    }

    /// The options that count while requirements are resolved.
    pub(crate) fn resolving(&self) -> Vec<String> {
        let mut options = self.installing();
        if self.allows_pre {
            options.push("--prerelease=allow".into());
        }
        options
    }

    /// Whether each package has to have a hash in the requirements.
    pub(crate) fn requires_hashes(&self) -> bool {
        self.requires_hashes
    }

    /// The options that count when nothing is resolved any more.
    pub(crate) fn installing(&self) -> Vec<String> {
        let no_index = self.has_no_index.then(|| "--no-index".to_owned());
        let no_binary = self.no_binary.iter().map(|package| format!("--no-binary={package}"));
        let only_binary = self
            .only_binary
            .iter()
            .map(|package| format!("--only-binary={package}"));
        // What one index has alone, no other can take the place of.
        let is_shared = |feed: &&Feed| matches!(feed.names, Names::AllBut(_));
        let is_private = self
            .feeds()
            .iter()
            .filter(is_shared)
            .any(|feed| feed.credential.is_some());
        let is_ours = !self.more.is_empty() && !is_private && !self.has_strategy;
        let strategy = is_ours.then(|| "--index-strategy=unsafe-first-match".to_owned());
        let options = no_index.into_iter().chain(strategy);
        options.chain(no_binary).chain(only_binary).collect()
    }

    /// The identity of a set of sources, without credentials. A lock does not say which index the
    /// tools of a build come from, nor all hashes; so environments of the same lock are the same
    /// only if they have the same sources.
    pub(crate) fn identity(&self) -> String {
        let shown = |place: &Place| match place {
            Place::Remote(url, _) => url.to_string(),
            Place::Local(path) => path.display().to_string(),
        };
        let index = self.index.as_ref().map_or_else(|| DEFAULT_INDEX.to_owned(), shown);
        let list = |places: &[Place]| places.iter().map(shown).collect::<Vec<_>>();
        let hosts: Vec<String> = self.insecure.iter().map(Host::to_string).collect();
        let own: Vec<_> = self.own.iter().map(|(place, names)| (shown(place), names)).collect();
        let own = if own.is_empty() {
            String::new()
        } else {
            format!(" {own:?}")
        };
        format!(
            "{index:?} {:?} {:?} {hosts:?} {:?}{own}",
            list(&self.more),
            list(&self.links),
            self.installing()
        )
    }

    /// The texts that no output may have: each secret as it is, and as a URL has it.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let credentials = self.feeds().into_iter().filter_map(|feed| feed.credential);
        credentials
            .flat_map(|credential| [contract::route::encode_part(&credential.secret), credential.secret])
            .filter(|secret| !secret.is_empty())
            .collect()
    }
}

/// The address of the package index that installs on this machine ask first, without a credential;
/// `None` if they ask none.
///
/// # Errors
///
/// `Install.BadOption`, which names the variable that is wrong.
pub fn index_address() -> Result<Option<String>, Failure> {
    let sources = Sources::of_owner(&crate::uv::kept_variables())?;
    Ok(sources.feeds().first().map(|feed| feed.url.to_string()))
}

/// Whether a folder of the machine may have files of a package. What is no folder may.
fn may_have(local: &Path, name: &str) -> bool {
    let is_it = Names::Only(BTreeSet::from([name.to_owned()]));
    let Ok(mut entries) = fs::read_dir(local) else {
        return true;
    };
    entries.any(|entry| {
        entry.is_ok_and(|entry| {
            let file = entry.file_name().to_string_lossy().into_owned();
            is_it.has_file(&file) || flow::normalize_name(&file) == name
        })
    })
}

fn default_index() -> Url {
    Url::parse(DEFAULT_INDEX).expect("a constant that a test parses")
}

fn bad(what: &str, needs: &str) -> Failure {
    Failure::new(
        Code::InstallBadOption,
        format!("{what} {needs}. Correct it, and start again."),
    )
}

/// The packages of an option, or what stands for all or none.
fn names(at: &str, value: &str) -> Result<Vec<String>, Failure> {
    let packages = value.split(',').map(str::trim).filter(|package| !package.is_empty());
    let packages = packages.map(
        |package| match matches!(package, ":all:" | ":none:") || lock::is_name(package) {
            true => Ok(package.to_owned()),
            false => Err(bad(
                at,
                "takes names of packages, :all: or :none:, with commas between them",
            )),
        },
    );
    packages.collect()
}

/// A place on a network, and the credential in its URL.
fn remote(text: &str) -> Option<(Url, Option<Credential>)> {
    let mut url = Url::parse(text).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return None;
    }
    // A bad escape is refused: `percent_encoding` would leave it as it is.
    let decode = |text: &str| -> Option<String> {
        let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
        let is_good = text.split('%').skip(1).all(is_escape);
        let decoded = percent_decode_str(text).decode_utf8().ok()?;
        is_good.then(|| decoded.into_owned())
    };
    let (user, secret) = (decode(url.username())?, decode(url.password().unwrap_or_default())?);
    let credential = (!user.is_empty() || !secret.is_empty()).then_some(Credential { user, secret });
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_fragment(None);
    Some((url, credential))
}

/// A place that the owner names: on a network, or on this machine.
fn owners(name: &str, value: &str) -> Result<Place, Failure> {
    // uv's `name=url`.
    let value = match value.split_once('=') {
        Some((index, url)) if lock::is_name(index) && !index.contains(':') => url,
        _ => value,
    };
    if let Some((url, credential)) = remote(value) {
        return Ok(Place::Remote(url, credential));
    }
    let path = match Url::parse(value) {
        Ok(url) if url.scheme() == "file" => url.to_file_path().ok(),
        _ => Some(PathBuf::from(value)),
    };
    path.filter(|path| path.is_absolute())
        .map(Place::Local)
        .ok_or_else(|| bad(name, "names URLs and absolute paths"))
}

/// A host, and a port if one is meant alone. A URL's host is meant where there is a scheme.
fn host(text: &str) -> Option<Host> {
    let rest = text
        .split_once("://")
        .map_or(text, |(_, rest)| rest.trim_end_matches('/'));
    if rest.is_empty() || rest.contains(['/', '@', '?', '#', ',', ' ', '\\', '%']) {
        return None;
    }
    let url = Url::parse(&format!("http://{rest}/")).ok()?;
    // `http` has its own port unsaid.
    let port = url.port().or_else(|| rest.ends_with(":80").then_some(80));
    Some(Host {
        name: url.host_str()?.to_owned(),
        port,
    })
}

/// A requirement as uv is to read it: one line, and behind it nothing but hashes.
///
/// # Errors
///
/// `Install.BadRequirement`, with the file and the line.
pub(crate) fn requirement(line: &flow::Line) -> Result<String, Failure> {
    let wrong = |why: &str| {
        let (file, number) = (&line.file, line.number);
        Failure::new(
            Code::InstallBadRequirement,
            format!("{file}:{number}: {why}. Correct it, and start again."),
        )
    };
    let text = line.text.replace('\t', " ");
    // uv begins a line where pip does not: at a carriage return, also within quotes.
    if text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(wrong("the line has characters that cannot be seen"));
    }
    let (requirement, options) = text.split_at(text.find(" --").unwrap_or(text.len()));
    let mut hashes = String::new();
    for option in options.split_whitespace() {
        let hash = option
            .strip_prefix("--hash=")
            .map(|hash| hash.trim_matches(['"', '\'']));
        let hash = hash.and_then(|hash| hash.split_once(':')).filter(|(kind, hex)| {
            kind.bytes().all(|byte| byte.is_ascii_alphanumeric()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let (kind, hex) = hash.ok_or_else(|| {
            let name = flow::redact(option.split('=').next().unwrap_or(option));
            wrong(&match name.as_str() {
                "--hash" => "a hash is written as --hash=sha256:…".to_owned(),
                "--only-binary" | "--no-binary" => {
                    let package = requirement.split([' ', '=', '<', '>', '!', '~', '[', ';']).next().unwrap_or_default();
                    format!("{name} stands in a line of its own, as `{name} {package}`")
                }
                _ => format!("{name} is no option of a requirement here, where only --hash=sha256:… is. Take it out, or take a wheel"),
            })
        })?;
        hashes.push_str(&format!(" --hash={kind}:{hex}"));
    }
    let requirement = requirement.trim();
    let (package, marker) = requirement.split_once(" ;").unwrap_or((requirement, ""));
    if package.contains("://") {
        if url(package).is_none() {
            return Err(wrong("a package's URL begins with https://, http:// or git+https://"));
        }
    } else if !package.starts_with(|c: char| c.is_ascii_alphanumeric()) || package.contains('@') {
        return Err(wrong("the line does not begin with the name of a package"));
    }
    if marker.contains("://") {
        return Err(wrong("a marker has no URL"));
    }
    Ok(requirement.to_owned() + &hashes)
}

/// The URL of a package that is named by it.
fn url(package: &str) -> Option<Url> {
    // A URL may have an `@` of its own.
    let named = package.split_once('@').filter(|(name, _)| !name.contains([':', '/']));
    let named = named.map_or(package, |(_, url)| url).trim();
    Url::parse(named).ok().filter(lock::is_fetched)
}

/// The hosts of packages that requirements name by their URLs; never what a cloud has for its
/// machine.
pub(crate) fn hosts(lines: &[flow::Line]) -> Vec<network::Host> {
    let requirements = lines.iter().filter(|line| line.option().is_none());
    let urls = requirements.filter_map(|line| {
        let package = line.text.split([';', '\t']).next()?.split(" --").next()?;
        package.contains("://").then(|| url(package.trim())).flatten()
    });
    urls.filter_map(|url| {
        // Of `git+https`, say.
        let usual = match url.scheme() {
            scheme if scheme.ends_with("https") => 443,
            scheme if scheme.ends_with("http") => 80,
            _ => 22,
        };
        // A scheme that is not of the web keeps an address as it is written.
        let host = url::Host::parse(url.host_str()?).ok()?;
        let port = url.port().unwrap_or(usual);
        let place = match host {
            url::Host::Domain(name) => format!("{name}:{port}").parse::<network::Host>().ok()?.place,
            url::Host::Ipv4(address) => network::Place::of(address.into()),
            url::Host::Ipv6(address) => network::Place::of(address.into()),
        };
        let port = Some(port);
        Some(network::Host { place, port })
    })
    .filter(
        |host| !matches!(&host.place, network::Place::Addresses { first, .. } if ::network::is_of_the_cloud(*first)),
    )
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> flow::Line {
        flow::Line {
            file: "requirements.txt".into(),
            number: 3,
            text: text.into(),
            constraint: false,
        }
    }

    fn sources_of(lines: &[&str]) -> Result<Sources, Failure> {
        let mut sources = Sources::default();
        let lines: Vec<flow::Line> = lines.iter().map(|text| line(text)).collect();
        sources.add(&lines, &Feeds::default()).map(|()| sources)
    }

    #[test]
    fn an_option_that_is_not_one_value_is_refused_with_its_file_and_line() {
        for bad in [
            "--find-links http://x/,/any/host/path",
            "--find-links http://x/ /any/host/path",
            "--find-links /any/host/path",
            "-f file:///any/host/path",
            "-i ../index",
            "--index-url ftp://x/",
            "--index-url name=http://x/",
            "--extra-index-url http://",
            "--extra-index-url http://x/\r-f",
            "--trusted-host a b",
            "--trusted-host a,b",
            "--trusted-host http://a/b",
            "--trusted-host ",
            "--no-binary --find-links=/any/host/path",
            "--only-binary a,--config-settings",
            "--only-binary :other:",
            "--config-settings x=y",
            "--cache-dir /any/host/path",
        ] {
            let failure = sources_of(&[bad]).unwrap_err();
            assert_eq!(failure.error, Code::InstallBadOption, "{bad}");
            assert!(failure.message.starts_with("requirements.txt:3: "), "{failure}");
        }
    }

    #[test]
    fn what_uv_is_told_is_written_anew_from_parsed_values() {
        let sources = sources_of(&[
            "-i http://me:s3cret@one.example/simple#x",
            "--extra-index-url https://two.example/simple/",
            "-f https://three.example/page?a=b",
            "--trusted-host three.example:8443",
            "--no-binary :all:,Foo.bar",
            "--pre",
            "--require-hashes",
            "--prefer-binary",
        ])
        .unwrap();
        let feeds: Vec<String> = sources
            .feeds()
            .iter()
            .map(|feed| format!("{} {:?} {:?}", feed.url, feed.kind, feed.credential))
            .collect();
        assert_eq!(
            feeds,
            [
                "http://one.example/simple Index Some(Credential(***))",
                "https://two.example/simple/ Index None",
                "https://three.example/page?a=b Links None"
            ]
        );
        assert_eq!(sources.installing(), ["--no-binary=:all:", "--no-binary=Foo.bar"]);
        assert_eq!(sources.resolving()[2..], ["--prerelease=allow"]);
        assert!(sources.requires_hashes());
        assert_eq!(sources.local(), Vec::<PathBuf>::new());
        assert!(!sources.identity().contains("s3cret") && sources.secrets().contains(&"s3cret".to_owned()));
    }

    #[test]
    fn a_further_index_hides_no_version_of_the_next_unless_one_has_a_credential() {
        const STRATEGY: &str = "--index-strategy=unsafe-first-match";
        let has = |lines: &[&str]| sources_of(lines).unwrap().resolving().contains(&STRATEGY.to_owned());
        assert!(!has(&["alpha"]));
        assert!(has(&["--extra-index-url https://two.example/simple/"]));
        assert!(!has(&["--extra-index-url https://me:s3cret@two.example/simple/"]));
        assert!(!has(&[
            "-i https://me:s3cret@one.example/simple",
            "--extra-index-url https://two.example/simple/"
        ]));
    }

    #[test]
    fn a_package_that_is_bound_to_an_index_is_served_by_that_one_alone() {
        let lines = [
            "--extra-index-url https://two.example/simple",
            "-f https://links.example/",
        ];
        let bound = [
            "--index-of My_Pack https://one.example/simple",
            "--index-of other https://one.example/simple",
        ];
        let sources = sources_of(&[&lines[..], &bound].concat()).unwrap();
        let names = |feed: &Feed| format!("{} {:?}", feed.url.host_str().unwrap(), feed.names);
        let rest = "AllBut({\"my-pack\", \"other\"})";
        assert_eq!(
            sources.feeds().iter().map(names).collect::<Vec<_>>(),
            [
                &format!("pypi.org {rest}"),
                &format!("two.example {rest}"),
                "one.example Only({\"my-pack\", \"other\"})",
                &format!("links.example {rest}"),
            ]
        );
        assert_ne!(sources.identity(), sources_of(&lines).unwrap().identity());
        // A folder of the machine is not read through the broker.
        let place = tempfile::tempdir().unwrap();
        let local = [("PIP_FIND_LINKS".to_owned(), place.path().display().to_string())];
        let add = || {
            Sources::of_owner(&local.clone().into())
                .unwrap()
                .add(&[line(bound[0])], &Feeds::default())
        };
        fs::write(place.path().join("other-1.0.tar.gz"), "").unwrap();
        add().unwrap();
        fs::write(place.path().join("my_pack-1.0-py3-none-any.whl"), "").unwrap();
        let failure = add().unwrap_err();
        assert_eq!(failure.error, Code::InstallBadOption, "{failure}");
        for bad in [
            "--index-of a",
            "--index-of a b",
            "--index-of a=1 https://x/",
            "--index-of a https://x/ https://y/",
        ] {
            assert_eq!(sources_of(&[bad]).unwrap_err().error, Code::InstallBadOption, "{bad}");
        }
    }

    #[test]
    fn only_the_owner_names_folders_of_the_machine() {
        let place = tempfile::tempdir().unwrap();
        let here = place.path().display().to_string();
        let block = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let owner = Sources::of_owner(&block(&[
            ("UV_DEFAULT_INDEX", &format!("file://{here}")),
            ("UV_INDEX", "corp=https://me:w%2Frd@corp.example/simple"),
            ("PIP_FIND_LINKS", &format!("{here} /nowhere https://links.example/")),
            ("PIP_INDEX_URL", "https://not.this.one/"),
            ("UV_INSECURE_HOST", "corp.example 10.0.0.1:8080"),
        ]))
        .unwrap();
        assert_eq!(owner.local(), [place.path(), place.path()]);
        assert_eq!(owner.feeds().len(), 2);
        assert!(owner.secrets().contains(&"w/rd".to_owned()));
        assert_eq!(owner.insecure().len(), 2);
        for (name, value) in [("UV_INDEX", "some/where"), ("PIP_TRUSTED_HOST", "a/b")] {
            let failure = Sources::of_owner(&block(&[(name, value)])).unwrap_err();
            assert!(failure.message.starts_with(name), "{failure}");
        }
        let default = Sources::of_owner(&BTreeMap::new()).unwrap();
        assert_eq!(default.feeds()[0].url, default_index());
    }

    #[test]
    fn a_package_named_by_its_url_opens_its_place_and_never_the_clouds() {
        let of = |text: &str| {
            let hosts = hosts(&[line(text)]);
            hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        for (text, host) in [
            ("alpha @ https://Host.example/a.whl", "host.example:443"),
            (
                "alpha @ http://127.0.0.1:8080/a.whl ; python_version > '3'",
                "127.0.0.1:8080",
            ),
            (
                "http://localhost:8080/a@b/alpha-1-py3-none-any.whl --hash=sha256:00",
                "localhost:8080",
            ),
            ("git+https://host.example/a@v1", "host.example:443"),
            ("alpha @ git+ssh://git@10.1.2.3/a", "10.1.2.3:22"),
            ("alpha @ http://[::1]/a.whl", "[::1]:80"),
            ("alpha @ http://169.254.169.254/latest", ""),
            ("alpha @ http://0xa9fea9fe/latest", ""),
            ("alpha @ git+http://0xa9fea9fe/latest", ""),
            ("alpha @ http://[::ffff:169.254.170.2]/v2/credentials", ""),
            ("alpha==1 ; extra == '://'", ""),
            ("-i http://127.0.0.1:8080/simple", ""),
        ] {
            assert_eq!(of(text), host, "{text}");
        }
    }

    #[test]
    fn a_requirement_is_one_line_with_nothing_behind_it_but_hashes() {
        for (good, told) in [
            ("alpha", "alpha"),
            (
                "Alpha[more]<2,>=1 ; sys_platform == 'linux'",
                "Alpha[more]<2,>=1 ; sys_platform == 'linux'",
            ),
            (
                "alpha==1 --hash=sha256:00 --hash='sha256:11'",
                "alpha==1 --hash=sha256:00 --hash=sha256:11",
            ),
            ("alpha\t==1", "alpha ==1"),
            (
                "alpha @ https://host/a.whl ; python_version > '3'",
                "alpha @ https://host/a.whl ; python_version > '3'",
            ),
            ("git+https://host/a@v1", "git+https://host/a@v1"),
            (
                "https://host/alpha-1-py3-none-any.whl",
                "https://host/alpha-1-py3-none-any.whl",
            ),
        ] {
            assert_eq!(requirement(&line(good)).unwrap(), told);
        }
        for bad in [
            "alpha ; sys_platform == 'x\r-r /etc/passwd\r'",
            "alpha ; sys_platform == 'x\u{85}y'",
            "alpha==1 --find-links=/any/host/path",
            "alpha==1 --hash=sha256:00 -f /any",
            "alpha==1 --hash=sha256:00\u{2028}",
            "alpha @ file:///etc/passwd",
            "alpha @ git+file:///etc",
            "alpha @ /etc/passwd",
            "alpha @ ext::sh",
            "file:///etc/passwd",
            "git+ext://x/y",
            "-r /etc/passwd",
            "./alpha",
        ] {
            let failure = requirement(&line(bad)).unwrap_err();
            assert_eq!(failure.error, Code::InstallBadRequirement, "{bad}");
            assert!(failure.message.starts_with("requirements.txt:3: "), "{failure}");
        }
    }
}
