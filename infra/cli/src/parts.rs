//! What this file is besides the command: a function, an agent, the host.

use crate::{args, service::Local, trouble::UNREACHABLE};
use std::{ffi::OsString, io::IsTerminal, process::ExitCode, time::Duration};

/// Is the function of this name, until whoever started it has no more for it.
pub(crate) fn function(name: Option<OsString>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let ended = runtime.block_on(async {
        match name.as_ref().and_then(|name| name.to_str()) {
            Some("accept-command") => accept_command::run().await,
            Some("start-session") => start_session::run().await,
            Some("install-packages") => install_packages::run().await,
            Some("stop-session") => stop_session::run().await,
            Some("idle-tick") => idle_tick::run().await,
            Some("agent-report") => agent_report::run().await,
            Some("api") => api::run().await,
            _ => Err(format!("{name:?} is no function").into()),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Is a session's agent.
pub(crate) fn agent() -> ExitCode {
    match agent::supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("{error:#}")),
    }
}

/// Is the host, until it is told to leave. One that has another host's folder leaves at once, with success.
///
/// * `detached`: it outlives the terminal of whoever started it.
pub(crate) fn host(local: &Local, settings: &args::Host, detached: bool) -> u8 {
    if detached {
        // Who leads a group of processes already has no terminal to leave.
        let _ = nix::unistd::setsid();
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("PFSESSION_LOG").unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
    match serve(local, settings, detached) {
        Ok(()) => 0,
        Err(error) if detached && error.is::<local::AlreadyRunning>() => 0,
        Err(error) => {
            eprintln!("error: {error:#}");
            UNREACHABLE
        }
    }
}

fn serve(local: &Local, settings: &args::Host, detached: bool) -> anyhow::Result<()> {
    let config = local::Config {
        state: local.state.clone(),
        executable: std::env::current_exe()?,
        functions_dir: settings.trial.functions.clone(),
        port: settings.port,
        idle_exit: settings.idle_exit.map(Duration::from_secs),
        faults: settings.trial.faults.as_ref().map(|plan| plan.parse()).transpose()?,
        user: user(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(local::serve(config, |host| {
        if !detached {
            eprintln!("The service runs at {}. Ctrl-C ends it.", host.endpoint);
        }
    }));
    // Nothing that still reads is worth waiting for: what counts is on disk.
    runtime.shutdown_timeout(Duration::from_millis(500));
    ended
}

/// Who uses this machine: the name that goes with the process's user id.
fn user() -> String {
    let id = nix::unistd::getuid();
    let name = nix::unistd::User::from_uid(id).ok().flatten().map(|user| user.name);
    name.or_else(|| std::env::var("USER").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("user-{id}"))
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
