//! `pfsession identity`: the workspace's user-assigned identities, and the permissions that one
//! needs.

use super::check::{of_service, table_of};
use crate::{
    command::{Execute, family},
    global::{Done, Service},
    show::{render, table},
    terminal::note,
    text::{out, out_json},
    wish::flow_at,
};
use clap::Args;
use contract::{
    command::Wanted,
    http::{Check as Checked, CheckResult, Checks},
    route::Route,
    workspace::{WorkspaceRow, WorkspaceSettings},
};
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

family! {
    /// List the workspace's user-assigned identities, and the permissions that one needs
    Identity {
        List(List),
        Check(Check),
    }
}

/// List the user-assigned identities of the workspace
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession identity list")]
pub(crate) struct List {}

impl Execute for List {
    type Json = Identities;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let of: WorkspaceRow = client.get(Route::WorkspaceSettings(&client.user.workspace))?;
        let identities = identities(&of.settings);
        if service.global.json {
            out_json(&Identities { identities });
        } else if identities.is_empty() {
            note!("The workspace has none. An owner adds one: pfsession workspace update -f workspace.yml");
        } else {
            let mut rows = table(&["IDENTITY", "CLIENT ID", "ROLE", ""]);
            for each in identities {
                let primary = if each.primary { "primary" } else { "" };
                let (client, role) = (each.client_id.unwrap_or_default(), each.role_arn.unwrap_or_default());
                rows.add_row([each.id, client, role, primary.to_owned()]);
            }
            out(&render(rows));
        }
        Ok(0)
    }
}

/// List the permissions that an identity needs, each held, lacking or not checkable here
#[derive(Args, Debug)]
#[command(after_help = "\
Whether you may assign the identity is this service's to say; the other permissions are those of the specification, and the cloud's.

Examples:
  pfsession identity check
  pfsession identity check flows-reader")]
pub(crate) struct Check {
    /// The identity: its id, the id's last part, its client id or its role's ARN [default: the
    /// primary one]
    name: Option<String>,
}

impl Execute for Check {
    type Json = Checks;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let name = self
            .name
            .clone()
            .unwrap_or_else(|| contract::workspace::PRIMARY.to_owned());
        let wanted = Wanted {
            identity: Some(name),
            ..Wanted::default()
        };
        let flow = flow_at(&PathBuf::from("."), &client.user)?;
        let asked = of_service(client, &flow, &wanted)?;
        let assign = asked.into_iter().find(|check| check.check == "identity");
        let checks = manifest(assign);
        let is_lacking = checks.iter().any(|check| check.result == CheckResult::Lacking);
        if service.global.json {
            out_json(&Checks { checks });
        } else {
            out(&table_of(&checks));
            note!("What cannot be checked here is the cloud's own: its roles are not seen from this service.");
        }
        Ok(u8::from(is_lacking))
    }
}

/// The identities of the workspace.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Identities {
    identities: Vec<IdentityView>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct IdentityView {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role_arn: Option<String>,
    primary: bool,
}

/// The permissions that a user-assigned identity needs, by resource.
///
/// # Source
///
/// The table of *Start with advanced settings* (the specification, lines 76 to 85), its note on
/// `assign`, and the note of *Add packages in a private feed in Azure DevOps*.
const MANIFEST: [(&str, &str, &str); 10] = [
    ("workspace", "Contributor", ""),
    ("storage", "Contributor", "control plane"),
    ("storage", "Storage Blob Data Contributor", "data in blobs"),
    (
        "storage",
        "Storage File Data Privileged Contributor",
        "drafts of flows in the file share",
    ),
    (
        "key vault",
        "Contributor, and any access policy permissions besides purge",
        "with access policies, the default mode",
    ),
    ("key vault", "Contributor, and Key Vault Administrator", "with RBAC"),
    (
        "key vault",
        "Microsoft.KeyVault/vaults/read",
        "for packages of a private feed",
    ),
    ("container registry", "Contributor", ""),
    ("application insights", "Contributor", ""),
    ("identity", "Managed Identity Operator", "of who starts the session"),
];

fn identities(of: &WorkspaceSettings) -> Vec<IdentityView> {
    let view = |(id, details): &(String, contract::workspace::IdentityDetails)| IdentityView {
        id: id.clone(),
        client_id: details.client_id.clone(),
        role_arn: details.role_arn.clone(),
        primary: of.primary_identity() == Some(id),
    };
    of.user_assigned().iter().map(view).collect()
}

/// Each permission with what is known of it: that to assign the identity is this service's own.
fn manifest(assign: Option<Checked>) -> Vec<Checked> {
    let line = |(resource, permission, about): &(&str, &str, &str)| {
        let about = if about.is_empty() {
            String::new()
        } else {
            format!(" ({about})")
        };
        Checked::not_checkable(resource, format!("{permission}{about}"))
    };
    let mut checks: Vec<Checked> = MANIFEST.iter().map(line).collect();
    if let (Some(last), Some(assign)) = (checks.last_mut(), assign) {
        last.result = assign.result;
        last.what = format!("{}: {}", last.what, assign.what);
        last.error = assign.error;
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Code, Failure};

    #[test]
    fn the_permissions_of_an_identity_are_those_of_the_specification() {
        let denied = Checked::lacking("identity", Failure::new(Code::AccessDenied, "bob lacks it."));
        expect_test::expect![[r#"
            PREREQUISITE          RESULT
            workspace             not checkable here  Contributor
            storage               not checkable here  Contributor (control plane)
            storage               not checkable here  Storage Blob Data Contributor (data in blobs)
            storage               not checkable here  Storage File Data Privileged Contributor (drafts of flows in the file share)
            key vault             not checkable here  Contributor, and any access policy permissions besides purge (with access policies, the default mode)
            key vault             not checkable here  Contributor, and Key Vault Administrator (with RBAC)
            key vault             not checkable here  Microsoft.KeyVault/vaults/read (for packages of a private feed)
            container registry    not checkable here  Contributor
            application insights  not checkable here  Contributor
            identity              LACKING             Managed Identity Operator (of who starts the session): bob lacks it. [Access.Denied]"#]].assert_eq(&table_of(&manifest(Some(denied))));
    }
}
