//! The way of an execution through its states.

use super::{
    Bells, End, Execution, MOST_STEPS, Machine,
    records::{finish, iso_time, kind_of_entry, record, save},
};
use crate::{
    asl::{State, Task},
    queues::New,
    store::{now, random_hex},
    wire::AwsError,
};
use rusqlite::Transaction;
use serde_json::{Value, json};

impl Machine {
    pub(super) fn leave(
        &self,
        db: &Transaction<'_>,
        execution: Execution,
        next: Option<&String>,
        bells: &mut Bells,
    ) -> Result<(), AwsError> {
        match next {
            Some(next) => self.walk(db, execution, next.clone(), bells),
            None => Ok(finish(db, &execution, "SUCCEEDED", Some(&execution.data), None)?),
        }
    }

    /// The definition has changed under an execution, and does not have its state any more.
    pub(super) fn lose(&self, db: &Transaction<'_>, execution: Execution, _: &mut Bells) -> Result<(), AwsError> {
        let cause = format!("The state machine has no state {:?} any more.", execution.state);
        Ok(finish(
            db,
            &execution,
            "FAILED",
            None,
            Some(("States.Runtime", &cause)),
        )?)
    }

    /// Enters a state, and those after it, up to one that waits or ends.
    pub(super) fn walk(
        &self,
        db: &Transaction<'_>,
        mut execution: Execution,
        mut to: String,
        bells: &mut Bells,
    ) -> Result<(), AwsError> {
        for _ in 0..MOST_STEPS {
            execution.state = to;
            execution.tries.clear();
            (
                execution.token,
                execution.timeout_at,
                execution.heartbeat_at,
                execution.wake_at,
            ) = (None, None, None, None);
            let Some(state) = self.definition.states.get(&execution.state) else {
                return self.lose(db, execution, bells);
            };
            record(
                db,
                execution.id,
                kind_of_entry(state),
                json!({ "state": execution.state }),
            )?;
            to = match state {
                State::Task(task) => return self.send_task(db, execution, task, bells),
                State::Wait { milliseconds, .. } => {
                    execution.wake_at = Some(now() + milliseconds);
                    bells.due = execution.due();
                    return Ok(save(db, &execution)?);
                }
                State::Choice { choices, default } => {
                    let context = self.context(&execution);
                    let mut choices = choices.iter();
                    let chosen = choices.find(|(test, _)| test.holds(&execution.data, &context));
                    match chosen.map(|(_, next)| next).or(default.as_ref()) {
                        Some(next) => next.clone(),
                        None => {
                            let error = ("States.NoChoiceMatched", "No choice holds, and there is no default.");
                            return Ok(finish(db, &execution, "FAILED", None, Some(error))?);
                        }
                    }
                }
                State::Pass {
                    result,
                    result_path,
                    next,
                } => {
                    // Without a result of its own it passes its input on.
                    let result = result.clone().unwrap_or_else(|| execution.data.clone());
                    execution.data = result_path.place(execution.data, result);
                    match next {
                        Some(next) => next.clone(),
                        None => return Ok(finish(db, &execution, "SUCCEEDED", Some(&execution.data), None)?),
                    }
                }
                State::Succeed => return Ok(finish(db, &execution, "SUCCEEDED", Some(&execution.data), None)?),
                State::Fail { error, cause } => {
                    return Ok(finish(db, &execution, "FAILED", None, Some((error, cause)))?);
                }
            };
        }
        let error = (
            "States.Runtime",
            "The state machine goes round without waiting for anything.",
        );
        Ok(finish(db, &execution, "FAILED", None, Some(error))?)
    }

    pub(super) fn send_task(
        &self,
        db: &Transaction<'_>,
        mut execution: Execution,
        task: &Task,
        bells: &mut Bells,
    ) -> Result<(), AwsError> {
        let now = now();
        execution.token = Some(format!("{:x}-{}", execution.id, random_hex::<32>()));
        (execution.timeout_at, execution.heartbeat_at) =
            (task.timeout.map(|t| now + t), task.heartbeat.map(|t| now + t));
        execution.wake_at = None;
        save(db, &execution)?;
        let filled = match task.parameters.fill(&execution.data, &self.context(&execution)) {
            Ok(filled) => filled,
            Err(path) => {
                let end = End::Failure {
                    error: "States.ParameterPathFailure".into(),
                    cause: format!("There is nothing at {path}."),
                };
                return self.task_ended(db, execution, end, bells);
            }
        };
        let text = |name: &str| filled[name].as_str().map(str::to_owned);
        let url = text("QueueUrl").unwrap_or_default();
        let Some(queue) = self.queues.get(url.rsplit('/').next().unwrap_or_default()) else {
            let end = End::Failure {
                error: "SQS.SqsException".into(),
                cause: format!("There is no queue {url:?}."),
            };
            return self.task_ended(db, execution, end, bells);
        };
        let message = New {
            body: text("MessageBody").unwrap_or_else(|| filled["MessageBody"].to_string()),
            group: text("MessageGroupId"),
            dedup: text("MessageDeduplicationId"),
            sender: "states".to_owned(),
            trace: db
                .prepare_cached("SELECT trace FROM execution WHERE id = ?1")?
                .query_row([execution.id], |row| row.get(0))?,
            ..New::default()
        };
        self.queues.send_in(db, &queue, message)?;
        record(
            db,
            execution.id,
            "TaskSubmitted",
            json!({ "state": execution.state, "queue": queue.name }),
        )?;
        bells.queues.push(queue);
        bells.due = execution.due();
        Ok(())
    }

    /// The context object, `$$`.
    pub(super) fn context(&self, execution: &Execution) -> Value {
        json!({
            "Execution": {
                "Id": self.execution_arn(&execution.name),
                "Name": execution.name,
                "Input": serde_json::from_str::<Value>(&execution.input).unwrap_or(Value::Null),
                "StartTime": iso_time(execution.started),
            },
            "StateMachine": { "Id": self.arn(), "Name": self.name },
            "State": { "Name": execution.state, "EnteredTime": iso_time(now()), "RetryCount": execution.tries.iter().sum::<u32>() },
            "Task": { "Token": execution.token },
        })
    }

    pub(super) fn act(
        &self,
        db: &Transaction<'_>,
        mut execution: Execution,
        now: i64,
        bells: &mut Bells,
    ) -> Result<(), AwsError> {
        let late = |at: Option<i64>| at.is_some_and(|at| at <= now);
        if late(execution.wake_at) {
            return match self.definition.states.get(&execution.state) {
                Some(State::Task(task)) => self.send_task(db, execution, task, bells),
                Some(State::Wait { next, .. }) => self.leave(db, execution, next.as_ref(), bells),
                _ => self.lose(db, execution, bells),
            };
        }
        let error = if late(execution.timeout_at) {
            "States.Timeout"
        } else {
            "States.HeartbeatTimeout"
        };
        tracing::info!(
            execution = execution.name,
            state = execution.state,
            error,
            "a task has not been answered in time"
        );
        execution.token = None;
        let cause = format!("The task {:?} has not been answered in time.", execution.state);
        self.task_ended(
            db,
            execution,
            End::Failure {
                error: error.to_owned(),
                cause,
            },
            bells,
        )
    }
}
