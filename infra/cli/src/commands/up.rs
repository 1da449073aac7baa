//! `pfsession up`: the service on this machine, until it is told to leave.

use super::host::{self, Trial};
use crate::{
    command::Execute,
    global::{Done, Service},
    service,
    terminal::note,
    text::out_json,
};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

/// Start the service on this machine, until `pfsession down`
#[derive(Args, Debug)]
#[command(after_help = "\
There is no need to: any command starts the service if none runs. One that was started that way leaves some minutes after its last session.

Examples:
  pfsession up
  pfsession up --foreground --port 9000")]
pub(crate) struct Up {
    /// Stay in the foreground, and log to the terminal
    #[arg(long)]
    foreground: bool,
    /// Listen on this port of 127.0.0.1; without it, a free one
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    trial: Trial,
}

/// The service that was started; with --foreground nothing is printed.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Running {
    endpoint: String,
    pid: u32,
    version: String,
    log: PathBuf,
}

impl Execute for Up {
    type Json = Running;

    fn execute(&self, service: &Service<'_>) -> Done {
        let local = service.local()?;
        if self.foreground {
            return Ok(host::serve(&local, None, self.port, &self.trial, false));
        }
        // One that a command started would leave by itself.
        if let Some(host) = local.find().filter(service::leaves_by_itself) {
            local.end(&host)?;
        }
        let host = local.start(None, self.port)?;
        let (pid, log) = (host.pid, local.log());
        if service.global.json {
            out_json(&Running {
                endpoint: host.endpoint,
                pid,
                version: host.version,
                log,
            });
        } else {
            let log = log.display();
            note!("The service runs at {} (process {pid}). Its log: {log}", host.endpoint);
        }
        Ok(0)
    }
}
