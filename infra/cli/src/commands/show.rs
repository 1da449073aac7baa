//! `pfsession show`: one session, operation or run.

use super::packages::{self, Drift};
use crate::{
    client::Client,
    command::{Execute, Printed, any_of, schema_of},
    global::{Done, Service},
    sessions::session_of,
    show,
    text::{home, out, out_json, short},
    trouble::Trouble,
    wish::{self, Flow},
};
use clap::Args;
use contract::{
    http::SessionView,
    route::Route,
    row::{OperationRow, RunRow},
    snapshot::Address,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

/// Show one session, operation or run
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession show ./my-flow
  pfsession show my-flow-1c9e54a07b2d --json")]
pub(crate) struct Show {
    /// The flow's folder, the start of a session's key, or the id of an operation or a run
    what: String,
}

/// A session, a run or an operation.
pub(crate) enum Shown {}

impl Printed for Shown {
    fn schema() -> Option<Value> {
        Some(any_of(&[
            ("a session", schema_of::<Whole<'_>>()),
            ("a run", schema_of::<RunRow>()),
            ("an operation", schema_of::<OperationRow>()),
        ]))
    }
}

impl Execute for Show {
    type Json = Shown;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let (what, json) = (&self.what, service.global.json);
        if let Some(flow) = wish::find_flow(&client, what)? {
            let session = session_of(&client, &flow)?;
            show_session(&client, &flow, &session, json)?;
        } else if !contract::command::is_good_id(what) {
            return Err(wish::nothing_of(what));
        } else if let Some(run) = client.find::<RunRow>(Route::Run(what))? {
            if json {
                out_json(&run)
            } else {
                out(&show::run(&run, home().as_deref()))
            }
        } else if let Some(operation) = client.find::<OperationRow>(Route::Operation(what))? {
            if json {
                out_json(&operation)
            } else {
                out(&show::operation(&operation))
            }
        } else {
            return Err(wish::nothing_of(what));
        }
        Ok(0)
    }
}

/// A session with what is installed in it.
#[derive(Serialize, JsonSchema)]
struct Whole<'a> {
    #[serde(flatten)]
    session: &'a SessionView,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    isolation: Option<&'a contract::packages::Isolation>,
    /// The file that the packages come from, and those that were passed over, if there is more than
    /// a `requirements.txt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    described: Option<&'a str>,
    /// Packages that are saved in the flow folder and not installed, and the reverse; left out if
    /// the folder cannot be read here.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<Drift>,
}

/// Shows a session, with how well it is kept apart, and how its packages differ from what is saved.
fn show_session(client: &Client, flow: &Flow, session: &SessionView, json: bool) -> Result<(), Box<Trouble>> {
    let row = packages::recorded_packages(client, flow)?;
    // A snapshot is of what was there.
    let folder = match Address::read(&session.settings.folder.value) {
        Some(_) => flow.folder(&client.user),
        None => PathBuf::from(&session.settings.folder.value),
    };
    let drift = row
        .as_ref()
        .zip(packages::lines_in_folder(&folder))
        .map(|(row, saved)| Drift::between(&saved, &row.requirements));
    if json {
        out_json(&Whole {
            session,
            lock: row.as_ref().map(|row| row.lock.as_str()),
            isolation: row.as_ref().and_then(|row| row.isolation.as_ref()),
            described: row.as_ref().and_then(|row| row.described.as_deref()),
            drift,
        });
        return Ok(());
    }
    let mut more = Vec::new();
    if let Some(row) = &row {
        let lock = short(&row.lock, packages::LOCK);
        more.push((
            "packages",
            format!("{} (lock {lock}, by {})", row.packages.len(), row.by),
        ));
        if let Some(described) = &row.described {
            more.push(("requirements", described.clone()));
        }
        if let Some(isolation) = &row.isolation {
            more.push(("isolation", isolation.to_string()));
        }
    }
    if let Some(drift) = drift.filter(|drift| *drift != Drift::default()) {
        let saved = drift.saved.iter().map(|line| format!("saved, not installed: {line}"));
        let installed = drift
            .installed
            .iter()
            .map(|line| format!("installed, not saved: {line}"));
        let mut lines: Vec<String> = saved.chain(installed).collect();
        lines.push(format!("make them one: pfsession install {}", flow.typed));
        more.push(("requirements", lines.join("\n")));
    }
    out(&show::session(session, home().as_deref(), more));
    Ok(())
}
