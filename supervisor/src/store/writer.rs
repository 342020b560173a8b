//! The one thread that writes.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::mpsc;

use super::begun::Begun;
use super::{ExecutionStartRow, Reply, Request, StoreError, Write, rows};

/// Writes that share a transaction.
const BATCH_MAX: usize = 128;
/// With at least so many other executions under way, a commit waits this long for one of them, so that both share
/// a sync (as `commit_siblings` and `commit_delay` of PostgreSQL do).
const COMPANIONS_MIN: usize = 3;
const COMPANY_TIME: Duration = Duration::from_micros(400);
/// How long another program (a backup) may hold the database.
const BUSY_TIME_MAX: Duration = Duration::from_secs(5);

/// Pages of the log that are copied into the database at once. Executions change the same few pages again and
/// again, so copying them seldom is little work; but a log that still grows is synced slower than one that is
/// written over, and 2,000 pages, 8 MB, are soon reached.
const CHECKPOINT_PAGES: u32 = 2000;

/// `Cloi`, as sqlite.org/pragma.html#pragma_application_id wants it.
const APPLICATION_ID: i32 = 0x436c_6f69;

mod migrations {
    refinery::embed_migrations!("src/store/migrations");
}

/// The folder of executions that have begun, beside the database.
const BEGUN_FOLDER: &str = "begun";

/// The log beside the database takes over its mode, so that is set before SQLite opens it.
pub fn open(path: &Path) -> Result<(Connection, Begun), String> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    file.map_err(|error| error.to_string())?;
    let mut connection = Connection::open(path).map_err(|error| error.to_string())?;
    prepare(&connection).map_err(|error| error.to_string())?;
    migrations::migrations::runner().run(&mut connection).map_err(|error| error.to_string())?;
    let (begun, left) = Begun::open(&path.with_file_name(BEGUN_FOLDER)).map_err(|error| error.to_string())?;
    let interrupted = rows::save_interrupted(&mut connection, &left).map_err(|error| error.to_string())?;
    if interrupted > 0 {
        tracing::warn!(interrupted, "executions were running when the last supervisor ended");
    }
    begun.clear().map_err(|error| error.to_string())?;
    Ok((connection, begun))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIME_MAX)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What is committed survives a power failure (sqlite.org/pragma.html#pragma_synchronous).
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "trusted_schema", "OFF")
}

pub struct Writer {
    connection: Connection,
    begun: Begun,
    /// Whether the last commit failed: nothing begins then before another one succeeds.
    failing: bool,
}

/// What waits at the same time.
#[derive(Default)]
struct Batch {
    begun: Vec<(Arc<ExecutionStartRow>, Reply)>,
    writes: Vec<(Write, Reply)>,
    sync: bool,
    close: Option<Reply>,
}

impl Batch {
    /// Waits for something, and takes what there is; nothing, when every `Store` is dropped.
    fn next(queue: &mut mpsc::Receiver<Request>) -> Option<Batch> {
        let mut batch = Batch::default();
        batch.add(queue.blocking_recv()?);
        batch.add_waiting(queue);
        Some(batch)
    }

    fn add_waiting(&mut self, queue: &mut mpsc::Receiver<Request>) {
        while self.close.is_none() && self.begun.len() + self.writes.len() < BATCH_MAX {
            let Ok(request) = queue.try_recv() else { return };
            self.add(request);
        }
    }

    fn add(&mut self, request: Request) {
        match request {
            Request::Begin { row, reply } => self.begun.push((row, reply)),
            Request::Write { write, reply } => self.writes.push((write, reply)),
            Request::Sync => self.sync = true,
            Request::Close { reply } => self.close = Some(reply),
        }
    }
}

impl Writer {
    pub fn new(connection: Connection, begun: Begun) -> Writer {
        Writer { connection, begun, failing: false }
    }

    /// Serves until it is told to close, or every `Store` is dropped.
    pub fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(mut batch) = Batch::next(&mut queue) {
            self.begin(std::mem::take(&mut batch.begun));
            if self.expects_company(&batch) {
                std::thread::sleep(COMPANY_TIME);
                batch.add_waiting(&mut queue);
            }
            let Batch { begun, writes, sync, close } = batch;
            self.begin(begun);
            self.commit_batch(writes);
            if (sync || close.is_some())
                && let Err(error) = self.begun.settle()
            {
                tracing::warn!(%error, "the executions that have begun could not be synced to the disk");
            }
            if let Some(reply) = close {
                let closed =
                    self.connection.close().map_err(|(_, error)| StoreError::Write(error.to_string()));
                drop(queue);
                // Nobody may be waiting for it.
                let _ = reply.send(closed);
                return;
            }
        }
    }

    fn expects_company(&self, batch: &Batch) -> bool {
        let others = self.begun.count().saturating_sub(batch.writes.len());
        !batch.writes.is_empty() && batch.close.is_none() && others >= COMPANIONS_MIN
    }

    fn begin(&mut self, batch: Vec<(Arc<ExecutionStartRow>, Reply)>) {
        if batch.is_empty() {
            return;
        }
        let rows: Vec<&ExecutionStartRow> = batch.iter().map(|(row, _)| row.as_ref()).collect();
        let possible = if self.failing { self.try_to_write() } else { Ok(()) };
        let written = possible
            .map_err(|error| error.to_string())
            .and_then(|()| self.begun.begin(&rows).map_err(|error| error.to_string()))
            .map_err(StoreError::Write);
        for (_, reply) in batch {
            // A caller that gave up does not undo its note.
            let _ = reply.send(written.clone());
        }
    }

    fn commit_batch(&mut self, batch: Vec<(Write, Reply)>) {
        if batch.is_empty() {
            return;
        }
        let writes: Vec<&Write> = batch.iter().map(|(write, _)| write).collect();
        let together = self.commit(&writes);
        self.failing = together.as_ref().is_err_and(|error| !is_of_one_write(error));
        // One write that is refused must not take the others with it. A database that is locked, or a disk
        // that is full, refuses each of them, and trying would take its time each time.
        let alone = batch.len() > 1 && together.as_ref().is_err_and(is_of_one_write);
        let together = together.map_err(|error| StoreError::Write(error.to_string()));
        for (write, reply) in batch {
            let result = match alone {
                true => self.commit(&[&write]).map_err(|error| StoreError::Write(error.to_string())),
                false => together.clone(),
            };
            match (&result, &write) {
                (Ok(()), Write::Execution(start, _)) => self.begun.end(&start.id),
                (Err(_), Write::Execution(start, _)) => self.begun.give_up(&start.id),
                _ => {}
            }
            // A caller that gave up does not undo its write.
            let _ = reply.send(result);
        }
    }

    /// Commits what stands there already: the mark by which other programs know whose database this is.
    fn try_to_write(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
        self.failing = false;
        Ok(())
    }

    fn commit(&mut self, writes: &[&Write]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for write in writes {
            rows::apply(&transaction, write)?;
        }
        transaction.commit()
    }
}

fn is_of_one_write(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) | None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_for_company_only_while_others_are_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, begun) = open(&folder.path().join("cloister.db")).unwrap();
        let mut writer = Writer::new(connection, begun);
        let mut batch = Batch::default();
        let (reply, _answer) = tokio::sync::oneshot::channel();
        batch.add(Request::Write { write: Write::RemoveBuild("d".to_owned()), reply });
        for under_way in 0..=COMPANIONS_MIN {
            assert!(!writer.expects_company(&batch), "{under_way} beside its own");
            let row = ExecutionStartRow { id: under_way.to_string(), ..ExecutionStartRow::default() };
            writer.begun.begin(&[&row]).unwrap();
        }
        assert!(writer.expects_company(&batch));
        assert!(!writer.expects_company(&Batch::default()), "there is nothing to commit");
        // One that could not be recorded is not waited for.
        writer.begun.give_up("0");
        assert!(!writer.expects_company(&batch));
    }
}
