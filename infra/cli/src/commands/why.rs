//! `pfsession why`.

use crate::{
    command::Execute,
    global::{Done, Service},
    sessions::session_of,
    show,
    text::{home, out, out_json},
    wish,
};
use clap::Args;
use contract::http;
use contract::route::Route;

/// Explain a session's state: what keeps it, what ends it and when, and who asked for it; also
/// after its end
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession why ./my-flow
  pfsession why 3f9a2c --json | jq '.ends'")]
pub(crate) struct Why {
    /// The flow's folder, or the start of a session's key
    #[arg(value_name = "FLOW", default_value = ".")]
    what: String,
}

impl Execute for Why {
    type Json = http::Why;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let what = &self.what;
        let flow = wish::find_flow(&client, what)?.ok_or_else(|| wish::nothing_of(what))?;
        let Some(why) = client.find::<http::Why>(Route::Why(&flow.key()))? else {
            return session_of(&client, &flow).map(|_| 0);
        };
        if service.global.json {
            out_json(&why);
        } else {
            out(&show::why(&why, home().as_deref()));
        }
        Ok(0)
    }
}
