//! The state machine: executions that walk through it, and the part of Step Functions' API that is
//! used.
//!
//! An execution is a row, in the file of the queues: entering a state, the message that it sends,
//! and its token are one transaction. So a host that is killed anywhere goes on where it was,
//! timeouts included.

mod reads;
mod records;
mod walk;

use crate::{
    access::Caller,
    asl::{Definition, State, Task},
    faults::Faults,
    queues::{Queue, Queues},
    sqs::{ACCOUNT, REGION},
    store::{Store, now, random_hex},
    wire::{AwsError, read, seconds},
};
use axum::body::Bytes;
use records::{Damaged, EXECUTION, execution_of, finish, record, save};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// The time that what has ended is kept, in milliseconds.
const KEPT: i64 = 86_400_000;
/// The most steps without waiting: more is a loop.
const MOST_STEPS: usize = 1000;
/// The longest sleep of the clock before it looks again, in milliseconds: the machine's own clock
/// may be set.
const LONGEST_NAP: i64 = 30_000;

/// A state machine and its executions.
pub(crate) struct Machine {
    name: String,
    definition: Definition,
    store: Arc<Store>,
    queues: Arc<Queues>,
    faults: Arc<Faults>,
    /// Rung when something is due earlier than what the clock waits for.
    clock: Notify,
    waits_until: AtomicI64,
}

/// An execution that runs.
struct Execution {
    id: i64,
    name: String,
    input: String,
    started: i64,
    state: String,
    data: Value,
    /// The number of uses of each retrier of the state.
    tries: Vec<u32>,
    token: Option<String>,
    timeout_at: Option<i64>,
    heartbeat_at: Option<i64>,
    wake_at: Option<i64>,
}

impl Execution {
    /// An execution that has entered no state yet.
    fn begin(id: i64, name: &str, input: String, data: Value, now: i64) -> Self {
        Self {
            id,
            name: name.to_owned(),
            input,
            started: now,
            state: String::new(),
            data,
            tries: Vec::new(),
            token: None,
            timeout_at: None,
            heartbeat_at: None,
            wake_at: None,
        }
    }

    fn due(&self) -> Option<i64> {
        [self.timeout_at, self.heartbeat_at, self.wake_at]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Waiters to wake after a transaction.
#[derive(Default)]
struct Bells {
    queues: Vec<Arc<Queue>>,
    /// The next due time.
    due: Option<i64>,
}

/// The end of a state.
enum End {
    Success(Value),
    Failure { error: String, cause: String },
}

impl Machine {
    pub(crate) fn new(
        name: &str,
        definition: Definition,
        store: Arc<Store>,
        queues: Arc<Queues>,
        faults: Arc<Faults>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            definition,
            store,
            queues,
            faults,
            clock: Notify::new(),
            waits_until: AtomicI64::new(i64::MAX),
        }
    }

    pub(crate) fn arn_of(name: &str) -> String {
        format!("arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{name}")
    }

    fn arn(&self) -> String {
        Self::arn_of(&self.name)
    }

    fn execution_arn(&self, name: &str) -> String {
        format!("arn:aws:states:{REGION}:{ACCOUNT}:execution:{}:{name}", self.name)
    }

    /// Answers one operation.
    pub(crate) fn answer(&self, caller: &Caller, operation: &str, body: &Bytes) -> Result<Value, AwsError> {
        caller.check("AWSStepFunctions", operation, None)?;
        match operation {
            "StartExecution" => self.start(read(body)?),
            "SendTaskSuccess" => self.task_answered(read(body)?, true),
            "SendTaskFailure" => self.task_answered(read(body)?, false),
            "SendTaskHeartbeat" => self.heartbeat(&read(body)?),
            "DescribeExecution" => self.describe(&read(body)?),
            "ListExecutions" => self.list(&read(body)?),
            "GetExecutionHistory" => self.history(&read(body)?),
            "StopExecution" => self.stop(read(body)?),
            "ListStateMachines" => Ok(json!({ "stateMachines": [self.summary()] })),
            "DescribeStateMachine" => {
                let mut described = self.summary();
                described["status"] = "ACTIVE".into();
                described["definition"] = self.definition.text.clone().into();
                described["roleArn"] = format!("arn:aws:iam::{ACCOUNT}:role/{}", self.name).into();
                Ok(described)
            }
            _ => Err(AwsError::new(
                "UnknownOperationException",
                format!("This host does not know Step Functions' {operation}."),
            )),
        }
    }

    fn summary(&self) -> Value {
        json!({ "stateMachineArn": self.arn(), "name": self.name, "type": "STANDARD", "creationDate": 0 })
    }

    fn start(&self, input: Start) -> Result<Value, AwsError> {
        if input.state_machine_arn != self.arn() {
            return Err(AwsError::new(
                "StateMachineDoesNotExist",
                format!("There is no state machine {:?}.", input.state_machine_arn),
            ));
        }
        let name = input.name.unwrap_or_else(random_hex::<16>);
        check_name(&name)?;
        let text = input.input.unwrap_or_else(|| "{}".to_owned());
        check_length("input", Some(&text), MOST_DATA)?;
        check_length("traceHeader", input.trace_header.as_deref(), 256)?;
        let data: Value = serde_json::from_str(&text)
            .map_err(|cause| AwsError::new("InvalidExecutionInput", format!("The input is no JSON: {cause}.")))?;
        let now = now();
        let mut bells = Bells::default();
        let started = self.store.write(|db| {
            let had: Option<(String, String, i64)> = db
                .prepare_cached("SELECT input, status, started FROM execution WHERE name = ?1")?
                .query_row([&name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            match had {
                Some((input, status, started)) if input == text && status == "RUNNING" => Ok(started),
                Some(_) => Err(AwsError::new(
                    "ExecutionAlreadyExists",
                    format!("There is an execution {name:?} already."),
                )),
                None => {
                    db.prepare_cached(
                        "INSERT INTO execution (name, input, status, started, trace) VALUES (?1, ?2, 'RUNNING', ?3, ?4)",
                    )?
                    .execute(params![name, text, now, input.trace_header])?;
                    let execution = Execution::begin(db.last_insert_rowid(), &name, text, data, now);
                    record(
                        db,
                        execution.id,
                        "ExecutionStarted",
                        json!({ "input": execution.input }),
                    )?;
                    self.walk(db, execution, self.definition.start_at.clone(), &mut bells)?;
                    Ok(now)
                }
            }
        })?;
        self.faults.pass("machine.started");
        self.ring(bells);
        Ok(json!({ "executionArn": self.execution_arn(&name), "startDate": seconds(started) }))
    }

    fn task_answered(&self, answer: Answer, succeeded: bool) -> Result<Value, AwsError> {
        check_length("taskToken", Some(&answer.task_token), 2048)?;
        check_length("output", answer.output.as_deref(), MOST_DATA)?;
        check_length("error", answer.error.as_deref(), 256)?;
        check_length("cause", answer.cause.as_deref(), 32_768)?;
        let end = if succeeded {
            let output = answer.output.as_deref().unwrap_or("{}");
            End::Success(
                serde_json::from_str(output)
                    .map_err(|cause| AwsError::new("InvalidOutput", format!("The output is no JSON: {cause}.")))?,
            )
        } else {
            End::Failure {
                error: answer.error.unwrap_or_default(),
                cause: answer.cause.unwrap_or_default(),
            }
        };
        let mut bells = Bells::default();
        self.store.write(|db| {
            match self.holder(db, &answer.task_token)? {
                Ok(execution) => self.task_ended(db, execution, end, &mut bells)?,
                Err(damaged) => self.fail_damaged(db, &damaged)?,
            }
            Ok::<_, AwsError>(())
        })?;
        self.faults.pass("machine.answered");
        self.ring(bells);
        Ok(json!({}))
    }

    fn heartbeat(&self, beat: &Answer) -> Result<Value, AwsError> {
        self.store.write(|db| {
            let mut execution = match self.holder(db, &beat.task_token)? {
                Ok(execution) => execution,
                Err(damaged) => {
                    self.fail_damaged(db, &damaged)?;
                    return Ok(json!({}));
                }
            };
            if let Some(State::Task(Task {
                heartbeat: Some(every), ..
            })) = self.definition.states.get(&execution.state)
            {
                execution.heartbeat_at = Some(now() + every);
                save(db, &execution)?;
            }
            Ok::<_, AwsError>(json!({}))
        })
    }

    /// The execution that waits for an answer with this token.
    fn holder(&self, db: &Transaction<'_>, token: &str) -> Result<Result<Execution, Damaged>, AwsError> {
        let id = token
            .split_once('-')
            .and_then(|(id, secret)| (secret.len() == 64).then(|| i64::from_str_radix(id, 16).ok())?)
            .ok_or_else(|| AwsError::new("InvalidToken", "This is no token of this host."))?;
        let known: Option<bool> = db
            .prepare_cached("SELECT token IS ?2 AND status = 'RUNNING' FROM execution WHERE id = ?1")?
            .query_row(params![id, token], |row| row.get(0))
            .optional()?;
        match known {
            None => Err(AwsError::new("TaskDoesNotExist", "There is no task with this token.")),
            Some(false) => Err(AwsError::new("TaskTimedOut", "The task of this token has ended.")),
            Some(true) => Ok(db
                .prepare_cached(&format!("SELECT {EXECUTION} FROM execution WHERE id = ?1"))?
                .query_row([id], execution_of)?),
        }
    }

    /// Fails an execution whose row cannot be read, with the reason.
    fn fail_damaged(&self, db: &Transaction<'_>, damaged: &Damaged) -> Result<(), AwsError> {
        let Damaged { execution, cause } = damaged;
        tracing::error!(execution = execution.name, cause, "the row of an execution is damaged");
        Ok(finish(db, execution, "FAILED", None, Some(("States.Runtime", cause)))?)
    }

    /// Goes on after a task, successful or not.
    fn task_ended(
        &self,
        db: &Transaction<'_>,
        mut execution: Execution,
        end: End,
        bells: &mut Bells,
    ) -> Result<(), AwsError> {
        let Some(State::Task(task)) = self.definition.states.get(&execution.state) else {
            return self.lose(db, execution, bells);
        };
        let id = execution.id;
        match end {
            End::Success(result) => {
                record(
                    db,
                    id,
                    "TaskSucceeded",
                    json!({ "state": execution.state, "output": result }),
                )?;
                execution.data = task.result_path.place(execution.data, result);
                self.leave(db, execution, task.next.as_ref(), bells)
            }
            End::Failure { error, cause } => {
                let kind = if error == "States.Timeout" {
                    "TaskTimedOut"
                } else {
                    "TaskFailed"
                };
                record(
                    db,
                    id,
                    kind,
                    json!({ "state": execution.state, "error": error, "cause": cause }),
                )?;
                execution.tries.resize(task.retry.len(), 0);
                let retrier = task.retry.iter().position(|retry| retry.covers(&error));
                if let Some(place) = retrier
                    && execution.tries[place] < task.retry[place].attempts
                {
                    execution.tries[place] += 1;
                    let pause = task.retry[place].pause(execution.tries[place]);
                    (execution.token, execution.timeout_at, execution.heartbeat_at) = (None, None, None);
                    execution.wake_at = Some(now() + pause);
                    bells.due = execution.due();
                    return Ok(save(db, &execution)?);
                }
                match task.catch.iter().find(|catch| catch.covers(&error)) {
                    Some(catch) => {
                        let caught = json!({ "Error": error, "Cause": cause });
                        execution.data = catch.result_path.place(execution.data, caught);
                        self.leave(db, execution, Some(&catch.next), bells)
                    }
                    None => Ok(finish(db, &execution, "FAILED", None, Some((&error, &cause)))?),
                }
            }
        }
    }

    fn ring(&self, bells: Bells) {
        if !bells.queues.is_empty() {
            self.faults.pass("machine.task-sent");
        }
        for queue in bells.queues {
            queue.ring();
        }
        if bells
            .due
            .is_some_and(|due| due < self.waits_until.load(Ordering::Acquire))
        {
            self.clock.notify_one();
        }
    }

    /// Keeps the time of all executions, until it is dropped.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let mut rung = pin!(self.clock.notified());
            rung.as_mut().enable();
            // Whatever becomes due from here on rings.
            self.waits_until.store(i64::MAX, Ordering::Release);
            let nap = match self.act_on_what_is_due() {
                Ok(Some(at)) => (at - now()).clamp(0, LONGEST_NAP),
                Ok(None) => LONGEST_NAP,
                Err(error) => {
                    tracing::error!(
                        fault = error.kind,
                        cause = error.message,
                        "what is due cannot be done now"
                    );
                    1000
                }
            };
            self.waits_until.store(now() + nap, Ordering::Release);
            let nap = Duration::from_millis(u64::try_from(nap).unwrap_or(0));
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// Does what is due, and says when the next thing is.
    fn act_on_what_is_due(&self) -> Result<Option<i64>, AwsError> {
        loop {
            let next: Option<i64> = self.store.read(|db| {
                db.prepare_cached("SELECT min(due) FROM execution WHERE due IS NOT NULL")?
                    .query_row([], |row| row.get(0))
            })?;
            let now = now();
            if next.is_none_or(|due| due > now) {
                return Ok(next);
            }
            let mut bells = Bells::default();
            self.store.write(|db| {
                let due: Vec<_> = db
                    .prepare_cached(&format!(
                        "SELECT {EXECUTION} FROM execution WHERE due <= ?1 ORDER BY due LIMIT 100"
                    ))?
                    .query_map([now], execution_of)?
                    .collect::<rusqlite::Result<_>>()?;
                for execution in due {
                    match execution {
                        Ok(execution) => self.act(db, execution, now, &mut bells)?,
                        Err(damaged) => self.fail_damaged(db, &damaged)?,
                    }
                }
                Ok::<_, AwsError>(())
            })?;
            self.ring(bells);
        }
    }

    fn stop(&self, wish: Stop) -> Result<Value, AwsError> {
        let name = self.name_in(&wish.execution_arn);
        let stopped = now();
        self.store.write(|db| {
            let execution = db
                .prepare_cached(&format!(
                    "SELECT {EXECUTION} FROM execution WHERE name = ?1 AND status = 'RUNNING'"
                ))?
                .query_row([name], execution_of)
                .optional()?;
            match execution {
                Some(found) => {
                    let execution = found.unwrap_or_else(|damaged| damaged.execution);
                    let (error, cause) = (wish.error.unwrap_or_default(), wish.cause.unwrap_or_default());
                    Ok(finish(db, &execution, "ABORTED", None, Some((&error, &cause)))?)
                }
                None => db
                    .query_row("SELECT 1 FROM execution WHERE name = ?1", [name], |_| Ok(()))
                    .optional()?
                    .ok_or_else(|| no_execution(name)),
            }
        })?;
        Ok(json!({ "stopDate": seconds(stopped) }))
    }

    fn name_in<'a>(&self, arn: &'a str) -> &'a str {
        arn.strip_prefix(&self.execution_arn("")).unwrap_or("")
    }

    /// The number of executions that run.
    pub(crate) fn running(&self) -> rusqlite::Result<i64> {
        self.store.read(|db| {
            db.query_row("SELECT count(*) FROM execution WHERE status = 'RUNNING'", [], |row| {
                row.get(0)
            })
        })
    }

    /// Forgets what ended more than a day ago.
    pub(crate) fn sweep(&self) -> rusqlite::Result<()> {
        self.store.write(|db| {
            let before = now() - KEPT;
            db.execute(
                "DELETE FROM history WHERE execution IN (SELECT id FROM execution WHERE stopped < ?1)",
                [before],
            )?;
            db.execute("DELETE FROM execution WHERE stopped < ?1", [before])
                .map(|_| ())
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    state_machine_arn: String,
    name: Option<String>,
    input: Option<String>,
    trace_header: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    task_token: String,
    output: Option<String>,
    error: Option<String>,
    cause: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfExecution {
    execution_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stop {
    execution_arn: String,
    error: Option<String>,
    cause: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    status_filter: Option<String>,
    max_results: Option<i64>,
}

/// The most characters of an input or an output.
const MOST_DATA: usize = 262_144;

fn check_name(name: &str) -> Result<(), AwsError> {
    let is_known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=80).contains(&name.len()) && name.bytes().all(is_known) {
        return Ok(());
    }
    Err(AwsError::new(
        "InvalidName",
        "An execution's name is 1 to 80 letters, digits, - and _.",
    ))
}

/// # Source
///
/// The lengths that the AWS Step Functions API reference gives for each parameter.
fn check_length(parameter: &str, text: Option<&str>, most: usize) -> Result<(), AwsError> {
    match text {
        Some(text) if text.chars().count() > most => Err(constraint(
            parameter,
            &format!("have length less than or equal to {most}"),
        )),
        _ => Ok(()),
    }
}

fn constraint(parameter: &str, what: &str) -> AwsError {
    AwsError::new(
        "ValidationException",
        format!("1 validation error detected: Value at '{parameter}' failed to satisfy constraint: Member must {what}"),
    )
}

fn no_execution(name: &str) -> AwsError {
    AwsError::new("ExecutionDoesNotExist", format!("There is no execution {name:?}."))
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_of_the_context_is_written_as_the_calendar_has_it() {
        assert_eq!(super::records::iso_time(1_709_210_096_007), "2024-02-29T12:34:56.007Z");
        assert_eq!(super::records::iso_time(0), "1970-01-01T00:00:00.000Z");
    }
}

#[cfg(test)]
mod walks {
    use super::*;
    use std::collections::BTreeMap;

    /// A machine over the lifecycle, whose steps nobody does but the test.
    struct Bench {
        machine: Machine,
        queues: Arc<Queues>,
        store: Arc<Store>,
        _folder: tempfile::TempDir,
        _open: tokio::sync::watch::Sender<bool>,
    }

    const FUNCTION: fn() -> Caller = || Caller::Function("start-session".into());

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            Self::over(folder)
        }

        fn over(folder: tempfile::TempDir) -> Self {
            let (open, closing) = tokio::sync::watch::channel(false);
            let store = Arc::new(Store::open(&folder.path().join("queues.db"), crate::store::QUEUES).expect("a store"));
            let faults = Arc::new(Faults::default());
            let queues = Arc::new(Queues::open(store.clone(), faults.clone(), closing).expect("queues"));
            let mut urls = BTreeMap::new();
            for (name, queue) in [
                ("StartSessionQueueUrl", "start-session"),
                ("InstallPackagesQueueUrl", "install-packages"),
                ("StopSessionQueueUrl", "stop-session"),
            ] {
                queues
                    .ensure(queue, crate::queues::Settings::default())
                    .expect("a queue");
                urls.insert(name.to_owned(), format!("http://localhost/000000000000/{queue}"));
            }
            let definition =
                Definition::read(include_str!("../../../lifecycle.asl.json"), &urls).expect("the lifecycle");
            let machine = Machine::new("lifecycle", definition, store.clone(), queues.clone(), faults);
            Self {
                machine,
                queues,
                store,
                _folder: folder,
                _open: open,
            }
        }

        fn call(&self, operation: &str, input: Value) -> Result<Value, AwsError> {
            self.machine
                .answer(&FUNCTION(), operation, &Bytes::from(input.to_string()))
        }

        fn start(&self, name: &str, kind: &str) -> Result<Value, AwsError> {
            let input = json!({ "kind": kind, "flow": "f", "operation": name }).to_string();
            self.call(
                "StartExecution",
                json!({ "stateMachineArn": self.machine.arn(), "name": name, "input": input }),
            )
        }

        /// The step that waits in a queue: its name, and its message.
        async fn step(&self, queue: &str) -> (String, Value) {
            let queue = self.queues.get(queue).expect("a queue");
            let message = self
                .queues
                .receive_within(&queue, 1, None, Duration::from_secs(5))
                .await
                .expect("a message")
                .remove(0);
            assert_eq!(message.sender, "states");
            self.queues.remove(&queue, &[&message.receipt]).expect("deleted");
            let body: Value = serde_json::from_str(&message.body).expect("JSON");
            (body["step"].as_str().expect("a step").to_owned(), body)
        }

        fn succeed(&self, step: &Value) -> Result<Value, AwsError> {
            self.call(
                "SendTaskSuccess",
                json!({ "taskToken": step["token"], "output": "{\"ignored\": 1}" }),
            )
        }

        fn fail(&self, step: &Value, error: &str) -> Result<Value, AwsError> {
            self.call(
                "SendTaskFailure",
                json!({ "taskToken": step["token"], "error": error, "cause": "why" }),
            )
        }

        fn status(&self, name: &str) -> (String, Option<String>) {
            let described = self.call(
                "DescribeExecution",
                json!({ "executionArn": self.machine.execution_arn(name) }),
            );
            let described = described.expect("an execution");
            let text = |field: &str| described[field].as_str().map(str::to_owned);
            (text("status").expect("a status"), text("error"))
        }

        /// Lets all time pass that executions wait for.
        fn let_time_pass(&self) {
            self.store
                .write(|db| db.execute("UPDATE execution SET timeout_at = min(timeout_at, 1), wake_at = min(wake_at, 1), due = min(due, 1)", []))
                .expect("written");
            self.machine.act_on_what_is_due().expect("done");
        }
    }

    #[tokio::test]
    async fn a_start_goes_through_its_steps_with_a_token_of_its_own_each() {
        let bench = Bench::new();
        bench.start("a", "start").expect("started");
        let mut tokens = Vec::new();
        for (queue, expected) in [
            ("start-session", "claim-compute"),
            ("start-session", "launch-session"),
            ("install-packages", "install-packages"),
        ] {
            let (step, message) = bench.step(queue).await;
            assert_eq!(
                (step.as_str(), &message["flow"], &message["operation"]),
                (expected, &json!("f"), &json!("a"))
            );
            tokens.push(message["token"].clone());
            bench.succeed(&message).expect("answered");
        }
        assert_eq!(bench.status("a"), ("SUCCEEDED".into(), None));
        tokens.dedup();
        assert_eq!(tokens.len(), 3);
    }

    #[tokio::test]
    async fn a_reset_stops_first_and_a_stop_ends_there() {
        let bench = Bench::new();
        bench.start("a", "reset").expect("started");
        // It goes to the function that knows what the new session is made of.
        let (step, stop) = bench.step("start-session").await;
        assert_eq!(step, "stop-session");
        bench.succeed(&stop).expect("answered");
        assert_eq!(bench.step("start-session").await.0, "claim-compute");
        bench.start("b", "stop").expect("started");
        let (_, stop) = bench.step("stop-session").await;
        bench.succeed(&stop).expect("answered");
        assert_eq!(bench.status("b").0, "SUCCEEDED");
        bench.start("c", "dance").expect("started");
        assert_eq!(
            bench.status("c"),
            ("FAILED".into(), Some("Session.UnknownOperation".into()))
        );
    }

    #[tokio::test]
    async fn an_execution_whose_row_is_damaged_fails_by_name() {
        for column in ["data", "tries"] {
            let bench = Bench::new();
            let spoil = || {
                let text = format!("UPDATE execution SET {column} = '{{' WHERE status = 'RUNNING'");
                bench.store.write(|db| db.execute(&text, [])).expect("spoilt");
            };
            let failed = |name: &str| {
                assert_eq!(bench.status(name), ("FAILED".into(), Some("States.Runtime".into())));
                let of = json!({ "executionArn": bench.machine.execution_arn(name) });
                let cause = bench.call("DescribeExecution", of).expect("an execution")["cause"].to_string();
                assert!(
                    cause.contains(&format!("The column {column} of the execution cannot be read")),
                    "{cause}"
                );
            };
            bench.start("late", "start").expect("started");
            spoil();
            bench.let_time_pass();
            failed("late");
            let _ = bench.step("start-session").await;
            bench.start("answered", "start").expect("started");
            let (_, claim) = bench.step("start-session").await;
            spoil();
            bench.succeed(&claim).expect("answered");
            failed("answered");
        }
    }

    #[tokio::test]
    async fn a_failure_is_cleaned_up_with_its_cause_and_a_superseded_step_is_not() {
        let bench = Bench::new();
        bench.start("a", "start").expect("started");
        let (_, claim) = bench.step("start-session").await;
        bench.fail(&claim, "Session.QuotaExceeded").expect("answered");
        let (step, clean_up) = bench.step("stop-session").await;
        assert_eq!(step, "clean-up");
        assert_eq!(
            clean_up["cause"],
            json!({ "Error": "Session.QuotaExceeded", "Cause": "why" })
        );
        bench.succeed(&clean_up).expect("answered");
        assert_eq!(
            bench.status("a"),
            ("FAILED".into(), Some("Session.OperationFailed".into()))
        );

        bench.start("b", "start").expect("started");
        let (_, claim) = bench.step("start-session").await;
        bench.fail(&claim, "Session.Superseded").expect("answered");
        assert_eq!(bench.status("b").0, "SUCCEEDED");
    }

    #[tokio::test]
    async fn a_step_that_is_not_answered_is_tried_again_with_a_new_token_and_then_given_up() {
        let bench = Bench::new();
        bench.start("a", "stop").expect("started");
        let (_, mut last) = bench.step("stop-session").await;
        for _ in 0..3 {
            bench.let_time_pass();
            assert_eq!(bench.succeed(&last).expect_err("it is late").kind, "TaskTimedOut");
            // The pause before the retry.
            bench.let_time_pass();
            let (step, again) = bench.step("stop-session").await;
            assert_eq!(step, "stop-session");
            assert_ne!(again["token"], last["token"]);
            last = again;
        }
        bench.let_time_pass();
        let (step, clean_up) = bench.step("stop-session").await;
        assert_eq!(
            (step.as_str(), &clean_up["cause"]["Error"]),
            ("clean-up", &json!("States.Timeout"))
        );
    }

    #[tokio::test]
    async fn an_answer_counts_once_and_only_with_a_token_that_was_given() {
        let bench = Bench::new();
        bench.start("a", "stop").expect("started");
        let (_, stop) = bench.step("stop-session").await;
        let refused = |token: &str| bench.succeed(&json!({ "token": token })).expect_err(token).kind;
        assert_eq!(refused("nonsense"), "InvalidToken");
        assert_eq!(refused(&format!("1-{}", "0".repeat(64))), "TaskTimedOut");
        assert_eq!(refused(&format!("99-{}", "0".repeat(64))), "TaskDoesNotExist");
        bench.succeed(&stop).expect("answered");
        assert_eq!(bench.succeed(&stop).expect_err("twice").kind, "TaskTimedOut");
        assert_eq!(bench.status("a").0, "SUCCEEDED");
    }

    #[tokio::test]
    async fn the_same_start_twice_is_one_execution_and_another_of_its_name_is_refused() {
        let bench = Bench::new();
        let first = bench.start("a", "stop").expect("started");
        assert_eq!(bench.start("a", "stop").expect("the same"), first);
        assert_eq!(
            bench.start("a", "start").expect_err("another").kind,
            "ExecutionAlreadyExists"
        );
        let (_, stop) = bench.step("stop-session").await;
        bench.succeed(&stop).expect("answered");
        assert_eq!(
            bench.start("a", "stop").expect_err("it has ended").kind,
            "ExecutionAlreadyExists"
        );
        let queue = bench.queues.get("stop-session").expect("a queue");
        assert!(bench.queues.is_empty(&queue).expect("read"), "only one step was sent");
    }

    #[tokio::test]
    async fn an_execution_goes_on_in_another_process_over_the_same_file() {
        let bench = Bench::new();
        bench.start("a", "start").expect("started");
        let (_, claim) = bench.step("start-session").await;
        let Bench {
            _folder: folder,
            machine,
            queues,
            store,
            _open,
        } = bench;
        drop((machine, queues, store, _open));
        let bench = Bench::over(folder);
        bench.succeed(&claim).expect("answered");
        assert_eq!(bench.step("start-session").await.0, "launch-session");
    }

    #[tokio::test]
    async fn what_has_ended_is_forgotten_after_a_day_and_what_runs_is_not() {
        let bench = Bench::new();
        bench.start("a", "dance").expect("started");
        bench.start("b", "stop").expect("started");
        bench.machine.sweep().expect("swept");
        assert_eq!(bench.status("a").0, "FAILED");
        bench
            .store
            .write(|db| db.execute("UPDATE execution SET stopped = stopped - 86400001", []))
            .expect("written");
        bench.machine.sweep().expect("swept");
        let gone = bench.call(
            "DescribeExecution",
            json!({ "executionArn": bench.machine.execution_arn("a") }),
        );
        assert_eq!(gone.expect_err("gone").kind, "ExecutionDoesNotExist");
        assert_eq!(bench.machine.running().expect("read"), 1);
        assert_eq!(bench.status("b").0, "RUNNING");
    }
}
