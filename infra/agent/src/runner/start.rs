//! Starts a runner over an environment: a fork of the warm process, or a fresh interpreter.

use super::{
    Runner,
    said::{Runs, Said, listen, read},
};
use crate::{
    folders::Folders,
    sandboxes::{note, note_groups},
    variables::variables,
    warm,
};
use environments::{
    Environment,
    reach::{self, Reach},
    store::Store,
    uv,
};
use lifecycle::size::Limits;
use network::Counts;
use sandbox::{
    Isolation, Network, Overlay, Sandbox, Tier,
    control::Words,
    groups::{self, Place},
    process::{Held, Identity},
};
use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    fs, io,
    net::SocketAddr,
    os::unix::net::UnixStream as StdStream,
    path::{Path, PathBuf},
    process::Stdio,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::UnixStream,
    process::Child,
};

/// The longest time that a sandbox may take to close; a machine under load needs some.
const CLOSING: Duration = Duration::from_secs(20);

/// The port of the gateway that leads to the session's broker of model providers.
const BROKER: u16 = 80;

/// The most of a runner's own errors that goes to the log.
const MOST_ERRORS: u64 = 64 << 10;

/// The arguments of a runner's start.
pub(crate) struct Start<'a> {
    pub(crate) folders: &'a Folders,
    pub(crate) store: &'a Store,
    pub(crate) environment: &'a Environment,
    /// The places where groups can be made.
    pub(crate) places: &'a [Place],
    /// The limits of the VM size; `None` is the whole machine.
    pub(crate) limits: Option<Limits>,
    /// Its user on this machine, if it is not this process's own.
    pub(crate) user: Option<u32>,
    /// Its network settings.
    pub(crate) reach: &'a Reach,
    /// The counts of what is refused of that.
    pub(crate) counts: &'a Counts,
    /// The address of its broker of model providers.
    pub(crate) door: SocketAddr,
}

/// A runner that has not spoken yet.
struct Begun {
    /// A fork of the warm process has none here.
    parent: Option<Child>,
    layer: PathBuf,
    held: Rc<Vec<fs::File>>,
    user: Option<u32>,
    network: Network,
}

impl Start<'_> {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// Why no sandbox could be made, in words. Worth one more try.
    pub(crate) async fn start(self) -> Result<Rc<Runner>, String> {
        let text = |error: io::Error| error.to_string();
        self.folders.make().map_err(text)?;
        let held = self.store.hold_use(self.environment).map_err(text)?;
        let held = Rc::new(held.ok_or("its environment was removed, as nobody had used it for long")?);
        let layer = self.folders.session.join("layers").join(crate::random());
        fs::create_dir_all(layer.join("upper"))
            .and_then(|()| fs::create_dir_all(layer.join("work")))
            .map_err(text)?;
        let mut sandbox = self.sandbox(&layer)?;
        self.set_network(&mut sandbox);
        if sandbox.namespaces {
            if let Some(runner) = self.fork_warm(&mut sandbox, &layer, &held).await {
                return Ok(runner);
            }
            sandbox.namespaces = self.store.namespaces.get();
            sandbox.user = self.user;
            self.set_network(&mut sandbox);
        }
        // Not this process's own streams: what runs in a session would have the log's file, and
        // could write all over it.
        let (mut child, socket) = sandbox::start(
            &self.store.machine,
            &self.store.runner,
            &mut sandbox,
            Stdio::null(),
            Stdio::piped(),
        )
        .map_err(text)?;
        if let Some(errors) = child.stderr.take() {
            tokio::task::spawn_local(log_errors(errors));
        }
        let begun = Begun {
            parent: Some(child),
            layer,
            held,
            user: sandbox.user,
            network: sandbox.network,
        };
        self.greet(socket, begun).await
    }

    /// The sandbox, but for its network.
    fn sandbox(&self, layer: &Path) -> Result<Sandbox, String> {
        let text = |error: io::Error| error.to_string();
        let packages = self.store.seen_at(self.environment);
        let home = self.folders.state.join("tools/home");
        let mut block = variables(&home, &packages);
        let mut read = vec![self.store.runner.clone()];
        let mut image = None;
        match self.store.sandbox_root() {
            None => read.push(self.store.python.prefix.clone()),
            Some(root) if self.store.namespaces.get() => {
                root.add_variables(&mut block);
                image = root.under(&layer.join("root")).map_err(text)?;
            }
            Some(_) => {
                return Err(
                    "an image needs a sandbox, and this machine lets none be made: allow user namespaces".into(),
                );
            }
        }
        read.extend(uv::certificates(&block));
        read.retain(|path| !path.starts_with("/usr"));
        let mut sandbox = Sandbox {
            namespaces: self.store.namespaces.get(),
            user: self.user,
            root: self.folders.session.join("root"),
            read,
            write: vec![
                (self.folders.work(), self.folders.work()),
                (self.folders.session.join("home"), home),
                (self.folders.session.join("tmp"), "/tmp".into()),
            ],
            overlay: Some(Overlay {
                lower: self.store.lower(self.environment),
                upper: layer.join("upper"),
                work: layer.join("work"),
                at: vec![packages.clone()],
            }),
            python: match self.store.sandbox_root() {
                // The process that closes the sandbox goes on as its runner.
                Some(root) if !root.has_python() => PathBuf::new(),
                _ => packages.join("bin/python"),
            },
            site: packages.join(self.store.python.site_packages()),
            pth: self.environment.pth.clone(),
            cores: cores(self.limits),
            groups: groups::groups_with_limits(self.places, self.limits),
            size: self.limits.map(|limits| (limits.cpus, limits.memory)),
            import: self.store.base.runs_flows,
            image,
            ..Sandbox::default()
        };
        if !sandbox.namespaces {
            self.lay_beside(layer, &mut sandbox, &mut block).map_err(text)?;
        }
        sandbox.variables = block;
        Ok(sandbox)
    }

    /// Without namespaces nothing is laid over the environment: what comes to it lies beside it.
    fn lay_beside(&self, layer: &Path, sandbox: &mut Sandbox, block: &mut BTreeMap<String, String>) -> io::Result<()> {
        let written = self.store.own_packages(layer).path();
        fs::create_dir_all(&written)?;
        sandbox.sites = vec![written.clone()];
        let layers = std::iter::once(&self.environment.key).filter(|_| self.environment.below.is_some());
        sandbox.sites.extend(layers.map(|key| self.store.site(key)));
        sandbox.read.extend(self.store.lower(self.environment));
        sandbox.write.push((layer.to_owned(), layer.to_owned()));
        sandbox.overlay = None;
        let sites: Vec<String> = sandbox.sites.iter().map(|site| site.display().to_string()).collect();
        for (name, value) in [
            ("HOME", self.folders.session.join("home").display().to_string()),
            ("TMPDIR", self.folders.session.join("tmp").display().to_string()),
            ("PYTHONPATH", sites.join(":")),
            ("PIP_TARGET", written.display().to_string()),
        ] {
            block.insert(name.into(), value);
        }
        Ok(())
    }

    fn set_network(&self, sandbox: &mut Sandbox) {
        let own = sandbox.namespaces && self.store.networks.get() && !self.reach.is_open();
        sandbox.network = if own { Network::Own } else { Network::Host };
        sandbox.seccomp = sandbox::seccomp(own || self.reach.needs_sockets());
    }

    /// A fork of the warm process, if there is one and it serves.
    async fn fork_warm(&self, sandbox: &mut Sandbox, layer: &Path, held: &Rc<Vec<fs::File>>) -> Option<Rc<Runner>> {
        let kind = warm::Kind::of(self.store, self.environment);
        let socket = warm::connect(&self.folders.state, self.store, kind, self.user, sandbox.network)?;
        if let Err(error) = sandbox::send(sandbox, &socket) {
            tracing::warn!(%error, "the warm process has gone; a fresh interpreter serves");
            return None;
        }
        let begun = Begun {
            parent: None,
            layer: layer.to_owned(),
            held: Rc::clone(held),
            user: sandbox.user,
            network: sandbox.network,
        };
        match self.greet(socket, begun).await {
            Ok(runner) => Some(runner),
            Err(why) => {
                tracing::warn!(why, "the warm process does not serve; a fresh interpreter does");
                None
            }
        }
    }

    /// Waits for a runner's first words.
    async fn greet(&self, socket: StdStream, begun: Begun) -> Result<Rc<Runner>, String> {
        let text = |error: io::Error| error.to_string();
        socket.set_nonblocking(true).map_err(text)?;
        let mut words = Words::new(UnixStream::from_std(socket).map_err(text)?);
        let mut first = First::default();
        let greeting = async {
            loop {
                let line = words.next().await.map_err(text)?;
                let said = read(&line.ok_or("it ended before it was ready")?)?;
                if self.take(said, &mut first)? {
                    return Ok::<_, String>(());
                }
            }
        };
        let greeted = tokio::time::timeout(CLOSING, greeting).await;
        if let Err(why) = greeted.unwrap_or_else(|_| Err("it took too long".to_owned())) {
            // An interpreter that is still loading does not see that nobody listens any more.
            first.process.iter().for_each(Held::kill);
            return Err(why);
        }
        let (Some(process), Some(mut isolation)) = (first.process, first.isolation) else {
            return Err("it did not say what it is".to_owned());
        };
        let (stream, beyond, descriptors) = words.into_parts();
        let network = match begun.network {
            Network::Own => {
                let doors = HashMap::from([(BROKER, self.door)]);
                Some(reach::serve(descriptors, self.reach.rules(), self.counts, doors)?)
            }
            Network::Host => {
                let not_held = self.reach.not_held(isolation.tier != Tier::D);
                isolation.not_held.extend(not_held.map(str::to_owned));
                None
            }
        };
        let (reader, writer) = stream.into_split();
        let reader = BufReader::new(io::Cursor::new(beyond).chain(reader));
        let (runs, dead) = (Runs::default(), Rc::new(Cell::new(false)));
        tokio::task::spawn_local(listen(reader, Rc::clone(&runs), Rc::clone(&dead)));
        Ok(Rc::new(Runner {
            environment: self.environment.clone(),
            isolation,
            from_warm: begun.parent.is_none(),
            user: begun.user,
            process,
            writer: tokio::sync::Mutex::new(writer),
            runs,
            dead,
            written: self.store.own_packages(&begun.layer),
            layer: begun.layer,
            _parent: begun.parent,
            groups: first.groups,
            _held: begun.held,
            is_open: self.reach.is_open(),
            has_sockets: self.reach.needs_sockets(),
            network,
        }))
    }

    /// Takes one of the first words. Whether it is the last of them.
    fn take(&self, said: Said, first: &mut First) -> Result<bool, String> {
        let text = |error: io::Error| error.to_string();
        match said {
            Said::Process { pid, start } => {
                note(self.folders, Identity { pid, start }).map_err(text)?;
                first.process = Some(Identity { pid, start }.open().ok_or("it ended at once")?);
            }
            Said::Isolated { isolated } => first.isolation = Some(isolated),
            Said::Groups { groups } => {
                note_groups(self.folders, &groups).map_err(text)?;
                first.groups = groups;
            }
            Said::Ready { .. } => return Ok(true),
            Said::Cannot { cannot } => {
                self.store.namespaces.set(false);
                return Err(cannot);
            }
            Said::NoNetwork { no_network } => {
                tracing::warn!(why = no_network, "a sandbox cannot have a network of its own here");
                self.store.networks.set(false);
                return Err(no_network);
            }
            Said::Failed { failed } => return Err(failed),
            _ => {}
        }
        Ok(false)
    }
}

/// A runner, as its first messages describe it.
#[derive(Default)]
struct First {
    process: Option<Held>,
    isolation: Option<Isolation>,
    groups: Vec<PathBuf>,
}

/// The most processes of one run that may work at once.
fn cores(limits: Option<Limits>) -> usize {
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    limits.map_or(there, |limits| there.min(limits.cpus as usize).max(1))
}

/// Logs what a runner writes to standard error, and reads the rest away.
async fn log_errors(errors: tokio::process::ChildStderr) {
    let mut lines = BufReader::new(errors.take(MOST_ERRORS)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::warn!(line, "the runner wrote to standard error");
    }
    let mut rest = lines.into_inner().into_inner().into_inner();
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}
