//! Removes what was unused for long: environments, images, downloads.
//!
//! Nothing that is in use is removed: see [`Store::hold_use`](crate::store::Store::hold_use).

use crate::{
    index::{Environment, Made},
    store,
};
use sandbox::removal::remove;
use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The bounds of what is unused.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The time after its last use.
    pub unused: Duration,
    /// The number of environments.
    pub environments: usize,
    /// All downloads together, in bytes; the longest unused go first.
    pub downloads: u64,
}

/// Removes what is older or more than is kept. What cannot be removed stays for the next time.
///
/// * `store`: the folder that `environments` is in.
pub fn prune(store: &Path, keep: &Retention) {
    prune_environments(store, keep);
    match images::Store::open(store) {
        Ok(images) => images.prune(keep.unused),
        Err(error) => tracing::warn!(%error, "images that nobody uses stay"),
    }
    broker::prune(&store::downloads(store), keep.unused, keep.downloads);
}

/// Removes environments that nobody has used for long, and the longest unused of those that are too
/// many. Their locks stay, from which they can be built again.
///
/// * `store`: the folder that `environments` is in.
fn prune_environments(store: &Path, keep: &Retention) {
    let folder = store.join("environments");
    let mut there: Vec<(SystemTime, Environment)> = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(key) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
            continue;
        };
        let Ok(Ok(made)) = fs::read(entry.path()).map(|text| serde_json::from_slice::<Made>(&text)) else {
            continue;
        };
        if key != made.environment.key {
            continue;
        }
        let used = [format!("{key}.used"), format!("{key}.json")];
        let used = used
            .iter()
            .find_map(|name| fs::metadata(folder.join(name)).ok()?.modified().ok());
        there.push((used.unwrap_or(UNIX_EPOCH), made.environment));
    }
    // The longest unused first; what is on a base before the base, which was used whenever that
    // was.
    there.sort_by_key(|(used, environment)| (*used, environment.below.is_none()));
    let mut many = there
        .iter()
        .filter(|(_, environment)| environment.below.is_some())
        .count();
    let mut stay: BTreeSet<&str> = BTreeSet::new();
    let (bases, layers): (Vec<_>, Vec<_>) = there.iter().partition(|(_, environment)| environment.below.is_none());
    for (used, environment) in layers.into_iter().chain(bases) {
        let age = SystemTime::now().duration_since(*used).unwrap_or_default();
        let too_many = environment.below.is_some() && many > keep.environments;
        let is_needed = stay.contains(environment.key.as_str());
        if (age > keep.unused || too_many) && !is_needed && take_away(&folder, environment).unwrap_or(false) {
            many -= usize::from(environment.below.is_some());
        } else {
            stay.extend(environment.below.as_deref());
        }
    }
}

/// Removes an environment that is not held. Returns whether it did.
fn take_away(folder: &Path, environment: &Environment) -> io::Result<bool> {
    let key = &environment.key;
    let used = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(format!("{key}.used")))?;
    if used.try_lock().is_err() {
        return Ok(false);
    }
    // From here on it is not complete; a waiter for the lock sees that.
    fs::rename(
        folder.join(format!("{key}.json")),
        folder.join(format!("{key}.gone.json")),
    )?;
    remove(&folder.join(key))?;
    tracing::info!(
        environment = key,
        "an environment that nobody has used for long is gone"
    );
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hold;

    const DAY: Duration = Duration::from_secs(86_400);
    const RETENTION: Retention = Retention {
        unused: DAY.saturating_mul(30),
        environments: 40,
        downloads: 0,
    };

    #[test]
    fn an_environment_that_nobody_has_used_for_long_goes_with_all_that_is_on_it_and_its_lock_stays() {
        let folder = tempfile::tempdir().unwrap();
        let environments = folder.path().join("environments");
        let make = |key: &str, below: Option<&str>, days: u32| {
            fs::create_dir_all(environments.join(key).join("lib")).unwrap();
            fs::write(environments.join(format!("{key}.txt")), "a==1\n").unwrap();
            let base = below.unwrap_or(key);
            let about = serde_json::json!({ "key": key, "below": below, "base": base, "pure": true, "pth": [] });
            fs::write(environments.join(format!("{key}.json")), about.to_string()).unwrap();
            let used = fs::File::create(environments.join(format!("{key}.used"))).unwrap();
            used.set_modified(SystemTime::now() - DAY * days).unwrap();
        };
        make("base", None, 1);
        make("young", Some("base"), 1);
        make("old", Some("base"), 40);
        make("held", Some("base"), 40);
        make("old-base", None, 50);
        make("on-old-base", Some("old-base"), 50);
        let held = hold::hold(&environments, "held").unwrap();
        prune(folder.path(), &RETENTION);
        let there = |key: &str| {
            (
                environments.join(key).is_dir(),
                environments.join(format!("{key}.json")).exists(),
            )
        };
        for key in ["base", "young", "held"] {
            assert_eq!(there(key), (true, true), "{key}");
        }
        for key in ["old", "old-base", "on-old-base"] {
            assert_eq!(there(key), (false, false), "{key}");
            assert!(environments.join(format!("{key}.txt")).exists(), "{key}");
            assert!(environments.join(format!("{key}.gone.json")).exists(), "{key}");
        }
        drop(held);
        prune(
            folder.path(),
            &Retention {
                environments: 1,
                ..RETENTION
            },
        );
        // To hold one is to use it.
        assert_eq!(
            (there("held").0, there("young").0, there("base").0),
            (true, false, true)
        );
    }
}
