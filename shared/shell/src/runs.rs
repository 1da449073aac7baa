//! A change or the deletion of a run's row, by a command and by a route.

use crate::{
    Fault, Known,
    ports::{Ports, Save, Write},
    turn::{Happened, decided_operation},
};
use contract::{
    FlowRef, Kind, Principal,
    command::{Command, Wish},
    http::RunChange,
    row::RunRow,
};
use lifecycle::{
    Code, Failure,
    access::{Action, denied, may},
    session::Event,
};

/// Reads the run of this id, if it is there and `principal` may do `action` with it.
///
/// # Errors
///
/// Inside: [`Code::RunNone`] for a run that is not there or that they may not see,
/// [`Code::AccessDenied`] for one that they may see alone; both final. Outside: as [`Ports`].
pub async fn find_run(
    ports: &impl Ports,
    principal: &Principal,
    id: &str,
    action: Action,
) -> Result<Result<RunRow, Failure>, Fault> {
    let Some(row) = ports.load_run(id).await?.filter(|row| row.deleted.is_none()) else {
        return Ok(Err(none(id)));
    };
    Ok(match flow_of(ports, &row).await? {
        Some(of) if may(principal, action, &of.workspace, &of.owner) => Ok(row),
        Some(of) if may(principal, Action::Read, &of.workspace, &of.owner) => {
            Err(denied(principal, action, &of.workspace, &of.owner))
        }
        _ => Err(none(id)),
    })
}

/// Gives a run another name for people, or has lists leave it out.
///
/// # Errors
///
/// As [`find_run`].
pub async fn change_run(
    ports: &impl Ports,
    principal: &Principal,
    id: &str,
    change: &RunChange,
) -> Result<Result<RunRow, Failure>, Fault> {
    if let Err(refused) = find_run(ports, principal, id, Action::Use).await? {
        return Ok(Err(refused));
    }
    ports.change_run(id, change).await?;
    let changed = ports.load_run(id).await?.filter(|row| row.deleted.is_none());
    Ok(changed.ok_or_else(|| none(id)))
}

/// Removes a run that has ended: its files, its output and its row. Gives the row as it was.
///
/// # Errors
///
/// As [`find_run`]; and [`Code::RunNotEnded`], worth a retry after its end;
/// [`Code::RunNotDeleted`], when its folder cannot be removed.
pub async fn delete_run(ports: &impl Ports, principal: &Principal, id: &str) -> Result<Result<RunRow, Failure>, Fault> {
    let row = match find_run(ports, principal, id, Action::Use).await? {
        Ok(row) if !row.status.is_final() => return Ok(Err(not_ended(id))),
        Ok(row) => row,
        Err(refused) => return Ok(Err(refused)),
    };
    if let Err(failure) = ports.remove_run_files(&row).await? {
        return Ok(Err(failure));
    }
    ports.forget_run(&row).await?;
    Ok(Ok(row))
}

/// Carries out a command that changes or removes a run.
///
/// # Errors
///
/// As [`Ports`]: the command comes again, and does the rest.
pub(crate) async fn change(ports: &impl Ports, command: &Command, known: &Known, id: &str) -> Result<(), Fault> {
    if ports.load_operation(&command.id).await?.is_some() {
        return Ok(());
    }
    let principal = &known.principal;
    let of = match ports.load_run(id).await? {
        Some(row) => flow_of(ports, &row).await?.filter(|of| *of == command.flow),
        None => None,
    };
    let done = match (known.refuse(ports, command).await?, of, &command.wish) {
        (Some(failure), ..) => Err(failure),
        // The order of a flow's commands is that of its own runs.
        (None, None, _) => Err(none(id)),
        (
            None,
            Some(_),
            Wish::ChangeRun {
                display_name, archived, ..
            },
        ) => {
            let change = RunChange {
                display_name: display_name.clone(),
                archived: *archived,
            };
            change_run(ports, principal, id, &change).await?
        }
        (None, Some(_), _) => match was_removed(ports, id).await? {
            Some(row) => Ok(row),
            None => delete_run(ports, principal, id).await?,
        },
    };
    let kind = match command.wish {
        Wish::ChangeRun { .. } => Kind::Update,
        _ => Kind::Stop,
    };
    let flow = command.flow.key();
    let happened = Happened::new(&flow, Event::Tick, principal.name());
    let row = decided_operation(&command.id, kind, &happened, done.err(), ports.now());
    let writes = vec![Write::NewOperation(row)];
    match ports.save(Save { writes }).await {
        // It has its row: it came twice.
        Err(Fault::Conflict) => Ok(()),
        done => done,
    }
}

/// The row of a run that is removed already: by this command, which then did not come to its end,
/// or by another of the same user.
async fn was_removed(ports: &impl Ports, id: &str) -> Result<Option<RunRow>, Fault> {
    Ok(ports.load_run(id).await?.filter(|row| row.deleted.is_some()))
}

async fn flow_of(ports: &impl Ports, row: &RunRow) -> Result<Option<FlowRef>, Fault> {
    Ok(match row.of.clone() {
        Some(of) => Some(of),
        None => ports.load_session(&row.flow).await?.map(|session| session.flow),
    })
}

fn none(id: &str) -> Failure {
    Failure::new(
        Code::RunNone,
        format!("There is no run {id} of this flow, or none that you may see. List your runs for their names."),
    )
}

fn not_ended(id: &str) -> Failure {
    let message = format!("The run {id} has not ended. Cancel it, or wait for its end.");
    Failure::new(Code::RunNotEnded, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_cannot_be_changed_says_why() {
        let all = [none("r"), not_ended("r")].map(|failure| failure.to_string());
        expect_test::expect![[r#"
            Run.None: There is no run r of this flow, or none that you may see. List your runs for their names.
            Run.NotEnded: The run r has not ended. Cancel it, or wait for its end."#]]
        .assert_eq(&all.join("\n"));
    }
}
