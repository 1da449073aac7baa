//! Package environments, by content.
//!
//! | path below `environments/` | what |
//! | --- | --- |
//! | `{key}/` | the packages: a whole environment, or what one adds to its base |
//! | `{key}.json` | [`Environment`]: that it is complete. Renamed into place last |
//! | `{key}.txt` | its lock: every package with its version and hashes |
//! | `{key}.asked-by.json` | which of its packages asks for which |
//! | `{key}.gone.json` | what `{key}.json` was, of an environment that nobody had used for long: its lock is there to build it again |
//! | `{key}.used` | held while a session uses it; when it was written is when that began last |
//! | `{key}.lock` | held while it is built |
//! | `index/{request}.json` | which key a request (requirement lines, indexes, platform, base) was resolved to, and when |
//!
//! The key is a hash of the interpreter, the platform, the base and the lock. A crash leaves a folder without its `.json`: it counts for
//! nothing, and the next build of the same key removes it. What is complete is never written to again: a session sees it under an overlay
//! of its own.

use crate::{
    digest,
    image::Base,
    packages::{self, AskedBy, Written},
    private::{self, Feeds},
    reach::{self, Reach},
    rooted::{Place, Root},
    scratch::Scratch,
    sources::{self, Sources},
    uv, write_atomically,
};
use broker::Broker;
use contract::{Failure, agent::LineKind, packages::Listed};
use network::{Counts, Service};
use sandbox::{
    Isolation, Network, Overlay, Sandbox, Tier, Word,
    beneath::{Entry, FileType, Folder, Limits},
    control::Words,
    python::Python,
    removal::remove,
};
use serde::{Deserialize, Serialize};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, net::UnixStream as StdStream, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// How long output is taken in that comes behind the end of its program.
const LAST_OUTPUT: Duration = Duration::from_millis(200);
/// How long a resolved request is taken for what it would be resolved to now, in seconds.
const REQUEST_AGE: u64 = 24 * 3600;
/// The same of the base image: a newer one is built beside it, and every environment on it anew.
const BASE_AGE: u64 = 30 * 24 * 3600;

/// Takes each line of output, redacted.
pub type Say<'a> = &'a dyn Fn(LineKind, String);

/// An environment that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The hash that its files are named by.
    pub key: String,
    /// The environment that this one is layered on, if it is.
    pub below: Option<String>,
    /// The base image.
    pub base: String,
    /// Whether it has all of the base's packages at the base's versions, so that a process with the base loaded can use it.
    pub pure: bool,
    /// The `.pth` files that the base has not.
    pub pth: Vec<String>,
}

/// `{key}.json`: an environment that is complete.
#[derive(Serialize, Deserialize)]
pub(crate) struct Made {
    #[serde(flatten)]
    pub(crate) environment: Environment,
    /// Until it is on the disk: the boot of the machine in which it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unsynced: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Resolved {
    key: String,
    at: u64,
}

/// The environments of one state folder, on one base image.
pub struct Store {
    /// The packages of the base image.
    pub base: &'static Base,
    /// Where the environments are; several state folders may share it.
    state: PathBuf,
    /// The state folder that the credentials of private feeds are in.
    feeds: PathBuf,
    /// What environments are built on.
    pub python: Python,
    /// The Python of this machine, which makes sandboxes.
    pub machine: Python,
    /// The image that all is built in, if it is not this machine.
    pub root: Option<Root>,
    /// The folder of the runner's Python package.
    pub runner: PathBuf,
    /// Who builds are on this machine, where this process is root.
    builder: Option<u32>,
    /// Whether a sandbox can be made; learnt on the way.
    pub namespaces: Cell<bool>,
    /// Whether a sandbox can have a network of its own; likewise.
    pub networks: Cell<bool>,
    /// What the network of a build reaches.
    pub reach: RefCell<Reach>,
    /// Counts of what the network of builds refused.
    pub counts: Counts,
    /// How the last program ended that was needed to build something.
    pub ended: Cell<Option<i32>>,
}

/// The failures that may come from what uv remembers of an index.
const STALE: [&str; 3] = ["Install.NoSuchVersion", "Install.NoSuchPackage", "Install.HashMismatch"];

/// The variable that names a folder for the environments and their tools which several state folders share. What is in there is
/// found by its content and never written to again.
pub const FOLDER: &str = "PFSESSION_STORE";

/// Where the brokers of all builds keep what they downloaded.
pub(crate) fn downloads(store: &Path) -> PathBuf {
    store.join("tools/downloads")
}

/// Where the environments are: in the state folder, unless a folder of their own is named.
pub fn folder(state: &Path) -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(|| state.to_owned(), PathBuf::from)
}

impl Store {
    /// # Errors
    ///
    /// When the state folder cannot be written.
    pub fn open(state: &Path, base: &'static Base, python: Python) -> io::Result<Self> {
        for folder in ["tools/root", "tools/home"] {
            fs::create_dir_all(state.join(folder))?;
        }
        let feeds = state.to_owned();
        let state = &folder(state);
        for folder in ["environments/index", "tools/root", "tools/home"] {
            fs::create_dir_all(state.join(folder))?;
        }
        // Private packages, and what a build script makes until that is read-only, are nobody else's.
        fs::set_permissions(state.join("environments"), fs::Permissions::from_mode(0o700))?;
        let runner = sandbox::write_runner(state)?;
        Ok(Self {
            base,
            state: state.to_owned(),
            feeds,
            machine: python.clone(),
            root: None,
            python,
            runner,
            builder: sandbox::ids::of(state, sandbox::ids::BUILDS).map_err(io::Error::other)?,
            namespaces: Cell::new(true),
            networks: Cell::new(true),
            reach: RefCell::new(Reach::new(Default::default(), &[])),
            counts: Counts::default(),
            ended: Cell::new(None),
        })
    }

    /// Has all be built in an image, and for sessions on it.
    ///
    /// # Errors
    ///
    /// As [`Root::have`].
    pub async fn root_in(&mut self, name: &images::Name, say: &dyn Fn(String)) -> Result<(), Failure> {
        let place = Place {
            state: &self.feeds,
            store: &self.state,
            machine: &self.machine,
            runner: &self.runner,
            builder: self.builder,
        };
        let root = Root::have(&place, name, say).await?;
        self.python = root.python.clone();
        self.root = Some(root);
        Ok(())
    }

    /// The packages of the base image that its root does not have.
    fn base_packages(&self) -> Vec<String> {
        let Some(root) = &self.root else {
            return words(self.base.packages);
        };
        let is_missing = |wanted: &&&str| !root.has(wanted.split('>').next().unwrap_or_default());
        self.base
            .over_image
            .iter()
            .filter(is_missing)
            .map(|wanted| (*wanted).to_owned())
            .collect()
    }

    /// What the root has, as the lines of a lock.
    fn root_lock(&self) -> String {
        self.root.as_ref().map(Root::lock).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.join("environments").join(name)
    }

    /// Where the packages of an environment are seen: a layered one where its base is, so that all paths in both stay right.
    pub fn seen_at(&self, environment: &Environment) -> PathBuf {
        self.path(environment.below.as_ref().unwrap_or(&environment.key))
    }

    /// The folders of an environment, uppermost first.
    pub fn lower(&self, environment: &Environment) -> Vec<PathBuf> {
        let folders = std::iter::once(&environment.key).chain(&environment.below);
        folders.map(|key| self.path(key)).collect()
    }

    /// An environment that is complete.
    pub fn complete(&self, key: &str) -> Option<Environment> {
        let made: Made = serde_json::from_slice(&fs::read(self.path(&format!("{key}.json"))).ok()?).ok()?;
        // What was not yet on the disk when the machine went down may be there in part.
        made.unsynced
            .is_none_or(|boot| boot == boot_id())
            .then_some(made.environment)
    }

    /// Holds an environment, and what it is layered on, for as long as what it gives back lives. `None` if it has gone meanwhile.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn hold_use(&self, environment: &Environment) -> io::Result<Option<Vec<fs::File>>> {
        let keys = environment.below.iter().chain([&environment.key]);
        let held = keys
            .map(|key| hold(&self.path(""), key))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(self.complete(&environment.key).map(|_| held))
    }

    fn base_request(&self) -> String {
        let python = &self.python;
        let (prefix, packages) = (python.prefix.display().to_string(), self.base_packages().join(" "));
        let parts = ["base", &python.version, &python.platform, &prefix, &packages];
        match &self.root {
            None => digest(&parts),
            Some(root) => digest(&[&parts[..], &["in", &root.key()]].concat()),
        }
    }

    fn request(&self, base: &str, lines: &[flow::Line]) -> String {
        let mut parts = vec!["request".to_owned(), base.to_owned(), self.namespaces.get().to_string()];
        parts.extend(
            lines
                .iter()
                .map(|line| format!("{}{}", if line.constraint { "-c " } else { "" }, line.text)),
        );
        parts.extend(
            uv::kept_variables()
                .into_iter()
                .filter(|(name, _)| name.contains("IND"))
                .map(|(name, value)| format!("{name}={value}")),
        );
        digest(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn resolved(&self, request: &str, age: u64) -> Option<Environment> {
        let found: Resolved =
            serde_json::from_slice(&fs::read(self.path(&format!("index/{request}.json"))).ok()?).ok()?;
        if now().saturating_sub(found.at) > age {
            return None;
        }
        self.complete(&found.key)
    }

    /// The base image, if it is there.
    pub fn find_base(&self) -> Option<Environment> {
        self.resolved(&self.base_request(), BASE_AGE)
    }

    /// The environment of these requirements, if it is there and was resolved lately.
    pub fn find(&self, lines: &[flow::Line]) -> Option<Environment> {
        let base = self.find_base()?;
        if is_empty(lines) {
            Some(base)
        } else {
            self.resolved(&self.request(&base.key, lines), REQUEST_AGE)
        }
    }

    /// The environment of these requirements; builds what is not there. Whoever else wants the same waits for it.
    ///
    /// Dropping it in the middle ends all that it started, and leaves nothing that counts.
    ///
    /// * `anew`: whether every index is asked, whatever was resolved lately.
    /// * `log`: where the whole output will be, for messages.
    ///
    /// # Errors
    ///
    /// `Install.*`, each of which says what to do.
    pub async fn get(&self, lines: &[flow::Line], anew: bool, say: Say<'_>, log: &str) -> Result<Environment, Failure> {
        check_urls(lines)?;
        if let Some(environment) = self.find(lines).filter(|_| !anew) {
            return Ok(environment);
        }
        let mut made = self.make(lines, say, log, anew).await;
        for _ in 0..2 {
            // What an index says changes, and its mirrors do not change together: a version that is new, or gone again.
            let stale = |failure: &Failure| STALE.contains(&failure.error.as_str());
            if !made.as_ref().is_err_and(stale) {
                break;
            }
            say(LineKind::Stage, "asking the index anew".into());
            made = self.make(lines, say, log, true).await;
        }
        made
    }

    /// The environment of a lock that was built here before; builds it again if it is gone.
    ///
    /// * `lines`: the requirements as they are now, for the indexes that they name.
    ///
    /// # Errors
    ///
    /// `Install.NoSuchLock`; else as [`Self::get`].
    pub async fn locked(
        &self,
        lock: &str,
        lines: &[flow::Line],
        say: Say<'_>,
        log: &str,
    ) -> Result<Environment, Failure> {
        if let Some(environment) = self.complete(lock) {
            return Ok(environment);
        }
        let gone = || {
            Failure::new(
                "Install.NoSuchLock",
                format!(
                    "The lock {lock} is not on this machine any more. Install what the requirements say: pfsession install."
                ),
            )
        };
        let pruned: Environment = fs::read(self.path(&format!("{lock}.gone.json")))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .ok_or_else(gone)?;
        let text = fs::read_to_string(self.path(&format!("{lock}.txt"))).map_err(|_| gone())?;
        let job = self.job(lines, say, log, false).await?;
        if pruned.base == pruned.key {
            let _held = self.hold(&format!("{lock}.lock"), say).await?;
            self.build_whole(&job, &pruned, &text).await?;
            return Ok(pruned);
        }
        let base = Box::pin(self.locked(&pruned.base, &[], say, log)).await?;
        let base_lock = fs::read_to_string(self.path(&format!("{}.txt", base.key))).map_err(|error| self.io(error))?;
        self.build_from(&job, &base, &base_lock, &text, &self.askers(lock))
            .await
    }

    /// Whether the environment of a lock was built on the image that there is now: a tag may stand for another one by now.
    pub fn is_on_this_root(&self, lock: &str) -> bool {
        let pruned = || serde_json::from_slice(&fs::read(self.path(&format!("{lock}.gone.json"))).ok()?).ok();
        let base = self.find_base().map(|base| base.key);
        let is_it = |environment: Environment| Some(environment.base) == base;
        self.root.is_none() || self.complete(lock).or_else(pruned).is_none_or(is_it)
    }

    /// What an environment has, and why.
    pub fn listed(&self, environment: &Environment, lines: &[flow::Line]) -> Listed {
        let mut asked_by = self.askers(&environment.base);
        for (name, askers) in self.askers(&environment.key) {
            let known = asked_by.entry(name).or_default();
            known.extend(askers);
            known.sort();
            known.dedup();
        }
        // What the root has is there, whether or not an environment's lock names it.
        packages::listed(
            &over(&self.root_lock(), &self.lock_of(&environment.key)),
            &self.lock_of(&environment.base),
            &asked_by,
            lines,
        )
    }

    /// Where the packages of one folder of environments are.
    pub fn site(&self, key: &str) -> PathBuf {
        self.path(key).join(self.python.site_packages())
    }

    /// Where in a session's own layer the packages are that its code has written.
    pub fn written(&self, layer: &Path) -> Written {
        Written {
            layer: layer.to_owned(),
            site: Path::new("upper").join(self.python.site_packages()),
        }
    }

    fn askers(&self, key: &str) -> AskedBy {
        let text = fs::read(self.path(&format!("{key}.asked-by.json"))).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write_askers(&self, key: &str, asked_by: &AskedBy) -> Result<(), Failure> {
        let text = serde_json::to_vec(asked_by).map_err(|error| self.io(error.into()))?;
        write_atomically(&self.path(&format!("{key}.asked-by.json")), &text).map_err(|error| self.io(error))
    }

    /// Begins a job: parses where its packages come from, and starts the broker that stands in for these places.
    async fn job<'a>(
        &self,
        lines: &'a [flow::Line],
        say: Say<'a>,
        log: &'a str,
        is_refreshing: bool,
    ) -> Result<Job<'a>, Failure> {
        let mut sources = Sources::of_owner(&uv::kept_variables())?;
        if !lines.is_empty() {
            sources.add(lines, &Feeds::read(&self.feeds)?)?;
        }
        let broker = Broker::start(broker::Config {
            feeds: sources.feeds(),
            insecure: sources.insecure().to_vec(),
            network: uv::network(),
            is_refreshing,
            downloads: downloads(&self.state),
        });
        let broker = broker.map_err(|error| self.io(error))?;
        let mut variables = uv::variables(&self.state.join("tools/home"));
        if self.reach.borrow().is_none() {
            // The proxy is not reached, and what the requirements name is reached directly.
            variables.retain(|name, _| !name.to_ascii_uppercase().ends_with("_PROXY"));
        }
        sources.tell_uv(&broker, &mut variables);
        let uv = uv::find(&self.state, &self.machine, &|text| say(LineKind::Stage, text)).await?;
        Ok(Job {
            uv,
            variables,
            secrets: sources.secrets(),
            sources,
            broker,
            lines,
            say,
            log,
        })
    }

    /// Makes an environment.
    ///
    /// * `is_refreshing`: whether every index is asked, whatever it said lately.
    async fn make(
        &self,
        lines: &[flow::Line],
        say: Say<'_>,
        log: &str,
        is_refreshing: bool,
    ) -> Result<Environment, Failure> {
        let base = match self.find_base() {
            Some(base) => base,
            None => self.build_base(&self.job(&[], say, log, is_refreshing).await?).await?,
        };
        if is_empty(lines) {
            return Ok(base);
        }
        self.build(&base, &self.job(lines, say, log, is_refreshing).await?)
            .await
    }

    async fn build_base(&self, job: &Job<'_>) -> Result<Environment, Failure> {
        let request = self.base_request();
        let _held = self.hold(&format!("{request}.lock"), job.say).await?;
        if let Some(base) = self.find_base() {
            return Ok(base);
        }
        (job.say)(
            LineKind::Stage,
            match &self.root {
                None => format!(
                    "building the base image {} on Python {}, once for this machine",
                    self.base.name,
                    self.python.minor()
                ),
                Some(root) => format!("building on the image {}, once for this machine", root.name),
            },
        );
        let root_lock = self.root_lock();
        let (lock, asked_by) = match self.resolve(job, &Over::Root(&root_lock)).await {
            // What is added takes the place of what the image has.
            Err(failure) if self.root.is_some() && is_conflict(&failure) => {
                self.resolve(job, &Over::Preferred(&root_lock)).await?
            }
            resolved => resolved?,
        };
        let lock = over(&root_lock, &lock);
        let key = digest(&[&request, &lock]);
        let environment = Environment {
            key: key.clone(),
            below: None,
            base: key,
            pure: true,
            pth: Vec::new(),
        };
        // Never built over: sessions may be looking at it.
        if self.complete(&environment.key).is_none() {
            self.write_askers(&environment.key, &asked_by)?;
            self.build_whole(job, &environment, &lock).await?;
        }
        self.remember(&request, &environment)?;
        Ok(environment)
    }

    async fn build(&self, base: &Environment, job: &Job<'_>) -> Result<Environment, Failure> {
        let request = self.request(&base.key, job.lines);
        let base_lock = fs::read_to_string(self.path(&format!("{}.txt", base.key))).map_err(|error| self.io(error))?;
        // Most requirements only add to the base: then nothing but them has to be asked for and looked at.
        let (lock, asked_by) = match self.resolve(job, &Over::Held(&base_lock)).await {
            Ok((lock, asked_by)) => {
                let added = blocks_not_in(&base_lock, &lock);
                if added.is_empty() {
                    self.remember(&request, base)?;
                    return Ok(base.clone());
                }
                (format!("{base_lock}{added}"), asked_by)
            }
            Err(failure) if is_conflict(&failure) => {
                let text = "the base image's versions do not fit: resolving all of them anew";
                (job.say)(LineKind::Stage, text.into());
                let resolved = self.resolve(job, &Over::Preferred(&base_lock)).await;
                // An index that has not the base image's packages says nothing of what is wanted.
                resolved.map_err(|second| match second.error.as_str() {
                    "Install.NoSuchPackage" => failure,
                    _ => second,
                })?
            }
            Err(failure) => return Err(failure),
        };
        let environment = self.build_from(job, base, &base_lock, &lock, &asked_by).await?;
        self.remember(&request, &environment)?;
        Ok(environment)
    }

    /// The environment of a lock over a base image.
    async fn build_from(
        &self,
        job: &Job<'_>,
        base: &Environment,
        base_lock: &str,
        lock: &str,
        asked_by: &AskedBy,
    ) -> Result<Environment, Failure> {
        let pure = pins(base_lock).is_subset(&pins(lock));
        // Without an overlay a layer can add to its base and not change it.
        let layered = pure || self.namespaces.get();
        let how = if layered { "layered" } else { "whole" };
        let key = digest(&["on", &base.key, how, &job.sources.identity(), lock]);
        let _held = self.hold(&format!("{key}.lock"), job.say).await?;
        if let Some(environment) = self.complete(&key) {
            return Ok(environment);
        }
        self.write_askers(&key, asked_by)?;
        let below = layered.then(|| base.key.clone());
        let mut environment = Environment {
            key,
            below,
            base: base.key.clone(),
            pure,
            pth: Vec::new(),
        };
        if layered {
            let added = pure.then(|| blocks_not_in(base_lock, lock));
            self.build_layer(job, &mut environment, lock, added.as_deref()).await?;
        } else {
            self.build_whole(job, &environment, lock).await?;
        }
        Ok(environment)
    }

    /// Resolves the requirements to a lock with hashes.
    async fn resolve(&self, job: &Job<'_>, over: &Over<'_>) -> Result<(String, AskedBy), Failure> {
        let folder = Scratch::new(&self.path("")).map_err(|error| self.io(error))?;
        let file = |name: &str| folder.0.join(name).display().to_string();
        let (input, limits, lock) = (file("requirements.txt"), file("constraints.txt"), file("lock.txt"));
        let own = |constraint: bool| {
            let lines = job
                .lines
                .iter()
                .filter(move |line| line.constraint == constraint && !line.text.starts_with('-'));
            lines.map(sources::requirement).collect::<Result<Vec<_>, _>>()
        };
        let (mut wanted, mut constraints) = (own(false)?, own(true)?);
        match over {
            Over::Root(root) => {
                wanted.extend(self.base_packages());
                constraints.extend(pins(root));
            }
            Over::Preferred(_) => wanted.extend(self.base_packages()),
            Over::Held(base) => constraints.extend(pins(base)),
        }
        if let (Over::Preferred(base), Some(family)) = (over, self.base.family) {
            constraints.extend(pins(base).into_iter().filter(|pin| pin.starts_with(family)));
        }
        // The plain base image has nothing in it.
        if wanted.is_empty() {
            return Ok((String::new(), AskedBy::default()));
        }
        (job.say)(
            LineKind::Stage,
            format!(
                "resolving {} requirement{}",
                wanted.len(),
                if wanted.len() == 1 { "" } else { "s" }
            ),
        );
        let prepare = || {
            fs::write(&input, wanted.join("\n") + "\n")?;
            fs::write(&limits, constraints.join("\n") + "\n")?;
            if let Over::Preferred(base) = over {
                fs::write(&lock, base)
            } else {
                Ok(())
            }
        };
        prepare().map_err(|error| self.io(error))?;
        let mut execute = words(&[
            &job.uv.display().to_string(),
            "pip",
            "compile",
            "--generate-hashes",
            "--no-header",
            "--annotation-style",
            "line",
        ]);
        execute.extend(words(&[
            "--python",
            &self.python.executable.display().to_string(),
            "--output-file",
            &lock,
        ]));
        if !constraints.is_empty() {
            execute.extend(words(&["--constraint", &limits]));
        }
        execute.extend(job.sources.resolving());
        execute.push(input);
        let mut sandbox = Sandbox {
            execute,
            ..self.builder(job)
        };
        sandbox.write.push((folder.0.clone(), folder.0.clone()));
        self.run(sandbox, job).await?;
        let annotated = read_lock(&folder.0)?;
        let (lock, asked_by) = packages::without_annotations(&annotated);
        let lock = packages::with_own_hashes(&lock, job.lines).map_err(|line| {
            Failure::new(
                "Install.HashMismatch",
                format!(
                    "{}:{}: no file of the index has a hash that this line promises. Do not trust it; see where the index has it from.",
                    line.file, line.number
                ),
            )
        })?;
        Ok((lock, asked_by))
    }

    /// Builds a whole environment at its place.
    async fn build_whole(&self, job: &Job<'_>, environment: &Environment, lock: &str) -> Result<(), Failure> {
        let place = self.path(&environment.key);
        remove(&place)
            .and_then(|()| fs::create_dir_all(&place))
            .map_err(|error| self.io(error))?;
        let mut lock_path = self.write_lock(&environment.key, lock)?;
        let mut lock = lock.to_owned();
        if let Some(root) = &self.root {
            lock = blocks_not_in(&root.lock(), &lock);
            lock_path = self.path(&format!("{}.added.txt", environment.key));
            self.see_root(root, &place)
                .and_then(|()| write_atomically(&lock_path, lock.as_bytes()))
                .map_err(|error| self.io(error))?;
        }
        let lock = lock.as_str();
        const SCRIPT: &str = r#"uv=$1 python=$2 place=$3; shift 3
            "$uv" venv --quiet --allow-existing --python "$python" "$place" && exec "$uv" pip sync --python "$place/bin/python" "$@""#;
        let mut execute = words(&["/bin/sh", "-c", SCRIPT, "sh", &job.uv.display().to_string()]);
        execute.extend([
            self.python.executable.display().to_string(),
            place.display().to_string(),
        ]);
        execute.extend(words(&["--compile-bytecode"]));
        execute.extend(require_hashes(lock));
        if lock.is_empty() {
            execute.extend(words(&["--allow-empty-requirements"]));
        }
        execute.extend(job.sources.installing());
        execute.push(lock_path.display().to_string());
        let mut sandbox = Sandbox {
            execute,
            ..self.builder(job)
        };
        sandbox.read.push(lock_path);
        sandbox.write.push((place.clone(), place.clone()));
        (job.say)(LineKind::Stage, format!("installing {} packages", pins(lock).len()));
        self.run(sandbox, job).await?;
        make_read_only(&place, None).await.map_err(tampered)?;
        let is_base = environment.base == environment.key;
        if !is_base || self.root.is_some() {
            let base = if is_base {
                self.root_lock()
            } else {
                self.lock_of(&environment.base)
            };
            let changed = changes(&base, lock);
            self.check_imports(job, &place, &[], &changed).await?;
        }
        self.mark(environment)
    }

    /// Has an environment see the packages of the root's own Python, behind its own.
    fn see_root(&self, root: &Root, place: &Path) -> io::Result<()> {
        let site = place.join(self.python.site_packages());
        fs::create_dir_all(&site)?;
        let lines = root.facts.sites.iter().map(|folder| {
            let folder = serde_json::to_string(folder)?;
            Ok(format!("import site; site.addsitedir({folder})\n"))
        });
        let lines: String = lines.collect::<io::Result<_>>()?;
        fs::write(site.join("pfsession_image.pth"), lines)
    }

    /// Builds what an environment adds to its base, as a layer over it.
    ///
    /// * `added`: the part of the lock that the base has not, if it has all the rest.
    async fn build_layer(
        &self,
        job: &Job<'_>,
        environment: &mut Environment,
        lock: &str,
        added: Option<&str>,
    ) -> Result<(), Failure> {
        let (place, partial) = (
            self.path(&environment.key),
            self.path(&format!("{}.partial", environment.key)),
        );
        let below = self.seen_at(environment);
        let (upper, work, list) = (partial.join("upper"), partial.join("work"), partial.join("install.txt"));
        let prepare = || {
            remove(&partial)?;
            remove(&place)?;
            fs::create_dir_all(&upper)?;
            fs::create_dir_all(&work)?;
            fs::write(&list, added.unwrap_or(lock))
        };
        prepare().map_err(|error| self.io(error))?;
        self.write_lock(&environment.key, lock)?;
        const SCRIPT: &str = r#"uv=$1 python=$2 site=$3 since=$4 compile=$5; shift 5
            "$uv" pip "$@" && exec "$python" -I -c "$compile" "$site" "$since""#;
        let (python, site) = (
            below.join("bin/python").display().to_string(),
            below.join(self.python.site_packages()),
        );
        let compiled = match self.namespaces.get() {
            true => site.clone(),
            false => upper.join(self.python.site_packages()),
        };
        let mut execute = words(&[
            "/bin/sh",
            "-c",
            SCRIPT,
            "sh",
            &job.uv.display().to_string(),
            &python,
            &compiled.display().to_string(),
        ]);
        execute.extend(words(&[&now().to_string(), COMPILE]));
        let overlaid = self.namespaces.get();
        execute.extend(match added {
            Some(_) => words(&["install", "--no-deps", "--requirement"]),
            None => words(&["sync"]),
        });
        execute.push(list.display().to_string());
        if !overlaid {
            execute.extend(words(&["--prefix", &upper.display().to_string()]));
        }
        execute.extend(words(&["--python", &python]));
        execute.extend(require_hashes(added.unwrap_or(lock)));
        execute.extend(job.sources.installing());
        let overlay = Overlay {
            lower: vec![below.clone()],
            upper: upper.clone(),
            work,
            at: vec![below.clone()],
        };
        let mut sandbox = Sandbox {
            execute,
            overlay: Some(overlay).filter(|_| overlaid),
            ..self.builder(job)
        };
        sandbox.read.push(list);
        if !overlaid {
            sandbox.read.push(below.clone());
            sandbox.write.push((upper.clone(), upper.clone()));
        }
        let changed = changes(&self.lock_of(&environment.base), lock);
        (job.say)(LineKind::Stage, format!("installing {} packages", changed.len()));
        self.run(sandbox, job).await?;
        environment.pth = new_pth_files(&upper, &self.python.site_packages(), &site).map_err(tampered)?;
        let shadows = make_read_only(&upper, Some(&below)).await.map_err(tampered)?;
        // What only adds files leaves what the base imports as it was.
        if shadows || !environment.pure {
            self.check_imports(job, &below, std::slice::from_ref(&upper), &changed)
                .await?;
        }
        let finish = || {
            fs::rename(&upper, &place)?;
            remove(&partial)
        };
        finish().map_err(|error| self.io(error))?;
        self.mark(environment)
    }

    /// The lock of an environment; empty if it is gone.
    fn lock_of(&self, key: &str) -> String {
        fs::read_to_string(self.path(&format!("{key}.txt"))).unwrap_or_default()
    }

    /// Loads what the base image's processes load, as a session of this environment will.
    ///
    /// * `above`: the layers over it, the uppermost first.
    ///
    /// # Errors
    ///
    /// `Install.Conflict`, with the package that breaks it. Final until the requirements name another one.
    async fn check_imports(
        &self,
        job: &Job<'_>,
        environment: &Path,
        above: &[PathBuf],
        changed: &[Change],
    ) -> Result<(), Failure> {
        if self.base.imports.is_empty() {
            return Ok(());
        }
        (job.say)(LineKind::Stage, format!("importing {}", self.base.name));
        let scratch = Scratch::new(&self.path("")).map_err(|error| self.io(error))?;
        let (upper, work) = (scratch.0.join("upper"), scratch.0.join("work"));
        for folder in [&upper, &work] {
            fs::create_dir(folder).map_err(|error| self.io(error))?;
        }
        let python = environment.join("bin/python").display().to_string();
        let mut execute = words(&[&python, "-I", "-c", IMPORT, &self.base.imports.join(" ")]);
        let mut sandbox = self.builder(job);
        if self.namespaces.get() {
            let lower = above.iter().cloned().chain([environment.to_owned()]).collect();
            sandbox.overlay = Some(Overlay {
                lower,
                upper,
                work,
                at: vec![environment.to_owned()],
            });
        } else {
            let sites = above.iter().map(|layer| layer.join(self.python.site_packages()));
            execute.extend(sites.map(|site| site.display().to_string()));
            sandbox
                .read
                .extend(above.iter().cloned().chain([environment.to_owned()]));
        }
        sandbox.execute = execute;
        match self.execute(sandbox, job).await? {
            Ended::Well => Ok(()),
            Ended::Failed { output, .. } => Err(import_failure(self.base.name, &output, changed, job)),
        }
    }

    /// What every build sees: the interpreter, uv, and what the machine's owner names.
    fn builder(&self, job: &Job<'_>) -> Sandbox {
        let mut read = vec![job.uv.clone(), self.python.prefix.clone()];
        read.extend(job.sources.local());
        match self.root {
            Some(_) => read.retain(|path| *path != self.python.prefix),
            None => read.retain(|path| !path.starts_with("/usr")),
        }
        read.extend(uv::certificates(&job.variables));
        Sandbox {
            namespaces: self.namespaces.get(),
            user: self.builder,
            // Environments and the cache are nobody's who builds.
            writes_as_root: true,
            root: self.state.join("tools/root"),
            read,
            variables: job.variables.clone(),
            seccomp: sandbox::seccomp(true),
            cores: 1,
            ..Sandbox::default()
        }
    }

    /// A folder for uv's cache, for one run of it. What a build script writes there is found by no other build, nor by the next step of its
    /// own: only the lock, which is checked, goes from one to the next.
    fn cache(&self) -> io::Result<Scratch> {
        let owners = std::env::var_os("UV_CACHE_DIR").map(PathBuf::from);
        Scratch::new(&owners.unwrap_or_else(|| self.path("")))
    }

    /// Runs a builder to its end, and names what fails.
    async fn run(&self, sandbox: Sandbox, job: &Job<'_>) -> Result<(), Failure> {
        let before = self.counts.read();
        let Ended::Failed { output, names_broker } = self.execute(sandbox, job).await? else {
            return Ok(());
        };
        let place = |package: &str| job.place(package);
        // uv knows only that the broker did not serve it.
        let mut failure = match job.broker.fault().filter(|_| names_broker) {
            Some(fault) => uv::fault_failure(&fault, &place, job.log),
            None => uv::failure(&output, &place, job.log),
        };
        failure.message += &reach::refused_since(&before, &self.counts.read());
        Err(failure)
    }

    /// Runs a program in a builder's sandbox to its end.
    async fn execute(&self, mut sandbox: Sandbox, job: &Job<'_>) -> Result<Ended, Failure> {
        let say = job.say;
        let scratch = Scratch::new(&self.path("")).map_err(|error| self.io(error))?;
        let cache = self.cache().map_err(|error| self.io(error))?;
        sandbox
            .variables
            .insert("UV_CACHE_DIR".into(), cache.0.display().to_string());
        // What a build script lays into its home folder is for nobody else.
        let (home, tmp) = (scratch.0.join("home"), scratch.0.join("tmp"));
        sandbox.write.extend([
            (home, self.state.join("tools/home")),
            (tmp, "/tmp".into()),
            (cache.0.clone(), cache.0.clone()),
        ]);
        for (folder, _) in &sandbox.write {
            fs::create_dir_all(folder).map_err(|error| self.io(error))?;
        }
        if let Some(root) = &self.root {
            let layer = scratch.0.join("root");
            sandbox.image = Some(root.under(&layer).map_err(|error| self.io(error))?);
            sandbox.variables.insert("PATH".into(), root.path().to_owned());
        }
        if !sandbox.namespaces {
            // Nothing is seen anywhere else than where it lies.
            for (name, folder) in [("HOME", "home"), ("TMPDIR", "tmp")] {
                let folder = scratch.0.join(folder).display().to_string();
                sandbox.variables.insert(name.into(), folder);
            }
        }
        let own = sandbox.namespaces && self.networks.get() && !self.reach.borrow().is_open();
        sandbox.network = if own { Network::Own } else { Network::Host };
        let (mut child, socket) =
            sandbox::start(&self.machine, &self.runner, &mut sandbox, Stdio::null(), Stdio::piped())
                .map_err(|error| self.io(error))?;
        // Both end with the build, and the other way round.
        let (_socket, _network) = match self.begin(socket, sandbox.network, job).await {
            Ok((isolation, socket, network)) => {
                if isolation.tier == Tier::D {
                    self.namespaces.set(false);
                }
                (socket, network)
            }
            Err(NotBegun::Namespaces(why)) if self.root.is_some() => return Err(no_sandbox(&why)),
            Err(NotBegun::Namespaces(why)) => {
                self.namespaces.set(false);
                tracing::warn!(why, "no sandbox can be made here: packages are built without one");
                if sandbox.overlay.is_some() {
                    let message =
                        format!("No sandbox can be made here ({why}). Start again: it is done without one then.");
                    return Err(Failure::new("Install.Failed", message));
                }
                sandbox.namespaces = false;
                sandbox.write.truncate(sandbox.write.len() - 3);
                return Box::pin(self.execute(sandbox, job)).await;
            }
            Err(NotBegun::Network(why)) => {
                self.networks.set(false);
                tracing::warn!(why, "a build cannot have a network of its own here");
                sandbox.write.truncate(sandbox.write.len() - 3);
                return Box::pin(self.execute(sandbox, job)).await;
            }
            Err(NotBegun::Fault(why)) => {
                let message = format!("The sandbox of the build failed: {why}. Start again.");
                return Err(Failure::new("Install.Failed", message));
            }
        };
        let mut output = String::new();
        let mut names_broker = false;
        let mut reader = BufReader::new(
            child
                .stderr
                .take()
                .ok_or_else(|| self.io(io::Error::other("no output")))?,
        );
        let (mut line, mut status, mut until) = (Vec::new(), None, None);
        loop {
            // What it has left behind may hold its output open, and write to it for ever.
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            tokio::select! {
                biased;
                read = reader.read_until(b'\n', &mut line) => if read.map_err(|error| self.io(error))? == 0 { break },
                ended = child.wait(), if status.is_none() => {
                    status = Some(ended.map_err(|error| self.io(error))?);
                    until = Some(Instant::now() + LAST_OUTPUT);
                    continue;
                }
                () = tokio::time::sleep(LAST_OUTPUT), if until.is_some() => break,
            }
            let text = String::from_utf8_lossy(&line);
            names_broker |= job.broker.is_in(&text);
            let mut text = flow::redact(&job.broker.told(text.trim_end()));
            line.clear();
            for secret in &job.secrets {
                text = text.replace(secret, "***");
            }
            if !text.is_empty() {
                match uv::stage(&text) {
                    Some(stage) => say(LineKind::Stage, stage),
                    None => say(LineKind::Stderr, text.clone()),
                }
            }
            if output.len() < 1 << 20 {
                output.push_str(&text);
                output.push('\n');
            }
        }
        let status = match status {
            Some(status) => status,
            None => child.wait().await.map_err(|error| self.io(error))?,
        };
        self.ended.set(Some(
            status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        ));
        Ok(match status.success() {
            true => Ended::Well,
            false => Ended::Failed { output, names_broker },
        })
    }

    /// Waits until the sandbox of a build is closed, gives it its network, and has it begin.
    async fn begin(
        &self,
        socket: StdStream,
        network: Network,
        job: &Job<'_>,
    ) -> Result<(Isolation, UnixStream, Option<Service>), NotBegun> {
        let fault = |error: io::Error| NotBegun::Fault(error.to_string());
        socket.set_nonblocking(true).map_err(fault)?;
        let mut words = Words::new(UnixStream::from_std(socket).map_err(fault)?);
        let isolation = loop {
            let line = words.next().await.map_err(fault)?;
            let line = line.ok_or_else(|| NotBegun::Fault("it ended before it was closed".into()))?;
            match Word::read(&line) {
                Some(Word::Isolated(isolation)) => break isolation,
                Some(Word::Cannot(why)) => return Err(NotBegun::Namespaces(why)),
                Some(Word::NoNetwork(why)) => return Err(NotBegun::Network(why)),
                Some(Word::Failed(why)) => return Err(NotBegun::Fault(why)),
                None => {}
            }
        };
        let (mut socket, _, descriptors) = words.into_parts();
        if network == Network::Host {
            return Ok((isolation, socket, None));
        }
        let rules = self.reach.borrow().rules_of_a_build(job.broker.place(), job.lines);
        let service = reach::serve(descriptors, rules, &self.counts, HashMap::new()).map_err(NotBegun::Fault)?;
        socket.write_all(b"{}\n").await.map_err(fault)?;
        Ok((isolation, socket, Some(service)))
    }

    fn write_lock(&self, key: &str, lock: &str) -> Result<PathBuf, Failure> {
        let path = self.path(&format!("{key}.txt"));
        write_atomically(&path, lock.as_bytes()).map_err(|error| self.io(error))?;
        Ok(path)
    }

    /// Says that an environment is complete. Nobody waits for the disk: until all of it is there, it counts only while the machine runs.
    fn mark(&self, environment: &Environment) -> Result<(), Failure> {
        let path = self.path(&format!("{}.json", environment.key));
        let _ = fs::remove_file(self.path(&format!("{}.gone.json", environment.key)));
        let write = |path: &Path, unsynced| {
            let environment = environment.clone();
            write_atomically(path, &serde_json::to_vec(&Made { environment, unsynced })?)
        };
        write(&path, Some(boot_id())).map_err(|error| self.io(error))?;
        let environment = environment.clone();
        std::thread::spawn(move || {
            let environment = environment;
            let folder = path.parent().unwrap_or(Path::new("/"));
            // SAFETY: the descriptor is open for as long as the file is.
            let is_synced = fs::File::open(folder).is_ok_and(|folder| unsafe { libc::syncfs(folder.as_raw_fd()) } == 0);
            let made = Made {
                environment,
                unsynced: None,
            };
            // Somebody may have removed it meanwhile.
            if is_synced && path.exists() {
                let _ = serde_json::to_vec(&made).map(|text| write_atomically(&path, &text));
            }
        });
        Ok(())
    }

    fn remember(&self, request: &str, environment: &Environment) -> Result<(), Failure> {
        let text = serde_json::to_vec(&Resolved {
            key: environment.key.clone(),
            at: now(),
        })
        .map_err(|error| self.io(error.into()))?;
        write_atomically(&self.path(&format!("index/{request}.json")), &text).map_err(|error| self.io(error))
    }

    /// Waits until nobody else holds the lock of this name.
    async fn hold(&self, name: &str, say: Say<'_>) -> Result<fs::File, Failure> {
        let file = fs::File::create(self.path(name)).map_err(|error| self.io(error))?;
        let mut waits = false;
        // SAFETY: the descriptor is open for as long as the file is.
        while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(self.io(error));
            }
            if !std::mem::replace(&mut waits, true) {
                say(
                    LineKind::Stage,
                    "waiting for another session that builds the same environment".into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(file)
    }

    fn io(&self, error: io::Error) -> Failure {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Failure::new(
                "Install.DiskFull",
                format!(
                    "There is no room in {}. Make some, and start again.",
                    self.state.display()
                ),
            ),
            _ => Failure::new(
                "Install.Failed",
                format!(
                    "The environments in {} cannot be written: {error}. Put that right, and start again.",
                    self.state.display()
                ),
            ),
        }
    }
}

/// What one build is done with.
struct Job<'a> {
    uv: PathBuf,
    variables: BTreeMap<String, String>,
    sources: Sources,
    broker: Broker,
    lines: &'a [flow::Line],
    /// What must be in no output.
    secrets: Vec<String>,
    say: Say<'a>,
    log: &'a str,
}

impl Job<'_> {
    /// Where the requirements name a package, as a file and a line.
    fn place(&self, package: &str) -> Option<String> {
        let wanted = package.to_ascii_lowercase().replace('_', "-");
        let is_it = |line: &&flow::Line| line.text.to_ascii_lowercase().replace('_', "-").starts_with(&wanted);
        let line = self.lines.iter().find(is_it).filter(|_| !wanted.is_empty())?;
        Some(format!("{}:{}", line.file, line.number))
    }
}

/// How a program in a builder's sandbox ended.
enum Ended {
    Well,
    Failed {
        /// All that it said, redacted; at most a mebibyte.
        output: String,
        names_broker: bool,
    },
}

/// A package that the base image does not have at this version.
struct Change {
    name: String,
    version: String,
    /// The base image's version, if it has the package.
    had: Option<String>,
}

fn changes(base: &str, lock: &str) -> Vec<Change> {
    let base: BTreeMap<String, String> = base.lines().filter_map(packages::pin).collect();
    let all = lock.lines().filter_map(packages::pin);
    all.filter(|(name, version)| base.get(name) != Some(version))
        .map(|(name, version)| Change {
            had: base.get(&name).cloned(),
            name,
            version,
        })
        .collect()
}

/// Imports modules, with further folders of packages before those of the environment. Says in one line which one fails, why, and the packages
/// that had a part in it.
const IMPORT: &str = r#"
import importlib, json, sys, traceback
sys.path[:0] = sys.argv[2:]
try:
    for name in sys.argv[1].split():
        importlib.import_module(name)
except BaseException as error:
    from importlib.metadata import packages_distributions
    owners = packages_distributions()
    modules = [frame.f_globals.get('__name__', '') for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules.append(getattr(error, 'name', None) or '')
    packages = [package for module in reversed(modules) for package in owners.get(module.partition('.')[0], ())]
    traceback.print_exc()
    why = f'{type(error).__name__}: {error}'.splitlines()[0][:300]
    sys.exit('pfsession: ' + json.dumps({'module': name, 'why': why, 'packages': packages}))
"#;

/// What [`IMPORT`] says of a module that it could not import.
#[derive(Deserialize)]
struct NotImported {
    module: String,
    why: String,
    packages: Vec<String>,
}

fn import_failure(base: &str, output: &str, changed: &[Change], job: &Job<'_>) -> Failure {
    let said = output.lines().rev().find_map(|line| line.strip_prefix("pfsession: "));
    let said = said
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(NotImported {
            module: base.to_owned(),
            why: "the import ended without a word".to_owned(),
            packages: Vec::new(),
        });
    let seen = said.packages.iter().map(|name| packages::normalized(name));
    let seen: Vec<&Change> = seen
        .filter_map(|name| changed.iter().find(|change| change.name == name))
        .collect();
    // The innermost that is not the base image's; else any of them may be it.
    let suspects: Vec<&Change> = match seen.first() {
        Some(first) => vec![first],
        None => changed.iter().filter(|change| change.had.is_some()).take(5).collect(),
    };
    let named: Vec<String> = suspects
        .iter()
        .map(|change| match &change.had {
            Some(had) => format!("{} {} (the base image has {had})", change.name, change.version),
            None => format!("{} {}", change.name, change.version),
        })
        .collect();
    let place = suspects.first().and_then(|change| job.place(&change.name));
    let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
    let named = match named.is_empty() {
        true => "these packages".to_owned(),
        false => named.join(", "),
    };
    Failure::new(
        "Install.Conflict",
        format!(
            "{place}{} of the base image {base} cannot be imported beside {named}: {}. Take another version in the requirements, and start again. \
             The whole output is in {}.",
            said.module,
            said.why.trim_end_matches('.'),
            job.log
        ),
    )
}

/// Why a build has not begun, in words.
enum NotBegun {
    /// This machine bars sandboxes.
    Namespaces(String),
    /// It bars networks of their own.
    Network(String),
    Fault(String),
}

/// An image has no root without a sandbox.
fn no_sandbox(why: &str) -> Failure {
    let message = format!(
        "A session on an image needs a sandbox, and this machine lets none be made ({why}). Allow user namespaces, or name the base image {} \
         or {}.",
        flow::DEFAULT_IMAGE,
        flow::PLAIN_IMAGE
    );
    Failure::new("Image.NoSandbox", message)
}

fn is_conflict(failure: &Failure) -> bool {
    matches!(failure.error.as_str(), "Install.Conflict" | "Install.NoSuchVersion")
}

/// The lock of what is there when one lock is installed over another.
fn over(below: &str, lock: &str) -> String {
    let names: BTreeMap<String, String> = lock.lines().filter_map(packages::pin).collect();
    let stays = |line: &&str| {
        packages::pin(line).is_some_and(|(name, version)| names.get(&name).is_none_or(|new| *new == version))
    };
    let kept: String = below.lines().filter(stays).map(|line| format!("{line}\n")).collect();
    kept + &blocks_not_in(below, lock)
}

/// What is known before requirements are resolved.
enum Over<'a> {
    /// The base image itself is resolved, over what its root has.
    Root(&'a str),
    /// The versions of this lock are kept; the requirements alone are resolved.
    Held(&'a str),
    /// The versions of this lock are taken where they can be; those of the base image's own packages are kept.
    Preferred(&'a str),
}

/// Compiles what is newer than a time, in seconds since 1970; several at once if it is much.
const COMPILE: &str = r#"
import compileall, os, sys
from concurrent.futures import ProcessPoolExecutor
site, since = sys.argv[1], int(sys.argv[2])
def compile(path):
    return compileall.compile_file(path, quiet=2)
files = [os.path.join(folder, name) for folder, _, names in os.walk(site) for name in names if name.endswith('.py')]
files = [path for path in files if os.stat(path).st_ctime >= since]
if len(files) > 200:
    with ProcessPoolExecutor() as pool:
        list(pool.map(compile, files, chunksize=50))
else:
    list(map(compile, files))
"#;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn is_empty(lines: &[flow::Line]) -> bool {
    lines.iter().all(|line| line.constraint || line.text.starts_with('-'))
}

/// A lock would hold the credential of a requirement's own URL.
fn check_urls(lines: &[flow::Line]) -> Result<(), Failure> {
    for line in lines
        .iter()
        .filter(|line| !line.text.starts_with('-') && line.text.contains("://"))
    {
        if flow::redact(&line.text) != line.text || line.text.contains(private::PLACEHOLDER) {
            return Err(Failure::new(
                "Install.BadRequirement",
                format!(
                    "{}:{}: the URL of a package holds a credential or a query, which would be kept in files. Name the package, and its index by \
                     --extra-index-url.",
                    line.file, line.number
                ),
            ));
        }
    }
    Ok(())
}

/// `name==version` of every package in a lock.
fn pins(lock: &str) -> BTreeSet<String> {
    let lines = lock
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()));
    lines
        .map(|line| line.split([' ', ';', '\\']).next().unwrap_or_default().to_owned())
        .collect()
}

/// What has uv insist on hashes, where a lock has them all. The pages that `--find-links` names have none to offer.
fn require_hashes(lock: &str) -> Option<String> {
    let mut lines = lock.lines().peekable();
    let mut bare = false;
    while let Some(line) = lines.next() {
        let begins = packages::pin(line).is_some();
        bare |= begins
            && !lines
                .peek()
                .is_some_and(|next| next.trim_start().starts_with("--hash="));
    }
    (!bare).then(|| "--require-hashes".to_owned())
}

/// The packages of a lock, with their hashes, that are not at that version in the base's.
fn blocks_not_in(base: &str, lock: &str) -> String {
    let base = pins(base);
    let mut new = false;
    let mut text = String::new();
    for line in lock.lines() {
        if line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            new = pins(line).is_disjoint(&base);
        }
        if new {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The most that a build may leave behind: an environment of its own size is not too much, what a script makes up to wear the machine out is.
const MOST: Limits = Limits {
    depth: 64,
    entries: 1_000_000,
    bytes: 64 << 30,
};

/// The most bytes of a lock: some 10,000 packages with all their hashes.
const MOST_LOCK: u64 = 32 << 20;

/// Reads what a resolver wrote. Build scripts ran beside it, so this may be anything by now.
fn read_lock(folder: &Path) -> Result<String, Failure> {
    let bytes = Folder::open(folder)
        .and_then(|folder| folder.read_bounded(Path::new("lock.txt"), MOST_LOCK))
        .map_err(tampered)?;
    let text = String::from_utf8(bytes).map_err(|_| tampered(io::Error::other("the lock is no text")))?;
    match packages::check_lock(&text) {
        Ok(()) => Ok(text),
        // What the line says is not told: it may be no line of the lock's.
        Err(_) => Err(tampered(io::Error::other(
            "the lock has a line that no resolver writes",
        ))),
    }
}

/// The failure of a build that left something else than it should.
fn tampered(error: io::Error) -> Failure {
    Failure::new(
        "Install.Tampered",
        format!(
            "What the build left behind is not what uv makes: {error}. A package's build script may have done it: see which packages are built from \
             source, and take versions that have a wheel."
        ),
    )
}

/// Whether a file of a layer takes the place of one below it, or makes a package of a folder there that is none.
fn is_shadow(entry: &Entry<'_>, below: &Path) -> bool {
    if entry.kind == FileType::Directory || entry.path.components().any(|part| part.as_os_str() == "__pycache__") {
        return false;
    }
    let lower = below.join(entry.path);
    let is_new_package = || entry.name == "__init__.py" && lower.parent().is_some_and(Path::exists);
    lower.symlink_metadata().is_ok() || is_new_package()
}

fn new_pth_files(upper: &Path, site: &Path, below: &Path) -> io::Result<Vec<String>> {
    let site = match Folder::open(upper)?.folder(site) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        site => site?,
    };
    let names = site.names(MOST.entries)?.into_iter();
    let new = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".pth") && !below.join(name).exists());
    Ok(new.collect())
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Which boot of the machine this is.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Holds an environment in use, and notes that it is. Waits while it is looked at for whether it may go.
pub(crate) fn hold(environments: &Path, key: &str) -> io::Result<fs::File> {
    let path = environments.join(format!("{key}.used"));
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    file.lock_shared()?;
    file.set_modified(SystemTime::now())?;
    Ok(file)
}

/// Takes the right to write, and to run as somebody else, away from every file; folders keep theirs, as a session's own layer inherits their
/// rights.
///
/// * `below`: what it is a layer over. Whether a file of the layer changes what was there: see [`is_shadow`].
async fn make_read_only(folder: &Path, below: Option<&Path>) -> io::Result<bool> {
    let (folder, below) = (folder.to_owned(), below.map(Path::to_owned));
    // A lease is renewed meanwhile.
    let walk = tokio::task::spawn_blocking(move || {
        let mut shadows = false;
        Folder::open(&folder)?.walk(&MOST, |entry| {
            shadows = shadows || below.as_ref().is_some_and(|below| is_shadow(entry, below));
            match entry.kind {
                FileType::RegularFile => entry.set_mode(entry.stat.st_mode & 0o555),
                _ => Ok(()),
            }
        })?;
        Ok(shadows)
    });
    walk.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_there_is_what_was_below_but_for_what_took_its_place() {
        let below = "a==1\nb==2\nc==3\n";
        let lock = "b==2 \\\n    --hash=sha256:1\nc==4 \\\n    --hash=sha256:2\nd==5 \\\n    --hash=sha256:3\n";
        let there = over(below, lock);
        assert_eq!(
            pins(&there).into_iter().collect::<Vec<_>>(),
            ["a==1", "b==2", "c==4", "d==5"]
        );
        assert_eq!(over(below, ""), below);
        let text = no_sandbox("unshare: not permitted").to_string();
        let begins = "Image.NoSandbox: A session on an image needs a sandbox, and this machine lets none be made (unshare: not permitted). ";
        assert!(text.starts_with(begins), "{text}");
    }

    #[test]
    fn a_lock_is_read_only_if_it_is_a_file_of_what_a_resolver_writes() {
        let place = tempfile::tempdir().unwrap();
        let (secret, scratch) = (place.path().join("secret"), place.path().join("scratch"));
        fs::create_dir(&scratch).unwrap();
        fs::write(&secret, "root:hidden==1\n").unwrap();
        let lock = scratch.join("lock.txt");
        let refused = |what: &str| {
            let failure = read_lock(&scratch).unwrap_err();
            let text = failure.to_string();
            let begins = "Install.Tampered: What the build left behind is not what uv makes: ";
            let ends = "take versions that have a wheel.";
            assert!(text.starts_with(begins) && text.ends_with(ends), "{what}: {text}");
            assert!(!text.contains("hidden"), "{what}: {text}");
        };
        symlink(&secret, &lock).unwrap();
        refused("a link");
        fs::remove_file(&lock).unwrap();
        refused("nothing");
        fs::create_dir(&lock).unwrap();
        refused("a folder");
        fs::remove_dir(&lock).unwrap();
        fs::write(&lock, "a==1\n--find-links http://hidden/,/host\n").unwrap();
        refused("a line of another kind");
        fs::write(&lock, b"a==1 # \xff\n").unwrap();
        refused("no text");
        fs::File::create(&lock).unwrap().set_len(MOST_LOCK + 1).unwrap();
        refused("too much");
        fs::write(&lock, "a==1\n").unwrap();
        assert_eq!(read_lock(&scratch).unwrap(), "a==1\n");
    }

    #[tokio::test]
    async fn what_a_build_leaves_is_made_read_only_and_nothing_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let (outside, built) = (place.path().join("outside"), place.path().join("built"));
        fs::create_dir_all(built.join("lib")).unwrap();
        fs::write(&outside, "").unwrap();
        fs::write(built.join("lib/program"), "").unwrap();
        symlink(&outside, built.join("lib/link")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(built.join("lib/program"), fs::Permissions::from_mode(0o6755)).unwrap();
        make_read_only(&built, None).await.unwrap();
        assert_eq!((mode(&outside), mode(&built.join("lib/program"))), (0o644, 0o555));
    }
}
