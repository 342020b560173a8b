//! `POST /api/execute` as written and checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use analyzer::{GLOBALS, Language, Submission};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::admission::Priority;
use crate::config::limits;
use crate::environment::{Catalogue, Environment};
use crate::fields::{FieldError, FieldErrors};
use crate::ids::{AgentId, EnvironmentName};
use crate::protocol::nesting;

/// The body as written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct WireExecution {
    pub environment_name: Option<String>,
    pub code: Option<String>,
    pub user_agent_id: Option<String>,
    /// Found out where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The top-level function to call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Given to the program by its keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<BTreeMap<String, Box<RawValue>>>,
    /// Given to the program as `input`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Box<RawValue>>,
    /// Who goes first when executions wait for their turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Wall time in milliseconds; may lower what the environment allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Value>,
    /// The caller's own notes, kept in the audit record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

#[derive(Debug, thiserror::Error)]
pub enum RequestRefusal {
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    #[error("environment {0} does not exist")]
    UnknownEnvironment(EnvironmentName),
    #[error("the code is larger than {} bytes", limits::CODE_BYTES_MAX)]
    CodeTooLarge,
}

/// A checked request.
pub struct ExecutionRequest {
    environment: Arc<Environment>,
    agent: AgentId,
    code: String,
    language: Option<Language>,
    entry: Option<String>,
    context: BTreeMap<String, Box<RawValue>>,
    input: Box<RawValue>,
    priority: Priority,
    time_max: Duration,
    metadata: Option<String>,
    warnings: Vec<String>,
}

impl ExecutionRequest {
    pub fn check(wire: WireExecution, catalogue: &Catalogue) -> Result<ExecutionRequest, RequestRefusal> {
        let mut errors = FieldErrors::default();
        let name = errors
            .required("environmentName", wire.environment_name)
            .and_then(|text| errors.keep("/environmentName", EnvironmentName::try_from(text)));
        let agent = errors
            .required("userAgentId", wire.user_agent_id)
            .and_then(|text| errors.keep("/userAgentId", AgentId::try_from(text)));
        if wire.code.as_ref().is_none_or(|code| code.trim().is_empty()) {
            errors.refuse("/code", "code is required and must not be empty");
        }
        let language = wire.language.and_then(|word| errors.keep("/language", parse_language(word)));
        let context = wire.context.unwrap_or_default();
        check_context(&mut errors, &context);
        let timeout = wire.timeout.filter(|value| !value.is_null());
        let timeout = timeout.and_then(|value| errors.keep("/timeout", parse_timeout(&value)));
        let priority = wire
            .priority
            .map_or(Some(Priority::default()), |word| errors.keep("/priority", parse_priority(word)));
        let input = wire.input.unwrap_or_else(|| RawValue::NULL.to_owned());
        if input.get().len() > limits::INPUT_BYTES_MAX {
            errors.refuse("/input", format!("input is larger than {} bytes", limits::INPUT_BYTES_MAX));
        } else if nesting(input.get()) > limits::NESTING_MAX {
            errors.refuse("/input", format!("input is nested more than {} levels deep", limits::NESTING_MAX));
        }
        let metadata = wire.metadata.filter(|value| !value.is_null());
        if metadata
            .as_ref()
            .is_some_and(|value| !value.is_object() || value.to_string().len() > limits::METADATA_BYTES_MAX)
        {
            errors.refuse(
                "/metadata",
                format!("metadata must be an object of at most {} bytes", limits::METADATA_BYTES_MAX),
            );
        }
        let (Some(name), Some(agent), Some(code), Some(priority), true) =
            (name, agent, wire.code, priority, errors.is_empty())
        else {
            return Err(RequestRefusal::Invalid(errors.into_list()));
        };
        if code.len() > limits::CODE_BYTES_MAX {
            return Err(RequestRefusal::CodeTooLarge);
        }
        let environment = catalogue.get(&name).ok_or(RequestRefusal::UnknownEnvironment(name))?;
        if let Some(key) = environment.endowments.iter().find(|function| context.contains_key(*function)) {
            errors.refuse(format!("/context/{key}"), format!("{key} is a function of this environment"));
            return Err(RequestRefusal::Invalid(errors.into_list()));
        }
        let (time_max, warnings) = allowed_time(timeout, environment.policy.time_max);
        let metadata = metadata.map(|value| value.to_string());
        Ok(ExecutionRequest {
            environment,
            agent,
            code,
            language,
            entry: wire.entry,
            context,
            input,
            priority,
            time_max,
            metadata,
            warnings,
        })
    }

    pub fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }

    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    pub fn code(&self) -> &str {
        &self.code
    }

    /// What the analyzer is asked.
    pub fn submission(&self) -> Submission {
        Submission {
            source: self.code.clone(),
            language: self.language,
            entry: self.entry.clone(),
            has_input: self.input.get() != "null",
            functions: self.environment.endowments.clone(),
            given: self.given().into_keys().collect(),
        }
    }

    /// The values that the program finds by their names: its context, for whom it runs, and where.
    pub fn given(&self) -> BTreeMap<String, Box<RawValue>> {
        let own = [("__agentId", self.agent.as_str()), ("__env", self.environment.name().as_str())];
        let texts =
            own.into_iter().filter_map(|(name, text)| Some((name.to_owned(), to_raw_value(text).ok()?)));
        self.context.clone().into_iter().chain(texts).collect()
    }

    /// How much is given to the program.
    pub fn given_bytes(&self) -> usize {
        let context = self.context.iter().map(|(key, value)| key.len() + value.get().len());
        self.input.get().len() + context.sum::<usize>()
    }

    pub fn input(&self) -> &RawValue {
        &self.input
    }

    pub fn priority(&self) -> Priority {
        self.priority
    }

    pub fn time_max(&self) -> Duration {
        self.time_max
    }

    pub fn metadata(&self) -> Option<&str> {
        self.metadata.as_deref()
    }

    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn parse_priority(word: String) -> Result<Priority, String> {
    serde_json::from_value(Value::String(word)).map_err(|_| "must be high, normal or low".to_owned())
}

fn parse_language(word: String) -> Result<Language, String> {
    serde_json::from_value(Value::String(word)).map_err(|_| "must be javascript or typescript".to_owned())
}

/// A key becomes a name of the program, beside those that it has already.
fn check_context(errors: &mut FieldErrors, context: &BTreeMap<String, Box<RawValue>>) {
    let bytes: usize = context.values().map(|value| value.get().len()).sum();
    if bytes > limits::INPUT_BYTES_MAX {
        errors.refuse("/context", format!("context is larger than {} bytes", limits::INPUT_BYTES_MAX));
    }
    if context.len() > limits::CONTEXT_KEYS_MAX {
        errors.refuse("/context", format!("context has more than {} keys", limits::CONTEXT_KEYS_MAX));
    }
    for (key, value) in context {
        let pointer = format!("/context/{}", key.replace('~', "~0").replace('/', "~1"));
        let first =
            key.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || "_$".contains(first));
        let rest = key.chars().all(|character| character.is_ascii_alphanumeric() || "_$".contains(character));
        if !first || !rest {
            errors.refuse(pointer, "a key of context must be a name: letters, digits, _ and $");
        } else if GLOBALS.binary_search(&key.as_str()).is_ok() {
            errors.refuse(pointer, format!("{key} has a meaning of its own"));
        } else if nesting(value.get()) > limits::NESTING_MAX {
            errors.refuse(pointer, format!("it is nested more than {} levels deep", limits::NESTING_MAX));
        }
    }
}

fn parse_timeout(value: &Value) -> Result<Duration, String> {
    let milliseconds = value.as_u64().filter(|timeout| *timeout > 0);
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| "timeout must be a positive whole number of milliseconds".to_owned())
}

fn allowed_time(wanted: Option<Duration>, allowed: Duration) -> (Duration, Vec<String>) {
    match wanted {
        Some(wanted) if wanted > allowed => {
            let warning =
                format!("timeout was lowered to {} ms, which the environment allows", allowed.as_millis());
            (allowed, vec![warning])
        }
        wanted => (wanted.unwrap_or(allowed), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(text: &str) -> Vec<String> {
        match ExecutionRequest::check(serde_json::from_str(text).unwrap(), &Catalogue::default()) {
            Err(RequestRefusal::Invalid(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
            Err(other) => vec![other.to_string()],
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(pointers("{}"), ["/environmentName", "/userAgentId", "/code"]);
        let cases = [
            (r#"{"environmentName":"a","userAgentId":"b","code":" "}"#, "/code"),
            (r#"{"environmentName":"a","userAgentId":"b\n","code":"1"}"#, "/userAgentId"),
            (r#"{"environmentName":"a","userAgentId":"b","code":"1","timeout":0}"#, "/timeout"),
            (r#"{"environmentName":"a","userAgentId":"b","code":"1","timeout":"9"}"#, "/timeout"),
            (r#"{"environmentName":"a","userAgentId":"b","code":"1","metadata":[]}"#, "/metadata"),
            (r#"{"environmentName":"a","userAgentId":"b","code":"1","priority":"now"}"#, "/priority"),
            (r#"{"environmentName":"a","userAgentId":"b","code":"1","language":"go"}"#, "/language"),
            (r#"{"environmentName":"a","userAgentId":"b","code":"1","context":{"a b":1}}"#, "/context/a b"),
            (r#"{"environmentName":"a","userAgentId":"b","code":"1","context":{"JSON":1}}"#, "/context/JSON"),
            (r#"{"environmentName":"a","userAgentId":"b","code":"1"}"#, "environment a does not exist"),
        ];
        for (text, expected) in cases {
            assert_eq!(pointers(text), [expected], "{text}");
        }
    }

    #[test]
    fn a_timeout_may_only_be_lowered() {
        let allowed = Duration::from_secs(5);
        assert_eq!(allowed_time(None, allowed).0, allowed);
        assert_eq!(allowed_time(Some(Duration::from_secs(1)), allowed), (Duration::from_secs(1), vec![]));
        assert_eq!(allowed_time(Some(Duration::from_secs(9)), allowed).1.len(), 1);
    }
}
