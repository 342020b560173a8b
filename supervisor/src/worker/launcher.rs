//! Builds a jail around a program and starts it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use jail::{
    Access, Blueprint, CgroupLimits, Confinement, Grant, Kind, Layer, Namespaces, Profile, Spec, frame,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::cgroup::{self, CgroupError, GroupLimits};
use super::child::{Unwatched, make_ends};
use super::grants::{places, program_grants, seal_grants};
use super::identity::Identities;
use super::launch::{Launch, LaunchError, Program};
use super::layers::{Layers, LayersError};
use super::ownership::give_tree;
use super::process::{Belongings, Process};
use super::spawner::Spawner;
use super::tree::TemporaryFolder;
use super::zygote::Zygote;
use crate::config::{Installation, limits};
use crate::egress::{Egress, EgressError};
use crate::runtime::Tasks;

/// Starts jailed processes with every layer that this machine has.
#[derive(Clone)]
pub struct Launcher {
    shared: Arc<Shared>,
    layers: Layers,
}

struct Shared {
    tasks: Tasks,
    spawner: Spawner,
    installation: Installation,
    identities: Identities,
    hierarchy: Result<cgroup::Hierarchy, CgroupError>,
    node_grants: Vec<Grant>,
    analyzer_grants: Vec<Grant>,
    seal_grants: Vec<Grant>,
    /// An empty folder, over which each process mounts its private root.
    root: PathBuf,
    /// Folders of running processes.
    run: PathBuf,
    sequence: AtomicU64,
    /// What a process may use, by its kind.
    group_limits: BTreeMap<Kind, CgroupLimits>,
    /// By the kind, and whether V8 may compile to machine code.
    blueprints: Blueprints,
    /// Special addresses that names of backends may lead to.
    egress_allowed: Arc<[IpNet]>,
}

impl Shared {
    fn create_group(
        &self,
        name: &str,
        kind: Kind,
        program_memory_bytes: u64,
    ) -> Result<Option<Arc<cgroup::Group>>, CgroupError> {
        let Ok(hierarchy) = &self.hierarchy else { return Ok(None) };
        let profile = &self.group_limits[&kind];
        let group_limits = GroupLimits {
            memory_bytes_max: profile.memory_bytes_max + program_memory_bytes,
            threads_max: profile.threads_max,
            cores_max: profile.cores_max,
        };
        hierarchy.create(name, group_limits).map(|group| Some(Arc::new(group)))
    }
}

impl Launcher {
    /// Prepares folders and groups below the data directory, and finds out which layers work here.
    pub async fn new(
        tasks: Tasks,
        installation: Installation,
        data_dir: &Path,
        egress_allowed: &[IpNet],
    ) -> Result<Launcher, LayersError> {
        let io = |source| LayersError::Io { path: data_dir.to_owned(), source };
        let node_grants = program_grants(&installation.node, places::NODE).map_err(io)?;
        let analyzer_grants = program_grants(&installation.analyzer, places::ANALYZER).map_err(io)?;
        let seal_grants = seal_grants(&installation.seal, &node_grants).map_err(io)?;
        let mounts = cgroup::Mounts::of_this_process().map_err(io)?;
        let identities = Identities::new().map_err(|error| io(io::Error::other(error)))?;
        let spawner = Spawner::new(installation.jail_exec.clone()).map_err(io)?;
        let (group_limits, blueprints) = prepare_kinds().map_err(io)?;
        // From here on something is made that has to be removed again.
        let run = data_dir.join("run");
        let root = prepare_folders(&run).map_err(io)?;
        let id = crate::ids::Digest::of(&[data_dir.as_os_str().as_encoded_bytes()]);
        let hierarchy = cgroup::Hierarchy::prepare(&mounts, &id.as_str()[..12]);
        let sequence = AtomicU64::new(1);
        let shared = Shared {
            tasks,
            spawner,
            installation,
            identities,
            hierarchy,
            node_grants,
            analyzer_grants,
            seal_grants,
            root,
            run,
            sequence,
            group_limits,
            blueprints,
            egress_allowed: Arc::from(egress_allowed),
        };
        let bare = Launcher { shared: Arc::new(shared), layers: Layers::none() };
        match Layers::detect(&bare).await {
            Ok(layers) => Ok(Launcher { layers, ..bare }),
            Err(error) => {
                bare.shared.tasks.ended().await;
                bare.clean_up();
                Err(error)
            }
        }
    }

    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    pub fn installation(&self) -> &Installation {
        &self.shared.installation
    }

    pub fn cgroup_version(&self) -> Result<u8, String> {
        self.shared.hierarchy.as_ref().map(cgroup::Hierarchy::version).map_err(ToString::to_string)
    }

    /// The same launcher with other layers; detection tries them one by one.
    pub(super) fn with_layers(&self, layers: Layers) -> Launcher {
        Launcher { layers, ..self.clone() }
    }

    /// Where a granted path is inside the jail.
    pub fn inside(&self, source: &Path, target: &str) -> PathBuf {
        if self.has(Layer::PrivateRoot) { PathBuf::from(target) } else { source.to_owned() }
    }

    /// A script of the harness, inside the jail.
    pub fn script(&self, relative: &str) -> String {
        let harness = self.inside(&self.shared.installation.harness, places::HARNESS);
        harness.join(relative).to_string_lossy().into_owned()
    }

    /// Loads what sends connections through the egress socket files, in worker threads as well.
    pub fn egress_preload(&self) -> String {
        format!("--require={}", self.script("dist/preload.cjs"))
    }

    /// The parts of the harness that Node processes read.
    pub fn harness_grants(&self) -> Vec<Grant> {
        let harness = &self.shared.installation.harness;
        ["package.json", "src", "dist"]
            .iter()
            .map(|part| Grant::new(harness.join(part), Path::new(places::HARNESS).join(part), Access::Read))
            .collect()
    }

    /// The library that seals a guest, inside its jail.
    pub fn seal(&self) -> String {
        self.inside(&self.shared.installation.seal, places::SEAL).to_string_lossy().into_owned()
    }

    /// What a guest reads beside its snapshot: the harness, the seal and the seal's libraries.
    pub fn guest_grants(&self) -> Vec<Grant> {
        let mut grants = self.harness_grants();
        grants.extend(self.shared.seal_grants.iter().cloned());
        grants
    }

    /// Opens the way to the hosts of `urls` in a new folder.
    pub fn open_egress<'a>(
        &self,
        folder: &Path,
        urls: impl Iterator<Item = &'a String>,
    ) -> Result<Egress, EgressError> {
        Egress::open(folder, urls, &self.shared.egress_allowed)
    }

    /// A fresh folder for one process; give it to `Launch::folder`.
    pub fn worker_folder(&self) -> Result<TemporaryFolder, LaunchError> {
        let path = self.shared.run.join(self.shared.sequence.fetch_add(1, Ordering::Relaxed).to_string());
        let prepare = |source| LaunchError::Prepare { path: path.clone(), source };
        std::fs::create_dir(&path).map_err(prepare)?;
        let folder = TemporaryFolder::of(path.clone());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711)).map_err(prepare)?;
        Ok(folder)
    }

    /// Starts the process; its protocol socket is the second value.
    pub async fn launch(&self, launch: Launch) -> Result<(Process, UnixStream), LaunchError> {
        let mut spec = self.spec(&launch);
        let name = self.name(launch.kind);
        let belongings = self
            .belongings(
                &name,
                launch.kind,
                launch.program_memory_bytes,
                launch.stdout_bytes_max,
                launch.folder,
            )
            .await?;
        spec.confinement.identity = belongings.identity.as_ref().map(|leased| leased.identity);
        spec.cgroups = belongings.group.as_ref().map(|group| group.procs_files()).unwrap_or_default();
        if let Some(identity) = spec.confinement.identity {
            give_writable(&spec.grants, identity.uid).await?;
        }
        let (ends, mut socket, outputs) = make_ends().map_err(LaunchError::Spawn)?;
        let child = self.shared.spawner.exec(ends).await.and_then(Unwatched::watch);
        let child = child.map_err(LaunchError::Spawn)?;
        let process = Process::watch(&self.shared.tasks, name, child, outputs, belongings);
        send(&mut socket, &spec).await.map_err(LaunchError::Spawn)?;
        Ok((process, socket))
    }

    /// Lets a zygote fork a guest; its protocol socket is the second value.
    pub async fn fork(&self, zygote: &Zygote) -> Result<(Process, UnixStream), LaunchError> {
        let name = self.name(Kind::Guest);
        let memory_bytes = zygote.program_memory_bytes();
        let belongings =
            self.belongings(&name, Kind::Guest, memory_bytes, limits::STDOUT_BYTES_MAX, None).await?;
        let mut confinement = self.confinement(Kind::Guest);
        confinement.identity = belongings.identity.as_ref().map(|leased| leased.identity);
        if confinement.namespaces == Namespaces::User {
            // Its zygote's user namespace gives it the power to unshare the others.
            confinement.namespaces = Namespaces::Privileged;
        }
        let (ends, mut socket, outputs) = make_ends().map_err(LaunchError::Spawn)?;
        let child = self.shared.spawner.fork(zygote.socket(), ends).await.and_then(Unwatched::watch);
        let child = child.map_err(LaunchError::Spawn)?;
        // It reads how it is confined before it does anything, so all that it takes counts in its groups.
        if let Some(group) = belongings.group.clone() {
            // A move between groups may wait for every processor of the machine.
            let pid = child.id();
            aside(move || group.enter(pid)).await?;
        }
        let process = Process::watch(&self.shared.tasks, name, child, outputs, belongings);
        send(&mut socket, &confinement).await.map_err(LaunchError::Spawn)?;
        Ok((process, socket))
    }

    fn name(&self, kind: Kind) -> String {
        format!("{kind}-{}", self.shared.sequence.fetch_add(1, Ordering::Relaxed))
    }

    async fn belongings(
        &self,
        name: &str,
        kind: Kind,
        program_memory_bytes: u64,
        stdout_bytes_max: usize,
        folder: Option<TemporaryFolder>,
    ) -> Result<Belongings, LaunchError> {
        let identity = match self.has(Layer::UserId) {
            true => Some(self.shared.identities.lease().ok_or(LaunchError::NoIdentity)?),
            false => None,
        };
        let group = if self.has(Layer::Cgroup) {
            let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
            aside(move || shared.create_group(&name, kind, program_memory_bytes)).await?
        } else {
            None
        };
        Ok(Belongings { group, identity, folder, stdout_bytes_max })
    }

    /// Removes the control groups' common folder; every process must have ended.
    pub fn clean_up(&self) {
        if let Ok(hierarchy) = &self.shared.hierarchy {
            hierarchy.remove();
        }
        if let Err(error) = std::fs::remove_dir_all(&self.shared.run) {
            tracing::warn!(folder = %self.shared.run.display(), %error, "the run folder could not be removed");
        }
    }

    fn has(&self, layer: Layer) -> bool {
        self.layers.has(layer)
    }

    fn profile(&self, kind: Kind) -> &CgroupLimits {
        &self.shared.group_limits[&kind]
    }

    /// Without a control group, `setrlimit` bounds what a process may map for writing.
    fn data_bytes_max(&self, launch: &Launch) -> Option<u64> {
        let program = self.profile(launch.kind).memory_bytes_max + launch.program_memory_bytes;
        (!self.has(Layer::Cgroup)).then_some(program + limits::NODE_CODE_RANGE_BYTES)
    }

    /// How a process of a kind is confined, but for its user id.
    fn confinement(&self, kind: Kind) -> Confinement {
        let namespaces = match (self.has(Layer::Namespaces), nix::unistd::geteuid().is_root()) {
            (false, _) => Namespaces::None,
            (true, true) => Namespaces::Privileged,
            (true, false) => Namespaces::User,
        };
        Confinement {
            kind,
            supervisor_pid: nix::unistd::getpid().as_raw(),
            identity: None,
            namespaces,
            landlock: self.has(Layer::Landlock),
        }
    }

    fn spec(&self, launch: &Launch) -> Spec {
        let (program_grants, source, target) = match launch.program {
            Program::Node => (&self.shared.node_grants, &self.shared.installation.node, places::NODE),
            Program::Analyzer => {
                (&self.shared.analyzer_grants, &self.shared.installation.analyzer, places::ANALYZER)
            }
        };
        Spec {
            confinement: self.confinement(launch.kind),
            blueprint: self.shared.blueprints[&(launch.kind, launch.jit)].clone(),
            program: self.inside(source, target),
            arguments: launch.arguments.clone(),
            environment: launch.environment.clone(),
            cgroups: Vec::new(),
            batch: self.has(Layer::Cgroup)
                && self.shared.hierarchy.as_ref().is_ok_and(cgroup::Hierarchy::suits_batch),
            root: self.has(Layer::PrivateRoot).then(|| self.shared.root.clone()),
            data_bytes_max: self.data_bytes_max(launch),
            grants: program_grants.iter().chain(&launch.grants).cloned().collect(),
            directory: launch.directory.clone(),
        }
    }
}

type Blueprints = BTreeMap<(Kind, bool), Blueprint>;

/// Reads the profile of each kind, and compiles its filters.
fn prepare_kinds() -> io::Result<(BTreeMap<Kind, CgroupLimits>, Blueprints)> {
    let mut group_limits = BTreeMap::new();
    let mut blueprints = BTreeMap::new();
    for kind in Kind::ALL {
        let profile = Profile::load(kind).map_err(io::Error::other)?;
        for jit in [true, false] {
            let failed = |error| io::Error::other(format!("the system call filter of the {kind}: {error}"));
            blueprints.insert((kind, jit), Blueprint::of(&profile, jit).map_err(failed)?);
        }
        group_limits.insert(kind, profile.cgroup);
    }
    Ok((group_limits, blueprints))
}

/// Empties the folder of running processes, and makes the one on which private roots are mounted.
fn prepare_folders(run: &Path) -> io::Result<PathBuf> {
    if run.exists() {
        std::fs::remove_dir_all(run)?;
    }
    let root = run.join("root");
    std::fs::create_dir_all(&root)?;
    for folder in [run, &root] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
    }
    Ok(root)
}

/// Runs what blocks for a moment on a thread that serves nobody meanwhile.
async fn aside<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, LaunchError>
where
    T: Send + 'static,
    E: Send + 'static,
    LaunchError: From<E>,
{
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| LaunchError::Spawn(io::Error::other(error)))??)
}

/// The tree may be large, so it is walked aside.
async fn give_writable(grants: &[Grant], uid: u32) -> Result<(), LaunchError> {
    for grant in grants.iter().filter(|grant| grant.access == Access::Write) {
        let path = grant.source.clone();
        let given =
            tokio::task::spawn_blocking(move || give_tree(&path, uid)).await.map_err(io::Error::other);
        given
            .and_then(|given| given)
            .map_err(|source| LaunchError::Prepare { path: grant.source.clone(), source })?;
    }
    Ok(())
}

async fn send(socket: &mut UnixStream, message: &impl serde::Serialize) -> io::Result<()> {
    socket.write_all(&frame(message)?).await
}
