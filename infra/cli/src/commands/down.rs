//! `pfsession down`.

use crate::{
    client::Client,
    command::{Execute, NoJson},
    global::{Done, Service},
    operate::{command, end_of_operation, not_done},
    terminal::note,
    text::{self, home},
    trouble::Trouble,
    watch,
    wish::Flow,
};
use clap::Args;
use contract::route::Route;
use contract::{Kind, command::Wish};
use std::sync::Arc;

/// Stop the service on this machine
#[derive(Args, Debug)]
#[command(after_help = "\
Sessions that are not stopped end by themselves within about a minute, unless the service comes back before.

Examples:
  pfsession down
  pfsession down --stop-sessions")]
pub(crate) struct Down {
    /// Stop all sessions first, and wait until they have stopped
    #[arg(long)]
    stop_sessions: bool,
}

impl Execute for Down {
    type Json = NoJson;

    fn execute(&self, service: &Service<'_>) -> Done {
        let local = service.local()?;
        if self.stop_sessions
            && let Some(client) = service.running()?
        {
            stop_sessions(&client)?;
        }
        match local.find() {
            Some(host) => {
                local.end(&host)?;
                note!("The service is gone.");
            }
            None => note!("No service runs on this machine."),
        }
        // A service that was killed, also a moment ago, has left its warm processes.
        agent::let_go(&local.state);
        Ok(0)
    }
}

fn stop_sessions(client: &Arc<Client>) -> Result<(), Box<Trouble>> {
    let sessions = client.sessions(Route::Sessions)?;
    let mut stops = Vec::new();
    for session in sessions.into_iter().filter(|session| session.phase.is_live()) {
        let flow = Flow {
            typed: text::folder(&session.flow.lineage, home().as_deref()),
            named: None,
            reference: session.flow,
        };
        let id = flow.new_id(Some("stop"));
        client
            .send(&command(&id, &flow.reference, Wish::Stop))
            .map_err(|t| t.what(not_done(Kind::Stop, &flow)))?;
        stops.push((flow, id));
    }
    for (flow, id) in &stops {
        end_of_operation(&watch::operation(client, &flow.key(), id)?, flow, false)?;
    }
    Ok(())
}
