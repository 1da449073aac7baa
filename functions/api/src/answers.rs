//! The answers of routes, and who gets them.

use aws::Aws;
use contract::{FlowRef, Principal, http::Problem};
use lifecycle::{
    Code, Failure, Millis,
    access::{Action, may},
};
use serde::Serialize;
use serde_json::{Value, json};
use shell::{Fault, Ports};
use std::{future::Future, time::Duration};

/// The most users that one page covers.
pub(crate) const MOST_USERS: usize = 200;

pub(crate) fn ok(status: u16, body: &impl Serialize) -> Value {
    let body = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    json!({ "statusCode": status, "headers": { "content-type": "application/json" }, "body": body })
}

pub(crate) fn problem(status: u16, error: Failure) -> Value {
    ok(status, &Problem { error })
}

pub(crate) fn absent(what: &str, id: &str) -> Value {
    problem(
        404,
        Failure::new(
            Code::HttpNotFound,
            format!("There is no {what} {id}, or none that you may see."),
        ),
    )
}

/// Reads until a value is there or the time has passed. The interval grows from milliseconds, so
/// that a value is seen after at most a twentieth more than it took.
pub(crate) async fn wait_for<T, Fut>(
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
pub(crate) async fn waited_from<T, Fut>(
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

pub(crate) async fn readable(
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

pub(crate) fn may_read(caller: &Principal, flow: &FlowRef) -> bool {
    may(caller, Action::Read, &flow.workspace, &flow.owner)
}
