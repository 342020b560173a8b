//! User ids for jailed processes: each has one that no other process has.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use jail::Identity;

/// A range that distributions leave free (systemd's DynamicUser= starts inside it, at 61184; run
/// Cloister's own unit without that).
const FIRST: u32 = 61_000;
const COUNT: u32 = 4_000;

/// The ids in use. Allocation goes round, from a random start, so that an id is not soon used again.
#[derive(Clone)]
pub struct Identities {
    state: Arc<Mutex<State>>,
}

struct State {
    next: u32,
    used: HashSet<u32>,
}

/// A user id that is free again when this is dropped.
pub struct Leased {
    pub identity: Identity,
    state: Arc<Mutex<State>>,
}

impl Identities {
    pub fn new() -> Result<Identities, getrandom::Error> {
        let start = getrandom::u32()? % COUNT;
        Ok(Identities { state: Arc::new(Mutex::new(State { next: start, used: HashSet::new() })) })
    }

    /// `None` when all ids are in use.
    pub fn lease(&self) -> Option<Leased> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..COUNT)
            .map(|step| FIRST + (state.next + step) % COUNT)
            .find(|uid| !state.used.contains(uid))?;
        state.next = (free - FIRST + 1) % COUNT;
        state.used.insert(free);
        Some(Leased { identity: Identity { uid: free }, state: Arc::clone(&self.state) })
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).used.remove(&self.identity.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_leased_twice_and_comes_back() {
        let identities = Identities::new().unwrap();
        let all: Vec<Leased> = (0..COUNT).map(|_| identities.lease().unwrap()).collect();
        let distinct: HashSet<u32> = all.iter().map(|leased| leased.identity.uid).collect();
        assert_eq!(distinct.len(), COUNT as usize);
        assert!(identities.lease().is_none());
        drop(all);
        assert!(identities.lease().is_some());
    }
}
