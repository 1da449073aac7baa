//! An AWS that is not ours: `ministack` and `moto`, both from PyPI, on loopback, and what the tests
//! here do with them.
//!
//! * [`Emulator`]: one of them, as a process.
//! * [`deployment`]: the whole template in `ministack`, put there by `sam deploy`, with this
//!   machine as its compute instance.
//! * [`worlds`]: queues, a table and a state machine in each of three worlds, ours included, behind
//!   the same adapters.
//!
//! Emulators can show that the template is taken, that calls mean what we think, and in which order
//! things happen. They cannot show roles (`ministack` checks none unless told to, and calls every
//! sender by the account's number), quotas, capacity, the time that things take.

pub mod deployment;
pub mod worlds;

use std::{
    collections::BTreeSet,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};
use whole_system::{root, wait_for};

/// The account of both emulators.
pub const ACCOUNT: &str = "000000000000";
pub const REGION: &str = "us-east-1";

/// An emulator of AWS that runs until it is dropped.
pub struct Emulator {
    child: Child,
    pub endpoint: String,
    pub tools: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Emulator {
    /// `ministack`, which also runs Lambda functions, as processes.
    ///
    /// It binds all addresses unless it is told otherwise, and gives functions the endpoint that it
    /// has in its own variables.
    pub fn ministack(tools: &Path) -> Self {
        Self::start(tools, "ministack", |command, port| {
            let endpoint = format!("http://127.0.0.1:{port}");
            command
                .env("BIND_HOST", "127.0.0.1")
                .env("GATEWAY_PORT", port.to_string())
                .env("MINISTACK_HOST", "127.0.0.1")
                .env("AWS_ENDPOINT_URL", endpoint)
                .env("SFTP_ENABLED", "0")
                .env("IOT_MTLS_ENABLED", "0");
        })
    }

    /// `moto`, told to interpret state machines.
    pub fn moto(tools: &Path) -> Self {
        let moto = Self::start(tools, "moto_server", |command, port| {
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command.env("MOTO_ACCOUNT_ID", ACCOUNT);
        });
        moto.python("moto_config.py", &[]);
        moto
    }

    fn start(tools: &Path, program: &str, settings: impl FnOnce(&mut Command, u16)) -> Self {
        let folder = tempfile::Builder::new().prefix("aws-").tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a port").port();
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(tools.join(program));
        command
            .env_remove("AWS_CA_BUNDLE")
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_DEFAULT_REGION", REGION)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            // Its functions are of its group, and end with it.
            .process_group(0);
        settings(&mut command, port);
        let mut child = command.spawn().expect("the emulator starts");
        wait_for(program, Duration::from_secs(90), || {
            assert!(child.try_wait().expect("a process").is_none(), "{program} has ended");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            child,
            endpoint: format!("http://127.0.0.1:{port}"),
            tools: tools.to_owned(),
            folder,
        }
    }

    /// AWS's usual variables, for any tool.
    pub fn variables(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", REGION),
            ("AWS_DEFAULT_REGION", REGION),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Runs one of the Python files here against it, to its end, and gives back what it printed.
    ///
    /// # Panics
    ///
    /// With what it said, if it failed.
    pub fn python(&self, file: &str, arguments: &[&str]) -> String {
        let output = Command::new(self.tools.join("python3"))
            .arg(root().join("tests/on-aws/python").join(file))
            .args(arguments)
            .envs(self.variables())
            .output()
            .expect("Python runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {said}");
        String::from_utf8(output.stdout).expect("it says text")
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let signal = |name: &str| {
            let _ = Command::new("kill")
                .args([name, "--", &group])
                .stderr(Stdio::null())
                .status();
        };
        signal("-TERM");
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        signal("-KILL");
        let _ = self.child.wait();
    }
}

/// A test: its name, and what it does with the world that all of them share.
pub type Test<W> = (&'static str, fn(&W));

/// Runs the tests whose names have one of the program's arguments in them (all, without one), so
/// many at once, and says how each ended.
pub fn run<W: Sync>(world: &W, tests: &[Test<W>], at_once: usize) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|part| name.contains(part.as_str()));
    let queue: std::sync::Mutex<Vec<&Test<W>>> =
        std::sync::Mutex::new(tests.iter().filter(|(name, _)| chosen(name)).rev().collect());
    let failed = std::sync::Mutex::new(BTreeSet::new());
    let next = || queue.lock().expect("no panic has it").pop();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((name, test)) = next() {
                    let begun = Instant::now();
                    let over = end_if_it_hangs(name);
                    let ended = catch_unwind(AssertUnwindSafe(|| test(world)));
                    drop(over);
                    let word = if ended.is_ok() { "ok" } else { "FAILED" };
                    println!("test {name} ... {word} ({:.1} s)", begun.elapsed().as_secs_f32());
                    if ended.is_err() {
                        failed.lock().expect("no panic has it").insert(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic has it");
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:#?}");
    ExitCode::FAILURE
}

/// The longest that one test may take.
const LONGEST: Duration = Duration::from_secs(600);

/// Ends the program with a word if what it gives back is not dropped in time.
fn end_if_it_hangs(name: &'static str) -> mpsc::Sender<()> {
    let (over, is_over) = mpsc::channel();
    std::thread::spawn(move || {
        if is_over.recv_timeout(LONGEST) == Err(mpsc::RecvTimeoutError::Timeout) {
            println!("test {name} ... FAILED: it has not ended within {LONGEST:?}");
            std::process::exit(1);
        }
    });
    over
}

/// Whether the program is only asked what tests it has, as some runners do.
pub fn only_listed<W>(tests: &[Test<W>]) -> bool {
    let list = std::env::args().any(|argument| argument == "--list");
    if list {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
    }
    list
}
