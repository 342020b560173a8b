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

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The answer to every system call that no rule names.
    pub default: Action,
    pub rlimits: Rlimits,
    pub rule: Vec<Rule>,
}

#[derive(Debug, thiserror::Error)]
#[error("profiles/jail/{kind}.toml: {source}")]
pub struct ProfileError {
    kind: Kind,
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
        toml::from_str(text).map_err(|source| ProfileError { kind, source })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_profile_parses_and_gives_a_reason_for_every_rule() {
        for kind in Kind::ALL {
            let profile = Profile::load(kind).unwrap();
            for rule in &profile.rule {
                assert!(rule.reason.len() >= 10, "{kind}: {:?} has no reason", rule.syscalls);
            }
        }
    }

    #[test]
    fn no_rule_is_redundant() {
        for kind in Kind::ALL {
            let profile = Profile::load(kind).unwrap();
            let mut unconditional = BTreeSet::new();
            let mut conditional = BTreeSet::new();
            for rule in &profile.rule {
                assert!(!rule.syscalls.is_empty(), "{kind}: a rule without system calls");
                assert_ne!(
                    (rule.action, rule.when.is_empty()),
                    (profile.default, true),
                    "{kind}: {:?}",
                    rule.syscalls
                );
                for syscall in &rule.syscalls {
                    if rule.when.is_empty() {
                        assert!(unconditional.insert(syscall.clone()), "{kind}: {syscall} stands twice");
                    } else {
                        conditional.insert(syscall.clone());
                    }
                }
            }
            let both: Vec<_> = unconditional.intersection(&conditional).collect();
            assert!(both.is_empty(), "{kind}: {both:?} have rules with and without conditions");
        }
    }

    #[test]
    fn a_killing_or_guest_profile_never_allows_what_an_escape_needs() {
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
        for kind in Kind::ALL {
            for rule in Profile::load(kind).unwrap().rule {
                for syscall in &rule.syscalls {
                    assert!(
                        rule.action != Action::Allow || !forbidden.contains(&syscall.as_str()),
                        "{kind} allows {syscall}"
                    );
                }
            }
        }
    }
}
