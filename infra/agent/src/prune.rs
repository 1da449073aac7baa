//! Retention of what is over: runs, logs, environments.
//!
//! Nothing that is in use is removed: a run that a session still works on, the log of an agent
//! whose session is there, an environment that a session holds.

use crate::connections::SECRET_VARIABLES;
use environments::{prune, store};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(86_400);

/// The bounds of what is kept: in time, and in number and bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Of runs and logs; as long as their rows are kept.
    pub(crate) age: Duration,
    /// Of all runs and logs together; the oldest go first.
    pub(crate) bytes: u64,
    pub(crate) environments: prune::Retention,
}

pub(crate) const RETENTION: Retention = Retention {
    age: DAY.saturating_mul(14),
    bytes: 4 << 30,
    environments: prune::Retention {
        unused: DAY.saturating_mul(30),
        environments: 40,
        downloads: 10 << 30,
    },
};

/// Removes what is older or more than is kept. What cannot be removed stays for the next time.
pub(crate) fn prune(state: &Path, keep: &Retention) {
    let mut kept: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    let now = SystemTime::now();
    for (folder, is_run) in [("runs", true), ("logs", false)] {
        for entry in fs::read_dir(state.join(folder)).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_in_use(state, &entry.file_name().to_string_lossy(), is_run) {
                continue;
            }
            let Ok((changed, bytes)) = size(&path) else { continue };
            match now.duration_since(changed) {
                Ok(age) if age > keep.age => remove(&path),
                _ => kept.push((changed, bytes, path)),
            }
        }
    }
    // A run that has not begun within a day never will.
    for entry in fs::read_dir(state.join(SECRET_VARIABLES))
        .into_iter()
        .flatten()
        .flatten()
    {
        let changed = entry.metadata().and_then(|about| about.modified());
        if changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > DAY)) {
            remove(&entry.path());
        }
    }
    kept.sort();
    let mut bytes: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, of_it, path) in kept {
        if bytes <= keep.bytes {
            break;
        }
        remove(&path);
        bytes -= of_it;
    }
    prune::prune(&store::folder(state), &keep.environments);
}

fn remove(path: &Path) {
    let removed = match path.is_dir() {
        true => sandbox::removal::remove(path),
        false => fs::remove_file(path),
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "what is over could not be removed");
    }
}

/// Whether a session that is there works on it, or says things in it.
fn is_in_use(state: &Path, name: &str, is_run: bool) -> bool {
    let mut generations = fs::read_dir(state.join("sessions"))
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|flow| {
            fs::read_dir(flow.path())
                .into_iter()
                .flatten()
                .flatten()
                .map(move |each| (flow.file_name(), each))
        })
        .filter(|(_, generation)| generation.path().is_dir());
    generations.any(|(flow, generation)| match is_run {
        true => ["work", "staging"]
            .iter()
            .any(|folder| generation.path().join(folder).join(name).exists()),
        false => {
            let (flow, number) = (flow.to_string_lossy(), generation.file_name());
            name == format!("agent-{flow}-{}.log", number.to_string_lossy())
        }
    })
}

/// The time of the last change of anything in it, and its size. What cannot be read is left out.
fn size(path: &Path) -> io::Result<(SystemTime, u64)> {
    let about = fs::symlink_metadata(path)?;
    let (mut changed, mut bytes) = (about.modified()?, about.len());
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            changed = changed.max(about.modified()?);
            bytes += about.len();
            if about.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok((changed, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, bytes: usize, days: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![0; bytes]).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - DAY * days).unwrap();
    }

    fn names_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn old_folder(path: &Path) {
        let folder = fs::File::open(path).unwrap();
        folder.set_modified(SystemTime::now() - DAY * 100).unwrap();
    }

    #[test]
    fn what_is_old_goes_and_the_oldest_of_what_is_too_much_and_nothing_that_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        for (run, bytes, days) in [
            ("old", 10, 20),
            ("big-and-older", 9_000, 3),
            ("big", 9_000, 2),
            ("new", 10, 0),
            ("busy", 10, 20),
        ] {
            file(&state.join("runs").join(run).join("output/outputs.jsonl"), bytes, days);
            old_folder(&state.join("runs").join(run).join("output"));
            old_folder(&state.join("runs").join(run));
        }
        file(&state.join("secret-variables/never-begun"), 10, 2);
        file(&state.join("secret-variables/waits"), 10, 0);
        file(&state.join("logs/install-1.txt"), 10, 20);
        file(&state.join("logs/install-2.txt"), 10, 1);
        file(&state.join("logs/agent-f-1.log"), 10, 20);
        file(&state.join("logs/agent-f-2.log"), 10, 20);
        fs::create_dir_all(state.join("sessions/f/2").join("work/busy")).unwrap();
        // A folder has a size of its own, which is the file system's.
        let (_, of_big) = size(&state.join("runs/big")).unwrap();
        prune(
            state,
            &Retention {
                bytes: of_big + of_big / 2,
                ..RETENTION
            },
        );
        assert_eq!(names_in(&state.join("runs")), ["big", "busy", "new"]);
        assert_eq!(names_in(&state.join("secret-variables")), ["waits"]);
        assert_eq!(names_in(&state.join("logs")), ["agent-f-2.log", "install-2.txt"]);
    }
}
