//! The policy of an environment: `profiles/<name>.toml`, compiled into the binary.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which profile an environment runs under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyName {
    Strict,
    #[default]
    Standard,
    Extended,
    Agent,
}

/// The limits that a policy gives to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Wall time of one execution, from the start of the program to its end.
    pub time_max: Duration,
    /// Processor time of one execution in its guest.
    pub cpu_time_max: Duration,
    /// Memory for the program's own values, beside Node itself.
    pub memory_bytes_max: u64,
    /// Whether V8 may compile to machine code.
    pub jit: bool,
}

/// A profile as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    timeout_seconds: u64,
    cpu_seconds: u64,
    memory_megabytes: u64,
    jit: bool,
    #[expect(dead_code, reason = "every profile states for the reader what it is for")]
    purpose: String,
}

impl PolicyName {
    pub const ALL: [PolicyName; 4] =
        [PolicyName::Strict, PolicyName::Standard, PolicyName::Extended, PolicyName::Agent];

    pub fn as_str(self) -> &'static str {
        match self {
            PolicyName::Strict => "strict",
            PolicyName::Standard => "standard",
            PolicyName::Extended => "extended",
            PolicyName::Agent => "agent",
        }
    }

    pub fn load(self) -> Policy {
        let text = match self {
            PolicyName::Strict => include_str!("../../../profiles/strict.toml"),
            PolicyName::Standard => include_str!("../../../profiles/standard.toml"),
            PolicyName::Extended => include_str!("../../../profiles/extended.toml"),
            PolicyName::Agent => include_str!("../../../profiles/agent.toml"),
        };
        let file: File = toml::from_str(text).expect("a test reads every compiled-in profile");
        Policy {
            time_max: Duration::from_secs(file.timeout_seconds),
            cpu_time_max: Duration::from_secs(file.cpu_seconds),
            memory_bytes_max: file.memory_megabytes * super::limits::MEGABYTE,
            jit: file.jit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_readable_and_each_gives_more_than_the_one_before() {
        let policies = PolicyName::ALL.map(PolicyName::load);
        for pair in policies.windows(2) {
            assert!(pair[0].time_max < pair[1].time_max);
            assert!(pair[0].cpu_time_max < pair[1].cpu_time_max);
            assert!(pair[0].memory_bytes_max < pair[1].memory_bytes_max);
        }
    }
}
