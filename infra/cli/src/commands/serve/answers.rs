//! The answers of a served flow, in promptflow's own form.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::{Code, Failure};
use serde_json::{Value, json};

/// An answer in JSON.
pub(crate) fn json_of(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// A failure with promptflow's word for whose it is, `UserError` or `SystemError`.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    json_of(status, &json!({ "error": { "code": code, "message": message } }))
}

/// The answer of a run that has failed.
pub(crate) fn failure_response(failure: &Failure) -> Response {
    let (status, code) = match is_the_users(failure) {
        true => (StatusCode::BAD_REQUEST, "UserError"),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "SystemError"),
    };
    error(status, code, &format!("{}: {}", failure.error, failure.message))
}

/// Whether a failure is of the flow or of what it was asked, as promptflow tells them from its own.
fn is_the_users(failure: &Failure) -> bool {
    matches!(
        failure.error,
        Code::RunCodeRaised
            | Code::RunBadFlow
            | Code::RunBadData
            | Code::RunBadOutput
            | Code::RunImportFailed
            | Code::RunLineTimeout
            | Code::ConnectionNone
            | Code::ConnectionNoSuchKey
            | Code::ConnectionNoToken
            | Code::ConnectionNotBrokered
            | Code::ConnectionNotStored
    )
}
