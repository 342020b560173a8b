//! What commands print, and the codes with which they end (as `sysexits.h` has them, where it does).

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use crate::http::Problem;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

const FAILURE: u8 = 1;
const DATA: u8 = 65;
const UNAVAILABLE: u8 = 69;
const INTERNAL: u8 = 70;
const TEMPORARY: u8 = 75;
const CONFIGURATION: u8 = 78;

/// Why a command failed.
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { code: FAILURE, message: message.into() }
    }

    /// What the user gave cannot be used.
    pub fn data(message: impl Into<String>) -> Failure {
        Failure { code: DATA, message: message.into() }
    }

    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure { code: UNAVAILABLE, message: message.into() }
    }

    pub fn internal(error: impl std::fmt::Display) -> Failure {
        Failure { code: INTERNAL, message: error.to_string() }
    }

    pub fn configuration(error: impl std::fmt::Display) -> Failure {
        Failure { code: CONFIGURATION, message: error.to_string() }
    }

    /// A refusal of the supervisor, with every violation on a line of its own.
    pub fn problem(problem: &Problem) -> Failure {
        let code = match problem.status {
            400 | 413 | 422 => DATA,
            503 => TEMPORARY,
            500 => INTERNAL,
            _ => FAILURE,
        };
        let violations = problem
            .violations
            .iter()
            .map(|violation| format!("\n  line {}: {}", violation.line, violation.message));
        let fields = problem.errors.iter().map(|error| format!("\n  {} {}", error.pointer, error.detail));
        let details: String = violations.chain(fields).collect();
        let message =
            if details.is_empty() { problem.detail.clone() } else { format!("{}:{details}", problem.code) };
        Failure { code, message }
    }

    pub fn report(self) -> ExitCode {
        complain(&format!("error: {}", self.message));
        ExitCode::from(self.code)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(error.to_string())
    }
}

/// Prints a result. A reader that has gone away is not an error.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints something that is not a result.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(value).map_err(Failure::internal)?);
    Ok(())
}

/// A table without frames, for terminals and for pipes.
pub fn print_table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for line in table.to_string().lines() {
        print(line.trim_end());
    }
}
