//! The failure of a command, for the person who typed it.

use contract::{Code, Failure};
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;

/// The operation or the run failed.
pub(crate) const FAILED: u8 = 1;
/// The command is not one, or names something that is not there.
pub(crate) const USAGE: u8 = 2;
/// The service cannot be reached or started.
pub(crate) const UNREACHABLE: u8 = 3;
/// There is no such session, operation or run.
pub(crate) const NONE: u8 = 4;
/// Interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error, and what to do next.
///
/// * `exit`: the exit code.
/// * `what`: what did not happen, and to which flow.
/// * `also`: what else stands in the way of a start that was refused.
/// * `next`: what to do, where the failure's own sentence does not say it.
/// * `output`: the command that shows the whole output.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) exit: u8,
    pub(crate) what: Option<String>,
    pub(crate) failure: Failure,
    pub(crate) also: Vec<Failure>,
    pub(crate) next: Option<String>,
    pub(crate) output: Option<String>,
}

/// A failure as programs get it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Failed {
    #[serde(flatten)]
    failure: Failure,
    /// The further reasons of a start that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also: Vec<Failure>,
}

impl Trouble {
    /// The failure for programs.
    pub(crate) fn to_json(&self) -> Failed {
        Failed {
            failure: self.failure.clone(),
            also: self.also.clone(),
        }
    }

    pub(crate) fn new(exit: u8, error: Code, message: impl Into<String>) -> Box<Self> {
        Self::of(exit, Failure::new(error, message))
    }

    pub(crate) fn of(exit: u8, failure: Failure) -> Box<Self> {
        Box::new(Self {
            exit,
            what: None,
            failure,
            also: Vec::new(),
            next: None,
            output: None,
        })
    }

    pub(crate) fn what(mut self: Box<Self>, what: impl Into<String>) -> Box<Self> {
        self.what = Some(what.into());
        self
    }

    pub(crate) fn also(mut self: Box<Self>, also: Vec<Failure>) -> Box<Self> {
        self.also = also;
        self
    }

    pub(crate) fn next(mut self: Box<Self>, next: impl Into<String>) -> Box<Self> {
        self.next = Some(next.into());
        self
    }

    pub(crate) fn output(mut self: Box<Self>, output: impl Into<String>) -> Box<Self> {
        self.output = Some(output.into());
        self
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { error, message } = &self.failure;
        match &self.what {
            Some(what) => write!(f, "error: {what}: {message} [{error}]")?,
            None => write!(f, "error: {message} [{error}]")?,
        }
        for Failure { error, message } in &self.also {
            write!(f, "\n  also: {message} [{error}]")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        if let Some(output) = &self.output {
            write!(f, "\n  whole output: {output}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_stands_in_the_way_of_a_start_is_printed_each_with_its_code() {
        let quota = Failure::new(
            Code::SessionQuotaExceeded,
            "The quota of sessions is 1. Stop one, or ask for more.",
        );
        let trouble = Trouble::new(FAILED, Code::SessionNoIdentity, "The workspace lab has no identity x.")
            .what("the session of joke did not start")
            .also(vec![quota])
            .output("pfsession logs start-1");
        expect_test::expect![[r#"
            error: the session of joke did not start: The workspace lab has no identity x. [Session.NoIdentity]
              also: The quota of sessions is 1. Stop one, or ask for more. [Session.QuotaExceeded]
              whole output: pfsession logs start-1"#]]
        .assert_eq(&trouble.to_string());
        let json = serde_json::to_value(trouble.to_json()).unwrap();
        assert_eq!(
            (&json["error"], &json["also"][0]["error"]),
            (&"Session.NoIdentity".into(), &"Session.QuotaExceeded".into())
        );
    }
}
