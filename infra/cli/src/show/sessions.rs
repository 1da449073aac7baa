//! Sessions: a list, one with its settings, and what is said of it aside.

use crate::{
    table::{pairs, render, table},
    text::{ago, ahead, at, folder, short, took},
};
use comfy_table::{Attribute, Cell, Color};
use contract::{Named, Origin, Phase, Settings, http::SessionView};
use lifecycle::count;
use lifecycle::{network::Network, size};

/// The shown length of a key.
pub(super) const KEY: usize = 8;

/// The same of a digest of an image, with the name of its kind.
const DIGEST: usize = 19;

fn phase_cell(at: Phase) -> Cell {
    let cell = Cell::new(at.word());
    match at {
        Phase::Ready => cell.fg(Color::Green),
        Phase::Failed => cell.fg(Color::Red),
        Phase::Stopped => cell.add_attribute(Attribute::Dim),
        Phase::Provisioning | Phase::Launching | Phase::Installing | Phase::Stopping => cell.fg(Color::Yellow),
    }
}

/// The warning that a session is deleted soon, with the command that keeps it.
pub(crate) fn deleted_soon(session: &SessionView, home: Option<&str>) -> Option<String> {
    Some(format!(
        "The session of {} is deleted {} if nobody uses it. Keep it: pfsession extend {}",
        folder(&session.flow.lineage, home),
        at(session.now, session.idle_due?),
        short(&session.key, KEY)
    ))
}

/// The warning that a session's base image is not the one that is wanted.
pub(crate) fn stale(session: &SessionView) -> Option<String> {
    let has = session.image.as_ref()?;
    let Some(wanted) = &session.stale_image else {
        let (before, now) = (session.image_digest.as_ref()?, session.stale_digest.as_ref()?);
        return Some(format!(
            "The session's base image {} is {}, and stands for {} by now. To use that one: pfsession reset {}",
            has.value,
            short(before, DIGEST),
            short(now, DIGEST),
            short(&session.key, KEY)
        ));
    };
    Some(format!(
        "The session's base image is {}, and {} names {} by now. To use that one: pfsession reset {}",
        has.value,
        match wanted.origin {
            Origin::FlowFile => "the flow's file",
            Origin::RunFile => "the run's file",
            Origin::Command => "a command",
            Origin::Workspace => "the workspace",
            Origin::Default => "the default",
        },
        wanted.value,
        short(&session.key, KEY)
    ))
}

fn from(origin: Origin) -> &'static str {
    match origin {
        Origin::Command => "named by a command",
        Origin::RunFile => "from run.yml",
        Origin::FlowFile => "from the flow's file",
        Origin::Workspace => "from the workspace",
        Origin::Default => "the default",
    }
}

/// A VM size, with what it is.
pub(super) fn size(named: &Named<String>) -> String {
    let about = match size::size(&named.value).map(|size| (size.limits, size.below_series_d)) {
        Some((Some(limits), below)) => {
            let memory = limits.memory as f64 / f64::from(1 << 30);
            let below = if below { "; below series D" } else { "" };
            format!(": {}, {memory} GiB{below}", count(limits.cpus, "processor"))
        }
        Some((None, _)) => ": all of the machine".into(),
        None => String::new(),
    };
    format!("{}{about} ({})", named.value, from(named.origin))
}

/// A VM size with how it was chosen, if nobody named it.
pub(crate) fn chosen(size: String, choice: &str) -> String {
    match choice {
        "" => size,
        why => format!("{size}\nchosen: {why}"),
    }
}

/// Sessions, one a line.
///
/// * `of_all`: whether they are of more than one user.
pub(crate) fn list(sessions: &[SessionView], home: Option<&str>, of_all: bool) -> String {
    let owner = of_all.then_some("OWNER");
    let head: Vec<&str> = ["KEY"]
        .into_iter()
        .chain(owner)
        .chain(["FLOW", "PHASE", "DOING", "RUNS", "LAST USED", "DELETED"])
        .collect();
    let mut table = table(&head);
    for session in sessions {
        let doing = session.current.as_ref().map_or("", |operation| operation.kind.word());
        let next = session
            .next
            .as_ref()
            .map(|operation| format!(", then {}", operation.kind.word()))
            .unwrap_or_default();
        let mut row = vec![
            Cell::new(short(&session.key, KEY)),
            Cell::new(folder(&session.flow.lineage, home)),
            phase_cell(session.phase),
            Cell::new(format!("{doing}{next}")),
            Cell::new(session.runs.len()),
            Cell::new(ago(session.now, session.last_activity)),
            Cell::new(session.idle_due.map(|due| ahead(session.now, due)).unwrap_or_default()),
        ];
        if of_all {
            row.insert(1, Cell::new(&session.flow.owner));
        }
        table.add_row(row);
    }
    render(table)
}

/// One session.
///
/// * `more`: rows that are known from elsewhere.
pub(crate) fn session(session: &SessionView, home: Option<&str>, more: Vec<(&'static str, String)>) -> String {
    let mut rows = vec![
        ("flow", Cell::new(folder(&session.flow.lineage, home))),
        (
            "owner",
            Cell::new(format!(
                "{} in workspace {}",
                session.flow.owner, session.flow.workspace
            )),
        ),
        ("key", Cell::new(&session.key)),
        ("phase", phase_cell(session.phase)),
        ("generation", Cell::new(session.generation)),
    ];
    rows.extend(settings(session).map(|(name, text)| (name, Cell::new(text))));
    rows.extend(refused_connections(session));
    rows.extend(image_rows(session));
    let of_flow = &session.settings.folder.value;
    if *of_flow != session.flow.lineage {
        rows.insert(1, ("folder", Cell::new(folder(of_flow, home))));
    }
    rows.extend(work_rows(session));
    rows.push(("last used", Cell::new(ago(session.now, session.last_activity))));
    rows.extend(deletion_rows(session));
    rows.extend(more.into_iter().map(|(name, text)| (name, Cell::new(text))));
    rows.extend(stopped_for(session));
    if let Some(failure) = &session.failure {
        rows.push((
            "failure",
            Cell::new(format!("{} [{}]", failure.message, failure.error)).fg(Color::Red),
        ));
        rows.push((
            "whole output",
            Cell::new(format!("pfsession logs {}", short(&session.key, KEY))),
        ));
    }
    pairs(rows)
}

/// A line of a session's view.
type Row = (&'static str, Cell);

/// The digest of a session's base image, and a newer image if there is one.
fn image_rows(session: &SessionView) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(digest) = &session.image_digest {
        rows.push(("image digest", Cell::new(digest)));
    }
    if let (None, Some(digest)) = (&session.stale_image, &session.stale_digest) {
        let text = format!("{digest} by now, from the next reset on");
        rows.push(("stale image", Cell::new(text).fg(Color::Yellow)));
    }
    if let Some(stale) = &session.stale_image {
        let text = format!("{} ({}), from the next reset on", stale.value, from(stale.origin));
        rows.push(("stale image", Cell::new(text).fg(Color::Yellow)));
    }
    rows
}

/// The place and the work of a session.
fn work_rows(session: &SessionView) -> Vec<Row> {
    let mut rows = Vec::new();
    let compute = &session.settings.compute;
    if let Some(name) = &compute.value {
        rows.push(("instance", Cell::new(format!("{name} ({})", from(compute.origin)))));
    }
    if let Some(compute) = &session.compute {
        rows.push(("compute", Cell::new(compute)));
    }
    for (name, operation) in [("doing", &session.current), ("waiting", &session.next)] {
        if let Some(operation) = operation {
            rows.push((name, Cell::new(format!("{} ({})", operation.kind.word(), operation.id))));
        }
    }
    if !session.runs.is_empty() {
        rows.push(("runs", Cell::new(session.runs.join("\n"))));
    }
    rows
}

/// The time of a session's deletion.
fn deletion_rows(session: &SessionView) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(due) = session.idle_due {
        rows.push((
            "deleted",
            Cell::new(format!("{}, if nobody uses it before", at(session.now, due))),
        ));
        if session.warned {
            let text = format!("deleted soon; keep it: pfsession extend {}", short(&session.key, KEY));
            rows.push(("warning", Cell::new(text).fg(Color::Yellow)));
        }
    }
    if let Some(due) = session.instance_due {
        let first = match session.idle_due {
            Some(own) if due <= own => "; this comes first",
            _ => "",
        };
        let text = format!(
            "{}, with its compute instance, if nobody uses that before{first}",
            at(session.now, due)
        );
        rows.push(("deleted", Cell::new(text)));
    }
    if let Some(due) = session.daily_due {
        let text = format!(
            "{}, in use or not, as the time of the day is used up then",
            at(session.now, due)
        );
        rows.push(("stopped", Cell::new(text)));
    }
    rows
}

/// The reason for its stop, if no user of the flow asked for that.
pub(super) fn stopped_for(session: &SessionView) -> Option<Row> {
    let why = session.stopped_for.as_ref()?;
    Some(("stopped for", Cell::new(format!("{} [{}]", why.message, why.error))))
}

/// The settings of a session that has any.
fn settings(session: &SessionView) -> impl Iterator<Item = (&'static str, String)> {
    let Settings {
        // Shown where they differ from what most sessions have.
        folder: _,
        compute: _,
        choice,
        size: vm_size,
        identity,
        image,
        idle,
        network,
        allow_hosts,
    } = &session.settings;
    let whose = identity.value.as_deref().unwrap_or("the user's own");
    let image = match (&session.image, &image.value) {
        (Some(has), _) => format!("{} ({})", has.value, from(has.origin)),
        (None, Some(name)) => format!("{name} ({})", from(image.origin)),
        (None, None) => "as the flow's file says, or the default".into(),
    };
    let which = match network.value {
        Network::None => "none",
        Network::Internet => "the internet",
        Network::Open => "this machine's own",
    };
    let hosts = match &allow_hosts.value[..] {
        [] => String::new(),
        hosts => format!("\nand {} ({})", hosts.join(", "), from(allow_hosts.origin)),
    };
    [
        ("VM size", chosen(size(vm_size), choice)),
        ("identity", format!("{whose} ({})", from(identity.origin))),
        ("base image", image),
        ("idle time", format!("{} ({})", took(idle.value), from(idle.origin))),
        ("network", format!("{which} ({}){hosts}", from(network.origin))),
    ]
    .into_iter()
}

/// Its refused connections.
pub(super) fn refused_connections(session: &SessionView) -> Option<(&'static str, Cell)> {
    let refused = session.refused.as_ref().filter(|refused| refused.total > 0)?;
    let mut by: Vec<_> = refused.by.iter().collect();
    by.sort_by_key(|refusal| std::cmp::Reverse(refusal.times));
    let times = |times: u64| {
        if times == 1 {
            "once".to_owned()
        } else {
            format!("{times} times")
        }
    };
    let most = by.iter().take(REFUSALS);
    let mut lines: Vec<String> = most
        .map(|refusal| format!("{}, {}: {}", refusal.to, refusal.why, times(refusal.times)))
        .collect();
    let shown: u64 = by.iter().take(REFUSALS).map(|refusal| refusal.times).sum();
    if refused.total > shown {
        lines.push(format!("others: {}", times(refused.total - shown)));
    }
    lines.push(format!(
        "allow one: pfsession update {} --allow-host HOST",
        &session.key[..KEY.min(session.key.len())]
    ));
    Some(("refused", Cell::new(lines.join("\n")).fg(Color::Yellow)))
}

/// The most refused destinations that are shown.
const REFUSALS: usize = 10;
