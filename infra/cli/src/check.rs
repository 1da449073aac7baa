//! The prerequisites of a start: `pfsession check`, and the permissions of identities: `pfsession identity`.

use crate::{
    args,
    client::Client,
    table::{rendered, table},
    terminal::note,
    text::{out, out_json},
    trouble::Trouble,
    wish::{Flow, flow_at},
    workspace::path_of,
};
use contract::{
    Failure, Settings,
    command::{Command, Wanted, Wish},
    http::{Check, CheckResult, Checks},
    workspace::{WorkspaceRow, WorkspaceSettings},
};
use images::{Name, Store, accounts::Accounts};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    time::Duration,
};
use ureq::tls::{RootCerts, TlsConfig};

/// How long a package index may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does what was typed. Gives back the exit code: 1 if a prerequisite is lacking.
///
/// * `state`: the state folder, if the sessions are on this machine.
pub(crate) fn check(
    client: &Client,
    typed: &args::Check,
    state: Option<&Path>,
    json: bool,
) -> Result<u8, Box<Trouble>> {
    let flow = flow_at(&typed.flow, &client.user)?;
    let wanted = typed.wants.wanted();
    let mut checks = of_service(client, &flow, &wanted)?;
    let of: WorkspaceRow = client.get(&path_of(client))?;
    let folder = Path::new(&flow.reference.lineage);
    checks.extend(of_folder(folder, &wanted, &of.settings, state));
    checks.push(index(state));
    let is_lacking = checks.iter().any(|check| check.result == CheckResult::Lacking);
    if json {
        out_json(&Checks { checks });
    } else {
        out(&shown(&checks));
        match is_lacking {
            true => note!("The session of {} cannot start as it is.", flow.typed),
            false => note!("The session of {} can start.", flow.typed),
        }
    }
    Ok(u8::from(is_lacking))
}

fn of_service(client: &Client, flow: &Flow, wanted: &Wanted) -> Result<Vec<Check>, Box<Trouble>> {
    let command = Command {
        id: flow.new_id(Some("check")),
        flow: flow.reference.clone(),
        principal: None,
        wish: Wish::Start {
            settings: wanted.clone(),
        },
    };
    let Checks { checks } = client.ask("/v1/checks", &command)?;
    Ok(checks)
}

/// Checks the flow folder: its requirements, and the base image that is named there or elsewhere.
fn of_folder(folder: &Path, wanted: &Wanted, of: &WorkspaceSettings, state: Option<&Path>) -> Vec<Check> {
    let reach = flow::include_root(folder);
    let environment = flow::environment(folder, &reach);
    let requirements = match &environment {
        Err(failure) => Check::lacking("requirements", failure.clone()),
        Ok(environment) => Check::held(
            "requirements",
            match &environment.requirements {
                None => "the flow has none".to_owned(),
                Some(_) => "they can be read".to_owned(),
            },
        ),
    };
    let settings = wanted.over(Settings::new(folder.display().to_string()));
    // What a flow file says that cannot be read is said above.
    let of_flow = || Ok::<_, Infallible>(environment.map(|environment| environment.image).unwrap_or_default());
    let Ok(named) = settings.base_image(of.default_base_image.as_ref(), of_flow);
    vec![requirements, image(named.is_named().then_some(&named.value), state)]
}

fn image(name: Option<&String>, state: Option<&Path>) -> Check {
    let Some(name) = name else {
        return Check::held("base-image", "the built-in one".to_owned());
    };
    let Some(state) = state else {
        return Check::not_checkable("base-image", format!("{name} is pulled where the session will be"));
    };
    let asked = match environments::image_of(name) {
        Err(failure) => Err(failure),
        Ok(None) => return Check::held("base-image", format!("{name} is built in")),
        Ok(Some(reference)) => digest(&reference, state),
    };
    match asked {
        Ok(digest) => Check::held("base-image", format!("{name} is {digest}")),
        Err(failure) => Check::lacking("base-image", failure),
    }
}

/// Asks what an image's name stands for, with the account that there is.
fn digest(name: &Name, state: &Path) -> Result<String, Failure> {
    let store = Store::open(&environments::store_folder(state))
        .map_err(|error| Failure::new("Image.Failed", format!("{} cannot be used: {error}", state.display())))?;
    store.latest(name, &Accounts::of(state))
}

/// Whether the package index answers.
fn index(state: Option<&Path>) -> Check {
    if state.is_none() {
        return Check::not_checkable(
            "network",
            "the package index is asked where the session will be".to_owned(),
        );
    }
    let address = match environments::index_address() {
        Err(failure) => return Check::lacking("network", failure),
        Ok(None) => return Check::held("network", "no package index is asked".to_owned()),
        Ok(Some(address)) => address,
    };
    reached(&address)
}

fn reached(address: &str) -> Check {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .build();
    // What it answers says that it is there.
    match ureq::Agent::from(config).get(address).call() {
        Ok(_) => Check::held("network", format!("the package index {address} answers")),
        Err(cause) => {
            let message = format!(
                "The package index {address} does not answer: {cause}. See to the network, or name another index: UV_DEFAULT_INDEX."
            );
            Check::lacking("network", Failure::new("Install.IndexUnreachable", message))
        }
    }
}

/// A check a line.
fn shown(checks: &[Check]) -> String {
    let mut rows = table(&["PREREQUISITE", "RESULT", ""]);
    for check in checks {
        let result = match check.result {
            CheckResult::Held => "held",
            CheckResult::Lacking => "LACKING",
            CheckResult::NotCheckable => "not checkable here",
        };
        let code = check
            .error
            .as_ref()
            .map_or_else(String::new, |code| format!(" [{code}]"));
        rows.add_row([check.check.clone(), result.to_owned(), format!("{}{code}", check.what)]);
    }
    rendered(rows)
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
    primary: bool,
}

/// The permissions that a user-assigned identity needs, by resource.
///
/// # Source
///
/// The table of *Start with advanced settings* (the specification, lines 76 to 85), and its note on `assign`.
const MANIFEST: [(&str, &str, &str); 9] = [
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
    ("container registry", "Contributor", ""),
    ("application insights", "Contributor", ""),
    ("identity", "Managed Identity Operator", "of who starts the session"),
];

/// Does what was typed. Gives back the exit code: 1 if a permission is lacking.
pub(crate) fn identity(client: &Client, typed: &args::Identity, json: bool) -> Result<u8, Box<Trouble>> {
    let of: WorkspaceRow = client.get(&path_of(client))?;
    match typed {
        args::Identity::List => {
            let identities = identities(&of.settings);
            if json {
                out_json(&Identities { identities });
            } else if identities.is_empty() {
                note!("The workspace has none. An owner adds one: pfsession workspace update -f workspace.yml");
            } else {
                let mut rows = table(&["IDENTITY", "CLIENT ID", ""]);
                for each in identities {
                    let primary = if each.primary { "primary" } else { "" };
                    rows.add_row([each.id, each.client_id.unwrap_or_default(), primary.to_owned()]);
                }
                out(&rendered(rows));
            }
            Ok(0)
        }
        args::Identity::Check { name } => {
            let name = name.clone().unwrap_or_else(|| contract::workspace::PRIMARY.to_owned());
            let wanted = Wanted {
                identity: Some(name),
                ..Wanted::default()
            };
            let flow = flow_at(&PathBuf::from("."), &client.user)?;
            let asked = of_service(client, &flow, &wanted)?;
            let assign = asked.into_iter().find(|check| check.check == "identity");
            let checks = manifest(assign);
            let is_lacking = checks.iter().any(|check| check.result == CheckResult::Lacking);
            if json {
                out_json(&Checks { checks });
            } else {
                out(&shown(&checks));
                note!("What cannot be checked here is the cloud's own: its roles are not seen from this service.");
            }
            Ok(u8::from(is_lacking))
        }
    }
}

fn identities(of: &WorkspaceSettings) -> Vec<IdentityView> {
    let view = |(id, details): &(String, contract::workspace::IdentityDetails)| IdentityView {
        id: id.clone(),
        client_id: details.client_id.clone(),
        primary: of.primary_identity() == Some(id),
    };
    of.user_assigned().iter().map(view).collect()
}

/// Each permission with what is known of it: that to assign the identity is this service's own.
fn manifest(assign: Option<Check>) -> Vec<Check> {
    let line = |(resource, permission, about): &(&str, &str, &str)| {
        let about = if about.is_empty() {
            String::new()
        } else {
            format!(" ({about})")
        };
        Check::not_checkable(resource, format!("{permission}{about}"))
    };
    let mut checks: Vec<Check> = MANIFEST.iter().map(line).collect();
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

    #[test]
    fn the_permissions_of_an_identity_are_those_of_the_specification() {
        let denied = Check::lacking("identity", Failure::new("Access.Denied", "bob lacks it."));
        expect_test::expect![[r#"
            PREREQUISITE          RESULT
            workspace             not checkable here  Contributor
            storage               not checkable here  Contributor (control plane)
            storage               not checkable here  Storage Blob Data Contributor (data in blobs)
            storage               not checkable here  Storage File Data Privileged Contributor (drafts of flows in the file share)
            key vault             not checkable here  Contributor, and any access policy permissions besides purge (with access policies, the default mode)
            key vault             not checkable here  Contributor, and Key Vault Administrator (with RBAC)
            container registry    not checkable here  Contributor
            application insights  not checkable here  Contributor
            identity              LACKING             Managed Identity Operator (of who starts the session): bob lacks it. [Access.Denied]"#]].assert_eq(&shown(&manifest(Some(denied))));
    }

    #[test]
    fn a_flow_whose_requirements_or_image_cannot_be_had_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("requirements.txt"), "promptflow==1.0\n").unwrap();
        let of = WorkspaceSettings::default();
        let wanted = |image: &str| Wanted {
            image: Some(image.into()),
            ..Wanted::default()
        };
        let checks = of_folder(folder.path(), &wanted("No/Image:At:All"), &of, Some(state.path()));
        let text = shown(&checks).replace(&folder.path().display().to_string(), "FLOW");
        expect_test::expect![[r#"
            PREREQUISITE  RESULT
            requirements  LACKING  requirements.txt:1: promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out. [Flow.PinnedPromptflow]
            base-image    LACKING  "No/Image:At:All" is no name of an image: a repository has lower case letters and digits, between them dots, dashes and underscores. Write it as registry/name:tag, registry/name@sha256:…, docker-archive:/file.tar or oci-archive:/file.tar. [Image.BadName]"#]].assert_eq(&text);
        let elsewhere = of_folder(folder.path(), &wanted("a/b"), &of, None);
        assert_eq!(elsewhere[1].result, CheckResult::NotCheckable);
        // Nothing listens at port 1 of this machine.
        let gone = reached("http://127.0.0.1:1/simple");
        assert_eq!(
            (gone.result, gone.error.as_deref()),
            (CheckResult::Lacking, Some("Install.IndexUnreachable"))
        );
        assert!(gone.what.starts_with("The package index"), "{}", gone.what);
    }
}
