//! What all processes of a kind have in common: read from its profile and compiled once, and used for each of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::profile::{Namespace, Right, Rlimits};
use crate::{Access, Kind, Profile, ProfileError, Programs, SeccompError};

/// The part of a jail that no process has of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blueprint {
    pub(crate) capabilities: Vec<String>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) rlimits: Rlimits,
    pub(crate) landlock: BTreeMap<Access, Vec<Right>>,
    pub(crate) programs: Programs,
}

#[derive(Debug, thiserror::Error)]
pub enum BlueprintError {
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("the system call filter of a {kind}: {source}")]
    Filter { kind: Kind, source: SeccompError },
}

impl Blueprint {
    /// For processes with V8's compiler, or without.
    pub fn prepare(kind: Kind, jit: bool) -> Result<Blueprint, BlueprintError> {
        let Profile { capabilities, namespaces, rlimits, landlock, filter, .. } = Profile::load(kind)?;
        let programs = Programs::ahead(&filter.for_jit(jit))
            .map_err(|source| BlueprintError::Filter { kind, source })?;
        Ok(Blueprint { capabilities, namespaces, rlimits, landlock, programs })
    }
}
