//! One event, from the load to the last message sent.

use crate::{
    Fault, SAVE_TRIES,
    claim::{claim_of, leave, write_changed},
    placement::free,
    ports::{Ports, Save, Write, due_of},
};
use contract::{
    FlowRef, Millis,
    agent::RunResult,
    command::RunWish,
    row::{LogRow, OperationEnd, OperationRow, OperationStatus, RunEnd, RunRow, RunStatus, SessionRow},
    step::StepMessage,
};
use lifecycle::{
    Failure,
    compute::{self, Compute, ComputePhase, Seen},
    session::{Effect, Event, Kind, Message, Operation, Outcome, Refusal, Row, Session, Settings, decide},
};
use std::collections::BTreeMap;

/// Something that happened to a flow, and who says so.
///
/// * `run`: what a run that is wanted runs over; it goes into the run's row.
/// * `digest`: of the command that wants a run, likewise.
/// * `result`: how a run ended; it goes into the run's row.
/// * `first`: for a flow that has never had a session: who it is, and what its session would be
///   made of.
#[derive(Clone, Debug)]
pub struct Happened<'a> {
    pub flow: &'a str,
    pub event: Event,
    pub by: &'a str,
    pub run: Option<&'a RunWish>,
    pub digest: Option<String>,
    pub result: Option<&'a RunResult>,
    pub first: Option<(&'a FlowRef, &'a Settings)>,
}

impl<'a> Happened<'a> {
    /// An event without anything besides.
    pub fn new(flow: &'a str, event: Event, by: &'a str) -> Self {
        Self {
            flow,
            event,
            by,
            run: None,
            digest: None,
            result: None,
            first: None,
        }
    }
}

/// Enters the step that a message of the state machine names. A step is never refused: an outdated
/// one is answered as outdated.
///
/// # Errors
///
/// [`Fault::Meaningless`] if `body` is no step: final. Else as [`happen`].
pub async fn enter_step(ports: &impl Ports, body: &str) -> Result<(), Fault> {
    let step = StepMessage::read(body).map_err(Fault::Meaningless)?;
    let _ = happen(ports, &Happened::new(&step.flow, step.event(), "states")).await?;
    Ok(())
}

/// Takes in what happened: loads, decides, saves, sends.
///
/// Gives back the session as it is afterwards, or `None` if the flow has none and this event makes
/// none.
///
/// # Errors
///
/// [`Fault::Conflict`] and [`Fault::Outside`] are worth a retry; nothing is lost either way, as
/// what was saved will be sent. The inner error is the core's [`Refusal`]: final.
pub async fn happen(ports: &impl Ports, happened: &Happened<'_>) -> Result<Result<Option<Session>, Refusal>, Fault> {
    for _ in 0..SAVE_TRIES {
        match once(ports, happened).await {
            Err(Fault::Conflict) => {}
            done => return done,
        }
    }
    Err(Fault::Conflict)
}

async fn once(ports: &impl Ports, happened: &Happened<'_>) -> Result<Result<Option<Session>, Refusal>, Fault> {
    let now = ports.now();
    let stored = ports.load_session(happened.flow).await?;
    let row = match (stored, happened.first) {
        (Some(row), _) => row,
        (None, Some((flow, settings))) => SessionRow {
            session: Session::never(happened.flow, &flow.workspace, &flow.owner, settings.clone()),
            flow: flow.clone(),
            outbox: BTreeMap::new(),
        },
        (None, None) => return Ok(Ok(None)),
    };
    let mut event = happened.event.clone();
    keep_folder(&mut event, &row.session.settings);
    let claim = claim_of(ports, &row, &mut event, now).await?;
    let (session, decided) = match decide(&row.session, &event, now) {
        Ok(decided) => decided,
        Err(refusal) => {
            flush(ports, &row, now).await?;
            return Ok(Err(refusal));
        }
    };
    if session == row.session && decided.is_empty() {
        flush(ports, &row, now).await?;
        return Ok(Ok(Some(row.session)));
    }

    let mut effects = Effects {
        writes: claim,
        ..Effects::default()
    };
    for effect in decided {
        effects.take(ports, &row, happened, effect, now).await?;
    }
    let mut next = SessionRow {
        flow: row.flow.clone(),
        session,
        outbox: row.outbox.clone(),
    };
    let revision = next.session.revision;
    let placed = std::mem::take(&mut effects.messages).into_iter().enumerate();
    next.outbox
        .extend(placed.map(|(place, message)| (format!("r{revision:012}m{place:03}"), message)));
    let writes = writes_of(&row, &next, event, effects, happened, now);
    ports.save(Save { writes }).await?;
    tell(&row.session, &next.session, happened);
    flush(ports, &next, now).await?;
    Ok(Ok(Some(next.session)))
}

/// The transaction that saves a decision: its rows, its log entry, and the session.
fn writes_of(
    row: &SessionRow,
    next: &SessionRow,
    event: Event,
    effects: Effects,
    happened: &Happened<'_>,
    now: Millis,
) -> Vec<Write> {
    let Effects {
        mut writes, mut ends, ..
    } = effects;
    for operation in newly_known(&row.session, &next.session, &event) {
        let new = OperationRow {
            warning: takes_as_it_is(&event, &operation.id).and_then(|wants| row.session.keeps_otherwise(wants)),
            ..new_operation(&operation.id, operation.kind, happened, now)
        };
        writes.push(Write::NewOperation(match ends.remove(&operation.id) {
            Some(end) => new.with_end(end),
            None => new,
        }));
    }
    let ends = ends.into_iter();
    writes.extend(ends.map(|(operation, end)| Write::EndOperation { operation, end }));
    if let (Event::RunWanted { run, wants }, Some(wish)) = (&event, happened.run) {
        writes.push(Write::NewRun(RunRow {
            folder: Some(wants.folder.value.clone()),
            wish: wish.clone(),
            warning: row.session.keeps_otherwise(wants),
            ..new_run(run, happened, now)
        }));
    }
    // A lease asked for and given is no history: it comes every few seconds, and changes nothing
    // that anybody decides on later.
    if !matches!(event, Event::Alive { .. }) {
        writes.push(Write::Log {
            flow: happened.flow.to_owned(),
            entry: entry(&row.session, &next.session, event, happened.by, now),
        });
    }
    let due = due_of(&next.session, !next.outbox.is_empty(), now);
    writes.push(Write::Session {
        row: Box::new(next.clone()),
        read: row.session.revision,
        due,
    });
    writes
}

/// The effects of a decision: writes of its transaction, messages to send after it, and ends of
/// operations.
#[derive(Default)]
struct Effects {
    writes: Vec<Write>,
    messages: Vec<Message>,
    ends: BTreeMap<String, OperationEnd>,
}

impl Effects {
    async fn take(
        &mut self,
        ports: &impl Ports,
        row: &SessionRow,
        happened: &Happened<'_>,
        effect: Effect,
        now: Millis,
    ) -> Result<(), Fault> {
        match effect {
            Effect::Message(message) => self.messages.push(message),
            Effect::Row(Row::LeaveCompute { compute }) => {
                let (left, release) = leave(ports, row, compute, now).await?;
                self.writes.extend(left);
                self.messages.extend(release);
            }
            Effect::Row(Row::OperationEnded {
                operation,
                outcome,
                failure,
                warning,
            }) => {
                let end = OperationEnd {
                    status: outcome.into(),
                    ended: Some(now),
                    failure,
                    warning,
                    joined: None,
                };
                self.ends.insert(operation, end);
            }
            Effect::Row(Row::OperationJoined { operation, to }) => {
                let end = OperationEnd {
                    status: OperationStatus::Joined,
                    ended: None,
                    failure: None,
                    warning: None,
                    joined: Some(to),
                };
                self.ends.insert(operation, end);
            }
            Effect::Row(Row::RunEnded { run, outcome, failure }) => {
                let end = RunEnd {
                    status: outcome.into(),
                    ended: Some(now),
                    failure,
                    result: happened.result.cloned(),
                };
                self.writes.push(Write::EndRun { run, end });
            }
        }
        Ok(())
    }
}

/// A wish that says nothing of the folder means the one that the session has.
fn keep_folder(event: &mut Event, kept: &Settings) {
    let wants = match event {
        Event::Wanted { operation } => operation.wants.as_mut(),
        Event::RunWanted { wants, .. } => Some(wants),
        _ => None,
    };
    if let Some(wants) = wants.filter(|wants| !wants.folder.is_named()) {
        wants.folder = kept.folder.clone();
    }
}

/// Sends what the row's outbox holds, in order, and takes it out.
async fn flush(ports: &impl Ports, row: &SessionRow, now: Millis) -> Result<(), Fault> {
    if row.outbox.is_empty() {
        return Ok(());
    }
    let mut sent = Vec::new();
    let mut failed = None;
    for (key, message) in &row.outbox {
        match ports.send(row, message).await {
            Ok(()) => sent.push(key.clone()),
            Err(fault) => {
                failed = Some(fault);
                break;
            }
        }
    }
    let due = due_of(&row.session, failed.is_some(), now);
    ports
        .clear(row.session.flow.as_str(), &sent, row.session.revision, due)
        .await?;
    failed.map_or(Ok(()), Err)
}

/// The operations that have no row yet: the one that a command wants, and those that the core made.
fn newly_known(before: &Session, after: &Session, event: &Event) -> Vec<Operation> {
    let known = |session: &Session, id: &str| {
        [&session.current, &session.next]
            .into_iter()
            .flatten()
            .any(|o| o.id == id)
    };
    let mut new: Vec<Operation> = [&after.current, &after.next]
        .into_iter()
        .flatten()
        .filter(|o| !known(before, &o.id))
        .cloned()
        .collect();
    if let Event::Wanted { operation } = event
        && !known(before, &operation.id)
        && !new.iter().any(|o| o.id == operation.id)
    {
        new.push(operation.clone());
    }
    new
}

/// The settings of a command that wants this operation, and takes a session that is there as it is.
fn takes_as_it_is<'a>(event: &'a Event, operation: &str) -> Option<&'a Settings> {
    match event {
        Event::Wanted { operation: wanted } if wanted.id == operation => {
            let takes = matches!(wanted.kind, Kind::Start | Kind::Install);
            wanted.wants.as_ref().filter(|_| takes)
        }
        _ => None,
    }
}

fn new_operation(operation: &str, kind: Kind, happened: &Happened<'_>, now: Millis) -> OperationRow {
    OperationRow {
        id: operation.to_owned(),
        flow: happened.flow.to_owned(),
        kind,
        by: happened.by.to_owned(),
        accepted: now,
        status: OperationStatus::InProgress,
        ended: None,
        failure: None,
        also: Vec::new(),
        warning: None,
        setup: None,
        joined: None,
    }
}

fn new_run(run: &str, happened: &Happened<'_>, now: Millis) -> RunRow {
    RunRow {
        id: run.to_owned(),
        flow: happened.flow.to_owned(),
        of: happened.first.map(|(flow, _)| flow.clone()),
        by: happened.by.to_owned(),
        digest: happened.digest.clone(),
        folder: None,
        wish: RunWish::default(),
        accepted: now,
        status: RunStatus::NotStarted,
        started: None,
        ended: None,
        failure: None,
        also: Vec::new(),
        warning: None,
        result: None,
        display_name: None,
        archived: false,
        deleted: None,
    }
}

fn entry(before: &Session, after: &Session, event: Event, by: &str, now: Millis) -> LogRow {
    LogRow {
        revision: after.revision,
        at: now,
        by: by.to_owned(),
        from: before.phase,
        to: after.phase,
        generation: after.generation,
        event,
    }
}

fn tell(before: &Session, after: &Session, happened: &Happened<'_>) {
    let operation = after
        .current
        .as_ref()
        .or(before.current.as_ref())
        .map(|o| o.id.as_str());
    if before.phase != after.phase {
        tracing::info!(
            flow = happened.flow, session = after.generation, operation,
            from = ?before.phase, to = ?after.phase, event = name_of(&happened.event), "phase"
        );
    }
    if let (None, Some(failure)) = (&before.failure, &after.failure) {
        tracing::warn!(
            flow = happened.flow,
            session = after.generation,
            operation,
            fault = failure.error.as_str(),
            cause = failure.message,
            "failed"
        );
    }
}

fn name_of(event: &Event) -> &'static str {
    match event {
        Event::Wanted { .. } => "wanted",
        Event::IdleSeen { .. } => "idle-seen",
        Event::IdleNear { .. } => "idle-near",
        Event::DailyTimeNear { .. } => "daily-time-near",
        Event::DailyTimeUsedUp { .. } => "daily-time-used-up",
        Event::RunWanted { .. } => "run-wanted",
        Event::CancelWanted { .. } => "cancel-wanted",
        Event::StepEntered { .. } => "step-entered",
        Event::ComputeUp { .. } => "compute-up",
        Event::ComputeGone { .. } => "compute-gone",
        Event::ComputeDrained { .. } => "compute-drained",
        Event::SessionUp { .. } => "session-up",
        Event::SessionGone { .. } => "session-gone",
        Event::ImageChecked { .. } => "image-checked",
        Event::Installed { .. } => "installed",
        Event::InstallFailed { .. } => "install-failed",
        Event::Alive { .. } => "alive",
        Event::ImageSeen { .. } => "image-seen",
        Event::RunDone { .. } => "run-done",
        Event::Activity { .. } => "activity",
        Event::Tick => "tick",
    }
}

/// Takes in what a driver saw of a compute resource: its own row first, then each session on it.
///
/// A crash in between is mended by the driver's next word or by the deadline of each session. One
/// that came up after it was given up is asked to go.
///
/// # Errors
///
/// As [`happen`].
pub async fn observe_compute(ports: &impl Ports, id: &str, seen: Seen, why: &str) -> Result<(), Fault> {
    let held = ports.load_compute(id).await?;
    let on_it = held.as_ref().map(|c| c.sessions.clone()).unwrap_or_default();
    match &held {
        Some(compute) if compute.phase != ComputePhase::Gone => {
            if let Some(next) = compute::observe(compute, seen) {
                let mut writes = Vec::new();
                if next.phase == ComputePhase::Gone {
                    writes.extend(free(ports, compute).await?);
                }
                // Who is on it is kept until each of them has been told.
                let next = Compute {
                    sessions: on_it.clone(),
                    ..next
                };
                writes.push(write_changed(next, compute));
                ports.save(Save { writes }).await?;
            }
        }
        _ if seen == Seen::Up => {
            return ports
                .ask_driver(&contract::driver::ComputeRequest::ReleaseCompute { compute: id.to_owned() })
                .await;
        }
        _ => {}
    }
    for flow in &on_it {
        let event = match seen {
            Seen::Up => Event::ComputeUp { compute: id.to_owned() },
            Seen::Gone => Event::ComputeGone {
                compute: id.to_owned(),
                why: why.to_owned(),
            },
        };
        // A report is never refused.
        let _ = happen(ports, &Happened::new(flow, event, "driver")).await?;
    }
    Ok(())
}

/// The row of a refused run, in which its sender finds the reason.
pub(crate) fn refused_run(run: &str, happened: &Happened<'_>, failure: Failure, now: Millis) -> RunRow {
    let wish = happened.run.cloned().unwrap_or_default();
    RunRow {
        wish,
        status: Outcome::Failed.into(),
        ended: Some(now),
        failure: Some(failure),
        ..new_run(run, happened, now)
    }
}

/// The row of an operation that was decided at once, and needs no session; a refusal is logged.
pub(crate) fn decided_operation(
    operation: &str,
    kind: Kind,
    happened: &Happened<'_>,
    failure: Option<Failure>,
    now: Millis,
) -> OperationRow {
    match failure {
        Some(failure) => {
            tracing::warn!(
                command = operation,
                fault = failure.error.as_str(),
                cause = failure.message,
                "refused"
            );
            refused_operation(operation, kind, happened, failure, now)
        }
        None => OperationRow {
            status: OperationStatus::Succeeded,
            ended: Some(now),
            ..new_operation(operation, kind, happened, now)
        },
    }
}

/// The row of a refused operation, likewise.
pub(crate) fn refused_operation(
    operation: &str,
    kind: Kind,
    happened: &Happened<'_>,
    failure: Failure,
    now: Millis,
) -> OperationRow {
    OperationRow {
        status: Outcome::Failed.into(),
        ended: Some(now),
        failure: Some(failure),
        ..new_operation(operation, kind, happened, now)
    }
}
