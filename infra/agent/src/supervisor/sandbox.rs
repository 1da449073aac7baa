//! The session's store and its sandbox, which one change at a time replaces.

use super::Agent;
use crate::{
    clock::boot_time,
    run::MOST_AHEAD,
    runner::{Runner, Start},
    warm, write_atomically,
};
use contract::{
    Code, Failure,
    agent::{AgentReport, LineKind},
};
use environments::{
    Environment, Say, image, rooted,
    store::{Store, folder as store_folder},
};
use sandbox::python::Python;
use snapshots::Opened;
use std::{rc::Rc, time::Duration};
use tokio::task::spawn_local;

/// The shortest time between two looks for a newer image, in milliseconds.
const BETWEEN_LOOKS: u64 = 600_000;

impl Agent {
    /// Has a runner ready by the time the first install asks for it, when its packages are there
    /// already.
    pub(super) async fn prepare(self: Rc<Self>) {
        let _changing = self.changing.lock().await;
        let Ok(store) = self.store(None).await else { return };
        let Ok(read) = self.read_environment(&self.spec.settings).await else {
            return;
        };
        let lines = read.requirements.map(|found| found.lines).unwrap_or_default();
        if let Some(environment) = store.find(&lines)
            && let Err(why) = self.have_runner(&store, &environment).await
        {
            tracing::warn!(why, "no sandbox yet");
        }
    }

    /// The store on the session's base image, which is resolved once.
    ///
    /// * `say`: told of an image on its way; without it, one that is not here is not waited for.
    pub(super) async fn store(&self, say: Option<Say<'_>>) -> Result<Rc<Store>, Failure> {
        if let Some(store) = self.store.borrow().as_ref() {
            return Ok(Rc::clone(store));
        }
        let opened = self.open(&self.spec.settings.folder.value).await?;
        // Somebody else may have been faster.
        if let Some(store) = self.store.borrow().as_ref() {
            return Ok(Rc::clone(store));
        }
        let store = self.open_store(&opened, say).await?;
        let store = Rc::new(store);
        // Somebody else may have been faster, and one image counts for the whole generation.
        if let Some(known) = self.store.borrow().as_ref() {
            return Ok(Rc::clone(known));
        }
        if let Some(root) = store.root.as_ref().filter(|root| !root.digest.is_empty()) {
            self.say(AgentReport::Image {
                digest: root.digest.clone(),
                latest: None,
            });
        }
        *self.store.borrow_mut() = Some(Rc::clone(&store));
        Ok(store)
    }

    /// Opens the store on the base image that the settings or the folder name.
    async fn open_store(&self, opened: &Opened, say: Option<Say<'_>>) -> Result<Store, Failure> {
        let named = match &self.spec.settings.image.value {
            // In a container of its own the image is what it runs in, and what is added to it is
            // what the folder needs.
            _ if self.place.is_container() => opened.default_image().await?.to_owned(),
            Some(image) => image.clone(),
            None => opened.base_image().await?.value,
        };
        let mut constraints = opened.python_constraints().await?;
        // A container is an image that somebody named.
        constraints.retain(|each| !each.is_pin || !self.place.is_container());
        let python = match image::names_python(&named) {
            true => self.spec.python.clone(),
            false => Some(image::choose_python(self.spec.python.clone(), &constraints)?),
        };
        let (base, python, image) = match image::find(&named, python)? {
            image::Found::BuiltIn(base, python) => (base, python, None),
            image::Found::Image(name) => {
                let base = image::of_kind(opened.default_image().await?);
                let machine = self.spec.python.clone().map_or_else(Python::find, Ok)?;
                (base, machine, Some(name))
            }
        };
        let mut store = Store::open(&self.spec.state, base, python).map_err(|error| {
            let place = self.spec.state.display();
            Failure::new(
                Code::InstallFailed,
                format!("The state folder {place} cannot be written: {error}. Put that right, and start again."),
            )
        })?;
        // The container is the sandbox.
        store.namespaces.set(!self.place.is_container());
        *store.reach.borrow_mut() = self.reach.borrow().clone();
        store.counts = self.counts.clone();
        if self.place.is_container() {
            let (name, digest) = self.image_of_container();
            store.root_of_container(name, digest).await?;
        } else if let Some(name) = image {
            let here = rooted::is_here(&store_folder(&self.spec.state), &name);
            let Some(say) = say.or(here.then_some(&|_, _| {})) else {
                return Err(Failure::new(Code::ImageNotHere, "the image is not here yet"));
            };
            store.root_in(&name, &|text| say(LineKind::Stage, text)).await?;
        }
        if store.root.as_ref().is_none_or(|root| root.has_python()) {
            image::check_python(&named, &store.python, &constraints)?;
        }
        Ok(store)
    }

    /// The name of this container's image, and its digest if its maker told it.
    fn image_of_container(&self) -> (String, String) {
        let told = self.spec.image.clone().unwrap_or_default();
        let digest = told.rsplit_once('@').map(|(_, digest)| digest.to_owned());
        let name = match told.is_empty() {
            true => "of this container".to_owned(),
            false => told,
        };
        (name, digest.unwrap_or_default())
    }

    /// Looks beside a run whether the base image's name stands for another image by now, at most
    /// once in [`BETWEEN_LOOKS`].
    pub(super) fn look_for_newer_image(self: &Rc<Self>) {
        let store = self.store.borrow().clone();
        let is_due = self.looked.get().is_none_or(|at| boot_time() >= at + BETWEEN_LOOKS);
        let root = store.as_ref().and_then(|store| store.sandbox_root());
        let Some(root) = root.filter(|_| is_due) else {
            return;
        };
        self.looked.set(Some(boot_time()));
        let (name, digest, state) = (root.name.clone(), root.digest.clone(), self.spec.state.clone());
        let agent = Rc::clone(self);
        spawn_local(async move {
            let looked = tokio::task::spawn_blocking(move || rooted::look(&state, &name)).await;
            match looked {
                Ok(Ok(Some(latest))) if latest != digest => agent.say(AgentReport::Image {
                    digest,
                    latest: Some(latest),
                }),
                Ok(Err(failure)) => tracing::debug!(
                    cause = failure.message,
                    "it is not known whether the image is the newest"
                ),
                _ => {}
            }
        });
    }

    /// Has a warm process for later sandboxes, if there can be one.
    pub(super) fn ensure_warm(&self, store: &Store, environment: &Environment) {
        let kind = warm::Kind::of(store, environment);
        if let Err(error) = warm::ensure(&self.spec.state, store, kind, &self.spec.places, self.spec.user) {
            tracing::warn!(%error, "the warm process cannot be started");
        }
    }

    /// Puts a runner over `environment` in the place of the one that there is, if that is another
    /// one's. Runs in progress end where they are.
    pub(super) async fn have_runner(&self, store: &Store, environment: &Environment) -> Result<(), String> {
        let old = self.runner.borrow().clone();
        let reach = self.reach.borrow().clone();
        if old
            .as_ref()
            .is_some_and(|runner| runner.environment == *environment && !runner.is_dead() && runner.fits(&reach))
        {
            return Ok(());
        }
        let limits = lifecycle::size::size(&self.spec.settings.size.value).and_then(|size| size.limits);
        let start = Start {
            folders: &self.folders,
            store,
            environment,
            places: &self.spec.places,
            limits,
            user: self.spec.user,
            reach: &reach,
            counts: &self.counts,
            door: self.providers.address(),
        };
        let mut runner = start.start().await?;
        if let Some(runner) = Rc::get_mut(&mut runner) {
            let closed = runner.isolation.clone();
            runner.isolation = self.place.isolation(closed, &reach, store.sandbox_root().is_some());
        }
        self.ensure_warm(store, environment);
        tracing::info!(isolation = %runner.isolation, from_warm = runner.from_warm, environment = environment.key, "the sandbox is closed");
        let isolation = serde_json::to_vec(&runner.isolation).unwrap_or_default();
        if let Err(error) = write_atomically(&self.folders.session.join("isolation.json"), &isolation) {
            tracing::warn!(%error, "isolation.json cannot be written");
        }
        // It may have changed meanwhile.
        runner.set_reach(&self.reach.borrow());
        *self.runner.borrow_mut() = Some(Rc::clone(&runner));
        self.expect_runs(runner).await;
        if let Some(old) = old {
            spawn_local(end_after_its_runs(old));
        }
        Ok(())
    }

    /// Has a runner read the flow's file before the first run asks for it. Without it, that run
    /// takes longer.
    async fn expect_runs(&self, runner: Rc<Runner>) {
        if let Ok(opened) = self.open(&self.spec.settings.folder.value).await {
            spawn_local(async move {
                if let Ok(Some(definition)) = opened.definition(MOST_AHEAD).await {
                    let _ = runner.expect(&definition).await;
                }
            });
        }
    }

    /// The session's runner; a new one if the old one has ended.
    pub(super) async fn living_runner(&self) -> Result<Rc<Runner>, Failure> {
        let _changing = self.changing.lock().await;
        let runner = self.runner.borrow().clone();
        let Some(runner) = runner else {
            return Err(Failure::new(
                Code::RunNotReady,
                "The session has no packages yet. Run again when it is Ready.",
            ));
        };
        let fits = runner.fits(&self.reach.borrow());
        if !runner.is_dead() && fits {
            return Ok(runner);
        }
        let store = self.store(None).await?;
        self.have_runner(&store, &runner.environment).await.map_err(|why| {
            Failure::new(
                Code::RunCrashed,
                format!("The session's sandbox has ended and could not be started again: {why}. Reset the session."),
            )
        })?;
        Ok(self.runner.borrow().clone().unwrap_or(runner))
    }
}

async fn end_after_its_runs(runner: Rc<Runner>) {
    while runner.runs() > 0 && !runner.is_dead() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    runner.end().await;
}
