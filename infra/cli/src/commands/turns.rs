//! A flow that is asked again and again: each time is a run of its own, in the session that the
//! flow has.

use super::{
    check,
    run::{
        Run,
        order::{RunOrder, run_order},
    },
};
use crate::{
    client::Client,
    global::Service,
    operate,
    options::{Values, Wants, named_text, of_a_node, values},
    pieces::Heard,
    runfiles::{self, OUTPUTS, Remote},
    snapshot,
    trouble::{FAILED, Trouble, USAGE},
    watch,
    wish::Flow,
};
use clap::Args;
use contract::{
    Code, Failure,
    agent::{Chunk, OutputLine},
    command::{Command, RunWish, Wanted, Wish},
    http::SessionView,
    route::Route,
    row::{OperationStatus, RunRow, RunStatus},
};
use flow::Signature;
use serde_json::{Map, Value};
use std::{path::PathBuf, sync::Arc, thread, time::Duration};

/// The shortest time between two extensions of a session.
const SHORTEST: Duration = Duration::from_secs(5);

/// A flow that is asked more than once.
#[derive(Args, Debug)]
pub(crate) struct Asked {
    /// The flow's folder, or its file (YAML or prompty)
    pub(crate) flow: PathBuf,
    /// A variant of a node: '${node.variant}'
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// An environment variable; '${connection.key}' is a connection's value. It is stored: never
    /// put a secret here
    #[arg(long, value_name = "NAME=TEXT", value_parser = named_text, num_args = 1..)]
    pub(crate) env: Vec<(String, String)>,
    /// For a node, another connection, deployment or model: node.connection=NAME
    /// node.deployment_name=TEXT
    #[arg(long, value_name = "NODE.KEY=TEXT", value_parser = of_a_node, num_args = 1..)]
    pub(crate) connections: Vec<(String, String, String)>,
    /// An argument of a class-based flow's constructor: NAME=TEXT, NAME:=JSON, or a file of JSON
    /// with several
    #[arg(long, value_name = "NAME=VALUE", value_parser = values, num_args = 1..)]
    pub(crate) init: Vec<Values>,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

impl Asked {
    /// The run that each time is one of.
    pub(crate) fn as_run(&self) -> Run {
        Run {
            flow: Some(self.flow.clone()),
            resume_from: None,
            data: None,
            run: None,
            entry: None,
            workers: None,
            line_timeout: None,
            inputs: Vec::new(),
            column_mapping: Vec::new(),
            variant: self.variant.clone(),
            env: self.env.clone(),
            env_secret: Vec::new(),
            connections: self.connections.clone(),
            init: self.init.clone(),
            name: None,
            no_wait: false,
            stream: false,
            install: false,
            wants: self.wants.clone(),
            command: Vec::new(),
        }
    }
}

/// A flow, and what each of its runs has in common.
pub(crate) struct Turns {
    client: Arc<Client>,
    flow: Flow,
    wish: RunWish,
    wanted: Wanted,
    pub(crate) signature: Signature,
}

impl Turns {
    /// Starts the flow's session, and has it live while this program does.
    ///
    /// # Errors
    ///
    /// The fault of the flow, and why there is no session.
    pub(crate) fn begin(service: &Service<'_>, asked: &Asked) -> Result<Self, Box<Trouble>> {
        let signature = flow::signature(&asked.flow).map_err(|failure| Trouble::of(USAGE, failure))?;
        let client = service.client()?;
        let RunOrder {
            flow,
            mut wanted,
            mut wish,
            ..
        } = run_order(&asked.as_run(), &client.user)?;
        check::base_image(service, &client, &flow, &wanted)?;
        snapshot::send_all(&client, &flow, &mut wanted, Some(&mut wish))?;
        let id = flow.new_id(Some("start"));
        let accepted = client.send(&Command {
            id: id.clone(),
            flow: flow.reference.clone(),
            principal: None,
            wish: Wish::Start {
                settings: wanted.clone(),
            },
        })?;
        // Not `operate`, by which Ctrl-C would mean something else from here on.
        let row = watch::operation(&client, &accepted.flow, &id)?;
        if row.status != OperationStatus::Succeeded {
            let failure = row.failure.unwrap_or_else(operate::canceled);
            return Err(Trouble::of(FAILED, failure)
                .what(format!("the session of {} did not start", flow.typed))
                .output(format!("pfsession logs {id}")));
        }
        let turns = Self {
            client,
            flow,
            wish,
            wanted,
            signature,
        };
        turns.keep_alive();
        Ok(turns)
    }

    /// Extends the session at every third of its idle time, from a thread of its own.
    fn keep_alive(&self) {
        let (client, flow) = (Arc::clone(&self.client), self.flow.clone());
        thread::spawn(move || {
            loop {
                let view: Option<SessionView> = client.find(Route::Session(&flow.key())).ok().flatten();
                let idle = view.as_ref().map_or(60_000, |view| view.settings.idle.value);
                thread::sleep(Duration::from_millis(idle / 3).max(SHORTEST));
                // One that somebody has stopped is started by the next run.
                if view.is_some() {
                    let settings = Wanted::default();
                    let _ = client.send(&Command {
                        id: flow.new_id(Some("serve")),
                        flow: flow.reference.clone(),
                        principal: None,
                        wish: Wish::Update { settings },
                    });
                }
            }
        });
    }

    /// Asks the flow once.
    ///
    /// # Errors
    ///
    /// Why the run failed.
    pub(crate) fn ask(&self, inputs: Map<String, Value>) -> Result<Map<String, Value>, Failure> {
        let id = self.send(inputs, false)?;
        outputs_of(
            &self.client,
            watch::until_end(&self.client, &id).map_err(|trouble| trouble.failure)?,
        )
    }

    /// Asks the flow once, and hears the pieces of its outputs as they come.
    ///
    /// # Errors
    ///
    /// Why the run failed, also after pieces.
    pub(crate) fn ask_streamed(
        &self,
        inputs: Map<String, Value>,
        mut hear: impl FnMut(Chunk),
    ) -> Result<(Map<String, Value>, Heard), Failure> {
        let id = self.send(inputs, true)?;
        let mut heard = Heard::default();
        let take = |line: &OutputLine| heard.take(line).into_iter().for_each(&mut hear);
        let row = watch::listen(&self.client, &id, take).map_err(|trouble| trouble.failure)?;
        outputs_of(&self.client, row).map(|outputs| (outputs, heard))
    }

    /// Sends a run with these inputs. Returns its id.
    fn send(&self, inputs: Map<String, Value>, stream: bool) -> Result<String, Failure> {
        let id = self.flow.new_id(None);
        let command = Command {
            id: id.clone(),
            flow: self.flow.reference.clone(),
            principal: None,
            wish: Wish::Run {
                settings: self.wanted.clone(),
                run: RunWish {
                    inputs: inputs.into_iter().collect(),
                    stream,
                    ..self.wish.clone()
                },
            },
        };
        self.client.send(&command).map_err(|trouble| trouble.failure)?;
        Ok(id)
    }
}

/// The outputs of a run over one line.
fn outputs_of(client: &Client, row: RunRow) -> Result<Map<String, Value>, Failure> {
    let result = row.result.clone().unwrap_or_default();
    if row.status != RunStatus::Completed || result.failed_lines > 0 {
        let failure = row.failure.or(result.failure);
        return Err(failure.unwrap_or_else(|| Failure::new(Code::RunCanceled, "The run was canceled.")));
    }
    let there = || {
        let remote = Remote::open(client, &row.id, OUTPUTS, false).ok()??;
        serde_json::from_str(&remote.lines().next()?.ok()?).ok()
    };
    match result.outputs.first().cloned().or_else(there) {
        Some(Value::Object(outputs)) => Ok(outputs),
        _ => Err(runfiles::not_seen(&row)),
    }
}
