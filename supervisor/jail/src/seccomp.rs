//! Compiles a filter into the stack of seccomp programs that the kernel runs.
//!
//! A seccompiler filter knows two answers only, so it becomes one program per answer other
//! than its default: `enosys`, `eperm` and `kill` pass everything they do not name, and the last
//! program is the allow-list. The kernel takes the strictest answer of all of them
//! (`seccomp(2)`: KILL before ERRNO before ALLOW), so the allow-list also lets through what an
//! earlier program answers with an error.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, TargetArch, compile_from_json, sock_filter};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::profile::{Action, Comparison, Condition, Filter, NamedValue, Value};

/// What only the process that is being sealed knows.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub own_pid: u64,
    /// Addresses of the three execve arguments: known to nobody after the exec.
    pub secret_path: u64,
    pub secret_arguments: u64,
    pub secret_environment: u64,
}

/// Stand for facts in programs that are compiled before their process exists: no other number of a profile has
/// such a half.
const TO_COME: Facts = Facts {
    own_pid: 0x7ace_1d00,
    secret_path: 0x7ace_1d01_7ace_1d02,
    secret_arguments: 0x7ace_1d03_7ace_1d04,
    secret_environment: 0x7ace_1d05_7ace_1d06,
};

impl Facts {
    /// The numbers of 32 bits that the kernel compares, each fact's high one first.
    fn halves(&self) -> impl Iterator<Item = u32> {
        let facts = [self.own_pid, self.secret_path, self.secret_arguments, self.secret_environment];
        facts.into_iter().flat_map(|fact| {
            let [a, b, c, d, e, f, g, h] = fact.to_be_bytes();
            [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
        })
    }
}

/// The programs in the order in which they are installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<Instruction>>", into = "Vec<Vec<Instruction>>")]
pub struct Programs(Vec<BpfProgram>);

/// `struct sock_filter` of `linux/filter.h`: code, the two jumps, and the operand.
type Instruction = (u16, u8, u8, u32);

impl From<Programs> for Vec<Vec<Instruction>> {
    fn from(Programs(programs): Programs) -> Self {
        let instruction = |one: sock_filter| (one.code, one.jt, one.jf, one.k);
        programs.into_iter().map(|program| program.into_iter().map(instruction).collect()).collect()
    }
}

impl TryFrom<Vec<Vec<Instruction>>> for Programs {
    type Error = SeccompError;

    fn try_from(programs: Vec<Vec<Instruction>>) -> Result<Self, SeccompError> {
        // A process that installs nothing would be held by nothing.
        if programs.is_empty() {
            return Err(SeccompError::Empty);
        }
        let instruction = |(code, jt, jf, k): Instruction| sock_filter { code, jt, jf, k };
        let program = |program: Vec<Instruction>| program.into_iter().map(instruction).collect();
        Ok(Programs(programs.into_iter().map(program).collect()))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp is implemented for x86_64 and aarch64 only")]
    Architecture,
    #[error("the profile does not compile: {0}")]
    Compile(String),
    #[error("there is no system call filter in it")]
    Empty,
}

impl Programs {
    fn compile(filter: &Filter, facts: &Facts) -> Result<Programs, SeccompError> {
        let architecture =
            TargetArch::try_from(std::env::consts::ARCH).map_err(|_| SeccompError::Architecture)?;
        let mut programs = Vec::new();
        for answer in [Action::Enosys, Action::Eperm, Action::Eacces, Action::Kill] {
            let named = entries(filter, facts, |action| action == answer);
            if answer != filter.default && !named.is_empty() {
                programs.push(program(architecture, "allow".into(), json_action(answer), named)?);
            }
        }
        let passed = entries(filter, facts, |action| action != Action::Kill && action != filter.default);
        programs.push(program(architecture, json_action(filter.default), "allow".into(), passed)?);
        Ok(Programs(programs))
    }

    /// Compiles for processes to come, once for all of them.
    pub fn ahead(filter: &Filter) -> Result<Programs, SeccompError> {
        Programs::compile(filter, &TO_COME)
    }

    /// Puts in what was not known yet, and installs the programs. What they forbid is forbidden from here on.
    pub fn install(mut self, facts: &Facts) -> Result<(), seccompiler::Error> {
        self.put_in(facts);
        self.0.iter().try_for_each(|program| seccompiler::apply_filter(program))
    }

    fn put_in(&mut self, facts: &Facts) {
        // What stands for the high half of a process id is no number of its own, and a process id has none.
        let known: BTreeMap<u32, u32> =
            TO_COME.halves().zip(facts.halves()).filter(|(to_come, _)| *to_come != 0).collect();
        for instruction in self.0.iter_mut().flatten() {
            if let Some(fact) = known.get(&instruction.k) {
                instruction.k = *fact;
            }
        }
    }
}

fn program(
    architecture: TargetArch,
    mismatch: Json,
    matched: Json,
    filter: Vec<Json>,
) -> Result<BpfProgram, SeccompError> {
    let document = json!({
        "program": { "mismatch_action": mismatch, "match_action": matched, "filter": filter }
    });
    let mut compiled = compile_from_json(document.to_string().as_bytes(), architecture)
        .map_err(|error| SeccompError::Compile(error.to_string()))?;
    compiled.remove("program").ok_or_else(|| SeccompError::Compile("seccompiler lost the program".to_owned()))
}

fn entries(filter: &Filter, facts: &Facts, wanted: impl Fn(Action) -> bool) -> Vec<Json> {
    let mut conditional: BTreeMap<&str, Vec<Json>> = BTreeMap::new();
    let mut unconditional: BTreeMap<&str, Json> = BTreeMap::new();
    for rule in filter.rule.iter().filter(|rule| wanted(rule.action)) {
        for syscall in &rule.syscalls {
            if rule.when.is_empty() {
                unconditional.insert(syscall, json!({ "syscall": syscall }));
            } else {
                let arguments: Vec<Json> =
                    rule.when.iter().map(|condition| json_condition(condition, facts)).collect();
                conditional
                    .entry(syscall)
                    .or_default()
                    .push(json!({ "syscall": syscall, "args": arguments }));
            }
        }
    }
    conditional.retain(|syscall, _| !unconditional.contains_key(syscall));
    unconditional.into_values().chain(conditional.into_values().flatten()).collect()
}

fn json_condition(condition: &Condition, facts: &Facts) -> Json {
    let value = match &condition.value {
        Value::Number(number) => *number,
        Value::Named(NamedValue::OwnPid) => facts.own_pid,
        Value::Named(NamedValue::SecretPath) => facts.secret_path,
        Value::Named(NamedValue::SecretArguments) => facts.secret_arguments,
        Value::Named(NamedValue::SecretEnvironment) => facts.secret_environment,
    };
    let operator = match (condition.is, condition.mask) {
        (Comparison::Equal, Some(mask)) => json!({ "masked_eq": mask }),
        (Comparison::Equal, None) => json!("eq"),
        (Comparison::NotEqual, _) => json!("ne"),
        (Comparison::AtMost, _) => json!("le"),
    };
    let width = if condition.int { "dword" } else { "qword" };
    json!({ "index": condition.argument, "type": width, "op": operator, "val": value })
}

fn json_action(action: Action) -> Json {
    match action {
        Action::Allow => json!("allow"),
        Action::Enosys => json!({ "errno": nix::libc::ENOSYS }),
        Action::Eperm => json!({ "errno": nix::libc::EPERM }),
        Action::Eacces => json!({ "errno": nix::libc::EACCES }),
        Action::Kill => json!("kill_process"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Profile};

    const FACTS: Facts = Facts { own_pid: 7, secret_path: 8, secret_arguments: 9, secret_environment: 10 };

    #[test]
    fn every_filter_compiles_and_names_known_system_calls_only() {
        for filter in Kind::ALL.map(|kind| Profile::load(kind).unwrap().filter) {
            let programs = Programs::compile(&filter, &FACTS).unwrap();
            assert!(programs.0.iter().all(|program| program.len() <= 4096));
        }
    }

    #[test]
    fn what_was_compiled_ahead_and_sent_is_what_is_compiled_for_the_process() {
        let facts = Facts {
            own_pid: 4711,
            secret_path: 0x7f01_0203_0000,
            secret_arguments: 0x3e04_0506_1000,
            secret_environment: 0x1d07_0809_2000,
        };
        for (kind, jit) in Kind::ALL.into_iter().flat_map(|kind| [(kind, true), (kind, false)]) {
            let filter = Profile::load(kind).unwrap().filter.for_jit(jit);
            let ahead = Programs::ahead(&filter).unwrap();
            let sent = serde_json::to_string(&ahead).unwrap();
            let mut found: Programs = serde_json::from_str(&sent).unwrap();
            assert_eq!(found, ahead);
            found.put_in(&facts);
            assert_eq!(found, Programs::compile(&filter, &facts).unwrap(), "{kind}");
        }
    }

    #[test]
    fn a_filter_without_programs_is_refused() {
        assert!(serde_json::from_str::<Programs>("[[[6, 0, 0, 0]]]").is_ok());
        assert!(serde_json::from_str::<Programs>("[]").is_err());
    }

    #[test]
    fn no_number_of_a_filter_is_taken_for_one_to_come() {
        let stands: Vec<u32> = TO_COME.halves().filter(|half| *half != 0).collect();
        for filter in Kind::ALL.map(|kind| Profile::load(kind).unwrap().filter) {
            let programs = Programs::compile(&filter, &FACTS).unwrap();
            assert!(programs.0.iter().flatten().all(|instruction| !stands.contains(&instruction.k)));
        }
    }

    #[test]
    fn an_unknown_system_call_is_refused() {
        let text = "default = 'kill'\n[[rule]]\nsyscalls = ['read', 'no_such_call']\naction = 'allow'\nreason = 'to be refused'\n";
        let filter: Filter = toml::from_str(text).unwrap();
        assert!(Programs::compile(&filter, &FACTS).is_err());
    }
}
