//! Cloister's supervisor: runs AI-written JavaScript in jailed Node processes.
//!
//! ARCHITECTURE.md says which module may use which; `dependencies_point_one_way` keeps it.
#![forbid(unsafe_code)]

mod admission;
mod analysis;
mod audit;
mod awake;
mod cli;
mod clock;
mod config;
mod daemon;
mod doctor;
mod egress;
mod environment;
mod execution;
mod fields;
mod http;
mod ids;
mod pool;
mod processors;
mod protocol;
mod runtime;
mod store;
mod worker;

pub use cli::run;

/// Parts that the benches measure by themselves; nothing else uses them from outside.
#[doc(hidden)]
pub mod parts {
    pub use crate::execution::{EffectState, Ledger};
    pub use crate::pool::{Kept, Schedule, Waiter};
    pub use crate::protocol::frame::Connection;
    pub use crate::protocol::{FromGuest, ToGuest};
}
