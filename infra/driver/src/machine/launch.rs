//! The launch of a session on one machine: its agent's process, and why there may be none.

use super::{
    Machine,
    files::Launched,
    tidy::{BEFORE_REMOVAL, GONE},
};
use crate::compute::Launch;
use agent::{AgentSpec, Told, connections::Holder, disk};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::{Code, Failure, Millis, Slot, agent::public_half, names};
use ed25519_dalek::SigningKey;
use environments::{rooted, store};
use sandbox::{descriptors, process::Identity};
use std::{
    fs, io,
    path::Path,
    process::Stdio,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

/// The longest time that an agent may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(8);

/// The time that a launch waits for the removal of what is over when there is no room.
const FOR_ROOM: Duration = Duration::from_secs(10);

/// The time that a launch waits for the registry of its base image. A stop waits for the launch;
/// after this the agent finds out what is wrong.
const FOR_REGISTRY: Duration = Duration::from_secs(3);

/// The time from a launch to the start of the next one's agent: what was launched has the processor
/// first.
const AFTER_LAUNCH: Duration = Duration::from_millis(100);

impl Machine {
    /// Starts the agent of a generation, if it is not there already.
    pub(super) async fn launch(self: &Arc<Self>, launch: Launch) -> anyhow::Result<Result<String, Option<Failure>>> {
        let (flow, generation) = (launch.flow.as_str(), launch.generation);
        let there = self.files.read_launched(flow, generation)?;
        if let Some(launched) = there.filter(|launched| launched.up && launched.process.open().is_some()) {
            return Ok(Ok(launched.key));
        }
        if let Some(failure) = self.refusal(&launch).await? {
            self.take_down(flow, generation).await?;
            return Ok(Err(Some(failure)));
        }
        // An older one that is still there has lost its place.
        let generations = self.files.generations(flow).into_iter();
        for older in generations.filter(|older| *older <= generation) {
            self.end(flow, older).await?;
        }
        let failure = match self.spawn(&launch).await {
            Ok(key) if self.files.last_removed(flow)? < generation => return Ok(Ok(key)),
            Ok(_) => None,
            Err(error) => {
                let log = self.files.log(flow, generation);
                let message = format!(
                    "The session's agent did not start: {error:#}. Its log is {}. Start the session again.",
                    log.display()
                );
                Some(Failure::new(Code::SessionLaunchFailed, message))
            }
        };
        self.take_down(flow, generation).await?;
        Ok(Err(failure))
    }

    /// The failure of a launch of this session on this machine, if it cannot be.
    async fn refusal(&self, launch: &Launch) -> anyhow::Result<Option<Failure>> {
        if self.files.last_removed(&launch.flow)? >= launch.generation {
            return Ok(Some(Failure::new(
                Code::SessionRemoved,
                "This session was removed before it could be launched. Start it again.",
            )));
        }
        if let Some(failure) = self.no_image(launch.settings.image.value.as_deref()).await? {
            return Ok(Some(failure));
        }
        if now() > launch.until {
            return Ok(Some(Failure::new(
                Code::SessionLaunchTooLate,
                "The machine was asked too late to launch the session. Start it again.",
            )));
        }
        if !self.files.compute(&launch.compute)?.is_dir() {
            return Ok(Some(Failure::new(
                Code::SessionNoCompute,
                format!(
                    "The compute resource {} is gone. Start the session again.",
                    launch.compute
                ),
            )));
        }
        match no_gpu(&launch.settings.size.value, Path::new("/dev")) {
            Some(failure) => Ok(Some(failure)),
            None => Ok(self.make_room().await),
        }
    }

    /// The failure of a session's base image, if its registry says so soon.
    async fn no_image(&self, image: Option<&str>) -> anyhow::Result<Option<Failure>> {
        let Some(name) = image.map(str::to_owned) else {
            return Ok(None);
        };
        let (state, python) = (self.config.state.clone(), self.python());
        let check =
            tokio::task::spawn_blocking(move || rooted::check(&state, &store::folder(&state), &name, python).err());
        match tokio::time::timeout(FOR_REGISTRY, check).await {
            Ok(failure) => Ok(failure?),
            Err(_) => Ok(None),
        }
    }

    /// Waits for the removal of what is over, if the disk is as good as full. Why nothing can be
    /// launched if it stays so.
    async fn make_room(&self) -> Option<Failure> {
        let until = Instant::now() + FOR_ROOM;
        loop {
            let failure = disk::refusal(&self.config.state)?;
            let is_more_over = fs::read_dir(self.config.state.join(GONE)).is_ok_and(|mut gone| gone.next().is_some());
            if !is_more_over || Instant::now() > until {
                return Some(failure);
            }
            self.over.notify_one();
            tokio::time::sleep(BEFORE_REMOVAL).await;
        }
    }

    /// Starts an agent, and gives back the public half of its key once it is up.
    async fn spawn(self: &Arc<Self>, launch: &Launch) -> anyhow::Result<String> {
        let (flow, generation) = (launch.flow.as_str(), launch.generation);
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let spec = self.spec(launch, &secret).await?;
        let mut child = self.agent()?;
        let ended = || anyhow::anyhow!("it ended at once");
        let process = child.id().and_then(|pid| Identity::of(pid as i32)).ok_or_else(ended)?;
        // It does nothing before it has its specification: from here on it is known, whoever
        // crashes.
        let mut launched = Launched {
            process,
            key: public_half(&SigningKey::from_bytes(&secret)),
            compute: launch.compute.clone(),
            folder: Some(launch.settings.folder.value.clone().into()),
            up: false,
        };
        self.files.write_launched(flow, generation, &launched)?;
        let mut line = serde_json::to_vec(&Told::Session(Box::new(spec)))?;
        line.push(b'\n');
        let mut stdin = child.stdin.take().ok_or_else(ended)?;
        stdin.write_all(&line).await?;
        stdin.flush().await?;
        drop(stdin);
        let mut word = String::new();
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(ended)?);
        tokio::time::timeout(FIRST_WORD, stdout.read_line(&mut word))
            .await
            .map_err(|_| anyhow::anyhow!("it said nothing within {} s", FIRST_WORD.as_secs()))??;
        anyhow::ensure!(word.trim() == "up", "it ended before it was up");
        launched.up = true;
        self.files.write_launched(flow, generation, &launched)?;
        self.watch(flow, generation, process, Some(child));
        let machine = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(AFTER_LAUNCH).await;
            if let Some(machine) = machine.upgrade() {
                machine.have_one_waiting();
            }
        });
        Ok(launched.key)
    }

    /// All that the agent of a session is told. Makes its folder, its queue, its credentials and
    /// its log.
    async fn spec(self: &Arc<Self>, launch: &Launch, secret: &[u8; 32]) -> anyhow::Result<AgentSpec> {
        let (flow, generation) = (launch.flow.as_str(), launch.generation);
        let config = &self.config;
        let session = self.files.session(flow, generation);
        fs::create_dir_all(&session)?;
        let queue = names::agent_queue(flow, generation);
        config.ports.create_queue(&queue).await?;
        let credentials = config.ports.issue_agent_credentials(flow, generation).await?;
        let machine = Arc::clone(self);
        let python = tokio::task::spawn_blocking(move || machine.python()).await?;
        let log = self.files.log(flow, generation);
        fs::File::create(&log)?;
        Ok(AgentSpec {
            flow: flow.to_owned(),
            service: config.service.clone(),
            holder: Some(Holder {
                workspace: launch.workspace.clone(),
                user: launch.owner.clone(),
            }),
            image: None,
            generation,
            settings: launch.settings.clone(),
            state: config.state.clone(),
            session,
            endpoint: config.endpoint.clone(),
            region: config.region.clone(),
            queue_url: format!("{}{queue}", config.agent_queue_prefix),
            reports_queue_url: config.reports_queue_url.clone(),
            credentials: Some(credentials),
            private_key: BASE64.encode(secret),
            python,
            places: self.places().to_vec(),
            user: self.user(&launch.compute)?,
            has_snapshots: config.has_snapshots,
            log: Some(log),
        })
    }

    /// The user of a compute resource's sessions on this machine, if this is root.
    fn user(&self, compute: &str) -> anyhow::Result<Option<u32>> {
        let slot: Slot = serde_json::from_slice(&fs::read(self.files.compute(compute)?.join("slot.json"))?)?;
        sandbox::ids::of(
            &self.config.state,
            &serde_json::to_string(&[slot.workspace, slot.owner])?,
        )
    }

    /// An agent's process that has not been told yet whose it is: the one that waits, else a new
    /// one.
    fn agent(&self) -> io::Result<Child> {
        let waiting = self.waiting().take();
        match waiting.and_then(|mut child| child.try_wait().is_ok_and(|ended| ended.is_none()).then_some(child)) {
            Some(child) => Ok(child),
            None => self.start_agent(),
        }
    }

    pub(super) fn start_agent(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.config.executable);
        command
            .arg("agent")
            .env_clear()
            .envs(environments::kept_variables())
            .envs(own_variables())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // Of a session and a group of its own, so that what ends the host does not end it.
        descriptors::keep_only(descriptors::detach(command.as_std_mut()), &[]);
        command.spawn()
    }

    /// Has an agent's process wait for the next launch, which then need not wait for it. It ends by
    /// itself when this driver has gone.
    pub(super) fn have_one_waiting(&self) {
        if self.waiting().is_some() {
            return;
        }
        match self.start_agent() {
            Ok(child) => drop(self.waiting().get_or_insert(child)),
            // The launch that needs one says why there is none.
            Err(error) => tracing::warn!(%error, "no agent can be started ahead"),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Child>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The environment variables of the host that an agent sees, beside those of installers.
fn own_variables() -> impl Iterator<Item = (String, String)> {
    let kept = |name: &str| {
        matches!(
            name,
            "PATH"
                | "HOME"
                | "LANG"
                | "TZ"
                | "RUST_BACKTRACE"
                | "PFSESSION_PYTHON"
                | "PFSESSION_LOG"
                | "AWS_ENDPOINT_URL"
                | "AWS_ENDPOINT_URL_S3"
        ) || name == store::FOLDER
    };
    std::env::vars().filter(move |(name, _)| kept(name))
}

fn now() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// The failure of a launch of this size on this machine: the size has GPUs, and the machine none.
///
/// * `devices`: the folder of the machine's devices.
fn no_gpu(size: &str, devices: &Path) -> Option<Failure> {
    let gpu = lifecycle::size::size(size)?.gpu?;
    let is_there = ["nvidiactl", "kfd", "dxg"]
        .iter()
        .any(|name| devices.join(name).exists());
    let message = format!(
        "The VM size {size} has {} {}, and this machine has no GPU. Start the session with a size without one: `local` is all of this machine.",
        gpu.count, gpu.model
    );
    (!is_there).then(|| Failure::new(Code::SessionNoGpu, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_with_gpus_is_refused_only_where_the_machine_has_none() {
        let devices = tempfile::tempdir().unwrap();
        let refused = |size: &str| no_gpu(size, devices.path()).map(|failure| failure.to_string());
        expect_test::expect!["Session.NoGpu: The VM size Standard_NC4as_T4_v3 has 1 T4, and this machine has no GPU. Start the session with a size without one: `local` is all of this machine."].assert_eq(&refused("Standard_NC4as_T4_v3").unwrap());
        assert_eq!([refused("local"), refused("m6i.xlarge")], [None, None]);
        fs::write(devices.path().join("nvidiactl"), "").unwrap();
        assert_eq!(refused("Standard_NC4as_T4_v3"), None);
    }
}
