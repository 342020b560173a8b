//! What all Node processes have in common: flags, environment, getting ready, and their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jail::Kind;

use super::launch::LaunchError;
use super::process::{Exit, Process};
use crate::config::limits;
use crate::protocol::frame::{Connection, FrameError};

/// How long a process that closed its connection may take to end.
const EXIT_TIME_MAX: Duration = Duration::from_millis(500);

/// Flags of every Node: a bounded heap (it cannot see its control group), few threads, no inspector.
pub fn node_arguments(heap_megabytes: u64) -> Vec<String> {
    vec![
        format!("--max-old-space-size={heap_megabytes}"),
        "--max-semi-space-size=1".to_owned(),
        "--v8-pool-size=1".to_owned(),
        "--disable-wasm-trap-handler".to_owned(),
        "--disable-sigusr1".to_owned(),
    ]
}

/// OpenSSL gives up when its configuration is unreadable, but not when there is none.
pub fn node_environment() -> BTreeMap<String, String> {
    [("OPENSSL_CONF", "/nonexistent"), ("UV_THREADPOOL_SIZE", "1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Waits for the first message, which must be `ready`. `None` means that time ran out.
pub async fn await_ready<In, Out>(
    connection: &mut Connection<In, Out>,
    is_ready: impl Fn(&In) -> bool,
) -> Option<Result<(), FrameError>>
where
    In: serde::de::DeserializeOwned,
    Out: serde::Serialize,
{
    let first = tokio::time::timeout(limits::BOOT_TIME_MAX, connection.receive()).await.ok()?;
    Some(match first {
        Ok(message) if is_ready(&message) => Ok(()),
        Ok(_) => Err(FrameError::Garbage("its first message was not `ready`".to_owned())),
        Err(error) => Err(error),
    })
}

/// The process, if it got ready; else its reason, from its own words where it has ended.
pub async fn started(
    kind: Kind,
    process: Process,
    ready: Option<Result<(), FrameError>>,
) -> Result<Process, LaunchError> {
    match ready {
        Some(Ok(())) => Ok(process),
        None => Err(LaunchError::Slow { kind }),
        Some(Err(FrameError::Closed)) => Err(LaunchError::NotReady {
            kind,
            reason: exit_of(&process)
                .await
                .map_or_else(|| "closed its connection".to_owned(), |exit| exit.diagnosis()),
        }),
        Some(Err(error)) => Err(LaunchError::NotReady { kind, reason: error.to_string() }),
    }
}

/// The exit of a process that closed its connection; `None` when it goes on without.
pub async fn exit_of(process: &Process) -> Option<Arc<Exit>> {
    tokio::time::timeout(EXIT_TIME_MAX, process.ended()).await.ok()
}
