//! `pfsession start`.

use crate::{
    command::{AwaitedOperation, Execute},
    commands::check,
    global::{Done, Service},
    operate::operate,
    options::{Wants, settings_help},
    snapshot, wish,
};
use clap::Args;
use contract::{Kind, command::Wish};
use std::path::PathBuf;

/// Start a flow's session; succeeds if it runs already
#[derive(Args, Debug)]
#[command(after_help = settings_help!("\
Examples:
  pfsession start ./my-flow
  pfsession start ./my-flow --idle 8h --size Standard_D4s_v3"))]
pub(crate) struct Start {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    pub(crate) flow: PathBuf,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

impl Execute for Start {
    type Json = AwaitedOperation;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let flow = wish::flow_at(&self.flow, &client.user)?;
        let mut settings = self.wants.to_wanted();
        check::base_image(service, &client, &flow, &settings)?;
        snapshot::send_all(&client, &flow, &mut settings, None)?;
        let wish = Wish::Start { settings };
        operate(&client, &flow, Kind::Start, wish, self.no_wait, service.global.json)
    }
}
