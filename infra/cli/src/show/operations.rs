//! Operations.

use crate::{
    table::pairs,
    text::{clock, took},
};
use comfy_table::{Cell, Color};
use contract::row::{OperationRow, OperationStatus};

/// One operation.
pub(crate) fn operation(row: &OperationRow) -> String {
    let status = match row.status {
        OperationStatus::InProgress => Cell::new("in progress").fg(Color::Yellow),
        OperationStatus::Joined => Cell::new("joined").fg(Color::Yellow),
        OperationStatus::Succeeded => Cell::new("succeeded").fg(Color::Green),
        OperationStatus::Failed => Cell::new("failed").fg(Color::Red),
        OperationStatus::Canceled => Cell::new("canceled").fg(Color::Yellow),
    };
    let mut rows = vec![
        ("operation", Cell::new(&row.id)),
        ("kind", Cell::new(row.kind.word())),
        ("session", Cell::new(&row.flow)),
        ("status", status),
        ("wanted by", Cell::new(&row.by)),
        ("accepted", Cell::new(clock(row.accepted))),
    ];
    if let Some(ended) = row.ended {
        rows.push((
            "ended",
            Cell::new(format!(
                "{} (after {})",
                clock(ended),
                took(ended.saturating_sub(row.accepted))
            )),
        ));
    }
    if let Some(joined) = &row.joined {
        rows.push(("ends with", Cell::new(joined)));
    }
    if let Some(warning) = &row.warning {
        rows.push(("warning", Cell::new(warning).fg(Color::Yellow)));
    }
    if let Some(failure) = &row.failure {
        rows.push((
            "failure",
            Cell::new(format!("{} [{}]", failure.message, failure.error)).fg(Color::Red),
        ));
    }
    if let Some(setup) = &row.setup {
        let ended = format!("{} ended with exit code {}", setup.command, setup.exit_code);
        rows.push(("install", Cell::new(ended)));
        rows.push(("last output", Cell::new(setup.tail.join("\n"))));
    }
    rows.push((
        "whole output",
        Cell::new(format!("pfsession logs {}", row.joined.as_ref().unwrap_or(&row.id))),
    ));
    pairs(rows)
}
