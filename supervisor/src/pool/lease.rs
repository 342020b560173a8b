//! What an execution gets of the pool, or why it does not.

use crate::worker::{BoundHost, Guest, HostError, LaunchError};

/// A guest and a host that serve one execution.
pub struct Lease {
    pub guest: Guest,
    pub host: BoundHost,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// `Initialize` did not succeed: the environment's doing.
    #[error("{0}")]
    Initialize(HostError),
    /// A process could not be started: the machine's doing.
    #[error("{0}")]
    Start(HostError),
    #[error("{0}")]
    Guest(#[from] LaunchError),
    #[error("nobody answered")]
    Unanswered,
}
