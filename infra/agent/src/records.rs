//! Promptflow's own records of the lines of a run and of their nodes, in files that its own loader
//! reads: inputs, outputs, times, tokens, logs.

use crate::connections::Given;
use std::{
    collections::HashMap,
    fs,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// The name of each file. Promptflow has files for parts of a run, and reads any number of lines
/// from one.
const FILE: &str = "000000000.jsonl";
/// The most nodes that have a file of their own; as many files are open at once.
const MOST_NODES: usize = 200;

/// The records of a run, as they come.
pub(crate) struct Records {
    folder: PathBuf,
    lines: Option<BufWriter<fs::File>>,
    nodes: HashMap<String, BufWriter<fs::File>>,
    spans: Option<BufWriter<fs::File>>,
}

impl Records {
    pub(crate) fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            lines: None,
            nodes: HashMap::new(),
            spans: None,
        }
    }

    /// Writes the record of a line and those of its nodes, without secrets.
    pub(crate) fn take(&mut self, given: &Given, line: Option<String>, nodes: Vec<(String, String)>) -> io::Result<()> {
        if let Some(line) = line {
            let file = match &mut self.lines {
                Some(file) => file,
                none => none.insert(begin(&self.folder.join("flow_artifacts"))?),
            };
            writeln!(file, "{}", given.without_secrets(&line))?;
            file.flush()?;
        }
        for (node, record) in nodes {
            let name = file_name(&node);
            let name = match self.nodes.len() < MOST_NODES || self.nodes.contains_key(&name) {
                true => name,
                false => "other".to_owned(),
            };
            if !self.nodes.contains_key(&name) {
                let file = begin(&self.folder.join("node_artifacts").join(&name))?;
                self.nodes.insert(name.clone(), file);
            }
            if let Some(file) = self.nodes.get_mut(&name) {
                writeln!(file, "{}", given.without_secrets(&record))?;
                file.flush()?;
            }
        }
        Ok(())
    }

    /// Writes spans, without secrets.
    pub(crate) fn take_spans(&mut self, given: &Given, spans: &[String]) -> io::Result<()> {
        let file = match &mut self.spans {
            Some(file) => file,
            none => none.insert(fs::File::create(self.folder.join("spans.jsonl")).map(BufWriter::new)?),
        };
        for span in spans {
            writeln!(file, "{}", given.without_secrets(span))?;
        }
        file.flush()
    }
}

fn begin(folder: &Path) -> io::Result<BufWriter<fs::File>> {
    fs::create_dir_all(folder)?;
    fs::File::create(folder.join(FILE)).map(BufWriter::new)
}

/// A node's name as the name of a folder: it comes from the process that runs the flow's code.
fn file_name(node: &str) -> String {
    let safe = |c: char| {
        if c.is_alphanumeric() || "_-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = node.chars().map(safe).take(100).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

/// Puts what an earlier run has completed into a folder, as the runner reads it; and the images
/// that its outputs refer to beside the new ones.
pub(crate) fn stage(run: &Path, to: &Path, output: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(run.join("output"))? {
        let entry = entry?;
        let name = entry.file_name();
        let is_result = name == "outputs.jsonl" || name == "lines.jsonl";
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), if is_result { to } else { output }.join(&name))?;
        }
    }
    let lines = run.join("flow_artifacts").join(FILE);
    if lines.is_file() {
        fs::copy(lines, to.join("flow_records.jsonl"))?;
    }
    let mut all = fs::File::create(to.join("node_records.jsonl"))?;
    for node in fs::read_dir(run.join("node_artifacts")).into_iter().flatten() {
        let file = node?.path().join(FILE);
        if file.is_file() {
            io::copy(&mut fs::File::open(file)?, &mut all)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_any_name_has_a_folder_below_the_run() {
        assert_eq!(file_name("my_node"), "my_node");
        assert_eq!(file_name("../../etc"), "______etc");
        assert_eq!((file_name(""), file_name(".")), ("_".to_owned(), "_".to_owned()));
    }
}
