//! Background tasks, all of which a shutdown waits for.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one supervisor, and the signals that tell them to end: first what is new (shutdown),
/// later what still runs (stop).
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    stop: CancellationToken,
}

impl Tasks {
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
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

    /// Resolves when every task has ended.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
