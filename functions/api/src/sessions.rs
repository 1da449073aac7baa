//! Sessions: lists of the caller's own or of the whole workspace, one, and what is known of it.

use crate::{
    answers::{MOST_USERS, absent, may_read, ok, problem, readable},
    request::Request,
};
use aws::Aws;
use contract::{
    Principal,
    http::{Events, Installs, OperationView, SessionView, Sessions, Why},
    row::SessionRow,
    workspace::WorkspaceSettings,
};
use lifecycle::{
    Code, Failure, Millis,
    access::{Action, denied, may},
    session::{Named, Operation, Session},
};
use serde_json::Value;
use shell::{Fault, Ports};
use std::{collections::VecDeque, path::Path};

/// The most sessions of a page: an answer of a function has at most 6 MB.
const MOST: u64 = 1000;

/// A page of sessions.
pub(crate) async fn list(aws: &Aws, caller: &Principal, request: &Request) -> Result<Value, Fault> {
    Ok(match page(aws, caller, request).await? {
        Ok((rows, next)) => {
            let now = aws.now();
            let workspace = match caller {
                Principal::User { workspace, .. } => workspace,
                Principal::Sweep => "",
            };
            let of = shell::workspace::settings_of(aws, workspace).await?;
            let sessions = rows.iter().map(|row| view(row, &of, now)).collect();
            ok(200, &Sessions { sessions, next })
        }
        Err(refused) => refused,
    })
}

/// The rows of a page, and where the next one begins; or what the caller is told.
pub(crate) async fn page(
    aws: &Aws,
    caller: &Principal,
    request: &Request,
) -> Result<Result<(Vec<SessionRow>, Option<String>), Value>, Fault> {
    let Principal::User { name, workspace, .. } = caller else {
        return Ok(Err(absent("list", "of sessions")));
    };
    let is_of_all = match request.text("users") {
        None => false,
        Some("all") => true,
        Some(_) => return Ok(Err(problem(400, bad_users()))),
    };
    if is_of_all && !may(caller, Action::Read, workspace, "") {
        return Ok(Err(problem(403, denied(caller, Action::Read, workspace, ""))));
    }
    let most = request.number("limit").unwrap_or(MOST).clamp(1, MOST) as usize;
    let prefix = request.text("key").unwrap_or_default();
    // No user's name has this character.
    let (first, mut after) = match request.text("after").and_then(|place| place.split_once('#')) {
        Some((user, key)) => (user.to_owned(), key.to_owned()),
        None => (String::new(), String::new()),
    };
    let mut users = VecDeque::from(match (is_of_all, first.is_empty()) {
        (false, _) => vec![name.clone()],
        (true, false) => vec![first],
        (true, true) => aws.users_after(workspace, "").await?,
    });
    let (mut rows, mut looked_at) = (Vec::new(), 0);
    let mut next = None;
    while let Some(user) = users.pop_front() {
        let wanted = most - rows.len();
        let found = aws.sessions_of((workspace, &user), prefix, &after, wanted).await?;
        looked_at += 1;
        after.clear();
        if found.len() == wanted || looked_at == MOST_USERS {
            let last = found.last().map_or("~", |row| row.session.flow.as_str());
            next = Some(format!("{user}#{last}"));
        }
        rows.extend(found);
        if next.is_some() {
            break;
        }
        if is_of_all && users.is_empty() {
            users.extend(aws.users_after(workspace, &user).await?);
        }
    }
    Ok(Ok((rows, next)))
}

fn bad_users() -> Failure {
    Failure::new(
        Code::HttpBadUsers,
        "The parameter users is all, or is left out for the caller's own sessions.",
    )
}

/// One session. A caller that may not read it does not learn that it exists.
pub(crate) async fn read(aws: &Aws, caller: &Principal, key: &str) -> Result<Value, Fault> {
    match aws.load_session(key).await? {
        Some(row) if may_read(caller, &row.flow) => Ok(ok(200, &whole_view(aws, &row).await?)),
        _ => Ok(absent("session", key)),
    }
}

/// One session, and what was decided about it last.
pub(crate) async fn why(aws: &Aws, caller: &Principal, key: &str) -> Result<Value, Fault> {
    let Some(row) = aws.load_session(key).await?.filter(|row| may_read(caller, &row.flow)) else {
        return Ok(absent("session", key));
    };
    let history = aws.latest_history(key).await?;
    let session = whole_view(aws, &row).await?;
    let reasons = shell::why(
        &row.session,
        &history,
        session.instance_due,
        session.daily_due,
        aws.now(),
    );
    let why = Why { session, reasons };
    Ok(ok(200, &why))
}

pub(crate) async fn events(aws: &Aws, caller: &Principal, key: &str, request: &Request) -> Result<Value, Fault> {
    let events = aws.history(key, request.number("after").unwrap_or(0)).await?;
    readable(aws, caller, key, "session", key, || ok(200, &Events { events })).await
}

pub(crate) async fn packages(aws: &Aws, caller: &Principal, key: &str) -> Result<Value, Fault> {
    match aws.load_packages(key).await? {
        Some(row) => readable(aws, caller, key, "session", key, || ok(200, &row)).await,
        None => Ok(absent("record of packages of", key)),
    }
}

pub(crate) async fn installs(aws: &Aws, caller: &Principal, key: &str) -> Result<Value, Fault> {
    let installs = aws.installs(key).await?;
    readable(aws, caller, key, "session", key, || ok(200, &Installs { installs })).await
}

/// A session with what lies beside its row.
async fn whole_view(ports: &impl Ports, row: &SessionRow) -> Result<SessionView, Fault> {
    let refused = ports.load_refused(&row.session.flow).await?;
    let instance = match &row.session.compute {
        Some(id) if row.session.settings.compute.value.is_some() => ports.load_compute(id).await?,
        _ => None,
    };
    let instance_due = match &instance {
        Some(held) => shell::shutdown_due(ports, held).await?,
        None => None,
    };
    let daily_due = match &row.session.compute {
        Some(_) => shell::daily_due(ports, &row.flow.workspace, &row.flow.owner).await?,
        None => None,
    };
    Ok(SessionView {
        instance_due,
        daily_due,
        refused: refused
            .filter(|refused| refused.generation == row.session.generation)
            .map(|row| row.refused),
        ..view(
            row,
            &shell::workspace::settings_of(ports, &row.flow.workspace).await?,
            ports.now(),
        )
    })
}

pub(crate) fn operation_view(operation: &Operation) -> OperationView {
    OperationView {
        id: operation.id.clone(),
        kind: operation.kind,
    }
}

fn view(row: &SessionRow, of: &WorkspaceSettings, now: Millis) -> SessionView {
    let session = &row.session;
    SessionView {
        key: session.flow.clone(),
        flow: row.flow.clone(),
        phase: session.phase,
        since: session.since,
        generation: session.generation,
        revision: session.revision,
        settings: session.settings.clone(),
        image: session.image.clone(),
        image_digest: session.resolved.as_ref().map(|resolved| resolved.digest.clone()),
        stale_digest: session.resolved.as_ref().and_then(|resolved| resolved.latest.clone()),
        stale_image: stale_image(session, of),
        compute: session.compute.clone(),
        current: session.current.as_ref().map(operation_view),
        next: session.next.as_ref().map(operation_view),
        runs: session.runs.keys().cloned().collect(),
        last_activity: session.last_activity,
        idle_due: session.idle_due(),
        instance_due: None,
        daily_due: None,
        warned: session.warned.is_some(),
        stopped_for: session.stopped_for.clone(),
        failure: session.failure.clone(),
        refused: None,
        now,
    }
}

/// The base image that a reset would take, if it is not the one that the session's container is
/// made from. Where the flow folder can be read, as on one machine, what its flow file says by now
/// counts.
fn stale_image(session: &Session, of: &WorkspaceSettings) -> Option<Named<String>> {
    let has = session.image.as_ref().filter(|_| session.phase.is_live())?;
    let settings = &session.settings;
    // A list shows everybody's sessions: one folder that cannot be read must not end it.
    let of_flow = || std::panic::catch_unwind(|| flow::base_image(Path::new(&settings.folder.value)).ok());
    let wanted = settings.base_image(of.default_base_image.as_ref(), || of_flow().ok().flatten().ok_or(()));
    wanted.ok().filter(|wanted| wanted.value != has.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_users_that_it_does_not_know_is_refused_by_name() {
        assert_eq!(
            bad_users().to_string(),
            "Http.BadUsers: The parameter users is all, or is left out for the caller's own sessions."
        );
    }
}
