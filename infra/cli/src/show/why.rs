//! The reasons for a session's state.

use super::{
    events::what_happened,
    sessions::{KEY, chosen, refused_connections, size, stopped_for},
};
use crate::{
    table::pairs,
    text::{ago, at, clock, folder, short, took},
};
use comfy_table::{Cell, Color};
use contract::http::Signal;
use contract::{
    Millis,
    http::{Decision, End, Keeper, SessionView, SignalKind, Why},
};

/// The reasons for a session's state.
pub(crate) fn why(why: &Why, home: Option<&str>) -> String {
    let (session, reasons) = (&why.session, &why.reasons);
    let now = session.now;
    let since = match session.since {
        0 => String::new(),
        since => format!(", since {} ({})", clock(since), ago(now, since)),
    };
    let mut rows = vec![
        ("flow", Cell::new(folder(&session.flow.lineage, home))),
        ("phase", Cell::new(format!("{}{since}", session.phase.word()))),
    ];
    let because = reasons.because.iter().map(decision_text);
    rows.extend(because.map(|text| ("because", Cell::new(text))));
    if reasons.began != reasons.because {
        rows.extend(
            reasons
                .began
                .iter()
                .map(|decision| ("begun by", Cell::new(decision_text(decision)))),
        );
    }
    if reasons.last != reasons.because {
        rows.extend(
            reasons
                .last
                .iter()
                .map(|decision| ("last decision", Cell::new(decision_text(decision)))),
        );
    }
    if let Some(failure) = &session.failure {
        rows.push((
            "failure",
            Cell::new(format!("{} [{}]", failure.message, failure.error)).fg(Color::Red),
        ));
    }
    rows.extend(stopped_for(session));
    if !session.settings.choice.is_empty() {
        let size = chosen(size(&session.settings.size), &session.settings.choice);
        rows.push(("VM size", Cell::new(size)));
    }
    rows.extend(refused_connections(session));
    let kept = reasons
        .kept_by
        .iter()
        .map(|keeper| ("kept by", Cell::new(keeps(keeper, now))));
    rows.extend(kept);
    let ends = reasons.ends.iter().map(|end| ("ends", Cell::new(ends(end, session))));
    rows.extend(ends);
    if reasons.ends.is_empty() && !session.phase.is_live() {
        let text = format!(
            "there is no session now; start one: pfsession start {}",
            crate::text::quoted(&folder(&session.flow.lineage, home))
        );
        rows.push(("ends", Cell::new(text)));
    }
    let seen = reasons
        .signals
        .iter()
        .map(|signal| ("seen", Cell::new(signal_line(signal, now))));
    rows.extend(seen);
    pairs(rows)
}

fn decision_text(decision: &Decision) -> String {
    let by = match decision.by.as_str() {
        "states" => "the state machine",
        other => other,
    };
    format!("{}: {}, by {by}", clock(decision.at), what_happened(&decision.event))
}

/// A run or an operation that keeps a session from being idle.
fn keeps(keeper: &Keeper, now: Millis) -> String {
    match keeper {
        Keeper::Operation { id, kind: of } => format!("{} under way ({id})", of.word()),
        Keeper::Waiting { id, kind: of } => format!("{} that waits ({id})", of.word()),
        Keeper::Run { id, until: Some(until) } => format!(
            "run {id}, whose lease ends {} if its agent is not heard",
            at(now, *until)
        ),
        Keeper::Run { id, until: None } => format!("run {id}, which waits for the session"),
    }
}

/// A deadline of a session or its phase.
fn ends(end: &End, session: &SessionView) -> String {
    let now = session.now;
    match end {
        End::Idle {
            at: when,
            warned,
            warning,
        } => {
            let warned = match (warned, warning) {
                (true, _) => format!(
                    "; you were warned; keep it: pfsession extend {}",
                    short(&session.key, KEY)
                ),
                (false, Some(from)) => format!("; you are warned from {} on", clock(*from)),
                (false, None) => String::new(),
            };
            format!(
                "deleted {} if nobody uses it: unused for {} then{warned}",
                at(now, *when),
                took(session.settings.idle.value)
            )
        }
        End::InstanceIdle { at: when } => format!(
            "deleted {} with its compute instance{} if nobody uses that: its idle shutdown",
            at(now, *when),
            session
                .settings
                .compute
                .value
                .iter()
                .map(|name| format!(" {name}"))
                .collect::<String>()
        ),
        End::DailyTime { at: when, warned } => format!(
            "stopped {}, in use or not: your sessions have lived then for as long as they may on one day (UTC){}; a session less puts it off",
            at(now, *when),
            if *warned { "; you were warned" } else { "" }
        ),
        End::Deadline { at: when } => format!(
            "given up {} if it is still {} then",
            at(now, *when),
            session.phase.word()
        ),
        End::AgentSilent { at: when } => format!(
            "failed {} if its agent is not heard before; it speaks every few seconds",
            at(now, *when)
        ),
    }
}

/// A signal, and when it was seen last.
fn signal_line(signal: &Signal, now: Millis) -> String {
    let what = match signal.kind {
        SignalKind::ComputeUp => "compute resource up",
        SignalKind::ContainerUp => "container up",
        SignalKind::Installed => "packages installed",
        SignalKind::InstallFailed => "packages not installed",
        SignalKind::RunWanted => "run wanted",
        SignalKind::RunDone => "run ended",
        SignalKind::Used => "used",
        SignalKind::Warned => "warned of its deletion",
        SignalKind::AgentAlive => "agent heard",
        SignalKind::Gone => "seen gone",
    };
    let times = if signal.times > 1 {
        format!(", {} times", signal.times)
    } else {
        String::new()
    };
    format!("{what} {}{times}", ago(now, signal.at))
}
