//! The order of a run: its command, from its file and the arguments.

use super::Run;
use crate::{
    client::User,
    options::{Values, run_id},
    text::quoted,
    trouble::{Trouble, USAGE},
    wish::{Flow, data_file, flow_at},
};
use contract::{
    Code,
    command::{RunWish, Wanted},
    row::RunRow,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

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

/// The failure of a run that cannot be resumed.
pub(crate) fn not_resumable(run: &str, why: &str) -> Box<Trouble> {
    let message = format!("The run {run} cannot be resumed: {why}");
    Trouble::new(USAGE, Code::RunNotResumable, message).next("run the flow anew: pfsession run FLOW --data FILE")
}

/// A run that takes over what an earlier one has completed: the same wish over the same data.
///
/// # Errors
///
/// When the earlier run is no flow's, or its flow is not known any more. Final.
pub(crate) fn resume(run: &Run, earlier: RunRow, is_here: bool) -> Result<RunOrder, Box<Trouble>> {
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
        named: None,
        reference,
    };
    Ok(RunOrder {
        is_named: run.name.is_some(),
        id: run.name.clone().unwrap_or_else(|| flow.new_id(None)),
        wanted: Wanted {
            // Elsewhere the flow is what was sent with that run.
            folder: earlier.folder.clone().filter(|_| !is_here),
            ..run.wants.to_wanted()
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
/// When the flow or the data is not there, or the file asks for what this service does not do.
/// Final.
pub(crate) fn run_order(run: &Run, user: &User) -> Result<RunOrder, Box<Trouble>> {
    // Clap has seen to it that there is one, or an earlier run that is resumed.
    let named = run.flow.as_deref().unwrap_or(Path::new("."));
    let mut file = run_file(named)?;
    if let Some(earlier) = &file.resume_from {
        let message = format!("{}: a run file resumes no run", named.display());
        let next = format!("leave out resume_from, and name the run: pfsession run --resume-from {earlier}");
        return Err(Trouble::new(USAGE, Code::FlowBadRunFile, message).next(next));
    }
    let (flow, flow_file) = match file.flow.take() {
        Some(flow::Place::Local(place)) => (flow_at(&place, user)?, file_of(&place)),
        Some(flow::Place::Remote(_)) => {
            let key = "a flow that is not a folder of this machine";
            return Err(not_supported(named, key, "name a folder"));
        }
        None => {
            let message = format!("{} names no flow. Add a line `flow: <folder>`.", named.display());
            return Err(Trouble::new(USAGE, Code::FlowBadRunFile, message));
        }
    };
    let data = match (&run.data, file.data.take()) {
        (Some(typed), _) => Some(typed.clone()),
        (None, Some(flow::Place::Local(path))) => Some(path),
        (None, Some(flow::Place::Remote(_))) => {
            let key = "data that is not on this machine";
            return Err(not_supported(named, key, "download it, and name the file"));
        }
        (None, None) => None,
    };
    let mut typed = run.wants.to_wanted();
    let is_bare = || flow::kind(&flow.folder(user)).is_ok_and(|kind| kind == flow::Kind::Folder);
    if (flow_file.is_some() || run.entry.is_some()) && typed.image.is_none() && is_bare() {
        // The folder does not say that it holds a flow.
        typed.image = Some(flow::DEFAULT_IMAGE.into());
    }
    let wanted = typed.over_run_file(settings_of(&mut file));
    Ok(RunOrder {
        is_named: run.name.is_some() || file.name.is_some(),
        id: match run.name.clone().or(file.name.take()) {
            Some(id) => run_id(&id)
                .map_err(|why| Trouble::new(USAGE, Code::RunBadName, format!("The run's name {id} is none: {why}")))?,
            None => flow.new_id(None),
        },
        wanted,
        wish: RunWish {
            data: data.map(|path| data_file(&path)).transpose()?,
            file: flow_file.filter(|_| run.entry.is_none()),
            ..wish_of(run, file)
        },
        flow,
    })
}

/// The run file of this name; one that names only the flow if the name is the flow's.
fn run_file(named: &Path) -> Result<flow::RunYaml, Box<Trouble>> {
    let is_run_file = named.is_file() && named.extension().is_some_and(|e| e == "yml" || e == "yaml");
    if is_run_file && !flow::is_flow_file(named) {
        return flow::run_yaml(named).map_err(|failure| Trouble::of(USAGE, failure));
    }
    Ok(flow::RunYaml {
        flow: Some(flow::Place::Local(named.to_owned())),
        ..Default::default()
    })
}

fn not_supported(file: &Path, key: &str, next: &str) -> Box<Trouble> {
    let message = format!("{}: {key} is not supported yet", file.display());
    Trouble::new(USAGE, Code::RunNotSupported, message).next(next)
}

/// The settings of a session that a run file names. They are taken out of it.
fn settings_of(file: &mut flow::RunYaml) -> Wanted {
    let identity = match &file.identity {
        flow::Identity::User => None,
        flow::Identity::Managed { client_id: Some(id) } => Some(id.clone()),
        flow::Identity::Managed { client_id: None } => Some(contract::workspace::PRIMARY.to_owned()),
    };
    Wanted {
        folder: None,
        compute: file.resources.compute.take(),
        size: file.resources.instance_type.take(),
        identity,
        image: None,
        idle: None,
        network: file.network.take(),
        allow_hosts: file.allow_hosts.take(),
        from_run_file: Vec::new(),
    }
}

/// The run of the arguments, and of what its file says beside them; without data and flow file.
fn wish_of(run: &Run, file: flow::RunYaml) -> RunWish {
    let typed = run.column_mapping.iter();
    let column_mapping = typed.map(|(name, text)| (name.clone(), Value::from(text.as_str())));
    RunWish {
        resume_from: None,
        data: None,
        inputs: Values::of_all(&run.inputs),
        column_mapping: file.column_mapping.into_iter().chain(column_mapping).collect(),
        run: run.run.clone().or(file.run),
        file: None,
        entry: run.entry.clone(),
        variant: run.variant.clone().or(file.variant),
        environment_variables: merge(file.environment_variables.here(), &variables(run)),
        secret_variables: BTreeSet::new(),
        connections: by_node(file.connections, &run.connections),
        init: file.init.here().into_iter().chain(Values::of_all(&run.init)).collect(),
        command: run.command.clone(),
        stream: run.stream,
        display_name: file.display_name,
        description: file.description,
        tags: file.tags,
        properties: file.properties,
    }
}

/// The name of the flow's file, where the folder alone does not mean it.
fn file_of(typed: &Path) -> Option<String> {
    let name = typed.file_name()?.to_str()?;
    (flow::is_flow_file(typed) && !flow::is_plain_flow_name(name)).then(|| name.to_owned())
}

fn merge<V: Clone>(mut below: BTreeMap<String, V>, above: &[(String, V)]) -> BTreeMap<String, V> {
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
fn variables(run: &Run) -> Vec<(String, String)> {
    let settings = [
        ("PF_WORKER_COUNT", run.workers),
        ("PF_LINE_TIMEOUT_SEC", run.line_timeout),
    ];
    let settings = settings
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_string())));
    run.env.iter().cloned().chain(settings).collect()
}
