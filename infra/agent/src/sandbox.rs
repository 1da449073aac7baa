//! What a sandbox is made of, and the start of one. The making itself is in `runner.py`, as a fork of a warm Python can be closed in by
//! nothing else; the same code serves fresh processes and builds.

use crate::{
    groups::{self, Group},
    python::Python,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
pub use contract::packages::{Isolation, Tier};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
};

/// The packages that a sandbox sees, below what it writes itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overlay {
    /// `folder:folder`, uppermost first.
    pub(crate) lower: String,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// Where it is seen.
    pub(crate) at: Vec<PathBuf>,
}

/// All that a sandbox is made of; `runner.py` reads it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sandbox {
    /// Without them Landlock is what keeps it in; without that it is no sandbox, and says so.
    pub(crate) namespaces: bool,
    /// An empty folder, to mount the new root on.
    pub(crate) root: PathBuf,
    /// Seen read-only, at their own paths.
    pub(crate) read: Vec<PathBuf>,
    /// Writeable: the folder, and where it is seen.
    pub(crate) write: Vec<(PathBuf, PathBuf)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overlay: Option<Overlay>,
    /// The whole block of environment variables.
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) seccomp: String,
    /// The program to become; a runner if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) execute: Vec<String>,
    /// The interpreter of a runner that is not a fork of the warm process.
    pub(crate) python: PathBuf,
    /// Its packages, and the `.pth` files there that the base has not.
    pub(crate) site: PathBuf,
    pub(crate) pth: Vec<String>,
    pub(crate) cores: usize,
    /// The groups that it goes into, made below these places, with their limits.
    pub(crate) groups: Vec<Group>,
    /// What the VM size gives, in processors and bytes; `None` is the whole machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<(u32, u64)>,
    /// Without namespaces: folders of packages beside those of the environment, the first to be looked in first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sites: Vec<PathBuf>,
    /// Whether a runner loads the flow runtime.
    pub(crate) import: bool,
}

/// Finds out how well sessions are kept apart on this machine, by making a sandbox and ending it. It takes some 50 ms.
///
/// # Errors
///
/// When there is no Python, or the state folder cannot be written. Final until that is put right.
pub async fn probe(state: &Path) -> anyhow::Result<Isolation> {
    let python = Python::find().map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let (root, runner) = (state.join("tools/root"), runner(state)?);
    std::fs::create_dir_all(&root)?;
    for namespaces in [true, false] {
        let sandbox = Sandbox {
            namespaces,
            root: root.clone(),
            read: vec![python.prefix.clone()]
                .into_iter()
                .filter(|path| !path.starts_with("/usr"))
                .collect(),
            seccomp: seccomp(),
            groups: groups::limited(&groups::places(), None),
            execute: vec![
                python.executable.display().to_string(),
                "-I".into(),
                "-S".into(),
                "-c".into(),
                String::new(),
            ],
            ..Sandbox::default()
        };
        let (mut child, socket) = start(&python, &runner, &sandbox, Stdio::null(), Stdio::null())?;
        child.wait().await?;
        if let Some(Word::Isolated(isolation)) = crate::store::last_word(&socket) {
            return Ok(isolation);
        }
    }
    anyhow::bail!("{} does not start", python.executable.display())
}

/// What the runner inside is and sees, as it first says on its socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    /// No sandbox can be made here.
    Cannot(String),
    Isolated(Isolation),
}

/// The program inside a sandbox: `runner.py`, in a folder of the state that its content names.
///
/// # Errors
///
/// What the file system says.
pub(crate) fn runner(state: &Path) -> io::Result<PathBuf> {
    const RUNNER: &str = include_str!("runner.py");
    let path = state
        .join("tools")
        .join(crate::digest(&[RUNNER]))
        .join("pfsession_runner.py");
    if !path.exists() {
        crate::write_atomically(&path, RUNNER.as_bytes())?;
    }
    Ok(path)
}

/// Loads the runner as a module, whose compiled form Python keeps, under a name that no flow has: a script is compiled each time.
const BOOT: &str =
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import pfsession_runner as r; del sys.path[0]; r.main()";

/// Starts a fresh interpreter that goes into `sandbox`. It ends with this process. The socket is its word, and its end is the sandbox's.
///
/// # Errors
///
/// What starting a process says.
pub(crate) fn start(
    python: &Python,
    runner: &Path,
    sandbox: &Sandbox,
    out: Stdio,
    err: Stdio,
) -> io::Result<(tokio::process::Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = tokio::process::Command::new(&python.executable)
        .args(["-I", "-S", "-c", BOOT])
        .arg(runner.parent().unwrap_or(Path::new("/")))
        .arg("isolate")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(out)
        .stderr(err)
        .kill_on_drop(true)
        .spawn()?;
    let mut line = serde_json::to_vec(sandbox)?;
    line.push(b'\n');
    io::Write::write_all(&mut &ours, &line)?;
    Ok((child, ours))
}

/// Refuses system calls by which a process could get out of, or look out of, its sandbox; as a program for the kernel, base64.
///
/// Empty for a machine whose calls are not known here.
pub(crate) fn seccomp() -> String {
    #[cfg(target_arch = "x86_64")]
    const ARCHITECTURE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const ARCHITECTURE: u32 = 0xc000_00b7;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return String::new();

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        const LOAD: u16 = 0x20;
        const IF_EQUAL: u16 = 0x15;
        const IF_AT_LEAST: u16 = 0x35;
        const IF_ANY_BIT: u16 = 0x45;
        const RETURN: u16 = 0x06;
        const ALLOW: u32 = 0x7fff_0000;
        const KILL: u32 = 0x8000_0000;
        const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32;
        const UNKNOWN: u32 = 0x0005_0000 | libc::ENOSYS as u32;
        const NAMESPACES: u32 = 0x7e02_0000;
        let denied = [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            442,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_kcmp,
            438,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_adjtimex,
            libc::SYS_clock_adjtime,
            libc::SYS_syslog,
            libc::SYS_open_by_handle_at,
            libc::SYS_name_to_handle_at,
            libc::SYS_vhangup,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_fanotify_init,
        ];
        let mut program: Vec<(u16, u8, u8, u32)> = vec![
            (LOAD, 0, 0, 4), // the architecture
            (IF_EQUAL, 1, 0, ARCHITECTURE),
            (RETURN, 0, 0, KILL),
            (LOAD, 0, 0, 0), // the call
        ];
        if cfg!(target_arch = "x86_64") {
            // The x32 calls are others under the same numbers.
            program.extend([(IF_AT_LEAST, 0, 1, 0x4000_0000), (RETURN, 0, 0, REFUSE)]);
        }
        for call in denied {
            program.extend([(IF_EQUAL, 0, 1, call as u32), (RETURN, 0, 0, REFUSE)]);
        }
        // Its arguments cannot be looked at; without it the C library takes `clone`.
        program.extend([(IF_EQUAL, 0, 1, libc::SYS_clone3 as u32), (RETURN, 0, 0, UNKNOWN)]);
        program.extend([
            (IF_EQUAL, 0, 3, libc::SYS_clone as u32),
            (LOAD, 0, 0, 16), // its flags
            (IF_ANY_BIT, 0, 1, NAMESPACES),
            (RETURN, 0, 0, REFUSE),
            (RETURN, 0, 0, ALLOW),
        ]);
        let bytes: Vec<u8> = program
            .iter()
            .flat_map(|(code, yes, no, value)| {
                let [a, b] = code.to_ne_bytes();
                let [c, d, e, f] = value.to_ne_bytes();
                [a, b, *yes, *no, c, d, e, f]
            })
            .collect();
        BASE64.encode(bytes)
    }
}
