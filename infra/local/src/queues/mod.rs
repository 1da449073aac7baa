//! The queues: what SQS promises of them, on disk. The protocol that clients speak is in
//! [`crate::sqs`].
//!
//! A FIFO queue keeps the order within a group, and gives out nothing of a group while a message of
//! it is in flight. A message that was received too often goes to the dead-letter queue. A message
//! in a queue is a row; a waiter for one is woken by the queue's bell.

mod rows;

use crate::{
    faults::Faults,
    store::{Store, now, random_hex},
};
pub(crate) use rows::is_receipt;
use rows::{candidates, message_id, message_of, queue_of, seq_of};
use rusqlite::{OptionalExtension, Transaction, params};
use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// The time that a FIFO queue knows a deduplication id, in milliseconds.
const REMEMBERED: i64 = 300_000;
/// The longest sleep of a waiting consumer before it looks again, in milliseconds: clocks of the
/// machine may be set.
const LONGEST_NAP: i64 = 60_000;

/// The settings of a queue. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) visibility: i64,
    pub(crate) retention: i64,
    pub(crate) delay: i64,
    pub(crate) wait: i64,
    /// The queue of messages that were received this often.
    pub(crate) dead_letter: Option<(String, u32)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            visibility: 30_000,
            retention: 4 * 86_400_000,
            delay: 0,
            wait: 0,
            dead_letter: None,
        }
    }
}

/// A queue.
pub(crate) struct Queue {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) fifo: bool,
    pub(crate) created: i64,
    settings: RwLock<Settings>,
    bell: Notify,
    deleted: AtomicBool,
}

impl Queue {
    pub(crate) fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Wakes the waiters for a message.
    pub(crate) fn ring(&self) {
        self.bell.notify_waiters();
    }
}

/// A message to send.
#[derive(Clone, Debug, Default)]
pub(crate) struct New {
    pub(crate) body: String,
    /// The message attributes, as the JSON that they came in.
    pub(crate) attributes: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) dedup: Option<String>,
    /// Milliseconds; `None` is the queue's own.
    pub(crate) delay: Option<i64>,
    pub(crate) sender: String,
    /// The tracing header that it goes on with.
    pub(crate) trace: Option<String>,
}

/// The answer to a sender.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) seq: i64,
}

/// A message as its receiver sees it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) receipt: String,
    pub(crate) body: String,
    pub(crate) attributes: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) dedup: Option<String>,
    pub(crate) sender: String,
    pub(crate) sent: i64,
    pub(crate) received: u32,
    pub(crate) first_received: i64,
    pub(crate) seq: i64,
    pub(crate) trace: Option<String>,
}

/// The messages of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) visible: i64,
    pub(crate) in_flight: i64,
    pub(crate) delayed: i64,
}

/// The result of a change of a message's visibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Done,
    /// It is there, and not in flight under this receipt.
    NotInFlight,
    Gone,
}

/// All queues.
pub(crate) struct Queues {
    store: Arc<Store>,
    faults: Arc<Faults>,
    known: RwLock<HashMap<String, Arc<Queue>>>,
    closing: tokio::sync::watch::Receiver<bool>,
}

impl Queues {
    /// Finds the queues that there are.
    pub(crate) fn open(
        store: Arc<Store>,
        faults: Arc<Faults>,
        closing: tokio::sync::watch::Receiver<bool>,
    ) -> rusqlite::Result<Self> {
        let known = store.read(|db| {
            db.prepare("SELECT id, name, fifo, visibility, retention, delay, wait, dead_letter, most_received, created FROM queue")?
                .query_map([], queue_of)?
                .map(|queue| queue.map(|queue| (queue.name.clone(), Arc::new(queue))))
                .collect::<rusqlite::Result<_>>()
        })?;
        Ok(Self {
            store,
            faults,
            known: RwLock::new(known),
            closing,
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Queue>> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// The queues whose names begin so, by name.
    pub(crate) fn list(&self, prefix: &str) -> Vec<Arc<Queue>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> = known
            .values()
            .filter(|queue| queue.name.starts_with(prefix))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Makes a queue with these settings, or gives them to the one there is.
    pub(crate) fn ensure(&self, name: &str, settings: Settings) -> rusqlite::Result<Arc<Queue>> {
        let queue = self.store.write(|db| {
            let (dead_letter, most_received) = settings.dead_letter.clone().unzip();
            db.prepare_cached(
                "INSERT INTO queue (name, fifo, visibility, retention, delay, wait, dead_letter, most_received, created)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (name) DO UPDATE SET visibility = ?3, retention = ?4, delay = ?5, wait = ?6, dead_letter = ?7, most_received = ?8
                 RETURNING id, name, fifo, visibility, retention, delay, wait, dead_letter, most_received, created",
            )?
            .query_row(
                params![
                    name,
                    name.ends_with(".fifo"),
                    settings.visibility,
                    settings.retention,
                    settings.delay,
                    settings.wait,
                    dead_letter,
                    most_received,
                    now()
                ],
                queue_of,
            )
        })?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let kept = known.entry(name.to_owned()).or_insert_with(|| Arc::new(queue));
        *kept.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(kept.clone())
    }

    /// Deletes a queue and what is in it. Whether there was one.
    pub(crate) fn delete(&self, name: &str) -> rusqlite::Result<bool> {
        let gone = self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let Some(queue) = gone else { return Ok(false) };
        queue.deleted.store(true, Ordering::Release);
        self.store.write(|db| {
            db.prepare_cached("DELETE FROM message WHERE queue = ?1")?
                .execute([queue.id])?;
            db.prepare_cached("DELETE FROM seen WHERE queue = ?1")?
                .execute([queue.id])?;
            db.prepare_cached("DELETE FROM queue WHERE id = ?1")?
                .execute([queue.id])
        })?;
        queue.ring();
        Ok(true)
    }

    pub(crate) fn purge(&self, queue: &Queue) -> rusqlite::Result<()> {
        self.store
            .write(|db| {
                db.prepare_cached("DELETE FROM message WHERE queue = ?1")?
                    .execute([queue.id])
            })
            .map(|_| ())
    }

    /// Sends messages, all or none, in this order.
    pub(crate) fn send(&self, queue: &Queue, messages: Vec<New>) -> rusqlite::Result<Vec<Sent>> {
        let sent = self.store.write(|db| {
            messages
                .into_iter()
                .map(|message| self.send_in(db, queue, message))
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        queue.ring();
        self.faults.pass("queue.sent");
        Ok(sent)
    }

    /// Sends a message as a part of a larger transaction; ring the queue once that is done.
    pub(crate) fn send_in(&self, db: &Transaction<'_>, queue: &Queue, message: New) -> rusqlite::Result<Sent> {
        let now = now();
        if let Some(dedup) = message.dedup.as_deref().filter(|_| queue.fifo) {
            let seen = db
                .prepare_cached("SELECT id, seq FROM seen WHERE queue = ?1 AND dedup = ?2 AND until > ?3")?
                .query_row(params![queue.id, dedup, now], |row| {
                    Ok(Sent {
                        id: row.get(0)?,
                        seq: row.get(1)?,
                    })
                })
                .optional()?;
            if let Some(sent) = seen {
                return Ok(sent);
            }
        }
        let late = i64::try_from(self.faults.delay(queue.fifo).as_millis()).unwrap_or(0);
        let delay = message.delay.unwrap_or_else(|| queue.settings().delay) + late;
        let id = message_id();
        let twice = !queue.fifo && self.faults.strikes("duplicate").is_some();
        let mut seq = 0;
        for _ in 0..=u8::from(twice) {
            db.prepare_cached(
                "INSERT INTO message (queue, id, body, attributes, grp, dedup, sender, sent, visible_at, trace)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                queue.id,
                id,
                message.body,
                message.attributes,
                message.group.as_deref().filter(|_| queue.fifo),
                message.dedup,
                message.sender,
                now,
                now + delay,
                message.trace
            ])?;
            seq = db.last_insert_rowid();
        }
        if let Some(dedup) = message.dedup.filter(|_| queue.fifo) {
            db.prepare_cached(
                "INSERT OR REPLACE INTO seen (queue, dedup, id, seq, until) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![queue.id, dedup, id, seq, now + REMEMBERED])?;
        }
        Ok(Sent { id, seq })
    }

    /// Receives at most `most` messages that are there now, and they are invisible for `visibility`
    /// milliseconds; or says when the next one becomes visible.
    fn receive_or_when(
        &self,
        queue: &Queue,
        most: usize,
        visibility: Option<i64>,
    ) -> rusqlite::Result<(Vec<Message>, Option<i64>)> {
        let settings = queue.settings();
        let now = now();
        let visible_at = now + visibility.unwrap_or(settings.visibility);
        let dead_letter = settings
            .dead_letter
            .as_ref()
            .and_then(|(name, most)| self.get(name).map(|queue| (queue, *most)));
        let mut dead = false;
        let result = self.store.write(|db| {
            let mut messages = Vec::new();
            for (seq, received) in candidates(db, queue, most, now, dead_letter.as_ref().map(|(_, most)| *most))? {
                match &dead_letter {
                    Some((dead_queue, most_received)) if received >= *most_received => {
                        db.prepare_cached("UPDATE message SET queue = ?2, visible_at = ?3, receipt = NULL WHERE seq = ?1")?
                            .execute(params![seq, dead_queue.id, now])?;
                        dead = true;
                    }
                    _ => messages.push(
                        db.prepare_cached(
                            "UPDATE message SET visible_at = ?2, receipt = ?3, received = received + 1,
                                first_received = coalesce(first_received, ?4)
                             WHERE seq = ?1
                             RETURNING seq, id, receipt, body, attributes, grp, dedup, sender, sent, received, first_received,
                                trace",
                        )?
                        .query_row(params![seq, visible_at, format!("{seq:x}-{}", random_hex::<8>()), now], message_of)?,
                    ),
                }
            }
            let next = if messages.is_empty() {
                db.prepare_cached("SELECT min(visible_at) FROM message WHERE queue = ?1 AND visible_at > ?2")?
                    .query_row([queue.id, now], |row| row.get(0))?
            } else {
                None
            };
            Ok::<_, rusqlite::Error>((messages, next))
        })?;
        if dead && let Some((dead_queue, _)) = dead_letter {
            dead_queue.ring();
        }
        if !result.0.is_empty() {
            self.faults.pass("queue.received");
        }
        Ok(result)
    }

    /// Receives at most `most` messages, waiting for `wait` at most until there is one. They are
    /// invisible for `visibility` milliseconds. Nothing is received by a caller that has gone away
    /// while it waited.
    pub(crate) async fn receive_within(
        &self,
        queue: &Queue,
        most: usize,
        visibility: Option<i64>,
        wait: Duration,
    ) -> rusqlite::Result<Vec<Message>> {
        let deadline = Instant::now() + wait;
        let mut closing = self.closing.clone();
        loop {
            let mut rung = pin!(queue.bell.notified());
            // From here on a ring is heard, also one between the look and the wait.
            rung.as_mut().enable();
            let (messages, next) = self.receive_or_when(queue, most, visibility)?;
            let over = Instant::now() >= deadline || queue.deleted.load(Ordering::Acquire) || *closing.borrow();
            if !messages.is_empty() || over {
                return Ok(messages);
            }
            let nap = next.map_or(LONGEST_NAP, |at| (at - now()).clamp(0, LONGEST_NAP));
            let until = deadline.min(Instant::now() + Duration::from_millis(u64::try_from(nap).unwrap_or(0)));
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep_until(until) => {}
                _ = closing.changed() => {}
            }
        }
    }

    /// Whether the host is leaving: nobody waits for messages any more, and consumers are to end.
    pub(crate) fn are_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Whether there is a message that could be received now.
    pub(crate) fn has_some(&self, queue: &Queue) -> rusqlite::Result<bool> {
        self.store
            .read(|db| Ok(!candidates(db, queue, 1, now(), None)?.is_empty()))
    }

    /// Whether there is any message, visible or not.
    pub(crate) fn is_empty(&self, queue: &Queue) -> rusqlite::Result<bool> {
        self.store.read(|db| {
            db.prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM message WHERE queue = ?1)")?
                .query_row([queue.id], |row| row.get(0))
        })
    }

    /// Deletes messages by their receipts. A receipt that has been followed by another deletes
    /// nothing.
    pub(crate) fn remove(&self, queue: &Queue, receipts: &[&str]) -> rusqlite::Result<()> {
        self.store.write(|db| {
            for receipt in receipts {
                db.prepare_cached("DELETE FROM message WHERE seq = ?1 AND queue = ?2 AND receipt = ?3")?
                    .execute(params![seq_of(receipt), queue.id, receipt])?;
            }
            Ok::<_, rusqlite::Error>(())
        })?;
        if queue.fifo {
            // The next of its group may go.
            queue.ring();
        }
        Ok(())
    }

    /// Makes a message in flight visible in so many milliseconds from now.
    pub(crate) fn change_visibility(
        &self,
        queue: &Queue,
        receipt: &str,
        milliseconds: i64,
    ) -> rusqlite::Result<Changed> {
        let now = now();
        let changed = self.store.write(|db| {
            let found: Option<(Option<String>, i64)> = db
                .prepare_cached("SELECT receipt, visible_at FROM message WHERE seq = ?1 AND queue = ?2")?
                .query_row(params![seq_of(receipt), queue.id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match found {
                None => Ok(Changed::Gone),
                Some((current, at)) if current.as_deref() != Some(receipt) || at <= now => Ok(Changed::NotInFlight),
                Some(_) => {
                    db.prepare_cached("UPDATE message SET visible_at = ?2 WHERE seq = ?1")?
                        .execute(params![seq_of(receipt), now + milliseconds])?;
                    Ok::<_, rusqlite::Error>(Changed::Done)
                }
            }
        })?;
        // A waiter has to look again when it comes.
        queue.ring();
        Ok(changed)
    }

    /// Makes everything in flight visible at once: its receivers are gone.
    pub(crate) fn release(&self, queue: &Queue) -> rusqlite::Result<()> {
        self.store.write(|db| {
            db.prepare_cached(
                "UPDATE message SET visible_at = ?2 WHERE queue = ?1 AND visible_at > ?2 AND receipt IS NOT NULL",
            )?
            .execute([queue.id, now()])
        })?;
        queue.ring();
        Ok(())
    }

    pub(crate) fn counts(&self, queue: &Queue) -> rusqlite::Result<Counts> {
        self.store.read(|db| {
            db.prepare_cached(
                "SELECT coalesce(sum(visible_at <= ?2), 0), coalesce(sum(visible_at > ?2 AND receipt IS NOT NULL), 0),
                    coalesce(sum(visible_at > ?2 AND receipt IS NULL), 0)
                 FROM message WHERE queue = ?1",
            )?
            .query_row([queue.id, now()], |row| {
                Ok(Counts {
                    visible: row.get(0)?,
                    in_flight: row.get(1)?,
                    delayed: row.get(2)?,
                })
            })
        })
    }

    /// Forgets messages that are too old, and deduplication ids.
    pub(crate) fn sweep(&self) -> rusqlite::Result<()> {
        self.store.write(|db| {
            db.execute(
                "DELETE FROM message WHERE sent < ?1 - (SELECT retention FROM queue WHERE queue.id = message.queue)",
                [now()],
            )?;
            db.execute("DELETE FROM seen WHERE until <= ?1", [now()])
        })?;
        Ok(())
    }
}
