//! The files of runs, where a function sees them.

use crate::{Fault, Store};
use contract::{Code, Failure, names, row::RunRow, stored::StoredObject};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest time for one request to the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// The place of the files of runs, by the environment of a function.
#[derive(Default)]
pub struct RunStore {
    /// The folder of the runs' folders, on one machine.
    folder: Option<PathBuf>,
    /// The store and its bucket, on AWS.
    store: Option<(Store, String)>,
}

impl RunStore {
    /// * `look`: gives the value of an environment variable.
    pub fn from_environment(look: impl Fn(&str) -> Option<String>) -> Self {
        let named = |name| look(name).filter(|value| !value.is_empty());
        Self {
            folder: named(names::RUNS_FOLDER).map(PathBuf::from),
            store: named(names::FLOWS_BUCKET)
                .and_then(|bucket| Some((Store::from_environment(&look, STORE_TIMEOUT)?, bucket))),
        }
    }

    /// The folder of a run; `None` where this function sees none.
    pub fn folder(&self, run: &str) -> Option<PathBuf> {
        let runs = self.folder.as_ref()?;
        contract::command::is_good_id(run).then(|| runs.join(run))
    }

    /// The store that has the run's files, and their index there; `None` if it has none of this
    /// run's own.
    pub fn stored(&self, run: &RunRow) -> Option<(&Store, StoredObject)> {
        let (store, bucket) = self.store.as_ref()?;
        // A report is a session's own word, and speaks for its own run alone.
        let is_own =
            |object: &StoredObject| object.bucket == *bucket && object.flow == run.flow && object.run == run.id;
        let object = StoredObject::read(run.result.as_ref()?.stored.as_deref()?).filter(is_own)?;
        Some((store, object))
    }

    /// Removes the files of a run that has ended. Files that are gone are no error.
    ///
    /// # Errors
    ///
    /// [`Fault::Wrong`] if a folder cannot be removed: final, and nothing of the row may go then.
    /// [`Fault::NotNow`] if the store does not answer: worth a retry.
    pub async fn remove(&self, run: &RunRow) -> Result<(), Fault> {
        if let Some(folder) = self.folder(&run.id) {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(not_removed(&folder, &error).into());
                }
                _ => {}
            }
        }
        match self.stored(run) {
            Some((store, place)) => store.forget_run(&place).await,
            None => Ok(()),
        }
    }
}

fn not_removed(folder: &Path, error: &io::Error) -> Failure {
    let message = format!(
        "The folder {} cannot be removed: {error}. Put that right.",
        folder.display()
    );
    Failure::new(Code::RunNotDeleted, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sample: &str) -> RunRow {
        let path = format!(
            "{}/../../events/table/run/valid/{sample}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_folder_of_a_run_is_removed_and_no_other() {
        let runs = tempfile::tempdir().unwrap();
        let run = row("completed");
        for name in [run.id.as_str(), "another"] {
            fs::create_dir_all(runs.path().join(name).join("inner")).unwrap();
        }
        let look = |name: &str| (name == names::RUNS_FOLDER).then(|| runs.path().display().to_string());
        let files = RunStore::from_environment(look);
        files.remove(&run).await.unwrap();
        // What is gone already is no error.
        files.remove(&run).await.unwrap();
        let left: Vec<_> = fs::read_dir(runs.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["another"]);
        let escaping = RunRow {
            id: "../another".into(),
            ..run
        };
        files.remove(&escaping).await.unwrap();
        assert!(runs.path().join("another/inner").is_dir());
    }

    #[test]
    fn a_folder_that_cannot_be_removed_is_named_with_the_reason() {
        let denied = io::Error::from_raw_os_error(13);
        expect_test::expect![
            "Run.NotDeleted: The folder /runs/r cannot be removed: Permission denied (os error 13). Put that right."
        ]
        .assert_eq(&not_removed(Path::new("/runs/r"), &denied).to_string());
    }
}
