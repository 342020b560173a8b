//! What `/proc` says of a process (`proc(5)`), where no control group counts.

use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use super::cgroup::GroupUsage;

/// Nothing when the process is gone.
pub fn usage_of(pid: u32) -> Option<GroupUsage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(GroupUsage { cpu: cpu_of(&stat)?, peak_memory_bytes: peak_of(&status).unwrap_or(0) })
}

/// Fields 14 and 15, in ticks. The second field is the program's name in parentheses, which it may choose.
fn cpu_of(stat: &str) -> Option<Duration> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(Duration::from_millis(ticks * 1000 / u64::try_from(per_second).ok()?.max(1)))
}

fn peak_of(status: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let stat = "7 (a) b) R 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 7 0";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(2)));
        assert_eq!(peak_of("VmPeak: 5 kB\nVmHWM:\t    7 kB\n"), Some(7 * 1024));
        assert!(usage_of(std::process::id()).is_some_and(|usage| usage.peak_memory_bytes > 0));
    }
}
