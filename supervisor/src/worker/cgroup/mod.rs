//! Control groups: one per jailed process, with limits on memory, threads and CPU.
//!
//! ```text
//!  <the supervisor's own group>/cloister-<id>/<kind>-<n>
//! ```
//!
//! Version 2 where the controllers are delegated, version 1 otherwise. The id comes from the data
//! directory, so that the next start finds and removes what a killed supervisor left behind.

mod counter;
mod v1;
mod v2;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use counter::Counter;

/// Limits of one group.
#[derive(Clone, Copy, Debug)]
pub struct GroupLimits {
    pub memory_bytes_max: u64,
    pub threads_max: u64,
    /// Processor time per time.
    pub cores_max: u64,
}

/// The period in which processor time is counted, in microseconds; both versions' default.
const CPU_PERIOD_US: u64 = 100_000;

/// What makes a group step back for its siblings: 1, and they take a processor from it at once (Linux 5.15).
const IDLE_FILE: &str = "cpu.idle";

/// What a group used since it was made (or since `reset_peak`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupUsage {
    pub cpu: Duration,
    pub peak_memory_bytes: u64,
}

/// The hierarchy in which this supervisor makes its groups.
#[derive(Clone, Debug)]
pub enum Hierarchy {
    V1(v1::Hierarchy),
    V2(v2::Hierarchy),
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no control group hierarchy with memory and pids controllers is mounted")]
    NoHierarchy,
    #[error("control group {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl CgroupError {
    /// Whether the kernel answered with this error number.
    fn is(&self, number: i32) -> bool {
        matches!(self, CgroupError::Io { source, .. } if source.raw_os_error() == Some(number))
    }
}

/// Where the kernel says the hierarchies are, and which groups this process is in.
pub struct Mounts {
    /// `/proc/self/mountinfo`
    pub mountinfo: String,
    /// `/proc/self/cgroup`
    pub memberships: String,
}

impl Mounts {
    pub fn of_this_process() -> io::Result<Mounts> {
        Ok(Mounts {
            mountinfo: fs::read_to_string("/proc/self/mountinfo")?,
            memberships: fs::read_to_string("/proc/self/cgroup")?,
        })
    }

    /// Mount points of a file system type, each with its root and its super options.
    fn of_type<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = (PathBuf, &'a str, &'a str)> {
        self.mountinfo.lines().filter_map(move |line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut fields = file_system.split(' ');
            let (kind, options) = (fields.next()?, fields.nth(1)?);
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            (kind == wanted).then(|| (PathBuf::from(point), root, options))
        })
    }

    /// This process's group in the hierarchy with `controller` (the empty string for version 2), as
    /// a path below a mount whose root is `root`.
    fn membership(&self, controller: &str, root: &str) -> Option<&Path> {
        self.memberships.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let found = controllers.split(',').any(|name| name == controller);
            let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
            found.then(|| Path::new(inside.trim_start_matches('/')))
        })
    }
}

impl Hierarchy {
    /// Finds a usable hierarchy and makes `cloister-<id>` in it; removes what is left from before.
    pub fn prepare(mounts: &Mounts, id: &str) -> Result<Hierarchy, CgroupError> {
        let name = format!("cloister-{id}");
        match v2::Hierarchy::prepare(mounts, &name) {
            Err(CgroupError::NoHierarchy) => v1::Hierarchy::prepare(mounts, &name).map(Hierarchy::V1),
            result => result.map(Hierarchy::V2),
        }
    }

    pub fn version(&self) -> u8 {
        match self {
            Hierarchy::V1(_) => 1,
            Hierarchy::V2(_) => 2,
        }
    }

    /// Whether a process that takes no processor from others when it wakes still has it at once beside a group that
    /// has stepped back. Linux before 6.12 lets it wait for both.
    pub fn suits_batch(&self) -> bool {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        self.lets_step_back() && version_of(&release) >= Some((6, 12))
    }

    fn lets_step_back(&self) -> bool {
        match self {
            Hierarchy::V1(hierarchy) => hierarchy.has_idle,
            Hierarchy::V2(hierarchy) => hierarchy.has_idle,
        }
    }

    pub fn create(&self, name: &str, limits: GroupLimits) -> Result<Group, CgroupError> {
        let group = match self {
            Hierarchy::V1(hierarchy) => Group::V1(hierarchy.create(name, limits)?),
            Hierarchy::V2(hierarchy) => Group::V2(hierarchy.create(name, limits)?),
        };
        if let Some(folder) = group.idle_folder() {
            // It may be left from an earlier process.
            write(folder, IDLE_FILE, 0)?;
        }
        Ok(group)
    }

    /// Removes the supervisor's own folder, once every group in it is gone.
    pub fn remove(&self) {
        let folders = match self {
            Hierarchy::V1(hierarchy) => hierarchy.folders(),
            Hierarchy::V2(hierarchy) => hierarchy.folders(),
        };
        for folder in folders {
            remove_tree(&folder);
        }
    }
}

/// The first two numbers of a kernel's release.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The group of one process.
#[derive(Debug)]
pub enum Group {
    V1(v1::Group),
    V2(v2::Group),
}

impl Group {
    /// The files into which the process writes itself.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.folders().iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    /// Puts a process into the group.
    pub fn enter(&self, pid: u32) -> Result<(), CgroupError> {
        for path in self.procs_files() {
            // Without creating it: a file of this name in another file system would hold nobody.
            let opened = fs::OpenOptions::new().write(true).open(&path);
            opened
                .and_then(|mut procs| procs.write_all(pid.to_string().as_bytes()))
                .map_err(|source| CgroupError::Io { path, source })?;
        }
        Ok(())
    }

    pub fn usage(&self) -> GroupUsage {
        GroupUsage { cpu: self.cpu(), peak_memory_bytes: self.peak().number().unwrap_or(0) }
    }

    /// The processor time; nothing where version 1 lacks the controller that counts it.
    pub fn cpu(&self) -> Duration {
        match self {
            Group::V1(group) => group.cpu(),
            Group::V2(group) => group.cpu(),
        }
    }

    /// The memory that it holds now.
    pub fn memory_bytes(&self) -> Option<u64> {
        match self {
            Group::V1(group) => &group.memory,
            Group::V2(group) => &group.memory,
        }
        .number()
    }

    /// Lets `usage` report the peak from now on, where the kernel can.
    pub fn reset_peak(&self) {
        self.peak().reset();
    }

    /// Lets the other jailed processes have a processor before this one, if the kernel can.
    pub fn step_back(&self) -> Option<SteppedBack> {
        let path = self.idle_folder()?.join(IDLE_FILE);
        let mut file = fs::OpenOptions::new().write(true).open(path).ok()?;
        file.write_all(b"1").ok()?;
        Some(SteppedBack { file })
    }

    /// How many processes the kernel killed here for want of memory.
    pub fn out_of_memory_kills(&self) -> u64 {
        match self {
            Group::V1(group) => group.out_of_memory_kills(),
            Group::V2(group) => group.out_of_memory_kills(),
        }
    }

    /// Removes the group of a process that has been reaped.
    pub fn remove(&self) {
        for folder in self.folders() {
            remove_group(folder);
        }
    }

    fn idle_folder(&self) -> Option<&Path> {
        match self {
            Group::V1(group) => group.idle_folder.as_deref(),
            Group::V2(group) => group.idle_folder.as_deref(),
        }
    }

    fn peak(&self) -> &Counter {
        match self {
            Group::V1(group) => &group.peak,
            Group::V2(group) => &group.peak,
        }
    }

    fn folders(&self) -> &[PathBuf] {
        match self {
            Group::V1(group) => &group.folders,
            Group::V2(group) => &group.folders,
        }
    }
}

/// A group that has stepped back, until this is dropped.
#[derive(Debug)]
pub struct SteppedBack {
    file: fs::File,
}

impl Drop for SteppedBack {
    fn drop(&mut self) {
        // All that can go wrong is that the group is gone.
        let _ = self.file.write_at(b"0", 0);
    }
}

/// Removes a group and those below it.
fn remove_tree(folder: &Path) {
    for child in fs::read_dir(folder).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path());
        }
    }
    remove_group(folder);
}

/// Removes a group that has none below it. The kernel may need a moment after the last process is
/// reaped (EBUSY); what stays is removed at the next start.
fn remove_group(folder: &Path) {
    const ATTEMPTS_MAX: u32 = 50;
    for _ in 0..ATTEMPTS_MAX {
        match fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => std::thread::yield_now(),
            Ok(()) => return,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(group = %folder.display(), %error, "a control group could not be removed");
                }
                return;
            }
        }
    }
    tracing::warn!(group = %folder.display(), "a control group is still busy; the next start removes it");
}

/// Kills what a supervisor that is gone left in its groups, and removes them.
fn remove_leftovers(folder: &Path) {
    for child in fs::read_dir(folder).into_iter().flatten().flatten() {
        let procs = fs::read_to_string(child.path().join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| line.parse().ok()) {
            // The process may just have ended by itself.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path());
        }
    }
}

fn create_folder(path: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(path).map_err(|source| CgroupError::Io { path: path.to_owned(), source })
}

/// One unbuffered write, whose error is the kernel's answer.
fn write(folder: &Path, file: &str, value: impl std::fmt::Display) -> Result<(), CgroupError> {
    let path = folder.join(file);
    fs::write(&path, value.to_string()).map_err(|source| CgroupError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GroupLimits = GroupLimits { memory_bytes_max: 1 << 20, threads_max: 5, cores_max: 2 };

    /// What a group writes when it steps back, and when it comes forward.
    fn stepped_back(group: &Group, folder: &Path) -> [String; 2] {
        let read = || fs::read_to_string(folder.join(IDLE_FILE)).unwrap();
        let stepped_back = group.step_back();
        let back = read();
        drop(stepped_back);
        [back, read()]
    }

    #[test]
    fn version_1_is_used_where_version_2_has_no_controllers() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().display();
        let mounts = Mounts {
            mountinfo: format!(
                "1 1 0:1 / {at}/memory rw - cgroup cgroup rw,memory\n2 1 0:1 / {at}/pids rw - cgroup cgroup rw,pids\n\
                 3 1 0:1 / {at}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n4 1 0:1 / {at}/unified rw - cgroup2 cgroup2 rw\n"
            ),
            memberships: "3:memory:/own\n2:pids:/\n1:cpu,cpuacct:/\n0::/\n".to_owned(),
        };
        for folder in ["memory/own", "pids", "cpu/cloister-t", "unified"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        assert!(!Hierarchy::prepare(&mounts, "t").unwrap().lets_step_back(), "a kernel before 5.15");
        fs::write(root.path().join("cpu/cloister-t/cpu.idle"), "0\n").unwrap();
        fs::write(root.path().join("unified/cgroup.controllers"), "").unwrap();
        let hierarchy = Hierarchy::prepare(&mounts, "t").unwrap();
        assert_eq!(hierarchy.version(), 1);
        let group = hierarchy.create("guest-1", LIMITS).unwrap();
        let memory = root.path().join("memory/own/cloister-t/guest-1");
        assert_eq!(fs::read_to_string(memory.join("memory.limit_in_bytes")).unwrap(), "1048576");
        assert_eq!(fs::read_to_string(root.path().join("pids/cloister-t/guest-1/pids.max")).unwrap(), "5");
        let cpu = root.path().join("cpu/cloister-t/guest-1/cpu.cfs_quota_us");
        assert_eq!(fs::read_to_string(cpu).unwrap(), "200000");
        assert_eq!(group.procs_files().len(), 3);
        assert!(hierarchy.lets_step_back());
        assert_eq!(stepped_back(&group, &root.path().join("cpu/cloister-t/guest-1")), ["1", "0"]);
        fs::write(memory.join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
            .unwrap();
        assert_eq!(group.out_of_memory_kills(), 2);
    }

    #[test]
    fn version_2_moves_the_supervisor_to_a_leaf_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        let mounts = Mounts {
            mountinfo: format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", at.display()),
            memberships: "0::/service\n".to_owned(),
        };
        fs::create_dir_all(at.join("service")).unwrap();
        fs::write(at.join("service/cgroup.type"), "domain\n").unwrap();
        fs::write(at.join("service/cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(at.join("service/cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        assert!(!Hierarchy::prepare(&mounts, "t").unwrap().lets_step_back(), "a kernel before 5.15");
        fs::write(at.join("service/cloister-t/cpu.idle"), "0\n").unwrap();
        let hierarchy = Hierarchy::prepare(&mounts, "t").unwrap();
        assert_eq!((hierarchy.version(), hierarchy.lets_step_back()), (2, true));
        let moved = fs::read_to_string(at.join("service/supervisor/cgroup.procs")).unwrap();
        assert_eq!(moved, std::process::id().to_string());
        let folder = at.join("service/cloister-t/guest-1");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cpu.stat"), "usage_usec 1500\nuser_usec 1000\n").unwrap();
        fs::write(folder.join("memory.peak"), "77\n").unwrap();
        let group = hierarchy.create("guest-1", LIMITS).unwrap();
        for (file, value) in [
            ("memory.max", "1048576"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("pids.max", "5"),
            ("cpu.max", "200000 100000"),
        ] {
            assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), value, "{file}");
        }
        assert_eq!(group.usage(), GroupUsage { cpu: Duration::from_micros(1500), peak_memory_bytes: 77 });
        assert_eq!(stepped_back(&group, &folder), ["1", "0"]);
        group.reset_peak();
        assert!(fs::read_to_string(folder.join("memory.peak")).unwrap().starts_with('0'));
    }

    #[test]
    fn releases_have_versions() {
        assert_eq!(version_of("6.18.44-fc-v669\n"), Some((6, 18)));
        assert_eq!(version_of("6.12-rc1"), Some((6, 12)));
        assert_eq!(version_of(""), None);
        assert!(version_of("6.1.0-39-amd64") < Some((6, 12)));
    }

    #[test]
    fn without_controllers_there_is_no_hierarchy() {
        let mounts = Mounts { mountinfo: String::new(), memberships: String::new() };
        assert!(matches!(Hierarchy::prepare(&mounts, "t"), Err(CgroupError::NoHierarchy)));
    }
}
