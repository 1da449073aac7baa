//! Runs of flows, from the command to their report.

use super::{Agent, flows::patiently};
use crate::{
    clock::boot_time,
    connections::{Broker, Keeper},
    contained::catch_panic,
    disk,
    output::Output,
    report, run,
    runner::Runner,
    service::Service,
};
use contract::{
    Code, Failure, Outcome, Settings,
    agent::{AgentReport, RunResult},
    command::RunWish,
};
use std::{rc::Rc, sync::Arc, time::Duration};

/// The time between two looks at a canceled run, and the time after which all in its sandbox ends
/// with it, in milliseconds.
const LOOK: Duration = Duration::from_millis(50);

const LONGEST_END: u64 = 5_000;

impl Agent {
    /// Ends a run, whether it is being laid out, runs, or is still to come; of one that has ended
    /// nothing is left to end.
    pub(super) async fn cancel(self: Rc<Self>, run: String) {
        let is_known = self.known.borrow().contains(&run);
        if is_known && !self.open.borrow().contains(&run) {
            return;
        }
        tracing::info!(run, "the run is canceled");
        self.stopped
            .borrow_mut()
            .insert(run.clone(), lifecycle::session::canceled());
        let begun = boot_time();
        // It may be on its way to the runner.
        while self.open.borrow().contains(&run) && self.stopped.borrow().contains_key(&run) {
            let runner = self.runner.borrow().clone();
            if let Some(runner) = runner.filter(|runner| runner.run_names().contains(&run)) {
                let is_late = boot_time() > begun + LONGEST_END;
                if runner.stop(&run).await.is_err() || is_late {
                    runner.kill();
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn run(self: Rc<Self>, run: String, settings: Settings, wish: RunWish) {
        self.look_for_newer_image();
        self.say(AgentReport::RunStarted { run: run.clone() });
        let folder = settings.folder.value.clone();
        let work = Rc::clone(&self).run_to_its_end(run.clone(), settings, wish);
        let done = catch_panic(Code::RunFailed, "The run was ended", work).await;
        let (mut outcome, mut result) = done.unwrap_or_else(|failure| run::fail(&self.spec.state, &run, failure));
        match self.keep_run(&run, &folder).await {
            Ok(stored) => result.stored = stored,
            Err(failure) => {
                if outcome == Outcome::Succeeded {
                    outcome = Outcome::Failed;
                }
                result.failure = result.failure.or(Some(failure));
            }
        }
        if let Some(failure) = &result.failure {
            tracing::warn!(
                run,
                fault = failure.error.as_str(),
                cause = failure.message,
                "the run has failed"
            );
        }
        self.look_for_by_hand(&run).await;
        self.report_refused();
        let result = RunResult {
            failure: result.failure.map(report::bound),
            ..result
        };
        self.say(AgentReport::RunDone { run, outcome, result });
    }

    async fn run_to_its_end(self: Rc<Self>, run: String, settings: Settings, wish: RunWish) -> (Outcome, RunResult) {
        let path = run::folder(&self.spec.state, &run).join("logs.txt");
        let is_canceled = self.stopped.borrow_mut().remove(&run);
        if let Some(failure) = is_canceled {
            let (_, result) = run::fail(&self.spec.state, &run, failure);
            return (Outcome::Canceled, result);
        }
        let output = match Output::begin(&run, path, self.reports.clone()) {
            Ok(output) => output,
            Err(error) => {
                let failure = disk::name_full_disk(&self.spec.state, disk::io_failure(&error));
                return run::fail(&self.spec.state, &run, failure);
            }
        };
        let (outcome, result) = match self.living_runner().await {
            Ok(runner) => match self.work(&runner, &settings, &wish).await {
                Ok(work) => run::run(&self.folders, &runner, &run, work, &wish, &output).await,
                Err(failure) => run::fail(&self.spec.state, &run, failure),
            },
            Err(failure) => run::fail(&self.spec.state, &run, failure),
        };
        let stopped = self.stopped.borrow_mut().remove(&run);
        match stopped {
            Some(failure) => {
                let outcome = match failure == lifecycle::session::canceled() {
                    true => Outcome::Canceled,
                    false => Outcome::Failed,
                };
                let failure = Some(run::with_log(failure, &output.path));
                (outcome, RunResult { failure, ..result })
            }
            None => (outcome, result),
        }
    }

    /// The keeper of the connections of the session's user: the service, if it is known where it
    /// is, else this machine.
    fn keeper(&self) -> Option<Box<dyn Keeper>> {
        match self.service() {
            Some(service) => Some(Box::new(service)),
            None => Some(Box::new(self.spec.holder.clone()?)),
        }
    }

    fn service(&self) -> Option<Service> {
        Some(Service {
            url: self.spec.service.clone()?,
            flow: self.spec.flow.clone(),
            generation: self.spec.generation,
            key: self.key.clone(),
        })
    }

    /// Opens what a run works on: the flow folder, and the data.
    async fn work(&self, runner: &Runner, settings: &Settings, wish: &RunWish) -> Result<run::Work, Failure> {
        let data = match &wish.data {
            Some(data) => Some(patiently(|| self.flows.open_file(&self.spec.flow, data)).await?),
            None => None,
        };
        let flow = self.open(&settings.folder.value).await?;
        Ok(run::Work {
            flow,
            data,
            keeper: self.keeper(),
            service: self.service(),
            broker: Broker {
                providers: Arc::clone(&self.providers),
                at: runner.finds(self.providers.address()),
            },
        })
    }
}
