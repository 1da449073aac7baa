//! The other roles of this program: a function, a session's agent; and what the host and the driver
//! share.

use crate::terminal::note;
use std::{ffi::OsString, io::IsTerminal, process::ExitCode};

/// Is the function of this name, until its host has no more work for it.
pub(crate) fn function(name: Option<OsString>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
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
        Err(error) => fail(&error),
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
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// Sends the log to standard error.
pub(crate) fn start_log() {
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

/// The user of this machine: the name that goes with the process's user id.
pub(crate) fn user() -> String {
    let id = nix::unistd::getuid();
    let name = nix::unistd::User::from_uid(id).ok().flatten().map(|user| user.name);
    name.or_else(|| std::env::var("USER").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("user-{id}"))
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    note!("error: {error}");
    ExitCode::FAILURE
}
