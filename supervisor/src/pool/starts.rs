//! Starts processes: for whoever waits, and as spares.

use tokio::sync::oneshot;

use super::Pool;
use super::key::Version;
use crate::config::limits;
use crate::environment::start_host;
use crate::worker::{GuestMake, SpareGuest};

impl Pool {
    /// Starts what waiters and then spares lack, as many at once as may be.
    pub(super) fn start_what_is_lacking(&self) {
        let mut state = self.state();
        state.guests.forget(oneshot::Sender::is_closed);
        state.hosts.forget(oneshot::Sender::is_closed);
        for for_waiters in [true, false] {
            // Guests and hosts in turn: whoever is new needs one of each.
            let mut more = true;
            while more && state.busy_starts < self.shared.capacity.starts_max {
                more = false;
                if let Some(make) = state.guests.next_start(for_waiters) {
                    more = true;
                    state.busy_starts += 1;
                    let pool = self.clone();
                    self.shared.tasks.spawn(async move { pool.start_guest(make).await });
                }
                if state.busy_starts < self.shared.capacity.starts_max
                    && let Some(version) = state.hosts.next_start(for_waiters)
                {
                    more = true;
                    state.busy_starts += 1;
                    let pool = self.clone();
                    self.shared.tasks.spawn(async move { pool.start_host(version).await });
                }
            }
        }
    }

    async fn start_guest(&self, make: GuestMake) {
        let start = SpareGuest::start(&self.shared.zygotes, make);
        let started = self.while_busy(start).await;
        {
            let mut state = self.state();
            state.guests.start_ended(&make);
            match started {
                Ok(spare) => state.take_spare_guest(make, spare),
                Err(error) => {
                    // Spares are tried again by the next housekeeping, and not at once for ever.
                    state.guests.set_target(make, 0);
                    match state.guests.next_of_source(&make) {
                        // Nobody may be waiting any more.
                        Some(reply) => drop(reply.send(Err(error))),
                        None => tracing::error!(%error, "a spare guest could not be started"),
                    }
                }
            }
        }
        self.start_what_is_lacking();
    }

    async fn start_host(&self, version: Version) {
        let started = self.while_busy(start_host(&self.shared.launcher, &version.0)).await;
        let retired = {
            let mut state = self.state();
            state.hosts.start_ended(&version);
            match started {
                Ok(host) => state.take_spare_host(&version, host),
                Err(error) => {
                    // One that cannot be started is not tried again until somebody needs it.
                    state.hosts.set_target(version.clone(), 0);
                    match state.hosts.next_of_source(&version) {
                        Some(reply) => drop(reply.send(Err(error))),
                        None => {
                            let environment = version.0.name();
                            tracing::error!(%environment, %error, "a spare host could not be started");
                        }
                    }
                }
            }
            state.trim(&self.shared.capacity)
        };
        self.retire(retired);
        self.start_what_is_lacking();
    }

    /// Waits for a start. One that takes long, such as a host whose packages wait for something while they
    /// load, lets others start meanwhile.
    async fn while_busy<T>(&self, start: impl Future<Output = T>) -> T {
        tokio::pin!(start);
        let early = tokio::select! {
            biased;
            started = &mut start => Some(started),
            () = tokio::time::sleep(limits::START_TIME) => None,
        };
        self.state().busy_starts -= 1;
        match early {
            Some(started) => started,
            None => {
                self.start_what_is_lacking();
                start.await
            }
        }
    }
}
