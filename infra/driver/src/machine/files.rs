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

    pub(super) fn read_launched(&self, flow: &str, generation: u32) -> Option<Launched> {
        serde_json::from_slice(&fs::read(self.session(flow, generation).join("agent.json")).ok()?).ok()
    }

    pub(super) fn write_launched(&self, flow: &str, generation: u32, launched: &Launched) -> anyhow::Result<()> {
        let path = self.session(flow, generation).join("agent.json");
        Ok(write_atomically(&path, &serde_json::to_vec(launched)?)?)
    }

    pub(super) fn last_removed(&self, flow: &str) -> u32 {
        let text = fs::read_to_string(self.state.join("sessions").join(flow).join("removed")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Once this has returned, no crash and no loss of power brings the generation back.
    pub(super) fn record_removed(&self, flow: &str, generation: u32) -> io::Result<()> {
        if self.last_removed(flow) >= generation {
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
