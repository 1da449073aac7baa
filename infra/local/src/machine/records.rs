//! Executions and their history, as rows of the database.

use super::Execution;
use crate::{asl::State, store::now, wire::seconds};
use rusqlite::{Row, Transaction, params};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

pub(super) const EXECUTION: &str =
    "id, name, input, started, state, data, tries, token, timeout_at, heartbeat_at, wake_at";

/// An execution whose row cannot be read: with the columns that can, and the reason.
pub(super) struct Damaged {
    pub(super) execution: Execution,
    pub(super) cause: String,
}

pub(super) fn execution_of(row: &Row<'_>) -> rusqlite::Result<Result<Execution, Damaged>> {
    let (data, tries) = (column(row, 5, "data")?, column(row, 6, "tries")?);
    let cause = data.as_ref().err().or(tries.as_ref().err()).cloned();
    let execution = Execution {
        id: row.get(0)?,
        name: row.get(1)?,
        input: row.get(2)?,
        started: row.get(3)?,
        state: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
        data: data.unwrap_or_default(),
        tries: tries.unwrap_or_default(),
        token: row.get(7)?,
        timeout_at: row.get(8)?,
        heartbeat_at: row.get(9)?,
        wake_at: row.get(10)?,
    };
    Ok(match cause {
        None => Ok(execution),
        Some(cause) => Err(Damaged { execution, cause }),
    })
}

/// A value that is stored as JSON; its default where nothing is stored yet.
fn column<T: DeserializeOwned + Default>(row: &Row<'_>, at: usize, name: &str) -> rusqlite::Result<Result<T, String>> {
    let Some(text) = row.get::<_, Option<String>>(at)? else {
        return Ok(Ok(T::default()));
    };
    Ok(serde_json::from_str(&text)
        .map_err(|cause| format!("The column {name} of the execution cannot be read: {cause}.")))
}

pub(super) fn save(db: &Transaction<'_>, execution: &Execution) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE execution SET state = ?2, data = ?3, tries = ?4, token = ?5, timeout_at = ?6, heartbeat_at = ?7, wake_at = ?8,
            due = ?9, entered = ?10
         WHERE id = ?1",
    )?
    .execute(params![
        execution.id,
        execution.state,
        execution.data.to_string(),
        json!(execution.tries).to_string(),
        execution.token,
        execution.timeout_at,
        execution.heartbeat_at,
        execution.wake_at,
        execution.due(),
        now()
    ])?;
    Ok(())
}

pub(super) fn finish(
    db: &Transaction<'_>,
    execution: &Execution,
    status: &str,
    output: Option<&Value>,
    error: Option<(&str, &str)>,
) -> rusqlite::Result<()> {
    let (kind, detail) = match status {
        "SUCCEEDED" => ("ExecutionSucceeded", json!({ "output": output })),
        "ABORTED" => (
            "ExecutionAborted",
            json!({ "error": error.map(|e| e.0), "cause": error.map(|e| e.1) }),
        ),
        _ => (
            "ExecutionFailed",
            json!({ "error": error.map(|e| e.0), "cause": error.map(|e| e.1) }),
        ),
    };
    record(db, execution.id, kind, detail)?;
    db.prepare_cached(
        "UPDATE execution SET status = ?2, stopped = ?3, output = ?4, error = ?5, cause = ?6, state = ?7, token = NULL,
            timeout_at = NULL, heartbeat_at = NULL, wake_at = NULL, due = NULL
         WHERE id = ?1",
    )?
    .execute(params![
        execution.id,
        status,
        now(),
        output.map(Value::to_string),
        error.map(|e| e.0),
        error.map(|e| e.1),
        execution.state
    ])?;
    Ok(())
}

pub(super) fn record(db: &Transaction<'_>, execution: i64, kind: &str, detail: Value) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO history (execution, id, at, type, detail)
         VALUES (?1, (SELECT coalesce(max(id), 0) + 1 FROM history WHERE execution = ?1), ?2, ?3, ?4)",
    )?
    .execute(params![execution, now(), kind, detail.to_string()])?;
    Ok(())
}

pub(super) fn kind_of_entry(state: &State) -> &'static str {
    match state {
        State::Task(_) => "TaskStateEntered",
        State::Choice { .. } => "ChoiceStateEntered",
        State::Pass { .. } => "PassStateEntered",
        State::Wait { .. } => "WaitStateEntered",
        State::Succeed => "SucceedStateEntered",
        State::Fail { .. } => "FailStateEntered",
    }
}

/// An event as `GetExecutionHistory` answers it.
pub(super) fn event(id: i64, at: i64, kind: &str, detail: &Value) -> Value {
    let mut event = json!({ "id": id, "previousEventId": id - 1, "timestamp": seconds(at), "type": kind });
    if kind.ends_with("StateEntered") {
        event["stateEnteredEventDetails"] = json!({ "name": detail["state"] });
        return event;
    }
    let sqs = json!({ "resourceType": "sqs", "resource": "sendMessage.waitForTaskToken" });
    let mut details = if kind.starts_with("Task") { sqs } else { json!({}) };
    for name in ["input", "output", "error", "cause"] {
        if let Some(value) = detail.get(name).filter(|value| !value.is_null()) {
            details[name] = value.as_str().map_or_else(|| value.to_string(), str::to_owned).into();
        }
    }
    let field = format!("{}{}EventDetails", kind[..1].to_lowercase(), &kind[1..]);
    event[field] = details;
    event
}

/// A time as the context object writes it: `2026-11-24T09:52:46.123Z`.
pub(super) fn iso_time(milliseconds: i64) -> String {
    let since = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}
