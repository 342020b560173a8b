//! What the kernel says about a supervisor's jailed processes.

use std::fs;
use std::path::PathBuf;

/// A jailed process as `/proc` shows it.
#[derive(Debug)]
pub struct Jailed {
    pub pid: i32,
    command: String,
    status: String,
}

impl Jailed {
    /// `zygote`, `guest`, `host` or `other`.
    pub fn kind(&self) -> &str {
        match self.status("Name") {
            // A guest has the command line of its zygote; both give themselves a name.
            name @ ("zygote" | "guest") => name,
            _ if self.command.contains("host.cjs") => "host",
            _ => "other",
        }
    }

    /// A field of `/proc/PID/status`.
    pub fn status(&self, field: &str) -> &str {
        self.status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
    }

    /// Kilobytes of memory that it wrote to and shares with nobody.
    pub fn own_memory(&self) -> u64 {
        let rollup = fs::read_to_string(self.path("smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Kilobytes of executable memory that no file stands behind.
    pub fn executable_memory(&self) -> u64 {
        let maps = fs::read_to_string(self.path("maps")).unwrap();
        let ranges = maps.lines().filter_map(|line| {
            let [range, rights, _, _, file, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                return None;
            };
            let (start, end) = range.split_once('-')?;
            (rights.contains('x') && file == "0" && !line.ends_with(']')).then_some((start, end))
        });
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        ranges.map(|(start, end)| (address(end) - address(start)) / 1024).sum()
    }

    /// `/proc/PID/limits`
    pub fn rlimits(&self) -> String {
        fs::read_to_string(self.path("limits")).unwrap()
    }

    /// The groups that it is in.
    pub fn groups(&self) -> String {
        fs::read_to_string(self.path("cgroup")).unwrap()
    }

    /// Whether its control group lets all others have a processor first.
    pub fn has_stepped_back(&self) -> bool {
        let groups = fs::read_to_string(self.path("cgroup")).unwrap_or_default();
        let mut files = groups.lines().filter_map(|line| {
            let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
            Some(format!("/sys/fs/cgroup/{controllers}{group}/cpu.idle"))
        });
        files.any(|file| fs::read_to_string(file).is_ok_and(|text| text == "1\n"))
    }

    /// The names in its root directory.
    pub fn root(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("root"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Its network namespace.
    pub fn network(&self) -> String {
        fs::read_link(self.path("ns/net")).unwrap().to_string_lossy().into_owned()
    }

    /// The internet sockets in its network namespace.
    pub fn inet_sockets(&self) -> usize {
        let lines = |table: &str| fs::read_to_string(self.path(table)).unwrap().lines().count();
        // Each table has a head.
        ["net/tcp", "net/udp"].iter().map(|table| lines(table) - 1).sum()
    }

    /// Its descriptors, each with what tells its file from others: the kernel's name of it, and the number of
    /// an event counter. An `epoll` instance has neither and is left out.
    pub fn open_files(&self) -> Vec<(String, String)> {
        let names = fs::read_dir(self.path("fd")).unwrap();
        let numbers = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let file = |number: &String| {
            let link = fs::read_link(self.path("fd").join(number)).ok()?.to_string_lossy().into_owned();
            let about = fs::read_to_string(self.path("fdinfo").join(number)).ok()?;
            match about.lines().find_map(|line| line.strip_prefix("eventfd-id:")) {
                Some(id) => Some(format!("{link} {}", id.trim())),
                None if link.starts_with("anon_inode:") => None,
                None => Some(link),
            }
        };
        numbers.filter_map(|number| file(&number).map(|file| (number, file))).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

/// The number of a process's scheduling policy, field 41 in `proc_pid_stat(5)`.
pub fn scheduling_policy(pid: i32) -> Option<i32> {
    stat_field(pid, 41)?.parse().ok()
}

/// How long a process has computed, in clock ticks: field 14.
pub fn processor_ticks(pid: i32) -> Option<u64> {
    stat_field(pid, 14)?.parse().ok()
}

fn stat_field(pid: i32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(number - 3).map(str::to_owned)
}

/// The children of a process that are jailed Node processes or about to become one.
pub fn children(parent: i32) -> Vec<Jailed> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        // In this order, a command line of Node comes with the status that Node has.
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let jailed = Jailed { pid, command: command.replace('\0', " "), status };
        (jailed.status("PPid") == parent.to_string()).then_some(jailed)
    })
    .collect()
}

/// The folders of control groups whose name contains `part`, in every hierarchy.
pub fn control_groups(part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(part) {
                    found.push(entry.path());
                }
                pending.push(entry.path());
            }
        }
    }
    found
}
