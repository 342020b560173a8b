//! What all processes of a kind have in common: read from its profile and compiled once, and used for each of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::profile::{Namespace, Right, Rlimits};
use crate::{Access, Profile, Programs, SeccompError};

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

impl Blueprint {
    /// For processes with V8's compiler, or without.
    pub fn of(profile: &Profile, jit: bool) -> Result<Blueprint, SeccompError> {
        let Profile { capabilities, namespaces, rlimits, landlock, filter, .. } = profile.clone();
        let programs = Programs::ahead(&filter.for_jit(jit))?;
        Ok(Blueprint { capabilities, namespaces, rlimits, landlock, programs })
    }
}
