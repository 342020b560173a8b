//! A guest: the Node process in which programs run.

use std::path::PathBuf;
use std::time::Duration;

use jail::{JIT_VARIABLE, Kind};

use super::launcher::{Launch, LaunchError, Launcher, Program};
use super::node::{await_ready, node_arguments, node_environment, started};
use super::process::Process;
use super::snapshot::Snapshot;
use crate::config::{Policy, limits};
use crate::protocol::frame::Connection;
use crate::protocol::{FromGuest, ToGuest};

/// A guest that said `ready`: it is sealed.
pub struct Guest {
    pub process: Process,
    pub connection: Connection<FromGuest, ToGuest>,
    /// Programs that ran in it.
    pub executions: u32,
    /// The processor time that it had used when it was last at rest.
    pub cpu_before: Duration,
}

impl Guest {
    /// Whether it lives, and has said nothing since it proved idle.
    pub fn is_usable(&self) -> bool {
        !self.process.has_ended() && self.connection.is_quiet()
    }

    /// Notes what it has used, so that the next program starts without it; nobody waits for a guest at rest.
    pub fn rest(&mut self) {
        self.process.reset_peak();
        self.cpu_before = self.process.meter().cpu();
    }

    /// Starts from the snapshot.
    pub async fn start(
        launcher: &Launcher,
        snapshot: &Snapshot,
        policy: &Policy,
    ) -> Result<Guest, LaunchError> {
        let heap = policy.memory_bytes_max / limits::MEGABYTE;
        let mut arguments = node_arguments(heap);
        let mut environment = node_environment();
        if !policy.jit {
            arguments.push("--jitless".to_owned());
            environment.insert(JIT_VARIABLE.to_owned(), "off".to_owned());
        }
        arguments.extend(["--snapshot-blob".to_owned(), snapshot.inside(launcher), launcher.seal()]);
        let mut grants = launcher.guest_grants();
        grants.push(snapshot.grant());
        let launch = Launch {
            kind: Kind::Guest,
            program: Program::Node,
            arguments,
            environment,
            grants,
            directory: PathBuf::from("/"),
            program_memory_bytes: policy.memory_bytes_max,
            jit: policy.jit,
            stdout_bytes_max: limits::STDOUT_BYTES_MAX,
            folder: None,
        };
        let (process, socket) = launcher.launch(launch).await?;
        let mut connection =
            Connection::new(socket, limits::FRAME_FROM_WORKER_BYTES_MAX, limits::FRAME_TO_WORKER_BYTES_MAX);
        let ready = await_ready(&mut connection, |message| matches!(message, FromGuest::Ready {})).await;
        let process = started(Kind::Guest, process, ready).await?;
        let mut guest = Guest { process, connection, executions: 0, cpu_before: Duration::ZERO };
        guest.rest();
        Ok(guest)
    }
}
