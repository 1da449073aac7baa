//! `pfsession`: the command, and in the same file the service on this machine, its functions and its sessions' agents.
//!
//! It starts itself again as the one that is wanted: `pfsession function <name>`, `pfsession agent`, `pfsession host`. The first two are started
//! often and must be there in milliseconds, so they are told apart before anything else is done.
//!
//! * [`args`]: the command line and its help.
//! * [`wish`]: what was typed, as the command that is sent.
//! * [`commands`]: what each command does.
//! * [`watch`], [`progress`]: waiting for an end, and what is seen meanwhile.
//! * [`serve`], [`answers`], [`events`], [`turns`], [`pieces`]: a flow that is asked again and again, and its answers in pieces.
//! * [`show`], [`text`], [`terminal`], [`trouble`]: how things look to people.
//! * [`client`], [`service`], [`unix`]: HTTP to `functions/api`; the host on this machine, started when needed, and its socket.
//! * [`snapshot`]: what a service elsewhere does not see of this machine, sent to it.
//! * [`connection`]: the connections that flows name.
//! * [`webhook`]: what happens when somebody outside says that something happened.
//! * [`runs`], [`runfiles`], [`diff`], [`visualize`], [`markup`], [`pictures`], [`spans`]: runs as things, and what their files say.
//! * [`bench`]: how fast all of this is here.
//! * [`schema`]: what `--json` prints.
//! * [`parts`]: the host, the functions, the agent.
//!
//! No rule about sessions is here. This is a client like any other.

mod answers;
mod args;
mod bench;
mod check;
mod client;
mod commands;
mod compute;
mod confirm;
mod connection;
mod diff;
mod dockerfile;
mod events;
mod image;
mod instance;
mod markup;
mod packages;
mod parts;
mod pictures;
mod pieces;
mod progress;
mod request;
mod roles;
mod runfiles;
mod runs;
mod schema;
mod serve;
mod service;
mod show;
mod sizes;
mod snapshot;
mod spans;
mod table;
mod terminal;
mod text;
mod trouble;
mod turns;
mod unix;
mod visualize;
mod watch;
mod webhook;
mod wish;
mod workspace;

use clap::Parser;
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
    let exit = match unless_it_panics(|| commands::execute(cli)) {
        Ok(exit) => exit,
        Err(trouble) => {
            if json {
                text::out_json(&trouble.failure);
            }
            note!("{trouble}");
            trouble.exit
        }
    };
    ExitCode::from(text::exit_code(exit))
}

/// A panic of a command is a failure like another.
fn unless_it_panics(command: impl FnOnce() -> commands::Done) -> commands::Done {
    panic::set_hook(Box::new(|why| note!("{why}")));
    panic::catch_unwind(panic::AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let message = "A fault of pfsession itself has ended this command; what it asked for may go on";
        Err(Trouble::new(trouble::FAILED, "Command.Crashed", message)
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
