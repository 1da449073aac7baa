//! `start-session`: the steps that bring a session up. `claim-compute` resolves what the flow asks
//! for, checks the quota, and claims a compute resource of this user or asks for a new one;
//! `launch-session` asks the driver for the container. `stop-session` comes here when the session
//! is made anew: it is taken down when the one to come is known to be possible.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

use aws::{Aws, Record};
use contract::{names, step::StepMessage, workspace::WorkspaceSettings};
use lifecycle::{
    Code, Failure,
    session::{Event, Named, Session, Settings, Step},
};
use shell::{Fault, Happened, Ports, happen};
use snapshots::{Folders, Store};
use std::{path::Path, sync::Arc, time::Duration};

/// The longest time that a snapshot may take to come.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves until the Lambda service ends the process.
///
/// # Errors
///
/// When the environment is wrong or the runtime API is gone. Final for this process.
pub async fn run() -> Result<(), lambda_runtime::Error> {
    let aws = Arc::new(aws::boot()?);
    let folders = Arc::new(folders(|name| std::env::var(name).ok()));
    let handle = move |aws, record| handle(aws, Arc::clone(&folders), record);
    aws::each_record(aws, handle).await
}

/// The reader of flow folders: in the bucket for them if there is one, else on this machine.
///
/// * `look`: gives the value of an environment variable.
fn folders(look: impl Fn(&str) -> Option<String>) -> Folders {
    match look(names::FLOWS_BUCKET).filter(|bucket| !bucket.is_empty()) {
        None => Folders::here(),
        Some(bucket) => match Store::from_environment(&look, SNAPSHOT_TIMEOUT) {
            Some(store) => Folders::in_store(store, &bucket, &std::env::temp_dir().join("pfsession"), 1),
            // Without credentials the clients would not have been made either.
            None => Folders::here(),
        },
    }
}

/// Enters one step.
///
/// # Errors
///
/// A transient [`Fault`]: the message comes again, and the same step twice is once.
pub async fn handle(aws: Arc<Aws>, folders: Arc<Folders>, record: Record) -> Result<(), Fault> {
    let step = StepMessage::read(&record.body).map_err(Fault::Meaningless)?;
    let found = match step.step {
        Step::ClaimCompute | Step::StopSession => look(&*aws, &folders, &aws.identities, &step).await?,
        _ => Ok(None),
    };
    let event = Event::StepEntered {
        operation: step.operation,
        step: step.step,
        token: step.token,
        compute: None,
        image: found.as_ref().ok().cloned().flatten(),
        cause: found.err(),
    };
    // A step is never refused: an outdated one is answered as outdated.
    let _ = happen(&*aws, &Happened::new(&step.flow, event, "states")).await?;
    Ok(())
}

/// The base image that the session is to be made from, or what stands in the way of a start: the
/// flow folder is read once before anything is made for it. For [`Step::StopSession`] the image is
/// given only if a driver is to check it.
///
/// # Source
///
/// "Start a compute session using the environment defined in `flow.dag.yaml` in the flow folder"
/// (the specification, *Start a compute session*).
async fn look(
    ports: &impl Ports,
    folders: &Folders,
    identities: &[String],
    step: &StepMessage,
) -> Result<Result<Option<Named<String>>, Failure>, Fault> {
    let Some(row) = ports.load_session(&step.flow).await? else {
        return Ok(Ok(None));
    };
    let to_come = wanted_settings(&row.session, step);
    let settings = &to_come;
    let workspace = &row.session.workspace;
    let of = shell::workspace::settings_of(ports, workspace).await?;
    let named = settings.identity.value.as_deref();
    let no_identity = named.and_then(|named| no_identity(identities, named, &of, workspace));
    let is_folder = |path: &str| folders.are_here().then(|| Path::new(path).is_dir());
    let no_directory = shell::workspace::no_working_directory(&of, is_folder);
    if let Some(failure) = no_size(&settings.size.value).or(no_identity).or(no_directory) {
        return Ok(Err(failure));
    }
    let folder = match folders.open(&step.flow, &settings.folder.value).await {
        Ok(folder) => folder,
        Err(snapshots::Fault::Wrong(failure)) => return Ok(Err(failure)),
        Err(not_now) => return Err(Fault::outside("reading the flow folder")(not_now.into())),
    };
    let image = match folder.environment().await {
        Err(failure) => Err(failure),
        Ok(environment) => settings.base_image(of.default_base_image.as_ref(), || Ok(environment.image)),
    };
    let is_to_be_checked = |image: &Named<String>| {
        let is_built_in = [flow::DEFAULT_IMAGE, flow::PLAIN_IMAGE].contains(&image.value.as_str());
        // A driver elsewhere has no answer to that.
        step.step == Step::ClaimCompute || folder.is_here() && !is_built_in
    };
    Ok(image.map(|image| Some(image).filter(is_to_be_checked)))
}

/// The settings of this step's session. One that is taken down for another gets the other's.
fn wanted_settings(session: &Session, step: &StepMessage) -> Settings {
    let current = session.current.as_ref().filter(|o| o.id == step.operation);
    match (step.step, current.and_then(|o| o.wants.as_ref())) {
        (Step::StopSession, Some(wants)) => wants.over(&session.settings),
        _ => session.settings.clone(),
    }
}

fn no_size(size: &str) -> Option<Failure> {
    lifecycle::size::size(size)
        .is_none()
        .then(|| lifecycle::size::no_such_size(size))
}

/// The failure of a start with this identity: the workspace does not have it, or compute may not.
fn no_identity(allowed: &[String], identity: &str, of: &WorkspaceSettings, workspace: &str) -> Option<Failure> {
    // A workspace that says which identities it has says it of this machine too.
    if of.identity.is_some()
        && let Err(failure) = shell::workspace::identity(identity, of, workspace)
    {
        return Some(failure);
    }
    let message = if allowed.is_empty() && of.identity.is_some() {
        return None;
    } else if allowed.is_empty() {
        "A user-assigned identity needs a compute resource on AWS, and here there is none with identities. Leave the identity out.".to_owned()
    } else if allowed.iter().any(|role| role == identity) {
        return None;
    } else {
        format!(
            "The identity {identity} is not allowed for sessions here. Name one of {}.",
            allowed.join(", ")
        )
    };
    Some(Failure::new(Code::SessionNoIdentity, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_taken_only_from_the_list_and_a_size_only_if_it_is_one() {
        let allowed = ["arn:aws:iam::1:role/a".to_owned(), "arn:aws:iam::1:role/b".to_owned()];
        let nothing = WorkspaceSettings::default();
        let no_identity = |allowed: &[String], identity: Option<&str>| no_identity(allowed, identity?, &nothing, "lab");
        assert_eq!(no_identity(&allowed, Some("arn:aws:iam::1:role/b")), None);
        assert_eq!(
            no_identity(&allowed, Some("arn:aws:iam::1:role/c"))
                .unwrap()
                .to_string(),
            "Session.NoIdentity: The identity arn:aws:iam::1:role/c is not allowed for sessions here. Name one of \
             arn:aws:iam::1:role/a, arn:aws:iam::1:role/b."
        );
        assert_eq!(
            no_identity(&[], Some("anybody")).unwrap().to_string(),
            "Session.NoIdentity: A user-assigned identity needs a compute resource on AWS, and here there is none with identities. Leave \
             the identity out."
        );
        assert_eq!(no_size("Standard_DS3_v2").or(no_size("local")), None);
        assert_eq!(
            no_size("huge").unwrap().to_string(),
            "Session.NoSuchSize: There is no VM size huge. Name one as Azure does, such as Standard_D4s_v3, or as EC2 does, such as \
             m6i.xlarge; local is all of the machine."
        );
    }
}
