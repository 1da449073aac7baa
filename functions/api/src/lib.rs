//! `api`: answers HTTP. It changes nothing itself: a command goes into the same queue as
//! everybody's, and a read reads.
//!
//! The routes are in [`contract::route`], their bodies and answers in [`contract::http`].

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod answers;
mod commands;
mod computes;
mod connections;
mod earlier;
#[cfg(test)]
mod fuzzed;
mod instances;
mod operations;
mod proof;
mod request;
mod roles;
mod runs;
mod sessions;
mod snapshots;
mod token;
mod vault;
mod webhooks;
mod workspace;

use answers::{ok, problem};
use aws::Aws;
use contract::{
    http::Health,
    route::{Route, parts},
};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use lifecycle::{Code, Failure, Millis};
use request::Request;
use serde_json::Value;
use shell::{Fault, Known};
use snapshots::Flows;
use std::sync::Arc;
use token::Issuers;
use vault::Vault;

/// The longest that a read waits.
const LONGEST_WAIT: Millis = 20_000;

/// The longest part of an address, decoded. A name has at most 100 bytes.
const LONGEST_PART: usize = 300;

/// Serves until the Lambda service ends the process.
///
/// # Errors
///
/// When the environment is wrong or the runtime API is gone. Final for this process.
pub async fn run() -> Result<(), Error> {
    let aws = Arc::new(aws::boot()?);
    let issuer = Arc::new(Issuers::from_environment()?);
    let stores = Arc::new(Stores {
        flows: Flows::from_environment(),
        vault: Vault::from_environment(),
    });
    let answer = |event: LambdaEvent<Value>| {
        let (aws, issuer, stores) = (aws.clone(), issuer.clone(), stores.clone());
        async move {
            let answer = async {
                Ok::<Value, Error>(match serde_json::from_value::<Request>(event.payload) {
                    Ok(request) => Box::pin(handle(&aws, &issuer, &stores, &request)).await,
                    Err(_) => malformed(),
                })
            };
            aws::trace_work(event.context.xray_trace_id.as_deref(), "", answer).await
        }
    };
    lambda_runtime::run(service_fn(answer)).await
}

/// The parts that this function has besides the table and the queues.
struct Stores {
    flows: Flows,
    vault: Option<Vault>,
}

async fn handle(aws: &Aws, issuer: &Issuers, stores: &Stores, request: &Request) -> Value {
    let path = parts(request.path());
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    let route = Route::of(request.method(), &path);
    let bad_query = route.and_then(|route| route.check_query(request.query()).err());
    if route == Some(Route::Health) {
        return bad_query.map_or_else(healthy, |failure| problem(400, failure));
    }
    // A session has no token: its own key proves it.
    match route {
        Some(Route::GiveConnections(key)) => {
            return to_answer(connections::give(aws, stores.vault.as_ref(), key, request).await);
        }
        Some(Route::GiveEarlier(key)) => return to_answer(earlier::give(aws, key, request).await),
        _ => {}
    }
    let caller = match issuer.caller(request.bearer()).await {
        Ok(caller) => caller,
        Err(failure) if failure.error == Code::AccessNoIssuer => return problem(503, failure),
        Err(failure) => return problem(401, failure),
    };
    if path.iter().any(|part| part.len() > LONGEST_PART) {
        return too_long();
    }
    let Some(route) = route else {
        return no_such_route();
    };
    if let Some(failure) = bad_query {
        return problem(400, failure);
    }
    let answered = async {
        let known = Known::look_up(aws, caller).await?;
        Box::pin(answer(aws, stores, &known, route, request)).await
    };
    to_answer(answered.await)
}

fn to_answer(answered: Result<Value, Fault>) -> Value {
    match answered {
        Ok(answer) => answer,
        Err(Fault::Meaningless(failure)) => problem(400, failure),
        Err(fault) => {
            tracing::warn!(fault = fault.code().as_str(), cause = ?fault, "not answered");
            try_again()
        }
    }
}

fn healthy() -> Value {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    ok(200, &Health { version })
}

fn malformed() -> Value {
    problem(400, Failure::new(Code::HttpMalformed, "This is no HTTP request."))
}

fn too_long() -> Value {
    let message = format!("A part of the address has more than {LONGEST_PART} characters. No id is as long.");
    problem(400, Failure::new(Code::HttpTooLong, message))
}

fn try_again() -> Value {
    let message = "The service could not do this now. Try again in a moment.";
    problem(503, Failure::new(Code::HttpTryAgain, message))
}

fn no_such_route() -> Value {
    let message = "There is nothing at this address. The routes begin with /v1/.";
    problem(404, Failure::new(Code::HttpNoSuchRoute, message))
}

#[expect(clippy::cognitive_complexity, reason = "the table of routes, one call for each")]
async fn answer(
    aws: &Aws,
    stores: &Stores,
    known: &Known,
    route: Route<'_>,
    request: &Request,
) -> Result<Value, Fault> {
    let (flows, vault) = (&stores.flows, stores.vault.as_ref());
    let caller = &known.principal;
    let wait = request.number("wait").unwrap_or(0).min(LONGEST_WAIT);
    match route {
        Route::Health => Ok(healthy()),
        Route::SendCommand => commands::accept(aws, known, request).await,
        Route::Check => commands::check(aws, flows, known, request).await,
        Route::OfferSnapshot => flows.place(caller, request).await,
        Route::Operation(id) => operations::read(aws, caller, id, wait).await,
        Route::Runs => runs::list(aws, caller, request).await,
        Route::Run(id) => runs::read(aws, caller, id, request, wait).await,
        Route::ChangeRun(id) => runs::change(aws, caller, id, request).await,
        Route::DeleteRun(id) => runs::delete(aws, caller, id).await,
        Route::RunFiles(id) => runs::files(aws, caller, id, request, wait).await,
        Route::Output(id) => operations::output(aws, caller, id, request.number("after"), wait).await,
        Route::Sessions => sessions::list(aws, caller, request).await,
        Route::Session(key) => sessions::read(aws, caller, key).await,
        Route::Why(key) => sessions::why(aws, caller, key).await,
        Route::Events(key) => sessions::events(aws, caller, key, request).await,
        Route::Packages(key) => sessions::packages(aws, caller, key).await,
        Route::Installs(key) => sessions::installs(aws, caller, key).await,
        Route::Computes => computes::list(aws, caller, request).await,
        Route::Compute(id) => computes::read(aws, caller, id, request, wait).await,
        Route::DeleteCompute(id) => computes::delete(aws, caller, id).await,
        Route::Instances => instances::list(aws, caller, request).await,
        Route::Instance(name) => instances::read(aws, caller, name, request, wait).await,
        Route::Roles(workspace) => roles::list(aws, caller, workspace, request).await,
        Route::WriteRoles(workspace) => roles::write(aws, caller, workspace, request).await,
        Route::WorkspaceSettings(workspace) => workspace::read(aws, caller, workspace).await,
        Route::WriteWorkspaceSettings(workspace) => workspace::write(aws, flows, caller, workspace, request).await,
        Route::Webhooks(workspace) => webhooks::read(aws, caller, workspace).await,
        Route::WriteWebhooks(workspace) => webhooks::write(aws, caller, workspace, request).await,
        Route::Connections(workspace) => connections::list(aws, vault, caller, workspace).await,
        Route::KeepConnection(workspace) => connections::write(aws, vault, caller, workspace, request).await,
        Route::DeleteConnection(workspace) => connections::delete(aws, vault, caller, workspace, request).await,
        Route::GiveConnections(key) => connections::give(aws, vault, key, request).await,
        Route::GiveEarlier(key) => earlier::give(aws, key, request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::http::Problem;

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
