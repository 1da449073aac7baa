//! [`decide`]: what an event means.

mod clock;
mod commands;
mod reports;
mod runs;
mod steps;

use super::{Effect, Event, Kind, Message, Operation, Outcome, Phase, Refusal, Row, Session};
use crate::{Code, Failure, Millis, deadlines};
use steps::Entered;

/// Decides what `event` means for `session` at the time `now`.
///
/// Asking twice is the same as asking once: an event already acted on gives the session back
/// unchanged, with no effects. That is what lets queues deliver twice and Step Functions retry. (A
/// command that has *ended* is the shell's to know: it has the row.)
///
/// * `session`: as last stored, or [`Session::never`].
/// * `now`: by the shell's clock.
///
/// # Errors
///
/// [`Refusal`] when a command has no meaning in this phase. Final: nothing has changed, and trying
/// again will not help.
#[expect(clippy::too_many_lines, reason = "the table of events, one call for each")]
pub fn decide(session: &Session, event: &Event, now: Millis) -> Result<(Session, Vec<Effect>), Refusal> {
    let mut turn = Turn {
        s: session.clone(),
        effects: Vec::new(),
        now,
    };
    match event {
        Event::Wanted { operation } => turn.take_operation(operation)?,
        Event::IdleSeen {
            operation,
            generation,
            activity,
            why,
        } => turn.idle_seen(operation, *generation, *activity, why.as_ref()),
        Event::IdleNear { generation, due } => turn.idle_near(*generation, *due),
        Event::DailyTimeNear { generation, due } => turn.daily_time_near(*generation, *due),
        Event::DailyTimeUsedUp {
            operation,
            generation,
            until,
            why,
        } => turn.daily_time_used_up(operation, *generation, *until, why)?,
        Event::RunWanted { run, wants } => turn.run_wanted(run, wants)?,
        Event::CancelWanted { run } => turn.cancel_wanted(run),
        Event::StepEntered {
            operation,
            step,
            token,
            compute,
            cause,
            image,
        } => turn.step_entered(
            operation,
            token,
            &Entered {
                step: *step,
                claimed: compute.as_ref(),
                cause: cause.as_ref(),
                image: image.as_ref(),
            },
        ),
        Event::ComputeDrained {
            operation,
            compute,
            why,
        } => turn.compute_drained(operation, compute, why)?,
        Event::ComputeUp { compute } => turn.compute_up(compute),
        Event::ComputeGone { compute, why } => turn.compute_gone(compute, why),
        Event::SessionUp { generation, key } => turn.session_up(*generation, key),
        Event::SessionGone { generation, failure } => turn.session_gone(*generation, failure.as_ref()),
        Event::ImageChecked {
            generation,
            operation,
            failure,
        } => turn.image_checked(*generation, operation, failure.as_ref()),
        Event::ImageSeen {
            generation,
            digest,
            latest,
        } => turn.image_seen(*generation, digest, latest.as_ref()),
        Event::Installed {
            generation,
            operation,
            attempt,
            warning,
        } => turn.take_installed(*generation, operation, *attempt, warning.as_ref()),
        Event::InstallFailed {
            generation,
            operation,
            attempt,
            failure,
        } => turn.install_failed(*generation, operation, *attempt, failure),
        Event::Alive {
            generation,
            nonce,
            runs,
        } => turn.alive(*generation, *nonce, runs),
        Event::Activity { generation } => turn.take_use(*generation),
        Event::RunDone {
            generation,
            run,
            outcome,
            failure,
        } => turn.run_done(*generation, run, *outcome, failure.as_ref()),
        Event::Tick => turn.tick(),
    }
    // Whatever moved the deletion, also to never, has armed the warning.
    turn.s.warned = turn.s.warned.filter(|due| turn.s.idle_due() == Some(*due));
    turn.s.daily_warned = turn.s.daily_warned.filter(|_| turn.s.phase.is_live());
    if (turn.s.phase, turn.s.generation) != (session.phase, session.generation) {
        turn.s.since = now;
    }
    if turn.s != *session || !turn.effects.is_empty() {
        turn.s.revision = session.revision + 1;
    }
    Ok((turn.s, turn.effects))
}

/// One decision in the making.
struct Turn {
    s: Session,
    effects: Vec<Effect>,
    now: Millis,
}

impl Turn {
    fn write(&mut self, row: Row) {
        self.effects.push(row.into());
    }

    fn send(&mut self, message: Message) {
        self.effects.push(message.into());
    }

    /// Ends the operation under way, and begins the one that waits.
    pub(super) fn end(&mut self, outcome: Outcome, failure: Option<Failure>, warning: Option<String>) {
        if let Some(done) = self.s.current.take() {
            if outcome == Outcome::Succeeded
                && done.kind == Kind::Install
                && let Some(wants) = done.wants
            {
                self.s.settings.folder = wants.folder;
            }
            self.end_operation(done.id, outcome, failure, warning);
        }
        if let Some(next) = self.s.next.take() {
            let id = next.id.clone();
            if let Err(refusal) = self.begin(next) {
                self.end_operation(id, Outcome::Failed, Some(refusal.into()), None);
            }
        }
        self.send_waiting_runs();
    }

    pub(super) fn end_operation(
        &mut self,
        operation: String,
        outcome: Outcome,
        failure: Option<Failure>,
        warning: Option<String>,
    ) {
        self.write(Row::OperationEnded {
            operation,
            outcome,
            failure,
            warning,
        });
    }

    pub(super) fn ready(&mut self) {
        self.answer(None);
        self.ready_again();
    }

    pub(super) fn ready_again(&mut self) {
        self.s.phase = Phase::Ready;
        self.s.deadline = None;
        self.active();
    }

    pub(super) fn stopping(&mut self) {
        self.enter(Phase::Stopping, deadlines::STOPPING);
    }

    pub(super) fn enter(&mut self, phase: Phase, at_most: Millis) {
        self.s.phase = phase;
        self.s.deadline = Some(self.now + at_most);
    }

    /// Activity only moves forward.
    pub(super) fn active(&mut self) {
        self.s.last_activity = self.s.last_activity.max(self.now);
    }

    pub(super) fn grant_lease(&mut self) {
        let until = self.now + deadlines::LEASE + deadlines::LEASE_MARGIN;
        self.s.alive_until = self.s.alive_until.max(Some(until));
    }

    pub(super) fn remove(&mut self) {
        let (generation, compute) = (self.s.generation, self.s.compute.clone());
        self.send(Message::RemoveSession { generation, compute });
    }

    /// The container has ended by itself: has its driver clear away what is left of it.
    pub(super) fn forget(&mut self) {
        if self.s.alive_until.is_some() {
            self.remove();
        }
    }

    /// Answers the tokens of the step that the operation waits in, if it waits in one.
    pub(super) fn answer(&mut self, failure: Option<Failure>) {
        let Some(current) = self.s.current.as_mut() else { return };
        let tokens = std::mem::take(&mut current.other_tokens)
            .into_iter()
            .chain(current.token.take());
        self.effects.extend(tokens.map(|token| {
            let failure = failure.clone();
            Message::AnswerStep { token, failure }.into()
        }));
    }

    /// Answers one token, and leaves alone what the operation waits in.
    pub(super) fn answer_one(&mut self, token: &str, failure: Option<Failure>) {
        self.send(Message::AnswerStep {
            token: token.to_owned(),
            failure,
        });
    }

    pub(super) fn runs_operation(&self, operation: &str) -> bool {
        self.s.current.as_ref().is_some_and(|o| o.id == operation)
    }
}

/// The answer to a step of an operation that a stop has ended.
pub(super) fn superseded() -> Failure {
    Failure::new(Code::SessionSuperseded, "A stop ended this operation.")
}

/// The failure of an operation that a stop ended.
pub(super) fn why_superseded(stop: &Operation) -> Failure {
    stop.why.clone().unwrap_or_else(superseded)
}

/// The failure of a run that its user canceled.
pub fn canceled() -> Failure {
    Failure::new(Code::RunCanceled, "The run was canceled.")
}

pub(super) fn stopped() -> Failure {
    Failure::new(Code::SessionStopped, "The session was stopped.")
}
