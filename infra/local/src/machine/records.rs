//! Executions and their history, as rows of the database.

use super::Execution;
use crate::{asl::State, store::now, wire::seconds};
use rusqlite::{Row, Transaction, params};
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

pub(super) const EXECUTION: &str =
    "id, name, input, started, state, data, tries, token, timeout_at, heartbeat_at, wake_at";

pub(super) fn execution_of(row: &Row<'_>) -> rusqlite::Result<Execution> {
    let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
    Ok(Execution {
        id: row.get(0)?,
        name: row.get(1)?,
        input: row.get(2)?,
        started: row.get(3)?,
        state: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
        data: json(row.get(5)?).unwrap_or(Value::Null),
        tries: json(row.get(6)?)
            .and_then(|tries| serde_json::from_value(tries).ok())
            .unwrap_or_default(),
        token: row.get(7)?,
        timeout_at: row.get(8)?,
        heartbeat_at: row.get(9)?,
        wake_at: row.get(10)?,
    })
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
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // The civil date of a count of days, with years that begin in March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        milliseconds.rem_euclid(1000)
    )
}
