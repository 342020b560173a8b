//! jail-exec: reads one spec from its standard input, seals itself, and becomes the program.
//!
//! It is a program and not a hook in the supervisor, because Landlock binds the calling thread and
//! because almost nothing is safe to call after a fork of a process with threads.
//! Standard input is the protocol socket; standard output and error are the supervisor's pipes.

mod confine;
mod root;
mod sys;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use jail::{SPEC_BYTES_MAX, Spec};

/// When the jail could not be built; the reason stands on the standard error.
const FAILED: u8 = 121;

fn main() -> ExitCode {
    let socket = sys::standard_input_socket();
    let Err(failure) = launch(socket);
    // Nothing is left to tell when the supervisor no longer reads.
    let _ = writeln!(std::io::stderr(), "jail-exec: {failure}");
    ExitCode::from(FAILED)
}

fn launch(mut socket: UnixStream) -> Result<std::convert::Infallible, confine::Failure> {
    let spec = read_spec(&mut socket).map_err(|source| confine::Failure::new("read the spec", source))?;
    confine::Unconfined::new(spec, socket)?.isolate()?.restrict_files()?.seal()?.exec()
}

/// One frame as in the protocol: four bytes of big-endian length, then JSON.
fn read_spec(socket: &mut UnixStream) -> std::io::Result<Spec> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > SPEC_BYTES_MAX {
        return Err(std::io::Error::other(format!("{length} bytes, {SPEC_BYTES_MAX} are the most")));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}
