//! Rows as DynamoDB items, and back.

use aws_sdk_dynamodb::types::AttributeValue;
use contract::{
    Millis,
    agent::OutputLine,
    connections::ConnectionRow,
    names,
    row::{OperationRow, RunRow, RunStatus, SessionRow},
};
use lifecycle::{
    compute::Slot,
    quota::{Usage, Use},
    session::Message,
};
use serde::{Serialize, de::DeserializeOwned};
use shell::Fault;
use std::collections::{BTreeMap, HashMap};

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(crate) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(crate) fn json(value: &impl Serialize) -> AttributeValue {
    text(serde_json::to_string(value).expect("a row is always JSON"))
}

pub(crate) fn key(pk: String, sk: impl Into<String>) -> Item {
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

pub(crate) fn session_key(flow: &str) -> Item {
    key(format!("FLOW#{flow}"), "SESSION")
}

pub(crate) fn log_key(flow: &str, revision: u64) -> Item {
    key(format!("FLOW#{flow}"), format!("LOG#{revision:012}"))
}

/// The partition of a workspace's connections, and where in it those of a user, or of nobody,
/// begin.
pub(crate) fn connections_of(workspace: &str, user: Option<&str>) -> (String, String) {
    let whose = user.map_or_else(|| "WORKSPACE#".to_owned(), |user| format!("USER#{user}#"));
    (format!("CONNECTIONS#{workspace}"), whose)
}

pub(crate) fn connection_key(row: &ConnectionRow) -> Item {
    let (pk, whose) = connections_of(&row.workspace, row.user.as_deref());
    key(pk, format!("{whose}{}", row.name))
}

pub(crate) fn packages_key(flow: &str) -> Item {
    key(format!("FLOW#{flow}"), "PACKAGES")
}

pub(crate) fn network_key(flow: &str) -> Item {
    key(format!("FLOW#{flow}"), "NETWORK")
}

pub(crate) fn used_key(flow: &str) -> Item {
    key(format!("FLOW#{flow}"), "USED")
}

pub(crate) fn install_key(flow: &str, number: u64) -> Item {
    key(format!("FLOW#{flow}"), format!("INSTALL#{number:012}"))
}

pub(crate) fn operation_key(id: &str) -> Item {
    key(format!("OP#{id}"), "OP")
}

pub(crate) fn run_key(id: &str) -> Item {
    key(format!("RUN#{id}"), "RUN")
}

/// The partition of a user's runs.
pub(crate) fn runs_of(workspace: &str, owner: &str) -> String {
    format!("RUNS#{workspace}#{owner}")
}

/// A run's place in its user's list; none of a run of an earlier version.
pub(crate) fn listed_run(row: &RunRow) -> Option<Item> {
    let of = row.of.as_ref()?;
    Some(key(
        runs_of(&of.workspace, &of.owner),
        format!("{:013}#{}", row.accepted, row.id),
    ))
}

/// A row of lines has the place of its last line; the first tells two rows apart that end with the
/// same one.
pub(crate) fn output_key(of: &str, lines: &[OutputLine]) -> Item {
    let (first, last) = (
        lines.iter().map(|line| line.seq).min(),
        lines.iter().map(|line| line.seq).max(),
    );
    let place = format!("{:012}#{:012}", last.unwrap_or_default(), first.unwrap_or_default());
    key(format!("OUT#{of}"), place)
}

pub(crate) fn compute_key(id: &str) -> Item {
    key(format!("COMPUTE#{id}"), "COMPUTE")
}

pub(crate) fn instances_of(workspace: &str, owner: &str) -> String {
    format!("INSTANCES#{workspace}#{owner}")
}

pub(crate) fn instance_key(workspace: &str, owner: &str, name: &str) -> Item {
    key(instances_of(workspace, owner), name)
}

pub(crate) fn slot_key(slot: &Slot) -> Item {
    // No VM size is empty.
    if let Some(name) = &slot.instance {
        return key(format!("SLOT#{}#{}##{name}", slot.workspace, slot.owner), "SLOT");
    }
    let identity = slot.identity.as_deref().unwrap_or_default();
    key(
        format!("SLOT#{}#{}#{}#{identity}", slot.workspace, slot.owner, slot.size),
        "SLOT",
    )
}

pub(crate) fn quota_key(workspace: &str, user: &str) -> Item {
    key(format!("QUOTA#{workspace}#{user}"), "QUOTA")
}

/// A user's usage. A row of an earlier version, and what such a version adds to a newer one, is a
/// set of flows' keys.
pub(crate) fn usage_of(item: &Item) -> Result<Usage, Fault> {
    let mut usage = match item.get("body") {
        Some(_) => body(item)?,
        None => Usage::default(),
    };
    if let Some(AttributeValue::Ss(flows)) = item.get("sessions") {
        for flow in flows {
            usage.sessions.entry(flow.clone()).or_insert_with(|| Use {
                lineage: String::new(),
                size: lifecycle::size::WHOLE_MACHINE.to_owned(),
                compute: String::new(),
                since: None,
            });
        }
    }
    Ok(usage)
}

pub(crate) fn workspace_key(workspace: &str) -> Item {
    key(format!("WORKSPACE#{workspace}"), "SETTINGS")
}

pub(crate) fn role_key(workspace: &str, user: &str) -> Item {
    key(format!("WORKSPACE#{workspace}"), format!("ROLE#{user}"))
}

pub(crate) fn webhooks_key(workspace: &str) -> Item {
    key(format!("WORKSPACE#{workspace}"), "WEBHOOKS")
}

pub(crate) fn delivery_key(workspace: &str, sender: &str, digest: &str) -> Item {
    key(format!("DELIVERY#{workspace}#{sender}"), digest)
}

/// The partition of the users of a workspace who have sessions, or had some.
pub(crate) fn users_of(workspace: &str) -> String {
    format!("USERS#{workspace}")
}

/// The partition of the owner index.
pub(crate) fn owner_of(workspace: &str, owner: &str) -> String {
    format!("{workspace}#{owner}")
}

/// The shard of the due index that a row is in: spread evenly by the row's own key.
pub(crate) fn shard_of(key: &str) -> String {
    let sum = key
        .bytes()
        .fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    (sum % names::DUE_SHARDS).to_string()
}

/// The two attributes of a row that is not final.
pub(crate) fn due(item: &mut Item, key: &str, due: Option<Millis>) {
    if let Some(at) = due {
        item.insert("due_shard".to_owned(), text(shard_of(key)));
        item.insert("due_at".to_owned(), number(at));
    }
}

pub(crate) fn session_item(row: &SessionRow, due_at: Option<Millis>) -> Item {
    let session = &row.session;
    let mut item = session_key(&session.flow);
    item.insert("body".to_owned(), json(row));
    item.insert("revision".to_owned(), number(session.revision));
    item.insert("owner".to_owned(), text(owner_of(&session.workspace, &session.owner)));
    item.insert("phase".to_owned(), json(&session.phase));
    let outbox = row
        .outbox
        .iter()
        .map(|(key, effect)| (key.clone(), json(effect)))
        .collect();
    item.insert("outbox".to_owned(), AttributeValue::M(outbox));
    due(&mut item, &session.flow, due_at);
    item
}

pub(crate) fn session_of(item: &Item) -> Result<SessionRow, Fault> {
    let mut row: SessionRow = body(item)?;
    if let Some(AttributeValue::M(outbox)) = item.get("outbox") {
        let entry = |(key, value): (&String, &AttributeValue)| Ok((key.clone(), parse::<Message>(value)?));
        row.outbox = outbox.iter().map(entry).collect::<Result<BTreeMap<_, _>, Fault>>()?;
    }
    Ok(row)
}

pub(crate) fn operation_of(item: &Item) -> Result<OperationRow, Fault> {
    let mut row: OperationRow = body(item)?;
    row.setup = item.get("setup").map(parse).transpose()?;
    Ok(match item.get("end") {
        Some(end) => row.with_end(parse(end)?),
        None => row,
    })
}

pub(crate) fn run_of(item: &Item) -> Result<RunRow, Fault> {
    let mut row: RunRow = body(item)?;
    let number = |name: &str| item.get(name).and_then(|at| at.as_n().ok()?.parse().ok());
    row.started = number("started");
    row.deleted = number("deleted");
    row.display_name = item.get("display_name").and_then(|name| name.as_s().ok().cloned());
    row.archived = item.get("archived").is_some_and(|is| is.as_bool() == Ok(&true));
    if let Some(end) = item.get("end") {
        return Ok(row.with_end(parse(end)?));
    }
    if row.started.is_some() && !row.status.is_final() {
        row.status = RunStatus::Running;
    }
    Ok(row)
}

pub(crate) fn body<T: DeserializeOwned>(item: &Item) -> Result<T, Fault> {
    let missing = || Fault::outside("reading a row")("the row has no body".into());
    parse(item.get("body").ok_or_else(missing)?)
}

fn parse<T: DeserializeOwned>(value: &AttributeValue) -> Result<T, Fault> {
    let text = value
        .as_s()
        .map_err(|_| Fault::outside("reading a row")("an attribute is no text".into()))?;
    serde_json::from_str(text).map_err(|cause| Fault::outside("reading a row")(cause.into()))
}
