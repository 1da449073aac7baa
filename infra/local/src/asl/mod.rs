//! The part of Amazon States Language that the state machine is written in. What is not known is
//! refused by name when it is read.

mod fields;
mod values;

use fields::Fields;
use serde_json::Value;
use std::collections::BTreeMap;
pub(crate) use values::{Path, ResultPath, Template, Test};

/// A state machine.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) text: String,
    pub(crate) start_at: String,
    pub(crate) states: BTreeMap<String, State>,
}

/// The part of a definition that cannot be run here.
#[derive(Debug, thiserror::Error)]
#[error("the state machine cannot run on this host: {0}")]
pub(crate) struct Unsupported(String);

#[derive(Debug)]
pub(crate) enum State {
    Task(Task),
    Choice {
        choices: Vec<(Test, String)>,
        default: Option<String>,
    },
    Pass {
        result: Option<Value>,
        result_path: ResultPath,
        next: Next,
    },
    Wait {
        milliseconds: i64,
        next: Next,
    },
    Succeed,
    Fail {
        error: String,
        cause: String,
    },
}

/// The next state. `None` is the end.
pub(crate) type Next = Option<String>;

/// Sends a message with a token, and waits for the answer.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) parameters: Template,
    /// Milliseconds.
    pub(crate) timeout: Option<i64>,
    pub(crate) heartbeat: Option<i64>,
    pub(crate) result_path: ResultPath,
    pub(crate) retry: Vec<Retry>,
    pub(crate) catch: Vec<Catch>,
    pub(crate) next: Next,
}

#[derive(Debug)]
pub(crate) struct Retry {
    errors: Vec<String>,
    interval: f64,
    pub(crate) attempts: u32,
    rate: f64,
    longest: Option<f64>,
}

#[derive(Debug)]
pub(crate) struct Catch {
    errors: Vec<String>,
    pub(crate) result_path: ResultPath,
    pub(crate) next: String,
}

impl Definition {
    /// Reads a definition, with `${name}` replaced by what `substitute` says.
    ///
    /// # Errors
    ///
    /// [`Unsupported`], which names the state and the field. Final.
    pub(crate) fn read(text: &str, substitute: &BTreeMap<String, String>) -> Result<Self, Unsupported> {
        let text = fill_in(text, substitute)?;
        let value: Value =
            serde_json::from_str(&text).map_err(|cause| Unsupported(format!("it is no JSON: {cause}")))?;
        let mut fields = Fields::of("the state machine", &value)?;
        fields.optional("Comment");
        let version = fields.optional("Version");
        if version.as_ref().is_some_and(|version| version != "1.0") {
            return Err(Unsupported("its Version is not 1.0".into()));
        }
        let start_at = fields.text("StartAt")?;
        let Value::Object(states) = fields.require("States")? else {
            return Err(Unsupported("its States are no object".into()));
        };
        fields.end()?;
        let states = states
            .iter()
            .map(|(name, state)| Ok((name.clone(), State::read(name, state)?)))
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        let mut targets = vec![("the start".to_owned(), start_at.clone())];
        for (name, state) in &states {
            targets.extend(state.targets().into_iter().map(|target| (name.clone(), target)));
        }
        match targets.into_iter().find(|(_, target)| !states.contains_key(target)) {
            Some((from, to)) => Err(Unsupported(format!("{from} leads to {to:?}, which is no state"))),
            None => Ok(Self { text, start_at, states }),
        }
    }
}

fn fill_in(text: &str, substitute: &BTreeMap<String, String>) -> Result<String, Unsupported> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| Unsupported("a ${ is not closed".into()))?;
        let value = substitute
            .get(name)
            .ok_or_else(|| Unsupported(format!("nothing is given for ${{{name}}}")))?;
        out.push_str(before);
        // It stands inside a JSON string.
        let quoted = Value::from(value.as_str()).to_string();
        out.push_str(&quoted[1..quoted.len() - 1]);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

impl State {
    fn read(name: &str, value: &Value) -> Result<Self, Unsupported> {
        let of = format!("the state {name:?}");
        let mut fields = Fields::of(&of, value)?;
        fields.optional("Comment");
        let state = match fields.text("Type")?.as_str() {
            "Task" => {
                let resource = fields.text("Resource")?;
                if resource != "arn:aws:states:::sqs:sendMessage.waitForTaskToken" {
                    return Err(Unsupported(format!("{} has the resource {resource:?}", fields.of)));
                }
                Self::Task(Task {
                    parameters: parameters(&of, fields.require("Parameters")?)?,
                    timeout: fields.seconds("TimeoutSeconds")?,
                    heartbeat: fields.seconds("HeartbeatSeconds")?,
                    result_path: fields.result_path()?,
                    retry: fields.list("Retry", Retry::read)?,
                    catch: fields.list("Catch", Catch::read)?,
                    next: fields.next()?,
                })
            }
            "Choice" => {
                let choices = fields.list("Choices", |mut fields| {
                    let next = fields.text("Next")?;
                    Ok((Test::read(fields)?, next))
                })?;
                Self::Choice {
                    choices,
                    default: fields.optional_text("Default")?,
                }
            }
            "Pass" => Self::Pass {
                result: fields.optional("Result"),
                result_path: fields.result_path()?,
                next: fields.next()?,
            },
            "Wait" => {
                let milliseconds = fields.seconds("Seconds")?;
                let milliseconds = milliseconds.ok_or_else(|| Unsupported(format!("{} has no Seconds", fields.of)))?;
                Self::Wait {
                    milliseconds,
                    next: fields.next()?,
                }
            }
            "Succeed" => Self::Succeed,
            "Fail" => Self::Fail {
                error: fields.optional_text("Error")?.unwrap_or_default(),
                cause: fields.optional_text("Cause")?.unwrap_or_default(),
            },
            kind => return Err(Unsupported(format!("{} is of the type {kind:?}", fields.of))),
        };
        fields.end()?;
        Ok(state)
    }

    /// The states that this one may lead to.
    pub(crate) fn targets(&self) -> Vec<String> {
        match self {
            Self::Task(task) => task
                .next
                .iter()
                .cloned()
                .chain(task.catch.iter().map(|catch| catch.next.clone()))
                .collect(),
            Self::Choice { choices, default } => choices
                .iter()
                .map(|(_, next)| next.clone())
                .chain(default.clone())
                .collect(),
            Self::Pass { next, .. } | Self::Wait { next, .. } => next.iter().cloned().collect(),
            Self::Succeed | Self::Fail { .. } => Vec::new(),
        }
    }
}

fn parameters(of: &str, value: Value) -> Result<Template, Unsupported> {
    const KNOWN: [&str; 4] = ["QueueUrl", "MessageBody", "MessageGroupId", "MessageDeduplicationId"];
    if let Some(unknown) = value.as_object().and_then(|fields| {
        fields
            .keys()
            .find(|name| !KNOWN.contains(&name.strip_suffix(".$").unwrap_or(name)))
    }) {
        return Err(Unsupported(format!("{of} has the parameter {unknown:?}")));
    }
    Template::read(of, value)
}

impl Retry {
    fn read(mut fields: Fields) -> Result<Self, Unsupported> {
        let retry = Self {
            errors: fields.texts("ErrorEquals")?,
            interval: fields.number("IntervalSeconds")?.unwrap_or(1.0),
            attempts: fields.number("MaxAttempts")?.map_or(3, |number| number as u32),
            rate: fields.number("BackoffRate")?.unwrap_or(2.0),
            longest: fields.number("MaxDelaySeconds")?,
        };
        fields.end()?;
        Ok(retry)
    }

    pub(crate) fn covers(&self, error: &str) -> bool {
        covers(&self.errors, error)
    }

    /// The wait before this try (the first is 1), in milliseconds.
    pub(crate) fn pause(&self, attempt: u32) -> i64 {
        let seconds = self.interval * self.rate.powi(i32::try_from(attempt).unwrap_or(i32::MAX) - 1);
        (seconds.min(self.longest.unwrap_or(f64::MAX)).clamp(0.0, 31_536_000.0) * 1000.0) as i64
    }
}

impl Catch {
    fn read(mut fields: Fields) -> Result<Self, Unsupported> {
        let catch = Self {
            errors: fields.texts("ErrorEquals")?,
            result_path: fields.result_path()?,
            next: fields.text("Next")?,
        };
        fields.end()?;
        Ok(catch)
    }

    pub(crate) fn covers(&self, error: &str) -> bool {
        covers(&self.errors, error)
    }
}

/// # Source
///
/// "Error names" in the Step Functions developer guide: `States.ALL` matches any,
/// `States.TaskFailed` any but a timeout, and `States.Timeout` also a task that has not sent its
/// heartbeat.
fn covers(names: &[String], error: &str) -> bool {
    let timeout = error == "States.Timeout" || error == "States.HeartbeatTimeout";
    names.iter().any(|name| match name.as_str() {
        "States.ALL" => true,
        "States.TaskFailed" => !timeout,
        "States.Timeout" => timeout,
        name => name == error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(states: Value) -> Result<Definition, Unsupported> {
        let text = json!({ "StartAt": "A", "States": states }).to_string();
        Definition::read(&text, &BTreeMap::new())
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (states, named) in [
            (json!({ "A": { "Type": "Map", "End": true } }), "Map"),
            (
                json!({ "A": { "Type": "Pass", "InputPath": "$.a", "End": true } }),
                "InputPath",
            ),
            (json!({ "A": { "Type": "Pass", "Next": "B" } }), "B"),
            (json!({ "A": { "Type": "Pass" } }), "Next"),
            (
                json!({ "A": { "Type": "Wait", "Timestamp": "2026", "End": true } }),
                "Seconds",
            ),
            (
                json!({ "A": { "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": true } }),
                "lambda:invoke",
            ),
            (
                json!({ "A": { "Type": "Choice", "Choices": [{ "Variable": "$.a", "StringMatches": "x", "Next": "A" }] } }),
                "StringMatches",
            ),
            (
                json!({ "A": { "Type": "Choice", "Choices": [{ "Variable": "$.a[0]", "IsNull": true, "Next": "A" }] } }),
                "$.a[0]",
            ),
        ] {
            let error = read(states).expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
        let missing = Definition::read(r#"{ "StartAt": "${Unknown}", "States": {} }"#, &BTreeMap::new());
        assert!(missing.expect_err("nothing is given").to_string().contains("Unknown"));
    }

    #[test]
    fn the_lifecycle_is_known_in_full() {
        let urls = ["StartSessionQueueUrl", "InstallPackagesQueueUrl", "StopSessionQueueUrl"];
        let urls = urls
            .map(|name| (name.to_owned(), format!("http://localhost/{name}")))
            .into();
        let lifecycle = Definition::read(include_str!("../../../lifecycle.asl.json"), &urls).expect("the lifecycle");
        assert!(lifecycle.states.len() > 5 && lifecycle.text.contains("http://localhost/StopSessionQueueUrl"));
    }

    #[test]
    fn a_result_goes_where_its_path_says() {
        let input = json!({ "a": 1 });
        let at = |fields: &[&str]| ResultPath::At(fields.iter().map(|field| (*field).to_owned()).collect());
        assert_eq!(ResultPath::Discard.place(input.clone(), json!(2)), input);
        assert_eq!(at(&[]).place(input.clone(), json!(2)), json!(2));
        assert_eq!(
            at(&["b", "c"]).place(input, json!(2)),
            json!({ "a": 1, "b": { "c": 2 } })
        );
    }

    #[test]
    fn errors_are_covered_as_step_functions_does() {
        let names = |text: &str| vec![text.to_owned()];
        assert!(covers(&names("States.ALL"), "Any") && covers(&names("States.TaskFailed"), "Any"));
        assert!(!covers(&names("States.TaskFailed"), "States.Timeout"));
        assert!(covers(&names("States.Timeout"), "States.HeartbeatTimeout") && !covers(&names("A"), "B"));
    }
}
