//! What a contributor sends, as written and checked. Every violation is listed at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Isolation, Policy, PolicyName, limits};
use crate::egress::Target;
use crate::fields::{FieldError, FieldErrors};
use crate::ids::EnvironmentName;

/// The body of `POST /api/environments`, and `environment.toml` with the files beside it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct WireDefinition {
    pub environment_name: Option<String>,
    pub backend_urls: Option<BTreeMap<String, String>>,
    /// A package.json, as a text or as an object.
    pub package_json: Option<Value>,
    pub code_implementation: Option<String>,
    /// A package-lock.json, as a text or as an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_lock: Option<Value>,
    /// Packages whose install scripts are run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install_scripts: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Whether a loaded host is always ready, also after a start and when nobody came for long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_warm: Option<bool>,
}

/// Limits of an environment; they may lower what the policy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Wall time of one execution, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Memory of a program, in megabytes; a multiple of `limits::MEMORY_STEP_MEGABYTES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Processor time of one execution, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_api_calls: Option<u32>,
    /// Calls that a program waits for at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_api_calls: Option<u32>,
}

/// A checked definition.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    pub environment_name: EnvironmentName,
    pub backend_urls: BTreeMap<String, String>,
    pub package_json: String,
    pub code_implementation: String,
    #[serde(default)]
    pub install_scripts: Vec<String>,
    pub policy: PolicyName,
    pub limits: Limits,
    pub isolation: Isolation,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_warm: bool,
}

/// A checked definition and the lockfile that came with it.
pub type Checked = (Definition, Option<String>);

impl WireDefinition {
    pub fn check(self) -> Result<Checked, Vec<FieldError>> {
        let mut errors = FieldErrors::default();
        let name = errors
            .required("environmentName", self.environment_name)
            .and_then(|text| errors.keep("/environmentName", EnvironmentName::try_from(text)));
        let backends = errors.required("backendUrls", self.backend_urls);
        check_backends(&mut errors, backends.as_ref());
        let package_json = errors
            .required("packageJson", self.package_json)
            .and_then(|value| errors.keep("/packageJson", json_text(value, limits::PACKAGE_JSON_BYTES_MAX)))
            .filter(|text| errors.keep("/packageJson", check_package_json(text)).is_some());
        let package_lock = self
            .package_lock
            .and_then(|value| errors.keep("/packageLock", json_text(value, limits::PACKAGE_LOCK_BYTES_MAX)));
        let code = errors
            .required("codeImplementation", self.code_implementation)
            .filter(|text| errors.keep("/codeImplementation", check_code(text)).is_some());
        let install_scripts = self.install_scripts.unwrap_or_default();
        errors.keep("/installScripts", check_install_scripts(&install_scripts));
        let policy = self
            .policy
            .map_or(Some(PolicyName::default()), |word| errors.keep("/policy", parse_policy(&word)));
        let limits = self.limits.unwrap_or_default();
        if let Some(policy) = policy {
            check_limits(&mut errors, &limits, &policy.load());
        }
        match (name, backends, package_json, code, policy) {
            (
                Some(environment_name),
                Some(backend_urls),
                Some(package_json),
                Some(code_implementation),
                Some(policy),
            ) if errors.is_empty() => {
                let isolation = self.isolation.unwrap_or_default();
                let definition = Definition {
                    environment_name,
                    backend_urls,
                    package_json,
                    code_implementation,
                    install_scripts,
                    policy,
                    limits,
                    isolation,
                    keep_warm: self.keep_warm.unwrap_or_default(),
                };
                Ok((definition, package_lock))
            }
            _ => Err(errors.into_list()),
        }
    }
}

impl Definition {
    /// The policy with the environment's own limits.
    pub fn effective_policy(&self) -> Policy {
        let mut policy = self.policy.load();
        if let Some(timeout) = self.limits.timeout_ms {
            policy.time_max = policy.time_max.min(Duration::from_millis(timeout));
        }
        if let Some(cpu) = self.limits.cpu_ms {
            policy.cpu_time_max = policy.cpu_time_max.min(Duration::from_millis(cpu));
        }
        if let Some(memory) = self.limits.memory_mb {
            policy.memory_bytes_max = policy.memory_bytes_max.min(memory * limits::MEGABYTE);
        }
        policy
    }

    pub fn api_calls_max(&self) -> u32 {
        self.limits.max_api_calls.unwrap_or(limits::API_CALLS_MAX).min(limits::API_CALLS_MAX)
    }

    pub fn api_calls_concurrent_max(&self) -> u32 {
        let max = limits::API_CALLS_CONCURRENT_MAX;
        self.limits.max_concurrent_api_calls.unwrap_or(max).min(max)
    }

    /// Whether there is anything for npm to install.
    pub fn has_dependencies(&self) -> bool {
        let parsed: Value = serde_json::from_str(&self.package_json).unwrap_or_default();
        ["dependencies", "optionalDependencies", "peerDependencies"]
            .iter()
            .any(|field| parsed.get(field).and_then(Value::as_object).is_some_and(|list| !list.is_empty()))
    }
}

fn check_backends(errors: &mut FieldErrors, backends: Option<&BTreeMap<String, String>>) {
    let Some(backends) = backends else { return };
    if backends.len() > limits::BACKENDS_MAX {
        errors.refuse("/backendUrls", format!("at most {} backends are possible", limits::BACKENDS_MAX));
    }
    for (name, url) in backends {
        // The pointer escapes `~` and `/` (RFC 6901, section 3).
        let pointer = format!("/backendUrls/{}", name.replace('~', "~0").replace('/', "~1"));
        errors.keep(&pointer, Target::of_url(url).map_err(|error| error.to_string()));
    }
}

/// The text of a JSON object that was sent as a text or as an object.
fn json_text(value: Value, bytes_max: usize) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text,
        Value::Object(_) => serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?,
        _ => return Err("must be a JSON object, or a text that holds one".to_owned()),
    };
    if text.len() > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    match serde_json::from_str(&text) {
        Ok(Value::Object(_)) => Ok(text),
        Ok(_) => Err("must hold a JSON object".to_owned()),
        Err(error) => Err(format!("is not valid JSON: {error}")),
    }
}

fn check_package_json(text: &str) -> Result<(), String> {
    let parsed: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    for field in ["dependencies", "optionalDependencies", "peerDependencies"] {
        let texts =
            |list: &Value| list.as_object().is_some_and(|entries| entries.values().all(Value::is_string));
        if parsed.get(field).is_some_and(|list| !texts(list)) {
            return Err(format!("{field} must be an object of package names and version ranges"));
        }
    }
    Ok(())
}

fn check_code(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() > limits::IMPLEMENTATION_BYTES_MAX {
        return Err(format!("is larger than {} bytes", limits::IMPLEMENTATION_BYTES_MAX));
    }
    Ok(())
}

fn check_install_scripts(packages: &[String]) -> Result<(), String> {
    if packages.len() > limits::INSTALL_SCRIPTS_MAX {
        return Err(format!("at most {} packages are possible", limits::INSTALL_SCRIPTS_MAX));
    }
    let is_name = |name: &String| {
        !name.is_empty() && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
    };
    match packages.iter().find(|name| !is_name(name)) {
        Some(wrong) => Err(format!("{wrong:?} is not the name of a package")),
        None => Ok(()),
    }
}

fn parse_policy(word: &str) -> Result<PolicyName, String> {
    let known = PolicyName::ALL.map(PolicyName::as_str).join(", ");
    PolicyName::ALL
        .into_iter()
        .find(|policy| policy.as_str() == word)
        .ok_or(format!("must be one of: {known}"))
}

fn check_limits(errors: &mut FieldErrors, given: &Limits, policy: &Policy) {
    for (pointer, given, allowed) in [
        ("/limits/timeoutMs", given.timeout_ms, policy.time_max),
        ("/limits/cpuMs", given.cpu_ms, policy.cpu_time_max),
    ] {
        let max = u64::try_from(allowed.as_millis()).unwrap_or(u64::MAX);
        if given.is_some_and(|given| given == 0 || given > max) {
            errors.refuse(pointer, format!("must be between 1 and {max}, which the policy allows"));
        }
    }
    let step = limits::MEMORY_STEP_MEGABYTES;
    let memory_max = policy.memory_bytes_max / limits::MEGABYTE;
    if given.memory_mb.is_some_and(|memory| memory < step || memory > memory_max || memory % step != 0) {
        let detail = format!("must be a multiple of {step} up to {memory_max}, which the policy allows");
        errors.refuse("/limits/memoryMb", detail);
    }
    if given.max_api_calls.is_some_and(|calls| calls > limits::API_CALLS_MAX) {
        errors.refuse("/limits/maxApiCalls", format!("must be at most {}", limits::API_CALLS_MAX));
    }
    let concurrent_max = limits::API_CALLS_CONCURRENT_MAX;
    if given.max_concurrent_api_calls.is_some_and(|calls| calls == 0 || calls > concurrent_max) {
        let detail = format!("must be between 1 and {concurrent_max}");
        errors.refuse("/limits/maxConcurrentApiCalls", detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Value {
        serde_json::json!({
            "environmentName": "a", "backendUrls": { "b": "http://127.0.0.1:1" }, "packageJson": {}, "codeImplementation": "x"
        })
    }

    fn check(change: impl Fn(&mut Value)) -> Result<Checked, Vec<FieldError>> {
        let mut value = wire();
        change(&mut value);
        serde_json::from_value::<WireDefinition>(value).unwrap().check()
    }

    #[test]
    fn package_json_may_be_a_text_or_an_object() {
        assert!(!check(|_| {}).unwrap().0.has_dependencies());
        let (definition, _) =
            check(|value| value["packageJson"] = r#"{"dependencies":{"axios":"1"}}"#.into()).unwrap();
        assert!(definition.has_dependencies());
    }

    #[test]
    fn every_violation_is_listed_with_its_field() {
        let cases: [(&str, Value, &str); 17] = [
            ("environmentName", Value::Null, "/environmentName"),
            ("environmentName", "a/b".into(), "/environmentName"),
            ("backendUrls", Value::Null, "/backendUrls"),
            ("backendUrls", serde_json::json!({ "x/y": "a.example" }), "/backendUrls/x~1y"),
            ("packageJson", "{".into(), "/packageJson"),
            ("packageJson", 5.into(), "/packageJson"),
            ("packageJson", serde_json::json!({ "dependencies": ["a"] }), "/packageJson"),
            ("codeImplementation", " ".into(), "/codeImplementation"),
            (
                "codeImplementation",
                "x".repeat(limits::IMPLEMENTATION_BYTES_MAX + 1).into(),
                "/codeImplementation",
            ),
            ("installScripts", serde_json::json!(["../a"]), "/installScripts"),
            ("policy", "loose".into(), "/policy"),
            ("limits", serde_json::json!({ "timeoutMs": 15_001 }), "/limits/timeoutMs"),
            ("limits", serde_json::json!({ "memoryMb": 80 }), "/limits/memoryMb"),
            ("limits", serde_json::json!({ "memoryMb": 20 }), "/limits/memoryMb"),
            ("limits", serde_json::json!({ "maxApiCalls": 51 }), "/limits/maxApiCalls"),
            ("limits", serde_json::json!({ "cpuMs": 10_001 }), "/limits/cpuMs"),
            ("limits", serde_json::json!({ "maxConcurrentApiCalls": 0 }), "/limits/maxConcurrentApiCalls"),
        ];
        for (field, wrong, pointer) in cases {
            let errors = check(|value| value[field] = wrong.clone()).unwrap_err();
            assert_eq!(
                errors.iter().map(|error| error.pointer.as_str()).collect::<Vec<_>>(),
                [pointer],
                "{field}"
            );
        }
        assert_eq!(WireDefinition::default().check().unwrap_err().len(), 4);
    }
}
