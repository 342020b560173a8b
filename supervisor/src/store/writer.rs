//! The one thread that writes.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::mpsc;

use super::{Reply, Request, StoreError, Write, rows};

/// Writes that share a transaction.
const BATCH_MAX: usize = 128;
/// How long another program (a backup) may hold the database.
const BUSY_TIME_MAX: Duration = Duration::from_secs(5);

/// Pages of the log that are copied into the database at once. Executions change the same few pages again and
/// again, so copying them seldom is little work; but a log that still grows is synced slower than one that is
/// written over, and 2,000 pages, 8 MB, are soon reached.
const CHECKPOINT_PAGES: u32 = 2000;

mod migrations {
    refinery::embed_migrations!("src/store/migrations");
}

/// The log beside the database takes over its mode, so that is set before SQLite opens it.
pub fn open(path: &Path) -> Result<Connection, String> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    file.map_err(|error| error.to_string())?;
    let mut connection = Connection::open(path).map_err(|error| error.to_string())?;
    prepare(&connection).map_err(|error| error.to_string())?;
    migrations::migrations::runner().run(&mut connection).map_err(|error| error.to_string())?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIME_MAX)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "trusted_schema", "OFF")
}

/// How much a commit waits for (sqlite.org/pragma.html#pragma_synchronous).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Survives a power failure: the log is synced.
    Disk,
    /// Survives the end of this process; the next sync takes it along.
    Process,
}

impl Durability {
    fn of(writes: &[&Write]) -> Durability {
        match writes.iter().all(|write| matches!(write, Write::ExecutionStart(_))) {
            true => Durability::Process,
            false => Durability::Disk,
        }
    }
}

/// Serves until it is told to close, or every `Store` is dropped.
pub fn run(mut connection: Connection, mut queue: mpsc::Receiver<Request>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = Vec::new();
        let mut close = None;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Write { write, reply } => batch.push((write, reply)),
                Request::Close { reply } => {
                    close = Some(reply);
                    break;
                }
            }
            next = if batch.len() < BATCH_MAX { queue.try_recv().ok() } else { None };
        }
        commit_batch(&mut connection, batch);
        if let Some(reply) = close {
            let closed = connection.close().map_err(|(_, error)| StoreError::Write(error.to_string()));
            drop(queue);
            // Nobody may be waiting for it.
            let _ = reply.send(closed);
            return;
        }
    }
}

fn commit_batch(connection: &mut Connection, batch: Vec<(Write, Reply)>) {
    let writes: Vec<&Write> = batch.iter().map(|(write, _)| write).collect();
    let together = commit(connection, &writes);
    // One write that is refused must not take the others with it. A database that is locked, or a disk
    // that is full, refuses each of them, and trying would take its time each time.
    let alone = batch.len() > 1 && together.as_ref().is_err_and(is_of_one_write);
    let together = together.map_err(|error| StoreError::Write(error.to_string()));
    for (write, reply) in batch {
        let result = match alone {
            true => commit(connection, &[&write]).map_err(|error| StoreError::Write(error.to_string())),
            false => together.clone(),
        };
        // A caller that gave up does not undo its write.
        let _ = reply.send(result);
    }
}

fn is_of_one_write(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) | None)
}

fn commit(connection: &mut Connection, writes: &[&Write]) -> rusqlite::Result<()> {
    let synchronous = if Durability::of(writes) == Durability::Disk { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for write in writes {
        rows::apply(&transaction, write)?;
    }
    transaction.commit()
}
