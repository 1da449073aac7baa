//! The driver's own files of one machine: which sessions there are, and which were removed.

use agent::disk;
use contract::command::is_good_id;
use sandbox::{files::write_atomically, process::Identity};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// `agent.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Launched {
    #[serde(flatten)]
    pub(super) process: Identity,
    /// The public half of its key.
    pub(super) key: String,
    pub(super) compute: String,
    /// The session's folder.
    #[serde(default)]
    pub(super) folder: Option<PathBuf>,
    /// Whether it said its first word.
    pub(super) up: bool,
}

/// The state folder of a machine.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) state: PathBuf,
}

impl Files {
    /// The folder of a compute resource.
    ///
    /// # Errors
    ///
    /// When it is no id: it could name another folder.
    pub(super) fn compute(&self, id: &str) -> anyhow::Result<PathBuf> {
        anyhow::ensure!(is_good_id(id), "{id:?} is no compute resource's id");
        Ok(self.state.join("computes").join(id))
    }

    pub(super) fn session(&self, flow: &str, generation: u32) -> PathBuf {
        self.state.join("sessions").join(flow).join(generation.to_string())
    }

    pub(super) fn log(&self, flow: &str, generation: u32) -> PathBuf {
        self.state.join("logs").join(format!("agent-{flow}-{generation}.log"))
    }

    /// The agent of a generation; `None` if it was never launched. A damaged file is logged, and
    /// its agent is not known: its sandboxes can be ended all the same, and its lease runs out.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read.
    pub(super) fn read_launched(&self, flow: &str, generation: u32) -> io::Result<Option<Launched>> {
        let path = self.session(flow, generation).join("agent.json");
        let Some(text) = read(&path)? else { return Ok(None) };
        let launched = serde_json::from_str(&text);
        Ok(launched
            .inspect_err(
                |cause| tracing::error!(flow, generation, error = %damaged(&path, cause), "an agent is not known"),
            )
            .ok())
    }

    pub(super) fn write_launched(&self, flow: &str, generation: u32, launched: &Launched) -> anyhow::Result<()> {
        let path = self.session(flow, generation).join("agent.json");
        Ok(write_atomically(&path, &serde_json::to_vec(launched)?)?)
    }

    /// The highest generation that was removed; 0 if none was.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read: an old generation could be launched again.
    pub(super) fn last_removed(&self, flow: &str) -> io::Result<u32> {
        let path = self.state.join("sessions").join(flow).join("removed");
        let parse = |text: String| text.trim().parse().map_err(|cause| damaged(&path, &cause));
        Ok(read(&path)?.map(parse).transpose()?.unwrap_or(0))
    }

    /// Once this has returned, no crash and no loss of power brings the generation back.
    pub(super) fn record_removed(&self, flow: &str, generation: u32) -> io::Result<()> {
        if self.last_removed(flow)? >= generation {
            return Ok(());
        }
        let folder = self.state.join("sessions").join(flow);
        fs::create_dir_all(&folder)?;
        let partial = folder.join(".removed");
        disk::write_at_any_rate(&self.state, || {
            let mut file = fs::File::create(&partial)?;
            io::Write::write_all(&mut file, generation.to_string().as_bytes())?;
            file.sync_all()
        })?;
        fs::rename(&partial, folder.join("removed"))?;
        fs::File::open(&folder)?.sync_all()
    }

    pub(super) fn generations(&self, flow: &str) -> Vec<u32> {
        numbers(&self.state.join("sessions").join(flow))
    }

    pub(super) fn sessions(&self) -> Vec<(String, u32)> {
        let flows = fs::read_dir(self.state.join("sessions"))
            .into_iter()
            .flatten()
            .flatten();
        let flows = flows.filter_map(|flow| flow.file_name().into_string().ok());
        flows
            .flat_map(|flow| {
                self.generations(&flow)
                    .into_iter()
                    .map(move |generation| (flow.clone(), generation))
            })
            .collect()
    }
}

fn numbers(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The text of a file; `None` if there is none.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("{} cannot be read: {error}", path.display()),
        )),
    }
}

fn damaged(path: &Path, cause: &dyn std::error::Error) -> io::Error {
    let message = format!("{} is damaged: {cause}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_not_taken_for_a_missing_one() {
        let state = tempfile::tempdir().unwrap();
        let files = Files {
            state: state.path().to_owned(),
        };
        assert!(files.read_launched("f", 1).unwrap().is_none());
        assert_eq!(files.last_removed("f").unwrap(), 0);
        fs::create_dir_all(files.session("f", 1)).unwrap();
        fs::create_dir_all(state.path().join("sessions/f")).unwrap();
        fs::write(files.session("f", 1).join("agent.json"), "{").unwrap();
        fs::write(state.path().join("sessions/f/removed"), "x").unwrap();
        assert!(files.read_launched("f", 1).unwrap().is_none());
        fs::create_dir_all(files.session("f", 2).join("agent.json")).unwrap();
        let launched = files.read_launched("f", 2).unwrap_err().to_string();
        assert!(launched.contains("agent.json cannot be read"), "{launched}");
        for removed in [
            files.last_removed("f").unwrap_err(),
            files.record_removed("f", 2).unwrap_err(),
        ] {
            assert!(
                removed.to_string().contains("sessions/f/removed is damaged"),
                "{removed}"
            );
        }
    }
}
