//! `POST /api/execute` as written and checked.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::limits;
use crate::environment::{Catalogue, Environment, FieldError};
use crate::ids::{AgentId, EnvironmentName};

/// The body as written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WireExecution {
    pub environment_name: Option<String>,
    pub code: Option<String>,
    pub user_agent_id: Option<String>,
    /// Given to the program as `input`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Box<RawValue>>,
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
    input: Box<RawValue>,
    time_max: Duration,
    metadata: Option<String>,
    warnings: Vec<String>,
}

impl ExecutionRequest {
    pub fn check(wire: WireExecution, catalogue: &Catalogue) -> Result<ExecutionRequest, RequestRefusal> {
        let mut errors = Vec::new();
        let mut refuse = |pointer: &str, detail: String| errors.push(FieldError::new(pointer, detail));
        let name = match wire.environment_name.map(EnvironmentName::try_from) {
            Some(Ok(name)) => Some(name),
            Some(Err(detail)) => refuse("/environmentName", detail).into_none(),
            None => refuse("/environmentName", "environmentName is required".to_owned()).into_none(),
        };
        let agent = match wire.user_agent_id.map(AgentId::try_from) {
            Some(Ok(agent)) => Some(agent),
            Some(Err(detail)) => refuse("/userAgentId", detail).into_none(),
            None => refuse("/userAgentId", "userAgentId is required".to_owned()).into_none(),
        };
        if wire.code.as_ref().is_none_or(|code| code.trim().is_empty()) {
            refuse("/code", "code is required and must not be empty".to_owned());
        }
        let timeout = match &wire.timeout {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_u64().filter(|timeout| *timeout > 0) {
                Some(timeout) => Some(Duration::from_millis(timeout)),
                None => refuse("/timeout", "timeout must be a positive whole number of milliseconds".to_owned()).into_none(),
            },
        };
        let input = wire.input.unwrap_or_else(|| RawValue::NULL.to_owned());
        if input.get().len() > limits::INPUT_BYTES_MAX {
            refuse("/input", format!("input is larger than {} bytes", limits::INPUT_BYTES_MAX));
        }
        let metadata = wire.metadata.filter(|value| !value.is_null());
        if metadata.as_ref().is_some_and(|value| !value.is_object() || value.to_string().len() > limits::METADATA_BYTES_MAX) {
            refuse("/metadata", format!("metadata must be an object of at most {} bytes", limits::METADATA_BYTES_MAX));
        }
        let (Some(name), Some(agent), Some(code), true) = (name, agent, wire.code, errors.is_empty()) else {
            return Err(RequestRefusal::Invalid(errors));
        };
        if code.len() > limits::CODE_BYTES_MAX {
            return Err(RequestRefusal::CodeTooLarge);
        }
        let environment = catalogue.get(&name).ok_or(RequestRefusal::UnknownEnvironment(name))?;
        let (time_max, warnings) = allowed_time(timeout, environment.policy.time_max);
        let metadata = metadata.map(|value| value.to_string());
        Ok(ExecutionRequest { environment, agent, code, input, time_max, metadata, warnings })
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

    pub fn input(&self) -> &RawValue {
        &self.input
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

/// `None` of any kind, after a refusal was noted.
trait IntoNone {
    fn into_none<T>(self) -> Option<T>;
}

impl IntoNone for () {
    fn into_none<T>(self) -> Option<T> {
        None
    }
}

fn allowed_time(wanted: Option<Duration>, allowed: Duration) -> (Duration, Vec<String>) {
    match wanted {
        Some(wanted) if wanted > allowed => {
            let warning = format!("timeout was lowered to {} ms, which the environment allows", allowed.as_millis());
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
