//! Quotas: who enters that of its user, and of its workspace where that has one.
//!
//! The usage of all users of a workspace together is counted in a row like that of a user, of the
//! user without a name. It is written only where the workspace has such a quota: all of its users
//! write that one row.

use crate::{Fault, Ports, ports::Write, workspace};
use contract::workspace::WorkspaceSettings;
use lifecycle::{
    Failure,
    quota::{Quota, Usage, Use},
};

/// The user in whose place the usage of all users stands.
pub const EVERYBODY: &str = "";

/// A quota, and its usage.
pub(crate) struct Counted {
    user: String,
    pub(crate) quota: Quota,
    pub(crate) usage: Usage,
}

impl Counted {
    /// Names `wanted` as this usage does: that of all users has the user's name in place of the
    /// flow.
    pub(crate) fn name_use(&self, wanted: &Use, user: &str) -> Use {
        match self.user.as_str() {
            EVERYBODY => Use {
                lineage: user.to_owned(),
                ..wanted.clone()
            },
            _ => wanted.clone(),
        }
    }
}

/// The quotas that count for a user: their own, and that of the workspace if it has one.
pub(crate) async fn load_quotas(
    ports: &impl Ports,
    of: &WorkspaceSettings,
    workspace: &str,
    user: &str,
) -> Result<Vec<Counted>, Fault> {
    let own = Counted {
        user: user.to_owned(),
        quota: workspace::quota(of, user, ports.sessions_per_user()),
        usage: ports.load_usage(workspace, user).await?,
    };
    let Some(quota) = workspace::quota_of_all(of) else {
        return Ok(vec![own]);
    };
    let all = Counted {
        user: EVERYBODY.to_owned(),
        quota,
        usage: ports.load_usage(workspace, EVERYBODY).await?,
    };
    Ok(vec![own, all])
}

/// Takes something into all quotas that count for a user.
///
/// * `enter`: takes it into one of them.
///
/// # Errors
///
/// As [`Ports`]; and what bars it.
pub(crate) async fn admit(
    ports: &impl Ports,
    (workspace, user): (&str, &str),
    wanted: &Use,
    enter: impl Fn(&Usage, &Use, &Quota) -> Result<Usage, Failure>,
) -> Result<Result<Vec<Write>, Failure>, Fault> {
    let of = workspace::settings_of(ports, workspace).await?;
    let mut writes = Vec::new();
    for counted in load_quotas(ports, &of, workspace, user).await? {
        match enter(&counted.usage, &counted.name_use(wanted, user), &counted.quota) {
            Ok(usage) => writes.push(Write::Usage {
                workspace: workspace.to_owned(),
                user: counted.user,
                usage,
            }),
            Err(failure) => return Ok(Err(failure)),
        }
    }
    Ok(Ok(writes))
}

/// Takes something out of the quotas that it is in, also if the workspace has none for all users by
/// now.
///
/// * `leave`: takes it out of one; `None` if it is not in it.
///
/// # Errors
///
/// As [`Ports`].
pub(crate) async fn dismiss(
    ports: &impl Ports,
    workspace: &str,
    user: &str,
    leave: impl Fn(&Usage) -> Option<Usage>,
) -> Result<Vec<Write>, Fault> {
    let mut writes = Vec::new();
    for user in [user, EVERYBODY] {
        if let Some(usage) = leave(&ports.load_usage(workspace, user).await?) {
            let (workspace, user) = (workspace.to_owned(), user.to_owned());
            writes.push(Write::Usage { workspace, user, usage });
        }
    }
    Ok(writes)
}

/// The usage of all users, made of each one's own: for a workspace that gets a quota for all of
/// them while they have sessions.
///
/// * `before`: the usage of all users that is stored.
/// * `users`: each user's name and usage.
pub fn sum_usages<'a>(before: &Usage, users: impl IntoIterator<Item = (&'a str, &'a Usage)>) -> Usage {
    let mut all = Usage {
        revision: before.revision + 1,
        ..Usage::default()
    };
    for (user, usage) in users {
        let of_user = |held: &Use| Use {
            lineage: user.to_owned(),
            ..held.clone()
        };
        all.sessions
            .extend(usage.sessions.iter().map(|(flow, held)| (flow.clone(), of_user(held))));
        all.instances
            .extend(usage.instances.iter().map(|(id, held)| (id.clone(), of_user(held))));
    }
    all
}
