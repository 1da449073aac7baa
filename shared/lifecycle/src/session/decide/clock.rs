//! Time passes.

use super::{
    super::{Kind, Lease, Message, Operation, Outcome, Phase, Refusal, Row},
    Turn,
};
use crate::{Code, Failure, Millis, deadlines};

impl Turn {
    pub(super) fn idle_seen(&mut self, operation: &str, generation: u32, activity: Millis, why: Option<&Failure>) {
        let as_seen = generation == self.s.generation && activity == self.s.last_activity;
        if as_seen && self.s.idle_due().is_some_and(|due| why.is_some() || self.now >= due) {
            // A Ready session with no operation can always be stopped.
            let _ = self.begin(Operation {
                why: why.cloned(),
                ..Operation::new(operation, Kind::Stop, None)
            });
        }
    }

    /// Warns of a deletion that is still to come as the sweep saw it. One that was put off
    /// meanwhile is for a later warning.
    pub(super) fn idle_near(&mut self, generation: u32, due: Millis) {
        let as_seen = generation == self.s.generation && self.s.idle_due() == Some(due);
        if as_seen && self.now < due && self.s.warning_due().is_some_and(|from| self.now >= from) {
            self.s.warned = Some(due);
            self.send(Message::WarnIdle { generation, due });
        }
    }

    /// Warns of the end of the user's time of the day, once for each time at which it is expected.
    pub(super) fn daily_time_near(&mut self, generation: u32, due: Millis) {
        let is_seen = generation == self.s.generation && self.s.phase.is_live();
        if is_seen && self.now < due && self.s.daily_warned != Some(due) {
            self.s.daily_warned = Some(due);
            self.send(Message::WarnDailyTime { generation, due });
        }
    }

    /// Stops a session, in use or not. One that comes late, on a day on which the time has begun
    /// anew, stops nothing.
    pub(super) fn daily_time_used_up(
        &mut self,
        operation: &str,
        generation: u32,
        until: Millis,
        why: &Failure,
    ) -> Result<(), Refusal> {
        let stays = self.s.phase.is_live() && (self.s.phase != Phase::Stopping || self.anew().is_some());
        if generation != self.s.generation || self.now >= until || !stays {
            return Ok(());
        }
        self.take_operation(&Operation {
            why: Some(why.clone()),
            ..Operation::new(operation, Kind::Stop, None)
        })
    }

    pub(super) fn tick(&mut self) {
        let late = self.s.deadline.is_some_and(|deadline| self.now >= deadline);
        let ended = self.s.alive_until.is_none_or(|until| self.now >= until);
        match self.s.phase {
            // Nothing was ever launched, or it has certainly ended itself, and nothing launches it
            // any more.
            Phase::Stopping if late && ended => {
                self.forget();
                self.take_loss(None);
            }
            Phase::Stopping if late => {
                self.s.deadline = Some(self.now + deadlines::STOPPING);
                self.remove();
            }
            Phase::Installing | Phase::Ready if ended => {
                self.forget();
                self.take_loss(Some(Failure::new(
                    Code::SessionAgentSilent,
                    "The session's agent has not been heard of, and has ended itself by now. Start the session again.",
                )));
            }
            Phase::Provisioning | Phase::Launching | Phase::Installing | Phase::Ready if late => {
                let what = match self.s.phase {
                    Phase::Provisioning => "No compute resource came up",
                    Phase::Launching => "The container did not start",
                    Phase::Ready => "The base image was not checked",
                    _ => "The install did not end",
                };
                self.fail(Failure::new(
                    Code::SessionTimedOut,
                    format!("{what} in time. Try again."),
                ));
            }
            _ => {}
        }
        let now = self.now;
        let lost: Vec<String> = self
            .s
            .runs
            .iter()
            .filter(|(_, lease)| matches!(lease, Lease::Until(until) if now >= *until))
            .map(|(run, _)| run.clone())
            .collect();
        for run in lost {
            self.s.runs.remove(&run);
            self.active();
            let failure = Failure::new(
                Code::RunLost,
                "The session's agent no longer knows this run. Submit it again.",
            );
            self.write(Row::RunEnded {
                run,
                outcome: Outcome::Failed,
                failure: Some(failure),
            });
        }
    }
}
