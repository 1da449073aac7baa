//! The time that a user's sessions may live on one day: looked after by the sweep, at the due time
//! of the row that counts it.

use crate::{
    Fault, Ports,
    ports::{Save, Write},
    workspace,
};
use contract::{
    Millis, Principal,
    command::{Command, Wish},
};
use lifecycle::quota::{Daily, Live, Quota, Usage, daily_time_used_up};

/// Has each session of a user warned or stopped, if the time of the day is used up soon, or is so.
///
/// Also counts what the user has, if that is due.
///
/// The row is written in any case: it may have been due for a day that is over.
///
/// The commands are sent before the row moves on: what a crash leaves out is sent by the next
/// sweep, and what comes twice changes nothing.
pub(crate) async fn look_after(ports: &impl Ports, workspace: &str, user: &str, now: Millis) -> Result<Live, Fault> {
    let usage = ports.load_usage(workspace, user).await?;
    let quota = quota_of(ports, workspace, user).await?;
    let (next, live) = usage.count(now).unwrap_or((usage.clone(), Live::default()));
    let (next, what) = next.look(&quota, now).unwrap_or((next, Daily::Wait));
    for flow in usage.sessions.keys() {
        let Some(row) = ports.load_session(flow).await? else {
            continue;
        };
        let generation = row.session.generation;
        let wish = match what {
            Daily::Wait => break,
            Daily::Warn { due } => Wish::WarnOfDailyTime { generation, due },
            Daily::Stop { until } => Wish::StopForTheDay {
                generation,
                until,
                why: daily_time_used_up(usage.lived(now), quota.daily.unwrap_or_default(), workspace, now),
            },
        };
        let command = Command {
            id: format!("sweep-{flow}-{}-{now}", row.session.revision),
            flow: row.flow,
            principal: Some(Principal::Sweep),
            wish,
        };
        ports.send_command(&command).await?;
    }
    let write = Write::Usage {
        workspace: workspace.to_owned(),
        user: user.to_owned(),
        usage: Usage {
            revision: usage.revision + 1,
            ..next
        },
    };
    match ports.save(Save { writes: vec![write] }).await {
        Ok(()) => Ok(live),
        // A session has just come or gone; the row is due again.
        Err(Fault::Conflict) => Ok(Live::default()),
        Err(fault) => Err(fault),
    }
}

/// Has a sweep look at a user's time anew, as the settings of the workspace have changed. `None` if
/// nothing changes by that.
///
/// # Errors
///
/// As [`Ports`].
pub async fn watch_anew(ports: &impl Ports, workspace: &str, user: &str) -> Result<Option<Write>, Fault> {
    let usage = ports.load_usage(workspace, user).await?;
    let quota = quota_of(ports, workspace, user).await?;
    let next = Usage {
        revision: usage.revision + 1,
        ..usage.clone().watch(&quota, ports.now())
    };
    Ok((next.due != usage.due).then(|| Write::Usage {
        workspace: workspace.to_owned(),
        user: user.to_owned(),
        usage: next,
    }))
}

/// Says when the sessions of a user are stopped as their time of the day is used up, if nothing
/// changes before.
///
/// # Errors
///
/// As [`Ports`].
pub async fn daily_due(ports: &impl Ports, workspace: &str, user: &str) -> Result<Option<Millis>, Fault> {
    let quota = quota_of(ports, workspace, user).await?;
    if quota.daily.is_none() {
        return Ok(None);
    }
    let usage = ports.load_usage(workspace, user).await?;
    Ok(usage.daily_due(&quota, ports.now()))
}

async fn quota_of(ports: &impl Ports, workspace: &str, user: &str) -> Result<Quota, Fault> {
    let of = workspace::settings_of(ports, workspace).await?;
    Ok(workspace::quota(&of, user, ports.sessions_per_user()))
}
