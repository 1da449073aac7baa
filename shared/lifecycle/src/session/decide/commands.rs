//! A command wants an operation.

use super::{
    super::{Counts, Kind, Meeting, Message, Operation, Outcome, Phase, Refusal, Row, Settings, meeting},
    Turn, stopped, superseded, why_superseded,
};
use crate::deadlines;

impl Turn {
    pub(super) fn take_operation(&mut self, wanted: &Operation) -> Result<(), Refusal> {
        let known = |slot: &Option<Operation>| slot.as_ref().is_some_and(|o| o.id == wanted.id);
        if known(&self.s.current) || known(&self.s.next) {
            return Ok(());
        }
        let Some(running) = self.s.current.as_ref().map(|o| (o.id.clone(), o.kind)) else {
            return self.begin(wanted.clone());
        };
        if self.change_in_place(wanted) {
            return Ok(());
        }
        match meeting(running.1, wanted.kind) {
            Meeting::Supersede => {
                self.supersede(wanted);
                self.begin(wanted.clone())
            }
            // What is under way only counts as what is wanted while it still can become that.
            Meeting::Join if wanted.kind == Kind::Stop || self.becomes(wanted) => {
                if wanted.kind == Kind::Stop {
                    self.cancel_what_waits(wanted);
                }
                self.write(Row::OperationJoined {
                    operation: wanted.id.clone(),
                    to: running.0,
                });
                Ok(())
            }
            Meeting::Join | Meeting::Wait => match &mut self.s.next {
                None => {
                    self.s.next = Some(wanted.clone());
                    Ok(())
                }
                Some(next) if next.kind == wanted.kind => {
                    // Both end with the newest wish in effect, as they would one after the other.
                    next.wants = match (&wanted.wants, next.wants.take()) {
                        (Some(newer), Some(older)) if wanted.kind != Kind::Start => Some(newer.over(&older)),
                        (newer, older) => newer.clone().or(older),
                    };
                    next.packages = wanted.packages.clone();
                    let to = next.id.clone();
                    self.write(Row::OperationJoined {
                        operation: wanted.id.clone(),
                        to,
                    });
                    Ok(())
                }
                Some(next) => Err(Refusal::Busy {
                    running: running.1,
                    waiting: next.kind,
                }),
            },
            Meeting::Refuse => Err(Refusal::NoSession(wanted.kind)),
        }
    }

    /// Whether what is under way ends with what `wanted` wants. A start wants a session, whatever
    /// it is made of; a reset, one made of that.
    pub(super) fn becomes(&self, wanted: &Operation) -> bool {
        let to_be = self.s.to_be();
        let is_that = |made_of: Settings| {
            let wants = wanted.wants.as_ref();
            wants.is_none_or(|wants| wants.over(&made_of).is_same(&made_of))
        };
        let same_packages = self.s.current.as_ref().is_some_and(|o| o.packages == wanted.packages);
        to_be.is_some_and(|made_of| wanted.kind == Kind::Start || same_packages && is_that(made_of))
    }

    /// Does an update that leaves the session on its compute resource: at once, whatever is under
    /// way, and without an execution. It counts as use. Says whether it did.
    pub(super) fn change_in_place(&mut self, update: &Operation) -> bool {
        let Some(to_be) = self.s.to_be().filter(|_| update.kind == Kind::Update) else {
            return false;
        };
        if let Some(change) = &update.wants {
            if !change.over(&to_be).is_on_same_compute(&to_be) {
                return false;
            }
            // A size that is named is the one that the session has, or gets by what is under way.
            let mut named = change.over(&self.s.settings);
            named.take_values(Counts::OnNewCompute, &self.s.settings);
            let had = std::mem::replace(&mut self.s.settings, named);
            self.network_changed(&had);
            // What is under way or waits has been wanted before.
            for wants in [&mut self.s.current, &mut self.s.next]
                .into_iter()
                .flatten()
                .filter_map(|o| o.wants.as_mut())
            {
                *wants = change.over(wants);
            }
        }
        self.active();
        self.end_operation(update.id.clone(), Outcome::Succeeded, None, None);
        true
    }

    /// Tells the agent what may be reached from now on. One that is not there yet gets it with its
    /// first install.
    pub(super) fn network_changed(&mut self, had: &Settings) {
        let (network, allow_hosts) = (&self.s.settings.network.value, &self.s.settings.allow_hosts.value);
        if self.s.agent_key.is_some() && (network, allow_hosts) != (&had.network.value, &had.allow_hosts.value) {
            self.send(Message::AgentNetwork {
                generation: self.s.generation,
                revision: self.s.revision,
                network: *network,
                allow_hosts: allow_hosts.clone(),
            });
        }
    }

    /// Begins an operation that nothing stands in the way of.
    pub(super) fn begin(&mut self, mut operation: Operation) -> Result<(), Refusal> {
        let live = self.s.phase.is_live();
        if self.change_in_place(&operation) {
            return Ok(());
        }
        match operation.kind {
            // The folder moved, and its flow's history stays.
            Kind::Update if !live && self.is_moved_by(operation.wants.as_ref()) => {
                if let Some(wants) = operation.wants {
                    self.s.settings.folder = wants.folder;
                }
                self.end_operation(operation.id, Outcome::Succeeded, None, None);
                return Ok(());
            }
            Kind::Install | Kind::Update if !live => return Err(Refusal::NoSession(operation.kind)),
            Kind::Start if live => {
                // It is Ready: that is what was wanted.
                self.active();
                let warning = operation.wants.as_ref().and_then(|wants| self.s.keeps_otherwise(wants));
                self.end_operation(operation.id, Outcome::Succeeded, None, warning);
                return Ok(());
            }
            Kind::Start | Kind::Reset if !live => {
                match operation.wants.clone() {
                    Some(wants) if operation.kind == Kind::Start => self.s.settings = wants,
                    Some(wants) => self.s.settings = wants.over(&self.s.settings),
                    None => {}
                }
                self.new_generation();
            }
            Kind::Stop if !live => {
                self.s.phase = Phase::Stopped;
                self.s.failure = None;
                self.s.stopped_for = None;
                self.end_operation(operation.id, Outcome::Succeeded, None, None);
                return Ok(());
            }
            Kind::Stop => {
                self.s.failure = None;
                self.stopping();
            }
            Kind::Install => {
                // It changes what is installed, not on what: that is an update's.
                if let Some(wants) = &mut operation.wants {
                    let had = self.s.settings.clone();
                    *wants = Settings {
                        folder: wants.folder.clone().over(had.folder.clone()),
                        ..had
                    };
                }
                self.active();
                self.enter(Phase::Installing, deadlines::INSTALLING);
            }
            // The state machine's first step takes the session down, once the one to come is known
            // to be possible.
            Kind::Start | Kind::Reset | Kind::Update => {
                self.active();
                self.enter(Phase::Ready, deadlines::CHECKING);
            }
        }
        self.send(Message::StartExecution {
            operation: operation.id.clone(),
            kind: operation.kind,
        });
        self.s.current = Some(operation);
        Ok(())
    }

    /// Whether these settings say that the folder of a flow with a history moved, and nothing else.
    fn is_moved_by(&self, wants: Option<&Settings>) -> bool {
        let has = &self.s.settings.folder.value;
        self.s.generation > 0 && wants.is_some_and(|wants| wants.names_folder_alone() && wants.folder.value != *has)
    }

    /// A generation begins: nothing of the one before is left.
    pub(super) fn new_generation(&mut self) {
        self.s.generation += 1;
        self.s.resolved = None;
        self.s.failure = None;
        self.s.stopped_for = None;
        self.s.agent_key = None;
        self.s.alive_until = None;
        self.active();
        self.enter(Phase::Provisioning, deadlines::PROVISIONING);
    }

    /// Ends what is under way and what waits, because of a stop. The state machine's clean-up is
    /// the stop's to do.
    pub(super) fn supersede(&mut self, stop: &Operation) {
        self.answer(Some(superseded()));
        if let Some(current) = self.s.current.take() {
            // One that had failed before the stop came has failed, and says why.
            match self.s.failure.take() {
                Some(failure) => self.end_operation(current.id, Outcome::Failed, Some(failure), None),
                None => self.end_operation(current.id, Outcome::Canceled, Some(why_superseded(stop)), None),
            }
        }
        self.cancel_what_waits(stop);
    }

    pub(super) fn cancel_what_waits(&mut self, stop: &Operation) {
        if let Some(next) = self.s.next.take() {
            self.end_operation(next.id, Outcome::Canceled, Some(why_superseded(stop)), None);
        }
        self.end_waiting_runs(Outcome::Canceled, stop.why.clone().unwrap_or_else(stopped));
    }
}
