//! The kernel policy of a process kind, as reviewed data: `profiles/jail/<kind>.toml`.
//!
//! The files are compiled into the binary, so that an installation cannot lose or edit them.

use serde::Deserialize;

use crate::Kind;

/// Rlimits in bytes, counts and seconds (`getrlimit(2)`); soft and hard limit are the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimits {
    pub core_bytes_max: u64,
    pub open_files_max: u64,
    pub file_bytes_max: u64,
    pub locked_bytes_max: u64,
    pub queued_bytes_max: u64,
    pub stack_bytes_max: u64,
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
    pub rlimits: Rlimits,
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
            Kind::Guest => include_str!("../../../profiles/jail/guest.toml"),
            Kind::Host => include_str!("../../../profiles/jail/host.toml"),
            Kind::Installer => include_str!("../../../profiles/jail/installer.toml"),
            Kind::Analyzer => include_str!("../../../profiles/jail/analyzer.toml"),
        };
        toml::from_str(text).map_err(|source| ProfileError { name: kind.as_str(), source })
    }
}

impl Filter {
    /// What is left to a guest after its boot: `profiles/jail/sealed.toml`.
    pub fn sealed() -> Result<Filter, ProfileError> {
        let text = include_str!("../../../profiles/jail/sealed.toml");
        toml::from_str(text).map_err(|source| ProfileError { name: "sealed", source })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every filter with its name.
    fn filters() -> Vec<(&'static str, Filter)> {
        let of_kinds = Kind::ALL.map(|kind| (kind.as_str(), Profile::load(kind).unwrap().filter));
        of_kinds.into_iter().chain([("sealed", Filter::sealed().unwrap())]).collect()
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
            let mut unconditional = BTreeSet::new();
            let mut conditional = BTreeSet::new();
            for rule in &filter.rule {
                assert!(!rule.syscalls.is_empty(), "{name}: a rule without system calls");
                assert_ne!(
                    (rule.action, rule.when.is_empty()),
                    (filter.default, true),
                    "{name}: {:?}",
                    rule.syscalls
                );
                for syscall in &rule.syscalls {
                    if rule.when.is_empty() {
                        assert!(unconditional.insert(syscall.clone()), "{name}: {syscall} stands twice");
                    } else {
                        conditional.insert(syscall.clone());
                    }
                }
            }
            let both: Vec<_> = unconditional.intersection(&conditional).collect();
            assert!(both.is_empty(), "{name}: {both:?} have rules with and without conditions");
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
            "unshare",
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
    fn the_seal_only_takes_away() {
        let allowed = |filter: &Filter| -> BTreeSet<String> {
            let rules = filter.rule.iter().filter(|rule| rule.action == Action::Allow);
            rules.flat_map(|rule| rule.syscalls.clone()).collect()
        };
        let boot = allowed(&Profile::load(Kind::Guest).unwrap().filter);
        let sealed = allowed(&Filter::sealed().unwrap());
        assert!(sealed.is_subset(&boot), "{:?}", sealed.difference(&boot).collect::<Vec<_>>());
        for gone in
            ["openat", "statx", "newfstatat", "clone", "execve", "seccomp", "readlink", "epoll_create1"]
        {
            assert!(boot.contains(gone) && !sealed.contains(gone), "{gone}");
        }
    }
}
