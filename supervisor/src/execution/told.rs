//! What a guest is told of an execution.

use analyzer::{Entry, LINES_BEFORE_CALL, Likely, Program};

use super::request::ExecutionRequest;
use crate::config::limits;
use crate::ids::ExecutionId;
use crate::protocol::{Budgets, Execution};

pub fn execution(id: &str, request: &ExecutionRequest, program: &Program) -> Execution {
    Execution {
        execution_id: id.to_owned(),
        source: program.source.clone(),
        entry: program.entry,
        lines_before: program.lines_before,
        shifts: program.shifts.clone(),
        functions: program.functions.clone(),
        input: request.input().to_owned(),
        context: request.given(),
        budgets: budgets(request),
    }
}

pub fn likely(id: &ExecutionId, request: &ExecutionRequest, likely: &Likely) -> Execution {
    Execution {
        execution_id: id.to_string(),
        source: likely.source.clone(),
        entry: Entry::Call,
        lines_before: LINES_BEFORE_CALL,
        shifts: Vec::new(),
        functions: likely.functions.clone(),
        input: request.input().to_owned(),
        context: request.given(),
        budgets: budgets(request),
    }
}

fn budgets(request: &ExecutionRequest) -> Budgets {
    let definition = &request.environment().definition;
    Budgets {
        api_calls_max: definition.api_calls_max(),
        api_calls_concurrent_max: definition.api_calls_concurrent_max(),
        params_bytes_max: limits::PARAMS_BYTES_MAX,
        result_bytes_max: limits::RESULT_BYTES_MAX,
        log_entries_max: limits::LOG_ENTRIES_MAX,
        log_chars_max: limits::LOG_CHARS_MAX,
    }
}
