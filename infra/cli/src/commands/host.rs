//! The service on this machine, in this process.

use crate::{
    command::{Execute, NoJson},
    global::{Done, Service},
    parts::{start_log, user},
    service::Local,
    terminal::note,
    trouble::UNREACHABLE,
};
use clap::Args;
use std::{path::PathBuf, time::Duration};

/// Be the service.
#[derive(Args, Debug)]
#[command(hide = true)]
pub(crate) struct Host {
    /// Leave after this many seconds without a session
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle_exit: Option<u64>,
    /// Listen on this port of 127.0.0.1; without it, a free one
    #[arg(long)]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

/// Settings for tests of the service.
#[derive(Args, Debug)]
pub(crate) struct Trial {
    /// Faults to inject: seed=1,duplicate=0.1,kill-host@queue.sent=3
    #[arg(long, env = "PFSESSION_FAULTS", hide = true, value_name = "PLAN")]
    pub(crate) faults: Option<String>,
    /// The folder of the functions' own binaries; without it, this file is all of them
    #[arg(long, env = "PFSESSION_FUNCTIONS", hide = true, value_name = "FOLDER")]
    pub(crate) functions: Option<PathBuf>,
}

impl Execute for Host {
    type Json = NoJson;

    fn execute(&self, service: &Service<'_>) -> Done {
        Ok(serve(&service.local()?, self.idle_exit, self.port, &self.trial, true))
    }
}

/// Is the host, until it is told to leave. One that has another host's folder leaves at once, with
/// success.
///
/// * `idle_exit`: the seconds without a session after which it leaves.
/// * `detached`: it outlives the terminal of whoever started it.
pub(crate) fn serve(local: &Local, idle_exit: Option<u64>, port: Option<u16>, trial: &Trial, detached: bool) -> u8 {
    if detached {
        sandbox::descriptors::close_inherited();
        // Who leads a group of processes already has no terminal to leave.
        let _ = nix::unistd::setsid();
    }
    start_log();
    match run(local, idle_exit, port, trial, detached) {
        Ok(()) => 0,
        Err(error) if detached && error.is::<local::AlreadyRunning>() => 0,
        Err(error) => {
            note!("error: {error:#}");
            UNREACHABLE
        }
    }
}

fn run(local: &Local, idle_exit: Option<u64>, port: Option<u16>, trial: &Trial, detached: bool) -> anyhow::Result<()> {
    let config = local::Config {
        state: local.state.clone(),
        executable: std::env::current_exe()?,
        functions_dir: trial.functions.clone(),
        port,
        idle_exit: idle_exit.map(Duration::from_secs),
        faults: trial.faults.as_ref().map(|plan| plan.parse()).transpose()?,
        user: user(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(local::serve(config, |host| {
        if !detached {
            note!("The service runs at {}. Ctrl-C ends it.", host.endpoint);
        }
    }));
    // Nothing that still reads is worth waiting for: what counts is on disk.
    runtime.shutdown_timeout(Duration::from_millis(500));
    ended
}
