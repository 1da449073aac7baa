//! The rows of queues and messages, and the names of messages.

use super::{Message, Queue, Settings};
use crate::store::random_hex;
use rusqlite::{Connection, Row};
use std::{
    collections::HashSet,
    sync::{RwLock, atomic::AtomicBool},
};
use tokio::sync::Notify;

/// The messages that can be received now, with how often they were: at most `most`, and those
/// before them that were received too often.
pub(super) fn candidates(
    db: &Connection,
    queue: &Queue,
    most: usize,
    now: i64,
    most_received: Option<u32>,
) -> rusqlite::Result<Vec<(i64, u32)>> {
    let mut blocked = HashSet::new();
    let mut statement = if queue.fifo {
        let mut in_flight =
            db.prepare_cached("SELECT DISTINCT grp FROM message WHERE queue = ?1 AND visible_at > ?2")?;
        for group in in_flight.query_map([queue.id, now], |row| row.get::<_, Option<String>>(0))? {
            blocked.extend(group?);
        }
        db.prepare_cached(
            "SELECT seq, received, grp FROM message INDEXED BY message_in_order
             WHERE queue = ?1 AND grp IS NOT NULL AND visible_at <= ?2 ORDER BY seq",
        )?
    } else {
        db.prepare_cached(
            "SELECT seq, received, NULL FROM message INDEXED BY message_visible
             WHERE queue = ?1 AND visible_at <= ?2 ORDER BY visible_at, seq",
        )?
    };
    let (mut found, mut living) = (Vec::new(), 0);
    let mut rows = statement.query([queue.id, now])?;
    while living < most
        && let Some(row) = rows.next()?
    {
        if row
            .get_ref(2)?
            .as_str_or_null()?
            .is_some_and(|group| blocked.contains(group))
        {
            continue;
        }
        let received: u32 = row.get(1)?;
        living += usize::from(most_received.is_none_or(|most| received < most));
        found.push((row.get(0)?, received));
    }
    Ok(found)
}

pub(super) fn queue_of(row: &Row<'_>) -> rusqlite::Result<Queue> {
    let dead_letter: Option<String> = row.get(7)?;
    let most_received: Option<u32> = row.get(8)?;
    Ok(Queue {
        id: row.get(0)?,
        name: row.get(1)?,
        fifo: row.get(2)?,
        created: row.get(9)?,
        settings: RwLock::new(Settings {
            visibility: row.get(3)?,
            retention: row.get(4)?,
            delay: row.get(5)?,
            wait: row.get(6)?,
            dead_letter: dead_letter.zip(most_received),
        }),
        bell: Notify::new(),
        deleted: AtomicBool::new(false),
    })
}

pub(super) fn message_of(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        seq: row.get(0)?,
        id: row.get(1)?,
        receipt: row.get(2)?,
        body: row.get(3)?,
        attributes: row.get(4)?,
        group: row.get(5)?,
        dedup: row.get(6)?,
        sender: row.get(7)?,
        sent: row.get(8)?,
        received: row.get(9)?,
        first_received: row.get(10)?,
        trace: row.get(11)?,
    })
}

/// The row that a receipt is for; no row has the number -1.
pub(super) fn seq_of(receipt: &str) -> i64 {
    receipt
        .split_once('-')
        .and_then(|(seq, _)| i64::from_str_radix(seq, 16).ok())
        .unwrap_or(-1)
}

/// Whether this can be a receipt of ours at all.
pub(crate) fn is_receipt(text: &str) -> bool {
    seq_of(text) >= 0
}

/// A random UUID.
pub(super) fn message_id() -> String {
    let hex = random_hex::<16>();
    format!(
        "{}-{}-4{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}
