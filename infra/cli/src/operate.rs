//! Operations on sessions: sent, awaited, and reported.

use crate::{
    client::Client,
    confirm,
    global::Done,
    options::Yes,
    show,
    terminal::{self, note, warn},
    text::{out, out_json, took},
    trouble::{FAILED, INTERRUPTED, NONE, Trouble},
    watch,
    wish::Flow,
};
use contract::{
    Code, Failure, FlowRef, Kind,
    command::{Command, Wanted, Wish},
    http::SessionView,
    route::Route,
    row::{OperationRow, OperationStatus},
};
use lifecycle::session::Counts;
use std::sync::{Arc, Mutex};

pub(crate) fn command(id: &str, flow: &FlowRef, wish: Wish) -> Command {
    Command {
        id: id.into(),
        flow: flow.clone(),
        principal: None,
        wish,
    }
}

/// Sends what becomes an operation, and waits for its end.
pub(crate) fn operate(client: &Arc<Client>, flow: &Flow, kind: Kind, wish: Wish, no_wait: bool, json: bool) -> Done {
    if let Wish::Start { settings } | Wish::Update { settings } = &wish {
        warn_of_size(settings);
    }
    let id = flow.new_id(Some(kind.word()));
    let accepted = client
        .send(&command(&id, &flow.reference, wish))
        .map_err(|t| t.what(not_done(kind, flow)))?;
    if no_wait {
        if json {
            out_json(&accepted)
        } else {
            out(&id)
        }
        return Ok(0);
    }
    let interrupted = when_interrupted(format!(
        "The {} goes on. Look at it: pfsession logs {id} --follow",
        kind.word()
    ));
    let row = watch::operation(client, &accepted.flow, &id)?;
    drop(interrupted);
    let exit = end_of_operation(&row, flow, json)?;
    // That it cannot be asked now is no failure of what was done.
    if matches!(kind, Kind::Install | Kind::Update)
        && let Ok(Some(session)) = client.find::<SessionView>(Route::Session(&flow.key()))
    {
        if let Some(stale) = show::stale(&session) {
            warn(&stale);
        }
        if let Some(due) = session.idle_due.filter(|_| kind == Kind::Update) {
            note!("If nobody uses it, it is deleted {}.", show::at(session.now, due));
        }
    }
    Ok(exit)
}

/// Names the active runs that end with a session, and asks whether they may. A script is not asked,
/// as it may be older than the question.
///
/// * `change`: settings that make the session anew only where they differ from what it has.
pub(crate) fn confirm_end(
    client: &Client,
    flow: &Flow,
    what: &str,
    change: Option<&Wanted>,
    yes: &Yes,
) -> Result<(), Box<Trouble>> {
    let Some(session) = client.find::<SessionView>(Route::Session(&flow.key()))? else {
        return Ok(());
    };
    let has = &session.settings;
    let is_other = |change: &Wanted| {
        let wants = change.over(has.clone());
        wants
            .differences(has)
            .any(|setting| setting.counts() == Counts::OnNewCompute)
    };
    if session.runs.is_empty() || !change.is_none_or(is_other) {
        return Ok(());
    }
    let runs = session.runs.join(", ");
    let question = format!("{what} ends these active runs of {}: {runs}.", flow.typed);
    confirm::ask(&question, yes.yes, confirm::Unasked::GoOn)
}

/// Says that a size is smaller than flows should have.
pub(crate) fn warn_of_size(wanted: &Wanted) {
    if let Some(size) = &wanted.size
        && lifecycle::size::size(size).is_some_and(|size| size.below_series_d)
    {
        let text = format!(
            "{size} is below series D: flows may be slow or run out of memory there. Take one such as Standard_D2s_v3."
        );
        warn(&text);
    }
}

pub(crate) fn end_of_operation(row: &OperationRow, flow: &Flow, json: bool) -> Done {
    if row.status == OperationStatus::Succeeded {
        if json {
            out_json(row);
        }
        if let Some(warning) = &row.warning {
            warn(warning);
        }
        let after = row
            .ended
            .map(|ended| took(ended.saturating_sub(row.accepted)))
            .unwrap_or_default();
        let what = match row.kind {
            Kind::Start => "is ready",
            Kind::Install => "has its packages",
            Kind::Update => "has the settings that you named",
            Kind::Reset => "is made anew and ready",
            Kind::Stop => "is gone",
        };
        note!("The session of {} {what} ({after}).", flow.typed);
        return Ok(0);
    }
    let failure = row.failure.clone().unwrap_or_else(canceled);
    let exit = if failure.error == Code::SessionNoSession {
        NONE
    } else {
        FAILED
    };
    let trouble = match failure.error {
        Code::InstanceNotRunning | Code::InstanceNone | Code::InstanceStopping => Trouble::of(exit, failure)
            .next("look at your compute instances: pfsession instance list; start one: pfsession instance start NAME"),
        _ => Trouble::of(exit, failure),
    };
    Err(trouble
        .what(not_done(row.kind, flow))
        .also(row.also.clone())
        .output(format!("pfsession logs {}", row.joined.as_ref().unwrap_or(&row.id))))
}

pub(crate) fn not_done(kind: Kind, flow: &Flow) -> String {
    match kind {
        Kind::Start => format!("the session of {} did not start", flow.typed),
        Kind::Install => format!("the packages of {} were not installed", flow.typed),
        Kind::Update => format!("the session of {} was not changed", flow.typed),
        Kind::Reset => format!("the session of {} was not reset", flow.typed),
        Kind::Stop => format!("the session of {} was not stopped", flow.typed),
    }
}

/// Says `hint` and ends this command when it is interrupted, until what it gives back is dropped.
pub(crate) fn when_interrupted(hint: String) -> impl Drop {
    struct Until(Arc<Mutex<Option<String>>>);
    impl Drop for Until {
        fn drop(&mut self) {
            *self.0.lock().expect("nobody panics with it") = None;
        }
    }
    let hint = Arc::new(Mutex::new(Some(hint)));
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(nix::sys::signal::Signal::SIGINT);
    // Blocked before any other thread is there, so that the one that waits for it gets it.
    if signals.thread_block().is_ok() {
        let hint = hint.clone();
        std::thread::spawn(move || {
            if signals.wait().is_ok() {
                if let Some(hint) = hint.lock().expect("nobody panics with it").take() {
                    terminal::print_over(&hint);
                }
                std::process::exit(INTERRUPTED.into());
            }
        });
    }
    Until(hint)
}

/// The failure of an operation that another command ended.
pub(crate) fn canceled() -> Failure {
    Failure::new(
        Code::SessionCanceled,
        "Another command came in between and ended the operation. Try again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_was_canceled_says_so() {
        let flow = Flow {
            reference: FlowRef {
                workspace: "lab".into(),
                owner: "ann".into(),
                lineage: "/flow".into(),
            },
            typed: "flow".into(),
            named: None,
        };
        let sample = include_str!("../../../events/table/operation/valid/canceled.json");
        let mut row: OperationRow = serde_json::from_str(sample).unwrap();
        row.failure = None;
        let trouble = end_of_operation(&row, &flow, true).unwrap_err();
        expect_test::expect![[r#"
            error: the session of flow did not start: Another command came in between and ended the operation. Try again. [Session.Canceled]
              whole output: pfsession logs start-1"#]].assert_eq(&trouble.to_string());
    }
}
