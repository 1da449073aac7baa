//! The state machine enters a step.

use super::{
    super::{Claimed, Kind, Message, Named, Packages, Phase, Settings, Step},
    Turn, superseded,
};
use crate::{Code, Failure, deadlines, size};

/// A step that the state machine entered, with what its handler found: see
/// [`super::Event::StepEntered`].
pub(super) struct Entered<'a> {
    pub(super) step: Step,
    pub(super) claimed: Option<&'a Claimed>,
    pub(super) cause: Option<&'a Failure>,
    pub(super) image: Option<&'a Named<String>>,
}

impl Turn {
    pub(super) fn step_entered(&mut self, operation: &str, token: &str, entered: &Entered<'_>) {
        let step = entered.step;
        if !self.runs_operation(operation) {
            // A clean-up of what is over has nothing to do. Any other step belongs to somebody who
            // was superseded.
            self.answer_one(token, (step != Step::CleanUp).then(superseded));
            return;
        }
        if step == Step::ClaimCompute && self.s.phase == Phase::Provisioning {
            self.record_image(entered.image);
        }
        if self.s.current.as_ref().is_some_and(|o| o.waits_in(token)) {
            return;
        }
        match step {
            Step::CleanUp => self.clean_up(operation, token, entered.cause),
            _ if self.s.failure.is_some() => self.answer_one(token, self.s.failure.clone()),
            Step::StopSession if self.is_checking() => self.check(operation, token, entered),
            Step::StopSession if self.s.phase == Phase::Stopping => {
                self.park(token);
                self.remove();
            }
            _ if entered.cause.is_some() && self.is_at(step) => {
                self.park(token);
                self.fail(entered.cause.cloned().unwrap_or_else(superseded));
            }
            Step::ClaimCompute if self.s.phase == Phase::Provisioning => self.claim(token, entered.claimed),
            Step::LaunchSession if self.s.phase == Phase::Launching => self.launch(token),
            Step::InstallPackages if self.s.phase == Phase::Installing => self.install(operation, token),
            // The fact that the step is there to bring about is recorded already. It must not touch
            // the token of the step after it.
            _ => self.answer_one(token, None),
        }
    }

    fn clean_up(&mut self, operation: &str, token: &str, cause: Option<&Failure>) {
        let cause = cause.cloned().unwrap_or_else(|| {
            Failure::new(
                Code::SessionStepFailed,
                "A step of the operation failed without a reason. Start the session again.",
            )
        });
        let going_down = self.s.phase == Phase::Stopping;
        let is_stop = self.s.current.as_ref().is_some_and(|o| o.kind == Kind::Stop);
        if !going_down {
            self.fail(cause);
        } else if !is_stop {
            // Nothing goes on after a clean-up, so what was to come back will not.
            self.s.failure.get_or_insert(cause);
        }
        if !self.runs_operation(operation) {
            self.answer_one(token, None);
            return;
        }
        self.park(token);
        if going_down {
            self.remove();
        }
    }

    /// Has the base image of the generation to come checked, before this one is taken down.
    fn check(&mut self, operation: &str, token: &str, entered: &Entered<'_>) {
        self.park(token);
        match (entered.cause, entered.image) {
            (Some(cause), _) => self.fail(cause.clone()),
            (None, Some(image)) => self.send(Message::CheckImage {
                generation: self.s.generation,
                operation: operation.to_owned(),
                image: image.value.clone(),
            }),
            (None, None) => self.take_down(),
        }
    }

    fn claim(&mut self, token: &str, claimed: Option<&Claimed>) {
        self.park(token);
        let Some(claimed) = claimed else { return };
        self.s.compute = Some(claimed.id.clone());
        if claimed.new {
            self.send(Message::CreateCompute {
                compute: claimed.id.clone(),
                slot: self.s.slot(),
            });
        }
        if claimed.up {
            self.compute_up(&claimed.id);
        }
    }

    fn launch(&mut self, token: &str) {
        self.park(token);
        let Some(compute) = self.s.compute.clone() else { return };
        let until = self.now + size::launch_window(&self.s.settings.size.value);
        let ended = until + deadlines::LEASE + deadlines::LEASE_MARGIN;
        self.s.alive_until = self.s.alive_until.max(Some(ended));
        self.send(Message::LaunchSession {
            generation: self.s.generation,
            compute,
            settings: self.made_of(),
            until,
        });
    }

    fn install(&mut self, operation: &str, token: &str) {
        let attempt = self.park(token);
        let current = self.s.current.as_ref();
        // What an install wants counts from here on, and is kept if it succeeds.
        let wants = current
            .filter(|o| o.kind == Kind::Install)
            .and_then(|o| o.wants.clone());
        let packages = current.map(|o| o.packages.clone()).unwrap_or_default();
        let made_of = self.made_of();
        self.send(Message::AgentInstall {
            generation: self.s.generation,
            operation: operation.to_owned(),
            attempt,
            settings: Settings {
                folder: wants.map_or(made_of.folder, |wants| wants.folder),
                ..made_of
            },
            packages,
        });
    }

    /// Takes in which base image a generation is made from. What was recorded of another one is not
    /// for it.
    pub(super) fn record_image(&mut self, image: Option<&Named<String>>) {
        let Some(image) = image else { return };
        let before = self.s.image.replace(image.clone());
        let is_other = before.is_some_and(|before| before.value != image.value);
        if let Some(current) = self
            .s
            .current
            .as_mut()
            .filter(|o| is_other && o.packages == Packages::Recorded)
        {
            current.packages = Packages::Required;
        }
    }

    /// The settings, with the base image that the container is made from: nothing swaps it under
    /// the packages that are installed.
    pub(super) fn made_of(&self) -> Settings {
        let mut settings = self.s.settings.clone();
        if let Some(image) = &self.s.image {
            settings.image.value = Some(image.value.clone());
        }
        settings
    }

    /// Whether `step` is there to bring about what comes after the present phase.
    pub(super) fn is_at(&self, step: Step) -> bool {
        matches!(
            (step, self.s.phase),
            (Step::ClaimCompute, Phase::Provisioning)
                | (Step::LaunchSession, Phase::Launching)
                | (Step::InstallPackages, Phase::Installing)
        )
    }

    /// Keeps the token of the step that the operation waits in from now on, and counts the attempt.
    pub(super) fn park(&mut self, token: &str) -> u32 {
        let Some(current) = self.s.current.as_mut() else {
            return 0;
        };
        current.other_tokens.extend(current.token.replace(token.to_owned()));
        current.attempt += 1;
        current.attempt
    }
}
