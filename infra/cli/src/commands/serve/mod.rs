//! A flow behind HTTP on loopback, as `pf flow serve` of promptflow 1.18.5 answers: `pfsession
//! serve`.
//!
//! Each `/score` is a run in the flow's session. The session lives as long as this serves.
//!
//! * Decision: runs, and not promptflow's own server inside the sandbox. So a request has what each
//!   run has (connections and the broker, logs, judged ends, retries), it works with `--endpoint`,
//!   and no port leads into a sandbox. It costs some 50 ms a request.
//! * Beyond promptflow: a request needs the token that is printed. It sends no
//!   `Access-Control-Allow-Origin: *`, by which any page might ask.

mod answers;
mod events;
mod swagger;

use super::turns::{Asked, Turns};
use crate::{
    command::Execute,
    global::{Done, Service},
    terminal::note,
    text::{out, out_json},
    trouble::{FAILED, Trouble},
    wish,
};
use answers::{error, failure_response, json_of};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Args;
use contract::{Code, Failure};
use events::Accepted;
use flow::{Field, Signature};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{net::Ipv4Addr, sync::Arc};
use swagger::swagger;

/// The version of promptflow that this answers as.
const VERSION: &str = "1.18.5";

/// The most bytes of a request.
const MOST_BODY: usize = 64 << 20;

/// Serve a flow by HTTP on this machine, as `pf flow serve` does: /score, /health, /swagger.json,
/// /feedback
#[derive(Args, Debug)]
#[command(after_help = "\
It prints its address and a token, which each request needs. Each request is a run in the flow's session, which lives while the flow is served. \
Ctrl-C ends it.

Examples:
  pfsession serve ./my-flow --port 8080
  curl -H 'authorization: Bearer TOKEN' http://127.0.0.1:8080/score -d '{\"text\": \"hi\"}'")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// The port of 127.0.0.1; without it, a free one
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
}

/// The address at which a flow is served.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Address<'a> {
    url: String,
    token: &'a str,
}

struct Served {
    turns: Arc<Turns>,
    token: String,
}

impl Execute for Serve {
    type Json = Address<'static>;

    fn execute(&self, service: &Service<'_>) -> Done {
        let cannot = |error: std::io::Error| {
            Trouble::new(FAILED, Code::ServeFailed, format!("Nothing can be served: {error}"))
                .next("name another --port, or none")
        };
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let token = wish::random::<16>();
        let turns = Turns::begin(service, &self.asked)?;
        let served = Arc::new(Served {
            turns: Arc::new(turns),
            token: token.clone(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let ended = runtime.map_err(cannot)?.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let mut interrupted = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
            if service.global.json {
                out_json(&Address {
                    url: format!("http://{address}"),
                    token: &token,
                });
            } else {
                out(&format!("http://{address} {token}"));
                note!(
                    "Ask it: curl -H 'authorization: Bearer {token}' http://{address}/score -d '{{…}}'. Ctrl-C ends it."
                );
            }
            let server = axum::serve(listener, router(served));
            tokio::select! {
                ended = async move { server.await } => ended,
                // A run that is under way goes on in its session.
                _ = interrupted.recv() => Ok(()),
            }
        });
        ended.map_err(cannot)?;
        note!("It is served no more. The session stays for the next run.");
        Ok(0)
    }
}

fn router(served: Arc<Served>) -> Router {
    let with_token = middleware::from_fn_with_state(Arc::clone(&served), admit);
    Router::new()
        .route("/score", post(score))
        .route("/feedback", post(feedback))
        .route(
            "/health",
            get(|| async { json_of(StatusCode::OK, &json!({ "status": "Healthy", "version": VERSION })) }),
        )
        .route(
            "/version",
            get(|| async {
                json_of(
                    StatusCode::OK,
                    &json!({ "status": "Healthy", "build_info": "", "version": VERSION }),
                )
            }),
        )
        .route(
            "/swagger.json",
            get(|State(served): State<Arc<Served>>| async move {
                json_of(StatusCode::OK, &swagger(&served.turns.signature))
            }),
        )
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(with_token)
        .with_state(served)
}

/// Lets a request pass that has the token.
async fn admit(State(served): State<Arc<Served>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default()
        .as_bytes();
    let wanted = served.token.as_bytes();
    // In a time that says nothing of where they differ.
    let differs = given
        .iter()
        .zip(wanted)
        .fold(given.len() ^ wanted.len(), |all, (a, b)| all | usize::from(a ^ b));
    match differs {
        0 => next.run(request).await,
        _ => error(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "The request needs the token that `pfsession serve` has printed.",
        ),
    }
}

async fn nothing(request: Request) -> Response {
    let (name, method) = (request.uri().path().trim_start_matches('/'), request.method());
    let text = format!(
        "The requested api '{name}' with {method} is not supported by current app, if you entered the URL manually please check your spelling \
         and try again."
    );
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn feedback(body: Bytes) -> Response {
    note!("feedback: {}", String::from_utf8_lossy(&body));
    json_of(StatusCode::OK, &json!({ "status": "Feedback received." }))
}

async fn score(State(served): State<Arc<Served>>, headers: HeaderMap, body: Bytes) -> Response {
    let inputs = match inputs(&served.turns.signature, &body) {
        Ok(inputs) => inputs,
        Err(message) => return error(StatusCode::BAD_REQUEST, "UserError", &message),
    };
    let hidden: Vec<String> = {
        let outputs = served
            .turns
            .signature
            .outputs
            .iter()
            .filter(|field| field.evaluation_only);
        outputs.map(|field| field.name.clone()).collect()
    };
    let accepted = Accepted::of(&headers);
    if accepted.has_events() {
        let ask = move |hear: events::Hear| served.turns.ask_streamed(inputs, hear);
        return events::answer(ask, hidden, accepted).await;
    }
    let asked = tokio::task::spawn_blocking(move || served.turns.ask(inputs)).await;
    match asked.unwrap_or_else(|error| Err(Failure::new(Code::ServeFailed, error.to_string()))) {
        Ok(mut outputs) => {
            outputs.retain(|name, _| !hidden.contains(name));
            accepted.json(outputs)
        }
        Err(failure) => failure_response(&failure),
    }
}

/// The inputs that a request's body gives.
///
/// # Errors
///
/// The fault, in promptflow's words.
///
/// # Source
///
/// `load_request_data` and `validate_request_data` in `promptflow/core/_serving/utils.py`.
fn inputs(signature: &Signature, body: &[u8]) -> Result<Map<String, Value>, String> {
    let known = signature.inputs.as_deref();
    if known.is_some_and(<[Field]>::is_empty) {
        return Ok(Map::new());
    }
    let given = match (serde_json::from_slice(body), known) {
        (Ok(value), _) => value,
        (Err(_), Some([only])) => json!({ only.name.as_str(): String::from_utf8_lossy(body) }),
        (Err(_), _) => {
            return Err("Promptflow executor received non json data, but there's more than 1 input fields, please use json request \
                        data instead."
                .into());
        }
    };
    let is_missing = |field: &&Field| field.default.is_none() && given.get(&field.name).is_none();
    let missing: Vec<String> = known
        .unwrap_or_default()
        .iter()
        .filter(is_missing)
        .map(|field| format!("'{}'", field.name))
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "Required input fields [{}] are missing in request data {given}",
            missing.join(", ")
        ));
    }
    match given {
        // What the flow does not know is passed over.
        Value::Object(mut given) => {
            given.retain(|name, _| known.is_none_or(|known| known.iter().any(|field| field.name == *name)));
            Ok(given)
        }
        other => Err(format!(
            "The request data should be an object with the flow's inputs, and is {other}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn signature() -> Signature {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/echo");
        flow::signature(folder.as_ref()).unwrap()
    }

    #[test]
    fn a_body_is_taken_or_refused_in_promptflows_words() {
        let said = |body: &str| match inputs(&signature(), body.as_bytes()) {
            Ok(inputs) => Value::Object(inputs).to_string(),
            Err(message) => message,
        };
        let bodies = [
            r#"{"text":"a","times":3}"#,
            r#"{"text":"a","more":1}"#,
            "{}",
            "nojson",
            "[1]",
        ];
        expect![[r#"
            {"text":"a","times":3}
            {"text":"a"}
            Required input fields ['text'] are missing in request data {}
            Promptflow executor received non json data, but there's more than 1 input fields, please use json request data instead.
            Required input fields ['text'] are missing in request data [1]"#]]
        .assert_eq(&bodies.map(said).join("\n"));
    }
}
