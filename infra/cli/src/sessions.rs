//! Requests about sessions that several commands make.

use crate::{
    client::Client,
    show,
    terminal::warn,
    text::home,
    trouble::{NONE, Trouble},
    watch,
    wish::Flow,
};
use contract::Code;
use contract::http::{Events, SessionView};
use contract::route::{Route, Target};

pub(crate) fn session_of(client: &Client, flow: &Flow) -> Result<SessionView, Box<Trouble>> {
    client.find(Route::Session(&flow.key()))?.ok_or_else(|| {
        Trouble::new(
            NONE,
            Code::SessionNoSession,
            format!("{} has never had a session", flow.typed),
        )
        .next(format!("start one: pfsession start {}", flow.typed))
    })
}

/// Says which sessions are deleted soon.
pub(crate) fn warn_of_deletions(sessions: &[SessionView]) {
    for session in sessions.iter().filter(|session| session.warned) {
        if let Some(text) = show::deleted_soon(session, home().as_deref()) {
            warn(&text);
        }
    }
}

/// A session's whole history, page by page.
pub(crate) fn all_events(client: &Client, key: &str) -> Result<Events, Box<Trouble>> {
    let mut events = Vec::new();
    let mut after = 0;
    loop {
        let page: Option<Events> =
            client.find(Target::from(Route::Events(key)).with_any("after", (after > 0).then_some(after)))?;
        let page = page.map(|page| page.events).unwrap_or_default();
        let last = page.last().map_or(0, |row| row.revision);
        let is_whole = page.len() < watch::SHORTEST_PAGE || last <= after;
        events.extend(page);
        if is_whole {
            return Ok(Events { events });
        }
        after = last;
    }
}
