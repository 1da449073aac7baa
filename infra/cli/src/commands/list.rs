//! `pfsession list`.

use crate::{
    command::Execute,
    global::{Done, Service},
    sessions::warn_of_deletions,
    show,
    terminal::note,
    text::{home, out, out_json},
};
use clap::Args;
use contract::http::Sessions;
use contract::route::{Route, Target};

/// List your sessions; owners can list those of all users of the workspace
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession list
  pfsession list --all
  pfsession list --all-users       then show, why, events, logs and stop take a key of this list
  pfsession list --json | jq -r '.sessions[].flow.lineage'")]
pub(crate) struct List {
    /// Include stopped sessions
    #[arg(long)]
    all: bool,
    /// Include those of all users of the workspace; needs the role owner
    #[arg(long)]
    all_users: bool,
}

impl Execute for List {
    type Json = Sessions;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let mut sessions =
            client.sessions(Target::from(Route::Sessions).with_any("users", self.all_users.then_some("all")))?;
        if !self.all {
            sessions.retain(|session| session.phase.is_live() || session.failure.is_some());
        }
        sessions.sort_by(|a, b| a.flow.cmp(&b.flow));
        if service.global.json {
            out_json(&Sessions { sessions, next: None });
        } else if sessions.is_empty() {
            note!("There is no session. Start one: pfsession start <folder of a flow>");
        } else {
            out(&show::list(&sessions, home().as_deref(), self.all_users));
            // Others keep their own.
            sessions.retain(|session| session.flow.owner == client.user.name);
            warn_of_deletions(&sessions);
        }
        Ok(0)
    }
}
