//! Background tasks, all of which a shutdown waits for.
//!
//! ```text
//!  serving ──begin_shutdown──► draining (no new work) ──(work has ended)──► closing (no new connection)
//!                                  └──stop──► what still works is cancelled
//! ```

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one supervisor, and the signals that tell them to end.
#[derive(Clone, Default)]
pub struct Tasks {
    work: TaskTracker,
    services: TaskTracker,
    shutdown: CancellationToken,
    stop: CancellationToken,
    closing: CancellationToken,
}

impl Tasks {
    /// Work that ends by itself, or when it is stopped.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // On its way a task would be moved several times, and that of an execution is 5 kB.
        self.work.spawn(Box::pin(task));
    }

    /// A task that brings work, and goes on until there is none left: it ends at `closing`.
    pub fn spawn_service<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.services.spawn(task);
    }

    /// Resolves when the supervisor shuts down.
    pub async fn shutting_down(&self) {
        self.shutdown.cancelled().await;
    }

    pub fn is_shutting_down(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    pub fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    /// A token for work that ends by itself, cancelled when the supervisor no longer waits for it.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves when all work has ended.
    pub async fn ended(&self) {
        self.work.close();
        self.work.wait().await;
    }

    /// Resolves when services are to end.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Tells the services to end, and resolves when they have.
    pub async fn close(&self) {
        self.closing.cancel();
        self.services.close();
        self.services.wait().await;
    }
}
