//! The options of every command, and the service that they name.

use crate::{
    client::{Client, Lineage},
    moved::Folders,
    request::{Address, address_of},
    service::{self, Local},
    trouble::{Trouble, USAGE},
};
use clap::Args;
use contract::Code;
use std::{path::PathBuf, sync::Arc};

/// The exit code of a command, or why it failed.
pub(crate) type Done = Result<u8, Box<Trouble>>;

/// The options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Print JSON for programs on standard output, also for a failure
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The service elsewhere to use, such as http://10.0.0.5:8080; without it, the one on this
    /// machine
    #[arg(
        long,
        global = true,
        env = "PFSESSION_ENDPOINT",
        value_name = "URL",
        requires = "token"
    )]
    pub(crate) endpoint: Option<String>,
    /// The bearer token for --endpoint; better given by its variable, as others can see a command
    /// line
    #[arg(
        long,
        global = true,
        env = "PFSESSION_TOKEN",
        hide_env_values = true,
        value_name = "JWT"
    )]
    pub(crate) token: Option<String>,
    /// The state folder of the service on this machine [default: ~/.local/state/pfsession]
    #[arg(long, global = true, env = "PFSESSION_STATE", value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,
    /// The workspace; without it, the token's
    #[arg(long, global = true, env = "PFSESSION_WORKSPACE", value_name = "NAME")]
    pub(crate) workspace: Option<String>,
    /// With --endpoint, the name that a flow has on every machine: of its folder, or of its git
    /// repository and the path in it
    #[arg(
        long,
        global = true,
        env = "PFSESSION_LINEAGE",
        value_name = "BY",
        value_enum,
        default_value_t
    )]
    pub(crate) lineage: Lineage,
}

/// The service that a command uses, and the command line that it is of.
///
/// * `command_line`: all commands with their arguments, as clap knows them.
/// * `schemas`: the JSON schemas of all commands, in the order of the command line.
pub(crate) struct Service<'a> {
    pub(crate) global: &'a Global,
    pub(crate) command_line: fn() -> clap::Command,
    pub(crate) schemas: fn() -> Schemas,
}

/// The JSON schemas of a command or of each command of a family.
pub(crate) enum Schemas {
    Command(MakeSchema),
    Family(Vec<Schemas>),
}

/// Makes the JSON schema of a command; `None` if it prints no JSON.
pub(crate) type MakeSchema = fn() -> Option<serde_json::Value>;

impl Service<'_> {
    /// A client of it. On this machine it is started if it does not run.
    pub(crate) fn client(&self) -> Result<Arc<Client>, Box<Trouble>> {
        if let (Some(endpoint), Some(token)) = (&self.global.endpoint, &self.global.token) {
            let address = Address {
                endpoint: endpoint.clone(),
                token: token.clone(),
            };
            return self.client_at(address, None);
        }
        let local = self.local()?;
        self.client_at(address_of(&local.find_or_start()?), Some(local))
    }

    /// A client of the service on this machine, if it runs.
    pub(crate) fn running(&self) -> Result<Option<Arc<Client>>, Box<Trouble>> {
        let local = self.local()?;
        let Some(host) = local.find() else { return Ok(None) };
        self.client_at(address_of(&host), Some(local)).map(Some)
    }

    fn client_at(&self, address: Address, local: Option<Local>) -> Result<Arc<Client>, Box<Trouble>> {
        let mut client = Client::new(address, local, self.global.workspace.clone())?;
        if !client.is_here() {
            client.user.lineage = self.global.lineage;
        }
        // Where there is no home folder, nothing was moved.
        if let Ok(state) = self.state() {
            client.user.folders = Folders::load(&state)?;
        }
        Ok(Arc::new(client))
    }

    /// The state folder of this machine.
    pub(crate) fn state(&self) -> Result<PathBuf, Box<Trouble>> {
        service::state_folder(self.global.state.as_deref())
    }

    pub(crate) fn local(&self) -> Result<Local, Box<Trouble>> {
        if self.global.endpoint.is_some() {
            return Err(Trouble::new(
                USAGE,
                Code::ServiceNotHere,
                "This command is about the service on this machine, and --endpoint names another",
            )
            .next("leave out --endpoint, and unset PFSESSION_ENDPOINT"));
        }
        Ok(Local {
            state: self.state()?,
            store: None,
        })
    }
}
