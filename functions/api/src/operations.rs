//! Operations, and what they and runs write.

use crate::answers::{absent, ok, readable, wait_for, waited_from};
use aws::Aws;
use contract::{
    Millis, Principal,
    http::Output,
    row::{OperationRow, OperationStatus},
};
use serde_json::Value;
use shell::{Fault, Ports};

/// An operation, after its end or after `wait`.
pub(crate) async fn read(aws: &Aws, caller: &Principal, id: &str, wait: Millis) -> Result<Value, Fault> {
    let has_ended = |row: &OperationRow| row.status != OperationStatus::InProgress;
    let found = wait_for(
        aws,
        wait,
        || aws.load_operation(id),
        |row| row.as_ref().is_some_and(has_ended),
    );
    let Some(mut row) = found.await? else {
        return Ok(absent("operation", id));
    };
    // The end of the one it joined is its own.
    if let Some(to) = row.joined.clone() {
        let found = wait_for(
            aws,
            wait,
            || aws.load_operation(&to),
            |row| row.as_ref().is_none_or(has_ended),
        );
        if let Some(to) = found.await? {
            row.status = to.status;
            row.ended = to.ended;
            row.failure = to.failure;
            row.warning = to.warning;
            row.setup = to.setup;
        }
    }
    readable(aws, caller, &row.flow, "operation", id, || ok(200, &row)).await
}

/// The output of an operation or a run.
pub(crate) async fn output(
    aws: &Aws,
    caller: &Principal,
    of: &str,
    after: Option<u64>,
    wait: Millis,
) -> Result<Value, Fault> {
    let (flow, _) = match owner_of_output(aws, of).await? {
        Some(found) => found,
        None => return Ok(absent("operation or run", of)),
    };
    let read = || async {
        // Whether it has ended is read first: what it said before its end is there by then.
        let ended = owner_of_output(aws, of).await?.is_none_or(|(_, ended)| ended);
        Ok(Output {
            lines: aws.output(of, after).await?,
            ended,
        })
    };
    // An agent gathers lines for a tenth of a second: to look more often gives nobody a line
    // sooner.
    let output = waited_from(25, aws, wait, read, |output: &Output| {
        output.ended || !output.lines.is_empty()
    })
    .await?;
    readable(aws, caller, &flow, "operation or run", of, || ok(200, &output)).await
}

/// The flow whose output it is, and whether there will be no more.
async fn owner_of_output(aws: &Aws, of: &str) -> Result<Option<(String, bool)>, Fault> {
    if let Some(run) = aws.load_run(of).await? {
        return Ok(Some((run.flow, run.status.is_final())));
    }
    Ok(aws
        .load_operation(of)
        .await?
        .map(|operation| (operation.flow, operation.status != OperationStatus::InProgress)))
}
