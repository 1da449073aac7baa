//! `pfsession run`.

mod end;
pub(crate) mod order;
mod secrets;

use super::{check, packages, runs};
use crate::{
    client::Client,
    command::{AwaitedRun, Execute},
    global::{Done, Service},
    operate::{command, operate, warn_of_size, when_interrupted},
    options::{Values, Wants, named_text, of_a_node, run_id, values},
    sessions::warn_of_deletions,
    snapshot,
    terminal::{note, warn},
    text::{out, out_json},
    trouble::Trouble,
    watch,
};
use clap::Args;
use contract::{
    Kind,
    command::{RunWish, Wish},
    route::Route,
};
use end::end_of_run;
use order::{RunOrder, resume, run_order};
use secrets::{SecretVariables, secret_variables};
use std::path::PathBuf;

/// Run a flow in its session; starts the session if there is none
#[derive(Args, Debug)]
#[command(after_help = "\
Outputs go to standard output, one JSON object a line; progress and the flow's log go to standard error. Ctrl-C leaves the run going.

Examples:
  pfsession run ./my-flow --data lines.jsonl
  pfsession run ./my-flow --data lines.jsonl --column-mapping question='${data.text}'
  pfsession run ./my-flow --inputs text=hello --inputs count:=3 --env STYLE=short
  pfsession run run.yml
  pfsession run ./my-flow --data lines.jsonl > outputs.jsonl
  pfsession run . -- python script.py --n 3

With a command, any folder will do that has Python, a requirements.txt or a project file: its session has these packages, and no promptflow. \
A project file is pyproject.toml (also Poetry's; a uv.lock, pylock.toml or poetry.lock holds its versions), Pipfile with its lock, \
environment.yml (its pip part) or setup.cfg; the first of these counts. \
What the command prints (up to 5,000 lines; the whole is in the run's log) goes to standard output and standard error, and its exit code is \
this one's. What it writes is kept in the run's folder; the folder itself stays as it is.")]
pub(crate) struct Run {
    /// The flow's folder, its file (YAML or prompty), or a run.yml that names it
    #[arg(value_name = "FLOW or RUN.YML", required_unless_present = "resume_from")]
    pub(crate) flow: Option<PathBuf>,
    /// The data: a file (JSON lines, JSON, CSV, TSV) or a folder of files, with a run for each row;
    /// without it, one run
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// An earlier run that the column mapping names: '${run.outputs.answer}',
    /// '${run.inputs.question}'
    #[arg(long, value_name = "RUN", value_parser = run_id)]
    pub(crate) run: Option<String>,
    /// Run an earlier run again, with its flow, data and settings; lines that it has completed are
    /// taken over, and not run
    #[arg(
        long,
        value_name = "RUN",
        value_parser = run_id,
        conflicts_with_all = ["flow", "data", "run", "entry", "inputs", "column_mapping", "variant", "init", "connections", "command"]
    )]
    pub(crate) resume_from: Option<String>,
    /// The function or class of a flex flow without a file: module:name
    #[arg(long, value_name = "MODULE:NAME")]
    pub(crate) entry: Option<String>,
    /// The number of lines that run at once; without it, four, and more while the processor is idle
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) workers: Option<u32>,
    /// The longest time of one line, in seconds [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) line_timeout: Option<u32>,
    /// A value of an input, when there is no data: NAME=TEXT, NAME:=JSON, or a file of JSON with
    /// several
    #[arg(long, value_name = "NAME=VALUE", value_parser = values, num_args = 1..)]
    pub(crate) inputs: Vec<Values>,
    /// The source of an input: NAME='${data.column}'; without it, its default or the column of its
    /// name
    #[arg(long, value_name = "NAME=SOURCE", value_parser = named_text, num_args = 1..)]
    pub(crate) column_mapping: Vec<(String, String)>,
    /// A variant of a node: '${node.variant}'
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// An environment variable for this run; '${connection.key}' is a connection's value. It is
    /// stored: never put a secret here
    #[arg(long, value_name = "NAME=TEXT", value_parser = named_text, num_args = 1..)]
    pub(crate) env: Vec<(String, String)>,
    /// A secret environment variable for this run: from your own environment, else asked for. It is
    /// stored nowhere
    #[arg(long, value_name = "NAME", value_parser = variable)]
    pub(crate) env_secret: Vec<String>,
    /// For a node, another connection, deployment or model: node.connection=NAME
    /// node.deployment_name=TEXT
    #[arg(long, value_name = "NODE.KEY=TEXT", value_parser = of_a_node, num_args = 1.., conflicts_with = "command")]
    pub(crate) connections: Vec<(String, String, String)>,
    /// An argument of a class-based flow's constructor: NAME=TEXT, NAME:=JSON, or a file of JSON
    /// with several
    #[arg(long, value_name = "NAME=VALUE", value_parser = values, num_args = 1..)]
    pub(crate) init: Vec<Values>,
    /// The run's id; one that is taken is an error, unless the run is the same
    #[arg(long, value_name = "ID", value_parser = run_id)]
    pub(crate) name: Option<String>,
    /// Do not wait for the end; print the run's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Show streamed output as it comes, on standard error; the flow runs once, without --data
    #[arg(long, conflicts_with_all = ["data", "run", "resume_from", "no_wait", "command"])]
    pub(crate) stream: bool,
    /// First install the requirements, if they have changed since the last install
    #[arg(long)]
    pub(crate) install: bool,
    #[command(flatten)]
    pub(crate) wants: Wants,
    /// Run this program in the folder in place of a flow: its output and exit code are passed on
    #[arg(
        last = true,
        value_name = "COMMAND",
        conflicts_with_all = ["data", "run", "entry", "workers", "line_timeout", "inputs", "column_mapping", "variant", "init"]
    )]
    pub(crate) command: Vec<String>,
}

impl Execute for Run {
    type Json = AwaitedRun;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        // Before anything is started or sent.
        let given = secret_variables(service, &self.env_secret)?;
        let client = service.client()?;
        let RunOrder {
            flow,
            id,
            is_named,
            wanted,
            wish,
        } = self.order(&client)?;
        if self.install && packages::drift(&client, &flow).is_some() {
            let settings = snapshot::send_folder(&client, &flow, None)?;
            let install = Wish::Install { settings, lock: None };
            operate(&client, &flow, Kind::Install, install, false, false)?;
        }
        let lines = lines_to_print(&wish, service.global.json);
        warn_of_size(&wanted);
        check::base_image(service, &client, &flow, &wanted)?;
        let wish = Wish::Run {
            settings: wanted,
            run: wish,
        };
        let wanted = command(&id, &flow.reference, wish);
        let digest = wanted.digest();
        // A name that is taken leaves no secret where another run of that name reads its own.
        let before = is_named && watch::run_of(&client, &id, &digest)?;
        let secrets = SecretVariables::leave(given.filter(|_| !before), &id)?;
        let what = || format!("the run of {} did not succeed", flow.typed);
        let accepted = client.send(&wanted).map_err(|t| t.what(what()))?;
        if before || accepted.again {
            note!("This is the run {id} that was sent before. Nothing runs again.");
        }
        // From here on they are the run's.
        if let Some(secrets) = secrets {
            secrets.stay();
        }
        if !self.install
            && let Some(drift) = packages::drift(&client, &flow)
        {
            warn(&drift.describe(&flow));
        }
        if self.no_wait {
            match service.global.json {
                true => out_json(&accepted),
                false => out(&id),
            }
            return Ok(0);
        }
        let interrupted = when_interrupted(format!(
            "The run goes on. Look at it: pfsession logs {id} --follow\nIts end: pfsession show {id}. To end it: pfsession runs cancel {id}"
        ));
        let row = watch::run(&client, &accepted.flow, &id, &digest, lines)?;
        drop(interrupted);
        let done = end_of_run(Some(&client), &row, &flow, service.global.json);
        // A user who is here is told of their other sessions. If these cannot be listed, the run
        // has not failed.
        if let Ok(sessions) = client.sessions(Route::Sessions) {
            warn_of_deletions(&sessions);
        }
        done
    }
}

impl Run {
    /// The run that is sent, with its flow and data where a service elsewhere reads them.
    fn order(&self, client: &Client) -> Result<RunOrder, Box<Trouble>> {
        let mut order = match &self.resume_from {
            Some(earlier) => resume(self, runs::find(client, earlier)?, client.is_here())?,
            None => {
                let mut order = run_order(self, &client.user)?;
                snapshot::send_all(client, &order.flow, &mut order.wanted, Some(&mut order.wish))?;
                order
            }
        };
        order.wish.secret_variables = self.env_secret.iter().cloned().collect();
        Ok(order)
    }
}

/// The lines of a run's output that are printed while it runs.
fn lines_to_print(wish: &RunWish, json: bool) -> watch::Lines {
    match (wish.command.is_empty(), json) {
        _ if wish.stream => watch::Lines::Pieces,
        (true, _) => watch::Lines::Log,
        // Programs read JSON alone.
        (false, true) => watch::Lines::Aside,
        (false, false) => watch::Lines::AsSaid,
    }
}

/// The name of an environment variable.
fn variable(text: &str) -> Result<String, String> {
    match text {
        "" => Err("this is to be the name of a variable".into()),
        text if text.contains(['=', '\0']) => {
            Err("this is to be a name alone: the value comes from your environment or standard input".into())
        }
        text => Ok(text.into()),
    }
}
