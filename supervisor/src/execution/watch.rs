//! What ends a program from outside: its deadline, its processor time, and its caller. A process that computes for long
//! steps back for other jailed ones until nothing of the program is left in it.

use std::time::Duration;

use tokio::time::{Instant, Interval, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::{Policy, limits};
use crate::worker::{BoundHost, Guest, Meter, SteppedBack};

/// The first cause that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Deadline,
    CpuTime,
    Cancelled,
}

/// Watches one execution, whatever else is being waited for.
pub struct Watch {
    deadline: Instant,
    cpu_time_max: Duration,
    cancel: CancellationToken,
    checks: Interval,
    guest: Computing,
    host: Computing,
}

impl Watch {
    pub fn start(
        time_max: Duration,
        policy: &Policy,
        cancel: CancellationToken,
        guest: &Guest,
        host: &BoundHost,
    ) -> Watch {
        let period = limits::COMPUTING_CHECK_PERIOD;
        let now = Instant::now();
        Watch {
            deadline: now + time_max,
            cpu_time_max: policy.cpu_time_max,
            cancel,
            checks: interval_at(now + period, period),
            guest: Computing::of(guest.process.meter(), Some(guest.cpu_before)),
            // What it has used by now is read when it is looked at for the first time: most programs end before.
            host: Computing::of(host.meter(), None),
        }
    }

    /// Goes on with another guest, whose boot does not count.
    pub fn follow(&mut self, guest: &Guest) {
        self.guest = Computing::of(guest.process.meter(), Some(guest.cpu_before));
    }

    /// What the program has used.
    pub fn cpu_used(&self) -> Duration {
        self.since_start(self.guest.meter.cpu())
    }

    /// The program's part of what its guest has used in its life.
    pub fn since_start(&self, cpu: Duration) -> Duration {
        self.guest.part(cpu)
    }

    /// The program has ended; its host may go on with calls that it did not wait for.
    pub fn into_host(self) -> Computing {
        self.host
    }

    /// Resolves when the program has to end; safe to drop while it waits.
    pub async fn expired(&mut self) -> Cause {
        loop {
            tokio::select! {
                () = sleep_until(self.deadline) => return Cause::Deadline,
                () = self.cancel.cancelled() => return Cause::Cancelled,
                _ = self.checks.tick() => {
                    self.host.look();
                    if self.guest.look() > self.cpu_time_max {
                        return Cause::CpuTime;
                    }
                }
            }
        }
    }
}

/// A process that steps back when it has computed for long, until this is dropped.
pub struct Computing {
    meter: Meter,
    /// What it had used before the program.
    before: Option<Duration>,
    stepped_back: Option<SteppedBack>,
}

impl Computing {
    fn of(meter: &Meter, before: Option<Duration>) -> Computing {
        Computing { meter: meter.clone(), before, stepped_back: None }
    }

    /// The program's part of what it has used in its life.
    fn part(&self, cpu: Duration) -> Duration {
        cpu.saturating_sub(self.before.unwrap_or(cpu))
    }

    /// What it has used for the program. Whoever waits for the program looks every `COMPUTING_CHECK_PERIOD`.
    pub fn look(&mut self) -> Duration {
        let cpu = self.meter.cpu();
        self.before.get_or_insert(cpu);
        let used = self.part(cpu);
        if used > limits::SHORT_COMPUTING_TIME && self.stepped_back.is_none() {
            self.stepped_back = self.meter.step_back();
        }
        used
    }
}
