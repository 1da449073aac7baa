//! `pfsession down`.

use crate::{
    command::{Execute, NoJson},
    global::{Done, Service},
    operate::{command, end_of_operation, not_done},
    terminal::note,
    text::{self, home},
    watch,
    wish::Flow,
};
use clap::Args;
use contract::route::Route;
use contract::{Kind, command::Wish};

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
        let Some(client) = service.running()? else {
            // One that was killed has left them.
            agent::let_go(&local.state);
            note!("No service runs on this machine.");
            return Ok(0);
        };
        if self.stop_sessions {
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
                end_of_operation(&watch::operation(&client, &flow.key(), id)?, flow, false)?;
            }
        }
        if let Some(host) = local.find() {
            local.end(&host)?;
            note!("The service is gone.");
        }
        Ok(0)
    }
}
