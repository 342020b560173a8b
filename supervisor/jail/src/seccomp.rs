//! Compiles a filter into the stack of seccomp programs that the kernel runs.
//!
//! A seccompiler filter knows two answers only, so it becomes one program per answer other
//! than its default: `enosys`, `eperm` and `kill` pass everything they do not name, and the last
//! program is the allow-list. The kernel takes the strictest answer of all of them
//! (`seccomp(2)`: KILL before ERRNO before ALLOW), so the allow-list also lets through what an
//! earlier program answers with an error.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, TargetArch, compile_from_json};
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

/// Stands for the process id in programs that are compiled before their process exists: more than
/// `PID_MAX_LIMIT`, and no other number of a profile.
const ID_TO_COME: u32 = 0x7ace_1d00;

/// The programs in the order in which they are installed.
pub struct Programs(pub Vec<BpfProgram>);

#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp is implemented for x86_64 and aarch64 only")]
    Architecture,
    #[error("the profile does not compile: {0}")]
    Compile(String),
}

impl Programs {
    pub fn compile(filter: &Filter, facts: &Facts) -> Result<Programs, SeccompError> {
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

    /// Compiles for a process to come, which executes nothing: no secret address is named.
    pub fn compile_ahead(filter: &Filter) -> Result<Programs, SeccompError> {
        let own_pid = u64::from(ID_TO_COME);
        let facts = Facts { own_pid, secret_path: 0, secret_arguments: 0, secret_environment: 0 };
        Programs::compile(filter, &facts)
    }

    /// Puts in the process id that was not known yet.
    pub fn with_own_pid(mut self, own_pid: u32) -> Programs {
        for instruction in self.0.iter_mut().flatten() {
            if instruction.k == ID_TO_COME {
                instruction.k = own_pid;
            }
        }
        self
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
    fn a_filter_that_was_compiled_ahead_is_the_one_that_is_compiled_for_the_process() {
        let filter = Profile::load(Kind::Guest).unwrap().filter;
        let facts = Facts { own_pid: 4711, secret_path: 0, secret_arguments: 0, secret_environment: 0 };
        let wanted = Programs::compile(&filter, &facts).unwrap();
        let found = Programs::compile_ahead(&filter).unwrap().with_own_pid(4711);
        assert_eq!(found.0, wanted.0);
        assert_ne!(found.0, Programs::compile_ahead(&filter).unwrap().0);
    }

    #[test]
    fn an_unknown_system_call_is_refused() {
        let text = "default = 'kill'\n[[rule]]\nsyscalls = ['read', 'no_such_call']\naction = 'allow'\nreason = 'to be refused'\n";
        let filter: Filter = toml::from_str(text).unwrap();
        assert!(Programs::compile(&filter, &FACTS).is_err());
    }
}
