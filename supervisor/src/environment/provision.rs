//! Provisioning: from a definition to an environment that is ready, or to nothing at all.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use analyzer::{Implementation, Violation};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use super::build::{exporting, implementation_file};
use super::definition::Checked;
use super::lockfile::count_packages;
use super::npm::{Npm, NpmError};
use super::{Builds, Catalogue, Definition, Environment, WireDefinition};
use crate::analysis::{Analysis, AnalysisError};
use crate::clock::now_ms;
use crate::config::{Isolation, Operator, limits};
use crate::fields::FieldError;
use crate::ids::{Digest, EnvironmentName};
use crate::store::{BuildRow, Store, StoreError, Write};
use crate::worker::{HostError, HostSpec, Launcher, LoadedHost, give_tree, read_untrusted, write_fresh};

/// How far a provisioning is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Validate,
    Resolve,
    /// With the number of packages.
    Install(u32),
    Load,
    Ready,
}

/// Where phases are reported. A reader that is slow misses some; the work does not wait.
#[derive(Clone)]
pub struct Progress(Option<mpsc::Sender<Phase>>);

impl Progress {
    pub fn none() -> Progress {
        Progress(None)
    }

    pub fn to(sender: mpsc::Sender<Phase>) -> Progress {
        Progress(Some(sender))
    }

    fn report(&self, phase: Phase) {
        if let Some(sender) = &self.0 {
            // Only a reader that is slow or gone misses it.
            let _ = sender.try_send(phase);
        }
    }
}

/// What the caller demands of the environment that has the name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is none (POST).
    Absent,
    /// Anything (PUT).
    Any,
    /// It has this ETag (If-Match).
    Unchanged(String),
    /// There is one (If-Match: *).
    Present,
}

#[derive(Debug, thiserror::Error)]
pub enum ProvisionRefusal {
    #[error("the definition is not valid")]
    Invalid(Vec<FieldError>),
    #[error("the implementation does not have the shape that an environment needs")]
    Implementation(Vec<Violation>),
    #[error("environment {0} exists already: replace it with PUT, or choose another name")]
    NameTaken(EnvironmentName),
    #[error("environment {0} does not exist")]
    Unknown(EnvironmentName),
    #[error("environment {0} has changed meanwhile: read it again and repeat your change")]
    Changed(EnvironmentName),
    #[error("there are {} environments, which is the most", limits::ENVIRONMENTS_MAX)]
    TooMany,
    #[error(
        "{} environments are being provisioned, which is the most: try again in a moment",
        limits::PROVISIONS_MAX
    )]
    Busy,
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    #[error("the packages cannot be installed: {0}")]
    Install(#[from] NpmError),
    #[error("the implementation cannot be loaded: {0}")]
    Load(HostError),
    #[error(transparent)]
    Analysis(AnalysisError),
    #[error("the build cannot be written: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a record cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// A new environment, the host that proved that it loads, and what it replaced.
pub struct Provisioned {
    pub environment: Arc<Environment>,
    pub host: LoadedHost,
    pub replaced: Option<Arc<Environment>>,
}

#[derive(Clone)]
pub struct Provisioner {
    pub launcher: Launcher,
    pub analysis: Analysis,
    pub store: Store,
    pub operator: Operator,
    /// The weakest isolation that an environment may ask for.
    pub isolation_min: Isolation,
    pub builds: Builds,
    pub catalogue: Catalogue,
    /// Identifies the harness and the Node that builds are made for.
    pub platform: String,
    locks: NameLocks,
    places: Arc<Semaphore>,
    installs: Arc<Semaphore>,
}

type NameLocks = Arc<Mutex<HashMap<EnvironmentName, Weak<tokio::sync::Mutex<()>>>>>;

impl Provisioner {
    pub fn new(
        launcher: Launcher,
        analysis: Analysis,
        store: Store,
        operator: Operator,
        isolation_min: Isolation,
        builds: Builds,
        catalogue: Catalogue,
    ) -> io::Result<Provisioner> {
        let platform = fs::read_to_string(launcher.installation().harness.join("package.json"))?;
        let places = Arc::new(Semaphore::new(limits::PROVISIONS_MAX));
        let installs = Arc::new(Semaphore::new(limits::INSTALL_CONCURRENT_MAX));
        Ok(Provisioner {
            launcher,
            analysis,
            store,
            operator,
            isolation_min,
            builds,
            catalogue,
            platform,
            locks: NameLocks::default(),
            places,
            installs,
        })
    }

    /// Checks a definition without changing anything.
    pub async fn validate(&self, wire: WireDefinition) -> Result<Implementation, ProvisionRefusal> {
        let (definition, _) = self.check(wire)?;
        self.analyze(&definition).await
    }

    pub async fn provision(
        &self,
        wire: WireDefinition,
        condition: &Condition,
        progress: &Progress,
    ) -> Result<Provisioned, ProvisionRefusal> {
        let _place = self.places.try_acquire().map_err(|_| ProvisionRefusal::Busy)?;
        progress.report(Phase::Validate);
        let (definition, package_lock) = self.check(wire)?;
        let name = definition.environment_name.clone();
        let lock = self.lock_for(&name);
        let _held = lock.lock().await;
        let existing = self.demand(&name, condition)?;
        let implementation = self.analyze(&definition).await?;
        let (build, package_lock) = self.build(&definition, package_lock, &implementation, progress).await?;
        progress.report(Phase::Load);
        let now = now_ms();
        let environment = Arc::new(Environment {
            etag: Environment::etag_of(&definition, build.digest())?,
            policy: definition.effective_policy(),
            isolation: definition.isolation.clone(),
            retired: AtomicBool::new(false),
            module: implementation.module,
            endowments: implementation.endowments,
            package_lock,
            created_at: existing.as_ref().map_or(now, |existing| existing.created_at),
            updated_at: now,
            definition,
            build,
        });
        let host = start_host(&self.launcher, &environment).await.map_err(ProvisionRefusal::Load)?;
        let build_row = BuildRow { digest: environment.build.digest().to_string(), created_at: now };
        self.store.commit(Write::Environment(Box::new((environment.row()?, build_row)))).await?;
        let replaced = self.catalogue.insert(Arc::clone(&environment));
        progress.report(Phase::Ready);
        Ok(Provisioned { environment, host, replaced })
    }

    pub async fn remove(
        &self,
        name: &EnvironmentName,
        condition: &Condition,
    ) -> Result<Arc<Environment>, ProvisionRefusal> {
        let lock = self.lock_for(name);
        let _held = lock.lock().await;
        let existing =
            self.demand(name, condition)?.ok_or_else(|| ProvisionRefusal::Unknown(name.clone()))?;
        self.store.commit(Write::RemoveEnvironment(name.to_string())).await?;
        self.catalogue.remove(name);
        Ok(existing)
    }

    /// Removes builds that nothing uses any more.
    pub async fn collect_builds(&self) {
        let builds = self.builds.clone();
        let removed = tokio::task::spawn_blocking(move || builds.collect()).await.unwrap_or_default();
        for digest in removed {
            if let Err(error) = self.store.commit(Write::RemoveBuild(digest.to_string())).await {
                tracing::warn!(build = %digest, %error, "a removed build is still in the database");
            }
        }
    }

    fn demand(
        &self,
        name: &EnvironmentName,
        condition: &Condition,
    ) -> Result<Option<Arc<Environment>>, ProvisionRefusal> {
        let existing = self.catalogue.get(name);
        match (condition, &existing) {
            (Condition::Absent, Some(_)) => Err(ProvisionRefusal::NameTaken(name.clone())),
            (Condition::Present | Condition::Unchanged(_), None) => {
                Err(ProvisionRefusal::Unknown(name.clone()))
            }
            (Condition::Unchanged(etag), Some(current)) if *etag != current.etag => {
                Err(ProvisionRefusal::Changed(name.clone()))
            }
            (_, None) if self.catalogue.count() >= limits::ENVIRONMENTS_MAX => Err(ProvisionRefusal::TooMany),
            _ => Ok(existing),
        }
    }

    fn check(&self, wire: WireDefinition) -> Result<Checked, ProvisionRefusal> {
        let checked = wire.check().map_err(ProvisionRefusal::Invalid)?;
        match checked.0.isolation.weaker_than(&self.isolation_min) {
            None => Ok(checked),
            Some((dial, least)) => {
                let detail = format!("the operator allows {least} and what is stronger");
                let error = FieldError::new(format!("/isolation/{dial}"), detail);
                Err(ProvisionRefusal::Invalid(vec![error]))
            }
        }
    }

    async fn analyze(&self, definition: &Definition) -> Result<Implementation, ProvisionRefusal> {
        self.analysis.implementation(&definition.code_implementation).await.map_err(|error| match error {
            AnalysisError::Refused(violations) => ProvisionRefusal::Implementation(violations),
            other => ProvisionRefusal::Analysis(other),
        })
    }

    /// Makes the build folder, or finds it. Returns it with the lockfile.
    async fn build(
        &self,
        definition: &Definition,
        given_lock: Option<String>,
        implementation: &Implementation,
        progress: &Progress,
    ) -> Result<(Arc<super::Build>, Option<String>), ProvisionRefusal> {
        let staging = self.builds.stage()?;
        let built = self.build_in(staging.path(), definition, given_lock, implementation, progress).await;
        // What npm left may be large, so it is removed aside.
        tokio::task::spawn_blocking(move || drop(staging)).await.map_err(io::Error::other)?;
        built
    }

    async fn build_in(
        &self,
        staging: &Path,
        definition: &Definition,
        given_lock: Option<String>,
        implementation: &Implementation,
        progress: &Progress,
    ) -> Result<(Arc<super::Build>, Option<String>), ProvisionRefusal> {
        let staged = staging.join("build");
        for folder in [&staged, &staging.join("config")] {
            fs::create_dir(folder)?;
        }
        fs::write(staged.join("package.json"), &definition.package_json)?;
        if let Some(lock) = &given_lock {
            fs::write(staged.join("package-lock.json"), lock)?;
        }
        let turn = self.installs.acquire();
        let (npm, _turn) = match definition.has_dependencies() {
            true => {
                let turn = turn.await.map_err(|_| io::Error::other("shutting down"))?;
                (Some(Npm::prepare(&self.launcher, &self.operator, staging).await?), Some(turn))
            }
            false => (None, None),
        };
        let package_lock = match (&npm, given_lock) {
            (Some(_), Some(lock)) => Some(lock),
            (Some(npm), None) => {
                progress.report(Phase::Resolve);
                npm.resolve().await?;
                let lock = read_untrusted(&staged.join("package-lock.json"), limits::PACKAGE_LOCK_BYTES_MAX)?;
                Some(String::from_utf8(lock).map_err(io::Error::other)?)
            }
            (None, _) => None,
        };
        let digest = self.digest(definition, package_lock.as_deref());
        if let Some(build) = self.builds.find(&digest) {
            return Ok((build, package_lock));
        }
        if let Some(npm) = &npm {
            let lock = package_lock.as_deref().unwrap_or_default();
            progress.report(Phase::Install(count_packages(lock)));
            npm.install().await?;
            for package in definition.install_scripts.iter().collect::<BTreeSet<_>>() {
                npm.run_scripts(package, lock).await?;
            }
        }
        let code = exporting(&definition.code_implementation, implementation);
        let file = staged.join(implementation_file(implementation.module));
        let builds = self.builds.clone();
        let finish = move || {
            take_over(&staged)?;
            write_fresh(&file, code.as_bytes())?;
            builds.finish(&staged, digest)
        };
        let build = tokio::task::spawn_blocking(finish).await.map_err(io::Error::other)??;
        Ok((build, package_lock))
    }

    fn digest(&self, definition: &Definition, package_lock: Option<&str>) -> Digest {
        Digest::of(&[
            definition.package_json.as_bytes(),
            package_lock.unwrap_or_default().as_bytes(),
            definition.code_implementation.as_bytes(),
            definition.install_scripts.join("\n").as_bytes(),
            self.platform.as_bytes(),
            std::env::consts::ARCH.as_bytes(),
        ])
    }

    fn lock_for(&self, name: &EnvironmentName) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(name.clone(), Arc::downgrade(&lock));
        lock
    }
}

/// Starts a host that has loaded the environment.
pub async fn start_host(launcher: &Launcher, environment: &Environment) -> Result<LoadedHost, HostError> {
    let spec = HostSpec {
        build: environment.build.folder(),
        file: implementation_file(environment.module),
        functions: &environment.endowments,
        backends: &environment.definition.backend_urls,
    };
    LoadedHost::start(launcher, spec).await
}

/// Makes a build ours again, and readable for every jail, after an installer wrote it.
fn take_over(folder: &Path) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        give_tree(folder, 0)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}
