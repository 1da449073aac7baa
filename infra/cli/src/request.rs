//! One HTTP request to a service.

use local::HostFile;
use std::time::Duration;

/// The longest that a read waits, as the contract has it.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(20_000);
/// How long an answer may take beyond that.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most bytes of an answer.
const MOST: u64 = 256 << 20;

/// Where a service is, and the token that it takes.
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

/// The body of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sent<'a> {
    Nothing,
    Post(&'a str),
    Put(&'a str),
    Delete,
}

/// One request, and its answer's status and text.
pub(crate) fn once(
    http: &ureq::Agent,
    address: &Address,
    path: &str,
    sent: Sent,
) -> Result<(u16, String), ureq::Error> {
    let url = format!("{}{path}", address.endpoint.trim_end_matches('/'));
    let bearer = format!("Bearer {}", address.token);
    let timeout = Some(LONGEST_WAIT + PATIENCE);
    let mut answer = match sent {
        Sent::Nothing => {
            let request = http.get(&url).header("authorization", bearer);
            request.config().timeout_global(timeout).build().call()?
        }
        Sent::Delete => {
            let request = http.delete(&url).header("authorization", bearer);
            request.config().timeout_global(timeout).build().call()?
        }
        Sent::Post(body) | Sent::Put(body) => {
            let request = match sent {
                Sent::Put(_) => http.put(&url),
                _ => http.post(&url),
            };
            let request = request
                .header("authorization", bearer)
                .header("content-type", "application/json");
            request.config().timeout_global(timeout).build().send(body)?
        }
    };
    let text = answer.body_mut().with_config().limit(MOST).read_to_string()?;
    Ok((answer.status().as_u16(), text))
}
