//! The state outside a session that no attack from inside may change.
//!
//! The attacks are Python files in `attacks/`, and `tests/attacks.rs` runs them in sessions of
//! every kind. A new attack that could change something else adds it to [`Outside`].

use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The report of one attack, as `attacks/attack.py` prints it.
#[derive(Debug, Deserialize)]
pub struct Said {
    pub attack: String,
    /// Its gain; nothing if the wall held.
    pub got: Value,
    /// Whether it was left out, as the session's isolation says that there is no such wall.
    #[serde(default)]
    pub is_said: bool,
}

/// The attacks that were tried, by their outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub tried: usize,
    pub held: usize,
    /// Not held, as the session's isolation says.
    pub said: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.tried += more.tried;
        self.held += more.held;
        self.said += more.said;
    }
}

/// Counts the lines that attacks printed. What got through is named.
///
/// # Errors
///
/// The attacks that got something.
pub fn count(output: &str) -> Result<Counts, Vec<String>> {
    let (mut counts, mut through) = (Counts::default(), Vec::new());
    for said in output
        .lines()
        .filter_map(|line| serde_json::from_str::<Said>(line).ok())
    {
        counts.tried += 1;
        match said.got {
            Value::Null if said.is_said => counts.said += 1,
            Value::Null => counts.held += 1,
            got => through.push(format!("{}: {got:#}", said.attack)),
        }
    }
    if through.is_empty() { Ok(counts) } else { Err(through) }
}

/// The machine outside a session, as far as an attack may try to change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside(BTreeMap<String, String>);

const SETTINGS: [&str; 12] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/fs/file-max",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/user/max_user_namespaces",
    "/sys/kernel/uevent_helper",
];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

impl Outside {
    /// Looks at it.
    ///
    /// * `secrets`: files that no session may read or change.
    /// * `victim`: a process that no session may reach.
    pub fn look(secrets: &[PathBuf], victim: u32) -> Self {
        let mut seen = BTreeMap::new();
        let mut see = |what: String, how: String| drop(seen.insert(what, how));
        for path in SETTINGS {
            see(path.into(), fs::read_to_string(path).unwrap_or_default());
        }
        see("binfmt_misc".into(), names(Path::new("/proc/sys/fs/binfmt_misc")));
        for name in DEVICES {
            let path = format!("/dev/{name}");
            if let Ok(about) = fs::metadata(&path) {
                let owner = (about.uid(), about.gid());
                // Who writes to a device changes its times, so only times that nothing else sets
                // are looked at.
                let is_set = about.mtime() == 1;
                see(path, format!("{:o} {owner:?} {is_set}", about.mode()));
            }
        }
        for path in secrets {
            let about = fs::symlink_metadata(path)
                .map(|about| format!("{:o} {} {}", about.mode(), about.nlink(), about.mtime()));
            let text = fs::read_to_string(path).unwrap_or_default();
            see(path.display().to_string(), format!("{about:?} {text}"));
        }
        see("the victim".into(), process(victim));
        Self(seen)
    }

    /// The differences in `later`.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let names = self.0.keys().chain(later.0.keys());
        let of = |seen: &Self, name: &String| seen.0.get(name).cloned().unwrap_or_default();
        let mut changed: Vec<String> = names
            .filter(|name| of(self, name) != of(later, name))
            .map(|name| format!("{name}: {:?} is now {:?}", of(self, name), of(later, name)))
            .collect();
        changed.dedup();
        changed
    }
}

/// The settings of a process that others may change.
fn process(pid: u32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let stat = read("stat");
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let status = read("status");
    let allowed = status
        .lines()
        .find(|line| line.starts_with("Cpus_allowed:"))
        .unwrap_or_default();
    // SAFETY: no memory is handed over.
    let io = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, pid) };
    format!(
        "nice {:?} policy {:?} {allowed} io {io} oom {} limits {}",
        fields.get(16),
        fields.get(38),
        read("oom_score_adj").trim(),
        read("limits")
    )
}

fn names(folder: &Path) -> String {
    let mut names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    format!("{names:?}")
}

/// Files below a folder that change who runs them, or that are devices.
pub fn dangerous_files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.path().symlink_metadata() else {
                continue;
            };
            let kind = about.mode() & libc::S_IFMT;
            if about.is_dir() {
                folders.push(entry.path());
            } else if about.is_file() && about.mode() & 0o6000 != 0
                || [libc::S_IFCHR, libc::S_IFBLK].contains(&kind) && about.rdev() != 0
            {
                found.push(entry.path());
            }
        }
    }
    found
}
