//! The kernel policy of a process kind, as reviewed data: `profiles/jail/<kind>.toml`.
//!
//! The files are compiled into the binary, so that an installation cannot lose or edit them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Access, Kind};

/// Rlimits in bytes, counts and seconds (`getrlimit(2)`); soft and hard limit are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimits {
    pub core_bytes_max: u64,
    pub open_files_max: u64,
    pub file_bytes_max: u64,
    pub locked_bytes_max: u64,
    pub queued_bytes_max: u64,
    pub stack_bytes_max: u64,
}

/// A namespace of its own (`namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    Mount,
    Network,
    Ipc,
    Uts,
}

/// What one process may use at once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupLimits {
    pub memory_bytes_max: u64,
    pub threads_max: u64,
    /// Processor time per time.
    pub cores_max: u64,
}

/// A Landlock right on files (`landlock(7)`). Devices, and what else is not here, is never granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    Execute,
    ReadFile,
    ReadDir,
    WriteFile,
    Truncate,
    MakeReg,
    MakeDir,
    MakeSym,
    MakeSock,
    MakeFifo,
    RemoveFile,
    RemoveDir,
    Refer,
    ResolveUnix,
}

/// What the kernel answers when a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Allow,
    /// "No such system call": the C library then takes another way.
    Enosys,
    /// "Not permitted": the caller sees an ordinary error.
    Eperm,
    /// "Permission denied", as for a file that may not be opened.
    Eacces,
    /// The process ends with SIGSYS.
    Kill,
}

/// A number, or one of the values that only jail-exec knows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Number(u64),
    Named(NamedValue),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedValue {
    OwnPid,
    SecretPath,
    SecretArguments,
    SecretEnvironment,
}

/// A comparison of one system call argument.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The argument's index, from 0.
    pub argument: u8,
    /// Compare the low 32 bits only, as the kernel does for `int` arguments.
    #[serde(default)]
    pub int: bool,
    /// Compare only these bits.
    pub mask: Option<u64>,
    pub is: Comparison,
    pub value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    Equal,
    NotEqual,
    AtMost,
}

/// System calls that share an answer, and why.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub syscalls: Vec<String>,
    pub action: Action,
    /// The rule is for guests with V8's compiler only, or for those without; else for both.
    pub jit: Option<bool>,
    /// All of them must hold; an empty list always holds.
    #[serde(default)]
    pub when: Vec<Condition>,
    pub reason: String,
}

/// The answers to system calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The answer to every system call that no rule names.
    pub default: Action,
    pub rule: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What is kept of root's power, by the names of `capabilities(7)`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    pub namespaces: Vec<Namespace>,
    pub rlimits: Rlimits,
    pub cgroup: CgroupLimits,
    /// A kind of access that is not named cannot be granted to a process of this kind.
    pub landlock: BTreeMap<Access, Vec<Right>>,
    pub filter: Filter,
}

#[derive(Debug, thiserror::Error)]
#[error("profiles/jail/{name}.toml: {source}")]
pub struct ProfileError {
    name: &'static str,
    source: toml::de::Error,
}

impl Profile {
    pub fn load(kind: Kind) -> Result<Profile, ProfileError> {
        let text = match kind {
            Kind::Zygote => include_str!("../../../profiles/jail/zygote.toml"),
            Kind::Guest => include_str!("../../../profiles/jail/guest.toml"),
            Kind::Host => include_str!("../../../profiles/jail/host.toml"),
            Kind::Installer => include_str!("../../../profiles/jail/installer.toml"),
            Kind::Analyzer => include_str!("../../../profiles/jail/analyzer.toml"),
        };
        toml::from_str(text).map_err(|source| ProfileError { name: kind.as_str(), source })
    }
}

impl Filter {
    /// The filter of a process with V8's compiler, or without.
    pub fn for_jit(mut self, jit: bool) -> Filter {
        self.rule.retain(|rule| rule.jit.is_none_or(|wanted| wanted == jit));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every filter with its name, with V8's compiler and without.
    fn filters() -> Vec<(&'static str, Filter)> {
        let all = Kind::ALL.map(|kind| (kind.as_str(), Profile::load(kind).unwrap().filter));
        all.into_iter()
            .flat_map(|(name, filter)| [true, false].map(|jit| (name, filter.clone().for_jit(jit))))
            .collect()
    }

    /// Whether `rule` answers `syscall` in every case in which the conditions hold.
    fn covers(rule: &Rule, syscall: &str, when: &[Condition]) -> bool {
        rule.syscalls.iter().any(|name| name == syscall)
            && rule.when.iter().all(|condition| when.contains(condition))
    }

    #[test]
    fn every_rule_has_a_reason() {
        for (name, filter) in filters() {
            for rule in &filter.rule {
                assert!(rule.reason.len() >= 10, "{name}: {:?} has no reason", rule.syscalls);
            }
        }
    }

    #[test]
    fn no_rule_is_redundant() {
        for (name, filter) in filters() {
            for (index, rule) in filter.rule.iter().enumerate() {
                assert!(!rule.syscalls.is_empty(), "{name}: a rule without system calls");
                assert_ne!((rule.action, rule.when.is_empty()), (filter.default, true), "{name}: {rule:?}");
                for syscall in &rule.syscalls {
                    let mut others = filter.rule.iter().enumerate().filter(|(other, _)| *other != index);
                    let again = others.find(|(_, other)| covers(other, syscall, &rule.when));
                    assert!(again.is_none(), "{name}: {syscall} is answered by {again:?} already");
                    let once = rule.syscalls.iter().filter(|name| *name == syscall).count();
                    assert_eq!(once, 1, "{name}: {syscall} stands twice");
                }
            }
        }
    }

    #[test]
    fn without_a_compiler_nothing_in_memory_is_executable() {
        const PROT_EXEC: u64 = 4;
        for name in ["zygote", "guest", "analyzer"] {
            let (_, filter) = filters().into_iter().filter(|(found, _)| *found == name).nth(1).unwrap();
            for rule in &filter.rule {
                for call in rule.syscalls.iter().filter(|call| ["mmap", "mprotect"].contains(&call.as_str()))
                {
                    let protection = rule.when.iter().find(|condition| condition.argument == 2).unwrap();
                    let not_executable = protection.is == Comparison::AtMost
                        && matches!(protection.value, Value::Number(value) if value < PROT_EXEC);
                    let of_a_file =
                        name != "guest" && call == "mmap" && rule.when.iter().any(is_not_anonymous);
                    assert!(not_executable || of_a_file, "{name}: {rule:?}");
                }
            }
        }
    }

    /// `flags & MAP_ANONYMOUS == 0`
    fn is_not_anonymous(condition: &Condition) -> bool {
        const MAP_ANONYMOUS: u64 = 0x20;
        condition.argument == 3
            && condition.mask.is_some_and(|mask| mask & MAP_ANONYMOUS != 0)
            && matches!(condition.value, Value::Number(value) if value & MAP_ANONYMOUS == 0)
    }

    #[test]
    fn a_guest_can_be_granted_no_file_and_its_zygote_nothing_to_write_or_to_connect_to() {
        let granted = |kind| -> Vec<Access> { Profile::load(kind).unwrap().landlock.into_keys().collect() };
        assert_eq!(granted(Kind::Guest), []);
        for kind in [Kind::Zygote, Kind::Analyzer] {
            assert_eq!(granted(kind), [Access::Read, Access::Execute], "{kind}");
        }
    }

    #[test]
    fn no_filter_allows_what_an_escape_needs() {
        let forbidden = [
            "ptrace",
            "fork",
            "vfork",
            "clone3",
            "mount",
            "setns",
            "bpf",
            "io_uring_setup",
            "kill",
            "pidfd_open",
        ];
        for (name, filter) in filters() {
            for rule in filter.rule.iter().filter(|rule| rule.action == Action::Allow) {
                for syscall in &rule.syscalls {
                    assert!(!forbidden.contains(&syscall.as_str()), "{name} allows {syscall}");
                }
            }
        }
    }

    #[test]
    fn only_a_zygote_has_powers_and_it_can_use_them_to_confine_only() {
        for kind in Kind::ALL {
            let profile = Profile::load(kind).unwrap();
            let unshares = profile.filter.rule.iter().any(|rule| rule.syscalls == ["unshare"]);
            assert_eq!(
                (kind == Kind::Zygote, !profile.capabilities.is_empty()),
                (unshares, unshares),
                "{kind}"
            );
            for name in profile.capabilities {
                assert!(name.parse::<caps::Capability>().is_ok(), "{name}");
            }
        }
        let zygote = Profile::load(Kind::Zygote).unwrap();
        let guest = Profile::load(Kind::Guest).unwrap();
        assert_eq!((zygote.rlimits, zygote.namespaces), (guest.rlimits, guest.namespaces));
    }

    #[test]
    fn the_seal_only_takes_away() {
        let allowed = |filter: Filter| -> Vec<Rule> {
            filter.rule.into_iter().filter(|rule| rule.action == Action::Allow).collect()
        };
        for jit in [true, false] {
            let boot = allowed(Profile::load(Kind::Zygote).unwrap().filter.for_jit(jit));
            let sealed = allowed(Profile::load(Kind::Guest).unwrap().filter.for_jit(jit));
            for rule in &sealed {
                for syscall in &rule.syscalls {
                    let allowed_before = boot.iter().any(|before| covers(before, syscall, &rule.when));
                    assert!(allowed_before, "{syscall} is allowed by the seal and not before it: {rule:?}");
                }
            }
            for gone in [
                "openat",
                "statx",
                "clone",
                "execve",
                "seccomp",
                "readlink",
                "epoll_create1",
                "unshare",
                "setresuid",
            ] {
                assert!(boot.iter().any(|rule| rule.syscalls.iter().any(|name| name == gone)), "{gone}");
                assert!(!sealed.iter().any(|rule| rule.syscalls.iter().any(|name| name == gone)), "{gone}");
            }
        }
    }
}
