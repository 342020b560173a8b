//! How processes are shared between agents: the two dials of an environment, and the weakest
//! position that the operator allows.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Isolation {
    pub guest: GuestIsolation,
    pub host: HostIsolation,
}

/// From the strongest to the weakest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestIsolation {
    /// A process of its own for every execution.
    Execution,
    /// A guest serves one agent of one environment until it retires.
    #[default]
    Agent,
    /// Agents share guests, one after another: SES alone lies between them.
    Environment,
}

/// From the strongest to the weakest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostIsolation {
    /// A host is initialized for one agent and retires.
    #[default]
    Agent,
    /// A host serves agents one after another; the contributor vouches that `Deinitialize` leaves
    /// nothing behind.
    Environment,
}

impl Isolation {
    /// What of it is weaker than `least`: the dial, and the weakest position that is allowed.
    pub fn weaker_than(&self, least: &Isolation) -> Option<(&'static str, String)> {
        let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        if self.guest > least.guest {
            return Some(("guest", word(serde_json::json!(least.guest))));
        }
        (self.host > least.host).then(|| ("host", word(serde_json::json!(least.host))))
    }

    /// The stronger of both, dial by dial.
    pub fn at_least(&self, least: &Isolation) -> Isolation {
        Isolation { guest: self.guest.min(least.guest), host: self.host.min(least.host) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_may_be_turned_to_the_strong_side_only() {
        let least = Isolation::default();
        let shared = Isolation { guest: GuestIsolation::Environment, host: HostIsolation::Environment };
        let fresh = Isolation { guest: GuestIsolation::Execution, host: HostIsolation::Agent };
        assert_eq!(shared.weaker_than(&least), Some(("guest", "agent".to_owned())));
        assert_eq!(fresh.weaker_than(&least), None);
        assert_eq!(shared.at_least(&least), least);
        assert_eq!(fresh.at_least(&least), fresh);
    }
}
