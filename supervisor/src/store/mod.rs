//! The database: SQLite in the data directory, written by one thread.
//!
//! Callers send a `Write` and wait until it is committed and synced to the disk. Writes that wait at
//! the same time share one transaction, so that a busy supervisor syncs once for many executions.
//! Executions that have begun are noted in files beside it.

mod begun;
mod rows;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::gettid;
use tokio::sync::{mpsc, oneshot};

pub use rows::{BuildRow, EgressAfterRow, EnvironmentRow, ExecutionEndRow, ExecutionStartRow};
use writer::Writer;

use crate::processors::Apart;

/// Writes that wait for the thread.
const QUEUE_MAX: usize = 1024;

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database {path} cannot be opened: {reason}", path = path.display())]
    Open { path: PathBuf, reason: String },
    #[error("the database refused a write: {0}")]
    Write(String),
    #[error("the database is closed")]
    Closed,
}

/// A change that is committed as a whole.
pub enum Write {
    /// Inserts or replaces an environment, and notes its build.
    Environment(Box<(EnvironmentRow, BuildRow)>),
    RemoveEnvironment(String),
    RemoveBuild(String),
    /// One that has begun, and how it ended.
    Execution(Arc<ExecutionStartRow>, Box<ExecutionEndRow>),
    EgressAfter(Box<EgressAfterRow>),
}

enum Request {
    /// Survives the end of this process, and the loss of power after the next `Sync`.
    Begin {
        row: Arc<ExecutionStartRow>,
        reply: Reply,
    },
    Write {
        write: Write,
        reply: Reply,
    },
    /// One that has begun, and is not going to be.
    Withdraw {
        id: String,
    },
    Sync,
    /// The last request: what comes after it is refused.
    Close {
        reply: Reply,
    },
}

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// A handle on the writer thread.
#[derive(Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    thread: Arc<Mutex<Apart>>,
}

/// What the database holds when it is opened.
pub struct Contents {
    pub environments: Vec<EnvironmentRow>,
    pub builds: Vec<String>,
}

impl Store {
    /// Opens or creates the database, brings its schema up to date, and records what was interrupted.
    pub fn open(path: &Path) -> Result<(Store, Contents), StoreError> {
        let failed = |reason: String| StoreError::Open { path: path.to_owned(), reason };
        let (connection, begun) = writer::open(path).map_err(failed)?;
        let contents = rows::read_all(&connection).map_err(|error| failed(error.to_string()))?;
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let (started, id) = std::sync::mpsc::sync_channel(1);
        let write = move || {
            // Whoever opens the store waits for it.
            let _ = started.send(gettid());
            Writer::new(connection, begun).run(queue);
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(write)
            .map_err(|error| failed(error.to_string()))?;
        let id = id.recv().map_err(|error| failed(error.to_string()))?;
        let thread = Arc::new(Mutex::new(Apart::new(id)));
        Ok((Store { requests, thread }, contents))
    }

    /// Returns when the change is committed.
    pub async fn commit(&self, write: Write) -> Result<(), StoreError> {
        self.request(|reply| Request::Write { write, reply }).await?.done().await
    }

    /// Returns when the note has its place in the queue.
    pub async fn begin(&self, row: Arc<ExecutionStartRow>) -> Result<Pending, StoreError> {
        self.request(|reply| Request::Begin { row, reply }).await
    }

    /// The same for an execution that may not be. Its withdrawal has a place in the queue as well; nothing, when half of
    /// the queue is taken, which is for those that are going to be.
    pub fn begin_provisionally(&self, row: Arc<ExecutionStartRow>) -> Option<(Pending, Withdrawal)> {
        if self.requests.capacity() <= QUEUE_MAX / 2 {
            return None;
        }
        let place = self.requests.clone().try_reserve_owned().ok()?;
        let (reply, answer) = oneshot::channel();
        let id = row.id.clone();
        self.requests.try_send(Request::Begin { row, reply }).ok()?;
        Some((Pending(answer), Withdrawal { id, place: Some(place) }))
    }

    /// Brings the notes to the disk soon, and removes those that nobody needs. Called regularly; a store that is busy or closed goes without.
    pub fn sync(&self) {
        let _ = self.requests.try_send(Request::Sync);
    }

    /// Whether its thread is to be kept off the processor of this one.
    pub fn keep_apart(&self, wanted: bool) {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).keep(wanted);
    }

    /// Ends the thread and closes the database, so that its file is complete without its log.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.request(|reply| Request::Close { reply }).await?.done().await
    }

    async fn request(&self, request: impl FnOnce(Reply) -> Request) -> Result<Pending, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| StoreError::Closed)?;
        Ok(Pending(answer))
    }
}

/// Withdraws an execution when it is dropped, unless that is called off.
pub struct Withdrawal {
    id: String,
    /// In the queue, so that nobody has to wait for it.
    place: Option<mpsc::OwnedPermit<Request>>,
}

impl Withdrawal {
    /// The execution is going to be.
    pub fn call_off(mut self) {
        self.place = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.send(Request::Withdraw { id: std::mem::take(&mut self.id) });
        }
    }
}

/// What waits for the thread. Dropping it does not undo it.
pub struct Pending(oneshot::Receiver<Result<(), StoreError>>);

impl Pending {
    pub async fn done(self) -> Result<(), StoreError> {
        self.0.await.map_err(|_| StoreError::Closed)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Write {
        let row = EnvironmentRow {
            name: name.to_owned(),
            definition: "{}".to_owned(),
            package_lock: None,
            module: "commonjs".to_owned(),
            endowments: "[]".to_owned(),
            build: "d".to_owned(),
            etag: "e".to_owned(),
            created_at: 1,
            updated_at: 2,
        };
        Write::Environment(Box::new((row, BuildRow { digest: "d".to_owned(), created_at: 1 })))
    }

    #[tokio::test]
    async fn what_is_committed_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloister.db");
        let (store, contents) = Store::open(&path).unwrap();
        assert!(contents.environments.is_empty());
        store.commit(environment("a")).await.unwrap();
        store.commit(environment("b")).await.unwrap();
        store.commit(Write::RemoveEnvironment("a".to_owned())).await.unwrap();
        let (_, contents) = Store::open(&path).unwrap();
        let names: Vec<String> = contents.environments.into_iter().map(|row| row.name).collect();
        assert_eq!((names, contents.builds), (vec!["b".to_owned()], vec!["d".to_owned()]));
    }

    #[tokio::test]
    async fn an_execution_that_has_begun_and_not_ended_is_recorded_as_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloister.db");
        let start = |id: &str| {
            Arc::new(ExecutionStartRow {
                id: id.to_owned(),
                code: "return 1".to_owned(),
                ..ExecutionStartRow::default()
            })
        };
        let end = || {
            Box::new(ExecutionEndRow {
                status: "completed",
                error: None,
                result_bytes: 1,
                effects: "[]".to_owned(),
                egress: "[]".to_owned(),
                duration_ms: 1.0,
                cpu_ms: 1.0,
                peak_memory_bytes: 1,
            })
        };
        let (store, _) = Store::open(&path).unwrap();
        for id in ["ended", "cut off"] {
            store.begin(start(id)).await.unwrap().done().await.unwrap();
        }
        store.commit(Write::Execution(start("ended"), end())).await.unwrap();
        store.sync();
        let recorded = || {
            let connection = rusqlite::Connection::open(&path).unwrap();
            let mut statement = connection
                .prepare("SELECT id, status, code, effects FROM executions ORDER BY id DESC")
                .unwrap();
            let row = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]);
            statement.query_map([], row).unwrap().collect::<Result<Vec<[String; 4]>, _>>().unwrap()
        };
        let ended = ["ended", "completed", "return 1", "[]"];
        assert_eq!(recorded(), [ended]);
        // Each is told of once, however often the next supervisor starts.
        for _ in 0..2 {
            Store::open(&path).unwrap();
            assert_eq!(recorded(), [ended, ["cut off", "interrupted", "return 1", "null"]]);
        }
    }

    #[tokio::test]
    async fn executions_that_may_not_be_take_half_of_the_queue_at_most_and_are_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloister.db");
        let (store, _) = Store::open(&path).unwrap();
        let row = |number: usize| {
            Arc::new(ExecutionStartRow { id: number.to_string(), ..ExecutionStartRow::default() })
        };
        let begun: Vec<_> =
            (0..QUEUE_MAX).map_while(|number| store.begin_provisionally(row(number))).collect();
        assert!((1..=QUEUE_MAX / 2).contains(&begun.len()), "{}", begun.len());
        store.commit(environment("a")).await.unwrap();
        let mut withdrawals = Vec::new();
        for (pending, withdrawal) in begun {
            pending.done().await.unwrap();
            withdrawals.push(withdrawal);
        }
        let kept = withdrawals.pop().unwrap();
        kept.call_off();
        drop(withdrawals);
        store.commit(environment("b")).await.unwrap();
        assert!(store.begin_provisionally(row(QUEUE_MAX)).is_some(), "there is room again");
        store.close().await.unwrap();
        drop(store);
        Store::open(&path).unwrap();
        let connection = rusqlite::Connection::open(&path).unwrap();
        let interrupted: u32 =
            connection.query_row("SELECT count(*) FROM executions", [], |row| row.get(0)).unwrap();
        assert_eq!(interrupted, 1, "the one whose withdrawal was called off");
    }

    #[tokio::test]
    async fn a_closed_store_is_complete_and_takes_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloister.db");
        let (store, _) = Store::open(&path).unwrap();
        store.commit(environment("a")).await.unwrap();
        store.close().await.unwrap();
        assert!(!folder.path().join("cloister.db-wal").exists());
        assert!(matches!(store.commit(environment("b")).await, Err(StoreError::Closed)));
    }

    #[tokio::test]
    async fn a_refused_write_fails_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&folder.path().join("cloister.db")).unwrap();
        store.commit(environment("a")).await.unwrap();
        // The build is still referenced, so the database refuses to forget it.
        let (refused, accepted) =
            tokio::join!(store.commit(Write::RemoveBuild("d".to_owned())), store.commit(environment("b")));
        assert!(matches!(refused, Err(StoreError::Write(_))));
        accepted.unwrap();
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloister.db");
        std::fs::write(&path, "not a database, but longer than a header of one would be".repeat(10)).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Open { .. })));
    }
}
