//! User ids of the machine that sessions and builds are, where the service is root.
//!
//! Each user of the service has a range of its own, and no session is root. The ranges lie where no
//! system gives out ids by itself (systemd's "Users, Groups, UIDs and GIDs" calls it unused); what
//! is taken there all the same is left out.

use crate::files;
use anyhow::Context;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::Path,
};

const FIRST: u64 = 1_879_048_192;
/// The number of ids of a range, as those of `subuid` have.
const SIZE: u64 = 1 << 16;
const COUNT: u64 = 4096;
/// The id within its range that a session is.
const SESSION: u64 = 1000;
/// The owner of each range, by the first id.
const FILE: &str = "ids.json";

/// The user of builds, beside the users.
pub const BUILDS: &str = "builds";

/// The id on this machine of whom `name` names, the same each time. `None` where this process is
/// not the machine's root.
///
/// * `folder`: where it is kept who has which range.
///
/// # Errors
///
/// When that cannot be read or written, or others may change it. Final until that is put right.
pub fn of(folder: &Path, name: &str) -> anyhow::Result<Option<u32>> {
    if !has_ids() {
        return Ok(None);
    }
    let lock = fs::File::create(folder.join("ids.lock"))?;
    lock.lock()?;
    let path = folder.join(FILE);
    let mut ranges = read(&path)?;
    let first = match ranges.get(name) {
        Some(first) => *first,
        None => {
            let taken = taken_ranges(["/etc/subuid", "/etc/subgid"], ["/etc/passwd", "/etc/group"]);
            let begin = files::digest(&[&folder.display().to_string(), name]);
            let begin = u64::from_str_radix(&begin[..8], 16)? % COUNT;
            let first = free(begin, &ranges, &taken).context("all ranges of user ids are taken")?;
            ranges.insert(name.to_owned(), first);
            files::write_atomically(&path, &serde_json::to_vec_pretty(&ranges)?)?;
            first
        }
    };
    Ok(u32::try_from(first + SESSION).ok())
}

/// Whether this process is the machine's root, which alone can be others.
pub fn has_ids() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    is_root && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_mapped(&map))
}

/// An id that a sandbox without files can be, where this process is the machine's root.
pub(crate) fn any() -> Option<u32> {
    has_ids().then_some((FIRST + SESSION) as u32)
}

/// The ids that users were given here.
pub fn known_users(folder: &Path) -> Vec<u32> {
    let mut ranges = read(&folder.join(FILE)).unwrap_or_default();
    ranges.remove(BUILDS);
    ranges
        .values()
        .filter_map(|first| u32::try_from(first + SESSION).ok())
        .collect()
}

fn read(path: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let Ok(about) = fs::symlink_metadata(path) else {
        return Ok(BTreeMap::new());
    };
    let shown = path.display();
    anyhow::ensure!(
        about.is_file() && about.uid() == 0 && about.mode() & 0o022 == 0,
        "{shown} can be written by others than root. Remove it while no session runs"
    );
    serde_json::from_slice(&fs::read(path)?)
        .with_context(|| format!("{shown} is damaged. Remove it while no session runs"))
}

/// Whether all of the ranges are ids of this process's own namespace.
fn is_mapped(map: &str) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        matches!((first, count), (Some(first), Some(count)) if first <= FIRST && first + count >= FIRST + COUNT * SIZE)
    })
}

/// The first range from the one of this number on that nobody has.
fn free(begin: u64, ranges: &BTreeMap<String, u64>, taken: &[Range<u64>]) -> Option<u64> {
    let given: BTreeSet<u64> = ranges.values().copied().collect();
    let starts = (0..COUNT).map(|step| FIRST + (begin + step) % COUNT * SIZE);
    let is_free = |start: &u64| {
        let overlaps = |range: &Range<u64>| range.start < start + SIZE && *start < range.end;
        !given.contains(start) && !taken.iter().any(overlaps)
    };
    starts.into_iter().find(is_free)
}

/// The ids that this machine's files give out: ranges of subordinate ids, and users and groups.
fn taken_ranges(subordinate: [&str; 2], named: [&str; 2]) -> Vec<Range<u64>> {
    let lines = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut taken = Vec::new();
    for path in subordinate {
        for line in lines(path).lines() {
            let mut fields = line.split(':').skip(1).filter_map(|field| field.parse::<u64>().ok());
            if let (Some(first), Some(count)) = (fields.next(), fields.next()) {
                taken.push(first..first.saturating_add(count));
            }
        }
    }
    for path in named {
        let ids = lines(path);
        let ids = ids
            .lines()
            .filter_map(|line| line.split(':').nth(2)?.parse::<u64>().ok());
        taken.extend(ids.map(|id| id..id + 1));
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_users_never_have_ids_in_common_and_nobody_has_what_the_machine_gave_out() {
        let ranges = BTreeMap::from([("one".to_owned(), FIRST + 5 * SIZE)]);
        let taken = vec![
            FIRST + 6 * SIZE + 9..FIRST + 6 * SIZE + 10,
            FIRST + 8 * SIZE..FIRST + 9 * SIZE,
        ];
        assert_eq!(free(5, &ranges, &taken), Some(FIRST + 7 * SIZE));
        assert_eq!(free(8, &ranges, &taken), Some(FIRST + 9 * SIZE));
        // After the last comes the first.
        let last = BTreeMap::from([("last".to_owned(), FIRST + (COUNT - 1) * SIZE)]);
        assert_eq!(free(COUNT - 1, &last, &[]), Some(FIRST));
        assert_eq!(free(0, &BTreeMap::new(), std::slice::from_ref(&(0..u64::MAX))), None);
    }

    #[test]
    fn a_user_keeps_its_ids_and_a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let Some(first) = of(folder.path(), "one").unwrap() else {
            return println!("this process is not the machine's root, so it has no ids to give out");
        };
        assert_eq!(of(folder.path(), "one").unwrap(), Some(first));
        let other = of(folder.path(), "two").unwrap().unwrap();
        assert!(first.abs_diff(other) >= SIZE as u32, "{first} {other}");
        fs::set_permissions(folder.path().join(FILE), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(of(folder.path(), "one").is_err());
    }

    #[test]
    fn a_container_without_the_ids_has_none_to_give() {
        assert!(is_mapped("         0          0 4294967295\n"));
        assert!(!is_mapped("0 100000 65536\n"));
        assert!(!is_mapped(""));
    }
}
