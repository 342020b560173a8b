//! How many executions run at once, and how many wait for their turn.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::limits;

/// A place among the executions that run or wait.
pub struct Place {
    _place: OwnedSemaphorePermit,
}

/// The right to run one execution.
pub struct Permit {
    _place: Place,
    _running: OwnedSemaphorePermit,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("all executions are taken, and as many wait as may: try again in {retry_after_seconds} s")]
pub struct Overloaded {
    pub retry_after_seconds: u64,
}

const OVERLOADED: Overloaded = Overloaded { retry_after_seconds: 1 };

#[derive(Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Admission {
    pub fn new(running_max: usize, waiting_max: usize) -> Admission {
        Admission {
            places: Arc::new(Semaphore::new(running_max + waiting_max)),
            running: Arc::new(Semaphore::new(running_max)),
        }
    }

    /// Takes a place, before any work is done for the request; refuses at once when none is free.
    pub fn enter(&self) -> Result<Place, Overloaded> {
        Arc::clone(&self.places)
            .try_acquire_owned()
            .map(|place| Place { _place: place })
            .map_err(|_| OVERLOADED)
    }

    /// Waits for a turn, first come, first served.
    pub async fn admit(&self, place: Place) -> Result<Permit, Overloaded> {
        let turn = tokio::time::timeout(limits::QUEUE_TIME_MAX, Arc::clone(&self.running).acquire_owned());
        match turn.await {
            Ok(Ok(running)) => Ok(Permit { _place: place, _running: running }),
            _ => Err(OVERLOADED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_freed_place_is_given_on() {
        let admission = Admission::new(1, 1);
        let first = admission.admit(admission.enter().unwrap()).await.unwrap();
        let mut second = Box::pin(admission.admit(admission.enter().unwrap()));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(admission.enter().is_err());
        drop(first);
        assert!(second.await.is_ok());
        assert!(admission.enter().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let admission = Admission::new(1, 1);
        let _held = admission.admit(admission.enter().unwrap()).await.unwrap();
        assert!(admission.admit(admission.enter().unwrap()).await.is_err());
        assert!(admission.enter().is_ok());
    }
}
