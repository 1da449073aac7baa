//! Commands, and what can be checked before one is sent.

use crate::{
    answers::{ok, problem},
    request::Request,
    snapshots::Flows,
};
use aws::Aws;
use contract::{
    command::{Command, Wish},
    http::{Accepted, Checks},
    row::{NAME_KEPT, RunRow},
};
use lifecycle::{
    Code, Failure,
    access::{Action, may},
};
use serde_json::Value;
use shell::{Fault, Known, Ports};
use std::path::Path;

/// Puts a command into the queue of commands.
pub(crate) async fn accept(aws: &Aws, known: &Known, request: &Request) -> Result<Value, Fault> {
    let body = request
        .body()
        .ok_or_else(|| Fault::Meaningless(Failure::new(Code::CommandMalformed, "The body is not UTF-8 text.")))?;
    let mut command = Command::read(&body).map_err(Fault::Meaningless)?;
    if let Some(refused) = known.refuse(aws, &command).await? {
        let status = if refused.error == Code::AccessDenied { 403 } else { 400 };
        return Ok(problem(status, refused));
    }
    command.principal = Some(known.principal.clone());
    let flow = command.flow.key();
    // What two senders want at the same time is decided where the row is written; here it is only
    // said sooner.
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

/// Checks the prerequisites of a start, and starts nothing.
pub(crate) async fn check(aws: &Aws, flows: &Flows, known: &Known, request: &Request) -> Result<Value, Fault> {
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
