//! The commands.

use crate::{
    args::{self, Cli, Command as Typed},
    bench, check,
    client::Client,
    compute, confirm, connection, image, instance, packages, parts,
    request::{Address, LONGEST_WAIT, address_of},
    roles, runfiles, runs, schema, serve,
    service::{self, Local},
    show, sizes, snapshot,
    terminal::{self, note, warn},
    text::{self, home, out, out_as_said, out_json, took},
    trouble::{FAILED, INTERRUPTED, NONE, Trouble, USAGE},
    turns, watch, webhook,
    wish::{self, Flow, RunOrder},
    workspace,
};
use contract::{
    Failure, FlowRef, Kind, Role,
    agent::{LineKind, RunResult},
    command::{Command, Wanted, Wish},
    http::{Events, SessionView, Sessions, Why},
    row::{OperationRow, OperationStatus, RunRow, RunStatus},
};
use lifecycle::session::{Counts, Event};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) type Done = Result<u8, Box<Trouble>>;

/// Does what was typed. Gives back the exit code.
pub(crate) fn execute(cli: Cli) -> Done {
    let Cli { global, command } = cli;
    let service = Service { global: &global };
    let json = global.json;
    // What only reads, or prints a run's output, ends with its reader; a run goes on without its command.
    let reads = matches!(
        command,
        Typed::Run(_)
            | Typed::Chat(_)
            | Typed::Packages(_)
            | Typed::List { .. }
            | Typed::Show { .. }
            | Typed::Why { .. }
            | Typed::Logs { .. }
            | Typed::Runs(_)
            | Typed::Events { .. }
            | Typed::Sizes(_)
    );
    if !reads {
        text::finish_first();
    }
    match command {
        Typed::Run(run) => run_flow(&service, &run),
        Typed::Chat(chat) => turns::chat(&service, &chat),
        Typed::Serve(serve) => serve::serve(&service, &serve),
        Typed::Start(start) => {
            let client = service.client()?;
            let flow = wish::flow_at(&start.flow, &client.user)?;
            let mut settings = start.wants.wanted();
            snapshot::seen(&client, &flow, &mut settings, None)?;
            operate(
                &client,
                &flow,
                Kind::Start,
                Wish::Start { settings },
                start.no_wait,
                json,
            )
        }
        Typed::Install(install) => packages::install(&service, &install),
        Typed::Packages(wanted) => packages::show(&*service.client()?, &wanted, json),
        Typed::Update(update) => {
            let settings = update.wants.change().ok_or_else(|| {
                Trouble::new(USAGE, "Command.NothingToChange", "No setting is named")
                    .next("name one: --idle, --size, --image, --identity, --network, --allow-host")
            })?;
            let client = service.client()?;
            let flow = wish::find_flow(&client, &update.what)?.ok_or_else(|| wish::nothing_of(&update.what))?;
            if settings.size.is_some() || settings.identity.is_some() || settings.compute.is_some() {
                confirm_end(&client, &flow, "Another compute resource", Some(&settings), &update.yes)?;
            }
            operate(
                &client,
                &flow,
                Kind::Update,
                Wish::Update { settings },
                update.no_wait,
                json,
            )
        }
        Typed::Extend(extend) => {
            let client = service.client()?;
            let flow = wish::find_flow(&client, &extend.what)?.ok_or_else(|| wish::nothing_of(&extend.what))?;
            let settings = Wanted::default();
            operate(
                &client,
                &flow,
                Kind::Update,
                Wish::Update { settings },
                extend.no_wait,
                json,
            )
        }
        Typed::Reset(reset) => {
            let client = service.client()?;
            let flow = wish::flow_at(&reset.flow, &client.user)?;
            let settings = snapshot::changed(&client, &flow, reset.wants.change())?;
            let resolve = reset.resolve;
            confirm_end(&client, &flow, "A reset", None, &reset.yes)?;
            operate(
                &client,
                &flow,
                Kind::Reset,
                Wish::Reset { settings, resolve },
                reset.no_wait,
                json,
            )
        }
        Typed::Stop(args::StopSession { stop, yes }) => {
            let client = service.client()?;
            let flow = wish::find_flow(&client, &stop.what)?.ok_or_else(|| wish::nothing_of(&stop.what))?;
            confirm_end(&client, &flow, "A stop", None, &yes)?;
            operate(&client, &flow, Kind::Stop, Wish::Stop, stop.no_wait, json)
        }
        Typed::List { all, all_users } => list(&service, all, all_users),
        Typed::Show { what } => show_one(&*service.client()?, &what, json),
        Typed::Why { what } => why(&*service.client()?, &what, json),
        Typed::Logs { what, follow } => logs(&*service.client()?, &what, follow, json),
        Typed::Runs(typed) => runs::execute(&service, &typed),
        Typed::Events { what } => events(&*service.client()?, &what, json),
        Typed::Up {
            foreground: true,
            port,
            trial,
        } => {
            let host = args::Host {
                idle_exit: None,
                port,
                trial,
            };
            Ok(parts::host(&service.local()?, &host, false))
        }
        Typed::Driver(driver) => parts::driver(&service.local()?, &driver, json),
        Typed::Up { port, .. } => up(&service, port),
        Typed::Down { stop_sessions } => down(&service, stop_sessions),
        Typed::Connection(typed) => connection::execute(&service, &typed),
        Typed::Image(typed) => image::execute(&service, &typed),
        Typed::Registry(typed) => image::registry(&service, &typed),
        Typed::Webhook(typed) => webhook::execute(&service, &typed),
        Typed::Sizes(wanted) => sizes::execute(&wanted, json),
        Typed::Check(wanted) => {
            let client = service.client()?;
            let state = client.is_here().then(|| service.local()).transpose()?;
            check::check(
                &client,
                &wanted,
                state.as_ref().map(|local| local.state.as_path()),
                json,
            )
        }
        Typed::Identity(typed) => check::identity(&*service.client()?, &typed, json),
        Typed::Workspace(typed) => workspace::execute(&*service.client()?, &typed, json),
        Typed::Instance(typed) => instance::execute(&*service.client()?, &typed, json),
        Typed::Compute(typed) => compute::execute(&*service.client()?, &typed, json),
        Typed::Role(typed) => roles::execute(&service, &typed),
        Typed::Completions { shell } => {
            args::completions(shell);
            Ok(0)
        }
        Typed::Man { out } => man(out.as_deref()),
        Typed::Schema { command } => schema::print(&command),
        Typed::Bench(wanted) => bench::bench(&wanted, &service.local()?, json),
        Typed::Private { host, remove } => packages::private(&service, host.as_deref(), remove),
        Typed::Env => env(&service),
        Typed::Token(token) => token_for(&service, &token),
        Typed::Host(host) => Ok(parts::host(&service.local()?, &host, true)),
    }
}

fn token_for(service: &Service<'_>, wanted: &args::Token) -> Done {
    let issuer = local::Issuer::open(&wanted.issuer).map_err(|cause| {
        Trouble::new(
            USAGE,
            "Token.NoIssuer",
            format!("There is no issuer to be had: {cause:#}"),
        )
        .next("name a file that `pfsession token` made, or one that is not there yet")
    })?;
    // Clap has seen to it that there is a workspace where there is a user.
    let (Some(user), Some(workspace)) = (&wanted.user, &service.global.workspace) else {
        out(issuer.public_pem().trim_end());
        return Ok(0);
    };
    let roles: Vec<Role> = wanted
        .roles
        .iter()
        .map(|role| match role {
            args::TokenRole::DataScientist => Role::DataScientist,
            args::TokenRole::Owner => Role::Owner,
            args::TokenRole::RoleAdministrator => Role::RoleAdministrator,
        })
        .collect();
    let token = issuer
        .token(user, workspace, &roles, wanted.life.as_secs())
        .map_err(|cause| {
            Trouble::new(USAGE, "Token.BadName", format!("There can be no such token: {cause:#}"))
                .next("name another --user or --workspace")
        })?;
    if service.global.json {
        out_json(&serde_json::json!({ "token": token, "user": user, "workspace": workspace }));
    } else {
        out(&token);
    }
    Ok(0)
}

/// The service that is meant.
pub(crate) struct Service<'a> {
    pub(crate) global: &'a args::Global,
}

impl Service<'_> {
    /// A client of it. On this machine it is started if it does not run.
    pub(crate) fn client(&self) -> Result<Arc<Client>, Box<Trouble>> {
        let workspace = self.global.workspace.clone();
        if let (Some(endpoint), Some(token)) = (&self.global.endpoint, &self.global.token) {
            let address = Address {
                endpoint: endpoint.clone(),
                token: token.clone(),
            };
            return Client::new(address, None, workspace).map(Arc::new);
        }
        let local = self.local()?;
        Client::new(address_of(&local.find_or_start()?), Some(local), workspace).map(Arc::new)
    }

    /// A client of the service on this machine, if it runs.
    fn running(&self) -> Result<Option<Arc<Client>>, Box<Trouble>> {
        let local = self.local()?;
        let Some(host) = local.find() else { return Ok(None) };
        Client::new(address_of(&host), Some(local), self.global.workspace.clone())
            .map(Arc::new)
            .map(Some)
    }

    pub(crate) fn local(&self) -> Result<Local, Box<Trouble>> {
        if self.global.endpoint.is_some() {
            return Err(Trouble::new(
                USAGE,
                "Service.NotHere",
                "This command is about the service on this machine, and --endpoint names another",
            )
            .next("leave out --endpoint, and unset PFSESSION_ENDPOINT"));
        }
        Ok(Local {
            state: service::state_folder(self.global.state.as_deref())?,
            store: None,
        })
    }
}

pub(crate) fn command(id: &str, flow: &FlowRef, wish: Wish) -> Command {
    Command {
        id: id.into(),
        flow: flow.clone(),
        principal: None,
        wish,
    }
}

/// Sends what becomes an operation, and waits for its end.
pub(crate) fn operate(client: &Arc<Client>, flow: &Flow, kind: Kind, wish: Wish, no_wait: bool, json: bool) -> Done {
    if let Wish::Start { settings } | Wish::Update { settings } = &wish {
        warn_of_size(settings);
    }
    let id = flow.new_id(Some(show::kind(kind)));
    let accepted = client
        .send(&command(&id, &flow.reference, wish))
        .map_err(|t| t.what(not_done(kind, flow)))?;
    if no_wait {
        if json {
            out_json(&accepted)
        } else {
            out(&id)
        }
        return Ok(0);
    }
    let interrupted = when_interrupted(format!(
        "The {} goes on. Look at it: pfsession logs {id} --follow",
        show::kind(kind)
    ));
    let row = watch::operation(client, &accepted.flow, &id)?;
    drop(interrupted);
    let exit = end_of_operation(&row, flow, json)?;
    // That it cannot be asked now is no failure of what was done.
    if matches!(kind, Kind::Install | Kind::Update)
        && let Ok(Some(session)) = client.find::<SessionView>(&format!("/v1/sessions/{}", flow.key()))
    {
        if let Some(stale) = show::stale(&session) {
            warn(&stale);
        }
        if let Some(due) = session.idle_due.filter(|_| kind == Kind::Update) {
            note!("If nobody uses it, it is deleted {}.", show::at(session.now, due));
        }
    }
    Ok(exit)
}

/// Names the active runs that end with a session, and asks whether they may. A script is not asked, as it may be older than the question.
///
/// * `change`: settings that make the session anew only where they differ from what it has.
fn confirm_end(
    client: &Client,
    flow: &Flow,
    what: &str,
    change: Option<&Wanted>,
    yes: &args::Yes,
) -> Result<(), Box<Trouble>> {
    let Some(session) = client.find::<SessionView>(&format!("/v1/sessions/{}", flow.key()))? else {
        return Ok(());
    };
    let has = &session.settings;
    let is_other = |change: &Wanted| {
        let wants = change.over(has.clone());
        wants
            .differences(has)
            .any(|setting| setting.counts() == Counts::OnNewCompute)
    };
    if session.runs.is_empty() || !change.is_none_or(is_other) {
        return Ok(());
    }
    let runs = session.runs.join(", ");
    let question = format!("{what} ends these active runs of {}: {runs}.", flow.typed);
    confirm::ask(&question, yes.yes, confirm::Unasked::GoOn)
}

/// Says that a size is smaller than flows should have.
fn warn_of_size(wanted: &Wanted) {
    if let Some(size) = &wanted.size
        && lifecycle::size::size(size).is_some_and(|size| size.below_series_d)
    {
        let text = format!(
            "{size} is below series D: flows may be slow or run out of memory there. Take one such as Standard_D2s_v3."
        );
        warn(&text);
    }
}

/// Says which sessions are deleted soon.
fn warn_of_deletions(sessions: &[SessionView]) {
    for session in sessions.iter().filter(|session| session.warned) {
        if let Some(text) = show::deleted_soon(session, home().as_deref()) {
            warn(&text);
        }
    }
}

fn end_of_operation(row: &OperationRow, flow: &Flow, json: bool) -> Done {
    if row.status == OperationStatus::Succeeded {
        if json {
            out_json(row);
        }
        if let Some(warning) = &row.warning {
            warn(warning);
        }
        let after = row
            .ended
            .map(|ended| took(ended.saturating_sub(row.accepted)))
            .unwrap_or_default();
        let what = match row.kind {
            Kind::Start => "is ready",
            Kind::Install => "has its packages",
            Kind::Update => "has the settings that you named",
            Kind::Reset => "is made anew and ready",
            Kind::Stop => "is gone",
        };
        note!("The session of {} {what} ({after}).", flow.typed);
        return Ok(0);
    }
    let failure = row.failure.clone().unwrap_or_else(|| {
        Failure::new(
            "Session.Canceled",
            "Something else was wanted of the session meanwhile.",
        )
    });
    let exit = if failure.error == "Session.NoSession" {
        NONE
    } else {
        FAILED
    };
    let trouble = match failure.error.as_str() {
        "Instance.NotRunning" | "Instance.None" | "Instance.Stopping" => Trouble::of(exit, failure)
            .next("look at your compute instances: pfsession instance list; start one: pfsession instance start NAME"),
        _ => Trouble::of(exit, failure),
    };
    Err(trouble
        .what(not_done(row.kind, flow))
        .output(format!("pfsession logs {}", row.joined.as_ref().unwrap_or(&row.id))))
}

fn not_done(kind: Kind, flow: &Flow) -> String {
    match kind {
        Kind::Start => format!("the session of {} did not start", flow.typed),
        Kind::Install => format!("the packages of {} were not installed", flow.typed),
        Kind::Update => format!("the session of {} was not changed", flow.typed),
        Kind::Reset => format!("the session of {} was not reset", flow.typed),
        Kind::Stop => format!("the session of {} was not stopped", flow.typed),
    }
}

/// The secret variables of a run that its agent has not read yet. They are removed if the run is not accepted.
struct SecretVariables {
    state: PathBuf,
    run: String,
    stay: bool,
}

impl SecretVariables {
    fn leave(given: Option<Given>, run: &str) -> Result<Option<Self>, Box<Trouble>> {
        let Some((state, variables)) = given else {
            return Ok(None);
        };
        agent::connections::leave_variables(&state, run, &variables).map_err(|error| {
            let message = format!("{} cannot be written: {error}. Put that right.", state.display());
            Trouble::new(FAILED, "Connection.NotStored", message)
        })?;
        Ok(Some(Self {
            state,
            run: run.to_owned(),
            stay: false,
        }))
    }

    fn stay(mut self) {
        self.stay = true;
    }
}

/// The state folder that secret variables go through, and what they are.
type Given = (PathBuf, BTreeMap<String, String>);

fn secret_variables(service: &Service, names: &[String]) -> Result<Option<Given>, Box<Trouble>> {
    if names.is_empty() {
        return Ok(None);
    }
    let Ok(local) = service.local() else {
        let message =
            "A secret variable reaches sessions of this machine alone: what is sent elsewhere is stored in a queue";
        return Err(Trouble::new(USAGE, "Run.SecretElsewhere", message)
            .next("leave out --env-secret, and have the flow read the value where it runs"));
    };
    Ok(Some((local.state, connection::secret_variables(names)?)))
}

impl Drop for SecretVariables {
    fn drop(&mut self) {
        if !self.stay {
            agent::connections::forget_variables(&self.state, &self.run);
        }
    }
}

fn run_flow(service: &Service, run: &args::Run) -> Done {
    // Before anything is started or sent.
    let given = secret_variables(service, &run.env_secret)?;
    let client = service.client()?;
    let RunOrder {
        flow,
        id,
        is_named,
        mut wanted,
        mut wish,
    } = match &run.resume_from {
        Some(earlier) => wish::resumed(run, runs::find(&client, earlier)?, client.is_here())?,
        None => wish::run_order(run, &client.user)?,
    };
    if run.resume_from.is_none() {
        snapshot::seen(&client, &flow, &mut wanted, Some(&mut wish))?;
    }
    wish.secret_variables = run.env_secret.iter().cloned().collect();
    if run.install && packages::drift(&client, &flow).is_some() {
        let settings = snapshot::changed(&client, &flow, None)?;
        let install = Wish::Install { settings, lock: None };
        operate(&client, &flow, Kind::Install, install, false, false)?;
    }
    let lines = match (wish.command.is_empty(), service.global.json) {
        (true, _) => watch::Lines::Log,
        // What is for programs is JSON alone.
        (false, true) => watch::Lines::Aside,
        (false, false) => watch::Lines::AsSaid,
    };
    let lines = if wish.stream { watch::Lines::Pieces } else { lines };
    let what = || format!("the run of {} did not succeed", flow.typed);
    warn_of_size(&wanted);
    let wanted = command(
        &id,
        &flow.reference,
        Wish::Run {
            settings: wanted,
            run: wish,
        },
    );
    let digest = wanted.digest();
    // A name that is taken leaves no secret where another run of that name reads its own.
    let before = is_named && watch::run_of(&client, &id, &digest)?;
    let secrets = SecretVariables::leave(given.filter(|_| !before), &id)?;
    let accepted = client.send(&wanted).map_err(|t| t.what(what()))?;
    if before || accepted.again {
        note!("This is the run {id} that was sent before. Nothing runs again.");
    }
    // From here on they are the run's.
    if let Some(secrets) = secrets {
        secrets.stay();
    }
    if !run.install
        && let Some(drift) = packages::drift(&client, &flow)
    {
        warn(&drift.said(&flow));
    }
    if run.no_wait {
        if service.global.json {
            out_json(&accepted)
        } else {
            out(&id)
        }
        return Ok(0);
    }
    let interrupted = when_interrupted(format!(
        "The run goes on. Look at it: pfsession logs {id} --follow\nIts end: pfsession show {id}. To end it: pfsession runs cancel {id}"
    ));
    let row = watch::run(&client, &accepted.flow, &id, &digest, lines)?;
    drop(interrupted);
    let done = end_of_run(&row, &flow, service.global.json);
    // Whoever is here is told of their other sessions. That it cannot be asked now is no failure of the run.
    if let Ok(sessions) = client.sessions("") {
        warn_of_deletions(&sessions);
    }
    done
}

fn end_of_run(row: &RunRow, flow: &Flow, json: bool) -> Done {
    let result = row.result.clone().unwrap_or_default();
    if json {
        out_json(row);
    } else {
        print_outputs(&result);
        print_metrics(&result);
    }
    let place = if result.folder.is_empty() {
        String::new()
    } else {
        format!(" Outputs and log: {}.", text::folder(&result.folder, home().as_deref()))
    };
    if row.status != RunStatus::Completed {
        let failure = row
            .failure
            .clone()
            .or(result.failure)
            .unwrap_or_else(|| Failure::new("Run.Canceled", "The run was canceled."));
        // A run that never began failed with the start of its session, and the whole of that is the start's output.
        let output = if row.started.is_some() {
            row.id.clone()
        } else {
            format!("start-for-{}", row.id)
        };
        // Of what ended the command it has told itself; its exit code tells scripts.
        let exit = match result.exit_code.and_then(|code| u8::try_from(code).ok()) {
            Some(code) if code != 0 => code,
            _ => FAILED,
        };
        let is_missing = failure.error == "Connection.None";
        let package = missing_package(&failure).map(str::to_owned);
        let mut trouble = Trouble::of(exit, failure).what(format!("the run of {} did not succeed", flow.typed));
        if is_missing {
            trouble = trouble.next("make it: pfsession connection create -f connection.yml");
        }
        if let Some(package) = package {
            trouble = trouble.next(format!(
                "if {package} has it: pfsession install {} {package}, and run again",
                flow.typed
            ));
        }
        return Err(trouble.output(format!("pfsession logs {output}")));
    }
    let ended = row.ended.unwrap_or(row.accepted);
    let since = row.started.unwrap_or(row.accepted);
    let waited = match since.saturating_sub(row.accepted) {
        0..200 => String::new(),
        waited => format!(", after {} for its session", took(waited)),
    };
    let lines = if result.exit_code.is_some() {
        "the command".into()
    } else if result.lines == 1 {
        "1 line".into()
    } else {
        format!("{} lines", result.lines)
    };
    note!(
        "Ran {lines} in {}{waited}.{place} The session stays for the next run.",
        took(ended.saturating_sub(since))
    );
    match result.retried {
        0 => {}
        1 => note!("One line was run again, as its model provider had turned it away."),
        times => note!("Lines were run again {times} times, as their model provider had turned them away."),
    }
    if result.failed_lines == 0 {
        return Ok(0);
    }
    let failure = result
        .failure
        .unwrap_or_else(|| Failure::new("Run.LinesFailed", "Its log says why."));
    Err(Trouble::of(FAILED, failure)
        .what(format!("{} of {lines} of {} failed", result.failed_lines, flow.typed))
        .output(format!("pfsession logs {}", row.id)))
}

/// The package of the module that a flow's code did not find.
fn missing_package(failure: &Failure) -> Option<&str> {
    let (_, rest) = failure.message.split_once("No module named '")?;
    let module = rest
        .split('\'')
        .next()
        .filter(|_| failure.error == "Run.ImportFailed")?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    Some(::flow::package_of(module)).filter(|package| package.bytes().all(is_name))
}

/// The outputs, one JSON object a line: as the answer has them, or else from the run's folder.
fn print_outputs(result: &RunResult) {
    let file = Path::new(&result.folder).join("output/outputs.jsonl");
    if !result.outputs.is_empty() {
        result.outputs.iter().for_each(out_json);
    } else if let Ok(file) = std::fs::File::open(&file) {
        BufReader::new(file)
            .lines()
            .map_while(Result::ok)
            .for_each(|line| out_as_said(&line));
    } else if result.lines > 0 {
        let place = file.display();
        terminal::warn(&format!(
            "The outputs are larger than an answer carries. They are in {place}."
        ));
    }
}

/// The metrics of the flow's aggregation: from the run's folder, where it is exact, or else as the answer has it.
fn print_metrics(result: &RunResult) {
    let written = std::fs::read_to_string(Path::new(&result.folder).join("metrics.json"));
    match written {
        Ok(text) => note!("Metrics: {}", text.trim_end()),
        Err(_) if !result.metrics.is_empty() => {
            let metrics = serde_json::Value::from(result.metrics.clone());
            note!("Metrics: {metrics}");
        }
        Err(_) => {}
    }
}

fn list(service: &Service, all: bool, all_users: bool) -> Done {
    let client = service.client()?;
    let mut sessions = client.sessions(if all_users { "users=all" } else { "" })?;
    if !all {
        sessions.retain(|session| session.phase.is_live() || session.failure.is_some());
    }
    sessions.sort_by(|a, b| a.flow.cmp(&b.flow));
    if service.global.json {
        out_json(&Sessions { sessions, next: None });
    } else if sessions.is_empty() {
        note!("There is no session. Start one: pfsession start <folder of a flow>");
    } else {
        out(&show::list(&sessions, home().as_deref(), all_users));
        // Others keep their own.
        sessions.retain(|session| session.flow.owner == client.user.name);
        warn_of_deletions(&sessions);
    }
    Ok(0)
}

fn show_one(client: &Client, what: &str, json: bool) -> Done {
    if let Some(flow) = wish::find_flow(client, what)? {
        let session = session_of(client, &flow)?;
        packages::show_session(client, &flow, &session, json)?;
    } else if !contract::command::is_good_id(what) {
        return Err(wish::nothing_of(what));
    } else if let Some(run) = client.find::<RunRow>(&format!("/v1/runs/{what}"))? {
        if json {
            out_json(&run)
        } else {
            out(&show::run(&run, home().as_deref()))
        }
    } else if let Some(operation) = client.find::<OperationRow>(&format!("/v1/operations/{what}"))? {
        if json {
            out_json(&operation)
        } else {
            out(&show::operation(&operation))
        }
    } else {
        return Err(wish::nothing_of(what));
    }
    Ok(0)
}

pub(crate) fn why(client: &Client, what: &str, json: bool) -> Done {
    let flow = wish::find_flow(client, what)?.ok_or_else(|| wish::nothing_of(what))?;
    let Some(why) = client.find::<Why>(&format!("/v1/sessions/{}/why", flow.key()))? else {
        return session_of(client, &flow).map(|_| 0);
    };
    if json {
        out_json(&why);
    } else {
        out(&show::why(&why, home().as_deref()));
    }
    Ok(0)
}

pub(crate) fn session_of(client: &Client, flow: &Flow) -> Result<SessionView, Box<Trouble>> {
    client.find(&format!("/v1/sessions/{}", flow.key()))?.ok_or_else(|| {
        Trouble::new(
            NONE,
            "Session.NoSession",
            format!("{} has never had a session", flow.typed),
        )
        .next(format!("start one: pfsession start {}", flow.typed))
    })
}

fn logs(client: &Client, what: &str, follow: bool, json: bool) -> Done {
    let of = match wish::find_flow(client, what)? {
        Some(flow) => latest(client, &flow)?,
        None if contract::command::is_good_id(what) => what.to_owned(),
        None => return Err(wish::nothing_of(what)),
    };
    logs_of(client, &of, follow, json)
}

/// Prints what an operation or a run has said: all of it, from the run's file where the service sees that.
pub(crate) fn logs_of(client: &Client, of: &str, follow: bool, json: bool) -> Done {
    if !json && let Some(log) = runfiles::Remote::open(client, of, "logs.txt", follow)? {
        let said = runs::print_log(log, &format!("{of}/logs.txt of the runs' folder"));
        match said {
            Ok(true) => {}
            Ok(false) => note!("{of} has said nothing."),
            Err(error) => return Err(runfiles::unread(&error)),
        }
        return Ok(0);
    }
    let mut after = None;
    loop {
        let wait = if follow { LONGEST_WAIT } else { Duration::ZERO };
        let output = watch::output(client, of, after, wait)?.ok_or_else(|| wish::nothing_of(of))?;
        for line in &output.lines {
            if json {
                out_json(line);
            } else if line.kind == LineKind::Chunk {
                // They are of the output, and no lines.
            } else if line.kind == LineKind::Stage {
                out(&format!("== {}", line.text));
            } else {
                out_as_said(&line.text);
            }
        }
        after = output.lines.iter().map(|line| line.seq).chain(after).max();
        if output.lines.len() < watch::SHORTEST_PAGE && (output.ended || !follow) {
            if after.is_none() {
                note!("{of} has said nothing{}.", if output.ended { "" } else { " yet" });
            }
            return Ok(0);
        }
    }
}

/// The operation or run of a flow that was wanted last, of those that have said something.
fn latest(client: &Client, flow: &Flow) -> Result<String, Box<Trouble>> {
    let session = session_of(client, flow)?;
    let Events { events } = all_events(client, &session.key)?;
    let wanted = events.iter().rev().flat_map(|row| match &row.event {
        Event::Wanted { operation } => vec![operation.id.clone()],
        // What a run needed before it could begin says more than nothing.
        Event::RunWanted { run, .. } => vec![run.clone(), format!("start-for-{run}")],
        _ => Vec::new(),
    });
    let mut last = None;
    for id in session
        .current
        .iter()
        .map(|operation| operation.id.clone())
        .chain(wanted)
        .take(10)
    {
        match watch::output(client, &id, None, Duration::ZERO)? {
            Some(output) if !output.lines.is_empty() => return Ok(id),
            Some(_) => last = last.or(Some(id)),
            None => {}
        }
    }
    last.ok_or_else(|| wish::nothing_of(&flow.typed))
}

/// A session's whole history, page by page.
fn all_events(client: &Client, key: &str) -> Result<Events, Box<Trouble>> {
    let mut events = Vec::new();
    let mut after = 0;
    loop {
        let address = match after {
            0 => format!("/v1/sessions/{key}/events"),
            after => format!("/v1/sessions/{key}/events?after={after}"),
        };
        let page: Option<Events> = client.find(&address)?;
        let page = page.map(|page| page.events).unwrap_or_default();
        let last = page.last().map_or(0, |row| row.revision);
        let is_whole = page.len() < watch::SHORTEST_PAGE || last <= after;
        events.extend(page);
        if is_whole {
            return Ok(Events { events });
        }
        after = last;
    }
}

fn events(client: &Client, what: &str, json: bool) -> Done {
    let flow = wish::find_flow(client, what)?.ok_or_else(|| wish::nothing_of(what))?;
    let events = all_events(client, &flow.key())?;
    if events.events.is_empty() {
        session_of(client, &flow)?;
    }
    if json {
        out_json(&events)
    } else {
        out(&show::events(&events.events))
    }
    Ok(0)
}

fn up(service: &Service, port: Option<u16>) -> Done {
    let local = service.local()?;
    // One that was started by itself would leave by itself.
    if let Some(host) = local.find().filter(service::leaves_by_itself) {
        local.end(&host)?;
    }
    let host = local.start(None, port)?;
    if service.global.json {
        out_json(
            &serde_json::json!({ "endpoint": host.endpoint, "pid": host.pid, "version": host.version, "log": local.log() }),
        );
    } else {
        note!(
            "The service runs at {} (process {}). Its log: {}",
            host.endpoint,
            host.pid,
            local.log().display()
        );
    }
    Ok(0)
}

fn down(service: &Service, stop_sessions: bool) -> Done {
    let local = service.local()?;
    let Some(client) = service.running()? else {
        // One that was killed has left them.
        agent::let_go(&local.state);
        note!("No service runs on this machine.");
        return Ok(0);
    };
    if stop_sessions {
        let sessions = client.sessions("")?;
        let mut stops = Vec::new();
        for session in sessions.into_iter().filter(|session| session.phase.is_live()) {
            let flow = Flow {
                typed: text::folder(&session.flow.lineage, home().as_deref()),
                reference: session.flow,
            };
            let id = flow.new_id(Some("stop"));
            client
                .send(&command(&id, &flow.reference, Wish::Stop))
                .map_err(|t| t.what(not_done(Kind::Stop, &flow)))?;
            stops.push((flow, id));
        }
        for (flow, id) in &stops {
            end_of_operation(&watch::operation(&client, &flow.key(), id)?, flow, false)?;
        }
    }
    if let Some(host) = local.find() {
        local.end(&host)?;
        note!("The service is gone.");
    }
    Ok(0)
}

fn man(folder: Option<&Path>) -> Done {
    args::manual(folder).map_err(|cause| {
        let place = folder.map_or_else(|| "standard output".into(), |folder| folder.display().to_string());
        Trouble::new(
            FAILED,
            "Command.NotWritten",
            format!("The manual cannot be written to {place}: {cause}"),
        )
        .next("name a folder that can be written to: pfsession man --out FOLDER")
    })?;
    Ok(0)
}

fn env(service: &Service) -> Done {
    let host = service.local()?.find_or_start()?;
    let variables = [
        ("AWS_ENDPOINT_URL", &host.endpoint),
        ("AWS_REGION", &host.region),
        ("AWS_DEFAULT_REGION", &host.region),
        ("AWS_ACCESS_KEY_ID", &host.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", &host.secret_access_key),
        ("PFSESSION_COMMANDS_URL", &host.commands_queue_url),
    ];
    if service.global.json {
        out_json(&variables.into_iter().collect::<BTreeMap<_, _>>());
    } else {
        variables
            .iter()
            .for_each(|(name, value)| out_as_said(&format!("export {name}={}", text::quoted(value))));
    }
    Ok(0)
}

/// Says `hint` and ends this command when it is interrupted, until what it gives back is dropped.
fn when_interrupted(hint: String) -> impl Drop {
    struct Until(Arc<Mutex<Option<String>>>);
    impl Drop for Until {
        fn drop(&mut self) {
            *self.0.lock().expect("nobody panics with it") = None;
        }
    }
    let hint = Arc::new(Mutex::new(Some(hint)));
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(nix::sys::signal::Signal::SIGINT);
    // Blocked before any other thread is there, so that the one that waits for it gets it.
    if signals.thread_block().is_ok() {
        let hint = hint.clone();
        std::thread::spawn(move || {
            if signals.wait().is_ok() {
                if let Some(hint) = hint.lock().expect("nobody panics with it").take() {
                    terminal::print_over(&hint);
                }
                std::process::exit(INTERRUPTED.into());
            }
        });
    }
    Until(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;

    /// A row of the samples, of which nobody has said why it ended.
    fn unexplained<T: DeserializeOwned>(sample: &str) -> T {
        let mut row: serde_json::Value = serde_json::from_str(sample).unwrap();
        row.as_object_mut().unwrap().remove("failure");
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn what_ended_without_a_reason_of_its_own_is_said_to_have_been_ended() {
        let flow = Flow {
            reference: FlowRef {
                workspace: "lab".into(),
                owner: "ann".into(),
                lineage: "/flow".into(),
            },
            typed: "flow".into(),
        };
        let operation = unexplained(include_str!("../../../events/table/operation/valid/canceled.json"));
        let run = unexplained(include_str!("../../../events/table/run/valid/canceled.json"));
        let texts = [
            end_of_operation(&operation, &flow, true).unwrap_err().to_string(),
            end_of_run(&run, &flow, false).unwrap_err().to_string(),
        ];
        expect_test::expect![[r#"
            error: the session of flow did not start: Something else was wanted of the session meanwhile. [Session.Canceled]
              whole output: pfsession logs start-1
            error: the run of flow did not succeed: The run was canceled. [Run.Canceled]
              whole output: pfsession logs start-for-run-2"#]].assert_eq(&texts.join("\n"));
    }
}
