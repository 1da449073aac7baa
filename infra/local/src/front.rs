//! The HTTP front: a request becomes the event of a function URL (payload 2.0), and its answer a
//! response.

use crate::{
    functions::{Pool, Unanswered},
    wire::respond,
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Response, StatusCode, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use contract::Code;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The most bytes of a request's body.
pub(crate) const MOST_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(default)]
    cookies: Vec<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// Has the function answer a request.
pub(crate) async fn answer(pool: &Arc<Pool>, parts: Parts, body: Bytes, domain: &str) -> Response<Body> {
    let event = event(&parts, &body, domain);
    let pool = pool.clone();
    let trace = parts
        .headers
        .get("x-amzn-trace-id")
        .and_then(|value| value.to_str().ok());
    let trace = trace.map(str::to_owned);
    // It goes on when the client goes away: the process has to be waited for, or ended.
    let invoked = tokio::spawn(async move { pool.invoke(Bytes::from(event.to_string()), trace).await }).await;
    match invoked.unwrap_or(Err(Unanswered::Closing)) {
        Ok(answer) => response(&answer),
        Err(Unanswered::Closing) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            Code::ServiceClosing,
            "The service is leaving; try again in a moment.",
        ),
        Err(why) => {
            tracing::warn!(fault = Code::ServiceNoAnswer.as_str(), cause = %why, path = parts.uri.path(), "a request has no answer");
            problem(
                StatusCode::BAD_GATEWAY,
                Code::ServiceNoAnswer,
                "The function that answers this has failed; try again.",
            )
        }
    }
}

pub(crate) fn problem(status: StatusCode, error: Code, message: &str) -> Response<Body> {
    respond(
        status,
        "application/json",
        json!({ "error": { "error": error, "message": message } }).to_string(),
    )
}

/// The values by name; several of one name with commas between them.
fn join_pairs(pairs: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        all.entry(name)
            .and_modify(|others| {
                others.push(',');
                others.push_str(&value);
            })
            .or_insert(value);
    }
    all
}

/// # Source
///
/// "Lambda function URLs: request payload format" in the Lambda developer guide (payload format
/// 2.0).
pub(crate) fn event(parts: &Parts, body: &Bytes, domain: &str) -> Value {
    let text = |(name, value): (&HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    let headers = join_pairs(parts.headers.iter().filter_map(text));
    let query = parts.uri.query().unwrap_or("");
    let parameters = join_pairs(form_urlencoded::parse(query.as_bytes()).into_owned());
    let now = crate::store::now();
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": parts.uri.path(),
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "local",
            "domainName": domain,
            "domainPrefix": "local",
            "requestId": crate::store::random_hex::<16>(),
            "routeKey": "$default",
            "stage": "$default",
            "timeEpoch": now,
            "http": {
                "method": parts.method.as_str(),
                "path": parts.uri.path(),
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": headers.get("user-agent").cloned().unwrap_or_default(),
            },
        },
        "isBase64Encoded": false,
    });
    if !parameters.is_empty() {
        event["queryStringParameters"] = json!(parameters);
    }
    if !body.is_empty() {
        match std::str::from_utf8(body) {
            Ok(text) => event["body"] = text.into(),
            Err(_) => {
                event["body"] = STANDARD.encode(body).into();
                event["isBase64Encoded"] = true.into();
            }
        }
    }
    event
}

pub(crate) fn response(answer: &Bytes) -> Response<Body> {
    let value: Value = serde_json::from_slice(answer).unwrap_or(Value::Null);
    // What has no status is the body itself, of a request that went well.
    if value.get("statusCode").is_none() {
        return respond(StatusCode::OK, "application/json", answer.clone());
    }
    let Ok(answer) = serde_json::from_value::<Answer>(value) else {
        return problem(
            StatusCode::BAD_GATEWAY,
            Code::ServiceNoAnswer,
            "The function's answer cannot be read.",
        );
    };
    let body = answer.body.unwrap_or_default();
    let body = if answer.is_base64_encoded {
        STANDARD.decode(&body).unwrap_or_default()
    } else {
        body.into_bytes()
    };
    let status = StatusCode::from_u16(answer.status_code).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = respond(status, "application/json", body);
    let mut set = |name: &str, value: &str, append: bool| {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            // How long the body is, and where it ends, the connection says.
            if name == "content-length" || name == "transfer-encoding" || name == "connection" {
                return;
            }
            if append {
                response.headers_mut().append(name, value);
            } else {
                response.headers_mut().insert(name, value);
            }
        }
    };
    for (name, value) in &answer.headers {
        set(
            name,
            &value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            false,
        );
    }
    for cookie in &answer.cookies {
        set("set-cookie", cookie, true);
    }
    response
}

/// Requests to the host itself.
pub(crate) fn bearer(parts: &Parts) -> Option<&str> {
    parts
        .headers
        .get("authorization")?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::Plan;
    use axum::http::Request;
    use std::time::Duration;

    #[test]
    fn a_request_becomes_the_event_of_a_function_url() {
        let request = Request::post("/v1/a%20b?wait=5&x=a+b%26c&x=d")
            .header("Authorization", "Bearer t")
            .body(())
            .expect("a request");
        let event = event(&request.into_parts().0, &Bytes::from_static(b"{}"), "localhost");
        assert_eq!(event["rawPath"], "/v1/a%20b");
        assert_eq!(event["queryStringParameters"], json!({ "wait": "5", "x": "a b&c,d" }));
        assert_eq!(event["headers"]["authorization"], "Bearer t");
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!("{}"), &json!(false))
        );
        assert_eq!(event["requestContext"]["http"]["method"], "POST");
    }

    async fn failure(said: Response<Body>) -> String {
        let said = axum::body::to_bytes(said.into_body(), 1000).await.expect("it is short");
        let said: Value = serde_json::from_slice(&said).expect("JSON");
        let failure: contract::Failure = serde_json::from_value(said["error"].clone()).expect("a failure");
        failure.to_string()
    }

    #[tokio::test]
    async fn what_is_no_answer_says_so() {
        assert_eq!(
            failure(response(&Bytes::from_static(b"{ \"statusCode\": \"much\" }"))).await,
            "Service.NoAnswer: The function's answer cannot be read."
        );
    }

    #[tokio::test]
    async fn who_asks_while_the_host_leaves_is_told_so() {
        let pool = Pool::start(
            Plan {
                name: "api".into(),
                program: "/nowhere".into(),
                arguments: Vec::new(),
                environment: Default::default(),
                timeout: Duration::from_secs(1),
                most: 1,
                spare: 0,
                log: "/dev/null".into(),
                runtime_api: crate::functions::RuntimeApi::listen().expect("a port"),
            },
            Arc::default(),
        );
        pool.close();
        let (parts, ()) = Request::get("/v1/sessions").body(()).expect("a request").into_parts();
        let said = answer(&pool, parts, Bytes::new(), "localhost").await;
        assert_eq!(said.status(), 503);
        assert_eq!(
            failure(said).await,
            "Service.Closing: The service is leaving; try again in a moment."
        );
    }

    #[test]
    fn an_answer_becomes_a_response() {
        let answer = json!({ "statusCode": 404, "headers": { "Content-Type": "text/plain", "Content-Length": "7" }, "cookies": ["a=1", "b=2"], "body": "no" });
        let response = response(&Bytes::from(answer.to_string()));
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert!(!response.headers().contains_key("content-length"));
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn an_escape_that_is_none_stays_as_it_is() {
        let request = Request::get("/v1/a?x=100%&y=%zz%41").body(()).expect("a request");
        let (parts, ()) = request.into_parts();
        let event = event(&parts, &Bytes::new(), "localhost");
        assert_eq!(event["queryStringParameters"], json!({ "x": "100%", "y": "%zzA" }));
    }
}
