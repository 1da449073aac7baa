//! Our sandbox beside bubblewrap's and crun's, in turn: `/bin/true` in each, by wall clock and by processor time.
//!
//! `infra/sandbox/weigh.sh` fetches the other two and starts this. One argument each: bubblewrap, crun, crun's bundle, the rounds.

use nix::sys::resource::{UsageWho, getrusage};
use sandbox::{Sandbox, ids, python::Python, seccomp, write_runner};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

type Start<'a> = Box<dyn FnMut() -> anyhow::Result<()> + 'a>;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bubblewrap, crun, bundle, rounds] = &arguments[..] else {
        anyhow::bail!("weigh BUBBLEWRAP CRUN BUNDLE ROUNDS");
    };
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let python = Python::find().map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let interpreter = python.executable.display().to_string();
    let crun_state = folder.path().join("crun").display().to_string();
    let mut number = 0;
    let mut ways: [(&str, Start<'_>); 5] = [
        ("no sandbox", Box::new(|| run("/bin/true", &[]))),
        (
            "a bare Python",
            Box::new(move || run(&interpreter, &["-I", "-S", "-c", ""])),
        ),
        ("ours", Box::new(|| runtime.block_on(ours(&python, folder.path())))),
        ("bubblewrap", Box::new(|| run(bubblewrap, &BUBBLEWRAP))),
        (
            "crun",
            Box::new(|| {
                number += 1;
                run(
                    crun,
                    &[
                        "--root",
                        &crun_state,
                        "run",
                        "--bundle",
                        bundle,
                        &format!("weighed-{number}"),
                    ],
                )
            }),
        ),
    ];
    let mut took = [const { Vec::new() }; 5];
    for _ in 0..rounds.parse()? {
        for ((_, start), took) in ways.iter_mut().zip(&mut took) {
            let (begun, used) = (Instant::now(), processor_time());
            start()?;
            took.push((begun.elapsed(), processor_time().saturating_sub(used)));
        }
    }
    println!("medians of {rounds} starts of /bin/true, in turn:");
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

/// The setting that comes closest to our own. It has no Landlock, no filter, and no owners to shift.
const BUBBLEWRAP: [&str; 22] = [
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
    "/bin/true",
];

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program}: {}: {said}", output.status);
    Ok(())
}

/// Without groups, which a start finds made ahead, and without a network of its own.
async fn ours(python: &Python, state: &Path) -> anyhow::Result<()> {
    let root = state.join("root");
    std::fs::create_dir_all(&root)?;
    let is_elsewhere = !python.prefix.starts_with("/usr");
    let mut sandbox = Sandbox {
        namespaces: true,
        user: ids::of(state, "weighed")?,
        root,
        read: is_elsewhere.then(|| python.prefix.clone()).into_iter().collect(),
        seccomp: seccomp(true),
        execute: vec!["/bin/true".into()],
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
