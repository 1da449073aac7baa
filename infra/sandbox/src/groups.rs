//! Control groups: how much processor, memory and how many processes a session may have, where this
//! machine lets us say so.
//!
//! Version 1, version 2 or a mix, as root or where a part of the tree is delegated to this user:
//! what is there is taken. A sandbox makes a group of its own below each [`Place`] and goes into it
//! before anything of a session is in it; what it is limited to is written there.

use crate::process::{Held, Identity};
use lifecycle::size::Limits;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// A group below which this process may make others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub path: PathBuf,
    /// Version 2, which has all controllers in one tree.
    pub unified: bool,
    /// Which of `cpu`, `memory` and `pids` can be limited below it.
    pub controllers: Vec<String>,
}

/// The limits of a group: files below it, and what is written to each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub below: PathBuf,
    /// The controller, the file, the value.
    pub limits: Vec<(String, String, String)>,
}

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The most processes and threads of a session.
const MOST_PROCESSES: u32 = 4096;
/// The prefix of the name of a sandbox's group; then comes the id of the process that made it.
const PREFIX: &str = "pfsession-";
/// The group that this process goes into where version 2 wants its own to be empty.
const OWN: &str = "pfsession-host";

/// Finds where groups can be made, and prepares it.
pub fn places() -> Vec<Place> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut places = Vec::new();
    for (folder, controllers) in folders(&own, &mounts) {
        let unified = controllers.is_empty();
        let place = match unified {
            true => prepare_unified(&folder),
            false => Some((folder, controllers)),
        };
        let Some((path, controllers)) = place else { continue };
        if !controllers.is_empty() && may_make_groups(&path) {
            places.push(Place {
                path,
                unified,
                controllers,
            });
        }
    }
    places
}

/// This process' own groups, with the controllers of ours that each has; version 2's with none.
fn folders(own: &str, mounts: &str) -> Vec<(PathBuf, Vec<String>)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let ours: Vec<String> = controllers
            .split(',')
            .filter(|name| CONTROLLERS.contains(name))
            .map(str::to_owned)
            .collect();
        if ours.is_empty() != controllers.is_empty() {
            continue;
        }
        let mount = mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(3);
            let (root, point) = (before.next()?, before.next()?);
            let mut after = after.split(' ');
            let (kind, options) = (after.next()?, after.nth(1)?);
            let is_it = match ours.first() {
                Some(first) => kind == "cgroup" && options.split(',').any(|option| option == first),
                None => kind == "cgroup2",
            };
            is_it.then(|| (root.to_owned(), PathBuf::from(point)))
        });
        let Some((root, point)) = mount else { continue };
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
        // Without a slash at its end.
        found.push((point.join(below.trim_start_matches('/')).components().collect(), ours));
    }
    found
}

/// Has version 2 limit what is below `folder`, this process' own group.
fn prepare_unified(folder: &Path) -> Option<(PathBuf, Vec<String>)> {
    // This process may be where it went the last time.
    let folder = match folder.file_name() {
        Some(name) if name == OWN => folder.parent()?,
        _ => folder,
    };
    let there = fs::read_to_string(folder.join("cgroup.controllers")).ok()?;
    let wanted: Vec<&str> = there
        .split_whitespace()
        .filter(|name| CONTROLLERS.contains(name))
        .collect();
    if wanted.is_empty() || !may_make_groups(folder) {
        return None;
    }
    // Controllers are for groups below one that has no processes itself, but for the topmost. This
    // comes first: with processes in it the kernel would take some of them, and bar the groups
    // below.
    if folder.join("cgroup.type").exists() && !empty(folder) {
        return None;
    }
    for name in wanted {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{name}"));
    }
    let enabled = fs::read_to_string(folder.join("cgroup.subtree_control")).ok()?;
    let enabled = enabled.split_whitespace().filter(|name| CONTROLLERS.contains(name));
    Some((folder.to_owned(), enabled.map(str::to_owned).collect()))
}

/// Moves the processes of a group of version 2 into a group below it. Returns whether all went.
fn empty(folder: &Path) -> bool {
    // More may be started meanwhile.
    for _ in 0..10 {
        let Ok(inside) = fs::read_to_string(folder.join("cgroup.procs")) else {
            return false;
        };
        if inside.is_empty() {
            return true;
        }
        let _ = fs::create_dir(folder.join(OWN));
        for pid in inside.lines() {
            let _ = fs::write(folder.join(OWN).join("cgroup.procs"), pid);
        }
    }
    false
}

fn may_make_groups(folder: &Path) -> bool {
    let trial = folder.join(format!("{PREFIX}{}-{}", std::process::id(), crate::files::random()));
    let made = fs::create_dir(&trial);
    // Going into it needs a right of its own.
    let may_enter = made.is_ok()
        && fs::OpenOptions::new()
            .write(true)
            .open(trial.join("cgroup.procs"))
            .is_ok();
    let _ = fs::remove_dir(&trial);
    may_enter
}

/// The limits of a session's group, for each place.
pub fn groups_with_limits(places: &[Place], limits: Option<Limits>) -> Vec<Group> {
    let of = |place: &Place| {
        let mut out = Vec::new();
        for controller in &place.controllers {
            let mut add = |file: &str, value: String| out.push((controller.clone(), file.to_owned(), value));
            match (controller.as_str(), place.unified, limits) {
                ("cpu", false, Some(limits)) => {
                    add("cpu.cfs_period_us", "100000".into());
                    add("cpu.cfs_quota_us", format!("{}00000", limits.cpus));
                }
                ("cpu", true, Some(limits)) => add("cpu.max", format!("{}00000 100000", limits.cpus)),
                ("memory", false, Some(limits)) => add("memory.limit_in_bytes", limits.memory.to_string()),
                ("memory", true, Some(limits)) => {
                    add("memory.max", limits.memory.to_string());
                    add("memory.swap.max", "0".into());
                }
                ("pids", ..) => add("pids.max", MOST_PROCESSES.to_string()),
                _ => {}
            }
        }
        Group {
            below: place.path.clone(),
            limits: out,
        }
    };
    places.iter().map(of).collect()
}

/// The number of processes of these groups that the kernel has ended for want of memory.
pub fn out_of_memory(groups: &[PathBuf]) -> u64 {
    let count = |file: PathBuf| {
        let text = fs::read_to_string(file).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
    };
    let counts = groups.iter().flat_map(|group| {
        [
            count(group.join("memory.events")),
            count(group.join("memory.oom_control")),
        ]
    });
    counts.flatten().sum()
}

/// Holds on the processes that are in these groups now.
pub fn members(groups: &[PathBuf]) -> Vec<Held> {
    let inside = || -> BTreeSet<i32> {
        let texts = groups
            .iter()
            .filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
        texts
            .flat_map(|text| text.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    };
    let held: Vec<Held> = inside()
        .into_iter()
        .filter_map(|pid| Identity::of(pid)?.open())
        .collect();
    // One that ended meanwhile may have left its id to a stranger.
    let still = inside();
    held.into_iter()
        .filter(|held| still.contains(&held.identity.pid))
        .collect()
}

/// Removes groups in which nothing is any more. Whether all are gone.
pub fn remove(groups: &[PathBuf]) -> bool {
    let is_gone = |group: &PathBuf| match fs::remove_dir(group) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    groups.iter().filter(|group| !is_gone(group)).count() == 0
}

/// Removes what sandboxes have left whose makers are gone.
pub fn sweep(places: &[Place]) {
    for place in places {
        for entry in fs::read_dir(&place.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let maker = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
            if maker.is_some_and(|pid| Identity::of(pid).is_none()) {
                // One that is in use stays: the kernel does not remove it.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_this_process_are_found_in_either_version_and_in_a_mix() {
        let v1 = "9:name=systemd:/\n8:pids:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n";
        let mounts = "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      31 29 0:27 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let told = |own: &str, mounts: &str| -> Vec<String> {
            folders(own, mounts)
                .iter()
                .map(|(path, controllers)| format!("{} {controllers:?}", path.display()))
                .collect()
        };
        assert_eq!(
            told(v1, mounts),
            [
                "/sys/fs/cgroup/memory/b [\"memory\"]",
                "/sys/fs/cgroup/cpu,cpuacct [\"cpu\"]",
                "/sys/fs/cgroup/unified []"
            ]
        );
        let v2 = "28 22 0:24 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            told("0::/user.slice/user-1000.slice/run-1.scope\n", v2),
            ["/sys/fs/cgroup/user.slice/user-1000.slice/run-1.scope []"]
        );
        assert!(told("", "").is_empty());
    }

    #[test]
    fn a_group_whose_processes_cannot_be_read_is_not_taken_for_an_empty_one() {
        let group = tempfile::tempdir().unwrap();
        assert!(!empty(group.path()));
        fs::write(group.path().join("cgroup.procs"), "").unwrap();
        assert!(empty(group.path()));
    }

    #[test]
    fn a_size_is_written_in_the_words_of_each_version() {
        let place = |unified, controllers: &[&str]| Place {
            path: "/g".into(),
            unified,
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        };
        let limits = Some(Limits {
            cpus: 4,
            memory: 1 << 34,
        });
        let told = |place: Place, limits| -> Vec<String> {
            let groups = groups_with_limits(&[place], limits);
            let all = groups.iter().flat_map(|group| &group.limits);
            all.map(|(_, file, value)| format!("{file}={value}")).collect()
        };
        assert_eq!(
            told(place(true, &CONTROLLERS), limits),
            [
                "cpu.max=400000 100000",
                "memory.max=17179869184",
                "memory.swap.max=0",
                "pids.max=4096"
            ]
        );
        assert_eq!(
            told(place(false, &["cpu"]), limits),
            ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=400000"]
        );
        assert_eq!(
            told(place(false, &["memory"]), limits),
            ["memory.limit_in_bytes=17179869184"]
        );
        assert_eq!(told(place(true, &CONTROLLERS), None), ["pids.max=4096"]);
    }
}
