//! The machine as others have it: another user, without user namespaces, with control groups
//! delegated.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A user that nobody is.
const USER: u32 = 54_321;

/// The settings of a test that runs in a process of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    /// It is an ordinary user's.
    pub(crate) ordinary: bool,
    /// User namespaces are barred, as on a stock Ubuntu 24.04.
    pub(crate) barred: bool,
    /// A part of each control group's tree, or of the one tree of version 2, is the user's.
    pub(crate) delegated: bool,
}

pub(crate) fn is_root() -> bool {
    // SAFETY: no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Whether everybody may go to it and read it.
fn is_for_all(path: &Path) -> bool {
    let may = |path: &Path, right| fs::metadata(path).is_ok_and(|about| about.permissions().mode() & right != 0);
    may(path, 0o004) && path.ancestors().skip(1).all(|above| may(above, 0o001))
}

/// A Python that every user of this machine can read; `None` if there is none.
pub(crate) fn python_for_all() -> Option<PathBuf> {
    let ask = "import os, sys; print(os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable))";
    let real = |name: &str| {
        let said = Command::new(name).args(["-I", "-S", "-c", ask]).output().ok()?;
        Some(PathBuf::from(String::from_utf8(said.stdout).ok()?.trim()))
    };
    let all = ["python3", "/usr/bin/python3"].into_iter().filter_map(real);
    all.filter(|path| path.exists()).find(|path| is_for_all(path))
}

/// The groups of this process of which parts can be another user's and limited: of version 1 one
/// for each controller, of version 2 one for all. Empty where there are none.
pub(crate) fn groups_to_delegate() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Version 2 has no name there.
    let of = |controller: &str| {
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let has = parts.next()?.split(',').any(|name| name == controller);
            parts.next().filter(|_| has)
        })?;
        let folder = Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(path.trim_start_matches('/'));
        folder.join("cgroup.procs").exists().then_some(folder)
    };
    let controllers = ["cpu", "memory", "pids"];
    let first: Vec<PathBuf> = controllers.into_iter().filter_map(of).collect();
    if first.len() == controllers.len() {
        return first;
    }
    // This process may be in a group of its own by now, so that there can be others.
    let second = of("").map(|folder| match folder.ends_with("pfsession-host") {
        true => folder.parent().unwrap().to_owned(),
        false => folder,
    });
    let limits = |folder: &PathBuf| {
        let given = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
        controllers
            .iter()
            .all(|name| given.split_whitespace().any(|has| has == *name))
    };
    second.filter(limits).into_iter().collect()
}

/// Runs this program again with `arguments`, on a machine of that kind. `state` becomes the other
/// user's.
pub(crate) fn again(machine: Machine, state: &Path, arguments: &[&str]) -> Output {
    let program = state.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut groups = Vec::new();
    if machine.delegated {
        for own in groups_to_delegate() {
            let group = own.join(format!("delegated-{}", std::process::id()));
            fs::create_dir_all(&group).unwrap();
            let files =
                ["cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"].map(|file| group.join(file));
            for path in files.iter().filter(|path| path.exists()).chain([&group]) {
                std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
            }
            groups.push(group);
        }
    }
    if machine.ordinary {
        give(state);
    }
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .env("TEST_STATE", state)
        .env("HOME", state)
        .env_remove("UV_CACHE_DIR")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(state);
    let procs: Vec<_> = groups.iter().map(|group| group.join("cgroup.procs")).collect();
    // SAFETY: the process has one thread here, and what is called may be called in it.
    unsafe {
        command.pre_exec(move || {
            for procs in &procs {
                fs::write(procs, "0")?;
            }
            if machine.ordinary {
                libc::setgroups(0, std::ptr::null());
                if libc::setresgid(USER, USER, USER) != 0 || libc::setresuid(USER, USER, USER) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            if machine.barred {
                bar_user_namespaces()?;
            }
            Ok(())
        });
    }
    let output = command.output().unwrap();
    // The warm process goes within seconds, and what it has made ahead for a session with it.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(90);
    for group in groups {
        let inside = || {
            fs::read_dir(&group)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
        };
        while group.exists() {
            for path in inside().filter(|path| path.is_dir()).chain([group.clone()]) {
                if !output.status.success() {
                    end_what_is_in(&path);
                }
                let _ = fs::remove_dir(path);
            }
            assert!(std::time::Instant::now() < until, "{} is not empty", group.display());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    output
}

/// A failure ends nothing, and is reported at once.
fn end_what_is_in(group: &Path) {
    for pid in fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
    {
        // SAFETY: no memory.
        unsafe { libc::kill(pid.parse().unwrap(), libc::SIGKILL) };
    }
}

/// Makes what is there the other user's, but for files that are shared with the tests' own store:
/// these are read.
fn give(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let about = fs::symlink_metadata(path).unwrap();
    if about.is_dir() || about.nlink() == 1 {
        std::os::unix::fs::lchown(path, Some(USER), Some(USER)).unwrap();
    }
    if about.is_dir() {
        fs::read_dir(path)
            .unwrap()
            .for_each(|entry| give(&entry.unwrap().path()));
    }
}

/// A folder with the same files in it.
fn link_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            link_all(&entry.path(), &to);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else if fs::hard_link(entry.path(), &to).is_err() {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// As a kernel that has none for this user: making one is refused, for this process and all that
/// come of it.
fn bar_user_namespaces() -> std::io::Result<()> {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERROR: u32 = 0x0005_0000;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        line(LOAD, 0, 0, 0),
        line(EQUAL, 0, 1, libc::SYS_clone3 as u32),
        line(RETURN, 0, 0, ERROR | libc::ENOSYS as u32),
        line(EQUAL, 1, 0, libc::SYS_unshare as u32),
        line(EQUAL, 0, 3, libc::SYS_clone as u32),
        line(LOAD, 0, 0, 16),
        line(ANY_BIT, 0, 1, libc::CLONE_NEWUSER as u32),
        line(RETURN, 0, 0, ERROR | libc::EPERM as u32),
        line(RETURN, 0, 0, ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program lives through the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    if done {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// A state folder that has the base images of another one, and nothing else of it. Their files are
/// the same: nobody writes to them.
pub(crate) fn state_with_bases_of(other: &Path, state: &Path) {
    let (from, to) = (other.join("environments"), state.join("environments"));
    fs::create_dir_all(to.join("index")).unwrap();
    for entry in fs::read_dir(from.join("index")).unwrap().flatten() {
        fs::copy(entry.path(), to.join("index").join(entry.file_name())).unwrap();
    }
    for entry in fs::read_dir(&from).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let Some(key) = name.strip_suffix(".json") else {
            continue;
        };
        let about: serde_json::Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        if about["key"] != key || !about["below"].is_null() {
            continue;
        }
        for file in [name.clone(), format!("{key}.txt")] {
            fs::copy(from.join(&file), to.join(&file)).unwrap();
        }
        link_all(&from.join(key), &to.join(key));
    }
    let uv = other.join("tools/uv");
    if uv.exists() {
        fs::create_dir_all(state.join("tools")).unwrap();
        fs::copy(uv, state.join("tools/uv")).unwrap();
    }
}
