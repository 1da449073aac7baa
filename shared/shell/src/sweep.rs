//! The sweep: finds what is due, and has it looked after.

use crate::{
    Fault,
    compute::{look, send_stops},
    daily,
    ports::{DueRow, Ports, Save, Write, due_of},
};
use contract::{
    FlowRef, Millis, Principal,
    command::{Command, Wish},
    driver::ComputeRequest,
};
use lifecycle::{
    compute::{Chase, Compute, chase},
    quota::Live,
    session::Session,
};

/// The time before a command of the sweep is sent again, if it has not been acted on.
const AGAIN: Millis = 5_000;

/// A session that is this long over its phase's deadline, in milliseconds, should have been ended
/// by a sweep.
const OVERDUE: Millis = 60_000;

/// The result of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The number of due sessions and compute resources.
    pub due: u64,
    /// The time that the oldest of it had been due, in milliseconds.
    pub lag: Millis,
    /// The number of sessions over their phase's deadline by more than a minute.
    pub over_deadline: u64,
    /// The sessions and compute instances of the users that were counted.
    pub live: Live,
}

impl Swept {
    /// This and another one, as one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            due: self.due + other.due,
            lag: self.lag.max(other.lag),
            over_deadline: self.over_deadline + other.over_deadline,
            live: sum(self.live, other.live),
        }
    }
}

fn sum(one: Live, other: Live) -> Live {
    Live {
        users: one.users + other.users,
        sessions: one.sessions + other.sessions,
        instances: one.instances + other.instances,
        lived: one.lived + other.lived,
    }
}

/// Sweeps one shard, and says what it found.
///
/// It costs what is due, not what exists: the due time is an index. It changes no session by itself
/// but sends commands, so that the order of a flow's commands holds. A session whose due time has
/// moved on since it was stored gets the new one.
///
/// # Errors
///
/// As [`crate::happen`]; what was not swept is still due, and the next sweep finds it.
pub async fn sweep(ports: &impl Ports, shard: u32) -> Result<Swept, Fault> {
    let mut swept = Swept::default();
    let mut last = None;
    loop {
        let now = ports.now();
        let page = ports.due(shard, now).await?;
        // An index may show for a moment what is no longer so.
        if page.is_empty() || last.as_ref() == Some(&page) {
            return Ok(swept);
        }
        for due in &page {
            swept.due += 1;
            swept.lag = swept.lag.max(now.saturating_sub(due.since));
            match &due.what {
                DueRow::Session(flow) => swept.over_deadline += u64::from(look_after_session(ports, flow, now).await?),
                DueRow::Compute(id) => look_after_compute(ports, id, now).await?,
                DueRow::Usage { workspace, user } => {
                    swept.live = sum(swept.live, daily::look_after(ports, workspace, user, now).await?);
                }
            }
        }
        last = Some(page);
    }
}

/// Says whether the session is over its deadline.
async fn look_after_session(ports: &impl Ports, flow: &str, now: Millis) -> Result<bool, Fault> {
    let Some(row) = ports.load_session(flow).await? else {
        return Ok(false);
    };
    let session = &row.session;
    let over = session.deadline.is_some_and(|deadline| now > deadline + OVERDUE);
    let wish = if session.idle_due().is_some_and(|due| now >= due) {
        Wish::StopIfIdle {
            generation: session.generation,
            activity: session.last_activity,
            why: None,
        }
    } else if session.warning_due().is_some_and(|from| now >= from)
        && let Some(due) = session.idle_due()
    {
        Wish::WarnIfIdle {
            generation: session.generation,
            due,
        }
    } else if !row.outbox.is_empty() || session.due().is_some_and(|due| now >= due) {
        Wish::Check
    } else {
        ports
            .clear(flow, &[], session.revision, due_of(session, false, now))
            .await?;
        return Ok(over);
    };
    ports.send_command(&command(&row.flow, session, wish, now)).await?;
    // Until the command has been acted on, or `AGAIN` has passed, there is nothing to see here.
    ports.clear(flow, &[], session.revision, Some(now + AGAIN)).await?;
    Ok(over)
}

fn command(flow: &FlowRef, session: &Session, wish: Wish, now: Millis) -> Command {
    let id = format!("sweep-{}-{}-{now}", &session.flow, session.revision);
    Command {
        id,
        flow: flow.clone(),
        principal: Some(Principal::Sweep),
        wish,
    }
}

async fn look_after_compute(ports: &impl Ports, id: &str, now: Millis) -> Result<(), Fault> {
    let Some(held) = ports.load_compute(id).await? else {
        return Ok(());
    };
    let Some((next, ask)) = chase(&held, now) else {
        return Ok(());
    };
    let next = Compute {
        revision: held.revision + 1,
        ..next
    };
    match ask {
        Chase::Create => {
            let request = ComputeRequest::create(id.to_owned(), held.slot.clone());
            ports.ask_driver(&request).await?;
        }
        Chase::Look => return look(ports, &held, now).await,
        Chase::StopSessions => send_stops(ports, &held).await?,
        Chase::Delete => {
            let request = ComputeRequest::ReleaseCompute { compute: id.to_owned() };
            ports.ask_driver(&request).await?;
        }
    }
    match ports
        .save(Save {
            writes: vec![Write::Compute {
                compute: next,
                read: Some(held.revision),
            }],
        })
        .await
    {
        // Somebody has just changed it; it is due again if it still needs to be.
        Err(Fault::Conflict) => Ok(()),
        done => done,
    }
}
