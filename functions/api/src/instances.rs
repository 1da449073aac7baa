//! Compute instances: the caller's own, or for an owner those of a user.

use crate::{
    answers::{MOST_USERS, absent, may_read, ok, problem, wait_for},
    computes,
    request::Request,
};
use aws::Aws;
use contract::{
    FlowRef, Millis, Principal,
    instance::{InstanceRow, InstanceView, Instances},
};
use lifecycle::{
    access::{Action, denied, may},
    compute::{Compute, ComputePhase},
};
use serde_json::Value;
use shell::{Fault, Ports};
use std::collections::BTreeMap;

pub(crate) async fn list(aws: &Aws, caller: &Principal, request: &Request) -> Result<Value, Fault> {
    let Some(owner) = whose(caller, request) else {
        return Ok(absent("list", "of compute instances"));
    };
    if request.text("users").is_some() {
        return list_all(aws, caller, &owner.workspace, request.text("after").unwrap_or_default()).await;
    }
    if !may_read(caller, &owner) {
        return Ok(problem(
            403,
            denied(caller, Action::Read, &owner.workspace, &owner.owner),
        ));
    }
    let mut instances = Vec::new();
    for row in aws.instances_of(&owner.workspace, &owner.owner).await? {
        instances.push(view(aws, row).await?);
    }
    Ok(ok(200, &Instances { instances, next: None }))
}

/// A page of those of all users of a workspace, user by user.
async fn list_all(aws: &Aws, caller: &Principal, workspace: &str, after: &str) -> Result<Value, Fault> {
    if !may(caller, Action::Read, workspace, "") {
        return Ok(problem(403, denied(caller, Action::Read, workspace, "")));
    }
    let mut users = aws.users_after(workspace, after).await?;
    users.truncate(MOST_USERS);
    let mut instances = Vec::new();
    for user in &users {
        for row in aws.instances_of(workspace, user).await? {
            instances.push(view(aws, row).await?);
        }
    }
    let next = users.pop();
    Ok(ok(200, &Instances { instances, next }))
}

/// One of them; with `wait`, once it is neither starting nor stopping.
pub(crate) async fn read(
    aws: &Aws,
    caller: &Principal,
    name: &str,
    request: &Request,
    wait: Millis,
) -> Result<Value, Fault> {
    let Some(owner) = whose(caller, request).filter(|owner| may_read(caller, owner)) else {
        return Ok(absent("compute instance", name));
    };
    let Some(row) = aws.load_instance(&owner.workspace, &owner.owner, name).await? else {
        return Ok(absent("compute instance", name));
    };
    let slot = shell::slot_of(&row);
    let is_settled = |held: &Option<Compute>| {
        let phase = held.as_ref().map(|held| held.phase);
        matches!(phase, None | Some(ComputePhase::Up | ComputePhase::Gone))
    };
    wait_for(aws, wait, || aws.load_slot(&slot), is_settled).await?;
    Ok(ok(200, &view(aws, row).await?))
}

/// Whose instances are meant: those of the parameter `user`, or else the caller's.
fn whose(caller: &Principal, request: &Request) -> Option<FlowRef> {
    let Principal::User { name, workspace, .. } = caller else {
        return None;
    };
    Some(FlowRef {
        workspace: workspace.clone(),
        owner: request.text("user").unwrap_or(name).to_owned(),
        lineage: String::new(),
    })
}

async fn view(aws: &Aws, row: InstanceRow) -> Result<InstanceView, Fault> {
    let held = aws.load_slot(&shell::slot_of(&row)).await?;
    let compute = match held.filter(|held| held.phase != ComputePhase::Gone) {
        Some(held) => Some(computes::view(aws, &held, &BTreeMap::new()).await?),
        None => None,
    };
    Ok(InstanceView { instance: row, compute })
}
