//! A guest: the Node process in which programs run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jail::Kind;

use super::launcher::{Launch, LaunchError, Launcher, Program};
use super::process::Process;
use crate::config::{Policy, limits};
use crate::protocol::frame::{Connection, FrameError};
use crate::protocol::{FromGuest, ToGuest};

/// A guest that said `ready`.
pub struct Guest {
    pub process: Process,
    pub connection: Connection<FromGuest, ToGuest>,
    /// Programs that ran in it.
    pub executions: u32,
}

impl Guest {
    pub async fn start(launcher: &Launcher, policy: &Policy) -> Result<Guest, LaunchError> {
        let heap = policy.memory_bytes_max / (1024 * 1024);
        let mut arguments = node_arguments(heap);
        arguments.push(launcher.script("guest/main.js"));
        let launch = Launch {
            kind: Kind::Guest,
            program: Program::Node,
            arguments,
            environment: node_environment(),
            grants: launcher.harness_grants(),
            directory: PathBuf::from("/"),
            memory_bytes_max: policy.memory_bytes_max + limits::NODE_OVERHEAD_BYTES,
            stdout_bytes_max: limits::STDOUT_BYTES_MAX,
            folder: None,
        };
        let (process, socket) = launcher.launch(launch).await?;
        let mut connection =
            Connection::new(socket, limits::FRAME_FROM_WORKER_BYTES_MAX, limits::FRAME_TO_WORKER_BYTES_MAX);
        let ready = await_ready(&mut connection, |message| matches!(message, FromGuest::Ready {})).await;
        let process = started(Kind::Guest, process, ready).await?;
        Ok(Guest { process, connection, executions: 0 })
    }
}

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
        Some(Err(FrameError::Closed)) => {
            Err(LaunchError::NotReady { kind, reason: super::host::end_of(process).await })
        }
        Some(Err(error)) => Err(LaunchError::NotReady { kind, reason: error.to_string() }),
    }
}
