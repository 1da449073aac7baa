//! `pfsession reset`.

use crate::{
    command::{AwaitedOperation, Execute},
    global::{Done, Service},
    operate::{confirm_end, operate},
    options::{Wants, Yes},
    snapshot, wish,
};
use clap::Args;
use contract::{Kind, command::Wish};
use std::path::PathBuf;

/// Delete a flow's session and create it again, with the same environment; helps if its packages
/// conflict
///
/// It gets the packages that were last installed in it, at the same versions, whatever else the
/// requirements say by now; on another base image, what the requirements say.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession reset ./my-flow
  pfsession reset ./my-flow --resolve     with what the requirements say now, and the newest that fits
  pfsession reset ./my-flow --image promptflow:3.12")]
pub(crate) struct Reset {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    pub(crate) flow: PathBuf,
    /// Resolve the flow's requirements again, instead of its last packages
    #[arg(long)]
    pub(crate) resolve: bool,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) yes: Yes,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

impl Execute for Reset {
    type Json = AwaitedOperation;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let flow = wish::flow_at(&self.flow, &client.user)?;
        let settings = snapshot::send_folder(&client, &flow, self.wants.change())?;
        let resolve = self.resolve;
        confirm_end(&client, &flow, "A reset", None, &self.yes)?;
        let wish = Wish::Reset { settings, resolve };
        operate(&client, &flow, Kind::Reset, wish, self.no_wait, service.global.json)
    }
}
