//! Refusals as RFC 9457 problem details: the one place that gives them status codes.

use analyzer::Violation;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::analysis::AnalysisError;
use crate::environment::{NpmError, ProvisionRefusal};
use crate::execution::{ExecutionRefusal, RequestRefusal};
use crate::fields::FieldError;
use crate::worker::HostError;

/// A problem document. `code` is stable and for programs, `error` is for people; `errorType` is the
/// word under which clients of older systems know the kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
    pub error: String,
    pub error_type: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, code: &str, error_type: &str, detail: impl Into<String>) -> Problem {
        let detail = detail.into();
        Problem {
            kind: format!("urn:cloister:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Problem").to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            error: detail.clone(),
            error_type: error_type.to_owned(),
            detail,
            errors: Vec::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    pub fn not_found(detail: &str) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", "NotFound", detail)
    }

    pub fn method_not_allowed() -> Problem {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "InvalidRequest",
            "this path does not take this method",
        )
    }

    pub fn wrong_host() -> Problem {
        let detail = "the Host header must be localhost or a loopback address";
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", "InvalidRequest", detail)
    }

    pub fn unsupported_media_type() -> Problem {
        let detail = "send JSON, with the header `Content-Type: application/json`";
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "InvalidRequest", detail)
    }

    pub fn slow_body() -> Problem {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow_request",
            "InvalidRequest",
            "the body was not sent in time",
        )
    }

    pub fn broken_body(reason: &str) -> Problem {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "broken_request",
            "InvalidRequest",
            format!("the body cannot be read: {reason}"),
        )
    }

    pub fn body_too_large(bytes_max: usize) -> Problem {
        let detail = format!("the body is larger than {bytes_max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "InvalidRequest", detail)
    }

    pub fn invalid_json(error: &serde_json::Error) -> Problem {
        let code = match error.is_data() {
            true => "invalid_request",
            // serde_json has no other way to tell; it stops at 128 levels.
            false if error.to_string().starts_with("recursion limit") => "nesting_too_deep",
            false => "invalid_json",
        };
        Problem::new(
            StatusCode::BAD_REQUEST,
            code,
            "InvalidRequest",
            format!("the body is not valid: {error}"),
        )
    }

    /// A header or a query that cannot be used.
    pub fn invalid_parameter(detail: &str) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "InvalidRequest", detail)
    }

    pub fn shutting_down() -> Problem {
        let problem =
            Problem::not_ready("the supervisor is shutting down: try another, or this one in a moment");
        Problem { code: "shutting_down".to_owned(), retry_after: Some(5), ..problem }
    }

    pub fn not_ready(detail: &str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "Unavailable", detail)
    }

    /// Our own fault: the cause is logged, and not told.
    pub fn internal(cause: &dyn std::error::Error) -> Problem {
        tracing::error!(cause = %cause, "a request failed");
        let detail = "the supervisor failed; its log has the cause";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "InternalError", detail)
    }

    fn invalid(errors: Vec<FieldError>) -> Problem {
        let detail = errors.iter().map(|error| error.detail.as_str()).collect::<Vec<_>>().join("; ");
        Problem {
            errors,
            ..Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "InvalidRequest", detail)
        }
    }

    fn violations(code: &str, error_type: &str, violations: Vec<Violation>) -> Problem {
        let lines =
            violations.iter().map(|violation| format!("line {}: {}", violation.line, violation.message));
        let detail = lines.collect::<Vec<_>>().join("; ");
        Problem { violations, ..Problem::new(StatusCode::BAD_REQUEST, code, error_type, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<ExecutionRefusal> for Problem {
    fn from(refusal: ExecutionRefusal) -> Problem {
        let message = refusal.to_string();
        match refusal {
            ExecutionRefusal::Request(RequestRefusal::Invalid(errors)) => Problem::invalid(errors),
            ExecutionRefusal::Request(RequestRefusal::UnknownEnvironment(_)) => {
                Problem::new(StatusCode::NOT_FOUND, "environment_not_found", "EnvironmentNotFound", message)
            }
            ExecutionRefusal::Request(RequestRefusal::CodeTooLarge) => {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "code_too_large", "InvalidRequest", message)
            }
            ExecutionRefusal::Analysis(error) => of_analysis(error, "code_syntax_error", "CodeSyntaxError"),
            ExecutionRefusal::Overloaded(overloaded) => Problem {
                retry_after: Some(overloaded.retry_after_seconds),
                ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded", message)
            },
            // Its reason quotes what the process printed, which is for the operator.
            ExecutionRefusal::Start(error) => Problem::internal(&error),
            ExecutionRefusal::Audit(error) => Problem {
                detail: message.clone(),
                error: message,
                code: "audit_failed".to_owned(),
                ..Problem::internal(&error)
            },
            ExecutionRefusal::ShuttingDown => Problem::shutting_down(),
            ExecutionRefusal::Cancelled => Problem::not_ready(&message),
        }
    }
}

impl From<ProvisionRefusal> for Problem {
    fn from(refusal: ProvisionRefusal) -> Problem {
        let message = refusal.to_string();
        match refusal {
            ProvisionRefusal::Invalid(errors) => Problem::invalid(errors),
            ProvisionRefusal::Implementation(violations) => {
                Problem::violations("invalid_implementation", "ValidationError", violations)
            }
            ProvisionRefusal::NameTaken(_) => {
                Problem::new(StatusCode::CONFLICT, "environment_exists", "EnvironmentExists", message)
            }
            ProvisionRefusal::Unknown(_) => {
                Problem::new(StatusCode::NOT_FOUND, "environment_not_found", "EnvironmentNotFound", message)
            }
            ProvisionRefusal::Changed(_) => {
                Problem::new(StatusCode::PRECONDITION_FAILED, "environment_changed", "Conflict", message)
            }
            ProvisionRefusal::Busy => Problem {
                retry_after: Some(10),
                ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded", message)
            },
            ProvisionRefusal::ShuttingDown => Problem::shutting_down(),
            ProvisionRefusal::TooMany => {
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, "too_many_environments", "Overloaded", message)
            }
            ProvisionRefusal::Install(
                NpmError::Refused(_)
                | NpmError::Slow
                | NpmError::TooLarge(_)
                | NpmError::Script { .. }
                | NpmError::NoSuchPackage(_),
            ) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "install_failed", "InstallError", message),
            ProvisionRefusal::Install(error) => Problem::internal(&error),
            ProvisionRefusal::Load(HostError::Ended { printed, .. }) => {
                load_failed(format!("{message}: {printed}"))
            }
            ProvisionRefusal::Load(HostError::Threw { .. } | HostError::Slow { .. }) => load_failed(message),
            ProvisionRefusal::Load(error) => Problem::internal(&error),
            ProvisionRefusal::Analysis(error) => {
                of_analysis(error, "invalid_implementation", "ValidationError")
            }
            ProvisionRefusal::Io(error) => Problem::internal(&error),
            ProvisionRefusal::Store(error) => Problem::internal(&error),
            ProvisionRefusal::Json(error) => Problem::internal(&error),
        }
    }
}

fn load_failed(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "load_failed", "LoadError", detail)
}

fn of_analysis(error: AnalysisError, code: &str, error_type: &str) -> Problem {
    match error {
        AnalysisError::Refused(violations) => Problem::violations(code, error_type, violations),
        AnalysisError::TooComplex => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "code_too_complex",
            error_type,
            AnalysisError::TooComplex.to_string(),
        ),
        AnalysisError::Launch(error) => Problem::internal(&error),
        AnalysisError::OutOfTurn => Problem::internal(&AnalysisError::OutOfTurn),
        AnalysisError::Busy => Problem {
            retry_after: Some(1),
            ..Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "Overloaded",
                AnalysisError::Busy.to_string(),
            )
        },
    }
}

/// What a client sees when a handler panicked; the panic itself is in the log.
pub fn of_panic(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal(&std::io::Error::other("a handler panicked")).into_response()
}
