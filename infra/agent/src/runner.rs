//! A session's runner, seen from outside its sandbox.

use crate::{
    folders::Folders,
    sandboxes::{note, note_groups, remove_groups},
    variables::variables,
    warm,
};
use environments::{
    Environment,
    packages::Written,
    reach::{self, Reach},
    scratch,
    store::Store,
    uv,
};
use lifecycle::size::Limits;
use network::{Counts, GATEWAY, Service};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sandbox::{
    Isolation, Network, Overlay, Sandbox, Tier,
    control::Words,
    groups::{self, Place},
    process::{Held, Identity},
};
use serde::Deserialize;
use serde_json::Value;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    path::PathBuf,
    process::Stdio,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Chain, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
};

/// How long a sandbox may take to close; a machine under load needs some.
const CLOSING: Duration = Duration::from_secs(20);

/// How long what is in a sandbox may take to end.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// What a runner says.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Process {
        pid: i32,
        start: u64,
    },
    Cannot {
        cannot: String,
    },
    /// It comes with the sockets of its network.
    Network {
        #[allow(dead_code, reason = "the sockets are what counts")]
        network: bool,
    },
    NoNetwork {
        no_network: String,
    },
    Groups {
        groups: Vec<PathBuf>,
    },
    Isolated {
        isolated: Isolation,
    },
    Ready {
        #[allow(dead_code, reason = "the word is what counts")]
        ready: Value,
    },
    Failed {
        failed: String,
    },
    Cold {
        cold: String,
    },
    Warm {
        warm: bool,
    },
    Of(About),
}

/// What a runner says of a run.
#[derive(Debug, Deserialize)]
pub(crate) struct About {
    of: String,
    #[serde(flatten)]
    pub(crate) what: What,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum What {
    /// Lines of standard output; the last goes on in the next such word if `goes_on`.
    Out {
        out: Vec<String>,
        #[serde(default)]
        goes_on: bool,
    },
    Err {
        err: Vec<String>,
        #[serde(default)]
        goes_on: bool,
    },
    /// The output of a line of data as JSON text, which may hold what [`Value`] cannot.
    Line {
        line: u64,
        number: i64,
        text: Option<String>,
        wrong: Option<contract::Failure>,
        /// What promptflow says of it, and of its nodes by name, as JSON texts.
        #[serde(default)]
        record: Option<String>,
        #[serde(default)]
        nodes: Vec<(String, String)>,
    },
    /// A piece of an output that is streamed.
    Chunk {
        chunk: Piece,
    },
    /// What it says of the nodes of the aggregation.
    Nodes {
        nodes: Vec<(String, String)>,
    },
    Metrics {
        metrics: String,
    },
    Done {
        done: Value,
        crashed: Option<i32>,
    },
}

/// What a run says of an output before its end; its bounds are in `stream.py`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Piece {
    /// The outputs that come whole, as a JSON text, and the names of those that come in pieces.
    Begins {
        outputs: Option<String>,
        names: Vec<String>,
    },
    GoesOn {
        name: String,
        text: String,
    },
}

/// A runner that has its sandbox closed around it.
pub(crate) struct Runner {
    pub(crate) environment: Environment,
    pub(crate) isolation: Isolation,
    /// Whether it was a fork of the warm process.
    pub(crate) from_warm: bool,
    /// The user that it is on this machine, if another than this process's own.
    pub(crate) user: Option<u32>,
    process: Held,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    runs: Rc<RefCell<HashMap<String, UnboundedSender<What>>>>,
    dead: Rc<Cell<bool>>,
    /// Its own layer, and where in that the packages are that its own code has written.
    layer: PathBuf,
    pub(crate) written: Written,
    /// The fresh interpreter that it came from; ends with this.
    _parent: Option<tokio::process::Child>,
    /// The groups that it is in.
    groups: Vec<PathBuf>,
    /// What holds its environment.
    _held: Rc<Vec<fs::File>>,
    /// Its own network, if it has one; else whether it is meant to have this machine's, and whether it has sockets of the internet.
    network: Option<Service>,
    is_open: bool,
    has_sockets: bool,
}

/// What a runner that has not spoken yet was begun with.
struct Begun<'a> {
    /// A fork of the warm process has none here.
    parent: Option<tokio::process::Child>,
    layer: PathBuf,
    held: Rc<Vec<fs::File>>,
    user: Option<u32>,
    network: Network,
    reach: &'a Reach,
    counts: &'a Counts,
    door: SocketAddr,
}

/// The port of the gateway that leads to the session's broker of model providers.
const BROKER: u16 = 80;

impl Runner {
    /// Starts a runner over `environment`: a fork of the warm process if there is one and it serves, else a fresh interpreter.
    ///
    /// # Errors
    ///
    /// Why no sandbox could be made, in words. Worth one more try.
    ///
    /// * `limits`: what the VM size gives; `None` is the whole machine.
    /// * `user`: who it is on this machine, if another than this process's own.
    /// * `reach`: what it may reach of the network; `counts`: where what is refused of that is counted; `door`: where its broker of model
    ///   providers is.
    pub(crate) async fn start(
        folders: &Folders,
        store: &Store,
        environment: &Environment,
        places: &[Place],
        limits: Option<Limits>,
        user: Option<u32>,
        (reach, counts, door): (&Reach, &Counts, SocketAddr),
    ) -> Result<Rc<Self>, String> {
        let text = |error: io::Error| error.to_string();
        folders.make().map_err(text)?;
        let held = store.hold_use(environment).map_err(text)?;
        let held = Rc::new(held.ok_or("its environment was removed, as nobody had used it for long")?);
        let layer = folders.session.join("layers").join(crate::random());
        let (upper, work) = (layer.join("upper"), layer.join("work"));
        fs::create_dir_all(&upper)
            .and_then(|()| fs::create_dir_all(&work))
            .map_err(text)?;
        let packages = store.seen_at(environment);
        let home = folders.state.join("tools/home");
        let mut block = variables(&home, &packages);
        let mut read = vec![store.runner.clone()];
        let mut image = None;
        match &store.root {
            None => read.push(store.python.prefix.clone()),
            Some(root) if store.namespaces.get() => {
                root.add_variables(&mut block);
                image = Some(root.under(&layer.join("root")).map_err(text)?);
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
            namespaces: store.namespaces.get(),
            user,
            root: folders.session.join("root"),
            read,
            write: vec![
                (folders.work(), folders.work()),
                (folders.session.join("home"), home),
                (folders.session.join("tmp"), "/tmp".into()),
            ],
            overlay: Some(Overlay {
                lower: store.lower(environment),
                upper,
                work,
                at: vec![packages.clone()],
            }),
            python: packages.join("bin/python"),
            site: packages.join(store.python.site_packages()),
            pth: environment.pth.clone(),
            cores: cores(limits),
            groups: groups::limited(places, limits),
            size: limits.map(|limits| (limits.cpus, limits.memory)),
            import: store.base.runs_flows,
            image,
            ..Sandbox::default()
        };
        if !sandbox.namespaces {
            // Nothing is laid over the environment: what comes to it lies beside it.
            let written = store.written(&layer).path();
            fs::create_dir_all(&written).map_err(text)?;
            sandbox.sites = vec![written.clone()];
            let layers = std::iter::once(&environment.key).filter(|_| environment.below.is_some());
            sandbox.sites.extend(layers.map(|key| store.site(key)));
            sandbox.read.extend(store.lower(environment));
            sandbox.write.push((layer.clone(), layer.clone()));
            sandbox.overlay = None;
            let sites: Vec<String> = sandbox.sites.iter().map(|site| site.display().to_string()).collect();
            for (name, value) in [
                ("HOME", folders.session.join("home").display().to_string()),
                ("TMPDIR", folders.session.join("tmp").display().to_string()),
                ("PYTHONPATH", sites.join(":")),
                ("PIP_TARGET", written.display().to_string()),
            ] {
                block.insert(name.into(), value);
            }
        }
        sandbox.variables = block;
        let with_network = |sandbox: &mut Sandbox| {
            let own = sandbox.namespaces && store.networks.get() && !reach.is_open();
            sandbox.network = if own { Network::Own } else { Network::Host };
            sandbox.seccomp = sandbox::seccomp(own || reach.needs_sockets());
        };
        with_network(&mut sandbox);
        if environment.pure
            && sandbox.namespaces
            && store.root.is_none()
            && let Some(socket) = warm::connect(&folders.state, store, &environment.base, user, sandbox.network)
        {
            match sandbox::send(&mut sandbox, &socket) {
                Ok(()) => match Self::greet(
                    folders,
                    store,
                    environment,
                    socket,
                    Begun {
                        parent: None,
                        layer: layer.clone(),
                        held: held.clone(),
                        user: sandbox.user,
                        network: sandbox.network,
                        reach,
                        counts,
                        door,
                    },
                )
                .await
                {
                    Ok(runner) => return Ok(runner),
                    Err(why) => tracing::warn!(why, "the warm process does not serve; a fresh interpreter does"),
                },
                Err(error) => tracing::warn!(%error, "the warm process has gone; a fresh interpreter serves"),
            }
            sandbox.namespaces = store.namespaces.get();
            sandbox.user = user;
            with_network(&mut sandbox);
        }
        // Not this process's own streams: what runs in a session would have the log's file, and could write all over it.
        let (mut child, socket) = sandbox::start(
            &store.machine,
            &store.runner,
            &mut sandbox,
            Stdio::null(),
            Stdio::piped(),
        )
        .map_err(text)?;
        if let Some(errors) = child.stderr.take() {
            tokio::task::spawn_local(log_errors(errors));
        }
        let parent = Some(child);
        let begun = Begun {
            parent,
            layer,
            held,
            user: sandbox.user,
            network: sandbox.network,
            reach,
            counts,
            door,
        };
        Self::greet(folders, store, environment, socket, begun).await
    }

    /// Waits for a runner's first words.
    async fn greet(
        folders: &Folders,
        store: &Store,
        environment: &Environment,
        socket: StdStream,
        begun: Begun<'_>,
    ) -> Result<Rc<Self>, String> {
        let text = |error: io::Error| error.to_string();
        socket.set_nonblocking(true).map_err(text)?;
        let mut words = Words::new(UnixStream::from_std(socket).map_err(text)?);
        let mut process = None;
        let mut isolation = None;
        let mut groups = Vec::new();
        let greeting = async {
            loop {
                let said = words.next().await.map_err(text)?;
                match said.map(|line| read(&line)).transpose()? {
                    Some(Said::Process { pid, start }) => {
                        note(folders, Identity { pid, start }).map_err(|error| error.to_string())?;
                        process = Some(Identity { pid, start }.open().ok_or("it ended at once")?);
                    }
                    Some(Said::Isolated { isolated }) => isolation = Some(isolated),
                    Some(Said::Groups { groups: own }) => {
                        note_groups(folders, &own).map_err(|error| error.to_string())?;
                        groups = own;
                    }
                    Some(Said::Ready { .. }) => return Ok(()),
                    Some(Said::Cannot { cannot }) => {
                        store.namespaces.set(false);
                        return Err(cannot);
                    }
                    Some(Said::NoNetwork { no_network }) => {
                        tracing::warn!(why = no_network, "a sandbox cannot have a network of its own here");
                        store.networks.set(false);
                        return Err(no_network);
                    }
                    Some(Said::Failed { failed }) => return Err(failed),
                    Some(_) => {}
                    None => return Err("it ended before it was ready".to_owned()),
                }
            }
        };
        tokio::time::timeout(CLOSING, greeting)
            .await
            .map_err(|_| "it took too long".to_owned())??;
        let (Some(process), Some(mut isolation)) = (process, isolation) else {
            return Err("it did not say what it is".to_owned());
        };
        let (stream, beyond, descriptors) = words.into_parts();
        let network = match begun.network {
            Network::Own => {
                let doors = HashMap::from([(BROKER, begun.door)]);
                Some(reach::serve(descriptors, begun.reach.rules(), begun.counts, doors)?)
            }
            Network::Host => {
                let filtered = isolation.tier != Tier::D;
                isolation
                    .not_held
                    .extend(begun.reach.not_held(filtered).map(str::to_owned));
                None
            }
        };
        let (reader, writer) = stream.into_split();
        let reader = BufReader::new(io::Cursor::new(beyond).chain(reader));
        let runs: Rc<RefCell<HashMap<String, UnboundedSender<What>>>> = Rc::default();
        let dead = Rc::new(Cell::new(false));
        tokio::task::spawn_local(listen(reader, Rc::clone(&runs), Rc::clone(&dead)));
        Ok(Rc::new(Self {
            environment: environment.clone(),
            isolation,
            from_warm: begun.parent.is_none(),
            user: begun.user,
            process,
            writer: tokio::sync::Mutex::new(writer),
            runs,
            dead,
            written: store.written(&begun.layer),
            layer: begun.layer,
            _parent: begun.parent,
            groups,
            _held: begun.held,
            is_open: begun.reach.is_open(),
            has_sockets: begun.reach.needs_sockets(),
            network,
        }))
    }

    /// Whether it has the kind of network that is wanted. The rest changes while it lives.
    pub(crate) fn fits(&self, reach: &Reach) -> bool {
        self.is_open == reach.is_open() && (self.network.is_some() || reach.needs_sockets() == self.has_sockets)
    }

    /// Where a broker that listens at `door` is found inside; nowhere if it has no sockets.
    pub(crate) fn finds(&self, door: SocketAddr) -> Option<String> {
        match self.network {
            Some(_) => Some(format!("http://{GATEWAY}")),
            None => self.has_sockets.then(|| format!("http://{door}")),
        }
    }

    /// Has it reach this, and nothing else, from now on.
    pub(crate) fn set_reach(&self, reach: &Reach) {
        if let Some(network) = &self.network {
            network.set_rules(reach.rules());
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// How many runs it has.
    pub(crate) fn runs(&self) -> usize {
        self.runs.borrow().len()
    }

    /// How often the kernel has ended a process of it for want of memory.
    pub(crate) fn out_of_memory(&self) -> u64 {
        groups::out_of_memory(&self.groups)
    }

    /// Gives it a run. What it says of it comes out of the receiver, which ends early if the runner does.
    ///
    /// * `given`: a file that the run's process reads, and the runner hands on unread.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub(crate) async fn run(
        &self,
        run: &str,
        message: &Value,
        given: Option<OwnedFd>,
    ) -> io::Result<UnboundedReceiver<What>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.runs.borrow_mut().insert(run.to_owned(), sender);
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let sent = async {
            let mut writer = self.writer.lock().await;
            let sent = match &given {
                Some(given) => send_with(writer.as_ref(), &line, given).await?,
                None => 0,
            };
            writer.write_all(&line[sent..]).await
        }
        .await;
        if sent.is_err() || self.is_dead() {
            self.runs.borrow_mut().remove(run);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(receiver)
    }

    /// Ends all processes of a run.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub(crate) async fn stop(&self, run: &str) -> io::Result<()> {
        let line = format!("{}\n", serde_json::json!({ "stop": run }));
        self.writer.lock().await.write_all(line.as_bytes()).await
    }

    /// The runs that it has.
    pub(crate) fn run_names(&self) -> Vec<String> {
        self.runs.borrow().keys().cloned().collect()
    }

    /// Process 1 of its sandbox.
    pub(crate) fn pid(&self) -> i32 {
        self.process.identity.pid
    }

    /// Waits until it has ended, and all in its sandbox with it, if that does not take too long.
    pub(crate) async fn ended(&self) {
        let _ = tokio::time::timeout(LAST_BREATH, self.process.ended()).await;
    }

    /// Ends it and all in its sandbox, and drops its layer.
    pub(crate) async fn end(&self) {
        if !self.process.end(LAST_BREATH).await {
            tracing::error!(pid = self.process.identity.pid, "a sandbox does not end");
        }
        remove_groups(&self.groups).await;
        scratch::remove_aside(self.layer.clone());
    }

    /// Ends it at once, without waiting.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }
}

/// Sends the beginning of a line with a descriptor. Returns how much of it was sent.
async fn send_with(socket: &UnixStream, line: &[u8], descriptor: &OwnedFd) -> io::Result<usize> {
    let descriptors = [descriptor.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    socket
        .async_io(Interest::WRITABLE, || {
            let text = [io::IoSlice::new(line)];
            let sent = sendmsg::<()>(socket.as_raw_fd(), &text, &control, MsgFlags::MSG_NOSIGNAL, None);
            sent.map_err(io::Error::from)
        })
        .await
}

/// How many processes of one run may work at once.
fn cores(limits: Option<Limits>) -> usize {
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    limits.map_or(there, |limits| there.min(limits.cpus as usize).max(1))
}

/// The most of a runner's own errors that goes to the log.
const MOST_ERRORS: u64 = 64 << 10;

/// Logs what a runner writes to standard error, and reads the rest away.
async fn log_errors(errors: tokio::process::ChildStderr) {
    let mut lines = BufReader::new(errors.take(MOST_ERRORS)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::warn!(line, "the runner wrote to standard error");
    }
    let mut rest = lines.into_inner().into_inner().into_inner();
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}

async fn next(reader: &mut Reader) -> Result<Option<Said>, String> {
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line).await {
        Ok(0) => Ok(None),
        Ok(_) => read(&line).map(Some),
        Err(_) => Ok(None),
    }
}

fn read(line: &[u8]) -> Result<Said, String> {
    serde_json::from_slice(line).map_err(|error| format!("it says what is not known here: {error}"))
}

/// What a runner says: first what was read beyond its first words.
type Reader = BufReader<Chain<io::Cursor<Vec<u8>>, OwnedReadHalf>>;

async fn listen(mut reader: Reader, runs: Rc<RefCell<HashMap<String, UnboundedSender<What>>>>, dead: Rc<Cell<bool>>) {
    // However this ends, whoever waits for a run hears of it.
    let _end = Ending(Rc::clone(&runs), dead);
    loop {
        match next(&mut reader).await {
            Ok(Some(Said::Of(About { of, what }))) => {
                let ends = matches!(what, What::Done { .. });
                let mut runs = runs.borrow_mut();
                if let Some(run) = runs.get(&of) {
                    // The run's own task may have ended; then nobody wants it.
                    let _ = run.send(what);
                }
                if ends {
                    runs.remove(&of);
                }
            }
            Ok(Some(Said::Cold { cold })) => tracing::warn!(
                why = cold,
                "the flow runtime does not load: each run is a process of its own"
            ),
            Ok(Some(Said::Warm { warm })) => tracing::debug!(warm, "the runner has loaded the flow runtime"),
            Ok(Some(Said::Failed { failed })) => tracing::error!(failed, "the runner has failed"),
            Ok(Some(_)) => {}
            Ok(None) => break,
            // What it was about would never end: all that run there end now.
            Err(error) => {
                tracing::error!(error, "the runner says what is not known here, and is ended");
                break;
            }
        }
    }
}

/// Ends the runs of a runner that nobody hears any more.
struct Ending(Rc<RefCell<HashMap<String, UnboundedSender<What>>>>, Rc<Cell<bool>>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.1.set(true);
        self.0.borrow_mut().clear();
    }
}

#[cfg(test)]
mod fuzzed {
    use super::*;

    #[test]
    fn any_bytes_of_a_runner_are_words_or_errors_and_end_with_its_socket() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let seeds = [
            r#"{"pid":7,"start":12} {"groups":["/a"]} {"isolated":{"tier":"A","not_held":[]}} {"ready":{}}"#,
            r#"{"of":"r","out":["a","b"]} {"of":"r","err":[""]} {"of":"x","out":[]}"#,
            r#"{"of":"r","line":0,"output":{"a":1.5},"wrong":{"error":"A.B","message":"c"}}"#,
            r#"{"of":"r","chunk":{"begins":{"outputs":"{}","names":["a"]}}} {"of":"r","chunk":{"goes_on":{"name":"a","text":"b"}}}"#,
            r#"{"of":"r","done":{"lines":1,"failed":0,"exit_code":0},"crashed":-9} {"cannot":"c"} {"failed":"f"} {"cold":"c"} {"warm":true}"#,
        ]
        .map(|text| (text.replace("} {", "}\n{") + "\n").into_bytes());
        let words = [
            r#""of":"r""#,
            r#""line":"#,
            r#""done":"#,
            r#""out":"#,
            "\n",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "18446744073709551615",
        ];
        fuzz::fuzz("the runner's socket", &seeds, &words, |bytes| {
            runtime.block_on(async {
                let (mut inside, outside) = tokio::net::UnixStream::pair().unwrap();
                let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
                let runs = Rc::new(RefCell::new(HashMap::from([("r".to_owned(), sender)])));
                let dead = Rc::new(Cell::new(false));
                let (reader, _writer) = outside.into_split();
                let first = io::Cursor::new(Vec::new());
                let listening = listen(BufReader::new(first.chain(reader)), Rc::clone(&runs), Rc::clone(&dead));
                // A listener that has heard enough leaves.
                let speaking = async move { drop(inside.write_all(bytes).await) };
                tokio::join!(listening, speaking);
                assert!(dead.get() && runs.borrow().is_empty());
                // The run hears an end, whatever was said.
                while heard.recv().await.is_some() {}
            });
        });
    }
}
