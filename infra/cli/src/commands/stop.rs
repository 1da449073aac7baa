//! `pfsession stop`.

use crate::{
    command::{AwaitedOperation, Execute},
    global::{Done, Service},
    operate::{confirm_end, operate},
    options::Yes,
    wish,
};
use clap::Args;
use contract::{Kind, command::Wish};

/// Delete a flow's session, in any phase
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession stop ./my-flow
  pfsession stop 3f9a2c           by the start of its key, as `pfsession list` shows it
  pfsession stop ./my-flow --yes  also with active runs, without a question; a script is never asked")]
pub(crate) struct Stop {
    /// The flow's folder, or the start of a session's key
    #[arg(value_name = "FLOW")]
    pub(crate) what: String,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

impl Execute for Stop {
    type Json = AwaitedOperation;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let flow = wish::find_flow(&client, &self.what)?.ok_or_else(|| wish::nothing_of(&self.what))?;
        confirm_end(&client, &flow, "A stop", None, &self.yes)?;
        operate(
            &client,
            &flow,
            Kind::Stop,
            Wish::Stop,
            self.no_wait,
            service.global.json,
        )
    }
}
