//! What every test needs: a supervisor of its own, an environment, a backend, and waiting for a
//! state with a bound.

mod backend;
mod installation;
mod processes;
mod supervisor;

use std::time::{Duration, Instant};

pub use backend::Backend;
pub use installation::{Installation, RawPrograms};
pub use processes::{Jailed, children, control_groups, processor_ticks, scheduling_policy};
pub use supervisor::{Answer, Supervisor, node, probe_script, program};

/// How long anything may take on a machine under load.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a state: the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `state` holds, and fails with `what` when it does not within the bound.
pub fn wait_for<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// The implementation of the environment that most tests use; it needs no packages.
pub const IMPLEMENTATION: &str = include_str!("../fixtures/environment/index.js");
