//! What this file is besides the command: a function, an agent, the host.

use crate::{args, service::Local, trouble::USAGE};
use std::{ffi::OsString, process::ExitCode};

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

/// Is the host, in this terminal or without one.
pub(crate) fn host(_local: &Local, _settings: &args::Host, _detached: bool) -> u8 {
    USAGE
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
