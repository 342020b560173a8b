//! jail-exec: reads one spec from its standard input, seals itself, and becomes the program.
//!
//! It is a program and not a hook in the supervisor, because Landlock binds the calling thread and
//! because almost nothing is safe to call after a fork of a process with threads.
//! Standard input is the protocol socket; standard output and error are the supervisor's pipes.

use std::io::Write as _;
use std::process::ExitCode;

/// When the jail could not be built; the reason stands on the standard error.
const FAILED: u8 = 121;

fn main() -> ExitCode {
    let failure = jail::become_program();
    // Nothing is left to tell when the supervisor no longer reads.
    let _ = writeln!(std::io::stderr(), "jail-exec: {failure}");
    ExitCode::from(FAILED)
}
