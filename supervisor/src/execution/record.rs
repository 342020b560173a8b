//! The end of an execution: its audit row, and the reply that may then be sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use analyzer::{EntryKind, Program};
use serde::Serialize;
use serde_json::value::RawValue;

use super::excerpt::excerpt;
use super::ledger::Effect;
use super::outcome::{End, LogEntry, Outcome, Status};
use super::request::ExecutionRequest;
use crate::audit::{Audit, Committed, StartRow};
use crate::clock::milliseconds;
use crate::config::{GuestIsolation, Isolation};
use crate::egress::EgressEvent;
use crate::ids::{Digest, ExecutionId};
use crate::protocol::{ErrorDetails, ResultType};
use crate::store::{ExecutionEndRow, ExecutionStartRow, StoreError};

/// An execution whose record is committed: only this can be replied.
pub struct Recorded {
    id: ExecutionId,
    request: ExecutionRequest,
    program: Arc<Program>,
    outcome: Outcome,
    duration: Duration,
    _committed: Committed,
}

/// The reply, as clients see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionView {
    id: ExecutionId,
    pub status: Status,
    is_error: bool,
    result: Option<Box<RawValue>>,
    result_type: Option<ResultType>,
    /// The value as text, or the error.
    execution_result: String,
    logs: Vec<LogEntry>,
    logs_truncated: bool,
    output: String,
    error: Option<String>,
    error_details: Option<ErrorDetails>,
    api_call_count: u32,
    effects: Vec<Effect>,
    egress: Vec<EgressEvent>,
    entry_kind: EntryKind,
    environment_name: String,
    user_agent_id: String,
    engine: &'static str,
    policy: &'static str,
    /// How processes were shared.
    isolation: Isolation,
    duration_ms: f64,
    usage: UsageView,
    warnings: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageView {
    cpu_ms: f64,
    peak_memory_bytes: u64,
}

/// The record as it is begun.
pub fn beginning(audit: &Audit, id: &ExecutionId, request: &ExecutionRequest, started_at: i64) -> StartRow {
    let environment = request.environment();
    Arc::new(ExecutionStartRow {
        id: id.to_string(),
        agent: request.agent().to_string(),
        environment: environment.name().to_string(),
        build: environment.build.digest().to_string(),
        policy: environment.definition.policy.as_str().to_owned(),
        isolation: serde_json::to_string(&environment.isolation).unwrap_or_default(),
        code: request.code().to_owned(),
        code_sha256: Digest::of_text(request.code()).to_string(),
        input: (request.input().get() != "null").then(|| request.input().get().to_owned()),
        metadata: request.metadata().map(str::to_owned),
        missing_layers: audit.missing_layers().to_owned(),
        started_at,
    })
}

impl Recorded {
    pub async fn commit(
        audit: &Audit,
        start: StartRow,
        id: ExecutionId,
        request: ExecutionRequest,
        program: Arc<Program>,
        outcome: Outcome,
        started: Instant,
    ) -> Result<Recorded, StoreError> {
        let duration = started.elapsed();
        let (error, result_bytes) = match &outcome.end {
            End::Completed { value, .. } => (None, value.get().len()),
            End::Failed { error, .. } => (serde_json::to_string(error).ok(), 0),
        };
        let end = ExecutionEndRow {
            status: outcome.status().as_str(),
            error,
            result_bytes: result_bytes as u64,
            effects: serde_json::to_string(&outcome.effects).unwrap_or_default(),
            egress: serde_json::to_string(&outcome.egress).unwrap_or_default(),
            duration_ms: milliseconds(duration),
            cpu_ms: outcome.cpu_ms,
            peak_memory_bytes: outcome.peak_memory_bytes,
        };
        let committed = audit.commit(start, end).await?;
        Ok(Recorded { id, request, program, outcome, duration, _committed: committed })
    }

    pub fn into_view(self) -> ExecutionView {
        let Recorded { id, request, program, outcome, duration, .. } = self;
        let status = outcome.status();
        let environment = request.environment();
        let mut warnings = [request.warnings(), &program.warnings].concat();
        if environment.isolation.guest == GuestIsolation::Environment {
            warnings.push(
                "agents share guest processes in this environment: SES alone keeps them apart".to_owned(),
            );
        }
        let (result, result_type, error_details) = match outcome.end {
            End::Completed { value, result_type } => (Some(value), result_type, None),
            End::Failed { mut error, .. } => {
                error.frame = error.line.and_then(|line| excerpt(request.code(), line));
                (None, None, Some(error))
            }
        };
        let error = error_details.as_ref().map(|error| format!("{}: {}", error.name, error.message));
        let execution_result = match (&error, &result) {
            (Some(error), _) => error.clone(),
            (None, Some(value)) => text_of(value),
            (None, None) => String::new(),
        };
        let output = outcome.logs.iter().map(|entry| entry.text.as_str()).collect::<Vec<_>>().join("\n");
        ExecutionView {
            id,
            status,
            is_error: status != Status::Completed,
            result,
            result_type,
            execution_result,
            logs_truncated: outcome.logs.iter().any(|entry| entry.truncated),
            logs: outcome.logs,
            output,
            error,
            error_details,
            api_call_count: outcome.api_call_count,
            effects: outcome.effects,
            egress: outcome.egress,
            entry_kind: program.entry_kind,
            environment_name: environment.name().to_string(),
            user_agent_id: request.agent().to_string(),
            engine: "v8",
            policy: environment.definition.policy.as_str(),
            isolation: environment.isolation.clone(),
            duration_ms: milliseconds(duration),
            usage: UsageView { cpu_ms: outcome.cpu_ms, peak_memory_bytes: outcome.peak_memory_bytes },
            warnings,
        }
    }
}

/// A string as it is, anything else as JSON.
fn text_of(value: &RawValue) -> String {
    serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned())
}
