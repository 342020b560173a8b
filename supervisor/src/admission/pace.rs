//! How many executions begin at the same time.
//!
//! Every execution that runs switches between a guest, a host and the supervisor. When many of them take
//! turns on few processors, each finds its caches cold and is much dearer. So only a few begin at once, and
//! the most recently used processes serve most of them. One that takes longer than a moment, because it
//! computes or because it waits for a backend, holds nobody up.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::limits;

#[derive(Clone)]
pub struct Pace {
    begin: Arc<Semaphore>,
}

impl Pace {
    pub fn new(begin_max: usize) -> Pace {
        Pace { begin: Arc::new(Semaphore::new(begin_max)) }
    }

    /// Runs `execution`, when it may begin.
    pub async fn run<E: Future>(&self, execution: E) -> E::Output {
        // Nobody closes it; without a permit the execution would still be within the bounds of admission.
        let permit = self.begin.acquire().await.ok();
        tokio::pin!(execution);
        tokio::select! {
            biased;
            output = &mut execution => return output,
            () = tokio::time::sleep(limits::BEGINNING_TIME) => drop(permit),
        }
        execution.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_longer_than_a_moment_holds_nobody_up() {
        let pace = Pace::new(1);
        let mut long = Box::pin(pace.run(std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut long).is_pending());
        let mut short = Box::pin(pace.run(async { 7 }));
        assert!(futures_util::poll!(&mut short).is_pending(), "only one begins at a time");
        tokio::time::advance(limits::BEGINNING_TIME).await;
        assert!(futures_util::poll!(&mut long).is_pending());
        assert_eq!(short.await, 7);
    }

    #[tokio::test]
    async fn one_that_is_given_up_makes_room() {
        let pace = Pace::new(1);
        let mut given_up = Box::pin(pace.run(std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        assert_eq!(pace.run(async { 7 }).await, 7);
    }
}
