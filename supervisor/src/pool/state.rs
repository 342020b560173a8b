//! What the pool holds: both schedules, and what is given up of them. The caller ends it, outside of the lock.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::key::{Binding, Version};
use super::schedule::Schedule;
use crate::config::limits::Capacity;
use crate::environment::Environment;
use crate::ids::EnvironmentName;
use crate::worker::{BoundHost, Guest, GuestMake, HostError, LaunchError, LoadedHost, SpareGuest};

/// A loaded host and what it was loaded from, which must outlive it.
pub struct SpareHost {
    pub host: LoadedHost,
    _environment: Arc<Environment>,
}

/// The same, initialized.
pub struct KeptHost {
    pub host: BoundHost,
    pub environment: Arc<Environment>,
}

/// What somebody who waits is given.
pub enum Served<U, P> {
    Spare(U),
    Bound(P),
}

pub type Reply<U, P, E> = oneshot::Sender<Result<Served<U, P>, E>>;
type Guests =
    Schedule<GuestMake, Binding, EnvironmentName, SpareGuest, Guest, Reply<SpareGuest, Guest, LaunchError>>;
type Hosts =
    Schedule<Version, Binding, EnvironmentName, SpareHost, KeptHost, Reply<SpareHost, KeptHost, HostError>>;

#[derive(Default)]
pub struct State {
    pub guests: Guests,
    pub hosts: Hosts,
    /// Starts that compute, as far as is known.
    pub busy_starts: usize,
    /// Nothing is kept any more.
    pub closed: bool,
}

/// What has to end, outside of the lock.
#[must_use]
#[derive(Default)]
pub struct Retired {
    pub guests: Vec<Guest>,
    pub hosts: Vec<KeptHost>,
    pub spare_hosts: Vec<SpareHost>,
}

impl State {
    pub fn take_spare_guest(&mut self, make: GuestMake, spare: SpareGuest) {
        if let Some(Served::Spare(spare)) = serve(|| self.guests.next_of_source(&make), Served::Spare(spare))
        {
            let bytes = spare.memory_bytes();
            // One that is too many is ended.
            drop(self.guests.keep_spare(make, spare, bytes, Instant::now()));
        }
    }

    pub fn take_spare_host(&mut self, version: &Version, host: LoadedHost) {
        let spare = SpareHost { host, _environment: Arc::clone(&version.0) };
        if let Some(Served::Spare(spare)) = serve(|| self.hosts.next_of_source(version), Served::Spare(spare))
        {
            let bytes = spare.host.memory_bytes();
            drop(self.hosts.keep_spare(version.clone(), spare, bytes, Instant::now()));
        }
    }

    /// Gives up the least recently used until what is kept is within its bounds.
    pub fn trim(&mut self, capacity: &Capacity) -> Retired {
        let mut retired = Retired::default();
        loop {
            let (guests, hosts, spare_hosts) =
                (&mut self.guests.bound, &mut self.hosts.bound, &mut self.hosts.spares);
            let bytes = guests.bytes() + hosts.bytes() + spare_hosts.bytes();
            let count = guests.total() + hosts.total() + spare_hosts.total();
            let (bytes_max, count_max) =
                if self.closed { (0, 0) } else { (capacity.idle_bytes_max, capacity.idle_processes_max) };
            if bytes <= bytes_max && count <= count_max {
                return retired;
            }
            let ages = [guests.oldest(), hosts.oldest(), spare_hosts.oldest()];
            let oldest = ages.iter().flatten().min().copied();
            if guests.oldest() == oldest {
                retired.guests.extend(guests.evict().map(|(_, guest)| guest));
            } else if hosts.oldest() == oldest {
                retired.hosts.extend(hosts.evict().map(|(_, host)| host));
            } else if let Some((version, spare)) = spare_hosts.evict() {
                self.hosts.set_target(version, 0);
                retired.spare_hosts.push(spare);
            }
        }
    }

    pub fn expire(&mut self, before: Instant) -> Retired {
        let spare_hosts = self.hosts.spares.expire(before);
        for (version, _) in &spare_hosts {
            self.hosts.set_target(version.clone(), 0);
        }
        Retired {
            guests: self.guests.bound.expire(before).into_iter().map(|(_, guest)| guest).collect(),
            hosts: self.hosts.bound.expire(before).into_iter().map(|(_, host)| host).collect(),
            spare_hosts: spare_hosts.into_iter().map(|(_, spare)| spare).collect(),
        }
    }
}

/// Gives a process to the first who still waits for it; without anybody, it comes back.
pub fn serve<U, P, E>(
    mut next: impl FnMut() -> Option<Reply<U, P, E>>,
    served: Served<U, P>,
) -> Option<Served<U, P>> {
    let mut given = Ok(served);
    while let Some(reply) = next() {
        match reply.send(given) {
            Ok(()) => return None,
            // It gave up in this moment.
            Err(back) => given = back,
        }
    }
    given.ok()
}
