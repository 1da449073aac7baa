//! One HTTP request to a service.

use local::HostFile;
use std::time::Duration;

/// The longest that a read waits, as the contract has it.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(20_000);
/// The longest time of an answer beyond that.
const ANSWER_MARGIN: Duration = Duration::from_secs(15);
/// The most bytes of an answer.
const MOST: u64 = 256 << 20;

/// The address of a service, and the token that it takes.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) endpoint: String,
    pub(crate) token: String,
}

pub(crate) fn address_of(host: &HostFile) -> Address {
    Address {
        endpoint: socket::LOCALHOST.to_owned(),
        token: host.token.clone(),
    }
}

/// One request, and its answer's status and text.
pub(crate) fn once(
    http: &ureq::Agent,
    address: &Address,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<(u16, String), ureq::Error> {
    let url = format!("{}{path}", address.endpoint.trim_end_matches('/'));
    let bearer = format!("Bearer {}", address.token);
    let timeout = Some(LONGEST_WAIT + ANSWER_MARGIN);
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(url)
        .header("authorization", bearer);
    let mut answer = match body {
        None => {
            let request = http.configure_request(request.body(())?);
            http.run(request.timeout_global(timeout).build())?
        }
        Some(body) => {
            let request = request.header("content-type", "application/json").body(body)?;
            http.run(http.configure_request(request).timeout_global(timeout).build())?
        }
    };
    let text = answer.body_mut().with_config().limit(MOST).read_to_string()?;
    Ok((answer.status().as_u16(), text))
}
