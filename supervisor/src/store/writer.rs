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
/// With at least so many other executions under way, a commit waits for some of them, so that they share a sync
/// (as `commit_siblings` and `commit_delay` of PostgreSQL do), and the longer the more they are.
const COMPANIONS_MIN: usize = 3;
const COMPANION_TIME: Duration = Duration::from_micros(100);
const COMPANY_TIME_MAX: Duration = Duration::from_micros(1500);
/// After so many waits that brought nobody there are no more: those under way are so for long.
const WAITS_IN_VAIN_MAX: u32 = 3;
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
    /// How often company was waited for since it last came.
    waits_in_vain: u32,
}

/// What waits at the same time.
#[derive(Default)]
struct Batch {
    begun: Vec<(Arc<ExecutionStartRow>, Reply)>,
    writes: Vec<(Write, Reply)>,
    withdrawn: Vec<String>,
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
        while self.close.is_none() && self.begun.len() + self.writes.len() + self.withdrawn.len() < BATCH_MAX
        {
            let Ok(request) = queue.try_recv() else { return };
            self.add(request);
        }
    }

    fn add(&mut self, request: Request) {
        match request {
            Request::Begin { row, reply } => self.begun.push((row, reply)),
            Request::Write { write, reply } => self.writes.push((write, reply)),
            Request::Withdraw { id } => self.withdrawn.push(id),
            Request::Sync => self.sync = true,
            Request::Close { reply } => self.close = Some(reply),
        }
    }
}

impl Writer {
    pub fn new(connection: Connection, begun: Begun) -> Writer {
        Writer { connection, begun, failing: false, waits_in_vain: 0 }
    }

    /// Serves until it is told to close, or every `Store` is dropped.
    pub fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(mut batch) = Batch::next(&mut queue) {
            self.begin(std::mem::take(&mut batch.begun));
            if let Some(time) = self.company_time(&batch) {
                self.await_company(time, &mut batch, &mut queue);
            }
            let Batch { begun, writes, withdrawn, sync, close } = batch;
            self.begin(begun);
            for id in withdrawn {
                if let Err(error) = self.begun.withdraw(&id) {
                    tracing::warn!(id, %error, "an execution that did not start will be told of as interrupted if this supervisor is cut off");
                }
            }
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

    /// How long it is worth to wait for more to commit. Where company does not come, two that come at once tell
    /// that there may be some again.
    fn company_time(&self, batch: &Batch) -> Option<Duration> {
        let others = self.begun.count().saturating_sub(batch.writes.len());
        let likely = match batch.writes.len() {
            0 => false,
            1 => self.waits_in_vain < WAITS_IN_VAIN_MAX,
            _ => true,
        };
        let waits = likely && batch.close.is_none() && others >= COMPANIONS_MIN;
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        waits.then(|| COMPANION_TIME.saturating_mul(others).min(COMPANY_TIME_MAX))
    }

    fn await_company(&mut self, time: Duration, batch: &mut Batch, queue: &mut mpsc::Receiver<Request>) {
        std::thread::sleep(time);
        let before = batch.writes.len();
        batch.add_waiting(queue);
        self.waits_in_vain =
            if batch.writes.len() > before { 0 } else { self.waits_in_vain.saturating_add(1) };
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

    /// A writer that so many executions are under way for.
    fn writer(folder: &Path, under_way: usize) -> Writer {
        let (connection, begun) = open(&folder.join("cloister.db")).unwrap();
        let mut writer = Writer::new(connection, begun);
        for number in 0..under_way {
            let row = ExecutionStartRow { id: number.to_string(), ..ExecutionStartRow::default() };
            writer.begun.begin(&[&row]).unwrap();
        }
        writer
    }

    fn write() -> Request {
        let (reply, _) = tokio::sync::oneshot::channel();
        Request::Write { write: Write::RemoveBuild("d".to_owned()), reply }
    }

    fn batch(writes: usize) -> Batch {
        let mut batch = Batch::default();
        (0..writes).for_each(|_| batch.add(write()));
        batch
    }

    #[test]
    fn a_commit_waits_for_company_while_others_are_under_way_and_the_longer_the_more() {
        let folder = tempfile::tempdir().unwrap();
        // One of those under way is what is committed.
        let time = |under_way: usize, writes| writer(folder.path(), under_way).company_time(&batch(writes));
        assert_eq!(time(COMPANIONS_MIN, 1), None);
        assert_eq!(time(1 + COMPANIONS_MIN, 1), Some(COMPANION_TIME * 3));
        assert_eq!(time(11, 1), Some(COMPANION_TIME * 10));
        assert_eq!(time(200, 1), Some(COMPANY_TIME_MAX));
        assert_eq!(time(200, 0), None, "there is nothing to commit");
        let mut writer = writer(folder.path(), 1 + COMPANIONS_MIN);
        writer.begun.give_up("0");
        assert_eq!(writer.company_time(&batch(1)), None, "one that could not be recorded is not waited for");
    }

    #[test]
    fn nobody_waits_for_ever_for_company_that_does_not_come() {
        let folder = tempfile::tempdir().unwrap();
        let (queue, mut requests) = mpsc::channel(8);
        let mut writer = writer(folder.path(), 10);
        let mut alone = batch(1);
        for _ in 0..WAITS_IN_VAIN_MAX {
            assert!(writer.company_time(&batch(1)).is_some());
            writer.await_company(Duration::ZERO, &mut alone, &mut requests);
        }
        assert_eq!(writer.company_time(&batch(1)), None);
        assert!(writer.company_time(&batch(2)).is_some(), "two come at once");
        queue.try_send(write()).ok().unwrap();
        writer.await_company(Duration::ZERO, &mut alone, &mut requests);
        assert_eq!(alone.writes.len(), 2);
        assert!(writer.company_time(&batch(1)).is_some());
    }
}
