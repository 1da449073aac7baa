//! `pfsession check`: the prerequisites of a start.

use crate::{
    client::Client,
    command::Execute,
    global::{Done, Service},
    options::Wants,
    show::{render, table},
    terminal::note,
    text::{out, out_json},
    trouble::Trouble,
    wish::{Flow, flow_at},
};
use clap::Args;
use contract::{
    Code, Failure, Settings,
    command::{Command, Wanted, Wish},
    http::{Check as Checked, CheckResult, Checks, SessionView},
    route::Route,
    workspace::{WorkspaceRow, WorkspaceSettings},
};
use images::{Name, Store, accounts::Accounts};
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    time::Duration,
};
use ureq::tls::{RootCerts, TlsConfig};

/// The longest time that a package index may take to answer.
const INDEX_TIMEOUT: Duration = Duration::from_secs(10);

/// Check the prerequisites of a flow's session, without a start; the exit code is 1 if one is
/// lacking
#[derive(Args, Debug)]
#[command(after_help = "\
Each prerequisite is held, lacking, or not checkable here: role, vm-size, idle-time, identity (there, and yours to assign), data-store, \
working-directory, quota, requirements, base-image (built in, or its registry knows it), network (the package index answers).

A start checks all but the network before it makes anything, and ends with the same error.

Examples:
  pfsession check ./my-flow
  pfsession check ./my-flow --size Standard_NC4as_T4_v3 --json | jq '.checks[] | select(.result == \"lacking\")'")]
pub(crate) struct Check {
    /// The flow's folder
    #[arg(value_name = "FLOW", default_value = ".")]
    pub(crate) flow: PathBuf,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

impl Execute for Check {
    type Json = Checks;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let local = client.is_here().then(|| service.local()).transpose()?;
        let state = local.as_ref().map(|local| local.state.as_path());
        let flow = flow_at(&self.flow, &client.user)?;
        let wanted = self.wants.to_wanted();
        let mut checks = of_service(client, &flow, &wanted)?;
        let of: WorkspaceRow = client.get(Route::WorkspaceSettings(&client.user.workspace))?;
        let folder = flow.folder(&client.user);
        checks.extend(of_folder(&folder, &wanted, &of.settings, state));
        checks.push(index(state));
        let is_lacking = checks.iter().any(|check| check.result == CheckResult::Lacking);
        if service.global.json {
            out_json(&Checks { checks });
        } else {
            out(&table_of(&checks));
            match is_lacking {
                true => note!("The session of {} cannot start as it is.", flow.typed),
                false => note!("The session of {} can start.", flow.typed),
            }
        }
        Ok(u8::from(is_lacking))
    }
}

pub(crate) fn of_service(client: &Client, flow: &Flow, wanted: &Wanted) -> Result<Vec<Checked>, Box<Trouble>> {
    let command = Command {
        id: flow.new_id(Some("check")),
        flow: flow.reference.clone(),
        principal: None,
        wish: Wish::Start {
            settings: wanted.clone(),
        },
    };
    let Checks { checks } = client.check(&command)?;
    Ok(checks)
}

/// Checks the flow folder: its requirements, its Python, and the base image that is named there or
/// elsewhere.
fn of_folder(folder: &Path, wanted: &Wanted, of: &WorkspaceSettings, state: Option<&Path>) -> Vec<Checked> {
    let reach = flow::include_root(folder);
    let environment = flow::environment(folder, &reach);
    let requirements = match &environment {
        Err(failure) => Checked::lacking("requirements", failure.clone()),
        Ok(environment) => Checked::held(
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
    let name = named.is_named().then_some(&named.value);
    vec![requirements, python(folder, name, state), image(name, state)]
}

/// Whether there is a Python that the folder asks for, where the sessions are on this machine.
fn python(folder: &Path, image: Option<&String>, state: Option<&Path>) -> Checked {
    if state.is_none() || image.is_some_and(|image| environments::names_python(image)) {
        return Checked::not_checkable("python", "it is that of the base image".to_owned());
    }
    let chosen = flow::python_constraints(folder).and_then(|all| environments::choose_python(None, &all));
    match chosen {
        Ok(python) => Checked::held(
            "python",
            format!("{} is {}", python.executable.display(), python.version),
        ),
        Err(failure) => Checked::lacking("python", failure),
    }
}

/// Whether a base image can be had, where the sessions are on this machine.
pub(super) fn image(name: Option<&String>, state: Option<&Path>) -> Checked {
    let Some(name) = name else {
        return Checked::held("base-image", "the built-in one".to_owned());
    };
    let Some(state) = state else {
        return Checked::not_checkable("base-image", format!("{name} is pulled where the session will be"));
    };
    match ask(name, state) {
        Ok(None) => Checked::held("base-image", format!("{name} is built in")),
        Ok(Some(digest)) => Checked::held("base-image", format!("{name} is {digest}")),
        Err(failure) => Checked::lacking("base-image", failure),
    }
}

/// Refuses a start whose base image cannot be had, before a command is sent and anything is made
/// for it. A session that is there keeps its image, and nothing is asked.
///
/// A service elsewhere pulls the image where the session will be.
///
/// # Errors
///
/// Why the image cannot be had.
pub(crate) fn base_image(
    service: &Service<'_>,
    client: &Client,
    flow: &Flow,
    wanted: &Wanted,
) -> Result<(), Box<Trouble>> {
    let is_built_in = |name: &str| environments::image::is_built_in(name);
    if !client.is_here() || wanted.image.as_deref().is_some_and(is_built_in) {
        return Ok(());
    }
    let session: Option<SessionView> = client.find(Route::Session(&flow.key()))?;
    if session.is_some_and(|session| session.phase.is_live()) {
        return Ok(());
    }
    let named = match &wanted.image {
        Some(image) => image.clone(),
        None => {
            let of: WorkspaceRow = client.get(Route::WorkspaceSettings(&client.user.workspace))?;
            let folder = flow.folder(&client.user);
            // What the flow folder says that cannot be read is said by the start.
            let Ok(environment) = flow::environment(&folder, &flow::include_root(&folder)) else {
                return Ok(());
            };
            let settings = wanted.over(Settings::new(folder.display().to_string()));
            let of_flow = || Ok::<_, Infallible>(environment.image);
            let Ok(named) = settings.base_image(of.settings.default_base_image.as_ref(), of_flow);
            named.value
        }
    };
    if is_built_in(&named) {
        return Ok(());
    }
    look(&named, &service.local()?.state).map_err(super::image::trouble)
}

/// Asks for an image by a request that Docker's registry does not count. A container engine is not
/// asked: the service may have another one than who types this.
fn look(name: &str, state: &Path) -> Result<(), Failure> {
    match environments::image_of(name)? {
        Some(Name::Engine(..)) => Ok(()),
        Some(name @ Name::Registry(_)) if name.digest().is_none() => Store::look(&name, &Accounts::of(state)).map(drop),
        Some(name) => digest(&name, state).map(drop),
        None => Ok(()),
    }
}

/// The digest that a base image's name stands for; `None` of one that is built in.
///
/// # Errors
///
/// Why it cannot be had.
pub(super) fn ask(name: &str, state: &Path) -> Result<Option<String>, Failure> {
    let reference = environments::image_of(name)?;
    reference.map(|reference| digest(&reference, state)).transpose()
}

/// Asks what an image's name stands for, with the account that there is.
fn digest(name: &Name, state: &Path) -> Result<String, Failure> {
    let store = Store::open(&environments::store_folder(state)).map_err(|error| {
        Failure::new(
            Code::ImageFailed,
            format!("{} cannot be used: {error}", state.display()),
        )
    })?;
    store.latest(name, &Accounts::of(state))
}

/// Whether the package index answers.
fn index(state: Option<&Path>) -> Checked {
    if state.is_none() {
        return Checked::not_checkable(
            "network",
            "the package index is asked where the session will be".to_owned(),
        );
    }
    let address = match environments::index_address() {
        Err(failure) => return Checked::lacking("network", failure),
        Ok(None) => return Checked::held("network", "no package index is asked".to_owned()),
        Ok(Some(address)) => address,
    };
    check_address(&address)
}

fn check_address(address: &str) -> Checked {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(INDEX_TIMEOUT))
        .http_status_as_error(false)
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .build();
    // What it answers says that it is there.
    match ureq::Agent::from(config).get(address).call() {
        Ok(_) => Checked::held("network", format!("the package index {address} answers")),
        Err(cause) => {
            let message = format!(
                "The package index {address} does not answer: {cause}. See to the network, or name another index: UV_DEFAULT_INDEX."
            );
            Checked::lacking("network", Failure::new(Code::InstallIndexUnreachable, message))
        }
    }
}

/// A check a line.
pub(crate) fn table_of(checks: &[Checked]) -> String {
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
    render(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let text = table_of(&checks).replace(&folder.path().display().to_string(), "FLOW");
        expect_test::expect![[r#"
            PREREQUISITE  RESULT
            requirements  LACKING             requirements.txt:1: promptflow is in the base image already, and another version of it breaks it. Take the pin, or the line, out. [Flow.PinnedPromptflow]
            python        not checkable here  it is that of the base image
            base-image    LACKING             "No/Image:At:All" is no name of an image: a repository has lower case letters and digits, between them dots, dashes and underscores. Write it as registry/name:tag, registry/name@sha256:…, docker-archive:/file.tar, oci-archive:/file.tar, docker-daemon:name:tag or containers-storage:name:tag. [Image.BadName]"#]].assert_eq(&text);
        let elsewhere = of_folder(folder.path(), &wanted("a/b"), &of, None);
        let not_here = elsewhere[1..].iter().map(|check| check.result).collect::<Vec<_>>();
        assert_eq!(not_here, [CheckResult::NotCheckable; 2]);
        // Nothing listens at port 1 of this machine.
        let gone = check_address("http://127.0.0.1:1/simple");
        assert_eq!(
            (gone.result, gone.error),
            (CheckResult::Lacking, Some(Code::InstallIndexUnreachable))
        );
        assert!(gone.what.starts_with("The package index"), "{}", gone.what);
    }
}
