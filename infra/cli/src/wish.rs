//! From what was typed, and a run's own file, to the command that is sent.

use crate::{
    args,
    client::{Client, User},
    text::quoted,
    trouble::{NONE, Trouble, USAGE},
};
use contract::{
    Failure, FlowRef,
    command::{RunWish, SERVERLESS, Wanted},
    http::SessionView,
    row::RunRow,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A flow, and how the user calls it.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) reference: FlowRef,
    /// As typed, so that it can be typed again.
    pub(crate) typed: String,
}

impl Flow {
    pub(crate) fn key(&self) -> String {
        self.reference.key()
    }

    /// The last part of the folder's path.
    fn name(&self) -> &str {
        self.reference.lineage.rsplit('/').next().unwrap_or_default()
    }

    /// The default name of a webhook's rule for this flow.
    pub(crate) fn rule_name(&self, event: &str, then: &str) -> String {
        let name: String = format!("{}-{event}-{then}", self.name())
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .collect();
        let short = name.trim_matches('-');
        short[short.len().saturating_sub(80)..].trim_matches('-').to_owned()
    }

    /// An id that nobody has, for a command about this flow: its name or the word, and 48 random bits.
    pub(crate) fn new_id(&self, word: Option<&str>) -> String {
        let name: String = word
            .unwrap_or(self.name())
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(40)
            .collect();
        let name = name.trim_matches('-');
        format!("{}-{}", if name.is_empty() { "run" } else { name }, random::<6>())
    }
}

/// So many random bytes, in hexadecimal digits.
pub(crate) fn random<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    hex::encode(bytes)
}

/// The folder that is meant: a flow file stands for the one that it is in.
pub(crate) fn folder_of(typed: &Path) -> &Path {
    if flow::is_flow_file(typed) {
        typed
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    } else {
        typed
    }
}

/// The name of the flow's file, where the folder alone does not mean it.
fn file_of(typed: &Path) -> Option<String> {
    let name = typed.file_name()?.to_str()?;
    (flow::is_flow_file(typed) && !flow::is_plain_flow_name(name)).then(|| name.to_owned())
}

/// The flow in a folder. A flow file stands for the folder that it is in.
///
/// # Errors
///
/// Those of [`flow::canonical`]. Final.
pub(crate) fn flow_at(typed: &Path, user: &User) -> Result<Flow, Box<Trouble>> {
    let folder = folder_of(typed);
    let canonical = flow::canonical(folder).map_err(|failure| Trouble::of(USAGE, failure))?;
    let lineage = canonical.to_str().ok_or_else(|| {
        let message = format!(
            "The path of {} is not UTF-8. Rename the folder, or the one that it is in.",
            folder.display()
        );
        Trouble::new(USAGE, "Flow.BadPath", message)
    })?;
    let reference = FlowRef {
        workspace: user.workspace.clone(),
        owner: user.name.clone(),
        lineage: lineage.into(),
    };
    Ok(Flow {
        reference,
        typed: quoted(&folder.display().to_string()),
    })
}

/// Finds the flow that is meant: by its folder, by the start of its session's key, or by a folder that is gone. `None` if there is no such
/// flow; then it may be the id of something.
///
/// # Errors
///
/// When more than one session's key starts so. Final.
pub(crate) fn find_flow(client: &Client, what: &str) -> Result<Option<Flow>, Box<Trouble>> {
    if Path::new(what).exists() {
        return flow_at(Path::new(what), &client.user).map(Some);
    }
    let is_key = (4..=32).contains(&what.len()) && what.bytes().all(|b| b.is_ascii_hexdigit());
    let gone = std::path::absolute(what).ok();
    if !is_key && !what.contains('/') {
        return Ok(None);
    }
    let is_meant = |session: &SessionView| {
        is_key && session.key.starts_with(&what.to_ascii_lowercase())
            || gone.as_deref() == Some(Path::new(&session.flow.lineage))
    };
    let mut meant = client.sessions("")?;
    meant.retain(is_meant);
    if meant.is_empty() && is_key {
        meant = of_others(client, what)?;
    }
    match &meant[..] {
        [] => Ok(None),
        [one] => Ok(Some(Flow {
            reference: one.flow.clone(),
            typed: quoted(what),
        })),
        _ => Err(Trouble::new(
            USAGE,
            "Session.Ambiguous",
            format!("{} sessions have a key that starts with {what}", meant.len()),
        )
        .next("give more of the key, or the flow's folder; `pfsession list --all` shows both")),
    }
}

/// The sessions of the whole workspace whose keys begin so; none for a user who may not see them.
fn of_others(client: &Client, key: &str) -> Result<Vec<SessionView>, Box<Trouble>> {
    let key = key.to_ascii_lowercase();
    match client.sessions(&format!("users=all&key={key}")) {
        Err(trouble) if trouble.failure.error == "Access.Denied" => Ok(Vec::new()),
        found => found,
    }
}

/// There is no flow, session, operation or run of this name.
pub(crate) fn nothing_of(what: &str) -> Box<Trouble> {
    Trouble::new(
        NONE,
        "Session.None",
        format!("There is no folder, session, operation or run {what}"),
    )
    .next("see what there is: pfsession list --all; of others, if you are an owner: pfsession list --all --all-users")
}

impl args::Wants {
    /// The settings that were typed.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            folder: None,
            size: self.size.clone(),
            identity: self.identity.clone(),
            image: self.image.clone(),
            idle: self.idle,
            network: self.network.map(Into::into),
            allow_hosts: self.allow_hosts(),
            compute: match (&self.compute, self.compute_type) {
                (None, Some(args::ComputeType::Serverless)) => Some(SERVERLESS.to_owned()),
                (name, _) => name.clone(),
            },
            from_run_file: Vec::new(),
        }
    }

    /// The settings that were typed, or `None`, which keeps those that the session has.
    pub(crate) fn change(&self) -> Option<Wanted> {
        Some(self.wanted()).filter(|wanted| *wanted != Wanted::default())
    }
}

/// A run as it is sent.
#[derive(Debug)]
pub(crate) struct RunOrder {
    pub(crate) flow: Flow,
    pub(crate) id: String,
    /// Whether the id is one that the user chose.
    pub(crate) is_named: bool,
    pub(crate) wanted: Wanted,
    pub(crate) wish: RunWish,
}

/// Why a run cannot be resumed.
pub(crate) fn not_resumable(run: &str, why: &str) -> Box<Trouble> {
    let message = format!("The run {run} cannot be resumed: {why}");
    Trouble::new(USAGE, "Run.NotResumable", message).next("run the flow anew: pfsession run FLOW --data FILE")
}

/// A run that takes over what an earlier one has completed: the same wish over the same data.
///
/// # Errors
///
/// When the earlier run is no flow's, or its flow is not known any more. Final.
pub(crate) fn resumed(run: &args::Run, earlier: RunRow, is_here: bool) -> Result<RunOrder, Box<Trouble>> {
    let cannot = |why: &str| not_resumable(&earlier.id, why);
    if !earlier.wish.command.is_empty() {
        return Err(cannot("it is a command, which has no lines"));
    }
    if !earlier.wish.secret_variables.is_empty() && run.env_secret.is_empty() {
        return Err(cannot(
            "it had secret variables, which are kept nowhere; give them again with --env-secret",
        ));
    }
    let Some(reference) = earlier.of.clone() else {
        return Err(cannot("it is of an earlier version, which did not keep its flow"));
    };
    let flow = Flow {
        typed: quoted(&reference.lineage),
        reference,
    };
    Ok(RunOrder {
        is_named: run.name.is_some(),
        id: run.name.clone().unwrap_or_else(|| flow.new_id(None)),
        wanted: Wanted {
            // Elsewhere the flow is what was sent with that run.
            folder: earlier.folder.clone().filter(|_| !is_here),
            ..run.wants.wanted()
        },
        wish: RunWish {
            resume_from: Some(earlier.id.clone()),
            environment_variables: earlier
                .wish
                .environment_variables
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .chain(run.env.iter().cloned())
                .collect(),
            ..earlier.wish.clone()
        },
        flow,
    })
}

/// Puts together a run from its file, if there is one, and from what was typed, which counts more.
///
/// # Errors
///
/// When the flow or the data is not there, or the file asks for what this service does not do. Final.
pub(crate) fn run_order(run: &args::Run, user: &User) -> Result<RunOrder, Box<Trouble>> {
    // Clap has seen to it that there is one, or an earlier run that is resumed.
    let named = run.flow.as_deref().unwrap_or(Path::new("."));
    let is_run_file = named.is_file() && named.extension().is_some_and(|e| e == "yml" || e == "yaml");
    let file = if is_run_file && !flow::is_flow_file(named) {
        flow::run_yaml(named).map_err(|failure| Trouble::of(USAGE, failure))?
    } else {
        flow::RunYaml {
            flow: Some(flow::Place::Local(named.to_owned())),
            ..Default::default()
        }
    };
    let cannot = |key: &str, next: &str| {
        Err(Trouble::new(
            USAGE,
            "Run.NotSupported",
            format!("{}: {key} is not supported yet", named.display()),
        )
        .next(next))
    };
    let identity = match file.identity {
        flow::Identity::User => None,
        flow::Identity::Managed { client_id: Some(id) } => Some(id),
        flow::Identity::Managed { client_id: None } => Some(contract::workspace::PRIMARY.to_owned()),
    };
    let (flow, flow_file) = match file.flow {
        Some(flow::Place::Local(place)) => (flow_at(&place, user)?, file_of(&place)),
        Some(flow::Place::Remote(_)) => return cannot("a flow that is not a folder of this machine", "name a folder"),
        None => {
            let message = format!("{} names no flow. Add a line `flow: <folder>`.", named.display());
            return Err(Trouble::new(USAGE, "Flow.BadRunFile", message));
        }
    };
    let data = match (&run.data, file.data) {
        (Some(typed), _) => Some(typed.clone()),
        (None, Some(flow::Place::Local(path))) => Some(path),
        (None, Some(flow::Place::Remote(_))) => {
            return cannot("data that is not on this machine", "download it, and name the file");
        }
        (None, None) => None,
    };
    let mut typed = run.wants.wanted();
    let is_bare = || flow::kind(Path::new(&flow.reference.lineage)).is_ok_and(|kind| kind == flow::Kind::Folder);
    if (flow_file.is_some() || run.entry.is_some()) && typed.image.is_none() && is_bare() {
        // The folder does not say that it holds a flow.
        typed.image = Some(flow::DEFAULT_IMAGE.into());
    }
    let of_file = Wanted {
        folder: None,
        compute: file.resources.compute,
        size: file.resources.instance_type,
        identity,
        image: None,
        idle: None,
        network: file.network,
        allow_hosts: file.allow_hosts,
        from_run_file: Vec::new(),
    };
    Ok(RunOrder {
        is_named: run.name.is_some() || file.name.is_some(),
        id: match run.name.clone().or(file.name) {
            Some(id) => args::run_id(&id)
                .map_err(|why| Trouble::new(USAGE, "Run.BadName", format!("The run's name {id} is none: {why}")))?,
            None => flow.new_id(None),
        },
        wanted: typed.over_run_file(of_file),
        wish: RunWish {
            resume_from: None,
            data: data.map(|path| data_file(&path)).transpose()?,
            inputs: run.inputs.iter().cloned().collect(),
            column_mapping: file
                .column_mapping
                .into_iter()
                .chain(
                    run.column_mapping
                        .iter()
                        .map(|(name, text)| (name.clone(), Value::from(text.as_str()))),
                )
                .collect(),
            run: run.run.clone().or(file.run),
            file: flow_file.filter(|_| run.entry.is_none()),
            entry: run.entry.clone(),
            variant: run.variant.clone().or(file.variant),
            environment_variables: merged(file.environment_variables.here(), &variables(run)),
            secret_variables: BTreeSet::new(),
            connections: by_node(file.connections, &run.connections),
            init: merged(file.init.here(), &run.init),
            command: run.command.clone(),
            stream: run.stream,
            display_name: file.display_name,
            description: file.description,
            tags: file.tags,
            properties: file.properties,
        },
        flow,
    })
}

fn merged<V: Clone>(mut below: BTreeMap<String, V>, above: &[(String, V)]) -> BTreeMap<String, V> {
    below.extend(above.iter().cloned());
    below
}

/// Overrides of a flow's connections, by node.
fn by_node(
    mut below: BTreeMap<String, BTreeMap<String, String>>,
    above: &[(String, String, String)],
) -> BTreeMap<String, BTreeMap<String, String>> {
    for (node, key, value) in above {
        below
            .entry(node.clone())
            .or_default()
            .insert(key.clone(), value.clone());
    }
    below
}

/// The variables that were typed, with those that promptflow reads its settings from.
fn variables(run: &args::Run) -> Vec<(String, String)> {
    let settings = [
        ("PF_WORKER_COUNT", run.workers),
        ("PF_LINE_TIMEOUT_SEC", run.line_timeout),
    ];
    let settings = settings
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_string())));
    run.env.iter().cloned().chain(settings).collect()
}

pub(crate) fn data_file(path: &Path) -> Result<String, Box<Trouble>> {
    let shown = path.display();
    let found = std::fs::canonicalize(path).map_err(|e| {
        let failure = Failure::new(
            "Run.NoData",
            format!("The data file {shown} cannot be read: {e}. Give the path of a file of JSON lines."),
        );
        Trouble::of(USAGE, failure)
    })?;
    found
        .into_os_string()
        .into_string()
        .map_err(|_| Trouble::new(USAGE, "Run.NoData", format!("The path of {shown} is not UTF-8")))
}
