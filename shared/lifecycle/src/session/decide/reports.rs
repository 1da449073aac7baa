//! Reports of the driver and the agent about the container and its compute resource.

use super::{
    super::{Kind, Lease, Message, Operation, Outcome, Phase, Refusal, Resolved, Row, Settings},
    Turn, stopped,
};
use crate::{Code, Failure, deadlines};

impl Turn {
    pub(super) fn compute_up(&mut self, compute: &str) {
        if self.s.phase == Phase::Provisioning && self.s.compute.as_deref() == Some(compute) {
            self.enter(Phase::Launching, deadlines::LAUNCHING);
            self.answer(None);
        }
    }

    pub(super) fn compute_gone(&mut self, compute: &str, why: &str) {
        if self.s.compute.as_deref() == Some(compute) {
            self.take_loss(Some(Failure::new(
                Code::SessionComputeLost,
                format!("The compute resource is gone ({why}). Start the session again."),
            )));
        }
    }

    /// Stops a session that would stay on a compute resource which is to go. One that is leaving it
    /// already does what was wanted of it.
    pub(super) fn compute_drained(&mut self, operation: &str, compute: &str, why: &Failure) -> Result<(), Refusal> {
        let is_leaving = self.s.phase == Phase::Stopping && !self.is_anew_where_it_is();
        if self.s.compute.as_deref() != Some(compute) || is_leaving {
            return Ok(());
        }
        self.take_operation(&Operation {
            why: Some(why.clone()),
            ..Operation::new(operation, Kind::Stop, None)
        })
    }

    pub(super) fn session_up(&mut self, generation: u32, key: &str) {
        if generation != self.s.generation {
            // One that was held for gone: see that it is.
            self.send(Message::RemoveSession {
                generation,
                compute: None,
            });
        } else if self.s.phase == Phase::Launching {
            self.s.agent_key = Some(key.to_owned());
            self.grant_lease();
            self.enter(Phase::Installing, deadlines::INSTALLING);
            self.answer(None);
        } else if !self.s.phase.is_live() {
            self.send(Message::RemoveSession {
                generation,
                compute: None,
            });
        }
    }

    pub(super) fn session_gone(&mut self, generation: u32, failure: Option<&Failure>) {
        if generation == self.s.generation && self.s.phase.is_live() && self.s.phase != Phase::Provisioning {
            if self.is_anew_where_it_is() {
                self.container_gone(failure.cloned());
            } else {
                self.take_loss(failure.cloned());
            }
        }
    }

    pub(super) fn image_seen(&mut self, generation: u32, digest: &str, latest: Option<&String>) {
        if generation == self.s.generation && self.s.phase.is_live() {
            let resolved = self.s.resolved.get_or_insert_with(|| Resolved {
                digest: digest.to_owned(),
                latest: None,
            });
            // One look may be reported after a later one; a name that has moved needs a reset in
            // any case.
            if let Some(latest) = latest.filter(|latest| **latest != resolved.digest) {
                resolved.latest = Some(latest.clone());
            }
        }
    }

    pub(super) fn take_installed(&mut self, generation: u32, operation: &str, attempt: u32, warning: Option<&String>) {
        if self.is_install(generation, operation, attempt) {
            self.ready();
            self.end(Outcome::Succeeded, None, warning.cloned());
        }
    }

    pub(super) fn install_failed(&mut self, generation: u32, operation: &str, attempt: u32, failure: &Failure) {
        if self.is_install(generation, operation, attempt) {
            self.fail(failure.clone());
        }
    }

    /// Somebody used the session by another way than a command.
    pub(super) fn take_use(&mut self, generation: u32) {
        if generation == self.s.generation && self.s.phase.is_live() {
            self.active();
        }
    }

    /// A session is taken down only for one that can be had.
    pub(super) fn image_checked(&mut self, generation: u32, operation: &str, failure: Option<&Failure>) {
        if generation != self.s.generation || !self.runs_operation(operation) || !self.is_checking() {
            return;
        }
        match failure {
            Some(failure) => self.fail(failure.clone()),
            None => self.take_down(),
        }
    }

    /// Whether an operation is under way that makes the session anew, and the session still goes on
    /// as it was.
    pub(super) fn is_checking(&self) -> bool {
        let makes_anew = |o: &Operation| matches!(o.kind, Kind::Reset | Kind::Update);
        self.s.phase == Phase::Ready && self.s.current.as_ref().is_some_and(makes_anew)
    }

    pub(super) fn take_down(&mut self) {
        self.stopping();
        self.remove();
    }

    pub(super) fn is_install(&self, generation: u32, operation: &str, attempt: u32) -> bool {
        generation == self.s.generation
            && self.s.phase == Phase::Installing
            && self
                .s
                .current
                .as_ref()
                .is_some_and(|o| o.id == operation && o.attempt == attempt)
    }

    pub(super) fn alive(&mut self, generation: u32, nonce: u64, runs: &[String]) {
        if generation != self.s.generation || !matches!(self.s.phase, Phase::Installing | Phase::Ready) {
            return;
        }
        self.grant_lease();
        let until = self.now + deadlines::RUN_LEASE;
        for run in runs {
            if let Some(Lease::Until(lease)) = self.s.runs.get_mut(run) {
                *lease = until.max(*lease);
            }
        }
        self.send(Message::AgentLease { generation, nonce });
    }

    /// The operation under way did not succeed. An install leaves the session as it was, as does a
    /// reset or an update that has not taken it down yet. Any other leaves none.
    pub(super) fn fail(&mut self, failure: Failure) {
        if self.s.phase == Phase::Stopping {
            return;
        }
        if self.is_checking() {
            let message = format!("{} The session goes on as it was.", failure.message);
            let failure = Failure::new(failure.error, message);
            self.answer(Some(failure.clone()));
            self.ready_again();
            self.end(Outcome::Failed, Some(failure), None);
            return;
        }
        self.answer(Some(failure.clone()));
        match self.s.current.as_ref().map(|o| (o.kind, o.id.clone())) {
            Some((Kind::Install, operation)) => {
                let generation = self.s.generation;
                self.send(Message::AgentCancelInstall { generation, operation });
                self.ready_again();
                self.end(Outcome::Failed, Some(failure), None);
            }
            _ => {
                self.s.failure = Some(failure);
                self.stopping();
                self.remove();
            }
        }
    }

    /// There is no container of this generation any more, and its compute resource is left to
    /// whoever else is on it.
    pub(super) fn take_loss(&mut self, why: Option<Failure>) {
        if let Some(compute) = self.s.compute.take() {
            self.write(Row::LeaveCompute { compute });
        }
        self.container_gone(why);
    }

    /// The operation that makes the session anew once its container is gone, unless it has failed.
    pub(super) fn anew(&self) -> Option<&Operation> {
        let goes_down = self.s.phase == Phase::Stopping && self.s.failure.is_none() || self.is_checking();
        let current = self.s.current.as_ref().filter(|_| goes_down);
        current.filter(|o| matches!(o.kind, Kind::Reset | Kind::Update))
    }

    /// Whether the session is made anew of the same size and identity: that is had in seconds on
    /// the compute resource which is there, and in minutes on another.
    pub(super) fn is_anew_where_it_is(&self) -> bool {
        let stays = |wants: &Settings| wants.over(&self.s.settings).is_on_same_compute(&self.s.settings);
        self.anew().is_some_and(|o| o.wants.as_ref().is_none_or(stays))
    }

    /// Whether a session that is Stopping will be there again after it.
    pub(super) fn comes_back(&self) -> bool {
        let again = self
            .s
            .next
            .as_ref()
            .is_some_and(|o| matches!(o.kind, Kind::Start | Kind::Reset));
        self.anew().is_some() || again
    }

    /// There is no container of this generation any more.
    pub(super) fn container_gone(&mut self, why: Option<Failure>) {
        let wanted = self.s.phase == Phase::Stopping && self.s.failure.is_none();
        let again = self.anew().is_some();
        self.s.agent_key = None;
        self.s.alive_until = None;
        self.s.deadline = None;
        if wanted {
            self.end_sent_runs(Outcome::Canceled, self.why_stopped());
        } else {
            let failure = self.s.failure.take().or(why).unwrap_or_else(|| {
                Failure::new(
                    Code::SessionContainerEnded,
                    "The session's container ended without a word. Start the session again.",
                )
            });
            self.end_sent_runs(Outcome::Failed, failure.clone());
            self.s.failure = Some(failure);
        }
        if again {
            if let Some(wants) = self.s.current.as_ref().and_then(|o| o.wants.clone()) {
                self.s.settings = wants.over(&self.s.settings);
            }
            self.new_generation();
            self.answer(None);
            return;
        }
        let cleaned_up = self.s.failure.clone();
        // A clean-up that ends with the reason ends its execution as one that ends without.
        self.answer(cleaned_up.clone());
        self.s.phase = if wanted { Phase::Stopped } else { Phase::Failed };
        let why = self.s.current.as_ref().and_then(|o| o.why.clone());
        self.s.stopped_for = why.filter(|_| wanted);
        if self
            .s
            .next
            .as_ref()
            .is_none_or(|o| !matches!(o.kind, Kind::Start | Kind::Reset))
        {
            let failure = cleaned_up.clone().unwrap_or_else(|| self.why_stopped());
            self.end_waiting_runs(if wanted { Outcome::Canceled } else { Outcome::Failed }, failure);
        }
        self.end(
            if wanted { Outcome::Succeeded } else { Outcome::Failed },
            cleaned_up,
            None,
        );
    }

    /// The failure of runs that end with the session.
    pub(super) fn why_stopped(&self) -> Failure {
        let why = self.s.current.as_ref().and_then(|o| o.why.clone());
        why.unwrap_or_else(stopped)
    }
}
