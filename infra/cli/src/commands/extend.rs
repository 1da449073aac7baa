//! `pfsession extend`.

use crate::{
    command::{AwaitedOperation, Execute},
    global::{Done, Service},
    operate::operate,
    wish,
};
use clap::Args;
use contract::{
    Kind,
    command::{Wanted, Wish},
};

/// Postpone a session's deletion: its idle time starts again, as after a use
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession extend ./my-flow
  pfsession update ./my-flow --idle 8h     for longer, up to 24h")]
pub(crate) struct Extend {
    /// The flow's folder, or the start of a session's key
    #[arg(value_name = "FLOW")]
    pub(crate) what: String,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
}

impl Execute for Extend {
    type Json = AwaitedOperation;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let flow = wish::find_flow(&client, &self.what)?.ok_or_else(|| wish::nothing_of(&self.what))?;
        let settings = Wanted::default();
        let wish = Wish::Update { settings };
        operate(&client, &flow, Kind::Update, wish, self.no_wait, service.global.json)
    }
}
