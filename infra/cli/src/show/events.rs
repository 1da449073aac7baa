//! The history of a session.

use crate::{
    table::{render, table},
    text::{clock, rounded, took},
};
use comfy_table::{Attribute, Cell};
use contract::{Outcome, Step, row::LogRow};
use lifecycle::count;
use lifecycle::session::Event;

/// A history, oldest first.
pub(crate) fn events(events: &[LogRow]) -> String {
    let mut table = table(&["TIME", "AFTER", "PHASE", "GENERATION", "BY", "WHAT"]);
    let mut before = None;
    for row in events {
        let after = before
            .map(|at| took(rounded(row.at.saturating_sub(at))))
            .unwrap_or_default();
        before = Some(row.at);
        let at = if row.from == row.to {
            row.to.word().into()
        } else {
            format!("{} → {}", row.from.word(), row.to.word())
        };
        let cell = Cell::new(at);
        table.add_row([
            Cell::new(clock(row.at)),
            Cell::new(after),
            if row.from == row.to {
                cell.add_attribute(Attribute::Dim)
            } else {
                cell
            },
            Cell::new(row.generation),
            Cell::new(&row.by),
            Cell::new(what_happened(&row.event)),
        ]);
    }
    render(table)
}

pub(super) fn what_happened(event: &Event) -> String {
    let because = |failure: &Option<contract::Failure>| failure.as_ref().map(|f| format!(": {f}")).unwrap_or_default();
    match event {
        Event::Wanted { operation } => format!("{} wanted ({})", operation.kind.word(), operation.id),
        Event::IdleSeen {
            operation, why: None, ..
        } => format!("idle for too long, so stop wanted ({operation})"),
        Event::IdleSeen { why: Some(why), .. } => {
            format!("its compute instance idle for too long, so stop wanted: {why}")
        }
        Event::IdleNear { due, .. } => format!("warned: deleted at {} if nobody uses it", clock(*due)),
        Event::DailyTimeNear { due, .. } => {
            format!(
                "warned: stopped at {}, as its user's time of the day is used up then",
                clock(*due)
            )
        }
        Event::DailyTimeUsedUp { why, .. } => {
            format!("its user's time of the day is used up, so stop wanted: {why}")
        }
        Event::RunWanted { run, .. } => format!("run wanted ({run})"),
        Event::CancelWanted { run } => format!("cancel wanted ({run})"),
        Event::StepEntered { step, cause, .. } => format!("step {} began{}", step_name(*step), because(cause)),
        Event::ComputeUp { compute } => format!("compute {compute} is up"),
        Event::ComputeGone { compute, why } => format!("compute {compute} is gone: {why}"),
        Event::ComputeDrained { compute, why, .. } => {
            format!("compute {compute} is to be deleted, so stop wanted: {why}")
        }
        Event::SessionUp { .. } => "container is up".into(),
        Event::SessionGone { failure, .. } => format!("container is gone{}", because(failure)),
        Event::ImageChecked { failure: None, .. } => "base image can be had".into(),
        Event::ImageChecked { failure, .. } => format!("base image cannot be had{}", because(failure)),
        Event::Installed { warning: None, .. } => "packages installed".into(),
        Event::Installed {
            warning: Some(warning), ..
        } => format!("packages installed, with a warning: {warning}"),
        Event::InstallFailed { failure, .. } => format!("packages not installed: {failure}"),
        Event::ImageSeen {
            latest: Some(latest), ..
        } => format!("base image is {latest} by now"),
        Event::ImageSeen { digest, .. } => format!("base image is {digest}"),
        Event::Alive { runs, .. } => format!("agent is alive, {}", count(runs.len(), "run")),
        Event::RunDone {
            run, outcome, failure, ..
        } => {
            let how = match outcome {
                Outcome::Succeeded => "succeeded",
                Outcome::Failed => "failed",
                Outcome::Canceled => "canceled",
            };
            format!("run {run} {how}{}", because(failure))
        }
        Event::Activity { .. } => "used".into(),
        Event::Tick => "time passed".into(),
    }
}

pub(super) fn step_name(step: Step) -> &'static str {
    match step {
        Step::ClaimCompute => "claim-compute",
        Step::LaunchSession => "launch-session",
        Step::InstallPackages => "install-packages",
        Step::StopSession => "stop-session",
        Step::CleanUp => "clean-up",
    }
}
