//! Control groups of version 1: one folder per controller (`cgroup-v1/memory.rst`, `pids.rst`).

use std::path::PathBuf;
use std::time::Duration;

use super::{
    CPU_PERIOD_US, CgroupError, GroupLimits, GroupUsage, Mounts, create_folder, read_key, read_number,
    remove_leftovers, write,
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
        Ok(Hierarchy { memory: needed(memory?)?, pids: needed(pids?)?, cpu: cpu?, cpuacct: cpuacct? })
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.memory.clone(), self.pids.clone()];
        folders.extend(self.cpu.clone());
        folders.extend(self.cpuacct.clone());
        folders.dedup();
        folders
    }

    pub fn create(&self, name: &str, limits: GroupLimits) -> Result<Group, CgroupError> {
        let group = Group {
            folders: self.folders().into_iter().map(|folder| folder.join(name)).collect(),
            memory: self.memory.join(name),
            cpuacct: self.cpuacct.as_ref().map(|folder| folder.join(name)),
        };
        for folder in &group.folders {
            create_folder(folder)?;
        }
        write(&group.memory, "memory.limit_in_bytes", limits.memory_bytes_max)?;
        if group.memory.join("memory.memsw.limit_in_bytes").exists() {
            // Memory and swap together: no swap.
            write(&group.memory, "memory.memsw.limit_in_bytes", limits.memory_bytes_max)?;
        }
        write(&self.pids.join(name), "pids.max", limits.threads_max)?;
        if let Some(cpu) = &self.cpu {
            write(&cpu.join(name), "cpu.cfs_period_us", CPU_PERIOD_US)?;
            write(&cpu.join(name), "cpu.cfs_quota_us", limits.cores_max * CPU_PERIOD_US)?;
        }
        Ok(group)
    }
}

#[derive(Debug)]
pub struct Group {
    pub folders: Vec<PathBuf>,
    memory: PathBuf,
    cpuacct: Option<PathBuf>,
}

impl Group {
    pub fn usage(&self) -> GroupUsage {
        let nanoseconds = self.cpuacct.as_ref().and_then(|folder| read_number(folder, "cpuacct.usage"));
        GroupUsage {
            cpu: Duration::from_nanos(nanoseconds.unwrap_or(0)),
            peak_memory_bytes: read_number(&self.memory, "memory.max_usage_in_bytes").unwrap_or(0),
        }
    }

    pub fn reset_peak(&self) {
        // Without it the peak is that of the whole life of the process.
        let _ = write(&self.memory, "memory.max_usage_in_bytes", 0);
    }

    pub fn out_of_memory_kills(&self) -> u64 {
        read_key(&self.memory, "memory.oom_control", "oom_kill ").unwrap_or(0)
    }
}
