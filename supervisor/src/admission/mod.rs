//! How many executions run at once, and how many wait for their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::limits;

/// The right to run one execution.
pub struct Permit(#[expect(dead_code, reason = "held, and given back when dropped")] OwnedSemaphorePermit);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("all executions are taken, and as many wait as may: try again in {retry_after_seconds} s")]
pub struct Overloaded {
    pub retry_after_seconds: u64,
}

#[derive(Clone)]
pub struct Admission {
    running: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

/// Counts one waiting request, however its wait ends.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub fn new(running_max: usize, waiting_max: usize) -> Admission {
        Admission { running: Arc::new(Semaphore::new(running_max)), waiting: Arc::default(), waiting_max }
    }

    /// Waits for a turn, first come, first served. Refuses at once when the queue is full.
    pub async fn admit(&self) -> Result<Permit, Overloaded> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(Permit(permit));
        }
        let overloaded = Overloaded { retry_after_seconds: 1 };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(overloaded);
        }
        let _waiting = Waiting(&self.waiting);
        match tokio::time::timeout(limits::QUEUE_TIME_MAX, Arc::clone(&self.running).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Permit(permit)),
            _ => Err(overloaded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_freed_place_is_given_on() {
        let admission = Admission::new(1, 1);
        let first = admission.admit().await.unwrap();
        let mut second = Box::pin(admission.admit());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(admission.admit().await.is_err());
        drop(first);
        assert!(second.await.is_ok());
        assert!(admission.admit().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let admission = Admission::new(1, 1);
        let _held = admission.admit().await.unwrap();
        assert!(admission.admit().await.is_err());
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }
}
