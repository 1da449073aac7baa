//! `pfsession token`.

use crate::{
    command::Execute,
    global::{Done, Service},
    text::{out, out_json},
    trouble::{Trouble, USAGE},
};
use clap::Args;
use contract::{Code, Role};
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

/// Create a bearer token for a user of a deployment without an identity provider
#[derive(Args, Debug)]
#[command(after_help = "\
The issuer's key is made in the file if there is none. Whoever has that file can be anybody: keep it where you keep such things.

Examples:
  pfsession token --issuer issuer.key --public                     the public key, for the deployment's IssuerKey
  pfsession token --issuer issuer.key --user ann --workspace lab   a token for Ann, good for 12 hours")]
pub(crate) struct Token {
    /// The file with the issuer's key
    #[arg(long, value_name = "FILE")]
    pub(crate) issuer: PathBuf,
    /// Print the issuer's public key instead
    #[arg(long, conflicts_with = "user")]
    pub(crate) public: bool,
    /// The user's name
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "public",
        requires = "workspace"
    )]
    pub(crate) user: Option<String>,
    /// Role there: data-scientist has sessions of their own, owner also sees and stops those of
    /// others
    #[arg(long = "role", value_enum, value_name = "ROLE", default_value = "data-scientist")]
    pub(crate) roles: Vec<TokenRole>,
    /// The time for which it is valid, such as 8h or 30days, and at most 90days
    #[arg(long = "for", value_name = "TIME", default_value = "12h", value_parser = humantime::parse_duration)]
    pub(crate) life: std::time::Duration,
}

/// A role of a workspace.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum TokenRole {
    DataScientist,
    Owner,
    RoleAdministrator,
}

/// A token, and whose it is.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TokenView<'a> {
    token: &'a str,
    user: &'a str,
    workspace: &'a str,
}

impl Execute for Token {
    type Json = TokenView<'static>;

    fn execute(&self, service: &Service<'_>) -> Done {
        let issuer = local::Issuer::open(&self.issuer).map_err(|cause| {
            Trouble::new(
                USAGE,
                Code::TokenNoIssuer,
                format!("There is no issuer to be had: {cause:#}"),
            )
            .next("name a file that `pfsession token` made, or one that is not there yet")
        })?;
        // Clap has seen to it that there is a workspace where there is a user.
        let (Some(user), Some(workspace)) = (&self.user, &service.global.workspace) else {
            out(issuer.public_pem().trim_end());
            return Ok(0);
        };
        let roles: Vec<Role> = self
            .roles
            .iter()
            .map(|role| match role {
                TokenRole::DataScientist => Role::DataScientist,
                TokenRole::Owner => Role::Owner,
                TokenRole::RoleAdministrator => Role::RoleAdministrator,
            })
            .collect();
        let token = issuer
            .token(user, workspace, &roles, self.life.as_secs())
            .map_err(|cause| {
                Trouble::new(
                    USAGE,
                    Code::TokenBadName,
                    format!("There can be no such token: {cause:#}"),
                )
                .next("name another --user, --workspace or --for")
            })?;
        if service.global.json {
            out_json(&TokenView {
                token: &token,
                user,
                workspace,
            });
        } else {
            out(&token);
        }
        Ok(0)
    }
}
