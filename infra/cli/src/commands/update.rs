//! `pfsession update`.

use crate::{
    command::{AwaitedOperation, Execute},
    commands::{check, image},
    global::{Done, Service},
    operate::{confirm_end, operate},
    options::{Wants, Yes, changes_help, settings_help},
    trouble::{Trouble, USAGE},
    wish,
};
use clap::Args;
use contract::{Code, Failure, Kind, command::Wish};

/// Change the settings of a session: settings that are named change, the rest stays
///
/// A new idle time counts also on a session that is about to be deleted. Connections that a new
/// network does not allow are cut; from or to `open`, it counts from the next run on. Until a
/// reset, `pfsession show` says that the base image is stale; one that cannot be had is refused at
/// once.
#[derive(Args, Debug)]
#[command(after_help = format!("{}\n\n{}", settings_help!("\
Examples:
  pfsession update ./my-flow --idle 4h
  pfsession update ./my-flow --size Standard_D4s_v3
  pfsession update ./my-flow --network none --allow-host api.example.org:443
  pfsession update ./my-flow --image promptflow:3.12 && pfsession reset ./my-flow"), changes_help()))]
pub(crate) struct Update {
    /// The flow's folder, or the start of a session's key
    #[arg(value_name = "FLOW")]
    pub(crate) what: String,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) yes: Yes,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

impl Execute for Update {
    type Json = AwaitedOperation;

    fn execute(&self, service: &Service<'_>) -> Done {
        let settings = self.wants.change().ok_or_else(|| {
            Trouble::new(USAGE, Code::CommandNothingToChange, "No setting is named")
                .next(format!("name one: {}", Wants::options()))
        })?;
        let client = service.client()?;
        let flow = wish::find_flow(&client, &self.what)?.ok_or_else(|| wish::nothing_of(&self.what))?;
        if let Some(image) = self.wants.image.as_deref().filter(|_| client.is_here()) {
            check::ask(image, &service.local()?.state).map_err(|failure| {
                let message = format!("{} The session goes on as it was.", failure.message);
                image::trouble(Failure::new(failure.error, message))
            })?;
        }
        confirm_end(&client, &flow, "Another compute resource", Some(&settings), &self.yes)?;
        let wish = Wish::Update { settings };
        operate(&client, &flow, Kind::Update, wish, self.no_wait, service.global.json)
    }
}
