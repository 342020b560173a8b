//! Control groups of version 1: one folder per controller (`cgroup-v1/memory.rst`, `pids.rst`).

use std::path::PathBuf;
use std::time::Duration;

use super::{
    CPU_PERIOD_US, CgroupError, Counter, GroupLimits, IDLE_FILE, Mounts, create_folder, remove_leftovers,
    write,
};

/// Each with whether it is needed: without `cpu` the wall time is the limit, and `cpuacct` only
/// measures. The last two are often one mount.
const CONTROLLERS: [(&str, bool); 4] = [("memory", true), ("pids", true), ("cpu", false), ("cpuacct", false)];

/// This supervisor's folder in each controller's hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    memory: PathBuf,
    pids: PathBuf,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    /// Whether a group can step back.
    pub has_idle: bool,
}

impl Hierarchy {
    pub fn prepare(mounts: &Mounts, name: &str) -> Result<Hierarchy, CgroupError> {
        let [memory, pids, cpu, cpuacct] = CONTROLLERS.map(|(controller, needed)| {
            let found = mounts
                .of_type("cgroup")
                .find(|(_, _, options)| options.split(',').any(|option| option == controller));
            let Some((mount, root, _)) = found else {
                return if needed { Err(CgroupError::NoHierarchy) } else { Ok(None) };
            };
            let own = mounts.membership(controller, root).ok_or(CgroupError::NoHierarchy)?;
            let folder = mount.join(own).join(name);
            create_folder(&folder)?;
            remove_leftovers(&folder);
            Ok(Some(folder))
        });
        let needed = |folder: Option<PathBuf>| folder.ok_or(CgroupError::NoHierarchy);
        let cpu = cpu?;
        let has_idle = cpu.as_ref().is_some_and(|folder| folder.join(IDLE_FILE).exists());
        Ok(Hierarchy { memory: needed(memory?)?, pids: needed(pids?)?, cpu, cpuacct: cpuacct?, has_idle })
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.memory.clone(), self.pids.clone()];
        folders.extend(self.cpu.clone());
        folders.extend(self.cpuacct.clone());
        folders.dedup();
        folders
    }

    pub fn create(&self, name: &str, limits: GroupLimits) -> Result<Group, CgroupError> {
        let folders: Vec<PathBuf> = self.folders().into_iter().map(|folder| folder.join(name)).collect();
        for folder in &folders {
            create_folder(folder)?;
        }
        let memory = self.memory.join(name);
        write(&memory, "memory.limit_in_bytes", limits.memory_bytes_max)?;
        if memory.join("memory.memsw.limit_in_bytes").exists() {
            // Memory and swap together: no swap.
            write(&memory, "memory.memsw.limit_in_bytes", limits.memory_bytes_max)?;
        }
        write(&self.pids.join(name), "pids.max", limits.threads_max)?;
        if let Some(cpu) = &self.cpu {
            write(&cpu.join(name), "cpu.cfs_period_us", CPU_PERIOD_US)?;
            write(&cpu.join(name), "cpu.cfs_quota_us", limits.cores_max * CPU_PERIOD_US)?;
        }
        let idle_folder = self.cpu.as_ref().filter(|_| self.has_idle).map(|folder| folder.join(name));
        Ok(Group {
            folders,
            peak: Counter::open_resettable(&memory, "memory.max_usage_in_bytes"),
            memory: Counter::open(&memory, "memory.usage_in_bytes"),
            cpu: self.cpuacct.as_ref().map(|folder| Counter::open(&folder.join(name), "cpuacct.usage")),
            idle_folder,
            memory_folder: memory,
        })
    }
}

#[derive(Debug)]
pub struct Group {
    pub folders: Vec<PathBuf>,
    pub peak: Counter,
    pub memory: Counter,
    memory_folder: PathBuf,
    cpu: Option<Counter>,
    /// Where it can step back, if it can.
    pub idle_folder: Option<PathBuf>,
}

impl Group {
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu.as_ref().and_then(Counter::number).unwrap_or(0))
    }

    pub fn out_of_memory_kills(&self) -> u64 {
        Counter::open(&self.memory_folder, "memory.oom_control").number_of("oom_kill ").unwrap_or(0)
    }
}
