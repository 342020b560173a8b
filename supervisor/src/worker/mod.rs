//! Jailed processes: how they start, what they are told, and how they end.
//!
//! ```text
//!  Launcher ──Launch──► Process (one task owns child, control group, user id and folder)
//!     │                    │
//!     │                    ├── Zygote ──fork──► SpareGuest ──bind──► Guest
//!     │                    ├── LoadedHost ──initialize──► BoundHost
//!     │                    └── anything that runs to its end: npm, probes
//!     └── Layers: what this machine can enforce, found out by trying
//! ```
//!
//! This module decides nothing about executions; it is the only one that starts processes.

mod cgroup;
mod child;
mod grants;
mod guest;
mod host;
mod identity;
mod launch;
mod launcher;
mod layers;
mod libraries;
mod node;
mod ownership;
mod proc;
mod process;
mod snapshot;
mod spawner;
mod tree;
mod zygote;

pub use cgroup::{GroupUsage, SteppedBack};
pub use grants::places;
pub use guest::{Guest, GuestMake, SpareGuest};
pub use host::{BoundHost, HostError, HostSpec, LoadedHost};
pub use launch::{Launch, LaunchError, Program};
pub use launcher::Launcher;
pub use layers::{LayerState, LayersError};
pub use node::{exit_of, node_arguments, node_environment};
pub use ownership::{give_tree, read_untrusted, write_fresh};
pub use process::{Exit, ExitCause, Meter, Process};
pub use snapshot::{Snapshot, SnapshotError};
pub use tree::{TemporaryFolder, TreeError, TreeLimits, check_tree, remove_tree};
pub use zygote::{Zygote, Zygotes};
