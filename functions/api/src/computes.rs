//! Compute resources with the flows and runs that are active on them: listed, read and deleted.

use crate::{
    answers::{absent, may_read, ok, problem, wait_for},
    request::Request,
    sessions::{self, operation_view},
};
use aws::Aws;
use contract::{
    FlowRef, Millis, Principal,
    command::{Command, Wish},
    http::{ComputeView, Computes, SessionOnCompute},
    row::SessionRow,
};
use lifecycle::{
    access::{Action, denied, may},
    compute::{Compute, ComputePhase, IdleShutdown},
    size,
};
use serde_json::Value;
use shell::{Fault, Ports};
use std::collections::{BTreeMap, BTreeSet};

/// A page of the compute resources that sessions are on: the caller's own, or those of the whole
/// workspace.
pub(crate) async fn list(aws: &Aws, caller: &Principal, request: &Request) -> Result<Value, Fault> {
    let (rows, next) = match sessions::page(aws, caller, request).await? {
        Ok(page) => page,
        Err(refused) => return Ok(refused),
    };
    let ids: BTreeSet<&String> = rows.iter().filter_map(|row| row.session.compute.as_ref()).collect();
    let known: BTreeMap<&str, &SessionRow> = rows.iter().map(|row| (row.session.flow.as_str(), row)).collect();
    let mut computes = Vec::new();
    for id in ids {
        if let Some(held) = aws.load_compute(id).await? {
            computes.push(view(aws, &held, &known).await?);
        }
    }
    computes.sort_by(|a, b| (&a.owner, a.since, &a.id).cmp(&(&b.owner, b.since, &b.id)));
    Ok(ok(200, &Computes { computes, next }))
}

/// One of them; with `wait`, once no session is on it, and with `until=gone`, once it is gone.
pub(crate) async fn read(
    aws: &Aws,
    caller: &Principal,
    id: &str,
    request: &Request,
    wait: Millis,
) -> Result<Value, Fault> {
    let until_gone = request.text("until").is_some();
    let is_over = |held: &Compute| held.sessions.is_empty() && (!until_gone || held.phase == ComputePhase::Gone);
    let held = wait_for(
        aws,
        wait,
        || aws.load_compute(id),
        |held| held.as_ref().is_none_or(is_over),
    )
    .await?;
    match held.filter(|held| may_read(caller, &of(held))) {
        Some(held) => Ok(ok(200, &view(aws, &held, &BTreeMap::new()).await?)),
        None => Ok(absent("compute resource", id)),
    }
}

/// Has one of them deleted with all that is on it, by a command: it is kept in the queue, and
/// decided where the row is written.
pub(crate) async fn delete(aws: &Aws, caller: &Principal, id: &str) -> Result<Value, Fault> {
    let held = aws.load_compute(id).await?.filter(|held| may_read(caller, &of(held)));
    let Some(held) = held.filter(|held| held.phase != ComputePhase::Gone) else {
        return Ok(absent("compute resource", id));
    };
    let flow = of(&held);
    if !may(caller, Action::Stop, &flow.workspace, &flow.owner) {
        let refused = denied(caller, Action::Stop, &flow.workspace, &flow.owner);
        return Ok(problem(403, refused));
    }
    let command = Command {
        id: format!("delete-{}", aws.new_id()),
        flow,
        principal: Some(caller.clone()),
        wish: Wish::DeleteCompute { compute: id.to_owned() },
    };
    aws.command(&command).await?;
    Ok(ok(202, &view(aws, &held, &BTreeMap::new()).await?))
}

/// Whose it is, as a command says it.
fn of(held: &Compute) -> FlowRef {
    FlowRef {
        workspace: held.slot.workspace.clone(),
        owner: held.slot.owner.clone(),
        lineage: format!("compute/{}", held.id),
    }
}

/// * `known`: sessions that were read already.
pub(crate) async fn view(aws: &Aws, held: &Compute, known: &BTreeMap<&str, &SessionRow>) -> Result<ComputeView, Fault> {
    let mut on_it = Vec::new();
    for flow in &held.sessions {
        let row = match known.get(flow.as_str()) {
            Some(row) => Some((*row).clone()),
            None => aws.load_session(flow).await?,
        };
        on_it.extend(row.map(|row| SessionOnCompute {
            key: flow.clone(),
            flow: row.flow,
            phase: row.session.phase,
            since: row.session.since,
            current: row.session.current.as_ref().map(operation_view),
            runs: row.session.runs.into_keys().collect(),
        }));
    }
    Ok(ComputeView {
        id: held.id.clone(),
        workspace: held.slot.workspace.clone(),
        owner: held.slot.owner.clone(),
        phase: held.phase,
        since: held.since,
        size: held.slot.size.clone(),
        price: size::size(&held.slot.size).and_then(|size| size.price),
        identity: held.slot.identity.clone(),
        instance: held.slot.instance.clone(),
        shutdown_due: shell::shutdown_due(aws, held).await?,
        shutdown_warned: held.shutdown.is_some_and(IdleShutdown::is_warned),
        sessions: on_it,
        now: aws.now(),
    })
}
