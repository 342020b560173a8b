//! What processes are told apart by.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::config::{GuestIsolation, HostIsolation};
use crate::environment::Environment;
use crate::ids::AgentId;

/// One version of one environment; as long as it is named, what it was built of is there.
#[derive(Clone)]
pub struct Version(pub Arc<Environment>);

impl Version {
    pub fn of(environment: &Arc<Environment>) -> Version {
        Version(Arc::clone(environment))
    }

    pub fn is(&self, environment: &Environment) -> bool {
        self.parts() == (environment.name(), &environment.etag)
    }

    fn parts(&self) -> (&crate::ids::EnvironmentName, &String) {
        (self.0.name(), &self.0.etag)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.parts() == other.parts()
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// Whom a used process is kept for; without an agent, for any of the environment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Binding {
    pub version: Version,
    agent: Option<AgentId>,
}

impl Binding {
    /// `None` where a guest is never used again.
    pub fn of_guest(environment: &Arc<Environment>, agent: &AgentId) -> Option<Binding> {
        let agent = match environment.isolation.guest {
            GuestIsolation::Execution => return None,
            GuestIsolation::Agent => Some(agent.clone()),
            GuestIsolation::Environment => None,
        };
        Some(Binding { version: Version::of(environment), agent })
    }

    /// Whether nobody but one agent is served.
    pub fn is_of_one_agent(&self) -> bool {
        self.agent.is_some()
    }

    pub fn of_host(environment: &Arc<Environment>, agent: &AgentId) -> Binding {
        let agent = match environment.isolation.host {
            HostIsolation::Agent => Some(agent.clone()),
            HostIsolation::Environment => None,
        };
        Binding { version: Version::of(environment), agent }
    }
}
