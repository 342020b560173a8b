//! Control groups of version 2 (`cgroup-v2.rst`), in a subtree that was delegated to us.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    CPU_PERIOD_US, CgroupError, Counter, GroupLimits, IDLE_FILE, Mounts, create_folder, remove_leftovers,
    write,
};

/// This supervisor's folder.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    folder: PathBuf,
    has_cpu: bool,
    /// Whether a group can step back.
    pub has_idle: bool,
}

impl Hierarchy {
    /// A group that hands controllers to its children may hold no processes itself, so everything in
    /// our own group first moves to a leaf, `supervisor`. The root group is exempt from that rule, and
    /// is told by its lack of a `cgroup.type`.
    pub fn prepare(mounts: &Mounts, name: &str) -> Result<Hierarchy, CgroupError> {
        let (mount, root, _) = mounts.of_type("cgroup2").next().ok_or(CgroupError::NoHierarchy)?;
        let own = mount.join(mounts.membership("", root).ok_or(CgroupError::NoHierarchy)?);
        // A service that starts again after `exec` finds itself in its leaf.
        let own = if own.ends_with("supervisor") { own.parent().unwrap_or(&own).to_owned() } else { own };
        let available = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
        let has = |controller: &str| available.split_whitespace().any(|name| name == controller);
        if !has("memory") || !has("pids") {
            return Err(CgroupError::NoHierarchy);
        }
        let controllers = if has("cpu") { "+memory +pids +cpu" } else { "+memory +pids" };
        if own.join("cgroup.type").exists() {
            hand_down(&own, controllers)?;
        } else {
            write(&own, "cgroup.subtree_control", controllers)?;
        }
        let folder = own.join(name);
        create_folder(&folder)?;
        write(&folder, "cgroup.subtree_control", controllers)?;
        remove_leftovers(&folder);
        let has_idle = has("cpu") && folder.join(IDLE_FILE).exists();
        Ok(Hierarchy { folder, has_cpu: has("cpu"), has_idle })
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        vec![self.folder.clone()]
    }

    pub fn create(&self, name: &str, limits: GroupLimits) -> Result<Group, CgroupError> {
        let folder = self.folder.join(name);
        create_folder(&folder)?;
        write(&folder, "memory.max", limits.memory_bytes_max)?;
        write(&folder, "memory.swap.max", 0)?;
        write(&folder, "memory.oom.group", 1)?;
        write(&folder, "pids.max", limits.threads_max)?;
        if self.has_cpu {
            write(&folder, "cpu.max", format!("{} {CPU_PERIOD_US}", limits.cores_max * CPU_PERIOD_US))?;
        }
        Ok(Group {
            peak: Counter::open_resettable(&folder, "memory.peak"),
            memory: Counter::open(&folder, "memory.current"),
            cpu: Counter::open(&folder, "cpu.stat"),
            idle_folder: self.has_idle.then(|| folder.clone()),
            folders: vec![folder],
        })
    }
}

/// Moves every process of a group to its leaf `supervisor`, and gives the controllers to its children.
/// Processes of the group may start and end meanwhile, so it takes more than one look.
fn hand_down(own: &Path, controllers: &str) -> Result<(), CgroupError> {
    const ATTEMPTS_MAX: u32 = 100;
    let leaf = own.join("supervisor");
    create_folder(&leaf)?;
    let mut last = CgroupError::NoHierarchy;
    for _ in 0..ATTEMPTS_MAX {
        for pid in fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default().lines() {
            match write(&leaf, "cgroup.procs", pid) {
                // It has ended.
                Err(error) if error.is(nix::libc::ESRCH) => {}
                moved => moved?,
            }
        }
        match write(own, "cgroup.subtree_control", controllers) {
            // Another process has started.
            Err(error) if error.is(nix::libc::EBUSY) => last = error,
            result => return result,
        }
    }
    Err(last)
}

#[derive(Debug)]
pub struct Group {
    pub folders: Vec<PathBuf>,
    /// From Linux 6.12 a write resets it, for the descriptor that wrote.
    pub peak: Counter,
    pub memory: Counter,
    cpu: Counter,
    /// Where it can step back, if it can.
    pub idle_folder: Option<PathBuf>,
}

impl Group {
    pub fn cpu(&self) -> Duration {
        Duration::from_micros(self.cpu.number_of("usage_usec ").unwrap_or(0))
    }

    pub fn out_of_memory_kills(&self) -> u64 {
        Counter::open(&self.folders[0], "memory.events").number_of("oom_kill ").unwrap_or(0)
    }
}
