//! Lists of sessions: the caller's own, or those of the whole workspace.

use crate::{absent, ok, problem, request::Request, view};
use aws::Aws;
use contract::{Principal, http::Sessions, row::SessionRow};
use lifecycle::{
    Failure,
    access::{Action, denied, may},
};
use serde_json::Value;
use shell::{Fault, Ports};
use std::collections::VecDeque;

/// The most sessions of a page: an answer of a function has at most 6 MB.
const MOST: u64 = 1000;
/// The most users whose sessions are looked for in one page.
const MOST_USERS: usize = 200;

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
        "Http.BadUsers",
        "The parameter users is all, or is left out for the caller's own sessions.",
    )
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
