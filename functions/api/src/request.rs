//! An HTTP request, as a function URL or an HTTP API hands it on (payload version 2.0).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The parts of the event that are used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    raw_path: String,
    #[serde(default)]
    query_string_parameters: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    request_context: Context,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Debug, Deserialize)]
struct Context {
    http: Http,
}

#[derive(Debug, Deserialize)]
struct Http {
    method: String,
}

impl Request {
    pub(crate) fn method(&self) -> &str {
        &self.request_context.http.method
    }

    pub(crate) fn path(&self) -> Vec<&str> {
        self.raw_path.split('/').filter(|part| !part.is_empty()).collect()
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.query_string_parameters.get(name)?.parse().ok()
    }

    /// The bearer token, if there is one.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (_, value) = self
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    }

    /// The body as text; `None` if it is none.
    pub(crate) fn body(&self) -> Option<String> {
        let body = self.body.clone().unwrap_or_default();
        if self.is_base64_encoded {
            String::from_utf8(BASE64.decode(body).ok()?).ok()
        } else {
            Some(body)
        }
    }
}
