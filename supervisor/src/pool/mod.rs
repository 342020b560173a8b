//! Which process serves which execution.
//!
//! ```text
//!  spare guest ──┐                          ┌── given back (idle) ──► kept for its binding ──► retired
//!                ├──► Lease (guest + host) ─┤
//!  spare host  ──┘    initialized           └── hung, lost, grown or used up ──► killed
//! ```
//!
//! A process runs one execution at a time. What it is kept for (its binding) follows the environment's
//! isolation: under the default, nobody but the agent whom it served ever gets it again. Idle processes
//! retire after a time, and least recently used first when they hold more memory than they may. Spares
//! and whatever somebody waits for are started one after another, off the path of requests that need
//! none. Decisions are `schedule`'s; this module knows nothing of HTTP and nothing of what programs do.

mod kept;
mod key;
mod lease;
mod schedule;
mod starts;
mod state;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

pub use kept::Kept;
use key::{Binding, Version};
pub use lease::{Lease, LeaseError};
pub use schedule::{Schedule, Waiter};
use state::{KeptHost, Retired, Served, SpareHost, State, serve};

use crate::config::PolicyName;
use crate::config::limits::{self, Capacity};
use crate::environment::Environment;
use crate::ids::AgentId;
use crate::protocol::Execution;
use crate::runtime::Tasks;
use crate::worker::{BoundHost, Guest, GuestMake, Launcher, LoadedHost, Snapshot, SpareGuest, Zygotes};

#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    launcher: Launcher,
    zygotes: Zygotes,
    tasks: Tasks,
    capacity: Capacity,
    state: Mutex<State>,
}

impl Pool {
    pub fn new(launcher: Launcher, snapshot: Snapshot, tasks: Tasks, capacity: Capacity) -> Pool {
        let state = Mutex::new(State::default());
        let zygotes = Zygotes::new(launcher.clone(), snapshot);
        Pool { shared: Arc::new(Shared { launcher, zygotes, tasks, capacity, state }) }
    }

    /// A guest and a host for the agent, the host initialized.
    pub async fn lease(&self, environment: &Arc<Environment>, agent: &AgentId) -> Result<Lease, LeaseError> {
        let (guest, host) = tokio::join!(self.guest(environment, agent), self.host(environment, agent));
        // When one of them fails, the other is not lost.
        match (guest, host) {
            (Ok(guest), Ok(host)) => Ok(Lease { guest, host }),
            (Err(error), Ok(host)) => {
                self.give_back_host(environment, agent, host);
                Err(error)
            }
            (Ok(guest), Err(error)) => {
                self.give_back_guest(environment, agent, guest);
                Err(error)
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// A guest alone.
    pub async fn guest(&self, environment: &Arc<Environment>, agent: &AgentId) -> Result<Guest, LeaseError> {
        let make = GuestMake::of(&environment.policy);
        let binding = Binding::of_guest(environment, agent);
        let answer = {
            let mut state = self.state();
            let spare_guests = if state.closed { 0 } else { self.shared.capacity.spare_guests };
            let guests = &mut state.guests;
            let bound = binding.as_ref().and_then(|binding| guests.bound.take(binding, Guest::is_usable));
            if let Some(guest) = bound {
                return Ok(guest);
            }
            guests.set_target(make, spare_guests);
            match guests.spares.take(&make, SpareGuest::is_usable) {
                Some(spare) => Ok(Served::Spare(spare)),
                None => {
                    let (reply, answer) = oneshot::channel();
                    let group = environment.name().clone();
                    guests.wait(Waiter { source: make, binding, group, reply });
                    Err(answer)
                }
            }
        };
        self.start_what_is_lacking();
        let served = match answer {
            Ok(served) => served,
            Err(answer) => answer.await.map_err(|_| LeaseError::Unanswered)??,
        };
        Ok(match served {
            Served::Bound(guest) => guest,
            Served::Spare(spare) => spare.bind(),
        })
    }

    /// Tells the guest that the agent will most likely get what it will most likely run, if that guest is the agent's
    /// alone. `execution` is asked for if there is a guest to be told. Says whether one is told.
    pub fn announce(
        &self,
        environment: &Arc<Environment>,
        agent: &AgentId,
        execution: impl FnOnce() -> Option<Execution>,
    ) -> bool {
        let Some(binding) = Binding::of_guest(environment, agent).filter(Binding::is_of_one_agent) else {
            return false;
        };
        self.state().guests.bound.first(&binding).is_some_and(|guest| guest.announce(execution))
    }

    async fn host(&self, environment: &Arc<Environment>, agent: &AgentId) -> Result<BoundHost, LeaseError> {
        let backends = &environment.definition.backend_urls;
        loop {
            let loaded = match self.some_host(environment, agent).await? {
                Served::Spare(SpareHost { host, .. }) => host,
                Served::Bound(KeptHost { mut host, .. }) => {
                    if !host.proves_idle() {
                        continue;
                    }
                    match host.rebind(agent, backends).await {
                        Ok(host) => return Ok(host),
                        // What an earlier agent left of the host is not this one's failure.
                        Err(error) => {
                            tracing::info!(environment = %environment.name(), %error, "a host could not be rebound");
                            continue;
                        }
                    }
                }
            };
            return loaded.initialize(agent, backends).await.map_err(LeaseError::Initialize);
        }
    }

    async fn some_host(
        &self,
        environment: &Arc<Environment>,
        agent: &AgentId,
    ) -> Result<Served<SpareHost, KeptHost>, LeaseError> {
        let version = Version::of(environment);
        let binding = Binding::of_host(environment, agent);
        let answer = {
            let mut state = self.state();
            let spare_hosts = match state.closed || environment.is_retired() {
                true => 0,
                false => self.shared.capacity.spare_hosts,
            };
            let hosts = &mut state.hosts;
            if let Some(kept) = hosts.bound.take(&binding, |kept| kept.host.is_usable()) {
                return Ok(Served::Bound(kept));
            }
            hosts.set_target(version.clone(), spare_hosts);
            match hosts.spares.take(&version, |spare| spare.host.is_usable()) {
                Some(spare) => Ok(Served::Spare(spare)),
                None => {
                    let (reply, answer) = oneshot::channel();
                    let group = environment.name().clone();
                    hosts.wait(Waiter { source: version, binding: Some(binding), group, reply });
                    Err(answer)
                }
            }
        };
        self.start_what_is_lacking();
        match answer {
            Ok(served) => Ok(served),
            Err(answer) => answer.await.map_err(|_| LeaseError::Unanswered)?.map_err(LeaseError::Start),
        }
    }

    /// Takes back a guest that proved idle.
    pub fn give_back_guest(&self, environment: &Arc<Environment>, agent: &AgentId, guest: Guest) {
        let Some(binding) = Binding::of_guest(environment, agent) else { return };
        let bytes = guest.process.memory_bytes();
        let used_up = guest.executions >= limits::EXECUTIONS_PER_PROCESS_MAX || guest.has_grown_to(bytes);
        let retired = {
            let mut state = self.state();
            if used_up || environment.is_retired() {
                return;
            }
            let served = Served::Bound(guest);
            if let Some(Served::Bound(guest)) = serve(|| state.guests.next_of_binding(&binding), served) {
                state.guests.bound.put(binding, guest, bytes, Instant::now());
            }
            state.trim(&self.shared.capacity)
        };
        self.retire(retired);
    }

    /// Takes back a host with no open call.
    pub fn give_back_host(&self, environment: &Arc<Environment>, agent: &AgentId, host: BoundHost) {
        let binding = Binding::of_host(environment, agent);
        let bytes = host.memory_bytes();
        let used_up = host.executions >= limits::EXECUTIONS_PER_PROCESS_MAX || host.has_grown_to(bytes);
        let kept = KeptHost { host, environment: Arc::clone(environment) };
        let retired = {
            let mut state = self.state();
            if used_up || environment.is_retired() {
                Retired { hosts: vec![kept], ..Retired::default() }
            } else {
                let served = Served::Bound(kept);
                if let Some(Served::Bound(kept)) = serve(|| state.hosts.next_of_binding(&binding), served) {
                    state.hosts.bound.put(binding, kept, bytes, Instant::now());
                }
                state.trim(&self.shared.capacity)
            }
        };
        self.retire(retired);
    }

    /// Keeps a loaded host for whoever comes first.
    pub fn offer_host(&self, environment: &Arc<Environment>, host: LoadedHost) {
        let retired = {
            let mut state = self.state();
            if state.closed || environment.is_retired() {
                return;
            }
            let version = Version::of(environment);
            state.hosts.set_target(version.clone(), self.shared.capacity.spare_hosts.max(1));
            state.take_spare_host(&version, host);
            state.trim(&self.shared.capacity)
        };
        self.retire(retired);
    }

    /// Retires everything that was kept for an environment that is no more.
    pub fn forget(&self, environment: &Environment) {
        environment.retire();
        let retired = {
            let mut state = self.state();
            let guests = state.guests.bound.remove(|binding, _| binding.version.is(environment));
            state.hosts.retain_targets(|version| !version.is(environment));
            let spare_hosts = state.hosts.spares.remove(|version, _| version.is(environment));
            let hosts = state.hosts.bound.remove(|binding, _| binding.version.is(environment));
            Retired { guests, hosts, spare_hosts }
        };
        self.retire(retired);
    }

    /// Gets spares ready for environments. Called at the start, and regularly: it retires what was idle for
    /// too long, gives up spares that no environment can use, and replaces those that have ended.
    pub fn keep_house(&self, environments: &[Arc<Environment>]) {
        let mut makes: HashSet<GuestMake> =
            environments.iter().map(|environment| GuestMake::of(&environment.policy)).collect();
        makes.insert(GuestMake::of(&PolicyName::default().load()));
        let now = Instant::now();
        let retired = {
            let mut state = self.state();
            if state.closed {
                return;
            }
            state.guests.retain_targets(|make| makes.contains(make));
            self.shared.zygotes.retain(|make| makes.contains(make));
            drop(state.guests.spares.remove(|make, spare| !makes.contains(make) || !spare.is_usable()));
            drop(state.hosts.spares.remove(|_, spare| !spare.host.is_usable()));
            for make in makes {
                state.guests.set_target(make, self.shared.capacity.spare_guests);
            }
            for environment in environments.iter().filter(|environment| environment.definition.keep_warm) {
                let version = Version::of(environment);
                state.hosts.spares.renew(&version, now);
                state.hosts.set_target(version, self.shared.capacity.spare_hosts.max(1));
            }
            now.checked_sub(self.shared.capacity.idle_max)
                .map_or_else(Retired::default, |before| state.expire(before))
        };
        self.retire(retired);
        self.start_what_is_lacking();
        let pool = self.clone();
        self.shared.tasks.spawn(async move { pool.shared.zygotes.renew().await });
    }

    /// Ends everything that serves nobody; hosts may clean up. What still comes is served, and nothing is kept.
    pub fn close(&self) {
        let retired = {
            let mut state = self.state();
            state.closed = true;
            state.guests.retain_targets(|_| false);
            state.hosts.retain_targets(|_| false);
            drop(state.guests.spares.remove(|_, _| true));
            self.shared.zygotes.close();
            state.trim(&self.shared.capacity)
        };
        self.retire(retired);
    }

    fn retire(&self, retired: Retired) {
        let Retired { guests, hosts, spare_hosts } = retired;
        drop((guests, spare_hosts));
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
