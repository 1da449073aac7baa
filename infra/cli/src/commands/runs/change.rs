//! The commands that change a run: `pfsession runs rename`, `archive`, `restore`, `delete` and
//! `cancel`.

use super::find;
use crate::{
    command::Execute,
    global::{Done, Service},
    operate::command,
    show,
    terminal::note,
    text::out_json,
    trouble::{Trouble, USAGE},
    watch, wish,
};
use clap::Args;
use contract::{
    Code,
    command::Wish,
    http::{RunChange, SessionView},
    route::Route,
    row::{RunRow, RunStatus},
};

/// Change a run's display name; its own name stays
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession runs rename my-flow-1c9e54a07b2d 'shorter prompt, second try'")]
pub(crate) struct Rename {
    /// The run
    run: String,
    /// Display name of the run
    name: String,
}

impl Execute for Rename {
    type Json = RunRow;

    fn execute(&self, service: &Service<'_>) -> Done {
        let change = RunChange {
            display_name: Some(self.name.clone()),
            ..RunChange::default()
        };
        change_of(service, &self.run, &change, &format!("is called {} now", self.name))
    }
}

/// Hide a run from lists
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession runs archive my-flow-1c9e54a07b2d")]
pub(crate) struct Archive {
    /// The run
    run: String,
}

impl Execute for Archive {
    type Json = RunRow;

    fn execute(&self, service: &Service<'_>) -> Done {
        let change = RunChange {
            archived: Some(true),
            ..RunChange::default()
        };
        let run = &self.run;
        let done = format!("is left out of lists. Take it back: pfsession runs restore {run}");
        change_of(service, run, &change, &done)
    }
}

/// Show an archived run in lists again
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession runs list --archived && pfsession runs restore my-flow-1c9e54a07b2d")]
pub(crate) struct Restore {
    /// The run
    run: String,
}

impl Execute for Restore {
    type Json = RunRow;

    fn execute(&self, service: &Service<'_>) -> Done {
        let change = RunChange {
            archived: Some(false),
            ..RunChange::default()
        };
        change_of(service, &self.run, &change, "is in lists again")
    }
}

fn change_of(service: &Service<'_>, run: &str, change: &RunChange, done: &str) -> Done {
    let client = &*service.client()?;
    let row = find(client, run)?;
    let row: RunRow = client.put(Route::ChangeRun(&row.id), change)?;
    if service.global.json {
        out_json(&row);
    } else {
        note!("The run {} {done}.", row.id);
    }
    Ok(0)
}

/// Delete a run that has ended, with its outputs and its log
#[derive(Args, Debug)]
#[command(after_help = "\
Its name can be given again ten minutes later.

Example:
  pfsession runs delete my-flow-1c9e54a07b2d")]
pub(crate) struct Delete {
    /// The run
    run: String,
}

impl Execute for Delete {
    type Json = RunRow;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let row = find(client, &self.run)?;
        let row: RunRow = client.delete(Route::DeleteRun(&row.id))?;
        if service.global.json {
            out_json(&row);
        } else {
            note!("The run {} is deleted, with its outputs and its log.", row.id);
        }
        Ok(0)
    }
}

/// Cancel a run and end its processes; its session stays
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession runs cancel my-flow-1c9e54a07b2d")]
pub(crate) struct Cancel {
    /// The run
    run: String,
}

impl Execute for Cancel {
    type Json = RunRow;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let row = find(client, &self.run)?;
        if row.status.is_final() {
            return Err(has_ended(&row));
        }
        let flow = match row.of {
            Some(flow) => flow,
            None => client.get::<SessionView>(Route::Session(&row.flow))?.flow,
        };
        let id = format!("cancel-{}", wish::random::<6>());
        client.send(&command(&id, &flow, Wish::Cancel { run: row.id.clone() }))?;
        let row: RunRow = watch::until_end(client, &row.id)?;
        match row.status {
            RunStatus::Canceled => {
                if service.global.json {
                    out_json(&row);
                } else {
                    note!("The run {} is canceled. Its session stays.", row.id);
                }
                Ok(0)
            }
            _ => Err(has_ended(&row)),
        }
    }
}

pub(super) fn has_ended(row: &RunRow) -> Box<Trouble> {
    let how = show::run_status(row.status);
    let message = format!(
        "The run {} has ended already ({how}); there is nothing to cancel",
        row.id
    );
    Trouble::new(USAGE, Code::RunHasEnded, message).next(format!("see what came of it: pfsession runs show {}", row.id))
}
