//! The SQLite files of the host: one that queues, executions and credentials share, so that a
//! step's message and its token are one transaction, and the table's.
//!
//! With a write-ahead log: what a call has written before it returned is there after `kill -9`. A
//! power cut can take the last seconds.

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The tables of queues, executions and credentials.
pub(crate) const QUEUES: &str = "
CREATE TABLE IF NOT EXISTS queue (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, fifo INTEGER NOT NULL, visibility INTEGER NOT NULL, retention INTEGER NOT NULL,
    delay INTEGER NOT NULL, wait INTEGER NOT NULL, dead_letter TEXT, most_received INTEGER, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS message (
    seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, attributes TEXT, grp TEXT, dedup TEXT,
    sender TEXT NOT NULL, sent INTEGER NOT NULL, visible_at INTEGER NOT NULL, received INTEGER NOT NULL DEFAULT 0,
    first_received INTEGER, receipt TEXT, trace TEXT);
CREATE INDEX IF NOT EXISTS message_visible ON message (queue, visible_at);
CREATE INDEX IF NOT EXISTS message_in_order ON message (queue, seq) WHERE grp IS NOT NULL;
CREATE TABLE IF NOT EXISTS seen (
    queue INTEGER NOT NULL, dedup TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (queue, dedup)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS execution (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, input TEXT NOT NULL, status TEXT NOT NULL, started INTEGER NOT NULL,
    stopped INTEGER, output TEXT, error TEXT, cause TEXT, state TEXT, entered INTEGER, data TEXT, tries TEXT, token TEXT,
    timeout_at INTEGER, heartbeat_at INTEGER, wake_at INTEGER, due INTEGER, trace TEXT);
CREATE INDEX IF NOT EXISTS execution_due ON execution (due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS execution_stopped ON execution (stopped) WHERE stopped IS NOT NULL;
CREATE TABLE IF NOT EXISTS history (
    execution INTEGER NOT NULL, id INTEGER NOT NULL, at INTEGER NOT NULL, type TEXT NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (execution, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS credential (key_id TEXT PRIMARY KEY, secret TEXT NOT NULL, caller TEXT NOT NULL) WITHOUT ROWID;
";

/// The error of a row that cannot be read.
///
/// * `column`: its place in the query.
/// * `what`: the value, with the row that it is of.
pub(crate) fn damaged(column: usize, what: &str, cause: &dyn std::error::Error) -> rusqlite::Error {
    let message = format!("{what} cannot be read: {cause}");
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, message.into())
}

/// The connection that writes. One at a time, which is what SQLite does anyway, and each call is
/// short.
pub(crate) struct Store {
    file: PathBuf,
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens a file, and makes its tables if they are not there.
    pub(crate) fn open(file: &Path, tables: &str) -> rusqlite::Result<Self> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        // The log is put into the file by `tidy`, beside the calls and not inside one.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.set_prepared_statement_cache_capacity(128);
        connection.execute_batch(tables)?;
        // What a file of an older version lacks.
        for table in ["message", "execution"] {
            let lacks = connection.table_exists(None, table)? && !connection.column_exists(None, table, "trace")?;
            if lacks {
                connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN trace TEXT"))?;
            }
        }
        Ok(Self {
            file: file.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic inside a transaction rolls it back, so what is there is whole.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does everything that `work` does, or nothing.
    pub(crate) fn write<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    pub(crate) fn read<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        work(&self.lock())
    }

    /// Puts the log into the file, over a connection of its own so that no call waits for the disk.
    pub(crate) fn tidy(&self) -> rusqlite::Result<()> {
        // A file that was taken away is not made again.
        let connection = Connection::open_with_flags(&self.file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Random bytes as hex digits, two a byte.
pub(crate) fn random_hex<const BYTES: usize>() -> String {
    let mut bytes = [0u8; BYTES];
    // Without randomness there is no secret; nothing that needs one may go on.
    getrandom::fill(&mut bytes).expect("the system has randomness");
    hex::encode(bytes)
}
