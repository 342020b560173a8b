//! Which processors a process or a thread may use.
//!
//! Two that wait for each other by turns lose less where they share a processor, and two that work at the same time
//! must not. Linux likes to wake a thread where it ran last, although another runs there and the next processor is
//! idle. Where it knows better, the supervisor says so.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// Where somebody may run, of the processors that the supervisor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    Any,
    On(usize),
    NotOn(usize),
}

impl Affinity {
    /// The processor of this thread.
    pub fn here() -> Affinity {
        sched_getcpu().map_or(Affinity::Any, Affinity::On)
    }

    /// Any other one.
    pub fn elsewhere() -> Affinity {
        sched_getcpu().map_or(Affinity::Any, Affinity::NotOn)
    }

    fn processors(self) -> nix::Result<CpuSet> {
        match self {
            Affinity::Any => sched_getaffinity(Pid::this()),
            Affinity::On(processor) => {
                let mut one = CpuSet::new();
                one.set(processor)?;
                Ok(one)
            }
            Affinity::NotOn(processor) => {
                let mut others = sched_getaffinity(Pid::this())?;
                others.unset(processor)?;
                Ok(others)
            }
        }
    }
}

/// A process or a thread, and where it was told to run.
pub struct Placed {
    id: Pid,
    affinity: Affinity,
}

impl Placed {
    /// One that runs wherever the supervisor does.
    pub fn new(id: Pid) -> Placed {
        Placed { id, affinity: Affinity::Any }
    }

    /// One that cannot be moved costs speed alone.
    pub fn run(&mut self, affinity: Affinity) {
        if affinity == self.affinity {
            return;
        }
        let moved = affinity.processors().and_then(|processors| sched_setaffinity(self.id, &processors));
        match moved {
            Ok(()) => self.affinity = affinity,
            Err(error) => {
                tracing::debug!(id = %self.id, %error, ?affinity, "it does not run where it should")
            }
        }
    }
}

/// So often in a row it must be wanted before somebody is moved: to be moved back and forth costs more than it gains.
const WANTED_MIN: u32 = 16;

/// Somebody who works for this thread, and is kept off its processor while that is wanted.
pub struct Apart {
    placed: Placed,
    wanted: u32,
}

impl Apart {
    pub fn new(id: Pid) -> Apart {
        Apart { placed: Placed::new(id), wanted: 0 }
    }

    pub fn keep(&mut self, wanted: bool) {
        self.wanted = if wanted { self.wanted.saturating_add(1) } else { 0 };
        let apart = self.wanted >= WANTED_MIN;
        self.placed.run(if apart { Affinity::elsewhere() } else { Affinity::Any });
    }
}
