//! The AWS JSON protocols: one POST, the operation in a header, JSON both ways.

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE},
};
use http_body::Frame;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// The refusal of a request, as SDKs understand it.
#[derive(Clone, Debug)]
pub(crate) struct AwsError {
    pub(crate) status: StatusCode,
    /// The shape's name: `QueueDoesNotExist`.
    pub(crate) kind: String,
    pub(crate) message: String,
    /// The name from the days of the query protocol, which older clients of SQS match.
    pub(crate) query: Option<&'static str>,
}

impl AwsError {
    pub(crate) fn new(kind: &str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: kind.to_owned(),
            message: message.into(),
            query: None,
        }
    }

    pub(crate) fn access_denied(kind: &str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            ..Self::new(kind, message)
        }
    }

    pub(crate) fn with_query_code(self, query: &'static str) -> Self {
        Self {
            query: Some(query),
            ..self
        }
    }

    pub(crate) fn respond(&self, content_type: &'static str) -> Response<Body> {
        let body = json!({ "__type": self.kind, "message": self.message });
        let mut response = respond(self.status, content_type, body.to_string());
        response.headers_mut().insert("x-amzn-errortype", header(&self.kind));
        if let Some(query) = self.query {
            response
                .headers_mut()
                .insert("x-amzn-query-error", header(&format!("{query};Sender")));
        }
        response
    }
}

impl From<rusqlite::Error> for AwsError {
    /// The disk is full or broken: worth a retry.
    fn from(cause: rusqlite::Error) -> Self {
        tracing::error!(fault = "Store", cause = %cause, "the state folder cannot be written or read");
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            ..Self::new("InternalFailure", "The state folder cannot be written or read.")
        }
    }
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("error"))
}

pub(crate) fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Reads an operation's input.
pub(crate) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, AwsError> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|cause| AwsError::new("SerializationException", format!("This input cannot be read: {cause}.")))
}

/// A time as these protocols write it: seconds, with a fraction.
#[allow(clippy::cast_precision_loss, reason = "milliseconds of this age fit a double")]
pub(crate) fn seconds(milliseconds: i64) -> Value {
    json!(milliseconds as f64 / 1000.0)
}

/// A body that breaks off before its first byte, and the connection with it.
pub(crate) struct Cut;

impl HttpBody for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(Err(std::io::Error::other("the reply is dropped on purpose"))))
    }
}
