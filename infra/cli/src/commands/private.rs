//! `pfsession private`: credentials of private package feeds.

use crate::{
    command::Execute,
    global::{Done, Service},
    text::{out, out_json},
    trouble::{NONE, Trouble, USAGE},
};
use clap::Args;
use contract::Code;
use std::io::{self, IsTerminal};

/// Store the credential of a private package feed; {private} in its URL stands for it
#[derive(Args, Debug)]
#[command(after_help = "\
The token is read from standard input, as a command line is seen by others. It is kept in the state folder for you alone, goes to this host and to \
no other, and is in nothing that an install leaves. In requirements.txt: -i https://{private}@feed.example/simple

Examples:
  pfsession private feed.example < token.txt      a token, or user:token
  pfsession private feed.example --remove
  pfsession private                               the hosts that have one")]
pub(crate) struct Private {
    /// The feed's host, with its port if its URL has one
    host: Option<String>,
    /// Remove the credential
    #[arg(long, requires = "host")]
    remove: bool,
}

impl Execute for Private {
    /// The hosts that have a credential, where no host is named.
    type Json = Vec<String>;

    fn execute(&self, service: &Service<'_>) -> Done {
        let state = service.local()?.state;
        let mut feeds = environments::private::Feeds::read(&state).map_err(|failure| Trouble::of(USAGE, failure))?;
        let Some(host) = self.host.as_deref() else {
            if service.global.json {
                out_json(&feeds.hosts().collect::<Vec<_>>());
            } else {
                feeds.hosts().for_each(out);
            }
            return Ok(0);
        };
        let usage = |message: String| Trouble::new(USAGE, Code::InstallPrivateFeed, message);
        if host.is_empty() || host.contains(['/', '@', ' ', '\t', '\n']) {
            return Err(usage(format!("{host} is no host")).next("give the host of the feed's URL alone: feed.example"));
        }
        if self.remove {
            if !feeds.set(host, None) {
                return Err(Trouble::new(
                    NONE,
                    Code::InstallPrivateFeed,
                    format!("{host} has no credential here"),
                ));
            }
        } else {
            let token = match io::stdin().is_terminal() {
                true => rpassword::prompt_password("The token: "),
                false => io::read_to_string(io::stdin()),
            }
            .map_err(|error| usage(format!("Standard input cannot be read: {error}")))?;
            let token = token.trim();
            if token.is_empty() || token.contains(char::is_whitespace) {
                return Err(usage("There is no token on standard input".into())
                    .next(format!("pfsession private {host} < token.txt")));
            }
            feeds.set(host, Some(token));
        }
        feeds
            .write(&state)
            .map_err(|error| usage(format!("{} cannot be written: {error}", state.display())))?;
        Ok(0)
    }
}
