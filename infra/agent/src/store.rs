//! Package environments, by content.
//!
//! | path below `environments/` | what |
//! | --- | --- |
//! | `{key}/` | the packages: a whole environment, or what one adds to its base |
//! | `{key}.json` | [`Environment`]: that it is complete. Renamed into place last |
//! | `{key}.txt` | its lock: every package with its version and hashes |
//! | `{key}.lock` | held while it is built |
//! | `index/{request}.json` | which key a request (requirement lines, indexes, platform, base) was resolved to, and when |
//!
//! The key is a hash of the interpreter, the platform, the base and the lock. A crash leaves a folder without its `.json`: it counts for
//! nothing, and the next build of the same key removes it. What is complete is never written to again: a session sees it under an overlay
//! of its own.

use crate::{
    digest,
    python::Python,
    sandbox::{self, Overlay, Sandbox, Tier, Word},
    uv, write_atomically,
};
use contract::{Failure, agent::LineKind};
use serde::{Deserialize, Serialize};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::io::{AsyncBufReadExt, BufReader};

/// The packages of the base image `promptflow`.
///
/// `promptflow-tools` needs all of `promptflow`, and older flows import from it (`from promptflow import tool`); the executor alone would be
/// `promptflow-core`.
const BASE: [&str; 2] = ["promptflow", "promptflow-tools"];
/// The names that mean this base image.
pub(crate) const BASE_IMAGES: [&str; 2] = ["promptflow", "default"];

/// How long a resolved request is taken for what it would be resolved to now, in seconds.
const REQUEST_AGE: u64 = 24 * 3600;
/// The same of the base image: a newer one is built beside it, and every environment on it anew.
const BASE_AGE: u64 = 30 * 24 * 3600;

/// Takes each line of output, redacted.
pub(crate) type Say<'a> = &'a dyn Fn(LineKind, String);

/// An environment that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) key: String,
    /// The environment that this one is layered on, if it is.
    pub(crate) below: Option<String>,
    /// The base image.
    pub(crate) base: String,
    /// Whether it has all of the base's packages at the base's versions, so that a process with the base loaded can use it.
    pub(crate) pure: bool,
    /// The `.pth` files that the base has not.
    pub(crate) pth: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Resolved {
    key: String,
    at: u64,
}

/// The environments of one state folder, on one Python.
pub(crate) struct Store {
    state: PathBuf,
    pub(crate) python: Python,
    pub(crate) runner: PathBuf,
    /// Whether a sandbox can be made; learnt on the way.
    pub(crate) namespaces: Cell<bool>,
}

/// The failures that may come from what uv remembers of an index.
const STALE: [&str; 3] = ["Install.NoSuchVersion", "Install.NoSuchPackage", "Install.HashMismatch"];

/// The variable that names a folder for the environments and their tools which several state folders share. What is in there is
/// found by its content and never written to again.
pub(crate) const FOLDER: &str = "PFSESSION_STORE";

/// Where the environments are: in the state folder, unless a folder of their own is named.
pub(crate) fn folder(state: &Path) -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(|| state.to_owned(), PathBuf::from)
}

impl Store {
    /// # Errors
    ///
    /// When the state folder cannot be written.
    pub(crate) fn open(state: &Path, python: Python) -> io::Result<Self> {
        for folder in ["tools/root", "tools/home"] {
            fs::create_dir_all(state.join(folder))?;
        }
        let state = &folder(state);
        for folder in ["environments/index", "tools/root", "tools/home"] {
            fs::create_dir_all(state.join(folder))?;
        }
        let runner = sandbox::runner(state)?;
        Ok(Self {
            state: state.to_owned(),
            python,
            runner,
            namespaces: Cell::new(true),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.join("environments").join(name)
    }

    /// Where the packages of an environment are seen: a layered one where its base is, so that all paths in both stay right.
    pub(crate) fn seen_at(&self, environment: &Environment) -> PathBuf {
        self.path(environment.below.as_ref().unwrap_or(&environment.key))
    }

    /// The folders of an environment, uppermost first.
    pub(crate) fn lower(&self, environment: &Environment) -> String {
        let folders = std::iter::once(&environment.key).chain(&environment.below);
        folders
            .map(|key| self.path(key).display().to_string())
            .collect::<Vec<_>>()
            .join(":")
    }

    /// An environment that is complete.
    pub(crate) fn complete(&self, key: &str) -> Option<Environment> {
        serde_json::from_slice(&fs::read(self.path(&format!("{key}.json"))).ok()?).ok()
    }

    fn base_request(&self) -> String {
        let python = &self.python;
        digest(&[
            "base",
            &python.version,
            &python.platform,
            &python.prefix.display().to_string(),
            &BASE.join(" "),
        ])
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
    pub(crate) fn find_base(&self) -> Option<Environment> {
        self.resolved(&self.base_request(), BASE_AGE)
    }

    /// The environment of these requirements, if it is there and was resolved lately.
    pub(crate) fn find(&self, lines: &[flow::Line]) -> Option<Environment> {
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
    /// * `log`: where the whole output will be, for messages.
    ///
    /// # Errors
    ///
    /// `Install.*`, each of which says what to do.
    pub(crate) async fn get(&self, lines: &[flow::Line], say: Say<'_>, log: &str) -> Result<Environment, Failure> {
        check_urls(lines)?;
        if let Some(environment) = self.find(lines) {
            return Ok(environment);
        }
        let mut made = self.make(lines, say, log, &[]).await;
        for _ in 0..2 {
            // What an index says changes, and its mirrors do not change together: a version that is new, or gone again.
            let stale = |failure: &Failure| STALE.contains(&failure.error.as_str());
            if !made.as_ref().is_err_and(stale) {
                break;
            }
            say(LineKind::Stage, "asking the index anew".into());
            made = self.make(lines, say, log, &words(&["--refresh"])).await;
        }
        made
    }

    /// Makes an environment, with more options for uv.
    async fn make(
        &self,
        lines: &[flow::Line],
        say: Say<'_>,
        log: &str,
        more: &[String],
    ) -> Result<Environment, Failure> {
        let uv = uv::find(&self.state, &self.python, &|text| say(LineKind::Stage, text)).await?;
        let variables = self.variables();
        let base = match self.find_base() {
            Some(base) => base,
            None => {
                let (uv, variables) = (uv.clone(), variables.clone());
                self.build_base(&Job {
                    uv,
                    variables,
                    arguments: more.to_vec(),
                    lines: &[],
                    say,
                    log,
                })
                .await?
            }
        };
        if is_empty(lines) {
            return Ok(base);
        }
        let mut job = Job {
            uv,
            variables,
            arguments: Vec::new(),
            lines,
            say,
            log,
        };
        job.arguments = uv::options(lines, &mut job.variables);
        job.arguments.extend_from_slice(more);
        self.build(&base, &job).await
    }

    async fn build_base(&self, job: &Job<'_>) -> Result<Environment, Failure> {
        let request = self.base_request();
        let _held = self.hold(&format!("{request}.lock"), job.say).await?;
        if let Some(base) = self.find_base() {
            return Ok(base);
        }
        (job.say)(
            LineKind::Stage,
            "building the base image promptflow, once for this machine".into(),
        );
        let lock = self.resolve(job, &Over::Nothing).await?;
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
            self.build_whole(job, &environment, &lock).await?;
        }
        self.remember(&request, &environment)?;
        Ok(environment)
    }

    async fn build(&self, base: &Environment, job: &Job<'_>) -> Result<Environment, Failure> {
        let request = self.request(&base.key, job.lines);
        let base_lock = fs::read_to_string(self.path(&format!("{}.txt", base.key))).map_err(|error| self.io(error))?;
        let layered = self.namespaces.get();
        // Most requirements only add to the base: then nothing but them has to be asked for and looked at.
        let added = match layered {
            true => match self.resolve(job, &Over::Held(&base_lock)).await {
                Ok(lock) => Some(blocks_not_in(&base_lock, &lock)),
                Err(failure) if matches!(failure.error.as_str(), "Install.Conflict" | "Install.NoSuchVersion") => {
                    let text = "the base image's versions do not fit: resolving all of them anew";
                    (job.say)(LineKind::Stage, text.into());
                    None
                }
                Err(failure) => return Err(failure),
            },
            false => None,
        };
        let lock = match &added {
            Some(added) if added.is_empty() => {
                self.remember(&request, base)?;
                return Ok(base.clone());
            }
            Some(added) => format!("{base_lock}{added}"),
            None => self.resolve(job, &Over::Preferred(&base_lock)).await?,
        };
        let key = digest(&["on", &base.key, if layered { "layered" } else { "whole" }, &lock]);
        let _held = self.hold(&format!("{key}.lock"), job.say).await?;
        if let Some(environment) = self.complete(&key) {
            self.remember(&request, &environment)?;
            return Ok(environment);
        }
        let pure = layered && pins(&base_lock).is_subset(&pins(&lock));
        let below = layered.then(|| base.key.clone());
        let mut environment = Environment {
            key,
            below,
            base: base.key.clone(),
            pure,
            pth: Vec::new(),
        };
        if layered {
            self.build_layer(job, &mut environment, &lock, added.as_deref()).await?;
        } else {
            self.build_whole(job, &environment, &lock).await?;
        }
        self.remember(&request, &environment)?;
        Ok(environment)
    }

    /// Resolves the requirements to a lock with hashes.
    async fn resolve(&self, job: &Job<'_>, over: &Over<'_>) -> Result<String, Failure> {
        let folder = Scratch::new(&self.path("")).map_err(|error| self.io(error))?;
        let file = |name: &str| folder.0.join(name).display().to_string();
        let (input, limits, lock) = (file("requirements.txt"), file("constraints.txt"), file("lock.txt"));
        let own = |constraint: bool| {
            let lines = job
                .lines
                .iter()
                .filter(move |line| line.constraint == constraint && !line.text.starts_with('-'));
            lines.map(|line| line.text.clone()).collect::<Vec<_>>()
        };
        let (mut wanted, mut constraints) = (own(false), own(true));
        match over {
            Over::Nothing | Over::Preferred(_) => wanted.extend(BASE.map(str::to_owned)),
            Over::Held(base) => constraints.extend(pins(base)),
        }
        (job.say)(LineKind::Stage, format!("resolving {} requirements", wanted.len()));
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
            "--no-annotate",
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
        execute.extend(job.arguments.iter().cloned());
        execute.push(input);
        let mut sandbox = Sandbox {
            execute,
            ..self.builder(job)
        };
        sandbox.write.push((folder.0.clone(), folder.0.clone()));
        self.run(sandbox, job).await?;
        fs::read_to_string(&lock).map_err(|error| self.io(error))
    }

    /// Builds a whole environment at its place.
    async fn build_whole(&self, job: &Job<'_>, environment: &Environment, lock: &str) -> Result<(), Failure> {
        let place = self.path(&environment.key);
        remove(&place)
            .and_then(|()| fs::create_dir_all(&place))
            .map_err(|error| self.io(error))?;
        let lock_path = self.write_lock(&environment.key, lock)?;
        const SCRIPT: &str = r#"uv=$1 python=$2 place=$3; shift 3
            "$uv" venv --quiet --allow-existing --python "$python" "$place" && exec "$uv" pip sync --python "$place/bin/python" "$@""#;
        let mut execute = words(&["/bin/sh", "-c", SCRIPT, "sh", &job.uv.display().to_string()]);
        execute.extend([
            self.python.executable.display().to_string(),
            place.display().to_string(),
        ]);
        execute.extend(words(&["--require-hashes", "--compile-bytecode"]));
        execute.extend(job.builds());
        execute.push(lock_path.display().to_string());
        let mut sandbox = Sandbox {
            execute,
            ..self.builder(job)
        };
        sandbox.read.push(lock_path);
        sandbox.write.push((place.clone(), place.clone()));
        (job.say)(LineKind::Stage, format!("installing {} packages", pins(lock).len()));
        self.run(sandbox, job).await?;
        make_read_only(&place).map_err(|error| self.io(error))?;
        self.mark(environment)
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
        let mut execute = words(&[
            "/bin/sh",
            "-c",
            SCRIPT,
            "sh",
            &job.uv.display().to_string(),
            &python,
            &site.display().to_string(),
        ]);
        execute.extend(words(&[&now().to_string(), COMPILE]));
        execute.extend(match added {
            Some(_) => words(&["install", "--no-deps", "--requirement"]),
            None => words(&["sync"]),
        });
        execute.push(list.display().to_string());
        execute.extend(words(&["--require-hashes", "--python", &python]));
        execute.extend(job.builds());
        let overlay = Overlay {
            lower: below.display().to_string(),
            upper: upper.clone(),
            work,
            at: vec![below.clone()],
        };
        let mut sandbox = Sandbox {
            execute,
            overlay: Some(overlay),
            ..self.builder(job)
        };
        sandbox.read.push(list);
        let base_lock = fs::read_to_string(self.path(&format!("{}.txt", environment.base))).unwrap_or_default();
        let count = pins(lock).difference(&pins(&base_lock)).count();
        (job.say)(LineKind::Stage, format!("installing {count} packages"));
        self.run(sandbox, job).await?;
        environment.pth = new_pth_files(&upper.join(self.python.site_packages()), &site);
        let finish = || {
            make_read_only(&upper)?;
            fs::rename(&upper, &place)?;
            remove(&partial)
        };
        finish().map_err(|error| self.io(error))?;
        self.mark(environment)
    }

    /// What every build sees: the interpreter, uv and its cache.
    fn builder(&self, job: &Job<'_>) -> Sandbox {
        let cache = PathBuf::from(&job.variables["UV_CACHE_DIR"]);
        let mut read = vec![job.uv.clone(), self.python.prefix.clone()];
        read.extend(uv::named_paths(&job.variables));
        read.retain(|path| !path.starts_with("/usr"));
        Sandbox {
            namespaces: self.namespaces.get(),
            root: self.state.join("tools/root"),
            read,
            write: vec![(cache.clone(), cache)],
            variables: job.variables.clone(),
            seccomp: sandbox::seccomp(),
            cores: 1,
            ..Sandbox::default()
        }
    }

    fn variables(&self) -> BTreeMap<String, String> {
        uv::variables(&self.state.join("tools/uv-cache"), &self.state.join("tools/home"))
    }

    /// Runs a builder to its end.
    async fn run(&self, mut sandbox: Sandbox, job: &Job<'_>) -> Result<(), Failure> {
        let Job { lines, say, log, .. } = *job;
        let scratch = Scratch::new(&self.path("")).map_err(|error| self.io(error))?;
        // What a build script lays into its home folder is for nobody else.
        let (home, tmp) = (scratch.0.join("home"), scratch.0.join("tmp"));
        sandbox
            .write
            .extend([(home, self.state.join("tools/home")), (tmp, "/tmp".into())]);
        for (folder, _) in &sandbox.write {
            fs::create_dir_all(folder).map_err(|error| self.io(error))?;
        }
        let (mut child, socket) = sandbox::start(&self.python, &self.runner, &sandbox, Stdio::null(), Stdio::piped())
            .map_err(|error| self.io(error))?;
        let mut output = String::new();
        let mut reader = BufReader::new(
            child
                .stderr
                .take()
                .ok_or_else(|| self.io(io::Error::other("no output")))?,
        );
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| self.io(error))?
            > 0
        {
            let text = flow::redact(String::from_utf8_lossy(&line).trim_end());
            line.clear();
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
        let status = child.wait().await.map_err(|error| self.io(error))?;
        match last_word(&socket) {
            Some(Word::Cannot(why)) => {
                self.namespaces.set(false);
                tracing::warn!(why, "no sandbox can be made here: packages are built without one");
                return Box::pin(async {
                    if sandbox.overlay.is_some() {
                        let message =
                            format!("No sandbox can be made here ({why}). Start again: it is done without one then.");
                        return Err(Failure::new("Install.Failed", message));
                    }
                    sandbox.namespaces = false;
                    sandbox.write.truncate(sandbox.write.len() - 2);
                    self.run(sandbox, job).await
                })
                .await;
            }
            Some(Word::Isolated(isolation)) if isolation.tier == Tier::D => self.namespaces.set(false),
            _ => {}
        }
        if status.success() {
            return Ok(());
        }
        let place = |package: &str| {
            let wanted = package.to_ascii_lowercase().replace('_', "-");
            let line = lines
                .iter()
                .find(|line| line.text.to_ascii_lowercase().replace('_', "-").starts_with(&wanted));
            line.filter(|_| !wanted.is_empty())
                .map(|line| format!("{}:{}", line.file, line.number))
        };
        Err(uv::failure(&output, &place, log))
    }

    fn write_lock(&self, key: &str, lock: &str) -> Result<PathBuf, Failure> {
        let path = self.path(&format!("{key}.txt"));
        write_atomically(&path, lock.as_bytes()).map_err(|error| self.io(error))?;
        Ok(path)
    }

    fn mark(&self, environment: &Environment) -> Result<(), Failure> {
        let text = serde_json::to_vec(environment).map_err(|error| self.io(error.into()))?;
        write_atomically(&self.path(&format!("{}.json", environment.key)), &text).map_err(|error| self.io(error))
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
    /// The flow's options, for uv.
    arguments: Vec<String>,
    lines: &'a [flow::Line],
    say: Say<'a>,
    log: &'a str,
}

impl Job<'_> {
    /// The options that count when nothing is resolved any more.
    fn builds(&self) -> Vec<String> {
        let resolves = |option: &str| matches!(option, "--require-hashes" | "--prerelease" | "allow");
        self.arguments
            .iter()
            .filter(|option| !resolves(option))
            .cloned()
            .collect()
    }
}

/// What is known before requirements are resolved.
enum Over<'a> {
    /// The base image itself is resolved.
    Nothing,
    /// The versions of this lock are kept; the requirements alone are resolved.
    Held(&'a str),
    /// The versions of this lock are taken where they can be.
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
        if flow::redact(&line.text) != line.text {
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

fn new_pth_files(site: &Path, below: &Path) -> Vec<String> {
    let entries = fs::read_dir(site).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut new: Vec<String> = names
        .filter(|name| name.ends_with(".pth") && !below.join(name).exists())
        .collect();
    new.sort();
    new
}

/// What a sandbox said before it became its program.
pub(crate) fn last_word(socket: &std::os::unix::net::UnixStream) -> Option<Word> {
    let mut text = String::new();
    io::Read::read_to_string(&mut &*socket, &mut text).ok()?;
    text.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A folder for the time being.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> io::Result<Self> {
        let folder = parent.join(format!("scratch-{}-{}", std::process::id(), crate::random()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

/// Takes the right to write away from every file; folders keep it, as a session's own layer inherits their rights.
fn make_read_only(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            make_read_only(&entry.path())?;
        } else if kind.is_file() {
            let mut rights = entry.metadata()?.permissions();
            rights.set_readonly(true);
            fs::set_permissions(entry.path(), rights)?;
        }
    }
    Ok(())
}

/// Removes a folder with all in it, whatever rights its folders have (an overlay's work folder has none). It may be gone already.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder)?;
            fs::remove_dir_all(folder)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
