//! The routes of the host.

use super::Host;
use crate::{
    access::Caller,
    doors::Guest,
    front,
    store::now,
    wire::{AwsError, Cut, respond},
};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Extension, Path as Segments, Request, State},
    http::{Response, StatusCode},
    routing::{any, get, post},
};
use contract::Code;
use serde_json::{Value, json};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// The most bytes of an AWS request, and of what a function answers.
const MOST_BYTES: usize = 8 << 20;
/// The longest time that a request's body may take.
const BODY: Duration = Duration::from_secs(30);

/// The routes of people, their programs, and functions that call AWS.
pub(super) fn outside(host: Arc<Host>) -> Router {
    Router::new()
        .route("/", post(aws))
        .route("/{account}/{queue}", post(aws))
        .route("/v1/{*path}", any(api_door))
        .route("/webhook/{*path}", any(webhook_door))
        .route("/host/health", get(health))
        .route("/host/down", post(down))
        .with_state(host)
}

/// The routes of the functions' own runtimes.
pub(super) fn functions(host: Arc<Host>) -> Router {
    Router::new()
        .route("/fn/{name}/{secret}/{*path}", any(runtime))
        .with_state(host)
}

async fn whole(body: Body, most: usize) -> Result<Bytes, Response<Body>> {
    match tokio::time::timeout(BODY, to_bytes(body, most)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(front::problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            Code::RequestTooLarge,
            &format!("The request is larger than {most} bytes, or broke off."),
        )),
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> Response<Body> {
    front::problem(
        StatusCode::REQUEST_TIMEOUT,
        Code::RequestTooSlow,
        &format!("The request's body was not there within {} s.", BODY.as_secs()),
    )
}

async fn aws(State(host): State<Arc<Host>>, Extension(guest): Extension<Guest>, request: Request) -> Response<Body> {
    const JSON: &str = "application/x-amz-json-1.0";
    let (parts, body) = request.into_parts();
    // A stranger's body is not read at all.
    let claim = match host.access.claim(&parts.headers) {
        Ok(claim) => claim,
        Err(refused) => return refused.respond(JSON),
    };
    let body = match whole(body, MOST_BYTES).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let caller = match claim.check(&host.access, &parts.method, &parts.uri, &parts.headers, &body) {
        Ok(caller) => caller,
        Err(refused) => return refused.respond(JSON),
    };
    let _served = guest.serve();
    if matches!(caller, Caller::User(_)) {
        host.last_request.store(now(), Ordering::Relaxed);
    }
    let target = parts
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .unwrap_or("");
    let (service, operation) = target.split_once('.').unwrap_or((target, ""));
    // With PFSESSION_LOG=local=trace: what each caller asks for, and so what it would cost.
    tracing::trace!(
        caller = caller.sender(),
        service,
        operation,
        bytes = body.len(),
        "called"
    );
    let answer = |answer: Result<Value, AwsError>| match answer {
        Ok(value) => respond(StatusCode::OK, JSON, value.to_string()),
        Err(error) => error.respond(JSON),
    };
    let response = match service {
        "AmazonSQS" => answer(host.sqs.answer(&caller, operation, &body).await),
        "DynamoDB_20120810" => host.table.answer(&caller, operation, &body),
        "AWSStepFunctions" => answer(host.machine.answer(&caller, operation, &body)),
        _ => AwsError::new(
            "UnknownOperationException",
            format!("This host does not know {target:?}."),
        )
        .respond(JSON),
    };
    if host.faults.strikes("drop-reply").is_some() {
        return Response::new(Body::new(Cut));
    }
    response
}

async fn runtime(
    State(host): State<Arc<Host>>,
    Extension(guest): Extension<Guest>,
    Segments((name, secret, path)): Segments<(String, String, String)>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some(pool) = host.pools.get(&name) else {
        return respond(
            StatusCode::NOT_FOUND,
            "application/json",
            r#"{"errorType":"UnknownFunction"}"#,
        );
    };
    let Some(process) = pool.process(&secret) else {
        return respond(
            StatusCode::FORBIDDEN,
            "application/json",
            r#"{"errorType":"UnknownProcess"}"#,
        );
    };
    let _served = guest.serve();
    match whole(body, MOST_BYTES).await {
        Ok(body) => pool.runtime(process, &parts.method, &path, body).await,
        Err(response) => response,
    }
}

async fn api_door(
    State(host): State<Arc<Host>>,
    Extension(guest): Extension<Guest>,
    request: Request,
) -> Response<Body> {
    front_door(&host, &guest, super::API, request).await
}

async fn webhook_door(
    State(host): State<Arc<Host>>,
    Extension(guest): Extension<Guest>,
    request: Request,
) -> Response<Body> {
    front_door(&host, &guest, "webhook", request).await
}

async fn front_door(host: &Host, guest: &Guest, function: &str, request: Request) -> Response<Body> {
    host.last_request.store(now(), Ordering::Relaxed);
    let (parts, body) = request.into_parts();
    match whole(body, front::MOST_BYTES).await {
        Ok(body) => {
            let _served = guest.serve();
            front::answer(&host.pools[function], parts, body, &host.address).await
        }
        Err(response) => response,
    }
}

async fn health(State(host): State<Arc<Host>>) -> Response<Body> {
    respond(
        StatusCode::OK,
        "application/json",
        json!({ "pid": std::process::id(), "version": host.version }).to_string(),
    )
}

async fn down(State(host): State<Arc<Host>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    if !front::bearer(&parts).is_some_and(|token| host.issuer.accepts(token, &host.user)) {
        return front::problem(
            StatusCode::UNAUTHORIZED,
            Code::AccessNoToken,
            "This needs the bearer token of this host's user, from host.json.",
        );
    }
    host.closing.send_replace(true);
    respond(
        StatusCode::OK,
        "application/json",
        json!({ "leaving": std::process::id() }).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_is_too_large_is_answered_with_how_large_it_may_be() {
        assert_eq!(
            whole(Body::from("0123456789"), 10).await.expect("it is small enough"),
            "0123456789"
        );
        let said = async |refused: Response<Body>| {
            let status = refused.status().as_u16();
            let said = to_bytes(refused.into_body(), 1000).await.expect("it is short");
            let said: contract::http::Problem = serde_json::from_slice(&said).expect("a problem");
            format!("{status} {}", said.error)
        };
        let refused = whole(Body::from("0123456789x"), 10).await.expect_err("it is too large");
        assert_eq!(
            said(refused).await,
            "413 Request.TooLarge: The request is larger than 10 bytes, or broke off."
        );
        assert_eq!(
            said(too_slow()).await,
            "408 Request.TooSlow: The request's body was not there within 30 s."
        );
    }
}
