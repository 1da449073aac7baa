//! The model provider of `tests/provider.py`, which ends with its holder.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

pub(crate) struct Provider {
    process: Child,
    said: BufReader<ChildStdout>,
    pub(crate) address: String,
}

impl Provider {
    pub(crate) fn start(key: &str) -> Self {
        let mut process = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/provider.py"))
            .arg(key)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let mut provider = Self {
            process,
            said,
            address: String::new(),
        };
        provider.said.read_line(&mut provider.address).unwrap();
        provider.address.truncate(provider.address.trim_end().len());
        provider
    }

    /// The requests that it had, at its end.
    pub(crate) fn asked(mut self) -> Vec<Value> {
        self.process.kill().unwrap();
        let lines = self.said.by_ref().lines();
        lines
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
