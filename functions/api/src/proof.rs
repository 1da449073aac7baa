//! The proof of a session's own request: its signature. A session has no token.

use crate::request::Request;
use aws::Aws;
use contract::{agent::SignedReport, connections::LONGEST_AGE, row::SessionRow};
use lifecycle::{Code, Failure, Millis};
use serde::de::DeserializeOwned;
use shell::{Fault, Ports};

/// The parts of a signed request that say which session it is from, and when.
pub(crate) struct Claim<'a> {
    pub(crate) flow: &'a str,
    pub(crate) generation: u32,
    pub(crate) at: Millis,
}

/// Reads a signed request.
///
/// # Errors
///
/// [`Code::ReportMalformed`], final.
pub(crate) fn read<T: DeserializeOwned>(request: &Request) -> Result<(SignedReport, T), Failure> {
    let not_read = |cause: serde_json::Error| {
        Failure::new(Code::ReportMalformed, format!("This is no session's request: {cause}."))
    };
    let body = request.body().unwrap_or_default();
    let signed: SignedReport = serde_json::from_str(&body).map_err(not_read)?;
    let wanted = serde_json::from_str(&signed.body).map_err(not_read)?;
    Ok((signed, wanted))
}

/// Gives the live session that has signed a request, if it is the one of the address and the
/// request is fresh.
///
/// # Errors
///
/// As [`Ports`].
pub(crate) async fn session(
    aws: &Aws,
    key: &str,
    signed: &SignedReport,
    claim: &Claim<'_>,
) -> Result<Option<SessionRow>, Fault> {
    let now = aws.now();
    Ok(aws.load_session(key).await?.filter(|row| {
        let session = &row.session;
        claim.flow == key
            && session.generation == claim.generation
            && session.phase.is_live()
            && is_fresh(claim.at, now)
            && session.agent_key.as_deref().is_some_and(|key| signed.is_signed_by(key))
    }))
}

/// The refusal of a request that proves no session.
pub(crate) fn unproved() -> Failure {
    let message =
        "This is given to a live session that proves with its own key which one it is, and this request does not.";
    Failure::new(Code::ReportUnproved, message)
}

fn is_fresh(at: Millis, now: Millis) -> bool {
    now.abs_diff(at) <= LONGEST_AGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_request_of_a_session_is_not_answered() {
        assert!(is_fresh(1_000_000, 1_000_000 + LONGEST_AGE) && is_fresh(1_000_000, 900_000));
        assert!(!is_fresh(1_000_000, 1_000_001 + LONGEST_AGE) && !is_fresh(1_000_001 + LONGEST_AGE, 1_000_000));
    }

    #[test]
    fn a_request_that_proves_no_session_says_so() {
        expect_test::expect!["Report.Unproved: This is given to a live session that proves with its own key which one it is, and this request does not."]
            .assert_eq(&unproved().to_string());
    }
}
