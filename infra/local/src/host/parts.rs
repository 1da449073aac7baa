//! The resources of the template, made on one machine.

use super::{ACCEPT_COMMAND, API, Config, WEBHOOK_SECRETS};
use crate::{
    access::{Access, Caller, Issuer},
    asl::Definition,
    faults::Faults,
    functions::{self, Plan, Pool},
    machine::Machine,
    memory,
    queues::Queues,
    schedule,
    store::{QUEUES, Store},
    table::Table,
    template::{Function, Template},
};
use anyhow::Context;
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};
use tokio::{sync::watch, task::JoinSet};

/// The template's queues, table, state machine and functions.
pub(super) struct Parts {
    pub(super) store: Arc<Store>,
    pub(super) queues: Arc<Queues>,
    pub(super) access: Arc<Access>,
    pub(super) machine: Arc<Machine>,
    pub(super) pools: HashMap<String, Arc<Pool>>,
    template: Template,
}

impl Parts {
    /// Opens what is kept in the state folder.
    ///
    /// * `prefix`: of the addresses of queues.
    ///
    /// # Errors
    ///
    /// Final: the template and the host do not fit, or a database cannot be opened.
    pub(super) fn open(
        config: &Config,
        issuer: &Issuer,
        prefix: &str,
        runtime_api: &functions::RuntimeApi,
        faults: &Arc<Faults>,
        closed: watch::Receiver<bool>,
    ) -> anyhow::Result<(Self, Table)> {
        let state = &config.state;
        let store = Arc::new(Store::open(&state.join("queues.db"), QUEUES).context("queues.db cannot be opened")?);
        let queues = Arc::new(Queues::open(store.clone(), faults.clone(), closed)?);
        let access = Arc::new(Access::open(store.clone())?);
        let mut template = Template::read(
            include_str!("../../../template.yaml"),
            prefix,
            &parameters(issuer, state)?,
        )?;
        make_queues(&template, &queues)?;
        let table = Table::open(&state.join("table.db"), &template.tables)?;
        let (machine, substitutions) = template.machine.take().context("the template has no state machine")?;
        let definition = Definition::read(include_str!("../../../lifecycle.asl.json"), &substitutions)?;
        let machine = Machine::new(&machine, definition, store.clone(), queues.clone(), faults.clone());
        let pool = |function: &Function| {
            let plan = plan_of(function, config, &access, runtime_api);
            (function.name.clone(), Pool::start(plan, faults.clone()))
        };
        let pools = template.functions.iter().map(pool).collect();
        let parts = Self {
            store,
            queues,
            access,
            machine: Arc::new(machine),
            pools,
            template,
        };
        Ok((parts, table))
    }

    /// Feeds the functions from their queues, and keeps the schedules and the state machine's time.
    ///
    /// # Errors
    ///
    /// Final: the template names a queue that it does not have.
    pub(super) fn start(&self, work: &mut JoinSet<anyhow::Result<()>>, faults: &Arc<Faults>) -> anyhow::Result<()> {
        let queue_of = |name: &str| {
            let queue = self.queues.get(name);
            queue.with_context(|| format!("the template has no queue {name}"))
        };
        for function in &self.template.functions {
            let Some((source, most)) = &function.source else {
                continue;
            };
            let (queue, pool, most) = (queue_of(source)?, self.pools[&function.name].clone(), *most);
            let (queues, faults) = (self.queues.clone(), faults.clone());
            work.spawn(async move {
                functions::feed(pool, queues, queue, most, faults).await;
                Ok(())
            });
        }
        for schedule in self.template.schedules.clone() {
            let (queue, queues) = (queue_of(&schedule.queue)?, self.queues.clone());
            work.spawn(async move {
                schedule::keep(schedule, queues, queue).await;
                Ok(())
            });
        }
        let machine = self.machine.clone();
        work.spawn(async move {
            machine.keep_time().await;
            Ok(())
        });
        Ok(())
    }
}

fn make_queues(template: &Template, queues: &Queues) -> anyhow::Result<()> {
    for (name, settings) in &template.queues {
        let queue = queues.ensure(name, settings.clone())?;
        let mut sources = template
            .functions
            .iter()
            .filter_map(|function| function.source.as_ref());
        if sources.any(|(source, _)| source == name) || name == contract::names::COMPUTE_REQUESTS.name {
            // Who had received these has ended with the host before.
            queues.release(&queue)?;
        }
    }
    Ok(())
}

fn parameters(issuer: &Issuer, state: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let sweep = match std::env::var("PFSESSION_SWEEP_MS") {
        Ok(text) => text
            .parse::<u64>()
            .with_context(|| format!("PFSESSION_SWEEP_MS is {text:?}, which is no number"))?,
        Err(_) => 1000,
    };
    Ok(BTreeMap::from(
        [
            ("SweepRate", format!("rate({sweep} milliseconds)")),
            ("IssuerKey", issuer.public_pem()),
            ("WebhookSecrets", state.join(WEBHOOK_SECRETS).display().to_string()),
            ("DriverSenders", Caller::Driver.sender()),
            ("SessionsPerUser", memory::sessions_per_user().to_string()),
            // Nobody shares this host, and nobody collects metrics here.
            ("NamePrefix", String::new()),
            ("MetricsNamespace", String::new()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    ))
}

/// The address of the daemon that takes segments of traces, as the Lambda service says it to a
/// function.
const TRACES: &str = "AWS_XRAY_DAEMON_ADDRESS";

fn plan_of(function: &Function, config: &Config, access: &Access, runtime_api: &functions::RuntimeApi) -> Plan {
    let (program, arguments) =
        functions::program_of(&function.name, config.functions_dir.as_deref(), &config.executable);
    let (key_id, secret) = access.lend(Caller::Function(function.name.clone()));
    let mut environment = function.environment.clone();
    environment.extend(
        [
            (
                "AWS_ENDPOINT_URL",
                format!("{}{}", socket::UNIX, socket::path(&config.state).display()),
            ),
            ("AWS_ACCESS_KEY_ID", key_id),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    // Who collects traces of this host collects its functions' too.
    if let Ok(daemon) = std::env::var(TRACES) {
        environment.insert(TRACES.to_owned(), daemon);
    }
    if [API, ACCEPT_COMMAND].contains(&function.name.as_str()) {
        let runs = config.state.join("runs").display().to_string();
        environment.insert(contract::names::RUNS_FOLDER.to_owned(), runs);
    }
    Plan {
        name: function.name.clone(),
        program,
        arguments,
        environment,
        timeout: function.timeout,
        most: if function.has_url { 16 } else { 4 },
        // A person waits for an answer of the api.
        spare: usize::from(function.has_url && function.name == API),
        log: config.state.join("log").join(format!("{}.log", function.name)),
        runtime_api: runtime_api.clone(),
    }
}
