//! Tries one forbidden act, and prints what came of it as JSON on the standard error: the standard
//! output is the protocol socket. The supervisor runs it in the analyzer's jail.
//!
//!     analyzer --probe read /etc/passwd

use std::fs::File;
use std::io;

use serde_json::json;

/// Runs the act; an unknown one is an error of whoever asked.
pub fn run(act: &str, target: &str) -> io::Result<()> {
    let tried = match act {
        "read" => File::open(target).map(drop),
        "write" => File::create(target).map(drop),
        "connect" => connect(target),
        "spawn" => spawn(target),
        "signal" => signal(target),
        other => return Err(io::Error::other(format!("there is no act {other}"))),
    };
    let detail = tried.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned());
    eprintln!("{}", json!({ "succeeded": tried.is_ok(), "detail": detail }));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the probe tries what the jail must refuse")]
fn connect(target: &str) -> io::Result<()> {
    std::net::TcpStream::connect(target).map(drop)
}

#[expect(clippy::disallowed_methods, reason = "the probe tries what the jail must refuse")]
fn spawn(target: &str) -> io::Result<()> {
    std::process::Command::new(target).status().map(drop)
}

fn signal(target: &str) -> io::Result<()> {
    let pid = target.parse().map_err(io::Error::other)?;
    Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None)?)
}
