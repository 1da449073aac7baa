//! Executions as Step Functions describes them.

use super::{List, Machine, OfExecution, constraint, no_execution, records::event, without_nulls};
use crate::{
    store::damaged,
    wire::{AwsError, seconds},
};
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

impl Machine {
    pub(super) fn describe(&self, of: &OfExecution) -> Result<Value, AwsError> {
        let name = self.name_in(&of.execution_arn);
        let found = self.store.read(|db| {
            db.prepare_cached(
                "SELECT status, started, stopped, input, output, error, cause FROM execution WHERE name = ?1",
            )?
            .query_row([name], |row| {
                Ok(json!({
                    "executionArn": self.execution_arn(name),
                    "stateMachineArn": self.arn(),
                    "name": name,
                    "status": row.get::<_, String>(0)?,
                    "startDate": seconds(row.get(1)?),
                    "stopDate": row.get::<_, Option<i64>>(2)?.map(seconds),
                    "input": row.get::<_, String>(3)?,
                    "output": row.get::<_, Option<String>>(4)?,
                    "error": row.get::<_, Option<String>>(5)?,
                    "cause": row.get::<_, Option<String>>(6)?,
                }))
            })
            .optional()
        })?;
        found.map(without_nulls).ok_or_else(|| no_execution(name))
    }

    pub(super) fn list(&self, wanted: &List) -> Result<Value, AwsError> {
        if let Some(most) = wanted.max_results.filter(|most| !(0..=1000).contains(most)) {
            return Err(constraint(
                "maxResults",
                &format!("be between 0 and 1000, and not {most}"),
            ));
        }
        let most = wanted.max_results.filter(|most| *most > 0).unwrap_or(100).min(1000);
        let executions = self.store.read(|db| {
            db.prepare_cached(
                "SELECT name, status, started, stopped FROM execution WHERE ?1 IS NULL OR status = ?1 ORDER BY id DESC LIMIT ?2",
            )?
            .query_map(params![wanted.status_filter, most], |row| {
                let name: String = row.get(0)?;
                Ok(without_nulls(json!({
                    "executionArn": self.execution_arn(&name),
                    "stateMachineArn": self.arn(),
                    "name": name,
                    "status": row.get::<_, String>(1)?,
                    "startDate": seconds(row.get(2)?),
                    "stopDate": row.get::<_, Option<i64>>(3)?.map(seconds),
                })))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        Ok(json!({ "executions": executions }))
    }

    pub(super) fn history(&self, of: &OfExecution) -> Result<Value, AwsError> {
        let name = self.name_in(&of.execution_arn);
        let events = self.store.read(|db| {
            db.prepare_cached(
                "SELECT history.id, at, type, detail FROM history JOIN execution ON execution.id = history.execution
                 WHERE execution.name = ?1 ORDER BY history.id",
            )?
            .query_map([name], |row| {
                let (id, kind): (i64, String) = (row.get(0)?, row.get(2)?);
                let detail: Value = serde_json::from_str(&row.get::<_, String>(3)?)
                    .map_err(|cause| damaged(3, &format!("the event {id} of {name}"), &cause))?;
                Ok(event(id, row.get(1)?, &kind, &detail))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        if events.is_empty() {
            Err(no_execution(name))
        } else {
            Ok(json!({ "events": events }))
        }
    }
}
