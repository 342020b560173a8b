//! The calls of one execution. A call is entered before it is forwarded.

use std::time::Instant;

use serde::Serialize;

use crate::clock::milliseconds;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EffectState {
    /// Forwarded, and not answered when the execution ended: it may have happened.
    Pending,
    Returned,
    Threw,
    /// Not forwarded.
    Refused,
}

/// One call, as the reply and the audit record show it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    pub seq: u32,
    pub name: String,
    pub state: EffectState,
    pub duration_ms: f64,
}

struct Entry {
    /// The guest's own number for the call.
    call_id: u32,
    started: Instant,
    effect: Effect,
}

#[derive(Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    refused: u32,
}

impl Ledger {
    /// Calls that were forwarded.
    pub fn forwarded(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX) - self.refused
    }

    /// Whether as many calls were refused already as may be.
    pub fn has_refused(&self, refusals_max: u32) -> bool {
        self.refused >= refusals_max.max(1)
    }

    pub fn knows(&self, call_id: u32) -> bool {
        self.entries.iter().any(|entry| entry.call_id == call_id)
    }

    pub fn begin(&mut self, call_id: u32, name: String, now: Instant) {
        self.enter(call_id, name, EffectState::Pending, now);
    }

    pub fn refuse(&mut self, call_id: u32, name: String, now: Instant) {
        self.refused += 1;
        self.enter(call_id, name, EffectState::Refused, now);
    }

    /// Notes an answer; false when no such call is open.
    pub fn end(&mut self, call_id: u32, state: EffectState, now: Instant) -> bool {
        let open = self
            .entries
            .iter_mut()
            .find(|entry| entry.call_id == call_id && entry.effect.state == EffectState::Pending);
        let Some(entry) = open else { return false };
        entry.effect.state = state;
        entry.effect.duration_ms = milliseconds(now.duration_since(entry.started));
        true
    }

    /// The calls that are still open.
    pub fn open_calls(&self) -> Vec<u32> {
        self.pending().map(|entry| entry.call_id).collect()
    }

    /// How many calls are still open.
    pub fn open(&self) -> u32 {
        u32::try_from(self.pending().count()).unwrap_or(u32::MAX)
    }

    fn pending(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.effect.state == EffectState::Pending)
    }

    pub fn into_effects(self) -> Vec<Effect> {
        self.entries.into_iter().map(|entry| entry.effect).collect()
    }

    fn enter(&mut self, call_id: u32, name: String, state: EffectState, now: Instant) {
        let seq = u32::try_from(self.entries.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.entries.push(Entry {
            call_id,
            started: now,
            effect: Effect { seq, name, state, duration_ms: 0.0 },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_open_until_it_is_answered_once() {
        let now = Instant::now();
        let mut ledger = Ledger::default();
        ledger.begin(7, "A".to_owned(), now);
        ledger.refuse(8, "B".to_owned(), now);
        assert_eq!((ledger.open_calls(), ledger.forwarded()), (vec![7], 1));
        assert!(ledger.knows(8) && !ledger.knows(9));
        assert!(!ledger.end(8, EffectState::Returned, now));
        assert!(ledger.end(7, EffectState::Returned, now));
        assert!(!ledger.end(7, EffectState::Threw, now));
        let states: Vec<_> =
            ledger.into_effects().into_iter().map(|effect| (effect.seq, effect.state)).collect();
        assert_eq!(states, [(1, EffectState::Returned), (2, EffectState::Refused)]);
    }
}
