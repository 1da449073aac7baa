//! Our sandbox beside bubblewrap's, crun's and gVisor's, in turn: a program in each, by wall clock
//! and by processor time.
//!
//! `infra/sandbox/weigh.sh` fetches the others and starts this. Its arguments: the folder with
//! their programs and bundles, the rounds, and the program as a JSON list.

use nix::sys::resource::{UsageWho, getrusage};
use sandbox::{Sandbox, ids, python::Python, seccomp, write_runner};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Starts the program once, in the round that is given.
type Start<'a> = Box<dyn FnMut(usize) -> anyhow::Result<()> + 'a>;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [programs, rounds, program] = &arguments[..] else {
        anyhow::bail!("weigh FOLDER ROUNDS PROGRAM");
    };
    let program: Vec<String> = serde_json::from_str(program)?;
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let python = Python::find().map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let interpreter = python.executable.display().to_string();
    let bubblewrap = format!("{programs}/usr/bin/bwrap");
    let oci = |name: &str, options: &[&str], round: usize| {
        let program = format!("{programs}/usr/bin/{name}");
        let root = folder.path().join(name).display().to_string();
        let (bundle, id) = (format!("{programs}/{name}"), format!("weighed-{round}"));
        run(&program, options, ["--root", &root, "run", "--bundle", &bundle, &id])
    };
    let asked = || program.iter().map(String::as_str);
    let mut ways: [(&str, Start<'_>); 6] = [
        ("no sandbox", Box::new(|_| run(&program[0], &[], asked().skip(1)))),
        (
            "a bare Python",
            Box::new(|_| run(&interpreter, &["-I", "-S", "-c", ""], [])),
        ),
        (
            "ours",
            Box::new(|_| runtime.block_on(ours(&python, folder.path(), &program))),
        ),
        ("bubblewrap", Box::new(|_| run(&bubblewrap, &BUBBLEWRAP, asked()))),
        ("crun", Box::new(|round| oci("crun", &[], round))),
        ("runsc", Box::new(|round| oci("runsc", &RUNSC, round))),
    ];
    let mut took = [const { Vec::new() }; 6];
    for round in 0..rounds.parse()? {
        for ((_, start), took) in ways.iter_mut().zip(&mut took) {
            let (begun, used) = (Instant::now(), processor_time());
            start(round)?;
            took.push((begun.elapsed(), processor_time().saturating_sub(used)));
        }
    }
    println!("medians of {rounds} starts of {}, in turn:", program[0]);
    for ((name, _), took) in ways.iter().zip(took) {
        let (wall, used): (Vec<_>, Vec<_>) = took.into_iter().unzip();
        println!(
            "{name:14} {:6.1} ms, {:6.1} ms of processor time",
            median(wall),
            median(used)
        );
    }
    Ok(())
}

/// In milliseconds.
fn median(mut all: Vec<Duration>) -> f64 {
    all.sort_unstable();
    all[all.len() / 2].as_secs_f64() * 1000.0
}

/// The setting that comes closest to our own. It has no Landlock, no filter, and no owners to
/// shift.
const BUBBLEWRAP: [&str; 21] = [
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--tmpfs",
    "/tmp",
];

/// Without control groups, as the others, and with the platform that needs no `/dev/kvm`.
const RUNSC: [&str; 3] = ["--platform=ptrace", "--network=none", "--ignore-cgroups"];

fn run<'a>(program: &str, options: &[&str], rest: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
    // crun gives its standard streams to the session's user: a device of the machine may not be
    // among them.
    let output = Command::new(program)
        .args(options)
        .args(rest)
        .stdin(Stdio::piped())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program}: {}: {said}", output.status);
    Ok(())
}

/// Without groups, which a start finds made ahead, and without a network of its own.
async fn ours(python: &Python, state: &Path, program: &[String]) -> anyhow::Result<()> {
    let root = state.join("root");
    std::fs::create_dir_all(&root)?;
    let is_elsewhere = !python.prefix.starts_with("/usr");
    let mut sandbox = Sandbox {
        namespaces: true,
        user: ids::of(state, "weighed")?,
        root,
        read: is_elsewhere.then(|| python.prefix.clone()).into_iter().collect(),
        seccomp: seccomp(true),
        execute: program.iter().map(Into::into).collect(),
        ..Sandbox::default()
    };
    let runner = write_runner(state)?;
    let (mut child, _socket) = sandbox::start(python, &runner, &mut sandbox, Stdio::null(), Stdio::null())?;
    let status = child.wait().await?;
    anyhow::ensure!(status.success(), "ours: {status}");
    Ok(())
}

/// The processor time of the children that have ended.
fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("a process may ask for its own");
    let part = |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    part(usage.user_time()) + part(usage.system_time())
}
