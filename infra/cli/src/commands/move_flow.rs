//! `pfsession move`.

use crate::{
    client::{Client, Lineage},
    command::Execute,
    global::{Done, Service},
    moved::{Folders, not_moved},
    operate,
    sessions::session_of,
    terminal::note,
    text::{out_json, quoted},
    trouble::{FAILED, Trouble},
    watch,
    wish::{self, Flow},
};
use clap::Args;
use contract::{
    FlowRef,
    command::{Wanted, Wish},
    http::SessionView,
    route::Route,
    row::OperationRow,
};
use std::path::{Path, PathBuf};

/// Let a session follow its flow's folder, which was moved or renamed
#[derive(Args, Debug)]
#[command(after_help = "\
Move the folder first. Its session, with its key, history, packages and runs, is that of the new folder then. Nothing is started or stopped; \
an active run has to end before. It is this machine that knows where the folder is, so on another one do the same.

Examples:
  mv flows/draft flows/joke && pfsession move flows/draft flows/joke
  pfsession move 3f9a2c flows/joke       by the start of its key, as `pfsession list --all` shows it")]
pub(crate) struct Move {
    /// The folder that the flow was in, or the start of its session's key
    #[arg(value_name = "OLD")]
    old: String,
    /// The folder that it is in now
    #[arg(value_name = "NEW")]
    new: PathBuf,
}

impl Execute for Move {
    type Json = SessionView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        if client.user.lineage == Lineage::Repository {
            let next = "leave out --lineage, and unset PFSESSION_LINEAGE, for a flow that is named by its folder";
            return Err(not_moved("a flow that is named by its repository is found in each clone of it").next(next));
        }
        let flow = self.flow(client)?;
        let session = session_of(client, &flow)?;
        let folder = self.folder(client, &flow, &session)?;
        Folders::keep(&service.state()?, &flow.reference, &folder)?;
        if client.is_here() && Path::new(&session.settings.folder.value) != folder {
            tell(client, &flow, &folder)?;
        }
        if service.global.json {
            out_json(&session_of(client, &flow)?);
        }
        note!(
            "The session of {} is that of {} now. Its key stays {}.",
            flow.typed,
            quoted(&folder.display().to_string()),
            session.key
        );
        Ok(0)
    }
}

impl Move {
    /// The flow whose folder moved.
    fn flow(&self, client: &Client) -> Result<Flow, Box<Trouble>> {
        if Path::new(&self.old).exists() {
            let (old, new) = (quoted(&self.old), quoted(&self.new.display().to_string()));
            let why = format!("the folder {old} is still there");
            return Err(not_moved(&why).next(format!("move it first: mv {old} {new}")));
        }
        if let Some(flow) = wish::find_flow(client, &self.old)? {
            return Ok(flow);
        }
        // A name alone is no path to others: what is there no more may be anything.
        let place = Path::new(".").join(&self.old).display().to_string();
        let found = wish::find_flow(client, &place)?;
        found.ok_or_else(|| wish::nothing_of(&self.old))
    }

    /// The folder that it is in now, if that is free for it.
    fn folder(&self, client: &Client, flow: &Flow, session: &SessionView) -> Result<PathBuf, Box<Trouble>> {
        if let Some(run) = session.runs.first() {
            let why = format!("its run {run} is active, and reads the folder where it was");
            return Err(not_moved(&why).next(format!("wait for its end, or cancel it: pfsession runs cancel {run}")));
        }
        if let Some(operation) = &session.current {
            let why = format!("its operation {} is under way", operation.id);
            return Err(not_moved(&why).next(format!("wait for its end: pfsession logs {} --follow", operation.id)));
        }
        let user = &client.user;
        let (folder, typed) = wish::canonical(&self.new)?;
        let here = FlowRef {
            lineage: folder.clone(),
            ..flow.reference.clone()
        };
        let folder = PathBuf::from(folder);
        // It may come back.
        if here == flow.reference {
            return Ok(folder);
        }
        let is_other = match user.folders.lineage_of((&user.workspace, &user.name), &folder)? {
            Some(lineage) => lineage != flow.reference.lineage,
            None => client.find::<SessionView>(Route::Session(&here.key()))?.is_some(),
        };
        if is_other {
            let why = format!("{typed} has a session of its own, or had one, with a history");
            return Err(not_moved(&why).next(format!(
                "see it: pfsession show {typed}; move the flow to another folder"
            )));
        }
        Ok(folder)
    }
}

/// Tells the service on this machine where the folder is, for what others start there.
fn tell(client: &Client, flow: &Flow, folder: &Path) -> Result<(), Box<Trouble>> {
    let id = flow.new_id(Some("move"));
    let settings = Wanted {
        folder: Some(folder.display().to_string()),
        ..Wanted::default()
    };
    client.send(&operate::command(&id, &flow.reference, Wish::Update { settings }))?;
    let row: OperationRow = watch::until_end(client, &id)?;
    match row.failure {
        Some(failure) => Err(Trouble::of(FAILED, failure).what("the session was not told of its folder".to_owned())),
        None => Ok(()),
    }
}
