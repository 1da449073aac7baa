//! Installs: brings the session to what its requirements say, or to a lock.

use super::Agent;
use crate::{contained::catch_panic, disk, output::Output, report, write_atomically};
use contract::{
    Code, Failure, Settings,
    agent::{AgentReport, LineKind},
    command::is_good_id,
    packages::{ByHand, Installation, LeftOut, Listed, Setup},
};
use environments::{packages, reach::Reach};
use std::{cell::Cell, io, rc::Rc};
use tokio::task::spawn_local;

/// The target of an install: a lock, else the requirements, if need be resolved anew.
pub(super) struct Packages {
    pub(super) lock: Option<String>,
    pub(super) resolve: bool,
}

/// An install under way.
pub(super) struct Installing {
    pub(super) operation: String,
    attempt: Rc<Cell<u32>>,
    pub(super) task: tokio::task::AbortHandle,
}

impl Agent {
    pub(super) fn take_install(
        self: &Rc<Self>,
        operation: String,
        attempt: u32,
        settings: Settings,
        packages: Packages,
    ) {
        if !is_good_id(&operation) {
            return;
        }
        // A change before its queue was there is in these. A later one has come, or will come, by a
        // message of its own.
        if self.network_revision.get().is_none() {
            self.reach(Reach::of(&settings));
        }
        if let Some((done, report)) = self.installed.borrow().as_ref()
            && *done == operation
        {
            let mut again = report.clone();
            if let AgentReport::Installed { attempt: before, .. } = &mut again {
                *before = attempt.max(*before);
            }
            // A later attempt is another try; the same one has the same end.
            if !matches!(again, AgentReport::InstallFailed { attempt: before, .. } if attempt > before) {
                return self.say(again);
            }
        }
        let mut install = self.install.borrow_mut();
        if let Some(under_way) = install.as_ref() {
            if under_way.operation == operation {
                under_way.attempt.set(attempt.max(under_way.attempt.get()));
                return;
            }
            under_way.task.abort();
        }
        let attempt = Rc::new(Cell::new(attempt));
        let work = Rc::clone(self).install_and_report(operation.clone(), settings, packages, Rc::clone(&attempt));
        let task = spawn_local(work);
        *install = Some(Installing {
            operation,
            attempt,
            task: task.abort_handle(),
        });
    }

    /// * `counts`: the latest attempt that asked for it.
    async fn install_and_report(
        self: Rc<Self>,
        of: String,
        settings: Settings,
        packages: Packages,
        counts: Rc<Cell<u32>>,
    ) {
        let work = Rc::clone(&self).install(of.clone(), settings, packages);
        let done = catch_panic(Code::InstallCrashed, "The install was ended", work).await;
        let (result, setup) = done.unwrap_or_else(|failure| (Err(failure), None));
        let attempt = counts.get();
        let report = match result {
            Ok(installation) => AgentReport::Installed {
                operation: of.clone(),
                attempt,
                warning: None,
                installation: Some(Box::new(installation)),
                setup,
            },
            Err(failure) => {
                tracing::warn!(
                    operation = of,
                    fault = failure.error.as_str(),
                    cause = failure.message,
                    "the install has failed"
                );
                AgentReport::InstallFailed {
                    operation: of.clone(),
                    attempt,
                    failure: report::bound(failure),
                    setup,
                }
            }
        };
        self.install.borrow_mut().take();
        *self.installed.borrow_mut() = Some((of, report.clone()));
        self.say(report);
    }

    /// Brings the session to what its requirements say now, or to a lock. Says how the program that
    /// did it ended, if one was needed.
    async fn install(
        self: Rc<Self>,
        operation: String,
        settings: Settings,
        packages: Packages,
    ) -> (Result<Installation, Failure>, Option<Setup>) {
        let path = self.spec.state.join("logs").join(format!("{operation}.txt"));
        let output = match Output::begin(&operation, path, self.reports.clone()) {
            Ok(output) => output,
            Err(error) => {
                let text = format!("The state folder cannot be written: {error}. Put that right, and start again.");
                let full = disk::refusal(&self.spec.state).filter(|_| error.kind() == io::ErrorKind::StorageFull);
                return (
                    Err(full.unwrap_or_else(|| Failure::new(Code::InstallFailed, text))),
                    None,
                );
            }
        };
        let store = self.store.borrow().clone();
        if let Some(store) = store {
            store.ended.take();
        }
        let result = self.install_with(&settings, packages, &output).await;
        output.flush();
        let ended = self.store.borrow().as_ref().and_then(|store| store.ended.take());
        let setup = ended.map(|exit_code| {
            report::bound_setup(Setup {
                command: "uv".into(),
                exit_code,
                tail: output.tail(),
            })
        });
        (result, setup)
    }

    async fn install_with(
        &self,
        settings: &Settings,
        Packages { lock, resolve }: Packages,
        output: &Rc<Output>,
    ) -> Result<Installation, Failure> {
        let log = output.path.display().to_string();
        let say = |kind: LineKind, text: String| output.say(kind, &text);
        let store = self.store(Some(&say)).await?;
        let read = match self.read_environment(settings).await {
            // What is wrong with the requirements now says nothing of a lock; they only name the
            // indexes that it may need.
            Err(_) if lock.is_some() => flow::Environment::default(),
            read => read?,
        };
        let described = read.described.to_line();
        if let Some(line) = &described {
            say(LineKind::Stage, line.clone());
        }
        let lines = read.requirements.map(|found| found.lines).unwrap_or_default();
        if store.find_base().is_none() {
            // The runtime is loaded while the flow's own packages are still on their way.
            let base = store.get(&[], false, &say, &log).await?;
            self.ensure_warm(&store, &base);
        }
        let lock = lock.filter(|lock| {
            let fits = store.is_on_this_root(lock);
            if !fits {
                say(
                    LineKind::Stage,
                    "the image has changed: resolving the requirements anew".into(),
                );
            }
            fits
        });
        let environment = match &lock {
            Some(lock) => store.get_locked(lock, &lines, &say, &log).await?,
            None => store.get(&lines, resolve, &say, &log).await?,
        };
        let _changing = self.changing.lock().await;
        let mut why = String::new();
        for _ in 0..2 {
            match self.have_runner(&store, &environment).await {
                Ok(()) => {
                    *self.described.borrow_mut() = described;
                    let listed = lock.is_none().then(|| store.list_packages(&environment, &lines));
                    return Ok(self.installation(&environment.key, listed).await);
                }
                Err(error) => why = error,
            }
        }
        Err(Failure::new(
            Code::InstallFailed,
            format!(
                "The packages are there, and the session's sandbox could not be started: {why}. See {log} and the agent's log."
            ),
        ))
    }

    /// Records the installed packages, by the next count.
    async fn installation(&self, lock: &str, listed: Option<Listed>) -> Installation {
        let by_hand = self.by_hand().await;
        self.count.set(self.count.get() + 1);
        *self.reported.borrow_mut() = Some((lock.to_owned(), by_hand.clone()));
        let mut installation = Installation {
            count: self.count.get(),
            lock: lock.to_owned(),
            listed,
            by_hand,
            isolation: self.runner.borrow().as_ref().map(|runner| runner.isolation.clone()),
            left_out: None,
            described: self.described.borrow().clone(),
        };
        let whole = serde_json::to_vec_pretty(&installation).unwrap_or_default();
        if let Some(count) = report::cut_installation(&mut installation) {
            let name = format!(
                "packages-{}-{}-{}.json",
                self.spec.flow, self.spec.generation, installation.count
            );
            let file = self.spec.state.join("logs").join(name);
            let kept = write_atomically(&file, &whole);
            if let Err(error) = &kept {
                tracing::error!(%error, file = %file.display(), "all that is installed cannot be written");
            }
            let file = kept.is_ok().then(|| file.display().to_string());
            installation.left_out = Some(LeftOut { count, file });
        }
        installation
    }

    async fn by_hand(&self) -> Vec<ByHand> {
        let Some(written) = self.runner.borrow().as_ref().map(|runner| runner.written.clone()) else {
            return Vec::new();
        };
        // A session may have made any number of them.
        let read = tokio::task::spawn_blocking(move || packages::by_hand(&written)).await;
        read.inspect_err(|error| tracing::error!(%error, "the packages installed by hand are not known"))
            .unwrap_or_default()
    }

    /// Reports what a run has installed or taken away, if it has.
    pub(super) async fn look_for_by_hand(&self, run: &str) {
        let by_hand = self.by_hand().await;
        let lock = match self.reported.borrow().as_ref() {
            Some((lock, known)) if *known != by_hand => lock.clone(),
            _ => return,
        };
        let installation = Box::new(self.installation(&lock, None).await);
        let run = run.to_owned();
        self.say(AgentReport::Packages { run, installation });
    }
}
