//! How an execution ended: exactly one outcome, and the first cause wins.

use serde::Serialize;
use serde_json::value::RawValue;

use super::error_details;
use super::ledger::Effect;
use crate::egress::EgressEvent;
use crate::pool::LeaseError;
use crate::protocol::{ErrorDetails, LogLevel, ResultType};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Completed,
    /// The program threw, or its environment could not be initialized.
    Error,
    /// It used up its time, by the clock or of the processor.
    Timeout,
    OutOfMemory,
    /// The caller went away.
    Cancelled,
    /// A process ended or broke the protocol.
    WorkerLost,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Completed => "completed",
            Status::Error => "error",
            Status::Timeout => "timeout",
            Status::OutOfMemory => "out_of_memory",
            Status::Cancelled => "cancelled",
            Status::WorkerLost => "worker_lost",
        }
    }
}

/// One log entry of the program.
#[derive(Clone, Debug, Serialize)]
pub struct LogEntry {
    pub level: LogLevel,
    pub text: String,
    /// It was cut, or stands for entries that were dropped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// The end of the program itself.
pub enum End {
    Completed { value: Box<RawValue>, result_type: Option<ResultType> },
    Failed { status: Status, error: ErrorDetails },
}

impl End {
    pub fn failed(status: Status, name: &str, code: &str, message: String, hint: Option<&str>) -> End {
        End::Failed { status, error: error_details(name, code, message, hint) }
    }

    pub fn worker_lost(code: &str, message: String) -> End {
        End::failed(
            Status::WorkerLost,
            "WorkerLost",
            code,
            message,
            Some("Run the program again; a new process is used."),
        )
    }
}

/// Everything that is known about an ended execution.
pub struct Outcome {
    pub end: End,
    pub logs: Vec<LogEntry>,
    pub effects: Vec<Effect>,
    pub egress: Vec<EgressEvent>,
    pub api_call_count: u32,
    pub cpu_ms: f64,
    pub peak_memory_bytes: u64,
}

impl Outcome {
    pub fn status(&self) -> Status {
        match &self.end {
            End::Completed { .. } => Status::Completed,
            End::Failed { status, .. } => *status,
        }
    }
}

/// The outcome of a program whose environment could not be initialized, and which did not run.
pub fn initialize_failed(error: &LeaseError) -> Outcome {
    let hint =
        Some("The contributor of the environment has to look at its Initialize function and its backends.");
    not_started(error_details("InitializeError", "initialize_failed", error.to_string(), hint))
}

/// The outcome of a program that did not run.
pub fn not_started(error: ErrorDetails) -> Outcome {
    Outcome {
        end: End::Failed { status: Status::Error, error },
        logs: Vec::new(),
        effects: Vec::new(),
        egress: Vec::new(),
        api_call_count: 0,
        cpu_ms: 0.0,
        peak_memory_bytes: 0,
    }
}
