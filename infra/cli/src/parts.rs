//! The other roles of this program: a function, an agent, the host, the driver of this machine for a control plane elsewhere.

use crate::{
    args,
    service::Local,
    terminal::note,
    text::out_json,
    trouble::{Trouble, UNREACHABLE},
};
use driver::{
    Platform,
    elsewhere::{self, ControlPlane},
};
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
            Some("webhook") => webhook::run().await,
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
    sandbox::descriptors::close_inherited();
    let is_in_container = std::env::args()
        .nth(2)
        .is_some_and(|argument| argument == "--container");
    let ended = if is_in_container {
        agent::supervise_container()
    } else {
        agent::supervise()
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("{error:#}")),
    }
}

/// Is the host, until it is told to leave. One that has another host's folder leaves at once, with success.
///
/// * `detached`: it outlives the terminal of whoever started it.
pub(crate) fn host(local: &Local, settings: &args::Host, detached: bool) -> u8 {
    if detached {
        sandbox::descriptors::close_inherited();
        // Who leads a group of processes already has no terminal to leave.
        let _ = nix::unistd::setsid();
    }
    start_log();
    match serve(local, settings, detached) {
        Ok(()) => 0,
        Err(error) if detached && error.is::<local::AlreadyRunning>() => 0,
        Err(error) => {
            note!("error: {error:#}");
            UNREACHABLE
        }
    }
}

/// Is the compute driver of this machine for a control plane elsewhere, until it is told to leave.
pub(crate) fn driver(local: &Local, settings: &args::Driver, json: bool) -> Result<u8, Box<Trouble>> {
    let unreachable = |failure| Trouble::of(UNREACHABLE, failure);
    let control_plane = ControlPlane::from_environment(&settings.queue_prefix).map_err(unreachable)?;
    let not_here = |error: std::io::Error| Trouble::new(UNREACHABLE, "Driver.Failed", error.to_string());
    let config = elsewhere::Config {
        platform: Platform::Machine,
        control_plane,
        state: local.state.join("driver"),
        executable: std::env::current_exe().map_err(not_here)?,
        end_sessions: settings.end_sessions,
    };
    start_log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(not_here)?;
    let served = runtime.block_on(elsewhere::serve(config, |serving| {
        if json {
            out_json(&serde_json::json!({ "requests": serving.requests, "sessions": serving.sessions }));
        } else {
            let found = match serving.sessions {
                0 => String::new(),
                1 => " 1 session was found again.".to_owned(),
                n => format!(" {n} sessions were found again."),
            };
            note!(
                "This machine serves {}.{found} Ctrl-C ends the driver.",
                serving.requests
            );
        }
    }));
    runtime.shutdown_timeout(Duration::from_millis(500));
    let left = served.map_err(unreachable)?;
    if left > 0 && !json {
        note!("{left} of its sessions go on. Start the driver again to look after them.");
    }
    Ok(0)
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PFSESSION_LOG").unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        // On a full disk its own complaint would go to standard error, and panic there.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
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
            note!("The service runs at {}. Ctrl-C ends it.", host.endpoint);
        }
    }));
    // Nothing that still reads is worth waiting for: what counts is on disk.
    runtime.shutdown_timeout(Duration::from_millis(500));
    ended
}

/// Who uses this machine: the name that goes with the process's user id.
pub(crate) fn user() -> String {
    let id = nix::unistd::getuid();
    let name = nix::unistd::User::from_uid(id).ok().flatten().map(|user| user.name);
    name.or_else(|| std::env::var("USER").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("user-{id}"))
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    note!("error: {error}");
    ExitCode::FAILURE
}
