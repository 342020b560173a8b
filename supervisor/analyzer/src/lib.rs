//! The messages between the supervisor and the analyzer: one request, one answer, in frames of
//! four bytes of big-endian length and JSON.
//!
//! This library is all that the supervisor links of the package. The parser is in the binary, which
//! runs in a jail of its own: no Rust parser of JavaScript survives deep nesting, so it works where
//! an abort costs one request.

use serde::{Deserialize, Serialize};

/// The largest request and the largest answer, in bytes.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Code that an agent submits.
    Program { source: String },
    /// Code that a contributor provisions.
    Implementation { source: String },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Program(Program),
    Implementation(Implementation),
    /// The source cannot be used; at least one reason.
    Refused {
        violations: Vec<Violation>,
    },
}

/// How the guest runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    /// `source` evaluates to a function, which is called with the input.
    Call,
    /// The completion value of `source` is the result.
    Script,
}

/// A program in the form in which the guest evaluates it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    pub source: String,
    pub entry: Entry,
    /// Lines of `source` that precede the submitted text; columns are the same.
    pub lines_before: u32,
    /// Names that the program calls and nowhere declares, each once.
    pub unbound_calls: Vec<String>,
}

/// The module system in which an implementation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ModuleKind {
    #[serde(rename = "commonjs")]
    CommonJs,
    Module,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Implementation {
    pub module: ModuleKind,
    /// The functions marked `@endowment`, in the order of the source.
    pub endowments: Vec<String>,
}

/// One reason why a source cannot be used. Lines and columns count from 1, columns in UTF-16 units
/// as JavaScript counts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    pub message: String,
    pub line: u32,
    pub column: u32,
}
