//! The compute driver of one machine: a compute resource is a folder, and a session an agent
//! process with its sandbox.
//!
//! | path below the state folder | what |
//! | --- | --- |
//! | `computes/{id}/` | a compute resource |
//! | `sessions/{flow}/removed` | the highest generation that was removed: it is never launched again |
//! | `sessions/{flow}/{generation}/agent.json` | which process its agent is, and the public half of its key |
//! | `logs/agent-{flow}-{generation}.log` | what its agent says; it outlives the session |
//!
//! A crash of the host leaves the agents as they are. [`ComputeDriver::recover`] finds them again;
//! a launch that was cut off is undone, as its request is not done and comes again.

mod end;
mod files;
mod launch;
mod tidy;

use crate::{
    compute::{Answer, ComputeDriver, DriverConfig, Launch},
    trust,
};
use agent::{
    folders::identity,
    warm::{self, Kind},
};
use contract::{
    Failure, Slot,
    driver::{DriverReport, Room},
};
use environments::store;
use files::Files;
use sandbox::{
    files::write_atomically,
    groups::{self, Place},
    python::Python,
    removal,
};
use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use tidy::{GONE, keep_tidy};
use tokio::{process::Child, sync::Notify};

/// The compute driver of one machine.
pub(crate) struct Machine {
    config: DriverConfig,
    files: Files,
    /// Which folder the state folder is.
    place: Option<(u64, u64)>,
    /// One change of a flow's session at a time.
    flows: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// The agents that are watched.
    watched: Mutex<HashSet<(String, u32)>>,
    /// The agent of the next launch. It knows nothing yet, and ends when its standard input does.
    waiting: Mutex<Option<Child>>,
    python: OnceLock<Option<Python>>,
    /// The places where groups can be made.
    places: OnceLock<Vec<Place>>,
    /// Rung when something waits for its removal.
    over: Arc<Notify>,
}

impl Machine {
    /// Opens the driver over its part of the state folder. Nothing is looked at yet.
    ///
    /// # Errors
    ///
    /// When the state folder or the store cannot be written, or others can write them. Final until
    /// that is put right.
    pub(crate) fn open(config: DriverConfig) -> anyhow::Result<Arc<Self>> {
        let store = store::folder(&config.state);
        for folder in [&config.state, &store] {
            trust::check_path(folder).map_err(anyhow::Error::msg)?;
        }
        trust::private_folder(&config.state)?;
        // The store's own folder may be one that has other things too.
        for folder in ["environments", "tools"] {
            trust::private_folder(&store.join(folder))?;
        }
        for folder in [
            "computes",
            "sessions",
            GONE,
            "environments",
            "runs",
            "tools",
            "warm",
            "logs",
        ] {
            fs::create_dir_all(config.state.join(folder))?;
        }
        // The warm process serves every client of its socket, and what flows work on is nobody
        // else's.
        for folder in ["sessions", GONE, "runs", "warm", "logs"] {
            fs::set_permissions(config.state.join(folder), fs::Permissions::from_mode(0o700))?;
        }
        let place = identity(&config.state)?;
        Ok(Arc::new(Self {
            files: Files {
                state: config.state.clone(),
            },
            config,
            place,
            flows: Mutex::default(),
            watched: Mutex::default(),
            waiting: Mutex::default(),
            python: OnceLock::new(),
            places: OnceLock::new(),
            over: Arc::default(),
        }))
    }

    /// Refuses to go on in a folder that another host may have by now.
    fn check_place(&self) -> anyhow::Result<()> {
        let state = &self.config.state;
        anyhow::ensure!(
            identity(state)? == self.place,
            "the state folder {} was taken away",
            state.display()
        );
        Ok(())
    }

    /// Watches the agents that outlived the host, reports those that died meanwhile, and removes
    /// what they left.
    async fn find_again(self: &Arc<Self>) {
        for (flow, generation) in self.files.sessions() {
            let lock = self.lock(&flow);
            let _held = lock.lock().await;
            let result = self.find_again_one(&flow, generation).await;
            if let Err(error) = result {
                tracing::error!(
                    flow,
                    generation,
                    error = format!("{error:#}"),
                    "what a session left could not be removed"
                );
            }
        }
        groups::sweep(self.places());
        let driver = Arc::clone(self);
        // Nobody waits for it: it is what makes the next start and run quick.
        tokio::task::spawn_blocking(move || driver.warm_up());
        self.have_one_waiting();
        tokio::spawn(keep_tidy(Arc::downgrade(self), Arc::clone(&self.over)));
    }

    async fn find_again_one(self: &Arc<Self>, flow: &str, generation: u32) -> anyhow::Result<()> {
        let launched = self.files.read_launched(flow, generation)?;
        match launched.filter(|launched| launched.up) {
            Some(launched) if launched.process.open().is_some() => {
                tracing::info!(flow, generation, "an agent outlived the host");
                self.watch(flow, generation, launched.process, None);
                Ok(())
            }
            Some(_) => {
                let failure = self.failure_of_agent(flow, generation);
                self.remove(flow, generation, Some(failure)).await
            }
            // A launch that was cut off: its request comes again.
            None => self.end(flow, generation).await,
        }
    }

    /// Looked for once. A caller that misses it looks again, and reports the reason.
    fn python(&self) -> Option<Python> {
        self.python.get_or_init(|| Python::find().ok()).clone()
    }

    fn places(&self) -> &[Place] {
        self.places.get_or_init(groups::places)
    }

    fn warm_up(&self) {
        let Some(python) = self.python() else { return };
        let store = match store::Store::open(&self.config.state, &environments::image::PROMPTFLOW, python) {
            Ok(store) => store,
            Err(error) => return tracing::warn!(%error, "the environments cannot be opened"),
        };
        if let Some(base) = store.find_base()
            && let Some(user) = self.next_user()
            && let Err(error) = warm::ensure(&self.config.state, &store, Kind::Loaded(&base.key), self.places(), user)
        {
            tracing::warn!(%error, "the warm process cannot be started");
        }
    }

    /// The user of the next session on this machine, as far as that can be known: the only user
    /// that there was.
    fn next_user(&self) -> Option<Option<u32>> {
        if !sandbox::ids::has_ids() {
            return Some(None);
        }
        match sandbox::ids::known_users(&self.config.state).as_slice() {
            [user] => Some(Some(*user)),
            _ => None,
        }
    }

    async fn release(self: &Arc<Self>, compute: &str) -> anyhow::Result<()> {
        let folder = self.files.compute(compute)?;
        for (flow, generation) in self.files.sessions() {
            let lock = self.lock(&flow);
            let _held = lock.lock().await;
            let launched = self.files.read_launched(&flow, generation)?;
            if launched.is_some_and(|launched| launched.compute == compute) {
                self.remove(&flow, generation, None).await?;
            }
        }
        Ok(removal::remove(&folder)?)
    }

    fn lock(&self, flow: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(flows.entry(flow.to_owned()).or_default())
    }
}

impl ComputeDriver for Machine {
    fn create_compute(
        self: Arc<Self>,
        compute: String,
        slot: Slot,
        _room: Option<Room>,
    ) -> Answer<'static, Result<(), String>> {
        Box::pin(async move {
            self.check_place()?;
            let folder = self.files.compute(&compute)?;
            fs::create_dir_all(&folder)?;
            write_atomically(&folder.join("slot.json"), &serde_json::to_vec(&slot)?)?;
            Ok(Ok(()))
        })
    }

    fn release_compute(self: Arc<Self>, compute: String) -> Answer<'static, ()> {
        Box::pin(async move {
            self.check_place()?;
            self.release(&compute).await
        })
    }

    fn launch_session(self: Arc<Self>, launch: Launch) -> Answer<'static, Result<String, Option<Failure>>> {
        Box::pin(async move {
            self.check_place()?;
            let lock = self.lock(&launch.flow);
            let _held = lock.lock().await;
            self.launch(launch).await
        })
    }

    fn check_image(self: Arc<Self>, flow: String, image: String) -> Answer<'static, Result<(), Failure>> {
        Box::pin(async move {
            self.check_place()?;
            let newest = self.files.generations(&flow).into_iter().max();
            let launched = newest.map(|generation| self.files.read_launched(&flow, generation));
            let folder = launched.transpose()?.flatten().and_then(|launched| launched.folder);
            let (state, python) = (self.config.state.clone(), self.python());
            let runtime = tokio::runtime::Handle::current();
            let have = move || runtime.block_on(environments::have_image(&state, &image, python, folder.as_deref()));
            Ok(tokio::task::spawn_blocking(have).await?)
        })
    }

    fn remove_session(self: Arc<Self>, flow: String, generation: u32, _compute: Option<String>) -> Answer<'static, ()> {
        Box::pin(async move {
            self.check_place()?;
            let lock = self.lock(&flow);
            let _held = lock.lock().await;
            self.take_down(&flow, generation).await
        })
    }

    fn recover(self: Arc<Self>) -> Answer<'static, ()> {
        Box::pin(async move {
            self.find_again().await;
            Ok(())
        })
    }

    fn sessions(&self) -> Vec<(String, u32)> {
        self.files.sessions()
    }

    fn end_all(self: Arc<Self>, why: Failure) -> Answer<'static, ()> {
        Box::pin(async move {
            for (flow, generation) in self.files.sessions() {
                let lock = self.lock(&flow);
                let _held = lock.lock().await;
                self.remove(&flow, generation, Some(why.clone())).await?;
            }
            for entry in fs::read_dir(self.config.state.join("computes"))?.flatten() {
                removal::remove(&entry.path())?;
                if let Ok(compute) = entry.file_name().into_string() {
                    let why = why.message.clone();
                    let gone = DriverReport::ComputeGone { compute, why };
                    self.config.ports.report(gone).await?;
                }
            }
            Ok(())
        })
    }

    fn let_go(&self) {
        agent::let_go(&self.config.state);
    }
}
