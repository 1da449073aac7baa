//! `pfsession runs list`.

use crate::{
    command::Execute,
    global::{Done, Service},
    show,
    terminal::note,
    text::{home, out, out_json},
    wish,
};
use clap::{Args, ValueEnum};
use contract::http::{RunSummary, Runs};
use contract::route::{Route, Target};

/// List your runs, newest first
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession runs list
  pfsession runs list --flow ./my-flow --status Failed
  pfsession runs list --tag team=search --all --json | jq -r '.runs[].id'")]
pub(crate) struct List {
    /// Only those of this flow: its folder, or the start of its session's key
    #[arg(long, value_name = "FLOW")]
    pub(crate) flow: Option<String>,
    /// Only those with this in their name or display name
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Only those with this tag: NAME, or NAME=VALUE
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Only those with this status
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) status: Option<StatusOfRun>,
    /// The archived ones instead
    #[arg(long)]
    pub(crate) archived: bool,
    /// The largest number
    #[arg(long, value_name = "COUNT", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Continue after an earlier list, at the place that it printed
    #[arg(long, value_name = "PLACE")]
    pub(crate) after: Option<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub(crate) all: bool,
}

/// A run's status, as on the wire.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum StatusOfRun {
    NotStarted,
    Running,
    Completed,
    Failed,
    Canceled,
}

impl StatusOfRun {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NotStarted => "NotStarted",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
        }
    }
}

impl Execute for List {
    type Json = Runs;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let flow = self.flow.as_deref().map(|what| {
            let flow = wish::find_flow(client, what)?.ok_or_else(|| wish::nothing_of(what))?;
            Ok::<_, Box<crate::trouble::Trouble>>(flow.key())
        });
        let which = Target::from(Route::Runs)
            .with_any("flow", flow.transpose()?)
            .with_any("name", self.name.as_ref())
            .with_any("tag", self.tag.as_ref())
            .with_any("status", self.status.map(StatusOfRun::word))
            .with_any("archived", self.archived.then_some(1));
        let mut left = if self.all { usize::MAX } else { self.limit as usize };
        let mut after = self.after.clone();
        let mut runs: Vec<RunSummary> = Vec::new();
        while left > 0 {
            let page = which.clone().with("limit", left.min(100));
            let page: Runs = client.get(page.with_any("after", after))?;
            left = left.saturating_sub(page.runs.len());
            runs.extend(page.runs);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if service.global.json {
            out_json(&Runs { runs, next: after });
        } else if runs.is_empty() {
            note!("There is no such run. See all: pfsession runs list --all; those that are archived: --archived");
        } else {
            out(&show::runs(&runs, home().as_deref()));
            if let Some(after) = after {
                note!("There are more: pfsession runs list --after {after}, or --all");
            }
        }
        Ok(0)
    }
}
