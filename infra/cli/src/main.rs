//! `pfsession`: the command, and in the same file the service on this machine, its functions and
//! its sessions' agents.
//!
//! It starts itself again as the one that is wanted: `pfsession function <name>`, `pfsession
//! agent`, `pfsession host`. The first two are started often and must be there in milliseconds, so
//! they are told apart before anything else is done.
//!
//! * [`args`]: the command line.
//! * [`commands`]: one module a command, over [`mod@command`], [`options`] and [`global`].
//! * [`operate`], [`sessions`], [`wish`], [`runfiles`], [`snapshot`], [`moved`], [`watch`],
//!   [`progress`]: what several commands share.
//! * [`show`], [`table`], [`text`], [`terminal`], [`trouble`]: text for people.
//! * [`client`], [`request`], [`service`], [`unix`]: HTTP to `functions/api`; the service on this
//!   machine, started when needed, and its socket.
//! * [`parts`]: the other roles of this program.
//!
//! No rule about sessions is here. This is a client like any other.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod args;
mod client;
mod command;
mod commands;
mod confirm;
mod global;
mod moved;
mod operate;
mod options;
mod parts;
mod pieces;
mod progress;
mod request;
mod runfiles;
mod secrets;
mod service;
mod sessions;
mod show;
mod snapshot;
mod table;
mod terminal;
mod text;
mod trouble;
mod unix;
mod watch;
mod wish;

use clap::Parser;
use contract::Code;
use std::{io::IsTerminal, panic, process::ExitCode};
use terminal::note;
use trouble::Trouble;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|first| first.to_str()) {
        Some("function") => return parts::function(arguments.next()),
        Some("agent") => return parts::agent(),
        _ => {}
    }
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        // Its own words are all that help and the version say.
        Err(said) if !said.use_stderr() => {
            let said = said.render();
            let said = match std::io::stdout().is_terminal() {
                true => said.ansi().to_string(),
                false => said.to_string(),
            };
            text::out_text(said.as_bytes());
            return ExitCode::from(text::exit_code(0));
        }
        Err(wrong) => {
            note!("{}", wrong.to_string().trim_end());
            return ExitCode::from(trouble::USAGE);
        }
    };
    let json = cli.global.json;
    let exit = match unless_it_panics(|| args::execute(&cli)) {
        Ok(exit) => exit,
        Err(trouble) => {
            if json {
                text::out_json(&trouble.to_json());
            }
            note!("{trouble}");
            trouble.exit
        }
    };
    ExitCode::from(text::exit_code(exit))
}

/// A panic of a command is a failure like another.
fn unless_it_panics(command: impl FnOnce() -> global::Done) -> global::Done {
    panic::set_hook(Box::new(|why| note!("{why}")));
    panic::catch_unwind(panic::AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let message = "A fault of pfsession itself has ended this command; what it asked for may go on";
        Err(Trouble::new(trouble::FAILED, Code::CommandCrashed, message)
            .next("see `pfsession show`, and report the lines above"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_command_that_panics_is_an_error_with_a_code() {
        let trouble = unless_it_panics(|| panic!("on purpose")).unwrap_err();
        let _ = panic::take_hook();
        expect![[r#"
            error: A fault of pfsession itself has ended this command; what it asked for may go on [Command.Crashed]
              next: see `pfsession show`, and report the lines above"#]]
        .assert_eq(&trouble.to_string());
        assert_eq!(trouble.exit, trouble::FAILED);
    }
}
