//! `pfsession`: the command, and in the same file the service on this machine, its functions and its sessions' agents.
//!
//! It starts itself again as the one that is wanted: `pfsession function <name>`, `pfsession agent`, `pfsession host`. The first two are started
//! often and must be there in milliseconds, so they are told apart before anything else is done.
//!
//! * [`args`]: the command line and its help.
//! * [`wish`]: what was typed, as the command that is sent.
//! * [`commands`]: what each command does.
//! * [`watch`], [`progress`]: waiting for an end, and what is seen meanwhile.
//! * [`show`], [`text`], [`trouble`]: how things look to people.
//! * [`client`], [`service`]: HTTP to `functions/api`; the host on this machine, started when needed.
//! * [`snapshot`]: what a service elsewhere does not see of this machine, sent to it.
//! * [`webhook`]: what happens when somebody outside says that something happened.
//! * [`bench`]: how fast all of this is here.
//! * [`schema`]: what `--json` prints.
//! * [`parts`]: the host, the functions, the agent.
//!
//! What is absent here: every rule about sessions. This is a client like any other.

mod args;
mod bench;
mod client;
mod commands;
mod packages;
mod parts;
mod progress;
mod schema;
mod service;
mod show;
mod snapshot;
mod text;
mod trouble;
mod watch;
mod webhook;
mod wish;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|first| first.to_str()) {
        Some("function") => return parts::function(arguments.next()),
        Some("agent") => return parts::agent(),
        _ => {}
    }
    let cli = args::Cli::parse();
    let json = cli.global.json;
    match commands::execute(cli) {
        Ok(exit) => ExitCode::from(exit),
        Err(trouble) => {
            if json {
                text::out_json(&trouble.failure);
            }
            eprintln!("{trouble}");
            ExitCode::from(trouble.exit)
        }
    }
}
