//! Flow folders and data files, sent by digest to a service that does not see this machine.
//!
//! The flow stays the same flow, whatever its digest: that is of its user and its path.

use crate::{
    client::Client,
    trouble::{Trouble, USAGE},
    wish::Flow,
};
use contract::{
    Code, Failure,
    command::{RunWish, Wanted},
    snapshot::{MOST_BYTES, Offer},
};
use std::{
    fs::File,
    io::{Cursor, Read},
    path::Path,
};

/// Sends a flow folder as it is now, if the service does not see it and does not have it. `None` if
/// it sees it where the flow's lineage says.
///
/// # Errors
///
/// A fault of the folder is final. When it could not be sent: worth a retry.
fn folder(client: &Client, flow: &Flow) -> Result<Option<String>, Box<Trouble>> {
    let folder = &flow.folder(&client.user);
    let moved = Some(folder).filter(|folder| *folder != Path::new(&flow.reference.lineage));
    let moved = moved.map(|folder| folder.display().to_string());
    if client.is_here() {
        return Ok(moved);
    }
    let usage = |failure| Trouble::of(USAGE, failure);
    if !folder.is_dir() {
        // Somebody else's machine has it, and what was sent from there counts.
        return Ok(None);
    }
    let root = flow::include_root(folder);
    flow::environment(folder, &root).map_err(usage)?;
    let view = flow::view::list(folder, &root).map_err(usage)?;
    for warning in &view.warnings {
        crate::terminal::warn(warning);
    }
    let packed = flow::snapshot::pack(&view, Cursor::new(Vec::new())).map_err(|error| {
        usage(Failure::new(
            Code::FlowUnreadable,
            format!("The flow folder changed while it was read: {error}. Try again."),
        ))
    })?;
    // A service that takes no snapshots sees the folder itself.
    let sent = send(client, flow, packed.get_ref())?;
    Ok(sent.or(moved))
}

/// Sends a run's data, likewise.
fn data(client: &Client, flow: &Flow, file: &str) -> Result<Option<String>, Box<Trouble>> {
    let unreadable = |why: String| {
        let message = format!("The data {file} cannot be sent: {why}. Name a file of JSON lines.");
        Trouble::of(USAGE, Failure::new(Code::RunBadData, message))
    };
    if client.is_here() {
        return Ok(None);
    }
    let opened = File::open(file).map_err(|error| unreadable(error.to_string()))?;
    if !opened.metadata().is_ok_and(|about| about.is_file()) {
        return Err(unreadable("it is no file".into()));
    }
    let mut bytes = Vec::new();
    opened
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(unreadable(format!("it has more than {} MiB", MOST_BYTES >> 20)));
    }
    send(client, flow, &bytes)
}

fn send(client: &Client, flow: &Flow, bytes: &[u8]) -> Result<Option<String>, Box<Trouble>> {
    let offer = Offer {
        flow: flow.reference.clone(),
        digest: snapshots::digest(bytes),
        bytes: bytes.len() as u64,
    };
    let Some(place) = client.offer(&offer)? else {
        return Ok(None);
    };
    if let Some(upload) = &place.upload {
        client.upload(upload, bytes)?;
    }
    Ok(Some(place.address))
}

/// Puts into a wish what the service needs to see.
///
/// # Errors
///
/// As [`folder`].
pub(crate) fn send_all(
    client: &Client,
    flow: &Flow,
    wanted: &mut Wanted,
    run: Option<&mut RunWish>,
) -> Result<(), Box<Trouble>> {
    if let Some(address) = folder(client, flow)? {
        wanted.folder = Some(address);
    }
    run.map_or(Ok(()), |run| seen_data(client, flow, run))
}

/// The same for a run's data alone.
///
/// # Errors
///
/// As [`folder`].
pub(crate) fn seen_data(client: &Client, flow: &Flow, run: &mut RunWish) -> Result<(), Box<Trouble>> {
    if let Some(file) = &run.data
        && let Some(address) = data(client, flow, file)?
    {
        run.data = Some(address);
    }
    Ok(())
}

/// The same for a wish that changes only the settings that it names.
///
/// # Errors
///
/// As [`folder`].
pub(crate) fn send_folder(
    client: &Client,
    flow: &Flow,
    wanted: Option<Wanted>,
) -> Result<Option<Wanted>, Box<Trouble>> {
    Ok(match folder(client, flow)? {
        Some(address) => Some(Wanted {
            folder: Some(address),
            ..wanted.unwrap_or_default()
        }),
        None => wanted,
    })
}
