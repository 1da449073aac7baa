//! The failure of a command, for the person who typed it.

use contract::{Code, Failure};
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
/// * `next`: what to do, where the failure's own sentence does not say it.
/// * `output`: the command that shows the whole output.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) exit: u8,
    pub(crate) what: Option<String>,
    pub(crate) failure: Failure,
    pub(crate) next: Option<String>,
    pub(crate) output: Option<String>,
}

impl Trouble {
    pub(crate) fn new(exit: u8, error: Code, message: impl Into<String>) -> Box<Self> {
        Self::of(exit, Failure::new(error, message))
    }

    pub(crate) fn of(exit: u8, failure: Failure) -> Box<Self> {
        Box::new(Self {
            exit,
            what: None,
            failure,
            next: None,
            output: None,
        })
    }

    pub(crate) fn what(mut self: Box<Self>, what: impl Into<String>) -> Box<Self> {
        self.what = Some(what.into());
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
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        if let Some(output) = &self.output {
            write!(f, "\n  whole output: {output}")?;
        }
        Ok(())
    }
}
