//! `pfsession events`.

use crate::{
    command::Execute,
    global::{Done, Service},
    sessions::{all_events, session_of},
    show,
    text::{out, out_json},
    wish,
};
use clap::Args;
use contract::http;

/// Print the history of a flow's session: each event, its time and its user
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession events ./my-flow
  pfsession events ./my-flow --json | jq '.events[-1]'")]
pub(crate) struct Events {
    /// The flow's folder, or the start of a session's key
    what: String,
}

impl Execute for Events {
    type Json = http::Events;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let what = &self.what;
        let flow = wish::find_flow(&client, what)?.ok_or_else(|| wish::nothing_of(what))?;
        let events = all_events(&client, &flow.key())?;
        if events.events.is_empty() {
            session_of(&client, &flow)?;
        }
        if service.global.json {
            out_json(&events)
        } else {
            out(&show::events(&events.events))
        }
        Ok(0)
    }
}
