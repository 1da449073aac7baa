//! HTTP requests of the agent's own, which are tried again.

use contract::Failure;
use std::{thread::sleep, time::Duration};
use ureq::tls::{RootCerts, TlsConfig};

/// The time before each further request.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// A try that did not succeed.
pub(crate) enum Missed {
    Final(Failure),
    /// Worth another try in a moment.
    ForNow(Failure),
}

/// Tries until it succeeds, or a failure is final, or the pauses have passed.
pub(crate) fn try_again<T>(once: impl Fn() -> Result<T, Missed>) -> Result<T, Failure> {
    let mut pauses = PAUSES.into_iter();
    loop {
        match (once(), pauses.next()) {
            (Ok(done), _) => return Ok(done),
            (Err(Missed::ForNow(_)), Some(pause)) => sleep(pause),
            (Err(Missed::ForNow(failure) | Missed::Final(failure)), _) => return Err(failure),
        }
    }
}

/// A client that follows no redirect, and trusts the machine's certificates.
///
/// * `timeout`: of a whole request.
pub(crate) fn http_client(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(timeout))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
    config.build().into()
}
