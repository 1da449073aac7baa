//! `api`: answers HTTP. It changes nothing itself: a command goes into the same queue as everybody's, and a read reads.
//!
//! The routes are in [`contract::http`].

mod computes;
#[cfg(test)]
mod fuzzed;
mod request;
mod roles;
mod runs;
mod sessions;
mod snapshots;
mod token;
mod webhooks;
mod workspace;

use aws::Aws;
use contract::{
    FlowRef, Principal,
    command::{Command, Wish},
    http::{Accepted, Checks, Events, Health, Installs, OperationView, Output, Problem, SessionView, Why},
    row::{NAME_KEPT, OperationStatus, RunRow, SessionRow},
    workspace::WorkspaceSettings,
};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use lifecycle::{
    Failure, Millis,
    access::{Action, may},
    session::{Image, Operation, Session},
};
use request::Request;
use serde::Serialize;
use serde_json::{Value, json};
use shell::{Fault, Known, Ports};
use snapshots::Flows;
use std::{future::Future, path::Path, sync::Arc, time::Duration};
use token::Issuer;

/// The longest that a read waits.
const LONGEST_WAIT: Millis = 20_000;

/// The longest part of an address: a name of 100 bytes, each of them escaped.
const LONGEST_PART: usize = 300;

/// Serves until the Lambda service ends the process.
///
/// # Errors
///
/// When the environment is wrong or the runtime API is gone. Final for this process.
pub async fn run() -> Result<(), Error> {
    let aws = Arc::new(aws::boot()?);
    let issuer = Arc::new(Issuer::from_environment()?);
    let flows = Arc::new(Flows::from_environment());
    let answer = |event: LambdaEvent<Value>| {
        let (aws, issuer, flows) = (aws.clone(), issuer.clone(), flows.clone());
        async move {
            let answer = async {
                Ok::<Value, Error>(match serde_json::from_value::<Request>(event.payload) {
                    Ok(request) => Box::pin(handle(&aws, &issuer, &flows, &request)).await,
                    Err(_) => malformed(),
                })
            };
            aws::traced(event.context.xray_trace_id.as_deref(), "", answer).await
        }
    };
    lambda_runtime::run(service_fn(answer)).await
}

async fn handle(aws: &Aws, issuer: &Issuer, flows: &Flows, request: &Request) -> Value {
    if request.path() == ["v1", "health"] {
        return ok(
            200,
            &Health {
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        );
    }
    let caller = match issuer.caller(request.bearer()) {
        Ok(caller) => caller,
        Err(failure) => return problem(401, failure),
    };
    if request.path().iter().any(|part| part.len() > LONGEST_PART) {
        return too_long();
    }
    let answered = async {
        let known = Known::look_up(aws, caller).await?;
        Box::pin(answer(aws, flows, &known, request)).await
    };
    match answered.await {
        Ok(answer) => answer,
        Err(Fault::Meaningless(failure)) => problem(400, failure),
        Err(fault) => {
            tracing::warn!(fault = fault.name(), cause = ?fault, "not answered");
            try_again()
        }
    }
}

fn malformed() -> Value {
    problem(400, Failure::new("Http.Malformed", "This is no HTTP request."))
}

fn too_long() -> Value {
    let message = format!("A part of the address has more than {LONGEST_PART} characters. No id is as long.");
    problem(400, Failure::new("Http.TooLong", message))
}

fn try_again() -> Value {
    let message = "The service could not do this now. Try again in a moment.";
    problem(503, Failure::new("Http.TryAgain", message))
}

async fn answer(aws: &Aws, flows: &Flows, known: &Known, request: &Request) -> Result<Value, Fault> {
    let caller = &known.principal;
    let wait = request.number("wait").unwrap_or(0).min(LONGEST_WAIT);
    match (request.method(), request.path().as_slice()) {
        ("POST", ["v1", "commands"]) => command(aws, known, request).await,
        ("POST", ["v1", "checks"]) => checks(aws, flows, known, request).await,
        ("POST", ["v1", "snapshots"]) => flows.place(caller, request).await,
        ("GET", ["v1", "operations", id]) => {
            let found = waited(
                aws,
                wait,
                || aws.load_operation(id),
                |row| {
                    row.as_ref()
                        .is_some_and(|row| row.status != OperationStatus::InProgress)
                },
            );
            let Some(mut row) = found.await? else {
                return Ok(absent("operation", id));
            };
            // The end of the one it joined is its own.
            if let Some(to) = row.joined.clone() {
                let found = waited(
                    aws,
                    wait,
                    || aws.load_operation(&to),
                    |row| row.as_ref().is_none_or(|row| row.status != OperationStatus::InProgress),
                );
                if let Some(to) = found.await? {
                    row.status = to.status;
                    row.ended = to.ended;
                    row.failure = to.failure;
                    row.warning = to.warning;
                    row.setup = to.setup;
                }
            }
            readable(aws, caller, &row.flow, "operation", id, || ok(200, &row)).await
        }
        ("GET", ["v1", "runs"]) => runs::list(aws, caller, request).await,
        ("PUT", ["v1", "runs", id]) => runs::change(aws, caller, id, request).await,
        ("DELETE", ["v1", "runs", id]) => runs::delete(aws, caller, id).await,
        ("GET", ["v1", "runs", id, "files"]) => runs::files(aws, caller, id, request, wait).await,
        ("GET", ["v1", "runs", id]) => {
            // Whoever sent a command asks for its run, and not for another of that name.
            let is_other = |row: &RunRow| {
                request
                    .text("wish")
                    .is_some_and(|wish| row.digest.as_deref().is_some_and(|own| own != wish) || row.deleted.is_some())
            };
            let found = waited(
                aws,
                wait,
                || aws.load_run(id),
                |row| row.as_ref().is_some_and(|row| row.status.is_final() || is_other(row)),
            );
            let Some(row) = found.await?.filter(|row| row.deleted.is_none() || is_other(row)) else {
                return Ok(absent("run", id));
            };
            if is_other(&row) {
                return Ok(problem(409, row.name_taken()));
            }
            readable(aws, caller, &row.flow, "run", id, || ok(200, &row)).await
        }
        ("GET", ["v1", "output", of]) => output(aws, caller, of, request.number("after"), wait).await,
        ("GET", ["v1", "sessions"]) => sessions::list(aws, caller, request).await,
        ("GET", ["v1", "sessions", key]) => match aws.load_session(key).await? {
            Some(row) if may_read(caller, &row.flow) => Ok(ok(200, &whole_view(aws, &row).await?)),
            // Whoever may not read it does not learn that it exists.
            _ => Ok(absent("session", key)),
        },
        ("GET", ["v1", "sessions", key, "why"]) => match aws.load_session(key).await? {
            Some(row) if may_read(caller, &row.flow) => {
                let history = aws.latest_history(key).await?;
                Ok(ok(
                    200,
                    &Why {
                        session: whole_view(aws, &row).await?,
                        reasons: shell::why(&row.session, &history, aws.now()),
                    },
                ))
            }
            _ => Ok(absent("session", key)),
        },
        ("GET", ["v1", "sessions", key, "events"]) => {
            let events = aws.history(key, request.number("after").unwrap_or(0)).await?;
            readable(aws, caller, key, "session", key, || ok(200, &Events { events })).await
        }
        ("GET", ["v1", "computes"]) => computes::list(aws, caller, request).await,
        ("GET", ["v1", "computes", id]) => computes::read(aws, caller, id, wait).await,
        ("DELETE", ["v1", "computes", id]) => computes::delete(aws, caller, id).await,
        ("GET", ["v1", "workspaces", workspace, "roles"]) => roles::list(aws, caller, workspace, request).await,
        ("PUT", ["v1", "workspaces", workspace, "roles"]) => roles::write(aws, caller, workspace, request).await,
        ("GET", ["v1", "workspaces", workspace, "settings"]) => workspace::read(aws, caller, workspace).await,
        ("PUT", ["v1", "workspaces", workspace, "settings"]) => {
            workspace::write(aws, flows, caller, workspace, request).await
        }
        ("GET", ["v1", "workspaces", workspace, "webhooks"]) => webhooks::read(aws, caller, workspace).await,
        ("PUT", ["v1", "workspaces", workspace, "webhooks"]) => webhooks::write(aws, caller, workspace, request).await,
        ("GET", ["v1", "sessions", key, "packages"]) => match aws.load_packages(key).await? {
            Some(row) => readable(aws, caller, key, "session", key, || ok(200, &row)).await,
            None => Ok(absent("record of packages of", key)),
        },
        ("GET", ["v1", "sessions", key, "installs"]) => {
            let installs = aws.installs(key).await?;
            readable(aws, caller, key, "session", key, || ok(200, &Installs { installs })).await
        }
        _ => Ok(problem(
            404,
            Failure::new(
                "Http.NoSuchRoute",
                "There is nothing at this address. The routes begin with /v1/.",
            ),
        )),
    }
}

async fn command(aws: &Aws, known: &Known, request: &Request) -> Result<Value, Fault> {
    let body = request
        .body()
        .ok_or_else(|| Fault::Meaningless(Failure::new("Command.Malformed", "The body is not UTF-8 text.")))?;
    let mut command = Command::read(&body).map_err(Fault::Meaningless)?;
    if let Some(refused) = known.refuse(aws, &command).await? {
        let status = if refused.error == "Access.Denied" { 403 } else { 400 };
        return Ok(problem(status, refused));
    }
    command.principal = Some(known.principal.clone());
    let flow = command.flow.key();
    // What two senders want at the same time is decided where the row is written; here it is only said sooner.
    let earlier = match &command.wish {
        Wish::Run { run, .. } => aws.load_run(&command.id).await?.map(|row| (row, run)),
        _ => None,
    };
    let is_free = |row: &RunRow| row.deleted.is_some_and(|at| aws.now() > at + NAME_KEPT);
    let earlier = earlier.filter(|(row, _)| !is_free(row));
    if let Some((row, run)) = &earlier
        && !row.is_of(&flow, &command.digest(), run)
    {
        return Ok(problem(409, row.name_taken()));
    }
    let again = earlier.is_some();
    aws.command(&command).await?;
    Ok(ok(
        202,
        &Accepted {
            id: command.id,
            flow,
            again,
        },
    ))
}

/// What a start needs, without starting anything.
async fn checks(aws: &Aws, flows: &Flows, known: &Known, request: &Request) -> Result<Value, Fault> {
    let command = Command::read(&request.body().unwrap_or_default()).map_err(Fault::Meaningless)?;
    let is_folder = |path: &str| flows.are_here().then(|| Path::new(path).is_dir());
    let is_own = may(
        &known.principal,
        Action::Use,
        &command.flow.workspace,
        &command.flow.owner,
    );
    let mut checks = shell::check(aws, known, &command, is_folder).await?;
    if !is_own {
        // Who may not start it learns that, and nothing of what is there.
        checks.truncate(1);
    }
    Ok(ok(200, &Checks { checks }))
}

async fn output(aws: &Aws, caller: &Principal, of: &str, after: Option<u64>, wait: Millis) -> Result<Value, Fault> {
    let (flow, _) = match owner_of_output(aws, of).await? {
        Some(found) => found,
        None => return Ok(absent("operation or run", of)),
    };
    let read = || async {
        // Whether it has ended is read first: what it said before its end is there by then.
        let ended = owner_of_output(aws, of).await?.is_none_or(|(_, ended)| ended);
        Ok(Output {
            lines: aws.output(of, after).await?,
            ended,
        })
    };
    // An agent gathers lines for a tenth of a second: to look more often gives nobody a line sooner.
    let output = waited_from(25, aws, wait, read, |output: &Output| {
        output.ended || !output.lines.is_empty()
    })
    .await?;
    readable(aws, caller, &flow, "operation or run", of, || ok(200, &output)).await
}

/// The flow whose output it is, and whether there will be no more.
async fn owner_of_output(aws: &Aws, of: &str) -> Result<Option<(String, bool)>, Fault> {
    if let Some(run) = aws.load_run(of).await? {
        return Ok(Some((run.flow, run.status.is_final())));
    }
    Ok(aws
        .load_operation(of)
        .await?
        .map(|operation| (operation.flow, operation.status != OperationStatus::InProgress)))
}

/// Reads until it is there or the time has passed: at first often, as a session starts in milliseconds, then less and less, so that what
/// is waited for is seen after a twentieth more than it took.
async fn waited<T, Fut>(
    ports: &impl Ports,
    wait: Millis,
    read: impl Fn() -> Fut,
    is_there: impl Fn(&T) -> bool,
) -> Result<T, Fault>
where
    Fut: Future<Output = Result<T, Fault>>,
{
    waited_from(3, ports, wait, read, is_there).await
}

/// The same with `least` milliseconds between two looks.
async fn waited_from<T, Fut>(
    least: u64,
    ports: &impl Ports,
    wait: Millis,
    read: impl Fn() -> Fut,
    is_there: impl Fn(&T) -> bool,
) -> Result<T, Fault>
where
    Fut: Future<Output = Result<T, Fault>>,
{
    let begun = ports.now();
    let mut pause = least;
    loop {
        let value = read().await?;
        let waited = ports.now().saturating_sub(begun);
        if is_there(&value) || waited >= wait {
            return Ok(value);
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        pause = (waited / 20).clamp(least, 250);
    }
}

async fn readable(
    aws: &Aws,
    caller: &Principal,
    flow: &str,
    what: &str,
    id: &str,
    answer: impl FnOnce() -> Value,
) -> Result<Value, Fault> {
    match aws.load_session(flow).await? {
        Some(row) if may_read(caller, &row.flow) => Ok(answer()),
        // A command that was refused may have left no session: its own sender reads why.
        None if aws.load_operation(id).await?.is_some_and(|row| row.by == caller.name()) => Ok(answer()),
        None if aws.load_run(id).await?.is_some_and(|row| row.by == caller.name()) => Ok(answer()),
        _ => Ok(absent(what, id)),
    }
}

fn may_read(caller: &Principal, flow: &FlowRef) -> bool {
    may(caller, Action::Read, &flow.workspace, &flow.owner)
}

/// A session with what lies beside its row.
async fn whole_view(ports: &impl Ports, row: &SessionRow) -> Result<SessionView, Fault> {
    let refused = ports.load_refused(&row.session.flow).await?;
    Ok(SessionView {
        refused: refused
            .filter(|refused| refused.generation == row.session.generation)
            .map(|row| row.refused),
        ..view(
            row,
            &shell::workspace::settings_of(ports, &row.flow.workspace).await?,
            ports.now(),
        )
    })
}

fn operation_view(operation: &Operation) -> OperationView {
    OperationView {
        id: operation.id.clone(),
        kind: operation.kind,
    }
}

fn view(row: &SessionRow, of: &WorkspaceSettings, now: Millis) -> SessionView {
    let session = &row.session;
    SessionView {
        key: session.flow.clone(),
        flow: row.flow.clone(),
        phase: session.phase,
        since: session.since,
        generation: session.generation,
        revision: session.revision,
        settings: session.settings.clone(),
        image: session.image.clone(),
        image_digest: session.resolved.as_ref().map(|resolved| resolved.digest.clone()),
        stale_digest: session.resolved.as_ref().and_then(|resolved| resolved.latest.clone()),
        stale_image: stale_image(session, of),
        compute: session.compute.clone(),
        current: session.current.as_ref().map(operation_view),
        next: session.next.as_ref().map(operation_view),
        runs: session.runs.keys().cloned().collect(),
        last_activity: session.last_activity,
        idle_due: session.idle_due(),
        warned: session.warned.is_some(),
        failure: session.failure.clone(),
        refused: None,
        now,
    }
}

/// The base image that a reset would take, if it is not the one that the session's container is made from. Where the flow folder can
/// be read, as on one machine, what its flow file says by now counts.
fn stale_image(session: &Session, of: &WorkspaceSettings) -> Option<Image> {
    let has = session.image.as_ref().filter(|_| session.phase.is_live())?;
    let settings = &session.settings;
    let wanted = match &settings.image {
        Some(name) => Image {
            name: name.clone(),
            origin: settings.origins.image,
        },
        // A list shows everybody's sessions: one folder that cannot be read must not end it.
        None => std::panic::catch_unwind(|| flow::base_image(Path::new(&settings.folder)))
            .ok()?
            .ok()
            .map(|image| shell::workspace::base_image(image, of))?,
    };
    (wanted.name != has.name).then_some(wanted)
}

fn ok(status: u16, body: &impl Serialize) -> Value {
    let body = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    json!({ "statusCode": status, "headers": { "content-type": "application/json" }, "body": body })
}

fn problem(status: u16, error: Failure) -> Value {
    ok(status, &Problem { error })
}

fn absent(what: &str, id: &str) -> Value {
    problem(
        404,
        Failure::new(
            "Http.NotFound",
            format!("There is no {what} {id}, or none that you may see."),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_answered_says_whether_to_try_again() {
        let said = |answer: Value| {
            let problem: Problem = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            format!("{} {}", answer["statusCode"], problem.error)
        };
        assert_eq!(said(malformed()), "400 Http.Malformed: This is no HTTP request.");
        assert_eq!(
            said(too_long()),
            "400 Http.TooLong: A part of the address has more than 300 characters. No id is as long."
        );
        assert_eq!(
            said(try_again()),
            "503 Http.TryAgain: The service could not do this now. Try again in a moment."
        );
    }
}
