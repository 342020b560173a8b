//! What ends a program from outside: its deadline, its processor time, and its caller. A process that computes for long
//! steps back for all others until the program ends.

use std::time::Duration;

use tokio::time::{Instant, Interval, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::{Policy, limits};
use crate::worker::{BoundHost, Guest, Meter};

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
    /// What the guest had used before the program.
    cpu_before: Duration,
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
        let period = limits::CPU_TIME_CHECK_PERIOD;
        let now = Instant::now();
        Watch {
            deadline: now + time_max,
            cpu_time_max: policy.cpu_time_max,
            cancel,
            checks: interval_at(now + period, period),
            guest: Computing::of(guest.process.meter(), Some(guest.cpu_before)),
            cpu_before: guest.cpu_before,
            // What it has used by now is read when it is looked at for the first time: most programs end before.
            host: Computing::of(host.meter(), None),
        }
    }

    /// Goes on with another guest, whose boot does not count.
    pub fn follow(&mut self, guest: &Guest) {
        self.cpu_before = guest.cpu_before;
        self.guest = Computing::of(guest.process.meter(), Some(guest.cpu_before));
    }

    /// What the program has used.
    pub fn cpu_used(&self) -> Duration {
        self.since_start(self.guest.meter.cpu())
    }

    /// The program's part of what its guest has used in its life.
    pub fn since_start(&self, cpu: Duration) -> Duration {
        cpu.saturating_sub(self.cpu_before)
    }

    /// Resolves when the program has to end; safe to drop while it waits.
    pub async fn expired(&mut self) -> Cause {
        loop {
            tokio::select! {
                () = sleep_until(self.deadline) => return Cause::Deadline,
                () = self.cancel.cancelled() => return Cause::Cancelled,
                _ = self.checks.tick() => {
                    let guest_cpu = self.guest.look();
                    self.host.look();
                    if self.since_start(guest_cpu) > self.cpu_time_max {
                        return Cause::CpuTime;
                    }
                }
            }
        }
    }
}

/// A process that steps back when it has computed for long between two looks, until this is dropped.
struct Computing {
    meter: Meter,
    /// What it had used at the last look.
    cpu: Option<Duration>,
    stepped_back: bool,
}

impl Computing {
    fn of(meter: &Meter, cpu: Option<Duration>) -> Computing {
        Computing { meter: meter.clone(), cpu, stepped_back: false }
    }

    /// What it has used in its life.
    fn look(&mut self) -> Duration {
        let cpu = self.meter.cpu();
        let before = self.cpu.replace(cpu).unwrap_or(cpu);
        if cpu.saturating_sub(before) > limits::SHORT_CPU_TIME && !self.stepped_back {
            self.stepped_back = true;
            self.meter.step_back(true);
        }
        cpu
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        if self.stepped_back {
            self.meter.step_back(false);
        }
    }
}
