//! One supervisor, put together: what a data directory needs to be served.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jail::Layer;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::admission::{Admission, Pace};
use crate::analysis::Analysis;
use crate::audit::Audit;
use crate::awake::Awake;
use crate::config::{Installation, Settings, limits};
use crate::doctor::{self, Report};
use crate::environment::{
    Builds, Catalogue, Condition, Environment, Progress, ProvisionRefusal, Provisioner, WireDefinition,
};
use crate::execution::Executor;
use crate::ids::EnvironmentName;
use crate::pool::Pool;
use crate::runtime::Tasks;
use crate::store::{Store, StoreError};
use crate::worker::{Launcher, LayersError, Snapshot, SnapshotError};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data directory {path} cannot be used: {source}", path = path.display())]
    DataDirectory { path: PathBuf, source: io::Error },
    #[error("another supervisor uses the data directory {path}", path = path.display())]
    Locked { path: PathBuf },
    #[error(
        "{path} holds files that are not Cloister's: choose an empty or a new folder as the data directory",
        path = path.display()
    )]
    NotOurs { path: PathBuf },
    #[error(transparent)]
    Installation(#[from] crate::config::LocateError),
    #[error(transparent)]
    Layers(#[from] LayersError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Unsafe(String),
    #[error(
        "only {found} files may be open, {} are needed: raise the limit (`ulimit -n`, LimitNOFILE=)",
        limits::OPEN_FILES_MIN
    )]
    OpenFiles { found: u64 },
    #[error("the limit of open files cannot be set: {0}")]
    Limit(#[from] nix::Error),
}

/// Held while a directory is in use; it also says that the directory is ours, whose folders may be
/// emptied.
const LOCK_FILE: &str = "cloister.lock";

/// Exclusive use of a data directory, for as long as it lives.
pub struct DataDirectory {
    pub path: PathBuf,
    _lock: std::fs::File,
}

impl DataDirectory {
    pub fn open(path: &Path) -> Result<DataDirectory, StartError> {
        let failed = |source| StartError::DataDirectory { path: path.to_owned(), source };
        if !path.exists() {
            std::fs::create_dir_all(path).map_err(failed)?;
            // Jailed users may pass through, where there is no private root, but not look around.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711)).map_err(failed)?;
        }
        let path = path.canonicalize().map_err(failed)?;
        let is_empty = std::fs::read_dir(&path).map_err(failed)?.next().is_none();
        if !is_empty && !path.join(LOCK_FILE).exists() {
            return Err(StartError::NotOurs { path });
        }
        let lock =
            std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK_FILE));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDirectory { path, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked { path }),
            Err(std::fs::TryLockError::Error(source)) => Err(StartError::DataDirectory { path, source }),
        }
    }
}

/// The parts of a running supervisor.
pub struct Daemon {
    pub tasks: Tasks,
    pub launcher: Launcher,
    pub provisioner: Provisioner,
    pub pool: Pool,
    pub executor: Executor,
    pub settings: Arc<Settings>,
    /// Required layers that the operator accepted to be without.
    pub accepted_missing: Vec<Layer>,
}

impl Daemon {
    pub async fn start(settings: Settings, data: &DataDirectory) -> Result<Arc<Daemon>, StartError> {
        raise_open_files()?;
        let tasks = Tasks::default();
        let launcher =
            Launcher::new(tasks.clone(), Installation::find()?, &data.path, &settings.egress_allow).await?;
        let snapshot = Snapshot::prepare(&launcher, &data.path.join("snapshots")).await;
        let assembled = snapshot
            .map_err(StartError::from)
            .and_then(|snapshot| Daemon::assemble(settings, data, tasks.clone(), launcher.clone(), snapshot));
        if assembled.is_err() {
            tasks.ended().await;
            launcher.clean_up();
        }
        assembled.map(Arc::new)
    }

    fn assemble(
        settings: Settings,
        data: &DataDirectory,
        tasks: Tasks,
        launcher: Launcher,
        snapshot: Snapshot,
    ) -> Result<Daemon, StartError> {
        let failed = |source| StartError::DataDirectory { path: data.path.clone(), source };
        let report = doctor::examine_layers(&launcher, &settings.allow_missing);
        if !report.safe {
            return Err(StartError::Unsafe(report.refusal()));
        }
        let (store, contents) = Store::open(&data.path.join("cloister.db"))?;
        let builds = Builds::open(data.path.join("builds"), &contents.builds).map_err(failed)?;
        let catalogue = Catalogue::restore(contents.environments, &builds, &settings.isolation_min);
        let analysis = Analysis::new(&launcher, &tasks);
        let operator = settings.operator.clone();
        let provisioner = Provisioner::new(
            launcher.clone(),
            analysis.clone(),
            store.clone(),
            operator,
            settings.isolation_min.clone(),
            builds,
            catalogue,
        )
        .map_err(failed)?;
        let pool = Pool::new(launcher.clone(), snapshot, tasks.clone(), settings.capacity.clone());
        let accepted_missing: Vec<Layer> = launcher
            .layers()
            .missing_required()
            .into_iter()
            .map(|(layer, _)| layer)
            .filter(|layer| settings.allow_missing.contains(layer))
            .collect();
        let missing: Vec<String> = accepted_missing.iter().map(ToString::to_string).collect();
        let executor = Executor {
            analysis,
            admission: Admission::new(settings.capacity.concurrent_max, settings.capacity.queued_max),
            pace: Pace::new(limits::processors(), limits::BEGINNING_MORE),
            awake: Awake::new(settings.keep_awake),
            pool: pool.clone(),
            audit: Audit::new(store, &missing),
            tasks: tasks.clone(),
        };
        Ok(Daemon {
            tasks,
            launcher,
            provisioner,
            pool,
            executor,
            settings: Arc::new(settings),
            accepted_missing,
        })
    }

    /// Refuses to serve where a jail lets a forbidden act succeed; otherwise gets spares ready.
    pub async fn make_ready(self: &Arc<Self>) -> Result<Report, StartError> {
        let report = doctor::examine(&self.launcher, &self.settings.allow_missing).await;
        if !report.safe {
            return Err(StartError::Unsafe(report.refusal()));
        }
        self.pool.keep_house(&self.provisioner.catalogue.list());
        let daemon = Arc::clone(self);
        self.tasks.spawn(async move { daemon.keep_house().await });
        Ok(report)
    }

    pub async fn provision(
        &self,
        wire: WireDefinition,
        condition: &Condition,
        progress: &Progress,
    ) -> Result<Arc<Environment>, ProvisionRefusal> {
        let provisioned = self.provisioner.provision(wire, condition, progress).await;
        let result = provisioned.map(|provisioned| {
            if let Some(replaced) = &provisioned.replaced
                && replaced.etag != provisioned.environment.etag
            {
                self.pool.forget(replaced);
            }
            self.pool.offer_host(&provisioned.environment, provisioned.host);
            provisioned.environment
        });
        self.provisioner.collect_builds().await;
        result
    }

    pub async fn remove(
        &self,
        name: &EnvironmentName,
        condition: &Condition,
    ) -> Result<(), ProvisionRefusal> {
        let removed = self.provisioner.remove(name, condition).await?;
        self.pool.forget(&removed);
        drop(removed);
        self.provisioner.collect_builds().await;
        Ok(())
    }

    /// Lets running work end, then ends every process and removes what belonged to them.
    pub async fn shut_down(&self) {
        let drain_max = self.settings.capacity.drain_max;
        self.tasks.begin_shutdown();
        self.executor.audit.sync();
        self.pool.close();
        if tokio::time::timeout(drain_max, self.tasks.ended()).await.is_err() {
            tracing::warn!("some work did not end within {} s and is cancelled", drain_max.as_secs());
            self.tasks.stop();
            if tokio::time::timeout(limits::STOP_TIME_MAX, self.tasks.ended()).await.is_err() {
                tracing::error!("some work could not be cancelled; its processes end with the supervisor");
            }
        }
        if tokio::time::timeout(limits::STOP_TIME_MAX, self.tasks.close()).await.is_err() {
            tracing::warn!("some clients did not read their last answer");
        }
        if let Err(error) = self.provisioner.store.close().await {
            tracing::warn!(%error, "the database could not be closed");
        }
        self.launcher.clean_up();
    }

    async fn keep_house(&self) {
        let mut ticks = tokio::time::interval(limits::HOUSEKEEPING_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.executor.audit.sync();
                    self.pool.keep_house(&self.provisioner.catalogue.list());
                    self.provisioner.collect_builds().await;
                }
                () = self.tasks.shutting_down() => return,
            }
        }
    }
}

/// A soft limit of 1,024 is for programs that use select(2); this one does not.
fn raise_open_files() -> Result<(), StartError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < limits::OPEN_FILES_MIN {
        return Err(StartError::OpenFiles { found: hard });
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
