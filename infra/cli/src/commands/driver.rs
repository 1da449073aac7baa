//! `pfsession driver`: this machine as a compute instance of a control plane elsewhere.

use crate::{
    command::Execute,
    global::{Done, Service},
    parts::start_log,
    terminal::note,
    text::out_json,
    trouble::{Trouble, UNREACHABLE},
};
use clap::Args;
use contract::Code;
use driver::{
    Platform,
    elsewhere::{self, ControlPlane},
};
use lifecycle::count_with;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// Serve a control plane elsewhere as a compute instance: its sessions run on this machine
#[derive(Args, Debug)]
#[command(after_help = "\
The control plane is found as every AWS tool finds it: AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and AWS_ENDPOINT_URL \
where it is not AWS itself. The credentials are to allow, on its queues: to receive, delete and change visibility on compute-requests; to send to \
reports; to create, delete, receive from and delete in agent-*, each behind --queue-prefix. The template's parameter DriverSenders is to have their id, which is what \
`aws sts get-caller-identity --query UserId` prints (for a role, the part before the colon).

Sessions go on when the driver ends, and are found again by the next start, unless --end-sessions is given. What it keeps is in the folder driver \
below --state.

Examples:
  eval \"$(aws configure export-credentials --profile me --format env)\" && AWS_REGION=eu-west-1 pfsession driver
  AWS_ENDPOINT_URL=http://127.0.0.1:4566 pfsession driver --end-sessions")]
pub(crate) struct Driver {
    /// Prefix of the names of the control plane's queues
    #[arg(long, value_name = "PREFIX", default_value = "pfsession-")]
    pub(crate) queue_prefix: String,
    /// The control plane's HTTP front, such as the stack's output Endpoint: sessions have the
    /// connections that it keeps. Without it, those of this machine
    #[arg(long, env = "PFSESSION_SERVICE", value_name = "URL")]
    pub(crate) service: Option<String>,
    /// End this machine's sessions when the driver ends
    #[arg(long)]
    pub(crate) end_sessions: bool,
}

/// The things that a driver serves once it has begun.
///
/// * `requests`: the queue of compute requests.
/// * `sessions`: the number of sessions that it found again.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Serving<'a> {
    requests: &'a str,
    sessions: usize,
}

impl Execute for Driver {
    type Json = Serving<'static>;

    fn execute(&self, service: &Service<'_>) -> Done {
        let (local, json) = (service.local()?, service.global.json);
        let unreachable = |failure| Trouble::of(UNREACHABLE, failure);
        let control_plane = ControlPlane::from_environment(&self.queue_prefix).map_err(unreachable)?;
        let not_here = |error: std::io::Error| Trouble::new(UNREACHABLE, Code::DriverFailed, error.to_string());
        let config = elsewhere::Config {
            platform: Platform::Machine,
            control_plane,
            state: local.state.join("driver"),
            executable: std::env::current_exe().map_err(not_here)?,
            end_sessions: self.end_sessions,
            service: self.service.clone(),
        };
        start_log();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(not_here)?;
        let served = runtime.block_on(elsewhere::serve(config, |serving| {
            if json {
                out_json(&Serving {
                    requests: &serving.requests,
                    sessions: serving.sessions,
                });
            } else {
                let found = match serving.sessions {
                    0 => String::new(),
                    n => format!(" {} found again.", count_with(n, "session", ["was", "were"])),
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
}
