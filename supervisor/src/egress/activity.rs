//! What the connections of one process did, for the ledger of the execution that it serves.
//!
//! Pure. A process serves one execution at a time, so whoever takes the events knows whose they are.

use std::collections::BTreeMap;

use serde::Serialize;

/// Distinct connections that were not made; what goes beyond is counted together.
const NOT_MADE_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressState {
    Connected,
    /// Not tried, because it is not allowed.
    Refused,
    /// Tried in vain.
    Failed,
}

/// Connections to one address that fared alike, as the reply and the audit record show them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressEvent {
    /// `host:port`
    pub backend: String,
    pub state: EgressState,
    /// New connections; 0 when an earlier one was used again.
    pub connections: u32,
    /// From the backend, in bytes.
    pub bytes_in: u64,
    /// To the backend, in bytes.
    pub bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Default)]
pub struct Activity {
    /// One for each target, whose names do not come from the process.
    connected: BTreeMap<String, EgressEvent>,
    not_made: Vec<EgressEvent>,
    /// What goes beyond `NOT_MADE_MAX`, by state.
    others: BTreeMap<EgressState, EgressEvent>,
    last_failure: Option<String>,
}

impl Activity {
    pub fn connected(&mut self, backend: &str) {
        let event = self.target(backend);
        event.connections = event.connections.saturating_add(1);
    }

    pub fn received(&mut self, backend: &str, bytes: usize) {
        let event = self.target(backend);
        event.bytes_in = event.bytes_in.saturating_add(bytes as u64);
    }

    pub fn sent(&mut self, backend: &str, bytes: usize) {
        let event = self.target(backend);
        event.bytes_out = event.bytes_out.saturating_add(bytes as u64);
    }

    /// A connection that was not made.
    pub fn not_made(&mut self, backend: &str, state: EgressState, reason: &str) {
        self.last_failure = Some(format!("{backend}: {reason}"));
        let same = |event: &EgressEvent| {
            event.backend == backend && event.state == state && event.reason.as_deref() == Some(reason)
        };
        let event = match self.not_made.iter().position(same) {
            Some(place) => &mut self.not_made[place],
            None if self.not_made.len() < NOT_MADE_MAX => {
                self.not_made.push(EgressEvent::new(backend, state, Some(reason)));
                let last = self.not_made.len() - 1;
                &mut self.not_made[last]
            }
            None => self.others.entry(state).or_insert_with(|| {
                EgressEvent::new("others", state, Some("more addresses than are told one by one"))
            }),
        };
        event.connections = event.connections.saturating_add(1);
    }

    pub fn take_last_failure(&mut self) -> Option<String> {
        self.last_failure.take()
    }

    /// Everything since the last time.
    pub fn take(&mut self) -> Vec<EgressEvent> {
        let Activity { connected, not_made, others, last_failure: _ } = std::mem::take(self);
        connected.into_values().chain(not_made).chain(others.into_values()).collect()
    }

    fn target(&mut self, backend: &str) -> &mut EgressEvent {
        let new = || EgressEvent::new(backend, EgressState::Connected, None);
        self.connected.entry(backend.to_owned()).or_insert_with(new)
    }
}

impl EgressEvent {
    fn new(backend: &str, state: EgressState, reason: Option<&str>) -> EgressEvent {
        EgressEvent {
            backend: backend.to_owned(),
            state,
            connections: 0,
            bytes_in: 0,
            bytes_out: 0,
            reason: reason.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_fare_alike_are_one_event() {
        let mut activity = Activity::default();
        activity.connected("a:1");
        activity.sent("a:1", 5);
        activity.connected("a:1");
        activity.received("a:1", 7);
        activity.not_made("a:1", EgressState::Failed, "refused");
        let events = activity.take();
        let seen: Vec<_> = events
            .iter()
            .map(|event| (event.state, event.connections, event.bytes_in, event.bytes_out))
            .collect();
        assert_eq!(seen, [(EgressState::Connected, 2, 7, 5), (EgressState::Failed, 1, 0, 0)]);
        assert!(activity.take().is_empty());
    }

    #[test]
    fn a_flood_of_addresses_is_counted_together_and_hides_no_target() {
        let mut activity = Activity::default();
        for number in 0..1000 {
            activity.not_made(&format!("a:{number}"), EgressState::Refused, "not a backend");
        }
        activity.connected("target:1");
        activity.not_made("target:2", EgressState::Failed, "refused");
        let events = activity.take();
        assert_eq!((events[0].backend.as_str(), events[0].state), ("target:1", EgressState::Connected));
        let others: Vec<_> =
            events.iter().filter(|event| event.backend == "others").map(|event| event.state).collect();
        assert_eq!(others, [EgressState::Refused, EgressState::Failed]);
        assert_eq!(events.iter().map(|event| event.connections).sum::<u32>(), 1002);
        assert_eq!(events.len(), NOT_MADE_MAX + 3);
    }
}
