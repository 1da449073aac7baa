//! A command, from its words to its decision.

use crate::{
    Fault, Known,
    actions::action_of,
    check::check,
    compute, instances,
    placement::place,
    ports::{Ports, Save, Write},
    runs, sizes,
    turn::{Happened, happen, refused_operation, refused_run},
    wish::settings_of_wish,
    workspace,
};
use contract::{
    FlowRef, Principal, Role,
    command::{Command, RunWish, Wish},
    row::{NAME_KEPT, OperationRow, RunRow},
    webhook,
};
use lifecycle::{
    Code, Failure,
    access::{Action, may},
    session::{Event, Kind, Operation, Packages, Settings},
};

/// The sender of a message, as the queue has proved them to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub id: String,
    pub speaks_for: SpeaksFor,
}

/// For whom a sender may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeaksFor {
    /// For itself alone: a user, by the right to send to the queue.
    Itself,
    /// For those whose rules say just what it says: the function `webhook`.
    MakersOfRules,
    /// For anybody: this system's own roles.
    Anybody,
}

/// Takes a command in: admits it, or refuses it in the row of its operation or run, where its
/// sender looks.
///
/// # Errors
///
/// [`Fault::Meaningless`] if `body` is no command: final, and for the dead-letter queue. Else as
/// [`happen`].
pub async fn accept(ports: &impl Ports, body: &str, sender: &Sender) -> Result<(), Fault> {
    let command = Command::read(body).map_err(Fault::Meaningless)?;
    let flow = command.flow.key();
    let known = Known::look_up(ports, principal_of(ports, &command, sender).await?).await?;
    let principal = &known.principal;
    let lineage = command.flow.lineage.as_str();
    let (mut settings, run) = settings_of_wish(&command.wish, lineage);
    if let Wish::DeleteCompute { compute } = &command.wish {
        return compute::delete(ports, &command, &known, compute).await;
    }
    if let Some(run) = command.wish.run_to_change() {
        return runs::change(ports, &command, &known, run).await;
    }
    if let Some(name) = command.wish.instance() {
        return instances::change(ports, &command, &known, name).await;
    }
    let misplaced = place(ports, &command, &known, &mut settings).await?;
    let barred = match misplaced {
        Some(failure) => Some(failure),
        None => in_workspace(ports, &command, &mut settings).await?,
    };
    let event = event_of(&command, &settings);
    let mut happened = Happened {
        run,
        digest: run.map(|_| command.digest()),
        ..Happened::new(&flow, event, principal.name())
    };
    // The sweep only looks after sessions that there are, and so does a cancel.
    if action_of(&command.wish) != Action::Sweep && !matches!(command.wish, Wish::Cancel { .. }) {
        happened.first = Some((&command.flow, &settings));
    }
    // A command that has its row was decided on. What it left unsent is sent all the same.
    if is_name_taken(ports, &command, run).await? {
        return Ok(());
    }
    if already_decided(ports, &command).await? {
        happened.event = Event::Tick;
        happened.first = None;
        let _ = happen(ports, &happened).await?;
        return Ok(());
    }
    if let Some(failure) = known.refuse(ports, &command).await? {
        return refuse(ports, &command, &known, &happened, failure).await;
    }
    if let Some(failure) = barred.or_else(|| sizes::refuse_size(ports, &settings.size.value)) {
        return refuse(ports, &command, &known, &happened, failure).await;
    }
    let read = run.map(|run| [run.run.as_deref(), run.resume_from.as_deref()]);
    for earlier in read.into_iter().flatten().flatten() {
        if let Some(failure) = not_to_be_read(ports, earlier, principal.name()).await? {
            return refuse(ports, &command, &known, &happened, failure).await;
        }
    }
    match happen(ports, &happened).await {
        // Another flow's run was written first, by a command that was under way at the same time.
        Err(Fault::Conflict) if is_name_taken(ports, &command, run).await? => Ok(()),
        Err(fault) => Err(fault),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refusal)) => refuse(ports, &command, &known, &happened, refusal.into()).await,
    }
}

/// Puts the workspace's defaults, and the id of the identity, into what a command wants. Why it may
/// not be had in this workspace, if so.
async fn in_workspace(
    ports: &impl Ports,
    command: &Command,
    settings: &mut Settings,
) -> Result<Option<Failure>, Fault> {
    let makes = matches!(command.wish, Wish::Start { .. } | Wish::Run { .. });
    let names = settings.identity.value.is_some() || settings.idle.is_named();
    if !makes && !names {
        return Ok(None);
    }
    let workspace = &command.flow.workspace;
    let of = workspace::settings_of(ports, workspace).await?;
    // What is there keeps what it has, unless somebody names another thing.
    if makes {
        workspace::fill(settings, &of);
        sizes::choose(ports, &command.flow, settings, &of).await?;
    }
    if let Some(named) = &settings.identity.value {
        match workspace::identity(named, &of, workspace) {
            Ok(id) => settings.identity.value = Some(id),
            Err(failure) => return Ok(Some(failure)),
        }
    }
    Ok(workspace::refuse(settings, &of, workspace))
}

/// Whether a run has the name of another one. Its row is the other's: who asks for it with the
/// digest of this command learns that.
async fn is_name_taken(ports: &impl Ports, command: &Command, run: Option<&RunWish>) -> Result<bool, Fault> {
    let Some(wish) = run else { return Ok(false) };
    let Some(row) = ports.load_run(&command.id).await? else {
        return Ok(false);
    };
    let is_free = row.deleted.is_some_and(|at| ports.now() > at + NAME_KEPT);
    if is_free || row.is_of(&command.flow.key(), &command.digest(), wish) {
        return Ok(false);
    }
    tracing::warn!(
        flow = command.flow.key(),
        command = command.id,
        fault = Code::RunNameTaken.as_str(),
        "refused"
    );
    Ok(true)
}

/// The failure of a run that may not read an earlier run's outputs. Another user's run does not
/// exist for it.
async fn not_to_be_read(ports: &impl Ports, earlier: &str, by: &str) -> Result<Option<Failure>, Fault> {
    let row = ports
        .load_run(earlier)
        .await?
        .filter(|row| row.by == by && row.deleted.is_none());
    Ok(match row.map(|row| row.status) {
        None => Some(Failure::new(
            Code::RunNoSuchRun,
            format!("You have no run {earlier}, whose outputs this one reads. Name one that you have run."),
        )),
        Some(status) if !status.is_final() => Some(Failure::new(
            Code::RunNotEnded,
            format!("The run {earlier}, whose outputs this one reads, has not ended. Wait for its end, and run again."),
        )),
        Some(_) => None,
    })
}

/// For whom the command is. What a stranger says about that counts for nothing.
async fn principal_of(ports: &impl Ports, command: &Command, sender: &Sender) -> Result<Principal, Fault> {
    let is_believed = match sender.speaks_for {
        SpeaksFor::Anybody => true,
        SpeaksFor::MakersOfRules => {
            let row = ports.load_webhooks(&command.flow.workspace).await?;
            row.is_some_and(|row| webhook::allows(&row.rules, command))
        }
        SpeaksFor::Itself => false,
    };
    match (&command.principal, is_believed) {
        (Some(principal), true) => Ok(principal.clone()),
        (None, true) => Err(Fault::Meaningless(Failure::new(
            Code::CommandNoPrincipal,
            "A command of this system says for whom it is.",
        ))),
        // The right to send to the queue of a workspace is the role there.
        (_, false) => {
            let workspace = &command.flow.workspace;
            let of = workspace::settings_of(ports, workspace).await?;
            Ok(Principal::User {
                name: of.user_of(&sender.id).unwrap_or(&sender.id).to_owned(),
                workspace: workspace.clone(),
                roles: vec![Role::DataScientist],
            })
        }
    }
}

fn event_of(command: &Command, settings: &Settings) -> Event {
    let wanted = |kind, wants: Option<&Settings>| Event::Wanted {
        operation: Operation::new(&command.id, kind, wants.cloned()),
    };
    match &command.wish {
        Wish::Start { .. } => wanted(Kind::Start, Some(settings)),
        Wish::Install { settings: said, lock } => Event::Wanted {
            operation: Operation {
                packages: lock.clone().map_or(Packages::Required, Packages::Locked),
                ..Operation::new(&command.id, Kind::Install, said.as_ref().map(|_| settings.clone()))
            },
        },
        Wish::Update { .. } => wanted(Kind::Update, Some(settings)),
        Wish::Reset {
            settings: said,
            resolve,
        } => Event::Wanted {
            operation: Operation {
                packages: if *resolve { Packages::Anew } else { Packages::Recorded },
                ..Operation::new(&command.id, Kind::Reset, said.as_ref().map(|_| settings.clone()))
            },
        },
        Wish::Stop => wanted(Kind::Stop, None),
        Wish::Cancel { run } => Event::CancelWanted { run: run.clone() },
        Wish::Run { .. } => Event::RunWanted {
            run: command.id.clone(),
            wants: settings.clone(),
        },
        wish => event_of_sweep(wish, &command.id),
    }
}

/// The event of a wish of the sweep.
fn event_of_sweep(wish: &Wish, id: &str) -> Event {
    match wish {
        Wish::StopIfIdle {
            generation,
            activity,
            why,
        } => Event::IdleSeen {
            why: why.clone(),
            operation: id.to_owned(),
            generation: *generation,
            activity: *activity,
        },
        Wish::WarnIfIdle { generation, due } => Event::IdleNear {
            generation: *generation,
            due: *due,
        },
        Wish::WarnOfDailyTime { generation, due } => Event::DailyTimeNear {
            generation: *generation,
            due: *due,
        },
        Wish::StopForTheDay { generation, until, why } => Event::DailyTimeUsedUp {
            operation: id.to_owned(),
            generation: *generation,
            until: *until,
            why: why.clone(),
        },
        Wish::StopOnCompute { compute, why } => Event::ComputeDrained {
            operation: id.to_owned(),
            compute: compute.clone(),
            why: why.clone(),
        },
        // The sweep's own look, and what is decided elsewhere.
        Wish::Check
        | Wish::Start { .. }
        | Wish::Install { .. }
        | Wish::Update { .. }
        | Wish::Reset { .. }
        | Wish::Stop
        | Wish::Run { .. }
        | Wish::Cancel { .. }
        | Wish::ChangeRun { .. }
        | Wish::DeleteRun { .. }
        | Wish::DeleteCompute { .. }
        | Wish::CreateInstance { .. }
        | Wish::UpdateInstance { .. }
        | Wish::StartInstance { .. }
        | Wish::StopInstance { .. }
        | Wish::DeleteInstance { .. } => Event::Tick,
    }
}

async fn already_decided(ports: &impl Ports, command: &Command) -> Result<bool, Fault> {
    Ok(match command.wish {
        Wish::Run { .. } => ports
            .load_run(&command.id)
            .await?
            .is_some_and(|row| row.deleted.is_none()),
        // They change only what is due or there, so they need no row.
        Wish::Cancel { .. } | Wish::Check | Wish::WarnIfIdle { .. } | Wish::WarnOfDailyTime { .. } => false,
        _ => ports.load_operation(&command.id).await?.is_some(),
    })
}

/// Finds the further reasons why a start is refused, so that all of them can be put right at once.
/// Who may not start it learns nothing of them.
async fn find_further(
    ports: &impl Ports,
    command: &Command,
    known: &Known,
    first: &Failure,
) -> Result<Vec<Failure>, Fault> {
    let FlowRef { workspace, owner, .. } = &command.flow;
    let starts = matches!(command.wish, Wish::Start { .. } | Wish::Run { .. });
    if !starts || !may(&known.principal, Action::Use, workspace, owner) {
        return Ok(Vec::new());
    }
    // A folder is looked at by who sees it, once the start is admitted.
    let checks = check(ports, known, command, |_| None).await?;
    let lacking = checks
        .into_iter()
        .filter_map(|check| Some(Failure::new(check.error?, check.what)));
    Ok(lacking.filter(|failure| failure != first).collect())
}

async fn refuse(
    ports: &impl Ports,
    command: &Command,
    known: &Known,
    happened: &Happened<'_>,
    failure: Failure,
) -> Result<(), Fault> {
    let now = ports.now();
    let also = find_further(ports, command, known, &failure).await?;
    tracing::warn!(
        flow = happened.flow,
        command = command.id,
        fault = failure.error.as_str(),
        cause = failure.message,
        "refused"
    );
    let write = match &happened.event {
        Event::RunWanted { run, .. } => Write::NewRun(RunRow {
            also,
            ..refused_run(run, happened, failure, now)
        }),
        Event::Wanted { operation } => Write::NewOperation(OperationRow {
            also,
            ..refused_operation(&command.id, operation.kind, happened, failure, now)
        }),
        // Nobody waits for what a sweep wanted; the run itself says whether it was canceled.
        _ => return Ok(()),
    };
    match ports.save(Save { writes: vec![write] }).await {
        // It has its row: it came twice.
        Err(Fault::Conflict) => Ok(()),
        done => done,
    }
}
