//! What ends a program from outside: its deadline, its processor time, and its caller. One that computes for long
//! steps back for all others until it ends.

use std::time::Duration;

use tokio::time::{Instant, Interval, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::{Policy, limits};
use crate::worker::{Guest, Meter};

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
    meter: Meter,
    /// What the guest had used before the program.
    cpu_before: Duration,
    stepped_back: bool,
}

impl Watch {
    pub fn start(time_max: Duration, policy: &Policy, cancel: CancellationToken, guest: &Guest) -> Watch {
        let period = limits::CPU_TIME_CHECK_PERIOD;
        let now = Instant::now();
        Watch {
            deadline: now + time_max,
            cpu_time_max: policy.cpu_time_max,
            cancel,
            checks: interval_at(now + period, period),
            cpu_before: guest.cpu_before,
            meter: guest.process.meter().clone(),
            stepped_back: false,
        }
    }

    /// Goes on with another guest, whose boot does not count.
    pub fn follow(&mut self, guest: &Guest) {
        self.come_forward();
        self.cpu_before = guest.cpu_before;
        self.meter = guest.process.meter().clone();
    }

    /// What the program has used.
    pub fn cpu_used(&self) -> Duration {
        self.since_start(self.meter.cpu())
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
                    let used = self.cpu_used();
                    if used > self.cpu_time_max {
                        return Cause::CpuTime;
                    }
                    if used > limits::SHORT_CPU_TIME && !self.stepped_back {
                        self.stepped_back = true;
                        self.meter.step_back(true);
                    }
                }
            }
        }
    }

    fn come_forward(&mut self) {
        if std::mem::take(&mut self.stepped_back) {
            self.meter.step_back(false);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.come_forward();
    }
}
