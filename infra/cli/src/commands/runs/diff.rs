//! `pfsession runs diff`: two runs, line by line and metric by metric.

use super::{find, metrics_of};
use crate::{
    command::Execute,
    global::{Done, Service},
    runfiles::{self, Line, members},
    terminal::note,
    text::{out, out_json},
    trouble::{FAILED, Trouble},
};
use clap::Args;
use lifecycle::{count, count_with};
use serde::Serialize;
use serde_json::Value;

/// Compare two runs, line by line and metric by metric; the exit code is 1 if they differ
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession runs diff before-the-upgrade after-the-upgrade")]
pub(crate) struct Diff {
    /// One run
    before: String,
    /// The other
    after: String,
}

/// The differences of two runs.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct Difference {
    /// The line that it is in; none for a metric or the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line_number: Option<i64>,
    /// The output, metric or other thing.
    pub(crate) what: String,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

/// The most differences that are printed for people.
const MOST_PRINTED: usize = 200;

impl Execute for Diff {
    type Json = Vec<Difference>;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let (before, after) = (&find(client, &self.before)?, &find(client, &self.after)?);
        let mut differences = Vec::new();
        let mut same = 0_u64;
        let (mut left, mut right) = (
            runfiles::lines(client, before)?.peekable(),
            runfiles::lines(client, after)?.peekable(),
        );
        loop {
            // By number: one of the two may have lines that the other has not.
            let number = |line: Option<&Result<Line, Box<Trouble>>>| match line {
                Some(Ok(line)) => line.line_number,
                Some(Err(_)) => i64::MIN,
                None => i64::MAX,
            };
            let next = number(left.peek()).min(number(right.peek()));
            if next == i64::MAX {
                break;
            }
            let (one, other) = (
                left.next_if(|line| number(Some(line)) == next).transpose()?,
                right.next_if(|line| number(Some(line)) == next).transpose()?,
            );
            let found = between(next, one.as_ref(), other.as_ref());
            same += u64::from(found.is_empty());
            differences.extend(found);
        }
        let (one, other) = (metrics_of(client, before)?, metrics_of(client, after)?);
        for (name, one, other) in pairs(&runfiles::value(&one), &runfiles::value(&other)) {
            if one != other {
                differences.push(Difference {
                    line_number: None,
                    what: format!("metric {name}"),
                    before: one,
                    after: other,
                });
            }
        }
        if service.global.json {
            out_json(&differences);
        } else {
            for difference in differences.iter().take(MOST_PRINTED) {
                out(&describe(difference));
            }
            if differences.len() > MOST_PRINTED {
                note!("{} more: --json prints all.", differences.len() - MOST_PRINTED);
            }
            let same = count_with(same, "line", ["is", "are"]);
            note!("{same} the same; {}.", count(differences.len(), "difference"));
        }
        Ok(if differences.is_empty() { 0 } else { FAILED })
    }
}

fn describe(difference: &Difference) -> String {
    let shown = |value: &Option<Value>| value.as_ref().map_or("(nothing)".to_owned(), Value::to_string);
    let place = difference
        .line_number
        .map(|number| format!("line {number}, "))
        .unwrap_or_default();
    format!(
        "{place}{}\n  - {}\n  + {}",
        difference.what,
        shown(&difference.before),
        shown(&difference.after)
    )
}

/// The differences of a line. What failed in both is the same if it failed with the same error.
fn between(number: i64, before: Option<&Line>, after: Option<&Line>) -> Vec<Difference> {
    let of = |what: &str, before: Option<Value>, after: Option<Value>| Difference {
        line_number: Some(number),
        what: what.to_owned(),
        before,
        after,
    };
    let (Some(before), Some(after)) = (before, after) else {
        let shown = |line: Option<&Line>| line.map(|line| line.output.clone().unwrap_or(line.status.into()));
        return vec![of("the line", shown(before), shown(after))];
    };
    let error = |line: &Line| line.error.as_ref().map(|error| Value::from(error.to_string()));
    if error(before) != error(after) {
        return vec![of("error", error(before), error(after))];
    }
    if before.text == after.text {
        return Vec::new();
    }
    let whole = |line: &Line| line.output.clone().unwrap_or_default();
    let found: Vec<Difference> = pairs(&whole(before), &whole(after))
        .into_iter()
        .filter(|(_, one, other)| one != other)
        .map(|(name, one, other)| of(&name, one, other))
        .collect();
    found
}

/// The members of two objects by name.
fn pairs(before: &Value, after: &Value) -> Vec<(String, Option<Value>, Option<Value>)> {
    let (before, mut after) = (members(before), members(after));
    let mut pairs: Vec<_> = before
        .into_iter()
        .map(|(name, value)| {
            let other = after.shift_remove(&name);
            (name, Some(value), other)
        })
        .collect();
    pairs.extend(after.into_iter().map(|(name, value)| (name, None, Some(value))));
    pairs
}
