//! Environments: what contributors provision.
//!
//! ```text
//!  Definition ──check──► analysis ──► resolve ──► install ──► load ──► stored and ready
//!  (wire)                             └─── builds/<digest>, made beside and renamed ───┘
//! ```
//!
//! An environment is a row that points at a build. It is replaced as a whole, so a request sees
//! either the old or the new one. This module runs no programs of agents.

mod build;
mod definition;
mod lockfile;
mod npm;
mod provision;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

pub use build::{Build, Builds};
pub use definition::{Definition, Limits, WireDefinition};
pub use npm::NpmError;
pub use provision::{Condition, Phase, Progress, ProvisionRefusal, Provisioner, start_host};

use crate::config::{Isolation, Policy};
use crate::ids::{Digest, EnvironmentName};
use crate::store::EnvironmentRow;

/// An environment that is ready.
#[derive(Debug)]
pub struct Environment {
    pub definition: Definition,
    pub module: analyzer::ModuleKind,
    /// The functions that programs may call.
    pub endowments: Vec<String>,
    /// As npm resolved it; `None` without dependencies.
    pub package_lock: Option<String>,
    pub build: Arc<Build>,
    /// Changes whenever the environment does.
    pub etag: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    pub updated_at: i64,
    pub policy: Policy,
    /// As the definition wants it, and never weaker than the operator allows.
    pub isolation: Isolation,
    /// Set when it was replaced or removed: nothing is kept for it any more.
    retired: AtomicBool,
}

/// An environment as clients see it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentView {
    #[serde(flatten)]
    pub definition: Definition,
    pub endowments: Vec<String>,
    pub package_lock: Option<serde_json::Value>,
    /// Packages with install scripts that were not run, because `installScripts` does not name them.
    #[serde(default)]
    pub skipped_scripts: Vec<String>,
    pub build: String,
    pub status: String,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Environment {
    pub fn name(&self) -> &EnvironmentName {
        &self.definition.environment_name
    }

    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub fn view(&self) -> EnvironmentView {
        EnvironmentView {
            definition: self.definition.clone(),
            endowments: self.endowments.clone(),
            package_lock: self.package_lock.as_ref().and_then(|text| serde_json::from_str(text).ok()),
            skipped_scripts: self.skipped_scripts(),
            build: self.build.digest().to_string(),
            status: "ready".to_owned(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }

    fn skipped_scripts(&self) -> Vec<String> {
        let with_scripts = lockfile::packages_with_scripts(self.package_lock.as_deref().unwrap_or_default());
        let listed = &self.definition.install_scripts;
        with_scripts.into_iter().filter(|package| !listed.contains(package)).collect()
    }

    fn etag_of(definition: &Definition, build: &Digest) -> Result<String, serde_json::Error> {
        let text = serde_json::to_vec(definition)?;
        Ok(Digest::of(&[&text, build.as_str().as_bytes()]).as_str()[..16].to_owned())
    }

    fn row(&self) -> Result<EnvironmentRow, serde_json::Error> {
        Ok(EnvironmentRow {
            name: self.name().to_string(),
            definition: serde_json::to_string(&self.definition)?,
            package_lock: self.package_lock.clone(),
            module: module_word(self.module).to_owned(),
            endowments: serde_json::to_string(&self.endowments)?,
            build: self.build.digest().to_string(),
            etag: self.etag.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }

    fn from_row(
        row: EnvironmentRow,
        builds: &Builds,
        isolation_min: &Isolation,
    ) -> Result<Environment, RestoreError> {
        let name = row.name.clone();
        let damaged = |reason: String| RestoreError { name: name.clone(), reason };
        let definition: Definition =
            serde_json::from_str(&row.definition).map_err(|error| damaged(error.to_string()))?;
        let endowments = serde_json::from_str(&row.endowments).map_err(|error| damaged(error.to_string()))?;
        let build = builds
            .find(&Digest::stored(row.build))
            .ok_or_else(|| damaged("its build folder is gone".to_owned()))?;
        let module = match row.module.as_str() {
            "module" => analyzer::ModuleKind::Module,
            _ => analyzer::ModuleKind::CommonJs,
        };
        let policy = definition.effective_policy();
        Ok(Environment {
            isolation: definition.isolation.at_least(isolation_min),
            definition,
            module,
            endowments,
            package_lock: row.package_lock,
            build,
            etag: row.etag,
            created_at: row.created_at,
            updated_at: row.updated_at,
            policy,
            retired: AtomicBool::new(false),
        })
    }
}

fn module_word(module: analyzer::ModuleKind) -> &'static str {
    match module {
        analyzer::ModuleKind::CommonJs => "commonjs",
        analyzer::ModuleKind::Module => "module",
    }
}

#[derive(Debug, thiserror::Error)]
#[error("environment {name} cannot be restored: {reason}; provision it again")]
pub struct RestoreError {
    name: String,
    reason: String,
}

/// All environments, in memory.
#[derive(Clone, Default)]
pub struct Catalogue {
    entries: Arc<RwLock<HashMap<EnvironmentName, Arc<Environment>>>>,
}

impl Catalogue {
    /// Takes over what the database holds. What cannot be restored is reported and left out.
    pub fn restore(rows: Vec<EnvironmentRow>, builds: &Builds, isolation_min: &Isolation) -> Catalogue {
        let catalogue = Catalogue::default();
        for row in rows {
            match Environment::from_row(row, builds, isolation_min) {
                Ok(environment) => drop(catalogue.insert(Arc::new(environment))),
                Err(error) => tracing::error!("{error}"),
            }
        }
        catalogue
    }

    pub fn get(&self, name: &EnvironmentName) -> Option<Arc<Environment>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Arc<Environment>> {
        let mut all: Vec<_> =
            self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    pub fn count(&self) -> usize {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn insert(&self, environment: Arc<Environment>) -> Option<Arc<Environment>> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(environment.name().clone(), environment)
    }

    fn remove(&self, name: &EnvironmentName) -> Option<Arc<Environment>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(name)
    }
}
