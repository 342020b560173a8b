//! Forbidden acts, tried from inside a jail by `node-harness/src/probe/main.js` and `analyzer --probe`.

use std::net::TcpListener;
use std::num::NonZero;
use std::path::PathBuf;

use futures_util::StreamExt as _;
use jail::Kind;
use serde::Deserialize;

use super::{ProbeOutcome, ProbeReport};
use crate::config::{PolicyName, limits};
use crate::worker::{
    Exit, ExitCause, GuestMake, Launch, LaunchError, Launcher, Program, Zygote, node_arguments,
    node_environment,
};

/// Where somebody else's code runs.
const JAILS: [Kind; 4] = [Kind::Guest, Kind::Host, Kind::Installer, Kind::Analyzer];

/// What the probe prints.
#[derive(Deserialize)]
struct Answer {
    succeeded: bool,
    detail: String,
}

/// Tries every act in every jail, each in a process of its own, as many at once as there are processors.
pub async fn all(launcher: &Launcher) -> Vec<ProbeReport> {
    // A listener of our own: the act must fail for want of a way, not of a listener.
    let listener =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, _listener) = match listener {
        Ok(listener) => listener,
        Err(error) => return vec![unmade(Kind::Guest, "connect", String::new(), error.to_string())],
    };
    let own_pid = std::process::id();
    let acts = [
        ("read", "/etc/passwd".to_owned()),
        ("read", format!("/proc/{own_pid}/environ")),
        ("write", "/tmp/cloister-probe".to_owned()),
        ("connect", address.to_string()),
        ("spawn", "/bin/true".to_owned()),
        ("signal", own_pid.to_string()),
    ];
    let every = JAILS.into_iter().flat_map(|kind| acts.clone().map(|(act, target)| (kind, act, target)));
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    futures_util::stream::iter(every)
        .map(|(kind, act, target)| one(launcher, kind, act, target))
        .buffered(at_once)
        .collect()
        .await
}

/// A second try for a probe that could not be made: the machine may have been busy.
async fn one(launcher: &Launcher, kind: Kind, act: &'static str, target: String) -> ProbeReport {
    let first = attempt(launcher, kind, act, target.clone()).await;
    match first.outcome {
        ProbeOutcome::NotMade => attempt(launcher, kind, act, target).await,
        _ => first,
    }
}

async fn attempt(launcher: &Launcher, kind: Kind, act: &'static str, target: String) -> ProbeReport {
    match run(launcher, kind, act, &target).await {
        Ok(exit) => {
            let (outcome, detail) = judge(&exit);
            ProbeReport { jail: kind.to_string(), act: act.to_owned(), target, outcome, detail }
        }
        Err(error) => unmade(kind, act, target, error.to_string()),
    }
}

fn unmade(kind: Kind, act: &str, target: String, reason: String) -> ProbeReport {
    let detail = format!("the probe could not be made: {reason}");
    ProbeReport {
        jail: kind.to_string(),
        act: act.to_owned(),
        target,
        outcome: ProbeOutcome::NotMade,
        detail,
    }
}

fn judge(exit: &Exit) -> (ProbeOutcome, String) {
    // An analyzer's standard output is its protocol socket, so it answers on the other.
    let printed = if exit.stdout.is_empty() { exit.stderr.as_bytes() } else { &exit.stdout };
    match (exit.cause, serde_json::from_slice::<Answer>(printed)) {
        (_, Ok(answer)) if answer.succeeded => (ProbeOutcome::Succeeded, answer.detail),
        (_, Ok(answer)) => (ProbeOutcome::Refused, answer.detail),
        (ExitCause::Signal(nix::libc::SIGSYS), _) => {
            (ProbeOutcome::Refused, "the kernel ended the process (SIGSYS)".to_owned())
        }
        _ => (ProbeOutcome::NotMade, format!("the probe itself failed: {}", exit.diagnosis())),
    }
}

async fn run(
    launcher: &Launcher,
    kind: Kind,
    act: &str,
    target: &str,
) -> Result<std::sync::Arc<Exit>, LaunchError> {
    let script = || [launcher.script("src/probe/main.js"), act.to_owned(), target.to_owned()];
    let process = if kind == Kind::Guest {
        let make = GuestMake::of(&PolicyName::default().load());
        let zygote = Zygote::start(launcher, make, script(), Vec::new()).await?;
        // It reads how it is confined, and nothing else.
        launcher.fork(&zygote).await?.0
    } else {
        let (program, arguments, grants) = match kind {
            Kind::Analyzer => {
                let arguments = vec!["--probe".to_owned(), act.to_owned(), target.to_owned()];
                (Program::Analyzer, arguments, Vec::new())
            }
            _ => {
                let arguments = [node_arguments(32).as_slice(), &script()].concat();
                (Program::Node, arguments, launcher.harness_grants())
            }
        };
        let launch = Launch {
            kind,
            program,
            arguments,
            environment: node_environment(),
            grants,
            directory: PathBuf::from("/"),
            program_memory_bytes: 0,
            jit: true,
            stdout_bytes_max: limits::STDOUT_BYTES_MAX,
            folder: None,
        };
        launcher.launch(launch).await?.0
    };
    let ended = tokio::time::timeout(limits::BOOT_TIME_MAX, process.ended()).await;
    ended.map_err(|_| LaunchError::Slow { kind })
}
