//! The default number of sessions that this machine has room for.

use std::{fs, path::Path};

/// The memory to reckon for a session: a flow's process with promptflow takes some 100 MB, and a
/// run may have more than one.
const OF_A_SESSION: u64 = 256 << 20;
/// On the smallest machine and on the largest.
const FEWEST: u64 = 4;
const MOST: u64 = 500;

/// Returns the most sessions of a user of this machine, by its memory.
pub(crate) fn sessions_per_user() -> u64 {
    sessions_of(memory(Path::new("/")))
}

fn sessions_of(memory: Option<u64>) -> u64 {
    memory.map_or(20, |bytes| (bytes / OF_A_SESSION).clamp(FEWEST, MOST))
}

/// The memory of the machine, or of its control group if that is less, in bytes.
fn memory(root: &Path) -> Option<u64> {
    let info = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10;
    let of_group = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = of_group
        .iter()
        .filter_map(|path| fs::read_to_string(root.join(path)).ok()?.trim().parse::<u64>().ok());
    Some(limits.fold(total, u64::min))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_as_many_sessions_as_its_memory_holds() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(sessions_of(memory(root.path())), 20);
        fs::create_dir_all(root.path().join("proc")).unwrap();
        fs::write(
            root.path().join("proc/meminfo"),
            "MemTotal:       16384000 kB\nMemFree: 1 kB\n",
        )
        .unwrap();
        assert_eq!(sessions_of(memory(root.path())), 62);
        fs::create_dir_all(root.path().join("sys/fs/cgroup")).unwrap();
        fs::write(root.path().join("sys/fs/cgroup/memory.max"), "max\n").unwrap();
        assert_eq!(sessions_of(memory(root.path())), 62);
        fs::write(root.path().join("sys/fs/cgroup/memory.max"), "268435456\n").unwrap();
        assert_eq!(sessions_of(memory(root.path())), FEWEST);
        assert_eq!(sessions_of(Some(1 << 50)), MOST);
    }
}
