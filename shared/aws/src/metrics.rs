//! Metrics in CloudWatch's embedded metric format: lines of the log from which CloudWatch takes
//! them. No call is made, and a function waits for nothing.
//!
//! # Source
//!
//! CloudWatch, *Specification: Embedded metric format*.

use crate::Aws;
use contract::{
    Millis,
    row::{OperationRow, OperationStatus, RunRow, RunStatus},
};
use serde_json::{Map, Value, json};
use shell::{Ports, Swept, Write};

/// One line: values with their units, some of them by the dimension `Kind`, and what helps to find
/// the log's other lines.
struct Line {
    plain: Vec<(&'static str, &'static str, u64)>,
    by_kind: Vec<(&'static str, &'static str, u64)>,
    fields: Map<String, Value>,
}

impl Line {
    fn write(&self, namespace: &str, at: Millis) -> String {
        let names = |values: &[(&str, &str, u64)]| -> Vec<Value> {
            values
                .iter()
                .map(|(name, unit, _)| json!({ "Name": name, "Unit": unit }))
                .collect()
        };
        let mut directives = vec![json!({ "Namespace": namespace, "Dimensions": [[]], "Metrics": names(&self.plain) })];
        if !self.by_kind.is_empty() {
            directives
                .push(json!({ "Namespace": namespace, "Dimensions": [["Kind"]], "Metrics": names(&self.by_kind) }));
        }
        let mut line = self.fields.clone();
        line.extend(
            self.plain
                .iter()
                .chain(&self.by_kind)
                .map(|(name, _, value)| ((*name).to_owned(), json!(value))),
        );
        line.insert(
            "_aws".to_owned(),
            json!({ "Timestamp": at, "CloudWatchMetrics": directives }),
        );
        Value::Object(line).to_string()
    }
}

/// The things that a transaction may end, by name.
pub(crate) enum Ended {
    Operation(String),
    Run(String),
}

pub(crate) fn ends_of(writes: &[Write]) -> Vec<Ended> {
    let ended = |write: &Write| match write {
        Write::EndOperation { operation, .. } => Some(Ended::Operation(operation.clone())),
        Write::NewOperation(row) if row.ended.is_some() => Some(Ended::Operation(row.id.clone())),
        Write::EndRun { run, .. } => Some(Ended::Run(run.clone())),
        _ => None,
    };
    writes.iter().filter_map(ended).collect()
}

fn operation(row: &OperationRow) -> Option<Line> {
    let name = match row.status {
        OperationStatus::Succeeded => "OperationsSucceeded",
        OperationStatus::Failed => "OperationsFailed",
        OperationStatus::Canceled => "OperationsCanceled",
        OperationStatus::InProgress | OperationStatus::Joined => return None,
    };
    let took = row.ended?.saturating_sub(row.accepted);
    let error = row.failure.as_ref().map(|failure| &failure.error);
    Some(Line {
        plain: vec![(name, "Count", 1)],
        by_kind: vec![("OperationTime", "Milliseconds", took)],
        fields: fields(json!({ "Kind": row.kind, "Flow": row.flow, "Operation": row.id, "Error": error })),
    })
}

fn run(row: &RunRow) -> Option<Line> {
    let name = match row.status {
        RunStatus::Completed => "RunsSucceeded",
        RunStatus::Failed => "RunsFailed",
        RunStatus::Canceled => "RunsCanceled",
        RunStatus::NotStarted | RunStatus::Running => return None,
    };
    let took = row.ended?.saturating_sub(row.accepted);
    let error = row.failure.as_ref().map(|failure| &failure.error);
    Some(Line {
        plain: vec![(name, "Count", 1), ("RunTime", "Milliseconds", took)],
        by_kind: Vec::new(),
        fields: fields(json!({ "Flow": row.flow, "Run": row.id, "Error": error })),
    })
}

fn swept(swept: &Swept) -> Line {
    Line {
        plain: vec![
            ("Due", "Count", swept.due),
            ("OverDeadline", "Count", swept.over_deadline),
            ("SweepLag", "Milliseconds", swept.lag),
            ("LiveUsers", "Count", swept.live.users),
            ("LiveSessions", "Count", swept.live.sessions),
            ("LiveInstances", "Count", swept.live.instances),
            ("LivedToday", "Seconds", swept.live.lived / 1000),
        ],
        by_kind: Vec::new(),
        fields: Map::new(),
    }
}

fn fields(of: Value) -> Map<String, Value> {
    match of {
        Value::Object(mut fields) => {
            fields.retain(|_, value| !value.is_null());
            fields
        }
        _ => Map::new(),
    }
}

impl Aws {
    /// Writes the lines for what ended. Its row says what it was and when it was accepted; one that
    /// cannot be read has no line.
    pub(crate) async fn tell_ended(&self, ended: Vec<Ended>) {
        let Some(namespace) = &self.metrics else { return };
        for ended in ended {
            let line = match ended {
                Ended::Operation(id) => self
                    .load_operation(&id)
                    .await
                    .map(|row| row.as_ref().and_then(operation)),
                Ended::Run(id) => self.load_run(&id).await.map(|row| row.as_ref().and_then(run)),
            };
            match line {
                Ok(line) => line
                    .iter()
                    .for_each(|line| println!("{}", line.write(namespace, self.now()))),
                Err(fault) => tracing::warn!(cause = %fault, "no metric"),
            }
        }
    }

    /// Says what a sweep found.
    pub fn tell_swept(&self, found: &Swept) {
        if let Some(namespace) = &self.metrics {
            println!("{}", swept(found).write(namespace, self.now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Code;
    use contract::{Failure, row::OperationEnd};
    use lifecycle::{quota::Live, session::Kind};

    #[test]
    fn the_end_of_an_operation_is_a_line_that_cloudwatch_takes_a_count_and_a_time_from() {
        let row = OperationRow {
            id: "o1".into(),
            flow: "f1".into(),
            kind: Kind::Start,
            by: "ann".into(),
            accepted: 1_000,
            status: OperationStatus::Failed,
            ended: Some(1_250),
            failure: Some(Failure::new(Code::InstallConflict, "They do not fit.")),
            also: Vec::new(),
            setup: None,
            warning: None,
            joined: None,
        };
        let line = operation(&row).expect("a line").write("ns", 1_300);
        assert_eq!(
            serde_json::from_str::<Value>(&line).expect("JSON"),
            json!({
                "_aws": {
                    "Timestamp": 1_300,
                    "CloudWatchMetrics": [
                        { "Namespace": "ns", "Dimensions": [[]], "Metrics": [{ "Name": "OperationsFailed", "Unit": "Count" }] },
                        { "Namespace": "ns", "Dimensions": [["Kind"]], "Metrics": [{ "Name": "OperationTime", "Unit": "Milliseconds" }] }
                    ]
                },
                "OperationsFailed": 1,
                "OperationTime": 250,
                "Kind": "start",
                "Flow": "f1",
                "Operation": "o1",
                "Error": "Install.Conflict"
            })
        );
        assert!(!line.contains("do not fit"), "a failure's text may be anything: {line}");
        let going_on = OperationRow {
            status: OperationStatus::InProgress,
            ended: None,
            ..row
        };
        assert!(operation(&going_on).is_none());
        let end = OperationEnd {
            status: OperationStatus::Failed,
            ended: Some(1_250),
            failure: None,
            warning: None,
            joined: None,
        };
        let operation = "o2".to_owned();
        let writes = [Write::NewOperation(going_on), Write::EndOperation { operation, end }];
        let ended = ends_of(&writes);
        assert!(matches!(&ended[..], [Ended::Operation(id)] if id == "o2"));
    }

    #[test]
    fn a_sweep_says_how_much_was_due_how_late_and_what_is_over_its_deadline_also_when_nothing_was() {
        let found = Swept {
            due: 3,
            lag: 1_500,
            over_deadline: 1,
            live: Live {
                users: 1,
                sessions: 2,
                instances: 1,
                lived: 90_000,
            },
        };
        let line: Value = serde_json::from_str(&swept(&found).write("ns", 1)).expect("JSON");
        assert_eq!((&line["LiveSessions"], &line["LivedToday"]), (&json!(2), &json!(90)));
        for (found, due, lag) in [(found, 3, 1_500), (Swept::default(), 0, 0)] {
            let line: Value = serde_json::from_str(&swept(&found).write("ns", 1)).expect("JSON");
            assert_eq!((&line["Due"], &line["SweepLag"]), (&json!(due), &json!(lag)));
            let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
                .as_array()
                .expect("metrics");
            assert_eq!(metrics.len(), 7);
        }
    }
}
