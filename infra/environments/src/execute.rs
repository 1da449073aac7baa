//! Runs the programs that build environments, each in a sandbox with a network of its own.

use crate::{job::Job, reach, scratch::Scratch, store::Store, uv, uv_failure};
use contract::{Code, Failure, agent::LineKind};
use network::Service;
use sandbox::{Network, Sandbox, Tier, Word, control::Words};
use std::{
    collections::HashMap,
    fs, io,
    os::unix::{net::UnixStream as StdStream, process::ExitStatusExt},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::Child,
};

/// The time in which output is taken that comes behind the end of its program.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// The end of a program in a builder's sandbox.
pub(crate) enum Ended {
    Well,
    Failed {
        /// All that it said, redacted; at most a mebibyte.
        output: String,
        names_broker: bool,
    },
}

/// The reason why a build has not begun.
enum NotBegun {
    /// This machine bars sandboxes.
    Namespaces(String),
    /// It bars networks of their own.
    Network(String),
    Fault(String),
}

impl Store {
    /// The paths that every build sees: the interpreter, uv, and those that the machine's owner
    /// names.
    pub(crate) fn sandbox(&self, job: &Job<'_>) -> Sandbox {
        let mut read = vec![job.uv.clone(), self.python.prefix.clone()];
        read.extend(job.sources.local());
        match self.sandbox_root() {
            Some(_) => read.retain(|path| *path != self.python.prefix),
            None => read.retain(|path| !path.starts_with("/usr")),
        }
        read.extend(uv::certificates(&job.variables));
        Sandbox {
            namespaces: self.namespaces.get(),
            user: self.builder,
            // Environments and the cache are nobody's who builds.
            writes_as_root: true,
            root: self.index.store.join("tools/root"),
            read,
            variables: job.variables.clone(),
            seccomp: sandbox::seccomp(true),
            cores: 1,
            ..Sandbox::default()
        }
    }

    /// A folder for uv's cache, for one run of it. What a build script writes there is found by no
    /// other build, nor by the next step of its own: only the lock, which is checked, goes from one
    /// to the next.
    fn cache(&self) -> io::Result<Scratch> {
        let owners = std::env::var_os("UV_CACHE_DIR").map(PathBuf::from);
        Scratch::new(&owners.unwrap_or_else(|| self.index.path("")))
    }

    /// Runs a builder to its end, and names what fails.
    pub(crate) async fn run(&self, sandbox: Sandbox, job: &Job<'_>) -> Result<(), Failure> {
        let before = self.counts.read();
        let Ended::Failed { output, names_broker } = self.execute(sandbox, job).await? else {
            return Ok(());
        };
        let place = |package: &str| job.place(package);
        // uv knows only that the broker did not serve it.
        let mut failure = match job.broker.fault().filter(|_| names_broker) {
            Some(fault) => uv_failure::fault_failure(&fault, &place, job.log),
            None => uv_failure::failure(&output, &place, job.log),
        };
        failure.message += &reach::refused_since(&before, &self.counts.read());
        Err(failure)
    }

    /// Runs a program in a builder's sandbox to its end.
    pub(crate) async fn execute(&self, mut sandbox: Sandbox, job: &Job<'_>) -> Result<Ended, Failure> {
        let io = |error| self.index.failure(error);
        let scratch = Scratch::new(&self.index.path("")).map_err(io)?;
        let cache = self.cache().map_err(io)?;
        let own_folders = self.add_folders(&mut sandbox, &scratch, &cache).map_err(io)?;
        let own = sandbox.namespaces && self.networks.get() && !self.reach.borrow().is_open();
        sandbox.network = if own { Network::Own } else { Network::Host };
        let (mut child, socket) =
            sandbox::start(&self.machine, &self.runner, &mut sandbox, Stdio::null(), Stdio::piped()).map_err(io)?;
        // Both end with the build, and the other way round.
        let _open = match self.begin(socket, sandbox.network, job).await {
            Ok(open) => open,
            Err(why) => {
                self.do_without(why, &mut sandbox)?;
                sandbox.write.truncate(sandbox.write.len() - own_folders);
                return Box::pin(self.execute(sandbox, job)).await;
            }
        };
        let mut output = Output {
            job,
            text: String::new(),
            names_broker: false,
        };
        let status = follow(&mut child, &mut output).await.map_err(io)?;
        self.ended.set(Some(
            status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        ));
        Ok(match status.success() {
            true => Ended::Well,
            false => Ended::Failed {
                output: output.text,
                names_broker: output.names_broker,
            },
        })
    }

    /// Gives a sandbox a home, a temporary folder and a cache for this program alone, and its root.
    /// Returns how many folders it added.
    fn add_folders(&self, sandbox: &mut Sandbox, scratch: &Scratch, cache: &Scratch) -> io::Result<usize> {
        sandbox
            .variables
            .insert("UV_CACHE_DIR".into(), cache.0.display().to_string());
        // What a build script lays into its home folder is for nobody else.
        let (home, tmp) = (scratch.0.join("home"), scratch.0.join("tmp"));
        let folders = [
            (home, self.index.store.join("tools/home")),
            (tmp, "/tmp".into()),
            (cache.0.clone(), cache.0.clone()),
        ];
        let count = folders.len();
        sandbox.write.extend(folders);
        for (folder, _) in &sandbox.write {
            fs::create_dir_all(folder)?;
        }
        if let Some(root) = self.sandbox_root() {
            sandbox.image = root.under(&scratch.0.join("root"))?;
            sandbox.variables.insert("PATH".into(), root.path().to_owned());
        }
        if !sandbox.namespaces {
            // Nothing is seen anywhere else than where it lies.
            for (name, folder) in [("HOME", "home"), ("TMPDIR", "tmp")] {
                let folder = scratch.0.join(folder).display().to_string();
                sandbox.variables.insert(name.into(), folder);
            }
        }
        Ok(count)
    }

    /// Remembers what this machine bars, so that the next try does without it.
    ///
    /// # Errors
    ///
    /// When there is no doing without it.
    fn do_without(&self, why: NotBegun, sandbox: &mut Sandbox) -> Result<(), Failure> {
        match why {
            NotBegun::Namespaces(why) if self.sandbox_root().is_some() => return Err(no_sandbox(&why)),
            NotBegun::Namespaces(why) => {
                self.namespaces.set(false);
                tracing::warn!(why, "no sandbox can be made here: packages are built without one");
                if sandbox.overlay.is_some() {
                    let message =
                        format!("No sandbox can be made here ({why}). Start again: it is done without one then.");
                    return Err(Failure::new(Code::InstallFailed, message));
                }
                sandbox.namespaces = false;
            }
            NotBegun::Network(why) => {
                self.networks.set(false);
                tracing::warn!(why, "a build cannot have a network of its own here");
            }
            NotBegun::Fault(why) => {
                let message = format!("The sandbox of the build failed: {why}. Start again.");
                return Err(Failure::new(Code::InstallFailed, message));
            }
        }
        Ok(())
    }

    /// Waits until the sandbox of a build is closed, gives it its network, and has it begin.
    async fn begin(
        &self,
        socket: StdStream,
        network: Network,
        job: &Job<'_>,
    ) -> Result<(UnixStream, Option<Service>), NotBegun> {
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
        if isolation.tier == Tier::D {
            self.namespaces.set(false);
        }
        let (mut socket, _, descriptors) = words.into_parts();
        if network == Network::Host {
            return Ok((socket, None));
        }
        let rules = self.reach.borrow().rules_of_a_build(job.broker.place(), job.lines);
        let service = reach::serve(descriptors, rules, &self.counts, HashMap::new()).map_err(NotBegun::Fault)?;
        socket.write_all(b"{}\n").await.map_err(fault)?;
        Ok((socket, Some(service)))
    }
}

/// The output of a build: told line by line, and kept up to a mebibyte.
struct Output<'a> {
    job: &'a Job<'a>,
    text: String,
    names_broker: bool,
}

impl Output<'_> {
    fn take(&mut self, line: &[u8]) {
        let job = self.job;
        let text = String::from_utf8_lossy(line);
        self.names_broker |= job.broker.is_in(&text);
        let mut text = flow::redact(&job.broker.without_broker(text.trim_end()));
        for secret in &job.secrets {
            text = text.replace(secret, "***");
        }
        if !text.is_empty() {
            match uv::stage(&text) {
                Some(stage) => (job.say)(LineKind::Stage, stage),
                None => (job.say)(LineKind::Stderr, text.clone()),
            }
        }
        if self.text.len() < 1 << 20 {
            self.text.push_str(&text);
            self.text.push('\n');
        }
    }
}

/// Reads the output of a program until it has ended.
async fn follow(child: &mut Child, output: &mut Output<'_>) -> io::Result<ExitStatus> {
    let stderr = child.stderr.take().ok_or_else(|| io::Error::other("no output"))?;
    let mut reader = BufReader::new(stderr);
    let (mut line, mut status, mut until) = (Vec::new(), None, None);
    loop {
        // What it has left behind may hold its output open, and write to it for ever.
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        tokio::select! {
            biased;
            read = reader.read_until(b'\n', &mut line) => if read? == 0 { break },
            ended = child.wait(), if status.is_none() => {
                status = Some(ended?);
                until = Some(Instant::now() + LAST_OUTPUT);
                continue;
            }
            () = tokio::time::sleep(LAST_OUTPUT), if until.is_some() => break,
        }
        output.take(&line);
        line.clear();
    }
    match status {
        Some(status) => Ok(status),
        None => child.wait().await,
    }
}

/// An image has no root without a sandbox.
fn no_sandbox(why: &str) -> Failure {
    let message = format!(
        "A session on an image needs a sandbox, and this machine lets none be made ({why}). Allow user namespaces, or name the base image {} \
         or {}.",
        flow::DEFAULT_IMAGE,
        flow::PLAIN_IMAGE
    );
    Failure::new(Code::ImageNoSandbox, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_sandbox_says_what_to_do() {
        let text = no_sandbox("unshare: not permitted").to_string();
        let begins = "Image.NoSandbox: A session on an image needs a sandbox, and this machine lets none be made (unshare: not permitted). ";
        assert!(text.starts_with(begins), "{text}");
    }
}
