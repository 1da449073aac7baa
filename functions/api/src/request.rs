//! An HTTP request, as a function URL or an HTTP API hands it on (payload version 2.0).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The event, with what the routes ask of it.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Request(contract::http::Request);

impl Request {
    pub(crate) fn method(&self) -> &str {
        &self.0.request_context.http.method
    }

    pub(crate) fn path(&self) -> &str {
        &self.0.raw_path
    }

    pub(crate) fn query(&self) -> &BTreeMap<String, String> {
        &self.0.query_string_parameters
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.0.query_string_parameters.get(name)?.parse().ok()
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.query_string_parameters.get(name).map(String::as_str)
    }

    /// The bearer token, if there is one.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (_, value) = self
            .0
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    }

    /// The body as text; `None` if it is none.
    pub(crate) fn body(&self) -> Option<String> {
        let body = self.0.body.clone().unwrap_or_default();
        if self.0.is_base64_encoded {
            String::from_utf8(BASE64.decode(body).ok()?).ok()
        } else {
            Some(body)
        }
    }
}
