//! Folders that moved: which flow a folder of this machine is.
//!
//! A flow's key is of its user and its lineage, and its lineage is the first path of its folder.
//! Rows, runs, packages, snapshots, queues and files are named by that key. So a folder that moved
//! keeps its lineage, and the machine that has the folder keeps where it is now.
//!
//! Rejected: a new key, for which all of these would be renamed in no one transaction, and under
//! agents that live; a file in the folder, as a copy of the folder is another flow.

use crate::trouble::{FAILED, Trouble, USAGE};
use contract::{Code, FlowRef};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// The folders of this machine that are not where their flow's lineage says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folders {
    moved: Vec<Moved>,
}

/// A folder that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Moved {
    flow: FlowRef,
    folder: PathBuf,
}

impl Folders {
    /// Reads them from the state folder.
    ///
    /// # Errors
    ///
    /// `Flow.Unreadable`, final: the file is there and cannot be read.
    pub(crate) fn load(state: &Path) -> Result<Self, Box<Trouble>> {
        let file = file(state);
        match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| unreadable(&file, &error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unreadable(&file, &error)),
        }
    }

    /// The lineage of the flow in this folder, if it is not the folder's path.
    ///
    /// # Errors
    ///
    /// `Flow.Moved`, final: the lineage that is the folder's path is that of a flow which is
    /// elsewhere now.
    pub(crate) fn lineage_of(
        &self,
        (workspace, user): (&str, &str),
        folder: &Path,
    ) -> Result<Option<String>, Box<Trouble>> {
        let is_of = |moved: &&Moved| (moved.flow.workspace.as_str(), moved.flow.owner.as_str()) == (workspace, user);
        let own = || self.moved.iter().filter(is_of);
        if let Some(moved) = own().find(|moved| moved.folder == folder) {
            return Ok(Some(moved.flow.lineage.clone()));
        }
        match own().find(|moved| Path::new(&moved.flow.lineage) == folder) {
            None => Ok(None),
            Some(moved) => Err(moved_away(folder, &moved.folder)),
        }
    }

    /// The folder of a flow on this machine: where it moved, or else its lineage.
    pub(crate) fn folder_of(&self, flow: &FlowRef) -> PathBuf {
        let moved = self.moved.iter().find(|moved| moved.flow == *flow);
        moved.map_or_else(|| PathBuf::from(&flow.lineage), |moved| moved.folder.clone())
    }

    /// Keeps that a flow is in `folder` now.
    ///
    /// # Errors
    ///
    /// `Flow.NotMoved`: the list of folders was not written; nothing is changed.
    pub(crate) fn keep(state: &Path, flow: &FlowRef, folder: &Path) -> Result<(), Box<Trouble>> {
        let not_written = |error: io::Error| not_moved(&format!("{} was not written: {error}", file(state).display()));
        let lock = File::create(state.join("folders.lock")).map_err(not_written)?;
        lock.lock().map_err(not_written)?;
        let mut folders = Self::load(state)?;
        folders.moved.retain(|moved| moved.flow != *flow);
        if Path::new(&flow.lineage) != folder {
            folders.moved.push(Moved {
                flow: flow.clone(),
                folder: folder.to_owned(),
            });
        }
        let text = serde_json::to_vec_pretty(&folders).expect("paths of folders were read as text");
        let new = state.join("folders.json.new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, file(state)));
        written.map_err(not_written)
    }
}

fn file(state: &Path) -> PathBuf {
    state.join("folders.json")
}

fn unreadable(file: &Path, error: &io::Error) -> Box<Trouble> {
    let message = format!(
        "The list of folders that moved, {}, cannot be read: {error}",
        file.display()
    );
    Trouble::new(FAILED, Code::FlowUnreadable, message).next("correct it, or remove it and move the folders again")
}

fn moved_away(folder: &Path, to: &Path) -> Box<Trouble> {
    let message = format!(
        "The flow of {} was moved to {} with its session",
        folder.display(),
        to.display()
    );
    let next = "use the flow there; another flow needs a folder of another name, as this one's history is the other's";
    Trouble::new(USAGE, Code::FlowMoved, message).next(next)
}

/// The folder of a flow is not moved, and why.
pub(crate) fn not_moved(why: &str) -> Box<Trouble> {
    Trouble::new(FAILED, Code::FlowNotMoved, format!("The session is not moved: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_moved_keeps_its_lineage_and_its_old_place_is_no_other_flows() {
        let state = tempfile::tempdir().unwrap();
        let flow = FlowRef {
            workspace: "lab".into(),
            owner: "ann".into(),
            lineage: "/old".into(),
        };
        let folders = || Folders::load(state.path()).unwrap();
        let lineage = |folder: &str| folders().lineage_of(("lab", "ann"), Path::new(folder));
        assert_eq!(lineage("/old").unwrap(), None);
        Folders::keep(state.path(), &flow, Path::new("/new")).unwrap();
        assert_eq!(lineage("/new").unwrap().as_deref(), Some("/old"));
        assert_eq!(folders().folder_of(&flow), Path::new("/new"));
        let gone = lineage("/old").unwrap_err();
        expect_test::expect![[r#"
            error: The flow of /old was moved to /new with its session [Flow.Moved]
              next: use the flow there; another flow needs a folder of another name, as this one's history is the other's"#]]
        .assert_eq(&gone.to_string());
        let other = folders().lineage_of(("lab", "bob"), Path::new("/old"));
        assert_eq!(other.unwrap(), None, "somebody else's flow of that path is theirs");
        // Further, and back.
        Folders::keep(state.path(), &flow, Path::new("/newer")).unwrap();
        assert_eq!(lineage("/new").unwrap(), None);
        Folders::keep(state.path(), &flow, Path::new("/old")).unwrap();
        assert_eq!((lineage("/old").unwrap(), folders()), (None, Folders::default()));
        fs::write(state.path().join("folders.json"), "[").unwrap();
        let broken = Folders::load(state.path()).unwrap_err().to_string();
        let broken = broken.replace(&state.path().display().to_string(), "<state>");
        expect_test::expect!["Flow.NotMoved: The session is not moved: its run r1 is active"]
            .assert_eq(&not_moved("its run r1 is active").failure.to_string());
        expect_test::expect![[r#"
            error: The list of folders that moved, <state>/folders.json, cannot be read: EOF while parsing a list at line 1 column 1 [Flow.Unreadable]
              next: correct it, or remove it and move the folders again"#]]
        .assert_eq(&broken);
    }
}
