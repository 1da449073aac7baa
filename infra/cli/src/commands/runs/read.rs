//! The commands that print a run: `pfsession runs show`, `details`, `metrics`, `outputs` and
//! `logs`.

use super::{find, metrics_of, node_files};
use crate::{
    command::{Execute, Printed, any_of, schema_of},
    commands::logs,
    global::{Done, Service},
    runfiles::{self, Line, Remote},
    show,
    terminal::note,
    text::{home, out, out_as_said, out_json},
};
use clap::Args;
use contract::{agent::OutputLine, row::RunRow};
use serde_json::{Map, Value};

/// Show a run; with --nodes, each node's record for each line
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession runs show my-flow-1c9e54a07b2d
  pfsession runs show my-flow-1c9e54a07b2d --nodes")]
pub(crate) struct Show {
    /// The run
    run: String,
    /// The inputs, output, time, tokens and log of each node, as promptflow has them
    #[arg(long)]
    nodes: bool,
}

/// A run; with `--nodes`, one record of a node, as promptflow writes it.
pub(crate) enum Shown {}

impl Printed for Shown {
    fn schema() -> Option<Value> {
        Some(any_of(&[
            ("the run", schema_of::<RunRow>()),
            ("with --nodes", schema_of::<Map<String, Value>>()),
        ]))
    }
}

impl Execute for Show {
    type Json = Shown;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let row = find(client, &self.run)?;
        if !self.nodes {
            if service.global.json {
                out_json(&row)
            } else {
                out(&show::run(&row, home().as_deref()))
            }
            return Ok(0);
        }
        let mut found = false;
        for (node, path) in node_files(client, &row)? {
            let Some(file) = Remote::open(client, &row.id, &path, false)? else {
                continue;
            };
            for line in file.lines() {
                let line = line.map_err(|error| runfiles::unread(&error))?;
                let value = runfiles::value(&line);
                found = true;
                if service.global.json {
                    out_json(&value);
                } else if let Ok(record) = serde_json::from_value(value) {
                    out(&show::node(&node, &record));
                }
            }
        }
        if !found {
            note!("The run {} has no records of nodes.", row.id);
        }
        Ok(0)
    }
}

/// Print the table of a run's lines: status, inputs, outputs, error
#[derive(Args, Debug)]
#[command(after_help = "\
A long value is cut in the table, and ends with …; --json prints each line whole.

Examples:
  pfsession runs details my-flow-1c9e54a07b2d
  pfsession runs details my-flow-1c9e54a07b2d --json | jq 'select(.status == \"Failed\")'")]
pub(crate) struct Details {
    /// The run
    run: String,
}

impl Execute for Details {
    type Json = Line;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let row = &find(client, &self.run)?;
        let lines = runfiles::lines(client, row)?;
        if service.global.json {
            for line in lines {
                out_json(&line?);
            }
            return Ok(0);
        }
        let lines = lines.collect::<Result<Vec<Line>, _>>()?;
        if lines.is_empty() {
            note!(
                "The run {} has no lines{}.",
                row.id,
                if row.status.is_final() { "" } else { " yet" }
            );
        } else {
            out(&show::details(&lines));
        }
        Ok(0)
    }
}

/// Print a run's metrics
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession runs metrics my-eval-8c1b2f90aa31")]
pub(crate) struct Metrics {
    /// The run
    run: String,
}

impl Execute for Metrics {
    /// The metrics by name.
    type Json = Map<String, Value>;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let row = find(client, &self.run)?;
        // They are JSON in any case.
        out_as_said(&metrics_of(client, &row)?);
        Ok(0)
    }
}

/// Print a run's outputs, one JSON object a line; `null` where a line failed
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession runs outputs my-flow-1c9e54a07b2d > outputs.jsonl")]
pub(crate) struct Outputs {
    /// The run
    run: String,
}

impl Execute for Outputs {
    /// The output of a line; `null` if the line failed.
    type Json = Option<Map<String, Value>>;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let row = find(client, &self.run)?;
        for line in runfiles::lines(client, &row)? {
            out_as_said(&line?.text);
        }
        Ok(0)
    }
}

/// Print a run's whole log
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession runs logs my-flow-1c9e54a07b2d --follow")]
pub(crate) struct Logs {
    /// The run
    run: String,
    /// Follow the output until its end
    #[arg(long, short)]
    follow: bool,
}

impl Execute for Logs {
    type Json = OutputLine;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let row = find(client, &self.run)?;
        logs::logs_of(client, &row.id, self.follow, service.global.json)
    }
}
