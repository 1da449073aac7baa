//! `pfsession runs visualize`: one HTML file that needs nothing beside it, and in which nothing of
//! a run is acted on.

mod markup;
mod pictures;
mod spans;

use super::{find, metrics_of, node_files};
use crate::{
    client::Client,
    command::Execute,
    global::{Done, Service},
    runfiles::{self, Record, Remote},
    show,
    text::{self, home, out, out_json},
    trouble::{FAILED, Trouble},
};
use clap::Args;
use contract::{Code, row::RunRow};
use markup::{escape, value_text};
use pictures::Images;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::HashMap,
    fs,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em; color: #222 }
table { border-collapse: collapse } th, td { text-align: left; vertical-align: top; padding: .3em .8em; border-bottom: 1px solid #ddd }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-width: 60em }
img { display: block; max-width: 40em; max-height: 30em }
.Failed { color: #b00 } .Canceled { color: #a60 } .Completed { color: #070 } summary { cursor: pointer }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } th, td { border-color: #444 } }
</style>
"#;

/// Write runs as one HTML file, and print where it is
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  xdg-open \"$(pfsession runs visualize my-flow-1c9e54a07b2d --out run.html)\"")]
pub(crate) struct Visualize {
    /// The runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<String>,
    /// The file [default: the run's name, in this folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The page that was written.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Page {
    file: String,
}

impl Execute for Visualize {
    type Json = Page;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let rows = self
            .runs
            .iter()
            .map(|run| find(client, run))
            .collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let to: PathBuf = self
            .out
            .clone()
            .unwrap_or_else(|| format!("{}.html", names.join("-")).into());
        let failed = |error: io::Error| {
            let message = format!("{} cannot be written: {error}", to.display());
            Trouble::new(FAILED, Code::CommandNotWritten, message).next("name another file: --out FILE")
        };
        let mut page = BufWriter::new(fs::File::create(&to).map_err(failed)?);
        page.write_all(HEAD.as_bytes())
            .and_then(|()| writeln!(page, "<title>{}</title></head><body>", escape(&names.join(", "))))
            .map_err(failed)?;
        for row in &rows {
            section(client, row, &mut page, &failed)?;
        }
        writeln!(page, "</body></html>")
            .and_then(|()| page.flush())
            .map_err(failed)?;
        let place = fs::canonicalize(&to).unwrap_or(to).display().to_string();
        if service.global.json {
            out_json(&Page { file: place });
        } else {
            out(&text::folder(&place, home().as_deref()));
        }
        Ok(0)
    }
}

fn section(
    client: &Client,
    row: &RunRow,
    page: &mut impl Write,
    failed: &dyn Fn(io::Error) -> Box<Trouble>,
) -> Result<(), Box<Trouble>> {
    let mut nodes = records(client, row)?;
    head(client, row, page, failed)?;
    write_lines(client, row, &mut nodes, page, failed)?;
    // Those of the aggregation belong to no line.
    let mut left: Vec<_> = nodes.into_values().flatten().collect();
    left.sort_by(|a, b| a.0.cmp(&b.0));
    if !left.is_empty() {
        writeln!(page, "<h2>Aggregation</h2>{}", of_nodes(&left)).map_err(failed)?;
    }
    if let Some(spans) = Remote::open(client, &row.id, "spans.jsonl", false)? {
        page.write_all(spans::table(spans.lines())?.as_bytes())
            .map_err(failed)?;
    }
    Ok(())
}

/// The records of nodes by line.
type Nodes = HashMap<Option<i64>, Vec<(String, Record)>>;

fn records(client: &Client, row: &RunRow) -> Result<Nodes, Box<Trouble>> {
    let mut nodes = Nodes::new();
    for (node, path) in node_files(client, row)? {
        let Some(file) = Remote::open(client, &row.id, &path, false)? else {
            continue;
        };
        for line in file.lines() {
            let line = line.map_err(|error| runfiles::unread(&error))?;
            if let Ok(record) = serde_json::from_value::<Record>(runfiles::value(&line)) {
                nodes
                    .entry(record.line_number)
                    .or_default()
                    .push((node.clone(), record));
            }
        }
    }
    Ok(nodes)
}

fn head(
    client: &Client,
    row: &RunRow,
    page: &mut impl Write,
    failed: &dyn Fn(io::Error) -> Box<Trouble>,
) -> Result<(), Box<Trouble>> {
    let status = format!("{:?}", row.status);
    let flow = row.of.as_ref().map(|of| of.lineage.as_str()).unwrap_or_default();
    let failure = row
        .failure
        .as_ref()
        .map(|failure| format!("<p class=\"Failed\">{}</p>", escape(&failure.to_string())))
        .unwrap_or_default();
    let metrics = runfiles::value(&metrics_of(client, row)?);
    let has_metrics = metrics.as_object().is_none_or(|metrics| !metrics.is_empty());
    let metrics = has_metrics.then(|| format!("<h2>Metrics</h2>{}", value_text(Some(&metrics))));
    writeln!(
        page,
        "<h1>{}</h1><p>{}</p><p class=\"{status}\">{}</p><p>{}</p>{failure}{}",
        escape(&row.id),
        escape(row.display_name().unwrap_or_default()),
        show::run_status(row.status),
        escape(flow),
        metrics.unwrap_or_default(),
    )
    .map_err(failed)
}

/// Writes the lines of a run, each with its records, which are taken.
fn write_lines(
    client: &Client,
    row: &RunRow,
    nodes: &mut Nodes,
    page: &mut impl Write,
    failed: &dyn Fn(io::Error) -> Box<Trouble>,
) -> Result<(), Box<Trouble>> {
    writeln!(
        page,
        "<h2>Lines</h2><table><tr><th>line</th><th>status</th><th>inputs</th><th>output</th><th>seconds</th><th>tokens</th></tr>"
    )
    .map_err(failed)?;
    let mut images = Images::of_run(client, row);
    for line in runfiles::lines(client, row)? {
        let line = line?;
        let error = line.error.as_ref().map(|error| Value::from(error.to_string()));
        writeln!(
            page,
            "<tr><td>{}</td><td class=\"{}\">{}</td><td>{}</td><td>{}{}</td><td>{}</td><td>{}</td></tr>",
            line.line_number,
            line.status,
            line.status,
            value_text(line.inputs.as_ref()),
            value_text(line.output.as_ref()) + &images.of(line.output.as_ref())?,
            value_text(error.as_ref()),
            line.duration.map(|seconds| format!("{seconds:.3}")).unwrap_or_default(),
            line.tokens
                .filter(|count| *count > 0)
                .map(|count| count.to_string())
                .unwrap_or_default(),
        )
        .map_err(failed)?;
        if let Some(records) = nodes.remove(&Some(line.line_number)) {
            writeln!(page, "<tr><td></td><td colspan=\"5\">{}</td></tr>", of_nodes(&records)).map_err(failed)?;
        }
    }
    writeln!(page, "</table>").map_err(failed)
}

fn of_nodes(records: &[(String, Record)]) -> String {
    let mut html = "<details><summary>nodes</summary><table><tr><th>node</th><th>status</th><th>inputs</th><th>output</th><th>log</th><th>seconds</th><th>tokens</th></tr>".to_owned();
    for (node, record) in records {
        let info = &record.run_info;
        let message = info.error.as_ref().and_then(|error| error.get("message"));
        let said = |stream: &str| {
            let text = info.logs.as_ref()?.get(stream)?.as_str()?;
            (!text.is_empty()).then(|| Value::from(text))
        };
        html.push_str(&format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}{}</td><td>{}{}</td><td>{}</td><td>{}</td></tr>",
            escape(node),
            escape(record.status.as_deref().unwrap_or_default()),
            value_text(info.inputs.as_ref()),
            value_text(info.output.as_ref()),
            value_text(message),
            value_text(said("stdout").as_ref()),
            value_text(said("stderr").as_ref()),
            info.duration()
                .map(|seconds| format!("{seconds:.3}"))
                .unwrap_or_default(),
            info.tokens()
                .filter(|count| *count > 0)
                .map(|count| count.to_string())
                .unwrap_or_default(),
        ));
    }
    html + "</table></details>"
}
