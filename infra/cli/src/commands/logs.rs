//! `pfsession logs`: the output of an operation or a run.

use crate::{
    client::Client,
    command::Execute,
    global::{Done, Service},
    request::LONGEST_WAIT,
    runfiles,
    sessions::{all_events, session_of},
    terminal::note,
    text::{self, out, out_as_said, out_json, out_text},
    trouble::Trouble,
    watch,
    wish::{self, Flow},
};
use clap::Args;
use contract::{
    agent::{LineKind, OutputLine},
    http::Events,
};
use lifecycle::count;
use lifecycle::session::Event;
use std::{io::Read, time::Duration};

/// Print the output of an operation or a run; of a flow, the latest
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession logs ./my-flow
  pfsession logs ./my-flow --follow
  pfsession logs start-5d0c77aa91e2")]
pub(crate) struct Logs {
    /// The flow's folder, the start of a session's key, or the id of an operation or a run
    what: String,
    /// Follow the output until its end
    #[arg(long, short)]
    follow: bool,
}

impl Execute for Logs {
    type Json = OutputLine;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = service.client()?;
        let what = &self.what;
        let of = match wish::find_flow(&client, what)? {
            Some(flow) => latest(&client, &flow)?,
            None if contract::command::is_good_id(what) => what.clone(),
            None => return Err(wish::nothing_of(what)),
        };
        logs_of(&client, &of, self.follow, service.global.json)
    }
}

/// Prints what an operation or a run has said: all of it, from the run's file where the service
/// sees that.
pub(crate) fn logs_of(client: &Client, of: &str, follow: bool, json: bool) -> Done {
    if !json && let Some(log) = runfiles::Remote::open(client, of, "logs.txt", follow)? {
        let said = print_log(log, &format!("{of}/logs.txt of the runs' folder"));
        match said {
            Ok(true) => {}
            Ok(false) => note!("{of} has said nothing."),
            Err(error) => return Err(runfiles::unread(&error)),
        }
        return Ok(0);
    }
    let mut after = None;
    loop {
        let wait = if follow { LONGEST_WAIT } else { Duration::ZERO };
        let output = watch::output(client, of, after, wait)?.ok_or_else(|| wish::nothing_of(of))?;
        for line in &output.lines {
            if json {
                out_json(line);
            } else if line.kind == LineKind::Chunk {
                // They are of the output, and no lines.
            } else if line.kind == LineKind::Stage {
                out(&format!("== {}", line.text));
            } else {
                out_as_said(&line.text);
            }
        }
        after = output.lines.iter().map(|line| line.seq).chain(after).max();
        if output.lines.len() < watch::SHORTEST_PAGE && (output.ended || !follow) {
            if after.is_none() {
                note!("{of} has said nothing{}.", if output.ended { "" } else { " yet" });
            }
            return Ok(0);
        }
    }
}

/// The operation or run of a flow that was wanted last, of those that have said something.
fn latest(client: &Client, flow: &Flow) -> Result<String, Box<Trouble>> {
    let session = session_of(client, flow)?;
    let Events { events } = all_events(client, &session.key)?;
    let wanted = events.iter().rev().flat_map(|row| match &row.event {
        Event::Wanted { operation } => vec![operation.id.clone()],
        // What a run needed before it could begin says more than nothing.
        Event::RunWanted { run, .. } => vec![run.clone(), format!("start-for-{run}")],
        _ => Vec::new(),
    });
    let mut last = None;
    for id in session
        .current
        .iter()
        .map(|operation| operation.id.clone())
        .chain(wanted)
        .take(10)
    {
        match watch::output(client, &id, None, Duration::ZERO)? {
            Some(output) if !output.lines.is_empty() => return Ok(id),
            Some(_) => last = last.or(Some(id)),
            None => {}
        }
    }
    last.ok_or_else(|| wish::nothing_of(&flow.typed))
}

/// Prints a log as it is; of a line that a terminal would be full of, the beginning, and where the
/// whole is.
fn print_log(mut log: impl Read, place: &str) -> std::io::Result<bool> {
    let is_terminal = text::is_terminal();
    let mut buffer = vec![0; 1 << 16];
    let (mut line, mut cut, mut said): (Vec<u8>, u64, bool) = (Vec::new(), 0, false);
    let end_line = |line: &mut Vec<u8>, cut: &mut u64| {
        let text = String::from_utf8_lossy(line).into_owned();
        match *cut {
            0 => out_as_said(&text),
            more => out_as_said(&format!(
                "{text}… (cut here, {} more; the whole line is in {place})",
                count(more, "byte")
            )),
        }
        line.clear();
        *cut = 0;
    };
    loop {
        let read = log.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        said = true;
        if !is_terminal {
            out_text(&buffer[..read]);
            continue;
        }
        for (index, piece) in buffer[..read].split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                end_line(&mut line, &mut cut);
            }
            let room = LONGEST_SHOWN.saturating_sub(line.len()).min(piece.len());
            line.extend_from_slice(&piece[..room]);
            cut += (piece.len() - room) as u64;
        }
    }
    if !line.is_empty() {
        end_line(&mut line, &mut cut);
    }
    Ok(said)
}

/// The most bytes of a line that a terminal gets.
const LONGEST_SHOWN: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_on_as_it_is_where_no_terminal_is() {
        assert!(print_log(&b""[..], "x").is_ok_and(|said| !said));
    }
}
