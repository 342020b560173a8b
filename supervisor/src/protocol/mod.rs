//! The messages between the supervisor and its jailed Node processes, defined here once and
//! mirrored in `node-harness/src/shared/protocol.js`; `tests/fixtures/protocol` is read by the
//! tests of both.
//!
//! A message is a JSON object with one key, its name. What comes from a jailed process is hostile:
//! unknown names and fields are refused, sizes are bounded by `frame`.

pub mod frame;
mod nesting;
mod socket;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use nesting::nesting;

/// An error as programs and clients see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorDetails {
    pub name: String,
    pub message: String,
    /// A stable word for programs: what kind of error it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Line in the submitted source, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in the submitted source, from 1, in UTF-16 units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The line, between the one before and the one after. Only the supervisor writes it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// The program's own frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a program may use up; the harness enforces it for a clear error, the supervisor for safety.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Budgets {
    pub api_calls_max: u32,
    pub api_calls_concurrent_max: u32,
    pub params_bytes_max: usize,
    pub result_bytes_max: usize,
    pub log_entries_max: usize,
    pub log_chars_max: usize,
}

/// A program, and what it gets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    pub execution_id: String,
    pub source: String,
    pub entry: analyzer::Entry,
    /// Lines of `source` before the submitted text.
    pub lines_before: u32,
    /// Where columns of the submitted text have moved.
    pub shifts: Vec<analyzer::Shift>,
    /// Those of the environment's functions that the program can use.
    pub functions: Vec<String>,
    pub input: Box<RawValue>,
    /// Values that are given by their names.
    pub context: BTreeMap<String, Box<RawValue>>,
    pub budgets: Budgets,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ToGuest {
    /// An execution that may come next. The guest gets everything ready, and runs nothing of it before it is confirmed.
    Announce(Execution),
    /// What was announced is to run.
    Confirm {
        execution_id: String,
    },
    Execute(Execution),
    Return {
        execution_id: String,
        call_id: u32,
        value: Box<RawValue>,
    },
    Throw {
        execution_id: String,
        call_id: u32,
        error: ErrorDetails,
    },
    /// The time for which the guest asked with `Wait` is over.
    Wake {
        execution_id: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FromGuest {
    Ready {},
    /// `truncated`: it was cut, or stands for entries that were dropped.
    Log {
        execution_id: String,
        level: LogLevel,
        text: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    Call {
        execution_id: String,
        call_id: u32,
        name: String,
        params: Box<RawValue>,
    },
    Completed {
        execution_id: String,
        value: Box<RawValue>,
        /// What the value was before it became JSON.
        #[serde(skip_serializing_if = "Option::is_none")]
        result_type: Option<ResultType>,
    },
    Threw {
        execution_id: String,
        error: ErrorDetails,
    },
    /// The guest listens, and wants to be woken after so many milliseconds; a later one takes the place of an
    /// earlier one. It has one for each message that it was sent.
    Wait {
        execution_id: String,
        ms: u32,
    },
    Idle {
        execution_id: String,
    },
}

/// What a result was before it became JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultType {
    Undefined,
    Null,
    Boolean,
    Number,
    Bigint,
    String,
    Array,
    Date,
    Map,
    Set,
    TypedArray,
    Error,
    Object,
}

impl FromGuest {
    /// The execution that the guest says it speaks of. It learns the id with the program, so a
    /// message that was prepared for a later execution does not have its id.
    pub fn execution_id(&self) -> Option<&str> {
        match self {
            FromGuest::Ready {} => None,
            FromGuest::Log { execution_id, .. }
            | FromGuest::Call { execution_id, .. }
            | FromGuest::Completed { execution_id, .. }
            | FromGuest::Threw { execution_id, .. }
            | FromGuest::Wait { execution_id, .. }
            | FromGuest::Idle { execution_id } => Some(execution_id),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ToHost {
    Load { file: String, functions: Vec<String> },
    Initialize { agent_id: String, backends: BTreeMap<String, String> },
    Call { call_id: u32, name: String, params: Box<RawValue> },
    Deinitialize {},
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FromHost {
    Ready {},
    Loaded {},
    Initialized {},
    Returned {
        call_id: u32,
        value: Box<RawValue>,
    },
    /// An answer to `call`, or without `callId` to any other request.
    Threw {
        call_id: Option<u32>,
        error: ErrorDetails,
    },
    Deinitialized {},
    Log {
        level: LogLevel,
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    Log,
    Warn,
    Error,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// Every fixture must be read, and written again as the same JSON.
    fn check<T: Serialize + DeserializeOwned>(text: &str) {
        let fixtures: Vec<Box<RawValue>> = serde_json::from_str(text).unwrap();
        assert!(!fixtures.is_empty());
        for fixture in fixtures {
            let message: T =
                serde_json::from_str(fixture.get()).unwrap_or_else(|error| panic!("{fixture}: {error}"));
            let written: serde_json::Value = serde_json::to_value(&message).unwrap();
            let expected: serde_json::Value = serde_json::from_str(fixture.get()).unwrap();
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn the_fixtures_are_the_messages() {
        check::<ToGuest>(include_str!("../../../tests/fixtures/protocol/to-guest.json"));
        check::<FromGuest>(include_str!("../../../tests/fixtures/protocol/from-guest.json"));
        check::<ToHost>(include_str!("../../../tests/fixtures/protocol/to-host.json"));
        check::<FromHost>(include_str!("../../../tests/fixtures/protocol/from-host.json"));
    }

    #[test]
    fn hostile_messages_are_refused() {
        let messages = [
            "",
            "null",
            "{}",
            "[]",
            "\"ready\"",
            r#"{"ready":{"x":1}}"#,
            r#"{"call":{"callId":-1,"name":"a","params":{}}}"#,
            r#"{"call":{"callId":1,"name":"a"}}"#,
            r#"{"exit":{}}"#,
            r#"{"idle":{},"ready":{}}"#,
        ];
        for text in messages {
            assert!(serde_json::from_str::<FromGuest>(text).is_err(), "{text}");
            assert!(serde_json::from_str::<FromHost>(text).is_err(), "{text}");
        }
    }
}
