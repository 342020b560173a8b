//! How many executions run at once, how many wait for their turn, and whose turn is next.

mod pace;
mod turns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub use pace::{Pace, Turn};
pub use turns::Priority;
use turns::Turns;

use crate::config::limits;
use crate::ids::AgentId;

/// A place among the executions that run or wait.
pub struct Place {
    id: u64,
    shared: Arc<Mutex<State>>,
}

/// The right to run one execution.
pub struct Permit {
    _place: Place,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("all executions are taken, and as many wait as may: try again in {retry_after_seconds} s")]
pub struct Overloaded {
    pub retry_after_seconds: u64,
}

const OVERLOADED: Overloaded = Overloaded { retry_after_seconds: 1 };

struct State {
    turns: Turns<AgentId>,
    /// Where those who wait are told that it is their turn.
    waiting: HashMap<u64, oneshot::Sender<()>>,
}

#[derive(Clone)]
pub struct Admission {
    shared: Arc<Mutex<State>>,
}

impl Admission {
    pub fn new(running_max: usize, waiting_max: usize) -> Admission {
        let state = State { turns: Turns::new(running_max, waiting_max), waiting: HashMap::new() };
        Admission { shared: Arc::new(Mutex::new(state)) }
    }

    /// Takes a place, before any work is done for the request; refuses at once when none is free.
    pub fn enter(&self, agent: &AgentId, priority: Priority) -> Result<Place, Overloaded> {
        let mut state = locked(&self.shared);
        let entered = state.turns.enter(agent.clone(), priority).ok_or(OVERLOADED)?;
        if let Some(evicted) = entered.evicted {
            // Whoever waits there learns it from the end of its channel.
            state.waiting.remove(&evicted);
        }
        Ok(Place { id: entered.id, shared: Arc::clone(&self.shared) })
    }

    /// Waits for a turn.
    pub async fn admit(&self, place: Place) -> Result<Permit, Overloaded> {
        let (sender, turn) = oneshot::channel();
        {
            let mut state = locked(&self.shared);
            state.waiting.insert(place.id, sender);
            state.turns.wait(place.id);
            state.give_turns();
        }
        match tokio::time::timeout(limits::QUEUE_TIME_MAX, turn).await {
            Ok(Ok(())) => Ok(Permit { _place: place }),
            _ => Err(OVERLOADED),
        }
    }
}

impl State {
    fn give_turns(&mut self) {
        while let Some(id) = self.turns.next() {
            let told = self.waiting.remove(&id).is_some_and(|waiter| waiter.send(()).is_ok());
            if !told {
                // It gave up in this moment, and its turn goes on.
                self.turns.leave(id);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = locked(&self.shared);
        state.turns.leave(self.id);
        state.waiting.remove(&self.id);
        state.give_turns();
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentId {
        AgentId::try_from(name.to_owned()).unwrap()
    }

    fn enter(admission: &Admission, priority: Priority) -> Result<Place, Overloaded> {
        admission.enter(&agent("a"), priority)
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_freed_place_is_given_on() {
        let admission = Admission::new(1, 1);
        let first = admission.admit(enter(&admission, Priority::Normal).unwrap()).await.unwrap();
        let mut second = Box::pin(admission.admit(enter(&admission, Priority::Normal).unwrap()));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(enter(&admission, Priority::Normal).is_err());
        drop(first);
        assert!(second.await.is_ok());
        assert!(enter(&admission, Priority::Normal).is_ok());
    }

    #[tokio::test]
    async fn who_is_evicted_learns_it_at_once_and_who_gave_up_gets_no_turn() {
        let admission = Admission::new(1, 1);
        let running = admission.admit(enter(&admission, Priority::Normal).unwrap()).await.unwrap();
        let mut low = Box::pin(admission.admit(enter(&admission, Priority::Low).unwrap()));
        assert!(futures_util::poll!(&mut low).is_pending());
        let high = admission.enter(&agent("b"), Priority::High).unwrap();
        assert!(matches!(futures_util::poll!(&mut low), std::task::Poll::Ready(Err(_))));
        let mut high = Box::pin(admission.admit(high));
        assert!(futures_util::poll!(&mut high).is_pending());
        drop(high);
        drop(running);
        assert!(admission.admit(enter(&admission, Priority::Low).unwrap()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let admission = Admission::new(1, 1);
        let _held = admission.admit(enter(&admission, Priority::Normal).unwrap()).await.unwrap();
        assert!(admission.admit(enter(&admission, Priority::Normal).unwrap()).await.is_err());
        assert!(enter(&admission, Priority::Normal).is_ok());
    }
}
