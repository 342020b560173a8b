//! How many executions begin at the same time.
//!
//! Every execution that runs switches between a guest, a host and the supervisor. When many of them take
//! turns on few processors, each finds its caches cold and is much dearer. So only a few begin at once, and
//! the most recently used processes serve most of them. One that takes longer than a moment holds
//! nobody up; nor does one that waits for a backend when no turn is left.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::limits;

#[derive(Clone)]
pub struct Pace {
    begin: Arc<Semaphore>,
    begin_max: usize,
    processors: usize,
}

/// The right to begin, until it is given up.
pub struct Turn {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Pace {
    /// One for each processor may begin, and so many more.
    pub fn new(processors: usize, more: usize) -> Pace {
        let begin_max = processors + more;
        Pace { begin: Arc::new(Semaphore::new(begin_max)), begin_max, processors }
    }

    /// How many processors stay idle while one more begins, as far as executions are what keeps them busy.
    pub fn idle_processors(&self) -> usize {
        let beginning = self.begin_max - self.begin.available_permits();
        self.processors.saturating_sub(beginning + 1)
    }

    /// Whether one that begins now has two processors, and none beside it.
    pub fn has_a_pair(&self) -> bool {
        self.processors == 2 && self.idle_processors() == 1
    }

    /// Waits for a turn.
    pub async fn turn(&self) -> Turn {
        // Nobody closes it; without a permit the execution would still be within the bounds of admission.
        Turn { permit: Mutex::new(Arc::clone(&self.begin).acquire_owned().await.ok()) }
    }
}

impl Turn {
    /// Whether the next one would wait for it: no other is left.
    pub fn is_wanted(&self) -> bool {
        self.permit().as_ref().is_some_and(|permit| permit.semaphore().available_permits() == 0)
    }

    /// Gives the turn up; the execution goes on.
    pub fn release(&self) {
        drop(self.permit().take());
    }

    fn permit(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an execution, which has the turn until it ends, or for a moment.
    pub async fn during<E: Future>(&self, execution: E) -> E::Output {
        tokio::pin!(execution);
        let output = tokio::select! {
            biased;
            output = &mut execution => Some(output),
            () = tokio::time::sleep(limits::BEGINNING_TIME) => None,
        };
        self.release();
        match output {
            Some(output) => output,
            None => execution.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run<E: Future>(pace: &Pace, execution: E) -> E::Output {
        pace.turn().await.during(execution).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_longer_than_a_moment_holds_nobody_up() {
        let pace = Pace::new(1, 0);
        let mut long = Box::pin(run(&pace, std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut long).is_pending());
        let mut short = Box::pin(run(&pace, async { 7 }));
        assert!(futures_util::poll!(&mut short).is_pending(), "only one begins at a time");
        tokio::time::advance(limits::BEGINNING_TIME).await;
        assert!(futures_util::poll!(&mut long).is_pending());
        assert_eq!(short.await, 7);
    }

    #[tokio::test]
    async fn one_that_is_given_up_makes_room() {
        let pace = Pace::new(1, 0);
        let mut given_up = Box::pin(run(&pace, std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        assert_eq!(run(&pace, async { 7 }).await, 7);
    }

    #[tokio::test]
    async fn a_turn_is_wanted_when_no_other_is_left() {
        let pace = Pace::new(1, 1);
        let first = pace.turn().await;
        assert!(!first.is_wanted());
        let second = pace.turn().await;
        assert!(first.is_wanted() && second.is_wanted());
        second.release();
        assert!(
            !first.is_wanted() && !second.is_wanted(),
            "one is given up already, and is there for others"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_gives_its_turn_up() {
        let pace = Pace::new(1, 0);
        let turn = pace.turn().await;
        let mut waiting = Box::pin(turn.during(std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        turn.release();
        assert_eq!(run(&pace, async { 7 }).await, 7);
    }

    #[tokio::test]
    async fn one_alone_has_a_pair_of_processors_where_there_are_two() {
        assert!(!Pace::new(1, 4).has_a_pair() && !Pace::new(3, 4).has_a_pair());
        let pace = Pace::new(2, 4);
        assert!(pace.has_a_pair());
        let turn = pace.turn().await;
        assert!(!pace.has_a_pair());
        turn.release();
        assert!(pace.has_a_pair());
    }

    #[tokio::test(start_paused = true)]
    async fn processors_are_idle_while_fewer_begin_than_there_are() {
        assert_eq!(Pace::new(1, 4).idle_processors(), 0);
        let pace = Pace::new(3, 4);
        let first = pace.turn().await;
        assert_eq!(pace.idle_processors(), 1, "one begins, one more would, and there are three");
        let second = pace.turn().await;
        let _third = pace.turn().await;
        assert_eq!(pace.idle_processors(), 0);
        first.release();
        assert_eq!(pace.idle_processors(), 0);
        second.release();
        assert_eq!(pace.idle_processors(), 1, "those that wait keep none busy");
    }
}
