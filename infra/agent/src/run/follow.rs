//! A run, followed to its end.

use super::results::{Results, exact};
use crate::{
    connections::Given,
    disk::io_failure,
    output::Output,
    runner::{Piece, Runner, What},
    secrets::Parts,
};
use contract::{
    Code, Failure,
    agent::{Chunk, LineKind},
};
use serde_json::Value;
use std::{io, ops::ControlFlow, rc::Rc};

/// Follows a run to its end, and says why it failed if it did.
pub(super) async fn follow(
    runner: &Runner,
    run: &str,
    message: &Value,
    given: &Given,
    results: &mut Results,
    output: &Rc<Output>,
) -> Option<Failure> {
    let mut followed = Followed {
        given,
        results,
        output,
        memory: (runner, runner.out_of_memory()),
        unwritten: None,
        lines: Parts::default(),
        pieces: Parts::default(),
    };
    let file = match given.in_memory() {
        Ok(file) => file,
        Err(error) => return Some(io_failure(&error)),
    };
    let Ok(mut said) = runner.run(run, message, file).await else {
        return Some(crash("its sandbox was gone"));
    };
    while let Some(what) = said.recv().await {
        if let ControlFlow::Break(failure) = followed.take(what) {
            followed.tell_rest();
            return failure;
        }
    }
    followed.tell_rest();
    Some(crash("its sandbox ended"))
}

pub(super) fn crash(how: &str) -> Failure {
    Failure::new(
        Code::RunCrashed,
        format!("The run's process ended in the middle: {how}. See what ended it, and run again"),
    )
}

/// A run that is followed.
pub(super) struct Followed<'a> {
    pub(super) given: &'a Given,
    pub(super) results: &'a mut Results,
    pub(super) output: &'a Rc<Output>,
    /// The processes of the runner that had run out of memory before the run.
    pub(super) memory: (&'a Runner, u64),
    /// The failure to write a result to the disk.
    pub(super) unwritten: Option<Failure>,
    /// Lines that go on, and whether they are of standard error.
    pub(super) lines: Parts<bool>,
    /// Outputs in pieces, by their names.
    pub(super) pieces: Parts<String>,
}

impl Followed<'_> {
    /// Takes what is said of the run. Breaks at its end, with why it failed if it did.
    pub(super) fn take(&mut self, what: What) -> ControlFlow<Option<Failure>> {
        let given = self.given;
        match what {
            What::Out { out, goes_on } => self.say(LineKind::Stdout, &out, goes_on),
            What::Err { err, goes_on } => self.say(LineKind::Stderr, &err, goes_on),
            What::Line {
                line,
                number,
                text,
                wrong,
                record,
                nodes,
            } => {
                let wrong = wrong.map(|wrong| without_secrets(given, wrong));
                let taken = self
                    .results
                    .take(line, number, text, wrong)
                    .and_then(|()| self.results.records.take(given, record, nodes));
                self.note(taken);
            }
            What::Spans { spans } => {
                let taken = self.results.records.take_spans(given, &spans);
                self.note(taken);
            }
            What::Chunk { chunk } => self.take_piece(chunk),
            What::Nodes { nodes } => {
                let taken = self.results.records.take(given, None, nodes);
                self.note(taken);
            }
            What::Metrics { metrics } => {
                let taken = self.results.take_metrics(&metrics);
                self.note(taken);
            }
            What::Done { done, crashed } => return ControlFlow::Break(self.end(&done, crashed)),
        }
        ControlFlow::Continue(())
    }

    pub(super) fn say(&mut self, kind: LineKind, lines: &[String], goes_on: bool) {
        let is_error = kind == LineKind::Stderr;
        let mut told = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let mut text = self.lines.take(self.given.secrets(), is_error, line);
            if !goes_on || index + 1 < lines.len() {
                text += &self.lines.end(&is_error);
            }
            told.push(text);
        }
        self.output.say_lines(kind, &told, goes_on);
    }

    /// Takes a piece of an output, and tells it as readers have it.
    pub(super) fn take_piece(&mut self, piece: Piece) {
        let chunk = match piece {
            Piece::Begins { outputs, names } => Chunk::Begins {
                outputs: match outputs.and_then(|text| exact(&self.given.without_secrets(&text))) {
                    Some(Value::Object(outputs)) => Some(outputs),
                    _ => None,
                },
                names,
            },
            Piece::GoesOn { name, text } => {
                let told = self.pieces.take(self.given.secrets(), name.clone(), &text);
                if told.is_empty() && !text.is_empty() {
                    return;
                }
                Chunk::GoesOn {
                    name,
                    texts: vec![told],
                }
            }
        };
        self.output.say_chunk(chunk);
    }

    /// Tells what was held back, as it might have become a secret.
    pub(super) fn tell_rest(&mut self) {
        for (is_error, text) in self.lines.end_all() {
            let kind = if is_error { LineKind::Stderr } else { LineKind::Stdout };
            self.output.say_lines(kind, &[text], false);
        }
        for (name, text) in self.pieces.end_all() {
            self.output.say_chunk(Chunk::GoesOn {
                name,
                texts: vec![text],
            });
        }
    }

    /// The first result that could not be written fails the run.
    pub(super) fn note(&mut self, written: io::Result<()>) {
        if let (Err(error), None) = (written, &self.unwritten) {
            self.unwritten = Some(io_failure(&error));
        }
    }

    pub(super) fn was_out_of_memory(&self) -> bool {
        let (runner, before) = self.memory;
        runner.out_of_memory() > before
    }

    pub(super) fn end(&mut self, done: &Value, status: Option<i32>) -> Option<Failure> {
        self.results.used = serde_json::from_value(done["used"].clone()).ok();
        match status {
            Some(_) if self.was_out_of_memory() => return Some(out_of_memory()),
            Some(status) if status < 0 => return Some(crash(&format!("by signal {}", -status))),
            Some(status) => return Some(crash(&format!("it exited with code {status}"))),
            None => {}
        }
        if let Some(code) = done.get("exit_code") {
            let code = code.as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(1);
            self.results.exit_code = Some(code);
            // A shell says 137 of a child that was ended for want of memory.
            return match code {
                0 => None,
                _ if self.was_out_of_memory() => Some(out_of_memory()),
                code => Some(Failure::new(
                    Code::RunExitCode,
                    format!("The command exited with code {code}"),
                )),
            };
        }
        self.results.lines = done["lines"].as_u64().unwrap_or(self.results.lines);
        self.results.failed = done["failed"].as_u64().unwrap_or(self.results.failed);
        self.results.retried = done["retried"].as_u64().unwrap_or_default();
        let failure: Option<Failure> = serde_json::from_value(done["failure"].clone()).ok();
        match failure.map(|failure| without_secrets(self.given, failure)) {
            Some(failure) if failure.error == Code::RunCrashed && self.was_out_of_memory() => Some(out_of_memory()),
            // A result that is not on the disk is none.
            failure => self.unwritten.take().or(failure),
        }
    }
}

pub(super) fn without_secrets(given: &Given, failure: Failure) -> Failure {
    Failure {
        message: given.without_secrets(&failure.message),
        ..failure
    }
}

pub(super) fn out_of_memory() -> Failure {
    Failure::new(
        Code::RunOutOfMemory,
        "The run needed more memory than the session's VM size gives. Take a larger one, or give the flow less at once, and run \
         again",
    )
}
