//! Which process serves which execution.
//!
//! ```text
//!  spare guest ──┐                          ┌── given back (idle) ──► kept for its key ──► retired
//!                ├──► Lease (guest + host) ─┤
//!  spare host  ──┘    initialized           └── hung, lost or used up ──► killed
//! ```
//!
//! A process runs one execution at a time. What it is kept for (its key) follows the environment's
//! isolation: under the default, nobody but the agent whom it served ever gets it again. Idle
//! processes retire least recently used first, and after a time. This module knows nothing of HTTP
//! and nothing of what programs do.

mod idle;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use idle::Idle;

use crate::config::limits::{self, Capacity};
use crate::config::{GuestIsolation, HostIsolation, Policy};
use crate::environment::{Environment, start_host};
use crate::ids::{AgentId, EnvironmentName};
use crate::runtime::Tasks;
use crate::worker::{BoundHost, Guest, HostError, LaunchError, Launcher, LoadedHost, Snapshot};

/// One version of one environment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Version {
    name: EnvironmentName,
    etag: String,
}

impl Version {
    fn of(environment: &Environment) -> Version {
        Version { name: environment.name().clone(), etag: environment.etag.clone() }
    }
}

/// Whom an idle process is kept for; without an agent, for any of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Binding {
    version: Version,
    agent: Option<AgentId>,
}

/// A host and what it was loaded from, which must outlive it.
struct KeptHost {
    host: BoundHost,
    environment: Arc<Environment>,
}

struct SpareHost {
    host: LoadedHost,
    _environment: Arc<Environment>,
}

/// What a guest is given at its start, and cannot be changed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Make {
    memory_bytes_max: u64,
    jit: bool,
}

impl Make {
    fn of(policy: &Policy) -> Make {
        Make { memory_bytes_max: policy.memory_bytes_max, jit: policy.jit }
    }
}

/// Guests of one make that nobody has used.
struct Spares {
    policy: Policy,
    ready: Vec<Guest>,
    starting: usize,
}

struct State {
    spare_guests: HashMap<Make, Spares>,
    guests: Idle<Binding, Guest>,
    spare_hosts: Idle<Version, SpareHost>,
    /// Versions for which a spare host is starting.
    starting_hosts: HashSet<Version>,
    hosts: Idle<Binding, KeptHost>,
    closed: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// `Initialize` did not succeed: the environment's doing.
    #[error("{0}")]
    Initialize(HostError),
    /// A process could not be started: the machine's doing.
    #[error("{0}")]
    Start(HostError),
    #[error("{0}")]
    Guest(#[from] LaunchError),
}

#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    launcher: Launcher,
    snapshot: Snapshot,
    tasks: Tasks,
    capacity: Capacity,
    state: Mutex<State>,
}

/// A guest and a host that serve one execution.
pub struct Lease {
    pub guest: Guest,
    pub host: BoundHost,
}

impl Pool {
    pub fn new(launcher: Launcher, snapshot: Snapshot, tasks: Tasks, capacity: Capacity) -> Pool {
        let state = State {
            spare_guests: HashMap::new(),
            guests: Idle::new(capacity.idle_processes_max),
            spare_hosts: Idle::new(capacity.idle_processes_max),
            starting_hosts: HashSet::new(),
            hosts: Idle::new(capacity.idle_processes_max),
            closed: false,
        };
        Pool { shared: Arc::new(Shared { launcher, snapshot, tasks, capacity, state: Mutex::new(state) }) }
    }

    /// A guest and a host for the agent, the host initialized.
    pub async fn lease(&self, environment: &Arc<Environment>, agent: &AgentId) -> Result<Lease, LeaseError> {
        let (guest, host) = tokio::join!(self.guest(environment, agent), self.host(environment, agent));
        // When one of them fails, the other is not lost.
        match (guest, host) {
            (Ok(guest), Ok(host)) => Ok(Lease { guest, host }),
            (Err(error), Ok(host)) => {
                self.give_back_host(environment, agent, host);
                Err(error.into())
            }
            (Ok(guest), Err(error)) => {
                self.give_back_guest(environment, agent, guest);
                Err(error)
            }
            (Err(error), Err(_)) => Err(error.into()),
        }
    }

    /// Takes back a guest that proved idle.
    pub fn give_back_guest(&self, environment: &Arc<Environment>, agent: &AgentId, guest: Guest) {
        let isolation = environment.isolation.guest;
        if isolation == GuestIsolation::Execution || guest.executions >= limits::EXECUTIONS_PER_PROCESS_MAX {
            return;
        }
        let agent = (isolation == GuestIsolation::Agent).then(|| agent.clone());
        let mut state = self.state();
        if !state.closed && !environment.is_retired() {
            let binding = Binding { version: Version::of(environment), agent };
            drop(state.guests.put(binding, guest, Instant::now()));
        }
    }

    /// Takes back a host with no open call.
    pub fn give_back_host(&self, environment: &Arc<Environment>, agent: &AgentId, host: BoundHost) {
        let agent = (environment.isolation.host == HostIsolation::Agent).then(|| agent.clone());
        let binding = Binding { version: Version::of(environment), agent };
        let kept = KeptHost { host, environment: Arc::clone(environment) };
        let used_up = kept.host.executions >= limits::EXECUTIONS_PER_PROCESS_MAX;
        let retired = {
            let mut state = self.state();
            if state.closed || used_up || environment.is_retired() {
                vec![kept]
            } else {
                state.hosts.put(binding, kept, Instant::now())
            }
        };
        self.retire(retired);
    }

    /// Keeps a loaded host for the next agent.
    pub fn offer_host(&self, environment: &Arc<Environment>, host: LoadedHost) {
        let mut state = self.state();
        if !state.closed && !environment.is_retired() {
            let spare = SpareHost { host, _environment: Arc::clone(environment) };
            drop(state.spare_hosts.put(Version::of(environment), spare, Instant::now()));
        }
    }

    /// Retires everything that was kept for an environment that is no more.
    pub fn forget(&self, environment: &Environment) {
        environment.retire();
        let version = Version::of(environment);
        let retired = {
            let mut state = self.state();
            drop(state.guests.remove(|binding| binding.version == version));
            drop(state.spare_hosts.remove(|spare| *spare == version));
            state.hosts.remove(|binding| binding.version == version)
        };
        self.retire(retired);
    }

    /// Retires what was idle for too long, and replaces spares that have ended. Called regularly.
    /// `policies` are those of the environments that there are: spares of others are given up.
    pub fn sweep(&self, policies: impl Iterator<Item = Policy>) {
        let wanted: HashSet<Make> = policies.map(|policy| Make::of(&policy)).collect();
        let lacking: Vec<Policy> = {
            let mut state = self.state();
            state.spare_guests.retain(|make, spares| spares.starting > 0 || wanted.contains(make));
            for spares in state.spare_guests.values_mut() {
                spares.ready.retain(Guest::is_usable);
            }
            state.spare_guests.values().map(|spares| spares.policy.clone()).collect()
        };
        for policy in lacking {
            self.refill_guests(&policy);
        }
        let Some(before) = Instant::now().checked_sub(self.shared.capacity.idle_max) else { return };
        let retired = {
            let mut state = self.state();
            drop(state.guests.expire(before));
            drop(state.spare_hosts.expire(before));
            state.hosts.expire(before)
        };
        self.retire(retired);
    }

    /// Ends everything; hosts may clean up. A shutdown waits for that.
    pub fn close(&self) {
        let retired = {
            let mut state = self.state();
            state.closed = true;
            state.spare_guests.clear();
            drop(state.guests.remove(|_| true));
            drop(state.spare_hosts.remove(|_| true));
            state.hosts.remove(|_| true)
        };
        self.retire(retired);
    }

    /// Starts guests of a policy until there are as many spares as there should be.
    pub fn refill_guests(&self, policy: &Policy) {
        let mut state = self.state();
        let closed = state.closed;
        let new = || Spares { policy: policy.clone(), ready: Vec::new(), starting: 0 };
        let spares = state.spare_guests.entry(Make::of(policy)).or_insert_with(new);
        let wanted = self.shared.capacity.spare_guests.saturating_sub(spares.ready.len() + spares.starting);
        spares.starting += if closed { 0 } else { wanted };
        drop(state);
        for _ in 0..if closed { 0 } else { wanted } {
            let pool = self.clone();
            let policy = policy.clone();
            self.shared.tasks.spawn(async move { pool.start_spare(&policy).await });
        }
    }

    async fn start_spare(&self, policy: &Policy) {
        let started = Guest::start(&self.shared.launcher, &self.shared.snapshot, policy).await;
        let mut state = self.state();
        let closed = state.closed;
        let Some(spares) = state.spare_guests.get_mut(&Make::of(policy)) else { return };
        spares.starting = spares.starting.saturating_sub(1);
        match started {
            Ok(guest) if !closed => spares.ready.push(guest),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "a spare guest could not be started"),
        }
    }

    /// A guest alone.
    pub async fn guest(&self, environment: &Arc<Environment>, agent: &AgentId) -> Result<Guest, LaunchError> {
        let isolation = environment.isolation.guest;
        let agent = (isolation == GuestIsolation::Agent).then(|| agent.clone());
        let binding = Binding { version: Version::of(environment), agent };
        let policy = &environment.policy;
        let found = {
            let mut state = self.state();
            let kept = if isolation == GuestIsolation::Execution {
                None
            } else {
                state.guests.take(&binding, Guest::is_usable)
            };
            kept.or_else(|| {
                let spares = &mut state.spare_guests.get_mut(&Make::of(policy))?.ready;
                spares.retain(Guest::is_usable);
                (!spares.is_empty()).then(|| spares.remove(0))
            })
        };
        self.refill_guests(policy);
        match found {
            Some(guest) => Ok(guest),
            None => Guest::start(&self.shared.launcher, &self.shared.snapshot, policy).await,
        }
    }

    async fn host(&self, environment: &Arc<Environment>, agent: &AgentId) -> Result<BoundHost, LeaseError> {
        let shared_host = environment.isolation.host == HostIsolation::Environment;
        let version = Version::of(environment);
        let binding = Binding { version: version.clone(), agent: (!shared_host).then(|| agent.clone()) };
        let backends = &environment.definition.backend_urls;
        let kept = self.state().hosts.take(&binding, |kept| kept.host.is_usable());
        if let Some(KeptHost { mut host, .. }) = kept
            && host.proves_idle()
        {
            match host.rebind(agent, backends).await {
                Ok(host) => return Ok(host),
                // What an earlier agent left of the host is not this one's failure.
                Err(error) => {
                    tracing::info!(environment = %environment.name(), %error, "a host could not be rebound")
                }
            }
        }
        let spare = self.state().spare_hosts.take(&version, |spare| spare.host.is_usable());
        let loaded = match spare {
            Some(SpareHost { host, .. }) => host,
            None => start_host(&self.shared.launcher, environment).await.map_err(LeaseError::Start)?,
        };
        self.replace_spare_host(environment);
        loaded.initialize(agent, backends).await.map_err(LeaseError::Initialize)
    }

    fn replace_spare_host(&self, environment: &Arc<Environment>) {
        let version = Version::of(environment);
        let mut state = self.state();
        if state.closed || state.spare_hosts.holds(&version) || !state.starting_hosts.insert(version.clone())
        {
            return;
        }
        drop(state);
        let pool = self.clone();
        let environment = Arc::clone(environment);
        self.shared.tasks.spawn(async move {
            let started = start_host(&pool.shared.launcher, &environment).await;
            pool.state().starting_hosts.remove(&version);
            match started {
                Ok(host) => pool.offer_host(&environment, host),
                Err(error) => {
                    tracing::error!(environment = %environment.name(), %error, "a spare host could not be started");
                }
            }
        });
    }

    fn retire(&self, hosts: Vec<KeptHost>) {
        for KeptHost { host, environment } in hosts {
            self.shared.tasks.spawn(async move {
                host.deinitialize().await;
                drop(environment);
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
