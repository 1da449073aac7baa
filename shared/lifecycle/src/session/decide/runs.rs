//! Runs: wanted, sent, ended.

use super::{
    super::{Kind, Lease, MOST_RUNS, Message, Operation, Outcome, Phase, Refusal, Row, Settings},
    Turn, canceled,
};
use crate::{Failure, deadlines};
use std::collections::BTreeMap;

impl Turn {
    pub(super) fn run_wanted(&mut self, run: &str, wants: &Settings) -> Result<(), Refusal> {
        if self.s.runs.contains_key(run) {
            return Ok(());
        }
        if self.s.runs.len() >= MOST_RUNS {
            return Err(Refusal::TooManyRuns);
        }
        let start = || Operation::new(format!("start-for-{run}"), Kind::Start, Some(wants.clone()));
        match self.s.phase {
            Phase::Stopped | Phase::Failed => self.begin(start())?,
            // The session that is going takes no run; the one that comes after it does.
            Phase::Stopping if !self.comes_back() => self.take_operation(&start())?,
            _ => {}
        }
        self.s.runs.insert(run.to_owned(), Lease::Waiting);
        self.active();
        self.send_waiting_runs();
        Ok(())
    }

    /// A waiting run ends here. The agent ends one that it was told of, and reports that.
    pub(super) fn cancel_wanted(&mut self, run: &str) {
        match self.s.runs.get(run) {
            None => {}
            Some(Lease::Waiting) => {
                self.s.runs.remove(run);
                self.active();
                self.write(Row::RunEnded {
                    run: run.to_owned(),
                    outcome: Outcome::Canceled,
                    failure: Some(canceled()),
                });
            }
            Some(Lease::Until(_)) => self.send(Message::AgentCancelRun {
                generation: self.s.generation,
                run: run.to_owned(),
            }),
        }
    }

    pub(super) fn run_done(&mut self, generation: u32, run: &str, outcome: Outcome, failure: Option<&Failure>) {
        if generation == self.s.generation && matches!(self.s.runs.get(run), Some(Lease::Until(_))) {
            self.s.runs.remove(run);
            self.active();
            self.write(Row::RunEnded {
                run: run.to_owned(),
                outcome,
                failure: failure.cloned(),
            });
        }
    }

    pub(super) fn send_waiting_runs(&mut self) {
        if self.s.phase != Phase::Ready || self.is_checking() {
            return;
        }
        let until = self.now + deadlines::RUN_LEASE;
        let generation = self.s.generation;
        for (run, lease) in &mut self.s.runs {
            if *lease == Lease::Waiting {
                *lease = Lease::Until(until);
                let run = run.clone();
                self.effects.push(Message::AgentRun { generation, run }.into());
            }
        }
    }

    pub(super) fn end_waiting_runs(&mut self, outcome: Outcome, failure: Failure) {
        self.end_runs(|lease| *lease == Lease::Waiting, outcome, &failure);
    }

    pub(super) fn end_sent_runs(&mut self, outcome: Outcome, failure: Failure) {
        self.end_runs(|lease| *lease != Lease::Waiting, outcome, &failure);
    }

    pub(super) fn end_runs(&mut self, which: impl Fn(&Lease) -> bool, outcome: Outcome, failure: &Failure) {
        let (out, stay) = std::mem::take(&mut self.s.runs)
            .into_iter()
            .partition(|(_, lease)| which(lease));
        self.s.runs = stay;
        let out: BTreeMap<String, Lease> = out;
        for run in out.into_keys() {
            self.write(Row::RunEnded {
                run,
                outcome,
                failure: Some(failure.clone()),
            });
        }
    }
}
