//! The files of a store: which environments there are, and what requests were resolved to.
//!
//! | path below `environments/` | what |
//! | --- | --- |
//! | `{key}/` | the packages: a whole environment, or what one adds to its base |
//! | `{key}.json` | [`Environment`]: that it is complete. Renamed into place last |
//! | `{key}.txt` | its lock: every package with its version and hashes |
//! | `{key}.asked-by.json` | which of its packages asks for which |
//! | `{key}.gone.json` | what `{key}.json` was, of an environment that nobody had used for long: its lock is there to build it again |
//! | `{key}.used` | held while a session uses it; when it was written is when that began last |
//! | `{key}.lock` | held while it is built |
//! | `index/{request}.json` | which key a request (requirement lines, indexes, platform, base) was resolved to, and when |
//!
//! The key is a hash of the interpreter, the platform, the base and the lock. A crash leaves a
//! folder without its `.json`: it counts for nothing, and the next build of the same key removes
//! it. What is complete is never written to again: a session sees it under an overlay of its own.

use crate::lock::AskedBy;
use contract::{Code, Failure};
use sandbox::files::write_atomically;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// An environment that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The hash that its files are named by.
    pub key: String,
    /// The environment that this one is layered on, if it is.
    pub below: Option<String>,
    /// The base image.
    pub base: String,
    /// Whether it has all of the base's packages at the base's versions, so that a process with the
    /// base loaded can use it.
    pub pure: bool,
    /// The `.pth` files that the base has not.
    pub pth: Vec<String>,
}

/// `{key}.json`: an environment that is complete.
#[derive(Serialize, Deserialize)]
pub(crate) struct Made {
    #[serde(flatten)]
    pub(crate) environment: Environment,
    /// Until it is on the disk: the boot of the machine in which it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unsynced: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Resolved {
    key: String,
    at: u64,
}

/// The files below `environments/` of one store.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// The folder of the environments; several state folders may share it.
    pub(crate) store: PathBuf,
}

impl Index {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.store.join("environments").join(name)
    }

    /// An environment that is complete.
    pub(crate) fn complete(&self, key: &str) -> Option<Environment> {
        let made: Made = self.read_json(&format!("{key}.json"))?;
        // What was not yet on the disk when the machine went down may be there in part.
        made.unsynced
            .is_none_or(|boot| boot == boot_id())
            .then_some(made.environment)
    }

    /// Removed environments that can be built again from their locks.
    pub(crate) fn find_pruned(&self, key: &str) -> Option<Environment> {
        self.read_json(&format!("{key}.gone.json"))
    }

    /// The environment that a request was resolved to, if that is no older than `age`, in seconds.
    pub(crate) fn find_resolved(&self, request: &str, age: u64) -> Option<Environment> {
        let found: Resolved = self.read_json(&format!("index/{request}.json"))?;
        if now().saturating_sub(found.at) > age {
            return None;
        }
        self.complete(&found.key)
    }

    /// Writes down what a request was resolved to.
    ///
    /// # Errors
    ///
    /// As [`Self::failure`].
    pub(crate) fn remember(&self, request: &str, environment: &Environment) -> Result<(), Failure> {
        let text = serde_json::to_vec(&Resolved {
            key: environment.key.clone(),
            at: now(),
        })
        .map_err(|error| self.failure(error.into()))?;
        write_atomically(&self.path(&format!("index/{request}.json")), &text).map_err(|error| self.failure(error))
    }

    /// The lock of an environment; empty if it is gone.
    ///
    /// # Errors
    ///
    /// `Install.Failed` if the file is there and cannot be read: without it every package would
    /// count as new.
    pub(crate) fn lock_of(&self, key: &str) -> Result<String, Failure> {
        let path = self.path(&format!("{key}.txt"));
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(|error| {
                let message = format!(
                    "{} cannot be read: {error}. Put that right, and start again.",
                    path.display()
                );
                Failure::new(Code::InstallFailed, message)
            }),
        }
    }

    /// A file of JSON. One that is there and cannot be read counts as missing, and is logged.
    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.path(name);
        let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
        read.inspect_err(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, file = %path.display(), "a file of the environments cannot be read");
            }
        })
        .ok()
    }

    /// Writes the lock of an environment. Returns its path.
    ///
    /// # Errors
    ///
    /// As [`Self::failure`].
    pub(crate) fn write_lock(&self, key: &str, lock: &str) -> Result<PathBuf, Failure> {
        let path = self.path(&format!("{key}.txt"));
        write_atomically(&path, lock.as_bytes()).map_err(|error| self.failure(error))?;
        Ok(path)
    }

    /// Which of an environment's packages asks for which.
    pub(crate) fn askers(&self, key: &str) -> AskedBy {
        self.read_json(&format!("{key}.asked-by.json")).unwrap_or_default()
    }

    /// # Errors
    ///
    /// As [`Self::failure`].
    pub(crate) fn write_askers(&self, key: &str, asked_by: &AskedBy) -> Result<(), Failure> {
        let text = serde_json::to_vec(asked_by).map_err(|error| self.failure(error.into()))?;
        write_atomically(&self.path(&format!("{key}.asked-by.json")), &text).map_err(|error| self.failure(error))
    }

    /// Says that an environment is complete. Nobody waits for the disk: until all of it is there,
    /// it counts only while the machine runs.
    pub(crate) fn mark(&self, environment: &Environment) -> Result<(), Failure> {
        let path = self.path(&format!("{}.json", environment.key));
        let _ = fs::remove_file(self.path(&format!("{}.gone.json", environment.key)));
        let write = |path: &Path, unsynced| {
            let environment = environment.clone();
            write_atomically(path, &serde_json::to_vec(&Made { environment, unsynced })?)
        };
        write(&path, Some(boot_id())).map_err(|error| self.failure(error))?;
        let environment = environment.clone();
        std::thread::spawn(move || {
            let environment = environment;
            let folder = path.parent().unwrap_or(Path::new("/"));
            let is_synced = fs::File::open(folder).is_ok_and(|folder| rustix::fs::syncfs(folder).is_ok());
            let made = Made {
                environment,
                unsynced: None,
            };
            // Somebody may have removed it meanwhile.
            if is_synced && path.exists() {
                let _ = serde_json::to_vec(&made).map(|text| write_atomically(&path, &text));
            }
        });
        Ok(())
    }

    /// `Install.DiskFull` or `Install.Failed`: the store cannot be written.
    pub(crate) fn failure(&self, error: io::Error) -> Failure {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Failure::new(
                Code::InstallDiskFull,
                format!(
                    "There is no room in {}. Make some, and start again.",
                    self.store.display()
                ),
            ),
            _ => Failure::new(
                Code::InstallFailed,
                format!(
                    "The environments in {} cannot be written: {error}. Put that right, and start again.",
                    self.store.display()
                ),
            ),
        }
    }
}

/// The time in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Which boot of the machine this is.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
