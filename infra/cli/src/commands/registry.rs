//! `pfsession registry`: the accounts at registries, with which images are pulled.

use super::image::trouble;
use crate::{
    command::{Execute, NoJson, family},
    global::{Done, Service},
    text::{out, out_json},
    trouble::{NONE, Trouble, USAGE},
};
use clap::Args;
use contract::Code;
use images::accounts;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::{self, IsTerminal};

family! {
    /// Manage the accounts at registries that images are pulled with
    Registry {
        Login(Login),
        Logout(Logout),
        List(List),
    }
}

/// Store an account at a registry
#[derive(Args, Debug)]
#[command(after_help = "\
The password or token is read from standard input, as a command line is seen by others.
It is kept in the state folder for you alone, and goes to this registry and its service for tokens.

Example:
  pfsession registry login ghcr.io --username ann < token.txt")]
pub(crate) struct Login {
    /// The registry's host, with its port if it has one
    #[arg(value_name = "REGISTRY")]
    registry: String,
    /// The user
    #[arg(long, short)]
    username: String,
}

impl Execute for Login {
    type Json = NoJson;

    fn execute(&self, service: &Service<'_>) -> Done {
        let state = service.local()?.state;
        let secret = match io::stdin().is_terminal() {
            true => rpassword::prompt_password("The password or token: "),
            false => io::read_to_string(io::stdin()),
        };
        let secret = secret.map_err(|error| {
            let message = format!("Standard input cannot be read: {error}");
            Trouble::new(USAGE, Code::ImageBadAccount, message)
        })?;
        accounts::keep(&state, &self.registry, Some((&self.username, secret.trim()))).map_err(trouble)?;
        Ok(0)
    }
}

/// Remove the account at a registry
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession registry logout ghcr.io")]
pub(crate) struct Logout {
    /// The registry's host
    #[arg(value_name = "REGISTRY")]
    registry: String,
}

impl Execute for Logout {
    type Json = NoJson;

    fn execute(&self, service: &Service<'_>) -> Done {
        let state = service.local()?.state;
        if accounts::keep(&state, &self.registry, None).map_err(trouble)? {
            return Ok(0);
        }
        let message = format!("{} has no account here", self.registry);
        Err(Trouble::new(NONE, Code::ImageBadAccount, message))
    }
}

/// List the registries that have an account here
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession registry list")]
pub(crate) struct List {}

/// The registries that have an account here.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Registries {
    registries: Vec<String>,
}

impl Execute for List {
    type Json = Registries;

    fn execute(&self, service: &Service<'_>) -> Done {
        let registries = accounts::registries(&service.local()?.state).map_err(trouble)?;
        match service.global.json {
            true => out_json(&Registries { registries }),
            false => registries.iter().for_each(|registry| out(registry)),
        }
        Ok(0)
    }
}
