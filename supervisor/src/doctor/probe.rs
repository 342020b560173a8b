//! Forbidden acts, tried from inside a jail by `node-harness/src/probe/main.js`.

use std::net::TcpListener;
use std::path::PathBuf;

use jail::Kind;
use serde::Deserialize;

use super::ProbeReport;
use crate::config::limits;
use crate::worker::{
    Exit, ExitCause, Launch, LaunchError, Launcher, Program, node_arguments, node_environment,
};

/// What the probe prints.
#[derive(Deserialize)]
struct Answer {
    succeeded: bool,
    detail: String,
}

/// Tries every act in a jail, each in a process of its own.
pub async fn all(launcher: &Launcher, kind: Kind) -> Vec<ProbeReport> {
    // A listener of our own: the act must fail for want of a way, not of a listener.
    let listener =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, _listener) = match listener {
        Ok(listener) => listener,
        Err(error) => return vec![unmade(kind, "connect", String::new(), &error)],
    };
    let acts = [
        ("read", "/etc/passwd".to_owned()),
        ("write", "/tmp/cloister-probe".to_owned()),
        ("connect", address.to_string()),
        ("spawn", "/bin/true".to_owned()),
        ("signal", std::process::id().to_string()),
    ];
    let probes = acts.map(|(act, target)| one(launcher, kind, act, target));
    futures_util::future::join_all(probes).await
}

async fn one(launcher: &Launcher, kind: Kind, act: &'static str, target: String) -> ProbeReport {
    match run(launcher, kind, act, &target).await {
        Ok(exit) => {
            let (refused, detail) = judge(&exit);
            ProbeReport { jail: kind.to_string(), act: act.to_owned(), target, refused, detail }
        }
        Err(error) => unmade(kind, act, target, &error),
    }
}

/// A probe that cannot run proves nothing.
fn unmade(kind: Kind, act: &str, target: String, error: &dyn std::error::Error) -> ProbeReport {
    let detail = format!("the probe could not be made: {error}");
    ProbeReport { jail: kind.to_string(), act: act.to_owned(), target, refused: false, detail }
}

fn judge(exit: &Exit) -> (bool, String) {
    match (exit.cause, serde_json::from_slice::<Answer>(&exit.stdout)) {
        (ExitCause::Code(0), Ok(answer)) => (!answer.succeeded, answer.detail),
        (ExitCause::Signal(nix::libc::SIGSYS), _) => {
            (true, "the kernel ended the process (SIGSYS)".to_owned())
        }
        _ => (false, format!("the probe itself failed: {}", exit.diagnosis())),
    }
}

async fn run(
    launcher: &Launcher,
    kind: Kind,
    act: &str,
    target: &str,
) -> Result<std::sync::Arc<Exit>, LaunchError> {
    let mut arguments = node_arguments(32);
    arguments.extend([launcher.script("probe/main.js"), act.to_owned(), target.to_owned()]);
    if kind == Kind::Guest {
        arguments.push(launcher.seal());
    }
    let launch = Launch {
        kind,
        program: Program::Node,
        arguments,
        environment: node_environment(),
        grants: if kind == Kind::Guest { launcher.guest_grants() } else { launcher.harness_grants() },
        directory: PathBuf::from("/"),
        memory_bytes_max: limits::HOST_MEMORY_BYTES_MAX,
        stdout_bytes_max: limits::STDOUT_BYTES_MAX,
        folder: None,
    };
    let (process, _socket) = launcher.launch(launch).await?;
    let ended = tokio::time::timeout(limits::BOOT_TIME_MAX, process.ended()).await;
    ended.map_err(|_| LaunchError::Slow { kind })
}
