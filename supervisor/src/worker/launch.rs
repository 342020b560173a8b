//! A jailed process that is to be started, and why it may not be.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use jail::{Grant, Kind};

use super::cgroup::CgroupError;
use super::tree::TemporaryFolder;
use crate::config::limits;

/// What a jailed process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Node,
    Analyzer,
}

/// A process to be started.
pub struct Launch {
    pub kind: Kind,
    pub program: Program,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// Beside the program and its libraries.
    pub grants: Vec<Grant>,
    /// The working directory, inside.
    pub directory: PathBuf,
    /// Memory beyond what the profile gives every process of the kind.
    pub program_memory_bytes: u64,
    /// Whether V8 may compile to machine code.
    pub jit: bool,
    pub stdout_bytes_max: usize,
    /// A folder of the host that is removed after the process.
    pub folder: Option<TemporaryFolder>,
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot start a jailed process: {0}")]
    Spawn(#[source] io::Error),
    #[error("cannot make the process's control group: {0}")]
    Cgroup(#[from] CgroupError),
    #[error("all user ids for jailed processes are in use")]
    NoIdentity,
    #[error("cannot prepare {path}: {source}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("the {kind} did not get ready: it {reason}")]
    NotReady { kind: Kind, reason: String },
    #[error("the {kind} was not ready within {} s", limits::BOOT_TIME_MAX.as_secs())]
    Slow { kind: Kind },
}
