//! What the connections of one process did, for the ledger of the execution that it serves.
//!
//! Pure. A process serves one execution at a time, so whoever takes the events knows whose they are.

use serde::Serialize;

/// Distinct events of one execution; what goes beyond is counted together.
const EVENTS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
    events: Vec<EgressEvent>,
    last_failure: Option<String>,
}

impl Activity {
    pub fn connected(&mut self, backend: &str) {
        let event = self.event(backend, EgressState::Connected, None);
        event.connections = event.connections.saturating_add(1);
    }

    pub fn received(&mut self, backend: &str, bytes: usize) {
        let event = self.event(backend, EgressState::Connected, None);
        event.bytes_in = event.bytes_in.saturating_add(bytes as u64);
    }

    pub fn sent(&mut self, backend: &str, bytes: usize) {
        let event = self.event(backend, EgressState::Connected, None);
        event.bytes_out = event.bytes_out.saturating_add(bytes as u64);
    }

    /// A connection that was not made.
    pub fn not_made(&mut self, backend: &str, state: EgressState, reason: &str) {
        self.last_failure = Some(format!("{backend}: {reason}"));
        let event = self.event(backend, state, Some(reason));
        event.connections = event.connections.saturating_add(1);
    }

    pub fn take_last_failure(&mut self) -> Option<String> {
        self.last_failure.take()
    }

    /// Everything since the last time.
    pub fn take(&mut self) -> Vec<EgressEvent> {
        self.last_failure = None;
        std::mem::take(&mut self.events)
    }

    fn event(&mut self, backend: &str, state: EgressState, reason: Option<&str>) -> &mut EgressEvent {
        let same = |event: &EgressEvent| {
            event.backend == backend && event.state == state && event.reason.as_deref() == reason
        };
        let place = match self.events.iter().position(same) {
            Some(place) => place,
            None if self.events.len() < EVENTS_MAX => {
                self.events.push(EgressEvent {
                    backend: backend.to_owned(),
                    state,
                    connections: 0,
                    bytes_in: 0,
                    bytes_out: 0,
                    reason: reason.map(str::to_owned),
                });
                self.events.len() - 1
            }
            None => {
                let last = &mut self.events[EVENTS_MAX - 1];
                "others".clone_into(&mut last.backend);
                EVENTS_MAX - 1
            }
        };
        &mut self.events[place]
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
    fn a_flood_of_addresses_is_counted_together() {
        let mut activity = Activity::default();
        for number in 0..1000 {
            activity.not_made(&format!("a:{number}"), EgressState::Refused, "not a backend");
        }
        let events = activity.take();
        assert_eq!((events.len(), events[EVENTS_MAX - 1].backend.as_str()), (EVENTS_MAX, "others"));
        assert_eq!(events.iter().map(|event| event.connections).sum::<u32>(), 1000);
    }
}
